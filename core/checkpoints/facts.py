"""What a card tells of its data: entries that screens and commands read are of the kind that they take them for.

A card may hold facts that this version does not know; it shows none of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from core.errors import CheckpointError

LARGEST_FILM = 4096
"""Pixels a side of the largest film that a card may ask to be simulated."""


def check_facts(data: Mapping[str, Any]) -> None:
    """Refuse a card's ``data`` where an entry that is used is of another kind.

    Raises
    ------
    CheckpointError
    """
    for name, (kind, check) in _FACTS.items():
        if data.get(name) is not None and not check(data[name]):
            raise CheckpointError(f"What the card tells of its data must have as {name} {kind}, but it is another.")
    if "profile" in data:
        raise CheckpointError("A published card must not name a profile of saved limits, but it does.")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**12


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_list(value: Any, check: Callable[[Any], bool]) -> bool:
    return isinstance(value, list | tuple) and all(map(check, value))


def _has(table: Any, /, **checks: Callable[[Any], bool]) -> bool:
    """Tell whether a table's entries are as they must be, those that are there and not null."""
    return isinstance(table, Mapping) and all(
        table.get(name) is None or check(table[name]) for name, check in checks.items()
    )


def _is_interval(value: Any) -> bool:
    whole = {"value", "low", "high", "n"} <= _names(value) and _has(
        value, value=_is_number, low=_is_number, high=_is_number, n=_is_count
    )
    # Limits of what could not be measured say nothing.
    return whole and (value["value"] is not None or (value["low"] is None and value["high"] is None))


def _names(value: Any) -> set[str]:
    return set(value) if isinstance(value, Mapping) else set()


def _are_groups(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        _has(each, auc=_is_interval, peak=_is_interval) for each in value.values()
    )


def _is_simulation(value: Any) -> bool:
    return _has(
        value,
        size=lambda size: _is_count(size) and size <= LARGEST_FILM,
        seed=lambda seed: isinstance(seed, int) and not isinstance(seed, bool),
        version=lambda version: _is_count(version) or (_is_text(version) and len(version) < 100),
        bits=_is_text,
    )


def _are_results(value: Any) -> bool:
    tables = {"kinds": _are_groups, "displacements": _are_groups, "simulated_test": _is_simulation}
    return isinstance(value, Mapping) and all(
        tables[name](found) if name in tables else not {"value", "low", "high"} <= _names(found) or _is_interval(found)
        for name, found in value.items()
        if found is not None
    )


def _are_peaks(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        {"value", "n"} <= _names(peak)
        and _is_number(peak["value"])
        and _is_count(peak["n"])
        and _has(peak, films=_is_text, patients=_is_count)
        and _are_limits(peak.get("low"), peak["value"], peak.get("high"))
        for peak in value.values()
    )


def _are_limits(low: Any, value: float, high: Any) -> bool:
    """Tell whether limits are around a value, or there are none."""
    return (low is None and high is None) or (_is_number(low) and _is_number(high) and low <= value <= high)


def _are_counts(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_count, value.values()))


# Entry of a card's data -> what it must be where it is there, in words and as a check.
_FACTS: Mapping[str, tuple[str, Callable[[Any], bool]]] = MappingProxyType(
    {
        **dict.fromkeys(
            ("trained_on", "tested_on", "not_for"),
            ("text, or a list of sentences", lambda value: _is_text(value) or _is_list(value, _is_text)),
        ),
        **dict.fromkeys(("split", "imported_sha256", "limits"), ("text", _is_text)),
        **dict.fromkeys(("simulated", "patients_known"), ("true or false", _is_flag)),
        "learned_at": ("a number of pixels", lambda value: _is_count(value) and value > 0),
        "licences": ("a list of texts", lambda value: _is_list(value, _is_text)),
        "came_from": (
            "a list of checkpoints and what each was trained on",
            lambda value: _is_list(
                value,
                lambda each: {"id", "trained_on"} <= _names(each) and _has(each, id=_is_text, trained_on=_is_text),
            ),
        ),
        "learned": (
            "a list of datasets",
            lambda value: _is_list(
                value,
                lambda each: (
                    {"split", "seed", "version"} <= set(each if isinstance(each, Mapping) else ())
                    and _has(each, split=_is_text, version=_is_text)
                ),
            ),
        ),
        "counts": ("a table of counts", _are_counts),
        "results": ("a table of intervals", _are_results),
        "peaks": ("a table of peaks", _are_peaks),
        "simulator": ("a table of the simulator's settings", _is_simulation),
    }
)
