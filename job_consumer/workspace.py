"""Where the consumer's files lie: one folder per attempt, one per model archive, all below the work directory.

    <work>/attempts/<consumer>/<uid>-<fence>/{input,output,input.zip,verdict.json}
    <work>/models/<sha256>/            filled once, kept for later tasks

Attempt folders are 0700, so no other user of the host reaches /output although the run may write there.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from job_consumer.engine import RunKey


@dataclass(frozen=True)
class Workspace:
    """The folder of one attempt. Created empty by `WorkDir.open_workspace`, removed by `WorkDir.remove_workspace`."""

    root: Path

    @property
    def input_zip(self) -> Path:
        """Where the task's zip lies until it is unpacked."""
        return self.root / "input.zip"

    @property
    def verdict(self) -> Path:
        """Why this consumer ended the run itself: kept, so that a restart does not take that for the model's doing."""
        return self.root / "verdict.json"

    @property
    def input_dir(self) -> Path:
        """Seen by the run at /input, read-only."""
        return self.root / "input"

    @property
    def output_dir(self) -> Path:
        """Seen by the run at /output."""
        return self.root / "output"


@dataclass(frozen=True)
class ModelFolder:
    """An unpacked model archive, shared by every task and consumer of this host."""

    sha256: str
    folder: Path


class WorkDir:
    """One consumer's share of a work directory: attempts of its own, models in common."""

    def __init__(self, root: Path, consumer: str) -> None:
        self._root = root.absolute()
        self._attempts = self._root / "attempts" / consumer
        self._models = self._root / "models"
        for folder in (self._attempts, self._models):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    @property
    def root(self) -> Path:
        """The work directory itself, absolute."""
        return self._root

    def workspace(self, key: RunKey) -> Workspace:
        """The workspace of an attempt, whether or not it exists."""
        return Workspace(self._attempts / f"{key.uid}-{key.fence}")

    def open_workspace(self, key: RunKey) -> Workspace:
        """A fresh workspace: what an interrupted preparation of the same attempt left is wiped."""
        self.remove_workspace(key)
        workspace = self.workspace(key)
        workspace.root.mkdir(mode=0o700)
        workspace.input_dir.mkdir()
        workspace.input_dir.chmod(0o755)
        workspace.output_dir.mkdir()
        # The run's user is not ours and must write here; the 0700 parent keeps everybody else out.
        workspace.output_dir.chmod(0o777)
        return workspace

    def remove_workspace(self, key: RunKey) -> None:
        """Remove an attempt's files. Nothing to do where there are none."""
        root = self.workspace(key).root
        if root.exists():
            remove_tree(root)

    def workspaces(self) -> list[RunKey]:
        """The attempts that left files here."""
        keys = []
        for entry in self._attempts.iterdir():
            uid, _, fence = entry.name.rpartition("-")
            if uid and fence.isdecimal():
                keys.append(RunKey(uid, int(fence)))
        return sorted(keys)

    def open_model(self, sha256: str, fill: Callable[[Path], None]) -> ModelFolder:
        """The folder of a model archive; the first caller on this host fills it, others wait for that.

        `fill` gets an empty folder. It becomes visible by a rename, so a crash leaves no half-filled model.
        """
        folder = self._models / sha256
        if not folder.is_dir():
            with self._lock(f"{sha256}.lock"):
                if not folder.is_dir():
                    partial = self._models / f"{sha256}.partial"
                    shutil.rmtree(partial, ignore_errors=True)
                    partial.mkdir(mode=0o755)
                    try:
                        fill(partial)
                        partial.chmod(0o755)
                        # Once renamed it counts as whole, also after a power cut.
                        os.sync()
                        partial.rename(folder)
                    finally:
                        shutil.rmtree(partial, ignore_errors=True)
        return ModelFolder(sha256, folder)

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        with (self._models / name).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def remove_tree(root: Path) -> None:
    """Remove a folder that foreign code wrote to."""
    shutil.rmtree(root, onerror=_unlock_and_retry)


def _unlock_and_retry(function: Callable[[str], object], path: str, _error: object) -> None:
    """Models may leave folders without write permission; their owner may still open them."""
    parent = Path(path).parent
    for locked in (parent, Path(path)):
        if locked.is_dir() and not locked.is_symlink():
            os.chmod(locked, 0o700)  # noqa: PTH101 - follows no link: checked above
    function(path)
