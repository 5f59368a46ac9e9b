"""Folders of films to studies with labels, and studies to patient-disjoint splits.

The layouts that are known stand in ``core.datasets.layouts``. Nothing is left out in silence: what is listed and
cannot be used is a `Problem` of the index.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from core.datasets.layouts import (
    FORMATS,
    READERS,
    ListedFilm,
    Problem,
    detect_format,
    find_table,
    natural_order,
    read_details,
    read_regions,
)
from core.errors import DatasetError
from core.values import Study, WristRegion

__all__ = [
    "FORMATS",
    "DatasetIndex",
    "Problem",
    "describe",
    "detect_format",
    "find_studies",
    "index_dataset",
    "select_split",
    "split_by_patient",
]


@dataclass(frozen=True, eq=False)
class DatasetIndex:
    """Every study of a folder, and everything about it that a reader of results should know.

    Attributes
    ----------
    root : pathlib.Path
    format : str
        One of `FORMATS`.
    splits : Mapping of str to tuple of Study
        The dataset's own splits by name (``"train"``, ``"valid"``, ``"test"``); ``"all"`` where it has none. Studies
        are in natural order of their ids; a study's label is positive where any of its films is.
    problems : tuple of Problem
        Files that are missing, empty, no films, or not labelled. They are in no study.
    notes : tuple of str
        Sentences on what the layout does not tell, such as which films are of one patient.
    table : pathlib.Path or None
        The CSV file that says more of the films, where there is one.
    regions : Mapping of pathlib.Path to WristRegion
        Where the wrist is, for films whose table says so (x, y, side, angle); keys are paths of the studies.
    """

    root: Path
    format: str
    splits: Mapping[str, tuple[Study, ...]]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    table: Path | None = None
    regions: Mapping[Path, WristRegion] = field(default_factory=dict)

    @property
    def studies(self) -> tuple[Study, ...]:
        """The studies of all splits."""
        return tuple(study for studies in self.splits.values() for study in studies)

    def details(self) -> dict[Path, dict[str, str]]:
        """Read what `table` says of each film (kind of fracture, view, ...): path -> column -> text; may be empty."""
        return read_details(self.table) if self.table else {}

    def mask_path(self, path: Path) -> Path | None:
        """Return where the fracture mask of a film lies (the same path below ``masks/``), or None without one."""
        try:
            mask = self.root / "masks" / path.relative_to(self.root)
        except ValueError:
            return None
        return next((file for file in (mask, mask.with_suffix(".png")) if file.is_file()), None)


def index_dataset(folder: Path | str, format: str | None = None) -> DatasetIndex:  # noqa: A002
    """Find every study of a dataset without opening a film. 40,000 films take a few seconds.

    Parameters
    ----------
    folder : pathlib.Path or str
        The dataset's folder, or a CSV table that lists its films.
    format : str or None
        One of `FORMATS`; None: told from what is in the folder.

    Returns
    -------
    DatasetIndex

    Raises
    ------
    DatasetError
        No such folder; an unknown format; a layout that is none of those known; class folders whose names do not say
        which is positive; a study with films in several splits; nothing usable at all.
    """
    root = Path(folder)
    if format is not None and format not in FORMATS:
        raise DatasetError(f"The format of a dataset must be one of {', '.join(FORMATS)}, but another was given.")
    if not (root.is_dir() or root.is_file()):
        raise DatasetError("A folder of films or a table that lists them was expected, but there is none.")
    known = format or detect_format(root)
    if root.is_file() and known != "csv":
        raise DatasetError(f"A dataset in the format {known} is a folder, but a file was given.")
    problems: list[Problem] = []
    notes: list[str] = []
    films = READERS[known](root, problems, notes)
    if not films:
        raise DatasetError(f"Labelled films were expected, but none can be used ({len(problems)} are unusable).")
    splits = _group(films)
    if len(splits) > 1:
        shared = sum(n > 1 for n in Counter(p for s in splits.values() for p in {x.patient_id for x in s}).values())
        if shared:
            notes.append(f"Patients with studies in more than one split: {shared}; results across splits will flatter.")
    table = find_table(root)
    paths = {film.path for film in films}
    regions = {path: region for path, region in read_regions(table) if path in paths} if table else {}
    base = root if root.is_dir() else root.parent
    return DatasetIndex(base, known, splits, tuple(problems), tuple(notes), table, regions)


def find_studies(folder: Path | str, format: str | None = None, split: str | None = None) -> list[Study]:  # noqa: A002
    """Return the studies of a dataset, or of one of its splits; arguments and errors as `index_dataset`.

    What could not be used is told by `index_dataset` only.

    Raises
    ------
    DatasetError
        Also for a split that the dataset does not have.
    """
    return list(select_split(index_dataset(folder, format), split))


def select_split(index: DatasetIndex, split: str | None) -> tuple[Study, ...]:
    """Return the studies of `split`, or all of them where it is None.

    Raises
    ------
    DatasetError
        The dataset has no such split.
    """
    if split is None:
        return index.studies
    if split not in index.splits:
        raise DatasetError(f"The dataset has no such split; it has: {', '.join(index.splits)}.")
    return index.splits[split]


def split_by_patient(studies: Sequence[Study], fractions: Mapping[str, float], seed: int) -> dict[str, list[Study]]:
    """Split studies at random so that no patient is in two parts and each part has its share of positive patients.

    The result depends on the ids, the fractions and the seed alone, not on the order of `studies`.

    Parameters
    ----------
    studies : sequence of Study
    fractions : Mapping of str to float
        Share of the patients for each part, each above 0, together 1.
    seed : int

    Raises
    ------
    DatasetError
        Fractions that are not shares of 1.
    """
    shares = np.array(list(fractions.values()), dtype=np.float64)
    if not shares.size or not (shares > 0).all() or abs(shares.sum() - 1) > 1e-6:
        raise DatasetError("The fractions of a split must each be above 0 and add up to 1.")
    positive: dict[str, bool] = {}
    for study in studies:
        positive[study.patient_id] = positive.get(study.patient_id, False) or study.label == 1
    rng = np.random.default_rng(seed)
    part_of: dict[str, str] = {}
    for label in (True, False):
        patients = sorted(patient for patient in positive if positive[patient] is label)
        ends = np.rint(np.cumsum(shares) * len(patients)).astype(int)
        parts = np.searchsorted(ends, np.arange(len(patients)), side="right")
        for patient, part in zip((patients[i] for i in rng.permutation(len(patients))), parts, strict=True):
            part_of[patient] = list(fractions)[part]
    split: dict[str, list[Study]] = {name: [] for name in fractions}
    for study in sorted(studies, key=lambda study: natural_order(study.id)):
        split[part_of[study.patient_id]].append(study)
    return split


def describe(splits: Mapping[str, Iterable[Study]], problems: Sequence[Problem] = ()) -> str:
    """Return a table for people: studies, films, patients and positive studies of each split, then what is unusable."""
    lines = [f"{'split':<10}{'studies':>9}{'films':>9}{'patients':>10}{'positive':>10}"]
    for name, part in splits.items():
        studies = list(part)
        films = sum(len(study.paths) for study in studies)
        patients, positives = len({study.patient_id for study in studies}), sum(study.label == 1 for study in studies)
        share = f" ({positives / len(studies):.1%})" if studies else ""
        lines.append(f"{name:<10}{len(studies):>9}{films:>9}{patients:>10}{positives:>10}{share}")
    lines += [f"left out: {n} x {reason}" for reason, n in Counter(p.reason for p in problems).most_common()]
    return "\n".join(lines)


def _group(films: Sequence[ListedFilm]) -> dict[str, tuple[Study, ...]]:
    """Put films together to studies, and studies to splits."""
    by_study: dict[tuple[str, ...], list[ListedFilm]] = defaultdict(list)
    for film in films:
        by_study[film.study].append(film)
    torn = sum(len({film.split for film in group}) > 1 for group in by_study.values())
    if torn:
        raise DatasetError(
            f"The films of a study must be in one split, but {torn} of {len(by_study)} studies have films in several."
        )
    splits: dict[str, list[Study]] = defaultdict(list)
    for key, group in by_study.items():
        paths = tuple(sorted((film.path for film in group), key=lambda path: natural_order(path.name)))
        label = max(film.label for film in group)
        splits[group[0].split].append(Study("/".join(key), group[0].patient, paths=paths, label=label))
    order = [name for name in ("train", "valid", "test") if name in splits]
    order += sorted(set(splits) - set(order))
    return {name: tuple(sorted(splits[name], key=lambda study: natural_order(study.id))) for name in order}
