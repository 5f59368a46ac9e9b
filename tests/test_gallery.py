"""A study chosen from a list, without a browser: its films, the truth, the model's map, the way to the reading room."""

import base64
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from streamlit.runtime.caching import clear_session_resource_cache
from streamlit.testing.v1 import AppTest

from core.checkpoints import CHECKPOINTS, default_id
from core.datasets import index_dataset
from core.measured import called_studies, measure_model
from core.originals import DatasetFilms, Simulation, remake_study
from core.phantoms import VERSION
from core.phantoms.dataset import DatasetSettings, write_dataset
from core.values import Checkpoint, Scores
from pages.parts import gallery
from pages.parts.desk import UPLOADED, Desk


def page():
    from core.measured import called_studies
    from pages.parts import gallery

    count, studies = called_studies(gallery.model.scores, 0.5)
    gallery.show_studies(gallery.model, gallery.card, studies, count, "list")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated")
    write_dataset(folder, DatasetSettings(studies=4, seed=5, size=224, valid_fraction=0.5))
    return folder


NOTHING = SimpleNamespace(selection=SimpleNamespace(rows=[]))
CARD = Checkpoint("m", "M", "fracture", "efficientnetb0", "top_activation", 224)


def choose(monkeypatch, row):
    """Let every list have this row chosen; return what they are given."""
    seen = []

    def table(data, **options):
        seen.append(data)
        return NOTHING if row is None else SimpleNamespace(selection=SimpleNamespace(rows=[row]))

    monkeypatch.setattr(gallery.st, "dataframe", table)
    return seen


def look_in(app, folder):
    """Name the folder that the films lie in."""
    app.text_input[0].set_value(str(folder))
    next(button for button in app.button if button.label == "Look there").click().run()
    assert not app.exception


def opened(monkeypatch, scores, row, card=None):
    """Open the list with one row chosen; the table's own clicks are Chromium's."""
    clear_session_resource_cache("test session id")
    seen = choose(monkeypatch, row)
    monkeypatch.setattr(gallery, "model", measure_model("m", "M", scores, card, resamples=20), raising=False)
    monkeypatch.setattr(gallery, "card", card, raising=False)
    app = AppTest.from_function(page, default_timeout=120).run()
    assert not app.exception
    return app, seen[-1]


def scores_of(dataset) -> Scores:
    studies = index_dataset(dataset).studies
    probabilities = [0.1 if study.label else 0.3 for study in studies]
    return Scores(
        "m", "valid", tuple(study.id for study in studies), tuple(study.patient_id for study in studies),
        [study.label for study in studies], probabilities, columns={"view": ("PA",) * len(studies)},
    )  # fmt: skip


def pictures(app):
    return [image.proto.imgs[0] for image in app.get("image")]


def test_a_list_says_most_wrong_first_and_waits_to_be_asked(monkeypatch, dataset):
    app, table = opened(monkeypatch, scores_of(dataset), None)
    assert (np.diff(table["wrong by"]) <= 0).all()
    assert set(table["view"]) == {"PA"}
    assert "Choose a row" in app.caption[0].value
    assert not pictures(app)


def test_the_films_of_a_dataset_are_asked_for_and_shown(monkeypatch, dataset, tmp_path):
    app, table = opened(monkeypatch, scores_of(dataset), 0)
    assert not pictures(app)
    look_in(app, tmp_path)
    assert len(app.error) == 1
    look_in(app, dataset)
    study = next(study for study in index_dataset(dataset).studies if study.id == table["study"][0])
    assert len(pictures(app)) == len(study.paths)
    assert f"Simulated study {study.id}" in app.markdown[0].value
    assert app.toggle(key="heat-list").disabled, "scores alone have no model to ask"
    before = [image.url for image in pictures(app)]
    assert study.label, "the missed one is the most wrong"
    app.toggle(key="outline-list").set_value(True).run()
    assert [image.url for image in pictures(app)] != before


def heading(app):
    return next(each.value for each in app.markdown if each.value.startswith("#####"))


def test_the_errors_are_gone_through_without_the_list(monkeypatch, dataset):
    scores = scores_of(dataset)
    model = measure_model("m", "M", scores, None, resamples=20)
    ranked = [study.study_id for study in called_studies(scores, 0.5)[1]]
    clear_session_resource_cache("test session id")
    monkeypatch.setattr(gallery, "model", model, raising=False)
    monkeypatch.setattr(gallery, "card", None, raising=False)
    app = AppTest.from_function(page, default_timeout=120).run()
    assert app.button(key="previous-list").disabled
    assert not app.toggle, "no small pictures of films that nobody knows where to find"
    app.button(key="next-list").click().run()
    look_in(app, dataset)
    seen, films = [heading(app)], [pictures(app)[0].url]
    while not app.button(key="next-list").disabled:
        app.button(key="next-list").click().run()
        assert not app.exception
        seen.append(heading(app))
        films.append(pictures(app)[0].url)
        assert f"Study {len(seen)} of {len(ranked)}." in app.caption[0].value
    assert [each.split(": ")[0].split()[-1] for each in seen] == ranked
    assert len(set(films)) == len(ranked) == 4
    app.button(key="previous-list").click().run()
    assert heading(app) == seen[-2]


def test_small_pictures_stand_beside_each_other_and_open_their_study(monkeypatch, dataset):
    scores = scores_of(dataset)
    clear_session_resource_cache("test session id")
    monkeypatch.setattr(gallery, "SMALL_AT_ONCE", 3)
    monkeypatch.setattr(gallery, "model", measure_model("m", "M", scores, None, resamples=20), raising=False)
    monkeypatch.setattr(gallery, "card", None, raising=False)
    shelf = gallery.Shelf()
    monkeypatch.setattr(gallery, "_open_shelf", lambda: shelf)
    index = index_dataset(dataset)
    shelf.folders[scores] = gallery.DatasetFilms(index)
    app = AppTest.from_function(page, default_timeout=120).run()
    app.toggle(key="small-list").set_value(True).run()
    ranked = [study.study_id for study in called_studies(scores, 0.5)[1]]
    first_films = {study.id: study.paths[0] for study in index.studies}

    def small(place):
        film = cv2.imread(str(first_films[ranked[place]]), cv2.IMREAD_UNCHANGED)
        data = re.search('base64,([^"]+)', app.get("html")[place % 3].proto.body)[1]
        shown = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_UNCHANGED)
        full = film.astype(np.float32) / np.iinfo(film.dtype).max
        again = cv2.resize(full, shown.shape[::-1], interpolation=cv2.INTER_AREA)
        return np.abs(shown / 255 - again).max()

    assert [small(place) < 0.01 for place in range(3)] == [True] * 3
    assert len({each.proto.body for each in app.get("html")}) == 3
    app.button(key="open-list-2").click().run()
    assert heading(app).startswith(f"##### Simulated study {ranked[2]}:")
    app.button(key="next-list").click().run()
    assert heading(app).startswith(f"##### Simulated study {ranked[3]}:")
    assert small(3) < 0.01, "the next stretch of the list"
    assert not app.exception
    assert set(shelf.small[scores]) == set(ranked)
    monkeypatch.setattr(gallery, "MOST_SMALL", 2)
    del shelf.small[scores][ranked[3]]
    app.run()
    assert list(shelf.small[scores]) == [ranked[2], ranked[3]]
    shelf.clear()
    assert not any((shelf.small, shelf.studies, shelf.folders))


def test_a_film_that_is_gone_leaves_words_in_its_place(monkeypatch):
    shelf = gallery.Shelf()
    monkeypatch.setattr(gallery, "_open_shelf", lambda: shelf)
    monkeypatch.setattr(gallery, "find_simulation", lambda card, split: Simulation(VERSION + 1, 160))
    scores = Scores("m", "test", ("simulated-15", "simulated-16"), ("a", "b"), [1, 0], [0.1, 0.2])
    model = measure_model("m", "M", scores, None, resamples=20)
    told = gallery._small(model, CARD, called_studies(scores, 0.15)[1][0])
    assert f"version {VERSION + 1} of the simulator" in told
    assert "img" not in told


def test_another_table_of_the_same_name_does_not_show_these_films(monkeypatch, dataset):
    """Simulated datasets call their studies alike, and two uploads may be called alike, too."""
    app, _ = opened(monkeypatch, scores_of(dataset), 0)
    look_in(app, dataset)
    assert pictures(app)
    again = scores_of(dataset)
    monkeypatch.setattr(gallery, "model", measure_model("m", "M", again, None, resamples=20))
    app.run()
    assert not app.exception
    assert not pictures(app)
    assert app.text_input, "the films of this table are asked for anew"


def test_a_folder_that_is_gone_can_be_named_again(monkeypatch, dataset, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy)
    app, _ = opened(monkeypatch, scores_of(dataset), 0)
    look_in(app, copy)
    assert pictures(app)
    shutil.rmtree(copy)
    choose(monkeypatch, 1)
    app.run()
    assert "not where they were" in app.error[0].value
    assert app.text_input


@pytest.mark.parametrize("place", ["x" * 400, "/" + "x" * 400, "some/folder", "/a\0b"])
def test_what_is_no_folder_is_one_sentence(monkeypatch, dataset, place):
    app, _ = opened(monkeypatch, scores_of(dataset), 0)
    look_in(app, place)
    assert len(app.error) == 1
    assert "xxx" not in app.error[0].value


def test_another_list_does_not_open_its_row_by_itself(monkeypatch, dataset):
    keys = []
    monkeypatch.setattr(gallery.st, "dataframe", lambda data, key, **options: keys.append(key) or NOTHING)
    monkeypatch.setattr(gallery, "_open_shelf", gallery.Shelf)
    model = measure_model("m", "M", scores_of(dataset), None, resamples=20)
    for cells in (("fn",), ("fp",), ("fn",)):
        count, studies = called_studies(model.scores, 0.2, cells)
        gallery.show_studies(model, None, studies, count, "list")
    assert keys[0] == keys[2] != keys[1]


def test_two_lists_keep_their_studies(monkeypatch):
    made = []

    def counted(study_id, *rest):
        made.append(study_id)
        return remake_study(study_id, *rest)

    monkeypatch.setattr(gallery, "remake_study", counted)
    monkeypatch.setattr(gallery, "find_simulation", lambda card, split: Simulation(VERSION, 160))
    shelf = gallery.Shelf()
    monkeypatch.setattr(gallery, "_open_shelf", lambda: shelf)
    scores = Scores("m", "test", ("simulated-15", "simulated-16"), ("a", "b"), [1, 0], [0.1, 0.2])
    model = measure_model("m", "M", scores, None, resamples=20)
    _, studies = called_studies(scores, 0.15)
    for _ in range(3):
        for study, key in zip(studies, ("one", "other"), strict=True):
            gallery._open(model, CARD, study, key)
    assert len(made) == 2
    for number in range(gallery.MOST_OPEN + 2):
        gallery._open(model, CARD, studies[0], f"list {number}")
    assert len(shelf.studies) == gallery.MOST_OPEN


def test_an_uploaded_study_on_the_desk_is_not_lost(monkeypatch, dataset):
    desk = Desk("test", films=(None,), title=UPLOADED)
    monkeypatch.setattr(gallery, "open_desk", lambda: desk)
    app, _ = opened(monkeypatch, scores_of(dataset), 0)
    look_in(app, dataset)
    assert app.button(key="read-list").disabled
    assert any("close that one first" in caption.value for caption in app.caption)


def test_an_abnormal_study_is_not_called_a_fracture(monkeypatch, dataset):
    card = replace(CARD, positive_label="abnormal")
    app, table = opened(monkeypatch, scores_of(dataset), 0, card)
    assert set(table["label"]) == {"abnormality", "none"}
    look_in(app, dataset)
    assert "abnormality, missed" in app.markdown[0].value


def test_scores_of_other_films_do_not_open_these(monkeypatch, dataset):
    scores = scores_of(dataset)
    strange = Scores("m", "valid", scores.study_ids, scores.patient_ids, 1 - scores.labels, scores.probabilities)
    app, _ = opened(monkeypatch, strange, 0)
    look_in(app, dataset)
    assert "only 0 of its studies" in app.error[0].value
    assert not pictures(app)


def test_a_film_that_is_measured_by_itself_opens_by_itself(monkeypatch, dataset):
    study = next(study for study in index_dataset(dataset).studies if len(study.paths) > 1)
    second = study.paths[1]
    ids = (f"{study.id} / {second.stem}", f"{study.id} / left of the two")
    scores = Scores("m", "", ids, ("a", "a"), [study.label] * 2, [0.2, 0.3], unit="film")
    seen = {}
    for row in range(2):
        app, table = opened(monkeypatch, scores, row)
        look_in(app, dataset)
        assert heading(app).startswith(f"##### Simulated film {table['film'][row]}: ")
        seen[table["film"][row]] = len(pictures(app))
    assert seen == {ids[0]: 1, ids[1]: len(study.paths)}
    films = DatasetFilms(index_dataset(dataset))
    (film,) = films.read(ids[0])
    assert np.array_equal(film.radiograph.pixels, films.read(study.id)[1].radiograph.pixels)


def test_folders_are_named_on_the_computer_itself_only(monkeypatch, dataset):
    monkeypatch.setattr(gallery, "is_private", lambda: False)
    app, _ = opened(monkeypatch, scores_of(dataset), 0)
    assert not app.text_input
    assert "on the computer itself only" in app.info[0].value


def test_a_simulated_study_is_made_again_read_and_taken_to_the_reading_room(monkeypatch):
    from core.checkpoints import read_card

    card = read_card(CHECKPOINTS / default_id())
    monkeypatch.setattr(gallery, "find_simulation", lambda card, split: Simulation(VERSION, 224))
    moved = []
    monkeypatch.setattr(gallery.st, "switch_page", moved.append)
    desk = Desk("test")
    monkeypatch.setattr(gallery, "open_desk", lambda: desk)
    scores = Scores("m", "test", ("simulated-15", "simulated-16"), ("a", "b"), [1, 0], [0.1, 0.2])
    app, table = opened(monkeypatch, scores, 0, card)
    assert table["study"][0] == "simulated-16" or table["study"][0] == "simulated-15"
    count = len(pictures(app))
    assert count >= 2
    app.toggle(key="heat-list").set_value(True).run()
    assert not app.exception
    captions = [image.caption for image in pictures(app)]
    assert all("%" in caption or "not fit" in caption for caption in captions)
    assert any("only where it is evidence for: fracture" in caption.value for caption in app.caption)
    app.button(key="read-list").click().run()
    assert moved == [gallery.READING_ROOM]
    assert app.session_state["checkpoint"] == card.id
    assert len(desk.films) == count
    assert desk.title == f"Simulated study {table['study'][0]}"


def test_films_of_another_simulator_are_not_shown_as_these(monkeypatch):
    from core.checkpoints import read_card

    card = read_card(CHECKPOINTS / default_id())
    monkeypatch.setattr(gallery, "find_simulation", lambda card, split: Simulation(VERSION + 1, 224))
    scores = Scores("m", "test", ("simulated-15", "simulated-16"), ("a", "b"), [1, 0], [0.1, 0.2])
    app, _ = opened(monkeypatch, scores, 0, card)
    assert f"version {VERSION + 1} of the simulator" in app.info[0].value
    assert not pictures(app)
