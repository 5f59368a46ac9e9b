"""What a checkpoint did on one set of studies, at one threshold and at all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any

import numpy as np

from core.errors import ScoresError
from core.metrics.calibration import LOG_LOSS_FLOOR
from core.metrics.proportions import PROPORTIONS, RATES, Confusion, count_called, least_of_all, rates_of
from core.metrics.resampling import RESAMPLES, Resamples, at_end, percentile_interval, resample
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
        For each of ``core.metrics.RATES``, shape (k,); NaN where undefined. In a `full_sweep` limits are NaN at
        thresholds for which none were computed.
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
        in a resample: its limits are those of Wilson's interval over the patients it rests on, and what follows from
        such a sensitivity or specificity holds what it would be at their limits. An AUC or average precision at an end
        has Wilson's limits over the patients of the smaller class.

    Raises
    ------
    ScoresError
        A threshold that is NaN.
    """
    scores = resamples.scores
    counts = count_called(scores, threshold)
    if math.isnan(counts.threshold):
        raise ScoresError("The threshold must be a number, but it is not.")
    n, alone = len(scores.study_ids), resamples.patients < 2
    found = {
        name: percentile_interval(value, resamples.samples[name][:0] if alone else resamples.samples[name], n)
        for name, value in resamples.values.items()
    }
    found = {name: _at_end(name, each, resamples) for name, each in found.items()}
    cells = np.array([[counts.tp, counts.fp, counts.tn, counts.fn]])
    values, limits = _rates_and_limits(resamples, np.array([threshold]), cells)
    for name in RATES:
        low, high = limits[name][:, 0].tolist()
        found[name] = Interval(float(values[name][0]), low, high, counts.cases(name))
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
    confusions = _confusions(scores, thresholds)
    values, limits = _rates_and_limits(resamples, thresholds, confusions)
    return ThresholdSweep(
        thresholds=thresholds,
        confusions=confusions,
        values=values,
        low={name: limits[name][0] for name in RATES},
        high={name: limits[name][1] for name in RATES},
    )


def full_sweep(resamples: Resamples, banded: ThresholdSweep | None = None) -> ThresholdSweep:
    """Measure every rate at every distinct probability, and at one threshold above all; every value is exact.

    Limits are computed at the thresholds of `sweep_thresholds` alone, and are NaN between them: at each of many
    thousands they would take minutes.

    Parameters
    ----------
    resamples : Resamples
    banded : ThresholdSweep, optional
        What `sweep_thresholds` gave for them, where it is at hand.
    """
    banded = sweep_thresholds(resamples) if banded is None else banded
    distinct = np.unique(resamples.scores.probabilities)
    thresholds = np.append(distinct, np.nextafter(distinct[-1], np.inf))
    confusions = _confusions(resamples.scores, thresholds)
    places = np.searchsorted(thresholds, banded.thresholds)

    def spread(limits: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        spread_out = {name: np.full(thresholds.size, np.nan) for name in RATES}
        for name, values in spread_out.items():
            values[places] = limits[name]
        return spread_out

    return ThresholdSweep(thresholds, confusions, rates_of(*confusions.T), spread(banded.low), spread(banded.high))


def interval_dict(interval: Interval) -> dict[str, float | int | None]:
    """Return value, low, high and n as JSON can hold them: what is not a number becomes None."""
    values = asdict(interval)
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}


def limits_dict(interval: Interval) -> dict[str, float | None]:
    """Return value, low and high as `interval_dict` does."""
    return {name: value for name, value in interval_dict(interval).items() if name != "n"}


def _at_end(name: str, found: Interval, resamples: Resamples) -> Interval:
    """Return one of `WITHOUT_THRESHOLD` as `at_end`.

    A Brier score at an end, and with it the calibration error and the log loss, says that every study was called with
    certainty, and rightly or wrongly: each is then the share that is wrong, the log loss times what one of them costs.
    """
    ranked = name in ("auc", "average_precision")
    patients = min(resamples.patients_of(0), resamples.patients_of(1)) if ranked else resamples.patients
    return at_end(found, -math.log(LOG_LOSS_FLOOR) if name == "log_loss" else 1.0, patients)


def _rates_and_limits(
    resamples: Resamples, thresholds: np.ndarray, confusions: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return every rate at each threshold, shape (k,), and its limits, shape (2, k).

    A plain share of exactly 0 or 1 has the limits of Wilson's interval over the patients it rests on. What follows from
    such a sensitivity or specificity holds what it would be at their limits, one at a time.

    Parameters
    ----------
    resamples : Resamples
    thresholds : numpy.ndarray
        Shape (k,).
    confusions : numpy.ndarray
        Shape (k, 4): the studies' own tp, fp, tn, fn there.
    """
    values = rates_of(*confusions.T)
    if resamples.patients < 2:
        return values, {name: np.full((2, thresholds.size), np.nan) for name in RATES}
    samples = rates_of(*resamples.counts_at(thresholds))
    limits = {name: _around(values[name], _limits(samples[name])) for name in RATES}
    called, passed = resamples.patients_called(thresholds)
    patients = {"precision": called, "npv": passed, "accuracy": resamples.patients}
    patients |= {"sensitivity": resamples.patients_of(1), "specificity": resamples.patients_of(0)}
    for name, count in patients.items():
        least = np.broadcast_to(least_of_all(count), thresholds.shape)
        for end, ours in ((1.0, np.stack((least, np.ones_like(least)))), (0.0, np.stack((0 * least, 1 - least)))):
            limits[name] = np.where(values[name] == end, ours, limits[name])
    positives, negatives = confusions[:, [0, 3]].sum(axis=1), confusions[:, [1, 2]].sum(axis=1)
    for name in ("sensitivity", "specificity"):
        sure = np.isin(values[name], (0.0, 1.0))
        for limit in limits[name]:
            # Of a class that is absent the share is NaN, and its counts are 0 whatever it is.
            found, right = (
                np.nan_to_num(limit if each == name else values[each]) for each in ("sensitivity", "specificity")
            )
            moved = rates_of(positives * found, negatives * (1 - right), negatives * right, positives * (1 - found))
            for rate in RATES[len(PROPORTIONS) :]:
                limits[rate] = np.where(sure, _around(moved[rate], limits[rate]), limits[rate])
    return values, {name: np.where(np.isnan(values[name]), np.nan, limits[name]) for name in RATES}


def _around(values: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Return limits, shape (2, k), stretched to hold `values`, shape (k,)."""
    return np.stack((np.fmin(limits[0], values), np.fmax(limits[1], values)))


def _confusions(scores: Scores, thresholds: np.ndarray) -> np.ndarray:
    """Return tp, fp, tn and fn at each threshold, int, shape (thresholds, 4)."""
    confusions = np.empty((thresholds.size, 4), int)
    for column, (label, called) in enumerate(((1, True), (0, True), (0, False), (1, False))):
        ranked = np.sort(scores.probabilities[scores.labels == label])
        below = np.searchsorted(ranked, thresholds, side="left")
        confusions[:, column] = ranked.size - below if called else below
    return confusions


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
