"""Film -> the square a network reads, and the exact way back."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from core.values import FITS, WristRegion


@dataclass(frozen=True, eq=False)
class SquareFit:
    """How a film, or the wrist's square on it, lies in the square picture that a network reads.

    Attributes
    ----------
    matrix : numpy.ndarray
        float64, shape (2, 3): film to square, both in pixel-centre coordinates (the centre of the top-left pixel is
        (0, 0), x before y), which is OpenCV's convention.
    film_shape : tuple of int
        (height, width) of the film.
    size : int
        Pixels a side of the square.

    Notes
    -----
    In edge coordinates, where a pixel reaches from i to i + 1, the map is a similarity: film point p becomes
    ``size / side * R (p - centre) + size / 2``. Pixel centres lie half a pixel further in on both sides. Where films
    are stretched, p is first scaled along both sides to the longer one, and so is the centre.
    """

    matrix: np.ndarray
    film_shape: tuple[int, int]
    size: int

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, dtype=np.float64)
        matrix.flags.writeable = False
        object.__setattr__(self, "matrix", matrix)

    @property
    def inverse(self) -> np.ndarray:
        """Square to film, float64, shape (2, 3), pixel-centre coordinates."""
        return cv2.invertAffineTransform(self.matrix)

    @property
    def scales(self) -> tuple[float, float]:
        """Pixels of the square for one of the film, along the film's rows and along its columns."""
        across, down = np.hypot(self.matrix[0, :2], self.matrix[1, :2])
        return float(across), float(down)

    def _find_box(self, margin: float) -> tuple[int, int, int, int]:
        """Return the part of the film that holds the square and a margin: left, top, right, bottom, ends not in it."""
        height, width = self.film_shape
        edge = self.size - 0.5
        corners = np.array([[-0.5, -0.5, 1], [edge, -0.5, 1], [-0.5, edge, 1], [edge, edge, 1]]) @ self.inverse.T
        left, top = np.clip(np.floor(corners.min(axis=0) - margin), 0, (width, height)).astype(int)
        right, bottom = np.clip(np.ceil(corners.max(axis=0) + margin) + 1, 0, (width, height)).astype(int)
        return int(left), int(top), int(right), int(bottom)

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Return what the network reads.

        Parameters
        ----------
        pixels : numpy.ndarray
            The film, `film_shape`, [0, 1].

        Returns
        -------
        numpy.ndarray
            float32, shape (size, size), [0, 1]; 0 outside the film. Where the film is reduced, every film pixel counts
            (area average), so nothing aliases; where it is enlarged, the values between pixels are bilinear.
        """
        height, width = self.film_shape
        if pixels.shape != self.film_shape:
            raise ValueError(f"expected a film of shape {self.film_shape}, got {pixels.shape}")
        left, top, right, bottom = self._find_box(margin=2 + 2 / min(self.scales))
        if right <= left or bottom <= top:
            return np.zeros((self.size, self.size), np.float32)
        part = np.asarray(pixels[top:bottom, left:right], dtype=np.float32)
        across, down = (min(scale, 1.0) for scale in self.scales)
        reduced = max(1, round(part.shape[0] * down)), max(1, round(part.shape[1] * across))
        step_y, step_x = part.shape[0] / reduced[0], part.shape[1] / reduced[1]
        if reduced != part.shape:
            part = cv2.resize(part, reduced[::-1], interpolation=cv2.INTER_AREA)
        # Reduced pixel centre i is film pixel centre (i + 0.5) * step - 0.5 + left.
        to_film = np.array([[step_x, 0, (step_x - 1) / 2 + left], [0, step_y, (step_y - 1) / 2 + top], [0, 0, 1]])
        square = cv2.warpAffine(
            part, self.matrix @ to_film, (self.size, self.size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        _clear_outside(square, self.inverse, width, height)
        return np.clip(square, 0, 1, out=square)

    def invert(self, square: np.ndarray) -> np.ndarray:
        """Return a map over the square laid back on the film.

        Parameters
        ----------
        square : numpy.ndarray
            Shape (rows, columns): any numbers of cells that share the square evenly, so a coarse feature map too.

        Returns
        -------
        numpy.ndarray
            float32, `film_shape`; bilinear between cells' centres, 0 outside the square.
        """
        height, width = self.film_shape
        if square.ndim != 2:
            raise ValueError(f"expected a map of 2 dimensions, got shape {square.shape}")
        down, across = (cells / self.size for cells in square.shape)
        to_cells = np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2]])
        matrix = to_cells @ np.vstack([self.matrix, [0, 0, 1]])
        # Only the square's own bounding box is touched: the rest of a large film stays untouched zeros.
        left, top, right, bottom = self._find_box(margin=1)
        matrix[:, 2] += matrix[:, :2] @ [left, top]
        film = np.zeros((height, width), np.float32)
        if right > left and bottom > top:
            part = cv2.warpAffine(
                np.ascontiguousarray(square, dtype=np.float32),
                matrix,
                (right - left, bottom - top),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            )
            inside = self.matrix.copy()
            inside[:, 2] += inside[:, :2] @ [left, top]
            _clear_outside(part, inside, self.size, self.size)
            film[top:bottom, left:right] = part
        return film


def _clear_outside(picture: np.ndarray, matrix: np.ndarray, width: int, height: int) -> None:
    """Set to 0, in place, the pixels whose centres `matrix` sends outside a frame of `width` x `height` pixels.

    The inside is convex, so in every row it is one run, whose ends are solved for rather than tested pixel by pixel.
    """
    rows, columns = picture.shape
    y = np.arange(rows, dtype=np.float64)
    first, last = np.zeros(rows), np.full(rows, columns - 1.0)
    for (along, down, shift), length in zip(matrix, (width, height), strict=True):
        start = down * y + shift
        if abs(along) < 1e-12:
            outside = (start < -0.5) | (start > length - 0.5)
            first[outside] = columns
            continue
        ends = np.stack([(-0.5 - start) / along, (length - 0.5 - start) / along])
        first, last = np.maximum(first, ends.min(axis=0)), np.minimum(last, ends.max(axis=0))
    begin = np.clip(np.ceil(first - 1e-9), 0, columns).astype(int)
    end = np.maximum(np.clip(np.floor(last + 1e-9) + 1, 0, columns).astype(int), begin)
    for row, start, stop in zip(picture, begin, end, strict=True):
        row[:start] = 0
        row[stop:] = 0


def fit_square(height: int, width: int, size: int, region: WristRegion | None = None, fit: str = "pad") -> SquareFit:
    """Say how a film, or a region of it, becomes a square.

    Parameters
    ----------
    height, width : int
        Of the film.
    size : int
        Pixels a side of the square.
    region : WristRegion or None
        Its square is cut out and turned so that the fingers point up. Without one the whole film is taken, centred.
    fit : str
        One of :data:`core.values.FITS`. Where films are stretched a region's square is cut out of the stretched film,
        whose sides are as long as the longer one was; its centre is still given in the film's own pixels.

    Returns
    -------
    SquareFit

    Raises
    ------
    ValueError
        A size, region or fit that is none.
    """
    if fit not in FITS:
        raise ValueError(f"expected one of {', '.join(FITS)}, got another fit")
    x, y, side, angle = width / 2, height / 2, float(max(height, width)), 0.0
    if region is not None:
        x, y, side, angle = region.x, region.y, region.side, np.deg2rad(region.angle)
    if not (height > 0 and width > 0 and size > 0 and side > 0 and np.isfinite([x, y, side, angle]).all()):
        raise ValueError("expected a film, a size and a region of positive, finite extent")
    scale = size / side
    # Fingers point along (sin, -cos) on the film, y downwards; on the square along (0, -1).
    turn = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    if fit == "stretch":
        turn = turn * (max(height, width) / np.array([width, height]))
    shift = size / 2 - 0.5 - turn @ [x - 0.5, y - 0.5]
    return SquareFit(np.column_stack([turn, shift]), (height, width), size)
