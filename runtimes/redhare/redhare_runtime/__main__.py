"""The container's program: runs the model's kernel as if the kernel had been started directly."""

import logging
import os
import runpy
import signal
import sys
from typing import NoReturn

from redhare_runtime.model import ModelFault, read_model


def main() -> None:
    """Run the kernel; it serves within `Kernel.run` and returns after TERM."""
    level = os.environ.get("LOG_LEVEL") or "INFO"
    logging.basicConfig(stream=sys.stdout, level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        model = read_model()
    except ModelFault as fault:
        sys.exit(f"error: {fault}")
    os.environ.setdefault("REDHARE_MODEL_PATH", str(model.folder))
    os.environ.setdefault("REDHARE_MODEL_NAME", str(model.description["name"]))
    # Kernels rely on both: relative names of the files beside them, and the shell's variable for the folder.
    os.chdir(model.folder)
    os.environ["PWD"] = str(model.folder)
    sys.path.insert(0, str(model.kernel_file.parent))
    # As process 1 of a container it would ignore TERM, and a model may load for minutes.
    signal.signal(signal.SIGTERM, end_early)
    runpy.run_path(str(model.kernel_file), run_name="__main__")
    if signal.getsignal(signal.SIGTERM) is end_early:
        sys.exit(f"error: {model.kernel_file.name} ended without serving: its last line must call run() of its Kernel")


def end_early(*_: object) -> NoReturn:
    """End before anything is served."""
    sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    main()
