"""Batch normalisation in training as one operation of TensorFlow.

Keras 3 writes it out as some ten operations over the whole batch, which on a processor can cost more than the
convolutions between them (``python -m core.benchmark --rows train`` measures how much). The weights and
their names stay the same, and so does what is computed, but for rounding.
"""

from __future__ import annotations

from typing import Any


def fuse_norms(model: Any) -> None:
    """Let a network's batch normalisations compute in one operation while they are trained on a processor.

    Nothing changes on other backends, on GPUs, when films are read, or for layers of other shapes.

    Parameters
    ----------
    model : keras.Model
        Its ``BatchNormalization`` layers are changed in place.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return
    for layer in model.layers:
        if type(layer) is keras.layers.BatchNormalization and _is_plain(layer):
            layer.call = _fused_call(layer)


def share_norms(model: Any) -> None:
    """Let a network's batch normalisations take their statistics from all devices' films, not from each one's share.

    So every device, and every machine, keeps the same statistics, and what is measured and published by one is what the
    others have, too.
    """
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True


def _is_plain(layer: Any) -> bool:
    return (
        len(layer.input.shape) == 4
        and layer.axis in (-1, 3)
        and layer.scale
        and layer.center
        and not layer.renorm
        and not layer.synchronized
    )


def _fused_call(layer: Any) -> Any:
    """Return what takes the place of the layer's ``call``."""
    import keras
    import tensorflow as tf

    plain = layer.call

    def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        elsewhere = mask is not None or layer.synchronized or isinstance(inputs, keras.KerasTensor)
        if not (training and layer.trainable) or elsewhere:
            return plain(inputs, training=training, mask=mask)
        answer, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=layer.gamma.value,
            offset=layer.beta.value,
            mean=tf.zeros([0]),
            variance=tf.zeros([0]),
            epsilon=layer.epsilon,
            is_training=True,
        )
        # The operation divides the squares by one less than their number, Keras by their number.
        count = tf.cast(tf.size(inputs) // tf.shape(inputs)[-1], tf.float32)
        variance *= (count - 1.0) / tf.maximum(count, 1.0)
        for kept, new in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
            kept.assign(kept.value * layer.momentum + new * (1.0 - layer.momentum))
        return answer

    return call
