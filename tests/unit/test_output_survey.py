"""What is sent of an output that cannot be sent as it is, and what its owner is told."""

import os
import stat
from pathlib import Path

import pytest

from contract.statuses import Reason
from job_consumer.output.failures import ModelFailed
from job_consumer.output.survey import survey_output
from job_consumer.output.zip_stream import stream_zip
from tests.zips import read_zip


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "output"
    folder.mkdir()
    (folder / "fine").write_bytes(b"fine")
    return folder


def send(folder: Path, *, max_entries: int = 1000) -> tuple[dict[str, bytes], list[str]]:
    """The files that are sent, and the warnings."""
    survey = survey_output(folder, max_bytes=10_000, max_entries=max_entries)
    return read_zip(b"".join(stream_zip(folder, survey.files))), survey.warnings


@pytest.mark.parametrize("target", ["lh.pial.T1", "./surf/../lh.pial.T1", "/output/lh.pial.T1", "surf/back/lh.pial.T1"])
def test_a_link_to_a_file_inside_is_sent_as_a_copy(output: Path, target: str) -> None:
    (output / "lh.pial.T1").write_bytes(b"surface")
    (output / "surf").mkdir()
    (output / "surf" / "back").symlink_to("../other")
    (output / "other").symlink_to(".")
    (output / "lh.pial").symlink_to(target)
    sent, warnings = send(output)
    assert sent["lh.pial"] == b"surface"
    assert not [warning for warning in warnings if "lh.pial" in warning]


def test_a_link_by_the_path_of_this_host_is_sent_as_a_copy(output: Path) -> None:
    (output / "link").symlink_to(output / "fine")
    assert send(output) == ({"fine": b"fine", "link": b"fine"}, [])


def test_a_link_to_a_folder_inside_is_sent_as_a_copy(output: Path) -> None:
    (output / "1" / "deep").mkdir(parents=True)
    (output / "1" / "deep" / "a").write_bytes(b"a")
    (output / "1" / "up").symlink_to("deep/a")
    (output / "latest").symlink_to("1", target_is_directory=True)
    sent, warnings = send(output)
    assert (sent["latest/deep/a"], sent["latest/up"], sent["1/up"]) == (b"a", b"a", b"a")
    assert warnings == []


@pytest.mark.parametrize(
    "target",
    ["/etc/passwd", "../secret", "d/../../secret", "/output/../secret", "/outputs", "/proc/self/environ", "out/secret"],
)
def test_a_link_that_leads_out_is_left_out(output: Path, tmp_path: Path, target: str) -> None:
    (tmp_path / "secret").write_text("secret")
    (output / "d").mkdir()
    (output / "out").symlink_to("..")
    (output / "link").symlink_to(target)
    sent, warnings = send(output)
    assert sent == {"fine": b"fine"}
    assert "'link' was left out: a symbolic link that leads out of /output" in warnings


def test_a_link_that_leads_nowhere_is_left_out(output: Path) -> None:
    (output / "link").symlink_to("nowhere")
    assert send(output) == ({"fine": b"fine"}, ["'link' was left out: No such file or directory"])


@pytest.mark.parametrize("target", [".", "..", "../d", "/output"])
def test_a_link_to_a_folder_around_it_is_left_out(output: Path, target: str) -> None:
    (output / "d").mkdir()
    (output / "d" / "loop").symlink_to(target)
    sent, warnings = send(output)
    assert sent == {"fine": b"fine"}
    assert warnings == ["'d/loop' was left out: a symbolic link to a folder that it lies in"]


def test_links_that_lead_to_each_other_end(output: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        (output / name).mkdir()
        (output / name / "file").write_text(name)
        (output / name / "link").symlink_to(f"../{other}")
    (output / "one").symlink_to("two")
    (output / "two").symlink_to("one")
    sent, warnings = send(output)
    assert sent["a/link/file"] == b"b"
    assert "'b/link' was left out: a symbolic link to a folder that it lies in" in warnings
    assert "'one' was left out: Too many levels of symbolic links" in warnings


def test_copies_count_towards_the_limits(output: Path) -> None:
    (output / "large").write_bytes(bytes(6000))
    (output / "link").symlink_to("large")
    with pytest.raises(ModelFailed) as failed:
        send(output)
    assert failed.value.reason is Reason.OUTPUT_TOO_LARGE
    (output / "link").unlink()
    for number in range(10):
        (output / f"d{number}").mkdir()
        for other in range(10):
            (output / f"d{number}" / f"l{other}").symlink_to(f"../d{other}")
    with pytest.raises(ModelFailed) as failed:
        send(output)
    assert failed.value.reason is Reason.OUTPUT_TOO_LARGE


def test_what_is_no_file_is_left_out_and_named(output: Path) -> None:
    os.mkfifo(output / "fifo")
    os.mknod(output / "socket", stat.S_IFSOCK | 0o600)
    assert send(output) == (
        {"fine": b"fine"},
        ["'fifo' was left out: a FIFO", "'socket' was left out: a socket"],
    )


def test_a_file_with_two_names_inside_is_sent_twice_and_one_with_a_name_outside_is_not(
    output: Path, tmp_path: Path
) -> None:
    (output / "d").mkdir()
    (output / "again").hardlink_to(output / "fine")
    (output / "d" / "foreign").write_bytes(b"secret")
    (tmp_path / "elsewhere").hardlink_to(output / "d" / "foreign")
    sent, warnings = send(output)
    assert sent == {"fine": b"fine", "again": b"fine"}
    assert warnings == ["'d/foreign' was left out: a hard link to a file outside of /output"]


@pytest.mark.parametrize(
    ("name", "sent_as", "said"),
    [
        (b"Sch\xe4del.nii", "Sch%E4del.nii", "its name is not valid UTF-8"),
        (b"two\nlines", "two%0Alines", "its name has a control character"),
        (b"\x1b[2J", "%1B[2J", "its name has a control character"),
        ("\u0085".encode(), "%C2%85", "its name has a control character"),
        (b"a\\b", "a%5Cb", "its name has a backslash; folders are separated by /"),
        (b"C:a", "C%3Aa", "its name begins with a drive letter"),
    ],
)
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_name_that_does_not_travel_is_escaped(output: Path, kind: str, name: bytes, sent_as: str, said: str) -> None:
    path = os.fsencode(output) + b"/" + name
    if kind == "folder":
        os.mkdir(path)  # noqa: PTH102 - bytes
        path += b"/file"
    with open(path, "wb") as file:  # noqa: PTH123 - bytes
        file.write(b"content")
    sent, warnings = send(output)
    assert sent == {"fine": b"fine", sent_as + ("/file" if kind == "folder" else ""): b"content"}
    assert warnings == [f"{os.fsdecode(name)!r} was sent as '{sent_as}': {said}"]


def test_an_escaped_name_replaces_no_other(output: Path) -> None:
    for name in (b"a\n", b"a%0A", b"a%0A~2"):
        with open(os.fsencode(output) + b"/" + name, "wb") as file:  # noqa: PTH123 - bytes
            file.write(name)
    sent, _ = send(output)
    assert sent == {"fine": b"fine", "a%0A": b"a%0A", "a%0A~2": b"a%0A~2", "a%0A~3": b"a\n"}


def test_what_has_too_long_a_path_is_left_out(output: Path) -> None:
    deep = output.joinpath(*["d"] * 64)
    deep.mkdir(parents=True)
    (deep / "file").touch()
    sent, warnings = send(output)
    assert sent == {"fine": b"fine"}
    assert len(warnings) == 1
    assert warnings[0].endswith("was left out: it lies deeper than 64 folders")


def test_names_that_differ_only_in_case_are_both_sent(output: Path) -> None:
    for name in ("T1.nii", "t1.nii", "T1.NII"):
        (output / name).write_text(name)
    sent, warnings = send(output)
    assert set(sent) == {"fine", "T1.nii", "t1.nii", "T1.NII"}
    assert warnings == [
        "'T1.NII' and 'T1.nii' name the same file where case is ignored",
        "'T1.nii' and 't1.nii' name the same file where case is ignored",
    ]


def test_an_output_of_nothing_that_can_be_sent_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(ModelFailed) as failed:
        send(tmp_path)
    assert failed.value.reason is Reason.OUTPUT_REJECTED
    assert "'link' (a symbolic link that leads out of /output)" in failed.value.detail


def test_a_link_that_changes_after_the_survey_is_not_followed(output: Path) -> None:
    (output / "target").write_bytes(b"x" * 100)
    (output / "link").symlink_to("target")
    survey = survey_output(output, max_bytes=10_000, max_entries=10)
    (output / "target").unlink()
    (output / "target").symlink_to("/etc/passwd")
    with pytest.raises(ModelFailed):
        list(stream_zip(output, survey.files))
