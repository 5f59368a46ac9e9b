"""core.appraise: what is measured, worked by hand; where results go; a real run on a few simulated studies."""

import json
import math
import shutil
from dataclasses import replace
from functools import partial
from hashlib import sha256
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score

from core.appraise import command, documents, maps, measures, quick, reading, steadiness, studies, tables
from core.appraise.kept import Kept
from core.appraise.reading import FilmRead, WristRead
from core.checkpoints import CHECKPOINTS, default_id, ensembles, read_card, read_scores, verify
from core.checkpoints.cards import write_card
from core.classifier import Classifier
from core.errors import CheckpointError, ExplanationError, ScaphoidError, ScoresError
from core.explain import comparison
from core.explain.localisation import THRESHOLDS
from core.metrics import evaluate_scores, were_it_calibrated, wilson_interval
from core.phantoms import VERSION, simulate_study
from core.phantoms.dataset import DatasetSettings, _plan
from core.radiographs import fit_square, read_radiograph
from core.train.appraisal import look_at_peak
from core.values import Checkpoint, Explanation, Interval, OperatingPoint, Radiograph, Scores, WristRegion

SIZE = 32
KNOWN = {"displacement_mm": 0.0, "gap_mm": 0.0, "spacing_mm": 0.5}
SHARE = Interval(0.9, 0.8, 1.0, 20)
HALVED = {"method": "temperature", "temperature": 2.0}
POINTS = (
    OperatingPoint("high_sensitivity", 0.2, SHARE, SHARE),
    OperatingPoint("high_specificity", 0.6, SHARE, SHARE),
)


def make_card(name="stand-in", **changes):
    entries = {"region": "finder", "operating_points": POINTS, "weights_sha256": "0" * 64, "input_size": SIZE} | changes
    return Checkpoint(name, "Stand-in", "fracture", "resnet50", "conv5_block3_out", **entries)


class MeanClassifier(Classifier):
    """Its logit is `slope` times the mean of the square, less one half; its location map peaks top left."""

    def __init__(self, slope=4.0, see=lambda squares: squares.mean(axis=(1, 2)), **card):
        def answer(squares):
            location = np.zeros((len(squares), 2, 2, 1), np.float32)
            location[:, 0, 0] = 1
            self.passes.append(len(squares))
            return {"logit": slope * (see(squares) - 0.5), "location": location}

        super().__init__(make_card(**({"location_head": True} | card)), None, answer)
        self.passes = []


class WholeFilmFinder:
    """Finds the whole film, and counts how often it is asked."""

    def __init__(self):
        self.asked = 0

    def find(self, radiograph):
        self.asked += 1
        return WristRegion(radiograph.width / 2, radiograph.height / 2, radiograph.width)


def make_reader(slope=4.0, finder=None, **card):
    return SimpleNamespace(classifier=MeanClassifier(slope, **card), finder=finder or WholeFilmFinder())


def make_film(brightness, label=0, mask=None, number=0, **facts):
    """Stripes around a brightness, so that the film is fit to be read."""
    pixels = np.full((SIZE, SIZE), brightness, np.float32)
    pixels[::2] += 0.15
    pixels[1::2] -= 0.15
    known = {"label": label, "kind": "hairline" if label else "none", "displacement_mm": 0.0, "view": "PA"}
    known |= {"framing": "wrist", "child": False, "hardware": "none", "cast": False} | facts
    mask = np.zeros((SIZE, SIZE), bool) if mask is None else mask
    return studies.KnownFilm(
        Radiograph(f"film-{brightness}-{number}", pixels, "PNG"), mask, WristRegion(16, 16, SIZE), known
    )


def blob(row, column, side=4):
    mask = np.zeros((SIZE, SIZE), bool)
    mask[row : row + side, column : column + side] = True
    return mask


# --- studies ---------------------------------------------------------------------------------------------------------


def test_no_training_can_draw_the_seeds_of_a_test_set():
    seeds = [seed for seed, _ in studies.seeds_of(1500)]
    assert len(set(seeds)) == 1500
    assert min(seeds) >= studies.FIRST_SEED
    assert max(task.seed for task in _plan(DatasetSettings(4000, seed=3))) < studies.FIRST_SEED
    assert max(seeds) < studies.seeds_of(1, seed=1)[0][0]
    assert [broken for _, broken in studies.seeds_of(4)] == [True, False, True, False]


def test_studies_are_the_simulators_own_whoever_makes_them():
    seeds = studies.seeds_of(2)
    here = list(studies.make_studies(seeds, 96, jobs=0))
    elsewhere = list(studies.make_studies(seeds, 96, jobs=1))
    for (seed, broken), study, other in zip(seeds, here, elsewhere, strict=True):
        films = simulate_study(seed, size=96, positive=broken)
        assert study.label == other.label == int(broken)
        assert len(study.films) == len(other.films) == len(films)
        for ours, theirs, film in zip(study.films, other.films, films, strict=True):
            np.testing.assert_array_equal(ours.mask, film.mask)
            np.testing.assert_array_equal(ours.radiograph.pixels, theirs.radiograph.pixels)
            np.testing.assert_allclose(ours.radiograph.pixels, film.pixels, atol=0.5 / 255)
            assert ours.facts == theirs.facts
            assert (ours.facts["kind"], ours.facts["view"]) == (film.kind, film.view)
            assert ours.region.x == film.region.x
        assert len({film.radiograph.id for film in study.films}) == len(films)


# --- reading ---------------------------------------------------------------------------------------------------------


def test_every_reader_reads_every_study_and_readers_share_a_finder():
    made = [
        studies.KnownStudy("a", 1, (make_film(0.7, 1, blob(0, 0)), make_film(0.5, 1, blob(24, 24), 1))),
        studies.KnownStudy("b", 0, (make_film(0.3), make_film(0.3, number=1))),
    ]
    finder, done = WholeFilmFinder(), []
    readers = [make_reader(4.0, finder, name="m-1"), make_reader(-4.0, finder, name="m-2", calibration=HALVED)]
    read = reading.read_all(made, readers, done.append)
    assert (finder.asked, done) == (4, [1, 2])
    assert (read.studies, read.positives, read.films_made) == (2, 1, 4)
    assert [film.logit for film in read.films["m-1"]] == pytest.approx([0.8, 0, -0.8, -0.8], abs=1e-5)
    assert [film.logit for film in read.films["m-2"]] == pytest.approx([-0.8, 0, 0.8, 0.8], abs=1e-5)
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    mean = (sigmoid(0.8) + sigmoid(-0.4)) / 2
    assert read.films["all"][0].probability == pytest.approx(mean, abs=1e-6)
    assert sigmoid(read.films["all"][0].logit) == pytest.approx(mean, abs=1e-6)
    scores = read.scores["m-1"]
    assert scores.weights_sha256 == readers[0].classifier.checkpoint.weights_sha256
    assert scores.study_ids == scores.patient_ids == ("a", "b")
    assert scores.probabilities.tolist() == pytest.approx([(sigmoid(0.8) + 0.5) / 2, sigmoid(-0.8)], abs=1e-6)
    other = [(sigmoid(-0.4) + 0.5) / 2, sigmoid(0.4)]
    expected = (scores.probabilities + other) / 2
    assert read.scores["all"].probabilities.tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    assert read.scores["all"].columns == scores.columns
    assert set(scores.columns) == {"age", "hardware", "cast", "kind", "displacement"}
    for place, study in enumerate(made):
        facts = study.films[0].facts
        assert scores.columns["age"][place] == ("child" if facts["child"] else "adult")
        assert scores.columns["kind"][place] == facts["kind"]
        assert bool(scores.columns["displacement"][place]) == bool(facts["label"])
    first, second = (film.places for film in read.films["m-1"][:2])
    assert first["location_peak_in_mask"]
    assert not second["location_peak_in_mask"]
    assert read.films["m-1"][2].places == {}
    assert [wrist.centre_error for wrist in read.wrists["finder"]] == [0] * 4


def test_studies_are_pooled_and_calibrated_stage_by_stage():
    """A model's studies by hand, then the mean of two models, of which the first cannot read the first study."""
    moved, widened = {"method": "platt", "temperature": 0.5, "bias": 1.0}, {"method": "temperature", "temperature": 0.8}
    made = [
        studies.KnownStudy("dark", 0, (make_film(0.4),)),
        studies.KnownStudy("bright", 1, (make_film(0.7, 1, blob(0, 0), 1, child=True), make_film(0.6, 1, number=2))),
    ]
    readers = [
        make_reader(4.0, half_blind_finder(), name="m-1", study_calibration=moved, region="another-finder"),
        make_reader(2.0, name="m-2"),
    ]
    cards = [reader.classifier.checkpoint for reader in readers]
    # A third reader beside the two whose mean it is changes nothing of it.
    third = make_reader(-9.0, name="m-3")
    mean = ensembles.Ensemble(ensembles.members_of(cards), study_calibration=widened)
    read = reading.read_all(made, [*readers, third], mean=mean)
    own = expit(2 * logit((expit(0.8) + expit(0.4)) / 2) + 1)
    other = (expit(0.4) + expit(0.2)) / 2
    assert read.scores["m-1"].study_ids == ("bright",)
    assert read.scores["m-1"].probabilities == pytest.approx([own], abs=1e-6)
    assert [film.probability for film in read.films["m-1"]] == pytest.approx(
        [expit(2 * 0.8 + 1), expit(2 * 0.4 + 1)], abs=1e-6
    )
    mean = read.scores["all"]
    assert mean.study_ids == ("bright", "dark")
    assert mean.probabilities == pytest.approx([expit(logit((own + other) / 2) / 0.8), expit(-0.2 / 0.8)], abs=1e-6)
    assert mean.columns["age"] == ("child", "adult"), "each study's own"
    alone = (expit(2 * 0.8 + 1) + expit(0.4)) / 2
    first = next(film for film in read.films["all"] if film.study_id == "bright")
    assert first.probability == pytest.approx(expit(logit(alone) / 0.8), abs=1e-6)
    assert first.logit == pytest.approx(logit(alone) / 0.8, abs=1e-5)


def test_a_film_that_is_not_fit_is_refused_and_counted():
    blank = replace(make_film(0.5), radiograph=Radiograph("blank", np.full((SIZE, SIZE), 0.5, np.float32), "PNG"))
    made = [studies.KnownStudy("a", 0, (blank, make_film(0.6, number=1)))]
    read = reading.read_all(made, [make_reader()])
    assert read.refused == {"stand-in": 1}
    assert len(read.films["stand-in"]) == 1
    assert "all" not in read.films


def half_blind_finder():
    """Sees the wrist on bright films alone."""
    return SimpleNamespace(
        find=lambda film: WristRegion(SIZE / 2, SIZE / 2, SIZE, confidence=1.0 if film.pixels.mean() > 0.55 else 0.1)
    )


def test_films_and_studies_that_are_refused_are_told_of_every_checkpoint_and_of_the_mean(monkeypatch, capsys):
    """Of four studies one has no film that the second finder sees a wrist on; no finder sees the faint film."""
    faint = replace(make_film(0.5), radiograph=Radiograph("faint", np.full((SIZE, SIZE), 0.5, np.float32), "PNG"))
    made = [
        studies.KnownStudy("a", 1, (make_film(0.7, 1, blob(0, 0)), make_film(0.4, 1, blob(0, 0), 1))),
        studies.KnownStudy("b", 0, (make_film(0.6, number=2), faint)),
        studies.KnownStudy("c", 1, (make_film(0.4, 1, blob(0, 0), 3),)),
        studies.KnownStudy("d", 0, (make_film(0.62, number=4),)),
    ]
    opened = {
        "m-1": make_reader(4.0, name="m-1"),
        "m-2": make_reader(4.0, half_blind_finder(), name="m-2", region="another-finder"),
    }
    monkeypatch.setattr(command, "make_studies", lambda *_: iter(made))
    asked = ["simulated", "--studies", "4", "--checkpoint", "m-1", "--checkpoint", "m-2", "--resamples", "20"]
    assert command.run(command._parser().parse_args([*asked, "--json"]), lambda name, _: opened[name]) == 0
    report = json.loads(capsys.readouterr().out)
    found = {name: (each["films_refused"], each["studies_refused"]) for name, each in report["checkpoints"].items()}
    assert found == {"m-1": (1, 0), "m-2": (3, 1), "all": (1, 0)}
    assert report["films"] == 6
    assert [each["results"]["auc"]["n"] for each in report["checkpoints"].values()] == [4, 3, 4]
    shown, short = tables.simulated_tables(report), tables.short_simulated_table(report)
    assert "| films refused as unfit | 1 | 3 | 1 |" in shown
    assert "| studies left out, since all their films were | 0 | 1 | 0 |" in shown
    for text in (shown, short):
        told = "refused as unfit to be read, which are in no estimate: `m-1` 1, `m-2` 3, the mean 1. "
        assert f"{told}The mean is of `m-1`, `m-2`." in text
        # Both documents tell how each kind and each displacement is seen.
        assert "by kind of fracture and displacement, each against the " in text
        kinds = {film.facts["kind"] for study in made for film in study.films if study.label}
        assert kinds
        assert all(f"| {kind.replace('_', ' ')} (n = " in text for kind in kinds)
        assert "| displaced under 1 mm (n = " in text or "| not displaced (n = " in text


def test_where_no_film_is_fit_to_be_read_nothing_is_measured(monkeypatch, capsys):
    blind = SimpleNamespace(find=lambda film: WristRegion(SIZE / 2, SIZE / 2, SIZE, confidence=0.1))
    monkeypatch.setattr(
        command,
        "make_studies",
        lambda *_: iter([studies.KnownStudy("a", 1, (make_film(0.7, 1, blob(0, 0), **KNOWN),))]),
    )
    monkeypatch.setattr(maps, "measure_maps", partial(_measured_without_checks, maps.measure_maps))
    for what in ("simulated", "explanations"):
        options = command._parser().parse_args([what, "--checkpoint", "m-1"])
        with pytest.raises(ScaphoidError, match="none of the simulated ones is"):
            command.run(options, lambda name, _: make_reader(finder=blind))
    options = command._parser().parse_args(["steadiness", "--films", "2", "--checkpoint", "m-1", "--json"])
    assert command.run(options, lambda name, _: make_reader(finder=blind)) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["refused"] == {"stand-in": {"films": 1, "studies": 1}}
    assert told["checkpoints"]["stand-in"]["mirrored"]["median"] == {"value": None, "low": None, "high": None, "n": 0}


def left_less_right(squares):
    """What a mirrored look tells otherwise: how much brighter the left half of a square is, and one half."""
    half = squares.shape[2] // 2
    return squares[:, :, :half].mean(axis=(1, 2)) - squares[:, :, half:].mean(axis=(1, 2)) + 0.5


def test_a_checkpoint_that_looks_twice_is_measured_on_the_mean_of_both_looks():
    pixels = np.tile(np.linspace(0.9, 0.1, SIZE, dtype=np.float32), (SIZE, 1))
    films = tuple(
        replace(make_film(0.5, 1, blob(0, 0)), radiograph=Radiograph(f"film-{number}", pixels, "PNG"))
        for number in range(3)
    )
    once, twice = (
        SimpleNamespace(classifier=MeanClassifier(4.0, left_less_right, name=f"m-{looks}", looks=looks), finder=None)
        for looks in (1, 2)
    )
    read = reading.read_all([studies.KnownStudy("a", 1, films)], [once, twice])
    assert all(film.logit > 1 for film in read.films["m-1"])
    assert [film.logit for film in read.films["m-2"]] == pytest.approx([0] * 3, abs=1e-5)
    assert all(film.places["location_peak_in_mask"] for film in read.films["m-2"])
    assert twice.classifier.passes[0] == 6  # a study's films and their looks go together
    # A mirrored film changes the answer of the one, and not that of the other.
    study = [film.radiograph for film in films]
    mirrored = [steadiness.CHANGES["mirrored"](film) for film in study]
    before, after = (steadiness.study_logit(once, each) for each in (study, mirrored))
    assert before > 1
    assert after == pytest.approx(-before, abs=1e-4)
    assert [steadiness.study_logit(twice, each) for each in (study, mirrored)] == pytest.approx([0, 0], abs=1e-5)


def test_peak_inside_near_and_outside_the_break():
    square = fit_square(64, 64, 64)
    location = np.zeros((4, 4), np.float32)
    location[1, 1] = 1  # its cell is pixels 16 to 31

    def masked(row, column, side=6):
        mask = np.zeros((64, 64), bool)
        mask[row : row + side, column : column + side] = True
        return mask

    look = lambda mask: [*look_at_peak(mask, square, location).values()]  # noqa: E731
    assert look(masked(20, 20)) == [True, True, False, False]  # it ends at (25, 25), 10 pixels from the middle
    assert look(masked(20, 29)) == [False, True, False, True]
    assert look(masked(50, 50)) == [False, False, False, False]
    assert look(masked(30, 30)) == [False, False, True, True]
    assert look(np.zeros((64, 64), bool)) == []
    # A break that the square does not show is a miss, not a film without a break.
    away = fit_square(64, 64, 64, WristRegion(16, 16, 20))
    assert [*look_at_peak(masked(50, 50), away, location).values()] == [False] * 4
    # A hairline of one pixel on a film that is reduced four times still shows.
    thin = np.zeros((256, 256), bool)
    thin[:, [94, 98]] = True  # pixels 23 and 24 of the square
    assert look_at_peak(thin, fit_square(256, 256, 64), location)["location_peak_in_mask"]


# --- measures --------------------------------------------------------------------------------------------------------


def some_films():
    """Studies of two films: three kinds of break and some without, with their place in each subgroup."""
    rng = np.random.default_rng(0)
    films = []
    for number in range(60):
        kind = ("none", "hairline", "colles")[number % 3]
        label = int(kind != "none")
        for view in ("PA", "LATERAL"):
            probability = float(np.clip(rng.normal(0.35 + 0.2 * label + 0.2 * (kind == "colles"), 0.15), 0, 1))
            facts = {"label": label, "kind": kind, "displacement_mm": 4.0 * (kind == "colles"), "view": view}
            facts |= {"framing": "hand", "child": number % 2 == 0, "hardware": "plate" if number % 5 == 0 else "none"}
            places = {"location_peak_in_mask": probability > 0.5} if label else {}
            films.append(FilmRead(f"s{number}", facts | {"cast": False}, 0.0, probability, places))
    return films


def scores_of(films):
    """Return the plain mean of each study's films."""
    ids = tuple(dict.fromkeys(film.study_id for film in films))
    own = [[film for film in films if film.study_id == study] for study in ids]
    labels = np.array([each[0].facts["label"] for each in own])
    means = np.array([np.mean([film.probability for film in each]) for each in own])
    return Scores("", "test", ids, ids, labels, means)


def test_checkpoint_is_measured_against_all_negatives():
    films = some_films()
    found = measures.measure_checkpoint(
        films, scores_of(films), {"high_sensitivity": 0.4, "high_specificity": 0.6}, 200
    )
    kinds = np.array([film.facts["kind"] for film in films]).reshape(-1, 2)[:, 0]
    means = np.array([film.probability for film in films]).reshape(-1, 2).mean(axis=1)
    labels = kinds != "none"
    assert found["results"]["auc"]["value"] == pytest.approx(roc_auc_score(labels, means))
    assert found["results"]["brier"]["value"] == pytest.approx(np.mean((means - labels) ** 2))
    chance = found["results"]["ece_by_chance"]
    assert chance == vars(were_it_calibrated(scores_of(films))["ece"])
    assert 0 < chance["value"] < found["results"]["ece"]["value"], "these probabilities are poor ones"
    sensitivity = found["results"]["sensitivity_at_high_specificity"]
    assert (sensitivity["value"], sensitivity["n"]) == (pytest.approx(np.mean(means[labels] >= 0.6)), 40)
    specificity = found["results"]["specificity_at_high_sensitivity"]
    assert (specificity["value"], specificity["n"]) == (pytest.approx(np.mean(means[~labels] < 0.4)), 20)
    again = evaluate_scores(scores_of(films), 0.6, 200)  # the numbers of the pages and of the command
    assert sensitivity == vars(again.sensitivity)
    for kind in ("hairline", "colles"):
        kept = ~labels | (kinds == kind)
        auc = found["kinds"][kind]["auc"]
        assert (auc["value"], auc["n"]) == (pytest.approx(roc_auc_score(labels[kept], means[kept])), 20)
        assert auc["low"] <= auc["value"] <= auc["high"]
        inside = [film.places["location_peak_in_mask"] for film in films if film.facts["kind"] == kind]
        peak = found["kinds"][kind]["peak"]
        assert (peak["value"], peak["n"]) == (pytest.approx(np.mean(inside)), 40)
    assert list(found["kinds"]) == ["colles", "hairline"]
    far = found["displacements"]
    assert far["3 mm and more"] == found["kinds"]["colles"]
    assert far["not displaced"] == found["kinds"]["hairline"]
    assert set(far) == {"not displaced", "3 mm and more"}
    lateral = found["subgroups"]["view"]["LATERAL"]
    own = [film for film in films if film.facts["view"] == "LATERAL"]
    area = roc_auc_score([film.facts["label"] for film in own], [film.probability for film in own])
    assert (lateral["auc"]["value"], lateral["auc"]["n"], lateral["counted"]) == (pytest.approx(area), 60, "films")
    plate = np.arange(60) % 5 == 0
    hardware = found["subgroups"]["hardware"]["plate, wires or screw"]["auc"]
    assert (hardware["value"], hardware["n"]) == (pytest.approx(roc_auc_score(labels[plate], means[plate])), 12)
    json.dumps(found, allow_nan=False)


def test_what_cannot_be_measured_is_none_and_what_is_perfect_is_not_certain():
    negatives = [film for film in some_films() if not film.facts["label"]]
    assert measures.measure_checkpoint(negatives, scores_of(negatives), {}, 50)["results"]["auc"]["value"] is None
    films = [replace(film, probability=0.9 if film.facts["label"] else 0.1) for film in some_films()]
    found = measures.measure_checkpoint(films, scores_of(films), {"high_specificity": 0.5}, 50)
    assert found["results"]["auc"] == vars(replace(wilson_interval(20, 20), n=60))
    assert found["results"]["sensitivity_at_high_specificity"] == vars(wilson_interval(40, 40))


def test_finder_is_measured():
    errors = [0.01, 0.02, 0.15, 0.16, 0.5]
    wrists = [WristRead(f"s{i}", error, 0.3, 15.0 + 10 * (i == 4), i / 4) for i, error in enumerate(errors)]
    found = measures.measure_finder(wrists, 100)
    assert found["centre_within_15_percent"]["value"] == 0.6
    assert found["side_within_a_quarter"]["value"] == 1
    assert found["direction_within_15_degrees"]["value"] == 0.8
    assert found["wrists_with_confidence_of_half"]["value"] == 0.6
    assert found["wrists_confident_enough_to_be_read"]["value"] == 0.2
    assert (found["centre_error_median"]["value"], found["centre_error_median"]["n"]) == (0.15, 5)
    assert found["centre_error_90th_percentile"]["value"] == 0.5


# --- steadiness ------------------------------------------------------------------------------------------------------


def test_changes_of_a_film():
    pixels = np.random.default_rng(0).random((20, 30)).astype(np.float32)
    np.testing.assert_allclose(steadiness.turn(pixels, 90)[:30, :20], np.rot90(pixels, -1), atol=1e-4)
    turned = steadiness.turn(np.ones((20, 30), np.float32), 10)
    assert turned.shape == (25, 34)  # 20 cos + 30 sin, 30 cos + 20 sin of 10 degrees: 24.9 and 33.02, rounded up
    assert turned.sum() == pytest.approx(600, rel=0.03)  # nothing of the film is cut off
    film = Radiograph("a", np.full((4, 4), 0.8, np.float32), "PNG")
    assert steadiness.CHANGES["exposure x 0.7"](film).pixels.tolist() == [[pytest.approx(0.56)] * 4] * 4
    assert steadiness.CHANGES["exposure x 1.3"](film).pixels.tolist() == [[1.0] * 4] * 4
    mirrored = steadiness.CHANGES["mirrored"](Radiograph("a", pixels, "PNG")).pixels
    np.testing.assert_array_equal(mirrored, np.fliplr(pixels))


@pytest.mark.parametrize(
    ("data", "step", "source"),
    [
        (lambda p: steadiness.as_png(p, 8), 255, "PNG, 8 bit"),
        (lambda p: steadiness.as_png(p, 16), 65535, "PNG, 16 bit"),
        (steadiness.as_dicom, 4095, "DICOM"),
        (lambda p: steadiness.as_dicom(p, inverted=True), 4095, "DICOM"),
    ],
)
def test_films_written_come_back(data, step, source):
    pixels = np.linspace(0, 1, 64 * 48, dtype=np.float32).reshape(64, 48)
    film = read_radiograph(data(pixels))
    assert film.source.startswith(source)
    np.testing.assert_allclose(film.pixels, pixels, atol=0.51 / step + (0.01 if step == 65535 else 1e-3))


def test_logit_of_a_study_is_the_log_odds_of_its_mean_probability():
    reader = make_reader(8.0, calibration=HALVED)
    films = [make_film(0.7).radiograph, make_film(0.3, number=1).radiograph]
    assert steadiness.study_logit(reader, films) == pytest.approx(0, abs=1e-5)
    assert steadiness.study_logit(reader, films[:1]) == pytest.approx(8 * 0.2 / 2, abs=1e-4)
    biased = make_reader(8.0, calibration={"method": "platt", "temperature": 2.0, "bias": -0.3})
    assert steadiness.study_logit(biased, films[:1]) == pytest.approx(8 * 0.2 / 2 - 0.3, abs=1e-4)
    moved = make_reader(8.0, study_calibration={"method": "platt", "temperature": 0.5, "bias": 0.7})
    assert steadiness.study_logit(moved, films[:1]) == pytest.approx(2 * 8 * 0.2 + 0.7, abs=1e-4)
    assert steadiness.study_logit(make_reader(400.0), films[:1]) == pytest.approx(80, abs=0.01)
    assert steadiness.study_logit(reader, [Radiograph("blank", np.full((32, 32), 0.5), "PNG")]) is None


def test_steadiness_of_a_known_classifier():
    made = [(f"p{i}", [make_film(0.3 + 0.02 * i).radiograph]) for i in range(5)]
    done = []
    found = steadiness.measure_steadiness(made, [make_reader(10.0)], 100, on_progress=done.append)
    assert (found["studies"], found["films"], done) == (5, 5, [1, 2, 3, 4, 5])
    changes = found["checkpoints"]["stand-in"]
    assert list(changes) == list(steadiness.CHANGES)
    assert changes["mirrored"]["median"]["value"] == pytest.approx(0, abs=1e-5)
    # Mean brightness 0.30 to 0.38, times 0.7: the logit falls by 10 x 0.3 x brightness; the median is of 0.34.
    assert changes["exposure x 0.7"]["median"]["value"] == pytest.approx(1.02, abs=1e-3)
    assert changes["exposure x 0.7"]["mean"]["value"] == pytest.approx(1.02, abs=1e-3)
    assert changes["exposure x 0.7"]["90th_percentile"]["value"] == pytest.approx(1.14, abs=1e-3)
    assert changes["exposure x 0.7"]["refused"] == 0
    assert changes["PNG, 8 bit"]["median"]["value"] < 0.1
    shown = tables.steadiness_tables({"simulated": True, "seed": 0, "asked_films": 5, **found})
    row = next(line for line in shown.splitlines() if line.startswith("| exposure x 0.7 |"))
    assert row.endswith("| 5 | 0 | 0 | no |")
    assert "refused as unfit to be read, which are in no estimate: `stand-in` 0 (whole studies: 0)." in shown


def test_films_that_are_refused_as_they_are_or_once_changed_are_counted():
    """The finder sees the wrist on films brighter than 0.55; exposed less, one of 0.7 is not such a film any more."""
    made = [
        ("p0", [make_film(0.83).radiograph, make_film(0.7, number=1).radiograph]),
        ("p1", [make_film(0.6, number=2).radiograph, make_film(0.4, number=3).radiograph]),
        ("p2", [make_film(0.3, number=4).radiograph]),
    ]
    found = steadiness.measure_steadiness(made, [make_reader(10.0, half_blind_finder())], 50)
    assert found["refused"] == {"stand-in": {"films": 2, "studies": 1}}
    changes = found["checkpoints"]["stand-in"]
    assert (changes["mirrored"]["films_refused"], changes["mirrored"]["refused"]) == (2, 0)
    assert changes["mirrored"]["median"]["n"] == 2
    # Times 0.7 they have 0.58, 0.49, 0.42, 0.28 and 0.21: only the first is read, and the second study is not.
    assert (changes["exposure x 0.7"]["films_refused"], changes["exposure x 0.7"]["refused"]) == (4, 1)
    assert changes["exposure x 0.7"]["median"]["n"] == 1
    report = {"simulated": False, "seed": 0, "asked_films": 5, "unreadable": 3, **found}
    shown = tables.steadiness_tables(report)
    assert "`stand-in` 2 (whole studies: 1)." in shown
    assert "cannot be read, and are left out: 3." in shown
    row = next(line for line in shown.splitlines() if line.startswith("| exposure x 0.7 |"))
    assert "| 1 | 1 | 4 |" in row


def test_files_that_cannot_be_read_are_counted(tmp_path, monkeypatch, capsys):
    for number, content in enumerate((None, b"no picture")):
        path = tmp_path / f"valid/XR_WRIST/patient{number:05d}/study1_negative/image1.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(content or steadiness.as_png(np.tile(np.linspace(0, 1, 64), (64, 1)), 8))
    options = ["steadiness", "--data", str(tmp_path), "--checkpoint", "m-1", "--resamples", "20", "--json"]
    assert command.run(command._parser().parse_args(options), lambda name, _: make_reader()) == 0
    out, err = capsys.readouterr()
    assert (json.loads(out)["unreadable"], json.loads(out)["films"]) == (1, 1)
    assert "patient00001" in err
    elbow = tmp_path / "valid/XR_ELBOW/patient00002/study1_negative/image1.png"
    elbow.parent.mkdir(parents=True)
    elbow.write_bytes((tmp_path / "valid/XR_WRIST/patient00000/study1_negative/image1.png").read_bytes())
    for more, films in (((), 1), (("--region", "all"), 2)):
        asked = command._parser().parse_args([*options, *more])
        assert command.run(asked, lambda name, _: make_reader()) == 0
        out, err = capsys.readouterr()
        assert json.loads(out)["films"] == films
        assert err.count("the wrists alone are taken") == (not more)


# --- documents -------------------------------------------------------------------------------------------------------


def test_only_what_stands_between_the_markers_changes():
    text = "# A\n<!-- results: simulated -->\nold\nold\n<!-- end -->\nrest\n<!-- results: other -->\nx\n<!-- end -->\n"
    changed = documents.replace_between(text, "simulated", "\n| a |\n\n")
    assert changed == text.replace("old\nold\n", "| a |\n")
    assert documents.replace_between(changed, "simulated", "| a |") == changed
    for broken in (
        "nothing",
        text + text,
        "<!-- results: simulated -->\nno end",
        text.replace("<!-- end -->\nrest", ""),
    ):
        with pytest.raises(CheckpointError):
            documents.replace_between(broken, "simulated", "x")


def test_a_document_without_a_place_is_left_alone(tmp_path):
    page = tmp_path / "README.md"
    assert not documents.update_document(page, "simulated", "x")
    page.write_text("nothing here\n")
    assert not documents.update_document(page, "simulated", "x")
    assert page.read_text() == "nothing here\n"
    page.write_text("<!-- results: simulated --><!-- end -->")
    assert documents.update_document(page, "simulated", "x")
    assert page.read_text() == "<!-- results: simulated -->\nx\n<!-- end -->"


@pytest.fixture
def published(tmp_path):
    """A folder of checkpoints with one whose weights are no network's; card and scores are as published."""
    folder = tmp_path / "checkpoints"
    (folder / "stand-in").mkdir(parents=True)
    (folder / "stand-in" / "model.weights.h5").write_bytes(b"weights")
    words = "Tested on 640 films of 320 other simulated patients; and so on."
    data = {"tested_on": words, "counts": {"train_films": 5, "test_films": 640}}
    data["results"] = {"auc": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9}, "real_normals": {"value": 1}}
    card = make_card(data=data, weights_sha256=sha256(b"weights").hexdigest(), region=None, versions={}, input_size=224)
    (folder / "stand-in" / "card.json").write_text(write_card(card)[0], encoding="utf-8")
    rows = ["split,study_id,patient_id,label,probability", "valid,v,p,1,0.10740089325249458", "test,t,q,0,0.5"]
    (folder / "stand-in" / "scores.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_results_go_into_card_and_scores_and_the_rest_stays(published):
    before = read_card(published / "stand-in")
    scores = Scores("stand-in", "test", ("a", "b"), ("a", "b"), np.array([1, 0]), np.array([0.1 + 0.2, 0.25]))
    counts = {"test_films": 3628, "test_patients": 1501, "test_films_refused": 28, "test_patients_left_out": 1}
    for _ in range(2):  # the second time changes nothing
        documents.store_results(published / "stand-in", {"auc": {"value": 0.97}}, counts, scores)
    card = verify(published / "stand-in")
    assert card.data["results"] == {"auc": {"value": 0.97}, "real_normals": {"value": 1}}
    assert card.data["counts"] == {"train_films": 5, **counts}
    # Of 3,628 films 28 were refused, among them all of one patient: they are in no estimate.
    assert card.data["tested_on"] == "Tested on 3,600 films of 1,500 other simulated patients; and so on."
    assert card.operating_points[0].threshold == before.operating_points[0].threshold
    assert card.weights_sha256 == before.weights_sha256
    assert card.card_sha256 != before.card_sha256
    text = (published / "stand-in" / "scores.csv").read_text()
    assert text.splitlines()[1:] == [
        "valid,v,p,1,0.10740089325249458",
        "test,a,a,1,0.30000000000000004",
        "test,b,b,0,0.25",
    ]
    assert sorted(path.name for path in (published / "stand-in").iterdir()) == [
        "card.json", "model.weights.h5", "scores.csv",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("Tested on 9 films of 3 simulated patients. What", "Tested on 30 films of 20 simulated patients. What"),
        (ensembles.UNTESTED, "Tested on 30 films of 20 other simulated patients."),
        (f"{ensembles.UNTESTED} The", "Tested on 30 films of 20 other simulated patients. The"),
        ("Tested on 250 films of 90 other patients.", "Tested on 250 films of 90 other patients."),
    ],
)
def test_the_numbers_in_a_cards_words_are_those_of_the_new_test(words, expected):
    assert documents._tested_on(words, {"test_films": 30, "test_patients": 20}) == expected


@pytest.mark.parametrize("simulated", [True, False])
def test_a_model_that_was_tested_on_real_films_keeps_that_test(published, monkeypatch, capsys, simulated):
    path = published / "stand-in" / "card.json"
    card = read_card(path.parent)
    words = "Tested on 250 films of 90 other patients; and so on."
    told = {"tested_on": words, "simulated": simulated}
    path.write_text(write_card(replace(card, data=card.data | told))[0], encoding="utf-8")
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    made = [studies.KnownStudy(f"s{n}", n % 2, (make_film(0.4 + 0.1 * (n % 2), n % 2, None, n),)) for n in range(6)]
    monkeypatch.setattr(command, "make_studies", lambda *arguments: iter(made))
    options = ["simulated", "--studies", "6", "--resamples", "20", "--write", "--checkpoints", str(published)]

    def open_stand_in(name, folder):
        return SimpleNamespace(classifier=make_reader(name=name, region=None, data=told).classifier, finder=None)

    assert command.run(command._parser().parse_args(options), open_stand_in) == 0
    said = capsys.readouterr().err
    unchanged = {file.name: file.read_bytes() for file in path.parent.iterdir()} == before
    assert unchanged != simulated
    assert ("stand-in was not trained on simulated films: its card and scores stay" in said) != simulated


def test_the_mean_is_told_what_its_models_are(published, monkeypatch, capsys):
    """The kinds of fracture that the mean itself may miss are read from there; a third model is beside it."""
    for name in ("a-1", "b-1", "c-1"):
        shutil.copytree(published / "stand-in", published / name)
        card = read_card(published / "stand-in")
        told = card.data | {"simulated": True}
        (published / name / "card.json").write_text(write_card(replace(card, id=name, data=told))[0], encoding="utf-8")
    shutil.rmtree(published / "stand-in")
    digest = read_card(published / "a-1").weights_sha256
    made = [
        studies.KnownStudy(f"s{n}", n % 2, (make_film(0.4 + 0.1 * (n % 2), n % 2, blob(0, 0), n, **KNOWN),))
        for n in range(6)
    ]
    monkeypatch.setattr(command, "make_studies", lambda *arguments: iter(made))
    options = ["simulated", "--studies", "6", "--resamples", "20", "--write", "--checkpoints", str(published)]

    def open_stand_in(name, folder):
        card = {"data": {"simulated": True}, "weights_sha256": digest, "region": None}
        slope = -20.0 if name == "c-1" else 4.0
        return SimpleNamespace(classifier=make_reader(slope, name=name, **card).classifier, finder=None)

    members = ensembles.members_of(open_stand_in(name, published).classifier.checkpoint for name in ("a-1", "b-1"))
    ensembles.write_ensemble(ensembles.Ensemble(members, POINTS, {"simulated": True}), published)
    assert command.run(command._parser().parse_args(options), open_stand_in) == 0
    told = capsys.readouterr()
    assert "Written: the ensemble's results." in told.err
    assert "The mean is of `a-1`, `b-1`." in told.out
    assert read_card(published / "c-1").data["results"]["auc"]["value"] == 0
    kept = [read_card(published / "a-1").data["results"], ensembles.read_ensemble(published).data["results"]]
    for results in kept:
        assert results["kinds"]["hairline"]["auc"]["value"] == 1
    assert kept[0]["displacements"]
    assert kept[0]["subgroups"]["view"]


@pytest.fixture
def measure_three(published, monkeypatch):
    """Return a function that measures some of three models, of two of which a mean was made, and returns both pages."""
    for name in ("a-1", "b-1", "c-1"):
        shutil.copytree(published / "stand-in", published / name)
        card = read_card(published / "stand-in")
        card = replace(card, id=name, input_size=SIZE, data={**card.data, "simulated": True})
        (published / name / "card.json").write_text(write_card(card)[0], encoding="utf-8")
    shutil.rmtree(published / "stand-in")
    digest = read_card(published / "a-1").weights_sha256
    made = [
        studies.KnownStudy(f"s{n}", n % 2, (make_film(0.4 + 0.1 * (n % 2), n % 2, blob(0, 0), n, **KNOWN),))
        for n in range(6)
    ]
    monkeypatch.setattr(command, "make_studies", lambda seeds, *arguments: iter(made[: len(seeds)]))
    pages = [published / "README.md", published.parent / "README.md"]
    for page in pages:
        page.write_text("<!-- results: simulated -->\n<!-- end -->\n")

    def open_stand_in(name, folder):
        card = {"data": {"simulated": True}, "weights_sha256": digest, "region": None}
        slope = {"a-1": 4.0, "b-1": 9.0, "c-1": -20.0}[name]
        return SimpleNamespace(classifier=make_reader(slope, name=name, **card).classifier, finder=None)

    members = ensembles.members_of(open_stand_in(name, published).classifier.checkpoint for name in ("a-1", "b-1"))
    ensembles.write_ensemble(ensembles.Ensemble(members, POINTS, {"simulated": True}), published)

    def measure(*names, studies=6):
        asked = ["simulated", "--studies", str(studies), "--resamples", "20", "--write", "--checkpoints"]
        asked += [str(published), *(part for name in names for part in ("--checkpoint", name))]
        assert command.run(command._parser().parse_args(asked), open_stand_in) == 0
        return [page.read_text() for page in pages]

    return measure


def test_a_model_that_is_measured_alone_stands_beside_those_measured_before(measure_three, capsys):
    empty = ["<!-- results: simulated -->\n<!-- end -->\n"] * 2
    assert measure_three("c-1") == empty
    assert "they stay as they were. Results on simulated studies are wanted of every model, but a-1" in (
        capsys.readouterr().err
    )
    whole = measure_three("a-1", "b-1")
    report = capsys.readouterr()
    assert "Written: the project's page." in report.err
    for page in whole:
        assert "6 simulated studies of as many patients, 3 with a fracture" in page
        assert "|  | `a-1` | `b-1` | `c-1` | the mean |" in page
        assert "The mean is of `a-1`, `b-1`." in page
    assert "| `a-1` - `c-1` | 1.000 [" in whole[0], "paired with what was measured before"
    assert "| `c-1` - `all` | -1.000 [" in whole[0]
    assert "real normals" not in whole[0].lower()
    assert measure_three() == whole, "all at once"
    printed = capsys.readouterr().out.strip()
    assert printed in whole[0], "what is printed is what is stored"


def test_what_was_measured_on_other_studies_stands_in_no_table(measure_three, capsys):
    before = measure_three()
    capsys.readouterr()
    assert measure_three("b-1", studies=4) == before
    assert "measured on the same simulated studies in the same way, but b-1 was not" in capsys.readouterr().err
    assert measure_three("a-1", "b-1", "c-1") == before
    assert measure_three("a-1", "b-1", "c-1", studies=4) != before


def test_scores_of_others_than_the_cards_studies_stand_in_no_table(measure_three, published, capsys):
    before = measure_three()
    scores = published / "c-1" / "scores.csv"
    scores.write_text("".join(line for line in scores.read_text().splitlines(True) if ",s3," not in line))
    capsys.readouterr()
    assert measure_three("a-1") == before
    assert "The scores of c-1 must be of the studies of its card" in capsys.readouterr().err


def test_a_broken_checkpoint_gets_no_results(published):
    (published / "stand-in" / "model.weights.h5").write_bytes(b"others")
    text = (published / "stand-in" / "card.json").read_text()
    with pytest.raises(CheckpointError, match="altered"):
        documents.store_results(published / "stand-in", {"auc": {"value": 1.0}})
    assert (published / "stand-in" / "card.json").read_text() == text


def test_ensembles_file_gets_results_of_exactly_its_members(tmp_path):
    share = vars(SHARE)
    point = {"name": "high_specificity", "threshold": 0.7, "sensitivity": share, "specificity": share}
    members = {"a-1": "0" * 64, "b-1": "1" * 64}
    listed = [{"id": name, "answers_sha256": digest} for name, digest in members.items()]
    path = tmp_path / "ensemble.json"
    assert not documents.store_ensemble_results(tmp_path, members, {"auc": 1})
    told = {"results": {"x": 1}, "tested_on": "Tested on 824 films of 360 other simulated patients; and so on."}
    path.write_text(json.dumps({"members": listed, "operating_points": [point], "data": told}))
    assert not documents.store_ensemble_results(tmp_path, {"a-1": "0" * 64}, {"auc": 1})
    counts = {"test_films": 3484, "test_patients": 1500, "test_films_refused": 28, "test_patients_left_out": 1}
    assert documents.store_ensemble_results(tmp_path, members, {"auc": 1}, counts)
    content = json.loads(path.read_text())
    assert content["data"]["results"] == {"x": 1, "auc": 1}
    assert content["data"]["tested_on"] == "Tested on 3,456 films of 1,499 other simulated patients; and so on."
    assert (content["members"], content["operating_points"]) == (listed, [point])


# --- the command -----------------------------------------------------------------------------------------------------


def test_report_of_two_checkpoints(monkeypatch, capsys, published):
    made = []
    for number in range(24):
        label = number % 2
        film = make_film(0.45 + 0.1 * label + 0.004 * (number % 7), label, blob(0, 0) if label else None, number)
        made.append(studies.KnownStudy(f"s{number}", label, (film,)))
    monkeypatch.setattr(command, "make_studies", lambda *arguments: iter(made))
    opened = {"m-1": make_reader(9.0, name="m-1"), "m-2": make_reader(-3.0, name="m-2")}
    options = command._parser().parse_args(
        ["simulated", "--studies", "24", "--checkpoint", "m-1", "--checkpoint", "m-2", "--resamples", "50", "--json"]
    )
    assert command.run(options, lambda name, folder: opened[name]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [*report["checkpoints"]] == ["m-1", "m-2", "all"]
    aucs = {name: each["results"]["auc"]["value"] for name, each in report["checkpoints"].items()}
    assert aucs == {"m-1": 1, "m-2": 0, "all": 1}
    assert [(each["first"], each["second"], each["auc"]["value"]) for each in report["differences"]] == [
        ("m-1", "m-2", 1), ("m-1", "all", 0), ("m-2", "all", -1),
    ]  # fmt: skip
    assert report["checkpoints"]["m-1"]["results"]["location_peak_in_mask"]["value"] == 1
    assert "sensitivity_at_high_specificity" in report["checkpoints"]["m-1"]["results"]
    assert not any("_at_" in name for name in report["checkpoints"]["all"]["results"])  # no points were chosen for it
    assert (report["studies"], report["positives"], report["films"]) == (24, 12, 24)
    assert report["first_seed"] == 2**53
    shown = tables.simulated_tables(report)
    assert "| AUC (n = 24) | 1.000 [" in shown
    assert "| `m-1` - `m-2` | 1.000 [" in shown
    assert "| the mean |" in tables.short_simulated_table(report)


def test_the_mean_is_measured_with_the_calibration_and_the_points_that_are_its_own(monkeypatch, capsys, tmp_path):
    made = [studies.KnownStudy(f"s{n}", n % 2, (make_film(0.4 + 0.2 * (n % 2), n % 2, None, n),)) for n in range(8)]
    monkeypatch.setattr(command, "make_studies", lambda *arguments: iter(made))
    opened = {name: make_reader(4.0, name=name) for name in ("m-1", "m-2")}
    cards = [reader.classifier.checkpoint for reader in opened.values()]
    asked = ["simulated", "--studies", "8", "--checkpoint", "m-1", "--checkpoint", "m-2", "--resamples", "20", "--json"]
    options = command._parser().parse_args([*asked, "--checkpoints", str(tmp_path)])
    brier = {}
    for sharpened in (None, {"method": "temperature", "temperature": 0.5}):
        points = (OperatingPoint("high_specificity", 0.5, SHARE, SHARE),)
        ensembles.write_ensemble(ensembles.Ensemble(ensembles.members_of(cards), points, {}, sharpened), tmp_path)
        assert command.run(options, lambda name, folder: opened[name]) == 0
        found = json.loads(capsys.readouterr().out)["checkpoints"]
        assert found["all"]["results"]["sensitivity_at_high_specificity"]["value"] == 1
        brier[bool(sharpened)] = {name: each["results"]["brier"]["value"] for name, each in found.items()}
    alone, sharp = expit(-0.4) ** 2, expit(-0.8) ** 2
    assert brier[False] == pytest.approx({"m-1": alone, "m-2": alone, "all": alone}, abs=1e-6)
    assert brier[True] == pytest.approx({"m-1": alone, "m-2": alone, "all": sharp}, abs=1e-6)


def test_measuring_the_embedded_model_end_to_end(tmp_path, capsys):
    """Six simulated studies, read by the real network; results are written into copies."""
    folder = tmp_path / "checkpoints"
    chosen = default_id()
    finder = read_card(CHECKPOINTS / chosen).region
    for name in (chosen, *([finder] if finder else [])):
        shutil.copytree(CHECKPOINTS / name, folder / name)
    for page in (folder / "README.md", tmp_path / "README.md"):
        page.write_text("before\n<!-- results: simulated -->\n<!-- end -->\nafter\n")
    valid = [scores for scores in read_scores(folder / chosen) if scores.split == "valid"]
    arguments = ["simulated", "--studies", "6", "--jobs", "0", "--size", "256", "--resamples", "20", "--write"]
    assert command.main([*arguments, "--checkpoints", str(folder)]) == 0
    out = capsys.readouterr().out
    card = verify(folder / chosen)
    auc = card.data["results"]["auc"]
    assert card.data["counts"]["test_studies"] == 6
    assert f"| AUC (n = {auc['n']}) | {auc['value']:.3f} [" in out
    page = (folder / "README.md").read_text()
    assert page.startswith("before\n<!-- results: simulated -->\n6 simulated studies")
    assert page.endswith("<!-- end -->\nafter\n")
    assert out.strip() in page
    assert f"`{chosen}` | {auc['value']:.3f} [" in (tmp_path / "README.md").read_text()
    if finder:
        assert verify(folder / finder).data["results"]["centre_error_median"]["n"] == card.data["counts"]["test_films"]
    after = {scores.split: scores for scores in read_scores(folder / chosen)}
    assert auc["n"] == len(after["test"].study_ids) <= 6
    assert auc["value"] == pytest.approx(roc_auc_score(after["test"].labels, after["test"].probabilities))
    if valid:
        assert after["valid"].probabilities.tolist() == valid[0].probabilities.tolist()


# --- heat maps -------------------------------------------------------------------------------------------------------


def test_one_film_of_each_broken_study_is_outlined():
    def film(number, shows, **facts):
        known = {"kind": "transverse", "displacement_mm": 0.0, "gap_mm": 0.0, "spacing_mm": 0.3} | facts
        return make_film(0.5, 1, blob(1, 2) if shows else None, number, **known)

    made = [
        studies.KnownStudy("a", 1, (film(0, True), film(1, True))),
        studies.KnownStudy("b", 1, (film(2, True), film(3, True, gap_mm=2.0))),
        studies.KnownStudy("c", 1, (film(4, False), film(5, True, displacement_mm=0.9, gap_mm=0.2))),
        studies.KnownStudy("d", 1, (film(6, False),)),
    ]
    found = list(maps.outlined_films(made))
    # What else than the seed a film hangs on is in its name.
    assert [(each.name, each.patient_id, each.thin) for each in found] == [
        (f"film-0.5-0-v{VERSION}-{SIZE}px", "a", True),
        (f"film-0.5-3-v{VERSION}-{SIZE}px", "b", False),  # its gap is not below the limit
        (f"film-0.5-5-v{VERSION}-{SIZE}px", "c", True),
    ]
    assert {(each.spacing_mm, each.origin) for each in found} == {((0.3, 0.3), "simulated")}
    assert all(each.outline.sum() == blob(1, 2).sum() for each in found)


def test_heat_maps_are_measured_told_and_stored(published, monkeypatch, capsys):
    asked = []

    def make(seeds, *_):
        asked.extend(seeds)
        for number in range(4):
            facts = {"kind": "transverse", "displacement_mm": 0.0, "gap_mm": 2.0 * (number == 0), "spacing_mm": 0.5}
            yield studies.KnownStudy(f"s{number}", 1, (make_film(0.5, 1, blob(0, 0), number, **facts),))

    def measure(films, reader, check_every, is_fit, progress, kept):
        assert (check_every, kept) == (5, None)
        for film in films:
            told = (film.name, film.patient_id, film.origin, reader.classifier.checkpoint.id)
            for method, hit, away in (("layercam", film.thin, 0.0), ("gradcam", False, 7.25)):
                place = (float(hit), 0.5, away, "mm", (0.25,) * len(THRESHOLDS))
                yield comparison.MapRow(*told, method, film.thin, 0.9, *place)

    monkeypatch.setattr(command, "make_studies", make)
    monkeypatch.setattr(maps, "measure_maps", lambda *films, **asked: list(measure(*films, **asked)))
    pages = (published / "README.md", published.parent / "README.md")
    for page in pages:
        page.write_text("<!-- results: explanations -->\n<!-- end -->\n")
    options = ["explanations", "--films", "4", "--resamples", "20", "--write", "--checkpoints", str(published)]
    assert command.run(command._parser().parse_args(options), lambda name, folder: make_reader(name=name)) == 0
    assert len(asked) == 4
    assert all(broken for _, broken in asked)
    out = capsys.readouterr().out
    assert out.strip() in pages[0].read_text()
    assert "Heat maps of 4 simulated films with a fracture, each of another study, 3 of them with a thin break" in out
    assert "Of 4 broken studies 4 have a film that shows the break." in out
    assert "refused as unfit to be read, which are in no estimate: `stand-in` 0." in out
    assert "| `stand-in` (n = 4) |" in out
    assert "explanations --films 4 --seed 0 --resamples 20 --write`" in out, "what was not as usual"
    assert "| `stand-in`, thin breaks (n = 3) |" in out
    rows = [line.split(" | ") for line in pages[1].read_text().splitlines() if line.startswith("| `stand-in`")]
    assert [(row[1], row[2][:5], row[3][:5], row[4][:5], row[5][:5]) for row in rows] == [
        ("LayerCAM", "0.750", "1.000", "1.000", "0.000"),
        ("Grad-CAM", "0.000", "0.000", "-", "7.250"),
    ]
    written = comparison.read_rows(published / comparison.MEASURED_NAME)
    assert [(row.film, row.method, row.thin) for row in written[:2]] == [
        (f"film-0.5-0-v{VERSION}-{SIZE}px", "layercam", False),
        (f"film-0.5-0-v{VERSION}-{SIZE}px", "gradcam", False),
    ]


def test_maps_of_a_model_that_is_measured_alone_stand_beside_those_measured_before(published, monkeypatch, capsys):
    for name in ("a-1", "b-1"):
        shutil.copytree(published / "stand-in", published / name)
        card = replace(read_card(published / "stand-in"), id=name)
        (published / name / "card.json").write_text(write_card(card)[0], encoding="utf-8")
    shutil.rmtree(published / "stand-in")
    cards = {name: read_card(published / name) for name in ("a-1", "b-1")}

    def make(seeds, size, jobs):
        for number, (seed, broken) in enumerate(seeds):
            film = make_film(0.5, 1, blob(0, 0), number, **KNOWN)
            yield studies.KnownStudy(f"s{seed}", int(broken), (film,))

    def measure(films, reader, check_every, **_):
        card = reader.classifier.checkpoint
        for number, film in enumerate(films):
            told = (film.name, film.patient_id, film.origin, card.id)
            away = 1.0 + number if card.id == "a-1" else 9.0
            row = comparison.MapRow(*told, "gradcam", film.thin, 0.9, False, 0.5, away, "mm", (0.25,) * len(THRESHOLDS))
            checked = "good" if check_every and number % check_every == 0 else ""
            yield replace(row, weights=comparison.weights_key(card), level=checked)

    monkeypatch.setattr(command, "make_studies", make)
    monkeypatch.setattr(maps, "measure_maps", lambda *films, **asked: list(measure(*films, **asked)))
    pages = (published / "README.md", published.parent / "README.md")
    empty = "<!-- results: explanations -->\n<!-- end -->\n"
    for page in pages:
        page.write_text(empty)

    def appraise(*names, films=4, more=()):
        asked = ["explanations", "--films", str(films), "--resamples", "20", "--write", "--checkpoints", str(published)]
        asked += [part for name in names for part in ("--checkpoint", name)]
        options = command._parser().parse_args([*asked, *more])
        opened = lambda name, _: SimpleNamespace(classifier=SimpleNamespace(checkpoint=cards[name]), finder=None)  # noqa: E731
        assert command.run(options, opened) == 0
        stored = comparison.read_rows(published / comparison.MEASURED_NAME)
        return [page.read_text() for page in pages], [row.checkpoint_id for row in stored]

    assert appraise("b-1") == ([empty] * 2, ["b-1"] * 4)
    assert "a-1 was not measured on these films" in capsys.readouterr().err
    whole = appraise("a-1")
    assert whole[1] == ["a-1"] * 4 + ["b-1"] * 4
    assert all("| `a-1` | Grad-CAM | 0.000" in page or "| `a-1` (n = 4) |" in page for page in whole[0])
    assert appraise() == whole, "all at once"
    # Fewer films, or others that were checked: what was measured of b-1 stays, but stands in no table beside these.
    for asked, count in (({"films": 3}, 3), ({"more": ("--check-every", "2")}, 4)):
        assert appraise("a-1", **asked) == (whole[0], ["a-1"] * count + ["b-1"] * 4)
        assert "b-1 was not measured on these films" in capsys.readouterr().err
        assert appraise("a-1") == whole
    place = published / comparison.MEASURED_NAME
    table = place.read_text()
    place.write_text("another table")
    with pytest.raises(ExplanationError):
        appraise("a-1")
    place.write_text(table)
    # Other weights of the same name are another model.
    cards["b-1"] = replace(cards["b-1"], weights_sha256=sha256(b"others").hexdigest())
    (published / "b-1" / "model.weights.h5").write_bytes(b"others")
    (published / "b-1" / "card.json").write_text(write_card(cards["b-1"])[0], encoding="utf-8")
    assert appraise("a-1") == (whole[0], ["a-1"] * 4)
    assert "b-1 was not measured on these films" in capsys.readouterr().err


def test_films_whose_maps_are_not_measured_are_told(monkeypatch, capsys, tmp_path):
    """Of five broken studies one shows no break; of the others the second checkpoint refuses two, and draws one map."""
    brightness = (0.7, 0.4, 0.6, 0.4, 0.65)
    made = [
        studies.KnownStudy(f"s{number}", 1, (make_film(each, 1, blob(0, 0) if number < 4 else None, number, **KNOWN),))
        for number, each in enumerate(brightness)
    ]

    def explained(classifier, film, *, method, region):
        sees = film.pixels.mean() > 0.65 or classifier.checkpoint.id == "m-1"
        heat = np.full((SIZE, SIZE), float(sees), np.float32)
        return Explanation(film.id, classifier.checkpoint.id, method, "for", heat, float(sees))

    monkeypatch.setattr(command, "make_studies", lambda *_: iter(made))
    monkeypatch.setattr(comparison, "explain", explained)
    monkeypatch.setattr(comparison, "available_methods", lambda card: ("gradcam",))
    monkeypatch.setattr(maps, "measure_maps", partial(_measured_without_checks, maps.measure_maps))
    opened = {"m-1": make_reader(name="m-1"), "m-2": make_reader(finder=half_blind_finder(), name="m-2")}
    asked = ["explanations", "--films", "5", "--resamples", "20", "--checkpoint", "m-1", "--checkpoint", "m-2"]
    for more in ([], ["--json"]):
        assert command.run(command._parser().parse_args([*asked, *more]), lambda name, _: opened[name]) == 0
    text, told = capsys.readouterr().out.rsplit("\n", 2)[:2]
    report = json.loads(told)
    assert (report["films"], report["refused"]) == (4, {"m-1": 0, "m-2": 2})
    assert "Of 5 broken studies 4 have a film that shows the break." in text
    assert "which are in no estimate: `m-1` 0, `m-2` 2." in text
    assert "which are in no estimate: `m-1` 0, `m-2` 2." in tables.short_explanations_table(report)
    assert "| `m-2` (n = 2) |" in text
    second = next(each for each in report["explanations"] if (each["checkpoint"], each["method"]) == ("m-2", "gradcam"))
    assert (second["n"], second["distance"]["n"]) == (2, 1)
    (row,) = [line for line in text.split("| `m-2` (n = 2) |")[1].splitlines() if line.startswith("| Grad-CAM")][:1]
    assert row.count(", n = 1 |") == 2, "only one map is shown as evidence, and its distance alone is known"

    keeping = [*asked, "--keep", str(tmp_path / "kept.csv")]
    for explain in (explained, None):  # the second time nothing is explained
        monkeypatch.setattr(comparison, "explain", explain)
        monkeypatch.setattr(command, "make_studies", lambda *_: iter(made))
        assert command.run(command._parser().parse_args(keeping), lambda name, _: opened[name]) == 0
        assert capsys.readouterr().out.strip() == text.strip()


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_what_is_cut_off_in_the_midst_of_a_line_costs_that_line(tmp_path):
    path = tmp_path / "kept.jsonl"
    kept = Kept(path)
    assert kept.find(["a", 1]) is None
    kept.add(["a", 1], {"x": 1.5})
    kept.add(["b", 1], [1, None])
    path.write_bytes(path.read_bytes()[:-3])
    again = Kept(path)
    assert (again.find(["a", 1]), again.find(("b", 1))) == ({"x": 1.5}, None)
    again.add(["c", 1], 7)
    assert [Kept(path).find([name, 1]) for name in "abc"] == [{"x": 1.5}, None, 7]
    for text in ("film,method\n", '{"film": "x"}\n', "[1]\n", "7\n"):
        path.write_text(text)
        with pytest.raises(ScoresError, match="kept measurements"):
            Kept(path)
    with pytest.raises(ScoresError, match="cannot be kept"):
        Kept(tmp_path / "none" / "kept.jsonl").add(["a"], 1)


def test_studies_that_were_read_before_are_not_read_again(tmp_path):
    def studied():
        return [
            studies.KnownStudy("a", 1, (make_film(0.7, 1, blob(0, 0)), make_film(0.4, 1, blob(0, 0), 1))),
            studies.KnownStudy("b", 0, (make_film(0.6, number=2),)),
        ]

    def read(*readers):
        return reading.read_all(studied(), readers, kept=Kept(tmp_path / "kept.jsonl"))

    def told(found, name):
        return [(film.study_id, film.logit, film.probability, dict(film.places)) for film in found.films[name]]

    first, half_blind = make_reader(), make_reader(-3.0, half_blind_finder(), name="m-2", region="another-finder")
    before = read(first)
    assert first.classifier.passes
    again, both = make_reader(), None
    both = read(again, half_blind)
    assert not again.classifier.passes, "of it everything was kept"
    assert told(both, "stand-in") == told(before, "stand-in")
    assert len(both.films["m-2"]) == 2
    assert both.refused == {"stand-in": 0, "m-2": 1, "all": 0}
    assert [film.probability for film in both.films["all"]] == [
        film.probability for film in reading.read_all(studied(), [make_reader(), half_blind]).films["all"]
    ]
    # What was kept is calibrated as the card now says, and not asked for again.
    halved, moved = make_reader(calibration=HALVED), make_reader(study_calibration=HALVED)
    for other in (halved, moved):
        films = read(other).films["stand-in"]
        assert not other.classifier.passes
        assert [film.probability for film in films] == pytest.approx([expit(film.logit / 2) for film in films])
    for change in ({"weights_sha256": "1" * 64}, {"looks": 2}, {"name": "m-3"}):
        other = make_reader(**change)
        read(other)
        assert other.classifier.passes, change


# --- Quick Score-CAM beside Score-CAM --------------------------------------------------------------------------------


def whole_studies(*labels):
    """Return studies of two films; a broken one shows its break on the second alone."""
    return [
        studies.KnownStudy(
            f"s{number}",
            label,
            tuple(make_film(0.5 + 0.01 * number, label, blob(0, 0) if label * n else None, n) for n in range(2)),
        )
        for number, label in enumerate(labels)
    ]


def test_one_film_of_each_study_is_looked_at_and_of_a_broken_one_a_film_that_shows_it():
    made = whole_studies(1, 0, 1, 0)
    hidden = studies.KnownStudy("hidden", 1, (make_film(0.4, 1),))
    chosen = list(quick.one_of_each([*made, hidden]))
    assert [patient for patient, _ in chosen] == ["s0", "s1", "s2", "s3"], "a break that no film shows is left out"
    places = [made[number].films.index(film) for number, (_, film) in enumerate(chosen)]
    assert places == [1, 0, 1, 1]


def draw_instead(monkeypatch, told, *pairs):
    """Let the two maps of each further film be those of `pairs`: whole, quick."""
    left = [np.array(each, np.float32) for pair in pairs for each in pair]

    def explain_square(classifier, square, *, method, **settings):
        told.append((classifier.checkpoint.id, method, settings))
        return left.pop(0), 1.0, {}

    monkeypatch.setattr(quick, "explain_square", explain_square)


FLAT = [[0.0, 0], [0, 0]]
RISING = [[0.0, 1], [2, 4]]


def test_two_maps_are_compared_by_rank_and_in_line(monkeypatch):
    """By hand: with two of four ranks swapped 1 - 6 * 2 / (4 * 15) = 0.8 is left of the rank correlation."""
    told, done = [], []
    pairs = (RISING, [[0, 2], [1, 4]]), (RISING, [[0, 1], [4, 16]]), (RISING, FLAT), (FLAT, FLAT)
    draw_instead(monkeypatch, told, *pairs)
    films = list(quick.one_of_each(whole_studies(1, 0, 1, 0)))
    rows = quick.measure_likeness(films, [make_reader(name="m-1")], done.append, Kept(None))
    assert done == [1, 2, 3, 4]
    assert told[:2] == [("m-1", "scorecam", {}), ("m-1", "quickscorecam", {"groups": quick.QUICK_GROUPS})]
    assert [row.broken for row in rows] == [True, False, True, False]
    assert [row.patient_id for row in rows] == ["s0", "s1", "s2", "s3"]
    assert rows[0].spearman == pytest.approx(0.8)
    assert rows[0].pearson == pytest.approx(np.corrcoef([0, 1, 2, 4], [0, 2, 1, 4])[0, 1])
    assert rows[1].spearman == pytest.approx(1)
    assert rows[1].pearson == pytest.approx(np.corrcoef([0, 1, 2, 4], [0, 1, 4, 16])[0, 1])
    assert [(row.spearman, row.pearson) for row in rows[2:]] == [(0, 0), (None, None)]

    found = quick.summarise_likeness(rows, 50)["m-1"]
    assert [*found] == ["all films", "with a break", "without"]
    every = found["all films"]
    assert (every["spearman"]["value"], every["spearman"]["n"]) == (pytest.approx(0.8), 3)
    assert every["spearman_10th_percentile"]["value"] == 0
    assert (every["reach"]["value"], every["no_map"]) == (pytest.approx(1 / 3), 1)
    assert found["with a break"]["spearman"]["value"] == pytest.approx(0.4)
    assert (found["without"]["spearman"]["n"], found["without"]["no_map"]) == (1, 1)


def test_what_was_compared_is_kept_by_film_weights_and_groups(monkeypatch, tmp_path):
    kept, told = tmp_path / "kept.jsonl", []
    films = list(quick.one_of_each(whole_studies(1, 0)))

    def measure(*pairs, **card):
        told.clear()
        draw_instead(monkeypatch, told, *pairs)
        readers = [make_reader(name="m-1", **card)]
        return quick.measure_likeness(films, readers, lambda done: None, Kept(kept))

    first = measure((RISING, RISING), (RISING, [[0, 2], [1, 4]]))
    assert (measure(), told) == (first, [])
    other = measure((RISING, RISING), (RISING, RISING), weights_sha256="1" * 64)
    assert [row.spearman for row in other] == pytest.approx([1, 1])
    assert measure() == first
    monkeypatch.setattr(quick, "QUICK_GROUPS", 8)
    measure((RISING, RISING), (RISING, RISING))
    assert len(kept.read_text().splitlines()) == 6


def test_likeness_of_the_quick_maps_is_told_in_the_document(monkeypatch, published, capsys):
    """Of four films one gives no map."""
    page = published / "README.md"
    page.write_text("<!-- results: quickscorecam -->\n<!-- end -->\n")
    monkeypatch.setattr(command, "make_studies", lambda *_: iter(whole_studies(1, 0, 1, 0)))
    draw_instead(monkeypatch, [], *[(RISING, RISING)] * 3, (FLAT, FLAT))
    options = ["quickscorecam", "--films", "4", "--resamples", "20", "--write", "--checkpoints", str(published)]
    assert command.run(command._parser().parse_args(options), lambda name, folder: make_reader(name=name)) == 0
    out = capsys.readouterr().out
    assert out.strip() in page.read_text()
    assert "of 4 simulated films, each of another study" in out
    assert "quickscorecam --films 4 --seed 0 --resamples 20 --write`" in out
    assert "refused as unfit to be read, which are in no estimate: `stand-in` 0." in out
    rows = [line.strip("| ").split(" | ") for line in out.splitlines() if line.startswith("| `stand-in`")]
    assert [(row[1], row[2][:5], row[-1]) for row in rows] == [
        ("all films (n = 3)", "1.000", "1"),
        ("with a break (n = 2)", "1.000", "0"),
        ("without (n = 1)", "1.000", "1"),
    ]


def test_films_of_which_two_maps_cannot_be_compared_are_told(monkeypatch, capsys):
    """The second checkpoint's finder sees a wrist on the brighter of two films alone, and its maps are flat there."""
    made = [studies.KnownStudy(f"s{n}", 0, (make_film(0.45 + 0.2 * n, number=n),)) for n in range(2)]
    monkeypatch.setattr(command, "make_studies", lambda *_: iter(made))
    told = []
    draw_instead(monkeypatch, told, (RISING, RISING), (RISING, RISING), (FLAT, FLAT))
    opened = {"m-1": make_reader(name="m-1"), "m-2": make_reader(finder=half_blind_finder(), name="m-2")}
    asked = ["quickscorecam", "--films", "2", "--resamples", "20", "--checkpoint", "m-1", "--checkpoint", "m-2"]
    assert command.run(command._parser().parse_args(asked), lambda name, _: opened[name]) == 0
    out = capsys.readouterr().out
    assert [name for name, *_ in told] == ["m-1"] * 4 + ["m-2"] * 2
    assert "refused as unfit to be read, which are in no estimate: `m-1` 0, `m-2` 1." in out
    assert "| `m-2` | all films (n = 0) | - | - | - | - | 1 |" in out
    opened["m-1"] = replace_finder(opened["m-1"])
    monkeypatch.setattr(command, "make_studies", lambda *_: iter(made[:1]))
    with pytest.raises(ExplanationError, match="fit to be read"):
        command.run(command._parser().parse_args(asked), lambda name, _: opened[name])


def replace_finder(reader):
    return SimpleNamespace(classifier=reader.classifier, finder=half_blind_finder())


def _measured_without_checks(measure, *films_and_reader, check_every, **more):
    return measure(*films_and_reader, check_every=0, **more)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "required"),
        (["simulated", "--studies", "1"], "whole number from 2"),
        (["simulated", "--seed", "-1"], "whole number from 0"),
        (["steadiness", "--films", "0"], "whole number from 1"),
        (["explanations", "--films", "0"], "whole number from 1"),
        (["quickscorecam", "--films", "1"], "whole number from 2"),
        (["steadiness", "--data", "x", "--format", "none"], "invalid choice"),
    ],
)
def test_wrong_options(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(arguments)
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err


def test_mistakes_are_one_line_and_status_1(tmp_path, capsys):
    assert command.main(["simulated", "--checkpoints", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert str(tmp_path) not in err


def test_documents_change_only_where_all_checkpoints_were_measured(published, monkeypatch, capsys):
    def measure(*names):
        options = ["steadiness", "--films", "2", "--resamples", "20", "--write", "--checkpoints", str(published)]
        options += [part for name in names for part in ("--checkpoint", name)]
        films = [studies.KnownStudy("s", 0, (make_film(0.4), make_film(0.5, number=1)))]
        monkeypatch.setattr(command, "make_studies", lambda *arguments: iter(films))
        command.run(command._parser().parse_args(options), lambda name, folder: make_reader(name=name))
        return page.read_text()

    page = published / "README.md"
    empty = "<!-- results: steadiness -->\n<!-- end -->\n"
    page.write_text(empty)
    assert measure("another") == empty
    assert "stay as they were" in capsys.readouterr().err
    text = measure()
    assert "| mirrored | 0.000 [" in text
    assert "`python -m core.appraise steadiness --films 2 --seed 0 --write`" in text
