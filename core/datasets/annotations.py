"""Which file beside the films says where on a film something is marked."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from core.datasets.boxes import (
    FRACATLAS_CLASSES,
    GRAZ_CLASSES,
    Box,
    Outline,
    draw_boxes,
    read_coco,
    read_voc,
    read_yolo,
    read_yolo_names,
)
from core.datasets.files import DEPTH, Problem, is_hidden, suffix_of
from core.errors import DatasetError, ScaphoidError

_NAMES_FILES = ("meta.yaml", "data.yaml", "dataset.yaml", "classes.txt", "obj.names")
_KINDS = frozenset(
    {"images", "image", "img", "films", "labels", "label", "annotations", "annotation", "boxes", "bboxes", "yolo"}
    | {"yolov5", "yolov8", "voc", "pascalvoc", "pascal voc", "xml", "txt"}
)
# Names of Pillow's for what a PNG may say its orientation in.
_SAYS_ORIENTATION = frozenset({"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"})
# The folders in which a COCO file places a film, the film's size, and what is marked on it.
_Marked = tuple[tuple[str, ...], tuple[int, int] | None, tuple[Outline, ...]]
_CLASSES = {"graz": GRAZ_CLASSES, "fracatlas": FRACATLAS_CLASSES}


class Annotations:
    """The boxes and outlines of a dataset's films, found when they are first asked for.

    A film's file of boxes has its name with another suffix and lies below the dataset's folder: anywhere, where that
    name is the only one of its kind, else at the same place below another folder (``images/a/1.png``,
    ``labels/a/1.txt``). COCO files name their films themselves.

    Parameters
    ----------
    root : pathlib.Path
    format : str
        One of ``core.datasets.FORMATS``.
    paths : iterable of pathlib.Path
        Of the dataset's films.
    """

    def __init__(self, root: Path, format: str, paths: Iterable[Path]) -> None:  # noqa: A002
        self.root, self.format = root, format
        self._paths = tuple(paths)

    @cached_property
    def _files(self) -> tuple[dict[str, list[Path]], list[Path], list[Path]]:
        """Return the files that may hold boxes by their stem, the JSON files, and those with class names."""
        by_stem: dict[str, list[Path]] = {}
        tables, names = [], []
        waiting = [] if self.format == "mura" else [(str(self.root), 0)]
        while waiting:
            folder, depth = waiting.pop()
            try:
                with os.scandir(folder) as entries:
                    found = sorted(entries, key=lambda entry: entry.name)
            except OSError:
                continue
            for entry in found:
                if is_hidden(entry.name):
                    continue
                ending = suffix_of(entry.name)
                if entry.name.lower() in _NAMES_FILES:
                    names.append(Path(entry.path))
                elif ending in (".txt", ".xml"):
                    by_stem.setdefault(os.path.splitext(entry.name)[0], []).append(Path(entry.path))
                elif ending == ".json":
                    tables.append(Path(entry.path))
                elif depth < DEPTH and ending not in (".png", ".jpg", ".jpeg") and entry.is_dir():
                    waiting.append((entry.path, depth + 1))
        return by_stem, tables, names

    @cached_property
    def _stems(self) -> dict[str, int]:
        """How many films have each name without suffix."""
        counts: dict[str, int] = {}
        for path in self._paths:
            counts[path.stem] = counts.get(path.stem, 0) + 1
        return counts

    @cached_property
    def _class_names(self) -> tuple[str, ...]:
        files = sorted(self._files[2], key=lambda path: (_NAMES_FILES.index(path.name.lower()), len(path.parts)))
        found = (read_yolo_names(path) for path in files)
        return next((names for names in found if names), _CLASSES.get(self.format, ()))

    @cached_property
    def _tables(self) -> tuple[dict[str, list[_Marked]], tuple[Problem, ...]]:
        """Return what COCO files mark, by the name of the film without suffix, and the files that cannot be read."""
        found: dict[str, list[_Marked]] = {}
        problems = []
        for table in self._files[1]:
            # One file a film is some other tool's: not one of them is opened.
            if table.stem in self._stems or Path(table.stem).stem in self._stems or not _looks_like_coco(table):
                continue
            try:
                marked = read_coco(table)
            except DatasetError as error:  # often some other tool's file, and the films are good without it
                problems.append(Problem(table, str(error)))
                continue
            for path, (size, outlines) in marked.items():
                found.setdefault(path.stem, []).append((path.parts[:-1], size, outlines))
        return found, tuple(problems)

    @property
    def _outlines(self) -> dict[str, list[_Marked]]:
        return self._tables[0]

    @property
    def problems(self) -> tuple[Problem, ...]:
        """JSON files that look as if they said what is marked on films, and cannot be read as COCO files."""
        return self._tables[1]

    def __bool__(self) -> bool:
        """Whether there is a file of boxes for any film."""
        by_stem = self._files[0]
        return any(stem in by_stem for stem in self._stems) or any(stem in self._outlines for stem in self._stems)

    def list_files(self) -> list[Path]:
        """Return every file that says what is marked on a film, or how kinds of marks are called."""
        by_stem, tables, names = self._files
        own = [file for stem in self._stems for file in by_stem.get(stem, ())]
        return sorted({*own, *names, *(tables if self._outlines else ())})

    def find_outlines(self, path: Path) -> tuple[tuple[int, int] | None, tuple[Outline, ...]] | None:
        """Return the size that a COCO file says a film has, and what it marks on it; None where none names the film."""
        candidates = self._outlines.get(path.stem, ())
        if self._stems.get(path.stem, 0) > 1:
            candidates = [item for item in candidates if item[0] and path.parts[-len(item[0]) - 1 : -1] == item[0]]
        return candidates[0][1:] if candidates else None

    def find_boxes(self, path: Path, shape: tuple[int, int] | None = None) -> tuple[Box, ...] | None:
        """Return the boxes on a film from its own file, else from a COCO file; None where there is neither.

        Parameters
        ----------
        path : pathlib.Path
        shape : tuple of int, optional
            (height, width) of the film, where it is known; else the film is asked.

        Raises
        ------
        DatasetError
            A file that cannot be read, or a film whose size is needed and cannot be.
        """
        file = self._find_file(path)
        if file is None:
            marked = self.find_outlines(path)
            return None if marked is None else tuple(outline.box for outline in marked[1])
        height, width = shape or read_film_size(path)
        if file.suffix.lower() == ".xml":
            return read_voc(file, width, height)
        return read_yolo(file, width, height, self._class_names)

    def _find_file(self, path: Path) -> Path | None:
        files = self._files[0].get(path.stem, ())
        if self._stems.get(path.stem, 0) > 1:
            place = _plain_place(path.relative_to(self.root).parts[:-1])
            files = [file for file in files if _plain_place(file.relative_to(self.root).parts[:-1]) == place]
        # Text before XML: its class numbers are the dataset's own.
        return min(files, key=lambda file: (suffix_of(file.name) != ".txt", len(file.parts)), default=None)


def _plain_place(place: tuple[str, ...]) -> tuple[str, ...]:
    """Return a place without the folders that part films from their boxes."""
    return tuple(part.lower() for part in place if part.lower() not in _KINDS)


def _looks_like_coco(table: Path) -> bool:
    try:
        with open(table, "rb") as file:
            start = file.read(2**16)
            if b'"images"' in start or b'"annotations"' in start:
                return True
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 2**16))
            return b'"images"' in file.read()
    except OSError:
        return False


def read_film_size(path: Path) -> tuple[int, int]:
    """Return a film's (height, width) as it is displayed, from its header where that is possible.

    Raises
    ------
    DatasetError
        The film cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            width, height = picture.size
            # Pillow decodes the whole of a PNG that says nothing of its orientation before it says so.
            told = picture.format != "PNG" or not _SAYS_ORIENTATION.isdisjoint(picture.info)
            turned = told and picture.getexif().get(274, 1) in (5, 6, 7, 8)
        return (width, height) if turned else (height, width)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        pass
    from core.radiographs import read_radiograph

    try:
        return read_radiograph(path.read_bytes(), path.name).pixels.shape
    except (OSError, ScaphoidError) as error:
        raise DatasetError("The size of a film is needed to place its boxes, but the film cannot be read.") from error


def read_mask(
    annotations: Annotations,
    path: Path,
    shape: tuple[int, int],
    mask_path: Path | None,
    label: int | None,
) -> np.ndarray | None:
    """Return where on a film the fracture is, as `core.datasets.DatasetIndex.read_mask` says."""
    if mask_path is not None:
        drawn = _read_mask_file(mask_path)
        if drawn.shape != shape:
            raise DatasetError("A mask has the size of its film, but one in this dataset differs.")
        return np.where(drawn > 127, 255, 0).astype(np.uint8)
    mask = np.zeros(shape, np.uint8)
    marked = annotations.find_outlines(path)
    if marked is not None:
        size, outlines = marked
        found = [outline for outline in outlines if outline.box.marks_fracture]
        if found and size is not None and size != shape:
            raise DatasetError("An area of a COCO file has the size of its film, but one is of another size.")
        for outline in found:
            outline.draw(mask)
        if found:
            return mask
    boxes = [box for box in annotations.find_boxes(path, shape) or () if box.marks_fracture]
    if boxes:
        draw_boxes(mask, boxes)
        return mask
    return mask if label == 0 else None


def _read_mask_file(path: Path) -> np.ndarray:
    """Return a mask file as uint8 grey; raise DatasetError where it is no picture."""
    import cv2

    try:
        drawn = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_GRAYSCALE)
    except (cv2.error, OSError) as error:  # an empty file raises, a damaged one gives None
        raise DatasetError("A mask of the dataset cannot be read: its file is empty or cannot be opened.") from error
    if drawn is None:
        raise DatasetError("A mask of the dataset cannot be read: its file is damaged or no picture.")
    return drawn


def count_names(boxes: Iterable[tuple[Box, ...] | None]) -> Mapping[str, int]:
    """Return how many boxes of each name there are."""
    counts: dict[str, int] = {}
    for group in boxes:
        for box in group or ():
            counts[box.name] = counts.get(box.name, 0) + 1
    return counts
