"""Makes a volume to segment: a bright ball and a smaller one in noise, `python make_volume.py ct.nii.gz [SEED]`."""

import random
import sys
from array import array
from pathlib import Path

import nifti

SIDE = 48
SPACING_MM = (2.0, 2.0, 2.0)
BALLS = (((22, 24, 25), 11), ((40, 10, 12), 4))
"""Centres and radii, in voxels."""


def make_volume(path: Path, seed: int = 1) -> None:
    """The same seed gives the same bytes."""
    noise = random.Random(seed)  # noqa: S311 - a picture, not a secret
    voxels = array("h")
    for z in range(SIDE):
        for y in range(SIDE):
            for x in range(SIDE):
                inside = any(
                    (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 <= radius**2
                    for centre, radius in BALLS
                )
                voxels.append(round(noise.gauss(60 if inside else -40, 15)))
    nifti.write(path, nifti.Volume((SIDE, SIDE, SIDE), SPACING_MM, voxels))


if __name__ == "__main__":
    make_volume(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
