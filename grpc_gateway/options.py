"""What one gateway process needs to know, as a value: it crosses into worker processes and into standalone's thread."""

from dataclasses import dataclass, field

from grpc_gateway.admission import Limits


@dataclass(frozen=True)
class GatewayOptions:
    """How one gateway process runs."""

    private_url: str
    service_token: str = field(repr=False)
    name: str
    """Of this process, unique among all gateways; no slash."""
    host: str = "127.0.0.1"
    port: int = 0
    """0 picks a free one."""
    replica_host: str = "127.0.0.1"
    replica_port: int | None = None
    """Where containers of deployments call: their tokens are honoured there alone. 0 picks a free one; None: none."""
    shares_port: bool = False
    """Whether other processes of the same gateway listen on its ports, too."""
    niceness: int = 0
    """How far this process yields to others of its container while the CPUs are busy, 0 to 19."""
    requires_key: bool = False
    behind_proxy: bool = False
    """Whether calls come through a proxy alone that says where from, in `x-real-ip`."""
    max_message_bytes: int = 2**31 - 1
    """Of one message, either way. The default is the contracts': Triton's and TensorFlow's clients use it."""
    limits: Limits = field(default_factory=Limits)
    drain_s: float = 25.0
    notice_s: float = 5.0
    """How long, at most, health checks announce the stop while new calls are still served; 0 where nobody balances."""
    stream_url: str | None = None
    """The `host:port` that redhare's auth answers."""
    token_lifetime_s: float = 3600.0
    """How long the tokens of redhare's auth open streams."""
