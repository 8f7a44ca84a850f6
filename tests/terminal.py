"""Runs `infer` as a person does: in a pseudo-terminal of 100 columns, with answers that are typed when asked for."""

import os
import pty
import re
import select
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.commands import Command, start_command
from tests.waiting import PATIENCE_S, wait_until

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Answer:
    """What is typed once `question` is on the screen; `hidden` text is not to be seen there."""

    question: str
    text: str
    hidden: bool = False


@dataclass(frozen=True)
class Shown:
    """What a run of `infer` left on the screen."""

    code: int
    raw: str

    @property
    def text(self) -> str:
        """Without colours, and with the line ends of a program."""
        return _ESCAPES.sub("", self.raw).replace("\r\n", "\n")


def run_in_terminal(
    arguments: Sequence[str], environment: Mapping[str, str], answers: Sequence[Answer] = (), *, program: str = ""
) -> Shown:
    """Run `infer`, or another program in Python, until it ends, and answer its questions in turn."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 100))
    variables, streams = {"TERM": "xterm-256color", **environment}, (theirs, theirs, theirs)
    process: Command | subprocess.Popen[bytes]
    if program:
        command = [sys.executable, "-c", program, *arguments]
        process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=variables, start_new_session=True
        )
    else:
        # The pseudo-terminal becomes the process's own: passwords are asked for there, whatever stdin is.
        process = start_command("inference_client", arguments, variables, streams, at_terminal=True)
    os.close(theirs)
    try:
        shown = _converse(ours, answers)
    except BaseException:
        process.kill()
        raise
    finally:
        os.close(ours)
        code = process.wait()
    return Shown(code, shown.decode())


def _converse(terminal: int, answers: Sequence[Answer]) -> bytes:
    """Everything that was shown until the other end was closed."""
    shown, read_bytes, waiting = b"", 0, list(answers)
    while piece := _read(terminal):
        shown += piece
        if waiting and waiting[0].question.encode() in shown[read_bytes:]:
            answer = waiting.pop(0)
            read_bytes = len(shown)
            if answer.hidden:
                # What is typed before the terminal stops showing it is thrown away.
                wait_until(lambda: not termios.tcgetattr(terminal)[3] & termios.ECHO, "the terminal to hide input")
            os.write(terminal, answer.text.encode() + b"\n")
    assert not waiting, f"was not asked: {waiting[0].question}; shown: {shown.decode()}"
    return shown


def _read(terminal: int) -> bytes:
    assert select.select([terminal], [], [], PATIENCE_S)[0], "nothing more is shown, and the command does not end"
    try:
        return os.read(terminal, 65536)
    except OSError:
        # How Linux says that the other end is closed.
        return b""
