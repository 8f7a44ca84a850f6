"""What only the process engine promises: which programs run, and that nothing of a run outlives it."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import pytest

from contract.schemas import PullPolicy
from job_consumer.engines import (
    ContainerSpec,
    ExitState,
    ImageNotFound,
    Interruption,
    Mount,
    RunKey,
    RunState,
    RunVanished,
)
from job_consumer.engines.process.run import RUN_VARIABLE, RunFolder
from job_consumer.engines.process.tree import find_by_environment
from tests.integration.engine_harness import MIB, Harness, machine_walls, process_harness
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")


@pytest.fixture(params=["all walls", "no namespaces"])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    """As on a machine that allows what this one does, and as on one that allows no namespaces."""
    walls = machine_walls()
    with process_harness(
        tmp_path / "work", replace(walls, namespace=walls.namespace and "all" in request.param)
    ) as made:
        yield made


def model_of(spec: ContainerSpec) -> Path:
    return next(mount.folder for mount in spec.mounts if mount.kept)


def supervisor_of(harness: Harness, spec: ContainerSpec) -> int:
    pid = RunFolder(harness.work.root / "runs" / spec.key.name).pid()
    assert pid is not None
    return pid


def processes_of(key: RunKey) -> list[int]:
    """As the machine numbers them, which the run itself cannot know."""
    return find_by_environment(RUN_VARIABLE, key.name)


def has_ended(pid: int) -> bool:
    """Gone, or waiting for its parent to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_python_program_runs_in_this_python(harness: Harness) -> None:
    spec = harness.spec("python")
    (model_of(spec) / "bin").mkdir()
    (model_of(spec) / "bin" / "run.py").write_text("import sys; print(sys.version_info[:2] >= (3, 11), __file__)")
    harness.engine.start(replace(spec, image="process:bin/run.py"))
    assert harness.log_of(spec.key).startswith("True /")


def test_a_script_without_its_executable_bit_runs_by_its_first_line(harness: Harness) -> None:
    spec = harness.spec("echo ran")
    (model_of(spec) / "run.sh").chmod(0o644)
    harness.engine.start(spec)
    assert harness.log_of(spec.key) == "ran\n"


@pytest.mark.parametrize(
    ("image", "text"),
    [
        ("process:absent", "has no file absent"),
        ("process:", "has no file"),
        ("process:/bin/sh", "leads out"),
        ("process:../../../etc/passwd", "leads out"),
        ("process:link", "leads out"),
        ("process:weights.txt", "neither executable"),
        ("busybox:1.37", "without --engine process"),
    ],
)
def test_what_is_no_program_of_the_model_is_not_found(harness: Harness, image: str, text: str) -> None:
    spec = harness.spec("true")
    (model_of(spec) / "link").symlink_to("/bin/sh")
    with pytest.raises(ImageNotFound, match=text):
        harness.engine.start(replace(spec, image=image))


def test_a_lookup_knows_programs_from_images(harness: Harness) -> None:
    assert harness.engine.look_up_image("process:run.sh", PullPolicy.MISSING)[0] is True
    with pytest.raises(ImageNotFound, match="without --engine process"):
        harness.engine.look_up_image("busybox:1.37", PullPolicy.MISSING)


def test_a_model_without_a_zip_has_no_program(harness: Harness) -> None:
    spec = harness.spec("true")
    with pytest.raises(ImageNotFound, match="the model has none"):
        harness.engine.start(replace(spec, mounts=tuple(mount for mount in spec.mounts if not mount.kept)))


def test_a_program_that_cannot_be_executed_ends_with_127_and_says_why(harness: Harness) -> None:
    spec = harness.spec("true")
    program = model_of(spec) / "broken"
    program.write_bytes(b"\x00\x01 no program")
    program.chmod(0o755)
    harness.engine.start(replace(spec, image="process:broken"))
    assert harness.end_of(spec.key) == ExitState(127, out_of_memory=False)
    assert "cannot be executed" in harness.log_of(spec.key)


def test_a_log_beyond_its_limit_says_once_that_it_is_cut(harness: Harness) -> None:
    key, _ = harness.run("yes 0123456789 | head -c 5000000", log_limit_bytes=MIB)
    log = harness.log_of(key)
    assert log[MIB:] == f"\n[the log is cut: it reached its limit of {MIB} bytes]\n"


def test_processes_that_fled_the_run_end_with_it(harness: Harness) -> None:
    flee = "setsid sh -c 'echo $$ > \"$OUTPUT_DIR/pid\"; exec sleep 300' &"
    script = f'{flee} until [ -s "$OUTPUT_DIR/pid" ]; do :; done; exit 6'
    key, ended = harness.run(script)
    assert ended.exit_code == 6
    assert processes_of(key) == []


def test_a_run_whose_supervisor_was_killed_counts_as_killed_and_leaves_nothing(harness: Harness) -> None:
    spec = harness.spec('setsid sleep 300 & echo $! $$ > "$OUTPUT_DIR/pids"; wait')
    harness.engine.start(spec)
    harness.wait_for_output(spec.key, "pids")
    pids = processes_of(spec.key)
    assert len(pids) > 1
    os.kill(supervisor_of(harness, spec), signal.SIGKILL)
    assert harness.end_of(spec.key) == ExitState(137, out_of_memory=False, interruption=Interruption.OUTSIDE)
    assert harness.end_of(spec.key).interruption is Interruption.OUTSIDE
    assert harness.engine.find(harness.consumer) == [(spec.key, RunState.EXITED)]
    wait_until(lambda: all(map(has_ended, pids)))


def test_what_ended_with_an_earlier_boot_of_the_machine_was_ended_by_it(harness: Harness) -> None:
    spec = harness.spec('echo up > "$OUTPUT_DIR/up"; sleep 300')
    harness.engine.start(spec)
    harness.wait_for_output(spec.key, "up")
    os.kill(supervisor_of(harness, spec), signal.SIGKILL)
    (harness.work.root / "runs" / spec.key.name / "boot").write_text("another boot")
    assert harness.end_of(spec.key).interruption is Interruption.ENGINE


def test_removing_a_run_with_a_dead_supervisor_leaves_nothing(harness: Harness) -> None:
    spec = harness.spec('setsid sleep 300 & echo $! > "$OUTPUT_DIR/pid"; wait')
    harness.engine.start(spec)
    harness.wait_for_output(spec.key, "pid")
    pids = processes_of(spec.key)
    assert len(pids) > 1
    os.kill(supervisor_of(harness, spec), signal.SIGKILL)
    harness.engine.remove(spec.key)
    wait_until(lambda: all(map(has_ended, pids)))


def test_a_run_whose_consumer_died_before_the_start_is_found_and_started(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = harness.spec("exit 4")

    class Died(Exception):
        pass

    def die(*_: object) -> None:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr("job_consumer.engines.process.engine._spawn_supervisor", die)
        with pytest.raises(Died):
            harness.engine.start(spec)
    assert harness.engine.find(harness.consumer) == [(spec.key, RunState.CREATED)]
    assert harness.engine.wait(spec.key, 0.1) is None
    harness.engine.start(spec)
    assert harness.end_of(spec.key).exit_code == 4


def test_too_many_processes_end_the_run(harness: Harness) -> None:
    key, ended = harness.run("for i in $(seq 40); do sleep 30 & done; wait", pids_limit=16)
    assert ended == ExitState(137, out_of_memory=False)
    assert "more than 16 processes" in harness.log_of(key)


def test_a_parent_and_its_forks_count_the_memory_they_share_once(harness: Harness) -> None:
    spec = harness.spec("shared", memory_limit_bytes=150 * MIB)
    (model_of(spec) / "run.py").write_text(
        "import os, time\nheld = os.urandom(2**20) * 80\n"
        "children = [os.fork() for _ in range(1)]\ntime.sleep(0.5)\n"
        "children[0] and os.wait()\n"
    )
    harness.engine.start(replace(spec, image="process:run.py"))
    assert harness.end_of(spec.key) == ExitState(0, out_of_memory=False)


def test_where_namespaces_are_refused_the_variables_name_the_real_folders(tmp_path: Path) -> None:
    script = 'cat "$INPUT_DIR/scan.txt" > "$OUTPUT_DIR/copy.txt"; echo "$INPUT_DIR $PWD"; echo 0.42 > "$PROGRESS_FILE"'
    with process_harness(tmp_path / "work", replace(machine_walls(), namespace=False)) as harness:
        spec = harness.spec(script)
        harness.engine.start(spec)
        assert harness.end_of(spec.key).exit_code == 0, harness.log_of(spec.key)
        assert harness.output(spec.key, "copy.txt").read_text() == "42\n"
        assert harness.log_of(spec.key) == f"{harness.work.workspace(spec.key).input_dir} {model_of(spec)}\n"
        assert harness.progress_of(spec.key) == 0.42


@pytest.mark.skipif(not machine_walls().namespace, reason="this machine allows no user namespaces")
@pytest.mark.parametrize("harness", ["all walls"], indirect=True)
def test_a_run_that_cannot_be_confined_does_not_start_and_is_not_to_blame(harness: Harness) -> None:
    spec = harness.spec('echo ran > "$OUTPUT_DIR/ran"')
    lost = Mount("lost", harness.work.root / "lost", "/lost", read_only=True)
    harness.engine.start(replace(spec, mounts=(*spec.mounts, lost)))
    assert harness.end_of(spec.key).interruption is Interruption.OUTSIDE
    assert "the program was not started: mount of a folder" in harness.log_of(spec.key)
    assert not harness.output(spec.key, "ran").exists()


def test_whoever_looks_at_a_run_that_is_removed_finds_it_whole_or_not_at_all(harness: Harness) -> None:
    seen: list[ExitState | RunState | None] = []
    done = Event()

    def look(key: RunKey) -> None:
        while not done.is_set():
            with suppress(RunVanished):
                seen.append(harness.engine.wait(key, 0))
            seen.extend(state for found, state in harness.engine.find(harness.consumer) if found == key)

    for number in range(20):
        key, ended = harness.run(f"echo {number}")
        assert ended == ExitState(0, out_of_memory=False)
        seen.clear()
        done.clear()
        looking = [Thread(target=look, args=(key,)) for _ in range(3)]
        for each in looking:
            each.start()
        try:
            wait_until(lambda: seen, "nobody looks")
            harness.engine.remove(key)
        finally:
            done.set()
            for each in looking:
                each.join()
        assert set(seen) <= {ended, RunState.EXITED}
        assert list((harness.work.root / "runs").iterdir()) == []


def test_what_a_killed_consumer_left_of_a_removed_run_is_removed_at_the_next_start(tmp_path: Path) -> None:
    left = tmp_path / "work" / "runs" / "discarded-0123abcd" / "tmp"
    left.mkdir(parents=True)
    (left / "file").touch()
    with process_harness(tmp_path / "work"):
        assert not left.parent.exists()
