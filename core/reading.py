"""A whole second opinion: films -> where the wrist is -> is the film fit to be read -> probability -> words.

The command line and the reading room both go this way, so that they cannot disagree.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.checkpoints import CHECKPOINTS
from core.quality import Quality, assess
from core.values import Checkpoint, Prediction, Radiograph, WristRegion

if TYPE_CHECKING:
    from core.classifier import Classifier, Decision
    from core.wrist import WristFinder


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
    """What one checkpoint says of a study.

    Attributes
    ----------
    checkpoint : Checkpoint
    films : tuple of FilmReading
        In the order given.
    probability : float or None
        Mean over the films that were read; None where none was.
    decision : Decision or None
    seconds : float
        Time from films in memory to the answer.
    """

    checkpoint: Checkpoint
    films: tuple[FilmReading, ...]
    probability: float | None
    decision: Decision | None
    seconds: float

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
        probability = study_probability(predictions) if predictions else None
        decision = None if probability is None else decide(probability, self.checkpoint)
        return StudyReading(self.checkpoint, films, probability, decision, time.perf_counter() - start)

    def _region(self, film: Radiograph, known: Mapping[str, WristRegion]) -> WristRegion | None:
        if self.finder is None:
            return None
        return known.get(film.id) or self.finder.find(film)


def import_tensorflow_quietly() -> None:
    """Import TensorFlow and keep its start-up notes off stderr, where a command says which film it could not read.

    No setting of TensorFlow silences them all. For commands only: what other threads write to stderr meanwhile is lost.
    """
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import tensorflow

        tensorflow.config.list_physical_devices()  # It also complains of a graphics card that is not there.
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def open_reader(checkpoint_id: str | None = None, folder: Path = CHECKPOINTS) -> Reader:
    """Load a checkpoint (the default one if no id is given) and the wrist finder its card names.

    Raises
    ------
    CheckpointError
        If either is missing, altered or made for something else.
    """
    from core.classifier import load_classifier
    from core.wrist import load_finder

    classifier = load_classifier(checkpoint_id, folder)
    region = classifier.checkpoint.region
    return Reader(classifier, load_finder(region, folder) if region else None)


def mean_probability(readings: Sequence[StudyReading]) -> float | None:
    """Return the mean of several checkpoints' study probabilities (an ensemble), or None where none read a film."""
    from core.classifier import ensemble_probability

    probabilities = [reading.probability for reading in readings if reading.probability is not None]
    return ensemble_probability(probabilities) if probabilities else None
