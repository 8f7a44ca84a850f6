"""The rules of the architecture hold in our packages, and the checker sees what breaks them."""

from pathlib import Path

import pytest

from tests.architecture import find_faults

ROOT = Path(__file__).parent.parent.parent


def test_the_packages_keep_the_rules_of_the_architecture() -> None:
    assert find_faults(ROOT) == []


@pytest.mark.parametrize(
    ("path", "source", "says"),
    [
        ("job_consumer/tasks/attempt.py", "import private_api.tables", "job_consumer imports private_api"),
        (
            "job_consumer/tasks/attempt.py",
            "def f():\n    from private_api import tables",
            ":2: job_consumer imports private_api",
        ),
        ("public_api/app.py", "from job_consumer.tasks.attempt import Attempt", "public_api imports job_consumer"),
        ("contract/errors.py", "from private_api.tables import Base", "contract imports private_api"),
        ("inference_client/cli/app.py", "import standalone", "inference_client imports standalone"),
        ("inference_client/client.py", "from contract.errors import TaskFailed", "inference_client imports contract"),
        ("inference_client/config.py", "import kit.settings", "inference_client imports kit"),
        ("inference_client/client.py", "from inference_client.cli.app import run", "which lies above it"),
        (
            "inference_client/connection.py",
            "from inference_client.client import InferenceClient",
            "which lies above it",
        ),
        ("inference_client/errors.py", "from inference_client import schemas", "which lies above it"),
        ("inference_client/cli/app.py", "import inference_client.__main__", "which lies above it"),
        ("inference_client/readiness.py", "from inference_client.connection import Connection", "side by side"),
        ("inference_client/live_calls.py", "from inference_client.config import load_config", "side by side"),
        ("inference_client/novelty.py", "", "belongs to no layer"),
        ("inference_client/client.py", "import grpc", "imports grpc"),
        ("inference_client/cli/app.py", "from os import environ", "only inference_client/config.py does"),
        ("job_consumer/context.py", "from operations import gpus", "job_consumer imports operations"),
        ("contract/errors.py", "from standalone.server import serve", "contract imports standalone"),
        ("private_api/tables.py", "from private_api.tasks.rows import x", "which lies above it"),
        ("private_api/tables.py", "from private_api import app", "which lies above it"),
        ("private_api/loops/reaper.py", "from private_api.services import Services", "which lies above it"),
        ("private_api/placement/task_claim.py", "from ..routes import tasks", "which lies above it"),
        ("private_api/routes/tasks.py", "from private_api.app import create_app", "which lies above it"),
        ("private_api/app.py", "import private_api.service", "which lies above it"),
        ("private_api/placement/task_claim.py", "from fastapi import Request", "knows of HTTP"),
        ("private_api/archives.py", "import starlette.requests", "knows of HTTP"),
        ("private_api/novelty.py", "", "belongs to no layer"),
        (
            "private_api/tasks/rows.py",
            "from private_api.deployments import rows",
            "side by side do not name each other",
        ),
        ("private_api/deployments/expire.py", "import private_api.tasks.limits", "side by side do not name each other"),
        ("private_api/tasks/attempts.py", "from private_api.placement.consumers import x", "which lies above it"),
        ("private_api/deployments/deploy.py", "from private_api.placement.scale import x", "which lies above it"),
        ("private_api/leases.py", "from private_api.tasks.limits import x", "which lies above it"),
        ("contract/broker/memory.py", "from job_consumer.worker import Worker", "contract imports job_consumer"),
        ("kit/settings.py", "from contract.errors import InvalidRequest", "kit imports contract"),
        ("grpc_gateway/relay.py", "from grpc_gateway.protocols.redhare import Redhare", "which lies above it"),
        ("grpc_gateway/routing.py", "from grpc_gateway.protocols import kserve", "which lies above it"),
        ("grpc_gateway/server.py", "from grpc_gateway.process.worker import BEAT_S", "which lies above it"),
        ("grpc_gateway/door.py", "import grpc_gateway.service", "which lies above it"),
        ("grpc_gateway/protocols/health.py", "from ..process.supervisor import supervise", "which lies above it"),
        ("grpc_gateway/protocols/kserve.py", "from grpc_gateway.service import x", "which lies above it"),
        ("grpc_gateway/service.py", "from grpc_gateway.process.port_lock import x", "which lies above it"),
        ("grpc_gateway/process/worker.py", "import grpc_gateway.__main__", "which lies above it"),
        ("grpc_gateway/novelty.py", "", "belongs to no layer"),
        ("job_consumer/context.py", "from job_consumer.tasks.attempt import Attempt", "which lies above it"),
        ("job_consumer/context.py", "from job_consumer.replicas.ready import ReadyReplicas", "which lies above it"),
        ("job_consumer/replicas/ready.py", "from job_consumer.tasks.attempt import RunClock", "which lies above it"),
        ("job_consumer/output/zip_stream.py", "import job_consumer.tasks.attempt", "which lies above it"),
        (
            "job_consumer/output/zip_stream.py",
            "from job_consumer.context import ConsumerContext",
            "which lies above it",
        ),
        ("job_consumer/engines/__init__.py", "from job_consumer.settings import Credential", "side by side"),
        ("job_consumer/engines/__init__.py", "from . import docker", "which lies above it"),
        ("job_consumer/engines/docker/log.py", "from job_consumer.engines.process import tree", "side by side"),
        ("job_consumer/engines/process/run.py", "from job_consumer.engines.docker import images", "side by side"),
        ("job_consumer/engines/process/run.py", "from job_consumer.workspace import WorkDir", "which lies above it"),
        ("job_consumer/engines/third.py", "", "belongs to no layer"),
        ("job_consumer/worker.py", "from job_consumer.engines.docker.engine import DockerEngine", "names the engine"),
        ("operations/doctor.py", "from job_consumer.engines import process", "names the engine"),
        ("job_consumer/engines/process/engine.py", "import docker", "imports docker"),
        ("job_consumer/novelty.py", "", "belongs to no layer"),
        (
            "job_consumer/heartbeat.py",
            "import threading\nclass H:\n    t: threading.Thread",
            ":3: uses threading.Thread",
        ),
        ("standalone/server.py", "from threading import Thread", "uses threading.Thread"),
        ("grpc_gateway/table.py", "import threading as t\nfrom threading import Timer", ":2: uses threading.Timer"),
        ("job_consumer/tasks/attempt.py", "import sqlalchemy as sa", "imports sqlalchemy"),
        ("job_consumer/worker.py", "from docker.errors import NotFound", "imports docker"),
        ("private_api/loops/dispatcher.py", "import pika", "imports pika"),
        ("contract/errors.py", "from fastapi import FastAPI", "imports fastapi"),
        ("job_consumer/settings.py", "import os\nx = os.environ['X']", ":2: reads os.environ"),
        ("public_api/app.py", "import os\ndef f():\n    return os.getenv('X')", ":3: reads os.getenv"),
        ("public_api/app.py", "from os import environ", "reads os.environ"),
        ("public_api/app.py", "from fastapi import FastAPI\napp = FastAPI()", ":2: makes FastAPI() at import"),
        ("private_api/app.py", "database: Database = database.Database('sqlite://')", "makes database.Database()"),
        ("private_api/settings.py", "settings = PrivateApiSettings.load()", "makes PrivateApiSettings.load()"),
        ("private_api/watch.py", "import threading\nclass W:\n    lock = threading.Lock()", "makes threading.Lock()"),
        ("private_api/watch.py", "n = 0\ndef f():\n    global n\n    n += 1", ":3: changes the module's n"),
        ("contract/errors.py", "x = 1\n" * 301, "longer than 300 lines"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, path: str, source: str, says: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(source)
    (fault,) = find_faults(tmp_path)
    assert fault.startswith(f"{path}:")
    assert says in fault


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("standalone/server.py", "from private_api.service import x\nfrom job_consumer.worker import Worker"),
        (
            "private_api/placement/task_claim.py",
            "from private_api.tables import TaskRow\nfrom contract.errors import StaleFence",
        ),
        ("private_api/__main__.py", "from private_api.service import s\nif __name__ == '__main__':\n    connect()"),
        ("kit/http_errors.py", "from fastapi import FastAPI\ndef make() -> FastAPI:\n    return FastAPI()"),
        ("kit/settings.py", "import os\ndef environment():\n    return os.environ"),
        ("inference_client/config.py", "import os\ndef environment():\n    return os.environ"),
        ("inference_client/cli/tasks.py", "from inference_client.cli.display import Display"),
        ("job_consumer/engines/docker/images.py", "import docker"),
        ("job_consumer/engines/docker/images.py", "from job_consumer.engines import ImageNotFound"),
        ("job_consumer/tasks/warm_attempt.py", "from job_consumer.replicas.ready import ReadyReplicas"),
        ("job_consumer/__main__.py", "from job_consumer.engines.docker.engine import DockerEngine"),
        ("kit/threads.py", "import threading\ndef start():\n    threading.Thread().start()"),
        ("grpc_gateway/keys.py", "from threading import Event, Lock"),
        ("contract/broker/rabbitmq/link.py", "import pika"),
        ("contract/statuses.py", "LIMIT = timedelta(seconds=1)\nNAMES = frozenset({'a'})"),
        ("contract/errors.py", "x = 1\n" * 300),
    ],
)
def test_what_the_rules_allow_is_not_found(tmp_path: Path, path: str, source: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(source)
    assert find_faults(tmp_path) == []
