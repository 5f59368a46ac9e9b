"""``python -m core.train --data DIR --backbone NAME``: train a model, measure it on held-out patients, publish it."""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from core.backbones import BACKBONES, find_backbone
from core.checkpoints import CHECKPOINTS
from core.checkpoints.cards import check_id
from core.errors import ScaphoidError, TrainingError
from core.train import PRESETS, REQUEST_NAME, RUNS, TASKS, Request, RunFolder, train


def make_request(options: argparse.Namespace) -> Request:
    """Turn the command line into a request, checked as far as it can be before any work is done."""
    preset = options.preset or ("wrist" if options.task == "wrist" else "scaphoid")
    if preset not in PRESETS:
        raise TrainingError(f"A preset must be one of {', '.join(PRESETS)}, but {preset[:40]!r} came.")
    backbone = find_backbone(options.backbone or PRESETS[preset].backbone or "efficientnetlite0").name
    if options.task == "wrist" and backbone != "efficientnetlite0":
        raise TrainingError(f"A wrist finder is built on efficientnetlite0, but {backbone} came.")
    weights, weights_file = options.weights, None
    if weights == "none":
        weights = None
    elif weights != "imagenet":
        if not Path(weights).is_file():
            raise TrainingError("Weights are imagenet, none or a file that exists, but there is no such file.")
        weights_file = str(Path(weights).resolve())
        weights = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
    chosen = {
        name: getattr(options, name)
        for name in ("epochs", "seed", "input_size", "batch_size", "learning_rate")
        if getattr(options, name) is not None
    }
    settings = replace(PRESETS[preset], backbone=backbone, weights=weights, **chosen)
    if settings.epochs < 1 or settings.batch_size < 2 or settings.learning_rate <= 0:
        raise TrainingError("At least one epoch, two films a batch and a learning rate above 0 are needed.")
    small = min(int(settings.extra.get("small_size", settings.input_size)), settings.input_size)
    settings = replace(settings, extra={**settings.extra, "small_size": small})
    if options.task == "wrist" and settings.input_size % 16:
        raise TrainingError(f"A wrist finder's input size is a multiple of 16, but {settings.input_size} came.")
    run_id = options.id or f"{backbone}-{preset}-{time.strftime('%Y%m%d-%H%M%S')}"
    return Request(
        check_id(run_id), options.task, str(Path(options.data).resolve()), options.format, str(Path(options.out)),
        options.finder, weights_file, options.title, settings,
    )  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(
        prog="python -m core.train", description="Train a model, measure it on held-out patients, publish it."
    )
    parser.add_argument("--data", help="folder of films: MURA layout, class folders, a CSV table ...")
    parser.add_argument("--format", help="the dataset's format, where it cannot be told from the folder")
    parser.add_argument("--backbone", help=", ".join(BACKBONES))
    parser.add_argument("--task", choices=TASKS, default="fracture")
    parser.add_argument("--preset", help=", ".join(PRESETS))
    parser.add_argument("--weights", default="imagenet", help="imagenet, none, or a file (default: imagenet)")
    parser.add_argument("--finder", metavar="ID", help="wrist finder that will cut the films when they are read")
    parser.add_argument("--out", default=str(CHECKPOINTS), help="folder of checkpoints")
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of runs (default: runs)")
    parser.add_argument("--id", help="of the run and of the checkpoint: lower-case letters, digits and hyphens")
    parser.add_argument("--title", help="the checkpoint's name for people")
    parser.add_argument("--resume", metavar="ID", help="go on with a run that was cut off")
    for name, kind in (("epochs", int), ("seed", int), ("input-size", int), ("batch-size", int)):
        parser.add_argument(f"--{name}", type=kind)
    parser.add_argument("--learning-rate", type=float)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    options = build_parser().parse_args(arguments)
    try:
        if options.resume:
            request = RunFolder(options.runs / check_id(options.resume)).load_request()
        else:
            if not options.data:
                raise TrainingError("A folder of films is needed after --data, but none came.")
            request = make_request(options)
            if (options.runs / request.id / REQUEST_NAME).exists():
                raise TrainingError(f"A new run must have a new id, but {request.id} was begun; --resume goes on.")
        card = train(request, options.runs)
    except ScaphoidError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Published {card.id}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
