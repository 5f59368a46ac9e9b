"""The page of a dataset without a browser: the answer first, counts, overlap, baselines, and what goes wrong."""

import csv
import gc
import json
import re
import shutil
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import streamlit as st
from streamlit.runtime.caching import clear_session_resource_cache
from streamlit.testing.v1 import AppTest

from core.datasets import index_dataset
from core.phantoms.dataset import DatasetSettings, write_dataset
from pages.parts import composition, shortcuts

ROOT = Path(__file__).parent.parent


@pytest.fixture
def app(monkeypatch):
    for name in ("measure_from_files", "measure_from_pixels", "lead_over"):
        monkeypatch.setattr(shortcuts, name, partial(getattr(shortcuts, name), resamples=60))
    # All AppTests are one session to Streamlit; what belongs to a session must go between them.
    clear_session_resource_cache("test session id")
    yield AppTest.from_file(str(ROOT / "streamlit_app.py"), default_timeout=120).switch_page("pages/dataset.py")
    clear_session_resource_cache("test session id")


def look(app, place, layout=""):
    # As if it had been typed: every run of an AppTest takes a while, and the first one would show an empty field.
    app.session_state["dataset-folder"], app.session_state["dataset-layout"] = str(place), layout
    app.run()
    assert not app.exception
    assert app.text_input(key="dataset-folder").value == str(place)
    return app


def pages_html(app):
    return "\n".join(thing.proto.body for thing in app.get("html"))


def answer(app):
    return next(thing.proto.body for thing in app.get("html") if 'class="answer"' in thing.proto.body)


def table(app, *columns):
    """Return the table that has these columns."""
    return next(each.value for each in app.dataframe if set(columns) <= set(each.value.columns))


def figure(app, key):
    return json.loads(next(chart.proto.spec for chart in app.get("plotly_chart") if key in chart.proto.id))


def write_films(root, sizes, per_class=12):
    """Write a MURA folder of one-film studies, two a patient; `sizes`: (width, height) of negative and positive."""
    rng = np.random.default_rng(0)
    for number in range(2 * per_class):
        label = number % 2
        width, height = sizes[label]
        split = "train" if number < per_class else "valid"
        folder = root / f"{split}/XR_WRIST/patient{number // 2:05d}/study{number}_{('negative', 'positive')[label]}"
        folder.mkdir(parents=True)
        grey = rng.integers(0, 255, (height + number % 5, width + number % 3), np.uint8)
        assert cv2.imwrite(str(folder / "image1.png"), grey)
    return root


@pytest.fixture
def sized(tmp_path):
    return write_films(tmp_path / "sized", ((60, 80), (90, 120)))


def test_a_dataset_that_size_solves_is_warned_of_before_anything_is_asked(app, sized):
    look(app, sized)
    told = answer(app)
    assert "can be solved without looking for a fracture" in told
    assert "size of the picture alone" in told
    assert "1.000 (0.758 to 1.000), n=24" in told
    assert "No patient is in two splits." in told
    assert "24 films of 24 studies and 12 patients, 50% of the studies labelled positive" in told
    rows = table(app, "split", "studies").set_index("split")
    assert rows["studies"].to_dict() == {"train": 12, "valid": 12, "together": 24}
    assert rows.loc["together", "studies, positive"] == "12 (50.0%)"
    sizes = table(app, "width", "height")
    assert sizes["films, positive"].sum() == 12
    assert set(sizes["width"]) == {60, 61, 62, 90, 91, 92}
    baselines = table(app, "what", "AUC").set_index("what")
    assert baselines.loc["size of the picture", "AUC"] == 1
    assert "python -m core.evaluate --data" in app.code[0].value
    assert "--baselines" in app.code[0].value


def test_brightness_and_thumbnail_are_measured_on_a_button(app, tmp_path):
    root = write_films(tmp_path / "alike", ((64, 64), (64, 64)))
    app.run()
    assert "whether it can be solved without looking" in "\n".join(each.value for each in app.caption)
    app.text_input(key="dataset-folder").set_value(str(root)).run()
    assert "Not measured yet" in "\n".join(each.value for each in app.caption)
    assert len(table(app, "what", "AUC")) == 3
    app.button(key="measure-pixels").click().run()
    assert not app.exception
    baselines = table(app, "what", "AUC").set_index("what")
    assert len(baselines) == 5
    assert baselines.loc["mean brightness", "n"] == 24
    names = {trace["name"] for trace in figure(app, "baselines")["data"]}
    assert "thumbnail, 16 × 28 pixels" in names
    assert "measured on all 24 films" in "\n".join(each.value for each in app.caption)


def test_films_are_shown_small_and_by_label(app, sized):
    look(app, sized)
    first = pages_html(app)
    assert first.count("data:image/png;base64,") == 16
    assert re.search(r'title="(train|valid)/XR_WRIST/[^":]+: (train|valid)/XR_WRIST/[^"]+image1\.png"', first)
    app.button(key="other-films").click().run()
    assert pages_html(app).count("data:image/png;base64,") == 16
    assert pages_html(app) != first, "others were drawn"


def test_what_two_splits_share_is_said_first(app, sized):
    source = next((sized / "train").rglob("image1.png"))
    copy = sized / "valid/XR_WRIST" / source.parent.parent.name / "study99_negative"
    copy.mkdir(parents=True)
    shutil.copy(source, copy / "image1.png")
    look(app, sized)
    told = answer(app)
    assert "its splits overlap" in told
    assert "1 patient is in both train and valid: figures measured on valid are too good." in told
    assert "1 film is in both train and valid, byte for byte" in told
    assert len(table(app, "copy", "film")) == 2
    assert table(app, "patient", "splits")["patient"].tolist() == [source.parent.parent.name]


def test_a_picture_in_two_splits_is_found_whatever_its_file(app, tmp_path):
    root = write_films(tmp_path / "again", ((64, 64), (64, 64)))
    source = next((root / "train").rglob("image1.png"))
    other = next((root / "valid").rglob("image1.png"))
    grey = cv2.imread(str(source), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(other), cv2.resize(grey, None, fx=3, fy=2, interpolation=cv2.INTER_LINEAR) // 2 + 90)
    look(app, root)
    assert "its splits overlap" not in answer(app)
    app.button(key="measure-pixels").click().run()
    told = answer(app)
    assert "its splits overlap" in told
    assert "1 film is in both train and valid, the same picture in one file or another" in told
    assert set(table(app, "copy", "film")["film"]) == {str(path.relative_to(root)) for path in (source, other)}


def test_large_files_are_compared_only_on_a_button(app, sized, monkeypatch):
    monkeypatch.setattr(composition, "COPIES_AT_ONCE_BYTES", -1)
    look(app, sized)
    assert "same file" not in "\n".join(each.value for each in app.success)
    app.button(key="find-copies").click().run()
    assert "No two of the 24 films are the same file." in [each.value for each in app.success]


def test_of_many_films_a_sample_is_read_and_said_to_be_one(app, sized, monkeypatch):
    monkeypatch.setattr(composition, "SIZES_AT_ONCE", 20)
    monkeypatch.setattr(shortcuts, "FILMS_READ", (20,))
    look(app, sized)
    captions = "\n".join(each.value for each in app.caption)
    assert "n=20 of 24 films, drawn at random by patient" in captions
    app.button(key="measure-pixels").click().run()
    assert "20 of 24 films, drawn at random" in "\n".join(each.value for each in app.caption)
    app.button(key="all-sizes").click().run()
    assert "n=24, all films" in "\n".join(each.value for each in app.caption)
    assert not app.exception


def test_scores_of_these_studies_put_a_model_beside_the_baselines(app, sized, tmp_path):
    rows = [
        (study.id, study.patient_id, study.label, 0.2 + 0.6 * study.label) for study in index_dataset(sized).studies
    ]
    good, other = tmp_path / "good.csv", tmp_path / "other.csv"
    for path, flip in ((good, 0), (other, 1)):
        with open(path, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["study_id", "patient_id", "label", "probability"])
            writer.writerows([(study, patient, label ^ flip, p) for study, patient, label, p in rows])
    look(app, sized)
    files = [(path.name, path.read_bytes(), "text/csv") for path in (good, other)]
    app.file_uploader(key="score-tables").set_value(files).run()
    assert not app.exception
    told = "\n".join(each.value for each in app.markdown)
    assert "**good:** AUC 1.000 (0.758 to 1.000), n=24; ahead of the best baseline (size of the picture) by" in told
    assert "on the 24 studies that both read" in told
    assert "**other:**" not in told
    assert any(each.value.startswith("other: ") and "labels differ" in each.value for each in app.warning)
    assert {trace["name"] for trace in figure(app, "baselines")["data"]} >= {"good", "size of the picture"}
    assert not app.code, "nothing is left to be scored"


def test_simulated_films_are_called_simulated(app, tmp_path):
    assert write_dataset(tmp_path / "sim", DatasetSettings(6, seed=3, size=64)) > 6
    look(app, tmp_path / "sim")
    told = answer(app)
    assert "simulated films of 6 studies" in told
    assert "Its films are simulated" in told
    assert "too few patients" in told
    assert "simulated, " in "\n".join(each.value for each in app.markdown)
    assert "fracture" in table(app, "split", "studies").columns[2]


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("films", "whole path is needed"),
        ("/no/such/folder", "expected, but there is none"),
        ("empty", "was expected"),
        ("text", "cannot be read as comma-separated"),
    ],
)
def test_a_place_without_films_is_one_sentence(app, tmp_path, place, sentence):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_bytes(b"\xff\xfe\0")
    look(app, tmp_path / place if place in ("empty", "text") else place)
    (error,) = app.error
    assert sentence in error.value
    assert str(tmp_path) not in error.value
    assert not app.get("plotly_chart")


def test_a_layout_can_be_forced_and_a_wrong_one_is_one_sentence(app, sized):
    look(app, sized, "graz")
    assert len(app.error) == 1
    app.selectbox(key="dataset-layout").set_value("mura").run()
    assert not app.error
    assert "24 films" in answer(app)


def test_films_that_are_damaged_are_counted_and_nothing_fails(app, sized):
    damaged = next((sized / "train").rglob("image1.png"))
    damaged.write_bytes(damaged.read_bytes()[:60])
    (damaged.parent / "image2.png").write_bytes(b"")
    look(app, sized)
    assert any("1 × a file is empty" in each.value for each in app.warning)
    app.button(key="measure-pixels").click().run()
    assert not app.exception
    assert "1 of them could not be read" in "\n".join(each.value for each in app.caption)


def test_looking_again_sees_what_was_added(app, sized):
    look(app, sized)
    more = sized / "train/XR_WRIST/patient77777/study1_negative"
    more.mkdir(parents=True)
    assert cv2.imwrite(str(more / "image1.png"), np.random.default_rng(9).integers(0, 255, (60, 60), np.uint8))
    app.run()
    assert "24 films" in answer(app), "the folder is looked through once"
    app.button(key="dataset-look").click().run()
    assert "25 films" in answer(app)


def test_nothing_is_opened_from_a_page_that_is_open_to_others(app, monkeypatch):
    before = st.get_option
    monkeypatch.setattr(st, "get_option", lambda name: "0.0.0.0" if name == "server.address" else before(name))
    app.run()
    assert "open to others" in app.warning[0].value
    assert not app.text_input


def test_nothing_of_a_dataset_is_left_when_a_session_ends(app, sized):
    from pages.parts.lighttable import Table

    look(app, sized)
    held = [each for each in gc.get_objects() if type(each) is Table and each.found is not None]
    assert held
    clear_session_resource_cache("test session id")
    assert [(table.place, table.found, table.made) for table in held] == [((), None, {})] * len(held)


def test_coming_back_from_another_page_finds_it_as_it_was(monkeypatch, tmp_path):
    clear_session_resource_cache("test session id")
    root = write_films(tmp_path / "alike", ((64, 64), (64, 64)))
    app = AppTest.from_file(str(ROOT / "streamlit_app.py"), default_timeout=120).switch_page("pages/dataset.py").run()
    look(app, root, "mura")
    app.button(key="measure-pixels").click().run()
    assert len(table(app, "what", "AUC")) == 5
    app.switch_page("pages/about.py").run()
    app.switch_page("pages/dataset.py").run()
    assert not app.exception
    assert app.text_input(key="dataset-folder").value == str(root)
    assert app.selectbox(key="dataset-layout").value == "mura"
    assert len(table(app, "what", "AUC")) == 5


def test_patients_are_not_counted_where_nobody_knows_them(app, tmp_path):
    for number in range(4):
        folder = tmp_path / "set" / ("Fracture", "Normal")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        grey = np.random.default_rng(number).integers(0, 255, (60, 60), np.uint8)
        assert cv2.imwrite(str(folder / f"{number}.png"), grey)
    look(app, tmp_path / "set")
    assert "unknown patients" in answer(app)
    assert "patients" not in table(app, "split", "studies").columns
    assert "may share patients" in app.info[0].value
