"""One body of expectations for every engine: what the consumer may rely on whatever runs its models."""

import os
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import docker
import pytest

from job_consumer.engine import RunKey, RunState, RunVanished
from tests.integration.engine_bench import END_S, MIB, Bench, docker_bench, process_bench, until
from tests.services import require_docker

UNKNOWN = RunKey("0" * 64, 1)


@pytest.fixture(params=["docker", "process"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """Each engine in turn."""
    if request.param == "process":
        with process_bench(tmp_path / "work") as made:
            yield made
        return
    require_docker()
    with closing(docker.APIClient(version="auto")) as client, docker_bench(tmp_path / "work", client) as made:
        yield made


def test_an_engine_says_who_it_is(bench: Bench) -> None:
    assert bench.engine.check()


def test_a_run_turns_its_input_into_its_output(bench: Bench) -> None:
    bench.engine.ensure_image(bench.spec("true").image, "missing")
    key, ended = bench.run('cat "$INPUT_DIR/scan.txt" "$MODEL_DIR/weights.txt" > "$OUTPUT_DIR/result.txt"')
    assert (ended.exit_code, ended.out_of_memory) == (0, False)
    assert bench.output(key, "result.txt").read_text() == "42\nweights\n"


@pytest.mark.parametrize("code", [0, 1, 42, 137])
def test_an_exit_code_is_reported(bench: Bench, code: int) -> None:
    _, ended = bench.run(f"exit {code}")
    assert (ended.exit_code, ended.out_of_memory) == (code, False)


def test_the_log_holds_both_streams_from_the_beginning(bench: Bench) -> None:
    key, _ = bench.run("echo out; echo err >&2; printf 'no newline'")
    assert sorted(bench.log_of(key).splitlines()) == ["err", "no newline", "out"]


def test_the_log_of_a_running_run_is_seen_while_it_runs_and_ends_with_it(bench: Bench) -> None:
    key = bench.start('echo started; until [ -e "$OUTPUT_DIR/go" ]; do sleep 0.05; done; echo ended')
    log = bench.engine.follow_log(key, Event())
    assert next(log) == b"started\n"
    bench.output(key, "go").touch()
    assert b"".join(log) == b"ended\n"


def test_following_the_log_of_a_silent_run_ends_on_request(bench: Bench) -> None:
    key, stop = bench.start("sleep 300"), Event()
    chunks: list[bytes] = []
    follower = Thread(target=lambda: chunks.extend(bench.engine.follow_log(key, stop)))
    follower.start()
    assert bench.engine.wait(key, 0.3) is None
    stop.set()
    follower.join(END_S)
    assert not follower.is_alive()
    assert chunks == []


def test_a_flood_of_log_is_bounded_and_does_not_block_the_run(bench: Bench) -> None:
    key, ended = bench.run("yes 0123456789012345678901234567890123456789 | head -c 20000000", log_limit_bytes=MIB)
    assert ended.exit_code == 0
    assert len(bench.log_of(key)) < 2 * MIB


def test_the_tail_of_a_log_is_its_last_bytes_while_the_run_lasts_and_after(bench: Bench) -> None:
    key = bench.start('seq 1 5000; echo up > "$OUTPUT_DIR/up"; until [ -e "$OUTPUT_DIR/go" ]; do sleep 0.05; done')
    bench.wait_for_output(key, "up")
    until(lambda: bench.engine.log_tail(key, 10) == b"4999\n5000\n")
    bench.output(key, "go").touch()
    bench.end_of(key)
    assert bench.engine.log_tail(key, 10) == b"4999\n5000\n"


def test_waiting_for_a_run_that_goes_on_returns_none_and_then_its_end(bench: Bench) -> None:
    key = bench.start('until [ -e "$OUTPUT_DIR/go" ]; do sleep 0.05; done; exit 3')
    assert bench.engine.wait(key, 0) is None
    assert bench.engine.wait(key, 0.2) is None
    bench.output(key, "go").touch()
    assert bench.end_of(key).exit_code == 3
    assert bench.end_of(key).exit_code == 3


def test_stopping_asks_first(bench: Bench) -> None:
    key = bench.start('trap "echo bye; exit 7" TERM; echo up > "$OUTPUT_DIR/up"; while true; do sleep 0.05; done')
    bench.wait_for_output(key, "up")
    bench.engine.stop(key, 30)
    assert bench.end_of(key).exit_code == 7
    assert "bye" in bench.log_of(key)


def test_a_run_that_ignores_the_request_is_killed_after_the_grace(bench: Bench) -> None:
    key = bench.start('trap "" TERM; echo up > "$OUTPUT_DIR/up"; while true; do sleep 0.05; done')
    bench.wait_for_output(key, "up")
    bench.engine.stop(key, 1)
    assert bench.end_of(key).exit_code == 137


def test_stopping_a_run_that_ended_changes_nothing(bench: Bench) -> None:
    key, _ = bench.run("exit 5")
    bench.engine.stop(key, 1)
    assert bench.end_of(key).exit_code == 5


def test_a_run_that_needs_more_than_its_memory_is_out_of_memory(bench: Bench) -> None:
    _, ended = bench.run("tail /dev/zero", memory_limit_bytes=32 * MIB)
    assert ended.out_of_memory
    assert ended.exit_code == 137


def test_starting_twice_makes_one_run(bench: Bench) -> None:
    spec = bench.spec('echo once >> "$OUTPUT_DIR/starts"; until [ -e "$OUTPUT_DIR/go" ]; do sleep 0.05; done')
    starters = [Thread(target=bench.engine.start, args=(spec,)) for _ in range(4)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join(END_S)
    bench.wait_for_output(spec.key, "starts")
    assert bench.engine.find(bench.consumer) == [(spec.key, RunState.RUNNING)]
    bench.output(spec.key, "go").touch()
    bench.end_of(spec.key)
    bench.engine.start(spec)
    assert bench.end_of(spec.key).exit_code == 0
    assert bench.output(spec.key, "starts").read_text() == "once\n"


def test_another_engine_object_adopts_a_run(bench: Bench) -> None:
    key = bench.start('echo hello; until [ -e "$OUTPUT_DIR/go" ]; do sleep 0.05; done; exit 9')
    with closing(bench.open_engine()) as other:
        assert other.find(bench.consumer) == [(key, RunState.RUNNING)]
        assert other.find("somebody-else") == []
        bench.output(key, "go").touch()
        state = other.wait(key, END_S)
        assert state is not None
        assert state.exit_code == 9
        assert b"".join(other.follow_log(key, Event())) == b"hello\n"
        assert other.find(bench.consumer) == [(key, RunState.EXITED)]


def test_a_run_without_a_network_has_no_address(bench: Bench) -> None:
    assert bench.engine.find_network("is-test-nowhere") is None
    assert bench.engine.address(bench.start("sleep 300"), 9000) is None


def test_removing_ends_a_run_and_may_be_repeated(bench: Bench) -> None:
    key = bench.start('echo up > "$OUTPUT_DIR/up"; sleep 300')
    bench.wait_for_output(key, "up")
    for _ in range(2):
        bench.engine.remove(key)
        assert bench.engine.find(bench.consumer) == []
    assert bench.output(key, "up").exists()


def test_an_unknown_run_has_vanished_and_needs_no_ending(bench: Bench) -> None:
    with pytest.raises(RunVanished):
        bench.engine.wait(UNKNOWN, 1)
    with pytest.raises(RunVanished):
        next(bench.engine.follow_log(UNKNOWN, Event()))
    with pytest.raises(RunVanished):
        bench.engine.log_tail(UNKNOWN, 10)
    with pytest.raises(RunVanished):
        bench.engine.address(UNKNOWN, 9000)
    bench.engine.stop(UNKNOWN, 1)
    bench.engine.remove(UNKNOWN)


def test_a_waiter_does_not_outlast_a_run_that_somebody_else_removes(bench: Bench) -> None:
    key = bench.start("sleep 300")

    def wait() -> None:
        with suppress(RunVanished):
            bench.engine.wait(key, 2 * END_S)

    waiter = Thread(target=wait)
    waiter.start()
    assert bench.engine.wait(key, 0.3) is None
    bench.engine.remove(key)
    waiter.join(END_S)
    assert not waiter.is_alive()


def test_input_and_model_cannot_be_written(bench: Bench) -> None:
    if bench.kind == "process" and not namespaces_allowed():
        pytest.skip("this machine allows no namespaces")
    key, _ = bench.run('touch "$INPUT_DIR/x" "$MODEL_DIR/x"; ls /input /model > "$OUTPUT_DIR/seen"')
    assert bench.output(key, "seen").read_text().split() == ["/input:", "scan.txt", "/model:", "run.sh", "weights.txt"]
    assert bench.log_of(key).count("Read-only file system") == 2


def test_a_run_sees_the_gpu_it_was_given_and_no_other(bench: Bench) -> None:
    script = 'echo "$NVIDIA_VISIBLE_DEVICES"'
    assert bench.log_of(bench.run(script, gpu_uuid="GPU-1234")[0]) == "GPU-1234\n"
    assert bench.log_of(bench.run(script)[0]) == "void\n"


def test_the_environment_is_the_given_one(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_CONSUMER", "canary")
    spec = bench.spec("env")
    spec = replace(spec, environment={**spec.environment, "TASK_UID": spec.key.uid})
    bench.engine.start(spec)
    log = bench.log_of(spec.key)
    assert f"TASK_UID={spec.key.uid}" in log
    assert "canary" not in log


def namespaces_allowed() -> bool:
    """Whether a process may enter a mount namespace here."""
    return os.geteuid() == 0 or Path("/proc/sys/user/max_user_namespaces").read_text().strip() != "0"
