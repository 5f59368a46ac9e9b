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


# --- a model in a file ------------------------------------------------------------------------------------------------


def options_for(weights, *more):
    from core.train.__main__ import build_parser

    return build_parser().parse_args(["--data", "films", "--id", "new-1", "--weights", str(weights), *more])


@pytest.mark.parametrize("name", ["model.keras", "own.weights.h5"])
def test_training_starts_from_a_model_that_was_made_elsewhere(tmp_path, name):
    import keras

    from core.train.__main__ import make_request
    from core.train.networks import build_network

    keras.utils.set_random_seed(6)
    film = keras.Input((32, 32, 3))
    if name == "model.keras":
        body = keras.applications.ResNet50(include_top=False, weights=None, input_tensor=film)
        hidden = keras.layers.Dense(64, activation="relu")(keras.layers.GlobalAveragePooling2D()(body.output))
        source = keras.Model(film, keras.layers.Dense(1, activation="sigmoid")(keras.layers.Dropout(0.3)(hidden)))
    else:
        source = build_classifier("resnet50", input_size=32)
    source.save(tmp_path / name) if name == "model.keras" else source.save_weights(tmp_path / name)
    request = make_request(options_for(tmp_path / name, "--backbone", "resnet50", "--input-size", "32"))
    assert request.starts_elsewhere
    assert len(request.settings.weights) == 64  # told apart by its sha256
    model = build_network(request, 32, location=True, start=True)
    for layer in ("conv1_conv", "conv5_block3_3_bn", "hidden"):
        theirs = source.layers[-3] if layer == "hidden" and name == "model.keras" else source.get_layer(layer)
        for ours, their in zip(model.get_layer(layer).get_weights(), theirs.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, their)


def test_what_weights_in_a_file_are_is_told_from_the_file(tmp_path, monkeypatch):
    from dataclasses import replace

    from core.errors import CheckpointError, TrainingError
    from core.train.__main__ import make_request
    from core.train.networks import build_network

    file = tmp_path / "weights.h5"
    file.write_bytes(b"abc")
    size = ("--input-size", "32")
    other = make_request(options_for(file, "--backbone", "resnet50", *size))
    assert other.settings.weights == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(CheckpointError, match="HDF5"):
        build_network(other, 32, location=False, start=True)
    with pytest.raises(TrainingError, match="starts from the published weights"):
        make_request(options_for(file, "--task", "wrist"))
    published = replace(backbones.BACKBONES["resnet50"], weights_hash="md5:900150983cd24fb0d6963f7d28e17f72")
    monkeypatch.setattr(backbones, "BACKBONES", {**backbones.BACKBONES, "resnet50": published})
    found = make_request(options_for(file, "--backbone", "resnet50", *size))
    assert (found.settings.weights, found.starts_elsewhere) == ("imagenet", False)
    wheel = tmp_path / "lite0.pth"
    wheel.write_bytes(b"abc")
    assert make_request(options_for(wheel, "--backbone", "efficientnetb0")).settings.weights == "lite0"
    assert make_request(options_for(wheel, "--backbone", "efficientnetlite0")).settings.weights == "imagenet"
