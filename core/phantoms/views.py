"""The ways a wrist is laid on the detector: turns of the forearm about its long axis."""

from __future__ import annotations

import math
from dataclasses import dataclass

VIEWS = ("PA", "LATERAL", "OBLIQUE")


@dataclass(frozen=True)
class View:
    """One projection.

    Attributes
    ----------
    name : str
        One of ``VIEWS``, as a reader would call it.
    angle : float
        How far the forearm is turned about its long axis, in degrees: 0 a true PA, 90 a true lateral view. Nobody lies
        exactly true.
    """

    name: str
    angle: float

    def mix(self, pa: float, lateral: float) -> float:
        """Return what a length that measures `pa` in a true PA and `lateral` in a true lateral view measures here."""
        turn = math.radians(self.angle)
        return pa * math.cos(turn) + lateral * math.sin(turn)
