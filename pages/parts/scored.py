"""Which models, on which studies: the choice that the pages about measurements begin with, and what was measured.

Uploaded tables name patients, so all of it belongs to one browser session and goes with it.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import streamlit as st

from core.checkpoints import CHECKPOINTS, read_scores
from core.errors import ScaphoidError
from core.measured import UNIT_WORDS, MeasuredModel, measure_model
from core.metrics import read_every_split
from core.values import Checkpoint, Scores
from pages.parts.frame import escape_markdown
from pages.parts.sessions import Belongings, forget_upload, session_id

SPLIT_NAMES = {
    "test": "test (held out)",
    "valid": "validation (chosen on)",
}
_UPLOADED = "uploaded: "
_FILMS = "films of "
_LEFT_OUT = "\0"  # no table can name a split so


@dataclass(eq=False)
class Bench(Belongings):
    """One session's tables of scores, read once each, and what was measured of them.

    Attributes
    ----------
    read : dict
        What a table was read from -> split -> scores; ``""`` is the split of a table without any. Its films by
        themselves, where it has several of a study, stand beside it.
    uploads : dict of str to str
        Name of an uploaded table -> its key in `read`. It keeps its name, and stays until it is removed.
    measured, made : dict
        Scores and card -> the model measured; model -> what does not move with a threshold.
    """

    read: dict[Any, dict[str, Scores]] = field(default_factory=dict)
    uploads: dict[str, str] = field(default_factory=dict)
    measured: dict[tuple, MeasuredModel] = field(default_factory=dict)
    made: dict[MeasuredModel, dict[str, Any]] = field(default_factory=dict)

    def clear(self) -> None:
        """Forget everything."""
        super().clear()
        for kept in (self.read, self.uploads, self.measured, self.made):
            kept.clear()

    def forget(self, file_id: str) -> None:
        """Forget an uploaded table and what was measured of it."""
        self.uploads = {name: key for name, key in self.uploads.items() if key != file_id}
        gone = [key for key in self.read if isinstance(key, str) and key.removeprefix(_FILMS) == file_id]
        scores = [each for key in gone for each in self.read.pop(key).values()]
        for place in [place for place in self.measured if any(each is place[2] for each in scores)]:
            self.made.pop(self.measured.pop(place), None)

    def measure(self, key: str, name: str, scores: Scores, card: Checkpoint | None) -> MeasuredModel:
        """Measure a model's scores; once, and those of a model of the house once for all sessions."""
        place = (key, name, scores, card.card_sha256 if card else None)
        if place not in self.measured:
            if card and not key.startswith(_UPLOADED):
                self.measured[place] = _measure_own(key, name, card.card_sha256, _digest(scores), scores, card)
            else:
                self.measured[place] = measure_model(key, name, scores, card)
        return self.measured[place]


@st.cache_resource(max_entries=12, show_spinner=False)
def _measure_own(
    key: str, name: str, card_sha256: str, content: str, _scores: Scores, _card: Checkpoint
) -> MeasuredModel:
    """Measure a model of the house, whose scores lie beside its card: what anybody uploaded never comes here."""
    return measure_model(key, name, _scores, _card)


def _digest(scores: Scores) -> str:
    """Return what tells one table of scores from another, 64 hexadecimal digits."""
    told = [scores.split, scores.unit, scores.weights_sha256, scores.study_ids, scores.patient_ids]
    digest = hashlib.sha256(json.dumps([*told, dict(scores.columns)], sort_keys=True).encode())
    for values in (scores.labels, scores.probabilities):
        digest.update(values.tobytes())
    return digest.hexdigest()


@st.cache_resource(scope="session", on_release=Belongings.end, show_spinner=False)
def open_bench() -> Bench:
    """Return this session's bench."""
    return Bench(session_id())


def split_title(name: str) -> str:
    """Return how the screen names a split; "" is that of a table without any."""
    return SPLIT_NAMES.get(name, name or "all")


def take_uploads() -> tuple[str, ...]:
    """Show the uploader for tables of scores; return the names of those that can be read."""
    bench = open_bench()
    with st.popover("Add scores from elsewhere"):
        st.caption(
            "A CSV table with the columns study_id, patient_id, label (0 or 1) and probability, one row a study; "
            "further columns such as view or sex become subgroups. It stays until you remove it, or leave or reload "
            "the dashboard."
        )
        files = st.file_uploader(
            "Tables of scores",
            type="csv",
            accept_multiple_files=True,
            key="score-tables",
            on_change=_forget_removed,
        )
        here = {file.file_id for file in files or ()}
        # A page that was left forgets what its uploader held, but not the tables.
        for name, file_id in bench.uploads.items():
            if file_id not in here:
                st.button(f"Remove {escape_markdown(name)}", on_click=_forget, args=(file_id,), key=f"drop-{file_id}")
    st.session_state["score-tables-here"] = here
    for file in files or ():
        if file.file_id in bench.uploads.values():
            continue
        name = _free_name(PurePath(file.name).stem[:40] or "table", bench.uploads)
        try:
            with st.spinner(f"Reading {name}"):
                found = read_every_split(io.BytesIO(file.getvalue()), upload_key(name))
            bench.read[file.file_id] = found["study"]
            if "film" in found:
                bench.read[_FILMS + file.file_id] = found["film"]
            bench.uploads[name] = file.file_id
        except ScaphoidError as error:
            st.error(f"{escape_markdown(name)}: {error}")
    return tuple(bench.uploads)


def uploaded_here() -> tuple[str, ...]:
    """Return the names of the tables that this page's own uploader holds; others were brought on other pages."""
    here = st.session_state.get("score-tables-here", set())
    return tuple(name for name, file_id in open_bench().uploads.items() if file_id in here)


def _forget(file_id: str) -> None:
    open_bench().forget(file_id)
    forget_upload(session_id(), file_id)


def _forget_removed() -> None:
    """Forget the tables that were taken out of the uploader, and no others."""
    now = {file.file_id for file in st.session_state["score-tables"] or ()}
    for file_id in st.session_state.get("score-tables-here", set()) - now:
        _forget(file_id)


def _free_name(name: str, taken: Mapping[str, str]) -> str:
    """Return a name that no other table has: two files may be called alike."""
    names = (name, *(f"{name} ({number})" for number in range(2, len(taken) + 2)))
    return next(each for each in names if each not in taken)


def upload_key(name: str) -> str:
    """Return the key of an uploaded table among the models."""
    return _UPLOADED + name


def choose_unit(keys: Sequence[str]) -> str:
    """Let the reader choose whether studies or single films are measured, where a table holds both; return which."""
    if not any(splits_of([key], "film") for key in keys):
        return "study"
    unit = st.segmented_control(
        "Measure",
        list(UNIT_WORDS),
        default="study",
        format_func=UNIT_WORDS.get,
        key="unit",
        label_visibility="collapsed",
    )
    if unit != "film":
        return "study"
    st.info(
        "Each film is measured by itself: what this page calls a study is one film. Intervals are over patients, whose "
        "films are drawn together."
    )
    return "film"


def load_scores(key: str, unit: str = "study") -> dict[str, Scores]:
    """Return a model's scores, split -> scores; an uploaded table without splits stands under ``""``.

    Of single films (`unit` ``film``) there may be none.

    Raises
    ------
    ScaphoidError
        The table is damaged.
    """
    bench = open_bench()
    if key.startswith(_UPLOADED):
        file = bench.uploads[key.removeprefix(_UPLOADED)]
        return bench.read[file] if unit == "study" else bench.read.get(_FILMS + file, {})
    if unit == "film":
        return {}
    table = CHECKPOINTS / key / "scores.csv"
    place = (key, table.stat().st_mtime_ns if table.is_file() else None)
    if place not in bench.read:
        bench.read[place] = {scores.split: scores for scores in read_scores(CHECKPOINTS / key)}
    return bench.read[place]


def choose_own_splits(keys: Sequence[str], names: Mapping[str, str], split: str, unit: str = "study") -> dict[str, str]:
    """Let the reader choose the studies of each model by itself, where their tables do not hold the same splits.

    Returns
    -------
    dict
        Model -> split, for models that are not measured on `split`.
    """
    tables = {key: splits for key in keys if (splits := splits_of([key], unit))}
    if len({frozenset(splits) for splits in tables.values()}) < 2:
        return {}
    own = {}
    with st.expander("Studies of each model"):
        st.caption("These tables do not hold the same splits. Models compare only where they read the same studies.")
        for place, (key, splits) in enumerate(tables.items()):
            place % 3 or (columns := st.columns(3))
            there = split in splits or "" in splits
            chosen = columns[place % 3].selectbox(
                names[key],
                [*([] if there else [_LEFT_OUT]), *splits],
                index=splits.index(split) if split in splits else 0,
                format_func=_split_words,
                # What was chosen for one model goes when another split is chosen for all.
                key=f"split-{key}-{split}",
            )
            if chosen not in (split, _LEFT_OUT):
                own[key] = chosen
    return own


def _split_words(split: str) -> str:
    return {"": "all of its studies", _LEFT_OUT: "left out"}.get(split, SPLIT_NAMES.get(split, split))


def measure_chosen(
    keys: Sequence[str],
    names: Mapping[str, str],
    cards: Mapping[str, Checkpoint],
    split: str,
    own: Mapping[str, str] | None = None,
    unit: str = "study",
) -> list[MeasuredModel]:
    """Measure the chosen models on a split, or each on its `own`, and tell of those that have no scores there.

    A model on a split of its own carries it in its name: a figure that is saved must tell it, too.
    """
    bench, measured, own = open_bench(), [], own or {}
    for key in keys:
        try:
            scores = load_scores(key, unit)
            found = scores.get(own.get(key, split)) or scores.get("")
            if found is None:
                st.info(f"{names[key]} has no scores of {'these studies' if unit == 'study' else 'single films'}.")
                continue
            name = f"{names[key]} ({_split_words(own[key])})" if own.get(key) else names[key]
            with st.spinner(f"Resampling the patients of {len(found.study_ids):,} {UNIT_WORDS[unit]}: {name}"):
                measured.append(bench.measure(key, name, found, cards.get(key)))
        except ScaphoidError as error:
            st.warning(f"{names[key]}: {error}")
    return measured


def splits_of(keys: Sequence[str], unit: str = "study") -> list[str]:
    """Return the splits that any of the models has, test first."""
    found: dict[str, Any] = {}
    for key in keys:
        try:
            found |= dict.fromkeys(load_scores(key, unit))
        except ScaphoidError:
            continue
    return sorted(found, key=lambda split: (split != "test", split))
