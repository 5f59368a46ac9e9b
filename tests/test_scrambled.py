"""The same network with shuffled weights: what is shuffled, what stays, and that the original is not touched."""

from dataclasses import replace

import numpy as np
import pytest

from core.errors import ExplanationError
from core.explain import explain_square
from core.explain.scrambled import DEPTHS, ScrambledClassifier, layers_down_to
from tests.test_explain import StandIn, _stand_in_backbone, small_classifier  # noqa: F401


def normalised_classifier():
    """As small_classifier, with a layer before and one between the two convolutions that normalise."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(3)
    film = keras.Input((32, 32, 1))
    x = layers.Normalization(name="scaling")(layers.Concatenate()([film, film]))
    x = layers.Conv2D(4, 3, strides=2, name="early", activation="relu")(x)
    x = layers.BatchNormalization(name="norm")(x)
    middle = layers.Conv2D(6, 3, strides=2, name="middle", activation="relu")(x)
    x = layers.Conv2D(6, 3, name="features", activation="relu")(middle)
    hidden = layers.Dense(16, activation="relu", name="hidden")(layers.GlobalAveragePooling2D()(x))
    logit = layers.Dense(1, name="logit")(hidden)
    outputs = {"logit": logit, "probability": layers.Activation("sigmoid", name="probability")(logit)}
    outputs["location"] = layers.Conv2D(1, 1, name="location")(middle)
    model = keras.Model(film, outputs)
    *_, count = model.get_layer("scaling").get_weights()
    model.get_layer("scaling").set_weights([np.array([0.1, 0.3]), np.array([0.9, 1.2]), count])
    return StandIn(model, "features", location_head=True)


@pytest.fixture
def _layers(monkeypatch):
    """The stand-in's layer of stride 16 is the middle one."""
    from core import backbones

    known = {**backbones.BACKBONES, "none": replace(backbones.BACKBONES["none"], location_layer="middle")}
    monkeypatch.setattr(backbones, "BACKBONES", known)


@pytest.mark.usefixtures("_layers")
def test_each_depth_shuffles_its_layers_and_no_others():
    classifier = normalised_classifier()
    scrambled = ScrambledClassifier(classifier)
    expected = {
        "head": {"hidden", "logit", "location"},
        "deep": {"hidden", "logit", "location", "features"},
        "all": {"hidden", "logit", "location", "features", "middle", "early"},
    }
    assert tuple(expected) == DEPTHS
    films = np.random.default_rng(0).random((2, 32, 32, 1)).astype(np.float32)
    true = classifier.run(films)["logit"]
    np.testing.assert_allclose(scrambled.run(films)["logit"], true, atol=1e-6)
    for depth in (*DEPTHS, "head", None):
        scrambled.scramble(depth)
        changed = set()
        for ours, theirs in zip(scrambled.model.layers, classifier.model.layers, strict=True):
            for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
                np.testing.assert_array_equal(np.sort(one.ravel()), np.sort(other.ravel()))
                changed |= {ours.name} if not np.array_equal(one, other) else set()
        assert changed == (expected[depth] if depth else set())
        assert np.allclose(scrambled.run(films)["logit"], true, atol=1e-6) is (depth is None)
    np.testing.assert_array_equal(classifier.run(films)["logit"], true)


def test_what_was_compiled_follows_the_weights():
    scrambled = ScrambledClassifier(small_classifier())
    square = np.random.default_rng(1).random((32, 32)).astype(np.float32)
    whole, _, _ = explain_square(small_classifier(), square)
    np.testing.assert_allclose(explain_square(scrambled, square)[0], whole, atol=1e-6)
    maps = []
    for seed in (0, 1, 0):
        scrambled.scramble("all", seed)
        maps.append(explain_square(scrambled, square)[0])
    assert np.abs(maps[0] - whole).max() > 0.1
    assert np.abs(maps[0] - maps[1]).max() > 0.1
    np.testing.assert_array_equal(maps[0], maps[2])


def test_the_depths_of_a_real_backbone():
    from core.backbones import build_classifier, find_backbone

    model = build_classifier("efficientnetlite0", input_size=32, location_head=True)
    backbone = find_backbone("efficientnetlite0")
    classifier = StandIn(model, backbone.feature_layer, location_head=True)
    classifier.checkpoint = replace(classifier.checkpoint, backbone="efficientnetlite0")
    head, deep, everything = (layers_down_to(model, classifier.checkpoint, depth) for depth in DEPTHS)
    assert head == {"hidden", "logit", "location"}
    assert head < deep < everything
    assert {"top_conv", "block6a_dwconv"} <= deep, "what comes after the map of stride 16"
    assert not {"stem_conv", "block6a_expand_conv"} & deep
    assert "stem_conv" in everything
    assert not [name for name in everything if name.endswith("_bn")]
    scrambled = ScrambledClassifier(classifier)
    scrambled.scramble("all")
    (kernel,) = scrambled.model.get_layer("stem_conv").get_weights()
    assert not np.array_equal(kernel, model.get_layer("stem_conv").get_weights()[0])


def test_an_unknown_depth_is_refused():
    classifier = small_classifier()
    with pytest.raises(ExplanationError, match="head, deep, all, but it is 'half'"):
        layers_down_to(classifier.model, classifier.checkpoint, "half")
