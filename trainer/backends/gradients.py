"""The gradient of a number with respect to an array, on the Keras backend in use.

In:  a differentiable function of one tensor (B, …) to (B,), and a place.
Out: NumPy: d Σ function / d place. With `trainer.backends`, the only code that knows backends by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from preprocess.errors import UsageError
from trainer.records import Floats

Function = Callable[[Any], Any]


def gradient(function: Function, place: Floats) -> Floats:
    """The gradient at `place`, of its shape, float32.

    Raises:
        UsageError: the Keras backend in use is neither TensorFlow nor JAX.
    """
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _tensorflow(function, place)
    if backend == "jax":
        return _jax(function, place)
    raise UsageError(f"explanations need the TensorFlow or the JAX backend of Keras, not {backend}")


def _tensorflow(function: Function, place: Floats) -> Floats:
    import tensorflow as tf

    tensor = tf.convert_to_tensor(place)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        total = tf.reduce_sum(function(tensor))
    return np.asarray(tape.gradient(total, tensor), np.float32)


def _jax(function: Function, place: Floats) -> Floats:
    import jax

    return np.asarray(jax.grad(lambda tensor: function(tensor).sum())(jax.numpy.asarray(place)), np.float32)
