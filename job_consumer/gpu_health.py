"""Whether a consumer's GPU is fit for a task, by what NVIDIA's management library (NVML) says.

The library belongs to the driver. Where a consumer cannot load it, as in a container without a GPU of its own, nothing
is known of the GPU and nothing is said.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

import pynvml

from kit.sizes import say_bytes

GIB = 1024**3
SETTLE_S = 5.0
"""A GPU's memory may be freed a moment after its container is gone."""
_POLL_S = 0.2

PROGRAM_XIDS = frozenset({13, 31, 43, 45, 68, 109})
"""Errors of a program on the GPU, not of the GPU. NVIDIA's device plugin for Kubernetes passes over the same ones:
https://github.com/NVIDIA/k8s-device-plugin/blob/v0.17.4/internal/rm/health.go"""
_WHOLE_GPU = 0xFFFFFFFF


class GpuHealth:
    """One GPU, or one MIG slice of it."""

    def __init__(
        self, uuid: str, is_used: Callable[[], bool], stopping: threading.Event, *, settle_s: float = SETTLE_S
    ) -> None:
        """`is_used` says whether a container of this consumer is on the GPU. `stopping` cuts waits short."""
        self._uuid = uuid
        self._is_used = is_used
        self._stopping = stopping
        self._settle_s = settle_s
        self._device: Any = None
        self._events: Any = None
        self._instance: int | None = None
        """Of the slice; None for a whole GPU."""
        self._xids: list[int] = []

    def check(self) -> str | None:
        """What is wrong with the GPU, in a sentence."""
        try:
            if self._device is None:
                self._open()
            self._read_events()
            if self._xids:
                return (
                    f"GPU {self._uuid} reported Xid {', '.join(map(str, self._xids))}: see the kernel's log on its "
                    "host, reset the GPU or reboot, then restart this consumer"
                )
            return self._check_memory()
        except pynvml.NVMLError_LibraryNotFound:
            return None
        except pynvml.NVMLError as error:
            self._close()
            return f"GPU {self._uuid} does not answer: {error}; `nvidia-smi` on its host says more"

    def _open(self) -> None:
        pynvml.nvmlInit()
        try:
            device = pynvml.nvmlDeviceGetHandleByUUID(self._uuid)
            whole = device
            if self._uuid.upper().startswith("MIG-"):
                whole = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device)
                self._instance = pynvml.nvmlDeviceGetGpuInstanceId(device)
            self._events = self._subscribe(whole)
            self._device = device
        except pynvml.NVMLError:
            pynvml.nvmlShutdown()
            raise

    def _subscribe(self, device: Any) -> Any:
        """The critical errors from here on; None for a GPU that does not report them."""
        events = pynvml.nvmlEventSetCreate()
        try:
            pynvml.nvmlDeviceRegisterEvents(device, pynvml.nvmlEventTypeXidCriticalError, events)
        except pynvml.NVMLError_NotSupported:
            return None
        return events

    def _close(self) -> None:
        if self._device is not None:
            self._device = self._events = None
            try:
                pynvml.nvmlShutdown()
            except pynvml.NVMLError:
                # It is opened anew at the next look.
                return

    def _read_events(self) -> None:
        while self._events is not None:
            try:
                event = pynvml.nvmlEventSetWait_v2(self._events, 0)
            except pynvml.NVMLError_Timeout:
                return
            xid = int(event.eventData)
            is_ours = self._instance is None or event.gpuInstanceId in (self._instance, _WHOLE_GPU)
            if is_ours and xid not in PROGRAM_XIDS and xid not in self._xids:
                self._xids.append(xid)

    def _check_memory(self) -> str | None:
        ends_at = time.monotonic() + self._settle_s
        while (found := self._foreign_memory()) is not None:
            if time.monotonic() > ends_at or self._stopping.wait(_POLL_S):
                return found
        return None

    def _foreign_memory(self) -> str | None:
        """What is in use although no container of ours is there."""
        memory = self._memory()
        # A desktop takes some.
        if self._is_used() or memory.used <= max(2 * GIB, memory.total // 10):
            return None
        processes = pynvml.nvmlDeviceGetComputeRunningProcesses(self._device)
        by = f"by process {', '.join(str(each.pid) for each in processes)}" if processes else "by no known process"
        return (
            f"{say_bytes(memory.used)} of {say_bytes(memory.total)} of GPU {self._uuid} are in use {by}, while this "
            "consumer runs nothing there: `nvidia-smi` on its host says more"
        )

    def _memory(self) -> Any:
        try:
            # Without what the driver keeps for itself.
            return pynvml.nvmlDeviceGetMemoryInfo(self._device, pynvml.nvmlMemory_v2)
        except pynvml.NVMLError_FunctionNotFound:
            return pynvml.nvmlDeviceGetMemoryInfo(self._device)
