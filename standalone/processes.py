"""What a standalone server says of models that run as processes of this machine."""

import getpass
import os

from job_consumer.engines.process.walls import Walls

WITHOUT_DOCKER = (
    "Start Docker; or ask for --engine process, which runs programs of models' zips as your own user on this machine's "
    "kernel, instead of images in containers."
)
_NO_NAMESPACES = "this system refuses user namespaces to its users, so what confines them is less than elsewhere"


def process_warning(walls: Walls) -> str:
    """What it means to run models as processes, what confines them here, and what does not: for one line of the log."""
    parts = [
        f"models run as processes of this machine, as the user {_user()}, and not in containers: register only "
        "programs you would run yourself",
        f"here they are confined by {walls.names()}",
    ]
    if walls.namespace:
        parts.append(
            "they see the system's programs, this Python, and their own input, output and model; no network and no "
            "other process"
        )
    else:
        parts.append(_NO_NAMESPACES)
    if gaps := walls.gaps():
        parts.append(f"what nothing keeps them from here: to {'; to '.join(gaps)}")
    parts.append("nothing bounds the processors they use, and a flaw of the kernel leads out")
    return "; ".join(parts)


def _user() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        # A number without a name, as in some containers.
        return str(os.geteuid())
    return f"{name}, who may do everything" if os.geteuid() == 0 else name
