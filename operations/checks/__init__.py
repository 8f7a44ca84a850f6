"""The checks of `inference-server doctor`: each looks at one thing and returns a finding, or a few."""
