"""Ray Serve with an echo behind its default gRPC proxy: the peer of `benchmarks.grpc`. Runs in Ray's own environment.

    python -P benchmarks/ray_peer.py PORT

`-P` is needed because this file's folder has a module named grpc. Prints `ready` once it answers, and serves until its
standard input ends.
"""

import sys
import tempfile
from pathlib import Path

PROTO = """
syntax = "proto3";
package lanes;
message Blob { bytes data = 1; }
service Echo { rpc Call(Blob) returns (Blob); }
"""


def main(port: int) -> None:
    """Serve until standard input ends."""
    import ray
    from grpc_tools import protoc
    from ray import serve
    from ray.serve.config import gRPCOptions

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "lanes.proto").write_text(PROTO)
        protoc.main(["", f"-I{folder}", f"--python_out={folder}", f"--grpc_python_out={folder}", "lanes.proto"])
        sys.path.insert(0, folder)
        ray.init(runtime_env={"env_vars": {"PYTHONPATH": folder}}, include_dashboard=False, log_to_driver=False)
        serve.start(
            grpc_options=gRPCOptions(port=port, grpc_servicer_functions=["lanes_pb2_grpc.add_EchoServicer_to_server"])
        )

        @serve.deployment(max_ongoing_requests=1000)
        class Echo:
            async def Call(self, blob):  # noqa: N802 - Ray looks for the method's own name
                return blob

        serve.run(Echo.bind(), name="echo", route_prefix="/echo")
        print("ready", flush=True)
        sys.stdin.read()
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))
