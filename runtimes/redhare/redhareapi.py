"""What a kernel is written against: `Kernel`, and the contexts that its methods receive.

A kernel subclasses `Kernel`, overrides what it needs and ends with `MyKernel().run()`.
"""

import logging

from redhare_runtime.batches import TaskContext
from redhare_runtime.model import KernelContext
from redhare_runtime.serve import serve_kernel

__all__ = ["Kernel", "KernelContext", "TaskContext"]

_log = logging.getLogger("kernel")
_LEVELS = {-1: logging.DEBUG, 0: logging.INFO, 1: logging.WARNING, 2: logging.ERROR}


class Kernel:
    """One model. Its methods are called one at a time, all in the thread that called `run`.

    It has no state of its own: subclasses need not call its `__init__`.
    """

    def on_kernel_start(self, kernel_context: KernelContext) -> None:
        """Load the model. No request arrives before this returns; an exception ends the process."""

    def on_task_invoke(self, task_context: TaskContext) -> None:
        """Answer `task_context`, and those that its `next()` leads to, each with `set_output_data`."""
        raise TypeError(f"{type(self).__name__} has no on_task_invoke: every kernel needs one")

    def on_kernel_shutdown(self) -> None:
        """Clean up. Called once, after the last request."""

    def run(self) -> None:
        """Serve until TERM, then return."""
        serve_kernel(self)

    @staticmethod
    def log(level: int, message: object) -> None:
        """Write a line to the container's log: -1 debug, 0 info, 1 warning, 2 error."""
        _log.log(_LEVELS.get(level, logging.ERROR if level > max(_LEVELS) else logging.DEBUG), "%s", message)

    @staticmethod
    def log_info(message: object) -> None:
        """Write a line to the container's log."""
        _log.info("%s", message)

    @staticmethod
    def log_debug(message: object) -> None:
        """Write a line to the container's log if LOG_LEVEL=DEBUG."""
        _log.debug("%s", message)

    @staticmethod
    def log_warn(message: object) -> None:
        """Write a line to the container's log."""
        _log.warning("%s", message)

    @staticmethod
    def log_error(message: object) -> None:
        """Write a line to the container's log."""
        _log.error("%s", message)
