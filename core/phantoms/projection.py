"""Thickness of bone and flesh along the beam, as attenuation per detector element."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import cv2
import numpy as np

from core.phantoms.anatomy import Bone, Cap, Patient, smooth

# Attenuation per mm at about 60 kV over that of the flesh the bone displaces; flesh itself.
CORTICAL, TRABECULAR, FLESH = 0.075, 0.017, 0.021
# Relative amplitude of the trabecular pattern.
TEXTURE = 0.13
_BANK_PER_MM = 4.0


def compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Return the motion (2, 3) that does `inner` first, then `outer`."""
    return np.column_stack([outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2] + outer[:, 2]])


@dataclass(frozen=True, eq=False)
class Frame:
    """Where a film lies over the anatomy: pixel = `matrix` @ (x, y, 1), mm to pixels; `shape` is (height, width)."""

    matrix: np.ndarray
    shape: tuple[int, int]

    @cached_property
    def per_mm(self) -> float:
        """Pixels per mm."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix[:, :2]))))

    def place(self, points: np.ndarray) -> np.ndarray:
        """Return points (n, 2) in mm as pixels."""
        return np.asarray(points, float) @ self.matrix[:, :2].T + self.matrix[:, 2]

    @cached_property
    def inverse(self) -> np.ndarray:
        """Pixels to mm, (2, 3)."""
        linear = np.linalg.inv(self.matrix[:, :2])
        return np.column_stack([linear, -linear @ self.matrix[:, 2]])

    def grid(self, box: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y in mm of the pixel centres of `box` (top, left, bottom, right)."""
        top, left, bottom, right = box
        rows = np.arange(top, bottom, dtype=np.float32)[:, None] + 0.5
        columns = np.arange(left, right, dtype=np.float32)[None, :] + 0.5
        inverse = self.inverse.astype(np.float32)
        x, y = (inverse[k, 0] * columns + inverse[k, 1] * rows + inverse[k, 2] for k in (0, 1))
        return x, y

    def carry(self, matrix: np.ndarray) -> np.ndarray:
        """Return a rigid motion (2, 3) of the anatomy in mm as one of the film in pixels."""
        return compose(self.matrix, compose(matrix, self.inverse))


# Depth of a bone's slices as a share of half its depth, and each one's share of the attenuation.
SLICES = ((-0.7, 0.36), (0.0, 0.28), (0.7, 0.36))
BREAKABLE = frozenset({"radius", "ulna", "ulna epiphysis", "scaphoid", "scaphoid back"})


@dataclass(eq=False)
class Canvas:
    """Attenuation and mask of a film under construction, float32."""

    frame: Frame
    bone: np.ndarray = field(init=False)
    mask: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.bone = np.zeros(self.frame.shape, np.float32)
        self.mask = np.zeros(self.frame.shape, np.float32)


@lru_cache(maxsize=1)
def texture_bank() -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """Return tileable textures of unit variance, at 4 pixels per mm and coarser: one along an axis, one without."""
    rng = np.random.default_rng(20_240_601)

    def pattern(*layers: tuple[float, float, float]) -> tuple[np.ndarray, ...]:
        total = np.zeros((512, 512), np.float32)
        for weight, across, along in layers:
            noise = cv2.copyMakeBorder(
                rng.standard_normal((512, 512)).astype(np.float32), 64, 64, 64, 64, cv2.BORDER_WRAP
            )
            noise = cv2.GaussianBlur(noise, (0, 0), sigmaX=across * _BANK_PER_MM, sigmaY=along * _BANK_PER_MM)[
                64:-64, 64:-64
            ]
            total += weight * noise / noise.std()
        total /= total.std()
        return tuple(cv2.resize(total, (512 // k, 512 // k), interpolation=cv2.INTER_AREA) for k in (1, 2, 4))

    return pattern((1, 0.26, 1.5), (0.7, 0.33, 0.33), (0.4, 0.9, 0.3)), pattern((1, 0.33, 0.33), (0.6, 1.2, 1.2))


def texture(frame: Frame, box: tuple[int, int, int, int], kind: int, origin, direction, offset) -> np.ndarray:
    """Return the texture under `box`; `direction` (unit vector in mm) is the way the trabeculae run."""
    level = 0 if frame.per_mm > 2.8 else (1 if frame.per_mm > 1.3 else 2)
    bank = texture_bank()[kind][level]
    scale = _BANK_PER_MM / 2**level
    inverse = frame.inverse.copy()
    inverse[:, 2] += inverse[:, :2] @ np.array([box[1] + 0.5, box[0] + 0.5]) - origin
    across = np.array([direction[1], -direction[0]])
    matrix = np.vstack([across @ inverse, direction @ inverse]) * scale
    matrix[:, 2] += np.asarray(offset) * bank.shape[0]
    size = (box[3] - box[1], box[2] - box[0])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(bank, matrix, size, flags=flags, borderMode=cv2.BORDER_WRAP)


def fill(points: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Return the inside of a closed outline in pixels, uint8 0 to 255, anti-aliased."""
    inside = np.zeros((box[2] - box[0], box[3] - box[1]), np.uint8)
    corners = np.round((points - [box[1] + 0.5, box[0] + 0.5]) * 16).astype(np.int32)
    cv2.fillPoly(inside, [corners], 255, cv2.LINE_AA, 4)
    return inside


def bounds(points: np.ndarray, frame: Frame, margin: float) -> tuple[int, int, int, int] | None:
    """Return the box (top, left, bottom, right) around points in pixels, cut at the film's edge, or None outside it."""
    low, high = np.floor(points.min(axis=0) - margin), np.ceil(points.max(axis=0) + margin)
    left, top = max(int(low[0]), 0), max(int(low[1]), 0)
    right, bottom = min(int(high[0]), frame.shape[1]), min(int(high[1]), frame.shape[0])
    return (top, left, bottom, right) if right - left > 1 and bottom - top > 1 else None


def shell(bone: Bone, frame: Frame, box, rng: np.random.Generator, density: float, amplitude: float) -> np.ndarray:
    """Return the attenuation (float32) of a hollow bone inside `box`, the sum of its `slices`."""
    first, *others = slices(bone, frame, box, rng, density, amplitude)
    for other in others:
        first += other
    return first


def slices(
    bone: Bone, frame: Frame, box, rng: np.random.Generator, density: float, amplitude: float
) -> list[np.ndarray]:
    """Return the attenuation (float32) of a hollow bone inside `box`, slice by slice along the beam.

    A bone that may break has three (`SLICES`), each with trabeculae of its own: where they move apart their sum is as
    sharp as before, as it is in bone. Any other has one.

    Across the outline the body is taken as elliptical: a chord of 2 a sqrt(1 - (1 - d/a)^2) at d mm from the edge.
    """
    hull = bone.outline if bone.cap is None else _hull(bone)
    inside = fill(frame.place(hull), box)
    distance = cv2.distanceTransform((inside > 127).astype(np.uint8), cv2.DIST_L2, 3) / np.float32(frame.per_mm)
    start, direction = bone.axis[0], bone.axis[1] - bone.axis[0]
    length = float(np.hypot(*direction))
    direction = direction / max(length, 1e-6)
    along = _along(frame, box, start, direction)
    if bone.cortex_mid != bone.cortex_end:
        low, high = (max(e * length, 1.0) for e in bone.ends)
        middle = np.clip(along * np.float32(1 / low) - np.float32(0.4), 0, 1)
        middle *= np.clip(np.float32(length / high - 0.4) - along * np.float32(1 / high), 0, 1)
        cortex = np.float32(bone.cortex_end) + np.float32(bone.cortex_mid - bone.cortex_end) * middle
        spongy = 1 - np.float32(0.7) * middle
    else:
        cortex, spongy = np.float32(bone.cortex_end), np.float32(1)
    a = float(bone.depth)
    outer, inner = _chord(distance, a), _chord(distance - cortex, a)
    kind = 1 if bone.cortex_mid == bone.cortex_end else 0
    spongy = TRABECULAR * spongy * inner
    if bone.cap is None:
        cortical = CORTICAL * (outer - inner)
    else:
        below, plate = _below_cap(bone.cap, frame, box)
        cortical = CORTICAL * ((outer - inner) * below + np.float32(0.8) * inner * plate)
        spongy *= below - plate
    inside = inside.astype(np.float32)
    inside *= np.float32(density * bone.weight / 255)
    for band in bone.bands:
        _lay_band(inside, along, band, frame, box)
    for mark in bone.marks:
        _lay_mark(inside, mark, frame, box)
    cortical *= inside
    spongy *= inside
    weights = [weight for _, weight in SLICES] if bone.name in BREAKABLE else [1.0]
    # As uneven together as one texture is by itself.
    amplitude = amplitude / math.sqrt(sum(weight**2 for weight in weights))
    found = []
    for weight in weights:
        grain = texture(frame, box, kind, start, direction, rng.random(2))
        grain *= np.float32(amplitude * weight)
        grain += np.float32(weight)
        grain *= spongy
        grain += np.float32(weight) * cortical
        found.append(grain)
    return found


def _along(frame: Frame, box, start: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Return how far each pixel of `box` lies along `direction` from `start`, mm, float32."""
    row = direction @ frame.inverse
    first = row[2] - start @ direction
    across = (row[0] * (np.arange(box[1], box[3]) + 0.5) + first).astype(np.float32)
    return across[None] + (row[1] * (np.arange(box[0], box[2]) + 0.5)).astype(np.float32)[:, None]


def _lay_band(layer: np.ndarray, along: np.ndarray, band, frame: Frame, box) -> None:
    """Lay an uneven line across a bone's attenuation, in place."""
    place, half, size = band
    rows = np.flatnonzero((np.abs(along - np.float32(place)) < 2.5 * half + 0.7).any(axis=1))
    if not len(rows):
        return
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    x, _ = frame.grid((box[0] + top, box[1], box[0] + bottom, box[3]))
    away = along[top:bottom] - np.float32(place) + np.float32(0.4) * np.sin(x * np.float32(0.7) + np.float32(place))
    away += np.float32(0.25) * np.sin(x * np.float32(1.7))
    layer[top:bottom] *= 1 + np.float32(size) * np.exp(-np.square(away * np.float32(1 / half)))


def _lay_mark(layer: np.ndarray, mark, frame: Frame, box) -> None:
    """Lay a spot or a canal on a bone's attenuation, in place."""
    mark_x, mark_y, slope, half_length, half_width, size = mark
    wide = 2.5 * (half_width + abs(slope) * half_length)
    corners = np.array([[mark_x + i * wide, mark_y + j * 2.5 * half_length] for i in (-1, 1) for j in (-1, 1)])
    spot = bounds(frame.place(corners), frame, 1)
    if spot is None:
        return
    top, left = max(spot[0], box[0]), max(spot[1], box[1])
    bottom, right = min(spot[2], box[2]), min(spot[3], box[3])
    if bottom <= top or right <= left:
        return
    x, y = frame.grid((top, left, bottom, right))
    y = y - np.float32(mark_y)
    side = (x - np.float32(mark_x) - np.float32(slope) * y) * np.float32(1 / half_width)
    factor = np.exp(-np.square(side) - np.square(y * np.float32(1 / half_length)))
    layer[top - box[0] : bottom - box[0], left - box[1] : right - box[1]] *= 1 + np.float32(size) * factor


def _chord(distance: np.ndarray, a: float) -> np.ndarray:
    """Return the way (mm) through a body of half depth `a`, `distance` mm inside its edge."""
    away = distance * np.float32(-1 / a)
    away += 1
    np.clip(away, 0, 1, out=away)
    away *= away
    np.subtract(1, away, out=away)
    np.sqrt(away, out=away)
    away *= np.float32(2 * a)
    return away


def _hull(bone: Bone) -> np.ndarray:
    """Return a capped bone's outline with its walls drawn up past the cap, which cuts it."""
    rows = bone.outline @ bone.cap.matrix[1, :2] + bone.cap.matrix[1, 2]
    up = bone.cap.matrix[1, :2] / np.square(bone.cap.matrix[1, :2]).sum()
    return bone.outline + np.where(rows > bone.cap.base, 30.0, 0.0)[:, None] * up


def _below_cap(cap: Cap, frame: Frame, box: tuple[int, int, int, int]) -> np.ndarray:
    """Return what share of the bone's depth lies below its end's surface, and in the plate under it."""
    inverse = frame.inverse.copy()
    inverse[:, 2] += inverse[:, :2] @ np.array([box[1] + 0.5, box[0] + 0.5])
    matrix = compose(cap.matrix, inverse)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = (box[3] - box[1], box[2] - box[0])
    return cv2.split(cv2.warpAffine(cap.table, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE))


def draw_bone(canvas: Canvas, bone: Bone, rng, density: float, amplitude: float) -> None:
    """Add one whole bone to the canvas."""
    frame = canvas.frame
    box = bounds(frame.place(bone.outline), frame, 2)
    if box is None:
        return
    if bone.steps:
        bone = replace(bone, outline=smooth(bone.outline, bone.steps))
    canvas.bone[box[0] : box[2], box[1] : box[3]] += shell(bone, frame, box, rng, density, amplitude)


def flesh(
    main: np.ndarray,
    fingers: list[np.ndarray],
    frame: Frame,
    depth: float,
    patient: Patient | None,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the attenuation of the soft tissue up to `depth` mm deep, float32 of the frame's shape.

    A patient's has a coat of fat, thinner to the beam than the muscle in it, and skin folds.
    """
    box = (0, 0, *frame.shape)
    inside = np.zeros(frame.shape, np.uint8)
    for outline in (main, *fingers):
        np.maximum(inside, fill(frame.place(outline), box), out=inside)
    # All but the skin's edge is smooth: half the resolution is enough for it.
    half = Frame(frame.matrix / 2, ((frame.shape[0] + 1) // 2, (frame.shape[1] + 1) // 2))
    small = cv2.resize(inside, half.shape[::-1], interpolation=cv2.INTER_AREA)
    distance = cv2.distanceTransform((small > 127).astype(np.uint8), cv2.DIST_L2, 3) / np.float32(half.per_mm)
    thickness = np.float32(depth) * np.sqrt(1 - np.exp(-distance / 22))
    grain = texture(half, (0, 0, *half.shape), 0, np.zeros(2), np.array([0.0, 1.0]) * 0.25, rng.random(2))
    soft = FLESH * thickness * (1 + np.float32(0.03) * grain)
    if patient:
        muscle = np.clip((distance - np.float32(patient.fat_mm)) / 7, 0, 1)
        skin = np.clip(1 - np.abs(distance - 0.9) / 0.9, 0, 1)
        soft = soft * (np.float32(0.86) + np.float32(0.14) * np.sqrt(muscle)) + np.float32(0.03) * skin
        for _ in range(patient.folds):
            _crease(soft, half, rng)
    soft = cv2.resize(soft, frame.shape[::-1], interpolation=cv2.INTER_LINEAR)
    soft *= inside
    soft *= np.float32(1 / 255)
    return soft


def _crease(soft: np.ndarray, frame: Frame, rng: np.random.Generator) -> None:
    """Lay a skin fold across the limb: a thin curved line, over bone and flesh alike."""
    x, y = frame.grid((0, 0, *frame.shape))
    place, bend, slope = rng.uniform(-45, 30), rng.normal(0, 0.006), rng.normal(0, 0.15)
    away = (y - place - bend * np.square(x) - slope * x) / np.float32(rng.uniform(0.35, 0.9))
    start, reach = rng.uniform(-30, 20), rng.uniform(10, 35)
    along = np.exp(-np.square((x - start) / reach))
    soft += np.float32(rng.choice([-1, 1]) * rng.uniform(0.015, 0.05)) * along * np.exp(-np.square(away))
