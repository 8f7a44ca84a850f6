"""The HTTP door: it relays an explicit list of calls to the private API, and holds no rules and no state."""
