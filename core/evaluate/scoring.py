"""Studies on disk to probabilities: every film is read once, whoever and however many look at it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from core.errors import DatasetError, RadiographError, ScaphoidError
from core.evaluate.baselines import StudyFacts, film_facts, study_facts
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


@dataclass(frozen=True, eq=False)
class StudiesRead:
    """What came of reading studies.

    Attributes
    ----------
    studies : tuple of Study
        Those of which at least one film could be read.
    scores : tuple of Scores
        One for each reader, of these studies in this order.
    facts : tuple of StudyFacts
        For the trivial baselines, one for each study; empty where they were not asked for.
    wrists : tuple of WristFound
        One for each film whose wrist the dataset marks, by the first reader that has a finder.
    """

    studies: tuple[Study, ...]
    scores: tuple[Scores, ...]
    facts: tuple[StudyFacts, ...] = ()
    wrists: tuple[WristFound, ...] = ()


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

    Where one class comes from finer films than the other, sharpness alone tells the label; at one resolution it cannot.

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
    read: Callable[[Path], Radiograph] = read_film,
    on_failure: Callable[[Path, str], None] = lambda path, sentence: None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Scores:
    """Give every study the mean probability of its films, by one classifier; see :func:`read_studies`.

    Returns
    -------
    Scores
        Without any study where no film could be read.
    """
    reader = _Pair(classifier, finder)
    return read_studies(
        studies, [reader], split=split, read=read, on_failure=on_failure, on_progress=on_progress
    ).scores[0]


def read_studies(
    studies: Sequence[Study],
    readers: Sequence[_Reader],
    *,
    split: str = "",
    marked: Mapping[Path, WristRegion] | None = None,
    use_marked: bool = False,
    with_facts: bool = False,
    wrist_pixels: int | None = None,
    read: Callable[[Path], Radiograph] = read_film,
    on_failure: Callable[[Path, str], None] = lambda path, sentence: None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> StudiesRead:
    """Give every study the mean probability of its films, by each of several readers.

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
    gathered = _Gathered(readers, dict(marked or {}), use_marked, with_facts, wrist_pixels)
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


@dataclass(eq=False)
class _Gathered:
    """Studies read so far."""

    readers: Sequence[_Reader]
    marked: dict[Path, WristRegion]
    use_marked: bool
    with_facts: bool
    wrist_pixels: int | None = None
    studies: list[Study] = field(default_factory=list)
    probabilities: list[list[float]] = field(default_factory=list)
    facts: list[StudyFacts] = field(default_factory=list)
    wrists: list[WristFound] = field(default_factory=list)

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
        seen = {key: (films, regions) for key, regions in known.items()}
        if self.wrist_pixels:
            for key, regions in known.items():
                coarse = [coarsen(*pair, self.wrist_pixels) for pair in zip(films, regions, strict=True)]
                seen[key] = tuple(map(list, zip(*coarse, strict=True)))
        row = []
        for reader in self.readers:
            predictions = reader.classifier.predict(*seen[self._finder_key(reader)])
            row.append(float(np.mean([prediction.probability for prediction in predictions])))
        self.studies.append(study)
        self.probabilities.append(row)
        if self.with_facts:
            size = self.readers[0].classifier.checkpoint.input_size
            triples = zip(paths, *seen[self._finder_key(self.readers[0])], strict=True)
            self.facts.append(
                study_facts([film_facts(film, path.stat().st_size, region, size) for path, film, region in triples])
            )

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
        scores = []
        for place, reader in enumerate(self.readers):
            card = reader.classifier.checkpoint
            scores.append(
                Scores(
                    checkpoint_id=card.id,
                    split=split,
                    study_ids=tuple(study.id for study in self.studies),
                    patient_ids=tuple(study.patient_id for study in self.studies),
                    labels=np.array([study.label for study in self.studies], dtype=np.int8),
                    probabilities=np.array([row[place] for row in self.probabilities], dtype=np.float64),
                    weights_sha256=card.weights_sha256,
                )
            )
        return StudiesRead(tuple(self.studies), tuple(scores), tuple(self.facts), tuple(self.wrists))
