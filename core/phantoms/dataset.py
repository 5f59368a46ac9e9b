"""A folder of simulated studies in the layout of MURA v1.1, with masks and metadata beside it."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

from core.errors import DatasetError
from core.phantoms.films import VERSION, simulate_study

COLUMNS = (
    "path", "split", "patient", "study", "label", "view", "laterality", "kind", "framing", "child", "displacement_mm",
    "gap_mm", "x", "y", "side", "angle", "width", "height", "seed",
)  # fmt: skip
_SETTINGS = "simulated.json"


@dataclass(frozen=True)
class DatasetSettings:
    """What a simulated dataset is made from; the same settings give the same films, byte by byte.

    Attributes
    ----------
    studies : int
    seed : int
    size : int
        Longer side of a film in pixels.
    valid_fraction : float
        Share of the studies in the ``valid`` split, [0, 1].
    version : int
        ``core.phantoms.VERSION``.
    """

    studies: int
    seed: int = 0
    size: int = 512
    valid_fraction: float = 0.2
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.studies < 1:
            raise DatasetError(f"Expected at least 1 study, but {self.studies} were asked for.")
        if self.seed < 0:
            raise DatasetError(f"Expected a seed of 0 or more, but got {self.seed}.")
        if not 32 <= self.size <= 4096:
            raise DatasetError(f"Expected a film size of 32 to 4096 pixels, but got {self.size}.")
        if not 0 <= self.valid_fraction <= 1:
            raise DatasetError(f"Expected a valid fraction of 0 to 1, but got {self.valid_fraction}.")


@dataclass(frozen=True)
class _Task:
    """One study to be simulated and written."""

    number: int
    split: str
    positive: bool
    seed: int

    @property
    def folder(self) -> str:
        word = "positive" if self.positive else "negative"
        return f"{self.split}/XR_WRIST/patient{self.number:05d}/study1_{word}"


def write_dataset(
    out: Path, settings: DatasetSettings, jobs: int = 1, report: Callable[[int, int], None] | None = None
) -> int:
    """Write a simulated dataset; half of the studies of each split are positive.

    Parameters
    ----------
    out : pathlib.Path
        A new or empty folder, or one that was written with the same settings (it is then written again).
    settings : DatasetSettings
    jobs : int
        Processes that work side by side; the files do not depend on it.
    report : callable, optional
        Called with (studies done, studies in all).

    Returns
    -------
    int
        Number of films written.

    Raises
    ------
    DatasetError
        The folder holds something else.
    """
    if jobs < 1:
        raise DatasetError(f"Expected at least 1 job, but got {jobs}.")
    _claim(out, settings)
    tasks = _plan(settings)
    rows: list[dict] = []
    for done, study in enumerate(_run(tasks, out, settings, jobs), start=1):
        rows.extend(study)
        if report:
            report(done, len(tasks))
    _write_tables(out, rows)
    return len(rows)


def _claim(out: Path, settings: DatasetSettings) -> None:
    """Take a folder for this dataset, or refuse it."""
    if out.exists() and not out.is_dir():
        raise DatasetError("Expected a folder to write to, but there is a file of that name.")
    note = out / _SETTINGS
    wanted = asdict(settings)
    if note.is_file():
        try:
            found = json.loads(note.read_text("utf-8"))
        except (OSError, ValueError):
            found = None
        if found != wanted:
            raise DatasetError("Expected an empty folder, but it holds simulated films made with other settings.")
    elif out.is_dir() and any(out.iterdir()):
        raise DatasetError("Expected an empty folder, but it holds files that are not simulated films.")
    _write(note, (json.dumps(wanted, indent=2) + "\n").encode())


def _plan(settings: DatasetSettings) -> list[_Task]:
    """Deal out splits, labels and seeds."""
    rng = np.random.default_rng([settings.seed, settings.studies])
    order = rng.permutation(settings.studies)
    valid = round(settings.studies * settings.valid_fraction)
    tasks = []
    for split, members in (("valid", order[:valid]), ("train", order[valid:])):
        for place, index in enumerate(members):
            state = np.random.SeedSequence([settings.seed, int(index)]).generate_state(1, np.uint64)[0]
            # 53 bits: every reader of the table can hold them exactly.
            tasks.append(_Task(int(index) + 1, split, place % 2 == 0, int(state) >> 11))
    return sorted(tasks, key=lambda task: task.number)


def _run(tasks: list[_Task], out: Path, settings: DatasetSettings, jobs: int) -> Iterator[list[dict]]:
    work = partial(_write_study, out=out, size=settings.size)
    if jobs == 1 or len(tasks) < 4:
        yield from map(work, tasks)
        return
    # Spawned, not forked: OpenCV's threads do not survive a fork.
    with ProcessPoolExecutor(min(jobs, len(tasks)), get_context("spawn"), cv2.setNumThreads, (1,)) as pool:
        yield from pool.map(work, tasks, chunksize=4)


def _write_study(task: _Task, out: Path, size: int) -> list[dict]:
    rows = []
    for number, film in enumerate(simulate_study(task.seed, size=size, positive=task.positive), start=1):
        path = f"{task.folder}/image{number}.png"
        _write(out / path, _png(np.round(film.pixels * 255).astype(np.uint8)))
        _write(out / "masks" / path, _png(film.mask.astype(np.uint8) * 255))
        region = film.region
        values = (
            path, task.split, f"patient{task.number:05d}", "study1", film.label, film.view, film.laterality, film.kind,
            film.framing, int(film.child), film.displacement_mm, film.gap_mm, round(region.x, 2), round(region.y, 2),
            round(region.side, 2), round(region.angle, 2), film.pixels.shape[1], film.pixels.shape[0], film.seed,
        )  # fmt: skip
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def _write_tables(out: Path, rows: list[dict]) -> None:
    """Write metadata.csv and, without headings as MURA has them, its lists of films and of labelled studies."""
    _write(out / "metadata.csv", _csv([list(COLUMNS), *([row[c] for c in COLUMNS] for row in rows)]))
    root = out.resolve().name
    for split in ("train", "valid"):
        films = [f"{root}/{row['path']}" for row in rows if row["split"] == split]
        labels = {f"{root}/{row['path'].rpartition('/')[0]}/": row["label"] for row in rows if row["split"] == split}
        _write(out / f"{split}_image_paths.csv", _csv([[film] for film in films]))
        _write(out / f"{split}_labeled_studies.csv", _csv([list(item) for item in labels.items()]))


def _csv(rows: list[list]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 4])[1].tobytes()


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    os.replace(part, path)
