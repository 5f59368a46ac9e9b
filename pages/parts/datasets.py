"""The page of one dataset: the answer, what it is made of, what its splits share, and what solves it trivially.

Films and ids may be of patients, so all of it belongs to one browser session and goes with it.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from core.datasets import DatasetIndex
from core.datasets.composition import FORMAT_WORDS, Counts, count_studies, label_words
from core.datasets.overlap import copies_sentence, find_overlap, overlap_sentence
from core.errors import DatasetError
from core.evaluate.shortcuts import Shortcut, judge
from core.figures import NOT_SEEN, SUSPECTED, UNCERTAIN
from pages.parts.composition import (
    show_counts,
    show_divisions,
    show_left_out,
    show_overlap,
    show_sizes,
    show_thumbnails,
)
from pages.parts.folders import open_folder
from pages.parts.frame import is_private
from pages.parts.lighttable import Table, first_up, open_table
from pages.parts.shortcuts import show_shortcuts

_LOOKED_AT = "looked-at"
"""Where a session keeps which folder was last looked at on another page."""
_TONES = {"warning": SUSPECTED, "open": UNCERTAIN, "sound": NOT_SEEN}


def show() -> None:
    """Let somebody choose a folder of films, and show what is in it."""
    if not is_private():
        st.warning(
            "Folders are opened only where this page is served to its own computer alone, but it is open to others."
        )
        return
    place, table = _choose_place(), open_table()
    if place is None:
        return
    if isinstance(table.found, str):
        st.error(table.found)
        return
    index = table.found
    answer = st.container()
    words = label_words(index)
    left, right = st.columns(2, gap="large")
    with left:
        show_counts(index, words)
        show_divisions(table, index, words)
    with right:
        show_sizes(table, index, words)
        show_overlap(table, index)
    shortcuts = show_shortcuts(table, index, place)
    show_thumbnails(table, index, words)
    show_left_out(index)
    with answer:
        _show_answer(table, index, shortcuts)


def choose_layout(place: DeltaGenerator, key: str) -> str:
    """Let somebody choose a folder's layout; return one of the formats, "" where it is found by looking."""
    layouts = {"": "Found by looking", **{name: first_up(words) for name, words in FORMAT_WORDS.items()}}
    return place.selectbox("Layout", list(layouts), format_func=layouts.get, key=key)


def note_place(place: str, layout: str, region: str | None) -> None:
    """Keep for this page which folder somebody looked at on another one, in which layout and part of the body."""
    st.session_state[_LOOKED_AT] = (place, layout, region)


def _choose_place() -> str | None:
    """Show where the dataset is chosen; return the folder as typed once it was looked through."""
    field_place, layout_place, button_place = st.columns([0.6, 0.26, 0.14], vertical_alignment="bottom")
    table = open_table()
    if "dataset-folder" not in st.session_state:  # Nobody was here yet, or somebody comes back from another page.
        place, layout, region = table.place or st.session_state.get(_LOOKED_AT, ("", "", None))
        st.session_state["dataset-folder"], st.session_state["dataset-layout"] = place, layout
        st.session_state["dataset-all-parts"] = region == "all"
    place = field_place.text_input(
        "Folder of films, or table (CSV) that lists them, on this computer",
        key="dataset-folder",
        placeholder="/data/MURA-v1.1",
    ).strip()
    layout = choose_layout(layout_place, "dataset-layout")
    again = button_place.button("Look", key="dataset-look", width="stretch")
    if not place:
        st.caption(
            "MURA, GRAZPEDWRI-DX, FracAtlas, one folder for each class, or a table (CSV) that lists the films. You "
            "will see what it is made of, whether its splits share patients or films, and whether it can be solved "
            "without looking for a fracture. Nothing leaves this computer, and nothing is kept when you close the page."
        )
        return None
    region = "all" if st.session_state.get("dataset-all-parts") else None
    if again or table.place != (place, layout, region):
        with st.spinner("Looking through the folder"):
            table.clear()
            turn = table.turn
            try:
                found = open_folder(place, layout or None, region)
            except DatasetError as error:
                found = str(error)
            table.stop_if_changed(turn)
            table.found, table.place = found, (place, layout, region)
    return place


def _show_answer(table: Table, index: DatasetIndex, shortcuts: Sequence[Shortcut]) -> None:
    overlap = table.once("overlap", lambda: find_overlap(index))
    copies, alike = table.made.get("copies"), table.made.get("alike")
    counts = count_studies(index.studies, index.film_labels)
    verdict = judge(counts, overlap, copies, shortcuts, index.origin, alike)
    lines = []
    if overlap.shared or (overlap.patients_known and len(overlap.splits) > 1):
        lines.append(overlap_sentence(overlap))
    for found in (copies, alike):
        if found and found.groups:
            lines.append(copies_sentence(found, index.patients_known))
    told = "".join(f"<p>{html.escape(line)}</p>" for line in (*lines, *verdict.sentences))
    st.html(
        f'<div class="answer" style="--tone:{_TONES[verdict.level]}"><h2>{html.escape(verdict.headline)}</h2>{told}'
        f'<p class="small">{html.escape(_summary(index, counts))}</p></div>'
    )


def _summary(index: DatasetIndex, counts: Counts) -> str:
    kind = {"simulated": "simulated films", "injected": "films with simulated breaks"}.get(index.origin, "films")
    share = f"{counts.positive_studies / counts.studies:.0%} of the studies labelled {label_words(index)[1]}"
    patients = f"{counts.patients:,} patients" if index.patients_known else "unknown patients"
    return (
        f"{counts.films:,} {kind} of {counts.studies:,} studies and {patients}, {share}; in "
        f"{FORMAT_WORDS[index.format]}."
    )
