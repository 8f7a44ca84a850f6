"""A model that is kept warm, as tests need it. `/model/behaviour.json` says how it behaves.

    protocol         grpc | silent | kserve | tensorflow | ray: which probe it answers; silent has no health service,
                     and ray has its application "app", and serves Say, once it is ready
    workers          threads for calls, probes included; 16 unless it says so
    ready_after_s    until then it says that it is not ready
    exit_after_s     it ends by itself, with exit_code
    exit_code
    eat_memory       it takes memory without end
    threads          it starts so many more
    ignore_term      it does not end on TERM

Without PORT it is a task's own container and does what `do.json` of its input says. Else it serves `tests.Echo/Say`,
which answers with what it got; `tests.Echo/Environment`, the container's, as JSON; `tests.Echo/Exit`, which ends the
container with the exit code in the request; `tests.Echo/Work`, which takes as many seconds as the request says;
`tests.Echo/Freeze`, after which no probe is answered; and `inferenceserver.Tasks/Run`, which does what the task's
`do.json` says: `{"sleep_s": 1, "exit_code": 3, "detail": "...", "raise": "...", "progress": "0.42"}`. Either way it
copies the other files of the input to the output, beside `where.json`.
"""

import json
import os
import signal
import sys
import threading
import time
from concurrent import futures
from pathlib import Path

import grpc

STARTED = time.monotonic()
SETTINGS = Path("/model/behaviour.json")
BEHAVIOUR = json.loads(SETTINGS.read_text()) if SETTINGS.exists() else {}
FROZEN = threading.Event()
PROTOCOL = BEHAVIOUR.get("protocol", "grpc")


def is_ready():
    return time.monotonic() - STARTED >= BEHAVIOUR.get("ready_after_s", 0)


def check(request, context):
    while FROZEN.is_set():
        time.sleep(1)
    return b"\x08\x01" if is_ready() else b"\x08\x02"


def server_ready(request, context):
    return b"\x08\x01" if is_ready() else b""


def model_status(request, context):
    if b"known" not in request:
        context.abort(grpc.StatusCode.NOT_FOUND, "Could not find any versions of model")
    # A repeated message: version 1, state AVAILABLE or LOADING.
    return b"\x0a\x04\x08\x01\x10" + (b"\x1e" if is_ready() else b"\x14")


def list_applications(request, context):
    return b"\x0a\x03app" if is_ready() else b""


def work_for(request, context):
    time.sleep(float(request))
    return request


def freeze(request, context):
    FROZEN.set()
    return b""


def say(request, context):
    if PROTOCOL == "ray" and not is_ready():
        context.abort(grpc.StatusCode.NOT_FOUND, "Application 'app' not found.")
    return request


def environment(request, context):
    return json.dumps(dict(os.environ)).encode()


def end(request, context):
    print("ending as told", flush=True)
    os._exit(int(request or b"0"))


def run_task(request, context):
    """The request is four texts of less than 128 bytes each, field 1 to 4."""
    texts, at = [], 0
    while at < len(request):
        length = request[at + 1]
        texts.append(request[at + 2 : at + 2 + length].decode())
        at += 2 + length
    do = work(texts[0], *map(Path, texts[1:]), context.is_active)
    detail = do.get("detail", "").encode()
    return b"\x08" + bytes([do.get("exit_code", 0)]) + b"\x12" + bytes([len(detail)]) + detail


def work(uid, inputs, outputs, progress, is_active):
    do = json.loads((inputs / "do.json").read_text())
    for path in inputs.iterdir():
        if path.name != "do.json":
            (outputs / path.name).write_bytes(path.read_bytes())
    (outputs / "where.json").write_text(json.dumps({"uid": uid, "replica": os.environ.get("REPLICA_UID")}))
    print("task", uid, flush=True)
    if "progress" in do:
        progress.write_text(do["progress"])
    deadline = time.monotonic() + do.get("sleep_s", 0)
    while time.monotonic() < deadline:
        if not is_active():
            print("cancelled", uid, flush=True)
            return do
        time.sleep(0.02)
    if "raise" in do:
        raise RuntimeError(do["raise"])
    return do


METHODS = {
    "/tests.Echo/Say": say,
    "/tests.Echo/Environment": environment,
    "/tests.Echo/Exit": end,
    "/tests.Echo/Work": work_for,
    "/tests.Echo/Freeze": freeze,
    "/inferenceserver.Tasks/Run": run_task,
    **({"/grpc.health.v1.Health/Check": check} if PROTOCOL == "grpc" else {}),
    **({"/inference.GRPCInferenceService/ServerReady": server_ready} if PROTOCOL == "kserve" else {}),
    **({"/ray.serve.RayServeAPIService/ListApplications": list_applications} if PROTOCOL == "ray" else {}),
    **({"/tensorflow.serving.ModelService/GetModelStatus": model_status} if PROTOCOL == "tensorflow" else {}),
}


class Handlers(grpc.GenericRpcHandler):
    def service(self, details):
        method = METHODS.get(details.method)
        return None if method is None else grpc.unary_unary_rpc_method_handler(method)


def main():
    if "PORT" not in os.environ:
        paths = (Path(os.environ[name]) for name in ("INPUT_DIR", "OUTPUT_DIR", "PROGRESS_FILE"))
        return work(os.environ["TASK_UID"], *paths, lambda: True).get("exit_code", 0)
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: None if BEHAVIOUR.get("ignore_term") else stopped.set())
    print("starting on", os.environ["PORT"], flush=True)
    for _ in range(BEHAVIOUR.get("threads", 0)):
        threading.Thread(target=stopped.wait, daemon=True).start()
    eaten = []
    while BEHAVIOUR.get("eat_memory"):
        eaten.append(bytearray(os.urandom(1024)) * 4096)
    server = grpc.server(futures.ThreadPoolExecutor(BEHAVIOUR.get("workers", 16)), handlers=[Handlers()])
    server.add_insecure_port(f"0.0.0.0:{os.environ['PORT']}")
    server.start()
    if stopped.wait(BEHAVIOUR.get("exit_after_s")):
        print("TERM", flush=True)
        server.stop(5).wait()
        return 0
    print("ending by itself", flush=True)
    return BEHAVIOUR.get("exit_code", 0)


if __name__ == "__main__":
    sys.exit(main())
