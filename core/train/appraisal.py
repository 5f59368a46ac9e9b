"""What a freshly trained network is worth: measured on held-out patients, after rounding, in the way it will be served.

The held-out patients are cut in two. On one half calibration and operating points are chosen; the other half is only
measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from core.classifier import Classifier, square_fit
from core.errors import DatasetError, TrainingError
from core.explain.heatmaps import grow_location
from core.metrics import (
    RULED_OUT,
    auc_of,
    evaluate_scores,
    fit_mean_calibration,
    fit_study_calibration,
    interval_dict,
    interval_of,
    operating_points,
    pool,
    rate_interval,
    wilson_interval,
)
from core.quality import assess
from core.radiographs import SquareFit
from core.train.squares import Film, list_unreadable, read_film, read_mask
from core.values import OperatingPoint, Radiograph, Scores, WristRegion
from core.wrist import WITHIN, WristFinder, confidence_of

SENSITIVITY_TARGET = SPECIFICITY_TARGET = 0.95
LIMITS_RULE = (
    "Both limits were chosen on validation studies: the largest with a sensitivity of "
    f"{SENSITIVITY_TARGET:.0%} or more, and the smallest with a specificity of {SPECIFICITY_TARGET:.0%} or more; the "
    "lower of the two is the lower limit. It was then set no higher than where the model holds the odds to be "
    f"{RULED_OUT:.0%} of what they are among those studies: where half of them are positive, at a probability of "
    f"{RULED_OUT / (1 + RULED_OUT):.1%}."
)
"""What `choose_points` does, for people."""
NEAR_PIXELS = 8
PLACES = (
    "location_peak_in_mask",
    f"location_peak_within_{NEAR_PIXELS}_pixels",
    "centre_of_square_in_mask",
    f"centre_of_square_within_{NEAR_PIXELS}_pixels",
)


@dataclass(frozen=True, eq=False)
class Appraisal:
    """What was measured of a network, ready for its card."""

    calibration: Mapping[str, Any] | None
    study_calibration: Mapping[str, Any] | None = None
    points: tuple[OperatingPoint, ...] = ()
    scores: tuple[Scores, ...] = ()
    results: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Answer:
    film: Film
    logit: float
    places: Mapping[str, bool] = field(default_factory=dict)  # of `PLACES`; empty where the break's place is not known


# --- fracture --------------------------------------------------------------------------------------------------------


def appraise_classifier(
    reader: Classifier,
    splits: Mapping[str, Sequence[Film]],
    finder: WristFinder | None,
    progress: Callable[[int, int], None] | None = None,
    calibration: str = "platt",
    folder: Path | None = None,
) -> Appraisal:
    """Measure a fracture classifier.

    Parameters
    ----------
    reader : Classifier
        Its weights already rounded to float16, its card not yet calibrated.
    splits : Mapping
        ``"valid"``: calibration and operating points are chosen on it; ``"test"``: only measured.
    finder : WristFinder or None
        Finds the wrist as it will be served; None: the wrist is where the dataset says, or the whole film.
    progress : callable, optional
    calibration : str
        How its logits become probabilities, one of ``core.metrics.CALIBRATIONS``; what the mean of a study's films
        becomes is fitted after it.
    folder : pathlib.Path, optional
        Of the run: its file ``left_out.txt`` names the films that cannot be read.

    Raises
    ------
    TrainingError
        Where one of the halves lacks one of the two classes.
    """
    answers: dict[str, list[_Answer]] = {}
    labels: dict[str, dict[str, int]] = {}
    counts: dict[str, int] = {}
    done, total = 0, sum(len(films) for films in splits.values())
    for split, films in splits.items():
        answers[split], labels[split], refused, unreadable = [], _study_labels(films), 0, {}
        for place, film in enumerate(films):
            try:
                answer = _ask(reader, film, finder)
            except DatasetError as error:
                unreadable[place] = str(error)
                answer = None
            else:
                refused += answer is None
            if answer is not None:
                answers[split].append(answer)
            done += 1
            if progress:
                progress(done, total)
        list_unreadable(split, films, unreadable, folder)
        if {labels[split][answer.film.study_id] for answer in answers[split]} != {0, 1}:
            raise TrainingError(
                "Held-out studies of both classes are needed to choose operating points, but one class is missing."
            )
        counts |= _count(split, films, [answer.film for answer in answers[split]], refused, len(unreadable))
    fitted = fit_study_calibration(
        np.array([answer.logit for answer in answers["valid"]]),
        [answer.film.study_id for answer in answers["valid"]],
        np.array([labels["valid"][answer.film.study_id] for answer in answers["valid"]]),
        calibration,
    )
    means = _study_scores("valid", answers["valid"], labels["valid"], fitted)
    of_studies = fit_mean_calibration(means.probabilities, means.labels)
    name = reader.checkpoint.id
    scores = {
        split: _study_scores(split, found, labels[split], fitted, of_studies, name) for split, found in answers.items()
    }
    points = choose_points(scores["valid"])
    results = classifier_results(scores["test"], points) | _location_results(answers["test"])
    results |= _group_results(answers["test"], scores["test"])
    return Appraisal(fitted, of_studies, points, tuple(scores.values()), results, counts)


def _ask(reader: Classifier, film: Film, finder: WristFinder | None) -> _Answer | None:
    """Return the network's answer to one film, or None where the film is not fit to be read."""
    radiograph = read_film(film)
    region = finder.find(radiograph) if finder else film.region
    if assess(radiograph, region).level == "unfit":
        return None
    logit = reader.predict([radiograph], [region])[0].logit
    wanted = reader.checkpoint.location_head and film.label == 1
    mask = read_mask(film, radiograph.height, radiograph.width) if wanted else None
    if mask is None:
        return _Answer(film, logit)
    square = square_fit(reader.checkpoint, radiograph, region)
    return _Answer(film, logit, look_at_peak(mask, square, reader.location(radiograph, region)))


def look_at_peak(mask: np.ndarray, square: SquareFit, location: np.ndarray) -> dict[str, bool]:
    """Say whether a location map's peak, and the square's centre, lie in the break or near it.

    Parameters
    ----------
    mask : numpy.ndarray
        The film's (height, width), above 0 where the break shows.
    square : SquareFit
        How the square that was read lay on the film.
    location : numpy.ndarray
        (cells, cells), as of :meth:`core.classifier.Classifier.location`.

    Returns
    -------
    dict
        `PLACES` -> bool. A break that lies outside the square is missed, not left out; empty where there is none.
    """
    if not mask.any():
        return {}
    cover = np.asarray(square.apply(mask.astype(np.float32)))
    # A thin break covers no pixel of a reduced film by much.
    shown = cover > min(0.25, max(cover.max() / 2, 0.01))
    if not shown.any():
        return dict.fromkeys(PLACES, False)
    away = cv2.distanceTransform((~shown).astype(np.uint8), cv2.DIST_L2, 5)
    peak, middle = peak_of(location, square.size), (square.size // 2, square.size // 2)
    inside_and_near = (shown[peak], away[peak] <= NEAR_PIXELS, shown[middle], away[middle] <= NEAR_PIXELS)
    return dict(zip(PLACES, map(bool, inside_and_near), strict=True))


def peak_of(location: np.ndarray, input_size: int) -> tuple[int, int]:
    """Return (row, column) of a location map's highest point in the square of `input_size` pixels."""
    grown = grow_location(location, input_size)
    row, column = np.unravel_index(int(np.argmax(grown)), grown.shape)
    return int(row), int(column)


def _count(split: str, films: Sequence[Film], read: Sequence[Film], refused: int, unreadable: int) -> dict[str, int]:
    patients, answered = ({film.patient_id for film in some} for some in (films, read))
    return {
        f"{split}_films": len(films),
        f"{split}_studies": len({film.study_id for film in films}),
        f"{split}_patients": len(patients),
        f"{split}_patients_left_out": len(patients - answered),
        f"{split}_positive_studies": len({film.study_id for film in films if film.label == 1}),
        f"{split}_films_refused": refused,
        f"{split}_films_unreadable": unreadable,
    }


def _study_labels(films: Sequence[Film]) -> dict[str, int]:
    """Return each study's label: positive where any of its films is, whether or not that film can be read."""
    labels: dict[str, int] = {}
    for film in films:
        labels[film.study_id] = max(film.label, labels.get(film.study_id, 0))
    return labels


def _study_scores(
    split: str,
    answers: Sequence[_Answer],
    labels: Mapping[str, int],
    calibration: Mapping,
    study_calibration: Mapping | None = None,
    checkpoint_id: str = "",
) -> Scores:
    by_study: dict[str, list[_Answer]] = {}
    for answer in answers:
        by_study.setdefault(answer.film.study_id, []).append(answer)
    logits = [np.array([answer.logit for answer in found]) for found in by_study.values()]
    firsts = [found[0].film for found in by_study.values()]
    return Scores(
        checkpoint_id=checkpoint_id,
        split=split,
        study_ids=tuple(by_study),
        patient_ids=tuple(film.patient_id for film in firsts),
        labels=np.array([labels[study] for study in by_study], np.int8),
        probabilities=np.array([pool(each, calibration, study_calibration) for each in logits]),
    )


def choose_points(scores: Scores) -> tuple[OperatingPoint, OperatingPoint]:
    """Choose the two operating points of a model, or of a mean of models, on calibrated validation studies.

    See `LIMITS_RULE`.

    Raises as :func:`core.metrics.operating_points`.
    """
    return operating_points(scores, SENSITIVITY_TARGET, SPECIFICITY_TARGET, RULED_OUT)


def classifier_results(scores: Scores, points: Sequence[OperatingPoint]) -> dict[str, Any]:
    """Return what scores are worth, and sensitivity and specificity at each operating point: name -> interval."""
    measured = {point.name: evaluate_scores(scores, point.threshold) for point in points}
    any_point = next(iter(measured.values()))
    results = {name: interval_dict(getattr(any_point, name)) for name in ("auc", "average_precision", "brier", "ece")}
    for name, evaluation in measured.items():
        for what in ("sensitivity", "specificity"):
            results[f"{what}_at_{name}"] = interval_dict(getattr(evaluation, what))
    return results


def _location_results(answers: Sequence[_Answer]) -> dict[str, Any]:
    known = [answer.places for answer in answers if answer.places]
    if not known:
        return {}
    patients = [answer.film.patient_id for answer in answers if answer.places]
    return {name: interval_dict(rate_interval([each[name] for each in known], patients)) for name in PLACES}


# Name, from, to below: how far the fragments are apart, in millimetres.
DISPLACEMENTS = (
    ("not displaced", 0.0, 1e-9),
    ("under 1 mm", 1e-9, 1.0),
    ("1 to 3 mm", 1.0, 3.0),
    ("3 mm and more", 3.0, math.inf),
)


def _group_results(answers: Sequence[_Answer], scores: Scores) -> dict[str, Any]:
    """Return ``kinds`` and ``displacements``: name -> AUC against all negatives, and how the location head does."""
    positive = [answer for answer in answers if answer.film.label == 1]
    kinds = {answer.film.kind for answer in positive if answer.film.kind}
    far = [answer.film.displacement_mm for answer in positive]
    groups = {
        "kinds": {kind: lambda film, kind=kind: film.kind == kind for kind in sorted(kinds)},
        "displacements": {
            name: lambda film, low=low, high=high: (
                film.displacement_mm is not None and low <= film.displacement_mm < high
            )
            for name, low, high in DISPLACEMENTS
            if any(value is not None and low <= value < high for value in far)
        },
    }
    return {
        what: {name: _group_result([a for a in positive if holds(a.film)], scores) for name, holds in named.items()}
        for what, named in groups.items()
        if named
    }


def _group_result(answers: Sequence[_Answer], scores: Scores) -> dict[str, Any]:
    """Return ``auc`` of a group's studies against all negatives (its n counts the positives) and ``peak``."""
    studies = {answer.film.study_id for answer in answers}
    kept = [place for place, study in enumerate(scores.study_ids) if study in studies or not scores.labels[place]]
    labels, patients = scores.labels[kept], [scores.patient_ids[place] for place in kept]
    auc = interval_of(auc_of(labels, scores.probabilities[kept]), patients, n=int(labels.sum()))
    known = [answer for answer in answers if answer.places]
    peak = rate_interval([answer.places[PLACES[0]] for answer in known], [answer.film.patient_id for answer in known])
    return {"auc": interval_dict(auc), "peak": interval_dict(peak) if known else None}


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
    folder: Path | None = None,
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
    folder : pathlib.Path, optional
        As of `appraise_classifier`.
    """
    heats: dict[str, list[float]] = {}
    errors: dict[str, list[tuple[float, float, float]]] = {}
    counts: dict[str, int] = {}
    patients: dict[str, list[str]] = {}
    done, total = 0, sum(len(splits[split]) + len(decoys[split]) for split in splits)
    for split, films in splits.items():
        heats[split], errors[split], unreadable = [], [], {}
        for place, item in enumerate((*films, *decoys[split])):
            known = isinstance(item, Film)
            try:
                radiograph = read_film(item) if known else Radiograph("", item.astype(np.float32) / 255, "")
            except DatasetError as error:
                unreadable[place] = str(error)
            else:
                region, heat = finder.look(radiograph)
                heats[split].append(heat)
                if known:
                    errors[split].append(_errors(region, item.region))
            done += 1
            if progress:
                progress(done, total)
        list_unreadable(split, films, unreadable, folder)
        read = [film for place, film in enumerate(films) if place not in unreadable]
        patients[split] = [film.patient_id for film in read]
        counts |= _count(split, films, read, 0, len(unreadable))
    found = {
        split: np.array([error[0] <= WITHIN for error in errors[split]] + [False] * len(decoys[split]))
        for split in splits
    }
    calibration = fit_confidence(np.array(heats["valid"]), found["valid"])
    sure = np.array([confidence_of(heat, calibration) for heat in heats["test"]])
    counts |= {f"{split}_films_without_wrist": len(decoys[split]) for split in splits}
    results = _finder_results(np.array(errors["test"]), sure, found["test"], patients["test"])
    return Appraisal(calibration, results=results, counts=counts)


def _errors(found: WristRegion, true: WristRegion) -> tuple[float, float, float]:
    """Return how far a square is off: in place, in size (log2, 0 or above) and in direction."""
    return centre_error(found, true), abs(math.log2(found.side / true.side)), angle_error(found, true)


def _finder_results(errors: np.ndarray, sure: np.ndarray, found: np.ndarray, patients: Sequence[str]) -> dict[str, Any]:
    """Return a finder's results; `sure` and `found` are of the films with a wrist, then of those without.

    `patients` are those of the former; each of the latter is one by itself.
    """
    wrists = len(errors)
    centre, ratio, angle = errors.T
    of_wrists = {
        "centre_within_15_percent": centre <= WITHIN,
        "side_within_a_quarter": ratio <= math.log2(1.25),
        "direction_within_15_degrees": angle <= 15,
        "wrists_with_confidence_of_half": sure[:wrists] >= 0.5,
    }
    results: dict[str, Any] = {name: interval_dict(rate_interval(holds, patients)) for name, holds in of_wrists.items()}
    without = sure[wrists:] >= 0.5
    results["films_without_wrist_with_confidence_of_half"] = interval_dict(
        wilson_interval(int(without.sum()), len(without))
    )
    return results | {"confidence_brier": float(np.mean((sure - found) ** 2))}


def fit_confidence(heats: np.ndarray, found: np.ndarray) -> dict[str, Any]:
    """Fit the logistic calibration of :func:`core.wrist.confidence_of`.

    Parameters
    ----------
    heats : numpy.ndarray
        (n,): the lowest heat of the looks at each film.
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
