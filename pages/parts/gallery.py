"""Studies in a list, and the films of the one that is chosen: the truth outlined, what the model saw on demand."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
import streamlit as st

from core.errors import DatasetError, ScaphoidError
from core.explain import METHODS, available_methods, explain
from core.figures import CELL_WORDS, film_image, percent
from core.measured import CalledStudy, MeasuredModel
from core.originals import DatasetFilms, OriginalFilm, find_simulation, remake_study
from core.reading import StudyReading
from core.results import evidence_sentence
from core.values import Checkpoint, Explanation, Scores
from pages.parts.desk import open_desk
from pages.parts.folders import open_folder
from pages.parts.frame import is_private
from pages.parts.readers import reader_of

READING_ROOM = "streamlit_app.py"
MOST_OPEN = 4


@dataclass(eq=False)
class Opened:
    """A study that is looked at, and what was made of it."""

    key: tuple
    films: tuple[OriginalFilm, ...]
    reading: StudyReading | None = None
    maps: dict[str, Explanation] = field(default_factory=dict)


@dataclass(eq=False)
class Shelf:
    """What one session has opened: a study for each list, and the folders that it has named for tables of scores."""

    studies: dict[str, Opened] = field(default_factory=dict)
    folders: WeakKeyDictionary[Scores, DatasetFilms] = field(default_factory=WeakKeyDictionary)

    def clear(self) -> None:
        """Forget everything."""
        self.studies.clear()
        self.folders.clear()


@st.cache_resource(scope="session", on_release=Shelf.clear, show_spinner=False)
def _open_shelf() -> Shelf:
    return Shelf()


def show_studies(
    model: MeasuredModel, card: Checkpoint | None, studies: Sequence[CalledStudy], count: int, key: str
) -> None:
    """List studies, most wrong first, and show the films of the one whose row is chosen."""
    rows = []
    for study in studies:
        row = {
            "study": study.study_id,
            "label": _truth(study, card),
            "called": CELL_WORDS[study.cell],
            "probability": study.probability,
            "wrong by": study.wrong_by,
        }
        rows.append(row | dict(study.columns))
    # A chosen row is kept as its place: another list must be another table, or another study would open by itself.
    listed = "\n".join([model.id, model.scores.split, *(study.study_id for study in studies)])
    event = st.dataframe(
        pd.DataFrame(rows), hide_index=True, height=min(60 + 35 * len(rows), 300), on_select="rerun",
        selection_mode="single-row", key=f"{key}-{zlib.crc32(listed.encode('utf-8', 'surrogatepass')):08x}",
    )  # fmt: skip
    more = f"The {len(studies):,} that are most wrong of {count:,}. " if count > len(studies) else ""
    chosen = [studies[place] for place in event.selection.rows if place < len(studies)]
    if not chosen:
        _open_shelf().studies.pop(key, None)
        if rows:
            st.caption(f"{more}Choose a row to see its films.")
        return
    _show_study(model, card, chosen[0], key)


def _truth(study: CalledStudy, card: Checkpoint | None) -> str:
    if card is None:
        return "positive" if study.label else "negative"
    return card.positive_label if study.label else "none"


def _show_study(model: MeasuredModel, card: Checkpoint | None, study: CalledStudy, key: str) -> None:
    try:
        with st.spinner("Fetching the films"):
            opened = _open(model, card, study, key)
    except ScaphoidError as error:
        st.info(f"The films of this study cannot be shown: {error}")
        return
    if opened is None:
        _ask_folder(model, card, key)
        return
    simulated = opened.films[0].simulated
    truth = _truth(study, card) if study.label or card is None else f"no {card.positive_label}"
    st.markdown(
        f"##### {'Simulated study' if simulated else 'Study'} {study.study_id}: {truth}, {CELL_WORDS[study.cell]}, "
        f"{percent(study.probability)}"
    )
    marked = any(film.mask is not None and film.mask.any() for film in opened.films)
    desk = open_desk()
    with st.container(horizontal=True, vertical_alignment="center"):
        outlined = st.toggle("Outline what is marked", key=f"outline-{key}", disabled=not marked)
        heated = st.toggle("Heat map", key=f"heat-{key}", disabled=card is None)
        if st.button("Open in the reading room", key=f"read-{key}", disabled=desk.holds_upload):
            _move(opened, card, study)
    if desk.holds_upload:
        st.caption("The reading room holds an uploaded study: close that one first.")
    if heated and card:
        _explain(opened, card)
    for column, (number, film) in zip(st.columns(max(3, len(opened.films))), enumerate(opened.films, 1), strict=False):
        heat = _evidence(opened, card, film) if heated and card else None
        picture = film_image(film.radiograph.pixels, heat, film.mask if outlined else None)
        with column:
            st.image(picture, width="stretch", output_format="PNG", caption=_caption(opened, number, film, heated))
    if heated and card and opened.maps:
        st.caption(f"{METHODS[_method(card)].title}, only where it is evidence for: {card.positive_label}.")


def _open(model: MeasuredModel, card: Checkpoint | None, study: CalledStudy, key: str) -> Opened | None:
    """Fetch the study's films, unless they are here; None where nobody knows where they lie.

    Raises
    ------
    ScaphoidError
        They were simulated by another version.
    """
    shelf, scores = _open_shelf(), model.scores
    place = (scores, card.card_sha256 if card else None, study.study_id)
    if key in shelf.studies and shelf.studies[key].key == place:
        return shelf.studies[key]
    shelf.studies.pop(key, None)
    simulation = find_simulation(card, scores.split) if card else None
    if scores in shelf.folders:
        try:
            films = shelf.folders[scores].read(study.study_id)
        except DatasetError as error:
            del shelf.folders[scores]
            st.error(f"The films are not where they were: {error}")
            return None
    elif simulation:
        films = remake_study(study.study_id, study.label, simulation)
    else:
        return None
    while len(shelf.studies) >= MOST_OPEN:
        shelf.studies.pop(next(iter(shelf.studies)))
    shelf.studies[key] = Opened(place, films)
    return shelf.studies[key]


def _ask_folder(model: MeasuredModel, card: Checkpoint | None, key: str) -> None:
    """Let the user say where the films lie, on the computer that this runs on."""
    if not is_private():
        st.info("The films of this study are not here, and folders can be named on the computer itself only.")
        return
    why = "Where the films of these studies lie is not known here."
    if card and card.data.get("simulated"):
        why = "The model's card does not tell how these films were simulated, so they cannot be made again."
    with st.form(f"folder-{key}"):
        folder = st.text_input(f"{why} Folder of their dataset:")
        if not st.form_submit_button("Look there") or not folder.strip():
            return
    try:
        with st.spinner("Looking through the folder"):
            films = DatasetFilms(open_folder(folder))
            films.check(model.scores)
    except ScaphoidError as error:
        st.error(str(error))
        return
    _open_shelf().folders[model.scores] = films
    st.rerun()


def _explain(opened: Opened, card: Checkpoint) -> None:
    """Read the films and make a heat map of each; once a study."""
    try:
        with st.spinner("Reading the films"):
            reader = reader_of(card.id)
            if opened.reading is None:
                opened.reading = reader.read([film.radiograph for film in opened.films])
            for film in opened.reading.films:
                if film.prediction and film.radiograph.id not in opened.maps:
                    opened.maps[film.radiograph.id] = explain(
                        reader.classifier, film.radiograph, method=_method(card), region=film.region
                    )
    except ScaphoidError as error:
        st.error(str(error))


def _method(card: Checkpoint) -> str:
    return "location" if card.location_head else available_methods(card)[0]


def _evidence(opened: Opened, card: Checkpoint, film: OriginalFilm) -> np.ndarray | None:
    """Return the heat over a film; None where there is none, or where it is no evidence."""
    made = opened.maps.get(film.radiograph.id)
    return made.heatmap if made and evidence_sentence(made, card)[1] else None


def _caption(opened: Opened, number: int, film: OriginalFilm, heated: bool) -> str:
    words = [f"Film {number}", *film.facts.values()]
    if heated and opened.reading:
        read = next(each for each in opened.reading.films if each.radiograph.id == film.radiograph.id)
        words.append(percent(read.prediction.probability) if read.prediction else "not fit to be read")
    return " · ".join(words)


def _move(opened: Opened, card: Checkpoint | None, study: CalledStudy) -> None:
    """Lay the study on the desk of the reading room, to be read by the same model where it is one of ours."""
    title = f"Simulated study {study.study_id}" if opened.films[0].simulated else "Study from the table of scores"
    open_desk().lay([film.radiograph for film in opened.films], title)
    if card:
        st.session_state["checkpoint"] = card.id
    st.switch_page(READING_ROOM)
