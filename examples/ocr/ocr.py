"""Read the text of page images: every png, jpg, tif and bmp under INPUT_DIR, with the weights in MODEL_DIR.

As a replica of a deployment it keeps the networks loaded and answers single pages and whole tasks instead: live.py.

Writes to OUTPUT_DIR:

- `text.json`: each page's lines with text, confidence (0 to 1) and box: four corners in pixels of the upright page,
  clockwise from the top left of the line.
- `pages/<the input's folders>/<file name>/<number>.png`: each page with its boxes drawn; the number counts the pages
  of a TIFF, and is 1 for other files.

Pages count as upright unless the image's orientation mark says otherwise. Nothing is downloaded, and only OUTPUT_DIR is
written to. What varies between runs (times) goes to the log only, so that the same task gives the same result.
"""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from PIL import Image, ImageDraw, ImageOps
from rapidocr import RapidOCR

PAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}
WEIGHTS = {
    "Det": "PP-OCRv6_det_small.onnx",
    "Rec": "PP-OCRv6_rec_small.onnx",
}
MAX_PAGE_PIXELS = 80_000_000
"""More than A3 at 600 dpi; such a page needs less than 2 GB of memory."""
MAX_THREADS = 16
"""Both networks and OpenCV each keep this many threads, and a container may have 512."""

BOX_COLOUR = (220, 30, 30)


@dataclass(frozen=True)
class Page:
    """One upright page in RGB; `number` counts from 1 within its file."""

    number: int
    image: Image.Image


def main() -> None:
    """Read all pages, or end with exit code 1 and a sentence on stderr."""
    input_dir = Path(os.environ.get("INPUT_DIR", "/input"))
    output_dir = Path(os.environ.get("OUTPUT_DIR", "/output"))
    model_dir = Path(os.environ.get("MODEL_DIR", "/model"))
    if os.environ.get("REPLICA_UID"):
        from live import serve_pages

        serve_pages(open_reader(model_dir))
        return
    read_task(input_dir, output_dir, lambda: open_reader(model_dir), os.environ.get("PROGRESS_FILE", ""))


def read_task(input_dir: Path, output_dir: Path, open_reader: Callable[[], RapidOCR], progress_file: str) -> None:
    """Read all pages of a folder. Raises `SystemExit` with a sentence if it cannot."""
    names = find_page_files(input_dir)
    total = count_pages(input_dir, names)
    started = time.monotonic()
    reader = open_reader()

    results: list[dict[str, Any]] = []
    for name in names:
        for page in open_pages(input_dir / name):
            page_started = time.monotonic()
            lines = read_lines(reader, page.image)
            width, height = page.image.size
            results.append({"file": name, "page": page.number, "width": width, "height": height, "lines": lines})
            draw_boxes(page.image, lines, output_dir / "pages" / name / f"{page.number}.png")
            seconds = time.monotonic() - page_started
            print(f"page {len(results)} of {total}: {name} ({page.number}): {len(lines)} lines, {seconds:.2f} s")
            say_progress(progress_file, len(results), total)

    text = json.dumps({"pages": results}, ensure_ascii=False, indent=1)
    (output_dir / "text.json").write_text(text + "\n", encoding="utf-8")
    print(f"done: {total} pages, {time.monotonic() - started:.2f} s")


def say_progress(path: str, done: int, total: int) -> None:
    """Write how far the task is, where somebody reads it. The output does not depend on it."""
    if path:
        with contextlib.suppress(OSError):
            Path(path).write_text(f"{done / total} page {done} of {total}\n")


def find_page_files(input_dir: Path) -> list[str]:
    """The page images under a folder as sorted relative names; other files are named in the log and skipped."""
    names = sorted(path.relative_to(input_dir).as_posix() for path in input_dir.rglob("*") if path.is_file())
    pages = [name for name in names if Path(name).suffix.lower() in PAGE_SUFFIXES]
    if not pages:
        accepted = ", ".join(sorted(PAGE_SUFFIXES))
        sys.exit(f"error: the input has no page image ({accepted}) among its {len(names)} files")
    for name in names:
        if name not in pages:
            print(f"skipped, not a page image: {name}")
    return pages


def count_pages(input_dir: Path, names: list[str]) -> int:
    """The number of pages. Decodes them all, so that every damaged file is reported before the long part begins."""
    total, faults = 0, []
    for name in names:
        try:
            total += sum(1 for _ in open_pages(input_dir / name))
        # Pillow's decoders raise nearly any exception on damaged files.
        except Exception as error:
            faults.append(f"{name}: {error}")
    if faults:
        sys.exit("\n".join(["error: these images cannot be decoded:", *faults]))
    return total


def open_pages(path: Path) -> Iterator[Page]:
    """Decode a file's pages one by one."""
    with Image.open(path) as image:
        # Only a TIFF has further pages: the further images in a camera's JPEG are previews of the first.
        count = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
        for index in range(count):
            image.seek(index)
            if image.width * image.height > MAX_PAGE_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels, at most {MAX_PAGE_PIXELS} are accepted")
            yield Page(index + 1, to_rgb(ImageOps.exif_transpose(image)))


def to_rgb(image: Image.Image) -> Image.Image:
    """The image with eight bits per colour; what was transparent is white."""
    if image.mode[0] in "IF":
        # Pillow would clip grey values at 255; instead the range that the page uses is spread over eight bits.
        grey = np.asarray(image, dtype=np.float32)
        grey = (grey - grey.min()) * (255 / (np.ptp(grey) or 1))
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def open_reader(model_dir: Path) -> RapidOCR:
    """Load the networks, on the GPU if the installed onnxruntime offers CUDA."""
    missing = [name for name in WEIGHTS.values() if not (model_dir / name).is_file()]
    if missing:
        sys.exit(f"error: the model's zip lacks {', '.join(missing)} (made by build_model_zip.py)")
    threads = min(usable_cpus(), MAX_THREADS)
    cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    print(f"onnxruntime {onnxruntime.__version__}, {'CUDA' if cuda else 'CPU'}, {threads} threads")
    cv2.setNumThreads(threads)
    engine = "EngineConfig.onnxruntime"
    # Every path is given: rapidocr downloads what it is not given.
    paths = {f"{part}.model_path": str(model_dir / name) for part, name in WEIGHTS.items()}
    return RapidOCR(
        params={
            **paths,
            f"{engine}.intra_op_num_threads": threads,
            f"{engine}.inter_op_num_threads": 1,
            f"{engine}.use_cuda": cuda,
            # The network that finds upside-down lines sees them squeezed to a ratio of 4 to 1. It turns long lines
            # that are upright, and they come out as gibberish.
            "Global.use_cls": False,
            # It would warn about each page without text, which is a result like any other.
            "Global.log_level": "error",
        }
    )


def usable_cpus() -> int:
    """How many processors this container may use: those it may run on, limited by its share of CPU time."""
    cpus = len(os.sched_getaffinity(0))
    groups = Path("/sys/fs/cgroup")
    try:
        if (groups / "cpu.max").exists():
            quota, period = (groups / "cpu.max").read_text().split()
        else:
            quota, period = ((groups / "cpu" / f"cpu.cfs_{part}_us").read_text() for part in ("quota", "period"))
        share = float(quota) / float(period)
    except (OSError, ValueError):
        return cpus
    # Without a limit the newer kernel interface says "max" and the older one -1.
    return min(cpus, math.ceil(share)) if share > 0 else cpus


def read_lines(reader: RapidOCR, image: Image.Image) -> list[dict[str, Any]]:
    """The lines of a page in reading order; an empty list for an empty page."""
    # rapidocr takes arrays in OpenCV's order of colours.
    result = reader(np.ascontiguousarray(np.asarray(image)[:, :, ::-1]))
    if result.boxes is None or result.txts is None or result.scores is None:
        return []
    return [
        {
            "text": text,
            "confidence": round(float(score), 4),
            "box": [[round(float(x), 1), round(float(y), 1)] for x, y in box],
        }
        for text, score, box in zip(result.txts, result.scores, result.boxes, strict=True)
    ]


def draw_boxes(image: Image.Image, lines: list[dict[str, Any]], path: Path) -> None:
    """Draw the lines' boxes into `image` and write it as PNG."""
    draw = ImageDraw.Draw(image)
    for line in lines:
        draw.polygon([tuple(corner) for corner in line["box"]], outline=BOX_COLOUR, width=max(2, image.width // 600))
    path.parent.mkdir(parents=True, exist_ok=True)
    # The first compression level is by far the quickest and costs little in size.
    image.save(path, compress_level=1)


if __name__ == "__main__":
    main()
