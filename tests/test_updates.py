"""AdamW in one operation a variable: the weights that Keras' own gives; and which biases are not trained at all."""

import numpy as np
import pytest

from core.train.updates import make_adamw, rest_biases

keras = pytest.importorskip("keras")
if keras.backend.backend() != "tensorflow":
    pytest.skip("updates are fused on TensorFlow alone", allow_module_level=True)

STEPS = 6


def weights_after(optimizer, gradients, start=0.5, excluded=()):
    """Return what weights called kernel and bias become; the learning rate is set anew before each step."""
    chosen = [keras.Variable(np.full(4, start, np.float32), name=name) for name in ("kernel", "bias")]
    if excluded:
        optimizer.exclude_from_weight_decay(var_names=list(excluded))
    optimizer.build(chosen)
    for step, gradient in enumerate(gradients):
        optimizer.learning_rate = 0.1 / (1 + step)
        optimizer.apply([keras.ops.convert_to_tensor(part) for part in gradient], chosen)
    return [variable.numpy() for variable in chosen]


@pytest.mark.parametrize("clipnorm", [None, 0.5, 50.0])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_the_weights_are_those_of_keras(clipnorm, decay):
    gradients = np.random.default_rng(3).normal(0.0, 2.0, (STEPS, 2, 4)).astype(np.float32)
    settings = {"learning_rate": 0.1, "weight_decay": decay}
    expected = weights_after(keras.optimizers.AdamW(clipnorm=clipnorm, **settings), gradients, excluded=["bias"])
    optimizer = make_adamw(clipnorm=clipnorm, **settings)
    assert type(optimizer) is not keras.optimizers.AdamW
    found = weights_after(optimizer, gradients, excluded=["bias"])
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-7)
    assert np.abs(np.array(found) - 0.5).min() > 1e-3


def test_two_steps_by_hand():
    """Kingma and Ba's algorithm 1 with the decay of Loshchilov and Hutter, in NumPy, a gradient cut down to norm 1."""
    weights, m, v = np.full(4, 0.5), np.zeros(4), np.zeros(4)
    gradients = [np.array([3.0, 0.0, -4.0, 0.0]), np.array([0.1, 0.2, 0.3, 0.4])]
    for step, (gradient, rate) in enumerate(zip(gradients, (0.1, 0.05), strict=True), start=1):
        gradient = gradient / max(1.0, np.linalg.norm(gradient))
        weights = weights - rate * 0.2 * weights
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        weights = weights - rate * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-7)
    optimizer = make_adamw(clipnorm=1.0, learning_rate=0.1, weight_decay=0.2)
    pairs = np.stack([np.stack([gradient, gradient]) for gradient in gradients]).astype(np.float32)
    for found in weights_after(optimizer, pairs):
        # The place of epsilon is Keras' and TensorFlow's own: it differs by less than this.
        np.testing.assert_allclose(found, weights, rtol=1e-4, atol=1e-4)


def test_a_gradient_of_zeros_moves_nothing_and_breaks_nothing():
    zeros = np.zeros((3, 2, 4), np.float32)
    found = weights_after(make_adamw(clipnorm=1.0, learning_rate=0.1, weight_decay=0.0), zeros)
    np.testing.assert_array_equal(found, np.full((2, 4), 0.5, np.float32))


def test_what_was_remembered_can_be_kept_and_given_back():
    """A run that was cut off goes on with the optimizer's memory: the same variables as Keras', in their order."""
    gradients = np.random.default_rng(4).normal(size=(2, 2, 4)).astype(np.float32)
    names = []
    for optimizer in (keras.optimizers.AdamW(learning_rate=0.1), make_adamw(learning_rate=0.1)):
        weights_after(optimizer, gradients)
        names.append([(variable.path.partition("/")[2], variable.shape) for variable in optimizer.variables])
    assert names[0] == names[1]


def test_on_several_devices_keras_updates_itself():
    import tensorflow as tf

    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        assert type(make_adamw(learning_rate=0.1)) is keras.optimizers.AdamW


def network():
    keras.utils.set_random_seed(5)
    film = keras.Input((6, 6, 1))
    x = keras.layers.Conv2D(3, 3, name="before_norm")(film)
    x = keras.layers.BatchNormalization(name="norm")(x)
    shared = keras.layers.Conv2D(3, 3, name="before_both")(keras.layers.Activation("relu")(x))
    normed = keras.layers.BatchNormalization(name="other_norm")(shared)
    x = keras.layers.Conv2D(2, 1, name="before_sum")(keras.layers.Add()([shared, normed]))
    x = keras.layers.Flatten()(keras.layers.Conv2D(2, 1, use_bias=False, name="without")(x))
    return keras.Model(film, keras.layers.Dense(1, name="logit")(x))


def trained_biases(model):
    return {layer.name for layer in model.layers if any(v.name == "bias" for v in layer.trainable_variables)}


def test_only_biases_that_a_trained_normalisation_takes_away_rest():
    model = network()
    assert trained_biases(model) == {"before_norm", "before_both", "before_sum", "logit"}
    rest_biases(model)
    assert trained_biases(model) == {"before_both", "before_sum", "logit"}
    kernels = {v.path for v in model.trainable_variables if v.name == "kernel"}
    assert "before_norm/kernel" in kernels


def test_a_bias_before_frozen_statistics_is_trained():
    model = network()
    model.get_layer("norm").trainable = False
    rest_biases(model)
    assert "before_norm" in trained_biases(model)


def test_the_gradient_of_a_resting_bias_is_rounding():
    import tensorflow as tf

    model = network()
    films = np.random.default_rng(1).normal(size=(8, 6, 6, 1)).astype(np.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(films, training=True) ** 2)
    bias = model.get_layer("before_norm").bias
    kernel = model.get_layer("before_norm").kernel
    of_bias, of_kernel = tape.gradient(loss, [bias.value, kernel.value])
    assert np.abs(of_bias).max() < 1e-4 * np.abs(of_kernel).max()


def test_freezing_layers_of_an_epoch_lets_them_rest_each_time():
    from core.train.networks import freeze_layers
    from core.values import TrainingSettings

    model = network()
    settings = TrainingSettings("resnet50", weights=None)
    for epoch in range(2):
        freeze_layers(model, settings, epoch)
        assert "before_norm" not in trained_biases(model)
