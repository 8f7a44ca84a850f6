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
        ("job_consumer/job.py", "import private_api.tables", "job_consumer imports private_api"),
        ("job_consumer/job.py", "def f():\n    from private_api import tables", ":2: job_consumer imports private_api"),
        ("public_api/app.py", "from job_consumer.job import Job", "public_api imports job_consumer"),
        ("contract/errors.py", "from private_api.tables import Base", "contract imports private_api"),
        ("inference_client/cli.py", "import standalone", "inference_client imports standalone"),
        ("job_consumer/host.py", "from operations import gpus", "job_consumer imports operations"),
        ("contract/errors.py", "from standalone.server import serve", "contract imports standalone"),
        ("private_api/tables.py", "from private_api.tasks.rows import x", "which lies above it"),
        ("private_api/tables.py", "from private_api import app", "which lies above it"),
        ("private_api/reaper.py", "from private_api.services import Services", "which lies above it"),
        ("private_api/tasks/claim.py", "from ..routes import tasks", "which lies above it"),
        ("private_api/routes/tasks.py", "from private_api.app import create_app", "which lies above it"),
        ("private_api/app.py", "import private_api.service", "which lies above it"),
        ("private_api/tasks/claim.py", "from fastapi import Request", "knows of HTTP"),
        ("private_api/archives.py", "import starlette.requests", "knows of HTTP"),
        ("private_api/novelty.py", "", "belongs to no layer"),
        ("job_consumer/job.py", "import sqlalchemy as sa", "imports sqlalchemy"),
        ("job_consumer/worker.py", "from docker.errors import NotFound", "imports docker"),
        ("private_api/dispatcher.py", "import pika", "imports pika"),
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
            "private_api/tasks/claim.py",
            "from private_api.tables import TaskRow\nfrom contract.errors import StaleFence",
        ),
        ("private_api/__main__.py", "from private_api.service import s\nif __name__ == '__main__':\n    connect()"),
        ("contract/http_errors.py", "from fastapi import FastAPI\ndef make() -> FastAPI:\n    return FastAPI()"),
        ("contract/settings.py", "import os\ndef environment():\n    return os.environ"),
        ("job_consumer/docker_images.py", "import docker"),
        ("contract/rabbitmq_broker/link.py", "import pika"),
        ("contract/statuses.py", "LIMIT = timedelta(seconds=1)\nNAMES = frozenset({'a'})"),
        ("contract/errors.py", "x = 1\n" * 300),
    ],
)
def test_what_the_rules_allow_is_not_found(tmp_path: Path, path: str, source: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(source)
    assert find_faults(tmp_path) == []
