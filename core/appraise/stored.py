"""What was measured of all models before, as their cards, tables of scores and the table of heat maps hold it.

A model may be measured long after the others. So documents are drawn from what is stored, whoever was measured when.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.appraise.measures import measure_differences
from core.appraise.studies import FIRST_SEED, SEEDS_APART
from core.checkpoints import list_checkpoints, read_card, read_scores
from core.checkpoints.ensembles import ensemble_of
from core.errors import CheckpointError
from core.explain.comparison import MEASURED_NAME, MapRow, read_rows, weights_key
from core.metrics import ENSEMBLE, RESAMPLES, mean_scores
from core.results import RESULT_NAMES
from core.values import Checkpoint, Scores

TEST_FACTS = ("studies", "positives", "films", "size", "first_seed", "version", "resamples")
"""What a card says of the simulated studies that it was measured on, and how."""
GROUPS = ("kinds", "displacements", "subgroups")
_REAL = "real_"  # names of what was measured on films of patients begin with it


def stored_report(folder: Path) -> dict[str, Any]:
    """Return what ``appraise simulated`` measured of every model trained on simulated films, whenever it did.

    Parameters
    ----------
    folder : pathlib.Path
        Of checkpoints.

    Returns
    -------
    dict
        As of ``core.appraise.command.simulated_report``; the paired differences are measured anew.

    Raises
    ------
    CheckpointError
        There is no such model; one of them, or their mean where its points were chosen, was not measured, or on other
        studies than the rest.
    """
    entries = list_checkpoints(folder)
    broken = next((entry for entry in entries if entry.checkpoint is None), None)
    if broken:
        raise CheckpointError(f"All checkpoints must be whole, but {broken.id} is not: {broken.reason}")
    cards = [
        entry.checkpoint
        for entry in entries
        if entry.checkpoint.task == "fracture" and entry.checkpoint.data.get("simulated")
    ]
    if not cards:
        raise CheckpointError("A model trained on simulated films was expected, but there is none.")
    mean = ensemble_of(cards, folder)
    told = {card.id: card.data for card in cards}
    if len(mean.members) > 1 and mean.data:
        told[ENSEMBLE] = mean.data
    test = _find_test(told)
    scores = {card.id: _scores_of(card, folder, test) for card in cards}
    if ENSEMBLE in told:
        scores[ENSEMBLE] = mean_scores([scores[name] for name in mean.members], mean.study_calibration, ENSEMBLE)
    measured = {name: _measured(data, scores[name]) for name, data in told.items()}
    return {
        **test,
        "seed": (test["first_seed"] - FIRST_SEED) // SEEDS_APART,
        "checkpoints": measured,
        "mean_of": sorted(mean.members) if ENSEMBLE in measured else [],
        "differences": measure_differences(scores, test["resamples"]),
        "finders": _finders(cards, folder, test),
    }


def _find_test(told: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what all models, by name, say that they were measured on."""
    test: dict[str, Any] = {}
    for name, data in told.items():
        who = "the mean" if name == ENSEMBLE else name
        found = (data.get("results") or {}).get("simulated_test")
        if not found:
            raise CheckpointError(
                f"Results on simulated studies are wanted of every model, but {who} was not measured."
            )
        found = {"resamples": RESAMPLES, **found}
        if test and found != test:
            raise CheckpointError(
                f"All models must be measured on the same simulated studies in the same way, but {who} was not."
            )
        test = found
    return test


def _measured(data: Mapping[str, Any], scores: Scores) -> dict[str, Any]:
    """Return what was measured of one model, as of ``core.appraise.measures.measure_checkpoint``."""
    results, counts = data["results"], data.get("counts") or {}
    return {
        "results": {key: found for key, found in results.items() if key in RESULT_NAMES and not key.startswith(_REAL)},
        "negatives": int((scores.labels == 0).sum()),
        **{group: results.get(group) or {} for group in GROUPS},
        "films_refused": counts.get("test_films_refused", 0),
        "studies_refused": counts.get("test_patients_left_out", 0),
    }


def _scores_of(card: Checkpoint, folder: Path, test: Mapping[str, Any]) -> Scores:
    found = next((each for each in read_scores(folder / card.id) if each.split == "test"), None)
    left_out = (card.data.get("counts") or {}).get("test_patients_left_out", 0)
    if found is None or found.labels.size + left_out != test["studies"]:
        raise CheckpointError(f"The scores of {card.id} must be of the studies of its card, but they are of others.")
    return found


def _finders(cards: Sequence[Checkpoint], folder: Path, test: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what was measured of the finders that these models read with, on the same films."""
    found = {}
    for name in dict.fromkeys(card.region for card in cards if card.region):
        results = read_card(folder / name).data.get("results") or {}
        ours = {key: each for key, each in results.items() if key in RESULT_NAMES and each["n"] == test["films"]}
        if ours:
            found[name] = ours
    return found


def results_of(measured: Mapping[str, Any], test: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is stored of one model, or of the mean: what `stored_report` reads."""
    return {**measured["results"], **{group: measured[group] for group in GROUPS}, "simulated_test": dict(test)}


def stored_rows(cards: Sequence[Checkpoint], folder: Path) -> list[MapRow]:
    """Return what the folder's table holds of the heat maps of these models with the weights that they have now.

    Raises
    ------
    ExplanationError
        The table cannot be read.
    """
    place = Path(folder) / MEASURED_NAME
    weights = {card.id: weights_key(card) for card in cards}
    return [row for row in read_rows(place) if row.weights == weights.get(row.checkpoint_id)] if place.is_file() else []


def join_rows(
    rows: Sequence[MapRow], before: Sequence[MapRow], cards: Sequence[Checkpoint]
) -> tuple[list[MapRow], list[str]]:
    """Add to rows of heat maps those of other models that were measured before.

    Parameters
    ----------
    rows : sequence of MapRow
        Just measured: what was measured of the same models before is forgotten.
    before : sequence of MapRow
        Of :func:`stored_rows`.
    cards : sequence of Checkpoint
        Of all models there are.

    Returns
    -------
    rows : list of MapRow
        Model by model, as `cards` have them.
    missing : list of str
        Ids of the models that were not measured on the films of `rows`, or checked on others.
    """
    measured = {row.checkpoint_id for row in rows}
    wanted = {_films_of([row for row in rows if row.checkpoint_id == name]) for name in measured}
    joined: list[MapRow] = []
    missing = []
    for card in cards:
        ours = [row for row in (rows if card.id in measured else before) if row.checkpoint_id == card.id]
        joined += ours
        if not ours or _films_of(ours) not in wanted:
            missing.append(card.id)
    return joined, missing


def _films_of(rows: Sequence[MapRow]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the films of rows, and those on which maps were checked."""
    return frozenset(row.film for row in rows), frozenset(row.film for row in rows if row.level)
