"""Studies to patient-disjoint parts, and the table of what is in each."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field

import numpy as np

from core.datasets.files import Problem, natural_order
from core.errors import DatasetError
from core.values import Study

SHARES = {"train": 0.7, "valid": 0.15, "test": 0.15}
"""Shares of the patients in the parts of a dataset that has no split of its own."""
SPLIT_SEED = 0
"""What patients are dealt out by, whatever a training's own seed: all models of a dataset are measured on the same."""


def split_dataset(splits: Mapping[str, Sequence[Study]], seed: int) -> dict[str, list[Study]]:
    """Return ``train``, ``valid`` and ``test`` of a dataset, no patient in two of them.

    A dataset's own parts are kept. Where it has ``train`` and one more, as MURA has, the patients of the other are
    halved: one half to choose by, one to measure on once. Where it has none, its patients are shared out as `SHARES`.
    A part called ``test`` beside others than these is refused: nothing may be chosen on it, nor learned from it.

    Parameters
    ----------
    splits : Mapping of str to sequence of Study
        As `DatasetIndex.splits`.
    seed : int
        The same seed gives the same parts.

    Raises
    ------
    DatasetError
        The dataset's own parts share patients, or are others than can be told apart.
    """
    own = {name: list(studies) for name, studies in splits.items() if studies}
    if set(own) == {"train", "valid", "test"}:
        parts = {name: own[name] for name in SHARES}
    elif "test" in own and set(own) not in ({"test"}, {"train", "test"}):
        parts = ", ".join(f"{name} ({len(studies):,})" for name, studies in own.items())
        raise DatasetError(
            f"The parts train, valid and test, or train and one more, or none were expected, but these came: {parts}. "
            "A dataset's own test is neither learned from nor chosen on."
        )
    elif "train" in own and len(own) > 1:
        train = own.pop("train")
        held_out = [study for studies in own.values() for study in studies]
        parts = {"train": train, **split_by_patient(held_out, {"valid": 0.5, "test": 0.5}, seed)}
    else:
        parts = split_by_patient([study for studies in own.values() for study in studies], SHARES, seed)
    places = Counter(patient for part in parts.values() for patient in {study.patient_id for study in part})
    shared = sum(count > 1 for count in places.values())
    if shared:
        raise DatasetError(f"Patients must be in one part of a dataset only, but {shared} are in more than one.")
    return parts


def fingerprint(parts: Mapping[str, Iterable[Study]]) -> str:
    """Return the SHA-256 of which study is in which part, whatever their order; 64 hexadecimal digits."""
    pairs = sorted((name, study.id) for name, studies in parts.items() for study in studies)
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def usual_parts(splits: Mapping[str, Sequence[Study]]) -> tuple[dict[str, list[Study]], str]:
    """Return the parts that a training takes unless it is told otherwise, and their `fingerprint`.

    No parts and ``""`` where no training takes the dataset.
    """
    try:
        parts = split_dataset(splits, SPLIT_SEED)
    except DatasetError:
        return {}, ""
    return parts, fingerprint(parts)


def number_names(letter: str, names: Iterable[str]) -> dict[str, str]:
    """Return a number for each name, in natural order: ``s0001`` is the first. Published tables hold these instead."""
    ranked = sorted(names, key=lambda name: (natural_order(name), name))
    return {name: f"{letter}{rank:04d}" for rank, name in enumerate(ranked, 1)}


@dataclass(frozen=True, eq=False)
class PublishedNames:
    """Studies and patients under their own names and under the numbers that published tables give them.

    Parameters
    ----------
    studies : iterable of Study
        All of a dataset; those without a label are in no table.
    """

    studies: InitVar[Iterable[Study]]
    by_name: Mapping[str, Study] = field(init=False)
    _patients: Mapping[str, str] = field(init=False)

    def __post_init__(self, studies: Iterable[Study]) -> None:
        own = {study.id: study for study in studies if study.label is not None}
        numbered = {number: own[name] for name, number in number_names("s", own).items()}
        object.__setattr__(self, "by_name", {**numbered, **own})
        people = {study.patient_id for study in own.values()}
        object.__setattr__(self, "_patients", number_names("p", people))

    def is_patient(self, study: Study, patient_id: str) -> bool:
        """Tell whether a table's patient is the study's."""
        return patient_id in (study.patient_id, self._patients[study.patient_id])


def split_by_patient(studies: Sequence[Study], fractions: Mapping[str, float], seed: int) -> dict[str, list[Study]]:
    """Split studies at random so that no patient is in two parts and each part has its share of positive patients.

    The result depends on the ids, the fractions and the seed alone, not on the order of `studies`.

    Parameters
    ----------
    studies : sequence of Study
    fractions : Mapping of str to float
        Share of the patients for each part, each above 0, together 1.
    seed : int

    Raises
    ------
    DatasetError
        Fractions that are not shares of 1.
    """
    shares = np.array(list(fractions.values()), dtype=np.float64)
    if not shares.size or not (shares > 0).all() or abs(shares.sum() - 1) > 1e-6:
        raise DatasetError("The fractions of a split must each be above 0 and add up to 1.")
    positive: dict[str, bool] = {}
    for study in studies:
        positive[study.patient_id] = positive.get(study.patient_id, False) or study.label == 1
    rng = np.random.default_rng(seed)
    part_of: dict[str, str] = {}
    for label in (True, False):
        patients = sorted(patient for patient in positive if positive[patient] is label)
        ends = np.rint(np.cumsum(shares) * len(patients)).astype(int)
        parts = np.searchsorted(ends, np.arange(len(patients)), side="right")
        for patient, part in zip((patients[i] for i in rng.permutation(len(patients))), parts, strict=True):
            part_of[patient] = list(fractions)[part]
    split: dict[str, list[Study]] = {name: [] for name in fractions}
    for study in sorted(studies, key=lambda study: natural_order(study.id)):
        split[part_of[study.patient_id]].append(study)
    return split


def describe(splits: Mapping[str, Iterable[Study]], problems: Sequence[Problem] = ()) -> str:
    """Return a table for people: studies, films, patients and positive studies of each split, then what is unusable."""
    lines = [f"{'split':<10}{'studies':>9}{'films':>9}{'patients':>10}{'positive':>10}"]
    for name, part in splits.items():
        studies = list(part)
        films = sum(len(study.paths) for study in studies)
        patients, positives = len({study.patient_id for study in studies}), sum(study.label == 1 for study in studies)
        share = f" ({positives / len(studies):.1%})" if studies else ""
        lines.append(f"{name:<10}{len(studies):>9}{films:>9}{patients:>10}{positives:>10}{share}")
    lines += [f"left out: {n} x {reason}" for reason, n in Counter(p.reason for p in problems).most_common()]
    return "\n".join(lines)
