"""Tables of films: which columns say what, and what they say of each film."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TextIO

import numpy as np

from core.datasets.files import is_hidden, list_entries, suffix_of
from core.errors import DatasetError
from core.metrics.tables import delimiter_of
from core.values import SIMULATION_NAME, UNFINISHED_NAME, WristRegion

PATH_COLUMNS = (
    "path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "image_file", "image_name",
    "img", "img_path", "imagepath", "filestem", "image_id",
)  # fmt: skip
LABEL_COLUMNS = (
    "label", "fracture", "fractured", "fracture_visible", "target", "abnormal", "abnormality", "class", "positive",
)  # fmt: skip
PATIENT_COLUMNS = ("patient_id", "patientid", "patient", "group", "subject", "subject_id", "subjectid")
STUDY_COLUMNS = ("study_id", "studyid", "study", "study_number", "exam_id", "exam", "examination")
PATIENT_KNOWN = "patient_known"
"""Heading under which 0 says that a film's patient is a stand-in: it is not known which films are of one patient."""
REGION_COLUMNS = ("x", "y", "side", "angle", "fingers")
BODY_PART_COLUMNS = ("body_part", "bodypart", "region", "anatomy", "study_type")
NOT_GROUPS = frozenset(
    {*PATH_COLUMNS, *LABEL_COLUMNS, *PATIENT_COLUMNS, *STUDY_COLUMNS, *REGION_COLUMNS}
    | {PATIENT_KNOWN, "split", "md5", "seed"}
)
"""Columns that name a film, a study or a patient, or say where the wrist is: they divide nothing into groups."""
# Headings of the table that only a set of this origin has, as ``core.phantoms`` writes it.
_ORIGINS = {"simulated": {"kind", "seed", "framing"}, "injected": {"kind", "source", "seed"}}
_KNOWN = NOT_GROUPS.union(BODY_PART_COLUMNS, *_ORIGINS.values())
_NO_TABLE = "The dataset's table cannot be read as comma-separated UTF-8 text (semicolons and tabs do as well)."
_TABLES = ("dataset.csv", "metadata.csv", "labels.csv")
_DEGREES = {"up": 0.0, "right": 90.0, "down": 180.0, "left": -90.0}


def find_column(columns: set[str], names: tuple[str, ...]) -> str | None:
    """Return the first of `names` that a table has, or None."""
    return next((name for name in names if name in columns), None)


def lists_films(columns: set[str]) -> bool:
    """Tell whether a table with these columns lists films with labels. A table of boxes has no row for each film."""
    return bool(
        find_column(columns, PATH_COLUMNS) and find_column(columns, LABEL_COLUMNS) and not {"xmin", "ymin"} <= columns
    )


def find_tables(root: Path) -> list[Path]:
    """Return the table that lists the films of `root`, or several where it cannot be told which."""
    usable = [
        Path(entry.path)
        for entry in list_entries(str(root))
        if suffix_of(entry.name) == ".csv" and not is_hidden(entry.name) and entry.is_file()
    ]
    usable = [path for path in usable if lists_films(read_columns(path))]
    for name in _TABLES:
        if root / name in usable:
            return [root / name]
    return usable


def own_table(root: Path) -> Path | None:
    """Return the table in a folder that says more of its films: the one that lists them, or ``metadata.csv``.

    `root` may also be the table itself.
    """
    if root.is_file():
        return root
    tables = find_tables(root)
    if len(tables) == 1:
        return tables[0]
    table = root / "metadata.csv"
    return table if read_columns(table) & set(PATH_COLUMNS) else None


def find_origin(table: Path | None) -> str:
    """Tell by the table that says more of a dataset's films where they come from.

    Parameters
    ----------
    table : pathlib.Path or None
        As from `own_table`; None: there is none.

    Returns
    -------
    str
        ``"simulated"``: drawn by ``core.phantoms``; ``"injected"``: real films into which it put breaks; ``"real"``
        else.
    """
    columns = read_columns(table) if table else set()
    return next((origin for origin, own in _ORIGINS.items() if own <= columns), "real")


def refuse_unfinished(folder: Path) -> None:
    """Refuse a folder whose films ``core.phantoms`` has not finished: its table, which tells their origin, comes last.

    Raises
    ------
    DatasetError
        It has not.
    """
    at_work = os.path.exists(folder / UNFINISHED_NAME)
    if at_work or (os.path.isfile(folder / SIMULATION_NAME) and not os.path.isfile(folder / "metadata.csv")):
        raise DatasetError(
            "A finished set of simulated films was expected, but this one is not finished; "
            "run the same command again to complete it."
        )


def read_columns(table: Path) -> set[str]:
    """Return the names of a table's columns, in lower case; none where it is no table."""
    try:
        with _open_text(table) as file:
            return {name.strip().lower() for name in next(_rows_of(file), [])}
    except (OSError, UnicodeDecodeError, csv.Error):
        return set()


def read_rows(table: Path, needed: set[str]) -> list[dict[str, str]]:
    """Return a table's rows: column (lower case) -> text; of two columns of one name, the first counts.

    Columns are parted by commas, semicolons or tabs.

    Raises
    ------
    DatasetError
        No table of UTF-8 text, or one without a column that is needed.
    """
    columns = read_columns(table)
    if table.is_file() and not columns:
        raise DatasetError(_NO_TABLE)
    missing = sorted(needed - columns)
    if missing:
        raise DatasetError(
            f"The dataset's table needs the columns {', '.join(sorted(needed))}; it has no {missing[0]}."
        )
    try:
        with _open_text(table) as file:
            rows = _rows_of(file)
            names = [name.strip().lower() for name in next(rows)][::-1]
            found = []
            for row in rows:
                if any(row):
                    cells = [*(cell.strip() for cell in row[: len(names)]), *[""] * (len(names) - len(row))]
                    found.append(dict(zip(names, reversed(cells), strict=True)))
            return found
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(_NO_TABLE) from error


def _open_text(table: Path) -> TextIO:
    return open(table, encoding="utf-8-sig", newline="")


def _rows_of(file: TextIO) -> Iterator[list[str]]:
    """Return a reader of a table's rows, its header being the first."""
    return csv.reader(file, delimiter=_delimiter_in(file))


def _delimiter_in(file: TextIO) -> str:
    header = file.readline()
    file.seek(0)
    return delimiter_of(header, _KNOWN)


def read_list(table: Path) -> list[list[str]]:
    """Return the rows of a table without a heading; none where there is no such table."""
    try:
        with _open_text(table) as file:
            return [row for row in csv.reader(file) if any(row)]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError("A list of the dataset cannot be read as comma-separated UTF-8 text.") from error


def read_details(
    table: Path, stems: Mapping[str, Path] | None = None, root: Path | None = None
) -> dict[Path, dict[str, str]]:
    """Return what a table says of each film: path -> column (lower case) -> text; of several rows the first.

    Parameters
    ----------
    table : pathlib.Path
    stems : Mapping of str to pathlib.Path, optional
        Where films lie by their name without suffix, for tables that name them so; rows of other films are left out.
    root : pathlib.Path, optional
        The folder whose films are wanted. Where it lies below the table's, paths begin with it, and rows of films
        elsewhere are left out.
    """
    column = find_column(read_columns(table), PATH_COLUMNS) or "path"
    place = _place_below(root, table.parent) if root else None
    details: dict[Path, dict[str, str]] = {}
    for row in read_rows(table, {column}):
        name = row[column].replace("\\", "/")
        path = table.parent / name
        if place:
            inside = PurePosixPath(name).is_relative_to(place)
            path = root / PurePosixPath(name).relative_to(place) if inside else None
        if stems is not None:
            path = stems.get(row[column], stems.get(path.stem))
        if path is not None:
            details.setdefault(path, row)
    return details


def _place_below(root: Path, folder: Path) -> PurePosixPath | None:
    """Return where in a folder `root` lies; None where it is the folder itself or lies elsewhere."""
    root, folder = root.resolve(), folder.resolve()
    return PurePosixPath(*root.relative_to(folder).parts) if folder in root.parents else None


def read_regions(table: Path, root: Path | None = None) -> Iterator[tuple[Path, WristRegion]]:
    """Yield (path of the film, its wrist) for the rows of a table with the columns x, y, side, and angle or fingers.

    `angle` is in degrees clockwise from the top of the film, `fingers` one of up, right, down and left; `root` as of
    `read_details`. Where commas do not part the columns, they may be the decimal mark.
    """
    columns = read_columns(table)
    if not {"x", "y", "side"} <= columns or not columns & {"angle", "fingers"}:
        return
    with _open_text(table) as file:
        # In a table parted by commas, one inside a number may as well part its thousands.
        mark = "." if _delimiter_in(file) == "," else ","
    for path, row in read_details(table, root=root).items():
        try:
            x, y, side = (float(row[name].replace(mark, ".")) for name in ("x", "y", "side"))
            angle = float(row["angle"].replace(mark, ".")) if "angle" in columns else _DEGREES[row["fingers"].lower()]
        except (ValueError, KeyError):
            continue  # the wrist of this film is not known
        if np.isfinite((x, y, side, angle)).all() and side > 0:
            yield path, WristRegion(x, y, side, angle)
