"""Breaks put into given films of whole wrists, so that both classes share the same films.

The distal radius is found in the wrist square, cut, moved, thinned or pushed out by warping the film itself. A negative
gets a sham: the same motion, resampled in the same way, but smooth over the bone, so that neither resampling nor
framing tells the classes apart; only the break does.
"""

from __future__ import annotations

import csv
import io
import math
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from core.errors import DatasetError, RadiographError
from core.phantoms.anatomy import REGION_SIDE_MM
from core.values import UNFINISHED_NAME, WristRegion

# Breaks of another version differ from those of this one.
VERSION = 2

INJECTED = ("hairline", "displaced", "angulated", "impacted", "buckle")
_WEIGHTS = (0.25, 0.22, 0.23, 0.15, 0.15)
# Half length along the bone over which a sham bends it and a break's motion begins, mm.
_BEND = 9.0
# Mean change of grey that a break must make in its mask.
VISIBLE = 0.03
# Pixels per mm at which the bone's edges are looked for.
_SEARCH = 2.0
COLUMNS = ("path", "patient", "study", "label", "kind", "source", "x", "y", "side", "angle", "seed", "patient_known")


@dataclass(frozen=True)
class _Plan:
    """One break or its sham. mm of an adult's wrist square (its side is 106 mm) and degrees."""

    kind: str
    level: float
    slope: float
    shift: float
    pull: float
    angle: float
    hinge: float
    lucency: float
    width: float
    dense: float
    bulge: float
    side: int
    start: float
    seed: int


@dataclass(frozen=True, eq=False)
class _Place:
    """A window of a film around its wrist square, in mm: x across (right of the upright square), y to the fingers."""

    rows: slice
    columns: slice
    x: np.ndarray
    y: np.ndarray
    to_film: np.ndarray
    per_mm: float

    def sample(self, film: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the film at places (mm); where nothing has moved its pixels are returned as they are."""
        a, b = self.to_film[:, :2].astype(np.float32), self.to_film[:, 2].astype(np.float32)
        across, down = (np.float32(a[k, 0]) * x + np.float32(a[k, 1]) * y + b[k] - np.float32(0.5) for k in (0, 1))
        still = (x == self.x) & (y == self.y)
        found = cv2.remap(film, across, down, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        return np.where(still, film[self.rows, self.columns], found)


def inject_fracture(
    pixels: np.ndarray, region: WristRegion, seed: int, *, positive: bool, kind: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Put a break of the distal radius into a film of a whole wrist, or its sham.

    Parameters
    ----------
    pixels : numpy.ndarray
        float, (height, width), [0, 1], bone bright. It is not changed.
    region : WristRegion
        The wrist square, found or marked.
    seed : int
        With the same film, region and seed, a break and its sham are twins: they differ near the break alone.
    positive : bool
        True: a break; False: the sham, a smooth warp of the same strength, and an empty mask.
    kind : str, optional
        One of ``INJECTED``; drawn where None.

    Returns
    -------
    pixels : numpy.ndarray
        float32, of the film's shape, [0, 1].
    mask : numpy.ndarray
        bool, of the film's shape.

    Raises
    ------
    RadiographError
        The distal radius of this square does not lie on the film.
    """
    if kind is not None and kind not in INJECTED:
        raise ValueError(f"kind must be one of {', '.join(INJECTED)}, not {kind!r}")
    film = np.clip(np.asarray(pixels, np.float32), 0, 1)
    if film.ndim != 2:
        raise RadiographError(f"Expected a film of 2 dimensions, but got {film.ndim}.")
    plan = _draw_plan(np.random.default_rng([VERSION, seed]), kind, _lowest(film.shape, region))
    left, right = find_radius(film, region, plan.level)
    place = _place(film.shape, region)
    changed, mask = _render(film, place, plan, left, right, positive)
    out = film.copy()
    out[place.rows, place.columns] = changed
    full = np.zeros(film.shape, bool)
    full[place.rows, place.columns] = mask
    if positive and not full.any():
        raise RadiographError("Expected the distal radius on the film, but the wrist square lies at its edge.")
    return out, full


def _to_film(region: WristRegion) -> np.ndarray:
    """Return mm of the upright square to pixels of the film, (2, 3)."""
    turn, scale = math.radians(region.angle), region.side / REGION_SIDE_MM
    cosine, sine = math.cos(turn) * scale, math.sin(turn) * scale
    # Fingers point along +y; `angle` is their direction clockwise from the top of the film.
    return np.array([[cosine, sine, region.x], [sine, -cosine, region.y]])


def _lowest(shape: tuple[int, int], region: WristRegion) -> float:
    """Return how far below the joint (negative mm) the forearm is still on the film."""
    matrix, lowest = _to_film(region), 0.0
    for level in range(-4, -42, -2):
        points = np.array([[-12.0, level], [12.0, level]]) @ matrix[:, :2].T + matrix[:, 2]
        if (points < 2).any() or (points > np.array([shape[1], shape[0]]) - 2).any():
            break
        lowest = float(level)
    if lowest > -14:
        raise RadiographError("Expected the distal radius on the film, but the wrist square lies at its edge.")
    return lowest


def _draw_plan(rng: np.random.Generator, kind: str | None, lowest: float) -> _Plan:
    drawn = str(rng.choice(INJECTED, p=_WEIGHTS))
    kind = kind or drawn
    sign = float(rng.choice([-1, 1]))
    moved = {
        "hairline": (rng.uniform(0.2, 0.7), rng.uniform(-0.3, 0.3), rng.uniform(0, 2)),
        "displaced": (rng.uniform(1.5, 4.0), rng.uniform(-2.5, 0.8), rng.uniform(0, 5)),
        "angulated": (rng.uniform(0.2, 2.0), rng.uniform(-1.0, 0.3), rng.uniform(6, 15)),
        "impacted": (rng.uniform(0, 0.8), -rng.uniform(1.2, 3.0), rng.uniform(0, 4)),
        "buckle": (rng.uniform(0, 0.4), -rng.uniform(0, 0.4), rng.uniform(0, 3)),
    }[kind]
    return _Plan(
        kind=kind,
        level=float(rng.uniform(max(lowest + 4, -30), -10)),
        slope=float(rng.normal(0, 0.25)),
        shift=float(sign * moved[0]),
        pull=float(moved[1]),
        angle=float(sign * moved[2]),
        hinge=float(rng.uniform(0.2, 0.9) * rng.choice([-1, 1])),
        lucency=float(rng.uniform(0.45, 0.85) if kind == "hairline" else rng.uniform(0.05, 0.4)),
        width=float(rng.uniform(0.4, 0.8)),
        dense=float(rng.uniform(0.1, 0.35) if kind in ("impacted", "buckle") else rng.uniform(0, 0.15)),
        bulge=float(rng.uniform(1.0, 2.2) if kind == "buckle" else 0.0),
        side=int(rng.choice([-1, 0, 1], p=[0.4, 0.2, 0.4])),
        start=float(rng.uniform(-6, 4) if rng.random() < 0.5 else -99.0),
        seed=int(rng.integers(2**31)),
    )


def find_radius(film: np.ndarray, region: WristRegion, level: float) -> tuple[float, float]:
    """Return the edges (mm across the upright square) of the distal radius, `level` mm above the joint.

    The pair of opposite edges is taken that is strongest, about as far apart as the radius is wide, and bright between.
    """
    half, reach = 38.0, 3.5
    matrix = _to_film(region)
    columns, rows = round(2 * half * _SEARCH), round(2 * reach * _SEARCH)
    x = (np.arange(columns, dtype=np.float32) + 0.5) / _SEARCH - half
    y = (np.arange(rows, dtype=np.float32) + 0.5)[:, None] / _SEARCH - reach + level
    across, down = ((matrix[k, 0] * x[None] + matrix[k, 1] * y + matrix[k, 2] - 0.5).astype(np.float32) for k in (0, 1))
    smooth = cv2.GaussianBlur(film, (0, 0), max(region.side / REGION_SIDE_MM * 0.35, 0.3))
    profile = cv2.remap(smooth, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).mean(axis=0)
    profile = np.convolve(np.pad(profile, 1, "edge"), [0.25, 0.5, 0.25], "valid")
    slope = np.gradient(profile)
    total = np.concatenate([[0], np.cumsum(profile)])
    best, edges = -np.inf, (-11.0, 11.0)
    rising = [k for k in range(2, columns - 2) if slope[k] > 0 and slope[k] == slope[k - 2 : k + 3].max()]
    falling = [k for k in range(2, columns - 2) if slope[k] < 0 and slope[k] == slope[k - 2 : k + 3].min()]
    margin = round(4 * _SEARCH)
    for a in rising:
        for b in falling:
            wide = (b - a) / _SEARCH
            if not 13 <= wide <= 34:
                continue
            # The dark strip between radius and ulna is never inside the radius.
            inner = 0.5 * (total[b] - total[a]) / (b - a) + 0.5 * profile[a + 2 : b - 1].min()
            outer = (profile[max(a - margin, 0) : a].mean() + profile[b + 1 : b + 1 + margin].mean()) / 2
            off = abs(x[a] + x[b]) / 2
            score = slope[a] - slope[b] + 0.8 * (inner - outer) - 0.006 * off - 0.004 * abs(wide - 24)
            if score > best:
                best, edges = score, (float(x[a]), float(x[b]))
    return edges


def _place(shape: tuple[int, int], region: WristRegion) -> _Place:
    matrix = _to_film(region)
    reach = REGION_SIDE_MM * np.array([[-0.6, -0.45], [0.6, -0.45], [0.6, 0.95], [-0.6, 0.95]])
    corners = reach @ matrix[:, :2].T + matrix[:, 2]
    low = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(corners.max(axis=0)).astype(int), [shape[1], shape[0]])
    if (high - low < 8).any():
        raise RadiographError("Expected the distal radius on the film, but the wrist square lies outside it.")
    linear = np.linalg.inv(matrix[:, :2]).astype(np.float32)
    across = np.arange(low[0], high[0], dtype=np.float32)[None] + np.float32(0.5 - region.x)
    down = np.arange(low[1], high[1], dtype=np.float32)[:, None] + np.float32(0.5 - region.y)
    x, y = (linear[k, 0] * across + linear[k, 1] * down for k in (0, 1))
    return _Place(slice(low[1], high[1]), slice(low[0], high[0]), x, y, matrix, region.side / REGION_SIDE_MM)


def _rise(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return a smooth step from 0 at `low` to 1 at `high`."""
    t = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _render(film, place: _Place, plan: _Plan, left: float, right: float, positive: bool):
    """Return the changed window and the break's mask."""
    middle, half = (left + right) / 2, (right - left) / 2
    plan = _closed(plan, half)
    u, v = place.x - np.float32(middle), place.y - np.float32(plan.level)
    beyond = _beyond(plan, u, v)
    strength = _strength(place, u, half)
    bent = strength * _rise(v - np.float32(plan.slope) * u, -_BEND, _BEND)
    smooth = place.sample(film, *_sources(plan, place, u, v, half, bent))
    base = _flesh(film, place, smooth, plan, left, right)
    window = _near(u, v, half)
    blob = np.exp(-np.square(v / 6)) * window
    if not positive:
        tone = smooth + np.float32(0.5 * (plan.dense - 0.3 * plan.lucency)) * blob * np.maximum(smooth - base, 0)
        return np.clip(tone, 0, 1), np.zeros(smooth.shape, bool)
    if plan.kind == "buckle":
        broken, mask = _buckle(film, place, plan, u, v, half, bent, base)
    elif plan.kind == "hairline":
        inside = np.clip((plan.side * u - plan.start) / 1.5, 0, 1) if plan.side else np.float32(1)
        inside = inside * (1 - _rise(np.abs(u), half - 0.2, half + 1.2))
        broken = smooth - np.float32(plan.lucency) * inside * _line(beyond, plan.width) * np.maximum(smooth - base, 0)
        mask = (np.abs(beyond) < 1.7) & (inside > 0.3)
    else:
        broken, mask = _cut(film, place, plan, u, v, half, strength, beyond, base, smooth)
    away = _rise(np.abs(v - np.float32(plan.slope) * u), _BEND, _BEND + 4)
    weight = window * (1 - away)
    changed = smooth * (1 - weight) + broken * weight
    extent = half + 0.6 + (plan.bulge + 0.3 if plan.kind == "buckle" else abs(plan.shift) * 0.6)
    mask &= (np.abs(u) < extent) & (weight > 0.3)
    return np.clip(_visible(changed, smooth, mask, beyond, base), 0, 1), mask


def _closed(plan: _Plan, half: float) -> _Plan:
    """Return the plan with pieces driven together so far that no side gapes by more than 2 mm."""
    sine = math.sin(math.radians(plan.angle))
    opening = plan.pull + max(-sine * (side - plan.hinge) * half for side in (-1, 1))
    return replace(plan, pull=plan.pull - max(opening - 2.0, 0.0))


def _beyond(plan: _Plan, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return how far each pixel lies beyond the break's rough line, mm."""
    knots = np.random.default_rng(plan.seed).normal(0, 0.9, 48).astype(np.float32)
    knots = np.convolve(knots, [0.25, 0.5, 0.25], "same").astype(np.float32)
    fine = cv2.resize(knots[None], (384, 1), interpolation=cv2.INTER_LINEAR)[0]
    rough = fine[np.clip((u + 38) * 5, 0, 383).astype(np.int32)]
    return (v - np.float32(plan.slope) * u - rough) / np.float32(math.hypot(1, plan.slope))


def _line(away: np.ndarray, width: float) -> np.ndarray:
    return np.exp(-np.square(away * np.float32(1 / width)))


def _near(u: np.ndarray, v: np.ndarray, half: float) -> np.ndarray:
    """Return 1 on the radius and beside it, falling to 0 within a few mm."""
    return 1 - _rise(np.abs(u), half + 2.5, half + 6.0)


def _strength(place: _Place, u: np.ndarray, half: float) -> np.ndarray:
    """Return how much of the motion each pixel takes part in: radius and hand wholly, the ulna and the edges not."""
    bone = 1 - _rise(np.abs(u), half + 2.0, half + 10.0)
    hand = (1 - _rise(np.abs(u), half + 14.0, half + 34.0)) * _rise(place.y, -4, 14)
    ends = 1 - _rise(place.y, 18, 92)
    return np.maximum(bone, hand) * ends


def _sources(plan: _Plan, place: _Place, u, v, half: float, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where (mm) the film is read for each pixel, when the far piece moves by a share `weight` of the plan."""
    angle = weight * np.float32(math.radians(plan.angle))
    pivot = np.float32(plan.hinge * half)
    du, dv = u - weight * np.float32(plan.shift) - pivot, v - weight * np.float32(plan.pull)
    cosine, sine = np.cos(angle), np.sin(angle)
    back_u, back_v = cosine * du - sine * dv + pivot, sine * du + cosine * dv
    still = weight <= 0
    return (np.where(still, place.x, place.x + back_u - u), np.where(still, place.y, place.y + back_v - v))


def _flesh(film, place: _Place, smooth: np.ndarray, plan: _Plan, left: float, right: float) -> np.ndarray:
    """Return the grey of the flesh beside the radius at the break, one value for all pixels."""
    beside = (np.abs(place.y - plan.level) < 6) & (place.x > left - 8) & (place.x < right + 8)
    inside = smooth[beside]
    return np.float32(np.percentile(inside, 18)) if inside.size else np.float32(0)


def _cut(film, place: _Place, plan: _Plan, u, v, half: float, strength, beyond, base, smooth):
    """Move the far piece as a body: a gap where the pieces part, denser where they overlap."""
    xs, ys = _sources(plan, place, u, v, half, strength)
    far_film = place.sample(film, xs, ys)
    far_beyond = _beyond(plan, u + xs - place.x, v + ys - place.y)
    far = np.clip(far_beyond / 0.5 + 0.5, 0, 1)
    near = np.clip(-beyond / 0.5 + 0.5, 0, 1)
    near_film = film[place.rows, place.columns]
    over_near, over_far = np.maximum(near_film - base, 0) * near, np.maximum(far_film - base, 0) * far
    # Attenuations add, but a film's processing presses bright greys together.
    total = np.maximum(over_near, over_far) + np.float32(0.45) * np.minimum(over_near, over_far)
    crushed = np.float32(plan.dense) * _line(beyond, 1.8) - np.float32(plan.lucency) * _line(far_beyond, plan.width)
    floor = np.minimum(smooth, base)
    broken = floor + total * (1 + crushed)
    both = (near > 0.5) & (far > 0.5)
    none = (near < 0.5) & (far < 0.5)
    mask = (np.abs(beyond) < 1.6) | (np.abs(far_beyond) < 1.6) | both | none
    return broken, mask & (np.abs(v - np.float32(plan.slope) * u) < _BEND)


def _buckle(film, place: _Place, plan: _Plan, u, v, half: float, bent, base):
    """Push one cortex or both outwards and lay a faint dense line across."""
    xs, ys = _sources(plan, place, u, v, half, bent)
    sides = np.sign(u) if not plan.side else np.where(np.sign(u) == plan.side, np.float32(plan.side), 0)
    rows = v - np.float32(plan.slope) * u
    out = np.float32(plan.bulge) * np.exp(-(np.abs(rows / 3.0) ** 1.7)) * _line(np.abs(u) - half, 4.5)
    broken = place.sample(film, xs - sides * out, ys)
    fading = np.clip(0.6 + 0.6 * plan.side * u / half, 0, 1) if plan.side else np.float32(1)
    broken = broken + np.float32(plan.dense) * fading * _line(rows, 1.4) * np.maximum(broken - base, 0)
    mask = (np.abs(rows) < 4.0) & ((sides != 0) | (np.abs(u) < 0.5 * half))
    return broken, mask


def _visible(changed, sham, mask: np.ndarray, beyond: np.ndarray, base) -> np.ndarray:
    """Return the film with a deeper line where else nobody could see the break."""
    if not mask.any():
        return changed
    missing = VISIBLE - float(np.abs(changed - sham)[mask].mean())
    if missing <= 0:
        return changed
    added = _line(beyond, 0.7) * mask
    return changed - added * np.float32(1.2 * missing / max(float(added[mask].mean()), 0.05))


def write_injected(
    films: Iterable[tuple[str, np.ndarray, WristRegion]], out: Path, seed: int = 0, patients_known: bool = True
) -> int:
    """Write a set in the layout of MURA in which every film occurs twice: with a break, and with its sham.

    Parameters
    ----------
    films : iterable of (patient, pixels, region)
        Films of whole wrists: a name that films of one person share, (height, width) in [0, 1], the wrist square.
    out : pathlib.Path
        A new or empty folder. Both classes of a person's films go into the same split; one person in five is valid.
        Until all is written it is called by its name with ``.part`` behind it.
    seed : int
    patients_known : bool
        False where it is not known which films are of one person, so that each name stands for a film: the set's table
        then says so.

    Returns
    -------
    int
        Number of films written. Films without a distal radius in their square are left out, in both classes.

    Raises
    ------
    DatasetError
        The folder, or the one with ``.part``, holds something already, or no film could be used.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DatasetError("Expected a new or empty folder, but it holds something already.")
    out = out.resolve()
    part = _begin(out)
    try:
        rows = _write_pairs(films, part, seed, patients_known)
        if not rows:
            raise DatasetError("Expected films with a distal radius in their wrist square, but there was none.")
        _write_tables(part, out.name, rows)
        (part / UNFINISHED_NAME).rmdir()
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    os.replace(part, out)
    return len(rows)


def _begin(out: Path) -> Path:
    """Return the folder in which a set is written until it is whole, marked so that nobody takes it for real films."""
    part = out.with_name(out.name + ".part")
    if (part / UNFINISHED_NAME).is_dir():  # of a run that was killed
        shutil.rmtree(part)
    elif part.exists():
        raise DatasetError("Expected to make a new folder of that name with .part behind it, but there is one already.")
    if out.exists():
        out.rmdir()  # now: a folder that cannot be replaced is told before the work, not after it
    (part / UNFINISHED_NAME).mkdir(parents=True)
    return part


def _write_pairs(
    films: Iterable[tuple[str, np.ndarray, WristRegion]], folder: Path, seed: int, patients_known: bool
) -> list[tuple]:
    """Write every film with a break and with its sham, and return their rows of the table."""
    rows: list[tuple] = []
    people: dict[str, int] = {}
    for number, (patient, pixels, region) in enumerate(films):
        own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        kind = str(np.random.default_rng([3, own]).choice(INJECTED, p=_WEIGHTS))
        try:
            pair = [inject_fracture(pixels, region, own, positive=value, kind=kind) for value in (True, False)]
        except RadiographError:
            continue
        person = people.setdefault(patient, len(people) + 1)
        split = "valid" if person % 5 == 0 else "train"
        for (film, mask), word in zip(pair, ("positive", "negative"), strict=True):
            study = f"study{2 * number + (word == 'negative') + 1}"
            path = f"{split}/XR_WRIST/patient{person:05d}/{study}_{word}/image1.png"
            _write_png(folder / path, np.round(film * 255).astype(np.uint8))
            _write_png(folder / "masks" / path, mask.astype(np.uint8) * 255)
            shown = kind if word == "positive" else "none"
            square = (round(value, 2) for value in (region.x, region.y, region.side, region.angle))
            told = (path, f"patient{person:05d}", study, int(word == "positive"), shown, number)
            rows.append((*told, *square, own, int(patients_known)))
    return rows


def _write_png(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 4])[1].tobytes())


def _write_tables(folder: Path, root: str, rows: list[tuple]) -> None:
    """Write metadata.csv and MURA's lists, which name the set's folder, `root`, first and have no headings."""

    def write(name: str, lines: list) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(lines)
        (folder / name).write_text(text.getvalue(), "utf-8")

    write("metadata.csv", [COLUMNS, *rows])
    for split in ("train", "valid"):
        own = [row for row in rows if row[0].startswith(f"{split}/")]
        write(f"{split}_image_paths.csv", [[f"{root}/{row[0]}"] for row in own])
        write(f"{split}_labeled_studies.csv", [[f"{root}/{row[0].rpartition('/')[0]}/", row[3]] for row in own])
