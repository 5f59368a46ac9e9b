"""Whole trainings of a tiny network, from the command to what is published: half precision, MURA, two processes."""

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from core import train
from core.backbones import find_backbone
from core.checkpoints import CHECKPOINTS, default_id, read_scores, verify
from core.checkpoints.weights import WEIGHTS_NAME, find_datasets
from core.classifier import decide, load_classifier, study_probability
from core.datasets import index_dataset
from core.errors import CheckpointError
from core.phantoms.dataset import DatasetSettings, write_dataset
from core.radiographs import read_radiograph
from core.train import inputs
from core.train.__main__ import main
from tests.test_train import ask, dataset, places, stepwise  # noqa: F401
from tests.test_train_engine import tiny_network

h5py = pytest.importorskip("h5py")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def built(monkeypatch):
    """A tiny network wherever one is trained or read; what was built to train: (policy, dtype it computes in)."""
    import keras

    kinds = []

    def build(*asked_for, **more):
        model = tiny_network(*asked_for, **more)
        kinds.append((keras.config.dtype_policy().name, model.get_layer("features").compute_dtype))
        return model

    def build_again(name, *, input_size, location_head, scaling):
        model = tiny_network(None, input_size, location_head)
        model.get_layer("pooled").name = find_backbone(name).feature_layer
        return model

    monkeypatch.setattr("core.train.loop.build_network", build)
    monkeypatch.setattr("core.classifier.build_classifier", build_again)
    return kinds


def arrays_of(folder):
    with h5py.File(folder / WEIGHTS_NAME) as file:
        return {name: array[()] for name, array in find_datasets(file)}


# --- half precision ---------------------------------------------------------------------------------------------------


def test_a_network_trained_in_half_precision_is_published_as_any_other(dataset, places, built):  # noqa: F811
    import keras

    more = ("--backbone", "efficientnetlite0", "--epochs", "2", "--set", "small_epochs=0", "--set", "ema=0")
    for name, precision in (("half-1", "mixed_bfloat16"), ("full-1", "float32")):
        with stepwise():
            assert main(ask(dataset, places, *more, "--id", name, "--precision", precision)) == 0
    # What was trained computed in half precision; what is measured and published was built anew and does not.
    assert built == [("mixed_bfloat16", "bfloat16"), ("float32", "float32"), ("float32", "float32")]
    assert keras.config.dtype_policy().name == "float32"
    half, full = (arrays_of(places["out"] / name) for name in ("half-1", "full-1"))
    kinds = {name: (array.dtype, array.shape) for name, array in half.items()}
    assert kinds == {name: (array.dtype, array.shape) for name, array in full.items()}
    embedded = arrays_of(CHECKPOINTS / default_id()).values()
    floats = {array.dtype for array in embedded if array.dtype.kind == "f"}
    assert {dtype for dtype, _ in kinds.values() if dtype.kind == "f"} == floats == {np.dtype(np.float16)}
    # The numbers are those that were learned, rounded once; bfloat16 would have kept two or three digits of them.
    weights = train.RunFolder(places["runs"] / "half-1").load_state().weights
    learned = {array.astype(np.float16).tobytes() for array in weights if array.dtype == np.float32}
    assert {array.tobytes() for array in half.values() if array.dtype.kind == "f"} == learned
    # Of the few numbers of a 1x1 convolution all may round to the same.
    assert all(not np.array_equal(half[name], full[name]) for name in half if half[name].size > 100)

    classifier = load_classifier("half-1", places["out"])
    assert {variable.dtype for variable in classifier.model.trainable_variables} == {"float32"}
    index = index_dataset(dataset)
    studies = {study.id: study for study in index.splits["valid"]}
    for scores in read_scores(places["out"] / "half-1"):
        for study, probability in zip(scores.study_ids, scores.probabilities, strict=True):
            films = [read_radiograph(path.read_bytes()) for path in studies[study].paths]
            found = study_probability(classifier.predict(films), classifier.checkpoint)
            assert found == pytest.approx(probability, abs=1e-4)


# --- the networks themselves ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["efficientnetlite0", "efficientnetb0", "resnet50", "densenet169"])
def test_each_network_is_trained_to_its_publication(backbone, dataset, places):  # noqa: F811
    """Compiled and whole, as no other test trains it; what is published answers as what was trained did."""
    assert main(ask(dataset, places, "--backbone", backbone, "--id", f"whole-{backbone}", "--epochs", "2")) == 0
    card = verify(places["out"] / f"whole-{backbone}")
    assert (card.backbone, card.location_head) == (backbone, True)
    assert (places["out"] / card.id / WEIGHTS_NAME).stat().st_size < 50e6
    classifier = load_classifier(card.id, places["out"])
    index = index_dataset(dataset)
    studies = {study.id: study for study in index.splits["valid"]}
    scored = [
        row
        for scores in read_scores(places["out"] / card.id)
        for row in zip(scores.study_ids, scores.probabilities, strict=True)
    ]
    assert len(scored) == 4
    for study, probability in scored:
        films = [read_radiograph(path.read_bytes()) for path in studies[study].paths]
        regions = [index.regions[path] for path in studies[study].paths]
        found = study_probability(classifier.predict(films, regions), classifier.checkpoint)
        assert found == pytest.approx(probability, abs=1e-4)


# --- MURA -------------------------------------------------------------------------------------------------------------

MURA = {
    *("train", "valid", "train_image_paths.csv", "train_labeled_studies.csv"),
    *("valid_image_paths.csv", "valid_labeled_studies.csv"),
}


def rows_of(path):
    return list(csv.reader(path.read_text("utf-8").splitlines()))


@pytest.fixture(scope="module")
def mura(tmp_path_factory):
    """A folder as MURA-v1.1 is unpacked: two parts of the body, lists without a heading, and nothing else."""
    root = tmp_path_factory.mktemp("unpacked") / "MURA-v1.1"
    write_dataset(root, DatasetSettings(8, seed=6, size=96, valid_fraction=0.5))
    removed = {entry for entry in root.iterdir() if entry.name not in MURA}
    assert {"masks", "metadata.csv", "simulated.json"} <= {entry.name for entry in removed}
    for entry in removed:
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for split in ("train", "valid"):
        first = next((root / split / "XR_WRIST").iterdir())
        shutil.copytree(first, root / split / "XR_ELBOW" / f"{first.name}9")
        for name in ("image_paths", "labeled_studies"):
            rows = rows_of(root / f"{split}_{name}.csv")
            assert all(row[0].startswith(f"MURA-v1.1/{split}/XR_WRIST/patient") for row in rows)
            old, new = (f"{part}/{first.name}" for part in ("XR_WRIST", "XR_ELBOW"))
            more = [[row[0].replace(f"{old}/", f"{new}9/"), *row[1:]] for row in rows if f"{old}/" in row[0]]
            assert more
            lines = [",".join(row) for row in (*rows, *more)]
            (root / f"{split}_{name}.csv").write_text("\n".join(lines) + "\n", "utf-8")
    assert {entry.name for entry in root.iterdir()} == MURA
    assert {path.suffix for path in root.rglob("*") if path.is_file()} == {".png", ".csv"}
    return root


@pytest.mark.parametrize(
    ("preset", "backbone", "parts"), [("better-mura", "resnet50", 1), ("mura-320", "densenet169", 2)]
)
def test_a_recipe_trains_on_mura_as_unpacked(
    mura,
    places,  # noqa: F811
    built,
    capsys,
    monkeypatch,
    preset,
    backbone,
    parts,
):
    """The first of the two read wrists, the other every part of the body."""
    made, name = [], f"{preset}-1"
    make = inputs.Squares
    monkeypatch.setattr(inputs, "Squares", lambda *given, **asked: made.append(make(*given, **asked)) or made[-1])
    more = ("--preset", preset, "--backbone", backbone, "--id", name, "--epochs", "1")
    with stepwise():
        assert main(ask(mura, places, *more)) == 0
    said = capsys.readouterr()
    assert said.out == f"Published {name}.\n"
    assert ("wrists alone are taken" in said.err) == (parts == 1)
    assert not [line for line in said.err.splitlines() if line.startswith("left out")]

    card = verify(places["out"] / name)
    assert (card.positive_label, card.backbone, card.settings.preset) == ("abnormal", backbone, preset)
    assert card.settings.extra["augmentation"] == preset
    assert card.fit == ("stretch" if preset == "better-mura" else "pad")
    assert decide(1.0, card).text == "Abnormality suspected"
    assert card.data["simulated"] is False
    assert f"films of a dataset in the format mura of {3 + parts} patients" in card.data["trained_on"]
    films = {}
    for split in ("train", "valid"):
        listed = [path for (path,) in rows_of(mura / f"{split}_image_paths.csv")]
        films[split] = [path for path in listed if parts == 2 or "/XR_WRIST/" in path]
        assert len(films[split]) < len(listed) or parts == 2
    counts = card.data["counts"]
    assert counts["train_films"] == len(films["train"])
    assert counts["valid_films"] + counts["test_films"] == len(films["valid"])
    # No outline of a finding is known, so that nothing could teach where it lies.
    assert card.location_head is False
    assert not [entry for entry in card.data["results"] if "location" in entry]
    classifier = load_classifier(name, places["out"])
    assert set(classifier.model.output) == {"logit", "probability"}
    with pytest.raises(CheckpointError, match="location head was expected"):
        classifier.location(read_radiograph(next(mura.rglob("*.png")).read_bytes()))
    # Films that are no squares became those that are read now, to learn from and to be measured on.
    assert len(made) == 2
    for squares in made:
        film = read_radiograph(squares.films[0].path.read_bytes())
        assert film.pixels.shape[0] != film.pixels.shape[1]
        read = classifier.square(film)
        np.testing.assert_allclose(squares.square(0)[0] / 255, read, atol=0.003)
        assert (read[:, 0].max() > 0 and read[0].max() > 0) == (card.fit == "stretch")
    whole = index_dataset(mura, region=None if parts == 2 else "XR_WRIST").splits["valid"]
    answers = (classifier.predict([read_radiograph(path.read_bytes()) for path in study.paths]) for study in whole)
    found = sorted(study_probability(films, classifier.checkpoint) for films in answers)
    told = sorted(float(value) for each in read_scores(places["out"] / name) for value in each.probabilities)
    assert told == pytest.approx(found, abs=1e-4)
    # The patients of what may not be passed on go by numbers.
    assert {patient[0] for scores in read_scores(places["out"] / name) for patient in scores.patient_ids} == {"p"}
    assert len(built) == 1


# --- several machines -------------------------------------------------------------------------------------------------

# One of several processes that train together, each with a tiny network.
TOGETHER = """
import gc
gc.disable()  # while TensorFlow is imported
import sys
from core.train import loop
from core.train.__main__ import main
from tests.test_train_engine import tiny_network
loop.build_network = tiny_network
sys.exit(main(sys.argv[1:]))
"""


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def run_together(arguments, folder, count=2, seconds=240):
    """Run the training in several processes as TF_CONFIG joins them; return each one's (status, stdout, stderr)."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(count)]}
    started = []
    for number in range(count):
        config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": number}})
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "TF_CONFIG": config}
        with open(folder / f"{number}.out", "wb") as out, open(folder / f"{number}.err", "wb") as err:
            command = [sys.executable, "-c", TOGETHER, *arguments]
            started.append(subprocess.Popen(command, stdout=out, stderr=err, env=environment))
    deadline = time.monotonic() + seconds
    try:
        # Where one fails the others would wait for it.
        while time.monotonic() < deadline and {process.poll() for process in started} in ({None}, {None, 0}):
            time.sleep(0.1)
    finally:
        for process in started:
            process.kill()
            process.wait()
    said = [[(folder / f"{number}.{end}").read_text() for end in ("out", "err")] for number in range(count)]
    return [(process.returncode, *words) for process, words in zip(started, said, strict=True)]


@pytest.fixture(scope="module")
def together(dataset, places, tmp_path_factory):  # noqa: F811
    more = ("--backbone", "efficientnetlite0", "--id", "pair-1", "--epochs", "1", "--set", "small_epochs=0")
    plain = ("--set", "looks=1", "--set", "ema=0", "--set", "textures=0")
    told = run_together(ask(dataset, places, *more, *plain), tmp_path_factory.mktemp("pair"))
    assert [status for status, *_ in told] == [0, 0], [error[-2000:] for *_, error in told]
    return told


def epochs_of(error, name):
    """Return a figure of each epoch as a training says it on stderr."""
    rows = [line.split(", ") for line in error.splitlines() if line.startswith("epoch ") and ", size " in line]
    return [float(entry.removeprefix(f"{name} ")) for row in rows for entry in row if entry.startswith(f"{name} ")]


def test_of_two_processes_that_train_together_one_publishes(together, places):  # noqa: F811
    (_, first, leading), (_, second, following) = together
    assert first == "Published pair-1.\n"
    assert second == "Done; another process publishes.\n"
    assert "measuring" in leading
    assert "measuring" not in following
    # Either has learned from the whole batches, of which each saw one half.
    losses = epochs_of(leading, "loss")
    assert len(losses) == 1
    assert epochs_of(following, "loss") == losses
    card = verify(places["out"] / "pair-1")
    assert card.data["counts"]["train_films_unreadable"] == 1
    folder = places["runs"] / "pair-1"
    assert json.loads((folder / train.PROGRESS_NAME).read_text())["phase"] == "published"
    state = train.RunFolder(folder).load_state()
    assert [row["loss"] for row in state.history] == pytest.approx(losses, rel=1e-3)
    assert int(state.optimizer[0]) == 2
    assert [entry.name for entry in places["out"].glob("pair-1*")] == ["pair-1"]


def test_processes_that_train_together_measure_the_same_network(together):
    first, second = (epochs_of(error, "valid_loss") for _, _, error in together)
    assert len(first) == 1
    assert first == second
