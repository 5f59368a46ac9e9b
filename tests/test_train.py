"""Training end to end on a handful of simulated studies, its resumption, and the pieces it is made of."""

import csv
import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from itertools import product

import cv2
import numpy as np
import pytest

from core import train
from core.checkpoints import CHECKPOINTS, default_id, read_history, read_scores, verify
from core.classifier import load_classifier, study_probability
from core.datasets.splits import fingerprint
from core.errors import DatasetError, TrainingError
from core.phantoms import simulate_study
from core.phantoms.decoys import KINDS, simulate_decoy
from core.train import jobs, losses
from core.train.__main__ import build_parser, main, make_request
from core.train.appraisal import angle_error, fit_confidence, peak_of
from core.train.batches import FractureSampler, WristSampler
from core.train.changes import move_matrix, move_region, pool_mask
from core.train.presets import check_settings
from core.train.runs import State
from core.train.squares import Film, Squares
from core.train.survey import survey_dataset
from core.values import Radiograph, Study, WristRegion
from core.wrist import MAPS, draw_grid, load_finder, read_grid
from tests.films import png_film

EMBEDDED = default_id()


def write_films(root, split, seeds, size=80):
    rows = []
    for seed in seeds:
        label = seed % 2
        films = simulate_study(seed, size=size, positive=bool(label), framing="tight", square=True)
        folder = f"{split}/XR_WRIST/patient{seed:05d}/study1_{'positive' if label else 'negative'}"
        for number, film in enumerate(films, 1):
            path = f"{folder}/image{number}.png"
            pictures = {root / path: np.round(film.pixels * 255)}
            if label:
                pictures[root / "masks" / path] = film.mask * 255.0
            for place, picture in pictures.items():
                place.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(place), picture.astype(np.uint8))
            region = film.region
            rows.append(
                {"file": path, "x": region.x, "y": region.y, "side": region.side, "angle": region.angle}
                | {"kind": film.kind, "seed": seed, "framing": film.framing, "displacement_mm": film.displacement_mm}
            )
    return rows


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Four studies to train on and four held out, half of each broken, and a file that is no film."""
    root = tmp_path_factory.mktemp("dataset")
    rows = write_films(root, "train", range(4)) + write_films(root, "valid", range(10, 14))
    broken = "train/XR_WRIST/patient00000/study1_negative/image9.png"
    (root / broken).write_bytes(b"no film at all")
    rows.append({**rows[0], "file": broken})
    with open(root / "metadata.csv", "w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    return root


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("work")
    return {"out": root / "checkpoints", "runs": root / "runs"}


def ask(dataset, places, *more):
    return [
        *("--data", str(dataset), "--out", str(places["out"]), "--runs", str(places["runs"])),
        *("--weights", "none", "--input-size", "64", "--batch-size", "4", "--seed", "5", *more),
    ]


@contextmanager
def stepwise():
    """Run TensorFlow's functions step by step: for a handful of batches that is far quicker than to compile them."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def cut_off(dataset, places):
    """A run of two epochs cut off after the first, then resumed: (state before, exit status, state after)."""
    saved = train.RunFolder.save_state

    def save_and_die(self, state):
        saved(self, state)
        if state.unjudged is None:
            raise KeyboardInterrupt

    with stepwise(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.RunFolder, "save_state", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            main(ask(dataset, places, "--id", "small-1", "--epochs", "2", "--batch-size", "8"))
    assert not (places["out"] / "small-1").exists()
    before = train.RunFolder(places["runs"] / "small-1").load_state()
    with stepwise():
        status = main(["--resume", "small-1", "--runs", str(places["runs"])])
    after = train.RunFolder(places["runs"] / "small-1").load_state()
    return before, status, after


def test_a_resumed_run_goes_on_where_it_was_cut_off(cut_off, places):
    before, status, after = cut_off
    asked = train.RunFolder(places["runs"] / "small-1").load_request()
    assert asked.precision == "float32", "auto is decided once: another machine goes on in the same"
    assert status == 0
    assert [row["epoch"] for row in before.history] == [1]
    assert [row["epoch"] for row in after.history] == [1, 2]
    assert after.history[0] == before.history[0]
    # The optimizer's own count of steps went on too: 8 films are one batch an epoch.
    assert [int(state.optimizer[0]) for state in (before, after)] == [1, 2]
    assert not all(np.array_equal(a, b) for a, b in zip(before.weights, after.weights, strict=True))


def test_progress_is_told_to_whoever_looks(cut_off, places):
    found = json.loads((places["runs"] / "small-1" / train.PROGRESS_NAME).read_text())
    assert (found["phase"], found["epoch"], found["done"], found["total"]) == ("published", 2, 2, 2)
    assert [row["epoch"] for row in found["history"]] == [1, 2]
    assert all(0 <= row["waiting"] <= 1 and row["seconds"] >= 0 for row in found["history"])


def test_what_is_published_is_whole_and_says_what_it_is(cut_off, dataset, places):
    folder = places["out"] / "small-1"
    card = verify(folder)
    assert card.location_head
    assert card.calibration["method"] == "platt"
    assert [point.name for point in card.operating_points] == ["high_sensitivity", "high_specificity"]
    assert card.data["simulated"] is True
    assert "no film of a real patient" in card.data["trained_on"]
    assert "not been tested on patients" in card.data["tested_on"]
    films = list((dataset / "train").rglob("*.png"))
    assert len(films) > 8
    assert card.data["counts"]["train_films"] == len(films) - 1
    assert card.data["counts"]["train_films_unreadable"] == 1
    assert "image9.png" in (places["runs"] / "small-1" / "left_out.txt").read_text()
    assert card.data["counts"]["valid_patients"] == card.data["counts"]["test_patients"] == 2
    results = card.data["results"]
    assert {"auc", "ece", "location_peak_in_mask", "centre_of_square_in_mask", "kinds", "displacements"} <= set(results)
    (kind,) = results["kinds"].values()
    # One positive study among the two of the test half: its kind's AUC is that of all, and it counts one positive.
    assert kind["auc"]["value"] == results["auc"]["value"]
    assert kind["auc"]["n"] == 1
    assert kind["peak"] is None or kind["peak"]["n"] == results["location_peak_in_mask"]["n"]
    assert [row["epoch"] for row in read_history(folder)] == [1, 2]
    splits = {scores.split: scores for scores in read_scores(folder)}
    assert set(splits) == {"valid", "test"}
    assert not set(splits["valid"].patient_ids) & set(splits["test"].patient_ids)


def test_the_published_scores_are_those_the_loaded_checkpoint_gives(cut_off, places, dataset):
    from core.datasets import index_dataset
    from core.radiographs import read_radiograph

    classifier = load_classifier("small-1", places["out"])
    index = index_dataset(dataset)
    studies = {study.id: study for study in index.splits["valid"]}
    for scores in read_scores(places["out"] / "small-1"):
        for study_id, probability in zip(scores.study_ids, scores.probabilities, strict=True):
            paths = studies[study_id].paths
            films = [read_radiograph(path.read_bytes()) for path in paths]
            predictions = classifier.predict(films, [index.regions[path] for path in paths])
            assert study_probability(predictions, classifier.checkpoint) == pytest.approx(probability, abs=1e-4)


def test_a_finder_is_trained_and_finds_something(dataset, places, monkeypatch):
    preset = train.PRESETS["wrist"]
    small = replace(preset, extra={**preset.extra, "decoys": 6, "small_size": 32, "small_epochs": 0})
    monkeypatch.setitem(train.PRESETS, "wrist", small)
    # Two hundred steps would be needed to find anything: here the calibration needs one hit and one miss.
    monkeypatch.setattr("core.train.appraisal.WITHIN", 0.6)
    with stepwise():
        status = main(ask(dataset, places, "--task", "wrist", "--id", "finder-1", "--epochs", "1"))
    assert status == 0
    finder = load_finder("finder-1", places["out"])
    assert finder.card.calibration["method"] == "logistic"
    assert finder.card.data["counts"]["test_films_without_wrist"] == 4
    region = finder.find(Radiograph("", np.random.default_rng(1).random((90, 70)).astype(np.float32), ""))
    assert 0 <= region.confidence <= 1
    assert 0 < region.side < 200


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--backbone", "vgg"], "The backbone must be one of"),
        (["--preset", "best"], "A preset must be one of"),
        (["--epochs", "0"], "At least one epoch"),
        (["--weights", "/nowhere/weights.h5"], "no such file"),
        (["--task", "wrist", "--backbone", "resnet50"], "built on efficientnetlite0"),
        (["--task", "wrist", "--input-size", "100"], "multiple of 16"),
        (["--id", "Not An Id"], "lower-case"),
        (["--data", "/nowhere"], "there is none"),
        (["--set", "loss=hinge"], "must be one of cross_entropy, focal"),
        (["--set", "calibration=spline"], "must be one of temperature, platt, isotonic"),
        (["--set", "speed=9"], "does not know 'speed'"),
        (["--set", "ema=1"], "ema must be a number from 0 to below 1"),
        (["--set", 'class_weights={"0": 1}'], "a weight above 0 for each"),
        (["--set", "ema=high"], "ema must be a number"),
        (["--set", 'mixup="much"'], "mixup must be a number"),
        (["--set", "textures=1.5"], "textures must be a number from 0 to 1"),
        (["--set", "small_epochs=1.5"], "small_epochs must be a whole number"),
        (["--set", "clip_norm=0"], "clip_norm must be a number above 0, or null"),
        (["--set", "epoch_films=0"], "epoch_films must be a whole number above 0"),
        (["--set", "small_size=16"], "small_size must be a whole number of pixels from 32"),
        (["--set", "frozen=3"], "frozen must be a list"),
        (["--set", "unfreeze=3"], "unfreeze must be a list"),
        (["--set", "unfreeze=[[0, []]]"], "unfreeze must be a list"),
        (["--set", "looks=true"], "looks must be a whole number from 1 to 6"),
        (["--set", "clip_norm=NaN"], "clip_norm must be a number above 0"),
        (["--set", "scaling=typo"], "The scaling must be one of"),
        (
            ["--preset", "mura-320", "--set", "textures=0.5"],
            "textures has none on a training with a recipe's films",
        ),
        (
            ["--task", "wrist", "--set", "mixup=0.2", "--set", "label_smoothing=0.1"],
            "label_smoothing, mixup has none on a wrist finder",
        ),
        (["--set", "label_smoothing=1"], "label_smoothing must be a number from 0 to below 1"),
        (["--seed", "-1"], "A seed is a whole number from 0"),
        (["--input-size", "0"], "input_size must be a whole number of pixels from 32"),
        (["--cache-gib", "nan"], "A cache's limit"),
        (["--teacher", "nobody-1"], "there is none called nobody-1"),
        (["--teacher", "wrist-finder-2"], "wrist-finder-2 finds wrists"),
        (["--teacher", EMBEDDED, "--input-size", "80"], "a multiple of 32, but 80 came"),
        (["--finder", "wrist-finder-2"], "none called wrist-finder-2 does"),
        (["--out", str(CHECKPOINTS), "--finder", EMBEDDED], f"{EMBEDDED} reads films"),
    ],
)
def test_errors_are_one_sentence(dataset, places, capsys, more, sentence):
    assert main(ask(dataset, places, "--backbone", "efficientnetlite0", *more)) == 1
    error = capsys.readouterr().err.strip()
    assert sentence in error
    assert "\n" not in error
    assert "/nowhere" not in error


def test_a_teacher_of_steps_is_refused_before_films_are_read(dataset, places, capsys, monkeypatch):
    steps = {"method": "isotonic", "logits": [0.0], "probabilities": [0.5]}
    card = replace(verify(CHECKPOINTS / EMBEDDED), calibration=steps)
    monkeypatch.setattr("core.train.__main__._find_card", lambda *_: card)
    assert main(ask(dataset, places, "--backbone", "efficientnetlite0", "--teacher", "steps-1")) == 1
    assert "that of steps-1 is isotonic" in capsys.readouterr().err


def test_each_setting_is_as_it_must_be_where_it_is_not_given():
    for name in train.EXTRA:
        check_settings(replace(train.PRESETS["scaphoid"], extra={name: train.EXTRA[name][0]}))


@pytest.mark.parametrize("place", ["weights", "runs"])
def test_a_file_that_cannot_be_read_or_written_is_one_sentence(dataset, places, tmp_path, capsys, monkeypatch, place):
    more = ["--id", "no-room"]
    if place == "weights":

        def refuse(*_):
            raise OSError(28, "No space left on device", "/nowhere/state.npz")

        monkeypatch.setattr(train, "fit", refuse)
    else:
        (tmp_path / "file").write_text("")
        more += ["--runs", str(tmp_path / "file")]
    assert main(ask(dataset, places, "--backbone", "efficientnetlite0", *more)) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("A training must be able to read and write its files, but the system says: ")
    assert "/" not in said
    if place == "weights":
        found = json.loads((places["runs"] / "no-room" / train.PROGRESS_NAME).read_text())
        assert (found["phase"], found["message"]) == ("failed", said)


def test_a_disk_that_is_full_leaves_the_state_before(tmp_path, monkeypatch):
    run = train.RunFolder(tmp_path)
    run.save_state(State([np.arange(3.0)], [], [{"epoch": 1}]))

    def refuse(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("core.train.runs.os.fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        run.save_state(State([np.arange(4.0)], [], [{"epoch": 2}]))
    assert [path.name for path in tmp_path.iterdir()] == [train.STATE_NAME]
    assert run.load_state().history == [{"epoch": 1}]


# --- which films ------------------------------------------------------------------------------------------------------


def place_films(root, *studies):
    """Write films in the layout of MURA: "train/XR_WRIST/1+" is a study of patient 1 with a finding."""
    for study in studies:
        folder, finding = study[:-1], "positive" if study[-1] == "+" else "negative"
        split, part, patient = folder.split("/")
        path = root / split / part / f"patient{int(patient):05d}" / f"study1_{finding}" / "image1.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(png_film())
    return root


def request_for(data, **changes):
    settings = replace(train.PRESETS["scaphoid"], backbone="efficientnetlite0")
    return train.Request("a", "fracture", str(data), None, "", None, None, None, **{"settings": settings} | changes)


def test_trainings_with_different_seeds_are_measured_on_the_same_patients(dataset):
    found = [
        train.collect_films(request_for(dataset, settings=replace(train.PRESETS["scaphoid"], seed=seed)))
        for seed in range(6)
    ]
    assert len({data.split for data in found}) == 1
    assert len({tuple(film.path for film in data.test) for data in found}) == 1
    assert len({train.collect_films(request_for(dataset, split_seed=seed)).split for seed in range(6)}) > 1


def test_a_fingerprint_tells_which_study_is_in_which_part():
    one, two, three = (Study(name, "p") for name in ("1", "2", "3"))
    known = fingerprint({"train": [one, two], "test": [three]})
    assert known == fingerprint({"test": [three], "train": [two, one]})
    assert known != fingerprint({"train": [one], "test": [three, two]})
    assert known != fingerprint({"train": [one, two], "test": []})


def test_a_run_does_not_go_on_when_its_parts_are_others(dataset, places, capsys, monkeypatch):
    def stop(*_):
        raise train.Stopped

    monkeypatch.setattr(train, "fit", stop)
    assert main(ask(dataset, places, "--backbone", "efficientnetlite0", "--id", "parts-1")) == 130
    folder = train.RunFolder(places["runs"] / "parts-1")
    begun = folder.load_request()
    assert begun.split == train.collect_films(begun).split
    (folder.folder / train.STATE_NAME).write_bytes(b"the state after an epoch")
    resume = ["--resume", "parts-1", "--runs", str(places["runs"])]
    assert main(resume) == 130
    folder.save_request(replace(begun, split=begun.split[::-1]))
    capsys.readouterr()
    assert main(resume) == 1
    assert "the dataset's are others by now" in capsys.readouterr().err


def test_a_run_of_before_keeps_its_films_and_its_parts(tmp_path):
    folder = train.RunFolder(tmp_path)
    settings = replace(train.PRESETS["scaphoid"], seed=7)
    folder.save_request(request_for("films", settings=settings))
    content = json.loads((tmp_path / train.REQUEST_NAME).read_text())
    for name in ("region", "split_seed", "split", "positive_label"):
        del content[name]
    (tmp_path / train.REQUEST_NAME).write_text(json.dumps(content))
    again = folder.load_request()
    assert (again.region, again.split_seed, again.split, again.positive_label) == ("all", 7, None, None)


@pytest.mark.parametrize(
    ("train_part", "held_out", "sentence"),
    [
        ("1+ 4-", "2- 3-", "valid has none with one"),
        ("1+ 4-", "2+ 3+", "valid has none without one"),
        ("1+", "2+ 3- 5+ 6-", "train has none without one"),
    ],
)
def test_a_part_that_lacks_a_class_is_refused_before_films_are_read(tmp_path, train_part, held_out, sentence):
    for split, studies in (("train", train_part), ("valid", held_out)):
        place_films(tmp_path, *(f"{split}/XR_WRIST/{study}" for study in studies.split()))
    with pytest.raises(DatasetError, match=sentence):
        train.collect_films(request_for(tmp_path))


def test_a_training_takes_the_wrists_unless_it_is_told_otherwise(tmp_path, capsys):
    for number, split in enumerate(("train", "valid", "valid")):
        for part in (1, 2):
            place = f"{split}/{('XR_WRIST', 'XR_ELBOW')[part - 1]}/{part}{number}"
            place_films(tmp_path, f"{place}1+", f"{place}2-")

    def parts(region):
        data = train.collect_films(request_for(tmp_path, region=region))
        return {film.path.parts[-4] for film in (*data.train, *data.valid, *data.test)}

    assert parts(None) == {"XR_WRIST"}
    said = capsys.readouterr().err
    assert "note: Of several parts of the body the wrists alone are taken" in said
    assert parts("all") == {"XR_WRIST", "XR_ELBOW"}
    assert "wrists alone" not in capsys.readouterr().err
    assert parts("XR_ELBOW") == {"XR_ELBOW"}
    assert survey_dataset(tmp_path).sentence.startswith("6 films")


def test_a_foreign_file_among_the_films_stops_no_training(tmp_path, capsys):
    for split, label, number in product(("train", "valid", "test"), ("Fracture", "Normal"), range(2)):
        path = tmp_path / f"{split}/{label}/{split}-{number}-{label}/1.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(png_film())
    (tmp_path / "about.json").write_text('{"images": 18}')
    data = train.collect_films(request_for(tmp_path))
    assert (len(data.train), data.with_masks) == (4, False)
    told = capsys.readouterr().err
    assert told.count("note: A COCO file") == 1
    assert "about.json" not in told, "what is printed is kept beside the training"


def test_an_unknown_run_cannot_be_resumed(places, capsys):
    assert main(["--resume", "never-begun", "--runs", str(places["runs"])]) == 1
    assert "none of this id" in capsys.readouterr().err


def test_a_run_is_not_begun_twice(cut_off, dataset, places, capsys):
    assert main(ask(dataset, places, "--backbone", "efficientnetlite0", "--id", "small-1")) == 1
    assert "--resume" in capsys.readouterr().err


def test_a_patient_on_both_sides_is_refused(tmp_path, places, capsys):
    write_films(tmp_path, "train", range(2))
    write_films(tmp_path, "valid", range(4))
    assert main(ask(tmp_path, places, "--backbone", "efficientnetlite0", "--id", "leaky")) == 1
    assert "2 are in more than one" in capsys.readouterr().err


def test_help_needs_no_tensorflow():
    code = (
        "import sys\nfrom core.train.__main__ import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('tensorflow', 'keras', 'pandas', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
    assert "--backbone" in done.stdout


# --- the pieces ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0.0, 30.0, -135.0])
def test_a_region_moves_as_the_picture_moves(mirrored, degrees):
    """A dot is drawn at the centre and one where the fingers are: both must be found where the region says."""
    region = WristRegion(90.5, 120.5, 60.0, 25.0)
    tip = np.array([region.x, region.y]) + 40 * np.array([np.sin(np.radians(25)), -np.cos(np.radians(25))])
    matrix = move_matrix(128, (100.0, 110.0), 180.0, degrees, mirrored)
    moved = move_region(region, matrix)
    for place, expected in (
        ((region.x, region.y), (moved.x, moved.y)),
        (tip, np.array([moved.x, moved.y]) + 40 * 128 / 180 * _direction(moved.angle)),
    ):
        picture = np.zeros((200, 200), np.float32)
        cv2.circle(picture, (round((place[0] - 0.5) * 16), round((place[1] - 0.5) * 16)), 64, 1.0, -1, shift=4)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        warped = cv2.warpAffine(picture, matrix, (128, 128), flags=flags)
        rows, columns = np.mgrid[:128, :128] + 0.5
        found = np.array([(warped * columns).sum(), (warped * rows).sum()]) / warped.sum()
        assert found == pytest.approx(expected, abs=0.2)
    assert moved.side == pytest.approx(60.0 * 128 / 180)


def _direction(angle):
    return np.array([np.sin(np.radians(angle)), -np.cos(np.radians(angle))])


def test_pool_mask_keeps_a_single_bright_pixel():
    mask = np.zeros((40, 40), np.uint8)
    mask[39, 17] = 255
    expected = np.zeros((3, 3))
    expected[2, 1] = 1
    assert np.array_equal(pool_mask(mask, 3), expected)


def films_of(dataset, split="train"):
    from core.datasets import index_dataset

    index = index_dataset(dataset)
    return [
        Film(path, study.id, study.patient_id, study.label, partial(index.read_mask, path), index.regions[path])
        for study in index.splits[split]
        for path in study.paths
        if path.name != "image9.png"
    ]


def test_fracture_batches_are_the_same_each_time_and_masks_lie_on_breaks(dataset):
    squares = Squares(films_of(dataset), 96, margin=1.5, masks=True)
    sampler = FractureSampler(squares, input_size=64, batch_size=4, seed=1, location=True, whole=False)
    (films, targets), (again, _) = sampler.batch(0, 1), sampler.batch(0, 1)
    assert np.array_equal(films, again)
    assert not np.array_equal(films, sampler.batch(1, 1)[0])
    assert films.shape == (4, 64, 64, 1)
    assert films.min() >= 0
    assert films.max() <= 1
    assert targets["location"].shape == (4, 4, 4, 2)
    for label, places in zip(targets["logit"][:, 0], targets["location"], strict=True):
        assert label == places[..., 0].max()
        assert (places[..., 1] == 1).all()
    seen = np.concatenate([sampler.batch(2, number)[1]["logit"] for number in range(2)])
    assert 0 < seen.sum() < len(seen)


def test_an_epoch_of_fewer_films_draws_others_each_time(dataset):
    squares = Squares(films_of(dataset), 96, margin=1.5, masks=True)
    settings = {"input_size": 64, "batch_size": 2, "seed": 1}
    few, all_films, many = (
        FractureSampler(squares, location=True, whole=False, epoch_films=films, **settings) for films in (5, None, 999)
    )
    assert (few.batches, all_films.batches) == (2, len(squares) // 2)
    assert many.batches == all_films.batches
    assert np.array_equal(few.batch(3, 1)[0], all_films.batch(3, 1)[0])
    finder = WristSampler(squares, np.zeros((2, 96, 96), np.uint8), epoch_films=5, **settings)
    assert finder.batches == int(5 / (1 - WristSampler.SHARE_WITHOUT)) // 2


def test_a_break_outside_the_square_is_no_positive_example(dataset):
    films = [film for film in films_of(dataset) if film.label == 1]
    moved = [replace(film, region=WristRegion(8.0, 8.0, 12.0)) for film in films]
    sampler = FractureSampler(
        Squares(moved, 96, margin=1.5, masks=True), input_size=64, batch_size=4, seed=1, location=True, whole=False
    )
    assert sampler.batch(0, 0)[1]["logit"].sum() == 0


def test_wrist_batches_hold_grids_of_the_wrist_and_films_without(dataset):
    squares = Squares(films_of(dataset), 120, whole=True)
    others = np.zeros((2, 120, 120), np.uint8)
    sampler = WristSampler(squares, others, input_size=96, batch_size=10, seed=2)
    films, targets = sampler.batch(0, 0)
    grids = targets[MAPS]
    assert films.shape == (10, 96, 96, 1)
    assert grids.shape == (10, 12, 12, 5)
    found = round(10 * (1 - WristSampler.SHARE_WITHOUT))
    assert 5 <= found <= 8
    assert (grids[:found, ..., 0].max(axis=(1, 2)) > 0.5).all()
    assert not grids[found:].any()
    heat = np.clip(grids[0, ..., :4].astype(float), -10, 10)
    heat[..., 0] = np.log(np.clip(heat[..., 0], 1e-4, 0.9999) / (1 - np.clip(heat[..., 0], 1e-4, 0.9999)))
    assert 0 < read_grid(heat).side < 1.4


def test_the_maps_loss_is_least_for_the_right_answer():
    from keras import ops

    target, weight = draw_grid(0.4, 0.6, 0.4, 20.0, 12)
    truth = np.concatenate([target, weight[..., None]], axis=-1)[None]
    right = target[None].copy()
    heat = np.clip(right[..., 0], 1e-4, 1 - 1e-4)
    right[..., 0] = np.log(heat / (1 - heat))
    best = float(ops.convert_to_numpy(losses.maps_loss(truth, right))[0])
    assert best == pytest.approx(0.0, abs=0.02)
    for channel in range(4):
        wrong = right.copy()
        wrong[..., channel] += 0.5
        assert float(ops.convert_to_numpy(losses.maps_loss(truth, wrong))[0]) > best + 0.02


def test_the_location_loss_counts_a_missed_break_more_than_a_false_alarm():
    from keras import ops

    target = np.zeros((2, 2, 2, 2), np.float32)
    target[..., 1] = 1
    target[0, 0, 0, 0] = 1
    logit = np.full((2, 2, 2, 1), -20.0, np.float32)
    logit[1, 0, 0, 0] = 20.0
    missed, alarm = ops.convert_to_numpy(losses.location_loss(target, logit))
    assert missed == pytest.approx(losses.LOCATION_POSITIVE * 20 / 4, rel=1e-4)
    assert alarm == pytest.approx(20 / 4, rel=1e-4)
    target[..., 1] = 0
    assert ops.convert_to_numpy(losses.location_loss(target, logit)).sum() == 0


def test_fit_confidence_recovers_the_share_that_was_found():
    rng = np.random.default_rng(4)
    heats = rng.normal(0, 1, 8000)
    found = rng.random(8000) < 1 / (1 + np.exp(-(2 * heats + 0.5)))
    calibration = fit_confidence(heats, found)
    assert calibration["weight"] == pytest.approx(2.0, abs=0.15)
    assert calibration["bias"] == pytest.approx(0.5, abs=0.1)
    with pytest.raises(TrainingError, match="one is absent"):
        fit_confidence(heats, np.ones(8000, bool))


def test_peak_of_a_location_map_is_in_the_hottest_cell():
    location = np.full((14, 14), -5.0, np.float32)
    location[3, 10] = 4.0
    row, column = peak_of(location, 224)
    assert (row // 16, column // 16) == (3, 10)


def test_angle_error_wraps():
    assert angle_error(WristRegion(0, 0, 1, 179.0), WristRegion(0, 0, 1, -179.0)) == pytest.approx(2.0)


@pytest.mark.parametrize("kind", KINDS)
def test_decoys_are_films_and_the_same_each_time(kind):
    film = simulate_decoy(3, 96, kind)
    assert film.shape == (96, 96)
    assert film.dtype == np.uint8
    assert np.array_equal(film, simulate_decoy(3, 96, kind))
    assert not np.array_equal(film, simulate_decoy(4, 96, kind))
    assert np.ptp(film) > 20


def test_a_request_survives_its_file(tmp_path, dataset, places):
    options = build_parser().parse_args(ask(dataset, places, "--backbone", "resnet50", "--epochs", "7"))
    request = make_request(options)
    folder = train.RunFolder(tmp_path / "run")
    folder.save_request(request)
    again = folder.load_request()
    assert json.dumps(asdict(again)) == json.dumps(asdict(request))
    assert again.settings.epochs == 7
    assert again.settings.weights is None


def test_a_command_line_becomes_a_request(dataset, places, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    more = ("--backbone", "resnet50", "--out", "models", "--region", "XR_WRIST")
    more += ("--set", "label_smoothing=0.1", "--set", "weight_decay=0", "--set", "dropout=0.2")
    more += ("--positive-label", "abnormal")
    request = make_request(build_parser().parse_args(ask(dataset, places, *more)))
    assert (request.out, request.region) == (str(tmp_path / "models"), "XR_WRIST")
    assert request.positive_label == "abnormal"
    assert (request.settings.label_smoothing, request.settings.weight_decay) == (0.1, 0)
    assert request.settings.location_weight == train.PRESETS["scaphoid"].location_weight
    assert request.settings.extra == {**train.PRESETS["scaphoid"].extra, "dropout": 0.2}
    assert build_parser().parse_args([]).runs == train.RUNS == jobs.RUNS
    assert train.RUNS.is_absolute()
