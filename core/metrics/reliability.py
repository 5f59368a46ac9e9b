"""How often what was said to be likely came to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from core.errors import ScoresError
from core.metrics.calibration import ECE_BINS, bins_of_equal_count, bins_of_equal_width
from core.metrics.proportions import wilson_interval
from core.metrics.resampling import Resamples, codes_of, never_seen, percentile_interval
from core.metrics.tables import check_scores
from core.values import Interval, Scores

_CELLS_AT_ONCE = 1_000_000  # of (draws, studies): 8 MB
FEW_PATIENTS = 10
"""Fewer cannot show how alike the studies of one patient are."""


@dataclass(frozen=True, eq=False)
class ReliabilityBin:
    """The studies whose probability lies in one bin.

    Attributes
    ----------
    low, high : float
        The bin; `high` belongs to the next bin, but 1 to the last.
    mean_probability : float
        Of its studies; NaN where it is empty.
    positive : Interval
        Share of positives among them; `n` studies, 0 where it is empty.
    """

    low: float
    high: float
    mean_probability: float
    positive: Interval


@dataclass(frozen=True, eq=False)
class BrierParts:
    """The Brier score taken apart; ``brier = reliability - resolution + uncertainty + within``.

    Murphy, J. Appl. Meteorol. 12:595 (1973). Where the probabilities of a bin differ, what they do inside the bin is a
    part of its own (Stephenson et al., Weather Forecast. 23:752, 2008): their variance less twice their covariance with
    the labels.

    Attributes
    ----------
    brier, reliability, resolution, uncertainty, within : float
        `reliability` is small where calibration is good; `resolution` large where the bins' shares of positives differ.
    """

    brier: float
    reliability: float
    resolution: float
    uncertainty: float
    within: float


@dataclass(frozen=True, eq=False)
class CasesLike:
    """The studies that scored like one given study, and how many of them were positive.

    Attributes
    ----------
    positives, n : int
        "Of the `n` studies that scored like this one, `positives` had a fracture."
    low, high : float
        Lowest and highest probability among them.
    rate : Interval
        positives / n with its interval over patients, as `clustered_interval`; `n` studies.
    """

    positives: int
    n: int
    low: float
    high: float
    rate: Interval


def reliability_curve(resamples: Resamples) -> tuple[ReliabilityBin, ...]:
    """Return the `ECE_BINS` bins of equal width, empty ones among them, with intervals over patients."""
    scores = resamples.scores
    inside = bins_of_equal_width(scores.probabilities)
    bins = []
    for number in range(ECE_BINS):
        here = np.flatnonzero(inside == number)
        positives = int(scores.labels[here].sum())
        if here.size and positives in (0, here.size) and resamples.patients > 1:
            share = never_seen(positives > 0, [scores.patient_ids[place] for place in here], here.size)
        else:
            with np.errstate(divide="ignore", invalid="ignore"):
                samples = resamples.bins[:, number, 2] / resamples.bins[:, number, 0]
            value = positives / here.size if here.size else np.nan
            share = percentile_interval(value, samples if resamples.patients > 1 else samples[:0], int(here.size))
        mean = float(scores.probabilities[here].mean()) if here.size else np.nan
        bins.append(ReliabilityBin(number / ECE_BINS, (number + 1) / ECE_BINS, mean, share))
    return tuple(bins)


def brier_parts(scores: Scores) -> BrierParts:
    """Take the Brier score apart over the bins of `reliability_curve`. Raises as `check_scores`."""
    check_scores(scores)
    p, y = scores.probabilities, scores.labels.astype(np.float64)
    inside = bins_of_equal_width(p)
    share = np.bincount(inside, minlength=ECE_BINS) / p.size
    some = np.maximum(share * p.size, 1)
    said, seen = (np.bincount(inside, values, ECE_BINS) / some for values in (p, y))
    base = y.mean()
    apart_p, apart_y = p - said[inside], y - seen[inside]
    return BrierParts(
        brier=float(np.mean((p - y) ** 2)),
        reliability=float(np.sum(share * (said - seen) ** 2)),
        resolution=float(np.sum(share * (seen - base) ** 2)),
        uncertainty=float(base * (1 - base)),
        within=float(np.mean(apart_p**2) - 2 * np.mean(apart_p * apart_y)),
    )


def brier_part_intervals(resamples: Resamples) -> dict[str, Interval]:
    """Return each of `BrierParts` with its 95% interval over patients.

    Resampling makes the shares of small bins spread, and reliability and resolution with them, so these lie in the
    lower part of their intervals. NaN limits where there is only one patient.
    """
    parts = brier_parts(resamples.scores)
    counts, said, positives = np.moveaxis(resamples.bins, -1, 0)
    total = counts.sum(axis=1)
    base = positives.sum(axis=1) / total
    some = np.maximum(counts, 1)
    weights = counts / total[:, None]
    samples = {
        "brier": resamples.samples["brier"],
        "reliability": np.sum(weights * ((said - positives) / some) ** 2, axis=1),
        "resolution": np.sum(weights * (positives / some - base[:, None]) ** 2, axis=1),
        "uncertainty": base * (1 - base),
    }
    samples["within"] = samples["brier"] - samples["reliability"] + samples["resolution"] - samples["uncertainty"]
    alone, n = resamples.patients < 2, len(resamples.scores.study_ids)
    return {
        name: percentile_interval(getattr(parts, name), each[:0] if alone else each, n)
        for name, each in samples.items()
    }


def were_it_calibrated(scores: Scores, draws: int = 1000, seed: int = 0) -> dict[str, Interval]:
    """Return what chance alone makes of the calibration errors where every probability is exactly right.

    None of them can be negative, so chance only ever adds: with few studies even a perfectly calibrated model shows an
    error, and no interval of an error reaches 0. Labels are drawn from the probabilities themselves and measured
    against them (consistency resampling; Broecker and Smith, Weather Forecast. 22:651, 2007). Studies are taken for
    independent.

    Parameters
    ----------
    scores : Scores
        Its labels are not looked at.
    draws, seed : int

    Returns
    -------
    dict
        ``ece``, ``adaptive_ece`` and ``reliability`` (of `BrierParts`): the mean of the draws, and the range that holds
        95% of them; `n` studies.

    Raises
    ------
    ScoresError
        As `check_scores`; fewer than one draw.
    """
    check_scores(scores)
    if draws < 1:
        raise ScoresError(f"At least one draw must be asked for, but {draws} came.")
    p = np.asarray(scores.probabilities, np.float64)
    # A draw's labels less its probabilities, summed over each bin, are all that the three are made of.
    kinds = {"ece": bins_of_equal_width, "adaptive_ece": bins_of_equal_count}
    members = {name: np.eye(ECE_BINS)[bins(p)] for name, bins in kinds.items()}
    generator, found = np.random.default_rng(seed), {name: [] for name in ("ece", "adaptive_ece", "reliability")}
    at_once = max(1, _CELLS_AT_ONCE // p.size)
    for first in range(0, draws, at_once):
        drawn = generator.random((min(at_once, draws - first), p.size)) < p
        apart = {name: (drawn - p) @ inside for name, inside in members.items()}
        for name, sums in apart.items():
            found[name].append(np.abs(sums).sum(axis=1) / p.size)
        counts = np.maximum(members["ece"].sum(axis=0), 1)
        found["reliability"].append((apart["ece"] ** 2 / counts).sum(axis=1) / p.size)
    drawn = {name: np.concatenate(each) for name, each in found.items()}
    return {name: percentile_interval(float(each.mean()), each, p.size) for name, each in drawn.items()}


def cases_like(scores: Scores, probability: float, minimum: int = 20) -> CasesLike:
    """Count how many of the studies that scored like `probability` were positive.

    "Like" is within 0.05 of it; where that holds fewer than `minimum` studies, the nearest `minimum` of them, and
    every study as near as the farthest of those. With fewer than `minimum` studies in all, all of them.

    Raises
    ------
    ScoresError
        As `check_scores`; a probability outside [0, 1]; a minimum below 1.
    """
    check_scores(scores)
    if not 0 <= probability <= 1:
        raise ScoresError("A probability from 0 to 1 was expected.")
    if minimum < 1:
        raise ScoresError(f"At least one study must be asked for, but {minimum} came.")
    distances = np.abs(scores.probabilities - probability)
    rank = min(minimum, distances.size) - 1
    reach = max(0.05, float(np.partition(distances, rank)[rank]))
    like = distances <= reach + 1e-12  # 0.65 - 0.6 is not quite 0.05
    positives, n = int(np.sum(scores.labels[like] == 1)), int(np.sum(like))
    chosen = scores.probabilities[like]
    rate = clustered_interval(scores.labels[like] == 1, [scores.patient_ids[place] for place in np.flatnonzero(like)])
    return CasesLike(positives, n, float(chosen.min()), float(chosen.max()), rate)


def clustered_interval(holds: Sequence[bool], patients: Sequence[str]) -> Interval:
    """Return the share of studies in which something holds, with Wilson's interval over patients; good for few.

    Too few to resample: Wilson's interval is taken for as many independent studies as these are worth. That number is n
    divided by the design effect, by which studies of a patient that are alike widen the share's variance (Kish, Survey
    Sampling, 1965; Rao and Scott, Biometrics 48:577, 1992), and lies between n and what is left where all studies of a
    patient count as one. With fewer than `FEW_PATIENTS`, who cannot show how alike their studies are, it is the latter.
    Where each patient has one study it is Wilson's plain interval; a share of exactly 0 or 1 is `never_seen`.

    Parameters
    ----------
    holds : sequence of bool
        One for each study.
    patients : sequence of str

    Returns
    -------
    Interval
        `n` studies; all NaN where there is none.
    """
    holds = np.asarray(holds, bool)
    n, count = holds.size, int(holds.sum())
    if not n:
        return wilson_interval(0, 0)
    if count in (0, n):
        return never_seen(count == n, patients, n)
    share, codes = count / n, codes_of(patients)
    sizes = np.bincount(codes)
    worth = least = n**2 / float(np.sum(sizes**2))
    if sizes.size >= FEW_PATIENTS:
        apart = np.bincount(codes, holds) - share * sizes
        variance = sizes.size / (sizes.size - 1) * float(np.sum(apart**2)) / n**2
        effect = variance / (share * (1 - share) / (n - 1))
        worth = min(max(n / effect, least), n) if effect > 0 else n
    return replace(wilson_interval(share * worth, worth), value=share, n=n)
