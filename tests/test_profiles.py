"""Limits saved under a name: kept whole, offered for the very model they were chosen for, and used."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from core.checkpoints.profiles import (
    LIMITS,
    MOST_PROFILES,
    PROFILES_NAME,
    apply_profile,
    make_profile,
    move_limits,
    profiles_of,
    read_profiles,
    remove_profile,
    save_profile,
)
from core.classifier import decide
from core.errors import CheckpointError
from core.values import Checkpoint, Interval, OperatingPoint

RATE = Interval(0.9, 0.8, 0.95, 100)
OTHER = Interval(0.7, 0.6, 0.8, 40)
POINTS = tuple(
    OperatingPoint(name, at, RATE, RATE) for name, at in (("high_sensitivity", 0.2), ("high_specificity", 0.6))
)
CARD = Checkpoint(
    "m-1", "M", "fracture", "efficientnetb0", "top_activation", 224, operating_points=POINTS,
    calibration={"method": "temperature", "temperature": 1.5}, data={"simulated": True}, weights_sha256="a" * 64,
    card_sha256="b" * 64,
)  # fmt: skip


def thresholds(points):
    return {point.name: point.threshold for point in points}


@pytest.mark.parametrize(("which", "low", "high"), [("both", 0.4, 0.4), ("upper", 0.2, 0.4), ("lower", 0.4, 0.6)])
def test_a_threshold_becomes_the_limits_that_were_asked_for(which, low, high):
    points = move_limits(POINTS, which, 0.4, OTHER, RATE)
    assert [point.name for point in points] == ["high_sensitivity", "high_specificity"]
    assert [point.threshold for point in points] == [low, high]
    assert all((point.sensitivity is OTHER) == (point.threshold == 0.4) for point in points)
    card = apply_profile(CARD, make_profile("clinic", CARD, points, "3 studies"))
    said = {p: decide(p, card).label for p in (0.1, 0.3, 0.5, 0.7)}
    wanted = {p: "not seen" if p < low else "suspected" if p >= high else "uncertain" for p in said}
    assert said == wanted


@pytest.mark.parametrize("which", LIMITS)
def test_where_there_are_no_limits_yet_one_threshold_is_both(which):
    assert thresholds(move_limits((), which, 0.4, OTHER, RATE)) == {"high_sensitivity": 0.4, "high_specificity": 0.4}


def test_profiles_come_back_and_replace_their_like(tmp_path):
    assert read_profiles(tmp_path) == ()
    save_profile(make_profile(" clinic ", CARD, POINTS, "320 studies (test)"), tmp_path)
    save_profile(make_profile("Ärzte", CARD, move_limits(POINTS, "upper", 0.9, OTHER, RATE), "x"), tmp_path)
    save_profile(make_profile("clinic", replace(CARD, id="m-2"), POINTS, "y"), tmp_path)
    saved = profiles_of(CARD, tmp_path)
    assert list(saved) == ["clinic", "Ärzte"]
    back = saved["clinic"]
    assert (back.checkpoint_id, back.weights_sha256, back.chosen_on) == ("m-1", "a" * 64, "320 studies (test)")
    assert [(p.threshold, p.sensitivity.value, p.specificity.n) for p in back.operating_points] == [
        (0.2, 0.9, 100), (0.6, 0.9, 100),
    ]  # fmt: skip
    save_profile(make_profile("clinic", CARD, move_limits(POINTS, "lower", 0.5, OTHER, RATE), "z"), tmp_path)
    assert len(read_profiles(tmp_path)) == 3
    assert thresholds(profiles_of(CARD, tmp_path)["clinic"].operating_points)["high_sensitivity"] == 0.5
    remove_profile("clinic", "m-1", tmp_path)
    assert list(profiles_of(CARD, tmp_path)) == ["Ärzte"]
    assert list(profiles_of(replace(CARD, id="m-2"), tmp_path)) == ["clinic"]
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    "other",
    [
        {"weights_sha256": "c" * 64},
        {"calibration": {"method": "temperature", "temperature": 1.4}},
        {"study_calibration": {"method": "temperature", "temperature": 1.4}},
        {"id": "m-3"},
    ],
)
def test_limits_are_not_used_for_another_model(tmp_path, other):
    profile = make_profile("clinic", CARD, POINTS, "x")
    save_profile(profile, tmp_path)
    assert profiles_of(replace(CARD, **other), tmp_path) == {}
    with pytest.raises(CheckpointError, match="chosen for another"):
        apply_profile(replace(CARD, **other), profile)


def test_the_card_tells_whose_limits_it_has():
    card = apply_profile(CARD, make_profile("clinic", CARD, POINTS, "3 studies"))
    assert card.data["profile"] == {"name": "clinic", "chosen_on": "3 studies"}
    assert card.card_sha256 != CARD.card_sha256
    assert "profile" not in CARD.data
    again = apply_profile(
        CARD, make_profile("clinic", CARD, move_limits(POINTS, "upper", 0.9, OTHER, RATE), "3 studies")
    )
    assert again.card_sha256 != card.card_sha256, "nothing read with other limits is shown for these"


def test_limits_of_one_kind_of_studies_and_reserved_names_are_refused():
    nothing = Interval(float("nan"), float("nan"), float("nan"), 0)
    with pytest.raises(CheckpointError, match="one kind is missing"):
        make_profile("clinic", CARD, move_limits(POINTS, "upper", 0.9, OTHER, nothing), "x")
    with pytest.raises(CheckpointError, match="Another name"):
        make_profile("as Published", CARD, POINTS, "x")


def test_two_that_save_at_once_lose_nothing(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: save_profile(make_profile(f"p{n}", CARD, POINTS, "x"), tmp_path), range(16)))
    assert len(read_profiles(tmp_path)) == 16


@pytest.mark.parametrize("name", ["", "   ", "x" * 41, "a\nb", None])
def test_names_that_are_none(name):
    with pytest.raises(CheckpointError, match="A name of 1 to 40"):
        make_profile(name, CARD, POINTS, "")


def test_limits_that_cross_are_refused():
    points = move_limits(POINTS, "lower", 0.8, OTHER, RATE)
    with pytest.raises(CheckpointError, match=r"0\.8000 lies above 0\.6000"):
        make_profile("clinic", CARD, points, "")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"profiles": [{}]}', '{"profiles": 3}', "\udcff"])
def test_a_damaged_file_is_one_sentence(tmp_path, text):
    (tmp_path / PROFILES_NAME).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match="saved limits must be"):
        read_profiles(tmp_path)


def test_a_file_with_limits_that_fall_is_refused(tmp_path):
    save_profile(make_profile("clinic", CARD, POINTS, "x"), tmp_path)
    content = json.loads((tmp_path / PROFILES_NAME).read_text())
    content["profiles"][0]["operating_points"].reverse()
    (tmp_path / PROFILES_NAME).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="rise"):
        read_profiles(tmp_path)


def test_there_is_an_end_to_profiles(tmp_path):
    one = make_profile("0", CARD, POINTS, "x")
    save_profile(one, tmp_path)
    content = json.loads((tmp_path / PROFILES_NAME).read_text())
    content["profiles"] = [content["profiles"][0] | {"name": str(n)} for n in range(MOST_PROFILES)]
    (tmp_path / PROFILES_NAME).write_text(json.dumps(content))
    save_profile(one, tmp_path)
    with pytest.raises(CheckpointError, match="as many already"):
        save_profile(make_profile("one more", CARD, POINTS, "x"), tmp_path)
