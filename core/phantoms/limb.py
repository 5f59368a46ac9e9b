"""A whole limb as one view shows it: bones and skin in place, the hand swung, and carried along by what is broken."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from core.phantoms import anatomy, projection
from core.phantoms.anatomy import Bone, Patient
from core.phantoms.detector import Overlay
from core.phantoms.fractures import Break

# The hand swings about the head of the capitate.
_PIVOT = np.array([1.0, 13.0])


@dataclass(frozen=True, eq=False)
class Limb:
    """Bones, skin and joint of one limb in one view; mm."""

    bones: tuple[Bone, ...]
    skin: np.ndarray
    fingers: tuple[np.ndarray, ...]
    joint: np.ndarray
    ringed: Bone


def build_limb(patient: Patient, view: str, breaks: tuple[Break, ...], rng: np.random.Generator) -> Limb:
    """Build a person's limb in one view. `rng` draws what differs between views; `breaks` draw nothing from it."""
    forearm = anatomy.build_forearm(patient, view, rng)
    carpus = anatomy.build_carpus(patient, view, rng)
    rays = anatomy.build_rays(patient, view, rng)
    skin, fingers = anatomy.build_skin(patient, view, rays)
    motion = _swing(rng.normal(patient.deviation if view == "PA" else 0.0, 4.0))
    joint = np.zeros(2)
    carried = _carried(forearm, breaks, view)
    if carried is not None:
        motion = projection.compose(carried, motion)
        joint = carried[:, 2].copy()
        skin = _bent(skin, carried)
        forearm = [anatomy.move_bone(bone, carried) if bone.name == "radius epiphysis" else bone for bone in forearm]
    hand = [anatomy.move_bone(bone, motion) for bone in (*carpus, *(bone for ray in rays for bone in ray))]
    ringed = anatomy.move_bone(rays[3 if patient.seed % 3 else 2][1], motion)
    return Limb((*forearm, *hand), skin, tuple(anatomy.move(outline, motion) for outline in fingers), joint, ringed)


def _swing(degrees: float) -> np.ndarray:
    """Return the turn (2, 3) of the whole hand; positive turns the fingers towards +x."""
    unit = anatomy.turn(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), degrees, _PIVOT)
    return np.column_stack([unit[1] - unit[0], unit[2] - unit[0], unit[0]])


def _carried(forearm: list[Bone], breaks: tuple[Break, ...], view: str) -> np.ndarray | None:
    """Return the motion of the hand, which follows the far piece of the radius, or None where it stays."""
    radius = next(bone for bone in forearm if bone.name == "radius")
    moves = (projection.motion(radius, item, view) for item in breaks if item.carries_hand)
    return next(moves, None)


def _bent(skin: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return the skin of forearm and palm where the hand has moved: it bends smoothly, bone does not."""
    weight = np.clip((skin[:, 1:] + 45) / 60, 0, 1)
    weight = weight * weight * (3 - 2 * weight)
    return skin * (1 - weight) + anatomy.move(skin, matrix) * weight


def project_limb(
    limb: Limb, patient: Patient, view: str, breaks: tuple[Break, ...], frame: projection.Frame, overlay: Overlay, rng
) -> tuple[np.ndarray, np.ndarray]:
    """Return attenuation and mask of the break, both float32 of the frame's shape."""
    canvas = projection.Canvas(frame)
    depth = 32 * patient.girth * (1.0 if view == "PA" else 1.12)
    attenuation = projection.flesh(limb.skin, limb.fingers, frame, depth, patient.folds, rng)
    amplitude = projection.TEXTURE * patient.texture
    capped = any(bone.name == "ulna epiphysis" for bone in limb.bones)
    for bone in limb.bones:
        own = np.random.default_rng([patient.seed, sum(map(ord, bone.name)), view == "PA"])
        hits = [item for item in breaks if bone.name in _targets(item, capped)]
        projection.draw_bone(canvas, bone, hits, view, own, patient.density, amplitude)
    attenuation += canvas.bone
    if overlay.ring:
        attenuation += _ring(limb.ringed, overlay.ring, frame)
    if overlay.cast:
        attenuation += _cast(limb.skin, overlay, frame)
    return attenuation, canvas.mask


def _targets(item: Break, capped: bool) -> tuple[str, ...]:
    """Return the names of the parts a break goes through."""
    if item.style == "tip":
        return ("ulna epiphysis" if capped else "ulna",)
    return (item.bone, f"{item.bone} back")


def _ring(bone: Bone, place: float, frame: projection.Frame) -> np.ndarray:
    """Return the attenuation of a metal ring at a fraction `place` of a finger bone."""
    start, end = bone.axis
    along = (end - start) / np.hypot(*(end - start))
    across = np.array([along[1], -along[0]])
    middle = start + (end - start) * place
    corners = np.array([middle + a * across * 9.5 + b * along * 1.4 for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))])
    return projection.fill(frame.place(corners), (0, 0, *frame.shape)).astype(np.float32) * np.float32(2.2 / 255)


def _cast(skin: np.ndarray, overlay: Overlay, frame: projection.Frame) -> np.ndarray:
    """Return the attenuation of a plaster tube around forearm and palm."""
    rng = np.random.default_rng(overlay.seed)
    low, high = -rng.uniform(150, 220), rng.uniform(25, 80)
    box = (0, 0, *frame.shape)
    inside = projection.fill(frame.place(skin), box)
    reach = max(round((overlay.cast + 3) * frame.per_mm), 1)
    grown = cv2.dilate(inside, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1)))
    distance = cv2.distanceTransform((grown > 127).astype(np.uint8), cv2.DIST_L2, 3) / np.float32(frame.per_mm)
    tube = _chord(distance) - _chord(distance - np.float32(overlay.cast))
    grain = projection.texture(frame, box, 1, np.zeros(2), np.array([0.0, 0.4]), rng.random(2))
    x, y = frame.grid(box)
    ragged = y + np.sin(0.3 * x)
    ends = np.clip((ragged - low) / 2, 0, 1) * np.clip((high - ragged) / 2, 0, 1)
    return np.float32(0.035) * tube * ends * (1 + np.float32(0.06) * grain)


def _chord(distance: np.ndarray) -> np.ndarray:
    """Return the half chord in mm through a cylinder of 30 mm radius, `distance` mm from its edge."""
    inside = np.clip(distance, 0, 30)
    return np.sqrt(inside * (60 - inside))


def follow(frame: projection.Frame, joint: np.ndarray) -> projection.Frame:
    """Return a frame moved along with the joint (mm)."""
    matrix = frame.matrix.copy()
    matrix[:, 2] -= matrix[:, :2] @ joint
    return replace(frame, matrix=matrix)
