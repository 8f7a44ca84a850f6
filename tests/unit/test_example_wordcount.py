"""The wordcount example, run as the consumer runs it: a program of its own, told its folders by the environment."""

import csv
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run_count(task: Path) -> subprocess.CompletedProcess[str]:
    (task / "output").mkdir()
    folders = {"INPUT_DIR": str(task / "input"), "OUTPUT_DIR": str(task / "output"), "MODEL_DIR": str(task)}
    command = [sys.executable, str(EXAMPLES / "wordcount" / "count.py")]
    environment = {**os.environ, **folders, "PYTHONUTF8": "1"}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, encoding="utf-8", check=False, timeout=60
    )


def write_input(task: Path, files: dict[str, bytes]) -> None:
    (task / "input").mkdir()
    for name, content in files.items():
        path = task / "input" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_words_of_all_folders_are_counted_together(tmp_path: Path) -> None:
    write_input(tmp_path, {"a.txt": b"The cat. The dog\n", "deep/er/b.md": "the CAFÉ isn't well-known\n".encode()})

    done = run_count(tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    with (tmp_path / "output" / "words.csv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.reader(table))
    assert rows[:2] == [["word", "count"], ["the", "3"]]
    assert sorted(rows[2:]) == sorted([[word, "1"] for word in ("café", "cat", "dog", "isn't", "well-known")])
    summary = json.loads((tmp_path / "output" / "summary.json").read_text(encoding="utf-8"))
    assert summary == {
        "words": 8,
        "different_words": 6,
        "files": [
            {"file": "a.txt", "lines": 1, "words": 4, "bytes": 17},
            {"file": "deep/er/b.md", "lines": 1, "words": 4, "bytes": 27},
        ],
    }


def test_a_byte_order_mark_and_a_split_accent_make_no_other_word(tmp_path: Path) -> None:
    write_input(tmp_path, {"a.txt": b"\xef\xbb\xbfcaf\xc3\xa9 cafe\xcc\x81"})

    assert run_count(tmp_path).returncode == 0

    assert (tmp_path / "output" / "words.csv").read_text(encoding="utf-8") == "word,count\ncafé,2\n"


def test_progress_names_each_file(tmp_path: Path) -> None:
    write_input(tmp_path, {"a.txt": b"one two", "b.txt": b""})

    assert run_count(tmp_path).stdout == "file 1 of 2: a.txt: 2 words\nfile 2 of 2: b.txt: 0 words\n"


def test_an_empty_input_fails_and_says_so(tmp_path: Path) -> None:
    write_input(tmp_path, {})

    done = run_count(tmp_path)

    assert (done.returncode, done.stderr) == (1, "error: the input has no file\n")
    assert list((tmp_path / "output").iterdir()) == []


def test_a_file_that_is_no_text_fails_by_name_and_place(tmp_path: Path) -> None:
    write_input(tmp_path, {"good.txt": b"fine", "sub/scan.bin": b"ab\xff\xfe"})

    done = run_count(tmp_path)

    assert done.returncode == 1
    assert done.stderr == "error: sub/scan.bin is not UTF-8 text: invalid start byte at byte 2\n"
    assert list((tmp_path / "output").iterdir()) == []


def test_the_model_zip_is_the_same_whenever_it_is_made_and_its_program_executable(tmp_path: Path) -> None:
    archives = [tmp_path / "one.zip", tmp_path / "two.zip"]
    for modified, archive in zip((1_000_000_000, 1_500_000_000), archives, strict=True):
        folder = tmp_path / archive.stem
        folder.mkdir()
        program = folder / "count.py"
        program.write_bytes((EXAMPLES / "wordcount" / "count.py").read_bytes())
        (folder / "notes.txt").write_text("weights", encoding="utf-8")
        os.utime(program, (modified, modified))
        command = [sys.executable, str(EXAMPLES / "zip_folder.py"), str(folder), str(archive)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    assert archives[0].read_bytes() == archives[1].read_bytes()
    with zipfile.ZipFile(archives[0]) as archive_file:
        modes = {entry.filename: entry.external_attr >> 16 for entry in archive_file.infolist()}
    assert modes == {"count.py": 0o100755, "notes.txt": 0o100644}
