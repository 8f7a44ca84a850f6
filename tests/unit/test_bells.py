"""Which queues a consumer listens on, and what becomes of a bell that it hears."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract.broker import CPU_QUEUE, CPU_REPLICA_QUEUE, GPU_QUEUE, GPU_REPLICA_QUEUE
from contract.broker.memory import InMemoryBroker
from contract.private_client import PrivateClient
from contract.schemas import ConsumerRegistration
from job_consumer.bells import claim_on_bell, replica_queues, task_queues, until_it_works
from job_consumer.container_spec import Limits, Sandbox
from job_consumer.context import ConsumerContext
from job_consumer.engines import EngineUnavailable
from job_consumer.locks import LockTaken
from job_consumer.settings import Credential
from job_consumer.workspace import WorkDir
from tests.unit.consumer_peer import MemoryEngine
from tests.waiting import PATIENCE_S

GPU = "GPU-00000000-0000-0000-0000-00000000000a"


@pytest.fixture
def context(tmp_path: Path) -> Iterator[ConsumerContext]:
    with PrivateClient("http://127.0.0.1:1", "a-secret-of-the-tests") as api:
        yield ConsumerContext(
            credential=Credential("SERVICE_TOKEN", "a-secret-of-the-tests"),
            sandbox=Sandbox("ada", Limits(1000, None, 3, 400, 5, 6)),
            api=api,
            engine=MemoryEngine(),
            work=WorkDir(tmp_path / "work", "ada"),
            stopping=threading.Event(),
        )


@pytest.mark.parametrize(
    ("gpu_uuid", "accepts_cpu_tasks", "tasks", "replicas"),
    [
        (None, True, [CPU_QUEUE], [CPU_REPLICA_QUEUE]),
        (GPU, False, [GPU_QUEUE], [GPU_REPLICA_QUEUE]),
        (GPU, True, [GPU_QUEUE, CPU_QUEUE], [GPU_REPLICA_QUEUE, CPU_REPLICA_QUEUE]),
        (None, False, [], []),
    ],
)
def test_a_consumer_listens_for_the_work_it_can_do_and_for_gpu_work_first(
    gpu_uuid: str | None, accepts_cpu_tasks: bool, tasks: list[str], replicas: list[str]
) -> None:
    registration = ConsumerRegistration(
        consumer="ada", gpu_uuid=gpu_uuid, accepts_cpu_tasks=accepts_cpu_tasks, replica_slots=1
    )
    assert task_queues(registration) == tasks
    assert replica_queues(registration) == replicas


def heard(broker: InMemoryBroker) -> str | None:
    """What rings now."""
    delivery = broker.receive([CPU_QUEUE], 0)
    return delivery and delivery.uid


def test_a_bell_is_settled_once_the_claim_is_answered(context: ConsumerContext) -> None:
    broker = InMemoryBroker()
    broker.publish(CPU_QUEUE, "a-task")
    assert claim_on_bell(context, broker, [CPU_QUEUE], PATIENCE_S, lambda uid: f"{uid} is mine") == "a-task is mine"
    assert heard(broker) is None


@pytest.mark.parametrize("error", [EngineUnavailable("later"), ValueError("nobody foresaw it")], ids=repr)
def test_a_bell_whose_claim_failed_rings_again(context: ConsumerContext, error: Exception) -> None:
    def claim(_uid: str | None) -> None:
        raise error

    broker = InMemoryBroker()
    broker.publish(CPU_QUEUE, "a-task")
    with pytest.raises(type(error)):
        claim_on_bell(context, broker, [CPU_QUEUE], PATIENCE_S, claim)
    assert heard(broker) == "a-task"


def test_a_consumer_that_stops_leaves_the_bell_to_others(context: ConsumerContext) -> None:
    broker, claimed = InMemoryBroker(), list[str | None]()
    broker.publish(CPU_QUEUE, "a-task")
    context.stopping.set()
    assert claim_on_bell(context, broker, [CPU_QUEUE], PATIENCE_S, claimed.append) is None
    assert (claimed, heard(broker)) == ([], "a-task")


def test_without_a_bell_any_task_is_claimed(context: ConsumerContext) -> None:
    claimed: list[str | None] = []
    claim_on_bell(context, InMemoryBroker(), [CPU_QUEUE], 0, claimed.append)
    assert claimed == [None]


def raise_in_turn(errors: list[Exception]) -> Callable[[], None]:
    def step() -> None:
        if errors:
            raise errors.pop(0)

    return step


def test_a_step_is_repeated_until_it_works(context: ConsumerContext, caplog: pytest.LogCaptureFixture) -> None:
    errors: list[Exception] = [ValueError("nobody foresaw it")]
    until_it_works(context, "work", raise_in_turn(errors))
    assert errors == []
    assert [record.getMessage() for record in caplog.records if record.exc_info] == [
        "consumer=ada failed to work and tries again"
    ]


def test_a_lock_that_is_taken_is_not_waited_for(context: ConsumerContext) -> None:
    with pytest.raises(LockTaken):
        until_it_works(context, "work", raise_in_turn([LockTaken("another has it")]))
