"""How heat maps do, as Plotly figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from core.figures.palette import MODEL_COLOURS, empty_figure
from core.values import Interval

if TYPE_CHECKING:
    import plotly.graph_objects as go


def hits_figure(methods: Sequence[tuple[str, Interval]]) -> go.Figure:
    """Draw how often each method's highest point lies in the outline, with intervals, the first on top."""
    figure = empty_figure(40 + 30 * len(methods))
    estimates = [estimate for _, estimate in methods]
    figure.add_scatter(
        x=[each.value for each in estimates],
        y=[name for name, _ in methods],
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [each.high - each.value for each in estimates],
            "arrayminus": [each.value - each.low for each in estimates],
        },
        mode="markers",
        marker={"color": MODEL_COLOURS[0], "size": 10},
        customdata=[[each.low, each.high, each.n] for each in estimates],
        hovertemplate="%{y}: %{x:.2f} (%{customdata[0]:.2f} to %{customdata[1]:.2f}), "
        "n = %{customdata[2]}<extra></extra>",
    )
    figure.update_xaxes(range=[0, 1.02], title="films whose highest point lies in the outlined fracture")
    figure.update_yaxes(autorange="reversed")
    figure.update_layout(margin={"l": 8, "r": 16, "t": 8, "b": 44})
    return figure
