"""How heat maps do, as Plotly figures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from core.figures.overlays import png_bytes, region_slices
from core.figures.palette import INK, MODEL_COLOURS, empty_figure
from core.values import Interval, WristRegion

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
        meta={"columns": ["low", "high", "n"]},
        name="highest point in the outline",
        hovertemplate="%{y}: %{x:.2f} (%{customdata[0]:.2f} to %{customdata[1]:.2f}), "
        "n = %{customdata[2]}<extra></extra>",
    )
    figure.update_xaxes(range=[0, 1.02], title="films whose highest point lies in the outlined fracture")
    figure.update_yaxes(autorange="reversed")
    figure.update_layout(margin={"l": 8, "r": 16, "t": 8, "b": 44})
    return figure


def outlining_figure(picture: np.ndarray, region: WristRegion | None, height: int = 560) -> go.Figure:
    """Draw the part of a film around a region, to outline something on it: its axes are the film's own pixels.

    Parameters
    ----------
    picture : numpy.ndarray
        uint8, grey (height, width) or RGB (height, width, 3); the whole film.
    region : WristRegion or None
        None: all of it is drawn.
    height : int
        Of the figure in pixels.
    """
    rows, columns = region_slices(picture.shape[:2], region)
    figure = empty_figure(height)
    figure.add_layout_image(
        source="data:image/png;base64," + base64.b64encode(png_bytes(picture[rows, columns])).decode(),
        x=columns.start,
        y=rows.start,
        sizex=columns.stop - columns.start,
        sizey=rows.stop - rows.start,
        xref="x",
        yref="y",
        sizing="stretch",
        layer="below",
    )
    # Plotly lets nothing be outlined where there are no points.
    down, right = np.meshgrid(*(np.linspace(each.start, each.stop, 60) for each in (rows, columns)), indexing="ij")
    marker = {"opacity": 0, "size": 1}
    figure.add_scatter(x=right.ravel(), y=down.ravel(), mode="markers", marker=marker, hoverinfo="skip")
    figure.update_xaxes(range=[columns.start, columns.stop], visible=False, constrain="domain")
    figure.update_yaxes(range=[rows.stop, rows.start], visible=False, scaleanchor="x", constrain="domain")
    figure.update_layout(
        dragmode="lasso",
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        newselection={"line": {"color": INK, "width": 2, "dash": "solid"}},
        modebar={"remove": ["zoom", "pan", "zoomin", "zoomout", "autoscale", "resetscale", "toimage"]},
    )
    return figure
