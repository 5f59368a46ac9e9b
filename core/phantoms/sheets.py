"""Contact sheets: many simulated films at a glance, each with its fracture outlined and named."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

_EDGE = (40, 150, 255)  # orange, blue first as OpenCV has it
_INK = (225, 225, 225)


def draw_sheet(films: Iterable[tuple[np.ndarray, np.ndarray, str]], *, tile: int = 240, columns: int = 8) -> np.ndarray:
    """Draw films side by side.

    Parameters
    ----------
    films : iterable of (pixels, mask, title)
        Pixels float (height, width) in [0, 1]; mask bool of the same shape; the title is written above the film.
    tile : int
        Side of a film's place in pixels; longer films are shrunk to it, shorter ones enlarged.
    columns : int

    Returns
    -------
    numpy.ndarray
        uint8 (height, width, 3), in OpenCV's order blue, green, red.
    """
    tiles = [_draw_tile(pixels, mask, title, tile) for pixels, mask, title in films]
    if not tiles:
        raise ValueError("films must hold at least one film")
    columns = min(columns, len(tiles))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[start : start + columns]) for start in range(0, len(tiles), columns)])


def _draw_tile(pixels: np.ndarray, mask: np.ndarray, title: str, side: int) -> np.ndarray:
    height, width = pixels.shape
    factor = (side - 4) / max(height, width)
    size = (max(round(width * factor), 1), max(round(height * factor), 1))
    grey = cv2.resize(pixels.astype(np.float32), size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    film = cv2.cvtColor(np.round(np.clip(grey, 0, 1) * 255).astype(np.uint8), cv2.COLOR_GRAY2BGR)
    shown = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    outlines, _ = cv2.findContours(shown, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(film, outlines, -1, _EDGE, 1, cv2.LINE_AA)
    canvas = np.zeros((side + 14, side, 3), np.uint8)
    canvas[14 : 14 + size[1], : size[0]] = film
    cv2.putText(canvas, title, (2, 10), cv2.FONT_HERSHEY_SIMPLEX, 0.33, _INK, 1, cv2.LINE_AA)
    return canvas
