"""Which tests stay together where several processes run them, and which begin."""

import re

from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

_GROUPS = {
    # Each of the two has a whole stack at a time: the first the same one, the other one after another.
    "stacks of the gRPC door": re.compile(r"^tests/grpc/test_(grpc_door|stack\w*)\.py::"),
    "other stacks": re.compile(r"^tests/e2e/test_(readme|stack)\.py::|[\[-]compose[\]-]"),
}
_FIRST = (
    "stacks of the gRPC door",
    "other stacks",
    "tests/e2e/test_swarm.py",
)
"""What takes longest begins, so that no process is left with it at the end. In the order of their lengths."""


class GroupScheduling(LoadScopeScheduling):
    """The tests of a file run in one process, one after the other; so do those of a group."""

    def _split_scope(self, nodeid: str) -> str:
        return next((name for name, group in _GROUPS.items() if group.search(nodeid)), nodeid.partition("::")[0])

    def _assign_work_unit(self, node: WorkerController) -> None:
        first = next((scope for scope in _FIRST if scope in self.workqueue), None)
        if first is not None:
            self.workqueue.move_to_end(first, last=False)
        super()._assign_work_unit(node)
