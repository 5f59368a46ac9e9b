"""A folder of films to its studies, and all that is known of each film."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from core.datasets.annotations import Annotations, read_mask
from core.datasets.boxes import Box
from core.datasets.files import ListedFilm, Listing, Problem, body_part_of, fold_problems, natural_order
from core.datasets.layouts import FORMATS, READERS, detect_format
from core.datasets.mura import find_mura_home
from core.datasets.tables import (
    PATIENT_KNOWN,
    find_origin,
    own_table,
    read_details,
    read_regions,
    read_rows,
    refuse_unfinished,
)
from core.errors import DatasetError
from core.values import Study, WristRegion

_BY_STEM = ("graz", "fracatlas")
_STAND_INS = (
    "Of the films that breaks were put into it is not known which are of one patient: each counts as one patient, so a "
    "patient may stand on both sides of a split and results may flatter."
)


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
        The CSV file that says more of the films, where there is one: in the folder, or in the MURA folder that the
        films lie in.
    regions : Mapping of pathlib.Path to WristRegion
        Where the wrist is, for films whose table says so; keys are paths of the studies.
    film_labels : Mapping of pathlib.Path to int
        What the dataset says of each film by itself; where it labels studies only, the study's label.
    patients_known : bool
        Whether the dataset says of every film of which patient it is. Where it does not, such a film or study counts as
        a patient of its own, and one person may stand on both sides of a split.
    origin : str
        Where the films come from: ``"simulated"``, ``"injected"`` (breaks put into real films) or ``"real"``.
    """

    root: Path
    format: str
    splits: Mapping[str, tuple[Study, ...]]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    table: Path | None = None
    regions: Mapping[Path, WristRegion] = field(default_factory=dict)
    film_labels: Mapping[Path, int] = field(default_factory=dict)
    patients_known: bool = True
    origin: str = "real"

    @property
    def studies(self) -> tuple[Study, ...]:
        """The studies of all splits."""
        return tuple(study for studies in self.splits.values() for study in studies)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The films of all studies."""
        return tuple(path for study in self.studies for path in study.paths)

    def details(self) -> dict[Path, dict[str, str]]:
        """Read what `table` says of each film (kind of fracture, view, ...): path -> column -> text; may be empty."""
        stems = {path.stem: path for path in self.paths} if self.format in _BY_STEM else None
        return read_details(self.table, stems, self.root) if self.table else {}

    def name_of(self, path: Path) -> str:
        """Return where in the dataset a file lies, with slashes; its name alone where it lies elsewhere."""
        root = self.root if self.root.is_dir() else self.root.parent
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name

    @cached_property
    def _annotations(self) -> Annotations:
        return Annotations(self.root, self.format, self.paths)

    @cached_property
    def has_masks(self) -> bool:
        """Whether the dataset says of any film where its fracture is: by masks, outlines or boxes."""
        return (self.root / "masks").is_dir() or bool(self._annotations)

    @property
    def marking_problems(self) -> tuple[Problem, ...]:
        """Files that may say what is marked on films and cannot be read so; of those that fail alike, the first.

        Their films are not left out: where their fracture is, is not known. Looks for such files where that was not
        done before, but of those that say it of one film only opens a part; all are among them once every film was
        asked for.
        """
        return fold_problems(self.list_marking_problems())

    def list_marking_problems(self) -> list[Problem]:
        """Return each of the files that `marking_problems` sums up."""
        return list(self._annotations.problems)

    def boxes(self, path: Path) -> tuple[Box, ...] | None:
        """Return what is marked on a film, in its pixels; ``()``: known to be nothing; None: not known.

        Raises
        ------
        DatasetError
            The film whose size is needed cannot be read.
        """
        found = self._annotations.find_boxes(path)
        if found is None and self.format == "fracatlas" and self.film_labels.get(path) == 0 and self._annotations:
            return ()  # only fractures are marked there
        return found

    def mask_path(self, path: Path) -> Path | None:
        """Return where the fracture mask of a film lies (the same path below ``masks/``), or None without one."""
        try:
            mask = self.root / "masks" / path.relative_to(self.root)
        except ValueError:
            return None
        return next((file for file in (mask, mask.with_suffix(".png")) if file.is_file()), None)

    def read_mask(self, path: Path, height: int, width: int) -> np.ndarray | None:
        """Return where on a film its fracture is.

        Parameters
        ----------
        path : pathlib.Path
        height, width : int
            Of the film.

        Returns
        -------
        numpy.ndarray or None
            uint8, shape (height, width), 255 in the fracture and 0 elsewhere: from a mask file, else outlines, else
            filled boxes; all 0 where the film is labelled as without one; None where it is not known.

        Raises
        ------
        DatasetError
            A mask cannot be read, or it or an outline is of another size than the film.
        """
        label = self.film_labels.get(path)
        return read_mask(self._annotations, path, (height, width), self.mask_path(path), label)

    def list_marking_files(self) -> list[Path]:
        """Return every file that `boxes` and `read_mask` may read: what is kept of masks is old when one changes."""
        masks = (self.mask_path(path) for path in self.paths) if (self.root / "masks").is_dir() else ()
        return [*(mask for mask in masks if mask is not None), *self._annotations.list_files()]


def index_dataset(
    folder: Path | str,
    format: str | None = None,  # noqa: A002
    region: str | None = None,
) -> DatasetIndex:
    """Find every study of a dataset without opening a film. 40,000 films take a few seconds.

    Parameters
    ----------
    folder : pathlib.Path or str
        The dataset's folder, or a CSV table that lists its films.
    format : str or None
        One of `FORMATS`; None: told from what is in the folder.
    region : str or None
        Part of the body, such as ``"XR_WRIST"`` or ``"wrist"``; only its films are taken. None or ``"all"``: all.

    Returns
    -------
    DatasetIndex

    Raises
    ------
    DatasetError
        No such folder; an unknown format; a layout that is none of those known; class folders whose names do not say
        which is positive; a study with films in several splits; a region that the dataset does not tell apart; a set
        of simulated films that is not finished; films of several origins; nothing usable at all.
    """
    root = Path(folder)
    if format is not None and format not in FORMATS:
        raise DatasetError(f"The format of a dataset must be one of {', '.join(FORMATS)}, but another was given.")
    if not (root.is_dir() or root.is_file()):
        raise DatasetError("A folder of films or a table that lists them was expected, but there is none.")
    base = root if root.is_dir() else root.parent
    refuse_unfinished(base)
    known = format or detect_format(root)
    if root.is_file() and known != "csv":
        raise DatasetError(f"A dataset in the format {known} is a folder, but a file was given.")
    body_part = body_part_of(region or "")
    listing = Listing(root, None if body_part in ("", "all") else body_part)
    films = READERS[known](listing)
    for home in listing.homes:
        refuse_unfinished(home)
    problems, notes = listing.problems, listing.notes
    if not films:
        raise DatasetError(f"Labelled films were expected, but none can be used ({len(problems)} are unusable).")
    splits = _group(films)
    if len(splits) > 1:
        shared = sum(n > 1 for n in Counter(p for s in splits.values() for p in {x.patient_id for x in s}).values())
        if shared:
            notes.append(f"Patients with studies in more than one split: {shared}; results across splits will flatter.")
    labels = {film.path: film.label for film in films}
    own = root / "dataset.csv" if known in _BY_STEM else own_table(root)
    of_homes = [own_table(home) for home in listing.homes]
    table = own or (of_homes[0] if len(of_homes) == 1 else None)
    origin = _origin_of(own, of_homes)
    regions = {path: wrist for path, wrist in read_regions(table, base) if path in labels} if table else {}
    patients_known = not any(film.patient_unknown for film in films)
    if any(_has_stand_ins(each) for each in (own, *of_homes)):
        patients_known = False
        notes.append(_STAND_INS)
    told = (tuple(problems), tuple(notes), table, regions, labels)
    return DatasetIndex(base, known, splits, *told, patients_known, origin)


def find_table(root: Path) -> Path | None:
    """Return the table that says more of a dataset's films.

    Parameters
    ----------
    root : pathlib.Path
        The dataset's folder, or the table itself.

    Returns
    -------
    pathlib.Path or None
        The table given, the one in the folder that lists its films, its ``metadata.csv``; where there is none, that of
        the MURA folder in it or around it.
    """
    own = own_table(root)
    home = find_mura_home(root) if own is None and root.is_dir() else None
    return own_table(home) if home else own


def _origin_of(own: Path | None, of_homes: Sequence[Path | None]) -> str:
    """Tell where films come from, by the table beside them and those of the MURA folders that they lie in."""
    told = find_origin(own)
    origins = {find_origin(table) for table in of_homes} if told == "real" and of_homes else {told}
    if len(origins) > 1:
        raise DatasetError(
            f"A folder with films of one origin was expected, but this one holds {' and '.join(sorted(origins))} "
            "films; name the folder of one set."
        )
    return origins.pop()


def _has_stand_ins(table: Path | None) -> bool:
    """Tell whether the table of a set of injected films says that its patients are stand-ins."""
    return find_origin(table) == "injected" and any(row.get(PATIENT_KNOWN) == "0" for row in read_rows(table, set()))


def find_studies(
    folder: Path | str,
    format: str | None = None,  # noqa: A002
    split: str | None = None,
    region: str | None = None,
) -> list[Study]:
    """Return the studies of a dataset, or of one of its splits; arguments and errors as `index_dataset`.

    What could not be used is told by `index_dataset` only.

    Raises
    ------
    DatasetError
        Also for a split that the dataset does not have.
    """
    return list(select_split(index_dataset(folder, format, region), split))


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
