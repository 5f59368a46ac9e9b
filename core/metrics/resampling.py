"""Resamples of the patients: what every interval comes from.

Intervals are 95% percentile intervals of a bootstrap over patients (a cluster bootstrap: the studies of a patient are
drawn together, since they are not independent). Efron and Tibshirani, An Introduction to the Bootstrap (1993); Field
and Welsh, J. R. Stat. Soc. B 69:369 (2007) for clusters.

Resampling cannot show what was never seen: where a model gets every study right, it does so in every resample. An
estimate at an end of its range therefore has the limits of Wilson's interval over as many patients (`at_end`).

Every estimate is a function of how often each patient is drawn, and one resample is one row of such weights, so many
resamples are computed at once, and all comes from running sums over studies that were sorted once. Patients
are drawn in the order of their ids, so that two models measured on the same patients with the same seed saw the same
resamples: the difference of an estimate, resample by resample, is a paired difference.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from core.errors import ScoresError
from core.metrics.calibration import ECE_BINS, LOG_LOSS_FLOOR, bins_of_equal_count, bins_of_equal_width
from core.metrics.proportions import least_of_all, wilson_interval
from core.metrics.tables import check_scores
from core.values import Interval, Scores

Statistic = Callable[[np.ndarray], np.ndarray]

RESAMPLES = 2000
WITHOUT_THRESHOLD = ("auc", "average_precision", "brier", "ece", "adaptive_ece", "log_loss")
"""Estimates that need no threshold."""

THRESHOLDS_KEPT = 2000
"""Counts of every resample are kept at about so many thresholds; between two of them they are interpolated."""

# Cells of the (resamples, studies) arrays that are held at once: half a MiB of float64, so that they stay in the cache
# of a core between one pass and the next.
_CELLS_AT_ONCE = 65_536
# Resamples times studies below which one thread takes less than a second, and how many threads there are at most.
_CELLS_ALONE = 10_000_000
_MOST_THREADS = 4
# Draws of at most so many cells are kept for the next interval over as many patients: 4 MB each.
_CELLS_KEPT = 500_000


@dataclass(frozen=True, eq=False)
class Resamples:
    """Scores, and what resampling their patients made of them.

    Attributes
    ----------
    scores : Scores
    seed : int
    patients : int
    values : Mapping of str to float
        The estimates of `WITHOUT_THRESHOLD`; NaN where undefined.
    samples : Mapping of str to numpy.ndarray
        The same in each resample, float64, shape (resamples,).
    codes : numpy.ndarray
        Each study's patient, as a number from 0.
    thresholds : numpy.ndarray
        Falling: at most `THRESHOLDS_KEPT` of the distinct probabilities, the highest and the lowest among them.
    tp, fp : numpy.ndarray
        How many positive and how many negative studies have at least that probability, in each resample; float32, shape
        (resamples, thresholds).
    positives, negatives : numpy.ndarray
        Studies of each class in each resample, shape (resamples,).
    bins : numpy.ndarray
        Shape (resamples, ECE_BINS, 3): of the studies in each bin of equal width their number, the sum of their
        probabilities and the number of positives.
    """

    scores: Scores
    seed: int
    patients: int
    values: Mapping[str, float]
    samples: Mapping[str, np.ndarray]
    codes: np.ndarray
    thresholds: np.ndarray
    tp: np.ndarray
    fp: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray
    bins: np.ndarray

    def __post_init__(self) -> None:
        arrays = (self.codes, self.thresholds, self.tp, self.fp, self.positives, self.negatives, self.bins)
        for array in (*arrays, *self.samples.values()):
            array.flags.writeable = False

    def counts_at(self, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return tp, fp, tn and fn of every resample at each of `thresholds`, float64, shape (resamples, thresholds).

        Exact where the studies have at most `THRESHOLDS_KEPT` distinct probabilities; else what lies between two kept
        thresholds is taken in proportion to the studies themselves.
        """
        thresholds = np.asarray(thresholds, np.float64)
        tp, fp = (
            _between(kept, self._counted(label, self.thresholds), self._counted(label, thresholds))
            for label, kept in ((1, self.tp), (0, self.fp))
        )
        return tp, fp, self.negatives[:, None] - fp, self.positives[:, None] - tp

    def patients_of(self, label: int) -> int:
        """Return how many patients have a study with a label."""
        return self._patients_of_class[label]

    @cached_property
    def _patients_of_class(self) -> tuple[int, int]:
        return tuple(np.unique(self.codes[self.scores.labels == label]).size for label in (0, 1))

    def patients_called(self, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return how many patients have a study that is called at each threshold, and how many have one that is not."""
        highest, lowest = self._ends_of_patients
        called = self.patients - np.searchsorted(highest, thresholds, side="left")
        return called, np.searchsorted(lowest, thresholds, side="left")

    @cached_property
    def _ends_of_patients(self) -> tuple[np.ndarray, np.ndarray]:
        """The highest and the lowest probability of each patient, each sorted."""
        highest, lowest = np.full(self.patients, -np.inf), np.full(self.patients, np.inf)
        np.maximum.at(highest, self.codes, self.scores.probabilities)
        np.minimum.at(lowest, self.codes, self.scores.probabilities)
        return np.sort(highest), np.sort(lowest)

    def _counted(self, label: int, thresholds: np.ndarray) -> np.ndarray:
        """Return how many of the studies with a label have at least each of `thresholds`."""
        ranked = self._ranked[label]
        return ranked.size - np.searchsorted(ranked, thresholds, side="left")

    @cached_property
    def _ranked(self) -> tuple[np.ndarray, np.ndarray]:
        """The probabilities of the negatives and of the positives, each sorted."""
        return tuple(np.sort(self.scores.probabilities[self.scores.labels == label]) for label in (0, 1))


def resample(scores: Scores, resamples: int = RESAMPLES, seed: int = 0) -> Resamples:
    """Resample the patients of `scores` and measure every resample.

    Parameters
    ----------
    scores : Scores
    resamples : int
        At least 1.
    seed : int
        The same scores, resamples and seed give the same numbers.

    Raises
    ------
    ScoresError
        As `check_scores`; fewer than one resample.
    """
    check_scores(scores)
    if resamples < 1:
        raise ScoresError(f"At least one bootstrap resample is needed, but {resamples} were asked for.")
    estimates = _Estimates(scores)
    whole = estimates(np.ones((1, estimates.patients), np.int64))
    chunks = _chunks(resamples, max(estimates.studies, estimates.patients))

    def measure(numbers: range) -> dict[str, np.ndarray]:
        return estimates(_drawn(estimates.patients, numbers, seed))

    if resamples * estimates.studies < _CELLS_ALONE:
        parts = list(map(measure, chunks))
    else:  # NumPy lets others compute meanwhile; which thread measures a resample does not change it.
        with ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_THREADS)) as threads:
            parts = list(threads.map(measure, chunks))
    joined = {name: np.concatenate([part[name] for part in parts]) for name in whole}
    return Resamples(
        scores=scores,
        seed=seed,
        patients=estimates.patients,
        values={name: float(whole[name][0]) for name in WITHOUT_THRESHOLD},
        samples={name: joined.pop(name) for name in WITHOUT_THRESHOLD},
        codes=estimates.codes,
        thresholds=estimates.thresholds,
        **joined,
    )


def draw_patients(patients: int, numbers: range, seed: int) -> np.ndarray:
    """Draw as many patients as there are, with replacement, once for each of the resamples `numbers`.

    A resample of a seed has its own stream of random numbers: it is the same whatever is drawn beside it.

    Returns
    -------
    numpy.ndarray
        float64, shape (numbers, patients): how often each patient came.
    """
    draw = _drawn_once if len(numbers) * patients <= _CELLS_KEPT else _drawn
    return draw(patients, numbers, seed).astype(np.float64)


def _drawn(patients: int, numbers: range, seed: int) -> np.ndarray:
    """Return `draw_patients` as int64, whose running sums take a fifth of the time and are as exact."""
    drawn = np.empty((len(numbers), patients), np.int64)
    for row, number in zip(drawn, numbers, strict=True):
        rng = np.random.default_rng((seed, number))
        chosen = rng.integers(0, patients, size=patients, dtype=np.uint32)
        # Counting unsigned numbers takes five times as long.
        row[:] = np.bincount(chosen.astype(np.int64), minlength=patients)
    return drawn


# A table has hundreds of intervals over the same few patients, and nearly all of their time went into drawing these.
_drawn_once = lru_cache(maxsize=16)(_drawn)


def codes_of(patients: Sequence[str]) -> np.ndarray:
    """Return each case's patient as a number from 0, in the order of the ids."""
    places = {patient: place for place, patient in enumerate(sorted(set(patients)))}
    return np.fromiter((places[patient] for patient in patients), np.intp, len(patients))


def percentile_interval(value: float, samples: np.ndarray, n: int) -> Interval:
    """Return an estimate with the interval that holds 95% of what it was in resamples.

    Resamples in which it is not defined are left out; the interval is stretched to hold the estimate where it lies
    beside it (resampling biases some, such as the calibration error, upwards). NaN limits where nothing is left.
    """
    samples = samples[np.isfinite(samples)]
    if math.isnan(value) or not samples.size:
        return Interval(value, math.nan, math.nan, n)
    low, high = np.percentile(samples, (2.5, 97.5))
    return Interval(value, min(float(low), value), max(float(high), value), n)


def at_end(found: Interval, top: float, patients: int) -> Interval:
    """Return an estimate that lies at an end of its range in every resample with limits that hold what was never seen.

    Parameters
    ----------
    found : Interval
        As `percentile_interval`; any other estimate comes back as it is.
    top : float
        The upper end; the lower one is 0.
    patients : int
        Those that the estimate rests on; for an AUC or an average precision those of the smaller class.
    """
    if not found.low == found.value == found.high or found.value not in (0.0, top):
        return found
    least = top * least_of_all(patients)
    return replace(found, low=least) if found.value else replace(found, high=top - least)


def interval_of(
    statistic: Statistic, patients: Sequence[str], resamples: int = RESAMPLES, seed: int = 0, n: int | None = None
) -> Interval:
    """Return any statistic of weighted cases with its 95% percentile interval over resamples of the patients.

    Parameters
    ----------
    statistic : callable
        How often each case is drawn, shape (resamples, cases), to the statistic's values, shape (resamples,).
    patients : sequence of str
        One for each case.
    resamples, seed : int
    n : int, optional
        Cases that the estimate rests on, where it is not all of them.

    Returns
    -------
    Interval
        As `percentile_interval`; NaN limits where there are fewer than two patients. An AUC (`auc_of`) of 0 or 1 has
        the limits of `at_end`.
    """
    codes = codes_of(patients)
    n = codes.size if n is None else n
    if not codes.size:
        return Interval(math.nan, math.nan, math.nan, 0)
    value = float(statistic(np.ones((1, codes.size)))[0])
    if math.isnan(value) or codes.max() < 1:
        return Interval(value, math.nan, math.nan, n)
    drawn = (draw_patients(int(codes.max()) + 1, numbers, seed) for numbers in _chunks(resamples, codes.size))
    found = percentile_interval(value, np.concatenate([statistic(weights[:, codes]) for weights in drawn]), n)
    return statistic.at_end(found, codes) if isinstance(statistic, Area) else found


def rate_interval(
    holds: Sequence[bool], patients: Sequence[str], resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return the share of cases in which something holds, with its interval over patients.

    Resampling cannot show what was never seen: where it holds in none or in all cases, the limits are those of Wilson's
    interval over as many patients.
    """
    holds = np.asarray(holds, bool)
    if holds.size and (holds.all() or not holds.any()):
        return never_seen(bool(holds.all()), patients, holds.size)
    return interval_of(mean_of(holds), patients, resamples, seed)


def never_seen(always: bool, patients: Sequence[str] | np.ndarray, n: int) -> Interval:
    """Return the interval of a share of exactly 0, or of 1 where `always`: Wilson's, over the patients."""
    count = len(set(np.asarray(patients).tolist()))
    return replace(wilson_interval(count if always else 0, count), n=n)


def mean_of(values: Sequence[float]) -> Statistic:
    """Return the weighted mean as a statistic."""
    values = np.asarray(values, np.float64)
    return lambda weights: np.einsum("ij,j->i", weights, values) / weights.sum(axis=1)


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


class Area:
    """The weighted area under the ROC curve as a statistic; made by `auc_of`."""

    def __init__(self, labels: np.ndarray, scores: np.ndarray) -> None:
        self._labels, self._ranks = labels, _Ranks(labels, scores)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """Return the area in each resample; NaN where it lacks a class."""
        drawn = {label: np.take(weights, cases, axis=1) for label, cases in self._ranks.order.items()}
        return self._ranks.areas(drawn, {label: _running(each) for label, each in drawn.items()}, drawn[1])["auc"]

    def at_end(self, found: Interval, codes: np.ndarray) -> Interval:
        """Return the area's interval as `at_end`; `codes`: each case's patient."""
        return at_end(found, 1.0, min(np.unique(codes[self._labels == label]).size for label in (0, 1)))


def auc_of(labels: Sequence[int], scores: Sequence[float]) -> Area:
    """Return the weighted area under the ROC curve as a statistic; NaN where a resample lacks a class.

    Parameters
    ----------
    labels : sequence of int
        0 or 1.
    scores : sequence of float
        Any finite numbers; ties count half.
    """
    return Area(np.asarray(labels), np.asarray(scores, np.float64))


class _Ranks:
    """The cases of each class from the highest score down, and what depends on that order alone.

    One running sum of weights over each class tells how many cases lie at or above any score.

    Attributes
    ----------
    order, scores : dict of int to numpy.ndarray
        Label -> cases, and their scores, falling.
    """

    def __init__(self, labels: np.ndarray, scores: np.ndarray) -> None:
        self.order, self.scores = {}, {}
        for label in (0, 1):
            cases = np.flatnonzero(labels == label)
            self.order[label] = cases[np.argsort(-scores[cases], kind="stable")]
            self.scores[label] = scores[self.order[label]]
        # How many negatives lie at or above, and how many strictly above, each positive; the latter where it differs.
        self.false, above = (self.places(0, self.scores[1], strictly) for strictly in (False, True))
        self.above = None if np.array_equal(self.false, above) else above
        # How many positives lie at or above each positive; None where no two tie.
        own_rank = self.places(1, self.scores[1])
        self.own_rank = None if np.array_equal(own_rank, np.arange(1, own_rank.size + 1)) else own_rank

    def places(self, label: int, thresholds: np.ndarray, strictly: bool = False) -> np.ndarray:
        """Return how many cases with a label lie at or above, or strictly above, each of `thresholds`."""
        return np.searchsorted(-self.scores[label], -thresholds, side="left" if strictly else "right")

    def areas(
        self, drawn: Mapping[int, np.ndarray], running: Mapping[int, np.ndarray], positive: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return AUC and average precision of each resample.

        Parameters
        ----------
        drawn, running : Mapping of int to numpy.ndarray
            Label -> how often each case in `order` is drawn, (resamples, cases), and the running sums of that.
        positive : numpy.ndarray
            ``drawn[1]`` as floats.
        """
        positives, negatives = running[1][:, -1], running[0][:, -1]
        true = running[1][:, 1:] if self.own_rank is None else np.take(running[1], self.own_rank, axis=1)
        called = np.take(running[0], self.false, axis=1)
        # Negatives that are ranked above a positive or, as half, level with it: what the area lacks of 1.
        lost = np.einsum("ij,ij->i", drawn[1], called)
        if self.above is not None:
            lost = (lost + np.einsum("ij,ij->i", drawn[1], np.take(running[0], self.above, axis=1))) / 2
        called += true
        precisions = true / np.maximum(called, 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                "auc": (positives * negatives - lost) / (positives * negatives),
                "average_precision": np.einsum("ij,ij->i", positive, precisions) / positives,
            }


class _Estimates:
    """All that `Resamples` holds, as a function of how often each patient is drawn.

    Parameters
    ----------
    scores : Scores
        Already checked.
    """

    def __init__(self, scores: Scores) -> None:
        codes, p = codes_of(scores.patient_ids), scores.probabilities
        self.codes, self.studies, self.patients = codes, p.size, int(codes.max()) + 1
        self.thresholds = _choose_thresholds(p, scores.labels)
        self._ranks = _Ranks(scores.labels, p)
        self._codes = {label: codes[cases] for label, cases in self._ranks.order.items()}
        said = {1: self._ranks.scores[1], 0: 1 - self._ranks.scores[0]}  # of what came to be
        # What each patient adds to the sum over all studies: there are fewer patients than studies.
        self._squares = self._of_patients({label: (1 - each) ** 2 for label, each in said.items()})
        self._logs = self._of_patients(
            {label: -np.log(np.clip(each, LOG_LOSS_FLOOR, 1)) for label, each in said.items()}
        )
        self._at = {label: self._ranks.places(label, self.thresholds) for label in (0, 1)}
        # Studies sorted by probability lie bin after bin; each bin ends where the next begins.
        self._width, self._count = (
            {label: self._ranks.places(label, begins) for label in (0, 1)}
            for begins in (_begins(p, bins_of_equal_width(p), ECE_BINS), _begins(p, bins_of_equal_count(p)))
        )

    def _of_patients(self, values: Mapping[int, np.ndarray]) -> np.ndarray:
        """Return each patient's sum of what its studies have; label -> values in the order of the ranks."""
        return sum(np.bincount(self._codes[label], each, self.patients) for label, each in values.items())

    def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Return all for `weights` of shape (resamples, patients), int64."""
        drawn = {label: np.take(weights, codes, axis=1) for label, codes in self._codes.items()}
        running = {label: _running(each) for label, each in drawn.items()}
        as_floats = {label: each.astype(np.float64) for label, each in drawn.items()}
        said = {label: each * self._ranks.scores[label] for label, each in as_floats.items()}
        positives, negatives = running[1][:, -1], running[0][:, -1]
        total = positives + negatives

        def counted(ends: Mapping[int, np.ndarray], label: int) -> np.ndarray:
            return np.diff(np.take(running[label], ends[label], axis=1), axis=1, prepend=0)

        bins, equal = (
            [
                counted(ends, 0) + counted(ends, 1),
                _sums_between(said[0], ends[0]) + _sums_between(said[1], ends[1]),
                counted(ends, 1),
            ]
            for ends in (self._width, self._count)
        )
        drawn_patients = weights.astype(np.float64)
        return {
            **self._ranks.areas(drawn, running, as_floats[1]),
            "brier": np.einsum("ij,j->i", drawn_patients, self._squares) / total,
            "log_loss": np.einsum("ij,j->i", drawn_patients, self._logs) / total,
            "ece": np.abs(bins[1] - bins[2]).sum(axis=1) / total,
            "adaptive_ece": np.abs(equal[1] - equal[2]).sum(axis=1) / total,
            "tp": np.take(running[1], self._at[1], axis=1).astype(np.float32),
            "fp": np.take(running[0], self._at[0], axis=1).astype(np.float32),
            # Copied: a view would keep the running sums over all studies in memory until the last resample is drawn.
            "positives": positives.astype(np.float64),
            "negatives": negatives.astype(np.float64),
            "bins": np.stack(bins, axis=-1)[:, ::-1],
        }


def _begins(probabilities: np.ndarray, bins: np.ndarray, count: int | None = None) -> np.ndarray:
    """Return the lowest probability of each bin, from the highest bin down; an empty one begins where the next does."""
    count = int(bins.max()) + 1 if count is None else count
    lowest = np.full(count, np.inf)
    np.minimum.at(lowest, bins, probabilities)
    return np.minimum.accumulate(lowest[::-1])


def _chunks(resamples: int, cells: int) -> list[range]:
    """Split the resamples into as many at once as the cache holds, `cells` of an array each."""
    rows = max(1, _CELLS_AT_ONCE // cells)
    return [range(start, min(start + rows, resamples)) for start in range(0, resamples, rows)]


def _running(weights: np.ndarray) -> np.ndarray:
    """Return running sums along the second axis, with a 0 before the first."""
    out = np.empty((weights.shape[0], weights.shape[1] + 1), weights.dtype)
    out[:, 0] = 0
    np.cumsum(weights, axis=1, out=out[:, 1:])
    return out


def _sums_between(values: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the sums along the second axis up to the first of `ends`, from there to the next, and so on."""
    begins = np.append(0, ends[:-1])
    some = begins < ends  # of an empty stretch reduceat would return the value beside it
    out = np.zeros((values.shape[0], ends.size))
    if some.any():
        out[:, some] = np.add.reduceat(values[:, : ends[-1]], begins[some], axis=1)
    return out


def _choose_thresholds(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return where counts are kept, falling: every distinct probability, or of too many those that matter.

    Between two thresholds a count is taken to grow evenly, which leaves out how it varies there. So none is left out
    where few studies of a class are called, or few are not; elsewhere they lie evenly among each class's own.
    """
    distinct = np.unique(probabilities)
    if distinct.size <= THRESHOLDS_KEPT:
        return distinct[::-1]
    ends, evenly, chosen = THRESHOLDS_KEPT // 16, 3 * THRESHOLDS_KEPT // 8, [distinct[[0, -1]]]
    for label in (0, 1):
        own = np.unique(probabilities[labels == label])
        if own.size:
            even = np.linspace(0, own.size - 1, evenly).round().astype(int)
            chosen += [own[:ends], own[-ends:], own[even]]
    return np.unique(np.concatenate(chosen))[::-1]


def _between(kept: np.ndarray, counted: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Interpolate the counts of every resample.

    Parameters
    ----------
    kept : numpy.ndarray
        Shape (resamples, thresholds): counts at the kept thresholds.
    counted : numpy.ndarray
        Shape (thresholds,), never falling: the studies' own counts there.
    wanted : numpy.ndarray
        The studies' own counts where the resamples' are asked for.
    """
    upper = np.minimum(np.searchsorted(counted, wanted, side="left"), counted.size - 1)
    lower = np.where(upper > 0, upper - 1, 0)
    first = np.where(upper > 0, counted[lower], 0)
    gap = counted[upper] - first
    share = np.divide(wanted - first, gap, out=np.ones(wanted.size), where=gap > 0)
    below = np.where(upper > 0, kept[:, lower], 0).astype(np.float64)
    return below + share * (kept[:, upper] - below)
