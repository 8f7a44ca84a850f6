"""What a program inside a container reaches: tried from a replica, and from a container beside it that has no guard."""

import json
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from threading import Thread

from job_consumer.engines import LABEL
from tests.engine_client import engine_client

Target = tuple[str, int]
LIST = "/ray.serve.RayServeAPIService/ListApplications"
ASK_WITH_TOKEN = f"""
import os, grpc
token = ("authorization", "Bearer " + os.environ["GATEWAY_TOKEN"])
with grpc.insecure_channel(os.environ["GRPC_GATEWAY"]) as channel:
    print(channel.unary_unary("{LIST}")(b"", metadata=[token], wait_for_ready=True, timeout=60).decode())
"""
TRY = """
import json, socket, sys
def reached(host, port):
    try:
        address = socket.gethostbyname(host)
    except OSError:
        return "unknown name"
    try:
        socket.create_connection((address, port), timeout=3).close()
    except OSError as error:
        return "refused"
    return "reached"
print(json.dumps([reached(host, port) for host, port in json.loads(sys.argv[1])]))
"""


def container_of(uid: str) -> str:
    """The id of the container of the replica with this uid."""
    with closing(engine_client()) as client:
        (found,) = client.containers(filters={"label": f"{LABEL}.replica={uid}"})
        return str(found["Id"])


def network_of(uid: str) -> str:
    """The network of the replica with this uid: that of its guard."""
    with closing(engine_client()) as client:
        (found,) = client.containers(filters={"label": f"{LABEL}.guard={uid}"})
        (network,) = found["NetworkSettings"]["Networks"]
        return str(network)


def run_inside(container: str, program: str, *arguments: str) -> str:
    """What a Python program prints inside a running container."""
    with closing(engine_client()) as client:
        execution = client.exec_create(container, ["python", "-c", program, *arguments], stderr=False)
        printed: bytes = client.exec_start(execution)
        return printed.decode()


def reached_from(container: str, targets: Sequence[Target]) -> dict[Target, str]:
    """For each target whether the container connects to it: reached, refused, or unknown name."""
    return dict(zip(targets, json.loads(run_inside(container, TRY, json.dumps(targets))), strict=True))


def variables_of(container: str) -> dict[str, str]:
    """The environment that a container was started with."""
    with closing(engine_client()) as client:
        variables = client.inspect_container(container)["Config"]["Env"]
    return dict(variable.split("=", 1) for variable in variables)


def host_on(network: str) -> str:
    """The address of this machine on a bridge network."""
    with closing(engine_client()) as client:
        gateway: str = client.inspect_network(network)["IPAM"]["Config"][0]["Gateway"]
        return gateway


@contextmanager
def unguarded(image: str, network: str) -> Iterator[str]:
    """A container on the network that nothing keeps from anything; yields its name."""
    with closing(engine_client()) as client:
        command = ["python", "-c", "import time; time.sleep(600)"]
        made = client.create_container(image, command, host_config=client.create_host_config(network_mode=network))
        try:
            client.start(made["Id"])
            yield made["Id"]
        finally:
            client.remove_container(made["Id"], force=True)


@contextmanager
def listener_on_host() -> Iterator[int]:
    """A service of this machine at every address; yields its port."""
    with socket.create_server(("0.0.0.0", 0)) as server:  # noqa: S104 - what an attacker hopes for
        Thread(target=_accept, args=(server.accept,), daemon=True).start()
        yield server.getsockname()[1]


def _accept(accept: Callable[[], tuple[socket.socket, object]]) -> None:
    try:
        while True:
            accept()[0].close()
    except OSError:
        return
