"""What a folder of films holds, in rows and sentences for people, before anybody trains on it. No film is opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.datasets import DatasetIndex
from core.datasets.composition import FORMAT_WORDS, label_words
from core.train.films import open_dataset, parts_of_body
from core.train.publish import label_of_words, positive_words
from core.values import Study

_PARTS = {"train": "for training", "valid": "for validation", "test": "for testing", "all": "all"}
_KINDS = {"simulated": "simulated films", "injected": "real films with simulated breaks and without"}


@dataclass(frozen=True, eq=False)
class DatasetSurvey:
    """What was found in a folder.

    Attributes
    ----------
    sentence : str
        What kind of dataset it is and how large.
    rows : tuple of dict
        One a split, ready to be shown: studies, films, patients, positive studies.
    left_out : tuple of str
        Why files cannot be used, and how many; no file is named.
    notes : tuple of str
        What the layout does not tell.
    simulated : bool
        Made by `core.phantoms`.
    with_regions : bool
        Whether the table says of every film where the wrist is.
    patients_known : bool
        Whether the dataset says which films are of one patient.
    parts : tuple of str
        The parts of the body in the folder where there are several, whichever were looked at.
    positive_label : str
        What a training takes a positive label for unless somebody says otherwise: ``"fracture"`` or ``"abnormal"``.
    positive_told : bool
        Whether the dataset's own words say so.
    """

    sentence: str
    rows: tuple[dict[str, Any], ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]
    simulated: bool
    with_regions: bool
    patients_known: bool = True
    parts: tuple[str, ...] = ()
    positive_label: str = "fracture"
    positive_told: bool = True


def survey_dataset(
    folder: Path | str,
    region: str | None = None,
    format: str | None = None,  # noqa: A002
) -> DatasetSurvey:
    """Look through a folder of films, or a table that lists them, as a training would.

    Parameters
    ----------
    folder : pathlib.Path or str
    region, format : str or None
        As of :func:`core.train.films.open_dataset`.

    Raises
    ------
    DatasetError
        As `core.datasets.index_dataset`.
    """
    root = Path(folder)
    index = open_dataset(root, format, region)
    whole = index if region == "all" or index.format != "mura" else open_dataset(root, format, "all")
    parts = parts_of_body(whole)
    label, told = _find_positive(index, root)
    kind = _KINDS.get(index.origin, "films")
    return DatasetSurvey(
        sentence=f"{len(index.paths):,} {kind} of {len(index.studies):,} studies, in {FORMAT_WORDS[index.format]}.",
        rows=tuple(_row(name, studies) for name, studies in index.splits.items()),
        left_out=tuple(f"{n:,} × {reason}" for reason, n in Counter(p.reason for p in index.problems).most_common()),
        notes=tuple(index.notes),
        simulated=index.origin == "simulated",
        with_regions=all(path in index.regions for path in index.paths),
        patients_known=index.patients_known,
        parts=parts if len(parts) > 1 else (),
        positive_label=label,
        positive_told=told,
    )


def _find_positive(index: DatasetIndex, root: Path) -> tuple[str, bool]:
    """Return what a training takes a dataset's positive label for, and whether the dataset says so itself.

    The layout of MURA alone does not: other films than MURA's come in it, too.
    """
    if label_words(index)[1] == "fracture":
        return "fracture", True
    positive = (path for path, label in index.film_labels.items() if label == 1)
    words = positive_words(root, index.format, positive)
    told = any(word.startswith(("abnormal", "fractur", "broken")) for word in words)
    return label_of_words(index.format, words), told


def _row(name: str, studies: Iterable[Study]) -> dict[str, Any]:
    studies = list(studies)
    positive = sum(study.label == 1 for study in studies)
    return {
        "": _PARTS.get(name, name),
        "studies": len(studies),
        "films": sum(len(study.paths) for study in studies),
        "patients": len({study.patient_id for study in studies}),
        "positive": f"{positive:,} ({positive / len(studies):.0%})" if studies else "0",
    }
