"""What is known of the methods of public services: whether they are unary, and where they name a model."""

from dataclasses import dataclass

from contract.serving import Category

TENSORFLOW = "/tensorflow.serving."
TASKS = "/inferenceserver.Tasks/"
KSERVE_SERVICE = "inference.GRPCInferenceService"
KSERVE = f"/{KSERVE_SERVICE}/"
STATISTICS = f"{KSERVE}ModelStatistics"
"""If it names no model it is about all models of a server."""


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a public service."""

    is_unary: bool | None = True
    """None if it is not known."""
    name: tuple[int, ...] | None = None
    """The path of fields to the model's name in the request; None if no field holds one."""
    version: tuple[int, ...] | None = None
    spec: tuple[int, ...] | None = None
    """For TensorFlow: the path to the message that holds name and version."""
    category: Category | None = None
    """For KServe: what a restricted key closes."""
    is_admin: bool = False
    """Whether it changes the server or is meaningless across containers: it is passed on only where that is allowed."""


def _spec(*path: int, is_unary: bool = True) -> Method:
    # ModelSpec: name = 1, version = 2, which is an Int64Value: value = 1.
    return Method(is_unary, (*path, 1), (*path, 2, 1), path)


def _kserve(category: Category, name: int | None = 1, *, is_admin: bool = False, is_unary: bool = True) -> Method:
    # If the name is field 1, the version is field 2.
    version = (2,) if name == 1 else None
    return Method(is_unary, (name,) if name else None, version, category=category, is_admin=is_admin)


_METHODS: dict[str, Method] = {
    **{
        f"{TENSORFLOW}PredictionService/{name}": _spec(1)
        for name in ("Predict", "GetModelMetadata", "Classify", "Regress")
    },
    f"{TENSORFLOW}PredictionService/PredictStreamed": _spec(1, is_unary=False),
    # InferenceTask: model_spec = 1. All tasks of a request are for one server; the first names it.
    f"{TENSORFLOW}PredictionService/MultiInference": _spec(1, 1),
    f"{TENSORFLOW}SessionService/SessionRun": _spec(1),
    f"{TENSORFLOW}ModelService/GetModelStatus": _spec(1),
    f"{TENSORFLOW}ModelService/HandleReloadConfigRequest": Method(is_admin=True),
    f"{KSERVE}ServerLive": _kserve(Category.HEALTH, None),
    f"{KSERVE}ServerReady": _kserve(Category.HEALTH, None),
    f"{KSERVE}ModelReady": _kserve(Category.HEALTH),
    f"{KSERVE}ServerMetadata": _kserve(Category.METADATA, None),
    f"{KSERVE}ModelMetadata": _kserve(Category.METADATA),
    f"{KSERVE}ModelConfig": _kserve(Category.MODEL_CONFIG),
    STATISTICS: _kserve(Category.STATISTICS),
    f"{KSERVE}ModelInfer": _kserve(Category.INFERENCE),
    f"{KSERVE}ModelStreamInfer": _kserve(Category.INFERENCE, is_unary=False),
    f"{KSERVE}RepositoryIndex": _kserve(Category.MODEL_REPOSITORY, None),
    f"{KSERVE}RepositoryModelLoad": _kserve(Category.MODEL_REPOSITORY, 2, is_admin=True),
    f"{KSERVE}RepositoryModelUnload": _kserve(Category.MODEL_REPOSITORY, 2, is_admin=True),
    f"{KSERVE}TraceSetting": _kserve(Category.TRACE, 2, is_admin=True),
    f"{KSERVE}LogSettings": _kserve(Category.LOGGING, None, is_admin=True),
    **{
        f"{KSERVE}{kind}SharedMemory{action}": _kserve(Category.SHARED_MEMORY, None, is_admin=True)
        for kind in ("System", "Cuda")
        for action in ("Status", "Register", "Unregister")
    },
}
_UNKNOWN = Method(is_unary=None, is_admin=True)


def method_of(path: str) -> Method | None:
    """What is known of `/package.Service/Method`; None for users' own services."""
    method = _METHODS.get(path)
    if method is None and path.startswith((KSERVE, TENSORFLOW)):
        return _UNKNOWN
    return method
