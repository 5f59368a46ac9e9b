"""Simulated films: what is on them must be exactly what is said of them, and nothing else may tell the label."""

import csv
import subprocess
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy import stats

from core import phantoms
from core.phantoms import __main__ as command
from core.phantoms import anatomy, films, fractures, projection
from core.phantoms.dataset import COLUMNS

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def near(mask: np.ndarray, pixels: int) -> np.ndarray:
    """The mask grown by `pixels`."""
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)) > 0


def test_same_seed_same_film_and_other_seed_other_film():
    first, again, other = (phantoms.simulate_film(seed, size=96) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.pixels, again.pixels)
    np.testing.assert_array_equal(first.mask, again.mask)
    assert first.pixels.shape != other.pixels.shape or np.abs(first.pixels - other.pixels).mean() > 0.01


def test_film_is_a_frozen_grey_image_of_the_asked_size():
    for seed in range(12):
        film = phantoms.simulate_film(seed, size=120)
        assert film.pixels.dtype == np.float32
        assert film.mask.dtype == bool
        assert film.pixels.shape == film.mask.shape
        assert max(film.pixels.shape) == 120
        assert film.pixels.min() >= 0
        assert film.pixels.max() <= 1
        assert film.pixels.std() > 0.05
        assert film.mask.any() == bool(film.label)
        with pytest.raises(ValueError, match="read-only"):
            film.pixels[0, 0] = 1
    assert phantoms.simulate_film(3, size=90, framing="long", square=True).pixels.shape == (90, 90)
    assert phantoms.simulate_wrist(3, size=90).pixels.shape == (90, 90)


@pytest.mark.parametrize("kind", phantoms.KINDS)
@pytest.mark.parametrize("view", phantoms.VIEWS)
def test_every_kind_shows_in_every_view(kind, view):
    for seed in range(20):
        film = phantoms.simulate_film(seed, size=64, kind=kind, view=view, framing="tight" if seed % 2 else None)
        assert film.mask.any(), (seed, film.framing)
        assert film.mask.mean() < 0.2
        assert film.kind == kind
        assert film.view == view


def test_negative_has_no_mask_and_no_displacement():
    for seed in range(6):
        film = phantoms.simulate_film(seed, size=64, positive=False)
        assert (film.kind, film.label, film.displacement_mm, film.gap_mm) == ("none", 0, 0.0, 0.0)
        assert not film.mask.any()


@pytest.mark.parametrize("kind", phantoms.UNDISPLACED)
def test_undisplaced_break_changes_the_film_at_its_mask_only(kind):
    inside, outside = [], []
    for seed in range(12):
        broken = phantoms.simulate_film(seed, size=160, kind=kind, framing="tight")
        whole = phantoms.simulate_film(seed, size=160, kind=kind, positive=False, framing="tight")
        difference = np.abs(broken.pixels - whole.pixels)
        inside.append(difference[broken.mask].mean())
        outside.append(difference[~near(broken.mask, 20)].mean())
    assert np.median(inside) > 0.015
    assert np.median(outside) < 0.003
    assert max(outside) < 0.01


@pytest.mark.parametrize("kind", ["displaced", "colles", "ulnar_styloid", "scaphoid", "ulna"])
def test_displaced_break_changes_the_film_most_at_its_mask(kind):
    ratios = []
    for seed in range(8):
        broken = phantoms.simulate_film(seed, size=160, kind=kind, framing="wrist")
        whole = phantoms.simulate_film(seed, size=160, kind=kind, positive=False, framing="wrist")
        difference = np.abs(broken.pixels - whole.pixels)
        ratios.append(difference[broken.mask].mean() / difference.mean())
    assert np.median(ratios) > 2


@pytest.mark.parametrize("kind", phantoms.KINDS)
def test_mask_lies_on_bone(kind, monkeypatch):
    canvases = []

    class Recorded(projection.Canvas):
        def __post_init__(self):
            super().__post_init__()
            canvases.append(self)

    monkeypatch.setattr(projection, "Canvas", Recorded)
    for seed in range(3):
        canvases.clear()
        phantoms.simulate_film(seed, size=200, kind=kind, framing="tight")
        canvas = canvases[-1]
        bone = near(canvas.bone > 0.02, round(canvas.frame.per_mm * 1.2))  # a gap is up to two mm wide
        assert bone[canvas.mask > 0.5].mean() > 0.93


def bar() -> anatomy.Bone:
    """A bone of 20 x 80 mm, upright, from y = -60 to 20."""
    outline = np.array([[-10, -60], [-10, 20], [10, 20], [10, -60]], float)
    axis = (np.array([0.0, -60]), np.array([0.0, 20]))
    return anatomy.Bone("radius", outline, axis, depth=8, cortex_mid=2, cortex_end=1)


def draw_bar(breaks: list[fractures.Break]) -> projection.Canvas:
    frame = projection.Frame(films._matrix(0, 1, 3.0, np.array([0.0, -20]), (300, 150)), (300, 150))
    canvas = projection.Canvas(frame)
    projection.draw_bone(canvas, bar(), breaks, "PA", np.random.default_rng(0), 1.0, 0.0)
    return canvas


def test_far_piece_moves_by_the_recorded_millimetres():
    cut = fractures.Break("radius", -20, "cut", roughness=0, shift=(4.0, 0), pull=5.0)
    whole, broken = draw_bar([]).bone, draw_bar([cut]).bone
    # 3 pixels a mm: y = -20 lies at row 150; the bone spans rows 30 to 270 and columns 45 to 105.
    assert whole[150, 75] > 0
    assert np.allclose(broken[160:], whole[160:], atol=1e-4)
    assert not broken[138:149, :].any()  # the gap of 5 mm is 15 pixels
    np.testing.assert_allclose(broken[18:130, 12:], whole[33:145, :-12], atol=1e-3)  # 4 mm to +x, 5 mm up


def test_driven_in_pieces_add_their_attenuation():
    cut = fractures.Break("radius", -20, "cut", roughness=0, pull=-4.0)
    whole, broken = draw_bar([]).bone, draw_bar([cut])
    assert broken.bone[145 + 6, 75] == pytest.approx(2 * whole[150, 75], rel=0.05)
    assert broken.mask[151, 75] == 1
    assert broken.bone.sum() == pytest.approx(whole.sum(), rel=0.02)  # nothing of the bone is lost


def test_mask_of_a_cut_is_a_band_across_the_bone():
    mask = draw_bar([fractures.Break("radius", -20, "line", roughness=0, lucency=0.5)]).mask > 0.5
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max()) == pytest.approx((150 - 5.4, 150 + 5.4), abs=1.5)  # 1.8 mm to both sides
    assert (columns.min(), columns.max()) == pytest.approx((45, 105), abs=3)


def test_shell_is_brightest_where_the_beam_grazes_the_cortex():
    row = draw_bar([]).bone[150]
    cortex, middle = row[45:52].max(), row[75]
    # Chords of an ellipse of half axes 8 mm: 2 mm of cortex over marrow.
    outer, inner = 16.0, 16.0
    assert middle == pytest.approx(projection.TRABECULAR * inner * 0.3 + projection.CORTICAL * (outer - inner), rel=0.1)
    assert cortex > 3 * middle


def test_frame_puts_the_fingers_where_the_angle_says():
    matrix = films._matrix(90.0, 1.0, 2.0, np.zeros(2), (100, 200))
    frame = projection.Frame(matrix, (100, 200))
    np.testing.assert_allclose(frame.place([[0, 0], [0, 10]]), [[100, 50], [120, 50]], atol=1e-9)
    upright = projection.Frame(films._matrix(0.0, 1.0, 2.0, np.zeros(2), (100, 200)), (100, 200))
    np.testing.assert_allclose(upright.place([[0, 10], [10, 0]]), [[100, 30], [120, 50]], atol=1e-9)
    assert frame.per_mm == pytest.approx(2.0)


@pytest.mark.parametrize("view", phantoms.VIEWS)
def test_region_cuts_the_same_wrist_from_any_film(view):
    """The square cut by the region from a film, turned fingers up, is the wrist that is simulated alone."""
    agreements, turned = [], 0
    for seed in range(10):
        film = phantoms.simulate_film(seed, size=360, view=view, framing="hand", positive=False)
        alone = phantoms.simulate_wrist(seed, size=48, view=view, positive=False, jitter=0)
        region = film.region
        turned += abs(region.angle) > 3
        rotation = cv2.getRotationMatrix2D((region.x, region.y), region.angle, 48 / region.side)
        rotation[:, 2] += np.array([24 - region.x, 24 - region.y])
        cut = cv2.warpAffine(film.pixels, rotation, (48, 48), flags=cv2.INTER_AREA)
        inner = np.s_[10:38, 10:38]
        values = [cv2.GaussianBlur(image, (0, 0), 1.0)[inner].ravel() for image in (cut, alone.pixels)]
        agreements.append(np.corrcoef(*values)[0, 1])
    assert turned >= 4
    assert np.median(agreements) > 0.9


def test_region_without_jitter_is_the_square_itself():
    film = phantoms.simulate_wrist(1, size=100, jitter=0, positive=False)
    region = film.region
    assert (region.x, region.y, region.side, region.angle) == pytest.approx((50, 50, 100, 0))
    offs = [phantoms.simulate_wrist(seed, size=48).region for seed in range(40)]
    assert max(abs(region.x - 24) for region in offs) < 48 * 0.1
    assert 0.87 < min(r.side for r in offs) / 48 < max(r.side for r in offs) / 48 < 1.14
    assert 6 < max(abs(region.angle) for region in offs) <= 12


def test_study_shows_one_wrist_twice():
    for seed in range(8):
        pa, lateral = phantoms.simulate_study(seed, size=72, positive=True)
        assert (pa.view, lateral.view) == phantoms.VIEWS
        for name in ("kind", "laterality", "child", "displacement_mm", "gap_mm", "seed"):
            assert getattr(pa, name) == getattr(lateral, name), name
        assert pa.mask.any()
        assert lateral.mask.any()


def test_nothing_but_the_break_depends_on_the_label():
    for seed in range(25):
        broken, whole = (phantoms.simulate_film(seed, size=48, positive=value) for value in (True, False))
        assert broken.pixels.shape == whole.pixels.shape
        for name in ("view", "laterality", "framing", "child", "spacing_mm"):
            assert getattr(broken, name) == getattr(whole, name), name
        assert broken.region.side == pytest.approx(whole.region.side)
        assert broken.region.angle == pytest.approx(whole.region.angle)


@pytest.fixture(scope="module")
def made():
    return [phantoms.simulate_film(seed, size=40) for seed in range(1000, 1200)]


def test_trivial_measurements_do_not_tell_the_label(made):
    label = np.array([film.label for film in made])
    assert 75 < label.sum() < 125
    measures = {
        "aspect": [film.pixels.shape[0] / film.pixels.shape[1] for film in made],
        "brightness": [film.pixels.mean() for film in made],
        "contrast": [film.pixels.std() for film in made],
        "white": [(film.pixels > 0.98).mean() for film in made],
        "scale": [film.region.side for film in made],
        "angle": [abs(film.region.angle) for film in made],
        "child": [film.child for film in made],
        "framing": [phantoms.FRAMINGS.index(film.framing) for film in made],
    }
    for name, values in measures.items():
        values = np.array(values, float)
        assert stats.mannwhitneyu(values[label == 1], values[label == 0]).pvalue > 0.005, name


def test_films_vary_in_all_they_should(made):
    assert {film.framing for film in made} == set(phantoms.FRAMINGS)
    assert {film.view for film in made} == set(phantoms.VIEWS)
    assert {film.laterality for film in made} == {"L", "R"}
    assert {film.child for film in made} == {True, False}
    up = np.mean([abs(film.region.angle) <= 15 for film in made])
    assert 0.68 < up < 0.92


@pytest.mark.parametrize(("name", "value"), [("view", "AXIAL"), ("kind", "none"), ("framing", "x"), ("size", 3)])
def test_unknown_wishes_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        phantoms.simulate_film(0, **{name: value})


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
    assert len(rows) == 20
    assert sorted(path.relative_to(written).as_posix() for path in written.glob("*/XR_WRIST/**/*.png")) == sorted(
        row["path"] for row in rows
    )
    for row in rows:
        split, region, patient, study, name = row["path"].split("/")
        assert (split, region, patient) == (row["split"], "XR_WRIST", row["patient"])
        assert study == f"study1_{'positive' if row['label'] == '1' else 'negative'}"
        assert name in ("image1.png", "image2.png")
        with Image.open(written / row["path"]) as film, Image.open(written / "masks" / row["path"]) as mask:
            assert film.mode == mask.mode == "L"
            assert film.size == mask.size == (int(row["width"]), int(row["height"]))
            assert bool(np.asarray(mask).any()) == (row["label"] == "1")
    assert len({row["patient"] for row in rows if row["split"] == "valid"}) == 2
    assert sum(row["label"] == "1" for row in rows) == 10
    assert not list(written.rglob("*.part"))


def test_dataset_row_gives_its_film_back(written):
    head, row, *_ = read_table(written / "metadata.csv")
    row = dict(zip(head, row, strict=True))
    film = phantoms.simulate_study(int(row["seed"]), size=64, positive=row["label"] == "1")[0]
    with Image.open(written / row["path"]) as stored:
        np.testing.assert_array_equal(np.asarray(stored), np.round(film.pixels * 255).astype(np.uint8))


def test_dataset_lists_are_those_of_mura(written):
    for split, films_there in (("train", 16), ("valid", 4)):
        paths = read_table(written / f"{split}_image_paths.csv")
        studies = read_table(written / f"{split}_labeled_studies.csv")
        assert len(paths) == films_there
        assert all((written.parent / path).is_file() for (path,) in paths)
        assert len(studies) == films_there // 2
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
    "wish", [["--studies", "0"], ["--size", "5"], ["--valid-fraction", "2"], ["--seed", "-1"], ["--jobs", "0"]]
)
def test_impossible_wishes_are_one_line(wish, tmp_path, capsys):
    assert command.main([str(tmp_path / "out"), "--studies", "2", *wish]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: Expected")
    assert error.count("\n") == 0
    assert not (tmp_path / "out").exists()


def test_help_is_light():
    code = "import sys, runpy; sys.argv = ['x', '--help']\n" + (
        "try: runpy.run_module('core.phantoms', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(sorted({'tensorflow', 'keras', 'scipy', 'pandas', 'sklearn', 'streamlit'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--studies" in done.stdout
    assert done.stdout.strip().endswith("[]")
