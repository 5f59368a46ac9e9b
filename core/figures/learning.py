"""How a training went, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.figures.palette import MUTED, empty_figure, named_when_saved

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """A training's history as it is drawn.

    Attributes
    ----------
    name : str
        For people.
    history : Sequence of Mapping
        One row an epoch, with ``epoch`` and the columns of `LEARNING_PANELS`.
    colour : str
    """

    name: str
    history: Sequence[Mapping[str, Any]]
    colour: str


@dataclass(frozen=True)
class LearningPanel:
    """One of the figures of a training: its title, and its columns of the history, each with its line and words."""

    title: str
    columns: tuple[tuple[str, str, str], ...]
    logarithmic: bool = False


LEARNING_PANELS = {
    "loss": LearningPanel("Loss", (("loss", "dot", "training"), ("valid_loss", "solid", "validation"))),
    "auc": LearningPanel("AUC on validation", (("valid_auc", "solid", "validation"),)),
    "learning_rate": LearningPanel("Learning rate", (("learning_rate", "solid", ""),), logarithmic=True),
}


def learning_figure(curves: Sequence[LearningCurve], panel: str, height: int = 270) -> go.Figure:
    """Draw one panel of `LEARNING_PANELS` by epoch, a colour a model; what a history does not hold is not drawn."""
    shown = LEARNING_PANELS[panel]
    figure = empty_figure(height)
    for curve in curves:
        for column, dash, words in shown.columns:
            points = _points(curve.history, column)
            name = f"{curve.name}, {words}" if words else curve.name
            if points:
                figure.add_scatter(
                    x=[epoch for epoch, _ in points],
                    y=[value for _, value in points],
                    name=name,
                    mode="lines+markers",
                    line={"color": curve.colour, "dash": dash, "width": 2},
                    marker={"size": 6},
                    hovertemplate=f"{name}<br>epoch %{{x}}: %{{y:.4g}}<extra></extra>",
                )
    figure.update_layout(margin={"l": 8, "r": 8, "t": 30, "b": 44})
    figure.update_layout(title={"text": shown.title, "font": {"size": 15}, "x": 0, "xref": "container", "y": 0.98})
    if not figure.data:
        figure.update_xaxes(visible=False)
        figure.update_yaxes(visible=False)
        figure.add_annotation(text="not recorded", showarrow=False, font={"color": MUTED})
        return figure
    last = max(x for trace in figure.data for x in trace.x)
    step = max(1, math.ceil(last / 8))
    figure.update_xaxes(
        title={"text": "epoch", "standoff": 10}, dtick=step, tick0=step, range=[0.5, max(last, 2) + 0.5]
    )
    figure.update_yaxes(nticks=6)
    if shown.logarithmic:
        ticks = _log_ticks([y for trace in figure.data for y in trace.y])
        figure.update_yaxes(type="log", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])
    return named_when_saved(figure)


def _log_ticks(values: Sequence[float]) -> list[float]:
    """Return round numbers that span `values`: powers of ten, and 2 and 5 of each where there are few decades."""
    above_zero = [value for value in values if value > 0] or [1.0]
    low, high = math.floor(math.log10(min(above_zero))), math.ceil(math.log10(max(above_zero)))
    steps = (1, 2, 5) if high - low <= 2 else (1,)
    return [step * 10.0**power for power in range(low, high + 1) for step in steps]


def without_points(curves: Sequence[LearningCurve], panel: str) -> list[str]:
    """Return the names of the curves of which a panel shows nothing."""
    columns = [column for column, _, _ in LEARNING_PANELS[panel].columns]
    return [curve.name for curve in curves if not any(_points(curve.history, column) for column in columns)]


def _points(history: Sequence[Mapping[str, Any]], column: str) -> list[tuple[float, float]]:
    """Return (epoch, value) where both are finite numbers."""
    pairs = [(row.get("epoch"), row.get(column)) for row in history]
    return [pair for pair in pairs if all(isinstance(x, int | float) and math.isfinite(x) for x in pair)]
