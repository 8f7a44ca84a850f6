"""How much a run has written to /output so far."""

import os
from pathlib import Path

from contract.statuses import Reason
from contract.zip_rules import MAX_DEPTH
from job_consumer.descriptors import open_folder
from job_consumer.output.failures import ModelFailed, is_models_fault


def measure_folder(folder: Path) -> int:
    """The bytes of all plain files below `folder`, holes included, while a run may still change it.

    What vanishes meanwhile, or cannot be read, is not counted. Raises `ModelFailed` for folders nested deeper than an
    output may be, because nothing below them could be counted.
    """
    try:
        with open_folder(folder) as folder_fd:
            return _measure(folder_fd, 0)
    except OSError as error:
        if not is_models_fault(error):
            raise
        return 0


def _measure(folder_fd: int, depth: int) -> int:
    if depth > MAX_DEPTH:
        raise ModelFailed(Reason.OUTPUT_REJECTED, f"Folders in /output are nested more than {MAX_DEPTH} deep.")
    total = 0
    with os.scandir(folder_fd) as found:
        for entry in found:
            try:
                if entry.is_dir(follow_symlinks=False):
                    with open_folder(entry.name, dir_fd=folder_fd) as child_fd:
                        total += _measure(child_fd, depth + 1)
                elif entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
            except OSError as error:
                if not is_models_fault(error):
                    raise
    return total
