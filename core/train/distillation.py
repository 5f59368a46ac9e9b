"""Teachers: published checkpoints whose features and answers a new network learns beside the label.

After Hinton et al. 2015 (https://arxiv.org/abs/1503.02531) and Romero et al. 2015 (https://arxiv.org/abs/1412.6550). A
backbone without a start from ImageNet learns slowly from labels alone; a teacher tells it more of each film than
one bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.backbones import find_backbone
from core.errors import TrainingError
from core.metrics import read_calibration
from core.train.networks import FEATURE_PARTS, STUDENT, TEACHER_LABEL, open_checkpoint

STRIDE = 32


@dataclass(frozen=True, eq=False)
class Teacher:
    """A checkpoint as one function of films.

    Attributes
    ----------
    answer : callable
        Films -> [features of strides 4, 8, 16 and 32, logit].
    channels : tuple of int
        Of the features.
    temperature : float
        The logit is divided by it before it becomes a probability.
    bias : float
        And this is added.
    """

    answer: Callable[[Any], Sequence[Any]]
    channels: tuple[int, ...]
    temperature: float
    bias: float = 0.0


def load_teachers(ids: Sequence[str], out: Path, size: int) -> list[Teacher]:
    """Load teachers for films of `size` pixels a side; they see exactly what the student sees.

    Raises
    ------
    CheckpointError
        There is no such checkpoint, or it is broken.
    TrainingError
        The size is no multiple of 32, so that features of different backbones would not lie over each other.
    """
    if ids and size % STRIDE:
        raise TrainingError(f"With a teacher the films' size is a multiple of {STRIDE}, but {size} came.")
    import keras

    teachers = []
    for checkpoint_id in ids:
        card, model = open_checkpoint(checkpoint_id, out, size)
        backbone = find_backbone(card.backbone)
        parts = [model.get_layer(name).output for name in backbone.stages]
        shown = keras.Model(model.input, [*parts, model.output["logit"]])
        shown.trainable = False
        channels = tuple(int(part.shape[-1]) for part in parts)
        teachers.append(Teacher(answering(shown), channels, *read_calibration(card.calibration)))
    return teachers


def add_answers(teachers: Sequence[Teacher], films: Any, targets: dict[str, Any]) -> dict[str, Any]:
    """Return the targets of a batch with what the teachers say of its films; their probabilities are averaged."""
    from keras import ops

    if not teachers:
        return targets
    told, probabilities = dict(targets), []
    for number, teacher in enumerate(teachers):
        *features, logit = teacher.answer(films)
        for part, values in zip(FEATURE_PARTS, features, strict=True):
            told[STUDENT.format(number=number, part=part)] = values
        probabilities.append(ops.sigmoid(ops.cast(logit, "float32") / teacher.temperature + teacher.bias))
    told[TEACHER_LABEL] = sum(probabilities) / len(probabilities)
    return told


def answering(model: Any) -> Callable[[Any], Any]:
    """Return a network as a function of a batch of films, as it computes when films are read; its weights stay live."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(lambda films: model(films, training=False), reduce_retracing=True)
    if keras.backend.backend() == "torch":
        import torch

        def call(films: Any) -> Any:
            with torch.no_grad():
                return model(films, training=False)

        return call
    return model.predict_on_batch
