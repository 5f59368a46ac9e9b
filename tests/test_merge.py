"""The mean of several trainings' weights: what it is of, what it refuses, and what its card says."""

import json
from contextlib import nullcontext
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest

from core.backbones import build_classifier
from core.checkpoints import publish, read_card
from core.errors import CheckpointError, TrainingError
from core.phantoms.dataset import DatasetSettings
from core.train import PRESETS, merge
from core.train.publish import describe_checkpoint
from core.values import Checkpoint
from core.wrist import build_finder
from tests.test_publish import make_data, make_request, measure

SETTINGS = replace(PRESETS["scaphoid"], backbone="efficientnetlite0", input_size=32)
CARD = Checkpoint(
    "a", "A", "fracture", "efficientnetlite0", "top_activation", 32, scaling="local", location_head=True,
    settings=SETTINGS, data={"split": "e" * 64, "licences": ["Theirs."], "simulated": True, "trained_on": "Seen."},
    versions={"simulator": "2"}, looks=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two networks that differ in every number."""
    folder = tmp_path_factory.mktemp("checkpoints")
    model = build_classifier("efficientnetlite0", input_size=32, location_head=True, scaling="local")
    for place, name in enumerate("ab"):
        rng = np.random.default_rng(place)
        counts = {"train_films_unreadable": 4} if name == "b" else {}
        model.set_weights([rng.uniform(0.5, 1, value.shape).astype(value.dtype) for value in model.get_weights()])
        publish(
            folder, replace(CARD, id=name, data=CARD.data | {"counts": counts}), model, [{"epoch": 1, "loss": place}]
        )
    return folder


MEAN_MODEL = merge.mean_model


def weights_of(name, folder):
    return merge.load_network(name, folder)[1].get_weights()


def test_every_number_is_the_mean(folder):
    first, second = weights_of("a", folder), weights_of("b", folder)
    found = merge.mean_model(["a", "b"], folder).get_weights()
    assert len(found) == len(first) > 100
    for mean, one, other in zip(found, first, second, strict=True):
        assert not np.array_equal(one, other)
        np.testing.assert_allclose(mean, (one.astype(np.float64) + other) / 2, rtol=1e-6)
    for mean, one in zip(merge.mean_model(["a"], folder).get_weights(), first, strict=True):
        np.testing.assert_array_equal(mean, one)


@pytest.mark.parametrize(
    ("name", "value"),
    [("backbone", "resnet50"), ("input_size", 64), ("scaling", "keras"), ("location_head", False)],
)
def test_networks_that_are_not_alike_have_no_mean(name, value):
    merge.check_alike([CARD, CARD])
    with pytest.raises(CheckpointError, match=f"{name.replace('_', ' ')} differs"):
        merge.check_alike([CARD, replace(CARD, **{name: value})])


@pytest.mark.parametrize("cards", [[], [replace(CARD, task="wrist")] * 2, [CARD, replace(CARD, task="wrist")]])
def test_a_mean_is_of_what_reads_films(cards):
    merge.check_alike([replace(CARD, task="wrist")])  # measured anew, not averaged
    with pytest.raises(CheckpointError, match="read films for fractures"):
        merge.check_alike(cards)


@pytest.fixture
def asked(folder, monkeypatch):
    """Return what would be measured, without any film."""
    told = SimpleNamespace(split="e" * 64, asked=[])

    def finish(*given):
        told.asked.append(given)
        return CARD

    monkeypatch.setattr(merge, "collect_films", lambda request: make_data(origin="simulated", split=told.split))
    monkeypatch.setattr(merge, "finish", finish)
    monkeypatch.setattr(merge, "mean_model", lambda ids, place, size: (tuple(ids), place))
    return told


def _check_refusal(asked, folder, films, refused=True):
    """Check whether the patients of a dataset are refused, and that only then nothing is measured."""
    with pytest.raises(CheckpointError, match="may have seen patients") if refused else nullcontext():
        merge.measure_merged(["a"], "c", films, folder)
    assert bool(asked.asked) != refused


def test_the_mean_is_measured_as_a_training_is(asked, folder, tmp_path):
    merge.measure_merged(["a", "b", "a"], "c", tmp_path, folder, looks=6)
    ((request, _, model, history, unreadable),) = asked.asked
    assert (request.id, request.average_of, request.settings.extra["looks"]) == ("c", ("a", "b"), 6)
    assert history == [{"epoch": 1.0, "loss": 0.0}]
    assert unreadable == 4, "what either training left out, the mean saw none of"
    assert model == (("a", "b"), folder), "a checkpoint named twice counts once"


def test_weights_can_be_read_at_another_size(asked, folder, tmp_path, monkeypatch):
    """Every number stays; the network reads larger films, and the card says at which size it learned."""
    monkeypatch.setattr(merge, "mean_model", MEAN_MODEL)
    merge.measure_merged(["a"], "c", tmp_path, folder, input_size=64)
    ((request, _, model, _, _),) = asked.asked
    assert (request.settings.input_size, model.input_shape[1:3]) == (64, (64, 64))
    for name, (found, kept) in enumerate(zip(model.get_weights(), weights_of("a", folder), strict=True)):
        np.testing.assert_array_equal(found, kept, err_msg=str(name))
    here = make_data(origin="simulated", split="e" * 64)
    trained = describe_checkpoint(request, here, measure(), False).data["trained_on"]
    assert "; it learned at 32 pixels a side, not at 64; no film" in trained
    for wrong in (0, 16):
        with pytest.raises(TrainingError, match="input_size"):
            merge.measure_merged(["a"], "c", tmp_path, folder, input_size=wrong)


def test_a_card_tells_at_which_size_it_learned_through_whatever_it_comes_from(tmp_path, folder, monkeypatch):
    at_32 = read_card(folder / "a")
    told = {}
    for name, size, source in (
        ("c", 64, at_32),  # read at another size
        ("d", 64, None),  # ... and measured once more
        ("e", 32, None),  # ... and brought back to where it learned
    ):
        monkeypatch.setattr("core.train.publish._card_of", lambda *_, card=source or told["c"]: card)
        request = replace(make_request(tmp_path), average_of=("x",), settings=replace(SETTINGS, input_size=size))
        request = replace(request, average_of=((source or told["c"]).id,))
        for split in ("e" * 64, "other"):
            told[name] = describe_checkpoint(request, make_data(origin="simulated", split=split), measure(), False)
            said = "it learned at 32 pixels a side, not at 64" in told[name].data["trained_on"]
            assert said == (size == 64)
            assert told[name].data.get("learned_at") == (32 if size == 64 else None)


def test_a_mean_of_which_a_part_learned_at_its_size_is_not_said_to_have_learned_elsewhere(
    tmp_path, folder, monkeypatch
):
    """What is told of the other part says so."""
    at_32 = read_card(folder / "a")
    parts = {"here": replace(at_32, id="here", input_size=64), "elsewhere": at_32}
    parts["elsewhere"] = replace(at_32, id="elsewhere", input_size=64, data={**at_32.data, "learned_at": 32})
    monkeypatch.setattr("core.train.publish._card_of", lambda name, *_: parts[name])
    request = replace(make_request(tmp_path), settings=replace(SETTINGS, input_size=64))
    for names, size in ((("here", "elsewhere"), None), (("elsewhere",), 32), (("here",), None)):
        asked = replace(request, average_of=names)
        card = describe_checkpoint(asked, make_data(origin="simulated", split="e" * 64), measure(), False)
        assert card.data.get("learned_at") == size
        assert ("it learned at 32 pixels" in card.data["trained_on"]) == bool(size)


def test_patients_that_a_training_may_have_seen_do_not_measure_it(asked, folder, tmp_path):
    asked.split = "f" * 64
    _check_refusal(asked, folder, tmp_path)


@pytest.mark.parametrize(
    ("made_by", "simulated", "version", "refused"),
    [
        ("1", True, 2, False),
        ("2", True, 2, True),
        ("1", False, 2, True),
        (None, True, 2, True),
        ("1", True, None, True),
    ],
)
def test_patients_of_another_version_of_the_simulator_were_never_seen(
    asked, folder, tmp_path, monkeypatch, made_by, simulated, version, refused
):
    asked.split = "f" * 64
    versions = {"simulator": made_by} if made_by else {}
    card = replace(CARD, versions=versions, data=CARD.data | {"simulated": simulated})
    monkeypatch.setattr(merge, "read_card", lambda _: card)
    if version:
        (tmp_path / "simulated.json").write_text(json.dumps(asdict(DatasetSettings(6, 1)) | {"version": version}))
    _check_refusal(asked, folder, tmp_path, refused)


@pytest.mark.parametrize(
    ("learned", "refused"),
    [
        ([("f", 7, "2")], False),  # another seed: other patients
        ([("f", 1, "2")], True),
        ([("f", 1, "1")], False),
        ([("f", None, None)], True),  # what learned from films of people, which may be any
        ([("e", 1, "2")], False),  # the same parts
        ([("e", 1, "2"), ("f", 1, "2")], True),  # its start had seen patients that are held out here
        ([("e", 1, "2"), ("f", 7, "2")], False),
    ],
)
def test_patients_that_a_start_or_teacher_may_have_seen_do_not_measure_it(
    asked, folder, tmp_path, monkeypatch, learned, refused
):
    entries = [{"split": name * 64, "seed": seed, "version": version} for name, seed, version in learned]
    card = replace(CARD, data=CARD.data | {"simulated": True, "learned": entries})
    monkeypatch.setattr(merge, "read_card", lambda _: card)
    (tmp_path / "simulated.json").write_text(json.dumps(asdict(DatasetSettings(6, 1)) | {"version": 2}))
    _check_refusal(asked, folder, tmp_path, refused)


def test_a_finder_is_measured_anew_with_its_own_weights(folder, tmp_path, monkeypatch):
    model = build_finder(32)
    rng = np.random.default_rng(3)
    model.set_weights([rng.uniform(0.5, 1, value.shape).astype(value.dtype) for value in model.get_weights()])
    sure = {"method": "logistic", "weight": 1.0, "bias": 0.0}
    card = Checkpoint(
        "finder", "F", "wrist", "efficientnetlite0", "top", 32, calibration=sure, settings=PRESETS["wrist"]
    )
    publish(tmp_path, card, model, [])
    found = merge.mean_model(["finder"], tmp_path)
    for value, expected in zip(found.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-3)  # published in half precision
    told = []
    monkeypatch.setattr(merge, "collect_films", lambda request: make_data(origin="simulated", split=None))
    monkeypatch.setattr(merge, "finish", lambda request, *_: told.append(request) or card)
    merge.measure_merged(["finder"], "finder-b", tmp_path, tmp_path)
    assert [(request.task, request.finder, request.average_of) for request in told] == [("wrist", None, ("finder",))]
    with pytest.raises(CheckpointError, match="this finds wrists"):
        merge.measure_merged(["finder"], "other", tmp_path, tmp_path, input_size=64)


def test_looks_that_are_none_are_refused(asked, folder, tmp_path):
    with pytest.raises(TrainingError, match="looks"):
        merge.measure_merged(["a"], "c", tmp_path, folder, looks=99)


def test_the_card_names_what_it_is_the_mean_of(tmp_path, folder):
    own = replace(make_request(tmp_path).settings, input_size=CARD.input_size)
    request = replace(make_request(tmp_path, out=str(folder)), average_of=("a", "b"), settings=own)
    data = describe_checkpoint(request, make_data(origin="simulated", split="e" * 64), measure(), False).data
    assert "its weights are the mean of those of a, b; no film of a real patient" in data["trained_on"]
    assert "Theirs." in data["licences"]
    one = replace(make_request(tmp_path, out=str(folder)), average_of=("a",))
    here = make_data(origin="simulated", split="e" * 64)
    assert describe_checkpoint(one, here, measure(), False).data["trained_on"].startswith("Trained on 3 simulated")


def test_what_was_trained_elsewhere_does_not_claim_these_films(tmp_path, folder):
    request = replace(make_request(tmp_path, out=str(folder)), average_of=("a",))
    data = describe_checkpoint(request, make_data(origin="simulated", split="other"), measure(test_films=3), False).data
    own = "it learned at 32 pixels a side, not at 64"
    assert data["trained_on"] == f"Its weights are those of a; {own}; no film of a real patient was used."
    assert data["came_from"] == [{"id": "a", "trained_on": "Seen."}]
    assert data["counts"] == {"test_films": 3}


@pytest.fixture
def measured(monkeypatch):
    """Return the requests that would be measured, without any film or network."""
    requests = []
    monkeypatch.setattr(merge, "find_checkpoint", lambda name, folder: name)
    monkeypatch.setattr(merge, "read_card", lambda name: CARD)
    monkeypatch.setattr(merge, "read_history", lambda _: [])
    monkeypatch.setattr(merge, "mean_model", lambda *_: None)
    monkeypatch.setattr(merge, "collect_films", lambda request: make_data(origin="simulated", split="e" * 64))
    monkeypatch.setattr(merge, "finish", lambda request, *_: requests.append(request) or CARD)
    return requests


def test_films_are_those_that_the_checkpoints_were_trained_on(measured, monkeypatch, tmp_path):
    asked = ["--data", str(tmp_path), "--of", "a", "--id", "c", "--out", str(tmp_path)]
    assert merge.main(asked) == 0
    assert merge.main([*asked, "--region", "XR_ELBOW", "--format", "mura"]) == 0
    card = replace(CARD, settings=replace(SETTINGS, preset="mura-320"), positive_label="abnormal")
    monkeypatch.setattr(merge, "read_card", lambda name: card)
    assert merge.main(asked) == 0
    assert merge.main([*asked, "--region", "XR_WRIST"]) == 0
    assert [(request.region, request.format) for request in measured] == [
        (None, None), ("XR_ELBOW", "mura"), ("all", None), ("XR_WRIST", None),
    ]  # fmt: skip
    # What a network calls positive it learned; the films that it is measured on do not change it.
    assert [request.positive_label for request in measured] == ["fracture", "fracture", "abnormal", "abnormal"]


def test_a_name_that_is_taken_is_refused_before_anything_is_measured(measured, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(merge, "collect_films", lambda _: pytest.fail("films were looked for"))
    (tmp_path / "c").mkdir()
    (tmp_path / "file").write_text("")
    for out, sentence in ((tmp_path, "new id, but c exists"), (tmp_path / "file", "can be written to")):
        assert merge.main(["--data", str(tmp_path), "--of", "a", "--id", "c", "--out", str(out)]) == 1
        said = capsys.readouterr().err
        assert sentence in said
        assert len(said.splitlines()) == 1
    assert measured == []


def test_the_command_says_what_is_wrong_in_one_line(capsys, tmp_path):
    assert merge.main(["--data", str(tmp_path), "--of", "gone", "--id", "c", "--out", str(tmp_path)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
