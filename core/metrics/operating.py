"""Thresholds: chosen, and what they make of the studies."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from core.errors import ScoresError
from core.metrics.reliability import clustered_interval
from core.metrics.resampling import RESAMPLES, Resamples, never_seen, percentile_interval, resample
from core.metrics.tables import check_scores
from core.values import Interval, OperatingPoint, Scores

ZONES = ("no", "doubt", "yes")
RULED_OUT = 0.2
"""A likelihood ratio from which down a finding counts as unlikely: one that speaks moderately against it (Jaeschke,
Guyatt and Sackett, JAMA 271:703, 1994)."""


@dataclass(frozen=True, eq=False)
class Zone:
    """The studies between two thresholds.

    Attributes
    ----------
    name : str
        One of `ZONES`: below both thresholds, between them, or from the higher on.
    share : Interval
        Of all studies.
    wrong : Interval
        Share of the zone's studies that are positive in ``no`` and negative in ``yes``; in ``doubt``, where nothing is
        said, the share of positives. `n` studies in the zone.
    """

    name: str
    share: Interval
    wrong: Interval


def operating_points(
    scores: Scores,
    sensitivity_target: float = 0.95,
    specificity_target: float = 0.95,
    ruled_out: float | None = None,
) -> tuple[OperatingPoint, OperatingPoint]:
    """Choose the two thresholds between which a study is uncertain.

    ``high_sensitivity`` is the largest threshold whose sensitivity reaches its target; ``high_specificity`` the
    smallest probability that occurs whose specificity reaches its target (just above the highest where none that occurs
    does). A threshold is at most 1: where too many negatives score exactly 1, none reaches the target, and the
    specificity measured says so.
    On scores that separate the classes well the two cross, and every threshold between them reaches both targets: they
    then change places. What lies between is rare on these scores and stays uncertain, as less usual studies may be.

    A target is met by all that lies below a threshold together, and what lies just below it may be positive as often as
    not: of a model that tells most studies without effort, few lie there. `ruled_out` asks it of each study.

    Parameters
    ----------
    scores : Scores
    sensitivity_target, specificity_target : float
        (0, 1].
    ruled_out : float or None
        Of calibrated probabilities: ``high_sensitivity`` is at most the probability at which the odds of a study are
        `ruled_out` times what they are before anything is known, by the share of positives in `scores`; above 0 and not
        above 1, such as `RULED_OUT`.

    Returns
    -------
    tuple of OperatingPoint
        (high_sensitivity, high_specificity), thresholds never falling. Sensitivity and specificity have
        intervals over the patients (`clustered_interval`); they are measured where they were chosen.

    Raises
    ------
    ScoresError
        As `check_scores`; a target or `ruled_out` outside (0, 1]; one class only.
    """
    check_scores(scores)
    if ruled_out is not None and not 0 < ruled_out <= 1:
        raise ScoresError("A likelihood ratio above 0 and not above 1 was expected, but another number came.")
    if not (0 < sensitivity_target <= 1 and 0 < specificity_target <= 1):
        raise ScoresError("Targets for sensitivity and specificity must lie above 0 and not above 1.")
    if len(set(scores.labels.tolist())) < 2:
        raise ScoresError("Operating points need both positive and negative studies, but there is only one class.")

    low = threshold_for(scores, sensitivity=sensitivity_target)
    high = threshold_for(scores, specificity=specificity_target)
    low, high = sorted((low, high))
    if ruled_out is not None:
        odds = ruled_out * float(np.sum(scores.labels == 1)) / float(np.sum(scores.labels == 0))
        low = min(low, odds / (1 + odds))
    return (_measured_point("high_sensitivity", low, scores), _measured_point("high_specificity", high, scores))


def threshold_for(scores: Scores, sensitivity: float | None = None, specificity: float | None = None) -> float:
    """Return the largest threshold that reaches a sensitivity, or the smallest that reaches a specificity.

    Thresholds are probabilities that occur, or lie just above the highest (see `operating_points`).

    Raises
    ------
    ScoresError
        As `check_scores`; not exactly one target, or one outside (0, 1]; no study of the class it is of.
    """
    check_scores(scores)
    target = specificity if sensitivity is None else sensitivity
    if (sensitivity is None) == (specificity is None) or not 0 < target <= 1:
        raise ScoresError("One target above 0 and not above 1 was expected, for sensitivity or for specificity.")
    ranked = np.sort(scores.probabilities[scores.labels == (0 if sensitivity is None else 1)])
    if not ranked.size:
        raise ScoresError("A threshold needs studies of the class that its target is of, but there are none.")
    if sensitivity is not None:
        return float(ranked[-_needed(target, ranked.size)])
    above = ranked[_needed(target, ranked.size) - 1]
    higher = scores.probabilities[scores.probabilities > above]
    return float(higher.min() if higher.size else min(np.nextafter(above, 1.0), 1.0))


def youden_threshold(scores: Scores) -> float:
    """Return the probability that occurs at which sensitivity + specificity is largest; of equals the lowest.

    Youden, Cancer 3:32 (1950).

    Raises
    ------
    ScoresError
        As `check_scores`; one class only.
    """
    return _cheapest(scores, 1.0, 0.5)


def cheapest_threshold(scores: Scores, cost_ratio: float, prevalence: float) -> float:
    """Return the probability that occurs at which mistakes cost least on average; of equals the lowest.

    The cost is ``cost_ratio * prevalence * (1 - sensitivity) + (1 - prevalence) * (1 - specificity)``. Where calling
    nothing is cheapest, a threshold just above the highest probability (at most 1) is returned.

    Parameters
    ----------
    scores : Scores
    cost_ratio : float
        How many false alarms one missed fracture costs, above 0.
    prevalence : float
        Share of positives where the threshold will be used, (0, 1).

    Raises
    ------
    ScoresError
        As `check_scores`; one class only; a ratio or prevalence out of range.
    """
    if not 0 < cost_ratio < math.inf:
        raise ScoresError("A cost ratio above 0 was expected, but another number came.")
    if not 0 < prevalence < 1:
        raise ScoresError("A prevalence between 0 and 1 was expected, but another number came.")
    return _cheapest(scores, cost_ratio, prevalence)


def triage(
    measured: Resamples | Scores, low: float, high: float, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Zone, Zone, Zone]:
    """Return what becomes of the studies where there is doubt between two thresholds.

    Parameters
    ----------
    measured : Resamples or Scores
        Scores are resampled first, which takes long where there are many.
    low, high : float
    resamples, seed : int
        For scores.

    Raises
    ------
    ScoresError
        As `check_scores`; thresholds that are no numbers or fall.
    """
    if not low <= high:
        raise ScoresError("Two thresholds that do not fall were expected, but others came.")
    drawn = measured if isinstance(measured, Resamples) else resample(measured, resamples, seed)
    p, positive = drawn.scores.probabilities, drawn.scores.labels == 1
    inside = {"no": p < low, "doubt": (p >= low) & (p < high), "yes": p >= high}
    tp, fp, tn, fn = (counts.T for counts in drawn.counts_at(np.array([low, high])))
    # Of each zone: positives and negatives in each resample.
    counts = {"no": (fn[0], tn[0]), "doubt": (tp[0] - tp[1], fp[0] - fp[1]), "yes": (tp[1], fp[1])}
    everyone, studies = np.ones(p.size, bool), drawn.positives + drawn.negatives
    zones = []
    for name, (positives, negatives) in counts.items():
        wrong, what = (positive, positives) if name != "yes" else (~positive, negatives)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = _share_of(drawn, everyone, inside[name], (positives + negatives) / studies)
            zones.append(Zone(name, share, _share_of(drawn, inside[name], wrong, what / (positives + negatives))))
    return tuple(zones)


def _share_of(drawn: Resamples, whole: np.ndarray, part: np.ndarray, samples: np.ndarray) -> Interval:
    """Return the share of the studies of `whole` that are in `part`; `samples`: what it is in each resample."""
    n, count = int(whole.sum()), int((whole & part).sum())
    if n and count in (0, n):
        return never_seen(count == n, drawn.codes[whole], n)
    return percentile_interval(count / n if n else math.nan, samples if drawn.patients > 1 else samples[:0], n)


def _cheapest(scores: Scores, cost_ratio: float, prevalence: float) -> float:
    check_scores(scores)
    positive, negative = (np.sort(scores.probabilities[scores.labels == label]) for label in (1, 0))
    if not (positive.size and negative.size):
        raise ScoresError("A threshold is chosen on positive and negative studies, but there is only one class.")
    distinct = np.unique(scores.probabilities)
    thresholds = np.append(distinct, np.nextafter(distinct[-1], np.inf))
    missed = np.searchsorted(positive, thresholds, side="left") / positive.size
    alarms = 1 - np.searchsorted(negative, thresholds, side="left") / negative.size
    cost = cost_ratio * prevalence * missed + (1 - prevalence) * alarms
    # Rounding must not choose between equals.
    return float(min(thresholds[np.argmax(cost <= cost.min() + 1e-12)], 1.0))


def _needed(target: float, n: int) -> int:
    """Return the smallest k, at least 1, with k / n >= target, by the very division the reader would make."""
    return int(np.argmax(np.arange(1, n + 1) / n >= target)) + 1


def _measured_point(name: str, threshold: float, scores: Scores) -> OperatingPoint:
    return OperatingPoint(name, float(threshold), *shares_at(scores, threshold))


def shares_at(scores: Scores, threshold: float) -> tuple[Interval, Interval]:
    """Return sensitivity and specificity at a threshold: `clustered_interval` over the patients of either class."""
    called, patients = scores.probabilities >= threshold, np.asarray(scores.patient_ids)
    positive = scores.labels == 1
    return (
        clustered_interval(called[positive], patients[positive]),
        clustered_interval(~called[~positive], patients[~positive]),
    )
