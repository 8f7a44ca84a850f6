"""How far a pull is, from the lines that the Engine sends."""

from typing import Any

from job_consumer.engines.docker.pull_progress import PullProgress


def line(layer: str, status: str, current: int | None = None, total: int | None = None) -> dict[str, Any]:
    known = {"current": current, "total": total}
    return {"id": layer, "status": status, "progressDetail": {n: v for n, v in known.items() if v is not None}}


def percents(lines: list[dict[str, Any]]) -> list[int]:
    progress, found = PullProgress(), []
    for each in lines:
        progress.note(each)
        found.append(progress.percent)
    return found


BEGIN = [line("3", "Pulling from library/model"), line("a", "Pulling fs layer"), line("b", "Pulling fs layer")]


def test_layers_count_by_size_and_unpacking_counts_half() -> None:
    lines = [
        *BEGIN,
        line("a", "Downloading", 0, 300),
        line("b", "Downloading", 50, 100),
        line("b", "Download complete"),
        line("a", "Downloading", 300, 300),
        line("a", "Verifying Checksum"),
        line("a", "Extracting", 150, 300),
        line("a", "Pull complete"),
        line("b", "Extracting", 100, 100),
        line("b", "Pull complete"),
    ]
    assert percents(lines) == [0, 0, 0, 0, 6, 12, 50, 50, 68, 87, 100, 100]


def test_it_never_falls_when_a_layer_turns_out_to_be_large() -> None:
    lines = [*BEGIN, line("a", "Downloading", 90, 100), line("b", "Downloading", 1, 10_000)]
    found = percents(lines)
    assert found == sorted(found)
    assert found[-1] == 22


def test_layers_that_are_there_count_for_nothing_and_unknown_lines_are_passed_over() -> None:
    lines = [
        {"status": "Digest: sha256:0"},
        {"id": 7, "status": "Downloading"},
        line("old", "Already exists"),
        line("a", "Pulling fs layer"),
        line("a", "Waiting"),
        line("a", "Downloading", 50),
        line("a", "Downloading", 50, 100),
        {"id": "a", "status": "Extracting"},
    ]
    assert percents(lines) == [0, 0, 0, 0, 0, 0, 25, 50]
