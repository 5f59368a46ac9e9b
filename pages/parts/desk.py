"""The desk of one browser session: its films and all that was made of them, and nothing of anybody else's.

Everything about a patient lies here and only here. The desk belongs to the session's own cache, which Streamlit drops
as soon as the browser goes; dropping it also forgets the uploaded files and the downloads made from them.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import streamlit as st
from streamlit import runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx

from core.errors import RadiographError
from core.explain import explain
from core.explain.checks import Checks, check_map
from core.explain.scrambled import ScrambledClassifier
from core.radiographs import read_radiograph
from core.reading import EnsembleReader, Reader, StudyReading, judge
from core.values import Checkpoint, Explanation, Radiograph, WristRegion
from pages.parts.viewer import film_bytes

SWEEPS_S = 5 * (4.0,) + 8 * (20.0,)
"""Pauses between the sweeps after a session has ended: a download takes two of them to go, and a heat map that was
under way when the browser went may end, and hand out its downloads, a minute or two later."""

MOST_BYTES = 500_000_000
"""Heat maps that a session holds at once: of a film of five megapixels each takes 20 MB."""

UPLOADED = "Uploaded study"
"""Title of a study that a reader brought."""

_STUDY_NUMBERS = itertools.count(1)


@dataclass(eq=False)
class Desk:
    """One session's study. It changes as the reader works; all it holds are values that do not."""

    session: str
    number: int = 0
    title: str = ""
    films: tuple[Radiograph, ...] = ()
    problems: tuple[str, ...] = ()
    regions: dict[str, WristRegion] = field(default_factory=dict)
    readings: dict[tuple, StudyReading] = field(default_factory=dict)
    explanations: dict[tuple, Explanation] = field(default_factory=dict)
    checks: dict[tuple, Checks] = field(default_factory=dict)
    packed: dict[str, bytes] = field(default_factory=dict)
    limits: str = ""

    @property
    def study(self) -> str:
        """A name for the study on the desk that says nothing of the patient."""
        return f"study-{self.number}"

    @property
    def holds_upload(self) -> bool:
        """Whether the study on the desk was uploaded, so that it must not go without being asked for."""
        return bool(self.films) and self.title == UPLOADED

    def clear(self) -> None:
        """Forget the study."""
        self.number = next(_STUDY_NUMBERS)
        self.title, self.films, self.problems = "", (), ()
        for made in (self.regions, self.readings, self.explanations, self.checks, self.packed):
            made.clear()

    def lay(self, films: Iterable[Radiograph], title: str, problems: Iterable[str] = ()) -> None:
        """Put another study on the desk. PA films come before lateral ones, as on a light box; a film counts once."""
        self.clear()
        unique = {film.id: film for film in films}
        self.films = tuple(sorted(unique.values(), key=lambda film: film.view == "LATERAL"))
        self.title, self.problems = title, tuple(problems)

    def mark(self, film_id: str, region: WristRegion) -> None:
        """Take the reader's own square for a film and forget what was read without it."""
        self.regions[film_id] = region
        for made in (self.readings, self.explanations, self.checks):
            made.clear()

    def reading(self, reader: Reader | EnsembleReader, card: Checkpoint | None = None) -> StudyReading:
        """Return what `reader` says of the study; read once. `card`: its own with other limits, where they are."""
        key = self.reading_key(reader.checkpoint)
        if key not in self.readings:
            reading = reader.read(self.films, self.regions)
            for each in (reading, *reading.members):
                self.readings[self.reading_key(each.checkpoint)] = each
        if card is None or card.card_sha256 == reader.checkpoint.card_sha256:
            return self.readings[key]
        return self.readings.setdefault(self.reading_key(card), judge(self.readings[key], card))

    @staticmethod
    def reading_key(checkpoint: Checkpoint) -> tuple:
        """Return the key under which a checkpoint's reading lies in `readings`."""
        return checkpoint.id, checkpoint.weights_sha256, checkpoint.card_sha256

    def explanation(self, reader: Reader, film: Radiograph, method: str, target: str, progress=None) -> Explanation:
        """Return a heat map of a film; made once."""
        key = self._explanation_key(reader.checkpoint, film.id, method, target)
        if key not in self.explanations:
            region = next(read.region for read in self.reading(reader).films if read.radiograph.id == film.id)
            self.explanations[key] = explain(
                reader.classifier, film, method=method, target=target, region=region, progress=progress
            )
            self._forget_oldest()
        self.explanations[key] = self.explanations.pop(key)  # shown last
        return self.explanations[key]

    def _forget_oldest(self) -> None:
        """Let go of the maps that were not shown for longest, if all together are too large; they can be made again."""
        held = sum(made.heatmap.nbytes for made in self.explanations.values())
        for key in list(self.explanations)[:-1]:
            if held <= MOST_BYTES:
                break
            held -= self.explanations.pop(key).heatmap.nbytes

    def has_explanation(self, reader: Reader, film: Radiograph, method: str, target: str) -> bool:
        """Whether a heat map was made already."""
        return self._explanation_key(reader.checkpoint, film.id, method, target) in self.explanations

    def checked(
        self, reader: Reader, scrambled: ScrambledClassifier, explanation: Explanation, progress=None
    ) -> Checks:
        """Return how far a heat map of a film on the desk can be trusted; measured once."""
        key = self.explanation_key(reader.checkpoint, explanation)
        if key not in self.checks:
            film = next(film for film in self.films if film.id == explanation.radiograph_id)
            region = next(read.region for read in self.reading(reader).films if read.radiograph.id == film.id)
            self.checks[key] = check_map(
                reader.classifier,
                film,
                method=explanation.method,
                target=explanation.target,
                region=region,
                scrambled=scrambled,
                progress=progress or (lambda done, total: None),
            )
        return self.checks[key]

    def explanation_key(self, checkpoint: Checkpoint, explanation: Explanation) -> tuple:
        """Return the key under which a heat map by `checkpoint` lies in `explanations`, and its checks in `checks`."""
        return self._explanation_key(checkpoint, explanation.radiograph_id, explanation.method, explanation.target)

    def _explanation_key(self, checkpoint: Checkpoint, film_id: str, method: str, target: str) -> tuple:
        # Not by the id alone: other weights or another card may come to lie under the same one while the server runs.
        return *self.reading_key(checkpoint), film_id, method, target

    def packed_film(self, film: Radiograph) -> bytes:
        """Return the film as the viewer takes it; packed once."""
        if film.id not in self.packed:
            self.packed[film.id] = film_bytes(film)
        return self.packed[film.id]


def read_files(files: Mapping[int, bytes] | Iterable[bytes]) -> tuple[list[Radiograph], list[str]]:
    """Read uploaded bytes; what cannot be read becomes a sentence that names the file by its place only."""
    films, problems = [], []
    data = list(files)
    for number, content in enumerate(data, 1):
        try:
            films.append(read_radiograph(content))
        except RadiographError as error:
            problems.append(f"File {number} of {len(data)}: {error}" if len(data) > 1 else str(error))
    return films, problems


def session_id() -> str:
    """Return the id of the browser session that this script runs for; "" outside of any."""
    context = get_script_run_ctx()
    return context.session_id if context else ""


def forget_uploads(session: str) -> None:
    """Drop a session's uploaded files from the server's memory, and mark its downloads for the next sweep."""
    if runtime.exists():
        runtime.get_instance().uploaded_file_mgr.remove_session_files(session)
        _sweep_downloads(session)


def forget_session(session: str) -> None:
    """Drop what the server holds of a session that has ended: its uploaded files, and in time its downloads.

    Not at once: another session's download may just be on its way, and this one's last may still be in the making.
    """
    forget_uploads(session)
    _sweep_later(session, SWEEPS_S)


def _sweep_downloads(session: str, pauses: tuple[float, ...] = ()) -> None:
    """Remove the downloads that were marked before, and mark the session's; again after each of `pauses` seconds."""
    if runtime.exists():
        media = runtime.get_instance().media_file_mgr
        media.clear_session_refs(session)
        media.remove_orphaned_files()
        _sweep_later(session, pauses)


def _sweep_later(session: str, pauses: tuple[float, ...]) -> None:
    if pauses:
        timer = threading.Timer(pauses[0], _sweep_downloads, (session, pauses[1:]))
        timer.daemon = True
        timer.start()


def _release(desk: Desk) -> None:
    desk.clear()
    forget_session(desk.session)


@st.cache_resource(scope="session", on_release=_release, show_spinner=False)
def open_desk() -> Desk:
    """Return this session's desk."""
    return Desk(session_id(), next(_STUDY_NUMBERS))
