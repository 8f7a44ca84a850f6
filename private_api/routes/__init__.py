"""The HTTP edge of the private API. Routes hold no rule and no `try`: they call one and render its answer."""
