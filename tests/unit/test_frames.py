"""Progress bars in logs: how a line looked in between goes, however the log comes in pieces."""

import random

import pytest

from job_consumer.tasks.frames import FRAME_BYTES, SHOWN_BYTES, LastFrames, MovingLine

LONG = b"x" * (FRAME_BYTES + 1)


def keep(*pieces: bytes) -> bytes:
    frames = LastFrames()
    return b"".join([*map(frames.take, pieces), frames.finish()])


@pytest.mark.parametrize(
    ("log", "kept"),
    [
        (b"plain\n\nlines, the last without an end", b"plain\n\nlines, the last without an end"),
        (b"dos\r\nlines\r\n\r\n", b"dos\r\nlines\r\n\r\n"),
        (b"\r  0%\r 50%\r100%\ndone\n", b"\r100%\ndone\n"),
        (b"  0%\r 50%\r100%\r\n", b"  0%\r100%\r\n"),
        (b"step\r\r\r\n", b"step\r\n"),
        # Bars that are cleared at their end, and one that is cut off.
        (b"\r 50%\r     \rnext line\n", b"\rnext line\n"),
        (b"\r  0%\r 50%", b"\r 50%"),
        (b"a\r  0%\r 50%\r", b"a\r 50%\r"),
        # Not a bar's.
        (b"\ra\r" + LONG + b"\rb\rc\n", b"\r" + LONG + b"\rc\n"),
        (LONG + b"\r" + LONG + b"\n", LONG + b"\r" + LONG + b"\n"),
    ],
)
def test_of_each_line_the_first_and_the_last_frame_stay(log: bytes, kept: bytes) -> None:
    assert keep(log) == kept
    assert keep(*(log[place : place + 1] for place in range(len(log)))) == kept


def test_what_stays_does_not_depend_on_the_pieces() -> None:
    chance = random.Random(42)  # noqa: S311 - the same logs each time
    for _ in range(200):
        log = b"".join(chance.choices([b"\r", b"\n", b"a", b"bc", b"\r\n", LONG], [6, 3, 5, 5, 2, 0.3], k=60))
        cuts = sorted(chance.choices(range(len(log)), k=7))
        assert keep(*(log[a:b] for a, b in zip([0, *cuts], [*cuts, len(log)], strict=True))) == keep(log)


def test_text_is_not_held_back_before_a_carriage_return() -> None:
    frames = LastFrames()
    assert frames.take(b"loading ...") == b"loading ..."
    assert frames.take(b" 1%\r 2%") == b" 1%"
    assert frames.take(b"\r 3%\nready") == b"\r 3%\nready"


def test_ten_thousand_frames_are_one_line() -> None:
    bar = b"".join(b"\r%5d of 10000" % number for number in range(10_001))
    assert keep(bar + b"\n") == b"\r10000 of 10000\n"


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        ([b"loading"], b""),
        ([b"\r 10%"], b" 10%"),
        ([b"10%\r"], b"10%"),
        ([b"text 10%\r 20%\r", b" 30%"], b" 30%"),
        ([b"\r 10%", b"\r", b" 2", b"0%"], b" 20%"),
        ([b"\r 10%\ndone\n"], b""),
        ([b"\r 10%\nnext\n\r 1%"], b" 1%"),
        ([b"dos\r", b"\n"], b""),
        ([b"\r" + LONG, b"\r" + LONG], LONG[:SHOWN_BYTES]),
    ],
)
def test_a_line_that_is_written_anew_is_shown_while_it_moves(pieces: list[bytes], shown: bytes) -> None:
    line = MovingLine()
    for piece in pieces:
        line.take(piece)
    assert line.shown == shown
