"""From a model made elsewhere to the graph that Scaphoid builds: layer by layer, or not at all.

The network is always built in ``core.backbones``. From the file come numbers only; its description, where it has one,
is compared with the graph, so that what is accepted answers a square as it did where it was made. Three things may
differ and are carried over exactly: how the square's pixels are prepared, a head without a hidden layer or with a
smaller one, and two softmax units. How films became squares no file says: they are padded, or stretched where asked.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.backbones import (
    HIDDEN_UNITS,
    IMAGENET_DEVIATION,
    IMAGENET_MEAN,
    LOCAL,
    SCALINGS,
    Backbone,
    build_classifier,
    find_backbone,
    find_scaling,
)
from core.checkpoints.archives import (
    DAMAGED,
    IDLE_KINDS,
    FileLayer,
    ModelFile,
    find_sources,
    open_model_file,
    read_numbers,
)
from core.checkpoints.weights import WEIGHTS_NAME, copy_weights, load_weights
from core.errors import CheckpointError

if TYPE_CHECKING:
    import keras

DEFAULT_INPUT_SIZE = 224
PREPARING_KINDS = IDLE_KINDS | {"Concatenate", "InputLayer", "Normalization", "Rescaling"}
# Layers of Scaphoid's own graph that no backbone has.
OWN_LAYERS = ("film", "three_channels", "preprocessing", "pooled", "hidden", "dropout", "logit", "probability")
# Settings that change what a layer answers.
COMPARED = (
    *("kernel_size", "strides", "padding", "dilation_rate", "groups", "use_bias", "epsilon", "activation", "pool_size"),
    *("filters", "target_shape"),
)
# Names that Keras numbers itself, so that they differ from graph to graph.
NUMBERED = ("zero_padding2d", "rescaling", "normalization")
NORMALISATION_EPSILON = 1e-7
_OWN_HEAD = ("hidden", "logit")
_PREPARED_BY_WEIGHTS = "Weights alone must not prepare films themselves, but these do: import the whole model (.keras)."
_SCALING_UNTOLD = (
    "Scaphoid's own weights without their card do not say what films are scaled to, so --scaling must name it, but it "
    "is not given."
)


@dataclass(frozen=True, eq=False)
class ImportedModel:
    """A model made elsewhere in Scaphoid's own graph.

    Attributes
    ----------
    model : keras.Model
        With the file's weights, float32.
    scaling : str or Mapping
        As on a card.
    input_size : int
    location_head : bool
    described : bool
        Whether the file said how its network is built; where it did not, the head's activations were assumed.
    scaling_assumed : bool
        Whether nobody said what was handed to the network.
    units : int
        How many answers its head gives, 1 or 2.
    positive_unit : int
        Which of two speaks for the finding, or of one: 1 where a high answer does, 0 where a low one does.
    fit : str
        How films became squares when it was trained, as whoever imports it says.
    """

    model: keras.Model
    scaling: str | Mapping[str, Sequence[float]]
    input_size: int
    location_head: bool
    described: bool
    scaling_assumed: bool = False
    units: int = 1
    positive_unit: int = 1
    fit: str = "pad"

    @property
    def preparation(self) -> str:
        """How films are prepared, and what was assumed because the file does not say it, in sentences."""
        name = self.scaling if isinstance(self.scaling, str) else "scale and offset by the numbers in the file"
        assumed = " (assumed; --scaling names another)" if self.scaling_assumed else ""
        head = "" if self.described else " The head's activations were assumed: ReLU, and sigmoid for the answer."
        squares = (
            "They are padded to squares; --fit stretch is for what was trained on films that were stretched."
            if self.fit == "pad"
            else "They are stretched to squares, their proportions lost, as it was trained."
        )
        answer = ("a low answer", "a high answer") if self.units == 1 else ("the first answer", "the second answer")
        return (
            f"Films are prepared as: {name}{assumed}. {squares} Taken to speak for the finding: "
            f"{answer[self.positive_unit]} (--positive-unit names the other).{head}"
        )


def read_model(
    source: Path,
    backbone: str,
    *,
    input_size: int | None = None,
    scaling: str | None = None,
    positive_unit: int = 1,
) -> ImportedModel:
    """Read a model made elsewhere into the graph of `backbone`.

    Parameters
    ----------
    source : pathlib.Path
        A Keras 3 archive (.keras), Keras 3 weights (.weights.h5), or an older .h5.
    backbone : str
        A key of ``core.backbones.BACKBONES``.
    input_size : int, optional
        Pixels a side; the file's own where not given, else 224.
    scaling : str, optional
        What was handed to the network: a key of ``core.backbones.SCALINGS``. Where not given, it is what the file's own
        preparing layers ask for, and ``"keras"`` where it has none. Weights of Scaphoid's own, without their card, need
        it: the same network is published with several scalings.
    positive_unit : int
        Which of two units speaks for the finding, or of one: 1 where a high answer does, 0 where a low one does.

    Raises
    ------
    CheckpointError
        The file is none of these, damaged, carries code or an unknown layer; its network is not this backbone with such
        a head, an array is not of the shape it must have, or the scaling must be given and is not.
    """
    if scaling is not None and scaling not in SCALINGS:
        raise CheckpointError(f"The scaling must be one of {', '.join(SCALINGS)}, but it is another.")
    known = find_backbone(backbone)
    if positive_unit not in (0, 1):
        raise CheckpointError("The positive unit must be 0 or 1, but it is another.")
    with open_model_file(source) as file:
        imported = _adapt(file, backbone, input_size, scaling) if file.layers else None
    imported = imported or _take_by_order(source, known, input_size or DEFAULT_INPUT_SIZE, scaling)
    if positive_unit == 0:
        # What speaks for one of two is what speaks against the other, and so it is with a low answer.
        logit = imported.model.get_layer("logit")
        logit.set_weights([-values for values in logit.get_weights()])
    return replace(imported, positive_unit=positive_unit)


def _adapt(file: ModelFile, backbone: str, input_size: int | None, scaling: str | None) -> ImportedModel:
    """Carry an open file's model over into the graph of `backbone`."""
    known = find_backbone(backbone)
    size = _choose_size(file, input_size)
    location = any(layer.name == "location" for layer in file.layers)
    model = build_classifier(backbone, input_size=size, location_head=location)
    wanted = [layer for layer in model.layers if layer.name not in OWN_LAYERS and not layer.name.startswith(NUMBERED)]
    names = {layer.name for layer in wanted}
    _take_layers(wanted, file, known, model)
    if file.described:
        preparing, head = _split(file, model, known, names)
        dense = _read_head(head)
    else:
        preparing, dense = _find_normalisation(file, names, known), _find_dense(file, names)
        _refuse_others(file, names | {"location"}, [*preparing, *dense])
    units = _set_head(model, dense, known)
    found = _find_scaling(file, preparing, known, scaling)
    assumed = scaling is None and not _holds_own_graph(file)
    return ImportedModel(model, found, size, location, file.described, assumed, units)


def _take_by_order(source: Path, known: Backbone, size: int, scaling: str | None) -> ImportedModel:
    """Read a weights file without names, as Scaphoid publishes them: it must be of Scaphoid's own graph."""
    refusal = None
    for location in (False, True):
        model = build_classifier(known.name, input_size=size, location_head=location)
        try:
            with tempfile.TemporaryDirectory() as aside:
                copy_weights(source, Path(aside) / WEIGHTS_NAME, np.float32)  # leaves an optimizer's state behind
                load_weights(model, Path(aside) / WEIGHTS_NAME)
        except CheckpointError as error:
            refusal = refusal or error
            continue
        except OSError as error:
            raise CheckpointError(DAMAGED) from error
        steps = [layer.get_weights()[:2] for layer in model.layers if layer.name.startswith("normalization")]
        if any(not np.array_equal(step, [[0.0] * 3, [1.0] * 3]) for step in steps):
            raise CheckpointError(_PREPARED_BY_WEIGHTS)
        if scaling is None:
            raise CheckpointError(_SCALING_UNTOLD)
        return ImportedModel(model, scaling, size, location, False)
    raise refusal


def _choose_size(file: ModelFile, asked: int | None) -> int:
    """Return the pixels a side, as asked for and as the file says."""
    height, width = (file.input_shape or (None, None))[:2]
    if height != width:
        raise CheckpointError("The file's network must read square films, but its films are not square.")
    if None not in (asked, height) and asked != height:
        raise CheckpointError(f"The input size must be the file's own {height} pixels, but {asked} was asked for.")
    return asked or height or DEFAULT_INPUT_SIZE


# --- backbone ---------------------------------------------------------------------------------------------------------


def _take_layers(wanted: Sequence[keras.Layer], file: ModelFile, known: Backbone, model: keras.Model) -> None:
    """Put the file's numbers into the backbone's layers, after making sure that they are the same layers."""
    found = {layer.name: layer for layer in file.layers}
    entries = model.get_config()["layers"] if file.described else ()
    sources = {entry["name"]: find_sources(_comparable(entry["inbound_nodes"])) for entry in entries}
    for layer in wanted:
        theirs = found.get(layer.name)
        if theirs is None and (layer.weights or file.described):
            raise CheckpointError(
                f"The file must hold {known.title} with the names that Keras gives its layers, but it has no "
                f"{layer.name}."
            )
        if file.described and not (_same_settings(layer, theirs) and _same_sources(sources[layer.name], theirs)):
            raise CheckpointError(f"The file's layers must be those of {known.title}, but its {layer.name} differs.")
        if layer.weights:
            arrays = _named(theirs, [weight.name for weight in layer.weights])
            layer.set_weights([_read(arrays.get(w.name), tuple(w.shape), layer.name) for w in layer.weights])


def _same_settings(layer: keras.Layer, theirs: FileLayer) -> bool:
    """Tell whether a layer of the file is of the kind and set as the one in the graph."""
    settings = layer.get_config()
    return theirs.kind == type(layer).__name__ and all(
        _comparable(theirs.config[name]) == _comparable(settings[name])
        for name in COMPARED
        if name in settings and name in theirs.config
    )


def _same_sources(ours: Sequence[str], theirs: FileLayer) -> bool:
    """Tell whether a layer of the file reads the layers it reads in the graph; where films enter, any will do."""
    loose = (*NUMBERED, "preprocessing")
    return len(ours) == len(theirs.sources) and all(
        name.startswith(loose) or name == other for name, other in zip(ours, theirs.sources, strict=True)
    )


def _comparable(value: Any) -> Any:
    """Return a setting in the form that JSON gives it; one activation has two names."""
    value = json.loads(json.dumps(value))
    return "silu" if value == "swish" else value


def _named(layer: FileLayer, names: Sequence[str]) -> dict[str, Any]:
    """Return a layer's arrays by the variables' names; Keras 3 files only number them."""
    if set(layer.arrays) <= {str(number) for number in range(len(names))}:
        return {names[int(place)]: array for place, array in layer.arrays.items()}
    return {("kernel" if name == "depthwise_kernel" else name): array for name, array in layer.arrays.items()}


def _read(array: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Return an array of the file as float32 if it has the shape it must have; no other is read."""
    if array is None or tuple(array.shape) != shape:
        got = "none" if array is None else " x ".join(map(str, array.shape)) or "1"
        must = " x ".join(map(str, shape)) or "1"
        raise CheckpointError(f"An array of the layer {name} must be {must}, but the file has {got}.")
    values = read_numbers(array, np.float32)
    if not np.isfinite(values).all():
        raise CheckpointError("Every weight must be a number, but one is not.")
    return values


def _split(
    file: ModelFile, model: keras.Model, known: Backbone, wanted: set[str]
) -> tuple[list[FileLayer], list[FileLayer]]:
    """Return the layers before and after the backbone; refuse any other between its own."""
    import keras

    ours = [layer for layer in model.layers if isinstance(layer, keras.layers.ZeroPadding2D)]
    ours = [_comparable(layer.get_config()["padding"]) for layer in ours if layer.name.startswith(NUMBERED)]
    padding = [layer for layer in file.layers if layer.kind == "ZeroPadding2D" and layer.name not in wanted]
    if [_comparable(layer.config.get("padding")) for layer in padding] != ours:
        raise CheckpointError(f"The file's layers must be those of {known.title}, but its padding differs.")
    layers = [layer for layer in file.layers if layer not in padding and layer.name != "location"]
    places = [place for place, layer in enumerate(layers) if layer.name in wanted]
    first, last = places[0], next(place for place in places if layers[place].name == known.feature_layer)
    if len(places) != places[-1] - first + 1 or last != places[-1]:
        raise CheckpointError(f"The file's layers must be those of {known.title}, but there are more among them.")
    return layers[:first], layers[last + 1 :]


# --- head -------------------------------------------------------------------------------------------------------------

_DENSE = ("kernel", "bias")
_NORMALISATION = ("mean", "variance", "count")


def _read_head(layers: Sequence[FileLayer]) -> list[FileLayer]:
    """Return the one or two dense layers of a described head; refuse every other kind of head."""
    sentence = "The head must be a global average, at most one hidden ReLU layer and one unit, but it is another."
    layers = [layer for layer in layers if layer.kind not in IDLE_KINDS]
    if not layers or layers[0].kind != "GlobalAveragePooling2D" or layers[0].config.get("keepdims"):
        raise CheckpointError(sentence)
    dense, activations = [], []
    for layer in layers[1:]:
        activation = layer.config.get("activation")
        if layer.kind == "Dense":
            dense.append(layer)
            activations.append(activation)
        elif layer.kind == "Activation" and activations and activations[-1] == "linear":
            activations[-1] = activation
        else:
            raise CheckpointError(sentence)
    units = [layer.config.get("units") for layer in dense]
    ends = {1: ("sigmoid", "linear"), 2: ("softmax", "linear")}
    if not 1 <= len(dense) <= 2 or not isinstance(units[-1], int) or activations[-1] not in ends.get(units[-1], ()):
        raise CheckpointError(sentence)
    if activations[:-1] not in ([], ["relu"]):
        raise CheckpointError(sentence)
    return dense


def _find_dense(file: ModelFile, names: set[str]) -> list[FileLayer]:
    """Return the dense layers of a file without description, the hidden one first."""
    dense: dict[str, FileLayer] = {}
    for layer in file.layers:
        kernel = _named(layer, _DENSE).get("kernel")
        if layer.name not in names and kernel is not None and len(kernel.shape) == 2:
            dense[kernel.name] = layer  # older files are read under two names
    return sorted(dense.values(), key=lambda layer: -_named(layer, _DENSE)["kernel"].shape[1])


def _refuse_others(file: ModelFile, names: set[str], chosen: Sequence[FileLayer]) -> None:
    """Refuse a file without description that has further layers: without their numbers it would answer otherwise."""
    held = {array.name for layer in file.layers for array in layer.arrays.values()}
    held -= {array.name for layer in file.layers if layer.name in names for array in layer.arrays.values()}
    held -= {array.name for layer in chosen for array in layer.arrays.values()}
    if any(not re.match(r"/(optimizer|optimizer_weights)/", name) and "/seed_generator/" not in name for name in held):
        raise CheckpointError(
            "Weights alone must be those of the backbone and of one or two dense layers, but these have further ones: "
            "import the whole model (.keras)."
        )


def _set_head(model: keras.Model, dense: Sequence[FileLayer], known: Backbone) -> int:
    """Put the file's head into the graph's: a hidden layer with ReLU and one unit. Return how many units it had."""
    shapes = [tuple(getattr(_named(layer, _DENSE).get("kernel"), "shape", ())) for layer in dense]
    features = int(model.get_layer("hidden").kernel.shape[0])
    widths = [features, *(shape[-1] for shape in shapes if shape)]
    joined = list(pairwise(widths))
    if not 1 <= len(dense) <= 2 or shapes != joined or widths[-1] > 2 or max(widths[1:]) > HIDDEN_UNITS:
        raise CheckpointError(
            f"The head must lead from the {features:,} features of {known.title} over at most {HIDDEN_UNITS} hidden "
            "units to one or two, but it is another."
        )
    layers = []
    for layer, shape in zip(dense, shapes, strict=True):
        arrays = _named(layer, _DENSE)
        bias = arrays.get("bias")
        bias = np.zeros(shape[1], np.float32) if bias is None else _read(bias, shape[1:], "head")
        layers.append((_read(arrays["kernel"], shape, "head"), bias))
    kernel, bias = layers[-1]
    units = kernel.shape[1]
    if units == 2:  # Of two softmax units only the difference counts.
        kernel, bias = kernel[:, 1:] - kernel[:, :1], bias[1:] - bias[:1]
    if len(layers) == 1:
        # x = relu(x) - relu(-x): two hidden units stand for none.
        layers = [(np.hstack([kernel, -kernel]), np.hstack([bias, -bias]))]
        kernel, bias = np.array([[1.0], [-1.0]], np.float32), np.zeros(1, np.float32)
    hidden, hidden_bias = layers[0]
    spare = HIDDEN_UNITS - hidden.shape[1]
    model.get_layer("hidden").set_weights([np.pad(hidden, ((0, 0), (0, spare))), np.pad(hidden_bias, (0, spare))])
    model.get_layer("logit").set_weights([np.pad(kernel, ((0, spare), (0, 0))), bias])
    return units


# --- how films are prepared -------------------------------------------------------------------------------------------


def _find_normalisation(file: ModelFile, names: set[str], known: Backbone) -> list[FileLayer]:
    """Return the layer of a file without description that standardises films: of EfficientNetB0, else there is none."""
    found = [layer for layer in file.layers if layer.name not in names and len(layer.arrays) == len(_NORMALISATION)]
    found = [layer for layer in found if set(_named(layer, _NORMALISATION)) == set(_NORMALISATION)]
    distinct = {_named(layer, _NORMALISATION)["mean"].name: layer for layer in found}
    if len(distinct) > int(known.divisor != 1.0):
        raise CheckpointError(_PREPARED_BY_WEIGHTS)
    return list(distinct.values())


def _find_scaling(
    file: ModelFile, preparing: Sequence[FileLayer], known: Backbone, scaling: str | None
) -> str | dict[str, list[float]]:
    """Return the card's scaling: what is handed to the network and what its own layers make of it, as one."""
    own = _holds_own_graph(file)
    if own and not file.described:
        # Scaphoid's own weights: the graph prepares films, and its normalisation layer does nothing.
        if scaling is None:
            raise CheckpointError(_SCALING_UNTOLD)
        return scaling
    if scaling == LOCAL:
        raise CheckpointError("Only Scaphoid's own networks level contrast, but this file holds another network.")
    scale, offset = _compose(file, preparing, known)
    plain = np.allclose(scale, 1.0 / known.divisor) and np.allclose(offset, 0.0)
    standard = known.divisor != 1.0 and np.allclose(scale, np.divide(known.scale, 255.0), rtol=1e-4)
    if scaling is None:
        scaling = "unit" if own else "keras" if plain or standard else _guess_range(scale, offset)
    handed_scale, handed_offset = _find_handed(known, scaling)
    whole = (handed_scale * scale, handed_offset * scale + offset)
    for name in SCALINGS:
        if np.allclose(find_scaling(known.name, name), whole, rtol=1e-6, atol=1e-6):
            return name
    return {"scale": whole[0].tolist(), "offset": whole[1].tolist()}


def _holds_own_graph(file: ModelFile) -> bool:
    """Tell by its names whether a file holds Scaphoid's own graph, which prepares films itself.

    A stranger's last layer may be called ``logit``, too.
    """
    own = ("film", "three_channels", "preprocessing", "pooled", "hidden", "logit") if file.described else _OWN_HEAD
    return set(own) <= {layer.name for layer in file.layers}


def _guess_range(scale: np.ndarray, offset: np.ndarray) -> str:
    """Tell from what preparing layers do whether they were made for films in [0, 255] or in [0, 1]."""
    return "byte" if 255.0 * scale.max() < 20.0 or (-offset / scale).max() > 2.0 else "unit"


def _find_handed(known: Backbone, scaling: str) -> tuple[np.ndarray, np.ndarray]:
    """Return what is handed to the network as Keras publishes it: film * scale + offset."""
    if scaling == "keras":
        scaling = "byte" if known.divisor != 1.0 else "keras"
    scale, offset = SCALINGS[scaling] or (known.scale, known.offset)
    return np.array(scale, np.float64), np.array(offset, np.float64)


def _compose(file: ModelFile, layers: Sequence[FileLayer], known: Backbone) -> tuple[np.ndarray, np.ndarray]:
    """Return what the file's own layers make of what they are handed: handed * scale + offset, channel by channel."""
    scale, offset = np.ones(3), np.zeros(3)
    if not file.described:
        scale /= known.divisor
    for layer in layers:
        if file.described and layer.kind not in PREPARING_KINDS:
            raise CheckpointError(f"Films must be prepared by scaling alone, but the file has a layer {layer.kind}.")
        if layer.kind == "Concatenate" and (file.input_shape or (0, 0, 3))[2] != 1:
            raise CheckpointError("Films must be prepared by scaling alone, but the file joins several pictures.")
        times, plus = _read_step(layer, described=file.described)
        scale, offset = scale * times, offset * times + plus
    if not np.isfinite([scale, offset]).all() or (scale <= 0).any():
        raise CheckpointError("Films must be prepared by numbers above 0, but the file's are not.")
    return scale, offset


def _read_step(layer: FileLayer, *, described: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return what one preparing layer does: times and plus, three numbers each."""
    if layer.kind == "Rescaling":
        return _three(layer.config.get("scale", 1.0)), _three(layer.config.get("offset", 0.0))
    if layer.kind not in ("Normalization", ""):
        return np.ones(3), np.zeros(3)
    if layer.config.get("invert"):
        raise CheckpointError("Films must be prepared by scaling alone, but the file has a normalisation turned round.")
    arrays = _named(layer, _NORMALISATION)
    mean, variance = (
        _three(read_numbers(arrays[name]) if name in arrays else layer.config.get(name))
        for name in ("mean", "variance")
    )
    published = np.allclose([mean, variance], [IMAGENET_MEAN, IMAGENET_DEVIATION], atol=1e-3)
    if published and not described:
        # Keras stores deviations as variances and divides once more in a layer without weights.
        variance = variance**2
    times = 1.0 / np.maximum(np.sqrt(variance), NORMALISATION_EPSILON)
    return times, -mean * times


def _three(value: Any) -> np.ndarray:
    """Return one number, or one for each channel, as three."""
    try:
        numbers = np.asarray(value, np.float64).reshape(-1)
        return np.broadcast_to(numbers, 3).copy()
    except (TypeError, ValueError) as error:
        raise CheckpointError("Films must be prepared by one number or three, but the file has others.") from error
