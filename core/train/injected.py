"""``python -m core.train.injected DATA OUT``: breaks put into given films without one, to train or to measure on.

Both classes then share the same films: every film of a study labelled 0 occurs once with a break of the distal radius
and once with a sham warp (:func:`core.phantoms.inject_fracture`). The wrist is found on each film first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from core.checkpoints import find_checkpoint, read_card
from core.datasets import REGION_HELP, DatasetIndex, open_dataset
from core.errors import CheckpointError, DatasetError, ScaphoidError
from core.phantoms import write_injected
from core.quality import assess
from core.radiographs import read_radiograph
from core.reading import import_tensorflow_quietly
from core.train.runs import Progress
from core.values import WristRegion
from core.wrist import WristFinder, load_finder


def find_normals(
    index: DatasetIndex, finder: WristFinder, progress: Callable[[int, int], None] | None = None
) -> Iterator[tuple[str, np.ndarray, WristRegion]]:
    """Yield (patient, pixels, wrist square) of each film of a dataset that is labelled 0 and fit to be read.

    Parameters
    ----------
    index : DatasetIndex
    finder : WristFinder
    progress : callable, optional
        Called with (done, of) studies.
    """
    studies = [study for study in index.studies if study.label == 0]
    left_out = 0
    for done, study in enumerate(studies, 1):
        for path in study.paths:
            try:
                film = read_radiograph(path.read_bytes(), path.name)
            except (ScaphoidError, OSError):
                left_out += 1
                continue
            region = finder.find(film)
            if assess(film, region).level == "unfit":
                left_out += 1
                continue
            yield study.patient_id, film.pixels, region
        if progress:
            progress(done, len(studies))
    if left_out:
        print(f"{left_out} films were left out: they cannot be read, or show no wrist.", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m core.train.injected",
        description="Put simulated breaks into films without a fracture, and a sham warp into the same films again; "
        "written in the folder layout of MURA, with masks.",
    )
    parser.add_argument("data", metavar="DATA", type=Path, help="dataset; only studies labelled 0 are used")
    parser.add_argument("out", metavar="OUT", type=Path, help="a new or empty folder")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same breaks (default 0)")
    parser.add_argument("--region", metavar="R", help=REGION_HELP)
    parser.add_argument("--finder", metavar="ID", help="wrist finder (default: that of the default checkpoint)")
    return parser


def _open_finder(finder: str | None) -> WristFinder:
    finder = finder or read_card(find_checkpoint(None)).region
    if finder is None:
        raise CheckpointError("A wrist finder must be named, as the default checkpoint reads whole films.")
    import_tensorflow_quietly()
    return load_finder(finder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.seed < 0:
        parser.error("--seed must be 0 or more")
    try:
        index = open_dataset(options.data, region=options.region)
        if index.origin != "real":
            raise DatasetError(f"Films of real wrists were expected, but these are {index.origin}.")
        for note in index.notes:
            print(f"note: {note}", file=sys.stderr)
        films = find_normals(index, _open_finder(options.finder), Progress("putting breaks into films"))
        written = write_injected(films, options.out, options.seed, index.patients_known)
    except ScaphoidError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"Expected to be able to write there, but: {error.strerror}.", file=sys.stderr)
        return 1
    print(f"{written} films written: half with a simulated break, half with its sham.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
