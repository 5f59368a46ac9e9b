"""Weights files: Keras' own layout in HDF5, stored in half precision, read as if a stranger had written them.

A file holds numbers only. Links, virtual or external data and objects of any other kind are refused before Keras
opens the file, and so is a file whose count of numbers is not the network's.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.errors import CheckpointError

if TYPE_CHECKING:
    import h5py
    import keras

WEIGHTS_NAME = "model.weights.h5"
LARGEST_WEIGHTS_BYTES = 2_000_000_000
LARGEST_CONFIG_BYTES = 50_000_000


def save_float16(model: keras.Model, path: Path) -> None:
    """Save a model's weights, floats rounded to float16, whole numbers as they are; optimizers are left out.

    Raises
    ------
    CheckpointError
        A weight is not finite, or too large for float16 (above 65,504).
    """
    with tempfile.TemporaryDirectory() as folder:
        full = Path(folder) / WEIGHTS_NAME
        model.save_weights(full)
        copy_float16(full, path)


def copy_float16(source: Path, target: Path) -> None:
    """Copy a weights file with its floats rounded to float16 and flush it to the disk.

    Raises
    ------
    CheckpointError
        Not a weights file, anything but numbers inside, or a number that float16 cannot hold.
    """
    import h5py

    with _open(source) as full, h5py.File(target, "w") as half:
        for name, dataset in _datasets(full):
            if name.partition("/")[0] not in {"layers", "vars"}:  # the optimizer's state, where training saved it
                continue
            values = dataset[()]
            half.create_dataset(name, data=to_float16(values) if values.dtype.kind == "f" else values)
    with open(target, "rb+") as file:
        os.fsync(file.fileno())


def to_float16(values: np.ndarray) -> np.ndarray:
    """Round floats to float16.

    Raises
    ------
    CheckpointError
        A value is not finite or above 65,504 in size.
    """
    with np.errstate(over="ignore"):
        rounded = np.asarray(values).astype(np.float16)
    if not np.isfinite(rounded).all():
        raise CheckpointError("Every weight must be a number within 65,504 of zero, but one is not.")
    return rounded


def round_to_float16(model: keras.Model) -> None:
    """Round the weights of `model` in place to what a published checkpoint will hold.

    Call it after training and before measuring, so that what is measured is what is published.

    Raises
    ------
    CheckpointError
        A weight is not finite or above 65,504 in size; the model is then unchanged.
    """
    import keras

    values = [(weight, keras.ops.convert_to_numpy(weight)) for weight in model.weights]
    rounded = [(weight, to_float16(value)) for weight, value in values if value.dtype.kind in "fV"]
    for weight, value in rounded:
        weight.assign(value.astype(np.float32))


def load_weights(model: keras.Model, path: Path) -> None:
    """Load a weights file into `model`, as float32.

    Raises
    ------
    CheckpointError
        Not a weights file, anything but numbers inside, or not this network's.
    """
    with _open(path) as file:
        held = sum(int(np.prod(dataset.shape)) for _, dataset in _datasets(file))
    needed = sum(int(np.prod(weight.shape)) for weight in model.weights)
    if held != needed:
        raise CheckpointError(f"The weights must hold {needed:,} numbers for this network, but they hold {held:,}.")
    try:
        model.load_weights(path)
    except Exception as error:  # Keras raises many kinds for a file that does not fit.
        raise CheckpointError("The weights must fit the network on the card, but they do not.") from error


def extract_weights(source: Path, folder: Path) -> Path:
    """Return a weights file in `folder` with what `source` holds: a weights file, or a Keras 3 archive (.keras).

    Of an archive only the weights are taken; its description of the network is searched for Lambda layers, which
    carry code, and never built.

    Raises
    ------
    CheckpointError
        Neither of the two, too large, or with a Lambda layer.
    """
    target = folder / WEIGHTS_NAME
    if not zipfile.is_zipfile(source):
        copy_float16(source, target)
        return target
    try:
        with zipfile.ZipFile(source) as archive:
            config = json.loads(_read_member(archive, "config.json", LARGEST_CONFIG_BYTES))
            if any(_is_code(value) for value in _walk(config)):
                raise CheckpointError("A network made of known layers was expected, but it carries a Lambda layer.")
            full = folder / "archive.weights.h5"
            full.write_bytes(_read_member(archive, WEIGHTS_NAME, LARGEST_WEIGHTS_BYTES))
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, RecursionError) as error:
        raise CheckpointError("A weights file or a Keras 3 archive was expected, but the file is neither.") from error
    copy_float16(full, target)
    full.unlink()
    return target


def _read_member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Return one file of an archive, never more than `limit` bytes whatever its header says."""
    with archive.open(name) as member:
        content = member.read(limit + 1)
    if len(content) > limit:
        raise CheckpointError("The archive must be of a size a checkpoint can have, but it is far larger.")
    return content


def _walk(value: Any) -> Iterator[Any]:
    """Yield a JSON value and everything inside it."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        yield value
        waiting.extend(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())


def _is_code(value: Any) -> bool:
    return isinstance(value, dict) and str(value.get("class_name", "")).rpartition(">")[2] in {"Lambda", "__lambda__"}


def _open(path: Path) -> h5py.File:
    import h5py

    try:
        return h5py.File(io.BytesIO(path.read_bytes()), "r")
    except OSError as error:
        raise CheckpointError("A weights file in HDF5 was expected, but it cannot be read as one.") from error


def _datasets(group: h5py.Group, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield the name and dataset of everything in the file; refuse whatever is not a plain array of numbers."""
    import h5py

    sentence = "A weights file must hold plain arrays of numbers only, but it holds something else."
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink) or depth > 16:
            raise CheckpointError(sentence)
        item, path = group[name], f"{prefix}{name}"
        if isinstance(item, h5py.Group):
            yield from _datasets(item, f"{path}/", depth + 1)
            continue
        plain = isinstance(item, h5py.Dataset) and not item.is_virtual and not item.external
        if not plain or item.dtype.kind not in "fiu" or item.size * 4 > LARGEST_WEIGHTS_BYTES:
            raise CheckpointError(sentence)
        yield path, item
