"""What a threshold means where it is used: at another prevalence, for a thousand patients, against doing nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from core.errors import ScoresError
from core.metrics.evaluation import Evaluation, evaluate
from core.metrics.proportions import least_of_all
from core.metrics.resampling import Resamples, percentile_interval
from core.values import Interval

THOUSAND = 1000


@dataclass(frozen=True, eq=False)
class AtPrevalence:
    """What a threshold does where positives are as frequent as `prevalence`.

    Sensitivity and specificity are taken to be what they were measured to be (Bayes' rule). All but `prevalence` are
    intervals over patients.

    Attributes
    ----------
    prevalence : float
    ppv, npv : Interval
    needed_to_review : Interval
        Called studies for each positive among them, 1 / PPV, 1 or more.
    called : Interval
        Share of all studies that are called positive.
    """

    prevalence: float
    ppv: Interval
    npv: Interval
    needed_to_review: Interval
    called: Interval


@dataclass(frozen=True, eq=False)
class PerThousand:
    """What becomes of a thousand studies; whole numbers that add up to 1,000."""

    found: int
    missed: int
    false_alarms: int
    passed: int


@dataclass(frozen=True, eq=False)
class NetBenefit:
    """A decision curve (Vickers and Elkin, Med. Decis. Making 26:565, 2006).

    Net benefit counts found positives, less the false alarms that a reader with this threshold thinks worth one of
    them, for each study: ``prevalence * sensitivity - (1 - prevalence) * (1 - specificity) * t / (1 - t)``. Calling
    nothing has 0.

    Attributes
    ----------
    thresholds : numpy.ndarray
        Rising, in (0, 1), shape (k,).
    model, low, high : numpy.ndarray
        Of the model, with its 95% band over patients, shape (k,); NaN where undefined. Where sensitivity or specificity
        is exactly 0 or 1 the band holds what net benefit would be at the limits of Wilson's interval over as many
        patients, one at a time.
    call_all : numpy.ndarray
        Of calling every study positive, shape (k,).
    """

    thresholds: np.ndarray
    model: np.ndarray
    low: np.ndarray
    high: np.ndarray
    call_all: np.ndarray


def at_prevalence(
    resamples: Resamples, threshold: float, prevalence: float, whole: Evaluation | None = None
) -> AtPrevalence:
    """Return predictive values at another prevalence than that of the studies.

    Parameters
    ----------
    resamples : Resamples
    threshold, prevalence : float
    whole : Evaluation, optional
        What `evaluate` gave for them, where it is at hand.

    Raises
    ------
    ScoresError
        A prevalence outside [0, 1], or a threshold that is NaN.
    """
    _check_prevalence(prevalence)
    whole = evaluate(resamples, threshold) if whole is None else whole
    sensitivity, specificity = _rates(resamples, np.array([threshold]))
    n, samples = whole.n, _predictive(sensitivity[:, 0], specificity[:, 0], prevalence)
    values = _predictive(np.array([whole.sensitivity.value]), np.array([whole.specificity.value]), prevalence)
    if resamples.patients < 2:
        samples = {name: each[:0] for name, each in samples.items()}
    found = {name: percentile_interval(float(values[name][0]), samples[name], n) for name in values}
    return AtPrevalence(prevalence=prevalence, **_hold_never_seen(found, whole, prevalence))


def _hold_never_seen(found: Mapping[str, Interval], whole: Evaluation, prevalence: float) -> dict[str, Interval]:
    """Widen intervals that follow from a rate of exactly 0 or 1: no resample can show what no study did."""
    sure, known = (whole.sensitivity, whole.specificity), dict(found)
    for place, rate in enumerate(sure):
        if rate.value not in (0.0, 1.0) or math.isnan(rate.low):
            continue
        for limit in (rate.low, rate.high):
            pair = [np.array([limit if place == other else each.value]) for other, each in enumerate(sure)]
            for name, values in _predictive(*pair, prevalence).items():
                if math.isnan(known[name].value):
                    continue
                low, high = (
                    float(pick(end, values[0]))
                    for pick, end in ((np.fmin, known[name].low), (np.fmax, known[name].high))
                )
                known[name] = replace(known[name], low=low, high=high)
    # As one follows from the other, and not without the resamples in which nothing was found.
    ppv, needed = known["ppv"], known["needed_to_review"]
    if not math.isnan(needed.value):
        low, high = (1 / limit if limit > 0 else math.inf for limit in (ppv.high, ppv.low))
        known["needed_to_review"] = replace(needed, low=low, high=high)
    return known


def per_thousand(sensitivity: float, specificity: float, prevalence: float) -> PerThousand:
    """Return what becomes of a thousand studies; the largest remainders are rounded up, so that they stay a thousand.

    Raises
    ------
    ScoresError
        A rate or prevalence that is no number from 0 to 1.
    """
    _check_prevalence(prevalence)
    if not (0 <= sensitivity <= 1 and 0 <= specificity <= 1):
        raise ScoresError("Sensitivity and specificity must be numbers from 0 to 1, but one is not.")
    positives = round(THOUSAND * prevalence)
    found = round(positives * sensitivity)
    passed = round((THOUSAND - positives) * specificity)
    return PerThousand(found, positives - found, THOUSAND - positives - passed, passed)


def net_benefit(
    resamples: Resamples, thresholds: Sequence[float] | None = None, prevalence: float | None = None
) -> NetBenefit:
    """Return the net benefit of calling studies positive from each threshold on.

    Parameters
    ----------
    resamples : Resamples
    thresholds : sequence of float, optional
        In (0, 1), rising; by default 0.01 to 0.99.
    prevalence : float, optional
        By default that of the studies, which then varies between resamples as they do.

    Raises
    ------
    ScoresError
        Thresholds or a prevalence out of range.
    """
    at = np.arange(1, 100) / 100 if thresholds is None else np.asarray(thresholds, np.float64)
    if not (at.size and (at > 0).all() and (at < 1).all() and (np.diff(at) > 0).all()):
        raise ScoresError("Rising thresholds between 0 and 1 were expected, but others came.")
    labels = resamples.scores.labels
    own, drawn = labels.mean(), resamples.positives / (resamples.positives + resamples.negatives)
    if prevalence is not None:
        _check_prevalence(prevalence)
        own, drawn = prevalence, np.full(drawn.shape, prevalence)
    odds = at / (1 - at)
    ranked = [np.sort(resamples.scores.probabilities[labels == label]) for label in (1, 0)]
    with np.errstate(divide="ignore", invalid="ignore"):
        found, alarms = (1 - np.searchsorted(each, at, side="left") / np.float64(each.size) for each in ranked)
    sensitivity, specificity = _rates(resamples, at)
    samples = _benefit(sensitivity, 1 - specificity, drawn[:, None], odds)
    model = _benefit(found, alarms, own, odds)
    limits = np.full((2, at.size), np.nan)
    known = samples[np.isfinite(samples).all(axis=1)]
    if resamples.patients > 1 and known.size and np.isfinite(model).all():
        limits = np.percentile(known, (2.5, 97.5), axis=0)
        for least_found, least_alarms in _never_seen(resamples, found, alarms):
            moved = _benefit(least_found, least_alarms, own, odds)
            limits = np.stack((np.fmin(limits[0], moved), np.fmax(limits[1], moved)))
    return NetBenefit(at, model, np.fmin(limits[0], model), np.fmax(limits[1], model), own - (1 - own) * odds)


def _never_seen(
    resamples: Resamples, found: np.ndarray, alarms: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return both shares with one of them at its other limit where it is exactly 0 or 1, and as it is elsewhere."""

    def inward(shares: np.ndarray, patients: int) -> np.ndarray:
        least = least_of_all(patients)
        return np.where(shares == 1, least, np.where(shares == 0, 1 - least, shares))

    return (inward(found, resamples.patients_of(1)), alarms), (found, inward(alarms, resamples.patients_of(0)))


def _rates(resamples: Resamples, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return sensitivity and specificity of every resample, shape (resamples, thresholds); NaN where undefined."""
    tp, fp, tn, fn = resamples.counts_at(thresholds)
    with np.errstate(divide="ignore", invalid="ignore"):
        return tp / (tp + fn), tn / (tn + fp)


def _predictive(sensitivity: np.ndarray, specificity: np.ndarray, prevalence: float) -> dict[str, np.ndarray]:
    found, alarms = prevalence * sensitivity, (1 - prevalence) * (1 - specificity)
    passed, missed = (1 - prevalence) * specificity, prevalence * (1 - sensitivity)
    with np.errstate(divide="ignore", invalid="ignore"):
        ppv = found / (found + alarms)
        needed = np.where(found > 0, 1 / ppv, np.nan)  # where nothing is found no review is enough
        return {"ppv": ppv, "npv": passed / (passed + missed), "needed_to_review": needed, "called": found + alarms}


def _benefit(sensitivity: np.ndarray, alarms: np.ndarray, prevalence: np.ndarray, odds: np.ndarray) -> np.ndarray:
    return prevalence * sensitivity - (1 - prevalence) * alarms * odds


def _check_prevalence(prevalence: float) -> None:
    if math.isnan(prevalence) or not 0 <= prevalence <= 1:
        raise ScoresError("A prevalence from 0 to 1 was expected, but another number came.")
