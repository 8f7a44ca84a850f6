"""What the name of an image consists of: https://github.com/distribution/reference/blob/v0.6.0/reference.go"""


def bare_name(image: str) -> str:
    """An image's name without its tag and digest."""
    name = image.partition("@")[0]
    # A colon before the last slash is that of a port.
    return name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name


def full_name(image: str) -> str:
    """The name with its registry, which is Docker's own where none is named."""
    host, slash, _path = image.partition("/")
    if slash and (host == "localhost" or "." in host or ":" in host):
        return image
    return f"docker.io/{image}" if slash else f"docker.io/library/{image}"
