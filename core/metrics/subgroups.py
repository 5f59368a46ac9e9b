"""The same measurements in parts of the studies: by view, age, sex, hardware, or whatever else is known of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.errors import ScoresError
from core.metrics.comparison import taken
from core.metrics.evaluation import evaluate_scores
from core.metrics.resampling import RESAMPLES
from core.metrics.tables import check_scores
from core.values import Interval, Scores

FEWEST = 10
"""Positive, or negative, studies below which a subgroup says nothing."""
NOT_RECORDED = "not recorded"
MOST_VALUES = 12
"""Values of a column beyond which it divides the studies into too many groups to compare."""
AGE_BANDS = (0, 10, 18, 50, 70)
"""Years at which a band of ages begins."""


@dataclass(frozen=True, eq=False)
class Subgroup:
    """The studies that share a value in a column.

    Attributes
    ----------
    value : str
    n, positives, patients : int
    auc, sensitivity, specificity : Interval or None
        None where too few studies say anything of it.
    too_small : str
        Why, in one sentence; empty where nothing is missing.
    """

    value: str
    n: int
    positives: int
    patients: int
    auc: Interval | None
    sensitivity: Interval | None
    specificity: Interval | None
    too_small: str = ""


def subgroups(
    scores: Scores, column: str, threshold: float, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Subgroup, ...]:
    """Measure the studies of each value of a column.

    Parameters
    ----------
    scores : Scores
    column : str
        One of ``scores.columns``. Ages (a column whose name begins with ``age`` and holds numbers) are put into bands.
    threshold : float
    resamples, seed : int

    Returns
    -------
    tuple of Subgroup
        In the order of the values; those of which it is not recorded last.

    Raises
    ------
    ScoresError
        As `check_scores`; no such column; more than `MOST_VALUES` values.
    """
    check_scores(scores)
    if column not in scores.columns:
        raise ScoresError("A column of the table of scores was expected, but it has none of that name.")
    values = banded(column, scores.columns[column])
    known = dict.fromkeys(values)
    if len(known) > MOST_VALUES:
        raise ScoresError(f"A column of up to {MOST_VALUES} values divides the studies, but this has {len(known)}.")
    order = sorted(known, key=lambda value: (value == NOT_RECORDED, _natural(value)))
    return tuple(_measure(scores, value, values, threshold, resamples, seed) for value in order)


def banded(column: str, values: Sequence[str]) -> tuple[str, ...]:
    """Return the values of a column as the names of groups: ages in bands, empty ones as not recorded."""
    if not column.lower().startswith("age"):
        return tuple(value or NOT_RECORDED for value in values)
    try:
        ages = [float(value) if value else math.nan for value in values]
    except ValueError:
        return tuple(value or NOT_RECORDED for value in values)
    return tuple(_band(age) for age in ages)


def _band(age: float) -> str:
    if not 0 <= age < math.inf:
        return NOT_RECORDED
    number = int(np.searchsorted(AGE_BANDS, age, side="right")) - 1
    if number == len(AGE_BANDS) - 1:
        return f"{AGE_BANDS[-1]} years and over"
    return f"{AGE_BANDS[number]} to {AGE_BANDS[number + 1] - 1} years"


def _natural(value: str) -> tuple[float, str]:
    """Order values by the number that they begin with, then by name."""
    digits = value.split(" ")[0]
    return (float(digits) if digits.isdigit() else math.inf, value.lower())


def _measure(
    scores: Scores, value: str, values: Sequence[str], threshold: float, resamples: int, seed: int
) -> Subgroup:
    part = taken(scores, np.flatnonzero([each == value for each in values]))
    n, positives = len(part.study_ids), int(part.labels.sum())
    few = [
        f"{count} {kind}" for count, kind in ((positives, "positive"), (n - positives, "negative")) if count < FEWEST
    ]
    measured = evaluate_scores(part, threshold, resamples, seed)
    return Subgroup(
        value=value,
        n=n,
        positives=positives,
        patients=measured.patients,
        auc=None if few else measured.auc,
        sensitivity=measured.sensitivity if positives >= FEWEST else None,
        specificity=measured.specificity if n - positives >= FEWEST else None,
        too_small=f"Too few to say: {' and '.join(few)} of {n} studies, {FEWEST} are needed." if few else "",
    )
