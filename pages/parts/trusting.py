"""How far a heat map can be trusted, on demand: one line, and the numbers behind it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pandas as pd
import streamlit as st

from core.checkpoints import CHECKPOINTS
from core.errors import ScaphoidError
from core.explain import METHODS
from core.explain.checks import Checks
from core.explain.comparison import MEASURED_NAME, MapRow, read_rows, record_sentence
from core.explain.trust import check_rows, trust_sentence
from core.reading import Reader
from core.results import evidence_sentence
from core.values import Checkpoint, Explanation
from pages.parts.desk import Desk
from pages.parts.readers import scrambled_of

# No green: a map that passes may still point beside the break.
_TELL = {"good": st.info, "unsure": st.warning, "bad": st.error, "none": st.info}


def can_be_checked(reader: Reader, explanation: Explanation) -> bool:
    """Whether there is a map to check: one that is shown as evidence, and a dozen of which do not take minutes."""
    return METHODS[explanation.method].prompt and evidence_sentence(explanation, reader.checkpoint)[1]


@st.cache_data(show_spinner=False, max_entries=2)
def measured_rows(place: str, changed: int) -> list[MapRow]:
    """Return what was measured of the published models' maps; `changed`, its time, tells when to read it anew."""
    return read_rows(Path(place))


def tell_record(card: Checkpoint, method: str, target: str = "for") -> None:
    """Say, beside any map, how many maps of its kind passed when they were checked; none against the finding were."""
    if target != "for":
        return
    place = CHECKPOINTS / MEASURED_NAME
    with suppress(ScaphoidError, OSError):  # the page Explanations says what is wrong with the table
        record = record_sentence(measured_rows(str(place), place.stat().st_mtime_ns), card, method)
        if record:
            st.caption(record)


def offer_check(desk: Desk, reader: Reader, explanation: Explanation) -> None:
    """Tell how maps of its kind fared, offer to check this one, and show what came of it."""
    if evidence_sentence(explanation, reader.checkpoint)[1]:
        tell_record(reader.checkpoint, explanation.method, explanation.target)
    if not can_be_checked(reader, explanation):
        return
    if desk.explanation_key(reader.checkpoint, explanation) not in desk.checks:
        if st.button("How far can this map be trusted?", width="stretch", key="check-map"):
            check(desk, reader, explanation)
            st.rerun()
        return
    checks = check(desk, reader, explanation)
    tell(checks)
    with st.expander("The numbers behind it"):
        show_rows(checks)


def check(desk: Desk, reader: Reader, explanation: Explanation) -> Checks:
    """Check a map of a film on the desk, with progress; once."""
    name = METHODS[explanation.method].title
    bar = st.progress(0.0, text=f"{name} is being checked")
    checks = desk.checked(
        reader,
        scrambled_of(reader),
        explanation,
        lambda done, total: bar.progress(done / total, f"{name} is being checked"),
    )
    bar.empty()
    return checks


def tell(checks: Checks) -> None:
    """Show the one line."""
    level, sentence = trust_sentence(checks)
    _TELL[level](sentence)


def show_rows(checks: Checks) -> None:
    """Show every number behind the line."""
    rows = [{"": name, "value": round(value, 2), "meaning": meaning} for name, value, meaning in check_rows(checks)]
    st.dataframe(pd.DataFrame(rows), hide_index=True, height="content")
