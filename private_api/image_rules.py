"""Which images and runtimes models may be registered with."""

from contract.errors import PermissionDenied
from contract.image_names import is_allowed
from contract.schemas import PROCESS_TAG_PREFIX


def check_image(image: str, allowed: tuple[str, ...]) -> None:
    """Raises `PermissionDenied` for an image that none of the patterns matches: see `is_allowed`."""
    if not image.startswith(PROCESS_TAG_PREFIX) and not is_allowed(image, allowed):
        raise PermissionDenied(
            f"the image {image} may not be registered here: the operator allows {' '.join(allowed)} (ALLOWED_IMAGES)"
        )


def check_runtime(runtime: str | None, offered: tuple[str, ...]) -> None:
    """Raises `PermissionDenied` for a runtime that the operator does not offer."""
    if runtime is not None and runtime not in offered:
        offer = f"offers {' '.join(offered)}" if offered else "offers none"
        raise PermissionDenied(
            f"the runtime {runtime} may not be asked for here: the operator {offer} (MODEL_RUNTIMES)"
        )
