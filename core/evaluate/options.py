"""The options of ``python -m core.evaluate``."""

from __future__ import annotations

import argparse
from pathlib import Path

from core.datasets import FORMATS, REGION_HELP

DEFAULT_THRESHOLD = 0.5
MOST_FILMS = 100


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


_share.__name__, _count.__name__ = "number from 0 to 1", "whole number above 0"


def make_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(
        prog="python -m core.evaluate",
        description="Score every study of a dataset, or take scores, and print how good they are, each estimate with "
        "a 95% interval from a bootstrap over patients. For research and education; not a medical device.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", metavar="DIR", type=Path, help="folder of films, or a CSV table that lists them")
    source.add_argument(
        "--scores", metavar="FILE", type=Path, help="CSV with the columns study_id, patient_id, label, probability"
    )
    parser.add_argument("--format", choices=FORMATS, help="layout of --data (default: told by looking)")
    parser.add_argument("--region", metavar="R", help=REGION_HELP)
    parser.add_argument(
        "--films",
        action="store_true",
        help="measure each film by itself instead of the studies; intervals are over patients all the same",
    )
    parser.add_argument("--split", metavar="NAME", help="only this split, such as valid (default: every study)")
    parser.add_argument(
        "--checkpoint",
        metavar="ID",
        action="append",
        help="checkpoint that scores (default: the embedded one); several, or `all`, are compared on the same studies, "
        "and their mean stands beside them",
    )
    parser.add_argument("--checkpoints", metavar="DIR", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", metavar="FILE", type=Path, help="write the scores to this CSV (with --data)")
    parser.add_argument(
        "--regions",
        choices=("found", "table"),
        default="found",
        help="read the wrist squares that are found, or those that the dataset's table marks (default: found)",
    )
    parser.add_argument(
        "--wrist-pixels",
        metavar="N",
        type=_count,
        help="make films coarser until the wrist square has so many pixels a side, so that no class has finer "
        "pixels than the other (default: as they are)",
    )
    parser.add_argument(
        "--read-unfit",
        action="store_true",
        help="also read films that are not fit to be read, such as those without a wrist (default: they are left out, "
        "as when films are read in life)",
    )
    parser.add_argument(
        "--baselines", action="store_true", help="also measure what size, sharpness, grey or a thumbnail alone can tell"
    )
    parser.add_argument(
        "--explanations",
        metavar="N",
        type=_count,
        nargs="?",
        const=MOST_FILMS,
        help="instead measure the heat maps, by every checkpoint unless --checkpoint names some, of N films drawn at "
        "random on which the dataset outlines a fracture "
        f"(default: {MOST_FILMS}): how they lie to it, beside maps of the middle and of edges, and how far they can be "
        "trusted; --out writes a row for each map",
    )
    parser.add_argument(
        "--methods",
        metavar="NAME",
        nargs="+",
        help="heat maps to measure (default: all but scorecam, Score-CAM over all channels: minutes a film)",
    )
    parser.add_argument(
        "--check-every",
        metavar="N",
        type=_count,
        help="how far heat maps can be trusted is measured on every Nth film (default: as core.appraise does)",
    )
    parser.add_argument(
        "--apart",
        metavar="COLUMN",
        help="also measure the positives of each value of this column of the dataset's table, against all negatives",
    )
    parser.add_argument(
        "--threshold",
        metavar="T",
        type=_share,
        help="call positive from this probability on (default: the checkpoint's high-specificity point; "
        f"{DEFAULT_THRESHOLD} for --scores without --checkpoint, or where the checkpoint has no operating point)",
    )
    parser.add_argument(
        "--resamples", metavar="N", type=_count, default=2000, help="bootstrap resamples (default: 2000)"
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of the bootstrap (default: 0)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return parser
