"""What a dataset is made of, as Plotly figures; and small pictures of its films."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from core.figures.overlays import png_bytes
from core.figures.palette import GRID, INK, MUTED, NOT_SEEN, SUSPECTED, UNCERTAIN, empty_figure
from core.values import Interval

if TYPE_CHECKING:
    import plotly.graph_objects as go

_SIZE_MARK = (6, 32)  # pixels: a size that one film has, and the most frequent
_AS_ALL = "#7d8794"
_PANEL_GAP = 0.08


@dataclass(frozen=True)
class CountRow:
    """One bar: its name, and how many negative and positive ones it holds."""

    name: str
    negative: int
    positive: int


@dataclass(frozen=True, eq=False)
class AucRow:
    """One line of :func:`aucs_figure`: a model, or where `is_model` is False a baseline; `note` follows its name."""

    name: str
    auc: Interval
    colour: str
    is_model: bool = False
    note: str = ""


def counts_figure(panels: Mapping[str, Sequence[CountRow]], words: tuple[str, str], height: int = 0) -> go.Figure:
    """Draw counts as bars, negative and positive stacked; one panel for each unit that is counted.

    Parameters
    ----------
    panels : Mapping of str to sequence of CountRow
        What is counted -> bars from the top down; every panel has the same bars.
    words : tuple of str
        Of a negative and a positive label.
    height : int
        Pixels; 0: as the bars need.
    """
    names = [row.name for row in next(iter(panels.values()))]
    figure = empty_figure(height or 96 + 40 * len(names))
    width = (1 + _PANEL_GAP) / len(panels) - _PANEL_GAP
    for place, (unit, rows) in enumerate(panels.items()):
        axis = f"x{place + 1}" if place else "x"
        start = place * (width + _PANEL_GAP)
        figure.update_layout(
            {
                axis.replace("x", "xaxis"): {
                    "domain": [start, start + width],
                    "title": unit,
                    "gridcolor": GRID,
                    "zeroline": False,
                    "nticks": 4,
                    "tickformat": ",",
                }
            }
        )
        totals = [max(row.negative + row.positive, 1) for row in rows]
        for which, word, colour in ((0, words[0], NOT_SEEN), (1, words[1], SUSPECTED)):
            counts = [(row.negative, row.positive)[which] for row in rows]
            figure.add_bar(
                x=counts,
                y=[row.name for row in rows],
                xaxis=axis,
                orientation="h",
                name=word,
                legendgroup=word,
                showlegend=not place,
                marker_color=colour,
                customdata=[count / total for count, total in zip(counts, totals, strict=True)],
                meta={"columns": ["share"]},
                hovertemplate=f"%{{y}}: %{{x:,}} {unit}, %{{customdata:.0%}}<extra>{word}</extra>",
            )
    figure.update_layout(
        barmode="stack",
        bargap=0.35,
        showlegend=True,
        # Above the bars by pixels, whatever the height.
        legend={"orientation": "h", "y": 1, "yanchor": "bottom", "traceorder": "normal"},
        margin={"t": 34, "b": 48},
        yaxis={"autorange": "reversed", "ticksuffix": "  ", "showgrid": False, "type": "category"},
    )
    return figure


def sizes_figure(sizes: Sequence[tuple[int, int, int, int]], words: tuple[str, str], height: int = 400) -> go.Figure:
    """Draw how large films are: a mark for films of about one size, larger for more, its colour the share of positives.

    Grey is the share that the whole dataset has, so that colours appear where size goes with the label.

    Parameters
    ----------
    sizes : sequence of (int, int, int, int)
        Width and height in pixels, negative and positive films.
    words : tuple of str
        Of a negative and a positive label.
    height : int
    """
    figure = empty_figure(height)
    table = np.array(sizes, np.float64).reshape(-1, 4)
    counts = table[:, 2] + table[:, 3]
    step = _step_for(float(np.ptp(table[:, :2], axis=0).max()) if len(table) else 0.0)
    _, which = np.unique(np.floor(table[:, :2] / step), axis=0, return_inverse=True)
    which = which.ravel()
    n, positive, across, down = (
        np.bincount(which, each) for each in (counts, table[:, 3], table[:, 0] * counts, table[:, 1] * counts)
    )
    order = np.argsort(-n, kind="stable")  # the rare lie on top of the frequent
    n, positive, across, down = (each[order] for each in (n, positive, across, down))
    overall = min(max(float(positive.sum() / max(n.sum(), 1)), 0.02), 0.98)
    small, large = _SIZE_MARK
    figure.add_scattergl(
        x=across / n,
        y=down / n,
        customdata=np.stack([n, positive / n], axis=1),
        meta={"columns": ["films", f"share {words[1]}"]},
        name="films of about one size",
        mode="markers",
        marker={
            "size": small + (large - small) * np.sqrt((n - 1) / max(float(n.max(initial=1)) - 1, 1)),
            "color": positive / n,
            "cmin": 0,
            "cmax": 1,
            "colorscale": [[0, NOT_SEEN], [overall, _AS_ALL], [1, SUSPECTED]],
            "opacity": 0.85,
            "line": {"width": 0},
            "colorbar": {
                "tickvals": [0, overall, 1],
                "ticktext": [f"all<br>{words[0]}", "as<br>overall", f"all<br>{words[1]}"],
                "thickness": 10,
                "len": 0.9,
                "outlinewidth": 0,
            },
        },
        hovertemplate="about %{x:,.0f} × %{y:,.0f} pixels: %{customdata[0]:,} films, %{customdata[1]:.0%} "
        + words[1]
        + "<extra></extra>",
    )
    figure.update_xaxes(title="width in pixels", rangemode="tozero", tickformat=",")
    figure.update_yaxes(title="height in pixels", rangemode="tozero", tickformat=",")
    figure.update_layout(margin={"b": 48})
    return figure


def _step_for(span: float) -> float:
    """Return the side of the squares in which films count as of one size: a round number, some forty to a figure."""
    wanted = max(span / 40, 1.0)
    unit = 10 ** math.floor(math.log10(wanted))
    return next(unit * each for each in (1, 2, 5, 10) if unit * each >= wanted)


def aucs_figure(rows: Sequence[AucRow], warning: float, height: int = 0) -> go.Figure:
    """Draw AUCs with their intervals, one below the other; what cannot be measured is named, without a mark.

    Parameters
    ----------
    rows : sequence of AucRow
        From the top down.
    warning : float
        A baseline whose interval lies above this is drawn in the colour of a warning.
    height : int
        Pixels; 0: as the rows need.
    """
    figure = empty_figure(height or 84 + 38 * len(rows))
    for place, row in enumerate(rows):
        auc = row.auc
        if math.isnan(auc.value):
            continue
        alarming = not row.is_model and auc.low > warning
        figure.add_scatter(
            x=[auc.value],
            y=[place],
            error_x={
                "array": [0 if math.isnan(auc.high) else auc.high - auc.value],
                "arrayminus": [0 if math.isnan(auc.low) else auc.value - auc.low],
                "thickness": 2,
                "width": 6,
            },
            mode="markers",
            marker={
                "color": UNCERTAIN if alarming else row.colour,
                "size": 12,
                "symbol": "square" if row.is_model else "circle",
            },
            customdata=[[auc.low, auc.high, auc.n]],
            meta={"columns": ["low", "high", "n"]},
            name=row.name,
            hovertemplate=f"AUC %{{x:.3f}} ({auc.low:.3f} to {auc.high:.3f}), n={auc.n:,}<extra>{row.name}</extra>",
        )
    words = [f"{row.name} ({row.note})" if row.note else row.name for row in rows]
    lows = [row.auc.low for row in rows if not math.isnan(row.auc.low)]
    figure.update_xaxes(title="AUC", range=[min(0.38, *(low - 0.02 for low in lows), 1), 1.02])
    figure.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=[f"{word}  " for word in words],
        range=[len(rows) - 0.4, -0.6],
        showgrid=False,
        automargin=True,
    )
    figure.add_vline(x=0.5, line={"color": MUTED, "dash": "dot"})
    figure.add_vline(x=warning, line={"color": UNCERTAIN, "dash": "dash", "width": 1})
    for x, word in ((0.5, "guessing"), (warning, "warning from here")):
        figure.add_annotation(
            x=x, y=1, yref="paper", yanchor="bottom", text=word, showarrow=False,
            xanchor="right" if x == 0.5 else "left", font={"size": 12, "color": MUTED if x == 0.5 else UNCERTAIN},
        )  # fmt: skip
    figure.update_layout(margin={"t": 26, "b": 44}, hoverlabel={"font": {"color": INK}})
    return figure


def thumbnail_bytes(pixels: np.ndarray, side: int = 200) -> bytes:
    """Return a film as a small grey PNG without any metadata.

    Parameters
    ----------
    pixels : numpy.ndarray
        Film, shape (height, width), range [0, 1].
    side : int
        Pixels of the longer side; a smaller film is not enlarged.
    """
    height, width = pixels.shape
    factor = min(1.0, side / max(height, width))
    shape = (max(round(width * factor), 1), max(round(height * factor), 1))
    small = cv2.resize(pixels, shape, interpolation=cv2.INTER_AREA)
    return png_bytes(np.rint(255 * np.clip(small, 0, 1)).astype(np.uint8))
