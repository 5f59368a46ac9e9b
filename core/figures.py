"""Values -> pictures: heat laid over a film, and Plotly figures. Nothing is computed here that a number depends on."""

from __future__ import annotations

from collections.abc import Sequence
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
