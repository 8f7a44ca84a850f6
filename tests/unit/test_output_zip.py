import io
import os
import random
import stat
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from contract.statuses import Reason
from contract.zip_rules import MAX_ENTRIES, check_archive, verify_contents
from job_consumer.output.failures import ModelFailed
from job_consumer.output.measure import measure_folder
from job_consumer.output.survey import Survey, survey_output
from job_consumer.output.zip_stream import stream_zip
from job_consumer.unpack import unpack_archive
from tests.zips import read_zip

LIMIT = 1024**3
NOISE = random.Random(1).randbytes(300_000)  # noqa: S311 - not a secret


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "output"
    folder.mkdir()
    return folder


def fill(folder: Path) -> None:
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "a" / "b" / "Ü.txt").write_text("line\n" * 100_000)
    (folder / "a" / "noise").write_bytes(NOISE)
    (folder / "nothing").touch()
    (folder / "program").touch(0o755)


def survey(folder: Path, *, max_bytes: int = LIMIT, max_entries: int = 10_000, strict: bool = False) -> Survey:
    return survey_output(folder, max_bytes=max_bytes, max_entries=max_entries, strict=strict)


def stream(folder: Path, **options: Any) -> Iterator[bytes]:
    return stream_zip(folder, survey(folder, **options).files)


def collect(folder: Path, **options: Any) -> bytes:
    return b"".join(stream(folder, **options))


def contents(folder: Path) -> dict[str, bytes]:
    """What is sent, folders left out."""
    return read_zip(collect(folder))


def refusal(folder: Path, *, strict: bool = True, **options: Any) -> ModelFailed:
    with pytest.raises(ModelFailed) as refused:
        survey(folder, strict=strict, **options)
    return refused.value


def test_an_output_is_an_archive_by_our_own_rules_and_unpacks_to_itself(output: Path, tmp_path: Path) -> None:
    fill(output)
    path, target = tmp_path / "output.zip", tmp_path / "target"
    path.write_bytes(collect(output))
    target.mkdir()
    unpack_archive(path, target, max_unpacked_bytes=LIMIT, max_entries=MAX_ENTRIES, make_room=lambda _: None)

    def tree(folder: Path) -> dict[str, tuple[bool, bytes | None]]:
        return {
            str(path.relative_to(folder)): (os.access(path, os.X_OK), path.read_bytes() if path.is_file() else None)
            for path in folder.rglob("*")
        }

    assert tree(target) == tree(output)


def test_an_output_is_readable_by_the_standard_library(output: Path) -> None:
    fill(output)
    with zipfile.ZipFile(io.BytesIO(collect(output))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["a/", "a/b/", "a/b/Ü.txt", "a/noise", "empty/", "nothing", "program"]


def test_the_same_files_give_the_same_bytes(output: Path) -> None:
    fill(output)
    assert collect(output) == collect(output)


def test_what_does_not_compress_is_not_compressed_and_all_else_is(output: Path) -> None:
    fill(output)
    # A byte of 240 values deflates to 99 %, which is not worth it.
    barely = bytes(byte % 240 for byte in NOISE)
    (output / "barely").write_bytes(barely)
    with zipfile.ZipFile(io.BytesIO(collect(output))) as archive:
        assert archive.getinfo("barely").compress_size > len(barely)
        noise, text = archive.getinfo("a/noise"), archive.getinfo("a/b/Ü.txt")
    assert len(NOISE) < noise.compress_size < len(NOISE) + 200
    assert text.compress_size < text.file_size / 20


def test_no_entry_needs_a_reader_that_can_seek(output: Path) -> None:
    fill(output)
    with zipfile.ZipFile(io.BytesIO(collect(output))) as archive:
        for info in archive.infolist():
            assert info.is_dir() != (info.compress_type == zipfile.ZIP_DEFLATED)
            assert info.is_dir() != bool(info.flag_bits & 0x08)


@pytest.mark.parametrize(
    ("modified_s", "expected"),
    [
        (-10, (1980, 1, 1, 0, 0, 0)),
        (2**33, (2107, 12, 31, 23, 59, 58)),
        (1_000_000_000, (2001, 9, 9, 1, 46, 40)),
    ],
)
def test_a_time_that_a_zip_cannot_say_is_moved_to_the_nearest(
    output: Path, modified_s: int, expected: tuple[int, ...]
) -> None:
    (output / "a").touch()
    os.utime(output / "a", (modified_s, modified_s))
    with zipfile.ZipFile(io.BytesIO(collect(output))) as archive:
        assert archive.getinfo("a").date_time == expected


def test_large_entries_get_zip64(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(output)
    with monkeypatch.context() as patched:
        patched.setattr(zipfile, "ZIP64_LIMIT", 1000)
        file = io.BytesIO(collect(output))
    verify_contents(file, check_archive(file, max_unpacked_bytes=LIMIT))
    with zipfile.ZipFile(file) as archive:
        assert archive.read("a/noise") == NOISE
        assert archive.getinfo("a/noise").extract_version == 45


def test_memory_and_chunks_are_bounded(output: Path) -> None:
    with (output / "large").open("wb") as file:
        file.write(NOISE)
        file.truncate(48 * 1024**2)
    tracemalloc.start()
    try:
        longest = max(len(chunk) for chunk in stream(output))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert longest <= 512 * 1024
    assert peak < 4 * 1024**2


def test_an_empty_output_is_no_output(output: Path) -> None:
    assert refusal(output).reason is Reason.NO_OUTPUT


def test_folders_without_a_file_are_no_output(output: Path) -> None:
    (output / "a" / "b").mkdir(parents=True)
    assert refusal(output).reason is Reason.NO_OUTPUT


def _link(path: Path) -> None:
    path.symlink_to("/proc/self/environ")


def _dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def _folder_link(path: Path) -> None:
    path.symlink_to("/etc")


def _hard_link(path: Path) -> None:
    path.write_text("a secret")
    (path.parent.parent / "elsewhere").hardlink_to(path)


def _socket(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)


def _device(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes devices")
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_link, "symbolic link"),
        (_dangling_link, "symbolic link"),
        (_folder_link, "symbolic link"),
        (_hard_link, "hard link"),
        (os.mkfifo, "FIFO"),
        (_socket, "socket"),
        (_device, "device"),
    ],
)
def test_what_is_no_plain_file_refuses_a_strict_output_and_is_never_opened(
    output: Path, make: Callable[[Path], None], says: str
) -> None:
    (output / "fine").touch()
    (output / "d").mkdir()
    make(output / "d" / "offender")
    failed = refusal(output)
    assert failed.reason is Reason.OUTPUT_REJECTED
    assert "'d/offender'" in failed.detail
    assert says in failed.detail
    assert "fine" not in failed.detail


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (b"a\\b", "backslash"),
        (b"a\nb", "control character"),
        (b"\xff\xfe", "UTF-8"),
        (b"C:a", "drive letter"),
        (b"/".join([b"x" * 200] * 6), "longer than 1024"),
        (b"/".join([b"d"] * 65), "deeper than 64"),
    ],
)
def test_a_name_that_an_archive_may_not_have_refuses_a_strict_output(output: Path, name: bytes, says: str) -> None:
    path = os.path.join(os.fsencode(output), name)  # noqa: PTH118 - bytes
    os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120 - bytes
    with open(path, "wb"):  # noqa: PTH123 - bytes
        pass
    failed = refusal(output)
    assert failed.reason is Reason.OUTPUT_REJECTED
    assert says in failed.detail


def test_names_that_differ_only_in_case_refuse_a_strict_output(output: Path) -> None:
    (output / "Lung").touch()
    (output / "lung").touch()
    if len(list(output.iterdir())) == 1:
        pytest.skip("this file system ignores case")
    assert "'Lung' and 'lung'" in refusal(output).detail


def test_ten_offenders_are_named_and_the_others_counted(output: Path) -> None:
    for number in range(13):
        os.mkfifo(output / f"fifo{number:02}")
    detail = refusal(output).detail
    assert detail.count("FIFO") == 10
    assert "and 3 more" in detail


def test_a_sparse_terabyte_is_refused_by_its_size(output: Path) -> None:
    with (output / "sparse").open("wb") as file:
        file.truncate(2**40)
    failed = refusal(output)
    assert failed.reason is Reason.OUTPUT_TOO_LARGE
    assert measure_folder(output) == 2**40


def test_an_output_of_exactly_the_limits_is_taken(output: Path) -> None:
    (output / "d").mkdir()
    (output / "d" / "a").write_bytes(b"12345")
    assert collect(output, max_bytes=5, max_entries=2)
    assert refusal(output, max_bytes=4).reason is Reason.OUTPUT_TOO_LARGE
    failed = refusal(output, max_entries=1)
    assert failed.reason is Reason.OUTPUT_TOO_LARGE
    assert "more than 1 files" in failed.detail


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root reads everything, so an unreadable file needs somebody else to read it."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("locked", ["file", "folder"])
def test_what_this_process_may_not_read_is_rejected(locked: str) -> None:
    # Not below tmp_path, which nobody else may enter.
    with tempfile.TemporaryDirectory() as root:
        output = Path(root)
        output.chmod(0o755)
        (output / "fine").touch()
        (output / "folder").mkdir()
        (output / "file").touch()
        (output / locked).chmod(0)
        with as_nobody():
            failed = refusal(output)
            assert measure_folder(output) == 0
        (output / locked).chmod(0o700)
    assert failed.reason is Reason.OUTPUT_REJECTED
    assert f"'{locked}' (Permission denied)" in failed.detail


def test_an_output_folder_that_was_replaced_by_a_link_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "output").symlink_to("/etc")
    assert refusal(tmp_path / "output").reason is Reason.OUTPUT_REJECTED
    assert refusal(tmp_path / "missing").reason is Reason.OUTPUT_REJECTED


def _shrink(path: Path) -> None:
    os.truncate(path, 10)


def _replace_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def _replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _replace_by_file(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(NOISE)
    other.rename(path)


@pytest.mark.parametrize("change", [_shrink, Path.unlink, _replace_by_link, _replace_by_fifo, _replace_by_file])
def test_a_file_that_changes_between_survey_and_reading_is_rejected(
    output: Path, change: Callable[[Path], None]
) -> None:
    (output / "a").write_bytes(NOISE)
    chunks = stream(output)
    change(output / "a")
    with pytest.raises(ModelFailed) as failed:
        list(chunks)
    assert failed.value.reason is Reason.OUTPUT_REJECTED
    assert "'a' in /output changed" in failed.value.detail


def test_a_folder_that_becomes_a_link_before_reading_is_not_followed(output: Path, tmp_path: Path) -> None:
    for folder in (output / "d", tmp_path / "secrets"):
        folder.mkdir()
        (folder / "a").write_bytes(NOISE)
    chunks = stream(output)
    (output / "d").rename(tmp_path / "moved")
    (output / "d").symlink_to(tmp_path / "moved")
    with pytest.raises(ModelFailed):
        list(chunks)


def test_of_a_file_that_grows_the_surveyed_bytes_are_taken(output: Path) -> None:
    (output / "a").write_bytes(NOISE)
    chunks = stream(output, max_bytes=len(NOISE))
    with (output / "a").open("ab") as file:
        file.write(NOISE)
    with zipfile.ZipFile(io.BytesIO(b"".join(chunks))) as archive:
        assert archive.read("a") == NOISE


def test_an_upload_that_is_given_up_leaves_nothing_open(output: Path) -> None:
    (output / "d").mkdir()
    (output / "d" / "a").write_bytes(NOISE * 10)
    before = open_descriptors()
    chunks = stream(output)
    next(chunks)
    assert open_descriptors() > before
    chunks.close()  # type: ignore[attr-defined]
    assert open_descriptors() == before


def test_plain_files_are_measured_and_nothing_else(output: Path) -> None:
    fill(output)
    (output / "link").symlink_to("a/noise")
    (output / "loop").symlink_to(".")
    os.mkfifo(output / "fifo")
    assert measure_folder(output) == 500_000 + len(NOISE)


def test_a_folder_that_is_gone_measures_nothing(tmp_path: Path) -> None:
    assert measure_folder(tmp_path / "missing") == 0


def test_a_folder_whose_files_vanish_meanwhile_is_measured(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(output)
    scandir = os.scandir

    @contextmanager
    def scan_and_delete(folder_fd: int) -> Iterator[list[os.DirEntry[str]]]:
        with scandir(folder_fd) as found:
            entries = list(found)
        if any(entry.name == "a" for entry in entries):
            (output / "nothing").unlink()
            (output / "program").unlink()
            (output / "empty").rmdir()
        yield entries

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", scan_and_delete)
        assert measure_folder(output) == 500_000 + len(NOISE)


def test_folders_too_deep_to_be_measured_end_the_run(output: Path) -> None:
    folder = output
    for _ in range(64):
        folder = folder / "d"
    folder.mkdir(parents=True)
    (folder / "a").write_bytes(b"12345")
    assert measure_folder(output) == 5
    (folder / "d").mkdir()
    with pytest.raises(ModelFailed, match="nested more than 64"):
        measure_folder(output)


def test_what_a_run_may_leave_behind_may_be_the_input_of_the_next(tmp_path: Path) -> None:
    output, target, path = tmp_path / "output", tmp_path / "target", tmp_path / "output.zip"
    for folder in (output / "deep/est/empty", target):
        folder.mkdir(parents=True)
    for name in ("T1.nii", "t1.nii", "deep/\N{LATIN SMALL LETTER E WITH ACUTE}", "deep/e\N{COMBINING ACUTE ACCENT}"):
        (output / name).write_text(name)
    # Compresses 1000 to 1, as an empty mask does.
    with (output / "mask").open("wb") as mask:
        mask.truncate(300 * 1024**2)
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    found = survey(output, max_bytes=size, max_entries=8)
    path.write_bytes(b"".join(stream_zip(output, found.files)))
    unpack_archive(path, target, max_unpacked_bytes=size, max_entries=8, make_room=lambda _: None)
    assert {str(file.relative_to(target)) for file in target.rglob("*")} == {
        str(file.relative_to(output)) for file in output.rglob("*")
    }
    assert (target / "mask").stat().st_size == 300 * 1024**2
