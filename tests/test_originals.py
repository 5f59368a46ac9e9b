"""Films found again: simulated ones pixel by pixel, a dataset's by name or by published number."""

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from core.datasets import index_dataset
from core.errors import DatasetError
from core.evaluate.command import single_films
from core.originals import DatasetFilms, Simulation, find_simulation, remake_study
from core.phantoms import VERSION, simulate_study
from core.phantoms.dataset import DatasetSettings, write_dataset
from core.radiographs import read_radiograph
from core.values import Checkpoint, Scores

CARD = Checkpoint("m", "M", "fracture", "efficientnetb0", "top_activation", 224)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated")
    write_dataset(folder, DatasetSettings(studies=5, seed=3, size=96, valid_fraction=0.4, bits="mixed"))
    return folder


def scores_of(index, probabilities=None, names=None) -> Scores:
    studies = index.studies
    n = len(studies)
    return Scores(
        "m", "valid", tuple(names or (study.id for study in studies)), tuple(study.patient_id for study in studies),
        [study.label for study in studies], np.full(n, 0.5) if probabilities is None else probabilities,
    )  # fmt: skip


def test_every_film_of_a_simulated_dataset_is_made_again(dataset):
    settings = json.loads((dataset / "simulated.json").read_text())
    simulation = find_simulation(replace(CARD, data={"simulator": settings}), "valid")
    assert simulation == Simulation(VERSION, 96, 3, "mixed")
    with open(dataset / "metadata.csv", newline="") as table:
        rows = {row["path"]: row for row in csv.DictReader(table)}
    seen = 0
    for study in index_dataset(dataset).studies:
        films = remake_study(study.id, study.label, simulation)
        assert len(films) == len(study.paths)
        for film, path in zip(films, study.paths, strict=True):
            stored = read_radiograph(path.read_bytes())
            assert film.radiograph.id == stored.id
            np.testing.assert_array_equal(film.radiograph.pixels, stored.pixels)
            mask = cv2.imread(str(dataset / "masks" / path.relative_to(dataset)), cv2.IMREAD_UNCHANGED)
            np.testing.assert_array_equal(film.mask, mask > 0)
            row = rows[path.relative_to(dataset).as_posix()]
            assert film.facts["view"] == film.radiograph.view == row["view"]
            assert film.facts.get("fracture", "none") == row["kind"].replace("_", " ")
            seen += 1
    assert seen == len(rows) >= 10


def test_a_study_called_by_its_seed_is_made_again():
    films = remake_study("simulated-77", 1, Simulation(VERSION, 160))
    truth = simulate_study(77, size=160, positive=True)
    assert len(films) == len(truth) >= 2
    for film, true in zip(films, truth, strict=True):
        np.testing.assert_array_equal(np.rint(film.radiograph.pixels * 255), np.round(true.pixels * 255))
        np.testing.assert_array_equal(film.mask, true.mask)
        assert film.mask.any()
        assert film.facts["fracture"] == true.kind.replace("_", " ")
        assert film.facts["displacement"] == f"{true.displacement_mm:.1f} mm"
    whole = remake_study("simulated-77", 0, Simulation(VERSION, 160))
    assert not any(film.mask.any() for film in whole)
    assert all("fracture" not in film.facts for film in whole)


@pytest.mark.parametrize(
    ("name", "simulation", "sentence"),
    [
        ("simulated-77", Simulation(VERSION + 1, 80), f"version {VERSION + 1}"),
        ("valid/XR_WRIST/patient00001/study1", Simulation(VERSION, 80), "called otherwise"),
        ("s0001", Simulation(VERSION, 80, 3), "called otherwise"),
        ("../patient00001/study1", Simulation(VERSION, 80, 3), "called otherwise"),
    ],
)
def test_what_cannot_be_made_again_is_said(name, simulation, sentence):
    with pytest.raises(DatasetError, match=sentence):
        remake_study(name, 1, simulation)


@pytest.mark.parametrize(
    ("data", "split", "found"),
    [
        ({}, "test", None),
        ({"simulator": "2"}, "valid", None),
        ({"simulator": {"version": 2}}, "valid", None),
        ({"simulator": {"version": 2, "size": 64, "seed": 5}}, "test", Simulation(2, 64, 5)),
        ({"results": {"simulated_test": {"version": 2, "size": 448}}}, "test", Simulation(2, 448)),
        ({"results": {"simulated_test": {"version": 2, "size": 448}}}, "valid", None),
    ],
)
def test_the_card_tells_how_a_split_was_simulated(data, split, found):
    assert find_simulation(replace(CARD, data=data), split) == found


def test_films_of_a_folder_by_name_and_by_published_number(dataset):
    index = index_dataset(dataset)
    films = DatasetFilms(index)
    films.check(scores_of(index))
    # valid/... sorts behind train/...; numbers count in that natural order
    ranked = sorted(index.studies, key=lambda study: study.id)
    numbers = {study.id: f"s{place:04d}" for place, study in enumerate(ranked, 1)}
    films.check(scores_of(index, names=[numbers[study.id] for study in index.studies]))
    for study in index.studies:
        for name in (study.id, numbers[study.id]):
            read = films.read(name)
            assert [film.radiograph.id for film in read] == [
                read_radiograph(path.read_bytes()).id for path in study.paths
            ]
            assert all(film.mask.any() == bool(study.label) for film in read)
            assert all(not film.facts for film in read)


def test_tables_of_single_films_are_of_the_folder_too(dataset):
    index = index_dataset(dataset)
    single = single_films(index, index.studies)
    films = DatasetFilms(index)
    films.check(scores_of(SimpleNamespace(studies=single)))
    for study in single[:3]:
        (film,) = films.read(study.id)
        assert film.radiograph.id == read_radiograph(study.paths[0].read_bytes()).id


def test_scores_of_other_films_are_refused(dataset):
    index = index_dataset(dataset)
    films = DatasetFilms(index)
    scores = scores_of(index)
    flipped = replace(scores, labels=1 - scores.labels)
    with pytest.raises(DatasetError, match="only 0 of its"):
        films.check(flipped)
    with pytest.raises(DatasetError, match="only 4 of its"):
        films.check(replace(scores, study_ids=("elsewhere", *scores.study_ids[1:])))
    with pytest.raises(DatasetError, match="none of that name"):
        films.read("elsewhere")


def test_a_damaged_film_does_not_hide_the_others(dataset, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy)
    study = index_dataset(copy).studies[0]
    study.paths[0].write_bytes(b"no film")
    films = DatasetFilms(index_dataset(copy))
    assert len(films.read(study.id)) == len(study.paths) - 1
    for path in study.paths:
        path.write_bytes(b"no film")
    with pytest.raises(DatasetError, match="can be read"):
        films.read(study.id)
