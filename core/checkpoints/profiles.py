"""Limits that somebody chose for a checkpoint and saved under a name: ``profiles.json`` beside the checkpoints.

A checkpoint is published with operating points that were chosen on validation. A profile replaces them in the reading
room, for the weights and the calibration that it was chosen for and for no others.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from core.checkpoints import CHECKPOINTS
from core.checkpoints.cards import LARGEST_CARD_BYTES, calibrations_of, check_id, parse_points
from core.checkpoints.files import write_whole
from core.errors import CheckpointError
from core.values import Checkpoint, Interval, OperatingPoint

PROFILES_NAME = "profiles.json"
MOST_PROFILES = 100
LONGEST_NAME = 40
PUBLISHED = "As published"
"""What a checkpoint's own limits are called."""
_writing = threading.Lock()


@dataclass(frozen=True, eq=False)
class Profile:
    """Limits for one checkpoint.

    Attributes
    ----------
    name : str
    checkpoint_id, weights_sha256 : str
    calibration : Mapping
        As of ``core.checkpoints.cards.calibrations_of``: other calibrations make other probabilities.
    operating_points : tuple of OperatingPoint
        ``high_sensitivity`` (below: none seen) and ``high_specificity`` (from there on: suspected), in this order.
    chosen_on : str
        Which limits were chosen, and by which studies, in words that can follow "Limits ward:".
    """

    name: str
    checkpoint_id: str
    weights_sha256: str
    operating_points: tuple[OperatingPoint, ...]
    calibration: Mapping[str, Any] = field(default_factory=dict)
    chosen_on: str = ""


def read_profiles(folder: Path = CHECKPOINTS) -> tuple[Profile, ...]:
    """Return all profiles by name; none where there is no such file.

    Raises
    ------
    CheckpointError
        The file is not what it should be.
    """
    path = Path(folder) / PROFILES_NAME
    if not path.is_file():
        return ()
    try:
        text = path.read_bytes() if path.stat().st_size <= LARGEST_CARD_BYTES else b""
        rows = json.loads(text.decode("utf-8"))["profiles"]
        profiles = [
            Profile(
                check_name(row["name"]),
                check_id(row["checkpoint_id"]),
                str(row["weights_sha256"]),
                parse_points(row["operating_points"]),
                dict(row["calibration"]),
                str(row["chosen_on"]),
            )
            for row in rows[:MOST_PROFILES]
        ]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError("The file of saved limits must be a list of profiles in JSON, but it is not.") from error
    return tuple(sorted(profiles, key=lambda profile: profile.name.lower()))


def profiles_of(card: Checkpoint, folder: Path = CHECKPOINTS) -> dict[str, Profile]:
    """Return the profiles, by name, that were chosen for this checkpoint as it is.

    Raises
    ------
    CheckpointError
        As :func:`read_profiles`.
    """
    return {profile.name: profile for profile in read_profiles(folder) if _fits(profile, card)}


def _fits(profile: Profile, card: Checkpoint) -> bool:
    theirs = (profile.checkpoint_id, profile.weights_sha256, dict(profile.calibration))
    return theirs == (card.id, card.weights_sha256, calibrations_of(card))


def check_name(name: Any) -> str:
    """Return a profile's name without spaces around it.

    Raises
    ------
    CheckpointError
        It is empty, too long, or not printable text.
    """
    text = name.strip() if isinstance(name, str) else ""
    if not (0 < len(text) <= LONGEST_NAME and text.isprintable()):
        raise CheckpointError(f"A name of 1 to {LONGEST_NAME} characters was expected, but this is none.")
    if text.lower() == PUBLISHED.lower():
        raise CheckpointError(f"Another name than {PUBLISHED!r} was expected: the model's own limits are called so.")
    return text


LIMITS = {
    "both": "suspected; below it none seen",
    "upper": "suspected",
    "lower": "uncertain; below it none seen",
}
"""Which limits a threshold becomes -> what happens from the threshold on, in words."""


def move_limits(
    points: Sequence[OperatingPoint], which: str, threshold: float, sensitivity: Interval, specificity: Interval
) -> tuple[OperatingPoint, OperatingPoint]:
    """Return a lower and an upper limit, one of them or both moved to a threshold.

    Parameters
    ----------
    points : sequence of OperatingPoint
        The limits so far; where the one that is to stay is not among them, both are moved.
    which : str
        A key of `LIMITS`.
    threshold : float
    sensitivity, specificity : Interval
        What was measured there.
    """
    known = {point.name: point for point in points}
    names = {"lower": "high_sensitivity", "upper": "high_specificity"}
    low, high = (
        known[name] if name in known and which not in (limit, "both") else
        OperatingPoint(name, threshold, sensitivity, specificity)
        for limit, name in names.items()
    )  # fmt: skip
    return low, high


def make_profile(name: str, card: Checkpoint, points: tuple[OperatingPoint, ...], chosen_on: str) -> Profile:
    """Return limits for a checkpoint.

    Raises
    ------
    CheckpointError
        No such name, or the lower limit lies above the upper one.
    """
    low, high = points
    if low.threshold > high.threshold:
        raise CheckpointError(
            f"The lower limit must not lie above the upper one, but {low.threshold:.4f} lies above "
            f"{high.threshold:.4f}."
        )
    rates = [rate for point in points for rate in (point.sensitivity, point.specificity)]
    if any(math.isnan(number) for rate in rates for number in (rate.value, rate.low, rate.high)):
        raise CheckpointError(
            "Studies with and without a finding are needed to choose limits by, but one kind is missing."
        )
    return Profile(check_name(name), card.id, card.weights_sha256, tuple(points), calibrations_of(card), chosen_on)


def save_profile(profile: Profile, folder: Path = CHECKPOINTS) -> None:
    """Save a profile; one of the same name for the same checkpoint is replaced.

    Raises
    ------
    CheckpointError
        There are too many, or the folder cannot be written to.
    """
    with _writing:
        others = _others(profile.name, profile.checkpoint_id, folder)
        if len(others) >= MOST_PROFILES:
            raise CheckpointError(f"Up to {MOST_PROFILES} profiles can be kept, but there are as many already.")
        _write([*others, profile], folder)


def remove_profile(name: str, checkpoint_id: str, folder: Path = CHECKPOINTS) -> None:
    """Remove a profile, if it is there.

    Raises
    ------
    CheckpointError
        The folder cannot be written to.
    """
    with _writing:
        _write(_others(name, checkpoint_id, folder), folder)


def _others(name: str, checkpoint_id: str, folder: Path) -> list[Profile]:
    return [each for each in read_profiles(folder) if (each.name, each.checkpoint_id) != (name, checkpoint_id)]


def _write(profiles: list[Profile], folder: Path) -> None:
    content = {"profiles": [asdict(profile) for profile in profiles]}
    write_whole(Path(folder) / PROFILES_NAME, json.dumps(content, indent=1, allow_nan=False) + "\n")


def apply_profile(card: Checkpoint, profile: Profile) -> Checkpoint:
    """Return the card with the profile's limits, and the profile's name in ``data["profile"]``.

    Raises
    ------
    CheckpointError
        The profile was chosen for other weights or another calibration.
    """
    if not _fits(profile, card):
        raise CheckpointError("Limits chosen for this very model were expected, but these were chosen for another.")
    told = {"name": profile.name, "chosen_on": profile.chosen_on}
    limits = [(point.name, point.threshold) for point in profile.operating_points]
    return replace(
        card,
        operating_points=profile.operating_points,
        data={**card.data, "profile": told},
        card_sha256=sha256(json.dumps([card.card_sha256, profile.name, limits]).encode()).hexdigest(),
    )
