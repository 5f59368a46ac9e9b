"""Starts for training beyond a backbone's own published weights.

No ImageNet weights of EfficientNetB0 may be at hand where those of EfficientNet-Lite0 are. The two share every
convolution's name and shape; what Lite0 lacks is squeeze-and-excitation, and its activation is ReLU6 instead of swish.
Copied over as they are, the weights mean nothing, but training from them is far quicker than from random numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from core.backbones import BACKBONES, build_classifier

if TYPE_CHECKING:
    import keras

IMAGENET_START, LITE0_START = "imagenet", "lite0"
START_LICENCES = {LITE0_START: BACKBONES["efficientnetlite0"].weights_licence}
# A squeeze-and-excitation gate is a logistic function: with small kernels and this bias it lets 95% of everything pass.
GATE_BIAS = 3.0
GATE_SCALE = 0.1


def start_from_lite0(model: keras.Model, weights: str | Path = "imagenet") -> int:
    """Start an EfficientNetB0 from EfficientNet-Lite0's ImageNet weights.

    Both networks take the same film; their preprocessing differs by a factor and a shift for each channel, which go
    into the first convolution and the mean of the normalisation behind it. Every squeeze-and-excitation gate is opened.

    Parameters
    ----------
    model : keras.Model
        An EfficientNetB0 of :func:`core.backbones.build_classifier`; its weights are changed.
    weights : "imagenet" or path
        Where Lite0's weights come from, see :func:`core.backbones.build_classifier`.

    Returns
    -------
    int
        Number of layers that were copied.

    Raises
    ------
    CheckpointError
        The weights are not to be had.
    """
    lite = build_classifier("efficientnetlite0", input_size=32, weights=weights)
    ours = {layer.name: layer for layer in model.layers}
    copied = 0
    for layer in lite.layers:
        # What stands behind the average is the new task's.
        if layer.weights and layer.name in ours and layer.name not in ("hidden", "logit", "location"):
            ours[layer.name].set_weights(layer.get_weights())
            copied += 1
    _fold_preprocessing(ours["stem_conv"], ours["stem_bn"])
    for name, layer in ours.items():
        if name.endswith("_se_expand"):
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel * GATE_SCALE, np.full_like(bias, GATE_BIAS)])
    return copied


def _fold_preprocessing(convolution: keras.layers.Layer, norm: keras.layers.Layer) -> None:
    """Make the first convolution answer B0's preprocessed film as Lite0's answers its own.

    Each sees the film times its own scale plus its own offset, so that what Lite0 sees is a factor times what B0 sees
    plus a shift. Only at the border, where zeros are padded, do the two differ.
    """
    b0, lite = BACKBONES["efficientnetb0"], BACKBONES["efficientnetlite0"]
    factor = np.array(lite.scale) / np.array(b0.scale)
    shift = np.array(lite.offset) - np.array(lite.scale) * np.array(b0.offset) / np.array(b0.scale)
    (kernel,) = convolution.get_weights()
    gamma, beta, mean, variance = norm.get_weights()
    mean = mean - np.einsum("hwio,i->o", kernel, shift)
    convolution.set_weights([kernel * factor[None, None, :, None]])
    norm.set_weights([gamma, beta, mean, variance])
