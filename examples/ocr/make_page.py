"""Render lines of text to a page image: python make_page.py OUT.png "line one" "line two".

Needs Pillow. The font is the one Pillow carries, so that the same version gives the same pixels on every machine;
it has Latin letters.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

MIN_WIDTH = 800
"""Pixels. A page is as wide as its longest line, but not narrower than this."""


def render_page(lines: Sequence[str], *, font_size: int = 40) -> Image.Image:
    """Black text on white, one line below the other; all sizes are in pixels."""
    font = ImageFont.load_default(size=font_size)
    margin, line_height = 2 * font_size, round(font_size * 1.6)
    width = max([MIN_WIDTH, *(round(font.getlength(line)) + 2 * margin for line in lines)])
    page = Image.new("L", (width, 2 * margin + line_height * len(lines)), "white")
    draw = ImageDraw.Draw(page)
    for number, line in enumerate(lines):
        draw.text((margin, margin + number * line_height), line, font=font, fill="black")
    return page


def main() -> None:
    """Write the page that the command line asks for."""
    parser = argparse.ArgumentParser(description="Render lines of text to a page image.")
    parser.add_argument("out", type=Path, help="the PNG to write")
    parser.add_argument("lines", nargs="+", help="the lines of the page")
    parser.add_argument("--font-size", type=int, default=40, help="in pixels (default: 40)")
    arguments = parser.parse_args()
    render_page(arguments.lines, font_size=arguments.font_size).save(arguments.out, format="PNG")


if __name__ == "__main__":
    main()
