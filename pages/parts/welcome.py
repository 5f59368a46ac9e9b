"""Before a study: one place to drop films, and simulated examples one click away."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import streamlit as st

from core.figures import png_bytes
from core.originals import SIMULATED
from core.phantoms import simulate_study
from core.radiographs import read_radiograph
from core.values import Radiograph
from pages.parts.desk import UPLOADED, Desk, read_files
from pages.parts.frame import is_private
from pages.parts.sessions import forget_uploads

_EXAMPLE_SIZE = 900
_THUMBNAIL_SIDE = 300


@dataclass(frozen=True)
class Example:
    """A simulated study of an adult, made on the spot from its seed."""

    title: str
    seed: int
    kind: str | None
    framing: str


EXAMPLES = (
    Example("displaced radius fracture", 15, "displaced", "wrist"),
    Example("scaphoid fracture", 25, "scaphoid", "wrist"),
    Example("no fracture", 33, None, "forearm"),
)


@st.cache_data(show_spinner=False)
def example_films(seed: int, kind: str | None, framing: str, size: int) -> tuple[Radiograph, ...]:
    """Simulate an example study; shared by all sessions, since it shows nobody."""
    films = []
    wishes = {"positive": kind is not None, "kind": kind, "framing": framing, "child": False}
    for film in simulate_study(seed, size=size, **wishes):
        read = read_radiograph(png_bytes(np.rint(255 * film.pixels).astype(np.uint8)))
        films.append(replace(read, view=film.view, laterality=film.laterality, source=SIMULATED))
    return tuple(films)


def show_welcome(desk: Desk) -> None:
    """Show the place to drop films and the examples."""
    for problem in desk.problems:
        st.error(problem)
    st.markdown("### A second opinion on a wrist radiograph")
    where = (
        "They stay on this computer."
        if is_private()
        else "They go to the computer that runs this dashboard and stay in its memory until you close the page."
    )
    files = st.file_uploader(
        f"Drop the films of one study of one wrist: DICOM, PNG, TIFF or JPEG. {where}",
        accept_multiple_files=True,
        key=f"films-{desk.number}",
    )
    if files:
        _take(desk, files)
    st.markdown("##### Or open a simulated study")
    for column, example in zip(st.columns(len(EXAMPLES)), EXAMPLES, strict=True):
        with column:
            st.image(_thumbnail(example), width="stretch")
            st.button(
                f"Simulated: {example.title}",
                key=f"example-{example.seed}",
                on_click=open_example,
                args=(desk, example),
                width="stretch",
            )


def _thumbnail(example: Example) -> np.ndarray:
    """Return the first film on black ground; all thumbnails have one size, so that the buttons stand in a row."""
    film = example_films(example.seed, example.kind, example.framing, _THUMBNAIL_SIDE)[0]
    ground = np.zeros((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE * 3 // 2), np.uint8)
    top, left = (ground.shape[0] - film.height) // 2, (ground.shape[1] - film.width) // 2
    ground[top : top + film.height, left : left + film.width] = np.rint(255 * film.pixels)
    return ground


def open_example(desk: Desk, example: Example) -> None:
    """Lay a simulated study on the desk."""
    films = example_films(example.seed, example.kind, example.framing, _EXAMPLE_SIZE)
    desk.lay(films, f"Simulated study: {example.title}")


def _take(desk: Desk, files: list) -> None:
    """Read the uploads, then let go of the uploaded bytes: the desk is the only place films are kept."""
    with st.spinner("Reading the films"):
        films, problems = read_files([file.getvalue() for file in files])
    desk.lay(films, UPLOADED, problems)
    forget_uploads(desk.session)
    st.rerun()
