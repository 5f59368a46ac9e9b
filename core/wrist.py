"""Where the wrist is on a film: a small network that looks at the whole film and answers with a square.

Films of one wrist come as tight wrists, whole hands and whole forearms, in any direction. A classifier that was trained
on one scale reads them only if the wrist is found first. The finder is the front part of EfficientNet-Lite0 with a
light head that answers, for each cell of a grid over the film, "is the centre of the wrist here?", how large the
wrist is and where the fingers point (after CenterNet, Zhou et al. 2019, https://arxiv.org/abs/1904.07850).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.backbones import build_classifier, freeze
from core.checkpoints import CHECKPOINTS, find_checkpoint, verify
from core.checkpoints.weights import WEIGHTS_NAME, load_weights
from core.errors import CheckpointError
from core.radiographs import SquareFit, fit_square
from core.values import Checkpoint, Radiograph, WristRegion

BACKBONE = "efficientnetlite0"
STRIDE = 8
"""Pixels of the network's input that one cell of the grid covers."""
MAPS = "maps"
"""Name of the network's output, (cells, cells, 4): heat logit, log2(side / input size), sine, cosine of direction."""
WINDOW_CELLS = 3
"""The centre is the mean of the heat within this many cells of the hottest one."""
CLOSER = 2.0
"""Sides of the square that a closer look sees, over the side that the look before it found."""
CLOSER_LOOKS = 2
"""How often new finders look closer; a finder's own number is its card's `looks`, which its confidence was set with."""
WITHIN = 0.15
"""A wrist counts as found where its centre lies within this share of its square's side."""


@dataclass(frozen=True, eq=False)
class GridReading:
    """What one grid of the finder says, in fractions of the square it looked at.

    Attributes
    ----------
    x, y : float
        Centre of the wrist; (0, 0) the top-left corner of the square, (1, 1) its bottom-right corner.
    side : float
        Side of the wrist's square over the side of the square looked at.
    angle : float
        Direction of the fingers in degrees, clockwise from the top, (-180, 180].
    heat : float
        The highest heat logit.
    """

    x: float
    y: float
    side: float
    angle: float
    heat: float


def read_grid(maps: np.ndarray) -> GridReading:
    """Read centre, side and direction from one grid.

    Parameters
    ----------
    maps : numpy.ndarray
        (cells, cells, 4): heat logit, log2(side over the square's side), sine and cosine of the fingers' direction.

    Returns
    -------
    GridReading
    """
    maps = np.asarray(maps, dtype=np.float64)
    rows, columns = maps.shape[:2]
    heat = maps[..., 0]
    top, left = np.unravel_index(int(np.argmax(heat)), heat.shape)
    down, across = np.mgrid[:rows, :columns]
    # Squared, so that the many cold cells beside the hot ones do not pull the centre to the window's middle.
    near = (np.abs(down - top) <= WINDOW_CELLS) & (np.abs(across - left) <= WINDOW_CELLS)
    weight = near / np.square(1.0 + np.exp(-np.clip(heat, -30.0, 30.0)))
    weight = weight / weight.sum()
    x = float((weight * (across + 0.5)).sum() / columns)
    y = float((weight * (down + 0.5)).sum() / rows)
    side = float(2.0 ** np.clip((weight * maps[..., 1]).sum(), -6.0, 1.0))
    angle = float(np.degrees(np.arctan2((weight * maps[..., 2]).sum(), (weight * maps[..., 3]).sum())))
    return GridReading(x, y, side, angle if angle > -180.0 else 180.0, float(heat[top, left]))


def draw_grid(x: float, y: float, side: float, angle: float, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the grid that the finder should answer for a known wrist (the reverse of :func:`read_grid`).

    Parameters
    ----------
    x, y, side : float
        In fractions of the square looked at, as in :class:`GridReading`.
    angle : float
        Degrees clockwise from the top.
    cells : int
        Cells a side.

    Returns
    -------
    target : numpy.ndarray
        float32 (cells, cells, 4): heat in [0, 1] (a Gaussian of 0.16 sides, at least 0.8 cells), log2 side, sine,
        cosine.
    weight : numpy.ndarray
        float32 (cells, cells): how much side and direction count in each cell.
    """
    down, across = np.mgrid[:cells, :cells] + 0.5
    sigma = max(0.16 * side * cells, 0.8)
    heat = np.exp(-((across - x * cells) ** 2 + (down - y * cells) ** 2) / (2 * sigma**2))
    target = np.empty((cells, cells, 4), np.float32)
    target[..., 0] = heat
    target[..., 1] = np.log2(side)
    target[..., 2], target[..., 3] = np.sin(np.radians(angle)), np.cos(np.radians(angle))
    return target, np.where(heat > 0.1, heat, 0.0).astype(np.float32)


def confidence_of(heat: float, calibration: Mapping[str, Any] | None) -> float:
    """Return how likely the centre lies within 15% of the side of the true one, [0, 1].

    Parameters
    ----------
    heat : float
        The lowest of the heat logits of all looks.
    calibration : Mapping or None
        ``{"method": "logistic", "weight": w, "bias": b}``, fitted on simulated films with and without a wrist; None:
        the logistic function of the heat alone.
    """
    value = heat if calibration is None else calibration["weight"] * heat + calibration["bias"]
    return float(1.0 / (1.0 + np.exp(-np.clip(value, -50.0, 50.0))))


def build_finder(input_size: int = 192, weights: str | Path | None = None) -> Any:
    """Build the finder's network as a flat Keras graph.

    Parameters
    ----------
    input_size : int
        Pixels a side, a multiple of 16.
    weights : str, pathlib.Path or None
        What the backbone starts from, as in :func:`core.backbones.build_classifier`.

    Returns
    -------
    keras.Model
        Input (n, size, size, 1) in [0, 1]; output ``{"maps": (n, size / 8, size / 8, 4)}``, see ``MAPS``.
    """
    import keras

    whole = build_classifier(BACKBONE, input_size=input_size, weights=weights, location_head=False)
    fine, coarse = (_last_feature(whole, input_size // stride) for stride in (STRIDE, 2 * STRIDE))
    layers = keras.layers
    near = layers.Conv2D(64, 1, use_bias=False, name="finder_near")(fine)
    far = layers.Conv2D(64, 1, use_bias=False, name="finder_far")(coarse)
    far = layers.UpSampling2D(2, interpolation="bilinear", name="finder_up")(far)
    x = layers.Add(name="finder_join")([near, far])
    x = layers.BatchNormalization(momentum=0.9, name="finder_join_bn")(x)
    x = layers.Activation("relu", name="finder_join_relu")(x)
    for step in (1, 2):
        x = layers.SeparableConv2D(64, 5, padding="same", use_bias=False, name=f"finder_mix{step}")(x)
        x = layers.BatchNormalization(momentum=0.9, name=f"finder_mix{step}_bn")(x)
        x = layers.Activation("relu", name=f"finder_mix{step}_relu")(x)
    # A cold start: one wrist in some hundred cells, of about a third of the film.
    start = keras.initializers.Constant
    heat = layers.Conv2D(1, 1, bias_initializer=start(-4.0), name="finder_heat")(x)
    side = layers.Conv2D(1, 1, bias_initializer=start(-1.5), name="finder_side")(x)
    direction = layers.Conv2D(2, 1, name="finder_direction")(x)
    maps = layers.Concatenate(name=MAPS)([heat, side, direction])
    return keras.Model(whole.input, {MAPS: maps}, name="wrist_finder")


def _last_feature(model: Any, cells: int) -> Any:
    """Return the last feature map of `model` that has `cells` x `cells` cells."""
    found = None
    for layer in model.layers:
        shape = getattr(layer.output, "shape", ())
        if len(shape) == 4 and shape[1] == cells and shape[2] == cells:
            found = layer.output
    if found is None:
        raise CheckpointError(f"expected a backbone with a {cells} x {cells} feature map, found none")
    return found


class WristFinder:
    """Finds the wrist on any film; made by :func:`load_finder`.

    Attributes
    ----------
    card : Checkpoint
    """

    def __init__(self, card: Checkpoint, answer: Callable[[np.ndarray], Mapping[str, Any]]) -> None:
        self.card = card
        self._answer = answer

    def find(self, radiograph: Radiograph) -> WristRegion:
        """Find the wrist: look at the whole film, then once or twice more closely at what was found.

        Parameters
        ----------
        radiograph : Radiograph
            Of any size.

        Returns
        -------
        WristRegion
            Always a square, also where there is no wrist: then `confidence` is low. It is the share of simulated
            films, found as surely as this one, on which the centre lay within 15% of the side of the true one.
        """
        region, heat = self.look(radiograph)
        return replace(region, confidence=confidence_of(heat, self.card.calibration))

    def look(self, radiograph: Radiograph) -> tuple[WristRegion, float]:
        """Return the square that was found and the lowest heat of all looks; what one look is not sure of is not.

        The card's `looks` says how often the finder looks closer. Once: at the square. Twice: each time at the square
        and its mirror image, and the mean of both is taken, so that a film and its mirror image have nearly the same
        square; the last look starts from a square that is centred already.
        """
        region, heat = self._look(radiograph, None)
        if not all(map(math.isfinite, (region.x, region.y, region.side, region.angle, heat))):
            raise CheckpointError("The wrist finder must answer with numbers, but on this film it does not.")
        for _ in range(self.card.looks):
            region, closer_heat = self._look(radiograph, replace(region, side=CLOSER * region.side))
            heat = min(heat, closer_heat)
        return region, heat

    def _look(self, radiograph: Radiograph, square: WristRegion | None) -> tuple[WristRegion, float]:
        """Look at the whole film or at a square of it; return what was found and its heat."""
        fit = fit_square(radiograph.height, radiograph.width, self.card.input_size, square)
        seen = np.asarray(fit.apply(radiograph.pixels), np.float32)[None, ..., None]
        turned = square.angle if square else 0.0
        if square is None or self.card.looks < CLOSER_LOOKS:
            reading = read_grid(np.asarray(self._answer(seen)[MAPS])[0])
            return to_film(reading, fit, turned), reading.heat
        both = np.asarray(self._answer(np.concatenate([seen, seen[:, :, ::-1]]))[MAPS])
        reading = mean_reading(read_grid(both[0]), mirrored_reading(read_grid(both[1])))
        return to_film(reading, fit, turned), reading.heat


def mirrored_reading(reading: GridReading) -> GridReading:
    """Return what a reading of a mirrored square says of the square itself."""
    return replace(reading, x=1.0 - reading.x, angle=-reading.angle)


def mean_reading(first: GridReading, second: GridReading) -> GridReading:
    """Return the mean of two readings of one square: sides by their logarithms, angles by their directions.

    Where the directions are opposite, the first one's is kept.
    """
    angles = np.radians([first.angle, second.angle])
    across, along = np.sin(angles).mean(), np.cos(angles).mean()
    angle = float(np.degrees(np.arctan2(across, along))) if np.hypot(across, along) > 1e-6 else first.angle
    return GridReading(
        x=(first.x + second.x) / 2,
        y=(first.y + second.y) / 2,
        side=float(np.sqrt(first.side * second.side)),
        angle=angle,
        heat=(first.heat + second.heat) / 2,
    )


def to_film(reading: GridReading, fit: SquareFit, turned: float = 0.0) -> WristRegion:
    """Return a reading of a square as a region of the film in pixels.

    Parameters
    ----------
    reading : GridReading
    fit : SquareFit
        How the square lay on the film.
    turned : float
        The square's own angle on the film, degrees clockwise.
    """
    # Fractions count from the edge of the first pixel; the fit counts from its centre.
    x, y = fit.inverse @ [reading.x * fit.size - 0.5, reading.y * fit.size - 0.5, 1.0] + 0.5
    angle = (reading.angle + turned + 180.0) % 360.0 - 180.0
    return WristRegion(
        float(x), float(y), reading.side * fit.size / fit.scales[0], angle if angle > -180.0 else 180.0, confidence=0.0
    )


def load_finder(checkpoint_id: str, folder: str | Path = CHECKPOINTS) -> WristFinder:
    """Load a published finder, frozen and warmed.

    Parameters
    ----------
    checkpoint_id : str
    folder : str or pathlib.Path
        The folder of checkpoints.

    Raises
    ------
    CheckpointError
        If it is incomplete, altered, or made for something else than finding wrists.
    """
    card, model = load_finder_network(checkpoint_id, folder)
    return WristFinder(card, freeze(model, (MAPS,)))


def load_finder_network(checkpoint_id: str, folder: str | Path = CHECKPOINTS) -> tuple[Checkpoint, Any]:
    """Verify a finder, build its network in code and load its weights; as :func:`load_finder`."""
    card = verify(find_checkpoint(checkpoint_id, Path(folder)))
    if card.task != "wrist":
        raise CheckpointError("A checkpoint that finds wrists was expected, but this one reads films for fractures.")
    _check_calibration(card.calibration)
    model = build_finder(card.input_size)
    load_weights(model, Path(folder) / card.id / WEIGHTS_NAME, card.weights_sha256)
    return card, model


def _check_calibration(calibration: Mapping[str, Any] | None) -> None:
    """Refuse a calibration that :func:`confidence_of` does not know."""
    if calibration is None:
        return
    numbers = (calibration.get("weight"), calibration.get("bias"))
    whole = all(isinstance(number, int | float) and np.isfinite(number) for number in numbers)
    if calibration.get("method") != "logistic" or not whole:
        raise CheckpointError("A finder's calibration must be logistic with a weight and a bias, but it is not.")
