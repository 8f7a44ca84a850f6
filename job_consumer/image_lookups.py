"""Looks up whether this consumer could run the images of models, and tells the private API, so that people know early.

It adds knowledge and no certainty: what counts is what an attempt finds.
"""

import logging
import threading
from typing import Self

from contract.errors import InferenceError, RouteNotFound
from contract.image_lookups import ImageLookup, LookupResult, LookupResults
from contract.private_client import PrivateClient
from contract.statuses import Finding
from job_consumer.engines import Engine, EngineError, ImageNotFound
from kit.threads import SupervisedThread

logger = logging.getLogger(__name__)

_HOLD_S = 20.0
"""How long the private API holds one request."""
_PAUSE_S = 0.5
"""Between two requests: a server that holds none must not be asked without end."""
_RETRY_S = 5.0
_OLD_SERVER_S = 60.0
"""A private API of the release before does not ask for lookups; it may be upgraded."""


class ImageLookups:
    """Does that from a thread while the block is open. It closes the client, which nobody else may use."""

    def __init__(self, consumer: str, engine: Engine, api: PrivateClient) -> None:
        self._consumer = consumer
        self._engine = engine
        self._api = api
        self._stopped = threading.Event()
        self._thread = SupervisedThread("image-lookups", self._run, pause_s=_RETRY_S, stopped=self._stopped)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        # Not joined: the private API may hold its request, and nothing waits for what it finds.
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._stopped.wait(self._step())
        self._api.close()

    def _step(self) -> float:
        """Wait for lookups and make them. Returns for how many seconds to pause."""
        try:
            for lookup in self._api.wait_for_lookups(self._consumer, _HOLD_S):
                if self._stopped.is_set():
                    break
                found = self._look_up(lookup)
                # One by one: a registry that does not answer holds up no other finding.
                self._api.report_lookups(LookupResults(consumer=self._consumer, results=[found]))
        except RouteNotFound:
            return _OLD_SERVER_S
        except InferenceError as error:
            # The claims meet the same, and log it.
            logger.debug("consumer=%s looks up no images for now: %s", self._consumer, error)
            return _RETRY_S
        return _PAUSE_S

    def _look_up(self, lookup: ImageLookup) -> LookupResult:
        finding, detail, digest = self._find(lookup)
        return LookupResult(
            human_readable_id=lookup.human_readable_id,
            model_version=lookup.model_version,
            finding=finding,
            detail=detail and detail[:2048],
            digest=digest,
        )

    def _find(self, lookup: ImageLookup) -> tuple[Finding, str | None, str | None]:
        """The finding, more about it, and the image's digest."""
        try:
            is_present, digest = self._engine.look_up_image(lookup.container_tag, lookup.pull_policy)
        except EngineError as error:
            logger.warning(
                "consumer=%s does not find the image of %s@%s: %s",
                self._consumer,
                lookup.human_readable_id,
                lookup.model_version,
                error,
            )
            finding = Finding.NOT_FOUND if isinstance(error, ImageNotFound) else Finding.UNKNOWN
            return finding, error.detail, None
        return (Finding.PRESENT if is_present else Finding.IN_REGISTRY), None, digest
