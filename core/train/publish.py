"""The end of a training: weights rounded, measured on held-out patients, and published with a card."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.backbones import find_backbone, freeze
from core.checkpoints import CHECKPOINTS, find_checkpoint, publish, read_card, round_to_float16
from core.classifier import Classifier
from core.errors import CheckpointError
from core.starts import START_LICENCES
from core.train.films import TrainingData
from core.train.inputs import make_decoys
from core.train.presets import option
from core.train.runs import Progress, Report, Request
from core.values import Checkpoint

DECOY_SHARE = 0.3


def finish(
    request: Request,
    data: TrainingData,
    model: Any,
    history: Sequence[Mapping[str, float]],
    unreadable: int = 0,
    report: Report | None = None,
) -> Checkpoint:
    """Round the weights, measure on the held-out patients, and publish.

    Parameters
    ----------
    request : Request
    data : TrainingData
    model : keras.Model
        float32; its weights are rounded in place.
    history : sequence of Mapping
    unreadable : int
        Films of train that were left out.
    report : Report, optional
    """
    from core.train import appraisal
    from core.wrist import MAPS, WristFinder, load_finder

    settings = request.settings
    round_to_float16(model)
    splits = {"valid": data.valid, "test": data.test}
    progress = _telling(report or Report())
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
        reader = Classifier(_provisional_card(request, data, "location" in model.output), model, run)
        measured = appraisal.appraise_classifier(reader, splits, finder, progress)
    card = describe_checkpoint(request, data, measured, "location" in getattr(model, "output", {}), unreadable)
    return publish(Path(request.out), card, model, history, measured.scores or None)


def _provisional_card(request: Request, data: TrainingData, location: bool) -> Checkpoint:
    """Return what must be known of a network to read films with it before anything was measured."""
    settings = request.settings
    return Checkpoint(
        id=request.id,
        title="",
        task="fracture",
        backbone=settings.backbone,
        feature_layer=find_backbone(settings.backbone).feature_layer,
        input_size=settings.input_size,
        location_head=location,
        looks=_looks(request, data),
    )


def _looks(request: Request, data: TrainingData) -> int:
    """Return how often a film is looked at; a whole film can only be mirrored."""
    looks = int(option(request.settings, "looks"))
    return looks if request.finder and data.with_regions else min(looks, 2)


def _telling(report: Report) -> Any:
    progress = Progress("measuring")

    def tell(done: int, total: int) -> None:
        progress(done, total)
        message = f"Measuring on held-out films: {done:,} of {total:,}"
        report(phase="measuring", message=message, seconds_left=progress.seconds_left)

    return tell


def describe_checkpoint(
    request: Request, data: TrainingData, measured: Any, location: bool, unreadable: int = 0
) -> Checkpoint:
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
        scaling="keras" if wrist else option(request.settings, "scaling"),
        looks=1 if wrist else _looks(request, data),
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
                "train_films": len(data.train) - unreadable,
                "train_films_unreadable": unreadable,
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
        trained += f" and on {int(option(request.settings, 'decoys')):,} simulated films without a wrist"
    if request.teachers:
        trained += f", with {', '.join(request.teachers)} as teacher{'s' if len(request.teachers) > 1 else ''}"
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
    """Return a sentence on each thing that went into the weights."""
    backbone = find_backbone(request.settings.backbone)
    lines = []
    if request.start is not None:
        lines += _inherited(request.start, Path(request.out))
    elif request.settings.weights in START_LICENCES:
        lines.append(f"Started from {START_LICENCES[request.settings.weights]}.")
    elif request.settings.weights is not None:
        lines.append(f"Started from {backbone.weights_licence}.")
    for teacher in request.teachers:
        lines += _inherited(teacher, Path(request.out))
    if data.simulated:
        lines.append("The simulated films were made by Scaphoid's own simulator (MIT).")
    else:
        lines.append("The films' own licence applies to what was learned from them.")
    return list(dict.fromkeys(lines))


def _inherited(checkpoint_id: str, out: Path) -> list[str]:
    """Return what the card of a checkpoint that was learned from says of licences."""
    for folder in (out, CHECKPOINTS):
        try:
            return [str(line) for line in read_card(find_checkpoint(checkpoint_id, folder)).data.get("licences", ())]
        except CheckpointError:
            continue
    return []


def _versions() -> dict[str, str]:
    import keras

    from core.phantoms import VERSION

    versions = {"python": platform.python_version(), "numpy": np.__version__, "keras": keras.__version__}
    versions["backend"] = keras.backend.backend()
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        versions["tensorflow"] = tensorflow.__version__
    return versions | {"simulator": str(VERSION)}
