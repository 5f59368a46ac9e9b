"""``python -m core.train --data DIR --backbone NAME``: train a model, measure it on held-out patients, publish it.

Written against Keras itself, so that it trains on any backend. A run keeps its state under ``runs/<id>`` after every
epoch: what is killed goes on with ``--resume ID`` and has lost at most one epoch.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.backbones import build_classifier, find_backbone, freeze
from core.checkpoints import publish, round_to_float16
from core.errors import CheckpointError, DatasetError, TrainingError
from core.values import Checkpoint, Study, TrainingSettings

TASKS = ("fracture", "wrist")
RUNS = Path("runs")
STATE_NAME, REQUEST_NAME = "state.npz", "request.json"
# A cell of the location head with a fracture in it counts this many times one without.
LOCATION_POSITIVE = 10.0
DECOY_SHARE = 0.3

PRESETS: dict[str, TrainingSettings] = {
    "scaphoid": TrainingSettings(
        backbone="",
        epochs=4,
        learning_rate=1e-3,
        location_weight=2.0,
        label_smoothing=0.02,
        preset="scaphoid",
        # All epochs but the last see smaller films, which costs half; the first stages keep what ImageNet taught them.
        extra={"small_size": 160, "small_epochs": 3, "frozen": ["stem", "block1", "block2"], "norm_momentum": 0.9},
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
}


@dataclass(frozen=True, eq=False)
class Request:
    """Everything a run was asked for; kept in its folder so that it can be resumed."""

    id: str
    task: str
    data: str
    format: str | None
    out: str
    finder: str | None
    weights_file: str | None
    title: str | None
    settings: TrainingSettings


# --- data ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Films to train on, to choose on and to measure on; no patient is in two of them."""

    train: tuple[Any, ...]
    valid: tuple[Any, ...]
    test: tuple[Any, ...]
    format: str
    simulated: bool
    with_regions: bool
    with_masks: bool


def collect_films(request: Request) -> TrainingData:
    """Find the films of a dataset and split them by patient.

    A dataset's own ``train`` and ``valid`` parts are kept; the patients of ``valid`` are halved into those on which
    calibration and operating points are chosen and those that are only measured.

    Raises
    ------
    DatasetError
        No films; patients in both parts; a part without films.
    """
    from core.datasets import describe, index_dataset, split_by_patient

    index = index_dataset(Path(request.data), request.format)
    seed = request.settings.seed
    own = dict(index.splits)
    if "train" in own and len(own) > 1:
        train = list(own.pop("train"))
        held_out = [study for studies in own.values() for study in studies]
    else:
        parts = split_by_patient(index.studies, {"train": 0.7, "held_out": 0.3}, seed)
        train, held_out = parts["train"], parts["held_out"]
    shared = {study.patient_id for study in train} & {study.patient_id for study in held_out}
    if shared:
        raise DatasetError(f"Patients must be in one part of a dataset only, but {len(shared)} are in two.")
    halves = split_by_patient(held_out, {"valid": 0.5, "test": 0.5}, seed)
    print(describe({"train": train, **halves}, index.problems), file=sys.stderr)
    films = {name: _films(part, index) for name, part in {"train": train, **halves}.items()}
    if request.task == "fracture" and not request.finder:
        # Nothing will find the wrist when films are read, so none may be trained or measured on a wrist that is known.
        films = {name: tuple(replace(film, region=None) for film in part) for name, part in films.items()}
    empty = [name for name, part in films.items() if not part]
    if empty:
        raise DatasetError(f"Each of train, valid and test needs films, but {empty[0]} has none.")
    everything = [film for part in films.values() for film in part]
    return TrainingData(
        **films,
        format=index.format,
        simulated=_is_simulated(index.root),
        with_regions=all(film.region is not None for film in everything),
        with_masks=any(film.mask_path is not None for film in everything),
    )


def _films(studies: Iterable[Study], index: Any) -> tuple[Any, ...]:
    from core.train.batches import Film

    return tuple(
        Film(path, study.id, study.patient_id, int(study.label), index.mask_path(path), index.regions.get(path))
        for study in studies
        if study.label is not None
        for path in study.paths
    )


def _is_simulated(root: Path) -> bool:
    """Tell by its table whether a dataset was made by ``core.phantoms``."""
    try:
        with open(root / "metadata.csv", encoding="utf-8") as table:
            return {"kind", "seed", "framing"} <= set(table.readline().strip().split(","))
    except (OSError, UnicodeDecodeError):
        return False


# --- network and losses ----------------------------------------------------------------------------------------------


def _location_loss(target: Any, logit: Any) -> Any:
    """Return the location head's weighted cross-entropy, mean over cells; `target`: mask, and how much it counts."""
    from keras import ops

    mask, counts = target[..., :1], target[..., 1:2]
    return ops.mean(counts * (1.0 + (LOCATION_POSITIVE - 1.0) * mask) * _cross_entropy(mask, logit), axis=(1, 2, 3))


def _maps_loss(target: Any, maps: Any) -> Any:
    """Return the finder's loss: heat everywhere, side and direction where the wrist is."""
    from keras import ops

    heat, counts = target[..., :1], target[..., 4]
    # Against the entropy of the soft target, so that a perfect answer costs nothing.
    floor = _cross_entropy(heat, ops.log((heat + 1e-4) / (1.0 - heat + 1e-4)))
    hot = ops.sum((1.0 + 4.0 * heat) * (_cross_entropy(heat, maps[..., :1]) - floor), axis=(1, 2, 3)) / 20.0
    total = ops.sum(counts, axis=(1, 2)) + 0.5
    side = ops.sum(counts * ops.abs(target[..., 1] - maps[..., 1]), axis=(1, 2)) / total
    turn = ops.sum(counts * ops.sum(ops.square(target[..., 2:4] - maps[..., 2:4]), axis=-1), axis=(1, 2)) / total
    return hot + side + turn


def _cross_entropy(target: Any, logit: Any) -> Any:
    from keras import ops

    return ops.maximum(logit, 0.0) - logit * target + ops.log1p(ops.exp(-ops.abs(logit)))


def build_network(request: Request, size: int, weights: Any, location: bool) -> Any:
    """Return the network that is to be trained, at `size` pixels a side."""
    from core.wrist import build_finder

    settings = request.settings
    if request.task == "wrist":
        model = build_finder(size, weights)
    else:
        model = build_classifier(settings.backbone, input_size=size, weights=weights, location_head=location)
    frozen = tuple(settings.extra.get("frozen", ())) if settings.weights else ()
    for layer in model.layers:
        if frozen and layer.name.startswith(frozen):
            layer.trainable = False
        if type(layer).__name__ == "BatchNormalization":
            layer.momentum = float(settings.extra.get("norm_momentum", 0.9))
    return model


def compile_network(model: Any, request: Request, steps: int) -> Any:
    """Return the part of the network that has losses, compiled; it shares the network's weights."""
    import keras

    settings = request.settings
    total = max(1, settings.epochs * steps)
    warmup = min(int(settings.warmup_epochs * steps), total - 1)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=settings.learning_rate * 0.02,
        warmup_target=settings.learning_rate,
        warmup_steps=max(warmup, 1),
        decay_steps=max(total - warmup, 1),
        alpha=0.01,
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=settings.weight_decay, clipnorm=1.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    if request.task == "wrist":
        trained, losses, weights = model, {"maps": _maps_loss}, None
    else:
        smooth = settings.label_smoothing
        outputs = {name: model.output[name] for name in ("logit", "location") if name in model.output}
        trained = keras.Model(model.input, outputs)
        losses = {"logit": keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=smooth)}
        weights = {"logit": 1.0}
        if "location" in outputs:
            losses["location"], weights["location"] = _location_loss, settings.location_weight
    trained.compile(optimizer, losses, loss_weights=weights)
    optimizer.build(trained.trainable_variables)
    return trained


# --- the run ---------------------------------------------------------------------------------------------------------


class RunFolder:
    """A run's state on disk, replaced as a whole after every epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save_request(self, request: Request) -> None:
        """Keep what was asked for."""
        self.folder.mkdir(parents=True, exist_ok=True)
        _write_atomically(self.folder / REQUEST_NAME, json.dumps(asdict(request), indent=1).encode())

    def load_request(self) -> Request:
        """Return what was asked for; raise TrainingError where there is no such run."""
        try:
            content = json.loads((self.folder / REQUEST_NAME).read_text(encoding="utf-8"))
            return Request(**{**content, "settings": TrainingSettings(**content["settings"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise TrainingError("A run to resume was expected, but there is none of this id.") from error

    def save_state(self, model: Any, optimizer: Any, history: Sequence[Mapping[str, float]]) -> None:
        """Keep weights, optimizer and history after an epoch."""
        import io

        from keras import ops

        arrays = {f"model{n:05d}": ops.convert_to_numpy(v) for n, v in enumerate(model.variables)}
        arrays |= {f"optimizer{n:05d}": ops.convert_to_numpy(v) for n, v in enumerate(optimizer.variables)}
        buffer = io.BytesIO()
        np.savez(buffer, history=np.frombuffer(json.dumps(list(history)).encode(), np.uint8), **arrays)
        _write_atomically(self.folder / STATE_NAME, buffer.getvalue())

    def load_state(self) -> tuple[list[np.ndarray], list[np.ndarray], list[dict[str, float]]] | None:
        """Return (model, optimizer, history) as last saved, or None before the first epoch is done."""
        path = self.folder / STATE_NAME
        if not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as file:
            history = json.loads(file["history"].tobytes())
            names = sorted(file.files)
            return (
                [file[name] for name in names if name.startswith("model")],
                [file[name] for name in names if name.startswith("optimizer")],
                history,
            )


def _write_atomically(path: Path, content: bytes) -> None:
    aside = path.with_suffix(path.suffix + ".part")
    with open(aside, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def _assign(variables: Sequence[Any], values: Sequence[np.ndarray]) -> None:
    if len(variables) != len(values):
        raise TrainingError("A run must be resumed by the version that began it, but its network differs.")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


class Progress:
    """Lines on stderr that say how far a long piece of work is; at most one every few seconds."""

    def __init__(self, what: str, every_s: float = 5.0) -> None:
        self.what, self.every_s = what, every_s
        self.start = self.last = time.monotonic()

    def __call__(self, done: int, total: int, more: str = "") -> None:
        """Say that `done` of `total` is done."""
        now = time.monotonic()
        if now - self.last < self.every_s and done < total:
            return
        self.last = now
        left = (now - self.start) / max(done, 1) * (total - done)
        shown = f"{left / 60:.0f} min" if left > 90 else f"{left:.0f} s"
        print(f"{self.what}: {done}/{total}{more}, {shown} left", file=sys.stderr, flush=True)


def _size_of_epoch(settings: TrainingSettings, epoch: int) -> int:
    small = epoch < int(settings.extra.get("small_epochs", 0))
    return int(settings.extra["small_size"]) if small else settings.input_size


def fit(request: Request, data: TrainingData, run: RunFolder) -> tuple[Any, list[dict[str, float]]]:
    """Train, from the run's last state if it has one, and return (network, history)."""
    import keras

    settings = request.settings
    keras.utils.set_random_seed(settings.seed)
    location = request.task == "fracture" and data.with_masks
    samplers, judge = _prepare(request, data, location)
    state = run.load_state()
    history: list[dict[str, float]] = state[2] if state else []
    model = trained = None
    size = 0
    start = time.monotonic()
    first = len(history)
    for epoch in range(first, settings.epochs):
        if _size_of_epoch(settings, epoch) != size:
            size = _size_of_epoch(settings, epoch)
            kept = state[:2] if state else None
            if trained is not None:
                kept = tuple(
                    [keras.ops.convert_to_numpy(v) for v in owner.variables] for owner in (model, trained.optimizer)
                )
            model = build_network(request, size, _starting_weights(request) if kept is None else None, location)
            trained = compile_network(model, request, samplers(size).batches)
            if kept is not None:
                _assign(model.variables, kept[0])
                _assign(trained.optimizer.variables, kept[1])
        begun = time.monotonic()
        loss = _run_epoch(trained, samplers(size), epoch, settings.epochs, start, first)
        row = {"epoch": epoch + 1, "size": size, "seconds": round(time.monotonic() - begun, 1), "loss": loss}
        row |= judge(model, size)
        history.append(row)
        run.save_state(model, trained.optimizer, history)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in row.items())
        print(shown, file=sys.stderr, flush=True)
    if model is None or size != settings.input_size:
        values = state[0] if model is None else [keras.ops.convert_to_numpy(v) for v in model.variables]
        model = build_network(request, settings.input_size, None, location)
        _assign(model.variables, values)
    return model, history


def _starting_weights(request: Request) -> Any:
    return request.weights_file or request.settings.weights


def _run_epoch(trained: Any, sampler: Any, epoch: int, epochs: int, start: float, first: int) -> float:
    import keras

    from core.train.batches import as_dataset

    done_before, total = (epoch - first) * sampler.batches, (epochs - first) * sampler.batches
    progress = Progress(f"epoch {epoch + 1}/{epochs}")
    progress.start = start

    class Report(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
            progress(done_before + batch + 1, total, f", loss {float((logs or {}).get('loss', 0)):.4f}")

    fitted = trained.fit(as_dataset(sampler, epoch), epochs=1, verbose=0, callbacks=[Report()])
    loss = float(fitted.history["loss"][-1])
    if not np.isfinite(loss):
        raise TrainingError("The loss must stay a number, but it did not; a lower learning rate may help.")
    return loss


def _prepare(request: Request, data: TrainingData, location: bool) -> tuple[Callable, Callable]:
    """Return (size -> sampler, (network, size) -> what it does on the validation films)."""
    from core.train import batches

    settings = request.settings
    seed, batch = settings.seed, settings.batch_size
    if request.task == "wrist":
        side = round(settings.input_size * batches.WRIST_MARGIN)
        squares = batches.Squares(data.train, side, whole=True, progress=Progress("reading films"))
        valid = batches.Squares(data.valid, settings.input_size, whole=True)
        others = make_decoys(int(settings.extra.get("decoys", 2400)), side, seed * 1_000_000 + 1)
        made = {
            size: batches.WristSampler(squares, others, input_size=size, batch_size=batch, seed=seed)
            for size in _sizes(settings)
        }
        return made.__getitem__, lambda model, size: _judge_finder(model, size, valid)
    whole = not data.with_regions
    margin = 1.0 if whole else batches.FRACTURE_MARGIN
    squares = batches.Squares(
        data.train, round(settings.input_size * margin), margin=margin, whole=whole, masks=location,
        progress=Progress("reading films"),
    )  # fmt: skip
    valid = batches.Squares(data.valid, settings.input_size, whole=whole)
    made = {
        size: batches.FractureSampler(
            squares, input_size=size, batch_size=batch, seed=seed, location=location, whole=whole
        )
        for size in _sizes(settings)
    }
    return made.__getitem__, lambda model, size: _judge_classifier(model, size, valid)


def _sizes(settings: TrainingSettings) -> set[int]:
    return {_size_of_epoch(settings, epoch) for epoch in range(max(settings.epochs, 1))}


def make_decoys(count: int, size: int, first_seed: int) -> np.ndarray:
    """Return uint8 (count, size, size): simulated films without a wrist, from consecutive seeds."""
    from core.phantoms.decoys import simulate_decoy

    return np.stack([simulate_decoy(first_seed + number, size) for number in range(count)])


def _asked(model: Any, squares: Any, size: int, output: str) -> np.ndarray:
    import cv2
    import keras

    answers = []
    for begin in range(0, len(squares), 32):
        films = [squares.square(index)[0] for index in range(begin, min(begin + 32, len(squares)))]
        shrunk = [cv2.resize(film, (size, size), interpolation=cv2.INTER_AREA) for film in films]
        batch = np.stack(shrunk).astype(np.float32)[..., None] / 255
        answers.append(keras.ops.convert_to_numpy(model.predict_on_batch(batch)[output]))
    return np.concatenate(answers)


def _judge_classifier(model: Any, size: int, squares: Any) -> dict[str, float]:
    from sklearn.metrics import roc_auc_score

    logits = _asked(model, squares, size, "logit")[:, 0].astype(np.float64)
    labels = np.array([film.label for film in squares.films])
    loss = float(np.mean(np.logaddexp(0.0, -np.where(labels == 1, logits, -logits))))
    auc = float(roc_auc_score(labels, logits)) if len(set(labels.tolist())) == 2 else 0.5
    return {"valid_loss": loss, "valid_auc": auc}


def _judge_finder(model: Any, size: int, squares: Any) -> dict[str, float]:
    from core.radiographs import fit_square
    from core.train.appraisal import WITHIN, centre_error
    from core.wrist import read_grid, to_film

    maps = _asked(model, squares, size, "maps")
    whole = fit_square(squares.size, squares.size, squares.size)
    errors = [
        centre_error(to_film(read_grid(grid), whole), region)
        for grid, region in zip(maps, squares.regions, strict=True)
    ]
    return {"valid_within": float(np.mean(np.array(errors) <= WITHIN)), "valid_error": float(np.median(errors))}


# --- measuring and publishing ----------------------------------------------------------------------------------------


def finish(request: Request, data: TrainingData, model: Any, history: Sequence[Mapping[str, float]]) -> Checkpoint:
    """Round the weights, measure on the held-out patients, and publish."""
    from core.train import appraisal
    from core.wrist import MAPS, WristFinder, load_finder

    settings = request.settings
    round_to_float16(model)
    splits = {"valid": data.valid, "test": data.test}
    progress = Progress("measuring")
    if request.task == "wrist":
        number = {split: max(4, round(DECOY_SHARE * len(films))) for split, films in splits.items()}
        decoys = {
            split: make_decoys(number[split], 320, 500_000_000 + 10_000_000 * place)
            for place, split in enumerate(splits)
        }
        card = Checkpoint(request.id, "", "wrist", settings.backbone, "", settings.input_size)
        measured = appraisal.appraise_finder(WristFinder(card, freeze(model, (MAPS,))), splits, decoys, progress)
    else:
        finder = load_finder(request.finder, Path(request.out)) if request.finder else None
        run = freeze(model, tuple(name for name in ("logit", "location") if name in model.output))
        measured = appraisal.appraise_classifier(run, settings.input_size, splits, finder, request.id, progress)
    card = describe_checkpoint(request, data, measured, "location" in getattr(model, "output", {}))
    return publish(Path(request.out), card, model, history, measured.scores or None)


def describe_checkpoint(request: Request, data: TrainingData, measured: Any, location: bool) -> Checkpoint:
    """Return the card: what was trained on what, what it was measured to do, and what it is not for."""
    backbone = find_backbone(request.settings.backbone)
    wrist = request.task == "wrist"
    region = request.finder if not wrist and data.with_regions else None
    title = request.title or (
        "Wrist finder" if wrist else f"{backbone.title}, {'simulated films' if data.simulated else 'fine-tuned'}"
    )
    return Checkpoint(
        id=request.id,
        title=title,
        task=request.task,
        backbone=backbone.name,
        feature_layer=backbone.location_layer if wrist else backbone.feature_layer,
        input_size=request.settings.input_size,
        region=region,
        location_head=location,
        positive_label="abnormal" if data.format == "mura" and not data.simulated else "fracture",
        operating_points=measured.points,
        calibration=measured.calibration,
        settings=request.settings,
        data={
            **_sentences(request, data, measured),
            "simulated": data.simulated,
            "counts": {
                "train_films": len(data.train),
                "train_studies": len({film.study_id for film in data.train}),
                "train_patients": len({film.patient_id for film in data.train}),
                **measured.counts,
            },
            "results": dict(measured.results),
            "licences": _licences(request, data),
        },
        versions=_versions(),
    )


def _sentences(request: Request, data: TrainingData, measured: Any) -> dict[str, str]:
    patients = len({film.patient_id for film in data.train})
    what = "simulated films" if data.simulated else f"films of a dataset in the format {data.format}"
    people = "simulated patients" if data.simulated else "patients"
    trained = f"Trained on {len(data.train):,} {what} of {patients:,} {people}"
    if request.task == "wrist":
        trained += f" and on {int(request.settings.extra.get('decoys', 2400)):,} simulated films without a wrist"
    trained += "; no film of a real patient was used." if data.simulated else "."
    tested = (
        f"Tested on {len(data.test):,} films of {len({film.patient_id for film in data.test}):,} other {people}; "
        f"{'the confidence was' if request.task == 'wrist' else 'calibration and operating points were'} set on "
        f"{len(data.valid):,} films of {len({film.patient_id for film in data.valid}):,} further ones."
    )
    if request.finder and request.task == "fracture":
        tested += " The wrist was found by the finder, as it is when films are read."
    if data.simulated:
        tested += " It has not been tested on patients: on real films it will do worse than these figures say."
    not_for = (
        "For research and education only: not a medical device, not for diagnosis, and not a reason to do or leave "
        "out anything for a patient."
    )
    return {"trained_on": trained, "tested_on": tested, "not_for": not_for}


def _licences(request: Request, data: TrainingData) -> list[str]:
    backbone = find_backbone(request.settings.backbone)
    lines = []
    if request.settings.weights is not None:
        lines.append(f"Started from {backbone.weights_licence}.")
    if data.simulated:
        lines.append("The simulated films were made by Scaphoid's own simulator (MIT).")
    else:
        lines.append("The films' own licence applies to what was learned from them.")
    return lines


def _versions() -> dict[str, str]:
    import keras

    from core.phantoms import VERSION

    versions = {"python": platform.python_version(), "numpy": np.__version__, "keras": keras.__version__}
    versions["backend"] = keras.backend.backend()
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        versions["tensorflow"] = tensorflow.__version__
    return versions | {"simulator": str(VERSION)}


def train(request: Request, runs: Path = RUNS) -> Checkpoint:
    """Train, measure and publish; go on where an earlier try was cut off.

    Raises
    ------
    TrainingError, DatasetError, CheckpointError
        Each with one sentence that says what was expected and what came.
    """
    if (Path(request.out) / request.id).exists():
        raise CheckpointError(f"A new checkpoint must have a new id, but {request.id} exists.")
    run = RunFolder(Path(runs) / request.id)
    run.save_request(request)
    data = collect_films(request)
    if request.task == "wrist" and not data.with_regions:
        raise DatasetError("A wrist finder is trained on films whose table says where the wrist is, but some lack it.")
    model, history = fit(request, data, run)
    return finish(request, data, model, history)
