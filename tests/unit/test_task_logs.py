"""Long logs: beginning and end are kept, what is between them is counted."""

import random
from pathlib import Path

import pytest

from contract.errors import Conflict
from private_api.task_logs import END_BYTES, HEAD_BYTES, TAIL_BYTES, TaskLogs

UID = "a" * 64
MIB = 1024**2


@pytest.fixture
def logs(tmp_path: Path) -> TaskLogs:
    return TaskLogs(tmp_path / "logs", reserve_bytes=0)


def text(size: int) -> bytes:
    """Lines that differ."""
    line = b"%015d\n"
    return b"".join(line % number for number in range(size // 16))


def write(logs: TaskLogs, data: bytes, *, piece_bytes: int = 256 * 1024, offset: int = 0) -> None:
    while offset < len(data):
        offset = logs.append(UID, 1, offset, data[offset : offset + piece_bytes])


def read(logs: TaskLogs) -> bytes:
    return b"".join(logs.read(UID, 1))


@pytest.mark.parametrize("size", [0, 16, HEAD_BYTES - 16, HEAD_BYTES, HEAD_BYTES + 16, HEAD_BYTES + END_BYTES])
@pytest.mark.parametrize("piece_bytes", [256 * 1024, 5 * MIB + 3])
def test_a_log_up_to_the_limit_is_kept_whole(logs: TaskLogs, size: int, piece_bytes: int) -> None:
    data = text(size)
    write(logs, data, piece_bytes=piece_bytes)
    assert read(logs) == data
    assert logs.tail(UID, 1) == data[-TAIL_BYTES:].decode()


@pytest.mark.parametrize("more", [16, 13 * MIB])
def test_of_a_longer_log_beginning_and_end_are_kept(logs: TaskLogs, more: int) -> None:
    data = text(HEAD_BYTES + END_BYTES + more)
    write(logs, data, piece_bytes=1_000_000)
    missing = b"\n[%d bytes of the log are missing here]\n" % more
    assert read(logs) == data[:HEAD_BYTES] + missing + data[-END_BYTES:]
    assert logs.tail(UID, 1) == data[-TAIL_BYTES:].decode()
    assert sum(path.stat().st_size for path in logs.files(UID, 1)) <= HEAD_BYTES + 2 * END_BYTES


def test_pieces_that_come_again_or_too_early_change_nothing(logs: TaskLogs) -> None:
    data = text(22 * MIB)
    source = random.Random(4)  # noqa: S311 - not a secret
    offset = 0
    while offset < len(data):
        again = max(0, offset - source.randrange(3 * MIB))
        after = logs.append(UID, 1, again, data[again : again + source.randrange(1, 2 * MIB)])
        offset = max(offset, after)
    with pytest.raises(Conflict, match="would leave a gap"):
        logs.append(UID, 1, len(data) + 1, b"x")
    assert read(logs).endswith(data[-END_BYTES:])


def test_who_follows_gets_every_byte_that_comes_while_it_follows(logs: TaskLogs) -> None:
    data, seen, position, offset = text(24 * MIB), b"", 0, 0
    while offset < len(data):
        offset = logs.append(UID, 1, offset, data[offset : offset + MIB])
        while True:
            chunk, position = logs.read_at(UID, 1, position)
            if not chunk:
                break
            seen += chunk
    assert seen == data


def test_a_log_that_an_earlier_release_cut_stays_as_it_is(logs: TaskLogs) -> None:
    cut = text(16 * MIB) + b"\n[the log was cut here: it reached its limit]\n"
    logs.path(UID, 1).write_bytes(cut)
    assert logs.append(UID, 1, 30 * MIB, b"more") == 30 * MIB + 4
    assert read(logs) == cut


def test_a_log_that_an_earlier_release_began_goes_on(logs: TaskLogs) -> None:
    data = text(24 * MIB)
    logs.path(UID, 1).write_bytes(data[: 14 * MIB])
    write(logs, data, offset=14 * MIB)
    assert read(logs).startswith(data[: 14 * MIB])
    assert read(logs).endswith(data[-END_BYTES:])


def test_nothing_is_left_of_a_removed_log(logs: TaskLogs) -> None:
    write(logs, text(20 * MIB))
    logs.remove(UID, 1)
    assert list(logs.root.iterdir()) == []
    assert (read(logs), logs.tail(UID, 1)) == (b"", "")


def test_a_removed_log_takes_those_of_earlier_attempts_along_and_no_other_task_s(logs: TaskLogs) -> None:
    other = UID.replace(UID[0], "0")
    for fence in (1, 2, 3):
        logs.append(UID, fence, 0, b"a line\n")
    logs.append(other, 1, 0, b"a line\n")
    logs.remove(UID, 3)
    assert list(logs.root.iterdir()) == [logs.path(other, 1)]


def test_the_line_that_is_being_written_is_kept_until_the_log_goes_on(logs: TaskLogs) -> None:
    assert logs.line(UID, 1) == b""
    write(logs, b"start\n")
    for line in (b" 10%", b" 20%"):
        logs.show_line(UID, 1, line)
        assert logs.line(UID, 1) == line
    assert read(logs) == b"start\n"
    logs.append(UID, 1, 6, b"\r100%\n")
    assert logs.line(UID, 1) == b""
    for line in (b" 10%", b""):
        logs.show_line(UID, 1, line)
    assert logs.line(UID, 1) == b""
    logs.show_line(UID, 1, b" 10%")
    logs.remove(UID, 1)
    assert list(logs.root.iterdir()) == []
