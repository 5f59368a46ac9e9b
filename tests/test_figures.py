"""Pictures made of values: heat over a film, and the probability figure."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from core.errors import ScaphoidError
from core.figures import (
    ProbabilityRow,
    heat_colours,
    overlay_image,
    percent,
    png_bytes,
    probability_figure,
    zone_limits,
)
from core.values import Checkpoint, Interval, OperatingPoint


def card_with(*thresholds):
    rate = Interval(0.9, 0.8, 0.95, 100)
    names = ("high_sensitivity", "high_specificity")
    points = tuple(OperatingPoint(name, t, rate, rate) for name, t in zip(names, thresholds, strict=False))
    return Checkpoint("a", "A", "fracture", "efficientnetlite0", "top_activation", 224, operating_points=points)


def test_overlay_by_hand():
    pixels = np.array([[0.0, 1.0], [0.5, 0.2]], np.float32)
    heat = np.array([[0.0, 0.0], [1.0, 0.5]], np.float32)
    shown = overlay_image(pixels, heat, opacity=0.5)
    assert shown.shape == (2, 2, 3)
    assert shown[0, 0].tolist() == [0, 0, 0]
    assert shown[0, 1].tolist() == [255, 255, 255]
    hottest = heat_colours()[255].astype(float)
    np.testing.assert_array_equal(shown[1, 0], np.rint(0.5 * 127.5 + 0.5 * hottest))
    middle = heat_colours()[128].astype(float)
    np.testing.assert_array_equal(shown[1, 1], np.rint(0.75 * 51 + 0.25 * middle))


@given(level=st.integers(0, 255), opacity=st.floats(0, 1))
def test_no_heat_leaves_every_grey_level_alone(level, opacity):
    pixels = np.full((3, 4), level / 255, np.float32)
    assert (overlay_image(pixels, np.zeros((3, 4)), opacity) == level).all()


def test_heat_colours_rise_in_lightness():
    red, green, blue = heat_colours().astype(float).T
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    assert luminance[0] < 3
    assert (np.diff(luminance[::8]) > 0).all()
    assert red[128] > blue[128], "channels are in RGB order: the middle of the scale is red"


@pytest.mark.parametrize(("shape", "opacity"), [((2, 3), 0.5), ((2, 2), 1.2)])
def test_overlay_refuses_what_does_not_fit(shape, opacity):
    with pytest.raises(ScaphoidError, match=r"size|Opacity"):
        overlay_image(np.zeros((2, 2)), np.zeros(shape), opacity)


def test_png_comes_back_bit_for_bit_and_holds_no_metadata():
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    back = Image.open(io.BytesIO(png_bytes(picture)))
    np.testing.assert_array_equal(np.asarray(back), picture)
    assert back.info == {}


def test_zones_come_from_the_card():
    assert zone_limits(card_with(0.2, 0.7)) == (0.2, 0.7)
    assert zone_limits(card_with(0.4)) == (0.4, 0.4)
    assert zone_limits(card_with(0.6, 0.4)) == (0.4, 0.4), "where the points cross, from the upper one on is suspected"
    assert zone_limits(card_with()) == (0.0, 1.0)


def test_probability_figure_draws_each_row_where_it_belongs():
    figure = probability_figure(
        [ProbabilityRow("Study", 0.81, main=True), ProbabilityRow("Film 1", 0.3)], card_with(0.2, 0.7)
    )
    assert [(trace.y[0], trace.x[0], trace.text[0]) for trace in figure.data] == [
        ("Study", 0.81, "81%"),
        ("Film 1", 0.3, "30%"),
    ]
    assert [(shape.x0, shape.x1) for shape in figure.layout.shapes] == [(0, 0.2), (0.2, 0.7), (0.7, 1)]


@pytest.mark.parametrize(
    ("given", "shown"), [(0.999, "over 99%"), (0.99, "99%"), (0.505, "50%"), (0.01, "1%"), (0.0099, "under 1%")]
)
def test_no_probability_is_shown_as_certain(given, shown):
    assert percent(given) == shown
