"""Pictures made of values: heat over a film, and the probability figure."""

import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from core.errors import ScaphoidError
from core.figures import (
    LEARNING_PANELS,
    MODEL_COLOURS,
    LearningCurve,
    ProbabilityRow,
    around_region,
    film_image,
    heat_colours,
    hits_figure,
    learning_figure,
    model_colours,
    outlining_figure,
    overlay_image,
    percent,
    png_bytes,
    probability_figure,
    without_points,
    zone_limits,
)
from core.values import Checkpoint, Interval, OperatingPoint, WristRegion


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


def test_an_outline_goes_around_the_mark_and_not_over_it():
    pixels = np.full((40, 60), 0.5, np.float32)
    mask = np.zeros((40, 60), bool)
    mask[18:22, 25:35] = True
    plain, shown = film_image(pixels), film_image(pixels, None, mask)
    assert plain.shape == (40, 60)
    assert (plain == 128).all()
    drawn = (shown != 128).any(axis=2)
    assert drawn.any()
    assert not drawn[mask].any()
    rows, columns = np.nonzero(drawn)
    assert (rows.min() >= 12, rows.max() <= 27, columns.min() >= 19, columns.max() <= 40) == (True,) * 4
    # closed: nothing leaks from the mark to the film's edge without crossing it
    from scipy.ndimage import label

    areas, _ = label(~drawn)
    assert areas[20, 30] != areas[0, 0]
    heat = np.zeros_like(pixels)
    np.testing.assert_array_equal(film_image(pixels, heat), overlay_image(pixels, heat))
    assert film_image(pixels, heat, np.zeros_like(mask)).shape == (40, 60, 3)


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


HISTORY = (
    {"epoch": 1, "loss": 0.9, "valid_loss": 0.7, "valid_auc": 0.8, "learning_rate": 1e-3},
    {"epoch": 2, "loss": 0.5, "valid_loss": float("nan"), "valid_auc": 0.9, "learning_rate": 1e-4},
    {"epoch": 3, "loss": 0.4, "valid_loss": 0.6, "valid_auc": None},
)


def test_learning_curves_are_drawn_where_they_belong_in_their_models_colour():
    curves = [LearningCurve("A", HISTORY, "#111111"), LearningCurve("B", HISTORY[:1], "#222222")]
    drawn = {
        (trace.name, trace.line.color, trace.line.dash): list(zip(trace.x, trace.y, strict=True))
        for trace in learning_figure(curves, "loss").data
    }
    assert drawn == {
        ("A, training", "#111111", "dot"): [(1, 0.9), (2, 0.5), (3, 0.4)],
        ("A, validation", "#111111", "solid"): [(1, 0.7), (3, 0.6)],
        ("B, training", "#222222", "dot"): [(1, 0.9)],
        ("B, validation", "#222222", "solid"): [(1, 0.7)],
    }
    (rate,) = learning_figure(curves[:1], "learning_rate").data
    assert list(rate.y) == [1e-3, 1e-4]
    assert learning_figure(curves, "learning_rate").layout.yaxis.type == "log"
    assert {learning_figure(curves, panel).layout.uirevision for panel in LEARNING_PANELS} == {"keep"}


def test_what_was_not_recorded_is_said_and_not_drawn():
    finder = LearningCurve("Finder", ({"epoch": 1, "loss": 1.0, "valid_within": 0.9},), "#111111")
    figure = learning_figure([finder], "auc")
    assert not figure.data
    assert figure.layout.annotations[0].text == "not recorded"
    assert without_points([finder, LearningCurve("A", HISTORY, "#222222")], "auc") == ["Finder"]
    assert without_points([finder], "loss") == []


@given(ids=st.sets(st.text("abcdef0123456789-", min_size=1, max_size=12), max_size=8))
def test_no_two_models_share_a_colour_while_there_are_enough(ids):
    colours = model_colours(ids)
    assert set(colours) == ids
    assert len(set(colours.values())) == len(ids)
    assert set(colours.values()) <= set(MODEL_COLOURS)
    assert model_colours(sorted(ids, reverse=True)) == colours, "the order of asking does not matter"


def test_more_models_than_colours_still_have_one_each():
    assert len(model_colours(f"model-{n}" for n in range(20))) == 20


@pytest.mark.parametrize(
    ("region", "rows", "columns"),
    [
        (WristRegion(50, 40, 20), slice(28, 52), slice(38, 62)),  # 10 and a tenth of 20 around the middle
        (WristRegion(50, 40, 20, angle=90), slice(28, 52), slice(38, 62)),
        (WristRegion(5, 40, 20), slice(28, 52), slice(0, 17)),
        (WristRegion(500, 400, 20), slice(None), slice(None)),
        (None, slice(None), slice(None)),
    ],
)
def test_the_part_around_a_wrist_is_shown(region, rows, columns):
    picture = np.arange(80 * 100 * 3, dtype=np.int64).reshape(80, 100, 3)
    np.testing.assert_array_equal(around_region(picture, region, margin=0.1), picture[rows, columns])
    np.testing.assert_array_equal(around_region(picture[..., 0], region, margin=0.1), picture[rows, columns, 0])


def test_a_film_is_outlined_in_its_own_pixels():
    picture = np.random.default_rng(0).integers(0, 255, (80, 100), np.uint8)
    figure = outlining_figure(picture, WristRegion(50, 40, 20))
    rows, columns = slice(28, 52), slice(38, 62)  # 10 and 8% of 20 around the middle
    (drawn,) = figure.layout.images
    assert (drawn.x, drawn.y, drawn.sizex, drawn.sizey) == (38, 28, 24, 24)
    data = base64.b64decode(drawn.source.removeprefix("data:image/png;base64,"))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), picture[rows, columns])
    assert list(figure.layout.xaxis.range) == [38, 62]
    assert list(figure.layout.yaxis.range) == [52, 28]  # downwards, as a film's rows are counted
    (points,) = figure.data
    assert (min(points.x), max(points.x), min(points.y), max(points.y)) == (38, 62, 28, 52)


def test_hits_are_drawn_with_their_intervals_the_first_on_top():
    figure = hits_figure([("LayerCAM", Interval(0.8, 0.7, 0.85, 120)), ("Edges", Interval(0.0, 0.0, 0.03, 120))])
    (drawn,) = figure.data
    assert list(drawn.x) == [0.8, 0.0]
    assert list(drawn.y) == ["LayerCAM", "Edges"]
    assert list(drawn.error_x.array) == pytest.approx([0.05, 0.03])
    assert list(drawn.error_x.arrayminus) == pytest.approx([0.1, 0.0])
    assert figure.layout.yaxis.autorange == "reversed"
    assert [row[2] for row in drawn.customdata] == [120, 120]
