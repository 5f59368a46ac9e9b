"""The film viewer: a Streamlit component that zooms, windows and inverts in the browser, without the server."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import streamlit as st

from core.figures import heat_colours, png_bytes
from core.values import Explanation, Radiograph, WristRegion

_PARTS = Path(__file__).parent
_HEAT_SIDE = 1024  # Heat is smooth; more pixels than this only cost time on the way to the browser.


@dataclass(frozen=True, eq=False)
class ViewerFilm:
    """A film as the viewer shows it: its words, and the square the model reads."""

    radiograph: Radiograph
    label: str
    region: WristRegion | None = None


@dataclass(frozen=True, eq=False)
class ViewerOverlay:
    """Heat to lay over the film; `heatmap` None where there is no evidence to show."""

    explanation: Explanation
    label: str
    shown: bool


# Registered by every run of the script: registration by name is idempotent and survives a cleared module cache.
def _component(name: str, html: str) -> Callable[..., Any]:
    script = (_PARTS / "viewer.js").read_text(encoding="utf-8")
    style = (_PARTS / "viewer.css").read_text(encoding="utf-8")
    return st.components.v2.component(name, html=html, css=style, js=script, isolate_styles=False)


def film_bytes(film: Radiograph) -> bytes:
    """Pack a film for the browser: id, width, height, highest value, then the pixels, 8 or 16 bit, little-endian.

    A film of 8 bits stays one of 8 bits; a deeper one travels with 16, so that a narrow window shows no steps.
    """
    eight = np.rint(film.pixels * 255)
    top = 255 if np.abs(film.pixels * 255 - eight).max() < 1e-3 else 65535
    values = np.rint(film.pixels * top).astype("<u1" if top == 255 else "<u2")
    return film.id.encode() + np.array([film.width, film.height, top], "<u4").tobytes() + values.tobytes()


def _heat_base64(explanation: Explanation) -> str:
    heat = explanation.heatmap
    scale = min(1.0, _HEAT_SIDE / max(heat.shape))
    size = (max(1, round(heat.shape[1] * scale)), max(1, round(heat.shape[0] * scale)))
    small = cv2.resize(heat, size, interpolation=cv2.INTER_AREA)
    return base64.b64encode(png_bytes(np.rint(255 * np.clip(small, 0, 1)).astype(np.uint8))).decode()


def _film_entry(film: ViewerFilm) -> dict[str, Any]:
    region, radiograph = film.region, film.radiograph
    square = {"x": region.x, "y": region.y, "side": region.side, "angle": region.angle} if region else None
    spacing = radiograph.spacing_mm[1] if radiograph.spacing_mm else None
    return {
        "id": radiograph.id,
        "label": film.label,
        "side": radiograph.laterality,
        "spacing_mm": spacing,
        "spacing_words": "at the detector" if radiograph.at_detector else "by the file's own scale",
        "region": square,
    }


def show_viewer(
    study: str,
    films: Sequence[ViewerFilm],
    packed: Callable[[Radiograph], bytes],
    overlay: ViewerOverlay | None,
    on_region: Callable[[], None],
) -> Any:
    """Show the films of a study; returns the component's result (`selected`: a radiograph id, `region`: a square).

    The films travel once, each by a source of its own whose content never changes, so that switching a heat map
    sends the heat map alone.
    """
    data = {
        "study": study,
        "films": [_film_entry(film) for film in films],
        "markable": all(film.region is not None for film in films),
        "colours": base64.b64encode(heat_colours().tobytes()).decode(),
        "overlay": overlay
        and {
            "film": overlay.explanation.radiograph_id,
            "label": overlay.label,
            "heat": _heat_base64(overlay.explanation) if overlay.shown else None,
        },
    }
    viewer = _component("film_viewer", (_PARTS / "viewer.html").read_text(encoding="utf-8"))
    result = viewer(
        key="viewer",
        data=data,
        default={"selected": films[0].radiograph.id},
        on_selected_change=lambda: None,
        on_region_change=on_region,
    )
    source = _component("film_source", "<span hidden></span>")
    for index, film in enumerate(films):
        source(key=f"film-source-{index}", data=packed(film.radiograph))
    return result
