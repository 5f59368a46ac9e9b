"""What a probability is worth: calibration measured, and calibration fitted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from core.errors import CheckpointError, ScoresError

ECE_BINS = 10
LOG_LOSS_FLOOR = float(np.finfo(np.float64).eps)
"""A probability of 0 for what came to be costs as much as this one would, as in scikit-learn."""
TEMPERATURE_RANGE = (0.1, 10.0)
BIAS_RANGE = (-5.0, 5.0)


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
