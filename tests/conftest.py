"""In which order the tests are dealt out, to how many workers, and what they must not leave behind."""

import functools
import gc
import os
import sys

import pytest

# Dozens of these tests start a Python of their own. Where bytecode is not kept (images for containers often forbid it),
# each of them would compile TensorFlow anew, for eight seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
if "PYTEST_XDIST_WORKER" in os.environ:
    # Every worker, and what it starts, is busy with a core of its own; more threads would only wait for one another.
    for _threads in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(_threads, "1")
    # What is imported while tests are collected are objects by the million, none of them garbage (see below).
    gc.disable()

# The slowest files, slowest first: begun last, one of them would run on alone when all others are done.
SLOW = (
    "test_browser",
    "test_page_threshold",
    "test_train_engine",
    "test_explain",
    "test_train",
    "test_train_whole",
    "test_imports",
    "test_pages",
    "test_backbones",
    "test_page_dataset",
    "test_gallery",
    "test_predict",
    "test_benchmark",
)


def pytest_xdist_auto_num_workers(config):
    """Return one worker more than there are cores: a test that drives a browser or another process mostly waits."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items):
    """Put the slow files first; within a file the order stays."""
    items.sort(key=lambda item: SLOW.index(item.path.stem) if item.path.stem in SLOW else len(SLOW))


def pytest_collection_finish():
    """Leave what was imported out of every later search for garbage: TensorFlow alone would take 0.3 s each time."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True, scope="session")
def _components_are_looked_for_once():
    """Every AppTest reads the metadata of all installed packages, for half a second; they do not change meanwhile."""
    from streamlit.components.v2 import manifest_scanner

    with pytest.MonkeyPatch.context() as patch:
        scan = functools.cache(manifest_scanner.scan_component_manifests)
        patch.setattr(manifest_scanner, "scan_component_manifests", scan)
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_map_is_made_before_it_is_asked_for():
    """The reading room makes a first map by each method while nobody waits; here something always waits.

    And where the tests end while TensorFlow is at work for such a map, Python ends with a fault.
    """
    from pages.parts import readers

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "_warm_maps", lambda reader: None)
        yield


@pytest.fixture(autouse=True)
def _own_main_module():
    """A page that ran in a test leaves itself as the main module, which spawned processes would then run again."""
    kept = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = kept
