"""Examples of answers, for OpenAPI. FastAPI leaves members out that are null."""

from typing import Any

EXAMPLE_UID = "c7e1b0a4f2d85396be0f4c1d7a92e6385b1f0c9d2e7a46835fd10b9c84e2a763"
_MODEL_ID = "spleen-segmentation"
EXAMPLE_MODEL: dict[str, Any] = {
    "human_readable_id": _MODEL_ID,
    "version": 3,
    "container_tag": "registry.example.org/spleen:3",
    "description": "Segments the spleen in a CT",
    "model_available": True,
    "use_gpu": True,
    "pull_policy": "missing",
    "isolation": "strict",
    "time_limit_s": 86400,
    "memory_limit_bytes": 17179869184,
    "shared_memory_bytes": 4294967296,
    "temporary_bytes": 1073741824,
    "pids_limit": 1024,
    "cpus": 8.0,
    "runtime": None,
    "strict_output": False,
    "archive": {"sha256": "6d9f206d84890af21dbaf255736ec1716a5c0791a0bb4ed45ac7d71209d457e0", "size_bytes": 98566144},
    "created_at": "2026-11-21T07:10:36.248436Z",
    "retired": False,
    "restricted": True,
    "owner": "radiology",
    "users": ["oncology"],
    "warnings": [],
    "images": [{"consumer": "gpu-1", "finding": "present", "found_at": "2026-11-21T07:10:37Z"}],
}
_OF_A_VERSION = ("version", "container_tag", "description", "use_gpu", "strict_output", "archive")
EXAMPLE_VERSION: dict[str, Any] = {
    **{name: EXAMPLE_MODEL[name] for name in _OF_A_VERSION},
    "created_at": EXAMPLE_MODEL["created_at"],
    "default": True,
    "retired": False,
    "deployed": False,
    "queued": 2,
    "held": 1,
}
EXAMPLE_TASK: dict[str, Any] = {
    "uid": EXAMPLE_UID,
    "owner": "radiology",
    "human_readable_id": _MODEL_ID,
    "model_version": 3,
    "priority": 0,
    "label": "study 4711",
    "status": "finished",
    "exit_code": 0,
    "image": f"registry.example.org/spleen@sha256:{'b' * 64}",
    "cancel_requested": False,
    "attempt": 1,
    "created_at": "2026-11-21T07:12:01.118203Z",
    "started_at": "2026-11-21T07:12:02.530117Z",
    "ended_at": "2026-11-21T07:13:44.902551Z",
    "input": {"sha256": "8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4", "size_bytes": 48211034},
    "output": {"sha256": "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03", "size_bytes": 1204816},
    "warnings": [],
    "warning_count": 0,
}

_OF_A_RESULT = ("exit_code", "image", "output")
CANCELLED_TASK: dict[str, Any] = {name: value for name, value in EXAMPLE_TASK.items() if name not in _OF_A_RESULT} | {
    "status": "cancelled",
    "reason": "cancelled",
    "cancel_requested": True,
}


def answer_example(example: Any) -> dict[int | str, dict[str, Any]]:
    """The part of a route's `responses=` that shows this JSON as its 200."""
    return {200: {"content": {"application/json": {"example": example}}}}
