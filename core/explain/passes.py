"""The network's forward and backward passes, compiled once for each classifier and shared by all explanations of it.

Every pass is the classifier's own graph seen from another side: a feature map beside the logit, and the gradient of
the logit. Layers are read, never replaced or written to, and the passes hold no weights of their own, so the
classifier answers to the bit the same before and after.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from core.errors import ExplanationError

_passes_by_classifier: weakref.WeakKeyDictionary[Any, Passes] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def passes_of(classifier: Any) -> Passes:
    """Return the passes of `classifier`, the same object for as long as the classifier lives."""
    with _lock:
        if classifier not in _passes_by_classifier:
            _passes_by_classifier[classifier] = Passes(classifier.model)
        return _passes_by_classifier[classifier]


class Passes:
    """Passes through one network; each is compiled when it is first asked for.

    Parameters
    ----------
    model : keras.Model
        A flat graph from squares, shape (n, size, size, 1), range [0, 1], to a dict with ``logit``, shape (n, 1).
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._compiled: dict[str, Callable[[np.ndarray], list[np.ndarray]]] = {}
        self._lock = threading.Lock()

    def features(self, square: np.ndarray, layers: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return what some layers made of one square, and how the logit leans on each.

        Parameters
        ----------
        square : numpy.ndarray
            float32, shape (size, size), range [0, 1].
        layers : sequence of str
            Layers whose output is a feature map.

        Returns
        -------
        list of (features, gradients)
            For each layer two float32 arrays, shape (h, w, channels): the feature map, and the logit's derivative with
            respect to it.

        Raises
        ------
        ExplanationError
            If the network has no such feature map.
        """
        import keras

        names = tuple(layers)

        def build() -> Callable:
            import tensorflow as tf

            view = keras.Model(self.model.input, [*map(self.feature_map, names), self.model.output["logit"]])

            def features_and_gradients(squares):
                *features, logit = view(squares, training=False)
                return [*features, *tf.gradients(logit, features, unconnected_gradients="zero")]

            return features_and_gradients

        answers = self._pass(f"features of {names}", build)(square[None, ..., None])
        return [(answers[place][0], answers[place + len(names)][0]) for place in range(len(names))]

    def input_gradients(self, squares: np.ndarray) -> np.ndarray:
        """Return the logit's derivative with respect to each pixel, shape (n, size, size) like `squares`."""

        def build() -> Callable:
            import tensorflow as tf

            view = self.logit_model()
            return lambda squares: tf.gradients(view([squares], training=False), squares)

        return self._pass("input gradients", build)(squares[..., None])[0][..., 0]

    def logit_model(self) -> Any:
        """Return a view of the network from [squares] to the logit alone: linear already, so no layer is replaced."""
        import keras

        return keras.Model(self.model.inputs, self.model.output["logit"])

    def feature_map(self, layer: str) -> Any:
        """Return the symbolic output of `layer`, shape (n, h, w, channels).

        Raises
        ------
        ExplanationError
            If the network has no such feature map.
        """
        found = next((each for each in self.model.layers if each.name == layer), None)
        if found is None or len(found.output.shape) != 4:
            raise ExplanationError(f"Expected a layer with a feature map, but the network has none called {layer!r}.")
        return found.output

    def _pass(self, key: str, build: Callable[[], Callable]) -> Callable[[np.ndarray], list[np.ndarray]]:
        """Return the pass called `key`, building and compiling it the first time."""
        with self._lock:
            if key not in self._compiled:
                self._compiled[key] = _compile(build(), self.model.input.shape)
            return self._compiled[key]


def _compile(function: Callable, shape: tuple[int | None, ...]) -> Callable[[np.ndarray], list[np.ndarray]]:
    """Compile `function` of squares of `shape`, together with the gradients it takes, from arrays to arrays.

    The weights stay variables. Freezing them to constants would save a third of a pass of some 30 ms, and cost ten
    seconds and another copy of the weights at the first.
    """
    import tensorflow as tf

    traced = tf.function(function).get_concrete_function(tf.TensorSpec(shape, tf.float32))
    return lambda squares: [answer.numpy() for answer in traced(tf.constant(squares, tf.float32))]
