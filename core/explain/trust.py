"""One honest line beside a heat map, and the numbers behind it."""

from __future__ import annotations

import math

from core.explain import METHODS
from core.explain.checks import Checks
from core.explain.removal import Removal

# On simulated films the maps of LayerCAM, Grad-CAM, SmoothGrad and the location head are like those of a network that
# is scrambled as a whole by less than 0.3 at the median and 0.45 nearly always, an edge detector's by 1; and like
# themselves, the wrist moved, by 0.8 to 1.
MUCH_ALIKE = 0.5
"""Likeness to the map of a network that knows nothing any more, from which on a map does not follow the model."""
IGNORES = 0.98
"""Likeness from which on what was scrambled does not count for the map at all."""
HARDLY_FOLLOWS = 0.9
"""Likeness from which on it changes little by what was scrambled."""
ALONE = 0.4
"""Mean likeness to the maps of other methods below which a map stands alone. On simulated films that a model is sure of
it is 0.6 to 0.8; where there is nothing to see 0.1 to 0.3."""
STEADY = 0.7
"""Likeness below which a map is another one."""
MUCH_OUTSIDE = 0.3
"""Share of the heat."""
_HALF_WORDS = {
    (False, False): "the answer hangs no more on what it marks than on places drawn at random, or on edges of bones.",
    (False, True): "what it marks brings the answer back, but taking it away costs no more than taking away random "
    "places, or edges of bones.",
    (True, False): "taking away what it marks costs the answer something, but alone it brings back no more of it than "
    "random places, or edges of bones.",
}
_CHANGES = {
    "turned": "when the wrist is turned by 5 degrees",
    "shifted": "when the wrist is shifted by a twenty-fifth of the square",
    "made": "when the film is made a fifth darker or a quarter brighter",
}


def trust_sentence(checks: Checks) -> tuple[str, str]:
    """Say how far a map can be trusted, in one line; the gravest finding decides.

    Of a map that passes, no more is said than that: it may show truly what a model looks at where the model is wrong.

    Returns
    -------
    level : str
        ``"none"`` (there is no map), ``"bad"``, ``"unsure"`` or ``"good"``.
    sentence : str
    """
    if not checks.peak > 0:
        return "none", "There is nothing to check: the map holds no evidence."
    if checks.flat:
        return "bad", "Do not rely on this map: it is the same everywhere, so it marks no place."
    scrambled = checks.scrambled  # NaN, not measurable, is never as large as anything
    if scrambled["all"] >= HARDLY_FOLLOWS or scrambled["deep"] >= IGNORES:
        return "bad", "Do not rely on this map: it hardly changes when the model is scrambled."
    if scrambled["all"] >= MUCH_ALIKE:
        return "bad", "Do not rely on this map: it stays much like itself when the model is scrambled."
    if scrambled["head"] >= IGNORES:
        return "bad", "Do not rely on this map: it stays the same when the layers that give the answer are scrambled."
    if math.isnan(scrambled["all"]) or math.isnan(scrambled["deep"]):
        return "unsure", (
            "Rely on this map with care: whether it follows the model cannot be told, since the model draws none "
            "when it is scrambled."
        )
    if min(checks.stability, checks.repeated) < STEADY:
        again = _CHANGES[checks.unsteadiest[0]] if checks.stability < STEADY else "when it is made again"
        return "unsure", f"Rely on this map with care: it follows the model, but changes {again}."
    for depth, what in (("head", "layers that give the answer are"), ("deep", "deeper half of the model is")):
        if scrambled[depth] >= HARDLY_FOLLOWS:
            return "unsure", f"Rely on this map with care: it changes little when the {what} scrambled."
    if checks.outside + checks.bright >= MUCH_OUTSIDE:
        share = f"{100 * (checks.outside + checks.bright):.0f}%"
        return (
            "unsure",
            f"Rely on this map with care: {share} of its heat lies outside the limb, or on what is saturated white.",
        )
    taken, given = _answer_hangs_on(checks.removal)
    if not (taken and given):
        return "unsure", f"Rely on this map with care: {_HALF_WORDS[taken, given]}"
    if checks.agreement < ALONE:
        return "unsure", "Rely on this map with care: other methods mark other places."
    return "good", (
        "This map is stable and follows the model. It may still point beside the break, and the model itself may be "
        "wrong."
    )


def _answer_hangs_on(removal: Removal) -> tuple[bool, bool]:
    """Whether the hottest places, taken away and given back, tell more than nothing, random ones and edges."""
    taken = removal.deletion > max(0, removal.random[0], removal.edges[0])
    given = removal.insertion > max(0, removal.random[1], removal.edges[1])
    return taken, given


def check_rows(checks: Checks) -> list[tuple[str, float, str]]:
    """Return the numbers behind the sentence: what was measured, its value, and how it is meant."""
    removal = checks.removal
    by_chance = "seed" in METHODS[checks.method].defaults
    again = "likeness to the map of another seed" if by_chance else "nothing in this method is left to chance"
    rows = [
        ("Made again", checks.repeated, again),
        *((name.capitalize(), value, "likeness; 1 is the same map") for name, value in checks.moved.items()),
        *((f"{METHODS[key].title}", value, "likeness to this method's map") for key, value in checks.others.items()),
        *(
            (_DEPTH_WORDS[key], value, "likeness; low is good; none where it draws no map")
            for key, value in checks.scrambled.items()
        ),
        ("Marked places taken away", removal.deletion, "fall of the score, in logits"),
        ("Random places taken away", removal.random[0], "fall of the score, in logits"),
        ("Edges taken away", removal.edges[0], "fall of the score, in logits"),
        ("Marked places alone", removal.insertion, "rise of the score over a blurred film, in logits"),
        ("Random places alone", removal.random[1], "rise of the score over a blurred film, in logits"),
        ("Edges alone", removal.edges[1], "rise of the score over a blurred film, in logits"),
        ("Outside the limb", checks.outside, "share of the heat"),
        ("On what is saturated white", checks.bright, "share of the heat"),
    ]
    return rows


_DEPTH_WORDS = {
    "head": "Layers that give the answer scrambled",
    "deep": "Deeper half of the network scrambled",
    "all": "Whole network scrambled",
}
