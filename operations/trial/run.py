"""Runs trials: the consumer's own attempt, in the consumer's own container, with a desk in place of the server."""

import hashlib
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

from contract.errors import InvalidArchive
from contract.schemas import ArchiveView, Assignment, Commit, Failure, Isolation, PullPolicy, Release
from contract.zip_rules import check_archive, verify_contents
from inference_client.pack import select
from job_consumer.container_spec import SANDBOX_USER, Limits, RunLimits, Sandbox, limits_of_run
from job_consumer.context import ConsumerContext
from job_consumer.engines import EngineUnavailable
from job_consumer.engines.docker.witness import WitnessEngine
from job_consumer.service import own_user
from job_consumer.settings import Credential
from job_consumer.tasks.attempt import Attempt
from job_consumer.workspace import WorkDir
from operations.trial.desk import Desk, OnLog, Zips
from private_api.tasks.limits import SizeLimits

_FENCE = 1
_LEASE_S = 60.0


@dataclass(frozen=True)
class TrialOptions:
    """What is tried, and what the server that is imitated would give it."""

    image: str
    input: Path
    """A folder, a file or a zip, as `infer submit` takes it."""
    model: Path | None
    limits: Limits
    sizes: SizeLimits
    time_limit_s: int
    memory_limit_bytes: int | None = None
    shared_memory_bytes: int | None = None
    temporary_bytes: int | None = None
    pids_limit: int | None = None
    cpus: float | None = None
    gpu_uuid: str | None = None
    pull_policy: PullPolicy = PullPolicy.MISSING


@dataclass(frozen=True)
class Trial:
    """How one run ended, and what it left."""

    isolation: Isolation
    user: str | None
    """`uid:gid`; None is the image's own."""
    failure: Failure | None
    """None if a server would call the task finished."""
    log: str
    log_tail: str
    output: tuple[tuple[str, int], ...]
    """Path and bytes of each file that would be sent."""
    warnings: tuple[str, ...]
    """What its owner would be told of an output that would not be sent as it is."""
    changed: tuple[str, ...]
    """What it made or changed in the image's file system, where that is writable."""
    limits: RunLimits

    @property
    def has_finished(self) -> bool:
        return self.failure is None


class Bench:
    """Runs trials of one image on one input. `open_bench` makes it."""

    def __init__(self, options: TrialOptions, engine: WitnessEngine, work: WorkDir, consumer: str) -> None:
        self._options = options
        self._engine = engine
        self._work = work
        self._consumer = consumer
        self.folder = work.root / "desk"
        self.folder.mkdir()
        self._zips = _zip_all(options, self.folder)

    @property
    def output_zip(self) -> Path:
        """The output of the last trial that finished."""
        return self.folder / "output.zip"

    def run(self, isolation: Isolation, on_log: OnLog) -> Trial:
        """Run the image once. Raises `EngineUnavailable` where that says nothing about the image."""
        assignment = self._assign(isolation)
        desk = Desk(self._zips, self.folder, assignment.time_limit_s, on_log)
        user = own_user()
        sandbox = Sandbox(self._consumer, self._options.limits, gpu_uuid=self._options.gpu_uuid, own_user=user)
        context = ConsumerContext(
            credential=Credential("", ""),
            sandbox=sandbox,
            api=desk,
            engine=self._engine,
            work=self._work,
            stopping=threading.Event(),
        )
        Attempt(context, assignment).run()
        if desk.ending is None or isinstance(desk.ending, Release):
            raise EngineUnavailable(desk.ending.detail if desk.ending else "the run was taken away")
        failure = desk.ending if isinstance(desk.ending, Failure) else None
        return Trial(
            isolation=isolation,
            user=user or (SANDBOX_USER if isolation is Isolation.STRICT else None),
            failure=failure,
            log=desk.read_log(assignment.uid, _FENCE),
            log_tail=desk.tail(assignment.uid, _FENCE),
            output=() if failure else _files(desk.output_zip),
            warnings=tuple(desk.ending.warnings) if isinstance(desk.ending, Commit) else (),
            changed=self._engine.changed,
            limits=limits_of_run(assignment, self._options.limits),
        )

    def _assign(self, isolation: Isolation) -> Assignment:
        options = self._options
        return Assignment.model_validate(
            {
                "uid": secrets.token_hex(32),
                "fence": _FENCE,
                "lease_s": _LEASE_S,
                "human_readable_id": "trial",
                "model_version": 1,
                "container_tag": options.image,
                "use_gpu": options.gpu_uuid is not None,
                "pull_policy": options.pull_policy,
                "isolation": isolation,
                "memory_limit_bytes": options.memory_limit_bytes,
                "shared_memory_bytes": options.shared_memory_bytes,
                "temporary_bytes": options.temporary_bytes,
                "pids_limit": options.pids_limit,
                "cpus": options.cpus,
                "max_unpacked_bytes": options.sizes.max_unpacked_bytes,
                "max_entries": options.sizes.max_entries,
                "max_output_bytes": options.sizes.max_output_bytes,
                "strict_output": False,
                "attempt": 1,
                "time_limit_s": options.time_limit_s,
                "input": _view(self._zips.input),
                "model_archive": _view(self._zips.model) if self._zips.model else None,
            }
        )


@contextmanager
def open_bench(options: TrialOptions, work_dir: Path, work_volume: str | None = None) -> Iterator[Bench]:
    """A bench in `work_dir`, an empty folder; nothing is left on the Engine afterwards.

    `work_volume` names the volume that holds `work_dir` if this process is in a container. Raises `InvalidArchive` if
    the server would refuse the input or the model's folder, and `UnusableInput` if they cannot be zipped.
    """
    consumer = f"trial-{secrets.token_hex(4)}"
    engine = WitnessEngine(work_dir=work_dir, work_volume=work_volume)
    try:
        yield Bench(options, engine, WorkDir(work_dir, consumer), consumer)
    finally:
        # What is wrong with the Engine was said by the run.
        with suppress(EngineUnavailable):
            engine.forget_models()
        engine.close()


def _zip_all(options: TrialOptions, folder: Path) -> Zips:
    zipped = _zip(options.input, folder / "input.zip")
    _refuse(zipped, options, "the input", verify=False)
    if options.model is None:
        return Zips(zipped, None)
    model = _zip(options.model, folder / "model.zip")
    _refuse(model, options, "the model's folder", verify=True)
    return Zips(zipped, model)


def _zip(path: Path, target: Path) -> Path:
    with target.open("wb") as file:
        for chunk in select([path]).chunks():
            file.write(chunk)
    return target


def _refuse(path: Path, options: TrialOptions, what: str, *, verify: bool) -> None:
    """Raises `InvalidArchive` for what a server refuses at the submission, or at a model's registration."""
    try:
        directory = check_archive(
            path, max_unpacked_bytes=options.sizes.max_unpacked_bytes, max_entries=options.sizes.max_entries
        )
        if verify:
            verify_contents(path, directory)
    except InvalidArchive as error:
        raise InvalidArchive(f"the server would refuse {what}: {error.detail}") from error


def _view(path: Path) -> ArchiveView:
    with path.open("rb") as file:
        return ArchiveView(sha256=hashlib.file_digest(file, "sha256").hexdigest(), size_bytes=path.stat().st_size)


def _files(path: Path) -> tuple[tuple[str, int], ...]:
    with ZipFile(path) as archive:
        return tuple((info.filename, info.file_size) for info in archive.infolist() if not info.is_dir())
