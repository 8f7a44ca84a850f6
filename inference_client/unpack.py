"""Unpacks a fetched output into the user's folder, refusing names that would leave it, or lose a file."""

import stat
import tempfile
import zipfile
from pathlib import Path

from inference_client.errors import DamagedDownload, UnusableInput
from inference_client.zip_names import find_lookalikes, name_fault, quoted


def unpack_zip(archive: Path, folder: Path) -> None:
    """Unpack `archive` into `folder`, which is made if needed; files of the same name in it are replaced.

    Raises, before anything is written, `DamagedDownload` if an entry is absolute, climbs out with `..` or is a link,
    and `UnusableInput` if two entries would be one file there.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = opened.infolist()
            for info in entries:
                refuse_escape(info)
            folder.mkdir(parents=True, exist_ok=True)
            if find_lookalikes((info.filename.removesuffix("/"), info.is_dir()) for info in entries):
                _refuse_one_file(entries, folder)
            opened.extractall(folder)
    except zipfile.BadZipFile as error:
        raise DamagedDownload(f"the output is not a readable zip: {error}") from error


def refuse_escape(info: zipfile.ZipInfo) -> None:
    """Raise `DamagedDownload` for an entry that is absolute, climbs out with `..` or is a link."""
    fault = name_fault(info.orig_filename.removesuffix("/"))
    if stat.S_ISLNK(info.external_attr >> 16):
        fault = "it is a link"
    if fault:
        raise DamagedDownload(f"the output's entry {quoted(info.orig_filename)}: {fault}; nothing was unpacked")


def _refuse_one_file(entries: list[zipfile.ZipInfo], folder: Path) -> None:
    """Raise `UnusableInput` for an entry that replaces one before it, on the file system of `folder`.

    Whether names that differ in case are one there is found out with empty files.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".infer-") as scratch:
        for info in entries:
            path = Path(scratch, info.filename)
            try:
                (path if info.is_dir() else path.parent).mkdir(parents=True, exist_ok=True)
                if not info.is_dir():
                    path.touch(exist_ok=False)
            except (FileExistsError, NotADirectoryError) as error:
                raise UnusableInput(
                    f"the output's entry {quoted(info.filename)} and another one are the same file in {folder}, as "
                    "where case is ignored; nothing was unpacked. Fetch the zip, or unpack it on another file system"
                ) from error
