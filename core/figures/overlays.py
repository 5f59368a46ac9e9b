"""Heat and outlines laid over a film."""

from __future__ import annotations

import cv2
import numpy as np

from core.errors import ScaphoidError
from core.values import WristRegion

_OUTLINE = (79, 209, 165)  # seen on grey and on the colours of heat


def heat_colours() -> np.ndarray:
    """Return the colour of every heat level: uint8, shape (256, 3), RGB, from black over red to pale yellow.

    The colours rise evenly in lightness (the "inferno" map), so that equal steps of heat look like equal steps and
    the order survives in grey and for readers who do not see all colours.
    """
    levels = np.arange(256, dtype=np.uint8)[:, None]
    return cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[:, 0, ::-1].copy()


def overlay_image(pixels: np.ndarray, heatmap: np.ndarray, opacity: float = 0.6) -> np.ndarray:
    """Lay heat over a film. Where there is no heat the film is unchanged, to the last grey level.

    Parameters
    ----------
    pixels : numpy.ndarray
        Film, shape (height, width), range [0, 1].
    heatmap : numpy.ndarray
        Same shape, range [0, 1].
    opacity : float
        Share of the heat's colour where the heat is 1, range [0, 1].

    Returns
    -------
    numpy.ndarray
        uint8, shape (height, width, 3), RGB.

    Raises
    ------
    ScaphoidError
        If the shapes differ or `opacity` lies outside [0, 1].
    """
    if pixels.shape != heatmap.shape:
        raise ScaphoidError(f"A heat map must have its film's size {pixels.shape}, but this one has {heatmap.shape}.")
    if not 0 <= opacity <= 1:
        raise ScaphoidError(f"Opacity must lie between 0 and 1, not at {opacity}.")
    colours = heat_colours()[np.rint(heatmap * 255).astype(np.uint8)].astype(np.float32)
    share = (opacity * heatmap)[..., None]
    return np.rint(255 * pixels[..., None] * (1 - share) + colours * share).astype(np.uint8)


def film_image(pixels: np.ndarray, heatmap: np.ndarray | None = None, mask: np.ndarray | None = None) -> np.ndarray:
    """Return a film as a picture, with heat over it and an outline around what is marked, where they are given.

    Parameters
    ----------
    pixels : numpy.ndarray
        Film, shape (height, width), range [0, 1].
    heatmap : numpy.ndarray, optional
        Same shape, range [0, 1].
    mask : numpy.ndarray, optional
        Same shape, bool.

    Returns
    -------
    numpy.ndarray
        uint8, shape (height, width), or (height, width, 3) in RGB where something lies over it.
    """
    picture = np.rint(255 * pixels).astype(np.uint8) if heatmap is None else overlay_image(pixels, heatmap)
    return picture if mask is None or not mask.any() else outline_image(picture, mask)


def around_region(picture: np.ndarray, region: WristRegion | None, margin: float = 0.08) -> np.ndarray:
    """Return the upright part of a picture of a film that holds a region's square.

    Parameters
    ----------
    picture : numpy.ndarray
        Shape (height, width) or (height, width, 3).
    region : WristRegion or None
        None, or one that lies outside: the whole picture.
    margin : float
        Left around the square, as a share of its side.
    """
    rows, columns = region_slices(picture.shape[:2], region, margin)
    return picture[rows, columns]


def region_slices(shape: tuple[int, int], region: WristRegion | None, margin: float = 0.08) -> tuple[slice, slice]:
    """Return the rows and the columns of that part, of a film of this height and width."""
    height, width = shape
    if region is None:
        return slice(0, height), slice(0, width)
    turn = np.deg2rad(region.angle)
    half = region.side * ((abs(np.cos(turn)) + abs(np.sin(turn))) / 2 + margin)
    top, left = (max(0, int(np.floor(centre - half))) for centre in (region.y, region.x))
    bottom, right = (min(end, int(np.ceil(centre + half))) for centre, end in ((region.y, height), (region.x, width)))
    if top >= bottom or left >= right:
        return slice(0, height), slice(0, width)
    return slice(top, bottom), slice(left, right)


def outline_image(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Draw the border of what is marked on a picture.

    Parameters
    ----------
    picture : numpy.ndarray
        uint8, grey (height, width) or RGB (height, width, 3); it stays as it is.
    mask : numpy.ndarray
        bool, shape (height, width).

    Returns
    -------
    numpy.ndarray
        uint8, shape (height, width, 3), RGB.
    """
    drawn = np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture.copy()
    # Around it, not on it: a thin break would vanish below its own outline.
    width = max(1, round(max(mask.shape) / 400))
    around = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=2 * width)
    borders, _ = cv2.findContours(around, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(drawn, borders, -1, _OUTLINE, width)


def png_bytes(image: np.ndarray) -> bytes:
    """Encode a uint8 picture, grey (height, width) or RGB (height, width, 3), as PNG without any metadata."""
    ok, data = cv2.imencode(".png", image if image.ndim == 2 else image[..., ::-1])
    if not ok:
        raise ScaphoidError(f"A picture of shape {image.shape} could not be written as PNG.")
    return data.tobytes()
