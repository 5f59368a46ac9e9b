"""Two models on the same studies: differences, and whether chance could have made them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from core.errors import ScoresError
from core.metrics.calibration import calibrate_means
from core.metrics.evaluation import evaluate
from core.metrics.proportions import NORMAL_975, RATES, least_of_all, rates_of
from core.metrics.resampling import (
    RESAMPLES,
    Resamples,
    auc_of,
    interval_of,
    percentile_interval,
)
from core.metrics.tables import check_scores
from core.values import Interval, Scores

ENSEMBLE = "all"
"""Id under which the mean of several checkpoints appears."""


@dataclass(frozen=True, eq=False)
class PairedTest:
    """Two models compared.

    Attributes
    ----------
    difference : Interval
        First minus second, with its 95% interval; `n` studies.
    p_value : float
        Of the hypothesis that there is no difference, two-sided; NaN where undefined.
    """

    difference: Interval
    p_value: float


@dataclass(frozen=True, eq=False)
class McNemar:
    """Which of two models was right where only one of them was.

    Attributes
    ----------
    only_first, only_second : int
        Studies that only the first, or only the second, called right.
    p_value : float
        Exact (binomial), two-sided; 1 where the two were never apart.
    """

    only_first: int
    only_second: int
    p_value: float


def align_scores(first: Scores, second: Scores) -> tuple[Scores, Scores]:
    """Return the two tables cut down to the studies that are in both, in the order of the first.

    Raises
    ------
    ScoresError
        As `check_scores`; no study in common, or one with two labels or two patients.
    """
    check_scores(first)
    check_scores(second)
    where = {study: place for place, study in enumerate(second.study_ids)}
    pairs = [(place, where[study]) for place, study in enumerate(first.study_ids) if study in where]
    if not pairs:
        raise ScoresError("Scores of the same studies are needed to compare two checkpoints, but none is in both.")
    ours, theirs = (np.array(places) for places in zip(*pairs, strict=True))
    if (first.labels[ours] != second.labels[theirs]).any():
        raise ScoresError("A study must have the same label in both tables of scores, but one has not.")
    if any(first.patient_ids[one] != second.patient_ids[other] for one, other in pairs):
        raise ScoresError("A study must be of the same patient in both tables of scores, but one is not.")
    return taken(first, ours), taken(second, theirs)


def compare_scores(first: Scores, second: Scores, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Return the difference of two checkpoints' AUC (first minus second) on the studies that both read.

    Paired over resamples of the patients. Raises as `align_scores`.
    """
    one, other = align_scores(first, second)
    return auc_difference(one.labels, one.probabilities, other.probabilities, one.patient_ids, resamples, seed)


def auc_difference(
    labels: Sequence[int],
    first: Sequence[float],
    second: Sequence[float],
    patients: Sequence[str],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return AUC of `first` minus AUC of `second` on the same studies, paired over resamples of the patients.

    Where it is the same in every resample, since both areas are, it holds what each of them may be (`at_end`); only
    scores that are the same differ by 0 for sure.
    """
    one, other = auc_of(labels, first), auc_of(labels, second)
    gap = interval_of(lambda weights: one(weights) - other(weights), patients, resamples, seed)
    if gap.low != gap.high or np.array_equal(first, second):
        return gap
    return _held_apart(gap, *(interval_of(each, patients, resamples, seed) for each in (one, other)))


def paired_difference(
    first: Resamples, second: Resamples, estimate: str, thresholds: tuple[float, float] = (0.5, 0.5)
) -> PairedTest:
    """Return the difference of any estimate between two models, paired over the same resamples of the patients.

    Parameters
    ----------
    first, second : Resamples
        Of the same studies (see `align_scores`), as many resamples, from the same seed.
    estimate : str
        One of ``core.metrics.ESTIMATES``.
    thresholds : tuple of float
        Of the first and of the second, for estimates that need one.

    Returns
    -------
    PairedTest
        The p-value is twice the smaller share of resamples in which the difference lies on the other side of 0, one
        resample added to each side (Davison and Hinkley, Bootstrap Methods and their Application, 1997, 4.2). Where
        every resample shows the same difference, they tell nothing of it: its limits hold what each estimate may be
        (`evaluate`), and the p-value is NaN, but 1 where it is 0. The same calls or scores differ by 0 for sure.

    Raises
    ------
    ScoresError
        Resamples of other studies, or not drawn alike.
    """
    same = first.scores.study_ids == second.scores.study_ids and first.seed == second.seed
    if not same or first.positives.size != second.positives.size:
        raise ScoresError("Two models are compared in the same resamples of the same studies, but these differ.")
    values, samples = zip(
        *(_estimate(each, estimate, at) for each, at in zip((first, second), thresholds, strict=True)), strict=True
    )
    value, gaps = values[0] - values[1], samples[0] - samples[1]
    if first.patients < 2:
        gaps = gaps[:0]
    difference = percentile_interval(value, gaps, len(first.scores.study_ids))
    gaps = gaps[np.isfinite(gaps)]
    if math.isnan(value) or not gaps.size:
        return PairedTest(difference, math.nan)
    if difference.low == difference.high:
        if not (np.array_equal(first.scores.probabilities, second.scores.probabilities) and len(set(thresholds)) == 1):
            measured = (evaluate(each, at) for each, at in zip((first, second), thresholds, strict=True))
            difference = _held_apart(difference, *(getattr(each, estimate) for each in measured))
        return PairedTest(difference, math.nan if value else 1.0)
    tail = min(np.count_nonzero(gaps <= 0), np.count_nonzero(gaps >= 0))
    return PairedTest(difference, min(1.0, 2 * (tail + 1) / (gaps.size + 1)))


def delong_interval(scores: Scores) -> Interval:
    """Return the AUC with DeLong's 95% interval, cut at 0 and 1: a check on that over patients.

    DeLong et al., Biometrics 44:837 (1988), computed from ranks (Sun and Xu, IEEE Signal Process. Lett. 21:1389, 2014).
    It takes studies for independent.

    Returns
    -------
    Interval
        NaN where only one class is present; NaN limits where a class has one study, and where none of a class varies
        in how it is ranked, as where the AUC is 1: the method has no variance to tell then.
    """
    check_scores(scores)
    areas, covariance = _delong([scores])
    area, deviation = float(areas[0]), _deviation(float(covariance[0, 0]))
    low, high = max(area - NORMAL_975 * deviation, 0.0), min(area + NORMAL_975 * deviation, 1.0)
    if math.isnan(deviation) or area in (0.0, 1.0):
        low = high = math.nan
    return Interval(area, low, high, len(scores.study_ids))


def delong_test(first: Scores, second: Scores) -> PairedTest:
    """Return DeLong's paired test of two AUCs on the studies that both read; it takes studies for independent.

    Where its variance is 0, as between two AUCs of 1, limits and p-value are NaN; but where no difference was seen the
    p-value is 1, and scores that are the same differ by 0 for sure.

    Raises
    ------
    ScoresError
        As `align_scores`.
    """
    one, other = align_scores(first, second)
    areas, covariance = _delong([one, other])
    gap = float(areas[0] - areas[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    n, deviation = len(one.study_ids), _deviation(variance)
    if not deviation > 0:
        same = np.array_equal(one.probabilities, other.probabilities) and not math.isnan(gap)
        limit = 0.0 if same else math.nan
        return PairedTest(Interval(gap, limit, limit, n), 1.0 if abs(gap) < 1e-12 and deviation == 0 else math.nan)
    half = NORMAL_975 * deviation
    return PairedTest(Interval(gap, gap - half, gap + half, n), math.erfc(abs(gap) / deviation / math.sqrt(2)))


def mcnemar_test(first: Scores, second: Scores, thresholds: tuple[float, float]) -> McNemar:
    """Return McNemar's exact test of two models' calls, each at its own threshold, on the studies that both read.

    McNemar, Psychometrika 12:153 (1947). It takes studies for independent.

    Raises
    ------
    ScoresError
        As `align_scores`.
    """
    from scipy.stats import binom

    one, other = align_scores(first, second)
    right = [
        (each.probabilities >= at) == (each.labels == 1) for each, at in zip((one, other), thresholds, strict=True)
    ]
    only_first, only_second = int(np.sum(right[0] & ~right[1])), int(np.sum(right[1] & ~right[0]))
    apart = only_first + only_second
    p_value = min(1.0, 2 * float(binom.cdf(min(only_first, only_second), apart, 0.5))) if apart else 1.0
    return McNemar(only_first, only_second, p_value)


def agreement(
    first: Scores, second: Scores, thresholds: tuple[float, float], resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return Cohen's kappa between the calls of two models, with its interval over patients.

    Where they call all studies alike, its lower limit is what kappa would be at Wilson's lower limit of their agreement
    over as many patients; the same scores at the same threshold agree for sure.

    Raises
    ------
    ScoresError
        As `align_scores`.
    """
    one, other = align_scores(first, second)
    called = [each.probabilities >= at for each, at in zip((one, other), thresholds, strict=True)]
    cells = np.stack(
        [called[0] & called[1], ~called[0] & called[1], ~called[0] & ~called[1], called[0] & ~called[1]], axis=1
    )
    cells = cells.astype(np.float64)
    found = interval_of(lambda weights: rates_of(*(weights @ cells).T)["kappa"], one.patient_ids, resamples, seed)
    same = np.array_equal(one.probabilities, other.probabilities) and thresholds[0] == thresholds[1]
    if found.value == found.low == 1.0 and not same:
        chance = float(np.mean(called[0])) ** 2 + float(np.mean(~called[0])) ** 2
        found = replace(found, low=(least_of_all(len(set(one.patient_ids))) - chance) / (1 - chance))
    return found


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return the p-values corrected for their number (Holm, Scand. J. Stat. 6:65, 1979); NaN is left out and stays."""
    known = [place for place, value in enumerate(p_values) if not math.isnan(value)]
    out, largest = list(p_values), 0.0
    for rank, place in enumerate(sorted(known, key=lambda place: p_values[place])):
        largest = max(largest, min(1.0, (len(known) - rank) * p_values[place]))
        out[place] = largest
    return tuple(out)


def taken(scores: Scores, places: np.ndarray) -> Scores:
    """Return the scores of some of the studies, in the order of `places`."""
    return Scores(
        checkpoint_id=scores.checkpoint_id,
        split=scores.split,
        study_ids=tuple(scores.study_ids[place] for place in places),
        patient_ids=tuple(scores.patient_ids[place] for place in places),
        labels=scores.labels[places],
        probabilities=scores.probabilities[places],
        weights_sha256=scores.weights_sha256,
        columns={name: tuple(values[place] for place in places) for name, values in scores.columns.items()},
        unit=scores.unit,
    )


def mean_scores(
    several: Sequence[Scores], study_calibration: Mapping[str, Any] | None = None, checkpoint_id: str = ENSEMBLE
) -> Scores:
    """Return the mean probability of every study over the checkpoints that read it.

    It is calibrated as the mean of these checkpoints is, see :func:`core.metrics.calibrate_means`.
    """
    rows: dict[str, tuple[str, int, list[float]]] = {}
    for scores in several:
        columns = (scores.study_ids, scores.patient_ids, scores.labels.tolist(), scores.probabilities.tolist())
        for study, patient, label, probability in zip(*columns, strict=True):
            rows.setdefault(study, (patient, label, []))[2].append(probability)
    return Scores(
        checkpoint_id=checkpoint_id,
        split=several[0].split,
        study_ids=tuple(rows),
        patient_ids=tuple(patient for patient, _, _ in rows.values()),
        labels=np.array([label for _, label, _ in rows.values()], np.int8),
        probabilities=calibrate_means(
            np.array([np.mean(found) for _, _, found in rows.values()], np.float64), study_calibration
        ),
    )


def _held_apart(gap: Interval, one: Interval, other: Interval) -> Interval:
    """Return a difference whose limits hold what each of its two estimates may be, one at a time."""
    low = min(gap.low, one.low - other.value, one.value - other.high)
    return replace(gap, low=low, high=max(gap.high, one.high - other.value, one.value - other.low))


def _estimate(resamples: Resamples, name: str, threshold: float) -> tuple[float, np.ndarray]:
    """Return an estimate of the studies and of every resample."""
    if name not in RATES:
        return resamples.values[name], resamples.samples[name]
    p, y = resamples.scores.probabilities >= threshold, resamples.scores.labels == 1
    counts = (np.sum(p & y), np.sum(p & ~y), np.sum(~p & ~y), np.sum(~p & y))
    samples = rates_of(*(table[:, 0] for table in resamples.counts_at(np.array([threshold]))))
    return float(rates_of(*counts)[name]), samples[name]


def _deviation(variance: float) -> float:
    """Return the root of a variance; what rounding leaves of one of 0 would make a difference significant, or not."""
    if math.isnan(variance):
        return math.nan
    return math.sqrt(variance) if variance > 1e-15 else 0.0


def _delong(several: Sequence[Scores]) -> tuple[np.ndarray, np.ndarray]:
    """Return the AUC of each of several models of the same studies, and their covariance."""
    from scipy.stats import rankdata

    positive = several[0].labels == 1
    m, n = int(positive.sum()), int((~positive).sum())
    if not (m and n):
        return np.full(len(several), math.nan), np.full((len(several),) * 2, math.nan)
    # Each study's placement: the share of the other class that it is ranked above (below, for a negative).
    of_positives, of_negatives = [], []
    for scores in several:
        p = scores.probabilities
        ranks = rankdata(p)
        of_positives.append((ranks[positive] - rankdata(p[positive])) / n)
        of_negatives.append(1 - (ranks[~positive] - rankdata(p[~positive])) / m)
    areas = np.array([placements.mean() for placements in of_positives])
    if m < 2 or n < 2:
        return areas, np.full((len(several),) * 2, math.nan)
    covariance = np.atleast_2d(np.cov(of_positives)) / m + np.atleast_2d(np.cov(of_negatives)) / n
    return areas, covariance
