"""The checks of `inference-server doctor`. Each looks at one thing and returns one finding or a few."""
