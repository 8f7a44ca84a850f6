"""The calls that the door relays. A path that is not declared here is never relayed."""
