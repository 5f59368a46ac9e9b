"""Casts and splints: plaster, fibreglass, a one-sided slab, a padded metal strip."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from core.phantoms import projection
from core.phantoms.views import View

# Share of the studies with a cast or a splint.
CAST_SHARE = 0.09
# Attenuation per mm, relative roughness of the fabric.
_STUFF = {"plaster": (0.036, 0.05), "fibreglass": (0.022, 0.08), "metal": (0.16, 0.0)}

_KINDS = (("plaster", True), ("fibreglass", True), ("plaster", False), ("fibreglass", False), ("metal", False))


@dataclass(frozen=True)
class Plaster:
    """A cast or splint. `facing` is the side a slab covers (0 palm, 90 ulna), `arc` half the angle it reaches round.

    Attributes
    ----------
    stuff : str
        ``"plaster"``, ``"fibreglass"`` or ``"metal"``.
    thickness, padding : float
        Millimetres.
    facing, arc : float
        Degrees; an arc of 180 is a whole tube.
    low, high : float
        Ends along the limb, mm.
    seed : int
    """

    stuff: str
    thickness: float
    padding: float
    facing: float
    arc: float
    low: float
    high: float
    seed: int


def draw_plaster(rng: np.random.Generator) -> Plaster | None:
    """Draw a cast or a splint, or None."""
    there = rng.random() < CAST_SHARE
    stuff, whole = _KINDS[int(rng.choice(5, p=(0.3, 0.27, 0.23, 0.1, 0.1)))]
    thickness = {"plaster": (2.5, 6.0), "fibreglass": (1.6, 3.0), "metal": (1.0, 1.6)}[stuff]
    item = Plaster(
        stuff=stuff,
        thickness=float(rng.uniform(*thickness)),
        padding=float(rng.uniform(0.8, 4.5)),
        facing=float(rng.choice([0.0, 180.0, -90.0]) + rng.normal(0, 10)),
        arc=180.0 if whole else float(rng.uniform(60, 105)) if stuff != "metal" else float(rng.uniform(22, 35)),
        low=-float(rng.uniform(130, 320)),
        high=float(rng.uniform(25, 88)),
        seed=int(rng.integers(2**31)),
    )
    return item if there else None


def width_of(outline: np.ndarray, along: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the greatest x of a closed outline (n, 2) at heights `along` (m,), clamped to its ends."""
    low, high = outline[:, 1].min(), outline[:, 1].max()
    level = np.clip(along, low + 1e-3 * (high - low), high - 1e-3 * (high - low))[:, None]
    (x0, y0), (x1, y1) = outline.T, np.roll(outline, -1, axis=0).T
    crossing = (y0 > level) != (y1 > level)
    step = np.where(y1 == y0, 1.0, y1 - y0)
    x = x0 + (level - y0) / step * (x1 - x0)
    return np.where(crossing, x, np.inf).min(axis=1), np.where(crossing, x, -np.inf).max(axis=1)


def project_plaster(item: Plaster, skin: np.ndarray, frame: projection.Frame, view: View) -> np.ndarray:
    """Return the attenuation (float32, the frame's shape) of a cast around the forearm and palm of one view.

    The limb is taken as round at every height. Each ray meets the wall twice, on the side of the tube and on that of
    the detector, at azimuths that depend on the view; a slab is there on the azimuths it covers.
    """
    rng = np.random.default_rng(item.seed)
    x, y = frame.grid((0, 0, *frame.shape))
    steps = np.linspace(item.low - 8, item.high + 8, 120)
    least, most = width_of(skin, steps)
    kernel = np.hanning(11) / np.hanning(11).sum()
    middle, half = (
        np.convolve(np.pad(v, 5, "edge"), kernel, "valid") for v in ((least + most) / 2, (most - least) / 2)
    )
    middle = middle + np.interp(steps, np.linspace(steps[0], steps[-1], 9), rng.normal(0, 0.8, 9))
    inner = half + item.padding + np.interp(steps, np.linspace(steps[0], steps[-1], 14), rng.normal(0, 0.7, 14))
    x = x - np.interp(y, steps, middle).astype(np.float32)
    a = np.interp(y, steps, inner).astype(np.float32)
    wall = np.float32(item.thickness)
    grain = projection.texture(frame, (0, 0, *frame.shape), 1, np.zeros(2), np.array([0.0, 0.4]), rng.random(2))
    blotch = projection.texture(frame, (0, 0, *frame.shape), 1, np.zeros(2), np.array([0.0, 0.08]), rng.random(2))
    wall = np.maximum(wall * (1 + np.float32(0.07 if item.stuff != "metal" else 0) * blotch), np.float32(0.4))
    outer = np.sqrt(np.clip(np.square(a + wall) - np.square(x), 0, None))
    path = np.minimum(outer - np.sqrt(np.clip(np.square(a) - np.square(x), 0, None)), 14)
    cover = _cover(item, x / (a + wall), view) if item.arc < 180 else np.float32(2)
    ragged = y + np.sin(0.3 * x) + np.float32(0.5) * grain
    ends = np.clip((ragged - item.low) / 2, 0, 1) * np.clip((item.high - ragged) / 2, 0, 1)
    per_mm, rough = _STUFF[item.stuff]
    return (np.float32(per_mm) * path * cover * ends * (1 + np.float32(rough) * grain)).astype(np.float32)


def _cover(item: Plaster, across: np.ndarray, view: View) -> np.ndarray:
    """Return how many of the two walls a ray meets are covered, 0 to 2; `across` is -1 to 1 over the tube."""
    near = np.arcsin(np.clip(across, -1, 1))
    # The azimuth counts from the palm towards the ulna; a film looks along +z of the view.
    facing = math.radians(item.facing) + math.radians(view.angle)
    total = np.zeros(across.shape, np.float32)
    for azimuth in (near, math.pi - near):
        away = np.abs((azimuth - facing + math.pi) % (2 * math.pi) - math.pi)
        total += np.clip((math.radians(item.arc) - away) / 0.05 + 0.5, 0, 1)
    return total
