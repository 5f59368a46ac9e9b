"""How a square is changed each time it is trained on: its tones, its sharpness, and where it lies."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np

from core.values import WristRegion

LOCATION_STRIDE = 16
_TONES = np.arange(256, dtype=np.float64) / 255


def change_appearance(square: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """Change a square as exposure, processing and resolution differ between hospitals, never what it shows.

    Parameters
    ----------
    square : numpy.ndarray
        uint8 (size, size).
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
        width = float(np.exp(rng.uniform(np.log(0.6), np.log(size / 25))))
        more = rng.uniform(0.2, 2.0)
        square = cv2.addWeighted(square, 1.0 + more, _soften(square, width), -more, 0.0)
    gamma, contrast = np.exp(rng.normal(0.0, 0.25 * strength)), np.exp(rng.normal(0, 0.18 * strength))
    tones = (_TONES**gamma - 0.4) * contrast + 0.4 + rng.normal(0, 0.05 * strength)
    # A table of the 256 tones: far quicker than powers of every pixel.
    changed = cv2.LUT(square, tones.astype(np.float32))
    if rng.random() < 0.3 * strength:
        grain = rng.standard_normal(square.shape, np.float32)
        changed += np.float32(rng.uniform(0.004, 0.03)) * grain
    return np.clip(changed, 0.0, 1.0, out=changed)


def change_texture(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Give a film a texture that no simulator draws; shapes stay where they are.

    It is mixed with what a small filter of random numbers makes of it (Xu et al. 2021, "Robust and Generalizable Visual
    Representation Learning via Random Convolutions", https://arxiv.org/abs/2007.13003), and clouds are laid over it.

    Parameters
    ----------
    film : numpy.ndarray
        float32 (size, size) in [0, 1].
    rng : numpy.random.Generator

    Returns
    -------
    numpy.ndarray
        float32 (size, size) in [0, 1].
    """
    side = int(rng.choice([1, 3, 5, 7]))
    kernel = rng.normal(0.0, 1.0, (side, side)).astype(np.float32)
    filtered = cv2.filter2D(film, cv2.CV_32F, kernel, borderType=cv2.BORDER_REPLICATE)
    # As bright and as rich in contrast as the film was: the filter's own size means nothing.
    spread = float(filtered.std())
    if spread > 0:
        filtered = (filtered - filtered.mean()) * (film.std() / spread) + film.mean()
    share = float(rng.random())
    changed = cv2.addWeighted(film, share, filtered, 1.0 - share, 0.0)
    changed += np.float32(rng.uniform(0.0, 0.08)) * _clouds(film.shape[0], rng)
    return np.clip(changed, 0.0, 1.0, out=changed)


def _clouds(size: int, rng: np.random.Generator) -> np.ndarray:
    """Return smooth noise of several scales, float32 (size, size), of mean about 0 and deviation about 1."""
    clouds, cells = np.zeros((size, size), np.float32), 4
    while cells < size:
        knots = rng.standard_normal((cells, cells), np.float32)
        clouds += cv2.resize(knots, (size, size), interpolation=cv2.INTER_LINEAR) * np.float32(rng.random())
        cells *= 2
    return clouds / max(float(clouds.std()), 1e-6)


def _soften(square: np.ndarray, width: float) -> np.ndarray:
    """Blur; wide blurs on a quarter of the pixels, which looks the same and costs a fraction."""
    if width < 3.0:
        return cv2.GaussianBlur(square, (0, 0), width)
    size = square.shape[0]
    small = cv2.resize(square, (-(-size // 2),) * 2, interpolation=cv2.INTER_AREA)
    return cv2.resize(cv2.GaussianBlur(small, (0, 0), width / 2), (size, size), interpolation=cv2.INTER_LINEAR)


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


def draw_mesh(matrix: np.ndarray, size: int, bend: np.ndarray | None = None) -> np.ndarray | None:
    """Return where each pixel of the new square comes from, float32 (size, size, 2), or None without a bend."""
    if bend is None:
        return None
    return cv2.transform(_grid(size) + bend, matrix.astype(np.float32))


def warp(square: np.ndarray, matrix: np.ndarray, size: int, mesh: np.ndarray | None = None) -> np.ndarray:
    """Return the square of `size` that `matrix`, or the mesh drawn from it, takes from another one; black outside."""
    if mesh is not None:
        return cv2.remap(square, mesh, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(square, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=0)


@lru_cache(maxsize=8)
def _grid(size: int) -> np.ndarray:
    columns, rows = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
    grid = np.stack([columns, rows], axis=-1)
    grid.flags.writeable = False
    return grid


def pool_mask(mask: np.ndarray, cells: int) -> np.ndarray:
    """Return float32 (cells, cells): 1 where any of a cell's `LOCATION_STRIDE` squared pixels is above one half."""
    padded = np.zeros((cells * LOCATION_STRIDE,) * 2, np.uint8)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    blocks = padded.reshape(cells, LOCATION_STRIDE, cells, LOCATION_STRIDE)
    return (blocks.max(axis=(1, 3)) > 127).astype(np.float32)


def mix_up(
    films: np.ndarray, targets: dict[str, np.ndarray], alpha: float, rng: np.random.Generator
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Mix each film of a batch, and all that is known of it, with another one of the batch.

    Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization", https://arxiv.org/abs/1710.09412: the share of the
    film itself is drawn from Beta(alpha, alpha).

    Parameters
    ----------
    films : numpy.ndarray
        float32 (n, size, size, 1).
    targets : dict of numpy.ndarray
        Each (n, ...).
    alpha : float
        Above 0.
    rng : numpy.random.Generator
    """
    partner = rng.permutation(len(films))
    own = rng.beta(alpha, alpha, len(films)).astype(np.float32)

    def mixed(values: np.ndarray) -> np.ndarray:
        share = own.reshape(-1, *[1] * (values.ndim - 1))
        return share * values + (1 - share) * values[partner]

    told = {name: mixed(values) for name, values in targets.items()}
    if "location" in told:
        # Where the place of one film's fracture is not known, the other's alone is learned, with its share of weight.
        mask, counts = targets["location"][..., :1], targets["location"][..., 1:]
        known = mixed(counts)
        told["location"] = np.concatenate([mixed(mask * counts) / np.maximum(known, 1e-6), known], axis=-1)
    return mixed(films), told
