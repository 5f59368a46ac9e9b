"""How a heat map lies to what is outlined on a film: the measurements of a pointing game and its kin.

A map and an outline in, numbers out; no network and no film. The outline may be a simulated break's exact mask, a box
or polygon of a dataset, or what a reader has drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.errors import ExplanationError

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Shares of a map's maximum at which it is cut to compare it with an outline."""

_EDGE_BLUR = 2 / 224


@dataclass(frozen=True, eq=False)
class Localisation:
    """How one heat map lies to one outline.

    Attributes
    ----------
    hit : float
        Share of the map's highest pixels that lie in the outline: 1 or 0 where one pixel is highest; 0 for a map
        without any heat (Zhang et al., Top-down Neural Attention by Excitation Backprop, 2018).
    energy : float
        Share of the heat that lies in the outline; 0 without any heat (Wang et al., Score-CAM, 2020).
    distance : float
        From the map's highest pixel (their mean distance where several are) to the nearest pixel of the outline; NaN
        without any heat.
    unit : str
        Of `distance`: ``"mm"`` where the film says how large its pixels are, else ``"px"``.
    overlaps : tuple of float
        Intersection over union of the outline with the map cut at each of `THRESHOLDS`.
    """

    hit: float
    energy: float
    distance: float
    unit: str
    overlaps: tuple[float, ...]


def localise(heatmap: np.ndarray, outline: np.ndarray, spacing_mm: tuple[float, float] | None = None) -> Localisation:
    """Measure how a heat map lies to an outline.

    Parameters
    ----------
    heatmap : numpy.ndarray
        Shape (height, width), nowhere negative.
    outline : numpy.ndarray
        The same shape, bool or above 0 inside.
    spacing_mm : (float, float), optional
        Height and width of a pixel.

    Raises
    ------
    ExplanationError
        The shapes differ, nothing is outlined, or the map holds what is negative or no number.
    """
    heat, inside = np.asarray(heatmap, np.float64), np.asarray(outline) > 0
    if heat.shape != inside.shape or heat.ndim != 2:
        raise ExplanationError(
            f"Expected a map and an outline of one shape, but they are {heat.shape} and {inside.shape}."
        )
    if not inside.any():
        raise ExplanationError("Expected an outline of something, but nothing is outlined.")
    if not np.isfinite(heat).all() or heat.min() < 0:
        raise ExplanationError("Expected a map of numbers from 0 up, but it holds others.")
    unit, total, peak = "mm" if spacing_mm else "px", heat.sum(), heat.max()
    if peak == 0:
        return Localisation(0.0, 0.0, math.nan, unit, (0.0,) * len(THRESHOLDS))
    away = _distances(inside, spacing_mm or (1.0, 1.0))[heat == peak]
    cut = [heat >= share * peak for share in THRESHOLDS]
    overlaps = tuple(float((each & inside).sum() / (each | inside).sum()) for each in cut)
    hit = float((away == 0).mean())
    return Localisation(hit, float(heat[inside].sum() / total), float(away.mean()), unit, overlaps)


def best_threshold(found: Sequence[Localisation]) -> float:
    """Return the share of the maximum at which maps overlap their outlines best on the whole, one of `THRESHOLDS`.

    The best of many thresholds, chosen on the same films, flatters; all methods are flattered alike.
    """
    means = np.mean([each.overlaps for each in found], axis=0)
    return THRESHOLDS[int(np.argmax(means))]


def _distances(inside: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
    """Return each pixel's distance to the nearest outlined pixel, exact, also where pixels are not square."""
    from scipy.ndimage import distance_transform_edt

    return distance_transform_edt(~inside, sampling=spacing)


def centre_map(height: int, width: int) -> np.ndarray:
    """Return the map of somebody who always points at the middle of the film: falls off evenly to the corners."""
    rows = np.linspace(-1, 1, height)[:, None] if height > 1 else np.zeros((1, 1))
    columns = np.linspace(-1, 1, width)[None] if width > 1 else np.zeros((1, 1))
    return (1 - np.hypot(rows, columns) / math.sqrt(2)).astype(np.float32)


def edge_map(pixels: np.ndarray) -> np.ndarray:
    """Return the map of somebody who points at edges: the gradient's magnitude of the smoothed film, in [0, 1].

    Parameters
    ----------
    pixels : numpy.ndarray
        Float32 (height, width), [0, 1].
    """
    import cv2

    soft = cv2.GaussianBlur(pixels.astype(np.float32), (0, 0), _EDGE_BLUR * max(pixels.shape))
    steep = np.hypot(cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1))
    return steep / steep.max() if steep.max() > 0 else steep
