"""How strong a heat map is on films without a fracture: the yardstick that tells evidence from habit.

A class activation map scaled to its own maximum looks the same whether it is strong or faint. What can be compared is
its raw peak, and what it must be compared with is the peak on films where there is nothing to find.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from core.explain import METHODS, available_methods, explain
from core.metrics import interval_of, quantile_of
from core.values import Checkpoint, Explanation, Radiograph, WristRegion

if TYPE_CHECKING:
    from core.classifier import Classifier

USUAL_SHARE = 0.9
"""The usual peak is the one that this share of the films without a fracture stay at or below."""


def usual_peaks(
    classifier: Classifier,
    negatives: Sequence[tuple[Radiograph, WristRegion | None]],
    progress: Callable[[int, int], None] | None = None,
    patients: Sequence[str] | None = None,
) -> dict[str, dict[str, Any]]:
    """Measure how strong each method's map "for" is on films without a fracture.

    Methods that draw something on every film (``Method.evidence`` False) are left out: their peak says nothing.

    Parameters
    ----------
    classifier : Classifier
    negatives : sequence of (Radiograph, WristRegion or None)
        Films without a fracture that took no part in training.
    progress : callable, optional
        Told (done, total) in films.
    patients : sequence of str, optional
        Whose each film is.

    Returns
    -------
    dict
        Method -> ``{"value": peak, "n": films}`` in the method's own units; with `patients` also ``low`` and ``high``,
        its 95% interval.
    """
    methods = [key for key in available_methods(classifier.checkpoint) if METHODS[key].evidence]
    found: dict[str, list[float]] = {method: [] for method in methods}
    for done, (film, region) in enumerate(negatives, 1):
        for method in methods:
            found[method].append(explain(classifier, film, method=method, region=region).peak)
        if progress:
            progress(done, len(negatives))
    return {method: usual_peak(peaks, patients) for method, peaks in found.items() if peaks}


def usual_peak(peaks: Iterable[float], patients: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the smallest peak that 9 in 10 of `peaks` stay at or below, and their number.

    With `patients`, whose each is, also the limits of its 95% interval, ``low`` and ``high``: films of one wrist are
    alike, so that few people make the limit uncertain however many films they have.
    """
    values = np.array(list(peaks), float)
    found = {"value": float(np.quantile(values, USUAL_SHARE, method="inverted_cdf")), "n": int(values.size)}
    if patients is None or len(set(patients)) < 2:
        return found
    interval = interval_of(quantile_of(values, USUAL_SHARE), patients)
    return found | {"low": min(interval.low, found["value"]), "high": max(interval.high, found["value"])}


def is_evidence(explanation: Explanation, card: Checkpoint) -> bool:
    """Tell whether a heat map is shown as evidence: something speaks for the target, and more than is usual.

    Where the card knows how strong the peak was on films without a fracture, a peak no stronger than 9 in 10 of those
    is none. A method that draws something on every film (``Method.evidence`` False) is always shown, as a hint.
    """
    if not explanation.peak > 0:
        return False
    usual = (card.data.get("peaks") or {}).get(explanation.method)
    compared = METHODS[explanation.method].evidence and explanation.target == "for"
    return not (usual and compared and explanation.peak <= usual["value"])
