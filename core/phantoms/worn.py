"""What people wear on a film: rings, bracelets, watches, buttons, a cannula, leads."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from core.phantoms.anatomy import Patient
from core.phantoms.metal import disc, rod, stamp
from core.phantoms.plaster import width_of


@dataclass(frozen=True)
class Worn:
    """What somebody wears: kind, place along the limb in mm (or along a finger's bone, 0 to 1), size in mm, a seed."""

    kind: str
    place: float
    size: float
    seed: int


def draw_worn(rng: np.random.Generator, patient: Patient) -> tuple[Worn, ...]:
    """Draw rings, bracelets, a watch, a cannula, leads, buttons: each seldom."""
    worn = []
    for kind, share, place, size in (
        ("ring", 0.015 if patient.child else 0.08, (0.3, 0.6), (1.6, 3.6)),
        ("bracelet", 0.025, (-60, -22), (1.2, 3.0)),
        ("watch", 0.006, (-48, -25), (13, 19)),
        ("cannula", 0.012, (-30, 60), (0.5, 0.9)),
        ("lead", 0.014, (-150, 60), (0.5, 1.1)),
        ("buttons", 0.018, (-170, -40), (3.5, 6.5)),
    ):
        there = rng.random() < share
        values = (float(rng.uniform(*place)), float(rng.uniform(*size)), int(rng.integers(2**31)))
        if there:
            worn.append(Worn(kind, *values))
    return tuple(worn)


def _wear_ring(layer, frame, view, limb, item: Worn) -> None:
    """Draw a finger ring: a band across the bone, at times open towards the eye, at times with a stone."""
    rng = np.random.default_rng(item.seed)
    start, end = limb.ringed.axis
    along = (end - start) / max(float(np.hypot(*(end - start))), 1e-6)
    across = np.array([along[1], -along[0]])
    middle = start + (end - start) * item.place
    open_to_eye = rng.uniform(0, 3.5)
    angle = np.linspace(0, 2 * np.pi, 33)
    for inner in (0.0, 1.6):
        reach, rise = 10.4 - inner, open_to_eye + item.size / 2
        rise = rise if not inner else max(open_to_eye - item.size / 2, 0.0)
        ellipse = np.cos(angle)[:, None] * across * reach + np.sin(angle)[:, None] * along * rise
        stamp(layer, frame, middle + ellipse, 2.6 if not inner else (-2.2 if rise else 0.0))
    if rng.random() < 0.35:
        stamp(layer, frame, disc(middle + across * rng.uniform(-9, 9), *rng.uniform(2.5, 5.5, 2)), 1.6)


def _around(limb, place: float) -> tuple[float, float]:
    """Return middle and half width of the skin at a height."""
    low, high = width_of(limb.skin, np.array([place]))
    return float(low[0] + high[0]) / 2, float(high[0] - low[0]) / 2


def _wear_bracelet(layer, frame, view, limb, item: Worn) -> None:
    rng = np.random.default_rng([item.seed, view.name == "LATERAL"])
    middle, half = _around(limb, item.place)
    half = half + rng.uniform(1, 6)
    flat = rng.uniform(0.04, 0.35)
    tilt = math.radians(rng.normal(0, 8))
    turned = np.array([[math.cos(tilt), math.sin(tilt)], [-math.sin(tilt), math.cos(tilt)]])
    for inner, amount in ((0.0, 2.4), (item.size, -2.2)):
        rise = half * flat + item.size / 2 - inner
        if rise > 0:
            stamp(layer, frame, disc((0, 0), half - inner, rise) @ turned + [middle, item.place], amount)


def _wear_watch(layer, frame, view, limb, item: Worn) -> None:
    middle, half = _around(limb, item.place)
    x, y = half + 2, 8.0
    strap = np.array([(-x, -y), (x, -y), (x, y), (-x, y)]) + np.array([middle, item.place])
    stamp(layer, frame, strap, 0.12)
    flat, edge = abs(view.mix(1, 0)), abs(view.mix(0, 1))
    across = item.size * flat + 4.5 * edge
    off = view.mix(0, -half - 4)
    stamp(layer, frame, disc((middle + off, item.place), across, item.size), 2.8)


def _curve(rng: np.random.Generator, start, steps: int, stride: float, bend: float) -> np.ndarray:
    heading = (
        rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, bend, steps)) + rng.normal(0, bend / 2) * np.arange(steps)
    )
    walk = np.cumsum(np.column_stack([np.cos(heading), np.sin(heading)]) * stride, axis=0)
    return np.asarray(start) + walk


def _ribbon(path: np.ndarray, half: float) -> np.ndarray:
    along = np.gradient(path, axis=0)
    across = np.column_stack([along[:, 1], -along[:, 0]]) / np.linalg.norm(along, axis=1, keepdims=True)
    return np.vstack([path + across * half, (path - across * half)[::-1]])


def _wear_cannula(layer, frame, view, limb, item: Worn) -> None:
    rng = np.random.default_rng([item.seed, view.name == "LATERAL"])
    middle, half = _around(limb, item.place)
    start = np.array([middle + rng.uniform(-0.7, 0.7) * half, item.place])
    heading = rng.normal(0, 0.35)
    end = start + 26 * np.array([math.sin(heading), -math.cos(heading)])
    rod(layer, frame, start, end, 0.0, item.size, 0.35)
    rod(layer, frame, start, start - (end - start) * 0.5, 0.0, 3.0, 0.07)
    stamp(layer, frame, _ribbon(_curve(rng, start - (end - start) * 0.5, 30, 4.0, 0.12), 1.4), 0.12)


def _wear_lead(layer, frame, view, limb, item: Worn) -> None:
    rng = np.random.default_rng([item.seed, view.name == "LATERAL"])
    middle, _ = _around(limb, item.place)
    path = _curve(rng, (middle + rng.uniform(-40, 40), item.place), 70, 4.0, 0.1)
    stamp(layer, frame, _ribbon(path, item.size), 1.1)
    if rng.random() < 0.5:
        stamp(layer, frame, disc(path[0], 5, 5), 1.2)


def _wear_buttons(layer, frame, view, limb, item: Worn) -> None:
    rng = np.random.default_rng(item.seed)
    middle, half = _around(limb, item.place)
    off = view.mix(rng.uniform(-0.5, 0.5) * half, half * rng.choice([-1.0, 1.0]))
    metal = rng.random() < 0.5
    for number in range(int(rng.integers(1, 4))):
        centre = (middle + off, item.place + number * rng.uniform(14, 26))
        stamp(layer, frame, disc(centre, item.size, item.size), 1.6 if metal else 0.2)
        stamp(layer, frame, disc(centre, item.size * 0.4, item.size * 0.4), 0.9 if metal else -0.15)


WORN = {
    "ring": _wear_ring,
    "bracelet": _wear_bracelet,
    "watch": _wear_watch,
    "cannula": _wear_cannula,
    "lead": _wear_lead,
    "buttons": _wear_buttons,
}
