"""The output of a task as files to open: a zip in a temporary folder that lives as long as anything refers to it."""

import shutil
import tempfile
import weakref
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

from inference_client.errors import DamagedDownload, UnusableInput
from inference_client.markup import html_table
from inference_client.units import format_size
from inference_client.unpack import refuse_escape, unpack_zip
from inference_client.zip_names import quoted


class _Folder:
    """A temporary folder, removed when it is closed or nothing refers to it any more."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="infer-"))
        self.copied: set[str] = set()
        """The names of the files that were taken out of the zip."""
        self.close = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    @property
    def archive(self) -> Path:
        """The zip in it."""
        return self.path / "output.zip"


class OutputFile:
    """One file of an output. It may stand wherever a path is taken, as in `nibabel.load(output["mask.nii.gz"])`."""

    def __init__(self, folder: _Folder, info: zipfile.ZipInfo) -> None:
        self.name = info.filename
        """Relative to the output, with `/` between folders."""
        self.size_bytes = info.file_size
        self._folder = folder

    def open(self) -> IO[bytes]:
        """The file, to be read as bytes. Close it."""
        with zipfile.ZipFile(self._folder.archive) as opened:
            # The archive stays open for as long as this file is.
            return opened.open(self.name)

    def read_bytes(self) -> bytes:
        """All of it."""
        with self.open() as file:
            return file.read()

    def read_text(self, encoding: str = "utf-8") -> str:
        """All of it, as text."""
        return self.read_bytes().decode(encoding)

    def save(self, target: str | Path) -> Path:
        """Store it as `target`, or under its own last name in the folder `target`; returns the path."""
        path = Path(target).expanduser()
        if path.is_dir():
            path /= self.name.rpartition("/")[2]
        with self.open() as source, path.open("wb") as file:
            shutil.copyfileobj(source, file)
        return path

    @property
    def path(self) -> Path:
        """A copy on disk, which goes with the output; made when it is first asked for.

        Raises `UnusableInput` if it would replace that of another file, whose name differs in a way that the file
        system ignores, such as case.
        """
        path = self._folder.path / "files" / self.name
        if path.exists() and self.name not in self._folder.copied:
            raise UnusableInput(
                f"{quoted(self.name)} and another file of the output are one on this file system; save it under "
                "another name"
            )
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{path.name[:200]}.part")
            self.save(partial)
            partial.replace(path)
            self._folder.copied.add(self.name)
        return path

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"<OutputFile {self.name!r}, {format_size(self.size_bytes)}>"


class Output(Mapping[str, OutputFile]):
    """The files of a finished task by their names. Closing it, or dropping it and them, removes the temporary copy."""

    def __init__(self, uid: str, fetch: Callable[[Path], object]) -> None:
        """`fetch` stores the zip under the path it gets. Raises what it raises, and `DamagedDownload`."""
        self.uid = uid
        self.warnings: list[str] = []
        """What of the run's output is not in it as it was, or at all; at most 100 sentences."""
        self._folder = _Folder()
        try:
            fetch(self._folder.archive)
            self._files = _read_files(self._folder)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Output":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the temporary files. What was saved stays."""
        self._folder.close()

    def __getitem__(self, name: str) -> OutputFile:
        try:
            return self._files[name]
        except KeyError:
            raise KeyError(f"{name!r} is not in the output; it has {', '.join(self._files)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def save(self, folder: str | Path) -> Path:
        """Unpack everything into `folder`, which is made if needed; returns it. Files of the same name are replaced."""
        target = Path(folder).expanduser()
        unpack_zip(self._folder.archive, target)
        return target

    def save_zip(self, target: str | Path) -> Path:
        """Store the output as the zip that the server sent."""
        return Path(shutil.copyfile(self._folder.archive, Path(target).expanduser()))

    def __repr__(self) -> str:
        return f"<{self._title()}: {', '.join(self._files)}>"

    def _repr_html_(self) -> str:
        rows = [(file.name, format_size(file.size_bytes)) for file in self.values()]
        return html_table(self._title(), rows, ("file", "size"))

    def _title(self) -> str:
        number = len(self.warnings)
        told = f" with {number} warning{'s' if number > 1 else ''}" if number else ""
        return f"Output of task {self.uid}{told}"


def _read_files(folder: _Folder) -> dict[str, OutputFile]:
    try:
        with zipfile.ZipFile(folder.archive) as opened:
            entries = opened.infolist()
    except zipfile.BadZipFile as error:
        raise DamagedDownload(f"the output is not a readable zip: {error}") from error
    for info in entries:
        refuse_escape(info)
    return {info.filename: OutputFile(folder, info) for info in entries if not info.is_dir()}
