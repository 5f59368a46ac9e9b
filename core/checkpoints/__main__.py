"""``python -m core.checkpoints list | verify | import``: what is here, is it what its card says, and more of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from core.backbones import BACKBONES, SCALINGS
from core.checkpoints import CHECKPOINTS, CheckpointEntry, default_id, import_checkpoint, list_checkpoints
from core.checkpoints.cards import POSITIVE_LABELS
from core.errors import ScaphoidError
from core.values import FITS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m core.checkpoints", description="List, verify and import models.")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--folder", type=Path, default=CHECKPOINTS, help="folder of checkpoints (default: Scaphoid's)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", parents=[shared], help="list all checkpoints; broken ones with their reason")
    check = commands.add_parser("verify", parents=[shared], help="check cards and weights; exit status 1 if any broke")
    check.add_argument("ids", nargs="*", metavar="ID", help="checkpoints to verify (default: all)")
    add = commands.add_parser("import", parents=[shared], help="publish a model that was trained elsewhere")
    add.add_argument("file", type=Path, metavar="FILE", help="Keras archive (.keras) or weights (.weights.h5, .h5)")
    add.add_argument("--backbone", required=True, metavar="NAME", help=", ".join(BACKBONES))
    add.add_argument("--id", metavar="ID", help="lower-case letters, digits and hyphens")
    add.add_argument("--title", help="name for people")
    add.add_argument("--input-size", type=int, metavar="PIXELS", help="pixels a side (default: the file's own, or 224)")
    add.add_argument(
        "--scaling",
        choices=tuple(SCALINGS),
        help="what was handed to the network: keras (its own preprocessing), unit (0-1), byte (0-255), torch "
        "(standardised), caffe (0-255 less the mean) or local (Scaphoid's own, contrast levelled); default: what the "
        "file's own layers ask for, else keras; Scaphoid's own weights without their card have no default",
    )
    add.add_argument(
        "--fit",
        choices=FITS,
        default="pad",
        help="how films became squares in its training: their proportions kept, black beside them (pad), or both sides "
        "made as long (stretch); default: pad",
    )
    add.add_argument(
        "--positive-unit",
        type=int,
        choices=(0, 1),
        default=1,
        help="which of two units speaks for the finding; of one unit: 1 where a high answer does, 0 where a low one "
        "does (default: 1)",
    )
    add.add_argument("--positive-label", choices=POSITIVE_LABELS, default="fracture", help="what it calls positive")
    return parser


def _entries(ids: Sequence[str], folder: Path) -> list[CheckpointEntry]:
    """Return the entries of `ids`, or all; an id that is not there is a broken entry."""
    entries = list_checkpoints(folder)
    if not ids:
        return entries
    by_id = {entry.id: entry for entry in entries}
    absent = "There is no checkpoint of this id."
    return [by_id.get(each) or CheckpointEntry(each, None, absent) for each in ids]


def _print_entries(entries: Sequence[CheckpointEntry], default: str | None) -> None:
    for entry in entries:
        card = entry.checkpoint
        mark = "*" if entry.id == default else " "
        if card is None:
            print(f"{mark} {entry.id}  BROKEN: {entry.reason}")
        else:
            print(f"{mark} {card.id}  {card.title}  ({card.task}, {card.backbone}, {card.input_size} px)  whole")
    if not entries:
        print("There are no checkpoints.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "import":
            card = import_checkpoint(
                options.file,
                options.backbone,
                checkpoint_id=options.id,
                title=options.title,
                input_size=options.input_size,
                scaling=options.scaling,
                fit=options.fit,
                positive_unit=options.positive_unit,
                positive_label=options.positive_label,
                folder=options.folder,
            )
            print(card.data["trained_on"], file=sys.stderr)
            print(f"Published {card.id}.")
            return 0
        entries = _entries(getattr(options, "ids", ()), options.folder)
        _print_entries(entries, default_id(options.folder))
    except ScaphoidError as error:
        print(error, file=sys.stderr)
        return 1
    return int(options.command == "verify" and any(entry.checkpoint is None for entry in entries))


if __name__ == "__main__":
    sys.exit(main())
