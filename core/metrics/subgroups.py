"""The same measurements in parts of the studies: by view, age, sex, hardware, or whatever else is known of them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

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
MOST_VALUES = 24
"""Values of a column beyond which it divides the studies into too many groups to compare."""
MOST_NUMBERS = 8
"""Numbers of a column beyond which they are put into bands."""
BANDS = 4
"""Bands that numbers are put into, each of about as many studies; fewer where many share a number."""
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
        One of ``scores.columns``. Ages and other numbers are put into bands (`groups_of`).
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
    values = groups_of(column, scores.columns[column])
    known = dict.fromkeys(values)
    if len(known) > MOST_VALUES:
        raise ScoresError(f"A column of up to {MOST_VALUES} values divides the studies, but this has {len(known)}.")
    order = sorted(known, key=lambda value: (value == NOT_RECORDED, _natural(value)))
    return tuple(_measure(scores, value, values, threshold, resamples, seed) for value in order)


def why_left_out(column: str, values: Sequence[str]) -> str:
    """Return in one sentence why a column does not divide the studies into groups; empty where it does."""
    count = len(set(groups_of(column, values)))
    if count < 2:
        return "It says the same of every study."
    return f"It has {count:,} values, of which up to {MOST_VALUES} can be compared." if count > MOST_VALUES else ""


def groups_of(column: str, values: Sequence[str]) -> tuple[str, ...]:
    """Return each study's group: as `banded`, and more than `MOST_NUMBERS` numbers, with or without a unit, in bands.

    Whole numbers that differ from study to study name the studies and measure nothing: they stay what they are. So do
    numbers with several units, or with a zero before them.
    """
    names = banded(column, values)
    if column.lower().startswith("age") and names != tuple(value or NOT_RECORDED for value in values):
        return names
    read = [_NUMBER.fullmatch(value) for value in values if value]
    numbers = np.array([float(found[1]) for found in read if found])
    units = {found[2] for found in read if found}
    distinct = np.unique(numbers)
    named = distinct.size == numbers.size and not units - {""} and (numbers == np.rint(numbers)).all()
    if len(numbers) < len(read) or len(units) != 1 or distinct.size <= MOST_NUMBERS or named:
        return names
    edges = _edges(numbers)
    if not edges.size:
        edges = _edges(distinct)
    if not edges.size:  # one number stands for nearly all, or far from all others
        return names
    (unit,), words = units, [f"{edge:.10g}" for edge in edges]
    between = [f"{low} to under {high}{unit}" for low, high in pairwise(words)]
    bands = (f"under {words[0]}{unit}", *between, f"{words[-1]}{unit} and over")
    places = iter(np.searchsorted(edges, numbers, side="right").tolist())
    return tuple(bands[next(places)] if value else NOT_RECORDED for value in values)


_NUMBER = re.compile(r"([+-]?(?:0|[1-9]\d*)(?:\.\d+)?)(\s?[^\d.]*)")


def _edges(numbers: np.ndarray) -> np.ndarray:
    """Return where bands begin: near the quartiles of the numbers, in steps of 1, 2 or 5 times a power of ten."""
    low, high = np.quantile(numbers, (0.1, 0.9))
    if low == high:
        return np.empty(0)
    rough = (high - low) / (4 * BANDS)
    power = 10.0 ** np.floor(np.log10(rough))
    step = power * next(nice for nice in (1, 2, 5, 10) if nice * power >= rough)
    edges = np.unique(np.rint(np.quantile(numbers, np.arange(1, BANDS) / BANDS) / step) * step) + 0.0  # no -0
    return edges[(edges > numbers.min()) & (edges <= numbers.max())]


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
    """Order values by the number that they begin with, what is under one first, then by name."""
    if value.startswith("under "):
        return (-math.inf, value)
    found = _NUMBER.match(value)
    return (float(found[1]) if found else math.inf, value.lower())


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
