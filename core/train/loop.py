"""The training itself: epoch after epoch, each of them kept on disk, so that what is cut off goes on."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import TrainingError
from core.train.averages import WeightAverage
from core.train.batches import Feeder
from core.train.devices import Team, computing, prepare_devices
from core.train.distillation import Teacher, add_answers, answering, begin_head, load_teachers
from core.train.films import TrainingData
from core.train.inputs import Inputs, has_location_head, label_losses, prepare_inputs
from core.train.networks import HEAD_LAYERS, build_network, freeze_layers, join_losses, learning_layers
from core.train.norms import share_norms
from core.train.presets import option, size_of_epoch
from core.train.runs import Progress, Report, Request, RunFolder, State, show_row
from core.train.schedule import best_epoch, learning_rate, should_stop


def fit(
    request: Request, data: TrainingData, run: RunFolder, report: Report | None = None
) -> tuple[Any, list[dict[str, float]], int]:
    """Train, from the run's last state if it has one.

    Returns
    -------
    model : keras.Model
        float32, at the settings' input size, with the weights to publish.
    history : list of dict
    unreadable : int
        Films of train that were left out.

    Raises
    ------
    TrainingError
        The loss is no number any more; the run was begun by another version; the machine cannot do what was asked for.
    CheckpointError
        What training starts from is not to be had.
    DatasetError
        No film can be read.
    Stopped
        The report was asked to stop.
    """
    import keras

    report = report or Report()
    policy, strategy, team = prepare_devices(request.precision, request.settings.batch_size, request.deterministic)
    keras.utils.set_random_seed(request.settings.seed)
    location, first = has_location_head(request, data), None
    if not run.has_state:
        request = replace(request, precision=policy)
        # Before films are decoded, which takes long: what training starts from may not be to be had.
        with computing(policy, strategy):
            first = build_network(request, size_of_epoch(request.settings, 0), location, start=True)
    inputs = prepare_inputs(request, data, report)
    with computing(policy, strategy):
        loop = Loop(request, inputs, location, run, report, strategy, team, first)
        weights, history = loop.run()
    return loop.publishable(weights, plain=policy == "float32" and strategy is None), history, inputs.unreadable


class Loop:
    """One run's network, optimiser and history, and how they go from epoch to epoch."""

    def __init__(
        self,
        request: Request,
        inputs: Inputs,
        location: bool,
        run: RunFolder,
        report: Report,
        strategy: Any = None,
        team: Team | None = None,
        first: Any = None,
    ) -> None:
        self.request, self.settings, self.inputs, self.location = request, request.settings, inputs, location
        self.run_folder, self.report, self.strategy, self.team = run, report, strategy, team or Team()
        self.first_network = first
        self.model = self.trained = self.average = self.answer = None
        self.teachers: list[Teacher] = []
        self.built_for: tuple[int, frozenset[str]] | None = None
        self.history: list[dict[str, float]] = []
        self.best: list[np.ndarray] | None = None
        self.names: list[str] = []
        steps = {size: sampler.batches for size, sampler in inputs.samplers.items()}
        sizes = [size_of_epoch(self.settings, epoch) for epoch in range(self.settings.epochs)]
        self.steps = [steps[size] for size in sizes]
        # A step costs as its pixels do: what is left is told by work, not by steps.
        self.work = [size * size * steps[size] for size in sizes]

    def run(self) -> tuple[list[np.ndarray], list[dict[str, float]]]:
        """Train what is left to train; return the weights to publish and the history."""
        state, unjudged = self.run_folder.load_state(), None
        if state:
            self.history, self.best, unjudged = state.history, state.best, state.unjudged
        patience = int(option(self.settings, "early_stopping"))
        self.progress, self.first = Progress("training"), len(self.history) + (unjudged is not None)
        if self.team.workers > 1:
            check_in_step(self.strategy, self.first)
        self.report(phase="training", message="", total=sum(self.steps), history=self.history)
        for epoch in range(len(self.history), self.settings.epochs):
            if should_stop(label_losses(self.history), patience):
                break
            self._prepare(epoch, state)
            row, unjudged = unjudged, None
            if row is None:
                if epoch and epoch == option(self.settings, "teacher_head") and self.teachers:
                    self._begin_head()
                row = self._run_epoch(epoch)
                # Judging takes long on many films: what is cut off meanwhile must not be trained again.
                self._keep(row)
            weights = self._judge(row)
            self.history.append(row)
            if patience and best_epoch(label_losses(self.history)) == epoch:
                self.best = weights
            self._save(row)
        if self.trained is None:
            self._prepare(max(len(self.history) - 1, 0), state)
        with self._averaged():
            final = _values(self.trained)
        return (self.best if patience and self.best else final), self.history

    def publishable(self, weights: Sequence[np.ndarray], plain: bool) -> Any:
        """Return the network with these weights, float32 and for films of the input size; built anew unless `plain`."""
        size = self.settings.input_size
        known = dict(zip(self.names, weights, strict=True))
        model = self.model if plain and self.built_for[0] == size else build_network(self.request, size, self.location)
        needed = {variable.path for layer in learning_layers(model) for variable in layer.weights}
        if not needed <= set(known):
            raise TrainingError("A run must be finished by the version that began it, but its network's names differ.")
        for variable in model.variables:
            if variable.path in known:
                variable.assign(known[variable.path])
        return model

    def _prepare(self, epoch: int, state: State | None) -> None:
        """Build the network anew where an epoch needs another size or trains other layers than the one before."""
        size = size_of_epoch(self.settings, epoch)
        if self.trained is not None:
            frozen = self.built_for[1]
            if self.built_for == (size, freeze_layers(self.model, self.settings, epoch)):
                return
            kept = State(
                _values(self.trained), _values(self.trained.optimizer), [], self.average and self.average.get()
            )
        else:
            frozen, kept = None, state
        self.model = self.first_network if kept is None else None
        self.first_network = None
        if self.model is None:
            self.model = build_network(self.request, size, self.location, start=kept is None)
        if frozen is None and kept is not None:
            frozen = freeze_layers(self.model, self.settings, kept.epochs - 1)
        self.built_for = (size, freeze_layers(self.model, self.settings, epoch))
        self.teachers = load_teachers(self.request.teachers, Path(self.request.out), size)
        self.trained = join_losses(self.model, self.request, self.inputs.class_weights, self.teachers)
        if kept is not None:
            _assign(self.trained.variables, kept.weights)
            # The optimiser's memory is of the layers that it trained.
            if frozen == self.built_for[1]:
                _assign(self.trained.optimizer.variables, kept.optimizer)
        decay = float(option(self.settings, "ema"))
        self.average = WeightAverage(self.trained.variables, decay) if decay else None
        if self.average and kept is not None and kept.average:
            self.average.set(kept.average)
        self.answer = answering(self.model)
        self.names = [variable.path for variable in self.trained.variables]

    def _begin_head(self) -> None:
        begin_head(self.trained, self.teachers[0])
        if self.average:
            layers = (self.trained.get_layer(name) for name in HEAD_LAYERS)
            self.average.restart([variable for layer in layers for variable in layer.variables])

    def _averaged(self) -> Any:
        from contextlib import nullcontext

        return self.average.shown() if self.average else nullcontext()

    def _judge(self, row: dict[str, float]) -> list[np.ndarray]:
        """Add to the row how the network does on valid; return the weights that did so."""
        with self._averaged():
            row |= self.inputs.judge(self.answer, self.built_for[0])
            return _values(self.trained)

    def _save(self, row: dict[str, float]) -> None:
        self.progress.clear()
        print(show_row(row), file=sys.stderr, flush=True)
        self._keep()
        if self.team.leads:
            self.report(now=True, message="", history=self.history, epoch=len(self.history))

    def _keep(self, unjudged: dict[str, float] | None = None) -> None:
        if not self.team.leads:
            return
        average = self.average.get() if self.average else None
        if not self.run_folder.has_state:
            self.run_folder.save_request(self.request)  # It goes on in the precision it began in, on whatever machine.
        weights, optimizer = _values(self.trained), _values(self.trained.optimizer)
        self.run_folder.save_state(State(weights, optimizer, self.history, average, self.best, unjudged))

    # --- one epoch ---------------------------------------------------------------------------------------------------

    def _run_epoch(self, epoch: int) -> dict[str, float]:
        sampler = self.inputs.samplers[self.built_for[0]]
        feeder = Feeder(sampler, epoch, None if self.strategy else _to_device)
        self.losses: list[float] = []
        begun = time.monotonic()
        if self.strategy is None:
            for number, (films, targets) in enumerate(feeder):
                self._set_rate(epoch, number)
                told = add_answers(self.teachers, films, targets)
                logs = self.trained.train_on_batch(films, told, return_dict=True)
                self._after_step(epoch, number, float(logs["loss"]))
        else:
            self._fit_together(feeder, epoch)
        seconds = time.monotonic() - begun
        return {
            "epoch": epoch + 1,
            "size": self.built_for[0],
            "seconds": round(seconds, 1),
            "waiting": round(feeder.waited_s / max(seconds, 1e-9), 4),
            "learning_rate": self.rate,
            "loss": float(np.mean(self.losses)),
        }

    def _set_rate(self, epoch: int, number: int) -> None:
        step = sum(self.steps[:epoch]) + number
        self.rate = learning_rate(self.settings, step, self.steps[epoch], label_losses(self.history))
        self.trained.optimizer.learning_rate = self.rate

    def _after_step(self, epoch: int, number: int, loss: float) -> None:
        if not math.isfinite(loss):
            raise TrainingError("The loss must stay a number, but it did not; a lower learning rate may help.")
        self.losses.append(loss)
        step = sum(self.steps[:epoch]) + number
        if self.average:
            self.average.update(step)
        share = (number + 1) / self.steps[epoch]
        done = sum(self.work[self.first : epoch]) + share * self.work[epoch]
        shown = (number + 1, self.steps[epoch])
        what = f", loss {np.mean(self.losses[-20:]):.4f}"
        self.progress.what = f"epoch {epoch + 1}/{self.settings.epochs}"
        self.progress(done, sum(self.work[self.first :]), what, shown)
        if len(self.losses) == 1 and epoch == self.first:
            self.progress.begin(done)  # the first step is built before it is made, which takes far longer
        self.report(
            epoch=epoch + 1,
            done=step + 1,
            loss=float(np.mean(self.losses[-20:])),
            seconds_left=self.progress.seconds_left,
        )

    def _fit_together(self, feeder: Feeder, epoch: int) -> None:
        """Run an epoch on several devices: each gets its share of every batch."""
        step = shared_step(self.trained, self.strategy, feeder.sampler, self.teachers)
        for number, share in enumerate(share_out(feeder, self.strategy, self.teachers, self.team)):
            self._set_rate(epoch, number)
            self._after_step(epoch, number, float(step(share)))


def check_in_step(strategy: Any, epochs: int) -> None:
    """Refuse to train together with machines that have another number of epochs behind them; each asks all.

    Raises
    ------
    TrainingError
    """
    import tensorflow as tf

    def mean(value: float) -> float:
        answers = strategy.run(lambda: tf.constant(value, tf.float32))
        return float(strategy.reduce(tf.distribute.ReduceOp.MEAN, answers, axis=None))

    # Without spread the mean of the squares is the square of the mean, and every machine comes to the same verdict.
    if abs(mean(float(epochs) ** 2) - mean(float(epochs)) ** 2) > 1e-3:
        raise TrainingError(
            "Machines that train together go on from one folder of runs that all of them share, but some have more "
            "epochs behind them than others."
        )


def shared_step(trained: Any, strategy: Any, sampler: Any, teachers: Sequence[Teacher]) -> Any:
    """Return one step on all devices as a function of their shares of a batch; it returns the mean of their losses.

    Keras' own loop cannot read what several machines send back.
    """
    import tensorflow as tf

    films, targets = sampler.batch(0, 0)
    told = add_answers(teachers, films[:1], {name: values[:1] for name, values in targets.items()})
    if strategy.num_replicas_in_sync > 1:
        share_norms(trained)
        clip_together(trained.optimizer, strategy.num_replicas_in_sync)
    # Losses make their variables when they are first asked.
    trained.compute_loss(films[:1], told, trained(films[:1], training=False))

    @tf.function
    def step(share: Any) -> Any:
        losses = strategy.run(lambda *own: trained.train_step(own)["loss"], args=share)
        return strategy.reduce("MEAN", losses, axis=None)

    def plain(share: Any) -> Any:
        trained.reset_metrics()
        return step(share)

    return plain


def clip_together(optimizer: Any, replicas: int) -> None:
    """Let gradients be clipped as those of the whole batch: Keras clips each device's share before it adds them up."""
    import tensorflow as tf

    limit, plain = optimizer.clipnorm, optimizer.apply
    if limit is None:
        return
    optimizer.clipnorm = None

    def apply(gradients: Sequence[Any], variables: Any = None) -> Any:
        whole = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, list(gradients))
        # Keras adds the shares up itself, so each hands in an even part of what was clipped.
        return plain([tf.clip_by_norm(each, limit) / replicas for each in whole], variables)

    optimizer.apply = apply


def share_out(feeder: Feeder, strategy: Any, teachers: Sequence[Teacher], team: Team) -> Any:
    """Return an epoch as a dataset of TensorFlow that gives each device of `strategy` its share of every batch."""
    import keras
    import tensorflow as tf

    replicas = strategy.num_replicas_in_sync
    own = range(team.number * replicas // team.workers, (team.number + 1) * replicas // team.workers)

    def shares() -> Any:
        for films, targets in feeder:
            told = {
                name: keras.ops.convert_to_numpy(values)
                for name, values in add_answers(teachers, films, targets).items()
            }
            for number in own:
                here = np.array_split(np.arange(len(films)), replicas)[number]
                yield films[here], {name: values[here] for name, values in told.items()}

    films, targets = feeder.sampler.batch(feeder.epoch, 0)
    example = (films, add_answers(teachers, films, targets))
    signature = tf.nest.map_structure(
        lambda values: tf.TensorSpec((None, *values.shape[1:]), tf.as_dtype(keras.ops.convert_to_numpy(values).dtype)),
        example,
    )
    return strategy.distribute_datasets_from_function(
        lambda _: tf.data.Dataset.from_generator(shares, output_signature=signature).prefetch(2 * len(own))
    )


def _to_device(batch: tuple[np.ndarray, dict[str, np.ndarray]]) -> tuple[Any, dict[str, Any]]:
    """Bring a batch to where it is computed on, while the batch before is still computed."""
    from keras import ops

    films, targets = batch
    return ops.convert_to_tensor(films), {name: ops.convert_to_tensor(values) for name, values in targets.items()}


def _values(owner: Any) -> list[np.ndarray]:
    from keras import ops

    return [ops.convert_to_numpy(variable) for variable in owner.variables]


def _assign(variables: Sequence[Any], values: Sequence[np.ndarray]) -> None:
    if len(variables) != len(values):
        raise TrainingError("A run must be resumed by the version that began it, but its network differs.")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
