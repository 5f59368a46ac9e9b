"""A figure's numbers as one tidy table: what was drawn, no more and no less."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import plotly.graph_objects as go

FIRST_COLUMNS = ("series", "x", "y", "low", "high", "n")
LAST_COLUMNS = ("x axis", "y axis", "of")


def figure_rows(figure: go.Figure) -> list[dict[str, Any]]:
    """Return what a figure draws, one row a point.

    A trace's ``meta`` tells what plain coordinates do not: ``columns`` names what its customdata holds, ``rows`` are
    its rows where the places on the figure are no data, ``band`` is the number of points of an area between two limits,
    which become the limits of the line drawn next where ``of_line`` is true. Traces without a name are help lines,
    which hold no data.

    Returns
    -------
    list of dict
        ``series``, ``x``, ``y``, then ``low`` and ``high`` where there are limits, what else the points carry, and what
        the axes say. Numbers are numbers; a category is its name. An absent number is missing, as is NaN.
    """
    rows, limits = [], []
    for trace in figure.data:
        told = trace.meta or {}
        axes = {f"{letter} axis": _axis_words(figure, trace, letter) for letter in "xy"}
        if "rows" in told:
            rows += [{"series": trace.name, **row} for row in told["rows"]]
        elif "band" in told and told.get("of_line"):
            limits = list(_band_rows(trace))
        elif "band" in told:
            rows += [_known({"series": trace.name, **row, **axes}) for row in _band_rows(trace)]
        elif trace.name:
            points = list(_point_rows(figure, trace))
            rows += [_known({"series": trace.name, **row, **axes}) for row in _with_limits(points, limits)]
            limits = []
    return rows


def figure_csv(figure: go.Figure) -> bytes:
    """Return `figure_rows` as CSV in UTF-8, marked as such for spreadsheets; floats keep all their digits."""
    rows = figure_rows(figure)
    if told := (figure.layout.meta or {}).get("told"):
        rows = [{**row, "of": told} for row in rows]
    names = dict.fromkeys(name for row in rows for name in row)
    others = [name for name in names if name not in (*FIRST_COLUMNS, *LAST_COLUMNS)]
    order = [name for name in (*FIRST_COLUMNS, *others, *LAST_COLUMNS) if name in names]
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, order or ["series"], lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue().encode("utf-8-sig")


def _axis_words(figure: go.Figure, trace: Any, letter: str) -> str | None:
    words = _axis(figure, trace, letter).title.text
    # A small figure names what it shows above it, not beside its axis.
    return words or (figure.layout.title.text if letter == "y" else None)


def _axis(figure: go.Figure, trace: Any, letter: str) -> Any:
    return figure.layout[f"{letter}axis{(trace[f'{letter}axis'] or letter)[1:]}"]


def _band_rows(trace: Any) -> Iterator[dict[str, Any]]:
    """Yield the places and limits of an area that runs forth along its upper edge and back along its lower one."""
    n = trace.meta["band"]
    for place in range(n):
        yield {"x": _plain(trace.x[place]), "low": _plain(trace.y[-1 - place]), "high": _plain(trace.y[place])}


def _point_rows(figure: go.Figure, trace: Any) -> Iterator[dict[str, Any]]:
    names = (trace.meta or {}).get("columns", ())
    words = {letter: _tick_words(_axis(figure, trace, letter)) for letter in "xy"}
    for place, pair in enumerate(zip(trace.x, trace.y, strict=True)):
        row = {letter: _in_words(words[letter], value) for letter, value in zip("xy", pair, strict=True)}
        row |= _error_limits(trace, place)
        if names:
            extra = trace.customdata[place]
            extra = [extra] if np.ndim(extra) == 0 else extra
            row |= {name: _plain(value) for name, value in zip(names, extra, strict=True)}
        yield row


def _error_limits(trace: Any, place: int) -> dict[str, float]:
    """Return the ends of a point's error bar; none where the trace, as bars, cannot have one."""
    for letter in "xy":
        bar = getattr(trace, f"error_{letter}", None)
        if bar is not None and bar.array is not None:
            value, below = getattr(trace, letter)[place], bar.array if bar.arrayminus is None else bar.arrayminus
            return {"low": _plain(value - below[place]), "high": _plain(value + bar.array[place])}
    return {}


def _with_limits(points: list[dict[str, Any]], limits: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield a line's points with the limits that lie at the same places, in the same order."""
    left = iter(limits)
    ours = next(left, None)
    for point in points:
        if ours and ours["x"] == point["x"]:
            yield {**point, "low": ours["low"], "high": ours["high"]}
            ours = next(left, None)
        else:
            yield point


def _tick_words(axis: Any) -> Mapping[float, str]:
    """Return what stands at the ticks of an axis of names; empty for an axis of numbers."""
    if axis.tickvals is None or axis.ticktext is None:
        return {}
    words = dict(zip(axis.tickvals, (str(text).strip() for text in axis.ticktext), strict=True))
    return {} if all(map(_is_number, words.values())) else words


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", ""))
    except ValueError:
        return False
    return True


def _in_words(words: Mapping[float, str], value: Any) -> Any:
    """Return the name at the nearest tick: models of one group are drawn a little beside each other."""
    if not words or isinstance(value, str):
        return _plain(value)
    return words[min(words, key=lambda tick: abs(tick - value))]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _known(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in row.items()
        if value is not None and not (isinstance(value, float) and math.isnan(value))
    }
