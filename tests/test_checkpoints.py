"""Checkpoints on disk: published whole or not at all, verified byte by byte, imported without running anything."""

import csv
import hashlib
import json
import math
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core import checkpoints
from core.backbones import build_classifier
from core.checkpoints import (
    default_id,
    import_checkpoint,
    list_checkpoints,
    publish,
    read_card,
    read_history,
    read_scores,
    set_default,
    verify,
)
from core.checkpoints.__main__ import main
from core.checkpoints.cards import card_sha256, read_card_text, write_card
from core.checkpoints.ensembles import members_of, read_ensemble
from core.checkpoints.notes import SHOWN, read_notes
from core.checkpoints.weights import (
    WEIGHTS_NAME,
    find_datasets,
    load_weights,
    round_floats,
    round_to_float16,
    save_weights,
)
from core.errors import CheckpointError
from core.metrics import calibrate
from core.values import Checkpoint, Interval, OperatingPoint, Scores, TrainingSettings

h5py = pytest.importorskip("h5py")

SHARE = Interval(0.9, 0.8, 0.95, 120)
CARD = Checkpoint(
    id="lite0-test",
    title="A test",
    task="fracture",
    backbone="efficientnetlite0",
    feature_layer="top_activation",
    input_size=32,
    operating_points=(
        OperatingPoint("high_sensitivity", 0.25, SHARE, SHARE),
        OperatingPoint("high_specificity", 0.75, SHARE, SHARE),
    ),
    calibration={"method": "temperature", "temperature": 1.5},
    settings=TrainingSettings("efficientnetlite0", extra={"mixup": False}),
    data={"trained_on": "Simulated films.", "simulated": True, "results": {"auc": np.float64(0.5)}},
    versions={"keras": "3"},
)
SCORES = (
    Scores("lite0-test", "valid", ("a", "b"), ("p", "q"), [0, 1], [0.25, 1 / 3]),
    Scores("lite0-test", "test", ("c",), ("r",), [1], [0.875]),
)


@pytest.fixture(scope="module")
def model():
    import keras

    keras.utils.set_random_seed(3)
    return build_classifier("efficientnetlite0", input_size=32)


@pytest.fixture(scope="module")
def weights(model, tmp_path_factory):
    """The model's weights in a plain Keras file, float32, as training elsewhere would leave them."""
    path = tmp_path_factory.mktemp("weights") / "elsewhere.weights.h5"
    model.save_weights(path)
    return path


@pytest.fixture
def small(tmp_path):
    """A tiny weights file: enough wherever no network is built."""
    path = tmp_path / "small.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/dense/vars/0"] = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
        file["layers/normalization/vars/2"] = np.array(7, np.int32)
        file["optimizer/vars/0"] = np.zeros(1000, np.float32)
    return path


@pytest.fixture
def folder(tmp_path, small):
    folder = tmp_path / "checkpoints"
    publish(folder, CARD, small, history=[{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}], scores=SCORES)
    return folder


def rewrite_card(folder, change, rehash=True):
    """Alter a published card; with `rehash` as somebody would who knows how cards are hashed."""
    path = folder / CARD.id / "card.json"
    content = json.loads(path.read_text("utf-8"))
    change(content)
    if rehash:
        content["card_sha256"] = card_sha256(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def reason(folder):
    (entry,) = list_checkpoints(folder)
    assert entry.checkpoint is None
    assert str(folder) not in entry.reason
    assert entry.reason.endswith(".")
    return entry.reason


# --- Publishing -------------------------------------------------------------------------------------------------------


def test_published_checkpoint_comes_back_as_it_went(folder):
    (entry,) = list_checkpoints(folder)
    assert (entry.id, entry.reason) == ("lite0-test", None)
    card = entry.checkpoint
    expected = json.loads(json.dumps(CARD.to_dict(), default=float))
    got = json.loads(json.dumps(card.to_dict()))
    for key in ("weights_sha256", "card_sha256"):
        expected.pop(key), got.pop(key)
    assert got == expected
    assert card.operating_point("high_specificity").sensitivity.low == 0.8
    assert isinstance(card.settings, TrainingSettings)
    content = (folder / CARD.id / WEIGHTS_NAME).read_bytes()
    assert card.weights_sha256 == hashlib.sha256(content).hexdigest()
    written = json.loads((folder / CARD.id / "card.json").read_text("utf-8"))
    digest = written.pop("card_sha256")
    text = json.dumps(written, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert digest == card.card_sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_weights_are_stored_in_half_precision_without_the_optimizer(folder, small):
    with h5py.File(folder / CARD.id / WEIGHTS_NAME) as half, h5py.File(small) as full:
        stored = half["layers/dense/vars/0"]
        assert stored.dtype == np.float16
        np.testing.assert_array_equal(stored[()], full["layers/dense/vars/0"][()].astype(np.float16))
        assert half["layers/normalization/vars/2"].dtype == np.int32
        assert half["layers/normalization/vars/2"][()] == 7
        assert set(half) == {"layers"}


def test_history_and_scores_come_back(folder):
    directory = folder / CARD.id
    assert read_history(directory) == [{"epoch": 1.0, "loss": 0.5}, {"epoch": 2.0, "loss": 0.25}]
    valid, test = read_scores(directory)
    assert (valid.split, valid.study_ids, valid.patient_ids) == ("valid", ("a", "b"), ("p", "q"))
    np.testing.assert_array_equal(valid.labels, [0, 1])
    np.testing.assert_array_equal(valid.probabilities, [0.25, 1 / 3])
    assert (test.split, test.probabilities.tolist()) == ("test", [0.875])
    assert test.weights_sha256 == read_card(directory).weights_sha256
    with open(directory / "scores.csv", encoding="utf-8", newline="") as file:
        assert next(csv.reader(file)) == ["split", "study_id", "patient_id", "label", "probability"]


def test_what_else_is_known_of_scored_studies_comes_back(tmp_path, small):
    known = {"view": ("PA", "LATERAL"), "cast": ("", "yes")}
    valid, test = (
        Scores(CARD.id, split, ("a", "b"), ("p", "q"), [0, 1], [0.1, 1 / 3], columns=columns)
        for split, columns in (("valid", {}), ("test", known))
    )
    publish(tmp_path, CARD, small, scores=(valid, test))
    first, second = read_scores(tmp_path / CARD.id)
    assert (first.columns, second.columns) == ({}, known)
    assert second.probabilities.tolist() == [0.1, 1 / 3]


def test_scores_that_cannot_be_are_refused(folder):
    path = folder / CARD.id / "scores.csv"
    good = path.read_text("utf-8")
    for bad in (good.replace("0.875", "1.5"), good.replace("0.875", "x"), good.replace("patient_id", "name")):
        path.write_text(bad, encoding="utf-8")
        with pytest.raises(CheckpointError, match=r"Scores must"):
            read_scores(folder / CARD.id)
    path.unlink()
    assert read_scores(folder / CARD.id) == ()


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of a file's size there")
def test_weights_that_find_no_room_are_an_error_and_not_the_end_of_the_process(tmp_path):
    weights = checkpoints.CHECKPOINTS / checkpoints.default_id() / "model.weights.h5"
    code = """
import resource, signal, sys
from pathlib import Path
from core.checkpoints.weights import copy_weights
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    copy_weights(Path(sys.argv[1]), Path(sys.argv[2]))
except OSError:
    print("told")
"""
    told = subprocess.run([sys.executable, "-c", code, weights, tmp_path / "copy.h5"], capture_output=True, text=True)
    assert (told.returncode, told.stdout) == (0, "told\n"), told.stderr


@pytest.mark.parametrize("failing", ["_flush_folder", "write_card", "_table_text"])
def test_a_crash_while_publishing_leaves_nothing_visible(tmp_path, small, monkeypatch, failing):
    folder = tmp_path / "checkpoints"

    def crash(*_):
        seen.append([entry.id for entry in list_checkpoints(folder)])
        raise OSError("no space left")

    seen = []
    monkeypatch.setattr(checkpoints, failing, crash)
    with pytest.raises(CheckpointError, match="can be written to and has space"):
        publish(folder, CARD, small, history=[{"epoch": 1}])
    assert seen == [[]]  # nothing was visible at that moment either
    assert list_checkpoints(folder) == []
    assert list(folder.iterdir()) == []


def test_a_killed_publication_is_not_listed(folder):
    (folder / CARD.id).rename(folder / f".{CARD.id}-abc.part")
    assert list_checkpoints(folder) == []


def test_what_a_killed_publication_left_goes_when_the_checkpoint_is_there(tmp_path, small):
    folder = tmp_path / "checkpoints"
    for name in (f".{CARD.id}-abcd_123.part", f".{CARD.id}-2-abcd_123.part"):
        (folder / name).mkdir(parents=True)
        (folder / name / "model.weights.h5").write_bytes(b"half")
    publish(folder, CARD, small)
    assert {path.name for path in folder.iterdir()} == {CARD.id, f".{CARD.id}-2-abcd_123.part"}, "another's is kept"


def test_a_checkpoint_is_never_overwritten(folder, small):
    before = (folder / CARD.id / "card.json").read_bytes()
    with pytest.raises(CheckpointError, match="new id"):
        publish(folder, replace(CARD, title="Another"), small)
    assert (folder / CARD.id / "card.json").read_bytes() == before


def test_a_place_is_looked_at_before_long_work(folder, small, tmp_path):
    other = tmp_path / "new" / "checkpoints"
    assert checkpoints.check_place(other, "lite0-test") == other / "lite0-test"
    assert not other.parent.exists()
    with pytest.raises(CheckpointError, match="new id, but lite0-test exists"):
        checkpoints.check_place(folder, "lite0-test")
    with pytest.raises(CheckpointError, match="lower-case"):
        checkpoints.check_place(folder, "../up")
    for no_folder in (small, small / "below"):
        for use in (lambda: checkpoints.check_place(no_folder, "a"), lambda: publish(no_folder, CARD, small)):  # noqa: B023
            with pytest.raises(CheckpointError, match="can be written to") as refusal:
                use()
            assert str(tmp_path) not in str(refusal.value)


def test_a_folder_that_may_not_be_written_to_is_refused(folder, monkeypatch):
    monkeypatch.setattr(checkpoints.os, "access", lambda place, mode: place != folder)
    with pytest.raises(CheckpointError, match="can be written to"):
        checkpoints.check_place(folder, "another")


def test_an_import_under_a_name_that_is_taken_reads_no_file(folder, small, monkeypatch):
    monkeypatch.setattr(checkpoints, "read_model", lambda *_, **__: pytest.fail("the file was read"))
    with pytest.raises(CheckpointError, match="new id, but lite0-test exists"):
        import_checkpoint(small, "efficientnetlite0", checkpoint_id="lite0-test", folder=folder)
    with pytest.raises(CheckpointError, match="can be written to"):
        import_checkpoint(small, "efficientnetlite0", folder=small)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_weight_that_is_no_number_is_refused(tmp_path, value):
    path = tmp_path / "w.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/dense/vars/0"] = np.array([1.0, value], np.float32)
    with pytest.raises(CheckpointError, match="must be a number"):
        publish(tmp_path / "checkpoints", CARD, path)
    assert list((tmp_path / "checkpoints").iterdir()) == []
    assert round_floats(np.array([65_504.0, 1e-9])).tolist() == [65_504.0, 0.0]


@pytest.mark.parametrize("card", [{"data": {"x": math.nan}}, {"data": {"x": object()}}, {"input_size": 16}])
def test_a_card_that_would_be_refused_is_not_published(tmp_path, small, card):
    with pytest.raises(CheckpointError):
        publish(tmp_path / "checkpoints", replace(CARD, **card), small)
    assert list((tmp_path / "checkpoints").iterdir()) == []


# --- Verifying --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [0, 0.5, -1])
def test_one_flipped_byte_in_the_weights_is_found(folder, where):
    path = folder / CARD.id / WEIGHTS_NAME
    assert verify(folder / CARD.id)
    content = bytearray(path.read_bytes())
    content[int(where * len(content)) if where != -1 else -1] ^= 1
    path.write_bytes(content)
    assert "weights must be as they were published" in reason(folder)
    content[int(where * len(content)) if where != -1 else -1] ^= 1
    path.write_bytes(content)
    assert verify(folder / CARD.id)


def test_a_settled_file_is_hashed_once_and_a_changed_one_again(folder, monkeypatch):
    path = folder / CARD.id / WEIGHTS_NAME
    monkeypatch.setattr(checkpoints, "SETTLED_NS", -1)
    counted = []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *a: counted.append(1) or digest(*a))
    verify(folder / CARD.id)
    verify(folder / CARD.id)
    assert len(counted) == 1
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(1, 10**18))
    with pytest.raises(CheckpointError):
        verify(folder / CARD.id)


def test_layout_of_the_text_does_not_matter_but_every_entry_does(folder):
    rewrite_card(folder, lambda card: None, rehash=False)
    assert verify(folder / CARD.id).title == "A test"
    rewrite_card(folder, lambda card: card["operating_points"][0].update(threshold=0.26), rehash=False)
    assert "altered" in reason(folder)


AUC = {"value": 0.9, "low": 0.8, "high": 0.95, "n": 9}
BROKEN = {
    "unknown backbone": (lambda c: c.update(backbone="vgg16"), "backbone must be one of resnet50.*'vgg16'"),
    "newer format": (lambda c: c.update(format=2), "format 1, but it is of format 2"),
    "no format": (lambda c: c.pop("format"), "format 1, but it is of format nothing"),
    "unknown entry": (lambda c: c.update(plugin="x"), "'plugin', which this version does not know"),
    "missing entry": (lambda c: c.pop("fit"), "must have the entry fit"),
    "another id": (lambda c: c.update(id="other"), "name of its folder"),
    "path in id": (lambda c: c.update(id="../../etc"), "lower-case letters, digits and hyphens"),
    "absolute id": (lambda c: c.update(id="/etc"), "lower-case letters, digits and hyphens"),
    "id not text": (lambda c: c.update(id=7), "lower-case letters, digits and hyphens"),
    "text for a number": (lambda c: c.update(input_size="224"), "input_size must be a whole number .* '224'"),
    "huge input": (lambda c: c.update(input_size=10**9), "from 32 to 1024"),
    "true for a number": (lambda c: c.update(input_size=True), "input_size"),
    "unknown task": (lambda c: c.update(task="knee"), "task must be fracture or wrist"),
    "unknown fit": (lambda c: c.update(fit="crop"), "fit must be pad or stretch"),
    "unknown scaling": (lambda c: c.update(scaling="double"), "scaling must be one of keras, unit, byte, torch, caffe"),
    "scaling by a list": (lambda c: c.update(scaling=[1, 0]), "scaling must be one of"),
    "scaling by two": (lambda c: c.update(scaling={"scale": [1, 1], "offset": [0, 0, 0]}), "three numbers each"),
    "scaling and more": (
        lambda c: c.update(scaling={"scale": [1] * 3, "offset": [0] * 3, "x": 1}),
        "three numbers each",
    ),
    "scaling by text": (lambda c: c.update(scaling={"scale": ["1"] * 3, "offset": [0] * 3}), "three numbers each"),
    "unknown label": (lambda c: c.update(positive_label="broken"), "fracture or abnormal"),
    "region a path": (lambda c: c.update(region="../x"), "id of a wrist finder"),
    "flag as text": (lambda c: c.update(location_head="no"), "true or false"),
    "points a table": (lambda c: c.update(operating_points={}), "operating_points must be a list"),
    "threshold above 1": (lambda c: c["operating_points"][1].update(threshold=1.5), "from 0 to 1, but it is 1.5"),
    "threshold below 0": (lambda c: c["operating_points"][0].update(threshold=-0.1), "from 0 to 1"),
    "falling points": (lambda c: c["operating_points"].reverse(), "rise in threshold"),
    "one point twice": (lambda c: c["operating_points"][1].update(name="high_sensitivity"), "once"),
    "unknown point": (lambda c: c["operating_points"][0].update(name="best"), "high_sensitivity or high_specificity"),
    "share above 1": (lambda c: c["operating_points"][0]["sensitivity"].update(high=2), "high must be from 0 to 1"),
    "crossed interval": (lambda c: c["operating_points"][0]["sensitivity"].update(low=0.96), "low end"),
    "half a case": (lambda c: c["operating_points"][0]["sensitivity"].update(n=1.5), "whole number of cases"),
    "other calibration": (lambda c: c.update(calibration={"method": "spline"}), "temperature"),
    "isotonic without points": (lambda c: c.update(calibration={"method": "isotonic"}), "isotonic"),
    "falling probabilities": (
        lambda c: c.update(calibration={"method": "isotonic", "logits": [0, 1], "probabilities": [0.9, 0.1]}),
        "never fall",
    ),
    "a probability above 1": (
        lambda c: c.update(calibration={"method": "isotonic", "logits": [0, 1], "probabilities": [0.9, 1.1]}),
        "never fall",
    ),
    "no temperature": (lambda c: c["calibration"].update(temperature=0), "temperature above 0"),
    "no study temperature": (
        lambda c: c.update(study_calibration={"method": "temperature", "temperature": 0}),
        "temperature above 0",
    ),
    "study calibration of another kind": (lambda c: c.update(study_calibration=0.5), "study_calibration"),
    "a finder's studies calibrated": (
        lambda c: c.update(
            study_calibration={"method": "temperature", "temperature": 1}, task="wrist", region=None, calibration=None
        ),
        "finder",
    ),
    "more calibration": (lambda c: c["calibration"].update(bias=1), "temperature"),
    "settings' epochs": (lambda c: c["settings"].update(epochs=-1), "epochs must be a whole number"),
    "unknown setting": (lambda c: c["settings"].update(run="x"), "card's settings has the entry 'run'"),
    "smoothing": (lambda c: c["settings"].update(label_smoothing=2), "label_smoothing"),
    "versions": (lambda c: c.update(versions={"keras": 3}), "versions must be a table of text"),
    "data": (lambda c: c.update(data=[]), "data must be a table"),
    "hash": (lambda c: c.update(weights_sha256="abc"), "64 hexadecimal digits"),
    "title": (lambda c: c.update(title=""), "title must be text"),
    "looks at whole films": (lambda c: c.update(looks=3, region=None), "must look once or, mirrored, twice"),
    "results a text": (lambda c: c["data"].update(results="x"), "as results a table of intervals"),
    "a limit as text": (lambda c: c["data"].update(results={"auc": AUC | {"low": "b"}}), "as results"),
    "a limit of nothing": (lambda c: c["data"].update(results={"auc": AUC | {"value": None}}), "as results"),
    "no number of studies": (lambda c: c["data"].update(results={"auc": {"value": 1, "low": 1, "high": 1}}), "results"),
    "a kind as text": (lambda c: c["data"].update(results={"kinds": {"colles": "x"}}), "as results"),
    "a kind's limit": (lambda c: c["data"].update(results={"kinds": {"colles": {"auc": {"low": 1}}}}), "as results"),
    "peaks as text": (lambda c: c["data"].update(peaks={"gradcam": "x"}), "as peaks a table of peaks"),
    "half a limit": (lambda c: c["data"].update(peaks={"gradcam": {"value": 1, "n": 2, "low": 0.5}}), "as peaks"),
    "crossed limits": (
        lambda c: c["data"].update(peaks={"gradcam": {"value": 1, "n": 2, "low": 2, "high": 3}}),
        "as peaks",
    ),
    "a huge film": (lambda c: c["data"].update(simulator={"version": 3, "size": 10**7}), "as simulator a table"),
    "origins as text": (lambda c: c["data"].update(came_from=["x"]), "as came_from a list of checkpoints"),
    "words as a number": (lambda c: c["data"].update(tested_on=7), "as tested_on text, or a list of sentences"),
    "learned as text": (lambda c: c["data"].update(learned=["x"]), "as learned a list of datasets"),
    "counts as text": (lambda c: c["data"].update(counts={"test_films": "x"}), "as counts a table of counts"),
    "simulated as text": (lambda c: c["data"].update(simulated="no"), "as simulated true or false"),
    "a stretched square of the wrist": (lambda c: c.update(fit="stretch", region="finder"), "must keep proportions"),
    "a finder that stretches": (
        lambda c: c.update(fit="stretch", task="wrist", region=None, looks=1, calibration=None),
        "must keep proportions",
    ),
    "a profile": (lambda c: c["data"].update(profile={"name": "x"}), "must not name a profile"),
    "a finder's looks": (
        lambda c: c.update(looks=3, task="wrist", region="finder", calibration=None),
        "must look closer once or twice, but it is 3",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_card_that_makes_no_sense_is_refused_with_its_reason(folder, case):
    change, sentence = BROKEN[case]
    rewrite_card(folder, change)
    with pytest.raises(CheckpointError, match=sentence) as refusal:
        verify(folder / CARD.id)
    assert reason(folder) == str(refusal.value)


def test_a_card_from_before_there_were_scalings_and_looks_is_whole_and_a_scaling_by_numbers_comes_back(folder):
    rewrite_card(folder, lambda card: [card.pop(name) for name in ("scaling", "looks")])
    card = verify(folder / CARD.id)
    assert (card.scaling, card.looks) == ("keras", 1)
    numbers = {"scale": [1.0, 2.0, 3.0], "offset": [0.0, -1.0, 0.5]}
    rewrite_card(folder, lambda card: card.update(scaling=numbers))
    assert verify(folder / CARD.id).scaling == numbers


def test_a_card_from_before_studies_were_calibrated_is_read_as_it_was_meant(folder):
    rewrite_card(folder, lambda card: card.pop("study_calibration"))
    assert verify(folder / CARD.id).study_calibration is None


def test_an_isotonic_calibration_comes_back_and_is_what_reads(folder):
    steps = {"method": "isotonic", "logits": [-1.0, 2], "probabilities": [0.25, 0.75]}
    rewrite_card(folder, lambda card: card.update(calibration=steps))
    assert calibrate(0.5, verify(folder / CARD.id).calibration) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "text",
    [b"", b"\xff\xfe", b"[]", b"{", b'{"format": NaN}', b'{"format": 1, "format": 1}', b"[" * 100_000, b"null"],
)
def test_a_card_that_is_no_card_is_refused(folder, text):
    (folder / CARD.id / "card.json").write_bytes(text)
    assert "card must be" in reason(folder)


@pytest.mark.parametrize(
    "entry",
    [
        '"title": "\\ud800"',
        '"data": {"epochs": 1e999}',
        '"data": {"epochs": -1e999}',
        f'"scaling": {{"scale": [1, 1, 1{"0" * 400}], "offset": [0, 0, 0]}}',
        f'"calibration": {{"method": "platt", "temperature": 1, "bias": 1{"0" * 400}}}',
        f'"data": {{"deep": {"[" * 980}{"]" * 980}}}',
    ],
)
def test_numbers_texts_and_tables_that_cannot_be_worked_with_are_refused(folder, entry):
    path = folder / CARD.id / "card.json"
    name = entry.partition(":")[0]
    others = [
        f"{json.dumps(key)}: {json.dumps(value)}" for key, value in json.loads(path.read_text("utf-8")).items()
        if json.dumps(key) != name
    ]  # fmt: skip
    path.write_text("{" + ", ".join([*others, entry]) + "}", encoding="utf-8")
    assert "cannot be read as that" in reason(folder)


def test_missing_files_are_told_apart(folder):
    weights, card = folder / CARD.id / WEIGHTS_NAME, folder / CARD.id / "card.json"
    weights.unlink()
    assert "must have weights" in reason(folder)
    card.unlink()
    assert "must have a card" in reason(folder)


def test_a_whole_checkpoint_is_listed_beside_a_broken_one(folder, small):
    publish(folder, replace(CARD, id="another"), small)
    (folder / CARD.id / WEIGHTS_NAME).unlink()
    (folder / "README.md").write_text("about", encoding="utf-8")
    first, second = list_checkpoints(folder)
    assert (first.id, first.reason) == ("another", None)
    assert (second.id, second.checkpoint) == ("lite0-test", None)
    assert list_checkpoints(folder / "nowhere") == []


def test_the_default_is_a_whole_checkpoint_that_reads_films(folder, small):
    assert default_id(folder) is None
    set_default("lite0-test", folder)
    assert default_id(folder) == "lite0-test"
    publish(folder, replace(CARD, id="finder", task="wrist", calibration={"method": "logistic", "bias": 1}), small)
    for bad, sentence in (("finder", "finds wrists"), ("absent", "none called"), ("../x", "lower-case")):
        with pytest.raises(CheckpointError, match=sentence):
            set_default(bad, folder)
    assert default_id(folder) == "lite0-test"
    assert {path.name for path in folder.iterdir()} == {"default", "finder", "lite0-test"}
    (folder / "default").write_text("../lite0-test", encoding="utf-8")
    with pytest.raises(CheckpointError):
        default_id(folder)


def test_card_text_is_stable():
    text, card = write_card(replace(CARD, weights_sha256="0" * 64))
    again, _ = write_card(card)
    assert json.loads(text) == json.loads(again)
    assert read_card_text(text.encode()).card_sha256 == card.card_sha256


# --- Weights ----------------------------------------------------------------------------------------------------------


def test_what_is_published_is_the_rounded_model(model, tmp_path):
    path = tmp_path / WEIGHTS_NAME
    save_weights(model, path)
    twin = build_classifier("efficientnetlite0", input_size=32)
    load_weights(twin, path)
    differ = 0
    for original, loaded in zip(model.get_weights(), twin.get_weights(), strict=True):
        assert loaded.dtype == original.dtype
        np.testing.assert_array_equal(loaded, original.astype(np.float16).astype(np.float32))
        differ += not np.array_equal(original, loaded)
    assert differ > 50
    first = [weight.copy() for weight in twin.get_weights()]
    round_to_float16(twin)  # rounding twice changes nothing
    assert all(np.array_equal(a, b) for a, b in zip(first, twin.get_weights(), strict=True))
    hidden = twin.get_layer("hidden")
    hidden.set_weights([np.full((1280, 64), 0.1), np.full(64, np.inf)])
    with pytest.raises(CheckpointError, match="must be a number"):
        round_to_float16(twin)
    assert hidden.get_weights()[0][0, 0] == np.float32(0.1)  # unchanged
    hidden.set_weights([np.full((1280, 64), 0.1), np.zeros(64)])
    round_to_float16(twin)
    assert hidden.get_weights()[0][0, 0] == np.float32(np.float16(0.1))


def test_an_array_that_half_precision_cannot_hold_stays_single_and_the_others_do_not(model, tmp_path):
    """Keras' ResNet50 has learned variances above 100,000 on ImageNet."""
    hidden = model.get_layer("hidden")
    kept = [each.copy() for each in model.get_weights()]
    variances = np.full(64, 146_335.1, np.float32)
    try:
        hidden.set_weights([np.full((1280, 64), 0.1, np.float32), variances])
        round_to_float16(model)
        save_weights(model, tmp_path / WEIGHTS_NAME)
        measured = [each.copy() for each in hidden.get_weights()]
    finally:
        model.set_weights(kept)
    with h5py.File(tmp_path / WEIGHTS_NAME) as file:
        assert [held.shape for _, held in find_datasets(file) if held.dtype == np.float32] == [(64,)]
    twin = build_classifier("efficientnetlite0", input_size=32)
    load_weights(twin, tmp_path / WEIGHTS_NAME)
    kernel, large = twin.get_layer("hidden").get_weights()
    np.testing.assert_array_equal(large, variances)
    np.testing.assert_array_equal(kernel, np.float32(np.float16(0.1)) * np.ones_like(kernel))
    assert all(np.array_equal(a, b) for a, b in zip(measured, (kernel, large), strict=True)), "as it was measured"


def hostile_files(folder):
    """Weights files that hold something else than plain numbers."""
    (folder / "secret.h5").write_bytes(b"")
    with h5py.File(folder / "secret.h5", "w") as file:
        file["x"] = np.ones(3, np.float32)
    (folder / "raw").write_bytes(b"\0" * 12)

    def make(name, fill):
        with h5py.File(folder / name, "w") as file:
            fill(file)
        return folder / name

    def virtual(file):
        layout = h5py.VirtualLayout((3,), "f4")
        layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "x", (3,))
        file.create_virtual_dataset("layers/dense/vars/0", layout)

    def deep(file):
        file["/".join(["g"] * 40)] = np.ones(1, np.float32)

    yield make("link.h5", lambda file: file.__setitem__("layers", h5py.ExternalLink("secret.h5", "/")))
    yield make("soft.h5", lambda file: file.__setitem__("layers", h5py.SoftLink("/elsewhere")))
    yield make("virtual.h5", virtual)
    yield make(
        "outside.h5",
        lambda file: file.create_dataset("layers/a", (3,), "f4", external=[(str(folder / "raw"), 0, 12)]),
    )
    yield make("text.h5", lambda file: file.__setitem__("layers/a", "words"))
    yield make("type.h5", lambda file: file.__setitem__("layers", np.dtype("f4")))
    yield make("deep.h5", deep)
    some = np.ones(1000, np.float32)
    yield make("packed.h5", lambda file: file.create_dataset("layers/a", data=some, compression="gzip"))
    yield make("growing.h5", lambda file: file.create_dataset("layers/a", data=some, maxshape=(None,)))
    yield make("empty.h5", lambda file: file.create_dataset("layers/a", (10**8,), "f4"))  # takes no room in the file

    def doubled(file):
        group = file.create_group("layers")
        for _ in range(16):
            above, below = group, group.create_group("g0")
            for number in range(1, 8):
                above[f"g{number}"] = below
            group = below

    yield make("doubled.h5", doubled)  # 8 to the power of 16 names


def test_anything_but_numbers_in_a_weights_file_is_refused(tmp_path, model):
    for path in hostile_files(tmp_path):
        with pytest.raises(CheckpointError, match="plain arrays of numbers only"):
            publish(tmp_path / "checkpoints", CARD, path)
        with pytest.raises(CheckpointError, match="plain arrays of numbers only"):
            load_weights(model, path)
    (tmp_path / "no.h5").write_bytes(b"words")
    with pytest.raises(CheckpointError, match="HDF5"):
        load_weights(model, tmp_path / "no.h5")


# --- Import -----------------------------------------------------------------------------------------------------------


def test_weights_trained_elsewhere_are_imported(model, weights, tmp_path, capsys):
    folder = tmp_path / "checkpoints"
    arguments = ["import", str(weights), "--backbone", "efficientnetlite0", "--input-size", "32"]
    arguments += ["--folder", str(folder)]
    assert main([*arguments, "--scaling", "local", "--positive-label", "abnormal"]) == 0
    told = capsys.readouterr()
    assert told.out == "Published efficientnetlite0-imported-1.\n"
    card = verify(folder / "efficientnetlite0-imported-1")
    assert told.err == f"{card.data['trained_on']}\n"
    assert "prepared as: local. They are padded" in told.err
    assert told.err.endswith(" The head's activations were assumed: ReLU, and sigmoid for the answer.\n")
    assert (card.task, card.location_head, card.positive_label) == ("fracture", False, "abnormal")
    assert (card.feature_layer, card.input_size, card.settings) == ("top_activation", 32, None)
    assert card.scaling == "local"
    twin = build_classifier("efficientnetlite0", input_size=32, scaling=card.scaling)
    load_weights(twin, folder / card.id / WEIGHTS_NAME)
    np.testing.assert_array_equal(
        twin.get_layer("logit").get_weights()[0], model.get_layer("logit").get_weights()[0]
    )  # not rounded: an imported model answers as it did
    # What was published has lost its names; without its card nobody can tell its scaling, and none is guessed.
    arguments[1] = str(folder / card.id / WEIGHTS_NAME)
    assert main(arguments) == 1
    assert "so --scaling must name it" in capsys.readouterr().err


def test_a_location_head_is_recognised_in_a_keras_archive(tmp_path):
    located = build_classifier("efficientnetlite0", input_size=32, location_head=True)
    located.save(tmp_path / "model.keras")
    card = import_checkpoint(
        tmp_path / "model.keras",
        "efficientnetlite0",
        checkpoint_id="mine",
        title="Mine",
        input_size=32,
        folder=tmp_path,
    )
    assert (card.id, card.title, card.location_head) == ("mine", "Mine", True)
    # A whole graph of Scaphoid's own prepares films itself: nothing was assumed.
    assert "Films are prepared as: keras. They" in card.data["trained_on"]


def test_what_does_not_fit_is_refused_in_one_sentence(weights, small, tmp_path, capsys):
    folder = tmp_path / "checkpoints"
    text = tmp_path / "text.keras"
    text.write_text("not a model", encoding="utf-8")
    for path, backbone, sentence in (
        (small, "efficientnetlite0", "numbers for this network, but they hold 7."),
        (weights, "vgg16", "backbone must be one of"),
        (text, "efficientnetlite0", "HDF5"),
        (tmp_path / "absent", "efficientnetlite0", "there is none"),
    ):
        assert main(["import", str(path), "--backbone", backbone, "--folder", str(folder)]) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert sentence in printed.err
        assert printed.err.count("\n") == 1
    assert list_checkpoints(folder) == []


def test_arrays_that_lie_one_in_another_are_no_more_than_the_file(tmp_path, model):
    path = tmp_path / "one-in-another.h5"
    with h5py.File(path, "w") as file:
        for number in range(2000):
            file.create_dataset(f"layers/a{number}", data=np.full(1000, 7.0 + number, np.float32))
        places = [file[f"layers/a{number}"].id.get_offset() for number in range(2000)]
    content = bytearray(path.read_bytes())
    first = places[0].to_bytes(8, "little")
    for place in places[1:]:
        at = content.index(place.to_bytes(8, "little"))
        content[at : at + 8] = first
    path.write_bytes(bytes(content[: max(places)]))
    with pytest.raises(CheckpointError):
        load_weights(model, path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_a_pipe_in_place_of_weights_is_refused_and_not_waited_for(folder, model):
    path = folder / CARD.id / WEIGHTS_NAME
    path.unlink()
    os.mkfifo(path)
    assert "must have weights" in reason(folder)
    with pytest.raises(CheckpointError, match="no file"):
        load_weights(model, path)


def test_weights_that_change_between_the_look_at_them_and_the_load_are_not_loaded(tmp_path, model, monkeypatch):
    folder = tmp_path / "checkpoints"
    card = publish(folder, CARD, model)
    path = folder / CARD.id / WEIGHTS_NAME
    with pytest.raises(CheckpointError, match="altered since"):
        load_weights(model, path, "0" * 64)
    load, given = type(model).load_weights, []

    def swapped(self, place):
        path.write_bytes(b"another file by now")
        given.append(Path(place))
        load(self, place)

    monkeypatch.setattr(type(model), "load_weights", swapped)
    load_weights(model, path, card.weights_sha256)  # Keras reads what was looked at
    assert given[0] != path
    assert not given[0].exists()


def test_the_right_count_in_the_wrong_shape_is_refused(weights, tmp_path):
    turned = tmp_path / "turned.weights.h5"
    turned.write_bytes(weights.read_bytes())
    with h5py.File(turned, "r+") as file:
        kernel = file["layers/conv2d/vars/0"][()]
        del file["layers/conv2d/vars/0"]
        file["layers/conv2d/vars/0"] = kernel.reshape(-1)
    with pytest.raises(CheckpointError, match="must fit the network"):
        load_weights(build_classifier("efficientnetlite0", input_size=32), turned)


# --- Command line -----------------------------------------------------------------------------------------------------


def test_list_and_verify_say_which_are_broken(folder, small, capsys):
    publish(folder, replace(CARD, id="another"), small)
    set_default("another", folder)
    assert main(["verify", "--folder", str(folder)]) == 0
    (folder / CARD.id / WEIGHTS_NAME).unlink()
    assert main(["list", "--folder", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert lines[0].startswith("* another  A test")
    assert lines[1].startswith("  lite0-test  BROKEN: The checkpoint must have weights")
    assert main(["verify", "--folder", str(folder)]) == 1
    assert main(["verify", "another", "--folder", str(folder)]) == 0
    assert main(["verify", "lite0-test", "--folder", str(folder)]) == 1
    assert main(["verify", "absent", "--folder", str(folder)]) == 1
    assert "no checkpoint of this id" in capsys.readouterr().out


def test_listing_loads_no_tensorflow(folder):
    script = (
        "import sys\nfrom core.checkpoints.__main__ import main\n"
        f"status = main(['verify', '--folder', {str(folder)!r}])\n"
        "print(status, sorted({'tensorflow', 'keras', 'h5py'} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


def test_embedded_weights_are_small_enough_to_be_cloned():
    sizes = {path.parent.name: path.stat().st_size for path in checkpoints.CHECKPOINTS.glob(f"*/{WEIGHTS_NAME}")}
    assert default_id() in sizes
    assert set(sizes) == {entry.id for entry in list_checkpoints()}
    assert not {name: size for name, size in sizes.items() if size > 50 * 10**6}


def test_the_embedded_mean_is_of_the_embedded_models():
    """Else its limits would be of others, and nothing would be said."""
    cards = [entry.checkpoint for entry in list_checkpoints() if entry.checkpoint.task == "fracture"]
    assert read_ensemble().members == members_of(cards)


def test_notes_are_what_the_document_tells_under_their_headings(tmp_path):
    assert read_notes(tmp_path) == {}
    (tmp_path / "README.md").write_text(
        "# Models\n\n## What was tried\n\nA [b](b.csv) [c](https://c.org).\n\n### More\n\nB ## C.\n\n## Made by\n",
        "utf-8",
    )
    assert read_notes(tmp_path) == {"What was tried": "A `b` [c](https://c.org).\n\n#### More\n\nB ## C."}
    (tmp_path / "README.md").write_bytes(b"\xff\xfe## What was tried")
    assert read_notes(tmp_path) == {}
    # A heading that was renamed would take its notes from the page without a word.
    assert [*read_notes()] == [*SHOWN]
    assert all(len(notes) > 1000 for notes in read_notes().values())


def test_the_table_of_real_films_is_what_the_document_says_of_it():
    with open(checkpoints.CHECKPOINTS / "real-films.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert Counter(row["break_in_square"] for row in rows) == {"normal": 48, "yes": 7, "unsure": 8, "no": 15}
    assert all((row["label"] == "0") == (row["break_in_square"] == "normal") for row in rows)
    people = [{row["group"] for row in rows if row["label"] == label} for label in "01"]
    assert [len(each) for each in people] == [6, 16]
    assert not set.intersection(*people)
    assert sum(row["obvious"] == "1" for row in rows) == 5
