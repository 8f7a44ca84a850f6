"""The HTTP edge of the private API. Routes hold no rules: they call them and render their answers."""
