"""The wrist finder: geometry by hand-worked grids, refusals, and the embedded finder on unseen simulated films."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.checkpoints import CHECKPOINTS, find_checkpoint, publish, verify
from core.errors import CheckpointError
from core.radiographs import fit_square
from core.values import Checkpoint, Radiograph, WristRegion
from core.wrist import (
    MAPS,
    GridReading,
    WristFinder,
    build_finder,
    confidence_of,
    draw_grid,
    load_finder,
    mean_reading,
    mirrored_reading,
    read_grid,
    to_film,
)

EMBEDDED = "wrist-finder-2"


def maps_of(hot, cells=8, log2_side=-2.0, angle=0.0, cold=-9.0):
    """Return a grid that is cold but for the cells in `hot`: {(row, column): logit}."""
    maps = np.zeros((cells, cells, 4))
    maps[..., 0] = cold
    for (row, column), logit in hot.items():
        maps[row, column, 0] = logit
    maps[..., 1] = log2_side
    maps[..., 2], maps[..., 3] = np.sin(np.radians(angle)), np.cos(np.radians(angle))
    return maps


def stand_in_card(looks):
    return Checkpoint("stand-in", "", "wrist", "efficientnetlite0", "", 96, looks=looks)


def test_one_hot_cell_is_read_at_its_middle():
    reading = read_grid(maps_of({(2, 5): 4.0}, log2_side=-2.0, angle=90.0))
    assert (reading.x, reading.y) == pytest.approx((5.5 / 8, 2.5 / 8), abs=1e-6)
    assert reading.side == pytest.approx(0.25)
    assert reading.angle == pytest.approx(90.0)
    assert reading.heat == 4.0


def test_two_equal_neighbours_are_read_between_them():
    reading = read_grid(maps_of({(4, 3): 3.0, (4, 4): 3.0}))
    assert (reading.x, reading.y) == pytest.approx((4.0 / 8, 4.5 / 8), abs=1e-6)


def test_a_rival_far_away_moves_nothing():
    alone = read_grid(maps_of({(1, 1): 4.0}))
    rivalled = read_grid(maps_of({(1, 1): 4.0, (6, 6): 3.9}))
    assert (rivalled.x, rivalled.y) == pytest.approx((alone.x, alone.y), abs=1e-6)


def test_side_and_direction_are_those_at_the_heat_not_elsewhere():
    maps = maps_of({(3, 3): 5.0}, log2_side=-0.5, angle=180.0)
    maps[3, 3, 1:] = (-3.0, np.sin(np.radians(-30)), np.cos(np.radians(-30)))
    reading = read_grid(maps)
    assert reading.side == pytest.approx(0.125, rel=1e-3)
    assert reading.angle == pytest.approx(-30.0, abs=0.1)


@settings(max_examples=60, deadline=None)
@given(
    x=st.floats(0.15, 0.85), y=st.floats(0.15, 0.85), side=st.floats(0.15, 0.9), angle=st.floats(-179.9, 180),
    cells=st.sampled_from([16, 24, 28]),
)  # fmt: skip
def test_a_drawn_grid_reads_back(x, y, side, angle, cells):
    target, weight = draw_grid(x, y, side, angle, cells)
    maps = target.astype(np.float64)
    heat = np.clip(maps[..., 0], 1e-5, 1 - 1e-5)
    maps[..., 0] = np.log(heat / (1 - heat))
    reading = read_grid(maps)
    # The window around the hottest cell is not quite even about the centre.
    assert np.hypot(reading.x - x, reading.y - y) < max(0.25 / cells, 0.02 * side)
    assert reading.side == pytest.approx(side, rel=1e-3)
    assert abs((reading.angle - angle + 180) % 360 - 180) < 0.1
    assert weight.shape == (cells, cells)
    assert weight.max() <= 1
    assert weight[heat < 0.1].sum() == 0


@pytest.mark.parametrize(
    ("height", "width", "centre"),
    [(400, 200, (100.0, 300.0)), (200, 400, (200.0, 200.0)), (400, 400, (200.0, 300.0))],
)
def test_a_reading_of_a_padded_film_lands_on_the_film(height, width, centre):
    region = to_film(GridReading(0.5, 0.75, 0.25, 10.0, 3.0), fit_square(height, width, 96))
    assert (region.x, region.y) == pytest.approx(centre)
    assert region.side == pytest.approx(100.0)
    assert region.angle == pytest.approx(10.0)


def test_a_reading_of_a_turned_square_lands_on_the_film():
    # Fingers to the right: up in the square is right on the film, right in the square is down.
    square = WristRegion(200.0, 100.0, 80.0, 90.0)
    reading = GridReading(0.75, 0.25, 0.5, 170.0, 1.0)
    region = to_film(reading, fit_square(300, 400, 96, square), square.angle)
    assert (region.x, region.y) == pytest.approx((220.0, 120.0))
    assert region.side == pytest.approx(40.0)
    assert region.angle == pytest.approx(-100.0)


def test_confidence_is_the_logistic_function_of_the_calibrated_heat():
    assert confidence_of(2.0, None) == pytest.approx(1 / (1 + np.exp(-2.0)))
    assert confidence_of(2.0, {"method": "logistic", "weight": 3.0, "bias": -5.0}) == pytest.approx(
        1 / (1 + np.exp(-1.0))
    )
    assert confidence_of(1e9, {"method": "logistic", "weight": 3.0, "bias": -5.0}) == pytest.approx(1.0)


@pytest.mark.parametrize("looks", [1, 2])
@pytest.mark.parametrize(("height", "width"), [(300, 180), (180, 300), (64, 64)])
def test_find_returns_the_place_on_a_film_of_any_shape(height, width, looks):
    """A stand-in network that sees the brightest spot stands for the trained one: only the geometry is tested."""
    pixels = np.zeros((height, width), np.float32)
    row, column = height // 3, 2 * width // 3
    reach = max(2, max(height, width) // 40)
    pixels[row - reach : row + reach, column - reach : column + reach] = 1.0

    seen = []

    def answer(squares):
        seen.append(squares.shape[0])
        maps = []
        for square, degrees in zip(squares[..., 0], (20.0, -20.0), strict=False):  # the second is a mirror image
            assert square.shape == (96, 96)
            weight = (square > 0.5).astype(float)
            across = (weight * (np.arange(96) + 0.5)).sum() / weight.sum()
            down = (weight * (np.arange(96)[:, None] + 0.5)).sum() / weight.sum()
            target, _ = draw_grid(across / 96, down / 96, 0.3, degrees, 12)
            target[..., 0] = 12 * target[..., 0] - 6
            maps.append(target)
        return {MAPS: np.stack(maps)}

    region = WristFinder(stand_in_card(looks), answer).find(Radiograph("", pixels, ""))
    longest = max(height, width)
    assert np.hypot(region.x - column, region.y - row) < 0.03 * longest
    # Each closer look sees a square of twice the side found before, 0.3 of it the wrist's; each turns by 20 degrees.
    # A finder that looks closer once sees no mirror image.
    assert seen == ([1, 2, 2] if looks == 2 else [1, 1])
    assert region.side == pytest.approx(0.3 * (2 * 0.3) ** looks * longest, rel=0.01)
    assert region.angle == pytest.approx(20.0 * (1 + looks), abs=0.1)
    assert region.confidence > 0.9
    assert not region.set_by_reader


@pytest.mark.parametrize(("looks", "heats"), [(2, [5.0, -2.5, -1.5, 3.0, 3.0]), (1, [5.0, -2.0]), (1, [-2.0, 5.0])])
def test_what_one_look_is_not_sure_of_is_not_sure(looks, heats):
    heats = iter(heats)

    def answer(squares):
        return {MAPS: np.stack([maps_of({(6, 6): next(heats)}, cells=12) for _ in squares])}

    region = WristFinder(stand_in_card(looks), answer).find(Radiograph("", np.zeros((96, 96), np.float32), ""))
    assert region.confidence == pytest.approx(1 / (1 + np.exp(2.0)))
    assert next(heats, None) is None


def test_two_readings_of_one_square_meet_in_the_middle():
    first, second = GridReading(0.2, 0.4, 0.2, 170.0, 1.0), GridReading(0.4, 0.5, 0.8, -170.0, 3.0)
    mean = mean_reading(first, second)
    assert (mean.x, mean.y, mean.side, mean.heat) == pytest.approx((0.3, 0.45, 0.4, 2.0))
    assert abs(mean.angle) == pytest.approx(180.0)
    assert mean_reading(first, replace(first, angle=-10.0)).angle == 170.0
    assert vars(mirrored_reading(first)) == {"x": 0.8, "y": 0.4, "side": 0.2, "angle": -170.0, "heat": 1.0}


def test_a_network_that_always_errs_to_one_side_errs_no_more():
    pixels = np.zeros((96, 96), np.float32)
    pixels[40:44, 60:64] = 1.0

    def answer(squares):
        maps = []
        for square in squares[..., 0]:
            weight = (square > 0.5).astype(float)
            across = (weight * (np.arange(96) + 0.5)).sum() / weight.sum()
            down = (weight * (np.arange(96)[:, None] + 0.5)).sum() / weight.sum()
            target, _ = draw_grid(across / 96 + 0.1, down / 96, 0.4, 0.0, 12)
            target[..., 0] = 12 * target[..., 0] - 6
            maps.append(target)
        return {MAPS: np.stack(maps)}

    region = WristFinder(stand_in_card(looks=2), answer).find(Radiograph("", pixels, ""))
    assert (region.x, region.y) == pytest.approx((62, 42), abs=0.7)


@pytest.fixture(scope="module")
def small_finder(tmp_path_factory):
    """A finder of random weights, published."""
    import keras

    keras.utils.set_random_seed(3)
    model = build_finder(64)
    folder = tmp_path_factory.mktemp("checkpoints")
    card = Checkpoint("finder", "A finder", "wrist", "efficientnetlite0", "block6a_expand_activation", 64)
    publish(folder, card, model)
    return folder, model, card


def test_the_network_is_flat_and_answers_one_grid(small_finder):
    import keras

    _, model, _ = small_finder
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    assert model.output[MAPS].shape == (None, 8, 8, 4)
    assert model.count_params() < 1_500_000


def test_a_published_finder_answers_as_the_network_it_was(small_finder):
    import keras

    folder, model, card = small_finder
    pixels = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    before = WristFinder(card, lambda square: {MAPS: keras.ops.convert_to_numpy(model(square)[MAPS])})
    film = Radiograph("", pixels, "")
    expected, region = before.find(film), load_finder("finder", folder).find(film)
    # Weights are stored in half precision.
    assert (region.x / 64, region.y / 64) == pytest.approx((expected.x / 64, expected.y / 64), abs=0.02)
    assert region.side == pytest.approx(expected.side, rel=0.02)
    assert region.confidence == pytest.approx(expected.confidence, abs=0.01)


def test_what_is_no_finder_is_refused(small_finder):
    folder, model, card = small_finder
    with pytest.raises(CheckpointError, match="none called"):
        load_finder("absent", folder)
    publish(folder, replace(card, id="classifier", task="fracture"), model)
    with pytest.raises(CheckpointError, match="finds wrists was expected"):
        load_finder("classifier", folder)
    publish(folder, replace(card, id="odd", calibration={"method": "logistic", "weight": "1"}), model)
    with pytest.raises(CheckpointError, match="calibration"):
        load_finder("odd", folder)


@pytest.fixture(scope="module")
def embedded():
    if not (CHECKPOINTS / EMBEDDED).is_dir():
        pytest.skip(f"the checkpoint {EMBEDDED} is not here")
    return load_finder(EMBEDDED, CHECKPOINTS)


def test_the_embedded_finder_finds_unseen_simulated_wrists(embedded):
    from core.phantoms import simulate_film

    close = turned = 0
    for seed in range(97_000_000, 97_000_020):
        film = simulate_film(seed, size=320)
        region = embedded.find(Radiograph("", film.pixels, ""))
        close += np.hypot(region.x - film.region.x, region.y - film.region.y) <= 0.15 * film.region.side
        turned += abs((region.angle - film.region.angle + 180) % 360 - 180) <= 20
    assert close >= 17
    assert turned >= 16


def test_the_embedded_finder_doubts_what_is_no_wrist(embedded):
    from core.phantoms import simulate_film
    from core.phantoms.decoys import simulate_decoy

    others = [
        embedded.find(Radiograph("", simulate_decoy(98_000_000 + seed).astype(np.float32) / 255, "")).confidence
        for seed in range(20)
    ]
    wrists = [
        embedded.find(Radiograph("", simulate_film(98_000_000 + seed, size=320).pixels, "")).confidence
        for seed in range(20)
    ]
    assert np.median(others) < 0.2
    assert np.median(wrists) > 0.7
    blank = embedded.find(Radiograph("", np.full((200, 300), 0.4, np.float32), ""))
    assert blank.confidence < 0.3


def test_the_embedded_finder_is_whole(embedded):
    assert verify(find_checkpoint(EMBEDDED, CHECKPOINTS)).data["simulated"] is True
