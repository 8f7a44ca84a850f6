"""The client's calls about models and their versions."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from inference_client.client_base import ClientBase, T
from inference_client.errors import UnusableInput
from inference_client.models import ModelRegistration, ModelVersionView, ModelView
from inference_client.pack import OnProgress, select, select_zip, zip_headers
from inference_client.paths import model_path, query_value, version_path


class ModelCalls(ClientBase):
    """Part of `InferenceClient`."""

    def add_model(
        self,
        registration: ModelRegistration,
        archive: str | Path | None = None,
        *,
        on_progress: OnProgress | None = None,
    ) -> ModelView:
        """Register a model; `archive` is a zip, or a folder that becomes one. It decides `model_available`.

        Never tried twice: a second registration of the same id would be refused.
        """
        fields = registration.model_dump(exclude_none=True, exclude_defaults=True)
        params = {name: query_value(value) for name, value in fields.items()}
        params["model_available"] = query_value(archive is not None)
        if archive is None:
            answer = self._connection.call("POST", "/api/models/", params=params, repeatable=False)
        else:
            selection = select([Path(archive)]) if Path(archive).is_dir() else select_zip(Path(archive))
            answer = self._connection.call(
                "POST",
                "/api/models/",
                params=params,
                headers=zip_headers(selection),
                body=lambda: selection.chunks(on_progress),
                repeatable=False,
            )
        return self._parse(ModelView, answer)

    def list_models(self) -> Iterator[ModelView]:
        """All models in their default versions, fetched page by page."""
        return self._pages("/api/models/", ModelView, lambda model: model.human_readable_id)

    def get_model(self, model: str) -> ModelView:
        """One model in its default version, or that of `<id>@<version>`. Raises `ModelNotFound`."""
        return self._get(ModelView, model_path(model))

    def list_versions(self, human_readable_id: str) -> Iterator[ModelVersionView]:
        """All versions of a model, newest first, fetched page by page. Raises `ModelNotFound`."""
        return self._pages(
            f"{model_path(human_readable_id)}/versions", ModelVersionView, lambda view: str(view.version)
        )

    def change_model(
        self,
        human_readable_id: str,
        *,
        default_version: int | None = None,
        description: str | None = None,
        retired: bool | None = None,
        restricted: bool | None = None,
        users: Iterable[str] | None = None,
        owner: str | None = None,
    ) -> ModelView:
        """Change what is given, and return the default version. Needs the scope models, and the model to be one's own.

        Of a retired model no version takes new tasks; those that it has go on. A restricted one is for its owner and
        `users`, who are owners of keys. `owner` gives it away, which needs the scope operate. Raises `ModelNotFound`,
        `PermissionDenied`, and `ModelRetired` if the new default version is retired.
        """
        change = {
            "default_version": default_version,
            "description": description,
            "retired": retired,
            "restricted": restricted,
            "users": None if users is None else list(users),
            "owner": owner,
        }
        return self._patch(ModelView, model_path(human_readable_id), change)

    def change_version(
        self, human_readable_id: str, version: int, *, description: str | None = None, retired: bool | None = None
    ) -> ModelVersionView:
        """The same for one version. Raises `ModelNotFound`, and `ModelInUse` if the default version should retire."""
        change = {"description": description, "retired": retired}
        return self._patch(ModelVersionView, version_path(human_readable_id, version), change)

    def roll_back(self, human_readable_id: str) -> ModelView:
        """Make the version before the default one the default; retired ones are passed over.

        Raises `ModelNotFound`, and `UnusableInput` if there is no such version.
        """
        # One pass, newest first: the second search goes on where the first found the default.
        versions = self.list_versions(human_readable_id)
        default = next((view for view in versions if view.default), None)
        before = next((view for view in versions if not view.retired), None)
        if default is None or before is None:
            raise UnusableInput(f"{human_readable_id} has no version before its default one that takes tasks")
        return self.change_model(human_readable_id, default_version=before.version)

    def delete_model(self, human_readable_id: str) -> None:
        """Delete a model with all its versions; its ended tasks stay. Doing so twice is not an error.

        Needs the scope models. Raises `ModelNotFound`, and `ModelInUse` while a task, deployment or replica uses it.
        """
        self._connection.call("DELETE", model_path(human_readable_id), repeatable=True)

    def delete_version(self, human_readable_id: str, version: int) -> None:
        """The same for one version. Raises `ModelInUse` also for the default version."""
        self._connection.call("DELETE", version_path(human_readable_id, version), repeatable=True)

    def _patch(self, kind: type[T], path: str, change: Mapping[str, object]) -> T:
        given = {name: value for name, value in change.items() if value is not None}
        answer = self._connection.call(
            "PATCH",
            path,
            headers={"Content-Type": "application/json"},
            body=lambda: [json.dumps(given).encode()],
            repeatable=True,
        )
        return self._parse(kind, answer)
