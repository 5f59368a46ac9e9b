"""What a dataset is made of, how large its films are, what its splits share, and some of its films."""

from __future__ import annotations

import base64
import html
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from core.datasets import DatasetIndex
from core.datasets.composition import (
    Counts,
    FilmSizes,
    count_splits,
    count_studies,
    divide,
    draw_films,
    draw_sample,
    read_sizes,
    size_rows,
)
from core.datasets.overlap import (
    CopiedFilms,
    copies_sentence,
    find_copies,
    find_overlap,
    list_same_size,
    overlap_sentence,
)
from core.errors import DatasetError, RadiographError
from core.evaluate import read_film
from core.figures import CountRow, counts_figure, sizes_figure, thumbnail_bytes
from core.train.films import WRISTS_ALONE
from pages.parts.curves import show_figure, show_numbers
from pages.parts.lighttable import MOST_LISTED, Table, first_up, show_progress

SIZES_AT_ONCE = 5000
"""Films whose headers are read without being asked."""
COPIES_AT_ONCE_BYTES = 256 * 2**20
"""Files of one size are compared without being asked where they are no more than this together."""
COPIES_SHOWN = 6
"""Groups of films that are the same, and films of each, that are shown as pictures."""
THUMBNAILS = 8
"""Films of each label that are shown."""
THUMBNAIL_PIXELS = 300
_SAID_BELOW = "Patients with studies in more than one split"  # a note of the index that the overlap tells better


def show_counts(index: DatasetIndex, words: tuple[str, str]) -> None:
    """Show studies, films and patients of each split, and what the layout does not tell."""
    st.markdown("#### What it holds")
    counts = count_splits(index)
    # Where it is not known whose films are, what counts as a patient is none.
    units = ("patients", "studies", "films") if index.patients_known else ("studies", "films")
    panels = {
        unit: [
            CountRow(name, getattr(each, unit) - getattr(each, f"positive_{unit}"), getattr(each, f"positive_{unit}"))
            for name, each in counts.items()
        ]
        for unit in units
    }
    show_figure(counts_figure(panels, words), "splits")
    if index.format == "mura" and index.origin == "real":
        st.caption("In MURA, positive means abnormal in any way: not only fractures.")
    for note in index.notes:
        if note.startswith(_SAID_BELOW):
            continue
        st.caption(note.replace(WRISTS_ALONE, "Of several parts of the body the wrists alone are taken."))
    if WRISTS_ALONE in index.notes or st.session_state.get("dataset-all-parts"):
        st.toggle("All parts of the body", key="dataset-all-parts")
    rows = [{"split": name, **_count_row(each, units, words[1])} for name, each in counts.items()]
    if len(rows) > 1:
        rows.append(
            {"split": "together", **_count_row(count_studies(index.studies, index.film_labels), units, words[1])}
        )
    show_numbers(rows, "splits")


def _count_row(counts: Counts, units: Sequence[str], positive: str) -> dict[str, int | str]:
    row: dict[str, int | str] = {}
    for unit in units:
        n, found = getattr(counts, unit), getattr(counts, f"positive_{unit}")
        row |= {unit: n, f"{unit}, {positive}": f"{found:,} ({found / n:.1%})"}
    return row


def show_sizes(table: Table, index: DatasetIndex, words: tuple[str, str]) -> None:
    """Show how large films are, by what the headers of their files say."""
    st.markdown("#### How large its films are")
    total = len(index.paths)
    place = st.empty()
    if "sizes" not in table.made:
        _read_sizes(table, index, SIZES_AT_ONCE, place)
    _, sizes = table.made["sizes"]
    place.empty()
    rows = table.once(("size rows", len(sizes.paths)), lambda: size_rows(sizes, index.film_labels))
    if not rows:
        st.warning("The size of none of its films could be read from the header of its file.")
        return
    show_figure(sizes_figure(rows, words), "sizes")
    st.caption(_sizes_sentence(sizes, total, len(rows)))
    some = len(table.made["sizes"][0]) < len(index.studies)
    if some and st.button(f"Read the sizes of all {total:,} films", key="all-sizes"):
        _read_sizes(table, index, total, place)
        st.rerun()
    show_numbers(
        [
            {"width": width, "height": height, f"films, {words[0]}": negative, f"films, {words[1]}": positive}
            for width, height, negative, positive in rows
        ],
        "sizes",
    )


def _read_sizes(table: Table, index: DatasetIndex, most: int, place: Any) -> None:
    studies = draw_sample(index.studies, most)
    paths = [path for study in studies for path in study.paths]
    tell = show_progress(place, len(paths), "Reading the sizes of films")
    table.keep("sizes", lambda: (studies, read_sizes(paths, tell)))


def _sizes_sentence(sizes: FilmSizes, total: int, distinct: int) -> str:
    n = len(sizes.paths)
    pairs = list(zip(sizes.heights.tolist(), sizes.widths.tolist(), strict=True))
    which = f"n={n:,}, all films" if n == total else f"n={n:,} of {total:,} films, drawn at random by patient"
    unread = f" {sizes.unread:,} could not be read." if sizes.unread else ""
    if sizes.unread and n + sizes.unread == total:
        which = f"n={n:,} of {total:,} films"
    sizes_words = "one size" if distinct == 1 else f"{distinct:,} different sizes"
    return (
        f"From the headers of the files ({which}): {sizes_words}, from {min(map(min, pairs)):,} pixels (shorter side) "
        f"to {max(map(max, pairs)):,} (longer side).{unread} Larger marks are more films; colour appears where "
        "size goes with the label."
    )


def show_divisions(table: Table, index: DatasetIndex, words: tuple[str, str]) -> None:
    """Show the films divided by view, or by anything else that the dataset says of them."""
    st.markdown("#### What is known of its films")
    try:
        divisions = table.once("divisions", lambda: divide(index, index.details()))
    except DatasetError as error:
        st.warning(str(error))
        return
    by_name = {division.name: division for division in divisions}
    name = st.selectbox("Divide by", list(by_name), key="dataset-division", format_func=first_up)
    division = by_name[name]
    bars = [CountRow(each.value, each.negative, each.positive) for each in division.counts]
    show_figure(counts_figure({division.unit: bars}, words), "division")
    if "view" not in by_name:
        st.caption("The dataset does not say which view a film is.")
    show_numbers(
        [
            {
                division.name: each.value,
                f"{division.unit}, {words[0]}": each.negative,
                f"{division.unit}, {words[1]}": each.positive,
                f"share {words[1]}": f"{each.positive / each.n:.1%}",
            }
            for each in division.counts
        ],
        "division",
    )


def show_overlap(table: Table, index: DatasetIndex) -> None:
    """Show which patients and which files are in more than one split."""
    st.markdown("#### Do its splits overlap?")
    overlap = table.once("overlap", lambda: find_overlap(index))
    sentence = overlap_sentence(overlap)
    (st.error if overlap.shared else st.success if overlap.patients_known and len(overlap.splits) > 1 else st.info)(
        sentence
    )
    if overlap.shared:
        rows = [
            {"splits": f"{pair.first}, {pair.second}", "patients": len(pair.patients), "studies": pair.studies}
            for pair in overlap.shared
        ]
        st.dataframe(pd.DataFrame(rows), hide_index=True, height="content", key="overlap")
        with st.expander("Which patients"):
            rows = [
                {"patient": patient, "splits": f"{pair.first}, {pair.second}"}
                for pair in overlap.shared
                for patient in pair.patients[:MOST_LISTED]
            ]
            st.dataframe(pd.DataFrame(rows), hide_index=True, key="overlap-patients")
    _show_copies(table, index)


def _show_copies(table: Table, index: DatasetIndex) -> None:
    candidates, size = table.once("same size", lambda: list_same_size(index.paths))
    place = st.empty()
    if "copies" not in table.made:
        asked = size > COPIES_AT_ONCE_BYTES
        if asked:
            st.caption(
                f"{len(candidates):,} of {len(index.paths):,} films have files of a size that another has too. Whether "
                f"they are the same takes reading up to {size / 2**30:.1f} GiB."
            )
        if asked and not st.button("Look for identical files", key="find-copies"):
            return
        tell = show_progress(place, len(candidates), "Comparing files")
        table.keep("copies", lambda: find_copies(index, candidates, tell))
        place.empty()
    show_copies(table, index, "copies")


def show_copies(table: Table, index: DatasetIndex, key: str) -> None:
    """Say which films are there more than once, by what the table holds as `key`, and show the first of them."""
    copies: CopiedFilms = table.made[key]
    (st.error if copies.between else st.warning if copies.groups else st.success)(
        copies_sentence(copies, index.patients_known)
    )
    if not copies.groups:
        return
    with st.expander("Which films"):
        for tiles in table.once(("tiles", copies), lambda: _copies_as_tiles(index, copies)):
            st.html(f'<div style="display:flex;flex-wrap:wrap;align-items:flex-end;gap:.6rem">{"".join(tiles)}</div>')
        rows = [
            {"copy": number, "film": index.name_of(path)}
            for number, group in enumerate(copies.groups[:MOST_LISTED], 1)
            for path in group
        ]
        st.dataframe(pd.DataFrame(rows), hide_index=True, key=key)


def _copies_as_tiles(index: DatasetIndex, copies: CopiedFilms) -> list[list[str]]:
    study_of = {path: study for study in index.studies for path in study.paths}
    return [
        [_thumbnail(index, study_of[path], path) for path in group[:COPIES_SHOWN]]
        for group in copies.groups[:COPIES_SHOWN]
    ]


def show_thumbnails(table: Table, index: DatasetIndex, words: tuple[str, str]) -> None:
    """Show some films of each label, drawn at random."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown("#### Some of its films", width="content")
        if st.button("Others", key="other-films"):
            table.made["thumbnail seed"] = table.made.get("thumbnail seed", 0) + 1
    seed = table.made.get("thumbnail seed", 0)
    films = Counter(index.film_labels.values())
    kind = {"simulated": "simulated, ", "injected": "with simulated breaks, "}.get(index.origin, "")
    for label in sorted(films):
        key = ("thumbnails", label)
        if table.made.get(key, (None,))[0] != seed:
            with st.spinner("Reading films"):
                drawn = draw_films(index, label, THUMBNAILS, seed)
                table.keep(key, lambda drawn=drawn: (seed, [_thumbnail(index, *each) for each in drawn]))
        tiles = table.made[key][1]
        st.markdown(f"**{first_up(words[label])}** ({kind}{len(tiles)} of {films[label]:,} films, drawn at random)")
        st.html(f'<div style="display:flex;flex-wrap:wrap;align-items:flex-end;gap:.6rem">{"".join(tiles)}</div>')
    st.caption(
        "Markers, plates, casts and framing that one row has and the other has not are what a model learns first."
    )


def _thumbnail(index: DatasetIndex, study: Any, path: Path) -> str:
    """Return a film as a piece of HTML; its study stands in the tip that the mouse brings up."""
    tip = html.escape(f"{study.id}: {index.name_of(path)}", quote=True)
    try:
        film = read_film(path)
    except RadiographError as error:
        return (
            f'<div title="{tip}" style="width:9rem;height:10.5rem;overflow:auto;border:1px solid #2a313b;'
            f'border-radius:4px;padding:.6rem;font-size:.85rem;color:#a3adba">{html.escape(str(error))}</div>'
        )
    data = base64.b64encode(thumbnail_bytes(film.pixels, THUMBNAIL_PIXELS)).decode()
    return (
        f'<figure style="margin:0" title="{tip}"><img alt="film, {film.width} by {film.height} pixels" '
        f'src="data:image/png;base64,{data}" style="max-height:10.5rem;max-width:10.5rem;width:auto;height:auto;'
        'display:block;border-radius:4px">'
        f'<figcaption style="font-size:.8rem;color:#a3adba">{film.width:,} × {film.height:,}</figcaption></figure>'
    )


def show_left_out(index: DatasetIndex) -> None:
    """Tell which files cannot be used, and why."""
    if not index.problems:
        return
    counts = Counter(problem.reason for problem in index.problems).most_common()
    st.warning(
        "Left out, because they cannot be used:\n" + "\n".join(f"- {count:,} × {reason}" for reason, count in counts)
    )
    with st.expander("Which files"):
        rows = [
            {"file": index.name_of(problem.path), "why": problem.reason} for problem in index.problems[:MOST_LISTED]
        ]
        st.dataframe(pd.DataFrame(rows), hide_index=True, key="left-out")
