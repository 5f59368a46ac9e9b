"""Values -> pictures: heat laid over a film, and Plotly figures. Nothing is computed here that a number depends on."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from core.errors import ScaphoidError
from core.values import Checkpoint, Scores

if TYPE_CHECKING:
    import plotly.graph_objects as go

SUSPECTED, UNCERTAIN, NOT_SEEN = "#ff7a66", "#f2c14e", "#63c5a0"
INK, MUTED, PANEL = "#e8ebef", "#a3adba", "#0b0d10"
# Told apart on black, also by readers who do not see all colours (after Okabe and Ito, lightened).
MODEL_COLOURS = ("#5cb8ff", "#ffb347", "#4fd1a5", "#e58bd0", "#f4ea6d", "#ff7f6b", "#b49bff", "#c9d1d9")


def heat_colours() -> np.ndarray:
    """Return the colour of every heat level: uint8, shape (256, 3), RGB, from black over red to pale yellow.

    The colours rise evenly in lightness (the "inferno" map), so that equal steps of heat look like equal steps and
    the order survives in grey and for readers who do not see all colours.
    """
    levels = np.arange(256, dtype=np.uint8)[:, None]
    return cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[:, 0, ::-1].copy()


def overlay_image(pixels: np.ndarray, heatmap: np.ndarray, opacity: float = 0.6) -> np.ndarray:
    """Lay heat over a film. Where there is no heat the film is unchanged, to the last grey level.

    Parameters
    ----------
    pixels : numpy.ndarray
        Film, shape (height, width), range [0, 1].
    heatmap : numpy.ndarray
        Same shape, range [0, 1].
    opacity : float
        Share of the heat's colour where the heat is 1, range [0, 1].

    Returns
    -------
    numpy.ndarray
        uint8, shape (height, width, 3), RGB.

    Raises
    ------
    ScaphoidError
        If the shapes differ or `opacity` lies outside [0, 1].
    """
    if pixels.shape != heatmap.shape:
        raise ScaphoidError(f"A heat map must have its film's size {pixels.shape}, but this one has {heatmap.shape}.")
    if not 0 <= opacity <= 1:
        raise ScaphoidError(f"Opacity must lie between 0 and 1, not at {opacity}.")
    colours = heat_colours()[np.rint(heatmap * 255).astype(np.uint8)].astype(np.float32)
    share = (opacity * heatmap)[..., None]
    return np.rint(255 * pixels[..., None] * (1 - share) + colours * share).astype(np.uint8)


def png_bytes(image: np.ndarray) -> bytes:
    """Encode a uint8 picture, grey (height, width) or RGB (height, width, 3), as PNG without any metadata."""
    ok, data = cv2.imencode(".png", image if image.ndim == 2 else image[..., ::-1])
    if not ok:
        raise ScaphoidError(f"A picture of shape {image.shape} could not be written as PNG.")
    return data.tobytes()


@dataclass(frozen=True, eq=False)
class ProbabilityRow:
    """One line of :func:`probability_figure`: a name, the probability and whether it is the study's own."""

    name: str
    probability: float
    main: bool = False


def probability_figure(rows: Sequence[ProbabilityRow], checkpoint: Checkpoint) -> go.Figure:
    """Draw probabilities as points on a scale from 0 to 1 over the zones that the operating points make."""
    figure = _empty_figure(height=46 + 34 * len(rows))
    low, high = zone_limits(checkpoint)
    for start, end, colour in ((0, low, NOT_SEEN), (low, high, UNCERTAIN), (high, 1, SUSPECTED)):
        if end > start:
            figure.add_vrect(x0=start, x1=end, fillcolor=colour, opacity=0.16, line_width=0, layer="below")
    for row in rows:
        figure.add_scatter(
            x=[row.probability],
            y=[row.name],
            mode="markers+text",
            marker={"size": 18 if row.main else 12, "color": INK if row.main else MUTED, "symbol": "diamond"},
            text=[percent(row.probability)],
            textposition="middle right" if row.probability < 0.7 else "middle left",
            textfont={"size": 16 if row.main else 14, "color": INK},
            hovertemplate=f"{row.name}: %{{x:.3f}}<extra></extra>",
        )
    figure.update_xaxes(range=[-0.03, 1.03], tickformat=".0%", tickvals=[0, 0.25, 0.5, 0.75, 1], fixedrange=True)
    figure.update_yaxes(autorange="reversed", fixedrange=True, ticksuffix="  ")
    return figure


def percent(probability: float) -> str:
    """Return a probability for people: whole percent, and never "0%" or "100%", which no model can know."""
    if probability > 0.99:
        return "over 99%"
    return "under 1%" if probability < 0.01 else f"{100 * probability:.0f}%"


def zone_limits(checkpoint: Checkpoint) -> tuple[float, float]:
    """Return the thresholds between "not seen", "uncertain" and "suspected"; (0, 1) where the card has none."""
    low = checkpoint.operating_point("high_sensitivity")
    high = checkpoint.operating_point("high_specificity")
    ends = [point.threshold for point in (low or high, high or low) if point]
    return (min(ends), ends[1]) if ends else (0.0, 1.0)


def scores_figure(scores: Scores, checkpoint: Checkpoint) -> go.Figure:
    """Draw how often each probability was given to studies with and without a fracture, and the thresholds."""
    figure = _empty_figure(height=300)
    edges = np.linspace(0, 1, 21)
    for label, name, colour in ((0, "no fracture", NOT_SEEN), (1, "fracture", SUSPECTED)):
        counts, _ = np.histogram(scores.probabilities[scores.labels == label], edges)
        figure.add_bar(
            x=(edges[:-1] + edges[1:]) / 2,
            y=counts,
            name=f"{name} (n={counts.sum()})",
            marker_color=colour,
            hovertemplate="about %{x:.0%}: %{y} studies<extra>" + name + "</extra>",
        )
    for point in checkpoint.operating_points:
        figure.add_vline(x=point.threshold, line={"color": INK, "dash": "dot", "width": 1.5})
    figure.update_layout(barmode="stack", bargap=0.08, showlegend=True, legend={"orientation": "h", "y": 1.15})
    figure.update_xaxes(range=[0, 1], tickformat=".0%", title="probability of a fracture")
    figure.update_yaxes(title="studies")
    return figure


def model_colours(ids: Iterable[str]) -> dict[str, str]:
    """Return each model's colour. Asked with all models there are, every page gets the same answer.

    A model has a colour of its own as long as there are no more models than colours, and mostly keeps it when others
    come and go: what it gets hangs on its id first, and on the others only where two wish the same.
    """
    colours: dict[str, str] = {}
    free = list(MODEL_COLOURS)
    for model in sorted(set(ids)):
        wish = MODEL_COLOURS[zlib.crc32(model.encode()) % len(MODEL_COLOURS)]
        colours[model] = wish if wish in free else free[0]
        free.remove(colours[model])
        free = free or list(MODEL_COLOURS)
    return colours


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
    figure = _empty_figure(height)
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
    return figure


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


def _empty_figure(height: int) -> go.Figure:
    import plotly.graph_objects as go

    layout: dict[str, Any] = {
        "height": height,
        "margin": {"l": 8, "r": 16, "t": 8, "b": 28},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": INK, "size": 14},
        "showlegend": False,
        "uirevision": "keep",
    }
    figure = go.Figure(layout=layout)
    figure.update_xaxes(gridcolor="#2a313b", zeroline=False)
    figure.update_yaxes(gridcolor="#2a313b", zeroline=False)
    return figure
