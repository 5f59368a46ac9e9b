"""The command line of ``core.appraise``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.appraise.documents import store_ensemble_results, store_results, update_document
from core.appraise.kept import Kept
from core.appraise.maps import measure_readers, outlined_films
from core.appraise.measures import measure_checkpoint, measure_differences, measure_finder
from core.appraise.quick import measure_likeness, one_of_each, summarise_likeness
from core.appraise.reading import Reading, read_all
from core.appraise.steadiness import measure_steadiness
from core.appraise.stored import TEST_FACTS, join_rows, results_of, stored_report, stored_rows
from core.appraise.studies import FILM_SIZE, SEEDS_APART, make_studies, seeds_of
from core.appraise.tables import (
    explanations_tables,
    quick_tables,
    short_explanations_table,
    short_simulated_table,
    simulated_tables,
    steadiness_tables,
)
from core.checkpoints import CHECKPOINTS, read_card
from core.checkpoints.ensembles import Ensemble, ensemble_of
from core.checkpoints.files import write_whole
from core.datasets import FORMATS, REGION_HELP, open_dataset
from core.errors import ExplanationError, RadiographError, ScaphoidError
from core.evaluate import Progress, choose_checkpoints, read_film
from core.evaluate.explanations import to_dict
from core.explain import QUICK_GROUPS
from core.explain.comparison import (
    CHECK_EVERY,
    MEASURED_NAME,
    KeptRows,
    MapRow,
    OutlinedFilm,
    count_refused,
    rows_text,
    summarise,
)
from core.metrics import ENSEMBLE, RESAMPLES
from core.phantoms import VERSION
from core.values import Checkpoint, Radiograph

if TYPE_CHECKING:
    from core.reading import Reader

DEFAULT_STUDIES, DEFAULT_FILMS, DEFAULT_QUICK_FILMS = 1500, 200, 50
_DOCUMENT = "README.md"
_KEEP_HELP = "file in which what is measured is kept as it goes on; what it already holds is not measured again"


def run(options: argparse.Namespace, open_reader: Callable[..., Reader] | None = None) -> int:
    """Carry out the command; return the exit status.

    Parameters
    ----------
    options : argparse.Namespace
        Of this module's command line.
    open_reader : callable or None
        (checkpoint id, folder of checkpoints) -> an object with `classifier` and `finder`; None:
        `core.reading.open_reader`.
    """
    folder = options.checkpoints or CHECKPOINTS
    ids = choose_checkpoints(options.checkpoint or [ENSEMBLE], folder)
    if open_reader is None:
        from core.reading import import_tensorflow_quietly, open_reader

        import_tensorflow_quietly()
    readers = [open_reader(checkpoint_id, folder) for checkpoint_id in ids]
    report, tables = _ACTS[options.what](options, readers, folder)
    print(json.dumps(report, allow_nan=False) if options.json else tables)
    return 0


# --- simulated -------------------------------------------------------------------------------------------------------


def _appraise_simulated(
    options: argparse.Namespace, readers: Sequence[Reader], folder: Path
) -> tuple[dict[str, Any], str]:
    seeds = seeds_of(options.studies, options.seed)
    studies = make_studies(seeds, options.size, options.jobs)
    mean = ensemble_of(_cards(readers), folder)
    progress = Progress(len(seeds), sys.stderr)
    reading = read_all(studies, readers, progress, Kept(options.keep), mean)
    report = simulated_report(reading, readers, mean, options)
    tables = simulated_tables(report)
    if options.write:
        _write(report, reading, readers, mean, folder)
    return report, tables


def simulated_report(
    reading: Reading, readers: Sequence[Reader], mean: Ensemble, options: argparse.Namespace
) -> dict[str, Any]:
    """Return all that was measured of what was read, as ``--json`` prints it.

    Every estimate is ``{"value", "low", "high", "n"}``: ``checkpoints`` by id and, of several, ``all`` (see
    `measure_checkpoint`), ``mean_of`` whom that is, ``finders`` by id, paired ``differences`` of AUC, and how the films
    were made. Films that are not fit to be read are in no estimate: each checkpoint's ``films_refused`` counts them,
    ``studies_refused`` the studies that had no other.
    """
    points = {card.id: card.operating_points for card in _cards(readers)} | {ENSEMBLE: mean.operating_points}
    measured = {}
    for name, films in reading.films.items():
        if not films:
            raise RadiographError("A film that is fit to be read was expected, but none of the simulated ones is.")
        thresholds = {point.name: point.threshold for point in points[name]}
        measured[name] = measure_checkpoint(films, reading.scores[name], thresholds, options.resamples)
        measured[name]["films_refused"] = reading.refused[name]
        measured[name]["studies_refused"] = reading.studies - len({film.study_id for film in films})
    scores = reading.scores
    return {
        "studies": reading.studies,
        "positives": reading.positives,
        "films": reading.films_made,
        "size": options.size,
        "seed": options.seed,
        "first_seed": seeds_of(1, options.seed)[0][0],
        "version": str(VERSION),
        "resamples": options.resamples,
        "checkpoints": measured,
        "mean_of": sorted(mean.members) if ENSEMBLE in measured else [],
        "differences": measure_differences(scores, options.resamples),
        "finders": {name: measure_finder(wrists, options.resamples) for name, wrists in reading.wrists.items()},
    }


def _write(
    report: Mapping[str, Any], reading: Reading, readers: Sequence[Reader], mean: Ensemble, folder: Path
) -> None:
    """Store results in cards, tables of scores and documents, and say where."""
    test = {name: report[name] for name in TEST_FACTS}
    for card in _cards(readers):
        if not _tests_on_simulated(card):
            continue
        found = report["checkpoints"][card.id]
        counts = _counts_of(report, found) | {
            "test_studies": report["studies"],
            "test_positive_studies": report["positives"],
        }
        store_results(folder / card.id, results_of(found, test), counts, reading.scores[card.id])
        print(f"Written: the card and the scores of {card.id}.", file=sys.stderr)
    for name, results in report["finders"].items():
        counts = {"test_films": report["films"], "test_patients": report["studies"]}
        if not _tests_on_simulated(read_card(folder / name)):
            continue
        store_results(folder / name, results, counts)
        print(f"Written: the card of {name}.", file=sys.stderr)
    members = [card for card in _cards(readers) if card.id in mean.members]
    if ENSEMBLE in report["checkpoints"] and all(card.data.get("simulated") for card in members):
        found = report["checkpoints"][ENSEMBLE]
        if store_ensemble_results(folder, mean.members, results_of(found, test), _counts_of(report, found)):
            print("Written: the ensemble's results.", file=sys.stderr)
    try:
        stored = stored_report(folder)
    except ScaphoidError as error:
        print(f"The documents hold all models of simulated films, so they stay as they were. {error}", file=sys.stderr)
        return
    _put_into_documents(folder, "simulated", simulated_tables(stored), short_simulated_table(stored))


def _counts_of(report: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, int]:
    return {
        "test_films": report["films"],
        "test_patients": report["studies"],
        "test_films_refused": found["films_refused"],
        "test_patients_left_out": found["studies_refused"],
    }


def _tests_on_simulated(card: Checkpoint) -> bool:
    """Tell whether a card's own test is one of simulated films; what was tested on real ones keeps its results."""
    simulated = bool(card.data.get("simulated"))
    if not simulated:
        print(f"{card.id} was not trained on simulated films: its card and scores stay as they are.", file=sys.stderr)
    return simulated


def _update_documents(folder: Path, readers: Sequence[Reader], name: str, table: str, short: str | None = None) -> bool:
    """Put the table into the checkpoints' page and its short form into the project's, if it is of all checkpoints.

    Returns
    -------
    bool
        Whether it is.
    """
    if not set(choose_checkpoints([ENSEMBLE], folder)) <= {card.id for card in _cards(readers)}:
        print(
            "The documents hold all checkpoints but only some were measured: they stay as they were.", file=sys.stderr
        )
        return False
    _put_into_documents(folder, name, table, short)
    return True


def _put_into_documents(folder: Path, name: str, table: str, short: str | None) -> None:
    for path, content, title in (
        (folder / _DOCUMENT, table, "the checkpoints' page"),
        (folder.parent / _DOCUMENT, short, "the project's page"),
    ):
        if content and update_document(path, name, content):
            print(f"Written: {title}.", file=sys.stderr)
        elif content:
            print(f"There is no place for these results in {title}.", file=sys.stderr)


def _cards(readers: Sequence[Reader]) -> list[Any]:
    return [reader.classifier.checkpoint for reader in readers]


# --- steadiness ------------------------------------------------------------------------------------------------------


def _appraise_steadiness(
    options: argparse.Namespace, readers: Sequence[Reader], folder: Path
) -> tuple[dict[str, Any], str]:
    unreadable: list[str] = []
    studies, count = _given_films(options, unreadable) if options.data else _simulated_films(options)
    measured = measure_steadiness(studies, readers, options.resamples, on_progress=Progress(count, sys.stderr))
    how = {"simulated": not options.data, "seed": options.seed, "asked_films": options.films}
    report = {**how, "unreadable": len(unreadable), **measured}
    tables = steadiness_tables(report)
    if options.write:
        _update_documents(folder, readers, "steadiness on given films" if options.data else "steadiness", tables)
    return report, tables


def _simulated_films(options: argparse.Namespace) -> tuple[Iterator[tuple[str, list[Radiograph]]], int]:
    """Yield studies of together about as many films as were asked for; two films a study are the fewest."""
    seeds = seeds_of(max(1, options.films // 2), options.seed)

    def studies() -> Iterator[tuple[str, list[Radiograph]]]:
        for study in make_studies(seeds, options.size, options.jobs):
            yield study.id, [film.radiograph for film in study.films]

    return studies(), len(seeds)


def _given_films(
    options: argparse.Namespace, unreadable: list[str]
) -> tuple[Iterator[tuple[str, list[Radiograph]]], int]:
    """Yield studies of a dataset, evenly spaced in it, until about as many films as were asked for were read.

    Films that cannot be read are told, and noted in `unreadable`.
    """
    index = open_dataset(options.data, options.format, options.region)
    for note in index.notes:
        print(f"note: {note}", file=sys.stderr)
    every = index.studies
    films = sum(len(study.paths) for study in every)
    wanted = min(len(every), max(1, round(len(every) * options.films / films)))
    chosen = [every[place] for place in np.unique(np.linspace(0, len(every) - 1, wanted).round().astype(int))]

    def studies() -> Iterator[tuple[str, list[Radiograph]]]:
        for study in chosen:
            read = []
            for path in study.paths:
                try:
                    read.append(read_film(path))
                except ScaphoidError as error:
                    print(f"{path}: {error}", file=sys.stderr)
                    unreadable.append(str(path))
            if read:
                yield study.patient_id, read

    return studies(), len(chosen)


# --- explanations ----------------------------------------------------------------------------------------------------


def _appraise_explanations(
    options: argparse.Namespace, readers: Sequence[Reader], folder: Path
) -> tuple[dict[str, Any], str]:
    # Read first: what cannot be stored at the end would be measured for hours.
    cards = [read_card(folder / name) for name in choose_checkpoints([ENSEMBLE], folder)] if options.write else []
    before = stored_rows(cards, folder)
    kept = KeptRows(options.keep) if options.keep else None
    # Every other study is broken.
    seeds = [each for each in seeds_of(2 * options.films, options.seed) if each[1]]
    films = list(outlined_films(make_studies(seeds, options.size, options.jobs)))
    progress = Progress(len(films) * len(readers), sys.stderr, "films")
    rows, refused = measure_readers(films, readers, options.check_every, progress, kept)
    if not rows:
        raise ExplanationError("A film that is fit to be read was expected, but none of the simulated ones is.")
    report = _explanations_report(rows, films, refused, options)
    if options.write:
        _write_explanations(rows, before, films, cards, folder, options)
    return report, explanations_tables(report)


def _explanations_report(
    rows: Sequence[MapRow], films: Sequence[OutlinedFilm], refused: Mapping[str, int], options: argparse.Namespace
) -> dict[str, Any]:
    every, thin = (summarise(rows, only_thin, options.resamples) for only_thin in (False, True))
    how = {"asked_films": options.films, "size": options.size, "seed": options.seed, "version": str(VERSION)}
    return (
        how
        | {"resamples": options.resamples, "check_every": options.check_every}
        | to_dict(every, thin, len(films), refused)
    )


def _write_explanations(
    rows: Sequence[MapRow],
    before: Sequence[MapRow],
    films: Sequence[OutlinedFilm],
    cards: Sequence[Checkpoint],
    folder: Path,
    options: argparse.Namespace,
) -> None:
    """Store what was measured of each map, and draw the documents where all models were measured on these films."""
    joined, missing = join_rows(rows, before, cards)
    write_whole(folder / MEASURED_NAME, rows_text(joined))
    print("Written: what was measured of each map.", file=sys.stderr)
    if missing:
        print(
            f"The documents hold all checkpoints, so they stay as they were: {', '.join(missing)} "
            f"{'was' if len(missing) == 1 else 'were'} not measured on these films.",
            file=sys.stderr,
        )
        return
    refused = {card.id: count_refused(films, (row for row in joined if row.checkpoint_id == card.id)) for card in cards}
    report = _explanations_report(joined, films, refused, options)
    _put_into_documents(folder, "explanations", explanations_tables(report), short_explanations_table(report))


# --- Quick Score-CAM beside Score-CAM --------------------------------------------------------------------------------


def _appraise_quick(options: argparse.Namespace, readers: Sequence[Reader], folder: Path) -> tuple[dict[str, Any], str]:
    films = list(one_of_each(make_studies(seeds_of(options.films, options.seed), options.size, options.jobs)))
    progress = Progress(len(films) * len(readers), sys.stderr, "films")
    rows = measure_likeness(films, readers, progress, Kept(options.keep))
    report = {
        "asked_films": options.films,
        "films": len(films),
        "size": options.size,
        "seed": options.seed,
        "version": str(VERSION),
        "resamples": options.resamples,
        "groups": QUICK_GROUPS,
        "refused": {card.id: count_refused(films, (row for row in rows if row.checkpoint_id == card.id))
                    for card in _cards(readers)},
        "checkpoints": summarise_likeness(rows, options.resamples),
    }  # fmt: skip
    if not rows:
        raise ExplanationError("A film that is fit to be read was expected, but none of the simulated ones is.")
    tables = quick_tables(report)
    if options.write:
        _update_documents(folder, readers, "quickscorecam", tables)
    return report, tables


# --- options ---------------------------------------------------------------------------------------------------------


_ACTS = {
    "simulated": _appraise_simulated,
    "steadiness": _appraise_steadiness,
    "explanations": _appraise_explanations,
    "quickscorecam": _appraise_quick,
}


def _whole(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise ValueError
        return value

    parse.__name__ = f"whole number from {least:,} to {most:,}"
    return parse


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m core.appraise",
        description="Measure checkpoints on simulated studies that no training has seen: what they are worth, how "
        "steady their answers are, and how good their heat maps. For research and education; not a medical device.",
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--checkpoint",
        metavar="ID",
        action="append",
        help="checkpoint to measure; several may be named (default: all, and their mean)",
    )
    common.add_argument("--checkpoints", metavar="DIR", type=Path, help=argparse.SUPPRESS)
    common.add_argument("--seed", type=_whole(0, 10**9), default=0, help="another seed, other studies (default: 0)")
    common.add_argument(
        "--size",
        type=_whole(64, 2048),
        default=FILM_SIZE,
        help=f"simulated film's longer side (default: {FILM_SIZE})",
    )
    common.add_argument("--jobs", type=_whole(0, 256), help="processes that make films (default: one a core)")
    common.add_argument(
        "--resamples",
        metavar="N",
        type=_whole(1, 10**6),
        default=RESAMPLES,
        help=f"bootstrap resamples (default: {RESAMPLES})",
    )
    common.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    kinds = parser.add_subparsers(dest="what", required=True, metavar=" | ".join(_ACTS))
    simulated = kinds.add_parser(
        "simulated", parents=[common], help="how good on unseen simulated studies", description="How good they are."
    )
    simulated.add_argument(
        "--studies",
        metavar="N",
        type=_whole(2, SEEDS_APART),
        default=DEFAULT_STUDIES,
        help=f"simulated studies, half of them with a fracture (default: {DEFAULT_STUDIES})",
    )
    simulated.add_argument("--keep", metavar="FILE", type=Path, help=_KEEP_HELP)
    simulated.add_argument(
        "--write",
        action="store_true",
        help="store results in cards, scores as the split test, and tables in the documents",
    )
    steadiness = kinds.add_parser(
        "steadiness",
        parents=[common],
        help="how far answers move when films are flipped, turned, exposed otherwise or written in another format",
        description="How steady they are.",
    )
    steadiness.add_argument(
        "--films", metavar="N", type=_whole(1, 10**6), default=DEFAULT_FILMS,
        help=f"about as many films (default: {DEFAULT_FILMS})",
    )  # fmt: skip
    steadiness.add_argument("--data", metavar="DIR", type=Path, help="a dataset's films instead of simulated ones")
    steadiness.add_argument("--format", choices=FORMATS, help="layout of --data (default: told by looking)")
    steadiness.add_argument("--region", metavar="R", help=REGION_HELP)
    steadiness.add_argument("--write", action="store_true", help="put the tables into the checkpoints' page")
    explanations = kinds.add_parser(
        "explanations",
        parents=[common],
        help="how often heat maps find the break on unseen simulated films, and how far they can be trusted",
        description="How good their heat maps are.",
    )
    explanations.add_argument(
        "--films", metavar="N", type=_whole(1, SEEDS_APART // 2), default=DEFAULT_FILMS,
        help=f"films with a fracture, each of another study (default: {DEFAULT_FILMS})",
    )  # fmt: skip
    explanations.add_argument(
        "--check-every", metavar="N", type=_whole(1, 10**6), default=CHECK_EVERY,
        help=f"how far they can be trusted is measured on every Nth film (default: {CHECK_EVERY})",
    )  # fmt: skip
    explanations.add_argument("--keep", metavar="FILE", type=Path, help=_KEEP_HELP)
    explanations.add_argument(
        "--write", action="store_true", help="store what was measured, and put tables into the documents"
    )
    quick = kinds.add_parser(
        "quickscorecam",
        parents=[common],
        help="how alike the maps of Quick Score-CAM are to those of Score-CAM over all channels",
        description="How alike Quick Score-CAM's maps are to Score-CAM's; a film may take minutes.",
    )
    quick.add_argument(
        "--films", metavar="N", type=_whole(2, SEEDS_APART), default=DEFAULT_QUICK_FILMS,
        help=f"films, half of them with a fracture, each of another study (default: {DEFAULT_QUICK_FILMS})",
    )  # fmt: skip
    quick.add_argument("--keep", metavar="FILE", type=Path, help=_KEEP_HELP)
    quick.add_argument("--write", action="store_true", help="put the table into the checkpoints' page")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run; a user's mistake is one line on stderr and exit status 1."""
    options = _parser().parse_args(arguments)
    try:
        return run(options)
    except ScaphoidError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1
