"""Radius, ulna and the elbow as bodies in space, seen at any turn of the forearm."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from core.phantoms import outlines
from core.phantoms.anatomy import Bone, Cap, Patient, Pose, merge_levels, smooth, support, turn, vary

# About where the growth plates lie, and the elbow's axis.
PLATE = -9.0
ELBOW = np.array([4.0, -243.0])
_FOREARM, _ELBOW = 11, 12
# Sizes of the table of a bone's end: mm a row, columns.
_ROW, _COLUMNS = 0.35, 36
# The walls of a spike are cortex too: it shows more than its depth says, by this power of its share.
_SPIKE = 0.25


def build_forearm(patient: Patient, pose: Pose) -> list[Bone]:
    """Return radius, ulna and humerus; in a child radius and ulna each as metaphysis with shaft, and epiphysis."""
    rng = patient.stream(_FOREARM)
    wide, long, apart = rng.normal(1, 0.045), rng.normal(0.98, 0.05), rng.normal(0, 1.3)
    bones = []
    for name in ("radius", "ulna"):
        levels = _shaft(name, patient, wide, long, apart, rng)
        crown = (_radius_crown if name == "radius" else _ulna_crown)(levels, patient, pose, rng)
        bones.extend(_seen(name, levels, crown, patient, pose, rng))
    bones.append(_humerus(patient, pose, long))
    return bones


def _shaft(name: str, patient: Patient, wide: float, long: float, apart: float, rng: np.random.Generator) -> np.ndarray:
    """Return one person's edges (n, 5) of a forearm bone; `apart` mm more than others' are the two shafts."""
    levels = merge_levels(outlines.SHAFTS["PA"][name], outlines.SHAFTS["LATERAL"][name])
    wide = wide * rng.normal(1, 0.02)
    for low in (1, 3):
        middle = levels[:, low : low + 2].mean(axis=1, keepdims=True)
        half = (levels[:, low : low + 2] - middle) * wide * rng.normal(1, 0.03)
        bow = rng.normal(0, 0.7) * np.sin(np.clip(-levels[:, :1] / 230, 0, 1) * math.pi)
        levels[:, low : low + 2] = middle + half * rng.normal(1, 0.012, (len(levels), 1)) + bow
    if name == "ulna":
        # The head is much wider than the neck, by how much differs.
        flare = 1 + rng.normal(0, 0.06) * np.clip((levels[:, :1] + 20) / 10, 0, 1)
        for low in (1, 3):
            middle = levels[:, low : low + 2].mean(axis=1, keepdims=True)
            levels[:, low : low + 2] = middle + (levels[:, low : low + 2] - middle) * flare
        levels[:, 1:3] += rng.normal(0, 0.6) + apart * np.clip((-levels[:, :1] - 8) / 30, 0, 1)
        levels[:, 3:5] += rng.normal(-1.6, 1.8) + levels[:, :1] * rng.normal(0, 0.03)
        levels[:, 0] += patient.ulnar_variance_mm
    low = levels[:, 0] < -48
    levels[low, 0] = -48 + (levels[low, 0] + 48) * long
    return levels


@lru_cache(maxsize=4)
def _disc(power: float) -> tuple[np.ndarray, np.ndarray]:
    """Return places spread evenly over a disc of radius 1, rounded or boxy as :func:`support` is."""
    number = np.arange(1100)
    radius, angle = np.sqrt((number + 0.5) / 1100), number * (math.pi * (3 - math.sqrt(5)))
    cosine, sine = np.cos(angle), np.sin(angle)
    reach = radius / (np.abs(cosine) ** power + np.abs(sine) ** power) ** (1 / power)
    return reach * cosine, reach * sine


def _top(levels: np.ndarray, y: float) -> tuple[float, float, float, float]:
    """Return the middle and half the width in x and in z of a bone at height `y`."""
    x0, x1, z0, z1 = (float(np.interp(y, levels[:, 0], levels[:, k])) for k in (1, 2, 3, 4))
    return (x0 + x1) / 2, (x1 - x0) / 2, (z0 + z1) / 2, (z1 - z0) / 2


def _radius_crown(levels, patient: Patient, pose: Pose, rng) -> np.ndarray:
    """Return points (n, 4) of the radius' joint surface, a dish that leans to the ulna and to the palm.

    The last column is the power of :func:`_cap`.
    """
    cx, a, cz, b = _top(levels, -1.0)
    s, t = _disc(3.0)
    surface = np.array(outlines.RADIUS_SURFACE)
    flat = np.interp(s, np.linspace(-1, 1, 40), np.interp(np.linspace(-18.4, 11, 40), *surface.T))
    y = flat * np.clip(rng.normal(1.1, 0.18), 0.65, 1.5) * (0.75 if patient.growing else 1.0)
    tilt = math.tan(math.radians(np.clip(rng.normal(10.5, 5.0), -3, 22)))
    # The styloid is no ridge from back to palm but a blunt cone; the lips at back and palm stand up.
    point = np.clip((-s - 0.55) / 0.45, 0, 1)
    y = y - tilt * t * b * (1 - 0.5 * point) - 2.5 * point * t * t + rng.uniform(0.3, 1.3) * t * t * (1 - point)
    ridge = rng.uniform(0.0, 0.7) * np.exp(-np.square((s - 0.2) / 0.1))  # between scaphoid and lunate fossa
    # The rim is rounded off, but for the styloid's flank, which falls off by itself.
    edge = np.maximum(np.maximum(s, np.abs(t)) - 0.9, 0) / 0.1
    y = y + ridge - rng.uniform(0.8, 2.0) * edge * edge + 0.4 + rng.normal(0, 0.5)
    return np.column_stack([cx + a * s, y, cz + b * t, 1 - (1 - _SPIKE) * np.clip(point * 1.6, 0, 1)])


def _ulna_crown(levels, patient: Patient, pose: Pose, rng) -> np.ndarray:
    """Return points (n, 4) of the ulna's head with its styloid, turned as the forearm is rotated."""
    cx, a, cz, b = _top(levels, -4.0 + patient.ulnar_variance_mm)
    s, t = _disc(2.2)
    # The head is a low dome that falls off all round, most towards the radius, which turns about it.
    dome = rng.uniform(1.0, 2.6) * np.hypot(s + 0.15, t) ** 2 + rng.uniform(0.4, 2.0) * np.clip(-s - 0.45, 0, 1) / 0.55
    # The styloid is a blunt cone whose back wall is the ulna's own, with a dent, the fovea, at its foot.
    place = math.radians(rng.normal(-14, 10) + pose.rotation)
    reach, height = rng.uniform(0.62, 0.78), np.clip(rng.normal(5.4, 1.5), 2.0, 9)
    away = np.hypot(s - reach * math.cos(place), t - reach * math.sin(place)) / rng.uniform(0.28, 0.4)
    blunt = rng.uniform(0.65, 1.0)
    y = -1.8 - dome + (height + dome) * np.clip(1.35 - away, 0, 1) ** blunt
    y = y - rng.uniform(0.5, 1.4) * np.exp(-np.square((away - 1.7) / 0.5))
    return np.column_stack([cx + a * s, y + patient.ulnar_variance_mm, cz + b * t, np.full(len(s), _SPIKE)])


def _seen(name: str, levels, crown, patient: Patient, pose: Pose, rng) -> list[Bone]:
    """Return one bone of the forearm as the view shows it, in one part or, while it grows, in two."""
    turned = math.radians(pose.view.angle)
    shift = patient.ulnar_variance_mm if name == "ulna" else 0.0
    high = -6.0 if name == "radius" else -4.5 + shift
    scar = (rng.uniform(13, 19), rng.uniform(0.2, 0.6))
    wished = _marks(patient, rng)
    if not patient.growing:
        left, right = _edges(levels, high, pose)
        marks = _placed(wished, left, right)
        cap, rim = _cap(crown, turned, patient.cortex_mm)
        points = smooth(np.vstack([right, rim, left[::-1]]), 4)
        bands = ((np.ptp(points[:, 1]) - scar[0], 0.5, patient.scar),) if patient.scar else ()
        return [_bone(name, points, patient, turned, bands, marks, cap)]
    plate = PLATE + rng.normal(0, 0.7) + shift
    left, right = _edges(levels, plate - 1.0, pose)
    marks = _placed(wished, left, right)
    wave = np.array([-0.7, 0.3, -0.2, 0.4, 0.2, -0.8]) + rng.normal(0, 0.3, 6)
    end = np.column_stack([np.linspace(right[-1, 0] + 0.5, left[-1, 0] - 0.5, 6), plate + wave])
    points = smooth(np.vstack([right, end, left[::-1]]), 4)
    # Newly calcified cartilage: a dense band under the plate, as dense as cortex in some.
    thick = rng.uniform(0.7, 1.8)
    bands = ((np.ptp(points[:, 1]) - 0.3 - thick, thick, scar[1] * rng.uniform(1.0, 2.2)),)
    parts = [_bone(name, points, patient, turned, bands, marks, None)]
    return parts + _epiphysis(name, crown, plate, end, patient, turned, rng)


def _epiphysis(name: str, crown, plate: float, end, patient: Patient, turned: float, rng) -> list[Bone]:
    """Return the growing end: a small lens at first, later as wide as the metaphysis; thin and closing at last."""
    first, last = (1.0, 10.0) if name == "radius" else (5.8, 12.0)
    ripe = float(np.clip((patient.age - first) / (last - first), 0, 1))
    gap = rng.uniform(1.0, 1.9) * (2.0 - 1.3 * ripe) * float(np.clip((patient.closing - patient.age) / 2.0, 0.35, 1))
    rough = rng.normal(0, 0.15, 6)
    if ripe < 0.05:
        return []
    middle = crown.mean(axis=0)
    low = plate + gap
    crown = crown.copy()
    half = 0.38 + 0.62 * ripe**0.7
    crown[:, 0] = middle[0] + (crown[:, 0] - middle[0]) * half + (1 - ripe) * (-1.5 if name == "radius" else 0.5)
    crown[:, 2] = middle[2] + (crown[:, 2] - middle[2]) * half
    # At first a flat lens, then a wedge, at last the bone's own end.
    middle_y = 3.2 + (middle[1] - low - 3.2) * ripe
    crown[:, 1] = low + np.maximum(middle_y + (crown[:, 1] - middle[1]) * ripe**0.8, 1.0)
    spread = np.hypot(*((crown[:, [0, 2]] - crown[:, [0, 2]].mean(axis=0)) / np.ptp(crown[:, [0, 2]], axis=0) * 2).T)
    crown[:, 1] -= (1 - ripe) * 2.4 * np.clip(spread, 0, 1) ** 3
    crown[:, 1] = np.maximum(crown[:, 1], low + 1.8)
    cap, rim = _cap(crown, turned, patient.cortex_mm, low + 1.5)
    bottom = np.column_stack([np.linspace(rim[-1, 0] + 0.4, rim[0, 0] - 0.4, 6), low + rough])
    bottom[[0, -1], 1] += 0.4 + (1 - ripe) * 0.5
    return [_bone(f"{name} epiphysis", smooth(np.vstack([rim, bottom]), 4), patient, turned, (), (), cap)]


def _edges(levels: np.ndarray, high: float, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
    """Return both edges (m, 2) of a shaft up to the height `high` as the view shows them."""
    y = np.append(levels[levels[:, 0] < high - 1.5, 0], high)
    x0, x1, z0, z1 = (np.interp(y, levels[:, 0], levels[:, k]) for k in (1, 2, 3, 4))
    angle = np.radians(pose.view.angle + pose.twist * np.clip((-y - 50) / 180, 0, 1))
    middle = (x0 + x1) / 2 * np.cos(angle) + (z0 + z1) / 2 * np.sin(angle)
    half = support((x1 - x0) / 2, (z1 - z0) / 2, angle)
    return np.column_stack([middle - half, y]), np.column_stack([middle + half, y])


def _cap(crown: np.ndarray, turned: float, cortex: float, base: float | None = None) -> tuple[Cap, np.ndarray]:
    """Return a bone's end as a table over the film, and its rim (n, 2) from +x to -x.

    The last column of `crown` says by which power of its share in the beam's way each point shows.
    """
    u = crown[:, 0] * math.cos(turned) + crown[:, 2] * math.sin(turned)
    low, high = u.min(), u.max()
    across = (high - low) / (_COLUMNS - 6)
    bottom = crown[:, 1].min() - 1.5
    rows = int(np.ceil((crown[:, 1].max() + 1.5 - bottom) / _ROW))
    column, row = (u - low) / across + 2.5, (crown[:, 1] - bottom) / _ROW
    cells = np.bincount(row.astype(int) * _COLUMNS + column.astype(int), minlength=rows * _COLUMNS)
    table = cells[: rows * _COLUMNS].reshape(rows, _COLUMNS).astype(np.float32)
    padded = np.pad(table, ((1, 1), (2, 2)), mode="edge")
    table = sum(w * padded[1:-1, k : k + _COLUMNS] for k, w in enumerate((0.4, 0.8, 1, 0.8, 0.4)))
    table = table + 0.5 * (np.roll(table, 1, 0) + np.roll(table, -1, 0))
    table[:, table.sum(axis=0) == 0] = 1.0
    share = 1 - np.cumsum(table, axis=0) / table.sum(axis=0)
    plate = max(round(0.75 * cortex / _ROW), 1)
    above = np.concatenate([share[plate:], np.zeros((plate, _COLUMNS), np.float32)])
    share[0] = above[0] = 1.0
    count = np.bincount(column.astype(int), minlength=_COLUMNS)
    seen = np.bincount(column.astype(int), crown[:, 3], minlength=_COLUMNS)
    power = np.interp(np.arange(_COLUMNS), np.flatnonzero(count), seen[count > 0] / count[count > 0])
    share, above = share**power, above**power
    matrix = np.array([[1 / across, 0, 2.0 - low / across], [0, 1 / _ROW, -0.5 - bottom / _ROW]])
    row = 0.0 if base is None else float(matrix[1, 1] * base + matrix[1, 2])
    bins = np.clip(((u - low) / (high - low) * 16).astype(int), 0, 15)
    rim = np.array(
        [[low + (k + 0.5) * (high - low) / 16, crown[bins == k, 1].max()] for k in range(16) if (bins == k).any()]
    )
    rim[1:-1, 1] = rim[1:-1, 1] * 0.6 + (rim[:-2, 1] + rim[2:, 1]) * 0.2
    # Both ends lie where the surface meets the walls, but always above the lowest point, where the walls may end.
    order = np.argsort(u)
    least = crown[:, 1].min() + 0.3 if base is None else base
    ends = [[x, max(crown[some, 1].mean(), least)] for x, some in ((low, order[:9]), (high, order[-9:]))]
    rim = np.vstack([ends[:1], rim, ends[1:]])
    return Cap(np.dstack([share, share - above]).astype(np.float32), matrix, row), rim[::-1]


def _bone(name: str, points, patient: Patient, turned: float, bands, marks, cap) -> Bone:
    long = "epiphysis" not in name
    bottom, top = float(points[:, 1].min()), float(points[:, 1].max())
    x = float(points[points[:, 1] > top - 14, 0].mean())
    first, second = (8.2, 11.0) if name.startswith("radius") else (6.0, 6.2)
    return Bone(
        name=name,
        outline=points,
        axis=(np.array([x, bottom]), np.array([x, top])),
        depth=float(support(np.array(first), np.array(second), turned, 2.0)),
        cortex_mid=2.35 * patient.cortex_mm * (0.8 if patient.growing else 1),
        cortex_end=0.7 * patient.cortex_mm,
        ends=(0.06, 30.0 / max(top - bottom, 40.0)) if long else (0.6, 0.6),
        hand=False,
        bands=bands,
        marks=marks,
        cap=cap,
    )


def _marks(patient: Patient, rng: np.random.Generator) -> tuple:
    """Return a nutrient canal (lucent, oblique) and a bone island (dense), where the person has them.

    They are marks of :class:`core.phantoms.anatomy.Bone`, with a share of half the bone's width as their x.
    """
    place = rng.uniform(-0.7, 0.7), -rng.uniform(24, 75)
    canal = (*place, rng.normal(0, 0.15), rng.uniform(3, 8), 0.45, -patient.canal)
    size = rng.uniform(0.8, 1.8)
    place = rng.uniform(-0.7, 0.7), -rng.uniform(4, 40)
    island = (*place, 0.0, size, size * rng.uniform(0.7, 1.1), patient.island)
    return tuple(mark for mark in (canal, island) if mark[-1])


def _placed(marks: tuple, left: np.ndarray, right: np.ndarray) -> tuple:
    """Return marks whose x is in mm, between a bone's edges as the view shows them."""
    found = []
    for share, y, *rest in marks:
        x0, x1 = (float(np.interp(y, edge[:, 1], edge[:, 0])) for edge in (left, right))
        found.append(((x0 + x1) / 2 + share * (x1 - x0) / 2, y, *rest))
    return tuple(found)


def _humerus(patient: Patient, pose: Pose, long: float) -> Bone:
    """Return the lower end of the humerus, swung about the elbow where the film shows it bent."""
    rng = patient.stream(_ELBOW)
    side = abs(math.sin(math.radians(pose.view.angle)))
    points = np.array(outlines.HUMERUS["LATERAL" if side > 0.7 else "PA"], float)
    points[points[:, 1] < -300, 1] = -480
    points = smooth(vary(points, rng, 0.8))
    points = turn(points, -elbow_bend(pose), ELBOW)
    ends = turn(np.array([[0.0, -480.0], [0.0, -238.0]]), -elbow_bend(pose), ELBOW)
    lower = np.array([0.0, -48 - 195 * long - ELBOW[1]])
    cortex = patient.cortex_mm
    return Bone("humerus", points + lower, (ends[0] + lower, ends[1] + lower), 9.0, 3.0 * cortex, 0.8 * cortex,
                ends=(0.02, 0.3), hand=False)  # fmt: skip


def elbow_bend(pose: Pose) -> float:
    """Return how far the elbow is bent in the film's plane, degrees: only a lateral film shows it."""
    return pose.elbow if abs(math.sin(math.radians(pose.view.angle))) > 0.7 else 0.0
