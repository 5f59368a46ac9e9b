"""Figures of measurements: what is drawn is what was measured, no more and no less."""

import math

import numpy as np
import pytest

from core.figures import (
    INK,
    MODEL_COLOURS,
    RATE_COLOURS,
    Shown,
    agreement_figure,
    benefit_figure,
    confusion_figure,
    forest_figure,
    histogram_figure,
    precision_recall_figure,
    rates_figure,
    reliability_figure,
    roc_figure,
    thousand_figure,
)
from core.metrics import (
    CELLS,
    METRIC_NAMES,
    RATES,
    Subgroup,
    align_scores,
    confusion,
    net_benefit,
    per_thousand,
    precision_recall_band,
    precision_recall_curve,
    reliability_curve,
    resample,
    roc_band,
    roc_curve,
    sweep_thresholds,
)
from core.values import Interval
from tests.test_metrics import make_scores, random_scores

SCORES = random_scores(3, n=300, decimals=2)
DRAWN = resample(SCORES, 60)


def traces(figure, name):
    return [trace for trace in figure.data if trace.name == name]


def test_roc_and_precision_recall_figures_draw_each_models_curve_band_and_point():
    for make, curve_of, band_of in (
        (roc_figure, roc_curve, roc_band),
        (precision_recall_figure, precision_recall_curve, precision_recall_band),
    ):
        curve, band = curve_of(SCORES), band_of(DRAWN)
        models = [Shown(name, colour, curve, band, (0.2, 0.7)) for name, colour in (("A", "#112233"), ("B", "#445566"))]
        figure = make(models)
        for model in models:
            (line,) = traces(figure, model.name)
            x, y = (
                (curve.false_positive_rates, curve.sensitivities)
                if make is roc_figure
                else (curve.sensitivities, curve.precisions)
            )
            np.testing.assert_array_equal(line.x, x)
            np.testing.assert_array_equal(line.y, y)
            np.testing.assert_array_equal(line.customdata, curve.thresholds)
            assert line.line.color == model.colour
        areas = [trace for trace in figure.data if trace.fill == "toself"]
        assert [area.fillcolor for area in areas] == ["rgba(17,34,51,0.14)", "rgba(68,85,102,0.14)"]
        known = np.isfinite(band.low)
        np.testing.assert_array_equal(areas[0].y[: known.sum()], band.high[known])
        np.testing.assert_array_equal(areas[0].y[known.sum() :], band.low[known][::-1])
        points = [trace for trace in figure.data if trace.mode == "markers"]
        assert [(point.x[0], point.y[0]) for point in points] == [(0.2, 0.7)] * 2


def test_a_long_curve_is_thinned_and_keeps_its_ends():
    scores = random_scores(0, n=9000, decimals=12)
    curve = roc_curve(scores)
    (line,) = traces(roc_figure([Shown("A", "#112233", curve)]), "A")
    assert 1400 < len(line.x) <= 1500
    assert (line.x[0], line.y[0], line.x[-1], line.y[-1]) == (0, 0, 1, 1)
    drawn = np.interp(curve.false_positive_rates, line.x, line.y)
    assert np.abs(drawn - curve.sensitivities).max() < 0.02


def test_reliability_draws_bins_with_studies_and_their_intervals():
    bins = reliability_curve(DRAWN)
    (line,) = traces(reliability_figure([Shown("A", "#112233", bins)]), "A")
    some = bins
    assert all(each.positive.n for each in bins), "no bin is empty here"
    assert list(line.x) == [each.mean_probability for each in some]
    assert list(line.y) == [each.positive.value for each in some]
    np.testing.assert_allclose(np.add(line.y, line.error_y.array), [each.positive.high for each in some])
    np.testing.assert_allclose(np.subtract(line.y, line.error_y.arrayminus), [each.positive.low for each in some])
    largest = max(range(len(some)), key=lambda place: some[place].positive.n)
    assert line.marker.size[largest] == max(line.marker.size) == 20


def test_an_empty_bin_is_kept_without_a_mark_and_counted_as_empty():
    low, wide = make_scores([0, 1, 0, 1], [0.05, 0.08, 0.95, 0.98]), make_scores([0, 1, 1], [0.05, 0.45, 0.95])
    first, second = (reliability_curve(resample(scores, 20)) for scores in (low, wide))
    figure = reliability_figure([Shown("A", "#112233", first), Shown("B", "#445566", second)])
    (line,), (other,) = traces(figure, "A"), traces(figure, "B")
    assert line.connectgaps is False
    assert [math.isnan(y) for y in line.y] == [False, *[True] * 8, False]
    assert list(line.x[1:9]) == pytest.approx([0.15 + step / 10 for step in range(8)])
    assert [math.isnan(y) for y in other.y].index(False, 1) == 4
    bars = [trace for trace in figure.data if trace.type == "bar"]
    assert [list(bar.y) for bar in bars] == [[2, *[0] * 8, 2], [1, 0, 0, 0, 1, *[0] * 4, 1]]
    assert [bar.text[1] for bar in bars] == ["0", "0"]
    assert [bar.yaxis for bar in bars] == ["y2", "y2"]
    shaded = [(shape.x0, shape.x1) for shape in figure.layout.shapes]
    assert shaded == [(step / 10, (step + 1) / 10) for step in (1, 2, 3, 5, 6, 7, 8)], "0.4 to 0.5 holds one of B's"
    many = reliability_figure([Shown(str(number), "#112233", second) for number in range(4)])
    texts = [trace.text for trace in many.data if trace.type == "bar"]
    assert texts[0] == ("", "0", "0", "0", "", "0", "0", "0", "0", "")


def test_a_confusion_matrix_tells_counts_and_shares_of_rows():
    counts = confusion(make_scores([1] * 4 + [0] * 5, [0.9] * 3 + [0.1] + [0.1] * 3 + [0.9] * 2), 0.5)
    figure = confusion_figure(counts, chosen="fp")
    (cells,) = figure.data
    assert list(cells.customdata) == list(CELLS) == ["tp", "fn", "fp", "tn"]
    assert list(zip(cells.x, cells.y, strict=True)) == [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert [text.partition("<br>")[0] for text in cells.text] == ["<b>3</b>", "<b>1</b>", "<b>2</b>", "<b>3</b>"]
    assert [text.split("<br>")[1] for text in cells.text] == ["75%", "25%", "40%", "60%"]
    assert list(cells.marker.line.width) == [1, 1, 5, 1]
    assert [colour == INK for colour in cells.marker.line.color] == [False, False, True, False]
    assert cells.marker.opacity == 1, "an outline must not be as pale as its cell"
    assert [float(colour.rpartition(",")[2][:-1]) for colour in cells.marker.color] == pytest.approx(
        [0.515, 0.265, 0.34, 0.44]
    )
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1], "fractures stand in the upper row"
    empty = confusion_figure(confusion(make_scores([1], [0.9]), 0.5))
    assert "0%" in empty.data[0].text[2]


def test_rates_are_those_of_the_sweep_and_the_line_stands_at_the_threshold():
    sweep = sweep_thresholds(DRAWN)
    figure = rates_figure(sweep, 0.37, ("sensitivity", "precision"))
    for rate in ("sensitivity", "precision"):
        (line,) = traces(figure, METRIC_NAMES[rate])
        np.testing.assert_array_equal(line.y, sweep.values[rate])
    assert [shape.x0 for shape in figure.layout.shapes] == [0.37]
    assert not traces(figure, "specificity")


def test_histogram_counts_every_study_once():
    figure = histogram_figure(SCORES, 0.4, bins=20)
    above, below = figure.data
    assert sum(above.y) == SCORES.labels.sum()
    assert -sum(below.y) == len(SCORES.labels) - SCORES.labels.sum()
    assert all(not text.startswith("-") for text in figure.layout.yaxis.ticktext)


@pytest.mark.parametrize(
    ("most", "ticks"),
    [(1, [0, 1]), (3, [0, 1, 2, 3]), (7, [0, 2, 4, 6]), (509, [0, 200, 400]), (13_000, [0, 5000, 10_000])],
)
def test_the_ticks_of_a_histogram_are_round_and_few(most, ticks):
    figure = histogram_figure(make_scores([1] * most + [0], [0.9] * most + [0.1]), 0.5)
    assert [tick for tick in figure.layout.yaxis.tickvals if tick >= 0] == ticks
    assert list(figure.layout.yaxis.tickvals) == [-tick for tick in ticks[:0:-1]] + ticks
    assert figure.layout.yaxis.ticktext[-1] == f"{ticks[-1]:,}"
    assert 3 <= len(figure.layout.yaxis.tickvals) <= 11
    assert histogram_figure(make_scores([1], [0.5]), 0.5).data[0].y.sum() == 1


def test_benefit_stands_beside_calling_all_and_none():
    curve = net_benefit(DRAWN)
    figure = benefit_figure([Shown("A", "#112233", curve)], 0.3)
    (line,), (everything,) = traces(figure, "A"), traces(figure, "call all")
    np.testing.assert_array_equal(line.y, curve.model)
    np.testing.assert_array_equal(everything.y, curve.call_all)
    assert {shape.y0 for shape in figure.layout.shapes if shape.y0 == shape.y1} == {0}


def test_a_forest_marks_only_groups_that_are_large_enough():
    auc = Interval(0.8, 0.7, 0.9, 40)
    parts = (Subgroup("PA", 40, 20, 30, auc, auc, auc), Subgroup("LATERAL", 6, 2, 6, None, None, None, "Too few"))
    figure = forest_figure({"A": parts, "B": parts}, {"A": "#112233", "B": "#445566"})
    assert [list(trace.x) for trace in figure.data] == [[0.8], [0.8]]
    assert figure.data[0].y[0] != figure.data[1].y[0], "models do not hide each other"
    np.testing.assert_allclose(figure.data[0].error_x.array, [0.1])
    assert [text.strip() for text in figure.layout.yaxis.ticktext] == ["PA (n=40)", "LATERAL (n=6), too few"]


def test_marks_of_many_models_do_not_lie_over_each_other_in_a_forest():
    auc = Interval(0.8, 0.7, 0.9, 40)
    parts = (Subgroup("PA", 40, 20, 30, auc, auc, auc), Subgroup("LATERAL", 40, 20, 30, auc, auc, auc))
    figure = forest_figure(dict.fromkeys("ABCDE", parts), dict.fromkeys("ABCDE", "#112233"))
    places = np.sort([y for trace in figure.data for y in trace.y])
    margin, (bottom, top) = figure.layout.margin, figure.layout.yaxis.range
    pixels = np.diff(places) * (figure.layout.height - margin.t - margin.b) / abs(bottom - top)
    assert pixels.min() > figure.data[0].marker.size


def test_a_forest_of_a_rate_needs_only_its_own_class():
    rate = Interval(0.6, 0.4, 0.7, 12)
    parts = (Subgroup("scaphoid", 12, 12, 12, None, rate, None, "Too few"),)
    shown = {name: forest_figure({"A": parts}, {"A": "#112233"}, name) for name in ("auc", "sensitivity")}
    assert list(shown["auc"].data[0].x) == []
    assert list(shown["sensitivity"].data[0].x) == [0.6]
    np.testing.assert_allclose(shown["sensitivity"].data[0].error_x.arrayminus, [0.2])
    assert shown["sensitivity"].layout.xaxis.title.text == "Sensitivity"
    assert "too few" not in shown["sensitivity"].layout.yaxis.ticktext[0]


def test_agreement_draws_each_study_once_and_shades_where_calls_differ():
    first, second = align_scores(SCORES, make_scores(SCORES.labels, SCORES.probabilities[::-1], SCORES.patient_ids))
    figure = agreement_figure(first, second, ("A", "B"), (0.4, 0.6))
    assert sum(len(trace.x) for trace in figure.data) == len(SCORES.labels)
    corners = {(shape.x0, shape.x1, shape.y0, shape.y1) for shape in figure.layout.shapes}
    assert corners == {(0, 0.4, 0.6, 1), (0.4, 1, 0, 0.6)}
    for x, y in ((0.2, 0.8), (0.9, 0.1)):
        assert (x >= 0.4) != (y >= 0.6)


@pytest.mark.parametrize("rates", [(0.9, 0.8, 0.1), (1, 1, 0), (0, 0, 1)])
def test_a_thousand_dots_in_four_kinds(rates):
    counts = per_thousand(*rates)
    figure = thousand_figure(counts)
    assert [len(trace.x) for trace in figure.data] == [counts.found, counts.missed, counts.false_alarms, counts.passed]
    places = {(x, y) for trace in figure.data for x, y in zip(trace.x, trace.y, strict=True)}
    assert len(places) == 1000
    assert max(y for _, y in places) == 19


def test_what_is_undefined_is_left_out_without_a_fault():
    drawn = resample(make_scores([1, 1], [0.2, 0.8]), 10)
    assert math.isnan(drawn.values["auc"])
    roc_figure([Shown("A", "#112233", roc_curve(drawn.scores), roc_band(drawn))])
    rates_figure(sweep_thresholds(drawn), 0.5)
    benefit_figure([Shown("A", "#112233", net_benefit(drawn))])
    benefit_figure([])
    forest_figure({}, {})


def test_every_rate_has_a_colour_that_is_no_model_s():
    assert set(RATE_COLOURS) == set(RATES)
    assert len(set(RATE_COLOURS.values())) == len(RATE_COLOURS)
    assert not set(RATE_COLOURS.values()) & set(MODEL_COLOURS)


def test_a_group_is_named_with_its_n_only_where_all_models_have_the_same():
    auc = Interval(0.9, 0.8, 0.95, 60)

    def group(value, n, known=True):
        return Subgroup(value, n, n // 2, n, auc if known else None, None, None, "" if known else "too few")

    parts = {"A": [group("F", 60), group("M", 40)], "B": [group("F", 60), group("M", 30), group("X", 5, False)]}
    figure = forest_figure(parts, {"A": "#112233", "B": "#445566"})
    assert [word.strip() for word in figure.layout.yaxis.ticktext] == ["F (n=60)", "M", "X (n=5), too few"]


def test_what_positives_have_is_named_as_the_model_names_it():
    told = histogram_figure(SCORES, 0.5, finding="abnormality")
    assert [trace.name.partition(" (")[0] for trace in told.data] == ["abnormality", "no abnormality"]
    assert told.layout.xaxis.title.text == "probability of an abnormality"
    matrix = confusion_figure(confusion(SCORES, 0.5), finding="finding")
    assert matrix.layout.yaxis.ticktext[0].strip() == "finding"
    assert {row["really"] for row in matrix.data[0].meta["rows"]} == {"finding", "none"}
