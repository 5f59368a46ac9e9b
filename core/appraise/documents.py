"""Where results are kept: in cards, in tables of scores, and between markers in documents."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.checkpoints import CARD_NAME, SCORES_NAME, read_scores, scores_text, verify
from core.checkpoints.cards import write_card
from core.checkpoints.ensembles import UNTESTED
from core.checkpoints.files import write_whole
from core.errors import CheckpointError
from core.values import Checkpoint, Scores

_END = "<!-- end -->"
_TESTED_ON = re.compile(rf"^Tested on [\d,]+ films of [\d,]+ (other )?simulated patients|^{re.escape(UNTESTED)}")


def replace_between(text: str, name: str, table: str) -> str:
    """Return a document with what stands between ``<!-- results: NAME -->`` and the next ``<!-- end -->`` replaced.

    Raises
    ------
    CheckpointError
        The document has not exactly one such place.
    """
    start = f"<!-- results: {name} -->"
    if text.count(start) != 1:
        raise CheckpointError(f"A document must have one place for results, but this one has {text.count(start)}.")
    head, _, tail = text.partition(start)
    old, end, rest = tail.partition(_END)
    if not end or "<!-- results:" in old:
        raise CheckpointError("The place for results in a document must have an end, but it has none.")
    return f"{head}{start}\n{table.strip()}\n{end}{rest}"


def update_document(path: Path, name: str, table: str) -> bool:
    """Put a table into its place in a document; return whether there is such a place."""
    path = Path(path)
    if not path.is_file() or f"<!-- results: {name} -->" not in path.read_text("utf-8"):
        return False
    write_whole(path, replace_between(path.read_text("utf-8"), name, table))
    return True


def store_results(
    directory: Path, results: Mapping[str, Any], counts: Mapping[str, int] | None = None, scores: Scores | None = None
) -> Checkpoint:
    """Put results into a checkpoint's card, and the scores they were computed from into its table of scores.

    Parameters
    ----------
    directory : pathlib.Path
        The checkpoint's folder.
    results : Mapping
        Replace the card's results of the same names; its other results stay.
    counts : Mapping, optional
        ``test_films``, ``test_patients``, ... likewise; they also mend the numbers in the card's words, which are of
        the films that were not refused.
    scores : Scores, optional
        Of the split ``test``: they replace the scores of that split; those of the others stay to the last bit.

    Returns
    -------
    Checkpoint
        The card as it now is, its own hash renewed.

    Raises
    ------
    CheckpointError
        The checkpoint is broken, or the card would be refused.
    """
    directory = Path(directory)
    card = verify(directory)
    counts = dict(counts or {})
    data = {
        **card.data,
        "results": {**card.data.get("results", {}), **results},
        "counts": {**card.data.get("counts", {}), **counts},
    }
    data["tested_on"] = _tested_on(card.data.get("tested_on", ""), counts)
    text, changed = write_card(replace(card, data=data))
    # The scores first: where the power fails between the two, running the command again mends it.
    if scores is not None:
        write_whole(directory / SCORES_NAME, _scores_text(directory, scores))
    write_whole(directory / CARD_NAME, text)
    return changed


def store_ensemble_results(
    folder: Path, members: Mapping[str, str], results: Mapping[str, Any], counts: Mapping[str, int] | None = None
) -> bool:
    """Put results into the ensemble's file, where it is of exactly these (``core.checkpoints.ensembles.members_of``).

    `counts` are those of `store_results`.

    Returns
    -------
    bool
        Whether it is.
    """
    from core.checkpoints.ensembles import ENSEMBLE_NAME, read_ensemble

    ensemble = read_ensemble(folder)
    if ensemble is None or dict(ensemble.members) != dict(members):
        return False
    path = Path(folder) / ENSEMBLE_NAME
    content = json.loads(path.read_text("utf-8"))
    data = content.setdefault("data", {})
    data["results"] = {**data.get("results", {}), **results}
    data["counts"] = {**data.get("counts", {}), **(counts or {})}
    data["tested_on"] = _tested_on(data.get("tested_on", ""), counts or {})
    write_whole(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return True


def _tested_on(words: str, counts: Mapping[str, int]) -> str:
    """Return a card's words with the numbers of what was measured on: without what was refused."""
    if not {"test_films", "test_patients"} <= set(counts):
        return words
    films = counts["test_films"] - counts.get("test_films_refused", 0)
    patients = counts["test_patients"] - counts.get("test_patients_left_out", 0)

    def now(told: re.Match[str]) -> str:
        untested = told[0] == UNTESTED
        other = "other " if untested or told[1] else ""
        return f"Tested on {films:,} films of {patients:,} {other}simulated patients" + "." * untested

    return _TESTED_ON.sub(now, words)


def _scores_text(directory: Path, scores: Scores) -> str:
    kept = [each for each in read_scores(directory) if each.split != scores.split]
    return scores_text((*kept, scores))
