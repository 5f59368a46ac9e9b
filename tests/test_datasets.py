"""core.datasets on folders made by hand in the layouts that real datasets have."""

import builtins
import io
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.datasets import (
    WRISTS_ALONE,
    DatasetIndex,
    describe,
    detect_format,
    find_origin,
    find_studies,
    find_table,
    index_dataset,
    open_dataset,
    parts_of_body,
    split_by_patient,
    split_dataset,
)
from core.datasets.__main__ import main
from core.datasets.overlap import find_copies
from core.errors import DatasetError
from core.values import Study


def touch(root: Path, *names: str, content: bytes = b"film") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def table(path: Path, *lines: str, start: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(start + "\n".join(lines) + "\n", encoding="utf-8")


def summary(index: DatasetIndex) -> dict[str, dict[str, tuple]]:
    """Return split -> study id -> (patient, label, names of its films)."""
    return {
        split: {s.id: (s.patient_id, s.label, [p.name for p in s.paths]) for s in studies}
        for split, studies in index.splits.items()
    }


def reasons(index: DatasetIndex) -> dict[str, str]:
    return {problem.path.relative_to(index.root).as_posix(): problem.reason for problem in index.problems}


@pytest.fixture
def mura(tmp_path):
    root = tmp_path / "MURA-v1.1"
    one, two = "XR_WRIST/patient00001/study1_positive", "XR_WRIST/patient00001/study2_negative"
    touch(root, *(f"train/{one}/image{i}.png" for i in (1, 2, 10)), f"train/{two}/image1.png")
    touch(root, "train/XR_ELBOW/patient00001/study1_negative/image1.png")
    touch(root, "valid/XR_WRIST/patient11185/study1_negative/image1.png")
    touch(root, f"train/{one}/._image1.png", "train/.DS_Store", "masks/train/" + one + "/image1.png")
    table(root / "train_image_paths.csv", f"MURA-v1.1/train/{one}/image1.png")
    return root


def test_mura(mura):
    index = index_dataset(mura)
    assert index.format == "mura"
    assert summary(index) == {
        "train": {
            "train/XR_ELBOW/patient00001/study1": ("patient00001", 0, ["image1.png"]),
            "train/XR_WRIST/patient00001/study1": ("patient00001", 1, ["image1.png", "image2.png", "image10.png"]),
            "train/XR_WRIST/patient00001/study2": ("patient00001", 0, ["image1.png"]),
        },
        "valid": {"valid/XR_WRIST/patient11185/study1": ("patient11185", 0, ["image1.png"])},
    }
    assert (index.problems, index.notes, index.table, index.details()) == ((), (), None, {})
    assert all(path.is_file() for study in index.studies for path in study.paths)
    assert [study.id for study in find_studies(mura, split="valid")] == ["valid/XR_WRIST/patient11185/study1"]
    assert len(find_studies(mura)) == 4


@pytest.mark.parametrize(
    ("inner", "split", "studies"),
    [
        ("..", "train", 3),
        ("train", "train", 3),
        ("train/XR_WRIST", "train", 2),
        ("valid/XR_WRIST/patient11185", "valid", 1),
        ("valid/XR_WRIST/patient11185/study1_negative", "valid", 1),
    ],
)
def test_mura_from_above_and_within(mura, inner, split, studies):
    index = index_dataset(mura / inner)
    assert len(index.splits[split]) == studies
    assert {study.patient_id for study in index.splits[split]} <= {"patient00001", "patient11185"}


def test_mura_with_files_that_cannot_be_used(mura):
    wrist = mura / "train/XR_WRIST"
    touch(wrist, "patient00002/study1_positive/image1.png", content=b"")
    touch(wrist, "patient00003/study1_positive/image1.webp", "patient00003/image9.png")
    touch(wrist, "patient00003/study1_positive/IM0001", content=b"\0" * 128 + b"DICM rest")
    touch(wrist, "patient00003/study1_positive/notes.txt", "patient00003/study1_positive/README")
    touch(wrist, "patient00003/study1_positive/series/z.png")
    (wrist / "patient00004/study1_negative").mkdir(parents=True)
    index = index_dataset(mura)
    here = "train/XR_WRIST"
    assert reasons(index) == {
        f"{here}/patient00002/study1_positive/image1.png": "a file is empty",
        f"{here}/patient00002/study1_positive": "the study has no film that can be used",
        f"{here}/patient00003/image9.png": "a film lies outside the folders of the layout",
        f"{here}/patient00003/study1_positive/image1.webp": "a file is no PNG, JPEG, TIFF or DICOM",
        f"{here}/patient00003/study1_positive/README": "a file is no PNG, JPEG, TIFF or DICOM",
        f"{here}/patient00004/study1_negative": "the study has no film that can be used",
    }
    assert summary(index)["train"]["train/XR_WRIST/patient00003/study1"] == ("patient00003", 1, ["IM0001", "z.png"])
    assert "train/XR_WRIST/patient00004/study1" not in summary(index)["train"]


def test_mura_study_with_both_labels_and_patient_in_both_splits(tmp_path):
    touch(
        tmp_path, "train/XR_WRIST/patient1/study1_positive/image1.png", "valid/XR_WRIST/patient1/study1_positive/a.png"
    )
    touch(tmp_path, "train/XR_WRIST/patient1/study1_negative/image1.png")
    index = index_dataset(tmp_path)
    assert len({study.id for study in index.studies}) == 3
    assert sorted(study.label for study in index.studies) == [0, 1, 1]
    assert "Patients with studies in more than one split: 1" in index.notes[0]


def test_simulated_films_bring_masks_and_regions(mura):
    film = "train/XR_WRIST/patient00001/study1_positive/image1.png"
    table(
        mura / "metadata.csv",
        "path,label,x,y,side,angle,kind",
        f"{film},1,100.5,80,120,-10,colles",
        f"{film.replace('image1.', 'image2.')},1,,,,,colles",
        "train/elsewhere.png,1,1,1,1,1,colles",
    )
    index = index_dataset(mura)
    assert index.format == "mura"
    assert list(index.regions) == [mura / film]
    region = index.regions[mura / film]
    assert (region.x, region.y, region.side, region.angle, region.confidence) == (100.5, 80.0, 120.0, -10.0, 1.0)
    assert index.details()[mura / film]["kind"] == "colles"
    assert (index.patients_known, index.origin) == (True, "real")
    assert index.mask_path(mura / film) == mura / "masks" / film
    assert index.mask_path(mura / film.replace("image1.", "image2.")) is None
    assert index.mask_path(Path("/somewhere/else.png")) is None


@pytest.mark.parametrize(
    ("positive", "negative"),
    [
        ("Fracture", "Normal"),
        ("positive", "NEGATIVE"),
        ("abnormal", "normal"),
        ("1", "0"),
        ("Fractured", "Non_fractured"),
    ],
)
def test_class_folders(tmp_path, positive, negative):
    touch(tmp_path, f"{positive}/1.2.3", f"{positive}/1.2.4", content=b"\0" * 128 + b"DICM")
    touch(tmp_path, f"{positive}/a 1.jpg", f"{negative}/b.png", "readme.txt", "docs/page.md")
    index = index_dataset(tmp_path)
    assert index.format == "folders"
    assert {study.id: study.label for study in index.studies} == {
        f"{positive}/1.2.3": 1,
        f"{positive}/1.2.4": 1,
        f"{positive}/a 1.jpg": 1,
        f"{negative}/b.png": 0,
    }
    assert len({study.patient_id for study in index.studies}) == 4
    assert "Films in no folder of their own: 4" in index.notes[0]
    assert not index.patients_known


def test_class_folders_with_splits_patients_and_studies(tmp_path):
    touch(
        tmp_path,
        "train/Fracture/p1/1.png",
        "train/Fracture/p1/2.png",
        "val/Normal/p2/s1/1.png",
        "val/Normal/p2/s2/1.png",
    )
    touch(tmp_path, "val/Normal/p2/s2/Thumbs.db", "stray.png", "train/stray.png")
    index = index_dataset(tmp_path)
    assert summary(index) == {
        "train": {"train/Fracture/p1": ("p1", 1, ["1.png", "2.png"])},
        "valid": {"val/Normal/p2/s1": ("p2", 0, ["1.png"]), "val/Normal/p2/s2": ("p2", 0, ["1.png"])},
    }
    assert index.patients_known
    outside = "a film lies outside the folders of the layout"
    assert reasons(index) == {"stray.png": outside, "train/stray.png": outside}


def test_ambiguous_class_folders(tmp_path):
    touch(tmp_path, "Fracture/a.png", "Normal/b.png", "Jane Doe/c.png")
    with pytest.raises(DatasetError, match="1 of 3 folders of films have other names") as raised:
        index_dataset(tmp_path)
    assert "Doe" not in str(raised.value)
    touch(tmp_path / "other", "A/a.png", "B/b.png")
    with pytest.raises(DatasetError, match="holds none of them"):
        index_dataset(tmp_path / "other")
    with pytest.raises(DatasetError, match="One folder for each class"):
        index_dataset(tmp_path / "other", "folders")


def test_one_class_alone_needs_the_format(tmp_path):
    touch(tmp_path, "Normal/a.png")
    with pytest.raises(DatasetError, match="holds none of them"):
        index_dataset(tmp_path)
    assert [study.label for study in index_dataset(tmp_path, "folders").studies] == [0]


def test_graz(tmp_path):
    stems = ["0001_129_01_WRI-L1_M014", "0001_129_01_WRI-L2_M014", "0001_555_02_WRI-L1_M014", "0002_1_01_WRI-R1_F003"]
    table(
        tmp_path / "dataset.csv",
        "filestem,patient_id,study_number,fracture_visible,metal",
        f"{stems[0]},1,1,,1",
        f"{stems[1]},1,1,1,",
        f"{stems[2]},1,2,,",
        f"{stems[3]},2,1,1,",
        start="\ufeff",
    )
    touch(tmp_path, f"images_part1/{stems[0]}.png", f"images_part2/{stems[1]}.png", f"images_part2/{stems[2]}.png")
    touch(tmp_path, f"yolo/images/{stems[0]}.png", f"labels/{stems[0]}.txt", "images_part2/0099_unlisted.png")
    index = index_dataset(tmp_path)
    assert index.format == "graz"
    assert summary(index) == {
        "all": {
            "1/1": ("1", 1, [f"{stems[0]}.png", f"{stems[1]}.png"]),
            "1/2": ("1", 0, [f"{stems[2]}.png"]),
        }
    }
    assert index.studies[0].paths[0].parent.name == "images_part1"
    assert reasons(index) == {
        stems[3]: "a film is missing",
        "images_part2/0099_unlisted.png": "a film is not in the table",
        f"yolo/images/{stems[0]}.png": "another film has the same name and is taken instead",
    }


def test_fracatlas(tmp_path):
    table(tmp_path / "dataset.csv", "image_id,hand,fractured", "A.jpg,1,0", "B.jpg,0,1", "C.jpg,0,1", "D.jpg,0,")
    touch(tmp_path, "images/Non_fractured/A.jpg", "images/Fractured/B.jpg", "images/Fractured/D.jpg")
    index = index_dataset(tmp_path)
    assert index.format == "fracatlas"
    assert summary(index) == {"all": {"A": ("A", 0, ["A.jpg"]), "B": ("B", 1, ["B.jpg"])}}
    assert reasons(index) == {"C.jpg": "a film is missing", "D.jpg": "a film has no label"}
    assert "each film counts as one patient" in index.notes[0]
    assert not index.patients_known


def test_of_two_films_with_one_name_the_second_is_told(tmp_path):
    table(tmp_path / "dataset.csv", "image_id,hand,fractured", "A.jpg,1,1", "B.jpg,1,0")
    touch(tmp_path, "images/Fractured/A.jpg", "images/Fractured/A.png", "images/Non_fractured/A.jpg")
    touch(tmp_path, "images/Non_fractured/B.jpg")
    index = index_dataset(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in index.paths] == [
        "images/Fractured/A.jpg",
        "images/Non_fractured/B.jpg",
    ]
    assert set(reasons(index)) == {"images/Fractured/A.png", "images/Non_fractured/A.jpg"}
    assert set(reasons(index).values()) == {"another film has the same name and is taken instead"}


def test_csv_with_everything(tmp_path):
    table(
        tmp_path / "films.csv",
        "Path,Label,Patient_ID,study_id,split,x,y,side,angle",
        "films/a.png,1,p1,1,Train,10,20,30,0",
        "films\\b.png,normal,p1,1,train,,,,",
        "films/c.png,0,p2,1,val,1,2,3,90",
        "films/c.png,1,p9,9,val,,,,",
        "films/missing.png,1,p3,1,val,,,,",
        "films/d.png,maybe,p4,1,val,,,,",
        ",1,p4,1,val,,,,",
        "",
        start="\ufeff",
    )
    touch(tmp_path, *(f"films/{name}.png" for name in "abcd"))
    for source in (tmp_path, tmp_path / "films.csv"):
        index = index_dataset(source)
        assert index.format == "csv"
        assert summary(index) == {
            "train": {"p1/1": ("p1", 1, ["a.png", "b.png"])},
            "valid": {"p2/1": ("p2", 0, ["c.png"])},
        }
        assert [problem.reason for problem in index.problems] == [
            "a film is listed more than once",
            "a film is missing",
            "a film has no label, or one that is neither positive nor negative",
            "a row names no film",
        ]
        assert {path.name for path in index.regions} == {"a.png", "c.png"}


def test_csv_of_single_films(tmp_path):
    table(
        tmp_path / "metadata.csv", "file,label,group", "Fracture/1.png,1,F1", "Fracture/2.png,1,F1", "Normal/1.png,0,"
    )
    table(tmp_path / "also.csv", "file,label", "Normal/1.png,0")
    touch(tmp_path, "Fracture/1.png", "Fracture/2.png", "Normal/1.png")
    index = index_dataset(tmp_path)
    assert index.format == "csv"  # it says more than the folders do
    assert [(s.id, s.patient_id, s.label) for s in index.studies] == [
        ("Fracture/1.png", "F1", 1),
        ("Fracture/2.png", "F1", 1),
        ("Normal/1.png", "Normal/1.png", 0),
    ]
    assert "Films without a patient in the table: 1" in index.notes[0]
    assert index_dataset(tmp_path, "folders").format == "folders"
    assert len(index_dataset(tmp_path / "also.csv").studies) == 1


def test_csv_errors(tmp_path):
    touch(tmp_path, "a.png", "b.png")
    for name in ("one.csv", "two.csv"):
        table(tmp_path / name, "file,label,study_id,split", "a.png,1,s,train", "b.png,1,s,valid")
    with pytest.raises(DatasetError, match="holds 2"):
        index_dataset(tmp_path)
    with pytest.raises(DatasetError, match="1 of 1 studies have films in several"):
        index_dataset(tmp_path / "one.csv")
    table(tmp_path / "three.csv", "film,label", "a.png,1")
    with pytest.raises(DatasetError, match="it has no path"):
        index_dataset(tmp_path / "three.csv")
    (tmp_path / "four.csv").write_bytes(b"file,label\n\xff\xfe\x00,1\n")
    with pytest.raises(DatasetError, match="UTF-8"):
        index_dataset(tmp_path / "four.csv")
    table(tmp_path / "five.csv", "file,label", "gone.png,1")
    with pytest.raises(DatasetError, match=r"none can be used \(1 are unusable\)"):
        index_dataset(tmp_path / "five.csv")


def test_what_is_no_dataset(tmp_path):
    with pytest.raises(DatasetError, match="there is none") as raised:
        index_dataset(tmp_path / "secret")
    assert "secret" not in str(raised.value)
    with pytest.raises(DatasetError, match="holds none of them"):
        detect_format(tmp_path)
    with pytest.raises(DatasetError, match="must be one of mura, folders, graz, fracatlas, csv"):
        index_dataset(tmp_path, "dicom")
    with pytest.raises(DatasetError, match="needs the columns"):
        index_dataset(tmp_path, "graz")
    touch(tmp_path, "film.png")
    with pytest.raises(DatasetError, match="is a folder"):
        index_dataset(tmp_path / "film.png", "mura")
    with pytest.raises(DatasetError, match="Labelled films"):
        index_dataset(tmp_path, "mura")
    touch(tmp_path, "0/a.png", "1/b.png")
    with pytest.raises(DatasetError, match="no such split; it has: all"):
        find_studies(tmp_path, split="test")


def test_the_origin_of_films_is_told_by_their_table(mura):
    from core.phantoms import dataset, injection

    for columns, origin in ((dataset.COLUMNS, "simulated"), (injection.COLUMNS, "injected")):
        table(mura / "metadata.csv", ",".join(columns))
        assert index_dataset(mura).origin == origin
    (mura / "metadata.csv").unlink()
    assert index_dataset(mura).origin == "real"


@pytest.mark.parametrize("inner", ["..", "train", "train/XR_WRIST", "valid/XR_WRIST/patient11185/study1_negative"])
def test_a_part_of_simulated_films_is_not_taken_for_real(mura, inner, monkeypatch):
    """The table lies beside the splits; a folder inside them or around it holds simulated films all the same."""
    from core.phantoms import dataset

    film = "valid/XR_WRIST/patient11185/study1_negative/image1.png"
    other = "train/XR_WRIST/patient00001/study2_negative/image1.png"
    values = {"label": "0", "kind": "none", "x": "10", "y": "20", "side": "30", "angle": "5"}
    rows = [",".join({**values, "path": path}.get(column, "") for column in dataset.COLUMNS) for path in (film, other)]
    table(mura / "metadata.csv", ",".join(dataset.COLUMNS), *rows)
    monkeypatch.chdir(mura / inner)
    for place in (mura / inner, Path()):
        index = index_dataset(place)
        assert index.origin == "simulated"
        assert find_origin(find_table(place)) == "simulated"
        marked = [path for path in (film, other) if (mura / path).resolve().is_relative_to((mura / inner).resolve())]
        assert {path.resolve() for path in index.regions} == {(mura / path).resolve() for path in marked}
        assert set(index.regions) <= set(index.paths)
        assert all(index.details()[path]["kind"] == "none" for path in index.regions)
    assert marked
    own = (mura / inner) / "labels.csv"
    table(own, "path,label", "train/a.png,1")
    assert index_dataset(mura / inner).origin == "simulated", "whatever else lies there"


def test_real_films_beside_simulated_ones_are_refused(mura):
    from core.phantoms import dataset

    touch(mura.parent, "simulated/train/XR_WRIST/patient00001/study1_positive/image1.png")
    table(mura.parent / "simulated/metadata.csv", ",".join(dataset.COLUMNS))
    with pytest.raises(DatasetError, match=r"one origin .* holds real and simulated films"):
        index_dataset(mura.parent)
    assert index_dataset(mura).origin == "real"
    assert index_dataset(mura.parent / "simulated").origin == "simulated"


@pytest.mark.skipif(os.name == "nt", reason="making links needs rights on Windows")
def test_links_are_followed_and_a_broken_one_is_told(mura):
    study = mura / "valid/XR_WRIST/patient11185/study1_negative"
    (study / "image2.png").symlink_to(study / "image1.png")
    (study / "image3.png").symlink_to(study / "nowhere.png")
    index = index_dataset(mura)
    assert [path.name for path in index.splits["valid"][0].paths] == ["image1.png", "image2.png"]
    assert [problem.reason for problem in index.problems] == ["a film is missing"]


def test_indexing_opens_no_film(mura, monkeypatch):
    opened = []
    really_open = builtins.open

    def spy(path, *arguments, **named):
        opened.append(path)
        return really_open(path, *arguments, **named)

    monkeypatch.setattr(builtins, "open", spy)
    monkeypatch.setattr(io, "open", spy)
    index_dataset(mura)
    assert {Path(path).suffix for path in opened} == {".csv"}


def make_studies(pairs):
    return [Study(f"s{i}", f"p{patient}", label=label) for i, (patient, label) in enumerate(pairs)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 1)), max_size=120), st.integers(0, 5))
def test_split_keeps_patients_whole_and_loses_nothing(pairs, seed):
    studies = make_studies(pairs)
    fractions = {"train": 0.6, "valid": 0.2, "test": 0.2}
    split = split_by_patient(studies, fractions, seed)
    assert list(split) == list(fractions)
    assert sorted(s.id for part in split.values() for s in part) == sorted(s.id for s in studies)
    patients = [{s.patient_id for s in part} for part in split.values()]
    assert sum(map(len, patients)) == len(set.union(*patients))
    shuffled = random.Random(1).sample(studies, len(studies))
    again = split_by_patient(shuffled, fractions, seed)
    assert {name: [s.id for s in part] for name, part in again.items()} == {
        name: [s.id for s in part] for name, part in split.items()
    }


@pytest.mark.parametrize(
    "parts", [("train", "extra", "test"), ("train", "valid", "test", "all"), ("valid", "test"), ("test", "all")]
)
def test_a_datasets_own_test_is_neither_learned_from_nor_chosen_on(parts):
    splits = {name: make_studies([(6 * place + n, n % 2) for n in range(6)]) for place, name in enumerate(parts)}
    with pytest.raises(DatasetError, match=r"these came: .*test \(6\)"):
        split_dataset(splits, 0)


def test_split_has_its_shares_of_both_labels():
    studies = make_studies([(patient, int(patient % 4 == 0)) for patient in range(400) for _ in range(2)])
    split = split_by_patient(studies, {"train": 0.7, "valid": 0.1, "test": 0.2}, seed=3)
    assert {name: len({s.patient_id for s in part}) for name, part in split.items()} == {
        "train": 280,
        "valid": 40,
        "test": 80,
    }
    assert {name: sum(s.label for s in part) for name, part in split.items()} == {"train": 140, "valid": 20, "test": 40}
    other = split_by_patient(studies, {"train": 0.7, "valid": 0.1, "test": 0.2}, seed=4)
    assert [s.id for s in other["test"]] != [s.id for s in split["test"]]


@pytest.mark.parametrize(
    "fractions", [{}, {"a": 0.5}, {"a": 1.0, "b": 0.0}, {"a": 1.5, "b": -0.5}, {"a": float("nan")}]
)
def test_fractions_must_be_shares_of_one(fractions):
    with pytest.raises(DatasetError, match="add up to 1"):
        split_by_patient(make_studies([(1, 1)]), fractions, 0)


def test_describe_counts(mura):
    touch(mura / "train/XR_WRIST/patient00002/study1_positive", "a.png", "b.png", content=b"")
    index = index_dataset(mura)
    lines = describe(index.splits, index.problems).splitlines()
    assert lines[0].split() == ["split", "studies", "films", "patients", "positive"]
    assert lines[1].split() == ["train", "3", "5", "1", "1", "(33.3%)"]
    assert lines[2].split() == ["valid", "1", "1", "1", "0", "(0.0%)"]
    assert lines[3] == "left out: 2 x a file is empty"


# --- MURA's lists and parts of the body ------------------------------------------------------------------------------


@pytest.fixture
def seven(tmp_path):
    """Return a folder with MURA-v1.1's own names: seven parts of the body, the four lists without headings."""
    root = tmp_path / "MURA-v1.1"
    for split, patients in (("train", (1, 2)), ("valid", (11185,))):
        films, studies = [], []
        for part in ("ELBOW", "FINGER", "FOREARM", "HAND", "HUMERUS", "SHOULDER", "WRIST"):
            for patient in patients:
                label = "positive" if patient == 2 else "negative"
                study = f"MURA-v1.1/{split}/XR_{part}/patient{patient:05d}/study1_{label}/"
                studies.append(f"{study},{int(label == 'positive')}")
                films += [f"{study}image{i}.png" for i in (1, 2)]
        touch(tmp_path, *films)
        table(root / f"{split}_image_paths.csv", *films)
        table(root / f"{split}_labeled_studies.csv", *studies)
    return root


def test_mura_as_it_is_passed_on(seven):
    index = index_dataset(seven)
    assert (index.format, index.problems, index.notes, index.table) == ("mura", (), (), None)
    assert {name: len(studies) for name, studies in index.splits.items()} == {"train": 14, "valid": 7}
    assert sum(study.label for study in index.studies) == 7
    assert len(index.paths) == len(set(index.paths)) == 42
    assert not index.has_masks


@pytest.mark.parametrize("region", ["XR_WRIST", "wrist", "Wrist", "xr_wrist"])
def test_one_part_of_the_body(seven, region):
    index = index_dataset(seven, region=region)
    assert {study.id for study in index.studies} == {
        "train/XR_WRIST/patient00001/study1",
        "train/XR_WRIST/patient00002/study1",
        "valid/XR_WRIST/patient11185/study1",
    }
    assert index.notes == ("Studies of other parts of the body than wrist, left out: 18.",)
    assert len(index_dataset(seven, region="all").studies) == 21
    assert find_studies(seven / "train/XR_WRIST", region=region)
    with pytest.raises(DatasetError, match="no study of the part"):
        index_dataset(seven / "train/XR_HAND", region=region)


def test_what_reads_wrists_takes_the_wrists_of_several_parts_alone(seven):
    index = open_dataset(seven)
    assert {path.parts[-4] for path in index.paths} == {"XR_WRIST"}
    assert index.notes == ("Studies of other parts of the body than wrist, left out: 18.", WRISTS_ALONE)
    assert parts_of_body(open_dataset(seven, region="elbow")) == ("XR_ELBOW",)
    every = open_dataset(seven, region="all")
    assert (len(parts_of_body(every)), every.notes) == (7, ())
    assert open_dataset(seven / "train/XR_HAND").notes == (), "there is nothing to choose from"
    assert len(index_dataset(seven).studies) == 21


def test_films_that_the_lists_name_and_that_are_gone(seven):
    (seven / "train/XR_WRIST/patient00002/study1_positive/image2.png").unlink()
    for file in (seven / "valid/XR_HAND/patient11185/study1_negative").iterdir():
        file.unlink()
    index = index_dataset(seven)
    assert reasons(index) == {
        "train/XR_WRIST/patient00002/study1_positive/image2.png": "a film is missing",
        "valid/XR_HAND/patient11185/study1_negative": "the study has no film that can be used",
        "valid/XR_HAND/patient11185/study1_negative/image1.png": "a film is missing",
        "valid/XR_HAND/patient11185/study1_negative/image2.png": "a film is missing",
    }
    within = index_dataset(seven / "train/XR_WRIST")
    assert [problem.path.name for problem in within.problems] == ["image2.png"]
    for folder in ("train", "valid"):
        os.rename(seven / folder / "XR_ELBOW", seven.parent / f"{folder}_elbow")
    assert "absent: 6." in index_dataset(seven).notes[0]


def test_better_mura_lists_count_more_than_the_names_of_folders(seven):
    file = seven / "train_labeled_studies.csv"
    text = file.read_text(encoding="utf-8")
    old = "XR_WRIST/patient00001/study1_negative/,0"
    assert old in text
    file.write_text(text.replace(old, "XR_WRIST/patient00001/study1_positive/,1"), encoding="utf-8")
    for place in (seven, seven.parent, seven / "train", seven / "train/XR_WRIST/patient00001"):
        index = index_dataset(place)
        study = next(s for s in index.studies if s.patient_id == "patient00001" and "XR_WRIST" in s.paths[0].parts)
        assert (study.label, index.film_labels[study.paths[0]]) == (1, 1)
        assert index.notes == ("Studies whose label follows the folder's list and not their own name: 1.",)
    # Where the folders were renamed as well, the lists of films may still have the old names.
    wrist = seven / "train/XR_WRIST/patient00001"
    os.rename(wrist / "study1_negative", wrist / "study1_positive")
    index = index_dataset(seven)
    assert (index.notes, index.problems) == ((), ())
    assert sum(study.label for study in index.studies) == 8


# --- tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    ["file,label,group", "Image_Path,Fracture,Subject", "filename,target,patient", "filepath,class,PatientID"],
)
def test_headings_of_tables(tmp_path, header):
    table(tmp_path / "list.csv", header, "a.png,1,p", "b.png,0,p", "c.png,normal,q")
    touch(tmp_path, "a.png", "b.png", "c.png")
    index = index_dataset(tmp_path)
    assert [(study.patient_id, study.label) for study in index.studies] == [("p", 1), ("p", 0), ("q", 0)]
    assert index.notes == ()


def test_a_table_of_wrists_marked_by_hand(tmp_path):
    rows = ["a.png,1,g1,10.5,20,30,up,1", "b.png,0,g1,1,2,3,down,0", "c.png,0,g2,1,2,3,Left,0", "d.png,0,g2,,,,up,0"]
    table(tmp_path / "wrists.csv", "file,label,group,x,y,side,fingers,obvious", *rows, "e.png,0,g3,1,2,3,?,0")
    touch(tmp_path, *(f"{name}.png" for name in "abcde"))
    index = index_dataset(tmp_path / "wrists.csv")
    assert [(study.id, study.patient_id) for study in index.studies][:2] == [("a.png", "g1"), ("b.png", "g1")]
    angles = {path.name: (wrist.x, wrist.angle) for path, wrist in index.regions.items()}
    assert angles == {"a.png": (10.5, 0.0), "b.png": (1.0, 180.0), "c.png": (1.0, -90.0)}
    assert [index.details()[path]["obvious"] for path in index.paths] == ["1", "0", "0", "0", "0"]


@pytest.mark.parametrize("mark", [";", "\t", ","])
def test_columns_are_parted_as_spreadsheets_of_many_countries_do(tmp_path, mark):
    rows = ["path,label,patient_id", "films/a.png,1,p1", "films/b.png,normal,p2", "films/c.png,0,p2"]
    text = [row.replace(",", mark) for row in rows]
    table(
        tmp_path / "films.csv",
        text[0],
        f'"films/a.png"{mark}1{mark}"Doe{mark} J, 1"',
        *text[2:],
        mark * 2,
        start="\ufeff",
    )
    touch(tmp_path, *(f"films/{name}.png" for name in "abc"))
    for source in (tmp_path, tmp_path / "films.csv"):
        index = index_dataset(source)
        assert (index.format, index.problems) == ("csv", ())
        assert [(study.patient_id, study.label) for study in index.studies] == [
            (f"Doe{mark} J, 1", 1),
            ("p2", 0),
            ("p2", 0),
        ]
        assert index.details()[tmp_path / "films/b.png"]["label"] == "normal"


def test_datasets_of_known_layouts_whose_table_was_saved_anew(tmp_path):
    table(tmp_path / "graz/dataset.csv", "filestem;patient_id;study_number;fracture_visible", "a;1;1;1", "b;2;1;")
    table(tmp_path / "atlas/dataset.csv", "image_id\thand\tfractured", "a.png\t1\t1", "b.png\t1\t0")
    touch(tmp_path, *(f"{place}/{name}.png" for place in ("graz", "atlas") for name in "ab"))
    for place, known in (("graz", "graz"), ("atlas", "fracatlas")):
        index = index_dataset(tmp_path / place)
        assert (index.format, [study.label for study in index.studies]) == (known, [1, 0])


@pytest.mark.parametrize(
    ("mark", "x", "expected"),
    [(";", "1010,5", 1010.5), (";", "1010.5", 1010.5), ("\t", "1010,5", 1010.5), (",", "1010.5", 1010.5)],
)
def test_numbers_may_have_decimal_commas_where_commas_part_no_columns(tmp_path, mark, x, expected):
    cells = ["a.png", "1,0" if mark != "," else "1.0", x, "20", x, x]
    table(tmp_path / "films.csv", mark.join(["file", "label", "x", "y", "side", "angle"]), mark.join(cells))
    touch(tmp_path, "a.png")
    index = index_dataset(tmp_path)
    ((path, wrist),) = index.regions.items()
    assert index.film_labels == {path: 1}
    assert (wrist.x, wrist.y, wrist.side, wrist.angle) == (expected, 20, expected, expected)


@pytest.mark.parametrize(("mark", "x"), [(",", '"1,010"'), (";", "1.010,5")])
def test_a_number_with_its_thousands_parted_places_no_wrist(tmp_path, mark, x):
    cells = ["a.png", "1", x, "20", "30", "0"]
    table(tmp_path / "films.csv", mark.join(["file", "label", "x", "y", "side", "angle"]), mark.join(cells))
    touch(tmp_path, "a.png")
    assert index_dataset(tmp_path).regions == {}


def test_a_table_that_lacks_a_column_says_which_however_it_is_parted(tmp_path):
    table(tmp_path / "films.csv", "path;patient_id", "a.png;1")
    with pytest.raises(DatasetError, match="it has no label"):
        index_dataset(tmp_path / "films.csv")


def test_a_table_without_patients_says_so(tmp_path):
    table(tmp_path / "list.csv", "file,label", "a.png,1", "b.png,0")
    touch(tmp_path, "a.png", "b.png")
    (note,) = index_dataset(tmp_path).notes
    assert "each study counts as one patient" in note
    assert "flatter" in note
    assert not index_dataset(tmp_path).patients_known
    table(tmp_path / "list.csv", "file,label,patient", "a.png,1,p", "b.png,0,q")
    assert index_dataset(tmp_path).patients_known
    table(tmp_path / "list.csv", "file,label,patient", "a.png,1,p", "b.png,0,")
    assert not index_dataset(tmp_path).patients_known, "of one film it is not known"
    with pytest.raises(DatasetError, match="not say which part of the body"):
        index_dataset(tmp_path, region="wrist")


def test_a_table_with_parts_of_the_body(tmp_path):
    table(tmp_path / "list.csv", "file,label,patient,body_part", "a.png,1,p,WRIST", "b.png,0,p,hand")
    touch(tmp_path, "a.png", "b.png")
    index = index_dataset(tmp_path, region="XR_WRIST")
    assert [study.id for study in index.studies] == ["a.png"]
    assert index.notes == ("Films of other parts of the body than wrist, left out: 1.",)


def test_of_two_columns_with_one_name_the_first_counts(tmp_path):
    table(tmp_path / "list.csv", "file,label,x,y,side,angle,angle", "a.png,1,1,2,3,45,90", "b.png,0,1,2,3,7")
    touch(tmp_path, "a.png", "b.png")
    assert [wrist.angle for wrist in index_dataset(tmp_path).regions.values()] == [45, 7]


def test_a_table_of_boxes_is_no_list_of_films(tmp_path):
    table(tmp_path / "boxes.csv", "filename,class,xmin,ymin,xmax,ymax", "a.png,fracture,1,2,3,4")
    touch(tmp_path, "Fracture/a.png", "Normal/b.png")
    assert index_dataset(tmp_path).format == "folders"


# --- parts and the command -------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 1)), max_size=80),
    st.sampled_from([("all",), ("train", "valid"), ("train", "test"), ("train", "valid", "test"), ("valid",)]),
    st.integers(0, 5),
)
def test_parts_of_a_dataset_share_no_patient_and_lose_nothing(pairs, names, seed):
    splits = {name: [] for name in names}
    for number, (patient, label) in enumerate(pairs):
        splits[names[patient % len(names)]].append(Study(f"s{number}", f"p{patient}", label=label))
    if not splits.get("train") and splits.get("valid") and splits.get("test"):
        with pytest.raises(DatasetError, match="were expected"):
            split_dataset(splits, seed)
        return
    parts = split_dataset(splits, seed)
    assert list(parts) == ["train", "valid", "test"]
    everything = [study.id for part in parts.values() for study in part]
    assert sorted(everything) == sorted(f"s{number}" for number in range(len(pairs)))
    people = [{study.patient_id for study in part} for part in parts.values()]
    assert sum(map(len, people)) == len(set.union(*people))
    if splits.get("train") and any(splits[name] for name in names if name != "train"):
        assert {study.id for study in parts["train"]} == {study.id for study in splits["train"]}
    if len(names) == 3 and all(splits.values()):
        assert all({s.id for s in parts[name]} == {s.id for s in splits[name]} for name in names)
    shuffled = {name: random.Random(2).sample(part, len(part)) for name, part in splits.items()}
    again = split_dataset(shuffled, seed)
    assert {name: {s.id for s in part} for name, part in again.items()} == {
        name: {s.id for s in part} for name, part in parts.items()
    }


def test_a_patient_in_two_parts_of_a_dataset_is_refused():
    studies = make_studies([(1, 1), (1, 0)])
    with pytest.raises(DatasetError, match="1 are in more than one"):
        split_dataset({"train": studies[:1], "valid": studies[1:]}, 0)


def test_duplicates(seven):
    wrist = seven / "train/XR_WRIST"
    for number, path in enumerate(sorted(seven.rglob("*.png"))):
        path.write_bytes(f"film {number:03d}".encode())
    same = [wrist / "patient00001/study1_negative/image1.png", wrist / "patient00002/study1_positive/image2.png"]
    for path in same:
        path.write_bytes(b"film twice")
    assert find_copies(index_dataset(seven)).groups == (tuple(same),)
    same[0].write_bytes(b"film twicE")
    assert find_copies(index_dataset(seven)).groups == ()


def test_the_command(seven, capsys):
    touch(seven, "train/XR_HAND/patient00001/study1_negative/image1.png", content=b"")
    assert main([str(seven), "--region", "XR_HAND", "--seed", "3"]) == 0
    said = capsys.readouterr().out
    assert "format: mura; the dataset's own parts: train, valid" in said
    assert "left out: 1 x a file is empty" in said
    assert "films of each part of the body: XR_HAND 5" in said
    assert "cannot be read: 5" in said  # they are no pictures
    assert "groups in more than one part: 1; with more than one patient: 1" in said
    assert f"image1.png: {'a file is empty'}" in said
    train = next(line for line in said.splitlines() if line.startswith("train "))
    assert train.split()[1:5] == ["2", "3", "2", "1"]
    assert main([str(seven / "nowhere")]) == 1
    assert (
        capsys.readouterr().err
        == "error: A folder of films or a table that lists them was expected, but there is none.\n"
    )


def test_the_command_names_twenty_problems_and_counts_the_rest(tmp_path, capsys):
    touch(tmp_path, "0/a.png", "1/b.png", *(f"1/{i}.webp" for i in range(25)))
    assert main([str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.count(".webp: a file is no PNG") == 20
    assert "files that cannot be used: 25" in said
    assert "  and 5 more" in said


def test_a_file_that_only_looks_like_marks_ends_nothing(tmp_path, capsys):
    touch(tmp_path, "Fracture/a.png", "Normal/b.png")
    (tmp_path / "about.json").write_text('{"images": 18}')
    assert main([str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "files that cannot be used: 1" in said
    assert said.count("about.json: A COCO file with images and annotations was expected") == 1


def test_help_loads_nothing_slow():
    script = (
        "import sys, runpy; sys.argv = ['x', '--help']\ntry: runpy.run_module('core.datasets', run_name='__main__')\n"
    )
    script += (
        "except SystemExit: print(sorted({'tensorflow', 'keras', 'scipy', 'pandas', 'PIL', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "--region" in done.stdout
    assert done.stdout.endswith("[]\n")
