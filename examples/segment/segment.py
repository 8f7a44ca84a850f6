"""A model: finds the largest bright object in a volume. Otsu's threshold, then the largest connected part.

Reads the one `.nii` or `.nii.gz` in the input; writes `mask.nii.gz`, `report.json`, and `middle.png` to look at.
N. Otsu, A threshold selection method from gray-level histograms, IEEE Trans. SMC 9 (1979) 62-66.
"""

import json
import os
import sys
from array import array
from collections import Counter
from pathlib import Path

import nifti

SCALE = 6
"""Pixels of the picture per voxel."""


def main() -> int:
    """Returns the exit code."""
    inputs = sorted(
        path for path in Path(os.environ["INPUT_DIR"]).rglob("*") if path.name.endswith((".nii", ".nii.gz"))
    )
    output = Path(os.environ["OUTPUT_DIR"])
    if len(inputs) != 1:
        return refuse(f"the input must hold one .nii or .nii.gz; it holds {len(inputs)}")
    try:
        volume = nifti.read(inputs[0])
    except nifti.NotReadableError as error:
        return refuse(str(error))
    print(f"read {inputs[0].name}: {'x'.join(map(str, volume.shape))} voxels", flush=True)
    tell_progress(0.1, "finding the threshold")
    threshold = otsu(volume.voxels)
    print(f"threshold {threshold}", flush=True)
    tell_progress(0.3, "finding the largest part")
    part = largest_part(volume, threshold)
    tell_progress(0.9, "writing the mask")
    mask = array("B", bytes(len(volume.voxels)))
    for index in part:
        mask[index] = 1
    size_mm3 = volume.spacing_mm[0] * volume.spacing_mm[1] * volume.spacing_mm[2]
    report = {"threshold": threshold, "voxels": len(part), "volume_ml": round(len(part) * size_mm3 / 1000, 3)}
    nifti.write(output / "mask.nii.gz", nifti.Volume(volume.shape, volume.spacing_mm, mask))
    (output / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    draw(output / "middle.png", volume, mask)
    print(f"found {report['voxels']} voxels, {report['volume_ml']} ml", flush=True)
    return 0


def tell_progress(fraction: float, text: str) -> None:
    """Say how far this is, where somebody wants to know."""
    if path := os.environ.get("PROGRESS_FILE"):
        Path(path).write_text(f"{fraction} {text}\n")


def refuse(text: str) -> int:
    """Say what is wrong with the input, and how the run ends."""
    print(text, file=sys.stderr)
    return 2


def otsu(voxels: "array[int]") -> int:
    """The value above which the two classes differ most."""
    counts = sorted(Counter(voxels).items())
    total, weighted = len(voxels), sum(value * count for value, count in counts)
    below = below_weighted = 0
    best, threshold = -1.0, counts[0][0]
    for value, count in counts[:-1]:
        below += count
        below_weighted += value * count
        distance = below_weighted / below - (weighted - below_weighted) / (total - below)
        if below * (total - below) * distance**2 > best:
            best, threshold = below * (total - below) * distance**2, value
    return threshold


def largest_part(volume: nifti.Volume, threshold: int) -> list[int]:
    """The indices of the largest set of voxels above the threshold that touch each other by a face."""
    width, height, depth = volume.shape
    waiting = {index for index, value in enumerate(volume.voxels) if value > threshold}
    largest: list[int] = []
    while waiting:
        part = [waiting.pop()]
        for index in part:
            x, y, z = index % width, index // width % height, index // (width * height)
            near = (
                [index - 1] * (x > 0)
                + [index + 1] * (x < width - 1)
                + [index - width] * (y > 0)
                + [index + width] * (y < height - 1)
                + [index - width * height] * (z > 0)
                + [index + width * height] * (z < depth - 1)
            )
            found = waiting.intersection(near)
            waiting -= found
            part += found
        largest = max(largest, part, key=len)
    return largest


def draw(path: Path, volume: nifti.Volume, mask: "array[int]") -> None:
    """The slice in the middle, with the object in red."""
    width, height, depth = volume.shape
    first = depth // 2 * width * height
    low, high = min(volume.voxels), max(volume.voxels)
    rows = []
    for y in range(height):
        row = bytearray()
        for index in range(first + y * width, first + (y + 1) * width):
            grey = 255 * (volume.voxels[index] - low) // max(1, high - low)
            row += bytes((255, grey // 2, grey // 2) if mask[index] else (grey, grey, grey)) * SCALE
        rows += [bytes(row)] * SCALE
    nifti.write_png(path, width * SCALE, rows)


if __name__ == "__main__":
    sys.exit(main())
