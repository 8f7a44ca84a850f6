"""How both loops of a consumer get work: they wait for a bell, claim, settle the bell, and repeat what failed."""

import logging
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from contract.broker import CPU_QUEUE, CPU_REPLICA_QUEUE, GPU_QUEUE, GPU_REPLICA_QUEUE, Broker
from contract.errors import ServiceUnavailable
from contract.private_client import ACCESS_ERRORS
from contract.schemas import ConsumerRegistration
from job_consumer.context import ConsumerContext
from job_consumer.engine_watch import Complaint
from job_consumer.engines import EngineUnavailable
from job_consumer.locks import LockTaken

logger = logging.getLogger(__name__)

_PAUSE_S = 2.0
_LOOK_AGAIN_S = 2.0
"""A sick consumer may be well any moment, as when a program of others on its GPU ends, and a task may wait for it."""

_Claimed = TypeVar("_Claimed")


def task_queues(registration: ConsumerRegistration) -> list[str]:
    """The queues that a consumer listens on for tasks."""
    return _queues(registration, gpu=GPU_QUEUE, cpu=CPU_QUEUE)


def replica_queues(registration: ConsumerRegistration) -> list[str]:
    """The queues that a consumer listens on for replicas."""
    return _queues(registration, gpu=GPU_REPLICA_QUEUE, cpu=CPU_REPLICA_QUEUE)


def _queues(registration: ConsumerRegistration, *, gpu: str, cpu: str) -> list[str]:
    # GPU work first: consumers without a GPU cannot do it.
    return ([gpu] if registration.gpu_uuid else []) + ([cpu] if registration.accepts_cpu_tasks else [])


def claim_on_bell(
    context: ConsumerContext,
    broker: Broker,
    queues: Sequence[str],
    wait_s: float,
    claim: Callable[[str | None], _Claimed],
) -> _Claimed | None:
    """Wait for a bell, at most `wait_s`, and claim: with its uid, or with None if none rang.

    The bell is acknowledged once `claim` returns, whatever was claimed: from then on the lease is the truth, and a held
    message would time out at the broker. It rings again if `claim` raises, and if the consumer is to stop, which then
    claims nothing. A sick consumer hears no bell, which rings for those that can take the task: it claims without one,
    and says so why it takes nothing.
    """
    if context.health.look().trouble is not None:
        claimed = claim(None)
        if claimed is None:
            context.stopping.wait(min(wait_s, context.health.pause_s() or _LOOK_AGAIN_S))
        return claimed
    delivery = broker.receive(queues, wait_s)
    if delivery is None:
        return None if context.stopping.is_set() else claim(None)
    try:
        if context.stopping.is_set():
            return None
        claimed = claim(delivery.uid)
        delivery.ack()
        return claimed
    finally:
        # Does nothing after the ack.
        delivery.requeue()


def until_it_works(context: ConsumerContext, doing: str, step: Callable[[], object]) -> None:
    """Repeat a step until it returns or the consumer is to stop; `doing` is what the log says it cannot do.

    Raises `LockTaken`, which no repetition mends.
    """
    away = Complaint()
    while not context.stopping.is_set():
        try:
            step()
        except LockTaken:
            raise
        except ACCESS_ERRORS as error:
            context.note_refused(error)
        except EngineUnavailable as error:
            if away.is_due():
                logger.warning("consumer=%s cannot %s right now and tries again: %s", context.consumer, doing, error)
        except ServiceUnavailable as error:
            logger.warning("consumer=%s cannot %s right now and tries again: %s", context.consumer, doing, error)
        except Exception:
            logger.exception("consumer=%s failed to %s and tries again", context.consumer, doing)
        else:
            return
        # Jitter, so that consumers do not return in step after an outage.
        context.stopping.wait(_PAUSE_S * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
