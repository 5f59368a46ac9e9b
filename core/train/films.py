"""From a dataset to the films that are trained on, chosen on and measured on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from core.errors import DatasetError
from core.train.runs import Request
from core.train.squares import Film
from core.values import Study


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Films to train on, to choose on and to measure on; no patient is in two of them."""

    train: tuple[Film, ...]
    valid: tuple[Film, ...]
    test: tuple[Film, ...]
    format: str
    simulated: bool
    with_regions: bool
    with_masks: bool
    list_marking_files: Callable[[], tuple[Path, ...]] = tuple


def collect_films(request: Request) -> TrainingData:
    """Find the films of a dataset and split them by patient.

    Calibration and operating points are chosen on ``valid``; ``test`` is only measured (see
    :func:`core.datasets.split_dataset`).

    Raises
    ------
    DatasetError
        No films; patients in both parts; a part without films.
    """
    from core.datasets import describe, index_dataset, split_dataset

    index = index_dataset(Path(request.data), request.format)
    parts = split_dataset(index.splits, request.settings.seed)
    print(describe(parts, index.problems), file=sys.stderr)
    details = index.details()
    films = {name: _films(part, index, details) for name, part in parts.items()}
    if request.task == "fracture" and not request.finder:
        # Nothing will find the wrist when films are read, so none may be trained or measured on a wrist that is known.
        films = {name: tuple(replace(film, region=None) for film in part) for name, part in films.items()}
    empty = [name for name, part in films.items() if not part]
    if empty:
        raise DatasetError(f"Each of train, valid and test needs films, but {empty[0]} has none.")
    everything = [film for part in films.values() for film in part]
    return TrainingData(
        **films,
        format=index.format,
        simulated=_is_simulated(index.root),
        with_regions=all(film.region is not None for film in everything),
        with_masks=index.has_masks,
        list_marking_files=lambda: tuple(index.list_marking_files()),
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


def _is_simulated(root: Path) -> bool:
    """Tell by its table whether a dataset was made by ``core.phantoms``."""
    try:
        with open(root / "metadata.csv", encoding="utf-8") as table:
            return {"kind", "seed", "framing"} <= set(table.readline().strip().split(","))
    except (OSError, UnicodeDecodeError):
        return False
