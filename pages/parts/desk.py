"""The desk of one browser session: its films and all that was made of them, and nothing of anybody else's.

Everything about a patient lies here and only here, and is forgotten as soon as the browser goes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import streamlit as st
from streamlit.runtime.scriptrunner import StopException

from core.errors import RadiographError
from core.explain import explain
from core.explain.checks import Checks, check_map
from core.explain.scrambled import ScrambledClassifier
from core.radiographs import read_radiograph
from core.reading import EnsembleReader, Reader, StudyReading, judge
from core.values import Checkpoint, Explanation, Radiograph, WristRegion
from pages.parts.sessions import Belongings, session_id
from pages.parts.viewer import film_bytes

MOST_BYTES = 500_000_000
"""Heat maps that a session holds at once: of a film of five megapixels each takes 20 MB."""

UPLOADED = "Uploaded study"
"""Title of a study that a reader brought."""

_STUDY_NUMBERS = itertools.count(1)


@dataclass(eq=False)
class Desk(Belongings):
    """One session's study. It changes as the reader works; all it holds are values that do not."""

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
    checkpoint: str = ""

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
        super().clear()
        self.number = next(_STUDY_NUMBERS)
        self.title, self.films, self.problems, self.checkpoint = "", (), (), ""
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
        self.turn += 1
        self.regions[film_id] = region
        for made in (self.readings, self.explanations, self.checks):
            made.clear()

    def find_again(self) -> None:
        """Forget the reader's own squares and what was read in them: the wrists are found anew."""
        self.turn += 1
        for made in (self.regions, self.readings, self.explanations, self.checks):
            made.clear()

    def reading(self, reader: Reader | EnsembleReader, card: Checkpoint | None = None) -> StudyReading:
        """Return what `reader` says of the study; read once. `card`: its own with other limits, where they are."""
        turn = self.turn
        reading = self.readings.get(self.reading_key(reader.checkpoint))
        if reading is None:
            reading = reader.read(self.films, self.regions)
            self.stop_if_changed(turn)
            for each in (reading, *reading.members):
                self.readings[self.reading_key(each.checkpoint)] = each
        if card is None or card.card_sha256 == reader.checkpoint.card_sha256:
            return reading
        return self.readings.setdefault(self.reading_key(card), judge(reading, card))

    @staticmethod
    def reading_key(checkpoint: Checkpoint) -> tuple:
        """Return the key under which a checkpoint's reading lies in `readings`."""
        return checkpoint.id, checkpoint.weights_sha256, checkpoint.card_sha256

    def explanation(self, reader: Reader, film: Radiograph, method: str, target: str, progress=None) -> Explanation:
        """Return a heat map of a film; made once."""
        turn = self.turn
        key = self._explanation_key(reader.checkpoint, film.id, method, target)
        made = self.explanations.pop(key, None)
        if made is None:
            region = self._region_read(reader, film.id)
            made = explain(reader.classifier, film, method=method, target=target, region=region, progress=progress)
        self.stop_if_changed(turn)
        self.explanations[key] = made  # last, as that which was shown last
        self._forget_oldest()
        return made

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
        turn = self.turn
        key = self.explanation_key(reader.checkpoint, explanation)
        made = self.checks.get(key)
        if made is None:
            made = check_map(
                reader.classifier,
                self.film(explanation.radiograph_id),
                method=explanation.method,
                target=explanation.target,
                region=self._region_read(reader, explanation.radiograph_id),
                scrambled=scrambled,
                progress=progress or (lambda done, total: None),
            )
            self.stop_if_changed(turn)
            self.checks[key] = made
        return made

    def film(self, film_id: str) -> Radiograph:
        """Return a film of the study; stop the page if it is there no more: the page is of another study."""
        for film in self.films:
            if film.id == film_id:
                return film
        raise StopException

    def _region_read(self, reader: Reader, film_id: str) -> WristRegion | None:
        """Return the square that `reader` reads of a film."""
        self.film(film_id)
        return next(read.region for read in self.reading(reader).films if read.radiograph.id == film_id)

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


@st.cache_resource(scope="session", on_release=Belongings.end, show_spinner=False)
def open_desk() -> Desk:
    """Return this session's desk."""
    return Desk(session_id(), next(_STUDY_NUMBERS))
