"""The carpal bones as bodies in space, seen at any turn of the forearm."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from core.phantoms import outlines
from core.phantoms.anatomy import Bone, Patient, Pose, smooth, spread_round, turn

_CARPUS = 21
_AROUND = 40
_WAVES = np.linspace(0, 2 * np.pi, _AROUND, endpoint=False)
_UNEVEN = np.array([wave(k * _WAVES) for k in (1, 2, 3, 4, 5, 6) for wave in (np.cos, np.sin)])


# Where the drawn outlines leave no room for cartilage: mm sideways and up. It keeps lunate and radius two millimetres
# apart, scaphoid and radius mostly less than one, and lets the others and the metacarpals (`hand`) lie over each other
# by no more than their rounded edges.
_ROOM = {
    "scaphoid": np.array([1.0, 2.7, 0.0]),
    "lunate": np.array([0.2, 1.0, 0.0]),
    "triquetrum": np.array([0.4, 0.3, 0.0]),
    "trapezium": np.array([-1.2, 2.0, 0.0]),
    "trapezoid": np.array([0.0, 2.7, 0.0]),
    "capitate": np.array([1.6, 1.6, 0.0]),
    "hamate": np.array([1.4, 1.2, 0.0]),
    "hamulus": np.array([1.4, 1.2, 0.0]),
}


@dataclass(frozen=True, eq=False)
class _Form:
    """A carpal bone: middle in space; lean (mm sideways a mm up) and reach all round in the PA and lateral view."""

    centre: tuple[float, float, float]
    lean: tuple[float, float]
    reach: tuple[np.ndarray, np.ndarray]


@lru_cache(maxsize=16)
def _form(name: str) -> _Form:
    leans, reaches, centres = [], [], []
    for view in ("PA", "LATERAL"):
        points = smooth(np.array(outlines.CARPALS[view][name], float), 8)
        centre = points.mean(axis=0)
        points = points - centre
        lean = float((points[:, 0] * points[:, 1]).sum() / np.square(points[:, 1]).sum())
        points[:, 0] -= lean * points[:, 1]
        leans.append(lean)
        reaches.append(spread_round(points, _AROUND))
        centres.append(centre)
    centre = (float(centres[0][0]), float(centres[0][1] + centres[1][1]) / 2, float(centres[1][0]))
    return _Form(centre, (leans[0], leans[1]), (reaches[0], reaches[1]))


def _outline(form: _Form, turned: float, swell: np.ndarray) -> np.ndarray:
    """Return the outline (n, 2) around its middle of a carpal bone turned by `turned` radians."""
    cosine, sine = math.cos(turned), math.sin(turned)
    mirror = (_AROUND // 2 - np.arange(_AROUND)) % _AROUND
    first = form.reach[0] if cosine >= 0 else form.reach[0][mirror]
    second = form.reach[1] if sine >= 0 else form.reach[1][mirror]
    reach = np.sqrt(np.square(cosine * first) + np.square(sine * second)) * swell
    points = np.column_stack([reach * np.cos(_WAVES), reach * np.sin(_WAVES)])
    points[:, 0] += (cosine * form.lean[0] + sine * form.lean[1]) * points[:, 1]
    return points


def build_carpus(patient: Patient, pose: Pose) -> list[Bone]:
    """Return the carpal bones, each as two overlapping shells, since their front and back rims do not coincide."""
    rng = patient.stream(_CARPUS)
    turned = math.radians(pose.view.angle)
    spread, apart = rng.uniform(1.0, 1.1), rng.uniform(0.98, 1.04)
    tall, low = rng.normal(1.0, 0.035), rng.uniform(-0.1, 1.5)
    bones = []
    for name in outlines.CARPALS["PA"]:
        form = _form(name)
        size = spread * rng.normal(1, 0.03)
        moved = rng.normal(0, 0.45, 3) + _ROOM.get(name, 0.0)
        swell = 1 + rng.normal(0, 0.013, 12) @ _UNEVEN
        angle, back = rng.normal(0, 3.0), (rng.normal(0, 5.0), rng.uniform(0.84, 0.97), rng.normal(0, 0.8, 2))
        uneven = 1 + rng.normal(0, 0.024, 12) @ _UNEVEN
        weight, ridges = rng.uniform(0.9, 1.1), rng.normal(0, 1, (3, 4))
        ripe = np.clip((patient.age - outlines.OSSIFICATION[name]) / 6.5, 0, 1) if patient.child else 1.0
        if ripe <= 0.01:
            continue
        size *= 1.0 if ripe >= 1 else 0.36 + 0.62 * ripe
        shell = _outline(form, turned, swell) * size
        if name == "lunate":
            angle += pose.tilt * math.sin(turned)
        if name == "scaphoid":  # it lies down as the hand bends to the palm or the thumb
            shell[:, 1] *= 1 - 0.004 * float(np.clip(pose.flexion - pose.deviation, -25, 25))
        if ripe < 0.8:  # a young carpal bone is round
            radius = np.hypot(*shell.T)[:, None]
            shell = shell * (ripe + (1 - ripe) * radius.mean() / radius)
        x, y, z = np.array(form.centre) * [apart, 1, 1] + moved + [2 * (1 - apart), 0, 0]
        place = np.array([pose.view.mix(x, z), 12 + (y - 12) * tall * apart + low])
        inner = turn(shell * back[1] * uneven[:, None], back[0], (0, 0)) + back[2]
        bones.extend(_shells(name, shell, inner, angle, place, patient, weight, turned, ridges))
    return bones


def _shells(name, shell, back, angle, place, patient: Patient, weight: float, turned: float, ridges) -> list[Bone]:
    # Edges of facets that face the beam: faint dense lines within.
    reach = np.ptp(shell, axis=0) / 2
    lines = tuple(
        (place[0] + 0.3 * a * reach[0], place[1] + 0.3 * b * reach[1], 0.7 * c, 0.55 * reach[1], 0.5, 0.22 + 0.1 * d)
        for a, b, c, d in ridges[:2]
    )
    lines += tuple(
        (place[0] + 0.5 * a * reach[0], place[1] + 0.5 * b * reach[1], 0.0, 0.45 * reach[1], 0.4 * reach[0], 0.25 * c)
        for a, b, c, _ in ridges
    )
    if name == "scaphoid":  # its tubercle stands up to the beam
        a, b, c, _ = ridges[2]
        aside = 0.8 * reach[0] * (math.sin(turned) - math.cos(turned))
        far = 0.55 * turn(np.array([[aside, reach[1]]]), angle, (0, 0))[0]
        lines += ((place[0] + far[0] + 0.4 * a, place[1] + far[1] + 0.4 * b, 0.0, 2.8, 2.8, 0.3 + 0.12 * c),)
    small = name in ("pisiform", "hamulus")
    bones = []
    for part, suffix, share in ((shell, "", 0.74), (back, " back", 0.42)):
        outline = turn(part, angle, (0, 0)) + place
        low, high = outline.min(axis=0), outline.max(axis=0)
        bones.append(
            Bone(
                name=name + suffix,
                outline=outline,
                axis=(np.array([place[0], low[1]]), np.array([place[0], high[1]])),
                depth=4.0 if small else 6.8,
                cortex_mid=0.62 * patient.cortex_mm,
                cortex_end=0.62 * patient.cortex_mm,
                marks=() if suffix or small else lines,
                weight=share * weight * (0.6 if small else 1) * (1 - 0.12 * abs(math.sin(turned))),
            )
        )
    return bones
