"""An evaluation as a table for people, and as plain dicts for JSON."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from core.evaluate.baselines import BaselineResult
from core.evaluate.scoring import Refused
from core.metrics import METRIC_NAMES, RATES, WITHOUT_THRESHOLD, Evaluation, interval_dict, limits_dict
from core.values import Interval, Scores

_ONE = {"films": "film", "studies": "study", "patients": "patient"}
_POINTS = {"high_sensitivity": "high sensitivity", "high_specificity": "high specificity"}


@dataclass(frozen=True, eq=False)
class PointMeasured:
    """An operating point of the card on these studies."""

    name: str
    threshold: float
    sensitivity: Interval
    specificity: Interval


@dataclass(frozen=True, eq=False)
class Apart:
    """The positives that share a value in a column of the dataset's table, against all negatives.

    `positives` of them; `sensitivity` is at the evaluation's threshold.
    """

    value: str
    positives: int
    auc: Interval
    sensitivity: Interval


@dataclass(frozen=True, eq=False)
class Measured:
    """All that was measured of one checkpoint (or of the mean of several).

    `refused`: what was left out as not fit to be read; None where no films were read.
    """

    scores: Scores
    evaluation: Evaluation
    points: tuple[PointMeasured, ...] = ()
    apart: tuple[Apart, ...] = ()
    refused: Refused | None = None


@dataclass(frozen=True, eq=False)
class Findings:
    """All that one command measured.

    Attributes
    ----------
    measured : tuple of Measured
        The checkpoints; where there are several, their mean comes last.
    differences : Mapping of (str, str) to Interval
        AUC of the first minus AUC of the second, paired.
    baselines : tuple of BaselineResult
        Beside the last of `measured`.
    apart_by : str or None
        Column of `Measured.apart`.
    wrist_found : Interval or None
        Share of the films with a marked wrist on which the found centre lies within 15% of the side of the marked one.
    unit : str
        What was measured one by one: ``"studies"`` or ``"films"``.
    mean_of : tuple of str
        Ids of the checkpoints of which the mean is; empty where there is none.
    """

    measured: tuple[Measured, ...]
    differences: Mapping[tuple[str, str], Interval] = field(default_factory=dict)
    baselines: tuple[BaselineResult, ...] = ()
    apart_by: str | None = None
    wrist_found: Interval | None = None
    unit: str = "studies"
    mean_of: tuple[str, ...] = ()


def to_dict(findings: Findings) -> dict[str, Any]:
    """Return what ``--json`` prints: the evaluation of the one checkpoint or of the mean, and what else was asked for.

    Every estimate is ``{"value", "low", "high"}``.
    """
    main = findings.measured[-1]
    out = _measured_dict(main, findings.apart_by)
    if len(findings.measured) > 1:
        out["checkpoint"] = main.scores.checkpoint_id
        out["mean_of"] = list(findings.mean_of)
        out["checkpoints"] = {
            each.scores.checkpoint_id: _measured_dict(each, findings.apart_by) for each in findings.measured
        }
        out["differences"] = [
            {"first": first, "second": second, "auc": limits_dict(difference)}
            for (first, second), difference in findings.differences.items()
        ]
    if findings.baselines:
        out["baselines"] = [
            {
                "name": each.name,
                "knows": each.knows,
                "knows_framing": each.knows == "framing",
                "direction": each.direction,
                "auc": limits_dict(each.auc),
                "model_ahead_by": limits_dict(each.model_ahead_by),
            }
            for each in findings.baselines
        ]
    if findings.wrist_found:
        out["wrist_found"] = interval_dict(findings.wrist_found)
    return out


def _measured_dict(measured: Measured, apart_by: str | None) -> dict[str, Any]:
    out = measured.evaluation.to_dict()
    if measured.points:
        out["operating_points"] = [
            {
                "name": point.name,
                "threshold": point.threshold,
                "sensitivity": limits_dict(point.sensitivity),
                "specificity": limits_dict(point.specificity),
            }
            for point in measured.points
        ]
    if measured.refused is not None:
        out["films_refused"], out["studies_refused"] = measured.refused.films, measured.refused.studies
    if apart_by is not None:
        out["apart"] = {
            "column": apart_by,
            "values": [
                {
                    "value": each.value,
                    "positives": each.positives,
                    "auc": limits_dict(each.auc),
                    "sensitivity": limits_dict(each.sensitivity),
                }
                for each in measured.apart
            ],
        }
    return out


def to_text(findings: Findings, resamples: int, seed: int) -> str:
    """Return the findings as tables for people."""
    lines: list[str] = []
    for each in findings.measured:
        lines += [*_measured_lines(each, findings.apart_by, findings.mean_of, findings.unit), ""]
    if findings.differences:
        lines += [_heading("difference of AUC, paired", "")]
        lines += [_row(f"{first} - {second}", gap) for (first, second), gap in findings.differences.items()] + [""]
    lines += _baseline_lines(findings.baselines)
    if findings.wrist_found:
        found = findings.wrist_found
        lines += [
            f"Wrist found within 15% of the marked square's side: {number(found.value)} "
            f"({number(found.low)} to {number(found.high)}) of {found.n} films.",
            "",
        ]
    return "\n".join(
        [*lines, f"Intervals: percentiles of {resamples} bootstrap resamples of the patients, seed {seed}."]
    )


def report(evaluation: Evaluation, checkpoint_id: str, unit: str = "studies") -> str:
    """Return one evaluation as a table for people."""
    counts, share = evaluation.confusion, evaluation.positives / evaluation.n
    lines = [
        f"{_counted(evaluation.n, unit)} of {_counted(evaluation.patients, 'patients')}, "
        f"{evaluation.positives} positive ({share:.1%})" + (f", scored by {checkpoint_id}" if checkpoint_id else ""),
        "",
        _heading("", "n"),
    ]
    for name in WITHOUT_THRESHOLD:
        lines.append(_row(METRIC_NAMES[name], getattr(evaluation, name)))
    lines += ["", f"called positive from {evaluation.threshold:.6g} on"]
    for name in RATES:
        lines.append(_row(METRIC_NAMES[name], getattr(evaluation, name)))
    lines += [
        "",
        f"{'':<26}{'called positive':>16}{'called negative':>17}",
        f"{'positive':<26}{counts.tp:>16}{counts.fn:>17}",
        f"{'negative':<26}{counts.fp:>16}{counts.tn:>17}",
    ]
    return "\n".join(lines)


def _counted(n: int, unit: str) -> str:
    return f"{n} {_ONE[unit] if n == 1 else unit}"


def refused_line(refused: Refused) -> str:
    """Return in one line what was left out as not fit to be read."""
    return f"Films not fit to be read, left out: {refused.films}; studies left out for it: {refused.studies}."


def number(value: float) -> str:
    """Return a number with three decimals; a dash where there is none."""
    return "-" if math.isnan(value) else f"{value:.3f}"


def _measured_lines(measured: Measured, apart_by: str | None, mean_of: Sequence[str], unit: str) -> list[str]:
    name = measured.scores.checkpoint_id
    who = f"the mean of {len(mean_of)} checkpoints: {', '.join(mean_of)}" if mean_of and name == "all" else name
    lines = [report(measured.evaluation, who, unit)]
    if measured.refused and measured.refused.films:
        lines += ["", refused_line(measured.refused)]
    for point in measured.points:
        words = _POINTS.get(point.name, point.name)
        lines += ["", f"at the point of {words}, {point.threshold:.6g}", _row("sensitivity", point.sensitivity)]
        lines += [_row("specificity", point.specificity)]
    if apart_by is not None:
        lines += ["", _heading(f"positives by {apart_by}", "n")]
        for each in measured.apart:
            lines += [_row(f"{each.value}: AUC", each.auc), _row(f"{each.value}: sensitivity", each.sensitivity)]
    return lines


def _baseline_lines(baselines: Sequence[BaselineResult]) -> list[str]:
    if not baselines:
        return []
    lines = [f"{'trivial baseline':<26}{'AUC':>7}   {'95% interval':<16}{'positive is':<12}{'model ahead by':<26}knows"]
    for each in baselines:
        ahead = each.model_ahead_by
        gap = f"{number(ahead.value)} ({number(ahead.low)} to {number(ahead.high)})"
        lines.append(
            f"{each.name:<26}{number(each.auc.value):>7}   {_limits(each.auc):<16}{each.direction:<12}{gap:<26}"
            + each.knows
        )
    return [*lines, "The direction of each is chosen to its favour on these very studies.", ""]


def _heading(name: str, last: str) -> str:
    return f"{name:<26}{'value':>7}   {'95% interval':<16}{last:>7}"


def _row(name: str, interval: Interval) -> str:
    return f"{name:<26}{number(interval.value):>7}   {_limits(interval):<16}{interval.n:>7}"


def _limits(interval: Interval) -> str:
    return f"{number(interval.low)} to {number(interval.high)}"


class Progress:
    """One line on a terminal that tells how far and how long; elsewhere a line at every tenth.

    Parameters
    ----------
    total : int
    stream : text stream
    unit : str
        What is counted.
    """

    def __init__(self, total: int, stream: TextIO, unit: str = "studies") -> None:
        self._total, self._stream, self._terminal, self._unit = total, stream, stream.isatty(), unit
        self._start = self._shown = time.monotonic()
        self._width = 0

    def __call__(self, done: int) -> None:
        """Show that so many are done."""
        now = time.monotonic()
        minutes, seconds = divmod(round((now - self._start) / done * (self._total - done)), 60)
        line = f"{done} of {self._total} {self._unit}, {done / self._total:.0%}, {minutes}:{seconds:02} left"
        if not self._terminal:
            if done * 10 // self._total > (done - 1) * 10 // self._total:
                print(line, file=self._stream, flush=True)
        elif done == self._total or now - self._shown > 0.1:
            self._shown, self._width = now, max(self._width, len(line))
            self._stream.write("\r" + line.ljust(self._width) + ("\n" if done == self._total else ""))
            self._stream.flush()

    def clear(self) -> None:
        """Make room for another line."""
        if self._terminal and self._width:
            self._stream.write("\r" + " " * self._width + "\r")
