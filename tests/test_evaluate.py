"""core.evaluate: the command's contract, with films made here and a stand-in for the network."""

import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from core import evaluate, metrics
from core.checkpoints import list_checkpoints
from core.checkpoints.ensembles import Ensemble, members_of, write_ensemble
from core.datasets import WRISTS_ALONE, index_dataset, split_dataset
from core.datasets.splits import fingerprint
from core.errors import CheckpointError, DatasetError, RadiographError, ScoresError
from core.evaluate import baselines, command
from core.evaluate.baselines import StudyFacts
from core.metrics import evaluate_scores, read_scores, wilson_interval
from core.values import FITS, Checkpoint, Interval, OperatingPoint, Prediction, Radiograph, Scores, Study, WristRegion

ROOT = Path(__file__).resolve().parent.parent
KEYS = [
    *("n", "positives", "auc", "average_precision", "brier", "ece", "threshold", "confusion"),
    *("sensitivity", "specificity", "accuracy", "precision", "npv", "f1", "kappa"),
    *("balanced_accuracy", "youden", "mcc", "adaptive_ece", "log_loss"),
]


def make_card(**changes):
    share = Interval(0.9, 0.8, 1.0, 20)
    points = (
        OperatingPoint("high_sensitivity", 0.2, share, share),
        OperatingPoint("high_specificity", 0.6, share, share),
    )
    entries = {"operating_points": points, "weights_sha256": "0" * 64} | changes
    return Checkpoint("stand-in", "Stand-in", "fracture", "resnet50", "conv5_block3_out", 224, **entries)


class BrightnessClassifier:
    """Says how bright a film is: what a network answers is then known."""

    def __init__(self, **card):
        self.checkpoint = make_card(**card)
        self.asked = []

    def predict(self, radiographs, regions=None):
        self.asked.append((len(radiographs), list(regions)))
        means = [float(film.pixels.mean()) for film in radiographs]
        return [Prediction(film.id, "stand-in", float(logit(p)), p) for film, p in zip(radiographs, means, strict=True)]


class CentreFinder:
    def find(self, radiograph):
        return WristRegion(radiograph.width / 2, radiograph.height / 2, radiograph.width)


def open_stand_in(finder=None, **card):
    asked = []

    def open_reader(checkpoint_id=None):
        asked.append(checkpoint_id)
        return SimpleNamespace(classifier=BrightnessClassifier(**card), finder=finder)

    open_reader.asked = asked
    return open_reader


def run(*arguments, open_reader=None):
    return evaluate.run(command.make_parser().parse_args([str(argument) for argument in arguments]), open_reader)


def save_film(path, brightness):
    """A film whose pixels are `brightness` on average, with some contrast."""
    path.parent.mkdir(parents=True, exist_ok=True)
    film = np.full((64, 48), brightness, np.uint8)
    film[::2] += 20
    film[1::2] -= 20
    Image.fromarray(film).save(path)


@pytest.fixture
def dataset(tmp_path):
    """Four studies of three patients; a study's probability is the mean of its films' brightness."""
    root = tmp_path / "films"
    for name, brightness in {
        "valid/XR_WRIST/patient1/study1_positive/image1.png": 204,
        "valid/XR_WRIST/patient1/study1_positive/image2.png": 102,
        "valid/XR_WRIST/patient1/study2_negative/image1.png": 51,
        "valid/XR_WRIST/patient2/study1_negative/image1.png": 179,
        "train/XR_WRIST/patient3/study1_positive/image1.png": 230,
    }.items():
        save_film(root / name, brightness)
    return root


def test_what_the_model_learned_from_is_told_before_it_is_measured(tmp_path, capsys):
    root = tmp_path / "films"
    for n in range(6):
        part, label = "train" if n < 2 else "valid", "positive" if n % 2 else "negative"
        save_film(root / f"{part}/XR_WRIST/patient{n}/study1_{label}/image1.png", 60 + 20 * n)
    own = fingerprint(split_dataset(index_dataset(root).splits, 0))
    knows = open_stand_in(data={"split": own, "simulated": False})
    assert run("--data", root, "--resamples", 5, open_reader=knows) == 0
    told = "stand-in learned from patients of 2 of these 6 studies, and its limits were chosen on those of 2"
    assert told in capsys.readouterr().err
    for n in range(2, 6):
        label = "positive" if n % 2 else "negative"
        save_film(root / f"valid/XR_ELBOW/patient{n + 10}/study1_{label}/image1.png", 60 + 20 * n)
    for region in ("all", "XR_WRIST"):  # a recipe takes every part of the body, another the wrists alone
        taken = fingerprint(split_dataset(index_dataset(root, region=region).splits, 0))
        knows = open_stand_in(data={"split": taken, "simulated": False})
        for asked in ((), ("--region", "all")):
            assert run("--data", root, "--resamples", 5, *asked, open_reader=knows) == 0
            assert "stand-in learned from patients of 2 of these" in capsys.readouterr().err
    shutil.rmtree(root / "valid" / "XR_WRIST")
    shutil.rmtree(root / "train" / "XR_WRIST")
    for n in range(2):
        save_film(root / f"train/XR_HAND/patient{n}/study1_{('negative', 'positive')[n]}/image1.png", 60 + 20 * n)
    for asked in ((), ("--region", "all")):  # no wrist is there
        assert run("--data", root, "--resamples", 5, *asked, open_reader=open_stand_in(data={"split": "x"})) == 0
    shutil.rmtree(root)
    for n in range(6):
        part, label = "train" if n < 2 else "valid", "positive" if n % 2 else "negative"
        save_film(root / f"{part}/XR_WRIST/patient{n}/study1_{label}/image1.png", 60 + 20 * n)
    capsys.readouterr()
    elsewhere = open_stand_in(data={"split": "another", "simulated": False})
    assert run("--data", root, "--resamples", 5, open_reader=elsewhere) == 0
    assert "stand-in may have learned from films of patients; if these are among them" in capsys.readouterr().err
    made = {"split": "another", "simulated": True, "simulator": {"version": 3, "seed": 1}}
    assert run("--data", root, "--resamples", 5, open_reader=open_stand_in(data=made)) == 0
    assert "learned from" not in capsys.readouterr().err
    later = open_stand_in(data={"learned": [{"split": "x", "seed": 1, "version": "1"},
                                            {"split": own, "seed": None, "version": None}]})  # fmt: skip
    assert run("--data", root, "--split", "valid", "--resamples", 5, open_reader=later) == 0
    assert "of 0 of these 4 studies, and its limits were chosen on those of 2" in capsys.readouterr().err


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 80)
    probabilities = np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1)
    rows = [f"s{i},p{i // 2},{labels[i]},{probabilities[i]!r}" for i in range(80)]
    path = tmp_path / "scores.csv"
    path.write_text(
        "\n".join(["study_id,patient_id,label,probability", *rows]).replace("np.float64(", "").replace(")", "")
    )
    return path


def test_scores_to_json(table, capsys):
    assert run("--scores", table, "--json", "--resamples", 300, "--seed", 5, "--threshold", 0.4) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert [*report] == KEYS
    assert report == evaluate_scores(read_scores(table), 0.4, 300, 5).to_dict()
    assert all(
        [*report[name]] == ["value", "low", "high"]
        for name in KEYS
        if name not in ("n", "positives", "threshold", "confusion")
    )
    assert err == ""


def test_threshold_comes_from_the_option_the_checkpoint_or_is_one_half(table, tmp_path, capsys):
    run("--scores", table, "--json", "--resamples", 1)
    assert json.loads(capsys.readouterr().out)["threshold"] == 0.5
    assert evaluate.threshold_of(make_card()) == 0.6
    assert evaluate.threshold_of(make_card(operating_points=make_card().operating_points[:1])) == 0.2
    assert evaluate.threshold_of(make_card(operating_points=())) == 0.5


def test_table_for_people(table, capsys):
    assert run("--scores", table, "--resamples", 50) == 0
    out = capsys.readouterr().out
    evaluation = evaluate_scores(read_scores(table), 0.5, 50)
    line = next(line for line in out.splitlines() if line.startswith("Sensitivity"))
    low, high = f"{evaluation.sensitivity.low:.3f}", f"{evaluation.sensitivity.high:.3f}"
    assert line.split() == [
        "Sensitivity",
        f"{evaluation.sensitivity.value:.3f}",
        low,
        "to",
        high,
        str(evaluation.positives),
    ]
    assert "80 studies of 40 patients" in out
    counts = evaluation.confusion
    rows = [line.split() for line in out.splitlines()]
    assert ["positive", str(counts.tp), str(counts.fn)] in rows
    assert ["negative", str(counts.fp), str(counts.tn)] in rows


def test_one_is_one_in_words(tmp_path, capsys):
    path = tmp_path / "one.csv"
    path.write_text("study_id,patient_id,label,probability\na,p,1,0.7\n")
    run("--scores", path, "--resamples", 20)
    assert "1 study of 1 patient, 1 positive" in capsys.readouterr().out


def test_undefined_is_shown_as_a_dash(tmp_path, capsys):
    path = tmp_path / "scores.csv"
    path.write_text("study_id,patient_id,label,probability\na,p,1,0.7\nb,q,1,0.8\n")
    run("--scores", path, "--resamples", 20)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("AUC"))
    assert line.split() == ["AUC", "-", "-", "to", "-", "2"]


def test_films_to_scores(dataset, tmp_path, capsys):
    out = tmp_path / "scores.csv"
    opened = open_stand_in()
    assert run("--data", dataset, "--json", "--out", out, "--resamples", 10, open_reader=opened) == 0
    report = json.loads(capsys.readouterr().out)
    assert opened.asked == [None]
    assert (report["n"], report["positives"], report["threshold"]) == (4, 2, 0.6)
    assert report["confusion"] == {"tp": 2, "fp": 1, "tn": 1, "fn": 0}
    scores = read_scores(out)
    by_id = dict(zip(scores.study_ids, scores.probabilities, strict=True))
    expected = {"train/XR_WRIST/patient3/study1": 230 / 255, "valid/XR_WRIST/patient1/study1": 153 / 255}
    expected |= {"valid/XR_WRIST/patient1/study2": 51 / 255, "valid/XR_WRIST/patient2/study1": 179 / 255}
    assert by_id == pytest.approx(expected, abs=1e-6)
    assert out.read_text().splitlines()[0] == "study_id,patient_id,label,probability"
    assert run("--scores", out, "--threshold", 0.6, "--json", "--resamples", 10) == 0
    points = report.pop("operating_points")
    assert (report.pop("films_refused"), report.pop("studies_refused")) == (0, 0)
    assert [(point["name"], point["threshold"]) for point in points] == [
        ("high_sensitivity", 0.2),
        ("high_specificity", 0.6),
    ]
    assert [(point["sensitivity"]["value"], point["specificity"]["value"]) for point in points] == [(1, 0), (1, 0.5)]
    assert json.loads(capsys.readouterr().out) == report


def test_one_split_and_a_named_checkpoint(dataset, capsys):
    opened = open_stand_in(operating_points=())
    run("--data", dataset, "--split", "valid", "--checkpoint", "other", "--json", "--resamples", 5, open_reader=opened)
    report = json.loads(capsys.readouterr().out)
    assert opened.asked == ["other"]
    assert (report["n"], report["positives"], report["threshold"]) == (3, 1, 0.5)
    with pytest.raises(DatasetError, match="it has: train, valid"):
        run("--data", dataset, "--split", "test", open_reader=opened)


def test_unreadable_films_are_told_and_the_others_scored(dataset, capsys):
    study = dataset / "valid/XR_WRIST/patient1/study1_positive"
    (study / "image2.png").write_text("not a picture")
    (dataset / "valid/XR_WRIST/patient2/study1_negative/image1.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 40)
    (dataset / "valid/XR_WRIST/patient2/study1_negative/image2.png").write_bytes(b"")
    assert run("--data", dataset, "--json", "--resamples", 5, open_reader=open_stand_in()) == 1
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert (report["n"], report["positives"]) == (3, 2)
    assert report["confusion"] == {"tp": 2, "fp": 0, "tn": 1, "fn": 0}  # the study is its other film: 0.8
    lines = [line for line in err.splitlines() if line.startswith(str(dataset))]
    assert [Path(line.split(": ")[0]).name for line in lines] == ["image2.png", "image2.png", "image1.png"]
    assert "Films that could not be read: 2; studies left out for it: 1." in err
    assert "left out: 1 x a file is empty" in err


def test_status_is_1_for_an_empty_file_alone_and_for_a_damaged_one_alone(dataset, tmp_path):
    extra = dataset / "valid/XR_WRIST/patient1/study1_positive/image3.png"
    for content in (b"", b"not a picture"):
        extra.write_bytes(content)
        assert run("--data", dataset, "--resamples", 5, open_reader=open_stand_in()) == 1
    extra.unlink()
    assert run("--data", dataset, "--resamples", 5, open_reader=open_stand_in()) == 0


def test_place_for_the_scores_is_checked_before_any_film_is_read(dataset, tmp_path):
    opened = open_stand_in()
    with pytest.raises(ScoresError, match="folder that exists"):
        run("--data", dataset, "--out", tmp_path / "none" / "scores.csv", open_reader=opened)
    assert opened.asked == []
    with pytest.raises(ScoresError, match="cannot be"):
        run("--data", dataset, "--out", tmp_path, "--resamples", 5, open_reader=opened)


def test_no_film_can_be_read(dataset):
    for path in dataset.rglob("*.png"):
        path.write_text("not a picture")
    with pytest.raises(ScoresError, match="there is none"):
        run("--data", dataset, open_reader=open_stand_in())


def test_finder_gives_the_region_of_each_film():
    films = {Path(name): Radiograph(name, np.full((10, side), 0.5), "PNG") for name, side in (("a", 20), ("b", 30))}
    studies = [Study("s1", "p1", paths=tuple(films), label=1), Study("s2", "p2", paths=(Path("b"),), label=0)]
    classifier, done = BrightnessClassifier(), []
    options = {"read": films.__getitem__, "read_unfit": True}
    scores = evaluate.score_studies(
        studies, classifier, CentreFinder(), split="test", on_progress=done.append, **options
    )
    assert [(n, [region.x for region in regions]) for n, regions in classifier.asked] == [(2, [10, 15]), (1, [15])]
    assert done == [1, 2]
    assert (scores.checkpoint_id, scores.split, scores.weights_sha256) == ("stand-in", "test", "0" * 64)
    assert (scores.study_ids, scores.patient_ids, scores.labels.tolist()) == (("s1", "s2"), ("p1", "p2"), [1, 0])
    evaluate.score_studies(studies, classifier, None, **options)
    assert classifier.asked[-1] == (1, [None])


def test_study_without_a_label_is_not_guessed():
    with pytest.raises(DatasetError, match="label"):
        evaluate.score_studies([Study("s", "p", paths=(Path("a"),))], BrightnessClassifier(), read=lambda path: None)


def test_missing_film_is_a_sentence(tmp_path):
    with pytest.raises(RadiographError) as raised:
        evaluate.read_film(tmp_path / "secret.png")
    assert "secret" not in str(raised.value)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_a_line_at_every_tenth_or_one_line_on_a_terminal():
    plain = io.StringIO()
    progress = evaluate.Progress(250, plain)
    for done in range(1, 251):
        progress(done)
    lines = plain.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("25 of 250 studies, 10%")
    terminal = Terminal()
    progress = evaluate.Progress(250, terminal)
    for done in range(1, 251):
        progress(done)
    text = terminal.getvalue()
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert "250 of 250 studies, 100%, 0:00 left" in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "one of the arguments --data --scores is required"),
        (["--data", "a", "--scores", "b"], "not allowed with"),
        (["--scores", "b", "--threshold", "1.5"], "invalid number from 0 to 1"),
        (["--scores", "b", "--threshold", "nan"], "invalid number from 0 to 1"),
        (["--scores", "b", "--resamples", "0"], "invalid whole number above 0"),
        (["--scores", "b", "--seed", "-1"], "--seed"),
        (["--scores", "b", "--out", "c"], "--out and --format belong to --data"),
        (["--data", "b", "--format", "dicom"], "invalid choice"),
        (["--scores", "b", "--baselines"], "belong to --data"),
        (["--scores", "b", "--apart", "obvious"], "belong to --data"),
        (["--scores", "b", "--films"], "belong to --data"),
        (["--scores", "b", "--region", "wrist"], "belong to --data"),
        (["--scores", "b", "--read-unfit"], "belong to --data"),
        (["--scores", "b", "--checkpoint", "a", "--checkpoint", "c"], "one --checkpoint at most"),
        (["--scores", "b", "--checkpoint", "all"], "one --checkpoint at most"),
    ],
)
def test_wrong_options(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as stopped:
        evaluate.main(arguments)
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err


def test_mistakes_are_one_line_and_status_1(tmp_path, capsys):
    broken = tmp_path / "scores.csv"
    broken.write_text("study_id,label\na,1\n")
    for arguments in (
        ["--scores", str(tmp_path / "none.csv")],
        ["--scores", str(broken)],
        ["--data", str(tmp_path / "none")],
        ["--data", str(tmp_path), "--out", str(tmp_path / "none" / "scores.csv")],
    ):
        assert evaluate.main(arguments) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert len(err.splitlines()) == 1
        assert str(tmp_path) not in err


def test_neither_help_nor_scores_import_a_network_library(table):
    script = (
        "import sys; from core import evaluate\n"
        "try:\n    status = evaluate.main(sys.argv[1:])\n"
        "except SystemExit as stopped:\n    status = stopped.code\n"
        "heavy = {'tensorflow', 'keras', 'torch', 'jax', 'sklearn', 'pandas', 'cv2'} & set(sys.modules)\n"
        "sys.exit(f'{heavy} imported' if heavy else status)"
    )
    for arguments in (["--help"], ["--scores", str(table), "--json", "--resamples", "20"]):
        done = subprocess.run([sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout
    command = [sys.executable, "-m", "core.evaluate", "--scores", str(table), "--json", "--resamples", "20"]
    done_as_module = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert json.loads(done_as_module.stdout) == json.loads(done.stdout)


# --- intervals and paired comparisons --------------------------------------------------------------------------------


def random_scores(seed=0, n=90, ties=True):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    values = rng.normal(labels, 1.2)
    patients = [f"p{i // 3}" for i in range(n)]
    return labels, np.round(values, 1) if ties else values, patients


def test_weighted_auc_is_that_of_repeated_cases():
    labels, values, _ = random_scores()
    weights = np.random.default_rng(1).integers(0, 4, (5, labels.size))
    found = metrics.auc_of(labels, values)(weights.astype(float))
    for row, area in zip(weights, found, strict=True):
        assert area == pytest.approx(roc_auc_score(np.repeat(labels, row), np.repeat(values, row)), abs=1e-12)
    only_positive = (labels == 1)[None].astype(float)
    assert np.isnan(metrics.auc_of(labels, values)(only_positive)[0])


def test_weighted_quantile_and_mean_are_those_of_repeated_cases():
    values = np.random.default_rng(2).normal(size=31)
    weights = np.random.default_rng(3).integers(0, 3, (6, 31))
    medians = metrics.quantile_of(values, 0.5)(weights.astype(float))
    means = metrics.mean_of(values)(weights.astype(float))
    for row, median, mean in zip(weights, medians, means, strict=True):
        repeated = np.repeat(values, row)
        assert median == pytest.approx(np.median(repeated), abs=1e-12)
        assert mean == pytest.approx(repeated.mean(), abs=1e-12)
    ones = np.ones((1, 10))
    assert metrics.quantile_of(range(10), 0.9)(ones)[0] == 8.5
    assert metrics.quantile_of(range(10), 1.0)(ones)[0] == 9


def test_interval_draws_patients_as_the_evaluation_does():
    labels, values, patients = random_scores()
    probabilities = 1 / (1 + np.exp(-values))
    scores = Scores("", "", tuple(f"s{i}" for i in range(labels.size)), tuple(patients), labels, probabilities)
    theirs = evaluate_scores(scores, 0.5, 400, 7).auc
    ours = metrics.interval_of(metrics.auc_of(labels, probabilities), patients, 400, 7)
    assert (ours.value, ours.low, ours.high) == pytest.approx((theirs.value, theirs.low, theirs.high), abs=1e-12)
    alone = metrics.interval_of(metrics.mean_of([0, 1]), ["p", "p"])
    assert (alone.value, alone.n) == (0.5, 2)
    assert np.isnan([alone.low, alone.high]).all()


def test_rate_that_is_0_or_1_has_the_interval_of_wilson_over_patients():
    patients = ["a", "a", "b", "c", "d"]
    everything, nothing = metrics.rate_interval([True] * 5, patients), metrics.rate_interval([False] * 5, patients)
    wilson = wilson_interval(4, 4)
    assert (everything.value, everything.low, everything.high, everything.n) == (1, wilson.low, 1, 5)
    assert (nothing.value, nothing.low, nothing.n) == (0, 0, 5)
    assert nothing.high == pytest.approx(1 - wilson.low)
    some = metrics.rate_interval([True, True, False, False, True], patients)
    assert some.value == 0.6
    assert some.low < 0.4 < 0.8 < some.high


def test_paired_difference():
    labels, values, patients = random_scores(ties=False)
    same = metrics.auc_difference(labels, values, values, patients)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    against_nothing = metrics.auc_difference(labels, labels, np.zeros(labels.size), patients)
    assert (against_nothing.value, against_nothing.high) == (0.5, 0.5)
    assert 0.2 < against_nothing.low < 0.5, "what is never wrong here need not be so elsewhere"
    # What is almost the same reader differs far less surely than two AUCs' own intervals would say.
    near = values + np.random.default_rng(0).normal(0, 0.1, labels.size)
    gap = metrics.auc_difference(labels, values, near, patients)
    own = metrics.interval_of(metrics.auc_of(labels, values), patients)
    assert gap.value == pytest.approx(roc_auc_score(labels, values) - roc_auc_score(labels, near))
    assert gap.high - gap.low < (own.high - own.low) / 3


def some_scores(name, rows):
    studies, patients, labels, probabilities = zip(*rows, strict=True)
    return Scores(name, "all", studies, patients, np.array(labels), np.array(probabilities))


def test_comparison_matches_studies_by_id_and_the_mean_is_over_those_who_read():
    first = some_scores("a", [("s1", "p1", 1, 0.9), ("s2", "p2", 0, 0.2), ("s3", "p3", 1, 0.1)])
    second = some_scores("b", [("s2", "p2", 0, 0.6), ("s3", "p3", 1, 0.7), ("s1", "p1", 1, 0.8), ("s4", "p4", 0, 1.0)])
    assert metrics.compare_scores(first, second).value == pytest.approx(0.5 - 1.0)
    mean = metrics.mean_scores([first, second])
    assert mean.checkpoint_id == "all"
    expected = {"s1": 0.85, "s2": 0.4, "s3": 0.4, "s4": 1.0}
    assert dict(zip(mean.study_ids, mean.probabilities, strict=True)) == pytest.approx(expected)
    assert (mean.patient_ids, mean.labels.tolist()) == (("p1", "p2", "p3", "p4"), [1, 0, 1, 0])
    other = some_scores("c", [("s1", "p1", 0, 0.5)])
    with pytest.raises(ScoresError, match="same label"):
        metrics.compare_scores(first, other)
    with pytest.raises(ScoresError, match="none is in both"):
        metrics.compare_scores(first, some_scores("d", [("s9", "p9", 0, 0.5)]))


# --- films that are not fit to be read -------------------------------------------------------------------------------


def blank_film(path, brightness):
    """A film of a few black and white specks on which nothing can be told apart."""
    film = np.full((64, 48), brightness, np.uint8)
    film[0, :10], film[1, :10] = 0, 255
    Image.fromarray(film).save(path)


def test_films_that_are_not_fit_to_be_read_are_left_out_and_counted(dataset, capsys):
    blank_film(dataset / "valid/XR_WRIST/patient1/study1_positive/image2.png", 1)
    blank_film(dataset / "valid/XR_WRIST/patient2/study1_negative/image1.png", 250)
    arguments = ("--data", dataset, "--resamples", 5)
    assert run(*arguments, "--json", open_reader=open_stand_in()) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert (report["n"], report["films_refused"], report["studies_refused"]) == (3, 2, 1)
    assert report["confusion"] == {"tp": 2, "fp": 0, "tn": 1, "fn": 0}  # the first study is its other film: 0.8
    line = "Films not fit to be read, left out: 2; studies left out for it: 1."
    assert line in err.splitlines()
    run(*arguments, open_reader=open_stand_in())
    assert line in capsys.readouterr().out.splitlines()
    run(*arguments, "--read-unfit", "--json", open_reader=open_stand_in())
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert (report["n"], report["films_refused"], report["studies_refused"]) == (4, 0, 0)
    assert report["confusion"] == {"tp": 1, "fp": 1, "tn": 1, "fn": 1}  # 0.41 and 0.98
    assert "left out" not in err


class UnsureFinder(CentreFinder):
    """Is not sure of the wrist on dark films."""

    def find(self, radiograph):
        return replace(super().find(radiograph), confidence=float(radiograph.pixels.mean() > 0.5))


def test_each_reader_leaves_out_what_its_own_finder_is_not_sure_of(table_of_films, capsys):
    finders = {"bright": UnsureFinder(), "dark": CentreFinder()}
    readers = {
        name: SimpleNamespace(classifier=BiasedClassifier(name, name == "dark"), finder=finder)
        for name, finder in finders.items()
    }
    asked = ("--data", table_of_films, "--checkpoint", "bright", "--checkpoint", "dark", "--resamples", 20)
    assert run(*asked, "--baselines", "--json", open_reader=readers.__getitem__) == 0
    report = json.loads(capsys.readouterr().out)
    # 204, 230 and 128 are bright; 77 of the broken and 51 and 102 of the others are not.
    counts = {name: (each["n"], each["films_refused"], each["studies_refused"]) for name, each in
              report["checkpoints"].items()}  # fmt: skip
    assert counts == {"bright": (3, 3, 3), "dark": (6, 0, 0), "all": (6, 0, 0)}
    assert (report["wrist_found"]["value"], report["wrist_found"]["n"]) == (0.5, 6)
    # Each study's facts stand beside its own label, whoever read it: of 9 pairs 7 are in order of their brightness.
    grey = next(each for each in report["baselines"] if each["name"] == "mean grey")
    assert grey["auc"]["value"] == pytest.approx(7 / 9)


def test_one_part_of_the_body_alone(dataset, capsys):
    save_film(dataset / "valid/XR_ELBOW/patient9/study1_positive/image1.png", 230)
    arguments = ("--data", dataset, "--resamples", 5, "--json")
    for more, studies in (((), 4), (("--region", "all"), 5), (("--region", "XR_WRIST"), 4), (("--region", "elbow"), 1)):
        run(*arguments, *more, open_reader=open_stand_in())
        out, err = capsys.readouterr()
        assert json.loads(out)["n"] == studies
        assert err.count(WRISTS_ALONE) == (not more)


# --- trivial baselines -----------------------------------------------------------------------------------------------


SQUARES = {size: Checkpoint("a", "A", "fracture", "resnet50", "x", size) for size in (32, 128)}


def test_facts_are_of_what_the_model_reads():
    wide = Radiograph("a", np.ones((16, 32), np.float32), "PNG")
    padded, stretched = (baselines.film_facts(wide, 1, None, replace(SQUARES[32], fit=fit)) for fit in FITS)
    assert (padded.numbers["mean grey"], stretched.numbers["mean grey"]) == pytest.approx((0.5, 1))
    small = [np.mean(facts.thumbnails["thumbnail of the square"]) for facts in (padded, stretched)]
    assert small == pytest.approx([0.5, 1], abs=0.05)


def test_facts_of_a_film():
    rows = np.arange(32, dtype=np.float32)[:, None]
    pixels = np.broadcast_to(((rows // 2) % 2) * 0.5, (32, 32))  # stripes two pixels wide, 0 and 0.5
    facts = baselines.film_facts(Radiograph("a", pixels, "PNG"), 2.0, None, SQUARES[32]).numbers
    assert {name: facts[name] for name in ("width", "height", "area")} == {"width": 32, "height": 32, "area": 1024}
    assert (facts["bytes per pixel"], facts["side of the wrist square"]) == (2.0, 32)
    assert (facts["mean grey"], facts["contrast"]) == (0.25, 0.25)
    # Every pixel of such stripes has one equal and one other neighbour: its Laplacian is +-0.5. At the border OpenCV
    # mirrors without repeating the edge, which turns 2 of the 32 rows to twice that or to none.
    mirrored = np.pad(pixels[:, 0], 1, mode="reflect")
    laplacian = mirrored[:-2] + mirrored[2:] - 2 * mirrored[1:-1]
    assert facts["sharpness"] == pytest.approx(laplacian.var(), rel=1e-5)
    region = WristRegion(16, 16, 8)
    assert (
        baselines.film_facts(Radiograph("a", pixels, "PNG"), 1, region, SQUARES[32]).numbers["side of the wrist square"]
        == 8
    )


def test_the_same_picture_made_finer_is_as_sharp_at_64_pixels_only():
    coarse = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    films = [Radiograph("a", coarse, "PNG"), Radiograph("b", np.kron(coarse, np.ones((2, 2), np.float32)), "PNG")]
    one, two = (baselines.film_facts(film, 1, None, SQUARES[128]).numbers for film in films)
    assert two["sharpness"] > 1.5 * one["sharpness"]
    assert two["sharpness at 64 pixels"] == pytest.approx(one["sharpness at 64 pixels"], rel=1e-3)


def test_learned_baseline_is_scikit_learns_and_never_sees_the_patient_it_answers_for():
    rng = np.random.default_rng(0)
    patients = np.repeat([f"p{i}" for i in range(20)], 3)
    labels = np.repeat(np.arange(20) % 2, 3)
    features = rng.normal(labels[:, None], 1.5, (60, 8))
    ours = baselines.out_of_fold(features, labels, patients, seed=4)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=4)
    theirs = cross_val_predict(model, features, labels, groups=patients, cv=folds, method="predict_proba")[:, 1]
    np.testing.assert_allclose(ours, theirs, atol=1e-9)
    # Features that tell nothing but the patient are worth nothing where the patient was not learnt from.
    who = np.eye(20)[np.arange(60) // 3]
    assert roc_auc_score(labels, baselines.out_of_fold(who, labels, patients)) < 0.7
    assert baselines.out_of_fold(who, np.zeros(60, int), patients) is None


def test_baselines_take_their_better_direction_and_stand_against_the_model():
    labels, _, patients = random_scores(5)
    rng = np.random.default_rng(6)
    widths = rng.normal(100 - 40 * labels, 25)
    noise = [rng.random(448).astype(np.float32) for _ in labels]
    facts = [
        StudyFacts(
            {name: width if name == "width" else 1.0 for name in baselines.BASELINES},
            dict.fromkeys(("thumbnail of the film", "thumbnail of the square"), pixels),
        )
        for width, pixels in zip(widths, noise, strict=True)
    ]
    model = some_scores("m", [(f"s{i}", patients[i], labels[i], 0.25 + labels[i] / 2) for i in range(labels.size)])
    found = {each.name: each for each in evaluate.measure_baselines(facts, model, 200)}
    assert list(found) == list(baselines.BASELINES)
    width = found["width"]
    assert (width.knows, width.direction) == ("framing", "lower")
    assert width.auc.value == pytest.approx(roc_auc_score(labels, -widths))
    assert width.model_ahead_by.value == pytest.approx(1 - width.auc.value)
    assert (found["mean grey"].auc.value, found["mean grey"].knows) == (0.5, "neither")
    assert found["thumbnail of the film"].direction == "learned"
    assert 0.2 < found["thumbnail of the film"].auc.value < 0.8


# --- several checkpoints, columns apart, marked wrists ---------------------------------------------------------------


@pytest.fixture
def table_of_films(tmp_path):
    """Six films of five patients in a table that marks each wrist; brightness is what the stand-in answers."""
    rows = ["path,label,patient_id,x,y,side,angle,obvious"]
    marks = {"a": (204, 1, 1), "b": (77, 1, 0), "c": (51, 0, 0), "d": (128, 0, 0), "e": (230, 1, 1), "f": (102, 0, 0)}
    for number, (name, (brightness, label, obvious)) in enumerate(marks.items()):
        save_film(tmp_path / f"{name}.png", brightness)
        # The stand-in finds the middle, (24, 32): a, b and c are marked there, the others a fifth of a side away.
        x = 24 if name in "abc" else 24 + 8
        rows.append(f"{name}.png,{label},p{min(number, 4)},{x},32,40,0,{obvious}")
    path = tmp_path / "films.csv"
    path.write_text("\n".join(rows))
    return path


class BiasedClassifier(BrightnessClassifier):
    """Answers a film's brightness, or its negative."""

    def __init__(self, name, inverted):
        super().__init__(operating_points=())
        self.checkpoint = replace(self.checkpoint, id=name)
        self.inverted = inverted

    def predict(self, radiographs, regions=None):
        plain = super().predict(radiographs, regions)
        if not self.inverted:
            return plain
        return [replace(each, logit=-each.logit, probability=1 - each.probability) for each in plain]


def open_two(asked):
    def open_reader(checkpoint_id=None):
        return asked.setdefault(
            checkpoint_id,
            SimpleNamespace(classifier=BiasedClassifier(checkpoint_id, checkpoint_id == "dark"), finder=CentreFinder()),
        )

    return open_reader


def test_several_checkpoints_and_their_mean(table_of_films, tmp_path, capsys):
    out = tmp_path / "scores.csv"
    arguments = ("--data", table_of_films, "--checkpoint", "bright", "--checkpoint", "dark", "--resamples", 50)
    assert run(*arguments, "--json", "--out", out, open_reader=open_two({})) == 0
    report = json.loads(capsys.readouterr().out)
    assert [*report][: len(KEYS)] == KEYS
    assert report["checkpoint"] == "all"
    assert [*report["checkpoints"]] == ["bright", "dark", "all"]
    # 204, 77 and 230 are broken; 51, 128 and 102 are not: 7 of 9 pairs are in order, and 2 of 9 the other way round.
    aucs = {name: each["auc"]["value"] for name, each in report["checkpoints"].items()}
    assert aucs["bright"] == pytest.approx(7 / 9)
    assert aucs["dark"] == pytest.approx(2 / 9)
    gap = next(each for each in report["differences"] if (each["first"], each["second"]) == ("bright", "dark"))
    assert gap["auc"]["value"] == pytest.approx(5 / 9)
    assert len(report["differences"]) == 3
    assert report["threshold"] == 0.5
    assert "operating_points" not in report
    rows = [line.split(",") for line in out.read_text().splitlines()]
    assert rows[0] == ["study_id", "patient_id", "label", "probability", "bright", "dark", "obvious"]
    assert [float(row[3]) for row in rows[1:]] == pytest.approx([0.5] * 6)
    assert float(rows[1][4]) == pytest.approx(204 / 255, abs=1e-6)
    assert len(read_scores(out).study_ids) == 6
    assert run(*arguments, open_reader=open_two({})) == 0
    text = capsys.readouterr().out
    assert "the mean of 2 checkpoints" in text
    assert "bright - dark" in text


def test_the_mean_of_several_is_calibrated_and_called_by_what_was_measured_of_it(table_of_films, tmp_path, capsys):
    opened, out = {}, tmp_path / "scores.csv"
    cards = [open_two(opened)(name).classifier.checkpoint for name in ("bright", "dark")]
    rate = Interval(0.9, 0.8, 0.95, 100)
    points = (OperatingPoint("high_specificity", 0.7, rate, rate),)
    moved = {"method": "platt", "temperature": 1.0, "bias": 2.0}
    ensemble = Ensemble(members_of(cards), points, {}, moved)
    write_ensemble(ensemble, tmp_path)
    asked = ("--data", table_of_films, "--checkpoint", "bright", "--checkpoint", "dark", "--resamples", 50, "--json")
    command_line = ("--checkpoints", tmp_path, "--out", out)
    assert run(*asked, *command_line, open_reader=lambda name, _: opened[name]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["threshold"] == 0.7
    assert [point["threshold"] for point in report["operating_points"]] == [0.7]
    rows = [line.split(",") for line in out.read_text().splitlines()[1:]]
    assert [float(row[3]) for row in rows] == pytest.approx([expit(2.0)] * 6, abs=1e-6)
    assert float(rows[0][4]) == pytest.approx(204 / 255, abs=1e-6), "a model by itself is not moved"


def test_a_checkpoint_beside_those_whose_mean_was_measured_does_not_change_it(table_of_films, tmp_path, capsys):
    opened, out = {}, tmp_path / "scores.csv"
    cards = [open_two(opened)(name).classifier.checkpoint for name in ("bright", "dark")]
    third = BiasedClassifier("third", inverted=False)
    opened["third"] = SimpleNamespace(classifier=third, finder=CentreFinder())
    moved = {"method": "platt", "temperature": 1.0, "bias": 2.0}
    write_ensemble(Ensemble(members_of(cards), (), {}, moved), tmp_path)
    names = [word for name in ("bright", "third", "dark") for word in ("--checkpoint", name)]
    asked = ("--data", table_of_films, *names, "--resamples", 50, "--checkpoints", tmp_path, "--out", out)
    assert run(*asked, open_reader=lambda name, _: opened[name]) == 0
    assert "the mean of 2 checkpoints" in capsys.readouterr().out
    rows = [line.split(",") for line in out.read_text().splitlines()[1:]]
    assert [float(row[3]) for row in rows] == pytest.approx([expit(2.0)] * 6, abs=1e-6)


class ChoosyFinder(CentreFinder):
    """Sees no wrist on some films, by their brightness."""

    def __init__(self, refuses):
        self.refuses = refuses

    def find(self, radiograph):
        return replace(super().find(radiograph), confidence=0.0 if self.refuses(radiograph.pixels.mean()) else 1.0)


def test_what_is_refused_is_told_of_each_of_the_mean_and_of_all(table_of_films, tmp_path, capsys):
    """Of 204, 77, 230, 51, 128 and 102: one of the mean's two sees the bright half, one the brightest; a third all."""
    limits = {"bright": 120 / 255, "dark": 220 / 255, "third": 0.0}
    opened = {
        name: SimpleNamespace(
            classifier=BiasedClassifier(name, inverted=False), finder=ChoosyFinder(lambda p, low=low: p < low)
        )
        for name, low in limits.items()
    }
    for name, reader in opened.items():
        reader.classifier.checkpoint = replace(reader.classifier.checkpoint, region=f"finder-{name}")
    cards = [opened[name].classifier.checkpoint for name in ("bright", "dark")]
    write_ensemble(Ensemble(members_of(cards)), tmp_path)
    out = tmp_path / "scores.csv"
    names = [word for name in ("dark", "third", "bright") for word in ("--checkpoint", name)]
    asked = ("--data", table_of_films, *names, "--resamples", 50, "--checkpoints", tmp_path, "--out", out, "--json")
    assert run(*asked, open_reader=lambda name, _: opened[name]) == 0
    told = capsys.readouterr()
    report = json.loads(told.out)
    assert report["mean_of"] == ["bright", "dark"]
    refused = {name: each["films_refused"] for name, each in report["checkpoints"].items()}
    assert refused == {"dark": 5, "third": 0, "bright": 3, "all": 3}
    assert "left out" not in told.err, "the third read every film"
    table = [line.split(",") for line in out.read_text().splitlines()]
    assert table[0][:7] == ["study_id", "patient_id", "label", "probability", "dark", "third", "bright"]
    rows = {row[0]: row[3:7] for row in table[1:]}
    assert len(rows) == 3
    for mean, dark, third, bright in rows.values():
        assert bool(dark) == (float(bright) > 220 / 255)
        assert third == bright
        assert float(mean) == pytest.approx(float(bright))


def test_a_study_s_own_calibration_is_used(table_of_films, tmp_path):
    out, moved = tmp_path / "scores.csv", {"method": "platt", "temperature": 0.5, "bias": 1.0}
    reader = open_two({})("bright")
    reader.classifier.checkpoint = replace(reader.classifier.checkpoint, study_calibration=moved)
    asked = ("--data", table_of_films, "--checkpoint", "bright", "--resamples", 50, "--out", out)
    assert run(*asked, open_reader=lambda name: reader) == 0
    first = out.read_text().splitlines()[1].split(",")
    assert float(first[3]) == pytest.approx(expit(2 * logit(204 / 255) + 1), abs=1e-6)


def test_apart_measures_each_value_of_a_column_against_all_negatives(table_of_films, capsys):
    asked = ("--data", table_of_films, "--checkpoint", "bright", "--resamples", 50, "--threshold", 0.5, "--json")
    assert run(*asked, "--apart", "Obvious", open_reader=open_two({})) == 0
    apart = json.loads(capsys.readouterr().out)["apart"]
    values = {each["value"]: each for each in apart["values"]}
    assert list(values) == ["0", "1"]
    assert {name: each["positives"] for name, each in values.items()} == {"0": 1, "1": 2}
    assert values["1"]["auc"]["value"] == 1.0
    assert values["0"]["auc"]["value"] == pytest.approx(1 / 3)
    assert (values["0"]["sensitivity"]["value"], values["1"]["sensitivity"]["value"]) == (0, 1)
    with pytest.raises(DatasetError, match=r"it has: .*obvious"):
        run("--data", table_of_films, "--apart", "age", open_reader=open_two({}))


def test_scores_carry_what_divides_the_studies_and_nothing_that_names_them(table_of_films, tmp_path, capsys):
    out = tmp_path / "scores.csv"
    table_of_films.write_text(
        "\n".join(
            line
            + (
                ",view,probability,surname"
                if not number
                else f",{'PA' if number % 2 else 'LATERAL'},{number % 2},Doe{number}"
            )
            for number, line in enumerate(table_of_films.read_text().splitlines())
        )
    )
    arguments = ("--data", table_of_films, "--resamples", 50, "--out", out)
    for checkpoints in (("bright",), ("bright", "dark")):
        asked = [word for name in checkpoints for word in ("--checkpoint", name)]
        assert run(*arguments, *asked, open_reader=open_two({})) == 0
        scores = read_scores(out)
        columns = {name: values for name, values in scores.columns.items() if name not in checkpoints}
        assert columns == {"obvious": ("1", "0", "0", "0", "1", "0"), "view": ("PA", "LATERAL") * 3}
    capsys.readouterr()


def test_films_by_themselves_keep_their_patient(tmp_path, capsys):
    folder = tmp_path / "set"
    for study, brightness in (("patient1/study1_positive", (230, 51)), ("patient2/study1_negative", (77, 102))):
        for number, value in enumerate(brightness, 1):
            path = folder / "valid" / "XR_WRIST" / study / f"image{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_film(path, value)
    out = tmp_path / "scores.csv"
    arguments = ("--data", folder, "--checkpoint", "bright", "--resamples", 50, "--json", "--out", out)
    assert run(*arguments, open_reader=open_two({})) == 0
    assert json.loads(capsys.readouterr().out)["auc"]["value"] == 1.0, "means of 0.55 and 0.35"
    assert run(*arguments, "--films", open_reader=open_two({})) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["n"], report["positives"]) == (4, 2)
    assert report["auc"]["value"] == 0.5, "the darker film of the broken wrist lies below both others"
    scores = read_scores(out)
    assert scores.study_ids[0] == "valid/XR_WRIST/patient1/study1_positive/image1.png"
    assert len(set(scores.patient_ids)) == 2
    assert run(*arguments[:-3], "--films", open_reader=open_two({})) == 0
    assert "4 films of 2 patients" in capsys.readouterr().out


def test_marked_wrists_judge_the_finder_and_can_stand_in_for_it(table_of_films, capsys):
    asked = {}
    assert run("--data", table_of_films, "--checkpoint", "bright", "--json", open_reader=open_two(asked)) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["wrist_found"]["value"], report["wrist_found"]["n"]) == (0.5, 6)
    assert 0 <= report["wrist_found"]["low"] < 0.5 < report["wrist_found"]["high"] <= 1
    assert {regions[0].x for _, regions in asked["bright"].classifier.asked} == {24}
    used = {}
    run("--data", table_of_films, "--checkpoint", "bright", "--regions", "table", open_reader=open_two(used))
    assert "Wrist found within 15% of the marked square's side: 0.500" in capsys.readouterr().out
    assert [regions[0].x for _, regions in used["bright"].classifier.asked] == [24, 24, 24, 32, 32, 32]
    assert {regions[0].side for _, regions in used["bright"].classifier.asked} == {40}


def test_table_squares_need_a_table(dataset):
    with pytest.raises(DatasetError, match="marks each wrist"):
        run("--data", dataset, "--regions", "table", open_reader=open_stand_in())


def test_baselines_from_films(table_of_films, capsys):
    asked = ("--data", table_of_films, "--checkpoint", "bright", "--resamples", 20)
    assert run(*asked, "--baselines", "--json", open_reader=open_two({})) == 0
    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)["baselines"]}
    assert found["width"]["auc"]["value"] == 0.5
    assert found["width"]["knows_framing"] is True
    # The whole film is the square: grey is what the stand-in answers, padded alike.
    assert found["mean grey"]["auc"]["value"] == pytest.approx(7 / 9)
    assert found["mean grey"]["model_ahead_by"]["value"] == pytest.approx(0)
    assert run(*asked, "--baselines", open_reader=open_two({})) == 0
    assert "trivial baseline" in capsys.readouterr().out


def test_all_asks_for_every_checkpoint_that_reads_for_fractures(tmp_path):
    assert evaluate.choose_checkpoints(None) == [None]
    assert evaluate.choose_checkpoints(["b", "a", "b"]) == ["b", "a"]
    with pytest.raises(CheckpointError, match="there is none"):
        evaluate.choose_checkpoints(["all"], tmp_path)
    (tmp_path / "broken-1").mkdir()
    with pytest.raises(CheckpointError, match="broken-1 is not: The checkpoint must have a card"):
        evaluate.choose_checkpoints(["all"], tmp_path)
    ours = evaluate.choose_checkpoints(["all"])
    assert set(ours) == {entry.id for entry in list_checkpoints() if entry.checkpoint.task == "fracture"}


def test_films_are_made_as_coarse_as_asked_after_the_wrist_is_found(table_of_films, capsys):
    used, fine = {}, {}
    asked = ("--data", table_of_films, "--checkpoint", "bright", "--baselines", "--resamples", 20, "--json")
    assert run(*asked, open_reader=open_two(fine)) == 0
    whole = json.loads(capsys.readouterr().out)
    assert run(*asked, "--wrist-pixels", 20, "--regions", "table", open_reader=open_two(used)) == 0
    coarse = json.loads(capsys.readouterr().out)
    assert coarse["wrist_found"] == whole["wrist_found"]
    assert [regions[0].x for _, regions in used["bright"].classifier.asked] == [12, 12, 12, 16, 16, 16]
    assert {regions[0].side for _, regions in used["bright"].classifier.asked} == {20}
    again = {}
    assert run(*asked, "--wrist-pixels", 500, "--regions", "table", open_reader=open_two(again)) == 0
    assert {regions[0].side for _, regions in again["bright"].classifier.asked} == {40}


def test_a_coarser_film_shows_the_same_place():
    pixels = np.zeros((90, 120), np.float32)
    pixels[30:36, 60:66] = 1
    film, region = evaluate.coarsen(Radiograph("0" * 64, pixels, "PNG, 8 bit"), WristRegion(63, 33, 60, 20), 20)
    assert film.pixels.shape == (30, 40)
    assert film.pixels[int(region.y), int(region.x)] == pytest.approx(1)
    assert (region.x, region.y, region.side, region.angle) == (21, 11, 20, 20)
    whole, none = evaluate.coarsen(Radiograph("0" * 64, pixels, "PNG, 8 bit"), None, 60)
    assert whole.pixels.shape == (45, 60)
    assert none is None


def test_a_coarser_film_is_still_stored_in_the_same_file(tmp_path):
    path = tmp_path / "film.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 80), np.uint8)).save(path)
    study = Study("s", "p", paths=(path,), label=1)
    reader = SimpleNamespace(classifier=BiasedClassifier("bright", False), finder=None)
    fine, coarse = (
        evaluate.read_studies([study], [reader], with_facts=True, wrist_pixels=pixels, read_unfit=True).facts[0].numbers
        for pixels in (None, 20)
    )
    assert (fine["width"], coarse["width"]) == (80, 20)
    assert fine["bytes per pixel"] == coarse["bytes per pixel"] == path.stat().st_size / 6400
