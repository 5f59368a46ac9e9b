"""Simulated wrist radiographs: projected thickness, Beer-Lambert, a detector's processing, exact fracture masks.

No patient's film is in them. A film is wholly determined by its seed and ``VERSION``. What breaks is drawn from a
stream of random numbers of its own, so nothing else about a film (size, framing, exposure, marker) tells the label.
"""

from core.phantoms.dataset import film_png, study_seed
from core.phantoms.films import (
    FRAMINGS,
    VERSION,
    VIEWS,
    SimulatedFilm,
    simulate_film,
    simulate_study,
    simulate_wrist,
)
from core.phantoms.fractures import KINDS, UNDISPLACED
from core.phantoms.injection import inject_fracture, write_injected

__all__ = [
    "FRAMINGS",
    "KINDS",
    "UNDISPLACED",
    "VERSION",
    "VIEWS",
    "SimulatedFilm",
    "film_png",
    "inject_fracture",
    "simulate_film",
    "simulate_study",
    "simulate_wrist",
    "study_seed",
    "write_injected",
]
