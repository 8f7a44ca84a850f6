import hashlib
import io
import random
import shutil
import struct
import subprocess
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from contract.errors import InvalidArchive
from contract.zip_rules import (
    check_archive,
    find_clash,
    find_clashes,
    find_file,
    list_files,
    name_fault,
    quoted,
    read_entry,
    read_range,
    verify_contents,
)
from tests.services import missing
from tests.unit import zip_corpus as corpus
from tests.unit.zip_corpus import GOOD, LYING, MALFORMED, Case, Part, build
from tests.zips import make_zip

LIMIT = 1024**3


def by_sentence(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case.sentence for case in cases])


def test_the_corpus_has_no_two_cases_of_one_name() -> None:
    sentences = [case.sentence for case in [*GOOD, *MALFORMED, *LYING]]
    assert len(sentences) == len(set(sentences))
    assert len(MALFORMED) >= 60


@by_sentence(GOOD)
def test_an_acceptable_zip_is_accepted(case: Case) -> None:
    file = io.BytesIO(case.data)
    directory = check_archive(file, max_unpacked_bytes=LIMIT)
    verify_contents(file, directory)
    with zipfile.ZipFile(file) as archive:
        infos = [info for info in archive.infolist() if info.filename != "./"]
        assert [entry.size for entry in directory.entries] == [info.file_size for info in infos]
        for entry, info in zip(directory.entries, infos, strict=True):
            assert b"".join(read_entry(file, entry)) == archive.read(info)


@by_sentence(MALFORMED)
def test_a_malformed_zip_is_refused(case: Case) -> None:
    with pytest.raises(InvalidArchive) as refusal:
        check_archive(io.BytesIO(case.data), max_unpacked_bytes=LIMIT)
    assert case.says in refusal.value.detail
    assert refusal.value.detail.endswith(".")
    assert "\n" not in refusal.value.detail
    assert "\0" not in refusal.value.detail


@by_sentence(LYING)
def test_a_lie_about_the_data_is_found_by_decompressing(case: Case) -> None:
    file = io.BytesIO(case.data)
    directory = check_archive(file, max_unpacked_bytes=LIMIT)
    with pytest.raises(InvalidArchive) as refusal:
        verify_contents(file, directory)
    assert case.says in refusal.value.detail


def test_the_path_of_a_file_is_as_good_as_an_open_file(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(build(Part()))
    directory = check_archive(path, max_unpacked_bytes=LIMIT)
    verify_contents(path, directory)
    assert [entry.name for entry in directory.entries] == ["a.txt"]
    assert directory.total_size == 5


def test_an_open_file_stays_open() -> None:
    file = io.BytesIO(build(Part()))
    check_archive(file, max_unpacked_bytes=LIMIT)
    assert not file.closed


def test_names_are_given_as_they_are_meant() -> None:
    names = ["Übung.txt".encode("cp437"), "schön".encode()]
    directory = check_archive(io.BytesIO(build(*[Part(name=name) for name in names])), max_unpacked_bytes=LIMIT)
    assert [entry.name for entry in directory.entries] == ["Übung.txt", "schön"]


def test_a_zip_of_exactly_the_limit_is_accepted_and_one_byte_more_is_not() -> None:
    file = io.BytesIO(build(Part(), Part(name=b"b")))
    assert check_archive(file, max_unpacked_bytes=10).total_size == 10
    with pytest.raises(InvalidArchive, match="unpacks to 10 bytes; this server accepts 9"):
        check_archive(file, max_unpacked_bytes=9)


def test_a_million_entries_are_refused_before_anything_is_built_for_them(tmp_path: Path) -> None:
    path = tmp_path / "many.zip"
    path.write_bytes(corpus.many_entries(1_000_000))

    def check() -> None:
        with pytest.raises(InvalidArchive, match="1000000 entries"):
            check_archive(path, max_unpacked_bytes=LIMIT)

    assert peak_of(check) < 1024**2


def test_a_large_file_is_not_read_to_be_checked(tmp_path: Path) -> None:
    path = tmp_path / "large.zip"
    data = random.Random(1).randbytes(8 * 1024**2)  # noqa: S311 - not a secret
    path.write_bytes(build(Part(data=data)))
    with path.open("rb", buffering=0) as raw:
        counted = _Counted(raw)
        check_archive(counted, max_unpacked_bytes=LIMIT)  # type: ignore[arg-type]
    assert counted.bytes_read < 256 * 1024


class _Counted:
    def __init__(self, file: io.RawIOBase) -> None:
        self._file = file
        self.bytes_read = 0

    def read(self, size: int) -> bytes:
        data = self._file.read(size) or b""
        self.bytes_read += len(data)
        return data

    def seek(self, *where: int) -> int:
        return self._file.seek(*where)


def test_chunks_are_bounded_however_well_the_data_compresses() -> None:
    zeros = bytes(16 * 1024**2)
    bulky = Part(data=zeros, method=8, packed=corpus.deflate(zeros, level=1))
    file = io.BytesIO(build(bulky, Part(name=b"b", data=bytes(1024**2))))
    directory = check_archive(file, max_unpacked_bytes=LIMIT)
    assert max(len(chunk) for chunk in read_entry(file, directory.entries[0])) <= 1024**2
    verify_contents(file, directory)


def test_the_end_of_a_match_that_all_input_was_read_for_is_not_forgotten() -> None:
    # One byte more than a chunk, its last match and the end-of-block code ending in one byte of the input.
    data = (b"\x90" + bytes(range(1, 100))).ljust(1024**2 + 1, b"\0")
    encoder = zlib.compressobj(9, zlib.DEFLATED, -15, strategy=zlib.Z_FIXED)
    file = io.BytesIO(build(Part(data=data, method=8, packed=encoder.compress(data) + encoder.flush())))
    verify_contents(file, check_archive(file, max_unpacked_bytes=LIMIT))


def test_a_long_name_is_cut_in_the_message() -> None:
    with pytest.raises(InvalidArchive) as refusal:
        check_archive(io.BytesIO(build(Part(name=b"x" * 5000))), max_unpacked_bytes=LIMIT)
    assert len(refusal.value.detail) < 400


def test_quoted_escapes_what_a_terminal_would_obey() -> None:
    assert quoted("a\x1b\n\udcff") == r"'a\x1b\n\udcff'"


def test_a_name_with_a_surrogate_is_at_fault() -> None:
    assert name_fault("a\udcff") == "its name is not valid UTF-8"


def test_a_clash_is_found_although_other_names_sort_between() -> None:
    # "a!" and "a-b" come before "a/b" by their bytes, and the folder is still next to what it contains.
    paths = [("a", False), ("a!", False), ("a-b", False), ("a.txt", False), ("a/b", False)]
    assert "'a' and 'a/b' clash" in str(find_clash(paths))
    assert find_clash(paths[1:]) is None


def test_names_that_differ_in_case_can_coexist_here_and_not_everywhere() -> None:
    paths = [("T1.nii", False), ("t1.nii", False)]
    assert find_clash(paths) is None
    assert "case is ignored" in next(find_clashes(paths))


def test_names_are_read_as_other_tools_read_them() -> None:
    parts = [Part(name=b"sub\\scans\\a.dcm", system=0), Part(name=b"sub\\", data=b"", system=0, mode=0)]
    assert names_of(build(*parts)) == [("sub/scans/a.dcm", False), ("sub", True)]
    parts = [Part(name=b"./", data=b"", mode=0o40755), Part(name=b"./d/", data=b"", mode=0o40755), Part(name=b"./d/a")]
    assert names_of(build(*parts)) == [("d", True), ("d/a", False)]
    file = io.BytesIO(build(*parts))
    assert [each.path for each in list_files(file, after=None, limit=9) or ()] == ["d/a"]
    assert find_file(file, "d/a") is not None


def names_of(data: bytes) -> list[tuple[str, bool]]:
    directory = check_archive(io.BytesIO(data), max_unpacked_bytes=LIMIT)
    return [(entry.name, entry.is_dir) for entry in directory.entries]


def test_folders_that_are_only_implied_count_as_those_that_are_listed() -> None:
    def check(max_entries: int, *names: str) -> None:
        parts = [Part(name=name.encode(), data=b"", mode=0o40755 if name[-1] == "/" else 0o100644) for name in names]
        check_archive(io.BytesIO(build(*parts)), max_unpacked_bytes=LIMIT, max_entries=max_entries)

    # a, a/b, a/b/1, a/b/2, a/c, a/c/3
    names = ["a/b/1", "a/c/3", "a/b/2"]
    for listed in (names, ["a/", *names], ["./", *names, "a/c/"]):
        check(6, *listed)
        with pytest.raises(InvalidArchive, match="unpacks to 6 files and folders; at most 5 are accepted"):
            check(5, *listed)
    with pytest.raises(InvalidArchive, match="The zip has 3 entries"):
        check(2, *names)


def test_the_memory_of_a_check_grows_with_the_entries_and_of_a_page_not_at_all(tmp_path: Path) -> None:
    count = 20_000
    path, last = tmp_path / "many.zip", f"study/{count - 1:06}"
    path.write_bytes(make_zip({f"study/{n:06}": b"" for n in range(count)}, method=zipfile.ZIP_STORED))
    assert peak_of(lambda: check_archive(path, max_unpacked_bytes=LIMIT)) < 1000 * count
    with path.open("rb") as file:
        assert find_file(file, last) is not None
        assert list_files(file, after=last, limit=500) == []
        assert peak_of(lambda: list_files(file, after=last, limit=500)) < 1024**2


def peak_of(action: Callable[[], object]) -> int:
    """The most bytes that it holds at once, without its result."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_what_bsdtar_makes_of_a_folder_is_accepted(tmp_path: Path) -> None:
    if shutil.which("bsdtar") is None:
        missing("bsdtar, the tar of macOS and Windows, is not installed; on Debian: apt-get install libarchive-tools")
    folder = tmp_path / "in" / "Ü"
    folder.mkdir(parents=True)
    (folder / "ä.txt").write_text("hello" * 999)
    (folder / "run.sh").touch(0o755)
    path = tmp_path / "out.zip"
    subprocess.run(["bsdtar", "-a", "-cf", path, "."], cwd=tmp_path / "in", check=True, env={"LC_ALL": "C.UTF-8"})
    directory = check_archive(path, max_unpacked_bytes=LIMIT)
    verify_contents(path, directory)
    names = {entry.name: (entry.is_dir, entry.executable) for entry in directory.entries}
    assert names.keys() == {"Ü", "Ü/ä.txt", "Ü/run.sh"}
    assert names["Ü/run.sh"] == (False, True)


@pytest.mark.skipif(shutil.which("zip") is None, reason="Info-ZIP's zip is not installed")
@pytest.mark.parametrize(
    ("options", "is_piped"),
    # -fz (zip64 in any case) onto a pipe is left out: zip 3.0 forgets the zip64 end record there.
    [(["-r"], False), (["-r", "-fz"], False), (["-r", "-0"], False), (["-r"], True), (["-r", "-0"], True)],
)
def test_what_info_zip_makes_is_accepted(tmp_path: Path, options: list[str], is_piped: bool) -> None:
    folder = tmp_path / "in" / "Ü"
    folder.mkdir(parents=True)
    (folder / "ä.txt").write_text("hello" * 999)
    (folder / "empty").touch()
    (folder / "run.sh").touch(0o755)
    path = tmp_path / "out.zip"
    command = ["zip", "-q", *options]
    if is_piped:
        made = subprocess.run([*command, "-", "."], cwd=tmp_path / "in", check=True, capture_output=True)
        path.write_bytes(made.stdout)
    else:
        subprocess.run([*command, path, "."], cwd=tmp_path / "in", check=True)
    directory = check_archive(path, max_unpacked_bytes=LIMIT)
    verify_contents(path, directory)
    files = {entry.name: entry.executable for entry in directory.entries if not entry.is_dir}
    assert files == {"Ü/ä.txt": False, "Ü/empty": False, "Ü/run.sh": True}


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_zip_is_accepted_or_refused_and_nothing_else(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - not a secret
    originals = [case.data for case in GOOD if len(case.data) < 4096]
    refused = 0
    for _ in range(300):
        file = io.BytesIO(mutate(chance, chance.choice(originals)))
        try:
            verify_contents(file, check_archive(file, max_unpacked_bytes=LIMIT))
        except InvalidArchive:
            refused += 1
    assert 150 < refused < 300


def mutate(chance: random.Random, original: bytes) -> bytes:
    data = bytearray(original)
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(data))
        match chance.randrange(5):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                data[at] ^= 1 << chance.randrange(8)
            case 2:
                data[at : at + 4] = chance.choice((b"\xff" * 4, b"\0" * 4, b"PK\1\2", b"PK\5\6"))
            case 3:
                data[at:at] = chance.randbytes(chance.randrange(1, 8))
            case 4:
                del data[at : at + chance.randrange(1, 8)]
        if not data:
            break
    return bytes(data)


def test_a_files_time_is_utc_where_its_zip_says_so() -> None:
    target = io.BytesIO()
    moment = datetime(2026, 11, 27, 7, 30, 1, tzinfo=UTC)
    with zipfile.ZipFile(target, "w") as archive:
        exact = zipfile.ZipInfo("exact", (2026, 11, 27, 8, 30, 0))
        exact.extra = struct.pack("<HHBl", 0x5455, 5, 1, int(moment.timestamp()))
        for info in (exact, zipfile.ZipInfo("by its clock", (2026, 11, 27, 8, 30, 0)), zipfile.ZipInfo("none")):
            archive.writestr(info, b"x")
    data = target.getvalue()
    # The smallest date that zipfile writes is a real one; other tools write zeros.
    at = data.rindex(b"none") - 46 + 12
    listed = list_files(io.BytesIO(data[:at] + bytes(4) + data[at + 4 :]), after=None, limit=10)
    assert listed is not None
    assert [each.modified_at for each in listed] == [moment, datetime(2026, 11, 27, 8, 30, tzinfo=UTC), None]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_every_range_of_a_file_is_that_part_of_its_bytes(method: int) -> None:
    content = hashlib.shake_128().digest(3000) + bytes(3000)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        archive.mkdir("f")
        archive.writestr("f/other", b"other")
        archive.writestr("f/file", content)
    entry = find_file(target, "f/file")
    assert entry is not None
    for start, stop in ((0, 6000), (0, 1), (1, 6000), (2999, 3001), (5999, 6000), (0, 5999)):
        assert b"".join(read_range(target, entry, start, stop)) == content[start:stop]
    assert [find_file(target, name) for name in ("f", "f/", "file", "f/FILE", "")] == [None] * 5


@by_sentence(MALFORMED)
def test_of_a_broken_archive_only_sound_files_are_found(case: Case) -> None:
    file = io.BytesIO(case.data)
    with suppress(InvalidArchive):
        for listed in list_files(file, after=None, limit=100) or ():
            entry = find_file(file, listed.path)
            assert entry is not None
            assert name_fault(entry.name) is None
            assert entry.data_offset + entry.compressed_size <= len(case.data)
