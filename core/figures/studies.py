"""One study's answer, and the answers to the studies a checkpoint was tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from core.figures.palette import INK, MUTED, NOT_SEEN, SUSPECTED, UNCERTAIN, empty_figure, percent
from core.values import Checkpoint, Scores, with_article

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, eq=False)
class ProbabilityRow:
    """One line of :func:`probability_figure`: a name, the probability and whether it is the study's own."""

    name: str
    probability: float
    main: bool = False


def probability_figure(rows: Sequence[ProbabilityRow], checkpoint: Checkpoint) -> go.Figure:
    """Draw probabilities as points on a scale from 0 to 1 over the zones that the operating points make."""
    figure = empty_figure(height=46 + 34 * len(rows))
    low, high = zone_limits(checkpoint)
    for start, end, colour in ((0, low, NOT_SEEN), (low, high, UNCERTAIN), (high, 1, SUSPECTED)):
        if end > start:
            figure.add_vrect(x0=start, x1=end, fillcolor=colour, opacity=0.16, line_width=0, layer="below")
    for row in rows:
        figure.add_scatter(
            x=[row.probability],
            y=[row.name],
            name=row.name,
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


def zone_limits(checkpoint: Checkpoint) -> tuple[float, float]:
    """Return the thresholds between "not seen", "uncertain" and "suspected"; (0, 1) where the card has none."""
    low = checkpoint.operating_point("high_sensitivity")
    high = checkpoint.operating_point("high_specificity")
    ends = [point.threshold for point in (low or high, high or low) if point]
    return (min(ends), ends[1]) if ends else (0.0, 1.0)


def scores_figure(scores: Scores, checkpoint: Checkpoint) -> go.Figure:
    """Draw how often each probability was given to studies with and without the finding, and the thresholds."""
    figure = empty_figure(height=300)
    edges, finding = np.linspace(0, 1, 21), checkpoint.finding
    for label, name, colour in ((0, f"no {finding}", NOT_SEEN), (1, finding, SUSPECTED)):
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
    figure.update_xaxes(range=[0, 1], tickformat=".0%", title=f"probability of {with_article(finding)}")
    figure.update_yaxes(title="studies")
    return figure
