"""Runs Ray on this container's share of the machine, and its applications behind one gRPC port, until TERM."""

import signal
import threading
from types import FrameType

import ray
from applications import APPLICATIONS
from ray import serve
from ray.serve.config import HTTPOptions, ProxyLocation, gRPCOptions

PORT = 9000
OBJECT_STORE_BYTES = 128 * 1024**2
"""Of `/dev/shm`, for what deployments hand each other; Ray takes 30 % of the memory by default."""
SERVICES = [
    "user_defined_protos_pb2_grpc.add_UserDefinedServiceServicer_to_server",
    "user_defined_protos_pb2_grpc.add_ImageClassificationServiceServicer_to_server",
]


def main() -> None:
    """Serve until TERM or INT."""
    stopped = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopped.set()

    ray.init(num_cpus=len(APPLICATIONS) + 1, object_store_memory=OBJECT_STORE_BYTES, include_dashboard=False)
    # Ray sets handlers of its own.
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    serve.start(
        proxy_location=ProxyLocation.HeadOnly,
        http_options=HTTPOptions(host="127.0.0.1"),
        grpc_options=gRPCOptions(port=PORT, grpc_servicer_functions=SERVICES),
    )
    serve.run_many([serve.RunTarget(application, name, f"/{name}") for name, application in APPLICATIONS.items()])
    print(f"serving {', '.join(APPLICATIONS)} on port {PORT}", flush=True)
    stopped.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
