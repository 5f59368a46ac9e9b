"""What solves a dataset without looking for a fracture, and beside it the models."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from core.checkpoints import CHECKPOINTS, list_checkpoints
from core.datasets import DatasetIndex
from core.datasets.composition import draw_sample
from core.datasets.overlap import find_alike
from core.errors import RadiographError, ScaphoidError
from core.evaluate import read_film
from core.evaluate.shortcuts import (
    FROM_PIXELS,
    SHORTCUTS,
    WARNING_AUC,
    FilmLook,
    Lead,
    Shortcut,
    auc_words,
    lead_over,
    look_at_film,
    matching_scores,
    measure_from_files,
    measure_from_pixels,
)
from core.figures import MUTED, AucRow, aucs_figure
from core.measured import number_words
from core.metrics import digest_of
from core.results import model_names
from core.train import jobs
from core.train.films import WRIST, WRISTS_ALONE
from pages.parts.composition import show_copies
from pages.parts.curves import colours_of_all, show_figure, show_numbers
from pages.parts.folders import folder_at
from pages.parts.lighttable import Table, open_table, show_progress
from pages.parts.scored import SPLIT_NAMES, load_scores, open_bench, take_uploads, upload_key, uploaded_here

FILMS_READ = (500, 1500, 4000)
"""How many films may be read for the baselines."""


def show_shortcuts(table: Table, index: DatasetIndex, place: str) -> tuple[Shortcut, ...]:
    """Show the trivial baselines beside the models; return those that were measured."""
    st.markdown("#### Can it be solved without looking for a fracture?")
    studies, sizes = table.made["sizes"]
    with st.spinner("Measuring what size alone tells"):
        quick = table.once(("files", len(sizes.paths)), lambda: measure_from_files(studies, sizes))
    left, right = st.columns([0.62, 0.38], gap="large")
    with right:
        slow = _measure_pixels(table, index)
        leads, names, colours = _models_beside(index, place, (*quick, *slow))
    shortcuts = (*quick, *slow)
    rows = [AucRow(each.words, each.auc, MUTED, note=each.reason) for each in shortcuts]
    rows += [AucRow(names[key], lead.auc, colours[key[0]], True) for key, lead in leads.items()]
    with left:
        show_figure(aucs_figure(rows, WARNING_AUC), "baselines")
        st.caption(
            "Circles: a logistic regression that is given nothing else of a study; each patient is answered by one "
            "that was fitted without them (five folds). Squares: models. Lines: 95% intervals over patients. "
            "0.5 is guessing, 1 is never wrong."
        )
        show_numbers(
            [*map(_shortcut_row, shortcuts), *(_lead_row(names[key], leads[key]) for key in leads)], "baselines"
        )
    return shortcuts


def _shortcut_row(shortcut: Shortcut) -> dict[str, Any]:
    return {"what": shortcut.words, "kind": "baseline", **_interval_cells(shortcut.auc)}


def _lead_row(name: str, lead: Lead) -> dict[str, Any]:
    row = {"what": name, "kind": "model", **_interval_cells(lead.auc)}
    if lead.difference:
        gap = lead.difference
        row |= {"ahead of": lead.over, "by": gap.value, "by, low": gap.low, "by, high": gap.high, "by, n": gap.n}
    return row


def _interval_cells(auc: Any) -> dict[str, Any]:
    return {"AUC": auc.value, "low": auc.low, "high": auc.high, "n": auc.n}


def _measure_pixels(table: Table, index: DatasetIndex) -> tuple[Shortcut, ...]:
    """Offer to read films for the baselines that need it; return what was measured."""
    total = len(index.paths)
    choices = [n for n in FILMS_READ if n < total] + ([total] if total <= FILMS_READ[-1] else [])
    with st.container(horizontal=True, vertical_alignment="bottom"):
        most = st.selectbox(
            "Films to read",
            choices,
            index=min(1, len(choices) - 1),
            format_func=lambda n: f"all {n:,}" if n == total else f"{n:,} of {total:,}",
            key="films-to-read",
            width=180,
        )
        pressed = st.button("Measure brightness and thumbnail", type="primary", key="measure-pixels")
    place = st.empty()
    if pressed:
        table.keep("pixels", lambda: _read_and_measure(table, index, most, place))
        place.empty()
    slow, read, unread = table.made.get("pixels", ((), 0, 0))
    if slow:
        which = f"all {total:,} films" if read == total else f"{read:,} of {total:,} films, drawn at random by patient"
        more = f"; {unread:,} of them could not be read" if unread else ""
        st.caption(f"Brightness and thumbnail were measured on {which}{more}.")
        show_copies(table, index, "alike")
    else:
        names = " and ".join(SHORTCUTS[name] for name in FROM_PIXELS)
        st.caption(
            f"Not measured yet: {names}. They take decoding films, which also tells whether one is there twice in "
            "another file."
        )
    return slow


def _read_and_measure(table: Table, index: DatasetIndex, most: int, place: Any) -> tuple[Any, int, int]:
    studies = draw_sample(index.studies, most)
    paths = [path for study in studies for path in study.paths]
    looks: dict[Path, FilmLook | None] = table.once("looks", dict)
    tell = show_progress(place, len(paths), "Reading films")
    for done, path in enumerate(paths, 1):
        if path not in looks:
            try:
                looks[path] = look_at_film(read_film(path))
            except RadiographError:
                looks[path] = None
        tell(done)
    place.progress(1.0, text="Measuring")
    found = measure_from_pixels(studies, looks)
    sketches = {path: looks[path].sketch for path in paths if looks[path] is not None}
    table.keep("alike", lambda: find_alike(index, sketches))
    return found, len(paths), sum(looks[path] is None for path in paths)


def _models_beside(
    index: DatasetIndex, place: str, shortcuts: Sequence[Shortcut]
) -> tuple[dict[tuple[str, str], Lead], dict[tuple[str, str], str], dict[str, str]]:
    """Return the models that have scores of this dataset's studies; say how to get some where none has."""
    take_uploads()
    uploads = uploaded_here()
    entries = list_checkpoints(CHECKPOINTS)
    cards = [entry.checkpoint for entry in entries if entry.checkpoint and entry.checkpoint.task == "fracture"]
    named = model_names(cards) | {upload_key(name): name for name in open_bench().uploads}
    colours = colours_of_all(entries, jobs.list_runs(jobs.RUNS), map(upload_key, open_bench().uploads))
    leads, names = {}, {}
    table = open_table()
    for key, name in named.items():
        try:
            scored = load_scores(key)
        except ScaphoidError as error:
            st.warning(f"{name}: {error}")
            continue
        splits = ["test"] if "test" in scored else list(scored)
        matching = {split: matching_scores(scored[split], index.studies) for split in splits}
        if name in uploads and not any(matching.values()):
            st.warning(
                f"{name}: scores of this dataset's studies were expected, but studies, patients or labels differ."
            )
        for split, scores in matching.items():
            if scores is not None:
                # By its digest: what was made outlives a table of scores that is taken away, and scores name patients.
                told = digest_of(scored[split])
                made = ("lead", key, split, len(shortcuts), tuple(each.auc.n for each in shortcuts), told)
                leads[key, split] = table.once(made, lambda scores=scores: lead_over(scores, shortcuts))
                names[key, split] = f"{name}, {SPLIT_NAMES.get(split, split)}" if split else name
    _say_beside(index, place, leads, names)
    return leads, names, colours


def _say_beside(index: DatasetIndex, place: str, leads: Mapping, names: Mapping) -> None:
    for key, lead in leads.items():
        gap = lead.difference
        if gap is None:
            st.markdown(f"**{names[key]}:** AUC {auc_words(lead.auc)}.")
            continue
        chance = " **That may be chance.**" if gap.low <= 0 <= gap.high else ""
        side, by = ("ahead of", (gap.value, gap.low, gap.high))
        if gap.value < 0:
            side, by = ("behind", (-gap.value, -gap.high, -gap.low))
        st.markdown(
            f"**{names[key]}:** AUC {auc_words(lead.auc)}; {side} the best baseline ({lead.over}) by "
            f"{number_words(*by)} on the {gap.n:,} studies that both read.{chance}"
        )
    if leads:
        return
    st.markdown(
        "No model here has scores of this dataset's studies. This command makes them, and measures further baselines "
        "beside the model; **Add scores from elsewhere** then takes the table."
    )
    command = ["python", "-m", "core.evaluate", "--data", str(folder_at(place)), "--baselines", "--out", "scores.csv"]
    layout = open_table().place[1]
    command += ["--format", layout] if layout else []
    command += ["--region", WRIST] if WRISTS_ALONE in index.notes else []
    st.code(shlex.join(command), language=None, wrap_lines=True)
