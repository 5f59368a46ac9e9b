"""The table of a figure: the numbers that were drawn, as numbers, and no figure without one."""

import ast
import io
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.figures import (
    PANEL,
    AucRow,
    CountRow,
    LearningCurve,
    ProbabilityRow,
    Shown,
    aucs_figure,
    benefit_figure,
    confusion_figure,
    counts_figure,
    figure_csv,
    forest_figure,
    histogram_figure,
    hits_figure,
    learning_figure,
    probability_figure,
    rates_figure,
    reliability_figure,
    roc_figure,
    scores_figure,
    sizes_figure,
    thousand_figure,
    told_when_saved,
)
from core.metrics import (
    METRIC_NAMES,
    Subgroup,
    confusion,
    net_benefit,
    per_thousand,
    reliability_curve,
    resample,
    roc_band,
    roc_curve,
    sweep_thresholds,
)
from core.values import Checkpoint, Interval, OperatingPoint
from tests.test_metrics import make_scores, random_scores

ROOT = Path(__file__).parent.parent
SCORES = random_scores(3, n=120, decimals=2)
DRAWN = resample(SCORES, 60)
AUC = Interval(0.8, 0.7, 0.9, 50)


def table(figure):
    return pd.read_csv(io.BytesIO(figure_csv(figure)), keep_default_na=False, na_values="")


def test_no_page_shows_a_figure_without_its_downloads():
    shown = {}
    for path in (ROOT / "streamlit_app.py", *(ROOT / "pages").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
        if "plotly_chart" in names:
            shown[path.name] = names.count("plotly_chart")
    assert shown == {"curves.py": 1}


def test_a_roc_curve_comes_with_thresholds_band_and_mark():
    curve, band = roc_curve(SCORES), roc_band(DRAWN)
    found = table(roc_figure([Shown("A", "#112233", curve, band, (0.2, 0.7))]))
    line = found[found.series == "A"]
    np.testing.assert_array_equal(line.x, curve.false_positive_rates)
    np.testing.assert_array_equal(line.y, curve.sensitivities)
    np.testing.assert_array_equal(line.threshold, curve.thresholds)
    area = found[found.series == "A, 95% band"]
    np.testing.assert_array_equal(area[["x", "low", "high"]].T, [band.at, band.low, band.high])
    mark = found[found.series == "A, at the threshold"]
    assert mark[["x", "y"]].to_numpy().tolist() == [[0.2, 0.7]]
    assert set(found["y axis"]) == {"sensitivity"}
    assert len(found) == len(line) + len(area) + 1, "the diagonal is no data"


def test_lines_with_limits_keep_them_in_their_rows():
    sweep = sweep_thresholds(DRAWN)
    measured = sweep.values  # noqa: PD011 (no table of pandas)
    found = table(rates_figure(sweep, 0.4, ("precision", "kappa")))
    for rate in ("precision", "kappa"):
        line = found[found.series == METRIC_NAMES[rate]]
        np.testing.assert_array_equal(line.y, measured[rate])
        np.testing.assert_array_equal(line.low, sweep.low[rate])
        np.testing.assert_array_equal(line.high, sweep.high[rate])
    assert np.isnan(sweep.low["precision"]).any(), "where nothing is called there is no limit to shift the others"
    benefit = net_benefit(DRAWN)
    line = table(benefit_figure([Shown("A", "#112233", benefit)])).query("series == 'A'")
    np.testing.assert_array_equal(line[["y", "low", "high"]].T, [benefit.model, benefit.low, benefit.high])


def test_what_stands_at_a_category_is_named_and_counted():
    group = Subgroup("child", 30, 12, 28, AUC, AUC, AUC)
    found = table(forest_figure({"A": [group], "B": [group]}, {"A": "#112233", "B": "#445566"}))
    assert found[["series", "x", "low", "high", "n", "positives"]].to_numpy().tolist() == [
        [name, 0.8, 0.7, 0.9, 30, 12] for name in "AB"
    ]
    assert set(found.y) == {"child (n=30)"}
    found = table(
        aucs_figure(
            [AucRow("size", AUC, "#112233", note="known"), AucRow("none", Interval(*[math.nan] * 3, 0), "#1")], 0.6
        )
    )
    assert found[["series", "x", "y", "low", "high", "n"]].to_numpy().tolist() == [
        ["size", 0.8, "size (known)", 0.7, 0.9, 50]
    ]
    found = table(hits_figure([("LayerCAM", AUC)]))
    assert found[["x", "y", "low", "high", "n"]].to_numpy().tolist() == [[0.8, "LayerCAM", 0.7, 0.9, 50]]


def test_counts_are_numbers_in_their_own_unit():
    counts = confusion(make_scores([1] * 4 + [0] * 5, [0.9] * 3 + [0.1] + [0.1] * 3 + [0.9] * 2), 0.5)
    found = table(confusion_figure(counts))
    assert found[["really", "called", "studies"]].to_numpy().tolist() == [
        ["fracture", "positive", 3], ["fracture", "negative", 1], ["none", "positive", 2], ["none", "negative", 3],
    ]  # fmt: skip
    found = table(thousand_figure(per_thousand(0.9, 0.8, 0.1)))
    assert found["of 1,000 patients"].tolist() == [90, 10, 180, 720]
    bars = {"studies": [CountRow("train", 3, 1)], "films": [CountRow("train", 6, 2)]}
    found = table(counts_figure(bars, ("none", "fracture")))
    assert found[["series", "x", "y", "share", "x axis"]].to_numpy().tolist() == [
        ["none", 3, "train", 0.75, "studies"], ["fracture", 1, "train", 0.25, "studies"],
        ["none", 6, "train", 0.75, "films"], ["fracture", 2, "train", 0.25, "films"],
    ]  # fmt: skip
    found = table(histogram_figure(SCORES, 0.5, bins=10))
    assert found.studies.sum() == len(SCORES.labels)
    found = table(sizes_figure([(100, 200, 3, 1)], ("none", "fracture")))
    assert found[["x", "y", "films", "share fracture"]].to_numpy().tolist() == [[100, 200, 4, 0.25]]


def test_bins_histories_and_answers_come_as_they_were_drawn():
    bins = reliability_curve(DRAWN)
    found = table(reliability_figure([Shown("A", "#112233", bins)]))
    shares = [each.positive for each in bins]
    np.testing.assert_array_equal(found[["y", "low", "high", "n"]], [[s.value, s.low, s.high, s.n] for s in shares])
    found = table(
        learning_figure([LearningCurve("A", [{"epoch": 1, "valid_auc": 0.5}, {"epoch": 2}], "#112233")], "auc")
    )
    assert found[["x", "y"]].to_numpy().tolist() == [[1, 0.5]]
    assert found["y axis"].tolist() == ["AUC on validation"]
    points = (OperatingPoint("high_sensitivity", 0.2, AUC, AUC),)
    card = Checkpoint("m", "M", "fracture", "efficientnetb0", "top_activation", 224, operating_points=points)
    found = table(probability_figure([ProbabilityRow("Film 1", 0.25), ProbabilityRow("Study", 0.5, True)], card))
    assert found[["series", "x"]].to_numpy().tolist() == [["Film 1", 0.25], ["Study", 0.5]]
    assert table(scores_figure(SCORES, card)).y.sum() == len(SCORES.labels)


def test_a_figure_without_data_is_a_table_without_rows():
    assert figure_csv(learning_figure([], "auc")).decode("utf-8-sig") == "series\n"


def test_a_saved_figure_of_models_names_each_model_once():
    curve, bins = roc_curve(SCORES), reliability_curve(DRAWN)
    history = [{"epoch": 1, "valid_auc": 0.5}]
    figures = (
        roc_figure([Shown(name, "#112233", curve, roc_band(DRAWN), (0, 1)) for name in "AB"]),
        reliability_figure([Shown(name, "#112233", bins) for name in "AB"]),
        learning_figure([LearningCurve(name, history, "#112233") for name in "AB"], "auc"),
    )
    for figure in figures:
        assert figure.layout.meta == {"legend": True}
        named = [trace.name for trace in figure.data if trace.showlegend is not False]
        assert [name[0] for name in named] == ["A", "B"]


@pytest.mark.parametrize("figure", [roc_figure([]), confusion_figure(confusion(SCORES, 0.5))])
def test_a_saved_picture_has_the_pages_own_background(figure):
    assert figure.layout.paper_bgcolor == PANEL


def test_a_saved_table_says_what_it_is_of():
    figure = told_when_saved(confusion_figure(confusion(SCORES, 0.5)), "A: 12 studies\nCalled positive from 0.5 on")
    assert set(table(figure)["of"]) == {"A: 12 studies\nCalled positive from 0.5 on"}
    assert "of" not in table(confusion_figure(confusion(SCORES, 0.5))).columns
    kept = told_when_saved(roc_figure([]), "A")
    assert kept.layout.meta == {"legend": True, "told": "A"}
