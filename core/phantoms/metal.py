"""Discs and rods of metal, laid on a film pixel by pixel."""

from __future__ import annotations

import math

import cv2
import numpy as np

from core.phantoms import projection
from core.phantoms.views import View


def stamp(layer: np.ndarray, frame: projection.Frame, outline: np.ndarray, amount: float) -> None:
    """Add `amount` inside an outline in mm; drawn four times as fine, since a wire is a pixel or two wide."""
    pixels = frame.place(outline)
    box = projection.bounds(pixels, frame, 2)
    if box is None:
        return
    top, left, bottom, right = box
    fine = np.zeros((4 * (bottom - top), 4 * (right - left)), np.uint8)
    corners = (pixels - [left, top]) * 4 - 0.5
    cv2.fillPoly(fine, [np.round(corners * 16).astype(np.int32)], 255, cv2.LINE_8, 4)
    inside = cv2.resize(fine, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
    layer[top:bottom, left:right] += inside.astype(np.float32) * np.float32(amount / 255)


def disc(centre, across: float, along: float) -> np.ndarray:
    """Return the outline (20, 2) of an ellipse with half axes in mm."""
    angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    return np.column_stack([np.cos(angle) * across, np.sin(angle) * along]) + centre


def depth_of(view: View, x: float, z: float) -> float:
    """Return a length along the beam."""
    return View(view.name, view.angle + 90).mix(x, z)


def rod(layer, frame, start, end, depth: float, radius: float, metal: float, threaded: bool = False) -> None:
    """Draw a cylinder whose ends lie at `start` and `end` on the film and `depth` mm apart along the beam."""
    step = np.subtract(end, start)
    length = float(np.hypot(*step))
    area = 2 * radius * length + math.pi * radius**2
    amount = metal * math.pi * radius**2 * max(math.hypot(length, depth), radius) / area
    if length < radius:
        stamp(layer, frame, disc(start + step / 2, radius + length / 2, radius + length / 2), min(amount, 4.0))
        return
    along = step / length
    across = np.array([along[1], -along[0]])
    count = max(2 * int(length / 1.25), 2) if threaded else 2
    half = radius * (1 + (0.17 * (-1.0) ** np.arange(count) if threaded else np.zeros(count)))[:, None]
    middle = np.asarray(start) + np.linspace(0, 1, count)[:, None] * step
    stamp(layer, frame, np.vstack([middle + across * half, (middle - across * half)[::-1]]), min(amount, 4.0))
