"""Models and zips as people make them end as docs/compatibility.md says."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.client import DoorClient, door_of
from tests.e2e.images import dockerfile_image, script_image
from tests.e2e.kinds_of_models import FAILS, FINISHES, Kind
from tests.e2e.kinds_of_zips import FILES, KINDS, ZipKind
from tests.e2e.systems import System, standalone_system
from tests.services import require_docker

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
ZIP = {"Content-Type": "application/zip"}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    require_docker()
    with standalone_system(tmp_path_factory.mktemp("compatibility")) as running:
        yield running


@pytest.fixture
def door(system: System) -> Iterator[DoorClient]:
    with door_of(system.url, system.verify) as door:
        yield door


def image_of(kind: Kind) -> str:
    """Its image."""
    lines = [f"FROM {kind.base}", *kind.dockerfile]
    if kind.script:
        lines.append(f"CMD {json.dumps(['/bin/sh', '-c', kind.script])}")
    return dockerfile_image("\n".join(lines) + "\n")


def row_of(name: str) -> str:
    """The row of the page whose first cell this is."""
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith(f"| {name} |")]
    assert len(rows) == 1, f"docs/compatibility.md has {len(rows)} rows that begin with {name!r}"
    return rows[0]


def named(kind: Kind | ZipKind) -> str:
    return kind.name


@pytest.mark.parametrize("kind", FINISHES, ids=named)
def test_a_model_gives_its_result(door: DoorClient, kind: Kind) -> None:
    uid = door.submit(door.add_model(image_of(kind), **kind.options), {"i": b""})
    assert door.result(uid) == kind.files
    log = door.http.get(f"/api/tasks/{uid}/logs").content.decode(errors="replace")
    said = " ".join([*door.status(uid)["warnings"], log])
    assert [words for words in kind.says if words not in said] == []
    assert "fails" not in row_of(kind.name)


@pytest.mark.parametrize("kind", FAILS, ids=named)
def test_a_model_fails_and_the_answer_says_why(door: DoorClient, kind: Kind) -> None:
    answer = door.ended(door.submit(door.add_model(image_of(kind), **kind.options), {"i": b""}))
    assert (answer.status_code, answer.json()["reason"]) == (552, kind.reason), answer.text
    said = answer.json()["detail"] + (answer.json().get("log_tail") or "")
    assert [words for words in kind.says if words not in said] == []
    assert f"`{kind.reason}`" in row_of(kind.name)


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_a_zip_is_taken_or_refused_with_a_reason(door: DoorClient, kind: ZipKind, tmp_path: Path) -> None:
    model = door.add_model(script_image("cp -r /input/. /output; echo > /output/.ran"))
    data = kind.make(tmp_path)
    answer = door.http.post("/api/tasks/", params={"human_readable_id": model}, content=data, headers=ZIP)
    if kind.refused:
        assert (answer.status_code, kind.refused in answer.text) == (422, True), answer.text
        assert "refused" in row_of(kind.name)
        return
    assert answer.status_code == 200, answer.text
    found = door.result(str(answer.json()))
    if kind.path:
        assert found[kind.path] == FILES["case/ct.nii"]
    assert "refused" not in row_of(kind.name)
