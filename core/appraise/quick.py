"""How alike Quick Score-CAM's maps are to those of Score-CAM over all channels, film by film."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from core.appraise.kept import Kept
from core.appraise.maps import showing_film
from core.appraise.studies import KnownFilm, KnownStudy, name_of
from core.evaluate import Progress
from core.explain import QUICK_GROUPS, explain_square
from core.explain.comparison import weights_key
from core.metrics import RESAMPLES, interval_dict
from core.metrics.resampling import interval_of, quantile_of, rate_interval
from core.quality import assess

if TYPE_CHECKING:
    from core.reading import Reader

WANTED = 0.95
"""Wanted: the median rank correlation with Score-CAM over all channels reaches this."""
_GROUPS = {"all films": (True, False), "with a break": (True,), "without": (False,)}


@dataclass(frozen=True)
class Likeness:
    """How alike the two maps of one film are.

    Attributes
    ----------
    checkpoint_id, weights : str
        `weights` as `core.explain.comparison.weights_key` says.
    film, patient_id : str
    broken : bool
        Whether the film shows a break.
    groups : int
        Of channels, of the quick map.
    spearman, pearson : float or None
        Rank and linear correlation over the cells of the feature map; 0 where one map is the same everywhere, None
        where both are.
    """

    checkpoint_id: str
    weights: str
    film: str
    patient_id: str
    broken: bool
    groups: int
    spearman: float | None
    pearson: float | None


def one_of_each(studies: Iterable[KnownStudy]) -> Iterator[tuple[str, KnownFilm]]:
    """Yield one film of each study, of another place in the study each time; of a broken one a film that shows it."""
    for number, study in enumerate(studies):
        place = number // 2  # every other study is broken: so both kinds go through all places
        film = showing_film(study, place) if study.label else study.films[place % len(study.films)]
        if film is not None:
            yield study.id, film


def measure_likeness(
    films: Sequence[tuple[str, KnownFilm]], readers: Sequence[Reader], progress: Progress, kept: Kept
) -> list[Likeness]:
    """Compare the two maps for the finding of every reader on the same films.

    Films that are not fit to be read are left out.

    Parameters
    ----------
    films : sequence of (str, KnownFilm)
        Each with its patient.
    readers : sequence of core.reading.Reader
    progress : core.evaluate.Progress
    kept : core.appraise.kept.Kept
        What it holds is not measured again; what is measured goes there.
    """
    rows = []
    for number, reader in enumerate(readers):
        card = reader.classifier.checkpoint
        for place, (patient, film) in enumerate(films, start=1):
            told = (card.id, weights_key(card), name_of(film), QUICK_GROUPS)
            found = kept.find(told)
            row = Likeness(**found) if found else _compare(reader, film, patient, told)
            if row and not found:
                kept.add(told, asdict(row))
            rows += [row] if row else []
            progress(number * len(films) + place)
    return rows


def _compare(reader: Reader, film: KnownFilm, patient: str, told: tuple[str, str, str, int]) -> Likeness | None:
    region = reader.finder.find(film.radiograph) if reader.finder else None
    if assess(film.radiograph, region).level == "unfit":
        return None
    square = np.asarray(reader.classifier.square(film.radiograph, region), np.float32)
    whole, quick = (
        explain_square(reader.classifier, square, method=method, **settings)[0]
        for method, settings in (("scorecam", {}), ("quickscorecam", {"groups": QUICK_GROUPS}))
    )
    checkpoint_id, weights, name, groups = told
    return Likeness(checkpoint_id, weights, name, patient, bool(film.mask.any()), groups, *_correlations(whole, quick))


def _correlations(first: np.ndarray, second: np.ndarray) -> tuple[float | None, float | None]:
    """Return Spearman's and Pearson's correlation of two maps; 0 where one is the same everywhere, None where both."""
    from scipy.stats import pearsonr, spearmanr

    if not np.ptp(first) or not np.ptp(second):
        return (0.0, 0.0) if np.ptp(first) or np.ptp(second) else (None, None)
    pair = first.ravel().astype(np.float64), second.ravel().astype(np.float64)
    return float(spearmanr(*pair).statistic), float(pearsonr(*pair).statistic)


def summarise_likeness(rows: Sequence[Likeness], resamples: int = RESAMPLES) -> dict[str, dict[str, Any]]:
    """Measure the correlations over films.

    Returns
    -------
    dict
        Checkpoint's id -> films ("all films", "with a break", "without") -> ``spearman, spearman_10th_percentile,
        pearson`` (the first and last are medians) and ``reach``, the share of films whose rank correlation reaches
        `WANTED`, each ``{"value", "low", "high", "n"}``; ``no_map``: on how many films both maps were the same
        everywhere, which are in no estimate. Groups without any film are left out.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(row.checkpoint_id for row in rows):
        for words, kinds in _GROUPS.items():
            ours = [row for row in rows if row.checkpoint_id == name and row.broken in kinds]
            known = [row for row in ours if row.spearman is not None]
            if ours:
                found.setdefault(name, {})[words] = _estimates(known, resamples) | {"no_map": len(ours) - len(known)}
    return found


def _estimates(rows: Sequence[Likeness], resamples: int) -> dict[str, Mapping[str, Any]]:
    patients = [row.patient_id for row in rows]

    def quantile(name: str, share: float) -> Mapping[str, Any]:
        values = [getattr(row, name) for row in rows]
        return interval_dict(interval_of(quantile_of(values, share), patients, resamples))

    return {
        "spearman": quantile("spearman", 0.5),
        "spearman_10th_percentile": quantile("spearman", 0.1),
        "pearson": quantile("pearson", 0.5),
        "reach": interval_dict(rate_interval([row.spearman >= WANTED for row in rows], patients, resamples)),
    }
