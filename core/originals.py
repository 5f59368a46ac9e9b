"""The films behind a row of a table of scores: simulated ones are made again, others are read from their dataset."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.datasets.splits import PublishedNames
from core.errors import DatasetError, RadiographError
from core.metrics import FILM_SEPARATOR
from core.phantoms import VERSION, film_png, simulate_study, study_seed
from core.radiographs import read_radiograph
from core.values import Checkpoint, Radiograph, Scores, Study

if TYPE_CHECKING:
    from core.datasets import DatasetIndex

SIMULATED = "simulated film"
"""`Radiograph.source` of a film that shows nobody."""
_BY_SEED = re.compile(r"simulated-(\d{1,19})")  # as core.appraise calls its studies
_BY_NUMBER = re.compile(r"(?:train|valid)/XR_WRIST/patient(\d{5,9})/study1")


@dataclass(frozen=True, eq=False)
class OriginalFilm:
    """A film of a study that was scored.

    Attributes
    ----------
    radiograph : Radiograph
    mask : numpy.ndarray or None
        bool, the film's shape: where the fracture is marked; None where that is not known.
    facts : Mapping of str to str
        What is known of a simulated film (view, age, kind of fracture, ...), in words; empty for others.
    """

    radiograph: Radiograph
    mask: np.ndarray | None = None
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def simulated(self) -> bool:
        """Whether it shows nobody."""
        return self.radiograph.source == SIMULATED


@dataclass(frozen=True)
class Simulation:
    """How the studies of a split were simulated.

    Attributes
    ----------
    version : int
        Of the simulator; another one makes other films.
    size : int
        Longer side of a film in pixels.
    seed : int or None
        Of the dataset; None where each study is called by its own seed.
    bits : str
        As ``core.phantoms.dataset.DatasetSettings``.
    """

    version: int
    size: int
    seed: int | None = None
    bits: str = "8"


def find_simulation(card: Checkpoint, split: str) -> Simulation | None:
    """Return how the films of a checkpoint's split were simulated; None where its card does not tell."""
    data = card.data
    told = (data.get("results") or {}).get("simulated_test") if split == "test" else None
    told = told or data.get("simulator")
    if not isinstance(told, Mapping):
        return None
    try:
        seed = told.get("seed")
        return Simulation(
            int(told["version"]), int(told["size"]), None if seed is None else int(seed), str(told.get("bits", "8"))
        )
    except (KeyError, TypeError, ValueError):
        return None


def remake_study(study_id: str, label: int, simulation: Simulation) -> tuple[OriginalFilm, ...]:
    """Simulate the films of a study again, pixel by pixel as they were scored.

    Parameters
    ----------
    study_id : str
        As it stands in the table of scores.
    label : int
        1 where something is broken.
    simulation : Simulation

    Raises
    ------
    DatasetError
        The films are of another version of the simulator, or the study is not one of its.
    """
    if simulation.version != VERSION:
        raise DatasetError(
            f"Its films were made by version {simulation.version} of the simulator and this is version {VERSION}, so "
            "they cannot be made again."
        )
    named, numbered = _BY_SEED.fullmatch(study_id), _BY_NUMBER.fullmatch(study_id)
    if named:
        seed = int(named[1])
    elif numbered and simulation.seed is not None:
        seed = study_seed(simulation.seed, int(numbered[1]))
    else:
        raise DatasetError("A study of the simulator was expected, but this one is called otherwise.")
    made = []
    for film in simulate_study(seed, size=simulation.size, positive=label == 1):
        read = read_radiograph(film_png(film, simulation.bits))
        read = replace(read, view=film.view, laterality=film.laterality, source=SIMULATED)
        made.append(OriginalFilm(read, film.mask, _facts(film)))
    return tuple(made)


def _facts(film: Any) -> dict[str, str]:
    facts = {"view": film.view, "age": f"{film.age:.0f} years"}
    if film.mask.any():
        facts["fracture"] = film.kind.replace("_", " ")
        facts["displacement"] = f"{film.displacement_mm:.1f} mm"
    if film.hardware != "none":
        facts["hardware"] = film.hardware
    if film.cast:
        facts["cast"] = "yes"
    return facts


class DatasetFilms:
    """The films of a dataset's studies, found by the names that tables of scores give them.

    Published tables give studies numbers instead of their names (:class:`core.datasets.splits.PublishedNames`), tables
    of single films their places or, as :func:`core.metrics.read_every_split` joins them, "study / film"; all are
    understood.

    Parameters
    ----------
    index : core.datasets.DatasetIndex
    """

    def __init__(self, index: DatasetIndex):
        self._index = index
        self._studies = dict(PublishedNames(index.studies).by_name)
        for study in index.studies:  # tables of `core.evaluate --films` call each film by its place
            for path in study.paths:
                label = index.film_labels.get(path, study.label)
                self._studies.setdefault(index.name_of(path), replace(study, paths=(path,), label=label))

    def check(self, scores: Scores) -> None:
        """Raise DatasetError unless every scored study is here, with the same label.

        Raises
        ------
        DatasetError
            The scores are of other films.
        """
        found = [self._find(name) for name in scores.study_ids]
        same = sum(
            study is not None and study.label == label
            for study, label in zip(found, scores.labels.tolist(), strict=True)
        )
        if same < len(found):
            raise DatasetError(
                f"The folder that these {len(found):,} scores were made from was expected, but only {same:,} of its "
                "studies have these names and labels."
            )

    def read(self, study_id: str) -> tuple[OriginalFilm, ...]:
        """Read a study's films, or the one that a row of a table of films names.

        All films of its study are read where the row's film has no name that is known here.

        Raises
        ------
        DatasetError
            No such study, or none of its films can be read.
        """
        study = self._find(study_id)
        if study is None:
            raise DatasetError("A study of this folder was expected, but it has none of that name.")
        films = [film for film in map(self._read, study.paths) if film is not None]
        if not films:
            raise DatasetError(f"Films that can be read were expected, but none of its {len(study.paths)} can.")
        return tuple(films)

    def _find(self, name: str) -> Study | None:
        """Return the study of a row; of its films only the one that the row names, where it does."""
        if name in self._studies:
            return self._studies[name]
        # Either part may hold the separator itself.
        for parted in re.finditer(re.escape(FILM_SEPARATOR), name):
            study, film = self._studies.get(name[: parted.start()]), name[parted.end() :]
            if study is not None:
                named = [path for path in study.paths if film in (path.name, path.stem, self._index.name_of(path))]
                return replace(study, paths=tuple(named)) if len(named) == 1 else study
        return None

    def _read(self, path: Path) -> OriginalFilm | None:
        try:
            film = read_radiograph(path.read_bytes())
            mask = self._index.read_mask(path, film.height, film.width)
        except (OSError, RadiographError):
            return None
        except DatasetError:
            mask = None
        if self._index.origin == "simulated":
            film = replace(film, source=SIMULATED)
        return OriginalFilm(film, None if mask is None else mask > 0)
