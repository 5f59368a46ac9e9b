"""Films as squares: thin breaks, breaks that are marked nowhere, shares of a limit, and what is told of lost films."""

import gc
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from core.train import squares
from core.train.batches import FractureSampler
from core.train.squares import Film, Shelf, Squares, list_unreadable, memory_limit_bytes
from core.values import WristRegion

SIDE = 640


def write(folder, name="film.png"):
    picture = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
    cv2.imwrite(str(folder / name), picture)
    return folder / name


def marked(path, rows=slice(0), columns=slice(0), label=1):
    def marks(height, width):
        mask = np.zeros((height, width), np.uint8)
        mask[rows, columns] = 255
        return mask

    return Film(path, "study", "patient", label, marks, WristRegion(320, 320, 600))


def sampler_of(films, size=48):
    kept = Squares(films, round(1.5 * size), margin=1.5, masks=True)
    return FractureSampler(kept, input_size=size, batch_size=1, seed=4, location=True, whole=False)


def test_a_thin_break_stays_a_break(tmp_path):
    """A line of one pixel covers a twelfth of a pixel of the square, less than the quarter that a wide one needs."""
    drawn = sampler_of([marked(write(tmp_path), rows=slice(324, 325), columns=slice(200, 440))])
    mask = drawn.squares.square(0)[1]
    assert mask.any()
    assert mask.any(axis=1).sum() <= 2
    for epoch in range(30):
        targets = drawn.batch(epoch, 0)[1]
        assert targets["logit"][0, 0] == 1
        assert targets["location"][0, ..., 0].any()


def test_a_tiny_break_is_not_lost_between_the_pixels_when_it_is_moved():
    mask = np.zeros((72, 72), np.uint8)
    mask[30, 40] = 255

    class Kept:
        films, margin = (marked(Path("film.png")),), 1.5

        def __len__(self):
            return 1

        def square(self, index):
            return np.full((72, 72), 100, np.uint8), mask

    drawn = FractureSampler(Kept(), input_size=48, batch_size=1, seed=4, location=True, whole=False)
    assert {float(drawn.batch(epoch, 0)[1]["logit"][0, 0]) for epoch in range(200)} == {1.0}
    mask[:] = 0  # the break is known, and lies outside the square
    assert drawn.batch(0, 0)[1]["logit"][0, 0] == 0


def test_a_wide_break_is_no_wider_than_it_was(tmp_path):
    mask = sampler_of([marked(write(tmp_path), slice(300, 340), slice(300, 340))]).squares.square(0)[1]
    # 40 film pixels are 40 * 72 / 900 = 3.2 of the square's; a pixel that is covered by a quarter counts.
    assert (mask > 0).any(axis=0).sum() in (3, 4)
    assert not sampler_of([marked(write(tmp_path), label=0)]).squares.square(0)[1].any()


def test_a_break_that_is_marked_nowhere_stays_a_break(tmp_path):
    drawn = sampler_of([marked(write(tmp_path))])
    assert drawn.squares.square(0)[1] is None
    targets = drawn.batch(0, 0)[1]
    assert targets["logit"][0, 0] == 1
    assert not targets["location"].any(), "nothing is said of any cell"


def test_whole_films_are_stretched_where_it_is_asked_for(tmp_path):
    """Pillow's box filter takes the same means; decoded films that were padded are not taken for these."""
    path = tmp_path / "wide.png"
    picture = np.random.default_rng(0).integers(0, 256, (256, 640)).astype(np.uint8)
    cv2.imwrite(str(path), picture)
    film = replace(marked(path), marks=lambda height, width: picture, region=None)
    shelf = Shelf(tmp_path / "kept")
    padded = Squares([film], 64, whole=True, masks=True, shelf=shelf)
    stretched = Squares([film], 64, whole=True, fit="stretch", masks=True, shelf=shelf)
    expected = np.asarray(Image.fromarray(picture).resize((64, 64), Image.Resampling.BOX))
    pixels, mask = stretched.square(0)
    assert np.abs(pixels.astype(int) - expected).max() <= 1
    assert np.mean((mask > 0) == (expected / 255 > 0.25)) > 0.97
    assert not padded.square(0)[0][:19].any()
    # A square of the wrist is one already.
    wrist = [replace(film, region=WristRegion(300, 128, 200))]
    one, other = (Squares(wrist, 64, fit=fit, masks=True, shelf=shelf).square(0)[0] for fit in ("pad", "stretch"))
    np.testing.assert_array_equal(one, other)


def test_no_film_is_measured_unless_its_region_is_asked_for(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(squares, "read_film_size", lambda path: asked.append(path) or (SIDE, SIDE))
    kept = Squares([marked(write(tmp_path))], 64, whole=True)
    assert asked == []
    assert (kept.regions[0].x, kept.regions[0].side) == (32, 60)
    assert kept.regions is kept.regions
    assert len(asked) == 1


def test_parts_of_a_run_share_its_limit_and_leave_each_other_alone(tmp_path, monkeypatch):
    films = [replace(marked(write(tmp_path, f"{number}.png")), marks=None) for number in range(8)]
    limit = 6 * 32 * 32 + 2 * 1024 + 8 * 5
    for _ in range(2):
        parts = [Squares(films[:6], 32, shelf=Shelf(tmp_path / "kept", limit, films=8))]
        parts.append(Squares(films[6:], 32, shelf=Shelf(tmp_path / "kept", limit, films=8)))
        kept = [part._cache.kept for part in parts]
        assert kept == [5, 1]
        taken = sum(file.stat().st_size for file in (tmp_path / "kept").rglob("*.u8"))
        assert taken <= limit
        del parts
        gc.collect()  # nobody holds them any more; a second run finds both again
        monkeypatch.setattr("core.datasets.cache._take_space", lambda *_: pytest.fail("a part was made anew"))
    monkeypatch.setattr(squares, "memory_limit_bytes", lambda: limit)
    assert Squares(films[:6], 32, shelf=Shelf(films=8))._cache.kept == 5
    assert Squares(films[:6], 32, shelf=Shelf(films=8)).beyond == 1
    assert Squares(films[:6], 32)._cache.kept == 6


@pytest.mark.parametrize(
    ("said", "expected"), [(f"{10 * 2**30}\n", 4.0), (f"{4 * 2**30}\n", 2.0), ("max\n", 20.0), (None, 20.0)]
)
def test_a_container_has_less_memory_than_its_machine(tmp_path, monkeypatch, said, expected):
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PHYS_PAGES": 50 * 2**18, "SC_PAGE_SIZE": 4096}[name])
    monkeypatch.setattr(squares, "CONTAINER_LIMIT", tmp_path / "memory.max")
    if said:
        (tmp_path / "memory.max").write_text(said)
    assert memory_limit_bytes() / 2**30 == pytest.approx(expected)


def test_films_that_are_left_out_are_named_in_the_runs_folder_alone(tmp_path, capsys):
    films = [replace(marked(Path(f"Jane Doe/{number}.png")), marks=None) for number in range(3)]
    run = tmp_path / "runs/new-1"
    list_unreadable("train", films, {0: "It is cut short.", 2: "It is cut short."}, run)
    list_unreadable("valid", films, {1: "It is empty."}, run)
    said = capsys.readouterr().err
    assert "train: 2 of 3 films" in said
    assert "2 x It is cut short." in said
    assert "Doe" not in said
    names = [line.split("\t")[:2] for line in (run / "left_out.txt").read_text().splitlines()]
    assert names == [["train", "Jane Doe/0.png"], ["train", "Jane Doe/2.png"], ["valid", "Jane Doe/1.png"]]
    list_unreadable("train", films, {}, run)
    assert [line.split("\t")[0] for line in (run / "left_out.txt").read_text().splitlines()] == ["valid"]
    list_unreadable("train", films, {}, tmp_path)
    assert not (tmp_path / "left_out.txt").exists()
