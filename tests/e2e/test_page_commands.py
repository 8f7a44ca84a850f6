"""What pages say to paste, pasted in their order, in a checkout beside a standalone server."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.commands import run_command
from tests.doc_pages import Section, section, sections
from tests.e2e.checkout import copy_checkout, paste, run_in
from tests.e2e.systems import System, standalone_system
from tests.services import require_docker

LOCAL = "http://127.0.0.1:8000"
# A curl that notices what a reader would see.
STRICT_CURL = 'curl() { command curl --fail-with-body "$@"; echo; }'
ECHO = ("docker build -t inference-server/echo:1 examples/echo", "infer models add inference-server/echo:1 echo")


SEGMENT = (
    "docker build -t inference-server/segment:1 examples/segment",
    "infer models add inference-server/segment:1 segment",
)

SERVED = (
    "docker build -t inference-server/kserve-model:1 -f examples/grpc/kserve_model/Dockerfile examples/grpc",
    "infer models add inference-server/kserve-model:1 segment",
)
CALLED = (
    "docker build -t inference-server/user-service:1 -f examples/grpc/user_service/Dockerfile examples/grpc",
    "infer models add inference-server/user-service:1 greeter",
    "infer deploy greeter --port 9000 --min 1 --wait",
    """echo '{"name": "foo", "num": 30}' | tee request.json > requests.jsonl""",
)
OWN_NAME = "name=$(infer consumers --json | python -c 'import json, sys; print(json.load(sys.stdin)[0][\"name\"])')"
CASES = "mkdir cases && python examples/segment/make_volume.py cases/one.nii.gz"


@dataclass(frozen=True)
class Walk:
    """Sections of one page, in one shell."""

    page: str
    titles: tuple[str, ...] = ()
    """Empty: all that no other test runs."""
    before: tuple[str, ...] = ()
    """What the reader has by then."""
    but: tuple[str, ...] = ()
    """Sections that are run elsewhere, where all are taken."""
    instead: Mapping[str, str] = field(default_factory=dict)
    """What a reader puts in place of the page's own names."""

    def sections(self) -> list[Section]:
        """Those with commands."""
        every = [each for each in sections(self.page) if each.commands and each.title not in self.but]
        return [each for each in every if not self.titles or each.title in self.titles]


ZIPS = (
    "python examples/zip_folder.py examples/echo input.zip",
    "python examples/zip_folder.py examples/wordcount weights.zip",
)
WALKS = [
    Walk("docs/how-to/without-a-client.md", ("With curl",), before=ECHO),
    Walk(
        "docs/http-api.md",
        but=("Generated clients",),
        before=(ECHO[0], *ZIPS, STRICT_CURL, OWN_NAME),
        # A download that was cut, for the call that resumes one.
        instead={'curl -sSI "$SERVER': 'truncate -s 100 output.zip; curl -sSI "$SERVER', "gpu-host-1": "$name"},
    ),
    Walk("docs/client.md", ("What `submit` sends", "`list`", "`models add`"), before=(*ECHO, "rm -rf result")),
    Walk("docs/client.md", ("Batches",), before=(*SEGMENT, CASES)),
    Walk("docs/client.md", ("`init`, `check`, `build`",)),
    Walk("docs/how-to/monitor.md", ("Is it up?", "Does work move?"), before=(f"SERVER={LOCAL}", STRICT_CURL)),
    Walk(
        "docs/writing-a-model.md",
        ("The model's zip",),
        before=ECHO[:1],
        instead={"WEIGHTS": "examples/wordcount", "IMAGE ID": "inference-server/echo:1 weighted"},
    ),
    Walk(
        "docs/writing-a-model.md",
        ("Limits",),
        before=ECHO[:1],
        instead={"IMAGE ID": "inference-server/echo:1 limited"},
    ),
    Walk("docs/writing-a-model.md", ("Trying an image without the server",), before=ECHO[:1]),
    Walk(
        "docs/operations/gpu-hosts.md",
        ("Reboot a host",),
        before=(OWN_NAME,),
        instead={"gpu-host-1": '"$name"'},
    ),
    Walk("docs/client.md", ("`deploy`",), before=(*SERVED, "cp examples/grpc/kserve_model/serving.json .")),
    Walk("docs/client.md", ("`call`",), before=CALLED),
    Walk("docs/deployments.md", ("Deployments",), before=(*SERVED, f"SERVER={LOCAL}", STRICT_CURL)),
    Walk("docs/grpc/ray.md", ("A service", "One deployment calls another")),
    Walk("docs/grpc/tensorflow.md", ("TensorFlow Serving",)),
    Walk("examples/grpc/half_plus_two/README.md"),
    Walk("examples/grpc/image_classifier/README.md"),
    Walk("examples/grpc/kernel/README.md"),
    Walk("examples/grpc/kserve_model/README.md"),
    Walk("examples/grpc/ray_serve/README.md"),
    Walk("examples/grpc/tensorflow_model/README.md"),
    Walk("examples/grpc/triton/README.md"),
    Walk("examples/grpc/user_service/README.md"),
    Walk("runtimes/redhare/README.md", ("The redhare runtime",)),
    Walk("examples/README.md", ("echo",), instead={"some/files": "examples"}),
    Walk("examples/README.md", ("segment",)),
    Walk("examples/README.md", ("ocr",)),
    Walk(
        "docs/operations/tls.md",
        ("Self-signed, to begin with",),
        # Of the stack, which the week as the admin has.
        instead={"docker compose exec -T traefik cat /run/certificate/server.crt > server.crt": ":"},
    ),
    Walk("docs/how-to/many-cases.md", before=SEGMENT),
]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return copy_checkout(tmp_path / "inference-server")


def environment(system: System, folder: Path) -> dict[str, str]:
    """Of a reader who has an admin's key."""
    command = ("keys", "create", "--owner", "reader", "--scope", "admin", "--data-dir", str(system.data_dir))
    key = run_command("operations", *command, env=os.environ).stdout.strip()
    server = {"INFERENCE_SERVER_URL": system.url, "INFERENCE_SERVER_GRPC": f"http://127.0.0.1:{system.grpc_port}"}
    return {**server, "INFERENCE_SERVER_KEY": key, "KEY": key, "HOME": str(folder)}


def is_long(walk: Walk) -> bool:
    """Containers of examples are also those of tests/grpc and tests/e2e/test_examples.py, in `make test`."""
    return walk.page.startswith(("examples/", "docs/grpc/", "runtimes/")) or any(
        line.startswith("docker build") and "-f examples/grpc/" in line for line in walk.before
    )


WALKS_WITH_MARKS = [
    pytest.param(
        walk,
        marks=[pytest.mark.long] if is_long(walk) else [],
        id=f"{walk.page}: {', '.join(walk.titles) or 'all'}",
    )
    for walk in WALKS
]


@pytest.mark.parametrize("walk", WALKS_WITH_MARKS)
def test_the_commands_of_a_page_work(walk: Walk, tmp_path: Path, checkout: Path) -> None:
    require_docker()
    with standalone_system(tmp_path) as system:
        lines = "\n".join((*walk.before, *(each for part in walk.sections() for each in part.shell)))
        for shown, here in {LOCAL: system.url, **walk.instead}.items():
            lines = lines.replace(shown, here)
        paste(checkout, lines, **environment(system, tmp_path))


def test_the_readme_shows_a_first_result(tmp_path: Path, checkout: Path) -> None:
    require_docker()
    start, use = section("README.md", "The first result").shell
    *prepare, server = start.splitlines()
    assert server == "inference-server standalone"
    paste(checkout, *prepare)
    with standalone_system(tmp_path) as system:
        paste(checkout, use, INFERENCE_SERVER_URL=system.url, HOME=str(tmp_path))
    assert (checkout / "result.zip").is_file()


@pytest.mark.parametrize(
    ("page", "title"), [("docs/writing-a-model.md", "Without Docker"), ("examples/README.md", "wordcount")]
)
def test_a_program_runs_without_docker(page: str, title: str, tmp_path: Path, checkout: Path) -> None:
    server, *use = section(page, title).commands
    assert server == "inference-server standalone --engine process"
    with standalone_system(tmp_path, engine="process") as system:
        paste(checkout, *use, INFERENCE_SERVER_URL=system.url, HOME=str(tmp_path))


def test_a_standalone_server_is_backed_up_and_restored(tmp_path: Path, checkout: Path) -> None:
    with standalone_system(tmp_path, engine="process") as system:
        backup, restore, start = section("docs/operations/backup.md", "Standalone").commands
        assert "backup complete" in paste(checkout, backup.replace("--data-dir data", f"--data-dir {system.data_dir}"))
    assert "restored" in paste(checkout, restore)
    server, _, data_dir = start.rpartition(" ")
    assert (server, data_dir) == ("inference-server standalone --data-dir", "restored-data")
    (checkout / data_dir).rename(tmp_path / "again")
    (tmp_path / "second").mkdir()
    (tmp_path / "again").rename(tmp_path / "second" / "data")
    with standalone_system(tmp_path / "second", engine="process") as restored:
        restored.wait_ready()


def test_a_standalone_server_is_reached_by_its_address(tmp_path: Path, checkout: Path) -> None:
    start, use = section("docs/how-to/no-dns.md", "Standalone, by its address").commands
    options = start.removeprefix("inference-server standalone ").split()
    with standalone_system(tmp_path, engine="process", extra=options) as system:
        variables = environment(system, tmp_path)
        del variables["INFERENCE_SERVER_URL"]
        paste(checkout, use.replace("http://192.0.2.10:8000", system.url), **variables)


def test_the_monitoring_program_tells_a_server_that_is_well_from_one_that_is_not(
    tmp_path: Path, checkout: Path
) -> None:
    require_docker()
    (program,) = section("docs/how-to/monitor.md", "Does work move?").programs
    with standalone_system(tmp_path) as system:
        variables = environment(system, tmp_path)
        well = run_in(checkout, sys.executable, "-c", program, **variables)
        assert (well.returncode, well.stdout) == (0, "ok\n"), well
        paste(
            checkout,
            ECHO[0],
            "infer models add inference-server/echo:1 echo --gpu",
            "infer submit echo README.md",
            **variables,
        )
        waiting = run_in(checkout, sys.executable, "-c", program, **variables)
        assert waiting.returncode == 1, waiting
        assert "1 gpu tasks wait: " in waiting.stdout
    gone = run_in(checkout, sys.executable, "-c", program, **variables)
    assert gone.returncode == 1
    assert "cannot be reached" in gone.stdout, gone


def test_many_cases_run_from_python(tmp_path: Path, checkout: Path) -> None:
    require_docker()
    prepare, submit, _ = section("docs/how-to/many-cases.md", "In a shell").commands[:3]
    assert "--each" not in f"{prepare}{submit}"
    (program,) = section("docs/how-to/many-cases.md", "In Python").programs
    with standalone_system(tmp_path) as system:
        variables = environment(system, tmp_path)
        paste(checkout, *SEGMENT, prepare, submit, **variables)
        done = run_in(checkout, sys.executable, "-c", program, **variables)
    assert done.stdout == "4 finished\n", done
    assert len(list((checkout / "results").glob("*/report.json"))) == 4
