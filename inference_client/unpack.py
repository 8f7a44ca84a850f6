"""Unpacks a fetched output into the user's folder, refusing names that would leave it."""

import stat
import zipfile
from pathlib import Path

from inference_client.errors import DamagedDownload
from inference_client.zip_names import name_fault, quoted


def unpack_zip(archive: Path, folder: Path) -> None:
    """Unpack `archive` into `folder`, which is made if needed; files of the same name in it are replaced.

    Raises `DamagedDownload`, before anything is written, if an entry is absolute, climbs out with `..` or is a link.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                refuse_escape(info)
            folder.mkdir(parents=True, exist_ok=True)
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
