"""Logs on a terminal: colours and progress bars stay, everything else that a terminal obeys goes."""

import pytest

from inference_client.terminal_text import RESET, LogText


def show(*pieces: bytes) -> str:
    text = LogText()
    return "".join([*(text.clean(piece) for piece in pieces), text.clean(b"", final=True)])


@pytest.mark.parametrize(
    ("log", "shown"),
    [
        (b"plain\n\ttext\n", "plain\n\ttext\n"),
        ("Schädel 名\n".encode(), "Schädel 名\n"),
        (b" 10 %\r 20 %\r\n", " 10 %\r 20 %\r\n"),
        (b"\x1b[1;31mred\x1b[0m\n", f"\x1b[1;31mred\x1b[0m\n{RESET}"),
        (b"\x1b[2J\x1b[H", "\ufffd[2J\ufffd[H"),
        (b"\x1b]0;title\x07", "\ufffd]0;title\ufffd"),
        (b"\x9b31m \xff\xfe", "\ufffd31m \ufffd\ufffd"),
        (b"a\x08b\x00c", "a\ufffdb\ufffdc"),
        ("\u202eabc".encode(), "\ufffdabc"),
        ("1\xa0000\u30001".encode(), "1\xa0000\u30001"),
        (b"cut \x1b[3", "cut \ufffd[3"),
    ],
)
def test_what_a_terminal_would_obey_is_replaced(log: bytes, shown: str) -> None:
    assert show(log) == shown
    # However it comes.
    assert show(*(log[place : place + 1] for place in range(len(log)))) == shown


def test_nothing_that_can_be_shown_is_held_back() -> None:
    assert LogText().clean(b"password? ") == "password? "
