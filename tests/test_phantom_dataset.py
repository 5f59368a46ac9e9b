"""Simulated datasets on disk: the layout of MURA, what the table says, 8 and 16 bits, restarts, decoys."""

import csv
import json
import subprocess
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from core import phantoms
from core.datasets import index_dataset
from core.errors import DatasetError
from core.phantoms import __main__ as command
from core.phantoms import dataset
from core.phantoms.dataset import COLUMNS, DatasetSettings, encode_film, write_dataset
from core.phantoms.decoys import KINDS, simulate_decoy
from core.phantoms.sheets import draw_sheet
from core.radiographs import read_radiograph

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "simulated"
    assert command.main([str(out), "--studies", "10", "--seed", "4", "--size", "64", "--jobs", "1"]) == 0
    return out


def read_table(path: Path) -> list[list[str]]:
    return list(csv.reader(path.read_text("utf-8").splitlines()))


def test_dataset_has_the_layout_of_mura_with_masks_and_metadata(written):
    head, *rows = read_table(written / "metadata.csv")
    assert tuple(head) == COLUMNS
    rows = [dict(zip(head, row, strict=True)) for row in rows]
    assert 20 <= len(rows) <= 30
    assert len({row["patient"] for row in rows}) == 10
    assert sorted(path.relative_to(written).as_posix() for path in written.glob("*/XR_WRIST/**/*.png")) == sorted(
        row["path"] for row in rows
    )
    for row in rows:
        split, region, patient, study, name = row["path"].split("/")
        assert (split, region, patient) == (row["split"], "XR_WRIST", row["patient"])
        assert study == f"study1_{'positive' if row['label'] == '1' else 'negative'}"
        assert name in ("image1.png", "image2.png", "image3.png")
        with Image.open(written / row["path"]) as film, Image.open(written / "masks" / row["path"]) as mask:
            assert film.mode == mask.mode == "L"
            assert film.size == mask.size == (int(row["width"]), int(row["height"]))
            assert bool(np.asarray(mask).any()) == (row["label"] == "1")
    assert len({row["patient"] for row in rows if row["split"] == "valid"}) == 2
    assert len({row["patient"] for row in rows if row["label"] == "1"}) == 5
    assert not list(written.rglob("*.part"))


def test_dataset_row_gives_its_film_back(written):
    head, row, *_ = read_table(written / "metadata.csv")
    row = dict(zip(head, row, strict=True))
    film = phantoms.simulate_study(int(row["seed"]), size=64, positive=row["label"] == "1")[0]
    with Image.open(written / row["path"]) as stored:
        np.testing.assert_array_equal(np.asarray(stored), np.round(film.pixels * 255).astype(np.uint8))


def test_dataset_lists_are_those_of_mura(written):
    for split, studies_there in (("train", 8), ("valid", 2)):
        paths = read_table(written / f"{split}_image_paths.csv")
        studies = read_table(written / f"{split}_labeled_studies.csv")
        assert all((written.parent / path).is_file() for (path,) in paths)
        assert len(studies) == studies_there
        assert {path.rpartition("/")[0] + "/" for (path,) in paths} == {folder for folder, _ in studies}
        for folder, label in studies:
            assert folder.endswith("_positive/" if label == "1" else "_negative/")


def test_dataset_does_not_depend_on_the_number_of_jobs(written, tmp_path):
    other = tmp_path / "simulated"
    assert command.main([str(other), "--studies", "10", "--seed", "4", "--size", "64", "--jobs", "2"]) == 0
    names = sorted(path.relative_to(written) for path in written.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
    assert all((written / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_foreign_folder_is_refused_and_left_alone(tmp_path, capsys):
    (tmp_path / "letter.txt").write_text("mine", "utf-8")
    assert command.main([str(tmp_path), "--studies", "2"]) == 1
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0
    assert "empty folder" in error
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_folder_of_other_settings_is_refused(written, capsys):
    before = (written / "metadata.csv").read_bytes()
    assert command.main([str(written), "--studies", "10", "--seed", "5", "--size", "64"]) == 1
    assert "other settings" in capsys.readouterr().err
    assert (written / "metadata.csv").read_bytes() == before


@pytest.mark.parametrize(
    "wish",
    [
        ["--studies", "0"], ["--size", "5"], ["--valid-fraction", "2"], ["--seed", "-1"], ["--jobs", "0"],
        ["--often", "nose=3"], ["--often", "scaphoid=0"], ["--often", "scaphoid=nan"],
    ],
)  # fmt: skip
def test_impossible_wishes_are_one_line(wish, tmp_path, capsys):
    assert command.main([str(tmp_path / "out"), "--studies", "2", *wish]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: Expected")
    assert error.count("\n") == 0
    assert not (tmp_path / "out").exists()


def test_kinds_can_be_drawn_more_often_to_learn_from_but_not_to_measure(written, tmp_path):
    """A factor so large that nothing else is drawn where the kind is possible; what measures stays as it was."""
    out = tmp_path / "often"
    done = command.main(
        [str(out), "--studies", "10", "--seed", "4", "--size", "64", "--often", "scaphoid=1000", "ulna=1000"]
    )
    assert done == 0
    plain, changed = (
        {row["path"]: row for row in csv.DictReader((folder / "metadata.csv").read_text("utf-8").splitlines())}
        for folder in (written, out)
    )
    assert changed.keys() == plain.keys()
    train = [row for row in changed.values() if row["split"] == "train" and row["label"] == "1"]
    assert {row["kind"] for row in train} <= {"scaphoid", "ulna"}
    assert {plain[row["path"]]["kind"] for row in train} - {"scaphoid", "ulna"}
    for path, row in plain.items():
        if row["split"] == "valid":
            assert changed[path] == row
            assert (out / path).read_bytes() == (written / path).read_bytes()
    assert json.loads((out / "simulated.json").read_text("utf-8"))["often"] == {"scaphoid": 1000, "ulna": 1000}


def test_help_is_light():
    code = "import sys, runpy; sys.argv = ['x', '--help']\n" + (
        "try: runpy.run_module('core.phantoms', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(sorted({'tensorflow', 'keras', 'scipy', 'pandas', 'sklearn', 'streamlit'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--studies" in done.stdout
    assert done.stdout.strip().endswith("[]")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_dataset_goes_on_where_it_was_stopped(written, tmp_path, monkeypatch):
    out = tmp_path / "simulated"
    settings = DatasetSettings(10, seed=4, size=64)

    def stop(done: int, total: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(out, settings, report=stop)
    assert not (out / "metadata.csv").exists()
    for place in (out, out / "train", out.parent):
        with pytest.raises(DatasetError, match="not finished; run the same command again"):
            index_dataset(place)
    half = next(path for path in sorted(out.rglob("*.png")))
    half.with_name(half.name + ".part").write_bytes(b"cut short")  # a kill in the middle of a file
    note = out / ".studies" / "00001.json"
    note.unlink()
    seeds = []
    simulate = dataset.simulate_study
    monkeypatch.setattr(
        dataset, "simulate_study", lambda seed, **wishes: seeds.append(seed) or simulate(seed, **wishes)
    )
    write_dataset(out, settings)
    assert len(seeds) == 5  # the first, whose note was lost, and the four that had not been begun
    (half.with_name(half.name + ".part")).unlink(missing_ok=True)
    assert files_of(out) == files_of(written)


def test_dataset_is_read_by_the_loader(written):
    index = index_dataset(written)
    assert not index.problems
    rows = {row["path"]: row for row in csv.DictReader((written / "metadata.csv").read_text("utf-8").splitlines())}
    films = {
        path.relative_to(written).as_posix(): study
        for studies in index.splits.values()
        for study in studies
        for path in study.paths
    }
    assert films.keys() == rows.keys()
    for path, study in films.items():
        assert study.label == int(rows[path]["label"])
        region = index.regions[written / path]
        assert (region.x, region.y, region.side) == tuple(float(rows[path][k]) for k in ("x", "y", "side"))
        mask = cv2.imread(str(written / "masks" / path), cv2.IMREAD_GRAYSCALE) > 0
        if study.label:
            row, column = (v.mean() for v in np.nonzero(mask))
            assert np.hypot(column - region.x, row - region.y) < 2.5 * region.side


def test_table_says_what_the_films_are(written):
    for row in csv.DictReader((written / "metadata.csv").read_text("utf-8").splitlines()):
        studies = phantoms.simulate_study(int(row["seed"]), size=64, positive=row["label"] == "1")
        film = studies[int(row["path"][-5]) - 1]
        assert (row["view"], row["hardware"], row["cast"]) == (film.view, film.hardware, str(int(film.cast)))
        assert float(row["age"]) == pytest.approx(film.age, abs=0.06)
        assert float(row["turn"]) == pytest.approx(film.angle, abs=0.06)
        assert float(row["spacing_mm"]) == pytest.approx(film.spacing_mm, rel=1e-3)
        assert row["bits"] == "8"


def test_deep_files_show_what_shallow_ones_do(tmp_path):
    """A 16-bit file, read as any such film is, equals the 8-bit film stretched to its range, within a grey."""
    depths = set()
    for seed in range(12):
        film = phantoms.simulate_film(seed, size=64, framing="wrist")
        shallow, eight = encode_film(film)
        stored, bits = encode_film(film, "16")
        assert (shallow.dtype, eight, stored.dtype) == (np.uint8, 8, np.uint16)
        assert bits == (film.stored_bits if film.stored_bits > 8 else 12)
        assert 0.45 * 2**bits < stored.max() < 2**bits
        path = tmp_path / "film.png"
        cv2.imwrite(str(path), stored)
        read = read_radiograph(path.read_bytes()).pixels
        grey = shallow / np.float32(255)
        span = float(np.ptp(film.pixels))
        wanted = (grey - film.pixels.min()) / span
        assert np.abs(read - wanted).max() < (0.51 / 255 + 2 / 2**bits) / span + 1e-4
        if film.stored_bits > 8:
            np.testing.assert_allclose(read, film.pixels, atol=4 / 2**bits)
            np.testing.assert_array_equal(encode_film(film, "mixed")[0], stored)
        else:
            np.testing.assert_array_equal(encode_film(film, "mixed")[0], shallow)
        depths.add(film.stored_bits)
    assert {8} < depths


def test_films_of_a_study_share_machine_and_hardware():
    for seed in range(16):
        films = phantoms.simulate_study(seed, size=40)
        for name in ("hardware", "cast", "stored_bits", "age", "child"):
            assert len({getattr(film, name) for film in films}) == 1, name


def test_hardware_and_cast_do_not_know_the_label():
    counts = []
    for seed in range(36):
        broken, whole = (phantoms.simulate_film(seed, size=24, positive=value) for value in (True, False))
        for name in ("hardware", "cast", "stored_bits"):
            assert getattr(broken, name) == getattr(whole, name)
        counts.append(broken.cast or broken.hardware != "none")
    assert 1 <= sum(counts) <= 14


def test_sheet_outlines_the_break(written, tmp_path):
    pixels, mask = np.full((50, 100), 0.5, np.float32), np.zeros((50, 100), bool)
    mask[20:30, 40:60] = True
    sheet = draw_sheet([(pixels, mask, "one"), (pixels, mask & False, "two")], tile=104, columns=2)
    assert sheet.shape == (118, 208, 3)
    left, right = sheet[14:64, :100], sheet[14:64, 104:204]
    coloured = np.ptp(left.astype(int), axis=2) > 60
    assert coloured[20, 45]
    assert not coloured[25, 50]
    assert not coloured[5:15].any()
    assert not (np.ptp(right.astype(int), axis=2) > 0).any()
    file = tmp_path / "sheet.png"
    dataset.write_sheet(written, file, films=5)
    assert cv2.imread(str(file)).shape == (254, 5 * 240, 3)


def test_settings_of_a_dataset_are_written_down(written):
    found = json.loads((written / "simulated.json").read_text("utf-8"))
    assert found["version"] == phantoms.VERSION
    assert (found["studies"], found["seed"], found["size"], found["bits"]) == (10, 4, 64, "8")
    assert not (written / ".studies").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_decoy_is_a_film_and_always_the_same(kind):
    first, again, other = (simulate_decoy(seed, 72, kind) for seed in (3, 3, 4))
    assert (first.dtype, first.shape) == (np.uint8, (72, 72))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(int) - other).mean() > 1


def test_decoys_of_all_kinds_are_drawn():
    from core.phantoms import decoys

    assert sum(decoys._WEIGHTS) == pytest.approx(1)
    assert len(KINDS) == len(set(KINDS)) == len(decoys._WEIGHTS)
    films = [simulate_decoy(seed, 24) for seed in range(40)]
    assert len({film.tobytes() for film in films}) == 40


@pytest.mark.parametrize(
    ("kind", "seed", "blocks"),
    [
        ("knee", 3, (9, 96, 109, 9, 10, 99, 151, 10, 9, 83, 168, 19, 8, 91, 181, 45)),
        ("fingers", 4, (7, 83, 10, 4, 5, 83, 20, 5, 5, 24, 76, 5, 5, 11, 27, 5)),
        ("photo", 5, (194, 205, 206, 198, 197, 167, 195, 188, 97, 113, 194, 154, 123, 130, 138, 154)),
    ],
)
def test_decoys_that_are_drawn_otherwise_have_another_version(kind, seed, blocks):
    from core.phantoms import decoys

    assert decoys.VERSION == 18, "The version of the decoys has changed: write down anew what they look like."
    found = simulate_decoy(seed, 48, kind).astype(float).reshape(4, 12, 4, 12).mean(axis=(1, 3)).ravel()
    assert np.abs(found - blocks).max() <= 1.5, f"decoys.VERSION must change with the drawing: {np.round(found)}"


def test_decoy_holds_no_bone_of_a_wrist(monkeypatch):
    """Whatever decoys are drawn from, it is never the forearm, carpus or hand of the simulated wrists."""
    from core.phantoms import projection

    names = set()
    draw = projection.draw_bone
    monkeypatch.setattr(
        projection, "draw_bone", lambda canvas, bone, *rest: names.add(bone.name) or draw(canvas, bone, *rest)
    )
    for kind in KINDS:
        simulate_decoy(1, 24, kind)
    assert names == {"long", "lump"}
