"""Measured models as tables: one dict a row, as a screen shows them and a CSV file keeps them."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Mapping, Sequence

import numpy as np

from core.measured.models import UNIT_WORDS, EstimateDifference, MeasuredModel, common_finding
from core.metrics import (
    METRIC_NAMES,
    Evaluation,
    NetBenefit,
    Resamples,
    Subgroup,
    ThresholdSweep,
    brier_part_intervals,
    delong_interval,
    precision_recall_curve,
    reliability_curve,
    roc_curve,
    triage,
    wilson_rates,
)
from core.values import Checkpoint, Interval, OperatingPoint, Scores, with_article


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


def estimate_rows(found: Evaluation) -> list[dict[str, str | int]]:
    """Return every estimate at one threshold with its interval and n."""
    intervals = ((words, getattr(found, name)) for name, words in METRIC_NAMES.items())
    return [
        {"estimate": words, "value": number_words(each.value, each.low, each.high), "n": each.n}
        for words, each in intervals
    ]


def benefit_rows(benefit: NetBenefit) -> list[dict[str, float]]:
    """Return the decision curve, one row a threshold."""
    columns = (benefit.thresholds, benefit.model, benefit.low, benefit.high, benefit.call_all)
    names = ("threshold", "net benefit", "low", "high", "call all")
    return [dict(zip(names, row, strict=True)) for row in zip(*(column.tolist() for column in columns), strict=True)]


_ZONE_WORDS = {"no": "none seen", "doubt": "uncertain", "yes": "suspected"}


def rule_words(rule: str, value: float, prevalence: float = math.nan, finding: str = "fracture") -> str:
    """Say by which of ``core.measured.RULES`` a threshold was chosen; the others as in `suggest_threshold`."""
    return {
        "youden": "the largest sum of sensitivity and specificity",
        "sensitivity": f"a sensitivity of at least {100 * value:g}%",
        "specificity": f"a specificity of at least {100 * value:g}%",
        "cost": f"the cheapest mistakes, one missed {finding} costing as much as {value:g} false alarms, where "
        f"{100 * prevalence:.3g}% of patients have one,",
    }[rule]


def studies_words(scores: Scores, simulated: bool = False) -> str:
    """Say how many studies, or films, there are and of which split: "1,499 simulated test studies"."""
    split = {"test": "test", "valid": "validation"}.get(scores.split, scores.split)
    return " ".join(
        filter(None, (f"{len(scores.study_ids):,}", "simulated" * simulated, split, UNIT_WORDS[scores.unit]))
    )


_CHOSEN = {"both": "both", "upper": "the upper one", "lower": "the lower one"}
_BEFORE = "; the other one was set before: "


def choice_words(scores: Scores, card: Checkpoint, which: str, how: str = "by hand", before: str = "") -> str:
    """Say which limits (``"both"``, ``"upper"`` or ``"lower"``) somebody chose on a model's studies, and how.

    Where one of two limits moves, what was said `before` of the one that stays is said on.
    """
    told = f"{_CHOSEN[which]} chosen {how} on {studies_words(scores, bool(card.data.get('simulated')))}"
    if scores.split == "test":
        told += ", which are no longer held out for it"
    stays = {"upper": ("both", "lower"), "lower": ("both", "upper")}.get(which, ())
    # What was saved by earlier versions says it in other words.
    for words in re.split(f"{re.escape(_BEFORE)}|; before that ", before) if stays else ():
        if words.startswith(tuple(_CHOSEN[each] for each in stays)):
            return told + _BEFORE + words
    return told


def zone_rows(measured: Resamples | Scores, card: Checkpoint) -> list[dict[str, str]]:
    """Return what the card's two limits make of the studies, as `point_rows`."""
    return point_rows(measured, card.operating_points, card.finding)


def point_rows(
    measured: Resamples | Scores, points: Sequence[OperatingPoint], label: str = "fracture"
) -> list[dict[str, str]]:
    """Return what two operating points make of the studies, one row an answer; empty where there are not both.

    Each row says what share of the studies gets the answer, and what share of these is positive, that is, has `label`.
    Quick for studies that were resampled before.
    """
    limits = {point.name: point.threshold for point in points}
    if not {"high_sensitivity", "high_specificity"} <= set(limits):
        return []
    # Where they cross, nothing is uncertain and the upper one decides (core.classifier.decide).
    high = limits["high_specificity"]
    zones = triage(measured, min(limits["high_sensitivity"], high), high)
    rows = []
    for zone in zones:
        right = zone.wrong if zone.name != "yes" else _other(zone.wrong)
        rows.append(
            {
                "answer": _ZONE_WORDS[zone.name],
                "of all studies": _share_words(zone.share),
                f"of these with {label}": _share_words(right),
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


_PART = "Brier score: {}"


def brier_part_rows(models: Sequence[MeasuredModel]) -> list[dict[str, str]]:
    """Return what the Brier score is made of, one row a part and one column a model: value, 95% interval and n."""
    found = {model.name: brier_part_intervals(model.resamples) for model in models}
    rows = []
    for part, words in (
        *((each, each) for each in ("reliability", "resolution", "uncertainty")),
        ("within", "within bins"),
    ):
        row = {"": _PART.format(words)}
        for name, parts in found.items():
            row[name] = _cell(parts[part])
        rows.append(row)
    return rows


def calibration_rows(models: Sequence[MeasuredModel]) -> list[dict[str, str]]:
    """Return how good each model's probabilities are, and what chance alone would make of a perfectly calibrated one's.

    One row an estimate and one column a model. The errors of calibration and the Brier score's reliability are followed
    by what they would be had every probability been exactly right: `core.metrics.were_it_calibrated`.
    """
    rows = metric_table(models, {name: METRIC_NAMES[name] for name in ("ece", "adaptive_ece", "brier", "log_loss")})
    rows += brier_part_rows(models)
    chance = {model.name: model.by_chance for model in models}
    told = {
        METRIC_NAMES["ece"]: "ece",
        METRIC_NAMES["adaptive_ece"]: "adaptive_ece",
        _PART.format("reliability"): "reliability",
    }
    found = []
    for row in rows:
        found.append(row)
        if name := told.get(row[""]):
            found.append({"": "… by chance alone"} | {model: _cell(each[name]) for model, each in chance.items()})
    return found


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
            ours = "ours has none" if math.isnan(mine.low) else f"ours {mine.low:.3f} to {mine.high:.3f}"
            row[model.name] = f"{number_words(found.value, found.low, found.high)}; {ours}"
    return list(rows.values())


def difference_rows(found: Sequence[EstimateDifference]) -> list[dict[str, str | int]]:
    """Return differences between models, a row each, with their interval, both p-values and n."""
    rows = []
    for each in found:
        gap = each.test.difference
        rows.append(
            {
                "first − second": f"{each.first} − {each.second}",
                "estimate": METRIC_NAMES[each.estimate],
                "difference": number_words(gap.value, gap.low, gap.high),
                "p, corrected": number_words(each.test.p_value),
                "p, alone": number_words(each.p_alone),
                "n": gap.n,
            }
        )
    return rows


def difference_words(found: Sequence[EstimateDifference], resamples: int) -> str:
    """Say how differences were tested, and for how many comparisons their p-values are corrected."""
    tested = sum(not math.isnan(each.p_alone) for each in found)
    corrected = (
        "There is one comparison, so its p-value is not corrected."
        if tested == 1
        else f"The p-values are corrected together for the {tested} comparisons of this table that have one (Holm)."
    )
    return (
        "Paired over the same resamples of the patients, on the n studies that both read; rates at each model's own "
        f"threshold. {corrected} From {resamples:,} resamples none comes out below {2 / (resamples + 1):.3f} alone."
    )


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
    # What rounds to nothing has no sign.
    value, low, high = (f"{round(each, digits) + 0.0:.{digits}f}" for each in (value, low, high))
    return value if "nan" in (low, high) else f"{value} ({low} to {high})"


def measured_words(models: Sequence[MeasuredModel], simulated: Container[str] = (), **at: float) -> str:
    """Say of which models and studies a figure is, a line each; `at`: ``threshold`` and ``prevalence``, where it is.

    `simulated` are the ids of the models that were measured on simulated films.
    """
    lines = [f"{model.name}: {studies_words(model.scores, model.id in simulated)}" for model in models]
    if "threshold" in at:
        lines.append(f"Called positive from {at['threshold']:.4f} on")
    if "prevalence" in at:
        lines.append(f"{100 * at['prevalence']:.3g}% of the patients with {with_article(common_finding(models))}")
    return "\n".join(lines)


def thousand_words(evaluation: Evaluation, prevalence: float) -> str:
    """Say between which numbers of a thousand patients are found and called in vain, by the 95% intervals of the rates.

    The two rates are of different patients; each range holds by itself.
    """
    found, passed = evaluation.sensitivity, evaluation.specificity
    if math.isnan(found.value) or math.isnan(passed.value):
        return "Of studies with one label alone it cannot be told what becomes of a thousand patients."
    limits = (found.low, found.high, passed.low, passed.high)
    if any(map(math.isnan, limits)):
        return "How far these numbers can be trusted cannot be told from one patient."
    ill, well = 1000 * prevalence, 1000 * (1 - prevalence)
    low, high = round(ill * found.low), round(ill * found.high)
    least, most = round(well * (1 - passed.high)), round(well * (1 - passed.low))
    return (
        f"By the 95% intervals {low:,} to {high:,} of {round(ill):,} are found (sensitivity, n={found.n:,}), and "
        f"{least:,} to {most:,} of {round(well):,} are called in vain (specificity, n={passed.n:,})."
    )


def threshold_words(models: Sequence[MeasuredModel]) -> str:
    """Say at which threshold each model is measured: its own, or that of those which have none."""
    without = [model for model in models if not model.own_threshold]
    if not without:
        return "each model's own threshold"
    names, at = ", ".join(model.name for model in without), sorted({model.threshold for model in without})
    told = f"{' and '.join(f'{threshold:g}' for threshold in at)} for {names}, which no operating point is known of"
    return told if len(without) == len(models) else f"each model's own threshold, but {told}"


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
            row[name] = _cell(getattr(evaluation, estimate))
        rows.append(row)
    return rows


def _cell(interval: Interval) -> str:
    return f"{number_words(interval.value, interval.low, interval.high)}, n={interval.n:,}"
