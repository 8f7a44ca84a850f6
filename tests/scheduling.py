"""Which tests stay together where several processes run them."""

import re

from xdist.scheduler import LoadScopeScheduling

_NEEDS_STACK = re.compile(r"^tests/(e2e/test_(grpc_door|readme|stack)|grpc/test_stack\w*)\.py::|\[compose[\]-]")


class GroupScheduling(LoadScopeScheduling):
    """The tests of a file run in one process, and all that need a whole stack in another, one after the other.

    A stack has ports of the host, and is heavy.
    """

    def _split_scope(self, nodeid: str) -> str:
        return "stack" if _NEEDS_STACK.search(nodeid) else nodeid.partition("::")[0]
