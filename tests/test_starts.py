"""Starts beyond a backbone's own published weights."""

import numpy as np
import pytest

from core import backbones
from core.backbones import build_classifier
from core.starts import GATE_BIAS, GATE_SCALE, start_from_lite0

SIZE = 64


@pytest.fixture(scope="module")
def started():
    """Return (EfficientNetB0 before, after, EfficientNet-Lite0), the last with weights as a training leaves them."""
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(4)
    lite = build_classifier("efficientnetlite0", input_size=SIZE)
    rng = np.random.default_rng(4)
    for layer in lite.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    model = build_classifier("efficientnetb0", input_size=SIZE, location_head=True)
    before = {layer.name: layer.get_weights() for layer in model.layers}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("core.starts.build_classifier", lambda *_, **__: lite)
        copied = start_from_lite0(model)
    return model, before, lite, copied


def outputs(keras, model, layer, films):
    return keras.ops.convert_to_numpy(keras.Model(model.input, model.get_layer(layer).output)(films, training=False))


def test_the_first_layer_sees_the_film_as_lite0_does(started):
    import keras

    model, _, lite, _ = started
    films = np.random.default_rng(0).random((2, SIZE, SIZE, 1), np.float32)
    ours, theirs = (outputs(keras, net, "stem_bn", films) for net in (model, lite))
    # At the border zeros are padded, and a zero means another grey in each of the two.
    np.testing.assert_allclose(ours[:, 1:-1, 1:-1], theirs[:, 1:-1, 1:-1], atol=2e-4)


def test_every_convolution_is_lite0s(started):
    model, before, lite, copied = started
    shared = [
        layer.name
        for layer in lite.layers
        if layer.weights and layer.name not in ("hidden", "logit", "stem_conv", "stem_bn")
    ]
    assert copied == len(shared) + 2 == 98
    for name in shared:
        for ours, theirs in zip(model.get_layer(name).get_weights(), lite.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    for name in ("hidden", "logit", "location"):
        np.testing.assert_array_equal(model.get_layer(name).get_weights()[0], before[name][0])


def test_the_gates_stand_open(started):
    model, before, *_ = started
    gates = [layer for layer in model.layers if layer.name.endswith("_se_expand")]
    assert len(gates) == 16
    for gate in gates:
        kernel, bias = gate.get_weights()
        np.testing.assert_allclose(kernel, before[gate.name][0] * GATE_SCALE)
        assert (bias == GATE_BIAS).all()
    assert 1 / (1 + np.exp(-GATE_BIAS)) > 0.95


def test_the_licence_is_lite0s():
    from core.starts import START_LICENCES

    assert "Apache-2.0" in START_LICENCES["lite0"]
    assert backbones.LITE0_PACKAGE in START_LICENCES["lite0"]
