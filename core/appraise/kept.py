"""What a long measurement has found so far, so that what ends it costs little."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.errors import ScoresError


class Kept:
    """Values by key, a JSON pair a line, in a file that grows: what is cut off in the midst of a line costs that line.

    What another wrist finder, or another version of this program, made of a film is not told apart unless the key does.

    Parameters
    ----------
    path : pathlib.Path or None
        Need not be there yet; None: nothing is kept.

    Raises
    ------
    ScoresError
        There is another file.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._values: dict[tuple[str | int, ...], Any] = {}
        try:
            text = path.read_bytes() if path and path.exists() else b""
            whole = text[: text.rfind(b"\n") + 1]
            for key, value in map(json.loads, whole.splitlines()):
                self._values[tuple(key)] = value
            if path and whole != text:
                os.truncate(path, len(whole))
        except (OSError, ValueError, TypeError) as error:
            raise ScoresError(
                "A file of kept measurements, or none yet, was expected, but it cannot be read as one."
            ) from error

    def find(self, key: Sequence[str | int]) -> Any:
        """Return what is kept under a key; None where nothing is."""
        return self._values.get(tuple(key))

    def add(self, key: Sequence[str | int], value: Any) -> None:
        """Keep a value that JSON can hold.

        Raises
        ------
        ScoresError
            The file cannot be written.
        """
        self._values[tuple(key)] = value
        if self._path is None:
            return
        try:
            with self._path.open("ab") as file:
                file.write(json.dumps([list(key), value]).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ScoresError("What is measured cannot be kept in the file that was named.") from error
