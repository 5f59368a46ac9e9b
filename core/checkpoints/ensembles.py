"""The mean of several checkpoints, and what was measured of it: the file ``ensemble.json`` beside the checkpoints.

``{"members": [{"id": ..., "answers_sha256": ...}, ...], "study_calibration": {...}, "operating_points": [...], "data":
{...}}``. The calibration was fitted to the mean of the members' probabilities and the points were chosen on what it
makes of them; both hold for these members as they answer now and for no others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from core.checkpoints import CHECKPOINTS, CheckpointEntry, default_id, list_checkpoints
from core.checkpoints.cards import (
    LARGEST_CARD_BYTES,
    calibrations_of,
    check_calibration,
    check_id,
    parse_points,
    strict_json,
)
from core.checkpoints.facts import check_facts
from core.checkpoints.files import write_whole
from core.errors import CheckpointError
from core.values import Checkpoint, OperatingPoint

ENSEMBLE_NAME = "ensemble.json"
_CALIBRATION = "study_calibration"
UNTESTED = "The mean itself has not been tested."
"""Said of models that were tested on other studies each."""


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Checkpoints whose mean was measured.

    Attributes
    ----------
    members : Mapping of str to str
        Id -> `answers_sha256`.
    operating_points : tuple of OperatingPoint
        Chosen on the mean, in rising order of threshold.
    data : Mapping
        As that of a card: ``trained_on``, ``tested_on``, ``simulated``, ``results``, ...
    study_calibration : Mapping or None
        What the mean of the members' probabilities becomes, see ``core.metrics.calibrate_means``; None: it stays.
    """

    members: Mapping[str, str]
    operating_points: tuple[OperatingPoint, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    study_calibration: Mapping[str, Any] | None = None


def answers_sha256(card: Checkpoint) -> str:
    """Return the SHA-256 of what a checkpoint's probabilities hang on: weights, calibrations, how it reads films."""
    scaling = card.scaling if isinstance(card.scaling, str) else dict(card.scaling)
    reads = [card.region, card.looks, card.input_size, card.fit, scaling]
    return sha256(json.dumps([card.weights_sha256, calibrations_of(card), reads], sort_keys=True).encode()).hexdigest()


def members_of(cards: Iterable[Checkpoint]) -> dict[str, str]:
    """Return the members of a mean of these checkpoints, as :class:`Ensemble` has them."""
    return {card.id: answers_sha256(card) for card in cards}


def read_ensemble(folder: Path = CHECKPOINTS) -> Ensemble | None:
    """Return the ensemble that was measured; None where there is no such file.

    Raises
    ------
    CheckpointError
        The file is not what it should be.
    """
    path = Path(folder) / ENSEMBLE_NAME
    if not path.is_file():
        return None
    try:
        text = path.read_bytes() if path.stat().st_size <= LARGEST_CARD_BYTES else b""
        content = strict_json(text)
        # Files from before studies were calibrated have another entry: they are of no members that are here now.
        entry = "weights_sha256" if all("weights_sha256" in each for each in content["members"]) else "answers_sha256"
        members = {check_id(member["id"]): str(member[entry]) for member in content["members"]}
        points, data, calibration = content["operating_points"], content.get("data", {}), content.get(_CALIBRATION)
        if len(members) < 2 or len(members) != len(content["members"]) or not isinstance(data, dict):
            raise ValueError("members")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            "The ensemble's file must name two or more models and their operating points in JSON, but it does not."
        ) from error
    check_facts(data)
    if calibration is not None:
        check_calibration(calibration)
    return Ensemble(members, parse_points(points), data, calibration)


def ensemble_of(cards: Sequence[Checkpoint], folder: Path = CHECKPOINTS) -> Ensemble:
    """Return what was measured of the mean of these checkpoints, or of those of them whose mean was measured.

    A checkpoint that stands beside those does not change what the mean means. Where nothing was measured the mean is of
    all, without points and calibration: thresholds of the members, averaged or not, were not chosen on it.

    Raises
    ------
    CheckpointError
        The ensemble's file is not what it should be.
    """
    members, ensemble = members_of(cards), read_ensemble(folder)
    return ensemble if ensemble is not None and ensemble.members.items() <= members.items() else Ensemble(members)


def write_ensemble(ensemble: Ensemble, folder: Path = CHECKPOINTS) -> None:
    """Write ``ensemble.json``, whole or not at all.

    Raises
    ------
    CheckpointError
        The folder cannot be written to, or is full.
    """
    content = {
        "members": [{"id": name, "answers_sha256": digest} for name, digest in ensemble.members.items()],
        _CALIBRATION: ensemble.study_calibration and dict(ensemble.study_calibration),
        "operating_points": [asdict(point) for point in ensemble.operating_points],
        "data": dict(ensemble.data),
    }
    write_whole(Path(folder) / ENSEMBLE_NAME, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def find_ensemble(folder: Path = CHECKPOINTS) -> tuple[Checkpoint, tuple[Checkpoint, ...]]:
    """Return the card of the mean of the models in `folder`, and the models' own cards.

    Raises
    ------
    CheckpointError
        There are fewer than two models, one is broken, or the ensemble's file is.
    """
    ensemble = read_ensemble(folder)
    members = ensemble_members(list_checkpoints(folder), default_id(folder), ensemble)
    return ensemble_card(members, ensemble), members


def ensemble_members(
    entries: Sequence[CheckpointEntry], default: str | None = None, ensemble: Ensemble | None = None
) -> tuple[Checkpoint, ...]:
    """Return the checkpoints whose mean is taken, the default one first.

    Where an ensemble was measured and its members are here as they were, it is these: a model that was trained since
    does not change what the mean means. Otherwise it is every checkpoint that looks for the same finding.

    Parameters
    ----------
    entries : sequence of CheckpointEntry
        As listed.
    default : str or None
        The id whose finding counts; None: that of the first.
    ensemble : Ensemble or None
        What was measured.

    Raises
    ------
    CheckpointError
        A checkpoint is broken, so that it cannot be told whether it belongs to the mean.
    """
    usable = [entry.checkpoint for entry in entries if entry.checkpoint and entry.checkpoint.task == "fracture"]
    usable.sort(key=lambda card: card.id != default)
    if ensemble is not None:
        measured = tuple(card for card in usable if ensemble.members.get(card.id) == answers_sha256(card))
        if len(measured) == len(ensemble.members):
            return measured
    broken = next((entry for entry in entries if entry.reason), None)
    if broken:
        raise CheckpointError(f"A mean of all models needs them whole, but {broken.id} is not: {broken.reason}")
    return tuple(card for card in usable if card.positive_label == usable[0].positive_label)


def ensemble_card(members: Sequence[Checkpoint], ensemble: Ensemble | None = None) -> Checkpoint:
    """Return a card for the mean of `members`, so that it is shown and decided on as a checkpoint is.

    It has the calibration and the operating points that were measured for exactly these members, and else none: points
    of the members, averaged or not, were not chosen on the mean.

    Raises
    ------
    CheckpointError
        Fewer than two members, or members that look for different things.
    """
    if len(members) < 2:
        raise CheckpointError(f"A mean needs two models or more, but there are {len(members)}.")
    if len({card.positive_label for card in members}) > 1:
        raise CheckpointError("The models of a mean must look for the same finding, but these do not.")
    hashes = members_of(members)
    measured = ensemble is not None and dict(ensemble.members) == hashes
    first, name = members[0], f"mean of {len(members)} models"
    points, calibration = (ensemble.operating_points, ensemble.study_calibration) if measured else ((), None)
    who = json.dumps(sorted(hashes.items()))
    simulated = all(card.data.get("simulated") for card in members)
    return Checkpoint(
        id=name,
        title=name.capitalize(),
        task="fracture",
        backbone="",
        feature_layer="",
        input_size=first.input_size,
        region=first.region if len({card.region for card in members}) == 1 else None,
        positive_label=first.positive_label,
        operating_points=points,
        study_calibration=calibration,
        data=dict(ensemble.data) if measured else {"simulated": simulated},
        weights_sha256=sha256(who.encode()).hexdigest(),
        card_sha256=sha256(
            json.dumps([who, [(p.name, p.threshold) for p in points], calibration and dict(calibration)]).encode()
        ).hexdigest(),
    )
