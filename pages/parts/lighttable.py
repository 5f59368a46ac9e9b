"""The light table of one browser session: the dataset that is looked at, and what its page shows in several places."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from core.datasets import DatasetIndex
from pages.parts.sessions import Belongings, session_id

MOST_LISTED = 500


@dataclass(eq=False)
class Table(Belongings):
    """One session's light table: the dataset that is looked at, and what was made of it.

    Attributes
    ----------
    place : tuple
        Folder, format and part of the body; empty: none.
    found : DatasetIndex or str or None
        The dataset, or the sentence that says why it is none.
    made : dict
        What was read and measured of it, each once.
    """

    place: tuple = ()
    found: DatasetIndex | str | None = None
    made: dict[Any, Any] = field(default_factory=dict)

    def clear(self) -> None:
        """Forget the dataset."""
        super().clear()
        self.place, self.found = (), None
        self.made.clear()

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return what `make` made the first time."""
        return self.made[key] if key in self.made else self.keep(key, make)

    def keep(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return what `make` makes, and keep it, unless another dataset is looked at meanwhile."""
        turn = self.turn
        made = make()
        self.stop_if_changed(turn)
        self.made[key] = made
        return made


@st.cache_resource(scope="session", on_release=Belongings.end, show_spinner=False)
def open_table() -> Table:
    """Return this session's light table."""
    return Table(session_id())


def show_progress(place: Any, total: int, words: str) -> Callable[[int], None]:
    """Return what shows progress in `place`, a hundred times at most."""
    step = max(1, total // 100)

    def tell(done: int) -> None:
        if done % step == 0:
            place.progress(min(done / max(total, 1), 1.0), text=f"{words}: {done:,} of {total:,}")

    return tell


def first_up(words: str) -> str:
    """Return words as the beginning of a sentence."""
    return words[:1].upper() + words[1:]
