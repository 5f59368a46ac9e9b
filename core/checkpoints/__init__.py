"""Trained models on disk: list, verify, publish and import them.

A checkpoint is a folder named by its id that holds ``card.json`` (what the model is), ``model.weights.h5`` (its
weights: float16, or float32 where it was imported), and, where it was trained here, ``history.csv`` (one row an epoch)
and ``scores.csv`` (the probability of every study it was measured on). The text file ``default`` beside the folders
names the one to start with. Listing and verifying read no weights into a network and import neither TensorFlow nor
Keras.

``python -m core.checkpoints list | verify [ID...] | import FILE --backbone NAME``
"""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.backbones import find_backbone
from core.checkpoints.cards import LARGEST_CARD_BYTES, check_id, read_card_text, write_card
from core.checkpoints.files import write_whole
from core.checkpoints.imports import read_model
from core.checkpoints.weights import (
    LARGEST_WEIGHTS_BYTES,
    WEIGHTS_NAME,
    copy_weights,
    load_weights,
    round_to_float16,
    save_weights,
)
from core.errors import CheckpointError
from core.values import Checkpoint, Scores

if TYPE_CHECKING:
    import keras

CHECKPOINTS = Path(__file__).resolve().parents[2] / "checkpoints"
CARD_NAME = "card.json"
HISTORY_NAME = "history.csv"
SCORES_NAME = "scores.csv"
DEFAULT_NAME = "default"
SCORES_COLUMNS = ("split", "study_id", "patient_id", "label", "probability")
_NUMBERS = ("label", "probability")
_UNWRITABLE = "A folder that can be written to and has space was expected, but the checkpoint cannot be written there."

SETTLED_NS = 2_000_000_000

# Hash of a file by path, times of change and size, so that a listing need not read the weights again.
_hashes: dict[tuple[str, int, int, int], str] = {}


@dataclass(frozen=True, eq=False)
class CheckpointEntry:
    """One folder among the checkpoints, whole or broken.

    Attributes
    ----------
    id : str
        The folder's name.
    checkpoint : Checkpoint or None
        The card, where card and weights are whole.
    reason : str or None
        One sentence that says what is wrong, where they are not.
    """

    id: str
    checkpoint: Checkpoint | None
    reason: str | None


def list_checkpoints(folder: Path = CHECKPOINTS) -> list[CheckpointEntry]:
    """Return every checkpoint in `folder` by id, broken ones with their reason; hidden folders are left out."""
    entries = []
    for directory in sorted(Path(folder).iterdir()) if Path(folder).is_dir() else []:
        if directory.name.startswith((".", "_")) or not directory.is_dir():
            continue
        try:
            entries.append(CheckpointEntry(directory.name, verify(directory), None))
        except CheckpointError as error:
            entries.append(CheckpointEntry(directory.name, None, str(error)))
    return entries


def find_checkpoint(checkpoint_id: str | None, folder: Path = CHECKPOINTS) -> Path:
    """Return the folder of the checkpoint called `checkpoint_id`; None asks for the default one.

    Raises
    ------
    CheckpointError
        No id, one that cannot be an id, or one that is not among the checkpoints.
    """
    if checkpoint_id is None:
        checkpoint_id = default_id(folder)
    if checkpoint_id is None:
        raise CheckpointError("A checkpoint must be named or set as the default, but none is.")
    directory = Path(folder) / check_id(checkpoint_id)
    if not directory.is_dir():
        raise CheckpointError(f"The checkpoint must be one of those here, but there is none called {checkpoint_id}.")
    return directory


def read_card(directory: Path) -> Checkpoint:
    """Return the card of the checkpoint in `directory`, checked by itself: the weights are not read.

    Raises
    ------
    CheckpointError
        The card is missing, malformed, altered, or belongs to another folder.
    """
    card = Path(directory) / CARD_NAME
    try:
        if card.stat().st_size > LARGEST_CARD_BYTES:
            raise CheckpointError("The card must be a few kilobytes of JSON, but it is far larger.")
        text = card.read_bytes()
    except OSError as error:
        raise CheckpointError("The checkpoint must have a card, but there is none that can be read.") from error
    checkpoint = read_card_text(text)
    if checkpoint.id != Path(directory).name:
        raise CheckpointError("The card's id must be the name of its folder, but it is another.")
    return checkpoint


def verify(directory: Path) -> Checkpoint:
    """Return the card of the checkpoint in `directory` if card and weights are what was published.

    Raises
    ------
    CheckpointError
        As :func:`read_card`; or the weights are missing, or their SHA-256 is not the card's.
    """
    checkpoint = read_card(directory)
    try:
        digest = _sha256_of(Path(directory) / WEIGHTS_NAME)
    except OSError as error:
        raise CheckpointError("The checkpoint must have weights, but there are none that can be read.") from error
    if digest != checkpoint.weights_sha256:
        raise CheckpointError("The weights must be as they were published, but they have been altered since.")
    return checkpoint


def publish(
    folder: Path,
    checkpoint: Checkpoint,
    model_or_weights: keras.Model | Path,
    history: Iterable[Mapping[str, Any]] | None = None,
    scores: Iterable[Scores | Mapping[str, Any]] | None = None,
    dtype: type = np.float16,
) -> Checkpoint:
    """Publish a trained model as a checkpoint, all of it or nothing.

    Everything is written and flushed to the disk in a hidden folder beside its place, which is then renamed: whoever
    lists the checkpoints sees a whole one or none, whenever the power fails.

    Parameters
    ----------
    folder : pathlib.Path
        The folder of checkpoints; made if there is none.
    checkpoint : Checkpoint
        The card; its two hashes are filled in here.
    model_or_weights : keras.Model or pathlib.Path
        The model, or a Keras weights file.
    history : iterable of mapping, optional
        One row an epoch, the same keys in each.
    scores : iterable of Scores or mapping, optional
        Scores of each split, or rows with split, study_id, patient_id, label and probability.
    dtype : type
        What the weights are stored as: float16 (but see `weights.round_floats`), or float32 where nothing may be lost.

    Returns
    -------
    Checkpoint
        The card as published.

    Raises
    ------
    CheckpointError
        A checkpoint of this id exists, the card would be refused, a weight is not finite, or the folder
        cannot be written to or has no space.
    """
    target = check_place(folder, checkpoint.id)
    folder = target.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{checkpoint.id}-", suffix=".part", dir=folder))
        try:
            save = copy_weights if isinstance(model_or_weights, str | Path) else save_weights
            save(model_or_weights, aside / WEIGHTS_NAME, dtype)
            text, published = write_card(replace(checkpoint, weights_sha256=_sha256_of(aside / WEIGHTS_NAME)))
            _write_text(aside / CARD_NAME, text)
            if history is not None:
                rows = list(history)
                _write_text(aside / HISTORY_NAME, _table_text(rows, tuple(rows[0]) if rows else ()))
            if scores is not None:
                _write_text(aside / SCORES_NAME, scores_text(scores))
            aside.chmod(0o755)  # a temporary folder is private
            _flush_folder(aside)
            aside.rename(target)
            _flush_folder(folder)
            # What processes that were killed while they published it left behind.
            for half in folder.glob(f".{checkpoint.id}-{'?' * 8}.part"):
                shutil.rmtree(half, ignore_errors=True)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    except OSError as error:
        raise CheckpointError(_UNWRITABLE) from error
    return published


def check_place(folder: Path, checkpoint_id: str) -> Path:
    """Return where a new checkpoint of this id will lie, if it can lie there: to be asked before long work.

    Raises
    ------
    CheckpointError
        The id cannot be one, a checkpoint of it exists, or the folder cannot be written to.
    """
    folder = Path(folder)
    target = folder / check_id(checkpoint_id)
    # Path.exists would fail where a folder above may not be looked into.
    if os.path.exists(target):
        raise CheckpointError(f"A new checkpoint must have a new id, but {checkpoint_id} exists.")
    place = next(each for each in (folder, *folder.parents) if os.path.exists(each))
    if not (place.is_dir() and os.access(place, os.W_OK)):
        raise CheckpointError(_UNWRITABLE)
    return target


def default_id(folder: Path = CHECKPOINTS) -> str | None:
    """Return the id of the checkpoint to start with, or None where none is set.

    Raises
    ------
    CheckpointError
        What is set cannot be an id.
    """
    try:
        return check_id((Path(folder) / DEFAULT_NAME).read_text(encoding="utf-8").strip())
    except OSError:
        return None
    except UnicodeDecodeError as error:
        raise CheckpointError("The default must be a checkpoint's id, but it is not text.") from error


def set_default(checkpoint_id: str, folder: Path = CHECKPOINTS) -> None:
    """Make a checkpoint the one to start with.

    Raises
    ------
    CheckpointError
        It is not here, broken, or not one that reads films for fractures.
    """
    if verify(find_checkpoint(check_id(checkpoint_id), folder)).task != "fracture":
        raise CheckpointError("The default checkpoint must read films for fractures, but this one finds wrists.")
    write_whole(Path(folder) / DEFAULT_NAME, f"{checkpoint_id}\n")


def read_history(directory: Path) -> list[dict[str, float]]:
    """Return a checkpoint's training history, one row an epoch; empty where it has none.

    Raises
    ------
    CheckpointError
        The table holds anything but numbers.
    """
    try:
        return [{name: float(value) for name, value in row.items()} for row in _read_rows(directory, HISTORY_NAME)]
    except (TypeError, ValueError) as error:
        raise CheckpointError("A training history must hold numbers only, but it holds something else.") from error


def read_scores(directory: Path) -> tuple[Scores, ...]:
    """Return the scores a checkpoint was published with, one value for each split; empty where it has none.

    Raises
    ------
    CheckpointError
        The card is broken, a column is missing, or a label or probability is not one.
    """
    rows = _read_rows(directory, SCORES_NAME)
    if not rows:
        return ()
    card = read_card(directory)
    if not set(SCORES_COLUMNS) <= set(rows[0]):
        raise CheckpointError(f"Scores must have the columns {', '.join(SCORES_COLUMNS)}, but one is missing.")
    try:
        for row in rows:
            row["label"], row["probability"] = int(row["label"]), float(row["probability"])
            if row["label"] not in (0, 1) or not 0 <= row["probability"] <= 1:
                raise ValueError("out of range")
    except (TypeError, ValueError) as error:
        raise CheckpointError("Scores must be labels 0 or 1 and probabilities, but a row holds another.") from error
    splits = dict.fromkeys(row["split"] for row in rows)
    return tuple(_scores_of(card, split, [row for row in rows if row["split"] == split]) for split in splits)


def _scores_of(card: Checkpoint, split: str, rows: Sequence[Mapping[str, Any]]) -> Scores:
    columns = {name: tuple(row[name] or "" for row in rows) for name in rows[0] if name and name not in _NUMBERS}
    more = {name: values for name, values in columns.items() if name not in SCORES_COLUMNS and any(values)}
    return Scores(
        checkpoint_id=card.id,
        split=split,
        study_ids=columns["study_id"],
        patient_ids=columns["patient_id"],
        labels=[row["label"] for row in rows],
        probabilities=[row["probability"] for row in rows],
        weights_sha256=card.weights_sha256,
        columns=more,
    )


def scores_text(scores: Iterable[Scores | Mapping[str, Any]]) -> str:
    """Return the table of scores that :func:`read_scores` reads; every probability comes back bit for bit.

    Parameters
    ----------
    scores : iterable of Scores or mapping
        Scores of each split, or rows with split, study_id, patient_id, label and probability. What else the scores
        know of their studies makes further columns; an empty cell where one does not know it.
    """
    rows = [row for each in scores for row in _score_rows(each)]
    return _table_text(rows, tuple(dict.fromkeys([*SCORES_COLUMNS, *(name for row in rows for name in row)])))


def _score_rows(scores: Scores | Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    if not isinstance(scores, Scores):
        return [scores]
    names = (*SCORES_COLUMNS, *scores.columns)
    columns = (scores.study_ids, scores.patient_ids, scores.labels.tolist(), scores.probabilities.tolist())
    rows = zip(*columns, *scores.columns.values(), strict=True)
    return [dict(zip(names, (scores.split, *row), strict=True)) for row in rows]


def _table_text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def _read_rows(directory: Path, name: str) -> list[dict[str, Any]]:
    try:
        with open(Path(directory) / name, encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CheckpointError("A table in CSV was expected beside the card, but it cannot be read as one.") from error


def _write_text(path: Path, text: str) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        _flush(file)


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Make a folder's entries survive a power failure; Windows has no such call."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256_of(path: Path) -> str:
    # Without waiting for a pipe that nobody writes to.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode) or state.st_size > LARGEST_WEIGHTS_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        key = (str(path), state.st_mtime_ns, state.st_ctime_ns, state.st_size)
        if key in _hashes:
            return _hashes[key]
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    # A file changed twice within one tick of the clock looks unchanged, so only a settled one is remembered.
    if time.time_ns() - max(state.st_mtime_ns, state.st_ctime_ns) > SETTLED_NS:
        _hashes[key] = digest
    return digest


# --- Import -----------------------------------------------------------------------------------------------------------


def import_checkpoint(
    source: Path,
    backbone: str,
    *,
    checkpoint_id: str | None = None,
    title: str | None = None,
    input_size: int | None = None,
    scaling: str | None = None,
    fit: str = "pad",
    positive_unit: int = 1,
    positive_label: str = "fracture",
    folder: Path = CHECKPOINTS,
) -> Checkpoint:
    """Publish a model trained elsewhere, if it is one that the graph of `backbone` can be.

    Nothing in the file decides what code runs: the network is built here and only numbers are taken from the file. They
    are kept as float32, so that the model answers as it did where it was made.

    Parameters
    ----------
    source : pathlib.Path
        A Keras 3 archive (.keras), Keras 3 weights (.weights.h5), or an older .h5.
    backbone : str
        A key of ``core.backbones.BACKBONES``.
    checkpoint_id, title : str, optional
        Made from the backbone's name where not given.
    input_size : int, optional
        Pixels a side of the films the model was trained on; the file's own where not given, else 224.
    scaling : str, optional
        What was handed to the network in training, a key of ``core.backbones.SCALINGS``; where not given, see
        :func:`core.checkpoints.imports.read_model`.
    positive_unit : int
        Which of two units speaks for the finding, 0 or 1; of a single unit, whether a high answer does (1) or a low one
        (0). Folders of classes are usually counted in the order of the alphabet.
    fit : str
        How films became squares in its training, one of :data:`core.values.FITS`.
    positive_label : str
        What its training data called positive: ``"fracture"`` or ``"abnormal"``.
    folder : pathlib.Path
        The folder of checkpoints.

    Raises
    ------
    CheckpointError
        An unknown backbone, a file that is none of these, carries code or unknown layers, or does not fit; an id that
        is taken, or a folder that cannot be written to.
    """
    known = find_backbone(backbone)
    source = Path(source)
    if not source.is_file():
        raise CheckpointError("A file to import was expected, but there is none.")
    new_id = checkpoint_id or _free_id(f"{backbone}-imported", Path(folder))
    check_place(folder, new_id)
    imported = read_model(source, backbone, input_size=input_size, scaling=scaling, positive_unit=positive_unit)
    import keras

    imported = replace(imported, fit=fit)
    card = Checkpoint(
        id=new_id,
        title=title or f"{known.title} (imported)",
        task="fracture",
        backbone=backbone,
        feature_layer=known.feature_layer,
        input_size=imported.input_size,
        scaling=imported.scaling,
        fit=fit,
        location_head=imported.location_head,
        positive_label=positive_label,
        data={
            "trained_on": f"Not stated: it was trained elsewhere and imported. {imported.preparation}",
            "tested_on": "Not tested here; without operating points it gives no more than a probability.",
            "not_for": "Not for decisions: nothing is known here of how well it reads films.",
            "licences": ["Not stated."],
            "imported_sha256": _sha256_of(source),
        },
        versions={"keras": keras.__version__},
    )
    return publish(Path(folder), card, imported.model, dtype=np.float32)


def _free_id(stem: str, folder: Path) -> str:
    number = 1
    while (folder / f"{stem}-{number}").exists():
        number += 1
    return f"{stem}-{number}"


# --- Command line -----------------------------------------------------------------------------------------------------


__all__ = [
    "CHECKPOINTS",
    "CheckpointEntry",
    "check_place",
    "default_id",
    "find_checkpoint",
    "import_checkpoint",
    "list_checkpoints",
    "load_weights",
    "publish",
    "read_card",
    "read_history",
    "read_scores",
    "round_to_float16",
    "set_default",
    "verify",
]
