"""A whole second opinion: films -> where the wrist is -> is the film fit to be read -> probability -> words.

The command line and the reading room both go this way, so that they cannot disagree.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from core.checkpoints import CHECKPOINTS
from core.checkpoints.ensembles import find_ensemble
from core.quality import Quality, assess
from core.values import Checkpoint, Prediction, Radiograph, WristRegion

if TYPE_CHECKING:
    from core.classifier import Classifier, Decision
    from core.wrist import WristFinder

# Asks for the mean of the models where a checkpoint's id is expected.
ALL = "all"


@dataclass(frozen=True, eq=False)
class FilmReading:
    """One film of a study as one checkpoint read it.

    Attributes
    ----------
    radiograph : Radiograph
    region : WristRegion or None
        Where the wrist was found or set; None where the checkpoint reads whole films.
    quality : Quality
    prediction : Prediction or None
        None where the film is not fit to be read; `quality` says why.
    """

    radiograph: Radiograph
    region: WristRegion | None
    quality: Quality
    prediction: Prediction | None


@dataclass(frozen=True, eq=False)
class StudyReading:
    """What one checkpoint, or the mean of several, says of a study.

    Attributes
    ----------
    checkpoint : Checkpoint
        For a mean: its card as of ``core.checkpoints.ensembles``.
    films : tuple of FilmReading
        In the order given.
    probability : float or None
        Of the films that were read, see ``core.metrics.pool``; None where none was, or where they are of both wrists.
    decision : Decision or None
    seconds : float
        Time from films in memory to the answer.
    members : tuple of StudyReading
        For a mean: what each of its models says.
    """

    checkpoint: Checkpoint
    films: tuple[FilmReading, ...]
    probability: float | None
    decision: Decision | None
    seconds: float
    members: tuple[StudyReading, ...] = ()

    @property
    def of_both_wrists(self) -> bool:
        """Whether the films say that they are of a left and of a right wrist: the mean of two wrists says nothing."""
        return of_both_wrists(film.radiograph for film in self.films)

    @property
    def driver(self) -> FilmReading | None:
        """The film with the highest probability, which drives the study's; None where no film was read."""
        read = [film for film in self.films if film.prediction]
        return max(read, key=lambda film: film.prediction.probability, default=None)


@dataclass(frozen=True, eq=False)
class Reader:
    """A checkpoint ready to read films, with the wrist finder it needs."""

    classifier: Classifier
    finder: WristFinder | None

    @property
    def checkpoint(self) -> Checkpoint:
        """The card of the checkpoint that reads."""
        return self.classifier.checkpoint

    def read(self, radiographs: Sequence[Radiograph], regions: Mapping[str, WristRegion] | None = None) -> StudyReading:
        """Read the films of one study.

        Parameters
        ----------
        radiographs : sequence of Radiograph
        regions : mapping of str to WristRegion, optional
            Squares set by the reader or found before, by radiograph id; the others are found.

        Returns
        -------
        StudyReading
        """
        from core.classifier import decide, study_probability

        start = time.perf_counter()
        squares = [self._region(film, regions or {}) for film in radiographs]
        qualities = [assess(film, region) for film, region in zip(radiographs, squares, strict=True)]
        fit = [index for index, quality in enumerate(qualities) if quality.level != "unfit"]
        predictions = self.classifier.predict([radiographs[i] for i in fit], [squares[i] for i in fit]) if fit else []
        by_index = dict(zip(fit, predictions, strict=True))
        films = tuple(
            FilmReading(film, squares[i], qualities[i], by_index.get(i)) for i, film in enumerate(radiographs)
        )
        answered = predictions and not of_both_wrists(radiographs)
        probability = study_probability(predictions, self.checkpoint) if answered else None
        decision = None if probability is None else decide(probability, self.checkpoint)
        return StudyReading(self.checkpoint, films, probability, decision, time.perf_counter() - start)

    def _region(self, film: Radiograph, known: Mapping[str, WristRegion]) -> WristRegion | None:
        if self.finder is None:
            return None
        return known.get(film.id) or self.finder.find(film)


@dataclass(frozen=True, eq=False)
class EnsembleReader:
    """Several checkpoints that read together: the mean of their probabilities, calibrated where that was fitted.

    Attributes
    ----------
    readers : tuple of Reader
    checkpoint : Checkpoint
        The mean's card.
    """

    readers: tuple[Reader, ...]
    checkpoint: Checkpoint

    def read(self, radiographs: Sequence[Radiograph], regions: Mapping[str, WristRegion] | None = None) -> StudyReading:
        """Read the films of one study with every model; parameters and result as :meth:`Reader.read`.

        Models with the same wrist finder read the same square; it is searched for once. A study's probability is the
        mean over the models that read any of its films, calibrated by the mean's card.
        """
        from core.classifier import decide

        start = time.perf_counter()
        found: dict[str | None, dict[str, WristRegion]] = {}
        members = []
        for reader in self.readers:
            finder = reader.checkpoint.region
            member = reader.read(radiographs, found.get(finder, regions))
            found.setdefault(finder, {film.radiograph.id: film.region for film in member.films if film.region})
            members.append(member)
        films = tuple(self._film([member.films[place] for member in members]) for place in range(len(radiographs)))
        probability = mean_probability(members, self.checkpoint)
        decision = None if probability is None else decide(probability, self.checkpoint)
        seconds = time.perf_counter() - start
        return StudyReading(self.checkpoint, films, probability, decision, seconds, tuple(members))

    def _film(self, readings: Sequence[FilmReading]) -> FilmReading:
        """Return what the models say of one film together: the mean over those that read it, and its log-odds."""
        from core.classifier import ensemble_probability
        from core.metrics import finite_log_odds

        read = [reading for reading in readings if reading.prediction]
        shown = next((reading for reading in (*read, *readings) if reading.region), (*read, *readings)[0])
        if not read:
            return FilmReading(shown.radiograph, shown.region, shown.quality, None)
        probabilities = [reading.prediction.probability for reading in read]
        mean = ensemble_probability(probabilities, self.checkpoint.study_calibration)
        prediction = Prediction(shown.radiograph.id, self.checkpoint.id, finite_log_odds(mean), mean)
        return FilmReading(shown.radiograph, shown.region, shown.quality, prediction)


def of_both_wrists(radiographs: Iterable[Radiograph]) -> bool:
    """Tell whether some films say that they are of a left wrist and others of a right one."""
    return {"L", "R"} <= {film.laterality for film in radiographs}


def judge(reading: StudyReading, card: Checkpoint) -> StudyReading:
    """Return a reading with the words that another card of the same checkpoint (other limits) puts it into."""
    from core.classifier import decide

    decision = None if reading.probability is None else decide(reading.probability, card)
    return replace(reading, checkpoint=card, decision=decision)


def import_tensorflow_quietly() -> None:
    """Import TensorFlow and keep its start-up notes off stderr, where a command says which film it could not read.

    No setting of TensorFlow silences them all. For commands only: what other threads write to stderr meanwhile is lost.
    """
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    # Millions of objects are made, and none is garbage: to look through them again and again takes half a second.
    collecting = gc.isenabled()
    gc.disable()
    try:
        import tensorflow

        tensorflow.config.list_physical_devices()  # It also complains of a graphics card that is not there.
    finally:
        if collecting:
            gc.enable()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def open_reader(
    checkpoint_id: str | None = None,
    folder: Path = CHECKPOINTS,
    finder_of: Callable[[str], WristFinder] | None = None,
) -> Reader | EnsembleReader:
    """Load a checkpoint (the default one if no id is given) and the wrist finder its card names.

    Parameters
    ----------
    checkpoint_id : str or None
        `ALL` opens the mean of the models, as it was measured.
    folder : pathlib.Path
    finder_of : callable, optional
        Returns a wrist finder by its id, where finders are kept; by default it is loaded.

    Raises
    ------
    CheckpointError
        If either is missing, altered or made for something else; for a mean, also if there are fewer than two models.
    """
    from core.classifier import load_classifier
    from core.wrist import load_finder

    if checkpoint_id == ALL:
        return open_ensemble(folder)
    classifier = load_classifier(checkpoint_id, folder)
    region = classifier.checkpoint.region
    if region is None:
        return Reader(classifier, None)
    return Reader(classifier, finder_of(region) if finder_of else load_finder(region, folder))


def open_ensemble(folder: Path = CHECKPOINTS, reader_of: Callable[[str], Reader] | None = None) -> EnsembleReader:
    """Load the models whose mean is taken (see ``core.checkpoints.ensembles``).

    Parameters
    ----------
    folder : pathlib.Path
    reader_of : callable, optional
        Returns a reader by its checkpoint's id, where readers are kept; by default they are loaded.

    Raises
    ------
    CheckpointError
        There are fewer than two, one is broken, or the ensemble's file is.
    """
    from functools import lru_cache

    from core.wrist import load_finder

    card, members = find_ensemble(folder)
    finder_of = lru_cache(lambda finder_id: load_finder(finder_id, folder))
    readers = reader_of or (lambda key: open_reader(key, folder, finder_of))
    return EnsembleReader(tuple(readers(member.id) for member in members), card)


def mean_probability(readings: Sequence[StudyReading], card: Checkpoint | None = None) -> float | None:
    """Return the mean of several checkpoints' study probabilities, or None where none read a film.

    It is calibrated by `card`, the mean's own, where there is one.
    """
    from core.classifier import ensemble_probability

    probabilities = [reading.probability for reading in readings if reading.probability is not None]
    return ensemble_probability(probabilities, card and card.study_calibration) if probabilities else None
