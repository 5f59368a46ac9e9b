"""The films of a dataset as squares of one size: decoded once, then kept in memory or in a folder of decoded films."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from core.datasets.annotations import read_film_size
from core.errors import DatasetError, ScaphoidError
from core.radiographs import fit_square, read_radiograph
from core.values import WristRegion

SMALLEST_MEMORY_BYTES = 3 * 2**30
MEMORY_SHARE = 0.4
"""Share of the memory that decoded films may take: at least `SMALLEST_MEMORY_BYTES`, but never over half of it."""
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
LEFT_OUT_NAME = "left_out.txt"


@dataclass(frozen=True, eq=False)
class Film:
    """One film of a dataset with all that is known of it.

    Attributes
    ----------
    path : pathlib.Path
    study_id, patient_id : str
    label : int
        1 positive, 0 negative.
    marks : callable or None
        Height and width of the film -> uint8 (height, width), 255 where the fracture is, or None where that is not
        known. None: it is not known of any film of the dataset.
    region : WristRegion or None
        Where the wrist is; None where it is not known.
    kind : str
        What kind of fracture, where it is known.
    displacement_mm : float or None
        How far the fragments are apart, where it is known.
    """

    path: Path
    study_id: str
    patient_id: str
    label: int
    marks: Callable[[int, int], np.ndarray | None] | None = None
    region: WristRegion | None = None
    kind: str = ""
    displacement_mm: float | None = None


def read_film(film: Film) -> Any:
    """Return the film as a Radiograph; raise DatasetError where it cannot be read."""
    try:
        return read_radiograph(film.path.read_bytes(), film.path.name)
    except OSError as error:  # its own words would name the place
        raise DatasetError("A film of the dataset cannot be read: the file is gone or cannot be opened.") from error
    except ScaphoidError as error:
        raise DatasetError(f"A film of the dataset cannot be read: {error}") from error


def read_mask(film: Film, height: int, width: int) -> np.ndarray | None:
    """Return a film's fracture mask, float32 (height, width) in [0, 1], or None where it is not known.

    Raises
    ------
    DatasetError
        What marks the fracture cannot be read, or is of another size than the film.
    """
    mask = film.marks(height, width) if film.marks else None
    return None if mask is None else mask.astype(np.float32) / 255


@dataclass(frozen=True, eq=False)
class Shelf:
    """Where decoded films are kept.

    Attributes
    ----------
    folder : pathlib.Path or None
        None: in memory.
    limit_bytes : int
        How much that folder may hold.
    marking_files : tuple of pathlib.Path
        What marks the fractures: when one of them changes, the masks that were kept are old.
    films : int
        How many films are kept in all, where several `Squares` of one run share the limit: each takes a share of it,
        in memory as in the folder. 0: there is one `Squares` only.
    """

    folder: Path | None = None
    limit_bytes: int = 20 * 2**30
    marking_files: tuple[Path, ...] = ()
    films: int = 0


class Squares:
    """Films as uint8 squares of one size; those that cannot be read are left out.

    Parameters
    ----------
    films : sequence of Film
    size : int
        Pixels a side.
    margin : float
        How much larger than the wrist's square; used only where `whole` is False and the film's region is known.
    whole : bool
        Keep the whole film instead of the wrist.
    fit : str
        How a whole film becomes a square, see :func:`core.radiographs.fit_square`.
    masks : bool
        Keep the fracture masks as well.
    progress : callable, optional
        Called with (done, of) after each film.
    shelf : Shelf
        Where decoded films are kept.

    Attributes
    ----------
    films : tuple of Film
        Those that can be read.
    unreadable : dict of int to str
        Place in `films` as given -> why it cannot be read.
    regions : list of WristRegion or None
        Of each film, in pixels of the whole film padded to a square of `size`.

    Raises
    ------
    DatasetError
        No film can be read.
    """

    def __init__(
        self,
        films: Sequence[Film],
        size: int,
        *,
        margin: float = 1.0,
        whole: bool = False,
        fit: str = "pad",
        masks: bool = False,
        progress: Callable[[int, int], None] | None = None,
        shelf: Shelf | None = None,
    ) -> None:
        self.size, self.margin, self.whole, self.wants_masks = size, margin, whole, masks
        self.fit = fit if whole else "pad"
        self._all = tuple(films)
        self._cache = self._open_cache(shelf or Shelf())
        found = self._cache.fill(self._load, progress=progress, workers=workers())
        self.unreadable = dict(found)
        self._places = [index for index in range(len(films)) if index not in self.unreadable]
        self.films = tuple(self._all[index] for index in self._places)
        if not self.films:
            raise DatasetError(f"Films that can be read were expected, but none of {len(films)} can be.")

    def __len__(self) -> int:
        """Return the number of films."""
        return len(self.films)

    @property
    def beyond(self) -> int:
        """How many films do not fit where decoded ones are kept: they are decoded each time they are asked for."""
        return len(self._all) - self._cache.kept

    @cached_property
    def regions(self) -> list[WristRegion | None]:
        """Where the wrist is on each film; asks the size of each, but decodes none."""
        return [self._region(film) for film in self.films]

    def square(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return one film's pixels and mask, uint8 (size, size); the mask None where none is kept or known."""
        return self._cache.square(self._places[index])

    def _open_cache(self, shelf: Shelf) -> Any:
        from core.datasets import DecodedCache, make_key

        key, limit = "memory", shelf.limit_bytes if shelf.folder else memory_limit_bytes()
        if shelf.folder:
            squares = [
                [region.x, region.y, region.side, region.angle] if region and not self.whole else None
                for region in (film.region for film in self._all)
            ]
            marked = [film.label for film in self._all] if self.wants_masks else None
            there = [path for path in (*(film.path for film in self._all), *self._marking(shelf)) if path.is_file()]
            stretched = ["stretched"] if self.fit == "stretch" else []
            key = make_key(there, self.size, self.margin, self.whole, squares, marked, *stretched)
        count = len(self._all)
        share = limit * count // max(count, shelf.films, 1)
        return DecodedCache(shelf.folder, count, self.size, self.wants_masks, share, key, limit)

    def _marking(self, shelf: Shelf) -> tuple[Path, ...]:
        return shelf.marking_files if self.wants_masks else ()

    def _load(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        film = self._all[index]
        radiograph = read_film(film)
        region = None
        if not self.whole and film.region is not None:
            region = replace(film.region, side=film.region.side * self.margin)
        fit = fit_square(radiograph.height, radiograph.width, self.size, region, self.fit)
        square = np.round(np.clip(fit.apply(radiograph.pixels), 0, 1) * 255).astype(np.uint8)
        drawn = read_mask(film, radiograph.height, radiograph.width) if self.wants_masks else None
        if drawn is None or (film.label == 1 and not drawn.any()):
            return square, None  # a break that is marked nowhere is not known to be nowhere
        cover = fit.apply(drawn)
        # A thin break covers little of a coarse pixel, and must not vanish.
        return square, np.where(cover > min(0.25, cover.max() / 2), 255, 0).astype(np.uint8)

    def _region(self, film: Film) -> WristRegion | None:
        """Return where the wrist is in the whole film's square; a film that was decoded before is not opened again."""
        return None if film.region is None else _in_square(film.region, *read_film_size(film.path), self.size)


def list_unreadable(
    what: str, films: Sequence[Film], unreadable: Mapping[int, str], folder: Path | None = None
) -> None:
    """Say on stderr how many films were left out and why, and keep in a file which.

    Parameters
    ----------
    what : str
        The part of the dataset.
    films : sequence of Film
    unreadable : Mapping of int to str
        Place in `films` -> why.
    folder : pathlib.Path or None
        Of the run: its file ``left_out.txt`` names the films; nothing that is shown or published does.
    """
    if folder is not None:
        _write_left_out(folder / LEFT_OUT_NAME, what, [(films[i].path, unreadable[i]) for i in sorted(unreadable)])
    if not unreadable:
        return
    print(f"{what}: {len(unreadable)} of {len(films)} films cannot be read and are left out:", file=sys.stderr)
    for reason, count in Counter(unreadable.values()).most_common():
        print(f"  {count} x {reason}", file=sys.stderr)


def _write_left_out(file: Path, what: str, found: Sequence[tuple[Path, str]]) -> None:
    """Write one line a film that was left out; those of other parts of the dataset stay."""
    try:
        before = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        before = []
    others = [line for line in before if not line.startswith(f"{what}\t")]
    lines = [*others, *(f"{what}\t{path}\t{reason}" for path, reason in found)]
    if lines or before:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", errors="backslashreplace")


def workers() -> int:
    """Return how many threads prepare films."""
    return max(2, min(16, os.cpu_count() or 2))


def memory_limit_bytes() -> int:
    """Return how much memory decoded films may take, of the machine's or of what its container is given."""
    try:
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return SMALLEST_MEMORY_BYTES
    with suppress(OSError, ValueError):  # there is none, or it says max
        whole = min(whole, int(CONTAINER_LIMIT.read_text(encoding="ascii")))
    return min(max(SMALLEST_MEMORY_BYTES, int(MEMORY_SHARE * whole)), whole // 2)


def _in_square(region: WristRegion | None, height: int, width: int, size: int) -> WristRegion | None:
    """Return a film's region in pixels of the whole film padded to a square of `size`."""
    if region is None:
        return None
    longest = max(height, width)
    scale = size / longest
    x, y = region.x + (longest - width) / 2, region.y + (longest - height) / 2
    return replace(region, x=x * scale, y=y * scale, side=region.side * scale)
