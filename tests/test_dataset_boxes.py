"""core.datasets: where fractures are marked, against boxes worked out by hand and OpenCV."""

import io
import json
import os

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from core.datasets import Box, index_dataset
from core.datasets.annotations import read_film_size, read_mask
from core.datasets.boxes import GRAZ_CLASSES, draw_polygons, read_coco, read_voc, read_yolo, read_yolo_names
from core.errors import DatasetError
from core.radiographs import read_radiograph

WIDTH, HEIGHT = 40, 20


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def film(path, width=WIDTH, height=HEIGHT, depth=np.uint8):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width)).astype(depth)
    assert cv2.imwrite(str(path), pixels)
    return path


def voc(*boxes, width=WIDTH, height=HEIGHT):
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox>"
        "</object>"
        for name, a, b, c, d in boxes
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>1</depth></size>"
    return f"<annotation>{size}{objects}</annotation>"


def values(boxes):
    return [(*(round(value, 6) for value in (box.x, box.y, box.width, box.height)), box.name) for box in boxes]


# --- files of boxes --------------------------------------------------------------------------------------------------


def test_yolo_by_hand(tmp_path):
    # Centre (0.5, 0.25) of 40 x 20 is (20, 5); a quarter of 40 is 10, a tenth of 20 is 2.
    file = write(
        tmp_path / "a.txt", "3 0.5 0.25 0.25 0.1\n\n8 0.0 0.5 0.1 0.5 0.9\n3 0.1 0.1 0.3 0.1 0.3 0.6 0.1 0.6\n"
    )
    assert values(read_yolo(file, WIDTH, HEIGHT, GRAZ_CLASSES)) == [
        (15, 4, 10, 2, "fracture"),
        (0, 5, 2, 10, "text"),  # its left half lies off the film; the last number is a confidence
        (4, 2, 8, 10, "fracture"),  # an outline's own box
    ]
    assert values(read_yolo(file, WIDTH, HEIGHT))[0][-1] == "3"
    assert read_yolo(write(tmp_path / "none.txt", "\n"), WIDTH, HEIGHT) == ()


@pytest.mark.parametrize(
    "line", ["fracture 1 1 1 1", "0 0.5 0.5 0.1", "0 0.5 0.5 0.1 x", "0 20 5 10 2", "-1 0 0 0 0", "inf 0 0 0 0"]
)
def test_what_is_no_yolo_line(tmp_path, line):
    with pytest.raises(DatasetError, match="YOLO"):
        read_yolo(write(tmp_path / "a.txt", line), WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("meta.yaml", "# classes\nnames:\n- boneanomaly\n- Fracture  # 1\nnc: 2\n"),
        ("data.yaml", "nc: 2\nnames: ['boneanomaly', \"fracture\"]\npath: x\n"),
        ("data.yaml", "names:\n  0: boneanomaly\n  1: fracture\ntrain: a\n"),
        ("data.yaml", "names: [boneanomaly,\n  fracture]\n"),
        ("classes.txt", "boneanomaly\nfracture\n"),
    ],
)
def test_class_names(tmp_path, name, text):
    assert read_yolo_names(write(tmp_path / name, text)) == ("boneanomaly", "fracture")


def test_voc_by_hand_and_scaled_to_the_film(tmp_path):
    file = write(tmp_path / "a.xml", voc(("Fracture", 4, 2, 10, 12), ("text", 30, -5, 99, 5)))
    assert values(read_voc(file, WIDTH, HEIGHT)) == [(4, 2, 6, 10, "fracture"), (30, 0, 10, 5, "text")]
    assert values(read_voc(file, WIDTH * 2, HEIGHT))[0] == (8, 2, 12, 10, "fracture")


def test_voc_expands_nothing(tmp_path):
    lines = ['<!DOCTYPE a [<!ENTITY a "ha">', *(f'<!ENTITY b{i} "{"&a;" * 10}">' for i in range(9)), "]>"]
    bomb = "<?xml version='1.0'?>" + "".join(lines) + voc(("&b8;", 1, 1, 2, 2))
    with pytest.raises(DatasetError, match="document type"):
        read_voc(write(tmp_path / "a.xml", bomb), WIDTH, HEIGHT)
    sixteen = bomb.encode("utf-16")
    (tmp_path / "b.xml").write_bytes(sixteen)
    with pytest.raises(DatasetError):
        read_voc(tmp_path / "b.xml", WIDTH, HEIGHT)
    for text in ("<annotation>", "no xml", "<a><object><name>x</name></object></a>"):
        with pytest.raises(DatasetError, match="Pascal VOC"):
            read_voc(write(tmp_path / "c.xml", text), WIDTH, HEIGHT)


def coco(*annotations, size=(4, 4), name="a.png"):
    return json.dumps(
        {
            "images": [{"id": 7, "file_name": name, "width": size[1], "height": size[0]}],
            "categories": [{"id": 1, "name": "fractured"}, {"id": 2, "name": "metal"}],
            "annotations": [{"id": i, "image_id": 7, "category_id": 1} | item for i, item in enumerate(annotations)],
        }
    )


def outlines(tmp_path, *annotations):
    ((size, found),) = read_coco(write(tmp_path / "coco.json", coco(*annotations))).values()
    assert size == (4, 4)
    return found


def test_coco_runs_by_hand(tmp_path):
    # Column by column: 5 empty, so the first column and the top of the second; then 2 filled, 9 empty.
    (found,) = outlines(tmp_path, {"segmentation": {"counts": [5, 2, 9], "size": [4, 4]}})
    mask = np.zeros((4, 4), np.uint8)
    found.draw(mask)
    assert mask.tolist() == [[0, 0, 0, 0], [0, 255, 0, 0], [0, 255, 0, 0], [0, 0, 0, 0]]
    assert values([found.box]) == [(1, 1, 1, 2, "fractured")]
    with pytest.raises(DatasetError, match="another size"):
        found.draw(np.zeros((4, 5), np.uint8))


def test_coco_polygon_by_hand(tmp_path):
    # From the corner of pixel 1 to a little over the middle of pixel 2, both ways.
    square = [1.0, 1.0, 2.6, 1.0, 2.6, 2.6, 1.0, 2.6]
    expected = [[0, 0, 0, 0], [0, 255, 255, 0], [0, 255, 255, 0], [0, 0, 0, 0]]
    for area in ([square], square):
        (found,) = outlines(tmp_path, {"segmentation": area, "bbox": [9, 9, 9, 9]})
        mask = np.zeros((4, 4), np.uint8)
        found.draw(mask)
        assert mask.tolist() == expected
        assert values([found.box]) == [(1, 1, pytest.approx(1.6), pytest.approx(1.6), "fractured")]


def test_coco_box_alone_and_what_is_nothing(tmp_path):
    (found,) = outlines(tmp_path, {"bbox": [1, 0, 2, 3], "category_id": 2}, {"bbox": []}, {"bbox": [1, 1, 0, 2]})
    assert values([found.box]) == [(1, 0, 2, 3, "metal")]
    with pytest.raises(DatasetError, match="packed runs"):
        outlines(tmp_path, {"segmentation": {"counts": "abc", "size": [4, 4]}})
    for wrong in ({"counts": [5, 2], "size": [4, 4]}, {"counts": [-1, 17], "size": [4, 4]}, {"size": [4, 4]}):
        with pytest.raises(DatasetError, match="COCO file"):
            outlines(tmp_path, {"segmentation": wrong})
    for text in ("{", "[]", '{"images": []}'):
        with pytest.raises(DatasetError, match="COCO file"):
            read_coco(write(tmp_path / "x.json", text))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-9, 99), st.integers(-9, 49)), min_size=3, max_size=7))
def test_polygons_cover_the_pixels_whose_middle_they_hold(corners):
    polygon = np.array(corners, np.float32) / 2
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    draw_polygons(mask, [polygon.astype(float)])
    sides = [
        [cv2.pointPolygonTest(polygon, (column + 0.5, row + 0.5), False) for column in range(WIDTH)]
        for row in range(HEIGHT)
    ]
    inside = np.array(sides) > 0
    clear = np.array(sides) != 0  # on an outline either is right
    if inside.any():
        assert np.array_equal((mask > 0)[clear], inside[clear])
    else:
        assert (mask > 0)[clear].sum() <= 1 <= (mask > 0).sum()


def test_polygons_are_drawn_one_by_one_however_small():
    mask = np.zeros((4, 6), np.uint8)
    triangles = [np.array([[0, 0], [3, 0], [0, 3]]), np.array([[4.6, 2.1], [4.9, 2.1], [4.8, 2.3]])]
    draw_polygons(mask, triangles)
    rows = ["##....", "#.....", "....#.", "......"]
    assert ["".join(".#"[int(value > 0)] for value in row) for row in mask] == rows


# --- in the layouts --------------------------------------------------------------------------------------------------


@pytest.fixture
def graz(tmp_path):
    stems = [f"000{i}_123456789{i}_01_WRI-L1_M01{i}" for i in range(5)]
    rows = [
        f"{stem},{i},1,{label},1,{i % 2}"
        for i, (stem, label) in enumerate(zip(stems, ["1", "1", "", "", "1"], strict=True))
    ]
    write(
        tmp_path / "dataset.csv",
        "\n".join(["\ufefffilestem,patient_id,study_number,fracture_visible,metal,cast", *rows]),
    )
    for stem in stems:
        film(tmp_path / f"images_part1/{stem}.png", depth=np.uint16)
    labels = tmp_path / "folder_structure/yolov5/labels"
    write(labels / f"{stems[0]}.txt", "3 0.5 0.25 0.25 0.1\n8 0.9 0.9 0.1 0.1\n")
    write(tmp_path / f"folder_structure/pascalvoc/{stems[0]}.xml", voc(("fracture", 15, 4, 25, 6)))
    write(tmp_path / f"folder_structure/pascalvoc/{stems[1]}.xml", voc(("fracture", 15, 4, 25, 6)))
    write(labels / f"{stems[2]}.txt", "")
    write(labels / f"{stems[4]}.txt", "8 0.9 0.9 0.1 0.1\n")
    write(tmp_path / f"folder_structure/supervisely/wrist/ann/{stems[0]}.png.json", '{"images": "broken"')
    return tmp_path


def test_graz_boxes_and_masks(graz):
    index = index_dataset(graz)
    paths = [study.paths[0] for study in index.studies]
    assert index.has_masks
    assert values(index.boxes(paths[0])) == [(15, 4, 10, 2, "fracture"), (34, 17, 4, 2, "text")]
    assert index.boxes(paths[1]) == index.boxes(paths[0])[:1]  # VOC and YOLO agree
    assert index.boxes(paths[2]) == ()
    assert index.boxes(paths[3]) is None
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[4:6, 15:25] = 255
    for path in paths[:2]:
        mask = index.read_mask(path, HEIGHT, WIDTH)
        assert mask.dtype == np.uint8
        assert np.array_equal(mask, expected)
    for path in paths[2:4]:
        assert not index.read_mask(path, HEIGHT, WIDTH).any()  # no fracture is visible, so its place is known
    assert index.read_mask(paths[4], HEIGHT, WIDTH) is None  # one is visible, but only text is marked
    assert index.details()[paths[1]]["cast"] == "1"
    assert index.film_labels[paths[2]] == 0


def test_a_film_that_shows_none_in_a_study_that_has_one(graz):
    text = (graz / "dataset.csv").read_text(encoding="utf-8")
    write(graz / "dataset.csv", text.replace("M012,2,1", "M012,1,1"))
    index = index_dataset(graz)
    study = next(study for study in index.studies if study.patient_id == "1")
    assert (study.label, [index.film_labels[path] for path in study.paths]) == (1, [1, 0])
    assert [bool(index.read_mask(path, HEIGHT, WIDTH).any()) for path in study.paths] == [True, False]


def test_graz_own_class_names_count(graz):
    write(graz / "folder_structure/yolov5/meta.yaml", "names: [a, b, c, foreignbody, d, e, f, g, fracture]\n")
    index = index_dataset(graz)
    assert [box.name for box in index.boxes(index.studies[0].paths[0])] == ["foreignbody", "fracture"]
    assert sorted(file.suffix for file in index.list_marking_files()) == [".txt"] * 3 + [".xml"] * 2 + [".yaml"]


def test_fracatlas_outlines_and_boxes(tmp_path):
    write(tmp_path / "dataset.csv", "image_id,hand,leg,fractured\nA.jpg,1,0,0\nB.jpg,0,1,1\nC.jpg,1,0,1\nD.jpg,1,0,1\n")
    film(tmp_path / "images/Non_fractured/A.jpg")
    for name in "BCD":
        film(tmp_path / f"images/Fractured/{name}.jpg")
    triangle = [10.5, 5.5, 20.5, 5.5, 10.5, 15.5]
    write(
        tmp_path / "Annotations/COCO JSON/COCO_fracture_masks.json",
        coco({"segmentation": [triangle]}, size=(HEIGHT, WIDTH), name="B.jpg"),
    )
    write(tmp_path / "Annotations/VGG JSON/VGG_fracture_masks.json", '{"B.jpg": {"regions": {}}}')
    write(tmp_path / "Annotations/YOLO/C.txt", "0 0.5 0.5 0.5 0.5\n")
    index = index_dataset(tmp_path)
    a, b, c, d = (study.paths[0] for study in index.studies)
    assert index.has_masks
    assert index.boxes(a) == ()  # every fracture of this dataset is marked
    assert values(index.boxes(b)) == [(10.5, 5.5, 10, 10, "fractured")]
    assert values(index.boxes(c)) == [(10, 5, 20, 10, "fractured")]
    assert index.boxes(d) is None
    row, column = np.mgrid[:HEIGHT, :WIDTH]
    expected = (row >= 5) & (column >= 10) & (row + column < 25)
    assert np.array_equal(index.read_mask(b, HEIGHT, WIDTH) > 0, expected)
    assert 50 <= np.count_nonzero(expected) <= 70
    assert index.read_mask(c, HEIGHT, WIDTH)[5:15, 10:30].all()
    assert np.count_nonzero(index.read_mask(c, HEIGHT, WIDTH)) == 200
    assert not index.read_mask(a, HEIGHT, WIDTH).any()
    assert index.read_mask(d, HEIGHT, WIDTH) is None
    with pytest.raises(DatasetError, match="another size"):
        index.read_mask(b, HEIGHT + 1, WIDTH)
    assert [study.id for study in index_dataset(tmp_path, region="hand").studies] == ["A", "C", "D"]
    near = index_dataset(tmp_path, region="XR_WRIST")
    assert len(near.studies) == 3
    assert any("no column for the wrist" in note for note in near.notes)
    with pytest.raises(DatasetError, match="tells apart"):
        index_dataset(tmp_path, region="elbow")


@pytest.mark.parametrize(
    "text",
    [
        '{"images": 18}',
        '["images"]',
        '{"images": [{"id": 1, "file_name": "z", "height": 1e999, "width": 2}], "annotations": []}',
        '{"a":' * 9999 + '"images"',
    ],
)
def test_a_foreign_file_is_told_once_and_the_others_are_read(tmp_path, text):
    for name in ("Fracture/a.png", "Fracture/b.png", "Normal/c.png"):
        film(tmp_path / name)
    write(tmp_path / "about.json", text)
    write(tmp_path / "packed.json", coco({"segmentation": {"counts": "0`5", "size": [4, 4]}}, name="b.png"))
    marks = coco({"bbox": [2, 3, 4, 5]}, size=(HEIGHT, WIDTH))
    write(tmp_path / "marks.json", marks)
    index = index_dataset(tmp_path)
    a, b, c = (study.paths[0] for study in index.studies)
    assert index.has_masks
    assert (values(index.boxes(a)), index.boxes(b)) == ([(2, 3, 4, 5, "fractured")], None)
    assert np.count_nonzero(index.read_mask(a, HEIGHT, WIDTH)) == 20
    assert index.read_mask(b, HEIGHT, WIDTH) is None
    assert not index.read_mask(c, HEIGHT, WIDTH).any()
    assert [problem.path.name for problem in index.marking_problems] == ["about.json", "packed.json"]
    assert "packed runs" in index.marking_problems[1].reason
    (tmp_path / "marks.json").unlink()
    index = index_dataset(tmp_path)
    assert not index.has_masks
    assert len(index.marking_problems) == 2


REPORT = "Radius distal: dislozierte Fraktur, 3 mm.\n\nNo other break.\n"


@pytest.fixture
def reports(tmp_path):
    """Return a folder of four films, the first three with a radiologist's report beside them."""
    for name in ("Fracture/a", "Fracture/b", "Normal/c", "Normal/d"):
        film(tmp_path / f"{name}.png")
    write(tmp_path / "Fracture/a.txt", REPORT)
    (tmp_path / "Fracture/b.txt").write_bytes("Brüche: inf\n".encode("latin-1"))
    write(tmp_path / "Normal/c.txt", "inf 1 2 3 4\nno break")
    return tmp_path


def test_reports_beside_films_mark_nothing_and_lose_no_film(reports):
    index = index_dataset(reports)
    assert len(index.paths) == 4
    assert not index.has_masks
    a, b, c, d = index.paths
    for path in (a, b):
        assert index.read_mask(path, HEIGHT, WIDTH) is None  # broken, but it is not known where
    for path in (c, d):
        mask = index.read_mask(path, HEIGHT, WIDTH)
        assert mask.shape == (HEIGHT, WIDTH)
        assert not mask.any()
    assert [index.boxes(path) for path in index.paths] == [None] * 4


def test_reports_are_told_once_and_each_to_whom_asks(reports):
    index = index_dataset(reports)
    folded, other = index.marking_problems  # asked first, as the command that trains does
    assert (folded.path, other.path) == (reports / "Fracture/a.txt", reports / "Fracture/b.txt")
    assert folded.reason.endswith("but one has something else (and so in 1 more files).")
    assert other.reason == "A file of boxes cannot be read as UTF-8 text."
    assert [problem.path.name for problem in index.list_marking_problems()] == ["a.txt", "b.txt", "c.txt"]
    for path in index.paths:
        index.read_mask(path, HEIGHT, WIDTH)
    assert index.marking_problems == (folded, other)


def test_boxes_count_where_reports_lie_beside_the_films_as_well(reports):
    # Names of classes that cannot be read are no reason to lose films either.
    (reports / "classes.txt").write_bytes(b"\xff\xfe")
    write(reports / "labels/obj.names", "fracture")
    write(reports / "labels/boxes of films/a.txt", "0 0.5 0.25 0.25 0.1\n")
    write(reports / "labels/boxes of films/b.txt", "")
    index = index_dataset(reports)
    assert index.has_masks
    a, b, c, _ = index.paths
    assert values(index.boxes(a)) == [(15, 4, 10, 2, "fracture")]
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[4:6, 15:25] = 255
    assert np.array_equal(index.read_mask(a, HEIGHT, WIDTH), expected)
    assert (index.boxes(b), index.read_mask(b, HEIGHT, WIDTH)) == ((), None)
    assert not index.read_mask(c, HEIGHT, WIDTH).any()
    assert {problem.path.name for problem in index.list_marking_problems()} == {
        "a.txt",
        "b.txt",
        "c.txt",
        "classes.txt",
    }


def test_empty_files_alone_mark_nothing(tmp_path):
    for name in ("Fracture/a", "Normal/b"):
        film(tmp_path / f"{name}.png")
        write(tmp_path / f"{name}.txt", "")
    index = index_dataset(tmp_path)
    assert not index.has_masks
    write(tmp_path / "Fracture/a.xml", "<report><text>a break</text></report>")
    assert not index_dataset(tmp_path).has_masks
    write(tmp_path / "Fracture/a.xml", voc(("fracture", 1, 2, 3, 4)))
    assert index_dataset(tmp_path).has_masks


def test_a_box_off_its_film_leaves_the_film(graz):
    labels = graz / "folder_structure/yolov5/labels"
    stems = sorted(path.stem for path in (graz / "images_part1").iterdir())
    for stem in (stems[0], stems[2], stems[3]):
        write(labels / f"{stem}.txt", "3 0.5 0.25 0.25 0.1\n3 0.99 0.5 0.2 0.1\n")
    (graz / f"folder_structure/pascalvoc/{stems[0]}.xml").unlink()
    index = index_dataset(graz)
    assert index.has_masks
    masks = [index.read_mask(path, HEIGHT, WIDTH) for path in index.paths]
    assert masks[0] is None
    assert masks[1][4:6, 15:25].all(), "what is marked on other films counts"
    assert [mask.any() for mask in masks[2:4]] == [False, False], "no break is visible on them"
    (problem,) = index.marking_problems
    assert problem.path == labels / f"{stems[0]}.txt"
    assert problem.reason.startswith("A YOLO box lies within its film")
    assert problem.reason.endswith("(and so in 2 more files).")


def test_of_a_file_that_cannot_be_read_and_one_that_can_the_second_counts(graz):
    stem = min(path.stem for path in (graz / "images_part1").iterdir())
    write(graz / f"folder_structure/yolov5/labels/{stem}.txt", "3 2 2 2 2")
    assert values(index_dataset(graz).boxes(graz / f"images_part1/{stem}.png")) == [(15, 4, 10, 2, "fracture")]


def test_of_many_files_beside_films_few_are_opened(tmp_path, monkeypatch):
    for number in range(60):
        write(tmp_path / f"{'Fracture' if number % 2 else 'Normal'}/{number}.png", "film")
        write(tmp_path / f"{'Fracture' if number % 2 else 'Normal'}/{number}.txt", REPORT)
    opened = []
    really_open = io.open

    def spy(file, *arguments, **named):
        opened.append(file)
        return really_open(file, *arguments, **named)

    monkeypatch.setattr("core.datasets.annotations._LOOKED_AT", 10)
    monkeypatch.setattr(io, "open", spy)
    index = index_dataset(tmp_path)
    assert not opened
    assert not index.has_masks
    assert (len(index.marking_problems), len(index.list_marking_problems()), len(opened)) == (1, 10, 10)
    write(tmp_path / "labels/7.txt", "0 0.5 0.5 0.5 0.5")
    assert index_dataset(tmp_path).has_masks, "a folder of boxes is looked into first"


# --- where a table lists the films -----------------------------------------------------------------------------------


def test_a_table_of_films_elsewhere_brings_nothing_that_lies_beside_it(tmp_path):
    home, data = tmp_path / "home", tmp_path / "data"
    one = "0 0.5 0.25 0.25 0.1"
    for name in ("1", "2", "3", "4"):
        film(data / f"x/{name}.png")
    write(home / "films.csv", "file,label\n" + "".join(f"{data}/x/{name}.png,1\n" for name in "1234"))
    write(home / "letters/1.txt", one)
    write(home / "labels/1.txt", one)
    write(home / "labels/about.json", '{"images": 1}')
    write(home / "about.json", '{"images": 1}')
    write(data / "about.json", '{"images": 1}')
    write(data / "stuff/2.txt", one)
    write(data / "x/drawn/by me/3.txt", one)
    write(data / "Labels/a/4.txt", one)
    write(data / "Labels/classes.txt", "fracture")
    index = index_dataset(home / "films.csv")
    assert index.has_masks
    assert [path.name for path in index.paths if index.boxes(path)] == ["3.png", "4.png"]
    assert np.count_nonzero(index.read_mask(data / "x/4.png", HEIGHT, WIDTH)) == 20
    assert index.marking_problems == ()
    assert [str(file.relative_to(data)) for file in index.list_marking_files()] == [
        os.path.join("Labels", "a", "4.txt"),
        os.path.join("Labels", "classes.txt"),
        os.path.join("x", "drawn", "by me", "3.txt"),
    ]


def test_no_folder_beside_a_table_is_walked(tmp_path, monkeypatch):
    home = tmp_path / "home"
    film(home / "films/a/1.png")
    write(home / "films.csv", "file,label\nfilms/a/1.png,1\n")
    for place in ("mail/2020", "films/b", "films/a/drawn", "annotations/new", "films/masks"):
        (home / place).mkdir(parents=True)
    walked = []
    really_scan = os.scandir

    def spy(folder):
        walked.append(os.path.relpath(folder, home))
        return really_scan(folder)

    index = index_dataset(home)
    monkeypatch.setattr(os, "scandir", spy)
    assert not index.has_masks
    places = {"films/a", "films/a/drawn", "films", "films/masks", ".", "annotations", "annotations/new"}
    assert set(walked) == {place.replace("/", os.sep) for place in places}


@pytest.mark.parametrize("relative", [False, True])
def test_a_table_above_its_films_brings_what_lies_between(tmp_path, monkeypatch, relative):
    for name in ("set/images/a/1.png", "set/images/b/1.png", "set/images/a/2.png"):
        film(tmp_path / name)
    rows = "".join(f"set/images/{name}.png,1\n" for name in ("a/1", "b/1", "a/2"))
    write(tmp_path / "films.csv", f"file,label\n{rows}")
    write(tmp_path / "data.yaml", "names: [fracture]")
    write(tmp_path / "set/labels/a/1.txt", "0 0.5 0.25 0.25 0.1")
    write(tmp_path / "set/marks.json", coco({"bbox": [2, 3, 4, 5]}, size=(HEIGHT, WIDTH), name="2.png"))
    monkeypatch.chdir(tmp_path / "set")
    index = index_dataset("../films.csv" if relative else tmp_path / "films.csv")
    first, second, other = (
        index.paths[index.paths.index(index.root / f"set/images/{n}.png")] for n in ("a/1", "a/2", "b/1")
    )
    assert values(index.boxes(first)) == [(15, 4, 10, 2, "fracture")]
    assert values(index.boxes(second)) == [(2, 3, 4, 5, "fractured")]
    assert index.boxes(other) is None


def test_films_of_one_name_outside_the_tables_folder_have_no_boxes(tmp_path):
    home, data = tmp_path / "home", tmp_path / "data/images"
    for split in ("train", "valid"):
        film(data / split / "1.png")
    film(data / "train/2.png")
    rows = [f"{data}/train/1.png,1", f"{data}/valid/1.png,0", f"{data}/train/2.png,1"]
    write(home / "films.csv", "\n".join(["file,label", *rows]))
    for name in ("train/1", "valid/1", "train/2"):
        write(tmp_path / f"data/labels/{name}.txt", "0 0.5 0.5 0.5 0.5")
    write(tmp_path / "data/data.yaml", "names: [fracture]")
    index = index_dataset(home)
    first, second, third = (data / f"{name}.png" for name in ("train/1", "train/2", "valid/1"))
    assert (index.boxes(first), index.boxes(third)) == (None, None)
    assert index.read_mask(first, HEIGHT, WIDTH) is None
    assert not index.read_mask(third, HEIGHT, WIDTH).any()
    assert values(index.boxes(second)) == [(10, 5, 20, 10, "fracture")]
    assert index.has_masks


def test_same_names_in_other_folders_are_told_apart(tmp_path):
    for split, across in (("train", 0.5), ("valid", 0.25)):
        film(tmp_path / split / "images/1.png")
        write(tmp_path / split / "labels/1.txt", f"0 0.5 0.5 {across} 0.5")
    film(tmp_path / "test/images/1.png")
    write(tmp_path / "data.yaml", "names: [fracture]")
    rows = "\n".join(f"{split}/images/1.png,1,{split}" for split in ("train", "valid", "test"))
    write(tmp_path / "films.csv", f"file,label,split\n{rows}\n")
    index = index_dataset(tmp_path)
    (train,), (valid,), (test,) = (index.splits[name][0].paths for name in ("train", "valid", "test"))
    assert (index.boxes(train)[0].width, index.boxes(valid)[0].width) == (20, 10)
    assert index.boxes(test) is None
    assert index.read_mask(test, HEIGHT, WIDTH) is None


@pytest.mark.parametrize(
    ("orientation", "suffix"), [(1, "png"), (6, "png"), (1, "jpg"), (6, "jpg"), (1, "tif"), (3, "jpg")]
)
def test_boxes_lie_on_the_film_as_it_is_displayed(tmp_path, orientation, suffix):
    file = film(tmp_path / f"images/a.{suffix}", width=80, height=40)
    if orientation > 1:
        picture = Image.open(file)
        exif = picture.getexif()
        exif[274] = orientation
        picture.save(file, exif=exif)
    assert read_film_size(file) == read_radiograph(file.read_bytes()).pixels.shape
    write(tmp_path / "labels/a.txt", "0 0.5 0.5 0.5 0.1")
    write(tmp_path / "films.csv", f"file,label\nimages/a.{suffix},1\n")
    (box,) = index_dataset(tmp_path).boxes(file)
    turned = orientation == 6
    assert (box.width, box.height) == pytest.approx((20, 8) if turned else (40, 4))


def test_a_film_that_cannot_be_read_has_no_size(tmp_path):
    with pytest.raises(DatasetError, match="cannot be read") as raised:
        read_film_size(write(tmp_path / "Jane Doe.png", "no film"))
    assert "Doe" not in str(raised.value)


def test_the_size_of_a_film_is_told_by_its_header_alone(tmp_path):
    file = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 200)).astype(np.uint8)).save(file)
    file.write_bytes(file.read_bytes()[:2000])
    assert read_film_size(file) == (300, 200)


def test_a_film_that_was_read_is_not_asked_for_its_size(graz, monkeypatch):
    index = index_dataset(graz)
    monkeypatch.setattr("core.datasets.annotations.read_film_size", lambda path: pytest.fail("a film was opened"))
    assert any(index.read_mask(path, HEIGHT, WIDTH) is not None for path in index.paths)


@pytest.mark.parametrize("content", [b"", b"no picture", None])
def test_a_mask_that_cannot_be_read_is_one_sentence(tmp_path, content):
    for name in ("Fracture/Jane Doe.png", "Normal/c.png"):
        film(tmp_path / name)
    (tmp_path / "masks/Fracture").mkdir(parents=True)
    mask = tmp_path / "masks/Fracture/Jane Doe.png"
    mask.write_bytes(content or b"")
    index = index_dataset(tmp_path)
    path = index.studies[0].paths[0]
    assert index.mask_path(path) == mask
    if content is None:
        mask.unlink()
        with pytest.raises(DatasetError, match="cannot be read") as raised:
            read_mask(None, path, (HEIGHT, WIDTH), mask, 1)
    else:
        with pytest.raises(DatasetError, match="cannot be read") as raised:
            index.read_mask(path, HEIGHT, WIDTH)
    assert "Doe" not in str(raised.value)


def test_mask_files_come_first_and_must_fit(tmp_path):
    for name in ("Fracture/a.png", "Fracture/b.png", "Normal/c.png"):
        film(tmp_path / name)
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
    drawn[3:5, 6:9], drawn[10, 10] = 200, 90
    (tmp_path / "masks/Fracture").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "masks/Fracture/a.png"), drawn)
    index = index_dataset(tmp_path)
    a, b, c = (study.paths[0] for study in index.studies)
    assert index.has_masks
    assert np.array_equal(index.read_mask(a, HEIGHT, WIDTH), np.where(drawn == 200, 255, 0))
    assert index.list_marking_files() == [tmp_path / "masks/Fracture/a.png"]
    assert index.read_mask(b, HEIGHT, WIDTH) is None
    assert not index.read_mask(c, HEIGHT, WIDTH).any()
    with pytest.raises(DatasetError, match="size of its film"):
        index.read_mask(a, WIDTH, HEIGHT)


def test_nothing_is_known_where_nothing_is_marked(tmp_path):
    film(tmp_path / "Fracture/a.png")
    film(tmp_path / "Normal/b.png")
    index = index_dataset(tmp_path)
    assert not index.has_masks
    assert [index.boxes(study.paths[0]) for study in index.studies] == [None, None]


def test_a_box_is_a_plain_value():
    assert Box(1, 2, 3, 4, "fracture") == Box(1, 2, 3, 4, "fracture")
    assert Box(1, 2, 3, 4, "fracture").marks_fracture
    assert not Box(1, 2, 3, 4, "metal").marks_fracture
