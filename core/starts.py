"""Starts for training beyond a backbone's own published weights.

No ImageNet weights of EfficientNetB0 may be at hand where those of EfficientNet-Lite0 are. The two share every
convolution's name and shape; what Lite0 lacks is squeeze-and-excitation, and its activation is ReLU6 instead of swish.
Copied over as they are, the weights mean nothing, but training from them is far quicker than from random numbers.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from core.backbones import BACKBONES, are_published, build_classifier, find_backbone, read_lite0_file
from core.errors import CheckpointError

if TYPE_CHECKING:
    import keras

IMAGENET_START, LITE0_START, NO_START = "imagenet", "lite0", "none"
START_LICENCES = {LITE0_START: BACKBONES["efficientnetlite0"].weights_licence}
# A squeeze-and-excitation gate is a logistic function: with small kernels and this bias it lets 95% of everything pass.
GATE_BIAS = 3.0
GATE_SCALE = 0.1
# What Keras calls the files that it fetches.
_KERAS_FILES = {
    "resnet50": "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
    "efficientnetb0": "efficientnetb0_notop.h5",
    "densenet169": "densenet169_weights_tf_dim_ordering_tf_kernels_notop.h5",
}


@dataclass(frozen=True)
class Start:
    """What is known of a start before anything is trained.

    Attributes
    ----------
    possible : bool
        False where a training would end at once, because the weights are not to be had.
    at_hand : bool
        Whether it takes neither a network nor anything that is to be installed.
    sentence : str
        What must be known of it, or be done first; "" where there is nothing to say.
    """

    possible: bool = True
    at_hand: bool = True
    sentence: str = ""


def look_at_start(backbone: str, weights: str) -> Start:
    """Tell whether a training can start from these weights, without loading Keras or asking the network.

    Parameters
    ----------
    backbone : str
        A key of :data:`core.backbones.BACKBONES`.
    weights : str
        ``"imagenet"``, ``"lite0"``, ``"none"``, or a checkpoint or file, which is taken to be there.

    Raises
    ------
    CheckpointError
        There is no such backbone.
    """
    title = find_backbone(backbone).title
    if weights == NO_START:
        return Start(
            sentence="From random numbers a network learns slowly; ImageNet weights are the better start where they "
            "can be had."
        )
    if weights == LITE0_START or (weights, backbone) == (IMAGENET_START, "efficientnetlite0"):
        try:
            # What a training would read, and refuse in the same words.
            read_lite0_file(None, BACKBONES["efficientnetlite0"])
        except CheckpointError as error:
            return Start(possible=False, at_hand=False, sentence=str(error))
    elif weights == IMAGENET_START and not _has_fetched(backbone):
        return Start(
            at_hand=False,
            sentence=f"The ImageNet weights of {title} are not on this computer: the training begins by fetching them "
            "from the network, and ends at once where there is none.",
        )
    return Start()


def choose_start(backbone: str, checkpoints: Iterable[str] = ()) -> str:
    """Return what a training starts from where nobody chooses: the best start that is on this computer.

    Parameters
    ----------
    backbone : str
    checkpoints : iterable of str
        Those of this backbone that may be started from where its ImageNet weights are not at hand, best first.

    Returns
    -------
    str
        ``"imagenet"``, a checkpoint's id, or else ``"none"``.
    """
    if look_at_start(backbone, IMAGENET_START).at_hand:
        return IMAGENET_START
    return next(iter(checkpoints), NO_START)


def _has_fetched(backbone: str) -> bool:
    """Tell whether Keras has fetched a backbone's published weights before, and whole."""
    path = _keras_folder() / "models" / _KERAS_FILES[backbone]
    try:
        status = path.stat()
        return _is_published(path, backbone, status.st_size, status.st_mtime_ns)
    except (OSError, CheckpointError):
        return False


@lru_cache(maxsize=8)
def _is_published(path: Path, backbone: str, _size: int, _changed: int) -> bool:
    """Tell whether a file is the published one; each file is read once, since that takes a while."""
    return are_published(path, backbone)


def _keras_folder() -> Path:
    """Return where Keras keeps what it fetches, found as Keras finds it, which takes seconds to import."""
    spare = Path(tempfile.gettempdir()) / ".keras"
    told = os.environ.get("KERAS_HOME")
    folder = Path(os.path.expanduser(told or os.path.join("~", ".keras")))
    return folder if os.access(folder, os.W_OK) else spare


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
