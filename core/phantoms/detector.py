"""From attenuation to the film a reader sees: exposure, scatter, noise, a maker's processing, collimation, markers."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Detector:
    """How one machine exposes and processes; both films of a study share it. Lengths in mm of an adult's wrist."""

    blur_mm: float
    scatter: float
    noise: float
    enhance: float
    enhance_mm: float
    contrast: float
    contrast_mm: float
    latitude: float
    latitude_mm: float
    low_percentile: float
    high_percentile: float
    gamma: float
    floor: float
    ceiling: float
    across_wrist: float
    crisp: float
    jpeg: int
    banding: float


@dataclass(frozen=True)
class Overlay:
    """What lies on a film besides the limb. Insets are fractions of the film's sides: left, top, right, bottom."""

    insets: tuple[float, float, float, float]
    tilt: float
    outside: float
    soft: float
    marker: str
    marker_style: int
    marker_mm: float
    text: int
    toolbar: float
    ring: float
    cast: float
    seed: int


def draw_detector(rng: np.random.Generator) -> Detector:
    """Draw a machine: one in four barely processes, the others sharpen and compress as makers do."""
    strong = rng.random() < 0.72
    compress = rng.random() < 0.78
    grey = rng.random() < 0.2
    return Detector(
        blur_mm=rng.uniform(0.1, 0.3),
        scatter=rng.uniform(0.03, 0.25),
        noise=10 ** rng.uniform(-2.7, -1.7),
        enhance=rng.uniform(0.8, 5.0) if strong else rng.uniform(0, 0.6),
        enhance_mm=rng.uniform(0.5, 1.3),
        contrast=rng.uniform(0.2, 1.6) if strong else 0.0,
        contrast_mm=rng.uniform(2.0, 4.5),
        latitude=rng.uniform(0.4, 0.95) if compress else rng.uniform(0, 0.15),
        latitude_mm=rng.uniform(9, 18),
        low_percentile=rng.uniform(1, 22) if rng.random() < 0.6 else rng.uniform(0.1, 2.0),
        high_percentile=rng.uniform(98.2, 99.8),
        gamma=rng.uniform(0.8, 1.5),
        floor=rng.uniform(0.1, 0.3) if grey else rng.uniform(0, 0.08),
        ceiling=rng.uniform(0.85, 1.0),
        across_wrist=float(np.exp(rng.uniform(np.log(75), np.log(260)))) if rng.random() < 0.7 else 1e4,
        crisp=rng.uniform(0.3, 1.2) if rng.random() < 0.45 else 0.0,
        jpeg=int(rng.integers(50, 95)) if rng.random() < 0.6 else 0,
        banding=rng.uniform(0.003, 0.015) if rng.random() < 0.3 else 0.0,
    )


def draw_overlay(rng: np.random.Generator, framing: str, laterality: str) -> Overlay:
    """Draw collimation, marker, text, ring and cast. Nothing here knows whether the wrist is broken."""
    tight = framing == "tight"
    shuttered = rng.random() < (0.15 if tight else 0.35)
    insets = rng.uniform(0, 0.1, 4) * (rng.random(4) < 0.7) if shuttered else np.zeros(4)
    toolbar = rng.uniform(0.03, 0.07) if rng.random() < 0.07 and not tight else 0.0
    letter = laterality if rng.random() < 0.95 else rng.choice(["L", "R"])
    return Overlay(
        insets=tuple(float(v) for v in insets),
        tilt=float(rng.normal(0, 2.5)) if shuttered and not tight and rng.random() < 0.5 else 0.0,
        outside=float(rng.choice([0.0, 0.02, 0.92, 1.0], p=[0.45, 0.2, 0.2, 0.15])),
        soft=float(rng.uniform(0.3, 4.0)),
        marker=str(letter) if rng.random() < (0.25 if tight else 0.6) else "",
        marker_style=int(rng.integers(3)),
        marker_mm=float(rng.uniform(7, 15)),
        text=int(rng.integers(1, 4)) if rng.random() < 0.1 and not tight else 0,
        toolbar=float(toolbar),
        ring=float(rng.uniform(0.35, 0.6)) if rng.random() < 0.08 else 0.0,
        cast=float(rng.uniform(2.5, 6)) if rng.random() < 0.05 else 0.0,
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


def expose(attenuation: np.ndarray, per_mm: float, detector: Detector, rng: np.random.Generator) -> np.ndarray:
    """Return what the detector measured, as attenuation again: scatter and quantum noise added (Beer-Lambert)."""
    intensity = np.exp(-attenuation)
    height, width = intensity.shape
    small = cv2.resize(intensity, (max(width // 6, 4), max(height // 6, 4)), interpolation=cv2.INTER_AREA)
    veil = cv2.GaussianBlur(small, (0, 0), max(10 * per_mm / 6, 0.6), borderType=cv2.BORDER_REPLICATE)
    intensity += np.float32(detector.scatter) * cv2.resize(veil, (width, height), interpolation=cv2.INTER_LINEAR)
    grain = rng.standard_normal(intensity.shape, dtype=np.float32)
    intensity += np.sqrt(intensity) * grain * np.float32(detector.noise)
    return -np.log(np.maximum(intensity, np.float32(2e-3)))


def process(measured: np.ndarray, per_mm: float, detector: Detector) -> np.ndarray:
    """Return the processed film in [0, 1]: edges enhanced, large differences compressed, windowed."""
    film = measured
    if detector.enhance > 0.05:
        film = film + np.float32(detector.enhance) * (measured - _blur(measured, detector.enhance_mm * per_mm))
    if detector.contrast > 0:
        film = film + np.float32(detector.contrast) * (measured - _coarse_blur(measured, detector.contrast_mm * per_mm))
    if detector.latitude > 0:
        film = film - np.float32(detector.latitude) * _coarse_blur(measured, detector.latitude_mm * per_mm)
    low, high = np.percentile(film[::2, ::2], [detector.low_percentile, detector.high_percentile])
    film = np.clip((film - np.float32(low)) * np.float32(1 / max(high - low, 1e-3)), 0, 1) ** np.float32(detector.gamma)
    return film * np.float32(detector.ceiling - detector.floor) + np.float32(detector.floor)


def _blur(image: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), max(sigma, 0.4), borderType=cv2.BORDER_REFLECT)


def _coarse_blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blur widely on a smaller copy: the difference is far below the noise and it costs a tenth."""
    factor = int(np.clip(sigma / 2.5, 1, 8))
    if factor == 1:
        return _blur(image, sigma)
    size = (max(image.shape[1] // factor, 4), max(image.shape[0] // factor, 4))
    small = _blur(cv2.resize(image, size, interpolation=cv2.INTER_AREA), sigma / factor)
    return cv2.resize(small, image.shape[::-1], interpolation=cv2.INTER_LINEAR)


def degrade(film: np.ndarray, wrist_side: float, detector: Detector, rng: np.random.Generator) -> np.ndarray:
    """Lose resolution as a film does that was stored small, and band it faintly."""
    factor = detector.across_wrist / wrist_side
    if factor < 0.95:
        size = (max(round(film.shape[1] * factor), 16), max(round(film.shape[0] * factor), 16))
        small = cv2.resize(film, size, interpolation=cv2.INTER_AREA)
        if detector.crisp:  # stored small and sharpened once more
            small = small + np.float32(detector.crisp) * (small - cv2.GaussianBlur(small, (0, 0), 1.0))
        film = cv2.resize(np.clip(small, 0, 1), film.shape[::-1], interpolation=cv2.INTER_CUBIC)
    if detector.banding:
        rows = cv2.GaussianBlur(rng.standard_normal((film.shape[0], 1)).astype(np.float32), (0, 0), 2.0)
        film = film + np.float32(detector.banding) * rows / max(float(rows.std()), 1e-3)
    return film


def finish(film: np.ndarray, overlay: Overlay, corners: np.ndarray, keep_free: np.ndarray, per_mm: float) -> np.ndarray:
    """Lay collimation, marker, text and toolbar over a film in [0, 1] and return it as uint8.

    `keep_free` (n, 2) are pixels of the limb's axis, which the marker stays away from.
    """
    rng = np.random.default_rng(overlay.seed)
    film = np.clip(film, 0, 1)
    if any(overlay.insets):
        open_part = np.zeros(film.shape, np.uint8)
        cv2.fillPoly(open_part, [np.round(corners * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        open_part = cv2.GaussianBlur(open_part, (0, 0), overlay.soft).astype(np.float32) / 255
        film = film * open_part + (1 - open_part) * np.float32(overlay.outside)
    film = np.round(film * 255).astype(np.uint8)
    if overlay.marker:
        _draw_marker(film, overlay, keep_free, per_mm, rng)
    if overlay.text:
        _draw_text(film, overlay.text, rng)
    if overlay.toolbar:
        _draw_toolbar(film, overlay.toolbar, rng)
    return film


def _draw_marker(film: np.ndarray, overlay: Overlay, keep_free: np.ndarray, per_mm: float, rng) -> None:
    height, width = film.shape
    side = max(int(overlay.marker_mm * per_mm), 6)
    places = np.column_stack([rng.uniform(0, width - side, 12), rng.uniform(0, height - side, 12)])
    away = np.hypot(*(places[:, None] + side / 2 - keep_free[None]).transpose(2, 0, 1)).min(axis=1)
    x, y = places[away.argmax()].astype(int)
    boxed = overlay.marker_style == 0
    if boxed:
        cv2.rectangle(film, (x, y), (x + side, y + side), 255, -1)
    scale = side / 26
    origin = (x + int(side * 0.15), y + int(side * 0.88))
    thickness = max(int(side / 8), 1) if overlay.marker_style < 2 else 1
    cv2.putText(
        film, overlay.marker, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, 0 if boxed else 255, thickness, cv2.LINE_AA
    )


def _draw_text(film: np.ndarray, lines: int, rng) -> None:
    height, width = film.shape
    scale = max(height, width) / 900
    x, y = int(rng.choice([0.02, 0.6]) * width), int(rng.choice([0.06, 0.85]) * height)
    for line in range(lines):
        words = " ".join("".join(rng.choice(list("ABCDEHKMNPRSTUVX0123456789"), 6)) for _ in range(2))
        origin = (x, y + int(line * 26 * scale))
        cv2.putText(film, words, origin, cv2.FONT_HERSHEY_PLAIN, max(scale * 1.3, 0.4), 230, 1, cv2.LINE_AA)


def _draw_toolbar(film: np.ndarray, share: float, rng) -> None:
    height, width = film.shape
    top = int(height * (1 - share))
    film[top:] = rng.integers(70, 180)
    for x in range(int(rng.uniform(2, 20)), width, max(int(width / rng.uniform(6, 14)), 6)):
        cv2.rectangle(film, (x, top + 2), (x + max(width // 30, 3), height - 3), int(rng.integers(20, 256)), -1)
