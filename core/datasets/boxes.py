"""Where on a film something is marked: boxes and outlines in film pixels, read from YOLO, Pascal VOC and COCO files.

All are in edge coordinates: (0, 0) is the top-left corner of the top-left pixel, x to the right, y downwards.
"""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from core.errors import DatasetError

GRAZ_CLASSES = (
    "boneanomaly", "bonelesion", "foreignbody", "fracture", "metal", "periostealreaction", "pronatorsign", "softtissue",
    "text",
)  # fmt: skip
"""Class ids of GRAZPEDWRI-DX's YOLO files, in the order of its meta.yaml."""
FRACATLAS_CLASSES = ("fractured",)
_MOST_BYTES = 256 * 2**20


@dataclass(frozen=True, order=True)
class Box:
    """An upright box on a film.

    Attributes
    ----------
    x, y : float
        Its left and top edge, in pixels of the film.
    width, height : float
        In pixels of the film, above 0.
    name : str
        What is marked, as the dataset names it, in lower case; a bare class number where it has no names.
    """

    x: float
    y: float
    width: float
    height: float
    name: str

    @property
    def marks_fracture(self) -> bool:
        """Whether the box is drawn around a fracture."""
        return self.name in ("fracture", "fractured", "fractures", "broken")


@dataclass(frozen=True, eq=False)
class Outline:
    """A marked area of a film: polygons, or runs of pixels.

    Attributes
    ----------
    box : Box
    polygons : tuple of numpy.ndarray
        Each float64, shape (points, 2), x before y.
    runs : numpy.ndarray or None
        bool, shape (height, width), where the area is stored pixel by pixel.
    """

    box: Box
    polygons: tuple[np.ndarray, ...] = ()
    runs: np.ndarray | None = field(default=None)

    def draw(self, mask: np.ndarray) -> None:
        """Set the area's pixels to 255, in place, in a uint8 mask of the film's own shape.

        Raises
        ------
        DatasetError
            The area is stored for a film of another size.
        """
        if self.runs is not None:
            if self.runs.shape != mask.shape:
                raise DatasetError("An area of a COCO file has the size of its film, but one is of another size.")
            mask[self.runs] = 255
        elif self.polygons:
            draw_polygons(mask, self.polygons)
        else:
            draw_boxes(mask, [self.box])


def draw_polygons(mask: np.ndarray, polygons: Iterable[np.ndarray]) -> None:
    """Set the pixels whose middle lies in a polygon to 255, in place; one too small for any takes its nearest pixel.

    OpenCV's ``fillPoly`` would add those that the outline only touches: half a pixel all round, much of a thin break.

    Parameters
    ----------
    mask : numpy.ndarray
        uint8, shape (height, width).
    polygons : iterable of numpy.ndarray
        Each float, shape (points, 2), x before y, in pixels from the film's corner; may leave the film. Of one that
        crosses itself, what is enclosed an even number of times is outside.
    """
    height, width = mask.shape
    for polygon in polygons:
        (x, y), (next_x, next_y) = polygon.T, np.roll(polygon, -1, axis=0).T
        empty = True
        for row in range(*_span(y.min(), np.ptp(y), height)):
            above = y <= row + 0.5
            sides = above != (next_y <= row + 0.5)
            share = (row + 0.5 - y[sides]) / (next_y - y)[sides]
            crossings = np.sort(x[sides] + share * (next_x - x)[sides])
            for left, right in zip(*np.ceil(crossings.clip(0, width) - 0.5).astype(int).reshape(-1, 2).T, strict=True):
                mask[row, left:right] = 255
                empty &= left >= right
        if empty:
            draw_boxes(mask, [Box(x.mean() - 0.5, y.mean() - 0.5, 1.0, 1.0, "")])


def draw_boxes(mask: np.ndarray, boxes: Iterable[Box]) -> None:
    """Set the pixels whose middle lies in a box to 255, in place; a box too small for any takes its nearest pixel."""
    height, width = mask.shape
    for box in boxes:
        left, right = _span(box.x, box.width, width)
        top, bottom = _span(box.y, box.height, height)
        mask[top:bottom, left:right] = 255


def _span(start: float, length: float, end: int) -> tuple[int, int]:
    first = min(max(math.ceil(start - 0.5), 0), end - 1)
    return first, min(max(math.ceil(start + length - 0.5), first + 1), end)


def read_yolo(path: Path, width: int, height: int, names: Sequence[str] = ()) -> tuple[Box, ...]:
    """Return the boxes of a YOLO text file: a class number, then centre and size as shares of the film, a line each.

    A line of a class number and three or more points is an outline, of which the box is taken.

    Parameters
    ----------
    path : pathlib.Path
    width, height : int
        Of the film, in pixels.
    names : sequence of str
        Of the classes, by number.

    Raises
    ------
    DatasetError
        Not such a file, or a number outside the film by more than rounding explains.
    """
    boxes = []
    for line in _read_text(path).splitlines():
        cells = line.split()
        if not cells:
            continue
        try:
            number, values = int(float(cells[0])), [float(cell) for cell in cells[1:]]
        except (ValueError, OverflowError):  # a word, or "inf", which is a number to Python
            values, number = [], -1
        if number < 0 or not (len(values) in (4, 5) or (len(values) >= 6 and len(values) % 2 == 0)):
            raise DatasetError("A YOLO line needs a class number and four numbers, but one has something else.")
        if len(values) in (4, 5):
            x, y, across, down = values[:4]
            left, top, right, bottom = x - across / 2, y - down / 2, x + across / 2, y + down / 2
        else:
            left, right = min(values[0::2]), max(values[0::2])
            top, bottom = min(values[1::2]), max(values[1::2])
        if not all(-0.05 <= value <= 1.05 for value in (left, top, right, bottom)):
            raise DatasetError("A YOLO box lies within its film as shares from 0 to 1, but one does not.")
        name = names[number] if number < len(names) else str(number)
        boxes.append(_clip(left * width, top * height, right * width, bottom * height, width, height, name))
    return tuple(box for box in boxes if box is not None)


def read_yolo_names(path: Path) -> tuple[str, ...]:
    """Return the class names of a ``meta.yaml`` or ``data.yaml`` (its entry ``names``), or of a ``classes.txt``."""
    lines = _read_text(path).splitlines()
    if path.suffix.lower() not in (".yaml", ".yml"):
        return tuple(line.strip().lower() for line in lines if line.strip())
    start = next((i for i, line in enumerate(lines) if line.split("#")[0].startswith("names:")), None)
    if start is None:
        return ()
    rest = lines[start].split("#")[0].removeprefix("names:").strip()
    if rest:
        while "]" not in rest and start + 1 < len(lines):
            start += 1
            rest += lines[start].split("#")[0]
        found = [part.split(":")[-1] for part in rest.strip("[]{} ").split(",")]
    else:
        found = []
        for line in lines[start + 1 :]:
            text = line.split("#")[0].strip()
            if text and not (text.startswith("-") or text.split(":")[0].isdigit()):
                break
            if text:
                found.append(text.removeprefix("-").split(":")[-1])
    return tuple(name.strip(" '\"").lower() for name in found if name.strip(" '\""))


def read_voc(path: Path, width: int, height: int) -> tuple[Box, ...]:
    """Return the boxes of a Pascal VOC XML file, scaled where the file names another size of the film.

    Corners are taken as edges, as exporters write them; the challenge's own files count pixels from 1, a difference of
    at most one pixel.

    Raises
    ------
    DatasetError
        No such file; one with a document type, which could make a reader expand or fetch other things.
    """
    text = _read_text(path)
    if "<!DOCTYPE" in text.upper() or "<!ENTITY" in text.upper():
        raise DatasetError("A Pascal VOC file has no document type, but one declares one, so it is not read.")
    try:
        root = ET.fromstring(text.encode())  # noqa: S314 (no document type, so no entities)
        named = [float(root.findtext(f"size/{side}") or 0) for side in ("width", "height")]
        scale_x, scale_y = (have / said if said > 0 else 1.0 for have, said in zip((width, height), named, strict=True))
        boxes = []
        for item in root.iter("object"):
            left, top, right, bottom = (
                float(item.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax")
            )
            name = (item.findtext("name") or "").strip().lower()
            corners = (left * scale_x, top * scale_y, right * scale_x, bottom * scale_y)
            boxes.append(_clip(*corners, width, height, name))
    except (ET.ParseError, TypeError, ValueError) as error:
        raise DatasetError("A Pascal VOC file with boxes was expected, but one cannot be read as that.") from error
    return tuple(box for box in boxes if box is not None)


def read_coco(path: Path) -> dict[PurePosixPath, tuple[tuple[int, int] | None, tuple[Outline, ...]]]:
    """Return what a COCO file marks: path of the film as the file names it -> ((height, width) or None, outlines).

    Raises
    ------
    DatasetError
        No COCO file; an area stored in compressed runs.
    """
    try:
        content = json.loads(_read_text(path))
        names = {item["id"]: str(item["name"]).strip().lower() for item in content.get("categories", ())}
        marked: dict[Any, list[Outline]] = {item["id"]: [] for item in content["images"]}
        for item in content["annotations"]:
            if item["image_id"] in marked:
                outline = _read_outline(item, names.get(item.get("category_id"), str(item.get("category_id"))))
                marked[item["image_id"]] += [outline] if outline else []
        return {
            PurePosixPath(str(item["file_name"]).replace("\\", "/")): (_size_of(item), tuple(marked[item["id"]]))
            for item in content["images"]
        }
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise DatasetError(
            "A COCO file with images and annotations was expected, but one cannot be read so."
        ) from error


def _size_of(item: dict[str, Any]) -> tuple[int, int] | None:
    height, width = item.get("height"), item.get("width")
    return (int(height), int(width)) if height and width else None


def _read_outline(item: dict[str, Any], name: str) -> Outline | None:
    area = item.get("segmentation") or []
    runs, polygons = None, ()
    if isinstance(area, dict):
        runs = _read_runs(area)
    else:
        # A single polygon is often not put into a list of its own.
        area = [area] if area and not isinstance(area[0], list) else area
        polygons = tuple(np.array(points, np.float64).reshape(-1, 2) for points in area if len(points) >= 6)
        if not all(np.isfinite(polygon).all() for polygon in polygons):
            raise ValueError
    if polygons:
        corners = np.concatenate(polygons)
        (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    elif runs is not None and runs.any():
        rows, columns = np.flatnonzero(runs.any(axis=1)), np.flatnonzero(runs.any(axis=0))
        left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    elif len(item.get("bbox") or ()) == 4:
        left, top, across, down = (float(value) for value in item["bbox"])
        right, bottom = left + across, top + down
    else:
        return None
    if not (np.isfinite((left, top, right, bottom)).all() and right > left and bottom > top):
        return None
    return Outline(Box(float(left), float(top), float(right - left), float(bottom - top), name), polygons, runs)


def _read_runs(area: dict[str, Any]) -> np.ndarray:
    """Decode COCO's uncompressed runs: lengths of background and area in turn, column by column."""
    counts, (height, width) = area["counts"], area["size"]
    if isinstance(counts, str):
        raise DatasetError("Areas of a COCO file as polygons or plain runs were expected, but one has packed runs.")
    lengths = np.array(counts, dtype=np.int64)
    if (lengths < 0).any() or lengths.sum() != height * width or height * width > _MOST_BYTES:
        raise ValueError
    values = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return np.ascontiguousarray(values.reshape(width, height).T)


def _clip(left: float, top: float, right: float, bottom: float, width: int, height: int, name: str) -> Box | None:
    """Return the part of a box on the film, or None where nothing of it is."""
    left, right = max(0.0, left), min(float(width), right)
    top, bottom = max(0.0, top), min(float(height), bottom)
    return Box(left, top, right - left, bottom - top, name.lower()) if right > left and bottom > top else None


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DatasetError("A file of boxes of at most 256 MiB was expected, but one is larger.")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError("A file of boxes cannot be read as UTF-8 text.") from error
