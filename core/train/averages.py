"""The moving average of a network's weights, which often does better than the last weights themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np


def decay_of_step(decay: float, step: int) -> float:
    """Return the decay of one step, counted from 0: lower in the beginning, so that random weights are forgotten."""
    return min(decay, (1.0 + step) / (10.0 + step))


class WeightAverage:
    """Exponential moving average of all weights, moving statistics included (Polyak and Juditsky 1992).

    ``average = d * average + (1 - d) * weights`` after each step, with d of :func:`decay_of_step`; it begins at the
    weights that it is made with.

    Parameters
    ----------
    variables : sequence
        Of a network; those that are not floats (the states of random generators) are left out.
    decay : float
        [0, 1).
    """

    def __init__(self, variables: Sequence[Any], decay: float) -> None:
        import keras

        self.decay = decay
        self.sources = [
            each for each in variables if keras.backend.is_float_dtype(keras.backend.standardize_dtype(each.dtype))
        ]
        # By way of NumPy: a variable made of another one's value may be that one.
        self.averages = [
            keras.Variable(keras.ops.convert_to_numpy(each), dtype=each.dtype, trainable=False) for each in self.sources
        ]
        self._share = keras.Variable(0.0, dtype="float32", trainable=False)
        self._move = _compiled(self._follow)

    def update(self, step: int) -> None:
        """Take the weights after step `step`, counted from 0, into the average."""
        self._share.assign(1.0 - decay_of_step(self.decay, step))
        self._move()

    def _follow(self) -> None:
        share = self._share.value
        for average, source in zip(self.averages, self.sources, strict=True):
            average.assign(average.value + share * (source.value - average.value))

    def get(self) -> list[np.ndarray]:
        """Return the averages."""
        from keras import ops

        return [ops.convert_to_numpy(each) for each in self.averages]

    def set(self, values: Sequence[np.ndarray]) -> None:
        """Go on from averages that were kept."""
        for average, value in zip(self.averages, values, strict=True):
            average.assign(value)

    def restart(self, variables: Sequence[Any]) -> None:
        """Let the averages of some of the variables begin again at what these are now."""
        from keras import ops

        chosen = {id(variable) for variable in variables}
        for average, source in zip(self.averages, self.sources, strict=True):
            if id(source) in chosen:
                average.assign(ops.convert_to_numpy(source))

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Let the network have the averages as its weights for a while."""
        from keras import ops

        kept = [ops.convert_to_numpy(each) for each in self.sources]
        try:
            # By way of NumPy: a backend may take a variable's memory when it trains on.
            for source, value in zip(self.sources, self.get(), strict=True):
                source.assign(value)
            yield
        finally:
            for source, value in zip(self.sources, kept, strict=True):
                source.assign(value)


def _compiled(function: Any) -> Any:
    """Return a function without arguments as one call of TensorFlow, where that is the backend."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return tf.function(function)
