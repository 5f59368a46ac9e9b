"""From a dataset to the films that are trained on, chosen on and measured on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from core.datasets import WRIST, WRISTS_ALONE, describe, open_dataset, parts_of_body, split_dataset
from core.datasets.splits import fingerprint
from core.errors import DatasetError
from core.train.runs import Request
from core.train.squares import Film
from core.values import Study

__all__ = ["WRIST", "WRISTS_ALONE", "TrainingData", "collect_films", "open_dataset", "parts_of_body"]


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Films to train on, to choose on and to measure on; no patient is in two of them.

    Attributes
    ----------
    train, valid, test : tuple of Film
    format : str
        Of the dataset.
    origin : str
        Where the films come from, as of :func:`core.datasets.find_origin`.
    with_regions, with_masks : bool
        The wrist is known on every film; the fracture is known on some.
    list_marking_files : callable
        Returns every file that masks are made from.
    patients_known : bool
        False where the dataset does not say which films are of one patient, so that one may be in two parts.
    split : str
        Which studies are in which part, see :func:`core.datasets.splits.fingerprint`.
    """

    train: tuple[Film, ...]
    valid: tuple[Film, ...]
    test: tuple[Film, ...]
    format: str
    origin: str
    with_regions: bool
    with_masks: bool
    list_marking_files: Callable[[], tuple[Path, ...]] = tuple
    patients_known: bool = True
    split: str = ""

    @property
    def simulated(self) -> bool:
        """Whether `core.phantoms` drew the films."""
        return self.origin == "simulated"

    @property
    def injected(self) -> bool:
        """Whether breaks were put into films of real wrists (:mod:`core.train.injected`)."""
        return self.origin == "injected"


def collect_films(request: Request) -> TrainingData:
    """Find the films of a dataset and split them by patient.

    Calibration and operating points are chosen on ``valid``; ``test`` is only measured (see
    :func:`core.datasets.split_dataset`).

    Raises
    ------
    DatasetError
        No films; patients in both parts; a part without films or, where fractures are learned, without one class.
    """
    index = open_dataset(Path(request.data), request.format, request.region)
    parts = split_dataset(index.splits, request.split_seed)
    print(describe(parts, index.problems), file=sys.stderr)
    for note in index.notes:
        print(f"note: {note}", file=sys.stderr)
    # No name of a file: what is printed is kept beside the training, and page Train shows it.
    for problem in index.marking_problems:
        print(f"note: {problem.reason} (`python -m core.datasets` names the file)", file=sys.stderr)
    details = index.details()
    films = {name: _films(part, index, details) for name, part in parts.items()}
    if request.task == "fracture" and not request.finder:
        # Nothing will find the wrist when films are read, so none may be trained or measured on a wrist that is known.
        films = {name: tuple(replace(film, region=None) for film in part) for name, part in films.items()}
    empty = [name for name, part in films.items() if not part]
    if empty:
        raise DatasetError(f"Each of train, valid and test needs films, but {empty[0]} has none.")
    if request.task == "fracture":
        _check_classes(films)
    everything = [film for part in films.values() for film in part]
    return TrainingData(
        **films,
        format=index.format,
        origin=index.origin,
        with_regions=all(film.region is not None for film in everything),
        with_masks=index.has_masks,
        list_marking_files=lambda: tuple(index.list_marking_files()),
        patients_known=index.patients_known,
        split=fingerprint(parts),
    )


def _check_classes(films: Mapping[str, Sequence[Film]]) -> None:
    """Refuse parts that nothing can be learned from, chosen on or measured on: both classes are needed."""
    for name, part in films.items():
        studies: dict[str, int] = {}
        for film in part:
            studies[film.study_id] = max(film.label, studies.get(film.study_id, 0))
        labels = {film.label for film in part} if name == "train" else set(studies.values())
        if labels != {0, 1}:
            missing = "without" if 0 not in labels else "with"
            raise DatasetError(
                f"Each of train, valid and test needs studies with and without a finding, but {name} has none "
                f"{missing} one."
            )


def _films(studies: Iterable[Study], index: Any, details: Mapping[Path, Mapping[str, str]]) -> tuple[Film, ...]:
    return tuple(
        Film(
            path,
            study.id,
            study.patient_id,
            int(index.film_labels.get(path, study.label)),
            partial(index.read_mask, path) if index.has_masks else None,
            index.regions.get(path),
            str(details.get(path, {}).get("kind", "")),
            _number(details.get(path, {}).get("displacement_mm")),
        )
        for study in studies
        if study.label is not None
        for path in study.paths
    )


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text not in (None, "") else None
    except ValueError:
        return None
