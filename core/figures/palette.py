"""Colours, words for numbers, and the empty figure that all others are drawn on."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import plotly.graph_objects as go

SUSPECTED, UNCERTAIN, NOT_SEEN = "#ff7a66", "#f2c14e", "#63c5a0"
INK, MUTED, PANEL, GRID = "#e8ebef", "#a3adba", "#0b0d10", "#2a313b"
# Told apart on black, also by readers who do not see all colours (after Okabe and Ito, lightened).
MODEL_COLOURS = ("#5cb8ff", "#ffb347", "#4fd1a5", "#e58bd0", "#f4ea6d", "#ff7f6b", "#b49bff", "#c9d1d9")


def percent(probability: float) -> str:
    """Return a probability for people: whole percent, and never "0%" or "100%", which no model can know."""
    if probability > 0.99:
        return "over 99%"
    return "under 1%" if probability < 0.01 else f"{100 * probability:.0f}%"


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


def named_when_saved(figure: go.Figure) -> go.Figure:
    """Mark a figure whose colours the page explains: saved, it gets a legend of its own. Return it."""
    figure.update_layout(meta={"legend": True})
    return figure


def told_when_saved(figure: go.Figure, words: str) -> go.Figure:
    """Say what a figure is of, where it is saved: there no page stands around it. Return it."""
    figure.update_layout(meta={**(figure.layout.meta or {}), "told": words})
    return figure


def empty_figure(height: int) -> go.Figure:
    """Return a figure with the house's colours and nothing on it."""
    import plotly.graph_objects as go

    layout: dict[str, Any] = {
        "height": height,
        "margin": {"l": 8, "r": 16, "t": 8, "b": 28},
        # The page's own colour and not a transparent one: a saved picture must stay readable on white paper.
        "paper_bgcolor": PANEL,
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": INK, "size": 14},
        "showlegend": False,
        "uirevision": "keep",
    }
    figure = go.Figure(layout=layout)
    figure.update_xaxes(gridcolor=GRID, zeroline=False)
    figure.update_yaxes(gridcolor=GRID, zeroline=False)
    return figure
