"""Local contrast normalisation: how far each part of a film stands out from its surroundings.

Makers of detectors, exposures and viewers differ in how bright and how contrasty they show the same bone. Each pixel is
therefore measured from the mean of its surroundings, in units of their standard deviation (Jarrett et al. 2009, "What
is the best multi-stage architecture for object recognition?", section 2, https://doi.org/10.1109/ICCV.2009.5459469; a
box in place of their Gaussian window). It is part of the network's graph and has no weights.
"""

from __future__ import annotations

import math
from typing import Any

CELLS_A_SIDE = 40
"""The means are taken on a coarse grid of about so many cells a side, which costs next to nothing."""
WINDOW_CELLS = 9
"""Side of the surroundings in such cells: about 24 mm of a wrist's square of 106 mm, as wide as the radius."""
FLOOR = 0.03
"""Added to the deviation (as a root of squares): flat parts of a film stay flat."""
MIDDLE, DEVIATION = 0.45, 0.2
"""What a pixel as bright as its surroundings becomes, and one that is a deviation brighter becomes more than that."""


def level_contrast(film: Any, size: int) -> Any:
    """Return the film with its contrast levelled, as Keras layers.

    Parameters
    ----------
    film : keras.KerasTensor
        float32 (n, size, size, 1), [0, 1].
    size : int
        Pixels a side.

    Returns
    -------
    keras.KerasTensor
        float32 (n, size, size, 1), [0, 1]: ``MIDDLE + DEVIATION * (film - mean) / sqrt(variance + FLOOR**2)``, clipped.
        Mean and variance are those of the surroundings that lie on the film.
    """
    from keras import layers, ops

    step = max(1, round(size / CELLS_A_SIDE))
    over = math.ceil(size / step) * step - size

    def surroundings(picture: Any) -> Any:
        coarse = layers.AveragePooling2D(step, padding="same", dtype="float32")(picture)
        coarse = layers.AveragePooling2D(WINDOW_CELLS, strides=1, padding="same", dtype="float32")(coarse)
        smooth = layers.UpSampling2D(step, interpolation="bilinear", dtype="float32")(coarse)
        return layers.Cropping2D(((over // 2, over - over // 2),) * 2, dtype="float32")(smooth) if over else smooth

    away = layers.Subtract(dtype="float32")([film, surroundings(film)])
    variance = surroundings(layers.Multiply(dtype="float32")([away, away]))
    return ops.clip(MIDDLE + DEVIATION * away / ops.sqrt(variance + FLOOR**2), 0.0, 1.0)
