"""Weights files: Keras' own layout in HDF5, mostly in half precision, read as if a stranger had written them.

A file holds numbers only. Links, virtual or external data and objects of any other kind are refused before Keras
opens the file, and so is a file whose count of numbers is not the network's.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from core.errors import CheckpointError

if TYPE_CHECKING:
    import h5py
    import keras

WEIGHTS_NAME = "model.weights.h5"
LARGEST_WEIGHTS_BYTES = 2_000_000_000
DEEPEST_GROUP = 16
_NO_HDF5 = "A weights file in HDF5 was expected, but it cannot be read as one."
_NOT_PLAIN = "A weights file must hold plain arrays of numbers only, but it holds something else."


def save_weights(model: keras.Model, path: Path, dtype: type = np.float16) -> None:
    """Save a model's weights, floats rounded as by `round_floats`, whole numbers as they are; optimizers are left out.

    Raises
    ------
    CheckpointError
        A weight is not finite.
    OSError
        There is no room.
    """
    needed = sum(4 * int(np.prod(variable.shape)) for variable in model.variables) + 10_000_000
    with tempfile.TemporaryDirectory() as folder:
        if shutil.disk_usage(folder).free < needed:  # HDF5 ends the process where a disk is full
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        full = Path(folder) / WEIGHTS_NAME
        model.save_weights(full)
        copy_weights(full, path, dtype)


def copy_weights(source: Path, target: Path, dtype: type = np.float16) -> None:
    """Copy a weights file with its floats rounded as by `round_floats`, and flush it to the disk.

    Raises
    ------
    CheckpointError
        Not a weights file, anything but numbers inside, or one that is not finite.
    """
    import h5py

    # Written in memory first: where a disk is full, HDF5 ends the process instead of raising an error.
    content = io.BytesIO()
    with _open(_read(source)) as full, h5py.File(content, "w") as copy:
        for name, dataset in find_datasets(full):
            if name.partition("/")[0] not in {"layers", "vars"}:  # the optimizer's state, where training saved it
                continue
            values = dataset[()]
            copy.create_dataset(name, data=round_floats(values, dtype) if values.dtype.kind == "f" else values)
    with open(target, "wb") as file:
        file.write(content.getbuffer())
        file.flush()
        os.fsync(file.fileno())


def round_floats(values: np.ndarray, dtype: type = np.float16) -> np.ndarray:
    """Round floats to float16 or float32; an array with a number that float16 cannot hold (above 65,504) to float32.

    The variances that Keras' ResNet50 has learned on ImageNet are such an array.

    Raises
    ------
    CheckpointError
        A value is not finite, or is none any more as float32.
    """
    values = np.asarray(values)
    with np.errstate(over="ignore"):
        rounded = values.astype(dtype)
        if not np.isfinite(rounded).all():
            rounded = values.astype(np.float32)
    if not np.isfinite(rounded).all():
        raise CheckpointError("Every weight must be a number, but one is not.")
    return rounded


def round_to_float16(model: keras.Model) -> None:
    """Round the weights of `model` in place to what a published checkpoint will hold, see `round_floats`.

    Call it after training and before measuring, so that what is measured is what is published.

    Raises
    ------
    CheckpointError
        A weight is not finite; the model is then unchanged.
    """
    import keras

    values = [(weight, keras.ops.convert_to_numpy(weight)) for weight in model.weights]
    rounded = [(weight, round_floats(value)) for weight, value in values if value.dtype.kind in "fV"]
    for weight, value in rounded:
        weight.assign(value.astype(np.float32))


def load_weights(model: keras.Model, path: Path, sha256: str | None = None) -> None:
    """Load a weights file into `model`, as float32.

    The file is read once: what is compared with `sha256` and checked is what Keras is given, whatever becomes of the
    file meanwhile.

    Parameters
    ----------
    model : keras.Model
    path : pathlib.Path
    sha256 : str, optional
        Of the whole file, as its card tells it.

    Raises
    ------
    CheckpointError
        Not a weights file, another one than `sha256` says, anything but numbers inside, one that is not finite, or not
        this network's; or there is no room for a copy.
    """
    content = _read(path)
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise CheckpointError("The weights must be as they were published, but they have been altered since.")
    with _open(content) as file:
        arrays = [array for _, array in find_datasets(file)]
        held = sum(int(np.prod(array.shape)) for array in arrays)
        finite = all(bool(np.isfinite(array[()]).all()) for array in arrays)
    needed = sum(int(np.prod(weight.shape)) for weight in model.weights)
    if held != needed:
        raise CheckpointError(f"The weights must hold {needed:,} numbers for this network, but they hold {held:,}.")
    if not finite:
        raise CheckpointError("Every weight must be a number, but one is not.")
    try:
        with tempfile.TemporaryDirectory() as folder:
            own = Path(folder) / WEIGHTS_NAME
            own.write_bytes(content)
            model.load_weights(own)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EROFS, errno.EACCES):
            raise CheckpointError("Weights are loaded from a copy, but there is no room for one.") from error
        raise CheckpointError("The weights must fit the network on the card, but they do not.") from error
    except Exception as error:  # Keras raises many kinds for a file that does not fit.
        raise CheckpointError("The weights must fit the network on the card, but they do not.") from error


def _read(path: Path) -> bytes:
    try:
        return read_whole(path)
    except OSError as error:
        raise CheckpointError(_NO_HDF5) from error


def _open(content: bytes) -> h5py.File:
    import h5py

    try:
        return h5py.File(io.BytesIO(content), "r")
    except OSError as error:
        raise CheckpointError(_NO_HDF5) from error


def read_whole(path: Path) -> bytes:
    """Return the content of a plain file that is no larger than weights can be.

    Raises
    ------
    CheckpointError
        It is larger, or no plain file: to read from a pipe could take for ever.
    OSError
        There is none that can be read.
    """
    state = path.stat()
    if not stat.S_ISREG(state.st_mode) or state.st_size > LARGEST_WEIGHTS_BYTES:
        raise CheckpointError("The file must be of a size a checkpoint can have, but it is far larger, or no file.")
    return path.read_bytes()


def find_datasets(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield the name and dataset of everything in an open file.

    Each array lies in the file as it is, once and unpacked, so that all of them together are no larger than the file:
    what is packed may unpack to any size, whatever its header says.

    Raises
    ------
    CheckpointError
        Something in it is not a plain array of numbers: links, virtual or outside data, packed or missing data, texts,
        other types; or one thing is there under two names.
    """
    import h5py

    seen: set[int] = set()
    left = file.id.get_filesize()

    def walk(group: h5py.Group, prefix: str, depth: int) -> Iterator[tuple[str, h5py.Dataset]]:
        nonlocal left
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink) or depth > DEEPEST_GROUP:
                raise CheckpointError(_NOT_PLAIN)
            item, path = group[name], f"{prefix}{name}"
            place = h5py.h5o.get_info(item.id).addr
            if place in seen:
                raise CheckpointError(_NOT_PLAIN)
            seen.add(place)
            if isinstance(item, h5py.Group):
                yield from walk(item, f"{path}/", depth + 1)
                continue
            plain = isinstance(item, h5py.Dataset) and not item.is_virtual and not item.external and item.chunks is None
            if not plain or item.dtype.kind not in "fiu" or item.id.get_storage_size() != item.nbytes:
                raise CheckpointError(_NOT_PLAIN)
            left -= item.nbytes
            if left < 0:
                raise CheckpointError(_NOT_PLAIN)
            yield path, item

    yield from walk(file, "", 0)
