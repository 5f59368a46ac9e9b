"""Studies in a list, and the films of the one that is chosen: the truth outlined, what the model saw on demand."""

from __future__ import annotations

import base64
import html
import weakref
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
import streamlit as st

from core.errors import DatasetError, ScaphoidError
from core.explain import METHODS, available_methods, explain
from core.figures import CELL_WORDS, film_image, percent, thumbnail_bytes
from core.measured import CalledStudy, MeasuredModel
from core.originals import DatasetFilms, OriginalFilm, find_simulation, remake_study
from core.reading import StudyReading
from core.results import evidence_sentence
from core.values import Checkpoint, Explanation, Scores
from pages.parts.desk import open_desk
from pages.parts.folders import open_folder
from pages.parts.frame import is_private
from pages.parts.readers import reader_of
from pages.parts.sessions import Belongings, session_id
from pages.parts.trusting import tell_record

READING_ROOM = "streamlit_app.py"
MOST_OPEN = 4
FILM_TALL, FILM_WIDE = 460, 620
"""Pixels of the screen that a film is given at most."""
SMALL_AT_ONCE, MOST_SMALL = 6, 60
"""Small pictures that stand side by side, and how many of them a session keeps."""


@dataclass(eq=False)
class Opened:
    """A study that is looked at, and what was made of it."""

    key: tuple
    films: tuple[OriginalFilm, ...]
    reading: StudyReading | None = None
    maps: dict[str, Explanation] = field(default_factory=dict)


@dataclass(eq=False)
class Shelf(Belongings):
    """What one session has opened, and nobody else sees.

    Attributes
    ----------
    studies : dict of str to Opened
        A study for each list.
    folders : WeakKeyDictionary
        Tables of scores -> the films in the folder that was named for them.
    small : WeakKeyDictionary
        Tables of scores -> study -> a small picture of its first film, as HTML; the oldest first.
    """

    studies: dict[str, Opened] = field(default_factory=dict)
    folders: WeakKeyDictionary[Scores, DatasetFilms] = field(default_factory=WeakKeyDictionary)
    small: WeakKeyDictionary[Scores, dict[str, str]] = field(default_factory=WeakKeyDictionary)

    def clear(self) -> None:
        """Forget everything."""
        super().clear()
        for kept in (self.studies, self.folders, self.small):
            kept.clear()


@st.cache_resource(scope="session", on_release=Belongings.end, show_spinner=False)
def _open_shelf() -> Shelf:
    return Shelf(session_id())


def show_studies(
    model: MeasuredModel, card: Checkpoint | None, studies: Sequence[CalledStudy], count: int, key: str
) -> None:
    """List studies, most wrong first, and show the films of the one whose row is chosen."""
    rows = []
    for study in studies:
        row = {
            model.scores.unit: study.study_id,
            "label": _truth(study, card),
            "called": CELL_WORDS[study.cell],
            "probability": study.probability,
            "wrong by": study.wrong_by,
        }
        # What a table from elsewhere calls the same does not stand for what was measured here.
        rows.append(row | {name: value for name, value in study.columns.items() if name not in row})
    # A chosen row is kept as its place: another list must be another table, or another study would open by itself.
    listed = "\n".join([model.id, model.scores.split, *(study.study_id for study in studies)])
    table = f"{key}-{zlib.crc32(listed.encode('utf-8', 'surrogatepass')):08x}"
    event = st.dataframe(
        pd.DataFrame(rows), hide_index=True, height=min(60 + 35 * len(rows), 300), on_select="rerun",
        selection_mode="single-row", key=table,
    )  # fmt: skip
    if not rows:
        return
    chosen = next((place for place in event.selection.rows if place < len(studies)), None)
    small = _show_steps(model, card, len(studies), count, chosen, key, table)
    if small:
        _show_small(model, card, studies, chosen, key, table)
    if chosen is None:
        _open_shelf().studies.pop(key, None)
    else:
        _show_study(model, card, studies[chosen], key)


def _show_steps(
    model: MeasuredModel, card: Checkpoint | None, listed: int, count: int, chosen: int | None, key: str, table: str
) -> bool:
    """Show the way to the next study and back, so that a list is gone through without it; tell if small ones are asked.

    Parameters
    ----------
    model : MeasuredModel
    card : Checkpoint or None
    listed, count : int
        Studies in the list, and those that there are.
    chosen : int or None
        Which row is.
    key, table : str
        Of the list, and of its table.
    """
    with st.container(horizontal=True, vertical_alignment="center"):
        before, after = (-1, 0) if chosen is None else (chosen - 1, chosen + 1)
        st.button("← Previous", key=f"previous-{key}", disabled=before < 0, on_click=_choose_row, args=(table, before))
        st.button(
            "Next →" if chosen is not None else "Look through them", key=f"next-{key}", disabled=after >= listed,
            on_click=_choose_row, args=(table, after),
        )  # fmt: skip
        reachable = model.scores in _open_shelf().folders or bool(card and find_simulation(card, model.scores.split))
        small = reachable and st.toggle("Small pictures", key=f"small-{key}")
        here = f"{model.scores.unit.capitalize()} {(chosen or 0) + 1:,} of {listed:,}."
        here = "Choose a row to see its films." if chosen is None else here
        st.caption(here + (f" These are the {listed:,} most wrong of {count:,}." if count > listed else ""))
    return small


def _choose_row(table: str, place: int) -> None:
    st.session_state[table] = {"selection": {"rows": [place], "columns": [], "cells": []}}


def _show_small(
    model: MeasuredModel, card: Checkpoint | None, studies: Sequence[CalledStudy], chosen: int | None, key: str,
    table: str,
) -> None:  # fmt: skip
    """Show small pictures of the stretch of the list in which the chosen study lies, each a way to open it."""
    first = (chosen or 0) // SMALL_AT_ONCE * SMALL_AT_ONCE
    with st.spinner("Fetching the films"):
        stretch = studies[first : first + SMALL_AT_ONCE]
        pictures = [_small(model, card, study) for study in stretch]
    places = range(first, first + len(stretch))
    for column, place, picture, study in zip(st.columns(SMALL_AT_ONCE), places, pictures, stretch, strict=False):
        with column:
            st.html(picture)
            st.button(
                f"{place + 1}: {CELL_WORDS[study.cell]}, {percent(study.probability)}", key=f"open-{key}-{place}",
                type="primary" if place == chosen else "secondary", on_click=_choose_row, args=(table, place),
                width="stretch",
            )  # fmt: skip


def _small(model: MeasuredModel, card: Checkpoint | None, study: CalledStudy) -> str:
    """Return a small picture of a study's first film as HTML, or why there is none."""
    small, place = _open_shelf().small.setdefault(model.scores, {}), study.study_id
    if place not in small:
        try:
            film = (_fetch(model, card, study) or (None,))[0]
            why = "Not here."
        except ScaphoidError as error:
            film, why = None, str(error)
        while len(small) >= MOST_SMALL:
            small.pop(next(iter(small)))
        small[place] = _picture(film.radiograph.pixels) if film else f"<small>{html.escape(why)}</small>"
    return small[place]


def _picture(pixels: np.ndarray) -> str:
    data = base64.b64encode(thumbnail_bytes(pixels)).decode()
    return (
        f'<img alt="first film of the study" src="data:image/png;base64,{data}" '
        'style="display:block;margin:auto;height:9rem;max-width:100%;object-fit:contain">'
    )


def _truth(study: CalledStudy, card: Checkpoint | None) -> str:
    if card is None:
        return "positive" if study.label else "negative"
    return card.finding if study.label else "none"


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
    unit = model.scores.unit
    what = (f"simulated {unit}" if opened.films[0].simulated else unit).capitalize()
    truth = _truth(study, card) if study.label or card is None else f"no {card.finding}"
    st.markdown(f"##### {what} {study.study_id}: {truth}, {CELL_WORDS[study.cell]}, {percent(study.probability)}")
    if unit == "film" and len(opened.films) > 1:
        st.caption("All films of its study: which of them this one is, its name does not tell.")
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
    with st.container(horizontal=True):
        for number, film in enumerate(opened.films, 1):
            heat = _evidence(opened, card, film) if heated and card else None
            picture = film_image(film.radiograph.pixels, heat, film.mask if outlined else None)
            # As tall as a screen has room for beside the way to the next study.
            width = round(min(FILM_TALL * film.radiograph.width / film.radiograph.height, FILM_WIDE))
            st.image(picture, width=width, output_format="PNG", caption=_caption(opened, number, film, heated))
    if heated and card and opened.maps:
        st.caption(f"{METHODS[_method(card)].title}, only where it is evidence for: {card.finding}.")
        tell_record(card, _method(card))


def _open(model: MeasuredModel, card: Checkpoint | None, study: CalledStudy, key: str) -> Opened | None:
    """Fetch the study's films, unless they are here; None where nobody knows where they lie.

    Raises
    ------
    ScaphoidError
        They were simulated by another version.
    """
    shelf, scores = _open_shelf(), model.scores
    # A study that lies open must not hold a table that is taken away: scores name patients.
    place = (weakref.ref(scores), card.card_sha256 if card else None, study.study_id)
    if key in shelf.studies and shelf.studies[key].key == place:
        return shelf.studies[key]
    shelf.studies.pop(key, None)
    try:
        films = _fetch(model, card, study)
    except DatasetError as error:
        if scores not in shelf.folders:
            raise
        del shelf.folders[scores]
        st.error(f"The films are not where they were: {error}")
        return None
    if films is None:
        return None
    while len(shelf.studies) >= MOST_OPEN:
        shelf.studies.pop(next(iter(shelf.studies)))
    shelf.studies[key] = Opened(place, films)
    return shelf.studies[key]


def _fetch(model: MeasuredModel, card: Checkpoint | None, study: CalledStudy) -> tuple[OriginalFilm, ...] | None:
    """Read a study's films from the folder that was named, or simulate them again; None where there is neither.

    Raises
    ------
    ScaphoidError
        They are not in the folder, or were simulated by another version.
    """
    folders = _open_shelf().folders
    if model.scores in folders:
        return folders[model.scores].read(study.study_id)
    simulation = find_simulation(card, model.scores.split) if card else None
    return remake_study(study.study_id, study.label, simulation) if simulation else None


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
        open_desk().checkpoint = st.session_state["checkpoint"] = card.id
    st.switch_page(READING_ROOM)
