"""Simulated wrist radiographs with exact fracture masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np

from core.errors import SimulationError
from core.phantoms import anatomy, detector, fractures, hardware, projection
from core.phantoms.changes import draw_changes
from core.phantoms.limb import build_limb, follow, project_limb
from core.phantoms.views import VIEWS, View
from core.values import WristRegion

# Films of another version differ, pixel by pixel, from those of this one.
VERSION = 5

FRAMINGS = ("wrist", "forearm", "hand", "long")
_FRAMING_WEIGHTS = (0.3, 0.27, 0.25, 0.18)

# How often a break that shows on no film, or not on all, is planned anew, each time nearer to the joint. Nearly always
# the first one shows; a break without a mask would be a wrong label, so that there is none at all after the last.
_ATTEMPTS = 24

# Streams of random numbers. The label has its own, so that nothing else about a film can depend on it.
_PATIENT, _LABEL, _BREAK, _DETECTOR, _CHOICES, _BUILD, _FRAME, _OVERLAY, _GRAIN, _HARDWARE = range(10)


@dataclass(frozen=True, eq=False)
class SimulatedFilm:
    """One simulated film and everything that is known of it.

    Attributes
    ----------
    pixels : numpy.ndarray
        float32, (height, width), [0, 1], bone bright.
    mask : numpy.ndarray
        bool, (height, width): where the break shows; all False where there is none.
    region : WristRegion
        The wrist square: centre at the radiocarpal joint, side 106 mm of an adult, angle of the forearm's axis.
    kind : str
        A key of ``core.phantoms.KINDS``, or ``"none"``.
    view, laterality, framing : str
    child : bool
    displacement_mm, gap_mm : float
        Shift of the far piece in space, and width of the lucent line; 0 where there is no break.
    spacing_mm : float
        Distance between pixel centres.
    seed : int
    age : float
        Years.
    angle : float
        How far the forearm is turned about its long axis: 0 true PA, 90 true lateral.
    hardware : str
        What is in the bones: ``"none"``, ``"plate"``, ``"wires"``, ``"plate and wires"`` or ``"screw"``.
    cast : bool
        Whether there is a cast or a splint.
    stored_bits : int
        Bits the machine stores: 8, 10, 12, 14 or 16. Films of more than 8 bits use the whole range of `pixels`.
    """

    pixels: np.ndarray
    mask: np.ndarray
    region: WristRegion
    kind: str
    view: str
    laterality: str
    framing: str
    child: bool
    displacement_mm: float
    gap_mm: float
    spacing_mm: float
    seed: int
    age: float = 0.0
    angle: float = 0.0
    hardware: str = "none"
    cast: bool = False
    stored_bits: int = 8

    def __post_init__(self) -> None:
        self.pixels.flags.writeable = False
        self.mask.flags.writeable = False

    @property
    def label(self) -> int:
        """1 where something is broken, else 0."""
        return int(self.kind != "none")


@dataclass(frozen=True, eq=False)
class _Setting:
    """One film's geometry: where it lies over the anatomy, before and after supersampling."""

    frame: projection.Frame
    fine: projection.Frame
    overlay: detector.Overlay
    corners: np.ndarray
    axis: np.ndarray
    angle: float
    framing: str


def _stream(seed: int, stream: int, film: int = 0) -> np.random.Generator:
    return np.random.default_rng([VERSION, seed, stream, film])


def simulate_film(
    seed: int,
    *,
    size: int = 224,
    positive: bool | None = None,
    view: str | None = None,
    kind: str | None = None,
    framing: str | None = None,
    laterality: str | None = None,
    child: bool | None = None,
    square: bool = False,
) -> SimulatedFilm:
    """Simulate one film.

    Parameters
    ----------
    seed : int
        Non-negative. The same seed and arguments give the same film, bit by bit, in the same ``VERSION``; with
        ``positive=True`` and ``positive=False`` it gives twins that differ by the break alone (the few whose first
        planned break shows nowhere, by the bend of the hand, too).
    size : int
        Longer side in pixels.
    positive : bool, optional
        Broken or not; drawn (one in two) where None and no `kind` is given. False with a `kind` gives the unbroken twin
        of the film with that kind.
    view : str, optional
        ``"PA"``, ``"LATERAL"`` or ``"OBLIQUE"``; nobody lies exactly true, see `SimulatedFilm.angle`.
    kind : str, optional
        A key of ``KINDS``.
    framing : str, optional
        One of ``FRAMINGS``, or ``"tight"``: the wrist square itself, fingers up, as a finder with a small error cuts
        it.
    laterality : str, optional
        ``"L"`` or ``"R"``.
    child : bool, optional
    square : bool
        True: size x size pixels, whatever the framing.

    Returns
    -------
    SimulatedFilm

    Raises
    ------
    ValueError
        A wish that is not known.
    SimulationError
        No break that was planned shows on the film; it was never seen to happen.
    """
    return _simulate(seed, (view or _draw_view(seed),), size, positive, kind, framing, laterality, child, square, 1.0)[
        0
    ]


def simulate_study(
    seed: int,
    *,
    size: int = 224,
    positive: bool | None = None,
    kind: str | None = None,
    framing: str | None = None,
    laterality: str | None = None,
    child: bool | None = None,
    square: bool = False,
    often: Mapping[str, float] | None = None,
) -> tuple[SimulatedFilm, ...]:
    """Simulate a study: films of the same wrist, with the same break, from the same detector.

    Most have a PA and a lateral film; 35% have an oblique one as a third; 8% have a PA and an oblique film alone.
    Parameters and errors are those of :func:`simulate_film`, and `often`: where no `kind` is given, the kinds named
    there are drawn so many times as often as they come.
    """
    drawn = _stream(seed, _CHOICES, 2).random()
    views = ("PA", "OBLIQUE") if drawn < 0.08 else VIEWS if drawn < 0.43 else ("PA", "LATERAL")
    return _simulate(seed, views, size, positive, kind, framing, laterality, child, square, 1.0, often)


def simulate_wrist(
    seed: int,
    *,
    size: int = 224,
    jitter: float = 1.0,
    positive: bool | None = None,
    view: str | None = None,
    kind: str | None = None,
    child: bool | None = None,
) -> SimulatedFilm:
    """Simulate the wrist square alone, fingers up, as the classifier reads it.

    Parameters
    ----------
    seed, size, positive, view, kind, child
        As in :func:`simulate_film`.
    jitter : float
        Error of the finder that is mimicked: at 1 the centre is off by up to 8% of the side, the side by up to 12%, the
        angle by up to 12 degrees; 0 = none.
    """
    return _simulate(seed, (view or _draw_view(seed),), size, positive, kind, "tight", None, child, True, jitter)[0]


def _draw_view(seed: int) -> str:
    return str(_stream(seed, _CHOICES).choice(VIEWS, p=(0.46, 0.38, 0.16)))


def _check(name: str, value: str | None, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}")


def _simulate(
    seed, views, size, positive, kind, framing, laterality, child, square, jitter, often=None
) -> tuple[SimulatedFilm, ...]:
    for name, value, known in (
        ("view", views[0], VIEWS),
        ("kind", kind, fractures.KINDS),
        ("framing", framing, (*FRAMINGS, "tight")),
        ("laterality", laterality, ("L", "R")),
    ):
        _check(name, value, known)
    if size < 16:
        raise ValueError(f"size must be at least 16 pixels, not {size}")
    choices = _stream(seed, _CHOICES, 1)
    side = laterality or str(choices.choice(["L", "R"]))
    common = str(choices.choice(FRAMINGS, p=_FRAMING_WEIGHTS))
    other = str(choices.choice(FRAMINGS, p=_FRAMING_WEIGHTS)) if choices.random() < 0.2 else common
    broken = bool(_stream(seed, _LABEL).random() < 0.5)
    broken = (broken or kind is not None) if positive is None else positive
    patient = _draw_patient(seed, kind, child)
    machine = detector.draw_detector(_stream(seed, _DETECTOR))
    metal = hardware.draw_hardware(_stream(seed, _HARDWARE), patient)
    poses = [_draw_pose(seed, number, view, patient) for number, view in enumerate(views)]
    settings = [
        _set_up(
            seed, number, pose.view, framing or (common, other, common)[number], side, patient, size, square, jitter
        )
        for number, pose in enumerate(poses)
    ]
    lowest = max(_lowest_visible(item, patient) for item in settings)
    for attempt in range(_ATTEMPTS):
        # A whole wrist has its fracture too, which it does not suffer: hand and flesh are bent by it as a broken one's.
        rng = _stream(seed, _BREAK, attempt)
        wanted = kind or _possible_kind(rng, patient, often)
        fracture = fractures.plan_fracture(wanted, rng, patient.growing, lowest)
        films = tuple(
            _take_film(seed, number, pose, side, patient, machine, metal, settings[number], fracture, broken)
            for number, pose in enumerate(poses)
        )
        if not broken or all(film.mask.any() for film in films):
            return films
        lowest *= 0.7
    raise SimulationError(
        f"A film was expected to show its break, but none of {_ATTEMPTS} planned for seed {seed} shows on every film."
    )


def _draw_patient(seed: int, kind: str | None, child: bool | None) -> anatomy.Patient:
    """Draw the person whose bone can break as is wished."""
    growing = kind in fractures.CHILD_ONLY or (kind == "buckle" and child is not False)
    child = True if growing else child
    patient = anatomy.draw_patient(_stream(seed, _PATIENT), child, fractures.OLDEST_NEEDED.get(kind, 0.0))
    if growing:
        patient = replace(patient, age=min(patient.age, patient.closing - 1.5))
    return patient


def _draw_pose(seed: int, number: int, view: str, patient: anatomy.Patient) -> anatomy.Pose:
    rng = _stream(seed, _BUILD, number)
    return anatomy.draw_pose(anatomy.draw_view(view, rng), patient, rng)


def _possible_kind(rng: np.random.Generator, patient: anatomy.Patient, often: Mapping[str, float] | None) -> str:
    for _ in range(20):
        kind = fractures.draw_kind(rng, patient.growing, often)
        if not patient.child or patient.age >= fractures.OLDEST_NEEDED.get(kind, 0.0):
            return kind
    return "transverse"


def _extent(framing: str, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Return what a film covers, in mm of an adult: lowest and highest x and y."""
    high, low, width = {
        "wrist": (rng.uniform(52, 85), rng.uniform(45, 85), rng.uniform(80, 120)),
        "forearm": (rng.uniform(75, 200), rng.uniform(100, 165), rng.uniform(110, 190)),
        "hand": (rng.uniform(192, 215), rng.uniform(45, 130), rng.uniform(160, 230)),
        "long": (rng.uniform(60, 200), rng.uniform(215, 275), rng.uniform(120, 190)),
    }[framing]
    centre = rng.normal(3, 7 if framing == "wrist" else 12)
    return centre - width / 2, centre + width / 2, -low, high


def _set_up(seed, number, view: View, framing, side, patient, size, square, jitter) -> _Setting:
    rng = _stream(seed, _FRAME, number)
    mirror = -1.0 if side == "L" else 1.0
    # From the side a wrist is laid and shown either way round; so, now and then, is an oblique one.
    if rng.random() < {"PA": 0.0, "LATERAL": 0.5, "OBLIQUE": 0.15}[view.name]:
        mirror = -mirror
    if framing == "tight":
        reach = anatomy.REGION_SIDE_MM * (1 + jitter * rng.uniform(-0.12, 0.12))
        off = rng.uniform(-0.08, 0.08, 2) * reach * jitter
        centre, extent, base = off, (reach, reach), 0.0
        tilt = float(rng.uniform(-12, 12) * jitter)
    else:
        x0, x1, y0, y1 = _extent(framing, rng)
        centre, extent = np.array([(x0 + x1) / 2, (y0 + y1) / 2]), (x1 - x0, y1 - y0)
        base = 0.0 if rng.random() < 0.8 else float(rng.choice([180.0, 180.0, 90.0, -90.0]))
        tilt = float(np.clip(rng.normal(0, 6), -15, 15))
    width, height = extent if base in (0.0, 180.0) else extent[::-1]
    if square:
        width = height = max(width, height)
    per_mm = size / max(width, height)
    shape = (max(round(height * per_mm), 8), max(round(width * per_mm), 8))
    if square:
        shape = (size, size)
    angle = base + tilt
    matrix = _matrix(angle, mirror, per_mm, centre, shape)
    if framing != "tight":
        matrix[:, 2] += _back_inside(matrix, per_mm, shape)
    finer = max(per_mm * 1.25, min(per_mm * 2.2, 2.6)) / per_mm
    fine_shape = (round(shape[0] * finer), round(shape[1] * finer))
    stretch = np.array([[fine_shape[1] / shape[1]], [fine_shape[0] / shape[0]]])
    overlay = detector.draw_overlay(_stream(seed, _OVERLAY, number), framing, side)
    return _Setting(
        frame=projection.Frame(matrix, shape),
        fine=projection.Frame(matrix * stretch, fine_shape),
        overlay=overlay,
        corners=detector.open_corners(overlay, shape),
        axis=projection.Frame(matrix, shape).place(np.array([[3.0, y] for y in range(-260, 200, 12)])),
        angle=(angle + 180) % 360 - 180 if (angle + 180) % 360 else 180.0,
        framing=framing,
    )


def _back_inside(matrix: np.ndarray, per_mm: float, shape: tuple[int, int]) -> np.ndarray:
    """Return the shift in pixels that keeps the middle of the wrist a bone's width and more inside the film."""
    place = matrix @ [3.0, -4.0, 1.0]
    margin = np.minimum(30.0 * per_mm, 0.45 * np.array([shape[1], shape[0]]))
    return np.clip(place, margin, [shape[1], shape[0]] - margin) - place


def _matrix(angle: float, mirror: float, per_mm: float, centre: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return mm to pixels: fingers `angle` degrees clockwise from the top, `centre` (mm) in the middle of the film."""
    turn = np.deg2rad(angle)
    linear = per_mm * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ np.diag([mirror, -1.0])
    return np.column_stack([linear, np.array([shape[1], shape[0]]) / 2 - linear @ centre])


def _lowest_visible(setting: _Setting, patient: anatomy.Patient) -> float:
    """Return how far below the joint (negative mm) both forearm bones are still inside the exposed film."""
    corners = setting.corners.astype(np.float32)
    margin = 4 * setting.frame.per_mm
    lowest = -9.0
    for level in range(-10, -120, -2):
        points = setting.frame.place(np.array([[-10.0, level], [18.0, level]]))
        inside = [cv2.pointPolygonTest(corners, (float(x), float(y)), True) > margin for x, y in points]
        if not all(inside):
            break
        lowest = float(level)
    return lowest


def _take_film(
    seed, number, pose: anatomy.Pose, side, patient, machine, metal, setting, fracture, broken
) -> SimulatedFilm:
    changes = draw_changes(patient)
    limb = build_limb(patient, pose, changes, fracture, broken)
    if setting.framing == "tight":
        setting = replace(setting, frame=follow(setting.frame, limb.joint), fine=follow(setting.fine, limb.joint))
    grain = _stream(seed, _GRAIN, number)
    breaks = fracture.breaks if broken else ()
    attenuation, mask = project_limb(limb, patient, pose.view, changes, breaks, setting.fine, metal, grain)
    film = _expose(attenuation, patient, machine, setting, grain)
    x, y = setting.frame.place(limb.joint[None])[0]
    return SimulatedFilm(
        pixels=film,
        mask=_shown_mask(mask, setting) if broken else np.zeros(setting.frame.shape, bool),
        region=WristRegion(float(x), float(y), anatomy.REGION_SIDE_MM * setting.frame.per_mm, float(setting.angle)),
        kind=fracture.kind if broken else "none",
        view=pose.view.name,
        laterality=side,
        framing=setting.framing,
        child=patient.child,
        displacement_mm=round(fracture.displacement_mm * patient.scale, 2) if broken else 0.0,
        gap_mm=round(fracture.gap_mm * patient.scale, 2) if broken else 0.0,
        spacing_mm=patient.scale / setting.frame.per_mm,
        seed=seed,
        age=round(patient.age, 1),
        angle=pose.view.angle,
        hardware=metal.name,
        cast=metal.cast,
        stored_bits=machine.bits,
    )


def _expose(attenuation, patient, machine, setting, grain) -> np.ndarray:
    """Return the finished film, float32 in [0, 1]."""
    frame = setting.frame
    blurred = cv2.GaussianBlur(attenuation, (0, 0), max(machine.blur_mm * setting.fine.per_mm, 0.35))
    coarse = cv2.resize(blurred, frame.shape[::-1], interpolation=cv2.INTER_AREA)
    measured = detector.expose(coarse, frame.per_mm, machine, grain)
    film = detector.process(measured, frame.per_mm, machine)
    film = detector.degrade(film, anatomy.REGION_SIDE_MM * frame.per_mm, machine, grain)
    film = detector.finish(film, setting.overlay, setting.corners, setting.axis, frame.per_mm / patient.scale)
    return detector.store(film, machine)


def _shown_mask(mask: np.ndarray, setting: _Setting) -> np.ndarray:
    """Return the mask at the film's own resolution, without what lies outside the exposed part."""
    small = cv2.resize(mask, setting.frame.shape[::-1], interpolation=cv2.INTER_AREA)
    open_part = np.zeros(small.shape, np.uint8)
    cv2.fillPoly(open_part, [np.round(setting.corners).astype(np.int32)], 1)
    small = small * open_part
    peak = float(small.max())
    return small > min(0.4, 0.6 * peak) if peak > 0.005 else np.zeros(small.shape, bool)
