"""Levelled contrast: what it is by hand, and that exposure and processing leave it alone."""

import numpy as np
import pytest

from core.backbones import LOCAL, build_classifier
from core.local_contrast import DEVIATION, FLOOR, MIDDLE, WINDOW_CELLS, level_contrast


def level(film: np.ndarray) -> np.ndarray:
    import keras

    size = film.shape[0]
    given = keras.Input((size, size, 1))
    levelled = keras.Model(given, level_contrast(given, size))(film[None, ..., None])
    return keras.ops.convert_to_numpy(levelled)[0, ..., 0]


def by_hand(film: np.ndarray) -> np.ndarray:
    """The same for films of at most 40 pixels, where a cell is a pixel: plain loops over the surroundings."""
    reach, size = WINDOW_CELLS // 2, len(film)

    def surroundings(picture):
        mean = np.empty_like(picture)
        for y in range(size):
            for x in range(size):
                mean[y, x] = picture[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1].mean()
        return mean

    away = film - surroundings(film)
    return np.clip(MIDDLE + DEVIATION * away / np.sqrt(surroundings(away**2) + FLOOR**2), 0, 1)


def test_equals_plain_loops():
    film = np.random.default_rng(0).random((32, 32))
    np.testing.assert_allclose(level(film.astype(np.float32)), by_hand(film), atol=2e-5)


@pytest.mark.parametrize("size", [64, 95, 224])
def test_size_and_places_are_kept_and_a_flat_film_stays_flat(size):
    assert level(np.full((size, size), 0.7, np.float32)) == pytest.approx(MIDDLE, abs=1e-3)
    film = np.full((size, size), 0.2, np.float32)
    film[size // 4, size // 3] = 0.9
    out = level(film)
    assert out.shape == (size, size)
    assert np.unravel_index(out.argmax(), out.shape) == (size // 4, size // 3)


def test_a_mirrored_film_is_mirrored():
    film = np.random.default_rng(1).random((96, 96)).astype(np.float32)
    np.testing.assert_allclose(level(film[:, ::-1])[:, ::-1], level(film), atol=0.02)


def test_exposure_and_a_dark_corner_hardly_matter():
    rng = np.random.default_rng(2)
    film = 0.3 + 0.3 * rng.random((120, 120)).astype(np.float32)
    shade = np.linspace(0, 0.2, 120, dtype=np.float32)
    inner = np.s_[20:-20, 20:-20]
    for changed in (film * 0.7, film + 0.15, film + shade):
        assert np.abs(changed - film)[inner].mean() > 0.08
        assert np.abs(level(changed) - level(film))[inner].mean() < 0.02


def test_a_classifier_reads_levelled_films():
    import keras

    keras.utils.set_random_seed(1)
    levelled = build_classifier("efficientnetlite0", input_size=64, scaling=LOCAL)
    plain = build_classifier("efficientnetlite0", input_size=64)
    plain.set_weights(levelled.get_weights())
    film = np.random.default_rng(3).random((64, 64)).astype(np.float32)
    given, wanted = (
        keras.ops.convert_to_numpy(model(picture[None, ..., None], training=False)["logit"])
        for model, picture in ((levelled, film), (plain, level(film)))
    )
    np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-5)
