"""What a checkpoint did on one set of studies, at one threshold and at all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any

import numpy as np

from core.errors import ScoresError
from core.metrics.proportions import PROPORTIONS, RATES, Confusion, confusion, rates_of
from core.metrics.resampling import RESAMPLES, Resamples, never_seen, percentile_interval, resample
from core.values import Interval, Scores

SWEEP_POINTS = 201
"""Thresholds at which a sweep carries bands, where the studies have more distinct probabilities."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a checkpoint did on one set of studies.

    Attributes
    ----------
    n, positives, patients : int
        Studies, positive studies, patients.
    threshold : float
    confusion : Confusion
    auc, average_precision, brier, ece, adaptive_ece, log_loss : Interval
        Of the probabilities. `ece`: expected calibration error over ten bins of equal width (Naeini et al., AAAI 2015),
        `adaptive_ece`: over ten that hold equally many.
    sensitivity, specificity, accuracy, precision, npv, f1, kappa, balanced_accuracy, youden, mcc : Interval
        At the threshold, see `rates_of`. Each interval's `n` is the number of studies in the estimate's denominator.
    """

    n: int
    positives: int
    patients: int
    threshold: float
    confusion: Confusion
    auc: Interval
    average_precision: Interval
    brier: Interval
    ece: Interval
    sensitivity: Interval
    specificity: Interval
    accuracy: Interval
    precision: Interval
    npv: Interval
    f1: Interval
    kappa: Interval
    balanced_accuracy: Interval
    youden: Interval
    mcc: Interval
    adaptive_ece: Interval
    log_loss: Interval

    def to_dict(self) -> dict[str, Any]:
        """Return what ``python -m core.evaluate --json`` prints; NaN becomes None."""
        counts = self.confusion
        out: dict[str, Any] = {"n": self.n, "positives": self.positives}
        for name in ESTIMATES[:4]:
            out[name] = limits_dict(getattr(self, name))
        out["threshold"] = self.threshold
        out["confusion"] = {"tp": counts.tp, "fp": counts.fp, "tn": counts.tn, "fn": counts.fn}
        for name in ESTIMATES[4:]:
            out[name] = limits_dict(getattr(self, name))
        return out


ESTIMATES = tuple(field.name for field in fields(Evaluation) if field.type == "Interval")
"""The evaluation's estimates in the order in which they are told."""
METRIC_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "auc": "AUC",
        "average_precision": "Average precision",
        "sensitivity": "Sensitivity",
        "specificity": "Specificity",
        "precision": "PPV",
        "npv": "NPV",
        "accuracy": "Accuracy",
        "balanced_accuracy": "Balanced accuracy",
        "youden": "Youden's index",
        "f1": "F1",
        "kappa": "Cohen's kappa",
        "mcc": "Matthews' correlation",
        "brier": "Brier score",
        "log_loss": "Log loss",
        "ece": "Calibration error (ECE)",
        "adaptive_ece": "Calibration error, adaptive bins",
    }
)
"""Estimates -> what they are called, in the order in which people look at them."""


@dataclass(frozen=True, eq=False)
class ThresholdSweep:
    """Every rate at many thresholds, with 95% bands over patients, point by point.

    Attributes
    ----------
    thresholds : numpy.ndarray
        Rising, shape (k,): distinct probabilities, and a last one above all of them, at which nothing is called.
    confusions : numpy.ndarray
        int, shape (k, 4): tp, fp, tn, fn.
    values, low, high : Mapping of str to numpy.ndarray
        For each of ``core.metrics.RATES``, shape (k,); NaN where undefined.
    """

    thresholds: np.ndarray
    confusions: np.ndarray
    values: dict[str, np.ndarray]
    low: dict[str, np.ndarray]
    high: dict[str, np.ndarray]


def evaluate_scores(scores: Scores, threshold: float, resamples: int = RESAMPLES, seed: int = 0) -> Evaluation:
    """Measure `scores` at `threshold`, each estimate with its 95% interval over patients.

    Parameters
    ----------
    scores : Scores
    threshold : float
        Called positive from it on.
    resamples : int
        Bootstrap resamples, at least 1.
    seed : int
        The same scores, resamples and seed give the same intervals.

    Returns
    -------
    Evaluation
        As `evaluate`.

    Raises
    ------
    ScoresError
        As `check_scores`; a threshold that is NaN; fewer than one resample.
    """
    return evaluate(resample(scores, resamples, seed), threshold)


def evaluate(resamples: Resamples, threshold: float) -> Evaluation:
    """Measure scores whose patients were resampled at one threshold; quick, whatever their number.

    Returns
    -------
    Evaluation
        An undefined estimate is NaN with NaN limits, and resamples in which an estimate is undefined are left out of
        its interval. One patient alone cannot be resampled: the limits are NaN. A share of exactly 0 or 1 never changes
        in a resample: its limits are those of Wilson's interval over the patients it rests on.

    Raises
    ------
    ScoresError
        A threshold that is NaN.
    """
    scores = resamples.scores
    counts = confusion(scores, threshold)
    if math.isnan(counts.threshold):
        raise ScoresError("The threshold must be a number, but it is not.")
    n, alone = len(scores.study_ids), resamples.patients < 2
    found = {
        name: percentile_interval(value, resamples.samples[name][:0] if alone else resamples.samples[name], n)
        for name, value in resamples.values.items()
    }
    values = rates_of(counts.tp, counts.fp, counts.tn, counts.fn)
    samples = rates_of(*(table[:, 0] for table in resamples.counts_at(np.array([threshold]))))
    for name in RATES:
        value, cases = float(values[name]), counts.cases(name)
        if name in PROPORTIONS and value in (0.0, 1.0) and not alone:
            found[name] = never_seen(value == 1.0, _patients_of(name, scores, counts.threshold), cases)
        else:
            found[name] = percentile_interval(value, samples[name][:0] if alone else samples[name], cases)
    return Evaluation(
        n=n,
        positives=counts.tp + counts.fn,
        patients=resamples.patients,
        threshold=counts.threshold,
        confusion=counts,
        **found,
    )


def sweep_thresholds(resamples: Resamples, points: int = SWEEP_POINTS) -> ThresholdSweep:
    """Measure every rate at up to `points` thresholds that occur, and at one above all.

    Thresholds are spread over the ranks of the studies, so that the curves are as fine where the studies lie dense.
    """
    scores = resamples.scores
    distinct = np.unique(scores.probabilities)
    if distinct.size >= points:
        ranked = np.sort(scores.probabilities)
        distinct = np.unique(ranked[np.linspace(0, ranked.size - 1, points - 1).round().astype(int)])
    thresholds = np.append(distinct, np.nextafter(distinct[-1], np.inf))
    confusions = np.empty((thresholds.size, 4), int)
    for column, (label, called) in enumerate(((1, True), (0, True), (0, False), (1, False))):
        ranked = np.sort(scores.probabilities[scores.labels == label])
        below = np.searchsorted(ranked, thresholds, side="left")
        confusions[:, column] = ranked.size - below if called else below
    samples = rates_of(*resamples.counts_at(thresholds))
    limits = {name: _limits(samples[name]) for name in RATES}
    values = rates_of(*confusions.T)
    if resamples.patients < 2:
        limits = {name: np.full((2, thresholds.size), np.nan) for name in RATES}
    return ThresholdSweep(
        thresholds=thresholds,
        confusions=confusions,
        values=values,
        low={name: np.fmin(limits[name][0], values[name]) for name in RATES},
        high={name: np.fmax(limits[name][1], values[name]) for name in RATES},
    )


def interval_dict(interval: Interval) -> dict[str, float | int | None]:
    """Return value, low, high and n as JSON can hold them: what is not a number becomes None."""
    values = asdict(interval)
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}


def limits_dict(interval: Interval) -> dict[str, float | None]:
    """Return value, low and high as `interval_dict` does."""
    return {name: value for name, value in interval_dict(interval).items() if name != "n"}


def _limits(samples: np.ndarray) -> np.ndarray:
    """Return the limits that hold 95% of each column, NaN left out, shape (2, columns)."""
    ranked = np.sort(samples, axis=0)  # NaN comes last
    known = np.isfinite(samples).sum(axis=0)
    out = np.full((2, samples.shape[1]), np.nan)
    some, columns = known > 0, np.arange(samples.shape[1])
    for row, share in enumerate((0.025, 0.975)):
        place = share * np.maximum(known - 1, 0)
        lower = np.floor(place).astype(int)
        upper = np.minimum(lower + 1, np.maximum(known - 1, 0))
        low, high = ranked[lower, columns], ranked[upper, columns]
        out[row, some] = (low + (place - lower) * (high - low))[some]
    return out


def _patients_of(rate: str, scores: Scores, threshold: float) -> list[str]:
    """Return the patients of the studies in a share's denominator."""
    called, positive = scores.probabilities >= threshold, scores.labels == 1
    cells = {"tp": called & positive, "fp": called & ~positive, "tn": ~called & ~positive, "fn": ~called & positive}
    inside = np.logical_or.reduce([cells[cell] for cell in PROPORTIONS[rate]])
    return [scores.patient_ids[place] for place in np.flatnonzero(inside)]
