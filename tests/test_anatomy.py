"""The simulated limb in space: what one body shows in each view, how it grows, and what its bend does not tell."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy import stats

from core.phantoms import anatomy, carpus, films, forearm, fractures, outlines, projection
from core.phantoms.carpus import build_carpus
from core.phantoms.changes import draw_changes
from core.phantoms.hand import build_rays, build_sesamoids
from core.phantoms.limb import build_limb
from core.phantoms.views import View


def person(seed: int = 0, age: float = 30.0) -> anatomy.Patient:
    drawn = anatomy.draw_patient(np.random.default_rng(seed), age < 18)
    return replace(drawn, age=age, closing=16.0)


def lying(angle: float, **changes) -> anatomy.Pose:
    """A limb that lies straight."""
    values = {"deviation": 0, "flexion": 0, "tilt": 0, "curl": 0, "fan": 0, "spread": 1, "thumb": (0, 0), "twist": 0,
              "rotation": 0, "elbow": 0}  # fmt: skip
    return anatomy.Pose(view=View("PA", angle), **{**values, **changes})


def covered(bone: anatomy.Bone) -> np.ndarray:
    """The bone's shadow below the joint at 4 pixels a mm."""
    image = np.zeros((400, 400), np.uint8)
    cv2.fillPoly(image, [np.round((bone.outline + np.array([50, 100])) * 4).astype(np.int32)], 1)
    return image[:390] > 0


def drawn(bone: anatomy.Bone) -> np.ndarray:
    """The bone's whole shadow at 4 pixels a mm."""
    image = np.zeros((640, 400), np.uint8)
    cv2.fillPoly(image, [np.round((bone.outline + np.array([50, 80])) * 4).astype(np.int32)], 1)
    return image > 0


def named(bones: list[anatomy.Bone], name: str) -> anatomy.Bone:
    return next(bone for bone in bones if bone.name == name)


def test_ulna_comes_to_lie_behind_the_radius_as_the_forearm_turns():
    for seed in range(6):
        shares = []
        for angle in (0, 45, 74, 82, 90, 98, 106):
            bones = forearm.build_forearm(person(seed), lying(angle))
            radius, ulna = covered(named(bones, "radius")), covered(named(bones, "ulna"))
            shares.append((radius & ulna).sum() / ulna.sum())
        assert shares[0] < 0.1
        assert shares[0] < shares[1] < max(shares)
        assert max(shares[2:]) > 0.75
        assert min(shares[2:]) < max(shares[2:]) - 0.1  # off a true lateral view the ulna lies beside the radius


def test_shadow_from_behind_is_the_mirror_image():
    for angle in (0, 30, 75):
        pairs = zip(*(forearm.build_forearm(person(), lying(turn)) for turn in (angle, angle + 180)), strict=True)
        for one, other in list(pairs)[:2]:
            left, right = one.outline[:, 0].min(), one.outline[:, 0].max()
            mirrored = -other.outline[:, 0].max(), -other.outline[:, 0].min()
            assert mirrored == pytest.approx((left, right), abs=0.2)
        for name in outlines.CARPALS["PA"]:
            radians = np.radians(angle)
            one, other = (carpus._outline(carpus._form(name), turn, 1.0) for turn in (radians, radians + np.pi))
            box = [[*points.min(axis=0), *points.max(axis=0)] for points in (one, other * [-1, 1])]
            assert box[0] == pytest.approx(box[1], abs=1e-6)


def test_middle_of_a_carpal_bone_turns_as_a_point_in_space():
    places = {}
    for angle in (0, 50, 90):
        for bone in build_carpus(person(3), lying(angle)):
            # Sides of a rounded body: its middle lies halfway.
            places.setdefault(bone.name, []).append(bone.axis[0][0])
    for flat, turned, side in places.values():
        assert turned == pytest.approx(flat * np.cos(np.radians(50)) + side * np.sin(np.radians(50)), abs=1e-6)


def test_finger_bone_is_as_long_as_its_ends_are_apart():
    rays = build_rays(person(), lying(0))
    flexed = build_rays(person(), lying(0, curl=60))
    tip, bent = rays[2][2].axis, flexed[2][2].axis
    # In a PA film a finger bent to the palm points along the beam.
    assert np.hypot(*(bent[1] - bent[0])) < 0.6 * np.hypot(*(tip[1] - tip[0]))
    assert np.hypot(*(flexed[2][0].axis[1] - flexed[2][0].axis[0])) == pytest.approx(
        np.hypot(*(rays[2][0].axis[1] - rays[2][0].axis[0])), rel=0.05
    )


def test_end_of_a_bone_is_whole_below_its_surface_and_open_above():
    around = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    rings = [
        np.column_stack([r * np.cos(around), np.full(60, 2.0), r * np.sin(around), np.ones(60)])
        for r in np.linspace(0.5, 9, 30)
    ]
    cap, rim = forearm._cap(np.vstack(rings), 0.0, 1.0)
    below = [cap.table[round(cap.matrix[1, 1] * y + cap.matrix[1, 2]), 18, 0] for y in (1.0, 3.0)]
    assert below == pytest.approx([1, 0], abs=1e-5)
    np.testing.assert_allclose(rim[1:-1, 1], 2.0)
    np.testing.assert_allclose(rim[[0, -1], 1], 2.3)  # no lower than this, so that the walls below never meet them
    # The plate under a level surface is as thick all over: its rows add up to its thickness of about 0.75 mm.
    assert cap.table[:, 18, 1].sum() / cap.matrix[1, 1] == pytest.approx(0.7, abs=0.1)


def test_a_spike_shows_more_than_its_share_of_the_beams_way():
    """The same ridge with a power of one half on one side: there, what a quarter of the depth holds shows as a half."""
    x, z = (grid.ravel() for grid in np.meshgrid(np.linspace(-8, 8, 40), np.linspace(-8, 8, 40)))
    ridge = np.where(np.abs(z) < 2, 4.0, 0.0)
    caps = [
        forearm._cap(np.column_stack([x, ridge, z, power]), 0.0, 1.0)[0]
        for power in (np.ones(1600), np.where(x < 0, 0.5, 1.0))
    ]
    row = round(caps[0].matrix[1, 1] * 2.0 + caps[0].matrix[1, 2])
    share, shown = (cap.table[row, :, 0] for cap in caps)
    columns = np.arange(share.size)
    left, right = (columns > 4) & (columns < 14), (columns > 22) & (columns < 31)
    assert share[left | right] == pytest.approx(np.full((left | right).sum(), 0.25), abs=0.02)
    np.testing.assert_allclose(shown[left], np.sqrt(share[left]), atol=1e-6)
    np.testing.assert_allclose(shown[right], share[right], atol=1e-6)


def test_moved_bone_is_drawn_moved():
    bone = named(forearm.build_forearm(person(), lying(0)), "radius")
    frame = projection.Frame(films._matrix(0, 1, 3.0, np.array([0.0, -10]), (300, 210)), (300, 210))
    drawn = []
    for item in (bone, anatomy.move_bone(bone, np.array([[1.0, 0, 4.0], [0, 1.0, 5.0]]))):
        canvas = projection.Canvas(frame)
        projection.draw_bone(canvas, item, np.random.default_rng(0), 1.0, 0.0)
        drawn.append(canvas.bone)
    np.testing.assert_allclose(drawn[1][:200, 12:], drawn[0][15:215, :-12], atol=2e-3)
    assert drawn[0].max() > 0.3


def test_growth_plates_close():
    for age, parts in ((0.7, 0), (4, 1), (10, 2), (15.5, 2), (16.5, 0), (40, 0)):
        bones = forearm.build_forearm(person(1, age), lying(0))
        assert sum("epiphysis" in bone.name for bone in bones) == parts, age


def test_epiphysis_grows_to_the_width_of_the_shaft():
    widths = []
    for age in (2, 5, 8, 13):
        bones = forearm.build_forearm(person(1, age), lying(0))
        end, shaft = named(bones, "radius epiphysis").outline, named(bones, "radius").outline
        assert end[:, 1].min() > shaft[:, 1].max() - 1.0  # the plate lies between them
        widths.append(np.ptp(end[:, 0]) / np.ptp(shaft[shaft[:, 1] > -20, 0]))
    assert widths == sorted(widths)
    assert widths[0] < 0.65
    assert 0.9 < widths[-1] < 1.1


def test_carpal_bones_appear_in_their_order():
    seen = [{bone.name.split()[0] for bone in build_carpus(person(2, age), lying(0))} for age in (1, 3, 6, 11)]
    assert seen[0] == {"capitate", "hamate"}
    assert seen[1] == {"capitate", "hamate", "triquetrum"}
    assert seen[0] < seen[1] < seen[2] < seen[3]
    assert len(seen[3]) == 9


def test_sesamoids_are_grown_up():
    counts = [sum(bool(build_sesamoids(person(s, age), build_rays(person(s, age), lying(0)))) for s in range(12))
              for age in (8, 40)]  # fmt: skip
    assert counts[0] == 0
    assert 5 <= counts[1] <= 12


def test_wrist_square_keeps_its_share_of_the_hand():
    """The region's side is tied to the bones: 1.45 to 1.85 times the third metacarpal, in people of all sizes."""
    for seed in range(20):
        middle = build_rays(person(seed, 4 + 3 * seed), lying(0))[2][0].axis
        assert 1.4 < anatomy.REGION_SIDE_MM / np.hypot(*(middle[1] - middle[0])) < 1.9


def test_bent_elbow_shows_from_the_side_only():
    for angle, elbow, leans in ((90, 90, True), (0, 90, False), (90, 0, False)):
        low, high = named(forearm.build_forearm(person(), lying(angle, elbow=elbow)), "humerus").axis
        away = np.abs(low - high)
        assert (away[0] > away[1]) == leans


def headings(broken: bool, seeds: range) -> list[float]:
    """Turns of the hand in lateral films of Colles breaks, and of whole wrists."""
    turned = []
    for seed in seeds:
        rng = np.random.default_rng([seed, 5])
        patient = replace(person(seed), age=30.0)
        pose = anatomy.draw_pose(anatomy.draw_view("LATERAL", rng), patient, rng)
        plan = fractures.plan_fracture("colles", rng, False, -40.0)
        limb = build_limb(patient, pose, draw_changes(patient), plan, broken)
        capitate, radius = (named(limb.bones, name).axis for name in ("ray 3 bone 1", "radius"))
        away = capitate[1] - capitate[0]
        assert radius[1][1] > radius[0][1]
        turned.append(float(np.degrees(np.arctan2(away[0], away[1]))))
    return turned


def test_bend_of_the_hand_does_not_tell_the_label():
    broken, whole = headings(True, range(150)), headings(False, range(2000, 2150))
    assert stats.ks_2samp(broken, whole).pvalue > 0.01
    assert np.std(whole) > 9
    assert headings(True, range(20)) == pytest.approx(headings(False, range(20)), abs=1e-6)


def test_swelling_does_not_tell_the_label():
    patient = person(4)
    pose = anatomy.draw_pose(View("PA", 3.0), patient, np.random.default_rng(1))
    plan = fractures.plan_fracture("hairline", np.random.default_rng(2), False, -40.0)
    one, other = (build_limb(patient, pose, draw_changes(patient), plan, broken) for broken in (True, False))
    np.testing.assert_array_equal(one.skin, other.skin)


def test_frail_bones_are_thin_and_lucent_together():
    """What takes mineral from old bones takes it from the cortex, too, and leaves coarse trabeculae."""
    people = [anatomy.draw_patient(np.random.default_rng(seed), False) for seed in range(2500)]
    young = [patient for patient in people if patient.age < 45]
    old = [patient for patient in people if patient.age > 75]
    assert min(len(young), len(old)) > 300
    for name, sign in (("density", -1), ("cortex_mm", -1), ("texture", 1)):
        values = [np.array([getattr(patient, name) for patient in group]) for group in (young, old)]
        assert sign * (np.median(values[1]) - np.median(values[0])) > 0.1 * np.median(values[0]), name
    # In the young they go their own ways; in the old who has lost the one has lost the other.
    together = [
        stats.pearsonr([patient.density for patient in group], [patient.cortex_mm for patient in group])
        for group in (young, old)
    ]
    assert together[0].pvalue > 0.005
    assert together[1].statistic > 0.25
    # Nobody old is spared for certain, and no child is frail.
    children = [anatomy.draw_patient(np.random.default_rng(seed), True) for seed in range(400)]
    assert min(patient.cortex_mm for patient in (*young, *children)) > 0.74
    assert min(patient.cortex_mm for patient in old) < 0.6
    assert max(patient.cortex_mm for patient in old) > 1.1


def test_frail_bones_show_a_thinner_cortex_and_let_more_through():
    """A hollow bone is densest where the beam grazes the inside of its cortex: so far in from the edge it is thick."""
    frame = projection.Frame(films._matrix(0, 1, 6.0, np.array([-6.0, -75]), (300, 240)), (300, 240))
    seen = {}
    for cortex, density in ((1.0, 1.0), (0.6, 1.0), (1.0, 0.55)):
        patient = replace(person(), cortex_mm=cortex, density=density)
        canvas = projection.Canvas(frame)
        bone = named(forearm.build_forearm(patient, lying(0)), "radius")
        projection.draw_bone(canvas, bone, np.random.default_rng(0), patient.density, 0.0)
        rows = canvas.bone[120:180]
        # From the right, where the edge is straight.
        walls = [(np.flatnonzero(row > 0.02)[-1] - (row.size - 1 - row[::-1].argmax())) for row in rows[:, 100:]]
        seen[cortex, density] = (np.median(walls) / frame.per_mm, rows.sum())
    whole, thin, pale = seen.values()
    assert whole[0] == pytest.approx(2.35, abs=0.3)
    assert thin[0] == pytest.approx(0.6 * 2.35, abs=0.3)
    assert thin[1] < 0.8 * whole[1]
    assert pale == pytest.approx((whole[0], 0.55 * whole[1]), rel=0.01)


def width_at(bone, y):
    x = bone.outline[np.abs(bone.outline[:, 1] - y) < 1.5, 0]
    return x.max() - x.min()


def test_ulna_has_a_neck_and_a_head_and_stands_off_the_radius():
    """As measured on a dozen films of adults: a head twice as wide as the neck, shafts a finger's width apart."""
    flares, gaps = [], {0: [], 45: []}
    for seed in range(40):
        patient = replace(anatomy.draw_patient(np.random.default_rng([seed, 3]), False), age=40.0)
        for angle, found in gaps.items():
            radius, ulna = forearm.build_forearm(patient, lying(float(angle)))[:2]
            at = -45
            edges = [bone.outline[np.abs(bone.outline[:, 1] - at) < 3, 0] for bone in (radius, ulna)]
            found.append(edges[1].min() - edges[0].max())
            if not angle:
                high = ulna.outline[:, 1].max()
                flares.append(width_at(ulna, -6 + patient.ulnar_variance_mm) / width_at(ulna, -24))
                assert high > -4
    assert 1.5 < np.median(flares) < 2.1
    assert 9 < np.median(gaps[0]) < 15
    assert np.median(gaps[45]) > 3, "turned halfway the shafts still show air between them"
    assert np.std(gaps[0]) > 1


# The most that two bones may lie over each other in the median film, mm2; a joint's faces are some 10 to 15 mm wide.
JOINTS = {
    ("scaphoid", "lunate"): 4,
    ("scaphoid", "capitate"): 3,
    ("scaphoid", "trapezium"): 4,
    ("scaphoid", "trapezoid"): 7,
    ("lunate", "capitate"): 3,
    ("lunate", "triquetrum"): 4,
    ("triquetrum", "hamate"): 2,
    ("trapezoid", "ray 2 bone 1"): 4,
    ("capitate", "ray 3 bone 1"): 13,
    ("hamate", "ray 4 bone 1"): 3,
    ("trapezium", "ray 1 bone 1"): 8,
}


def test_cartilage_keeps_the_bones_of_the_wrist_apart():
    """In most PA films that are nearly true a dark line parts radius and carpus, and no joint is a white band."""
    clear, overlapped, bands = {"scaphoid": [], "lunate": []}, [], {joint: [] for joint in JOINTS}
    for seed in range(60):
        rng = np.random.default_rng([seed, 7])
        patient = replace(anatomy.draw_patient(rng, False), age=40.0)
        pose = lying(float(rng.normal(0, 5)), deviation=patient.deviation)
        fracture = fractures.plan_fracture("hairline", rng, False, -40.0)
        limb = build_limb(patient, pose, draw_changes(patient), fracture, False)
        radius = drawn(named(limb.bones, "radius"))
        away = cv2.distanceTransform(1 - radius.astype(np.uint8), cv2.DIST_L2, 5) / 4
        for name, found in clear.items():
            shadow = drawn(named(limb.bones, name))
            found.append(float(away[shadow].min()))
            overlapped.append((radius & shadow).sum() / shadow.sum())
        for joint, found in bands.items():
            one, other = (drawn(named(limb.bones, name)) for name in joint)
            found.append((one & other).sum() / 4**2)
    assert np.mean(np.array(clear["lunate"]) >= 1) > 0.5
    assert np.mean(np.array(clear["scaphoid"]) >= 1) > 0.25
    assert np.median(overlapped) < 0.01
    assert np.mean(np.array(overlapped) > 0.1) < 0.1
    for joint, found in bands.items():
        assert np.median(found) < JOINTS[joint], joint
