"""A model: runs the network of its zip over every picture of the input, each a `.npy` of floats, height by width."""

import os
import sys
from pathlib import Path

import numpy as np
import onnxruntime

OPTIMIZED = "/tmp/optimized.onnx"  # noqa: S108 - the one place in a container that is writable and not the output


def main() -> int:
    """Returns the exit code."""
    network = Path(os.environ["MODEL_DIR"]) / "network.onnx"
    pictures = sorted(Path(os.environ["INPUT_DIR"]).rglob("*.npy"))
    output = Path(os.environ["OUTPUT_DIR"])
    if not network.is_file():
        return refuse(f"{network} is missing: register the model with --archive-folder")
    if not pictures:
        return refuse("the input holds no .npy")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.optimized_model_filepath = OPTIMIZED
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    for number, path in enumerate(pictures, 1):
        picture = np.load(path, allow_pickle=False)
        if picture.ndim != 2:
            return refuse(f"{path.name} has {picture.ndim} axes; height by width is needed")
        (edges,) = session.run(None, {"picture": picture.astype(np.float32)[None, None]})
        np.save(output / path.name, edges[0, 0])
        print(f"{number} of {len(pictures)}: {path.name}, strongest edge {edges.max():.2f}")
    return 0


def refuse(text: str) -> int:
    """Say what is wrong, and how the run ends."""
    print(text, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
