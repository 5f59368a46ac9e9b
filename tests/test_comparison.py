"""Methods side by side over films with a known fracture: the rows, what is estimated from them, and the command."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from core.datasets import index_dataset
from core.errors import DatasetError, ExplanationError
from core.evaluate import run
from core.evaluate.explanations import _spacing, load_films
from core.evaluate.options import make_parser
from core.explain import explain
from core.explain.comparison import (
    BASELINES,
    BENT_KINDS,
    KeptRows,
    MapRow,
    OutlinedFilm,
    baseline_map,
    count_refused,
    is_thin,
    measure_maps,
    parse_rows,
    read_rows,
    record_sentence,
    rows_of,
    rows_text,
    summarise,
    tell_weights_apart,
)
from core.explain.localisation import THRESHOLDS, localise
from core.phantoms.fractures import KINDS
from core.values import TrainingSettings, WristRegion
from pages.parts.outlining import drawn_mask
from tests.test_explain import _stand_in_backbone, brightness_classifier, film_of  # noqa: F401

SETTINGS = TrainingSettings("efficientnetlite0")


def reader(classifier=None):
    """A reader of whole films that is as sure as the film is bright."""
    classifier = classifier or brightness_classifier()
    classifier.predict = lambda films, regions: [SimpleNamespace(logit=float(film.pixels.mean())) for film in films]
    return SimpleNamespace(classifier=classifier, finder=None)


def bright_film(row, column, thin=None, name="a"):
    """A dark film with a bright patch, which is outlined."""
    pixels, outline = np.zeros((64, 64)), np.zeros((64, 64), bool)
    outline[row : row + 8, column : column + 8] = True
    pixels[outline] = 0.9
    return OutlinedFilm(name, f"patient of {name}", film_of(pixels), outline, (0.5, 0.5), thin)


# --- measuring -------------------------------------------------------------------------------------------------------


def test_every_method_and_every_baseline_is_measured_on_every_film():
    films = [bright_film(8, 40, True, "a"), bright_film(28, 28, False, "b")]
    told = []
    rows = measure_maps(films, reader(), ["gradcam", "location"], check_every=2, progress=told.append)
    assert told == [1, 2]
    assert [(row.film, row.method) for row in rows] == [
        (film, method) for film in "ab" for method in ("gradcam", "location", "centre", "edges")
    ]
    found = {(row.film, row.method): row for row in rows}
    assert {row.checkpoint_id for row in rows} == {"stand-in"}
    assert all(row.unit == "mm" for row in rows)
    assert found["a", "gradcam"].hit == found["b", "gradcam"].hit == 1
    assert found["a", "centre"].hit == 0
    assert found["a", "centre"].distance > 5
    assert found["b", "centre"].hit == 1
    assert (found["a", "gradcam"].thin, found["b", "gradcam"].thin) == (True, False)
    assert found["a", "gradcam"].logit == pytest.approx(0.9 * 64 / 64**2)
    checked = {key for key, row in found.items() if row.level}
    assert checked == {("a", "gradcam"), ("a", "location")}, "every second film, and no baseline"
    assert math.isfinite(found["a", "gradcam"].stability)
    assert math.isnan(found["b", "gradcam"].stability)


def test_without_checks_nothing_is_scrambled(monkeypatch):
    monkeypatch.setattr("core.explain.comparison.ScrambledClassifier", lambda _: pytest.fail("a copy was made"))
    rows = measure_maps([bright_film(8, 40)], reader(), ["gradcam"], check_every=0)
    assert all(row.level == "" for row in rows)


def test_a_method_that_is_not_offered_is_refused_before_any_film():
    with pytest.raises(ExplanationError, match="'tea-leaves' was asked for"):
        measure_maps(iter(()), reader(), ["tea-leaves"])


def test_a_baseline_points_into_the_square_that_is_read():
    film, card = film_of(np.zeros((100, 200))), reader().classifier.checkpoint
    heat = baseline_map("centre", film, card, WristRegion(150, 40, 60))
    assert heat.shape == (100, 200)
    assert np.abs(np.argwhere(heat == heat.max()).mean(axis=0) - (39.5, 149.5)).max() <= 1
    assert not heat[:, :110].any()
    # Of a film that is stretched the whole width is as far from the middle as the whole height.
    wide = baseline_map("centre", film, replace(card, fit="stretch"), None)
    padded = baseline_map("centre", film, card, None)
    tall, whole = (np.flatnonzero((heat > 0.8).any(axis=1)).size for heat in (wide, padded))
    across = np.flatnonzero((wide > 0.8).any(axis=0)).size
    assert across == pytest.approx(2 * tall, abs=4)
    assert whole == pytest.approx(2 * tall, abs=4)


@pytest.mark.parametrize(
    ("kind", "displacement", "gap", "thin"),
    [
        ("hairline", 0.0, 1.2, True),
        ("hairline", None, None, True),
        ("buckle", 0.0, 0.0, False),
        ("greenstick", 0.0, 0.0, False),
        ("scaphoid", 0.9, 0.2, True),
        ("scaphoid", 0.9, 1.8, True),
        ("scaphoid", 0.9, 2.0, False),
        ("scaphoid", 1.0, 0.2, False),
        ("colles", 3.0, 0.0, False),
        ("", 0.5, 0.5, True),
        ("", 0.5, None, None),
    ],
)
def test_a_thin_break_is_a_line_and_no_bulge(kind, displacement, gap, thin):
    assert is_thin(kind, displacement, gap) is thin


def test_every_kind_that_bends_is_one_the_simulator_knows():
    assert set(BENT_KINDS) | {"hairline"} <= set(KINDS)


def test_maps_that_are_withheld_are_noted():
    """As bright as usual is no evidence; brighter is. The brightness is the stand-in's raw peak."""
    classifier = brightness_classifier()
    films = [bright_film(8, 40, name="a"), bright_film(8, 40, name="b")]
    (usual,) = [row.logit for row in measure_maps(films[:1], reader(classifier), ["gradcam"], check_every=0)][:1]
    assert usual > 0
    made = explain(classifier, films[0].radiograph, method="gradcam")
    for value, shown in ((2 * made.peak, 0.0), (made.peak / 2, 1.0)):
        card = replace(classifier.checkpoint, data={"peaks": {"gradcam": {"value": value, "n": 9}}})
        object.__setattr__(classifier, "checkpoint", card)
        rows = measure_maps(films, reader(classifier), ["gradcam"], check_every=0)
        assert [row.shown for row in rows if row.method == "gradcam"] == [shown, shown]
        assert all(math.isnan(row.shown) for row in rows if row.method in BASELINES)
        found = summarise(rows, resamples=20)[0]
        assert (found.hit_shown.n if found.hit_shown else 0) == 2 * shown
        assert found.films == 2


# --- estimates -------------------------------------------------------------------------------------------------------


def made_row(film, method, hit, **more):
    values = {"energy": 0.5, "distance": 2.0, "unit": "mm", "overlaps": (0.1,) * len(THRESHOLDS), "thin": None}
    return MapRow(film, f"p{film}", "simulated", "m", method, logit=0.7, hit=hit, **{**values, **more})


def checked(stability, deletion):
    moved = {"turned": stability, "shifted": 0.9, "exposed": 1.0}
    return {**moved, "deletion": deletion, "deletion_random": 0.4, "deletion_edges": 0.1}


def test_estimates_of_hand_worked_rows():
    flat = [0.0] * len(THRESHOLDS)
    low, high = list(flat), list(flat)
    low[2], high[2] = 0.2, 0.6
    rows = [made_row(film, "gradcam", hit, overlaps=tuple(low)) for film, hit in zip("abcd", (0, 0, 1, 0), strict=True)]
    rows += [
        made_row(
            "a",
            "layercam",
            1,
            distance=0.0,
            energy=0.2,
            overlaps=tuple(low),
            thin=True,
            level="good",
            **checked(0.8, 1.0),
        ),
        made_row(
            "b",
            "layercam",
            1,
            distance=1.0,
            energy=0.4,
            overlaps=tuple(high),
            thin=False,
            level="bad",
            **checked(0.6, 0.2),
        ),
        made_row(
            "c",
            "layercam",
            0,
            distance=math.nan,
            energy=0.0,
            overlaps=tuple(flat),
            thin=True,
            level="none",
            **checked(0.0, 9.0),
        ),
        made_row("d", "layercam", 1, distance=5.0, energy=0.6, overlaps=tuple(high), thin=False, unit="px"),
    ]
    coarse, fine = summarise(rows, resamples=500)
    assert (coarse.method, fine.method, fine.films) == ("gradcam", "layercam", 4)
    assert fine.hit.value == 0.75
    assert fine.energy.value == pytest.approx(0.3)
    assert (fine.threshold, fine.overlap.value) == (THRESHOLDS[2], pytest.approx(1.4 / 4))
    assert (fine.distance.value, fine.distance.n, fine.unit) == (0.5, 2, "mm"), "films of known pixels with heat"
    assert coarse.gain is None
    assert fine.gain.value == pytest.approx(0.75 - 0.25)  # 1, 1, -1, 1
    assert fine.gain.low < 0 < fine.gain.high <= 1
    assert fine.checked["stability"].value == pytest.approx(0.7), "a film without a map has none"
    assert fine.checked["deletion_ahead"].value == pytest.approx((0.6 - 0.2) / 2), "random places cost 0.4"
    assert (fine.checked["good"].value, fine.checked["good"].n) == (0.5, 2), "of those with a map"
    assert (fine.checked["hit"].value, fine.checked["hit"].n) == (1, 1), "of the maps that pass"
    assert "repeated" not in fine.checked
    assert coarse.checked == {}
    same = [replace(row, method="gradcampp") for row in rows if row.method == "gradcam"]
    assert math.isnan(summarise([*rows, *same], resamples=50)[-1].gain.low), "no difference seen is not a sure 0"
    (thin,) = summarise(rows, thin=True, resamples=100)
    assert (thin.films, thin.hit.value, thin.gain) == (2, 0.5, None)
    assert thin.hit.low <= thin.hit.value <= thin.hit.high


def test_what_never_hit_has_an_interval_all_the_same():
    (found,) = summarise([made_row(str(number), "gradcam", 0) for number in range(20)], resamples=100)
    assert (found.hit.value, found.hit.low) == (0, 0)
    assert 0.1 < found.hit.high < 0.2


def test_rows_are_written_and_read_again(tmp_path):
    rows = measure_maps([bright_film(8, 40, None), bright_film(20, 9, True, "b, c")], reader(), ["gradcam"])
    path = tmp_path / "maps.csv"
    path.write_text(rows_text(rows))
    again = read_rows(path)
    assert rows_text(again) == rows_text(rows)
    assert [row.film for row in again] == [row.film for row in rows]
    assert [row.thin for row in again] == [row.thin for row in rows]
    assert again[0].stability == pytest.approx(rows[0].stability, rel=1e-5)
    assert len(again[0].overlaps) == len(THRESHOLDS)


def test_a_table_from_before_logits_and_weights_and_withheld_maps_were_noted_is_read():
    now = rows_text([replace(made_row("a", "gradcam", 1), shown=1.0, weights="f" * 64)])
    assert parse_rows(now.encode())[0].logit == 0.7
    text = now.replace(",logit,", ",probability,", 1)
    assert text.splitlines()[0].endswith(",shown,weights")
    (newest,) = parse_rows(text.encode())
    assert (newest.weights, newest.hit) == ("f" * 64, 1)
    assert math.isnan(newest.logit), "0.7 was a probability"
    without = ["\n".join(line.rsplit(",", n)[0] for line in text.splitlines()) for n in (1, 2)]
    (newer,), (row,) = (parse_rows(old.encode()) for old in without)
    assert (newer.shown, newer.weights) == (1, "")
    assert (row.hit, row.film, row.weights) == (1, "a", "")
    assert math.isnan(row.shown)
    assert summarise([row], resamples=20)[0].hit_shown is None


# --- going on with what was kept -------------------------------------------------------------------------------------


def weighted_reader(name, weights):
    """As `reader`, of named weights; it counts the films that it reads."""
    found = reader()
    found.classifier.checkpoint = replace(
        found.classifier.checkpoint, id=name, weights_sha256=weights, settings=SETTINGS
    )
    predict, found.read = found.classifier.predict, []
    found.classifier.predict = lambda films, regions: found.read.extend(films) or predict(films, regions)
    return found


def test_what_was_measured_before_it_was_cut_off_is_not_measured_again(tmp_path):
    films = [bright_film(8, 40, True, "a"), bright_film(28, 28, False, "b"), bright_film(30, 8, None, "c")]
    whole = measure_maps(films, weighted_reader("m-1", "1" * 64), ["gradcam"], check_every=2)
    path = tmp_path / "kept.csv"

    def cut_off(done):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_maps(
            films, weighted_reader("m-1", "1" * 64), ["gradcam"], check_every=2, progress=cut_off, kept=KeptRows(path)
        )
    assert [row.film for row in read_rows(path) if row.method == "gradcam"] == ["a", "b"]

    def again(reader, **how):
        rows = measure_maps(films, reader, ["gradcam"], **{"check_every": 2, **how}, kept=KeptRows(path))
        return [film.id for film in reader.read], rows

    ids = [film.radiograph.id for film in films]
    read, rows = again(weighted_reader("m-1", "1" * 64))
    assert read == ids[2:]
    assert rows_text(rows) == rows_text(whole), "as if it had never been cut off"
    read, rows = again(weighted_reader("m-2", "2" * 64))
    assert read == ids, "another network's"
    assert {row.checkpoint_id for row in rows} == {"m-2"}
    assert again(weighted_reader("m-1", "1" * 64))[0] == again(weighted_reader("m-2", "2" * 64))[0] == []
    read, rows = again(weighted_reader("m-1", "1" * 64), check_every=0)
    assert read == [ids[0], ids[2]], "films that were checked are not the same as films that were not"
    assert not any(row.level for row in rows)


def test_rows_of_other_models_and_of_other_weights_are_told_apart():
    rows = [
        replace(made_row(film, "gradcam", 1), checkpoint_id=name, weights=weights)
        for name, weights in (("m-1", "1" * 64), ("m-1", "0" * 64), ("m-2", ""), ("gone", ""))
        for film in "ab"
    ]
    card = weighted_reader("m-1", "1" * 64).classifier.checkpoint
    kept, left_out = rows_of(rows, [card, replace(card, id="m-2", weights_sha256="2" * 64)])
    assert [(row.checkpoint_id, row.film) for row in kept] == [("m-1", "a"), ("m-1", "b"), ("m-2", "a"), ("m-2", "b")]
    assert {row.weights for row in kept} == {"1" * 64, ""}
    assert left_out == ["m-1", "gone"]


def test_the_same_weights_that_are_brought_here_again_and_read_films_otherwise_are_another_model(tmp_path):
    film, path = bright_film(8, 40, True, "a"), tmp_path / "kept.csv"

    def read(**changes):
        again = weighted_reader("mine", "1" * 64)
        again.classifier.checkpoint = replace(again.classifier.checkpoint, settings=None, **changes)
        rows = measure_maps([film], again, ["gradcam"], check_every=0, kept=KeptRows(path))
        return len(again.read), rows, again.classifier.checkpoint

    assert [read()[0], read()[0]] == [1, 0]
    count, rows, card = read(fit="stretch")
    assert count == 1
    assert read(scaling="unit")[0] == 1
    padded = replace(card, fit="pad")
    assert (rows_of(rows, [card])[1], rows_of(rows, [padded])[1]) == ([], ["mine"])
    (told,) = {row.checkpoint_id for row in tell_weights_apart(rows, [padded])}
    assert told.startswith("mine, weights 11111111-")


def test_a_record_counts_the_checked_maps_of_the_very_weights_that_passed():
    card = weighted_reader("m-1", "1" * 64).classifier.checkpoint
    levels = ["good"] * 2 + ["unsure", "bad", "none"] + [""] * 3
    rows = [
        replace(made_row(str(number), method, 1, level=level), checkpoint_id="m-1", weights="1" * 64)
        for number, level in enumerate(levels)
        for method in ("gradcam", "quickscorecam")
    ]
    rows += [replace(row, weights="2" * 64, level="good") for row in rows]
    words = record_sentence(rows, card, "gradcam")
    head = (
        "Of 4 Grad-CAM maps that were checked, of simulated films with a break, 2 passed as stable and following the "
    )
    assert words.startswith(head + "model (50%, 95% interval "), "where there was no map there is none that may fail"
    withheld = [replace(row, shown=0.0) if row.level == "good" else row for row in rows]
    assert "Of 2 Grad-CAM maps" in record_sentence(withheld, card, "gradcam"), "as it stands beside maps that are shown"
    assert record_sentence(rows, card, "layercam") == ""
    assert record_sentence(rows, card, "scorecam") == record_sentence(rows, card, "quickscorecam")


def test_other_weights_of_one_id_are_not_measured_together():
    card = weighted_reader("m-1", "1" * 64).classifier.checkpoint
    rows = [
        replace(made_row(str(number), "gradcam", hit), checkpoint_id="m-1", weights=weights)
        for weights, hit in (("1" * 64, 1), ("a" * 64, 0), ("", 0))
        for number in range(3)
    ]
    rows += [replace(made_row("x", "gradcam", 1), checkpoint_id="gone", weights="b" * 64)]
    found = {each.checkpoint_id: each for each in summarise(tell_weights_apart(rows, [card]), resamples=20)}
    assert {key: (each.films, each.hit.value) for key, each in found.items()} == {
        "m-1": (3, 1), "m-1, weights aaaaaaaa": (3, 0), "m-1, weights not noted": (3, 0), "gone": (1, 1),
    }  # fmt: skip


def test_films_that_lack_a_method_are_measured_again(tmp_path):
    films, path = [bright_film(8, 40, True, "a")], tmp_path / "kept.csv"
    measure_maps(films, weighted_reader("m-1", "1" * 64), ["gradcam"], check_every=0, kept=KeptRows(path))
    more = weighted_reader("m-1", "1" * 64)
    rows = measure_maps(films, more, ["gradcam", "smoothgrad"], check_every=0, kept=KeptRows(path))
    assert len(more.read) == 1
    assert [row.method for row in rows] == ["gradcam", "smoothgrad", *BASELINES]
    assert len(read_rows(path)) == len(rows), "in place of what was kept of it"


def test_another_file_is_not_taken_for_kept_rows(tmp_path):
    (tmp_path / "kept.csv").write_text("film,hit\na,1\n")
    with pytest.raises(ExplanationError, match="measured heat maps"):
        KeptRows(tmp_path / "kept.csv")
    assert (tmp_path / "kept.csv").read_text() == "film,hit\na,1\n"


def test_a_table_without_rows_is_refused():
    with pytest.raises(ExplanationError, match="no rows"):
        parse_rows(rows_text([]).encode())


@pytest.mark.parametrize(
    "text",
    [
        *("", "film,hit\na,1\n", None, "another method", "another origin", "no id"),
        *("cut short", "too long", "one cell"),
    ],
)
def test_another_table_is_refused(tmp_path, text):
    path = tmp_path / "maps.csv"
    changed = {
        "another method": {"method": "eigencam"},
        "another origin": {"origin": "**x**"},
        "no id": {"checkpoint_id": "a b"},
    }
    if text in changed:
        text = rows_text([replace(made_row("a", "gradcam", 1), **changed[text])])
    more = {"cut short": lambda line: line[:40], "too long": lambda line: line + ",7", "one cell": lambda line: "abc"}
    if text in more:
        whole = rows_text([made_row("a", "gradcam", 1), made_row("b", "gradcam", 1)]).splitlines()
        text = "\n".join([*whole[:-1], more[text](whole[-1])])
    if text is not None:
        path.write_text(text)
    with pytest.raises(ExplanationError, match="measured heat maps"):
        read_rows(path)


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def dataset(tmp_path):
    """Three studies in MURA's layout: two broken, of which one has no mask, and one whole."""
    rng = np.random.default_rng(0)
    for number, label in enumerate(("positive", "positive", "negative")):
        path = f"valid/XR_WRIST/patient{number:05d}/study1_{label}/image1.png"
        film = bright_film(10 + 12 * number, 40)
        for place in (tmp_path / path, tmp_path / "masks" / path):
            place.parent.mkdir(parents=True, exist_ok=True)
        noise = rng.normal(0, 4, (64, 64))
        cv2.imwrite(str(tmp_path / path), (film.radiograph.pixels * 255 + noise).clip(0, 255).astype(np.uint8))
        if number == 0:
            cv2.imwrite(str(tmp_path / "masks" / path), film.outline.astype(np.uint8) * 255)
    table = "path,displacement_mm,gap_mm,spacing_mm\n"
    table += "valid/XR_WRIST/patient00000/study1_positive/image1.png,0.4,0.0,0.25\n"
    (tmp_path / "metadata.csv").write_text(table)
    return tmp_path


def evaluate(*arguments):
    more = ["--checkpoint", "stand-in", "--resamples", "50"]
    return run(make_parser().parse_args([*arguments, *more]), lambda *_: reader())


def test_every_checkpoint_is_measured_unless_some_are_named(dataset, monkeypatch, capsys):
    opened, models = [], (("m-1", "fracture"), ("finder", "wrist"), ("m-2", "fracture"))
    entries = [SimpleNamespace(id=name, checkpoint=SimpleNamespace(task=task)) for name, task in models]
    monkeypatch.setattr("core.checkpoints.list_checkpoints", lambda folder: entries)
    asked = ["--data", str(dataset), "--explanations", "--methods", "gradcam", "--resamples", "20"]
    assert run(make_parser().parse_args(asked), lambda name, *_: opened.append(name) or named_reader(name)) == 0
    assert opened == ["m-1", "m-2"]
    assert capsys.readouterr().out.count("films with an outlined fracture") == 2


def test_the_command_measures_outlined_films_and_writes_a_row_for_each_map(dataset, tmp_path, capsys):
    out = tmp_path / "maps.csv"
    asked = ["--data", str(dataset), "--explanations", "--methods", "Grad-CAM", "gradcam", "--out", str(out)]
    assert evaluate(*asked) == 0
    text = capsys.readouterr().out
    assert "stand-in: 1 real films with an outlined fracture, 1 of them thin" in text
    assert all(title in text for title in ("Grad-CAM", *BASELINES.values()))
    rows = read_rows(out)
    assert [row.method for row in rows] == ["gradcam", *BASELINES]
    assert (rows[0].hit, rows[0].unit, rows[0].thin) == (1, "mm", True)
    assert rows[0].film == "valid/XR_WRIST/patient00000/study1_positive/image1.png"

    assert evaluate(*asked[:-2], "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["method"] for each in told["explanations"]] == ["gradcam", *BASELINES]
    assert told["explanations"][0]["hit"]["value"] == 1
    assert told["thin"][0]["n"] == 1
    assert told["explanations"][0]["checks"]["good"]["n"] == 1


def test_the_size_of_a_pixel_is_known_where_the_layout_says_what_it_means(tmp_path):
    """GRAZPEDWRI-DX's pixel_spacing is in mm; what another table means by it is not known."""
    stem = "0001_1234567891_01_WRI-L1_M010"
    film, boxes = (tmp_path / place for place in (f"images_part1/{stem}.png", f"labels/{stem}.txt"))
    for path in (film, boxes):
        path.parent.mkdir()
    cv2.imwrite(str(film), np.arange(64 * 48, dtype=np.uint16).reshape(64, 48))
    boxes.write_text("3 0.5 0.25 0.25 0.1\n")
    heads, row = "filestem,patient_id,study_number,fracture_visible,pixel_spacing", f"{stem},1,1,1,0.144"
    (tmp_path / "dataset.csv").write_text(f"{heads}\n{row}\n")
    index = index_dataset(tmp_path)
    (found,) = load_films(index, list(index.paths))
    assert index.format == "graz"
    assert found.spacing_mm == (0.144, 0.144)
    assert found.outline.any()
    assert _spacing({"pixel_spacing": "0.144"}, "csv") is None
    assert _spacing({"spacing_mm": "0.2", "pixel_spacing": "0.144"}, "graz") == (0.2, 0.2)


# A break of 12 x 7 pixels: left, top, right, bottom in edge coordinates of a film of 48 x 64 pixels.
BREAK = (10, 21, 22, 28)
HEIGHT, WIDTH = 64, 48


def _outline_from(tmp_path, kind):
    """Return a film's outline as it is read from a dataset that marks `BREAK` in its own way."""
    left, top, right, bottom = BREAK
    corners = [left, top, right, top, right, bottom, left, bottom]
    stem = "0001_1234567891_01_WRI-L1_M010"
    name = f"images_part1/{stem}.png" if kind in ("yolo", "yolo outline", "voc") else "images/Fractured/a.png"
    (tmp_path / name).parent.mkdir(parents=True)
    cv2.imwrite(str(tmp_path / name), np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH))
    if name.startswith("images_part1"):
        heads, row = "filestem,patient_id,study_number,fracture_visible", f"{stem},1,1,1"
        (tmp_path / "dataset.csv").write_text(f"{heads}\n{row}\n")
    else:
        (tmp_path / "dataset.csv").write_text("image_id,hand,leg,fractured\na.png,1,0,1\n")
    if kind.startswith("yolo"):
        box = [(left + right) / 2 / WIDTH, (top + bottom) / 2 / HEIGHT, (right - left) / WIDTH, (bottom - top) / HEIGHT]
        outline = [each / (HEIGHT if place % 2 else WIDTH) for place, each in enumerate(corners)]
        (tmp_path / f"{stem}.txt").write_text(" ".join(map(str, [3, *(box if kind == "yolo" else outline)])))
    elif kind == "voc":
        tags = "".join(f"<{key}>{at}</{key}>" for key, at in zip(("xmin", "ymin", "xmax", "ymax"), BREAK, strict=True))
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
        entry = f"<object><name>fracture</name><bndbox>{tags}</bndbox></object>"
        (tmp_path / f"{stem}.xml").write_text(f"<annotation>{size}{entry}</annotation>")
    else:
        runs = [left * HEIGHT + top, bottom - top, *([top + HEIGHT - bottom, bottom - top] * (right - left - 1))]
        runs += [HEIGHT * WIDTH - sum(runs)]
        marked = {
            "coco box": {"bbox": [left, top, right - left, bottom - top]},
            "coco runs": {"segmentation": {"counts": runs, "size": [HEIGHT, WIDTH]}},
            "coco polygon": {"segmentation": [corners]},
        }[kind]
        table = {
            "images": [{"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}],
            "categories": [{"id": 1, "name": "fractured"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1} | marked],
        }
        (tmp_path / "fractures.json").write_text(json.dumps(table))
    index = index_dataset(tmp_path)
    (found,) = load_films(index, list(index.paths))
    return found.outline


def _drawn_outline(kind):
    left, top, right, bottom = map(float, BREAK)
    if kind == "drawn box":
        return drawn_mask({"box": [{"x": [right, left], "y": [top, bottom]}]}, (HEIGHT, WIDTH))
    around = {"x": [left, right, right, left], "y": [top, top, bottom, bottom]}
    return drawn_mask({"lasso": [around]}, (HEIGHT, WIDTH))


@pytest.mark.parametrize(
    ("kind", "exact"),
    [
        ("yolo", True),
        ("yolo outline", True),  # of an outline its box is taken
        ("voc", True),
        ("coco box", True),
        ("coco runs", True),
        ("coco polygon", False),
        ("drawn box", True),
        ("drawn lasso", False),
    ],
)
def test_one_outline_is_scored_alike_however_it_is_given(tmp_path, kind, exact):
    """A polygon may take the pixels that its line runs along: then every score lies between the two outlines' own."""
    outline = _drawn_outline(kind) if kind.startswith("drawn") else _outline_from(tmp_path, kind)
    left, top, right, bottom = BREAK
    truth = np.zeros((HEIGHT, WIDTH), bool)
    truth[top:bottom, left:right] = True
    widest = cv2.dilate(truth.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    if exact:
        np.testing.assert_array_equal(outline, truth)
    assert (outline >= truth).all()
    assert (outline <= widest).all()
    random = np.random.default_rng(9)
    for spot in ((24, 15), (24, 40), (0, 0), (63, 47)):  # in the break, beside it, and in two corners
        heat = 0.5 * random.random((HEIGHT, WIDTH))
        heat[spot] = 1.0
        found, least, most = (localise(heat, each, (0.2, 0.3)) for each in (outline, truth, widest))
        assert found.hit == least.hit == (spot == (24, 15))
        assert most.distance <= found.distance <= least.distance
        assert least.distance - most.distance <= np.hypot(0.2, 0.3)
        assert least.energy <= found.energy <= most.energy
        for name in ("hit", "energy", "distance", "overlaps"):
            assert not exact or getattr(found, name) == getattr(least, name)


def test_what_is_drawn_off_the_film_outlines_nothing():
    aside = {"x": [WIDTH + 3.0, WIDTH + 9.0], "y": [5.0, 9.0]}
    assert not drawn_mask({"box": [aside]}, (HEIGHT, WIDTH)).any()
    across = {"x": [-9.0, 3.0], "y": [60.0, 99.0]}
    assert np.argwhere(drawn_mask({"box": [across]}, (HEIGHT, WIDTH))).tolist() == [
        [row, column] for row in range(60, 64) for column in range(3)
    ]


def test_a_film_that_cannot_be_read_is_told_and_the_others_are_measured(dataset, capsys):
    broken = dataset / "valid/XR_WRIST/patient00001/study1_positive/image1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    assert evaluate("--data", str(dataset), "--explanations", "5", "--methods", "gradcam") == 1
    output = capsys.readouterr()
    assert "1 real films" in output.out
    assert any(line.startswith("valid/XR_WRIST/patient00001") for line in output.err.splitlines())


def test_a_dataset_without_outlines_is_refused(dataset, capsys):
    for mask in (dataset / "masks").rglob("*.png"):
        mask.unlink()
    with pytest.raises(DatasetError, match="outlined fracture"):
        evaluate("--data", str(dataset), "--explanations")


def named_reader(name, slope=1.0):
    """As `reader`, of another name, whose network is `slope` times as sure."""
    found = reader()
    layer = found.classifier.model.get_layer("logit")
    layer.set_weights([slope * each for each in layer.get_weights()])
    found.classifier.checkpoint = replace(found.classifier.checkpoint, id=name)
    return found


def test_two_checkpoints_are_measured_by_every_method_on_the_same_films(dataset, tmp_path, capsys):
    opened = []

    def open_reader(name, *_):
        opened.append(name)
        return named_reader(name, 1.0 if name == "sees" else -1.0)

    second = "valid/XR_WRIST/patient00001/study1_positive/image1.png"
    cv2.imwrite(str(tmp_path / "masks" / second), bright_film(22, 40).outline.astype(np.uint8) * 255)
    with (tmp_path / "metadata.csv").open("a") as table:
        table.write(f"{second},0.0,2.0,0.25\n")
    out = tmp_path / "maps.csv"
    asked = ["--data", str(dataset), "--explanations", "--methods", "gradcam", "location", "--out", str(out)]
    asked += ["--checkpoint", "sees", "--checkpoint", "sees-not", "--resamples", "50", "--check-every", "2"]
    assert run(make_parser().parse_args(asked), open_reader) == 0
    assert opened == ["sees", "sees-not"]
    text = capsys.readouterr().out
    assert [line.split(":")[0] for line in text.splitlines() if "films with an outlined" in line] == opened
    rows = read_rows(out)
    films = {f"valid/XR_WRIST/patient0000{number}/study1_positive/image1.png" for number in (0, 1)}
    for name in opened:
        for method in ("gradcam", "location", *BASELINES):
            ours = [row for row in rows if (row.checkpoint_id, row.method) == (name, method)]
            assert {row.film for row in ours} == films, (name, method)
            assert len(ours) == 2
    assert len(rows) == 2 * 2 * 4
    keys = [(name, method) for name in opened for method in ("gradcam", "centre")]
    hits = {key: [row.hit for row in rows if (row.checkpoint_id, row.method) == key] for key in keys}
    assert hits["sees", "gradcam"] == [1, 1]
    assert hits["sees-not", "gradcam"] == [0, 0], "brightness speaks against a break"
    assert hits["sees", "centre"] == hits["sees-not", "centre"], "who does not look does not know the checkpoint"
    removed = [line for line in text.splitlines() if line.startswith("taken away")]
    assert [line.count(" to ") for line in removed] == [2, 1], "with an interval, of each method that drew a map"
    assert text.count("distance over the films with any heat") == 1, "everywhere else of all films"
    assert "of 2: Grad-CAM 0\n" in text

    assert run(make_parser().parse_args([*asked, "--json"]), open_reader) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["films"], told["refused"]) == (2, {"sees": 0, "sees-not": 0})
    found = {(each["checkpoint"], each["method"]): each for each in told["explanations"]}
    assert len(found) == 8
    assert found["sees", "gradcam"]["distance"]["n"] == 2
    assert found["sees-not", "gradcam"]["distance"] == {"value": None, "low": None, "high": None, "n": 0}


def test_films_that_a_checkpoint_refuses_are_counted_in_what_is_printed(dataset, tmp_path, capsys):
    """Of two films one finder sees the wrist on one, another on none; a third checkpoint reads whole films."""
    second = "valid/XR_WRIST/patient00001/study1_positive/image1.png"
    cv2.imwrite(str(tmp_path / "masks" / second), bright_film(22, 40).outline.astype(np.uint8) * 255)
    sure = {
        "lost": lambda film: 0.1,
        "half": lambda film: 1.0 if film.pixels[12, 44] > 0.5 else 0.1,  # where the first one's bright patch is
    }

    def open_reader(name, *_):
        found = named_reader(name)
        if name in sure:
            found.finder = SimpleNamespace(find=lambda film: WristRegion(32, 32, 64, confidence=sure[name](film)))
        return found

    def told(*more):
        asked = ["--data", str(dataset), "--explanations", "--methods", "gradcam", "--resamples", "50"]
        asked += [part for name in ("lost", "half", "reads") for part in ("--checkpoint", name)]
        assert run(make_parser().parse_args([*asked, *more]), open_reader) == 0
        return capsys.readouterr().out

    text = told()
    assert "lost: 2 of 2 films are not fit to be read and are left out." in text
    assert "half: 1 of 2 films are not fit to be read and are left out." in text
    assert "half: 1 real films with an outlined fracture" in text
    assert "reads: 2 real films with an outlined fracture" in text
    assert "lost: 0" not in text
    assert text.count("not fit") == 2
    found = json.loads(told("--json"))
    assert (found["films"], found["refused"]) == (2, {"lost": 2, "half": 1, "reads": 0})
    assert "not fit" not in told("--read-unfit")


def test_films_that_are_not_fit_to_be_read_are_left_out():
    films = [bright_film(8, 40, name="a"), bright_film(28, 28, name="b")]
    asked = []

    def is_fit(film, region):
        asked.append(region)
        return len(asked) > 1

    rows = measure_maps(films, reader(), ["gradcam"], check_every=0, is_fit=is_fit)
    assert {row.film for row in rows} == {"b"}
    assert count_refused(films, rows) == 1
    assert count_refused(films, []) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        ["--scores", "x.csv", "--explanations"],
        ["--data", "x", "--methods", "gradcam"],
        ["--data", "x", "--explanations", "--films"],
        ["--data", "x", "--explanations", "--regions", "table"],
        ["--data", "x", "--explanations", "--threshold", "0.4"],
    ],
)
def test_options_that_do_not_belong_together_are_refused(wrong, capsys):
    from core.evaluate import main

    with pytest.raises(SystemExit, match="2"):
        main(wrong)
    assert "belong" in capsys.readouterr().err
