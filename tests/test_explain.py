"""core.explain and its heat maps and passes, against hand-worked maps, plain loops and tf-keras-vis."""

import gc
import weakref
from dataclasses import replace
from unittest import mock

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import zoom

from core.backbones import BACKBONES
from core.errors import ExplanationError
from core.explain import (
    METHODS,
    available_methods,
    backward_batch,
    canonical_method,
    explain,
    explain_square,
    lay_on_film,
)
from core.explain.heatmaps import (
    channel_masks,
    fuse_maps,
    grad_cam,
    grad_cam_plus_plus,
    group_channels,
    grow_location,
    layer_cam,
    scaled,
    score_cam,
    smooth_grad,
    upsample,
)
from core.explain.passes import passes_of
from core.radiographs import fit_square
from core.train.appraisal import peak_of
from core.values import Checkpoint, Radiograph, WristRegion


@pytest.fixture(autouse=True, scope="module")
def _stand_in_backbone():
    """Let what knows a backbone's layers know those of the stand-ins too."""
    layers = {"early_layers": ("early", "early"), "location_layer": "features", "feature_layer": "features"}
    with pytest.MonkeyPatch.context() as patch:
        known = {**BACKBONES, "none": replace(BACKBONES["resnet50"], name="none", **layers)}
        patch.setattr("core.backbones.BACKBONES", known)
        yield


class StandIn:
    """A classifier reduced to what explanations ask of one."""

    def __init__(self, model, feature_layer, location_head=False):
        self.model = model
        self.checkpoint = Checkpoint(
            id="stand-in",
            title="Stand-in",
            task="fracture",
            backbone="none",
            feature_layer=feature_layer,
            input_size=model.input.shape[1],
            location_head=location_head,
        )

    def square(self, radiograph, region=None):
        card = self.checkpoint
        fit = fit_square(radiograph.height, radiograph.width, card.input_size, region, card.fit)
        return fit.apply(radiograph.pixels)

    def run(self, squares):
        return {name: answer.numpy() for name, answer in self.model(squares, training=False).items()}


def small_classifier(seed=0, size=32, bias=0.0, location_head=False):
    """Two convolutions and the head every classifier has; random weights, fixed by `seed`."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(seed)
    film = keras.Input((size, size, 1))
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="early")(film)
    x = layers.Conv2D(12, 3, strides=2, padding="same", activation="relu", name="features")(x)
    hidden = layers.Dense(16, activation="relu", name="hidden")(layers.GlobalAveragePooling2D()(x))
    logit = layers.Dense(1, bias_initializer=keras.initializers.Constant(bias), name="logit")(hidden)
    outputs = {"logit": logit, "probability": layers.Activation("sigmoid", name="probability")(logit)}
    if location_head:
        outputs["location"] = layers.Conv2D(1, 1, name="location")(layers.AveragePooling2D(4)(x))
    return StandIn(keras.Model(film, outputs), "features", location_head)


def brightness_classifier(size=64):
    """A network that is as sure as the film is bright: where its evidence lies is known."""
    import keras
    from keras import layers

    film = keras.Input((size, size, 1))
    ones = {"kernel_initializer": "ones"}
    x = layers.AveragePooling2D(4, name="features")(layers.AveragePooling2D(1, name="early")(film))
    logit = layers.Dense(1, name="logit", **ones)(layers.GlobalAveragePooling2D()(x))
    location = layers.Conv2D(1, 1, name="location", bias_initializer=keras.initializers.Constant(-3), **ones)(x)
    outputs = {"logit": logit, "probability": layers.Activation("sigmoid")(logit), "location": location}
    return StandIn(keras.Model(film, outputs), "features", location_head=True)


def film_of(pixels):
    return Radiograph("0" * 64, pixels, "PNG, 8 bit")


@pytest.fixture(scope="module")
def film():
    rng = np.random.default_rng(5)
    return film_of(zoom(rng.random((8, 8)), 4, order=1).clip(0, 1))


@pytest.fixture(scope="module")
def small():
    return small_classifier()


# --- the methods as arithmetic --------------------------------------------------------------------------------------


def test_grad_cam_of_a_hand_worked_map():
    ramp = np.tile(np.array([0.0, 1.0, 2.0, 3.0]), (4, 1))
    features = np.stack([ramp, np.ones((4, 4))], axis=-1)
    gradients = np.zeros((4, 4, 2))
    gradients[0, :, 0] = 2.0  # mean 0.5
    gradients[:, :, 1] = [[-1.0, -0.5, -0.5, -1.0]] * 4  # mean -0.75
    # 0.5 * ramp - 0.75 = -0.75, -0.25, 0.25, 0.75
    np.testing.assert_allclose(grad_cam(features, gradients), np.tile([0, 0, 0.25, 0.75], (4, 1)))


def test_score_cam_of_a_hand_worked_map():
    first, second = np.zeros((4, 4)), np.zeros((4, 4))
    first[0, 0], second[3, 3], second[0, 0] = 4.0, 8.0, -20.0
    expected = np.zeros((4, 4))
    expected[3, 3] = 6.0  # weights 1/4 and 3/4; at the other corner 4/4 - 60/4 is negative and cut
    features = np.stack([first, second], axis=-1)
    np.testing.assert_allclose(score_cam(features, np.log([1.0, 3.0])), expected)
    np.testing.assert_allclose(score_cam(features, np.log([1.0, 3.0]) + 500), expected)  # as from any baseline


def test_layer_cam_of_a_hand_worked_map():
    features, gradients = np.zeros((2, 2, 2)), np.zeros((2, 2, 2))
    features[..., 0] = [[1, 2], [3, 4]]
    gradients[..., 0] = [[1, -1], [0.5, 2]]  # 1, 0, 1.5, 8: where it is negative the channel does not count
    features[..., 1] = [[-5, 1], [-1, 0]]
    gradients[..., 1] = [[1, 3], [0.5, 9]]  # -5, 3, -0.5, 0
    np.testing.assert_allclose(layer_cam(features, gradients), [[0, 3], [1, 8]])  # -4 is cut


def test_grad_cam_plus_plus_of_a_hand_worked_map():
    features, gradients = np.array([[[1.0], [3.0]]]), np.array([[[1.0], [2.0]]])
    # alphas 1 / (2 + 4) and 4 / (8 + 32), of their sum 0.625 and 0.375; weight 0.625 * 1 + 0.375 * 2
    np.testing.assert_allclose(grad_cam_plus_plus(features, gradients), [[1.375, 4.125]])
    assert not grad_cam_plus_plus(features, -gradients).any()
    assert not grad_cam_plus_plus(features, np.zeros_like(gradients)).any()


def test_grad_cam_plus_plus_of_the_faintest_gradients_is_that_of_their_positive_part():
    rng = np.random.default_rng(8)
    features, gradients = rng.random((3, 3, 4), np.float32), 1e-15 * rng.normal(size=(3, 3, 4)).astype(np.float32)
    # Beside the squares the cubes are nothing: every alpha is a half before, and 1 / 9 after they add up to 1.
    expected = features @ np.maximum(gradients, 0).mean(axis=(0, 1))
    np.testing.assert_allclose(grad_cam_plus_plus(features, gradients), expected, rtol=1e-6)


def test_fused_maps_of_hand_worked_ones():
    np.testing.assert_allclose(fuse_maps([np.full((4, 4), 4.0), np.full((2, 2), 9.0)], 8, 1.0), np.full((8, 8), 6))
    coarse, fine = np.zeros((2, 2)), np.zeros((8, 8))
    coarse[1, 0] = 1.0
    fine[6, 1] = fine[1, 6] = 1.0  # once where the coarse map is high, once where it is not
    fused = fuse_maps([coarse, fine], 8, 0.5)
    assert np.unravel_index(fused.argmax(), fused.shape) == (6, 1)
    assert fused[:2, 5:].max() < 0.05 * fused.max()


maps_of_a_square = arrays(np.float32, (4, 4), elements=st.floats(0, 100, width=32))


@settings(deadline=None)
@given(maps_of_a_square, maps_of_a_square, st.sampled_from([0.25, 4, 100]))
def test_a_fused_map_lies_between_its_maps_and_keeps_their_unit(first, second, factor):
    fused = fuse_maps([first, second], 8, 1.0)
    alone = [fuse_maps([each], 8, 1.0) for each in (first, second)]
    assert np.all(fused <= np.maximum(*alone) * (1 + 1e-5) + 1e-6)
    assert np.all(fused >= np.minimum(*alone) * (1 - 1e-5) - 1e-6)
    np.testing.assert_allclose(
        fuse_maps([factor * first, factor * second], 8, 1.0), factor * fused, rtol=1e-3, atol=1e-3 * factor
    )


def test_score_cam_without_a_channel_is_empty():
    assert not score_cam(np.zeros((4, 4, 0)), np.zeros(0)).any()


def test_smooth_grad_does_not_let_signs_cancel():
    gradients = np.zeros((2, 4, 4))
    gradients[:, 1, 2] = -3.0, 5.0
    expected = np.zeros((4, 4))
    expected[1, 2] = 4.0
    np.testing.assert_array_equal(smooth_grad(gradients), expected)


def test_channel_masks_reach_from_0_to_1():
    features = np.zeros((2, 2, 3), np.float32)
    features[..., 0] = [[-4, 0], [0, 4]]
    features[..., 1] = 7
    features[..., 2] = [[0, 1e-44], [0, 0]]
    masks = channel_masks(features, 3)
    np.testing.assert_allclose(masks[0], [[0, 0.25, 0.5], [0.25, 0.5, 0.75], [0.5, 0.75, 1]])
    assert not masks[1].any()
    assert np.isfinite(masks).all()


def by_cells(values, factor):
    """Linear interpolation by SciPy, each value in the middle of its own cell."""
    return zoom(values, factor, order=1, grid_mode=True, mode="nearest")


def test_upsample_is_linear_interpolation_between_the_middles_of_cells():
    maps = np.random.default_rng(0).random((3, 5, 7), dtype=np.float32)
    expected = np.stack([by_cells(each, (40 / 5, 40 / 7)) for each in maps])
    np.testing.assert_allclose(upsample(maps, 40), expected, atol=1e-6)


positive = st.floats(0, 1e6, width=32)


@settings(deadline=None)
@given(arrays(np.float32, (4, 4), elements=positive), st.sampled_from([1e-3, 0.5, 2, 1024]))
def test_scaling_a_map_scales_its_peak_and_leaves_its_heat(raw, factor):
    heat, peak = scaled(raw)
    assert peak == raw.max()
    assert heat.max() == (1 if peak > 0 else 0)
    assert heat.min() >= 0
    larger_heat, larger_peak = scaled(raw.astype(np.float64) * factor)
    assert larger_peak == pytest.approx(peak * factor)
    np.testing.assert_allclose(larger_heat, heat, atol=1e-6)


@settings(deadline=None)
@given(
    arrays(np.float64, (3, 3, 4), elements=st.floats(0, 100)),
    arrays(np.float64, (3, 3, 4), elements=st.floats(-100, 100)),
)
def test_a_place_is_evidence_for_or_against_but_never_both(features, gradients):
    speaks_for, speaks_against = grad_cam(features, gradients), grad_cam(features, -gradients)
    assert not np.any((speaks_for > 0) & (speaks_against > 0))
    np.testing.assert_allclose(speaks_for - speaks_against, features @ gradients.mean((0, 1)), atol=1e-9)


@settings(deadline=None)
@given(arrays(np.float64, (3, 3, 4), elements=st.floats(0, 100)), arrays(np.float64, 4, elements=st.floats(-50, 50)))
def test_score_cam_lies_between_the_channels(features, scores):
    blend = score_cam(features, scores)
    assert np.all(blend <= features.max(axis=-1) + 1e-9)
    assert np.all(blend >= features.min(axis=-1) - 1e-9)


def test_a_map_of_nothing_stays_nothing():
    heat, peak = scaled(np.zeros((4, 4), np.float32))
    assert peak == 0
    assert not heat.any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_map_that_overflowed_is_refused(bad):
    with pytest.raises(ExplanationError, match="overflowed"):
        scaled(np.array([[0.0, bad]]))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("method", ["gradcam", "layercam", "gradcampp", "scorecam", "quickscorecam"])
def test_a_network_that_overflowed_is_not_said_to_see_nothing(small, film, monkeypatch, method, bad):
    """Only the deepest layer is beyond numbers, and there only one channel."""
    fine = np.random.default_rng(0).random((8, 8, 12)).astype(np.float32)
    deep = fine.copy()
    deep[..., 3] = bad
    answers = {"early": (fine, fine), "features": (deep, fine)}
    monkeypatch.setattr(passes_of(small), "features", lambda square, layers: [answers[name] for name in layers])
    layers = {"layers": ("early",)} if method == "layercam" else {}
    with pytest.raises(ExplanationError, match="overflowed"):
        explain(small, film, method=method, **layers)


# --- against tf-keras-vis -------------------------------------------------------------------------------------------


def correlation(first, second):
    return np.corrcoef(np.ravel(first), np.ravel(second))[0, 1]


@pytest.fixture(scope="module", params=["resnet50", "efficientnetb0", "densenet169"])
def classic(request):
    """A classic backbone whose features neither vanish nor explode, and a film."""
    import keras

    from core.backbones import BACKBONES, build_classifier

    keras.utils.set_random_seed(11)
    model = build_classifier(request.param, input_size=64)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.0
    rng = np.random.default_rng(2)
    films = zoom(rng.random((8, 8, 8, 1)), (1, 8, 8, 1), order=1) * np.linspace(0.2, 1, 8)[:, None, None, None]
    films = np.clip(films + rng.normal(0, 0.05, films.shape), 0, 1).astype(np.float32)
    model(films, training=True)  # the layers take their statistics from these films
    for norm in norms:
        variance = norm.moving_variance.numpy()
        norm.moving_variance.assign(np.maximum(variance, np.median(variance)))
    return StandIn(model, BACKBONES[request.param].feature_layer), film_of(films[5, ..., 0])


def as_the_library_draws(classifier, film, **asked):
    """Our map, from corner to corner of the square: only how it is drawn differs."""
    heat, peak, _ = explain_square(classifier, film.pixels, **asked)
    return zoom(heat, film.pixels.shape[0] / heat.shape[0], order=1), peak


def test_agrees_with_tf_keras_vis_on_every_classic_backbone(classic):
    import tensorflow as tf
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
    from tf_keras_vis.saliency import Saliency

    classifier, film = classic
    layer, view = classifier.checkpoint.feature_layer, passes_of(classifier).logit_model()
    square = film.pixels[..., None]

    options = {"penultimate_layer": layer, "seek_penultimate_conv_layer": False, "normalize_cam": False}
    compared = 0
    # What the sign does, and to go on down to the film, is the same for every backbone; each takes a graph to build.
    thorough = classifier.model.name == "resnet50"
    targets = (("for", 1), ("against", -1)) if thorough else (("for", 1),)
    for target, sign in targets:
        theirs = Gradcam(view)(lambda logit, sign=sign: sign * logit, square, **options)[0]
        ours, peak = as_the_library_draws(classifier, film, target=target)
        assert peak == pytest.approx(theirs.max(), rel=1e-3)
        if theirs.std() > 0.05 * theirs.max() > 0:  # a map worth comparing
            assert correlation(ours, theirs) >= 0.999, target
            compared += 1
    assert compared
    stages = [classifier.model.get_layer(name).output.shape[1] for name in BACKBONES[classifier.model.name].stages]
    assert stages[:3] == [64 // stride for stride in (4, 8, 16)], "what LayerCAM is fused of"
    if not thorough:
        return

    theirs = GradcamPlusPlus(view)(lambda logit: logit - tf.stop_gradient(logit), square, **options)[0]
    ours, peak = as_the_library_draws(classifier, film, method="gradcampp")
    np.testing.assert_allclose(ours * peak, theirs, rtol=1e-3)

    samples, noise = 2, 0.15
    deviates = np.random.default_rng(7).standard_normal((samples, *film.pixels.shape))

    def same_noise(mean, deviation, shape):
        return mean + np.asarray(deviation) * deviates.reshape(shape)

    with mock.patch("numpy.random.normal", same_noise):
        theirs = Saliency(view)(
            lambda logit: logit, square, smooth_samples=samples, smooth_noise=noise, normalize_map=False
        )[0]
    ours = explain(classifier, film, method="smoothgrad", samples=samples, noise=noise, seed=7)
    assert correlation(ours.heatmap, theirs) >= 0.999
    assert ours.peak == pytest.approx(theirs.max(), rel=1e-2)


def test_grad_cam_plus_plus_is_the_library_s_own(small, film):
    from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus

    options = {"penultimate_layer": "features", "seek_penultimate_conv_layer": False, "normalize_cam": False}
    theirs = GradcamPlusPlus(passes_of(small).logit_model())(lambda logit: logit, film.pixels[..., None], **options)[0]
    ours, _ = as_the_library_draws(small, film, method="gradcam++")
    assert theirs.std() > 0.05 * theirs.max()
    assert correlation(ours, theirs) >= 0.999


@pytest.mark.parametrize("bias", [-200, 200])
def test_being_sure_neither_blinds_nor_blinds_out(film, bias):
    """At such logits the probability's gradient is 0 and exp(logit), which Grad-CAM++ differentiates, overflows."""
    for method in ("gradcam", "gradcampp", "smoothgrad", "scorecam"):
        calm, sure = (
            explain(small_classifier(), film, method=method),
            explain(small_classifier(bias=bias), film, method=method),
        )
        np.testing.assert_allclose(sure.heatmap, calm.heatmap, atol=2e-3, err_msg=method)
        assert sure.peak == pytest.approx(calm.peak, rel=1e-3)


def test_layer_cam_is_what_a_gradient_tape_gives(small, film):
    import keras
    import tensorflow as tf

    model, square = small.model, film.pixels[None, ..., None]
    maps = []
    for name in ("early", "features"):
        view = keras.Model(model.input, [model.get_layer(name).output, model.output["logit"]])
        with tf.GradientTape() as tape:
            features, logit = view(square)
            tape.watch(features)
            score = _from_layer(model, name, features)
        assert float(score) == pytest.approx(logit.numpy().item(), abs=1e-5)
        gradient = tape.gradient(score, features)
        weighed = tf.nn.relu(tf.reduce_sum(tf.nn.relu(gradient) * features, axis=-1))[0].numpy()
        maps.append(cv2.GaussianBlur(cv2.resize(weighed, (32, 32)), (0, 0), 32 * 3 / 224))
    expected = np.sqrt(maps[0] * maps[1])
    ours = explain(small, film, method="layercam", layers=("early", "features"))
    np.testing.assert_allclose(ours.heatmap, expected / expected.max(), atol=1e-4)
    assert ours.settings["layers"] == ("early", "features")


@pytest.mark.parametrize("target", ["for", "against"])
def test_layer_cam_tells_as_grad_cam_does_how_much_speaks_for_the_target(small, film, target):
    coarse = explain(small, film, method="gradcam", target=target)
    fine = explain(small, film, method="layercam", layers=("early", "features"), target=target)
    assert fine.peak == pytest.approx(coarse.peak)
    assert fine.heatmap.any() == coarse.heatmap.any()


def test_where_nothing_speaks_for_the_target_layer_cam_shows_no_place(small, film, monkeypatch):
    """On the whole everything speaks against a break; one place of each layer speaks for it all the same."""
    rising = np.zeros((8, 8, 1), np.float32)
    rising[3, 4] = 1.0
    steep = (np.ones((8, 8, 1), np.float32), np.where(rising > 0, 1.0, -0.5).astype(np.float32))
    monkeypatch.setattr(passes_of(small), "features", lambda square, layers: [steep] * len(layers))
    heat, peak, _ = explain_square(small, film.pixels, method="layercam", layers=("early", "features"))
    assert heat.any()
    assert peak == explain(small, film, method="gradcam").peak == 0
    assert not explain(small, film, method="layercam", layers=("early", "features")).heatmap.any()


def _from_layer(model, name, features):
    """Return the logit that the layers after the one called `name` make of its features."""
    names = [layer.name for layer in model.layers]
    answer = features
    for layer in model.layers[names.index(name) + 1 : names.index("logit") + 1]:
        answer = layer(answer)
    return answer[0, 0]


# --- Score-CAM ------------------------------------------------------------------------------------------------------


def plain_score_cam(classifier, square, sign=1):
    """Score-CAM as the paper's algorithm 1 tells it, one channel at a time, the baseline's score taken away."""
    import keras

    model = classifier.model
    features = keras.Model(model.input, model.get_layer("features").output)(square[None, ..., None]).numpy()[0]
    baseline = float(model(np.zeros((1, *square.shape, 1)))["logit"][0, 0])
    increases, kept = [], []
    for channel in np.moveaxis(features, -1, 0):
        if channel.max() == channel.min():
            continue
        mask = by_cells(channel, square.shape[0] / channel.shape[0])
        mask = (mask - mask.min()) / (mask.max() - mask.min())
        increases.append(sign * (float(model((square * mask)[None, ..., None])["logit"][0, 0]) - baseline))
        kept.append(channel)
    weights = np.exp(increases) / np.sum(np.exp(increases))
    return np.maximum(sum(weight * channel for weight, channel in zip(weights, kept, strict=True)), 0)


@pytest.mark.parametrize("target", ["for", "against"])
def test_score_cam_equals_a_plain_loop(film, target):
    classifier = small_classifier(seed=4)
    kernel, bias = classifier.model.get_layer("logit").get_weights()
    classifier.model.get_layer("logit").set_weights([30 * kernel, bias])  # scores apart, so that the weights differ
    kernel, bias = classifier.model.get_layer("features").get_weights()
    classifier.model.get_layer("features").set_weights([kernel, bias - 100 * (np.arange(12) == 3)])  # one dead channel
    expected = plain_score_cam(classifier, film.pixels, 1 if target == "for" else -1)
    ours = explain(classifier, film, method="scorecam", target=target)
    assert ours.peak == pytest.approx(expected.max(), abs=1e-4)
    heat = by_cells(expected, 4)
    np.testing.assert_allclose(ours.heatmap, heat / expected.max(), atol=1e-4)


def test_channels_with_one_mask_are_one_group():
    rng = np.random.default_rng(0)
    shapes = rng.random((5, 5, 3)).astype(np.float32)
    kinds = np.array([0, 1, 2, 1, 0, 0, 2, 1])
    features = shapes[..., kinds] * rng.uniform(0.1, 9, 8) + rng.uniform(-3, 3, 8)  # a mask knows no scale and no level
    groups, members = group_channels(features.astype(np.float32), 3)
    assert len({(kind, group) for kind, group in zip(kinds, groups, strict=True)}) == 3
    assert [groups[member] for member in members] == [0, 1, 2]
    groups, members = group_channels(features.astype(np.float32), 6)  # more groups than there are masks
    assert len(members) >= 3
    assert set(groups) == set(range(len(members)))
    assert [each.size for each in group_channels(np.zeros((5, 5, 0)), 4)] == [0, 0]
    assert [each.tolist() for each in group_channels(rng.random((5, 5, 1), np.float32), 4)] == [[0], [0]]


def test_where_the_grouping_starts_is_drawn_by_chance_and_can_be_drawn_again():
    features = np.random.default_rng(3).random((7, 7, 60), np.float32)  # no groups to be found: any are as good

    def together(seed):
        groups, _ = group_channels(features, 5, seed)
        return groups[:, None] == groups  # whatever the groups' numbers

    np.testing.assert_array_equal(together(0), together(0))
    assert all((together(0) != together(seed)).any() for seed in (1, 2**32 - 1))


def test_quick_score_cam_is_score_cam_where_every_channel_is_a_group(small, film):
    full = explain(small, film, method="scorecam")
    told = []
    quick = explain(small, film, method="quick score-cam", groups=12, progress=lambda *step: told.append(step))
    assert quick.peak == pytest.approx(full.peak, rel=1e-5)
    np.testing.assert_allclose(quick.heatmap, full.heatmap, atol=1e-5)
    assert told[-1][0] == told[-1][1]
    coarse = explain(small, film, method="quickscorecam", groups=4, progress=lambda *step: told.append(step))
    assert told[-1] == (4, 4)
    assert correlation(coarse.heatmap, full.heatmap) > 0.8
    assert explain(small, film, method="quickscorecam").settings["groups"] == 16
    again = {seed: explain(small, film, method="quickscorecam", groups=6, seed=seed) for seed in range(4)}
    assert again[1].settings["seed"] == 1
    assert len({each.heatmap.tobytes() for each in again.values()}) > 1
    every = explain(small, film, method="quickscorecam", groups=12, seed=1)
    np.testing.assert_allclose(every.heatmap, full.heatmap, atol=1e-5)  # where every channel is a group, chance is out


def test_score_cam_listens_to_the_head_where_the_library_s_does_not(film):
    import keras
    from tf_keras_vis.scorecam import Scorecam

    classifier = small_classifier()
    probability = keras.Model(classifier.model.input, classifier.model.output["probability"])

    def both():
        theirs = Scorecam(probability)(
            lambda p: p[:, 0], film.pixels[..., None], penultimate_layer="features", seek_penultimate_conv_layer=False
        )
        return explain(classifier, film, method="scorecam").heatmap, theirs

    ours_before, theirs_before = both()
    rng = np.random.default_rng(1)
    for layer in ("hidden", "logit"):
        weights = [rng.normal(0, 3, each.shape) for each in classifier.model.get_layer(layer).get_weights()]
        classifier.model.get_layer(layer).set_weights(weights)
    ours_after, theirs_after = both()
    assert theirs_before.std() > 0
    np.testing.assert_array_equal(theirs_after, theirs_before)  # softmax over one unit is 1, whatever the head says
    assert np.abs(ours_after - ours_before).max() > 0.05


def test_progress_is_told_to_the_end(small, film, monkeypatch):
    monkeypatch.setattr("core.explain.BACKWARD_PIXELS", 2 * 32**2)
    for method, options, total in (("scorecam", {}, None), ("smoothgrad", {"samples": 6}, 6)):
        told = []
        explain(small, film, method=method, progress=lambda done, all_, told=told: told.append((done, all_)), **options)
        counts = [done for done, _ in told]
        assert counts == sorted(set(counts))
        assert told[-1][0] == told[-1][1] == (total or told[-1][1])
        assert len(told) > 1


# --- what all methods share -----------------------------------------------------------------------------------------


def test_the_model_is_untouched(film):
    classifier = small_classifier(location_head=True)
    model = classifier.model
    model.get_layer("features").trainable = False

    def state():
        answers = {name: answer.numpy().tobytes() for name, answer in model(film.pixels[None, ..., None]).items()}
        flags = [(layer.name, layer.trainable, getattr(layer, "activation", None)) for layer in model.layers]
        nodes = [(len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in model.layers]
        return answers, flags, [weight.tobytes() for weight in model.get_weights()], nodes

    before = state()
    for method in METHODS:
        assert explain(classifier, film, method=method).peak > 0
    assert state() == before


def test_a_network_whose_weights_are_not_trained_is_explained_too(film):
    classifier, frozen = small_classifier(), small_classifier()
    frozen.model.trainable = False
    for method in ("gradcam", "layercam", "smoothgrad"):
        expected = explain(classifier, film, method=method)
        assert expected.peak > 0
        np.testing.assert_array_equal(explain(frozen, film, method=method).heatmap, expected.heatmap)


@pytest.mark.parametrize("method", ["gradcam", "layercam", "gradcampp", "scorecam", "smoothgrad"])
def test_against_is_for_with_the_head_negated(film, method):
    classifier, negated = small_classifier(), small_classifier()
    head = negated.model.get_layer("logit")
    head.set_weights([-weight for weight in head.get_weights()])
    against = explain(classifier, film, method=method, target="against")
    mirrored = explain(negated, film, method=method, target="for")
    assert against.peak == pytest.approx(mirrored.peak, rel=1e-6)
    np.testing.assert_allclose(against.heatmap, mirrored.heatmap, atol=1e-6)
    speaks_for = explain(classifier, film, method=method, target="for")
    assert np.array_equal(speaks_for.heatmap, against.heatmap) is not METHODS[method].directed


def test_no_evidence_is_an_empty_map_with_peak_0():
    classifier = brightness_classifier()
    film = film_of(np.full((64, 64), 0.5))
    for method in ("gradcam", "layercam", "gradcampp"):
        explanation = explain(classifier, film, method=method, target="against")  # brightness speaks only for
        assert explanation.peak == 0
        assert not explanation.heatmap.any()
    black = film_of(np.zeros((64, 64)))
    for method in available_methods(classifier.checkpoint):
        explanation = explain(classifier, black, method=method)
        assert np.isfinite(explanation.heatmap).all()
        assert explanation.peak > 0 or not explanation.heatmap.any()


@pytest.mark.parametrize("method", ["gradcam", "layercam", "gradcampp", "scorecam", "location"])
@pytest.mark.parametrize("angle", [0, 90, -30])
def test_heat_lies_where_the_evidence_is_on_the_film(method, angle):
    pixels = np.zeros((300, 420))
    pixels[196:208, 316:328] = 1  # centre (322, 202), right of and below the region's centre
    pixels[20:60, 20:60] = 1  # brighter, but outside the region
    region = WristRegion(x=300, y=180, side=120, angle=angle)
    explanation = explain(brightness_classifier(), film_of(pixels), method=method, region=region)
    heat = explanation.heatmap
    assert heat.shape == (300, 420)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert abs(row - 202) <= 10
    assert abs(column - 322) <= 10
    y, x = np.mgrid[:300, :420] + 0.5
    turn = np.deg2rad(angle)
    across = (x - 300) * np.cos(turn) + (y - 180) * np.sin(turn)
    down = -(x - 300) * np.sin(turn) + (y - 180) * np.cos(turn)
    outside = np.maximum(abs(across), abs(down)) > 62
    assert not heat[outside].any()
    assert heat.max() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("method", ["gradcam", "scorecam", "location"])
@pytest.mark.parametrize(("height", "width"), [(200, 420), (420, 200)])
def test_heat_lies_where_the_evidence_is_on_a_stretched_film(method, height, width):
    pixels = np.zeros((height, width))
    y, x = round(0.7 * height), round(0.3 * width)
    pixels[y - 8 : y + 8, x - 8 : x + 8] = 1
    classifier = brightness_classifier()
    classifier.checkpoint = replace(classifier.checkpoint, fit="stretch")
    heat = explain(classifier, film_of(pixels), method=method).heatmap
    assert heat.shape == (height, width)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert abs(row - y) <= 0.04 * height
    assert abs(column - x) <= 0.04 * width
    # One cell of the network is wider on the film along its longer side.
    rows, columns = (np.flatnonzero((heat > 0.5).any(axis=axis)) for axis in (1, 0))
    assert (np.ptp(columns) > np.ptp(rows)) == (width > height)


def test_a_small_stretched_film_takes_the_mean_along_its_shorter_side_alone():
    """16 x 128 pixels read at 64 x 64: of four cells above each other one film pixel, of one cell two beside."""
    heat = np.random.default_rng(7).random((64, 64)).astype(np.float32)
    found = lay_on_film(heat, fit_square(16, 128, 64, None, "stretch"))
    means = heat.reshape(16, 4, 64).mean(axis=1)
    left, right = 0.75 * means + 0.25 * np.roll(means, 1, 1), 0.75 * means + 0.25 * np.roll(means, -1, 1)
    np.testing.assert_allclose(found[:, 2:-2:2], left[:, 1:-1], atol=1e-5)
    np.testing.assert_allclose(found[:, 3:-1:2], right[:, 1:-1], atol=1e-5)


@pytest.mark.parametrize("angle", [0, 90])
def test_no_heat_is_skipped_where_the_square_is_finer_than_the_film(angle):
    """A film of 16 pixels that a network reads at 64: each of its pixels has the mean of the 16 that lie on it."""
    fit = fit_square(30, 40, 64, WristRegion(x=18, y=12, side=16, angle=angle))
    heat = np.random.default_rng(6).random((64, 64)).astype(np.float32)
    film_heat = lay_on_film(heat, fit)
    expected = np.zeros((30, 40), np.float32)
    # Turned by 90 degrees the square's top lies to the right on the film.
    expected[4:20, 10:26] = np.rot90(heat.reshape(16, 4, 16, 4).mean(axis=(1, 3)), -angle // 90)
    np.testing.assert_allclose(film_heat, expected, atol=1e-5)
    for row, column in ((5, 7), (40, 22), (63, 0)):
        spot = np.zeros((64, 64), np.float32)
        spot[row, column] = 1.0
        assert lay_on_film(spot, fit).sum() == pytest.approx(1 / 16, abs=1e-5)
    coarse = np.random.default_rng(7).random((8, 8)).astype(np.float32)
    there = by_cells(coarse, 8).reshape(16, 4, 16, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(lay_on_film(coarse, fit)[4:20, 10:26], np.rot90(there, -angle // 90), atol=1e-5)


def test_a_coarse_map_lies_on_a_large_film_without_steps():
    """From the middle of the left cell to that of the right one the heat rises evenly, as far as pixels can tell."""
    fit = fit_square(1000, 1000, 100, None)
    row = lay_on_film(np.array([[0.0, 1.0], [0.0, 1.0]], np.float32), fit)[500]
    inner = row[260:740]
    np.testing.assert_allclose(inner, (np.arange(260, 740) + 0.5 - 250) / 500, atol=0.002)
    assert np.diff(inner).max() < 0.0025  # 480 pixels rise by 0.96
    assert not row[:240].any()


def test_a_film_smaller_than_the_square_is_explained_as_a_larger_one():
    large = np.zeros((128, 128))
    large[64:80, 32:48] = 0.9
    classifier = brightness_classifier()
    for method in ("gradcam", "layercam", "scorecam", "quickscorecam", "smoothgrad", "location"):
        maps = [
            explain(classifier, film_of(pixels), method=method).heatmap
            for pixels in (large, large.reshape(16, 8, 16, 8).mean(axis=(1, 3)))
        ]
        coarse = maps[0].reshape(16, 8, 16, 8).mean(axis=(1, 3))
        np.testing.assert_allclose(maps[1], coarse, atol=0.2, err_msg=method)
        if method != "smoothgrad":  # the slope of a mean is the same for every pixel
            assert np.unravel_index(maps[1].argmax(), (16, 16))[0] in (8, 9), method


def test_smooth_grad_on_a_whole_film_covers_it_and_nothing_else():
    explanation = explain(
        brightness_classifier(), film_of(np.random.default_rng(0).random((90, 45))), method="smoothgrad"
    )
    # The gradient of a mean is the same for every pixel.
    np.testing.assert_allclose(explanation.heatmap, np.ones((90, 45)), atol=1e-5)
    assert explanation.peak == pytest.approx(1 / 64**2, rel=1e-5)


def test_location_is_the_head_s_own_probability(film):
    classifier = small_classifier(location_head=True)
    kernel, bias = classifier.model.get_layer("location").get_weights()
    classifier.model.get_layer("location").set_weights([100 * kernel, bias])
    logits = classifier.run(film.pixels[None, ..., None])["location"][0, ..., 0]
    # Each value in the middle of its cell, and between them a cubic spline.
    grown = zoom(logits.astype(float), 32 / len(logits), order=3, mode="nearest", grid_mode=True)
    probabilities = 1 / (1 + np.exp(-grown))
    explanation = explain(classifier, film, method="Location head")
    assert explanation.peak == pytest.approx(probabilities.max(), rel=0.05)
    assert np.ptp(probabilities) > 0.3
    np.testing.assert_allclose(explanation.heatmap, probabilities / probabilities.max(), atol=0.06)


def test_a_location_between_two_cells_is_shown_between_them():
    """As appraisals measure where the head's peak lies."""
    y, x = np.mgrid[:14, :14]
    for row, column in ((5.5, 8.0), (5.3, 8.4), (3.0, 11.7)):
        logits = 6 - 2 * ((y - row) ** 2 + (x - column) ** 2)
        grown = grow_location(logits, 224)
        found = np.unravel_index(grown.argmax(), grown.shape)
        np.testing.assert_allclose(found, [16 * row + 7.5, 16 * column + 7.5], atol=3)
        assert tuple(found) == peak_of(logits, 224)
    assert grow_location(np.zeros((10, 10)), 150).shape == (150, 150)
    # Of ten cells of 16 pixels a square of 150 holds the last to its sixth.
    for size in (97, 150, 180, 225, 320):
        cells = -(-size // 16)
        for place in range(1, cells - 1):
            logits = np.zeros((cells, cells))
            logits[place, place] = 1
            np.testing.assert_allclose(peak_of(logits, size), 16 * place + 7.5, atol=0.51, err_msg=f"{size}, {place}")


def test_noise_is_seeded_whatever_the_batches(small, film):
    maps = {seed: explain(small, film, method="smoothgrad", seed=seed, samples=5).heatmap for seed in (0, 1)}
    np.testing.assert_array_equal(maps[0], explain(small, film, method="smoothgrad", seed=0, samples=5).heatmap)
    assert np.abs(maps[0] - maps[1]).max() > 1e-3
    assert (backward_batch(224), backward_batch(320), backward_batch(2048)) == (2, 1, 1)
    with mock.patch("core.explain.BACKWARD_PIXELS", 2 * 32**2):
        np.testing.assert_allclose(maps[0], explain(small, film, method="smoothgrad", samples=5).heatmap, atol=1e-5)


def test_settings_say_how_to_make_the_map_again(small, film):
    region = WristRegion(16, 16, 20, angle=10)
    first = explain(small, film, method="smoothgrad", samples=3, region=region)
    assert first.settings == {
        "samples": 3,
        "noise": 0.2,
        "seed": 0,
        "input_size": 32,
        "region": {"x": 16, "y": 16, "side": 20, "angle": 10, "confidence": 1.0, "set_by_reader": False},
    }
    assert explain(small, film).settings["layer"] == "features"
    assert (first.method, first.target, first.checkpoint_id) == ("smoothgrad", "for", "stand-in")


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 80), st.integers(1, 80), st.sampled_from(["gradcam", "smoothgrad"]))
def test_any_film_s_heat_has_its_shape_and_lies_between_0_and_1(small, height, width, method):
    pixels = np.random.default_rng(height * 100 + width).random((height, width))
    explanation = explain(small, film_of(pixels), method=method, **({"samples": 2} if method == "smoothgrad" else {}))
    assert explanation.heatmap.shape == (height, width)
    assert explanation.heatmap.min() >= 0
    assert explanation.heatmap.max() <= 1
    assert explanation.peak >= 0


def test_passes_are_kept_as_long_as_the_classifier(film):
    classifier = small_classifier()
    explain(classifier, film)
    assert passes_of(classifier) is passes_of(classifier)
    gone = weakref.ref(classifier)
    del classifier
    gc.collect()
    assert gone() is None


# --- what can be asked ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("gradcam", "gradcam"),
        ("Grad-CAM", "gradcam"),
        ("grad-cam", "gradcam"),
        ("Grad-CAM++", "gradcampp"),
        ("gradcam++", "gradcampp"),
        ("GradCAM Plus Plus", "gradcampp"),
        ("Score-CAM", "scorecam"),
        ("score cam", "scorecam"),
        ("Quick Score-CAM", "quickscorecam"),
        ("SmoothGrad", "smoothgrad"),
        ("location head", "location"),
        ("LayerCAM", "layercam"),
    ],
)
def test_methods_go_by_the_names_people_write(text, key):
    assert canonical_method(text) == key


@pytest.mark.parametrize("text", ["", "grad", "lime", "../../etc"])
def test_an_unknown_method_is_refused_with_the_known_ones(text):
    with pytest.raises(
        ExplanationError, match=r"layercam, gradcam, scorecam, quickscorecam, smoothgrad, gradcampp, location"
    ):
        canonical_method(text)


def test_the_location_head_is_offered_only_where_there_is_one(small):
    assert list(METHODS) == ["layercam", "gradcam", "scorecam", "quickscorecam", "smoothgrad", "gradcampp", "location"]
    assert available_methods(small.checkpoint) == (
        "layercam",
        "gradcam",
        "scorecam",
        "quickscorecam",
        "smoothgrad",
        "gradcampp",
    )
    assert available_methods(brightness_classifier().checkpoint) == tuple(METHODS)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"target": "sideways"}, "'for' or 'against'"),
        ({"method": "location"}, "this one has none"),
        ({"layer": "logit"}, "none called 'logit'"),
        ({"method": "gradcam++", "layer": "nowhere"}, "none called 'nowhere'"),
        ({"method": "layercam", "layers": ("early", "logit")}, "none called 'logit'"),
        ({"samples": 5}, "Grad-CAM has the settings layer"),
        ({"method": "quickscorecam", "groups": 0}, "number of groups a whole number from 1 to 500"),
        ({"method": "smoothgrad", "samples": 0}, "number of samples a whole number from 1 to 500"),
        ({"method": "smoothgrad", "samples": 2.5}, "'2.5'"),
        ({"method": "smoothgrad", "noise": float("nan")}, "noise a number from 0 to 1"),
        ({"method": "smoothgrad", "noise": "much"}, "'much'"),
        ({"method": "smoothgrad", "seed": -1}, "seed"),
        ({"method": "quickscorecam", "seed": 2**32}, "seed a whole number from 0 to 4294967295"),
    ],
)
def test_what_cannot_be_explained_is_refused_in_a_sentence(small, film, asked, message):
    with pytest.raises(ExplanationError, match=message):
        explain(small, film, **asked)


def test_the_location_head_has_nothing_against(film):
    with pytest.raises(ExplanationError, match="no map against"):
        explain(small_classifier(location_head=True), film, method="location", target="against")
