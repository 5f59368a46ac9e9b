"""Films decoded once: squares of one size on disk, mapped into memory, kept between trainings.

Each film has a record: what is kept of it, and a checksum over that, its number and its bytes. A square is served only
where its record agrees with it, so one that was half written when a process was killed, or when a disk lost power,
counts as not there and is decoded again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import DatasetError, ScaphoidError

VERSION = 2  # 2: thin breaks keep a mask
Loader = Callable[[int], tuple[np.ndarray, np.ndarray | None]]
_MISSING, _WITHOUT_MASK, _WITH_MASK, _CHECKED = range(4)
_RECORD = np.dtype([("state", "u1"), ("sum", "<u4")])
_ABOUT, _SQUARES, _MASKS, _RECORDS = "about.json", "squares.u8", "masks.u8", "records.bin"
_MADE_BY = "scaphoid decoded films"
_FLUSH_SECONDS, _FLUSH_FILMS = 5.0, 512


def make_key(paths: Iterable[Path], *facts: Any) -> str:
    """Return a name for the squares of these files made in this way; other files or another way give another name.

    Parameters
    ----------
    paths : iterable of pathlib.Path
        Everything that is read: films, and masks or files of boxes. Their names, sizes and times of change count.
    *facts
        What else decides what a square shows (size, margin, regions, ...); anything that JSON can hold.

    Returns
    -------
    str
        40 hexadecimal digits, which tell nothing of the files.

    Raises
    ------
    DatasetError
        A file that is not there.
    """
    digest = hashlib.sha256(json.dumps([VERSION, *facts], sort_keys=True).encode())
    for path in paths:
        try:
            status = os.stat(path)
        except OSError as error:
            raise DatasetError("A film of the dataset was there when it was listed, but is not there now.") from error
        digest.update(f"\0{os.path.abspath(path)}\0{status.st_size}\0{status.st_mtime_ns}".encode())
    return digest.hexdigest()[:40]


class DecodedCache:
    """Squares of films as uint8, in a folder of their own or in memory alone.

    Any number of threads and processes may read and fill one cache at the same time.

    Parameters
    ----------
    folder : pathlib.Path or None
        Holds caches, each in a folder named by its key; None: in memory, gone with the process.
    count : int
        Films.
    size : int
        Pixels a side of a square.
    masks : bool
        Keep masks beside the squares.
    limit_bytes : int
        The most that this cache takes. Films beyond it are decoded each time they are asked for.
    key : str
        As from `make_key`: different data must have different keys.
    folder_bytes : int or None
        The most that all caches of the folder take: those that nobody has open are removed, oldest first, until they
        do. None: `limit_bytes`.

    Raises
    ------
    DatasetError
        The folder cannot be written, or has no space for what is to be kept.
    """

    def __init__(
        self,
        folder: Path | None,
        count: int,
        size: int,
        masks: bool,
        limit_bytes: int,
        key: str,
        folder_bytes: int | None = None,
    ) -> None:
        if not re.fullmatch(r"[0-9A-Za-z_-]{1,80}", key):
            raise ValueError("expected a key of letters and digits")
        self.count, self.size, self.masks = count, size, masks
        each = size * size * (2 if masks else 1)
        self.kept = max(0, min(count, (limit_bytes - count * _RECORD.itemsize - 1024) // each))
        self._salt = zlib.crc32(f"{key} {size} {masks}".encode())
        self._verified = np.zeros(count, bool)
        self._load: Loader | None = None
        self._open_file: Any = None
        if folder is None or count == 0:
            shape = (self.kept, size, size)
            self._squares, self._records = np.zeros(shape, np.uint8), np.zeros(count, _RECORD)
            self._masks = np.zeros(shape, np.uint8) if masks else None
            return
        try:
            own_bytes = each * self.kept + count * _RECORD.itemsize
            self._open(Path(folder), key, max(limit_bytes, folder_bytes or 0), own_bytes)
        except OSError as error:
            raise DatasetError(
                "A folder with space for decoded films was expected, but it cannot be written or is full "
                f"({each * self.kept / 2**30:.1f} GiB are needed)."
            ) from error

    def __len__(self) -> int:
        """Return the number of films."""
        return self.count

    # --- on disk ---

    def _open(self, folder: Path, key: str, folder_bytes: int, own_bytes: int) -> None:
        place = folder / key
        about = {"made_by": _MADE_BY, "version": VERSION, "count": self.count, "size": self.size}
        about |= {"masks": self.masks, "kept": self.kept}
        place.mkdir(parents=True, exist_ok=True)
        if _read_about(place) != about:
            # Files under the old names may be open elsewhere: new ones take their place, nothing is cut short.
            for name in (_ABOUT, _RECORDS, _SQUARES, _MASKS):
                (place / name).unlink(missing_ok=True)
            with _replacing(place / _ABOUT) as file:
                file.write(json.dumps(about).encode())
        os.utime(place / _ABOUT)
        self._open_file = _hold(place / _ABOUT)
        _remove_old(folder, place, folder_bytes - own_bytes)
        shape = (self.kept, self.size, self.size)
        self._squares = _map(place / _SQUARES, np.dtype(np.uint8), shape)
        self._masks = _map(place / _MASKS, np.dtype(np.uint8), shape) if self.masks else None
        self._records = _map(place / _RECORDS, _RECORD, (self.count,))

    def _flush(self) -> None:
        for array in (self._squares, self._masks):
            if isinstance(array, np.memmap):
                array.flush()

    # --- films ---

    def fill(
        self,
        load: Loader,
        progress: Callable[[int, int], None] | None = None,
        workers: int = 2,
    ) -> dict[int, str]:
        """Decode every film that is not kept yet; one that an earlier call decoded is only checked.

        Parameters
        ----------
        load : callable
            Number of a film -> its square and mask, uint8 (size, size), the mask None where it is not known. Raises
            ScaphoidError for a film that cannot be read. Called from several threads.
        progress : callable, optional
            Called with (done, of) after each film.
        workers : int
            Threads.

        Returns
        -------
        dict of int to str
            Films that cannot be read, by number, and why. They are tried again by the next call.
        """
        self._load = load
        failures: dict[int, str] = {}
        waiting: list[tuple[int, int, int]] = []
        flushed = time.monotonic()
        with ThreadPoolExecutor(workers) as pool:
            try:
                for done, (index, state, total, reason) in enumerate(pool.map(self._keep, range(self.count)), start=1):
                    if reason is not None:
                        failures[index] = reason
                    elif state != _MISSING:
                        waiting.append((index, state, total))
                    if len(waiting) >= _FLUSH_FILMS or time.monotonic() - flushed > _FLUSH_SECONDS:
                        self._record(waiting)
                        flushed = time.monotonic()
                    if progress:
                        progress(done, self.count)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
                self._record(waiting)
        return failures

    def _keep(self, index: int) -> tuple[int, int, int, str | None]:
        """Decode and write one film; return its number, state and checksum for the record, and why it failed."""
        if self._agrees(index):
            return index, _MISSING, 0, None
        try:
            square, mask = self._decode(index)
        except ScaphoidError as error:
            return index, _MISSING, 0, str(error)
        state = _CHECKED
        if index < self.kept:
            self._squares[index] = square
            state = _WITHOUT_MASK
            if self._masks is not None and mask is not None:
                self._masks[index] = mask
                state = _WITH_MASK
        return index, state, self._checksum(index, state), None

    def _record(self, waiting: list[tuple[int, int, int]]) -> None:
        """Say of films that they are kept, after their squares are safe; empties the list."""
        self._flush()
        for index, state, total in waiting:
            self._records[index] = (state, total)
            self._verified[index] = True
        if waiting and isinstance(self._records, np.memmap):
            self._records.flush()
        waiting.clear()

    def square(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return one film's pixels and mask, uint8 (size, size), not to be written; the mask None where not known.

        Raises
        ------
        ScaphoidError
            The film is not kept and cannot be read.
        """
        if not 0 <= index < self.count:
            raise IndexError(index)
        if index < self.kept and self._agrees(index):
            with_mask = self._masks is not None and self._records[index]["state"] == _WITH_MASK
            return _read_only(self._squares[index]), _read_only(self._masks[index]) if with_mask else None
        if self._load is None:
            raise RuntimeError("a film that is not kept can only be decoded after fill was called")
        square, mask = self._decode(index)
        return _read_only(square), None if mask is None else _read_only(mask)

    def _decode(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        square, mask = self._load(index)
        for array in (square,) if mask is None else (square, mask):
            if array.shape != (self.size, self.size) or array.dtype != np.uint8:
                raise ValueError(f"expected uint8 ({self.size}, {self.size}), got {array.dtype} {array.shape}")
        return square, mask if self.masks else None

    def _agrees(self, index: int) -> bool:
        """Tell whether a film's record is there and fits what is kept of it."""
        if self._verified[index]:
            return True
        state, total = (int(value) for value in self._records[index])
        possible = (_WITHOUT_MASK, _WITH_MASK) if index < self.kept else (_CHECKED,)
        if state not in possible or (state == _WITH_MASK and self._masks is None):
            return False
        self._verified[index] = self._checksum(index, state) == total
        return bool(self._verified[index])

    def _checksum(self, index: int, state: int) -> int:
        total = zlib.crc32(f"{index} {state}".encode(), self._salt)
        if state in (_WITHOUT_MASK, _WITH_MASK):
            total = zlib.crc32(self._squares[index], total)
        return zlib.crc32(self._masks[index], total) if state == _WITH_MASK else total


def _read_only(array: np.ndarray) -> np.ndarray:
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view


def _read_about(place: Path) -> dict[str, Any] | None:
    """Return what a folder says of itself; None where it is no cache."""
    try:
        about = json.loads((place / _ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return about if isinstance(about, dict) and about.get("made_by") == _MADE_BY else None


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Any]:
    """Open a new file that takes its place when it is whole."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            yield file
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _map(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Map a file of exactly this size; one of another size is made anew."""
    length = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if length == 0:
        return np.zeros(shape, dtype)
    if not path.is_file() or path.stat().st_size != length:
        with _replacing(path) as file:
            _take_space(file, length)
    return np.memmap(path, dtype, "r+", shape=shape)


def _take_space(file: Any, length: int) -> None:
    """Take a file's space on the disk at once: a page that finds none when it is written would end the process."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, length)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
    file.truncate(length)


def _hold(path: Path) -> Any:
    """Open a cache's file so that no other process removes the cache while it is in use."""
    file = open(path, "rb")  # noqa: SIM115 (stays open as long as the cache)
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return file


def _is_held(path: Path) -> bool:
    """Tell whether anybody has a cache open. Where files cannot be locked, an open one cannot be removed either."""
    try:
        import fcntl
    except ImportError:
        return False
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def _remove_old(folder: Path, own: Path, allowed_bytes: int) -> None:
    """Remove caches of `folder` that nobody uses, oldest first, until the others take no more than `allowed_bytes`."""
    others = []
    for place in folder.iterdir():
        if place != own and _read_about(place) is not None:
            files = [*(place / name for name in (_SQUARES, _MASKS, _RECORDS)), *place.glob("*.part"), place / _ABOUT]
            taken = sum(file.stat().st_size for file in files if file.is_file())
            others.append(((place / _ABOUT).stat().st_mtime_ns, taken, place, files))
    total = sum(taken for _, taken, _, _ in others)
    for _, taken, place, files in sorted(others, key=lambda item: item[0]):
        if total <= allowed_bytes:
            return
        if _is_held(place / _ABOUT):
            continue
        with contextlib.suppress(OSError):
            for file in files:
                file.unlink(missing_ok=True)
            total -= taken
            place.rmdir()
