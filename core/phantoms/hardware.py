"""Metal in and on a limb: plates, wires, screws, rings, watches, leads. What is worn outside stiff is plaster's.

All of it is drawn from a stream of random numbers that knows nothing of the break, so it tells nothing about it. One
`Hardware` belongs to a study: lengths are mm of an adult's right arm in space, x to the ulna, y to the fingers, z to
the palm, and every view projects the same pieces.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from core.phantoms import plaster, projection
from core.phantoms.anatomy import Bone, Patient
from core.phantoms.metal import depth_of, disc, rod, stamp
from core.phantoms.plaster import Plaster, draw_plaster, width_of
from core.phantoms.views import View
from core.phantoms.worn import WORN, Worn, draw_worn

# Share of the studies with metal in the bone.
METAL_SHARE = 0.05
_NAMES = ("none", "plate", "wires", "plate and wires", "screw")
# Half the width of a forearm bone across (x) and in depth (z) at y, for laying plates on its surface.
_HALVES = {
    "radius": [(-230, 7, 7), (-120, 7, 6.4), (-48, 7, 6.1), (-20, 10.6, 8), (-8, 13.7, 9.8), (2, 14, 9)],
    "ulna": [(-240, 8, 11), (-170, 6.5, 7), (-75, 5.1, 5.4), (-29, 4.7, 5.2), (-8, 6, 6.5)],
}
# Attenuation per mm: steel and titanium.
_STEEL, _TITANIUM = 0.75, 0.38


@dataclass(frozen=True)
class Screw:
    """A rod that starts `along` mm up the bone and `aside` mm beside the plate's middle, and goes into the bone."""

    along: float
    aside: float
    length: float
    rise: float
    lean: float
    radius: float
    head: float


@dataclass(frozen=True)
class Plate:
    """A metal strip on a bone. `facing` is where its face looks: 0 to the palm, 90 to the ulna, 180 to the back."""

    bone: str
    facing: float
    stations: tuple[tuple[float, float], ...]
    thickness: float
    holes: tuple[float, ...]
    screws: tuple[Screw, ...]
    metal: float


@dataclass(frozen=True)
class Wire:
    """A rod through points (x, y, z) beside the middle of a bone."""

    bone: str
    points: tuple[tuple[float, float, float], ...]
    radius: float
    metal: float
    threaded: bool = False


@dataclass(frozen=True)
class Hardware:
    """Everything on or in a limb that is not the limb.

    Attributes
    ----------
    plates : tuple of Plate
    wires : tuple of Wire
        Kirschner wires, and the headless screw of a scaphoid.
    worn : tuple of Worn
    plaster : Plaster or None
    name : str
        ``"none"``, ``"plate"``, ``"wires"``, ``"plate and wires"`` or ``"screw"``: what is in the bones.
    """

    plates: tuple[Plate, ...] = ()
    wires: tuple[Wire, ...] = ()
    worn: tuple[Worn, ...] = ()
    plaster: Plaster | None = None
    name: str = "none"

    @property
    def cast(self) -> bool:
        """Whether there is a cast or a splint."""
        return self.plaster is not None


def draw_hardware(rng: np.random.Generator, patient: Patient) -> Hardware:
    """Draw what a person has on and in the limb; one in twenty has metal in a bone.

    Parameters
    ----------
    rng : numpy.random.Generator
        A stream that no label was drawn from.
    patient : Patient
        Growing bones are wired rather than plated; metal does not shrink with the person.
    """
    name = "none"
    metal = rng.random() < METAL_SHARE
    odds = (0, 0.12, 0.78, 0.1, 0) if patient.child else (0, 0.58, 0.24, 0.08, 0.1)
    drawn = str(rng.choice(_NAMES, p=odds))
    plates, wires = _draw_plates(rng, patient), _draw_wires(rng, patient)
    screw = _draw_scaphoid_screw(rng, patient)
    if metal:
        name = drawn
    return Hardware(
        plates=plates if name in ("plate", "plate and wires") else (),
        wires=wires if name in ("wires", "plate and wires") else (screw,) if name == "screw" else (),
        worn=draw_worn(rng, patient),
        plaster=draw_plaster(rng),
        name=name,
    )


def _draw_plates(rng: np.random.Generator, patient: Patient) -> tuple[Plate, ...]:
    kind = str(rng.choice(("palmar", "dorsal", "ulna", "radius", "both"), p=(0.46, 0.1, 0.14, 0.16, 0.14)))
    if patient.child and kind in ("palmar", "dorsal"):
        kind = "both"
    if kind in ("palmar", "dorsal"):
        return (_joint_plate(rng, kind, patient.scale),)
    bones = ("radius", "ulna") if kind == "both" else (kind,)
    return tuple(_shaft_plate(rng, bone, patient.scale) for bone in bones)


def _joint_plate(rng: np.random.Generator, kind: str, scale: float) -> Plate:
    """Return a T- or Y-shaped plate under the joint: pegs in its head, screws with heads along its stem."""
    top = rng.uniform(-7, -1.5)
    low = top - rng.uniform(38, 66) / scale
    head, stem = rng.uniform(17, 24), rng.uniform(7, 10) / scale
    stations = ((low, stem * 0.7), (low + 2, stem), (top - 18, stem), (top - 9, head * 0.9), (top - 2, head),
                (top, head * 0.8))  # fmt: skip
    pegs = [
        Screw(top - row, aside + rng.normal(0, 0.4), rng.uniform(16, 21), rng.normal(1.5, 1.5), rng.normal(0, 2), r, 0)
        for row, count in ((3.2, int(rng.integers(3, 6))), (8.5, int(rng.integers(1, 4))))
        for aside, r in zip(np.linspace(-0.4, 0.4, count) * head, [rng.uniform(0.9, 1.3)] * count, strict=True)
    ]
    holes = np.arange(low + 5, top - 17, rng.uniform(7, 10))
    screws = [_shaft_screw(rng, hole, scale) for hole in holes if rng.random() < 0.8]
    return Plate(
        bone="radius",
        facing=float(rng.normal(0 if kind == "palmar" else 180, 9)),
        stations=stations,
        thickness=float(rng.uniform(1.8, 2.6) / scale),
        holes=tuple(float(hole) for hole in holes),
        screws=(*pegs, *screws),
        metal=_TITANIUM if rng.random() < 0.6 else _STEEL,
    )


def _shaft_screw(rng: np.random.Generator, along: float, scale: float) -> Screw:
    return Screw(
        along=float(along),
        aside=float(rng.normal(0, 0.3)),
        length=float(rng.uniform(12, 17)),
        rise=float(rng.normal(0, 1.2)),
        lean=float(rng.normal(0, 1.0)),
        radius=float(rng.uniform(1.2, 1.75) / scale),
        head=float(rng.uniform(2.4, 3.2) / scale),
    )


def _shaft_plate(rng: np.random.Generator, bone: str, scale: float) -> Plate:
    """Return a straight plate along a shaft: thin and wavy (one-third tubular) or thick (compression)."""
    thin = rng.random() < (0.5 if bone == "ulna" else 0.2)
    count, pitch = int(rng.integers(5, 10)), rng.uniform(11, 16) / scale
    top = rng.uniform(-28, -14) if thin and rng.random() < 0.5 else rng.uniform(-125, -35)
    low = top - count * pitch
    width = (rng.uniform(7, 9) if thin else rng.uniform(9.5, 12)) / scale
    stations = [(low - 2, width * 0.6), (low, width * 0.95)]
    holes = tuple(float(low + (k + 0.5) * pitch) for k in range(count))
    for hole in holes:
        stations += [(hole - pitch * 0.25, width * 0.93), (hole, width * (1.06 if thin else 1.0))]
    empty = rng.integers(count) if rng.random() < 0.7 else -1
    return Plate(
        bone=bone,
        facing=float(rng.normal(rng.choice([0.0, 180.0] if bone == "radius" else [60.0, 120.0]), 18)),
        stations=(*stations, (top, width * 0.95), (top + 2, width * 0.6)),
        thickness=float((1.2 if thin else rng.uniform(3, 4)) / scale),
        holes=holes,
        screws=tuple(_shaft_screw(rng, hole, scale) for number, hole in enumerate(holes) if number != empty),
        metal=_STEEL if rng.random() < 0.7 else _TITANIUM,
    )


def _draw_wires(rng: np.random.Generator, patient: Patient) -> tuple[Wire, ...]:
    """Return one to three Kirschner wires, mostly from the styloid of the radius upwards and across."""
    wires = []
    bent = rng.random() < 0.6
    for number in range(int(rng.choice([1, 2, 3], p=[0.15, 0.55, 0.3]))):
        from_ulna = number == 1 and rng.random() < 0.5
        side = 1.0 if from_ulna else -1.0
        start = np.array([side * rng.uniform(10, 14), rng.uniform(-6, 5), rng.normal(0, 4)])
        end = np.array([-side * rng.uniform(3, 8), -rng.uniform(35, 68), rng.normal(0, 3)])
        if rng.random() < 0.12:
            end = np.array([25.0, start[1] - rng.uniform(12, 30), rng.normal(0, 3)])
        out = (start - end) / np.linalg.norm(start - end)
        skin = start + out * rng.uniform(4, 14)
        points = [end, start, skin]
        if bent:
            turned = np.array([side * rng.uniform(0.6, 1), rng.normal(0, 0.5), rng.normal(0, 0.4)])
            points.append(skin + turned * rng.uniform(3, 8))
        radius = float(rng.uniform(0.55, 1.0) / min(patient.scale + 0.1, 1.0))
        wires.append(Wire("radius", tuple(tuple(float(v) for v in point) for point in points), radius, _STEEL))
    return tuple(wires)


def _draw_scaphoid_screw(rng: np.random.Generator, patient: Patient) -> Wire:
    heading = np.array([-0.55, 0.66, 0.5]) + rng.normal(0, 0.08, 3)
    half = heading / np.linalg.norm(heading) * rng.uniform(8, 11.5)
    middle = rng.normal(0, 0.8, 3)
    points = tuple(tuple(float(v) for v in middle + sign * half) for sign in (-1, 1))
    return Wire("scaphoid", points, float(rng.uniform(1.3, 1.8) / patient.scale), _TITANIUM, threaded=True)


def project_hardware(hardware: Hardware, limb, frame: projection.Frame, view: View) -> np.ndarray:
    """Return the attenuation of all hardware in one view.

    Parameters
    ----------
    hardware : Hardware
    limb : core.phantoms.limb.Limb
        Bones and skin of the same view, in mm.
    frame : Frame
    view : View

    Returns
    -------
    numpy.ndarray
        float32 of the frame's shape, 0 where there is nothing; to be added to that of bone and flesh.
    """
    layer = np.zeros(frame.shape, np.float32)
    bones = {bone.name: bone for bone in limb.bones}
    for plate in hardware.plates:
        if plate.bone in bones:
            _lay_plate(layer, frame, view, bones[plate.bone], plate)
    for wire in hardware.wires:
        if wire.bone in bones:
            _lay_wire(layer, frame, view, bones[wire.bone], wire)
    for item in hardware.worn:
        WORN[item.kind](layer, frame, view, limb, item)
    if hardware.plaster is not None:
        layer += plaster.project_plaster(hardware.plaster, limb.skin, frame, view)
    return layer


def _lay_plate(layer: np.ndarray, frame: projection.Frame, view: View, bone: Bone, plate: Plate) -> None:
    table = np.array(_HALVES[plate.bone], float)
    facing = math.radians(plate.facing)
    normal, beside = np.array([math.sin(facing), math.cos(facing)]), np.array([math.cos(facing), -math.sin(facing)])

    def place(along: float, aside: float, out: float) -> np.ndarray:
        """Return the pixel's mm of a point on the bone's surface, `aside` along the plate and `out` above the bone."""
        a, b = (np.interp(along, table[:, 0], table[:, k]) for k in (1, 2))
        reach = 1 / math.hypot(normal[0] / a, normal[1] / b) + out
        x, z = normal * reach + beside * aside
        return np.array([middle_of(bone.outline, along) + view.mix(x, z), along])

    flat = abs(view.mix(*beside))
    edge = abs(view.mix(*normal))
    low, high = plate.stations[0][0], plate.stations[-1][0]
    along = np.unique(np.concatenate([np.linspace(low, high, 14), [y for y, _ in plate.stations]]))
    width = np.interp(along, *np.array(plate.stations).T)
    middles = np.array([place(y, 0.0, plate.thickness / 2) for y in along])
    half = np.column_stack([(width * flat + plate.thickness * edge) / 2, np.zeros(len(along))])
    thick = plate.thickness * float(np.median(width)) / float(2 * np.median(half[:, 0]))
    amount = min(plate.metal * thick, 3.5)
    stamp(layer, frame, np.vstack([middles + half, (middles - half)[::-1]]), amount)
    if flat > 0.5:
        for hole in plate.holes:
            stamp(layer, frame, disc(place(hole, 0.0, 0.0), 2.2 * flat, 2.4), -0.85 * amount)
    for screw in plate.screws:
        head = place(screw.along, screw.aside, plate.thickness)
        shift = normal * -screw.length + beside * screw.lean
        tip = head + np.array([view.mix(*shift), screw.rise])
        rod(layer, frame, head, tip, depth_of(view, *shift), screw.radius, plate.metal, threaded=True)
        if screw.head:
            sunk = normal * -plate.thickness
            rod(
                layer,
                frame,
                head,
                head + np.array([view.mix(*sunk), 0.0]),
                depth_of(view, *sunk),
                screw.head,
                plate.metal,
            )


def middle_of(outline: np.ndarray, along: float) -> float:
    """Return the middle (mm across) of a closed outline at a height, or at its nearest end."""
    low, high = width_of(outline, np.array([along]))
    return float(low[0] + high[0]) / 2


def _lay_wire(layer: np.ndarray, frame: projection.Frame, view: View, bone: Bone, wire: Wire) -> None:
    if wire.bone == "scaphoid":
        centre = (bone.outline.min(axis=0) + bone.outline.max(axis=0)) / 2
    else:
        centre = np.array([middle_of(bone.outline, -25.0), 0.0])
    points = np.array(wire.points)
    flat = centre + np.column_stack([[view.mix(x, z) for x, _, z in points], points[:, 1]])
    for number in range(len(points) - 1):
        x, _, z = points[number + 1] - points[number]
        rod(layer, frame, flat[number], flat[number + 1], depth_of(view, x, z), wire.radius, wire.metal, wire.threaded)
