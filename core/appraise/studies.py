"""Simulated studies that no training has seen, made as they are read and kept nowhere."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np

from core.phantoms import VERSION
from core.values import Radiograph, WristRegion

FIRST_SEED = 2**53
"""Trainings draw their studies' seeds below this number (``core.phantoms`` writes seeds of 53 bits at most)."""
SEEDS_APART = 1_000_000
"""Test sets of different seeds share no study, up to this many studies."""
FILM_SIZE = 448
"""Longer side of a test film in pixels."""
_AHEAD = 6  # studies that wait for each process at most, so that memory stays bounded


@dataclass(frozen=True, eq=False)
class KnownFilm:
    """A simulated film as it is read from a file of 8 bits, and what is known of it.

    Attributes
    ----------
    radiograph : Radiograph
    mask : numpy.ndarray
        bool, the film's shape: where the break shows.
    region : WristRegion
        The true one.
    facts : Mapping
        ``label, kind, displacement_mm, gap_mm, spacing_mm, view, framing, child, hardware, cast``.
    """

    radiograph: Radiograph
    mask: np.ndarray
    region: WristRegion
    facts: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class KnownStudy:
    """One simulated patient's study."""

    id: str
    label: int
    films: tuple[KnownFilm, ...]


def name_of(film: KnownFilm) -> str:
    """Return a film's name with all that its pixels hang on: what was kept of another is not taken for its."""
    return f"{film.radiograph.id}-v{VERSION}-{max(film.mask.shape)}px"


def seeds_of(studies: int, seed: int = 0) -> list[tuple[int, bool]]:
    """Return (seed, broken) of each study of the test set called `seed`; every other study is broken."""
    start = FIRST_SEED + seed * SEEDS_APART
    return [(start + number, number % 2 == 0) for number in range(studies)]


def make_studies(
    seeds: Sequence[tuple[int, bool]], size: int = FILM_SIZE, jobs: int | None = None
) -> Iterator[KnownStudy]:
    """Yield simulated studies in the order of their seeds.

    Parameters
    ----------
    seeds : sequence of (int, bool)
        Seed, and whether something is broken.
    size : int
        Longer side of a film in pixels.
    jobs : int, optional
        Processes beside this one that make films; None: one a core; 0: they are made in this process.
    """
    make = partial(_make, size=size)
    jobs = min(os.cpu_count() or 1 if jobs is None else jobs, len(seeds))
    if jobs < 1:
        yield from (_unpack(make(item)) for item in seeds)
        return
    # Spawned, not forked: neither OpenCV's threads nor a network's survive a fork.
    with ProcessPoolExecutor(jobs, get_context("spawn"), _work_alone) as pool:
        waiting, items = deque(), iter(seeds)
        try:
            for item in items:
                waiting.append(pool.submit(make, item))
                if len(waiting) >= _AHEAD * jobs:
                    yield _unpack(waiting.popleft().result())
            while waiting:
                yield _unpack(waiting.popleft().result())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _work_alone() -> None:
    """Keep a worker to one core, and leave the keyboard's interrupt to the process that reads."""
    import signal

    import cv2

    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _make(item: tuple[int, bool], size: int) -> tuple[int, list[tuple]]:
    """Return a study in a form that travels between processes in few bytes."""
    from core.phantoms import simulate_study

    seed, broken = item
    films = []
    for film in simulate_study(seed, size=size, positive=broken):
        facts = {
            "label": film.label,
            "kind": film.kind,
            "displacement_mm": film.displacement_mm,
            "gap_mm": film.gap_mm,
            "spacing_mm": film.spacing_mm,
            "view": film.view,
            "framing": film.framing,
            "child": film.child,
            "hardware": film.hardware,
            "cast": film.cast,
        }
        pixels = np.round(film.pixels * 255).astype(np.uint8)
        films.append((pixels, np.packbits(film.mask), film.region, facts))
    return seed, films


def _unpack(made: tuple[int, list[tuple]]) -> KnownStudy:
    seed, films = made
    known = []
    for number, (pixels, bits, region, facts) in enumerate(films, start=1):
        mask = np.unpackbits(bits, count=pixels.size).reshape(pixels.shape).astype(bool)
        radiograph = Radiograph(f"simulated-{seed}-{number}", pixels.astype(np.float32) / np.float32(255), "PNG, 8 bit")
        known.append(KnownFilm(radiograph, mask, region, facts))
    return KnownStudy(f"simulated-{seed}", known[0].facts["label"], tuple(known))
