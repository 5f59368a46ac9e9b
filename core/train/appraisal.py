"""What a freshly trained network is worth: measured on held-out patients, after rounding, in the way it will be served.

The held-out patients are cut in two. On one half calibration and operating points are chosen; the other half is only
measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import cv2
import numpy as np

from core.errors import DatasetError, TrainingError
from core.metrics import calibrate, evaluate_scores, fit_temperature, operating_points, wilson_interval
from core.quality import assess
from core.radiographs import fit_square
from core.train.batches import LOCATION_STRIDE, Film, read_film
from core.values import Interval, OperatingPoint, Radiograph, Scores, WristRegion
from core.wrist import WristFinder, confidence_of

SENSITIVITY_TARGET = SPECIFICITY_TARGET = 0.95
NEAR_PIXELS = 8
WITHIN = 0.15
"""A wrist counts as found where its centre lies within this share of its square's side."""


@dataclass(frozen=True, eq=False)
class Appraisal:
    """What was measured of a network, ready for its card."""

    calibration: Mapping[str, Any] | None
    points: tuple[OperatingPoint, ...] = ()
    scores: tuple[Scores, ...] = ()
    results: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Answer:
    film: Film
    logit: float
    inside: bool | None
    near: bool | None
    centre_inside: bool | None
    centre_near: bool | None


def interval_dict(interval: Interval) -> dict[str, float | int | None]:
    """Return an interval as JSON can hold it: what is not a number becomes None."""
    values = asdict(interval)
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}


# --- fracture --------------------------------------------------------------------------------------------------------


def appraise_classifier(
    run: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    input_size: int,
    splits: Mapping[str, Sequence[Film]],
    finder: WristFinder | None,
    checkpoint_id: str,
    progress: Callable[[int, int], None] | None = None,
) -> Appraisal:
    """Measure a fracture classifier.

    Parameters
    ----------
    run : callable
        The frozen graph, its weights already rounded to float16.
    input_size : int
    splits : Mapping
        ``"valid"``: calibration and operating points are chosen on it; ``"test"``: only measured.
    finder : WristFinder or None
        Finds the wrist as it will be served; None: the wrist is where the dataset says, or the whole film.
    checkpoint_id : str
    progress : callable, optional

    Raises
    ------
    TrainingError
        Where one of the halves lacks one of the two classes.
    """
    answers: dict[str, list[_Answer]] = {}
    counts: dict[str, int] = {}
    done, total = 0, sum(len(films) for films in splits.values())
    for split, films in splits.items():
        answers[split], refused = [], 0
        for film in films:
            answer = _ask(run, input_size, film, finder)
            if answer is None:
                refused += 1
            else:
                answers[split].append(answer)
            done += 1
            if progress:
                progress(done, total)
        labels = {answer.film.label for answer in answers[split]}
        if labels != {0, 1}:
            raise TrainingError(
                "Held-out studies of both classes are needed to choose operating points, but one class is missing."
            )
        counts |= _count(split, films, refused)
    temperature = fit_temperature(
        np.array([answer.logit for answer in answers["valid"]]),
        np.array([answer.film.label for answer in answers["valid"]]),
    )
    calibration = {"method": "temperature", "temperature": float(temperature)}
    scores = {split: _study_scores(split, found, calibration, checkpoint_id) for split, found in answers.items()}
    points = operating_points(scores["valid"], SENSITIVITY_TARGET, SPECIFICITY_TARGET)
    points = tuple(replace(point, threshold=min(point.threshold, 1.0)) for point in points)
    results = _classifier_results(scores["test"], points) | _location_results(answers["test"])
    return Appraisal(calibration, points, tuple(scores.values()), results, counts)


def _ask(run: Callable, input_size: int, film: Film, finder: WristFinder | None) -> _Answer | None:
    """Return the network's answer to one film, or None where the film is not fit to be read."""
    radiograph = read_film(film)
    region = film.region
    if finder is not None:
        region = finder.find(radiograph)
        if assess(radiograph, region).level == "unfit":
            return None
    fit = fit_square(radiograph.height, radiograph.width, input_size, region)
    answer = run(np.asarray(fit.apply(radiograph.pixels), np.float32)[None, ..., None])
    logit = float(np.asarray(answer["logit"]).ravel()[0])
    none = _Answer(film, logit, None, None, None, None)
    if "location" not in answer or film.label != 1 or film.mask_path is None:
        return none
    mask = cv2.imread(str(film.mask_path), cv2.IMREAD_GRAYSCALE)
    if mask is None or mask.shape != radiograph.pixels.shape:
        raise DatasetError("A mask has the size of its film, but one in this dataset is missing or differs.")
    shown = fit.apply(mask.astype(np.float32) / 255) > 0.25
    if not shown.any():
        return none
    peak = peak_of(np.asarray(answer["location"])[0, ..., 0], input_size)
    away = cv2.distanceTransform((~shown).astype(np.uint8), cv2.DIST_L2, 5)
    middle = (input_size // 2, input_size // 2)
    return _Answer(
        film, logit, bool(shown[peak]), bool(away[peak] <= NEAR_PIXELS), bool(shown[middle]),
        bool(away[middle] <= NEAR_PIXELS),
    )  # fmt: skip


def peak_of(location: np.ndarray, input_size: int) -> tuple[int, int]:
    """Return (row, column) of a location map's highest point in the square of `input_size` pixels."""
    cells = location.shape[0]
    grown = cv2.resize(location.astype(np.float32), (cells * LOCATION_STRIDE,) * 2, interpolation=cv2.INTER_CUBIC)
    row, column = np.unravel_index(int(np.argmax(grown[:input_size, :input_size])), (input_size, input_size))
    return int(row), int(column)


def _count(split: str, films: Sequence[Film], refused: int) -> dict[str, int]:
    return {
        f"{split}_films": len(films),
        f"{split}_studies": len({film.study_id for film in films}),
        f"{split}_patients": len({film.patient_id for film in films}),
        f"{split}_positive_studies": len({film.study_id for film in films if film.label == 1}),
        f"{split}_films_refused": refused,
    }


def _study_scores(split: str, answers: Sequence[_Answer], calibration: Mapping, checkpoint_id: str) -> Scores:
    by_study: dict[str, list[_Answer]] = {}
    for answer in answers:
        by_study.setdefault(answer.film.study_id, []).append(answer)
    means = [float(np.mean([calibrate(answer.logit, calibration) for answer in found])) for found in by_study.values()]
    firsts = [found[0].film for found in by_study.values()]
    return Scores(
        checkpoint_id=checkpoint_id,
        split=split,
        study_ids=tuple(by_study),
        patient_ids=tuple(film.patient_id for film in firsts),
        labels=np.array([film.label for film in firsts], np.int8),
        probabilities=np.array(means),
    )


def _classifier_results(scores: Scores, points: Sequence[OperatingPoint]) -> dict[str, Any]:
    measured = {point.name: evaluate_scores(scores, point.threshold) for point in points}
    any_point = next(iter(measured.values()))
    results = {name: interval_dict(getattr(any_point, name)) for name in ("auc", "average_precision", "brier", "ece")}
    for name, evaluation in measured.items():
        for what in ("sensitivity", "specificity"):
            results[f"{what}_at_{name}"] = interval_dict(getattr(evaluation, what))
    return results


def _location_results(answers: Sequence[_Answer]) -> dict[str, Any]:
    known = [answer for answer in answers if answer.inside is not None]
    if not known:
        return {}
    names = {
        "location_peak_in_mask": "inside",
        f"location_peak_within_{NEAR_PIXELS}_pixels": "near",
        "centre_of_square_in_mask": "centre_inside",
        f"centre_of_square_within_{NEAR_PIXELS}_pixels": "centre_near",
    }
    return {
        name: interval_dict(wilson_interval(sum(bool(getattr(answer, key)) for answer in known), len(known)))
        for name, key in names.items()
    }


# --- wrist -----------------------------------------------------------------------------------------------------------


def centre_error(found: WristRegion, true: WristRegion) -> float:
    """Return the distance of the two centres over the true side."""
    return float(np.hypot(found.x - true.x, found.y - true.y) / true.side)


def angle_error(found: WristRegion, true: WristRegion) -> float:
    """Return the angle between the two directions in degrees, [0, 180]."""
    return abs((found.angle - true.angle + 180.0) % 360.0 - 180.0)


def appraise_finder(
    finder: WristFinder,
    splits: Mapping[str, Sequence[Film]],
    decoys: Mapping[str, np.ndarray],
    progress: Callable[[int, int], None] | None = None,
) -> Appraisal:
    """Measure a wrist finder and calibrate its confidence.

    Parameters
    ----------
    finder : WristFinder
        Its weights already rounded to float16.
    splits : Mapping
        ``"valid"``: the confidence is calibrated on it; ``"test"``: only measured.
    decoys : Mapping of str to numpy.ndarray
        The same keys: uint8 (n, size, size), films without a wrist.
    progress : callable, optional
    """
    heats: dict[str, list[float]] = {}
    errors: dict[str, list[tuple[float, float, float]]] = {}
    done, total = 0, sum(len(splits[split]) + len(decoys[split]) for split in splits)
    for split, films in splits.items():
        heats[split], errors[split] = [], []
        for item in (*films, *decoys[split]):
            known = isinstance(item, Film)
            radiograph = read_film(item) if known else Radiograph("", item.astype(np.float32) / 255, "")
            region, heat = finder.look_twice(radiograph)
            heats[split].append(heat)
            if known:
                ratio = abs(math.log2(region.side / item.region.side))
                errors[split].append((centre_error(region, item.region), ratio, angle_error(region, item.region)))
            done += 1
            if progress:
                progress(done, total)
    found = {
        split: np.array([error[0] <= WITHIN for error in errors[split]] + [False] * len(decoys[split]))
        for split in splits
    }
    calibration = fit_confidence(np.array(heats["valid"]), found["valid"])
    sure = np.array([confidence_of(heat, calibration) for heat in heats["test"]])
    counts = {f"{split}_films": len(films) for split, films in splits.items()}
    counts |= {f"{split}_films_without_wrist": len(decoys[split]) for split in splits}
    counts |= {f"{split}_patients": len({film.patient_id for film in films}) for split, films in splits.items()}
    return Appraisal(calibration, (), (), _finder_results(np.array(errors["test"]), sure, found["test"]), counts)


def _finder_results(errors: np.ndarray, sure: np.ndarray, found: np.ndarray) -> dict[str, Any]:
    """Return a finder's results; `sure` and `found` are of the films with a wrist, then of those without."""
    wrists = len(errors)
    centre, ratio, angle = errors.T
    shares = {
        "centre_within_15_percent": centre <= WITHIN,
        "side_within_a_quarter": ratio <= math.log2(1.25),
        "direction_within_15_degrees": angle <= 15,
        "wrists_with_confidence_of_half": sure[:wrists] >= 0.5,
        "films_without_wrist_with_confidence_of_half": sure[wrists:] >= 0.5,
    }
    results: dict[str, Any] = {
        name: interval_dict(wilson_interval(int(holds.sum()), len(holds))) for name, holds in shares.items()
    }
    return results | {"confidence_brier": float(np.mean((sure - found) ** 2))}


def fit_confidence(heats: np.ndarray, found: np.ndarray) -> dict[str, Any]:
    """Fit the logistic calibration of :func:`core.wrist.confidence_of`.

    Parameters
    ----------
    heats : numpy.ndarray
        (n,): the lower heat of the two looks at each film.
    found : numpy.ndarray
        bool (n,): whether the centre was within 15% of the side.

    Raises
    ------
    TrainingError
        Where the finder found all wrists or none: there is nothing to calibrate on.
    """
    from sklearn.linear_model import LogisticRegression

    if found.all() or not found.any():
        raise TrainingError("Wrists found and wrists missed are both needed to calibrate a finder, but one is absent.")
    fitted = LogisticRegression(C=1.0, max_iter=1000).fit(heats[:, None], found)
    return {"method": "logistic", "weight": float(fitted.coef_[0, 0]), "bias": float(fitted.intercept_[0])}
