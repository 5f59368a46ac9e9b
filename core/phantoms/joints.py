"""Parts of the body that are no wrist, as bones and skin on a film: ankles, knees, feet, elbows, hips, chests, fingers.

Coordinates are mm with +y up the film, around the middle of what is shown. The outlines follow what textbook
radiographs show; `core.phantoms.decoys` exposes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from core.phantoms.anatomy import Bone, smooth, turn


@dataclass(frozen=True, eq=False)
class Part:
    """Bones and flesh of one film; mm.

    Attributes
    ----------
    bones : list of Bone
    bodies : list of numpy.ndarray
        Outlines of the flesh, each (n, 2).
    depth : tuple of float
        Least and greatest depth of the flesh in mm.
    reach : tuple of float
        Least and greatest side of the square that is shown.
    air : list of numpy.ndarray
        Outlines in which there is little flesh: lungs.
    """

    bones: list[Bone]
    bodies: list[np.ndarray]
    depth: tuple[float, float] = (45.0, 110.0)
    reach: tuple[float, float] = (130.0, 380.0)
    air: tuple[np.ndarray, ...] = ()


Rng = np.random.Generator


def long_bone(base, heading: float, length: float, shaft: float, ends: tuple[float, float], rng: Rng, cortex=5.0):
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
    base = np.asarray(base, float)
    depth = float(max(shaft, 0.55 * max(low, high)))
    axis = (base, end_of(base, heading, length))
    return Bone("long", smooth(turn(points, heading, (0, 0)) + base), axis, depth, cortex, 1.2, ends=(0.22, 0.22))


def drawn_bone(points, rng: Rng, depth: float, cortex: float = 0.0, ends: tuple[float, float] = (0.3, 0.02)) -> Bone:
    """Return a bone of a given outline, varied a little: a shaft with a cortex where one is given, else a lump."""
    points = np.array(points, float)
    middle = points.mean(axis=0)
    points = (points - middle) * rng.normal(1, 0.03, 2) + middle + rng.normal(0, 0.012 * np.ptp(points[:, 0]), 2)
    points = points + rng.normal(0, 0.5, points.shape)
    outline = smooth(points)
    low, high = outline.min(axis=0), outline.max(axis=0)
    axis = (np.array([middle[0], low[1]]), np.array([middle[0], high[1]]))
    if cortex:
        return Bone("long", outline, axis, depth, cortex, 1.2, ends=ends)
    return Bone("lump", outline, axis, depth, 1.2, 1.2)


def lump(centre, radii: tuple[float, float], heading: float, rng: Rng) -> Bone:
    """Return a short bone: an uneven ellipse."""
    angle = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    reach = rng.normal(1, 0.09, 10)[:, None]
    points = turn(np.column_stack([np.cos(angle), np.sin(angle)]) * reach * radii, heading, (0, 0)) + centre
    top = np.add(centre, (0, radii[1]))
    return Bone("lump", smooth(points), (np.asarray(centre, float), top), float(min(*radii, 12.0)), 1.2, 1.2)


def limb(points: Sequence[tuple[float, float]], halves: Sequence[float]) -> np.ndarray:
    """Return the skin around a limb's axis through `points` (mm) with half widths `halves`."""
    path, half = np.asarray(points, float), np.asarray(halves, float)[:, None]
    along = np.gradient(path, axis=0)
    across = np.column_stack([along[:, 1], -along[:, 0]]) / np.linalg.norm(along, axis=1, keepdims=True)
    return smooth(np.vstack([path + across * half, (path - across * half)[::-1]]), 4)


def end_of(base, heading: float, length: float) -> np.ndarray:
    """Return the point `length` mm from `base` along `heading`."""
    return np.asarray(base, float) + length * np.array([np.sin(np.radians(heading)), np.cos(np.radians(heading))])


def turn_bone(bone: Bone, degrees: float, centre) -> Bone:
    """Return a bone turned about a point."""
    axis = tuple(turn(np.array([point]), degrees, centre)[0] for point in bone.axis)
    return Bone(bone.name, turn(bone.outline, degrees, centre), axis, bone.depth, bone.cortex_mid, bone.cortex_end,
                ends=bone.ends)  # fmt: skip


def show_shafts(rng: Rng) -> Part:
    """Show one or two shafts that cross the film; their ends lie outside."""
    shaft, apart = rng.uniform(6, 15), rng.uniform(18, 34)
    bones = [long_bone((0, -330), rng.normal(0, 2), 660, shaft, (shaft * 2, shaft * 2), rng)]
    if rng.random() < 0.6:
        second = shaft * rng.uniform(0.5, 1)
        bones.append(long_bone((apart, -330), rng.normal(0, 2), 660, second, (shaft, shaft), rng, 3.5))
    reach = rng.uniform(35, 75)
    return Part(bones, [limb([(apart / 3, -330), (apart / 3, 0), (apart / 3, 330)], [reach, reach * 1.1, reach])])


def show_ankle(rng: Rng) -> Part:
    """Show an ankle from the front: the mortise of tibia and fibula over the talus, the foot foreshortened below."""
    tibia = [(-12, 330), (-11.5, 110), (-14, 60), (-20, 26), (-24, 8), (-25.5, -3), (-23, -14), (-18.5, -12),
             (-16.5, -2),
             (-12, 2), (0, 1), (12, 2), (16, 5), (17, 16), (14.5, 32), (12, 60), (11, 110), (12, 330)]  # fmt: skip
    fibula = [(15.5, 330), (15, 80), (15.5, 30), (17, 8), (18, -8), (20, -24), (25, -26), (28, -14),
              (28.5, 2), (26, 22),
              (24, 50), (24, 330)]  # fmt: skip
    talus = [(-15, -3), (-6, -2), (6, -2), (15, -3), (17.5, -13), (15, -23), (2, -25), (-13, -23), (-17, -14)]
    heel = [(-11, -22), (4, -20), (17, -22), (21, -38), (19, -56), (6, -66), (-8, -60), (-13, -42)]
    bones = [drawn_bone(tibia, rng, 14, 5, (0.05, 0.2)), drawn_bone(fibula, rng, 7, 3, (0.1, 0.05)),
             drawn_bone(talus, rng, 14), drawn_bone(heel, rng, 16)]  # fmt: skip
    if rng.random() < 0.7:
        bones += [
            long_bone((9 * k + 2, -52), 180 - 5 * k, rng.uniform(35, 55), 4, (8, 7), rng, 2.5) for k in range(-2, 3)
        ]
        bones += [lump((-8 + 9 * k, -42), (9, 10), 0, rng) for k in range(4)]
    skin = limb([(3, -118), (3, -60), (2, -15), (1, 40), (0, 120), (0, 330)], [34, 40, 38, 36, 45, 58])
    return Part(bones, [skin], (50, 110), (120, 380))


def show_ankle_side(rng: Rng) -> Part:
    """Show an ankle from the side: talus and heel bone under the tibia, the foot in front."""
    tibia = [(-13, 330), (-12, 110), (-15, 32), (-20, 8), (-18, -4), (-9, 2), (0, 4), (10, 2), (17, -2), (18, 9),
             (13, 34), (11, 110), (12, 330)]  # fmt: skip
    fibula = [(-12, 330), (-12, 90), (-11, 25), (-12, 0), (-9, -20), (-3, -24), (1, -16), (1, 4), (-1, 30), (-3, 90),
              (-3, 330)]  # fmt: skip
    talus = [(-23, -9), (-15, -1), (-4, 2.5), (8, 1), (16, -5), (26, -8), (33, -12), (34, -22), (24, -26), (10, -22),
             (-6, -24), (-20, -17)]  # fmt: skip
    heel = [(-58, -22), (-50, -16), (-28, -20), (-14, -24), (6, -26), (22, -30), (36, -34), (36, -46), (20, -50),
            (-10, -56), (-42, -62), (-58, -52), (-63, -36)]  # fmt: skip
    bones = [drawn_bone(tibia, rng, 13, 5, (0.05, 0.2)), drawn_bone(fibula, rng, 6, 2.6, (0.1, 0.05)),
             drawn_bone(talus, rng, 14), drawn_bone(heel, rng, 14),
             drawn_bone([(36, -9), (44, -12), (46, -26), (37, -27)], rng, 9),
             drawn_bone([(38, -32), (56, -34), (59, -47), (38, -50)], rng, 9),
             drawn_bone([(47, -13), (63, -18), (63, -31), (47, -28)], rng, 9)]  # fmt: skip
    heading = rng.normal(113, 7)
    for spread in np.linspace(-8, 8, 5):
        base = (62, -34 + spread)
        bones.append(long_bone(base, heading + spread / 2, 66, 4.2, (8, 7), rng, 2.5))
        bones.append(long_bone(end_of(base, heading + spread / 2, 69), heading, 30, 4, (7, 6), rng, 2))
    tilted = float(rng.normal(0, 10))
    bones = [bone if number < 2 else turn_bone(bone, tilted, (0, 0)) for number, bone in enumerate(bones)]
    foot = turn(limb([(-74, -42), (-30, -36), (20, -28), (90, -46), (185, -78)], [18, 34, 36, 25, 12]), tilted, (0, 0))
    return Part(bones, [limb([(-4, -30), (-3, 40), (0, 130), (0, 330)], [40, 36, 46, 60]), foot], (45, 100), (130, 380))


def show_knee(rng: Rng) -> Part:
    """Show a knee from the front."""
    femur = [(-14, 330), (-13, 120), (-20, 62), (-38, 32), (-42, 13), (-38, 0), (-27, -4), (-14, -2), (-5, 9), (4, 9),
             (13, -2), (27, -4), (38, 0), (42, 13), (38, 32), (20, 62), (13, 120), (14, 330)]  # fmt: skip
    tibia = [(-40, -9), (-39, -15), (-34, -28), (-20, -56), (-13, -110), (-13, -330), (11, -330), (12, -110), (20, -56),
             (36, -28), (39, -15), (39, -9), (12, -7), (4, -1), (0, -4), (-4, -1), (-12, -7)]  # fmt: skip
    bones = [drawn_bone(femur, rng, 24, 6, (0.25, 0.05)), drawn_bone(tibia, rng, 22, 5, (0.05, 0.25)),
             long_bone((32, -18), 182, 300, 5.5, (10, 10), rng, 3), lump((1, 30), (21, 22), 0, rng)]  # fmt: skip
    turned = float(rng.normal(0, 3))
    skin = limb([(0, -330), (2, -120), (0, -40), (0, 20), (0, 110), (0, 330)], [46, 56, 56, 62, 74, 90])
    return Part([turn_bone(b, turned, (0, 0)) for b in bones], [skin], (85, 150), (150, 420))


def show_knee_side(rng: Rng) -> Part:
    """Show a knee from the side, bent."""
    femur = [(-13, 330), (-12, 110), (-18, 62), (-30, 32), (-33, 11), (-24, -8), (-8, -12), (10, -8), (22, 6), (24, 25),
             (18, 46), (13, 72), (13, 330)]  # fmt: skip
    tibia = [(-26, -14), (-24, -25), (-14, -52), (-12, -110), (-12, -330), (12, -330), (13, -110), (18, -58), (24, -43),
             (22, -31), (25, -15), (0, -13)]  # fmt: skip
    bend = float(rng.uniform(0, 95))
    hinge = (-6.0, 6.0)
    bones = [drawn_bone(femur, rng, 24, 6, (0.25, 0.05)),
             turn_bone(drawn_bone(tibia, rng, 20, 5, (0.05, 0.25)), bend, hinge),
             turn_bone(long_bone((-20, -22), 180, 290, 5.5, (10, 10), rng, 3), bend, hinge),
             turn_bone(drawn_bone([(35, 10), (43, 21), (41, 42), (31, 47),
                                   (28, 27)], rng, 10), bend / 2.5, hinge)]  # fmt: skip
    calf = turn(limb([(-4, 20), (0, -30), (-6, -120), (0, -330)], [48, 52, 62, 44]), bend, hinge)
    return Part(bones, [limb([(0, -20), (2, 40), (0, 140), (0, 330)], [45, 56, 72, 88]), calf], (85, 140), (150, 420))


def show_elbow(rng: Rng) -> Part:
    """Show an elbow from the front, nearly straight; the forearm leaves the film."""
    humerus = [(-11, 330), (-11, 110), (-15, 60), (-26, 34), (-32, 22), (-28, 12), (-20, 6), (-10, 3), (-2, 8), (8, 3),
               (18, 3), (24, 12), (22, 26), (14, 50), (11, 110), (11, 330)]  # fmt: skip
    ulna = [(-21, 2), (-18, 22), (-8, 26), (2, 22), (3, 0), (-2, -14), (-5, -40), (-7, -120), (-8, -330), (-20, -330),
            (-18, -120), (-17, -40), (-20, -14)]  # fmt: skip
    radius = [(5, -3), (6, -10), (8, -18), (7, -32), (5, -44), (8, -120), (9, -330), (22, -330), (20, -120), (18, -44),
              (18, -18), (22, -10), (22, -3), (13, -4)]  # fmt: skip
    bones = [drawn_bone(humerus, rng, 13, 4.5, (0.2, 0.02)), drawn_bone(ulna, rng, 9, 3.2, (0.02, 0.25)),
             drawn_bone(radius, rng, 8, 3, (0.02, 0.2))]  # fmt: skip
    bend = float(rng.normal(0, 9))
    bones = [bones[0], *(turn_bone(bone, bend, (0, 5)) for bone in bones[1:])]
    low = turn(limb([(0, 20), (2, -30), (2, -120), (2, -330)], [42, 45, 42, 32]), bend, (0, 5))
    return Part(bones, [limb([(0, -20), (0, 40), (0, 130), (0, 330)], [42, 42, 48, 58]), low], (50, 90), (130, 400))


def show_elbow_side(rng: Rng) -> Part:
    """Show an elbow from the side, bent."""
    humerus = [(-10, 330), (-10, 110), (-9, 50), (-12, 22), (-13, 8), (-8, -6), (2, -10), (12, -6), (15, 5), (11, 18),
               (8, 50), (10, 110), (10, 330)]  # fmt: skip
    ulna = [(-14, 22), (-22, 20), (-24, 4), (-19, -14), (-15, -34), (-13, -120), (-12, -330), (0, -330),
            (0, -120), (0, -34),
            (9, -17), (8, -10), (-2, -13), (-10, -7), (-14, 4), (-10, 16)]  # fmt: skip
    radius = [(6, -14), (8, -22), (10, -34), (8, -46), (9, -120), (10, -330), (20, -330), (19, -120),
              (18, -46), (18, -34),
              (22, -22), (22, -15)]  # fmt: skip
    bend = float(-rng.uniform(25, 115))
    hinge = (0.0, 2.0)
    bones = [drawn_bone(humerus, rng, 12, 4.5, (0.2, 0.02)),
             turn_bone(drawn_bone(ulna, rng, 8, 3.2, (0.02, 0.25)), bend, hinge),
             turn_bone(drawn_bone(radius, rng, 8, 3, (0.02, 0.2)), bend, hinge)]  # fmt: skip
    low = turn(limb([(-4, 25), (2, -30), (2, -120), (2, -330)], [32, 44, 40, 30]), bend, hinge)
    return Part(bones, [limb([(0, -18), (0, 40), (0, 130), (0, 330)], [34, 40, 46, 55]), low], (50, 90), (130, 400))


def show_shoulder(rng: Rng) -> Part:
    """Show a shoulder: head and shaft of the humerus, socket, collar bone, ribs, a lung's top."""
    raised = float(rng.uniform(-5, 60))
    humerus = [(-23, 4), (-18, 20), (-2, 25), (14, 20), (24, 8), (24, -10), (15, -40), (12, -90), (12, -330),
               (-11, -330),
               (-11, -90), (-15, -40), (-22, -15)]  # fmt: skip
    bones = [turn_bone(drawn_bone(humerus, rng, 17, 4.5, (0.02, 0.25)), -raised, (0, 0)),
             drawn_bone([(-28, 16), (-34, 22), (-46, 14), (-60, -30), (-66, -80), (-56, -84), (-40, -30),
                         (-30, -14)], rng, 8),
             long_bone((-8, 38), -96 + rng.normal(0, 6), 145, 6, (9, 11), rng, 2.5),
             drawn_bone([(12, 30), (4, 42), (-22, 46), (-40, 36), (-20, 36)], rng, 7)]  # fmt: skip
    for number in range(7):
        angle = np.linspace(0.1, 1.5, 8)
        arc = np.column_stack([-150 + 105 * np.sin(angle), 20 - 27 * number + 40 * np.cos(angle)])
        bones.append(drawn_bone(np.vstack([arc, (arc - [0, 9])[::-1]]), rng, 4))
    skin = limb([(-330, -40), (-120, -30), (-30, -10), (30, -40)], [190, 140, 70, 40])
    arm = turn(limb([(0, 20), (0, -60), (0, -160), (0, -330)], [48, 52, 50, 44]), -raised, (0, 0))
    lung = smooth(np.array([(-150, 30), (-85, 10), (-60, -60), (-55, -250), (-260, -250), (-240, 0)], float))
    return Part(bones, [skin, arm], (80, 150), (200, 400), (lung,))


def show_hip(rng: Rng) -> Part:
    """Show one hip or both with a part of the pelvis."""
    femur = [(-2, 22), (12, 21), (22, 10), (24, -4), (34, -8), (44, 4), (54, 2), (58, -16), (50, -50),
             (46, -100), (44, -330),
             (16, -330), (18, -100), (18, -58), (8, -44), (-2, -24), (-18, -16), (-24, 0), (-16, 17)]  # fmt: skip
    ilium = [(-14, 34), (-40, 30), (-66, 60), (-70, 110), (-40, 150), (10, 150), (48, 120), (44, 96),
             (26, 60), (28, 34),
             (10, 30)]  # fmt: skip
    pubis = [(-24, 24), (-80, 4), (-92, -14), (-88, -44), (-66, -76), (-34, -84), (-22, -60), (-44, -56),
             (-66, -36), (-70, -14),
             (-36, -2), (-24, -14)]  # fmt: skip
    bones: list[Bone] = []
    for side in (-1, 1) if rng.random() < 0.5 else (1,):
        for points, depth, cortex in ((femur, 16, 6.5), (ilium, 8, 0), (pubis, 9, 0)):
            placed = (np.array(points, float) + np.array([92.0, 0.0])) * [side, 1]
            bones.append(drawn_bone(placed, rng, depth, cortex, (0.02, 0.3)))
    bones += [lump((0, 160 - 36 * k), (26, 14), 0, rng) for k in range(3)] + [lump((0, 45), (38, 50), 0, rng)]
    middle = 92.0 if len(bones) < 8 else 0.0
    bones = [Bone(b.name, b.outline - [middle, 0], (b.axis[0] - [middle, 0], b.axis[1] - [middle, 0]), b.depth,
                  b.cortex_mid, b.cortex_end, ends=b.ends) for b in bones]  # fmt: skip
    reach = rng.uniform(160, 200)
    return Part(bones, [limb([(-middle, -330), (-middle, 0), (-middle, 330)], [reach, reach, reach * 0.9])], (100, 170))


def show_chest(rng: Rng) -> Part:
    """Show a part of a chest: ribs, spine, lungs, heart."""
    bones = [lump((rng.normal(0, 2), y), (18, 12), 0, rng) for y in range(-220, 240, 30)]
    for number in range(-7, 8):
        for side in (-1, 1):
            angle = np.linspace(-0.2, 2.0, 10)
            reach = 125 - 3 * max(number, 0) ** 1.6
            arc = np.column_stack([side * (15 + reach * np.sin(angle)), 26 * number + 34 * np.cos(angle)])
            bones.append(drawn_bone(np.vstack([arc, (arc - [0, 8])[::-1]]), rng, 4))
    lungs = tuple(smooth(np.array([(side * 22, 190), (side * 90, 150), (side * 125, -90), (side * 30, -120)], float))
                  for side in (-1, 1))  # fmt: skip
    return Part(bones, [limb([(0, -330), (0, 0), (0, 330)], [165, 170, 150])], (90, 160), (180, 420), lungs)


def show_spine(rng: Rng) -> Part:
    """Vertebrae, from the front with ribs or from the side."""
    side_view = rng.random() < 0.5
    bones = []
    for number, y in enumerate(range(-240, 260, 36)):
        x = 18 * np.sin(number / 3) if side_view else rng.normal(0, 2)
        bones.append(drawn_bone([(x - 19, y - 13), (x - 17, y), (x - 19, y + 13), (x, y + 12),
                                 (x + 19, y + 13), (x + 17, y),
                                 (x + 19, y - 13), (x, y - 12)], rng, 16))  # fmt: skip
        if side_view:
            bones.append(lump((x - 38, y - 8), (14, 7), 20, rng))
        else:
            bones += [lump((x + s * 11, y + 4), (4, 6), 0, rng) for s in (-1, 1)] + [lump((x, y - 10), (3, 8), 0, rng)]
            bones += [long_bone((s * 22, y), s * rng.normal(102, 5), 60, 4, (6, 4), rng, 2) for s in (-1, 1)]
    return Part(bones, [limb([(0, -330), (0, 0), (0, 330)], [150, 165, 160])], (110, 180), (140, 400))


def show_leg(rng: Rng) -> Part:
    """Show a whole lower leg, knee to foot, from the front or somewhat turned."""
    half = float(rng.uniform(165, 195))
    tibia = [(-40, half - 9), (-39, half - 15), (-34, half - 28), (-20, half - 56), (-13, half - 110),
             (-11.5, -half + 110),
             (-14, -half + 60), (-20, -half + 26), (-25, -half + 2), (-23, -half - 14), (-17, -half - 4),
             (0, -half + 1),
             (15, -half + 3), (17, -half + 16), (12, -half + 60), (11, -half + 110), (12, half - 110), (20, half - 56),
             (36, half - 28), (39, half - 15), (39, half - 9), (12, half - 7), (0, half - 2),
             (-12, half - 7)]  # fmt: skip
    femur = [(-14, half + 300), (-13, half + 120), (-20, half + 62), (-38, half + 32), (-42, half + 13),
             (-27, half - 4),
             (-5, half + 8), (5, half + 8), (27, half - 4), (42, half + 13), (38, half + 32), (20, half + 62),
             (13, half + 120), (14, half + 300)]  # fmt: skip
    off = rng.uniform(14, 30)
    bones = [drawn_bone(tibia, rng, 14, 5, (0.16, 0.16)), drawn_bone(femur, rng, 22, 6, (0.25, 0.05)),
             long_bone((off - 6, -half - 24), rng.normal(1, 1), 2 * half + 2, 5, (8, 9), rng, 2.6),
             lump((0, half + 30), (20, 22), 0, rng), lump((1, -half - 13), (17, 11), 0, rng),
             lump((4, -half - 42), (17, 24), 0, rng)]  # fmt: skip
    for k in range(-2, 3):
        bones.append(long_bone((8 * k + 3, -half - 50), 180 - 6 * k, rng.uniform(35, 70), 4, (8, 7), rng, 2.5))
    wide = rng.uniform(0.85, 1.2)
    path = [
        (4, -half - 120),
        (3, -half - 50),
        (2, -half),
        (2, -half + 90),
        (2, 40),
        (0, half),
        (0, half + 120),
        (0, half + 330),
    ]
    return Part(bones, [limb(path, np.array([32, 38, 36, 40, 58, 58, 72, 88]) * wide)], (60, 130), (300, 470))


def show_foot(rng: Rng) -> Part:
    """Show a foot from above: five rays on a block of tarsal bones, no forearm below."""
    bones: list[Bone] = []
    fan = rng.uniform(0.6, 1.4)
    for number, (x, length) in enumerate(zip((-26, -12, 0, 11, 22), (62, 74, 72, 69, 66), strict=True)):
        heading = fan * (number - 1.5) * 5 + rng.normal(0, 2)
        width = 7.5 if number == 0 else 4.4
        point = np.array([x, 0.0])
        for part in (length, length * 0.4, *([length * 0.3] if number == 0 else [12.0, 9.0])):
            bones.append(long_bone(point, heading, part, width, (width * 1.8, width * 1.6), rng, 2.2))
            point = end_of(point, heading, part + 2.0)
            width *= 0.85
    tarsus = [(-22, -14, 10, 12), (-10, -12, 8, 11), (2, -11, 8, 10), (16, -16, 12, 15), (-12, -36, 20, 10)]
    bones += [lump((x, y), (across, up), rng.normal(0, 10), rng) for x, y, across, up in tarsus]
    bones += [lump((-6, -58), (20, 18), 0, rng), lump((10, -80), (18, 38), rng.normal(-8, 5), rng)]
    skin = limb([(6, -125), (2, -60), (0, 0), (0, 80), (2, 135)], [28, 34, 42, 46, 30])
    return Part(bones, [skin], (35, 75), (140, 320))


def show_fingers(rng: Rng) -> Part:
    """Show one to four fingers, no palm."""
    bones, bodies = [], []
    count = int(rng.integers(1, 5))
    curl = rng.normal(0, 14) if rng.random() < 0.5 else 0.0
    for number in range(count):
        heading = (number - (count - 1) / 2) * rng.uniform(2, 8) + rng.normal(0, 2)
        point = np.array([(number - (count - 1) / 2) * 21.0, -90.0])
        path = [point - [0, 20]]
        for part, half in (
            (66, 4.8),
            (rng.uniform(36, 46), 5.0),
            (rng.uniform(21, 28), 4.3),
            (rng.uniform(15, 19), 3.6),
        ):
            bones.append(long_bone(point, heading, part, half * 0.85, (half * 1.6, half * 1.35), rng, 1.9))
            path.append(point + 0.5 * (end_of(point, heading, part) - point))
            point = end_of(point, heading, part + 1.4)
            heading += curl
        bodies.append(limb([*path, end_of(point, 0, 4)], [*([9.5] * (len(path) - 1)), 8.8, 6.5]))
    return Part(bones, bodies, (13, 24), (90, 200))


def show_cut_hand(rng: Rng) -> Part:
    """Show a hand whose film ends above the carpus: shafts of metacarpals run off the lower edge."""
    bones, bodies = [], []
    for number, (x, heading) in enumerate(zip((-26, -10, 0, 10, 19), (-38, -8, -2, 5, 12), strict=True)):
        heading = heading * rng.uniform(0.7, 1.3) + rng.normal(0, 2)
        head = end_of((x, -60), heading, rng.uniform(52, 60) if number else 44)
        bones.append(long_bone(end_of(head, heading, -160), heading, 160, 4.0, (8, 7.4), rng, 2.2))
        path, point, half = [end_of(head, heading, -10)], end_of(head, heading, 1.5), 4.8
        for part in ((40, 25, 17), (31, 22))[number == 0]:
            bones.append(long_bone(point, heading, part, half * 0.8, (half * 1.55, half * 1.25), rng, 1.9))
            path.append(end_of(point, heading, part / 2))
            point, half = end_of(point, heading, part + 1.4), half * 0.9
            heading += rng.normal(0, 4)
        bodies.append(limb([*path, end_of(point, heading, 4)], [*([10.5] * len(path)), 6.5]))
    palm = limb([(0, -200), (0, -60), (0, 0), (2, 12)], [34, 38, 40, 30])
    low = rng.uniform(-32, -8)
    return Part(
        [_raised(bone, -low) for bone in bones], [body - [0, low] for body in (palm, *bodies)], (18, 34), (1, 1)
    )


def _raised(bone: Bone, by: float) -> Bone:
    up = np.array([0.0, by])
    axis = (bone.axis[0] + up, bone.axis[1] + up)
    return Bone(bone.name, bone.outline + up, axis, bone.depth, bone.cortex_mid, bone.cortex_end, ends=bone.ends)


def show_scrap(rng: Rng) -> Part:
    """Show bones of no order at all: a wrist is more than bones beside each other."""
    bones = []
    for _ in range(int(rng.integers(1, 5))):
        shaft = rng.uniform(4, 15)
        wide = (shaft * rng.uniform(1.2, 2.8), shaft * rng.uniform(1.2, 2.8))
        bones.append(long_bone(rng.normal(0, 70, 2), rng.uniform(-180, 180), rng.uniform(60, 320), shaft, wide, rng, 4))
    for _ in range(int(rng.integers(0, 8))):
        bones.append(lump(rng.normal(0, 60, 2), tuple(rng.uniform(6, 40, 2)), rng.uniform(0, 180), rng))
    heading = rng.uniform(-30, 30)
    ends = [end_of((0, 0), heading + turned, 330) for turned in (180, 0)]
    return Part(bones, [limb([ends[0], (0, 0), ends[1]], rng.uniform(35, 150, 3))])


PARTS: dict[str, Callable[[Rng], Part]] = {
    "shafts": show_shafts,
    "knee": show_knee,
    "knee from the side": show_knee_side,
    "leg": show_leg,
    "ankle": show_ankle,
    "ankle from the side": show_ankle_side,
    "foot": show_foot,
    "elbow": show_elbow,
    "elbow from the side": show_elbow_side,
    "shoulder": show_shoulder,
    "hip": show_hip,
    "chest": show_chest,
    "spine": show_spine,
    "fingers": show_fingers,
    "cut hand": show_cut_hand,
    "scrap": show_scrap,
}
