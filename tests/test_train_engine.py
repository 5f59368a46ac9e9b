"""What a training is made of: losses, rates, averages, frozen layers, teachers, devices; and that it can be killed."""

import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import train
from core.checkpoints import round_to_float16
from core.errors import CheckpointError, DatasetError, TrainingError
from core.train.averages import WeightAverage, decay_of_step
from core.train.batches import Feeder, FractureSampler
from core.train.changes import change_appearance, change_texture, mix_up
from core.train.devices import Team, choose_precision, choose_strategy, read_team
from core.train.losses import class_weights, feature_loss, label_loss, soft_label_loss
from core.train.presets import check_settings, frozen_layers
from core.train.runs import Progress, Report, Stopped
from core.train.schedule import learning_rate, plateau_rate, should_stop
from core.train.squares import Shelf, Squares
from core.values import TrainingSettings
from tests.test_train import ask, dataset, films_of, places, stepwise  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent


def asked(**extra):
    return TrainingSettings("efficientnetlite0", epochs=10, learning_rate=0.1, warmup_epochs=0.0, extra=extra)


def numbers(value):
    from keras import ops

    return ops.convert_to_numpy(value)


# --- losses ----------------------------------------------------------------------------------------------------------


def test_the_label_loss_against_hand_worked_numbers():
    target, logit = np.array([[1.0], [0.0]], np.float32), np.array([[math.log(3)], [math.log(3)]], np.float32)
    # Both films are said to be broken with probability 3/4.
    plain = numbers(label_loss(asked())(target, logit))
    assert plain == pytest.approx([-math.log(0.75), -math.log(0.25)], rel=1e-5)
    focal = numbers(label_loss(asked(loss="focal", focal_gamma=2.0))(target, logit))
    assert focal == pytest.approx([-(0.25**2) * math.log(0.75), -(0.75**2) * math.log(0.25)], rel=1e-4)
    weighed = numbers(label_loss(asked(), (1.0, 1.5))(target, logit))
    assert weighed == pytest.approx([-1.5 * math.log(0.75), -math.log(0.25)], rel=1e-5)
    # A film mixed half and half counts by 1.25 and is half of each.
    half = numbers(label_loss(asked(), (1.0, 1.5))(np.array([[0.5]], np.float32), logit[:1]))
    assert half == pytest.approx([-1.25 * 0.5 * (math.log(0.75) + math.log(0.25))], rel=1e-5)


def test_the_label_loss_smooths_as_keras_does():
    import keras

    rng = np.random.default_rng(0)
    target, logit = rng.integers(0, 2, (6, 1)).astype(np.float32), rng.normal(0, 2, (6, 1)).astype(np.float32)
    expected = numbers(keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1)(target, logit))
    ours = numbers(label_loss(replace(asked(), label_smoothing=0.1))(target, logit))
    assert ours.mean() == pytest.approx(float(expected), rel=1e-5)
    focal = keras.losses.BinaryFocalCrossentropy(from_logits=True, gamma=1.5)(target, logit)
    ours = numbers(label_loss(asked(loss="focal", focal_gamma=1.5))(target, logit))
    assert ours.mean() == pytest.approx(float(numbers(focal)), rel=1e-4)


def test_class_weights():
    assert class_weights(None, [0, 1, 1]) == (1.0, 1.0)
    assert class_weights({"0": 1.0, "1": 1.5}, [0]) == (1.0, 1.5)
    # Three of four are negative: 4 / (2 * 3) and 4 / (2 * 1), as scikit-learn balances.
    assert class_weights("balanced", [0, 0, 0, 1]) == pytest.approx((2 / 3, 2.0))
    assert class_weights("balanced", [1, 1]) == (1.0, 1.0)


def test_losses_of_a_teacher_against_hand_worked_numbers():
    told_features = np.zeros((2, 1, 1, 2), np.float32)
    told_features[0, 0, 0] = (2.0, -2.0)
    # The teacher's features 2, -2, 0, 0 have the variance 2; the student is off by 1 in one of the first film's two.
    student = told_features + np.array([[1.0, 0.0], [0.0, 0.0]], np.float32).reshape(2, 1, 1, 2)
    assert numbers(feature_loss(told_features, student)) == pytest.approx([0.5 / 2, 0.0], abs=1e-5)
    probability = np.array([[0.25], [0.25]], np.float32)
    logit = np.array([[math.log(0.25 / 0.75)], [0.0]], np.float32)
    # What is left is the divergence of the answer from the teacher's probability.
    expected = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert numbers(soft_label_loss(probability, logit)) == pytest.approx([0.0, expected], abs=1e-5)


# --- rates -----------------------------------------------------------------------------------------------------------


def test_the_cosine_is_that_of_keras():
    import keras

    asked_for = replace(asked(), epochs=3, warmup_epochs=0.5)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.1 * 0.02, decay_steps=25, alpha=0.01, warmup_target=0.1, warmup_steps=5
    )
    expected = [float(numbers(schedule(step))) for step in range(30)]
    assert [learning_rate(asked_for, step, 10) for step in range(30)] == pytest.approx(expected, rel=1e-5)


def test_a_constant_rate_is_constant_after_its_warm_up():
    rates = [learning_rate(replace(asked(schedule="constant"), warmup_epochs=0.5), step, 4) for step in range(8)]
    assert rates[0] < rates[1] < 0.1
    assert rates[2:] == [0.1] * 6


LOSSES = st.lists(st.sampled_from([0.5, 0.6, 0.60005, 0.7, 0.8]), min_size=1, max_size=12)


class Stub:
    """What Keras' callbacks want of a model."""

    def __init__(self, rate):
        import keras

        self.optimizer = type("Optimizer", (), {"learning_rate": keras.Variable(rate)})()
        self.stop_training = False

    def get_weights(self):
        return []

    def set_weights(self, weights):
        pass


@given(LOSSES)
@settings(max_examples=40, deadline=None)
def test_plateaus_are_those_of_keras(losses):
    import keras

    callback = keras.callbacks.ReduceLROnPlateau("valid_loss", factor=0.2, patience=2, min_lr=1e-3, mode="min")
    model = Stub(0.1)
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end(epoch, {"valid_loss": loss})
    asked_for = asked(schedule="plateau", plateau_factor=0.2, plateau_patience=2, plateau_smallest=1e-3)
    expected = float(numbers(model.optimizer.learning_rate))
    assert plateau_rate(asked_for, losses) == pytest.approx(expected, rel=1e-5)
    assert learning_rate(asked_for, 10**6, 10, losses) == pytest.approx(expected, rel=1e-5)


@given(LOSSES, st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_training_stops_early_when_keras_does(losses, patience):
    import keras

    callback = keras.callbacks.EarlyStopping("valid_loss", patience=patience, mode="min")
    model = Stub(0.1)
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end(epoch, {"valid_loss": loss})
        assert should_stop(losses[: epoch + 1], patience) == model.stop_training
        if model.stop_training:
            break
    assert not should_stop(losses, 0)


# --- averages, frozen layers -----------------------------------------------------------------------------------------


def test_the_average_of_weights_against_a_hand_loop():
    import keras

    weight = keras.Variable(np.array([1.0, -2.0], np.float32))
    count = keras.Variable(3, dtype="int32", trainable=False)
    average = WeightAverage([weight, count], 0.6)
    expected = np.array([1.0, -2.0])
    rng = np.random.default_rng(1)
    for step in range(12):
        value = rng.normal(size=2)
        weight.assign(value)
        average.update(step)
        # The decay rises from 1/10 by (1 + step) / (10 + step) to what was asked for: at step 12.5 it would be 0.6.
        share = min(0.6, (1 + step) / (10 + step))
        expected = share * expected + (1 - share) * value
    assert len(average.get()) == 1
    assert average.get()[0] == pytest.approx(expected, rel=1e-5)
    assert decay_of_step(0.6, 100) == 0.6
    with average.shown():
        assert numbers(weight) == pytest.approx(expected, rel=1e-5)
    assert numbers(weight) == pytest.approx(value, rel=1e-5)


def test_which_layers_are_trained_when():
    names = ["stem_conv", "stem_bn", "block1_conv", "block2_conv", "top_conv"]
    started = replace(asked(head_epochs=1, frozen=["stem"], unfreeze=[[3, ["stem_conv"]], [4, []]]), weights="imagenet")
    frozen = [frozen_layers(started, names, epoch) for epoch in range(4)]
    assert frozen == [set(names), {"stem_conv", "stem_bn"}, {"stem_conv"}, set()]
    last = replace(asked(trainable_last=2), weights="imagenet")
    assert frozen_layers(last, names, 0) == {"stem_conv", "stem_bn", "block1_conv"}
    assert frozen_layers(replace(last, extra={"trainable_last": 0}), names, 0) == set(names)
    # What has learned nothing, or something else, is trained from the first epoch on.
    for untrained in (None, "lite0"):
        assert frozen_layers(replace(last, weights=untrained), names, 0) == set()


def test_a_frozen_normalisation_keeps_its_statistics():
    """One step of training: statistics of what is frozen stay, also with `norm_frozen`, the others move."""
    import keras

    from core.train.networks import freeze_layers

    def network():
        film = keras.Input((4, 4, 1), name="film")
        first = keras.layers.BatchNormalization(name="stem_bn")(film)
        second = keras.layers.BatchNormalization(name="top_bn")(keras.layers.Conv2D(2, 1, name="top_conv")(first))
        return keras.Model(film, keras.layers.Dense(1, name="logit")(keras.layers.Flatten(name="pooled")(second)))

    rng = np.random.default_rng(2)
    films, labels = rng.normal(3, 2, (8, 4, 4, 1)).astype(np.float32), np.ones((8, 1), np.float32)
    both = {"stem_bn", "top_bn"}
    cases = (
        ("imagenet", {"frozen": ["stem"]}, {"top_bn"}),
        ("imagenet", {"norm_frozen": True}, set()),
        ("imagenet", {}, both),
        ("lite0", {"norm_frozen": True}, both),
    )
    for weights, extra, moving in cases:
        model = network()
        frozen = freeze_layers(model, replace(asked(**extra), weights=weights), 0)
        assert frozen == {"stem_bn", "top_bn"} - moving
        before = {name: numbers(model.get_layer(name).moving_mean) for name in ("stem_bn", "top_bn")}
        model.compile("sgd", "mse", run_eagerly=True)
        model.train_on_batch(films, labels)
        after = {name: numbers(model.get_layer(name).moving_mean) for name in before}
        moved = {name for name in before if not np.array_equal(before[name], after[name])}
        assert moved == moving
        assert all(variable.trainable for variable in model.get_layer("logit").variables)


@pytest.mark.parametrize("name", ["efficientnetlite0", "efficientnetb0"])
def test_the_early_layers_are_those_that_published_recipes_named(name):
    from core.backbones import build_classifier
    from core.train.networks import freeze_layers

    model = build_classifier(name, input_size=32, scaling="local")
    early = freeze_layers(model, replace(asked(frozen=["early"]), backbone=name, weights="imagenet"), 0)
    named = asked(frozen=["stem", "block1", "block2"])
    assert early == freeze_layers(model, replace(named, backbone=name, weights="imagenet"), 0)
    assert {"stem_conv", "stem_bn", "block1a_dwconv", "block2b_project_bn"} <= early
    assert not [layer for layer in early if layer.startswith("block3")]


@pytest.mark.parametrize(
    ("backbone", "last", "then"),
    [("resnet50", "conv2_block3_out", "conv3_block1_1_conv"), ("densenet169", "pool2_relu", "pool2_conv")],
)
def test_the_early_layers_of_other_backbones(backbone, last, then):
    names = ["conv1_conv", last, then]
    early = replace(asked(frozen=["early"]), backbone=backbone, weights="imagenet")
    assert frozen_layers(early, names, 0) == {"conv1_conv", last}


@pytest.mark.parametrize(("name", "application"), [("resnet50", "ResNet50"), ("efficientnetb0", "EfficientNetB0")])
def test_better_mura_trains_the_last_15_layers_that_keras_publishes(name, application):
    import keras

    from core.train.networks import build_network, freeze_layers
    from core.train.runs import Request

    published = getattr(keras.applications, application)(weights=None, include_top=False, input_shape=(32, 32, 3))
    last = {layer.name for layer in published.layers[-15:] if layer.weights}
    asked_for = replace(train.PRESETS["better-mura"], backbone=name, weights="imagenet")
    request = Request("a", "abnormal", "", None, "", None, None, None, asked_for)
    model = build_network(request, 32, location=False)
    for epoch in (0, asked_for.epochs - 1):
        frozen = freeze_layers(model, asked_for, epoch)
        trained = {layer.name for layer in model.layers if layer.trainable_weights}
        assert trained == last | {"hidden", "logit"}
        assert frozen == {layer.name for layer in published.layers if layer.trainable_weights} - last


def test_layers_that_keras_numbers_anew_do_not_count():
    """A network built again, as after a resumption, must be seen to train the same layers."""
    import keras

    from core.train.networks import freeze_layers

    def network():
        film = keras.Input((8, 8, 1), name="film")
        seen = keras.layers.Normalization(mean=0.0, variance=1.0)(keras.layers.AveragePooling2D(2)(film))
        return keras.Model(film, keras.layers.Conv2D(1, 1, name="features")(seen))

    first, second = network(), network()
    assert [layer.name for layer in first.layers] != [layer.name for layer in second.layers]
    for extra in ({"head_epochs": 1}, {"trainable_last": 0}):
        asked_for = replace(asked(**extra), weights="imagenet")
        assert freeze_layers(first, asked_for, 0) == freeze_layers(second, asked_for, 0) == {"features"}
        assert not first.trainable_weights


def test_a_weight_whose_name_is_unknown_is_not_left_as_it_was_drawn():
    from core.train.loop import Loop

    model = tiny_network(None, 32, False)
    loop = Loop.__new__(Loop)
    loop.settings, loop.model, loop.built_for = replace(asked(), input_size=32), model, (32, frozenset())
    weights = [numbers(variable) for variable in model.variables]
    loop.names = [variable.path for variable in model.variables]
    assert loop.publishable(weights, plain=True) is model
    loop.names[loop.names.index("norm/moving_mean")] = "norm_1/moving_mean"
    with pytest.raises(TrainingError, match="names differ"):
        loop.publishable(weights, plain=True)


# --- films -----------------------------------------------------------------------------------------------------------


def test_mixing_keeps_film_and_label_together():
    rng = np.random.default_rng(3)
    films = np.zeros((16, 2, 2, 1), np.float32)
    films += np.arange(16).reshape(-1, 1, 1, 1)
    targets = {"logit": np.arange(16, dtype=np.float32)[:, None], "location": films[..., :1] * np.ones(2, np.float32)}
    mixed, told_targets = mix_up(films, targets, 0.4, rng)
    assert mixed[:, 0, 0, 0] == pytest.approx(told_targets["logit"][:, 0], abs=1e-5)
    assert told_targets["location"][:, 1, 1, 1] == pytest.approx(told_targets["logit"][:, 0], abs=1e-5)
    assert not np.array_equal(mixed, films)
    assert mixed.sum() != films.sum()
    assert (mixed >= 0).all()
    assert (mixed <= 15).all()


def test_mixing_with_a_film_whose_fracture_lies_nobody_knows_where_teaches_nothing_of_its_place():
    films = np.zeros((8, 2, 2, 1), np.float32)
    location = np.zeros((8, 1, 1, 2), np.float32)
    location[::2] = 1  # every other film: a break in the only cell, and it counts
    _, told = mix_up(films, {"location": location}, 0.4, np.random.default_rng(1))
    mask, counts = told["location"][..., 0], told["location"][..., 1]
    assert ((counts > 0.01) & (counts < 0.99)).any()
    assert mask[counts > 1e-3] == pytest.approx(1), "a break is never taught to be half of one"


@pytest.mark.parametrize("size", [200, 250, 299, 300, 331, 500])
def test_sizes_at_which_densenet_has_other_cells_than_its_targets_are_refused(size):
    settings = replace(asked(), backbone="densenet169", input_size=size)
    with pytest.raises(TrainingError, match=f"multiple of 16, but {size} came"):
        check_settings(settings)
    check_settings(replace(settings, input_size=320))
    check_settings(replace(settings, backbone="resnet50"))


def test_appearance_changes_tones_and_keeps_their_order():
    """Without blur and grain a change of appearance is a rising curve of the tones."""
    square = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    kept = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        if rng.random() < 0.35:
            continue
        changed = change_appearance(square, np.random.default_rng(seed))
        assert changed.dtype == np.float32
        assert 0 <= changed.min() <= changed.max() <= 1
        if np.ptp(changed, axis=0).max() == 0 and (np.diff(changed[0]) >= 0).all():
            kept += 1
    assert kept >= 5


def test_a_changed_texture_keeps_shapes_and_range():
    """A bright disc stays where it is, as an outline at least, whatever the filter makes of the tones."""
    rows, columns = np.mgrid[:96, :96]
    distance = np.hypot(rows - 40, columns - 55)
    film = np.where(distance < 20, 0.7, 0.3).astype(np.float32)
    edge, flat = np.abs(distance - 20) < 2, (np.abs(distance - 20) > 6) & (distance < 38)
    sharper, unlike = 0, 0
    for seed in range(40):
        changed = change_texture(film, np.random.default_rng(seed))
        assert changed.dtype == np.float32
        assert 0 <= changed.min() <= changed.max() <= 1
        slope = np.hypot(*np.gradient(changed))
        sharper += slope[edge].mean() > 2 * slope[flat].mean()
        unlike += abs(np.corrcoef(changed.ravel(), film.ravel())[0, 1]) < 0.9
    assert sharper > 30
    assert 5 < unlike < 40
    assert np.array_equal(film, np.where(distance < 20, np.float32(0.7), np.float32(0.3)))
    blank = change_texture(np.zeros((32, 32), np.float32), np.random.default_rng(0))
    assert np.isfinite(blank).all()


def test_only_the_share_asked_for_changes_texture(dataset):  # noqa: F811
    squares = Squares(films_of(dataset)[:8], 48)
    common = {"input_size": 32, "batch_size": 8, "seed": 1, "location": False, "whole": False}
    plain, none, every = (
        FractureSampler(squares, **common, **more) for more in ({}, {"textures": 0.0}, {"textures": 1.0})
    )
    films = plain.batch(0, 0)[0]
    assert np.array_equal(films, none.batch(0, 0)[0])
    assert not np.array_equal(films, every.batch(0, 0)[0])
    np.testing.assert_array_equal(plain.batch(0, 0)[1]["logit"], every.batch(0, 0)[1]["logit"])


def test_what_cannot_be_read_is_left_out_and_listed(dataset, tmp_path, capsys):  # noqa: F811
    from core.train.squares import list_unreadable

    films = films_of(dataset)[:3]
    broken = tmp_path / "torn.png"
    broken.write_bytes(films[0].path.read_bytes()[:300])
    given_films = [films[0], replace(films[1], path=broken), films[2], replace(films[1], path=tmp_path / "gone.png")]
    squares = Squares(given_films, 48)
    assert squares.films == (films[0], films[2])
    assert np.array_equal(squares.square(1)[0], Squares([films[2]], 48).square(0)[0])
    list_unreadable("train", given_films, squares.unreadable)
    said = capsys.readouterr().err
    assert "2 of 4 films" in said
    assert "1 x A film of the dataset cannot be read: the file is gone" in said
    assert "torn.png" not in said
    assert "gone.png" not in said
    assert str(tmp_path) not in said
    with pytest.raises(DatasetError, match="none of 1"):
        Squares([given_films[1]], 48)


def test_decoded_films_are_kept_in_a_folder(dataset, tmp_path, monkeypatch):  # noqa: F811
    films = films_of(dataset)[:3]
    first = Squares(films, 48, masks=True, shelf=Shelf(tmp_path))
    monkeypatch.setattr("core.train.squares.read_film", lambda film: pytest.fail("a film was decoded again"))
    again = Squares(films, 48, masks=True, shelf=Shelf(tmp_path))
    for index in range(3):
        assert all(np.array_equal(a, b) for a, b in zip(first.square(index), again.square(index), strict=True))


def test_batches_come_in_order_and_waiting_is_told():
    class Sampler:
        batches = 7

        def batch(self, epoch, number):
            time.sleep(0.01 * (7 - number))
            return epoch, number

    feeder = Feeder(Sampler(), 2, ahead=3)
    assert list(feeder) == [(2, number) for number in range(7)]
    assert feeder.waited_s > 0.01


def test_a_batch_that_fails_ends_the_epoch():
    class Sampler:
        batches = 3

        def batch(self, epoch, number):
            raise DatasetError("torn")

    with pytest.raises(DatasetError, match="torn"):
        list(Feeder(Sampler(), 0))


# --- devices ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "capabilities", "policy"),
    [
        ("auto", [], "float32"),
        ("auto", [(8, 0), (9, 0)], "mixed_bfloat16"),
        ("auto", [(9, 0), (7, 5)], "mixed_float16"),
        ("auto", [(6, 1)], "float32"),
        ("float32", [(9, 0)], "float32"),
        ("mixed_float16", [(9, 0)], "mixed_float16"),
    ],
)
def test_precision_is_what_the_devices_can_do(precision, capabilities, policy):
    assert choose_precision(precision, capabilities) == policy


def test_half_precision_without_a_gpu_is_refused():
    with pytest.raises(TrainingError, match="needs a GPU"):
        choose_precision("mixed_float16", [])
    assert choose_precision("mixed_bfloat16", []) == "mixed_bfloat16"


def test_several_devices_do_not_train_in_float16():
    assert choose_precision("auto", [(7, 5)] * 2, 2) == "float32"
    assert choose_precision("auto", [(8, 0)] * 2, 2) == "mixed_bfloat16"
    with pytest.raises(TrainingError, match="for one device, but 2 train together"):
        choose_precision("mixed_float16", [(7, 5)] * 2, 2)


def test_teams_and_strategies():
    assert (read_team(None).workers, read_team("").leads) == (1, True)
    cluster = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
    team = read_team(json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 1}}))
    assert (team.workers, team.number, team.leads) == (3, 2, False)
    assert read_team(json.dumps({"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}})).leads
    for wrong in ("{", "{}", json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 7}})):
        with pytest.raises(TrainingError, match="TF_CONFIG"):
            read_team(wrong)
    assert choose_strategy(1, 0, 32) == choose_strategy(1, 1, 31) == "one"
    assert choose_strategy(1, 4, 32) == "mirrored"
    assert choose_strategy(2, 0, 32) == choose_strategy(2, 4, 32) == "workers"
    with pytest.raises(TrainingError, match="4 devices"):
        choose_strategy(1, 4, 30)


# --- progress --------------------------------------------------------------------------------------------------------


def test_progress_says_how_long_it_will_take(capsys, monkeypatch):
    clock = iter([100.0, 110.0, 111.0, 140.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    progress = Progress("reading", every_s=5.0)
    progress(1, 4)
    assert progress.seconds_left == 30.0
    progress(2, 4)
    progress(4, 4, ", done")
    assert capsys.readouterr().err.splitlines() == ["reading: 1/4, 30 s left", "reading: 4/4, done, 0 s left"]


def test_what_is_left_is_reckoned_from_where_the_pace_is_known(monkeypatch):
    clock = iter([0.0, 40.0, 40.0, 50.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    progress = Progress("training", every_s=1000.0)
    progress(1, 100)  # 40 s to build the network
    progress.begin(1)
    progress(11, 100)
    assert progress.seconds_left == 89.0


def test_a_report_stops_when_it_is_asked_to(tmp_path):
    run = train.RunFolder(tmp_path / "run")
    report = Report(run, None, lambda: True)
    with pytest.raises(Stopped):
        report(phase="training", done=3, now=True)
    found = json.loads((run.folder / train.PROGRESS_NAME).read_text())
    assert (found["phase"], found["done"], found["pid"]) == ("training", 3, os.getpid())


# --- whole trainings of a few steps ----------------------------------------------------------------------------------


# Less to build than the preset asks for.
PLAIN = ("--set", "scaling=keras", "--set", "ema=0")


def one_step(dataset, places, *more, films=4):  # noqa: F811
    """Train one step on four films; return the network and the state that was kept."""
    from core.train.__main__ import build_parser, make_request

    name = f"step-{len(list(places['runs'].glob('step-*')))}"
    options = build_parser().parse_args(ask(dataset, places, "--id", name, "--epochs", "1", *more))
    request = make_request(options)
    request = replace(request, settings=replace(request.settings, batch_size=4))
    data = train.collect_films(request)
    data = replace(data, train=data.train[-films:], valid=data.valid[:2])
    run = train.RunFolder(places["runs"] / name)
    run.save_request(request)
    with stepwise():
        model, history, _ = train.fit(request, data, run)
    return model, history, run.load_state()


@pytest.mark.parametrize(
    ("backbone", "preset"),
    [("resnet50", "better-mura"), ("densenet169", "mura-320")],
)
def test_a_published_recipe_takes_a_step(dataset, places, backbone, preset):  # noqa: F811
    model, history, state = one_step(dataset, places, "--backbone", backbone, "--preset", preset, "--input-size", "96")
    assert math.isfinite(history[0]["loss"])
    assert int(state.optimizer[0]) == 1
    assert "location" not in model.output
    assert model.get_layer("dropout").rate == (0.0 if preset == "mura-320" else 0.3)
    trained = {name for name, value in history[0].items() if isinstance(value, float)}
    assert {"seconds", "waiting", "learning_rate", "loss", "valid_loss", "valid_auc"} <= trained


@pytest.fixture(scope="module")
def teacher(places):  # noqa: F811
    """Publish a network as teacher-1, once for all that learn from it or start from it; return it rounded as there."""
    import keras

    from core.backbones import build_classifier
    from core.checkpoints import publish
    from core.values import Checkpoint

    keras.utils.set_random_seed(11)
    model = build_classifier("efficientnetlite0", input_size=64)
    card = Checkpoint(
        "teacher-1", "Teacher", "fracture", "efficientnetlite0", "top_activation", 64,
        calibration={"method": "temperature", "temperature": 2.0}, data={"licences": ["Free to learn from."]},
    )  # fmt: skip
    publish(places["out"], card, model)
    round_to_float16(model)
    return model


def test_a_student_learns_from_a_teacher_that_sees_the_same_films(dataset, places, teacher, monkeypatch):  # noqa: F811
    from core.train import distillation, loop, networks

    seen = {}

    def noted(teachers, films, targets):
        seen.update(films=numbers(films), told=distillation.add_answers(teachers, films, targets))
        return seen["told"]

    monkeypatch.setattr(loop, "add_answers", noted)
    model, history, state = one_step(dataset, places, "--backbone", "efficientnetb0", "--teacher", "teacher-1", *PLAIN)
    assert math.isfinite(history[0]["loss"])
    assert "location" in model.output
    logit = numbers(teacher(seen["films"], training=False)["logit"])
    assert numbers(seen["told"][networks.TEACHER_LABEL]) == pytest.approx(1 / (1 + np.exp(-logit / 2)), abs=1e-4)
    shapes = {4: (16, 24), 8: (8, 40), 16: (4, 672), 32: (2, 1280)}
    for stride, (cells, channels) in shapes.items():
        assert numbers(seen["told"][f"student0_stride{stride}"]).shape == (4, cells, cells, channels)
    # The convolutions that compare the two are trained, kept with the run, and not part of what is published.
    assert len(state.weights) == len(model.variables) + 2 * 4
    assert not [layer.name for layer in model.layers if layer.name.startswith("student")]


def test_a_head_begins_as_the_teachers_own(places, teacher):  # noqa: F811
    from core.train.distillation import begin_head, load_teachers
    from core.train.networks import build_network, join_losses
    from core.train.runs import Request

    twin = teacher
    asked_for = replace(asked(), weights=None)
    request = Request("a", "fracture", "", None, str(places["out"]), None, None, None, asked_for)
    model = build_network(request, 64, location=False)
    (teacher,) = load_teachers(["teacher-1"], places["out"], 64)
    trained = join_losses(model, request, (1.0, 1.0), [teacher])
    average = WeightAverage(trained.variables, 0.9)
    for layer in model.layers:
        if layer.name not in ("hidden", "logit"):
            layer.set_weights(twin.get_layer(layer.name).get_weights())
    # A comparison that halves every second feature and shifts all.
    own = np.repeat([[1.0, 0.5]], 640, axis=0).ravel()
    trained.get_layer("student0_stride32").set_weights([np.diag(own)[None, None], np.full(1280, 0.25)])
    for memory in trained.optimizer.variables[2:]:
        memory.assign(np.ones(memory.shape))
    begin_head(trained, teacher)
    average.restart(trained.get_layer("hidden").variables)

    films = np.random.default_rng(0).random((3, 64, 64, 1), np.float32)
    pooled = teacher.answer(films)[3].mean((1, 2)) * own + 0.25
    (kernel, bias), (last, last_bias) = (twin.get_layer(name).get_weights() for name in ("hidden", "logit"))
    expected = (np.maximum(pooled @ kernel + bias, 0) @ last + last_bias) / teacher.temperature
    assert teacher.temperature == 2.0
    np.testing.assert_allclose(numbers(model(films)["logit"]), expected, atol=2e-4)
    forgotten = {memory.path: not numbers(memory).any() for memory in trained.optimizer.variables[2:]}
    assert {path for path, gone in forgotten.items() if gone} == {
        path for path in forgotten if "/hidden_" in path or "/logit_" in path
    }
    assert sum(forgotten.values()) == 8
    kept = dict(zip((variable.path for variable in average.sources), average.get(), strict=True))
    np.testing.assert_array_equal(kept["hidden/kernel"], model.get_layer("hidden").get_weights()[0])
    assert not np.array_equal(kept["logit/kernel"], model.get_layer("logit").get_weights()[0])


def test_training_starts_from_a_checkpoint(places, teacher):  # noqa: F811
    from core.train.networks import _start_from, build_network
    from core.train.runs import Request

    asked_for = replace(asked(), weights="0" * 64)
    request = Request("a", "fracture", "", None, str(places["out"]), None, None, None, asked_for, start="teacher-1")
    model = build_network(request, 96, location=True, start=True)
    for name in ("stem_conv", "block5a_expand_conv", "top_bn", "hidden", "logit"):
        pairs = zip(model.get_layer(name).get_weights(), teacher.get_layer(name).get_weights(), strict=True)
        assert all(np.array_equal(one, other) for one, other in pairs), name
    with pytest.raises(TrainingError, match="same backbone"):
        _start_from(tiny_network(None, 64, False), teacher, False)


def test_what_training_starts_from_is_found_before_films_are_read(dataset, places, monkeypatch):  # noqa: F811
    def refuse(request, size, location, start):
        assert start
        raise CheckpointError("no weights")

    monkeypatch.setattr("core.train.loop.build_network", refuse)
    monkeypatch.setattr("core.train.loop.prepare_inputs", lambda *_: pytest.fail("films were read"))
    with pytest.raises(CheckpointError, match="no weights"):
        one_step(dataset, places, "--backbone", "efficientnetlite0")


def told(history):
    """Return a history without what depends on how busy the machine is."""
    return [{name: value for name, value in row.items() if name not in ("seconds", "waiting")} for row in history]


def tiny_network(request, size, location, start=False):
    """A stand-in with a network's outputs, float32 as there, and hardly any weights."""
    import keras

    film = keras.Input((size, size, 1), dtype="float32", name="film")
    features = keras.layers.Conv2D(2, 16, 16, name="features")(film)
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(keras.layers.BatchNormalization(name="norm")(features))
    dropped = keras.layers.Dropout(0.3, seed=3, name="dropout")(pooled)
    logit = keras.layers.Dense(1, dtype="float32", name="logit")(dropped)
    probability = keras.layers.Activation("sigmoid", dtype="float32", name="probability")(logit)
    outputs = {"logit": logit, "probability": probability}
    if location:
        outputs["location"] = keras.layers.Conv2D(1, 1, dtype="float32", name="location")(features)
    return keras.Model(film, outputs)


# Everything that a state must hold: an average, mixing, changes of size and of what is trained, and the best epoch.
VARIED = {"ema": 0.9, "mixup": 0.4, "small_size": 32, "small_epochs": 1, "early_stopping": 5, "frozen": ["norm"]}
VARIED |= {"unfreeze": [[3, []]], "augmentation": "scaphoid", "schedule": "plateau", "plateau_patience": 1}


def run_varied(dataset, places, name, dies_after=(), extra=VARIED, epochs=4, judging=False):  # noqa: F811
    """Train with a small network, cut off after these epochs; return the run's last state and the network.

    With `judging` it is cut off while the epoch that it has trained is judged.
    """
    from core.train.runs import Request

    varied = replace(asked(**extra), weights="imagenet", epochs=epochs)
    varied = replace(varied, input_size=64, batch_size=4, location_weight=1.0)
    request = Request(name, "fracture", str(dataset), None, str(places["out"]), None, None, None, varied)
    data, run = train.collect_films(request), train.RunFolder(places["runs"] / name)
    run.save_request(request)
    saved = train.RunFolder.save_state

    def save_and_die(self, state):
        saved(self, state)
        if state.epochs in dies_after and (state.unjudged is not None) == judging:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("core.train.loop.build_network", tiny_network)
        patch.setattr(train.RunFolder, "save_state", save_and_die)
        with stepwise():
            for _ in dies_after:
                with pytest.raises(KeyboardInterrupt):
                    train.fit(request, data, run)
                dies_after = dies_after[1:]
            model, _, _ = train.fit(request, data, run)
    return run.load_state(), model


def test_a_run_that_is_cut_off_ends_as_one_that_is_not(dataset, places):  # noqa: F811
    whole, model = run_varied(dataset, places, "whole-1")
    cut, again = run_varied(dataset, places, "cut-1", (1, 3))
    assert [row["size"] for row in whole.history] == [32, 64, 64, 64]
    assert told(cut.history) == told(whole.history)
    for part in ("weights", "optimizer", "average", "best"):
        pairs = zip(getattr(cut, part), getattr(whole, part), strict=True)
        assert all(np.array_equal(one, other) for one, other in pairs), part
    assert all(np.array_equal(a, b) for a, b in zip(again.get_weights(), model.get_weights(), strict=True))
    # What is published are the best epoch's averages.
    assert {value.tobytes() for value in model.get_weights()} <= {value.tobytes() for value in whole.best}
    assert any(value.tobytes() not in {each.tobytes() for each in whole.weights} for value in whole.best)
    # A layer that was frozen and then trained: another optimizer, whose count began anew.
    assert int(whole.optimizer[0]) == 4


def test_a_run_that_is_cut_off_while_it_is_judged_trains_no_epoch_again(dataset, places, monkeypatch):  # noqa: F811
    """Cut off at each change: of the films' size, of what is trained, and where the rate falls."""
    from core.train.loop import Loop

    whole, model = run_varied(dataset, places, "judged-whole")
    trained, run_epoch = [], Loop._run_epoch
    monkeypatch.setattr(Loop, "_run_epoch", lambda self, epoch: trained.append(epoch) or run_epoch(self, epoch))
    cut, again = run_varied(dataset, places, "judged-cut", (1, 2, 3, 4), judging=True)
    assert trained == [0, 1, 2, 3]
    assert cut.unjudged is None
    assert told(cut.history) == told(whole.history)
    for part in ("weights", "optimizer", "average", "best"):
        pairs = zip(getattr(cut, part), getattr(whole, part), strict=True)
        assert all(np.array_equal(one, other) for one, other in pairs), part
    assert all(np.array_equal(a, b) for a, b in zip(again.get_weights(), model.get_weights(), strict=True))


def test_a_run_that_is_cut_off_before_its_body_is_trained_ends_as_one_that_is_not(dataset, places):  # noqa: F811
    """The head alone in the first epoch, then all: cut off between the two, and once more."""
    extra, kept = {"ema": 0.9, "head_epochs": 1}, {"begun": [], "epochs": []}
    saved, build = train.RunFolder.save_state, tiny_network

    def begin_network(*asked_for, **more):
        model = build(*asked_for, **more)
        kept["begun"].append({variable.path: numbers(variable) for variable in model.variables})
        return model

    def note(self, state):
        saved(self, state)
        if state.unjudged is None:
            kept["epochs"].append(dict(zip(kept["begun"][0], state.weights, strict=True)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.RunFolder, "save_state", note)
        patch.setattr(sys.modules[__name__], "tiny_network", begin_network)
        whole, model = run_varied(dataset, places, "head-whole", extra=extra, epochs=3)
    cut, again = run_varied(dataset, places, "head-cut", (1, 2), extra, 3)
    before, *after = (kept["begun"][0], *kept["epochs"])
    body = {path for path in before if path.startswith(("features", "norm"))}
    changed = [
        {path for path in before if not np.array_equal(one[path], other[path])}
        for one, other in zip((before, *after), after, strict=False)
    ]
    assert body
    assert not changed[0] & body
    assert {"logit/kernel", "location/kernel"} <= changed[0]
    assert body <= changed[1]
    # Another optimizer from the second epoch on: two epochs of two batches.
    assert int(whole.optimizer[0]) == 4
    assert told(cut.history) == told(whole.history)
    for part in ("weights", "optimizer", "average"):
        pairs = zip(getattr(cut, part), getattr(whole, part), strict=True)
        assert all(np.array_equal(one, other) for one, other in pairs), part
    assert all(np.array_equal(a, b) for a, b in zip(again.get_weights(), model.get_weights(), strict=True))


def test_several_devices_share_every_batch(dataset, places, monkeypatch):  # noqa: F811
    """On one device the strategy of several must learn what is learned without it."""
    import tensorflow as tf

    more = ("--backbone", "efficientnetlite0", "--set", "ema=0.5", "--set", "small_epochs=0")
    monkeypatch.setattr("core.train.loop.build_network", tiny_network)
    with pytest.MonkeyPatch.context() as patch:
        strategy = tf.distribute.MirroredStrategy(["CPU:0"])
        patch.setattr("core.train.loop.prepare_devices", lambda *_: ("float32", strategy, Team()))
        *_, together = one_step(dataset, places, *more)
    *_, alone = one_step(dataset, places, *more)
    assert together.history[0]["loss"] == pytest.approx(alone.history[0]["loss"], rel=1e-5)
    for part in ("weights", "average"):
        for one, other in zip(getattr(together, part), getattr(alone, part), strict=True):
            assert one == pytest.approx(other, abs=1e-5)


# A line is learned on one device and, by the production's own step, on two. Prints what each share held, and by the
# optimizer's name the losses and weights alone and together.
SHARED = """
import gc
gc.disable()  # while TensorFlow is imported
import json, sys
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from core.train.batches import Feeder
from core.train.devices import Team
from core.train.loop import share_out, shared_step
from core.train.networks import make_optimizer
from core.values import TrainingSettings

class Sampler:
    batches, batch_size = 3, 4
    def batch(self, epoch, number):
        films = np.arange(4, dtype=np.float32).reshape(4, 1) + 10 * number
        return films, {"logit": 2 * films}

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
shared = share_out(Feeder(Sampler(), 0), strategy, (), Team())
shares = [strategy.experimental_local_results(films) for films, _ in shared]
told = {"shares": [[part.numpy().ravel().tolist() for part in each] for each in shares]}

def fitted(optimizer, scope):
    with scope:
        film = keras.Input((1,))
        answer = keras.layers.Dense(1, name="logit", kernel_initializer="ones")(film)
        model = keras.Model(film, {"logit": answer})
        model.compile(optimizer(), {"logit": "mse"})
        model.optimizer.build(model.trainable_variables)
    return model

def adamw(clip_norm):
    settings = TrainingSettings("efficientnetlite0", weight_decay=0.1, extra={"clip_norm": clip_norm})
    return make_optimizer(settings)

optimizers = {
    "plain": lambda: keras.optimizers.SGD(0.001), "decayed": lambda: adamw(None), "clipped": lambda: adamw(1.0)
}
for name, optimizer in optimizers.items():
    one, many = fitted(optimizer, tf.device("CPU:0")), fitted(optimizer, strategy.scope())
    for model in (one, many):
        model.optimizer.learning_rate = 0.001 if name == "plain" else 0.05
    with strategy.scope():
        step = shared_step(many, strategy, Sampler(), ())
        together = [float(step(share)) for share in share_out(Feeder(Sampler(), 0), strategy, (), Team())]
    alone = [one.train_on_batch(*batch, return_dict=True)["loss"] for batch in Feeder(Sampler(), 0)]
    weights = [[float(weight.numpy().item()) for weight in model.weights] for model in (one, many)]
    told[name] = {"losses": [[float(loss) for loss in alone], together], "weights": weights}

with strategy.scope():
    film = keras.Input((1,))
    normal = keras.layers.BatchNormalization(momentum=0.0, name="norm")(film)
    model = keras.Model(film, {"logit": keras.layers.Dense(1, name="logit")(normal)})
    model.compile(keras.optimizers.SGD(0.0), {"logit": "mse"})
    step = shared_step(model, strategy, Sampler(), ())
    step(next(iter(share_out(Feeder(Sampler(), 0), strategy, (), Team()))))
    told["mean"] = keras.ops.convert_to_numpy(model.get_layer("norm").moving_mean).item()
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def shared():
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", SHARED], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_two_devices_share_every_batch_evenly(shared):
    first = [[0.0, 1.0], [2.0, 3.0]]
    assert shared["shares"] == [[[x + 10 * n for x in part] for part in first] for n in range(3)]


@pytest.mark.parametrize(
    "optimizer",
    [
        "plain",
        "decayed",
        "clipped",
    ],
)
def test_two_devices_learn_as_one(shared, optimizer):
    """The same losses, step by step, and the same weights, by the step that trains on several devices."""
    (alone, together), (one, many) = (shared[optimizer][what] for what in ("losses", "weights"))
    # Of the first batch by hand: a kernel of 1 is off by as much as a film is bright, 0 to 3.
    assert together[0] == pytest.approx((0 + 1 + 4 + 9) / 4, rel=1e-6)
    assert together == pytest.approx(alone, rel=1e-5)
    assert one[0] > 1.02
    assert np.subtract(many, [1, 0]) == pytest.approx(np.subtract(one, [1, 0]), rel=1e-4)


def test_two_devices_keep_the_statistics_of_all_films(shared):
    """Batch normalisation that remembers the last batch alone: films of 0, 1, 2 and 3."""
    assert shared["mean"] == pytest.approx(1.5)


# Step by step, as in this process, and a network with hardly any weights: what is killed does not depend on it.
STEPWISE = """
import gc
gc.disable()  # while TensorFlow is imported
import sys, tensorflow as tf
tf.config.run_functions_eagerly(True)
from core.train import loop
from core.train.__main__ import main
from tests.test_train_engine import tiny_network
loop.build_network = tiny_network
sys.exit(main(sys.argv[1:]))
"""


def begin(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(
        [sys.executable, "-c", STEPWISE, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    )


def wait_for(folder, epochs, process):
    """Wait until a run has finished so many epochs; return what it says of itself."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        try:
            found = json.loads((folder / train.PROGRESS_NAME).read_text())
        except FileNotFoundError:
            found = {"history": []}
        if len(found["history"]) >= epochs:
            return found
        assert process.poll() is None, process.stderr.read().decode()[-2000:]
        time.sleep(0.05)
    pytest.fail("the run came to nothing")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9 there")
def test_a_run_is_stopped_and_killed_and_goes_on_after_both(dataset, places):  # noqa: F811
    folder = places["runs"] / "killed-1"
    more = ("--backbone", "efficientnetlite0", "--id", "killed-1", "--epochs", "5000", "--set", "small_epochs=0")
    process = begin(*ask(dataset, places, *more))
    wait_for(folder, 1, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 130, process.stderr.read().decode()[-2000:]
    said = json.loads((folder / train.PROGRESS_NAME).read_text())
    assert said["phase"] == "stopped"
    assert not (places["out"] / "killed-1").exists()
    stopped = train.RunFolder(folder).load_state().history
    assert len(stopped) >= 1
    resume = ("--resume", "killed-1", "--runs", str(places["runs"]))
    process = begin(*resume)
    wait_for(folder, len(stopped) + 1, process)
    process.kill()
    assert process.wait(120) == -signal.SIGKILL
    process.stderr.close()
    told_of = json.loads((folder / train.PROGRESS_NAME).read_text())["history"]
    killed = train.RunFolder(folder).load_state().history
    assert told(killed[: len(stopped)]) == told(stopped)
    assert [row["epoch"] for row in killed] == list(range(1, len(killed) + 1))
    # Whatever it had told of by then is kept, but for one epoch at most.
    assert len(told_of) - len(killed) <= 1
    process = begin(*resume)
    wait_for(folder, max(len(told_of), len(killed)) + 1, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 130, process.stderr.read().decode()[-2000:]
    resumed = train.RunFolder(folder).load_state().history
    assert told(resumed[: len(killed)]) == told(killed)
    assert len(resumed) > len(killed)
    process.stderr.close()


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_trains_too(backend, dataset, places):  # noqa: F811
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed: training with it is not tested")
    arguments = ask(dataset, places, "--backbone", "efficientnetlite0", "--id", f"{backend}-1", "--epochs", "1")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": backend}
    done = subprocess.run(
        [sys.executable, "-m", "core.train", *arguments], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (places["out"] / f"{backend}-1" / "card.json").is_file()
