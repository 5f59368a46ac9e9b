"""What lies in a dataset's folder: films, files beside them, and what cannot be a film. No film is opened here."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from core.errors import DatasetError

UNSPLIT = "all"
FILM_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom"})
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation", "validate", "dev"), "valid"),
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
# Folders beside the films.
_NOT_FILMS = frozenset({"masks", "labels", "annotations", "utilities", "__macosx"})
_SIDE_FILES = frozenset({".txt", ".csv", ".json", ".xml", ".md", ".db", ".ini", ".yaml", ".yml", ".npy"})
DEPTH = 6  # folders below the root that are looked into; also ends a circle of links

BODY_PARTS = ("elbow", "finger", "forearm", "hand", "humerus", "shoulder", "wrist", "leg", "hip")


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
    patient_unknown: bool = False


@dataclass
class Listing:
    """What a reader is given, and where it says what cannot be used.

    Attributes
    ----------
    root : pathlib.Path
        The folder, or the table.
    body_part : str or None
        Only films of it, as `body_part_of` writes it; None: all.
    problems : list of Problem
    notes : list of str
    homes : list of pathlib.Path
        The MURA folders that the films lie in: in the folder given, or around it.
    """

    root: Path
    body_part: str | None = None
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    homes: list[Path] = field(default_factory=list)


def folders_below(
    root: Path, is_study: Callable[[str], bool], problems: list[Problem] | None = None
) -> Iterator[tuple[str, str]]:
    """Yield (path, name) of the folders below `root`, in natural order, without looking into those of studies."""
    waiting = [(str(root), 0)]
    while waiting:
        folder, depth = waiting.pop()
        found = []
        for entry in list_entries(folder):
            if entry.is_dir():
                found += [] if is_aside(entry.name) else [(entry.path, entry.name)]
            elif problems is not None and is_named_film(entry.name):
                problems.append(Problem(Path(entry.path), "a film lies outside the folders of the layout"))
        found.sort(key=lambda item: natural_order(item[1]))
        yield from found
        if depth < DEPTH:
            waiting += [(path, depth + 1) for path, name in reversed(found) if not is_study(name)]


def films_below(folder: Path) -> Iterator[os.DirEntry]:
    """Yield every file below `folder` that may be a film, or that stands where films stand."""
    waiting = [(str(folder), 1)]
    while waiting:
        place, level = waiting.pop()
        for entry in list_entries(place):
            if entry.is_dir():
                if level < DEPTH and not is_aside(entry.name):
                    waiting.append((entry.path, level + 1))
            elif not is_hidden(entry.name) and suffix_of(entry.name) not in _SIDE_FILES:
                yield entry


def usable_films(folder: Path, problems: list[Problem]) -> Iterator[os.DirEntry]:
    """Yield every file below `folder` that may be a film; add the others to `problems`."""
    for entry in films_below(folder):
        reason = unusable(entry)
        if reason:
            problems.append(Problem(Path(entry.path), reason))
        else:
            yield entry


def unusable(file: Path | os.DirEntry) -> str | None:
    """Say why a file cannot be a film, as far as can be told without decoding it; None where it may be one."""
    try:
        if not file.is_file():
            return "a film is missing"
        if file.stat().st_size == 0:
            return "a file is empty"
        ending = suffix_of(file.name)
        if ending in FILM_SUFFIXES:
            return None
        # DICOM files often have no suffix, or the last number of an identifier for one.
        if (not ending or ending[1:].isdigit()) and file.name.upper() != "DICOMDIR":
            with open(file, "rb") as stream:
                if stream.read(132)[128:] == b"DICM":
                    return None
    except OSError:
        return "a file cannot be opened"
    return "a file is no PNG, JPEG, TIFF or DICOM"


def files_by_stem(root: Path, problems: list[Problem]) -> dict[str, Path]:
    """Return the films below `root` by their stem; of several with one stem, the first in natural order.

    The others are problems: the table names films by their stem alone.
    """
    files: dict[str, Path] = {}
    found = sorted(usable_films(root, problems), key=lambda entry: natural_order(entry.path))
    for entry in found:
        path = Path(entry.path)
        if files.setdefault(path.stem, path) != path:
            problems.append(Problem(path, "another film has the same name and is taken instead"))
    return files


def fold_problems(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return the first problem of each reason, which then says how many more files have it."""
    by_reason: dict[str, list[Path]] = {}
    for problem in problems:
        by_reason.setdefault(problem.reason, []).append(problem.path)
    return tuple(
        Problem(
            paths[0], f"{reason.removesuffix('.')} (and so in {len(paths) - 1} more files)." if paths[1:] else reason
        )
        for reason, paths in by_reason.items()
    )


def list_entries(folder: str) -> list[os.DirEntry]:
    """Return what lies in a folder; raise DatasetError where it may not be opened."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DatasetError("A folder of the dataset cannot be opened: its permissions do not allow it.") from error


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder that may hold films, in natural order."""
    found = [Path(entry.path) for entry in list_entries(str(folder)) if entry.is_dir() and not is_aside(entry.name)]
    return sorted(found, key=lambda path: natural_order(path.name))


def is_hidden(name: str) -> bool:
    """Tell whether a name is one that systems hide, such as ``.DS_Store`` and ``._image1.png``."""
    return name.startswith(".")


def is_aside(name: str) -> bool:
    """Tell whether a folder holds what belongs to films, and no films."""
    return is_hidden(name) or name.lower() in _NOT_FILMS


def is_named_film(name: str) -> bool:
    """Tell whether a file's name is one of a film."""
    return not is_hidden(name) and suffix_of(name) in FILM_SUFFIXES


def suffix_of(name: str) -> str:
    """Return a name's suffix in lower case, with its dot."""
    return os.path.splitext(name)[1].lower()


def natural_order(text: str) -> list[tuple[int, int, str]]:
    """Sort key under which image2 comes before image10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]


def class_of(name: str) -> int | None:
    """Return the label that a class name or a cell stands for, or None."""
    text = name.strip().lower()
    if text in ("1.0", "0.0", "1,0", "0,0"):
        return int(text[0])
    return _CLASSES.get(re.sub(r"[^a-z0-9]", "", text))


def body_part_of(text: str) -> str:
    """Return a part of the body as one word: ``XR_WRIST`` and ``Wrist`` are both ``wrist``."""
    return re.sub(r"^xr[_ -]?", "", text.strip().lower())
