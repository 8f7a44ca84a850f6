"""Make the OCR model's zip from rapidocr's wheel: python build_model_zip.py OUT.zip.

The weights come from the wheel itself rather than from the image, which leaves them out: so this needs no Docker, and
the version and the hash in requirements.txt vouch for the weights as they do for the code. To use a wheel that is
already here: --wheel FILE.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

HERE = Path(__file__).resolve().parent
PINNED = re.compile(r"^rapidocr==.*(?:\n +--hash=.*)*", re.MULTILINE)
"""The lines of a requirements file that pin rapidocr and its hashes."""


def download_wheel(folder: Path) -> Path:
    """Fetch the wheel that requirements.txt pins, and no other, into `folder`."""
    if find_spec("pip") is None:
        sys.exit("error: this Python has no pip; use another one, or give the wheel with --wheel")
    pin = PINNED.search((HERE / "requirements.txt").read_text(encoding="utf-8"))
    if pin is None:
        sys.exit("error: requirements.txt does not pin rapidocr")
    wanted = folder / "wanted.txt"
    wanted.write_text(pin.group() + "\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*pip, "--require-hashes", "--dest", str(folder), "-r", str(wanted)], check=True)
    return next(folder.glob("rapidocr-*.whl"))


def take_weights(wheel: Path, folder: Path) -> None:
    """Copy the networks out of the wheel, with the licences under which they may be passed on."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            # ocr.py has no use for the classifier of upside-down lines, and says why.
            if (name.endswith(".onnx") and "_cls_" not in name) or "/licenses/" in name:
                (folder / PurePosixPath(name).name).write_bytes(archive.read(name))
    if not any(folder.glob("*.onnx")):
        sys.exit(f"error: {wheel.name} has no .onnx file")


def main() -> None:
    """Write the zip that the command line asks for."""
    parser = argparse.ArgumentParser(description="Make the OCR model's zip from rapidocr's wheel.")
    parser.add_argument("out", type=Path, help="the zip to write")
    parser.add_argument("--wheel", type=Path, help="rapidocr's wheel; without it the pinned one is downloaded")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        downloads, weights = Path(temporary, "downloads"), Path(temporary, "weights")
        downloads.mkdir()
        weights.mkdir()
        take_weights(arguments.wheel or download_wheel(downloads), weights)
        zip_folder = [sys.executable, str(HERE.parent / "zip_folder.py"), str(weights), str(arguments.out)]
        subprocess.run(zip_folder, check=True)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as failed:
        # What went wrong is already on stderr, in that program's own words.
        sys.exit(failed.returncode)
