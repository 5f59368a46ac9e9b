"""Figures of datasets: every bar, mark and line is what was counted or measured."""

import math

import cv2
import numpy as np
import pytest

from core.figures import (
    NOT_SEEN,
    SUSPECTED,
    UNCERTAIN,
    AucRow,
    CountRow,
    aucs_figure,
    counts_figure,
    sizes_figure,
    thumbnail_bytes,
)
from core.values import Interval

WORDS = ("no fracture", "fracture")


def test_counts_are_stacked_bars_in_a_panel_for_each_unit():
    panels = {
        "studies": [CountRow("train", 30, 10), CountRow("valid", 4, 6)],
        "films": [CountRow("train", 70, 20), CountRow("valid", 9, 15)],
    }
    figure = counts_figure(panels, WORDS)
    drawn = {(trace.xaxis or "x", trace.name): tuple(trace.x) for trace in figure.data}
    assert drawn == {
        ("x", "no fracture"): (30, 4),
        ("x", "fracture"): (10, 6),
        ("x2", "no fracture"): (70, 9),
        ("x2", "fracture"): (20, 15),
    }
    assert all(tuple(trace.y) == ("train", "valid") for trace in figure.data)
    assert {trace.marker.color for trace in figure.data} == {NOT_SEEN, SUSPECTED}
    assert [trace.showlegend for trace in figure.data] == [True, True, False, False]
    assert figure.layout.barmode == "stack"
    assert figure.layout.xaxis2.title.text == "films"
    assert figure.layout.yaxis.type == "category", "a bar that is called 2 is no number"
    shares = next(trace.customdata for trace in figure.data if trace.name == "fracture")
    assert tuple(shares) == (0.25, 0.6)


def test_films_of_about_one_size_are_one_mark_with_their_share_of_positives():
    sizes = [(400, 600, 30, 10), (401, 601, 0, 40), (1200, 800, 20, 0)]
    (trace,) = sizes_figure(sizes, WORDS).data
    assert len(trace.x) == 2
    n, share = np.array(trace.customdata).T
    assert n.tolist() == [80, 20]
    assert share.tolist() == [50 / 80, 0]
    assert trace.x[0] == pytest.approx((400 * 40 + 401 * 40) / 80)
    assert tuple(trace.y)[1] == 800
    assert trace.marker.size[0] > trace.marker.size[1]
    assert tuple(trace.marker.color) == (50 / 80, 0)
    middle = trace.marker.colorscale[1][0]
    assert middle == pytest.approx(50 / 100), "grey is what the whole dataset has"


@pytest.mark.parametrize("sizes", [[], [(400, 600, 1, 0)], [(40, 50, 0, 3), (41, 50, 2, 0)]])
def test_small_and_empty_datasets_are_drawn_too(sizes):
    figure = sizes_figure(sizes, WORDS)
    assert len(figure.data[0].x) == len(sizes)
    figure.to_json()


def test_aucs_are_marks_with_their_intervals_and_what_solves_a_dataset_stands_out():
    rows = [
        AucRow("size", Interval(0.8, 0.7, 0.9, 120), "#111111"),
        AucRow("brightness", Interval(0.55, 0.48, 0.62, 100), "#111111"),
        AucRow("films", Interval(math.nan, math.nan, math.nan, 100), "#111111", note="too few patients"),
        AucRow("A model", Interval(0.95, 0.93, 0.97, 60), "#222222", True),
    ]
    figure = aucs_figure(rows, 0.6)
    marks = {trace.name: trace for trace in figure.data}
    assert list(marks) == ["size", "brightness", "A model"]
    size = marks["size"]
    assert (size.x[0], size.y[0]) == (0.8, 0)
    assert size.error_x.array[0] == pytest.approx(0.1)
    assert size.error_x.arrayminus[0] == pytest.approx(0.1)
    assert "n=120" in size.hovertemplate
    assert size.marker.color == UNCERTAIN
    assert marks["brightness"].marker.color == "#111111"
    assert marks["A model"].marker.color == "#222222", "a model may be good"
    assert (marks["A model"].marker.symbol, marks["A model"].y[0]) == ("square", 3)
    words = [text.strip() for text in figure.layout.yaxis.ticktext]
    assert words == ["size", "brightness", "films (too few patients)", "A model"]
    assert {shape.x0 for shape in figure.layout.shapes} == {0.5, 0.6}


def test_an_auc_far_below_guessing_is_inside_the_figure():
    figure = aucs_figure([AucRow("size", Interval(0.2, 0.05, 0.4, 20), "#111111")], 0.6)
    assert figure.layout.xaxis.range[0] < 0.05


def test_a_thumbnail_is_a_small_grey_png_of_the_whole_film():
    pixels = np.linspace(0, 1, 600, dtype=np.float32)[:, None].repeat(300, axis=1)
    picture = cv2.imdecode(np.frombuffer(thumbnail_bytes(pixels, 200), np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture.shape == (200, 100)
    assert picture[0].mean() < 3
    assert picture[-1].mean() > 252
    small = cv2.imdecode(np.frombuffer(thumbnail_bytes(pixels[:40, :30], 200), np.uint8), cv2.IMREAD_UNCHANGED)
    assert small.shape == (40, 30), "not enlarged"
