"""Checks this installation for versions with known vulnerabilities."""

import platform
from importlib.metadata import PackageNotFoundError, version

from operations.findings import Finding, ok, warning
from operations.versions import Version, is_fixed, parse_version

FIXED_PYTHON: tuple[Version, ...] = ((3, 13, 4), (3, 12, 11), (3, 11, 13))
FIXED_LIBRARIES: dict[str, Version] = {"starlette": (0, 49, 1), "python-multipart": (0, 0, 27)}


def check_python(found: str | None = None) -> Finding:
    """Check the interpreter of this command; in Compose the services use the image's."""
    found = found or platform.python_version()
    if is_fixed(parse_version(found), FIXED_PYTHON):
        return ok("Python", found)
    advice = "update to 3.11.13, 3.12.11, 3.13.4 or newer; this server itself unpacks no tar files"
    return warning("Python", f"{found}: tar files can escape their folder (CVE-2025-4517)", advice)


def check_library(name: str) -> Finding:
    """Check a library that reads what strangers send."""
    oldest = FIXED_LIBRARIES[name]
    wanted = ".".join(str(part) for part in oldest)
    try:
        found = version(name)
    except PackageNotFoundError:
        return ok(name, "not installed here: the services run elsewhere, as in the image")
    if parse_version(found) >= oldest:
        return ok(name, found)
    return warning(name, f"{found}: strangers can exhaust the server", f"update to {wanted} or newer")
