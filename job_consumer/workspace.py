"""Where the consumer's files lie: one folder per attempt, one per model archive, all below the work directory.

    <work>/attempts/<consumer>/<uid>-<fence>/{input,output,progress,input.zip,model,image,clock.json,verdict.json}
    <work>/replicas/<consumer>/<uid>-<fence>/{model,image}  of a replica
    <work>/replicas/<consumer>/<uid>-<fence>/{inputs,outputs,progress}/<run>/      of tasks that run inside it
    <work>/models/<sha256>/            filled once, kept for later tasks until it is evicted

Attempt and replica folders are 0700: no other user of the host reaches an output, although the run may write there.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from job_consumer.descriptors import open_folder, remove_tree
from job_consumer.engines import Mount, RunKey, RunKind
from job_consumer.failpoints import Failpoint
from kit.disk import sync_disk
from kit.failpoints import reach

PROGRESS_NAME = "latest"
"""The file in a run's folder for it in which the run may say how far it is."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Use(StrEnum):
    """What is kept for later runs, and may be in use by one: also the name of the file that says so."""

    MODEL = "model"
    IMAGE = "image"


@dataclass(frozen=True)
class Workspace:
    """The folder of one attempt. `WorkDir.open_workspace` makes it, empty; `WorkDir.remove_workspace` removes it."""

    root: Path
    input_dir: Path
    """Seen by the run, read-only."""
    output_dir: Path
    """The run may write there."""

    @property
    def progress_dir(self) -> Path:
        """The run may write there how far it is. A run that a release before this one started has none."""
        return self.root / "progress"

    @property
    def input_zip(self) -> Path:
        """Where the task's zip lies until it is unpacked."""
        return self.root / "input.zip"

    @property
    def clock(self) -> Path:
        """When the run began: kept, so that a restart gives it no more time."""
        return self.root / "clock.json"

    @property
    def verdict(self) -> Path:
        """Why this consumer ended the run itself: kept, so that a restart does not blame the model for it."""
        return self.root / "verdict.json"


@dataclass(frozen=True)
class ReplicaFolder:
    """What a replica that runs tasks sees of this host: folders of inputs, outputs and progress, each one per task.

    The inputs are read-only for the replica. It may change the others at any time, so they are only ever opened by
    descriptors that follow no link.
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

    @property
    def progress(self) -> Path:
        """Seen by the replica at `/tasks/progress`. One that a release before this one started has none."""
        return self.root / "progress"

    def open_task(self, name: str) -> None:
        """Make an empty input folder for one task, and those that the replica may write to."""
        (self.inputs / name).mkdir()
        (self.inputs / name).chmod(0o755)
        for folder in (self.outputs, self.progress):
            if folder.exists():
                (folder / name).mkdir()
                with open_folder(folder / name) as opened:
                    os.fchmod(opened, 0o777)

    def close_task(self, name: str) -> None:
        """Remove a task's folders.

        What the replica locked stays until it ends: while it lives it could lead an unlocking by path astray.
        """
        for folder in (self.inputs / name, self.outputs / name, self.progress / name):
            shutil.rmtree(folder, ignore_errors=True)

    def close_tasks(self) -> None:
        """Remove what an earlier process of this consumer left."""
        for folder in (*self.inputs.glob("*"), *self.outputs.glob("*"), *self.progress.glob("*")):
            self.close_task(folder.name)


@dataclass(frozen=True)
class ModelFolder:
    """An unpacked model archive, shared by every task and consumer of this host."""

    sha256: str
    folder: Path

    @property
    def mount(self) -> Mount:
        """How runs see it."""
        return Mount(f"is-model-{self.sha256}", self.folder, "/model", read_only=True, kept=True)


class WorkDir:
    """One consumer's part of a work directory: its own attempts and replicas, and the models that all share."""

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
        for folder in (workspace.output_dir, workspace.progress_dir):
            folder.mkdir()
            # The run's user is not ours and must write here; the parent, which is 0700, keeps everyone else out.
            folder.chmod(0o777)
        reach(Failpoint.PREPARE_OPENED)
        return workspace

    def empty_workspace(self, key: RunKey) -> None:
        """Remove what takes space of an attempt's files; its verdict stays. The run must be gone."""
        workspace = self.workspace(key)
        workspace.input_zip.unlink(missing_ok=True)
        for folder in (workspace.input_dir, workspace.output_dir, workspace.progress_dir):
            if folder.exists():
                remove_tree(folder)

    def remove_workspace(self, key: RunKey) -> None:
        """Remove an attempt's files, if there are any."""
        root = self.workspace(key).root
        if root.exists():
            reach(Failpoint.CLEAN_REMOVED)
            remove_tree(root)

    def workspaces(self) -> list[RunKey]:
        """The attempts that left files here."""
        return _keys_in(self._attempts, RunKind.TASK)

    def replica(self, key: RunKey) -> ReplicaFolder:
        """The folder of a replica, whether or not it exists."""
        return ReplicaFolder(self._replicas / f"{key.uid}-{key.fence}")

    def open_replica(self, key: RunKey) -> ReplicaFolder:
        """A fresh folder for a replica; what an earlier start of the same replica left is wiped."""
        self.remove_replica(key)
        replica = self.replica(key)
        replica.root.mkdir(mode=0o700)
        for folder in (replica.inputs, replica.outputs, replica.progress):
            folder.mkdir()
            folder.chmod(0o755)
        return replica

    def remove_replica(self, key: RunKey) -> None:
        """Remove a replica's files, if there are any. Its container must be gone."""
        root = self.replica(key).root
        if root.exists():
            remove_tree(root)

    def replicas(self) -> list[RunKey]:
        """The replicas that left files here."""
        return _keys_in(self._replicas, RunKind.REPLICA)

    def remove(self, key: RunKey) -> None:
        """Remove the files of an attempt or a replica, if there are any. Its container must be gone."""
        if key.kind is RunKind.TASK:
            self.remove_workspace(key)
        else:
            self.remove_replica(key)

    def open_model(self, sha256: str, fill: Callable[[Path], None], user: RunKey | None = None) -> ModelFolder:
        """The folder of a model archive; the first caller on this host fills it, others wait for that.

        `fill` gets an empty folder. It becomes visible by a rename, so a crash leaves no half-filled model. `user` is
        the attempt or replica, whose files are there: as long as they are, the folder is not evicted.
        """
        folder = self._models / sha256
        with self._lock(sha256):
            if user is not None:
                self.note_use(user, Use.MODEL, sha256)
            if not folder.is_dir():
                partial = self._models / f"{sha256}.partial"
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(mode=0o755)
                try:
                    fill(partial)
                    partial.chmod(0o755)
                    # Once renamed it counts as complete, even after a power cut.
                    sync_disk(partial)
                    partial.rename(folder)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
            os.utime(self._lock_file(sha256))
        return ModelFolder(sha256, folder)

    def models(self) -> list[ModelFolder]:
        """The models that are here, the one whose last use is longest ago first."""
        found = [ModelFolder(path.name, path) for path in self._models.iterdir() if _SHA256.fullmatch(path.name)]
        return sorted(found, key=lambda model: self._used_at(model.sha256))

    def evict_model(self, model: ModelFolder, forget: Callable[[], bool]) -> bool:
        """Remove a model's folder, unless it is in use, or `forget` says so. It is filled again when it is needed."""
        evicted = self._models / f"{model.sha256}.evicted"
        with self._lock(model.sha256, wait=False) as is_ours:
            if not is_ours or model.sha256 in self.uses(Use.MODEL) or not forget():
                return False
            shutil.rmtree(evicted, ignore_errors=True)
            model.folder.rename(evicted)
        remove_tree(evicted)
        return True

    def note_use(self, user: RunKey, use: Use, name: str) -> None:
        """Write down what an attempt or a replica uses, in its folder, which must exist."""
        root = self.workspace(user).root if user.kind is RunKind.TASK else self.replica(user).root
        (root / use).write_text(name)

    def uses(self, use: Use) -> set[str]:
        """What the attempts and replicas of all consumers have written down."""
        found = set()
        for kind in ("attempts", "replicas"):
            for path in self._root.glob(f"{kind}/*/*/{use}"):
                with suppress(FileNotFoundError):
                    found.add(path.read_text())
        return found

    def _used_at(self, sha256: str) -> float:
        with suppress(FileNotFoundError):
            return self._lock_file(sha256).stat().st_mtime
        return 0.0

    def _lock_file(self, sha256: str) -> Path:
        return self._models / f"{sha256}.lock"

    @contextmanager
    def _lock(self, sha256: str, *, wait: bool = True) -> Iterator[bool]:
        """Whether the lock of a model is ours."""
        # Appending changes no time.
        with self._lock_file(sha256).open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True


def _keys_in(folder: Path, kind: RunKind) -> list[RunKey]:
    try:
        names = [entry.name for entry in folder.iterdir()]
    except FileNotFoundError:
        # Somebody removed it. What fails for that is the next attempt, which says so.
        return []
    parts = [name.rpartition("-") for name in names]
    return sorted(RunKey(uid, int(fence), kind) for uid, _, fence in parts if uid and fence.isdecimal())
