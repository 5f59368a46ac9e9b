"""Intervals of anything that can be computed from weighted cases, and paired differences between two readers.

A statistic is a function of weights: how often each case is drawn, shape (resamples, cases), to its values, shape
(resamples,). Patients are drawn with replacement and bring all their cases along (a cluster bootstrap), and two readers
of the same studies are compared within the same resamples, so that what a hard study does to both cancels out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace

import numpy as np

from core.errors import ScoresError
from core.metrics import wilson_interval
from core.values import Interval, Scores

Statistic = Callable[[np.ndarray], np.ndarray]

RESAMPLES = 2000
ENSEMBLE = "all"
"""Id under which the mean of several checkpoints appears."""

_CELLS_AT_ONCE = 4_000_000


def auc_of(labels: Sequence[int], scores: Sequence[float]) -> Statistic:
    """Return the weighted area under the ROC curve as a statistic; NaN where a resample lacks a class.

    Parameters
    ----------
    labels : sequence of int
        0 or 1.
    scores : sequence of float
        Any finite numbers; ties count half.
    """
    labels, scores = np.asarray(labels, np.float64), np.asarray(scores, np.float64)
    order = np.argsort(-scores, kind="stable")
    ranked, firsts = labels[order], np.flatnonzero(np.append(True, np.diff(scores[order]) != 0))

    def area(weights: np.ndarray) -> np.ndarray:
        drawn = weights[:, order]
        positive = np.add.reduceat(drawn * ranked, firsts, axis=1)
        negative = np.add.reduceat(drawn * (1 - ranked), firsts, axis=1)
        above = np.cumsum(positive, axis=1) - positive / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            return (negative * above).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1))

    return area


def mean_of(values: Sequence[float]) -> Statistic:
    """Return the weighted mean as a statistic."""
    values = np.asarray(values, np.float64)
    return lambda weights: weights @ values / weights.sum(axis=1)


def quantile_of(values: Sequence[float], share: float) -> Statistic:
    """Return a weighted quantile as a statistic: the smallest value that at least `share` of the weight reaches.

    Where exactly that share is reached, the mean of this value and the next: the median of an even count.
    """
    values = np.asarray(values, np.float64)
    order = np.argsort(values, kind="stable")
    ranked = values[order]

    def quantile(weights: np.ndarray) -> np.ndarray:
        reached = np.cumsum(weights[:, order], axis=1)
        needed = share * reached[:, -1:]
        low = ranked[np.argmax(reached >= needed - 1e-9, axis=1)]
        high = ranked[np.argmax((reached > needed + 1e-9) | (reached == reached[:, -1:]), axis=1)]
        return (low + high) / 2

    return quantile


def interval_dict(interval: Interval) -> dict[str, float | int | None]:
    """Return value, low, high and n as JSON can hold them: what is not a number becomes None."""
    values = asdict(interval)
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}


def interval_of(
    statistic: Statistic, patients: Sequence[str], resamples: int = RESAMPLES, seed: int = 0, n: int | None = None
) -> Interval:
    """Return a statistic with its 95% percentile interval over resamples of the patients.

    Parameters
    ----------
    statistic : callable
        Weights, (resamples, cases), to values, (resamples,).
    patients : sequence of str
        One for each case.
    resamples, seed : int
    n : int, optional
        Cases that the estimate rests on, where it is not all of them.

    Returns
    -------
    Interval
        NaN limits where there are fewer than two patients. Resamples in which the statistic is not defined are left
        out; the interval is stretched to hold the value where it lies beside it.
    """
    codes = np.unique(np.array(patients, dtype=object), return_inverse=True)[1]
    n = codes.size if n is None else n
    if not codes.size:
        return Interval(math.nan, math.nan, math.nan, 0)
    value = float(statistic(np.ones((1, codes.size)))[0])
    if math.isnan(value) or codes.max() < 1:
        return Interval(value, math.nan, math.nan, n)
    samples = np.concatenate([statistic(weights) for weights in _draw(codes, resamples, seed)])
    samples = samples[np.isfinite(samples)]
    if not samples.size:
        return Interval(value, math.nan, math.nan, n)
    low, high = np.percentile(samples, (2.5, 97.5))
    return Interval(value, min(float(low), value), max(float(high), value), n)


def rate_interval(
    holds: Sequence[bool], patients: Sequence[str], resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return the share of cases in which something holds, with its interval over patients.

    Resampling cannot show what was never seen: where it holds in none or in all cases, the limits are those of Wilson's
    interval over as many patients.
    """
    holds = np.asarray(holds, bool)
    if holds.size and (holds.all() or not holds.any()):
        count = len(set(patients))
        return replace(wilson_interval(count if holds.all() else 0, count), n=holds.size)
    return interval_of(mean_of(holds), patients, resamples, seed)


def auc_difference(
    labels: Sequence[int],
    first: Sequence[float],
    second: Sequence[float],
    patients: Sequence[str],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return AUC of `first` minus AUC of `second` on the same studies, paired over resamples of the patients."""
    one, other = auc_of(labels, first), auc_of(labels, second)
    return interval_of(lambda weights: one(weights) - other(weights), patients, resamples, seed)


def compare_scores(first: Scores, second: Scores, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Return the difference of two checkpoints' AUC (first minus second) on the studies that both read.

    Raises
    ------
    ScoresError
        No study in common, or one with two labels.
    """
    where = {study: place for place, study in enumerate(second.study_ids)}
    pairs = [(place, where[study]) for place, study in enumerate(first.study_ids) if study in where]
    if not pairs:
        raise ScoresError("Scores of the same studies are needed to compare two checkpoints, but none is in both.")
    ours, theirs = (np.array(column) for column in zip(*pairs, strict=True))
    if (first.labels[ours] != second.labels[theirs]).any():
        raise ScoresError("A study must have the same label in both tables of scores, but one has not.")
    patients = [first.patient_ids[place] for place in ours]
    return auc_difference(
        first.labels[ours], first.probabilities[ours], second.probabilities[theirs], patients, resamples, seed
    )


def mean_scores(several: Sequence[Scores]) -> Scores:
    """Return the mean probability of every study over the checkpoints that read it, under the id ``all``."""
    rows: dict[str, tuple[str, int, list[float]]] = {}
    for scores in several:
        columns = (scores.study_ids, scores.patient_ids, scores.labels.tolist(), scores.probabilities.tolist())
        for study, patient, label, probability in zip(*columns, strict=True):
            rows.setdefault(study, (patient, label, []))[2].append(probability)
    return Scores(
        checkpoint_id=ENSEMBLE,
        split=several[0].split,
        study_ids=tuple(rows),
        patient_ids=tuple(patient for patient, _, _ in rows.values()),
        labels=np.array([label for _, label, _ in rows.values()], np.int8),
        probabilities=np.array([np.mean(found) for _, _, found in rows.values()], np.float64),
    )


def _draw(codes: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield how often each case is drawn, a chunk of resamples at a time."""
    rng = np.random.default_rng(seed)
    patients = int(codes.max()) + 1
    rows = max(1, _CELLS_AT_ONCE // max(codes.size, patients))
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        drawn = rng.integers(0, patients, size=(count, patients)) + patients * np.arange(count)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=count * patients).reshape(count, patients)
        yield counts[:, codes].astype(np.float64)
