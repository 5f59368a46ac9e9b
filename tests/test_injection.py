"""Breaks put into given films: they lie on the radius, and a sham differs from a break by the break alone."""

import csv
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from core import phantoms
from core.datasets import index_dataset
from core.errors import DatasetError, RadiographError
from core.phantoms import __main__ as phantoms_command
from core.phantoms import injection
from core.train import injected
from core.train.survey import survey_dataset
from core.values import WristRegion

MM = 1.5  # pixels per mm of the drawn films


def drawn_film(angle: float = 0.0) -> tuple[np.ndarray, WristRegion]:
    """A grey film with one bright bone, from 16 mm left to 4 mm right of the square's middle, fingers at `angle`."""
    size = round(220 * MM)
    rng = np.random.default_rng(3)
    film = np.full((size, size), 0.25, np.float32)
    middle = size / 2
    left, right = middle - 16 * MM, middle + 4 * MM
    film[round(middle - 5 * MM) :, round(left) : round(right)] = 0.6
    for edge in (left, right - 3):
        film[round(middle - 5 * MM) :, round(edge) : round(edge) + 3] = 0.85
    film = cv2.GaussianBlur(film, (0, 0), 0.7) + rng.normal(0, 0.01, film.shape).astype(np.float32)
    turn = cv2.getRotationMatrix2D((middle, middle), -angle, 1.0)
    film = cv2.warpAffine(film, turn, film.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    return np.clip(film, 0, 1), WristRegion(middle, middle, 106 * MM, angle)


@pytest.fixture(scope="module")
def films():
    made = [phantoms.simulate_film(seed, size=200, positive=False, framing="wrist", child=False) for seed in range(6)]
    return [(film.pixels, film.region) for film in made]


def near(mask: np.ndarray, pixels: float) -> np.ndarray:
    reach = 2 * int(np.ceil(pixels)) + 1
    return cv2.dilate(mask.astype(np.uint8), np.ones((reach, reach), np.uint8)) > 0


def upright(film: np.ndarray, region: WristRegion, per_mm: float = MM) -> np.ndarray:
    """The film turned fingers up, the square's middle in the middle."""
    scale = per_mm * injection.REGION_SIDE_MM / region.side
    turn = cv2.getRotationMatrix2D((region.x, region.y), region.angle, scale)
    size = round(200 * per_mm)
    turn[:, 2] += size / 2 - np.array([region.x, region.y])
    return cv2.warpAffine(film.astype(np.float32), turn, (size, size), borderMode=cv2.BORDER_REPLICATE)


@pytest.mark.parametrize("angle", [0.0, 37.0, 90.0, 180.0])
def test_radius_is_found_between_its_edges_however_the_film_lies(angle):
    film, region = drawn_film(angle)
    assert injection.find_radius(film, region, -20) == pytest.approx((-16, 4), abs=1.2)


@pytest.mark.parametrize("kind", injection.INJECTED)
@pytest.mark.parametrize("angle", [0.0, 130.0])
def test_mask_lies_on_the_radius_below_the_joint(kind, angle):
    film, region = drawn_film(angle)
    for seed in range(3):
        _, mask = injection.inject_fracture(film, region, seed, positive=True, kind=kind)
        rows, columns = np.nonzero(upright(mask, region) > 0.5)
        across, below = (columns + 0.5) / MM - 100, (rows + 0.5) / MM - 100
        assert -2 < below.min() < below.max() < 42
        assert -20 < across.min() < across.max() < 8


def test_same_seed_same_break_and_the_given_film_is_left_alone(films):
    pixels, region = films[0]
    before = pixels.copy()
    first, again, other = (injection.inject_fracture(pixels, region, seed, positive=True) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert np.abs(first[0] - other[0]).max() > 0.05
    np.testing.assert_array_equal(pixels, before)
    assert first[0].dtype == np.float32
    assert first[1].dtype == bool
    assert first[0].shape == first[1].shape == pixels.shape


@pytest.mark.parametrize("kind", injection.INJECTED)
def test_break_and_sham_differ_near_the_mask_alone(films, kind):
    for seed, (pixels, region) in enumerate(films):
        per_mm = region.side / injection.REGION_SIDE_MM
        broken, mask = injection.inject_fracture(pixels, region, seed, positive=True, kind=kind)
        sham, none = injection.inject_fracture(pixels, region, seed, positive=False, kind=kind)
        assert mask.any()
        assert not none.any()
        assert 0 <= min(broken.min(), sham.min()) <= max(broken.max(), sham.max()) <= 1
        difference = np.abs(broken - sham)
        assert difference[~near(mask, 22 * per_mm)].max() < 5e-4  # a rounding, and the tail of a faint line
        assert difference[mask].mean() > 0.6 * injection.VISIBLE
        assert difference[mask].mean() > 4 * difference[~mask].mean()


def test_sham_is_warped_as_the_break_is_and_films_stay_untouched_below_it(films):
    """Below the bend every pixel is the given one, in both classes; the hand has moved in both."""
    for seed, (pixels, region) in enumerate(films):
        for positive in (True, False):
            out, _ = injection.inject_fracture(pixels, region, seed, positive=positive, kind="displaced")
            moved = upright((np.abs(out - pixels) > 1e-6).astype(np.float32), region)
            assert not moved[round((100 + 46) * MM) :].any()
            assert moved[round(85 * MM) : round(100 * MM), round(88 * MM) : round(112 * MM)].mean() > 0.3


def roughness(film: np.ndarray, where: np.ndarray) -> float:
    return float(np.log(cv2.Laplacian(film, cv2.CV_32F)[where].var() + 1e-9))


def test_fine_grain_beside_the_break_tells_nothing(films):
    """Resampling smooths grain: seen between a film and its sham, not between a sham and a break of the same film."""
    apart, resampled = [], []
    for seed, (pixels, region) in enumerate(films):
        rng = np.random.default_rng(seed)
        grainy = np.clip(pixels * 0.8 + 0.1 + rng.normal(0, 0.03, pixels.shape), 0, 1).astype(np.float32)
        per_mm = region.side / injection.REGION_SIDE_MM
        for kind in ("displaced", "angulated"):
            broken, mask = injection.inject_fracture(grainy, region, seed, positive=True, kind=kind)
            sham, _ = injection.inject_fracture(grainy, region, seed, positive=False, kind=kind)
            beside = near(mask, 12 * per_mm) & ~near(mask, 3 * per_mm)
            apart.append(roughness(broken, beside) - roughness(sham, beside))
            moved = np.abs(sham - grainy) > 1e-6
            resampled.append(roughness(sham, moved) - roughness(grainy, moved))
    assert np.median(resampled) < -0.2
    assert abs(np.median(apart)) < 0.25 * abs(np.median(resampled))


def test_displaced_piece_is_moved_across_the_bone_by_what_is_planned():
    film, region = drawn_film()
    for seed in range(4):
        plan = injection._draw_plan(np.random.default_rng([2, seed]), "displaced", -42.0)
        out, _ = injection.inject_fracture(film, region, seed, positive=True, kind="displaced")
        if abs(plan.angle) > 2.5:
            continue
        row = out[round((110 - plan.level - 9.5) * MM)]  # just above the zone in which the motion grows
        strong = np.nonzero(row > 0.7)[0]
        assert (strong.min() + strong.max()) / 2 / MM - 110 + 6 == pytest.approx(plan.shift, abs=1.6)


FINGERPRINTS = {
    "hairline": (168, 193.1, 155.6, 183, 175),
    "displaced": (215, 193.6, 155.6, 281, 280),
    "angulated": (252, 194.0, 157.8, 353, 335),
    "impacted": (305, 195.1, 155.6, 242, 224),
    "buckle": (324, 192.3, 161.0, 64, 64),
}
"""Kind -> the mask's pixels and middle (row, column), and mean changes by the break and by its sham in 1/100,000."""


@pytest.mark.parametrize("kind", FINGERPRINTS)
def test_breaks_that_are_made_otherwise_have_another_version(kind):
    assert injection.VERSION == 2, "The version of the breaks has changed: write down anew what they change."
    film, region = drawn_film()
    broken, mask = injection.inject_fracture(film, region, 11, positive=True, kind=kind)
    sham, _ = injection.inject_fracture(film, region, 11, positive=False, kind=kind)
    changes = (1e5 * np.abs(changed - film).mean() for changed in (broken, sham))
    found = [mask.sum(), *np.argwhere(mask).mean(axis=0), *changes]
    told = np.array(FINGERPRINTS[kind])
    assert (np.abs(found - told) <= np.maximum(0.01 * told, 1)).all(), (
        f"injection.VERSION must change with the breaks: {np.round(found, 1)}"
    )


def test_square_at_the_edge_of_the_film_is_refused():
    film, region = drawn_film()
    low = WristRegion(region.x, film.shape[0] - 5.0, region.side, 0.0)
    for positive in (True, False):
        with pytest.raises(RadiographError, match="distal radius"):
            injection.inject_fracture(film, low, 0, positive=positive)
    with pytest.raises(ValueError, match="kind"):
        injection.inject_fracture(film, region, 0, positive=True, kind="colles")
    with pytest.raises(RadiographError, match="2 dimensions"):
        injection.inject_fracture(np.zeros((4, 4, 3)), region, 0, positive=True)


def test_written_set_has_both_classes_of_every_film_on_one_side(films, tmp_path):
    out = tmp_path / "injected"
    given = [(f"person {number % 5}", *film) for number, film in enumerate(films)]
    given.append(("beside", films[0][0], WristRegion(-400, -400, 100)))
    assert injection.write_injected(given, out, seed=1) == 12
    head, *lines = csv.reader((out / "metadata.csv").read_text("utf-8").splitlines())
    assert tuple(head) == injection.COLUMNS
    rows = [dict(zip(head, line, strict=True)) for line in lines]
    for row in rows:
        with Image.open(out / row["path"]) as film, Image.open(out / "masks" / row["path"]) as mask:
            assert film.size == mask.size
            assert np.asarray(mask).any() == (row["label"] == "1")
    for source in {row["source"] for row in rows}:
        pair = [row for row in rows if row["source"] == source]
        assert sorted(row["label"] for row in pair) == ["0", "1"]
        assert len({Path(row["path"]).parts[0] for row in pair}) == 1
    assert len({row["patient"] for row in rows}) == 5
    listed = [line.split(",")[0] for name in ("train", "valid")
              for line in (out / f"{name}_image_paths.csv").read_text("utf-8").split()]  # fmt: skip
    assert sorted(listed) == sorted(f"injected/{row['path']}" for row in rows)
    with pytest.raises(DatasetError, match="empty folder"):
        injection.write_injected(given, out)
    with pytest.raises(DatasetError, match="distal radius"):
        injection.write_injected(given[-1:], tmp_path / "none")
    assert [entry.name for entry in tmp_path.iterdir()] == ["injected"]
    index = index_dataset(out)
    assert (index.origin, index.patients_known, index.problems, index.notes) == ("injected", True, (), ())
    assert len(index.paths) == 12
    assert survey_dataset(out).sentence.startswith("12 real films with simulated breaks and without of")


def stopped_by(films, how):
    """Yield the films, and end the work as a signal does."""
    yield from films
    raise how


def test_a_set_is_there_whole_or_not_at_all(films, tmp_path, monkeypatch):
    out, part = tmp_path / "injected", tmp_path / "injected.part"
    out.mkdir()
    given = [(f"person {number}", *film) for number, film in enumerate(films[:2])]
    with pytest.raises(KeyboardInterrupt):
        injection.write_injected(stopped_by(given, KeyboardInterrupt()), out)
    assert not any(tmp_path.rglob("*.png"))
    # Nobody cleans up behind a process that is killed.
    with monkeypatch.context() as patch:
        patch.setattr(injection.shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            injection.write_injected(stopped_by(given, KeyboardInterrupt()), out)
    assert (out.exists(), len(list(part.glob("train/**/*.png")))) == (False, 4)
    for place in (part, part / "train", tmp_path):
        with pytest.raises(DatasetError, match="not finished"):
            index_dataset(place)
    assert injection.write_injected(given, out) == 4
    assert [entry.name for entry in tmp_path.iterdir()] == ["injected"]
    assert not (out / ".studies").exists()
    part = tmp_path / "other.part"
    part.mkdir()
    (part / "letter.txt").write_text("mine")
    with pytest.raises(DatasetError, match="there is one already"):
        injection.write_injected(given, tmp_path / "other")
    assert (part / "letter.txt").read_text() == "mine"


def test_patients_that_are_not_known_stay_unknown(films, tmp_path):
    """From a dataset that does not say which films are of one person comes one that says so."""
    given = [(f"film {number}", *film) for number, film in enumerate(films[:2])]
    assert injection.write_injected(given, tmp_path / "injected", patients_known=False) == 4
    for place in (tmp_path / "injected", tmp_path / "injected/train", tmp_path / "injected/metadata.csv", tmp_path):
        index = index_dataset(place)
        assert (index.origin, index.patients_known) == ("injected", False)
        assert sum("not known which are of one patient" in note for note in index.notes) == 1
        assert len({study.patient_id for study in index.studies}) == 2, "a break and its sham stay together"


def test_command_uses_only_films_without_a_fracture_and_finds_the_wrist_itself(tmp_path, capsys, monkeypatch):
    data = tmp_path / "simulated"
    assert phantoms_command.main([str(data), "--studies", "6", "--seed", "3", "--size", "256", "--jobs", "1"]) == 0
    rows = [
        row for row in csv.DictReader((data / "metadata.csv").read_text("utf-8").splitlines()) if row["label"] == "0"
    ]
    by_size = {}
    for row in rows:
        by_size.setdefault((int(row["width"]), int(row["height"])), []).append(row)

    class KnowsTheWrist:
        def find(self, film):
            row = by_size[film.width, film.height][0]
            return WristRegion(*(float(row[name]) for name in ("x", "y", "side", "angle")), confidence=1.0)

    asked = []
    monkeypatch.setattr(injected, "load_finder", lambda finder: asked.append(finder) or KnowsTheWrist())
    (data / rows[0]["path"]).write_bytes(b"no film")
    elbow = data / "train/XR_ELBOW/patient00009/study1_negative/image1.png"
    elbow.parent.mkdir(parents=True)
    elbow.write_bytes(b"an elbow that nobody looks at")
    out = tmp_path / "injected"
    assert injected.main([str(data), str(out), "--seed", "2"]) == 1
    assert "Films of real wrists were expected, but these are simulated." in capsys.readouterr().err
    for note in ("metadata.csv", "simulated.json"):  # what else tells them from real ones
        (data / note).unlink()
    assert injected.main([str(data), str(out), "--seed", "2"]) == 0
    told = capsys.readouterr()
    assert "1 films were left out: they cannot be read" in told.err
    assert "the wrists alone are taken" in told.err
    assert index_dataset(out).patients_known
    written = list(csv.DictReader((out / "metadata.csv").read_text("utf-8").splitlines()))
    assert len(written) <= 2 * (len(rows) - 1)
    assert sorted(row["label"] for row in written) == ["0"] * (len(written) // 2) + ["1"] * (len(written) // 2)
    monkeypatch.setattr(injected, "read_card", lambda folder: SimpleNamespace(region=None))
    assert injected.main([str(data), str(tmp_path / "other")]) == 1
    assert "wrist finder" in capsys.readouterr().err
    (tmp_path / "a file").write_text("")
    assert injected.main([str(data), str(tmp_path / "a file" / "out"), "--finder", "own"]) == 1
    assert "able to write" in capsys.readouterr().err
    assert asked == ["wrist-finder-2", "own"]
