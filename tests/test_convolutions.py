"""Kernels' gradients by products of matrices: the same as TensorFlow's own operation, and only where it is sooner."""

import numpy as np
import pytest

from core.train.convolutions import kernel_gradient, quicken_kernels
from core.train.devices import computing

keras = pytest.importorskip("keras")
if keras.backend.backend() != "tensorflow":
    pytest.skip("gradients are changed on TensorFlow alone", allow_module_level=True)


def arrays(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("side", "strides", "padding", "size"),
    [
        (1, (1, 1), "SAME", (5, 4)),
        (1, (2, 2), "VALID", (5, 6)),
        (1, (2, 1), "SAME", (7, 3)),
        (3, (1, 1), "SAME", (4, 6)),
    ],
)
def test_the_gradient_is_that_of_tensorflow(side, strides, padding, size):
    import tensorflow as tf

    films = arrays((3, *size, 5))
    kernel = tf.constant(arrays((side, side, 5, 7), 1))
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        answers = tf.nn.conv2d(films, kernel, [1, *strides, 1], padding)
        slope = tf.constant(arrays(answers.shape, 2))
        loss = tf.reduce_sum(answers * slope)
    found = kernel_gradient(tf.constant(films), slope, side, strides)
    np.testing.assert_allclose(found, tape.gradient(loss, kernel), rtol=1e-4, atol=1e-4)


def test_a_kernel_of_one_pixel_by_hand():
    import tensorflow as tf

    films = tf.constant([[[[1.0], [2.0]], [[3.0], [4.0]]]])
    slope = tf.constant([[[[1.0], [10.0]], [[100.0], [1000.0]]]])
    assert kernel_gradient(films, slope, 1).numpy().tolist() == [[[[4321.0]]]]


def network(policy="mixed_bfloat16", size=8):
    keras.utils.set_random_seed(5)
    conv = keras.layers.Conv2D
    with computing(policy):
        film = keras.Input((size, size, 4))
        x = conv(6, 1, name="one")(film)
        x = conv(128, 3, padding="same", use_bias=False, name="three")(x)
        x = conv(8, 1, strides=2, activation="relu", name="strided")(x)
        x = conv(4, 3, padding="same", name="few_filters")(x)
        x = conv(128, 3, name="not_padded")(x)
        x = keras.layers.Flatten()(x)
        return keras.Model(film, keras.layers.Dense(1, dtype="float32")(x))


def changed(model):
    return {layer.name for layer in model.layers if "convolution_op" in vars(layer)}


def test_which_convolutions_are_changed():
    model = network()
    quicken_kernels(model)
    assert changed(model) == {"one", "three", "strided"}


@pytest.mark.parametrize(
    ("policy", "size", "expected"), [("float32", 8, set()), ("mixed_bfloat16", 12, {"one", "strided"})]
)
def test_large_maps_and_other_precisions_stay_as_they_are(policy, size, expected):
    model = network(policy, size)
    quicken_kernels(model)
    assert changed(model) == expected


def gradients(model, films):
    import tensorflow as tf

    @tf.function
    def run():
        with tf.GradientTape() as tape:
            answers = model(films, training=True)
            loss = tf.reduce_sum(answers**2)
        return answers, tape.gradient(loss, [each.value for each in model.trainable_variables])

    answers, slopes = run()
    return [answers.numpy(), *(slope.numpy() for slope in slopes)]


def test_a_network_answers_and_learns_as_before():
    films = arrays((6, 8, 8, 4), 3)
    plain, quick = network(), network()
    quicken_kernels(quick)
    expected, found = gradients(plain, films), gradients(quick, films)
    assert len(expected) == len(found)
    for want, have in zip(expected, found, strict=True):
        assert want.dtype == have.dtype
        # Three digits is what bfloat16 has; the sums are over hundreds of numbers.
        np.testing.assert_allclose(have, want, rtol=0.05, atol=0.02 * np.abs(want).max())
    np.testing.assert_array_equal(found[0], expected[0])


def test_where_a_network_is_built_for_training_it_is_quickened():
    from core.train.networks import build_network
    from core.train.runs import Request
    from core.values import TrainingSettings

    settings = TrainingSettings("efficientnetlite0", weights=None, input_size=64)
    request = Request("x", "fracture", "", None, "", None, None, None, settings)
    with computing("mixed_bfloat16"):
        assert changed(build_network(request, 64, False))
