"""A study on the desk: the answer first, then the films, then what a reader may want to know or change."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from functools import partial
from typing import Any

import streamlit as st

from core.checkpoints import CHECKPOINTS, default_id, list_checkpoints
from core.checkpoints.ensembles import find_ensemble
from core.checkpoints.profiles import PUBLISHED, apply_profile, profiles_of
from core.errors import RadiographError, ScaphoidError
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
from core.reading import ALL, EnsembleReader, Reader, StudyReading, of_both_wrists
from core.results import (
    BOTH_WRISTS,
    cases_sentence,
    evidence_sentence,
    map_sentence,
    measured_cards,
    member_results,
    model_names,
    reach_sentence,
    study_result,
    weak_sentence,
)
from core.values import Checkpoint, Explanation, Radiograph, WristRegion, with_article
from pages.parts.curves import show_figure
from pages.parts.desk import Desk
from pages.parts.readers import reader_of
from pages.parts.trusting import offer_check
from pages.parts.viewer import ViewerFilm, ViewerOverlay, show_viewer

_TONES = {"suspected": SUSPECTED, "uncertain": UNCERTAIN, "not seen": NOT_SEEN}
_VIEW_WORDS = {"LATERAL": "lateral", "OBLIQUE": "oblique"}
_SIDE_WORDS = {"L": "left", "R": "right"}


def show_study(desk: Desk) -> None:
    """Show the study on the desk."""
    for key in (
        "method",
        "target",
        "heat-model",
    ):  # A choice outlives the control, so that the map can be switched off and on.
        if key in st.session_state:
            st.session_state[key] = st.session_state[key]
    for problem in desk.problems:
        st.error(problem)
    answer_place = st.container()
    viewing, asking = st.columns([0.68, 0.32], gap="medium")
    with asking:
        share_place, heat_place = st.container(), st.container()
        reader = _choose_reader(desk)
        card = _choose_limits(desk, reader) if reader else None
    if reader is None:
        answer_place.error("No checkpoint can be used, so the films cannot be read.")
        with viewing:  # The films stay, and with them the zoom, while another checkpoint is chosen.
            films = [ViewerFilm(film, film_label(desk, film)) for film in desk.films]
            show_viewer(desk.study, films, desk.packed_film, None, lambda: None)
        with asking:
            _offer_closing(desk)
        return
    try:
        with answer_place, st.spinner("Reading the films"):
            reading = desk.reading(reader, card)
    except ScaphoidError as error:
        answer_place.error(str(error))
        with asking:
            _offer_closing(desk)
        return
    with answer_place:
        _show_answer(desk, reading)
    with share_place:
        _show_probabilities(desk, reading)
        _show_members(reading)
    with heat_place:
        explained, overlay = _choose_heat(desk, reader)
    with asking:
        _offer_downloads(desk, reading, explained, overlay)
        _offer_closing(desk)
    with viewing:
        _show_films(desk, reading, explained, overlay)
        _show_notes(desk, reading)


def _offer_closing(desk: Desk) -> None:
    if desk.regions:
        st.button("Find the wrist again", on_click=desk.find_again, width="stretch", key="find-again")
    st.button("Close this study", on_click=desk.clear, width="stretch", key="close")


def film_label(desk: Desk, film: Radiograph) -> str:
    """Name a film by its place and view; never by its file."""
    number = 1 + desk.films.index(desk.film(film.id))
    side = _SIDE_WORDS.get(film.laterality) if of_both_wrists(desk.films) else None
    return " · ".join(filter(None, (f"Film {number}", _VIEW_WORDS.get(film.view, film.view), side)))


def _choose_reader(desk: Desk) -> Reader | EnsembleReader | None:
    """Let the reader choose a model where there are several, or the mean of all; None where none can be used."""
    entries = list_checkpoints(CHECKPOINTS)
    usable = {
        entry.id: entry.checkpoint for entry in entries if entry.checkpoint and entry.checkpoint.task == "fracture"
    }
    for entry in entries:
        if entry.reason:
            st.warning(f"Checkpoint {entry.id} is not used: {entry.reason}")
    try:
        default = default_id(CHECKPOINTS)
    except ScaphoidError as error:
        default = None
        st.warning(str(error))
    chosen = default if default in usable else next(iter(usable), None)
    if len(usable) > 1:
        chosen = _choose_among(desk, usable, default)
    try:
        with st.spinner("Opening the model"):
            return reader_of(chosen) if chosen else None
    except ScaphoidError as error:
        st.error(f"Checkpoint {chosen} is not used: {error}")
        return None


def _choose_limits(desk: Desk, reader: Reader | EnsembleReader) -> Checkpoint:
    """Let the reader choose between the published limits and those saved under a name, where there are any.

    The desk keeps the choice: what a control holds is gone when another page was looked at.
    """
    card = reader.checkpoint
    try:
        saved = profiles_of(card, CHECKPOINTS)
    except ScaphoidError as error:
        st.warning(str(error))
        return card
    if desk.limits and desk.limits not in saved:
        st.warning(f"The limits {desk.limits} are not there for this model; it is read by its published ones.")
    if not saved:
        return card
    if st.session_state.get("limits", desk.limits) not in ("", *saved):
        st.session_state.pop("limits", None)
        desk.limits = ""
    st.session_state["limits"] = st.session_state.get("limits", desk.limits)
    name = st.selectbox("Limits", ["", *saved], format_func=lambda name: name or PUBLISHED, key="limits")
    desk.limits = name
    return apply_profile(card, saved[name]) if name else card


def _choose_among(desk: Desk, usable: dict[str, Checkpoint], default: str | None) -> str:
    """Let the reader choose; the desk keeps the choice, which the control forgets on another page."""
    names = model_names(usable.values())
    options = sorted(usable, key=lambda key: key != default)
    try:
        mean, members = find_ensemble(CHECKPOINTS)
        names[ALL] = "Mean of all models" if len(members) == len(usable) else mean.title
        options.append(ALL)
    except ScaphoidError as error:
        st.warning(f"The mean of the models is not offered: {error}")
    kept = st.session_state.get("checkpoint", desk.checkpoint)
    st.session_state["checkpoint"] = kept if kept in options else options[0]
    desk.checkpoint = st.selectbox("Read with", options, format_func=names.get, key="checkpoint")
    return desk.checkpoint


# ---- the answer ------------------------------------------------------------------------------------------------------
def _show_answer(desk: Desk, reading: StudyReading) -> None:
    if reading.of_both_wrists:
        st.html(
            f'<section class="answer" style="--tone:#a3adba" aria-live="polite"><h2>Films of two wrists</h2>'
            f"<p>{html.escape(BOTH_WRISTS)}</p></section>"
        )
        return
    if reading.decision is None:
        reasons = " ".join(dict.fromkeys(reason for film in reading.films for reason in film.quality.reasons))
        st.html(
            f'<section class="answer" style="--tone:#a3adba" aria-live="polite"><h2>Not read</h2>'
            f"<p>{html.escape(reasons)}</p></section>"
        )
        return
    share = percent(reading.probability) + (f" {reading.checkpoint.id}" if reading.members else "")
    small = "".join(
        f'<p class="small">{html.escape(line)}</p>'
        for line in (_how(desk, reading), reach_sentence(reading), weak_sentence(measured_cards(reading)))
        if line
    )
    st.html(
        f'<section class="answer" style="--tone:{_TONES[reading.decision.label]}" aria-live="polite">'
        f"<h2>{html.escape(reading.decision.text)}</h2>"
        f'<span class="share">{share}</span>'
        f"<p>{html.escape(cases_sentence(reading))}</p>{small}</section>"
    )


def _how(desk: Desk, reading: StudyReading) -> str:
    read = sum(film.prediction is not None for film in reading.films)
    names = "; ".join(model_names(part.checkpoint for part in reading.members or (reading,)).values())
    by = f", driven by {film_label(desk, reading.driver.radiograph)}" if read > 1 else ""
    films = "1 film" if len(reading.films) == 1 else f"{read} of {len(reading.films)} films"
    return f"{desk.title}. {films} read{by}, in {reading.seconds:.2f} s, by {names}."


def _show_probabilities(desk: Desk, reading: StudyReading) -> None:
    if reading.probability is None:
        return
    main = reading.checkpoint.title if reading.members else "Study"
    rows = [ProbabilityRow(main, reading.probability, main=True)]
    rows += [
        ProbabilityRow(film_label(desk, film.radiograph), film.prediction.probability)
        for film in reading.films
        if film.prediction
    ]
    st.markdown(f"**Probability of {with_article(reading.checkpoint.finding)}**")
    show_figure(probability_figure(rows, reading.checkpoint), "probabilities")
    profile = reading.checkpoint.data.get("profile")
    if profile:
        st.caption(
            f"Green: none seen. Yellow: uncertain. Red: suspected. Limits {profile['name']}: {profile['chosen_on']}."
        )
    elif reading.checkpoint.operating_points:
        # The page About has no entry for a mean.
        chosen = reading.checkpoint.data.get("limits")
        more = " How the limits were chosen: page About." if chosen and not reading.members else ""
        st.caption(f"Green: none seen. Yellow: uncertain. Red: suspected.{more}", help=chosen)
    elif reading.members:
        st.caption("No limits were chosen for this mean, so it gives a number and no finding.")


def _show_members(reading: StudyReading) -> None:
    """Show what each model of a mean says by itself."""
    if not reading.members:
        return
    names = model_names(part.checkpoint for part in reading.members)
    lines = [
        f"<tr><td>{html.escape(names[row['checkpoint']])}</td>"
        f"<td>{'-' if row['probability'] is None else percent(row['probability'])}</td>"
        f"<td>{html.escape(row['decision'])}</td></tr>"
        for row in member_results(reading)
    ]
    st.html(f'<table class="members"><tr><th>Each model by itself</th><th></th><th></th></tr>{"".join(lines)}</table>')
    if reading.checkpoint.study_calibration:
        st.caption("Their mean is calibrated in its turn, so it may lie beyond all of them.")


# ---- the heat map ----------------------------------------------------------------------------------------------------
def _choose_heat(desk: Desk, reader: Reader | EnsembleReader) -> tuple[Checkpoint, Explanation | None]:
    """Let the reader ask for a heat map of the film shown; return whose it is, and the map or None."""
    selected = _selected_film(desk)
    film = next(film for film in desk.reading(reader).films if film.radiograph.id == selected.id)
    if not st.toggle("Heat map", key="heat", disabled=film.prediction is None) or film.prediction is None:
        return reader.checkpoint, None
    if isinstance(reader, EnsembleReader):
        reader = _choose_member(reader, desk.reading(reader), selected)
    # Score-CAM over all channels is offered beside its quick form.
    keys = available_methods(reader.checkpoint, prompt=True)
    if st.session_state.get("method") not in keys:
        st.session_state.pop("method", None)
    method = st.selectbox("Method", keys, format_func=lambda key: METHODS[key].title, key="method")
    st.caption(" ".join(filter(None, (METHODS[method].description, map_sentence(reader.checkpoint)))))
    target = "for"
    if METHODS[method].directed and method != "location":
        label = reader.checkpoint.positive_label
        words = {"for": f"for {label}", "against": f"against {label}"}
        target = st.radio("Evidence", tuple(words), format_func=words.get, horizontal=True, key="target")
    try:
        if method == "quickscorecam":
            method = _choose_channels(desk, reader, selected, target)
        explanation = _explained(desk, reader, selected, method, target)
        offer_check(desk, reader, explanation)
        return reader.checkpoint, explanation
    except ScaphoidError as error:
        st.error(str(error))
        return reader.checkpoint, None


def _choose_channels(desk: Desk, reader: Reader, film: Radiograph, target: str) -> str:
    """Offer the map over all channels, which takes its time and can be given up; return the method to show.

    Another click ends the run that makes the map, so giving up needs no more than a button.
    """
    place = st.empty()
    if desk.has_explanation(reader, film, "scorecam", target):
        return "scorecam"
    if not place.button("Use all channels (takes a minute or more)", key="all-channels", width="stretch"):
        return "quickscorecam"
    place.button("Cancel", key="cancel-channels", width="stretch")
    _explained(desk, reader, film, "scorecam", target)
    st.rerun()


def _choose_member(reader: EnsembleReader, reading: StudyReading, selected: Radiograph) -> Reader:
    """Let the reader choose whose map to see: a mean looks at nothing, its models do, those that read this film."""
    read = {
        part.checkpoint.id
        for part in reading.members
        if any(film.prediction and film.radiograph.id == selected.id for film in part.films)
    }
    members = {member.checkpoint.id: member for member in reader.readers if member.checkpoint.id in read}
    names = model_names(member.checkpoint for member in reader.readers)
    if st.session_state.get("heat-model") not in members:
        st.session_state.pop("heat-model", None)
    return members[st.selectbox("Map of", list(members), format_func=names.get, key="heat-model")]


def _explained(desk: Desk, reader: Reader, film: Radiograph, method: str, target: str) -> Explanation:
    words = f"{METHODS[method].title} is being made"
    bar = st.progress(0.0, words)
    # A bar that is told no words loses those it had.
    explanation = desk.explanation(
        reader, film, method, target, lambda done, total: bar.progress(min(1.0, done / max(total, 1)), words)
    )
    bar.empty()
    sentence, positive = evidence_sentence(explanation, reader.checkpoint)
    (st.info if positive else st.warning)(sentence)
    return explanation


def _selected_film(desk: Desk) -> Radiograph:
    state = st.session_state.get("viewer") or {}
    return next((film for film in desk.films if film.id == state.get("selected")), desk.films[0])


def _show_films(desk: Desk, reading: StudyReading, card: Checkpoint, explanation: Explanation | None) -> None:
    films = [ViewerFilm(film.radiograph, film_label(desk, film.radiograph), film.region) for film in reading.films]
    overlay = None
    if explanation:
        _, positive = evidence_sentence(explanation, card)
        method = METHODS[explanation.method]
        side = f", {explanation.target} {card.finding}" if method.directed else ""
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
def _offer_downloads(desk: Desk, reading: StudyReading, card: Checkpoint, explanation: Explanation | None) -> None:
    st.download_button(
        "Download the result (JSON)",
        partial(_result_json, desk, desk.reading_key(reading.checkpoint)),
        file_name="scaphoid-result.json",
        mime="application/json",
        width="stretch",
        key="download-result",
        on_click="ignore",
    )
    # A map that is not shown as evidence is not handed out either: scaled to its own maximum it would look like some.
    if explanation and evidence_sentence(explanation, card)[1]:
        st.download_button(
            "Download film with heat map (PNG)",
            partial(_overlay_png, desk, desk.explanation_key(card, explanation)),
            file_name=f"scaphoid-{explanation.method}.png",
            mime="image/png",
            width="stretch",
            key="download-overlay",
            on_click="ignore",
        )


def _result_json(desk: Desk, key: tuple) -> str:
    labels = [film_label(desk, film) for film in desk.films]
    return json.dumps(study_result(labels, [_kept(desk.readings, key)]), indent=2, allow_nan=False)


def _overlay_png(desk: Desk, key: tuple) -> bytes:
    explanation = _kept(desk.explanations, key)
    film = desk.film(explanation.radiograph_id)
    return png_bytes(overlay_image(film.pixels, explanation.heatmap))


def _kept(made: Mapping[tuple, Any], key: tuple) -> Any:
    """Return what was made, without a word of the key where it is there no more: it names a film, and may be logged."""
    found = made.get(key)
    if found is None:
        raise RadiographError("A study on the desk was expected, but it was closed or changed meanwhile.")
    return found
