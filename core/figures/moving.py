"""Figures that are drawn once and then follow the threshold: drawing one anew takes twenty times as long."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import plotly.graph_objects as go


def move_line(figure: go.Figure, threshold: float) -> go.Figure:
    """Move the upright line of a figure of rates, probabilities or net benefit to another threshold; return it."""
    for shape in figure.layout.shapes:
        if shape.type == "line" and shape.xref == "x":
            shape.x0 = shape.x1 = threshold
    return figure


def move_point(figure: go.Figure, point: tuple[float, float]) -> go.Figure:
    """Move the mark of the threshold on a figure of one curve, (x, y); return it."""
    mark = figure.data[-1]
    mark.x, mark.y = [point[0]], [point[1]]
    return figure
