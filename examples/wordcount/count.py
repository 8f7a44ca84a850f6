#!/usr/bin/env python3
"""Count the words of text files: every file under INPUT_DIR, as UTF-8. Pure standard library, Python 3.11 or newer.

Writes to OUTPUT_DIR `words.csv` (word and count, most frequent first) and `summary.json` (lines, words and bytes of
each file and of all). A word is a run of letters and digits, with hyphens and apostrophes inside it, in lower case.
"""

import csv
import json
import os
import re
import sys
import unicodedata
from collections import Counter
from pathlib import Path

WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")


def count_words(text: str) -> Counter[str]:
    """How often each word occurs; both ways to write an accented letter are the same word."""
    return Counter(WORD.findall(unicodedata.normalize("NFC", text).lower()))


def read_text(path: Path, name: str) -> str:
    """The text of a file. Ends the program with a sentence if the file is not UTF-8."""
    try:
        # utf-8-sig: the mark that editors on Windows put before the text is not part of the first word.
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        sys.exit(f"error: {name} is not UTF-8 text: {error.reason} at byte {error.start}")


def main() -> None:
    """Count everything, or end with exit code 1 and a sentence on stderr."""
    input_dir = Path(os.environ.get("INPUT_DIR", "/input"))
    output_dir = Path(os.environ.get("OUTPUT_DIR", "/output"))
    names = sorted(path.relative_to(input_dir).as_posix() for path in input_dir.rglob("*") if path.is_file())
    if not names:
        sys.exit("error: the input has no file")

    words: Counter[str] = Counter()
    files = []
    for number, name in enumerate(names, 1):
        text = read_text(input_dir / name, name)
        found = count_words(text)
        words += found
        size = (input_dir / name).stat().st_size
        files.append({"file": name, "lines": len(text.splitlines()), "words": found.total(), "bytes": size})
        print(f"file {number} of {len(names)}: {name}: {found.total()} words", flush=True)

    rows = sorted(words.items(), key=lambda row: (-row[1], row[0]))
    with (output_dir / "words.csv").open("w", encoding="utf-8", newline="") as target:
        table = csv.writer(target, lineterminator="\n")
        table.writerow(["word", "count"])
        table.writerows(rows)
    summary = {"words": words.total(), "different_words": len(words), "files": files}
    text = json.dumps(summary, ensure_ascii=False, indent=1)
    (output_dir / "summary.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
