"""Simulated breaks: they move what they say they move, their masks lie where films differ, and each can be seen."""

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import phantoms
from core.phantoms import anatomy, breaks, carpus, changes, films, forearm, fractures, limb, projection
from core.phantoms.fractures import Break
from core.phantoms.views import View

PA, LATERAL = View("PA", 0.0), View("LATERAL", 90.0)
PER_MM = 3.0


def near(mask: np.ndarray, pixels: int) -> np.ndarray:
    """The mask grown by `pixels`."""
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)) > 0


def bar(**values) -> anatomy.Bone:
    """A bone of 20 x 80 mm, upright, from y = -60 to 20."""
    outline = np.array([[-10, -60], [-10, 20], [10, 20], [10, -60]], float)
    axis = (np.array([0.0, -60]), np.array([0.0, 20]))
    return anatomy.Bone("radius", outline, axis, depth=8, cortex_mid=2, cortex_end=1, **values)


def draw_bar(items: list[Break], view: View = PA) -> projection.Canvas:
    """3 pixels a mm: y = -20 lies at row 150; the bone spans rows 30 to 270 and columns 45 to 105."""
    frame = projection.Frame(films._matrix(0, 1, PER_MM, np.array([0.0, -20]), (300, 150)), (300, 150))
    canvas = projection.Canvas(frame)
    if items:
        breaks.draw_broken(canvas, bar(), *items, view, np.random.default_rng(0), 1.0, 0.0)
    else:
        projection.draw_bone(canvas, bar(), np.random.default_rng(0), 1.0, 0.0)
    return canvas


def test_far_piece_moves_by_the_recorded_millimetres():
    cut = Break("radius", -20, "cut", roughness=0, shift=(4.0, 0), pull=5.0)
    whole, broken = draw_bar([]).bone, draw_bar([cut]).bone
    assert whole[150, 75] > 0
    assert np.allclose(broken[160:], whole[160:], atol=1e-4)
    assert not broken[138:149, :].any()  # the gap of 5 mm is 15 pixels
    np.testing.assert_allclose(broken[18:130, 12:], whole[33:145, :-12], atol=1e-3)  # 4 mm to +x, 5 mm up
    assert cut.displacement_mm == pytest.approx(math.sqrt(41))
    assert cut.gap_mm == 5.0


def test_a_line_along_which_bone_is_torn_out_is_a_gap():
    cut = Break("radius", -20, "cut", pull=0.5, lucency=0.5, width=0.6)
    assert cut.gap_mm == pytest.approx(1.7)
    assert replace(cut, lucency=0.3).gap_mm == pytest.approx(0.5)
    assert replace(cut, pull=-0.5).gap_mm == pytest.approx(0.7)
    assert replace(cut, pull=-2.0).gap_mm == 0


@pytest.mark.parametrize("angle", [0.0, 33.0, 45.0, 90.0, -45.0])
def test_displacement_shows_as_its_projection_at_every_turn(angle):
    """Measured in the film: the way of the far piece's middle column is shift . (cos, sin) of the view's turn."""
    cut = Break("radius", -20, "cut", roughness=0, shift=(4.0, 3.0), pull=2.0)
    picture = draw_bar([cut], View("OBLIQUE", angle)).bone
    wanted = 4 * math.cos(math.radians(angle)) + 3 * math.sin(math.radians(angle))
    columns = np.arange(150) + 0.5
    middle = [(row * columns).sum() / row.sum() for row in (picture[60:110].sum(axis=0), picture[200:250].sum(axis=0))]
    assert (middle[0] - middle[1]) / PER_MM == pytest.approx(wanted, abs=0.1)


def test_driven_in_pieces_add_their_attenuation():
    cut = Break("radius", -20, "cut", roughness=0, pull=-4.0)
    whole, broken = draw_bar([]).bone, draw_bar([cut])
    assert broken.bone[145 + 6, 75] == pytest.approx(2 * whole[150, 75], rel=0.05)
    assert broken.mask[151, 75] == 1
    assert broken.bone.sum() == pytest.approx(whole.sum(), rel=0.02)  # nothing of the bone is lost


def test_mask_of_a_line_is_a_band_across_the_bone():
    mask = draw_bar([Break("radius", -20, "line", roughness=0, lucency=0.5)]).mask > 0.5
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max()) == pytest.approx((150 - 5.1, 150 + 5.1), abs=1.5)  # 1.7 mm to both sides
    assert (columns.min(), columns.max()) == pytest.approx((45, 105), abs=3)


def test_partial_line_stays_on_its_side_and_turns_with_the_view():
    line = Break("radius", -20, "line", roughness=0, lucency=0.8, side=(1.0, 0.0), start=2.0)
    front, back = draw_bar([line]), draw_bar([line], View("PA", 180.0))
    change = np.abs(draw_bar([]).bone - front.bone)
    assert change[:, 80:].max() > 0.05
    assert change[:, :76].max() < 1e-3
    np.testing.assert_allclose(front.mask[:, ::-1], back.mask[:, :], atol=1)
    assert np.nonzero(back.mask)[1].max() < 76


def test_plane_along_the_beam_is_a_sharp_line_and_a_leaning_one_a_shade(monkeypatch):
    """The same plane, leaning towards the palm: the lateral view shows its slope, the PA smears it over its depth."""
    monkeypatch.setattr(breaks, "VISIBLE", 0.0)
    monkeypatch.setattr(breaks, "_uneven", lambda u, item, number: np.float32(1))
    values = {"roughness": 0, "lucency": 0.8, "width": 0.5}
    whole = draw_bar([]).bone
    leaning = Break("radius", -20, "line", slope=(0.0, 0.9), **values)
    shade = (whole - draw_bar([leaning]).bone)[:, 75]
    sharp = (whole - draw_bar([Break("radius", -20, "line", **values)]).bone)[:, 75]
    assert shade.max() < 0.5 * sharp.max()
    assert shade.sum() == pytest.approx(sharp.sum(), rel=0.1)
    assert np.ptp(np.nonzero(shade > 0.2 * shade.max())[0]) > 5 * np.ptp(np.nonzero(sharp > 0.2 * sharp.max())[0])
    aside = whole - draw_bar([leaning], LATERAL).bone
    heights = [aside[:, column].argmax() for column in (60, 90)]
    assert (heights[0] - heights[1]) == pytest.approx(0.9 * 30, abs=2)


def test_greenstick_opens_one_cortex_and_keeps_the_other():
    bent = Break("radius", -20, "cut", roughness=0, angle=(-12.0, 0.0), hinge=(-10.0, 0.0))
    canvas = draw_bar([bent])
    opened = canvas.bone[130:156, 100:108].max(axis=1)
    held = canvas.bone[130:170, 44:52].max(axis=1)
    assert opened.min() < 0.02  # 4 mm of nothing on the side that gave way
    assert held.min() > 0.3
    # 20 mm of lever at 12 degrees: the far cortex gapes by 4.2 mm, the middle by half of it.
    assert bent.gap_mm == pytest.approx(10 * math.sin(math.radians(12)))


def test_buckle_pushes_out_the_side_that_gave_way_alone():
    buckle = Break("radius", -20, "bulge", bulge=2.0, width=3.0, side=(1.0, 0.0))
    for view, left, right in ((PA, 0, 2.0), (View("PA", 180.0), 2.0, 0)):
        row = np.nonzero(draw_bar([buckle], view).bone[150] > 0.02)[0]
        assert (45 - row.min()) / PER_MM == pytest.approx(left, abs=0.5)
        assert (row.max() - 104) / PER_MM == pytest.approx(right, abs=0.5)


def test_salter_harris_corner_goes_with_the_growth_plate():
    """The corner on the side moves; across from it the metaphysis stays."""
    corner = Break("radius", 0, "corner", roughness=0, side=(1.0, 0.0), start=2.0, steep=1.5, shift=(4.0, 0.0))
    whole, broken = draw_bar([]).bone, draw_bar([corner]).bone
    assert np.abs(broken - whole)[36:, 44:70].max() < 1e-3
    assert broken[36:40, 106:115].max() > 0.1  # 4 mm beyond the bone's old edge
    assert np.abs(broken - whole)[90:].max() < 1e-3  # 9 mm * 1.5 below the plate nothing is broken


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.floats(-6, 6), st.floats(-6, 6)), st.floats(-4, 4), st.tuples(st.floats(-20, 20), st.floats(-20, 20)),
    st.tuples(st.floats(-8, 8), st.floats(-8, 8)), st.floats(-180, 180),
)  # fmt: skip
def test_middle_moves_by_the_recorded_way_in_any_view(shift, pull, angle, hinge, turned):
    """In each view the middle moves along the bone by `rise_mm` and across it by the projected shift."""
    item = Break("radius", -20, "cut", shift=shift, pull=pull, angle=angle, hinge=hinge)
    view = View("OBLIQUE", turned)
    moved = breaks.motion(bar(), item, view) @ [0.0, -20.0, 1.0] - [0.0, -20.0]
    # A turn about a hinge also draws the middle aside, by the hinge's arm times 1 - cos.
    turn = math.radians(view.mix(*angle))
    arm = view.mix(*hinge)
    deep = View("OBLIQUE", turned + 90)
    along = pull + math.sin(turn) * arm + math.sin(math.radians(deep.mix(*angle))) * deep.mix(*hinge)
    assert moved[0] == pytest.approx(view.mix(*shift) + arm * (1 - math.cos(turn)), abs=1e-6)
    assert moved[1] == pytest.approx(along, abs=1e-6)
    if turned in (0.0, 90.0):
        assert along == pytest.approx(item.rise_mm, abs=1e-6)


@pytest.mark.parametrize("kind", phantoms.KINDS)
def test_plans_are_honest_and_repeatable(kind):
    child = kind in fractures.CHILD_ONLY
    for seed in range(60):
        plan = fractures.plan_fracture(kind, np.random.default_rng(seed), child, -40.0)
        again = fractures.plan_fracture(kind, np.random.default_rng(seed), child, -40.0)
        first = plan.breaks[0]
        assert (plan.displacement_mm, plan.gap_mm) == (again.displacement_mm, again.gap_mm)
        assert plan.displacement_mm >= 0
        assert all(item.level >= -40 for item in plan.breaks)
        if kind in fractures.UNDISPLACED:
            assert plan.displacement_mm == 0
        else:
            moved = math.hypot(*first.shift, first.rise_mm)
            assert plan.displacement_mm == pytest.approx(moved, abs=0.01)
        back = first.angle[1]
        assert {"colles": back < -5, "smith": back > 5}.get(kind, True)
        assert all(item.bone == {"ulna": "ulna", "ulnar_styloid": "ulna", "scaphoid": "scaphoid"}.get(kind, item.bone)
                   for item in plan.breaks)  # fmt: skip


def test_only_growing_bones_break_as_only_they_can():
    drawn = [fractures.draw_kind(np.random.default_rng(seed), growing=False) for seed in range(300)]
    assert not set(drawn) & {*fractures.CHILD_ONLY, "buckle"}
    young = {fractures.draw_kind(np.random.default_rng(seed), growing=True) for seed in range(300)}
    assert set(fractures.CHILD_ONLY) <= young


@pytest.mark.parametrize("kind", phantoms.KINDS)
def test_every_kind_shows_in_every_view(kind):
    for seed in range(6):
        view = phantoms.VIEWS[seed % len(phantoms.VIEWS)]
        film = phantoms.simulate_film(seed, size=64, kind=kind, view=view, framing="tight" if seed % 2 else None)
        assert film.mask.any(), (seed, view, film.framing)
        assert film.mask.mean() < 0.2
        assert (film.kind, film.view) == (kind, view)


@pytest.mark.parametrize("kind", phantoms.KINDS)
def test_attenuation_differs_from_the_unbroken_twin_at_the_mask(kind, monkeypatch):
    """Before the detector: seen in the mask, whose change is above the floor, and unchanged below it."""
    kept = []
    real = breaks.apply_break

    def record(layer, mask, bone, item, frame, box, view, parts):
        before = layer.copy()
        own = np.zeros_like(mask)
        real(layer, own, bone, item, frame, box, view, parts)
        np.maximum(mask, own, out=mask)
        kept.append((np.abs(layer - before), before, own > 0.5, item, frame))

    monkeypatch.setattr(breaks, "apply_break", record)
    for seed in range(4):
        phantoms.simulate_film(seed, size=120, kind=kind, framing="tight", view=phantoms.VIEWS[seed % 3])
    assert kept
    for change, before, mask, item, frame in kept:
        if not mask.any():
            continue
        assert change[mask].mean() > min(0.95 * breaks.VISIBLE, 0.17 * before[mask].mean()), item
        if item.style in ("line", "bulge"):
            away = ~near(mask, round(3 * frame.per_mm))
            assert change[away].sum() < 0.05 * change.sum()


@pytest.mark.parametrize("kind", phantoms.UNDISPLACED)
def test_undisplaced_break_changes_the_film_at_its_mask_only(kind):
    inside, outside = [], []
    for seed in range(8):
        broken = phantoms.simulate_film(seed, size=160, kind=kind, framing="tight")
        whole = phantoms.simulate_film(seed, size=160, kind=kind, positive=False, framing="tight")
        difference = np.abs(broken.pixels - whole.pixels)
        inside.append(difference[broken.mask].mean())
        outside.append(difference[~near(broken.mask, 20)].mean())
    assert np.median(inside) > 0.015
    assert np.median(outside) < 0.003
    assert max(outside) < 0.01


@pytest.mark.parametrize("kind", ["ulnar_styloid", "scaphoid", "ulna"])
def test_break_that_leaves_the_hand_changes_the_film_most_at_its_mask(kind):
    ratios = []
    for seed in range(8):
        broken = phantoms.simulate_film(seed, size=160, kind=kind, framing="wrist")
        whole = phantoms.simulate_film(seed, size=160, kind=kind, positive=False, framing="wrist")
        difference = np.abs(broken.pixels - whole.pixels)
        ratios.append(difference[broken.mask].mean() / difference.mean())
    assert np.median(ratios) > 2


@pytest.mark.parametrize("kind", phantoms.KINDS)
def test_mask_lies_on_bone(kind, monkeypatch):
    canvases = []

    class Recorded(projection.Canvas):
        def __post_init__(self):
            super().__post_init__()
            canvases.append(self)

    monkeypatch.setattr(projection, "Canvas", Recorded)
    for seed in range(2):
        canvases.clear()
        phantoms.simulate_film(seed, size=160, kind=kind, framing="tight")
        canvas = canvases[-1]
        bone = near(canvas.bone > 0.02, round(canvas.frame.per_mm * 1.6))  # a gap is up to a few mm wide
        assert bone[canvas.mask > 0.5].mean() > 0.9


def test_harmless_changes_are_the_persons_and_never_the_labels():
    patients = [anatomy.draw_patient(np.random.default_rng(seed), None) for seed in range(400)]
    drawn = [changes.draw_changes(patient) for patient in patients]
    assert drawn == [changes.draw_changes(patient) for patient in patients]
    assert 0.02 < np.mean([item.healed is not None for item in drawn]) < 0.15
    assert 0.3 < np.mean([item.swelling_mm > 0 for item in drawn]) < 0.6
    assert {bool(item.harris) for item in drawn} == {bool(item.spots) for item in drawn} == {True, False}
    worn = [item.arthrosis > 0 for item in drawn]
    old = np.array([patient.age > 60 for patient in patients])
    assert np.mean(np.array(worn)[old]) > 2 * np.mean(np.array(worn)[~old])


def healed(**values) -> changes.Changes:
    plain = {"healed": None, "harris": (), "arthrosis": 0.0, "spots": (), "edges": (), "covers": (),
             "fat": 0.0, "swelling_mm": 0.0}  # fmt: skip
    return changes.Changes(**{**plain, **values})


def test_what_lies_over_a_limb_ends_at_an_edge_and_goes_on_beyond_it():
    frame = projection.Frame(films._matrix(0.0, 1.0, 1.0, np.zeros(2), (100, 100)), (100, 100))
    film = np.ones((100, 100), np.float32)
    changes.change_flesh(film, healed(covers=((0.0, -20.0, -np.pi / 2, 0.0, 0.2),)), frame, PA, 0.0)
    np.testing.assert_allclose(film[:68], 1)  # row 50 is at y = 0, and y points up
    np.testing.assert_allclose(film[73:], 1.2, rtol=1e-6)


def test_healed_break_is_thick_bent_and_has_no_line():
    old = changes.Healed("radius", -20.0, (6.0, 0.0), thick=1.0, length=8.0, dense=0.2)
    (bone,) = changes.change_bones([bar()], healed(healed=old), PA)
    top = bone.outline[bone.outline[:, 1] > 10]
    np.testing.assert_allclose(np.abs(top[:, 0]).max(), 10, atol=0.1)  # the joint stays
    level = bone.outline[np.abs(bone.outline[:, 1] + 20) < 1.5, 0]
    assert np.ptp(level) == pytest.approx(22, abs=0.4)  # 1 mm thicker on either side
    low = bone.outline[np.abs(bone.outline[:, 1] + 58) < 1.5, 0]
    assert low.mean() == pytest.approx(math.tan(math.radians(6)) * 38 * math.exp(-38 / 60), abs=0.3)
    assert changes.change_bones([bar()], healed(), PA)[0].outline.shape == (4, 2)
    canvas = projection.Canvas(
        projection.Frame(films._matrix(0, 1, PER_MM, np.array([0.0, -20]), (300, 150)), (300, 150))
    )
    projection.draw_bone(canvas, bone, np.random.default_rng(0), 1.0, 0.0)
    column = canvas.bone[90:210, 70:80].mean(axis=1)
    assert np.abs(np.diff(column, 2)).max() < 0.01  # smooth along the bone: nothing is broken


def test_swelling_moves_the_skin_by_its_millimetres():
    skin = np.array([[-28.0, y] for y in range(-100, 60, 4)] + [[30.0, y] for y in range(60, -100, -4)])
    out = changes.swell(skin, 4.0)
    at = np.abs(skin[:, 1] + 12) < 2
    np.testing.assert_allclose(np.abs(out - skin)[at, 0], 4.0, atol=0.05)
    assert np.abs(out - skin)[np.abs(skin[:, 1] + 12) > 85].max() < 0.01
    assert changes.swell(skin, 0.0) is skin


def whole_and_broken(bone, item, pose, frame, seed):
    """Return a bone's attenuation without and with a break, of the same trabeculae."""
    drawn = [projection.Canvas(frame) for _ in range(2)]
    told = [(np.random.default_rng([seed, 9]), 1.0, projection.TEXTURE) for _ in drawn]
    projection.draw_bone(drawn[0], bone, *told[0])
    breaks.draw_broken(drawn[1], bone, item, pose.view, *told[1])
    return [canvas.bone for canvas in drawn]


def test_a_piece_that_moved_is_as_sharp_as_before():
    """Else its blurred trabeculae would tell the label without any break."""
    far, near = [], []
    for seed in range(24):
        patient = replace(anatomy.draw_patient(np.random.default_rng(seed), False), age=35.0)
        rng = np.random.default_rng([seed, 5])
        pose = anatomy.draw_pose(View("PA", 2.0), patient, rng)
        radius = next(bone for bone in forearm.build_forearm(patient, pose) if bone.name == "radius")
        item = replace(fractures.plan_fracture("transverse", rng, False, -40.0).breaks[0], chips=0)
        if item.level + 5 > -8:
            continue
        per_mm, size = 2.6, 234
        frame = projection.Frame(films._matrix(0, 1, per_mm, np.array([-4.0, -15.0]), (size, size)), (size, size))
        fine = [
            each - cv2.GaussianBlur(each, (0, 0), 1.2) for each in whole_and_broken(radius, item, pose, frame, seed)
        ]
        for found, low, high in ((far, item.level + 5, -3), (near, item.level - 14, item.level - 6)):
            rows = slice(int(size / 2 + (-15 - high) * per_mm), int(size / 2 + (-15 - low) * per_mm))
            columns = slice(int(size / 2 - 6 * per_mm), int(size / 2 + 9 * per_mm))
            found.append(fine[1][rows, columns].std() / fine[0][rows, columns].std())
    assert len(far) >= 10
    assert np.median(near) == pytest.approx(1, abs=0.01)
    assert np.median(far) > 0.93


def test_a_scaphoid_that_came_apart_is_as_sharp_as_before():
    ratios = []
    for seed in range(24):
        patient = replace(anatomy.draw_patient(np.random.default_rng(seed), False), age=35.0)
        rng = np.random.default_rng([seed, 5])
        pose = anatomy.draw_pose(View("PA", 2.0), patient, rng)
        bone = next(bone for bone in carpus.build_carpus(patient, pose) if bone.name == "scaphoid")
        item = fractures.plan_fracture("scaphoid", rng, False, -40.0).breaks[0]
        site = breaks.find_site(bone, item, pose.view)
        per_mm, size = 4.0, 160
        frame = projection.Frame(films._matrix(0, 1, per_mm, site.centre, (size, size)), (size, size))
        beyond = (np.moveaxis(np.indices((size, size))[::-1], 0, -1) - size / 2) / per_mm * [1, -1] @ site.normal
        fine = []
        for drawn in whole_and_broken(bone, item, pose, frame, seed):
            inside = cv2.erode((drawn > 0.3 * drawn.max()).astype(np.uint8), np.ones((11, 11))) > 0
            away = inside & (beyond > 3.5)
            fine.append((drawn - cv2.GaussianBlur(drawn, (0, 0), 1.2))[away].std())
        ratios.append(fine[1] / fine[0])
    assert np.median(ratios) > 0.93


def test_every_bone_that_can_break_has_trabeculae_of_several_depths():
    for kind in fractures.KINDS:
        child = kind in (*fractures.CHILD_ONLY, "buckle")
        for seed in range(12):
            for item in fractures.plan_fracture(kind, np.random.default_rng(seed), child, -60.0).breaks:
                for capped in (False, True):
                    targets = limb._targets(item, capped)
                    assert set(targets[:1] if item.bone != "scaphoid" else targets) <= projection.BREAKABLE
