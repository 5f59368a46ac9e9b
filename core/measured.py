"""Models side by side on the same studies: what each did, how they differ, and which studies they got wrong.

All of it comes from tables of scores; neither a network nor a film is needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np

from core.errors import ScoresError
from core.metrics import (
    CELLS,
    METRIC_NAMES,
    MOST_VALUES,
    RESAMPLES,
    AtPrevalence,
    Confusion,
    Evaluation,
    NetBenefit,
    PairedTest,
    PerThousand,
    Resamples,
    Subgroup,
    ThresholdSweep,
    align_scores,
    at_prevalence,
    banded,
    cheapest_threshold,
    confusion,
    delong_interval,
    delong_test,
    evaluate,
    holm,
    mcnemar_test,
    paired_difference,
    per_thousand,
    precision_recall_curve,
    reliability_curve,
    resample,
    roc_curve,
    threshold_for,
    triage,
    wilson_rates,
    youden_threshold,
)
from core.values import Checkpoint, Interval, Scores

NO_POINT_THRESHOLD = 0.5
"""Where a model brings no operating point: uploaded scores, imported models."""


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
    """

    id: str
    name: str
    resamples: Resamples
    threshold: float
    own_threshold: bool

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
    "youden": "Sensitivity + specificity as large as possible (Youden)",
    "sensitivity": "At least this sensitivity",
    "specificity": "At least this specificity",
    "cost": "Cheapest, where a missed fracture costs as much as this many false alarms",
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
        elsewhere=at_prevalence(model.resamples, threshold, prevalence),
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
    return MeasuredModel(key, name, resample(scores, resamples, seed), threshold, point is not None)


def same_studies(models: Sequence[MeasuredModel]) -> bool:
    """Tell whether all models were measured on exactly the same studies: only then do their figures compare."""
    return len({frozenset(model.scores.study_ids) for model in models}) <= 1


def differences(models: Sequence[MeasuredModel]) -> tuple[Difference, ...]:
    """Compare every two models on the studies that both read; pairs that share none, or differ in labels, are left out.

    All p-values of one kind are corrected together (Holm), since with many pairs some differ by chance.
    """
    pairs, tests = [], []
    for one, other in combinations(models, 2):
        try:
            first, second = align_scores(one.scores, other.scores)
        except ScoresError:
            continue
        thresholds = (one.threshold, other.threshold)
        auc = paired_difference(*_drawn_alike(one, other, first, second), "auc")
        pairs.append((one.name, other.name, len(first.study_ids)))
        tests.append((auc, delong_test(first, second), mcnemar_test(first, second, thresholds)))
    corrected = [holm([test.p_value for test in kind]) for kind in zip(*tests, strict=True)]
    return tuple(
        Difference(*pair, replace(auc, p_value=p), delong_p, right.only_first, right.only_second, mcnemar_p)
        for pair, (auc, _, right), p, delong_p, mcnemar_p in zip(pairs, tests, *corrected or [()] * 3, strict=True)
    )


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
    if not models:
        return ()
    columns = [model.scores.columns for model in models]
    return tuple(
        name
        for name in columns[0]
        if all(name in each and 2 <= len(set(banded(name, each[name]))) <= MOST_VALUES for each in columns)
    )


def roc_rows(scores: Scores) -> list[dict[str, float]]:
    """Return every point of the ROC and precision-recall curves, one row a threshold."""
    curve, recall = roc_curve(scores), precision_recall_curve(scores)
    columns = (curve.thresholds[1:], curve.sensitivities[1:], curve.false_positive_rates[1:], recall.precisions)
    return [
        {"threshold": float(at), "sensitivity": float(found), "specificity": 1 - float(alarms), "PPV": float(right)}
        for at, found, alarms, right in zip(*columns, strict=True)
    ]


def reliability_rows(resamples: Resamples) -> list[dict[str, float]]:
    """Return the bins of the reliability curve, empty ones among them."""
    return [
        {
            "from": each.low,
            "to": each.high,
            "mean probability": each.mean_probability,
            "share positive": each.positive.value,
            "low": each.positive.low,
            "high": each.positive.high,
            "n": each.positive.n,
        }
        for each in reliability_curve(resamples)
    ]


def sweep_rows(sweep: ThresholdSweep) -> list[dict[str, float]]:
    """Return every rate at every threshold with its limits, one row a threshold."""
    rows = []
    for place, threshold in enumerate(sweep.thresholds.tolist()):
        row = {"threshold": threshold}
        row |= dict(zip(("TP", "FP", "TN", "FN"), sweep.confusions[place].tolist(), strict=True))
        for rate, values in sweep.values.items():
            name = METRIC_NAMES[rate]
            row |= {name: float(values[place]), f"{name}, low": float(sweep.low[rate][place])}
            row[f"{name}, high"] = float(sweep.high[rate][place])
        rows.append(row)
    return rows


def benefit_rows(benefit: NetBenefit) -> list[dict[str, float]]:
    """Return the decision curve, one row a threshold."""
    columns = (benefit.thresholds, benefit.model, benefit.low, benefit.high, benefit.call_all)
    names = ("threshold", "net benefit", "low", "high", "call all")
    return [dict(zip(names, row, strict=True)) for row in zip(*(column.tolist() for column in columns), strict=True)]


_ZONE_WORDS = {"no": "none seen", "doubt": "uncertain", "yes": "suspected"}


def choice_words(model: MeasuredModel, card: Checkpoint, which: str) -> str:
    """Say which limits (``"both"``, ``"upper"`` or ``"lower"``) somebody chose by looking at a model's studies."""
    chosen = {"both": "both", "upper": "the upper one", "lower": "the lower one"}[which]
    splits = {"test": "test", "valid": "validation"}
    words = ["simulated"] * bool(card.data.get("simulated")) + [splits.get(model.scores.split, model.scores.split)]
    told = f"{chosen} chosen by hand on {len(model.scores.study_ids):,} {' '.join(filter(None, words))} studies"
    return f"{told}, which are no longer held out for it" if model.scores.split == "test" else told


def zone_rows(scores: Scores, card: Checkpoint) -> list[dict[str, str]]:
    """Return what the card's two limits make of the studies, one row an answer; empty where it has not both.

    Each row says what share of the studies gets the answer, and what share of these is positive.
    """
    limits = {point.name: point.threshold for point in card.operating_points}
    if not {"high_sensitivity", "high_specificity"} <= set(limits):
        return []
    # Where they cross, nothing is uncertain and the upper one decides (core.classifier.decide).
    high = limits["high_specificity"]
    zones = triage(scores, min(limits["high_sensitivity"], high), high)
    rows = []
    for zone in zones:
        right = zone.wrong if zone.name != "yes" else _other(zone.wrong)
        rows.append(
            {
                "answer": _ZONE_WORDS[zone.name],
                "of all studies": _share_words(zone.share),
                f"of these with {card.positive_label}": _share_words(right),
            }
        )
    return rows


def _other(share: Interval) -> Interval:
    return Interval(1 - share.value, 1 - share.high, 1 - share.low, share.n)


def _share_words(share: Interval) -> str:
    if math.isnan(share.value):
        return "-"
    return f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%}), n={share.n:,}"


def agreement_rows(
    first: Scores, second: Scores, names: tuple[str, str], thresholds: tuple[float, float]
) -> list[dict[str, str | float]]:
    """Return two models' answers to the same studies (see `align_scores`), a row a study, the furthest apart first."""
    apart = np.argsort(-np.abs(first.probabilities - second.probabilities), kind="stable")
    calls = [scores.probabilities >= at for scores, at in zip((first, second), thresholds, strict=True)]
    return [
        {
            "study": first.study_ids[place],
            "label": int(first.labels[place]),
            names[0]: float(first.probabilities[place]),
            names[1]: float(second.probabilities[place]),
            "called": "alike" if calls[0][place] == calls[1][place] else "differently",
        }
        for place in apart.tolist()
    ]


def cross_check_rows(models: Sequence[MeasuredModel]) -> list[dict[str, str]]:
    """Return intervals by other methods, which take studies for independent: DeLong's for the AUC, Wilson's for rates.

    Where they differ much from the bootstrap over patients, several studies are of one patient, or there are few.
    """
    rows: dict[str, dict[str, str]] = {}
    for model in models:
        delong, wilson = delong_interval(model.scores), wilson_rates(model.counts)
        own = model.evaluation()
        others = [("auc", "DeLong", delong), *((rate, "Wilson", each) for rate, each in wilson.items())]
        for name, method, found in others:
            row = rows.setdefault(name, {"": METRIC_NAMES[name], "method": method})
            mine = getattr(own, name)
            ours = f"ours {mine.low:.3f} to {mine.high:.3f}"
            row[model.name] = f"{number_words(found.value, found.low, found.high)}; {ours}"
    return list(rows.values())


def subgroup_row(group: Subgroup) -> dict[str, str | int]:
    """Return a subgroup as words; what too few studies say is left empty."""
    row: dict[str, str | int] = {"group": group.value, "n": group.n, "positive": group.positives}
    for name in ("auc", "sensitivity", "specificity"):
        interval = getattr(group, name)
        row[name] = number_words(interval.value, interval.low, interval.high) if interval else ""
    return row


def number_words(value: float, low: float = math.nan, high: float = math.nan, digits: int = 3) -> str:
    """Return an estimate with its interval for people; a dash where there is none."""
    if math.isnan(value):
        return "-"
    if math.isnan(low) or math.isnan(high):
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def metric_table(models: Sequence[MeasuredModel], names: Mapping[str, str]) -> list[dict[str, str]]:
    """Return one row an estimate and one column a model: value, 95% interval and n, as text.

    Parameters
    ----------
    models : sequence of MeasuredModel
    names : Mapping
        Estimate -> its name for people, in the order of the rows.
    """
    found = {model.name: model.evaluation() for model in models}
    rows = []
    for estimate, words in names.items():
        row = {"": words}
        for name, evaluation in found.items():
            interval = getattr(evaluation, estimate)
            row[name] = f"{number_words(interval.value, interval.low, interval.high)}, n={interval.n:,}"
        rows.append(row)
    return rows
