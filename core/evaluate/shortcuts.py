"""Whether a dataset can be solved without looking for a fracture, before any model is measured on it.

A logistic regression is given next to nothing of each study: how many films it has, how large the pictures are, how
bright they are on the whole, or a thumbnail. Each study is answered by a regression that was fitted without its patient
(`core.evaluate.baselines.out_of_fold`). What such a regression reaches, a model may have reached in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from core.datasets.composition import Counts, FilmSizes
from core.datasets.overlap import CopiedFilms, Overlap, sketch_film
from core.datasets.splits import PublishedNames
from core.errors import ScoresError
from core.evaluate.baselines import THUMBNAIL_SHAPE, out_of_fold, share_out
from core.measured import number_words
from core.metrics import RESAMPLES, auc_of, compare_scores, interval_of, taken
from core.values import Interval, Radiograph, Scores, Study

FILMS, SIZE, FILE, BRIGHTNESS, THUMBNAIL = "films", "size", "file", "brightness", "thumbnail"
SHORTCUTS: Mapping[str, str] = {
    FILMS: "number of films",
    SIZE: "size of the picture",
    FILE: "compression of the file (bytes per pixel)",
    BRIGHTNESS: "mean brightness",
    THUMBNAIL: f"thumbnail, {THUMBNAIL_SHAPE[1]} × {THUMBNAIL_SHAPE[0]} pixels",
}
"""Baseline -> what it is given, in words."""
FROM_FILES = (FILMS, SIZE, FILE)
"""Those for which headers of files are enough."""
FROM_PIXELS = (BRIGHTNESS, THUMBNAIL)
WARNING_AUC = 0.6
"""An interval above this is a warning, and one below it is none."""
FEWEST_PATIENTS = 10
"""Of each label; with fewer, chance alone solves a dataset now and then, and resampling cannot show it."""
SOLVED_AUC = 0.9
"""A baseline whose interval lies above this leaves a model next to nothing to show."""
ALIKE = "the same in every study"
"""Why a baseline cannot be measured where it can tell nothing."""
FEWEST_MATCHED = 10
"""Scores are taken to be of a dataset only if at least so many of its studies are in them."""

_REFERENCE_PIXELS = 512.0
_FREEDOM = {THUMBNAIL: 0.01}


@dataclass(frozen=True, eq=False)
class FilmLook:
    """What is kept of a film.

    Attributes
    ----------
    brightness : float
        Its mean grey, [0, 1].
    thumbnail : numpy.ndarray
        Float32, 28 x 16 pixels in a row.
    sketch : numpy.ndarray
        As from `core.datasets.overlap.sketch_film`; what no baseline is given.
    """

    brightness: float
    thumbnail: np.ndarray
    sketch: np.ndarray


@dataclass(frozen=True, eq=False)
class Shortcut:
    """How far one baseline gets.

    Attributes
    ----------
    name : str
        A key of `SHORTCUTS`.
    auc : Interval
        95% over resamples of the patients; NaN where it cannot be measured.
    answers : Scores or None
        What it answered, study by study; None where it cannot be measured.
    reason : str
        Why it cannot be measured.
    """

    name: str
    auc: Interval
    answers: Scores | None = None
    reason: str = ""

    @property
    def words(self) -> str:
        """What it is given."""
        return SHORTCUTS[self.name]


@dataclass(frozen=True, eq=False)
class Lead:
    """A model beside the best baseline.

    Attributes
    ----------
    auc : Interval
        The model's, on the dataset's studies that it scored.
    over : str
        Words of the baseline with the highest AUC; ``""`` where there is none to compare with.
    difference : Interval or None
        The model's AUC minus the baseline's, paired, on the studies that both read; None where there are too few.
    """

    auc: Interval
    over: str = ""
    difference: Interval | None = None


@dataclass(frozen=True, eq=False)
class Verdict:
    """Whether figures measured on a dataset can be believed, as far as is known.

    Attributes
    ----------
    level : str
        ``"warning"``, ``"open"`` or ``"sound"``.
    headline : str
    sentences : tuple of str
    """

    level: str
    headline: str
    sentences: tuple[str, ...]


def look_at_film(film: Radiograph) -> FilmLook:
    """Return what the baselines see of a film, and its sketch: of the whole film, whatever its proportions."""
    import cv2

    thumbnail = cv2.resize(film.pixels, THUMBNAIL_SHAPE[::-1], interpolation=cv2.INTER_AREA).ravel()
    return FilmLook(float(film.pixels.mean()), thumbnail, sketch_film(film.pixels))


def measure_from_files(
    studies: Sequence[Study], sizes: FilmSizes, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[Shortcut, ...]:
    """Measure the baselines `FROM_FILES`.

    Parameters
    ----------
    studies : sequence of Study
        Those without a label, and those none of whose films is in `sizes`, are left out.
    sizes : FilmSizes
    seed, resamples : int
        Of the folds and the bootstrap, and of the latter.
    """
    across, down = np.log(sizes.widths / _REFERENCE_PIXELS), np.log(sizes.heights / _REFERENCE_PIXELS)
    dense = np.log(np.maximum(sizes.file_bytes, 1) / (sizes.widths * sizes.heights))
    # Squares, so that a class whose pictures are neither the smallest nor the largest is found too.
    size = np.stack([across, down, across**2, down**2, across * down], axis=1)
    place = {path: row for row, path in enumerate(sizes.paths)}

    def rows_of(study: Study) -> list[int]:
        return [place[path] for path in study.paths if path in place]

    features: dict[str, Callable[[Study], np.ndarray]] = {
        FILMS: lambda study: np.array([len(study.paths)], np.float64),
        SIZE: lambda study: size[rows_of(study)].mean(axis=0),
        FILE: lambda study: dense[rows_of(study)].mean(keepdims=True),
    }
    usable = [study for study in studies if study.label is not None and rows_of(study)]
    return _measure(usable, features, seed, resamples)


def measure_from_pixels(
    studies: Sequence[Study], looks: Mapping[Path, FilmLook | None], seed: int = 0, resamples: int = RESAMPLES
) -> tuple[Shortcut, ...]:
    """Measure the baselines `FROM_PIXELS`; arguments as of `measure_from_files`, None being a film that was not read.

    A study's brightness and thumbnail are the means over its films.
    """

    def seen(study: Study) -> list[FilmLook]:
        return [look for path in study.paths if (look := looks.get(path)) is not None]

    features: dict[str, Callable[[Study], np.ndarray]] = {
        BRIGHTNESS: lambda study: np.array([np.mean([look.brightness for look in seen(study)])]),
        THUMBNAIL: lambda study: np.mean([look.thumbnail for look in seen(study)], axis=0),
    }
    usable = [study for study in studies if study.label is not None and seen(study)]
    return _measure(usable, features, seed, resamples)


def _measure(
    studies: Sequence[Study], features: Mapping[str, Callable[[Study], np.ndarray]], seed: int, resamples: int
) -> tuple[Shortcut, ...]:
    """Measure baselines by their features of a study, all on the same folds."""
    labels = np.array([study.label for study in studies], np.int8)
    patients = tuple(study.patient_id for study in studies)
    nothing = Interval(math.nan, math.nan, math.nan, len(studies))
    if not studies:
        return tuple(Shortcut(name, nothing, reason="no film could be read") for name in features)
    few = min(len({who for who, its in zip(patients, labels, strict=True) if its == label}) for label in (0, 1))
    few = few < FEWEST_PATIENTS
    folds = None if few else share_out(labels, patients, seed)
    measured = []
    for name, features_of in features.items():
        given = np.stack([features_of(study) for study in studies])
        alike = not np.ptp(given, axis=0).any()
        if alike or folds is None:
            reason = f"fewer than {FEWEST_PATIENTS} patients of a label" if few else "too few patients"
            reason = ALIKE if alike and not few else reason
            measured.append(Shortcut(name, nothing, reason=reason))
            continue
        found = out_of_fold(given, labels, patients, seed, _FREEDOM.get(name, 1.0), folds)
        answers = Scores(name, "", tuple(study.id for study in studies), patients, labels, found)
        measured.append(Shortcut(name, interval_of(auc_of(labels, found), patients, resamples, seed), answers))
    return tuple(measured)


# --- beside the models -----------------------------------------------------------------------------------------------


def matching_scores(scores: Scores, studies: Sequence[Study]) -> Scores | None:
    """Return the scores of those studies that are in a dataset, under its own names, if they are of that dataset.

    Ids alone do not tell: simulated datasets all call their studies alike, and published tables number them.

    Returns
    -------
    Scores or None
        None where a label or a patient differs, or where fewer than `FEWEST_MATCHED` studies or only one class match.
    """
    names = PublishedNames(studies)
    places = [place for place, study_id in enumerate(scores.study_ids) if study_id in names.by_name]
    found = [names.by_name[scores.study_ids[place]] for place in places]
    for place, study in zip(places, found, strict=True):
        if study.label != scores.labels[place] or not names.is_patient(study, scores.patient_ids[place]):
            return None
    if len(places) < FEWEST_MATCHED or len({int(scores.labels[place]) for place in places}) < 2:
        return None
    patients = tuple(study.patient_id for study in found)
    return replace(taken(scores, np.array(places)), study_ids=tuple(study.id for study in found), patient_ids=patients)


def best_of(shortcuts: Sequence[Shortcut]) -> Shortcut | None:
    """Return the baseline with the highest AUC, or None where none could be measured."""
    known = [each for each in shortcuts if not math.isnan(each.auc.value)]
    return max(known, key=lambda each: each.auc.value, default=None)


def lead_over(scores: Scores, shortcuts: Sequence[Shortcut], resamples: int = RESAMPLES, seed: int = 0) -> Lead:
    """Put a model beside the best baseline.

    Parameters
    ----------
    scores : Scores
        As from `matching_scores`.
    shortcuts : sequence of Shortcut
    resamples, seed : int
    """
    auc = interval_of(auc_of(scores.labels, scores.probabilities), scores.patient_ids, resamples, seed)
    best = best_of(shortcuts)
    if best is None or best.answers is None:
        return Lead(auc)
    try:
        difference = compare_scores(scores, best.answers, resamples, seed)
    except ScoresError:
        return Lead(auc, best.words)
    enough = difference.n >= FEWEST_MATCHED and not math.isnan(difference.value)
    return Lead(auc, best.words, difference if enough else None)


# --- the answer ------------------------------------------------------------------------------------------------------


def judge(
    counts: Counts,
    overlap: Overlap,
    copies: CopiedFilms | None,
    shortcuts: Sequence[Shortcut],
    origin: str = "real",
    alike: CopiedFilms | None = None,
) -> Verdict:
    """Say whether figures measured on a dataset can prove anything, as far as it is known.

    Parameters
    ----------
    counts : Counts
        Of the whole dataset.
    overlap : Overlap
    copies : CopiedFilms or None
        None: not looked for yet.
    shortcuts : sequence of Shortcut
        Those measured so far.
    origin : str
        As of the ``DatasetIndex``.
    alike : CopiedFilms or None
        As from `core.datasets.overlap.find_alike`; None: not looked for yet.
    """
    simulated = {
        "simulated": "Its films are simulated: whatever is measured on them proves nothing about patients.",
        "injected": "Breaks were put into its films by a computer: what is measured on them is not about real breaks.",
    }.get(origin)
    closing = (simulated,) if simulated else ()
    if not counts.positive_studies or not counts.negative_studies:
        only = "positive" if counts.positive_studies else "negative"
        return Verdict(
            "warning",
            f"This dataset proves nothing: all of its studies are {only}",
            ("Studies of both kinds are needed to measure anything.", *closing),
        )
    solved = [each for each in shortcuts if each.auc.low > WARNING_AUC]
    torn = bool(overlap.shared) or any(found and found.between for found in (copies, alike))
    if solved or torn:
        return Verdict("warning", _warning_headline(solved, torn), (*_what_solves(solved), *closing))
    return _without_warning(shortcuts, copies, overlap, closing)


def _warning_headline(solved: Sequence[Shortcut], torn: bool) -> str:
    if solved and torn:
        return "This dataset proves little: it can be solved without looking for a fracture, and its splits overlap"
    return "This dataset proves little: it can be solved without looking for a fracture" if solved else (
        "This dataset proves little as it is split: its splits overlap"
    )  # fmt: skip


def _what_solves(solved: Sequence[Shortcut]) -> tuple[str, ...]:
    best = best_of(solved)
    if best is None:
        return ()
    others = [f"the {each.words}" for each in solved if each is not best]
    follows = (
        "what it reaches here proves nothing unless the difference is hidden from it"
        if best.auc.low > SOLVED_AUC
        else "only what it reaches beyond that counts"
    )
    also = f" So {'does' if len(others) == 1 else 'do'} {' and '.join(others)}." if others else ""
    return (
        f"The {best.words} alone tells positive from negative with an AUC of {auc_words(best.auc)}.{also} "
        f"A model may have learned just that: {follows}.",
    )


def _without_warning(
    shortcuts: Sequence[Shortcut], copies: CopiedFilms | None, overlap: Overlap, closing: tuple[str, ...]
) -> Verdict:
    known = {each.name: each for each in shortcuts if not math.isnan(each.auc.low)}
    reasons = {each.name: each.reason for each in shortcuts}
    # What is the same in every study tells nothing, so that much is known of it.
    missing = [SHORTCUTS[name] for name in SHORTCUTS if name not in known and reasons.get(name) != ALIKE]
    unsure = [each for each in known.values() if each.auc.high > WARNING_AUC]
    best = best_of(tuple(known.values()))
    if best is None:
        if set(reasons.values()) <= {ALIKE}:
            still = f"Not measured yet: {' and '.join(missing)}." if missing else ""
            return Verdict("open", "Nothing speaks against this dataset so far", (*filter(None, [still]), *closing))
        few = f"At least {FEWEST_PATIENTS} patients of each label are needed to measure a trivial baseline."
        return Verdict("open", "This dataset has too few patients to tell whether it proves anything", (few, *closing))
    found = f"The best trivial baseline so far, the {best.words}, reaches an AUC of {auc_words(best.auc)}."
    if unsure:
        widest = max(unsure, key=lambda each: each.auc.high)
        what = "Its interval" if widest is best else f"That of the {widest.words}, {auc_words(widest.auc)},"
        doubt = f"{found} {what} reaches above {WARNING_AUC}: more studies would tell."
        return Verdict("open", "It is not certain that this dataset proves anything", (doubt, *closing))
    if missing:
        failed = next((reasons[name] for name in SHORTCUTS if reasons.get(name) not in (None, "", ALIKE)), "")
        still = f"Not measured{f' ({failed})' if failed else ' yet'}: {' and '.join(missing)}."
        return Verdict("open", "Nothing speaks against this dataset so far", (f"{found} {still}", *closing))
    doubts = []
    if copies is None:
        doubts.append("Whether films are in it twice has not been looked at yet.")
    if not overlap.patients_known:
        doubts.append("It does not say of every film whose it is, so patients may be in two splits.")
    sentence = f"None of {len(known)} trivial baselines solves it: the best, the {best.words}, reaches an AUC of "
    return Verdict(
        "sound", "No trivial baseline solves this dataset", (f"{sentence}{auc_words(best.auc)}.", *doubts, *closing)
    )  # fmt: skip


def auc_words(auc: Interval) -> str:
    """Return an AUC with its interval and n for people."""
    return f"{number_words(auc.value, auc.low, auc.high)}, n={auc.n:,}"
