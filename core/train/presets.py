"""What a training can be asked for: the presets, and every setting that lives in ``settings.extra``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from core.backbones import SMALLEST_INPUT, find_backbone, find_scaling
from core.checkpoints.cards import LARGEST_INPUT
from core.classifier import LOOKS
from core.errors import CheckpointError, TrainingError
from core.metrics import CALIBRATIONS
from core.starts import LITE0_START
from core.train import recipes
from core.values import FITS, TrainingSettings

TASKS = ("fracture", "wrist")
OPTIMIZERS = ("adamw", "adam")
SCHEDULES = ("cosine", "plateau", "constant")
LOSSES = ("cross_entropy", "focal")
OWN_AUGMENTATION = "scaphoid"
LARGEST_SEED = 2**32 - 1
EARLY = "early"
"""In place of names of layers: every layer up to the backbone's features of stride 4."""
OF_CLASSIFIERS = (
    "label_smoothing", "location_weight", "scaling", "fit", "augmentation", "mixup", "textures", "looks", "loss",
    "focal_gamma", "class_weights", "dropout", "distil_features", "distil_logit", "teacher_head", "calibration",
)  # fmt: skip
"""Settings that a wrist finder's training does not ask for."""
FIELDS = ("label_smoothing", "location_weight", "warmup_epochs", "weight_decay")
"""Fields of `TrainingSettings` that are set as those of `EXTRA` are."""

EXTRA: Mapping[str, tuple[Any, str]] = MappingProxyType(
    {
        # Films
        "small_size": (None, "pixels a side in the first epochs; the input size where None"),
        "small_epochs": (0, "how many epochs see films of `small_size`"),
        "epoch_films": (None, "how many films an epoch sees, drawn anew for each; all where None"),
        "scaling": ("keras", "what a film becomes before the backbone: a key of core.backbones.SCALINGS"),
        "fit": ("pad", "how a whole film becomes a square: pad, or stretch it; a wrist's square is one already"),
        "augmentation": (
            OWN_AUGMENTATION,
            "scaphoid (see core.train.batches) or one of core.train.recipes",
        ),
        "mixup": (0.0, "alpha of the Beta distribution films are mixed by; 0: not at all (Zhang et al. 2018)"),
        "textures": (0.0, "share of the films whose texture is changed (core.train.changes.change_texture)"),
        "looks": (1, "how many slightly different squares of a film are read and averaged (core.classifier.LOOKS)"),
        "decoys": (2400, "simulated films without a wrist that a finder also sees"),
        # What is trained when; applies only where training starts from weights that mean something
        "frozen": ((), "beginnings of the names of layers that keep the weights they started from; or early"),
        "unfreeze": ((), "list of [epoch, prefixes]: from this epoch (the first is 1) on only these are `frozen`"),
        "head_epochs": (0, "how many epochs train the head alone"),
        "trainable_last": (None, "only the last so many layers of the backbone are trained after `head_epochs`"),
        "norm_frozen": (False, "batch normalisation of the backbone is never trained: it keeps the statistics"),
        "norm_momentum": (0.9, "of the batch normalisation's moving statistics"),
        # Loss
        "loss": ("cross_entropy", "of the label: cross_entropy or focal (Lin et al. 2017)"),
        "focal_gamma": (2.0, "the focal loss' exponent"),
        "class_weights": (None, 'None, "balanced" (n / (2 n of the class)) or {"0": w, "1": w}'),
        "dropout": (0.3, "share of the hidden units dropped in training"),
        # Optimiser
        "optimizer": ("adamw", "adamw or adam"),
        "schedule": ("cosine", "cosine, plateau (on the loss on valid) or constant; each after `warmup_epochs`"),
        "plateau_factor": (0.2, "what the rate is multiplied by on a plateau"),
        "plateau_patience": (2, "epochs without a better loss on valid that make a plateau"),
        "plateau_smallest": (1e-6, "the rate is never made smaller than this"),
        "clip_norm": (1.0, "largest norm of a variable's gradient; None: not clipped"),
        "early_stopping": (0, "epochs without a better loss on valid after which training ends with the best weights"),
        "ema": (0.0, "decay a step of the moving average of the weights, which is measured and published; 0: none"),
        # Distillation
        "distil_features": (1.0, "weight of the teachers' features beside the label"),
        "distil_logit": (1.0, "weight of the teachers' soft label beside the label"),
        "teacher_head": (0, "with a teacher: after how many epochs the head begins anew as the first one's; 0: never"),
        # Measuring
        "calibration": ("platt", "how logits become probabilities: temperature, platt or isotonic"),
    }
)
"""Name -> (value where it is not given, what it means)."""

PRESETS: dict[str, TrainingSettings] = {
    "scaphoid": TrainingSettings(
        backbone="",
        epochs=5,
        learning_rate=1e-3,
        location_weight=2.0,
        label_smoothing=0.02,
        preset="scaphoid",
        # All epochs but the last see smaller films, which costs half; the first stages keep what ImageNet taught them.
        # checkpoints/README.md tells what levelled contrast, changed textures, the mask loss and the looks gave.
        extra={
            "small_size": 160,
            "small_epochs": 4,
            "scaling": "local",
            "ema": 0.998,
            "textures": 0.5,
            "looks": 6,
            "frozen": [EARLY],
            # From random numbers its hidden units die in the first epoch: the answer is the same for every film.
            "teacher_head": 1,
        },
    ),
    "wrist": TrainingSettings(
        backbone="efficientnetlite0",
        input_size=192,
        epochs=3,
        learning_rate=1.5e-3,
        location_weight=0.0,
        preset="wrist",
        extra={
            "small_size": 128,
            "small_epochs": 2,
            "frozen": [EARLY],
        },
    ),
    **recipes.PRESETS,
}


def option(settings: TrainingSettings, name: str) -> Any:
    """Return a setting of ``settings.extra``, or what it is where it is not given."""
    return settings.extra.get(name, EXTRA[name][0])


def size_of_epoch(settings: TrainingSettings, epoch: int) -> int:
    """Return the pixels a side of the films in an epoch, counted from 0."""
    small = option(settings, "small_size") if epoch < option(settings, "small_epochs") else None
    return min(int(small), settings.input_size) if small else settings.input_size


def starts_trained(settings: TrainingSettings) -> bool:
    """Tell whether the network can tell something at the start: what has learned nothing must not be kept.

    Neither random numbers have, nor the weights of another network, which mean nothing before they are trained.
    """
    return settings.weights not in (None, LITE0_START)


def idle_settings(settings: TrainingSettings) -> tuple[str, ...]:
    """Return the names of the settings that were made, but keep nothing frozen, since nothing was learned before."""
    if starts_trained(settings):
        return ()
    made = {name: option(settings, name) for name in ("frozen", "unfreeze", "head_epochs", "norm_frozen")}
    last = option(settings, "trainable_last")
    return (*(name for name, value in made.items() if value), *(("trainable_last",) if last is not None else ()))


def frozen_layers(settings: TrainingSettings, names: Sequence[str], epoch: int) -> frozenset[str]:
    """Return which layers of the backbone are not trained in an epoch.

    Parameters
    ----------
    settings : TrainingSettings
    names : sequence of str
        Of the backbone's layers, from the film to the features.
    epoch : int
        Counted from 0.

    Returns
    -------
    frozenset of str
        Empty unless `starts_trained`.
    """
    if not starts_trained(settings):
        return frozenset()
    if epoch < option(settings, "head_epochs"):
        return frozenset(names)
    prefixes = option(settings, "frozen")
    for begins, then in sorted(option(settings, "unfreeze"), key=lambda step: step[0]):
        if epoch + 1 >= begins:
            prefixes = then
    frozen = {name for name in names if prefixes and name.startswith(tuple(set(prefixes) - {EARLY}))}
    if EARLY in prefixes:
        frozen |= set(names[: names.index(find_backbone(settings.backbone).early_layers[0]) + 1])
    last = option(settings, "trainable_last")
    if last is not None:
        frozen |= set(names[: max(len(names) - int(last), 0)])
    return frozenset(frozen)


def check_settings(settings: TrainingSettings, task: str = "fracture") -> None:
    """Refuse settings that cannot be carried out, before any work is done.

    Raises
    ------
    TrainingError
    """
    if not (settings.epochs >= 1 and settings.batch_size >= 2 and _is_number(settings.learning_rate, above=0)):
        raise TrainingError("At least one epoch, two films a batch and a learning rate above 0 are needed.")
    if not _is_whole(settings.seed, 0, LARGEST_SEED):
        raise TrainingError(f"A seed is a whole number from 0 to {LARGEST_SEED}, but {settings.seed} came.")
    unknown = sorted(set(settings.extra) - set(EXTRA))
    if unknown:
        raise TrainingError(f"Every setting must be one that training knows, but it does not know {unknown[0][:40]!r}.")
    for name, (kind, check) in _RULES.items():
        value = getattr(settings, name) if name in (*FIELDS, "input_size") else option(settings, name)
        if not check(value):
            raise TrainingError(f"The setting {name} must be {kind}, but it is not.")
    try:
        find_scaling(settings.backbone or "efficientnetlite0", option(settings, "scaling"))
    except CheckpointError as error:
        raise TrainingError(str(error)) from error
    _check_effect(settings, task)
    if task == "wrist":
        _check_finder(settings)
    elif settings.backbone == "densenet169":
        _check_halvings(settings)


def _check_effect(settings: TrainingSettings, task: str) -> None:
    """Refuse settings that would change nothing: the card would tell of them as if they had."""
    by_name = option(settings, "augmentation") != OWN_AUGMENTATION
    without, what = (), ""
    if task == "wrist":
        without, what = OF_CLASSIFIERS, "a wrist finder"
    elif by_name:
        without, what = ("textures", "location_weight"), "a training with a recipe's films"
    made = [name for name in without if _is_made(settings, name)]
    if made:
        raise TrainingError(f"Every setting must have an effect, but {', '.join(made)} has none on {what}.")


def _is_made(settings: TrainingSettings, name: str) -> bool:
    """Tell whether a setting is another than where it is not given; fields of the settings: whether it is above 0."""
    return bool(getattr(settings, name)) if name in FIELDS else option(settings, name) != EXTRA[name][0]


def _check_halvings(settings: TrainingSettings) -> None:
    """Refuse sizes at which DenseNet, which halves by pooling without padding, has fewer cells than the others."""
    for size in {size_of_epoch(settings, epoch) for epoch in range(settings.epochs)} | {settings.input_size}:
        if -(-size // 4) // 4 != -(-size // 16):
            raise TrainingError(f"DenseNet169's input size is best a multiple of 16, but {size} came.")


def _check_finder(settings: TrainingSettings) -> None:
    for size in {size_of_epoch(settings, epoch) for epoch in range(settings.epochs)} | {settings.input_size}:
        if size % 16:
            raise TrainingError(f"A wrist finder's input size is a multiple of 16, but {size} came.")
    if option(settings, "early_stopping") or option(settings, "schedule") == "plateau":
        raise TrainingError("A wrist finder is trained without early stopping and plateaus, but one was asked for.")


def _is_whole(value: Any, low: int, high: float = math.inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_number(
    value: Any, low: float = -math.inf, high: float = math.inf, above: float = -math.inf, below: float = math.inf
) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and low <= value <= high and above < value < below


def _is_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(name, str) and name for name in value)


def _is_steps(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(
        isinstance(step, list | tuple) and len(step) == 2 and _is_whole(step[0], 1) and _is_names(step[1])
        for step in value
    )


def _is_class_weights(value: Any) -> bool:
    if isinstance(value, Mapping):
        return set(value) == {"0", "1"} and all(_is_number(weight, above=0) for weight in value.values())
    return value is None or value == "balanced"


def _one_of(*choices: str) -> tuple[str, Callable[[Any], bool]]:
    return f"one of {', '.join(choices)}", lambda value: isinstance(value, str) and value in choices


_COUNT = ("a whole number, 0 or more", lambda value: _is_whole(value, 0))
_ANY = ("a number, 0 or more", lambda value: _is_number(value, 0))
_SHARE = ("a number from 0 to below 1", lambda value: _is_number(value, 0, below=1))
_PIXELS = f"a whole number of pixels from {SMALLEST_INPUT} to {LARGEST_INPUT}"

# What each setting must be, in words and as a check.
_RULES: Mapping[str, tuple[str, Callable[[Any], bool]]] = MappingProxyType(
    {
        "input_size": (_PIXELS, lambda value: _is_whole(value, SMALLEST_INPUT, LARGEST_INPUT)),
        "label_smoothing": _SHARE,
        **dict.fromkeys(("location_weight", "warmup_epochs", "weight_decay"), _ANY),
        "small_size": (
            f"{_PIXELS}, or null",
            lambda value: value is None or _is_whole(value, SMALLEST_INPUT, LARGEST_INPUT),
        ),
        "epoch_films": (
            "a whole number above 0, or null",
            lambda value: value is None or _is_whole(value, 1),
        ),
        **dict.fromkeys(("small_epochs", "head_epochs", "early_stopping", "teacher_head"), _COUNT),
        "augmentation": _one_of(OWN_AUGMENTATION, *recipes.AUGMENTATIONS),
        "fit": _one_of(*FITS),
        "looks": (f"a whole number from 1 to {len(LOOKS)}", lambda value: _is_whole(value, 1, len(LOOKS))),
        **dict.fromkeys(("decoys", "plateau_patience"), ("a whole number above 0", lambda value: _is_whole(value, 1))),
        "frozen": ("a list of words", _is_names),
        "unfreeze": ("a list of an epoch and a list of words each", _is_steps),
        "trainable_last": ("a whole number, 0 or more, or null", lambda value: value is None or _is_whole(value, 0)),
        "norm_frozen": ("true or false", lambda value: isinstance(value, bool)),
        **dict.fromkeys(("norm_momentum", "dropout", "ema"), _SHARE),
        "textures": ("a number from 0 to 1", lambda value: _is_number(value, 0, 1)),
        "loss": _one_of(*LOSSES),
        "calibration": _one_of(*CALIBRATIONS),
        "class_weights": ('null, "balanced" or a weight above 0 for each of 0 and 1', _is_class_weights),
        "optimizer": _one_of(*OPTIMIZERS),
        "schedule": _one_of(*SCHEDULES),
        "plateau_factor": ("a number between 0 and 1", lambda value: _is_number(value, above=0, below=1)),
        "clip_norm": ("a number above 0, or null", lambda value: value is None or _is_number(value, above=0)),
        **dict.fromkeys(("mixup", "focal_gamma", "plateau_smallest", "distil_features", "distil_logit"), _ANY),
    }
)
