"""Between a checkpoint's card and its text: strict JSON in, a `Checkpoint` out, and the card's own hash.

A card is read as if a stranger had written it: every entry has its kind and range checked, and an entry this version
does not know is refused, because ignoring it could change what the checkpoint means.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from itertools import pairwise
from typing import Any

from core.backbones import SMALLEST_INPUT, find_backbone, find_scaling
from core.checkpoints.facts import check_facts
from core.errors import CheckpointError
from core.values import FITS, Checkpoint, Interval, OperatingPoint, TrainingSettings

FORMAT = 1
LARGEST_CARD_BYTES = 4_000_000
LARGEST_INPUT = 1024
TASKS = ("fracture", "wrist")
POSITIVE_LABELS = ("fracture", "abnormal")
OPERATING_POINTS = ("high_sensitivity", "high_specificity")

_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_id(checkpoint_id: Any) -> str:
    """Return the id of a checkpoint if it can be one: lower-case letters, digits and hyphens, at most 64.

    Raises
    ------
    CheckpointError
        It cannot. An id is a folder's name, so nothing that could lead out of the folder of checkpoints passes.
    """
    if isinstance(checkpoint_id, str) and len(checkpoint_id) <= 64 and _ID.fullmatch(checkpoint_id):
        return checkpoint_id
    raise CheckpointError("A checkpoint's id must be up to 64 lower-case letters, digits and hyphens, but it is not.")


def write_card(checkpoint: Checkpoint) -> tuple[str, Checkpoint]:
    """Return the card's text and the checkpoint it stands for, its `card_sha256` filled in.

    Raises
    ------
    CheckpointError
        The checkpoint would be refused when it is read back.
    """
    try:
        text = json.dumps({"format": FORMAT, **checkpoint.to_dict()}, default=_plain, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError("A card may hold text, numbers, lists and tables only, but it holds another.") from error
    content = json.loads(text)
    content["card_sha256"] = card_sha256(content)
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n", parse_card(content)


def read_card_text(text: bytes) -> Checkpoint:
    """Return the checkpoint whose card is `text`, its hash and every entry checked.

    Raises
    ------
    CheckpointError
        Not strict JSON, an entry missing, unknown or of the wrong kind, or altered after it was written.
    """
    try:
        content = strict_json(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError("The card must be JSON, but it cannot be read as that.") from error
    _expect(isinstance(content, dict), "The card must be a table of entries", content)
    form = content.get("format")
    if form != FORMAT or isinstance(form, bool):
        raise CheckpointError(f"The card must be of format {FORMAT}, but it is of format {_shown(form)}.")
    checkpoint = parse_card(content)
    try:
        altered = checkpoint.card_sha256 != card_sha256(content)
    except (ValueError, RecursionError) as error:  # texts that no file can hold, tables in tables without end
        raise CheckpointError("The card must be JSON, but it cannot be read as that.") from error
    if altered:
        raise CheckpointError("The card must be as it was published, but it has been altered since.")
    return checkpoint


def strict_json(text: bytes) -> Any:
    """Return what a JSON text holds: every name once in a table, every number one that a float can hold.

    Raises
    ------
    ValueError, RecursionError
        It is not such a text.
    """
    return json.loads(
        text.decode("utf-8"),
        object_pairs_hook=_without_doubles,
        parse_constant=_refuse_constant,
        parse_float=_finite,
        parse_int=_in_range,
    )


def card_sha256(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a card's entries but for ``card_sha256``, whatever their order and the text's layout."""
    hashed = {key: value for key, value in content.items() if key != "card_sha256"}
    text = json.dumps(hashed, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def parse_card(content: Mapping[str, Any]) -> Checkpoint:
    """Return the checkpoint that a card's entries describe.

    Raises
    ------
    CheckpointError
        As one sentence: which entry is missing, unknown, of the wrong kind or out of range.
    """
    # Cards from before there was a choice of scalings or looks, or studies were calibrated, have no entry for it.
    entries = {"scaling": "keras", "looks": 1, "study_calibration": None} | {
        key: value for key, value in content.items() if key != "format"
    }
    _check_keys("card", Checkpoint, entries)
    check_id(entries["id"])
    for name, (kind, check) in _ENTRIES.items():
        _expect(check(entries[name]), f"The card's {name} must be {kind}", entries[name])
    find_backbone(entries["backbone"])
    find_scaling(entries["backbone"], entries["scaling"])
    if entries["looks"] > 2:
        wrist, whole = entries["task"] == "wrist", entries["region"] is None
        _expect(not wrist, "A wrist finder must look closer once or twice", entries["looks"])
        _expect(not whole, "A checkpoint that reads whole films must look once or, mirrored, twice", entries["looks"])
    if entries["fit"] != "pad":
        whole = entries["task"] == "fracture" and entries["region"] is None
        _expect(whole, "A checkpoint that reads the wrist's square, or finds it, must keep proportions", entries["fit"])
    points = parse_points(entries["operating_points"])
    if entries["calibration"] is not None and entries["task"] == "fracture":
        check_calibration(entries["calibration"])
    if entries["study_calibration"] is not None:
        _expect(entries["task"] == "fracture", "A wrist finder's studies must not be calibrated", "study_calibration")
        check_calibration(entries["study_calibration"])
    check_facts(entries["data"])
    settings = entries["settings"]
    return Checkpoint(**{**entries, "operating_points": points, "settings": settings and _parse_settings(settings)})


def calibrations_of(card: Checkpoint) -> dict[str, Any]:
    """Return what a card's probabilities hang on beside its weights: its calibration and, if any, that of studies."""
    of_studies = {"study_calibration": dict(card.study_calibration)} if card.study_calibration else {}
    return dict(card.calibration or {}) | of_studies


def parse_points(content: Any) -> tuple[OperatingPoint, ...]:
    """Return the operating points that a card's list describes.

    Raises
    ------
    CheckpointError
        One is malformed or out of range, there twice, or they do not rise in threshold.
    """
    _expect(isinstance(content, list), "The card's operating_points must be a list", content)
    points = tuple(_parse_point(point) for point in content)
    thresholds = [point.threshold for point in points]
    _expect(thresholds == sorted(thresholds), "The card's operating points must rise in threshold", thresholds)
    _expect(len({p.name for p in points}) == len(points), "Each operating point must be there once", len(points))
    return points


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 1000


def _is_whole(value: Any, low: int, high: float = math.inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_number(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _is_table_of_text(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _one_of(choices: tuple[str, ...]) -> tuple[str, Callable[[Any], bool]]:
    return " or ".join(choices), lambda value: isinstance(value, str) and value in choices


# Entry of a card -> what it must be, in words and as a check. The id and what lies deeper is checked by parse_card.
_ENTRIES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "title": ("text", _is_text),
    "task": _one_of(TASKS),
    "backbone": ("text", _is_text),
    "feature_layer": ("text", _is_text),
    "input_size": (
        f"a whole number of pixels from {SMALLEST_INPUT} to {LARGEST_INPUT}",
        lambda value: _is_whole(value, SMALLEST_INPUT, LARGEST_INPUT),
    ),
    "fit": _one_of(FITS),
    "region": (
        "the id of a wrist finder or nothing",
        lambda value: value is None or (isinstance(value, str) and len(value) <= 64 and bool(_ID.fullmatch(value))),
    ),
    "looks": ("a whole number from 1 to 6", lambda value: _is_whole(value, 1, 6)),
    "location_head": ("true or false", lambda value: isinstance(value, bool)),
    "positive_label": _one_of(POSITIVE_LABELS),
    "operating_points": ("a list", lambda value: isinstance(value, list)),
    "calibration": ("a table or nothing", lambda value: value is None or isinstance(value, dict)),
    "study_calibration": ("a table or nothing", lambda value: value is None or isinstance(value, dict)),
    "settings": ("a table or nothing", lambda value: value is None or isinstance(value, dict)),
    "data": ("a table", lambda value: isinstance(value, dict)),
    "versions": ("a table of text", _is_table_of_text),
    "weights_sha256": ("64 hexadecimal digits", _is_sha256),
    "card_sha256": ("64 hexadecimal digits", _is_sha256),
}

_SETTINGS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "backbone": ("text", _is_text),
    "weights": ("text or nothing", lambda value: value is None or _is_text(value)),
    "input_size": ("a whole number above 0", lambda value: _is_whole(value, 1)),
    "epochs": ("a whole number, 0 or more", lambda value: _is_whole(value, 0)),
    "batch_size": ("a whole number above 0", lambda value: _is_whole(value, 1)),
    "learning_rate": ("a number, 0 or more", lambda value: _is_number(value, 0)),
    "warmup_epochs": ("a number, 0 or more", lambda value: _is_number(value, 0)),
    "weight_decay": ("a number, 0 or more", lambda value: _is_number(value, 0)),
    "location_weight": ("a number, 0 or more", lambda value: _is_number(value, 0)),
    "label_smoothing": ("a number from 0 to 1", lambda value: _is_number(value, 0, 1)),
    "seed": ("a whole number, 0 or more", lambda value: _is_whole(value, 0)),
    "preset": ("text", _is_text),
    "extra": ("a table", lambda value: isinstance(value, dict)),
}


def _parse_settings(content: dict[str, Any]) -> TrainingSettings:
    _check_keys("card's settings", TrainingSettings, content)
    for name, (kind, check) in _SETTINGS.items():
        _expect(check(content[name]), f"The settings' {name} must be {kind}", content[name])
    return TrainingSettings(**content)


def _parse_point(content: Any) -> OperatingPoint:
    _expect(isinstance(content, dict), "An operating point must be a table", content)
    _check_keys("operating point", OperatingPoint, content)
    kind, check = _one_of(OPERATING_POINTS)
    _expect(check(content["name"]), f"An operating point's name must be {kind}", content["name"])
    threshold = content["threshold"]
    _expect(_is_number(threshold, 0, 1), "A threshold must be a number from 0 to 1", threshold)
    return OperatingPoint(
        content["name"], threshold, _parse_share(content["sensitivity"]), _parse_share(content["specificity"])
    )


def _parse_share(content: Any) -> Interval:
    """Return the interval of a share of cases: each of its numbers a probability."""
    _expect(isinstance(content, dict), "An interval must be a table", content)
    _check_keys("interval", Interval, content)
    for name in ("value", "low", "high"):
        _expect(_is_number(content[name], 0, 1), f"An interval's {name} must be from 0 to 1", content[name])
    _expect(content["low"] <= content["high"], "An interval's low end must not be above its high end", content["low"])
    _expect(_is_whole(content["n"], 0), "An interval's n must be a whole number of cases", content["n"])
    return Interval(**content)


def check_calibration(calibration: Any) -> None:
    """Refuse what is not a calibration of logits, see ``core.metrics.calibrate``.

    Raises
    ------
    CheckpointError
        It is of another kind, or holds a value that is out of range.
    """
    _expect(isinstance(calibration, dict), "A calibration must be a table", calibration)
    if calibration.get("method") == "isotonic":
        _check_isotonic(calibration)
        return
    sentence = "The calibration must be a method, temperature or platt, a temperature above 0 and for platt a bias"
    method, temperature = calibration.get("method"), calibration.get("temperature")
    _expect(method in ("temperature", "platt"), sentence, method)
    _expect(_is_number(temperature, 0) and temperature > 0, sentence, temperature)
    names = {"method", "temperature"} | ({"bias"} if method == "platt" else set())
    _expect(set(calibration) == names, sentence, sorted(calibration))
    _expect(method != "platt" or _is_number(calibration["bias"]), sentence, calibration.get("bias"))


def _check_isotonic(calibration: dict[str, Any]) -> None:
    sentence = "An isotonic calibration must be as many rising logits as probabilities that never fall"
    logits, probabilities = calibration.get("logits"), calibration.get("probabilities")
    _expect(set(calibration) == {"method", "logits", "probabilities"}, sentence, sorted(calibration))
    for values in (logits, probabilities):
        _expect(isinstance(values, list) and bool(values) and all(map(_is_number, values)), sentence, values)
    _expect(len(logits) == len(probabilities), sentence, len(logits))
    _expect(all(low < high for low, high in pairwise(logits)), sentence, logits)
    _expect(all(low <= high for low, high in pairwise(probabilities)), sentence, probabilities)
    _expect(probabilities[0] >= 0 and probabilities[-1] <= 1, sentence, probabilities)


def _check_keys(what: str, kind: type, content: Mapping[str, Any]) -> None:
    """Refuse a table that lacks an entry of the dataclass `kind`, or has one that `kind` does not know."""
    known = [field.name for field in fields(kind)]
    missing = [name for name in known if name not in content]
    unknown = [name for name in content if name not in known]
    if missing:
        raise CheckpointError(f"The {what} must have the entry {missing[0]}, but it has not.")
    if unknown:
        raise CheckpointError(f"The {what} has the entry {_shown(unknown[0])}, which this version does not know.")


def _expect(holds: bool, sentence: str, got: Any) -> None:
    if not holds:
        raise CheckpointError(f"{sentence}, but it is {_shown(got)}.")


def _shown(value: Any) -> str:
    """Return a short, harmless form of a stranger's value: numbers and plain words as they are, else only the kind."""
    if value is None:
        return "nothing"
    if isinstance(value, bool | int | float) and len(str(value)) <= 24:
        return str(value).lower()
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_ .-]{1,40}", value):
        return repr(value)
    return {str: "another text", dict: "a table", list: "a list"}.get(type(value), "something else")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("an entry occurs twice")
    return dict(pairs)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def _in_range(text: str) -> int:
    if len(text) > 20:
        raise ValueError("a whole number is too large")
    return int(text)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _plain(value: Any) -> Any:
    """Return what JSON can hold of a NumPy number or array, a path or a mapping."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(type(value).__name__)
