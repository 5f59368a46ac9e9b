"""What a training sees: batches of each size, and how the network does on valid after each epoch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from core.train import batches
from core.train.films import TrainingData
from core.train.losses import class_weights
from core.train.presets import LARGEST_SEED, OWN_AUGMENTATION, option, size_of_epoch
from core.train.recipes import AUGMENTATIONS
from core.train.runs import Progress, Report, Request
from core.train.squares import Shelf, Squares, list_unreadable

JUDGED_AT_ONCE = 32
SEEDS_APART = 1_000_000
HELD_OUT_SEED = (LARGEST_SEED + 1) * SEEDS_APART
"""First seed of the decoys that a finder is measured with: above all those that any training sees."""
_CACHE_HELPS = "--cache DIR keeps them on a disk"


@dataclass(frozen=True, eq=False)
class Inputs:
    """Everything that one training sees.

    Attributes
    ----------
    samplers : Mapping of int to sampler
        Pixels a side -> what draws the batches.
    judge : callable
        (answers of the network to a batch of films, pixels a side) -> entries for the history.
    class_weights : tuple of float
        Of classes 0 and 1.
    unreadable : Mapping of str to int
        How many films of ``train`` were left out.
    """

    samplers: Mapping[int, Any]
    judge: Callable[[Callable, int], dict[str, float]]
    class_weights: tuple[float, float] = (1.0, 1.0)
    unreadable: int = 0


def has_location_head(request: Request, data: TrainingData) -> bool:
    """Tell whether a network with a location head is trained: masks are there and are kept in place."""
    settings = request.settings
    own = option(settings, "augmentation") == OWN_AUGMENTATION
    return request.task == "fracture" and data.with_masks and own and settings.location_weight > 0


def prepare_inputs(request: Request, data: TrainingData, report: Report) -> Inputs:
    """Read the films of train and valid.

    Raises
    ------
    DatasetError
        None of either can be read.
    """
    prepare = _prepare_finder if request.task == "wrist" else _prepare_classifier
    return prepare(request, data, report)


def _prepare_classifier(request: Request, data: TrainingData, report: Report) -> Inputs:
    settings = request.settings
    location, whole = has_location_head(request, data), not data.with_regions
    augmentation = AUGMENTATIONS.get(option(settings, "augmentation"))
    margin = 1.0 if whole or augmentation else batches.FRACTURE_MARGIN
    side, shelf = round(settings.input_size * margin), _shelf(request, data)
    kept = {"whole": whole, "fit": option(settings, "fit"), "shelf": shelf}
    squares = Squares(data.train, side, margin=margin, masks=location, progress=_telling("train", report), **kept)
    valid = Squares(data.valid, settings.input_size, progress=_telling("valid", report), **kept)
    _list_unreadable(data, squares, valid, report)
    _tell_beyond(request, squares, valid)
    made = {
        size: batches.FractureSampler(
            squares,
            input_size=size,
            batch_size=settings.batch_size,
            seed=settings.seed,
            location=location,
            whole=whole,
            mixup=float(option(settings, "mixup")),
            textures=float(option(settings, "textures")),
            augmentation=augmentation,
            epoch_films=option(settings, "epoch_films"),
        )
        for size in _sizes(request)
    }
    weights = class_weights(option(settings, "class_weights"), [film.label for film in squares.films])
    return Inputs(
        made, lambda answer, size: _judge_classifier(answer, size, valid, report), weights, len(squares.unreadable)
    )


def _prepare_finder(request: Request, data: TrainingData, report: Report) -> Inputs:
    settings = request.settings
    side = round(settings.input_size * batches.WRIST_MARGIN)
    shelf = _shelf(request, data)
    squares = Squares(data.train, side, whole=True, progress=_telling("train", report), shelf=shelf)
    valid = Squares(data.valid, settings.input_size, whole=True, progress=_telling("valid", report), shelf=shelf)
    _list_unreadable(data, squares, valid, report)
    _tell_beyond(request, squares, valid)
    others = make_decoys(int(option(settings, "decoys")), side, settings.seed * SEEDS_APART + 1)
    made = {
        size: batches.WristSampler(
            squares,
            others,
            input_size=size,
            batch_size=settings.batch_size,
            seed=settings.seed,
            epoch_films=option(settings, "epoch_films"),
        )
        for size in _sizes(request)
    }
    return Inputs(
        made, lambda answer, size: _judge_finder(answer, size, valid, report), unreadable=len(squares.unreadable)
    )


def _telling(part: str, report: Report) -> Callable[[int, int], None]:
    progress = Progress(f"reading films of {part}")

    def tell(done: int, total: int) -> None:
        progress(done, total)
        report(phase="reading", message=f"Reading films of {part}: {done:,} of {total:,}")

    return tell


def _shelf(request: Request, data: TrainingData) -> Shelf:
    films = _films_kept(data)
    if not request.cache:
        return Shelf(films=films)
    return Shelf(Path(request.cache), int(request.cache_gib * 2**30), data.list_marking_files(), films)


def _films_kept(data: TrainingData) -> int:
    """Return how many films share what may be kept of decoded ones."""
    return len(data.train) + len(data.valid)


def _list_unreadable(data: TrainingData, squares: Squares, valid: Squares, report: Report) -> None:
    """Say how many films were left out; the run's folder says which."""
    list_unreadable("train", data.train, squares.unreadable, report.folder)
    list_unreadable("valid", data.valid, valid.unreadable, report.folder)


def _tell_beyond(request: Request, *parts: Squares) -> None:
    """Say how many films do not fit where decoded ones are kept, and what would help."""
    beyond, every = sum(part.beyond for part in parts), sum(len(part) for part in parts)
    if beyond:
        where, helps = ("the cache", "--cache-gib raises its limit") if request.cache else ("memory", _CACHE_HELPS)
        print(
            f"note: {beyond:,} of {every:,} films do not fit into {where} and are decoded in every epoch; {helps}",
            file=sys.stderr,
        )


def _sizes(request: Request) -> set[int]:
    return {size_of_epoch(request.settings, epoch) for epoch in range(request.settings.epochs)}


def make_decoys(count: int, size: int, first_seed: int) -> np.ndarray:
    """Return uint8 (count, size, size): simulated films without a wrist, from consecutive seeds."""
    from core.phantoms.decoys import simulate_decoy

    return np.stack([simulate_decoy(first_seed + number, size) for number in range(count)])


def _ask(answer: Callable, squares: Squares, size: int, output: str, report: Report) -> np.ndarray:
    """Return the network's answers to all films; each batch is of one size, so that it is compiled once."""
    import keras

    answers, progress = [], Progress("judging")
    for begin in range(0, len(squares), JUDGED_AT_ONCE):
        progress(begin, len(squares))
        report(now=not begin, message=f"Judging on held-out films: {begin:,} of {len(squares):,}")
        films = [squares.square(index)[0] for index in range(begin, min(begin + JUDGED_AT_ONCE, len(squares)))]
        batch = np.zeros((min(JUDGED_AT_ONCE, len(squares)), size, size, 1), np.float32)
        for row, film in enumerate(films):
            batch[row, ..., 0] = cv2.resize(film, (size, size), interpolation=cv2.INTER_AREA) / np.float32(255)
        answers.append(keras.ops.convert_to_numpy(answer(batch)[output])[: len(films)])
    return np.concatenate(answers)


def _judge_classifier(answer: Callable, size: int, squares: Squares, report: Report) -> dict[str, float]:
    from sklearn.metrics import roc_auc_score

    logits = _ask(answer, squares, size, "logit", report)[:, 0].astype(np.float64)
    labels = np.array([film.label for film in squares.films])
    loss = float(np.mean(np.logaddexp(0.0, -np.where(labels == 1, logits, -logits))))
    auc = float(roc_auc_score(labels, logits)) if len(set(labels.tolist())) == 2 else 0.5
    return {"valid_loss": loss, "valid_auc": auc}


def _judge_finder(answer: Callable, size: int, squares: Squares, report: Report) -> dict[str, float]:
    from core.radiographs import fit_square
    from core.train.appraisal import centre_error
    from core.wrist import WITHIN, read_grid, to_film

    maps = _ask(answer, squares, size, "maps", report)
    whole = fit_square(squares.size, squares.size, squares.size)
    errors = [
        centre_error(to_film(read_grid(grid), whole), region)
        for grid, region in zip(maps, squares.regions, strict=True)
    ]
    return {"valid_within": float(np.mean(np.array(errors) <= WITHIN)), "valid_error": float(np.median(errors))}


def label_losses(history: Sequence[Mapping[str, float]]) -> list[float]:
    """Return the losses on valid of a history; empty where none is kept."""
    return [row["valid_loss"] for row in history if "valid_loss" in row]
