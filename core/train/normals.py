"""``python -m core.train.normals ID --data DIR``: set a checkpoint's caution by real films without a fracture.

A threshold chosen on simulated films does not carry over to real ones: there the same network calls far more wrists
broken. Films of real wrists without a fracture are easy to come by and hold no answer to learn from, so nothing is
trained on them; they only say how strong evidence must be before it is called evidence. Two things are set: the
threshold from which a fracture is suspected, so that at most 1 in 10 of these studies are, also where each is judged by
a threshold that calls as many and was chosen without its patient; and the usual peak of each heat map
(:mod:`core.explain.peaks`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.checkpoints import CHECKPOINTS, WEIGHTS_NAME, check_place, publish, read_history, read_scores
from core.checkpoints.learned import has_learned
from core.datasets import REGION_HELP, open_dataset
from core.datasets.body_parts import ways_to_take
from core.errors import DatasetError, RadiographError, ScaphoidError
from core.explain.peaks import usual_peaks
from core.metrics import clustered_interval, evaluate_scores, interval_dict, shares_at
from core.radiographs import read_radiograph
from core.reading import EnsembleReader, Reader, open_reader
from core.values import Checkpoint, Interval, OperatingPoint, Radiograph, Scores, WristRegion

FALSE_ALARMS = 0.1
RAISED = "The upper one was then raised on real films without a fracture."
SENTENCE_BEGINS = "The threshold of suspicion"
"""How the sentence of `describe` begins."""
FEWEST_STUDIES = 20
MOST_FOLDS = 20
"""Where patients are more, they are judged in so many groups."""


@dataclass(frozen=True, eq=False)
class NormalStudy:
    """A study without a fracture as the checkpoint read it.

    Attributes
    ----------
    patient_id : str
    probability : float
    films : tuple of (pathlib.Path, WristRegion or None)
        Those that were read, and where the wrist was found; not their pixels, of which a dataset has too many.
    patient_known : bool
        False where the dataset does not say which films are of one patient.
    """

    patient_id: str
    probability: float
    films: tuple[tuple[Path, WristRegion | None], ...]
    patient_known: bool = True


class Negatives(Sequence[tuple[Radiograph, WristRegion | None]]):
    """The films of studies without a fracture, each read again when it is asked for.

    Parameters
    ----------
    studies : sequence of NormalStudy

    Attributes
    ----------
    patients : tuple of str
        Whose each film is.
    """

    def __init__(self, studies: Sequence[NormalStudy]) -> None:
        self._films = tuple(film for study in studies for film in study.films)
        self.patients = tuple(study.patient_id for study in studies for _ in study.films)

    def __len__(self) -> int:
        """Return the number of films."""
        return len(self._films)

    def __getitem__(self, place: int) -> tuple[Radiograph, WristRegion | None]:
        """Return one film and its wrist; raise DatasetError where it cannot be read any more."""
        path, region = self._films[place]
        try:
            return read_radiograph(path.read_bytes()), region
        except (RadiographError, OSError) as error:
            raise DatasetError("A film of the dataset was read before, but cannot be read again.") from error


def read_normals(
    reader: Reader | EnsembleReader, data: Path, progress: Any = None, region: str | None = None
) -> list[NormalStudy]:
    """Read every study of a dataset that is labelled 0; films that cannot be read are left out and counted.

    `region` is that of :func:`core.datasets.open_dataset`.

    Raises
    ------
    DatasetError
        Fewer than 20 such studies can be read, or all are of one patient; or `reader` learned from this dataset.
    """
    index = open_dataset(data, region=region)
    ways = ways_to_take(data, None, index)
    cards = [each.checkpoint for each in getattr(reader, "readers", (reader,))]
    if any(has_learned(card, split) for card in cards for _, split in ways):
        raise DatasetError("Films that were not learned from were expected, but the model was trained on this dataset.")
    for note in index.notes:
        print(f"note: {note}", file=sys.stderr)
    studies = [study for study in index.studies if study.label == 0]
    read = []
    for done, study in enumerate(studies, 1):
        paths, films = [], []
        for path in study.paths:
            try:
                films.append(read_radiograph(path.read_bytes()))
                paths.append(path)
            except (RadiographError, OSError):
                print("A film that cannot be read was left out.", file=sys.stderr)
        reading = reader.read(films) if films else None
        if reading and reading.probability is not None:
            kept = tuple(
                (path, film.region) for path, film in zip(paths, reading.films, strict=True) if film.prediction
            )
            read.append(NormalStudy(study.patient_id, reading.probability, kept, index.patients_known))
        if progress:
            progress(done, len(studies))
    if len(read) < FEWEST_STUDIES:
        raise DatasetError(f"At least {FEWEST_STUDIES} studies without a fracture are needed, but {len(read)} came.")
    if len({study.patient_id for study in read}) < 2:
        raise DatasetError("Studies of at least two patients without a fracture are needed, but all are of one.")
    return read


def cautious_threshold(probabilities: np.ndarray, false_alarms: float = FALSE_ALARMS) -> float:
    """Return the smallest threshold at or above which at most a share `false_alarms` of `probabilities` lie.

    It lies halfway between two probabilities that occurred, so that none of them stands on it.
    """
    falling = np.sort(np.asarray(probabilities, float))[::-1]
    below = falling[_most_called(falling, false_alarms)]
    higher = falling[falling > below]
    above = higher.min() if higher.size else 1.0
    middle = (below + above) / 2
    return float(middle if middle > below else above)  # two neighbouring numbers have none between them


def cautious_share(
    patients: Sequence[str], probabilities: np.ndarray, floor: float = 0.0, false_alarms: float = FALSE_ALARMS
) -> float:
    """Return the share of studies to let a threshold call, so that out of fold no more than `false_alarms` are called.

    What a threshold calls of the very studies that it was chosen on is less than what it will call of others; so it is
    chosen to call fewer of them, and no fewer than it takes for that to hold.

    Parameters
    ----------
    patients : sequence of str
        Of each study.
    probabilities : numpy.ndarray
        (n,), of studies without a fracture.
    floor : float
        No threshold is lower.
    false_alarms : float
        [0, 1].

    Returns
    -------
    float
        At most `false_alarms`; 0 also where not even that keeps enough of them uncalled.
    """
    folds, values = _folds(patients), np.asarray(probabilities, float)
    allowed = _most_called(values, false_alarms)
    # Of one patient alone nobody can tell.
    if folds.max(initial=0) == 0 or _called_out_of_fold(folds, values, floor, false_alarms) <= allowed:
        return false_alarms
    # The fewer may be called the higher every threshold is: the greatest number that holds is found by halving.
    most, least = allowed, 0
    while most - least > 1:
        middle = (most + least) // 2
        holds = _called_out_of_fold(folds, values, floor, middle / values.size) <= allowed
        least, most = (middle, most) if holds else (least, middle)
    return least / values.size


def _most_called(values: np.ndarray, false_alarms: float) -> int:
    """Return how many studies are at most a share `false_alarms` of all."""
    return int(np.floor(false_alarms * values.size + 1e-9))


def _called_out_of_fold(folds: np.ndarray, values: np.ndarray, floor: float, share: float) -> int:
    """Return how many studies are called by thresholds that let a share of the other folds be called."""
    right = _right_out_of_fold(folds, values, lambda others, _: max(floor, cautious_threshold(others, share)))
    return int((~right).sum())


def _folds(patients: Sequence[str]) -> np.ndarray:
    """Return the fold of each study, (n,) int from 0: its patient's, or, where they are many, one of `MOST_FOLDS`."""
    return np.unique(np.asarray(patients), return_inverse=True)[1] % MOST_FOLDS


def _right_out_of_fold(
    folds: np.ndarray, values: np.ndarray, rule: Callable[[np.ndarray, np.ndarray], float]
) -> np.ndarray:
    """Tell which studies a threshold does not call that `rule` chose on the other folds' values and places, (n,)."""
    right = np.zeros(values.size, bool)
    for fold in range(int(folds.max()) + 1):
        own = folds == fold
        right[own] = values[own] < rule(values[~own], ~own)
    return right


def specificity_out_of_fold(
    patients: Sequence[str], probabilities: np.ndarray, floor: float = 0.0, false_alarms: float = FALSE_ALARMS
) -> Interval:
    """Return the specificity at thresholds that were each chosen, share and all, without the patient they judge.

    How many studies a threshold may call (:func:`cautious_share`) is itself chosen on studies out of fold; were it
    chosen once, on all of them, this would be the very figure that it was chosen by. Its interval is over patients, see
    :func:`core.metrics.clustered_interval`.

    Parameters
    ----------
    patients, probabilities, floor, false_alarms
        As of :func:`cautious_share`; at least two different patients.
    """
    names, values = np.asarray(patients), np.asarray(probabilities, float)

    def rule(others: np.ndarray, places: np.ndarray) -> float:
        share = cautious_share(names[places].tolist(), others, floor, false_alarms)
        return max(floor, cautious_threshold(others, share))

    return clustered_interval(_right_out_of_fold(_folds(patients), values, rule), patients)


def holds_out_of_fold(patients: Sequence[str], probabilities: np.ndarray, floor: float) -> bool:
    """Tell whether `cautious_share` reaches its end: at most 1 in 10 are called out of fold at the share it chose."""
    share, values = cautious_share(patients, probabilities, floor), np.asarray(probabilities, float)
    return _called_out_of_fold(_folds(patients), values, floor, share) <= _most_called(values, FALSE_ALARMS)


def set_caution(
    points: Sequence[OperatingPoint], scores: Scores, normals: Sequence[NormalStudy]
) -> tuple[OperatingPoint, ...]:
    """Return the two operating points, the threshold of suspicion raised until normals stay below it."""
    values = np.array([study.probability for study in normals])
    by_name = {point.name: point for point in points}
    low, high = by_name["high_sensitivity"], by_name["high_specificity"]
    patients = [study.patient_id for study in normals]
    share = cautious_share(patients, values, high.threshold)
    threshold = max(high.threshold, cautious_threshold(values, share))
    cautious = OperatingPoint(
        "high_specificity",
        threshold,
        shares_at(scores, threshold)[0],
        specificity_out_of_fold(patients, values, high.threshold),
    )
    return (low, cautious)


def results_at(scores: Sequence[Scores], threshold: float) -> dict[str, dict[str, Any]]:
    """Return sensitivity and specificity on the test studies at the raised threshold, for the card's results."""
    test = next((each for each in scores if each.split == "test"), None)
    if test is None:
        return {}
    found = evaluate_scores(test, threshold)
    return {
        f"{name}_at_high_specificity": interval_dict(getattr(found, name)) for name in ("sensitivity", "specificity")
    }


def describe(
    normals: Sequence[NormalStudy], points: Sequence[OperatingPoint], source: str, before: float, simulated: bool = True
) -> dict[str, Any]:
    """Return what the card says of the normals: a sentence, and how they fared at both points.

    Parameters
    ----------
    normals : sequence of NormalStudy
    points : sequence of OperatingPoint
        As `set_caution` returns them.
    source : str
        What the films are.
    before : float
        The threshold of suspicion before the normals were read.
    simulated : bool
        Whether the studies that it was set on are.
    """
    values = np.array([study.probability for study in normals])
    patients = [study.patient_id for study in normals]
    low, high = (point.threshold for point in points)
    called = {
        "real_normals_called_suspected": values >= high,
        "real_normals_called_uncertain": (values >= low) & (values < high),
        "real_normals_called_not_seen": values < low,
    }
    shares = {name: clustered_interval(holds, patients) for name, holds in called.items()}
    known = all(study.patient_known for study in normals)
    what = "films" if all(len(study.films) == 1 for study in normals) else "studies"
    whose = f"{values.size} real {what} without a fracture"
    whose += f" of {len(set(patients))} patients ({source})" if known else f" ({source})"
    kept = known and holds_out_of_fold(patients, values, before)
    elsewhere = ", also by thresholds that call as many and were chosen without their own patient" if kept else ""
    studies = "simulated studies" if simulated else "its validation studies"
    set_on = (
        f"{SENTENCE_BEGINS} was raised until at most 1 in 10 of {whose} are called suspected{elsewhere}"
        if high > before
        else f"{SENTENCE_BEGINS} was set on {studies} and checked on {whose}: at most 1 in 10 of them are "
        "called suspected, and it was not raised"
    )
    sentence = (
        f"{set_on}; nothing was trained on them. The sensitivity beside it was measured on {studies}; the "
        "specificity on these real ones, each judged by a threshold chosen by the same rule without "
        + ("that patient." if known else "that study; which are of one patient is not known.")
    )
    return {"sentence": sentence, "results": {name: interval_dict(share) for name, share in shares.items()}}


def tell_raised(data: Mapping[str, Any], raised: bool) -> dict[str, Any]:
    """Return a card's data, where its upper limit was raised with that in what it says of how limits were chosen."""
    told = data.get("limits")
    return {**data, "limits": f"{told} {RAISED}"} if told and raised else dict(data)


def measure(
    reader: Reader,
    folder: Path,
    data: Path,
    source: str,
    licence: str,
    new_id: str,
    progress: Any = None,
    region: str | None = None,
) -> Checkpoint:
    """Read the normals and publish the checkpoint anew, under `new_id`, with what they say."""
    card = reader.checkpoint
    scores = read_scores(folder / card.id)
    chosen_on = next((each for each in scores if each.split == "valid"), None)
    if chosen_on is None or len(card.operating_points) != 2:
        raise DatasetError("A checkpoint with validation scores and two operating points was expected, not this one.")
    if SENTENCE_BEGINS in card.data["tested_on"]:
        raise DatasetError("A checkpoint whose caution was not set on such films yet was expected, but this one's was.")
    normals = read_normals(reader, data, progress, region)
    points = set_caution(card.operating_points, chosen_on, normals)
    told = describe(normals, points, source, card.operating_points[1].threshold, bool(card.data.get("simulated")))
    known, negatives = all(study.patient_known for study in normals), Negatives(normals)
    peaks = usual_peaks(reader.classifier, negatives, progress, negatives.patients if known else None)
    people = {"patients": len({study.patient_id for study in normals})} if known else {}
    data_entry: Mapping[str, Any] = {
        **tell_raised(card.data, points[1].threshold > card.operating_points[1].threshold),
        "tested_on": f"{card.data['tested_on']} {told['sentence']}",
        "results": {**card.data["results"], **results_at(scores, points[1].threshold), **told["results"]},
        "peaks": {method: {**peak, "films": "real films", **people} for method, peak in peaks.items()},
        "licences": list(dict.fromkeys([*card.data["licences"], licence])),
        "threshold_licence": licence,
    }
    changed = replace(card, id=new_id, operating_points=points, data=data_entry)
    weights = folder / card.id / WEIGHTS_NAME
    renamed = [replace(each, checkpoint_id=new_id) for each in scores]
    return publish(folder, changed, weights, read_history(folder / card.id), renamed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m core.train.normals",
        description="Set threshold of suspicion and heat-map yardsticks on real films without a fracture.",
    )
    parser.add_argument("checkpoint", metavar="ID")
    parser.add_argument("--data", type=Path, required=True, help="dataset; only studies labelled 0 are read")
    parser.add_argument("--region", metavar="R", help=REGION_HELP)
    parser.add_argument("--id", required=True, help="of the new checkpoint")
    parser.add_argument("--source", required=True, help="what the films are, for the card")
    parser.add_argument("--licence", required=True, help="a sentence on the films' licence, for the card")
    parser.add_argument("--out", type=Path, default=CHECKPOINTS, help="folder of checkpoints")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        from core.train import Progress

        check_place(options.out, options.id)
        reader = open_reader(options.checkpoint, options.out)
        told = (options.source, options.licence, options.id)
        card = measure(reader, options.out, options.data, *told, Progress("reading normals"), options.region)
    except ScaphoidError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Published {card.id}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
