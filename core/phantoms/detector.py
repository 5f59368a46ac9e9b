"""From attenuation to the film a reader sees: exposure, scatter, noise, a maker's processing, loss, storage."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from core.phantoms.overlays import Overlay, draw_overlay, finish, open_corners

__all__ = [
    "Detector",
    "Overlay",
    "degrade",
    "draw_detector",
    "draw_overlay",
    "expose",
    "finish",
    "open_corners",
    "process",
    "store",
]

STYLES = ("bands", "unsharp", "plain", "equalised", "scanned")
_STYLE_SHARES = (0.34, 0.33, 0.15, 0.08, 0.1)


@dataclass(frozen=True)
class Detector:
    """How one machine exposes, processes and stores; the films of a study share it. Lengths in mm of an adult's wrist.

    Attributes
    ----------
    style : str
        ``"bands"``: every band of spatial frequency is amplified the more the fainter it is (as MUSICA and UNIQUE do);
        ``"unsharp"``: edges and large differences by unsharp masks; ``"plain"``: a look-up table alone;
        ``"equalised"``: local histograms are flattened; ``"scanned"``: a film on a light box.
    blur_mm, scatter, noise : float
        Unsharpness, share of scattered light, noise of an unattenuated pixel.
    enhance, enhance_mm, contrast, contrast_mm, latitude, latitude_mm : float
        Gain and width of the unsharp masks for edges, for structures, and (negative) for large areas.
    power : float
        Exponent of the bands' amplitudes; 1 changes nothing.
    low_percentile, high_percentile, gamma, slope, floor, ceiling : float
        The look-up table: what is black and white, its bend, the steepness of its S, and the greys in use.
    across_wrist : float
        Pixels across the wrist square that survive storage.
    crisp, banding, grid, grid_px, lightbox, scratches, clip : float
        Sharpening of the shrunken film; bands of a reader's rows; lines of a grid and the pixels between them;
        unevenness of a light box; scratches per film; strength of the equalisation.
    jpeg, again : int
        Quality of the JPEG file and of the screenshot made of it; 0 = none.
    bits : int
        8, or the 10, 12, 14 or 16 bits a machine hands out itself.
    """

    style: str
    blur_mm: float
    scatter: float
    noise: float
    enhance: float
    enhance_mm: float
    contrast: float
    contrast_mm: float
    latitude: float
    latitude_mm: float
    power: float
    low_percentile: float
    high_percentile: float
    gamma: float
    slope: float
    floor: float
    ceiling: float
    across_wrist: float
    crisp: float
    banding: float
    grid: float
    grid_px: float
    lightbox: float
    scratches: int
    clip: float
    jpeg: int
    again: int
    bits: int


def draw_detector(rng: np.random.Generator) -> Detector:
    """Draw a machine. Sharpness, greys and contrast vary so widely that none of them tells anything."""
    style = str(rng.choice(STYLES, p=_STYLE_SHARES))
    strong = style == "unsharp" or (style == "bands" and rng.random() < 0.4)
    compress = rng.random() < {"bands": 0.9, "unsharp": 0.85, "equalised": 0.5}.get(style, 0.2)
    grey = rng.random() < (0.5 if style == "scanned" else 0.2)
    file = rng.random() < 0.6 or style == "scanned"
    jpeg = int(rng.integers(45, 96)) if file else 0
    return Detector(
        style=style,
        blur_mm=rng.uniform(0.08, 0.3) + (rng.uniform(0, 0.2) if style == "scanned" else 0),
        scatter=rng.uniform(0.03, 0.3),
        noise=10 ** rng.uniform(-2.8, -1.55),
        enhance=rng.uniform(0.8, 5.0) if strong else rng.uniform(0, 0.6),
        enhance_mm=rng.uniform(0.4, 1.3),
        contrast=rng.uniform(0.2, 1.6) if strong else 0.0,
        contrast_mm=rng.uniform(2.0, 4.5),
        latitude=rng.uniform(0.4, 0.97) if compress else rng.uniform(0, 0.15),
        latitude_mm=rng.uniform(8, 20),
        power=rng.uniform(0.5, 0.9) if style == "bands" else 1.0,
        low_percentile=rng.uniform(1, 22) if rng.random() < 0.6 else rng.uniform(0.1, 2.0),
        high_percentile=rng.uniform(97.5, 99.9),
        gamma=rng.uniform(0.75, 1.7),
        slope=rng.uniform(2, 6) if rng.random() < 0.5 else 0.0,
        floor=rng.uniform(0.1, 0.3) if grey else rng.uniform(0, 0.08),
        ceiling=rng.uniform(0.6, 0.85) if grey and rng.random() < 0.4 else rng.uniform(0.85, 1.0),
        across_wrist=float(np.exp(rng.uniform(np.log(75), np.log(280)))) if rng.random() < 0.7 else 1e4,
        crisp=rng.uniform(0.3, 1.4) if rng.random() < 0.45 else 0.0,
        banding=rng.uniform(0.003, 0.015) if rng.random() < 0.3 else 0.0,
        grid=rng.uniform(0.004, 0.02) if rng.random() < 0.04 else 0.0,
        grid_px=rng.uniform(2.1, 7),
        lightbox=rng.uniform(0.05, 0.3) if style == "scanned" else 0.0,
        scratches=int(rng.integers(0, 9)) if style == "scanned" else 0,
        clip=rng.uniform(1.2, 5.0) if style == "equalised" else 0.0,
        jpeg=jpeg,
        again=int(rng.integers(40, 90)) if jpeg and rng.random() < 0.35 else 0,
        bits=8 if file else int(rng.choice([8, 10, 12, 14, 16], p=[0.3, 0.2, 0.35, 0.1, 0.05])),
    )


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
    """Return the processed film in [0, 1]: edges enhanced, large differences compressed, then the look-up table."""
    film = _amplify_bands(measured, per_mm, detector.power) if detector.power < 1 else measured
    if detector.enhance > 0.05:
        film = film + np.float32(detector.enhance) * (measured - _blur(measured, detector.enhance_mm * per_mm))
    if detector.contrast > 0:
        film = film + np.float32(detector.contrast) * (measured - _coarse_blur(measured, detector.contrast_mm * per_mm))
    if detector.latitude > 0:
        film = film - np.float32(detector.latitude) * _coarse_blur(measured, detector.latitude_mm * per_mm)
    low, high = np.percentile(film[::2, ::2], [detector.low_percentile, detector.high_percentile])
    film = np.clip((film - np.float32(low)) * np.float32(1 / max(high - low, 1e-3)), 0, 1) ** np.float32(detector.gamma)
    if detector.slope:
        film = _bend(film, detector.slope)
    if detector.clip:
        tiles = cv2.createCLAHE(detector.clip, (6, 6))
        film = tiles.apply(np.round(film * 255).astype(np.uint8)).astype(np.float32) / 255
    return film * np.float32(detector.ceiling - detector.floor) + np.float32(detector.floor)


def _bend(film: np.ndarray, slope: float) -> np.ndarray:
    """Return a film seen through an S-shaped table, 0 at 0 and 1 at 1."""
    end = np.tanh(slope / 4)
    return (np.tanh(np.float32(slope / 2) * (film - np.float32(0.5))) / np.float32(end) + 1) / 2


def _amplify_bands(measured: np.ndarray, per_mm: float, power: float) -> np.ndarray:
    """Return a film whose bands of a Laplacian pyramid are raised to `power`, the faint ones gaining most."""
    levels = int(np.clip(np.log2(max(12 * per_mm, 2)), 1, 6))
    gaussian = [measured]
    for _ in range(levels):
        if min(gaussian[-1].shape) < 8:
            break
        gaussian.append(cv2.pyrDown(gaussian[-1]))
    film = gaussian[-1]
    for number in range(len(gaussian) - 2, -1, -1):
        size = gaussian[number].shape[::-1]
        band = gaussian[number] - cv2.pyrUp(gaussian[number + 1], dstsize=size)
        # The finest band is mostly noise, and every maker spares it.
        own = power if number else (1 + power) / 2
        film = cv2.pyrUp(film, dstsize=size) + band * np.power((np.abs(band) + np.float32(0.03)) / 0.5, own - 1)
    return film


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
    """Spoil a film as grids, readers, light boxes and small files do; `wrist_side` is in pixels."""
    if detector.grid:
        columns = np.sin(np.arange(film.shape[1], dtype=np.float32) * np.float32(2 * np.pi / detector.grid_px))
        film = film + np.float32(detector.grid) * columns
    if detector.lightbox:
        film = _scan(film, detector, rng)
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


def _scan(film: np.ndarray, detector: Detector, rng: np.random.Generator) -> np.ndarray:
    """Light a film unevenly from behind and scratch it."""
    height, width = film.shape
    light = cv2.resize(rng.normal(0, 1, (3, 3)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    film = film * (1 + np.float32(detector.lightbox) * 0.5 * light) + np.float32(0.15 * detector.lightbox) * light
    cover = np.zeros(film.shape, np.uint8)
    for _ in range(detector.scratches):
        start, heading = rng.uniform(0, 1, 2) * [width, height], rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.12)
        reach = rng.uniform(0.03, 0.5) * height
        end = start + reach * np.array([np.cos(heading), np.sin(heading)])
        points = np.round(np.array([start, end]) * 16).astype(np.int32)
        cv2.polylines(cover, [points], False, int(rng.integers(30, 200)), 1, cv2.LINE_AA, 4)
    return film + (np.float32(rng.choice([0.6, -0.4])) - film * 0.5) * (cover.astype(np.float32) / 255)


def store(film: np.ndarray, detector: Detector) -> np.ndarray:
    """Return a finished film in [0, 1] as it comes back from the machine's file.

    Parameters
    ----------
    film : numpy.ndarray
        float32 (height, width), [0, 1].
    detector : Detector

    Returns
    -------
    numpy.ndarray
        float32 (height, width). Of 256 greys where the machine stores 8 bits, through one or two JPEG files where it
        says so; else of 2 ** bits greys that use the whole of [0, 1], since such files carry no black and white.
    """
    if detector.bits > 8:
        low, high = float(film.min()), float(film.max())
        low_sliver, high_sliver = (float(v) for v in np.quantile(film, (0.0005, 0.9995)))
        spread = high_sliver - low_sliver
        if spread > 0:  # a burnt-in mark far above all else does not darken the film
            low = low_sliver if low_sliver - low > spread / 2 else low
            high = high_sliver if high - high_sliver > spread / 2 else high
        top = np.float32(2**detector.bits - 1)
        shown = np.clip((film - np.float32(low)) * np.float32(1 / max(high - low, 1e-6)), 0, 1)
        return np.round(shown * top) / top
    stored = np.round(film * 255).astype(np.uint8)
    if detector.jpeg:
        stored = _through_jpeg(stored, detector.jpeg)
    if detector.again:  # a screenshot: shown at another size, photographed, shown again
        height, width = stored.shape
        size = (max(round(width * 0.9), 8), max(round(height * 0.9), 8))
        smaller = _through_jpeg(cv2.resize(stored, size, interpolation=cv2.INTER_LINEAR), detector.again)
        stored = cv2.resize(smaller, (width, height), interpolation=cv2.INTER_LINEAR)
    return stored.astype(np.float32) / np.float32(255)


def _through_jpeg(stored: np.ndarray, quality: int) -> np.ndarray:
    data = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
