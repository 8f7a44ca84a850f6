"""The gRPC door: relays calls of any service to the replicas of deployments. Holds no rule of tasks or models."""
