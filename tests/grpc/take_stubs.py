"""Put the generated stubs out of large wheels into an environment: take_stubs.py WHEELS_FOLDER SITE_PACKAGES.

Of TensorFlow (1.3 GB installed) and Ray (270 MB) clients of gRPC services use nothing but these: under 2 MB.
"""

import sys
import zipfile
from pathlib import Path

WANTED = {
    "tensorflow_cpu-": ("tensorflow/",),
    "tensorflow_serving_api-": ("tensorflow_serving/",),
    "ray-": ("ray/serve/generated/",),
}


def take(wheel: Path, target: Path) -> int:
    """Copy the stubs of one wheel; how many."""
    (folders,) = (folders for name, folders in WANTED.items() if wheel.name.startswith(name))
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith(folders) and _is_stub(name)]
        archive.extractall(target, names)
    return len(names)


def _is_stub(name: str) -> bool:
    return name.endswith(("_pb2.py", "_pb2_grpc.py"))


if __name__ == "__main__":
    wheels, site_packages = map(Path, sys.argv[1:])
    for wheel in sorted(wheels.glob("*.whl")):
        print(f"{wheel.name}: {take(wheel, site_packages)} files")
