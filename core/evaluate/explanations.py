"""``python -m core.evaluate --data DIR --explanations``: every method's heat maps over films with a known fracture."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.checkpoints.files import write_whole
from core.datasets import DatasetIndex, select_split
from core.errors import DatasetError, ScaphoidError
from core.evaluate.report import Progress, number
from core.evaluate.scoring import read_film
from core.explain.comparison import (
    CHECK_EVERY,
    CHECKED,
    MapRow,
    MethodSummary,
    OutlinedFilm,
    count_refused,
    is_thin,
    measure_maps,
    method_title,
    rows_text,
    summarise,
)
from core.metrics import interval_dict
from core.quality import assess
from core.values import Interval, Study

if TYPE_CHECKING:
    from core.reading import Reader

_HEADS = ("hit", "hit, shown", "hit, thin", "energy", "overlap", "distance", "hit - Grad-CAM's")
_CHECK_HEADS = {
    "repeated": "again",
    "stability": "moved",
    "agreement": "others",
    "head": "head",
    "deep": "deep half",
    "all": "all",
    "deletion_ahead": "taken away",
    "insertion_ahead": "given back",
    "stray": "outside",
    "good": "passed",
    "hit": "these hit",
}


def run_explanations(
    index: DatasetIndex, options: argparse.Namespace, open_reader: Callable[..., Reader], ids: Sequence[str | None]
) -> int:
    """Measure the heat maps of all checkpoints that were asked for, print what came of it, and write the rows.

    Returns
    -------
    int
        Exit status: 0, or 1 where any film could not be read.

    Raises
    ------
    DatasetError
        The dataset outlines no fracture on any film of the split.
    """
    if not index.has_masks:
        raise DatasetError("A dataset that outlines fractures by masks or boxes was expected, but this one has none.")
    films, failures = choose_films(index, select_split(index, options.split), options.explanations, options.seed)
    for name, sentence in failures:
        print(f"{name}: {sentence}", file=sys.stderr)
    if not films:
        raise DatasetError("A film with an outlined fracture was expected, but there is none in what was asked for.")
    place = [options.checkpoints] if options.checkpoints else []
    rows: list[MapRow] = []
    refused: dict[str, int] = {}
    for checkpoint_id in ids:
        reader = open_reader(checkpoint_id, *place)
        print(f"{reader.classifier.checkpoint.id}:", file=sys.stderr, flush=True)
        progress = Progress(len(films), sys.stderr, "films")
        found = measure_maps(
            load_films(index, films),
            reader,
            options.methods,
            check_every=options.check_every or CHECK_EVERY,
            is_fit=lambda film, region: options.read_unfit or assess(film, region).level != "unfit",
            progress=progress,
        )
        refused[reader.classifier.checkpoint.id] = count_refused(films, found)
        rows += found
    if not rows:
        raise DatasetError("A film that is fit to be read was expected, but none of those with an outline is.")
    if options.out:
        write_whole(options.out, rows_text(rows))
    drawn = (options.resamples, options.seed)
    every, thin = summarise(rows, False, *drawn), summarise(rows, True, *drawn)
    told = (every, thin, len(films), refused)
    print(json.dumps(to_dict(*told), allow_nan=False) if options.json else to_text(*told))
    return 1 if failures else 0


# --- films -----------------------------------------------------------------------------------------------------------


def choose_films(
    index: DatasetIndex, studies: Sequence[Study], most: int, seed: int
) -> tuple[list[Path], list[tuple[str, str]]]:
    """Draw films with an outlined fracture at random.

    Returns
    -------
    films : list of pathlib.Path
        At most `most` of them.
    failures : list of (str, str)
        Films that cannot be read or whose outline cannot, and why.
    """
    paths = [path for study in studies for path in study.paths if index.film_labels.get(path, study.label)]
    chosen, failures = [], []
    for place in np.random.default_rng(seed).permutation(len(paths)):
        if len(chosen) == most:
            break
        try:
            film = read_film(paths[place])
            outline = index.read_mask(paths[place], film.height, film.width)
        except ScaphoidError as error:
            failures.append((index.name_of(paths[place]), str(error)))
            continue
        if outline is not None and outline.any():
            chosen.append(paths[place])
    return chosen, failures


def load_films(index: DatasetIndex, paths: Sequence[Path]) -> Iterator[OutlinedFilm]:
    """Yield the films one after the other, each with its outline."""
    patients = {path: study.patient_id for study in index.studies for path in study.paths}
    details = index.details()
    for path in paths:
        film = read_film(path)
        outline = index.read_mask(path, film.height, film.width) > 0
        known = details.get(path, {})
        spacing = film.spacing_mm or _spacing(known, index.format)
        yield OutlinedFilm(index.name_of(path), patients[path], film, outline, spacing, _is_thin(known), index.origin)


def _number(row: Mapping[str, str], name: str) -> float | None:
    try:
        return float(row.get(name, ""))
    except ValueError:
        return None


def _spacing(row: Mapping[str, str], layout: str) -> tuple[float, float] | None:
    """Return the size of a pixel; what GRAZPEDWRI-DX calls pixel_spacing is in mm, which elsewhere is not known."""
    spacing = _number(row, "spacing_mm") or (_number(row, "pixel_spacing") if layout == "graz" else None)
    return (spacing, spacing) if spacing and spacing > 0 else None


def _is_thin(row: Mapping[str, str]) -> bool | None:
    return is_thin(row.get("kind", ""), *(_number(row, name) for name in ("displacement_mm", "gap_mm")))


# --- what is printed -------------------------------------------------------------------------------------------------


def to_dict(
    every: Sequence[MethodSummary], thin: Sequence[MethodSummary], films: int, refused: Mapping[str, int]
) -> dict[str, Any]:
    """Return what ``--json`` prints.

    Parameters
    ----------
    every, thin : sequence of MethodSummary
        Over all films, and over those with a thin break.
    films : int
        How many every checkpoint was asked to read.
    refused : Mapping of str to int
        How many of these were not fit to be read and are in no estimate, by checkpoint.
    """
    return {
        "films": films,
        "refused": dict(refused),
        "explanations": [_one_dict(each) for each in every],
        "thin": [_one_dict(each) for each in thin],
    }


def _one_dict(summary: MethodSummary) -> dict[str, Any]:
    estimates = {name: getattr(summary, name) for name in ("hit", "energy", "overlap", "distance")}
    return {
        "checkpoint": summary.checkpoint_id,
        "method": summary.method,
        "n": summary.films,
        "origin": summary.origin,
        **{name: interval_dict(value) for name, value in estimates.items()},
        "hit_shown": interval_dict(summary.hit_shown) if summary.hit_shown else None,
        "overlap_threshold": summary.threshold,
        "distance_unit": summary.unit,
        "ahead_of_gradcam_by": interval_dict(summary.gain) if summary.gain else None,
        "checks": {name: interval_dict(value) for name, value in summary.checked.items()},
    }


def to_text(
    every: Sequence[MethodSummary], thin: Sequence[MethodSummary], films: int, refused: Mapping[str, int]
) -> str:
    """Return the summaries as tables for people; parameters as of :func:`to_dict`."""
    of_thin = {(each.checkpoint_id, each.method): each for each in thin}
    lines: list[str] = []
    for checkpoint, left_out in refused.items():
        if left_out:
            lines += [f"{checkpoint}: {left_out} of {films} films are not fit to be read and are left out.", ""]
        ours = [each for each in every if each.checkpoint_id == checkpoint]
        if not ours:
            continue
        narrow = [of_thin[checkpoint, each.method] for each in ours if (checkpoint, each.method) in of_thin]
        some = f", {narrow[0].films} of them thin" if narrow else ""
        lines += [
            f"{checkpoint}: {ours[0].films} {ours[0].origin} films with an outlined fracture{some}",
            "",
            _line("", _HEADS),
        ]
        for each in ours:
            slim = of_thin.get((checkpoint, each.method))
            fine = slim.hit if slim else None
            cells = [_estimate(value) for value in (fine, each.energy, each.overlap, each.distance, each.gain)]
            cells = [_estimate(each.hit), _estimate(each.hit_shown, each.films), *cells]
            lines.append(_line(method_title(each.method), cells))
        fewer = [f"{method_title(each.method)} {each.distance.n}" for each in ours if each.distance.n != each.films]
        if fewer:
            lines.append(
                f"distance over the films with any heat, where some have pixels of known size over these alone, of "
                f"{ours[0].films}: {', '.join(fewer)}"
            )
        checked = [each for each in ours if each.checked]
        if checked:
            count = checked[0].checked["good"].n
            lines += [
                "",
                f"checked on {count} films: likeness to the map when made again, with the wrist moved, to other "
                "methods' maps, with the head, the deep half or all of the network scrambled; logits more than random "
                "places or edges of bones when the hottest are taken away, or given back; share of heat outside the "
                "limb or on what is saturated white; share of maps that pass, and how many of those hit",
            ]
            lines.append(_line("", (method_title(each.method) for each in checked), 31))
            for name in (*CHECKED, "good", "hit"):
                cells = (_estimate(each.checked.get(name), count) for each in checked)
                lines.append(_line(_CHECK_HEADS[name], cells, 31))
        lines.append("")
    unit = every[0].unit
    lines.append(
        "hit: the map's highest point lies in the outline; shown: of the maps that are shown as evidence; "
        "energy: share of the heat in it; overlap: intersection over union at the method's best threshold on these "
        f"very films, which flatters; distance: from the highest point to the outline, median, {unit}."
    )
    return "\n".join(lines)


def _line(name: str, cells: Any, width: int = 26) -> str:
    return f"{name:<22}" + "".join(f"{cell:<{width}}" for cell in cells).rstrip()


def _estimate(value: Interval | None, films: int | None = None) -> str:
    """Return an estimate with its interval, and of how many films it is where these are not all `films`."""
    if value is None:
        return "-"
    fewer = "" if films is None or value.n == films else f" n={value.n}"
    return f"{number(value.value)} ({number(value.low)} to {number(value.high)}){fewer}"
