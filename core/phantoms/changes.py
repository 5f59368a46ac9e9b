"""Harmless changes of bone and flesh that may be taken for a break; both classes have them alike, none has a label."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from core.phantoms.anatomy import Bone, Patient
from core.phantoms.projection import Frame
from core.phantoms.views import View

# Share of wrists over which something lies.
_COVERED = 0.06
# Share of wrists that swell.
_SWOLLEN = 0.45
# Stream of random numbers, beside those of the other parts of a person.
_STREAM = 4071


@dataclass(frozen=True)
class Healed:
    """An old break that has healed: slightly bent, thick and dense, without a line; mm and degrees."""

    bone: str
    level: float
    angle: tuple[float, float]
    thick: float
    length: float
    dense: float


@dataclass(frozen=True)
class Spot:
    """A round spot in a bone: lucent (a cyst, negative `amplitude`) or dense (a bone island).

    `place` is a share of the bone's half width in PA and lateral view and of its upper 40 mm or, for a small bone, of
    its half height.
    """

    bone: str
    place: tuple[float, float, float]
    radius: float
    amplitude: float


@dataclass(frozen=True)
class Changes:
    """What is unlike the textbook in one person's wrist and yet not broken.

    Attributes
    ----------
    healed : Healed or None
    harris : tuple of (float, float)
        Harris (growth arrest) lines: mm below the end of the shaft, amplitude.
    arthrosis : float
        How dense and how narrow the worn joints are, [0, 1].
    spots : tuple of Spot
    edges : tuple of (float, float, float, float, float)
        Edges of overlapping soft tissue: x, y in mm, direction in radians, bend per mm, attenuation.
    covers : tuple of (float, float, float, float, float)
        The same of what lies over the limb as a whole beyond an edge: a cushion, a blanket, the other hand.
    fat : float
        Depth of the dark line of fat in front of the pronator quadratus, as attenuation.
    swelling_mm : float
        How far the wrist swells. It does so alike with and without a break: swelling alone must not tell the label.
    """

    healed: Healed | None
    harris: tuple[tuple[float, float], ...]
    arthrosis: float
    spots: tuple[Spot, ...]
    edges: tuple[tuple[float, float, float, float, float], ...]
    covers: tuple[tuple[float, float, float, float, float], ...]
    fat: float
    swelling_mm: float


def draw_changes(patient: Patient, rng: np.random.Generator | None = None) -> Changes:
    """Draw a person's harmless changes.

    Parameters
    ----------
    patient : Patient
    rng : numpy.random.Generator, optional
        One of the person's own where None, so that all films of a person show the same changes.
    """
    rng = rng or np.random.default_rng([patient.seed, _STREAM])
    old = float(np.clip((patient.age - 40) / 40, 0, 1))
    healed = _draw_healed(rng) if rng.random() < 0.07 else None
    lines = int(rng.integers(1, 5)) if rng.random() < (0.22 if patient.child else 0.1) else 0
    spots = []
    for _ in range(int(rng.poisson(0.15 + 0.7 * old))):
        spots.append(_draw_spot(rng, rng.uniform(0.9, 2.4), -rng.uniform(0.25, 0.65)))
    if rng.random() < 0.1:
        spots.append(_draw_spot(rng, rng.uniform(0.8, 2.0), rng.uniform(0.3, 0.8)))
    return Changes(
        healed=healed,
        harris=tuple((float(rng.uniform(3, 26)), float(rng.uniform(0.12, 0.4))) for _ in range(lines)),
        arthrosis=float(old * rng.uniform(0.2, 1)) if rng.random() < 0.5 else 0.0,
        spots=tuple(spots),
        edges=tuple(_draw_edge(rng) for _ in range(int(rng.poisson(0.25)))),
        covers=(_draw_cover(rng),) if rng.random() < _COVERED else (),
        fat=float(rng.uniform(0.015, 0.05)) if rng.random() < 0.75 else 0.0,
        swelling_mm=float(rng.uniform(1.5, 5.0)) if rng.random() < _SWOLLEN else 0.0,
    )


def _draw_healed(rng: np.random.Generator) -> Healed:
    return Healed(
        bone="radius" if rng.random() < 0.8 else "ulna",
        level=float(-rng.uniform(14, 55)),
        angle=(float(rng.normal(0, 4)), float(rng.normal(-2, 5))),
        thick=float(rng.uniform(0.2, 0.8)),
        length=float(rng.uniform(7, 16)),
        dense=float(rng.uniform(0.03, 0.12)),
    )


def _draw_spot(rng: np.random.Generator, radius: float, amplitude: float) -> Spot:
    bone = str(rng.choice(["radius", "lunate", "scaphoid", "capitate", "ulna", "triquetrum"],
                          p=[0.34, 0.2, 0.16, 0.14, 0.1, 0.06]))  # fmt: skip
    place = rng.uniform(-0.6, 0.6, 3)
    return Spot(bone, tuple(float(v) for v in place), float(radius), float(amplitude))


def _draw_edge(rng: np.random.Generator) -> tuple[float, float, float, float, float]:
    x, y, towards = rng.uniform(-18, 22), rng.uniform(-55, 45), rng.uniform(0, 2 * math.pi)
    return float(x), float(y), float(towards), float(rng.normal(0, 0.01)), float(rng.uniform(0.015, 0.06))


def _draw_cover(rng: np.random.Generator) -> tuple[float, float, float, float, float]:
    """Draw what comes in from one side of the film, mostly from the elbow's, and ends beside the wrist or on it."""
    towards = -math.pi / 2 + (rng.normal(0, 0.3) if rng.random() < 0.6 else rng.uniform(-math.pi, math.pi))
    away = float(rng.uniform(8, 60))
    x, y = 3 + away * math.cos(towards), -4 + away * math.sin(towards)
    return float(x), float(y), float(towards), float(rng.normal(0, 0.006)), float(rng.uniform(0.05, 0.3))


def change_bones(bones: list[Bone], changes: Changes, view: View) -> list[Bone]:
    """Return the bones of a limb with a person's harmless changes in them; the list's order stays."""
    return [_change_bone(bone, changes, view) for bone in bones]


def _change_bone(bone: Bone, changes: Changes, view: View) -> Bone:
    bands, marks, outline = list(bone.bands), list(bone.marks), bone.outline
    length = float(np.hypot(*(bone.axis[1] - bone.axis[0])))
    long = bone.name in ("radius", "ulna")
    if long:
        bands += [(length - away, 0.4, size) for away, size in changes.harris]
        if changes.arthrosis and bone.name == "radius":
            bands.append((length - 2.5, 2.2, 0.45 * changes.arthrosis))
    healed = changes.healed
    if healed is not None and bone.name == healed.bone:
        outline = _healed_outline(bone, healed, view)
        upright = max((bone.axis[1] - bone.axis[0])[1] / max(length, 1e-6), 0.5)
        bands.append(((healed.level - bone.axis[0][1]) / upright, 0.6 * healed.length, healed.dense))
    marks += [_mark(bone, spot, long, view) for spot in changes.spots if spot.bone == bone.name]
    worn = changes.arthrosis if bone.name in ("scaphoid", "trapezium", "trapezoid", "lunate") else 0.0
    if len(bands) == len(bone.bands) and len(marks) == len(bone.marks) and outline is bone.outline and not worn:
        return bone
    return replace(
        bone,
        outline=outline,
        bands=tuple(bands),
        marks=tuple(marks),
        cortex_mid=bone.cortex_mid * (1 + 0.5 * worn),
        cortex_end=bone.cortex_end * (1 + 0.5 * worn),
    )


def _mark(bone: Bone, spot: Spot, long: bool, view: View) -> tuple[float, float, float, float, float, float]:
    low, high = bone.outline.min(axis=0), bone.outline.max(axis=0)
    if long:
        y = high[1] - 22 + 18 * spot.place[2]
        near = bone.outline[np.abs(bone.outline[:, 1] - y) < 6, 0]
        ends = (near.min(), near.max()) if len(near) > 1 else (low[0], high[0])
    else:
        y = (low[1] + high[1]) / 2 + spot.place[2] * (high[1] - low[1]) / 2
        ends = (low[0], high[0])
    x = (ends[0] + ends[1]) / 2 + view.mix(spot.place[0], spot.place[1]) * (ends[1] - ends[0]) / 2
    return (float(x), float(y), 0.0, spot.radius, spot.radius, spot.amplitude)


def _healed_outline(bone: Bone, healed: Healed, view: View) -> np.ndarray:
    """Return an outline that bends smoothly below the old break and is thicker around it."""
    outline = _resampled(bone.outline)
    x, y = outline.T
    below = np.maximum(healed.level - y, 0)
    bend = math.tan(math.radians(view.mix(*healed.angle)))
    around = np.exp(-np.square((y - healed.level) / healed.length))
    near = x[np.abs(y - healed.level) < 8]
    middle = (near.min() + near.max()) / 2 if len(near) > 1 else x.mean()
    out = np.clip((x - middle) / 2, -1, 1) * healed.thick * around
    return np.column_stack([x + out + bend * below * np.exp(-below / 60), y])


def _resampled(outline: np.ndarray, step: float = 1.0) -> np.ndarray:
    points = np.vstack([outline, outline[:1]])
    way = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    fine = np.arange(0, way[-1], step)
    return np.column_stack([np.interp(fine, way, points[:, k]) for k in (0, 1)])


def swell(skin: np.ndarray, millimetres: float) -> np.ndarray:
    """Return the skin (n, 2) of forearm and palm pushed out around the wrist by so many millimetres."""
    if not millimetres:
        return skin
    x, y = skin.T
    near = x[np.abs(y + 12) < 25]
    middle = (near.min() + near.max()) / 2 if len(near) > 1 else 0.0
    return np.column_stack([x + np.clip((x - middle) / 8, -1, 1) * millimetres * np.exp(-np.square((y + 12) / 30)), y])


def change_flesh(attenuation: np.ndarray, changes: Changes, frame: Frame, view: View, swelling_mm: float) -> None:
    """Add covers, overlapping edges and the line of fat to a film's attenuation, in place.

    Parameters
    ----------
    attenuation : numpy.ndarray
        float32, of the frame's shape.
    changes : Changes
    frame : Frame
    view : View
    swelling_mm : float
        The line of fat bows out before a swollen muscle.
    """
    aside = math.sin(math.radians(view.angle))
    fat = changes.fat * max(abs(aside) - 0.6, 0) / 0.4
    if not changes.edges and not changes.covers and not fat:
        return
    covered = attenuation > 0.02
    x, y = frame.grid((0, 0, *frame.shape))
    for *place, size in changes.covers:
        attenuation += np.float32(size) * np.clip(_beyond(x, y, *place)[0] * 1.2 + 0.5, 0, 1)
    for x0, y0, towards, bend, size in changes.edges:
        away, along = _beyond(x, y, x0, y0, towards, bend)
        fold = np.clip(away * 2.5 + 0.5, 0, 1) * np.exp(-np.maximum(away, 0) / 12) * np.exp(-np.square(along / 30))
        attenuation += np.float32(size) * fold * covered
    if fat:
        bow = 6.0 + 0.9 * swelling_mm
        line = (9.5 + bow * np.sin(np.clip((-y - 8) / 48, 0, 1) * np.float32(math.pi))) * np.float32(np.sign(aside))
        ends = np.clip((-y - 8) / 6, 0, 1) * np.clip((y + 56) / 8, 0, 1)
        attenuation -= np.float32(fat) * ends * np.exp(-np.square((x - line) / 0.9)) * covered


def _beyond(
    x: np.ndarray, y: np.ndarray, x0: float, y0: float, towards: float, bend: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return how far places lie beyond a bent edge through (x0, y0), and where along it."""
    nx, ny = np.float32(math.cos(towards)), np.float32(math.sin(towards))
    along = (y - np.float32(y0)) * nx - (x - np.float32(x0)) * ny
    return (x - np.float32(x0)) * nx + (y - np.float32(y0)) * ny - np.float32(bend) * along * along, along
