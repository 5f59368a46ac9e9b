"""Scores as tables: checked, read and written."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np

from core.errors import ScoresError
from core.values import Scores

SCORES_COLUMNS = ("study_id", "patient_id", "label", "probability")
SPLIT_COLUMN = "split"
FILM_COLUMN = "film_id"
FILM_SEPARATOR = " / "
"""Between a study's name and its film's, where each film stands for itself."""


def digest_of(scores: Scores) -> str:
    """Return the SHA-256 of what is scored and how: 64 hexadecimal digits that say nothing of the patients."""
    told = repr((scores.split, scores.study_ids, scores.patient_ids)).encode("utf-8", "surrogatepass")
    return hashlib.sha256(told + scores.labels.tobytes() + scores.probabilities.tobytes()).hexdigest()


def check_scores(scores: Scores) -> None:
    """Raise ScoresError unless the scores can be measured.

    Raises
    ------
    ScoresError
        No study; lengths that differ; a label other than 0 or 1; a probability that is NaN or outside [0, 1]; a study
        that appears twice; a study without a patient.
    """
    n = len(scores.study_ids)
    lengths = {n, len(scores.patient_ids), *scores.labels.shape, *scores.probabilities.shape}
    lengths |= {len(values) for values in scores.columns.values()}
    if scores.labels.ndim != 1 or scores.probabilities.ndim != 1 or len(lengths) != 1:
        raise ScoresError("Every study needs one patient, one label and one probability, but their numbers differ.")
    if n == 0:
        raise ScoresError("At least one scored study is needed, but there is none.")
    wrong = int(np.count_nonzero(~np.isin(scores.labels, (0, 1))))
    if wrong:
        raise ScoresError(f"Labels must be 0 or 1, but {wrong} of {n} are not.")
    wrong = n - int(np.count_nonzero((scores.probabilities >= 0) & (scores.probabilities <= 1)))
    if wrong:
        raise ScoresError(f"Probabilities must be numbers from 0 to 1, but {wrong} of {n} are not.")
    repeated = n - len(set(scores.study_ids))
    if repeated:
        raise ScoresError(f"Each study must be scored once, but {repeated} of {n} rows repeat a study.")
    nameless = sum(not patient for patient in scores.patient_ids)
    if nameless:
        raise ScoresError(f"Every study needs a patient id, but {nameless} of {n} have none.")


def read_scores(path: Path | str | BinaryIO, checkpoint_id: str = "", split: str = "") -> Scores:
    """Read a table of scores: columns study_id, patient_id, label (0 or 1) and probability.

    The columns are parted by commas, semicolons or tabs, and numbers may have a decimal comma. A table with a further
    column film_id has a row for each film: a study's probability is the mean of its films', as they stand.

    Parameters
    ----------
    path : pathlib.Path, str or binary file
    checkpoint_id : str
        Of the checkpoint that gave them, where it is known.
    split : str
        Where the table has a column ``split``, only the rows of this split are taken; without a name it may hold only
        one split, since studies a threshold was chosen on must not be mixed with those it is tested on.

    Returns
    -------
    Scores
        Further columns (view, sex, ...) are kept as text in ``columns``; what differs between the films of a study is
        joined with "and".

    Raises
    ------
    ScoresError
        No such table, not a table, a column missing or named twice, a label or probability that is not a number, no row
        of the split or several splits and none named; a film that appears twice, or films of one study with two labels
        or patients; and as `check_scores`.
    """
    columns, rows = _read_rows(path)
    return _scores_of(columns, rows, checkpoint_id, split)


def read_every_split(path: Path | str | BinaryIO, checkpoint_id: str = "") -> dict[str, dict[str, Scores]]:
    """Return the scores of each split of a table, by its name, as `read_scores`; the table is read once.

    Returns
    -------
    dict
        ``study`` -> split -> scores; and where the table has several films of a study, ``film`` likewise, each film for
        itself and named "study / film". A table without a column ``split`` has one split, named "".

    Raises
    ------
    ScoresError
        As `read_scores`, and where a patient is in two splits.
    """
    columns, rows = _read_rows(path)
    splits = _splits_of(columns, rows) or ("",)
    found = {"study": {split: _scores_of(columns, rows, checkpoint_id, split) for split in splits}}
    places = Counter(patient for scores in found["study"].values() for patient in set(scores.patient_ids))
    shared = sum(count > 1 for count in places.values())
    if shared:
        raise ScoresError(
            "Patients must be in one split of a table only, since what is chosen on one is measured on another, but "
            f"{shared:,} are in several."
        )
    if FILM_COLUMN in columns:
        films = {split: _scores_of(columns, rows, checkpoint_id, split, "film") for split in splits}
        if any(len(films[split].study_ids) > len(found["study"][split].study_ids) for split in splits):
            found["film"] = films
    return found


def _scores_of(
    columns: list[str], rows: list[list[str]], checkpoint_id: str, split: str, unit: str = "study"
) -> Scores:
    if SPLIT_COLUMN in columns:
        place = columns.index(SPLIT_COLUMN)
        splits = sorted({row[place] for row in rows})
        if split and rows and split not in splits:
            raise ScoresError("The table has no studies of the split that was asked for.")
        if not split and len(splits) > 1:
            raise ScoresError(f"The table holds {len(splits)} splits, so one of them must be named, but none is.")
        rows = [row for row in rows if row[place] == split] if split else rows
        split = split or (splits[0] if splits else "")
    values = dict(zip(columns, map(tuple, zip(*rows, strict=True)) if rows else [()] * len(columns), strict=True))
    labels = _numbers(values["label"], "label")
    if not np.isin(labels, (0.0, 1.0)).all():  # before the cast to int8 can hide a 0.5
        raise ScoresError("Labels must be 0 or 1, but the table holds others.")
    others = [name for name in columns if name and name not in (*SCORES_COLUMNS, SPLIT_COLUMN, FILM_COLUMN)]
    scores = Scores(
        checkpoint_id=checkpoint_id,
        split=split,
        study_ids=values["study_id"],
        patient_ids=values["patient_id"],
        labels=labels,
        probabilities=_numbers(values["probability"], "probability"),
        columns={name: values[name] for name in others},
    )
    if FILM_COLUMN in columns and unit == "film":
        names = tuple(map(FILM_SEPARATOR.join, zip(scores.study_ids, values[FILM_COLUMN], strict=True)))
        scores = replace(scores, study_ids=names, unit=unit)
    elif FILM_COLUMN in columns:
        scores = _mean_of_films(scores, values[FILM_COLUMN])
    check_scores(scores)
    return scores


def _mean_of_films(films: Scores, film_ids: Sequence[str]) -> Scores:
    """Return the studies of films that each have a row: the mean of their probabilities, and what else they share."""
    n = len(film_ids)
    repeated = n - len(set(zip(films.study_ids, film_ids, strict=True)))
    if repeated:
        raise ScoresError(f"Each film must be scored once, but {repeated} of {n} rows repeat a film.")
    # Each row is checked for itself: a mean would hide what is wrong with one.
    check_scores(replace(films, study_ids=tuple(map(str, range(n)))))
    rows: dict[str, list[int]] = {}
    for row, study in enumerate(films.study_ids):
        rows.setdefault(study, []).append(row)
    for what, values in (("label", films.labels.tolist()), ("patient", films.patient_ids)):
        apart = sum(len({values[row] for row in each}) > 1 for each in rows.values())
        if apart:
            raise ScoresError(f"All films of a study need one {what}, but {apart} of {len(rows)} studies have several.")
    firsts = [each[0] for each in rows.values()]
    return Scores(
        checkpoint_id=films.checkpoint_id,
        split=films.split,
        study_ids=tuple(rows),
        patient_ids=tuple(films.patient_ids[row] for row in firsts),
        labels=films.labels[firsts],
        probabilities=np.array([films.probabilities[each].mean() for each in rows.values()]),
        columns={
            name: tuple(" and ".join(sorted({values[row] for row in each} - {""})) for each in rows.values())
            for name, values in films.columns.items()
        },
    )


def write_scores(scores: Scores, path: Path | str) -> None:
    """Write `scores` as the table that `read_scores` reads; every probability comes back bit for bit.

    Raises
    ------
    ScoresError
        It cannot be written.
    """
    columns = (scores.study_ids, scores.patient_ids, scores.labels.tolist(), map(repr, scores.probabilities.tolist()))
    try:
        with open(path, "w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow((*SCORES_COLUMNS, *scores.columns))
            table.writerows(zip(*columns, *scores.columns.values(), strict=True))
    except OSError as error:
        raise ScoresError("A place where the table of scores can be written was expected, but it cannot be.") from error


def read_splits(path: Path | str | BinaryIO) -> tuple[str, ...]:
    """Return the names of the splits that a table of scores holds; empty where it has no such column.

    Raises
    ------
    ScoresError
        As `read_scores`, as far as the columns go.
    """
    return _splits_of(*_read_rows(path))


def _splits_of(columns: list[str], rows: list[list[str]]) -> tuple[str, ...]:
    if SPLIT_COLUMN not in columns:
        return ()
    place = columns.index(SPLIT_COLUMN)
    return tuple(dict.fromkeys(row[place] for row in rows))


def _read_rows(path: Path | str | BinaryIO) -> tuple[list[str], list[list[str]]]:
    """Return the names of the columns and the rows' texts, an absent one being empty."""
    try:
        with _open_text(path) as file:
            header = file.readline()
            file.seek(0)
            table = csv.reader(file, delimiter=delimiter_of(header, SCORES_COLUMNS, len(SCORES_COLUMNS)))
            columns = [name.strip() for name in next(table, ())]
            missing = [name for name in SCORES_COLUMNS if name not in columns]
            if missing:
                raise ScoresError(
                    f"A table of scores needs the columns {', '.join(SCORES_COLUMNS)}, but it has no {missing[0]}."
                )
            named = [name for name in columns if name]
            if len(set(named)) < len(named):
                raise ScoresError("Each column of a table of scores needs a name of its own, but two share one.")
            width = len(columns)
            # A spreadsheet saves rows that are empty as a row of commas.
            full = (row for row in table if any(text.strip() for text in row))
            rows = [[text.strip() for text in row] + [""] * (width - len(row)) for row in full]
            longer = sum(any(row[width:]) for row in rows)
            if longer:
                raise ScoresError(
                    f"Rows with a cell for each of {width} columns were expected, but {longer:,} have more. Where the "
                    "comma is the decimal mark, semicolons must part the columns."
                )
            rows = [row[:width] for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ScoresError("A table of scores was expected, but there is no file that can be read as one.") from error
    return columns, rows


def delimiter_of(header: str, known: Collection[str], least: int = 1) -> str:
    """Return what parts a table's columns: spreadsheets write semicolons where the comma is the decimal mark.

    Parameters
    ----------
    header : str
        The table's first line.
    known : collection of str
        Names of columns, in lower case, that such a table may have.
    least : int
        How many of them it has at least.

    Returns
    -------
    str
        Comma, semicolon or tab: the one by which most of the columns have a name that is known; the comma where fewer
        than `least` have.
    """
    counts = {
        delimiter: len({name.strip(' "\r\n').lower() for name in header.split(delimiter)} & set(known))
        for delimiter in ",;\t"
    }
    best = max(counts, key=counts.__getitem__)
    return best if counts[best] >= least else ","


def _open_text(path: Path | str | BinaryIO) -> TextIO:
    if isinstance(path, Path | str):
        return open(path, encoding="utf-8-sig", newline="")
    path.seek(0)
    return io.StringIO(path.read().decode("utf-8-sig"), newline="")


def _numbers(texts: Iterable[str], column: str) -> np.ndarray:
    try:
        return np.array([float(text.replace(",", ".")) for text in texts], dtype=np.float64)
    except ValueError as error:
        raise ScoresError(f"Every {column} must be a number, but at least one is not.") from error
