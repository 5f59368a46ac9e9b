"""What a dataset is made of: studies, films and patients of each split, views, and the sizes of its films."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.datasets.annotations import read_film_size
from core.datasets.index import DatasetIndex
from core.datasets.tables import NOT_GROUPS
from core.errors import DatasetError
from core.values import Study

FORMAT_WORDS = {
    "mura": "the layout of MURA",
    "folders": "one folder for each class",
    "graz": "the layout of GRAZPEDWRI-DX",
    "fracatlas": "the layout of FracAtlas",
    "csv": "a table that lists the films",
}
VIEW = "view"
FILMS_PER_STUDY = "films of a study"
NOT_STATED = "not stated"
MOST_VALUES = 12
"""A column of the table with more values than this is not counted by value."""
_VIEW_COLUMNS = ("view", "projection", "view_position", "viewposition", "viewpoint")
_GRAZ_VIEWS = {"1": "frontal", "2": "lateral", "3": "oblique"}
_FRACATLAS_VIEWS = ("frontal", "lateral", "oblique")
_NOT_COUNTED = {*NOT_GROUPS, *_VIEW_COLUMNS}


@dataclass(frozen=True)
class Counts:
    """How many there are of each kind; a patient is positive where any study is, a study where any film is."""

    studies: int
    positive_studies: int
    films: int
    positive_films: int
    patients: int
    positive_patients: int

    @property
    def negative_studies(self) -> int:
        """The studies that are not positive."""
        return self.studies - self.positive_studies


@dataclass(frozen=True)
class ValueCount:
    """How many are negative and positive of those that have one value."""

    value: str
    negative: int
    positive: int

    @property
    def n(self) -> int:
        """All of them."""
        return self.negative + self.positive


@dataclass(frozen=True, eq=False)
class Division:
    """A dataset divided by what is known of its films or studies.

    Attributes
    ----------
    name : str
        `VIEW`, `FILMS_PER_STUDY`, or a column of the dataset's table.
    unit : str
        What is counted: ``"films"`` or ``"studies"``.
    counts : tuple of ValueCount
    """

    name: str
    unit: str
    counts: tuple[ValueCount, ...]


@dataclass(frozen=True, eq=False)
class FilmSizes:
    """The sizes of films as their headers say, and of their files.

    Attributes
    ----------
    paths : tuple of pathlib.Path
    heights, widths, file_bytes : numpy.ndarray
        int64, shape (films,): pixels, pixels and bytes.
    unread : int
        Films whose header could not be read.
    """

    paths: tuple[Path, ...]
    heights: np.ndarray
    widths: np.ndarray
    file_bytes: np.ndarray
    unread: int = 0

    def __post_init__(self) -> None:
        for array in (self.heights, self.widths, self.file_bytes):
            array.flags.writeable = False


def label_words(index: DatasetIndex) -> tuple[str, str]:
    """Return what a negative and a positive label mean in words; MURA's positive is anything abnormal."""
    fractures = index.format in ("graz", "fracatlas") or index.origin != "real"
    return ("no fracture", "fracture") if fractures else ("negative", "positive")


def count_studies(studies: Iterable[Study], film_labels: Mapping[Path, int]) -> Counts:
    """Count studies, films and patients, and the positive ones of each."""
    studies = list(studies)
    patients: dict[str, bool] = {}
    for study in studies:
        patients[study.patient_id] = patients.get(study.patient_id, False) or study.label == 1
    films = [film_labels.get(path, study.label) for study in studies for path in study.paths]
    return Counts(
        studies=len(studies),
        positive_studies=sum(study.label == 1 for study in studies),
        films=len(films),
        positive_films=sum(label == 1 for label in films),
        patients=len(patients),
        positive_patients=sum(patients.values()),
    )


def count_splits(index: DatasetIndex) -> dict[str, Counts]:
    """Return the counts of each split by its name."""
    return {name: count_studies(studies, index.film_labels) for name, studies in index.splits.items()}


def divide(index: DatasetIndex, details: Mapping[Path, Mapping[str, str]]) -> tuple[Division, ...]:
    """Divide a dataset by view, by films of a study, and by every column of its table that has few values.

    Parameters
    ----------
    index : DatasetIndex
    details : Mapping
        As from ``index.details()``.

    Returns
    -------
    tuple of Division
        Views first, where the dataset states any; the values of each from the most frequent on.
    """
    labels = index.film_labels
    divisions = []
    views = {path: view_of(row, index.format) for path, row in details.items() if path in labels}
    if any(views.values()):
        divisions.append(_count(VIEW, {path: views.get(path) or NOT_STATED for path in labels}, labels))
    lengths = Counter((len(study.paths), int(study.label == 1)) for study in index.studies)
    per_study = [ValueCount(str(n), lengths[n, 0], lengths[n, 1]) for n in sorted({n for n, _ in lengths})]
    divisions.append(Division(FILMS_PER_STUDY, "studies", tuple(per_study)))
    own = {*_NOT_COUNTED, *_FRACATLAS_VIEWS} if index.format == "fracatlas" else _NOT_COUNTED
    columns = dict.fromkeys(name for row in details.values() for name in row)
    for column in columns:
        if column in own:
            continue
        values = {path: details.get(path, {}).get(column) or NOT_STATED for path in labels}
        if 2 <= len(set(values.values())) <= MOST_VALUES:
            divisions.append(_count(column, values, labels))
    return tuple(divisions)


def view_of(row: Mapping[str, str], format: str) -> str:  # noqa: A002
    """Return the view of a film as its row of the dataset's table says; ``""`` where it does not.

    GRAZPEDWRI-DX codes projections as 1, 2 and 3; FracAtlas has a column for each view, and films that show several.
    """
    if format == "fracatlas":
        return " and ".join(name for name in _FRACATLAS_VIEWS if row.get(name) in ("1", "1.0"))
    said = next((row[name] for name in _VIEW_COLUMNS if row.get(name)), "")
    return _GRAZ_VIEWS.get(said.removesuffix(".0"), said) if format == "graz" else said


def _count(name: str, values: Mapping[Path, str], labels: Mapping[Path, int]) -> Division:
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for path, value in values.items():
        found[value][int(labels[path] == 1)] += 1
    ranked = sorted(found.items(), key=lambda item: (item[0] == NOT_STATED, -sum(item[1]), item[0]))
    return Division(name, "films", tuple(ValueCount(value, *both) for value, both in ranked))


# --- samples ---------------------------------------------------------------------------------------------------------


def draw_sample(studies: Sequence[Study], most_films: int, seed: int = 0) -> tuple[Study, ...]:
    """Draw patients at random, with all their studies, until the next one's films would be too many.

    A smaller sample of the same seed is the beginning of a larger one.

    Parameters
    ----------
    studies : sequence of Study
    most_films : int
    seed : int

    Returns
    -------
    tuple of Study
        All of them, in their own order, where they have at most `most_films` films; at least one patient's.
    """
    if sum(len(study.paths) for study in studies) <= most_films:
        return tuple(studies)
    by_patient: dict[str, list[Study]] = defaultdict(list)
    for study in studies:
        by_patient[study.patient_id].append(study)
    patients, drawn, films = sorted(by_patient), [], 0
    for place in np.random.default_rng(seed).permutation(len(patients)):
        own = by_patient[patients[place]]
        films += sum(len(study.paths) for study in own)
        if drawn and films > most_films:
            break
        drawn += own
    return tuple(drawn)


def draw_films(index: DatasetIndex, label: int, most: int, seed: int = 0) -> tuple[tuple[Study, Path], ...]:
    """Draw films of one label at random, from as many patients as possible.

    Returns
    -------
    tuple of (Study, pathlib.Path)
        Up to `most`, one a patient unless there are too few patients.
    """
    of_label = [
        (study, path)
        for study in index.studies
        for path in study.paths
        if index.film_labels.get(path, study.label) == label
    ]
    order = [of_label[place] for place in np.random.default_rng((seed, label)).permutation(len(of_label))]
    seen: set[str] = set()
    first, others = [], []
    for study, path in order:
        (others if study.patient_id in seen else first).append((study, path))
        seen.add(study.patient_id)
    return tuple((first + others)[:most])


# --- sizes -----------------------------------------------------------------------------------------------------------


def read_sizes(paths: Sequence[Path], on_progress: Callable[[int], None] = lambda done: None) -> FilmSizes:
    """Read the sizes of films from the headers of their files; pixels are not decoded.

    Parameters
    ----------
    paths : sequence of pathlib.Path
    on_progress : callable
        Called with the number of films done.
    """
    kept, rows = [], []
    for done, path in enumerate(paths, start=1):
        try:
            rows.append((*_read_size(path), os.stat(path).st_size))
            kept.append(path)
        except (OSError, DatasetError):
            pass
        on_progress(done)
    columns = np.array(rows, np.int64).reshape(-1, 3).T
    return FilmSizes(tuple(kept), *(column.copy() for column in columns), unread=len(paths) - len(kept))


def _read_size(path: Path) -> tuple[int, int]:
    with open(path, "rb") as file:
        is_dicom = file.read(132)[128:] == b"DICM"
    if not is_dicom:
        return read_film_size(path)
    import pydicom

    from core.radiographs.pixels import quiet

    try:
        with quiet():
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["Rows", "Columns"])
        height, width = int(header.Rows), int(header.Columns)
        if min(height, width) < 1:
            raise ValueError("no rows or no columns")
        return height, width
    except Exception as error:  # whatever a damaged header makes pydicom raise, which may quote the file
        raise DatasetError("The header of a DICOM file with rows and columns was expected, but it has none.") from error


def size_rows(sizes: FilmSizes, labels: Mapping[Path, int]) -> list[tuple[int, int, int, int]]:
    """Return (width, height, negative films, positive films) of each size there is, the most frequent first."""
    found: dict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0])
    for path, height, width in zip(sizes.paths, sizes.heights.tolist(), sizes.widths.tolist(), strict=True):
        found[width, height][int(labels.get(path) == 1)] += 1
    ranked = sorted(found.items(), key=lambda item: (-sum(item[1]), item[0]))
    return [(*size, *both) for size, both in ranked]
