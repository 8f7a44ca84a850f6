"""One body of expectations for every engine: what the consumer may rely on whatever runs its models."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import pytest

from job_consumer.engines import RunKey, RunState, RunVanished
from tests.engine_client import engine_client
from tests.integration.engine_harness import END_S, MIB, Harness, docker_harness, process_harness
from tests.integration.filtered_engine import run_filter
from tests.services import require_docker
from tests.waiting import repeat_until_told, wait_until

UNKNOWN = RunKey("0" * 64, 1)
ROOT = {"isolation": "compatible", "user": "0:0"}
"""What makes a container's root writable."""


@pytest.fixture(params=["docker", "docker behind its filter", "process"])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    """Each engine in turn."""
    if request.param == "process":
        with process_harness(tmp_path / "work") as made:
            yield made
        return
    require_docker()
    with ExitStack() as stack:
        client = stack.enter_context(closing(engine_client()))
        is_filtered = request.param == "docker behind its filter"
        base_url = stack.enter_context(run_filter(tmp_path / "work")) if is_filtered else None
        yield stack.enter_context(docker_harness(tmp_path / "work", client, base_url=base_url))


def test_an_engine_says_who_it_is(harness: Harness) -> None:
    assert harness.engine.check()


def test_an_engine_names_the_machine_that_runs_are_on(harness: Harness) -> None:
    with closing(engine_client()) as client:
        assert harness.engine.host_name() in (client.info()["Name"], socket.gethostname())


def test_a_run_turns_its_input_into_its_output(harness: Harness) -> None:
    harness.engine.ensure_image(harness.spec("true").image, "missing")
    key, ended = harness.run('cat "$INPUT_DIR/scan.txt" "$MODEL_DIR/weights.txt" > "$OUTPUT_DIR/result.txt"')
    assert (ended.exit_code, ended.out_of_memory) == (0, False)
    assert harness.output(key, "result.txt").read_text() == "42\nweights\n"


def test_what_a_run_writes_beside_its_mounts_is_counted(harness: Harness) -> None:
    key, _ = harness.run('head -c 3145728 /dev/urandom > "${TMPDIR:-}/a"; head -c 9 /dev/zero', **ROOT)
    assert 3 * MIB <= harness.engine.written_bytes(key) < 4 * MIB
    with pytest.raises(RunVanished):
        harness.engine.written_bytes(UNKNOWN)


@pytest.mark.parametrize("code", [0, 1, 42, 137])
def test_an_exit_code_is_reported(harness: Harness, code: int) -> None:
    _, ended = harness.run(f"exit {code}")
    assert (ended.exit_code, ended.out_of_memory) == (code, False)


def test_the_log_holds_both_streams_from_the_beginning(harness: Harness) -> None:
    key, _ = harness.run("echo out; echo err >&2; printf 'no newline'")
    assert sorted(harness.log_of(key).splitlines()) == ["err", "no newline", "out"]


def test_a_last_line_without_an_end_is_never_lost(harness: Harness) -> None:
    # Engines up to 20.10 lose it in some of the runs.
    for number in range(12):
        key = harness.start(f"sleep 0.1; printf 'the last words {number}'")
        assert harness.log_of(key) == f"the last words {number}"


def test_the_log_of_a_running_run_is_seen_while_it_runs_and_ends_with_it(harness: Harness) -> None:
    key = harness.start('echo started; until [ -e "$OUTPUT_DIR/go" ]; do sleep 0.05; done; echo ended')
    log = harness.engine.follow_log(key, Event())
    assert next(log) == b"started\n"
    harness.output(key, "go").touch()
    assert b"".join(log) == b"ended\n"


def test_a_run_says_in_its_file_how_far_it_is(harness: Harness) -> None:
    wait = 'until [ -e "$OUTPUT_DIR/go" ]; do sleep 0.05; done'
    key = harness.start(f'echo 0.1 > "$PROGRESS_FILE"; {wait}; echo 0.42 fold 2 >> "$PROGRESS_FILE"')
    wait_until(lambda: harness.progress_of(key) == 0.1, "how far it is")
    harness.output(key, "go").touch()
    harness.end_of(key)
    assert harness.progress_of(key) == 0.42


def test_what_a_run_writes_is_followed_at_once_and_not_only_in_whole_lines(harness: Harness) -> None:
    move = "printf '\\r %d%%' $i; i=$((i+1)); sleep 0.05"
    key = harness.start(f'i=0; until [ -e "$OUTPUT_DIR/go" ]; do {move}; done; echo; echo ended')
    output = harness.engine.follow_output(key, Event())
    seen = b""
    while b"%\r" not in seen:
        seen += next(output)
    assert b"\n" not in seen
    harness.output(key, "go").touch()
    assert b"".join(output).endswith(b"\nended\n")
    stop = Event()
    stop.set()
    assert list(harness.engine.follow_output(key, stop)) == []


def test_following_the_log_of_a_silent_run_ends_on_request(harness: Harness) -> None:
    key, stop = harness.start("sleep 300"), Event()
    chunks: list[bytes] = []
    follower = Thread(target=lambda: chunks.extend(harness.engine.follow_log(key, stop)))
    follower.start()
    assert harness.engine.wait(key, 0.3) is None
    stop.set()
    follower.join(END_S)
    assert not follower.is_alive()
    assert chunks == []


def test_a_flood_of_log_is_bounded_and_does_not_block_the_run(harness: Harness) -> None:
    key, ended = harness.run("yes 0123456789012345678901234567890123456789 | head -c 20000000", log_limit_bytes=MIB)
    assert ended.exit_code == 0
    assert len(harness.log_of(key)) < 2 * MIB


def test_waiting_for_a_run_that_goes_on_returns_none_and_then_its_end(harness: Harness) -> None:
    key = harness.start('until [ -e "$OUTPUT_DIR/go" ]; do sleep 0.05; done; exit 3')
    assert harness.engine.wait(key, 0) is None
    assert harness.engine.wait(key, 0.2) is None
    harness.output(key, "go").touch()
    assert harness.end_of(key).exit_code == 3
    assert harness.end_of(key).exit_code == 3


def test_stopping_asks_first(harness: Harness) -> None:
    key = harness.start('trap "echo bye; exit 7" TERM; echo up > "$OUTPUT_DIR/up"; while true; do sleep 0.05; done')
    harness.wait_for_output(key, "up")
    harness.engine.stop(key, 30)
    assert harness.end_of(key).exit_code == 7
    assert "bye" in harness.log_of(key)


def test_a_run_that_ignores_the_request_is_killed_after_the_grace(harness: Harness) -> None:
    key = harness.start('trap "" TERM; echo up > "$OUTPUT_DIR/up"; while true; do sleep 0.05; done')
    harness.wait_for_output(key, "up")
    harness.engine.stop(key, 1)
    assert harness.end_of(key).exit_code == 137


def test_stopping_a_run_that_ended_changes_nothing(harness: Harness) -> None:
    key, _ = harness.run("exit 5")
    harness.engine.stop(key, 1)
    assert harness.end_of(key).exit_code == 5


def test_a_run_that_needs_more_than_its_memory_is_out_of_memory(harness: Harness) -> None:
    _, ended = repeat_until_told(
        lambda: harness.run("tail /dev/zero", memory_limit_bytes=32 * MIB), lambda run: run[1].out_of_memory
    )
    assert ended.out_of_memory
    assert ended.exit_code == 137


def test_starting_twice_makes_one_run(harness: Harness) -> None:
    spec = harness.spec('echo once >> "$OUTPUT_DIR/starts"; until [ -e "$OUTPUT_DIR/go" ]; do sleep 0.05; done')
    starters = [Thread(target=harness.engine.start, args=(spec,)) for _ in range(4)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join(END_S)
    harness.wait_for_output(spec.key, "starts")
    assert harness.engine.find(harness.consumer) == [(spec.key, RunState.RUNNING)]
    harness.output(spec.key, "go").touch()
    harness.end_of(spec.key)
    harness.engine.start(spec)
    assert harness.end_of(spec.key).exit_code == 0
    assert harness.output(spec.key, "starts").read_text() == "once\n"


def test_another_engine_object_adopts_a_run(harness: Harness) -> None:
    key = harness.start('echo hello; until [ -e "$OUTPUT_DIR/go" ]; do sleep 0.05; done; exit 9')
    with closing(harness.open_engine()) as other:
        assert other.find(harness.consumer) == [(key, RunState.RUNNING)]
        assert other.find("somebody-else") == []
        harness.output(key, "go").touch()
        state = other.wait(key, END_S)
        assert state is not None
        assert state.exit_code == 9
        assert b"".join(other.follow_log(key, Event())) == b"hello\n"
        assert other.find(harness.consumer) == [(key, RunState.EXITED)]


def test_removing_ends_a_run_and_may_be_repeated(harness: Harness) -> None:
    key = harness.start('echo up > "$OUTPUT_DIR/up"; sleep 300')
    harness.wait_for_output(key, "up")
    for _ in range(2):
        harness.engine.remove(key)
        assert harness.engine.find(harness.consumer) == []
    assert harness.output(key, "up").exists()


def test_an_unknown_run_has_vanished_and_needs_no_ending(harness: Harness) -> None:
    with pytest.raises(RunVanished):
        harness.engine.wait(UNKNOWN, 1)
    with pytest.raises(RunVanished):
        next(harness.engine.follow_log(UNKNOWN, Event()))
    with pytest.raises(RunVanished):
        next(harness.engine.follow_output(UNKNOWN, Event()))
    harness.engine.stop(UNKNOWN, 1)
    harness.engine.remove(UNKNOWN)


def test_a_waiter_does_not_outlast_a_run_that_somebody_else_removes(harness: Harness) -> None:
    key = harness.start("sleep 300")

    def wait() -> None:
        with suppress(RunVanished):
            harness.engine.wait(key, 2 * END_S)

    waiter = Thread(target=wait)
    waiter.start()
    assert harness.engine.wait(key, 0.3) is None
    harness.engine.remove(key)
    waiter.join(END_S)
    assert not waiter.is_alive()


def test_input_and_model_cannot_be_written(harness: Harness) -> None:
    if harness.kind == "process" and not namespaces_allowed():
        pytest.skip("this machine allows no namespaces")
    key, _ = harness.run('touch "$INPUT_DIR/x" "$MODEL_DIR/x"; ls /input /model > "$OUTPUT_DIR/seen"')
    assert harness.output(key, "seen").read_text().split() == [
        "/input:",
        "scan.txt",
        "/model:",
        "run.sh",
        "weights.txt",
    ]
    assert harness.log_of(key).count("Read-only file system") == 2


def test_a_run_sees_the_gpu_it_was_given_and_no_other(harness: Harness) -> None:
    script = 'echo "$NVIDIA_VISIBLE_DEVICES"'
    assert harness.log_of(harness.run(script, gpu_uuid="GPU-1234")[0]) == "GPU-1234\n"
    assert harness.log_of(harness.run(script)[0]) == "void\n"


def test_the_environment_is_the_given_one(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_CONSUMER", "canary")
    spec = harness.spec("env")
    spec = replace(spec, environment={**spec.environment, "TASK_UID": spec.key.uid})
    harness.engine.start(spec)
    log = harness.log_of(spec.key)
    assert f"TASK_UID={spec.key.uid}" in log
    assert "canary" not in log


def namespaces_allowed() -> bool:
    """Whether a process may enter a mount namespace here."""
    return os.geteuid() == 0 or Path("/proc/sys/user/max_user_namespaces").read_text().strip() != "0"
