"""The gRPC door: relays calls of any service to the replicas of deployments. It holds no rule about tasks or models."""
