"""The rules of deployments, their replicas and the gateways that call them. Each function is one transaction."""
