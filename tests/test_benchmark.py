"""core.benchmark: medians of taken turns by a clock of our own, the rows' arithmetic, the command line."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from core import benchmark
from core.backbones import freeze
from core.benchmark import ROWS, Row, Subject, main, measure, random_classifier, simulate_png, table
from core.classifier import Classifier
from core.errors import ScaphoidError
from core.explain.passes import passes_of
from core.radiographs import read_radiograph
from core.values import Checkpoint, WristRegion


class Turns:
    """Two ways whose every turn takes a time known beforehand, on a clock that only they move."""

    def __init__(self, ours, rival):
        self.now, self.log = 0.0, []
        self.ours, self.rival = self._way("ours", ours), self._way("rival", rival)

    def _way(self, name, seconds):
        left = iter(seconds)

        def turn():
            self.log.append(name)
            self.now += next(left)

        return turn

    def clock(self):
        return self.now


def test_medians_leave_out_the_first_turn_of_each():
    turns = Turns(ours=[100, 1, 9, 2], rival=[100, 30, 10, 20])
    assert measure(turns.ours, turns.rival, 3, clock=turns.clock) == (2, 20)
    assert turns.log == ["ours", "rival"] * 4


def test_a_slow_rival_is_timed_less_often_and_not_warmed():
    turns = Turns(ours=[100, 1, 3, 8], rival=[50])
    assert measure(turns.ours, turns.rival, 3, rival_repeat=1, warm=False, clock=turns.clock) == (3, 50)
    assert turns.log == ["ours", "ours", "rival", "ours", "ours"]


def test_the_table_shows_each_row_once():
    rows = [
        Row("Grad-CAM", 0.02, 0.5, "tf-keras-vis", 25.0, "s", 9, "some-id"),
        Row("Other", 1.0, 0.5, "x", 0.5, "s", 9, "some-id"),
    ]
    header, first, second = table(rows).splitlines()
    assert header.split() == ["ours", "rival", "ratio", "rival"]
    assert first.split() == ["Grad-CAM", "0.020", "s", "0.500", "s", "25.0x", "tf-keras-vis"]
    assert second.split()[-2:] == ["0.5x", "x"]


def test_the_simulated_film_is_a_16_bit_film():
    film = read_radiograph(simulate_png(160))
    assert film.source == "PNG, 16 bit"
    assert max(film.height, film.width) == 160
    assert film.pixels.std() > 0.05


def small_classifier():
    """A classifier in all but size: what is timed, and how it is told, does not depend on it."""
    import keras
    from keras import layers

    film = keras.Input((32, 32, 1))
    early = layers.Conv2D(3, 3, strides=2, name="early", activation="relu")(film)
    features = layers.Conv2D(4, 3, strides=2, name="features", activation="relu")(early)
    logit = layers.Dense(1, name="logit")(layers.GlobalAveragePooling2D()(features))
    model = keras.Model(film, {"logit": logit, "probability": layers.Activation("sigmoid", name="probability")(logit)})
    card = Checkpoint("small-1", "Small", "fracture", "efficientnetlite0", "features", 32)
    return Classifier(card, model, freeze(model))


@pytest.fixture(scope="module")
def subject():
    film = simulate_png(200)
    radiograph = read_radiograph(film)
    region = WristRegion(radiograph.width / 2, radiograph.height / 2, 120)

    class Finder:
        found = 0

        def find(self, radiograph):
            self.found += 1
            return region

    return Subject(small_classifier(), Finder(), film, radiograph, region)


def test_rows_time_what_they_say(subject, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "load_subject", lambda checkpoint_id: subject)
    monkeypatch.setattr(benchmark, "SMOOTHGRAD_SAMPLES", 2)
    monkeypatch.setattr(benchmark, "METRICS_STUDIES", 60)
    monkeypatch.setattr(benchmark, "_fused_layers", lambda _: ("early", "features"))
    usual = [name for name in ROWS if name not in benchmark.SLOW_ROWS]
    assert main(["--json", "--repeat", "1", "--rows", *usual, "quickscorecam"]) == 0
    output = capsys.readouterr()
    rows = json.loads(output.out)
    assert len(rows) == len(output.err.splitlines()) == len(usual) + 1 == 13
    for row in rows:
        assert set(row) == {"name", "ours", "rival", "rival_name", "ratio", "unit", "n", "checkpoint"}
        assert row["ratio"] == pytest.approx(row["rival"] / row["ours"])
        assert min(row["ours"], row["rival"]) > 0
        assert (row["unit"], row["n"]) == ("s", 1)
        of_studies = row["name"].endswith("studies")
        assert row["checkpoint"] == ("2,000 resamples" if of_studies else "small-1")
    assert subject.finder.found == 2 * (1 + 1)  # both ways of the "film" row: one turn to warm up, one timed
    assert subject.square.shape == (1, 32, 32, 1)


def test_films_are_drawn_for_training_as_training_draws_them(subject, monkeypatch):
    import keras

    seen = []

    def build(backbone, *, input_size):
        film = keras.Input((input_size, input_size, 1))
        logit = keras.layers.Dense(1)(keras.layers.GlobalAveragePooling2D()(film))
        model = keras.Model(film, {"logit": logit})
        seen.append((backbone, input_size))
        return model

    monkeypatch.setattr("core.backbones.build_classifier", build)
    row = benchmark.time_inputs(subject, 1)
    assert seen == [("efficientnetb0", 224)]
    assert row.name == "32 films drawn for training, 224 px"
    assert row.checkpoint == "efficientnetb0, untrained"
    kept = benchmark.KeptFilms(64, 1.25, 4)
    assert [film.label for film in kept.films] == [0, 1, 0, 1]
    assert (kept.square(0)[1], kept.films[0].region.side) == (None, 51.2)
    square, mask = kept.square(3)
    assert square.shape == mask.shape == (64, 64)
    assert square.std() > 10
    assert mask.any()


def test_the_rival_looks_as_often_as_we_do(subject):
    twice = replace(subject.classifier.checkpoint, looks=2)
    film = subject.radiograph
    classifier = Classifier(twice, subject.classifier.model, None)
    squares = Subject(classifier, None, b"", film, subject.region).squares(film, subject.region)
    np.testing.assert_array_equal(squares[0], subject.square[0])
    np.testing.assert_array_equal(squares[1], subject.square[0][:, ::-1])
    assert len(squares) == 2


@pytest.mark.parametrize("method", ["gradcam", "layercam", "smoothgrad", "scorecam"])
def test_the_floor_is_exactly_what_a_map_asks_of_the_network(subject, monkeypatch, method):
    def spy(name, real):
        def call(squares, *layers):
            asked.append((name, np.shape(squares), [tuple(each) for each in layers]))
            return real(squares, *layers)

        return call

    asked = []
    passes = passes_of(subject.classifier)
    monkeypatch.setattr(benchmark, "_fused_layers", lambda _: ("early", "features"))
    for owner, name in ((passes, "features"), (passes, "input_gradients"), (subject.classifier, "run")):
        monkeypatch.setattr(owner, name, spy(name, getattr(owner, name)))
    bare = benchmark._bare_passes(subject, method)
    asked.clear()
    bare()
    floor = asked.copy()
    asked.clear()
    options = {"layercam": {"layers": ("early", "features")}, "smoothgrad": {"samples": benchmark.SMOOTHGRAD_SAMPLES}}
    benchmark._explain(subject, method, **options.get(method, {}))
    assert floor
    assert floor == asked


def test_a_check_stands_beside_as_many_maps_as_it_makes(subject, monkeypatch):
    made = []
    monkeypatch.setattr("core.explain.checks.check_map", lambda *_, method, **__: made.append(method))
    monkeypatch.setattr("core.explain.scrambled.ScrambledClassifier", lambda classifier: None)
    monkeypatch.setattr("core.explain.checks.quick_methods", lambda *_: ("layercam", "location"))
    monkeypatch.setattr(benchmark, "_library_gradcam", lambda _: lambda square: made.append("theirs"))
    row = ROWS["check"](subject, 1)
    assert made == ["gradcam", "gradcam", *["theirs"] * 18]
    assert (row.name, row.rival_name) == ("Grad-CAM checked", "18 maps of tf-keras-vis")
    assert "check" in benchmark.SLOW_ROWS


def test_a_whole_folder_is_indexed_and_every_film_of_it_opened(subject, monkeypatch):
    import core.datasets

    monkeypatch.setattr(benchmark, "INDEXED_FILMS", 20)
    index_dataset, found = core.datasets.index_dataset, []
    monkeypatch.setattr("core.datasets.index_dataset", lambda folder: found.append(index_dataset(folder)))
    row = ROWS["index"](subject, 1)
    assert (row.name, row.rival_name, row.n) == ("20 films indexed", "Pillow opening each", 1)
    assert row.ours > 0
    assert [(len(index.paths), len(index.studies), index.problems) for index in found] == [(20, 7, ())] * 2
    assert {study.label for study in found[0].studies} == {0, 1}


def test_a_simulated_film_takes_the_mean_time_of_its_studies(subject, monkeypatch):
    monkeypatch.setattr(benchmark, "_alone", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(benchmark, "PHANTOM_STUDIES", 3)
    made = []

    def simulate_study(seed, *, size):
        made.append((seed, size))
        return [None] * (2 if len(made) % 3 else 4)

    clock = iter([0.0, 16.0, 20.0, 60.0])  # ours takes 16 s, the rival 40 s, for 2 + 2 + 4 films
    monkeypatch.setattr("core.phantoms.simulate_study", simulate_study)
    monkeypatch.setattr(benchmark, "measure", partial(benchmark.measure, clock=lambda: next(clock)))
    row = ROWS["phantoms"](subject, 1)
    assert (row.ours, row.rival, row.ratio) == (2.0, 5.0, 2.5)
    sizes = [size for _, size in made]
    assert sizes == [224] * 9 + [512] * 3, "counted, warmed and timed; then the larger ones"
    assert len({seed for seed, _ in made}) == 3


def test_memory_is_that_of_the_method_that_takes_most(subject, monkeypatch):
    asked = []

    def alone(function, backbone, size, methods):
        asked.append((backbone, size, methods))
        return function(backbone, size, methods) + (methods == ("gradcam",))

    monkeypatch.setattr(benchmark, "_alone", alone)
    monkeypatch.setattr(benchmark, "MEMORY_METHODS", ("gradcam", "quickscorecam"))
    monkeypatch.setattr(benchmark, "FILM_SIZE", 128)
    monkeypatch.setattr(benchmark, "random_classifier", lambda size, backbone: small_classifier())
    row = benchmark.measure_memory(subject, 3, 32)
    assert asked == [("efficientnetlite0", 32, methods) for methods in (("gradcam",), ("quickscorecam",), ())]
    assert (row.unit, row.name, row.n) == ("GB", "most memory of a map, 32 px", 1)
    assert 0.1 < row.rival < 20
    assert row.ours > 1


def test_memory_of_a_process_of_its_own_does_not_begin_with_its_parent_s():
    held = np.ones(200_000_000, np.uint8)
    grown = benchmark.most_held()
    assert grown > 0.2
    assert benchmark._alone(benchmark.most_held) < grown - 0.15
    assert held[-1]


def test_memory_of_many_studies_stands_beside_that_of_few(subject, monkeypatch):
    monkeypatch.setattr(benchmark, "_alone", lambda function, studies: (function.__name__, studies)[1] / 1e5)
    row = benchmark.measure_metrics_memory(subject, 1, 200_000)
    assert (row.ours, row.rival, row.unit) == (2.0, 0.1, "GB")
    assert (row.name, row.rival_name) == ("most memory of all metrics, 200,000 studies", "10,000 studies")
    sizes = {"memory-metrics-50000": 0.5, "memory-metrics-200000": 2.0}
    assert {name: ROWS[name](subject, 1).ours for name in ROWS if name.startswith("memory-metrics")} == sizes
    assert set(sizes) <= set(benchmark.SLOW_ROWS)


def test_a_page_that_fails_is_one_sentence(subject, monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark, "__file__", str(tmp_path / "core/benchmark.py"))  # where there are no pages
    with pytest.raises(ScaphoidError, match="No module named 'pages'"):
        benchmark.time_page(subject, 1, 60)
    assert "page-large" in benchmark.SLOW_ROWS


def test_the_rival_of_the_metrics_measures_the_same():
    """Nothing is quick that does less: as many estimates, and the same where no resampling is."""
    from core.metrics import ESTIMATES, evaluate_scores

    scores = benchmark.random_scores(200)
    (row,) = benchmark._loop_over_library(scores, 1)
    assert len(row) == 13
    assert len(ESTIMATES) > len(row)
    assert len(set(scores.patient_ids)) < 200
    auc = evaluate_scores(scores, 0.5, 200).auc
    assert auc.low - 0.05 < row[0] < auc.high + 0.05


def test_a_chosen_row_is_timed_alone(subject, monkeypatch, capsys):
    asked = []

    def load(checkpoint_id):
        asked.append(checkpoint_id)
        return subject

    monkeypatch.setattr(benchmark, "load_subject", load)
    assert main(["--rows", "predict", "--repeat", "1", "--checkpoint", "some-id"]) == 0
    assert asked == ["some-id"]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("film to probability")


def test_what_a_rival_prints_does_not_land_in_the_table(subject, monkeypatch, capsys):
    def chatty(subject, repeat):
        print("40/40 [====]")
        return Row("chatty", 1.0, 2.0, "x", 2.0, "s", repeat, "some-id")

    monkeypatch.setattr(benchmark, "load_subject", lambda checkpoint_id: subject)
    monkeypatch.setattr(benchmark, "ROWS", {"chatty": chatty})
    assert main(["--json", "--rows", "chatty", "--repeat", "3"]) == 0
    output = capsys.readouterr()
    assert [row["n"] for row in json.loads(output.out)] == [3]
    assert "40/40" in output.err


def test_without_a_checkpoint_random_weights_are_timed_and_said_to_be(monkeypatch, capsys):
    monkeypatch.setattr("core.checkpoints.default_id", lambda *_: None)
    monkeypatch.setattr(benchmark, "random_classifier", lambda: random_classifier(input_size=32))
    monkeypatch.setattr(benchmark, "FILM_SIZE", 120)
    loaded = benchmark.load_subject()
    assert "random weights" in capsys.readouterr().err
    assert loaded.classifier.checkpoint.id == "random-weights"
    (answer,) = loaded.classifier.predict([loaded.radiograph])
    assert 0 < answer.probability < 1
    assert (loaded.finder, loaded.region) == (None, None)
    np.testing.assert_array_equal(loaded.radiograph.pixels, read_radiograph(loaded.film).pixels)


@pytest.mark.slow
@pytest.mark.skipif(not benchmark.MEMORY_SIZES, reason="Windows does not tell the most that a process has held.")
@pytest.mark.parametrize("size", [224, 320])
@pytest.mark.parametrize("backbone", ["efficientnetlite0", "efficientnetb0", "resnet50", "densenet169"])
def test_no_map_and_no_check_takes_more_than_its_memory(backbone, size):
    for method in benchmark.MEMORY_METHODS:
        held = benchmark._alone(benchmark._peak_memory, backbone, size, (method,))
        print(f"{backbone}, {size} px, {method}: {held:.2f} GB")
        assert held < 1.5, method


def test_an_unknown_checkpoint_is_one_line_and_status_1(capsys):
    assert main(["--checkpoint", "no-such-checkpoint"]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) == 1


@pytest.mark.parametrize("wrong", [["--repeat", "0"], ["--rows", "everything"]])
def test_wrong_options_are_refused(wrong, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(wrong)
    assert "usage" in capsys.readouterr().err


def test_help_imports_no_tensorflow():
    code = (
        "import sys; from core.benchmark import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print(sorted({'tensorflow', 'keras', 'tf_keras_vis', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for row in ROWS:
        assert row in done.stdout
