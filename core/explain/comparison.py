"""Methods side by side over many films on which it is known where the fracture is."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.checkpoints.files import write_whole
from core.classifier import square_fit
from core.errors import ExplanationError
from core.explain import METHODS, available_methods, explain, lay_on_film
from core.explain.checks import Checks, check_map
from core.explain.localisation import THRESHOLDS, Localisation, best_threshold, centre_map, localise
from core.explain.peaks import is_evidence
from core.explain.scrambled import ScrambledClassifier
from core.explain.stray import bone_edges
from core.explain.trust import trust_sentence
from core.metrics import RESAMPLES
from core.metrics.resampling import interval_of, mean_of, quantile_of, rate_interval
from core.values import Checkpoint, Interval, Radiograph, WristRegion

BASELINES = {"centre": "Middle of the square", "edges": "Edges of bones"}
"""Maps of those who do not look for a break: key -> title."""
USUAL_METHODS = ("layercam", "gradcam", "gradcampp", "smoothgrad", "quickscorecam", "location")
ORIGINS = ("real", "simulated", "injected")
REFERENCE = "gradcam"
"""What the other maps are compared with."""
THIN_MM, THIN_GAP_MM = 1.0, 2.0
"""A break that is displaced by less than the first and gapes by less than the second is called thin (see `is_thin`)."""
BENT_KINDS = ("buckle", "greenstick")
"""Kinds of fracture that bend or bulge a bone: they are displaced little, but no thin line is what shows them."""
CHECK_EVERY = 5
"""Every so many films the maps are also checked, unless it is said otherwise: a check takes dozens of maps."""
MEASURED_NAME = "explanations.csv"
"""What was measured of the published checkpoints' maps, beside them."""


def is_thin(kind: str, displacement_mm: float | None, gap_mm: float | None) -> bool | None:
    """Tell whether a break shows as a thin line: a hairline, or displaced by less than 1 mm and gaping by less than 2.

    Parameters
    ----------
    kind : str
        As ``core.phantoms`` names it; empty where it is not known.
    displacement_mm, gap_mm : float or None
        None where it is not known.

    Returns
    -------
    bool or None
        None where too little is known.
    """
    if kind in BENT_KINDS:
        return False
    if kind == "hairline":
        return True
    if displacement_mm is None or gap_mm is None:
        return None
    return displacement_mm < THIN_MM and gap_mm < THIN_GAP_MM


@dataclass(frozen=True, eq=False)
class OutlinedFilm:
    """A film, and where its fracture is.

    Attributes
    ----------
    name, patient_id : str
    radiograph : Radiograph
    outline : numpy.ndarray
        bool, the film's shape.
    spacing_mm : tuple of float or None
        Height and width of a pixel.
    thin : bool or None
        Whether the break is thin; None where it is not known.
    origin : str
        One of `ORIGINS`.
    """

    name: str
    patient_id: str
    radiograph: Radiograph
    outline: np.ndarray
    spacing_mm: tuple[float, float] | None = None
    thin: bool | None = None
    origin: str = "real"


@dataclass(frozen=True, eq=False)
class MapRow:
    """What was measured of one map of one film; NaN where something was not.

    Attributes
    ----------
    film, patient_id, origin, checkpoint_id, method : str
    thin : bool or None
    logit : float
        What the checkpoint says of the film, before calibration.
    hit, energy, distance, unit, overlaps
        As of ``core.explain.localisation.Localisation``.
    repeated, turned, shifted, exposed, agreement, head, deep, all : float
        Likenesses, see ``core.explain.checks.Checks``; `head`, `deep` and `all` to maps of scrambled networks.
    deletion, deletion_random, deletion_edges, insertion, insertion_random, insertion_edges : float
        In logits, see ``core.explain.removal.Removal``.
    outside, bright : float
        Shares of the heat outside the limb, and on what is saturated white.
    level : str
        Of ``core.explain.trust.trust_sentence``; empty where the map was not checked.
    shown : float
        1 where the map is shown as evidence, 0 where it is withheld (``core.explain.peaks.is_evidence``).
    weights : str
        What `weights_key` says of the checkpoint; empty where it is not known.
    """

    film: str
    patient_id: str
    origin: str
    checkpoint_id: str
    method: str
    thin: bool | None
    logit: float
    hit: float
    energy: float
    distance: float
    unit: str
    overlaps: tuple[float, ...]
    repeated: float = math.nan
    turned: float = math.nan
    shifted: float = math.nan
    exposed: float = math.nan
    agreement: float = math.nan
    head: float = math.nan
    deep: float = math.nan
    all: float = math.nan
    deletion: float = math.nan
    deletion_random: float = math.nan
    deletion_edges: float = math.nan
    insertion: float = math.nan
    insertion_random: float = math.nan
    insertion_edges: float = math.nan
    outside: float = math.nan
    bright: float = math.nan
    level: str = ""
    shown: float = math.nan
    weights: str = ""

    @property
    def stability(self) -> float:
        """Likeness under the kind of change that changes the map most."""
        return min(self.turned, self.shifted, self.exposed)

    @property
    def stray(self) -> float:
        """Share of the heat outside the limb, or on what is saturated white."""
        return self.outside + self.bright

    @property
    def deletion_ahead(self) -> float:
        """How much more it costs to take away the hottest places than random ones, or edges, in logits."""
        return self.deletion - max(self.deletion_random, self.deletion_edges)

    @property
    def insertion_ahead(self) -> float:
        """How much more the hottest places bring than random ones, or edges, in logits."""
        return self.insertion - max(self.insertion_random, self.insertion_edges)


@dataclass(frozen=True, eq=False)
class MethodSummary:
    """One method of one checkpoint over all films, or over those with a thin break.

    Attributes
    ----------
    checkpoint_id, method : str
    films : int
    origin : str
        Of the films; several joined by "and".
    hit, energy : Interval
        Means.
    hit_shown : Interval or None
        Mean of the hits of the maps that are shown as evidence; its `n` tells how many those are. None where there is
        none, or where it was not noted which are, see `shown_noted`.
    overlap : Interval
        Mean intersection over union at the threshold that is best on these films; a threshold for each method.
    threshold : float
    distance : Interval
        Median of the films with any heat; where the pixels of some are of known size, of these alone.
    unit : str
    gain : Interval or None
        Mean of the hits minus those of `REFERENCE`, film by film; None for it itself. Without limits where every film
        shows the same difference, which no resample can tell from certainty.
    checked : Mapping of str to Interval
        Medians of the measurements of trust, over the checked films on which the method drew a map: name of the row's
        field -> interval; ``good``: share of these films whose map passed; ``hit``: mean of the hits of those.
    """

    checkpoint_id: str
    method: str
    films: int
    origin: str
    hit: Interval
    energy: Interval
    overlap: Interval
    threshold: float
    distance: Interval
    unit: str
    gain: Interval | None
    checked: Mapping[str, Interval]
    hit_shown: Interval | None = None
    shown_noted: bool = False


CHECK_NAMES = {
    "repeated": "made again",
    "stability": "wrist moved",
    "agreement": "other methods",
    "head": "head scrambled",
    "deep": "deeper half",
    "all": "all scrambled",
    "deletion_ahead": "taken away",
    "insertion_ahead": "given back",
    "stray": "outside or white",
    "good": "pass",
    "hit": "of these, in the break",
}
"""What is in `MethodSummary.checked` -> how tables call it."""
CHECKED = tuple(name for name in CHECK_NAMES if name not in ("good", "hit"))


def measure_maps(
    films: Iterable[OutlinedFilm],
    reader: Any,
    methods: Sequence[str] | None = None,
    *,
    check_every: int = CHECK_EVERY,
    is_fit: Callable[[Radiograph, WristRegion | None], bool] = lambda film, region: True,
    progress: Callable[[int], None] = lambda done: None,
    kept: KeptRows | None = None,
) -> list[MapRow]:
    """Measure the maps of one checkpoint.

    Parameters
    ----------
    films : iterable of OutlinedFilm
    reader : core.reading.Reader
        The wrist is found by its finder.
    methods : sequence of str, optional
        Keys of ``core.explain.METHODS``; default: those of `USUAL_METHODS` that the checkpoint offers.
    check_every : int
        Every so many films the maps are also checked (:func:`core.explain.checks.check_map`), which takes dozens of
        maps; 0: none are.
    is_fit : callable
        Whether a film is fit to be read; others are left out, as when films are read in life.
    progress : callable
        Told how many films are done.
    kept : KeptRows or None
        Rows of before, whose films are not measured again, and where every new one goes.

    Raises
    ------
    ExplanationError
        The checkpoint does not offer a method.
    """
    classifier = reader.classifier
    card = classifier.checkpoint
    offered = available_methods(card)
    chosen = [key for key in USUAL_METHODS if key in offered] if methods is None else list(methods)
    unknown = sorted(set(chosen) - set(offered))
    if unknown:
        raise ExplanationError(f"Expected methods among {', '.join(offered)}, but {unknown[0][:40]!r} was asked for.")
    scrambled = ScrambledClassifier(classifier) if check_every else None
    rows: list[MapRow] = []
    for number, film in enumerate(films):
        checked = bool(check_every) and number % check_every == 0
        before = kept.find(film.name, card, (*chosen, *BASELINES), checked) if kept else []
        if before:
            rows += before
            progress(number + 1)
            continue
        region = reader.finder.find(film.radiograph) if reader.finder else None
        if not is_fit(film.radiograph, region):
            progress(number + 1)
            continue
        (answer,) = classifier.predict([film.radiograph], [region])
        ours = []
        for method in (*chosen, *BASELINES):
            checks, shown = None, math.nan
            if method in BASELINES:
                heat = baseline_map(method, film.radiograph, card, region)
            else:
                made = explain(classifier, film.radiograph, method=method, region=region)
                heat, shown = made.heatmap, float(is_evidence(made, card))
                if checked:
                    checks = check_map(classifier, film.radiograph, method=method, region=region, scrambled=scrambled)
            found = localise(heat, film.outline, film.spacing_mm)
            row = _row(film, card.id, method, answer.logit, found, checks)
            ours.append(replace(row, shown=shown, weights=weights_key(card)))
        rows += ours
        if kept:
            kept.add(ours)
        progress(number + 1)
    return rows


def count_refused(films: Sequence[Any], rows: Iterable[Any]) -> int:
    """Return how many of the films that one checkpoint was asked to read have no row, since they are not fit for it."""
    return len(films) - len({row.film for row in rows})


def baseline_map(key: str, film: Radiograph, card: Checkpoint, region: WristRegion | None) -> np.ndarray:
    """Return the map of one of `BASELINES`, in the square that a classifier reads, laid on the film."""
    place, size = square_fit(card, film, region), card.input_size
    square = centre_map(size, size) if key == "centre" else bone_edges(place.apply(film.pixels), place)
    return lay_on_film(square, place)


def _row(
    film: OutlinedFilm, checkpoint_id: str, method: str, logit: float, found: Localisation, checks: Checks | None
) -> MapRow:
    place = (found.hit, found.energy, found.distance, found.unit, found.overlaps)
    row = (film.name, film.patient_id, film.origin, checkpoint_id, method, film.thin, logit, *place)
    if checks is None:
        return MapRow(*row)
    removal = checks.removal
    return MapRow(
        *row,
        *(checks.repeated, *(checks.steadiness(kind) for kind in ("turned", "shifted", "made")), checks.agreement),
        *(checks.scrambled[depth] for depth in ("head", "deep", "all")),
        *(removal.deletion, removal.random[0], removal.edges[0]),
        *(removal.insertion, removal.random[1], removal.edges[1]),
        *(checks.outside, checks.bright),
        trust_sentence(checks)[0],
    )


# --- from rows to estimates ------------------------------------------------------------------------------------------


def summarise(
    rows: Sequence[MapRow], thin: bool = False, resamples: int = RESAMPLES, seed: int = 0
) -> list[MethodSummary]:
    """Measure each method of each checkpoint over all films, with 95% intervals over resamples of the patients.

    Parameters
    ----------
    rows : sequence of MapRow
    thin : bool
        Over the films with a thin break alone.
    resamples, seed : int
        Of the bootstrap.

    Returns
    -------
    list of MethodSummary
        In the order of the rows; empty where no film is left.
    """
    groups: dict[tuple[str, str], list[MapRow]] = {}
    for row in rows:
        if row.thin or not thin:
            groups.setdefault((row.checkpoint_id, row.method), []).append(row)
    return [
        _summary(checkpoint, method, group, groups.get((checkpoint, REFERENCE)), (resamples, seed))
        for (checkpoint, method), group in groups.items()
    ]


def _summary(
    checkpoint: str, method: str, rows: Sequence[MapRow], reference: Sequence[MapRow] | None, drawn: tuple[int, int]
) -> MethodSummary:
    patients = [row.patient_id for row in rows]
    threshold = best_threshold(rows)
    overlaps = [row.overlaps[THRESHOLDS.index(threshold)] for row in rows]
    unit = "mm" if any(row.unit == "mm" for row in rows) else "px"
    hot = [row for row in rows if math.isfinite(row.distance) and row.unit == unit]
    shown = [row for row in rows if row.shown == 1]
    gain = None
    if reference and method != REFERENCE:
        theirs = {row.film: row.hit for row in reference}
        both = [row for row in rows if row.film in theirs]
        gains = [row.hit - theirs[row.film] for row in both]
        gain = interval_of(mean_of(gains), [row.patient_id for row in both], *drawn)
        if len(set(gains)) == 1:
            gain = replace(gain, low=math.nan, high=math.nan)
    return MethodSummary(
        checkpoint,
        method,
        len(rows),
        " and ".join(sorted({row.origin for row in rows})),
        _mean([row.hit for row in rows], patients, drawn),
        _mean([row.energy for row in rows], patients, drawn),
        _mean(overlaps, patients, drawn),
        threshold,
        interval_of(quantile_of([row.distance for row in hot], 0.5), [row.patient_id for row in hot], *drawn),
        unit,
        gain,
        _checked([row for row in rows if row.level], drawn),
        _mean([row.hit for row in shown], [row.patient_id for row in shown], drawn) if shown else None,
        any(math.isfinite(row.shown) for row in rows),
    )


def _mean(values: Sequence[float], patients: Sequence[str], drawn: tuple[int, int]) -> Interval:
    """Return a mean of shares; where all are 0, or all 1, as `rate_interval` does."""
    if set(values) <= {0.0, 1.0}:
        return rate_interval([bool(value) for value in values], patients, *drawn)
    return interval_of(mean_of(values), patients, *drawn)


def _checked(rows: Sequence[MapRow], drawn: tuple[int, int]) -> dict[str, Interval]:
    found, rows = {}, [row for row in rows if row.level != "none"]
    for name in CHECKED:
        kept = [row for row in rows if math.isfinite(getattr(row, name))]
        if kept:
            values, patients = [getattr(row, name) for row in kept], [row.patient_id for row in kept]
            found[name] = interval_of(quantile_of(values, 0.5), patients, *drawn)
    if rows:
        found["good"] = rate_interval([row.level == "good" for row in rows], [row.patient_id for row in rows], *drawn)
    passed = [row for row in rows if row.level == "good"]
    if passed:
        found["hit"] = _mean([row.hit for row in passed], [row.patient_id for row in passed], drawn)
    return found


# --- as a table ------------------------------------------------------------------------------------------------------

_NO_TABLE = "A table of measured heat maps was expected, but it cannot be read as one."
_NUMBERS = tuple(each.name for each in fields(MapRow) if each.type == "float")


def rows_text(rows: Iterable[MapRow]) -> str:
    """Return rows as CSV, which :func:`read_rows` reads again."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    names = [each.name for each in fields(MapRow)]
    table.writerow(names)
    for row in rows:
        table.writerow([_as_text(getattr(row, name)) for name in names])
    return text.getvalue()


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return " ".join(f"{each:.4g}" for each in value) if isinstance(value, tuple) else value


def read_rows(path: Path) -> list[MapRow]:
    """Read rows that :func:`rows_text` wrote.

    Raises
    ------
    ExplanationError
        The table cannot be read, or is another.
    """
    try:
        return parse_rows(path.read_bytes())
    except OSError as error:
        raise ExplanationError(_NO_TABLE) from error


def parse_rows(content: bytes) -> list[MapRow]:
    """Do as :func:`read_rows`, of a file's content."""
    try:
        table = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        names = [each.name for each in fields(MapRow)]
        # Tables from before `weights`, and before that `shown`, were noted are still read, and those that told the
        # probability, which hangs on how the checkpoint was calibrated, instead of the logit.
        before = ["probability" if name == "logit" else name for name in names]
        if table.fieldnames not in (names, before, before[:-1], before[:-2]):
            raise ValueError
        rows = [_read_row(row) for row in table]
    except (UnicodeError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise ExplanationError(_NO_TABLE) from error
    if not rows:
        raise ExplanationError("A table of measured heat maps was expected, but this one has no rows.")
    return rows


def _read_row(row: Mapping[str, str]) -> MapRow:
    if None in row or None in row.values():  # a row that is longer than the heading, or cut short
        raise ValueError
    overlaps = tuple(float(each) for each in row["overlaps"].split())
    known = row["method"] in {*METHODS, *BASELINES} and row["origin"] in ORIGINS and row["unit"] in ("mm", "px")
    if len(overlaps) != len(THRESHOLDS) or not known or not re.fullmatch("[a-z0-9-]+", row["checkpoint_id"]):
        raise ValueError
    values: dict[str, Any] = {each.name: row.get(each.name, "") for each in fields(MapRow)}
    values |= {name: float(row[name]) if row.get(name) else math.nan for name in _NUMBERS}
    return MapRow(**values | {"overlaps": overlaps, "thin": bool(int(row["thin"])) if row["thin"] else None})


def weights_key(card: Checkpoint) -> str:
    """Return what tells a checkpoint's maps from those of another of its name: its weights, and how it reads films.

    For what was trained here that is the SHA-256 of its weights. Weights from elsewhere may be brought here again, and
    films be prepared for them otherwise.
    """
    if card.settings is not None:
        return card.weights_sha256
    scaling = card.scaling if isinstance(card.scaling, str) else sorted(card.scaling.items())
    reads = json.dumps([card.input_size, card.fit, scaling])
    return f"{card.weights_sha256}-{hashlib.sha256(reads.encode()).hexdigest()[:8]}"


class KeptRows:
    """What a long measurement has found so far, in a table that grows film by film: what ends it costs one film.

    Rows are known by the film's name and the checkpoint's id and weights. What another version of this program measured
    is not told apart.

    Parameters
    ----------
    path : pathlib.Path
        Of the table, which need not be there yet.

    Raises
    ------
    ExplanationError
        There is another file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[tuple[str, str, str], list[MapRow]] = {}
        for row in read_rows(path) if path.exists() else ():
            self._rows.setdefault((row.film, row.checkpoint_id, row.weights), []).append(row)

    def find(self, film: str, card: Checkpoint, methods: Sequence[str], checked: bool) -> list[MapRow]:
        """Return a film's rows, a row for each method; none where one is missing, or was checked and should not be.

        Parameters
        ----------
        film : str
            Its name, which must be of its content.
        card : Checkpoint
        methods : sequence of str
            Keys of ``core.explain.METHODS`` and of `BASELINES`.
        checked : bool
            Whether the maps were to be checked, too.
        """
        found = {row.method: row for row in self._rows.get((film, card.id, weights_key(card)), ())}
        right = all(key in found and (key in BASELINES or bool(found[key].level) == checked) for key in methods)
        return [found[key] for key in methods] if right else []

    def add(self, rows: Sequence[MapRow]) -> None:
        """Keep one film's rows of one checkpoint, in place of what was kept of it.

        Parameters
        ----------
        rows : sequence of MapRow

        Raises
        ------
        CheckpointError
            The table cannot be written.
        """
        self._rows[rows[0].film, rows[0].checkpoint_id, rows[0].weights] = list(rows)
        write_whole(self._path, rows_text(row for ours in self._rows.values() for row in ours))


def rows_of(rows: Iterable[MapRow], cards: Iterable[Checkpoint]) -> tuple[list[MapRow], list[str]]:
    """Part the rows of these checkpoints from those of others.

    Returns
    -------
    rows : list of MapRow
        Of a checkpoint of this id with the very weights that are measured, where the row tells which.
    left_out : list of str
        Ids of the other rows' checkpoints, each once.
    """
    weights = {card.id: weights_key(card) for card in cards}
    ours, others = [], {}
    for row in rows:
        if row.checkpoint_id in weights and row.weights in ("", weights[row.checkpoint_id]):
            ours.append(row)
        else:
            others[row.checkpoint_id] = None
    return ours, list(others)


def tell_weights_apart(rows: Iterable[MapRow], cards: Iterable[Checkpoint]) -> list[MapRow]:
    """Return rows under other ids where they are not of the weights that these checkpoints have, or not known to be.

    Rows of the very weights keep the checkpoint's id, and so do all of a checkpoint that is not among these if they are
    of one kind of weights; of the others the id is followed by the beginning of the weights' SHA-256.
    """
    rows = list(rows)
    here = {card.id: weights_key(card) for card in cards}
    kinds: dict[str, set[str]] = {}
    for row in rows:
        kinds.setdefault(row.checkpoint_id, set()).add(row.weights)

    def name(row: MapRow) -> str:
        known = here.get(row.checkpoint_id)
        if row.weights == known or (known is None and len(kinds[row.checkpoint_id]) == 1):
            return row.checkpoint_id
        kind = f"weights {row.weights[:8]}{row.weights[64:]}" if row.weights else "weights not noted"
        return f"{row.checkpoint_id}, {kind}"

    return [replace(row, checkpoint_id=name(row)) for row in rows]


def record_sentence(rows: Iterable[MapRow], card: Checkpoint, method: str) -> str:
    """Say how many of a method's maps for the finding passed when they were checked; "" where none was.

    Of those alone that would be shown as evidence, as far as that was noted.

    Parameters
    ----------
    rows : iterable of MapRow
    card : Checkpoint
    method : str
        A key of ``core.explain.METHODS``; of Score-CAM over all channels the quick form's record is told.
    """
    asked = "quickscorecam" if method == "scorecam" else method
    ours, _ = rows_of(rows, [card])
    checked = [row for row in ours if row.method == asked and row.level not in ("", "none") and row.shown != 0]
    if not checked:
        return ""
    passed = sum(row.level == "good" for row in checked)
    share = rate_interval([row.level == "good" for row in checked], [row.patient_id for row in checked])
    films = " and ".join(sorted({row.origin for row in checked}))
    return (
        f"Of {len(checked)} {method_title(asked)} maps that were checked, of {films} films with a break, {passed} "
        f"passed as stable and following the model ({100 * share.value:.0f}%, 95% interval {100 * share.low:.0f} to "
        f"{100 * share.high:.0f}%)."
    )


def method_title(key: str) -> str:
    """Return what a method, or a baseline, is called."""
    return BASELINES[key] if key in BASELINES else METHODS[key].title
