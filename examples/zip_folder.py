"""Zip a folder so that the same files give the same bytes: python zip_folder.py FOLDER OUT.zip.

A model's volume is keyed by the hash of its archive, so a zip made again from unchanged files costs no host a second
copy. Names are sorted, dates fixed, and files stored rather than compressed: the output of a compressor differs from
one version of zlib to the next, and weights hardly shrink.
"""

import argparse
import shutil
import sys
import zipfile
from pathlib import Path

OLDEST_DATE = (1980, 1, 1, 0, 0, 0)
"""The earliest date that a zip can express."""
PROGRAM_MODE, FILE_MODE = 0o100755, 0o100644
UNIX = 3


def zip_folder(folder: Path, out: Path) -> int:
    """Write every file under `folder` to the zip `out` and return their number."""
    files = sorted(
        (path.relative_to(folder).as_posix(), path)
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.resolve() != out.resolve()
    )
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, path in files:
            entry = zipfile.ZipInfo(name, OLDEST_DATE)
            entry.create_system = UNIX
            entry.file_size = path.stat().st_size
            with path.open("rb") as source:
                # Not from the file's own mode: a checkout on Windows has no executable files.
                entry.external_attr = (PROGRAM_MODE if source.read(2) == b"#!" else FILE_MODE) << 16
                source.seek(0)
                with archive.open(entry, "w") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
    return len(files)


def main() -> None:
    """Write the zip that the command line asks for."""
    parser = argparse.ArgumentParser(description="Zip a folder so that the same files give the same bytes.")
    parser.add_argument("folder", type=Path, help="the folder whose files go into the zip")
    parser.add_argument("out", type=Path, help="the zip to write")
    arguments = parser.parse_args()
    if not arguments.folder.is_dir():
        sys.exit(f"error: {arguments.folder} is not a folder")
    count = zip_folder(arguments.folder, arguments.out)
    print(f"{arguments.out}: {count} files, {arguments.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
