"""The batches a network is trained on: squares, changed a little each time they are seen, and what is known of them.

What is drawn depends only on the seed, the epoch and the number of the batch, so that a training that was cut off goes
on as if nothing had happened.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np

from core.train.changes import (
    LOCATION_STRIDE,
    change_appearance,
    change_texture,
    draw_bend,
    draw_mesh,
    mix_up,
    move_matrix,
    move_region,
    pool_mask,
    warp,
)
from core.train.squares import Squares, workers
from core.values import WristRegion
from core.wrist import MAPS, STRIDE, draw_grid

FRACTURE_MARGIN = 1.5
"""The squares kept for training a fracture classifier are this much larger than the wrist's, to leave room to move."""
WRIST_MARGIN = 1.25
"""The whole films kept for training a finder are this much finer than its input, to leave room to enlarge."""
BENT_SHARE = 0.6
"""Share of the films for a fracture classifier that are bent (see :func:`core.train.changes.draw_bend`)."""
FAINTEST = 16
"""A mask of at most 127 but no less than this after a move is of a thin break, not of one that was moved away."""


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
    mixup : float
        See :func:`core.train.changes.mix_up`; 0: not at all.
    augmentation : callable or None
        Changes each square in place of all that is done here; it moves no masks, so `location` must be False.
    epoch_films : int or None
        How many films an epoch sees; None: all.
    textures : float
        Share of the films whose texture is changed, see :func:`core.train.changes.change_texture`.
    """

    def __init__(
        self,
        squares: Squares,
        *,
        input_size: int,
        batch_size: int,
        seed: int,
        location: bool,
        whole: bool,
        mixup: float = 0.0,
        augmentation: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None,
        epoch_films: int | None = None,
        textures: float = 0.0,
    ) -> None:
        self.squares, self.size, self.batch_size, self.seed = squares, input_size, batch_size, seed
        self.location, self.whole, self.mixup, self.augmentation = location, whole, mixup, augmentation
        self.textures = textures
        self.cells = -(-input_size // LOCATION_STRIDE)
        self.batches = max(1, _films_seen(squares, epoch_films) // batch_size)

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
        targets = {"logit": np.zeros((len(chosen), 1), np.float32)}
        if self.location:
            targets["location"] = np.zeros((len(chosen), self.cells, self.cells, 2), np.float32)
        draw = self._draw_own if self.augmentation is None else self._draw_by_name
        for row, index in enumerate(chosen):
            films[row, ..., 0] = draw(index, rng, {name: values[row] for name, values in targets.items()})
        return mix_up(films, targets, self.mixup, rng) if self.mixup else (films, targets)

    def _draw_by_name(self, index: int, rng: np.random.Generator, targets: dict[str, np.ndarray]) -> np.ndarray:
        square = self.squares.square(index)[0]
        targets["logit"][:] = self.squares.films[index].label
        if square.shape[0] != self.size:
            square = cv2.resize(square, (self.size, self.size), interpolation=cv2.INTER_AREA)
        return self.augmentation(square.astype(np.float32) / 255, rng)

    def _draw_own(self, index: int, rng: np.random.Generator, targets: dict[str, np.ndarray]) -> np.ndarray:
        """Return one film and write what is known of it into the rows of `targets`."""
        film = self.squares.films[index]
        square, mask = self.squares.square(index)
        matrix = self._move(square.shape[0], film.region is not None, rng)
        bend = draw_bend(self.size, rng) if rng.random() < BENT_SHARE else None
        mesh = draw_mesh(matrix, self.size, bend)
        targets["logit"][:] = film.label
        if self.location and (film.label == 0 or mask is not None):
            places = targets["location"]
            places[..., 1] = 1.0
            if film.label == 1:
                moved = warp(mask, matrix, self.size, mesh)
                if FAINTEST <= moved.max() <= 127:
                    moved = np.where(moved > moved.max() // 2, np.uint8(255), np.uint8(0))
                places[..., 0] = pool_mask(moved, self.cells)
                # A break that lies outside the square cannot be seen in it.
                targets["logit"][:] = places[..., 0].max()
        changed = change_appearance(warp(square, matrix, self.size, mesh), rng)
        return change_texture(changed, rng) if self.textures and rng.random() < self.textures else changed

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
    epoch_films : int or None
        How many films with a wrist an epoch sees; None: all.
    """

    SHARE_WITHOUT = 0.35

    def __init__(
        self,
        squares: Squares,
        others: np.ndarray,
        *,
        input_size: int,
        batch_size: int,
        seed: int,
        epoch_films: int | None = None,
    ) -> None:
        self.squares, self.others, self.size = squares, others, input_size
        self.batch_size, self.seed, self.cells = batch_size, seed, input_size // STRIDE
        self.batches = max(1, int(_films_seen(squares, epoch_films) / (1 - self.SHARE_WITHOUT)) // batch_size)

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
        drawn = warp(square, matrix, self.size)
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
        return warp(other, matrix, self.size)


def _films_seen(squares: Squares, epoch_films: int | None) -> int:
    return len(squares) if epoch_films is None else min(epoch_films, len(squares))


def _cover_edges(square: np.ndarray, region: WristRegion, rng: np.random.Generator) -> np.ndarray:
    """Cover one or two edges, as padding and collimation do, at most up to 0.35 sides from the wrist's centre."""
    square, size = square.copy(), square.shape[0]
    value = 0 if rng.random() < 0.8 else int(rng.integers(128, 256))
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
    """Return a part of the film that shows something but not the wrist, uint8 (size, size), or None."""
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
        drawn = warp(square, matrix, size)
        if drawn.std() > 10:
            return drawn
    return None


class Feeder:
    """One epoch's batches in their order, made ahead by threads while the network computes.

    Parameters
    ----------
    sampler : FractureSampler or WristSampler
    epoch : int
    ready : callable, optional
        Applied to each (films, targets) by the thread that made it, as to bring it to the GPU.
    ahead : int or None
        How many batches may wait; None: twice as many as there are threads.

    Attributes
    ----------
    waited_s : float
        How long the network had to wait for batches so far.
    """

    def __init__(
        self,
        sampler: FractureSampler | WristSampler,
        epoch: int,
        ready: Callable[[Any], Any] | None = None,
        ahead: int | None = None,
    ) -> None:
        self.sampler, self.epoch, self.ready = sampler, epoch, ready or (lambda batch: batch)
        self.ahead = ahead or 2 * workers()
        self.waited_s = 0.0

    def __iter__(self) -> Iterator[Any]:
        """Yield the epoch's batches."""
        pool = ThreadPoolExecutor(workers(), thread_name_prefix="films")
        numbers = iter(range(self.sampler.batches))
        waiting: deque[Future] = deque()
        try:
            for number in numbers:
                waiting.append(pool.submit(self._make, number))
                if len(waiting) >= self.ahead:
                    break
            while waiting:
                begun = time.perf_counter()
                batch = waiting.popleft().result()
                self.waited_s += time.perf_counter() - begun
                for number in numbers:
                    waiting.append(pool.submit(self._make, number))
                    break
                yield batch
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _make(self, number: int) -> Any:
        return self.ready(self.sampler.batch(self.epoch, number))
