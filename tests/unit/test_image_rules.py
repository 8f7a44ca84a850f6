"""Which images may be registered: patterns against every way to name an image."""

import pytest

from contract.errors import PermissionDenied
from kit.settings import SettingsError
from private_api.image_rules import check_image, parse_images
from private_api.settings import PrivateApiSettings

ALLOWED = ("registry.example.org/*", "lab/segment", "docker.io/library/python", "localhost:5000/team/*:stable")
DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    "image",
    [
        "registry.example.org/x",
        "registry.example.org/deep/er:3",
        f"registry.example.org/x@{DIGEST}",
        "lab/segment",
        "lab/segment:2",
        f"lab/segment:2@{DIGEST}",
        "python",
        "python:3.13-slim",
        "library/python:3",
        "docker.io/library/python",
        "localhost:5000/team/x:stable",
        "process:run.sh",
    ],
)
def test_an_image_is_allowed_however_it_is_named(image: str) -> None:
    check_image(image, ALLOWED)


@pytest.mark.parametrize(
    "image",
    [
        "registry.example.org.evil.org/x",
        "evil.org/registry.example.org/x",
        "registry.example.org:5000/x",
        "lab/segment2",
        "lab/segment/x",
        "evil.org/lab/segment",
        "someone/python",
        "localhost:5000/team/x",
        "localhost:5000/team/x:stable2",
        "LAB/segment",
    ],
)
def test_any_other_image_is_refused_with_what_is_allowed(image: str) -> None:
    with pytest.raises(PermissionDenied, match=r"allows registry\.example\.org/\* lab/segment .*ALLOWED_IMAGES"):
        check_image(image, ALLOWED)


def test_without_patterns_every_image_is_allowed() -> None:
    check_image("evil.org/x", parse_images(" "))


@pytest.mark.parametrize("text", ["lab/[ab]", "lab/?", "-x", "lab/a;b"])
def test_a_pattern_that_matches_no_image_stops_the_start(text: str) -> None:
    given = {
        "SERVICE_TOKEN": "a-service-token-of-the-tests",
        "DATABASE_URL": "sqlite://",
        "RABBIT_PASSWORD": "a-password",
    }
    with pytest.raises(SettingsError, match=r"ALLOWED_IMAGES: .*matches no image"):
        PrivateApiSettings.load(given | {"ALLOWED_IMAGES": f"lab/* {text}"})
