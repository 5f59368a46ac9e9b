"""Breaks in the projected bones: the cut through their depth, the pieces' motion, and the mask.

A bone is cut in slices at three depths. A plane that leans along the beam meets each of them at another height, and a
piece that tips along the beam leaves each of them another gap; the film shows the sum. So one break, planned in space,
is a sharp line in one view and a broad, faint shade in another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from core.phantoms.anatomy import Bone, smooth
from core.phantoms.fractures import Break
from core.phantoms.projection import SLICES, Canvas, Frame, bounds, fill, slices, texture
from core.phantoms.views import View

# Least mean change of attenuation in the mask: below it nobody sees a break in a film of 224 pixels.
VISIBLE = 0.05
# ... or, of a thin bone, this share of its attenuation.
_VISIBLE_SHARE = 0.2
_TIP_SHARE = 0.35  # a styloid is thin, and its break is seen all the same
# Half width in mm of the band along the break that the mask covers.
_BAND = 1.7


@dataclass(frozen=True, eq=False)
class Site:
    """Where a break lies in one view: its middle, the way to the piece that moves, and half the bone's width; mm."""

    centre: np.ndarray
    normal: np.ndarray
    half: float

    @property
    def across(self) -> np.ndarray:
        """Unit vector along the break, towards +x of an upright bone."""
        return np.array([self.normal[1], -self.normal[0]])


@dataclass(frozen=True, eq=False)
class _Patch:
    """The part of a film in which a break shows: its box and, per pixel, mm along and beyond the break's middle."""

    frame: Frame
    box: tuple[int, int, int, int]
    u: np.ndarray
    v: np.ndarray


def _depths(view: View) -> View:
    """Return the view that looks along this view's film: its ``mix`` gives lengths along the beam."""
    return View(view.name, view.angle + 90)


def draw_broken(canvas: Canvas, bone: Bone, item: Break, view: View, rng, density: float, amplitude: float) -> None:
    """Add one broken bone to the canvas, and its break to the mask.

    Parameters
    ----------
    canvas : Canvas
        Its ``bone`` (attenuation) and ``mask`` are changed in place.
    bone : Bone
        The whole bone as this view shows it.
    item : Break
    view : View
    rng : numpy.random.Generator
        Draws the trabeculae, exactly as for the whole bone.
    density, amplitude : float
        Mineral content, 1 = normal, and relative amplitude of the trabeculae.
    """
    frame = canvas.frame
    margin = (2 + _travel(item)) * frame.per_mm
    box = bounds(frame.place(bone.outline), frame, margin)
    if box is None:
        return
    if bone.steps:
        bone = replace(bone, outline=smooth(bone.outline, bone.steps), steps=0)
    if item.style == "bulge":
        bone = push_out(bone, item, view)
    parts = slices(bone, frame, box, rng, density, amplitude)
    layer = np.sum(parts, axis=0)
    mask = np.zeros_like(layer)
    apply_break(layer, mask, bone, item, frame, box, view, parts)
    region = canvas.mask[box[0] : box[2], box[1] : box[3]]
    np.maximum(region, mask, out=region)
    canvas.bone[box[0] : box[2], box[1] : box[3]] += layer


def _travel(item: Break) -> float:
    """Return how far a point of the far piece may move, mm."""
    lever = 45.0 if item.bone in ("radius", "ulna") else 12.0
    turned = math.radians(math.hypot(*item.angle)) * lever
    return math.hypot(*item.shift) + abs(item.pull) + turned + item.bulge


def find_site(bone: Bone, item: Break, view: View) -> Site:
    """Return where a break lies on a bone as this view shows it."""
    outline = smooth(bone.outline, bone.steps) if bone.steps else bone.outline
    normal = np.array([0.0, 1.0])
    if item.bone == "scaphoid":
        normal = np.array([view.mix(-0.66, 0.6), 0.77])
        normal /= np.hypot(*normal)
        centre = outline.mean(axis=0) + normal * item.level
    elif item.style == "tip":
        top = outline[outline[:, 1].argmax()]
        return Site(top + np.array([0.0, item.level]), normal, abs(view.mix(4.5, 0)) + abs(view.mix(0, 6.0)))
    elif item.style == "corner":
        centre = np.array([0.0, np.percentile(outline[:, 1], 98) - 0.6])
    else:
        centre = np.array([outline[:, 0].mean(), item.level])
    across = np.array([normal[1], -normal[0]])
    crossed = _crossings(
        (outline - centre) @ across, (outline - centre) @ normal, -2.5 if item.style == "corner" else 0
    )
    middle, half = (crossed[0] + crossed[1]) / 2, (crossed[1] - crossed[0]) / 2
    return Site(centre + across * middle, normal, max(half, 1.0))


def _crossings(u: np.ndarray, v: np.ndarray, level: float) -> tuple[float, float]:
    """Return the outermost places where a closed outline crosses v = `level`; its whole width where it does not."""
    nu, nv = np.roll(u, -1), np.roll(v, -1)
    hit = (v > level) != (nv > level)
    if hit.sum() < 2:
        return float(u.min()), float(u.max())
    places = u[hit] + (nu[hit] - u[hit]) * (level - v[hit]) / (nv[hit] - v[hit])
    return float(places.min()), float(places.max())


def motion(bone: Bone, item: Break, view: View) -> np.ndarray:
    """Return how the middle of the far piece moves in this view, as a rigid motion (2, 3) in mm."""
    return _slice_motion(find_site(bone, item, view), item, view, 0.0)


def _slice_motion(site: Site, item: Break, view: View, depth: float) -> np.ndarray:
    """Return the motion of the slice `depth` mm behind the bone's middle."""
    deep = _depths(view)
    angle = math.radians(view.mix(*item.angle))
    rotation = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    pivot = site.centre + site.across * view.mix(*item.hinge)
    tipped = math.sin(math.radians(deep.mix(*item.angle))) * (deep.mix(*item.hinge) - depth)
    shift = site.across * view.mix(*item.shift) + site.normal * (item.pull + tipped)
    return np.column_stack([rotation, pivot - rotation @ pivot + shift])


def push_out(bone: Bone, item: Break, view: View) -> Bone:
    """Return the bone with its cortex bulging at the break (a buckle, or torus, fracture)."""
    points = np.vstack([bone.outline, bone.outline[:1]])
    step = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    fine = np.arange(0, step[-1], 0.4)
    outline = np.column_stack([np.interp(fine, step, points[:, k]) for k in (0, 1)])
    site = find_site(bone, item, view)
    sign = np.sign(outline[:, 0] - site.centre[0])
    away = (outline[:, 1] - site.centre[1] - view.mix(*item.slope) * (outline[:, 0] - site.centre[0])) / item.width
    # Steeper on the side of the shaft, where the cortex folds over itself.
    away = np.where(away < 0, away * 1.5, away * 0.8)
    wanted = np.where(sign > 0, _on_side(item, view, 1), _on_side(item, view, -1))
    outline[:, 0] += item.bulge * sign * wanted * np.exp(-(np.abs(away) ** 1.6))
    return replace(bone, outline=outline)


def _on_side(item: Break, view: View, sign: int) -> float:
    """Return how much of a one-sided break shows at the bone's edge towards `sign` * x, [0, 1]."""
    if not any(item.side):
        return 1.0
    return max(sign * view.mix(*item.side), 0.0) ** 0.7


def apply_break(
    layer: np.ndarray,
    mask: np.ndarray,
    bone: Bone,
    item: Break,
    frame: Frame,
    box,
    view: View,
    parts: list[np.ndarray],
) -> None:
    """Break a bone's attenuation and add to the break's mask, both float32 of the box's shape, in place.

    `parts`: the bone's slices, whose sum `layer` is.
    """
    site = find_site(bone, item, view)
    patch = _patch(site, bone, item, frame, box)
    if patch is None:
        return
    rows = slice(patch.box[0] - box[0], patch.box[2] - box[0])
    columns = slice(patch.box[1] - box[1], patch.box[3] - box[1])
    whole = layer[rows, columns].copy()
    here = [part[rows, columns] for part in parts]
    work = {"bulge": _crush, "line": _thin}.get(item.style, _part)
    broken, shown = work(here, whole, patch, site, bone, item, view)
    # The slices' corners of a growth plate lie apart: what is between them belongs to the break.
    reach = max(round((5.0 if item.style == "corner" else 1.0) * frame.per_mm) | 1, 3)
    shown = cv2.morphologyEx(shown.astype(np.float32), cv2.MORPH_CLOSE, np.ones((reach, reach), np.uint8))
    layer[rows, columns] = _visible(broken, whole, shown, patch, item, view)
    np.maximum(mask[rows, columns], shown, out=mask[rows, columns])


def _patch(site: Site, bone: Bone, item: Break, frame: Frame, box) -> _Patch | None:
    """Return the part of the box that a break changes: the far piece and a strip of the near one."""
    outline = bone.outline
    v = (outline - site.centre) @ site.normal
    reach = 8 + abs(item.pull) + 1.2 * site.half
    strip = site.centre + np.array(
        [s * site.across * (site.half + 4) + t * site.normal * reach for s in (-1, 1) for t in (-1, 1)]
    )
    # Only what a line thins or a bulge pushes stays in place; a piece that moves takes all beyond it along.
    moves = item.style not in ("line", "bulge")
    points = np.vstack([strip, outline[v > 0]]) if moves else strip
    cut = bounds(frame.place(points), frame, (_travel(item) + 2) * frame.per_mm)
    if cut is None:
        return None
    cut = (max(cut[0], box[0]), max(cut[1], box[1]), min(cut[2], box[2]), min(cut[3], box[3]))
    if cut[2] - cut[0] < 2 or cut[3] - cut[1] < 2:
        return None
    x, y = frame.grid(cut)
    x, y = x - np.float32(site.centre[0]), y - np.float32(site.centre[1])
    nx, ny = (np.float32(value) for value in site.normal)
    return _Patch(frame, cut, x * ny - y * nx, x * nx + y * ny)


def _beyond(patch: _Patch, site: Site, item: Break, view: View, number: int, depth: float) -> np.ndarray:
    """Return how far each pixel of a slice lies beyond the break's rough surface, mm."""
    u, v = patch.u, patch.v
    deep = _depths(view)
    slope = 0.0
    if item.style == "corner":  # along the growth plate, then down through the metaphysis
        aside = np.float32(view.mix(*item.side)) * u + np.float32(deep.mix(*item.side) * depth) - item.start
        height = np.float32(-item.steep) * np.maximum(aside, 0)
    else:
        slope = view.mix(*item.slope)
        height = np.float32(slope) * u + np.float32(deep.mix(*item.slope) * depth)
    rng = np.random.default_rng([item.seed, number])
    knots = rng.normal(0, item.roughness, 40)
    knots = np.convolve(knots, [0.25, 0.5, 0.25], "same") + 0.35 * rng.normal(0, item.roughness, 40)
    # The surface is rough in steps, as bone breaks along its lamellae.
    fine = cv2.resize(knots.astype(np.float32)[None], (320, 1), interpolation=cv2.INTER_LINEAR)[0]
    rough = fine[np.clip((u + 32) * 5, 0, 319).astype(np.int32)]
    return (v - height - rough) * np.float32(1 / math.hypot(1, slope))


def _weakness(patch: _Patch, site: Site, bone: Bone, item: Break, view: View, depth: float) -> np.ndarray | np.float32:
    """Return how much of the crushing falls on each pixel, [0, 1]: all of it on the side that gave way."""
    if not any(item.side) or item.style == "corner":
        return np.float32(1)
    away = np.float32(view.mix(*item.side) / site.half) * patch.u
    away = away + np.float32(_depths(view).mix(*item.side) * depth / bone.depth)
    return np.clip(np.float32(0.45) + np.float32(0.75) * away, 0, 1)


def _crush(parts, whole, patch, site, bone, item, view):
    """Bulge: a faint dense line where the trabeculae are pressed together, fading away from the buckled side."""
    beyond = patch.v - np.float32(view.mix(*item.slope)) * patch.u
    half = _weakness(patch, site, bone, item, view, 0.0)
    solid = whole > 0.02
    wave = np.sin(patch.u * np.float32(0.9) + item.seed % 7) * np.float32(0.5)
    layer = whole * (1 + np.float32(item.density) * half * np.exp(-np.square((beyond + wave) / (0.45 * item.width))))
    shown = solid & (np.abs(beyond) < 1.3 * item.width) & (half > 0.2)
    return layer, shown


def _thin(parts, whole, patch, site, bone, item, view):
    """Hairline: each slice is thinned along its own line, which may end within the bone."""
    layer = np.zeros_like(whole)
    shown = np.zeros(whole.shape, bool)
    solid = whole > 0.02
    for number, (place, _) in enumerate(SLICES):
        depth = place * bone.depth
        beyond = _beyond(patch, site, item, view, number, depth)
        inside = np.float32(1)
        if any(item.side):
            aside = view.mix(*item.side) * patch.u + _depths(view).mix(*item.side) * depth
            inside = np.clip((aside - item.start) / 1.5, 0, 1)
        opened = inside * _uneven(patch.u, item, number)
        layer += parts[number] * (1 - np.float32(item.lucency) * opened * _line(beyond, item.width))
        shown |= solid & (np.abs(beyond) < _BAND) & (inside > 0.3)
    return layer, shown


def _uneven(u: np.ndarray, item: Break, number: int) -> np.ndarray:
    """Return how far a line gapes along itself, [0.2, 1]: seldom evenly."""
    knots = np.random.default_rng([item.seed, 20 + number]).uniform(0.2, 1.4, 14).astype(np.float32)
    fine = np.minimum(cv2.resize(knots[None], (320, 1), interpolation=cv2.INTER_CUBIC)[0], 1)
    return np.clip(fine, 0.2, 1)[np.clip((u + 32) * 5, 0, 319).astype(np.int32)]


def _line(beyond: np.ndarray, width: float) -> np.ndarray:
    return np.exp(-np.square(beyond * np.float32(1 / width)))


def _part(parts, whole, patch, site, bone, item, view):
    """Cut the bone and move the far piece as a body; where the pieces overlap their attenuations add."""
    frame, box = patch.frame, patch.box
    solid = whole > 0.02
    rest, there = np.zeros_like(whole), np.zeros_like(whole)
    shown = np.zeros(whole.shape, bool)
    grain = None
    if item.crumble:
        rng = np.random.default_rng([item.seed, 9])
        grain = texture(frame, box, 1, site.centre, np.array([0.0, 0.45]), rng.random(2))
    origin = np.array([box[1] + 0.5, box[0] + 0.5])
    for number, (place, _) in enumerate(SLICES):
        depth = place * bone.depth
        beyond = _beyond(patch, site, item, view, number, depth)
        if item.style == "tip":  # a styloid is narrow; the head beside it stays
            beyond = np.where(np.abs(patch.u) < site.half, beyond, np.float32(-9))
        slab = _disorder(parts[number], beyond, grain, item, patch, site, bone, view, depth)
        far = np.clip(beyond * np.float32(1 / 0.35) + 0.5, 0, 1)
        band = solid & (np.abs(beyond) < (3.0 if item.style == "tip" else _BAND))
        piece = slab * far
        rest += slab - piece
        if item.limb is not None:
            piece, limb = _split(piece, solid & (beyond > 0), patch, beyond, item, view, depth)
            band |= limb
        if item.style == "tip":
            band |= solid & (beyond > 0)
        moved = frame.carry(_slice_motion(site, item, view, depth))
        local = np.column_stack([moved[:, :2], moved[:, :2] @ origin + moved[:, 2] - origin])
        size = whole.shape[::-1]
        piece_there = np.maximum(cv2.warpAffine(piece, local, size, flags=cv2.INTER_CUBIC), 0)
        there += piece_there
        band_there = cv2.warpAffine((band & (beyond > -0.5)).astype(np.uint8), local, size, flags=cv2.INTER_NEAREST)
        shown |= (band & (beyond < 0.5)) | (band_there > 0)
        shown |= (np.minimum(piece_there, slab * (1 - far)) > 0.015) & (np.abs(beyond) < 5 + 1.2 * abs(item.pull))
    layer = rest + there
    if item.chips:
        _scatter_chips(layer, shown, patch, site, item, view)
    return layer, shown


def _disorder(whole, beyond, grain, item: Break, patch, site, bone, view, depth) -> np.ndarray:
    """Return a slice whose trabeculae are torn, crushed and crumbled near the break, most on the side that gave way."""
    if not (item.lucency or item.density or item.crumble):
        return whole
    weak = _weakness(patch, site, bone, item, view, depth)
    factor = np.ones_like(whole)
    if item.lucency:
        factor -= np.float32(item.lucency) * _line(beyond, item.width)
    if item.density:
        factor += np.float32(item.density) * weak * _line(beyond, 1.6)
    if grain is not None:
        factor += np.float32(item.crumble) * weak * grain * _line(beyond, 3.5)
    return whole * np.maximum(factor, 0)


def _split(piece, solid, patch, beyond, item: Break, view: View, depth: float):
    """Split the far piece lengthwise into the joint, with a step in the joint's surface."""
    place, tilt, step, towards = item.limb
    direction = (math.cos(towards), math.sin(towards))
    aside = view.mix(*direction) * patch.u + _depths(view).mix(*direction) * depth
    away = aside - place - tilt * beyond
    lowered = np.clip(away / 0.35 + 0.5, 0, 1)
    sinking = patch.frame.matrix[:, 1] * -step
    matrix, size = np.float64([[1, 0, sinking[0]], [0, 1, sinking[1]]]), piece.shape[::-1]
    dropped = np.maximum(cv2.warpAffine(piece * lowered, matrix, size, flags=cv2.INTER_CUBIC), 0)
    # Seen face on, the split is no line; the step alone tells it.
    opened = np.float32(0.5 * abs(view.mix(*direction)))
    piece = (piece * (1 - lowered) + dropped) * (1 - opened * _line(away, 0.55))
    return piece, solid & (np.abs(away) < 1.6) & (abs(view.mix(*direction)) > 0.3)


def _scatter_chips(layer, shown, patch: _Patch, site: Site, item: Break, view: View) -> None:
    """Lay small splinters of cortex beside the side that gave way."""
    rng = np.random.default_rng([item.seed, 10])
    moved = _slice_motion(site, item, view, 0.0)
    for _ in range(item.chips):
        towards = math.atan2(item.side[1], item.side[0]) + rng.normal(0, 0.5) if any(item.side) else rng.uniform(0, 6.3)
        u = view.mix(math.cos(towards), math.sin(towards)) * (site.half + rng.uniform(-1.5, 1.2))
        spot = site.centre + site.across * u + site.normal * rng.normal(0.5, 2.0)
        spot = (spot + moved[:, :2] @ spot + moved[:, 2]) / 2
        around = np.linspace(0, 2 * np.pi, 7, endpoint=False)
        radii = rng.uniform(0.6, 1.3, 7) * rng.uniform(0.8, 1.6)
        turned = rng.uniform(0, np.pi)
        shape = np.column_stack([np.cos(around) * radii, np.sin(around) * radii * 2.0])
        shape = shape @ np.array([[np.cos(turned), -np.sin(turned)], [np.sin(turned), np.cos(turned)]])
        chip = fill(patch.frame.place(spot + shape), patch.box)
        layer += chip.astype(np.float32) * np.float32(rng.uniform(0.06, 0.16) / 255)
        shown |= chip > 127


def _visible(broken, whole, shown, patch: _Patch, item: Break, view: View) -> np.ndarray:
    """Return the broken bone, its line deepened where else it could not be seen."""
    inside = shown > 0.5
    if not inside.any():
        return broken
    share = _TIP_SHARE if item.style == "tip" else _VISIBLE_SHARE
    least = min(VISIBLE, share * float(whole[inside].mean()))
    beyond = patch.v - np.float32(view.mix(*item.slope)) * patch.u
    width = 0.5 * item.width if item.style == "bulge" else 0.7
    added = whole * _line(beyond, width) * (inside if item.style == "bulge" else -1.0 * inside)
    for _ in range(4):
        missing = least - float(np.abs(broken - whole)[inside].mean())
        if missing <= 0:
            break
        gain = max(float(np.abs(added[inside]).mean()), 1e-4)
        broken = np.maximum(broken + added * np.float32(min(1.4 * missing / gain, 0.5)), 0)
    return broken
