"""Thresholds set on films without a fracture, against hand-worked numbers and a stand-in for the reader."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from core.checkpoints import read_card, read_scores
from core.datasets import index_dataset, split_dataset
from core.datasets.splits import fingerprint
from core.errors import DatasetError
from core.figures import png_bytes
from core.metrics import evaluate_scores, fit_mean_calibration
from core.quality import Quality
from core.reading import FilmReading
from core.train import normals
from core.train.normals import cautious_share, cautious_threshold, measure, read_normals, specificity_out_of_fold
from core.values import Checkpoint, Interval, OperatingPoint, Prediction, Scores

TWO = Scores("a", "valid", ("s1", "s2"), ("p1", "p2"), np.array([0, 1]), np.array([0.1, 0.97]))


def test_one_in_ten_may_be_called():
    assert cautious_threshold(np.arange(20) / 20) == pytest.approx((0.85 + 0.9) / 2)
    assert cautious_threshold([0.1] * 9 + [0.7]) == pytest.approx((0.1 + 0.7) / 2)
    assert cautious_threshold([0.3, 0.6]) == pytest.approx((0.6 + 1) / 2)


def test_a_threshold_lies_above_what_it_must_not_call():
    one = 0.3
    assert cautious_threshold([one] * 9 + [np.nextafter(one, 1)]) == np.nextafter(one, 1)


@given(st.lists(st.floats(0, 0.999), min_size=1, max_size=80))
def test_never_more_than_one_in_ten(values):
    assert np.mean(np.array(values) >= cautious_threshold(values)) <= 0.1 + 1e-9


def test_out_of_fold_judges_a_patient_by_the_others():
    # Ten patients, one film each: without the highest (0.9) the threshold is (0.8 + 1) / 2 = 0.9, and 0.9 is called.
    values = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    found = specificity_out_of_fold([f"p{i}" for i in range(10)], values)
    assert (found.value, found.n) == (0.9, 10)
    # One film a patient: Wilson's plain interval for 9 of 10.
    assert (found.low, found.high) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    # What a threshold may not fall below is what the published one may not, either: 0.9 is not called at 0.95.
    assert specificity_out_of_fold([f"p{i}" for i in range(10)], values, 0.95).value == 1.0


def test_many_films_of_few_patients_do_not_make_a_narrow_interval():
    """Five patients with eight films each, of whom one is called with all: worth no more than five films."""
    patients = [f"p{i // 8}" for i in range(40)]
    values = np.where(np.arange(40) // 8 == 4, 0.9, np.arange(40) / 100)
    found = specificity_out_of_fold(patients, values)
    assert (found.value, found.n) == (0.8, 40)
    wilson = [(0.8 + z * z / 10 + sign * z * math.sqrt(0.8 * 0.2 / 5 + z * z / 100)) / (1 + z * z / 5)
              for z in (1.959964,) for sign in (-1, 1)]  # fmt: skip
    assert (found.low, found.high) == pytest.approx(wilson, abs=1e-4)
    studies = [normals.NormalStudy(patient, value, ()) for patient, value in zip(patients, values, strict=True)]
    called = normals.describe(studies, card().operating_points, "here", 0.25)["results"]["real_normals_called_not_seen"]
    assert called["value"] == np.mean(values < 0.2)
    assert called["high"] - called["low"] > 0.5


def test_fewer_are_called_until_one_in_ten_holds_out_of_fold():
    """At 4 of 40 the threshold calls all of A and one of B; without either it lies below three films of theirs."""
    patients = ["A"] * 3 + ["B"] * 3 + [f"p{i}" for i in range(34)]
    values = np.array([0.9, 0.91, 0.92, 0.8, 0.81, 0.82, *np.linspace(0, 0.3, 34)])
    assert np.mean(values >= cautious_threshold(values)) == 0.1
    assert cautious_share(patients, values) == 3 / 40, "and no fewer: at 3 of 40 only A's three films are called"
    # The same rule without A lets 3 of 37 be called, which is all of B: its threshold is 0.55, and calls A. B likewise.
    assert specificity_out_of_fold(patients, values).value == 34 / 40
    studies = [normals.NormalStudy(patient, value, (None,)) for patient, value in zip(patients, values, strict=True)]
    low, high = normals.set_caution(card().operating_points, TWO, studies)
    assert low.threshold == 0.2
    assert high.threshold == pytest.approx(0.86)
    assert high.specificity.value == 34 / 40, "judged by what was chosen without them, the share as well"
    told = normals.describe(studies, (low, high), "here", 0.25)["sentence"]
    assert "called suspected, also by thresholds that call as many and were chosen without their own patient;" in told
    # A floor above them all calls none, so nothing is given up for it.
    assert cautious_share(patients, values, 0.95) == 0.1


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 0.999)), min_size=3, max_size=60), st.floats(0, 0.5))
def test_the_share_is_the_greatest_that_holds(studies, floor):
    """Against a plain loop over every number of studies that may be called."""
    patients, values = [f"p{patient}" for patient, _ in studies], np.array([value for _, value in studies])
    if len(set(patients)) < 2:
        assert cautious_share(patients, values, floor) == 0.1
        return
    allowed = int(0.1 * len(values) + 1e-9)

    def called(share):
        total = 0
        for own in set(patients):
            others = [value for patient, value in zip(patients, values, strict=True) if patient != own]
            threshold = max(floor, cautious_threshold(others, share))
            total += sum(value >= threshold for patient, value in zip(patients, values, strict=True) if patient == own)
        return total

    shares = [0.1, *(count / len(values) for count in range(allowed - 1, -1, -1))]
    assert cautious_share(patients, values, floor) == next((each for each in shares if called(each) <= allowed), 0)


def test_many_patients_are_judged_in_groups():
    """A thousand of them in twenty: none is ever judged by its own, and nearly nine in ten are not called."""
    values = np.random.default_rng(0).random(1000)
    found = specificity_out_of_fold([f"p{i:04}" for i in range(1000)], values)
    assert (found.value, found.n) == (pytest.approx(0.9, abs=0.01), 1000)
    assert normals._folds([f"p{i:04}" for i in range(1000)]).max() == 19


def test_the_strictest_share_where_one_patient_is_always_called():
    patients = [f"p{i // 8}" for i in range(40)]
    values = np.where(np.arange(40) // 8 == 4, 0.9, np.arange(40) / 100)
    assert cautious_share(patients, values) == 0
    studies = [normals.NormalStudy(patient, value, (None,)) for patient, value in zip(patients, values, strict=True)]
    points = normals.set_caution(card().operating_points, TWO, studies)
    assert points[1].specificity.value == 0.8
    assert "that call as many" not in normals.describe(studies, points, "here", 0.25)["sentence"]


def test_a_threshold_that_was_not_raised_is_not_said_to_be_set_on_the_normals():
    studies = [normals.NormalStudy(f"p{i}", i / 100, (None,) * films) for i, films in enumerate([1] * 19 + [2])]
    rate = Interval(0.9, 0.8, 0.95, 100)
    points = (OperatingPoint("high_sensitivity", 0.2, rate, rate), OperatingPoint("high_specificity", 0.5, rate, rate))
    stayed = normals.describe(studies, points, "here", 0.5)["sentence"]
    assert "was set on simulated studies and checked on 20 real studies without a fracture of 20 patients" in stayed
    assert "it was not raised" in stayed
    raised = normals.describe(studies[:19], points, "here", 0.4)["sentence"]
    assert "was raised until at most 1 in 10 of 19 real films without a fracture of 19 patients (here)" in raised
    assert "simulated studies and checked" not in raised
    real = normals.describe(studies, points, "here", 0.5, simulated=False)["sentence"]
    assert "was set on its validation studies and checked" in real
    assert "simulated" not in real


def test_specificity_is_that_of_the_threshold_that_is_published():
    """The simulated studies ask for 0.95 where nine in ten normals ask for 0.85 only: none of these is called."""
    studies = [normals.NormalStudy(f"p{i}", i / 10, ()) for i in range(10)]
    rate = Interval(0.9, 0.8, 0.95, 100)
    points = (OperatingPoint("high_sensitivity", 0.2, rate, rate), OperatingPoint("high_specificity", 0.95, rate, rate))
    high = normals.set_caution(points, TWO, studies)[1]
    assert (high.threshold, high.sensitivity.value, high.specificity.value) == (0.95, 1.0, 1.0)


class Stand:
    """Reads the mean brightness of a film as its probability."""

    def __init__(self, card):
        self.checkpoint, self.classifier = card, SimpleNamespace(checkpoint=card)

    def read(self, films):
        found = [Prediction(film.id, "a", 0.0, float(film.pixels.mean())) for film in films]
        read = [FilmReading(film, None, Quality("good"), each) for film, each in zip(films, found, strict=True)]
        return SimpleNamespace(probability=float(np.mean([each.probability for each in found])), films=tuple(read))


@pytest.fixture
def folder(tmp_path):
    lines = ["path,label,patient_id"]
    for number in range(40):
        picture = np.full((64, 64), 5 * number, np.uint8)
        picture[:8] = 0
        picture[8:16] = 255
        (tmp_path / f"{number}.png").write_bytes(png_bytes(picture))
        lines.append(f"{number}.png,{number % 2},p{number}")
    (tmp_path / "films.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def card():
    rate = Interval(0.9, 0.8, 0.95, 100)
    points = (OperatingPoint("high_sensitivity", 0.2, rate, rate), OperatingPoint("high_specificity", 0.25, rate, rate))
    told = {"tested_on": "Simulated.", "results": {}, "licences": ["Free."], "simulated": True, "limits": "Chosen."}
    return Checkpoint(
        "old", "Old", "fracture", "efficientnetlite0", "top_activation", 64, operating_points=points, data=told
    )


def test_only_films_without_a_fracture_are_read(folder):
    read = read_normals(Stand(card()), folder / "films.csv")
    assert [study.patient_id for study in read] == [f"p{number}" for number in range(0, 40, 2)]


def test_of_several_parts_of_the_body_the_wrists_are_read(folder, capsys):
    for number in range(21):
        for part in ("WRIST", "ELBOW"):
            place = folder / f"mura/train/XR_{part}/patient{number:05d}/study1_negative/image1.png"
            place.parent.mkdir(parents=True)
            place.write_bytes((folder / f"{number}.png").read_bytes())
    read = read_normals(Stand(card()), folder / "mura")
    assert {path.parts[-4] for study in read for path, _ in study.films} == {"XR_WRIST"}
    assert capsys.readouterr().err.count("the wrists alone are taken") == 1
    assert len(read_normals(Stand(card()), folder / "mura", region="all")) == 42
    assert "the wrists alone" not in capsys.readouterr().err


def test_too_few_normals_are_refused(folder):
    lines = (folder / "films.csv").read_text().splitlines()
    (folder / "few.csv").write_text("\n".join(lines[:20]) + "\n")
    with pytest.raises(DatasetError, match="At least 20"):
        read_normals(Stand(card()), folder / "few.csv")


def test_films_that_the_model_was_trained_on_set_no_threshold(folder):
    own = fingerprint(split_dataset(index_dataset(folder / "films.csv").splits, 0))
    known = replace(card(), data={**card().data, "split": own, "simulated": False})
    with pytest.raises(DatasetError, match="was trained on this dataset"):
        read_normals(Stand(known), folder / "films.csv")
    assert len(read_normals(Stand(replace(known, data={**known.data, "split": "x"})), folder / "films.csv")) == 20


def test_parts_that_no_training_takes_hinder_nothing(folder):
    lines = (folder / "films.csv").read_text().splitlines()
    parts = [f"{line},{'split' if not n else ('valid', 'test')[n % 4 == 1]}" for n, line in enumerate(lines)]
    (folder / "parts.csv").write_text("\n".join(parts) + "\n")
    assert len(read_normals(Stand(card()), folder / "parts.csv")) == 20


def test_one_patient_alone_is_refused(folder):
    lines = (folder / "films.csv").read_text().splitlines()
    one = [lines[0], *(",".join([*line.split(",")[:2], "p1"]) for line in lines[1:])]
    (folder / "one.csv").write_text("\n".join(one) + "\n")
    with pytest.raises(DatasetError, match="at least two patients"):
        read_normals(Stand(card()), folder / "one.csv")


def test_films_are_read_again_for_their_peaks_and_not_kept(folder):
    read = read_normals(Stand(card()), folder / "films.csv")
    films = normals.Negatives(read)
    assert len(films) == 20
    assert [path.name for path, _ in read[3].films] == ["6.png"]
    assert films[3][0].pixels.mean() == pytest.approx(read[3].probability)
    (folder / "6.png").unlink()
    with pytest.raises(DatasetError, match="cannot be read again"):
        films[3]


def test_patients_are_told_only_where_they_are_known(folder):
    lines = [line.rsplit(",", 1)[0] for line in (folder / "films.csv").read_text().splitlines()]
    (folder / "nameless.csv").write_text("\n".join(lines) + "\n")
    read = read_normals(Stand(card()), folder / "nameless.csv")
    sentence = normals.describe(read, card().operating_points, "made here", 0.25)["sentence"]
    assert "fracture (made here)" in sentence
    assert "which are of one patient is not known" in sentence


def test_a_checkpoint_is_published_anew_with_what_the_normals_say(folder, tmp_path, monkeypatch):
    from core.backbones import build_classifier
    from core.checkpoints import publish

    out = tmp_path / "checkpoints"
    labels, values = np.array([0, 1] * 30), np.linspace(0, 1, 60)
    ids = tuple(f"s{i}" for i in range(60))
    scores = Scores("old", "valid", ids, ids, labels, values)
    test = replace(scores, split="test", labels=1 - labels)
    publish(out, card(), build_classifier("efficientnetlite0", input_size=64), scores=[scores, test])
    monkeypatch.setattr(normals, "usual_peaks", lambda _, films, *__: {"gradcam": {"value": 1.5, "n": len(films)}})
    found = measure(Stand(read_card(out / "old")), out, folder / "films.csv", "made here", "Free.", "new")
    brightness = [(0.0 * 8 + 255 * 8 + 5 * number * 48) / 64 / 255 for number in range(0, 40, 2)]
    expected = cautious_threshold(brightness)
    low, high = found.operating_points
    assert low.threshold == 0.2
    assert high.threshold == pytest.approx(expected, abs=1e-6)
    assert high.sensitivity.value == np.mean(values[labels == 1] >= high.threshold)
    assert high.specificity.n == 20
    assert found.data["limits"] == "Chosen. The upper one was then raised on real films without a fracture."
    assert normals.tell_raised(found.data, False) == found.data
    assert found.data["peaks"] == {"gradcam": {"value": 1.5, "n": 20, "films": "real films", "patients": 20}}
    assert found.data["results"]["real_normals_called_suspected"]["value"] == 0.1
    shown = found.data["results"]["sensitivity_at_high_specificity"]
    assert shown["value"] == np.mean(values[labels == 0] >= high.threshold)
    assert "1 in 10 of 20 real films without a fracture of 20 patients (made here)" in found.data["tested_on"]
    assert found.data["licences"] == ["Free."]
    assert found.data["threshold_licence"] == "Free."
    assert read_card(out / "new").weights_sha256 == read_card(out / "old").weights_sha256
    assert read_scores(out / "new")[0].checkpoint_id == "new"
    with pytest.raises(DatasetError, match="not set on such films yet"):
        measure(Stand(read_card(out / "new")), out, folder / "films.csv", "made here", "Free.", "newer")


# --- the mean of all models ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_models(tmp_path_factory):
    """Return a folder of two published models and their probabilities on the same valid and test studies."""
    from core.backbones import build_classifier
    from core.checkpoints import publish

    out = tmp_path_factory.mktemp("two") / "checkpoints"
    model = build_classifier("efficientnetlite0", input_size=64)
    rng = np.random.default_rng(3)
    labels = np.array([0, 1] * 60)
    ids = tuple(f"s{i}" for i in range(120))
    told = {}
    for name in ("one", "two"):
        values = np.clip(0.3 + 0.4 * labels + rng.normal(0, 0.25, 120), 0, 1)
        valid = Scores(name, "valid", ids, ids, labels, values)
        test = replace(valid, split="test", probabilities=values[::-1].copy(), labels=labels[::-1].copy())
        publish(out, replace(card(), id=name), model, scores=[valid, test])
        told[name] = values
    return out, labels, told


def test_the_points_of_a_mean_are_chosen_on_the_mean(two_models):
    from core.checkpoints.ensembles import find_ensemble, read_ensemble, write_ensemble
    from core.metrics import RULED_OUT, operating_points
    from core.train.ensembles import measure_ensemble

    folder, labels, told = two_models
    write_ensemble(measure_ensemble(folder), folder)
    found = read_ensemble(folder)
    plain = (told["one"] + told["two"]) / 2
    fitted = found.study_calibration
    assert fitted == fit_mean_calibration(plain, labels)
    mean = expit(logit(plain) / fitted["temperature"] + fitted["bias"])
    ids = tuple(f"s{i}" for i in range(120))
    expected = operating_points(Scores("x", "valid", ids, ids, labels, mean), 0.95, 0.95, RULED_OUT)
    assert [p.threshold for p in found.operating_points] == pytest.approx([p.threshold for p in expected])
    below = mean < found.operating_points[1].threshold - 1e-9  # it is one of these
    assert found.operating_points[1].specificity.value == np.mean(below[labels == 0])
    shown, members = find_ensemble(folder)
    assert [p.threshold for p in shown.operating_points] == pytest.approx([p.threshold for p in expected])
    assert shown.study_calibration == fitted
    tested = evaluate_scores(Scores("x", "test", ids, ids, labels[::-1], mean[::-1]), 0.5)
    assert found.data["results"]["ece"]["value"] == pytest.approx(tested.ece.value)
    assert {member.id for member in members} == {"one", "two"}
    assert "mean of 2 models: one, two" in found.data["trained_on"]
    assert {entry["id"] for entry in found.data["came_from"]} >= {"one", "two"}


def test_normals_raise_the_means_threshold(two_models, folder, monkeypatch):
    from core.train import ensembles

    checkpoints, *_ = two_models
    monkeypatch.setattr(ensembles, "open_members", lambda *_: Stand(card()))
    found = ensembles.measure_ensemble(checkpoints, folder / "films.csv", "made here", "Free.")
    bare = ensembles.measure_ensemble(checkpoints)
    brightness = [(255 * 8 + 5 * number * 48) / 64 / 255 for number in range(0, 40, 2)]
    wanted = max(cautious_threshold(brightness), bare.operating_points[1].threshold)
    assert found.operating_points[1].threshold == pytest.approx(wanted, abs=1e-6)
    raised = wanted > bare.operating_points[1].threshold
    assert found.data["limits"] == bare.data["limits"] + f" {normals.RAISED}" * raised
    assert found.operating_points[0].threshold == bare.operating_points[0].threshold
    assert found.data["tested_on"].startswith("Simulated. The threshold of suspicion was ")
    assert "20 real films without a fracture of 20 patients (made here)" in found.data["tested_on"]


def test_a_mean_that_is_measured_again_reads_with_exactly_what_is_measured(two_models, folder, monkeypatch, tmp_path):
    import shutil

    from core.checkpoints import CARD_NAME
    from core.checkpoints.cards import write_card
    from core.checkpoints.ensembles import write_ensemble
    from core.train import ensembles

    checkpoints = shutil.copytree(two_models[0], tmp_path / "checkpoints")
    write_ensemble(ensembles.measure_ensemble(checkpoints), checkpoints)
    shutil.copytree(checkpoints / "two", checkpoints / "three")
    text, _ = write_card(replace(read_card(checkpoints / "two"), id="three"))
    (checkpoints / "three" / CARD_NAME).write_text(text, encoding="utf-8")
    opened = []

    def open_reader(name, *_):
        opened.append(name)
        return Stand(replace(card(), id=name))

    def read_studies(reader, data, progress, region):
        assert region == "XR_HAND"
        assert len(reader.readers) == 3
        assert reader.checkpoint.id == "mean of 3 models"
        labels, told = two_models[1:]
        plain = (told["one"] + 2 * told["two"]) / 3
        expected = fit_mean_calibration(plain, labels)
        assert {name: value for name, value in reader.checkpoint.study_calibration.items() if name != "method"} == (
            pytest.approx({name: value for name, value in expected.items() if name != "method"}, rel=1e-3)
        )
        return read_normals(reader.readers[0], folder / "films.csv")

    monkeypatch.setattr(ensembles, "open_reader", open_reader)
    monkeypatch.setattr("core.reading.open_reader", open_reader)
    monkeypatch.setattr(ensembles, "read_normals", read_studies)
    found = ensembles.measure_ensemble(checkpoints, folder / "films.csv", "made here", "Free.", region="XR_HAND")
    assert sorted(opened) == sorted(found.members) == ["one", "three", "two"]


def test_a_mean_is_of_those_that_are_named(two_models, tmp_path, capsys):
    import shutil

    from core.checkpoints import CARD_NAME
    from core.checkpoints.cards import write_card
    from core.checkpoints.ensembles import find_ensemble, read_ensemble
    from core.train.ensembles import main

    folder = shutil.copytree(two_models[0], tmp_path / "checkpoints")
    shutil.copytree(folder / "two", folder / "three")
    text, _ = write_card(replace(read_card(folder / "two"), id="three"))
    (folder / "three" / CARD_NAME).write_text(text, encoding="utf-8")
    assert main(["--out", str(folder), "--of", "one", "--of", "three"]) == 0
    members = read_ensemble(folder).members
    assert set(members) == {"one", "three"}
    assert {member.id for member in find_ensemble(folder)[1]} == {"one", "three"}
    assert main(["--out", str(folder), "--of", "one", "--of", "four"]) == 1
    assert "four is none of them" in capsys.readouterr().err
    other, _ = write_card(replace(read_card(folder / "two"), positive_label="abnormal"))
    (folder / "two" / CARD_NAME).write_text(other, encoding="utf-8")
    assert main(["--out", str(folder), "--of", "one", "--of", "three", "--of", "two"]) == 1
    assert "two is none of them" in capsys.readouterr().err, "it looks for something else"
    assert main(["--out", str(folder), "--of", "one"]) == 1
    assert "two models or more" in capsys.readouterr().err
    assert read_ensemble(folder).members == members


def test_a_mean_needs_the_same_studies(two_models, tmp_path):
    import shutil

    from core.checkpoints import SCORES_NAME
    from core.errors import CheckpointError
    from core.train.ensembles import measure_ensemble

    folder = shutil.copytree(two_models[0], tmp_path / "checkpoints")
    path = folder / "two" / SCORES_NAME
    path.write_text(path.read_text().replace("s5,", "s500,"))
    with pytest.raises(CheckpointError, match="scored on the same studies"):
        measure_ensemble(folder)


def test_a_mean_of_models_that_were_tested_on_other_studies_has_points_and_no_results(two_models, tmp_path):
    import shutil

    from core.checkpoints import SCORES_NAME
    from core.train.ensembles import measure_ensemble

    folder = shutil.copytree(two_models[0], tmp_path / "checkpoints")
    alike = measure_ensemble(folder)
    path = folder / "two" / SCORES_NAME
    lines = [line.replace("s5,", "s500,") if ",test," in f",{line}" else line for line in path.read_text().splitlines()]
    path.write_text("\n".join(lines) + "\n")
    found = measure_ensemble(folder)
    assert "auc" in alike.data["results"]
    assert found.data["results"] == {}
    assert found.data["tested_on"] == "The mean itself has not been tested."
    assert alike.data["tested_on"] != found.data["tested_on"]
    assert [point.threshold for point in found.operating_points] == [p.threshold for p in alike.operating_points]
