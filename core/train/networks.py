"""The network that is trained: built, given what it starts from, partly frozen, and joined with its losses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.backbones import build_classifier
from core.checkpoints import CHECKPOINTS, find_checkpoint, verify
from core.checkpoints.imports import read_model
from core.checkpoints.weights import WEIGHTS_NAME, load_weights
from core.errors import CheckpointError, TrainingError
from core.starts import LITE0_START, start_from_lite0
from core.train.convolutions import quicken_kernels
from core.train.losses import feature_loss, label_loss, location_loss, maps_loss, soft_label_loss
from core.train.norms import fuse_norms
from core.train.presets import frozen_layers, option, starts_trained
from core.train.runs import Request
from core.train.updates import make_adamw, rest_biases
from core.values import Checkpoint, TrainingSettings

# What a graph has besides its backbone.
HEAD = ("film", "three_channels", "preprocessing", "pooled", "hidden", "dropout", "logit", "probability", "location")
HEAD_LAYERS = ("hidden", "logit")
"""Those of the head that learn the label."""
STUDENT, TEACHER_LABEL = "student{number}_{part}", "teacher_label"
FEATURE_PARTS = ("stride4", "stride8", "stride16", "stride32")
"""The features that a teacher's are compared with: from edges to what a film shows."""


def build_network(request: Request, size: int, location: bool, start: bool = False) -> Any:
    """Return the network that is to be trained, at `size` pixels a side.

    Parameters
    ----------
    request : Request
    size : int
    location : bool
        Whether it has a location head.
    start : bool
        Whether to give it the weights that training starts from.
    """
    from core.wrist import build_finder

    settings = request.settings
    weights = None
    from_lite0 = start and request.start is None and settings.weights == LITE0_START
    from_elsewhere = start and request.starts_elsewhere
    if start and request.start is None and not from_lite0 and not from_elsewhere:
        weights = request.weights_file or settings.weights
    if request.task == "wrist":
        model = build_finder(size, weights)
    else:
        model = build_classifier(
            settings.backbone,
            input_size=size,
            weights=weights,
            location_head=location,
            dropout=float(option(settings, "dropout")),
            scaling=option(settings, "scaling"),
        )
    if from_lite0:
        start_from_lite0(model, request.weights_file or "imagenet")
    if from_elsewhere:
        # Numbers alone are taken: what films are scaled to is this training's own choice.
        found = read_model(Path(request.weights_file), settings.backbone, scaling="keras")
        _start_from(model, found.model, location)
    if start and request.start is not None:
        _, source = open_checkpoint(request.start, Path(request.out), size)
        _start_from(model, source, location)
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.momentum = float(option(settings, "norm_momentum"))
    fuse_norms(model)
    quicken_kernels(model)
    return model


def backbone_layers(model: Any) -> list[str]:
    """Return the names of the backbone's layers, from the film to the features."""
    return [layer.name for layer in model.layers if layer.name not in HEAD and not layer.name.startswith("finder_")]


def freeze_layers(model: Any, settings: TrainingSettings, epoch: int) -> frozenset[str]:
    """Let the layers of one epoch be trained and no others; return the names of those with weights that are not.

    In Keras 3 a batch normalisation that is not trained also computes as it does when films are read, and its moving
    statistics stay what they are.
    """
    frozen = frozen_layers(settings, backbone_layers(model), epoch)
    if option(settings, "norm_frozen") and starts_trained(settings):
        inside = set(backbone_layers(model))
        norms = {layer.name for layer in model.layers if type(layer).__name__ == "BatchNormalization"}
        frozen |= norms & inside
    # What has nothing to learn is not counted: Keras numbers such layers anew with every network that it builds.
    frozen &= {layer.name for layer in learning_layers(model)}
    for layer in model.layers:
        layer.trainable = layer.name not in frozen
    rest_biases(model)
    return frozen


def learning_layers(model: Any) -> list[Any]:
    """Return the layers that have something to learn, in their order; all are let be trained from here on."""
    for layer in model.layers:
        layer.trainable = True
    return [layer for layer in model.layers if layer.trainable_weights]


def open_checkpoint(checkpoint_id: str, out: Path, size: int) -> tuple[Checkpoint, Any]:
    """Return the card and the network, for films of `size`, of a checkpoint in `out` or among those that came along.

    Raises
    ------
    CheckpointError
        There is none, it is broken, or it does not read films for fractures.
    """
    try:
        folder = find_checkpoint(checkpoint_id, out)
    except CheckpointError:
        folder = find_checkpoint(checkpoint_id, CHECKPOINTS)
    card = verify(folder)
    if card.task != "fracture":
        raise CheckpointError("A checkpoint that reads films for fractures was expected, but this one finds wrists.")
    model = build_classifier(card.backbone, input_size=size, location_head=card.location_head, scaling=card.scaling)
    load_weights(model, folder / WEIGHTS_NAME, card.weights_sha256)
    return card, model


def _start_from(model: Any, source: Any, location: bool) -> None:
    """Give `model` the weights of another, layer by layer, wherever name and shapes are the same."""
    known = {layer.name: layer for layer in source.layers if layer.weights}
    wanted = [layer for layer in model.layers if layer.weights and (location or layer.name != "location")]
    moved = 0
    for layer in wanted:
        other = known.get(layer.name)
        if other is not None and [w.shape for w in layer.weights] == [w.shape for w in other.weights]:
            layer.set_weights(other.get_weights())
            moved += 1
    if moved < 0.5 * len(wanted):
        raise TrainingError("What to start from must have the same backbone, but most of its layers differ.")


def join_losses(model: Any, request: Request, weights: tuple[float, float], teachers: Sequence[Any] = ()) -> Any:
    """Return the part of the network that has losses, compiled; it shares the network's weights.

    Parameters
    ----------
    model : keras.Model
    request : Request
    weights : tuple of float
        Of classes 0 and 1.
    teachers : sequence of Teacher
        Whose features and label are learned too (see :mod:`core.train.distillation`).
    """
    import keras

    settings = request.settings
    optimizer = make_optimizer(settings)
    if request.task == "wrist":
        trained, losses, shares = model, {"maps": maps_loss}, None
    else:
        outputs = {name: model.output[name] for name in ("logit", "location") if name in model.output}
        losses: dict[str, Any] = {"logit": label_loss(settings, weights)}
        shares = {"logit": 1.0}
        if "location" in outputs:
            losses["location"], shares["location"] = location_loss, settings.location_weight
        if teachers:
            _add_students(outputs, losses, shares, model, settings, teachers)
        trained = keras.Model(model.input, outputs)
        quicken_kernels(trained)
    trained.compile(optimizer, losses, loss_weights=shares)
    # A policy of half precision wraps the optimizer, so that small gradients are not lost.
    trained.optimizer.build(trained.trainable_variables)
    return trained


def _add_students(
    outputs: dict[str, Any], losses: dict[str, Any], shares: dict[str, float], model: Any, settings: TrainingSettings,
    teachers: Sequence[Any],
) -> None:  # fmt: skip
    """Add what is compared with the teachers: features through 1x1 convolutions that are thrown away at the end."""
    from keras import layers

    from core.backbones import find_backbone

    backbone = find_backbone(settings.backbone)
    own = dict(zip(FEATURE_PARTS, backbone.stages, strict=True))
    for number, teacher in enumerate(teachers):
        for part, channels in zip(FEATURE_PARTS, teacher.channels, strict=True):
            name = STUDENT.format(number=number, part=part)
            features = model.get_layer(own[part]).output
            outputs[name] = layers.Conv2D(channels, 1, name=name)(features)
            losses[name] = feature_loss
            shares[name] = float(option(settings, "distil_features")) / (len(teachers) * len(FEATURE_PARTS))
    outputs[TEACHER_LABEL] = layers.Activation("linear", dtype="float32", name=TEACHER_LABEL)(model.output["logit"])
    losses[TEACHER_LABEL], shares[TEACHER_LABEL] = soft_label_loss, float(option(settings, "distil_logit"))


def make_optimizer(settings: TrainingSettings) -> Any:
    """Return the optimizer; its learning rate is set before each step."""
    import keras

    clip = option(settings, "clip_norm")
    common = {"learning_rate": settings.learning_rate, "clipnorm": clip, "name": "optimizer"}
    if option(settings, "optimizer") == "adam":
        return keras.optimizers.Adam(**common)
    optimizer = make_adamw(weight_decay=settings.weight_decay, **common)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer
