"""Registries: a real one that can go away, and one whose only image comes in two halves, the second when allowed."""

import gzip
import hashlib
import io
import json
import secrets
import shutil
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any, Self

import httpx

from tests.services import missing
from tests.waiting import PATIENCE_S, wait_until

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_LAYER_BYTES = 4 * 1024**2
_CONFIG = """version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: {folder}/images}}}}
http: {{addr: "{address}"}}
"""


class Registry:
    """Debian's `docker-registry`, which keeps its images while it is stopped. The Engine talks HTTP to 127.0.0.0/8."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("docker-registry") is None:
            missing("no registry is installed; on Debian: apt-get install docker-registry")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        folder.mkdir()
        self._config = folder / "config.yml"
        self._config.write_text(_CONFIG.format(folder=folder, address=self.address))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(
            ["docker-registry", "serve", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(self._answers)

    def stop(self) -> None:
        """Stop it; does nothing if it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            return httpx.get(f"http://{self.address}/v2/", trust_env=False).is_success
        except httpx.TransportError:
            return False


@contextmanager
def serve_slow_image(go_on: Event) -> Iterator[str]:
    """The name of the image. The Engine talks HTTP to 127.0.0.0/8."""
    layer, blobs = _make_image()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            body = blobs.get(name, b"{}")
            self.send_response(200)
            self.send_header("Content-Type", _MANIFEST if "/manifests/" in self.path else "application/octet-stream")
            self.send_header("Content-Length", str(len(body)))
            if "/manifests/" in self.path:
                self.send_header("Docker-Content-Digest", _digest(body))
            self.end_headers()
            if self.command == "GET":
                self._send(body, slowly=name == layer)

        def _send(self, body: bytes, *, slowly: bool) -> None:
            sent, piece = 0, len(body) // 32
            while slowly and sent + piece <= len(body) // 2:
                # The Engine tells of a download at most every 100 ms.
                self.wfile.write(body[sent : sent + piece])
                sent += piece
                go_on.wait(0.1)
            if slowly:
                go_on.wait(PATIENCE_S)
            self.wfile.write(body[sent:])

        do_HEAD = do_GET  # noqa: N815 - the name the base class looks for

        def log_message(self, *_: Any) -> None:
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}/slow:1"
        finally:
            go_on.set()
            server.shutdown()
            thread.join()


def _make_image() -> tuple[str, dict[str, bytes]]:
    """The layer's digest, and everything that is asked for by its last part of the path."""
    unpacked = io.BytesIO()
    with tarfile.open(fileobj=unpacked, mode="w") as tar:
        entry = tarfile.TarInfo("noise")
        entry.size = _LAYER_BYTES
        tar.addfile(entry, io.BytesIO(secrets.token_bytes(_LAYER_BYTES)))
    layer = gzip.compress(unpacked.getvalue(), compresslevel=0)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/noise"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(unpacked.getvalue())]},
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _describe(config, "application/vnd.docker.container.image.v1+json"),
            "layers": [_describe(layer, "application/vnd.docker.image.rootfs.diff.tar.gzip")],
        }
    ).encode()
    blobs = {_digest(blob): blob for blob in (config, layer, manifest)}
    return _digest(layer), {**blobs, "1": manifest}


def _describe(blob: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "size": len(blob), "digest": _digest(blob)}


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"
