"""On what and how exactly a training computes: one device, all GPUs of a machine, several machines; which precision."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from core.errors import TrainingError

PRECISIONS = ("auto", "float32", "mixed_float16", "mixed_bfloat16")


@dataclass(frozen=True, eq=False)
class Team:
    """Which of the processes that train together this one is.

    Attributes
    ----------
    workers : int
    number : int
        This one's, from 0. The first one writes the run's files and publishes.
    """

    workers: int = 1
    number: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes and publishes."""
        return self.number == 0


def choose_precision(asked: str, capabilities: Sequence[tuple[int, int]], devices: int = 1) -> str:
    """Return the dtype policy to train with.

    Parameters
    ----------
    asked : str
        One of `PRECISIONS`.
    capabilities : sequence of tuple of int
        Compute capability of each GPU; empty where there is none.
    devices : int
        How many train together, on this machine and others. Several never train in float16: Keras looks for an overflow
        in each one's share by itself, and clips the shares, not the sum.

    Returns
    -------
    str
        ``"float32"`` on a processor, where bfloat16 is quicker only in some (those with AMX) and for some backbones, so
        that it must be asked for; on GPUs ``"mixed_bfloat16"`` where all have it in hardware (8.0 and later),
        ``"mixed_float16"`` where all have that (7.0 and later), else ``"float32"``.

    Raises
    ------
    TrainingError
        mixed_float16 was asked for without a GPU, or on several devices.
    """
    if asked not in PRECISIONS:
        raise TrainingError(f"A precision must be one of {', '.join(PRECISIONS)}, but it is another.")
    if asked == "mixed_float16" and not capabilities:
        raise TrainingError("The precision mixed_float16 needs a GPU, but there is none.")
    if asked == "mixed_float16" and devices > 1:
        raise TrainingError(f"The precision mixed_float16 is for one device, but {devices} train together.")
    if asked != "auto":
        return asked
    if not capabilities or min(capabilities) < (7, 0):
        return "float32"
    if min(capabilities) >= (8, 0):
        return "mixed_bfloat16"
    return "mixed_float16" if devices == 1 else "float32"


def read_team(tf_config: str | None) -> Team:
    """Return the team that the environment variable TF_CONFIG describes.

    Raises
    ------
    TrainingError
        It is not what TensorFlow describes a cluster of workers by.
    """
    if not tf_config:
        return Team()
    try:
        content = json.loads(tf_config)
        cluster, task = content["cluster"], content["task"]
        order = [(kind, number) for kind in ("chief", "worker") for number in range(len(cluster.get(kind, ())))]
        return Team(len(order), order.index((task["type"], int(task["index"]))))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError("TF_CONFIG must name a cluster of workers and this one's task, but it does not.") from error


def choose_strategy(workers: int, gpus: int, batch_size: int) -> str:
    """Return how to train: ``"one"`` device, ``"mirrored"`` on all GPUs of this machine, or ``"workers"``.

    Raises
    ------
    TrainingError
        The films of a batch cannot be shared out evenly.
    """
    devices = workers * max(1, gpus)
    if devices > 1 and batch_size % devices:
        raise TrainingError(f"A batch must be shared out evenly among {devices} devices, but holds {batch_size} films.")
    if workers > 1:
        return "workers"
    return "mirrored" if gpus > 1 else "one"


def gpu_capabilities() -> list[tuple[int, int]]:
    """Return the compute capability of each GPU that the backend sees; empty without one."""
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        found = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
        return [tuple(details.get("compute_capability", (0, 0))) for details in found]
    if backend == "torch":
        import torch

        return [torch.cuda.get_device_capability(number) for number in range(torch.cuda.device_count())]
    if backend == "jax":
        import jax

        gpus = [device for device in jax.devices() if device.platform == "gpu"]
        return [tuple(int(part) for part in str(gpu.compute_capability).split(".")) for gpu in gpus]
    return []


def prepare_devices(precision: str, batch_size: int, deterministic: bool = False) -> tuple[str, Any, Team]:
    """Return (dtype policy, strategy of TensorFlow or None, team), as the machine and TF_CONFIG have it.

    Must be called before anything is computed.

    Raises
    ------
    TrainingError
        As :func:`choose_precision`, :func:`read_team` and :func:`choose_strategy`; several workers, or the same figures
        from run to run, were asked for without TensorFlow.
    """
    import keras

    team = read_team(os.environ.get("TF_CONFIG"))
    if keras.backend.backend() != "tensorflow":
        if team.workers > 1:
            raise TrainingError("Several machines train together on TensorFlow, but another backend is set.")
        if deterministic:
            raise TrainingError("Training is deterministic on TensorFlow alone, but another backend is set.")
        return choose_precision(precision, gpu_capabilities()), None, team
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:
            break  # The devices are in use already, as in a process that has trained before.
    chosen = choose_strategy(team.workers, len(gpus), batch_size)
    strategy = None
    if chosen == "workers":
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    elif chosen == "mirrored":
        strategy = tf.distribute.MirroredStrategy()
    if deterministic and gpus:
        tf.config.experimental.enable_op_determinism()
    elif gpus:
        print("note: on a GPU figures differ a little from run to run; with --deterministic not", file=sys.stderr)
    devices = strategy.num_replicas_in_sync if strategy else 1
    return choose_precision(precision, gpu_capabilities(), devices), strategy, team


@contextmanager
def computing(policy: str, strategy: Any = None) -> Iterator[None]:
    """Build networks under a dtype policy and a strategy; both as before afterwards."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        if strategy is None:
            yield
        else:
            with strategy.scope():
                yield
    finally:
        keras.config.set_dtype_policy(before)
