"""Twenty tasks under random kills and freezes. `make chaos` has more tasks, and breaks more."""

import secrets
from pathlib import Path

from tests.chaos.__main__ import SCRIPT, wait_for_nothing
from tests.chaos.stack import storm_stack
from tests.chaos.storm import Storm
from tests.chaos.tally import count, table
from tests.chaos.targets import Link, Service, Target
from tests.databases import PostgresServer
from tests.e2e.images import script_image
from tests.services import BROKER_URL, require_docker, require_rabbitmq
from tests.tcp_proxy import TcpProxy


def test_tasks_end_once_and_right_while_every_part_fails_at_random(tmp_path: Path, postgres: PostgresServer) -> None:
    require_docker()
    require_rabbitmq()
    name = postgres.create()
    target = f"//{postgres.url.host or '127.0.0.1'}:{postgres.url.port or 5432}"
    with TcpProxy(target, 5432) as database, TcpProxy(BROKER_URL, 5672) as broker:
        url = postgres.url.set(database=name, host="127.0.0.1", port=database.port)
        text = url.render_as_string(hide_password=False)
        with storm_stack(tmp_path, text, broker_port=broker.port) as stack:
            targets: list[Target] = [Service(process, process.name) for process in stack.processes]
            targets += [Link("database", database), Link("broker", broker)]
            model = stack.add_model(script_image(SCRIPT))
            storm = Storm(url=stack.system.url, model=model, targets=targets, tasks=20, seed=secrets.randbelow(2**31))
            storm.run()
            tally, details = count(storm, postgres.url_of(name), wait_for_nothing(stack))
            assert tally.is_clean, f"{table(storm, tally, details)}\n{stack.system.logs()}"
            assert sum(storm.faults.values()) > 0
    postgres.drop(name)
