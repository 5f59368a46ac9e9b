"""How far one heat map can be trusted: what stays when nothing that matters changes, and what changes when all does.

Every measurement is taken on the square that the network reads, so nothing depends on the size of the film. Maps are
compared by their likeness (:func:`likeness`), the correlation of what a reader sees of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from core.classifier import square_fit
from core.explain import METHODS, MOST_SEED, available_methods, canonical_method, explain_square
from core.explain.removal import Removal, measure_removal
from core.explain.scrambled import DEPTHS, ScrambledClassifier
from core.explain.stray import bone_edges, stray_heat
from core.radiographs import SquareFit
from core.values import Radiograph, WristRegion

GRID = 56
"""Cells a side that maps are compared on: half a millimetre to two on a wrist."""
TURN_DEGREES = 5.0
SHIFT = 0.04
"""Of the square's side."""
EXPOSURES = (0.8, 1.25)
SHUFFLES = {"head": 3, "deep": 3, "all": 3}
"""Maps of shuffled networks that a map is compared with. Shuffled once, a head with its few weights may go on to say
much the same, and any network may draw a map that is like the first by chance."""
KIN = ({"gradcam", "gradcampp"},)
"""Methods of which one is nearly a part of the other: that they agree is no evidence for either."""
_TRIES = 4
_ROUNDING = 1e-5
"""Of a map's maximum: what single precision makes of sums that are the same."""


@dataclass(frozen=True, eq=False)
class Checks:
    """What was measured of one method's map of one film.

    Attributes
    ----------
    method, target : str
    peak : float
        The raw map's maximum.
    repeated : float
        Likeness to the map of another seed: SmoothGrad's noise, Quick Score-CAM's groups; 1 for methods without
        chance.
    moved : Mapping of str to float
        Likeness to the map of the same wrist a little turned, shifted or made darker or brighter, laid back on it. The
        first word tells the kind.
    others : Mapping of str to float
        Likeness to the maps of other methods.
    scrambled : Mapping of str to float
        Likeness to the map of the network with its weights shuffled down to each of ``core.explain.scrambled.DEPTHS``;
        NaN where a shuffled network drew no map, however it was shuffled.
    removal : Removal
    outside : float
        Share of the heat that lies outside the limb or off the film.
    bright : float
        Share of the heat on what is saturated white: markers, metal and bone that the film shows as full white.
    flat : bool
        Whether the map is the same everywhere, so that it marks no place.
    """

    method: str
    target: str
    peak: float
    repeated: float
    moved: Mapping[str, float]
    others: Mapping[str, float]
    scrambled: Mapping[str, float]
    removal: Removal
    outside: float
    bright: float
    flat: bool = False

    @property
    def unsteadiest(self) -> tuple[str, float]:
        """The kind of change that changes the map most, and the mean likeness over its two directions."""
        means = {kind: self.steadiness(kind) for kind in dict.fromkeys(name.partition(" ")[0] for name in self.moved)}
        worst = min(means, key=means.get)
        return worst, means[worst]

    def steadiness(self, kind: str) -> float:
        """Return the mean likeness over the two directions of a kind of change, the first word of `moved`."""
        return float(np.mean([value for name, value in self.moved.items() if name.partition(" ")[0] == kind]))

    @property
    def agreement(self) -> float:
        """The mean likeness to the maps of other methods, of which kin count as one; NaN where there is no other."""
        votes = {frozenset(next((kin for kin in KIN if key in kin), {key})): [] for key in self.others}
        for key, value in self.others.items():
            next(likenesses for kin, likenesses in votes.items() if key in kin).append(value)
        return float(np.mean([np.mean(each) for each in votes.values()])) if votes else float("nan")

    @property
    def stability(self) -> float:
        """The likeness under the kind of change that changes the map most."""
        return self.unsteadiest[1]


def likeness(first: np.ndarray, second: np.ndarray, where: np.ndarray | None = None) -> float:
    """Return Pearson's correlation of two maps over the same square, on `GRID` x `GRID` cells.

    Parameters
    ----------
    first, second : numpy.ndarray
        Square maps of whatever resolution, not negative.
    where : numpy.ndarray, optional
        bool, shape (GRID, GRID): the cells that count.

    Returns
    -------
    float
        In [-1, 1]. Two maps that are the same everywhere, such as two without any heat, are alike (1); such a map is
        like no other (0).
    """
    maps = [_on_grid(each) for each in (first, second)]
    # What is left of a flat map is rounding, whose correlation would be a number about nothing.
    noise = [_ROUNDING * float(np.abs(each).max()) for each in maps]
    one, other = maps if where is None else (each[where] for each in maps)
    flat = [float(np.ptp(each)) <= least for each, least in zip((one, other), noise, strict=True)]
    if any(flat):
        return 1.0 if all(flat) else 0.0
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def is_flat(heat: np.ndarray) -> bool:
    """Whether a map is the same everywhere, but for rounding."""
    return float(np.ptp(heat)) <= _ROUNDING * float(np.abs(heat).max())


def _on_grid(square: np.ndarray) -> np.ndarray:
    shrink = square.shape[0] > GRID
    way = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(square, np.float32), (GRID, GRID), interpolation=way).astype(np.float64)


def check_map(
    classifier: Any,
    radiograph: Radiograph,
    *,
    method: str,
    target: str = "for",
    region: WristRegion | None = None,
    scrambled: ScrambledClassifier | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **settings: Any,
) -> Checks:
    """Measure how far a method's map of a film can be trusted.

    Parameters
    ----------
    classifier : core.classifier.Classifier
    radiograph : Radiograph
    method, target, region, **settings
        As of :func:`core.explain.explain`.
    scrambled : ScrambledClassifier, optional
        Of the same classifier; made where it is not given, which takes seconds.
    progress : callable, optional
        Told (done, total) in steps.

    Raises
    ------
    ExplanationError
        As :func:`core.explain.explain`.
    """
    method = canonical_method(method)
    asked = {"method": method, "target": target, **settings}
    square = np.asarray(classifier.square(radiograph, region), np.float32)
    total = 4 + len(DEPTHS)
    heat, peak, _ = explain_square(classifier, square, **asked)
    progress(1, total)
    moved = _moved(classifier, radiograph, region, heat, asked)
    progress(2, total)
    others = {
        key: likeness(heat, explain_square(classifier, square, method=key, target=target)[0])
        for key in quick_methods(classifier, method, target)
    }
    repeated = _repeated(classifier, square, heat, asked)
    progress(3, total)
    fit = square_fit(classifier.checkpoint, radiograph, region, square.shape[0])
    sign = 1 if target == "for" else -1
    removal = measure_removal(classifier.run, square, heat, bone_edges(square, fit), sign)
    progress(4, total)
    scrambled = scrambled or ScrambledClassifier(classifier)
    found = {}
    for done, depth in enumerate(DEPTHS, start=5):
        found[depth] = _scrambled_likeness(scrambled, square, heat, depth, asked)
        progress(done, total)
    outside, bright = stray_heat(heat, square, fit)
    return Checks(method, target, peak, repeated, moved, others, found, removal, outside, bright, is_flat(heat))


def quick_methods(classifier: Any, method: str, target: str) -> tuple[str, ...]:
    """Return the other methods that take hardly longer than an answer: a map's likeness to theirs is told."""
    itself = {method}.union(*(kin for kin in KIN if method in kin))
    return tuple(
        key
        for key in available_methods(classifier.checkpoint)
        if METHODS[key].quick and key not in itself and not (key == "location" and target == "against")
    )


def _repeated(classifier: Any, square: np.ndarray, heat: np.ndarray, asked: Mapping[str, Any]) -> float:
    if "seed" not in METHODS[asked["method"]].defaults:
        return 1.0
    seed = asked.get("seed", METHODS[asked["method"]].defaults["seed"])
    other = seed + 1 if seed < MOST_SEED else 0
    return likeness(heat, explain_square(classifier, square, **{**asked, "seed": other})[0])


def _scrambled_likeness(
    scrambled: ScrambledClassifier, square: np.ndarray, heat: np.ndarray, depth: str, asked: Mapping[str, Any]
) -> float:
    """Return the mean likeness to the maps of shuffled networks; NaN where none of them drew a map.

    An empty map is like no other, whatever drew it: it says nothing, and the network is shuffled anew.
    """
    found: list[float] = []
    with scrambled.lock:
        for seed in range(_TRIES * SHUFFLES[depth]):
            scrambled.scramble(depth, seed)
            other, _, _ = explain_square(scrambled, square, **asked)
            if other.any():
                found.append(likeness(heat, other))
            if len(found) == SHUFFLES[depth]:
                break
    return float(np.mean(found)) if found else float("nan")


# --- the same wrist, a little different ------------------------------------------------------------------------------


def _moved(
    classifier: Any,
    radiograph: Radiograph,
    region: WristRegion | None,
    heat: np.ndarray,
    asked: Mapping[str, Any],
) -> dict[str, float]:
    height, width = radiograph.height, radiograph.width
    card, size = classifier.checkpoint, classifier.square(radiograph, region).shape[0]
    whole = region or WristRegion(width / 2, height / 2, float(max(height, width)))
    step = SHIFT * whole.side / np.sqrt(2) * np.ones(2)  # aslant
    if card.fit == "stretch":
        step *= np.array([width, height]) / max(height, width)  # as far along both sides of the square
    places = {
        # The square moves one way, and the wrist in it the other.
        "turned right": replace(whole, angle=whole.angle - TURN_DEGREES),
        "turned left": replace(whole, angle=whole.angle + TURN_DEGREES),
        "shifted one way": replace(whole, x=whole.x - step[0], y=whole.y - step[1]),
        "shifted the other": replace(whole, x=whole.x + step[0], y=whole.y + step[1]),
    }
    here = square_fit(card, radiograph, region, size)
    found = {}
    for name, place in places.items():
        other, _, _ = explain_square(classifier, classifier.square(radiograph, place), **asked)
        back, covered = lay_back(other, square_fit(card, radiograph, place, size), here)
        found[name] = likeness(heat, back, covered)
    for name, factor in zip(("made darker", "made brighter"), EXPOSURES, strict=True):
        film = replace(radiograph, pixels=np.clip(radiograph.pixels * np.float32(factor), 0, 1))
        found[name] = likeness(heat, explain_square(classifier, classifier.square(film, region), **asked)[0])
    return found


def lay_back(heat: np.ndarray, there: SquareFit, here: SquareFit) -> tuple[np.ndarray, np.ndarray]:
    """Return a map over one square as it lies on another, and which cells of the grid it covers.

    Parameters
    ----------
    heat : numpy.ndarray
        Shape (n, n), over the square `there`.
    there, here : SquareFit
        How the two squares lie on the film.

    Returns
    -------
    heat : numpy.ndarray
        float32, shape (GRID, GRID), over the square `here`.
    covered : numpy.ndarray
        bool, shape (GRID, GRID).
    """
    # First to the grid, as `likeness` brings it there: on the way a fine map would be blurred, and of a coarse one half
    # a cell on every side would count as not covered.
    cells = _on_grid(heat).astype(np.float32)
    to_cells = _scaling(cells.shape[0] / there.size)
    matrix = to_cells @ np.vstack([there.matrix, [0, 0, 1]]) @ np.vstack([here.inverse, [0, 0, 1]])
    matrix = matrix @ _scaling(here.size / GRID)
    options = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, "borderMode": cv2.BORDER_CONSTANT}
    back = cv2.warpAffine(cells, matrix[:2], (GRID, GRID), **options)
    covered = cv2.warpAffine(np.ones(cells.shape, np.float32), matrix[:2], (GRID, GRID), **options)
    return back, covered > 0.99


def _scaling(factor: float) -> np.ndarray:
    """Return the 3x3 matrix that scales pixel-centre coordinates."""
    shift = (factor - 1) / 2
    return np.array([[factor, 0, shift], [0, factor, shift], [0, 0, 1.0]])
