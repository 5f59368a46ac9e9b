"""What a probability is worth: calibration measured, and calibration fitted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from core.errors import CheckpointError, ScoresError

ECE_BINS = 10
LOG_LOSS_FLOOR = float(np.finfo(np.float64).eps)
"""A probability of 0 for what came to be costs as much as this one would, as in scikit-learn."""
TEMPERATURE_RANGE = (0.1, 10.0)
BIAS_RANGE = (-5.0, 5.0)
MEAN_FLOOR = 1e-12
"""Probabilities of 0 and 1 have the log-odds of what lies this far from them, where finite ones are needed."""
CALIBRATIONS = ("temperature", "platt", "isotonic")


def bins_of_equal_width(probabilities: np.ndarray) -> np.ndarray:
    """Return each probability's bin of `ECE_BINS` of equal width, counted from 0; 1 belongs to the last."""
    return np.digitize(probabilities, np.arange(1, ECE_BINS) / ECE_BINS)


def bins_of_equal_count(probabilities: np.ndarray) -> np.ndarray:
    """Return each probability's bin of up to `ECE_BINS` that hold about equally many; equal ones share a bin.

    Nixon et al., Measuring Calibration in Deep Learning, CVPR workshops 2019.
    """
    ranked = np.sort(probabilities)
    firsts = ranked[np.arange(1, ECE_BINS) * ranked.size // ECE_BINS]
    return np.digitize(probabilities, np.unique(firsts[firsts > ranked[0]]))


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


def fit_study_calibration(
    logits: np.ndarray, study_ids: Sequence[str], labels: np.ndarray, method: str = "platt"
) -> dict[str, Any]:
    """Return the calibration of films' logits that suits the labels of their studies best.

    A study's probability is made of the mean of its films' probabilities. A break that shows on one film of two makes
    that mean differ from what each film by itself would ask for, so ``temperature`` (Guo et al. 2017) and ``platt``
    (Platt 1999, Probabilistic outputs for support vector machines: a bias, too) are fitted to the studies' means; the
    temperature keeps to `TEMPERATURE_RANGE`, the bias to `BIAS_RANGE`. ``isotonic`` (Zadrozny and Elkan, KDD 2002)
    takes whatever never falls and is fitted to the films, those of a study counting as one; it needs many studies.

    Parameters
    ----------
    logits, labels : numpy.ndarray
        Shape (n,), of films; real numbers, and 0 or 1, the same for all films of a study.
    study_ids : sequence of str
        The study of each film.
    method : str
        One of `CALIBRATIONS`.

    Returns
    -------
    dict
        A card's calibration, see :func:`calibrate`.

    Raises
    ------
    ScoresError
        Shapes that differ, a logit that is not finite, one class only, or another method.
    """
    if method not in CALIBRATIONS:
        raise ScoresError(f"A calibration is one of {', '.join(CALIBRATIONS)}, but another was asked for.")
    start = fit_temperature(logits, labels)
    _, study = np.unique(np.asarray(study_ids), return_inverse=True)
    if study.shape != np.shape(logits):
        raise ScoresError("A calibration needs the study of each film, but their numbers differ.")
    films = np.bincount(study)
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
    if method == "isotonic":
        return _fit_isotonic(logits, labels, 1 / films[study])
    return _fit_logistic(logits, study, np.bincount(study, weights=labels) / films, start, method)


def _fit_logistic(
    logits: np.ndarray, study: np.ndarray, label: np.ndarray, start: float, method: str
) -> dict[str, Any]:
    from scipy.optimize import minimize

    films, biased = np.bincount(study), method == "platt"

    def loss(values: np.ndarray) -> float:
        scaled = logits / math.exp(values[0]) + (values[1] if biased else 0.0)
        broken, whole = (
            np.bincount(study, weights=np.exp(-np.logaddexp(0.0, -sign * scaled))) / films for sign in (1.0, -1.0)
        )
        return float(-np.mean(np.log(np.maximum(np.where(label == 1, broken, whole), 1e-300))))

    bounds = [tuple(map(math.log, TEMPERATURE_RANGE)), BIAS_RANGE][: 1 + biased]
    begin = [math.log(start), 0.0][: 1 + biased]
    found = minimize(loss, begin, method="Nelder-Mead", bounds=bounds, options={"xatol": 1e-6})
    calibration = {"method": method, "temperature": float(math.exp(found.x[0]))}
    return calibration | ({"bias": float(found.x[1])} if biased else {})


def _fit_isotonic(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> dict[str, Any]:
    from sklearn.isotonic import IsotonicRegression

    # Nothing is certain because no other was seen: one study of the other kind is taken to lie beyond either end.
    least = 1 / (weights.sum() + 2)
    fitted = IsotonicRegression(y_min=least, y_max=1 - least).fit(logits, labels, sample_weight=weights)
    return {
        "method": "isotonic",
        "logits": [float(value) for value in fitted.X_thresholds_],
        "probabilities": [float(value) for value in fitted.y_thresholds_],
    }


def fit_mean_calibration(means: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Return the calibration of studies' means that suits their labels best: a temperature and a bias of log-odds.

    A mean of probabilities is drawn to the middle: a break that one film shows and the other does not gives one half,
    though it is nearly always there; so does one that some models of a mean see and others do not. What is fitted never
    puts one study before another that was ahead of it. The logarithm of the temperature and the bias are held by a
    normal prior of mean 0 and deviation 1 (ridge regression towards what already is): a few studies that happen to be
    told apart move little.

    Parameters
    ----------
    means : numpy.ndarray
        (n,), [0, 1]: the mean of each study's films, or of the models of a mean.
    labels : numpy.ndarray
        (n,), 0 or 1.

    Returns
    -------
    dict
        ``{"method": "platt", "temperature", "bias"}``, see :func:`calibrate_means`; within `TEMPERATURE_RANGE` and
        `BIAS_RANGE`.

    Raises
    ------
    ScoresError
        Shapes that differ, a mean out of range, or one class only.
    """
    from scipy.optimize import minimize

    means, labels = np.asarray(means, np.float64), np.asarray(labels)
    if means.ndim != 1 or means.shape != labels.shape or not ((means >= 0) & (means <= 1)).all():
        raise ScoresError("A study's calibration is fitted to one probability and one label for each study.")
    if set(np.unique(labels)) != {0, 1}:
        raise ScoresError("A study's calibration can only be fitted where both labels, 0 and 1, are present.")
    odds = finite_log_odds(means)  # to fit; what is certain stays certain when it is calibrated
    sign = np.where(labels == 1, 1.0, -1.0)

    def loss(values: np.ndarray) -> float:
        scaled = odds / math.exp(values[0]) + values[1]
        return float(np.logaddexp(0.0, -sign * scaled).sum() + 0.5 * (values**2).sum())

    bounds = [tuple(map(math.log, TEMPERATURE_RANGE)), BIAS_RANGE]
    found = minimize(loss, [0.0, 0.0], method="Nelder-Mead", bounds=bounds, options={"xatol": 1e-6, "fatol": 1e-10})
    return {"method": "platt", "temperature": float(math.exp(found.x[0])), "bias": float(found.x[1])}


def pool(
    logits: np.ndarray, calibration: Mapping[str, Any] | None, study_calibration: Mapping[str, Any] | None = None
) -> float:
    """Return the probability of a study: the mean of its films' calibrated probabilities, calibrated in its turn.

    Parameters
    ----------
    logits : numpy.ndarray
        (n,), n above 0: of its films; of one film alone, its own probability.
    calibration, study_calibration : Mapping or None
        A card's: of films, see :func:`calibrate`; and of what the mean's log-odds become, in the same forms.

    Raises
    ------
    CheckpointError
        As :func:`calibrate`.
    """
    return pool_both(logits, calibration, study_calibration)[0]


def pool_both(
    logits: np.ndarray, calibration: Mapping[str, Any] | None, study_calibration: Mapping[str, Any] | None = None
) -> tuple[float, float]:
    """Return the probabilities of positive and of negative as :func:`pool`; each keeps its digits next to 0."""
    broken, whole = (float(np.mean(each)) for each in calibrate_both(logits, calibration))
    if study_calibration is None:
        return broken, whole
    return calibrate_both(_log_odds(broken, whole), study_calibration)


def calibrate_means(means: float | np.ndarray, study_calibration: Mapping[str, Any] | None) -> float | np.ndarray:
    """Return probabilities of studies from their means, [0, 1], by a card's or a mean's `study_calibration`.

    As :func:`pool`; without one they stay as they are.
    """
    return means if study_calibration is None else calibrate(_log_odds(means), study_calibration)


def finite_log_odds(probability: float | np.ndarray) -> float | np.ndarray:
    """Return log(p / (1 - p)), of 0 and 1 as if they were `MEAN_FLOOR` away, in the form `probability` came in."""
    odds = _log_odds(np.clip(probability, MEAN_FLOOR, 1 - MEAN_FLOOR))
    return float(odds) if np.ndim(odds) == 0 else odds


def _log_odds(broken: float | np.ndarray, whole: float | np.ndarray | None = None) -> np.ndarray:
    """Return log(broken / whole), infinite where one of them is 0; `whole` is 1 - broken unless it is known better."""
    with np.errstate(divide="ignore"):
        return np.log(broken) - np.log(1 - np.asarray(broken) if whole is None else whole)


def read_calibration(calibration: Mapping[str, Any] | None) -> tuple[float, float]:
    """Return temperature and bias of a card's calibration; 1 and 0 without one; see :func:`calibrate`.

    Raises
    ------
    CheckpointError
        A calibration of another kind (``isotonic`` has neither), a temperature that is not above 0, or a bias that is
        not finite.
    """
    if calibration is None:
        return 1.0, 0.0
    method, temperature, bias = (calibration.get(key) for key in ("method", "temperature", "bias"))
    names = {"temperature": {"method", "temperature"}, "platt": {"method", "temperature", "bias"}}
    bias = 0.0 if method == "temperature" else bias
    if (
        set(calibration) != names.get(method)
        or not all(map(_is_number, (temperature, bias)))
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
        ``{"method": "temperature", "temperature": t}`` with t > 0: ``logistic(logit / t)``; ``{"method": "platt",
        "temperature": t, "bias": b}``: ``logistic(logit / t + b)``; ``{"method": "isotonic", "logits": [...],
        "probabilities": [...]}``: straight lines between these points, and level beyond them.

    Returns
    -------
    float or numpy.ndarray
        [0, 1], float64, in the form `logit` came in.

    Raises
    ------
    CheckpointError
        A calibration of another kind, or one with values that are out of range.
    """
    return calibrate_both(logit, calibration)[0]


def calibrate_both(
    logit: float | np.ndarray, calibration: Mapping[str, Any] | None
) -> tuple[float | np.ndarray, float | np.ndarray]:
    """Return the probabilities of positive and of negative; each keeps its digits where it is next to 0.

    As :func:`calibrate`.
    """
    logit = np.asarray(logit, dtype=np.float64)
    if calibration is not None and calibration.get("method") == "isotonic":
        positive = np.interp(logit, *_points(calibration))
        both = positive, 1 - positive
    else:
        temperature, bias = read_calibration(calibration)
        scaled = logit / temperature + bias
        # exp(-log(1 + exp(-z))) neither overflows nor loses the small probabilities.
        both = np.exp(-np.logaddexp(0.0, -scaled)), np.exp(-np.logaddexp(0.0, scaled))
    return tuple(float(each) if logit.ndim == 0 else each for each in both)


def _points(calibration: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Return logits and probabilities of an isotonic calibration."""
    logits, probabilities = (calibration.get(name) for name in ("logits", "probabilities"))
    lists = isinstance(logits, list | tuple) and isinstance(probabilities, list | tuple)
    right = (
        lists and len(logits) == len(probabilities) > 0 and set(calibration) == {"method", "logits", "probabilities"}
    )
    right = right and all(map(_is_number, (*logits, *probabilities))) and all(map(math.isfinite, logits))
    if not (
        right
        and all(low < high for low, high in pairwise(logits))
        and all(low <= high for low, high in pairwise(probabilities))
        and 0 <= probabilities[0] <= probabilities[-1] <= 1
    ):
        raise CheckpointError(
            "An isotonic calibration must be as many rising logits as probabilities that never fall, but the card "
            "holds another."
        )
    return list(logits), list(probabilities)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
