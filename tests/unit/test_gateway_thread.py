"""A gateway in a thread that meets an error nobody foresaw says that its door is closed, and can still be left."""

import subprocess
import sys

from kit.logging import CONTINUES
from tests.waiting import PATIENCE_S

# A process of its own: what gRPC keeps of a server whose loop has stopped ends only with the process.
SCRIPT = """
import asyncio, gc, os, threading
from grpc_gateway.options import GatewayOptions
from grpc_gateway.service import run_gateway
from kit.logging import configure_logging

configure_logging("INFO", "text")
options = GatewayOptions(private_url="http://127.0.0.1:1", service_token="a-token", name="thread", drain_s=0.0)
with run_gateway(options):
    loops = [each for each in gc.get_objects() if isinstance(each, asyncio.AbstractEventLoop)]
    (loop,) = [each for each in loops if each.is_running()]
    loop.call_soon_threadsafe(loop.stop)
    (thread,) = [each for each in threading.enumerate() if each.name == "grpc-gateway"]
    thread.join()
print("left", flush=True)
os._exit(0)
"""


def test_a_gateway_whose_thread_failed_is_heard() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert any("ERROR   kit.threads: the thread grpc-gateway failed" in line for line in lines)
    assert f"{CONTINUES}RuntimeError" in lines
    assert any("the gRPC door takes no calls any more: start the server again" in line for line in lines)
    assert lines[-1] == "left"
