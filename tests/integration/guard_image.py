"""An image with this machine's `nft`, for guards on an Engine whose host is another: that host may have none."""

import io
import os
import re
import shutil
import subprocess
import tarfile
from functools import cache
from pathlib import Path

import docker

from tests.services import missing

_TAG = "inference-server-tests:guard"


@cache
def guard_image() -> str | None:
    """Its name on the tested Engine; None where that is this machine's own, whose guards run this machine's `nft`."""
    if "DOCKER_HOST" not in os.environ:
        return None
    program = shutil.which("nft")
    if program is None:
        missing("no nft is installed; on Debian: apt-get install nftables")
    needed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        for path in {program, *re.findall(r"(/\S+) \(0x", needed)}:
            tar.add(Path(path).resolve(), f"files{path}")
        recipe = b"FROM busybox:1.37\nCOPY files /\n"
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(recipe)
        tar.addfile(entry, io.BytesIO(recipe))
    context.seek(0)
    client = docker.from_env()
    try:
        client.images.build(fileobj=context, custom_context=True, tag=_TAG, rm=True)
    finally:
        client.close()
    return _TAG
