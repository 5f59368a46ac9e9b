"""What breaks, where, and how far the pieces move: planned once for a study, shown in each view."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KINDS = (
    "hairline", "transverse", "displaced", "colles", "smith", "impacted", "intra_articular", "buckle", "ulnar_styloid",
    "scaphoid", "ulna", "both_bones",
)  # fmt: skip
UNDISPLACED = ("hairline", "buckle")

# How often each kind is drawn, for adults and for children.
_ADULT = (0.15, 0.11, 0.12, 0.16, 0.05, 0.10, 0.09, 0.01, 0.06, 0.06, 0.05, 0.04)
_CHILD = (0.13, 0.16, 0.12, 0.08, 0.03, 0.04, 0.00, 0.25, 0.02, 0.02, 0.05, 0.10)

# Age at which enough of the bone in question is ossified to show a break.
OLDEST_NEEDED = {"scaphoid": 11.5, "ulnar_styloid": 11.5, "intra_articular": 15.0}


@dataclass(frozen=True, eq=False)
class Break:
    """One bone's break. Pairs hold the value of the PA and of the lateral view; lengths in mm, angles in degrees."""

    bone: str
    level: float
    style: (
        str  # "cut" moves the far piece, "line" only thins the bone, "bulge" pushes the cortex out, "tip" cuts an end
    )
    slope: tuple[float, float] = (0.0, 0.0)
    roughness: float = 0.6
    shift: tuple[float, float] = (0.0, 0.0)
    pull: float = 0.0  # along the bone; negative = driven into each other
    angle: tuple[float, float] = (0.0, 0.0)
    lucency: float = 0.0
    width: float = 0.6
    density: float = 0.0  # extra attenuation where trabeculae are crushed
    obliquity: tuple[float, float] = (0.35, 0.35)  # how far the beam smears the line, since the break's plane leans
    crumble: float = 0.0  # relative amplitude of the irregular density of a comminuted break
    extent: tuple[float, float] = (-99.0, 99.0)
    side: tuple[int, int] = (0, 0)
    bulge: float = 0.0
    limb: tuple[float, float, float] | None = None  # into the joint: place, tilt, step
    carries_hand: bool = False
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Fracture:
    """All breaks of one wrist under one name."""

    kind: str
    breaks: tuple[Break, ...]
    displacement_mm: float
    gap_mm: float


def draw_kind(rng: np.random.Generator, child: bool) -> str:
    """Draw a kind of fracture as often as it is seen at that age."""
    weights = np.array(_CHILD if child else _ADULT)
    return str(rng.choice(KINDS, p=weights / weights.sum()))


def plan_fracture(kind: str, rng: np.random.Generator, child: bool, lowest_mm: float) -> Fracture:
    """Plan a break of `kind` no further than `lowest_mm` (negative) below the joint.

    Returns
    -------
    Fracture
        ``displacement_mm`` is the length of the far piece's shift in space, ``gap_mm`` the width of the lucent line.
    """
    breaks = _PLANS[kind](rng, child, lowest_mm)
    first = breaks[0]
    moved = (
        float(np.sqrt(first.shift[0] ** 2 + first.shift[1] ** 2 + first.pull**2))
        if first.style in ("cut", "tip")
        else 0.0
    )
    gap = max(first.pull, 0.0) if first.style in ("cut", "tip") else (2 * first.width if first.style == "line" else 0.0)
    return Fracture(kind, tuple(breaks), round(moved, 2), round(gap, 2))


def _level(rng: np.random.Generator, high: float, low: float, lowest: float) -> float:
    low = max(low, lowest)
    return float(rng.uniform(min(low, high), high)) if low < high else max(high, lowest)


def _metaphysis(rng: np.random.Generator, child: bool, lowest: float) -> float:
    """Level of a break of the distal radius; in a child it stays off the growth plate."""
    return _level(rng, -13.0, -34.0, lowest) if child else _level(rng, -8.0, -27.0, lowest)


def _cut(rng: np.random.Generator, level: float, **changes) -> Break:
    values = {
        "bone": "radius", "level": level, "style": "cut", "slope": (rng.normal(0, 0.3), rng.normal(0, 0.35)),
        "roughness": rng.uniform(0.4, 1.5), "carries_hand": True,
        "crumble": rng.uniform(0.15, 0.5) if rng.random() < 0.4 else 0.0,
        "obliquity": tuple(np.exp(rng.uniform(np.log(0.3), np.log(2.5), 2))), "seed": int(rng.integers(2**31)),
    }  # fmt: skip
    return Break(**{**values, **changes})


def _with_styloid(rng: np.random.Generator, child: bool, breaks: list[Break], chance: float) -> list[Break]:
    return [*breaks, *_styloid(rng, child, -99)] if not child and rng.random() < chance else breaks


def _hairline(rng, child, lowest):
    level = _metaphysis(rng, child, lowest) if rng.random() < 0.8 else _level(rng, -26, -44, lowest)
    part = rng.random() < 0.5
    extent = ((-30, rng.uniform(-4, 8)) if rng.random() < 0.5 else (rng.uniform(-8, 4), 30)) if part else (-99.0, 99.0)
    return [_cut(rng, level, style="line", lucency=rng.uniform(0.4, 0.8), width=rng.uniform(0.35, 0.8), extent=extent,
                 roughness=rng.uniform(0.4, 1.8), carries_hand=False)]  # fmt: skip


def _transverse(rng, child, lowest):
    return [_cut(rng, _metaphysis(rng, child, lowest), shift=tuple(rng.normal(0, 0.7, 2)), pull=rng.uniform(0.2, 1.1),
                 angle=tuple(rng.normal(0, 2.5, 2)), lucency=rng.uniform(0.1, 0.5))]  # fmt: skip


def _displaced(rng, child, lowest):
    size, turn = rng.uniform(1.8, 7.0), rng.uniform(0.35, 1.2)
    shift = (
        float(-np.sign(rng.normal(0.8, 1)) * size * np.cos(turn)),
        float(-np.sign(rng.normal(1, 1)) * size * np.sin(turn)),
    )
    parts = [
        _cut(
            rng,
            _metaphysis(rng, child, lowest),
            shift=shift,
            pull=rng.uniform(-4, 0.8),
            angle=tuple(rng.normal(0, 7, 2)),
        )
    ]
    return _with_styloid(rng, child, parts, 0.4)


def _tilted(rng, child, lowest, sign):
    parts = [_cut(rng, _metaphysis(rng, child, lowest), shift=(-rng.uniform(0, 2.5), sign * rng.uniform(0.5, 5)),
                  pull=-rng.uniform(0.5, 4), angle=(rng.normal(-3, 4), sign * rng.uniform(10, 28)),
                  density=rng.uniform(0, 0.35))]  # fmt: skip
    return _with_styloid(rng, child, parts, 0.45)


def _impacted(rng, child, lowest):
    parts = [_cut(rng, _metaphysis(rng, child, lowest), shift=tuple(rng.normal(0, 0.8, 2)), pull=-rng.uniform(1.4, 4),
                  angle=(rng.normal(0, 4), -np.sign(rng.normal(1, 1)) * rng.uniform(2, 12)),
                  density=rng.uniform(0.1, 0.5), roughness=rng.uniform(0.8, 1.8))]  # fmt: skip
    return _with_styloid(rng, child, parts, 0.35)


def _intra_articular(rng, child, lowest):
    step = rng.uniform(0.3, 2.5)
    parts = [_cut(rng, _level(rng, -8, -20, lowest), shift=tuple(rng.normal(0, 1.2, 2)), pull=rng.uniform(-2.5, 0.8),
                  angle=tuple(rng.normal(0, 5, 2)), lucency=rng.uniform(0.1, 0.4),
                  limb=(rng.uniform(-10, 4), rng.normal(0, 0.35), step))]  # fmt: skip
    return _with_styloid(rng, child, parts, 0.35)


def _buckle(rng, child, lowest):
    level = _level(rng, -15, -34, lowest)
    side = (int(rng.choice([-1, 0, 1], p=[0.35, 0.35, 0.3])), int(rng.choice([-1, 0, 1], p=[0.6, 0.25, 0.15])))
    return [_cut(rng, level, style="bulge", bulge=rng.uniform(0.8, 2.2), width=rng.uniform(2.2, 4.2), side=side,
                 density=rng.uniform(0.1, 0.4), carries_hand=False)]  # fmt: skip


def _styloid(rng, child, lowest):
    return [Break("ulna", -rng.uniform(2.4, 4.4), "tip", slope=(rng.normal(-0.2, 0.25), rng.normal(0, 0.2)),
                  roughness=0.4, shift=(rng.uniform(-0.6, 1.8), rng.normal(0, 0.8)), pull=rng.uniform(0.5, 2.4),
                  angle=(rng.normal(0, 15), rng.normal(0, 12)), seed=int(rng.integers(2**31)))]  # fmt: skip


def _scaphoid(rng, child, lowest):
    return [Break("scaphoid", rng.normal(0, 1.4), "cut", slope=(rng.normal(0, 0.2), rng.normal(0, 0.2)),
                  roughness=rng.uniform(0.3, 0.7), shift=tuple(rng.normal(0, 0.7, 2)), pull=rng.uniform(0.2, 1.5),
                  angle=(rng.normal(0, 5), rng.normal(0, 6)), lucency=rng.uniform(0.3, 0.7), width=0.5,
                  seed=int(rng.integers(2**31)))]  # fmt: skip


def _ulna(rng, child, lowest):
    return [_cut(rng, _level(rng, -15, -48, lowest), bone="ulna", shift=tuple(rng.normal(0, 1.8, 2)),
                 pull=rng.uniform(-1.5, 1.2), angle=tuple(rng.normal(0, 6, 2)), carries_hand=False)]  # fmt: skip


def _both_bones(rng, child, lowest):
    level = _level(rng, -27, -75, lowest)
    bend = (rng.normal(0, 7), -np.sign(rng.normal(0.7, 1)) * rng.uniform(4, 20))
    shift = tuple(rng.normal(0, 2.8, 2))
    radius = _cut(rng, level, shift=shift, angle=bend, pull=rng.uniform(-4, 0.6), slope=tuple(rng.normal(0, 0.4, 2)))
    ulna = _cut(rng, max(level + rng.normal(0, 5), lowest), bone="ulna",
                shift=tuple(np.array(shift) * rng.uniform(0.4, 1, 2)),
                angle=tuple(np.array(bend) * rng.uniform(0.7, 1.1)), pull=radius.pull,
                slope=tuple(rng.normal(0, 0.4, 2)), carries_hand=False)  # fmt: skip
    return [radius, ulna]


_PLANS = {
    "hairline": _hairline,
    "transverse": _transverse,
    "displaced": _displaced,
    "colles": lambda rng, child, lowest: _tilted(rng, child, lowest, -1.0),
    "smith": lambda rng, child, lowest: _tilted(rng, child, lowest, 1.0),
    "impacted": _impacted,
    "intra_articular": _intra_articular,
    "buckle": _buckle,
    "ulnar_styloid": _styloid,
    "scaphoid": _scaphoid,
    "ulna": _ulna,
    "both_bones": _both_bones,
}
