"""One person's wrist, hand and forearm: outlines varied as people vary, posed, ready to be projected."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from core.phantoms import outlines

# Side of the wrist square in millimetres of an adult: from the middle of the metacarpals to a hand's width of forearm.
REGION_SIDE_MM = 106.0


@dataclass(frozen=True)
class Patient:
    """What the two films of a study have in common. Lengths in mm, angles in degrees."""

    child: bool
    age: float
    scale: float
    girth: float
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


@dataclass(frozen=True, eq=False)
class Bone:
    """A bone as a hollow body: an outline, half its depth, a cortex and what fills it.

    `axis` runs from one end to the other; the cortex is `cortex_end` thick at both ends and `cortex_mid` in the shaft,
    which begins `ends` (two fractions of the axis) away from them. `bands` are lines across the bone: (place along the
    axis in mm, half width in mm, amplitude; negative is lucent). `marks` are small spots and canals: (x, y, slope
    dx/dy, half length, half width, amplitude). Where `steps` is given, the outline holds the corners of a curve that is
    smoothed into so many points each when it is drawn.
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


def draw_patient(rng: np.random.Generator, child: bool | None, oldest_needed: float = 0.0) -> Patient:
    """Draw a person. `oldest_needed` is the least age at which the bone that shall break is visible."""
    drawn_child = bool(rng.random() < 0.32)
    child = drawn_child if child is None else child
    age = float(max(rng.uniform(2.5, 15.5), oldest_needed)) if child else float(rng.uniform(18, 90))
    adult = rng.uniform(0.84, 1.06)
    old = float(np.clip((age - 45) / 45, 0, 1))
    return Patient(
        child=child,
        age=age,
        scale=float(adult * (0.42 + 0.58 * min(age / 16.0, 1.0) ** 0.85)),
        girth=float(np.clip(rng.normal(1.0, 0.1), 0.8, 1.3) + (0.12 * (1 - age / 16) if child else 0)),
        density=float((rng.uniform(0.62, 0.95) if child else rng.uniform(0.75, 1.2)) * (1 - 0.4 * old * rng.random())),
        cortex_mm=float(rng.uniform(0.75, 1.25) * (1 - 0.35 * old * rng.random())),
        texture=float(rng.uniform(0.8, 1.6) + 0.5 * old * rng.random()),
        ulnar_variance_mm=float(np.clip(rng.normal(-0.3, 1.4), -4, 3.5)),
        deviation=float(rng.normal(2, 7)),
        scar=float(rng.uniform(0.08, 0.4) if (not child and rng.random() < 0.5) else 0.0),
        canal=float(rng.uniform(0.15, 0.4) if rng.random() < 0.3 else 0.0),
        island=float(rng.uniform(0.3, 0.8) if rng.random() < 0.12 else 0.0),
        folds=int(rng.integers(1, 4)) if rng.random() < 0.4 else 0,
        seed=int(rng.integers(2**31)),
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


def build_forearm(patient: Patient, view: str, rng: np.random.Generator) -> list[Bone]:
    """Return radius and ulna; in a child each as metaphysis with shaft, and epiphysis."""
    bones = []
    lateral = view == "LATERAL"
    ulna_dx = rng.normal(-2.0, 4.0) if lateral else 0.0
    width = rng.uniform(0.93, 1.08)
    for name in ("radius", "ulna"):
        shaft = np.array(outlines.SHAFTS[view][name], float)
        end = np.array(outlines.ENDS[view][name], float)
        move = np.array([ulna_dx, patient.ulnar_variance_mm]) if name == "ulna" else np.zeros(2)
        middle = shaft[:, 1:].mean(axis=1, keepdims=True)
        shaft[:, 1:] = middle + (shaft[:, 1:] - middle) * width * rng.normal(1, 0.02, (len(shaft), 1))
        parts = _young_ends(shaft, end, patient, name, rng) if patient.child else [(shaft, end)]
        for number, (part_shaft, part_end) in enumerate(parts):
            points = (
                np.vstack([part_shaft[:, [2, 0]], part_end, part_shaft[::-1, [1, 0]]]) if len(part_shaft) else part_end
            )
            points = vary(points, rng, 0.18) + move
            long = number == 0
            bottom, top = points[:, 1].min(), points[:, 1].max()
            x = points[points[:, 1] > top - 14, 0].mean()
            bones.append(
                Bone(
                    name=name if long else f"{name} epiphysis",
                    outline=smooth(points),
                    axis=(np.array([x, bottom]), np.array([x, top])),
                    depth=8.2 if name == "radius" else 6.0,
                    cortex_mid=2.35 * patient.cortex_mm * (0.8 if patient.child else 1),
                    cortex_end=0.75 * patient.cortex_mm,
                    ends=(0.06, 20.0 / max(top - bottom, 25.0)) if long else (0.6, 0.6),
                    hand=False,
                    bands=_bands(patient, long, top - bottom, rng),
                    marks=_marks(patient, rng) if long else (),
                )
            )
    elbow = smooth(vary(np.array(outlines.HUMERUS[view], float), rng, 0.8))
    axis = (np.array([0.0, -330.0]), np.array([0.0, -238.0]))
    cortex = patient.cortex_mm
    bones.append(Bone("humerus", elbow, axis, 9.0, 3.0 * cortex, 0.8 * cortex, ends=(0.02, 0.4), hand=False))
    return bones


def _young_ends(
    shaft: np.ndarray, end: np.ndarray, patient: Patient, name: str, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cut a growing bone at its growth plate: the metaphysis ends flat, the epiphysis is a cap that grows with age."""
    ripe = np.clip((patient.age - (1.0 if name == "radius" else 6.0)) / (11.0 if name == "radius" else 7.0), 0, 1)
    plate = -8.0 + rng.normal(0, 0.7)
    gap = rng.uniform(1.2, 2.4) * (1.6 - ripe) * (0.5 if patient.age > 14 else 1)
    shaft = shaft[shaft[:, 0] < plate - 2]
    edge = np.array([shaft[-1, 1] - 0.8, shaft[-1, 2] + 0.8])
    x = np.linspace(edge[1], edge[0], 6)
    y = plate + np.array([-0.8, 0.3, -0.2, 0.4, 0.2, -0.9]) + rng.normal(0, 0.35, 6)
    parts = [(shaft, np.column_stack([x, y]))]
    if ripe > 0.06:
        middle = edge.mean() + (1.0 if name == "radius" else 0.0) * (1 - ripe) * -2.0
        half = np.ptp(edge) / 2 * (0.35 + 0.67 * ripe)
        cap = np.array(end)
        cap = cap[cap[:, 1] > plate + gap + 0.8]
        low = np.linspace(cap[:, 0].min(), cap[:, 0].max(), 5)
        low = np.column_stack([low, np.full(5, plate + gap) + rng.normal(0, 0.3, 5) + [0.5, 0, 0.2, 0, 0.5]])
        points = np.vstack([cap, low])
        centre = np.array([(points[:, 0].min() + points[:, 0].max()) / 2, plate + gap])
        factor = np.array([half / (np.ptp(points[:, 0]) / 2), 0.45 + 0.55 * ripe])
        points = (points - centre) * factor + [middle, plate + gap + (1 - ripe) * 1.5]
        low, high = points.min(axis=0), points.max(axis=0)
        around = np.linspace(0, 2 * np.pi, len(points), endpoint=False)
        lens = (low + high) / 2 + np.column_stack([np.cos(around), np.sin(around)]) * (high - low) / 2 * [1.0, 0.8]
        round_part = float(np.clip(1.2 - 1.6 * ripe, 0, 1))  # it begins as a lens and takes the bone's shape
        parts.append((np.empty((0, 3)), points * (1 - round_part) + lens * round_part))
    return parts


def _bands(patient: Patient, long: bool, length: float, rng: np.random.Generator) -> tuple:
    """Return the lines across a bone that are no break: a physeal scar, the dense edge of a growing metaphysis."""
    if patient.child:
        return ((length - 1.0, 0.9, rng.uniform(0.2, 0.6)),) if long else ()
    return ((length - rng.uniform(13, 19), 0.5, patient.scar),) if patient.scar and long else ()


def _marks(patient: Patient, rng: np.random.Generator) -> tuple:
    """Return a nutrient canal (lucent, oblique) and a bone island (dense), where the person has them."""
    canal = (rng.uniform(-10, 16), -rng.uniform(24, 75), rng.normal(0, 0.15), rng.uniform(3, 8), 0.45, -patient.canal)
    island = (
        rng.uniform(-14, 20),
        -rng.uniform(4, 40),
        0.0,
        rng.uniform(0.8, 1.8),
        rng.uniform(0.8, 1.8),
        patient.island,
    )
    return tuple(mark for mark in (canal, island) if mark[-1])


def build_carpus(patient: Patient, view: str, rng: np.random.Generator) -> list[Bone]:
    """Return the carpal bones, each as two overlapping shells, since their front and back rims do not coincide."""
    bones = []
    spread = rng.uniform(1.06, 1.2)
    apart = rng.uniform(1.0, 1.06)
    drift = np.array([rng.normal(0, 0.6), rng.uniform(-0.6, 0.9)])
    for name, points in outlines.CARPALS[view].items():
        points = np.array(points, float)
        ripe = np.clip((patient.age - outlines.OSSIFICATION[name]) / 6.5, 0, 1) if patient.child else 1.0
        centre = points.mean(axis=0)
        points = points + (centre - [2.0, 0.0]) * (apart - 1)
        centre = points.mean(axis=0)
        size = spread * rng.normal(1, 0.04) * (1.0 if ripe >= 1 else 0.36 + 0.62 * ripe)
        angle, shift = rng.normal(0, 4.5), rng.normal(0, 0.7, 2) + drift
        shell = vary((points - centre) * size, rng, 0.6)
        back = vary(turn(shell * rng.uniform(0.72, 0.95), rng.normal(0, 9), (0, 0)), rng, 0.7) + rng.normal(0, 0.9, 2)
        if ripe <= 0.01:
            continue
        if ripe < 0.8:  # a young carpal bone is round
            radius = np.hypot(*shell.T)[:, None]
            shell = shell * (ripe + (1 - ripe) * radius.mean() / radius)
        place = turn(np.array([centre]), 0, (0, 0))[0] + shift
        for part, weight in ((shell, 0.62), (back, 0.42)):
            outline = smooth(turn(part, angle, (0, 0)) + place)
            low, high = outline.min(axis=0), outline.max(axis=0)
            bones.append(
                Bone(
                    name=name if part is shell else f"{name} back",
                    outline=outline,
                    axis=(np.array([place[0], low[1]]), np.array([place[0], high[1]])),
                    depth=4.0 if name in ("pisiform", "hamulus") else 6.8,
                    cortex_mid=0.85 * patient.cortex_mm,
                    cortex_end=0.85 * patient.cortex_mm,
                    weight=weight * (1.0 if view == "PA" else 0.9) * rng.uniform(0.9, 1.1),
                )
            )
    return bones


def build_rays(patient: Patient, view: str, rng: np.random.Generator) -> list[list[Bone]]:
    """Return the five finger rays, thumb first, each a chain of metacarpal and phalanges."""
    lateral = view == "LATERAL"
    fan = rng.normal(1.0, 0.25) if not lateral else rng.uniform(0, 1)
    abduct = rng.normal(0, 12)
    curl = abs(rng.normal(0, 9)) if not lateral else rng.uniform(-4, 16)
    stack = rng.uniform(0.5, 2.2)
    rays = []
    for number, (base, direction, lengths) in enumerate(outlines.RAYS[view]):
        heading = direction * (fan if number and not lateral else 1) + rng.normal(0, 2.0)
        heading += abduct if number == 0 else 0.0
        point = np.array(base, float) + rng.normal((0.0, 1.6), 0.5)
        if lateral and number:
            point[0] *= stack
        chain = []
        for order, length in enumerate(lengths):
            length = length * rng.normal(1, 0.025)
            chain.append(_finger_bone(patient, number, order, point, heading, length, lateral, rng))
            step = np.array([np.sin(np.deg2rad(heading)), np.cos(np.deg2rad(heading))])
            point = point + step * (length + rng.uniform(0.9, 1.7))
            if lateral:
                heading += (
                    curl * (0.5 + order * 0.4)
                    + rng.normal(0, 2)
                    + (fan * (number - 2.5) * 5 if number and order == 0 else 0)
                )
            else:
                heading += rng.normal(0, 3.0) + (heading * 0.15 if order == 0 and number else 0)
        rays.append(chain)
    return rays


def _finger_bone(
    patient: Patient, ray: int, order: int, base: np.ndarray, heading: float, length: float, lateral: bool, rng
) -> Bone:
    """Return one tubular bone: a wide base, a waist, a rounded head; the last phalanx ends in a tuft."""
    last = order == (2 if ray == 0 else 3)
    wide = {0: 7.0, 1: 6.2, 2: 5.2, 3: 4.4}[order if ray or order == 0 else order + 1] * rng.normal(1, 0.04)
    if ray == 4:
        wide *= 0.88
    waist = wide * (0.6 if not last else 0.42)
    head = wide * (0.82 if not last else 0.55)
    stations = [(0, 0.86), (0.05, 1.0), (0.15, 0.84), (0.32, 0), (0.6, 0), (0.82, -0.8), (0.92, -1.0), (0.99, -0.72)]
    t = np.array([s for s, _ in stations]) * length
    half = np.array([waist if w == 0 else (w * wide if w > 0 else -w * head) for _, w in stations])
    skew = rng.normal(0, 0.25, len(t))
    left, right = np.column_stack([-half + skew, t]), np.column_stack([half + skew, t])
    points = np.vstack([right, left[::-1]]) + rng.normal(0, 0.12, (2 * len(t), 2))
    bands = ()
    if patient.child:
        plate = length * 0.88 if (order == 0 and ray) else length * 0.1
        bands = ((plate, 0.65, -0.75), (plate - 1.3, 0.6, 0.3))
    direction = np.array([np.sin(np.deg2rad(heading)), np.cos(np.deg2rad(heading))])
    return Bone(
        name=f"ray {ray + 1} bone {order + 1}",
        outline=turn(points, heading, (0, 0)) + base,
        axis=(base, base + direction * length),
        depth=min(wide, 5.5),
        cortex_mid=1.9 * patient.cortex_mm * (0.8 if order else 1),
        cortex_end=0.6 * patient.cortex_mm,
        ends=(0.16, 0.16),
        weight=0.85 if lateral else 1.0,
        bands=bands,
        steps=5,
    )


def build_skin(patient: Patient, view: str, rays: list[list[Bone]]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the outline of forearm and palm, and those of the fingers and the thumb's web."""
    skin = np.array(outlines.SKIN[view], float)
    middle = skin[:, 1:].mean(axis=1, keepdims=True)
    skin[:, 1:] = middle + (skin[:, 1:] - middle) * patient.girth
    main = np.vstack([skin[:, [2, 0]], skin[::-1, [1, 0]]])
    fingers = []
    for number, chain in enumerate(rays):
        bones = chain if number == 0 else chain[1:]
        path = [bones[0].axis[0]] + [bone.axis[1] for bone in bones]
        path = np.array([path[0] - (path[1] - path[0]) * 0.3, *path])
        along = np.diff(path, axis=0, append=path[-1:] * 2 - path[-2:-1])
        across = np.column_stack([along[:, 1], -along[:, 0]]) / np.linalg.norm(along, axis=1, keepdims=True)
        radius = (
            np.linspace(13.5 if number == 0 else 9.8, 7.6, len(path)) * patient.girth * (0.88 if number == 4 else 1)
        )
        tip = path[-1:] + along[-1:] / np.linalg.norm(along[-1]) * 5.0
        radius = radius[:, None]
        fingers.append(smooth(np.vstack([path + across * radius, tip, (path - across * radius)[::-1]]), 4))
    (thumb_base, thumb_head), (index_base, index_head) = rays[0][0].axis, rays[1][0].axis
    reach = 0.6 * thumb_head + 0.4 * index_head  # the web between thumb and index finger
    fingers.append(np.array([index_base, thumb_base, thumb_head, 0.8 * reach + 0.2 * index_base, index_head]))
    return smooth(main, 14), fingers


def move(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return points (n, 2) or (2,) carried along by a motion (2, 3) of the plane."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def move_bone(bone: Bone, matrix: np.ndarray) -> Bone:
    """Return the bone carried along by a rigid motion (2, 3) of the plane."""
    return replace(bone, outline=move(bone.outline, matrix), axis=tuple(move(end, matrix) for end in bone.axis))
