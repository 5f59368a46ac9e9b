"""The command line of the second opinion, run as a user runs it."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.checkpoints import CHECKPOINTS, default_id, read_card
from core.checkpoints.profiles import PROFILES_NAME, make_profile, move_limits, save_profile
from core.figures import png_bytes
from core.phantoms import simulate_film
from core.predict import _stems, main
from core.radiographs import read_radiograph
from core.reading import open_reader
from tests.films import bad_files, dicom_film, png_film

ROOT = Path(__file__).parent.parent
CONTRACT = {"file", "probability", "logit", "decision", "threshold", "positive_label", "checkpoint", "quality"}


@pytest.fixture(scope="module", autouse=True)
def models_are_loaded_once():
    """Load each checkpoint once for all tests; a folder with any other file in it is another one."""
    kept = {}

    def open_once(checkpoint_id=None, folder=CHECKPOINTS):
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file() and path.name != PROFILES_NAME)
        content = tuple((str(path.relative_to(folder)), hashlib.sha256(path.read_bytes()).digest()) for path in files)
        if (checkpoint_id, content) not in kept:
            kept[checkpoint_id, content] = open_reader(checkpoint_id, folder)
        return kept[checkpoint_id, content]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("core.reading.open_reader", open_once)
        yield


@pytest.fixture
def films(tmp_path):
    (tmp_path / "a.png").write_bytes(png_film(bits=8))
    (tmp_path / "b.dcm").write_bytes(dicom_film())
    return tmp_path / "a.png", tmp_path / "b.dcm"


def run(capsys, *arguments):
    status = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return status, out.splitlines(), err.splitlines()


def test_help_needs_no_tensorflow():
    code = (
        "import sys, runpy\nsys.argv = ['predict', '--help']\n"
        "try:\n    runpy.run_module('core.predict', run_name='__main__')\nexcept SystemExit: pass\n"
        "assert not {'tensorflow', 'keras', 'pandas', 'plotly'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "not a medical device" in " ".join(done.stdout.split())


def test_json_gives_one_object_a_film_and_one_for_the_study(films, capsys):
    _, out, _ = run(capsys, *films, "--json", "--study")
    rows = [json.loads(line) for line in out]
    assert [row["file"] for row in rows] == [str(films[0]), str(films[1]), [str(path) for path in films]]
    assert all(set(row) >= CONTRACT for row in rows[:2])
    read = [row["probability"] for row in rows[:2] if row["probability"] is not None]
    assert rows[2]["probability"] == (pytest.approx(np.mean(read)) if read else None)
    assert rows[2]["films_read"] == len(read)


def copy_default(folder):
    """Make a folder of checkpoints that holds the default one and its finder alone."""
    chosen = default_id()
    for name in (chosen, read_card(CHECKPOINTS / chosen).region):
        shutil.copytree(CHECKPOINTS / name, folder / name)
    shutil.copy(CHECKPOINTS / "default", folder)


def test_saved_limits_are_used_when_named(tmp_path, capsys):
    film, folder = tmp_path / "wrist.png", tmp_path / "checkpoints"
    film.write_bytes(wrist_png())
    _, published, _ = run(capsys, film, "--json")
    before = json.loads(published[0])
    assert before["profile"] is None
    copy_default(folder)
    card = read_card(CHECKPOINTS / default_id())
    rate = card.operating_points[0].sensitivity
    limits = move_limits(card.operating_points, "both", 0.0, rate, rate)
    save_profile(make_profile("all", card, limits, "x"), folder)
    _, out, _ = run(capsys, film, "--json", "--study", "--profile", "all", "--checkpoints", tmp_path / "checkpoints")
    for row in map(json.loads, out):
        assert (row["decision"], row["profile"], row["threshold"]) == ("Fracture suspected", "all", 0.0)
        assert row["probability"] == pytest.approx(before["probability"])
    status, out, err = run(capsys, film, "--profile", "none", "--checkpoints", folder)
    assert (status, out) == (1, [])
    assert "has all" in err[-1]


def test_no_two_files_share_a_name_of_their_heat_maps():
    given = [Path(name) for name in ("a/wrist.png", "b/wrist.png", "a/wrist-2.png", "c/Wrist.png", "wrist-3.png")]
    stems = _stems(given)
    assert len({stem.casefold() for stem in stems}) == len(given)
    assert (stems[0], stems[2], stems[4]) == ("wrist", "wrist-2", "wrist-3")


def test_a_film_given_twice_counts_once(films, capsys):
    _, out, _ = run(capsys, films[0], films[0], films[1], "--json", "--study")
    assert json.loads(out[-1])["file"] == [str(films[0]), str(films[1])]


def test_heat_maps_that_cannot_be_written_are_one_line(tmp_path, capsys):
    film = tmp_path / "wrist.png"
    film.write_bytes(wrist_png())
    status, _, err = run(capsys, film, "--explain", "gradcam", "--out", film)
    assert (status, len(err)) == (1, 1)
    assert err[0].startswith("Expected a folder")


def wrist_png():
    pixels = simulate_film(5, size=300, framing="wrist", view="PA", positive=True).pixels
    return png_bytes(np.rint(255 * pixels).astype(np.uint8))


def test_a_bad_file_is_one_line_and_the_others_are_still_read(films, tmp_path, capsys):
    paths = []
    for number, data in enumerate(bad_files().values()):
        paths.append(tmp_path / f"bad{number}.png")
        paths[-1].write_bytes(data)
    status, out, err = run(capsys, *paths, tmp_path / "missing.png", films[0], "--json")
    assert status == 1
    assert [json.loads(line)["file"] for line in out] == [str(films[0])]
    told = [line for line in err if not line.startswith(str(films[0]))]
    assert len(told) == len(paths) + 1
    for path, line in zip([*paths, tmp_path / "missing.png"], told, strict=True):
        assert line.startswith(f"{path}: ")
        assert line.endswith(".")


def test_altered_weights_are_one_line_and_nothing_is_read(films, tmp_path, capsys):
    folder = tmp_path / "checkpoints"
    copy_default(folder)
    weights = folder / default_id(folder) / "model.weights.h5"
    data = bytearray(weights.read_bytes())
    data[len(data) // 3] ^= 64
    weights.write_bytes(data)
    status, out, err = run(capsys, films[0], "--checkpoints", folder)
    assert (status, out, len(err)) == (1, [], 1)
    assert err[0].endswith(".")


def test_nothing_but_its_own_words_comes_out(films):
    command = [sys.executable, "-m", "core.predict", str(films[1]), str(ROOT / "README.md"), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert [json.loads(line)["file"] for line in done.stdout.splitlines()] == [str(films[1])]
    lines = [line for line in done.stderr.splitlines() if not line.startswith(str(films[1]))]
    assert len(lines) == 1
    assert lines[0].startswith(f"{ROOT / 'README.md'}: The file is text")


def test_explanations_are_written_at_the_films_own_size(tmp_path, capsys):
    film = tmp_path / "wrist.png"
    film.write_bytes(wrist_png())
    pixels = read_radiograph(film.read_bytes()).pixels
    status, _, err = run(capsys, film, "--explain", "Grad-CAM", "--out", tmp_path / "maps")
    assert (status, err) == (0, [])
    heat = np.load(tmp_path / "maps" / "wrist.gradcam.npy")
    assert heat.dtype == np.float32
    assert heat.shape == pixels.shape
    assert heat.min() >= 0
    assert heat.max() <= 1
    assert Image.open(tmp_path / "maps" / "wrist.gradcam.png").size == pixels.shape[::-1]


def test_heat_that_is_no_evidence_is_not_painted(tmp_path, capsys, monkeypatch):
    """As on the screen: scaled to its own maximum, a map of next to nothing would look like one of much."""
    film = tmp_path / "wrist.png"
    film.write_bytes(wrist_png())
    told = {}
    for evidence in (True, False):
        monkeypatch.setattr("core.results.is_evidence", lambda *_, evidence=evidence: evidence)
        out = tmp_path / f"maps-{evidence}"
        _, rows, err = run(capsys, film, "--json", "--explain", "gradcam", "--out", out)
        told[evidence] = (json.loads(rows[0])["explanation"], err, np.asarray(Image.open(out / "wrist.gradcam.png")))
    (strong, quiet, painted), (faint, warned, bare) = told.values()
    # Two passes through one network may differ in the last digits.
    same_peak = pytest.approx(faint["peak"], rel=1e-4)
    assert strong == {"method": "gradcam", "target": "for", "peak": same_peak, "evidence": True}
    assert (quiet, faint["evidence"]) == ([], False)
    assert [line.startswith("wrist: No positive evidence") for line in warned] == [True]
    assert np.ptp(painted.astype(int), axis=-1).max() > 50, "colours"
    assert np.ptp(bare.astype(int), axis=-1).max() == 0, "the film alone"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--checkpoint", "no-such-one"], "no-such-one"),
        (["--explain", "tea-leaves", "--out", "x"], "gradcam"),
        (["--explain", "gradcam"], "--out"),
    ],
)
def test_a_wrong_wish_is_one_line(films, arguments, said, capsys):
    status, out, err = run(capsys, films[0], *arguments)
    assert status == 1
    assert out == []
    assert len(err) == 1
    assert said in err[0]
