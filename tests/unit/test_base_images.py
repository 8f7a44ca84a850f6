"""Every image of others is named once per kind of deployment, by a tag, and can be pinned to a digest."""

import re
from pathlib import Path

import pytest
import yaml

from tests.unit.test_compose_file import configured
from tests.unit.test_kubernetes import copy_manifests, render

ROOT = Path(__file__).parents[2]
VARIABLES = ("TRAEFIK_IMAGE", "POSTGRES_IMAGE", "RABBITMQ_IMAGE", "PYTHON_IMAGE")
DIGEST = "sha256:" + "0" * 64
DEFAULTS = dict(re.findall(r"^(\w+_IMAGE)=(.+)$", (ROOT / ".env.example").read_text(), re.MULTILINE))


def test_every_default_is_a_tag_that_the_page_of_the_settings_names() -> None:
    page = (ROOT / "docs/operations/settings.md").read_text()
    for variable in VARIABLES:
        assert re.fullmatch(r"[a-z]+:[\w.-]+", DEFAULTS[variable])
        assert f"`{DEFAULTS[variable]}`" in page


@pytest.mark.parametrize("name", ["docker-compose.yaml", "stack.yaml"])
def test_compose_and_swarm_name_others_images_by_variables_alone(name: str) -> None:
    text = (ROOT / name).read_text()
    services = yaml.safe_load(text)["services"].values()
    others = {service["image"] for service in services if "INFERENCE_SERVER_IMAGE" not in service["image"]}
    assert others == {f"${{{variable}:-{DEFAULTS[variable]}}}" for variable in VARIABLES[:3]}


def test_compose_runs_and_builds_on_the_images_that_are_pinned(tmp_path: Path) -> None:
    pinned = {variable: f"{DEFAULTS[variable].partition(':')[0]}@{DIGEST}" for variable in VARIABLES}
    services = yaml.safe_load(configured(tmp_path, **pinned))["services"]
    for service in ("traefik", "postgres", "rabbitmq"):
        assert services[service]["image"] == pinned[f"{service.upper()}_IMAGE"]
    assert services["init"]["build"]["args"] == {"PYTHON_IMAGE": pinned["PYTHON_IMAGE"]}


def test_the_stages_of_an_image_are_built_on_one_base_that_can_be_pinned() -> None:
    for name in ("Dockerfile", "runtimes/redhare/Dockerfile"):
        text = (ROOT / name).read_text()
        stages = set(re.findall(r" AS (\w+)$", text, re.MULTILINE))
        bases = set(re.findall(r"^FROM (\S+)", text, re.MULTILINE))
        assert bases - stages == {"${PYTHON_IMAGE}"}
        assert re.findall(r"^ARG PYTHON_IMAGE=(.+)$", text, re.MULTILINE) == [DEFAULTS["PYTHON_IMAGE"]]


@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_an_overlay_names_others_images_and_pins_them(tmp_path: Path, overlay: str) -> None:
    manifests = copy_manifests(tmp_path)
    rules = yaml.safe_load((manifests / "overlays" / overlay / "kustomization.yaml").read_text())
    named = {each["name"]: f"{each['newName']}:{each['newTag']}" for each in rules["images"]}
    assert {name: named[name] for name in ("postgres", "rabbitmq")} == {
        name: DEFAULTS[f"{name.upper()}_IMAGE"] for name in ("postgres", "rabbitmq")
    }
    (line,) = re.findall(
        r"^  - (\{name: postgres.*digest.*\})$", (ROOT / "docs/operations/upgrade.md").read_text(), re.M
    )
    site = manifests / "site"
    site.mkdir()
    images = [yaml.safe_load(line.replace("sha256:...", DIGEST))]
    (site / "kustomization.yaml").write_text(
        yaml.safe_dump({"resources": [f"../overlays/{overlay}"], "images": images})
    )
    used = {container["image"] for _, _, container in render(site).workloads()}
    assert f"postgres@{DIGEST}" in used
    assert DEFAULTS["POSTGRES_IMAGE"] not in used
