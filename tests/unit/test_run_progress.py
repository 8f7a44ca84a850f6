"""How far a run says it is, in its log or in a file: foreign code wrote both."""

import os
from pathlib import Path

import pytest

from contract.heartbeats import Progress
from job_consumer.tasks.progress import ProgressFile, ProgressLines, parse_progress, read_progress
from job_consumer.workspace import PROGRESS_NAME
from tests.waiting import wait_until


@pytest.mark.parametrize(
    ("line", "progress"),
    [
        (b"progress 0.42 fold 2 of 5", (0.42, "fold 2 of 5")),
        (b"progress 0.42\r", (0.42, "")),
        (b"progress\t1", (1, "")),
        (b"progress 1.0   done ", (1, "done")),
        (b"progress 0 Sch\xc3\xa4del \xff\x1b[2J\x00", (0, "Schädel \ufffd [2J")),
        (b"progress 1e-05", (1e-05, "")),
        (b"progress 0.5 " + b"x" * 10**6, (0.5, "x" * 120)),
        (b"progress 1.01", None),
        (b"progress -0.1", None),
        (b"progress nan", None),
        (b"progress inf", None),
        (b"progress 1e999", None),
        (b"progress 42 %", None),
        (b"progress 0.42s", None),
        (b"progress ..", None),
        (b"progress", None),
        (b"no progress 0.42", None),
        (b"0.42 of it", None),
        (b"", None),
    ],
)
def test_a_line_of_a_log_says_a_number_between_0_and_1_or_nothing(
    line: bytes, progress: tuple[float, str] | None
) -> None:
    said = parse_progress(line, needs_word=True)
    assert (said and (said.fraction, said.text)) == progress


def test_a_log_is_understood_in_whatever_pieces_it_comes() -> None:
    log = b"start\nprogress 0.1 one\r\nprogress 0.2 two\nnoise progress 0.3\n" + b"y" * 10**5 + b"\nprogress 0.4 cut"
    assert ProgressLines().find(log) == Progress(fraction=0.2, text="two")
    lines = ProgressLines()
    found = [lines.find(log[place : place + 1]) for place in range(len(log))]
    assert [progress.fraction for progress in found if progress] == [0.1, 0.2]


def write(folder: Path, data: bytes) -> None:
    (folder / PROGRESS_NAME).write_bytes(data)


@pytest.mark.parametrize(
    ("data", "progress"),
    [
        (b"0.42 fold 2", (0.42, "fold 2")),
        (b"progress 0.42\n", (0.42, "")),
        (b"0.1 one\n0.2 two\n0.3 thr", (0.3, "thr")),
        (b"0.1 one\n0.2 two\nrubbish\n\n", (0.2, "two")),
        (b"0.1 one\n" * 100_000 + b"0.2\n", (0.2, "")),
        (b"rubbish", None),
        (b"", None),
    ],
)
def test_the_last_line_of_a_file_counts(tmp_path: Path, data: bytes, progress: tuple[float, str] | None) -> None:
    write(tmp_path, data)
    said = read_progress(tmp_path)
    assert (said and (said.fraction, said.text)) == progress


def test_a_file_leads_nowhere_and_holds_nobody_up(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"0.5 a password")
    run = tmp_path / "run"
    assert read_progress(run) is None
    run.mkdir()
    assert read_progress(run) is None
    file = run / PROGRESS_NAME
    file.symlink_to(secret)
    assert read_progress(run) is None
    file.unlink()
    os.mkfifo(file)
    assert read_progress(run) is None
    file.unlink()
    file.mkdir()
    assert read_progress(run) is None
    (tmp_path / "link").symlink_to(tmp_path)
    secret.rename(tmp_path / PROGRESS_NAME)
    assert read_progress(tmp_path / "link") is None
    assert read_progress(tmp_path) is not None


def test_a_file_is_told_once_for_each_change(tmp_path: Path) -> None:
    told: list[Progress] = []
    watch = ProgressFile(tmp_path, told.append)
    watch.start()
    try:
        for number in range(1, 4):
            write(tmp_path, b"0.%d" % number)
            wait_until(lambda number=number: len(told) == number, "what is new")  # type: ignore[misc]
    finally:
        watch.stop()
    assert [progress.fraction for progress in told] == [0.1, 0.2, 0.3]
