"""What a reader is told while a page works: where anything is measured, words stand beside it."""

from contextlib import contextmanager
from pathlib import Path

import pytest
import streamlit as st
from streamlit.runtime.caching import clear_session_resource_cache
from streamlit.testing.v1 import AppTest

from core.metrics import curves, resampling
from pages.parts.comparison import VIEWS

ROOT = Path(__file__).parent.parent


@pytest.fixture
def waits(monkeypatch):
    """Return the words of every wait, and fail where patients are resampled or a band is drawn without any."""
    clear_session_resource_cache("test session id")
    told, now = [], []

    @contextmanager
    def spinner(text, **_):
        told.append(text)
        now.append(text)
        yield
        now.pop()

    def watched(function):
        def call(*arguments):
            assert now, "nothing is said meanwhile"
            return function(*arguments)

        return call

    monkeypatch.setattr(st, "spinner", spinner)
    for module, name in ((resampling, "draw_patients"), (curves, "_curves")):
        monkeypatch.setattr(module, name, watched(getattr(module, name)))
    yield told
    clear_session_resource_cache("test session id")


def table(rows=40):
    lines = ["study_id,patient_id,label,probability,view"]
    return "\n".join(
        lines + [f"s{n},p{n},{n % 2},{(n * 7 % 10) / 10},{'PA' if n < 20 else 'LAT'}" for n in range(rows)]
    )


def test_every_wait_on_compare_and_threshold_has_its_words(waits):
    app = AppTest.from_file(str(ROOT / "streamlit_app.py"), default_timeout=120).switch_page("pages/compare.py").run()
    app.multiselect(key="models").set_value([]).run()
    files = [(name, table().encode(), "text/csv") for name in ("one.csv", "two.csv")]
    app.file_uploader(key="score-tables").set_value(files).run()
    assert {"Reading one", "Reading two"} <= set(waits)
    app.multiselect(key="models").set_value(["uploaded: one", "uploaded: two"]).run()
    assert "Resampling the patients of 40 studies: one" in waits
    for view, (_, words) in VIEWS.items():
        app.button_group(key="view").set_value(view).run()
        assert not app.exception, view
        assert waits[-1] == words
    assert len({words for _, words in VIEWS.values()}) == len(VIEWS)
    app.switch_page("pages/threshold.py").run()
    app.file_uploader(key="score-tables").set_value(files[:1]).run()
    app.selectbox(key="model").set_value("uploaded: one").run()
    assert not app.exception
    assert waits[-1] == "Measuring every threshold"
