"""What a dataset is made of and what its splits share, checked against folders made by hand with known counts."""

import io
import math
import shutil

import cv2
import numpy as np
import pydicom
import pytest

from core.datasets import index_dataset, overlap
from core.datasets.composition import (
    FILMS_PER_STUDY,
    count_splits,
    count_studies,
    divide,
    draw_films,
    draw_sample,
    label_words,
    read_sizes,
    size_rows,
)
from core.datasets.overlap import (
    ALIKE,
    copies_sentence,
    find_alike,
    find_copies,
    find_overlap,
    list_same_size,
    overlap_sentence,
    sketch_film,
)
from core.phantoms import simulate_study
from core.values import Study
from tests.films import dicom_film, jpeg_film, stored_limb


def write_film(path, width=40, height=50, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = np.random.default_rng(seed).integers(0, 255, (height, width), np.uint8)
    assert cv2.imwrite(str(path), grey)


def mura(root, *films):
    """Write films given as (split, patient, study, label word, films of the study)."""
    for seed, (split, patient, study, word, count) in enumerate(films):
        for number in range(1, count + 1):
            place = f"{split}/XR_WRIST/patient{patient:05d}/study{study}_{word}/image{number}.png"
            write_film(root / place, seed=100 * seed + number)
    return root


@pytest.fixture
def folder(tmp_path):
    return mura(
        tmp_path / "set",
        ("train", 1, 1, "positive", 3),
        ("train", 1, 2, "negative", 1),
        ("train", 2, 1, "negative", 2),
        ("valid", 3, 1, "positive", 2),
        ("valid", 4, 1, "negative", 2),
    )


def test_counts_of_each_split_are_those_of_the_folder(folder):
    index = index_dataset(folder)
    counts = count_splits(index)
    train = counts["train"]
    assert (train.studies, train.films, train.patients) == (3, 6, 2)
    assert (train.positive_studies, train.positive_films, train.positive_patients) == (1, 3, 1)
    assert train.negative_studies == 2
    assert (counts["valid"].studies, counts["valid"].films, counts["valid"].positive_films) == (2, 4, 2)
    together = count_studies(index.studies, index.film_labels)
    assert (together.studies, together.films, together.patients) == (5, 10, 4)


def test_a_patient_in_two_splits_is_one_patient_of_the_whole(folder):
    mura(folder, ("valid", 1, 3, "negative", 1))
    index = index_dataset(folder)
    assert sum(each.patients for each in count_splits(index).values()) == 5
    assert count_studies(index.studies, index.film_labels).patients == 4


def test_films_of_a_study_are_counted_by_study(folder):
    index = index_dataset(folder)
    (division,) = divide(index, index.details())
    assert (division.name, division.unit) == (FILMS_PER_STUDY, "studies")
    assert [(each.value, each.negative, each.positive) for each in division.counts] == [
        ("1", 1, 0),
        ("2", 2, 1),
        ("3", 0, 1),
    ]


def test_views_and_columns_of_few_values_are_counted_and_ids_are_not(tmp_path):
    rows = ["path,label,patient_id,view,machine,serial"]
    for number in range(20):
        write_film(tmp_path / f"{number}.png", seed=number)
        view = "PA" if number % 4 else ""
        rows.append(f"{number}.png,{number % 2},p{number},{view},{'AB'[number > 14]},{number}")
    (tmp_path / "films.csv").write_text("\n".join(rows))
    index = index_dataset(tmp_path)
    found = {division.name: division for division in divide(index, index.details())}
    assert list(found) == ["view", FILMS_PER_STUDY, "machine"], "an id or a serial number divides nothing"
    # Numbers 0, 4, 8, ... state no view; they are even, and so negative.
    assert [(c.value, c.negative, c.positive) for c in found["view"].counts] == [("PA", 5, 10), ("not stated", 5, 0)]
    assert [(c.value, c.n) for c in found["machine"].counts] == [("A", 15), ("B", 5)]


def test_views_of_grazpedwri_and_fracatlas_are_words(tmp_path):
    graz = tmp_path / "graz"
    lines = ["filestem,patient_id,study_number,fracture_visible,projection"]
    for stem, projection in (("a", 1), ("b", 2), ("c", 2), ("d", 3)):
        write_film(graz / f"{stem}.png")
        lines.append(f"{stem},1,1,,{projection}")
    (graz / "dataset.csv").write_text("\n".join(lines))
    index = index_dataset(graz)
    first = divide(index, index.details())[0]
    assert {each.value: each.n for each in first.counts} == {"lateral": 2, "frontal": 1, "oblique": 1}
    assert label_words(index) == ("no fracture", "fracture")

    atlas = tmp_path / "atlas"
    write_film(atlas / "x.png")
    write_film(atlas / "y.png")
    (atlas / "dataset.csv").write_text(
        "image_id,fractured,frontal,lateral,oblique\nx.png,0,1,1,0\ny.png,1,0,1,0\n", encoding="utf-8"
    )
    index = index_dataset(atlas)
    first = divide(index, index.details())[0]
    assert {each.value: each.n for each in first.counts} == {"frontal and lateral": 1, "lateral": 1}


# --- samples ---------------------------------------------------------------------------------------------------------


def many(patients=40, studies=2, films=3):
    return [
        Study(f"p{p}/s{s}", f"p{p}", paths=tuple(f"p{p}/s{s}/{f}" for f in range(films)), label=s % 2)
        for p in range(patients)
        for s in range(studies)
    ]


def test_a_sample_holds_whole_patients_and_a_smaller_one_begins_a_larger():
    studies = many()
    small, large = draw_sample(studies, 60), draw_sample(studies, 120)
    assert sum(len(study.paths) for study in small) == 60
    assert large[: len(small)] == small
    drawn = {study.patient_id for study in small}
    assert len(small) == 2 * len(drawn), "both studies of each patient"
    assert draw_sample(studies, 60) == small
    assert draw_sample(studies, 60, seed=1) != small
    assert draw_sample(studies, 10_000) == tuple(studies)
    assert len(draw_sample(studies, 1)) == 2, "never nothing"


def test_thumbnails_are_of_one_label_and_of_many_patients(folder):
    index = index_dataset(folder)
    drawn = draw_films(index, 1, 2, seed=5)
    assert {study.patient_id for study, _ in drawn} == {"patient00001", "patient00003"}
    assert all("positive" in str(path) for _, path in drawn)
    assert len(draw_films(index, 0, 99)) == 5
    assert drawn == draw_films(index, 1, 2, seed=5)


# --- sizes -----------------------------------------------------------------------------------------------------------


def test_sizes_come_from_headers_and_no_film_is_decoded(tmp_path, monkeypatch):
    def decode(*_):
        raise AssertionError("a film was decoded")

    monkeypatch.setattr("core.radiographs.read_radiograph", decode)
    write_film(tmp_path / "a.png", 61, 47)
    (tmp_path / "b.dcm").write_bytes(dicom_film("JPEG 2000 lossless"))
    (tmp_path / "c.jpg").write_bytes(jpeg_film(orientation=6))
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:200])  # its header is whole
    told = []
    sizes = read_sizes([tmp_path / name for name in ("a.png", "b.dcm", "c.jpg", "cut.png")], told.append)
    shape = stored_limb(12).shape
    assert sizes.widths.tolist()[0] == 61
    assert sizes.heights.tolist()[0] == 47
    assert (sizes.heights[1], sizes.widths[1]) == shape
    assert sizes.widths[2] > sizes.heights[2], "a JPEG that lies on its side is turned, as it is when it is read"
    assert sizes.file_bytes[0] == len(whole)
    assert told == [1, 2, 3, 4]


def test_films_whose_header_cannot_be_read_are_counted(tmp_path):
    write_film(tmp_path / "a.png")
    (tmp_path / "text.png").write_text("no film")
    (tmp_path / "d.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"nothing of use")
    empty = pydicom.dcmread(io.BytesIO(dicom_film()))
    empty.Rows = 0
    empty.save_as(tmp_path / "e.dcm")
    sizes = read_sizes([tmp_path / name for name in ("a.png", "text.png", "d.dcm", "gone.png")])
    assert sizes.unread == 3
    assert [path.name for path in sizes.paths] == ["a.png"]
    with pytest.raises(ValueError, match="read-only"):
        sizes.widths[0] = 1


def test_sizes_are_counted_by_label(tmp_path):
    labels = {}
    for number, (width, label) in enumerate([(40, 0), (40, 1), (40, 1), (60, 0)]):
        path = tmp_path / f"{number}.png"
        write_film(path, width)
        labels[path] = label
    assert size_rows(read_sizes(list(labels)), labels) == [(40, 50, 1, 2), (60, 50, 1, 0)]


# --- overlap ---------------------------------------------------------------------------------------------------------


def test_no_patient_in_two_splits_is_said_first(folder):
    found = find_overlap(index_dataset(folder))
    assert found.shared == ()
    assert overlap_sentence(found) == "No patient is in two splits."


def test_patients_in_two_splits_are_named_with_what_follows(folder):
    mura(folder, ("valid", 1, 2, "negative", 1), ("valid", 2, 9, "negative", 1), ("test", 4, 1, "negative", 1))
    found = find_overlap(index_dataset(folder))
    first, second = found.shared
    assert (first.first, first.second, first.patients) == ("train", "valid", ("patient00001", "patient00002"))
    assert first.studies == 1, "study 2 of patient 1; study 9 is in valid alone"
    assert (second.first, second.second, second.patients) == ("valid", "test", ("patient00004",))
    assert found.patients == ("patient00001", "patient00002", "patient00004")
    assert overlap_sentence(found) == (
        "2 patients are in both train and valid and 1 patient is in both valid and test: figures measured on valid and "
        "test are too good."
    )


def test_one_split_and_unknown_patients_are_told_as_such(tmp_path):
    for split in ("", "train/", "valid/"):
        for word in ("Fracture", "Normal"):
            write_film(tmp_path / ("one" if not split else "two") / f"{split}{word}/1.png")
    one, two = (find_overlap(index_dataset(tmp_path / name)) for name in ("one", "two"))
    assert "no splits of its own" in overlap_sentence(one)
    assert "may share patients" in overlap_sentence(one)
    assert "cannot be told" in overlap_sentence(two), "1.png in two splits need not be of one patient"


def test_identical_files_are_found_whatever_they_are_called(folder):
    index = index_dataset(folder)
    none = find_copies(index)
    assert (none.films, none.groups) == (10, ())
    assert copies_sentence(none) == "No two of the 10 films are the same file."

    source = folder / "train/XR_WRIST/patient00001/study1_positive/image1.png"
    shutil.copy(source, folder / "valid/XR_WRIST/patient00004/study1_negative/image9.png")
    other = folder / "train/XR_WRIST/patient00002/study1_negative/image1.png"
    shutil.copy(other, other.with_name("image7.png"))
    index = index_dataset(folder)
    told = []
    copies = find_copies(index, on_progress=told.append)
    assert {tuple(sorted(path.name for path in group)) for group in copies.groups} == {
        ("image1.png", "image9.png"),
        ("image1.png", "image7.png"),
    }
    assert copies.between == (("train", "valid", 1),)
    assert (copies.other_patient, copies.other_label) == (1, 1)
    assert copies_sentence(copies).startswith(
        "1 film is in both train and valid, byte for byte: figures measured on valid are too good."
    )
    assert "1 of them is labelled both ways." in copies_sentence(copies)
    candidates, size = list_same_size(index.paths)
    assert told[-1] == len(candidates)
    assert size == sum(path.stat().st_size for path in candidates)


def test_files_of_one_size_that_differ_late_are_not_the_same(tmp_path):
    start = np.random.default_rng(0).bytes(100_000)
    for name, end in (("a", b"1"), ("b", b"2"), ("c", b"1")):
        (tmp_path / f"{name}.png").write_bytes(start + end)
    (tmp_path / "films.csv").write_text("path,label,patient\na.png,0,1\nb.png,1,2\nc.png,0,3\n")
    index = index_dataset(tmp_path)
    (group,) = find_copies(index).groups
    assert {path.name for path in group} == {"a.png", "c.png"}
    assert "none of them in two splits" in copies_sentence(find_copies(index))


# --- the same picture in another file ---------------------------------------------------------------------------------


NOT_SOUGHT = "Copies that were cut, turned or mirrored are not looked for."


def in_other_forms(pixels):
    """The same picture as other people would have stored it."""
    grey = np.rint(255 * pixels).astype(np.uint8)
    jpeg = cv2.imdecode(cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_GRAYSCALE)
    yield "jpeg", jpeg / np.float32(255)
    yield "half the size", cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    yield "twice as high", cv2.resize(pixels, None, fx=1, fy=2)
    yield "brighter", (0.3 + 0.7 * pixels).astype(np.float32)
    yield "gamma", pixels**1.4


def test_a_sketch_knows_a_picture_in_any_form_and_no_other():
    # Of a long forearm's film even half the pixels are more than a sketch has.
    films = [film.pixels for seed in range(6) for film in simulate_study(seed, size=400)]
    sketches = np.stack([sketch_film(pixels) for pixels in films])
    alike = sketches @ sketches.T
    np.testing.assert_allclose(np.diag(alike), 1, atol=1e-5)
    assert alike[~np.eye(len(films), dtype=bool)].max() < ALIKE - 0.05
    for pixels, own in zip(films, sketches, strict=True):
        for form, other in in_other_forms(pixels):
            assert own @ sketch_film(other) > ALIKE, form
        assert own @ sketch_film(np.ascontiguousarray(pixels[:, ::-1])) < ALIKE
    assert not sketch_film(np.full((50, 60), 0.7, np.float32)).any()


def test_the_same_pictures_are_found_in_whatever_file(folder, monkeypatch):
    monkeypatch.setattr(overlap, "_ROWS_AT_ONCE", 3)
    index = index_dataset(folder)
    train = [path for study in index.splits["train"] for path in study.paths]
    valid = [path for study in index.splits["valid"] for path in study.paths]
    unread = valid[-1]
    rng = np.random.default_rng(0)
    sketches = {path: sketch_film(rng.random((40, 40)).astype(np.float32)) for path in index.paths if path != unread}
    none = find_alike(index, sketches)
    assert (none.films, none.groups) == (len(index.paths) - 1, ())
    assert (
        copies_sentence(none) == f"No two of the {none.films} films that were read show the same picture. {NOT_SOUGHT}"
    )
    # b is nearly a, and c nearly b, but a and c alone are not alike enough: still one picture.
    a = sketches[train[0]]
    aside = sketches[train[1]] - (sketches[train[1]] @ a) * a
    aside /= np.linalg.norm(aside)
    for path, turn in ((train[2], 0.3), (valid[0], 0.6)):
        sketches[path] = (math.cos(turn) * a + math.sin(turn) * aside).astype(np.float32)
    sketches[train[1]] = sketch_film(np.zeros((40, 40), np.float32))
    sketches[train[3]] = sketches[train[1]]
    found = find_alike(index, sketches)
    assert [set(group) for group in found.groups] == [{train[0], train[2], valid[0]}]
    assert found.between == (("train", "valid", 1),)
    assert copies_sentence(found).startswith(
        "1 film is in both train and valid, the same picture in one file or another: figures measured on valid are"
    )
    assert copies_sentence(found).endswith(f" {none.films} films were read and compared. {NOT_SOUGHT}")
    assert find_alike(index, {}).groups == ()
