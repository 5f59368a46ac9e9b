"""Readings -> plain JSON values and plain sentences. What a screen says and what a file says come from here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from core import __version__
from core.checkpoints import CHECKPOINTS, read_scores
from core.errors import CheckpointError
from core.explain import METHODS
from core.explain.peaks import is_evidence
from core.metrics import (
    METRIC_NAMES,
    RATES,
    WITHOUT_THRESHOLD,
    Resamples,
    cases_like,
    evaluate,
    interval_dict,
    mean_scores,
)
from core.quality import REFUSED_BELOW
from core.reading import FilmReading, StudyReading
from core.values import Checkpoint, Explanation, Interval, Scores, with_article

BOTH_WRISTS = (
    "A study is of one wrist, but these films are of a left and of a right one: an answer for both together would say "
    "nothing of either. Open each wrist's films by themselves."
)


def film_result(name: str, film: FilmReading, reading: StudyReading) -> dict[str, Any]:
    """Return one film's result as plain JSON values.

    `probability` and `logit` are None and `decision` is ``"not read"`` where the film is not fit to be read;
    `quality` says why.
    """
    prediction = film.prediction
    row: dict[str, Any] = {"file": name}
    row |= _verdict(prediction.probability if prediction else None, reading.checkpoint)
    row["logit"] = prediction.logit if prediction else None
    row["quality"] = {"level": film.quality.level, "reasons": list(film.quality.reasons)}
    row["region"] = _region_values(film)
    row["radiograph"] = film.radiograph.id
    row["warnings"] = list(film.radiograph.warnings)
    return row


def reading_result(names: Sequence[str], reading: StudyReading) -> dict[str, Any]:
    """Return what one checkpoint says of a study; `file` lists its films, `driver` the one with most evidence."""
    card, driver = reading.checkpoint, reading.driver
    row: dict[str, Any] = {"study": True, "file": list(names)}
    row |= _verdict(reading.probability, card)
    if reading.of_both_wrists:
        row["reasons"] = [BOTH_WRISTS]
    row["films_read"] = sum(film.prediction is not None for film in reading.films)
    row["driver"] = names[reading.films.index(driver)] if driver else None
    row["seconds"] = round(reading.seconds, 4)
    row["weights_sha256"] = card.weights_sha256
    row["calibration"] = {"films": _table(card.calibration), "study": _table(card.study_calibration)}
    row["wrist_finder"] = card.region
    row["may_miss"] = list(weak_kinds(measured_cards(reading)))
    if reading.members:
        row["models"] = member_results(reading)
    return row


def _table(calibration: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if calibration is None else dict(calibration)


def member_results(reading: StudyReading) -> list[dict[str, Any]]:
    """Return what each model of a mean says of the study; empty where one checkpoint read alone."""
    return [
        {
            "checkpoint": member.checkpoint.id,
            "title": member.checkpoint.title,
            "probability": member.probability,
            "decision": member.decision.text if member.decision else "not read",
            "weights_sha256": member.checkpoint.weights_sha256,
        }
        for member in reading.members
    ]


def study_result(names: Sequence[str], readings: Sequence[StudyReading]) -> dict[str, Any]:
    """Return everything about a study that a colleague needs to check it: every checkpoint, every film, versions."""
    checkpoints = []
    for reading in (each for given in readings for each in (given, *given.members)):
        films = [film_result(name, film, reading) for name, film in zip(names, reading.films, strict=True)]
        checkpoints.append(reading_result(names, reading) | {"films": films})
    return {
        "notice": "For research and education; not a medical device.",
        "checkpoints": checkpoints,
        "versions": running_versions(),
    }


def running_versions() -> dict[str, str]:
    """Return the versions of Scaphoid and of the packages a result depends on, as they run now."""
    versions = {"scaphoid": __version__}
    for package in ("tensorflow", "keras", "numpy", "opencv-python-headless", "pydicom", "pillow"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # For example another build of TensorFlow or OpenCV.
            versions[package] = "unknown"
    return versions


WELL_TOLD = 0.8
"""Of a kind of fracture whose AUC was not shown to be higher, a model is said to miss it."""


def cases_sentence(reading: StudyReading, folder: Path = CHECKPOINTS) -> str:
    """Say in words what a study's probability means: what became of the studies that scored like it."""
    card = reading.checkpoint
    if reading.probability is None:
        return "No film was read."
    try:
        if reading.members:
            scores = _mean_scores(card, [held_out_scores(member.checkpoint, folder) for member in reading.members])
        else:
            scores = held_out_scores(card, folder)
    except CheckpointError as error:
        return f"What this probability means cannot be said: {error}"
    if scores is None:
        return "There are no test studies to compare this probability with."
    like = cases_like(scores, reading.probability)
    kind = "simulated test studies" if card.data.get("simulated") else "test studies"
    label = "a fracture" if card.positive_label == "fracture" else "an abnormality"
    interval = f"95% interval {100 * like.rate.low:.0f} to {100 * like.rate.high:.0f}%"
    return (
        f"Of {like.n} {kind} that scored like this one ({100 * like.low:.0f} to {100 * like.high:.0f}%), "
        f"{like.positives} had {label} ({100 * like.rate.value:.0f}%, {interval}). Of all {scores.labels.size:,} test "
        f"studies {100 * scores.labels.mean():.0f}% had one: where they are rarer, the same score means less."
    )


def reach_sentence(reading: StudyReading) -> str:
    """Say that a checkpoint which reads the wrist's square has not read the rest of a film; "" where none was read so.

    Forearms and hands are often on the same film, and a break in them is nothing that such a model looks for.
    """
    films = [film for film in reading.films if film.prediction is not None and film.region is not None]
    if not films:
        return ""
    squares = "the square on the wrist was" if len(films) == 1 else "the squares on the wrist were"
    return f"Only {squares} read: a break elsewhere on the film is not looked for."


def map_sentence(card: Checkpoint) -> str:
    """Say that a heat map is of one look at a film, where the answer is the mean of several; "" where it is of one."""
    if card.looks < 2:
        return ""
    return f"The answer is the mean of {card.looks} slightly different looks at the film; a map is of the first."


def measured_cards(reading: StudyReading) -> list[Checkpoint]:
    """Return the cards whose tests tell what a reading may miss.

    Of a mean its own where its kinds of fracture were measured; else those of all its models: it sees no more than was
    shown.
    """
    card = reading.checkpoint
    kinds = ((card.data.get("results") or {}).get("kinds") or {}).values()
    if not reading.members or any((each.get("auc") or {}).get("low") is not None for each in kinds):
        return [card]
    return [member.checkpoint for member in reading.members]


def weak_kinds(cards: Iterable[Checkpoint]) -> dict[str, Mapping[str, Any]]:
    """Return the kinds of fracture that some model was not shown to tell well from none, the worst first.

    That is where the lower limit of the AUC's 95% interval, against studies without a fracture, is below `WELL_TOLD`.

    Returns
    -------
    dict
        Name -> AUC; of several models the lowest.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for card in cards:
        for kind, measured in ((card.data.get("results") or {}).get("kinds") or {}).items():
            auc, name = measured.get("auc") or {}, _kind_words(kind)
            if auc.get("low") is not None and auc["low"] < min(WELL_TOLD, found.get(name, {"low": 1.0})["low"]):
                found[name] = auc
    return dict(sorted(found.items(), key=lambda item: item[1]["value"]))


def weak_sentence(cards: Iterable[Checkpoint], numbers: bool = False) -> str:
    """Say which kinds of fracture the models may well miss; "" where there is none, or none was measured."""
    cards = list(cards)
    weak = weak_kinds(cards)
    if not weak:
        return ""
    named = [
        f"{kind} ({auc['value']:.2f}, {auc['low']:.2f} to {auc['high']:.2f}, n={auc['n']})" if numbers else kind
        for kind, auc in weak.items()
    ]
    tests = "tests on simulated studies" if all(card.data.get("simulated") for card in cards) else "tests"
    what = " (AUC with 95% interval; 0.5 is chance, 1 is all)" if numbers else ""
    return f"May well miss, by its {tests}{what}: {', '.join(named)}."


def kind_rows(card: Checkpoint) -> list[dict[str, str]]:
    """Return how well the card says each kind of fracture is told from none, the worst first.

    Where its location head was measured: also on which share of the films with one its highest point lies inside it.
    """
    return _part_rows(card, "kinds", "fracture", worst_first=True)


def displacement_rows(card: Checkpoint) -> list[dict[str, str]]:
    """Return the same by how far the fracture is displaced, the least first."""
    return _part_rows(card, "displacements", "displaced")


def _part_rows(card: Checkpoint, parts: str, heading: str, worst_first: bool = False) -> list[dict[str, str]]:
    measured = ((card.data.get("results") or {}).get(parts) or {}).items()
    known = [(name, found) for name, found in measured if (found.get("auc") or {}).get("value") is not None]
    if worst_first:
        known.sort(key=lambda item: item[1]["auc"]["value"])
    located = any((found.get("peak") or {}).get("value") is not None for _, found in known)
    rows = []
    for name, found in known:
        row = {heading: _kind_words(name), **_counted(found["auc"], "AUC", "studies")}
        rows.append(row | _counted(found.get("peak") or {}, "peak inside it", "films") if located else row)
    return rows


def _counted(found: Mapping[str, Any], name: str, of: str) -> dict[str, str]:
    words = _interval_words({"value": None, "low": None, "high": None} | dict(found))
    return {name: "-" if words["value"] == "-" else f"{words['value']} ({words['95% interval']})", of: words["n"]}


def _kind_words(kind: str) -> str:
    return (
        kind.replace("_", " ")
        .replace("salter harris 2", "Salter-Harris II")
        .replace("colles", "Colles")
        .replace("smith", "Smith")
    )


def evidence_sentence(explanation: Explanation, card: Checkpoint) -> tuple[str, bool]:
    """Say how a heat map may be read, and whether it is evidence at all. The raw peak decides, not the colours.

    Where the card knows how strong the peak was on test films without a fracture, a peak no stronger than 9 in 10 of
    those is not called evidence.

    Returns
    -------
    sentence : str
    positive : bool
        False where the map is not to be shown as evidence.
    """
    label = card.finding
    a_label = with_article(label)
    if not explanation.peak > 0:
        return f"No positive evidence: nothing on the film speaks {explanation.target} {label} to this method.", False
    if not METHODS[explanation.method].evidence:
        return "This method draws a map on every film, also where there is nothing. A hint, not a proof.", True
    peaks = card.data.get("peaks") or {}
    usual = peaks.get(explanation.method)
    if peaks and not usual and explanation.target == "for":
        return (
            f"How strong this method's maps are on films without {a_label} was not measured for this model, so this "
            "one may be no stronger. A hint, not a proof."
        ), True
    if usual and explanation.target == "for":
        people = f" of {usual['patients']} patients" if "patients" in usual else ""
        seen = f"on 9 in 10 {usual.get('films', 'films')} without {a_label} (n={usual['n']}{people})"
        near = usual.get("low") is not None and usual["low"] <= explanation.peak <= usual["high"]
        if near and not is_evidence(explanation, card):
            return f"No clear evidence: what speaks for {a_label} here is about as strong as {seen}.", False
        if near:
            return (
                f"What speaks for {a_label} here is hardly stronger than {seen}: so few cannot tell whether it is. A "
                "heat map is a hint, not a proof."
            ), True
        if not is_evidence(explanation, card):
            return f"No positive evidence: what speaks for {a_label} here is no stronger than {seen}.", False
        return f"What speaks for {a_label} here is stronger than {seen}. A heat map is a hint, not a proof.", True
    return (
        "One method's estimate of what weighed in the answer; how strong such maps usually are was not measured. A "
        "hint, not a proof."
    ), True


def held_out_scores(card: Checkpoint, folder: Path = CHECKPOINTS) -> Scores | None:
    """Return the checkpoint's scores on the studies kept for testing alone, or None where it has none.

    Raises
    ------
    CheckpointError
        If its table of scores is damaged.
    """
    path = folder / card.id / "scores.csv"
    return _held_out(path.parent, path.stat().st_mtime_ns) if path.is_file() else None


def _mean_scores(card: Checkpoint, parts: Sequence[Scores | None]) -> Scores | None:
    """Return the scores of a mean from those of its models; None unless all were measured on the same studies."""
    tables = [
        dict(zip(part.study_ids, zip(part.labels, part.probabilities, strict=True), strict=True))
        for part in parts
        if part
    ]
    if not tables or len(tables) < len(parts) or any(table.keys() != tables[0].keys() for table in tables):
        return None
    if any(table[key][0] != tables[0][key][0] for table in tables for key in table):
        return None
    return mean_scores(parts, card.study_calibration, card.id)


@lru_cache(maxsize=16)
def _held_out(directory: Path, _modified: int) -> Scores | None:
    return next((scores for scores in read_scores(directory) if scores.split == "test"), None)


def _verdict(probability: float | None, card: Checkpoint) -> dict[str, Any]:
    from core.classifier import decide

    decision = None if probability is None else decide(probability, card)
    thresholds = {point.name: point.threshold for point in card.operating_points}
    return {
        "probability": probability,
        "decision": decision.text if decision else "not read",
        "threshold": thresholds.get("high_specificity", next(iter(thresholds.values()), None)),
        "thresholds": thresholds,
        "profile": (card.data.get("profile") or {}).get("name"),
        "positive_label": card.positive_label,
        "checkpoint": card.id,
    }


def _region_values(film: FilmReading) -> dict[str, Any] | None:
    region = film.region
    if region is None:
        return None
    numbers = {name: round(float(getattr(region, name)), 3) for name in ("x", "y", "side", "angle", "confidence")}
    return numbers | {"set_by_reader": region.set_by_reader}


RESULT_NAMES: Mapping[str, str] = MappingProxyType(
    {
        **METRIC_NAMES,
        "ece_by_chance": "Calibration error that chance alone would give",
        "sensitivity_at_high_sensitivity": "Sensitivity at the lower threshold",
        "specificity_at_high_sensitivity": "Specificity at the lower threshold",
        "sensitivity_at_high_specificity": "Sensitivity at the upper threshold",
        "specificity_at_high_specificity": "Specificity at the upper threshold",
        "location_peak_in_mask": "Location head: peak inside the fracture",
        "location_peak_within_8_pixels": "Location head: peak within 8 pixels of it",
        "centre_of_square_in_mask": "The square's centre instead: inside",
        "centre_of_square_within_8_pixels": "The square's centre instead: within 8 pixels",
        "real_normals_called_suspected": "Without a fracture, called suspected",
        "real_normals_called_uncertain": "Without a fracture, called uncertain",
        "real_normals_called_not_seen": "Without a fracture, called not seen",
        "centre_within_15_percent": "Centre within 15% of the square's side",
        "side_within_a_quarter": "Side within a quarter",
        "direction_within_15_degrees": "Direction within 15 degrees",
        "wrists_confident_enough_to_be_read": f"Wrists with a confidence of {REFUSED_BELOW} or more, below which no "
        "film is read",
        "wrists_with_confidence_of_half": "Wrists with a confidence of 0.5 or more",
        "films_without_wrist_with_confidence_of_half": "Films without a wrist with 0.5 or more",
        "centre_error_median": "Centre's error in sides of the square, median",
        "centre_error_90th_percentile": "The same, 90th percentile",
    }
)
"""What a card's results are called."""


def result_rows(card: Checkpoint, drawn: Resamples | None = None) -> list[dict[str, str]]:
    """Return what the card says was measured, one row an estimate: name, value, 95% interval, n and kind of films.

    Where its scores were resampled, what they tell is measured again, so that it reads the same as everywhere else: a
    card may hold intervals over other resamples of the same patients.
    """
    rows, again = [], _measured_again(card, drawn) if drawn else {}
    for name, found in (card.data.get("results") or {}).items():
        found = again.get(name, found)
        if isinstance(found, Mapping) and {"value", "low", "high"} <= set(found):
            simulated = card.data.get("simulated") and not name.startswith("real_")
            words = RESULT_NAMES.get(name, name.replace("_", " "))
            rows.append({"": words, **_interval_words(found), "films": "simulated" if simulated else "real"})
    return rows


def _measured_again(card: Checkpoint, drawn: Resamples) -> dict[str, dict[str, float | int | None]]:
    """Return the estimates of a card's results that its scores tell, by the names they have there."""
    at = {point.name: evaluate(drawn, point.threshold) for point in card.operating_points}
    found = {f"{rate}_at_{name}": getattr(each, rate) for name, each in at.items() for rate in RATES}
    any_point = next(iter(at.values()), None) or evaluate(drawn, 0.5)
    found |= {name: getattr(any_point, name) for name in WITHOUT_THRESHOLD}
    return {name: interval_dict(interval) for name, interval in found.items()}


def model_names(cards: Iterable[Checkpoint]) -> dict[str, str]:
    """Return a name for people for each card's id: its title, and its id too where another has the same title."""
    cards = list(cards)
    shared = {title for title, n in Counter(card.title for card in cards).items() if n > 1}
    return {card.id: f"{card.title} ({card.id})" if card.title in shared else card.title for card in cards}


def comparison_rows(cards: Sequence[Checkpoint]) -> list[dict[str, str]]:
    """Return what several cards say was measured: one row an estimate and kind of films, one column a model."""
    names, rows = model_names(cards), {}
    for card in cards:
        for found in result_rows(card):
            row = rows.setdefault((found[""], found["films"]), {"": found[""], "films": found["films"]})
            row[names[card.id]] = f"{found['value']} ({found['95% interval']}), n={found['n']}"
    return list(rows.values())


def operating_point_rows(card: Checkpoint) -> list[dict[str, str]]:
    """Return the card's operating points in words, one row a point."""
    words = {"high_sensitivity": "Below: none seen", "high_specificity": "From here on: suspected"}
    return [
        {
            "": words.get(point.name, point.name),
            "threshold": f"{100 * point.threshold:.1f}%",
            "sensitivity": _short(point.sensitivity),
            "specificity": _short(point.specificity),
        }
        for point in card.operating_points
    ]


def _short(interval: Interval) -> str:
    return f"{interval.value:.2f} ({interval.low:.2f} to {interval.high:.2f}, n={interval.n})"


def _interval_words(found: Mapping[str, Any]) -> dict[str, str]:
    number = lambda value: "-" if value is None else f"{value:.3f}"  # noqa: E731
    return {
        "value": number(found["value"]),
        "95% interval": f"{number(found['low'])} to {number(found['high'])}",
        "n": str(found.get("n", "")),
    }
