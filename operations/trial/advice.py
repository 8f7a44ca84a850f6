"""What a server's sandbox broke in a run, and how to repair it, by how the run ended and what it logged. No I/O."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from contract.statuses import Reason
from inference_client.units import format_size
from job_consumer.engines import KILLED_CODE
from job_consumer.hit_limits import Limit, find_hits
from operations.trial.run import Trial

_OPEN, _CLOSE = "['\"\u2018]", "['\"\u2019]"
"""Quotation marks around paths: Python's, and those of the core tools."""
_HERE = "here and at `infer models add`"
_MOST_PATHS = 5
_LINE_LENGTH = 200


_PLACES = (
    (r"/(input|model)(/|$)", "copy to /tmp what has to be changed; nothing but /output is kept from a run"),
    (
        r"/(root|home)(/|$)",
        "HOME is /tmp in a run: use $HOME, and point caches and settings below it, as in "
        "ENV XDG_CACHE_HOME=/tmp/cache HF_HOME=/tmp/hf MPLCONFIGDIR=/tmp/mpl",
    ),
)
"""Where paths are, and what to do about them."""
_ELSEWHERE = "write results to $OUTPUT_DIR (/output), and what may be thrown away to /tmp"
_CLOSED = "let everybody read what the image brings, as in RUN chmod -R a+rX /opt/app, and write to /output or /tmp"


@dataclass(frozen=True)
class Advice:
    """Something the sandbox broke, and what to change in the image or at the registration."""

    problem: str
    repair: str


@dataclass(frozen=True)
class _Case:
    trial: Trial
    relaxed: Trial | None
    """The same run under `compatible`, if there was one."""
    has_gpu: bool

    def line(self, pattern: str) -> str | None:
        """The first line of the log that the pattern occurs in."""
        match = re.search(rf"^.*?(?:{pattern}).*$", self.trial.log, re.MULTILINE | re.IGNORECASE)
        return match and match[0].strip()[:_LINE_LENGTH]


def advise(trial: Trial, *, relaxed: Trial | None = None, has_gpu: bool = False) -> list[Advice]:
    """Advice on a failed trial, the surest first; none if nothing of the sandbox seems to be at fault."""
    if trial.failure is None:
        return []
    case = _Case(trial, relaxed, has_gpu)
    found = [advice for rule in _RULES for advice in rule(case)]
    return found or list(_by_comparison(case))


def _limits_reached(case: _Case) -> Iterator[Advice]:
    reason = case.trial.failure and case.trial.failure.reason
    exit_code = case.trial.failure and case.trial.failure.exit_code
    if reason is Reason.OUT_OF_MEMORY or exit_code == KILLED_CODE:
        yield Advice(
            "a process was killed because the run had used up its memory; /tmp and /dev/shm count as memory",
            f"use less, or allow more: --memory {_HERE}, at most what the consumer has",
        )
    if reason is Reason.TIME_LIMIT:
        yield Advice("the run was ended at its time limit", "register the model with a longer --time-limit")


def _output(case: _Case) -> Iterator[Advice]:
    failure = case.trial.failure
    detail = failure.detail if failure else ""
    if failure is None or failure.reason is not Reason.OUTPUT_REJECTED:
        return
    kinds = {
        r"a symbolic link": "copy what the link points to, as `cp -L` and `shutil.copytree` do",
        r"a hard link": "write a copy instead of a hard link",
        r"a (FIFO|socket|device)": "make sockets and FIFOs in /tmp; /output is for files",
    }
    repairs = [repair for pattern, repair in kinds.items() if re.search(pattern, detail)]
    yield Advice(detail, "; ".join(repairs) or "write plain files with portable names to /output")


def _read_only(case: _Case) -> Iterator[Advice]:
    for repair, paths in _by_place(_paths(case.trial.log, "Read-only file system"), _ELSEWHERE):
        yield Advice(f"it writes to {_listed(paths)}, which is read-only", repair)


def _denied(case: _Case) -> Iterator[Advice]:
    user = case.trial.user or "of the image"
    for repair, paths in _by_place(_paths(case.trial.log, "Permission denied"), _CLOSED):
        yield Advice(f"the run's user {user} may not read or write {_listed(paths)}", repair)


def _by_place(paths: list[str], otherwise: str) -> Iterator[tuple[str, list[str]]]:
    """A repair for each group of paths that has the same."""
    for pattern, repair in (*_PLACES, ("", otherwise)):
        here = [path for path in paths if re.match(pattern, path)]
        paths = [path for path in paths if path not in here]
        if here:
            yield repair, here


def _root(case: _Case) -> Iterator[Advice]:
    line = case.line(
        r"Operation not permitted|must be (run as )?root|(are|run) (you|as) root|requires root|not root\b"
        r"|must be suid|must have a setuid|setgroups|cannot set (user|group)|effective uid is not 0"
    )
    if line:
        yield Advice(
            f"it needs root or a capability, and has neither: {line}",
            "start the program itself in CMD, without chown, su, gosu or sudo; what needs root belongs into the "
            "Dockerfile's RUN",
        )


def _nameless(case: _Case) -> Iterator[Advice]:
    line = case.line(r"unknown uid|uid not found|cannot find name for user|No username set|I have no name")
    if line:
        yield Advice(
            f"its user has no name in the image: {line}",
            "RUN echo 'model:x:65532:65532::/tmp:/bin/sh' >> /etc/passwd; $USER alone is set",
        )


def _network(case: _Case) -> Iterator[Advice]:
    line = case.line(
        r"name resolution|Name or service not known|could not resolve host|unable to resolve|failed to resolve"
        r"|nodename nor servname|EAI_AGAIN|ENOTFOUND|bad address|Network is unreachable|ENETUNREACH|No route to host"
        r"|We couldn't connect to"
    )
    if line:
        yield Advice(
            f"it uses the network, and a run has none: {line}",
            "bring what it downloads with the image, or with the model's folder (/model)",
        )


def _limits_in_log(case: _Case) -> Iterator[Advice]:
    limits = case.trial.limits
    for limit, line in find_hits(case.trial.log).items():
        if limit is Limit.SHARED_MEMORY:
            yield Advice(
                f"its shared memory (/dev/shm) of {format_size(limits.shared_memory_bytes)} does not suffice: {line}",
                f"use fewer workers or smaller batches, or allow more: --shared-memory {_HERE}, at most its memory",
            )
        if limit is Limit.TEMPORARY:
            yield Advice(
                f"its /tmp, which is memory, takes {format_size(limits.temporary_bytes)} and is full: {line}",
                "remove files once they are used, or write large ones to a folder in /output and remove it at the end; "
                f"or allow more: --temporary {_HERE}, at most its memory",
            )
        if limit is Limit.PIDS:
            yield Advice(
                f"it started more than {limits.pids} processes and threads: {line}",
                "set OMP_NUM_THREADS, OPENBLAS_NUM_THREADS or the like in the image: libraries start a thread per "
                f"core; or allow more: --pids-limit {_HERE}, at most MAX_PIDS of the consumer",
            )


def _gpu(case: _Case) -> Iterator[Advice]:
    line = case.line(
        r"no NVIDIA driver|no CUDA-capable device|CUDA driver|libcuda\.so|No CUDA GPUs|nvidia-smi: not found"
    )
    if line and not case.has_gpu:
        yield Advice(f"it needs a GPU: {line}", "use --gpu here and at `infer models add`")


_RULES: tuple[Callable[[_Case], Iterator[Advice]], ...] = (
    _limits_reached,
    _output,
    _read_only,
    _denied,
    _root,
    _nameless,
    _network,
    _limits_in_log,
    _gpu,
)


def _by_comparison(case: _Case) -> Iterator[Advice]:
    """What the run under `compatible` shows where the log of the strict one says nothing."""
    relaxed = case.relaxed
    if relaxed is None:
        return
    if relaxed.changed:
        yield Advice(
            f"where the root file system is writable (compatible), it writes to {_listed(list(relaxed.changed))}",
            _ELSEWHERE,
        )
    elif relaxed.has_finished:
        yield Advice(
            "it finishes as the image's own user with a writable root file system (compatible), and not under strict",
            "make the image run as any user, or register it with --isolation compatible",
        )


def _paths(log: str, message: str) -> list[str]:
    """The paths that lines with this error name, in the words of Python, shells and the core tools."""
    name = r"[^'\"\u2018\u2019\]\n]+"
    follows = rf": {_OPEN}| \["
    pattern = (
        rf"{message}(?:{follows})(?P<after>{name})|{_OPEN}(?P<quoted>{name}){_CLOSE}: {message}"
        rf"|(?P<bare>[^\s:'\"\u2019]+): {message}(?!{follows})"
    )
    found = (match["after"] or match["quoted"] or match["bare"] for match in re.finditer(pattern, log, re.IGNORECASE))
    # In the order they came, each once. `[Errno 30]` stands where a shell has its path.
    return list(dict.fromkeys(path for path in found if not path.endswith("]")))


def _listed(paths: list[str]) -> str:
    more = len(paths) - _MOST_PATHS
    return ", ".join(paths[:_MOST_PATHS]) + (f" and {more} more" if more > 0 else "")
