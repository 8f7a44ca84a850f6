"""How people name and look at their tasks with `infer`, at a terminal and in scripts, on a real server."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.claims import ClaimRequest
from contract.schemas import Commit, ConsumerRegistration
from inference_client.cli.exit_codes import ExitCode
from tests.integration.infer_harness import Server, User, serve
from tests.zips import make_zip

UTC = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
LOCAL = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0545"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def anybody(server: Server, tmp_path: Path) -> User:
    return User(tmp_path / "home", INFERENCE_SERVER_URL=server.url)


@pytest.fixture
def ada(server: Server, tmp_path: Path) -> User:
    return User(tmp_path / "home", INFERENCE_SERVER_URL=server.url, INFERENCE_SERVER_KEY=server.key)


def test_last_is_the_task_submitted_last_from_here(anybody: User) -> None:
    anybody.submits("echo")
    last = anybody.submits("echo")
    shown = anybody.types("status", "@last")
    assert (shown.code, last in shown.text.replace("\n", "").replace(" ", "")) == (0, True)
    assert json.loads(anybody.pipes("status", "@last", "--json").stdout)["uid"] == last


def test_only_the_user_can_read_what_infer_remembers(anybody: User) -> None:
    anybody.submits("echo")
    assert (anybody.remembered.stat().st_mode & 0o777, anybody.remembered.parent.stat().st_mode & 0o777) == (
        0o600,
        0o700,
    )


def test_last_is_of_the_server_that_is_meant(anybody: User, server: Server) -> None:
    anybody.submits("echo")
    ended = anybody.pipes("--server", server.closed_url, "status", "@last")
    assert ended.returncode == ExitCode.NOT_FOUND
    assert ended.stderr == (
        f"infer: @last: nothing was submitted from here to {server.closed_url} yet; write the whole uid\n"
    )


def test_a_task_is_submitted_even_if_nothing_can_be_remembered(anybody: User) -> None:
    anybody.remembered.parent.parent.mkdir(parents=True)
    anybody.remembered.parent.write_text("in the way")
    ended = anybody.pipes("submit", "echo", str(anybody.home / "scan"))
    assert ended.returncode == 0
    assert f"warning: {anybody.remembered} cannot be written" in ended.stderr
    assert len(ended.stdout.strip()) == 64


def test_the_beginning_of_a_uid_names_a_task_submitted_from_here(anybody: User) -> None:
    uid = anybody.submits("echo")
    assert json.loads(anybody.pipes("status", uid[:8].upper(), "--json").stdout)["uid"] == uid


def test_the_beginning_of_a_uid_names_a_task_that_the_keys_owner_submitted_elsewhere(
    ada: User, server: Server, tmp_path: Path
) -> None:
    uid = ada.submits("echo")
    elsewhere = User(tmp_path / "elsewhere", **{**ada.environment, "HOME": str(tmp_path / "elsewhere")})
    assert json.loads(elsewhere.pipes("status", uid[:8], "--json").stdout)["uid"] == uid


def test_a_beginning_that_fits_several_tasks_names_none(anybody: User, server: Server) -> None:
    uids = [f"abcd{number:060}" for number in range(3)]
    anybody.remembered.parent.mkdir(parents=True)
    lines = [json.dumps({"server": server.url, "uid": uid, "model": "echo", "at": ""}) for uid in uids]
    anybody.remembered.write_text("\n".join(lines) + "\n")
    ended = anybody.pipes("cancel", "abcd")
    assert ended.returncode == ExitCode.USAGE
    assert ended.stderr.startswith("infer: 3 tasks begin with abcd; write more of the uid: ")


def test_what_was_pasted_around_a_uid_does_not_matter(anybody: User) -> None:
    uid = anybody.submits("echo")
    for pasted in (f'"{uid}"', f"  '{uid}'\n", f"{uid[:40]}\n  {uid[40:]}", f"`{uid}`"):
        assert json.loads(anybody.pipes("status", pasted, "--json").stdout)["uid"] == uid


def test_a_uid_that_is_too_short_or_unknown_is_explained(anybody: User) -> None:
    uid = anybody.submits("echo")
    assert "write at least its first 4 characters" in anybody.pipes("status", uid[:3]).stderr
    mistyped = ("e" if uid[5] != "e" else "f").join((uid[:5], uid[6:12]))
    ended = anybody.pipes("status", mistyped)
    assert ended.returncode == ExitCode.NOT_FOUND
    assert ended.stderr == (
        f"infer: none of your recent tasks begins with {mistyped}; write the whole uid\nDid you mean: {uid}?\n"
    )
    ended = anybody.pipes("status", uid[:-1] + ("0" if uid[-1] != "0" else "1"))
    assert ended.stderr.endswith(f"Did you mean: {uid}?\n")
    assert json.loads(anybody.pipes("status", mistyped, "--json").stdout)["did_you_mean"] == [uid]


def test_a_list_is_a_table_with_local_times_at_a_terminal_and_plain_with_utc_elsewhere(ada: User) -> None:
    uid = ada.submits("echo")
    shown = ada.types("list")
    assert "\x1b[1m" in shown.raw
    assert re.search(rf"^{uid[:12]} +echo +queued +{LOCAL} *$", shown.text, re.MULTILINE)
    assert uid not in shown.text
    plain = ada.pipes("list").stdout
    assert re.search(rf"^{uid}  echo +queued +{UTC}$", plain, re.MULTILINE)
    assert "\x1b" not in plain


def test_the_facts_of_a_task_show_its_whole_uid_and_times_with_zones(ada: User) -> None:
    uid = ada.submits("echo")
    shown = ada.types("status", "@last")
    assert re.search(rf"^uid +{uid}", shown.text, re.MULTILINE)
    assert re.search(rf"^submitted +{LOCAL} *$", shown.text, re.MULTILINE)
    assert "\x1b[33mqueued" in shown.raw
    assert re.search(rf"^submitted  {UTC}$", ada.pipes("status", uid).stdout, re.MULTILINE)


def test_a_list_shows_the_wanted_tasks(ada: User) -> None:
    echo, liver = ada.submits("echo"), ada.submits("segment-liver")
    cancelled = ada.submits("echo")
    assert ada.pipes("cancel", cancelled).returncode == 0

    def listed(*options: str) -> list[str]:
        return [task["uid"] for task in json.loads(ada.pipes("list", "--json", *options).stdout)]

    everything = listed()
    assert everything[:3] == [cancelled, liver, echo]
    assert listed("--limit", "2") == [cancelled, liver]
    assert listed("--model", "segment-liver")[0] == liver
    assert cancelled in listed("--status", "cancelled")
    assert listed("--status", "queued", "--model", "echo", "--limit", "1") == [echo]
    assert listed("--since", "1d") == everything
    assert listed("--since", "2999-01-01") == []


def test_the_history_of_a_short_uid_and_the_queue_are_shown_the_same_way(ada: User) -> None:
    uid = ada.submits("echo")
    shown = ada.types("history", uid[:8])
    assert re.search(rf"^{LOCAL} +queued +0 +- *$", shown.text, re.MULTILINE)
    assert re.search(rf"^{UTC} +queued +0 +-$", ada.pipes("history", "@last").stdout, re.MULTILINE)
    assert f" {uid[:12]} " in ada.types("queue").text
    assert f" {uid} " in ada.pipes("queue").stdout


def test_a_task_is_run_again_without_sending_its_input(anybody: User) -> None:
    first = anybody.submits("echo")
    (anybody.home / "scan").unlink()
    again = anybody.pipes("rerun", "@last")
    assert (again.returncode, again.stderr) == (0, "")
    uid = again.stdout.strip()
    assert re.search(f"rerun of +{first}", anybody.pipes("status", "@last").stdout)
    assert f"A rerun of {first}" in anybody.pipes("history", uid).stdout
    shown = json.loads(anybody.pipes("rerun", first, "--version", "default", "--json").stdout)
    assert (shown["rerun_of"], shown["uid"] not in (first, uid)) == (first, True)
    late = anybody.pipes("rerun", first, "--wait", "--timeout", "1")
    assert late.returncode == ExitCode.NOT_ENDED
    assert late.stdout.strip() == anybody.pipes("status", "@last").stdout.split()[1]


def test_single_files_are_listed_and_written_to_stdout(anybody: User) -> None:
    anybody.submits("echo")
    listed = anybody.pipes("files", "@last", "--input")
    assert re.search(r"^PATH +SIZE +MODIFIED\nscan +6 B", listed.stdout)
    assert json.loads(anybody.pipes("files", "@last", "--input", "--json").stdout)[0]["path"] == "scan"
    assert anybody.pipes("cat", "@last", "scan", "--input").stdout == "pixels"
    mistyped = anybody.pipes("cat", "@last", "scam", "--input")
    assert (mistyped.returncode, mistyped.stdout) == (ExitCode.NOT_FOUND, "")
    assert "No file has this path" in mistyped.stderr
    assert "Did you mean: scan?" in mistyped.stderr
    waiting = anybody.pipes("cat", "@last", "scan", "--json")
    assert (waiting.returncode, json.loads(waiting.stdout)["error"]) == (ExitCode.NOT_ENDED, "TaskPending")


def test_an_operator_drains_a_consumer_and_lets_it_work_again(server: Server, tmp_path: Path) -> None:
    carol = User(tmp_path / "home", INFERENCE_SERVER_URL=server.url, INFERENCE_SERVER_KEY=server.operator_key)
    with server.api.consumer() as consumer:
        consumer.register(ConsumerRegistration(consumer="gpu-host-1", accepts_cpu_tasks=False))
    drained = carol.pipes("drain", "gpu-host-1")
    assert (drained.returncode, drained.stderr) == (0, "")
    assert drained.stdout == (
        "gpu-host-1 is draining: it has nothing left, so its host may go down; "
        "it takes nothing new until `infer resume gpu-host-1`\n"
    )
    assert re.search(r"^gpu-host-1 .* draining .*nothing left", carol.pipes("consumers").stdout, re.MULTILINE)
    mistyped = carol.pipes("resume", "gpu-host1")
    assert (mistyped.returncode, mistyped.stdout) == (ExitCode.NOT_FOUND, "")
    assert "'gpu-host1'" in mistyped.stderr
    assert "Did you mean: gpu-host-1?" in mistyped.stderr
    assert json.loads(carol.pipes("resume", "gpu-host-1", "--json").stdout)["draining_at"] is None
    refused = carol.pipes("drain", "gpu-host-1", INFERENCE_SERVER_KEY=server.key)
    assert (refused.returncode, "scope operate" in refused.stderr) == (ExitCode.REFUSED, True)


def test_the_warnings_of_a_task_are_shown_with_its_output_and_its_status(anybody: User, server: Server) -> None:
    uid = anybody.submits("echo")
    told = [f"'{number}.lnk' leads out of /output and was left out" for number in range(12)]
    with server.api.consumer() as consumer:
        held = consumer.claim(ClaimRequest(consumer="warner", uid=uid))
        assert held is not None
        stored = consumer.upload_output(uid, held.fence, [make_zip({"a.txt": b"a"})])
        commit = Commit(consumer="warner", **stored.model_dump(), warnings=told, warning_count=120)
        consumer.commit(uid, held.fence, commit)
    shown = [*(f"warning: {text}" for text in told[:10]), f"and 110 more: infer status {uid} --json"]
    beginnings = ("warning: ", "and ")
    for command in (("status", uid), ("wait", uid), ("fetch", uid, "-o", str(anybody.home / "out.zip"))):
        ended = anybody.pipes(*command)
        lines = [line for line in ended.stderr.splitlines() if line.startswith(beginnings)]
        assert (ended.returncode, lines) == (0, shown), command
    assert "warnings   120" in anybody.pipes("status", uid).stdout
    whole = anybody.pipes("status", uid, "--json")
    assert (json.loads(whole.stdout)["warnings"], whole.stderr) == (told, "")
