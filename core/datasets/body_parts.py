"""Which part of the body is taken of a dataset that holds several."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from core.datasets.index import DatasetIndex, index_dataset
from core.datasets.splits import usual_parts
from core.errors import DatasetError
from core.values import Study

WRIST = "XR_WRIST"
WRISTS_ALONE = "Of several parts of the body the wrists alone are taken; --region all takes every one."
REGION_HELP = (
    "part of the body whose films are taken, such as XR_WRIST, or all (default: all, but of a MURA folder with several "
    "its wrists)"
)
"""What commands that open a dataset by `open_dataset` say of their option ``--region``."""


def open_dataset(folder: Path | str, format: str | None = None, region: str | None = None) -> DatasetIndex:  # noqa: A002
    """Look through a dataset to train, to read or to measure on it.

    Parameters
    ----------
    folder : pathlib.Path or str
    format : str or None
        None: told from the folder.
    region : str or None
        Part of the body whose films are taken; ``"all"``: every one. None: every one, but of a MURA folder that holds
        several its wrists alone, since what is trained here reads wrists; a note says so.

    Raises
    ------
    DatasetError
        As :func:`core.datasets.index_dataset`.
    """
    index = index_dataset(folder, format, region)
    if region is None and index.format == "mura":
        parts = parts_of_body(index)
        if WRIST in parts and len(parts) > 1:
            index = index_dataset(folder, format, WRIST)
            return replace(index, notes=(*index.notes, WRISTS_ALONE))
    return index


def ways_to_take(
    folder: Path | str,
    format: str | None,  # noqa: A002
    index: DatasetIndex,
) -> list[tuple[dict[str, list[Study]], str]]:
    """Return the parts, and their fingerprint, that a training may have taken of a dataset that was opened as `index`.

    Of a MURA folder of several parts of the body: as it was opened, of all of them, and of the wrists alone.
    """
    found = [usual_parts(index.splits)]
    for region in ("all", WRIST) if index.format == "mura" else ():
        # What is asked here is no reason to stop: a part that is not there was not taken either.
        with suppress(DatasetError):
            found.append(usual_parts(index_dataset(folder, format, region).splits))
    return list({split: (parts, split) for parts, split in found}.values())


def parts_of_body(index: DatasetIndex) -> tuple[str, ...]:
    """Return the parts of the body that the folders of a MURA dataset name, such as XR_WRIST."""
    parts = {path.parts[-4].upper() for path in index.paths if path.parts[-4:-3]} if index.format == "mura" else set()
    return tuple(sorted(part for part in parts if part.startswith("XR_")))
