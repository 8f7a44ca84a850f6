"""What the protocol compiler made of `grpc_gateway/protos`; `make protos` regenerates it."""
