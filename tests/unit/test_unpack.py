import errno
import os
import random
import resource
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from contract.errors import InvalidArchive
from contract.zip_rules import MAX_ENTRIES
from job_consumer.run_disk import DiskFull, require_room
from job_consumer.unpack import unpack_archive
from tests.unit.test_output_zip import open_descriptors
from tests.unit.test_zip_rules import by_sentence, mutate
from tests.unit.zip_corpus import GOOD, LYING, MALFORMED, Case, Part, build, deflate
from tests.zips import make_zip

LIMIT = 1024**3
SMALL = [case for case in GOOD if len(case.data) < 4096]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


def unpack(data: bytes, target: Path) -> None:
    path = target.parent / "archive.zip"
    path.write_bytes(data)
    unpack_path(path, target)


def unpack_path(path: Path, target: Path, *, make_room: Callable[[int], None] = lambda _: None) -> None:
    unpack_archive(path, target, max_unpacked_bytes=LIMIT, max_entries=MAX_ENTRIES, make_room=make_room)


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@by_sentence(SMALL)
def test_an_acceptable_zip_is_unpacked(case: Case, target: Path) -> None:
    unpack(case.data, target)
    assert all(path.is_dir() or path.is_file() for path in target.rglob("*"))


def test_files_and_folders_arrive_with_their_names_and_bytes(target: Path) -> None:
    unpack(make_zip({"a/b/c.txt": b"hello" * 99_999, "a/Ü.txt": b"", "empty/": b""}), target)
    assert tree(target) == {
        "a": None, "a/b": None, "a/b/c.txt": b"hello" * 99_999, "a/Ü.txt": b"", "empty": None,
    }  # fmt: skip


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_modes_depend_on_the_executable_bit_and_on_nothing_else(target: Path, umask: int) -> None:
    parts = [
        Part(name=b"d/", data=b"", mode=0o40700),
        Part(name=b"d/e/plain", mode=0o100600),
        Part(name=b"d/open", mode=0o100666),
        Part(name=b"d/program", mode=0o100700),
    ]
    before = os.umask(umask)
    try:
        unpack(build(*parts), target)
    finally:
        os.umask(before)
    modes = {str(path.relative_to(target)): mode_of(path) for path in target.rglob("*")}
    assert modes == {"d": 0o755, "d/e": 0o755, "d/e/plain": 0o644, "d/open": 0o644, "d/program": 0o755}


@by_sentence(MALFORMED)
def test_nothing_is_written_of_a_malformed_zip(case: Case, target: Path) -> None:
    with pytest.raises(InvalidArchive):
        unpack(case.data, target)
    assert tree(target) == {}


@by_sentence(LYING)
def test_of_a_zip_that_lies_no_more_is_written_than_it_declares(case: Case, target: Path) -> None:
    with pytest.raises(InvalidArchive):
        unpack(case.data, target)
    assert sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) <= 5


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The kernel then treats a longer file as it treats a full disk: a short write first, an error next."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_is_an_error_of_this_host_and_never_a_short_file(tmp_path: Path, target: Path) -> None:
    path = tmp_path / "archive.zip"
    path.write_bytes(build(Part(data=b"x" * 50_000, method=8)))
    with largest_file(49_999), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        unpack_path(path, target)


def test_short_writes_lose_nothing(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
        unpack(make_zip({"a": bytes(range(256))}), target)
    assert (target / "a").read_bytes() == bytes(range(256))


def test_a_file_that_is_there_already_is_never_overwritten(target: Path) -> None:
    (target / "a.txt").write_text("mine")
    with pytest.raises(FileExistsError):
        unpack(build(Part()), target)
    assert (target / "a.txt").read_text() == "mine"


def test_names_that_differ_in_case_are_two_files_here(target: Path) -> None:
    unpack(make_zip({"T1.nii": b"1", "t1.nii": b"2", "Data/x": b"3", "data/y": b"4"}), target)
    assert {name: data for name, data in tree(target).items() if data} == {
        "T1.nii": b"1", "t1.nii": b"2", "Data/x": b"3", "data/y": b"4",
    }  # fmt: skip


def test_where_they_are_one_file_the_zip_is_refused_and_none_overwritten(target: Path) -> None:
    # As on a file system that ignores case: the second name is taken.
    (target / "t1.nii").write_text("T1.nii")
    with pytest.raises(InvalidArchive, match=r"'T1.nii' and 't1.nii' name the same file where case is ignored, as on"):
        unpack(make_zip({"T1.nii": b"1", "t1.nii": b"2"}), target)
    assert (target / "t1.nii").read_text() == "T1.nii"


def test_room_is_made_for_all_of_it_before_any_is_written(tmp_path: Path, target: Path) -> None:
    path = tmp_path / "archive.zip"
    path.write_bytes(make_zip({"a": bytes(10**6), "b": b""}))

    def refuse(size_bytes: int) -> None:
        assert size_bytes == 10**6 + 2 * 4096
        require_room(target, size_bytes, 2**60)

    with pytest.raises(DiskFull, match=f"{10**6 + 2 * 4096} are needed above the reserve of {2**60}"):
        unpack_path(path, target, make_room=refuse)
    assert tree(target) == {}
    unpack_path(path, target, make_room=lambda size_bytes: require_room(target, size_bytes, 0))
    assert tree(target) == {"a": bytes(10**6), "b": b""}


def test_whoever_waits_for_it_can_end_it(tmp_path: Path, target: Path) -> None:
    path, left = tmp_path / "archive.zip", iter(range(5))
    path.write_bytes(make_zip({str(n): bytes(4 * 1024**2) for n in range(9)}))

    def check() -> None:
        if next(left, None) is None:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        unpack_archive(
            path, target, max_unpacked_bytes=LIMIT, max_entries=MAX_ENTRIES, make_room=lambda _: None, check=check
        )
    assert tree(target).keys() < {str(n) for n in range(9)}


@pytest.mark.parametrize("name", [b"link", b"link/a", b"link/d/a"])
def test_a_link_in_the_target_is_never_followed(target: Path, tmp_path: Path, name: bytes) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (target / "link").symlink_to(outside)
    with pytest.raises(OSError, match=r"exists|Not a directory|symbolic links"):
        unpack(build(Part(name=name)), target)
    assert tree(outside) == {}


def test_a_target_that_is_a_link_is_refused(target: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        unpack(build(Part()), tmp_path / "link")
    assert tree(target) == {}


def test_no_descriptor_stays_open_after_a_fault(target: Path) -> None:
    before = open_descriptors()
    with pytest.raises(InvalidArchive):
        unpack(build(Part(name=b"a/b/c", method=8, packed=deflate(b"jello"))), target)
    assert open_descriptors() == before


@pytest.mark.parametrize("seed", range(4))
def test_no_damaged_zip_writes_outside_the_target(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - not a secret
    seeds = [case.data for case in [*SMALL, *MALFORMED] if 0 < len(case.data) < 4096]
    cage = tmp_path / "cage" / "a" / "b" / "c"
    cage.mkdir(parents=True)
    unpacked = 0
    for number in range(100):
        target = cage / str(number)
        target.mkdir()
        (tmp_path / "archive.zip").write_bytes(mutate(chance, chance.choice(seeds)))
        try:
            unpack_path(tmp_path / "archive.zip", target)
            unpacked += 1
        except InvalidArchive:
            pass
    assert unpacked
    assert {path.name for path in cage.iterdir()} == {str(number) for number in range(100)}
    assert [path.name for path in (tmp_path / "cage").iterdir()] == ["a"]
    assert {path.name for path in tmp_path.iterdir()} == {"archive.zip", "cage"}
    assert not [path for path in cage.rglob("*") if path.is_symlink() or not (path.is_file() or path.is_dir())]
