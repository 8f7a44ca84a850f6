"""A run gets its GPU by the Container Device Interface, from an Engine that has GPUs in no other way."""

import json
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.e2e.mortal_engine import Death, MortalEngine, mortal_engine
from tests.integration.engine_harness import docker_harness
from tests.services import require_docker

UUID = "GPU-00000000-0000-0000-0000-00000000000a"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[MortalEngine]:
    """A modern Engine with one GPU, which an environment variable stands for."""
    require_docker()
    config = {"features": {"cdi": True}, "cdi-spec-dirs": [str(tmp_path / "cdi")]}
    edits = {"env": [f"GIVEN={UUID}"]}
    spec = {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [{"name": UUID, "containerEdits": edits}]}
    (tmp_path / "cdi").mkdir()
    (tmp_path / "cdi" / "nvidia.json").write_text(json.dumps(spec))
    (tmp_path / "daemon.json").write_text(json.dumps(config))
    with mortal_engine("26") as made:
        made.host.load("busybox:1.37")
        made.command += ["--config-file", str(tmp_path / "daemon.json")]
        made.die(Death.RESTART)
        made.start()
        yield made


def test_a_run_sees_the_gpu_that_the_engine_has_by_cdi(
    engine: MortalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", engine.host.engine)
    client = docker.APIClient(engine.host.engine)
    with docker_harness(tmp_path / "work", client) as harness:
        show = 'echo "$GIVEN $NVIDIA_VISIBLE_DEVICES"'
        assert harness.log_of(harness.run(show, gpu_uuid=UUID)[0]) == f"{UUID} void\n"
        assert harness.log_of(harness.run(show)[0]) == " void\n"
    client.close()
