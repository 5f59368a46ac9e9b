"""A run on disk: what was asked for, its state after every epoch, and how far it is."""

from __future__ import annotations

import json
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from core.datasets.splits import SPLIT_SEED
from core.errors import TrainingError
from core.starts import IMAGENET_START, LITE0_START
from core.train.devices import read_team
from core.train.processes import Claim, is_alive, lock_file, ticks_of
from core.values import TrainingSettings

RUNS = Path(__file__).resolve().parents[2] / "runs"
"""Where runs lie, whether they were begun on the Train page or in any folder by the command."""
STATE_NAME, REQUEST_NAME, PROGRESS_NAME = "state.npz", "request.json", "progress.json"
LOCK_NAME, HELD_NAME = "lock.json", "held"
"""Names the process that trains a run."""
PROGRESS_EVERY_S = 2.0
MOST_WAITING = 0.05
"""Share of an epoch's time from which on it is said that the network waited for films."""


@dataclass(frozen=True, eq=False)
class Request:
    """Everything a run was asked for; kept in its folder so that it can be resumed.

    Attributes
    ----------
    id, task, data : str
        `data` is a folder or table.
    format : str or None
        Of the dataset; None: told from the folder.
    out : str
        Folder of checkpoints.
    finder : str or None
        Checkpoint that will find the wrist when films are read.
    weights_file : str or None
        Local file that training starts from.
    title : str or None
    settings : TrainingSettings
    start : str or None
        Checkpoint that training starts from.
    teachers : tuple of str
        Checkpoints whose answers the network also learns.
    precision : str
        ``"auto"`` or a dtype policy of Keras.
    deterministic : bool
        Ask TensorFlow for operations that give the same on a GPU each time; slower.
    cache : str or None
        Folder for decoded films; None: they are kept in memory.
    cache_gib : float
        How large that folder may grow.
    region : str or None
        Part of the body whose films are taken, or ``"all"``; None: see :func:`core.train.films.open_dataset`.
    split_seed : int
        What patients are dealt out by.
    split : str or None
        Which studies are in which part, see :func:`core.datasets.splits.fingerprint`; None before they were looked for.
    average_of : tuple of str
        Checkpoints whose weights were averaged (:mod:`core.train.merge`); nothing was trained then.
    positive_label : str or None
        What the dataset calls positive, ``"fracture"`` or ``"abnormal"``; None: told from its own words.
    """

    id: str
    task: str
    data: str
    format: str | None
    out: str
    finder: str | None
    weights_file: str | None
    title: str | None
    settings: TrainingSettings
    start: str | None = None
    teachers: tuple[str, ...] = ()
    precision: str = "auto"
    deterministic: bool = False
    cache: str | None = None
    cache_gib: float = 20.0
    region: str | None = None
    split_seed: int = SPLIT_SEED
    split: str | None = None
    average_of: tuple[str, ...] = ()
    positive_label: str | None = None

    @property
    def starts_elsewhere(self) -> bool:
        """Whether training starts from a model in a file, of which nothing is known but its numbers."""
        return self.weights_file is not None and self.settings.weights not in (IMAGENET_START, LITE0_START)


def new_id(backbone: str, preset: str) -> str:
    """Return the id of a run that was given none."""
    return f"{backbone}-{preset}-{time.strftime('%Y%m%d-%H%M%S')}"


@dataclass(frozen=True, eq=False)
class State:
    """A run after an epoch: all that is needed to go on as if it had not been cut off.

    Attributes
    ----------
    weights, optimizer : list of numpy.ndarray
        Variables of what is trained and of its optimizer, in their order.
    history : list of dict
        One row an epoch that was judged on valid.
    average : list of numpy.ndarray or None
        The moving average of the weights, where one is kept.
    best : list of numpy.ndarray or None
        The weights after the best epoch, where training may end early.
    unjudged : dict or None
        The row of one more epoch that was trained and is still to be judged.
    """

    weights: list[np.ndarray]
    optimizer: list[np.ndarray]
    history: list[dict[str, float]]
    average: list[np.ndarray] | None = None
    best: list[np.ndarray] | None = None
    unjudged: dict[str, float] | None = None

    @property
    def epochs(self) -> int:
        """How many epochs were trained."""
        return len(self.history) + (self.unjudged is not None)


class RunFolder:
    """A run's files, each replaced as a whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the run to this process; what one that was killed left behind is taken over and cleared away.

        Raises
        ------
        TrainingError
            Another process that lives trains it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        note, own = self.folder / LOCK_NAME, os.getpid()
        taken = f"A run is trained by one process at a time, but another one trains {self.folder.name} already."
        # The system keeps the lock and gives it back when the process ends, however it does. The note says who has it,
        # also to where the lock cannot be seen.
        with open(self.folder / HELD_NAME, "ab") as file:
            if not lock_file(file) or self._holder() not in (None, own):
                raise TrainingError(taken)
            write_atomically(note, json.dumps({"pid": own, "ticks": ticks_of(own)}).encode())
            for name in (STATE_NAME, REQUEST_NAME, PROGRESS_NAME):
                for half in self.folder.glob(f"{name}*.part"):
                    half.unlink(missing_ok=True)
            try:
                yield
            finally:
                if self._holder() == own:
                    with suppress(OSError):
                        note.unlink(missing_ok=True)

    def _holder(self) -> int | None:
        """Return the number of the living process that trains the run; None where there is none."""
        lock, progress = self.folder / LOCK_NAME, self.folder / PROGRESS_NAME
        try:
            said = json.loads(lock.read_text(encoding="utf-8"))
            seen = max(path.stat().st_mtime for path in (lock, progress) if path.exists())
            claim = Claim(int(said["pid"]), seen, said["ticks"])
        except (OSError, ValueError, TypeError, KeyError):
            return None  # there is no lock, or one that its process did not live to write
        return claim.pid if is_alive(claim, self.folder.name) else None

    def save_request(self, request: Request) -> None:
        """Keep what was asked for."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / REQUEST_NAME, json.dumps(asdict(request), indent=1).encode())

    def load_request(self) -> Request:
        """Return what was asked for; raise TrainingError where there is no such run."""
        try:
            content = json.loads((self.folder / REQUEST_NAME).read_text(encoding="utf-8"))
            content["teachers"] = tuple(content.get("teachers", ()))
            # Runs from before these were asked for took every film, and dealt patients out by the training's seed.
            content = {"region": "all", "split_seed": content["settings"]["seed"]} | content
            return Request(**{**content, "settings": TrainingSettings(**content["settings"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise TrainingError("A run to resume was expected, but there is none of this id.") from error

    def save_state(self, state: State) -> None:
        """Keep the state after an epoch, judged or not."""
        arrays = {
            f"{name}{number:05d}": array
            for name in ("weights", "optimizer", "average", "best")
            for number, array in enumerate(getattr(state, name) or ())
        }
        texts = {"history": list(state.history)} | ({"unjudged": state.unjudged} if state.unjudged else {})
        arrays |= {name: np.frombuffer(json.dumps(text).encode(), np.uint8) for name, text in texts.items()}
        with _replacing(self.folder / STATE_NAME) as file:
            np.savez(file, **arrays)

    @property
    def has_state(self) -> bool:
        """Whether an epoch was trained."""
        return (self.folder / STATE_NAME).is_file()

    def load_state(self) -> State | None:
        """Return the state as last saved, or None before the first epoch was trained.

        Raises
        ------
        TrainingError
            The file is not one that `save_state` wrote.
        """
        if not self.has_state:
            return None
        try:
            with np.load(self.folder / STATE_NAME, allow_pickle=False) as file:
                texts = {name: json.loads(file[name].tobytes()) for name in ("history", "unjudged") if name in file}
                arrays = {
                    part: [file[name] for name in sorted(file.files) if name.startswith(part)]
                    for part in ("weights", "optimizer", "average", "best")
                }
            history = texts["history"]
        except (BadZipFile, zlib.error, EOFError, ValueError, TypeError, KeyError) as error:
            raise TrainingError(
                "A run goes on from the state that it saved after an epoch, but its file is damaged or another one."
            ) from error
        average, best = arrays["average"] or None, arrays["best"] or None
        return State(arrays["weights"], arrays["optimizer"], history, average, best, texts.get("unjudged"))


def describe_refusal(error: OSError) -> str:
    """Return in a sentence why the system would not read or write a file; no path is in it."""
    reason = error.strerror or "a file could not be read or written"
    return f"A training must be able to read and write its files, but the system says: {reason}."


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file by `content`, so that whoever reads it sees the old one or the new one, whole."""
    with _replacing(path) as file:
        file.write(content)


@contextmanager
def _replacing(path: Path) -> Iterator[Any]:
    """Yield a file that takes the place of `path` once it is whole; what fails leaves nothing behind."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(aside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


class Stopped(Exception):  # noqa: N818 - it is no error
    """A run was asked to stop, and can be resumed."""


class Report:
    """How far a run is, in ``progress.json``; written at most every two seconds, and at each change of phase.

    A note that cannot be written is left out: that is no reason to end a training.

    Parameters
    ----------
    run : RunFolder or None
        None: nothing is written; nor is it by any but the first of several processes that train together.
    request : Request or None
    asked_to_stop : callable, optional
        Asked each time something is reported.
    """

    def __init__(
        self,
        run: RunFolder | None = None,
        request: Request | None = None,
        asked_to_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        leads = read_team(os.environ.get("TF_CONFIG")).leads
        self.path = run.folder / PROGRESS_NAME if run and leads else None
        self.asked_to_stop = asked_to_stop
        self.written = 0.0
        # A run that goes on has behind it what it had: it may be stopped before it has anything new to tell.
        before = _told_before(self.path, request.id if request else "")
        self.content: dict[str, Any] = {
            "id": request.id if request else "",
            "phase": "reading",
            "message": "",
            "epoch": 0,
            "epochs": request.settings.epochs if request else 0,
            "done": 0,
            "total": 0,
            "seconds_left": None,
            "loss": None,
            "history": [],
            "pid": os.getpid(),
            "started": time.time(),
            "updated": time.time(),
        } | before

    @property
    def folder(self) -> Path | None:
        """The run's folder; None where nothing is written."""
        return self.path.parent if self.path else None

    def __call__(self, *, now: bool = False, **changes: Any) -> None:
        """Take over what has changed, and write it down if it is time, or `now`; raise Stopped if that is asked for."""
        self.write(now=now, **changes)
        if self.asked_to_stop():
            raise Stopped

    def write(self, *, now: bool = True, **changes: Any) -> None:
        """Take over what has changed, and write it down if it is time, or `now`."""
        now = now or changes.get("phase", self.content["phase"]) != self.content["phase"]
        self.content |= changes
        if self.path is None or not (now or time.monotonic() - self.written >= PROGRESS_EVERY_S):
            return
        self.content["updated"] = time.time()
        self.written = time.monotonic()
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, json.dumps(self.content).encode())


def _told_before(path: Path | None, run_id: str) -> dict[str, Any]:
    """Return how far the run had come when it was last reported on; nothing where it is new."""
    try:
        told = json.loads(path.read_text(encoding="utf-8")) if path else {}
        if told["id"] != run_id or not isinstance(told["history"], list):
            return {}
        return {name: told[name] for name in ("epoch", "done", "total", "loss", "history", "started")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


class Progress:
    """How far a long piece of work is, on stderr: one line that is rewritten on a terminal, else a line now and then.

    Parameters
    ----------
    what : str
        The work's name.
    every_s : float
        Seconds between two lines; a terminal's is rewritten five times a second.
    """

    def __init__(self, what: str, every_s: float = 5.0) -> None:
        self.what, self.terminal = what, sys.stderr.isatty()
        self.every_s = 0.2 if self.terminal else every_s
        self.start = self.last = time.monotonic()
        self.before = 0.0
        self.seconds_left: float | None = None

    def begin(self, done: float) -> None:
        """Reckon what is left from here on, where so much is done: what came before went at another pace."""
        self.start, self.before = time.monotonic(), done

    def __call__(self, done: float, total: float, more: str = "", shown: tuple[int, int] | None = None) -> None:
        """Say that `done` of `total` is done; `shown`: say these two numbers instead."""
        now = time.monotonic()
        since = done - self.before
        self.seconds_left = (now - self.start) / since * (total - done) if since > 0 else None
        if now - self.last < self.every_s and done < total:
            return
        self.last = now
        count = f"{shown[0]}/{shown[1]}" if shown else f"{done:.0f}/{total:.0f}"
        line = f"{self.what}: {count}{more}, {_duration(self.seconds_left)} left"
        if self.terminal:
            print(f"\r\033[K{line}", end="\n" if done >= total else "", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Make room for another line on a terminal."""
        if self.terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    if seconds > 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"


def show_row(row: Mapping[str, float]) -> str:
    """Return a row of the history as a line."""
    shown = ", ".join(
        f"{name} for films {100 * value:.2g}%" if name == "waiting" else f"{name} {value:.4g}"
        for name, value in row.items()
    )
    if row.get("waiting", 0) < MOST_WAITING:
        return shown
    return f"{shown}\nnote: the network waited for films; --cache DIR on a fast disk may help"
