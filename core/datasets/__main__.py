"""``python -m core.datasets DIR``: say what a folder of films holds, and what of it cannot be used."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

PROBLEMS_NAMED = 20
SIZES_READ = 2000


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line's settings."""
    from core.datasets import FORMATS

    parser = argparse.ArgumentParser(
        prog="python -m core.datasets",
        description="Say what a dataset of films holds: its layout, its patient-disjoint parts, what is marked on its "
        "films, how large they are, and what cannot be used.",
    )
    parser.add_argument("data", metavar="DIR", type=Path, help="folder of films, or a CSV table that lists them")
    parser.add_argument("--format", choices=FORMATS, help="its layout (default: told by looking)")
    parser.add_argument("--region", metavar="R", help="only films of this part of the body, such as XR_WRIST")
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="of the split into parts (default 0)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 1 where the folder is no dataset."""
    options = parse_arguments(arguments)
    from core.datasets import describe, index_dataset, split_dataset
    from core.errors import DatasetError

    try:
        index = index_dataset(options.data, options.format, options.region)
    except DatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"format: {index.format}; the dataset's own parts: {', '.join(index.splits)}")
    for note in index.notes:
        print(f"note: {note}")
    try:
        parts = split_dataset(index.splits, options.seed)
        print(f"\nparts for training, no patient in two of them (seed {options.seed}):")
    except DatasetError as error:
        parts = dict(index.splits)
        print(f"\nnote: {error} The dataset's own parts:")
    print(describe(parts, index.problems))
    _print_body_parts(index)
    _print_boxes(index)
    _print_sizes(index)
    _print_duplicates(index, parts)
    _print_problems(index)
    return 0


def _print_body_parts(index) -> None:
    if index.format == "mura":
        counts = Counter(part for path in index.paths for part in path.parts[-4:-3] if part.upper().startswith("XR"))
        print("\nfilms of each part of the body: " + ", ".join(f"{part} {n}" for part, n in sorted(counts.items())))


def _print_boxes(index) -> None:
    from core.datasets.annotations import count_names
    from core.errors import DatasetError

    if not index.has_masks:
        print("\nno masks, outlines or boxes: the dataset does not say where a fracture is")
        return
    masks = sum(index.mask_path(path) is not None for path in index.paths)
    found, unread = [], 0
    for path in index.paths:
        try:
            found.append(index.boxes(path))
        except DatasetError:
            unread += 1
    counts = sorted(count_names(found).items(), key=lambda item: (-item[1], item[0]))
    known = sum(boxes is not None for boxes in found)
    print(f"\nfilms with a mask: {masks}; films whose boxes are known: {known}; boxes: {sum(n for _, n in counts)}")
    if counts:
        print("boxes of each kind: " + ", ".join(f"{name} {n}" for name, n in counts))
    if unread:
        print(f"films whose boxes cannot be read: {unread}")


def _print_sizes(index) -> None:
    """Print how large films are: at most `SIZES_READ` of them, spread evenly."""
    from core.datasets.annotations import read_film_size
    from core.errors import DatasetError

    paths = index.paths
    chosen = paths[:: -(-len(paths) // SIZES_READ)]
    longest, shortest, unread = [], [], 0
    for path in chosen:
        try:
            size = read_film_size(path)
        except DatasetError:
            unread += 1
            continue
        longest.append(max(size))
        shortest.append(min(size))
    print(f"\nsizes, from the headers of {len(chosen)} of {len(paths)} films:")
    for low, high in ((0, 256), (256, 512), (512, 1024), (1024, 2048), (2048, 10**9)):
        n = sum(low <= side < high for side in longest)
        if n:
            print(f"  longer side {f'below {high}' if high < 10**9 else f'{low} and more'} pixels: {n} films")
    if longest:
        print(f"  from {min(shortest)} pixels (shorter side) to {max(longest)} (longer side)")
    if unread:
        print(f"  cannot be read: {unread}")


def _print_duplicates(index, parts) -> None:
    from core.datasets.overlap import find_copies

    part_of = {path: name for name, studies in parts.items() for study in studies for path in study.paths}
    patient_of = {path: study.patient_id for study in index.studies for path in study.paths}
    groups = find_copies(index).groups
    if groups:
        torn = sum(len({part_of.get(path) for path in group}) > 1 for group in groups)
        people = sum(len({patient_of[path] for path in group}) > 1 for group in groups)
        print(f"\nfilms that are the same byte for byte: {len(groups)} groups, {sum(map(len, groups))} films;")
        print(f"  groups in more than one part: {torn}; with more than one patient: {people}")


def _print_problems(index) -> None:
    problems = (*index.list_marking_problems(), *index.problems)
    if problems:
        print(f"\nfiles that cannot be used: {len(problems)}")
    for problem in problems[:PROBLEMS_NAMED]:
        print(f"  {problem.path}: {problem.reason}")
    if len(problems) > PROBLEMS_NAMED:
        print(f"  and {len(problems) - PROBLEMS_NAMED} more")


if __name__ == "__main__":
    raise SystemExit(main())
