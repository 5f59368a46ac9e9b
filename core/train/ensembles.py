"""``python -m core.train.ensembles --data DIR``: calibrate the mean of the models in a folder and choose its points.

A mean of models is drawn to the middle wherever they differ, so it is calibrated on its own
(:func:`core.metrics.fit_mean_calibration`), and points that were chosen on one model do not hold for it. They are
chosen as a single model's are: on the held-out validation studies that every member has scored, and then, where films
of real wrists without a fracture are given, the threshold of suspicion is raised until at most 1 in 10 of those are
suspected, out of fold as well (see :mod:`core.train.normals`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from core.checkpoints import CHECKPOINTS, list_checkpoints, read_scores
from core.checkpoints.cards import check_id
from core.checkpoints.ensembles import UNTESTED, Ensemble, ensemble_card, ensemble_members, members_of, write_ensemble
from core.datasets import REGION_HELP
from core.errors import CheckpointError, ScaphoidError
from core.metrics import fit_mean_calibration, mean_scores
from core.reading import EnsembleReader, open_reader
from core.train.appraisal import LIMITS_RULE, choose_points, classifier_results
from core.train.normals import SENTENCE_BEGINS, describe, read_normals, results_at, set_caution, tell_raised
from core.train.publish import find_origins
from core.train.runs import Progress
from core.values import Checkpoint, Scores


def scores_of_mean(members: Sequence[Checkpoint], folder: Path) -> tuple[dict[str, Scores], dict[str, Any]]:
    """Return the mean's scores on ``valid`` and, where the members were tested on the same studies, on ``test``.

    They are calibrated, and the calibration, fitted to ``valid``, comes with them.

    A model that was appraised (``core.appraise``) was tested on other studies than one that is fresh from training.

    Raises
    ------
    CheckpointError
        The members' points were not chosen on the same studies.
    """
    found = {}
    for split in ("valid", "test"):
        several = [each for card in members for each in read_scores(folder / card.id) if each.split == split]
        studies = {tuple(sorted(zip(each.study_ids, each.labels.tolist(), strict=True))) for each in several}
        if split == "test" and len(studies) != 1:
            continue
        if len(several) != len(members) or len(studies) != 1:
            raise CheckpointError("The models of a mean must all be scored on the same studies, but these were not.")
        found[split] = several
    mean = mean_scores(found["valid"])
    fitted = fit_mean_calibration(mean.probabilities, mean.labels)
    return {split: mean_scores(several, fitted) for split, several in found.items()}, fitted


def open_members(members: Sequence[Checkpoint], folder: Path, study_calibration: Mapping[str, Any]) -> EnsembleReader:
    """Load exactly these models, whatever mean was measured before; each finder once."""
    from core.wrist import load_finder

    finder_of = lru_cache(lambda finder_id: load_finder(finder_id, folder))
    card = replace(ensemble_card(members), study_calibration=study_calibration)
    return EnsembleReader(tuple(open_reader(member.id, folder, finder_of) for member in members), card)


def measure_ensemble(
    folder: Path,
    normals: Path | None = None,
    source: str = "",
    licence: str = "",
    progress: Any = None,
    region: str | None = None,
    of: Sequence[str] = (),
) -> Ensemble:
    """Calibrate the mean of the models in a folder, choose its operating points and measure it.

    Parameters
    ----------
    folder : pathlib.Path
        Of checkpoints.
    normals : pathlib.Path or None
        Dataset of real films; only studies labelled 0 are read.
    source, licence : str
        What those films are, and a sentence on their licence.
    progress : callable, optional
        Called with (done, of) studies.
    region : str or None
        Part of the body whose films are read, see :func:`core.datasets.open_dataset`.
    of : sequence of str
        Ids of the models; by default all that look for the same finding.

    Raises
    ------
    CheckpointError, DatasetError
    """
    entries = list_checkpoints(folder)
    members = ensemble_members([entry for entry in entries if not of or entry.id in of])
    other = next((name for name in of if name not in {card.id for card in members}), None)
    if other:
        raise CheckpointError(
            f"Models that are here and look for the same finding were expected, but {check_id(other)} is none of them."
        )
    if len(members) < 2:
        raise CheckpointError(f"A mean needs two models or more, but there are {len(members)}.")
    scores, fitted = scores_of_mean(members, folder)
    points = choose_points(scores["valid"])
    first = members[0].data
    data: dict[str, Any] = {
        "trained_on": f"The mean of {len(members)} models: {', '.join(card.id for card in members)}.",
        "came_from": find_origins(members),
        "tested_on": str(first.get("tested_on", "")) if "test" in scores else UNTESTED,
        "not_for": str(first.get("not_for", "")),
        "limits": LIMITS_RULE,
        "simulated": all(bool(card.data.get("simulated")) for card in members),
        "licences": sorted({line for card in members for line in card.data.get("licences", ())}),
        "results": classifier_results(scores["test"], points) if "test" in scores else {},
    }
    if normals is not None:
        read = read_normals(open_members(members, folder, fitted), normals, progress, region)
        before = points[1].threshold
        points = set_caution(points, scores["valid"], read)
        told = describe(read, points, source, before, data["simulated"])
        data["tested_on"] = f"{_before_normals(data['tested_on'])} {told['sentence']}"
        data["results"] |= results_at(tuple(scores.values()), points[1].threshold) | told["results"]
        data = tell_raised(data, points[1].threshold > before)
        data["licences"] = sorted({*data["licences"], licence})
    return Ensemble(members_of(members), points, data, fitted)


def _before_normals(sentence: str) -> str:
    """Return what a member's card says of its test without what it says of its own threshold on real films."""
    return sentence.split(f" {SENTENCE_BEGINS}")[0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m core.train.ensembles",
        description="Calibrate the mean of the models in a folder and choose its operating points.",
    )
    parser.add_argument(
        "--of", metavar="ID", action="append", default=[], help="a model of the mean; several are named (default: all)"
    )
    parser.add_argument("--data", type=Path, help="dataset of real films; only studies labelled 0 are read")
    parser.add_argument("--region", metavar="R", help=REGION_HELP)
    parser.add_argument("--source", default="", help="what the films are, for the screen")
    parser.add_argument("--licence", default="", help="a sentence on the films' licence")
    parser.add_argument("--out", type=Path, default=CHECKPOINTS, help="folder of checkpoints")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        ensemble = measure_ensemble(
            options.out,
            options.data,
            options.source,
            options.licence,
            Progress("reading normals"),
            options.region,
            options.of,
        )
        write_ensemble(ensemble, options.out)
    except ScaphoidError as error:
        print(error, file=sys.stderr)
        return 1
    for point in ensemble.operating_points:
        print(f"{point.name}: {point.threshold:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
