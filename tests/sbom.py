"""Names what a release is made of, as CycloneDX: `make sbom`, or `python -m tests.sbom FILE` in its environment.

That is our own distributions, the Python packages that are locked for the image, with their hashes, the files of others
that lie in this repository, and the images of others. The same sources give the same bytes.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements/server.txt"
USES = {"PYTHON_IMAGE": "base", "TRAEFIK_IMAGE": "beside", "POSTGRES_IMAGE": "beside", "RABBITMQ_IMAGE": "beside"}
"""By the variable that names the image, whether ours is built on it or runs beside it."""
FILES = (
    PackageURL("npm", name="swagger-ui-dist", version="5.35.0"),
    PackageURL("golang", "github.com/moby/profiles", "seccomp", "v0.1.0"),
)
"""In `kit/docs_files` and `job_consumer/engines/docker/seccomp_profile`; decisions 0019 and 0044 say more."""
_IN_THE_IMAGE = {
    "sys_platform": "linux",
    "platform_system": "Linux",
    "os_name": "posix",
    "platform_python_implementation": "CPython",
    "implementation_name": "cpython",
    "python_version": "3.13",
    "python_full_version": "3.13.0",
}


def main(out: Path) -> None:
    """Write the document."""
    document = list_packages(select(LOCK.read_text()))
    document["components"] += [describe_client(), *map(describe_files, FILES)]
    document["components"] += map(describe_image, USES, find_images(), USES.values())
    document["components"].sort(key=lambda component: component["bom-ref"])
    document["dependencies"] = [{"ref": component["bom-ref"]} for component in document["components"]]
    text = json.dumps(document, indent=2) + "\n"
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise SystemExit(f"sbom: what was made is no CycloneDX 1.6: {error}")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)
    print(f"wrote {out}: {len(document['components'])} components")


def select(lock: str) -> str:
    """The packages of a lock for every platform that are installed into the image."""
    entries = re.findall(r"^[^\s#].*\n(?: .*\n)*", lock, re.MULTILINE)
    return "".join(entry for entry in entries if _is_installed(entry))


def list_packages(lock: str) -> dict[str, Any]:
    """The document of cyclonedx-py about a lock; a component is named by its package URL in place of its line."""
    tool = Path(sys.executable).with_name("cyclonedx-py")
    # Not validated here, which takes seconds: the whole document is.
    command = [tool, "requirements", "--pyproject", ROOT / "pyproject.toml", "--output-reproducible", "--no-validate"]
    with TemporaryDirectory() as folder:
        (path := Path(folder) / "server.txt").write_text(lock)
        done = subprocess.run([*command, path], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"sbom: cyclonedx-py failed: {done.stderr.strip()}")
    document: dict[str, Any] = json.loads(done.stdout)
    for component in document["components"]:
        # The line of the lock.
        del component["description"]
        component["bom-ref"] = component["purl"]
    return document


def describe_client() -> dict[str, Any]:
    """The distribution of the client, which the image holds as well."""
    project = tomllib.loads((ROOT / "inference_client/pyproject.toml").read_text())["project"]
    purl = PackageURL("pypi", name=project["name"], version=project["version"]).to_string()
    named = {"name": project["name"], "version": project["version"], "purl": purl, "bom-ref": purl}
    return {"type": "library", **named, "licenses": [{"license": {"id": project["license"]}}]}


def describe_files(url: PackageURL) -> dict[str, Any]:
    """Files of others that lie in this repository; both sets are under this license."""
    purl = url.to_string()
    named = {"name": "/".join(filter(None, (url.namespace, url.name))), "version": url.version, "purl": purl}
    return {"type": "library", "bom-ref": purl, **named, "licenses": [{"license": {"id": "Apache-2.0"}}]}


def describe_image(variable: str, image: str, use: str) -> dict[str, Any]:
    """An image by its name, with its tag or its digest as the version."""
    named, _, digest = image.partition("@")
    path, colon, tag = named.rpartition(":")
    if not colon or "/" in tag:
        path, tag = named, "latest"
    *place, name = path.split("/")
    # A registry has a dot or a port in its name, or is this machine.
    host = place.pop(0) if place and re.search(r"[.:]|^localhost$", place[0]) else None
    version = digest or tag
    url = PackageURL("docker", "/".join(place), name, version, {"repository_url": host} if host else None).to_string()
    properties = [
        {"name": "inference-server:use", "value": use},
        {"name": "inference-server:variable", "value": variable},
    ]
    return {
        "type": "container",
        "name": path,
        "version": version,
        "purl": url,
        "bom-ref": url,
        "properties": properties,
    }


def find_images() -> Iterator[str]:
    """The images as a build and Compose would take them: from the environment, `.env`, or the defaults."""
    defaults, own = (_read(ROOT / name) for name in (".env.example", ".env"))
    return (os.environ.get(name) or own.get(name) or defaults[name] for name in USES)


def _read(path: Path) -> Mapping[str, str]:
    text = path.read_text() if path.is_file() else ""
    return dict(re.findall(r"^(\w+)=(\S+)", text, re.MULTILINE))


def _is_installed(entry: str) -> bool:
    marker = Requirement(entry.splitlines()[0].rstrip("\\")).marker
    return marker is None or marker.evaluate(_IN_THE_IMAGE)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
