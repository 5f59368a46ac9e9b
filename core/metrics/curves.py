"""The curves of a reader that gives probabilities: ROC, and precision against recall."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.metrics.proportions import least_of_all
from core.metrics.resampling import Resamples
from core.metrics.tables import check_scores
from core.values import Scores

BAND_POINTS = 201
# A rate of a resample and a place on the axis that are meant to be equal may differ in their last digits.
_SLACK = 1e-9


@dataclass(frozen=True, eq=False)
class RocCurve:
    """Every operating point there is, from calling nothing positive to calling everything positive.

    Attributes
    ----------
    thresholds : numpy.ndarray
        float64, shape (k + 1,), falling: infinity, then each of the k distinct probabilities.
    sensitivities, false_positive_rates : numpy.ndarray
        float64, shape (k + 1,), [0, 1], rising; NaN where the class is absent.
    auc : float
        Area under the curve; NaN where only one class is present.
    positives, negatives : int
    """

    thresholds: np.ndarray
    sensitivities: np.ndarray
    false_positive_rates: np.ndarray
    auc: float
    positives: int
    negatives: int

    def __post_init__(self) -> None:
        for name in ("thresholds", "sensitivities", "false_positive_rates"):
            getattr(self, name).flags.writeable = False


@dataclass(frozen=True, eq=False)
class PrecisionRecallCurve:
    """Precision at every sensitivity there is.

    Attributes
    ----------
    thresholds : numpy.ndarray
        float64, shape (k,), falling: each of the k distinct probabilities.
    precisions, sensitivities : numpy.ndarray
        float64, shape (k,); sensitivities rising, NaN where there is no positive study.
    average_precision : float
        The mean of the precisions weighed by how much sensitivity each adds; NaN where there is no positive study.
    prevalence : float
        Share of positives: the precision of calling everything positive.
    """

    thresholds: np.ndarray
    precisions: np.ndarray
    sensitivities: np.ndarray
    average_precision: float
    prevalence: float

    def __post_init__(self) -> None:
        for name in ("thresholds", "precisions", "sensitivities"):
            getattr(self, name).flags.writeable = False


@dataclass(frozen=True, eq=False)
class Band:
    """What holds 95% of a curve's resamples, at each of many places of its axis, point by point.

    Attributes
    ----------
    at, low, high : numpy.ndarray
        float64, shape (k,); `at` rising from 0 to 1.
    """

    at: np.ndarray
    low: np.ndarray
    high: np.ndarray


def roc_curve(scores: Scores) -> RocCurve:
    """Return the ROC curve, with one point for each distinct probability. Raises as `check_scores`."""
    thresholds, tp, fp = _counts(scores)
    with np.errstate(invalid="ignore"):
        sensitivities, false_positive_rates = tp / tp[-1], fp / fp[-1]
    return RocCurve(
        thresholds=np.concatenate(([np.inf], thresholds)),
        sensitivities=sensitivities,
        false_positive_rates=false_positive_rates,
        auc=float(np.trapezoid(sensitivities, false_positive_rates)),
        positives=int(tp[-1]),
        negatives=int(fp[-1]),
    )


def auc(scores: Scores) -> float:
    """Return the area under the ROC curve: the chance that a positive study scores above a negative one.

    A tie counts half. NaN where only one class is present. Raises as `check_scores`.
    """
    return roc_curve(scores).auc


def precision_recall_curve(scores: Scores) -> PrecisionRecallCurve:
    """Return precision against recall, with one point for each distinct probability. Raises as `check_scores`."""
    thresholds, tp, fp = _counts(scores)
    with np.errstate(invalid="ignore"):
        precisions, sensitivities = tp[1:] / (tp + fp)[1:], tp / tp[-1]
    return PrecisionRecallCurve(
        thresholds=thresholds,
        precisions=precisions,
        sensitivities=sensitivities[1:],
        average_precision=float(np.sum(np.diff(sensitivities) * precisions)),
        prevalence=float(tp[-1] / (tp[-1] + fp[-1])),
    )


def roc_band(resamples: Resamples) -> Band:
    """Return what holds 95% of the sensitivities at each false positive rate (vertical averaging of resamples).

    Fawcett, Pattern Recognit. Lett. 27:861 (2006). NaN where only one class is present or there is only one patient.

    Where every resample has a sensitivity of 1 (or 0), resampling cannot show what was never seen: the limit is that of
    Wilson's interval over the patients of the smaller class, as an AUC at its end has it (`at_end`). It is never below
    what is known at a lower false positive rate, since a curve does not fall; and calling everything finds everything,
    so that every band closes in the upper corner.
    """
    at = np.linspace(0, 1, BAND_POINTS)
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = resamples.fp / resamples.negatives[:, None], resamples.tp / resamples.positives[:, None]
    band = _limits(at, _curves(at + _SLACK, _from_zero(x), _from_zero(y)), resamples)
    if not np.isfinite(band.low).any():
        return band
    least = least_of_all(min(resamples.patients_of(0), resamples.patients_of(1)))
    low, high = _opened(band, least)
    low[-1] = 1.0
    return Band(at, np.maximum.accumulate(low), np.minimum.accumulate(high[::-1])[::-1])


def precision_recall_band(resamples: Resamples) -> Band:
    """Return what holds 95% of the precisions at each sensitivity; as `roc_band`.

    Between two thresholds counts are interpolated, not precisions (Davis and Goadrich, ICML 2006). Where every resample
    has a precision of 1, the lower limit is that of Wilson's interval over the patients who are called there, as that
    of a precision at one threshold is: the fewer are called, the less is known.
    """
    at = np.linspace(0, 1, BAND_POINTS)
    with np.errstate(divide="ignore", invalid="ignore"):
        x = resamples.tp / resamples.positives[:, None]
    # Turned round, so that of the points of one sensitivity that with the fewest false calls counts.
    false = _curves(_SLACK - at, -_from_zero(x)[:, ::-1], _from_zero(resamples.fp)[:, ::-1])
    true = at * resamples.positives[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = true / (true + false)
    precision[:, 0] = np.nan  # nothing called: no precision
    band = _limits(at, precision, resamples)
    if not np.isfinite(band.low).any():
        return band
    ranked = np.sort(resamples.scores.probabilities[resamples.scores.labels == 1])[::-1]
    reached = ranked[np.maximum(np.ceil((at - _SLACK) * ranked.size).astype(int), 1) - 1]
    return Band(at, *_opened(band, least_of_all(resamples.patients_called(reached)[0])))


def _counts(scores: Scores) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the distinct probabilities, falling, and how many positives and negatives reach each, from 0 on."""
    check_scores(scores)
    order = np.argsort(-scores.probabilities, kind="stable")
    probabilities, labels = scores.probabilities[order], scores.labels[order]
    last_of_tie = np.flatnonzero(np.append(np.diff(probabilities) != 0, True))
    tp = np.concatenate(([0], np.cumsum(labels == 1)[last_of_tie]))
    fp = np.concatenate(([0], np.cumsum(labels == 0)[last_of_tie]))
    return probabilities[last_of_tie], tp, fp


def _curves(at: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return each resample's curve at the places `at`, shape (resamples, places); NaN where it has none.

    `x` never falls. Of several points at one place the last counts.
    """
    out = np.full((x.shape[0], at.size), np.nan)
    for row, (xs, ys) in enumerate(zip(x, y, strict=True)):
        if np.isfinite(xs).all() and np.isfinite(ys).all():
            out[row] = np.interp(at, xs, ys)
    return out


def _from_zero(curves: np.ndarray) -> np.ndarray:
    return np.pad(curves, ((0, 0), (1, 0)))


def _opened(band: Band, least: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Return a band's limits, opened where both lie at an end; `least`: the lower limit there of what is always 1."""
    low = np.where(band.low >= 1 - _SLACK, np.broadcast_to(least, band.at.shape), band.low)
    high = np.where(band.high <= _SLACK, 1 - np.broadcast_to(least, band.at.shape), band.high)
    return low, high


def _limits(at: np.ndarray, curves: np.ndarray, resamples: Resamples) -> Band:
    if resamples.patients < 2 or not np.isfinite(curves).any():
        return Band(at, np.full(at.size, np.nan), np.full(at.size, np.nan))
    known = curves[np.isfinite(curves[:, -1])]
    low, high = np.percentile(known, (2.5, 97.5), axis=0)
    return Band(at, low, high)
