"""Whether a film is fit to be read: each reason alone, and how they are put together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.quality import LEVELS, REFUSED_BELOW, UNSURE_BELOW, assess, overlap
from core.values import Radiograph, WristRegion


def film(height=400, width=300, low=0.0, high=1.0):
    ramp = np.linspace(low, high, height * width, dtype=np.float32)
    return Radiograph("", np.random.default_rng(0).permutation(ramp).reshape(height, width), "")


def region(**changes):
    return WristRegion(**{"x": 150.0, "y": 200.0, "side": 200.0, "confidence": 0.95, **changes})


def test_a_good_film_has_no_reasons():
    assert assess(film(), region()).level == "good"
    assert assess(film(), region()).reasons == ()
    assert assess(film()).level == "good"


@pytest.mark.parametrize(
    ("changes", "level", "word"),
    [
        ({"confidence": REFUSED_BELOW - 0.01}, "unfit", "No wrist was found"),
        ({"confidence": (REFUSED_BELOW + UNSURE_BELOW) / 2}, "limited", "little confidence"),
        ({"side": 45.0}, "limited", "45 pixels across"),
        ({"side": 20.0}, "unfit", "20 pixels across"),
        ({"x": 300.0, "y": 400.0}, "unfit", "mostly outside"),
        ({"x": 290.0, "y": 200.0}, "good", ""),
        ({"x": 299.0, "y": 350.0}, "limited", "large part"),
    ],
)
def test_each_want_of_the_region_is_named(changes, level, word):
    quality = assess(film(), region(**changes))
    assert quality.level == level
    assert word in " ".join(quality.reasons)


def test_a_square_set_by_the_reader_is_not_doubted():
    assert assess(film(), region(confidence=0.0, set_by_reader=True)).level == "good"


@pytest.mark.parametrize(("high", "level"), [(0.53, "unfit"), (0.58, "limited"), (0.9, "good")])
def test_faint_films_are_told(high, level):
    assert assess(film(low=0.5, high=high), region()).level == level


def test_contrast_counts_inside_the_square_only():
    pixels = np.full((400, 300), 0.5, np.float32)
    pixels[:50] = 1.0
    pixels[350:] = 0.0
    assert assess(Radiograph("", pixels, ""), region()).level == "unfit"


def test_the_gravest_reason_stands_first_and_sets_the_level():
    quality = assess(film(), region(side=50.0, confidence=0.0))
    assert quality.level == "unfit"
    assert len(quality.reasons) == 2
    assert quality.reasons[0].startswith("No wrist")


def test_a_small_whole_film_is_judged_by_its_shorter_side():
    assert assess(film(40, 300)).level == "limited"


@given(
    x=st.floats(-500, 900), y=st.floats(-500, 900), side=st.floats(1, 2000), confidence=st.floats(0, 1),
    height=st.integers(32, 120), width=st.integers(32, 120),
)  # fmt: skip
def test_any_square_gets_an_answer(x, y, side, confidence, height, width):
    quality = assess(film(height, width), WristRegion(x, y, side, 30.0, confidence))
    assert quality.level in LEVELS
    assert (quality.level == "good") == (not quality.reasons)
    assert all(reason.endswith(".") for reason in quality.reasons)


def test_overlap_by_hand():
    assert overlap(film(100, 100), WristRegion(0, 0, 100)) == pytest.approx(0.25)
    assert overlap(film(100, 100), WristRegion(50, 50, 200)) == pytest.approx(0.25)
    assert overlap(film(100, 100), WristRegion(-100, 50, 100)) == 0
