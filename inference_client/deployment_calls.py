"""The calls about deployments: models that are kept warm."""

from collections.abc import Callable, Iterator

from inference_client.client_base import ClientBase
from inference_client.paths import deployment_path
from inference_client.readiness import wait_until_ready
from inference_client.schemas import DeploymentView
from inference_client.serving import ServingSpec


class DeploymentCalls(ClientBase):
    """Part of `InferenceClient`."""

    def deploy(self, model: str, serving: ServingSpec) -> DeploymentView:
        """Keep a model's default version warm, or that of `<id>@<version>`; or change how it is kept.

        Raises `ModelNotFound`, `ModelRetired`, `NameTaken`.
        """
        answer = self._connection.call(
            "POST",
            deployment_path(model),
            headers={"Content-Type": "application/json"},
            body=lambda: [serving.model_dump_json(exclude_unset=True).encode()],
            repeatable=True,
        )
        return self._parse(DeploymentView, answer)

    def undeploy(self, human_readable_id: str) -> None:
        """Stop keeping a model warm. Doing so twice is not an error. Raises `ModelNotFound`."""
        self._connection.call("DELETE", deployment_path(human_readable_id), repeatable=True)

    def get_deployment(self, human_readable_id: str) -> DeploymentView:
        """One deployment. Raises `DeploymentNotFound`."""
        return self._get(DeploymentView, deployment_path(human_readable_id))

    def list_deployments(self) -> Iterator[DeploymentView]:
        """All deployments, fetched page by page."""
        return self._pages("/api/deployments/", DeploymentView, lambda view: view.human_readable_id)

    def wait_deployment(
        self,
        human_readable_id: str,
        *,
        timeout_s: float | None = None,
        on_change: Callable[[DeploymentView], None] | None = None,
    ) -> DeploymentView:
        """Block until every replica that should answer does; at once for a deployment that needs none.

        `on_change` is called as by `wait`. Raises `DeploymentFailing` if a replica ended by itself, and `WaitTimeout`.
        """
        return wait_until_ready(
            lambda: self.get_deployment(human_readable_id),
            self._connection.sleep,
            timeout_s=timeout_s,
            on_change=on_change,
        )
