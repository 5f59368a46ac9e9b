"""Checkpoints as pages hold them: loaded once, and warm before anybody waits."""

import threading

import pytest

from core.checkpoints import CHECKPOINTS, default_id
from core.explain import available_methods, explain
from core.radiographs import read_radiograph
from pages.parts import readers
from pages.parts.readers import _warm_maps  # as it is before tests/conftest.py puts it aside
from tests.films import png_film


@pytest.fixture(scope="module")
def reader():
    return readers.open_reader(default_id(CHECKPOINTS), CHECKPOINTS)


def test_nothing_is_built_for_a_map_once_its_method_is_warm(reader, monkeypatch):
    _warm_maps(reader)
    monkeypatch.setattr("core.explain.passes._compile", lambda *_: pytest.fail("a pass was compiled again"))
    monkeypatch.setattr("keras.Model", lambda *_, **__: pytest.fail("a network was built again"))
    film = read_radiograph(png_film())
    for method in available_methods(reader.checkpoint, prompt=True):
        explain(reader.classifier, film, method=method)


def test_no_page_resets_keras_while_a_network_is_built_for_another(monkeypatch):
    import keras
    from streamlit.runtime.scriptrunner.script_runner import _clean_problem_modules

    monkeypatch.setattr(keras.backend, "clear_session", keras.utils.clear_session)
    monkeypatch.setattr(readers, "open_reader", lambda name, *_: name)
    readers._reader.__wrapped__("any", "")
    names = []
    for _ in range(3):
        names.append(keras.layers.Dense(1).name)
        _clean_problem_modules()
    assert len(set(names)) == 3


def test_a_server_that_is_stopped_while_it_warms_makes_no_further_map(reader, monkeypatch):
    made = []

    class Main:
        def is_alive(self):
            return len(made) < 2

    monkeypatch.setattr("core.explain.explain", lambda *_, method, **__: made.append(method))
    monkeypatch.setattr(threading, "main_thread", Main)
    _warm_maps(reader)
    assert len(made) == 2 < len(available_methods(reader.checkpoint, prompt=True))


def test_a_checkpoint_is_warmed_once_where_a_server_runs_and_by_no_test(monkeypatch):
    warmed = []

    def warm(reader):
        warmed.append((reader, threading.current_thread().daemon))

    def ask(name):
        # As pages do, whose threads Python does not wait for: what they start would not be waited for either.
        page = threading.Thread(target=readers.reader_of, args=(name,), daemon=True)
        page.start()
        page.join()
        for thread in threading.enumerate():
            if thread.name.startswith("warm-up"):
                thread.join()

    monkeypatch.setattr(readers, "open_reader", lambda name, *_: name)
    monkeypatch.setattr(readers, "open_ensemble", lambda folder, opened: [opened("warm"), opened("member")])
    monkeypatch.setattr(readers, "_warm_maps", warm)
    monkeypatch.setattr(readers, "_warms", threading.Event())
    for cached in (readers._reader, readers._warm):
        cached.clear()
    ask("cold")
    readers._warms.set()
    for name in ("warm", "warm", "all"):
        ask(name)
    assert warmed == [("warm", False)], "Python waits for it; and what reads with others alone is not warmed"
    ask("member")
    assert [name for name, _ in warmed] == ["warm", "member"], "until it reads by itself"
    for cached in (readers._reader, readers._warm):
        cached.clear()
