"""The same network with its weights shuffled, from the answer downwards: a map that stays the same does not follow it.

Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018, arXiv:1810.03292, the cascading randomisation.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from core.backbones import find_backbone
from core.errors import ExplanationError
from core.values import Checkpoint

if TYPE_CHECKING:
    import keras

DEPTHS = ("head", "deep", "all")
"""How far down weights are shuffled: the layers after the last feature map; after that of stride 16 too; all."""


class ScrambledClassifier:
    """A copy of a classifier whose squares can be explained like its own, and whose weights can be shuffled.

    The classifier that it is made from is not changed. Each weight tensor of a layer keeps its values in another order,
    so that nothing grows or vanishes that did not before; normalisation layers stay as they are.

    Parameters
    ----------
    classifier : core.classifier.Classifier

    Attributes
    ----------
    lock : threading.Lock
        Held by whoever scrambles and asks: the copy has one state, and several threads may share it.
    """

    def __init__(self, classifier: Any) -> None:
        import keras
        import tensorflow as tf

        self.checkpoint: Checkpoint = classifier.checkpoint
        self.lock = threading.Lock()
        self._source = classifier.model
        self.model: keras.Model = keras.models.clone_model(classifier.model)
        signature = tf.TensorSpec(self.model.input.shape, tf.float32)
        # The weights stay variables, so that what was compiled answers with whatever they hold now.
        forward = tf.function(lambda squares: self.model(squares, training=False))
        self._answer = forward.get_concrete_function(signature)
        self.scramble(None)

    def scramble(self, depth: str | None, seed: int = 0) -> None:
        """Shuffle the weights down to `depth`, one of `DEPTHS`; None: none, the network as it is.

        Raises
        ------
        ExplanationError
            There is no such depth.
        """
        layers = () if depth is None else layers_down_to(self.model, self.checkpoint, depth)
        for place, (layer, source) in enumerate(zip(self.model.layers, self._source.layers, strict=True)):
            weights = source.get_weights()
            if layer.name in layers:
                random = np.random.default_rng([seed, place])
                weights = [random.permutation(each.ravel()).reshape(each.shape) for each in weights]
            layer.set_weights(weights)

    def run(self, squares: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs of squares, shape (n, size, size, 1), as ``core.classifier.Classifier.run``."""
        import tensorflow as tf

        answers = self._answer(tf.constant(squares, tf.float32))
        return {name: value.numpy() for name, value in answers.items()}


def layers_down_to(model: keras.Model, checkpoint: Checkpoint, depth: str) -> frozenset[str]:
    """Return the names of the layers that are shuffled down to `depth`: those with weights, without normalisations."""
    import keras

    if depth not in DEPTHS:
        raise ExplanationError(f"Expected one of the depths {', '.join(DEPTHS)}, but it is {str(depth)[:40]!r}.")
    normalisations = (keras.layers.BatchNormalization, keras.layers.Normalization)
    last = {"head": checkpoint.feature_layer, "deep": find_backbone(checkpoint.backbone).location_layer, "all": None}
    names = [layer.name for layer in model.layers]
    kept = names[: names.index(last[depth]) + 1] if last[depth] else []
    return frozenset(
        layer.name
        for layer in model.layers
        if layer.weights and layer.name not in kept and not isinstance(layer, normalisations)
    )
