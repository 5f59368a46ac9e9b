"""core.evaluate: the command's contract, with films made here and a stand-in for the network."""

import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from core import evaluate
from core.errors import DatasetError, RadiographError, ScoresError
from core.metrics import evaluate_scores, read_scores
from core.values import Checkpoint, Interval, OperatingPoint, Prediction, Radiograph, Study, WristRegion

ROOT = Path(__file__).resolve().parent.parent
KEYS = [
    *("n", "positives", "auc", "average_precision", "brier", "ece", "threshold", "confusion"),
    *("sensitivity", "specificity", "accuracy", "precision", "npv", "f1", "kappa"),
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
        return [Prediction(film.id, "stand-in", 0.0, float(film.pixels.mean())) for film in radiographs]


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
    return evaluate.run(evaluate._parser().parse_args([str(argument) for argument in arguments]), open_reader)


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
    line = next(line for line in out.splitlines() if line.startswith("sensitivity"))
    low, high = f"{evaluation.sensitivity.low:.3f}", f"{evaluation.sensitivity.high:.3f}"
    assert line.split() == [
        "sensitivity",
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
    scores = evaluate.score_studies(
        studies, classifier, CentreFinder(), split="test", read=films.__getitem__, on_progress=done.append
    )
    assert [(n, [region.x for region in regions]) for n, regions in classifier.asked] == [(2, [10, 15]), (1, [15])]
    assert done == [1, 2]
    assert (scores.checkpoint_id, scores.split, scores.weights_sha256) == ("stand-in", "test", "0" * 64)
    assert (scores.study_ids, scores.patient_ids, scores.labels.tolist()) == (("s1", "s2"), ("p1", "p2"), [1, 0])
    evaluate.score_studies(studies, classifier, None, read=films.__getitem__)
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
