"""Simulated films that show no wrist: other joints, shafts, hands cut short, pictures that are no radiographs at all.

A wrist finder that has only ever seen wrists is sure of a wrist on every film. These films teach it to doubt. They
come from the same detectors as the wrists, so nothing but what they show sets them apart.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from core.phantoms import detector, projection
from core.phantoms.anatomy import turn
from core.phantoms.joints import PARTS, Part

# Films of another version differ from those of this one.
VERSION = 18

_FLAT = {"blank": 0.03, "text": 0.01, "shapes": 0.02, "photo": 0.04}
# Shares of the kinds; they add up to 1.
_SHARES = {
    "shafts": 0.06, "leg": 0.08, "knee": 0.08, "knee from the side": 0.08, "ankle": 0.1, "ankle from the side": 0.08,
    "foot": 0.06, "elbow": 0.06, "elbow from the side": 0.06, "shoulder": 0.03, "hip": 0.07, "chest": 0.02,
    "spine": 0.03, "fingers": 0.04, "cut hand": 0.04, "scrap": 0.01,
}  # fmt: skip
KINDS = (*PARTS, *_FLAT)
_WEIGHTS = tuple((_SHARES | _FLAT)[kind] for kind in KINDS)


def simulate_decoy(seed: int, size: int = 240, kind: str | None = None) -> np.ndarray:
    """Simulate a film without a wrist.

    Parameters
    ----------
    seed : int
        The same seed and arguments give the same film.
    size : int
        Pixels a side of the square film.
    kind : str, optional
        One of ``KINDS``; drawn where None.

    Returns
    -------
    numpy.ndarray
        uint8 (size, size), bone bright.
    """
    rng = np.random.default_rng([VERSION, seed])
    drawn = str(rng.choice(KINDS, p=_WEIGHTS))
    kind = kind or drawn
    if kind in _FLAT:
        return _draw_flat(kind, size, rng)
    return _take(PARTS[kind](rng), size, rng)


def _take(part: Part, size: int, rng: np.random.Generator) -> np.ndarray:
    """Expose bones and flesh around the origin and process the film as wrists are."""
    machine = detector.draw_detector(rng)
    if rng.random() < 0.5:  # thick parts are often shown soft, with burnt-out places
        machine = replace(
            machine,
            style="plain",
            enhance=rng.uniform(0, 0.6),
            contrast=0.0,
            power=1.0,
            clip=0.0,
            latitude=rng.uniform(0, 0.5),
            scatter=rng.uniform(0.1, 0.6),
            blur_mm=rng.uniform(0.2, 1.0),
            low_percentile=rng.uniform(0.1, 12),
            high_percentile=rng.uniform(93, 99.8),
        )
    frame, per_mm = _aim(part, size, rng)
    canvas = projection.Canvas(frame)
    # A body that fills the film has no edge: its distance overflows to infinity, which is deep enough.
    with np.errstate(over="ignore"):
        flesh = projection.flesh(
            part.bodies[0], list(part.bodies[1:]), frame, float(rng.uniform(*part.depth)), None, rng
        )
    for outline in part.air:
        hollow = projection.fill(frame.place(outline), (0, 0, *frame.shape)).astype(np.float32) / 255
        flesh *= 1 - np.float32(0.65) * cv2.GaussianBlur(hollow, (0, 0), max(2 * frame.per_mm, 0.5))
    density = float(rng.uniform(0.7, 1.1))
    for bone in part.bones:
        projection.draw_bone(canvas, bone, rng, density, projection.TEXTURE)
    if rng.random() < 0.12:
        _add_metal(canvas, rng)
    attenuation = cv2.GaussianBlur(flesh + canvas.bone, (0, 0), max(machine.blur_mm * frame.per_mm, 0.35))
    coarse = cv2.resize(attenuation, (size, size), interpolation=cv2.INTER_AREA)
    film = detector.process(detector.expose(coarse, per_mm, machine, rng), per_mm, machine)
    film = detector.degrade(film, 106 * per_mm, machine, rng)
    overlay = detector.draw_overlay(rng, "long", str(rng.choice(["L", "R"])))
    corners = detector.open_corners(overlay, (size, size))
    film = detector.finish(film, overlay, corners, np.array([[size / 2, size / 2]]), per_mm)
    if rng.random() < 0.5:
        _cut_to_format(film, rng)
    return np.round(detector.store(film, machine) * 255).astype(np.uint8)


def _aim(part: Part, size: int, rng: np.random.Generator) -> tuple[projection.Frame, float]:
    """Return where the film lies, at one and a half times its resolution, and its pixels per mm."""
    cut = part.reach[1] <= 1  # all that lies below the origin is off the film
    reach = rng.uniform(85, 170) if cut else rng.uniform(*part.reach)
    per_mm = size / reach
    quarter = 180 if rng.random() < 0.2 else 90 if rng.random() < 0.15 else 0
    angle = np.radians(quarter + (rng.normal(0, 2) if cut else rng.normal(0, 9)))
    linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = 1.5 * per_mm * linear @ np.diag([rng.choice([-1.0, 1.0]), -1.0])
    fine = round(size * 1.5)
    centre = np.array([rng.normal(0, 0.05), 0.54]) * reach if cut else rng.normal(0, 0.08, 2) * reach
    return projection.Frame(np.column_stack([linear, fine / 2 - linear @ centre]), (fine, fine)), per_mm


def _cut_to_format(film: np.ndarray, rng: np.random.Generator) -> None:
    """Blacken two opposite edges, as padding a narrow film to a square does."""
    width = int(film.shape[0] * rng.uniform(0.02, 0.25))
    film[:, :width] = 0
    film[:, film.shape[0] - width :] = 0


def _add_metal(canvas: projection.Canvas, rng: np.random.Generator) -> None:
    """Add a plate or a nail with screws."""
    start, length = rng.normal(0, 25, 2), rng.uniform(60, 160)
    heading = rng.normal(0, 12)
    box = (0, 0, *canvas.frame.shape)
    parts = [_bar(start, heading, length, rng.uniform(3, 6))]
    along = np.array([np.sin(np.radians(heading)), np.cos(np.radians(heading))])
    for place in rng.uniform(0, length, int(rng.integers(2, 7))):
        parts.append(_bar(start + along * place, heading + 90 + rng.normal(0, 10), rng.uniform(15, 40), 2.0))
    for part in parts:
        canvas.bone += projection.fill(canvas.frame.place(part), box).astype(np.float32) * np.float32(2.5 / 255)


def _bar(start: np.ndarray, heading: float, length: float, half: float) -> np.ndarray:
    corners = np.array([(-half, 0), (half, 0), (half, length), (-half, length)], float)
    return turn(corners, heading, (0, 0)) + start


def _draw_flat(kind: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw what is no radiograph: noise or a ramp, a page of text, scattered shapes, a photograph's patches."""
    ramp = np.linspace(*rng.uniform(0, 255, 2), size)
    film = np.broadcast_to(ramp[None] if rng.random() < 0.5 else ramp[:, None], (size, size)).copy()
    if kind == "blank":
        film += rng.normal(0, rng.uniform(0, 40), film.shape)
    elif kind == "text":
        film = np.full((size, size), 245 if rng.random() < 0.6 else 10, np.uint8)
        for y in range(12, size, int(rng.integers(10, 22))):
            words = "".join(chr(rng.integers(65, 122)) for _ in range(40))
            ink = 20 if film[0, 0] > 100 else 230
            cv2.putText(film, words, (int(rng.integers(2, 30)), y), cv2.FONT_HERSHEY_PLAIN, 0.8, ink, 1)
    elif kind == "photo":
        film = _draw_photo(size, rng)
    else:
        for _ in range(int(rng.integers(4, 30))):
            centre = tuple(int(v) for v in rng.integers(0, size, 2))
            radii = tuple(int(v) for v in rng.integers(4, max(size // 3, 6), 2))
            thick = -1 if rng.random() < 0.6 else int(rng.integers(1, 8))
            cv2.ellipse(film, centre, radii, float(rng.uniform(0, 180)), 0, 360, float(rng.uniform(0, 255)), thick)
        film = cv2.GaussianBlur(film, (0, 0), float(rng.uniform(0.5, 4)))
    return np.clip(film, 0, 255).astype(np.uint8)


def _draw_photo(size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw patches and streaks whose contrast grows with their size, as in a photograph."""
    film = np.zeros((size, size), np.float32)
    fall = rng.uniform(0.8, 1.5)
    for octave in range(1, 8):
        cells = (min(2**octave, size), min(max(round(2**octave * rng.uniform(0.4, 1.6)), 2), size))
        noise = rng.standard_normal(cells[::-1]).astype(np.float32)
        film += cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC) / np.float32(2 ** (octave * fall))
    for _ in range(int(rng.integers(0, 9))):  # things with edges
        points = rng.uniform(0, size, 2) + rng.normal(0, size / 5, (int(rng.integers(3, 7)), 2))
        cover = np.zeros((size, size), np.uint8)
        cv2.fillPoly(cover, [np.round(points * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        film += np.float32(rng.normal(0, 0.6)) * (cover.astype(np.float32) / 255)
    low, high = np.percentile(film, [1, 99])
    return (film - low) / max(high - low, 1e-6) * 255
