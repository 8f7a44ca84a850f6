"""The page images that the OCR example is shown and tested with."""

import subprocess
import sys
from pathlib import Path

import pytest

Image = pytest.importorskip("PIL.Image", reason="Pillow renders the pages")

MAKE_PAGE = Path(__file__).resolve().parents[2] / "examples" / "ocr" / "make_page.py"


def make_page(out: Path, *arguments: str) -> Path:
    subprocess.run([sys.executable, str(MAKE_PAGE), str(out), *arguments], check=True, timeout=60)
    return out


def test_the_same_lines_give_the_same_bytes(tmp_path: Path) -> None:
    one = make_page(tmp_path / "one.png", "Page one", "Line two")
    two = make_page(tmp_path / "two.png", "Page one", "Line two")
    other = make_page(tmp_path / "other.png", "Page one", "Line three")

    assert one.read_bytes() == two.read_bytes()
    assert one.read_bytes() != other.read_bytes()


def test_a_page_grows_with_its_lines_and_fits_the_longest(tmp_path: Path) -> None:
    with Image.open(make_page(tmp_path / "short.png", "a", "b")) as page:
        assert (page.format, page.mode, page.size) == ("PNG", "L", (800, 288))
    with Image.open(make_page(tmp_path / "long.png", "a", "b", "c" * 100)) as page:
        assert page.height == 288 + 64
        assert page.width > 100 * 10


def test_the_font_size_scales_the_page(tmp_path: Path) -> None:
    with Image.open(make_page(tmp_path / "small.png", "a", "--font-size", "20")) as page:
        assert page.size == (800, 112)


def test_text_is_black_on_white_within_the_margin(tmp_path: Path) -> None:
    with Image.open(make_page(tmp_path / "page.png", "Some words")) as page:
        assert page.getextrema() == (0, 255)
        left, top, right, bottom = page.point(lambda value: 255 - value).getbbox()
    assert left >= 80
    assert top >= 80
    assert right <= page.width - 80
    assert bottom <= page.height - 80
