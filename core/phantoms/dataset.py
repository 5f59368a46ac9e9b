"""A folder of simulated studies in the layout of MURA v1.1, with masks and metadata beside it."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

from core.errors import DatasetError
from core.phantoms.films import VERSION, SimulatedFilm, simulate_study
from core.phantoms.fractures import KINDS
from core.phantoms.sheets import draw_sheet
from core.values import SIMULATION_NAME, UNFINISHED_NAME

COLUMNS = (
    "path", "split", "patient", "study", "label", "view", "laterality", "kind", "framing", "child", "displacement_mm",
    "gap_mm", "x", "y", "side", "angle", "width", "height", "seed", "age", "hardware", "cast", "turn", "spacing_mm",
    "bits",
)  # fmt: skip
BITS = ("8", "16", "mixed")


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
    bits : str
        ``"8"``: 8-bit PNG; ``"16"``: 16-bit PNG that use a part of their range, as machines store films; ``"mixed"``:
        each study as its machine stores it.
    often : mapping of str to float
        Kinds of fracture that are drawn so many times as often as they come, in the ``train`` split: rare and faint
        ones are learned from more examples, while what measures them stays as it comes.
    version : int
        ``core.phantoms.VERSION``.
    """

    studies: int
    seed: int = 0
    size: int = 512
    valid_fraction: float = 0.2
    bits: str = "8"
    often: Mapping[str, float] = field(default_factory=dict)
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
        if self.bits not in BITS:
            raise DatasetError(f"Expected 8, 16 or mixed bits, but got {self.bits!r}.")
        if not isinstance(self.often, Mapping):
            raise DatasetError("Expected kinds of fracture and how many times as often each is drawn.")
        for kind, factor in self.often.items():
            if kind not in KINDS:
                raise DatasetError(f"Expected a kind of fracture ({', '.join(KINDS)}), but got {kind!r}.")
            if not 0.01 <= factor <= 1000:
                raise DatasetError(f"Expected {kind} 0.01 to 1000 times as often, but got {factor}.")


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
        A new or empty folder, or one that was written with the same settings: it is then completed if the work was
        stopped halfway, else written again.
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
    shutil.rmtree(out / UNFINISHED_NAME)
    return len(rows)


def _claim(out: Path, settings: DatasetSettings) -> None:
    """Take a folder for this dataset, or refuse it."""
    if out.exists() and not out.is_dir():
        raise DatasetError("Expected a folder to write to, but there is a file of that name.")
    note = out / SIMULATION_NAME
    if note.is_file():
        if read_settings(out) != settings:
            raise DatasetError("Expected an empty folder, but it holds simulated films made with other settings.")
    elif out.is_dir() and any(out.iterdir()):
        raise DatasetError("Expected an empty folder, but it holds files that are not simulated films.")
    _write(note, (json.dumps(asdict(settings), indent=2) + "\n").encode())


def _plan(settings: DatasetSettings) -> list[_Task]:
    """Deal out splits, labels and seeds."""
    rng = np.random.default_rng([settings.seed, settings.studies])
    order = rng.permutation(settings.studies)
    valid = round(settings.studies * settings.valid_fraction)
    tasks = []
    for split, members in (("valid", order[:valid]), ("train", order[valid:])):
        for place, index in enumerate(members):
            number = int(index) + 1
            tasks.append(_Task(number, split, place % 2 == 0, study_seed(settings.seed, number)))
    return sorted(tasks, key=lambda task: task.number)


def study_seed(seed: int, number: int) -> int:
    """Return the seed of a dataset's study: `number` is its patient's, from 1; `seed` the dataset's."""
    state = np.random.SeedSequence([seed, number - 1]).generate_state(1, np.uint64)[0]
    return int(state) >> 11  # 53 bits: every reader of the table can hold them exactly


def _run(tasks: list[_Task], out: Path, settings: DatasetSettings, jobs: int) -> Iterator[list[dict]]:
    work = partial(_write_study, out=out, settings=settings)
    if jobs == 1 or len(tasks) < 4:
        yield from map(work, tasks)
        return
    # Spawned, not forked: OpenCV's threads do not survive a fork.
    with ProcessPoolExecutor(min(jobs, len(tasks)), get_context("spawn"), cv2.setNumThreads, (1,)) as pool:
        yield from pool.map(work, tasks, chunksize=4)


def _write_study(task: _Task, out: Path, settings: DatasetSettings) -> list[dict]:
    """Write a study's films and masks, unless an earlier run did, and return its rows of the table."""
    note = out / UNFINISHED_NAME / f"{task.number:05d}.json"
    if note.is_file():
        return json.loads(note.read_text("utf-8"))
    rows = []
    often = settings.often if task.split == "train" else None
    study = simulate_study(task.seed, size=settings.size, positive=task.positive, often=often)
    for number, film in enumerate(study, start=1):
        path = f"{task.folder}/image{number}.png"
        stored, bits = encode_film(film, settings.bits)
        _write(out / path, _png(stored))
        _write(out / "masks" / path, _png(film.mask.astype(np.uint8) * 255))
        region = film.region
        values = (
            path, task.split, f"patient{task.number:05d}", "study1", film.label, film.view, film.laterality, film.kind,
            film.framing, int(film.child), film.displacement_mm, film.gap_mm, round(region.x, 2), round(region.y, 2),
            round(region.side, 2), round(region.angle, 2), film.pixels.shape[1], film.pixels.shape[0], film.seed,
            round(film.age, 1), film.hardware, int(film.cast), round(film.angle, 1), round(film.spacing_mm, 4), bits,
        )  # fmt: skip
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    _write(note, json.dumps(rows).encode())
    return rows


def encode_film(film: SimulatedFilm, bits: str = "8") -> tuple[np.ndarray, int]:
    """Return a film's stored values and the bits they use.

    Parameters
    ----------
    film : SimulatedFilm
    bits : str
        One of ``BITS``.

    Returns
    -------
    stored : numpy.ndarray
        uint8, or uint16 where the film is stored deep: then the greys begin somewhat above 0 and end below the top of
        the machine's 10, 12, 14 or 16 bits, at the same values in all films of a study.
    used : int
        8, 10, 12, 14 or 16.
    """
    if bits == "8" or (bits == "mixed" and film.stored_bits == 8):
        return np.round(film.pixels * 255).astype(np.uint8), 8
    used = film.stored_bits if film.stored_bits > 8 else 12
    rng = np.random.default_rng([film.seed, used])
    low, high = rng.uniform(0, 0.12) * 2**used, rng.uniform(0.6, 1.0) * (2**used - 1)
    return np.round(low + film.pixels.astype(np.float64) * (high - low)).astype(np.uint16), used


def film_png(film: SimulatedFilm, bits: str = "8") -> bytes:
    """Return a film's file: a PNG, byte by byte the one that :func:`write_dataset` writes."""
    return _png(encode_film(film, bits)[0])


def read_settings(out: Path) -> DatasetSettings | None:
    """Return what a simulated dataset was made from; None where its folder does not tell."""
    try:
        return DatasetSettings(**json.loads((out / SIMULATION_NAME).read_text("utf-8")))
    except (OSError, ValueError, TypeError, DatasetError):
        return None


def _write_tables(out: Path, rows: list[dict]) -> None:
    """Write metadata.csv and, without headings as MURA has them, its lists of films and of labelled studies."""
    _write(out / "metadata.csv", _csv([list(COLUMNS), *([row[c] for c in COLUMNS] for row in rows)]))
    root = out.resolve().name
    for split in ("train", "valid"):
        films = [f"{root}/{row['path']}" for row in rows if row["split"] == split]
        labels = {f"{root}/{row['path'].rpartition('/')[0]}/": row["label"] for row in rows if row["split"] == split}
        _write(out / f"{split}_image_paths.csv", _csv([[film] for film in films]))
        _write(out / f"{split}_labeled_studies.csv", _csv([list(item) for item in labels.items()]))


def write_sheet(out: Path, file: Path, films: int = 48) -> None:
    """Write a contact sheet (PNG) of the first films of a simulated dataset, with their breaks outlined.

    Parameters
    ----------
    out : pathlib.Path
        A folder that :func:`write_dataset` has written.
    file : pathlib.Path
    films : int
        At most so many.
    """
    with open(out / "metadata.csv", encoding="utf-8", newline="") as table:
        rows = [row for row, _ in zip(csv.DictReader(table), range(films), strict=False)]
    _write(file, _png(draw_sheet(_read_back(out, row) for row in rows)))


def _read_back(out: Path, row: dict[str, str]) -> tuple[np.ndarray, np.ndarray, str]:
    film, mask = (cv2.imread(str(place / row["path"]), cv2.IMREAD_UNCHANGED) for place in (out, out / "masks"))
    pixels = film.astype(np.float32)
    pixels = pixels / 255 if film.dtype == np.uint8 else (pixels - pixels.min()) / max(float(np.ptp(pixels)), 1.0)
    extras = [row["hardware"]] * (row["hardware"] != "none") + ["cast"] * (row["cast"] == "1")
    return pixels, mask > 0, " ".join([row["patient"][-5:], row["view"], row["kind"], *extras])


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
