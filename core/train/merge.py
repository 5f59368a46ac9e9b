"""``python -m core.train.merge --data DIR --of ID --of ID --id NEW``: the mean of the weights of several trainings.

Trainings that began alike and differ in what they saw may lie in one valley of the loss, whose middle can be better
than each of them (Wortsman et al., ICML 2022, arXiv:2203.05482). It costs nothing when films are read: it is one
network. Trainings that began with other random numbers need not lie in one valley, and their mean was worse than
each of them where it was tried (checkpoints/README.md); what came out is therefore measured and calibrated anew, as a
training is at its end. With one ``--of`` a checkpoint, which may be a wrist finder, is measured anew, for example with
more looks at each film, or at another size: networks may do better on films somewhat larger than those they learned
from (Touvron et al., NeurIPS 2019, arXiv:1906.06423).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from core.backbones import build_classifier
from core.checkpoints import CHECKPOINTS, check_place, find_checkpoint, read_card, read_history
from core.checkpoints.cards import check_id
from core.classifier import load_network
from core.datasets import FORMATS
from core.datasets.splits import SPLIT_SEED
from core.errors import CheckpointError, ScaphoidError
from core.train import recipes
from core.train.films import collect_films
from core.train.presets import check_settings
from core.train.publish import finish, may_have_seen
from core.train.runs import Request
from core.values import Checkpoint
from core.wrist import load_finder_network

_SHARED = ("backbone", "input_size", "feature_layer", "scaling", "fit", "location_head", "positive_label")
# Not the finder: it cuts the films when they are read, and the first one's does so for the mean.


def check_alike(cards: Sequence[Checkpoint]) -> None:
    """Raise CheckpointError unless the checkpoints are of one network that reads films in one way.

    Raises
    ------
    CheckpointError
        There is none, one of several finds wrists, or two differ.
    """
    if not cards or (len(cards) > 1 and any(card.task != "fracture" for card in cards)):
        raise CheckpointError("Checkpoints that read films for fractures were expected, but there is none or another.")
    for name in _SHARED:
        found = list(dict.fromkeys(str(getattr(card, name)) for card in cards))
        if len(found) > 1:
            raise CheckpointError(
                f"Only networks that are alike have a mean, but their {name.replace('_', ' ')} differs: "
                f"{' and '.join(found)}."
            )


def mean_model(ids: Sequence[str], folder: Path, input_size: int | None = None) -> Any:
    """Return a network with the mean of several checkpoints' weights, float32; None: of their own input size.

    Raises
    ------
    CheckpointError
        One is not here or broken, or their networks differ.
    """
    model, total = None, None
    for checkpoint_id in ids:
        task = read_card(find_checkpoint(checkpoint_id, folder)).task
        card, model = (load_network if task == "fracture" else load_finder_network)(checkpoint_id, folder)
        weights = [np.asarray(value, np.float64) for value in model.get_weights()]
        total = weights if total is None else [mean + value for mean, value in zip(total, weights, strict=True)]
    if input_size and input_size != card.input_size:
        same = {"location_head": card.location_head, "scaling": card.scaling}
        model = build_classifier(card.backbone, input_size=input_size, **same)
    model.set_weights([value / len(ids) for value in total])
    return model


def measure_merged(
    ids: Sequence[str],
    new_id: str,
    data: Path,
    folder: Path = CHECKPOINTS,
    looks: int | None = None,
    format: str | None = None,  # noqa: A002
    region: str | None = None,
    input_size: int | None = None,
) -> Checkpoint:
    """Average checkpoints' weights, calibrate and measure on a dataset's held-out patients, and publish.

    Parameters
    ----------
    ids : sequence of str
        One or more.
    new_id : str
    data : pathlib.Path
        The dataset that they were trained on: only its patients that no training saw may measure them.
    folder : pathlib.Path
        Of checkpoints.
    looks : int or None
        How often a film is looked at; None: as the first does. Finders always look as new ones do.
    format : str or None
        Of the dataset; None: told from the folder.
    region : str or None
        Part of the body whose films are taken, or ``"all"``; None: as a training with the first one's preset does.
    input_size : int or None
        Pixels a side at which films are read; None: as those read that were trained. Not for a finder.

    Raises
    ------
    CheckpointError, DatasetError, TrainingError
        The new id is taken, or the folder cannot be written to; the checkpoints are not alike; the dataset was split
        otherwise when one was trained; a number of looks or an input size that is none.
    """
    check_place(folder, new_id)
    ids = list(dict.fromkeys(ids))
    cards = [read_card(find_checkpoint(checkpoint_id, folder)) for checkpoint_id in ids]
    check_alike(cards)
    first = cards[0]
    if first.settings is None:
        raise CheckpointError("Checkpoints that were trained here were expected, but one tells no settings.")
    looked = {} if first.task == "wrist" else {"looks": looks or first.looks}
    if input_size is not None and first.task == "wrist":
        raise CheckpointError(
            "Only what reads films for fractures can be given another input size, but this finds wrists."
        )
    size = first.input_size if input_size is None else input_size
    settings = replace(first.settings, input_size=size, extra={**first.settings.extra, **looked})
    check_settings(settings, first.task)
    request = Request(
        new_id, first.task, str(data), format, str(Path(folder).resolve()), first.region, None, None, settings,
        average_of=tuple(ids), split_seed=SPLIT_SEED, region=region or recipes.REGIONS.get(settings.preset),
        positive_label=first.positive_label,
    )  # fmt: skip
    films = collect_films(request)
    if any(may_have_seen(card, films, data) for card in cards):
        raise CheckpointError(
            "The dataset that the checkpoints were trained on was expected, but its parts are others than theirs: they "
            "may have seen patients that are to measure them."
        )
    unreadable = max((card.data.get("counts") or {}).get("train_films_unreadable", 0) for card in cards)
    return finish(request, films, mean_model(ids, folder, size), read_history(folder / first.id), unreadable)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m core.train.merge",
        description="Average the weights of trainings that began alike; calibrate, measure and publish the mean.",
    )
    parser.add_argument("--data", metavar="DIR", type=Path, required=True, help="the dataset they were trained on")
    parser.add_argument("--format", choices=FORMATS, help="of the dataset, where it cannot be told from the folder")
    parser.add_argument("--region", help="part of the body whose films are taken, or all, as they were trained with")
    parser.add_argument("--of", metavar="ID", action="append", required=True, help="checkpoint; may be given again")
    parser.add_argument("--id", required=True, help="of the new checkpoint")
    parser.add_argument("--looks", metavar="N", type=int, help="looks at each film (default: as the first has)")
    parser.add_argument("--input-size", metavar="N", type=int, help="pixels a side (default: as it was trained)")
    parser.add_argument("--out", metavar="DIR", type=Path, default=CHECKPOINTS, help="folder of checkpoints")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        told = (options.looks, options.format, options.region, options.input_size)
        card = measure_merged(options.of, check_id(options.id), options.data, options.out, *told)
    except ScaphoidError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Published {card.id}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
