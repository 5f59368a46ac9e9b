"""A person, a pose, and a bone as one view shows it; and the curves they are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from core.phantoms.views import View

# Side of the wrist square in millimetres of an adult: from the middle of the metacarpals to a hand's width of forearm.
REGION_SIDE_MM = 106.0


@dataclass(frozen=True)
class Patient:
    """What the films of a study have in common. Lengths in mm, angles in degrees.

    Attributes
    ----------
    child : bool
    age : float
        Years.
    closing : float
        Age at which this person's growth plates close.
    scale : float
        Size of the bones; 1 = an average man.
    girth, fat_mm : float
        Width of the limb about the bones, 1 = average, and the fat under its skin.
    density, cortex_mm, texture : float
        Mineral content and cortex, 1 = normal, and relative amplitude of the trabeculae.
    ulnar_variance_mm, deviation : float
        Height of the ulna over the radius; how far the hand leans to the ulna at rest.
    scar, canal, island : float
        Contrast of a physeal scar, a nutrient canal, a bone island; 0 = none.
    folds : int
        Skin folds.
    seed : int
        From which the shapes of the bones are drawn.
    """

    child: bool
    age: float
    closing: float
    scale: float
    girth: float
    fat_mm: float
    density: float
    cortex_mm: float
    texture: float
    ulnar_variance_mm: float
    deviation: float
    scar: float
    canal: float
    island: float
    folds: int
    seed: int

    @property
    def growing(self) -> bool:
        """Whether the growth plates are open."""
        return self.child and self.age < self.closing

    def stream(self, part: int) -> np.random.Generator:
        """Return the random numbers that shape one part of the body: the same in every film."""
        return np.random.default_rng([self.seed, part])


@dataclass(frozen=True)
class Pose:
    """How the limb lies on the detector for one film; angles in degrees.

    Attributes
    ----------
    view : View
    deviation, flexion : float
        Of the hand, towards the ulna and towards the palm.
    tilt : float
        Turn of the lunate that the wrist's ligaments allow, towards the palm.
    curl, fan : float
        Bend of the fingers' joints, and how unlike each other the fingers are bent.
    spread : float
        How far the fingers are spread, 1 = at rest.
    thumb : tuple of float
        Turn of the thumb towards the ulna and towards the palm.
    twist : float
        How far the elbow's end of the forearm is turned against the wrist.
    rotation : float
        Turn of the ulna against the radius (supination).
    elbow : float
        Bend of the elbow.
    """

    view: View
    deviation: float
    flexion: float
    tilt: float
    curl: float
    fan: float
    spread: float
    thumb: tuple[float, float]
    twist: float
    rotation: float
    elbow: float

    @property
    def heading(self) -> float:
        """Turn of the hand in the film's plane, towards +x."""
        return self.view.mix(self.deviation, self.flexion)


@dataclass(frozen=True, eq=False)
class Cap:
    """The end of a bone as a surface in space: what share of the beam's way through the bone lies below it.

    `table` (rows, columns, 2) float32 holds that share and the share within the bony plate under the surface; `matrix`
    (2, 3) takes mm to the table's columns and rows; `base` is the row below which the bone is whole.
    """

    table: np.ndarray
    matrix: np.ndarray
    base: float


@dataclass(frozen=True, eq=False)
class Bone:
    """A bone as a hollow body: an outline, half its depth, a cortex and what fills it.

    `axis` runs from one end to the other; the cortex is `cortex_end` thick at both ends and `cortex_mid` in the shaft,
    which begins `ends` (two fractions of the axis) away from them. `bands` are lines across the bone: (place along the
    axis in mm, half width in mm, amplitude; negative is lucent). `marks` are small spots and canals: (x, y, slope
    dx/dy, half length, half width, amplitude). Where `steps` is given, the outline holds the corners of a curve that is
    smoothed into so many points each when it is drawn. A `cap` shapes the end towards the fingers.
    """

    name: str
    outline: np.ndarray
    axis: tuple[np.ndarray, np.ndarray]
    depth: float
    cortex_mid: float
    cortex_end: float
    ends: tuple[float, float] = (0.2, 0.2)
    weight: float = 1.0
    hand: bool = True
    bands: tuple[tuple[float, float, float], ...] = ()
    marks: tuple[tuple[float, float, float, float, float, float], ...] = ()
    steps: int = 0
    cap: Cap | None = None


def draw_patient(rng: np.random.Generator, child: bool | None, oldest_needed: float = 0.0) -> Patient:
    """Draw a person. `oldest_needed` is the least age at which the bone that shall break is visible."""
    drawn_child = bool(rng.random() < 0.32)
    child = drawn_child if child is None else child
    age = float(max(rng.uniform(1.0, 17.0), oldest_needed)) if child else float(rng.uniform(18, 90))
    adult = rng.uniform(0.84, 1.06)
    old = float(np.clip((age - 45) / 45, 0, 1))
    frail = old * rng.random()
    grown = min(age / 16.0, 1.0) ** 0.85 if child else 1.0
    return Patient(
        child=child,
        age=age,
        closing=float(np.clip(rng.normal(16.2, 0.8), 15.2, 17.8)),
        scale=float(adult * (0.42 + 0.58 * grown)),
        girth=float(np.clip(rng.normal(1.0, 0.11), 0.8, 1.35) + (0.14 * (1 - min(age / 16, 1)) if child else 0)),
        fat_mm=float(rng.uniform(1.5, 7.0)),
        density=float((rng.uniform(0.62, 0.95) if child else rng.uniform(0.75, 1.2)) * (1 - 0.45 * frail)),
        cortex_mm=float(rng.uniform(0.75, 1.25) * (1 - 0.4 * frail)),
        texture=float(rng.uniform(0.4, 1.4) + 0.6 * frail),
        ulnar_variance_mm=float(np.clip(rng.normal(-0.3, 1.5), -4.5, 4.0)),
        deviation=float(rng.normal(2, 7)),
        scar=float(rng.uniform(0.08, 0.4) if (not child and rng.random() < 0.5) else 0.0),
        canal=float(rng.uniform(0.15, 0.4) if rng.random() < 0.3 else 0.0),
        island=float(rng.uniform(0.3, 0.8) if rng.random() < 0.12 else 0.0),
        folds=int(rng.integers(1, 4)) if rng.random() < 0.4 else 0,
        seed=int(rng.integers(2**31)),
    )


def draw_view(name: str, rng: np.random.Generator) -> View:
    """Draw how true a view of that name is: up to 24 degrees off in PA and oblique films, more in some lateral ones.

    A lateral film is the hardest to take: three in ten are turned too little, by up to 50 degrees, or too far.
    """
    middle, spread, limit = {"PA": (0, 9.0, 24), "LATERAL": (90, 8.5, 18), "OBLIQUE": (45, 11.0, 24)}[name]
    off = float(np.clip(rng.normal(0, spread), -limit, limit))
    if name == "LATERAL" and rng.random() < 0.3:
        off = float(rng.uniform(-50, 20))
    # One oblique film in four is turned the other way round, palm up.
    sense = -1.0 if rng.random() < 0.25 and name == "OBLIQUE" else 1.0
    return View(name, sense * middle + off)


def draw_pose(view: View, patient: Patient, rng: np.random.Generator) -> Pose:
    """Draw how a person holds hand and forearm for one film; nobody's label is known here."""
    lateral = abs(view.angle) > 60
    bent = rng.random() < 0.12
    curled = rng.random() < (0.18 if lateral else 0.08)
    return Pose(
        view=view,
        deviation=float(np.clip(rng.normal(patient.deviation, 6.0), -25, 35)),
        flexion=float(rng.uniform(-45, 40) if bent else rng.normal(-2, 12.0 if lateral else 7.0)),
        tilt=float(rng.normal(0, 7)),
        curl=float(rng.uniform(15, 55) if curled else abs(rng.normal(0, 8))),
        fan=float(rng.uniform(0, 1) if lateral else rng.uniform(0, 0.4)),
        spread=float(rng.normal(1.0, 0.3) if rng.random() < 0.85 else rng.uniform(1.5, 2.4)),
        thumb=(float(rng.normal(0, 13)), float(rng.normal(0, 10))),
        twist=float(rng.normal(0, 14)),
        rotation=float(rng.normal(0, 14)),
        elbow=float(rng.normal(90, 9) if lateral and rng.random() < 0.55 else abs(rng.normal(0, 6))),
    )


def smooth(points: np.ndarray, steps: int = 6) -> np.ndarray:
    """Return a closed Catmull-Rom curve through `points` (n, 2) as (n * steps, 2)."""
    n = len(points)
    ring = np.concatenate([points[-1:], points, points[:2]])
    neighbours = np.stack([ring[k : k + n] for k in range(4)]).reshape(4, -1)
    curve = (_catmull_rom(steps) @ neighbours).reshape(steps, n, 2)
    return curve.transpose(1, 0, 2).reshape(-1, 2)


@lru_cache(maxsize=8)
def _catmull_rom(steps: int) -> np.ndarray:
    """Return the weights (steps, 4) of four neighbouring points along the piece between the middle two."""
    t = np.linspace(0, 1, steps, endpoint=False)[:, None] ** np.arange(4)
    return t @ (0.5 * np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]]))


def turn(points: np.ndarray, degrees: float, centre: np.ndarray | tuple[float, float]) -> np.ndarray:
    """Turn points (n, 2) about `centre`; positive turns +y towards +x."""
    angle = math.radians(degrees)
    cosine, sine = math.cos(angle), math.sin(angle)
    return (points - np.asarray(centre)) @ np.array([[cosine, -sine], [sine, cosine]]) + centre


def vary(points: np.ndarray, rng: np.random.Generator, amount: float) -> np.ndarray:
    """Bend a closed outline by a few smooth waves of about `amount` mm."""
    n = len(points)
    phase = np.linspace(0, 2 * np.pi, n, endpoint=False)
    wave = sum(rng.normal(0, amount / (k * 0.7), (2, 1)) * np.sin(k * phase + rng.uniform(0, 6.3)) for k in (1, 2, 3))
    return points + wave.T


def spread_round(points: np.ndarray, count: int) -> np.ndarray:
    """Return how far a closed outline (n, 2) around the origin reaches in `count` directions, from +x towards +y."""
    angle = np.arctan2(points[:, 1], points[:, 0])
    order = np.argsort(angle)
    around = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.interp(around, angle[order], np.hypot(*points[order].T), period=2 * np.pi)


def support(first: np.ndarray, second: np.ndarray, angle: np.ndarray | float, power: float = 1.8) -> np.ndarray:
    """Return half the width at `angle` radians of a rounded body, half as wide as `first` at 0, `second` at 90 degrees.

    `power` 2 is an ellipse, 1 a box.
    """
    return (np.abs(first * np.cos(angle)) ** power + np.abs(second * np.sin(angle)) ** power) ** (1 / power)


def merge_levels(first: list, second: list) -> np.ndarray:
    """Return edges of the PA and of the lateral view at the heights of both: (n, 5) y, x low, x high, z low, z high."""
    pa, lateral = np.array(first, float), np.array(second, float)
    y = np.unique(np.concatenate([pa[:, 0], lateral[:, 0]]))
    edges = [np.interp(y, table[:, 0], table[:, k]) for table in (pa, lateral) for k in (1, 2)]
    return np.column_stack([y, *edges])


def move(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return points (n, 2) or (2,) carried along by a motion (2, 3) of the plane."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def move_bone(bone: Bone, matrix: np.ndarray) -> Bone:
    """Return the bone carried along by a rigid motion (2, 3) of the plane."""
    cap = bone.cap
    if cap is not None:
        back = np.linalg.inv(matrix[:, :2])
        inverse = np.column_stack([back, -back @ matrix[:, 2]])
        turned = np.column_stack(
            [cap.matrix[:, :2] @ inverse[:, :2], cap.matrix[:, :2] @ inverse[:, 2] + cap.matrix[:, 2]]
        )
        cap = replace(cap, matrix=turned)
    return replace(
        bone, outline=move(bone.outline, matrix), axis=tuple(move(end, matrix) for end in bone.axis), cap=cap
    )
