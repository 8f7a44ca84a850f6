"""What the door relays, call by call: a path that is not declared here is never relayed."""
