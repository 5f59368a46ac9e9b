"""What a reader takes for the break, outlined on the film, and how each heat map lies to it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from core.datasets.boxes import Box, draw_boxes, draw_polygons
from core.explain import METHODS
from core.explain.localisation import THRESHOLDS, localise
from core.figures import film_image, outlining_figure
from core.values import Explanation, Radiograph, WristRegion
from pages.parts.curves import show_figure

HALF = THRESHOLDS.index(0.5)


def offer_outline(film: Radiograph, region: WristRegion | None, maps: Sequence[Explanation]) -> None:
    """Let the reader outline the break, and score the maps against it as they are against a dataset's outlines."""
    if not st.toggle("Outline the break and score these maps", key="outline"):
        return
    drawing, scores = st.columns([0.55, 0.45], gap="medium")
    with drawing:
        st.caption("Draw around it; Shift adds another part, a double click takes all away.")
        drawn = show_figure(
            outlining_figure(film_image(film.pixels), region),
            f"outline-{film.id}",
            saved=False,
            on_select="rerun",
            selection_mode=("lasso", "box"),
        )
    outline = drawn_mask(drawn.selection, film.pixels.shape)
    with scores:
        if not outline.any():
            st.info("Nothing is outlined yet.")
            return
        st.dataframe(pd.DataFrame([_row(made, outline, film) for made in maps]), hide_index=True, height="content")
        st.caption(
            "One film and one reader's outline: a look, not a measurement. The overlap is that of the outline with the "
            "map cut at half its maximum."
        )


def drawn_mask(selection: Mapping[str, Any], shape: tuple[int, int]) -> np.ndarray:
    """Return what was drawn as a mask of the film: bool, of its shape; empty where nothing was on the film.

    Boxes and polygons are drawn as those of a dataset are.
    """
    mask = np.zeros(shape, np.uint8)
    polygons = [np.column_stack([each["x"], each["y"]]) for each in selection.get("lasso", ())]
    draw_polygons(mask, [polygon.astype(np.float64) for polygon in polygons])
    height, width = shape
    for box in selection.get("box", ()):
        (left, right), (top, bottom) = np.clip(sorted(box["x"]), 0, width), np.clip(sorted(box["y"]), 0, height)
        if right > left and bottom > top:
            draw_boxes(mask, [Box(left, top, right - left, bottom - top, "fracture")])
    return mask > 0


def _row(made: Explanation, outline: np.ndarray, film: Radiograph) -> dict[str, str]:
    found = localise(made.heatmap, outline, film.spacing_mm)
    return {
        "method": METHODS[made.method].title,
        "highest point in it": "yes" if found.hit else "no",
        f"distance ({found.unit})": "no heat" if math.isnan(found.distance) else f"{found.distance:.1f}",
        "share of heat in it": f"{found.energy:.2f}",
        "overlap": f"{found.overlaps[HALF]:.2f}",
    }
