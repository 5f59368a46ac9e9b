"""Simulated films that show no wrist: other joints, shafts, pictures that are no radiographs at all.

A wrist finder that has only ever seen wrists is sure of a wrist on every film. These films teach it to doubt. They are
crude on purpose (knees, ankles, elbows, hips as hollow bodies of about the right proportions): what they share is the
look of a radiograph and the want of a wrist.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np

from core.phantoms import detector, projection
from core.phantoms.anatomy import Bone, smooth, turn

KINDS = ("shafts", "knee", "ankle", "foot", "elbow", "hip", "spine", "scrap", "blank", "text", "shapes")
_WEIGHTS = (0.09, 0.17, 0.16, 0.1, 0.13, 0.13, 0.04, 0.1, 0.03, 0.02, 0.03)


def simulate_decoy(seed: int, size: int = 240, kind: str | None = None) -> np.ndarray:
    """Simulate a film without a wrist.

    Parameters
    ----------
    seed : int
        The same seed and arguments give the same film.
    size : int
        Pixels a side of the square film.
    kind : str, optional
        One of ``KINDS``; drawn where None.

    Returns
    -------
    numpy.ndarray
        uint8 (size, size), bone bright.
    """
    rng = np.random.default_rng([17, seed])
    drawn = str(rng.choice(KINDS, p=_WEIGHTS))
    kind = kind or drawn
    if kind in ("blank", "text", "shapes"):
        return _draw_flat(kind, size, rng)
    bones, bodies = _PARTS[kind](rng)
    return _take(bones, bodies, size, rng)


def _take(bones: Sequence[Bone], bodies: Sequence[np.ndarray], size: int, rng: np.random.Generator) -> np.ndarray:
    """Expose bones and flesh (outlines in mm, +y up) around the origin and process the film as wrists are."""
    machine = detector.draw_detector(rng)
    if rng.random() < 0.6:
        # Thick parts are often shown soft, with a wide range of greys and burnt-out places.
        machine = replace(
            machine,
            enhance=rng.uniform(0, 0.6),
            contrast=0.0,
            latitude=rng.uniform(0, 0.5),
            scatter=rng.uniform(0.1, 0.6),
            blur_mm=rng.uniform(0.2, 1.0),
            low_percentile=rng.uniform(0.1, 12),
            high_percentile=rng.uniform(93, 99.8),
            gamma=rng.uniform(0.7, 1.8),
        )
    per_mm = size / rng.uniform(150, 420)
    angle = np.radians(rng.normal(0, 8) + (180 if rng.random() < 0.15 else 0) + (90 if rng.random() < 0.15 else 0))
    linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = 1.5 * per_mm * linear @ np.diag([rng.choice([-1.0, 1.0]), -1.0])
    fine = round(size * 1.5)
    frame = projection.Frame(np.column_stack([linear, fine / 2 + rng.normal(0, 0.06, 2) * fine]), (fine, fine))
    canvas = projection.Canvas(frame)
    # A body that fills the film has no edge: its distance overflows to infinity, which is deep enough.
    with np.errstate(over="ignore"):
        attenuation = projection.flesh(bodies[0], list(bodies[1:]), frame, float(rng.uniform(55, 130)), 0, rng)
    density = float(rng.uniform(0.7, 1.1))
    for bone in bones:
        projection.draw_bone(canvas, bone, [], "PA", rng, density, projection.TEXTURE)
    if rng.random() < 0.15:
        _add_metal(canvas, rng)
    attenuation = attenuation + canvas.bone
    film = detector.process(detector.expose(attenuation, 1.5 * per_mm, machine, rng), 1.5 * per_mm, machine)
    film = detector.degrade(cv2.resize(film, (size, size), interpolation=cv2.INTER_AREA), 106 * per_mm, machine, rng)
    overlay = detector.draw_overlay(rng, "long", str(rng.choice(["L", "R"])))
    corners = detector.open_corners(overlay, (size, size))
    film = detector.finish(film, overlay, corners, np.array([[size / 2, size / 2]]), per_mm)
    if rng.random() < 0.5:
        _cut_to_format(film, rng)
    return film


def _cut_to_format(film: np.ndarray, rng: np.random.Generator) -> None:
    """Blacken two opposite edges, as padding a narrow film to a square does."""
    width = int(film.shape[0] * rng.uniform(0.02, 0.25))
    film[:, :width] = 0
    film[:, film.shape[0] - width :] = 0


def _add_metal(canvas: projection.Canvas, rng: np.random.Generator) -> None:
    """Add a plate or a nail with screws."""
    start, length = rng.normal(0, 25, 2), rng.uniform(60, 160)
    heading = rng.normal(0, 12)
    box = (0, 0, *canvas.frame.shape)
    parts = [_bar(start, heading, length, rng.uniform(3, 6))]
    along = np.array([np.sin(np.radians(heading)), np.cos(np.radians(heading))])
    for place in rng.uniform(0, length, int(rng.integers(2, 7))):
        parts.append(_bar(start + along * place, heading + 90 + rng.normal(0, 10), rng.uniform(15, 40), 2.0))
    for part in parts:
        canvas.bone += projection.fill(canvas.frame.place(part), box).astype(np.float32) * np.float32(2.5 / 255)


def _bar(start: np.ndarray, heading: float, length: float, half: float) -> np.ndarray:
    corners = np.array([(-half, 0), (half, 0), (half, length), (-half, length)], float)
    return turn(corners, heading, (0, 0)) + start


def _bone(
    base, heading: float, length: float, shaft: float, ends: tuple[float, float], rng, cortex: float = 5.0
) -> Bone:
    """Return a long bone from `base` along `heading` (degrees clockwise from +y); half widths in mm."""
    low, high = ends
    stations = [
        (0.0, low * 0.75), (0.03, low), (0.09, low * 0.85), (0.22, shaft * 1.08), (0.5, shaft), (0.78, shaft * 1.08),
        (0.91, high * 0.85), (0.97, high), (1.0, high * 0.75),
    ]  # fmt: skip
    t = np.array([place for place, _ in stations]) * length
    half = np.array([width for _, width in stations]) * rng.normal(1, 0.05, len(stations))
    skew = rng.normal(0, 0.04 * max(low, high), len(t))
    points = np.vstack([np.column_stack([half + skew, t]), np.column_stack([-half + skew, t])[::-1]])
    direction = np.array([np.sin(np.radians(heading)), np.cos(np.radians(heading))])
    base = np.asarray(base, float)
    return Bone(
        name="long",
        outline=turn(smooth(points), heading, (0, 0)) + base,
        axis=(base, base + direction * length),
        depth=float(max(shaft, 0.55 * max(low, high))),
        cortex_mid=cortex,
        cortex_end=1.2,
        ends=(0.22, 0.22),
    )


def _lump(centre, radii: tuple[float, float], heading: float, rng) -> Bone:
    """Return a short bone: an uneven ellipse."""
    angle = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    reach = rng.normal(1, 0.09, 10)[:, None]
    points = turn(np.column_stack([np.cos(angle), np.sin(angle)]) * reach * radii, heading, (0, 0)) + centre
    top = np.add(centre, (0, radii[1]))
    return Bone("lump", smooth(points), (np.asarray(centre, float), top), float(min(*radii, 12.0)), 1.2, 1.2)


def _limb(points: Sequence[tuple[float, float]], halves: Sequence[float]) -> np.ndarray:
    """Return the skin around a limb's axis through `points` (mm) with half widths `halves`."""
    path, half = np.asarray(points, float), np.asarray(halves, float)[:, None]
    along = np.gradient(path, axis=0)
    across = np.column_stack([along[:, 1], -along[:, 0]]) / np.linalg.norm(along, axis=1, keepdims=True)
    return np.vstack([path + across * half, (path - across * half)[::-1]])


def _end(base, heading: float, length: float) -> np.ndarray:
    return np.asarray(base, float) + length * np.array([np.sin(np.radians(heading)), np.cos(np.radians(heading))])


def _shafts(rng: np.random.Generator) -> tuple[list[Bone], list[np.ndarray]]:
    """Return one or two shafts that cross the film; their ends lie outside."""
    shaft, apart = rng.uniform(6, 15), rng.uniform(18, 34)
    bones = [_bone((0, -330), rng.normal(0, 2), 660, shaft, (shaft * 2, shaft * 2), rng)]
    if rng.random() < 0.6:
        bones.append(_bone((apart, -330), rng.normal(0, 2), 660, shaft * rng.uniform(0.5, 1), (shaft, shaft), rng, 3.5))
    reach = rng.uniform(35, 75)
    return bones, [_limb([(apart / 3, -330), (apart / 3, 0), (apart / 3, 330)], [reach, reach * 1.1, reach])]


def _knee(rng: np.random.Generator) -> tuple[list[Bone], list[np.ndarray]]:
    bend = abs(rng.normal(0, 35)) if rng.random() < 0.5 else rng.normal(0, 3)
    wide = rng.uniform(33, 43) * (0.8 if abs(bend) > 10 else 1)
    femur = _bone((0, 3), 0 + bend / 3, 300, rng.uniform(12, 16), (wide, 30), rng, 6)
    tibia = _bone((0, -3), 180 - bend, 300, rng.uniform(11, 15), (wide * 0.95, 24), rng, 5.5)
    fibula = _bone(_end((wide * 0.75, -22), 180 - bend, 0), 180 - bend, 290, 6, (10, 10), rng, 3)
    bones = [femur, tibia, fibula, _lump((-wide * 0.6 if abs(bend) > 10 else 0, 28), (15, 20), bend / 2, rng)]
    top, low = _end((0, 3), bend / 3, 300), _end((0, -3), 180 - bend, 300)
    return bones, [_limb([low, low / 2, (0, 0), top / 2, top], [48, 60, 58, 70, 85])]


def _ankle(rng: np.random.Generator) -> tuple[list[Bone], list[np.ndarray]]:
    tibia = _bone((0, 2), 0, 320, rng.uniform(10, 13), (rng.uniform(18, 25), 34), rng, 5)
    fibula = _bone((rng.uniform(4, 26), -12), 0, 320, 6, (9, 11), rng, 3)
    bones, bodies = [tibia, fibula], [_limb([(5, -15), (5, 100), (5, 330)], [34, 42, 60])]
    if rng.random() < 0.6:  # from the side: heel behind, foot in front
        bones += [_lump((0, -14), (24, 13), 0, rng), _lump((-26, -36), (36, 17), rng.normal(15, 6), rng)]
        for number, place in enumerate((34, 46, 58)):
            bones.append(_lump((place, -22 - 4 * number), (9, 14), rng.normal(0, 10), rng))
        heading = rng.normal(112, 8)
        for spread in np.linspace(-7, 7, 5):
            base = (66, -32 + spread)
            bones.append(_bone(base, heading + spread / 2, 66, 4.2, (8, 7), rng, 2.5))
            bones.append(_bone(_end(base, heading + spread / 2, 69), heading, 30, 4, (7, 6), rng, 2))
        bodies.append(_limb([(-70, -45), (0, -30), (90, -45), (185, -75)], [24, 40, 28, 12]))
    else:  # from the front: the foot is foreshortened and dense
        bones += [_lump((2, -12), (23, 12), 0, rng), _lump((4, -38), (19, 30), rng.normal(0, 6), rng)]
        bones += [_bone((8 * k, -60), 180 + 4 * k, 45, 4, (7, 7), rng, 2.5) for k in (-2, -1, 0, 1, 2)]
        bodies.append(_limb([(4, -115), (4, -60), (4, 0)], [36, 40, 36]))
    return bones, bodies


def _elbow(rng: np.random.Generator) -> tuple[list[Bone], list[np.ndarray]]:
    bend = rng.uniform(30, 110) if rng.random() < 0.65 else rng.normal(0, 8)
    humerus = _bone((0, 4), 0, 300, rng.uniform(9, 12), (rng.uniform(20, 30) * (0.7 if bend > 20 else 1), 24), rng, 5)
    radius = _bone((8, -3), 180 - bend, 330, 6.2, (11, 14), rng, 3)
    ulna = _bone(_end((-8, 8), 180 - bend, -6), 180 - bend, 330, 6.2, (13, 7), rng, 3)
    low, top = _end((0, -3), 180 - bend, 330), np.array([0, 304.0])
    bodies = [_limb([(0, -25), (0, 60), top * 0.6, top], [40, 42, 52, 60])]
    bodies.append(_limb([(0, 15), low * 0.4, low], [38, 38, 28]))
    return [humerus, radius, ulna], bodies


def _hip(rng: np.random.Generator) -> tuple[list[Bone], list[np.ndarray]]:
    bones: list[Bone] = []
    for side in (-1, 1) if rng.random() < 0.6 else (1,):
        head = np.array([side * 88.0, 0.0])
        bones.append(_bone(np.add(head, (side * 34, -26)), 180 - side * 4, 300, 14, (26, 20), rng, 7))
        bones.append(_bone(np.add(head, (side * 30, -30)), -side * 48, 50, 14, (19, 22), rng, 3))
        bones.append(_lump(head, (24, 24), 0, rng))
        bones.append(_lump(np.add(head, (-side * 8, 85)), (52, 62), side * 25, rng))
        bones.append(_lump(np.add(head, (-side * 48, -42)), (17, 40), side * 35, rng))
    bones += [_lump((0, 150 - 38 * k), (24, 15), 0, rng) for k in range(4)]
    reach = rng.uniform(150, 190)
    return bones, [_limb([(0, -330), (0, 0), (0, 330)], [reach, reach, reach * 0.9])]


def _spine(rng: np.random.Generator) -> tuple[list[Bone], list[np.ndarray]]:
    bones = [_lump((rng.normal(0, 3), y), (rng.uniform(19, 26), 13), 0, rng) for y in range(-240, 260, 34)]
    for y in range(-120, 260, 34):
        for side in (-1, 1):
            bones.append(_bone((side * 22, y), side * rng.normal(105, 5), 150, 4, (5, 5), rng, 2))
    return bones, [_limb([(0, -330), (0, 0), (0, 330)], [160, 175, 170])]


def _foot(rng: np.random.Generator) -> tuple[list[Bone], list[np.ndarray]]:
    """Return a foot from above: five rays of one length order on a block of tarsal bones, no forearm below."""
    bones: list[Bone] = []
    fan = rng.uniform(0.6, 1.4)
    for number, (x, length) in enumerate(zip((-26, -12, 0, 11, 22), (62, 74, 72, 69, 66), strict=True)):
        heading = fan * (number - 1.5) * 5 + rng.normal(0, 2)
        width = 7.5 if number == 0 else 4.4
        point = np.array([x, 0.0])
        for part in (length, length * 0.4, *([length * 0.3] if number == 0 else [12.0, 9.0])):
            bones.append(_bone(point, heading, part, width, (width * 1.8, width * 1.6), rng, 2.2))
            point = _end(point, heading, part + 2.0)
            width *= 0.85
    for x, y, across, up in (
        (-22, -14, 10, 12),
        (-10, -12, 8, 11),
        (2, -11, 8, 10),
        (16, -16, 12, 15),
        (-12, -36, 20, 10),
    ):
        bones.append(_lump((x, y), (across, up), rng.normal(0, 10), rng))
    bones += [_lump((-6, -58), (20, 18), 0, rng), _lump((10, -80), (18, 38), rng.normal(-8, 5), rng)]
    skin = _limb([(6, -125), (2, -60), (0, 0), (0, 80), (2, 135)], [28, 34, 42, 46, 30])
    return bones, [skin]


def _scrap(rng: np.random.Generator) -> tuple[list[Bone], list[np.ndarray]]:
    """Return bones of no order at all: a wrist is more than bones beside each other."""
    bones = []
    for _ in range(int(rng.integers(1, 5))):
        shaft = rng.uniform(4, 15)
        wide = (shaft * rng.uniform(1.2, 2.8), shaft * rng.uniform(1.2, 2.8))
        bones.append(_bone(rng.normal(0, 70, 2), rng.uniform(-180, 180), rng.uniform(60, 320), shaft, wide, rng, 4))
    for _ in range(int(rng.integers(0, 8))):
        bones.append(_lump(rng.normal(0, 60, 2), tuple(rng.uniform(6, 40, 2)), rng.uniform(0, 180), rng))
    heading = rng.uniform(-30, 30)
    ends = [_end((0, 0), heading + turned, 330) for turned in (180, 0)]
    return bones, [_limb([ends[0], (0, 0), ends[1]], rng.uniform(35, 150, 3))]


_PARTS: dict[str, Callable[[np.random.Generator], tuple[list[Bone], list[np.ndarray]]]] = {
    "shafts": _shafts,
    "knee": _knee,
    "ankle": _ankle,
    "foot": _foot,
    "elbow": _elbow,
    "hip": _hip,
    "spine": _spine,
    "scrap": _scrap,
}


def _draw_flat(kind: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw what is no radiograph: noise or a ramp, a page of text, scattered shapes."""
    ramp = np.linspace(*rng.uniform(0, 255, 2), size)
    film = np.broadcast_to(ramp[None] if rng.random() < 0.5 else ramp[:, None], (size, size)).copy()
    if kind == "blank":
        film += rng.normal(0, rng.uniform(0, 40), film.shape)
    elif kind == "text":
        film = np.full((size, size), 245 if rng.random() < 0.6 else 10, np.uint8)
        for y in range(12, size, int(rng.integers(10, 22))):
            words = "".join(chr(rng.integers(65, 122)) for _ in range(40))
            ink = 20 if film[0, 0] > 100 else 230
            cv2.putText(film, words, (int(rng.integers(2, 30)), y), cv2.FONT_HERSHEY_PLAIN, 0.8, ink, 1)
    else:
        for _ in range(int(rng.integers(4, 30))):
            centre = tuple(int(v) for v in rng.integers(0, size, 2))
            radii = tuple(int(v) for v in rng.integers(4, size // 3, 2))
            thick = -1 if rng.random() < 0.6 else int(rng.integers(1, 8))
            cv2.ellipse(film, centre, radii, float(rng.uniform(0, 180)), 0, 360, float(rng.uniform(0, 255)), thick)
        film = cv2.GaussianBlur(film, (0, 0), float(rng.uniform(0.5, 4)))
    return np.clip(film, 0, 255).astype(np.uint8)
