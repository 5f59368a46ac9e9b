"""What lies on a finished film besides the limb: collimation, side markers, burnt-in text, pads, a viewer's bars."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

_FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_PLAIN,
    cv2.FONT_HERSHEY_SCRIPT_COMPLEX,
)
_MARKERS = ("label", "letter", "thin", "ringed", "tag", "cut")
_WORDS = ("AP", "PA", "LAT", "OBL", "WRIST", "HAND", "FOREARM", "PORTABLE", "STANDING", "POST", "kVp 55", "1:1")


@dataclass(frozen=True)
class Overlay:
    """What lies on a film besides the limb. Insets are fractions of the film's sides: left, top, right, bottom."""

    insets: tuple[float, float, float, float]
    tilt: float
    rounding: float
    outside: float
    soft: float
    marker: str
    marker_style: str
    marker_mm: float
    text: int
    toolbar: float
    pad: float
    rim: float
    seed: int


def draw_overlay(rng: np.random.Generator, framing: str, laterality: str) -> Overlay:
    """Draw collimation, marker, text and borders. Nothing here knows whether the wrist is broken."""
    tight = framing == "tight"
    shuttered = rng.random() < (0.15 if tight else 0.35)
    insets = rng.uniform(0, 0.1, 4) * (rng.random(4) < 0.7) if shuttered else np.zeros(4)
    toolbar = rng.uniform(0.02, 0.07) if rng.random() < 0.07 and not tight else 0.0
    letter = laterality if rng.random() < 0.95 else rng.choice(["L", "R"])
    return Overlay(
        insets=tuple(float(v) for v in insets),
        tilt=float(rng.normal(0, 2.5)) if shuttered and not tight and rng.random() < 0.5 else 0.0,
        rounding=float(rng.uniform(0.02, 0.12)) if rng.random() < 0.2 else 0.0,
        outside=float(rng.choice([0.0, 0.02, 0.92, 1.0], p=[0.45, 0.2, 0.2, 0.15])),
        soft=float(rng.uniform(0.3, 4.0)),
        marker=str(letter) if rng.random() < (0.25 if tight else 0.6) else "",
        marker_style=str(rng.choice(_MARKERS, p=(0.3, 0.2, 0.12, 0.1, 0.16, 0.12))),
        marker_mm=float(rng.uniform(6, 15)),
        text=int(rng.integers(1, 4)) if rng.random() < 0.1 and not tight else 0,
        toolbar=float(toolbar),
        pad=float(rng.uniform(0.25, 1.0)) if rng.random() < (0.03 if tight else 0.07) else 0.0,
        rim=float(rng.uniform(0.4, 1.0)) if rng.random() < (0.05 if tight else 0.2) else 0.0,
        seed=int(rng.integers(2**31)),
    )


def open_corners(overlay: Overlay, shape: tuple[int, int]) -> np.ndarray:
    """Return the corners (4, 2) in pixels of the exposed part of a film of `shape` (height, width)."""
    height, width = shape
    left, top, right, bottom = overlay.insets
    bottom = max(bottom, overlay.toolbar)
    corners = np.array([[left, top], [1 - right, top], [1 - right, 1 - bottom], [left, 1 - bottom]]) * [width, height]
    if overlay.tilt and any(overlay.insets):
        centre = corners.mean(axis=0)
        angle = np.deg2rad(overlay.tilt)
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        corners = (corners - centre) @ rotation.T + centre
    return corners


def finish(film: np.ndarray, overlay: Overlay, corners: np.ndarray, keep_free: np.ndarray, per_mm: float) -> np.ndarray:
    """Lay collimation, marker, text and toolbar over a film.

    Parameters
    ----------
    film : numpy.ndarray
        float32 (height, width); what lies outside [0, 1] is clipped.
    overlay : Overlay
    corners : numpy.ndarray
        From :func:`open_corners`.
    keep_free : numpy.ndarray
        (n, 2), pixels of the limb's axis, which the marker stays away from.
    per_mm : float
        Pixels per mm.

    Returns
    -------
    numpy.ndarray
        float32 (height, width), [0, 1].
    """
    rng = np.random.default_rng(overlay.seed)
    film = np.clip(film, 0, 1)
    if overlay.pad:
        film = _lay_pad(film, overlay.pad, rng)
    if any(overlay.insets):
        open_part = _open_part(film.shape, overlay, corners)
        film = film * open_part + (1 - open_part) * np.float32(overlay.outside)
    if overlay.rim:
        _draw_rim(film, overlay.rim, rng)
    if overlay.marker:
        _draw_marker(film, overlay, keep_free, per_mm, rng)
    if overlay.text:
        _draw_text(film, overlay.text, rng)
    if overlay.toolbar:
        _draw_toolbar(film, overlay.toolbar, rng)
    return film


def _paint(film: np.ndarray, cover: np.ndarray, value: float) -> None:
    """Set a film to `value` where `cover` (uint8) is 255, in part where it is less."""
    film += (np.float32(value) - film) * (cover.astype(np.float32) / 255)


def _open_part(shape: tuple[int, int], overlay: Overlay, corners: np.ndarray) -> np.ndarray:
    opened = np.zeros(shape, np.uint8)
    cv2.fillPoly(opened, [np.round(corners * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    if overlay.rounding:  # a wide blur cut at half its height rounds the corners off
        radius = overlay.rounding * min(shape)
        opened = cv2.copyMakeBorder(opened, 8, 8, 8, 8, cv2.BORDER_CONSTANT, value=0)
        blurred = cv2.GaussianBlur(opened, (0, 0), max(radius * 0.7, 0.8))
        opened = cv2.threshold(blurred, 118, 255, cv2.THRESH_BINARY)[1][8:-8, 8:-8]
    return cv2.GaussianBlur(opened, (0, 0), overlay.soft).astype(np.float32) / 255


def _lay_pad(film: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Lay a sandbag, a lead strip or a neighbour's hand over a corner: a bright wedge with a soft edge."""
    height, width = film.shape
    x, y = (float(v) for v in rng.uniform(0.05, 0.32, 2))
    points = np.array([[0, 0], [x, 0], [x * rng.uniform(0, 0.8), y * rng.uniform(0.3, 1)], [0, y]]) * [width, height]
    if rng.random() < 0.5:
        points[:, 0] = width - points[:, 0]
    if rng.random() < 0.6:
        points[:, 1] = height - points[:, 1]
    cover = np.zeros(film.shape, np.uint8)
    cv2.fillPoly(cover, [np.round(points * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    cover = cv2.GaussianBlur(cover, (0, 0), float(rng.uniform(0.5, 3.0)))
    return np.maximum(film, (film + np.float32(strength) * (1 - film)) * (cover.astype(np.float32) / 255))


def _draw_rim(film: np.ndarray, strength: float, rng: np.random.Generator) -> None:
    """Draw the worn rim of a cassette: a broken bright line along some of the edges."""
    cover = np.zeros(film.shape, np.uint8)
    height, width = film.shape
    thick = max(round(max(height, width) / 250), 1)
    inset = int(rng.uniform(0, 0.02) * width)
    ends = ((inset, inset), (width - 1 - inset, inset), (width - 1 - inset, height - 1), (inset, height - 1))
    for number in range(4):
        if rng.random() < 0.55:
            start, end = np.array(ends[number], float), np.array(ends[(number + 1) % 4], float)
            bend = rng.normal(0, 0.012, 2) * width
            low, high = np.sort(rng.uniform(-0.2, 1.2, 2)).clip(0, 1)
            path = [start + (end - start) * t + bend * np.sin(np.pi * t) for t in np.linspace(low, high, 9)]
            cv2.polylines(cover, [np.round(np.array(path) * 16).astype(np.int32)], False, 255, thick, cv2.LINE_AA, 4)
    _paint(film, cover, strength)


def _draw_marker(film: np.ndarray, overlay: Overlay, keep_free: np.ndarray, per_mm: float, rng) -> None:
    """Draw the side marker at the place farthest from the limb among a few."""
    height, width = film.shape
    side = int(np.clip(overlay.marker_mm * per_mm, 6, min(height, width) // 2))
    places = np.column_stack([rng.uniform(0, width - side, 12), rng.uniform(0, height - side, 12)])
    away = np.hypot(*(places[:, None] + side / 2 - keep_free[None]).transpose(2, 0, 1)).min(axis=1)
    x, y = places[away.argmax()].astype(int)
    plate, letter = _letter(overlay, max(side, 12), rng)
    turned = float(rng.choice([0, 0, 0, 180, 90, -90])) + rng.normal(0, 4) if overlay.marker_style != "label" else 0.0
    matrix = cv2.getRotationMatrix2D((plate.shape[1] / 2, plate.shape[0] / 2), turned, 1.0)
    plate, letter = (cv2.resize(cv2.warpAffine(v, matrix, v.shape[::-1]), (side, side), interpolation=cv2.INTER_AREA)
                     for v in (plate, letter))  # fmt: skip
    patch = film[y : y + side, x : x + side]
    ground, ink = {"label": (1.0, 0.0), "tag": (rng.uniform(0.35, 0.7), 1.0), "cut": (1.0, rng.uniform(0.1, 0.5))}.get(
        overlay.marker_style, (0.0, rng.uniform(0.8, 1.0))
    )
    _paint(patch, plate, ground)
    _paint(patch, letter, ink)


def _letter(overlay: Overlay, side: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the cover of a marker's plate and of its letter, uint8 (side, side)."""
    plate, letter = np.zeros((side, side), np.uint8), np.zeros((side, side), np.uint8)
    font = int(rng.choice(_FONTS)) if overlay.marker_style != "label" else cv2.FONT_HERSHEY_SIMPLEX
    thickness = 1 if overlay.marker_style == "thin" else max(side // 9, 1)
    (wide, high), _ = cv2.getTextSize(overlay.marker, font, 1.0, 1)
    scale = 0.62 * side / max(high, 1)
    origin = (round(side / 2 - wide * scale / 2), round(side / 2 + high * scale / 2))
    cv2.putText(letter, overlay.marker, origin, font, scale, 255, thickness, cv2.LINE_AA)
    if overlay.marker_style in ("label", "tag"):
        plate[side // 10 : side - side // 10] = 255
    elif overlay.marker_style == "cut":
        cv2.circle(plate, (side // 2, side // 2), side // 2 - 1, 255, -1, cv2.LINE_AA)
    elif overlay.marker_style == "ringed":
        cv2.circle(letter, (side // 2, side // 2), side // 2 - thickness, 255, thickness, cv2.LINE_AA)
    return plate, letter


def _draw_text(film: np.ndarray, lines: int, rng) -> None:
    height, width = film.shape
    scale = max(height, width) / 900
    x, y = int(rng.choice([0.02, 0.6]) * width), int(rng.choice([0.06, 0.85]) * height)
    cover = np.zeros(film.shape, np.uint8)
    font = int(rng.choice([cv2.FONT_HERSHEY_PLAIN, cv2.FONT_HERSHEY_SIMPLEX]))
    size = max(scale * (1.3 if font == cv2.FONT_HERSHEY_PLAIN else 0.7), 0.3)
    for line in range(lines):
        if rng.random() < 0.5:
            words = " ".join("".join(rng.choice(list("ABCDEHKMNPRSTUVX0123456789"), 6)) for _ in range(2))
        else:
            words = " ".join(str(word) for word in rng.choice(_WORDS, 2))
        cv2.putText(cover, words, (x, y + int(line * 26 * scale)), font, size, 255, 1, cv2.LINE_AA)
    _paint(film, cover, float(rng.uniform(0.7, 1.0)))


def _draw_toolbar(film: np.ndarray, share: float, rng) -> None:
    height, width = film.shape
    top = int(height * (1 - share))
    film[top:] = rng.uniform(0.27, 0.7)
    for x in range(int(rng.uniform(2, 20)), width, max(int(width / rng.uniform(6, 14)), 6)):
        bright = float(rng.uniform(0.08, 1.0))
        cv2.rectangle(film, (x, top + 2), (x + max(width // 30, 3), height - 3), bright, -1)
