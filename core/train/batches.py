"""From films to the batches a network is trained on: squares kept in memory, changed a little each time they are seen.

Everything here is NumPy and OpenCV; what is drawn depends only on the seed, the epoch and the number of the batch, so
that a training that was cut off goes on as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from core.errors import DatasetError, ScaphoidError
from core.radiographs import fit_square, read_radiograph
from core.values import WristRegion
from core.wrist import MAPS, STRIDE, draw_grid

LOCATION_STRIDE = 16
FRACTURE_MARGIN = 1.5
"""The squares kept for training a fracture classifier are this much larger than the wrist's, to leave room to move."""
WRIST_MARGIN = 1.25
"""The whole films kept for training a finder are this much finer than its input, to leave room to enlarge."""
BENT_SHARE = 0.6
"""Share of the films for a fracture classifier that are bent (see :func:`draw_bend`)."""
MEMORY_LIMIT_BYTES = 3 * 2**30


@dataclass(frozen=True, eq=False)
class Film:
    """One film of a dataset with all that is known of it.

    Attributes
    ----------
    path : pathlib.Path
    study_id, patient_id : str
    label : int
        1 positive, 0 negative.
    mask_path : pathlib.Path or None
        Picture of the same size, white where the fracture is; None where none is known.
    region : WristRegion or None
        Where the wrist is; None where it is not known.
    kind : str
        What kind of fracture, where it is known.
    """

    path: Path
    study_id: str
    patient_id: str
    label: int
    mask_path: Path | None = None
    region: WristRegion | None = None
    kind: str = ""


def read_film(film: Film) -> Any:
    """Return the film as a Radiograph; raise DatasetError where it cannot be read."""
    try:
        return read_radiograph(film.path.read_bytes(), film.path.name)
    except (OSError, ScaphoidError) as error:
        raise DatasetError(f"A film of the dataset cannot be read: {error}") from error


class Squares:
    """Films as uint8 squares of one size, decoded once and kept in memory as far as the limit goes.

    Parameters
    ----------
    films : sequence of Film
    size : int
        Pixels a side.
    margin : float
        How much larger than the wrist's square; used only where `whole` is False and the film's region is known.
    whole : bool
        Keep the whole film, padded to a square, instead of the wrist.
    masks : bool
        Keep the fracture masks as well.
    progress : callable, optional
        Called with (done, of) after each film.
    """

    def __init__(
        self,
        films: Sequence[Film],
        size: int,
        *,
        margin: float = 1.0,
        whole: bool = False,
        masks: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.films, self.size, self.margin, self.whole = tuple(films), size, margin, whole
        self.kept = min(len(films), MEMORY_LIMIT_BYTES // (size * size * (2 if masks else 1)))
        self._pixels = np.zeros((self.kept, size, size), np.uint8)
        self._masks = np.zeros((self.kept, size, size), np.uint8) if masks else None
        self.regions: list[WristRegion | None] = [None] * len(films)
        with ThreadPoolExecutor(2) as pool:
            for index, (square, mask, region) in enumerate(pool.map(self._load, range(len(films)))):
                if index < self.kept:
                    self._pixels[index] = square
                    if self._masks is not None and mask is not None:
                        self._masks[index] = mask
                self.regions[index] = region
                if progress:
                    progress(index + 1, len(films))

    def __len__(self) -> int:
        """Return the number of films."""
        return len(self.films)

    def square(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return one film's pixels and mask, uint8 (size, size); the mask None where none is kept or known."""
        if index < self.kept:
            return self._pixels[index], None if self._masks is None else self._masks[index]
        return self._load(index)[:2]

    def _load(self, index: int) -> tuple[np.ndarray, np.ndarray | None, WristRegion | None]:
        film = self.films[index]
        radiograph = read_film(film)
        region = None
        if not self.whole and film.region is not None:
            region = replace(film.region, side=film.region.side * self.margin)
        fit = fit_square(radiograph.height, radiograph.width, self.size, region)
        square = np.round(np.clip(fit.apply(radiograph.pixels), 0, 1) * 255).astype(np.uint8)
        mask = None
        if film.mask_path is not None and self.wants_masks:
            drawn = cv2.imread(str(film.mask_path), cv2.IMREAD_GRAYSCALE)
            if drawn is None or drawn.shape != radiograph.pixels.shape:
                raise DatasetError("A mask has the size of its film, but one in this dataset is missing or differs.")
            mask = np.where(fit.apply(drawn.astype(np.float32) / 255) > 0.25, 255, 0).astype(np.uint8)
        return square, mask, _in_square(film.region, radiograph.height, radiograph.width, self.size)

    @property
    def wants_masks(self) -> bool:
        """Whether masks are kept."""
        return self._masks is not None


def _in_square(region: WristRegion | None, height: int, width: int, size: int) -> WristRegion | None:
    """Return a film's region in pixels of the whole film padded to a square of `size`."""
    if region is None:
        return None
    longest = max(height, width)
    scale = size / longest
    x, y = region.x + (longest - width) / 2, region.y + (longest - height) / 2
    return replace(region, x=x * scale, y=y * scale, side=region.side * scale)


# --- changes ---------------------------------------------------------------------------------------------------------


def change_appearance(square: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """Change a square as exposure, processing and resolution differ between hospitals, never what it shows.

    Parameters
    ----------
    square : numpy.ndarray
        float32 (size, size) in [0, 1].
    rng : numpy.random.Generator
    strength : float
        1 is the usual amount.

    Returns
    -------
    numpy.ndarray
        float32 (size, size) in [0, 1].
    """
    size = square.shape[0]
    if rng.random() < 0.35 * strength:
        smaller = max(16, int(size * rng.uniform(0.3, 0.85)))
        square = cv2.resize(square, (smaller, smaller), interpolation=cv2.INTER_AREA)
        square = cv2.resize(square, (size, size), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.4 * strength:
        soft = cv2.GaussianBlur(square, (0, 0), float(np.exp(rng.uniform(np.log(0.6), np.log(size / 25)))))
        square = square + rng.uniform(0.2, 2.0) * (square - soft)
    square = np.clip(square, 0.0, 1.0) ** np.exp(rng.normal(0.0, 0.25 * strength))
    square = (square - 0.4) * np.exp(rng.normal(0, 0.18 * strength)) + 0.4 + rng.normal(0, 0.05 * strength)
    if rng.random() < 0.3 * strength:
        square = square + rng.normal(0.0, rng.uniform(0.004, 0.03), square.shape)
    return np.clip(square, 0.0, 1.0).astype(np.float32)


def move_matrix(size: int, centre: tuple[float, float], pixels: float, degrees: float, mirrored: bool) -> np.ndarray:
    """Return the 2 x 3 matrix from pixels of the new square to pixels of the old one.

    Parameters
    ----------
    size : int
        Of the new square.
    centre : tuple of float
        Where the middle of the new square lies in the old one.
    pixels : float
        How many pixels of the old one the new one spans.
    degrees : float
        How far the new square is turned clockwise in the old one.
    mirrored : bool
        Left and right change places.
    """
    angle, step = np.radians(degrees), pixels / size
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn @ np.diag([-1.0 if mirrored else 1.0, 1.0]) * step
    # Pixel i covers [i, i + 1): OpenCV counts its middle as i.
    shift = np.asarray(centre) - 0.5 - linear @ np.full(2, size / 2 - 0.5)
    return np.column_stack([linear, shift])


def move_region(region: WristRegion, matrix: np.ndarray) -> WristRegion:
    """Return where a region of the old square lies in the new one (see :func:`move_matrix`)."""
    inverse = np.linalg.inv(matrix[:, :2])
    centre = inverse @ (np.array([region.x, region.y]) - 0.5 - matrix[:, 2]) + 0.5
    angle = np.radians(region.angle)
    along = inverse @ np.array([np.sin(angle), -np.cos(angle)])
    length = float(np.hypot(*along))
    return replace(
        region,
        x=float(centre[0]),
        y=float(centre[1]),
        side=region.side * length,
        angle=float(np.degrees(np.arctan2(along[0], -along[1]))),
    )


def draw_bend(size: int, rng: np.random.Generator, share: float = 0.012) -> np.ndarray:
    """Draw a smooth bend: how far each pixel of a square is moved, float32 (size, size, 2), about `share` of the side.

    Bones differ between people in more ways than a simulator knows; whole and broken ones are bent alike.
    """
    knots = rng.normal(0.0, share * size, (int(rng.integers(4, 8)),) * 2 + (2,)).astype(np.float32)
    return cv2.resize(knots, (size, size), interpolation=cv2.INTER_CUBIC)


def _warp(square: np.ndarray, matrix: np.ndarray, size: int, bend: np.ndarray | None = None) -> np.ndarray:
    if bend is not None:
        rows, columns = np.mgrid[:size, :size].astype(np.float32)
        x, y = columns + bend[..., 0], rows + bend[..., 1]
        a = matrix.astype(np.float32)
        there = (a[0, 0] * x + a[0, 1] * y + a[0, 2], a[1, 0] * x + a[1, 1] * y + a[1, 2])
        return cv2.remap(square, *there, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(square, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=0)


def pool_mask(mask: np.ndarray, cells: int) -> np.ndarray:
    """Return float32 (cells, cells): 1 where any of a cell's `LOCATION_STRIDE` squared pixels is above one half."""
    padded = np.zeros((cells * LOCATION_STRIDE,) * 2, np.uint8)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    blocks = padded.reshape(cells, LOCATION_STRIDE, cells, LOCATION_STRIDE)
    return (blocks.max(axis=(1, 3)) > 127).astype(np.float32)


# --- what a batch holds ----------------------------------------------------------------------------------------------


class FractureSampler:
    """Draws batches for a fracture classifier: squares around the wrist, labels, and masks where they are known.

    Parameters
    ----------
    squares : Squares
    input_size, batch_size, seed : int
    location : bool
        Whether the network has a location head.
    whole : bool
        The squares are whole films: they are moved less.
    """

    def __init__(
        self, squares: Squares, *, input_size: int, batch_size: int, seed: int, location: bool, whole: bool
    ) -> None:
        self.squares, self.size, self.batch_size, self.seed = squares, input_size, batch_size, seed
        self.location, self.whole = location, whole
        self.cells = -(-input_size // LOCATION_STRIDE)
        self.batches = max(1, len(squares) // batch_size)

    def batch(self, epoch: int, number: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return (films, targets) of one batch.

        Returns
        -------
        films : numpy.ndarray
            float32 (n, size, size, 1).
        targets : dict of numpy.ndarray
            ``logit`` float32 (n, 1); with a location head ``location`` (n, cells, cells, 2): the mask and how much
            each cell counts.
        """
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.squares))
        chosen = order[number * self.batch_size : (number + 1) * self.batch_size]
        rng = np.random.default_rng([self.seed, epoch, number])
        films = np.zeros((len(chosen), self.size, self.size, 1), np.float32)
        labels = np.zeros((len(chosen), 1), np.float32)
        places = np.zeros((len(chosen), self.cells, self.cells, 2), np.float32)
        for row, index in enumerate(chosen):
            film = self.squares.films[index]
            square, mask = self.squares.square(index)
            matrix = self._move(square.shape[0], film.region is not None, rng)
            bend = draw_bend(self.size, rng) if rng.random() < BENT_SHARE else None
            shown = _warp(square, matrix, self.size, bend).astype(np.float32) / 255
            films[row, ..., 0] = change_appearance(shown, rng)
            labels[row] = film.label
            if self.location and (film.label == 0 or film.mask_path is not None):
                places[row, ..., 1] = 1.0
                if film.label == 1:
                    places[row, ..., 0] = pool_mask(_warp(mask, matrix, self.size, bend), self.cells)
                    # A break that lies outside the square cannot be seen in it.
                    labels[row] = places[row, ..., 0].max()
        targets = {"logit": labels}
        if self.location:
            targets["location"] = places
        return films, targets

    def _move(self, old_size: int, known: bool, rng: np.random.Generator) -> np.ndarray:
        wrist = old_size / (self.squares.margin if known and not self.whole else 1.0)
        scale = float(np.exp(rng.normal(0.0, 0.12)))
        centre = old_size / 2 + rng.normal(0.0, 0.05, 2) * wrist
        return move_matrix(
            self.size, tuple(centre), wrist * float(np.clip(scale, 0.75, 1.35)), rng.normal(0, 8), rng.random() < 0.5
        )


class WristSampler:
    """Draws batches for a wrist finder: whole films in any direction, and films without a wrist.

    Parameters
    ----------
    squares : Squares
        Whole films whose regions are known.
    others : numpy.ndarray
        uint8 (n, size, size): simulated films without any wrist.
    input_size, batch_size, seed : int
    """

    SHARE_WITHOUT = 0.35

    def __init__(self, squares: Squares, others: np.ndarray, *, input_size: int, batch_size: int, seed: int) -> None:
        self.squares, self.others, self.size = squares, others, input_size
        self.batch_size, self.seed, self.cells = batch_size, seed, input_size // STRIDE
        self.batches = max(1, int(len(squares) / (1 - self.SHARE_WITHOUT)) // batch_size)

    def batch(self, epoch: int, number: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return (films, targets): float32 (n, size, size, 1) and ``{"maps": (n, cells, cells, 5)}``.

        The targets' channels are heat, log2 side, sine, cosine, and how much the last three count in each cell.
        """
        rng = np.random.default_rng([self.seed, epoch, number])
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.squares))
        with_wrist = round(self.batch_size * (1 - self.SHARE_WITHOUT))
        films = np.zeros((self.batch_size, self.size, self.size, 1), np.float32)
        targets = np.zeros((self.batch_size, self.cells, self.cells, 5), np.float32)
        for row in range(self.batch_size):
            if row < with_wrist:
                square, region = self._with_wrist(order[(number * with_wrist + row) % len(order)], rng)
                where = (region.x / self.size, region.y / self.size, region.side / self.size)
                targets[row, ..., :4], targets[row, ..., 4] = draw_grid(*where, region.angle, self.cells)
            else:
                square = self._without_wrist(rng)
            films[row, ..., 0] = change_appearance(square, rng)
        return films, {MAPS: targets}

    def _with_wrist(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, WristRegion]:
        square, region = self.squares.square(index)[0], self.squares.regions[index]
        old = square.shape[0]
        chance = rng.random()
        degrees = rng.normal(0, 12) + (180 if chance < 0.2 else 0)
        if chance > 0.8:
            degrees = rng.uniform(-180, 180)
        mirrored = rng.random() < 0.5
        matrix = move_matrix(self.size, (old / 2, old / 2), old, degrees, mirrored)
        for _ in range(8):
            pixels = old * float(np.clip(np.exp(rng.normal(-0.02, 0.22)), 0.5, 1.6))
            centre = tuple(old / 2 + rng.normal(0.0, 0.08, 2) * old)
            tried = move_matrix(self.size, centre, pixels, degrees, mirrored)
            moved = move_region(region, tried)
            inside = all(0.08 < place / self.size < 0.92 for place in (moved.x, moved.y))
            if inside and 0.1 < moved.side / self.size < 1.3:
                matrix = tried
                break
        moved = move_region(region, matrix)
        drawn = _warp(square, matrix, self.size).astype(np.float32) / 255
        if rng.random() < 0.35:
            drawn = _cover_edges(drawn, moved, rng)
        return drawn, moved

    def _without_wrist(self, rng: np.random.Generator) -> np.ndarray:
        if rng.random() < 0.25:
            index = int(rng.integers(len(self.squares)))
            away = _look_away(self.squares.square(index)[0], self.squares.regions[index], self.size, rng)
            if away is not None:
                return away
        other = self.others[int(rng.integers(len(self.others)))]
        old = other.shape[0]
        matrix = move_matrix(
            self.size,
            tuple(old / 2 + rng.normal(0, 0.08, 2) * old),
            old * rng.uniform(0.35, 1.3),
            rng.normal(0, 15) if rng.random() < 0.6 else rng.uniform(-180, 180),
            rng.random() < 0.5,
        )
        return _warp(other, matrix, self.size).astype(np.float32) / 255


def _cover_edges(square: np.ndarray, region: WristRegion, rng: np.random.Generator) -> np.ndarray:
    """Cover one or two edges, as padding and collimation do, at most up to 0.35 sides from the wrist's centre."""
    square, size = square.copy(), square.shape[0]
    value = 0.0 if rng.random() < 0.8 else float(rng.uniform(0.5, 1.0))
    for _ in range(int(rng.integers(1, 3))):
        room = {
            "left": region.x - 0.35 * region.side,
            "right": size - region.x - 0.35 * region.side,
            "top": region.y - 0.35 * region.side,
            "bottom": size - region.y - 0.35 * region.side,
        }
        edge = str(rng.choice(list(room)))
        depth = int(max(0.0, room[edge]) * rng.uniform(0.0, 1.0))
        if depth < 1:
            continue
        part = {"left": np.s_[:, :depth], "right": np.s_[:, -depth:], "top": np.s_[:depth], "bottom": np.s_[-depth:]}
        square[part[edge]] = value
    return square


def _look_away(square: np.ndarray, region: WristRegion, size: int, rng: np.random.Generator) -> np.ndarray | None:
    """Return a part of the film that shows something but not the wrist, float32 (size, size) in [0, 1], or None."""
    old = square.shape[0]
    for _ in range(6):
        pixels = old * rng.uniform(0.2, 0.5)
        centre = rng.uniform(pixels / 2, old - pixels / 2, 2)
        apart = max(abs(centre[0] - region.x), abs(centre[1] - region.y))
        if apart < pixels / 2 + 0.42 * region.side:
            continue
        matrix = move_matrix(size, tuple(centre), pixels, rng.uniform(-20, 20), rng.random() < 0.5)
        # Turned, the corners reach further out; the wrist must stay out of them too.
        moved = move_region(region, matrix)
        if max(abs(moved.x - size / 2), abs(moved.y - size / 2)) < size / 2 + 0.3 * moved.side:
            continue
        drawn = _warp(square, matrix, size).astype(np.float32) / 255
        if drawn.std() > 0.04:
            return drawn
    return None


def as_dataset(sampler: FractureSampler | WristSampler, epoch: int) -> Any:
    """Return one epoch of a sampler as a ``keras.utils.PyDataset``."""
    import keras

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return sampler.batches

        def __getitem__(self, number: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
            return sampler.batch(epoch, number)

    return Batches(workers=2, use_multiprocessing=False, max_queue_size=6)
