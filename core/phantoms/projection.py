"""Thickness of bone and flesh along the beam, as attenuation per detector element, and the breaks in it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import cv2
import numpy as np

from core.phantoms.anatomy import Bone, smooth
from core.phantoms.fractures import Break

# Attenuation per mm at about 60 kV over that of the flesh the bone displaces; flesh itself.
CORTICAL, TRABECULAR, FLESH = 0.075, 0.017, 0.021
# Relative amplitude of the trabecular pattern.
TEXTURE = 0.17
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
    """Return the attenuation (float32) of a hollow bone inside `box`.

    Across the outline the body is taken as elliptical: a chord of 2 a sqrt(1 - (1 - d/a)^2) at d mm from the edge.
    """
    inside = fill(frame.place(bone.outline), box)
    distance = cv2.distanceTransform((inside > 127).astype(np.uint8), cv2.DIST_L2, 3) / np.float32(frame.per_mm)
    start, direction = bone.axis[0], bone.axis[1] - bone.axis[0]
    length = float(np.hypot(*direction))
    direction = direction / max(length, 1e-6)
    x, y = frame.grid(box)
    along = np.float32(direction[0]) * (x - np.float32(start[0])) + np.float32(direction[1]) * (
        y - np.float32(start[1])
    )
    if bone.cortex_mid != bone.cortex_end:
        low, high = (max(e * length, 1.0) for e in bone.ends)
        middle = np.clip(along / low - 0.4, 0, 1) * np.clip((length - along) / high - 0.4, 0, 1)
        cortex = bone.cortex_end + (bone.cortex_mid - bone.cortex_end) * middle
        spongy = 1 - np.float32(0.7) * middle
    else:
        cortex, spongy = np.float32(bone.cortex_end), np.float32(1)
    a = np.float32(bone.depth)
    outer = 2 * a * np.sqrt(np.clip(1 - np.square(1 - np.minimum(distance / a, 1)), 0, 1))
    inner = 2 * a * np.sqrt(np.clip(1 - np.square(1 - np.clip((distance - cortex) / a, 0, 1)), 0, 1))
    kind = 1 if bone.cortex_mid == bone.cortex_end else 0
    grain = texture(frame, box, kind, start, direction, rng.random(2))
    layer = CORTICAL * (outer - inner) + TRABECULAR * inner * spongy * (1 + np.float32(amplitude) * grain)
    for place, half, size in bone.bands:
        wave = 0.4 * np.sin(x * 0.7 + place) + 0.25 * np.sin(x * 1.7)
        layer = layer * (1 + np.float32(size) * np.exp(-np.square((along - place + wave) / half)))
    for mark_x, mark_y, slope, half_length, half_width, size in bone.marks:
        side = (x - mark_x - slope * (y - mark_y)) / half_width
        layer = layer * (1 + np.float32(size) * np.exp(-np.square(side) - np.square((y - mark_y) / half_length)))
    return (layer * (np.float32(density * bone.weight) * (inside.astype(np.float32) / 255))).astype(np.float32)


def draw_bone(
    canvas: Canvas, bone: Bone, breaks: list[Break], view: str, rng, density: float, amplitude: float
) -> None:
    """Add one bone, broken or whole, to the canvas, and its breaks to the mask."""
    frame = canvas.frame
    margin = 14 * frame.per_mm if breaks else 2
    box = bounds(frame.place(bone.outline), frame, margin)
    if box is None:
        return
    if bone.steps:
        bone = replace(bone, outline=smooth(bone.outline, bone.steps))
    for item in breaks:
        if item.style == "bulge":
            bone = push_out(bone, item, view)
    layer = shell(bone, frame, box, rng, density, amplitude)
    for item in breaks:
        layer, mask = apply_break(layer, bone, item, frame, box, view)
        region = canvas.mask[box[0] : box[2], box[1] : box[3]]
        np.maximum(region, mask, out=region)
    canvas.bone[box[0] : box[2], box[1] : box[3]] += layer


def break_site(bone: Bone, item: Break, view: str) -> tuple[np.ndarray, np.ndarray]:
    """Return centre (2,) in mm of a break and the unit normal of its line, pointing to the piece that moves."""
    index = 0 if view == "PA" else 1
    outline = bone.outline
    slope = item.slope[index]
    if item.bone == "scaphoid":
        axis = np.array([-0.66, 0.75]) if view == "PA" else np.array([0.6, 0.8])
        return outline.mean(axis=0) + axis * item.level, _turned(axis, slope)
    if item.style == "tip":
        top = outline[outline[:, 1].argmax()]
        return top + np.array([0.0, item.level]), _turned(np.array([0.0, 1.0]), slope)
    near = outline[np.abs(outline[:, 1] - item.level) < 5]
    middle = near[:, 0].mean() if len(near) else outline[:, 0].mean()
    return np.array([middle, item.level]), _turned(np.array([0.0, 1.0]), slope)


def _turned(normal: np.ndarray, slope: float) -> np.ndarray:
    turned = normal + slope * np.array([normal[1], -normal[0]])
    return turned / np.hypot(*turned)


def motion(bone: Bone, item: Break, view: str) -> np.ndarray:
    """Return how the far piece moves, as a rigid motion (2, 3) in mm."""
    index = 0 if view == "PA" else 1
    centre, normal = break_site(bone, item, view)
    angle = np.deg2rad(item.angle[index])
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    across = np.array([normal[1], -normal[0]])
    shift = across * item.shift[index] + normal * item.pull
    return np.column_stack([rotation, centre - rotation @ centre + shift])


def push_out(bone: Bone, item: Break, view: str) -> Bone:
    """Return the bone with its cortex bulging at the break (a buckle, or torus, fracture)."""
    side = item.side[0 if view == "PA" else 1]
    points = np.vstack([bone.outline, bone.outline[:1]])
    step = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    fine = np.arange(0, step[-1], 0.5)
    outline = np.column_stack([np.interp(fine, step, points[:, k]) for k in (0, 1)])
    centre, _ = break_site(bone, item, view)
    sign = np.sign(outline[:, 0] - centre[0])
    wanted = (sign == side) if side else np.ones(len(sign), bool)
    outline[:, 0] += item.bulge * sign * wanted * np.exp(-np.square((outline[:, 1] - item.level) / item.width))
    return replace(bone, outline=outline)


def apply_break(layer, bone: Bone, item: Break, frame: Frame, box, view: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the broken bone's attenuation and the break's mask, both float32 of the box's shape."""
    x, y = frame.grid(box)
    centre, normal = (v.astype(np.float32) for v in break_site(bone, item, view))
    across = (x - centre[0]) * normal[1] - (y - centre[1]) * normal[0]
    rng = np.random.default_rng([item.seed, view == "PA"])
    knots = np.convolve(rng.normal(0, item.roughness, 40), [0.25, 0.5, 0.25], "same").astype(np.float32)
    knots = cv2.resize(knots[None], (320, 1), interpolation=cv2.INTER_LINEAR)[0]
    rough = knots[np.clip((across + 32) * 5, 0, 319).astype(np.int32)]
    beyond = (x - centre[0]) * normal[0] + (y - centre[1]) * normal[1] - rough
    solid = layer > 0.02
    if item.style == "bulge":
        return _crush(layer, solid, beyond + rough, across, item, view)
    if item.style == "line":
        return _thin(layer, solid, beyond, across, item)
    return _part(layer, solid, beyond, across, item, frame, box, motion(bone, item, view), view, centre, rng)


def _crush(layer, solid, beyond, across, item, view):
    side = item.side[0 if view == "PA" else 1]
    half = np.clip(0.5 + side * across / 4, 0, 1) if side else np.float32(1)
    layer = layer * (1 + np.float32(item.density) * half * np.exp(-np.square(beyond / (0.6 * item.width))))
    mask = solid & (np.abs(beyond) < 1.35 * item.width) & ((side * across > -1.0) if side else True)
    return layer, mask.astype(np.float32)


def _thin(layer, solid, beyond, across, item):
    inside = np.clip((across - item.extent[0]) / 1.5, 0, 1) * np.clip((item.extent[1] - across) / 1.5, 0, 1)
    layer = layer * (1 - np.float32(item.lucency) * inside * np.exp(-np.square(beyond / item.width)))
    return layer, (solid & (np.abs(beyond) < 1.8) & (inside > 0.3)).astype(np.float32)


def _part(layer, solid, beyond, across, item, frame, box, moved, view, centre, rng):
    """Cut the bone in two and move the far piece as a body; where the pieces overlap their attenuations add."""
    far = np.clip(beyond / np.float32(item.obliquity[0 if view == "PA" else 1]) + 0.5, 0, 1)
    if item.style == "tip":  # a styloid is narrow; the head beside it stays
        beyond = np.where(np.abs(across) < (4.5 if view == "PA" else 6.0), beyond, np.float32(-9))
        far = np.where(beyond > -9, far, 0)
    if item.lucency:
        layer = layer * (1 - np.float32(item.lucency) * np.exp(-np.square(beyond / item.width)))
    if item.density:
        layer = layer * (1 + np.float32(item.density) * np.exp(-np.square(beyond / 1.6)))
    if item.crumble:
        grain = texture(frame, box, 1, centre, np.array([0.0, 0.45]), rng.random(2))
        layer = layer * (1 + np.float32(item.crumble) * grain * np.exp(-np.square(beyond / 3.5)))
        layer = np.maximum(layer, 0)
    piece, rest = layer * far, layer * (1 - far)
    near = solid & (np.abs(beyond) < (3.0 if item.style == "tip" else 1.7))
    band = near.astype(np.float32)
    if item.limb is not None:
        piece, limb = _split(piece, solid & (beyond > 0), across, beyond, item.limb, frame)
        band = np.maximum(band, limb)
    if item.style == "tip":
        band = np.maximum(band, (solid & (beyond > 0)).astype(np.float32))
    to_pixels = frame.carry(moved)
    shift = np.array([box[1] + 0.5, box[0] + 0.5])
    local = np.column_stack([to_pixels[:, :2], to_pixels[:, :2] @ shift + to_pixels[:, 2] - shift])
    size = (layer.shape[1], layer.shape[0])
    piece_there = cv2.warpAffine(piece, local, size, flags=cv2.INTER_LINEAR)
    band_there = cv2.warpAffine(band * (beyond > -0.5), local, size, flags=cv2.INTER_LINEAR)
    overlap = (np.minimum(piece_there, rest) > 0.04) & (np.abs(beyond) < 9)
    mask = np.maximum(np.maximum(band * (beyond < 0.5), band_there), overlap)
    reach = max(round(1.2 * frame.per_mm) | 1, 3)
    closed = cv2.morphologyEx(mask.astype(np.float32), cv2.MORPH_CLOSE, np.ones((reach, reach), np.uint8))
    return rest + piece_there, closed


def _split(piece, solid, across, beyond, limb, frame):
    """Split the far piece lengthwise into the joint, with a step in the joint's surface."""
    place, tilt, step = limb
    away = across - place - tilt * beyond
    lowered = np.clip(away / 0.35 + 0.5, 0, 1)
    sinking = frame.matrix[:, 1] * -step
    dropped = cv2.warpAffine(piece * lowered, np.float64([[1, 0, sinking[0]], [0, 1, sinking[1]]]), piece.shape[::-1])
    piece = (piece * (1 - lowered) + dropped) * (1 - 0.45 * np.exp(-np.square(away / 0.55)))
    return piece, (solid & (np.abs(away) < 1.6)).astype(np.float32)


def flesh(
    main: np.ndarray, fingers: list[np.ndarray], frame: Frame, depth: float, folds: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the attenuation of the soft tissue up to `depth` mm deep, float32 of the frame's shape."""
    box = (0, 0, *frame.shape)
    inside = np.zeros(frame.shape, np.uint8)
    for outline in (main, *fingers):
        np.maximum(inside, fill(frame.place(outline), box), out=inside)
    distance = cv2.distanceTransform((inside > 127).astype(np.uint8), cv2.DIST_L2, 3) / np.float32(frame.per_mm)
    thickness = np.float32(depth) * np.sqrt(1 - np.exp(-distance / 22))
    grain = texture(frame, box, 0, np.zeros(2), np.array([0.0, 1.0]) * 0.25, rng.random(2))
    soft = FLESH * thickness * (1 + np.float32(0.03) * grain)
    for _ in range(folds):
        _crease(soft, frame, rng)
    return soft * (inside.astype(np.float32) / 255)


def _crease(soft: np.ndarray, frame: Frame, rng: np.random.Generator) -> None:
    """Lay a skin fold across the limb: a thin curved line, over bone and flesh alike."""
    x, y = frame.grid((0, 0, *frame.shape))
    place, bend, slope = rng.uniform(-45, 30), rng.normal(0, 0.006), rng.normal(0, 0.15)
    away = (y - place - bend * np.square(x) - slope * x) / np.float32(rng.uniform(0.35, 0.9))
    start, reach = rng.uniform(-30, 20), rng.uniform(10, 35)
    along = np.exp(-np.square((x - start) / reach))
    soft += np.float32(rng.choice([-1, 1]) * rng.uniform(0.015, 0.05)) * along * np.exp(-np.square(away))
