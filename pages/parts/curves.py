"""Figures on a page, each with its downloads, and learning curves: each model in the same colour everywhere."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from core.checkpoints import CheckpointEntry
from core.figures import (
    LEARNING_PANELS,
    LearningCurve,
    figure_csv,
    learning_figure,
    model_colours,
    told_when_saved,
    without_points,
)
from core.train.jobs import RunStatus

_SAVERS = '<button data-format="png">PNG</button><button data-format="svg">SVG</button>'
_SAVERS_STYLE = """
button[data-format] { border: 0; background: none; color: #a3adba; font: inherit; font-size: .85rem; cursor: pointer;
  padding: .15rem .45rem; margin: 0; }
[class*="st-key-csv-"] button, [class*="st-key-csv-"] button p { color: #a3adba; font-size: .85rem; }
[class*="st-key-csv-"] button { padding: .15rem .45rem; min-height: 0; }
button[data-format]:is(:hover, :focus-visible), [class*="st-key-csv-"] button:is(:hover, :focus-visible) p {
  color: #5cb8ff; text-decoration: underline; }
"""
_SCRIPT = Path(__file__).with_name("saving.js").read_text(encoding="utf-8")


def colours_of_all(
    entries: Iterable[CheckpointEntry], runs: Iterable[RunStatus], others: Iterable[str] = ()
) -> dict[str, str]:
    """Return the colour of every model there is, published, in training, or another's."""
    return model_colours([*(entry.id for entry in entries), *(run.id for run in runs), *others])


def show_figure(figure: Any, key: str, saved: bool = True, of: str = "", **options: Any) -> Any:
    """Show a figure; return what was selected in it. The only place that shows one.

    Below it are its downloads, as a picture of points or of lines and as a table of its numbers, unless `saved` is
    False: what shows a patient's film is not handed out. `of` says in them which models and studies it is of. The table
    is made when somebody asks for it, and pictures by the browser, so that a figure that moves with a slider costs no
    more.
    """
    if of:
        told_when_saved(figure, of)
    name = f"scaphoid-{re.sub(r'[^0-9A-Za-z]+', '-', key).strip('-')}"
    config = {"displaylogo": False, "toImageButtonOptions": {"format": "png", "scale": 2, "filename": name}}
    with st.container(key=f"saved-{key}", gap=None):
        event = st.plotly_chart(figure, config=config, key=f"figure-{key}", width="stretch", **options)
        if saved:
            _offer_saving(figure, key, name)
    return event


def _offer_saving(figure: Any, key: str, name: str) -> None:
    savers = st.components.v2.component(
        "figure_savers", html=_SAVERS, css=_SAVERS_STYLE, js=_SCRIPT, isolate_styles=False
    )
    with st.container(horizontal=True, horizontal_alignment="right", vertical_alignment="center", gap=None):
        st.html('<span style="color:#a3adba;font-size:.85rem">Save as</span>', width="content")
        savers(key=f"savers-{key}", data=name, width="content")
        st.download_button(
            "CSV",
            partial(figure_csv, figure),
            file_name=f"{name}.csv",
            mime="text/csv",
            key=f"csv-{key}",
            on_click="ignore",
            type="tertiary",
        )


def show_curves(curves: Sequence[LearningCurve], key: str, panels: Sequence[str] = tuple(LEARNING_PANELS)) -> None:
    """Show histories side by side, one panel each, and say what they do not hold."""
    for column, panel in zip(st.columns(len(panels)), panels, strict=True):
        with column:
            with st.container(key=f"{key}-{panel}"):
                show_figure(learning_figure(curves, panel), f"{key}-{panel}")
            missing = without_points(curves, panel)
            if missing and len(missing) < len(curves):
                st.caption(f"Not recorded: {', '.join(missing)}.")


def show_legend(names: Mapping[str, str], colours: Mapping[str, str]) -> None:
    """Name the colours in use: id -> name, id -> colour."""
    marks = "".join(
        f'<span><i style="background:{colours[key]}"></i>{html.escape(name)}</span>' for key, name in names.items()
    )
    st.html(f'<p class="legend">{marks}</p>')


def show_numbers(rows: Sequence[Mapping[str, Any]], key: str) -> None:
    """Offer the numbers behind a figure; the table's own button saves them as CSV."""
    with st.expander("The numbers behind it"):
        st.dataframe(pd.DataFrame(rows), hide_index=True, height="content" if len(rows) < 12 else 300, key=f"{key}-n")
