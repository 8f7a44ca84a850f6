"""`run` as its users call it: inputs of every kind, an output with files to open, progress where somebody sees it."""

import gc
import io
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inference_client import InferenceClient, TaskView
from inference_client.errors import DamagedDownload, TaskFailed, UnusableInput
from inference_client.pack import Inputs
from tests.terminal import run_in_terminal
from tests.unit.client_peer import UID, Peer, running_peer, task_view
from tests.zips import make_zip

FILES = {"mask.nii.gz": b"mask", "report/<b>summary</b>.txt": "größer".encode()}


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running_peer() as peer:
        peer.output = make_zip(FILES)
        peer.views.clear()
        peer.views.extend([task_view(position=2), task_view(status="finished")])
        yield peer


@pytest.fixture
def client(peer: Peer) -> Iterator[InferenceClient]:
    with InferenceClient(peer.url, sleep=lambda _: None) as client:
        yield client


def sent_files(peer: Peer) -> dict[str, bytes]:
    (seen,) = peer.calls("POST", "/api/tasks/")
    archive = zipfile.ZipFile(io.BytesIO(seen.body))
    return {info.filename: archive.read(info) for info in archive.infolist() if not info.is_dir()}


def test_the_first_line_in_a_notebook(client: InferenceClient, peer: Peer, tmp_path: Path) -> None:
    (tmp_path / "ct.nii.gz").write_bytes(b"ct")
    output = client.run("seg", str(tmp_path / "ct.nii.gz"))
    assert sent_files(peer) == {"ct.nii.gz": b"ct"}
    with output["mask.nii.gz"].open() as file:
        assert file.read() == b"mask"
    assert {name: file.read_bytes() for name, file in output.items()} == FILES
    assert output["report/<b>summary</b>.txt"].read_text() == "größer"
    assert output["mask.nii.gz"].size_bytes == 4
    assert (output.uid, len(output)) == (UID, 2)


INPUTS: list[tuple[Callable[[Path], Inputs], dict[str, bytes]]] = [
    (str, {"a.txt": b"a", "sub/b.txt": b"b"}),
    (lambda folder: folder, {"a.txt": b"a", "sub/b.txt": b"b"}),
    (lambda folder: [str(folder / "a.txt"), folder / "sub"], {"a.txt": b"a", "sub/b.txt": b"b"}),
    (lambda folder: (folder / "a.txt",), {"a.txt": b"a"}),
    (
        lambda folder: {"new.txt": folder / "a.txt", "deep/x.bin": b"x", "whole": folder},
        {"new.txt": b"a", "deep/x.bin": b"x", "whole/a.txt": b"a", "whole/sub/b.txt": b"b"},
    ),
    (lambda folder: b"bytes", {"input": b"bytes"}),
    (lambda folder: make_zip({"in.txt": b"zipped"}), {"in.txt": b"zipped"}),
]


@pytest.mark.parametrize(("make", "expected"), INPUTS)
def test_inputs_of_every_kind(
    client: InferenceClient, peer: Peer, tmp_path: Path, make: Callable[[Path], Inputs], expected: dict[str, bytes]
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "sub/b.txt").write_text("b")
    client.submit("seg", make(tmp_path))
    assert sent_files(peer) == expected


def test_a_home_is_found(client: InferenceClient, peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "ct.nii").write_bytes(b"ct")
    client.submit("seg", "~/ct.nii")
    assert sent_files(peer) == {"ct.nii": b"ct"}


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ([], "nothing was named"),
        ({}, "holds no files"),
        ({"a": "text"}, "give its content as bytes, or a file as a Path"),
        ({"../a": b""}, "cannot be sent"),
        ({"a": Path("/nowhere")}, "/nowhere does not exist"),
        ({1: b""}, "not the name of a file"),
        ([b"bytes"], "has no name to be sent under"),
        (7, "a int cannot be sent"),
        ("/nowhere", "/nowhere does not exist"),
    ],
)
def test_what_cannot_be_sent_is_said_before_anything_is(
    client: InferenceClient, peer: Peer, inputs: Inputs, said: str
) -> None:
    with pytest.raises(UnusableInput, match=said):
        client.submit("seg", inputs)
    assert not peer.seen


def test_content_given_as_bytes_is_the_same_zip_each_time(client: InferenceClient, peer: Peer) -> None:
    client.submit("seg", {"a": b"a"})
    client.submit("seg", {"a": b"a"})
    first, second = peer.calls("POST", "/api/tasks/")
    assert first.body == second.body


def test_a_file_stands_where_a_path_is_taken(client: InferenceClient) -> None:
    output = client.run("seg", b"ct")
    path = Path(os.fspath(output["report/<b>summary</b>.txt"]))
    assert path.read_text() == "größer"
    output.close()
    assert not path.exists()


def test_an_output_nobody_holds_leaves_nothing_behind(client: InferenceClient) -> None:
    file = client.run("seg", b"ct")["mask.nii.gz"]
    gc.collect()
    assert file.read_bytes() == b"mask"
    path = file.path
    del file
    gc.collect()
    assert not path.exists()


def test_an_output_is_saved_as_a_folder_a_zip_or_one_file(client: InferenceClient, peer: Peer, tmp_path: Path) -> None:
    with client.run("seg", b"ct") as output:
        folder = output.save(tmp_path / "new")
        assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == FILES.keys()
        assert output.save_zip(tmp_path / "out.zip").read_bytes() == peer.output
        assert output["mask.nii.gz"].save(tmp_path) == tmp_path / "mask.nii.gz"
        assert output["mask.nii.gz"].save(tmp_path / "m").read_bytes() == b"mask"


def test_a_file_that_is_not_there_is_answered_with_those_that_are(client: InferenceClient) -> None:
    with pytest.raises(KeyError, match=r"it has mask\.nii\.gz"):
        client.run("seg", b"ct")["mask.nii"]


def test_an_output_that_would_leave_its_folder_is_refused(client: InferenceClient, peer: Peer) -> None:
    peer.output = make_zip({"../escape": b"x"})
    with pytest.raises(DamagedDownload, match="escape"):
        client.run("seg", b"ct")


def test_an_output_has_the_warnings_of_its_task(client: InferenceClient, peer: Peer) -> None:
    assert client.run("seg", b"ct").warnings == []
    peer.views.append(task_view(status="finished", warnings=["a link was left out"], warning_count=1))
    peer.views.popleft()
    peer.warning_count = 1
    output = client.run("seg", b"ct")
    assert output.warnings == client.output(UID).warnings == ["a link was left out"]
    assert "with 1 warning" in output._repr_html_()
    (result,) = client.map("seg", [b"ct"])
    assert result.task is not None
    assert result.task.warnings == result.output.warnings == ["a link was left out"]


def ignores_case(folder: Path) -> bool:
    (folder / "probe").touch()
    return (folder / "PROBE").exists()


def test_names_that_differ_only_in_case_are_two_files_where_the_disk_tells_them_apart(
    client: InferenceClient, peer: Peer, tmp_path: Path
) -> None:
    if ignores_case(tmp_path):
        pytest.skip("this file system takes them for one")
    content = {"T1.nii": b"upper", "t1.nii": b"lower", "A/x": b"1", "a/x": b"2", "a/y": b"3"}
    peer.output = make_zip(content)
    output = client.output(UID)
    assert {name: file.path.read_bytes() for name, file in output.items()} == content
    folder = output.save(tmp_path / "out")
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == content


@pytest.mark.parametrize("names", [["a.txt", "T1.nii", "T1.nii"], ["a", "a/b"], ["a/b", "a"]])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_no_file_of_an_output_replaces_another_one(
    client: InferenceClient, peer: Peer, tmp_path: Path, names: list[str]
) -> None:
    # The same name twice is one file everywhere, as names that differ in case are on some file systems.
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    peer.output = target.getvalue()
    (tmp_path / "out").mkdir()
    with pytest.raises(UnusableInput, match=r"the same file in .*; nothing was unpacked"):
        client.fetch(UID, tmp_path / "out", extract=True)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_is_not_taken_for_another_one_on_a_disk_that_ignores_case(client: InferenceClient, peer: Peer) -> None:
    peer.output = make_zip({"T1.nii": b"upper", "t1.nii": b"lower"})
    output = client.output(UID)
    upper = output["T1.nii"].path
    if not upper.with_name("t1.nii").exists():
        # As such a disk answers.
        upper.with_name("t1.nii").hardlink_to(upper)
    with pytest.raises(UnusableInput, match="one on this file system"):
        _ = output["t1.nii"].path
    assert output["t1.nii"].read_bytes() == b"lower"


def test_what_a_notebook_shows_is_escaped(client: InferenceClient) -> None:
    shown = client.run("seg", b"ct")._repr_html_()
    assert "report/&lt;b&gt;summary&lt;/b&gt;.txt" in shown
    assert "<b>" not in shown
    task = TaskView.model_validate(
        task_view(detail="<script>alert(1)</script>", output={"sha256": "x", "size_bytes": 7})
    )
    assert "&lt;script&gt;" in task._repr_html_()
    assert "<script>" not in task._repr_html_()
    assert "size_bytes: 7" in task._repr_html_()
    assert "2024-05-01 12:00:00+00:00" in task._repr_html_()
    assert "reason" not in task._repr_html_()


def test_a_run_that_failed_shows_the_end_of_the_log(client: InferenceClient, peer: Peer) -> None:
    failed = task_view(
        status="failed", reason="exit_code", exit_code=3, detail="exit code 3", log_tail="no\x1b[2J mask"
    )
    peer.views.append(failed)
    peer.views.remove(task_view(status="finished"))
    with pytest.raises(TaskFailed, match="exit code 3") as raised:
        client.run("seg", b"ct")
    assert raised.value.__notes__ == ["The end of the task's log:\nno\N{REPLACEMENT CHARACTER}[2J mask"]


def test_an_interrupted_run_cancels_its_task(peer: Peer) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    peer.views.clear()
    peer.views.append(task_view(status="running"))
    with InferenceClient(peer.url, sleep=interrupt) as client, pytest.raises(KeyboardInterrupt):
        client.run("seg", b"ct")
    assert len(peer.calls("POST", f"/api/tasks/{UID}/cancel")) == 1


def test_an_output_is_unpacked_as_it_is_fetched(client: InferenceClient, tmp_path: Path) -> None:
    assert client.fetch(UID, str(tmp_path / "new"), extract=True) == tmp_path / "new"
    assert (tmp_path / "new/mask.nii.gz").read_bytes() == b"mask"
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    (tmp_path / "file").touch()
    with pytest.raises(UnusableInput, match="is a file"):
        client.fetch(UID, tmp_path / "file", extract=True)


def test_a_client_without_a_server_asks_the_one_that_infer_asks(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_SERVER_URL", peer.url)
    monkeypatch.setenv("INFERENCE_SERVER_KEY", "the-key")
    with InferenceClient() as client:
        client.status(UID)
    assert peer.seen[-1].headers["x-api-key"] == "the-key"


PROGRAM = """
import sys
from inference_client import InferenceClient
with InferenceClient(sys.argv[1], sleep=lambda _: None) as client:
    print(sorted(client.run("seg", b"x" * 3000, progress={"None": None, "False": False}[sys.argv[2]])))
"""


def test_progress_is_shown_on_a_terminal_unless_it_is_not_wanted(peer: Peer) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])}
    shown = run_in_terminal([peer.url, "None"], environment, program=PROGRAM).text
    assert "sent" in shown
    assert "2.9/2.9 KiB" in shown
    assert "queued, 2 before it" in shown
    assert "fetched" in shown
    shown = run_in_terminal([peer.url, "False"], environment, program=PROGRAM).text
    assert shown.splitlines() == ["['mask.nii.gz', 'report/<b>summary</b>.txt']"]
