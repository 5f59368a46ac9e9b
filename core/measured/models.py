"""Models side by side on the same studies: what each did, how they differ, and which studies they got wrong.

All of it comes from tables of scores; neither a network nor a film is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations

import numpy as np

from core.errors import ScoresError
from core.metrics import (
    CELLS,
    RESAMPLES,
    AtPrevalence,
    Confusion,
    Evaluation,
    PairedTest,
    PerThousand,
    Resamples,
    align_scores,
    at_prevalence,
    cheapest_threshold,
    confusion,
    delong_test,
    digest_of,
    evaluate,
    holm,
    mcnemar_test,
    paired_difference,
    per_thousand,
    resample,
    threshold_for,
    were_it_calibrated,
    why_left_out,
    youden_threshold,
)
from core.values import UNNAMED_FINDING, Checkpoint, Interval, Scores

NO_POINT_THRESHOLD = 0.5
"""Where a model brings no operating point: uploaded scores, imported models."""


UNIT_WORDS = {"study": "studies", "film": "films"}
"""What a row of scores is, in words, where there are several."""


@dataclass(frozen=True, eq=False)
class MeasuredModel:
    """One model on one set of studies.

    Attributes
    ----------
    id, name : str
        `name` is for people.
    resamples : Resamples
    threshold : float
        From it on a study is called positive.
    own_threshold : bool
        Whether `threshold` is the model's own operating point.
    finding : str
        What its positives have: ``"fracture"`` or ``"abnormality"`` by its card, ``"finding"`` where none says it.
    """

    id: str
    name: str
    resamples: Resamples
    threshold: float
    own_threshold: bool
    finding: str = UNNAMED_FINDING

    @cached_property
    def by_chance(self) -> dict[str, Interval]:
        """What chance alone makes of its calibration errors, see ``core.metrics.were_it_calibrated``."""
        return were_it_calibrated(self.scores)

    @cached_property
    def identity(self) -> str:
        """What is measured, in digits: two tables of one name are told apart by it."""
        return f"{digest_of(self.scores)}-{self.threshold!r}"

    @property
    def scores(self) -> Scores:
        """The scores that were measured."""
        return self.resamples.scores

    @property
    def counts(self) -> Confusion:
        """The studies by what they are and what they were called."""
        return confusion(self.scores, self.threshold)

    def evaluation(self) -> Evaluation:
        """Return every estimate with its interval."""
        return evaluate(self.resamples, self.threshold)


@dataclass(frozen=True, eq=False)
class Difference:
    """Two models on the studies that both read.

    Attributes
    ----------
    first, second : str
        Names; every difference is first minus second.
    n : int
    auc : PairedTest
        Over resamples of the patients; its p-value is corrected by Holm's method for all pairs compared, as are the
        others.
    delong_p : float
        DeLong's test of the same difference; it takes studies for independent.
    only_first, only_second : int
        Studies that only the first, or only the second, called right, each at its own threshold.
    mcnemar_p : float
    """

    first: str
    second: str
    n: int
    auc: PairedTest
    delong_p: float
    only_first: int
    only_second: int
    mcnemar_p: float


@dataclass(frozen=True, eq=False)
class EstimateDifference:
    """One estimate of two models on the studies that both read, each at its own threshold.

    Attributes
    ----------
    first, second : str
        Names; the difference is first minus second.
    estimate : str
        One of ``core.metrics.METRIC_NAMES``.
    test : PairedTest
        Its p-value is corrected by Holm's method for all differences that were asked for together.
    p_alone : float
        The p-value before that.
    """

    first: str
    second: str
    estimate: str
    test: PairedTest
    p_alone: float


@dataclass(frozen=True, eq=False)
class CalledStudy:
    """A study as a model called it, and what else its table says of it.

    `wrong_by`: how far its probability lies on the wrong side of the threshold.
    """

    study_id: str
    label: int
    probability: float
    cell: str
    wrong_by: float
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class AtThreshold:
    """What one threshold makes of a model's studies, and would make of patients elsewhere.

    Attributes
    ----------
    evaluation : Evaluation
    elsewhere : AtPrevalence
        Predictive values at another prevalence.
    thousand : PerThousand
        A thousand patients at that prevalence.
    """

    evaluation: Evaluation
    elsewhere: AtPrevalence
    thousand: PerThousand | None


RULES = {
    "youden": "Sensitivity + specificity (Youden)",
    "sensitivity": "At least this sensitivity",
    "specificity": "At least this specificity",
    "cost": "Cheapest mistakes",
}
"""Ways to choose a threshold, in words."""


def suggest_threshold(scores: Scores, rule: str, value: float = 0.95, prevalence: float | None = None) -> float:
    """Return the threshold that a rule of `RULES` chooses on these studies.

    Parameters
    ----------
    scores : Scores
    rule : str
    value : float
        The sensitivity or specificity wanted, (0, 1], or how many false alarms a missed fracture costs.
    prevalence : float, optional
        For the costs; by default that of the studies.

    Raises
    ------
    ScoresError
        The scores hold one class only, or a value is out of range.
    """
    if rule == "youden":
        return youden_threshold(scores)
    if rule == "sensitivity":
        return threshold_for(scores, sensitivity=value)
    if rule == "specificity":
        return threshold_for(scores, specificity=value)
    return cheapest_threshold(scores, value, float(scores.labels.mean()) if prevalence is None else prevalence)


def place_on_roc(found: Evaluation) -> tuple[float, float]:
    """Return where a threshold lies on the ROC curve: false positive rate and sensitivity."""
    return 1 - found.specificity.value, found.sensitivity.value


def place_on_recall(found: Evaluation) -> tuple[float, float]:
    """Return where a threshold lies on the precision-recall curve: sensitivity and precision."""
    return found.sensitivity.value, found.precision.value


def look_at(model: MeasuredModel, threshold: float, prevalence: float) -> AtThreshold:
    """Return what a threshold means for a model; quick, whatever the number of studies.

    Raises
    ------
    ScoresError
        A threshold or prevalence that is out of range.
    """
    found = evaluate(model.resamples, threshold)
    sensitivity, specificity = found.sensitivity.value, found.specificity.value
    known = not (math.isnan(sensitivity) or math.isnan(specificity))
    return AtThreshold(
        evaluation=found,
        elsewhere=at_prevalence(model.resamples, threshold, prevalence, found),
        thousand=per_thousand(sensitivity, specificity, prevalence) if known else None,
    )


def measure_model(
    key: str, name: str, scores: Scores, card: Checkpoint | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> MeasuredModel:
    """Measure a model on scored studies, at the operating point from which its card suspects a fracture.

    Raises
    ------
    ScoresError
        The scores cannot be measured.
    """
    point = card.operating_point("high_specificity") or card.operating_point("high_sensitivity") if card else None
    threshold = point.threshold if point else NO_POINT_THRESHOLD
    finding = card.finding if card else UNNAMED_FINDING
    return MeasuredModel(key, name, resample(scores, resamples, seed), threshold, point is not None, finding)


def common_finding(models: Iterable[MeasuredModel]) -> str:
    """Return what the positives of all these models have; ``"finding"`` where it is not the same of all."""
    found = {model.finding for model in models}
    return found.pop() if len(found) == 1 else UNNAMED_FINDING


def why_not_compared(models: Sequence[MeasuredModel]) -> list[str]:
    """Say which models were measured on which studies, and what these share; empty where all are the same studies.

    Only then do their figures compare. A study that has another label, or is another patient's, is another study.
    """
    groups = _by_studies(models)
    if len(groups) < 2:
        return []
    told = []
    for ours in groups:
        splits = " and ".join(dict.fromkeys(model.scores.split for model in ours if model.scores.split))
        scores = ours[0].scores
        which = f"{len(scores.study_ids):,} {UNIT_WORDS[scores.unit]}{splits and f' of the split {splits}'}"
        told.append(f"{', '.join(model.name for model in ours)}: {which}.")
    for ours, theirs in combinations(groups, 2):
        pair = f"{ours[0].name} and {theirs[0].name}"
        if set(ours[0].scores.study_ids).isdisjoint(theirs[0].scores.study_ids):
            told.append(f"{pair} do not compare at all: they have no study in common.")
            continue
        try:
            shared = len(align_scores(ours[0].scores, theirs[0].scores)[0].study_ids)
            told.append(f"{pair} compare only in the {shared:,} studies that are in both: see their differences.")
        except ScoresError as error:
            told.append(f"{pair} do not compare at all: {error}")
    return told


def _by_studies(models: Sequence[MeasuredModel]) -> list[list[MeasuredModel]]:
    """Return the models in groups that were measured on the same studies."""
    groups: dict[frozenset, list[MeasuredModel]] = {}
    for model in models:
        scores = model.scores
        rows = frozenset(zip(scores.study_ids, scores.patient_ids, scores.labels.tolist(), strict=True))
        groups.setdefault(rows, []).append(model)
    return list(groups.values())


def differences(models: Sequence[MeasuredModel]) -> tuple[Difference, ...]:
    """Compare every two models on the studies that both read; pairs that share none, or differ in labels, are left out.

    All p-values of one kind are corrected together (Holm), since with many pairs some differ by chance.
    """
    pairs, tests = [], []
    for one, other, first, second in _pairs(models):
        thresholds = (one.threshold, other.threshold)
        auc = paired_difference(*_drawn_alike(one, other, first, second), "auc")
        pairs.append((one.name, other.name, len(first.study_ids)))
        tests.append((auc, delong_test(first, second), mcnemar_test(first, second, thresholds)))
    corrected = [holm([test.p_value for test in kind]) for kind in zip(*tests, strict=True)]
    return tuple(
        Difference(*pair, replace(auc, p_value=p), delong_p, right.only_first, right.only_second, mcnemar_p)
        for pair, (auc, _, right), p, delong_p, mcnemar_p in zip(pairs, tests, *corrected or [()] * 3, strict=True)
    )


def estimate_differences(models: Sequence[MeasuredModel], estimates: Sequence[str]) -> tuple[EstimateDifference, ...]:
    """Return the differences in any of ``core.metrics.METRIC_NAMES`` between every two models, pair by pair.

    Paired over resamples of the patients, on the studies that both read; pairs as in `differences`. The p-values are
    corrected for the number of all differences returned (Holm): of many estimates, too, some differ by chance.
    """
    found = []
    for one, other, first, second in _pairs(models):
        drawn, thresholds = _drawn_alike(one, other, first, second), (one.threshold, other.threshold)
        found += [(one.name, other.name, name, paired_difference(*drawn, name, thresholds)) for name in estimates]
    corrected = holm([test.p_value for *_, test in found])
    return tuple(
        EstimateDifference(*names, replace(test, p_value=p), test.p_value)
        for (*names, test), p in zip(found, corrected, strict=True)
    )


def _pairs(
    models: Sequence[MeasuredModel],
) -> Iterator[tuple[MeasuredModel, MeasuredModel, Scores, Scores]]:
    """Yield every two models that can be compared, with their scores of the studies that both read."""
    for one, other in combinations(models, 2):
        with suppress(ScoresError):
            yield one, other, *align_scores(one.scores, other.scores)


def _drawn_alike(
    one: MeasuredModel, other: MeasuredModel, first: Scores, second: Scores
) -> tuple[Resamples, Resamples]:
    """Return the same resamples of the studies that both read; drawn anew only where the models' own are of others."""
    drawn = one.resamples, other.resamples
    count, seed = drawn[0].positives.size, drawn[0].seed
    if one.scores.study_ids == other.scores.study_ids and (drawn[1].positives.size, drawn[1].seed) == (count, seed):
        return drawn
    return resample(first, count, seed), resample(second, count, seed)


def called_studies(
    scores: Scores, threshold: float, cells: Sequence[str] = CELLS, most: int | None = None
) -> tuple[int, list[CalledStudy]]:
    """Return how many studies lie in some cells of the confusion matrix, and the most wrong of them, `most` at most."""
    positive, called = scores.labels == 1, scores.probabilities >= threshold
    wrong_by = np.where(positive, threshold - scores.probabilities, scores.probabilities - threshold)
    masks = {"tp": positive & called, "fn": positive & ~called, "fp": ~positive & called, "tn": ~positive & ~called}
    places = np.flatnonzero(np.logical_or.reduce([masks[cell] for cell in cells]))
    ranked = places[np.argsort(-wrong_by[places], kind="stable")][:most]
    rows = [
        CalledStudy(
            scores.study_ids[place],
            int(scores.labels[place]),
            float(scores.probabilities[place]),
            next(cell for cell in cells if masks[cell][place]),
            float(wrong_by[place]),
            {name: values[place] for name, values in scores.columns.items()},
        )
        for place in ranked
    ]
    return places.size, rows


def shared_columns(models: Sequence[MeasuredModel]) -> tuple[str, ...]:
    """Return the columns of every model's table that divide its studies into groups: two or more, but not too many."""
    left_out = left_out_columns(models)
    return tuple(name for model in models[:1] for name in model.scores.columns if name not in left_out)


def left_out_columns(models: Sequence[MeasuredModel]) -> dict[str, str]:
    """Return the columns that `shared_columns` leaves out, each with the reason in one sentence."""
    columns = [model.scores.columns for model in models]
    reasons = {}
    for name in dict.fromkeys(name for each in columns for name in each):
        missing = [] if all(name in each for each in columns) else ["Not every model's table has it."]
        found = missing or [reason for each in columns if (reason := why_left_out(name, each[name]))]
        if found:
            reasons[name] = found[0]
    return reasons
