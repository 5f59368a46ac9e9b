"""Finger rays as chains of tubes in space, and the skin around hand and forearm."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from core.phantoms import outlines
from core.phantoms.anatomy import Bone, Patient, Pose, merge_levels, move_bone, smooth, support, turn
from core.phantoms.forearm import ELBOW, elbow_bend
from core.phantoms.views import View

_RAYS, _SKIN, _SESAMOIDS, _HOLDER = 31, 32, 33, 34
# Half the width of a phalanx' base by its order from the palm.
_PHALANX = {1: 6.4, 2: 5.4, 3: 4.5}


def build_rays(patient: Patient, pose: Pose) -> list[list[Bone]]:
    """Return the five finger rays, thumb first, each a chain of metacarpal and phalanges."""
    body, turned = patient.stream(_RAYS), math.radians(pose.view.angle)
    move = np.random.default_rng([patient.seed, 33, round(abs(pose.view.angle) * 100)])
    arch, size = body.uniform(0.7, 1.6), body.normal(1.0, 0.035)
    rays = []
    for number, (base, (across, deep), lengths, widths) in enumerate(outlines.RAYS):
        across = across * (pose.spread if number else 1) + body.normal(0, 1.5) + (0 if number else pose.thumb[0])
        deep = deep + body.normal(0, 1.5) + (0 if number else pose.thumb[1])
        point = np.array(base) * [1, 1, arch if number else 1] + body.normal(0, 0.5, 3) + [0, body.uniform(1.9, 4.1), 0]
        if number == 0:
            point[1] += 1.2  # the saddle that the thumb rides on rose as much further
        bend = max(pose.curl + pose.fan * (number - 2.5) * 9 + move.normal(0, 3), -6) * (0.3 if number == 0 else 1)
        chain = []
        for order, length in enumerate(lengths):
            length = length * size * body.normal(1, 0.025)
            step = _direction(across, deep) * length
            tube = _tube(number, order, widths, body)
            chain.append(_bone(patient, number, order, tube, point, point + step, turned))
            gap = body.uniform(0.9, 1.7) + (1.2 if patient.child and patient.age < 2 else 0)
            point = point + step * (1 + gap / length)
            deep += bend * (0.8, 1.1, 0.7)[min(order, 2)] + move.normal(0, 1.5)
            across += move.normal(0, 2.0) + (across * 0.12 if order == 0 and number else 0)
        rays.append(chain)
    return rays


def _direction(across: float, deep: float) -> np.ndarray:
    """Return the unit vector that leans `across` degrees to the ulna and `deep` degrees to the palm."""
    a, d = math.radians(across), math.radians(deep)
    if abs(d) < 1.2:
        vector = np.array([math.tan(a), 1.0, math.tan(d) / math.cos(a)])
        return vector / np.linalg.norm(vector)
    return np.array([math.sin(a) * math.cos(d), math.cos(a) * math.cos(d), math.sin(d)])


def _tube(number: int, order: int, widths: tuple[float, float, float], rng) -> tuple[np.ndarray, np.ndarray]:
    """Return a bone's edges, to the left and to the right, (m, 2) each: mm aside, fraction of the length."""
    last = order == (2 if number == 0 else 3)
    if order == 0:
        base, waist, head = widths
    else:
        base = _PHALANX[min(order + (number == 0), 3)] * (0.88 if number == 4 else 1)
        waist, head = base * (0.6 if not last else 0.42), base * (0.82 if not last else 0.55)
    base, waist, head = np.array([base, waist, head]) * rng.normal(1, 0.04)
    t = np.array([0.0, 0.035, 0.09, 0.17, 0.33, 0.6, 0.8, 0.9, 0.96, 0.995])
    half = np.array([base * 0.8, base, base * 0.96, base * 0.78, waist, waist * 0.98, head * 0.82, head, head * 0.92,
                     head * 0.6])  # fmt: skip
    skew = rng.normal(0, 0.25, len(t))
    left, right = (np.column_stack([sign * half + skew + rng.normal(0, 0.14, len(t)), t]) for sign in (-1, 1))
    if order == 0 and number:  # the bases are forked or slanted, and reach under each other
        left[0, 1], right[0, 1] = rng.normal(0.0, 0.02, 2) + {1: (0.0, -0.03), 2: (-0.045, 0.0)}.get(number, (0.0, 0.0))
    return left, right


def _bone(patient: Patient, ray: int, order: int, tube, start: np.ndarray, end: np.ndarray, turned: float) -> Bone:
    """Return one tubular bone as the view shows it, shortened where it points along the beam."""
    base, tip = (np.array([p[0] * math.cos(turned) + p[2] * math.sin(turned), p[1]]) for p in (start, end))
    length = float(np.hypot(*(tip - base)))
    full = float(np.linalg.norm(end - start))
    shown = max(length, 0.35 * full)
    heading = math.degrees(math.atan2(tip[0] - base[0], tip[1] - base[1]))
    left, right = (side * [1, shown] for side in tube)
    notch = np.array([[0.0, 0.025 * shown]]) if order == 0 and ray == 1 else np.empty((0, 2))
    points = np.vstack([right, left[::-1], notch])
    wide = float(np.abs(points[:, 0]).max())
    bands = ()
    if patient.growing:
        plate = shown * 0.88 if (order == 0 and ray) else shown * 0.1
        thin = float(np.clip(0.95 - 0.035 * patient.age, 0.35, 0.9))
        bands = ((plate, thin, -0.75), (plate + (-1.3 if order == 0 and ray else 1.3), 0.6, 0.3))
    direction = (tip - base) / max(length, 1e-6) if length > 1 else np.array([0.0, 1.0])
    return Bone(
        name=f"ray {ray + 1} bone {order + 1}",
        outline=turn(points, heading, (0, 0)) + base,
        axis=(base, base + direction * shown),
        depth=min(wide, 5.5),
        cortex_mid=(2.0 if order == 0 else 1.6) * patient.cortex_mm,
        cortex_end=0.6 * patient.cortex_mm,
        ends=(0.2, 0.2),
        weight=min(full / shown, 1.5) * (0.9 if abs(math.sin(turned)) > 0.7 else 1.0),
        bands=bands,
        steps=4,
    )


def build_sesamoids(patient: Patient, rays: list[list[Bone]]) -> list[Bone]:
    """Return the sesamoids at the heads of the thumb's and, now and then, of another metacarpal."""
    rng = patient.stream(_SESAMOIDS)
    bones = []
    for number, chance in ((0, 0.75), (1, 0.15), (4, 0.2)):
        drawn, wide = rng.random(), rng.uniform(1.6, 2.6)
        if drawn > chance or patient.age < 12:
            continue
        start, end = rays[number][0].axis
        along = (end - start) / max(np.hypot(*(end - start)), 1e-6)
        across = np.array([along[1], -along[0]])
        for side in (-1, 1) if number == 0 else (1,):
            spot = end - along * rng.uniform(1, 4) + across * (side * 3.4 + rng.normal(0.8, 0.8))
            around = np.linspace(0, 2 * np.pi, 8, endpoint=False)
            points = np.column_stack([np.cos(around) * wide, np.sin(around) * wide * rng.uniform(0.7, 1.3)])
            name = f"sesamoid {number + 1} {side}"
            bones.append(Bone(name, smooth(points + spot, 4), (spot, spot + along * wide), wide, 0.6, 0.6, weight=0.9))
    return bones


def build_holder(patient: Patient, pose: Pose) -> tuple[list[Bone], list[np.ndarray]]:
    """Return bones and skin of the grown-up fingers that hold a small child's arm on a few films; mostly none."""
    rng = patient.stream(_HOLDER)
    if rng.random() > 0.06 or patient.age > 9:
        return [], []
    adult = replace(patient, child=False, age=35.0, girth=1.0)
    larger = 1 / patient.scale
    heading, place = rng.choice([-1, 1]) * rng.uniform(70, 110), np.array([0.0, -rng.uniform(75, 130)])
    rays = build_rays(adult, replace(pose, curl=rng.uniform(0, 25), spread=0.7, view=View("PA", rng.uniform(0, 40))))
    turned = turn(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), heading, (0, 0)) * larger
    motion = np.column_stack(
        [turned[1], turned[2], place - turn(np.array([[0.0, 165.0]]), heading, (0, 0))[0] * larger]
    )
    held = [[move_bone(bone, motion) for bone in ray] for ray in rays[1 : int(rng.integers(3, 6))]]
    bones = [replace(bone, name=f"other's {bone.name}", depth=bone.depth * larger) for ray in held for bone in ray]
    sleeves = [_sleeve(ray, adult, number + 1, larger) for number, ray in enumerate(held)]
    return bones, sleeves


def build_skin(
    patient: Patient, pose: Pose, rays: list[list[Bone]]
) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Return the outline of forearm and palm, those that move with the hand, and those that do not."""
    rng = patient.stream(_SKIN)
    levels = merge_levels(outlines.SKIN["PA"], outlines.SKIN["LATERAL"])
    turned = math.radians(pose.view.angle)
    bent = elbow_bend(pose) > 25
    levels = levels[levels[:, 0] > -255] if bent else levels
    y, x0, x1, z0, z1 = levels.T
    girth = patient.girth * (1 + 0.06 * rng.normal() * np.clip(-y / 120, 0, 1))
    middle = (x0 + x1) / 2 * math.cos(turned) + (z0 + z1) / 2 * math.sin(turned)
    half = support((x1 - x0) / 2, (z1 - z0) / 2, turned, 2.0) * girth
    left, right = middle - half, middle + half
    main = np.vstack([np.column_stack([right, y]), np.column_stack([left, y])[::-1]])
    fingers = [_sleeve(chain, patient, number) for number, chain in enumerate(rays)]
    (thumb_base, thumb_head), (index_base, index_head) = rays[0][0].axis, rays[1][0].axis
    reach = 0.6 * thumb_head + 0.4 * index_head  # the web between thumb and index finger
    fingers.append(np.array([index_base, thumb_base, thumb_head, 0.8 * reach + 0.2 * index_base, index_head]))
    return smooth(main, 10), fingers, [_upper_arm(patient, pose)] if bent else []


def _sleeve(chain: list[Bone], patient: Patient, number: int, larger: float = 1.0) -> np.ndarray:
    """Return the skin around a finger, or around the thumb with its metacarpal."""
    bones = chain if number == 0 else chain[1:]
    path = [bones[0].axis[0]] + [bone.axis[1] for bone in bones]
    path = np.array([path[0] - (path[1] - path[0]) * 0.3, *path])
    along = np.diff(path, axis=0, append=path[-1:] * 2 - path[-2:-1])
    across = np.column_stack([along[:, 1], -along[:, 0]]) / np.linalg.norm(along, axis=1, keepdims=True)
    radius = np.linspace(13.5 if number == 0 else 10.4, 7.8, len(path)) * patient.girth * (0.88 if number == 4 else 1)
    tip = path[-1:] + along[-1:] / np.linalg.norm(along[-1]) * 5.0 * larger
    radius = radius[:, None] * larger
    return smooth(np.vstack([path + across * radius, tip, (path - across * radius)[::-1]]), 4)


def _upper_arm(patient: Patient, pose: Pose) -> np.ndarray:
    """Return the skin around elbow and upper arm where the elbow is bent."""
    half = np.array([30.0, 40.0, 44.0, 52.0, 56.0]) * patient.girth
    y = np.array([24.0, 4.0, -30.0, -120.0, -260.0])
    points = np.vstack([np.column_stack([half, y]), np.column_stack([-half, y])[::-1]])
    return smooth(turn(points, -elbow_bend(pose), (0, 0)) + ELBOW, 6)
