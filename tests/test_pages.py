"""The pages without a browser: what a reader is told, and what happens with bad input."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.runtime.caching import clear_session_resource_cache
from streamlit.testing.v1 import AppTest

from core import checkpoints
from tests.films import bad_files, dicom_film, png_film

ROOT = Path(__file__).parent.parent
PAGES = ["streamlit_app.py", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "pages").glob("*.py"))]


def open_page(path="streamlit_app.py"):
    # All AppTests are one session to Streamlit; what belongs to a session must go between them.
    clear_session_resource_cache("test session id")
    app = AppTest.from_file(str(ROOT / "streamlit_app.py"), default_timeout=120)
    return app.switch_page(path).run() if path != "streamlit_app.py" else app.run()


def words(app):
    """Return all that is written on the page."""
    places = (app.markdown, app.error, app.warning, app.info, app.caption, app.get("html"))
    return "\n".join(str(getattr(thing, "value", None) or thing.proto.body) for place in places for thing in place)


def upload(app, *files):
    key = next(thing.key for thing in app.get("file_uploader"))
    app.file_uploader(key=key).set_value([(name, data, "application/octet-stream") for name, data in files]).run()
    return app


@pytest.fixture
def app():
    app = open_page()
    assert not app.exception
    return app


@pytest.mark.parametrize("path", PAGES)
def test_every_page_opens_with_the_notice_and_without_a_fault(path):
    page = open_page(path)
    assert not page.exception
    assert "Not a medical device" in words(page)


def test_an_example_is_one_click_away_and_called_simulated(app):
    button = next(button for button in app.button if "Simulated: " in button.label)
    button.click().run()
    assert not app.exception
    text = words(app)
    assert any(answer in text for answer in ("Fracture suspected", "Uncertain", "No fracture seen"))
    assert "Simulated study" in text
    assert "simulated test studies that scored like this one" in text


def test_two_uploaded_films_are_one_study(app):
    upload(app, ("a.png", png_film(bits=16)), ("b.dcm", dicom_film()))
    assert not app.exception
    assert "of 2 films read" in words(app) or "Not read" in words(app)


def test_each_bad_file_gets_a_sentence_and_nothing_else_is_lost(app):
    bad = bad_files()
    upload(app, *((f"secret-{name}.png", data) for name, data in bad.items()), ("good.png", png_film(bits=8)))
    assert not app.exception
    sentences = [error.value for error in app.error]
    assert len(sentences) == len(bad)
    for number, sentence in enumerate(sentences, 1):
        assert sentence.startswith(f"File {number} of {len(bad) + 1}: ")
        assert sentence.endswith(".")
        assert "Traceback" not in sentence
        assert "secret" not in sentence
    assert "1 film read" in words(app) or "Not read" in words(app)


def test_only_bad_files_leave_the_reader_at_the_start_with_the_reason(app):
    upload(app, ("film.png", b""))
    assert len(app.error) == 1
    assert app.get("file_uploader")


def test_heat_is_off_at_first_and_every_method_can_be_asked_for(app):
    next(button for button in app.button if "displaced" in button.label).click().run()
    assert not app.selectbox
    app.toggle(key="heat").set_value(True).run()
    options = app.selectbox(key="method").options
    assert {"Grad-CAM", "Score-CAM", "SmoothGrad"} <= set(options)
    app.radio(key="target").set_value("against").run()
    assert not app.exception
    assert not app.error


def test_closing_the_study_leaves_nothing_on_the_page(app):
    next(button for button in app.button if "Simulated: " in button.label).click().run()
    app.button(key="close").click().run()
    assert "scored like this one" not in words(app)
    assert app.get("file_uploader")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Return a folder of checkpoints that the pages use instead of the embedded ones, with a copy of those."""
    folder = tmp_path / "checkpoints"
    shutil.copytree(checkpoints.CHECKPOINTS, folder)
    for module in ("pages.parts.study", "pages.parts.readers", "core.checkpoints"):
        monkeypatch.setattr(f"{module}.CHECKPOINTS", folder)
    return folder


def test_a_flipped_byte_in_the_weights_is_said_and_never_loaded(elsewhere):
    weights = elsewhere / checkpoints.default_id(elsewhere) / "model.weights.h5"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    app = open_page()
    next(button for button in app.button if "Simulated: " in button.label).click().run()
    assert not app.exception
    told = " ".join(thing.value for thing in (*app.warning, *app.error))
    assert "is not used" in told
    assert "the films cannot be read" in told


def test_several_checkpoints_stand_side_by_side_with_their_mean(elsewhere):
    first = elsewhere / checkpoints.default_id(elsewhere)
    card = replace(checkpoints.read_card(first), id="second-one", title="The second one")
    checkpoints.publish(elsewhere, card, first / "model.weights.h5")
    app = open_page()
    next(button for button in app.button if "Simulated: " in button.label).click().run()
    app.multiselect(key="checkpoints").set_value([first.name, "second-one"]).run()
    assert not app.exception
    assert "mean of 2" in words(app)
    assert "by " + checkpoints.read_card(first).title + ", The second one" in words(app)
    app.multiselect(key="checkpoints").set_value([]).run()
    assert "Choose a checkpoint" in words(app)
