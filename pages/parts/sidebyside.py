"""Heat maps side by side: of one film on the desk, and in figures over many films with a known fracture."""

from __future__ import annotations

import hashlib
import html
import math
from collections.abc import Collection, Mapping, Sequence

import pandas as pd
import streamlit as st

from core.checkpoints import CHECKPOINTS
from core.errors import ScaphoidError
from core.explain import METHODS, available_methods
from core.explain.comparison import (
    CHECK_NAMES,
    MEASURED_NAME,
    MethodSummary,
    method_title,
    parse_rows,
    rows_of,
    summarise,
    tell_weights_apart,
    weights_key,
)
from core.explain.trust import trust_sentence
from core.figures import around_region, film_image, hits_figure
from core.reading import Reader
from core.results import evidence_sentence, map_sentence, model_names
from core.values import Checkpoint, Explanation, Interval, Radiograph
from pages.parts.curves import show_figure
from pages.parts.desk import Desk
from pages.parts.outlining import offer_outline
from pages.parts.study import film_label
from pages.parts.trusting import can_be_checked, check, measured_rows, show_rows, tell, tell_record
from pages.parts.welcome import EXAMPLES, open_example

COLUMNS = 5
EARLIER = (
    "Measured by an earlier version: coarse maps were drawn from corner to corner of the square, which put their "
    "highest points too far out, edges were those of the whole film, not of bones, and bulges counted as thin breaks."
)
"""What a table without a note of which maps are shown rests on."""


def offer_examples(desk: Desk) -> None:
    """Say where films come from, and offer the simulated ones."""
    st.markdown("### Every heat map of one film, side by side")
    st.markdown("Open a study in the reading room, or take a simulated one:")
    with st.container(horizontal=True):
        for example in EXAMPLES:
            st.button(
                f"Simulated: {example.title}",
                key=f"example-{example.seed}",
                on_click=open_example,
                args=(desk, example),
            )


def choose_film(desk: Desk) -> Radiograph:
    """Let the reader choose among the films on the desk."""
    films = {film.id: film for film in desk.films}
    if st.session_state.get("explained-film") not in films:
        st.session_state.pop("explained-film", None)
    # Names alone: what a widget is given outlives the desk.
    names = {film.id: film_label(desk, film) for film in desk.films}
    chosen = st.selectbox("Film", list(names), format_func=names.get, key="explained-film", width=200)
    return films[chosen]


def choose_methods(card: Checkpoint) -> list[str]:
    """Let the reader choose methods; at first those that take no time."""
    offered = available_methods(card, prompt=True)
    quick = [key for key in offered if METHODS[key].quick]
    return st.multiselect(
        "Methods",
        offered,
        default=quick,
        format_func=lambda key: METHODS[key].title,
        key=f"methods-{card.id}",
        help="Score-CAM over all channels, which takes a minute or more, is made in the reading room.",
    )


def show_maps(desk: Desk, reader: Reader, film: Radiograph, methods: Sequence[str]) -> None:
    """Show the film, and each method's map on it, around the square that the model read."""
    read = next(each for each in desk.reading(reader).films if each.radiograph.id == film.id)
    if read.prediction is None:
        st.warning(f"{film_label(desk, film)} is not read: {' '.join(read.quality.reasons)}")
        return
    maps = {}
    bar = st.progress(0.0)
    for number, method in enumerate(methods):
        words = f"{METHODS[method].title} is being made"
        bar.progress(number / len(methods), words)
        maps[method] = desk.explanation(
            reader,
            film,
            method,
            "for",
            lambda done, total, words=words: bar.progress(min(1.0, done / max(total, 1)), words),
        )
    bar.empty()
    checkable = [key for key in methods if can_be_checked(reader, maps[key])]
    unchecked = [key for key in checkable if desk.explanation_key(reader.checkpoint, maps[key]) not in desk.checks]
    if unchecked and st.button(f"Check how far these maps can be trusted ({_seconds(unchecked)})", key="check-all"):
        for key in unchecked:
            check(desk, reader, maps[key])
        st.rerun()
    st.caption(" ".join(filter(None, (f"{desk.title}.", map_sentence(reader.checkpoint)))))
    tiles = [None, *methods]
    columns = max(3, min(COLUMNS, len(tiles)))
    for start in range(0, len(tiles), columns):
        for column, method in zip(st.columns(columns), tiles[start : start + columns], strict=False):
            with column:
                _show_tile(desk, reader, film, maps.get(method), read.region)
    _show_numbers(desk, reader, [maps[key] for key in methods])
    # Where no heat is shown there is nothing to score.
    shown = [made for made in maps.values() if evidence_sentence(made, reader.checkpoint)[1]]
    if shown:
        offer_outline(film, read.region, shown)


def _seconds(methods: Sequence[str]) -> str:
    words = "some seconds" if len(methods) == 1 else f"some seconds for each of {len(methods)}"
    slow = [METHODS[key].title for key in methods if not METHODS[key].quick]
    return f"{words}, longer for {' and '.join(slow)}" if slow else words


def _show_tile(desk: Desk, reader: Reader, film: Radiograph, made: Explanation | None, region: object) -> None:
    title = "The film" if made is None else METHODS[made.method].title
    sentence, positive = ("", True) if made is None else evidence_sentence(made, reader.checkpoint)
    # Cut out before it is coloured: a large film in colour takes hundreds of megabytes.
    heat = around_region(made.heatmap, region) if made and positive else None
    picture = film_image(around_region(film.pixels, region), heat)
    st.image(picture, width="stretch", output_format="PNG")
    st.markdown(f"**{title}**")
    if made is None:
        st.caption("The part that the model reads, without any map.")
        return
    st.caption(f"{METHODS[made.method].description} {sentence}")
    checks = desk.checks.get(desk.explanation_key(reader.checkpoint, made))
    if positive:
        tell_record(reader.checkpoint, made.method, made.target)
    if checks and positive:
        tell(checks)


def _show_numbers(desk: Desk, reader: Reader, maps: Sequence[Explanation]) -> None:
    keys = [desk.explanation_key(reader.checkpoint, made) for made in maps]
    checked = [desk.checks[key] for key in keys if key in desk.checks]
    if not checked:
        return
    with st.expander("The numbers behind these sentences"):
        for tab, checks in zip(st.tabs([METHODS[each.method].title for each in checked]), checked, strict=True):
            with tab:
                st.markdown(html.escape(trust_sentence(checks)[1]))
                show_rows(checks)


# --- over a whole split ----------------------------------------------------------------------------------------------


@st.cache_data(show_spinner="Measuring", max_entries=4)
def _summaries(
    place: str, changed: int, weights: tuple[tuple[str, str], ...], _cards: Collection[Checkpoint]
) -> tuple[list[MethodSummary], list[MethodSummary], list[str]]:
    """Summarise the rows of these models; `changed` and `weights` tell when that must be done anew."""
    rows, left_out = rows_of(measured_rows(place, changed), _cards)
    return summarise(rows), summarise(rows, thin=True), left_out


def show_split(cards: Collection[Checkpoint]) -> None:
    """Show what was measured of the published models' maps over many films, with intervals."""
    names = model_names(cards)
    st.markdown("### Over many films with a known fracture")
    given = st.file_uploader(
        "Measured on films of yours",
        type="csv",
        key="measured-maps",
        help="The table that `python -m core.evaluate --data DIR --explanations --out FILE` writes. It stays in this "
        "session.",
    )
    if given is not None:
        _show_given(given.getvalue(), cards, names)
        return
    place = CHECKPOINTS / MEASURED_NAME
    if not place.is_file():
        st.info(
            "Nothing was measured yet. `python -m core.appraise explanations --write` measures the maps of all models "
            "on simulated films, `python -m core.evaluate --data DIR --explanations --out FILE` on a dataset of yours "
            "that outlines its fractures."
        )
        return
    weights = tuple((card.id, weights_key(card)) for card in cards)
    try:
        every, thin, left_out = _summaries(str(place), place.stat().st_mtime_ns, weights, cards)
    except ScaphoidError as error:
        st.error(str(error))
        return
    if left_out:
        st.caption(f"Measured of models that are not here, or not as they were, and left out: {', '.join(left_out)}.")
    if every:
        _show_summaries(every, thin, names)


def _show_given(content: bytes, cards: Collection[Checkpoint], names: Mapping[str, str]) -> None:
    """Show a table that somebody brings; nothing of it is kept where another session could see it."""
    known, digest = st.session_state.get("given-maps"), hashlib.sha256(content).digest()
    if known is None or known[0] != digest:
        try:
            rows = tell_weights_apart(parse_rows(content), cards)
        except ScaphoidError as error:
            st.error(str(error))
            return
        with st.spinner("Measuring"):
            known = st.session_state["given-maps"] = (digest, summarise(rows), summarise(rows, thin=True))
    _show_summaries(*known[1:], names)


def _show_summaries(every: Sequence[MethodSummary], thin: Sequence[MethodSummary], names: Mapping[str, str]) -> None:
    which = st.segmented_control("Breaks", ["all", "thin"], default="all", key="breaks") or "all"
    shown = every if which == "all" else thin
    if not any(each.shown_noted for each in every):
        st.caption(EARLIER)
    if not shown:
        st.info("None of the measured films is known to have a thin break.")
    for checkpoint in dict.fromkeys(each.checkpoint_id for each in shown):
        ours = [each for each in shown if each.checkpoint_id == checkpoint]
        name, films = names.get(checkpoint, checkpoint), f"{ours[0].films} {ours[0].origin} films"
        st.markdown(f"**{name}**: {films}")
        hits = hits_figure([(method_title(each.method), each.hit) for each in ours])
        show_figure(hits, f"hits-{checkpoint}", of=f"{name}: {films} with a break" + ", thin ones" * (which == "thin"))
        st.dataframe(pd.DataFrame([_row(each) for each in ours]), hide_index=True, height="content")
        checked = [_checked_row(each) for each in ours if each.checked]
        if checked:
            films = next(each.checked["good"].n for each in ours if each.checked)
            st.caption(
                f"How far the maps can be trusted, medians of {films} of these films. Likeness (1: the same) to the "
                "map itself when it is made again and when the wrist is moved, to other methods' maps, and to the "
                "map of a scrambled network, where low is good; what taking away the hottest places costs the score, "
                "and giving back only them brings, in logits, more than random places or edges of bones do; share of "
                "the heat outside the limb or on what is saturated white; share of the maps that pass, and how many of "
                "those have their highest point in the outline."
            )
            st.dataframe(pd.DataFrame(checked), hide_index=True, height="content")


def _row(each: MethodSummary) -> dict[str, str]:
    cells = {
        "highest point in the outline": each.hit,
        "the same of maps shown": each.hit_shown,
        "share of heat in it": each.energy,
        "overlap at its best threshold here": each.overlap,
        f"distance ({each.unit})": each.distance,
        "better than Grad-CAM by": each.gain,
    }
    return {"method": method_title(each.method)} | {name: _told(value, each.films) for name, value in cells.items()}


def _checked_row(each: MethodSummary) -> dict[str, str]:
    films = each.checked["good"].n
    return {"method": method_title(each.method)} | {
        words: _told(each.checked.get(name), films) for name, words in CHECK_NAMES.items()
    }


def _told(value: Interval | None, films: int) -> str:
    """Return an estimate with its interval, and of how many films it is where these are not all."""
    if value is None or math.isnan(value.value):
        return ""
    limits = "" if math.isnan(value.low) else f" ({value.low:.2f} to {value.high:.2f})"
    return f"{value.value:.2f}{limits}" + ("" if value.n == films else f", n = {value.n}")
