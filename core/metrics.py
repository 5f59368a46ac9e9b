"""Labels and scores to numbers with intervals. It knows no model and no image.

A study counts as called positive where its probability is at or above the threshold. A rate without cases to rest on
(0 of 0, or an AUC where only one class is present) is NaN here and ``null`` in JSON; it never becomes 0 or 1.

Intervals are 95% percentile intervals of a bootstrap over patients (a cluster bootstrap: the studies of a patient are
drawn together, since they are not independent). Every estimate is a function of patient weights, and one resample is
one row of weights, so all resamples are computed at once: sums over studies become one matrix product, and ranks come
from sorting once. Efron and Tibshirani, An Introduction to the Bootstrap (1993); Field and Welsh, J. R. Stat. Soc. B
69:369 (2007) for clusters.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import CheckpointError, ScoresError
from core.values import Interval, OperatingPoint, Scores

SCORES_COLUMNS = ("study_id", "patient_id", "label", "probability")
ECE_BINS = 10
TEMPERATURE_RANGE = (0.1, 10.0)
BIAS_RANGE = (-5.0, 5.0)
NORMAL_975 = 1.959963984540054  # 97.5% quantile of the standard normal distribution

# Cells of the (resamples, studies) array that is held at once: 32 MB of float64.
_CELLS_AT_ONCE = 4_000_000


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
class Confusion:
    """Studies counted by what they are and what they were called at one threshold."""

    threshold: float
    tp: int
    fp: int
    tn: int
    fn: int


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a checkpoint did on one set of studies.

    Attributes
    ----------
    n, positives, patients : int
        Studies, positive studies, patients.
    threshold : float
    confusion : Confusion
    auc, average_precision, brier, ece : Interval
        Of the probabilities. `ece`: expected calibration error over `ECE_BINS` bins of equal width.
    sensitivity, specificity, accuracy, precision, npv, f1, kappa : Interval
        At the threshold. `kappa` is Cohen's, between the call and the label. Each interval's `n` is the number of
        studies in the estimate's denominator.
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

    def to_dict(self) -> dict[str, Any]:
        """Return what ``python -m core.evaluate --json`` prints; NaN becomes None."""
        confusion = self.confusion
        out: dict[str, Any] = {"n": self.n, "positives": self.positives}
        for name in ESTIMATES[:4]:
            out[name] = _interval_dict(getattr(self, name))
        out["threshold"] = self.threshold
        out["confusion"] = {"tp": confusion.tp, "fp": confusion.fp, "tn": confusion.tn, "fn": confusion.fn}
        for name in ESTIMATES[4:]:
            out[name] = _interval_dict(getattr(self, name))
        return out


# Order of the Evaluation's estimates: four of the probabilities, then those at the threshold.
ESTIMATES = tuple(field.name for field in fields(Evaluation) if field.type == "Interval")


@dataclass(frozen=True, eq=False)
class CasesLike:
    """The studies that scored like one given study, and how many of them were positive.

    Attributes
    ----------
    positives, n : int
        "Of the `n` studies that scored like this one, `positives` had a fracture."
    low, high : float
        Lowest and highest probability among them.
    rate : Interval
        positives / n with its Wilson interval.
    """

    positives: int
    n: int
    low: float
    high: float
    rate: Interval


def check_scores(scores: Scores) -> None:
    """Raise ScoresError unless the scores can be measured.

    Raises
    ------
    ScoresError
        No study; lengths that differ; a label other than 0 or 1; a probability that is NaN or outside [0, 1]; a study
        that appears twice; a study without a patient.
    """
    n = len(scores.study_ids)
    lengths = {n, len(scores.patient_ids), *scores.labels.shape, *scores.probabilities.shape}
    if scores.labels.ndim != 1 or scores.probabilities.ndim != 1 or len(lengths) != 1:
        raise ScoresError("Every study needs one patient, one label and one probability, but their numbers differ.")
    if n == 0:
        raise ScoresError("At least one scored study is needed, but there is none.")
    wrong = int(np.count_nonzero(~np.isin(scores.labels, (0, 1))))
    if wrong:
        raise ScoresError(f"Labels must be 0 or 1, but {wrong} of {n} are not.")
    wrong = n - int(np.count_nonzero((scores.probabilities >= 0) & (scores.probabilities <= 1)))
    if wrong:
        raise ScoresError(f"Probabilities must be numbers from 0 to 1, but {wrong} of {n} are not.")
    repeated = n - len(set(scores.study_ids))
    if repeated:
        raise ScoresError(f"Each study must be scored once, but {repeated} of {n} rows repeat a study.")
    nameless = sum(not patient for patient in scores.patient_ids)
    if nameless:
        raise ScoresError(f"Every study needs a patient id, but {nameless} of {n} have none.")


def read_scores(path: Path | str, checkpoint_id: str = "", split: str = "") -> Scores:
    """Read a table of scores: columns study_id, patient_id, label (0 or 1) and probability; others are ignored.

    Parameters
    ----------
    path : pathlib.Path or str
    checkpoint_id : str
        Of the checkpoint that gave them, where it is known.
    split : str
        Where the table has a column ``split``, only the rows of this split are taken; without a name it may hold only
        one split, since studies a threshold was chosen on must not be mixed with those it is tested on.

    Raises
    ------
    ScoresError
        No such table, not a table, a column missing, a label or probability that is not a number, no row of the split
        or several splits and none named; and as `check_scores`.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            columns = [name.strip() for name in table.fieldnames or ()]
            table.fieldnames = columns
            missing = [name for name in SCORES_COLUMNS if name not in columns]
            if missing:
                raise ScoresError(
                    f"A table of scores needs the columns {', '.join(SCORES_COLUMNS)}, but it has no {missing[0]}."
                )
            names = (*SCORES_COLUMNS, "split") if "split" in columns else SCORES_COLUMNS
            rows = [[(row[name] or "").strip() for name in names] for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ScoresError("A table of scores was expected, but there is no file that can be read as one.") from error
    if "split" in columns:
        splits = sorted({row[4] for row in rows})
        if split and rows and split not in splits:
            raise ScoresError("The table has no studies of the split that was asked for.")
        if not split and len(splits) > 1:
            raise ScoresError(f"The table holds {len(splits)} splits, so one of them must be named, but none is.")
        rows = [row for row in rows if row[4] == split] if split else rows
        split = split or (splits[0] if splits else "")
    labels = _numbers((row[2] for row in rows), "label")
    if not np.isin(labels, (0.0, 1.0)).all():  # before the cast to int8 can hide a 0.5
        raise ScoresError("Labels must be 0 or 1, but the table holds others.")
    scores = Scores(
        checkpoint_id=checkpoint_id,
        split=split,
        study_ids=tuple(row[0] for row in rows),
        patient_ids=tuple(row[1] for row in rows),
        labels=labels,
        probabilities=_numbers((row[3] for row in rows), "probability"),
    )
    check_scores(scores)
    return scores


def write_scores(scores: Scores, path: Path | str) -> None:
    """Write `scores` as the table that `read_scores` reads; every probability comes back bit for bit.

    Raises
    ------
    ScoresError
        It cannot be written.
    """
    columns = (scores.study_ids, scores.patient_ids, scores.labels.tolist(), map(repr, scores.probabilities.tolist()))
    try:
        with open(path, "w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(SCORES_COLUMNS)
            table.writerows(zip(*columns, strict=True))
    except OSError as error:
        raise ScoresError("A place where the table of scores can be written was expected, but it cannot be.") from error


def roc_curve(scores: Scores) -> RocCurve:
    """Return the ROC curve, with one point for each distinct probability. Raises as `check_scores`."""
    check_scores(scores)
    order = np.argsort(-scores.probabilities, kind="stable")
    probabilities, labels = scores.probabilities[order], scores.labels[order]
    last_of_tie = np.flatnonzero(np.append(np.diff(probabilities) != 0, True))
    tp = np.concatenate(([0], np.cumsum(labels == 1)[last_of_tie]))
    fp = np.concatenate(([0], np.cumsum(labels == 0)[last_of_tie]))
    with np.errstate(invalid="ignore"):
        sensitivities, false_positive_rates = tp / tp[-1], fp / fp[-1]
    return RocCurve(
        thresholds=np.concatenate(([np.inf], probabilities[last_of_tie])),
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


def confusion(scores: Scores, threshold: float) -> Confusion:
    """Count the studies at `threshold`, which calls a study positive from it on. Raises as `check_scores`."""
    check_scores(scores)
    called, positive = scores.probabilities >= threshold, scores.labels == 1
    return Confusion(
        threshold=float(threshold),
        tp=int(np.sum(called & positive)),
        fp=int(np.sum(called & ~positive)),
        tn=int(np.sum(~called & ~positive)),
        fn=int(np.sum(~called & positive)),
    )


def evaluate_scores(scores: Scores, threshold: float, resamples: int = 2000, seed: int = 0) -> Evaluation:
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
        An undefined estimate is NaN with NaN limits. Resamples in which an estimate is undefined are left out of its
        interval. One patient alone cannot be resampled: the limits are NaN. Where the percentile interval lies beside
        its estimate (resampling biases the ECE upwards) it is stretched to hold it. A rate of exactly 0 or 1 has an
        interval of no width: resampling cannot show what was never seen, so read it together with `n`
        (`wilson_interval`).

    Raises
    ------
    ScoresError
        As `check_scores`; a threshold that is NaN; fewer than one resample.
    """
    counts = confusion(scores, threshold)
    if math.isnan(counts.threshold):
        raise ScoresError("The threshold must be a number, but it is not.")
    if resamples < 1:
        raise ScoresError(f"At least one bootstrap resample is needed, but {resamples} were asked for.")
    positives = counts.tp + counts.fn
    n = len(scores.study_ids)
    cases = dict.fromkeys(ESTIMATES, n)
    cases.update(sensitivity=positives, specificity=n - positives)
    cases.update(precision=counts.tp + counts.fp, npv=counts.tn + counts.fn)

    table = _WeightedEstimates(scores, threshold)
    values = table(np.ones((1, table.patients)))
    samples = _bootstrap(table, resamples, seed)
    intervals = {
        name: _percentile_interval(float(values[name][0]), samples[name], cases[name], table.patients)
        for name in ESTIMATES
    }
    return Evaluation(
        n=n, positives=positives, patients=table.patients, threshold=counts.threshold, confusion=counts, **intervals
    )


def wilson_interval(k: int, n: int) -> Interval:
    """Return k / n with its 95% score interval (Wilson, J. Am. Stat. Assoc. 22:209, 1927); all NaN where n is 0.

    It takes the n cases as independent, and stays honest where k is 0 or n.

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
    low = 0.0 if k == 0 else centre - half
    high = 1.0 if k == n else centre + half
    return Interval(share, low, high, int(n))


def operating_points(
    scores: Scores, sensitivity_target: float = 0.95, specificity_target: float = 0.95
) -> tuple[OperatingPoint, OperatingPoint]:
    """Choose the two thresholds between which a study is uncertain.

    ``high_sensitivity`` is the largest threshold whose sensitivity reaches its target; ``high_specificity`` the
    smallest probability that occurs whose specificity reaches its target (just above the highest where none that occurs
    does). A threshold is at most 1: where too many negatives score exactly 1, none reaches the target, and the
    specificity measured says so.
    On scores that separate the classes well the two cross, and every threshold between them reaches both targets: both
    points then take the one in the middle, and no study is uncertain.

    Returns
    -------
    tuple of OperatingPoint
        (high_sensitivity, high_specificity), thresholds never falling. Sensitivity and specificity carry Wilson
        intervals over the studies of `scores`; they are measured where they were chosen.

    Raises
    ------
    ScoresError
        As `check_scores`; a target outside (0, 1]; one class only.
    """
    check_scores(scores)
    if not (0 < sensitivity_target <= 1 and 0 < specificity_target <= 1):
        raise ScoresError("Targets for sensitivity and specificity must lie above 0 and not above 1.")
    positive = np.sort(scores.probabilities[scores.labels == 1])
    negative = np.sort(scores.probabilities[scores.labels == 0])
    if not (positive.size and negative.size):
        raise ScoresError("Operating points need both positive and negative studies, but there is only one class.")

    low = positive[-_needed(sensitivity_target, positive.size)]
    above = negative[_needed(specificity_target, negative.size) - 1]
    higher = scores.probabilities[scores.probabilities > above]
    high = higher.min() if higher.size else min(np.nextafter(above, 1.0), 1.0)
    if low > high:
        low = high = (low + high) / 2
    return (_measured_point("high_sensitivity", low, scores), _measured_point("high_specificity", high, scores))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature t for which logistic(logit / t) makes the labels most likely.

    Guo et al., On Calibration of Modern Neural Networks, ICML 2017. The search keeps to `TEMPERATURE_RANGE`: logits
    that separate the labels perfectly would ask for 0, logits that say nothing of them for infinity.

    Parameters
    ----------
    logits, labels : numpy.ndarray
        Shape (n,); real numbers, and 0 or 1.

    Raises
    ------
    ScoresError
        Shapes that differ, a logit that is not finite, or one class only.
    """
    from scipy.optimize import minimize_scalar

    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if logits.ndim != 1 or logits.shape != labels.shape or not np.isfinite(logits).all():
        raise ScoresError("A temperature is fitted to one finite logit and one label for each study.")
    if set(np.unique(labels)) != {0, 1}:
        raise ScoresError("A temperature can only be fitted where both labels, 0 and 1, are present.")

    # -log of the probability given to the label is log(1 + exp(-z)) with z the logit signed by the label.
    signed = np.where(labels == 1, logits, -logits)

    def loss(log_temperature: float) -> float:
        return float(np.logaddexp(0.0, -signed / math.exp(log_temperature)).mean())

    if not logits.any():
        return 1.0
    found = minimize_scalar(
        loss, bounds=tuple(map(math.log, TEMPERATURE_RANGE)), method="bounded", options={"xatol": 1e-8}
    )
    return float(math.exp(found.x))


def fit_study_calibration(logits: np.ndarray, study_ids: Sequence[str], labels: np.ndarray) -> dict[str, Any]:
    """Return the calibration of films' logits that makes the labels of their studies most likely.

    A study's probability is the mean of its films' ``logistic(logit / temperature + bias)`` (Platt 1999, Probabilistic
    outputs for support vector machines). A break that shows on one film of two makes that mean differ from what each
    film by itself would ask for, so it is the studies that are fitted. The temperature keeps to `TEMPERATURE_RANGE`,
    the bias to `BIAS_RANGE`.

    Parameters
    ----------
    logits, labels : numpy.ndarray
        Shape (n,), of films; real numbers, and 0 or 1, the same for all films of a study.
    study_ids : sequence of str
        The study of each film.

    Returns
    -------
    dict
        A card's calibration, see :func:`calibrate`.

    Raises
    ------
    ScoresError
        Shapes that differ, a logit that is not finite, or one class only.
    """
    from scipy.optimize import minimize

    start = fit_temperature(logits, labels)
    _, study = np.unique(np.asarray(study_ids), return_inverse=True)
    if study.shape != np.shape(logits):
        raise ScoresError("A calibration needs the study of each film, but their numbers differ.")
    films = np.bincount(study)
    label = np.bincount(study, weights=np.asarray(labels, float)) / films
    logits = np.asarray(logits, np.float64)

    def loss(values: np.ndarray) -> float:
        scaled = logits / math.exp(values[0]) + values[1]
        broken, whole = (
            np.bincount(study, weights=np.exp(-np.logaddexp(0.0, -sign * scaled))) / films for sign in (1.0, -1.0)
        )
        return float(-np.mean(np.log(np.maximum(np.where(label == 1, broken, whole), 1e-300))))

    bounds = [tuple(map(math.log, TEMPERATURE_RANGE)), BIAS_RANGE]
    found = minimize(loss, [math.log(start), 0.0], method="Nelder-Mead", bounds=bounds, options={"xatol": 1e-6})
    return {"method": "platt", "temperature": float(math.exp(found.x[0])), "bias": float(found.x[1])}


def read_calibration(calibration: Mapping[str, Any] | None) -> tuple[float, float]:
    """Return temperature and bias of a card's calibration; 1 and 0 without one; see :func:`calibrate`.

    Raises
    ------
    CheckpointError
        A calibration of another kind, a temperature that is not above 0, or a bias that is not finite.
    """
    if calibration is None:
        return 1.0, 0.0
    method, temperature, bias = (calibration.get(key) for key in ("method", "temperature", "bias"))
    names = {"temperature": {"method", "temperature"}, "platt": {"method", "temperature", "bias"}}
    bias = 0.0 if method == "temperature" else bias
    numbers = all(isinstance(n, int | float) and not isinstance(n, bool) for n in (temperature, bias))
    if (
        set(calibration) != names.get(method)
        or not numbers
        or not 0 < temperature < math.inf
        or not math.isfinite(bias)
    ):
        raise CheckpointError(
            "The calibration must be a method, temperature or platt, a temperature above 0 and for platt a finite "
            "bias, but the card holds another."
        )
    return float(temperature), float(bias)


def calibrate(logit: float | np.ndarray, calibration: Mapping[str, Any] | None) -> float | np.ndarray:
    """Turn raw logits into probabilities by a card's calibration; without one, by the logistic function alone.

    Parameters
    ----------
    logit : float or numpy.ndarray
        Any real number; infinity is allowed.
    calibration : Mapping or None
        ``{"method": "temperature", "temperature": t}`` with t > 0: ``logistic(logit / t)``; or ``{"method": "platt",
        "temperature": t, "bias": b}``: ``logistic(logit / t + b)``.

    Returns
    -------
    float or numpy.ndarray
        [0, 1], float64, in the form `logit` came in.

    Raises
    ------
    CheckpointError
        A calibration of another kind, a temperature that is not above 0, or a bias that is not finite.
    """
    temperature, bias = read_calibration(calibration)
    # exp(-log(1 + exp(-z))) neither overflows nor loses the small probabilities.
    probability = np.exp(-np.logaddexp(0.0, -(np.asarray(logit, dtype=np.float64) / temperature + bias)))
    return float(probability) if probability.ndim == 0 else probability


def cases_like(scores: Scores, probability: float, minimum: int = 20) -> CasesLike:
    """Count how many of the studies that scored like `probability` were positive.

    "Like" is within 0.05 of it; where that holds fewer than `minimum` studies, the nearest `minimum` of them, and
    every study as near as the farthest of those. With fewer than `minimum` studies in all, all of them.

    Raises
    ------
    ScoresError
        As `check_scores`; a probability outside [0, 1]; a minimum below 1.
    """
    check_scores(scores)
    if not 0 <= probability <= 1:
        raise ScoresError("A probability from 0 to 1 was expected.")
    if minimum < 1:
        raise ScoresError(f"At least one study must be asked for, but {minimum} came.")
    distances = np.abs(scores.probabilities - probability)
    rank = min(minimum, distances.size) - 1
    reach = max(0.05, float(np.partition(distances, rank)[rank]))
    like = distances <= reach + 1e-12  # 0.65 - 0.6 is not quite 0.05
    positives, n = int(np.sum(scores.labels[like] == 1)), int(np.sum(like))
    chosen = scores.probabilities[like]
    return CasesLike(positives, n, float(chosen.min()), float(chosen.max()), wilson_interval(positives, n))


class _WeightedEstimates:
    """All estimates as functions of how often each patient is drawn.

    Parameters
    ----------
    scores : Scores
        Already checked.
    threshold : float
    """

    def __init__(self, scores: Scores, threshold: float) -> None:
        codes = np.unique(np.array(scores.patient_ids, dtype=object), return_inverse=True)[1]
        self.patients = int(codes.max()) + 1
        p, y = scores.probabilities, scores.labels.astype(np.float64)
        called = p >= threshold
        # Sums over a resample's studies are this table's rows, added up as often as each patient was drawn.
        columns = np.zeros((p.size, 5 + ECE_BINS))
        columns[:, 0], columns[:, 1] = called * y, called * (1 - y)
        columns[:, 2], columns[:, 3] = ~called * (1 - y), ~called * y
        columns[:, 4] = (p - y) ** 2
        columns[np.arange(p.size), 5 + np.digitize(p, np.arange(1, ECE_BINS) / ECE_BINS)] = p - y
        self._sums = np.zeros((self.patients, columns.shape[1]))
        np.add.at(self._sums, codes, columns)

        order = np.argsort(-p, kind="stable")
        self._codes, self._labels = codes[order], y[order]
        self._first_of_tie = np.flatnonzero(np.append(True, np.diff(p[order]) != 0))
        self.studies = p.size

    def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Return each estimate, shape (resamples,), for `weights` of shape (resamples, patients)."""
        sums = weights @ self._sums
        tp, fp, tn, fn = sums[:, :4].T
        total = tp + fp + tn + fn
        chance = ((tp + fn) * (tp + fp) + (fp + tn) * (tn + fn)) / total**2
        with np.errstate(divide="ignore", invalid="ignore"):
            estimates = {
                "brier": sums[:, 4] / total,
                "ece": np.abs(sums[:, 5:]).sum(axis=1) / total,
                "sensitivity": tp / (tp + fn),
                "specificity": tn / (tn + fp),
                "accuracy": (tp + tn) / total,
                "precision": tp / (tp + fp),
                "npv": tn / (tn + fn),
                "f1": 2 * tp / (2 * tp + fp + fn),
                "kappa": ((tp + tn) / total - chance) / (1 - chance),
            }
            estimates["auc"], estimates["average_precision"] = self._ranked(weights)
        return estimates

    def _ranked(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return AUC and average precision, each of shape (resamples,)."""
        drawn = weights[:, self._codes]
        positive = drawn * self._labels
        negative = drawn - positive
        if self._first_of_tie.size < self.studies:
            positive = np.add.reduceat(positive, self._first_of_tie, axis=1)
            negative = np.add.reduceat(negative, self._first_of_tie, axis=1)
        tp, fp = np.cumsum(positive, axis=1), np.cumsum(negative, axis=1)
        positives, negatives = tp[:, -1], fp[:, -1]
        # A negative is outranked by every positive of an earlier tie, and by half of its own.
        area = np.einsum("ij,ij->i", negative, tp - positive / 2) / (positives * negatives)
        called = tp + fp
        precision = np.divide(tp, called, out=np.zeros_like(tp), where=called > 0)
        return area, np.einsum("ij,ij->i", positive, precision) / positives


def _bootstrap(table: _WeightedEstimates, resamples: int, seed: int) -> dict[str, np.ndarray]:
    """Return every estimate in every resample of the patients, shape (resamples,) each."""
    rng = np.random.default_rng(seed)
    rows = max(1, _CELLS_AT_ONCE // max(table.studies, table.patients))
    parts = [
        table(_draw_weights(rng, min(rows, resamples - start), table.patients)) for start in range(0, resamples, rows)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in ESTIMATES}


def _draw_weights(rng: np.random.Generator, resamples: int, patients: int) -> np.ndarray:
    """Draw as many patients as there are, with replacement; return how often each came, (resamples, patients)."""
    drawn = rng.integers(0, patients, size=(resamples, patients)) + patients * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * patients).reshape(resamples, patients).astype(np.float64)


def _percentile_interval(value: float, samples: np.ndarray, cases: int, patients: int) -> Interval:
    samples = samples[np.isfinite(samples)]
    if math.isnan(value) or patients < 2 or not samples.size:
        return Interval(value, math.nan, math.nan, cases)
    low, high = np.percentile(samples, (2.5, 97.5))
    return Interval(value, min(float(low), value), max(float(high), value), cases)


def _needed(target: float, n: int) -> int:
    """Return the smallest k, at least 1, with k / n >= target, by the very division the reader would make."""
    return int(np.argmax(np.arange(1, n + 1) / n >= target)) + 1


def _measured_point(name: str, threshold: float, scores: Scores) -> OperatingPoint:
    counts = confusion(scores, threshold)
    return OperatingPoint(
        name=name,
        threshold=float(threshold),
        sensitivity=wilson_interval(counts.tp, counts.tp + counts.fn),
        specificity=wilson_interval(counts.tn, counts.tn + counts.fp),
    )


def _numbers(texts: Iterable[str], column: str) -> np.ndarray:
    try:
        return np.array([float(text) for text in texts], dtype=np.float64)
    except ValueError as error:
        raise ScoresError(f"Every {column} must be a number, but at least one is not.") from error


def _interval_dict(interval: Interval) -> dict[str, float | None]:
    return {
        name: None if math.isnan(value) else value
        for name, value in (("value", interval.value), ("low", interval.low), ("high", interval.high))
    }
