"""Which datasets a checkpoint's weights learned from: patients it has seen must not measure it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.values import Checkpoint


def find_learned(card: Checkpoint) -> list[dict[str, Any]]:
    """Return the datasets that a checkpoint's weights learned from, those of its start, teachers and parts included.

    Returns
    -------
    list of dict
        ``split``: the parts' fingerprint (None: not known); ``seed`` and ``version`` of the simulator that made the
        films (None: not simulated, or not known). Two seeds or two versions never draw the same patient.
    """
    made = card.data.get("simulator") or {"version": card.versions.get("simulator")}
    return card.data.get("learned") or [
        learned_from(card.data.get("split"), made if card.data.get("simulated") else None)
    ]


def has_learned(card: Checkpoint, split: str) -> bool:
    """Tell whether a checkpoint's weights learned from the parts of this fingerprint."""
    return any(entry["split"] == split for entry in find_learned(card))


def has_learned_from_patients(card: Checkpoint) -> bool:
    """Tell whether its weights learned from films that were not simulated, or may have."""
    return not card.data.get("simulated") and any(entry["version"] is None for entry in find_learned(card))


def learned_from(split: str | None, made: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return one entry of `find_learned`; `made`: the simulator's ``seed`` and ``version``."""
    version = (made or {}).get("version")
    return {"split": split, "seed": (made or {}).get("seed"), "version": version if version is None else str(version)}
