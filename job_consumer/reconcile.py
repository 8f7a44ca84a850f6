"""Removes what attempts and earlier processes left: finds it, compares it with what is held, repeats until it is gone.

A run is this consumer's if it carries the consumer's name and the server's id. Runs of releases before there was an id
count as ours once the private API knows their task or replica; all others are left alone.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from contract.errors import DeploymentNotFound, InferenceError, StaleFence, TaskNotFound
from contract.schemas import RunAssignment
from job_consumer.context import ConsumerContext
from job_consumer.engines import Engine, EngineUnavailable, RunKey, RunKind, RunState
from job_consumer.error_texts import operators_text
from job_consumer.held import nameless
from job_consumer.workspace import WorkDir

logger = logging.getLogger(__name__)

INTERVAL_S = 5.0
"""Between two steps."""

_Assignment = TypeVar("_Assignment", bound=RunAssignment)
_NOT_KNOWN = (TaskNotFound, DeploymentNotFound)


class _NotOursError(Exception):
    """The run is another server's, as far as anybody can tell."""


@dataclass(frozen=True)
class Stock(Generic[_Assignment]):
    """What an earlier process of this consumer left of one kind."""

    adoptable: list[tuple[RunKey, _Assignment]]
    """Runs that still have their lease, those that have ended first. They are held."""
    unstarted: list[RunKey]
    """Folders without a run."""


def let_go(context: ConsumerContext, key: RunKey) -> None:
    """Remove a held run and its files, now or, if that cannot be done, with the reconciler's next steps."""
    try:
        remove_run(context, key)
    except (EngineUnavailable, OSError) as error:
        logger.warning("what %s left cannot be removed yet; that is tried again: %s", key.name, operators_text(error))
    finally:
        context.held.drop(key)


def remove_run(context: ConsumerContext, key: RunKey) -> None:
    """Remove a run and its files. Raises `EngineUnavailable`, `OSError`."""
    context.engine.remove(key)
    context.gpu.leave(key)
    context.work.remove(key)


def end_runs(engine: Engine, work: WorkDir, consumer: str) -> None:
    """End all that a consumer left running, which stops for good. Its next start gives back what was not finished.

    What has ended by itself is kept: the next start delivers it. A run is the consumer's if its folder is here.
    """
    ours = {*work.workspaces(), *work.replicas()}
    try:
        for key, state in engine.find(consumer):
            if nameless(key) in ours and state is not RunState.EXITED:
                logger.info("consumer=%s %s is ended, because the server stops", consumer, key.name)
                engine.remove(key)
    except EngineUnavailable as error:
        logger.error("consumer=%s what it left running could not be ended and runs on: %s", consumer, error)


class Reconciler:
    """Keeps one consumer's part of the engine and of the work directory free of what nobody holds."""

    def __init__(self, context: ConsumerContext) -> None:
        self._context = context
        self._known: dict[RunKey, bool] = {}
        """Of runs without a server's id: whether our server knows them."""
        self._stuck: set[RunKey] = set()

    def take_stock(self, kind: RunKind, show: Callable[[str, int], _Assignment]) -> Stock[_Assignment]:
        """Decide about all that an earlier process left, before the first `step`; `show` asks the private API.

        What has lost its lease is removed by `step`, and keeps others off the GPU until then.
        Raises `EngineUnavailable`, `InferenceError`; nothing has changed then.
        """
        context = self._context
        found = [(key, state) for key, state in context.engine.find(context.consumer) if key.kind is kind]
        folders = context.work.workspaces() if kind is RunKind.TASK else context.work.replicas()
        if kind is RunKind.TASK:
            found += self._untold(set(folders) - {nameless(key) for key, _ in found})
        # Those that have ended need neither the GPU nor a turn.
        found.sort(key=lambda run: run[1] is not RunState.EXITED)
        kept: list[tuple[RunKey, _Assignment]] = []
        on_gpu: list[RunKey] = []
        for key, state in found:
            try:
                assignment = self._ask(key, show)
            except _NotOursError:
                continue
            if assignment is not None:
                kept.append((key, assignment))
            else:
                logger.warning("%s=%s a run of fence %s lost its lease and is removed", kind, key.uid, key.fence)
            if state is RunState.RUNNING and (assignment is None or assignment.use_gpu):
                on_gpu.append(key)
        for key, _ in kept:
            context.held.add(key)
        for key in on_gpu if context.sandbox.gpu_uuid else ():
            context.gpu.occupy(key)
        return Stock(kept, sorted(set(folders) - {nameless(key) for key, _ in found}))

    def _untold(self, folders: set[RunKey]) -> list[tuple[RunKey, RunState]]:
        """Of attempts without a run, those whose failure was not told yet: a failed run is removed before that."""
        untold = [key for key in sorted(folders) if self._context.work.workspace(key).verdict.exists()]
        return [(replace(key, server=self._server), RunState.EXITED) for key in untold]

    def step(self) -> None:
        """Remove every run and every folder of this consumer that is not held, those that resisted before last."""
        context = self._context
        try:
            found = [key for key, _ in context.engine.find(context.consumer)]
        except EngineUnavailable as error:
            logger.debug("the engine does not say what runs: %s", error)
            return
        names = {nameless(key) for key in found}
        # A folder says nothing of the release that made it.
        folders = [key for key in (*context.work.workspaces(), *context.work.replicas()) if key not in names]
        left = [*filter(self._is_ours, found), *folders, *(replace(key, server=self._server) for key in folders)]
        for key in sorted(left, key=lambda key: key in self._stuck):
            if key not in context.held and not context.stopping.is_set():
                self._remove(key)

    def _remove(self, key: RunKey) -> None:
        try:
            remove_run(self._context, key)
        except (EngineUnavailable, OSError) as error:
            if key not in self._stuck:
                said = operators_text(error)
                logger.warning("what is left of %s cannot be removed; that is tried again: %s", key.name, said)
            self._stuck.add(key)
        else:
            self._stuck.discard(key)
            logger.info("removed what was left of %s", key.name)

    @property
    def _server(self) -> str:
        return self._context.sandbox.server

    def _is_ours(self, key: RunKey) -> bool:
        if key.server or key in self._known:
            return key.server == self._server or self._known.get(key, False)
        if key in self._context.held:
            return True
        show = self._context.api.show if key.kind is RunKind.TASK else self._context.api.show_replica
        try:
            # One that has its lease, but not from us, is another consumer's matter.
            return self._ask(key, show) is None
        except (_NotOursError, InferenceError):
            return False

    def _ask(self, key: RunKey, show: Callable[[str, int], _Assignment]) -> _Assignment | None:
        """The assignment of one of our runs, or None if it has lost its lease. Raises `_NotOursError`."""
        if key.server and key.server != self._server:
            raise _NotOursError
        try:
            return show(key.uid, key.fence)
        except StaleFence:
            self._known[key] = True
            return None
        except _NOT_KNOWN:
            if key.server:
                return None
            if key not in self._known:
                logger.warning(
                    "the container %s has this consumer's name, but its %s is not this server's; it is left alone. "
                    "Remove it if no other server uses this Docker Engine",
                    key.name,
                    key.kind,
                )
            self._known[key] = False
            raise _NotOursError from None
