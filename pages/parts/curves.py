"""Learning curves on a page: one line for each model, in the same colour everywhere."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from core.checkpoints import CheckpointEntry
from core.figures import LEARNING_PANELS, LearningCurve, learning_figure, model_colours, without_points
from core.train.jobs import RunStatus


def colours_of_all(
    entries: Iterable[CheckpointEntry], runs: Iterable[RunStatus], others: Iterable[str] = ()
) -> dict[str, str]:
    """Return the colour of every model there is, published, in training, or another's."""
    return model_colours([*(entry.id for entry in entries), *(run.id for run in runs), *others])


def show_figure(figure: Any, key: str, **options: Any) -> Any:
    """Show a figure whose own button saves it as a picture; return what was selected in it."""
    config = {"displaylogo": False, "toImageButtonOptions": {"format": "svg", "filename": f"scaphoid-{key}"}}
    return st.plotly_chart(figure, config=config, key=f"figure-{key}", width="stretch", **options)


def show_curves(curves: Sequence[LearningCurve], key: str, panels: Sequence[str] = tuple(LEARNING_PANELS)) -> None:
    """Show histories side by side, one panel each, and say what they do not hold."""
    for column, panel in zip(st.columns(len(panels)), panels, strict=True):
        with column:
            st.plotly_chart(
                learning_figure(curves, panel), config={"displayModeBar": False}, key=f"{key}-{panel}", width="stretch"
            )
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
