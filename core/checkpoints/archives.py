"""Model files made elsewhere, read as data: which layers they name, how those are set and where their numbers lie.

Three kinds are read: Keras 3 archives (.keras), Keras 3 weights (.weights.h5) and the older .h5 with or without the
network's description. A description is compared, never built: layers that Scaphoid does not know, and anything that
carries or names code, are refused.
"""

from __future__ import annotations

import io
import json
import lzma
import re
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.checkpoints.weights import LARGEST_WEIGHTS_BYTES, WEIGHTS_NAME, find_datasets, read_whole
from core.errors import CheckpointError

if TYPE_CHECKING:
    import h5py

LARGEST_CONFIG_BYTES = 50_000_000
DEEPEST_NESTING = 8
CONTAINERS = frozenset({"Functional", "Sequential", "Model"})
# Layers that leave films as they are once training is over.
IDLE_KINDS = frozenset({"Dropout", "SpatialDropout2D", "GaussianNoise"}) | {
    f"Random{change}" for change in ("Brightness", "Contrast", "Flip", "Rotation", "Translation", "Zoom")
}
KNOWN_KINDS = (
    CONTAINERS
    | IDLE_KINDS
    | {
        *("Activation", "Add", "AveragePooling2D", "BatchNormalization", "Concatenate", "Conv2D", "Dense"),
        *("DepthwiseConv2D", "GlobalAveragePooling2D", "InputLayer", "MaxPooling2D", "Multiply", "Normalization"),
        *("Rescaling", "Reshape", "ZeroPadding2D"),
    }
)

_NEITHER = "A weights file or a Keras archive was expected, but the file is neither."
DAMAGED = "A whole weights file was expected, but a part of this one cannot be read."
# What reading a damaged, encrypted or hand-made file raises besides what is said here.
_BROKEN_ARCHIVE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, RuntimeError),
    *(KeyError, ValueError),
)
_BROKEN_HDF5 = (OSError, RuntimeError, KeyError, TypeError, ValueError)


@dataclass(frozen=True, eq=False)
class FileLayer:
    """One layer of a model file.

    Attributes
    ----------
    name : str
        As Keras writes it today: ``conv1_conv`` also where the file says ``conv1/conv``.
    kind : str
        Its class in Keras; "" where the file has no description.
    config : Mapping
        Its settings; empty where the file has no description.
    sources : tuple of str
        Names of the layers it reads, as the file says; empty for one that merely follows another.
    arrays : Mapping of str to h5py.Dataset
        Its numbers by the variable's name or place: ``kernel`` or ``0``.
    """

    name: str
    kind: str
    config: Mapping[str, Any]
    sources: tuple[str, ...]
    arrays: Mapping[str, h5py.Dataset]


@dataclass(frozen=True, eq=False)
class ModelFile:
    """What a model file says.

    Attributes
    ----------
    layers : tuple of FileLayer
        Those of nested networks among the others; from film to answer where the file is `described`.
    described : bool
        Whether the file says how its network is built.
    input_shape : tuple of int or None
        Height, width and channels of what the network reads; None where not said or not fixed.
    """

    layers: tuple[FileLayer, ...]
    described: bool
    input_shape: tuple[int | None, ...] | None


@contextmanager
def open_model_file(source: Path) -> Iterator[ModelFile]:
    """Open a model file made elsewhere; its numbers can be read as long as it is open.

    Raises
    ------
    CheckpointError
        It is none of the three kinds, too large, carries code, or has a layer that is not known.
    """
    import h5py

    try:
        content = read_whole(source)
    except OSError as error:
        raise CheckpointError("A file to import was expected, but there is none that can be read.") from error
    config = None
    if zipfile.is_zipfile(io.BytesIO(content)):
        config, content = _read_archive(content)
    try:
        file = h5py.File(io.BytesIO(content), "r")
    except _BROKEN_HDF5 as error:
        raise CheckpointError("A weights file in HDF5 was expected, but it cannot be read as one.") from error
    with file:
        try:
            datasets = dict(find_datasets(file))
            described = _read_layers(file, datasets, _read_attribute(file) if config is None else config)
        except _BROKEN_HDF5 as error:
            raise CheckpointError(DAMAGED) from error
        yield described


def read_numbers(array: Any, dtype: Any = None) -> np.ndarray:
    """Return what an array of an open model file holds.

    Raises
    ------
    CheckpointError
        The file is damaged there.
    """
    try:
        return np.asarray(array[()], dtype=dtype)
    except _BROKEN_HDF5 as error:
        raise CheckpointError(DAMAGED) from error


def _read_archive(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Return description and weights file of a Keras 3 archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            config = json.loads(_read_member(archive, "config.json", LARGEST_CONFIG_BYTES))
            weights = _read_member(archive, WEIGHTS_NAME, LARGEST_WEIGHTS_BYTES)
    except _BROKEN_ARCHIVE as error:
        raise CheckpointError(_NEITHER) from error
    return _check_config(config), weights


def _read_member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Return one file of an archive, never more than `limit` bytes whatever its header says."""
    with archive.open(name) as member:
        content = member.read(limit + 1)
    if len(content) > limit:
        raise CheckpointError("The archive must be of a size a checkpoint can have, but it is far larger.")
    return content


def _read_attribute(file: h5py.File) -> dict[str, Any] | None:
    """Return the description that an older file (.h5) keeps as an attribute, or None."""
    text = file.attrs.get("model_config")
    if text is None:
        return None
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        return _check_config(json.loads(text))
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(_NEITHER) from error


# --- description ------------------------------------------------------------------------------------------------------


def _check_config(config: Any) -> dict[str, Any]:
    """Return a network's description; refuse it where it carries code."""
    for value in _walk(config):
        if isinstance(value, dict) and str(value.get("class_name", "")).rpartition(">")[2] in {"Lambda", "__lambda__"}:
            raise CheckpointError("A network made of known layers was expected, but it carries a Lambda layer.")
    kind = config.get("class_name") if isinstance(config, dict) else None
    if not isinstance(kind, str) or kind not in CONTAINERS:
        raise CheckpointError("A network made of known layers was expected, but it is of another kind.")
    return config


def _walk(value: Any) -> Iterator[Any]:
    """Yield a JSON value and everything inside it, in the order in which it is written."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        yield value
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        waiting.extend(reversed(list(inside)))


def _check_layer(entry: Any) -> None:
    """Refuse a layer that is not one of Keras' own or that names anything that is not."""
    kind = entry.get("class_name") if isinstance(entry, dict) else None
    if not isinstance(kind, str) or kind not in KNOWN_KINDS:
        shown = f"a layer {kind!r}" if isinstance(kind, str) and re.fullmatch(r"\w{1,40}", kind) else "another"
        raise CheckpointError(f"A network made of known layers was expected, but it has {shown}.")
    settings = entry.get("config")
    if not isinstance(settings, dict) or not isinstance(entry.get("name") or settings.get("name"), str):
        raise CheckpointError(_NEITHER)
    inside = settings if kind not in CONTAINERS else {key: settings[key] for key in settings if key != "layers"}
    for value in (entry, *_walk(inside)):
        if not isinstance(value, dict) or "class_name" not in value:
            continue
        module, registered = str(value.get("module") or "keras"), value.get("registered_name")
        own = module.partition(".")[0] == "keras" and registered in (None, value["class_name"])
        if not own:
            raise CheckpointError("A network made of known layers was expected, but it names an object of its own.")


def _entries(config: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield each layer's description and the path that Keras 3 gives its numbers, nested networks opened."""
    _check_layer({"name": "network", **config})
    layers = config["config"].get("layers")
    if not isinstance(layers, list) or depth > DEEPEST_NESTING:
        raise CheckpointError(_NEITHER)
    counts: Counter[str] = Counter()
    for entry in layers:
        _check_layer(entry)
        # Keras 3 numbers the layers of a network kind by kind, in their order.
        kind = re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", entry["class_name"])).lower()
        path = f"{prefix}layers/{kind}" + (f"_{counts[kind]}" if counts[kind] else "")
        counts[kind] += 1
        if entry["class_name"] in CONTAINERS:
            yield from _entries(entry, f"{path}/", depth + 1)
        else:
            yield entry, path


def find_sources(nodes: Any) -> tuple[str, ...]:
    """Return the names of the layers that a layer reads, each as often as it does, as Keras 3 or Keras 2 writes them.

    Parameters
    ----------
    nodes : object
        The entry ``inbound_nodes`` of a layer's description.
    """
    histories = [
        value["keras_history"] for value in _walk(nodes) if isinstance(value, dict) and "keras_history" in value
    ]
    if not histories and isinstance(nodes, list):
        histories = [call for node in nodes if isinstance(node, list) for call in node]
    return tuple(_plain_name(str(history[0])) for history in histories if isinstance(history, list) and history)


def _find_input_shape(config: Mapping[str, Any]) -> tuple[int | None, ...] | None:
    """Return height, width and channels that the network reads, where its description says so."""
    first = next((entry for entry, _ in _entries(config) if entry["class_name"] == "InputLayer"), None)
    settings = first["config"] if first else config["config"]
    shape = settings.get("batch_shape") or settings.get("batch_input_shape") or settings.get("build_input_shape")
    if not isinstance(shape, list) or len(shape) != 4 or not all(n is None or type(n) is int for n in shape):
        return None
    return tuple(shape[1:])


# --- layers -----------------------------------------------------------------------------------------------------------


def _read_layers(file: h5py.File, datasets: Mapping[str, h5py.Dataset], config: dict[str, Any] | None) -> ModelFile:
    """Bring description and numbers together."""
    modern = any(name.startswith("layers/") for name in datasets)
    found = _gather_modern(datasets) if modern else _gather_older(datasets)
    if config is None:
        named = {_own_name(file, path): arrays for path, arrays in found.items()} if modern else found
        layers = tuple(FileLayer(name, "", {}, (), arrays) for name, arrays in named.items() if name)
        return ModelFile(layers, False, None)
    layers = []
    for entry, path in _entries(config):
        name = _plain_name(str(entry.get("name") or entry["config"]["name"]))
        arrays = found.get(path if modern else name, {})
        sources = find_sources(entry.get("inbound_nodes"))
        layers.append(FileLayer(name, entry["class_name"], entry["config"], sources, arrays))
    return ModelFile(tuple(layers), True, _find_input_shape(config))


def _plain_name(name: str) -> str:
    return name.replace("/", "_")


def _gather_modern(datasets: Mapping[str, h5py.Dataset]) -> dict[str, dict[str, h5py.Dataset]]:
    """Return each layer's arrays by the layer's path, as Keras 3 writes them: ``layers/dense/vars/0``."""
    found: dict[str, dict[str, h5py.Dataset]] = {}
    for path, dataset in datasets.items():
        layer, _, place = path.rpartition("/vars/")
        found.setdefault(layer, {})[place] = dataset
    return found


def _gather_older(datasets: Mapping[str, h5py.Dataset]) -> dict[str, dict[str, h5py.Dataset]]:
    """Return each layer's arrays by the layer's name, as older files write them: ``dense/dense/kernel:0``."""
    whole = [path for path in datasets if path.startswith("model_weights/")]
    found: dict[str, dict[str, h5py.Dataset]] = {}
    for path in whole or datasets:
        *parents, variable = path.split("/")
        # A name with a slash in it, conv1/conv, has become two groups.
        for name in dict.fromkeys(("_".join(parents[-2:]), *parents[-1:])):
            found.setdefault(name, {}).setdefault(variable.partition(":")[0], datasets[path])
    return found


def _own_name(file: h5py.File, path: str) -> str:
    """Return the layer's own name, which Keras 3 writes beside its arrays, or ""."""
    name = file[f"{path}/vars"].attrs.get("name") if path else None
    return _plain_name(name) if isinstance(name, str) else ""
