"""Writes the SavedModel `half_plus_two`, version 1, into a folder: y = a * x + b with variables a = 1/2 and b = 2."""

import sys

import tensorflow as tf


class HalfPlusTwo(tf.Module):
    """The model as a network would be saved: variables and a function of fixed types."""

    def __init__(self) -> None:
        super().__init__()
        self.a = tf.Variable(0.5)
        self.b = tf.Variable(2.0)

    @tf.function(input_signature=[tf.TensorSpec(None, tf.float32, "x")])
    def __call__(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": self.a * x + self.b}


if __name__ == "__main__":
    model = HalfPlusTwo()
    tf.saved_model.save(model, f"{sys.argv[1]}/half_plus_two/1", signatures={"serving_default": model.__call__})
