"""Unpacks a fetched output into the user's folder, refusing names that would leave it."""

import stat
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

from inference_client.errors import DamagedDownload


def unpack_zip(archive: Path, folder: Path) -> None:
    """Unpack `archive` into `folder`, which is made if needed; same-named files in it are replaced.

    Raises `DamagedDownload`, before anything is written, if an entry is absolute, climbs out with `..` or is a link.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                _refuse_escape(info)
            folder.mkdir(parents=True, exist_ok=True)
            opened.extractall(folder)
    except zipfile.BadZipFile as error:
        raise DamagedDownload(f"the output is not a readable zip: {error}") from error


def _refuse_escape(info: zipfile.ZipInfo) -> None:
    # Both readings: a name that is harmless on one system can be absolute on the other.
    escapes = any(
        path.is_absolute() or path.drive or path.root or ".." in path.parts
        for path in (PurePosixPath(info.orig_filename), PureWindowsPath(info.orig_filename))
    )
    if escapes or stat.S_ISLNK(info.external_attr >> 16):
        raise DamagedDownload(f"the output's entry {info.orig_filename!r} would leave the folder; nothing was unpacked")
