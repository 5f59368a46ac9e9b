"""``python -m core.evaluate``: what a checkpoint does on a dataset, or what a table of scores says, with intervals.

Reading a table of scores needs neither TensorFlow nor a checkpoint.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

import numpy as np

from core.datasets import FORMATS, DatasetIndex, describe, index_dataset, select_split
from core.errors import DatasetError, RadiographError, ScaphoidError, ScoresError
from core.metrics import ESTIMATES, Evaluation, evaluate_scores, read_scores, write_scores
from core.values import Checkpoint, Prediction, Radiograph, Scores, Study, WristRegion

if TYPE_CHECKING:
    from core.reading import Reader

DEFAULT_THRESHOLD = 0.5
PROBLEMS_NAMED = 20

_NAMES = {
    "auc": "AUC",
    "average_precision": "average precision",
    "brier": "Brier score",
    "ece": "calibration error (ECE)",
    "precision": "precision (PPV)",
    "npv": "NPV",
    "f1": "F1",
    "kappa": "Cohen's kappa",
}


class _Classifier(Protocol):
    """What is needed of a ``core.classifier.Classifier``."""

    checkpoint: Checkpoint

    def predict(
        self, radiographs: Sequence[Radiograph], regions: Sequence[WristRegion | None] | None
    ) -> Sequence[Prediction]: ...


class _Finder(Protocol):
    """What is needed of a ``core.wrist.WristFinder``."""

    def find(self, radiograph: Radiograph) -> WristRegion: ...


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
    """Give every study the mean probability of its films.

    Parameters
    ----------
    studies : sequence of Study
        With paths and labels; one study's films are in memory at a time.
    classifier : core.classifier.Classifier
    finder : core.wrist.WristFinder or None
        Finds the square that the classifier reads; None where it reads whole films.
    split : str
        Goes into the scores.
    read : callable
        Path -> Radiograph; may raise a ScaphoidError.
    on_failure : callable
        Called with (path, sentence) for each film that cannot be read. A study is scored by its other films, and left
        out where it has none.
    on_progress : callable
        Called with the number of studies done.

    Returns
    -------
    Scores
        Without any study where no film could be read.

    Raises
    ------
    DatasetError
        A study without a label.
    """
    rows: list[tuple[str, str, int, float]] = []
    for done, study in enumerate(studies, start=1):
        if study.label is None:
            raise DatasetError("Only studies with a label can be evaluated, but one has none.")
        films = []
        for path in study.paths:
            try:
                films.append(read(path))
            except ScaphoidError as error:
                on_failure(path, str(error))
        if films:
            regions = [finder.find(film) if finder else None for film in films]
            probabilities = [prediction.probability for prediction in classifier.predict(films, regions)]
            rows.append((study.id, study.patient_id, study.label, float(np.mean(probabilities))))
        on_progress(done)
    card = classifier.checkpoint
    return Scores(
        checkpoint_id=card.id,
        split=split,
        study_ids=tuple(row[0] for row in rows),
        patient_ids=tuple(row[1] for row in rows),
        labels=np.array([row[2] for row in rows], dtype=np.int8),
        probabilities=np.array([row[3] for row in rows], dtype=np.float64),
        weights_sha256=card.weights_sha256,
    )


def threshold_of(card: Checkpoint | None) -> float:
    """Return the threshold from which a checkpoint suspects a fracture: its high-specificity point, or its only one.

    0.5 where there is no checkpoint, or no operating point.
    """
    points = card.operating_points if card else ()
    named = {point.name: point.threshold for point in points}
    return named.get("high_specificity", next(iter(named.values()), DEFAULT_THRESHOLD))


def report(evaluation: Evaluation, checkpoint_id: str, resamples: int, seed: int) -> str:
    """Return the evaluation as a table for people."""
    counts, share = evaluation.confusion, evaluation.positives / evaluation.n
    lines = [
        f"{evaluation.n} studies of {evaluation.patients} patients, {evaluation.positives} positive ({share:.1%})"
        + (f", scored by {checkpoint_id}" if checkpoint_id else ""),
        "",
        f"{'':<26}{'value':>7}   {'95% interval':<16}{'n':>7}",
    ]
    for name in ESTIMATES:
        interval = getattr(evaluation, name)
        limits = f"{_number(interval.low)} to {_number(interval.high)}"
        lines.append(f"{_NAMES.get(name, name):<26}{_number(interval.value):>7}   {limits:<16}{interval.n:>7}")
        if name == "ece":
            lines += ["", f"called positive from {evaluation.threshold:.6g} on"]
    lines += [
        "",
        f"{'':<26}{'called positive':>16}{'called negative':>17}",
        f"{'positive':<26}{counts.tp:>16}{counts.fn:>17}",
        f"{'negative':<26}{counts.fp:>16}{counts.tn:>17}",
        "",
        f"Intervals: percentiles of {resamples} bootstrap resamples of the patients, seed {seed}.",
    ]
    return "\n".join(lines)


class Progress:
    """One line on a terminal that tells how far and how long; elsewhere a line at every tenth.

    Parameters
    ----------
    total : int
    stream : text stream
    """

    def __init__(self, total: int, stream: TextIO) -> None:
        self._total, self._stream, self._terminal = total, stream, stream.isatty()
        self._start = self._shown = time.monotonic()
        self._width = 0

    def __call__(self, done: int) -> None:
        """Show that `done` studies are done."""
        now = time.monotonic()
        minutes, seconds = divmod(round((now - self._start) / done * (self._total - done)), 60)
        line = f"{done} of {self._total} studies, {done / self._total:.0%}, {minutes}:{seconds:02} left"
        if not self._terminal:
            if done * 10 // self._total > (done - 1) * 10 // self._total:
                print(line, file=self._stream, flush=True)
        elif done == self._total or now - self._shown > 0.1:
            self._shown, self._width = now, max(self._width, len(line))
            self._stream.write("\r" + line.ljust(self._width) + ("\n" if done == self._total else ""))
            self._stream.flush()

    def clear(self) -> None:
        """Make room for another line."""
        if self._terminal and self._width:
            self._stream.write("\r" + " " * self._width + "\r")


def run(options: argparse.Namespace, open_reader: Callable[..., Reader] | None = None) -> int:
    """Carry out the command; return the exit status: 0, or 1 where any film was left out.

    Parameters
    ----------
    options : argparse.Namespace
        Of this module's command line.
    open_reader : callable or None
        (checkpoint id, and the folder of checkpoints where it is not the project's own) -> an object with `classifier`
        and `finder`; None: `core.reading.open_reader`.
    """
    if options.out and not options.out.absolute().parent.is_dir():  # told before the films are read, not after
        raise ScoresError("The table of scores must go into a folder that exists, but there is no such folder.")
    if options.scores:
        scores, card, complete = *_scores_from_table(options), True
    else:
        scores, card, complete = _scores_from_films(options, open_reader)
        if options.out:
            write_scores(scores, options.out)
    threshold = threshold_of(card) if options.threshold is None else options.threshold
    evaluation = evaluate_scores(scores, threshold, options.resamples, options.seed)
    if options.json:
        print(json.dumps(evaluation.to_dict(), allow_nan=False))
    else:
        print(report(evaluation, card.id if card else "", options.resamples, options.seed))
    return 0 if complete else 1


def _scores_from_table(options: argparse.Namespace) -> tuple[Scores, Checkpoint | None]:
    card = None
    if options.checkpoint:
        from core.checkpoints import find_checkpoint, read_card

        place = [options.checkpoints] if options.checkpoints else []
        card = read_card(find_checkpoint(options.checkpoint, *place))
    return read_scores(options.scores, card.id if card else "", options.split or ""), card


def _scores_from_films(
    options: argparse.Namespace, open_reader: Callable[..., Reader] | None
) -> tuple[Scores, Checkpoint, bool]:
    """Return the scores, the card, and whether every film was scored."""
    index = index_dataset(options.data, options.format)
    studies = select_split(index, options.split)
    _tell_about(index)
    if open_reader is None:
        from core.reading import import_tensorflow_quietly, open_reader

        import_tensorflow_quietly()
    place = [options.checkpoints] if options.checkpoints else []
    reader = open_reader(options.checkpoint, *place)
    progress = Progress(len(studies), sys.stderr)
    failures = 0

    def tell(path: Path, sentence: str) -> None:
        nonlocal failures
        failures += 1
        progress.clear()
        print(f"{path}: {sentence}", file=sys.stderr, flush=True)

    scores = score_studies(
        studies,
        reader.classifier,
        reader.finder,
        split=options.split or "all",
        on_failure=tell,
        on_progress=progress,
    )
    if failures:
        left_out = len(studies) - len(scores.study_ids)
        print(f"Films that could not be read: {failures}; studies left out for it: {left_out}.", file=sys.stderr)
    return scores, reader.classifier.checkpoint, not (failures or index.problems)


def _tell_about(index: DatasetIndex) -> None:
    """Say on stderr what was found, and what of it cannot be used."""
    print(describe(index.splits, index.problems), file=sys.stderr)
    for problem in index.problems[:PROBLEMS_NAMED]:
        print(f"{problem.path}: {problem.reason}", file=sys.stderr)
    if len(index.problems) > PROBLEMS_NAMED:
        print(f"and {len(index.problems) - PROBLEMS_NAMED} more", file=sys.stderr)
    for note in index.notes:
        print(note, file=sys.stderr)
    sys.stderr.flush()


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


_share.__name__, _count.__name__ = "number from 0 to 1", "whole number above 0"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m core.evaluate",
        description="Score every study of a dataset, or take scores, and print how good they are, each estimate with "
        "a 95% interval from a bootstrap over patients. For research and education; not a medical device.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", metavar="DIR", type=Path, help="folder of films, or a CSV table that lists them")
    source.add_argument(
        "--scores", metavar="FILE", type=Path, help="CSV with the columns study_id, patient_id, label, probability"
    )
    parser.add_argument("--format", choices=FORMATS, help="layout of --data (default: told by looking)")
    parser.add_argument("--split", metavar="NAME", help="only this split, such as valid (default: every study)")
    parser.add_argument("--checkpoint", metavar="ID", help="checkpoint that scores (default: the embedded one)")
    parser.add_argument("--checkpoints", metavar="DIR", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", metavar="FILE", type=Path, help="write the studies' scores to this CSV (with --data)")
    parser.add_argument(
        "--threshold",
        metavar="T",
        type=_share,
        help="call positive from this probability on (default: the checkpoint's high-specificity point; "
        f"{DEFAULT_THRESHOLD} for --scores without --checkpoint, or where the checkpoint has no operating point)",
    )
    parser.add_argument(
        "--resamples", metavar="N", type=_count, default=2000, help="bootstrap resamples (default: 2000)"
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of the bootstrap (default: 0)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run; a user's mistake is one line on stderr and exit status 1."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.scores and (options.out or options.format):
        parser.error("--out and --format belong to --data")
    if options.seed < 0:
        parser.error("--seed must be 0 or more")
    try:
        return run(options)
    except ScaphoidError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1


if __name__ == "__main__":
    sys.exit(main())
