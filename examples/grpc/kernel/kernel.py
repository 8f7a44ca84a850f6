#!/usr/bin/env python
"""A kernel that measures texts: `{"key": 1, "data": "some words"}` in, `{"key": 1, "data": {...}}` out, both JSON."""

import json
import os

import redhareapiversion  # noqa: F401 - kernels import it first
from redhareapi import Kernel


class TextKernel(Kernel):
    """Answers each request with the number of words and the mean length of a word."""

    def on_kernel_start(self, kernel_context):
        """Read the settings that come with the model."""
        description = json.loads(kernel_context.get_model_description())
        attributes = {item["key"]: item["value"] for item in description["attributes"]}
        self.digits = int(attributes.get("digits", "2"))
        Kernel.log_info(f"{os.environ['REDHARE_MODEL_NAME']}: {kernel_context.get_instance_id()} loaded")

    def on_task_invoke(self, task_context):
        """Answer this request and those that wait behind it."""
        batch = []
        while task_context is not None:
            batch.append(task_context)
            task_context = task_context.next()
        Kernel.log_debug(f"batch of {len(batch)}")
        for task in batch:
            try:
                request = json.loads(task.get_input_data())
                answer = {"key": request.get("key"), "data": self.measure(request["data"]), "batch": len(batch)}
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                answer = {"error": f"send JSON with a text as data: {error}"}
            task.set_output_data(json.dumps(answer))

    def measure(self, text):
        """Count the words of a text, and their mean length."""
        words = text.split()
        mean = sum(map(len, words)) / len(words) if words else 0
        return {"words": len(words), "mean_length": round(mean, self.digits)}

    def on_kernel_shutdown(self):
        """Log the end; there is nothing to clean up."""
        Kernel.log_info("shut down")


if __name__ == "__main__":
    TextKernel().run()
