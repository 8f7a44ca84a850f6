"""Renders kustomizations as far as deploy/kubernetes needs it: its check needs no program that pip cannot install.

A directive that is not known here fails. Where kubectl is installed, a test compares the two.
"""

import copy
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Resource = dict[str, Any]

NAME = "app.kubernetes.io/name"
DIRECTIVES = {
    *("apiVersion", "kind", "namespace", "resources", "images", "labels", "nameSuffix", "patches"),
    *("configMapGenerator", "secretGenerator"),
}


def render(folder: Path) -> list[Resource]:
    """The resources of a kustomization, without the hashes in generated names."""
    rules = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(rules) <= DIRECTIVES, folder
    found: list[Resource] = []
    for name in rules["resources"]:
        path = folder / name
        found += render(path) if path.is_dir() else _load(path)
    for rule in rules.get("configMapGenerator", []):
        data = dict(pair for name in rule["envs"] for pair in _read_variables(folder / name))
        found.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": rule["name"]}, "data": data})
    for rule in rules.get("secretGenerator", []):
        data = {Path(name).name: "" for name in rule["files"]}
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": rule["name"]},
            "type": "Opaque",
            "data": data,
        }
        found.append(secret)
    for patch in rules.get("patches", []):
        for resource in found:
            if resource["kind"] == patch["target"]["kind"]:
                _patch(resource, yaml.safe_load(patch["patch"]))
    for resource in found:
        _transform(resource, rules)
    return found


def _load(path: Path) -> list[Resource]:
    # Copied: an anchor is one object for yaml, and must not be once it is changed.
    return [copy.deepcopy(document) for document in yaml.safe_load_all(path.read_text())]


def _read_variables(path: Path) -> list[tuple[str, str]]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return [(name, value) for name, _, value in (line.partition("=") for line in lines)]


def _patch(resource: Resource, operations: list[Resource]) -> None:
    for operation in operations:
        assert operation["op"] == "add"
        *parents, last = operation["path"].strip("/").split("/")
        place = functools.reduce(lambda place, key: place[key], parents, resource)
        assert last not in place
        place[last] = operation["value"]


def _transform(resource: Resource, rules: Resource) -> None:
    metadata = resource["metadata"]
    metadata["name"] += rules.get("nameSuffix", "")
    if "namespace" in rules and resource["kind"] != "Namespace":
        metadata["namespace"] = rules["namespace"]
    for label in rules.get("labels", []):
        assert label["includeSelectors"]
        spec = resource["spec"]
        for labels in (metadata["labels"], spec["selector"]["matchLabels"], spec["template"]["metadata"]["labels"]):
            labels.update(label["pairs"])
    for image in rules.get("images", []):
        for container in containers(resource):
            if container["image"] == image["name"]:
                container["image"] = f"{image['newName']}:{image['newTag']}"


def pod_template(resource: Resource) -> Resource | None:
    return resource["spec"]["template"] if resource["kind"] in ("Deployment", "StatefulSet", "DaemonSet") else None


def containers(resource: Resource) -> list[Resource]:
    template = pod_template(resource)
    return [*template["spec"].get("initContainers", []), *template["spec"]["containers"]] if template else []


class Rendered(list[Resource]):
    """One overlay's resources, and how to find one."""

    def of_kind(self, *kinds: str) -> list[Resource]:
        return [resource for resource in self if resource["kind"] in kinds]

    def get(self, kind: str, name: str) -> Resource:
        (resource,) = (resource for resource in self.of_kind(kind) if resource["metadata"]["name"] == name)
        return resource

    def workloads(self) -> Iterator[tuple[str, Resource, Resource]]:
        """The service's name, its pod's spec, its only container."""
        for resource in self:
            if template := pod_template(resource):
                (container,) = containers(resource)
                yield template["metadata"]["labels"][NAME], template["spec"], container

    def variables(self, container: Resource) -> dict[str, str]:
        """The environment as written: what a later source repeats wins."""
        found: dict[str, str] = {}
        for source in container.get("envFrom", []):
            found |= self.get("ConfigMap", source["configMapRef"]["name"])["data"]
        for variable in container.get("env", []):
            field = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
            found[variable["name"]] = variable.get("value", "192.0.2.7" if field == "status.hostIP" else "from-the-pod")
        return found

    def pods(self, selector: Resource) -> list[str]:
        """The names of the services whose pods have these labels."""
        templates = [template for resource in self if (template := pod_template(resource))]
        labels = [template["metadata"]["labels"] for template in templates]
        return [each[NAME] for each in labels if selector.items() <= each.items()]
