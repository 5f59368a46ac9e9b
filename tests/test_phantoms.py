"""Simulated films: what is on them must be exactly what is said of them, and nothing else may tell the label."""

import warnings

import cv2
import numpy as np
import pytest
from scipy import stats

from core import phantoms
from core.phantoms import anatomy, films, projection


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def near(mask: np.ndarray, pixels: int) -> np.ndarray:
    """The mask grown by `pixels`."""
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)) > 0


def test_same_seed_same_film_and_other_seed_other_film():
    first, again, other = (phantoms.simulate_film(seed, size=96) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.pixels, again.pixels)
    np.testing.assert_array_equal(first.mask, again.mask)
    assert first.pixels.shape != other.pixels.shape or np.abs(first.pixels - other.pixels).mean() > 0.01


def test_film_is_a_frozen_grey_image_of_the_asked_size():
    for seed in range(12):
        film = phantoms.simulate_film(seed, size=120)
        assert film.pixels.dtype == np.float32
        assert film.mask.dtype == bool
        assert film.pixels.shape == film.mask.shape
        assert max(film.pixels.shape) == 120
        assert film.pixels.min() >= 0
        assert film.pixels.max() <= 1
        assert film.pixels.std() > 0.05
        assert film.mask.any() == bool(film.label)
        with pytest.raises(ValueError, match="read-only"):
            film.pixels[0, 0] = 1
    assert phantoms.simulate_film(3, size=90, framing="long", square=True).pixels.shape == (90, 90)
    assert phantoms.simulate_wrist(3, size=90).pixels.shape == (90, 90)


def test_negative_has_no_mask_and_no_displacement():
    for seed in range(6):
        film = phantoms.simulate_film(seed, size=64, positive=False)
        assert (film.kind, film.label, film.displacement_mm, film.gap_mm) == ("none", 0, 0.0, 0.0)
        assert not film.mask.any()


def bar() -> anatomy.Bone:
    """A bone of 20 x 80 mm, upright, from y = -60 to 20."""
    outline = np.array([[-10, -60], [-10, 20], [10, 20], [10, -60]], float)
    axis = (np.array([0.0, -60]), np.array([0.0, 20]))
    return anatomy.Bone("radius", outline, axis, depth=8, cortex_mid=2, cortex_end=1)


def draw_bar() -> projection.Canvas:
    frame = projection.Frame(films._matrix(0, 1, 3.0, np.array([0.0, -20]), (300, 150)), (300, 150))
    canvas = projection.Canvas(frame)
    projection.draw_bone(canvas, bar(), np.random.default_rng(0), 1.0, 0.0)
    return canvas


def test_shell_is_brightest_where_the_beam_grazes_the_cortex():
    row = draw_bar().bone[150]
    cortex, middle = row[45:52].max(), row[75]
    # Chords of an ellipse of half axes 8 mm: 2 mm of cortex over marrow.
    outer, inner = 16.0, 16.0
    assert middle == pytest.approx(projection.TRABECULAR * inner * 0.3 + projection.CORTICAL * (outer - inner), rel=0.1)
    assert cortex > 3 * middle


def test_frame_puts_the_fingers_where_the_angle_says():
    matrix = films._matrix(90.0, 1.0, 2.0, np.zeros(2), (100, 200))
    frame = projection.Frame(matrix, (100, 200))
    np.testing.assert_allclose(frame.place([[0, 0], [0, 10]]), [[100, 50], [120, 50]], atol=1e-9)
    upright = projection.Frame(films._matrix(0.0, 1.0, 2.0, np.zeros(2), (100, 200)), (100, 200))
    np.testing.assert_allclose(upright.place([[0, 10], [10, 0]]), [[100, 30], [120, 50]], atol=1e-9)
    assert frame.per_mm == pytest.approx(2.0)


@pytest.mark.parametrize("view", phantoms.VIEWS)
def test_region_cuts_the_same_wrist_from_any_film(view):
    """The square cut by the region from a film, turned fingers up, is the wrist that is simulated alone."""
    agreements, turned = [], 0
    for seed in range(10):
        film = phantoms.simulate_film(seed, size=360, view=view, framing="hand", positive=False)
        alone = phantoms.simulate_wrist(seed, size=48, view=view, positive=False, jitter=0)
        region = film.region
        turned += abs(region.angle) > 3
        rotation = cv2.getRotationMatrix2D((region.x, region.y), region.angle, 48 / region.side)
        rotation[:, 2] += np.array([24 - region.x, 24 - region.y])
        cut = cv2.warpAffine(film.pixels, rotation, (48, 48), flags=cv2.INTER_AREA)
        inner = np.s_[10:38, 10:38]
        values = [cv2.GaussianBlur(image, (0, 0), 1.0)[inner].ravel() for image in (cut, alone.pixels)]
        agreements.append(np.corrcoef(*values)[0, 1])
    assert turned >= 4
    assert np.median(agreements) > 0.9


def test_region_without_jitter_is_the_square_itself():
    film = phantoms.simulate_wrist(1, size=100, jitter=0, positive=False)
    region = film.region
    assert (region.x, region.y, region.side, region.angle) == pytest.approx((50, 50, 100, 0))
    offs = [phantoms.simulate_wrist(seed, size=48).region for seed in range(40)]
    assert max(abs(region.x - 24) for region in offs) < 48 * 0.1
    assert 0.87 < min(r.side for r in offs) / 48 < max(r.side for r in offs) / 48 < 1.14
    assert 6 < max(abs(region.angle) for region in offs) <= 12


def test_study_shows_one_wrist_in_two_or_three_views():
    shown = []
    for seed in range(24):
        first, *others = study = phantoms.simulate_study(seed, size=40, positive=True)
        for other in others:
            for name in ("kind", "laterality", "child", "age", "hardware", "cast", "displacement_mm", "gap_mm", "seed"):
                assert getattr(first, name) == getattr(other, name), name
        assert all(film.mask.any() for film in study)
        shown.append(tuple(film.view for film in study))
    assert set(shown) <= {("PA", "LATERAL"), phantoms.VIEWS, ("PA", "OBLIQUE")}
    assert shown.count(("PA", "LATERAL")) > shown.count(phantoms.VIEWS) > 2


def test_angle_is_what_the_view_is_called():
    for view, low, high in (("PA", 0, 14), ("OBLIQUE", 31, 59), ("LATERAL", 74, 106)):
        angles = np.abs([phantoms.simulate_film(seed, size=24, view=view).angle for seed in range(12)])
        assert low <= angles.min() < angles.max() <= high
        assert np.ptp(angles) > 2  # nobody lies exactly true


def test_nothing_but_the_break_depends_on_the_label():
    for seed in range(25):
        broken, whole = (phantoms.simulate_film(seed, size=48, positive=value) for value in (True, False))
        assert broken.pixels.shape == whole.pixels.shape
        for name in ("view", "laterality", "framing", "child", "spacing_mm"):
            assert getattr(broken, name) == getattr(whole, name), name
        assert broken.region.side == pytest.approx(whole.region.side)
        assert broken.region.angle == pytest.approx(whole.region.angle)


@pytest.fixture(scope="module")
def made():
    return [phantoms.simulate_film(seed, size=40) for seed in range(1000, 1200)]


def test_trivial_measurements_do_not_tell_the_label(made):
    label = np.array([film.label for film in made])
    assert 75 < label.sum() < 125
    measures = {
        "aspect": [film.pixels.shape[0] / film.pixels.shape[1] for film in made],
        "brightness": [film.pixels.mean() for film in made],
        "contrast": [film.pixels.std() for film in made],
        "white": [(film.pixels > 0.98).mean() for film in made],
        "scale": [film.region.side for film in made],
        "angle": [abs(film.region.angle) for film in made],
        "child": [film.child for film in made],
        "framing": [phantoms.FRAMINGS.index(film.framing) for film in made],
    }
    for name, values in measures.items():
        values = np.array(values, float)
        assert stats.mannwhitneyu(values[label == 1], values[label == 0]).pvalue > 0.005, name


def test_films_vary_in_all_they_should(made):
    assert {film.framing for film in made} == set(phantoms.FRAMINGS)
    assert {film.view for film in made} == set(phantoms.VIEWS)
    assert {film.laterality for film in made} == {"L", "R"}
    assert {film.child for film in made} == {True, False}
    up = np.mean([abs(film.region.angle) <= 15 for film in made])
    assert 0.68 < up < 0.92


@pytest.mark.parametrize(("name", "value"), [("view", "AXIAL"), ("kind", "none"), ("framing", "x"), ("size", 3)])
def test_unknown_wishes_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        phantoms.simulate_film(0, **{name: value})
