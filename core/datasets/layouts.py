"""The layouts in which datasets of films come, each read into labelled films.

- ``mura``: ``{train,valid}/XR_*/patientNNNNN/studyN_{positive,negative}/*.png``, as MURA-v1.1 (Rajpurkar et al. 2017,
  https://arxiv.org/abs/1712.06957) and as the simulated films, which add ``masks/`` and ``metadata.csv``;
- ``folders``: one folder for each class (Fracture and Normal, 1 and 0, ...), within a folder for each split or not;
- ``graz``: GRAZPEDWRI-DX (Nagy et al., Sci Data 9:222, 2022), ``dataset.csv`` and its images;
- ``fracatlas``: FracAtlas (Abedeen et al., Sci Data 10:521, 2023), ``dataset.csv`` and its images;
- ``csv``: any table with the columns path (or file) and label, and patient_id, study_id and split where it has them.

A reader takes the folder and two lists that it fills: problems (files that cannot be used) and notes (what the layout
does not tell). No film is opened here.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from core.errors import DatasetError
from core.values import WristRegion

FORMATS = ("mura", "folders", "graz", "fracatlas", "csv")
UNSPLIT = "all"
FILM_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom"})

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# Class names, with everything but letters and digits taken out.
_CLASSES = {
    **dict.fromkeys(
        ("1", "positive", "pos", "abnormal", "fracture", "fractured", "fractures", "broken", "yes", "true"), 1
    ),
    **dict.fromkeys(("0", "negative", "neg", "normal", "healthy", "nofracture", "nofractures", "notfractured"), 0),
    **dict.fromkeys(("nonfracture", "nonfractured", "unfractured", "no", "false"), 0),
}
_MURA_STUDY = re.compile(r"(study\d+)_(positive|negative)", re.IGNORECASE)
_NOT_FILMS = frozenset({"masks", "labels", "annotations", "__macosx"})  # folders beside the films
_SIDE_FILES = frozenset({".txt", ".csv", ".json", ".xml", ".md", ".db", ".ini", ".yaml", ".yml", ".npy"})
_DEPTH = 6  # folders below the root that are looked into; also ends a circle of links

_PATH_COLUMNS = ("path", "file", "filename", "image")
_PATIENT_COLUMNS = ("patient_id", "patient", "group")
_STUDY_COLUMNS = ("study_id", "study")
_TABLES = ("dataset.csv", "metadata.csv", "labels.csv")


class Problem(NamedTuple):
    """A file that cannot be used, and one sentence that says why (without naming it)."""

    path: Path
    reason: str


class ListedFilm(NamedTuple):
    """A film that can be used, before films become studies."""

    path: Path
    study: tuple[str, ...]
    patient: str
    label: int
    split: str


def detect_format(folder: Path | str) -> str:
    """Tell which of `FORMATS` a folder is in, by looking.

    Raises
    ------
    DatasetError
        None of them.
    """
    root = Path(folder)
    if root.is_file():
        return "csv"
    columns = _columns(root / "dataset.csv")
    if {"filestem", "fracture_visible", "patient_id"} <= columns:
        return "graz"
    if {"image_id", "fractured"} <= columns:
        return "fracatlas"
    if next(_mura_studies(root), None):
        return "mura"
    if _tables(root):
        return "csv"
    if {label for _, label, _ in _class_folders(root)[0]} == {0, 1}:
        return "folders"
    raise DatasetError(
        "A MURA folder, one folder for each class (such as Fracture and Normal), or a table with the columns path and "
        "label was expected, but the folder holds none of them."
    )


def _read_mura(root: Path, problems: list[Problem], notes: list[str]) -> list[ListedFilm]:
    above = root.resolve().parts[-4:]  # the folder given may itself lie below train or valid
    films = []
    for folder, name in _mura_studies(root, problems):
        match = _MURA_STUDY.fullmatch(name)
        parents = folder.relative_to(root).parts[:-1] or above[-2 if folder == root else -1 :][:1]
        split = next((_SPLITS[part.lower()] for part in (*parents, *above[::-1]) if part.lower() in _SPLITS), UNSPLIT)
        found = [Path(entry.path) for entry in _usable_films(folder, problems)]
        if not found:
            problems.append(Problem(folder, "the study has no film that can be used"))
        # The label stays out of the id, so that an id shown beside a film does not give the answer away.
        study, label = (*parents, match[1].lower()), int(match[2].lower() == "positive")
        films += [ListedFilm(path, study, parents[-1], label, split) for path in found]
    both = {film.study for film in films if film.label} & {film.study for film in films if not film.label}
    return [film._replace(study=(*film.study, "ab"[film.label])) if film.study in both else film for film in films]


def _mura_studies(root: Path, problems: list[Problem] | None = None) -> Iterator[tuple[Path, str]]:
    """Yield (folder, its name) of each study folder, in natural order; films outside them are problems."""
    name = root.resolve().name
    if _MURA_STUDY.fullmatch(name):
        yield root, name
        return
    for path, name in _folders_below(root, lambda name: _MURA_STUDY.fullmatch(name) is not None, problems):
        if _MURA_STUDY.fullmatch(name):
            yield Path(path), name


def _read_folders(root: Path, problems: list[Problem], notes: list[str]) -> list[ListedFilm]:
    classes, others = _class_folders(root)
    if not classes or others:
        raise DatasetError(
            "One folder for each class was expected, named such as Fracture and Normal, positive and negative, or "
            f"1 and 0, but {len(others)} of {len(others) + len(classes)} folders of films have other names."
        )
    for place in sorted({root, *(folder.parent for folder, _, _ in classes)}):
        stray = [entry.path for entry in _entries(str(place)) if entry.is_file() and _is_named_film(entry.name)]
        problems += [Problem(Path(path), "a film lies outside the folders of the layout") for path in stray]
    films = []
    flat = 0
    for folder, label, split in classes:
        for entry in _usable_films(folder, problems):
            path = Path(entry.path)
            inner, place = path.relative_to(folder).parts, path.relative_to(root)
            # A folder below the class is a study, and the topmost of them is a patient.
            study = place.parent.parts if len(inner) > 1 else place.parts
            flat += len(inner) == 1
            films.append(ListedFilm(path, study, inner[0] if len(inner) > 1 else "/".join(study), label, split))
    if flat:
        notes.append(f"Films in no folder of their own: {flat}; each counts as one study of one patient.")
    return films


def _class_folders(root: Path) -> tuple[list[tuple[Path, int, str]], list[Path]]:
    """Return (folder, label, split) of each class folder, and the folders with films that are no class."""
    classes: list[tuple[Path, int, str]] = []
    others: list[Path] = []
    for folder in _subfolders(root):
        if folder.name.lower() in _SPLITS:
            split = _SPLITS[folder.name.lower()]
            places = [(inner, split) for inner in _subfolders(folder)]
        else:
            places = [(folder, UNSPLIT)]
        for place, split in places:
            label = _class_of(place.name)
            if label is not None:
                classes.append((place, label, split))
            elif next(_films_below(place), None):
                others.append(place)
    return classes, others


def _read_graz(root: Path, problems: list[Problem], notes: list[str]) -> list[ListedFilm]:
    films = []
    files = _files_by_stem(root, problems)
    for row in _rows(root / "dataset.csv", {"filestem", "patient_id", "study_number", "fracture_visible"}):
        path = files.pop(row["filestem"], None)
        if path is None:
            problems.append(Problem(root / row["filestem"], "a film is missing"))
            continue
        study = (row["patient_id"], row["study_number"])
        label = int(row["fracture_visible"] in ("1", "1.0"))  # blank where none is visible
        films.append(ListedFilm(path, study, row["patient_id"], label, UNSPLIT))
    problems += [Problem(path, "a film is not in the table") for path in files.values()]
    return films


def _read_fracatlas(root: Path, problems: list[Problem], notes: list[str]) -> list[ListedFilm]:
    films = []
    files = _files_by_stem(root, problems)
    for row in _rows(root / "dataset.csv", {"image_id", "fractured"}):
        stem = Path(row["image_id"]).stem
        path, label = files.pop(stem, None), _class_of(row["fractured"])
        if path is None or label is None:
            reason = "a film is missing" if path is None else "a film has no label"
            problems.append(Problem(root / row["image_id"], reason))
            continue
        films.append(ListedFilm(path, (stem,), stem, label, UNSPLIT))
    problems += [Problem(path, "a film is not in the table") for path in files.values()]
    notes.append("This dataset does not say which films are of one patient: each film counts as one patient.")
    return films


def _read_csv(root: Path, problems: list[Problem], notes: list[str]) -> list[ListedFilm]:
    table = root
    if root.is_dir():
        tables = _tables(root)
        if len(tables) != 1:
            raise DatasetError(
                f"One table with the columns path (or file) and label was expected, but the folder holds {len(tables)}."
            )
        table = tables[0]
    base = table.parent
    columns = _columns(table)
    path_column = next((name for name in _PATH_COLUMNS if name in columns), "path")
    patient_column = next((name for name in _PATIENT_COLUMNS if name in columns), None)
    study_column = next((name for name in _STUDY_COLUMNS if name in columns), None)
    films, seen = [], set()
    for row in _rows(table, {path_column, "label"}):
        name = row[path_column]
        path, label = base / name.replace("\\", "/"), _class_of(row["label"])
        reason = _unusable(path) if name else "a row names no film"
        if path in seen:
            reason = "a film is listed more than once"
        elif label is None:
            reason = reason or "a film has no label, or one that is neither positive nor negative"
        if reason:
            problems.append(Problem(path, reason))
            continue
        seen.add(path)
        patient = row[patient_column] if patient_column else ""
        study = row[study_column] if study_column else ""
        split = row.get("split", "").lower()
        key = (patient, study) if patient and study else (study or name,)
        films.append(ListedFilm(path, key, patient or key[0], label, _SPLITS.get(split, split) or UNSPLIT))
    unnamed = sum(film.patient == film.study[0] and len(film.study) == 1 for film in films)
    if unnamed:
        notes.append(f"Films without a patient in the table: {unnamed}; each of their studies counts as one patient.")
    return films


READERS: dict[str, Callable[[Path, list[Problem], list[str]], list[ListedFilm]]] = {
    "mura": _read_mura,
    "folders": _read_folders,
    "graz": _read_graz,
    "fracatlas": _read_fracatlas,
    "csv": _read_csv,
}


def _folders_below(
    root: Path, is_study: Callable[[str], bool], problems: list[Problem] | None = None
) -> Iterator[tuple[str, str]]:
    """Yield (path, name) of the folders below `root`, in natural order, without looking into those of studies."""
    waiting = [(str(root), 0)]
    while waiting:
        folder, depth = waiting.pop()
        found = []
        for entry in _entries(folder):
            if entry.is_dir():
                found += [] if _aside(entry.name) else [(entry.path, entry.name)]
            elif problems is not None and _is_named_film(entry.name):
                problems.append(Problem(Path(entry.path), "a film lies outside the folders of the layout"))
        found.sort(key=lambda item: natural_order(item[1]))
        yield from found
        if depth < _DEPTH:
            waiting += [(path, depth + 1) for path, name in reversed(found) if not is_study(name)]


def _films_below(folder: Path) -> Iterator[os.DirEntry]:
    """Yield every file below `folder` that may be a film, or that stands where films stand."""
    waiting = [(str(folder), 1)]
    while waiting:
        place, level = waiting.pop()
        for entry in _entries(place):
            if entry.is_dir():
                if level < _DEPTH and not _aside(entry.name):
                    waiting.append((entry.path, level + 1))
            elif not entry.name.startswith(".") and _suffix(entry.name) not in _SIDE_FILES:
                yield entry


def _usable_films(folder: Path, problems: list[Problem]) -> Iterator[os.DirEntry]:
    for entry in _films_below(folder):
        reason = _unusable(entry)
        if reason:
            problems.append(Problem(Path(entry.path), reason))
        else:
            yield entry


def _unusable(file: Path | os.DirEntry) -> str | None:
    """Say why a file cannot be a film, as far as can be told without decoding it; None where it may be one."""
    try:
        if not file.is_file():
            return "a film is missing"
        if file.stat().st_size == 0:
            return "a file is empty"
        suffix = _suffix(file.name)
        if suffix in FILM_SUFFIXES:
            return None
        # DICOM files often have no suffix, or the last number of an identifier for one.
        if (not suffix or suffix[1:].isdigit()) and file.name.upper() != "DICOMDIR":
            with open(file, "rb") as stream:
                if stream.read(132)[128:] == b"DICM":
                    return None
    except OSError:
        return "a file cannot be opened"
    return "a file is no PNG, JPEG, TIFF or DICOM"


def _files_by_stem(root: Path, problems: list[Problem]) -> dict[str, Path]:
    """Return the films below `root` by their stem; of several with one stem, the first in natural order."""
    files: dict[str, Path] = {}
    entries = sorted(_usable_films(root, problems), key=lambda entry: natural_order(entry.path))
    for entry in entries:
        files.setdefault(os.path.splitext(entry.name)[0], Path(entry.path))
    return files


def _entries(folder: str) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DatasetError("A folder of the dataset cannot be opened: its permissions do not allow it.") from error


def _subfolders(folder: Path) -> list[Path]:
    found = [Path(entry.path) for entry in _entries(str(folder)) if entry.is_dir() and not _aside(entry.name)]
    return sorted(found, key=lambda path: natural_order(path.name))


def _aside(name: str) -> bool:
    return name.startswith(".") or name.lower() in _NOT_FILMS


def _is_named_film(name: str) -> bool:
    return not name.startswith(".") and _suffix(name) in FILM_SUFFIXES


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def natural_order(text: str) -> list[tuple[int, int, str]]:
    """Sort key under which image2 comes before image10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]


def _class_of(name: str) -> int | None:
    """Return the label that a class name or a cell stands for, or None."""
    text = name.strip().lower()
    if text in ("1.0", "0.0"):
        return int(text[0])
    return _CLASSES.get(re.sub(r"[^a-z0-9]", "", text))


def _tables(root: Path) -> list[Path]:
    """Return the table that lists the films of `root`, or several where it cannot be told which."""
    usable = [
        Path(entry.path)
        for entry in _entries(str(root))
        if entry.is_file() and _suffix(entry.name) == ".csv" and not entry.name.startswith(".")
    ]
    usable = [path for path in usable if "label" in _columns(path) and _columns(path) & set(_PATH_COLUMNS)]
    for name in _TABLES:
        if root / name in usable:
            return [root / name]
    return usable


def _columns(table: Path) -> set[str]:
    """Return the names of a table's columns, in lower case; none where it is no table."""
    try:
        with open(table, encoding="utf-8-sig", newline="") as file:
            return {name.strip().lower() for name in next(csv.reader(file), [])}
    except (OSError, UnicodeDecodeError, csv.Error):
        return set()


def _rows(table: Path, needed: set[str]) -> list[dict[str, str]]:
    columns = _columns(table)
    if table.is_file() and not columns:
        raise DatasetError("The dataset's table cannot be read as comma-separated UTF-8 text.")
    missing = sorted(needed - columns)
    if missing:
        raise DatasetError(
            f"The dataset's table needs the columns {', '.join(sorted(needed))}; it has no {missing[0]}."
        )
    try:
        with open(table, encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            names = [name.strip().lower() for name in next(rows)]
            return [
                dict.fromkeys(names, "") | {name: cell.strip() for name, cell in zip(names, row, strict=False)}
                for row in rows
                if any(row)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError("The dataset's table cannot be read as comma-separated UTF-8 text.") from error


def find_table(root: Path) -> Path | None:
    """Return the table that says more of the films: the one given, the one that lists them, or ``metadata.csv``."""
    if root.is_file():
        return root
    tables = _tables(root)
    if len(tables) == 1:
        return tables[0]
    table = root / "metadata.csv"
    return table if _columns(table) & set(_PATH_COLUMNS) else None


def read_details(table: Path) -> dict[Path, dict[str, str]]:
    """Return what a table says of each film: path -> column (lower case) -> text; of several rows the first."""
    columns = _columns(table)
    path_column = next((name for name in _PATH_COLUMNS if name in columns), "path")
    details: dict[Path, dict[str, str]] = {}
    for row in _rows(table, {path_column}):
        details.setdefault(table.parent / row[path_column].replace("\\", "/"), row)
    return details


def read_regions(table: Path) -> Iterator[tuple[Path, WristRegion]]:
    """Yield (path of the film, its wrist) for the rows of a table with the columns x, y, side and angle."""
    if not {"x", "y", "side", "angle"} <= _columns(table):
        return
    for path, row in read_details(table).items():
        try:
            x, y, side, angle = (float(row[name]) for name in ("x", "y", "side", "angle"))
        except ValueError:
            continue  # the wrist of this film is not known
        if np.isfinite((x, y, side, angle)).all() and side > 0:
            yield path, WristRegion(x, y, side, angle)
