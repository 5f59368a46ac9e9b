"""``python -m core.predict FILE...``: a second opinion on films, in a terminal or as JSON for other programs."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.checkpoints import CHECKPOINTS
from core.errors import RadiographError, ScaphoidError
from core.reading import ALL, FilmReading, Reader
from core.results import evidence_sentence, film_result, reading_result
from core.values import Checkpoint


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m core.predict",
        description="Give a second opinion on wrist radiographs. For research and education; not a medical device.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", type=Path, help="PNG, JPEG, TIFF or DICOM films")
    parser.add_argument("--study", action="store_true", help="treat the films as one study and add its result")
    parser.add_argument("--checkpoint", metavar="ID", help="checkpoint to read with, or all: the mean of the models")
    parser.add_argument("--checkpoints", metavar="DIR", type=Path, default=CHECKPOINTS, help=argparse.SUPPRESS)
    parser.add_argument("--profile", metavar="NAME", help="limits saved under this name on the page Threshold")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")
    parser.add_argument("--explain", metavar="METHOD", help="also write heat maps: gradcam, scorecam, smoothgrad, ...")
    parser.add_argument("--target", choices=("for", "against"), default="for", help="evidence to explain")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder for the heat maps (with --explain)")
    return parser


def _read_files(paths: Sequence[Path]) -> Iterator[tuple[Path, Any]]:
    """Yield (path, Radiograph or the error that kept it from being read)."""
    from core.radiographs import read_radiograph

    for path in paths:
        try:
            yield path, read_radiograph(path.read_bytes(), path.name)
        except RadiographError as error:
            yield path, error
        except OSError as error:
            yield path, RadiographError(f"Expected a file that can be read: {error.strerror or 'it cannot be opened'}.")


def _write_explanation(reader: Reader, film: FilmReading, stem: str, options: argparse.Namespace) -> dict[str, Any]:
    """Write a film's heat map; return what it is, for the film's row.

    Scaled to its own maximum a map looks the same whether much speaks for the target or nothing: where it is no
    evidence the picture is the film alone, as on the screen. The numbers are written all the same.
    """
    from core.explain import explain
    from core.figures import overlay_image, png_bytes

    result = explain(
        reader.classifier, film.radiograph, method=options.explain, target=options.target, region=film.region
    )
    options.out.mkdir(parents=True, exist_ok=True)
    target = options.out / f"{stem}.{result.method}"
    sentence, evidence = evidence_sentence(result, reader.checkpoint)
    shown = result.heatmap if evidence else np.zeros_like(result.heatmap)
    Path(f"{target}.png").write_bytes(png_bytes(overlay_image(film.radiograph.pixels, shown)))
    np.save(f"{target}.npy", np.asarray(result.heatmap, dtype=np.float32))
    if not evidence:
        print(f"{stem}: {sentence}", file=sys.stderr, flush=True)
    return {"method": result.method, "target": result.target, "peak": float(result.peak), "evidence": evidence}


def _stems(paths: Sequence[Path]) -> list[str]:
    """Return each file's stem, numbered where two files of one call would overwrite each other's heat maps."""
    own, taken, stems = Counter(path.stem.casefold() for path in paths), set(), []
    for path in paths:
        stem, number = path.stem, 1
        # Not another file's own stem either, nor one that a file system without capitals takes for the same.
        while stem.casefold() in taken or (number > 1 and stem.casefold() in own):
            number += 1
            stem = f"{path.stem}-{number}"
        taken.add(stem.casefold())
        stems.append(stem)
    return stems


def _with_limits(card: Checkpoint, options: argparse.Namespace) -> Checkpoint:
    from core.checkpoints.profiles import apply_profile, profiles_of

    if options.profile is None:
        return card
    saved = profiles_of(card, options.checkpoints)
    if options.profile not in saved:
        names = f"has {', '.join(saved)}" if saved else "has none"
        raise ScaphoidError(f"A profile that was saved for this model was expected, but it {names}.")
    return apply_profile(card, saved[options.profile])


def _table_row(row: dict[str, Any]) -> str:
    probability = "   -  " if row["probability"] is None else f"{row['probability']:6.3f}"
    name = "study" if row.get("study") else row["file"]
    reasons = " ".join(row.get("reasons") or row.get("quality", {}).get("reasons", []))
    return f"{probability}  {row['decision']:<22}  {name}{'  ' + reasons if reasons else ''}"


def run(options: argparse.Namespace) -> int:
    """Carry out the command; return the exit status: 0, or 1 where any film, or the study, was not read."""
    if (options.explain is None) != (options.out is None):
        raise ScaphoidError("--explain METHOD and --out DIR belong together, and one of them is missing.")
    from core.reading import Reader, import_tensorflow_quietly, judge, open_reader

    if options.explain:
        from core.explain import canonical_method

        options.explain = canonical_method(options.explain)
    if options.explain and options.checkpoint == ALL:
        raise ScaphoidError("A heat map is one model's, so --explain needs one --checkpoint, but all were named.")
    import_tensorflow_quietly()
    reader = open_reader(options.checkpoint, options.checkpoints)
    card = _with_limits(reader.checkpoint, options)
    show = (lambda row: json.dumps(row, allow_nan=False)) if options.json else _table_row
    names, films, status = [], [], 0
    for (path, film), stem in zip(_read_files(options.files), _stems(options.files), strict=True):
        if isinstance(film, RadiographError):
            print(f"{path}: {film}", file=sys.stderr, flush=True)
            status = 1
            continue
        try:
            reading = judge(reader.read([film]), card)
        except ScaphoidError as error:
            print(f"{path}: {error}", file=sys.stderr, flush=True)
            status = 1
            continue
        if options.study:  # else nothing is asked of it any more, and a thousand films do not fit into memory
            names.append(str(path))
            films.append(reading.films[0])
        row = film_result(str(path), reading.films[0], reading)
        if options.explain and reading.films[0].prediction:
            row["explanation"] = _write_explanation(reader, reading.films[0], stem, options)
        print(show(row), flush=True)
        if reading.films[0].prediction is None:
            print(f"{path}: {' '.join(reading.films[0].quality.reasons)}", file=sys.stderr, flush=True)
            status = 1
    if options.study and films:
        # A film given twice counts once, as it does on the screen.
        once = {film.radiograph.id: (name, film) for name, film in reversed(list(zip(names, films, strict=True)))}
        names, films = map(list, zip(*reversed(once.values()), strict=True))
        # Found already; of several models each may have a finder of its own.
        one = isinstance(reader, Reader)
        regions = {film.radiograph.id: film.region for film in films if film.region} if one else None
        study = judge(reader.read([film.radiograph for film in films], regions), card)
        print(show(reading_result(names, study)), flush=True)
        status = 1 if study.probability is None else status
    return status


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run; a user's mistake is one line on stderr and exit status 1."""
    options = _parser().parse_intermixed_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may hold what the terminal's alphabet has not
        sys.stdout.reconfigure(errors="backslashreplace")
        sys.stderr.reconfigure(errors="backslashreplace")
    try:
        return run(options)
    except ScaphoidError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1
    except OSError as error:
        reason = error.strerror or "it cannot be written to"
        print(f"Expected a folder that heat maps can be written to: {reason}.", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
