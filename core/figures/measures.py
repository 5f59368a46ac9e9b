"""What models did on studies they were not trained on: curves, tables and rates as Plotly figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from core.figures.palette import GRID, INK, MUTED, NOT_SEEN, SUSPECTED, UNCERTAIN, empty_figure, named_when_saved
from core.metrics import (
    CELLS,
    METRIC_NAMES,
    Band,
    Confusion,
    NetBenefit,
    PerThousand,
    PrecisionRecallCurve,
    ReliabilityBin,
    RocCurve,
    Subgroup,
    ThresholdSweep,
)
from core.values import Interval, Scores, with_article

if TYPE_CHECKING:
    import plotly.graph_objects as go

MOST_POINTS = 1500
"""Points of a curve beyond which those that nobody could see are left out of the drawing."""
# None is a model's, and neighbours differ in their dashes, too, for readers who do not see all colours.
RATE_COLOURS = {
    "sensitivity": "#8fd3ff",
    "specificity": "#9be37c",
    "precision": "#ffc98a",
    "npv": "#f2a9e0",
    "f1": "#fff3a3",
    "balanced_accuracy": "#a9b8ff",
    "accuracy": "#7fe0d4",
    "youden": "#ff9d9d",
    "kappa": "#d2b48c",
    "mcc": "#8fa3b8",
}
_DASHES = ("solid", "dash", "dot", "dashdot")
_CELL_COLOURS = {"tp": SUSPECTED, "fn": UNCERTAIN, "fp": UNCERTAIN, "tn": NOT_SEEN}
CELL_WORDS = {"tp": "found", "fn": "missed", "fp": "false alarm", "tn": "rightly passed"}
_GUIDE = {"color": MUTED, "dash": "dot"}
_CELLS_MARGIN = 34  # pixels above and below a confusion matrix
_THOUSAND_COLUMNS = 50
_MOST_COUNTED = 3
"""Models whose counts have room beside each other in a bin."""


@dataclass(frozen=True, eq=False)
class Shown:
    """One model in a figure: its name for people, its colour, and what is drawn of it.

    Attributes
    ----------
    name, colour : str
    curve : RocCurve, PrecisionRecallCurve, NetBenefit or tuple of ReliabilityBin
    band : Band or None
    point : tuple of float or None
        Where the model's threshold lies on the curve, (x, y).
    """

    name: str
    colour: str
    curve: Any
    band: Band | None = None
    point: tuple[float, float] | None = None


def roc_figure(models: Sequence[Shown], height: int = 430) -> go.Figure:
    """Draw ROC curves with their bands, and the point of each model's threshold."""
    figure = _square_figure(height, "1 − specificity (false alarms)", "sensitivity")
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line=_GUIDE, hoverinfo="skip", showlegend=False)
    for model in models:
        curve: RocCurve = model.curve
        places = _thinned(curve.thresholds.size)
        _add_band(figure, model)
        figure.add_scatter(
            x=curve.false_positive_rates[places],
            y=curve.sensitivities[places],
            customdata=curve.thresholds[places],
            meta={"columns": ["threshold"]},
            mode="lines",
            line={"color": model.colour, "width": 2.5},
            name=model.name,
            hovertemplate="sensitivity %{y:.1%}, specificity %{x:.1%} below 1<br>from %{customdata:.3f} on"
            f"<extra>{model.name}</extra>",
        )
        _add_point(figure, model)
    return named_when_saved(figure)


def precision_recall_figure(models: Sequence[Shown], height: int = 430) -> go.Figure:
    """Draw precision against sensitivity; the dotted line is what calling everything would reach."""
    figure = _square_figure(height, "sensitivity (recall)", "PPV (precision)")
    for prevalence in sorted({round(model.curve.prevalence, 6) for model in models}):
        figure.add_hline(y=prevalence, line={"color": MUTED, "dash": "dot"})
    for model in models:
        curve: PrecisionRecallCurve = model.curve
        places = _thinned(curve.thresholds.size)
        _add_band(figure, model)
        figure.add_scatter(
            x=curve.sensitivities[places],
            y=curve.precisions[places],
            customdata=curve.thresholds[places],
            meta={"columns": ["threshold"]},
            mode="lines",
            line={"color": model.colour, "width": 2.5, "shape": "vh"},
            name=model.name,
            hovertemplate="sensitivity %{x:.1%}, PPV %{y:.1%}<br>from %{customdata:.3f} on"
            f"<extra>{model.name}</extra>",
        )
        _add_point(figure, model)
    return named_when_saved(figure)


def reliability_figure(models: Sequence[Shown], height: int = 500, finding: str = "fracture") -> go.Figure:
    """Draw what was said against what came to be, bin by bin, with intervals; larger marks hold more studies.

    Below stands how many studies each bin holds. One without any is counted there, has no mark, and breaks its model's
    line: nothing is known of what lies between its neighbours. Where it is empty for every model it is shaded.
    """
    figure = _square_figure(height, "probability that was given", f"share that had {with_article(finding)}")
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line=_GUIDE, hoverinfo="skip", showlegend=False)
    for low, high in _empty_everywhere(models):
        figure.add_vrect(x0=low, x1=high, fillcolor=GRID, opacity=0.5, line_width=0, layer="below")
    for place, model in enumerate(models):
        bins: Sequence[ReliabilityBin] = model.curve
        most = max((each.positive.n for each in bins), default=1) or 1
        shares = [each.positive for each in bins]
        figure.add_scatter(
            x=[each.mean_probability if each.positive.n else (each.low + each.high) / 2 for each in bins],
            y=[share.value for share in shares],
            error_y={
                "array": [share.high - share.value for share in shares],
                "arrayminus": [share.value - share.low for share in shares],
                "thickness": 1.4,
                "width": 4,
            },
            customdata=[
                [share.low, share.high, share.n, each.low, each.high] for share, each in zip(shares, bins, strict=True)
            ],
            meta={"columns": ["low", "high", "n", "from", "to"]},
            mode="lines+markers",
            line={"color": model.colour, "width": 1.5},
            connectgaps=False,
            cliponaxis=False,
            marker={"size": [7 + 13 * math.sqrt(share.n / most) for share in shares], "color": model.colour},
            name=model.name,
            hovertemplate="given %{customdata[3]:.0%} to %{customdata[4]:.0%}: %{y:.1%} had one"
            " (%{customdata[0]:.1%} to %{customdata[1]:.1%}), n=%{customdata[2]}"
            f"<extra>{model.name}</extra>",
        )
        _add_counts(figure, model, place, len(models))
    most = max((each.positive.n for model in models for each in model.curve), default=1)
    figure.update_layout(
        yaxis_domain=[0.3, 1],
        yaxis2={
            "domain": [0, 0.2],
            "anchor": "x",
            "range": [0, 1.5 * max(most, 1)],  # room for the numbers above the bars
            "title": "studies",
            "showgrid": False,
            "zeroline": True,
            "zerolinecolor": GRID,
            "showticklabels": False,
        },
        xaxis_anchor="y2",
        barmode="overlay",
    )
    return named_when_saved(figure)


def _empty_everywhere(models: Sequence[Shown]) -> list[tuple[float, float]]:
    """Return the bins in which no model has a study."""
    some = {(each.low, each.high) for model in models for each in model.curve if each.positive.n}
    return [(each.low, each.high) for each in (models[0].curve if models else ()) if (each.low, each.high) not in some]


def _add_counts(figure: go.Figure, model: Shown, place: int, of: int) -> None:
    """Draw how many studies each bin of a reliability curve holds, beside those of the other models."""
    bins: Sequence[ReliabilityBin] = model.curve
    width = (bins[0].high - bins[0].low) * 0.9 / of if bins else 0
    figure.add_bar(
        x=[(each.low + each.high) / 2 + (place - (of - 1) / 2) * width for each in bins],
        y=[each.positive.n for each in bins],
        width=width,
        yaxis="y2",
        showlegend=False,
        marker={"color": model.colour, "opacity": 0.7, "line_width": 0},
        # Of many models only what is empty is written: longer numbers would lie over each other.
        text=[f"{each.positive.n:,}" if of <= _MOST_COUNTED or not each.positive.n else "" for each in bins],
        textposition="outside",
        textangle=0,
        textfont={"size": 11, "color": model.colour},
        cliponaxis=False,
        customdata=[[each.low, each.high] for each in bins],
        hovertemplate=f"given %{{customdata[0]:.0%}} to %{{customdata[1]:.0%}}: n=%{{y:,}}<extra>{model.name}</extra>",
    )


def confusion_figure(
    counts: Confusion, chosen: str | None = None, height: int = 290, finding: str = "fracture"
) -> go.Figure:
    """Draw a confusion matrix whose four cells can be selected, in the order of `CELLS`.

    Each cell tells its studies and their share of the row, which is of what they really are.
    """
    figure = empty_figure(height)
    numbers = {cell: getattr(counts, cell) for cell in CELLS}
    rows = {"tp": "tp fn", "fn": "tp fn", "fp": "fp tn", "tn": "fp tn"}
    shares = {cell: numbers[cell] / max(sum(numbers[other] for other in rows[cell].split()), 1) for cell in CELLS}
    side = (height - _CELLS_MARGIN) / 2.1
    figure.add_scatter(
        x=[0, 1, 0, 1],
        y=[0, 0, 1, 1],
        mode="markers+text",
        marker={
            "symbol": "square",
            "size": 0.94 * side,
            # The share is in the colour and not in the opacity, which would make the outline pale, too.
            "color": [_transparent(_CELL_COLOURS[cell], 0.14 + 0.5 * shares[cell]) for cell in CELLS],
            "opacity": 1,
            "line": {
                "width": [5 if cell == chosen else 1 for cell in CELLS],
                "color": [INK if cell == chosen else GRID for cell in CELLS],
            },
        },
        selected={"marker": {"opacity": 1}},
        unselected={"marker": {"opacity": 0.45}},
        text=[f"<b>{numbers[cell]:,}</b><br>{shares[cell]:.0%}<br>{CELL_WORDS[cell]}" for cell in CELLS],
        textfont={"color": INK, "size": 15},
        customdata=list(CELLS),
        meta={
            "rows": [
                {
                    "really": finding if cell in ("tp", "fn") else "none",
                    "called": "positive" if cell in ("tp", "fp") else "negative",
                    "studies": numbers[cell],
                    "share of those": shares[cell] if sum(numbers[each] for each in rows[cell].split()) else None,
                }
                for cell in CELLS
            ]
        },
        name="studies",
        hovertemplate="%{text}<extra></extra>",
    )
    figure.update_xaxes(
        range=[-0.55, 1.55], tickvals=[0, 1], ticktext=["called positive", "called negative"], showgrid=False,
        # Cells lie beside each other however wide the page is, and their names beside them.
        scaleanchor="y", constrain="domain",
    )  # fmt: skip
    figure.update_yaxes(range=[1.55, -0.55], tickvals=[0, 1], ticktext=[f"{finding} ", "none "], showgrid=False)
    figure.update_xaxes(fixedrange=True, side="top")
    figure.update_yaxes(fixedrange=True)
    figure.update_layout(clickmode="event+select", dragmode=False, margin={"t": _CELLS_MARGIN - 4, "b": 4})
    return figure


def rates_figure(
    sweep: ThresholdSweep, threshold: float, rates: Sequence[str] = tuple(RATE_COLOURS)[:4], height: int = 360
) -> go.Figure:
    """Draw rates against the threshold with their bands; the line stands at `threshold`."""
    figure = empty_figure(height)
    x = np.clip(sweep.thresholds, 0, 1)
    for place, rate in enumerate(rates):
        colour = RATE_COLOURS[rate]
        known = np.isfinite(sweep.low[rate]) & np.isfinite(sweep.high[rate])
        _add_area(figure, x[known], sweep.low[rate][known], sweep.high[rate][known], colour, of_line=True)
        figure.add_scatter(
            x=x,
            y=sweep.values[rate],
            mode="lines",
            line={"color": colour, "width": 2.5, "dash": _DASHES[place % len(_DASHES)]},
            name=METRIC_NAMES[rate],
            hovertemplate=f"{METRIC_NAMES[rate]} %{{y:.1%}} from %{{x:.3f}} on<extra></extra>",
        )
    figure.add_vline(x=threshold, line={"color": INK, "width": 2})
    figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.12})
    figure.update_xaxes(range=[0, 1], title="threshold")
    figure.update_yaxes(range=[0, 1.01], tickformat=".0%")
    return figure


def histogram_figure(
    scores: Scores, threshold: float, bins: int = 40, height: int = 260, finding: str = "fracture"
) -> go.Figure:
    """Draw how often each probability was given: studies with the finding upwards, those without downwards."""
    figure = empty_figure(height)
    edges = np.linspace(0, 1, bins + 1)
    for label, name, colour, side in ((1, finding, SUSPECTED, 1), (0, f"no {finding}", NOT_SEEN, -1)):
        counts, _ = np.histogram(scores.probabilities[scores.labels == label], edges)
        figure.add_bar(
            x=(edges[:-1] + edges[1:]) / 2,
            y=side * counts,
            customdata=counts,
            meta={"columns": ["studies"]},
            marker_color=colour,
            name=f"{name} (n={counts.sum():,})",
            hovertemplate="about %{x:.0%}: %{customdata} studies<extra>" + name + "</extra>",
        )
    figure.add_vline(x=threshold, line={"color": INK, "width": 2})
    figure.update_layout(barmode="relative", bargap=0.06, showlegend=True, legend={"orientation": "h", "y": 1.18})
    figure.update_xaxes(range=[0, 1], title=f"probability of {with_article(finding)}")
    most = max((int(abs(count)) for trace in figure.data for count in trace.y), default=1)
    step = _round_step(most)
    ticks = list(range(-(most // step) * step, most + 1, step))
    figure.update_yaxes(title="studies", tickvals=ticks, ticktext=[f"{abs(tick):,}" for tick in ticks])
    return figure


def _round_step(most: int, ticks: int = 4) -> int:
    """Return the smallest of 1, 2 and 5 times a power of ten that reaches `most` in no more than so many steps."""
    wanted = max(most / ticks, 1)
    unit = 10 ** math.floor(math.log10(wanted))
    return next(unit * each for each in (1, 2, 5, 10) if unit * each >= wanted)


def benefit_figure(models: Sequence[Shown], threshold: float | None = None, height: int = 360) -> go.Figure:
    """Draw decision curves beside calling everything and calling nothing."""
    figure = empty_figure(height)
    curves: list[NetBenefit] = [model.curve for model in models]
    if curves:
        first = curves[0]
        figure.add_scatter(
            x=first.thresholds, y=first.call_all, mode="lines", line={"color": MUTED, "dash": "dot"}, name="call all"
        )
    figure.add_hline(y=0, line={"color": MUTED, "dash": "dash"})
    for model, curve in zip(models, curves, strict=True):
        known = np.isfinite(curve.low) & np.isfinite(curve.high)
        _add_area(figure, curve.thresholds[known], curve.low[known], curve.high[known], model.colour, of_line=True)
        figure.add_scatter(
            x=curve.thresholds,
            y=curve.model,
            mode="lines",
            line={"color": model.colour, "width": 2.5},
            name=model.name,
            hovertemplate="net benefit %{y:.3f} from %{x:.2f} on<extra>" + model.name + "</extra>",
        )
    if threshold is not None:
        figure.add_vline(x=threshold, line={"color": INK, "width": 2})
    top = max((float(np.nanmax(curve.high)) for curve in curves if np.isfinite(curve.high).any()), default=1.0)
    figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.12})
    figure.update_xaxes(range=[0, 1], title="threshold: how likely a fracture must be to act on it")
    figure.update_yaxes(range=[-0.25 * top, 1.08 * top], title="net benefit")
    return figure


def forest_figure(
    groups: Mapping[str, Sequence[Subgroup]], colours: Mapping[str, str], rate: str = "auc", height: int = 0
) -> go.Figure:
    """Draw each model's `rate` (auc, sensitivity or specificity) in each subgroup with its interval.

    Groups too small for one are named, without a mark.
    """
    values = list(dict.fromkeys(group.value for parts in groups.values() for group in parts))
    # Marks of ten pixels, each model's on a line of its own.
    figure = empty_figure(height or 90 + max(46, 18 * len(groups)) * max(len(values), 1))
    for place, (name, parts) in enumerate(groups.items()):
        known = [group for group in parts if getattr(group, rate) is not None]
        shift = (place - (len(groups) - 1) / 2) * 0.7 / max(len(groups), 1)
        found: list[Interval] = [getattr(group, rate) for group in known]
        figure.add_scatter(
            x=[each.value for each in found],
            y=[values.index(group.value) + shift for group in known],
            error_x={
                "array": [each.high - each.value for each in found],
                "arrayminus": [each.value - each.low for each in found],
                "thickness": 2,
                "width": 5,
            },
            customdata=[
                [each.low, each.high, group.n, group.positives] for each, group in zip(found, known, strict=True)
            ],
            meta={"columns": ["low", "high", "n", "positives"]},
            mode="markers",
            marker={"color": colours[name], "size": 10, "symbol": "square"},
            name=name,
            hovertemplate=METRIC_NAMES[rate]
            + " %{x:.3f} (%{customdata[0]:.3f} to %{customdata[1]:.3f}), n=%{customdata[2]}, "
            "%{customdata[3]} positive<extra>" + name + "</extra>",
        )
    words = [_group_words(value, [group for parts in groups.values() for group in parts], rate) for value in values]
    figure.update_xaxes(title=METRIC_NAMES[rate], range=[0.3 if rate == "auc" else -0.02, 1.02])
    if rate == "auc":
        figure.add_vline(x=0.5, line={"color": MUTED, "dash": "dot"})
    figure.update_yaxes(
        tickvals=list(range(len(values))), ticktext=[f"{word}  " for word in words], range=[len(values) - 0.4, -0.6]
    )
    return named_when_saved(figure)


def _group_words(value: str, parts: Sequence[Subgroup], rate: str) -> str:
    """Name a group, with its n where that is one and the same for all models, and say where it is too small for one."""
    here = [group for group in parts if group.value == value]
    counts, small = {group.n for group in here}, [getattr(group, rate) is None for group in here]
    told = f" (n={counts.pop():,})" if len(counts) == 1 else ""
    return value + told + (", too few" if all(small) else ", too few for some" if any(small) else "")


def agreement_figure(
    first: Scores,
    second: Scores,
    names: tuple[str, str],
    thresholds: tuple[float, float],
    height: int = 430,
    finding: str = "fracture",
) -> go.Figure:
    """Draw two models' probabilities of the same studies against each other; in the shaded corners they disagree."""
    figure = _square_figure(height, names[0], names[1])
    low, high = thresholds
    for corner in ((0, low, high, 1), (low, 1, 0, high)):
        figure.add_shape(
            type="rect", x0=corner[0], x1=corner[1], y0=corner[2], y1=corner[3], fillcolor=UNCERTAIN, opacity=0.1,
            line_width=0, layer="below",
        )  # fmt: skip
    for label, name, colour in ((0, f"no {finding}", NOT_SEEN), (1, finding, SUSPECTED)):
        here = first.labels == label
        figure.add_scattergl(
            x=first.probabilities[here],
            y=second.probabilities[here],
            mode="markers",
            marker={"color": colour, "size": 6, "opacity": 0.75},
            name=f"{name} (n={here.sum():,})",
            hovertemplate="%{x:.3f}, %{y:.3f}<extra>" + name + "</extra>",
        )
    figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.1})
    return figure


def thousand_figure(counts: PerThousand, height: int = 290) -> go.Figure:
    """Draw a thousand patients as dots, in rows of fifty: found, missed, called in vain and rightly passed."""
    figure = empty_figure(height)
    start = 0
    for name, count, colour in (
        ("found", counts.found, SUSPECTED),
        ("missed", counts.missed, "#ffffff"),
        ("false alarm", counts.false_alarms, UNCERTAIN),
        ("rightly passed", counts.passed, "#2f5d50"),
    ):
        places = np.arange(start, start + count)
        start += count
        figure.add_scattergl(
            x=places % _THOUSAND_COLUMNS,
            y=places // _THOUSAND_COLUMNS,
            mode="markers",
            marker={"color": colour, "size": 7},
            name=f"{name} ({count:,})",
            meta={"rows": [{"of 1,000 patients": count}]},
            hoverinfo="name",
        )
    figure.update_xaxes(visible=False, range=[-1, _THOUSAND_COLUMNS], fixedrange=True)
    figure.update_yaxes(visible=False, range=[1000 / _THOUSAND_COLUMNS, -1], fixedrange=True)
    figure.update_layout(
        showlegend=True,
        legend={"orientation": "h", "y": -0.02, "yanchor": "top", "itemsizing": "constant"},
        margin={"b": 60},
    )
    return figure


def _square_figure(height: int, x: str, y: str) -> go.Figure:
    figure = empty_figure(height)
    figure.update_xaxes(range=[-0.01, 1.01], title=x, tickformat=".0%")
    figure.update_yaxes(range=[-0.01, 1.01], title=y, tickformat=".0%")
    figure.update_layout(margin={"l": 8, "r": 28, "t": 12, "b": 44})
    return figure


def _add_band(figure: go.Figure, model: Shown) -> None:
    if model.band is not None:
        known = np.isfinite(model.band.low) & np.isfinite(model.band.high)
        limits = (model.band.low[known], model.band.high[known])
        _add_area(figure, model.band.at[known], *limits, model.colour, f"{model.name}, 95% band")


def _add_area(
    figure: go.Figure,
    x: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    colour: str,
    name: str = "95% band",
    of_line: bool = False,
) -> None:
    """Fill what lies between two lines with a breath of the colour.

    `of_line`: they are the limits of the line that is drawn next, at some or all of its points.
    """
    figure.add_scatter(
        x=np.concatenate([x, x[::-1]]),
        y=np.concatenate([high, low[::-1]]),
        fill="toself",
        mode="lines",
        line_width=0,
        fillcolor=_transparent(colour, 0.14),
        name=name,
        meta={"band": x.size, "of_line": of_line},
        hoverinfo="skip",
        showlegend=False,
    )


def _transparent(colour: str, opacity: float) -> str:
    return f"rgba({int(colour[1:3], 16)},{int(colour[3:5], 16)},{int(colour[5:7], 16)},{opacity:.3g})"


def _add_point(figure: go.Figure, model: Shown) -> None:
    if model.point is not None:
        figure.add_scatter(
            x=[model.point[0]],
            y=[model.point[1]],
            mode="markers",
            marker={"size": 14, "color": model.colour, "line": {"color": INK, "width": 2}},
            cliponaxis=False,  # a perfect model's mark lies in the corner
            name=f"{model.name}, at the threshold",
            showlegend=False,
            hovertemplate="at the threshold: %{x:.1%}, %{y:.1%}<extra>" + model.name + "</extra>",
        )


def _thinned(count: int) -> np.ndarray:
    """Return the places of up to `MOST_POINTS` points of a curve, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST_POINTS)).round().astype(int))
