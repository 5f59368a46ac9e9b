"""What a training says of itself when it publishes: which films, whose, how they were read, and under which names."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from core.checkpoints.cards import write_card
from core.errors import CheckpointError, TrainingError
from core.originals import Simulation, find_simulation
from core.phantoms import VERSION
from core.phantoms.dataset import DatasetSettings
from core.phantoms.decoys import simulate_decoy
from core.train import PRESETS, Report, Request, RunFolder, TrainingData, collect_films, inputs, publish
from core.train.appraisal import Appraisal
from core.train.presets import LARGEST_SEED, check_settings, idle_settings
from core.train.squares import Film
from core.values import Checkpoint, Scores, WristRegion
from core.wrist import CLOSER_LOOKS

REGION = WristRegion(5, 5, 4)


def film(name, label, known=True):
    patient, _, number = name.rpartition("/")
    return Film(Path(f"{name}.png"), f"{patient}/{number}", patient, label, region=REGION if known else None)


def make_data(**changes):
    parts = {
        "train": (film("Doe/1", 0), film("Roe/1", 1), film("Roe/2", 1)),
        "valid": (film("patient10/1", 0), film("patient9/1", 1)),
        "test": (film("Bloggs/1", 0), film("Bloggs/2", 1), film("Poe/1", 1)),
    }
    given = {"format": "mura", "origin": "real", "with_regions": True, "with_masks": False}
    return TrainingData(**{**parts, **given, **changes})


def make_request(data, **changes):
    settings = replace(PRESETS["scaphoid"], backbone="efficientnetlite0", input_size=64)
    given = {"format": None, "out": "out", "finder": "finder-1", "weights_file": None, "title": None}
    return Request("new-1", "fracture", str(data), **{"settings": settings, **given, **changes})


def measure(**counts):
    return Appraisal({"method": "temperature", "temperature": 1.0}, counts=counts)


@pytest.mark.parametrize(
    ("size", "origin", "title"),
    [
        (224, "simulated", "EfficientNet-Lite0, simulated films"),
        (320, "simulated", "EfficientNet-Lite0 at 320 px, simulated films"),
        (320, "real", "EfficientNet-Lite0 at 320 px, fine-tuned"),
    ],
)
def test_networks_that_read_at_different_sizes_have_different_names(tmp_path, size, origin, title):
    request = make_request(tmp_path)
    request = replace(request, settings=replace(request.settings, backbone="efficientnetlite0", input_size=size))
    assert publish.describe_checkpoint(request, make_data(origin=origin), measure(), False).title == title


@pytest.mark.parametrize(("finder", "fit"), [("finder-1", "pad"), (None, "stretch")])
def test_only_whole_films_are_stretched_and_no_card_says_otherwise(tmp_path, finder, fit):
    settings = replace(PRESETS["better-mura"], backbone="resnet50")
    request = make_request(tmp_path, settings=settings, finder=finder)
    card = publish.describe_checkpoint(request, make_data(), measure(), False)
    assert card.fit == fit
    assert card.settings.extra.get("fit", "pad") == fit
    assert {**card.settings.extra, "fit": "stretch"} == settings.extra


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """Return a function that finishes a training without a network, and what was asked and published."""
    told = SimpleNamespace(finders=[], films={}, finder=None, scores=None)

    def load_finder(name, out):
        told.finders.append(name)
        return name

    def appraise(reader, splits, finder, progress, calibration, folder):
        told.films, told.finder, told.calibration, told.folder = splits, finder, calibration, folder
        scores = tuple(
            Scores(
                "new-1",
                split,
                tuple(each.study_id for each in films),
                tuple(each.patient_id for each in films),
                np.array([each.label for each in films], np.int8),
                np.linspace(0.1, 0.9, len(films)),
            )
            for split, films in splits.items()
        )
        return replace(measure(), scores=scores)

    def keep(out, card, model, history, scores):
        told.scores = scores
        return card

    monkeypatch.setattr("core.wrist.load_finder", load_finder)
    monkeypatch.setattr("core.train.appraisal.appraise_classifier", appraise)
    monkeypatch.setattr(publish, "round_to_float16", lambda model: None)
    monkeypatch.setattr(publish, "freeze", lambda model, names: None)
    monkeypatch.setattr(publish, "publish", keep)

    def finish(data, report=None, **changes):
        request = make_request(tmp_path, **changes)
        return publish.finish(request, data, SimpleNamespace(output={"logit": 0}), [], report=report), told

    return finish


def test_what_was_trained_on_whole_films_is_measured_on_whole_films(finished, capsys):
    given = make_data()
    lacking = make_data(with_regions=False, train=(film("Doe/1", 0, known=False), *given.train[1:]))
    card, told = finished(lacking)
    assert (told.finders, told.finder, card.region) == ([], None, None)
    assert {each.region for films in told.films.values() for each in films} == {None}
    sentence = "of 1 of 8 films it is not known where the wrist is"
    assert sentence in capsys.readouterr().err
    assert sentence in card.data["tested_on"]
    assert "found by the finder" not in card.data["tested_on"]
    assert card.looks == 2


def test_what_was_trained_on_wrists_is_measured_on_wrists_that_were_found(finished, capsys):
    card, told = finished(make_data())
    assert (told.finders, told.finder, card.region) == (["finder-1"], "finder-1", "finder-1")
    assert {each.region for films in told.films.values() for each in films} == {REGION}
    assert "found by the finder" in card.data["tested_on"]
    assert told.calibration == "platt"
    assert capsys.readouterr().err == ""
    assert card.looks == 6
    assert told.folder is None


def test_films_that_cannot_be_measured_on_are_listed_in_the_runs_folder(finished, tmp_path):
    _, told = finished(make_data(), Report(RunFolder(tmp_path / "run"), None))
    assert told.folder == tmp_path / "run"


def test_no_name_of_a_real_dataset_is_published(finished):
    _, told = finished(make_data())
    valid, test = told.scores
    # In natural order over all parts: Bloggs, Doe, Poe, Roe, patient9, patient10.
    assert valid.patient_ids == ("p0006", "p0005")
    assert test.patient_ids == ("p0001", "p0001", "p0003")
    assert valid.study_ids == ("s0008", "s0007")
    assert test.study_ids == ("s0001", "s0002", "s0004")
    assert test.labels.tolist() == [0, 1, 1]


def test_studies_of_simulated_patients_keep_their_names(finished):
    _, told = finished(make_data(origin="simulated"))
    assert told.scores[1].study_ids == ("Bloggs/1", "Bloggs/2", "Poe/1")


@pytest.mark.parametrize("simulated", [True, False])
@pytest.mark.parametrize("how", ["start", "teachers", "average_of"])
def test_what_the_weights_came_from_is_told_with_what_it_had_learned(tmp_path, simulated, how):
    sentence = "Trained on 5 films of somewhere."
    card = Checkpoint(
        "first", "First", "fracture", "efficientnetlite0", "top_activation", 64, data={"simulated": simulated}
    )
    card = replace(card, data=card.data | {"trained_on": sentence, "split": "a"}, weights_sha256="0" * 64)
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "card.json").write_text(write_card(card)[0])
    request = make_request(tmp_path, out=str(tmp_path), **{how: "first" if how == "start" else ("first",)})
    told = publish.describe_checkpoint(request, make_data(origin="simulated", split="b"), measure(), False).data
    assert told["came_from"] == [{"id": "first", "trained_on": sentence}]
    assert sentence not in told["trained_on"], "nothing is said twice"
    assert ("no film of a real patient was used" in told["trained_on"]) == told["simulated"] == simulated


def test_a_recipe_whose_frozen_layers_were_all_trained_is_told_so(tmp_path):
    def told(weights):
        settings = replace(PRESETS["better-mura"], backbone="resnet50", weights=weights)
        request = make_request(tmp_path, settings=settings)
        sentence = publish.describe_checkpoint(request, make_data(), measure(), False).data["trained_on"]
        return idle_settings(settings), "all layers were trained" in sentence

    for nothing_learned in (None, "lite0"):
        assert told(nothing_learned) == (("trainable_last",), True)
    assert told("imagenet") == ((), False)
    assert idle_settings(replace(PRESETS["mura-320"], weights=None)) == (), "it trains them all"
    epochs = {"head_epochs": 2, "trainable_last": 0}
    assert idle_settings(replace(PRESETS["mura-320"], weights=None, extra=epochs)) == ("head_epochs", "trainable_last")


def test_every_model_that_the_weights_came_from_is_told_once(tmp_path):
    card = Checkpoint("first", "First", "fracture", "efficientnetlite0", "top_activation", 64, data={"split": "a"})
    oldest = {"id": "oldest", "trained_on": "Trained on old films."}
    taught = {"trained_on": "Taught.", "came_from": [{"id": "first", "trained_on": "Trained on films."}, oldest]}
    first = replace(card, data={"trained_on": "Trained on films.", "came_from": [oldest]}, weights_sha256="0" * 64)
    for each in (first, replace(first, id="second", data=taught)):
        (tmp_path / each.id).mkdir()
        (tmp_path / each.id / "card.json").write_text(write_card(each)[0])
    request = make_request(tmp_path, out=str(tmp_path), start="second", teachers=("first",))
    told = publish.describe_checkpoint(request, make_data(split="b"), measure(), False).data
    assert told["came_from"] == [
        {"id": "second", "trained_on": "Taught."}, {"id": "first", "trained_on": "Trained on films."}, oldest,
    ]  # fmt: skip
    alone = publish.describe_checkpoint(make_request(tmp_path), make_data(), measure(), False).data
    assert alone["came_from"] == []


@pytest.mark.parametrize("how", ["start", "teachers", "average_of"])
def test_every_dataset_that_the_weights_learned_from_is_on_the_card(tmp_path, how):
    """Three trainings, each from the one before: the last one's card names all three datasets."""
    older = {"split": "a", "seed": 5, "version": "1"}
    drawn = asdict(DatasetSettings(studies=3, seed=8)) | {"version": 2}
    card = Checkpoint("first", "First", "fracture", "efficientnetlite0", "top_activation", 64)
    card = replace(card, data={"simulated": True, "simulator": drawn, "split": "b"}, weights_sha256="0" * 64)
    assert publish.find_learned(card) == [{"split": "b", "seed": 8, "version": "2"}]
    card = replace(card, data=card.data | {"learned": [*publish.find_learned(card), older]})
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "card.json").write_text(write_card(card)[0])
    (tmp_path / "simulated.json").write_text(json.dumps(asdict(DatasetSettings(studies=3, seed=9))))
    request = make_request(tmp_path, out=str(tmp_path), **{how: "first" if how == "start" else ("first",)})
    told = publish.describe_checkpoint(request, make_data(origin="simulated", split="c"), measure(), False)
    own = {"split": "c", "seed": 9, "version": str(VERSION)}
    # A mean that is measured on a dataset which none of its parts learned from has learned nothing there.
    assert publish.find_learned(told) == [*([own] if how != "average_of" else []), *publish.find_learned(card)]


@pytest.mark.parametrize(
    ("learned", "simulated", "seen"),
    [
        (("c", None, None), False, False),  # the same parts
        (("b", None, None), False, True),  # the folder has grown since, and was dealt anew
        (("b", 8, "3"), False, False),  # simulated patients are no real ones
        (("b", 9, str(VERSION)), True, True),  # the same seed draws the same patients again
        (("b", 8, str(VERSION)), True, False),
    ],
)
def test_patients_that_a_start_may_have_seen_are_not_called_others(tmp_path, learned, simulated, seen):
    entry = dict(zip(("split", "seed", "version"), learned, strict=True))
    card = Checkpoint(
        "first", "First", "fracture", "efficientnetlite0", "top_activation", 64, data={"learned": [entry]}
    )
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "card.json").write_text(write_card(replace(card, weights_sha256="0" * 64))[0])
    if simulated:
        (tmp_path / "simulated.json").write_text(json.dumps(asdict(DatasetSettings(studies=3, seed=9))))
    request = make_request(tmp_path, out=str(tmp_path), start="first")
    data = make_data(origin="simulated" if simulated else "real", split="c")
    told = publish.describe_checkpoint(request, data, measure(), False).data["tested_on"]
    assert ("other " not in told.split(";")[0]) == seen
    assert ("(first) may have been trained on some of these patients: results may flatter" in told) == seen
    assert ("first may have been trained on patients who are held out" in publish.seen_line(request, data)) == seen


def test_of_weights_that_were_made_elsewhere_nothing_is_claimed(tmp_path):
    request = make_request(tmp_path, out=str(tmp_path), weights_file="model.keras")
    request = replace(request, settings=replace(request.settings, weights="e" * 64))
    told = publish.describe_checkpoint(request, make_data(origin="simulated"), measure(), False).data
    assert not told["simulated"]
    assert "no film of a real patient" not in told["trained_on"]
    assert told["trained_on"].endswith("is not known.")
    assert {"split": None, "seed": None, "version": None} in told["learned"]
    assert "whose own licence applies" in told["licences"][0]
    published = replace(request, settings=replace(request.settings, weights="imagenet"))
    told = publish.describe_checkpoint(published, make_data(origin="simulated"), measure(), False).data
    assert told["simulated"]
    assert "Apache-2.0" in told["licences"][0]


def test_what_a_teacher_started_from_its_student_did_not(tmp_path):
    lines = ["Started from ImageNet weights, Apache-2.0.", "The films are free.", "Those of its threshold, too."]
    told = {"licences": lines, "threshold_licence": lines[-1], "simulated": True}
    card = Checkpoint("first", "First", "fracture", "efficientnetlite0", "top_activation", 64, data=told)
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "card.json").write_text(write_card(replace(card, weights_sha256="0" * 64))[0])
    own = ["The simulated films were made by Scaphoid's own simulator (MIT)."]
    student = [
        "Taught by a model that had started from ImageNet weights, Apache-2.0.",
        "Of a teacher: The films are free.",
    ]
    for how, inherited in (
        ({"start": "first"}, lines[:2]), ({"average_of": ("first",)}, lines[:2]), ({"teachers": ("first",)}, student)
    ):  # fmt: skip
        request = make_request(tmp_path, out=str(tmp_path), **how)
        request = replace(request, settings=replace(request.settings, weights=None))
        card = publish.describe_checkpoint(request, make_data(origin="simulated"), measure(), False)
        assert card.data["licences"] == [*inherited, *own]
    assert [publish._of_teacher(line) for line in student] == student, "and so it stays for a student's student"


def test_patients_are_counted_only_where_they_are_known(tmp_path):
    request, counts = make_request(tmp_path), {"test_films": 3, "test_patients": 2, "valid_films": 2}
    known = publish.describe_checkpoint(request, make_data(), measure(**counts), False).data
    assert "of 2 patients" in known["trained_on"]
    assert "Tested on 3 films of 2 other patients" in known["tested_on"]
    assert known["counts"]["train_patients"] == 2
    unknown = publish.describe_checkpoint(request, make_data(patients_known=False), measure(**counts), False).data
    said = unknown["trained_on"] + unknown["tested_on"]
    assert "which films are of one patient is not known" in said
    assert "flatter" in said
    assert "other" not in said
    assert "patients" not in said
    assert unknown["patients_known"] is False
    assert not [name for name in unknown["counts"] if "patients" in name]


def test_words_and_counts_give_the_same_numbers(tmp_path):
    counts = {"test_films": 3, "test_films_unreadable": 1, "test_films_refused": 1, "valid_films": 2}
    counts |= {"test_patients": 2, "test_patients_left_out": 1, "valid_patients": 2, "valid_patients_left_out": 0}
    data = publish.describe_checkpoint(make_request(tmp_path), make_data(), measure(**counts), False, 1).data
    assert data["counts"]["train_films"] == 2
    assert data["trained_on"].startswith("Trained on 2 films")
    assert data["tested_on"].startswith("Tested on 1 films of 1 other patients")
    assert "set on 2 films of 2 further ones" in data["tested_on"]


@pytest.mark.parametrize(
    ("epochs", "some", "said"),
    [
        (2, 2, ", of which each of 2 epochs drew 2 films"),
        (1, 2, ", of which one epoch drew 2 films"),
        (2, 3, ""),
        (2, None, ""),
    ],
)
def test_a_card_tells_where_an_epoch_was_of_some_films_only(tmp_path, epochs, some, said):
    request = make_request(tmp_path)
    settings = replace(request.settings, epochs=epochs, extra={**request.settings.extra, "epoch_films": some})
    data = publish.describe_checkpoint(replace(request, settings=settings), make_data(), measure(), False).data
    assert data["trained_on"].startswith(f"Trained on 3 films of a dataset in the format mura of 2 patients{said}")
    assert ("drew" in data["trained_on"]) == bool(said)


def test_the_card_tells_how_simulated_films_can_be_made_again(tmp_path):
    settings = DatasetSettings(studies=3, seed=8, size=64)
    (tmp_path / "simulated.json").write_text(json.dumps(asdict(settings)))
    card = publish.describe_checkpoint(make_request(tmp_path), make_data(origin="simulated"), measure(), False)
    assert find_simulation(card, "valid") == Simulation(settings.version, 64, 8, "8")
    (tmp_path / "simulated.json").write_text("{}")
    card = publish.describe_checkpoint(make_request(tmp_path), make_data(origin="simulated"), measure(), False)
    assert find_simulation(card, "valid") is None


def test_a_finder_looks_as_closely_as_its_confidence_was_set_with(tmp_path):
    request = replace(make_request(tmp_path, finder=None), task="wrist")
    card = publish.describe_checkpoint(request, make_data(origin="simulated"), measure(), False)
    assert (card.task, card.looks, card.region) == ("wrist", CLOSER_LOOKS, None)


def test_breaks_put_into_real_films_are_called_so(tmp_path):
    card = publish.describe_checkpoint(make_request(tmp_path), make_data(origin="injected"), measure(), False)
    assert card.positive_label == "fracture"
    assert "real films with simulated breaks" in card.data["trained_on"]
    assert "not been tested on real breaks" in card.data["tested_on"]
    assert any("own simulator" in line for line in card.data["licences"])
    assert any("own licence applies" in line for line in card.data["licences"])
    card = publish.describe_checkpoint(make_request(tmp_path), make_data(), measure(), False)
    assert card.positive_label == "abnormal"
    assert "simulated" not in card.data["trained_on"]


# --- what is positive -------------------------------------------------------------------------------------------------


def write_dataset(root, positive, negative):
    """Write a dataset of files that no test opens: class folders, or a table whose column and cells are so called."""
    rows = []
    for split, patients in (("train", 3), ("valid", 6)):
        for number in range(patients):
            for name in (positive, negative):
                column, _, word = name.rpartition("=")
                film = root / split / word / f"{split}-{word}-{number}" / "film.png"
                film.parent.mkdir(parents=True)
                film.write_bytes(b"a film")
                rows.append(f"{film.relative_to(root)},{word},{film.parent.name},{split}")
    if column:
        (root / "labels.csv").write_text("\n".join([f"path,{column},patient_id,split", *rows]) + "\n")


@pytest.mark.parametrize(
    ("positive", "negative", "label"),
    [
        ("Abnormal", "Normal", "abnormal"),
        ("Fracture", "Normal", "fracture"),
        ("positive", "negative", "fracture"),
        ("abnormal=1", "abnormal=0", "abnormal"),
        ("Abnormality=yes", "Abnormality=no", "abnormal"),
        ("label=abnormal", "label=normal", "abnormal"),
        ("label=fracture", "label=normal", "fracture"),
        ("fracture=1", "fracture=0", "fracture"),
    ],
)
def test_positive_is_what_the_dataset_calls_it(tmp_path, positive, negative, label):
    write_dataset(tmp_path, positive, negative)
    request = make_request(tmp_path)
    data = collect_films(request)
    assert data.format == ("csv" if "=" in positive else "folders")
    assert publish.find_positive_label(request, data) == label
    for asked in ("fracture", "abnormal"):
        assert publish.find_positive_label(replace(request, positive_label=asked), data) == asked


def test_positive_is_a_break_where_breaks_were_drawn_and_else_what_mura_means(tmp_path):
    request = make_request(tmp_path)
    assert publish.find_positive_label(request, make_data()) == "abnormal"
    assert publish.find_positive_label(request, make_data(origin="simulated")) == "fracture"
    assert publish.find_positive_label(request, make_data(origin="injected")) == "fracture"
    assert publish.find_positive_label(request, make_data(format="graz")) == "fracture"
    assert publish.find_positive_label(replace(request, positive_label="fracture"), make_data()) == "fracture"


def test_the_card_says_what_was_asked_to_be_called_positive(tmp_path):
    request = make_request(tmp_path, positive_label="abnormal")
    assert publish.describe_checkpoint(request, make_data(format="csv"), measure(), False).positive_label == "abnormal"


# --- films without a wrist --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 500, LARGEST_SEED])
def test_no_training_sees_the_films_without_a_wrist_that_it_is_measured_on(tmp_path, monkeypatch, seed):
    settings = replace(PRESETS["wrist"], seed=seed)
    check_settings(settings, "wrist")
    with pytest.raises(TrainingError, match="A seed is"):
        check_settings(replace(settings, seed=LARGEST_SEED + 1), "wrist")
    asked = []

    def note(count, size, first_seed):
        asked.append(range(first_seed, first_seed + count))
        return np.zeros((count, 8, 8), np.uint8)

    class Parts:
        def __init__(self, films, *_, **__):
            self.films, self.unreadable, self.beyond = films, {}, 0

        def __len__(self):
            return len(self.films)

    for module in (inputs, publish):
        monkeypatch.setattr(module, "make_decoys", note)
    monkeypatch.setattr(inputs, "Squares", Parts)
    monkeypatch.setattr(inputs.batches, "WristSampler", lambda *_, **__: None)
    monkeypatch.setattr(publish, "round_to_float16", lambda model: None)
    monkeypatch.setattr(publish, "freeze", lambda model, names: None)
    monkeypatch.setattr("core.train.appraisal.appraise_finder", lambda *_: measure())
    monkeypatch.setattr(publish, "describe_checkpoint", lambda *_: None)
    monkeypatch.setattr(publish, "publish", lambda *_: None)
    request = replace(make_request(tmp_path, settings=settings), task="wrist")
    inputs.prepare_inputs(request, make_data(), Report())
    publish.finish(request, make_data(), SimpleNamespace(output={}), [])
    trained, valid, test = asked
    assert trained[-1] < valid[0]
    assert valid[-1] < test[0]
    assert len(trained) == 2400


def test_a_film_of_a_large_seed_is_not_that_of_its_last_digits():
    films = [simulate_decoy(seed, 48) for seed in (inputs.HELD_OUT_SEED, inputs.HELD_OUT_SEED % 2**32)]
    assert films[0].shape == (48, 48)
    assert not np.array_equal(*films)


def test_an_ensemble_that_cannot_be_written_is_one_sentence(tmp_path):
    from core.checkpoints.ensembles import Ensemble, write_ensemble

    (tmp_path / "ensemble.json").mkdir()
    with pytest.raises(CheckpointError, match="can be written to") as raised:
        write_ensemble(Ensemble({"a": "1", "b": "2"}), tmp_path)
    assert str(tmp_path) not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["ensemble.json"]
