"""What `infer check` shows of a run."""

import pytest

from operations.trial.report import shown_log


def test_the_log_of_a_trial_steers_no_terminal(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with shown_log() as show:
        for piece in (b"\x1b]0;owned\x07 10 %\r\x1b", b"[32m20 % Sch\xc3", b"\xa4del\n", b"\x1b[2"):
            show(piece)
    out, err = capfdbinary.readouterr()
    assert out == b""
    assert err.decode() == "\ufffd]0;owned\ufffd 10 %\r\x1b[32m20 % Schädel\n\ufffd[2\x1b[0m"
