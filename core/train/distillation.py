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

import numpy as np

from core.backbones import find_backbone, freeze
from core.errors import TrainingError
from core.metrics import read_calibration
from core.train.devices import computing
from core.train.networks import FEATURE_PARTS, HEAD_LAYERS, STUDENT, TEACHER_LABEL, open_checkpoint

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
        The logit is divided by it before it becomes a probability: of the film, before studies are calibrated.
    bias : float
        And this is added.
    head : tuple of numpy.ndarray
        Kernel and bias of the hidden layer, then of the last one; the hidden layer sees the mean of the features of
        stride 32.
    """

    answer: Callable[[Any], Sequence[Any]]
    channels: tuple[int, ...]
    temperature: float
    bias: float = 0.0
    head: tuple[np.ndarray, ...] = ()


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
    teachers = []
    for checkpoint_id in ids:
        # As it answers when films are read, whatever precision the student is trained in.
        with computing("float32"):
            card, model = open_checkpoint(checkpoint_id, out, size)
        stages = find_backbone(card.backbone).stages
        channels = tuple(int(model.get_layer(name).output.shape[-1]) for name in stages)
        head = tuple(value for name in HEAD_LAYERS for value in model.get_layer(name).get_weights())
        teachers.append(Teacher(_teaching(model, stages), channels, *read_calibration(card.calibration), head))
    return teachers


def begin_head(trained: Any, teacher: Teacher) -> None:
    """Let the student's head begin anew as the first teacher's, seen through the comparison of their features.

    The features of stride 32 are compared through a 1x1 convolution, and the mean over a film of what it returns is
    what it returns of the mean. So the teacher's hidden layer after that convolution is one hidden layer on the
    student's own features. What the optimizer remembers of the head is forgotten.

    Parameters
    ----------
    trained : keras.Model
        As :func:`core.train.networks.join_losses` returns it; changed in place.
    teacher : Teacher
    """
    compare, shift = trained.get_layer(STUDENT.format(number=0, part=FEATURE_PARTS[-1])).get_weights()
    hidden, hidden_bias, last, last_bias = teacher.head
    values = (
        [compare[0, 0] @ hidden, shift @ hidden + hidden_bias],
        [last / teacher.temperature, last_bias / teacher.temperature + teacher.bias],
    )
    for name, own in zip(HEAD_LAYERS, values, strict=True):
        trained.get_layer(name).set_weights(own)
    for memory in trained.optimizer.variables:
        if memory.path.rpartition("/")[2].startswith(tuple(f"{name}_" for name in HEAD_LAYERS)):
            memory.assign(np.zeros(memory.shape, np.float32))


def _teaching(model: Any, stages: Sequence[str]) -> Callable[[Any], Sequence[Any]]:
    """Return a network, whose weights change no more, as a function of films: its stages and its logit."""
    import keras

    if keras.backend.backend() == "tensorflow" and _on_one_processor():
        names = (*stages, "logit")
        frozen = freeze(model, names)
        return lambda films: list(frozen(keras.ops.convert_to_numpy(films)).values())
    shown = keras.Model(model.input, [*(model.get_layer(name).output for name in stages), model.output["logit"]])
    shown.trainable = False
    return answering(shown)


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


def _on_one_processor() -> bool:
    """Tell whether to freeze: what lies on several devices cannot be, and from a GPU answers would be copied back."""
    import tensorflow as tf

    return not tf.distribute.has_strategy() and not tf.config.list_physical_devices("GPU")


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
