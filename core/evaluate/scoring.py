"""Studies on disk to probabilities: every film is read once, whoever and however many look at it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from core.errors import DatasetError, RadiographError, ScaphoidError
from core.evaluate.baselines import StudyFacts, film_facts, study_facts
from core.metrics import pool
from core.quality import assess
from core.values import Checkpoint, Prediction, Radiograph, Scores, Study, WristRegion


class _Classifier(Protocol):
    """What is needed of a ``core.classifier.Classifier``."""

    checkpoint: Checkpoint

    def predict(
        self, radiographs: Sequence[Radiograph], regions: Sequence[WristRegion | None] | None
    ) -> Sequence[Prediction]: ...


class _Finder(Protocol):
    """What is needed of a ``core.wrist.WristFinder``."""

    def find(self, radiograph: Radiograph) -> WristRegion: ...


class _Reader(Protocol):
    """What is needed of a ``core.reading.Reader``."""

    classifier: _Classifier
    finder: _Finder | None


@dataclass(frozen=True, eq=False)
class WristFound:
    """How far from the wrist that a table marks a finder's centre lay, in sides of the marked square."""

    patient_id: str
    error: float


@dataclass(frozen=True)
class Refused:
    """How many films were not fit to be read, and of how many studies no film was."""

    films: int = 0
    studies: int = 0


@dataclass(frozen=True, eq=False)
class StudiesRead:
    """What came of reading studies.

    Attributes
    ----------
    studies : tuple of Study
        Those of which at least one reader read at least one film.
    scores : tuple of Scores
        One for each reader, of those of these studies that it read, in this order.
    facts : tuple of StudyFacts
        For the trivial baselines, one for each study; empty where they were not asked for.
    wrists : tuple of WristFound
        One for each film whose wrist the dataset marks, by the first reader that has a finder.
    refused : tuple of Refused
        What was left out because it is not fit to be read: one for each reader, and last what none of those that are
        in the mean read.
    refused_by_all : Refused
        What no reader read.
    """

    studies: tuple[Study, ...]
    scores: tuple[Scores, ...]
    facts: tuple[StudyFacts, ...] = ()
    wrists: tuple[WristFound, ...] = ()
    refused: tuple[Refused, ...] = ()
    refused_by_all: Refused = Refused()


def read_film(path: Path) -> Radiograph:
    """Read one film from disk.

    Raises
    ------
    RadiographError
        It cannot be opened or is no radiograph.
    """
    from core.radiographs import read_radiograph

    try:
        data = path.read_bytes()
    except OSError as error:
        raise RadiographError("A file that can be opened was expected, but this one cannot be.") from error
    return read_radiograph(data, path.name)


def coarsen(film: Radiograph, region: WristRegion | None, wrist_pixels: int) -> tuple[Radiograph, WristRegion | None]:
    """Reduce a film until its wrist square, or without one its longer side, has at most so many pixels a side.

    Where one class comes from finer films than the other, the size of their pixels tells the label; at one resolution
    it cannot. How sharply a film was taken and processed still can.

    Returns
    -------
    film : Radiograph
        The same where it is no finer.
    region : WristRegion or None
        In its pixels.
    """
    import cv2

    factor = wrist_pixels / (region.side if region else max(film.width, film.height))
    if factor >= 1:
        return film, region
    width, height = (max(round(length * factor), 1) for length in (film.width, film.height))
    pixels = cv2.resize(film.pixels, (width, height), interpolation=cv2.INTER_AREA)
    coarse = replace(film, pixels=pixels, spacing_mm=None)
    if region is None:
        return coarse, None
    across, down = width / film.width, height / film.height
    return coarse, replace(region, x=region.x * across, y=region.y * down, side=region.side * (across + down) / 2)


def score_studies(
    studies: Sequence[Study],
    classifier: _Classifier,
    finder: _Finder | None = None,
    *,
    split: str = "",
    read_unfit: bool = False,
    read: Callable[[Path], Radiograph] = read_film,
    on_failure: Callable[[Path, str], None] = lambda path, sentence: None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Scores:
    """Give every study its probability, by one classifier; see :func:`read_studies`.

    Returns
    -------
    Scores
        Without any study where no film could be read.
    """
    options = {"split": split, "read_unfit": read_unfit, "read": read}
    told = {"on_failure": on_failure, "on_progress": on_progress}
    return read_studies(studies, [_Pair(classifier, finder)], **options, **told).scores[0]


def read_studies(
    studies: Sequence[Study],
    readers: Sequence[_Reader],
    *,
    split: str = "",
    marked: Mapping[Path, WristRegion] | None = None,
    use_marked: bool = False,
    with_facts: bool = False,
    wrist_pixels: int | None = None,
    read_unfit: bool = False,
    in_mean: Collection[str] | None = None,
    read: Callable[[Path], Radiograph] = read_film,
    on_failure: Callable[[Path, str], None] = lambda path, sentence: None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> StudiesRead:
    """Give every study its probability (``core.metrics.pool``), by each of several readers.

    As when films are read in life, those that are not fit to be read (:func:`core.quality.assess`) are left out.

    Parameters
    ----------
    studies : sequence of Study
        With paths and labels; one study's films are in memory at a time.
    readers : sequence of core.reading.Reader
        Readers that name the same finder share what it finds.
    split : str
        Goes into the scores.
    marked : Mapping of pathlib.Path to WristRegion, optional
        Where the dataset says the wrist is.
    use_marked : bool
        Read the marked squares instead of those found, where there are any.
    with_facts : bool
        Gather what the trivial baselines need, at the first reader's input size and square.
    wrist_pixels : int, optional
        Once the wrist is found, make films coarser as :func:`coarsen` does.
    read_unfit : bool
        Read also the films that are not fit to be read.
    in_mean : collection of str, optional
        Ids of the checkpoints whose mean is taken; by default all.
    read : callable
        Path -> Radiograph; may raise a ScaphoidError.
    on_failure : callable
        Called with (path, sentence) for each film that cannot be read. A study is scored by its other films, and left
        out where it has none.
    on_progress : callable
        Called with the number of studies done.

    Raises
    ------
    DatasetError
        A study without a label.
    """
    gathered = _Gathered(readers, dict(marked or {}), use_marked, with_facts, wrist_pixels, read_unfit, in_mean)
    for done, study in enumerate(studies, start=1):
        if study.label is None:
            raise DatasetError("Only studies with a label can be evaluated, but one has none.")
        paths, films = [], []
        for path in study.paths:
            try:
                films.append(read(path))
                paths.append(path)
            except ScaphoidError as error:
                on_failure(path, str(error))
        if films:
            gathered.add(study, paths, films)
        on_progress(done)
    return gathered.finish(split)


@dataclass(frozen=True, eq=False)
class _Pair:
    classifier: _Classifier
    finder: _Finder | None


_Seen = tuple[Radiograph, WristRegion | None]


@dataclass(eq=False)
class _Gathered:
    """Studies read so far."""

    readers: Sequence[_Reader]
    marked: dict[Path, WristRegion]
    use_marked: bool
    with_facts: bool
    wrist_pixels: int | None = None
    read_unfit: bool = False
    in_mean: Collection[str] | None = None
    studies: list[Study] = field(default_factory=list)
    probabilities: list[list[float]] = field(default_factory=list)  # NaN where a reader read no film of a study
    facts: list[StudyFacts] = field(default_factory=list)
    wrists: list[WristFound] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)

    def add(self, study: Study, paths: Sequence[Path], films: Sequence[Radiograph]) -> None:
        known: dict[object, list[WristRegion | None]] = {}
        for reader in self.readers:
            key = self._finder_key(reader)
            if key not in known:
                known[key] = [reader.finder.find(film) if reader.finder else None for film in films]
        self._compare(study, paths, [found for key, found in known.items() if key is not None])
        if self.use_marked:
            known = {
                key: [self.marked.get(path, region) for path, region in zip(paths, found, strict=True)]
                for key, found in known.items()
                if key is not None
            } | ({None: known[None]} if None in known else {})
        seen = {key: self._fit(films, regions) for key, regions in known.items()}
        self._count_refused([[*seen[self._finder_key(reader)]] for reader in self.readers], len(films))
        if not any(seen.values()):
            return
        row = []
        for reader in self.readers:
            fit = list(seen[self._finder_key(reader)].values())
            predictions = reader.classifier.predict(*map(list, zip(*fit, strict=True))) if fit else []
            card, logits = reader.classifier.checkpoint, np.array([each.logit for each in predictions])
            row.append(pool(logits, card.calibration, card.study_calibration) if fit else math.nan)
        self.studies.append(study)
        self.probabilities.append(row)
        if self.with_facts:
            card = self.readers[0].classifier.checkpoint
            fit = seen[self._finder_key(self.readers[0])] or next(filter(None, seen.values()))
            # A film that was made coarser is still stored in the file it came from.
            stored = {place: paths[place].stat().st_size / films[place].pixels.size for place in fit}
            facts = [film_facts(film, stored[place], region, card) for place, (film, region) in fit.items()]
            self.facts.append(study_facts(facts))

    def _fit(self, films: Sequence[Radiograph], regions: Sequence[WristRegion | None]) -> dict[int, _Seen]:
        """Return the films that are fit to be read, as coarse as asked, and their squares: place -> both."""
        pairs = enumerate(zip(films, regions, strict=True))
        fit = {place: pair for place, pair in pairs if self.read_unfit or assess(*pair).level != "unfit"}
        if not self.wrist_pixels:
            return fit
        return {place: coarsen(*pair, self.wrist_pixels) for place, pair in fit.items()}

    def _count_refused(self, read: Sequence[Sequence[int]], films: int) -> None:
        """Count what each reader left out of a study of `films` films, and what all of the mean's did, and what all."""
        names = [reader.classifier.checkpoint.id for reader in self.readers]
        in_mean = [ours for name, ours in zip(names, read, strict=True) if self.in_mean is None or name in self.in_mean]
        read = [*read, set().union(*in_mean), set().union(*read)]
        before = self.refused or [Refused()] * len(read)
        self.refused = [
            Refused(old.films + films - len(ours), old.studies + (not ours))
            for old, ours in zip(before, read, strict=True)
        ]

    def _finder_key(self, reader: _Reader) -> object:
        """Readers whose cards name the same finder see the same squares."""
        if reader.finder is None:
            return None
        return reader.classifier.checkpoint.region or id(reader.finder)

    def _compare(self, study: Study, paths: Sequence[Path], found: Sequence[Sequence[WristRegion]]) -> None:
        for path, region in zip(paths, found[0] if found else (), strict=bool(found)):
            true = self.marked.get(path)
            if true is not None:
                error = float(np.hypot(region.x - true.x, region.y - true.y) / true.side)
                self.wrists.append(WristFound(study.patient_id, error))

    def finish(self, split: str) -> StudiesRead:
        probabilities = np.array(self.probabilities, np.float64).reshape(-1, len(self.readers))
        scores = []
        for reader, column in zip(self.readers, probabilities.T, strict=True):
            card = reader.classifier.checkpoint
            places = np.flatnonzero(~np.isnan(column))
            studies = [self.studies[place] for place in places]
            scores.append(
                Scores(
                    checkpoint_id=card.id,
                    split=split,
                    study_ids=tuple(study.id for study in studies),
                    patient_ids=tuple(study.patient_id for study in studies),
                    labels=np.array([study.label for study in studies], dtype=np.int8),
                    probabilities=column[places],
                    weights_sha256=card.weights_sha256,
                )
            )
        *refused, by_all = self.refused or [Refused()] * (len(self.readers) + 2)
        read = tuple(self.studies), tuple(scores), tuple(self.facts), tuple(self.wrists)
        return StudiesRead(*read, tuple(refused), by_all)
