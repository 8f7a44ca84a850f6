"""A trial: an image run once on this machine exactly as a server's consumer would, with the verdict and advice."""
