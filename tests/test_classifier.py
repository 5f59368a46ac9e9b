"""A published checkpoint read back: its answers against Keras' own, its refusals, and its words."""

import math
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from core.backbones import build_classifier
from core.checkpoints import publish, set_default
from core.checkpoints.weights import WEIGHTS_NAME, round_to_float16
from core.classifier import (
    BATCH_SIZE,
    LOOKS,
    Classifier,
    decide,
    ensemble_probability,
    load_classifier,
    square_fit,
    study_probability,
)
from core.errors import CheckpointError, RadiographError
from core.radiographs import fit_square
from core.values import Checkpoint, Interval, OperatingPoint, Prediction, Radiograph, WristRegion

SIZE = 64
SHARE = Interval(0.9, 0.8, 0.95, 120)
LOW = OperatingPoint("high_sensitivity", 0.25, SHARE, SHARE)
HIGH = OperatingPoint("high_specificity", 0.75, SHARE, SHARE)
CARD = Checkpoint(
    id="lite0-test",
    title="A test",
    task="fracture",
    backbone="efficientnetlite0",
    feature_layer="top_activation",
    input_size=SIZE,
    location_head=True,
    operating_points=(LOW, HIGH),
    calibration={"method": "temperature", "temperature": 2.5},
)


def film(index, height=90, width=70):
    pixels = np.random.default_rng(index).random((height, width), dtype=np.float32)
    pixels[: height // 2] *= (index % 5) / 4  # so that films differ by more than noise
    return Radiograph(f"{index:064x}", pixels, "PNG, 8 bit")


@pytest.fixture(scope="module")
def trained():
    """A network whose answers differ between films: its signal keeps its strength from layer to layer."""
    import keras

    keras.utils.set_random_seed(11)
    model = build_classifier(CARD.backbone, input_size=SIZE, location_head=True)
    rng = np.random.default_rng(11)
    for layer in model.layers:
        weights = layer.get_weights()
        if weights and weights[0].ndim > 1:
            shape = weights[0].shape
            fan = np.prod(shape[:2] if type(layer).__name__ == "DepthwiseConv2D" else shape[:-1])
            layer.set_weights([rng.normal(0, np.sqrt(2 / fan), shape), *weights[1:]])
    return model


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    publish(folder, CARD, trained)
    return folder


@pytest.fixture(scope="module")
def classifier(folder):
    return load_classifier("lite0-test", folder)


# --- Reading films ----------------------------------------------------------------------------------------------------


def test_answers_are_those_of_the_rounded_keras_model(classifier, trained):
    import keras

    films = [film(index) for index in range(6)]
    rounded = keras.models.clone_model(trained)
    rounded.set_weights(trained.get_weights())
    round_to_float16(rounded)
    squares = np.stack([fit_square(f.height, f.width, SIZE).apply(f.pixels) for f in films])[..., None]
    expected = {name: keras.ops.convert_to_numpy(each) for name, each in rounded(squares, training=False).items()}
    logits = np.array([prediction.logit for prediction in classifier.predict(films)])
    assert np.ptp(expected["logit"]) > 0.1
    np.testing.assert_allclose(logits, expected["logit"][:, 0], atol=1e-4)
    kept = keras.ops.convert_to_numpy(classifier.model(squares, training=False)["logit"])
    np.testing.assert_allclose(kept, expected["logit"], atol=1e-4)
    located = classifier.location(films[2])
    assert located.shape == (SIZE // 16, SIZE // 16)
    np.testing.assert_allclose(located, expected["location"][2, ..., 0], atol=1e-3)


def test_many_films_at_once_equal_one_by_one_in_their_order(classifier):
    films = [film(index) for index in range(BATCH_SIZE + 5)]
    together = classifier.predict(films)
    assert [prediction.radiograph_id for prediction in together] == [f.id for f in films]
    assert {prediction.checkpoint_id for prediction in together} == {"lite0-test"}
    alone = [classifier.predict([f])[0].logit for f in films]
    np.testing.assert_allclose([prediction.logit for prediction in together], alone, rtol=1e-5, atol=1e-5)
    assert [p.logit for p in classifier.predict(films)] == [p.logit for p in together]
    assert classifier.predict([]) == []


def test_many_threads_at_once_get_their_own_films_answer(classifier):
    films = [film(index) for index in range(8)]
    expected = [classifier.predict([f])[0].logit for f in films]
    answers = [None] * 8

    def ask(index):
        answers[index] = [classifier.predict([films[index]])[0].logit for _ in range(3)]

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_allclose(answers, np.repeat(np.array(expected)[:, None], 3, axis=1), atol=1e-5)


def test_a_region_is_read_instead_of_the_whole_film(classifier):
    whole = film(3, 120, 120)
    everything = WristRegion(60, 60, 120)
    part = WristRegion(40, 70, 50)
    plain, same, other = classifier.predict([whole] * 3, [None, everything, part])
    assert same.logit == pytest.approx(plain.logit, abs=1e-4)
    assert abs(other.logit - plain.logit) > 1e-3
    cut = Radiograph("0" * 64, whole.pixels[45:95, 15:65], "PNG, 8 bit")
    assert classifier.square(cut).shape == (SIZE, SIZE)
    # Away from the border, where the film around the region shows through, cutting first makes no difference.
    np.testing.assert_allclose(
        classifier.square(whole, part)[2:-2, 2:-2], classifier.square(cut)[2:-2, 2:-2], atol=1e-4
    )
    with pytest.raises(ValueError, match="zip"):
        classifier.predict([whole, whole], [None])


def looking(classifier, looks):
    return Classifier(replace(classifier.checkpoint, looks=looks), classifier.model, classifier.run)


REGION = WristRegion(35.0, 40.0, 40.0, 20.0)


def test_a_film_that_is_stretched_fills_the_square(classifier):
    card = replace(classifier.checkpoint, fit="stretch")
    stretched = Classifier(card, classifier.model, classifier.run)
    wide = Radiograph("a" * 64, np.ones((30, 60), np.float32), "PNG, 8 bit")
    assert stretched.square(wide).min() == pytest.approx(1)
    assert classifier.square(wide).mean() == pytest.approx(0.5, abs=0.01), "else half of it is black"
    assert square_fit(card, wide, size=8).scales == pytest.approx((8 / 60, 8 / 30))


def test_several_looks_are_averaged_as_logits(classifier):
    one = film(3)
    logits = []
    for mirrored, turn, scale in [(0, 0, 1), (1, 0, 1), (0, 8, 0.88), (1, -8, 0.88), (0, -8, 0.88), (1, 8, 0.88)]:
        region = replace(REGION, side=REGION.side * scale, angle=REGION.angle + turn)
        square = fit_square(one.height, one.width, SIZE, region).apply(one.pixels)
        square = square[:, ::-1] if mirrored else square
        logits.append(float(classifier.run(square[None, ..., None].astype(np.float32))["logit"][0, 0]))
    assert np.ptp(logits) > 1e-3
    for looks in (1, 2, 6):
        (read,) = looking(classifier, looks).predict([one], [REGION])
        assert read.logit == pytest.approx(np.mean(logits[:looks]), abs=1e-4)


def test_looks_come_in_pairs_that_a_mirrored_film_swaps():
    for first, second in zip(LOOKS[::2], LOOKS[1::2], strict=True):
        assert (first.mirrored, first.turn_degrees, first.scale) == (False, -second.turn_degrees, second.scale)
        assert second.mirrored


def test_a_mirrored_film_gets_the_same_answer_from_paired_looks(classifier):
    one = film(3)
    other = replace(one, pixels=one.pixels[:, ::-1].copy())
    turned = replace(REGION, x=one.width - REGION.x, angle=-REGION.angle)
    for looks in (2, 6):
        reader = looking(classifier, looks)
        (here,), (there,) = reader.predict([one], [REGION]), reader.predict([other], [turned])
        assert here.logit == pytest.approx(there.logit, abs=1e-3)
    (here,), (there,) = classifier.predict([one], [REGION]), classifier.predict([other], [turned])
    assert abs(here.logit - there.logit) > 3e-3


def test_many_films_with_many_looks_keep_their_order(classifier):
    films = [film(index) for index in range(5)]
    reader = looking(classifier, 6)
    together = reader.predict(films, [REGION] * 5)
    alone = [reader.predict([one], [REGION])[0] for one in films]
    assert [p.logit for p in together] == pytest.approx([p.logit for p in alone], abs=1e-5)


def test_probability_is_calibrated_by_the_cards_temperature(classifier):
    films = [film(index) for index in range(3)]
    for prediction in classifier.predict(films):
        assert prediction.probability == pytest.approx(1 / (1 + math.exp(-prediction.logit / 2.5)), abs=1e-12)
    moved = {"method": "platt", "temperature": 0.5, "bias": 1.0}
    card = replace(classifier.checkpoint, study_calibration=moved)
    of_study = Classifier(card, classifier.model, classifier.run).predict([film(3)])[0]
    assert of_study.probability == pytest.approx(expit(2 * of_study.logit / 2.5 + 1)), "what a study of it alone gets"
    bare = Classifier(replace(classifier.checkpoint, calibration=None), classifier.model, classifier.run)
    for f, prediction in zip(films, bare.predict(films), strict=True):
        own = classifier.run(bare.square(f)[None, ..., None])["probability"][0, 0]
        assert prediction.probability == pytest.approx(float(own), abs=1e-6)
    strange = replace(classifier.checkpoint, calibration={"method": "isotonic"})
    with pytest.raises(CheckpointError, match="calibration"):
        Classifier(strange, classifier.model, classifier.run).predict(films)


def test_reading_changes_neither_film_nor_model(classifier):
    one = film(1)
    pixels = one.pixels.copy()
    before = [weight.copy() for weight in classifier.model.get_weights()]
    classifier.predict([one])
    classifier.location(one)
    np.testing.assert_array_equal(one.pixels, pixels)
    assert all(np.array_equal(a, b) for a, b in zip(before, classifier.model.get_weights(), strict=True))


# --- Loading ----------------------------------------------------------------------------------------------------------


def test_the_default_is_loaded_where_no_id_is_given(folder, classifier):
    with pytest.raises(CheckpointError, match="none is"):
        load_classifier(None, folder)
    set_default("lite0-test", folder)
    again = load_classifier(None, folder)
    assert again.checkpoint.weights_sha256 == classifier.checkpoint.weights_sha256
    # The sums of two models are shared out among threads differently.
    assert again.predict([film(1)])[0].logit == pytest.approx(classifier.predict([film(1)])[0].logit, abs=1e-4)


@pytest.mark.parametrize("checkpoint_id", ["absent", "../checkpoints/lite0-test", "/etc", "", "LITE0"])
def test_an_id_that_is_not_there_is_refused(folder, checkpoint_id):
    with pytest.raises(CheckpointError, match=r"none called absent|lower-case letters"):
        load_classifier(checkpoint_id, folder)


def test_altered_weights_are_never_loaded(tmp_path, folder, monkeypatch):
    published = publish(tmp_path, CARD, folder / "lite0-test" / WEIGHTS_NAME)
    path = tmp_path / published.id / WEIGHTS_NAME
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)

    def touched(*_, **__):
        raise AssertionError("the network was built before the weights were verified")

    monkeypatch.setattr("core.classifier.build_classifier", touched)
    with pytest.raises(CheckpointError, match="altered"):
        load_classifier("lite0-test", tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"task": "wrist"}, "finds wrists"),
        ({"feature_layer": "conv5_block3_out"}, "feature layer"),
        ({"location_head": False}, "numbers for this network"),
        ({"backbone": "efficientnetb0"}, "numbers for this network"),
    ],
)
def test_a_checkpoint_made_for_something_else_is_refused(tmp_path, folder, change, sentence):
    publish(tmp_path, replace(CARD, **change), folder / "lite0-test" / WEIGHTS_NAME)
    with pytest.raises(CheckpointError, match=sentence):
        load_classifier("lite0-test", tmp_path)


def test_no_location_without_a_location_head(classifier):
    bare = Classifier(replace(classifier.checkpoint, location_head=False), classifier.model, classifier.run)
    with pytest.raises(CheckpointError, match="location head"):
        bare.location(film(1))


# --- Studies and words ------------------------------------------------------------------------------------------------


def test_a_study_is_the_mean_of_its_films_probabilities():
    card = replace(CARD, calibration={"method": "temperature", "temperature": 2.0})
    means = zip("abd", (0.2, 0.5, 0.8), strict=True)
    predictions = [Prediction(name, "c", 2 * float(logit(p)), 0.0) for name, p in means]
    assert study_probability(predictions, card) == pytest.approx(0.5)
    assert study_probability(predictions[:1], card) == pytest.approx(0.2)
    moved = replace(card, study_calibration={"method": "platt", "temperature": 0.5, "bias": 1.0})
    assert study_probability(predictions[:2], moved) == pytest.approx(expit(2 * logit(0.35) + 1))
    assert ensemble_probability([0.1, 0.5]) == pytest.approx(0.3)
    assert ensemble_probability([0.1, 0.5], moved.study_calibration) == pytest.approx(expit(2 * logit(0.3) + 1))
    with pytest.raises(RadiographError):
        study_probability([], card)
    with pytest.raises(CheckpointError):
        ensemble_probability([])


@pytest.mark.parametrize(
    ("points", "probability", "label"),
    [
        ((LOW, HIGH), 0.0, "not seen"),
        ((LOW, HIGH), 0.2499, "not seen"),
        ((LOW, HIGH), 0.25, "uncertain"),
        ((LOW, HIGH), 0.7499, "uncertain"),
        ((LOW, HIGH), 0.75, "suspected"),
        ((LOW, HIGH), 1.0, "suspected"),
        ((HIGH,), 0.7499, "not seen"),
        ((HIGH,), 0.75, "suspected"),
        ((LOW,), 0.2499, "not seen"),
        ((LOW,), 0.25, "suspected"),
        ((replace(HIGH, threshold=0.25), replace(LOW, threshold=0.75)), 0.5, "suspected"),
        ((replace(HIGH, threshold=0.25), replace(LOW, threshold=0.75)), 0.2, "not seen"),
        ((), 0.99, "uncertain"),
    ],
)
def test_operating_points_put_a_probability_into_words(points, probability, label):
    decision = decide(probability, replace(CARD, operating_points=points))
    assert decision.label == label
    assert decision.probability == probability
    assert decision.thresholds == {point.name: point.threshold for point in points}


@pytest.mark.parametrize(
    ("positive_label", "texts"),
    [
        ("fracture", ["No fracture seen", "Uncertain", "Fracture suspected"]),
        ("abnormal", ["No abnormality seen", "Uncertain", "Abnormality suspected"]),
    ],
)
def test_words_name_what_the_training_data_called_positive(positive_label, texts):
    card = replace(CARD, positive_label=positive_label)
    assert [decide(p, card).text for p in (0.1, 0.5, 0.9)] == texts
    assert decide(0.9, replace(card, operating_points=())).text == "Uncertain (no operating point)"


@given(st.lists(st.floats(0, 1), min_size=2, max_size=2), st.floats(0, 1), st.floats(0, 1))
def test_more_probability_never_means_a_milder_word(thresholds, one, other):
    low, high = sorted(thresholds)
    card = replace(CARD, operating_points=(replace(LOW, threshold=low), replace(HIGH, threshold=high)))
    order = ["not seen", "uncertain", "suspected"]
    ranks = [order.index(decide(p, card).label) for p in sorted((one, other))]
    assert ranks == sorted(ranks)
