"""What training makes small: losses of the label, the location head, the wrist finder and of teachers.

Each takes (target, answer) with one row a film and returns one number a film; all are written in ``keras.ops``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from core.train.presets import option
from core.values import TrainingSettings

# A cell of the location head with a fracture in it counts this many times one without.
LOCATION_POSITIVE = 10.0


def cross_entropy(target: Any, logit: Any) -> Any:
    """Return the binary cross-entropy of logits to targets in [0, 1], element by element."""
    from keras import ops

    return ops.maximum(logit, 0.0) - logit * target + ops.log1p(ops.exp(-ops.abs(logit)))


def label_loss(settings: TrainingSettings, weights: tuple[float, float] = (1.0, 1.0)) -> Callable[[Any, Any], Any]:
    """Return the loss of the label.

    A film counts by the weight of its class; a mixed film, whose label lies between 0 and 1, by the mixed weight.
    The focal loss is the cross-entropy times ``|target - probability| ** gamma`` (Lin et al. 2017,
    https://arxiv.org/abs/1708.02002, in the form for soft targets of Li et al. 2020, https://arxiv.org/abs/2006.04388).
    The mean is over films, not over weights, as with Keras' class weights.

    Parameters
    ----------
    settings : TrainingSettings
        `label_smoothing`, and of `extra`: ``loss``, ``focal_gamma``.
    weights : tuple of float
        Of classes 0 and 1.
    """
    smoothing = settings.label_smoothing
    gamma = float(option(settings, "focal_gamma")) if option(settings, "loss") == "focal" else None

    def loss(target: Any, logit: Any) -> Any:
        from keras import ops

        soft = target * (1.0 - smoothing) + 0.5 * smoothing
        value = cross_entropy(soft, logit)
        if gamma is not None:
            # The absolute value of 0 has no slope, and a power below 1 has none there either.
            value = value * (ops.abs(soft - ops.sigmoid(logit)) + 1e-7) ** gamma
        return ops.mean((weights[0] + (weights[1] - weights[0]) * target) * value, axis=-1)

    return loss


def class_weights(asked: Any, labels: Sequence[int]) -> tuple[float, float]:
    """Return the weights of classes 0 and 1.

    Parameters
    ----------
    asked : None, "balanced" or Mapping
        As the setting ``class_weights``.
    labels : sequence of int
        Of the films trained on.
    """
    if isinstance(asked, Mapping):
        return float(asked["0"]), float(asked["1"])
    positive = sum(labels)
    negative = len(labels) - positive
    if asked is None or not positive or not negative:
        return 1.0, 1.0
    return len(labels) / (2 * negative), len(labels) / (2 * positive)


def location_loss(target: Any, logit: Any) -> Any:
    """Return the location head's weighted cross-entropy, mean over cells; `target`: mask, and how much it counts."""
    from keras import ops

    mask, counts = target[..., :1], target[..., 1:2]
    return ops.mean(counts * (1.0 + (LOCATION_POSITIVE - 1.0) * mask) * cross_entropy(mask, logit), axis=(1, 2, 3))


def maps_loss(target: Any, maps: Any) -> Any:
    """Return the finder's loss: heat everywhere, side and direction where the wrist is."""
    from keras import ops

    heat, counts = target[..., :1], target[..., 4]
    # Against the entropy of the soft target, so that a perfect answer costs nothing.
    floor = cross_entropy(heat, ops.log((heat + 1e-4) / (1.0 - heat + 1e-4)))
    hot = ops.sum((1.0 + 4.0 * heat) * (cross_entropy(heat, maps[..., :1]) - floor), axis=(1, 2, 3)) / 20.0
    total = ops.sum(counts, axis=(1, 2)) + 0.5
    side = ops.sum(counts * ops.abs(target[..., 1] - maps[..., 1]), axis=(1, 2)) / total
    turn = ops.sum(counts * ops.sum(ops.square(target[..., 2:4] - maps[..., 2:4]), axis=-1), axis=(1, 2)) / total
    return hot + side + turn


def feature_loss(target: Any, features: Any) -> Any:
    """Return the mean squared error over the variance of the teacher's features in this batch."""
    from keras import ops

    target, features = ops.cast(target, "float32"), ops.cast(features, "float32")
    spread = ops.var(target) + 1e-6
    return ops.mean(ops.square(target - features), axis=(1, 2, 3)) / spread


def soft_label_loss(target: Any, logit: Any) -> Any:
    """Return the cross-entropy to the teachers' probability, less what the best answer would cost."""
    from keras import ops

    certain = ops.clip(target, 1e-6, 1.0 - 1e-6)
    return ops.mean(cross_entropy(target, logit) - cross_entropy(target, ops.log(certain / (1.0 - certain))), axis=-1)
