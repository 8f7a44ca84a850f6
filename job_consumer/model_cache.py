"""Keeps the models' folders of a host within their budget: those that nothing uses go, least recently used first.

A folder is in use while an attempt or a replica of any consumer of this work directory names it, or the engine has a
run with it.
"""

import logging
from functools import partial

from job_consumer.descriptors import allocated_bytes
from job_consumer.engines import Engine, EngineUnavailable
from job_consumer.workspace import WorkDir
from kit.disk import free_bytes

logger = logging.getLogger(__name__)


def make_room(work: WorkDir, engine: Engine, *, more_bytes: int, budget_bytes: int, free_at_least: int) -> None:
    """Evict models until `more_bytes` fit into the budget, and this much is free on the disk.

    Where too much is in use it does what it can: raises nothing but `OSError`.
    """
    models = work.models()
    sizes = {model.sha256: allocated_bytes(model.folder) for model in models}
    for model in models:
        kept = sum(sizes.values())
        if kept + more_bytes <= budget_bytes and free_bytes(work.root) >= free_at_least:
            return
        try:
            evicted = work.evict_model(model, partial(engine.forget_folder, model.mount))
        except EngineUnavailable as error:
            logger.warning("no model is evicted, since the engine does not say which are in use: %s", error)
            return
        if evicted:
            logger.info("evicted the model %s: %d bytes", model.sha256, sizes.pop(model.sha256))
