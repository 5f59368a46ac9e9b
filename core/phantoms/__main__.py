"""``python -m core.phantoms OUT --studies N --seed S``: write a simulated dataset in the MURA layout."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line's settings."""
    parser = argparse.ArgumentParser(
        prog="python -m core.phantoms",
        description="Write simulated wrist radiographs (two or three views a study, half of them fractured) with "
        "exact fracture masks, in the folder layout of MURA.",
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="a new or empty folder")
    parser.add_argument(
        "--studies", metavar="N", type=int, required=True, help="number of studies, two or three films each"
    )
    parser.add_argument(
        "--seed", metavar="S", type=int, default=0, help="the same seed gives the same films (default 0)"
    )
    parser.add_argument("--size", type=int, default=512, help="longer side of a film in pixels (default 512)")
    parser.add_argument("--valid-fraction", type=float, default=0.2, help="share of the valid split (default 0.2)")
    parser.add_argument(
        "--bits",
        choices=("8", "16", "mixed"),
        default="8",
        help="depth of the PNG files; mixed: as each machine stores",
    )
    parser.add_argument(
        "--often",
        metavar="KIND=N",
        type=_times,
        nargs="+",
        default=[],
        help="in the train split, draw these kinds of fracture N times as often as they come",
    )
    parser.add_argument("--sheet", metavar="FILE.png", type=Path, help="also draw the first films on a contact sheet")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    return parser.parse_args(arguments)


def _times(text: str) -> tuple[str, float]:
    """Return the kind and the factor of ``KIND=N``."""
    kind, _, factor = text.partition("=")
    try:
        return kind, float(factor)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected KIND=N, such as scaphoid=4, but got {text!r}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    options = parse_arguments(arguments)
    from core.errors import ScaphoidError
    from core.phantoms.dataset import DatasetSettings, write_dataset, write_sheet

    start = time.monotonic()
    try:
        settings = DatasetSettings(
            options.studies, options.seed, options.size, options.valid_fraction, options.bits, dict(options.often)
        )
        films = write_dataset(options.out, settings, options.jobs, _progress(start))
        if options.sheet:
            write_sheet(options.out, options.sheet)
    except ScaphoidError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: Expected to be able to write there, but: {error.strerror}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; run the same command again to complete the folder", file=sys.stderr)
        return 130
    seconds = time.monotonic() - start
    print(f"{films} films of {options.studies} studies written in {seconds:.1f} s ({films / seconds:.1f} a second)")
    return 0


def _progress(start: float) -> Callable[[int, int], None]:
    """Return a reporter: one line that rewrites itself on a terminal, a line every tenth of the work elsewhere."""
    live = sys.stderr.isatty()
    told = 0.0

    def report(done: int, total: int) -> None:
        nonlocal told
        now = time.monotonic()
        due = now - told > 0.2 if live else done * 10 // total > (done - 1) * 10 // total
        if not due and done < total:
            return
        told = now
        left = (now - start) / done * (total - done)
        line = f"{done}/{total} studies, {left:.0f} s left"
        print(
            f"\r{line:<40}" if live else line,
            end="\n" if done == total or not live else "",
            file=sys.stderr,
            flush=True,
        )

    return report


if __name__ == "__main__":
    raise SystemExit(main())
