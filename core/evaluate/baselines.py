"""What can be told without looking for a fracture: trivial baselines that any model must beat.

A dataset whose label can be read from the pictures' size or framing proves nothing about a model that reads it, so
these stand beside the models, on the same studies, with the same resamples of the patients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from core.metrics import RESAMPLES, auc_difference, auc_of, interval_of
from core.values import Checkpoint, Interval, Radiograph, Scores, WristRegion

THUMBNAIL_SHAPE = (28, 16)
FOLDS = 5

# Baseline -> what it knows. "framing": the size of the picture, of the wrist on it, or the whole layout. "resolution":
# how fine the film's pixels are, which goes with its size; a square that was enlarged is smooth. "neither".
BASELINES: Mapping[str, str] = MappingProxyType(
    {
        "width": "framing",
        "height": "framing",
        "area": "framing",
        "side of the wrist square": "framing",
        "thumbnail of the film": "framing",
        "bytes per pixel": "resolution",
        "sharpness": "resolution",
        "untrained line filter": "resolution",
        "sharpness at 64 pixels": "neither",
        "mean grey": "neither",
        "contrast": "neither",
        "thumbnail of the square": "neither",
    }
)
COARSE_PIXELS = 64
_LEARNED = ("thumbnail of the film", "thumbnail of the square")


@dataclass(frozen=True, eq=False)
class StudyFacts:
    """Numbers of one study (means over its films), by baseline, and the pixels of its thumbnails.

    Attributes
    ----------
    numbers : Mapping of str to float
        ``width``, ``height``, ``side of the wrist square``: pixels of the film (the side is that of the film where
        whole films are read); ``area``: pixels; ``bytes per pixel``: of the file. Of the square, at the size that the
        model reads: ``sharpness``: variance of its Laplacian; ``untrained line filter``: mean of the strongest 1% of
        the absolute Laplacian of the smoothed square (2 pixels); ``sharpness at 64 pixels``: of the square cut
        at 64 x 64 pixels, so that finer films have no advantage; ``mean grey``, ``contrast`` (standard deviation).
    thumbnails : Mapping of str to numpy.ndarray
        float32, 28 x 16 pixels in a row, [0, 1].
    """

    numbers: Mapping[str, float]
    thumbnails: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class BaselineResult:
    """How far a trivial baseline gets.

    Attributes
    ----------
    name : str
    knows : str
        A value of `BASELINES`: ``"framing"``, ``"resolution"`` or ``"neither"``.
    direction : str
        ``"higher"`` or ``"lower"``: which values are more often positive, chosen on these very studies to its favour;
        ``"learned"``: out-of-fold answers of a logistic regression.
    auc : Interval
        NaN where it cannot be measured.
    model_ahead_by : Interval
        AUC of the model minus that of the baseline, paired.
    """

    name: str
    knows: str
    direction: str
    auc: Interval
    model_ahead_by: Interval


def film_facts(film: Radiograph, bytes_per_pixel: float, region: WristRegion | None, card: Checkpoint) -> StudyFacts:
    """Return what the baselines know of one film; `bytes_per_pixel` is its file's, `card` the model's they rival."""
    import cv2

    from core.classifier import square_fit

    square = np.asarray(square_fit(card, film, region).apply(film.pixels), np.float32)
    smooth = cv2.GaussianBlur(square, (0, 0), 2.0)
    response = np.sort(np.abs(cv2.Laplacian(smooth, cv2.CV_32F)).ravel())
    coarse = np.asarray(square_fit(card, film, region, COARSE_PIXELS).apply(film.pixels), np.float32)
    area = film.width * film.height
    numbers = {
        "width": film.width,
        "height": film.height,
        "area": area,
        "side of the wrist square": region.side if region else max(film.width, film.height),
        "bytes per pixel": bytes_per_pixel,
        "sharpness": cv2.Laplacian(square, cv2.CV_32F).var(),
        "untrained line filter": response[-max(1, response.size // 100) :].mean(),
        "sharpness at 64 pixels": cv2.Laplacian(coarse, cv2.CV_32F).var(),
        "mean grey": square.mean(),
        "contrast": square.std(),
    }
    shape = THUMBNAIL_SHAPE[::-1]
    thumbnails = {
        name: cv2.resize(pixels, shape, interpolation=cv2.INTER_AREA).ravel()
        for name, pixels in zip(_LEARNED, (film.pixels, square), strict=True)
    }
    return StudyFacts({name: float(value) for name, value in numbers.items()}, thumbnails)


def study_facts(films: Sequence[StudyFacts]) -> StudyFacts:
    """Return the means over a study's films."""
    first = films[0]
    return StudyFacts(
        {name: float(np.mean([film.numbers[name] for film in films])) for name in first.numbers},
        {name: np.mean([film.thumbnails[name] for film in films], axis=0) for name in first.thumbnails},
    )


def measure_baselines(
    facts: Sequence[StudyFacts], model: Scores, resamples: int = RESAMPLES, seed: int = 0
) -> list[BaselineResult]:
    """Measure every baseline on the studies that `model` scored.

    Parameters
    ----------
    facts : sequence of StudyFacts
        One for each study of `model`, in its order.
    model : Scores
    resamples, seed : int
        Of the bootstrap over patients.

    Returns
    -------
    list of BaselineResult
        In the order of `BASELINES`.
    """
    results = []
    for name, knows in BASELINES.items():
        if name in _LEARNED:
            thumbnails = np.stack([each.thumbnails[name] for each in facts])
            values, direction = out_of_fold(thumbnails, model.labels, model.patient_ids, seed), "learned"
        else:
            values = np.array([each.numbers[name] for each in facts])
            lower = auc_of(model.labels, values)(np.ones((1, len(facts))))[0] < 0.5
            values, direction = (-values, "lower") if lower else (values, "higher")
        if values is None:
            nothing = Interval(math.nan, math.nan, math.nan, len(facts))
            results.append(BaselineResult(name, knows, direction, nothing, nothing))
            continue
        auc = interval_of(auc_of(model.labels, values), model.patient_ids, resamples, seed)
        ahead = auc_difference(model.labels, model.probabilities, values, model.patient_ids, resamples, seed)
        results.append(BaselineResult(name, knows, direction, auc, ahead))
    return results


Folds = Sequence[tuple[np.ndarray, np.ndarray]]


def share_out(labels: Sequence[int], patients: Sequence[str], seed: int = 0) -> Folds | None:
    """Return the folds of a cross-validation, stratified by label, no patient in two of them.

    Parameters
    ----------
    labels : sequence of int
    patients : sequence of str
    seed : int

    Returns
    -------
    list of (numpy.ndarray, numpy.ndarray) or None
        Places of the studies to fit on and of those held out, `FOLDS` times or as often as there are patients of the
        rarer class; None where a class has fewer than two patients, or there is none of it to fit on.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    labels, patients = np.asarray(labels), np.asarray(patients, dtype=object).astype(str)
    count = min(FOLDS, *(len(set(patients[labels == label])) for label in (0, 1)))
    if count < 2:
        return None
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    folds = list(splitter.split(labels, labels, patients))
    return folds if all(set(labels[fitted]) == {0, 1} for fitted, _ in folds) else None


def out_of_fold(
    features: np.ndarray,
    labels: Sequence[int],
    patients: Sequence[str],
    seed: int = 0,
    freedom: float = 0.01,
    folds: Folds | None = None,
) -> np.ndarray | None:
    """Return each study's answer by a logistic regression that was fitted without its patient.

    Parameters
    ----------
    features : numpy.ndarray
        (studies, features); standardised within each fold.
    labels : sequence of int
    patients : sequence of str
    seed : int
    freedom : float
        Inverse of the penalty on the weights (scikit-learn's C); small where there are many features.
    folds : sequence, optional
        As from `share_out`, where the same studies are answered more than once; else they are made here.

    Returns
    -------
    numpy.ndarray or None
        float64 (studies,), [0, 1]; None where there are no folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels = np.asarray(labels)
    folds = share_out(labels, patients, seed) if folds is None else folds
    if folds is None:
        return None
    answers = np.empty(labels.size)
    for fitted, held_out in folds:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=freedom, max_iter=1000))
        answers[held_out] = model.fit(features[fitted], labels[fitted]).predict_proba(features[held_out])[:, 1]
    return answers
