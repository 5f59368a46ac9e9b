"""AdamW's update as one operation of TensorFlow for each variable, and no updates that come to nothing.

Keras 3 writes the update out as some fifteen operations, each over all numbers of a variable. On a processor a network
of many weights then spends a good part of each step on them (``python -m core.benchmark --rows train`` measures a whole
step). What is computed stays the same, but for rounding.
"""

from __future__ import annotations

from typing import Any


def make_adamw(*, clipnorm: float | None = None, **settings: Any) -> Any:
    """Return AdamW (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101), its update in one operation.

    On other backends, on GPUs and where several devices train together it is the optimizer of Keras itself.

    Parameters
    ----------
    clipnorm : float or None
        Largest norm of a variable's gradient.
    **settings
        Of ``keras.optimizers.AdamW``.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        return keras.optimizers.AdamW(clipnorm=clipnorm, **settings)
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU") or tf.distribute.has_strategy():
        return keras.optimizers.AdamW(clipnorm=clipnorm, **settings)
    return _fused_adamw()(clipnorm, **settings)


def _fused_adamw() -> type:
    """Return the class; a function, because Keras is imported only where something is trained."""
    import keras
    import tensorflow as tf

    class FusedAdamW(keras.optimizers.AdamW):
        """Keras' AdamW with another way to carry out one step of one variable."""

        def __init__(self, largest_norm: float | None, **settings: Any) -> None:
            super().__init__(**settings)
            self.largest_norm = largest_norm

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            gradient = tf.cast(gradient, variable.dtype)
            if self.largest_norm:
                norm = tf.sqrt(2.0 * tf.nn.l2_loss(gradient))
                gradient *= self.largest_norm / tf.maximum(norm, self.largest_norm)
            step = tf.cast(self.iterations.value + 1, variable.dtype)
            place = self._get_variable_index(variable)
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=self._momentums[place].value.handle,
                v=self._velocities[place].value.handle,
                beta1_power=self.beta_1**step,
                beta2_power=self.beta_2**step,
                lr=tf.cast(learning_rate, variable.dtype),
                beta1=self.beta_1,
                beta2=self.beta_2,
                epsilon=self.epsilon,
                grad=gradient,
            )

    return FusedAdamW


def rest_biases(model: Any) -> None:
    """Let no bias be trained that the batch normalisation after it takes away again.

    While such a normalisation is trained it subtracts the batch's mean, and any bias with it: the bias' gradient is 0
    but for rounding, which Adam would blow up to full steps, and working it out makes a convolution's gradient slower.

    Parameters
    ----------
    model : keras.Model
        Its layers are frozen as they are to be: only biases before a normalisation that is trained are touched.
    """
    for layer in model.layers:
        if getattr(layer, "bias", None) is None or not layer.trainable:
            continue
        after = [node.operation for node in layer._outbound_nodes]
        norms = [each for each in after if type(each).__name__ == "BatchNormalization" and each.trainable]
        if after and len(norms) == len(after):
            layer.bias.trainable = False
