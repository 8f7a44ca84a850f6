"""What users name becomes a zip: the right names, every byte, the same bytes each time, and clear refusals."""

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.zip_rules import check_archive, verify_contents
from inference_client import pack
from inference_client.errors import DamagedDownload, UnusableInput
from inference_client.pack import select
from inference_client.unpack import unpack_zip
from tests.zips import make_zip

FILES = st.dictionaries(
    st.tuples(st.sampled_from(["", "a/", "a/b/", "ünder/"]), st.integers(0, 9)), st.binary(max_size=2000), min_size=1
)


def zipped(*paths: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(b"".join(select(paths).chunks())))


def contents(archive: zipfile.ZipFile) -> dict[str, bytes]:
    return {info.filename: archive.read(info) for info in archive.infolist() if not info.is_dir()}


@given(FILES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_folder_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, files: dict[tuple[str, int], bytes]
) -> None:
    folder = tmp_path_factory.mktemp("input")
    expected = {f"{where}{number}.bin": data for (where, number), data in files.items()}
    for name, data in expected.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)

    selection = select([folder])
    packed = b"".join(selection.chunks())

    assert contents(zipfile.ZipFile(io.BytesIO(packed))) == expected
    assert selection.total_bytes == sum(map(len, expected.values()))
    assert packed == b"".join(select([folder]).chunks())
    # What the server holds every upload to.
    verify_contents(io.BytesIO(packed), check_archive(io.BytesIO(packed), max_unpacked_bytes=2**40))


def test_megabytes_of_zeros_are_no_bomb_to_the_server(tmp_path: Path) -> None:
    (tmp_path / "mask.nii").write_bytes(bytes(4 * 1024**2))
    packed = io.BytesIO(b"".join(select([tmp_path]).chunks()))
    assert check_archive(packed, max_unpacked_bytes=2**40).total_size == 4 * 1024**2


def test_chunks_stay_small_however_large_the_file(tmp_path: Path) -> None:
    (tmp_path / "big.bin").write_bytes(os.urandom(3 * pack.CHUNK_BYTES + 5))
    assert max(map(len, select([tmp_path]).chunks())) < 2 * pack.CHUNK_BYTES


def test_empty_folders_and_permissions_are_kept_and_setuid_is_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "run.sh").write_text("#!/bin/sh\n")
    (tmp_path / "run.sh").chmod(0o4755)
    with zipped(tmp_path) as archive:
        assert archive.namelist() == ["empty/", "run.sh"]
        assert archive.getinfo("run.sh").external_attr >> 16 == 0o100755


def test_a_file_goes_by_its_name_and_folders_among_several_paths_keep_theirs(tmp_path: Path) -> None:
    (tmp_path / "scan").mkdir()
    (tmp_path / "scan" / "1.dcm").write_bytes(b"1")
    (tmp_path / "note.txt").write_bytes(b"n")
    assert contents(zipped(tmp_path / "note.txt")) == {"note.txt": b"n"}
    both = zipped(tmp_path / "note.txt", tmp_path / "scan")
    assert contents(both) == {"note.txt": b"n", "scan/1.dcm": b"1"}


def test_a_path_of_dots_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "data" / "inner"
    inner.mkdir(parents=True)
    (inner / "x").write_bytes(b"x")
    monkeypatch.chdir(inner)
    (tmp_path / "y").write_bytes(b"y")
    assert contents(zipped(Path(), tmp_path / "y")) == {"inner/x": b"x", "y": b"y"}
    assert contents(zipped(Path(".."), tmp_path / "y")) == {"data/inner/x": b"x", "y": b"y"}


def test_a_single_zip_is_sent_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "in.zip").write_bytes(make_zip({"x": b"x"}))
    selection = select([tmp_path / "in.zip"])
    assert b"".join(selection.chunks()) == (tmp_path / "in.zip").read_bytes()
    assert selection.content_length == (tmp_path / "in.zip").stat().st_size


@pytest.mark.parametrize("umask", [0o000, 0o027, 0o077])
def test_the_same_files_give_the_same_bytes_wherever_and_whenever_they_lie(tmp_path: Path, umask: int) -> None:
    names = ["weights/b.bin", "weights/a.bin", "weights.txt", "run.sh", "Z", "ä"]

    def make(folder: Path, order: list[str], moment: float) -> Path:
        for name in order:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            # The umask decides what is left of the mode.
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o777 if name == "run.sh" else 0o666)
            os.write(descriptor, name.encode())
            os.close(descriptor)
            os.utime(path, (moment, moment))
        return folder

    before = os.umask(0o022)
    try:
        first = make(tmp_path / "first", names, 1_700_000_000)
        os.umask(umask)
        second = make(tmp_path / "second", names[::-1], 0)
    finally:
        os.umask(before)

    packed = b"".join(select([first]).chunks())
    assert packed == b"".join(select([second]).chunks())
    (second / "weights.txt").chmod(0o700)
    assert packed != b"".join(select([second]).chunks()), "what may be executed counts"


def test_links_inside_a_folder_are_refused_and_a_named_link_is_followed(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "x").write_bytes(b"x")
    (tmp_path / "link").symlink_to(real)
    assert contents(zipped(tmp_path / "link")) == {"x": b"x"}
    with pytest.raises(UnusableInput, match="link is a link"):
        select([tmp_path])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda here: [], "nothing was named"),
        (lambda here: [here / "missing"], "does not exist"),
        (lambda here: [here / "empty"], "holds no files"),
        (lambda here: [here / "a" / "x", here / "b" / "x"], "'x' and 'x' name the same file"),
        (lambda here: [here / "a" / "x", here / "c" / "x"], "'x' and 'x' name the same file"),
        (lambda here: [here / "pipe"], "neither a file nor a folder"),
        (lambda here: [here / "text.zip"], "not a zip file"),
        (lambda here: [here / "back\\slash"], "backslash"),
    ],
)
def test_what_cannot_be_sent_is_refused_by_name(
    tmp_path: Path, make: Callable[[Path], list[Path]], message: str
) -> None:
    for name in ("a/x", "b/x", "b/X", "c/x/y", "text.zip", "back\\slash"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "empty" / "er").mkdir(parents=True)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnusableInput, match=message):
        select(make(tmp_path))


@pytest.mark.parametrize("change", [b"", b"longer than it was"])
def test_a_file_that_changes_after_it_was_selected_is_noticed(tmp_path: Path, change: bytes) -> None:
    (tmp_path / "x").write_bytes(b"before")
    selection = select([tmp_path])
    (tmp_path / "x").write_bytes(change)
    with pytest.raises(UnusableInput, match="changed while it was sent"):
        b"".join(selection.chunks())


def test_progress_counts_the_bytes_of_the_users_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(10))
    (tmp_path / "b").write_bytes(bytes(20))
    seen: list[tuple[int, int | None]] = []
    list(select([tmp_path]).chunks(lambda done, total: seen.append((done, total))))
    assert seen[-1] == (30, 30)
    assert seen == sorted(seen)


def test_unpacking_keeps_folders(tmp_path: Path) -> None:
    (tmp_path / "out.zip").write_bytes(make_zip({"a/b.txt": b"b"}))
    unpack_zip(tmp_path / "out.zip", tmp_path / "out")
    assert (tmp_path / "out" / "a" / "b.txt").read_bytes() == b"b"


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:/evil", "link"])
def test_unpacking_refuses_names_that_leave_the_folder(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as archive:
        archive.writestr("good", b"g")
        info = zipfile.ZipInfo(name)
        if name == "link":
            info.external_attr = 0o120777 << 16
        archive.writestr(info, b"/etc/passwd")
    with pytest.raises(DamagedDownload, match="nothing was unpacked"):
        unpack_zip(tmp_path / "out.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unpacking_what_is_no_zip_is_a_damaged_download(tmp_path: Path) -> None:
    (tmp_path / "out.zip").write_bytes(b"<html>")
    with pytest.raises(DamagedDownload, match="not a readable zip"):
        unpack_zip(tmp_path / "out.zip", tmp_path / "out")


def test_names_that_differ_in_case_are_sent_as_the_two_files_that_they_are(tmp_path: Path) -> None:
    for name in ("T1.nii", "t1.nii"):
        (tmp_path / name).write_text(name)
    packed = b"".join(select([tmp_path]).chunks())
    assert check_archive(io.BytesIO(packed), max_unpacked_bytes=2**40).total_size == 12
