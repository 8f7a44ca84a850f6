"""Where the consumer's files lie: one folder per attempt, one per model archive, all below the work directory.

    <work>/attempts/<consumer>/<uid>-<fence>/{input,output,input.zip,verdict.json}
    <work>/replicas/<consumer>/<uid>-<fence>/{inputs,outputs}/<run>/      of tasks that run inside a replica
    <work>/models/<sha256>/            filled once, kept for later tasks

Attempt and replica folders are 0700, so no other user of the host reaches an output although the run may write there.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from job_consumer.descriptors import open_folder
from job_consumer.engine import RunKey, RunKind


@dataclass(frozen=True)
class Workspace:
    """The folder of one attempt. Created empty by `WorkDir.open_workspace`, removed by `WorkDir.remove_workspace`."""

    root: Path
    input_dir: Path
    """Seen by the run, read-only."""
    output_dir: Path
    """The run may write there."""

    @property
    def input_zip(self) -> Path:
        """Where the task's zip lies until it is unpacked."""
        return self.root / "input.zip"

    @property
    def verdict(self) -> Path:
        """Why this consumer ended the run itself: kept, so that a restart does not take that for the model's doing."""
        return self.root / "verdict.json"


@dataclass(frozen=True)
class ReplicaFolder:
    """What a replica that runs tasks sees of this host: a folder of inputs and one of outputs, each with one per task.

    The inputs are read-only for it. The outputs it may change at any time, so they are only ever opened by descriptors
    that follow no link.
    """

    root: Path

    @property
    def inputs(self) -> Path:
        """Seen by the replica at `/tasks/input`."""
        return self.root / "inputs"

    @property
    def outputs(self) -> Path:
        """Seen by the replica at `/tasks/output`."""
        return self.root / "outputs"

    def open_task(self, name: str) -> None:
        """An empty input and output of one task."""
        (self.inputs / name).mkdir()
        (self.inputs / name).chmod(0o755)
        (self.outputs / name).mkdir()
        with open_folder(self.outputs / name) as output:
            os.fchmod(output, 0o777)

    def close_task(self, name: str) -> None:
        """Remove them. What the replica locked stays until it ends: unlocking by path could be led astray by it."""
        for folder in (self.inputs / name, self.outputs / name):
            shutil.rmtree(folder, ignore_errors=True)

    def close_tasks(self) -> None:
        """Remove what an earlier process of this consumer left."""
        for folder in (*self.inputs.glob("*"), *self.outputs.glob("*")):
            self.close_task(folder.name)


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
        self._replicas = self._root / "replicas" / consumer
        self._models = self._root / "models"
        for folder in (self._attempts, self._replicas, self._models):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    @property
    def root(self) -> Path:
        """The work directory itself, absolute."""
        return self._root

    def workspace(self, key: RunKey) -> Workspace:
        """The workspace of an attempt, whether or not it exists."""
        root = self._attempts / f"{key.uid}-{key.fence}"
        return Workspace(root, root / "input", root / "output")

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
        return _keys_in(self._attempts, RunKind.TASK)

    def replica(self, key: RunKey) -> ReplicaFolder:
        """The folder of a replica, whether or not it exists."""
        return ReplicaFolder(self._replicas / f"{key.uid}-{key.fence}")

    def open_replica(self, key: RunKey) -> ReplicaFolder:
        """A fresh folder."""
        self.remove_replica(key)
        replica = self.replica(key)
        replica.root.mkdir(mode=0o700)
        for folder in (replica.inputs, replica.outputs):
            folder.mkdir()
            folder.chmod(0o755)
        return replica

    def remove_replica(self, key: RunKey) -> None:
        """Remove a replica's files, whose container must be gone. Nothing to do where there are none."""
        root = self.replica(key).root
        if root.exists():
            remove_tree(root)

    def replicas(self) -> list[RunKey]:
        """The replicas that left files here."""
        return _keys_in(self._replicas, RunKind.REPLICA)

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


def _keys_in(folder: Path, kind: RunKind) -> list[RunKey]:
    keys = []
    for entry in folder.iterdir():
        uid, _, fence = entry.name.rpartition("-")
        if uid and fence.isdecimal():
            keys.append(RunKey(uid, int(fence), kind))
    return sorted(keys)


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
