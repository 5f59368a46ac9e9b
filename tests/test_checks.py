"""What can be trusted of a heat map: the measurements one by one, and methods that are known to fail."""

import math
import threading
from dataclasses import replace
from types import MappingProxyType

import cv2
import numpy as np
import pytest

from core import explain as explaining
from core.checkpoints import CHECKPOINTS, default_id
from core.classifier import load_classifier
from core.explain import METHODS, Method, checks, trust
from core.explain.checks import GRID, Checks, check_map, is_flat, lay_back, likeness
from core.explain.localisation import edge_map
from core.explain.removal import REMOVED, Removal, measure_removal
from core.explain.scrambled import ScrambledClassifier
from core.explain.stray import bone_edges, find_bright, find_limb, stray_heat
from core.explain.trust import check_rows, trust_sentence
from core.phantoms import simulate_film
from core.radiographs import fit_square
from core.values import WristRegion
from tests.test_explain import _stand_in_backbone, brightness_classifier, film_of, small_classifier  # noqa: F401


def blob(size, row, column, width=4.0):
    y, x = np.mgrid[:size, :size]
    return np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * width**2)).astype(np.float32)


# --- likeness --------------------------------------------------------------------------------------------------------


def test_likeness_is_a_correlation_of_what_is_seen():
    rng = np.random.default_rng(0)
    first, second = rng.random((GRID, GRID)), rng.random((GRID, GRID))
    assert likeness(first, second) == pytest.approx(np.corrcoef(first.ravel(), second.ravel())[0, 1], abs=1e-6)
    assert likeness(first, 3 * first) == pytest.approx(1)
    assert likeness(first, 1 - first) == pytest.approx(-1, abs=1e-6)
    assert likeness(blob(224, 100, 60, 16.0), blob(28, 12.06, 7.06, 2.0)) > 0.99  # of whatever resolution
    left = np.zeros((GRID, GRID), bool)
    left[:, : GRID // 2] = True
    same_left = np.where(left, first, second)
    assert likeness(first, same_left, left) == pytest.approx(1)
    assert likeness(first, same_left) < 0.9


def test_a_map_without_heat_is_like_another_without_and_no_other():
    assert likeness(np.zeros((8, 8)), np.zeros((8, 8))) == 1
    assert likeness(np.zeros((8, 8)), blob(8, 4, 4)) == likeness(blob(8, 4, 4), np.zeros((8, 8))) == 0


def test_what_rounding_leaves_of_a_map_that_is_the_same_everywhere_is_not_compared():
    rng = np.random.default_rng(1)
    flat = [(1 + 2e-6 * rng.random((GRID, GRID))).astype(np.float32) for _ in range(2)]
    assert likeness(*flat) == 1
    assert likeness(flat[0], blob(GRID, 20, 20)) == 0
    assert [is_flat(each) for each in (flat[0], np.zeros((8, 8)), blob(GRID, 20, 20))] == [True, True, False]
    faint = 1 + 0.01 * blob(GRID, 20, 20)
    assert not is_flat(faint)
    assert likeness(faint, blob(GRID, 20, 20)) == pytest.approx(1, abs=1e-3)


# --- a moved wrist ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cells", [14, 112, 224])
def test_a_map_is_laid_back_where_it_was_on_the_film(cells):
    here = fit_square(300, 400, 224, WristRegion(210, 140, 150, angle=4))
    there = fit_square(300, 400, 224, WristRegion(220, 133, 160, angle=-3))
    # The same spot of the film in both squares.
    (x, y), (x2, y2) = (fit.matrix @ [200.0, 150.0, 1.0] for fit in (here, there))
    heat = cv2.resize(blob(224, y2, x2, 20.0), (cells, cells), interpolation=cv2.INTER_AREA)
    back, covered = lay_back(heat, there, here)
    assert back.shape == covered.shape == (GRID, GRID)
    row, column = np.unravel_index(back.argmax(), back.shape)
    assert abs((row + 0.5) * 224 / GRID - 0.5 - y) <= 224 / GRID + 112 / cells
    assert abs((column + 0.5) * 224 / GRID - 0.5 - x) <= 224 / GRID + 112 / cells
    assert likeness(back, blob(224, y, x, 20.0 * 160 / 150), covered) > 0.97
    assert 0.7 < covered.mean() < 1  # a turned square leaves corners out


def test_a_square_laid_on_itself_is_itself():
    fit = fit_square(90, 70, 224, None)
    for cells in (7, 14, 56, 224):
        heat = np.random.default_rng(cells).random((cells, cells)).astype(np.float32)
        back, covered = lay_back(heat, fit, fit)
        assert likeness(heat, back, covered) > 0.995, cells
        assert covered[GRID // cells : -GRID // cells or None].any()


def test_a_square_of_a_stretched_film_is_laid_back_where_it_was():
    here = fit_square(90, 180, 224, None, "stretch")
    there = fit_square(90, 180, 224, WristRegion(94, 45.5, 180, 5), "stretch")
    (x, y), (x2, y2) = (fit.matrix @ [120.0, 40.0, 1.0] for fit in (here, there))
    back, covered = lay_back(blob(224, y2, x2, 15.0), there, here)
    assert likeness(back, blob(224, y, x, 15.0), covered) > 0.99


def test_a_stretched_film_moves_as_far_along_both_sides(monkeypatch):
    seen = {}
    classifier = small_classifier()
    classifier.checkpoint = replace(classifier.checkpoint, fit="stretch")
    original = classifier.square
    monkeypatch.setattr(classifier, "square", lambda film, region: seen.setdefault(region, original(film, region)))
    wide = film_of(np.random.default_rng(0).random((60, 120)).astype(np.float32))
    check_map(classifier, wide, method="gradcam")
    whole = fit_square(60, 120, 32, None, "stretch")
    for place in seen:
        if place is not None and not place.angle:
            x, y = whole.matrix @ [place.x - 0.5, place.y - 0.5, 1]
            assert abs(x - 15.5) == pytest.approx(0.04 * 32 / 2**0.5)
            assert abs(y - 15.5) == pytest.approx(0.04 * 32 / 2**0.5)


def test_a_moved_map_of_a_stretched_film_is_laid_back_on_its_place():
    """Whatever lights up where the film is bright does so wherever the square lies; laid back it is the same map."""
    wide = np.zeros((100, 200), np.float32)
    wide[55:75, 80:120] = 1
    classifier = brightness_classifier()
    classifier.checkpoint = replace(classifier.checkpoint, fit="stretch")
    moved = check_map(classifier, film_of(wide), method="gradcam").moved
    assert min(moved.values()) > 0.9


def test_the_wrist_turns_and_moves_as_it_is_said(film, monkeypatch):
    """Where the middle of the left edge, and the middle, of what is read at first lie in what is read then."""
    seen = {}
    classifier = small_classifier()
    region = WristRegion(60, 45, 60)
    original = classifier.square
    monkeypatch.setattr(classifier, "square", lambda film, region: seen.setdefault(region, original(film, region)))
    check_map(classifier, film, method="gradcam", region=region)
    places = [place for place in seen if place is not None and place is not region]
    turned = [place for place in places if place.angle]
    assert [round(place.angle) for place in turned] == [-5, 5]
    top = fit_square(90, 120, 32, turned[0]).matrix @ [60, 15.5, 1]  # 30 above the middle: where the fingers are
    assert top[0] > 16.5, "turned right: the fingers go to the right"
    assert [(place.x, place.y) for place in places if not place.angle] == [
        pytest.approx((60 + step, 45 + step)) for step in (-2.4 / 2**0.5, 2.4 / 2**0.5)
    ], "a twenty-fifth of the square, aslant"


# --- taking away -----------------------------------------------------------------------------------------------------


def test_a_map_of_what_the_answer_hangs_on_tells_more_than_chance_and_edges():
    rng = np.random.default_rng(2)
    square = (0.3 + 0.05 * rng.random((64, 64))).astype(np.float32)
    square[:, 10:12] = 0.9  # an edge that means nothing
    square[40:44, 40:44] = 0.8  # what the answer hangs on

    def run(squares):
        return {"logit": 10 * (squares[:, 40:44, 40:44, 0].mean(axis=(1, 2), keepdims=False)[:, None] - 0.3)}

    found = measure_removal(run, square, blob(64, 41.5, 41.5, 3.0), edge_map(square), 1)
    assert found.deletion > 2 * max(found.random[0], found.edges[0], 0.5)
    assert found.insertion > 2 * max(found.random[1], found.edges[1], 0.5)
    against = measure_removal(run, square, blob(64, 41.5, 41.5, 3.0), edge_map(square), -1)
    assert against.deletion == pytest.approx(-found.deletion)
    elsewhere = measure_removal(run, square, blob(64, 20, 50, 3.0), edge_map(square), 1)
    assert elsewhere.deletion < found.deletion / 2


def test_an_empty_map_takes_its_places_from_all_over_the_square():
    """Not row by row from the top, as equal values are sorted."""
    square = np.random.default_rng(4).random((64, 64)).astype(np.float32)

    def run(squares):
        return {"logit": (squares[:, :16, :, 0] == square[:16]).mean(axis=(1, 2))[:, None]}

    found = measure_removal(run, square, np.zeros((64, 64)), edge_map(square), 1)
    assert found.deletion == pytest.approx(np.mean(REMOVED), abs=0.1)
    assert found.insertion == pytest.approx(np.mean(REMOVED), abs=0.1)


@pytest.mark.parametrize("level", [0.0, 0.9])
def test_places_without_an_order_are_taken_in_pieces_as_large_as_those_drawn_at_random(level):
    square = np.random.default_rng(4).random((64, 64)).astype(np.float32)
    heat = np.full((64, 64), level, np.float32)
    heat[:20, :20] = np.linspace(1, 2, 400).reshape(20, 20)
    seen = []

    def run(squares):
        seen.extend(np.asarray(squares)[..., 0] != square)
        return {"logit": np.zeros((len(squares), 1))}

    measure_removal(run, square, heat, edge_map(square), 1)
    taken = seen[2 + REMOVED.index(max(REMOVED))]  # after the whole square and the blurred one: the map's own order
    assert taken[:20, :20].all()
    assert taken.mean() == pytest.approx(max(REMOVED), abs=0.01)
    opened = cv2.morphologyEx(taken.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3)))
    assert (taken & (opened == 0)).mean() < 0.02, "no lone pixels"
    assert taken[40:].any(), "from all over the square"
    assert taken[20:40].mean() < 0.9


# --- stray heat ------------------------------------------------------------------------------------------------------


@pytest.fixture
def limb():
    """An arm of soft tissue with bones in it and a marker beside it, on a film that ends before the square does."""
    square = np.full((224, 224), 0.05, np.float32)
    square[:, 60:160] = 0.4
    square[:, 80:100] = square[:, 120:140] = 0.8
    square[20:40, 180:200] = 1.0
    square[:, 210:] = 0
    on_film = np.ones((224, 224), bool)
    on_film[:, 210:] = False
    return square, on_film


def test_the_limb_is_found_and_what_is_white_is_not_of_it(limb):
    square, on_film = limb
    found, bright = find_limb(square, on_film), find_bright(square)
    truth = np.zeros((224, 224), bool)
    truth[:, 60:160] = True
    assert (found & truth).sum() / (found & ~bright | truth).sum() > 0.9
    marker = np.zeros((224, 224), bool)
    marker[20:40, 180:200] = True
    np.testing.assert_array_equal(bright, marker)
    speck = square.copy()
    speck[100:102, 90:92] = 1.0
    np.testing.assert_array_equal(find_bright(speck), marker)


@pytest.mark.parametrize(
    ("row", "column", "outside", "bright"), [(110, 110, 0, 0), (110, 30, 1, 0), (30, 190, 0, 1), (110, 217, 1, 0)]
)
def test_heat_is_shared_out_between_limb_air_and_metal(limb, row, column, outside, bright):
    square, _ = limb
    film = fit_square(224, 210, 224, WristRegion(112, 112, 224))
    found = stray_heat(blob(224, row, column, 3.0), square, film)
    assert found == (pytest.approx(outside, abs=0.05), pytest.approx(bright, abs=0.05))


def test_without_heat_there_is_no_share(limb):
    assert np.isnan(stray_heat(np.zeros((7, 7)), limb[0], fit_square(224, 224, 224, None))).all()


def test_edges_of_bones_lie_inside_the_limb(limb):
    square, _ = limb
    square = square.copy()
    square[100:120, 85:95] = 1.0  # a screw in the bone
    film = fit_square(224, 210, 224, WristRegion(112, 112, 224))
    found = bone_edges(square, film)
    assert found.max() == 1
    columns = found[60]
    assert columns[[80, 100, 120, 140]].min() > 0.5, "both sides of both bones"
    assert not columns[:63].any(), "the skin is no edge of a bone"
    assert not columns[157:].any(), "nor are the marker and the film's own border"
    assert found[[0, 223]].max() > 0.5, "bones that run on beyond the square have edges up to its border"
    assert not found[97:123, 82:98].any(), "nor is metal"
    assert not bone_edges(np.full((224, 224), 0.5, np.float32), film).any()


# --- whole maps, and methods that are known to fail ------------------------------------------------------------------


def _library_scorecam(question):
    """tf-keras-vis on the one sigmoid unit: its weights are a softmax over one score, whatever the network says."""
    import keras
    from tf_keras_vis.scorecam import Scorecam

    model = question.passes.model
    probability = keras.Model(model.input, model.output["probability"])
    options = {"penultimate_layer": "features", "seek_penultimate_conv_layer": False, "normalize_cam": False}
    return Scorecam(probability)(lambda p: p[:, 0], question.square[..., None], **options)[0]


@pytest.fixture
def _failing_methods(monkeypatch):
    options = {"directed": False, "evidence": False, "quick": False}
    failing = {
        "edges": Method("Edges", "", "", lambda question: edge_map(question.square), **options),
        "library": Method("Library's Score-CAM", "", "", _library_scorecam, **options),
    }
    methods = MappingProxyType({**METHODS, **failing})
    for module in (explaining, checks, trust):
        monkeypatch.setattr(module, "METHODS", methods)


@pytest.fixture(scope="module")
def film():
    rng = np.random.default_rng(5)
    return film_of(cv2.GaussianBlur(rng.random((90, 120)), (0, 0), 6).clip(0.3, 0.7) * 2 - 0.5)


@pytest.mark.usefixtures("_failing_methods")
@pytest.mark.parametrize(("method", "all_of_it"), [("edges", True), ("library", False)])
def test_methods_that_do_not_follow_the_model_are_caught(film, method, all_of_it):
    classifier = small_classifier(seed=4)
    found = check_map(classifier, film, method=method)
    assert found.scrambled["head"] == pytest.approx(1, abs=1e-6)
    assert (found.scrambled["all"] == pytest.approx(1, abs=1e-6)) is all_of_it
    level, sentence = trust_sentence(found)
    assert level == "bad"
    assert sentence.startswith("Do not rely on this map")


def _edges_of_the_map(question):
    """Grad-CAM times edges: half of it does not look at the model."""
    size = question.square.shape[0]
    return edge_map(question.square) * (0.1 + cv2.resize(METHODS["gradcam"].ask(question), (size, size)))


@pytest.mark.usefixtures("_failing_methods")
def test_half_a_map_of_edges_is_caught_on_the_embedded_model_too(monkeypatch):
    options = {"directed": False, "evidence": False, "quick": False}
    failing = {"blend": Method("Blend", "", "", _edges_of_the_map, {"layer": None}, **options)}
    methods = MappingProxyType({**explaining.METHODS, **failing})
    for module in (explaining, checks, trust):
        monkeypatch.setattr(module, "METHODS", methods)
    monkeypatch.setattr(
        checks, "SHUFFLES", dict.fromkeys(checks.SHUFFLES, 1)
    )  # one of each tells, in a third of the time
    classifier = load_classifier(default_id(CHECKPOINTS), CHECKPOINTS)
    broken = simulate_film(3, size=224, positive=True, square=True)
    scrambled = ScrambledClassifier(classifier)
    found = check_map(classifier, film_of(broken.pixels), method="blend", scrambled=scrambled)
    assert trust_sentence(found)[0] == "bad"


def test_a_map_that_follows_the_model_is_told_from_one_that_does_not(film):
    classifier = small_classifier(seed=4)
    for method in ("gradcam", "smoothgrad"):
        more = {"samples": 4} if method == "smoothgrad" else {}
        found = check_map(classifier, film, method=method, **more)
        assert found.scrambled["all"] < trust.MUCH_ALIKE, method
        assert found.scrambled["head"] < trust.IGNORES, method
        assert (found.repeated == 1) is (method != "smoothgrad")
        assert method not in found.others
        assert set(found.moved) == {
            "turned left", "turned right", "shifted one way", "shifted the other", "made darker", "made brighter",
        }  # fmt: skip


def test_a_check_makes_as_many_maps_as_the_benchmark_counts(film, monkeypatch):
    """The map itself, six of the wrist moved or exposed, one by each quick method, and those of shuffled networks."""
    made = []
    real = checks.explain_square
    monkeypatch.setattr(checks, "explain_square", lambda *given, **asked: made.append(1) or real(*given, **asked))
    monkeypatch.setattr(checks, "quick_methods", lambda *_: ("gradcampp",))
    check_map(small_classifier(seed=4), film, method="gradcam")
    assert len(made) == 7 + 1 + sum(checks.SHUFFLES.values())


def test_a_map_is_not_compared_with_one_that_is_nearly_a_part_of_it(film):
    classifier = small_classifier(seed=4)
    assert "gradcampp" not in checks.quick_methods(classifier, "gradcam", "for")
    assert "gradcam" not in checks.quick_methods(classifier, "gradcampp", "for")
    assert {"gradcam", "gradcampp"} <= set(checks.quick_methods(classifier, "layercam", "for"))


def test_a_map_made_again_is_made_of_another_seed(film):
    classifier = small_classifier(seed=4)
    kernel, bias = classifier.model.get_layer("logit").get_weights()
    classifier.model.get_layer("logit").set_weights([300 * kernel, bias])  # scores apart, so that the groups count
    square = classifier.square(film)
    asked = {"method": "quickscorecam", "groups": 4}
    maps = {seed: explaining.explain_square(classifier, square, seed=seed, **asked)[0] for seed in (0, 1, 2**32 - 1)}
    found = check_map(classifier, film, **asked)
    assert found.repeated == pytest.approx(np.corrcoef(*(_cells(maps[seed]) for seed in (0, 1)))[0, 1], abs=1e-6)
    assert found.repeated < 0.9995, "chance decides how the channels are grouped"
    last = check_map(classifier, film, seed=2**32 - 1, **asked)
    assert last.repeated == pytest.approx(np.corrcoef(_cells(maps[2**32 - 1]), _cells(maps[0]))[0, 1], abs=1e-6)
    # As many groups as channels: nothing is left to chance.
    assert check_map(classifier, film, method="quickscorecam", groups=12).repeated == pytest.approx(1, abs=1e-6)


def _cells(heat):
    return cv2.resize(heat, (GRID, GRID), interpolation=cv2.INTER_LINEAR).astype(float).ravel()


def test_a_map_that_is_the_same_everywhere_marks_no_place(film):
    """The slope of a mean is the same for every pixel: the map follows the network, and shows nothing."""
    found = check_map(brightness_classifier(), film, method="smoothgrad", samples=2)
    assert found.flat
    assert found.peak > 0
    level, sentence = trust_sentence(found)
    assert level == "bad"
    assert "the same everywhere" in sentence


def test_a_network_that_looks_at_brightness_has_a_steady_map_where_the_film_is_bright():
    pixels = np.zeros((300, 420))
    pixels[180:230, 290:340] = 0.9
    told = []
    region = WristRegion(310, 205, 160)
    found = check_map(
        brightness_classifier(),
        film_of(pixels),
        method="Grad-CAM",
        region=region,
        progress=lambda done, total: told.append((done, total)),
    )
    assert found.method == "gradcam"
    assert found.stability > 0.9
    assert found.outside < 0.3
    assert set(found.others) == {"layercam", "location"}
    assert found.removal.deletion > found.removal.random[0]
    assert [done for done, _ in told] == list(range(1, told[-1][1] + 1))


class _Halves:
    """A scrambled network that draws a map only when it was shuffled with some seeds."""

    def __init__(self, drawing):
        self.lock, self.drawing, self.seeds = threading.Lock(), drawing, []

    def scramble(self, depth, seed):
        self.seeds.append(seed)


@pytest.mark.parametrize(
    ("drawing", "seeds", "expected"), [({0, 1, 2}, 3, 1.0), ({1, 4, 5}, 6, 1.0), (set(), 12, math.nan), ({7}, 12, 1.0)]
)
def test_an_empty_map_of_a_scrambled_network_says_nothing(monkeypatch, drawing, seeds, expected):
    heat = blob(32, 8, 9)
    scrambled = _Halves(drawing)

    def explain_square(network, square, **asked):
        draws = network.seeds[-1] in network.drawing
        return (heat, 1.0, {}) if draws else (np.zeros_like(heat), 0.0, {})

    monkeypatch.setattr(checks, "explain_square", explain_square)
    found = checks._scrambled_likeness(scrambled, heat, heat, "head", {})
    assert found == pytest.approx(expected, nan_ok=True)
    assert scrambled.seeds == list(range(seeds))


# --- in words --------------------------------------------------------------------------------------------------------

SOUND = Checks(
    method="gradcam",
    target="for",
    peak=2.0,
    repeated=1.0,
    moved={"turned left": 0.9, "turned right": 0.8, "made darker": 0.7, "made brighter": 0.9},
    others={"layercam": 0.6},
    scrambled={"head": 0.6, "deep": 0.3, "all": 0.1},
    removal=Removal(2.0, 1.0, (0.5, 0.2), (0.4, 0.6)),
    outside=0.1,
    bright=0.05,
)


@pytest.mark.parametrize(
    ("change", "level", "words"),
    [
        ({}, "good", "This map is stable and follows the model. It may still point beside the break"),
        ({"peak": 0.0}, "none", "nothing to check"),
        ({"peak": 0.0, "flat": True}, "none", "nothing to check"),
        ({"flat": True}, "bad", "the same everywhere"),
        ({"scrambled": {"head": 0.6, "deep": 0.3, "all": 0.6}}, "bad", "stays much like itself when the model is"),
        ({"scrambled": {"head": 0.6, "deep": 0.3, "all": 0.9}}, "bad", "hardly changes when the model is scrambled"),
        ({"scrambled": {"head": 0.6, "deep": 0.99, "all": 0.1}}, "bad", "hardly changes when the model is scrambled"),
        ({"scrambled": {"head": 0.99, "deep": 0.3, "all": 0.1}}, "bad", "layers that give the answer"),
        ({"moved": {"turned left": 0.6, "turned right": 0.7, "made darker": 0.9}}, "unsure", "turned by 5 degrees"),
        ({"moved": {"turned left": 0.9, "turned right": 0.9, "made darker": 0.1}}, "unsure", "made a fifth darker"),
        ({"scrambled": {"head": math.nan, "deep": math.nan, "all": math.nan}}, "unsure", "cannot be told"),
        ({"scrambled": {"head": 0.5, "deep": 0.2, "all": math.nan}}, "unsure", "cannot be told"),
        ({"scrambled": {"head": 0.5, "deep": math.nan, "all": 0.1}}, "unsure", "cannot be told"),
        ({"scrambled": {"head": math.nan, "deep": 0.2, "all": 0.1}}, "good", "stable"),
        ({"removal": Removal(-0.1, -0.5, (-0.2, 0.0), (-0.3, 0.0))}, "unsure", "places drawn at random"),
        ({"repeated": 0.5}, "unsure", "changes when it is made again"),
        ({"outside": 0.25, "bright": 0.1}, "unsure", "35% of its heat lies outside the limb"),
        ({"removal": Removal(0.3, 0.1, (0.5, 0.2), (0.4, 0.6))}, "unsure", "places drawn at random"),
        ({"removal": Removal(0.3, 0.7, (0.5, 0.2), (0.4, 0.6))}, "unsure", "taking it away costs no more"),
        ({"removal": Removal(-4.8, 0.7, (-2.6, 0.2), (-0.6, 0.6))}, "unsure", "taking it away costs no more"),
        (
            {"removal": Removal(0.6, 0.5, (0.5, 0.2), (0.4, 0.6))},
            "unsure",
            "alone it brings back no more of it",
        ),
        ({"scrambled": {"head": 0.95, "deep": 0.3, "all": 0.1}}, "unsure", "layers that give the answer are scrambled"),
        ({"scrambled": {"head": 0.5, "deep": 0.9, "all": 0.1}}, "unsure", "deeper half of the model is scrambled"),
        ({"others": {"layercam": 0.6, "location": 0.1}}, "unsure", "other methods mark other places"),
        ({"others": {}}, "good", "stable"),
    ],
)
def test_the_gravest_finding_makes_the_sentence(change, level, words):
    found = trust_sentence(replace(SOUND, **change))
    assert found[0] == level
    assert words in found[1]
    assert found[1].endswith(".")


def test_the_numbers_behind_the_sentence_are_all_told():
    rows = {name: value for name, value, _ in check_rows(SOUND)}
    assert len(rows) == len(check_rows(SOUND))
    assert rows["Made again"] == 1.0
    again = {key: check_rows(replace(SOUND, method=key))[0][2] for key in ("gradcam", "smoothgrad", "quickscorecam")}
    assert "left to chance" in again["gradcam"], "there it is 1 whatever the map is worth"
    assert again["smoothgrad"] == again["quickscorecam"] == "likeness to the map of another seed"
    assert rows["Turned left"] == 0.9
    assert rows["LayerCAM"] == 0.6
    assert rows["Whole network scrambled"] == 0.1
    assert [rows[name] for name in ("Marked places taken away", "Random places taken away", "Edges alone")] == [
        2,
        0.5,
        0.6,
    ]
    assert rows["Outside the limb"] == 0.1
    assert SOUND.steadiness("turned") == pytest.approx(0.85)
    assert SOUND.agreement == 0.6
    assert SOUND.unsteadiest == ("made", pytest.approx(0.8))
    assert SOUND.stability == pytest.approx(0.8)
