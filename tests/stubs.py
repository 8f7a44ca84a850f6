"""Clients and servers of gRPC services, generated from their proto as their users do it."""

import importlib
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from grpc_tools import protoc

OWN = Path(__file__).parents[1] / "grpc_gateway" / "protos"
TESTS = Path(__file__).parent / "protos"


class Stubs(NamedTuple):
    """Messages, and clients and servers, of one proto."""

    messages: ModuleType
    services: ModuleType


@cache
def load_stubs(root: Path, name: str) -> Stubs:
    """The code of `<root>/<name>.proto` and all protos below `root` that it imports."""
    target = tempfile.mkdtemp(prefix="stubs-")
    sources = [f"{name}.proto"] + [str(path.relative_to(root)) for path in root.glob("*/*.proto")]
    include = Path(protoc.__file__).parent / "_proto"
    arguments = ["protoc", f"-I{root}", f"-I{include}", f"--python_out={target}", f"--grpc_python_out={target}"]
    if protoc.main([*arguments, *sources]) != 0:
        raise RuntimeError(f"{name}.proto was not compiled")
    sys.path.append(target)
    return Stubs(importlib.import_module(f"{name}_pb2"), importlib.import_module(f"{name}_pb2_grpc"))
