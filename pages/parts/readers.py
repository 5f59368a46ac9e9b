"""Checkpoints, loaded once for the whole server. Nothing of a patient is kept with them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import streamlit as st

from core.checkpoints import CHECKPOINTS, default_id, list_checkpoints
from core.errors import ScaphoidError
from core.explain.scrambled import ScrambledClassifier
from core.reading import ALL, EnsembleReader, Reader, open_ensemble, open_reader
from core.wrist import WristFinder, load_finder

_warms = threading.Event()
"""Set where a server runs that somebody looks at."""
_warming = threading.Lock()
FEWEST = {"samples": 2}
"""What compiles SmoothGrad: as many as go back through the network together."""


@st.cache_resource(max_entries=10, show_spinner=False)
def _reader(checkpoint_id: str, card_sha256: str) -> Reader:
    _share_keras()
    return open_reader(checkpoint_id, CHECKPOINTS, _finder_of)


@st.cache_resource(max_entries=10, show_spinner=False)
def _warm(checkpoint_id: str, card_sha256: str) -> None:
    """Warm a checkpoint's maps in the background, once."""
    _start(_warm_maps, _reader(checkpoint_id, card_sha256), name=f"warm-up {checkpoint_id}")


@st.cache_resource(max_entries=3, show_spinner=False)
def _finder(finder_id: str, card_sha256: str) -> WristFinder:
    _share_keras()
    return load_finder(finder_id, CHECKPOINTS)


def _share_keras() -> None:
    """Keep Streamlit from clearing Keras' session after each run of a page, as it does for pages that build networks.

    Ours are built once for all sessions. Cleared by another session's page in the midst of it, Keras would give names
    twice; and each time all of TensorFlow's objects are gone through for garbage, which takes 0.3 s.
    """
    import keras

    keras.backend.clear_session = lambda free_memory=True: None


def _finder_of(finder_id: str) -> WristFinder:
    return _finder(finder_id, _sha_of(finder_id))


def _sha_of(checkpoint_id: str) -> str:
    """Return the SHA-256 of a checkpoint's card, which tells its weights', too: what is measured anew is in it."""
    entry = next((entry for entry in list_checkpoints(CHECKPOINTS) if entry.id == checkpoint_id), None)
    return entry.checkpoint.card_sha256 if entry and entry.checkpoint else ""


def reader_of(checkpoint_id: str) -> Reader | EnsembleReader:
    """Return a checkpoint, or the mean of all, ready to read; loaded anew only if its weights or its card have changed.

    The models of a mean are those that are kept for reading alone: nothing is loaded twice. Their maps are not warmed:
    that would take the cores from the answer of all, for which somebody waits.

    Raises
    ------
    CheckpointError
        If it is missing or altered.
    """
    if checkpoint_id == ALL:
        return open_ensemble(CHECKPOINTS, lambda member: _reader(member, _sha_of(member)))
    known = checkpoint_id, _sha_of(checkpoint_id)
    reader = _reader(*known)
    if _warms.is_set():
        _warm(*known)
    return reader


@st.cache_resource(max_entries=10, show_spinner=False)
def _scrambled(checkpoint_id: str, card_sha256: str) -> ScrambledClassifier:
    return ScrambledClassifier(_reader(checkpoint_id, card_sha256).classifier)


def scrambled_of(reader: Reader) -> ScrambledClassifier:
    """Return the copy of a checkpoint whose weights are shuffled to check its heat maps; made once, in seconds."""
    return _scrambled(reader.checkpoint.id, reader.checkpoint.card_sha256)


@st.cache_resource(show_spinner=False)
def warm_up() -> threading.Thread:
    """Load the default checkpoint in the background while the reader still looks for the films; once per server.

    From here on every checkpoint that is to read by itself makes a first map by each method but Score-CAM over all
    channels, which takes some seconds that nobody has to wait for.
    """
    _warms.set()
    return _start(_load_default, name="warm-up")


def _start(work: Callable[..., None], *given: Any, name: str) -> threading.Thread:
    """Start a thread that Python waits for when the server is stopped.

    One that is cut off while it loads weights keeps HDF5's lock, and Python then never ends; one that is cut off inside
    TensorFlow ends it with a fault.
    """
    thread = threading.Thread(target=work, args=given, daemon=False, name=name)
    thread.start()
    return thread


def _load_default() -> None:
    with suppress(ScaphoidError):  # The page itself says what is wrong with the checkpoint when it is used.
        reader_of(default_id(CHECKPOINTS))


def _warm_maps(reader: Reader) -> None:
    """Read a simulated film and explain it by all methods but full Score-CAM, one checkpoint after the other.

    A server that is stopped meanwhile waits for the map in work, not for those that are left.
    """
    import numpy as np

    from core.explain import available_methods, explain
    from core.figures import png_bytes
    from core.phantoms import simulate_film
    from core.radiographs import read_radiograph

    goes_on = threading.main_thread().is_alive
    try:
        with _warming:
            if not goes_on():
                return
            film = read_radiograph(png_bytes(np.rint(255 * simulate_film(1, size=224).pixels).astype(np.uint8)))
            region = reader.read([film]).films[0].region
            for method in available_methods(reader.checkpoint, prompt=True):
                if goes_on():
                    settings = FEWEST if method == "smoothgrad" else {}
                    explain(reader.classifier, film, method=method, region=region, **settings)
    except Exception:
        if goes_on():
            raise
        # Python starts no further threads once it ends: nothing is lost, and nobody needs to read about it.
