"""The layouts in which datasets of films come, each read into labelled films.

- ``mura``: MURA-v1.1 and what is laid out like it (see ``core.datasets.mura``);
- ``folders``: one folder for each class (Fracture and Normal, 1 and 0, ...), within a folder for each split or not;
- ``graz``: GRAZPEDWRI-DX (Nagy et al., Sci Data 9:222, 2022), ``dataset.csv`` and its images;
- ``fracatlas``: FracAtlas (Abedeen et al., Sci Data 10:521, 2023), ``dataset.csv`` and its images;
- ``csv``: any table that names films and their labels, and patients, studies and splits where it has them
  (``core.datasets.tables`` says under which headings), parted by commas, semicolons or tabs.

A reader fills the problems (files that cannot be used) and the notes (what the layout does not tell) of a `Listing`.
No film is opened here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from core.datasets.files import (
    BODY_PARTS,
    SPLITS,
    UNSPLIT,
    ListedFilm,
    Listing,
    Problem,
    body_part_of,
    class_of,
    files_by_stem,
    films_below,
    is_named_film,
    list_entries,
    subfolders,
    unusable,
    usable_films,
)
from core.datasets.mura import find_mura_studies, read_mura
from core.datasets.tables import (
    BODY_PART_COLUMNS,
    LABEL_COLUMNS,
    PATH_COLUMNS,
    PATIENT_COLUMNS,
    STUDY_COLUMNS,
    find_column,
    find_tables,
    read_columns,
    read_rows,
)
from core.errors import DatasetError

FORMATS = ("mura", "folders", "graz", "fracatlas", "csv")
NO_PATIENTS = (
    "This dataset does not say which films are of one patient: each film counts as one patient, so a patient may stand "
    "on both sides of a split and results may flatter."
)


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
    columns = read_columns(root / "dataset.csv")
    if {"filestem", "fracture_visible", "patient_id"} <= columns:
        return "graz"
    if {"image_id", "fractured"} <= columns:
        return "fracatlas"
    if next(find_mura_studies(root), None):
        return "mura"
    if find_tables(root):
        return "csv"
    if {label for _, label, _ in _class_folders(root)[0]} == {0, 1}:
        return "folders"
    raise DatasetError(
        "A MURA folder, one folder for each class (such as Fracture and Normal), or a table with the columns path and "
        "label was expected, but the folder holds none of them."
    )


def _read_folders(listing: Listing) -> list[ListedFilm]:
    root, problems = listing.root, listing.problems
    _refuse_region(listing, "Folders of classes do")
    classes, others = _class_folders(root)
    if not classes or others:
        raise DatasetError(
            "One folder for each class was expected, named such as Fracture and Normal, positive and negative, or "
            f"1 and 0, but {len(others)} of {len(others) + len(classes)} folders of films have other names."
        )
    for place in sorted({root, *(folder.parent for folder, _, _ in classes)}):
        stray = [entry.path for entry in list_entries(str(place)) if entry.is_file() and is_named_film(entry.name)]
        problems += [Problem(Path(path), "a film lies outside the folders of the layout") for path in stray]
    films = []
    flat = 0
    for folder, label, split in classes:
        for entry in usable_films(folder, problems):
            path = Path(entry.path)
            inner, place = path.relative_to(folder).parts, path.relative_to(root)
            # A folder below the class is a study, and the topmost of them is a patient.
            study = place.parent.parts if len(inner) > 1 else place.parts
            flat += len(inner) == 1
            alone = len(inner) == 1
            films.append(ListedFilm(path, study, "/".join(study) if alone else inner[0], label, split, alone))
    if flat:
        listing.notes.append(f"Films in no folder of their own: {flat}; each counts as one study of one patient.")
    return films


def _class_folders(root: Path) -> tuple[list[tuple[Path, int, str]], list[Path]]:
    """Return (folder, label, split) of each class folder, and the folders with films that are no class."""
    classes: list[tuple[Path, int, str]] = []
    others: list[Path] = []
    for folder in subfolders(root):
        if folder.name.lower() in SPLITS:
            split = SPLITS[folder.name.lower()]
            places = [(inner, split) for inner in subfolders(folder)]
        else:
            places = [(folder, UNSPLIT)]
        for place, split in places:
            label = class_of(place.name)
            if label is not None:
                classes.append((place, label, split))
            elif next(films_below(place), None):
                others.append(place)
    return classes, others


def _read_graz(listing: Listing) -> list[ListedFilm]:
    root, problems = listing.root, listing.problems
    rows = read_rows(root / "dataset.csv", {"filestem", "patient_id", "study_number", "fracture_visible"})
    if listing.body_part and listing.body_part != "wrist":
        raise DatasetError("GRAZPEDWRI-DX holds wrists only, but another part of the body was asked for.")
    films = []
    files = files_by_stem(root, problems)
    for row in rows:
        path = files.pop(row["filestem"], None)
        if path is None:
            problems.append(Problem(root / row["filestem"], "a film is missing"))
            continue
        study = (row["patient_id"], row["study_number"])
        label = int(row["fracture_visible"] in ("1", "1.0"))  # blank where none is visible
        films.append(ListedFilm(path, study, row["patient_id"], label, UNSPLIT))
    problems += [Problem(path, "a film is not in the table") for path in files.values()]
    return films


def _read_fracatlas(listing: Listing) -> list[ListedFilm]:
    root, problems = listing.root, listing.problems
    rows = read_rows(root / "dataset.csv", {"image_id", "fractured"})
    keep = _choose_fracatlas_column(listing, rows)
    films, left_out = [], 0
    files = files_by_stem(root, problems)
    for row in rows:
        stem = Path(row["image_id"]).stem
        path, label = files.pop(stem, None), class_of(row["fractured"])
        if keep and class_of(row[keep]) != 1:
            left_out += 1
        elif path is None or label is None:
            reason = "a film is missing" if path is None else "a film has no label"
            problems.append(Problem(root / row["image_id"], reason))
        else:
            films.append(ListedFilm(path, (stem,), stem, label, UNSPLIT, patient_unknown=True))
    problems += [Problem(path, "a film is not in the table") for path in files.values()]
    listing.notes.append(NO_PATIENTS)
    if keep:
        listing.notes.append(f"Films of other parts of the body than {keep}, left out: {left_out}.")
    return films


def _choose_fracatlas_column(listing: Listing, rows: list[dict[str, str]]) -> str | None:
    """Return the column that marks the films of the part of the body asked for; None where all were."""
    part = listing.body_part
    if part in ("wrist", "finger", "forearm"):
        listing.notes.append(f"FracAtlas has no column for the {part}: films marked as hand are the nearest it offers.")
        part = "hand"
    if part and (part not in ("hand", "leg", "hip", "shoulder") or not rows or part not in rows[0]):
        raise DatasetError("FracAtlas tells apart hand, leg, hip and shoulder, but another part was asked for.")
    return part


def _read_csv(listing: Listing) -> list[ListedFilm]:
    table = listing.root
    if table.is_dir():
        tables = find_tables(table)
        if len(tables) != 1:
            raise DatasetError(
                f"One table with the columns path (or file) and label was expected, but the folder holds {len(tables)}."
            )
        table = tables[0]
    columns = read_columns(table)
    path_column, label_column = find_column(columns, PATH_COLUMNS) or "path", find_column(columns, LABEL_COLUMNS)
    patient_column, study_column = find_column(columns, PATIENT_COLUMNS), find_column(columns, STUDY_COLUMNS)
    part_column = find_column(columns, BODY_PART_COLUMNS)
    if not part_column:
        _refuse_region(listing, "This table does")
    films, seen, left_out = [], set(), 0
    for row in read_rows(table, {path_column, label_column or "label"}):
        if listing.body_part and body_part_of(row[part_column]) != listing.body_part:
            left_out += 1
            continue
        name = row[path_column]
        path, label = table.parent / name.replace("\\", "/"), class_of(row[label_column])
        reason = unusable(path) if name else "a row names no film"
        if path in seen:
            reason = "a film is listed more than once"
        elif label is None:
            reason = reason or "a film has no label, or one that is neither positive nor negative"
        if reason:
            listing.problems.append(Problem(path, reason))
            continue
        seen.add(path)
        patient = row[patient_column] if patient_column else ""
        study = row[study_column] if study_column else ""
        split = row.get("split", "").lower()
        key = (patient, study) if patient and study else (study or name,)
        films.append(ListedFilm(path, key, patient or key[0], label, SPLITS.get(split, split) or UNSPLIT, not patient))
    _note_on_table(listing, films, left_out)
    return films


def _note_on_table(listing: Listing, films: list[ListedFilm], left_out: int) -> None:
    unnamed = sum(film.patient_unknown for film in films)
    if films and unnamed == len(films):
        listing.notes.append(
            "The table does not say which films are of one patient: each study counts as one patient, so a patient may "
            "stand on both sides of a split and results may flatter."
        )
    elif unnamed:
        listing.notes.append(
            f"Films without a patient in the table: {unnamed}; each of their studies counts as one patient."
        )
    if left_out:
        listing.notes.append(f"Films of other parts of the body than {listing.body_part}, left out: {left_out}.")


def _refuse_region(listing: Listing, who: str) -> None:
    if listing.body_part:
        known = ", ".join(BODY_PARTS)
        raise DatasetError(f"{who} not say which part of the body ({known}) a film shows, so none can be chosen.")


READERS: dict[str, Callable[[Listing], list[ListedFilm]]] = {
    "mura": read_mura,
    "folders": _read_folders,
    "graz": _read_graz,
    "fracatlas": _read_fracatlas,
    "csv": _read_csv,
}
