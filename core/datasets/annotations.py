"""Which file beside the films says where on a film something is marked."""

from __future__ import annotations

import os
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
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
from core.datasets.files import DEPTH, SPLITS, Problem, is_hidden, suffix_of
from core.errors import DatasetError, ScaphoidError

_NAMES_FILES = ("meta.yaml", "data.yaml", "dataset.yaml", "classes.txt", "obj.names")
_LABELS = frozenset(
    {"labels", "label", "annotations", "annotation", "boxes", "bboxes", "yolo", "yolov5", "yolov8", "voc", "pascalvoc"}
    | {"pascal voc", "xml", "txt"}
)
_KINDS = _LABELS | {"images", "image", "img", "films"}
_BESIDE = _LABELS | {"masks", "mask", "coco"}
_LOOKED_AT = 500  # files opened to tell whether any holds boxes: there may be one for each of 40,000 films
_ANY_SIZE = 10**6  # of a film, where boxes are read only to see that there are some
# Names of Pillow's for what a PNG may say its orientation in.
_SAYS_ORIENTATION = frozenset({"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"})
# The folders in which a COCO file places a film, the film's size, and what is marked on it.
_Marked = tuple[tuple[str, ...], tuple[int, int] | None, tuple[Outline, ...]]
_CLASSES = {"graz": GRAZ_CLASSES, "fracatlas": FRACATLAS_CLASSES}


class Annotations:
    """The boxes and outlines of a dataset's films, found when they are first asked for.

    A film's file of boxes has its name with another suffix and lies below the dataset's folder: anywhere, where that
    name is the only one of its kind, else at the same place below another folder (``images/a/1.png``,
    ``labels/a/1.txt``). COCO files name their films themselves. A table may lie in a folder that holds all sorts of
    other things and list films elsewhere: then only what lies with the films, or beside their folders under a name
    such as ``labels``, counts.

    A file with a film's name that cannot be read as boxes, such as a report, says nothing of the film: it is among the
    `problems`, and the film counts as one without a file.

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
        self._unreadable: dict[Path, str] = {}

    @cached_property
    def _files(self) -> tuple[dict[str, list[Path]], list[Path], list[Path]]:
        """Return the files that may hold boxes by their stem, the JSON files, and those with class names."""
        by_stem: dict[str, list[Path]] = {}
        tables, names = [], []
        starts = self._find_starts()
        waiting = [(folder, 0 if deep else DEPTH) for folder, deep in starts.values()]
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
                elif (
                    depth < DEPTH
                    and ending not in (".png", ".jpg", ".jpeg")
                    and entry.is_dir()
                    and os.path.realpath(entry.path) not in starts
                ):
                    waiting.append((entry.path, depth + 1))
        return by_stem, tables, names

    def _find_starts(self) -> dict[str, tuple[str, bool]]:
        """Return where files are looked for: the folder's real path -> the folder, and whether also in those below."""
        if self.format == "mura":
            return {}
        if self.format != "csv":
            return {os.path.realpath(self.root): (str(self.root), True)}
        base = os.path.abspath(self.root)
        flat, deep = _places_of_films({os.path.abspath(path.parent) for path in self._paths}, base)
        starts = {}
        for place in (*sorted(flat), *sorted(deep)):
            # Named from the table's folder as the films are, however that was given.
            inside = place == base or _is_below(place, base)
            name = str(self.root / os.path.relpath(place, base)) if inside else place
            starts[os.path.realpath(place)] = (name, place in deep)
        return starts

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
        for file in files:
            try:
                names = read_yolo_names(file)
            except DatasetError as error:
                self._unreadable[file] = str(error)
                continue
            if names:
                return names
        return _CLASSES.get(self.format, ())

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

    @cached_property
    def _looked_at(self) -> tuple[bool, dict[Path, str]]:
        """Tell whether films' text and XML files hold boxes, from a part of them, and which of these cannot be read."""
        by_stem = self._files[0]
        files = sorted(file for stem in self._stems for file in by_stem.get(stem, ()))
        # Drawn at random, since those of one origin lie side by side; from folders of boxes before others.
        random.Random(0).shuffle(files)
        files.sort(key=lambda file: _LABELS.isdisjoint(part.lower() for part in file.parent.parts))
        found, opened, unreadable = False, 0, {}
        for file in files:
            if opened == _LOOKED_AT:
                break
            try:
                if os.path.getsize(file) == 0:
                    continue  # nothing is marked: many films of a set may be so, and it shows nothing of the others
                opened += 1
                found = bool(_read_boxes(file, _ANY_SIZE, _ANY_SIZE, ())) or found
            except OSError:
                continue
            except DatasetError as error:
                unreadable[file] = str(error)
        return found, unreadable

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Files that may say what is marked on films and cannot be read so, of those that were opened until now.

        JSON files that look like COCO files are all opened for it, and a part of the films' own text and XML files:
        enough to tell whether there are boxes at all. Further ones are there once their films were asked for.
        """
        unreadable = {**self._looked_at[1], **self._unreadable}
        return (*self._tables[1], *(Problem(file, unreadable[file]) for file in sorted(unreadable)))

    def __bool__(self) -> bool:
        """Whether there are boxes or outlines for any film."""
        return self._looked_at[0] or any(stem in self._outlines for stem in self._stems)

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
        """Return the boxes on a film from its own file, else from a COCO file; None where neither can be read.

        Parameters
        ----------
        path : pathlib.Path
        shape : tuple of int, optional
            (height, width) of the film, where it is known; else the film is asked.

        Raises
        ------
        DatasetError
            A film whose size is needed and cannot be read.
        """
        for file in self._find_files(path):
            height, width = shape = shape or read_film_size(path)
            try:
                return _read_boxes(file, width, height, self._class_names)
            except DatasetError as error:  # a report, say: the film is good without it
                self._unreadable[file] = str(error)
        marked = self.find_outlines(path)
        return None if marked is None else tuple(outline.box for outline in marked[1])

    def _find_files(self, path: Path) -> list[Path]:
        """Return the files that may hold a film's boxes, the likeliest first."""
        files = self._files[0].get(path.stem, ())
        if self._stems.get(path.stem, 0) > 1:
            place = self._plain_place(path)
            files = [file for file in files if place is not None and self._plain_place(file) == place]
        # Text before XML: its class numbers are the dataset's own.
        return sorted(files, key=lambda file: (suffix_of(file.name) != ".txt", len(file.parts)))

    def _plain_place(self, path: Path) -> tuple[str, ...] | None:
        """Return where a file lies, without the folders that part films from their boxes; None: not below the root."""
        base, folder = os.path.abspath(self.root), os.path.abspath(path.parent)
        if folder != base and not _is_below(folder, base):
            return None
        return tuple(part.lower() for part in Path(folder).relative_to(base).parts if part.lower() not in _KINDS)


def _is_below(path: str, folder: str) -> bool:
    """Tell whether an absolute path lies below a folder."""
    return path != folder and path.startswith(os.path.join(folder, ""))


def _places_of_films(folders: Collection[str], base: str) -> tuple[set[str], set[str]]:
    """Return where to look for the marks of films that a table lists.

    Parameters
    ----------
    folders : collection of str
        That hold the films, absolute.
    base : str
        The table's.

    Returns
    -------
    flat, deep : set of str
        Folders to look into, and those of which all below them is looked at, too.
    """
    flat, deep, around = set(), {*folders, *_folders_in(base, {"masks"})}, set()
    for place in folders:
        around.add(os.path.dirname(place))
        # Up to the table; elsewhere to where a dataset's parts lie side by side: images/train and labels/train.
        while _is_below(place, base) or os.path.basename(place).lower() in _KINDS | SPLITS.keys():
            place = os.path.dirname(place)
            around.add(place)
            flat.add(place)
    deep.update(path for place in around for path in _folders_in(place, _BESIDE))
    return flat, deep


def _folders_in(folder: str, names: Collection[str]) -> list[str]:
    """Return the folders in a folder that have one of these names, in lower case."""
    try:
        with os.scandir(folder) as entries:
            return [entry.path for entry in entries if entry.name.lower() in names and entry.is_dir()]
    except OSError:
        return []


def _read_boxes(file: Path, width: int, height: int, names: Sequence[str]) -> tuple[Box, ...]:
    """Return the boxes of a film's own file; raise DatasetError where it cannot be read as one."""
    return read_voc(file, width, height) if suffix_of(file.name) == ".xml" else read_yolo(file, width, height, names)


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
