"""Folders on the computer that serves the pages, as somebody types them."""

from __future__ import annotations

from pathlib import Path

from core.datasets import DatasetIndex
from core.errors import DatasetError
from core.train.films import open_dataset


def folder_at(place: str) -> Path:
    """Return the folder that was typed, ``~`` being the home of whoever serves this page."""
    try:
        return Path(place.strip()).expanduser()
    except RuntimeError:  # the home of somebody who is not known here
        return Path(place.strip())


def open_folder(place: str, layout: str | None = None, region: str | None = None) -> DatasetIndex:
    """Look through the folder that was typed.

    Parameters
    ----------
    place : str
    layout, region : str or None
        As of :func:`core.train.films.open_dataset`.

    Raises
    ------
    DatasetError
        A part of a path, no folder that may be read, or no dataset.
    """
    folder = folder_at(place)
    if not folder.is_absolute():
        raise DatasetError(
            "The folder's whole path is needed, from its first letter or slash on, but a part of one was given."
        )
    try:
        return open_dataset(folder, layout, region)
    except (OSError, ValueError) as error:  # a name too long, a folder that may not be read, a zero byte
        raise DatasetError("A folder that may be read was expected, but this one may not.") from error
