"""What breaks, where, and how far the pieces move: planned once for a study, in space, and shown in each view."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

KINDS = (
    "hairline", "transverse", "displaced", "colles", "smith", "impacted", "intra_articular", "buckle", "greenstick",
    "salter_harris_2", "ulnar_styloid", "scaphoid", "ulna", "both_bones",
)  # fmt: skip
UNDISPLACED = ("hairline", "buckle")
# Breaks that only a growing bone can have.
CHILD_ONLY = ("greenstick", "salter_harris_2")

# How often each kind is drawn, in grown bones and in growing ones.
_GROWN = (0.15, 0.11, 0.12, 0.16, 0.05, 0.10, 0.09, 0.00, 0.00, 0.00, 0.06, 0.06, 0.05, 0.04)
_GROWING = (0.08, 0.10, 0.11, 0.05, 0.02, 0.03, 0.00, 0.23, 0.11, 0.10, 0.02, 0.02, 0.04, 0.09)

# Age at which enough of the bone in question is ossified to show a break.
OLDEST_NEEDED = {"scaphoid": 11.5, "ulnar_styloid": 11.5, "intra_articular": 15.0, "salter_harris_2": 5.0}


@dataclass(frozen=True, eq=False)
class Break:
    """One bone's break. Pairs hold the value of the PA and of the lateral view; lengths in mm, angles in degrees.

    Attributes
    ----------
    bone : str
    level : float
        Height of its middle: y of the anatomy; for the scaphoid mm from the middle along its axis, for a styloid's tip
        mm from the top.
    style : str
        ``"cut"`` moves the far piece, ``"line"`` only thins the bone, ``"bulge"`` pushes the cortex out, ``"tip"`` cuts
        a styloid off, ``"corner"`` runs along the growth plate and down through the metaphysis.
    slope : tuple of float
        Rise of the break's plane per mm.
    roughness : float
        Standard deviation of its surface.
    shift : tuple of float
        Motion of the far piece across the bone: +x of each view (towards the ulna, towards the palm).
    pull : float
        Motion along the bone; negative = driven into each other.
    angle : tuple of float
        Turn of the far piece, positive towards +x of each view ...
    hinge : tuple of float
        ... about this place, mm from the bone's middle: the cortex that holds.
    lucency, width : float
        Share of the bone missing along the line, and the line's half width.
    density : float
        Extra attenuation where trabeculae are crushed, relative.
    crumble : float
        Relative amplitude of the irregular density of a comminuted break.
    chips : int
        Splinters of cortex beside it.
    side : tuple of float
        Unit vector to the side that gave way; (0, 0) = all round.
    start, steep : float
        Where a partial line begins, mm along `side`; for a corner where it leaves the growth plate, and how steeply.
    bulge : float
        How far the cortex is pushed out.
    limb : tuple of float or None
        A split into the joint: place, tilt, step, and the direction across it in radians (0 = PA's +x).
    carries_hand : bool
        The hand follows the far piece.
    seed : int
    """

    bone: str
    level: float
    style: str
    slope: tuple[float, float] = (0.0, 0.0)
    roughness: float = 0.6
    shift: tuple[float, float] = (0.0, 0.0)
    pull: float = 0.0
    angle: tuple[float, float] = (0.0, 0.0)
    hinge: tuple[float, float] = (0.0, 0.0)
    lucency: float = 0.0
    width: float = 0.6
    density: float = 0.0
    crumble: float = 0.0
    chips: int = 0
    side: tuple[float, float] = (0.0, 0.0)
    start: float = 0.0
    steep: float = 0.0
    bulge: float = 0.0
    limb: tuple[float, float, float, float] | None = None
    carries_hand: bool = False
    seed: int = 0

    @property
    def rise_mm(self) -> float:
        """How far the far piece's middle moves along the bone, once its turn about the hinge is counted."""
        return self.pull + sum(
            math.sin(math.radians(angle)) * place for angle, place in zip(self.angle, self.hinge, strict=True)
        )

    @property
    def displacement_mm(self) -> float:
        """Way of the far piece's middle in space, to the first order of its turn."""
        return math.hypot(*self.shift, self.rise_mm) if self.style in ("cut", "tip", "corner") else 0.0

    @property
    def gap_mm(self) -> float:
        """Width of the lucent line in its middle: of what gapes, and of a line along which bone is torn out."""
        if self.style == "line":
            return 2 * self.width
        torn = 2 * self.width if self.style == "cut" and self.lucency > 0.3 else 0.0
        return max(self.rise_mm + torn, 0.0) if self.style in ("cut", "tip", "corner") else 0.0


@dataclass(frozen=True, eq=False)
class Fracture:
    """All breaks of one wrist under one name; the first is the one that is measured.

    Attributes
    ----------
    kind : str
    breaks : tuple of Break
    displacement_mm, gap_mm : float
        Those of the first break.
    """

    kind: str
    breaks: tuple[Break, ...]
    displacement_mm: float
    gap_mm: float


def draw_kind(rng: np.random.Generator, growing: bool, often: Mapping[str, float] | None = None) -> str:
    """Draw a kind of fracture as often as it is seen at that age, or `often` (kind: factor) times as often."""
    weights = np.array(_GROWING if growing else _GROWN) * [(often or {}).get(kind, 1.0) for kind in KINDS]
    return str(rng.choice(KINDS, p=weights / weights.sum()))


def plan_fracture(kind: str, rng: np.random.Generator, growing: bool, lowest_mm: float) -> Fracture:
    """Plan a break of `kind` no further than `lowest_mm` (negative) below the joint.

    Returns
    -------
    Fracture
        ``displacement_mm`` is the way of the far piece's middle in space, ``gap_mm`` the width of the lucent line.
    """
    breaks = _PLANS[kind](rng, growing, lowest_mm)
    first = breaks[0]
    return Fracture(kind, tuple(breaks), round(first.displacement_mm, 2), round(first.gap_mm, 2))


def _level(rng: np.random.Generator, high: float, low: float, lowest: float) -> float:
    low = max(low, lowest)
    return float(rng.uniform(min(low, high), high)) if low < high else max(high, lowest)


def _metaphysis(rng: np.random.Generator, growing: bool, lowest: float) -> float:
    """Level of a break of the distal radius; in a growing bone it stays off the growth plate."""
    return _level(rng, -14.0, -34.0, lowest) if growing else _level(rng, -9.0, -27.0, lowest)


def _towards(angle: float) -> tuple[float, float]:
    return math.cos(angle), math.sin(angle)


def _cut(rng: np.random.Generator, level: float, **changes) -> Break:
    steep = 2.2 if rng.random() < 0.15 else 1.0
    values = {
        "bone": "radius", "level": level, "style": "cut",
        "slope": (steep * rng.normal(0, 0.3), steep * rng.normal(0, 0.35)),
        "roughness": rng.uniform(0.4, 1.5), "carries_hand": True,
        "crumble": rng.uniform(0.15, 0.5) if rng.random() < 0.4 else 0.0,
        "seed": int(rng.integers(2**31)),
    }  # fmt: skip
    return Break(**{**values, **changes})


def _with_styloid(rng: np.random.Generator, growing: bool, breaks: list[Break], chance: float) -> list[Break]:
    return [*breaks, *_styloid(rng, growing, -99)] if not growing and rng.random() < chance else breaks


def _hairline(rng, growing, lowest):
    level = _metaphysis(rng, growing, lowest) if rng.random() < 0.8 else _level(rng, -26, -44, lowest)
    partial = rng.random() < 0.55
    return [_cut(rng, level, style="line", lucency=rng.uniform(0.45, 0.85), width=rng.uniform(0.35, 0.75),
                 side=_towards(rng.uniform(0, 2 * np.pi)) if partial else (0.0, 0.0), start=rng.uniform(-6, 3),
                 slope=(rng.normal(0, 0.35), rng.normal(0, 0.2)), roughness=rng.uniform(0.4, 1.4),
                 carries_hand=False)]  # fmt: skip


def _transverse(rng, growing, lowest):
    side = _towards(rng.uniform(0, 2 * np.pi))
    size = rng.uniform(0.3, 1.6)
    return [_cut(rng, _metaphysis(rng, growing, lowest), shift=(size * side[0], size * side[1]),
                 pull=rng.uniform(-0.6, 0.9), angle=tuple(rng.normal(0, 3, 2)), lucency=rng.uniform(0.15, 0.6),
                 width=rng.uniform(0.4, 0.8), side=_towards(rng.uniform(0, 2 * np.pi)),
                 density=rng.uniform(0, 0.25))]  # fmt: skip


def _displaced(rng, growing, lowest):
    # A child's pieces often ride over each other, side by side as a bayonet lies along its rifle.
    bayonet = growing and rng.random() < 0.4
    size = rng.uniform(8, 14) if bayonet else rng.uniform(1.8, 7.0)
    turn = rng.uniform(0.9, 1.4) if bayonet else rng.uniform(0.35, 1.2)
    shift = (
        float(-np.sign(rng.normal(0.8, 1)) * size * np.cos(turn)),
        float(-np.sign(rng.normal(1, 1)) * size * np.sin(turn)),
    )
    pull = -rng.uniform(3, 12) if bayonet else rng.uniform(-4, 0.8)
    lean = -float(np.sign(shift[0]) or 1), -float(np.sign(shift[1]) or 1)
    parts = [_cut(rng, _metaphysis(rng, growing, lowest), shift=shift, pull=pull,
                  angle=(rng.normal(-2 * lean[0], 6), rng.normal(-5 * lean[1], 7)),
                  side=(-lean[0] * 0.7, -lean[1] * 0.7),
                  chips=int(rng.integers(0, 4)) if not growing else 0)]  # fmt: skip
    if growing and rng.random() < (0.6 if bayonet else 0.2):
        parts.append(_ulna_along(rng, parts[0], lowest, 0.25))
    return _with_styloid(rng, growing, parts, 0.4)


def _ulna_along(rng: np.random.Generator, radius: Break, lowest: float, share: float) -> Break:
    """Return a break of the ulna with that of the radius, displaced by a share of it."""
    shift = np.array(radius.shift) * share * rng.uniform(0.6, 1.6, 2)
    angle = np.array(radius.angle) * rng.uniform(0.7, 1.2)
    return _cut(rng, max(radius.level + rng.normal(0, 4), lowest), bone="ulna", shift=tuple(shift), angle=tuple(angle),
                pull=radius.pull * share, carries_hand=False)  # fmt: skip


def _tilted(rng, growing, lowest, sign):
    """Colles (sign -1, towards the back of the hand) and Smith (+1): the other cortex holds, this one is crushed."""
    tilt = rng.uniform(8, 28)
    hinge = (rng.uniform(2, 8), -sign * rng.uniform(3, 7))
    parts = [_cut(rng, _metaphysis(rng, growing, lowest), shift=(-rng.uniform(0, 2.5), sign * rng.uniform(0.3, 4.5)),
                  pull=rng.uniform(-2.0, 0.6), angle=(-rng.uniform(0, 9), sign * tilt), hinge=hinge,
                  density=rng.uniform(0, 0.35), side=(-0.3, sign * 0.95), slope=(rng.normal(0, 0.25),
                  rng.normal(-sign * 0.15, 0.3)), crumble=rng.uniform(0.2, 0.6) if rng.random() < 0.65 else 0.0,
                  chips=int(rng.integers(0, 4)) if not growing else 0, limb=_limb(rng, growing, 0.25))]  # fmt: skip
    return _with_styloid(rng, growing, parts, 0.5)


def _limb(rng: np.random.Generator, growing: bool, chance: float) -> tuple[float, float, float, float] | None:
    """Return a split into the joint beside another break, where there is one."""
    if growing or rng.random() >= chance:
        return None
    return rng.uniform(-8, 4), rng.normal(0, 0.35), rng.uniform(0.2, 1.5), rng.normal(0, 0.5)


def _impacted(rng, growing, lowest):
    back = -np.sign(rng.normal(1, 1))
    parts = [_cut(rng, _metaphysis(rng, growing, lowest), shift=tuple(rng.normal(0, 0.8, 2)),
                  pull=-rng.uniform(1.2, 3.6), angle=(-rng.uniform(0, 6), back * rng.uniform(1, 12)),
                  hinge=(rng.uniform(0, 6), -back * 4.0),
                  side=(-0.3, back * 0.95) if rng.random() < 0.6 else (0.0, 0.0),
                  density=rng.uniform(0.05, 0.4), roughness=rng.uniform(0.8, 1.8))]  # fmt: skip
    return _with_styloid(rng, growing, parts, 0.35)


def _intra_articular(rng, growing, lowest):
    step = rng.uniform(0.4, 2.5)
    towards = rng.normal(0, 0.4) if rng.random() < 0.65 else rng.normal(np.pi / 2, 0.4)
    place = rng.uniform(-8, 4) if abs(towards) < 0.9 else rng.uniform(-4, 4)
    parts = [_cut(rng, _level(rng, -8, -20, lowest), shift=tuple(rng.normal(0, 1.2, 2)), pull=rng.uniform(-2.5, 0.5),
                  angle=(rng.normal(-3, 4), rng.normal(-3, 6)), lucency=rng.uniform(0.1, 0.4),
                  limb=(place, rng.normal(0, 0.35), step, towards), chips=int(rng.integers(0, 3)))]  # fmt: skip
    return _with_styloid(rng, growing, parts, 0.35)


def _buckle(rng, growing, lowest):
    # Most give way at the back of the radius, some at both or all sides.
    side = (0.0, 0.0) if rng.random() < 0.3 else _towards(rng.normal(-np.pi / 2 - 0.3, 0.7))
    return [_cut(rng, _level(rng, -15, -34, lowest), style="bulge", bulge=rng.uniform(0.9, 2.3), side=side,
                 width=rng.uniform(2.0, 3.8), slope=(rng.normal(0, 0.15), rng.normal(0, 0.15)),
                 density=rng.uniform(0.12, 0.4), carries_hand=False)]  # fmt: skip


def _greenstick(rng, growing, lowest):
    # One cortex holds and bends, the other tears open: most often the palm's side, seen in the lateral view.
    opened = _towards(rng.normal(np.pi / 2 * np.sign(rng.normal(0.8, 1)), 0.5))
    bend = rng.uniform(6, 19)
    lever = rng.uniform(5.5, 7.5)
    # A turn opens the side it turns away from: the far piece's top leans to the cortex that holds.
    parts = [_cut(rng, _level(rng, -18, -48, lowest), angle=(-bend * opened[0], -bend * opened[1]),
                 hinge=(-lever * opened[0], -lever * opened[1]), side=opened, roughness=rng.uniform(0.5, 1.2),
                 lucency=rng.uniform(0.0, 0.2), slope=(rng.normal(0, 0.15), rng.normal(0, 0.15)),
                 crumble=0.0)]  # fmt: skip
    if rng.random() < 0.6:  # the ulna bends with it
        parts.append(replace(parts[0], bone="ulna", carries_hand=False, seed=parts[0].seed + 1, slope=(0.0, 0.0),
                             hinge=(parts[0].hinge[0] * 0.7, parts[0].hinge[1] * 0.7)))  # fmt: skip
    return parts


def _salter_harris_2(rng, growing, lowest):
    towards = rng.normal(-np.pi / 2, 0.5) if rng.random() < 0.75 else rng.uniform(0, 2 * np.pi)
    side = _towards(towards)
    size, tilt = rng.uniform(0.8, 5.5), rng.uniform(0, 14)
    return [_cut(rng, -9.0, style="corner", side=side, start=rng.uniform(-2, 5), steep=rng.uniform(0.9, 2.4),
                 shift=(size * side[0], size * side[1]), angle=(tilt * side[0], tilt * side[1]),
                 hinge=(4 * side[0], 4 * side[1]), pull=rng.uniform(0.1, 0.8), roughness=rng.uniform(0.2, 0.5),
                 lucency=rng.uniform(0, 0.3), crumble=0.0)]  # fmt: skip


def _styloid(rng, growing, lowest):
    return [Break("ulna", -rng.uniform(2.4, 4.4), "tip", slope=(rng.normal(-0.2, 0.25), rng.normal(0, 0.2)),
                  roughness=0.4, shift=(rng.uniform(-0.6, 1.8), rng.normal(0, 0.8)), pull=rng.uniform(0.5, 2.4),
                  angle=(rng.normal(0, 15), rng.normal(0, 12)), seed=int(rng.integers(2**31)))]  # fmt: skip


def _scaphoid(rng, growing, lowest):
    return [Break("scaphoid", rng.normal(0, 1.4), "cut", slope=(rng.normal(0, 0.2), rng.normal(0, 0.15)),
                  roughness=rng.uniform(0.3, 0.6), shift=tuple(rng.normal(0, 0.5, 2)), pull=rng.uniform(0.1, 1.0),
                  angle=(rng.normal(0, 5), rng.normal(0, 5)), lucency=rng.uniform(0.35, 0.75),
                  width=rng.uniform(0.35, 0.6), seed=int(rng.integers(2**31)))]  # fmt: skip


def _ulna(rng, growing, lowest):
    return [_cut(rng, _level(rng, -15, -48, lowest), bone="ulna", shift=tuple(rng.normal(0, 1.6, 2)),
                 pull=rng.uniform(-1.5, 1.0), angle=tuple(rng.normal(0, 6, 2)), lucency=rng.uniform(0, 0.4),
                 carries_hand=False)]  # fmt: skip


def _both_bones(rng, growing, lowest):
    level = _level(rng, -27, -56, lowest)
    bend = (rng.normal(0, 7), -np.sign(rng.normal(0.7, 1)) * rng.uniform(4, 20))
    size = rng.uniform(5, 11) if rng.random() < 0.3 else rng.uniform(0.5, 5)
    towards = rng.uniform(0, 2 * np.pi)
    radius = _cut(rng, level, shift=(size * np.cos(towards), size * np.sin(towards)), angle=bend,
                  pull=-rng.uniform(2, 9) if size > 5 else rng.uniform(-1.5, 0.8), chips=int(rng.integers(0, 2)),
                  slope=tuple(rng.normal(0, 0.45, 2)))  # fmt: skip
    return [radius, _ulna_along(rng, radius, lowest, rng.uniform(0.4, 1.0))]


_PLANS = {
    "hairline": _hairline,
    "transverse": _transverse,
    "displaced": _displaced,
    "colles": lambda rng, growing, lowest: _tilted(rng, growing, lowest, -1.0),
    "smith": lambda rng, growing, lowest: _tilted(rng, growing, lowest, 1.0),
    "impacted": _impacted,
    "intra_articular": _intra_articular,
    "buckle": _buckle,
    "greenstick": _greenstick,
    "salter_harris_2": _salter_harris_2,
    "ulnar_styloid": _styloid,
    "scaphoid": _scaphoid,
    "ulna": _ulna,
    "both_bones": _both_bones,
}
