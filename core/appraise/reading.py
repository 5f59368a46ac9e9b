"""Every chosen checkpoint reads every simulated study once, film by film, as films are read in life.

The wrist is found by the finder that the checkpoint's card names, films that are not fit to be read are refused, and a
study is pooled from its films, and their mean from the studies of each (`core.metrics.pool`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from core.appraise.kept import Kept
from core.appraise.studies import KnownFilm, KnownStudy, name_of
from core.checkpoints.ensembles import Ensemble, members_of
from core.classifier import ensemble_probability, square_fit
from core.explain.comparison import weights_key
from core.metrics import ENSEMBLE, finite_log_odds, mean_scores, pool
from core.quality import assess
from core.train.appraisal import angle_error, centre_error, look_at_peak
from core.values import Checkpoint, Prediction, Radiograph, Scores, WristRegion


class _Classifier(Protocol):
    """What is needed of a ``core.classifier.Classifier``."""

    checkpoint: Checkpoint

    def predict(
        self, radiographs: Sequence[Radiograph], regions: Sequence[WristRegion | None] | None
    ) -> Sequence[Prediction]: ...

    def location(self, radiograph: Radiograph, region: WristRegion | None) -> np.ndarray: ...


class _Finder(Protocol):
    def find(self, radiograph: Radiograph) -> WristRegion:
        """Return the wrist's square."""


class _Reader(Protocol):
    classifier: _Classifier
    finder: _Finder | None


@dataclass(frozen=True, eq=False)
class FilmRead:
    """What a checkpoint says of one film, and what is known of it.

    Attributes
    ----------
    study_id : str
    facts : Mapping
        As of :class:`core.appraise.studies.KnownFilm`.
    logit, probability : float
        Before calibration (of the mean of several: the log-odds of its probability), and of a study of this film alone.
    places : Mapping of str to bool
        Where the location head's peak lies, and for comparison the square's centre, on films with a break;
        empty elsewhere.
    """

    study_id: str
    facts: Mapping[str, Any]
    logit: float
    probability: float
    places: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class WristRead:
    """What a finder says of one film."""

    study_id: str
    centre_error: float  # in sides of the true square
    side_ratio: float  # log2
    angle_error: float  # degrees
    confidence: float = 1.0


@dataclass(eq=False)
class Reading:
    """Everything that was read.

    Attributes
    ----------
    films : dict of str to list of FilmRead
        By checkpoint; the mean of several as ``all``.
    scores : dict of str to Scores
        Of the studies, likewise; what is known of each makes columns.
    wrists : dict of str to list of WristRead
        By finder.
    refused : dict of str to int
        Films that were not fit to be read, by checkpoint; of the mean, those that none of its checkpoints reads.
    studies, positives, films_made : int
    """

    films: dict[str, list[FilmRead]]
    scores: dict[str, Scores] = field(default_factory=dict)
    wrists: dict[str, list[WristRead]] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    studies: int = 0
    positives: int = 0
    films_made: int = 0


def read_all(
    studies: Iterable[KnownStudy],
    readers: Sequence[_Reader],
    on_progress: Callable[[int], None] = lambda done: None,
    kept: Kept | None = None,
    mean: Ensemble | None = None,
) -> Reading:
    """Read studies with every reader, and add their mean where there are several.

    Parameters
    ----------
    studies : iterable of KnownStudy
        Each is forgotten once it was read.
    readers : sequence of core.reading.Reader
    on_progress : callable
        Called with the number of studies done.
    kept : core.appraise.kept.Kept, optional
        Answers of before, which are not asked for again, and where every new one goes.
    mean : core.checkpoints.ensembles.Ensemble, optional
        Of whom the mean is, and its calibration; by default of all, without.
    """
    kept = kept or Kept(None)
    cards = [reader.classifier.checkpoint for reader in readers]
    mean = mean or Ensemble(members_of(cards))
    reading = Reading({card.id: [] for card in cards}, refused={card.id: 0 for card in cards})
    if len(readers) > 1:
        reading.films[ENSEMBLE], reading.refused[ENSEMBLE] = [], 0
    for done, study in enumerate(studies, start=1):
        reading.studies, reading.positives = done, reading.positives + study.label
        reading.films_made += len(study.films)
        read = _read_study(study, readers, reading, kept)
        if len(readers) > 1:
            own = [answers for card, answers in zip(cards, read, strict=True) if card.id in mean.members]
            found = _mean_of(study, own, mean.study_calibration)
            reading.films[ENSEMBLE] += found
            reading.refused[ENSEMBLE] += len(study.films) - len(found)
        on_progress(done)
    reading.scores = {card.id: study_scores(card, reading.films[card.id]) for card in cards}
    if len(readers) > 1:
        own = [scores for name, scores in reading.scores.items() if name in mean.members]
        scores = mean_scores(own, mean.study_calibration)
        reading.scores[ENSEMBLE] = replace(scores, columns=_columns(reading.films[ENSEMBLE], scores.study_ids))
    return reading


def _read_study(
    study: KnownStudy, readers: Sequence[_Reader], reading: Reading, kept: Kept
) -> list[list[FilmRead | None]]:
    """Return what each reader says of each film, None where it refuses it, and note it in `reading`."""
    found: dict[str | None, list[WristRegion | None]] = {}
    fit: dict[str | None, list[bool]] = {}
    answers = []
    for reader in readers:
        card = reader.classifier.checkpoint
        if card.region not in found:
            found[card.region] = _find(study, reader, reading)
            fit[card.region] = [
                assess(film.radiograph, region).level != "unfit"
                for film, region in zip(study.films, found[card.region], strict=True)
            ]
        answers.append(_ask(study, reader.classifier, found[card.region], fit[card.region], kept))
        reading.films[card.id] += [film for film in answers[-1] if film]
        reading.refused[card.id] += sum(film is None for film in answers[-1])
    return answers


def _find(study: KnownStudy, reader: _Reader, reading: Reading) -> list[WristRegion | None]:
    if reader.finder is None:
        return [None] * len(study.films)
    regions = [reader.finder.find(film.radiograph) for film in study.films]
    wrists = reading.wrists.setdefault(reader.classifier.checkpoint.region, [])
    for film, region in zip(study.films, regions, strict=True):
        ratio = math.log2(region.side / film.region.side)
        off, turned = centre_error(region, film.region), angle_error(region, film.region)
        wrists.append(WristRead(study.id, off, ratio, turned, region.confidence))
    return regions


def _ask(
    study: KnownStudy,
    classifier: _Classifier,
    regions: Sequence[WristRegion | None],
    fit: Sequence[bool],
    kept: Kept,
) -> list[FilmRead | None]:
    read: list[FilmRead | None] = [None] * len(study.films)
    chosen = [place for place, is_fit in enumerate(fit) if is_fit]
    films, squares = [study.films[place] for place in chosen], [regions[place] for place in chosen]
    key = _key(classifier.checkpoint, films)
    answers = kept.find(key)
    if answers is None and films:
        predictions = classifier.predict([film.radiograph for film in films], squares)
        answers = [
            [answer.logit, _places(film, classifier, region)]
            for answer, film, region in zip(predictions, films, squares, strict=True)
        ]
        kept.add(key, answers)
    card = classifier.checkpoint
    for place, film, (logit, places) in zip(chosen, films, answers or (), strict=True):
        alone = pool(np.array([logit]), card.calibration, card.study_calibration)
        read[place] = FilmRead(study.id, film.facts, logit, alone, places)
    return read


def _key(card: Checkpoint, films: Sequence[KnownFilm]) -> list[str]:
    """Return what a checkpoint's answers about these films hang on."""
    reads = json.dumps([card.looks, card.region])
    return [card.id, weights_key(card), reads, *map(name_of, films)]


def _places(film: KnownFilm, classifier: _Classifier, region: WristRegion | None) -> dict[str, bool]:
    """Say where the location head's peak lies; empty where nothing is broken, or where there is no such head."""
    card, radiograph = classifier.checkpoint, film.radiograph
    if not card.location_head or not film.facts["label"]:
        return {}
    square = square_fit(card, radiograph, region)
    return look_at_peak(film.mask, square, classifier.location(radiograph, region))


def _mean_of(
    study: KnownStudy, answers: Sequence[Sequence[FilmRead | None]], calibration: Mapping[str, Any] | None
) -> list[FilmRead]:
    """Return the mean over the checkpoints that read each film, calibrated as a mean of theirs, and its log-odds."""
    mean = []
    for place, film in enumerate(study.films):
        read = [each[place].probability for each in answers if each[place]]
        if read:
            probability = ensemble_probability(read, calibration)
            mean.append(FilmRead(study.id, film.facts, finite_log_odds(probability), probability))
    return mean


_COLUMNS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "age": lambda facts: "child" if facts["child"] else "adult",
    "hardware": lambda facts: facts["hardware"],
    "cast": lambda facts: "cast" if facts["cast"] else "no cast",
    "kind": lambda facts: facts["kind"],
    "displacement": lambda facts: f"{facts['displacement_mm']:.1f} mm" if facts["label"] else "",
}


def study_scores(card: Checkpoint, films: Sequence[FilmRead]) -> Scores:
    """Return what a checkpoint says of each study, whose films it read; each simulated study is a patient of its own.

    What is known of a study as a whole (age, hardware, cast, kind and displacement of the break) makes columns.
    """
    by_study = _by_study(films)
    logits = [np.array([film.logit for film in found]) for found in by_study.values()]
    return Scores(
        checkpoint_id=card.id,
        split="test",
        study_ids=tuple(by_study),
        patient_ids=tuple(by_study),
        labels=np.array([found[0].facts["label"] for found in by_study.values()], np.int8),
        probabilities=np.array([pool(each, card.calibration, card.study_calibration) for each in logits]),
        weights_sha256=card.weights_sha256,
        columns=_columns(films, by_study),
    )


def _columns(films: Sequence[FilmRead], study_ids: Iterable[str]) -> dict[str, tuple[str, ...]]:
    by_study = _by_study(films)
    firsts = [by_study[study][0].facts for study in study_ids]
    return {name: tuple(map(say, firsts)) for name, say in _COLUMNS.items()}


def _by_study(films: Sequence[FilmRead]) -> dict[str, list[FilmRead]]:
    by_study: dict[str, list[FilmRead]] = {}
    for film in films:
        by_study.setdefault(film.study_id, []).append(film)
    return by_study
