"""How heat maps lie to outlines, against hand-worked films, brute force, and maps whose answer is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from core.errors import ExplanationError
from core.explain.localisation import THRESHOLDS, Localisation, best_threshold, centre_map, edge_map, localise

HEAT = np.array([[0, 0, 0, 0], [0, 1.0, 0.5, 0], [0, 0.5, 0, 0], [0, 0, 0, 0]])


def outline_of(*pixels, shape=(4, 4)):
    outline = np.zeros(shape, bool)
    for row, column in pixels:
        outline[row, column] = True
    return outline


def at(found, threshold):
    return found.overlaps[THRESHOLDS.index(threshold)]


def test_a_hand_worked_film():
    found = localise(HEAT, outline_of((1, 1), (1, 2), (0, 0)))
    assert (found.hit, found.distance, found.unit) == (1.0, 0.0, "px")
    assert found.energy == pytest.approx(1.5 / 2)
    # From half the maximum on 3 pixels are hot, 2 of them outlined, of 3; from above half the maximum 1 of 3.
    assert at(found, 0.5) == pytest.approx(2 / 4)
    assert at(found, 0.55) == pytest.approx(1 / 3)


def test_a_miss_is_measured_in_millimetres():
    outline = outline_of((3, 3))
    found = localise(HEAT, outline, (0.5, 2.0))
    assert found.hit == found.energy == 0
    assert (found.distance, found.unit) == (pytest.approx(math.hypot(2 * 0.5, 2 * 2.0)), "mm")


def test_several_highest_pixels_share_the_hit():
    heat = np.zeros((4, 4))
    heat[0, 0] = heat[0, 3] = heat[3, 3] = 2.0
    found = localise(heat, outline_of((0, 0)))
    assert found.hit == pytest.approx(1 / 3)
    assert found.distance == pytest.approx((0 + 3 + math.hypot(3, 3)) / 3)


def test_a_map_without_heat_finds_nothing():
    found = localise(np.zeros((4, 4)), outline_of((1, 1)), (0.1, 0.1))
    assert (found.hit, found.energy, found.unit) == (0, 0, "mm")
    assert math.isnan(found.distance)
    assert set(found.overlaps) == {0.0}


shapes = st.tuples(st.integers(2, 9), st.integers(2, 9))


@settings(deadline=None)
@given(shapes.flatmap(lambda shape: arrays(bool, shape)).filter(np.any))
def test_the_outline_itself_is_the_perfect_map(outline):
    found = localise(outline.astype(float), outline, (0.3, 0.4))
    assert (found.hit, found.energy, found.distance) == (1, 1, 0)
    assert set(found.overlaps) == {1.0}


@settings(deadline=None)
@given(
    shapes.flatmap(
        lambda shape: st.tuples(arrays(np.float32, shape, elements=st.floats(0, 8, width=16)), arrays(bool, shape))
    ).filter(lambda pair: pair[0].max() > 0 and pair[1].any()),
    st.sampled_from([(1.0, 1.0), (0.2, 0.7)]),
    st.sampled_from([1, 4]),
)
def test_every_film_agrees_with_brute_force(pair, spacing, factor):
    heat, outline = pair
    found = localise(factor * heat, outline, spacing)
    inside = np.argwhere(outline)
    highest = np.argwhere(heat == heat.max())
    nearest = [min(math.hypot(*((pixel - other) * spacing)) for other in inside) for pixel in highest]
    assert found.distance == pytest.approx(np.mean(nearest), rel=1e-6)
    assert found.hit == pytest.approx(np.mean([outline[tuple(pixel)] for pixel in highest]))
    assert found.energy == pytest.approx(heat[outline].sum(dtype=float) / heat.sum(dtype=float))
    for threshold, overlap in zip(THRESHOLDS, found.overlaps, strict=True):
        hot = {tuple(pixel) for pixel in np.argwhere(heat.astype(float) >= threshold * float(heat.max()))}
        marked = {tuple(pixel) for pixel in inside}
        assert overlap == pytest.approx(len(hot & marked) / len(hot | marked))


def test_the_best_threshold_is_one_for_all_films():
    def found(overlaps):
        return Localisation(1.0, 1.0, 0.0, "px", tuple(overlaps.get(each, 0.0) for each in THRESHOLDS))

    films = [found({0.2: 0.9, 0.5: 0.6}), found({0.5: 0.6, 0.9: 0.8})]
    assert best_threshold(films) == 0.5


@pytest.mark.parametrize(
    ("heat", "outline", "message"),
    [
        (np.ones((4, 4)), np.ones((4, 5)), r"\(4, 4\) and \(4, 5\)"),
        (np.ones((4, 4, 1)), np.ones((4, 4, 1)), "one shape"),
        (np.ones((4, 4)), np.zeros((4, 4)), "nothing is outlined"),
        (-np.ones((4, 4)), np.ones((4, 4)), "from 0 up"),
        (np.full((4, 4), np.nan), np.ones((4, 4)), "from 0 up"),
    ],
)
def test_what_cannot_be_measured_is_refused(heat, outline, message):
    with pytest.raises(ExplanationError, match=message):
        localise(heat, outline)


# --- those who do not look at the film, or not at the break -----------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 5), (4, 8), (1, 7), (1, 1)])
def test_who_points_at_the_middle_points_at_the_middle(shape):
    middle = centre_map(*shape)
    assert middle.shape == shape
    highest = np.argwhere(middle == middle.max()).mean(axis=0)
    np.testing.assert_allclose(highest, (np.array(shape) - 1) / 2)
    np.testing.assert_allclose(middle, middle[::-1, ::-1], atol=1e-6)
    assert middle.min() >= 0


def test_who_points_at_edges_points_at_edges_and_at_nothing_on_a_blank_film():
    film = np.zeros((40, 60))
    film[:, 30:] = 1.0
    edges = edge_map(film)
    assert edges.max() == pytest.approx(1)
    assert abs(np.unravel_index(edges.argmax(), edges.shape)[1] - 29.5) <= 1
    assert edges[:, :15].max() < 0.01
    assert not edge_map(np.full((40, 60), 0.5)).any()
