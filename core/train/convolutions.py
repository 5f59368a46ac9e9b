"""Gradients of convolutions' kernels as products of matrices, where a processor works them out that way sooner.

In bfloat16 the product of two matrices runs on the processor's own units for it (AMX), while the operation that
TensorFlow has for the gradient of a kernel takes two to six times as long for kernels of one pixel, and for larger ones
on the small maps deep in a network. What is computed stays the same, but for rounding; answers and all other gradients
are left to TensorFlow's own operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

FEW_CELLS, MANY_FILTERS = 64, 128
"""A kernel of 3x3 is taken in on maps of at most so many cells, for at least so many filters: else it is slower."""


def quicken_kernels(model: Any) -> None:
    """Let a network that is trained in bfloat16 on a processor work out its kernels' gradients by products of matrices.

    Nothing changes on other backends, on GPUs, in other precisions, when films are read, or for other convolutions.

    Parameters
    ----------
    model : keras.Model
        Its ``Conv2D`` layers are changed in place.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return
    for layer in model.layers:
        if type(layer) is keras.layers.Conv2D and _is_sooner(layer):
            layer.convolution_op = _convolve(layer.strides, layer.padding)


def _is_sooner(layer: Any) -> bool:
    plain = layer.groups == 1 and layer.dilation_rate == (1, 1) and layer.data_format == "channels_last"
    if not plain or layer.compute_dtype != "bfloat16":
        return False
    if layer.kernel_size == (1, 1):
        return True
    _, height, width, _ = layer.output.shape
    small = None not in (height, width) and height * width <= FEW_CELLS and layer.filters >= MANY_FILTERS
    return small and layer.kernel_size == (3, 3) and layer.strides == (1, 1) and layer.padding == "same"


def _convolve(strides: Sequence[int], padding: str) -> Any:
    """Return what takes the place of a layer's ``convolution_op``."""
    import tensorflow as tf

    steps, padding = [1, *strides, 1], padding.upper()

    @tf.custom_gradient
    def convolve(films: Any, kernel: Any) -> Any:
        def gradients(slope: Any) -> tuple[Any, Any]:
            of_films = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(films), filter=kernel, out_backprop=slope, strides=steps, padding=padding
            )
            return of_films, kernel_gradient(films, slope, kernel.shape[0], strides)

        return tf.nn.conv2d(films, kernel, steps, padding), gradients

    def call(inputs: Any, kernel: Any) -> Any:
        return convolve(inputs, tf.convert_to_tensor(kernel.value if hasattr(kernel, "value") else kernel))

    return call


def kernel_gradient(films: Any, slope: Any, side: int, strides: Sequence[int] = (1, 1)) -> Any:
    """Return the gradient of a convolution's kernel: each of its pixels is a product of two matrices.

    Parameters
    ----------
    films : tf.Tensor
        What is convolved, (n, height, width, channels).
    slope : tf.Tensor
        Gradient of the convolution's answers, (n, height', width', filters).
    side : int
        Of the kernel: 1, or 3 with steps of one and what lies beyond the edge taken as 0.
    strides : sequence of int
        Steps down and across.

    Returns
    -------
    tf.Tensor
        (side, side, channels, filters).
    """
    import tensorflow as tf

    channels, filters = films.shape[-1], slope.shape[-1]
    slopes = tf.reshape(slope, (-1, filters))
    if side == 1:
        # A slice is a copy, even one of everything.
        seen = films if tuple(strides) == (1, 1) else films[:, :: strides[0], :: strides[1]]
        product = tf.matmul(tf.reshape(seen, (-1, channels)), slopes, transpose_a=True)
        return product[tf.newaxis, tf.newaxis]
    height, width = slope.shape[1:3]
    edge = side // 2
    padded = tf.pad(films, [[0, 0], [edge, edge], [edge, edge], [0, 0]])
    shifted = [
        padded[:, down : down + height, across : across + width] for down in range(side) for across in range(side)
    ]
    products = [tf.matmul(tf.reshape(each, (-1, channels)), slopes, transpose_a=True) for each in shifted]
    return tf.reshape(tf.stack(products), (side, side, channels, filters))
