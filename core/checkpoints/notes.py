"""What the document beside the checkpoints tells of them beyond their cards: real films, and what was tried."""

from __future__ import annotations

import re
from pathlib import Path

from core.checkpoints import CHECKPOINTS

NOTES_NAME = "README.md"
_BESIDE_IT = re.compile(r"\[([^\]]+)\]\((?!https?:)[^)]*\)")
"""A link to a file beside the document, which leads nowhere from elsewhere."""
SHOWN = ("Looked at on real films", "What was tried")


def read_notes(folder: Path = CHECKPOINTS) -> dict[str, str]:
    """Return what the folder's document tells under each heading of `SHOWN`.

    Parameters
    ----------
    folder : pathlib.Path
        The folder that holds the checkpoints.

    Returns
    -------
    dict
        Heading -> Markdown, its own headings one level lower than there, and files beside it named instead of linked.
        Headings that are not there are left out, and all are where no document can be read.
    """
    try:
        text = (folder / NOTES_NAME).read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    found = {}
    for part in f"\n{text}".split("\n## ")[1:]:
        heading, _, body = part.partition("\n")
        if heading.strip() in SHOWN:
            found[heading.strip()] = _BESIDE_IT.sub(r"`\1`", body.replace("\n### ", "\n#### ")).strip()
    return {heading: found[heading] for heading in SHOWN if heading in found}
