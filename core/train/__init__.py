"""``python -m core.train --data DIR --backbone NAME``: train a model, measure it on held-out patients, publish it.

Written against Keras itself, so that it trains on any backend. A run keeps its state under ``runs/<id>`` after every
epoch: what is killed goes on with ``--resume ID`` and has lost at most one epoch.
"""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

from core.checkpoints import check_place, find_checkpoint, verify
from core.errors import CheckpointError, DatasetError, ScaphoidError, TrainingError
from core.train.films import TrainingData, collect_films
from core.train.loop import fit
from core.train.presets import EXTRA, PRESETS, TASKS, idle_settings
from core.train.publish import finish, seen_line, whole_films_line
from core.train.runs import (
    PROGRESS_NAME,
    REQUEST_NAME,
    RUNS,
    STATE_NAME,
    Progress,
    Report,
    Request,
    RunFolder,
    Stopped,
    describe_refusal,
)
from core.values import Checkpoint

__all__ = [
    "EXTRA",
    "PRESETS",
    "PROGRESS_NAME",
    "REQUEST_NAME",
    "RUNS",
    "STATE_NAME",
    "TASKS",
    "Progress",
    "Report",
    "Request",
    "RunFolder",
    "Stopped",
    "TrainingData",
    "collect_films",
    "describe_refusal",
    "finish",
    "fit",
    "train",
]


def train(request: Request, runs: Path = RUNS, report: Report | None = None) -> Checkpoint | None:
    """Train, measure and publish; go on where an earlier try was cut off.

    Returns
    -------
    Checkpoint or None
        The card as published; None where this process is one of several and another one publishes.

    Raises
    ------
    TrainingError, DatasetError, CheckpointError
        Each with one sentence that says what was expected and what came; also where a file cannot be written, and
        where another process trains this run.
    Stopped
        The report was asked to stop.
    """
    run = RunFolder(Path(runs) / request.id)
    try:
        # What one of two processes saved, the other would overwrite. Of several that train together one writes.
        with run.held() if _leads() else nullcontext():
            return _train(request, run, report or Report(run, request))
    except OSError as error:
        raise TrainingError(describe_refusal(error)) from error


def _train(request: Request, run: RunFolder, report: Report) -> Checkpoint | None:
    try:
        if (done := _published(request, run)) is not None:
            report.write(phase="published", message="", seconds_left=0.0)
            return done
        check_place(Path(request.out), request.id)
        if _leads():
            run.save_request(request)
        report(now=True, phase="reading", message="Looking for films")
        data = collect_films(request)
        if request.task == "wrist" and not data.with_regions:
            raise DatasetError(
                "A wrist finder is trained on films whose table says where the wrist is, but some lack it."
            )
        print(whole_films_line(request, data), end="", file=sys.stderr)
        print(seen_line(request, data), end="", file=sys.stderr)
        if idle := idle_settings(request.settings):
            print(
                f"All layers are trained, since the network begins with nothing learned: {', '.join(idle)} "
                f"{'has' if len(idle) == 1 else 'have'} no effect.",
                file=sys.stderr,
            )
        request = _keep_split(request, data, run)
        model, history, unreadable = fit(request, data, run, report)
        if not _leads():
            return None
        report(now=True, phase="measuring", message="Measuring on held-out films", seconds_left=None)
        card = finish(request, data, model, history, unreadable, report)
        report.write(phase="published", message="", seconds_left=0.0)
        return card
    except (Stopped, KeyboardInterrupt):
        report.write(phase="stopped", message="Stopped; it can be resumed", seconds_left=None)
        raise
    except ScaphoidError as error:
        report.write(phase="failed", message=str(error), seconds_left=None)
        raise
    except OSError as error:
        report.write(phase="failed", message=describe_refusal(error), seconds_left=None)
        raise
    except Exception:
        message = "It ended by an unexpected error; its log says which."
        report.write(phase="failed", message=message, seconds_left=None)
        raise


def _published(request: Request, run: RunFolder) -> Checkpoint | None:
    """Return this run's checkpoint if it was published before the run was cut off; None where another has the id."""
    if not run.has_state or request.split is None:
        return None
    try:
        card = verify(find_checkpoint(request.id, Path(request.out)))
    except CheckpointError:
        return None
    asked, made = (
        json.dumps(asdict(each), sort_keys=True) if each else "" for each in (request.settings, card.settings)
    )
    return card if asked == made and card.data.get("split") == request.split else None


def _keep_split(request: Request, data: TrainingData, run: RunFolder) -> Request:
    """Return the request with which studies are in which part, kept on disk; refuse to go on with other parts.

    A study that was trained on must not become one that is measured on.
    """
    if request.split not in (None, data.split) and run.has_state:
        raise DatasetError(
            "A run goes on with the same studies in train, valid and test, but the dataset's are others by now."
        )
    request = replace(request, split=data.split)
    if _leads():
        run.save_request(request)
    return request


def _leads() -> bool:
    """Tell whether this process writes the run's files."""
    import os

    from core.train.devices import read_team

    return read_team(os.environ.get("TF_CONFIG")).leads
