"""The command line of ``core.evaluate``: options in, tables or one JSON object out."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from core.checkpoints.learned import has_learned, has_learned_from_patients
from core.datasets import DatasetIndex, Problem, describe, open_dataset, select_split
from core.datasets.body_parts import ways_to_take
from core.datasets.tables import NOT_GROUPS
from core.errors import CheckpointError, DatasetError, ScaphoidError, ScoresError
from core.evaluate.baselines import measure_baselines
from core.evaluate.options import DEFAULT_THRESHOLD, make_parser
from core.evaluate.report import (
    Apart,
    Findings,
    Measured,
    PointMeasured,
    Progress,
    refused_line,
    to_dict,
    to_text,
)
from core.evaluate.scoring import StudiesRead, read_studies
from core.metrics import (
    ENSEMBLE,
    MOST_VALUES,
    SCORES_COLUMNS,
    banded,
    compare_scores,
    evaluate_scores,
    mean_scores,
    rate_interval,
    read_scores,
    taken,
    write_scores,
)
from core.values import Checkpoint, Scores, Study

if TYPE_CHECKING:
    from core.reading import Reader

PROBLEMS_NAMED = 20


def threshold_of(card: Checkpoint | None) -> float:
    """Return the threshold from which a checkpoint suspects a fracture: its high-specificity point, or its only one.

    0.5 where there is no checkpoint, or no operating point.
    """
    points = card.operating_points if card else ()
    return _chosen({point.name: point.threshold for point in points})


def choose_checkpoints(asked: Sequence[str] | None, folder: Path | None = None) -> list[str | None]:
    """Return the ids of the checkpoints that were asked for, each once.

    Parameters
    ----------
    asked : sequence of str or None
        ``"all"`` stands for every checkpoint that reads films for fractures; nothing for the default one (None).
    folder : pathlib.Path, optional
        The folder of checkpoints; None: the project's own.

    Raises
    ------
    CheckpointError
        All were asked for, but one is broken or there is none.
    """
    if not asked:
        return [None]
    if ENSEMBLE not in asked:
        return list(dict.fromkeys(asked))
    from core.checkpoints import CHECKPOINTS, list_checkpoints

    entries = list_checkpoints(folder or CHECKPOINTS)
    broken = next((entry for entry in entries if entry.checkpoint is None), None)
    if broken:
        raise CheckpointError(f"All checkpoints must be whole to be measured, but {broken.id} is not: {broken.reason}")
    found = [entry.id for entry in entries if entry.checkpoint.task == "fracture"]
    if not found:
        raise CheckpointError("A checkpoint that reads films for fractures was expected, but there is none.")
    return found


def run(options: argparse.Namespace, open_reader: Callable[..., Reader] | None = None) -> int:
    """Carry out the command; return the exit status: 0, or 1 where any film could not be opened.

    Parameters
    ----------
    options : argparse.Namespace
        Of this module's command line.
    open_reader : callable or None
        (checkpoint id, and the folder of checkpoints where it is not the project's own) -> an object with `classifier`
        and `finder`; None: `core.reading.open_reader`.
    """
    if options.out and not options.out.absolute().parent.is_dir():  # told before the films are read, not after
        raise ScoresError("The table of scores must go into a folder that exists, but there is no such folder.")
    if options.explanations:
        return _measure_explanations(options, open_reader)
    findings, complete = (
        (_findings_from_table(options), True) if options.scores else _findings_from_films(options, open_reader)
    )
    if options.json:
        print(json.dumps(to_dict(findings), allow_nan=False))
    else:
        print(to_text(findings, options.resamples, options.seed))
    return 0 if complete else 1


def _measure_explanations(options: argparse.Namespace, open_reader: Callable[..., Reader] | None) -> int:
    from core.evaluate.explanations import run_explanations
    from core.explain import canonical_method

    if options.methods:
        options.methods = list(dict.fromkeys(map(canonical_method, options.methods)))
    index = open_dataset(options.data, options.format, options.region)
    ids = choose_checkpoints(options.checkpoint or [ENSEMBLE], options.checkpoints)
    _tell_about(index, index.marking_problems)
    if open_reader is None:
        from core.reading import import_tensorflow_quietly, open_reader

        import_tensorflow_quietly()
    return run_explanations(index, options, open_reader, ids)


# --- a table of scores -----------------------------------------------------------------------------------------------


def _findings_from_table(options: argparse.Namespace) -> Findings:
    card = None
    if options.checkpoint:
        from core.checkpoints import find_checkpoint, read_card

        place = [options.checkpoints] if options.checkpoints else []
        card = read_card(find_checkpoint(options.checkpoint[0], *place))
    scores = read_scores(options.scores, card.id if card else "", options.split or "")
    points = {point.name: point.threshold for point in card.operating_points} if card else {}
    return Findings((_measure(scores, points, options),))


# --- a dataset -------------------------------------------------------------------------------------------------------


def _findings_from_films(
    options: argparse.Namespace, open_reader: Callable[..., Reader] | None
) -> tuple[Findings, bool]:
    """Return what was measured, and whether every film could be opened."""
    from core.checkpoints import CHECKPOINTS
    from core.checkpoints.ensembles import ensemble_of

    index = open_dataset(options.data, options.format, options.region)
    studies = select_split(index, options.split)
    if options.films:
        studies = single_films(index, studies)
    if options.regions == "table" and not index.regions:
        raise DatasetError("A table that marks each wrist by x, y and side was expected, but the dataset has none.")
    groups = _values_apart(index, studies, options.apart) if options.apart else None
    ids = choose_checkpoints(options.checkpoint, options.checkpoints)
    _tell_about(index)
    if open_reader is None:
        from core.reading import import_tensorflow_quietly, open_reader

        import_tensorflow_quietly()
    place = [options.checkpoints] if options.checkpoints else []
    readers = [open_reader(checkpoint_id, *place) for checkpoint_id in ids]
    ways = ways_to_take(options.data, options.format, index)
    for reader in readers:
        _tell_what_was_learned(reader.classifier.checkpoint, ways, studies)
    cards = [reader.classifier.checkpoint for reader in readers]
    mean = ensemble_of(cards, options.checkpoints or CHECKPOINTS) if len(cards) > 1 else None
    read, failures = _read_all(index, studies, readers, options, mean and mean.members.keys())
    columns = dividing_columns(index, studies, {"probability", *(scores.checkpoint_id for scores in read.scores)})
    several, points = read.scores, [card.operating_points for card in cards]
    if mean:
        own = [scores for scores in several if scores.checkpoint_id in mean.members]
        several, points = (*several, mean_scores(own, mean.study_calibration)), [*points, mean.operating_points]
    several = tuple(with_columns(scores, columns) for scores in several)
    if options.out:
        _write_all(several, options.out)
    refused = read.refused if len(several) > 1 else read.refused[:1]
    measured = tuple(
        replace(_measure(scores, {point.name: point.threshold for point in own}, options, groups), refused=left_out)
        for scores, own, left_out in zip(several, points, refused, strict=True)
    )
    differences = {
        (first.checkpoint_id, second.checkpoint_id): compare_scores(first, second, options.resamples, options.seed)
        for first, second in combinations(several, 2)
    }
    baselines = ()
    if options.baselines:
        by_study = {study.id: facts for study, facts in zip(read.studies, read.facts, strict=True)}
        facts = [by_study[study_id] for study_id in several[-1].study_ids]
        baselines = measure_baselines(facts, several[-1], options.resamples, options.seed)
    found = None
    if read.wrists:
        from core.wrist import WITHIN

        patients = [wrist.patient_id for wrist in read.wrists]
        within = [wrist.error <= WITHIN for wrist in read.wrists]
        found = rate_interval(within, patients, options.resamples, options.seed)
    unit = "films" if options.films else "studies"
    members = tuple(sorted(mean.members)) if mean else ()
    findings = Findings(measured, differences, tuple(baselines), options.apart, found, unit, members)
    return findings, not (failures or index.problems)


def _tell_what_was_learned(
    card: Checkpoint, ways: Sequence[tuple[Mapping[str, Sequence[Study]], str]], studies: Sequence[Study]
) -> None:
    """Say how many of the studies that are to be measured the checkpoint learned from, or was calibrated on."""
    parts = next((parts for parts, split in ways if has_learned(card, split)), None)
    if parts is None:
        if has_learned_from_patients(card):
            print(
                f"note: {card.id} may have learned from films of patients; if these are among them, figures on them "
                "flatter it.",
                file=sys.stderr,
            )
        return
    patients = [study.patient_id for study in studies]
    seen = {name: {study.patient_id for study in parts[name]} for name in ("train", "valid")}
    trained, chosen = (sum(patient in seen[name] for patient in patients) for name in ("train", "valid"))
    if trained or chosen:
        print(
            f"note: {card.id} learned from patients of {trained:,} of these {len(studies):,} studies, and its limits "
            f"were chosen on those of {chosen:,}: figures on them flatter it.",
            file=sys.stderr,
        )


def _read_all(
    index: DatasetIndex,
    studies: Sequence[Study],
    readers: Sequence[Reader],
    options: argparse.Namespace,
    in_mean: Collection[str] | None,
) -> tuple[StudiesRead, int]:
    progress = Progress(len(studies), sys.stderr)
    failures = 0

    def tell(path: Path, sentence: str) -> None:
        nonlocal failures
        failures += 1
        progress.clear()
        print(f"{path}: {sentence}", file=sys.stderr, flush=True)

    read = read_studies(
        studies,
        readers,
        split=options.split or "all",
        marked=index.regions,
        use_marked=options.regions == "table",
        with_facts=options.baselines,
        wrist_pixels=options.wrist_pixels,
        read_unfit=options.read_unfit,
        in_mean=in_mean,
        on_failure=tell,
        on_progress=progress,
    )
    refused = read.refused_by_all
    if failures:
        left_out = len(studies) - len(read.studies) - refused.studies
        print(f"Films that could not be read: {failures}; studies left out for it: {left_out}.", file=sys.stderr)
    if refused.films:
        print(refused_line(refused), file=sys.stderr)
    unmarked = sum(path not in index.regions for study in read.studies for path in study.paths)
    if options.regions == "table" and unmarked:
        print(f"Films whose wrist the table does not mark: {unmarked}; theirs was found.", file=sys.stderr)
    return read, failures


def single_films(index: DatasetIndex, studies: Sequence[Study]) -> list[Study]:
    """Return each film as a study of its own, called by its path, with the film's own label where it is known."""
    return [
        replace(study, id=index.name_of(path), paths=(path,), label=index.film_labels.get(path, study.label))
        for study in studies
        for path in study.paths
    ]


def dividing_columns(
    index: DatasetIndex, studies: Sequence[Study], taken_names: Set[str] = frozenset()
) -> dict[str, dict[str, str]]:
    """Return what the dataset's table says of each study, in the columns that divide the studies into a few groups.

    What names a film or a patient, and where the wrist lies, does not, nor does a column with one of `taken_names`.
    Several values of a study's films are joined.

    Returns
    -------
    dict of str to dict of str to str
        Column -> study id -> value.
    """
    details = index.details()
    # A name, or whatever else is a patient's own, has about as many values as there are patients.
    most = min(MOST_VALUES, len({study.patient_id for study in studies}) // 2)
    columns = {}
    for name in dict.fromkeys(name for row in details.values() for name in row):
        if name in NOT_GROUPS or name in taken_names:
            continue
        values = {
            study.id: " and ".join(sorted({details.get(path, {}).get(name, "") for path in study.paths} - {""}))
            for study in studies
        }
        if 2 <= len(set(banded(name, tuple(values.values())))) <= most:
            columns[name] = values
    return columns


def with_columns(scores: Scores, columns: Mapping[str, Mapping[str, str]]) -> Scores:
    """Return the scores with what else is known of their studies."""
    known = {name: tuple(values[study] for study in scores.study_ids) for name, values in columns.items()}
    return replace(scores, columns=known)


def _values_apart(index: DatasetIndex, studies: Sequence[Study], column: str) -> dict[str, str]:
    """Return study id -> what the dataset's table says of it in `column`; several values of its films joined."""
    details = index.details()
    column = column.strip().lower()
    known = {name for row in details.values() for name in row}
    if column not in known:
        listed = f"it has: {', '.join(sorted(known))}" if known else "the dataset has no table"
        raise DatasetError(f"A column of the dataset's table was expected, but there is none of that name; {listed}.")
    groups = {}
    for study in studies:
        values = {details[path][column] for path in study.paths if path in details}
        groups[study.id] = " and ".join(sorted(value or "(empty)" for value in values)) or "(empty)"
    return groups


def _measure(
    scores: Scores, points: Mapping[str, float], options: argparse.Namespace, groups: Mapping[str, str] | None = None
) -> Measured:
    threshold = _chosen(points) if options.threshold is None else options.threshold
    evaluation = evaluate_scores(scores, threshold, options.resamples, options.seed)
    at_points = []
    for name, at in points.items():
        found = evaluate_scores(scores, at, options.resamples, options.seed)
        at_points.append(PointMeasured(name, at, found.sensitivity, found.specificity))
    apart = []
    positive = [study for study, label in zip(scores.study_ids, scores.labels, strict=True) if label and groups]
    for value in sorted({groups[study] for study in positive}):
        ours = np.array([groups[study] == value for study in scores.study_ids])
        kept = np.flatnonzero((scores.labels == 0) | ours)
        found = evaluate_scores(taken(scores, kept), threshold, options.resamples, options.seed)
        apart.append(Apart(value, found.positives, found.auc, found.sensitivity))
    return Measured(scores, evaluation, tuple(at_points), tuple(apart))


def _chosen(points: Mapping[str, float]) -> float:
    return points.get("high_specificity", next(iter(points.values()), DEFAULT_THRESHOLD))


def _write_all(several: Sequence[Scores], path: Path) -> None:
    """Write the studies' scores: of one checkpoint, or the mean and beside it each checkpoint in a column of its id.

    A cell stays empty where a checkpoint read none of the films of a study that the mean has.
    """
    if len(several) == 1:
        write_scores(several[0], path)
        return
    mean = several[-1]
    columns = [mean.study_ids, mean.patient_ids, mean.labels.tolist()]
    for scores in (mean, *several[:-1]):
        told = dict(zip(scores.study_ids, map(repr, scores.probabilities.tolist()), strict=True))
        columns.append([told.get(study, "") for study in mean.study_ids])
    try:
        with open(path, "w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow([*SCORES_COLUMNS, *(scores.checkpoint_id for scores in several[:-1]), *mean.columns])
            table.writerows(zip(*columns, *mean.columns.values(), strict=True))
    except OSError as error:
        raise ScoresError("A place where the table of scores can be written was expected, but it cannot be.") from error


def _tell_about(index: DatasetIndex, more: Sequence[Problem] = ()) -> None:
    """Say on stderr what was found, and what of it cannot be used."""
    print(describe(index.splits, index.problems), file=sys.stderr)
    problems = (*more, *index.problems)
    for problem in problems[:PROBLEMS_NAMED]:
        print(f"{problem.path}: {problem.reason}", file=sys.stderr)
    if len(problems) > PROBLEMS_NAMED:
        print(f"and {len(problems) - PROBLEMS_NAMED} more", file=sys.stderr)
    for note in index.notes:
        print(note, file=sys.stderr)
    sys.stderr.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run; a user's mistake is one line on stderr and exit status 1."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.scores and (options.out or options.format):
        parser.error("--out and --format belong to --data")
    if options.scores and (options.baselines or options.apart or options.wrist_pixels or options.regions != "found"):
        parser.error("--baselines, --apart, --wrist-pixels and --regions belong to --data")
    if options.scores and (options.region or options.read_unfit or options.films):
        parser.error("--region, --read-unfit and --films belong to --data")
    if options.scores and options.checkpoint and (len(options.checkpoint) > 1 or ENSEMBLE in options.checkpoint):
        parser.error("--scores takes one --checkpoint at most")
    if options.scores and options.explanations:
        parser.error("--explanations belongs to --data")
    if options.methods and not options.explanations:
        parser.error("--methods belongs to --explanations")
    if options.explanations and (options.films or options.baselines or options.apart or options.wrist_pixels):
        parser.error("--films, --baselines, --apart and --wrist-pixels do not belong to --explanations")
    if options.explanations and (options.regions != "found" or options.threshold is not None):
        parser.error("--regions and --threshold do not belong to --explanations")
    if options.seed < 0:
        parser.error("--seed must be 0 or more")
    try:
        return run(options)
    except ScaphoidError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1
