"""What a checkpoint and a finder are worth on simulated studies, every estimate with its 95% interval and n.

Percentiles of a bootstrap over patients, whose films are drawn together. Resampling cannot show what was never seen, so
where a share or an AUC is 0 or 1 the limits are Wilson's over as many patients (`core.metrics.resampling`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from core.appraise.reading import FilmRead, WristRead
from core.metrics import (
    auc_of,
    compare_scores,
    evaluate,
    interval_dict,
    interval_of,
    mean_of,
    quantile_of,
    rate_interval,
    resample,
    taken,
    were_it_calibrated,
)
from core.quality import REFUSED_BELOW
from core.train.appraisal import DISPLACEMENTS
from core.values import Interval, Scores
from core.wrist import WITHIN

# Subgroup -> what of a film's facts it goes by, and whether films or whole studies are counted.
_SUBGROUPS: Mapping[str, tuple[Callable[[Mapping[str, Any]], str], str]] = {
    "age": (lambda facts: "child" if facts["child"] else "adult", "studies"),
    "hardware": (lambda facts: "none" if facts["hardware"] == "none" else "plate, wires or screw", "studies"),
    "cast": (lambda facts: "cast" if facts["cast"] else "no cast", "studies"),
    "view": (lambda facts: facts["view"], "films"),
    "framing": (lambda facts: facts["framing"], "films"),
}


def measure_checkpoint(
    films: Sequence[FilmRead], scores: Scores, points: Mapping[str, float], resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Measure what one checkpoint (or the mean of several) said.

    Parameters
    ----------
    films : sequence of FilmRead
    scores : Scores
        Of their studies.
    points : Mapping of str to float
        Its operating points: name -> threshold.
    resamples, seed : int

    Returns
    -------
    dict
        ``results``: name -> interval, of all studies; ``negatives``: how many of them have no fracture; ``kinds``,
        ``displacements``: name -> ``{"auc", "peak"}``, each against all negatives (`n` of the AUC counts the
        positives); ``subgroups``: by what -> value -> ``{"auc", "counted"}``, `n` being the studies or films counted.
        An interval is ``{"value", "low", "high", "n"}``; what cannot be measured is None.
    """
    drawn = resample(scores, resamples, seed)
    first = evaluate(drawn, 0.5)
    results = {name: interval_dict(getattr(first, name)) for name in ("auc", "average_precision", "brier", "ece")}
    results["ece_by_chance"] = interval_dict(were_it_calibrated(scores, seed=seed)["ece"])
    for name, threshold in points.items():
        called = evaluate(drawn, threshold)
        for what in ("sensitivity", "specificity"):
            results[f"{what}_at_{name}"] = interval_dict(getattr(called, what))
    shown = [film for film in films if film.places]
    for name in shown[0].places if shown else ():
        results[name] = interval_dict(_share(shown, name, resamples, seed))

    def against_negatives(chosen: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any]:
        kept = {film.study_id for film in films if not film.facts["label"] or chosen(film.facts)}
        ours = [film for film in shown if chosen(film.facts)]
        peak = interval_dict(_share(ours, "location_peak_in_mask", resamples, seed)) if ours else None
        return {"auc": interval_dict(_auc(_of_studies(scores, kept), resamples, seed, of_positives=True)), "peak": peak}

    kinds = sorted({film.facts["kind"] for film in films if film.facts["label"]})
    return {
        "results": results,
        "negatives": int((scores.labels == 0).sum()),
        "kinds": {kind: against_negatives(lambda facts, kind=kind: facts["kind"] == kind) for kind in kinds},
        "displacements": {
            name: against_negatives(lambda facts, low=low, high=high: low <= facts["displacement_mm"] < high)
            for name, low, high in DISPLACEMENTS
            if any(film.facts["label"] and low <= film.facts["displacement_mm"] < high for film in films)
        },
        "subgroups": {
            name: _subgroup(films, scores, group_of, counted, resamples, seed)
            for name, (group_of, counted) in _SUBGROUPS.items()
        },
    }


def measure_differences(scores: Mapping[str, Scores], resamples: int = 2000) -> list[dict[str, Any]]:
    """Measure how far the AUC of each of several models, by name, is ahead of each later one's on the same studies.

    Returns
    -------
    list of dict
        ``first``, ``second``, ``auc``: the paired difference, an interval.
    """
    return [
        {
            "first": first,
            "second": second,
            "auc": interval_dict(compare_scores(scores[first], scores[second], resamples)),
        }
        for first, second in combinations(scores, 2)
    ]


def measure_finder(wrists: Sequence[WristRead], resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Measure a finder: name -> interval."""
    patients = [wrist.study_id for wrist in wrists]
    errors = [wrist.centre_error for wrist in wrists]
    holds = {
        "centre_within_15_percent": [error <= WITHIN for error in errors],
        "side_within_a_quarter": [abs(wrist.side_ratio) <= math.log2(1.25) for wrist in wrists],
        "direction_within_15_degrees": [wrist.angle_error <= 15 for wrist in wrists],
        "wrists_confident_enough_to_be_read": [wrist.confidence >= REFUSED_BELOW for wrist in wrists],
        "wrists_with_confidence_of_half": [wrist.confidence >= 0.5 for wrist in wrists],
    }
    results = {name: rate_interval(values, patients, resamples, seed) for name, values in holds.items()}
    for name, share in (("centre_error_median", 0.5), ("centre_error_90th_percentile", 0.9)):
        results[name] = interval_of(quantile_of(errors, share), patients, resamples, seed)
    return {name: interval_dict(interval) for name, interval in results.items()}


def measure_change(changes: Sequence[float], patients: Sequence[str], resamples: int = 2000, seed: int = 0) -> dict:
    """Measure how far something moves answers: median, 90th percentile and mean of the absolute changes."""
    size = np.abs(np.asarray(changes, np.float64))
    statistics = {"median": quantile_of(size, 0.5), "90th_percentile": quantile_of(size, 0.9), "mean": mean_of(size)}
    return {
        name: interval_dict(interval_of(statistic, patients, resamples, seed)) for name, statistic in statistics.items()
    }


def _subgroup(
    films: Sequence[FilmRead],
    of_all: Scores,
    group_of: Callable[[Mapping[str, Any]], str],
    counted: str,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    measured = {}
    for value in sorted({group_of(film.facts) for film in films}):
        ours = [film for film in films if group_of(film.facts) == value]
        studies = {film.study_id for film in ours}
        scores = _of_studies(of_all, studies) if counted == "studies" else _film_scores(ours)
        measured[value] = {"auc": interval_dict(_auc(scores, resamples, seed)), "counted": counted}
    return measured


def _of_studies(scores: Scores, studies: set[str]) -> Scores:
    """Return the scores of some studies."""
    return taken(scores, np.flatnonzero([study in studies for study in scores.study_ids]))


def _film_scores(films: Sequence[FilmRead]) -> Scores:
    """Return the films' own scores, each still its patient's."""
    return Scores(
        checkpoint_id="",
        split="test",
        study_ids=tuple(f"{film.study_id}/{number}" for number, film in enumerate(films)),
        patient_ids=tuple(film.study_id for film in films),
        labels=np.array([film.facts["label"] for film in films], np.int8),
        probabilities=np.array([film.probability for film in films]),
    )


def _auc(scores: Scores, resamples: int, seed: int, of_positives: bool = False) -> Interval:
    n = int(scores.labels.sum()) if of_positives else None
    return interval_of(auc_of(scores.labels, scores.probabilities), scores.patient_ids, resamples, seed, n)


def _share(films: Sequence[FilmRead], name: str, resamples: int, seed: int) -> Interval:
    return rate_interval([film.places[name] for film in films], [film.study_id for film in films], resamples, seed)
