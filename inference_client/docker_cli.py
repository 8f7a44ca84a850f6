"""The `docker` command, as far as the client needs it. Whatever it says for people goes to stderr."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from inference_client.errors import UnusableInput


def build_image(folder: Path) -> str:
    """Build the image of a folder with a Dockerfile, showing how that goes; returns its id. Raises `UnusableInput`."""
    if not (folder / "Dockerfile").is_file():
        raise UnusableInput(f"{folder} holds no Dockerfile; `infer init FOLDER` writes one with all that belongs to it")
    with TemporaryDirectory() as scratch:
        id_file = Path(scratch) / "id"
        code = run_shown(["build", "--iidfile", str(id_file), str(folder)])
        if code != 0:
            raise UnusableInput(f"the image of {folder} was not built: docker ended with {code}; its words are above")
        return id_file.read_text().strip()


def tag_image(image: str, tag: str) -> None:
    """Give an image a name. Raises `UnusableInput`."""
    _ask("tag", image, tag)


def push_image(tag: str) -> None:
    """Push to the tag's registry. Raises `UnusableInput`."""
    code = run_shown(["push", tag])
    if code != 0:
        raise UnusableInput(f"{tag} was not pushed: docker ended with {code}; its words are above")


def engine_name() -> str:
    """What the Engine's machine calls itself, as consumers report it. Raises `UnusableInput`."""
    return _ask("info", "--format", "{{.Name}}")


def has_image(tag: str) -> bool:
    """Whether the Engine has the image. Raises `UnusableInput` if there is no `docker`."""
    return _run(["image", "inspect", tag], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0


def remove_volume(name: str) -> None:
    """Remove a volume if it is there."""
    _run(["volume", "rm", "--force", name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def run_shown(arguments: Sequence[str]) -> int:
    """Run `docker`, all its output on stderr; returns its exit code."""
    return _run(arguments, stdout=sys.stderr, stderr=None)


def run_through(command: Sequence[str], *, on_stderr: bool = False) -> int:
    """Run a program that writes to this process's terminal, until it ends; returns its exit code.

    It is told of the first Ctrl-C, or SIGTERM, and has the time to clean up.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # In a session of its own, so that a Ctrl-C comes to it from here alone, and once.
        with _start(
            command, stdin=subprocess.DEVNULL, stdout=sys.stderr if on_stderr else None, start_new_session=True
        ) as process:
            return _wait_and_pass_on(process)
    finally:
        signal.signal(signal.SIGTERM, before)


def _wait_and_pass_on(process: "subprocess.Popen[bytes]") -> int:
    is_told = False
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            if not is_told:
                process.send_signal(signal.SIGINT)
            is_told = True


def _run(arguments: Sequence[str], *, stdout: object, stderr: object) -> int:
    with _start(["docker", *arguments], stdout=stdout, stderr=stderr) as process:
        return process.wait()


def _ask(*arguments: str) -> str:
    with _start(["docker", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        said, complaint = process.communicate()
    text = " ".join(complaint.decode(errors="replace").split())
    if process.returncode != 0:
        raise UnusableInput(f"docker {arguments[0]} failed: {text}")
    return str(said.decode(errors="replace").strip())


def _start(command: Sequence[str], **streams: object) -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(list(command), **streams)  # type: ignore[call-overload, no-any-return]
    except FileNotFoundError as error:
        raise UnusableInput(f"there is no command {command[0]} on this machine; install Docker to use this") from error
