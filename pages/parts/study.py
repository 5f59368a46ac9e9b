"""A study on the desk: the answer first, then the films, then what a reader may want to know or change."""

from __future__ import annotations

import html
import json
from functools import partial

import streamlit as st

from core.checkpoints import CHECKPOINTS, CheckpointEntry, default_id, list_checkpoints
from core.errors import ScaphoidError
from core.explain import METHODS, available_methods
from core.figures import (
    NOT_SEEN,
    SUSPECTED,
    UNCERTAIN,
    ProbabilityRow,
    overlay_image,
    percent,
    png_bytes,
    probability_figure,
)
from core.reading import Reader, StudyReading, mean_probability
from core.results import cases_sentence, evidence_sentence, study_result
from core.values import Explanation, Radiograph, WristRegion
from pages.parts.desk import Desk
from pages.parts.readers import reader_of
from pages.parts.viewer import ViewerFilm, ViewerOverlay, show_viewer

_TONES = {"suspected": SUSPECTED, "uncertain": UNCERTAIN, "not seen": NOT_SEEN}
_VIEW_WORDS = {"LATERAL": "lateral", "OBLIQUE": "oblique"}


def show_study(desk: Desk) -> None:
    """Show the study on the desk."""
    for key in ("method", "target"):  # A choice outlives the control, so that the map can be switched off and on.
        if key in st.session_state:
            st.session_state[key] = st.session_state[key]
    for problem in desk.problems:
        st.error(problem)
    entries = list_checkpoints(CHECKPOINTS)
    answer_place = st.container()
    viewing, asking = st.columns([0.68, 0.32], gap="medium")
    with asking:
        share_place, heat_place = st.container(), st.container()
        readers = _choose_readers(entries)
    if not readers:
        none_chosen = st.session_state.get("checkpoints") == []
        unusable = "No checkpoint can be used, so the films cannot be read."
        answer_place.error("Choose a checkpoint to read with." if none_chosen else unusable)
        with viewing:  # The films stay, and with them the zoom, while another checkpoint is chosen.
            films = [ViewerFilm(film, film_label(desk, film)) for film in desk.films]
            show_viewer(desk.study, films, desk.packed_film, None, lambda: None)
        with asking:
            _offer_closing(desk)
        return
    with answer_place, st.spinner("Reading the films"):
        readings = [desk.reading(reader) for reader in readers]
    with answer_place:
        _show_answer(desk, readings)
    with share_place:
        _show_probabilities(desk, readings)
    with heat_place:
        overlay = _choose_heat(desk, readers[0])
    with asking:
        _offer_downloads(desk, readings, overlay)
        _offer_closing(desk)
    with viewing:
        _show_films(desk, readings[0], overlay)
        _show_notes(desk, readings[0])


def _offer_closing(desk: Desk) -> None:
    st.button("Close this study", on_click=desk.clear, width="stretch", key="close")


def film_label(desk: Desk, film: Radiograph) -> str:
    """Name a film by its place and view; never by its file."""
    number = 1 + next(index for index, other in enumerate(desk.films) if other.id == film.id)
    return f"Film {number}" + (f" · {_VIEW_WORDS.get(film.view, film.view)}" if film.view else "")


def _choose_readers(entries: list[CheckpointEntry]) -> list[Reader]:
    usable = {
        entry.id: entry.checkpoint for entry in entries if entry.checkpoint and entry.checkpoint.task == "fracture"
    }
    try:
        default = default_id(CHECKPOINTS)
    except ScaphoidError as error:
        default = None
        st.warning(str(error))
    chosen = list(usable)[:1] if default not in usable else [default]
    if len(usable) > 1:
        chosen = st.multiselect(
            "Read with",
            list(usable),
            default=chosen,
            format_func=lambda key: usable[key].title,
            key="checkpoints",
            help="Several are shown side by side with their mean; the heat map is the first one's.",
        )
    for entry in entries:
        if entry.reason:
            st.warning(f"Checkpoint {entry.id} is not used: {entry.reason}")
    readers = []
    for key in chosen:
        try:
            readers.append(reader_of(key))
        except ScaphoidError as error:
            st.error(f"Checkpoint {key} is not used: {error}")
    return readers


# ---- the answer ------------------------------------------------------------------------------------------------------
def _show_answer(desk: Desk, readings: list[StudyReading]) -> None:
    first = readings[0]
    if first.decision is None:
        reasons = " ".join(dict.fromkeys(reason for film in first.films for reason in film.quality.reasons))
        st.html(
            f'<section class="answer" style="--tone:#a3adba" aria-live="polite"><h2>Not read</h2>'
            f"<p>{html.escape(reasons)}</p></section>"
        )
        return
    words = sorted({reading.decision.label for reading in readings if reading.decision})
    agreed = len(words) == 1
    probability = mean_probability(readings)
    tone = _TONES[first.decision.label] if agreed else UNCERTAIN
    title = first.decision.text if agreed else "Uncertain: the models disagree"
    alone = f"{first.checkpoint.title} alone: " if len(readings) > 1 else ""
    share = percent(probability) + (f" mean of {len(readings)}" if len(readings) > 1 else "")
    st.html(
        f'<section class="answer" style="--tone:{tone}" aria-live="polite"><h2>{html.escape(title)}</h2>'
        f'<span class="share">{share}</span>'
        f"<p>{html.escape(alone + cases_sentence(first))}</p>"
        f'<p class="small">{html.escape(_how(desk, readings))}</p></section>'
    )


def _how(desk: Desk, readings: list[StudyReading]) -> str:
    first = readings[0]
    read = sum(film.prediction is not None for film in first.films)
    driver = film_label(desk, first.driver.radiograph)
    names = ", ".join(reading.checkpoint.title for reading in readings)
    seconds = sum(reading.seconds for reading in readings)
    by = f", driven by {driver}" if read > 1 else ""
    films = "1 film" if len(first.films) == 1 else f"{read} of {len(first.films)} films"
    return f"{desk.title}. {films} read{by}, in {seconds:.2f} s, by {names}."


def _show_probabilities(desk: Desk, readings: list[StudyReading]) -> None:
    first = readings[0]
    rows = []
    if len(readings) > 1:
        rows += [ProbabilityRow(f"Mean of {len(readings)}", mean_probability(readings), main=True)]
        rows += [
            ProbabilityRow(reading.checkpoint.title, reading.probability)
            for reading in readings
            if reading.probability is not None
        ]
    elif first.probability is not None:
        rows += [ProbabilityRow("Study (mean)", first.probability, main=True)]
    rows += [
        ProbabilityRow(film_label(desk, film.radiograph), film.prediction.probability)
        for film in first.films
        if film.prediction
    ]
    if rows:
        st.markdown(f"**Probability of {_article(first.checkpoint.positive_label)}**")
        st.plotly_chart(
            probability_figure(rows, first.checkpoint), config={"displayModeBar": False}, key="probabilities"
        )
        st.caption("Green: none seen. Yellow: uncertain. Red: suspected. How the limits were chosen: About this model.")


def _article(label: str) -> str:
    return f"an {label}" if label == "abnormality" else f"a {label}" if label == "fracture" else label


# ---- the heat map ----------------------------------------------------------------------------------------------------
def _choose_heat(desk: Desk, reader: Reader) -> Explanation | None:
    """Let the reader ask for a heat map of the film shown; return it, or None."""
    selected = _selected_film(desk)
    film = next(film for film in desk.reading(reader).films if film.radiograph.id == selected.id)
    if not st.toggle("Heat map", key="heat", disabled=film.prediction is None) or film.prediction is None:
        return None
    keys = available_methods(reader.checkpoint)
    if st.session_state.get("method") not in keys:
        st.session_state.pop("method", None)
    method = st.selectbox("Method", keys, format_func=lambda key: METHODS[key].title, key="method")
    st.caption(METHODS[method].description)
    target = "for"
    if METHODS[method].directed and method != "location":
        label = reader.checkpoint.positive_label
        words = {"for": f"for {label}", "against": f"against {label}"}
        target = st.radio("Evidence", tuple(words), format_func=words.get, horizontal=True, key="target")
    try:
        return _explained(desk, reader, selected, method, target)
    except ScaphoidError as error:
        st.error(str(error))
        return None


def _explained(desk: Desk, reader: Reader, film: Radiograph, method: str, target: str) -> Explanation:
    bar = st.progress(0.0, text=f"{METHODS[method].title} is being made")
    explanation = desk.explanation(
        reader, film, method, target, lambda done, total: bar.progress(min(1.0, done / max(total, 1)))
    )
    bar.empty()
    sentence, positive = evidence_sentence(explanation, reader.checkpoint)
    (st.info if positive else st.warning)(sentence)
    return explanation


def _selected_film(desk: Desk) -> Radiograph:
    state = st.session_state.get("viewer") or {}
    return next((film for film in desk.films if film.id == state.get("selected")), desk.films[0])


def _show_films(desk: Desk, reading: StudyReading, explanation: Explanation | None) -> None:
    films = [ViewerFilm(film.radiograph, film_label(desk, film.radiograph), film.region) for film in reading.films]
    overlay = None
    if explanation:
        _, positive = evidence_sentence(explanation, reading.checkpoint)
        method = METHODS[explanation.method]
        side = f", {explanation.target} {reading.checkpoint.positive_label}" if method.directed else ""
        title = f"{method.title}{side}"
        overlay = ViewerOverlay(explanation, title if positive else f"{title}: No positive evidence", positive)
    show_viewer(desk.study, films, desk.packed_film, overlay, lambda: _take_region(desk))


def _take_region(desk: Desk) -> None:
    marked = (st.session_state.get("viewer") or {}).get("region")
    if marked and any(film.id == marked["film"] for film in desk.films):
        numbers = {name: float(marked[name]) for name in ("x", "y", "side", "angle")}
        desk.mark(marked["film"], WristRegion(**numbers, set_by_reader=True))


def _show_notes(desk: Desk, reading: StudyReading) -> None:
    for film in reading.films:
        notes = (*film.quality.reasons, *film.radiograph.warnings)
        if notes:
            st.warning(f"{film_label(desk, film.radiograph)}: {' '.join(notes)}")


# ---- downloads -------------------------------------------------------------------------------------------------------
# The buttons hold the desk and keys, never films: what the desk has forgotten cannot be held by a button.
def _offer_downloads(desk: Desk, readings: list[StudyReading], explanation: Explanation | None) -> None:
    st.download_button(
        "Download the result (JSON)",
        partial(_result_json, desk, [reading.checkpoint.id for reading in readings]),
        file_name="scaphoid-result.json",
        mime="application/json",
        width="stretch",
        key="download-result",
        on_click="ignore",
    )
    # A map that is not shown as evidence is not handed out either: scaled to its own maximum it would look like some.
    if explanation and evidence_sentence(explanation, readings[0].checkpoint)[1]:
        st.download_button(
            "Download film with heat map (PNG)",
            partial(_overlay_png, desk, desk.explanation_key(explanation)),
            file_name=f"scaphoid-{explanation.method}.png",
            mime="image/png",
            width="stretch",
            key="download-overlay",
            on_click="ignore",
        )


def _result_json(desk: Desk, checkpoint_ids: list[str]) -> str:
    labels = [film_label(desk, film) for film in desk.films]
    readings = [desk.readings[key] for key in checkpoint_ids]
    return json.dumps(study_result(labels, readings), indent=2, allow_nan=False)


def _overlay_png(desk: Desk, key: tuple) -> bytes:
    explanation = desk.explanations[key]
    film = next(film for film in desk.films if film.id == explanation.radiograph_id)
    return png_bytes(overlay_image(film.pixels, explanation.heatmap))
