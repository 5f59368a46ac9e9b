"""The two published recipes: their augmentations against Keras' own, their settings against what was published."""

import math

import cv2
import numpy as np
import pytest

from core.train.presets import check_settings, option
from core.train.recipes import (
    AUGMENTATIONS,
    PRESETS,
    brighten,
    change_better_mura,
    change_mura_320,
    turn_and_shear,
)

SIZE = 48


@pytest.fixture(scope="module")
def keras_images():
    pytest.importorskip("scipy")
    return pytest.importorskip("keras.src.legacy.preprocessing.image")


@pytest.fixture
def film():
    """Bytes, as an 8-bit film is: float32 (48, 48) in [0, 1]."""
    rng = np.random.default_rng(11)
    soft = cv2.GaussianBlur(rng.random((SIZE, SIZE)).astype(np.float32), (0, 0), 1.5)
    soft = np.clip((soft - soft.min()) / (soft.max() - soft.min()) * 1.2 - 0.1, 0, 1)
    return np.round(soft * 255).astype(np.float32) / np.float32(255)


class Drawn:
    """Stands for a random generator: gives back what was drawn before."""

    def __init__(self, *values):
        self.values, self.ranges = list(values), []

    def uniform(self, low, high):
        self.ranges.append((low, high))
        return self.values.pop(0)

    def random(self):
        return self.values.pop(0)


@pytest.mark.parametrize(("degrees", "shear"), [(13.3, 0.1), (-20.0, -0.2), (7.0, 25.0), (0.0, -12.0), (90.0, 0.0)])
def test_turning_and_shearing_are_those_of_keras(keras_images, film, degrees, shear):
    expected = keras_images.apply_affine_transform(
        film[..., None], theta=degrees, shear=shear, row_axis=0, col_axis=1, channel_axis=2, fill_mode="nearest"
    )[..., 0]
    got = turn_and_shear(film, degrees, shear, cv2.BORDER_REPLICATE)
    assert np.abs(got - film).max() > 0.1
    np.testing.assert_allclose(got, expected, atol=5e-5)


@pytest.mark.parametrize("factor", [0.0, 0.5, 0.77, 1.0, 1.31, 1.5])
def test_brightness_is_that_of_keras_to_the_bit(keras_images, film, factor):
    colours = np.repeat(film[..., None] * 255, 3, axis=-1)
    expected = keras_images.apply_brightness_shift(np.round(colours), factor, scale=False)[..., 0]
    np.testing.assert_array_equal(np.round(brighten(film, factor) * 255, 3), expected)


def test_brightness_cuts_between_whole_numbers_as_keras_does(keras_images):
    values = np.linspace(0.2, 254.7, SIZE * SIZE).reshape(SIZE, SIZE).astype(np.float32)
    expected = keras_images.apply_brightness_shift(np.repeat(values[..., None], 3, axis=-1), 1.25, scale=False)[..., 0]
    got = np.round(brighten(values / 255, 1.25) * 255, 3)
    # A value within a thousandth of a whole number may be cut to either.
    clear = np.abs(values - np.round(values)) > 2e-3
    np.testing.assert_array_equal(got[clear], expected[clear])
    assert clear.mean() > 0.95


@pytest.mark.parametrize("draw", [(13.3, 0.1, 0.61), (-19.5, -0.17, 1.42)])
def test_better_mura_changes_a_film_as_the_recipes_generator_does(keras_images, film, draw):
    generator = keras_images.ImageDataGenerator(rotation_range=20, shear_range=0.2, brightness_range=(0.5, 1.5))
    colours = np.repeat(np.round(film[..., None] * 255), 3, axis=-1)
    names = ("theta", "shear", "brightness")
    expected = generator.apply_transform(colours, dict(zip(names, draw, strict=True)))[..., 0] / 255
    drawn = Drawn(*draw)
    got = change_better_mura(film, drawn)
    # Where interpolation ends next to a whole number, cutting to 8 bits may part by one, times the brightness.
    apart = np.abs(got - expected)
    assert apart.max() <= 2.001 / 255
    assert (apart > 1e-4).mean() < 0.02
    assert drawn.ranges == [(-20.0, 20.0), (-0.2, 0.2), (0.5, 1.5)]
    np.testing.assert_array_equal(got, change_better_mura(film, Drawn(*draw)))


def test_mura_320_mirrors_and_turns_with_black_corners(film):
    same = change_mura_320(film, Drawn(0.7, 0.0))
    np.testing.assert_allclose(same, film, atol=1e-6)
    np.testing.assert_allclose(change_mura_320(film, Drawn(0.2, 0.0)), film[:, ::-1], atol=1e-6)
    drawn = Drawn(0.7, 30.0)
    turned = change_mura_320(np.ones((SIZE, SIZE), np.float32), drawn)
    assert drawn.ranges == [(-30.0, 30.0)]
    # A side turned by 30 degrees cuts a right-angled triangle off each corner of the frame; half a side is 1.
    legs = (1 - (1 - math.sin(math.pi / 6)) / math.cos(math.pi / 6), 1 - (1 - math.cos(math.pi / 6)) / 0.5)
    covered = 1 - 4 * 0.5 * legs[0] * legs[1] / 4
    assert turned.mean() == pytest.approx(covered, abs=0.02)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_augmentation_keeps_kind_and_range_and_leaves_its_film_alone(film, name):
    before = film.copy()
    rng = np.random.default_rng(4)
    results = [AUGMENTATIONS[name](film, rng) for _ in range(20)]
    for result in results:
        assert (result.dtype, result.shape) == (np.float32, film.shape)
        assert 0 <= result.min() <= result.max() <= 1
    np.testing.assert_array_equal(film, before)
    assert len({result.tobytes() for result in results}) == 20


def test_better_mura_is_what_was_published():
    settings = PRESETS["better-mura"]
    assert (settings.input_size, settings.epochs, settings.learning_rate) == (224, 25, 1e-4)
    assert (settings.weight_decay, settings.label_smoothing, settings.warmup_epochs) == (0, 0, 0)
    expected = {
        "scaling": "unit",
        "class_weights": {"0": 1.0, "1": 1.5},
        "trainable_last": 15,
        "dropout": 0.3,
        "optimizer": "adam",
        "loss": "cross_entropy",
        "schedule": "plateau",
        "plateau_factor": 0.2,
        "plateau_patience": 2,
        "plateau_smallest": 1e-6,
        "early_stopping": 5,
    }
    assert {name: option(settings, name) for name in expected} == expected


def test_mura_320_is_what_was_published():
    settings = PRESETS["mura-320"]
    assert settings.input_size == 320
    expected = {"scaling": "torch", "optimizer": "adam", "loss": "cross_entropy", "class_weights": None}
    assert {name: option(settings, name) for name in expected} == expected


@pytest.mark.parametrize("name", PRESETS)
def test_training_knows_every_setting_of_a_recipe(name):
    assert PRESETS[name].preset == name
    check_settings(PRESETS[name])
