"""`inference-server check`: turns its arguments and the variables into a trial, and its errors into exit codes."""

import json
import logging
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from contract.errors import InferenceError
from contract.schemas import Isolation, PullPolicy
from inference_client.errors import Interrupted, ReportedError, UnusableInput
from inference_client.terminal_text import printable
from inference_client.units import parse_duration, parse_size
from job_consumer.container_spec import limits_of
from job_consumer.engines import EngineUnavailable
from job_consumer.settings import LimitSettings
from kit.settings import SettingsError
from operations.gpus import NoGpuError, find_gpus
from operations.trial.report import report_trial
from operations.trial.run import TrialOptions
from private_api.settings import PrivateApiSettings
from private_api.tasks.limits import SizeLimits

UNUSABLE, NO_ENGINE, INTERRUPTED = 2, 5, 130
_WORK = Path("/work")
"""Where the volume of `--work-volume` is mounted."""


@dataclass(frozen=True)
class CheckArguments:
    """The command line."""

    image: str
    input: Path
    model: Path | None
    gpu: bool
    memory: str | None
    shared_memory: str | None
    temporary: str | None
    pids_limit: int | None
    cpus: float | None
    time_limit: str
    isolation: str
    pull_policy: str
    output: Path | None
    compare: bool
    work_volume: str | None
    as_json: bool


def check_image(arguments: CheckArguments) -> int:
    """Try the image; returns the exit code."""
    # What the attempt tells a server's operator is in the verdict.
    logging.getLogger("job_consumer").setLevel(logging.CRITICAL)
    # `docker stop` asks this way, and the run must not be left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return report_trial(
            _options(arguments),
            Isolation(arguments.isolation),
            work=(_WORK, arguments.work_volume) if arguments.work_volume else None,
            output=arguments.output,
            compare=arguments.compare,
            as_json=arguments.as_json,
        )
    except EngineUnavailable as error:
        return _refuse(arguments, error, NO_ENGINE)
    except (InferenceError, ReportedError, NoGpuError, SettingsError, OSError) as error:
        return _refuse(arguments, error, UNUSABLE)
    except KeyboardInterrupt:
        return _refuse(arguments, Interrupted("interrupted; the run was removed"), INTERRUPTED)


def _options(arguments: CheckArguments) -> TrialOptions:
    """Raises `UnusableInput`, `NoGpuError`, `SettingsError`."""
    if arguments.output is not None and not arguments.output.absolute().parent.is_dir():
        raise UnusableInput(f"{arguments.output} cannot be written: there is no folder {arguments.output.parent}")
    return TrialOptions(
        image=arguments.image,
        input=arguments.input,
        model=arguments.model,
        limits=limits_of(LimitSettings.load()),
        sizes=_sizes(),
        time_limit_s=parse_duration(arguments.time_limit),
        memory_limit_bytes=_size(arguments.memory),
        shared_memory_bytes=_size(arguments.shared_memory),
        temporary_bytes=_size(arguments.temporary),
        pids_limit=arguments.pids_limit,
        cpus=arguments.cpus,
        gpu_uuid=find_gpus()[0].uuid if arguments.gpu else None,
        pull_policy=PullPolicy(arguments.pull_policy),
    )


def _size(text: str | None) -> int | None:
    return parse_size(text) if text else None


def _sizes() -> SizeLimits:
    """What a private API allows unless its operator says otherwise."""
    fields = PrivateApiSettings.model_fields
    return SizeLimits(
        max_unpacked_bytes=fields["max_unpacked_bytes"].default,
        max_output_bytes=fields["max_output_bytes"].default,
        max_entries=fields["max_entries"].default,
    )


def _refuse(arguments: CheckArguments, error: Exception, code: int) -> int:
    if arguments.as_json:
        print(json.dumps({"error": type(error).__name__, "detail": str(error)}, indent=2))  # noqa: T201
    else:
        print(printable(f"error: {error}"), file=sys.stderr)  # noqa: T201
    return code
