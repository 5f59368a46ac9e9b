"""MURA-v1.1 (Rajpurkar et al. 2017, https://arxiv.org/abs/1712.06957) and what is laid out like it.

``{train,valid}/XR_*/patientNNNNN/studyN_{positive,negative}/image1.png``, seven parts of the body; positive means
abnormal. Beside ``train`` and ``valid`` lie lists without a heading: ``train_image_paths.csv`` (one film a row) and
``train_labeled_studies.csv`` (study folder, label), the same for ``valid``. Paths in them begin with ``MURA-v1.1/``.

Better-MURA is the same folder with other lists of studies: some 550 studies with hardware that MURA calls negative are
positive in them. Where its lists lie in a folder whose names are still MURA's, the lists are followed.

The simulated films are laid out the same way, with ``masks/`` and ``metadata.csv`` beside them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from core.datasets.files import (
    SPLITS,
    UNSPLIT,
    ListedFilm,
    Listing,
    Problem,
    body_part_of,
    class_of,
    folders_below,
    usable_films,
)
from core.datasets.tables import read_list
from core.errors import DatasetError

_STUDY = re.compile(r"(study\d+)_(positive|negative)", re.IGNORECASE)
_LISTS = ("train", "valid", "test")
_LEVELS = 4  # split, part of the body, patient, study
_StudyFolder = tuple[Path, str, tuple[str, ...]]  # the folder, its name, the parts of its path from the disk's root


def find_mura_studies(root: Path, problems: list[Problem] | None = None) -> Iterator[tuple[Path, str]]:
    """Yield (folder, its name) of each study folder, in natural order; films outside them are problems."""
    name = root.resolve().name
    if _STUDY.fullmatch(name):
        yield root, name
        return
    for path, name in folders_below(root, lambda name: _STUDY.fullmatch(name) is not None, problems):
        if _STUDY.fullmatch(name):
            yield Path(path), name


def find_mura_home(root: Path) -> Path | None:
    """Return the folder that holds the splits of the first study in a folder: that folder, one in it or one around it.

    None where there is no study, or the first is in no split.
    """
    base = root.resolve().parts
    first = next(find_mura_studies(root), None)
    return _home_of(base + first[0].relative_to(root).parts, root, base) if first else None


def _home_of(study: tuple[str, ...], root: Path, base: tuple[str, ...]) -> Path | None:
    """Return the folder that holds a study's split, as a path from `root` (whose own parts are `base`) where it can."""
    home = study[:-_LEVELS]
    if not home or study[-_LEVELS].lower() not in SPLITS:
        return None
    return root.joinpath(*home[len(base) :]) if home[: len(base)] == base else Path(*home)


def read_mura(listing: Listing) -> list[ListedFilm]:
    """Return the films of a MURA folder, or of a folder in or above one."""
    root, problems = listing.root, listing.problems
    base = root.resolve().parts
    above = base[-_LEVELS:]  # the folder given may itself lie below train or valid
    studies = [
        (folder, name, base + folder.relative_to(root).parts)
        for folder, name in find_mura_studies(root, problems if not listing.body_part else None)
    ]
    if listing.body_part:
        studies = _choose(studies, listing)
    homes = {parts[:-_LEVELS] for _, _, parts in studies}
    listing.homes += sorted({home for _, _, parts in studies if (home := _home_of(parts, root, base)) is not None})
    relabelled = {key: label for home in homes for key, label in _listed_labels(Path(*home)).items()}
    films, changed, there = [], 0, set()
    for folder, name, full in studies:
        match = _STUDY.fullmatch(name)
        parents = full[len(base) : -1] or above[-2 if folder == root else -1 :][:1]
        split = next((SPLITS[part.lower()] for part in (*parents, *above[::-1]) if part.lower() in SPLITS), UNSPLIT)
        known, key = len(problems), _study_key(full[-_LEVELS:])
        found = [Path(entry.path) for entry in usable_films(folder, problems)]
        there |= {(*key, path.name.lower()) for path in (*found, *(problem.path for problem in problems[known:]))}
        if not found:
            problems.append(Problem(folder, "the study has no film that can be used"))
        # The label stays out of the id, so that an id shown beside a film does not give the answer away.
        study, label = (*parents, match[1].lower()), int(match[2].lower() == "positive")
        listed = relabelled.get(key, label)
        changed += listed != label
        films += [ListedFilm(path, study, parents[-1], listed, split) for path in found]
    if changed:
        listing.notes.append(f"Studies whose label follows the folder's list and not their own name: {changed}.")
    present = {part.lower() for _, _, parts in studies for part in parts[-_LEVELS : 2 - _LEVELS]}
    for home in sorted(homes):
        _find_missing(Path(*home), present, there, listing)
    both = {film.study for film in films if film.label} & {film.study for film in films if not film.label}
    return [film._replace(study=(*film.study, "ab"[film.label])) if film.study in both else film for film in films]


def _choose(studies: list[_StudyFolder], listing: Listing) -> list[_StudyFolder]:
    """Return the studies of the part of the body that was asked for."""
    chosen = [
        study
        for study in studies
        if any(part[:2].lower() == "xr" and body_part_of(part) == listing.body_part for part in study[2][-_LEVELS:])
    ]
    if not chosen:
        raise DatasetError("The dataset holds no study of the part of the body that was asked for.")
    if len(chosen) < len(studies):
        listing.notes.append(
            f"Studies of other parts of the body than {listing.body_part}, left out: {len(studies) - len(chosen)}."
        )
    return chosen


def _study_key(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Return a study's place without its label."""
    return (*(part.lower() for part in parts[:-1]), parts[-1].lower().split("_")[0])


def _listed_labels(home: Path) -> dict[tuple[str, ...], int]:
    """Return the labels that the lists of studies give; studies listed under both labels are left to their names."""
    labels: dict[tuple[str, ...], int] = {}
    torn = set()
    for name in _LISTS:
        for row in read_list(home / f"{name}_labeled_studies.csv"):
            label = class_of(row[1]) if len(row) > 1 else None
            key = _study_key(tuple(row[0].replace("\\", "/").strip("/ ").split("/")[-_LEVELS:]))
            if label is not None and labels.setdefault(key, label) != label:
                torn.add(key)
    return {key: label for key, label in labels.items() if key not in torn}


def _find_missing(home: Path, present: set[str], there: set[tuple[str, ...]], listing: Listing) -> None:
    """Add films that the folder's lists name and that are not there; parts of the body that are all absent in one note.

    Folders are compared without their label, which Better-MURA changes.
    """
    given = _part_given(listing.root, home)
    elsewhere = 0
    for name in _LISTS:
        for row in read_list(home / f"{name}_image_paths.csv"):
            parts = tuple(row[0].replace("\\", "/").strip("/ ").split("/")[-_LEVELS - 1 :])
            if len(parts) <= _LEVELS or tuple(part.lower() for part in parts[: len(given)]) != given:
                continue
            if parts[1].lower() not in present or parts[0].lower() not in present:
                elsewhere += not listing.body_part
            elif (*_study_key(parts[:-1]), parts[-1].lower()) not in there:
                listing.problems.append(Problem(home.joinpath(*parts), "a film is missing"))
    if elsewhere:
        listing.notes.append(f"Films that the lists name, of splits or parts of the body that are absent: {elsewhere}.")


def _part_given(root: Path, home: Path) -> tuple[str, ...]:
    """Return the start of the paths that count where a folder inside MURA was given."""
    try:
        return tuple(part.lower() for part in root.resolve().relative_to(home).parts)
    except ValueError:
        return ()  # the folder given lies above
