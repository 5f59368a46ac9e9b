"""Fused batch normalisation: the same numbers, gradients and moving statistics as Keras' own, and only where it may."""

import numpy as np
import pytest

from core.train.norms import fuse_norms

keras = pytest.importorskip("keras")
if keras.backend.backend() != "tensorflow":
    pytest.skip("batch normalisation is fused on TensorFlow alone", allow_module_level=True)

FILMS = np.random.default_rng(0).normal(0.4, 2.0, (3, 4, 5, 2)).astype(np.float32)


def network(policy="float32", **settings):
    keras.utils.set_random_seed(5)
    film = keras.Input((4, 5, 2))
    x = keras.layers.Conv2D(6, 3, dtype=policy)(film)
    norm = keras.layers.BatchNormalization(momentum=0.7, name="norm", dtype=policy, **settings)
    x = keras.layers.Activation("relu", dtype=policy)(norm(x))
    model = keras.Model(film, keras.layers.Dense(1, dtype="float32")(keras.layers.Flatten(dtype="float32")(x)))
    for weight in norm.weights:
        weight.assign(np.linspace(0.5, 1.5, weight.shape[0]))
    return model


def step(model):
    """Return answers, gradients and the weights after one pass."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        answers = model(FILMS, training=True)
        loss = tf.reduce_sum(answers**2)
    gradients = tape.gradient(loss, [weight.value for weight in model.trainable_variables])
    return [answers.numpy(), *(each.numpy() for each in gradients), *model.get_weights()]


def is_fused(model):
    return "call" in vars(model.get_layer("norm"))


@pytest.mark.parametrize(("policy", "near"), [("float32", 1e-4), ("mixed_bfloat16", 0.06)])
def test_a_step_is_the_same_as_with_the_layer_of_keras(policy, near):
    plain, fused = network(policy), network(policy)
    fuse_norms(fused)
    assert is_fused(fused)
    before = fused.get_weights()
    expected, found = step(plain), step(fused)
    assert len(expected) == len(found)
    for want, have in zip(expected, found, strict=True):
        # What shifts every value alike, as the convolution's bias, is taken out again: its gradient is rounding alone.
        np.testing.assert_allclose(have, want, rtol=near, atol=near * max(1.0, np.abs(want).max()))
    moved = [not np.array_equal(a, b) for a, b in zip(before, fused.get_weights(), strict=True)]
    assert sum(moved) == 2  # the mean and the variance


def test_the_moving_statistics_against_numpy():
    model = network()
    fuse_norms(model)
    norm = model.get_layer("norm")
    inside = keras.Model(model.input, norm.input)(FILMS).numpy()
    before = [norm.moving_mean.numpy(), norm.moving_variance.numpy()]
    model(FILMS, training=True)
    now = (inside.mean((0, 1, 2)), inside.var((0, 1, 2)))
    for kept, old, new in zip((norm.moving_mean, norm.moving_variance), before, now, strict=True):
        np.testing.assert_allclose(kept.numpy(), 0.7 * old + 0.3 * new, rtol=1e-4)


def test_a_frozen_layer_and_a_reading_one_stay_as_they_are():
    plain, fused = network(), network()
    fuse_norms(fused)
    np.testing.assert_array_equal(fused(FILMS, training=False), plain(FILMS, training=False))
    for model in (plain, fused):
        model.get_layer("norm").trainable = False
    before = fused.get_weights()
    np.testing.assert_array_equal(fused(FILMS, training=True), plain(FILMS, training=True))
    for old, new in zip(before, fused.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("settings", [{"axis": 1}, {"scale": False}, {"center": False}, {"renorm": True}])
def test_other_layers_are_left_alone(settings):
    model = network(**settings) if "axis" not in settings else None
    if model is None:
        film = keras.Input((4, 5, 2))
        model = keras.Model(film, keras.layers.BatchNormalization(name="norm", **settings)(film))
    fuse_norms(model)
    assert not is_fused(model)


def test_it_compiles_with_an_optimiser_and_is_saved_without_a_trace(tmp_path):
    model = network()
    fuse_norms(model)
    model.compile("sgd", "mse")
    losses = [float(model.train_on_batch(FILMS, np.ones((3, 1), np.float32))) for _ in range(20)]
    assert losses[-1] < losses[0]
    model.save_weights(tmp_path / "fused.weights.h5")
    plain = network()
    plain.load_weights(tmp_path / "fused.weights.h5")
    np.testing.assert_allclose(plain(FILMS), model(FILMS), rtol=1e-5)
