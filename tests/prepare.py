"""Makes what all tests need and this machine can have.

That is the public gRPC clients, the generators of HTTP clients, the site, a browser and other programs, the examples'
images, the images that tests build on, and the server's own.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.e2e.compose import build_image
from tests.services import BASE_IMAGES, docker_problem

ROOT = Path(__file__).parents[1]
PROGRAMS = {
    "chromium": "chromium",
    "nginx": "nginx-light",
    "docker-registry": "docker-registry",
    "htpasswd": "apache2-utils",
    "bsdtar": "libarchive-tools",
}
"""By the program's name, Debian's package of it."""
_MAKE = ("make", "--no-print-directory")
# Otherwise each process of the tests compiles all of them.
_COMPILE_TESTS = (sys.executable, "-m", "pytest", "-qq", "--collect-only")


def main() -> int:
    """Returns whether something failed that may not be missing here."""
    works: dict[str, Callable[[], object]] = {
        target: partial(_run, *_MAKE, target) for target in ("grpc-clients", "openapi-clients", "docs")
    }
    works["bytecode of the tests"] = partial(_run, *_COMPILE_TESTS)
    works["programs of Debian"] = _install_programs
    if _has_docker():
        for image in filter(docker_problem, BASE_IMAGES):
            print(f"pulling {image}", flush=True)
            subprocess.run(["docker", "pull", "--quiet", image], check=False)
        works["grpc-images"] = partial(_run, *_MAKE, "grpc-images")
        works["image of the server"] = build_image
    print(f"making {', '.join(works)}; the first time takes minutes", flush=True)
    # Beside each other: one waits for a package index, another one for the Engine.
    with ThreadPoolExecutor(len(works)) as pool:
        done = {name: pool.submit(work) for name, work in works.items()}
    failed = [name for name, work in done.items() if work.exception()]
    for name in failed:
        print(f"{name}: {done[name].exception()}: tests that need it are skipped or fail", file=sys.stderr)
    return int(bool(failed) and os.environ.get("CI") == "true")


def _run(*command: str) -> None:
    # A make that began this one counts its jobs by itself; and bytecode is the point of one of these.
    unwanted = ("MAKEFLAGS", "MAKELEVEL", "PYTHONDONTWRITEBYTECODE")
    environment = {name: value for name, value in os.environ.items() if name not in unwanted}
    output = subprocess.DEVNULL if command == _COMPILE_TESTS else None
    subprocess.run(command, cwd=ROOT, env=environment, stdout=output, check=True)


def _install_programs() -> None:
    """What tests put in front of the server or beside it, from Debian's packages; only root can install them."""
    absent = [package for program, package in PROGRAMS.items() if not shutil.which(program)]
    if not absent:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise RuntimeError(f"on Debian, root installs them: apt-get install {' '.join(absent)}")
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *absent]):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "--quiet", *arguments], env=environment, stdout=subprocess.DEVNULL, check=True)


def _has_docker() -> bool:
    try:
        return subprocess.run(["docker", "version"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
