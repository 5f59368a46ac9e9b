"""The way from films to a second opinion, with a stand-in for the network so that every number is known."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import expit, logit

import core.reading as reading_module
from core.checkpoints import CheckpointEntry
from core.checkpoints.ensembles import (
    Ensemble,
    ensemble_card,
    ensemble_members,
    ensemble_of,
    find_ensemble,
    members_of,
    read_ensemble,
    write_ensemble,
)
from core.errors import CheckpointError
from core.predict import main as predict
from core.radiographs import read_radiograph
from core.reading import EnsembleReader, Reader, mean_probability, open_reader
from core.results import reading_result, study_result
from core.values import Checkpoint, Interval, OperatingPoint, Prediction, Radiograph, WristRegion
from tests.films import png_film

RATE = Interval(0.95, 0.9, 0.98, 100)
CARD = Checkpoint(
    "stand-in",
    "Stand-in",
    "fracture",
    "efficientnetlite0",
    "top_activation",
    224,
    region="finder",
    operating_points=(
        OperatingPoint("high_sensitivity", 0.3, RATE, RATE),
        OperatingPoint("high_specificity", 0.6, RATE, RATE),
    ),
)


def film(number, brightness=1.0):
    pixels = np.random.default_rng(number).random((200, 160)) * brightness
    return Radiograph(f"{number:064d}", pixels, "PNG, 8 bit")


def answer(radiograph_id, name, probability):
    return Prediction(radiograph_id, name, float(logit(probability)), probability)


def reader(probabilities, confidence=1.0, card=CARD):
    """Return a reader that gives each film id its probability, and a log of what the finder and network were asked."""
    asked = SimpleNamespace(found=[], read=[])

    def find(radiograph):
        asked.found.append(radiograph.id)
        return WristRegion(80, 100, 140, 0, confidence)

    def predict(radiographs, regions):
        asked.read += list(zip([r.id for r in radiographs], regions, strict=True))
        return [answer(r.id, card.id, probabilities[r.id]) for r in radiographs]

    classifier = SimpleNamespace(checkpoint=card, predict=predict)
    return Reader(classifier, SimpleNamespace(find=find)), asked


@pytest.mark.parametrize(
    ("given", "mean", "label"),
    [
        ((0.9, 0.5), 0.7, "suspected"),
        ((0.6, 0.6), 0.6, "suspected"),
        ((0.9, 0.1), 0.5, "uncertain"),
        ((0.3,), 0.3, "uncertain"),
        ((0.2, 0.1), 0.15, "not seen"),
    ],
)
def test_a_study_is_the_mean_of_its_films_in_words_of_the_operating_points(given, mean, label):
    films = [film(number) for number in range(len(given))]
    who, _ = reader({f.id: p for f, p in zip(films, given, strict=True)})
    reading = who.read(films)
    assert reading.probability == pytest.approx(mean)
    assert reading.decision.label == label
    assert [f.prediction.probability for f in reading.films] == list(given)
    assert reading.driver.radiograph is films[int(np.argmax(given))]


@pytest.mark.parametrize(
    ("sides", "together"), [("LL", True), ("L-", True), ("--", True), ("LR", False), ("R-L", False)]
)
def test_films_of_two_wrists_get_no_answer_together(sides, together):
    films = [replace(film(n), laterality={"-": None}.get(side, side)) for n, side in enumerate(sides)]
    who, _ = reader({f.id: 0.9 - 0.4 * n for n, f in enumerate(films)})
    for reading in (who.read(films), EnsembleReader((who, who), ensemble_card([CARD, CARD])).read(films)):
        assert (reading.probability is not None) == together
        assert all(each.prediction for each in reading.films), "each film is read by itself"
        told = reading_result([str(n) for n in range(len(films))], reading)
        assert ("reasons" in told) != together
        if not together:
            assert reading.decision is None
            assert told["probability"] is None
            assert "of a left and of a right one" in told["reasons"][0]


def test_a_square_set_by_the_reader_is_read_and_not_searched_for():
    films = [film(1), film(2)]
    who, asked = reader({f.id: 0.5 for f in films})
    marked = WristRegion(50, 60, 100, 90, set_by_reader=True)
    reading = who.read(films, {films[1].id: marked})
    assert asked.found == [films[0].id]
    assert dict(asked.read)[films[1].id] is marked
    assert reading.films[1].region is marked


def test_a_film_that_is_not_fit_to_be_read_does_not_count():
    fit, blank = film(1), film(2, brightness=0.01)
    who, asked = reader({fit.id: 0.8, blank.id: 0.1})
    reading = who.read([blank, fit])
    assert [radiograph_id for radiograph_id, _ in asked.read] == [fit.id]
    assert reading.films[0].prediction is None
    assert reading.films[0].quality.reasons
    assert reading.probability == pytest.approx(0.8)


def test_nothing_is_said_where_no_wrist_was_found():
    who, asked = reader({}, confidence=0.0)
    reading = who.read([film(1)])
    assert reading.probability is None
    assert reading.decision is None
    assert reading.driver is None
    assert asked.read == []
    assert mean_probability([reading]) is None


# --- the mean of several models ---------------------------------------------------------------------------------------


def member(name, **changes):
    return replace(CARD, **{"id": name, "title": name.upper(), "weights_sha256": name[0] * 64} | changes)


def mean_of(*readers, ensemble=None):
    return EnsembleReader(readers, ensemble_card([r.checkpoint for r in readers], ensemble))


def test_a_mean_is_the_mean_of_its_models_for_each_film_and_the_study():
    films = [film(1), film(2)]
    one, _ = reader({films[0].id: 0.2, films[1].id: 0.4}, card=member("a"))
    other, _ = reader({films[0].id: 0.8, films[1].id: 0.9}, card=member("b"))
    reading = mean_of(one, other).read(films)
    assert reading.probability == pytest.approx((0.3 + 0.85) / 2)
    assert [f.prediction.probability for f in reading.films] == pytest.approx([0.5, 0.65])
    assert reading.films[0].prediction.logit == pytest.approx(0)
    assert reading.driver.radiograph is films[1]
    assert [part.probability for part in reading.members] == pytest.approx([0.3, 0.85])
    assert [part.decision.label for part in reading.members] == ["uncertain", "suspected"]
    assert mean_probability(reading.members) == reading.probability


def test_a_mean_is_calibrated_after_its_models_were():
    """Every stage by hand: films, mean of films, models' own calibration, mean of models, and the mean's own."""
    films, halved = [film(1), film(2)], {"method": "temperature", "temperature": 2.0}
    moved = {"method": "platt", "temperature": 0.5, "bias": 1.0}
    one, _ = reader({films[0].id: 0.2, films[1].id: 0.4}, card=member("a", study_calibration=halved))
    other, _ = reader({films[0].id: 0.8, films[1].id: 0.9}, card=member("b"))
    known = replace(measured(one.checkpoint, other.checkpoint), study_calibration=moved)
    reading = mean_of(one, other, ensemble=known).read(films)
    by_hand = expit(logit(0.3) / 2)
    assert [part.probability for part in reading.members] == pytest.approx([by_hand, 0.85])
    assert reading.probability == pytest.approx(expit(2 * logit((by_hand + 0.85) / 2) + 1))
    assert reading.films[0].prediction.probability == pytest.approx(expit(2 * logit((0.2 + 0.8) / 2) + 1))
    assert reading.films[0].prediction.logit == pytest.approx(1.0)
    assert mean_of(one, other).read(films).probability == pytest.approx((by_hand + 0.85) / 2), "not measured, not moved"


def test_without_points_of_its_own_a_mean_gives_no_finding():
    films = [film(1)]
    sure = [reader({films[0].id: 0.99}, card=member(name))[0] for name in "ab"]
    reading = mean_of(*sure).read(films)
    assert (reading.decision.label, reading.decision.text) == ("uncertain", "Uncertain (no operating point)")
    assert reading.decision.thresholds == {}
    row = reading_result(["Film 1"], reading)
    assert row["checkpoint"] == "mean of 2 models"
    assert (row["threshold"], row["thresholds"]) == (None, {})
    assert [part["decision"] for part in row["models"]] == ["Fracture suspected"] * 2


def measured(*cards, low=0.4, high=0.97):
    points = (OperatingPoint("high_sensitivity", low, RATE, RATE), OperatingPoint("high_specificity", high, RATE, RATE))
    return Ensemble(members_of(cards), points, {"simulated": True})


def test_points_that_were_chosen_for_the_mean_decide():
    films = [film(1)]
    readers = [reader({films[0].id: p}, card=member(name))[0] for name, p in (("a", 0.9), ("b", 0.99))]
    cards = [r.checkpoint for r in readers]
    reading = mean_of(*readers, ensemble=measured(*cards)).read(films)
    assert reading.decision.label == "uncertain", "0.945 lies below the mean's 0.97, though above each model's 0.6"
    assert reading.decision.thresholds == {"high_sensitivity": 0.4, "high_specificity": 0.97}
    retrained = measured(cards[0], replace(cards[1], weights_sha256="f" * 64))
    assert mean_of(*readers, ensemble=retrained).read(films).decision.thresholds == {}


def test_one_finder_looks_once_for_all_and_another_for_itself():
    films = [film(1), film(2)]
    given = {f.id: 0.5 for f in films}
    cards = (member("a"), member("b"), member("c", region="other-finder"), member("d", region=None))
    readers, asked = zip(*(reader(given, card=card) for card in cards), strict=True)
    readers = (*readers[:3], Reader(readers[3].classifier, None))
    reading = mean_of(*readers).read(films)
    ids = [f.id for f in films]
    assert [log.found for log in asked] == [ids, [], ids, []]
    assert [region for _, region in asked[0].read] == [region for _, region in asked[1].read]
    assert reading.films[0].region is asked[0].read[0][1]
    marked = WristRegion(50, 60, 100, 90, set_by_reader=True)
    mean_of(*readers).read(films, {ids[0]: marked, ids[1]: marked})
    assert [log.found for log in asked] == [ids, [], ids, []], "what a person has marked is not looked for"
    assert all(log.read[-1][1] is marked for log in asked[:3])


def test_a_film_that_no_model_reads_does_not_count_and_one_that_some_read_does():
    films = [film(1), film(2, brightness=0.01)]
    sees, _ = reader({films[0].id: 0.8}, card=member("a"))
    blind, _ = reader({}, confidence=0.0, card=member("b", region="other-finder"))
    reading = mean_of(sees, blind).read(films)
    assert reading.probability == pytest.approx(0.8)
    assert reading.films[1].prediction is None
    assert reading.films[1].quality.reasons
    nothing = mean_of(blind, blind).read(films)
    assert (nothing.probability, nothing.decision, nothing.driver) == (None, None, None)


def test_the_result_of_a_mean_names_its_models_and_their_weights():
    films = [film(1)]
    readers = [reader({films[0].id: p}, card=member(name))[0] for name, p in (("a", 0.1), ("b", 0.5))]
    result = json.loads(json.dumps(study_result(["Film 1"], [mean_of(*readers).read(films)]), allow_nan=False))
    assert [row["checkpoint"] for row in result["checkpoints"]] == ["mean of 2 models", "a", "b"]
    assert [row["probability"] for row in result["checkpoints"]] == pytest.approx([0.3, 0.1, 0.5])
    assert [part["weights_sha256"][0] for part in result["checkpoints"][0]["models"]] == ["a", "b"]


def entries(*cards, broken=()):
    return [CheckpointEntry(card.id, card, None) for card in cards] + [
        CheckpointEntry(name, None, "The weights are missing.") for name in broken
    ]


def test_who_belongs_to_the_mean():
    a, b, finder = member("a"), member("b"), member("finder", task="wrist")
    mura = member("mura", positive_label="abnormal")
    assert ensemble_members(entries(a, b, finder, mura), "b") == (b, a), "the default first, of one finding, no finder"
    assert ensemble_members(entries(a, mura, b), "mura") == (mura,)
    with pytest.raises(CheckpointError, match="whole, but c is not"):
        ensemble_members(entries(a, b, broken=["c"]), "a")
    later = member("later")
    known = measured(a, b)
    assert ensemble_members(entries(a, b, later, broken=["c"]), "a", known) == (a, b), "what was measured stands"
    changed = replace(b, weights_sha256="f" * 64)
    assert ensemble_members(entries(a, changed, later), "a", known) == (a, changed, later)
    with pytest.raises(CheckpointError, match="two models or more, but there are 1"):
        ensemble_card([a])
    with pytest.raises(CheckpointError, match="same finding"):
        ensemble_card([a, mura])


def test_the_file_of_the_ensemble(tmp_path):
    assert read_ensemble(tmp_path) is None
    rate = {"value": 0.9, "low": 0.8, "high": 0.95, "n": 100}
    points = [{"name": "high_sensitivity", "threshold": 0.2, "sensitivity": rate, "specificity": rate}]
    members = [{"id": name, "answers_sha256": name * 64} for name in "ab"]
    moved = {"method": "platt", "temperature": 0.7, "bias": 0.5}
    good = {"members": members, "operating_points": points, "data": {"simulated": True}, "study_calibration": moved}
    (tmp_path / "ensemble.json").write_text(json.dumps(good))
    found = read_ensemble(tmp_path)
    assert dict(found.members) == {"a": "a" * 64, "b": "b" * 64}
    assert found.operating_points[0].threshold == 0.2
    assert found.operating_points[0].sensitivity.n == 100
    assert found.study_calibration == moved
    write_ensemble(found, tmp_path)
    assert read_ensemble(tmp_path) is not found
    assert read_ensemble(tmp_path).study_calibration == moved
    (tmp_path / "ensemble.json").write_text(json.dumps({key: good[key] for key in good if key != "study_calibration"}))
    assert read_ensemble(tmp_path).study_calibration is None, "as it was before there was one"
    cards = [member("a"), member("b")]
    now = [{"id": name, "answers_sha256": digest} for name, digest in members_of(cards).items()]
    (tmp_path / "ensemble.json").write_text(json.dumps(good | {"members": now}))
    assert ensemble_of(cards, tmp_path).study_calibration == moved
    before = [{"id": card.id, "weights_sha256": card.weights_sha256} for card in cards]
    (tmp_path / "ensemble.json").write_text(json.dumps(good | {"members": before}))
    assert ensemble_of(cards, tmp_path).study_calibration is None, "they may have answered otherwise then"
    with pytest.raises(CheckpointError, match="two models or more"):
        find_ensemble(tmp_path)
    point = points[0]
    bad = (
        "{",
        "[]",
        json.dumps(good | {"members": members[:1]}),
        json.dumps(good | {"members": []}),
        json.dumps(good | {"members": [{"id": name} for name in "ab"]}),
        json.dumps(good | {"members": [members[0]] * 2}),
        json.dumps(good | {"members": [members[0], {"id": "../b", "answers_sha256": ""}]}),
        json.dumps(good | {"operating_points": [point | {"threshold": 2}]}),
        json.dumps(good | {"operating_points": [point, point]}),
        json.dumps({"members": members}),
        json.dumps(good | {"study_calibration": [0.7, 0.5]}),
        json.dumps(good | {"study_calibration": moved | {"temperature": 0}}),
    )
    for text in bad:
        (tmp_path / "ensemble.json").write_text(text)
        with pytest.raises(CheckpointError):
            read_ensemble(tmp_path)


def test_what_was_measured_of_a_mean_holds_for_exactly_its_members(tmp_path):
    cards = [member("a"), member("b")]
    assert ensemble_of(cards, tmp_path).operating_points == ()
    known = replace(measured(*cards), study_calibration={"method": "temperature", "temperature": 0.5})
    write_ensemble(known, tmp_path)
    found = ensemble_of(cards[::-1], tmp_path)
    assert [point.threshold for point in found.operating_points] == [0.4, 0.97]
    assert found.study_calibration == known.study_calibration
    changes = (
        {"weights_sha256": "f" * 64},
        {"calibration": {"method": "temperature", "temperature": 2.0}},
        {"study_calibration": {"method": "temperature", "temperature": 2.0}},
        {"looks": 2},
        {"region": "another-finder"},
        {"scaling": "unit"},
    )
    changed = [[cards[0], replace(cards[1], **change)] for change in changes]
    assert ensemble_of([*cards, member("c")], tmp_path).members == known.members, "of those that it was measured of"
    for others in (cards[:1], *changed):
        found = ensemble_of(others, tmp_path)
        assert (found.operating_points, found.study_calibration) == ((), None)
        assert dict(found.members) == members_of(others)


def test_a_checkpoint_of_whole_films_asks_no_finder():
    who, asked = reader({film(1).id: 0.4})
    reading = Reader(who.classifier, None).read([film(1)])
    assert asked.found == []
    assert reading.films[0].region is None
    assert reading.probability == pytest.approx(0.4)


def test_opening_the_mean_loads_each_model_and_the_common_finder_once(monkeypatch, tmp_path):
    cards = {card.id: card for card in (member("a"), member("b"))}
    loaded = []
    monkeypatch.setattr(
        reading_module, "find_ensemble", lambda folder: (ensemble_card([*cards.values()]), (*cards.values(),))
    )
    monkeypatch.setattr(
        "core.classifier.load_classifier",
        lambda key, folder: loaded.append(key) or SimpleNamespace(checkpoint=cards[key]),
    )
    monkeypatch.setattr("core.wrist.load_finder", lambda key, folder: loaded.append(key) or SimpleNamespace())
    opened = open_reader("all", tmp_path)
    assert sorted(loaded) == ["a", "b", "finder"]
    assert [r.checkpoint.id for r in opened.readers] == ["a", "b"]
    assert opened.readers[0].finder is opened.readers[1].finder


def test_the_command_line_reads_with_all_and_says_what_each_said(monkeypatch, tmp_path, capsys):
    path = tmp_path / "a.png"
    path.write_bytes(png_film())
    key = read_radiograph(path.read_bytes()).id
    who = mean_of(*(reader({key: p}, card=member(name))[0] for name, p in (("a", 0.2), ("b", 0.6))))
    monkeypatch.setattr(reading_module, "open_reader", lambda checkpoint, folder: {"all": who}[checkpoint])
    monkeypatch.setattr(reading_module, "import_tensorflow_quietly", lambda: None)
    assert predict([str(path), "--checkpoint", "all", "--json", "--study"]) == 0
    film_row, study_row = map(json.loads, capsys.readouterr().out.splitlines())
    assert film_row["checkpoint"] == study_row["checkpoint"] == "mean of 2 models"
    assert film_row["probability"] == study_row["probability"] == pytest.approx(0.4)
    assert film_row["logit"] == pytest.approx(np.log(0.4 / 0.6))
    assert [(part["checkpoint"], part["probability"]) for part in study_row["models"]] == [("a", 0.2), ("b", 0.6)]
    assert predict([str(path), "--checkpoint", "all", "--explain", "gradcam", "--out", str(tmp_path / "maps")]) == 1
    assert "one --checkpoint" in capsys.readouterr().err


def test_the_command_line_reads_a_study_as_it_reads_its_films(monkeypatch, tmp_path, capsys):
    """Two films of other probabilities, and two models of which each finds the wrist elsewhere and goes by that."""
    paths = [tmp_path / name for name in ("a.png", "b.png")]
    for path, bits in zip(paths, (8, 16), strict=True):
        path.write_bytes(png_film(bits=bits))
    keys = [read_radiograph(path.read_bytes()).id for path in paths]

    def model(name, x, probabilities):
        card = replace(member(name), region=f"finder-{name}")

        def predict(radiographs, regions):
            told = dict(zip(keys, probabilities, strict=True))
            return [
                answer(film.id, name, told[film.id] if region.x == x else 0.99)
                for film, region in zip(radiographs, regions, strict=True)
            ]

        found = SimpleNamespace(find=lambda film: WristRegion(x, 100, 140, 0, 1.0))
        return Reader(SimpleNamespace(checkpoint=card, predict=predict), found)

    models = model("a", 80.0, (0.1, 0.5)), model("b", 85.0, (0.3, 0.9))
    monkeypatch.setattr(reading_module, "import_tensorflow_quietly", lambda: None)
    for who, films, study in ((models[0], (0.1, 0.5), 0.3), (mean_of(*models), (0.2, 0.7), 0.45)):
        monkeypatch.setattr(reading_module, "open_reader", lambda checkpoint, folder, who=who: who)
        assert predict([*map(str, paths), "--json", "--study"]) == 0
        *film_rows, study_row = map(json.loads, capsys.readouterr().out.splitlines())
        assert [row["probability"] for row in film_rows] == pytest.approx(films)
        assert study_row["probability"] == pytest.approx(study)
        assert study_row["films_read"] == 2
        assert study_row["driver"] == str(paths[1])


def test_a_film_that_a_model_cannot_answer_is_told_and_the_others_are_read(monkeypatch, tmp_path, capsys):
    paths = [tmp_path / name for name in ("a.png", "b.png")]
    for path, bits in zip(paths, (8, 16), strict=True):
        path.write_bytes(png_film(bits=bits))
    keys = [read_radiograph(path.read_bytes()).id for path in paths]
    who, _ = reader(dict.fromkeys(keys, 0.4), card=member("a"))
    answer = who.classifier.predict

    def predict_some(radiographs, regions):
        if radiographs[0].id == keys[0]:
            raise CheckpointError("The model must answer with a number, but on one of these films it does not.")
        return answer(radiographs, regions)

    who.classifier.predict = predict_some
    monkeypatch.setattr(reading_module, "open_reader", lambda checkpoint, folder: who)
    monkeypatch.setattr(reading_module, "import_tensorflow_quietly", lambda: None)
    assert predict([*map(str, paths), "--json"]) == 1
    out, err = capsys.readouterr()
    assert [json.loads(line)["file"] for line in out.splitlines()] == [str(paths[1])]
    assert err.startswith(f"{paths[0]}: The model must answer with a number")
