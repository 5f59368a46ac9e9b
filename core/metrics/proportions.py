"""Proportions, and the counts and rates of a threshold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from core.errors import ScoresError
from core.metrics.tables import check_scores
from core.values import Interval, Scores

NORMAL_975 = 1.959963984540054  # 97.5% quantile of the standard normal distribution

PROPORTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "sensitivity": ("tp", "fn"),
        "specificity": ("tn", "fp"),
        "accuracy": ("tp", "fp", "tn", "fn"),
        "precision": ("tp", "fp"),
        "npv": ("tn", "fn"),
    }
)
"""Rates that are plain shares of studies -> the cells of the confusion matrix that are their denominator."""

CELLS = ("tp", "fn", "fp", "tn")
"""The cells of a confusion matrix, row by row."""

RATES = (*PROPORTIONS, "f1", "kappa", "balanced_accuracy", "youden", "mcc")
"""All rates at a threshold."""


@dataclass(frozen=True, eq=False)
class Confusion:
    """Studies counted by what they are and what they were called at one threshold."""

    threshold: float
    tp: int
    fp: int
    tn: int
    fn: int

    def cases(self, rate: str) -> int:
        """Return how many studies are in the denominator of one of `RATES`: all where it has none of its own."""
        return sum(getattr(self, cell) for cell in PROPORTIONS.get(rate, PROPORTIONS["accuracy"]))


def confusion(scores: Scores, threshold: float) -> Confusion:
    """Count the studies at `threshold`, which calls a study positive from it on. Raises as `check_scores`."""
    check_scores(scores)
    return count_called(scores, threshold)


def count_called(scores: Scores, threshold: float) -> Confusion:
    """Return the `confusion` of scores that were checked before: checking very many takes longer than counting."""
    called, positive = scores.probabilities >= threshold, scores.labels == 1
    return Confusion(
        threshold=float(threshold),
        tp=int(np.sum(called & positive)),
        fp=int(np.sum(called & ~positive)),
        tn=int(np.sum(~called & ~positive)),
        fn=int(np.sum(~called & positive)),
    )


def rates_of(tp: np.ndarray, fp: np.ndarray, tn: np.ndarray, fn: np.ndarray) -> dict[str, np.ndarray]:
    """Return all `RATES` of counts, element by element; NaN where a rate has no cases to rest on.

    Kappa: Cohen, Educ. Psychol. Meas. 20:37 (1960). Youden's index: Cancer 3:32 (1950). Matthews' correlation: Biochim.
    Biophys. Acta 405:442 (1975); 0 where the calls or the labels are all the same, as scikit-learn has it.

    Parameters
    ----------
    tp, fp, tn, fn : numpy.ndarray
        Float, of one shape; whole or weighted counts, 0 or more.
    """
    tp, fp, tn, fn = (np.asarray(counts, np.float64) for counts in (tp, fp, tn, fn))
    positives, negatives, called, passed = tp + fn, tn + fp, tp + fp, tn + fn
    total = positives + negatives
    with np.errstate(divide="ignore", invalid="ignore"):
        sensitivity, specificity, agreed = tp / positives, tn / negatives, (tp + tn) / total
        chance = (positives * called + negatives * passed) / total**2
        spread = np.sqrt(positives) * np.sqrt(negatives) * np.sqrt(called) * np.sqrt(passed)
        return {
            "sensitivity": sensitivity,
            "specificity": specificity,
            "accuracy": agreed,
            "precision": tp / called,
            "npv": tn / passed,
            "f1": 2 * tp / (2 * tp + fp + fn),
            "kappa": (agreed - chance) / (1 - chance),
            "balanced_accuracy": (sensitivity + specificity) / 2,
            "youden": sensitivity + specificity - 1,
            "mcc": np.where(spread > 0, (tp * tn - fp * fn) / spread, np.where(total > 0, 0.0, np.nan)),
        }


def wilson_interval(k: float, n: float) -> Interval:
    """Return k / n with its 95% score interval (Wilson, J. Am. Stat. Assoc. 22:209, 1927); all NaN where n is 0.

    It takes the n cases as independent, and stays honest where k is 0 or n. Neither need be whole: cases that are not
    independent are worth fewer.

    Raises
    ------
    ScoresError
        k below 0 or above n.
    """
    if not 0 <= k <= n:
        raise ScoresError(f"A count of 0 to {n} was expected, but {k} came.")
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    share, z2 = k / n, NORMAL_975**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = NORMAL_975 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # At the ends the limits are exact; rounding would put them beside the estimate.
    low = 0.0 if k == 0 else float(least_of_all(n)) if k == n else centre - half
    high = 1.0 if k == n else 1 - float(least_of_all(n)) if k == 0 else centre + half
    return Interval(share, low, high, int(n))


def least_of_all(n: np.ndarray | int) -> np.ndarray | float:
    """Return Wilson's lower limit of n in n; 1 less it is the upper one of 0 in n."""
    return n / (n + NORMAL_975**2)


def wilson_rates(counts: Confusion) -> dict[str, Interval]:
    """Return the plain `PROPORTIONS` at a threshold with Wilson's intervals: a check on those over patients."""
    numerators = {"sensitivity": counts.tp, "specificity": counts.tn, "precision": counts.tp, "npv": counts.tn}
    numerators["accuracy"] = counts.tp + counts.tn
    return {name: wilson_interval(numerators[name], counts.cases(name)) for name in PROPORTIONS}
