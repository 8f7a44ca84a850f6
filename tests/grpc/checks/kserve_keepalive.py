"""Pings every 10 s, as often as a client of gRPC can, on a connection without calls; what comes of it is on stderr."""

import os
import time

import tritonclient.grpc as grpcclient

options = grpcclient.KeepAliveOptions(
    keepalive_time_ms=10_000,
    keepalive_timeout_ms=5_000,
    keepalive_permit_without_calls=True,
    http2_max_pings_without_data=0,
)
clients = [
    grpcclient.InferenceServerClient(
        target, ssl=True, root_certificates=os.environ["GRPC_CERTIFICATE"], keepalive_options=options
    )
    for target in os.environ["GRPC_TARGET"].split(",")
]
print([client.is_server_live() for client in clients])  # [True, True]
# Servers count pings; with the defaults of gRPC the fourth one is one too many.
time.sleep(float(os.environ["IDLE_S"]))
print([client.is_server_live() for client in clients])  # [True, True]

for client in clients:
    client.close()
