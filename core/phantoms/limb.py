"""A whole limb as one view shows it: bones and skin in place, the hand swung, and carried along by what is broken."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from core.phantoms import anatomy, projection
from core.phantoms.anatomy import Bone, Patient, Pose
from core.phantoms.breaks import draw_broken, motion
from core.phantoms.carpus import build_carpus
from core.phantoms.changes import Changes, change_bones, change_flesh, swell
from core.phantoms.forearm import build_forearm
from core.phantoms.fractures import Break, Fracture
from core.phantoms.hand import build_holder, build_rays, build_sesamoids, build_skin
from core.phantoms.hardware import Hardware, project_hardware
from core.phantoms.outlines import FIRST_ROW
from core.phantoms.views import View

# The hand swings about the head of the capitate, and the first row of the carpus by this share of it.
_PIVOT = np.array([2.6, 16.1])
_FIRST_ROW_SHARE = 0.45


@dataclass(frozen=True, eq=False)
class Limb:
    """Bones, skin and joint of one limb in one view; mm.

    `heading` is the hand's turn in the film in degrees, `swelling_mm` that of the flesh.
    """

    bones: tuple[Bone, ...]
    skin: np.ndarray
    fingers: tuple[np.ndarray, ...]
    joint: np.ndarray
    ringed: Bone
    heading: float
    swelling_mm: float


def build_limb(patient: Patient, pose: Pose, changes: Changes, fracture: Fracture, broken: bool) -> Limb:
    """Build a person's limb as one film shows it.

    `fracture` is what breaks or, in a whole wrist (`broken` False), what might have: the hand is then bent and swollen
    alike, so that neither tells the label.
    """
    forearm = change_bones(build_forearm(patient, pose), changes, pose.view)
    carpus, rays = build_carpus(patient, pose), build_rays(patient, pose)
    skin, fingers, arms = build_skin(patient, pose, rays)
    carrying = next((item for item in fracture.breaks if item.carries_hand), None)
    bent = pose.view.mix(*carrying.angle) if carrying else 0.0
    joint = np.zeros(2)
    if broken and carrying:
        carried = motion(next(bone for bone in forearm if bone.name == "radius"), carrying, pose.view)
        joint = carried[:, 2].copy()
        forearm = [anatomy.move_bone(bone, carried) if bone.name == "radius epiphysis" else bone for bone in forearm]
    else:
        carried = _swing(bent)
    if broken:
        forearm = _with_ulna(forearm, fracture.breaks, pose.view)
    whole = projection.compose(carried, _swing(pose.heading))
    row = projection.compose(carried, _swing(pose.heading * _FIRST_ROW_SHARE))
    swelling = changes.swelling_mm
    skin = _bent(swell(skin, swelling), whole)
    hand = [anatomy.move_bone(bone, row if bone.name.split()[0] in FIRST_ROW else whole) for bone in carpus]
    hand += [anatomy.move_bone(bone, whole) for ray in rays for bone in ray]
    hand += [anatomy.move_bone(bone, whole) for bone in build_sesamoids(patient, rays)]
    hand = change_bones(hand, changes, pose.view)
    ringed = anatomy.move_bone(rays[3 if patient.seed % 3 else 2][1], whole)
    others, sleeves = build_holder(patient, pose)
    outlines = (*(anatomy.move(outline, whole) for outline in fingers), *arms, *sleeves)
    return Limb((*forearm, *hand, *others), skin, outlines, joint, ringed, pose.heading + bent, swelling)


def _with_ulna(forearm: list[Bone], breaks: tuple[Break, ...], view: View) -> list[Bone]:
    """Return the bones with the cap of a growing ulna where its broken shaft has taken it."""
    cut = next((item for item in breaks if item.bone == "ulna" and item.style == "cut"), None)
    if cut is None:
        return forearm
    carried = motion(next(bone for bone in forearm if bone.name == "ulna"), cut, view)
    return [anatomy.move_bone(bone, carried) if bone.name == "ulna epiphysis" else bone for bone in forearm]


def _swing(degrees: float) -> np.ndarray:
    """Return the turn (2, 3) of the whole hand; positive turns the fingers towards +x."""
    unit = anatomy.turn(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), degrees, _PIVOT)
    return np.column_stack([unit[1] - unit[0], unit[2] - unit[0], unit[0]])


def _bent(skin: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return the skin of forearm and palm where the hand has moved: it bends smoothly, bone does not."""
    weight = np.clip((skin[:, 1:] + 35) / 60, 0, 1)
    weight = weight * weight * (3 - 2 * weight)
    return skin * (1 - weight) + anatomy.move(skin, matrix) * weight


def project_limb(
    limb: Limb,
    patient: Patient,
    view: View,
    changes: Changes,
    breaks: tuple[Break, ...],
    frame: projection.Frame,
    metal: Hardware,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return attenuation and mask of the break, both float32 of the frame's shape."""
    canvas = projection.Canvas(frame)
    depth = 33 * patient.girth * (1.0 + 0.12 * abs(view.mix(0, 1)))
    attenuation = projection.flesh(limb.skin, list(limb.fingers), frame, depth, patient, rng)
    amplitude = projection.TEXTURE * patient.texture
    capped = any(bone.name == "ulna epiphysis" for bone in limb.bones)
    for bone in limb.bones:
        if projection.bounds(frame.place(bone.outline), frame, 2 + 40 * frame.per_mm * bool(breaks)) is None:
            continue
        own = np.random.default_rng([patient.seed, sum(map(ord, bone.name)), round(abs(view.angle))])
        hits = [item for item in breaks if bone.name in _targets(item, capped)]
        if hits:
            (hit,) = hits  # no bone is planned to break twice
            draw_broken(canvas, bone, hit, view, own, patient.density, amplitude)
        else:
            projection.draw_bone(canvas, bone, own, patient.density, amplitude)
    attenuation += canvas.bone
    change_flesh(attenuation, changes, frame, view, limb.swelling_mm)
    attenuation += project_hardware(metal, limb, frame, view)
    return attenuation, canvas.mask


def _targets(item: Break, capped: bool) -> tuple[str, ...]:
    """Return the names of the parts a break goes through."""
    if item.style == "tip":
        return ("ulna epiphysis" if capped else "ulna",)
    return (item.bone, f"{item.bone} back")


def follow(frame: projection.Frame, joint: np.ndarray) -> projection.Frame:
    """Return a frame moved along with the joint (mm)."""
    matrix = frame.matrix.copy()
    matrix[:, 2] -= matrix[:, :2] @ joint
    return replace(frame, matrix=matrix)
