"""Trainings as processes of their own: started, listed, stopped and resumed, by whoever looks at them.

A training is ``python -m core.train`` run beside the dashboard, not inside it: it survives the browser and a restart
of the dashboard. All that is known of it is read from its folder ``runs/<id>`` and from the system's list of processes,
so that every session, also one of tomorrow, sees the same. Nothing ever passes through a shell. All of them share one
folder of decoded films beside theirs, so that going on does not decode a dataset again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from core.checkpoints import CHECKPOINTS
from core.checkpoints.cards import check_id
from core.errors import CheckpointError, TrainingError
from core.starts import look_at_start
from core.train.processes import Claim, ask_to_stop, is_alive, spawn, ticks_of
from core.train.runs import (
    HELD_NAME,
    LOCK_NAME,
    PROGRESS_NAME,
    REQUEST_NAME,
    RUNS,
    Request,
    describe_refusal,
    new_id,
    write_atomically,
)

PROJECT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "core.train")
LOG_NAME = "log.txt"
# Which process was started for a run, and which one was asked to stop.
JOB_NAME, STOPPING_NAME = "job.json", "stopping"
# Decoded films of all runs, in the folder of runs; no run can be called so.
CACHE_NAME, CACHE_GIB = "decoded_films", Request.cache_gib

STARTING, LOST = "starting", "lost"
FINAL_PHASES = ("published", "stopped", "failed")
PHASES = {
    STARTING: "Starting",
    "reading": "Reading films",
    "training": "Training",
    "measuring": "Measuring",
    "published": "Published",
    "stopped": "Stopped",
    "failed": "Failed",
    LOST: "Stopped without a word",
}
# A training that is asked to stop finishes its step and writes down where it is; then it is ended.
PATIENCE_S = 30.0
_LOG_BYTES = 16_384
# What TensorFlow writes when it starts, whatever it is told.
_NOISE = re.compile(r"WARNING: All log messages before absl|[IWE]\d{4} \d\d:\d\d:")

_starting = threading.Lock()
SOON_S = 60.0
"""Within so many seconds a folder that was made for a run has the process in it that was started for it."""


@dataclass(frozen=True, eq=False)
class RunOptions:
    """What a training is started with; the rest is the preset's.

    Attributes
    ----------
    data : pathlib.Path
        Folder of films, or a table of them.
    backbone, preset : str
    id : str or None
        Of the run and of its checkpoint; None makes one from backbone, preset and time.
    weights : str
        ``"imagenet"``, ``"none"``, a file or a checkpoint's id.
    finder : str or None
        Wrist finder that will cut the films when they are read.
    epochs : int or None
        None leaves the preset's.
    out : pathlib.Path
        Folder of checkpoints.
    region : str or None
        Part of the body whose films are taken, see :func:`core.train.films.open_dataset`.
    format : str or None
        The dataset's layout, one of :data:`core.datasets.FORMATS`; None: told from the folder.
    positive_label : str or None
        What the dataset calls positive, ``"fracture"`` or ``"abnormal"``; None: told from its own words.
    """

    data: Path
    backbone: str
    preset: str
    id: str | None = None
    weights: str = "imagenet"
    finder: str | None = None
    epochs: int | None = None
    out: Path = CHECKPOINTS
    region: str | None = None
    format: str | None = None
    positive_label: str | None = None


@dataclass(frozen=True, eq=False)
class RunStatus:
    """Where a training is.

    Attributes
    ----------
    id : str
    phase : str
        A key of `PHASES`.
    message : str
        One sentence of the training's own, or "".
    epoch, epochs : int
        0 where not known.
    share : float
        Done of the whole run, [0, 1].
    seconds_left, loss : float or None
    history : tuple of Mapping
        One row a whole epoch, see `core.train`.
    started, updated : float or None
        Unix time in seconds; `updated` is the last sign of life.
    running, stopping, resumable : bool
        `stopping`: it runs, and was asked to stop.
    backbone, preset : str
        "" where not known.
    """

    id: str
    phase: str
    message: str = ""
    epoch: int = 0
    epochs: int = 0
    share: float = 0.0
    seconds_left: float | None = None
    loss: float | None = None
    history: tuple[Mapping[str, Any], ...] = ()
    started: float | None = None
    updated: float | None = None
    running: bool = False
    stopping: bool = False
    resumable: bool = False
    backbone: str = ""
    preset: str = ""


# --- starting, stopping, resuming -------------------------------------------------------------------------------------


def start_run(options: RunOptions, runs: Path = RUNS) -> str:
    """Start a training as a process of its own; return its id at once.

    Raises
    ------
    CheckpointError
        The id cannot be one.
    TrainingError
        A run or checkpoint of this id exists, the folder of runs cannot be written to, or the weights to start from
        are not to be had.
    """
    run_id = options.id or new_id(options.backbone, options.preset)
    folder = _folder(run_id, runs)
    if (Path(options.out) / run_id).exists():
        raise TrainingError(f"A new training must have a new name, but a model called {run_id} exists.")
    start = look_at_start(options.backbone, options.weights)
    if not start.possible:
        raise TrainingError(start.sentence)
    try:
        Path(runs).mkdir(parents=True, exist_ok=True)
        with _starting:
            if _is_free(folder):
                shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
    except FileExistsError as error:
        raise TrainingError(f"A new training must have a new name, but {run_id} was begun before.") from error
    except OSError as error:
        raise TrainingError("The folder of trainings must be one that can be written to, but it is not.") from error
    arguments = [
        f"--data={Path(options.data).resolve()}",
        f"--backbone={options.backbone}",
        f"--preset={options.preset}",
        f"--weights={options.weights}",
        f"--out={Path(options.out).resolve()}",
        f"--id={run_id}",
        f"--cache={Path(runs).resolve() / CACHE_NAME}",
    ]
    arguments += [f"--finder={check_id(options.finder)}"] if options.finder else []
    arguments += [f"--epochs={int(options.epochs)}"] if options.epochs else []
    arguments += [f"--region={options.region}"] if options.region else []
    arguments += [f"--format={options.format}"] if options.format else []
    arguments += [f"--positive-label={options.positive_label}"] if options.positive_label else []
    _spawn(arguments, folder)
    return run_id


def _is_free(folder: Path) -> bool:
    """Tell whether a run ended before it had begun: what was asked for was never written down, and nothing runs."""
    left = (LOG_NAME, JOB_NAME, STOPPING_NAME, PROGRESS_NAME, LOCK_NAME, HELD_NAME)
    try:
        files = list(folder.iterdir())
    except OSError:
        return False
    if any(file.is_dir() or not (file.name in left or file.name.endswith(".part")) for file in files):
        return False
    job = _table(folder / JOB_NAME)
    if claim := _claim(job, _number(job.get("started")) or 0.0, job):
        return not is_alive(claim, folder.name)
    return time.time() - (_changed(folder) or time.time()) > SOON_S  # else another process may be about to start it


def resume_run(run_id: str, runs: Path = RUNS) -> None:
    """Go on with a training that was stopped, failed or died; at most one epoch is done again.

    Raises
    ------
    TrainingError
        There is none of this id, it runs, or it cannot be resumed.
    """
    with _starting:
        status = read_run(run_id, runs)
        if status.running:
            raise TrainingError(f"A training that does not run was expected, but {run_id} runs.")
        if not status.resumable:
            raise TrainingError(f"A training that was cut off was expected, but {run_id} has nothing to go on from.")
        (_folder(run_id, runs) / STOPPING_NAME).unlink(missing_ok=True)
        _spawn([f"--resume={run_id}"], _folder(run_id, runs))


def stop_run(run_id: str, runs: Path = RUNS, patience_s: float = PATIENCE_S) -> None:
    """Ask a training to stop, and end it if it has not after `patience_s` seconds; returns at once.

    Raises
    ------
    TrainingError
        There is none of this id, or it does not run.
    """
    status, claim = _read(run_id, runs)
    if not status.running or claim is None:
        raise TrainingError(f"A training that runs was expected, but {run_id} does not.")
    if not status.stopping:
        with suppress(OSError):  # a disk that is full is no reason to train on
            (_folder(run_id, runs) / STOPPING_NAME).write_text(f"{claim.pid}\n", encoding="utf-8")
    ask_to_stop(claim, run_id, patience_s)


def _spawn(arguments: Sequence[str], folder: Path) -> None:
    """Run the training command apart from this process and note which process it is."""
    command = [*COMMAND, *arguments, f"--runs={folder.parent.resolve()}"]
    try:
        pid = spawn(command, PROJECT, folder / LOG_NAME)
    except OSError as error:
        if not (folder / REQUEST_NAME).exists():
            shutil.rmtree(folder, ignore_errors=True)  # its name is free again
        raise TrainingError(describe_refusal(error)) from error
    job = {"pid": pid, "started": time.time(), "ticks": ticks_of(pid)}
    with suppress(OSError):  # the training runs; it writes down itself which process it is
        write_atomically(folder / JOB_NAME, json.dumps(job).encode())


# --- reading what there is --------------------------------------------------------------------------------------------


def list_runs(runs: Path = RUNS) -> tuple[RunStatus, ...]:
    """Return every training in the folder of runs: those that run first, then the latest first."""
    found = []
    for folder in sorted(Path(runs).iterdir()) if Path(runs).is_dir() else []:
        try:
            found.append(read_run(folder.name, runs))
        except (CheckpointError, TrainingError):
            continue  # not a run
    return tuple(sorted(found, key=lambda run: (not run.running, -(run.started or 0.0), run.id)))


def read_run(run_id: str, runs: Path = RUNS) -> RunStatus:
    """Return where one training is.

    Raises
    ------
    CheckpointError
        The id cannot be one.
    TrainingError
        There is none of this id.
    """
    return _read(run_id, runs)[0]


def tail_log(run_id: str, runs: Path = RUNS, lines: int = 12) -> str:
    """Return the last lines a training wrote, without the place of its films."""
    folder = _folder(run_id, runs)
    try:
        with open(folder / LOG_NAME, "rb") as file:
            file.seek(0, os.SEEK_END)
            cut = file.tell() > _LOG_BYTES
            file.seek(-_LOG_BYTES if cut else 0, os.SEEK_END if cut else os.SEEK_SET)
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    # A bar that is drawn again and again on one line counts with its last state only.
    shown = [line.rstrip().rsplit("\r", 1)[-1] for line in text.split("\n")][1 if cut else 0 :]
    place = _request(folder).get("data")
    if isinstance(place, str) and len(place) > 1:
        shown = [line.replace(place, "(the films)") for line in shown]
    return "\n".join([line for line in shown if line.strip() and not _NOISE.match(line)][-lines:])


def seconds_per_epoch(options: RunOptions, runs: Path = RUNS) -> float | None:
    """Return how long an epoch took when the same films were last trained on alike; None where that was never done."""
    wanted = (str(Path(options.data).resolve()), options.backbone, options.preset)
    for run in sorted(list_runs(runs), key=lambda run: -(run.updated or 0.0)):
        request = _request(_folder(run.id, runs))
        seconds = [row["seconds"] for row in run.history if isinstance(row.get("seconds"), int | float)]
        if seconds and (request.get("data"), run.backbone, run.preset) == wanted:
            return float(median(seconds))
    return None


def progress_sentence(run: RunStatus) -> str:
    """Say in words how far a training is: ``"Epoch 2 of 4 · about 12 min left · loss 0.562"``."""
    parts = []
    if run.stopping:
        parts.append("It was asked to stop and ends after its present step")
    elif run.message:
        parts.append(run.message.rstrip("."))
    elif run.phase == STARTING or (run.phase == "training" and not run.epoch):
        parts.append("the network is being made ready")
    if run.epochs and run.epoch and run.phase in ("training", "stopped", LOST):
        parts.append(f"epoch {run.epoch} of {run.epochs}")
    if run.running and not run.stopping and run.seconds_left is not None:
        parts.append(f"{duration_words(run.seconds_left)} left")
    if run.phase == "training" and run.loss is not None:
        parts.append(f"loss {run.loss:.3f}")
    sentence = " · ".join(parts)
    return sentence[:1].upper() + sentence[1:]


def duration_words(seconds: float) -> str:
    """Return a length of time for people: ``"less than a minute"``, ``"about 12 min"``, ``"about 3.5 h"``."""
    if seconds < 45:
        return "less than a minute"
    minutes = seconds / 60
    return f"about {max(1, round(minutes))} min" if minutes < 90 else f"about {minutes / 60:.1f} h"


def _read(run_id: str, runs: Path) -> tuple[RunStatus, Claim | None]:
    """Return a run's status and, where it is carried by a process, that process."""
    folder = _folder(run_id, runs)
    request, progress, job = _request(folder), _table(folder / PROGRESS_NAME), _table(folder / JOB_NAME)
    if not (request or progress or job):
        raise TrainingError("A training was expected, but there is none of this name.")
    said, started = _number(progress.get("updated")) or 0.0, _number(job.get("started")) or 0.0
    # What a process wrote before this one was started tells of an earlier try.
    fresh = bool(progress) and said >= started
    claim = _claim(progress if fresh else job, said if fresh else started, job)
    running = claim is not None and is_alive(claim, run_id)
    asked_to_stop = claim is not None and _asked_to_stop(folder) == claim.pid
    phase = str(progress.get("phase")) if fresh else STARTING
    if phase not in PHASES:
        phase = "training"
    message = _text(progress.get("message")) if fresh else ""
    if phase in FINAL_PHASES:
        running = False
    elif not running:
        phase = "stopped" if asked_to_stop else LOST if request else "failed"
        message = "" if request else "It ended before it had begun; its last lines say why"
    done, total = _number(progress.get("done")) or 0.0, _number(progress.get("total")) or 0.0
    settings = request.get("settings") if isinstance(request.get("settings"), dict) else {}
    status = RunStatus(
        id=run_id,
        phase=phase,
        message=message,
        epoch=int(_number(progress.get("epoch")) or 0),
        epochs=int(_number(progress.get("epochs")) or 0),
        share=1.0 if phase == "published" else min(1.0, max(0.0, done / total)) if total > 0 else 0.0,
        seconds_left=_number(progress.get("seconds_left")),
        loss=_number(progress.get("loss")),
        history=_rows(progress.get("history")),
        started=_number(progress.get("started")) or started or _changed(folder / REQUEST_NAME),
        updated=max(said, started) or _changed(folder / REQUEST_NAME),
        running=running,
        stopping=running and asked_to_stop,
        resumable=bool(request) and not running and phase != "published",
        backbone=_text(settings.get("backbone")),
        preset=_text(settings.get("preset")),
    )
    return status, claim if running else None


def _claim(said: Mapping[str, Any], seen: float, job: Mapping[str, Any]) -> Claim | None:
    pid = said.get("pid")
    if not isinstance(pid, int) or isinstance(pid, bool) or pid <= 1:
        return None
    ticks = job.get("ticks") if job.get("pid") == pid else None
    return Claim(pid, seen, ticks if isinstance(ticks, int) else None)


def _asked_to_stop(folder: Path) -> int | None:
    """Return the number of the process that was last asked to stop."""
    try:
        return int((folder / STOPPING_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _folder(run_id: str, runs: Path) -> Path:
    return Path(runs) / check_id(run_id)


def _request(folder: Path) -> dict[str, Any]:
    return _table(folder / REQUEST_NAME)


def _table(path: Path) -> dict[str, Any]:
    """Return a file's JSON table; empty where there is none or it cannot be read as one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _number(value: Any) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
    return float(value) if good else None


def _text(value: Any) -> str:
    return value[:300] if isinstance(value, str) else ""


def _rows(value: Any) -> tuple[Mapping[str, Any], ...]:
    return tuple(row for row in value if isinstance(row, dict)) if isinstance(value, list) else ()


def _changed(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None
