"""Detectors: what a machine does to a film, and what lies over it."""

import cv2
import numpy as np
import pytest

from core.phantoms import detector, overlays
from core.phantoms.overlays import Overlay


def machine(**wishes) -> detector.Detector:
    """A machine that does nothing but what is asked of it."""
    plain = {
        "style": "plain", "blur_mm": 0.1, "scatter": 0.0, "noise": 0.0, "enhance": 0.0, "enhance_mm": 1.0,
        "contrast": 0.0, "contrast_mm": 3.0, "latitude": 0.0, "latitude_mm": 12.0, "power": 1.0, "low_percentile": 0.0,
        "high_percentile": 100.0, "gamma": 1.0, "slope": 0.0, "floor": 0.0, "ceiling": 1.0, "across_wrist": 1e4,
        "crisp": 0.0, "banding": 0.0, "grid": 0.0, "grid_px": 4.0, "lightbox": 0.0, "scratches": 0, "clip": 0.0,
        "jpeg": 0, "again": 0, "bits": 8,
    }  # fmt: skip
    return detector.Detector(**(plain | wishes))


def overlay(**wishes) -> Overlay:
    plain = {
        "insets": (0.0, 0.0, 0.0, 0.0), "tilt": 0.0, "rounding": 0.0, "outside": 0.0, "soft": 0.5, "marker": "",
        "marker_style": "letter", "marker_mm": 10.0, "text": 0, "toolbar": 0.0, "pad": 0.0, "rim": 0.0, "seed": 1,
    }  # fmt: skip
    return Overlay(**(plain | wishes))


def steps() -> np.ndarray:
    """Attenuation in four vertical stripes: 0, 0.5, 1, 2."""
    return np.repeat(np.array([0, 0.5, 1, 2], np.float32), 40)[None].repeat(120, axis=0)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_plain_machine_shows_attenuation_in_proportion():
    measured = detector.expose(steps(), 2.0, machine(), rng())
    np.testing.assert_allclose(measured, steps(), atol=1e-5)
    film = detector.process(measured, 2.0, machine())
    np.testing.assert_allclose(film[60, 20::40], [0, 0.25, 0.5, 1], atol=1e-5)


def test_scatter_takes_contrast_and_noise_follows_the_dose():
    bar = np.zeros((120, 160), np.float32)
    bar[:, 78:82] = 1  # a bone of 2 mm, whose shade the light from beside it fills
    sharp, foggy = (detector.expose(bar, 2.0, machine(scatter=share), rng()) for share in (0.0, 0.3))
    assert np.ptp(sharp[60]) == pytest.approx(1, abs=1e-4)
    # 0.368 of the beam and 0.3 more from around, against 1.3 in the open.
    assert np.ptp(foggy[60]) == pytest.approx(np.log(1.3 / (np.exp(-1) + 0.3)), rel=0.05)
    noisy = detector.expose(steps(), 2.0, machine(noise=0.02), rng())
    spread = [noisy[:, 40 * k + 5 : 40 * k + 35].std() for k in range(4)]
    # Of N quanta the logarithm spreads by 1 / sqrt(N): twice the noise where the beam is weakened four times.
    np.testing.assert_allclose(spread, 0.02 * np.exp(np.array([0, 0.5, 1, 2]) / 2), rtol=0.1)


@pytest.mark.parametrize("wishes", [{"slope": 5.0}, {"gamma": 1.6}, {"floor": 0.2, "ceiling": 0.7}])
def test_look_up_tables_keep_the_order_of_greys(wishes):
    ramp = np.linspace(0, 2, 201, dtype=np.float32)[None].repeat(50, axis=0)
    film = detector.process(ramp, 2.0, machine(**wishes))
    assert (np.diff(film[25]) > 0).all()
    assert film[25, 0] == pytest.approx(wishes.get("floor", 0), abs=1e-4)
    assert film[25, -1] == pytest.approx(wishes.get("ceiling", 1), abs=1e-4)
    if "slope" in wishes:  # an S: steep in the middle, flat at both ends, the same turned about its middle
        step = np.diff(film[25])
        assert step[100] > 2 * step[0]
        np.testing.assert_allclose(film[25] + film[25, ::-1], 1, atol=1e-3)


@pytest.mark.parametrize("wishes", [{"power": 0.6}, {"enhance": 3.0}])
def test_enhancement_raises_faint_detail_against_large_differences(wishes):
    x, y = np.meshgrid(np.arange(256, dtype=np.float32), np.arange(256, dtype=np.float32))
    scene = 2 / (1 + np.exp(-(x - 128) / 12)) + 0.02 * np.sin(y * 2 * np.pi / 8)

    def detail(film: np.ndarray) -> float:
        return (film - cv2.blur(film, (1, 8))).std() / np.ptp(cv2.blur(film, (9, 9)))

    plain, done = (detector.process(scene, 2.0, machine(**item)) for item in ({}, wishes))
    assert detail(done) > 1.5 * detail(plain)


def test_power_of_one_changes_nothing():
    noise = rng().random((90, 75), np.float32)
    np.testing.assert_allclose(detector._amplify_bands(noise, 2.0, 1.0), noise, atol=1e-5)


def test_film_that_is_stored_small_loses_what_is_fine():
    fine = np.indices((128, 128)).sum(axis=0).astype(np.float32) % 2
    lost = detector.degrade(fine, 128.0, machine(across_wrist=64.0), rng())
    assert lost.shape == fine.shape
    assert lost.std() < 0.1 * fine.std()
    np.testing.assert_array_equal(detector.degrade(fine, 128.0, machine(), rng()), fine)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_store_keeps_a_film_to_within_a_grey(bits):
    film = rng().random((60, 50), np.float32)
    film[0, :2] = 0, 1
    kept = detector.store(film, machine(bits=bits))
    assert np.abs(kept - film).max() <= 0.51 / (2**bits - 1)
    assert len(np.unique(np.round(kept * (2**bits - 1)))) == len(np.unique(kept))


def test_deep_film_uses_the_whole_range():
    film = 0.2 + 0.5 * rng().random((60, 50), np.float32)
    kept = detector.store(film, machine(bits=12))
    assert (kept.min(), kept.max()) == (0, 1)
    np.testing.assert_allclose(kept, (film - film.min()) / np.ptp(film), atol=1e-3)


def test_second_jpeg_costs_more_than_the_first():
    film = cv2.GaussianBlur(rng().random((96, 96), np.float32), (0, 0), 1.0)
    losses = [np.abs(detector.store(film, machine(jpeg=60, again=again)) - film).mean() for again in (0, 60)]
    assert 0.001 < losses[0] < losses[1]


def test_collimation_covers_all_but_the_open_part():
    film = np.full((100, 200), 0.5, np.float32)
    item = overlay(insets=(0.1, 0.2, 0.1, 0.2), outside=1.0)
    corners = overlays.open_corners(item, film.shape)
    np.testing.assert_allclose(corners, [[20, 20], [180, 20], [180, 80], [20, 80]])
    done = overlays.finish(film, item, corners, np.array([[100.0, 50.0]]), 2.0)
    assert done[50, 100] == 0.5
    assert done[5, 100] == done[50, 5] == 1.0
    rounded = overlays.finish(film, overlay(insets=(0.1,) * 4, outside=1.0, rounding=0.2),
                              corners, np.array([[100.0, 50.0]]), 2.0)  # fmt: skip
    assert rounded[22, 22] > 0.9 > 0.6 > rounded[50, 24]


def test_marker_stays_off_the_limb_and_within_the_film():
    axis = np.column_stack([np.full(20, 60.0), np.linspace(0, 160, 20)])
    for seed in range(12):
        for style in overlays._MARKERS:
            item = overlay(marker="L", marker_style=style, seed=seed)
            done = overlays.finish(np.zeros((160, 120), np.float32), item, np.zeros((4, 2)), axis, 2.0)
            rows, columns = np.nonzero(done > 0.3)
            assert len(rows) > 8, style
            assert np.ptp(rows) <= 20
            assert np.abs(columns - 60).min() > 5


def test_everything_laid_over_a_film_stays_in_range():
    for seed in range(60):
        item = overlays.draw_overlay(rng(seed), "long", "R")
        film = rng(seed).normal(0.5, 0.5, (96, 70)).astype(np.float32)
        done = overlays.finish(film, item, overlays.open_corners(item, film.shape), np.array([[35.0, 48.0]]), 1.0)
        assert done.dtype == np.float32
        assert 0 <= done.min() <= done.max() <= 1


def test_machines_differ_and_their_films_cover_the_greys():
    """Sharpness and brightness of one scene spread so widely over machines that they say nothing of the scene."""
    scene = cv2.GaussianBlur(rng().random((112, 112), np.float32) * 2, (0, 0), 2.0) + steps()[:112, :112] / 2
    films = []
    for seed in range(150):
        made = detector.draw_detector(rng(seed))
        film = detector.degrade(detector.process(detector.expose(scene, 1.0, made, rng(seed)), 1.0, made), 112, made,
                                rng(seed))  # fmt: skip
        films.append(detector.store(np.clip(film, 0, 1), made))
    sharp = [cv2.Laplacian(film, cv2.CV_32F).var() for film in films]
    assert np.quantile(sharp, 0.95) > 30 * np.quantile(sharp, 0.05)
    means = [film.mean() for film in films]
    assert np.quantile(means, 0.95) - np.quantile(means, 0.05) > 0.25
    assert {detector.draw_detector(rng(seed)).style for seed in range(100)} == set(detector.STYLES)
    assert {detector.draw_detector(rng(seed)).bits for seed in range(800)} == {8, 10, 12, 14, 16}
