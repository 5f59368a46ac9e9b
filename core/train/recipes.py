"""Two published recipes, so that those who trained by them can check this program against their own figures.

Each setting is what a recipe documents; where it is silent, what was assumed stands beside it. What no setting brings
back is how the first was measured: its films were augmented on disk (59,171 wrist films made of about 10,400) before
they were dealt out to train, valid and test at random, so that copies of one film lay on both sides. Here patients are
kept apart, and lower figures are to be expected.

``better-mura`` (https://github.com/cletuzz00/Wrist-Fracture-Detection-Using-Convolution-Neural-Networks, README and
``model_final.ipynb``; films: https://www.kaggle.com/datasets/sudhanshusuryawanshi/better-mura)
    Documented: 224 x 224, rotation, shear and brightness, class weights 1.0 and 1.5, global average, ``Dense(64)``,
    dropout 0.3, one sigmoid unit, all but the last 15 layers frozen, Adam at 1e-4, 25 epochs, early stopping after 5
    and a fifth of the rate after 2 epochs without a lower loss on valid, down to 1e-6, the best weights kept.
    From the notebook: the ranges (20 degrees, shear 0.2, brightness 0.5-1.5) and 64 films a batch. Keras reads its
    ``shear_range`` in degrees, so 0.2 hardly moves anything; it is kept.
    In conflict: the README scales pixels to 0-1, the notebook hands 0-255 to the network. The README's is the preset
    (``scaling`` "unit"); the notebook's is ``scaling`` "byte". Neither is what the ImageNet weights of ResNet50 were
    trained with, and EfficientNetB0, which divides by 255 itself, sees next to no contrast with "unit".
    Films that are read whole are stretched to a square, as by Keras' generator; where a finder cuts out the wrist its
    square is read as it is. Not brought back: films of valid augmented too, and, of EfficientNetB0, that one of the 15
    layers was the average, so that ``block7a_expand_bn`` stayed frozen.

``mura-320`` (all seven regions of MURA, DenseNet-169 and ResNet-50)
    Documented: 320 x 320 in grey, flips and rotations of up to 30 degrees, ImageNet's mean and standard deviation,
    Adam, binary cross-entropy.
    Assumed, after Rajpurkar et al. 2017 (https://arxiv.org/abs/1712.06957): flips are left to right, a rate of 1e-4,
    8 films a batch, a tenth of the rate when the loss on valid stops falling. Assumed without a source: 10 epochs,
    black where a turned film ends, no dropout, class weights or early stopping, every layer trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import cv2
import numpy as np

from core.values import TrainingSettings

# Keras' ImageDataGenerator: degrees, degrees, and times the pixels' values.
ROTATION_RANGE, SHEAR_RANGE, BRIGHTNESS_RANGE = 20.0, 0.2, (0.5, 1.5)
MURA_ROTATION_RANGE = 30.0

PRESETS: Mapping[str, TrainingSettings] = MappingProxyType(
    {
        "better-mura": TrainingSettings(
            backbone="",
            weights="imagenet",
            input_size=224,
            epochs=25,
            batch_size=64,
            learning_rate=1e-4,
            warmup_epochs=0.0,
            weight_decay=0.0,
            location_weight=0.0,
            label_smoothing=0.0,
            preset="better-mura",
            extra={
                "scaling": "unit",
                "fit": "stretch",
                "augmentation": "better-mura",
                "class_weights": {"0": 1.0, "1": 1.5},
                "dropout": 0.3,
                "trainable_last": 15,
                "norm_frozen": False,
                "norm_momentum": 0.99,
                "optimizer": "adam",
                "clip_norm": None,
                "schedule": "plateau",
                "plateau_factor": 0.2,
                "plateau_patience": 2,
                "plateau_smallest": 1e-6,
                "early_stopping": 5,
            },
        ),
        "mura-320": TrainingSettings(
            backbone="",
            weights="imagenet",
            input_size=320,
            epochs=10,
            batch_size=8,
            learning_rate=1e-4,
            warmup_epochs=0.0,
            weight_decay=0.0,
            location_weight=0.0,
            label_smoothing=0.0,
            preset="mura-320",
            extra={
                "scaling": "torch",
                "augmentation": "mura-320",
                "dropout": 0.0,
                "norm_frozen": False,
                "norm_momentum": 0.9,
                "optimizer": "adam",
                "clip_norm": None,
                "schedule": "plateau",
                "plateau_factor": 0.1,
                "plateau_patience": 1,
                "plateau_smallest": 1e-7,
            },
        ),
    }
)
"""Name -> settings; `backbone` is the trainer's choice, as both recipes were trained with two of them."""
REGIONS: Mapping[str, str] = MappingProxyType({"mura-320": "all"})
"""Name -> part of the body that a recipe was trained on, where it is not the wrist alone."""


def turn_and_shear(square: np.ndarray, degrees: float, shear_degrees: float, border: int) -> np.ndarray:
    """Rotate and shear a square about its centre, as Keras' ``apply_affine_transform`` does.

    Parameters
    ----------
    square : numpy.ndarray
        float32 (n, n).
    degrees, shear_degrees : float
        Keras' ``theta`` and ``shear``. A pixel at x to the right and y down of the centre of the new square shows what
        lies at ``rotation @ shear @ (x, y)`` in the old one, between pixels by linear interpolation.
    border : int
        OpenCV's border type: what lies outside the old square.

    Returns
    -------
    numpy.ndarray
        float32 (n, n).
    """
    turn, shear = np.radians(degrees), np.radians(shear_degrees)
    linear = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    linear = linear @ np.array([[1.0, -np.sin(shear)], [0.0, np.cos(shear)]])
    size = square.shape[0]
    centre = np.full(2, size / 2 - 0.5)
    matrix = np.column_stack([linear, centre - linear @ centre])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(square, matrix, (size, size), flags=flags, borderMode=border)


def brighten(square: np.ndarray, factor: float) -> np.ndarray:
    """Multiply a square in [0, 1] by `factor`, as Keras' ``apply_brightness_shift`` does.

    Keras leaves the work to Pillow, whose pictures hold whole numbers from 0 to 255: the values are cut to 8 bits
    before and after, and what exceeds white is white.

    Parameters
    ----------
    square : numpy.ndarray
        float32 (n, n) in [0, 1].
    factor : float
        0 is black, 1 changes nothing but the number of bits.

    Returns
    -------
    numpy.ndarray
        float32 (n, n) in [0, 1], whole multiples of 1/255.
    """
    # Films of 8 bits come back as whole numbers only if what dividing by 255 lost is given back before cutting.
    bits = np.floor(square * np.float32(255.0) + np.float32(1e-3))
    return np.minimum(np.floor(bits * np.float32(factor)), 255.0).astype(np.float32) / np.float32(255.0)


def change_better_mura(square: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change a square as ``ImageDataGenerator(rotation_range=20, shear_range=0.2, brightness_range=(0.5, 1.5))`` does.

    Parameters
    ----------
    square : numpy.ndarray
        float32 (n, n) in [0, 1].
    rng : numpy.random.Generator

    Returns
    -------
    numpy.ndarray
        float32 (n, n) in [0, 1]; beyond the film's edge its last pixel is repeated.
    """
    degrees = rng.uniform(-ROTATION_RANGE, ROTATION_RANGE)
    shear_degrees = rng.uniform(-SHEAR_RANGE, SHEAR_RANGE)
    factor = rng.uniform(*BRIGHTNESS_RANGE)
    return brighten(turn_and_shear(square, degrees, shear_degrees, cv2.BORDER_REPLICATE), factor)


def change_mura_320(square: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirror every other square left to right and rotate it by up to 30 degrees either way; beyond its edge is black.

    Parameters
    ----------
    square : numpy.ndarray
        float32 (n, n) in [0, 1].
    rng : numpy.random.Generator

    Returns
    -------
    numpy.ndarray
        float32 (n, n) in [0, 1].
    """
    if rng.random() < 0.5:
        square = np.ascontiguousarray(square[:, ::-1])
    degrees = rng.uniform(-MURA_ROTATION_RANGE, MURA_ROTATION_RANGE)
    return np.clip(turn_and_shear(square, degrees, 0.0, cv2.BORDER_CONSTANT), 0.0, 1.0)


AUGMENTATIONS: Mapping[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = MappingProxyType(
    {"better-mura": change_better_mura, "mura-320": change_mura_320}
)
"""Name -> function of a square, float32 (n, n) in [0, 1], and what is drawn from, to another such square."""
