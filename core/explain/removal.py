"""What taking away the places that a heat map marks does to the answer, beside taking away others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from core.explain import FORWARD_BATCH

REMOVED = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
"""Shares of the square that are taken away, or given back, hottest first. A break covers a few in a hundred."""
REMOVED_BLUR = 0.06
"""What is taken away is blurred, by a Gaussian of this share of the square's side: wider than any break."""
RANDOM_ORDERS = 3
_BLOCKS = 16
_TIES = 2**32 - 1
"""Seed of the order where there is none; no random order is drawn from it."""


@dataclass(frozen=True, eq=False)
class Removal:
    """What taking away the hottest places does to the score, beside taking away others.

    Attributes
    ----------
    deletion, insertion : float
        Mean fall of the score (sign x logit) while `REMOVED` of the square are blurred, hottest first; and its mean
        rise while they are given back to a blurred square (Petsiuk et al., RISE, BMVC 2018, in logits).
    random : tuple of float
        The same two, blocks in random order, the mean over `RANDOM_ORDERS` orders.
    edges : tuple of float
        The same two, in the order of the edges of the film's bones.
    """

    deletion: float
    insertion: float
    random: tuple[float, float]
    edges: tuple[float, float]


def measure_removal(
    run: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    square: np.ndarray,
    heat: np.ndarray,
    edges: np.ndarray,
    sign: int,
    seed: int = 0,
) -> Removal:
    """Measure what taking away the hottest places does to the score; see :class:`Removal`.

    Parameters
    ----------
    run : callable
        Squares (n, size, size, 1) to a dict with ``logit``, n rows.
    square : numpy.ndarray
        float32, shape (size, size), range [0, 1].
    heat : numpy.ndarray
        Shape (n, n), over the same square.
    edges : numpy.ndarray
        Shape (size, size): the film's edges, see ``core.explain.stray.bone_edges``.
    sign : int
        1 for the positive label, -1 against it.
    seed : int
        Of the random orders.
    """
    size = square.shape[0]
    random = np.random.default_rng(seed)
    full = cv2.resize(np.ascontiguousarray(heat, np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
    blocks = [random.permutation(_BLOCKS**2).reshape(_BLOCKS, _BLOCKS).astype(np.float32) for _ in range(RANDOM_ORDERS)]
    chance = [cv2.resize(each, (size, size), interpolation=cv2.INTER_NEAREST) for each in blocks]
    orders = [full, edges, *chance]
    blurred = cv2.GaussianBlur(square, (0, 0), REMOVED_BLUR * size)
    whole, empty = sign * run(np.stack([square, blurred])[..., None])["logit"].ravel()
    found = np.array([_remove(run, square, blurred, order, sign) for order in orders])
    deletion, insertion = whole - found[:, 0], found[:, 1] - empty
    return Removal(
        float(deletion[0]),
        float(insertion[0]),
        (float(deletion[2:].mean()), float(insertion[2:].mean())),
        (float(deletion[1]), float(insertion[1])),
    )


def _remove(
    run: Callable, square: np.ndarray, blurred: np.ndarray, order: np.ndarray, sign: int
) -> tuple[float, float]:
    """Return the mean score with the first places of an order taken away, and with only them left."""
    # A map that is flat over half the square, or empty, has no order there. Ties are settled by blocks, as in the
    # random orders: pixels taken one by one would be something to see in themselves.
    blocks = np.random.default_rng(_TIES).permutation(_BLOCKS**2).reshape(_BLOCKS, _BLOCKS).astype(np.float32)
    ties = cv2.resize(blocks, order.shape[::-1], interpolation=cv2.INTER_NEAREST) / _BLOCKS**2
    flat = (order.astype(np.float64) + 1e-6 * float(order.max() or 1.0) * ties).ravel()
    ranks = np.argsort(np.argsort(-flat, kind="stable"), kind="stable").reshape(order.shape)
    hot = [(ranks < share * ranks.size) for share in REMOVED]
    squares = [np.where(each, blurred, square) for each in hot] + [np.where(each, square, blurred) for each in hot]
    batches = (np.stack(squares[start : start + FORWARD_BATCH]) for start in range(0, len(squares), FORWARD_BATCH))
    scores = sign * np.concatenate([run(each.astype(np.float32)[..., None])["logit"].ravel() for each in batches])
    return float(scores[: len(hot)].mean()), float(scores[len(hot) :].mean())
