"""What a consumer finds of its GPU, by a stand-in of NVIDIA's library that is called as the real one is."""

import ctypes
import shutil
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

import pynvml
import pytest

from job_consumer.gpu_health import GpuHealth
from tests.services import missing
from tests.waiting import wait_until

GIB = 1024**3
GPU = "GPU-00000000-0000-0000-0000-00000000000a"
SLICE = "MIG-00000000-0000-0000-0000-00000000000b"
NOT_SUPPORTED, NOT_FOUND, DRIVER_NOT_LOADED, GPU_IS_LOST = 3, 6, 9, 15


@dataclass(frozen=True)
class Nvml:
    """The stand-in, loaded."""

    library: ctypes.CDLL

    def put(self, **values: int) -> None:
        """Set what it answers."""
        for name, value in values.items():
            self.library.nvml_set(name.encode(), ctypes.c_uint64(value))

    @property
    def opened(self) -> int:
        """How often it was opened and not closed."""
        return int(self.library.nvml_get(b"opened"))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in as a shared library."""
    if (compiler := shutil.which("cc")) is None:
        missing("no C compiler is installed")
    target = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    source = Path(__file__).parents[1] / "nvml_stub.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", target, source], check=True)
    return target


@pytest.fixture
def nvml(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nvml:
    """Each test loads a copy, which knows nothing of the test before."""
    loaded = ctypes.CDLL(str(shutil.copy(library, tmp_path / library.name)))
    loaded.nvml_get.restype = ctypes.c_uint64
    monkeypatch.setattr(pynvml, "nvmlLib", loaded)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    nvml = Nvml(loaded)
    nvml.put(total=80 * GIB, used=GIB)
    return nvml


def health(uuid: str = GPU, *, is_used: bool = False, settle_s: float = 0.0) -> GpuHealth:
    return GpuHealth(uuid, lambda: is_used, threading.Event(), settle_s=settle_s)


def test_a_fit_gpu_has_no_trouble(nvml: Nvml) -> None:
    gpu = health()
    assert [gpu.check(), gpu.check()] == [None, None]


def test_without_the_driver_s_library_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlLib", None)

    def absent(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    # Whatever this machine has.
    monkeypatch.setattr(pynvml, "CDLL", absent)
    assert health().check() is None


@pytest.mark.parametrize(
    ("call", "code"), [("init", DRIVER_NOT_LOADED), ("handle", NOT_FOUND), ("memory", GPU_IS_LOST)]
)
def test_a_gpu_that_does_not_answer_is_asked_again(nvml: Nvml, call: str, code: int) -> None:
    gpu = health()
    nvml.put(**{call: code})
    for _ in range(3):
        assert f"GPU {GPU} does not answer: " in (gpu.check() or "")
    nvml.put(**{call: 0})
    assert gpu.check() is None
    assert nvml.opened == 1


def test_a_gpu_that_failed_takes_nothing_until_the_consumer_starts_again(nvml: Nvml) -> None:
    gpu = health()
    assert gpu.check() is None
    # An illegal address, which is the program's fault.
    nvml.put(xid=31)
    assert gpu.check() is None
    nvml.put(xid=79, memory=GPU_IS_LOST)
    assert "reported Xid 79: see the kernel's log" in (gpu.check() or "")
    nvml.put(memory=0)
    assert "reported Xid 79: see the kernel's log" in (gpu.check() or "")
    assert health().check() is None


def test_a_slice_is_not_to_blame_for_another_one(nvml: Nvml) -> None:
    gpu = health(SLICE)
    assert gpu.check() is None
    nvml.put(xid=94, xid_instance=6)
    assert gpu.check() is None
    nvml.put(xid=94, xid_instance=7)
    assert "Xid 94" in (gpu.check() or "")


def test_a_gpu_that_reports_no_errors_is_judged_without(nvml: Nvml) -> None:
    nvml.put(register=NOT_SUPPORTED)
    gpu = health()
    nvml.put(xid=79)
    assert gpu.check() is None


def test_memory_that_nobody_here_uses_leaves_no_room_for_a_task(nvml: Nvml) -> None:
    nvml.put(used=20 * GIB)
    assert health(is_used=True).check() is None
    trouble = health().check() or ""
    assert "20.0 GiB of 80.0 GiB of GPU" in trouble
    assert "by no known process" in trouble
    nvml.put(pid=4711)
    assert "by process 4711" in (health().check() or "")
    # A desktop may have a little.
    nvml.put(used=8 * GIB)
    assert health().check() is None


def test_memory_is_given_a_moment_to_be_freed(nvml: Nvml) -> None:
    nvml.put(used=20 * GIB)
    looks, found = list[None](), list[str | None]()
    gpu = GpuHealth(GPU, lambda: bool(looks.append(None)), threading.Event(), settle_s=600.0)
    asking = threading.Thread(target=lambda: found.append(gpu.check()))
    asking.start()
    wait_until(lambda: len(looks) > 1 or found)
    nvml.put(used=0)
    wait_until(lambda: found == [None])
    asking.join()
