"""What a training can be asked for: the presets, and every setting that lives in ``settings.extra``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from core.classifier import LOOKS
from core.errors import TrainingError
from core.train import recipes
from core.values import TrainingSettings

TASKS = ("fracture", "wrist")
OPTIMIZERS = ("adamw", "adam")
SCHEDULES = ("cosine", "plateau", "constant")
LOSSES = ("cross_entropy", "focal")
OWN_AUGMENTATION = "scaphoid"

EXTRA: Mapping[str, tuple[Any, str]] = MappingProxyType(
    {
        # Films
        "small_size": (None, "pixels a side in the first epochs; the input size where None"),
        "small_epochs": (0, "how many epochs see films of `small_size`"),
        "scaling": ("keras", "what a film becomes before the backbone: a key of core.backbones.SCALINGS"),
        "augmentation": (
            OWN_AUGMENTATION,
            "scaphoid (see core.train.batches) or one of core.train.recipes",
        ),
        "mixup": (0.0, "alpha of the Beta distribution films are mixed by; 0: not at all (Zhang et al. 2018)"),
        "looks": (1, "how many slightly different squares of a film are read and averaged (core.classifier.LOOKS)"),
        "decoys": (2400, "simulated films without a wrist that a finder also sees"),
        # What is trained when; applies only where training starts from weights
        "frozen": ((), "beginnings of the names of layers that keep the weights they started from"),
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
        # checkpoints/README.md tells what levelled contrast, the average and the looks are worth.
        extra={
            "small_size": 160,
            "small_epochs": 4,
            "scaling": "local",
            "ema": 0.998,
            "looks": 6,
            "frozen": ["stem", "block1", "block2"],
            "norm_momentum": 0.9,
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
            "frozen": ["stem", "block1", "block2"],
            "norm_momentum": 0.9,
            "decoys": 2400,
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
        Empty where training starts from random numbers: what has learned nothing must not be kept.
    """
    if settings.weights is None:
        return frozenset()
    if epoch < option(settings, "head_epochs"):
        return frozenset(names)
    prefixes = option(settings, "frozen")
    for begins, then in sorted(option(settings, "unfreeze"), key=lambda step: step[0]):
        if epoch + 1 >= begins:
            prefixes = then
    frozen = {name for name in names if prefixes and name.startswith(tuple(prefixes))}
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
    if settings.epochs < 1 or settings.batch_size < 2 or settings.learning_rate <= 0:
        raise TrainingError("At least one epoch, two films a batch and a learning rate above 0 are needed.")
    if task == "wrist" and settings.input_size % 16:
        raise TrainingError(f"A wrist finder's input size is a multiple of 16, but {settings.input_size} came.")
    unknown = sorted(set(settings.extra) - set(EXTRA))
    if unknown:
        raise TrainingError(f"Every setting must be one that training knows, but it does not know {unknown[0][:40]!r}.")
    augmentations = (OWN_AUGMENTATION, *recipes.AUGMENTATIONS)
    allowed = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "loss": LOSSES, "augmentation": augmentations}
    for name, choices in allowed.items():
        if option(settings, name) not in choices:
            raise TrainingError(f"The setting {name} must be one of {', '.join(choices)}, but it is another.")
    if not 0 <= option(settings, "ema") < 1 or option(settings, "mixup") < 0 or option(settings, "focal_gamma") < 0:
        raise TrainingError("ema lies in [0, 1), mixup and focal_gamma are not below 0, but one of them is not so.")
    looks = option(settings, "looks")
    if not isinstance(looks, int) or not 1 <= looks <= len(LOOKS):
        raise TrainingError(f"A checkpoint looks 1 to {len(LOOKS)} times, but another number came.")
    weights = option(settings, "class_weights")
    if weights not in (None, "balanced") and (
        not isinstance(weights, Mapping) or set(weights) != {"0", "1"} or min(weights.values()) <= 0
    ):
        raise TrainingError("Class weights are none, balanced or a weight above 0 for each of 0 and 1.")
    if task == "wrist" and (option(settings, "early_stopping") or option(settings, "schedule") == "plateau"):
        raise TrainingError("A wrist finder is trained without early stopping and plateaus, but one was asked for.")
