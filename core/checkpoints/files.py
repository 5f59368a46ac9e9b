"""Small files beside the checkpoints, written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from core.errors import CheckpointError


def write_whole(path: Path, text: str) -> None:
    """Write a text file all at once or not at all.

    Raises
    ------
    CheckpointError
        It cannot be written there, or there is no space.
    """
    try:
        handle, aside = tempfile.mkstemp(prefix=f".{path.name}-", suffix=".part", dir=path.parent)
        try:
            with open(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(aside, path.stat().st_mode & 0o777 if path.exists() else 0o644)
            os.replace(aside, path)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CheckpointError(
            "A folder that can be written to and has space was expected, but this file cannot be written there."
        ) from error
