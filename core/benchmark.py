"""``python -m core.benchmark``: how long the parts take here, each beside the plain way to do the same, in one run.

The two ways take turns on the same network and the same film, so that whatever else the machine does hits both; what
is reported is the median of each. The film is simulated, and with no checkpoint at hand the network has random weights:
neither changes the time.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from core.errors import ScaphoidError
from core.values import Checkpoint, Radiograph, Scores, WristRegion

if TYPE_CHECKING:
    from core.classifier import Classifier
    from core.wrist import WristFinder

FILM_SIZE = 1024
SMOOTHGRAD_SAMPLES = 20
RANDOM_BACKBONE = "efficientnetlite0"
METRICS_STUDIES, MANY_STUDIES = 10_000, 200_000
FLOOR_METHODS = ("gradcam", "layercam", "smoothgrad", "scorecam")
MEMORY_METHODS = ("layercam", "gradcam", "gradcampp", "smoothgrad", "quickscorecam", "scorecam", "check")
# Windows does not tell a process the most it has held.
MEMORY_SIZES = () if sys.platform == "win32" else (224, 320)
MEMORY_STUDIES = () if sys.platform == "win32" else (50_000, MANY_STUDIES)
INPUTS_BACKBONE = "efficientnetb0"
TRAINING_BACKBONE, TRAINING_SIZE, TRAINING_FILMS = "densenet169", 128, 32
INDEXED_FILMS, FILMS_A_STUDY = 40_000, 3
PHANTOM_STUDIES, PHANTOM_SIZE, LARGE_PHANTOM_SIZE = 40, 224, 512


@dataclass(frozen=True, eq=False)
class Row:
    """One line of the table.

    Attributes
    ----------
    name : str
    ours, rival : float
        Median times, or most memory, in `unit`.
    rival_name : str
    ratio : float
        rival / ours: how many times as fast ours is.
    unit : str
    n : int
        How often ours was timed.
    checkpoint : str
        Id of what was timed.
    """

    name: str
    ours: float
    rival: float
    rival_name: str
    ratio: float
    unit: str
    n: int
    checkpoint: str


@dataclass(frozen=True, eq=False)
class Subject:
    """What all rows are timed on: one classifier and one film, as a file and read."""

    classifier: Classifier
    finder: WristFinder | None
    film: bytes
    radiograph: Radiograph
    region: WristRegion | None

    @property
    def square(self) -> np.ndarray:
        """What the network reads of the film at the first look, float32, shape (1, size, size, 1)."""
        return self.squares(self.radiograph, self.region)[:1]

    def squares(self, radiograph: Radiograph, region: WristRegion | None) -> np.ndarray:
        """Return what the network reads of a film at all of its looks, float32, shape (looks, size, size, 1)."""
        from core.classifier import LOOKS

        looks = LOOKS[: self.classifier.checkpoint.looks]
        return np.stack([self.classifier.square(radiograph, region, look) for look in looks])[..., None]


def measure(
    ours: Callable[[], Any],
    rival: Callable[[], Any],
    repeat: int,
    *,
    rival_repeat: int | None = None,
    warm: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float]:
    """Time two ways of doing the same, taking turns.

    Parameters
    ----------
    ours, rival : callable
    repeat : int
        How often ours is timed.
    rival_repeat : int, optional
        How often the rival is timed, at most `repeat`; default as often.
    warm : bool
        Whether the rival has one turn that is not timed; ours always has one.
    clock : callable
        Seconds.

    Returns
    -------
    ours, rival : float
        Medians in seconds.
    """
    ours()
    if warm:
        rival()
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeat):
        for way, taken in zip((ours, rival), times, strict=True):
            if way is rival and rival_repeat is not None and turn >= rival_repeat:
                continue
            start = clock()
            way()
            taken.append(clock() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def time_predict(subject: Subject, repeat: int, on_batch: bool = False) -> Row:
    """Time the way from a film in memory to its probability.

    `on_batch`: beside the network alone, compiled and given squares that are cut out already, which no way from a film
    can beat; otherwise beside the usual call, which sets up a pipeline for its data each time.
    """
    classifier, model = subject.classifier, subject.classifier.model
    squares = subject.squares(subject.radiograph, subject.region)
    rival, name = partial(model.predict, squares, verbose=0), "keras.Model.predict"
    if on_batch:
        rival, name = partial(model.predict_on_batch, squares), "keras.Model.predict_on_batch"
    times = measure(lambda: classifier.predict([subject.radiograph], [subject.region]), rival, repeat)
    return _row("film to probability", times, name, repeat, subject)


def time_film(subject: Subject, repeat: int) -> Row:
    """Time the way from a file's bytes to probability and heat map on the film, the wrist found in between."""
    from core.explain import explain
    from core.radiographs import read_radiograph

    classifier, rival_heat = subject.classifier, _library_gradcam(subject)

    def read() -> tuple[Radiograph, WristRegion | None]:
        radiograph = read_radiograph(subject.film)
        return radiograph, subject.finder.find(radiograph) if subject.finder else None

    def ours() -> None:
        radiograph, region = read()
        classifier.predict([radiograph], [region])
        explain(classifier, radiograph, region=region)

    def rival() -> None:
        squares = subject.squares(*read())
        classifier.model.predict(squares, verbose=0)
        rival_heat(squares[:1])

    times = measure(ours, rival, repeat)
    return _row("file to probability and Grad-CAM", times, "keras.Model.predict, tf-keras-vis", repeat, subject)


def time_gradcam(subject: Subject, repeat: int) -> Row:
    """Time Grad-CAM of a film in memory."""
    rival_heat, square = _library_gradcam(subject), subject.square
    times = measure(lambda: _explain(subject, "gradcam"), lambda: rival_heat(square), repeat)
    return _row("Grad-CAM", times, "tf-keras-vis", repeat, subject)


def time_smoothgrad(subject: Subject, repeat: int) -> Row:
    """Time SmoothGrad of a film in memory."""
    from tf_keras_vis.saliency import Saliency

    samples, saliency, square = SMOOTHGRAD_SAMPLES, Saliency(_logit_model(subject)), subject.square
    times = measure(
        lambda: _explain(subject, "smoothgrad", samples=samples),
        lambda: saliency(_score, square, smooth_samples=samples),
        repeat,
        rival_repeat=2,
    )
    return _row(f"SmoothGrad, {samples} samples", times, "tf-keras-vis", repeat, subject)


def time_scorecam(subject: Subject, repeat: int) -> Row:
    """Time Score-CAM of a film in memory over all channels; takes minutes."""
    from tf_keras_vis.scorecam import Scorecam

    scorecam, layer = Scorecam(_logit_model(subject)), subject.classifier.checkpoint.feature_layer
    square = subject.square
    repeat = min(repeat, 2)
    times = measure(
        lambda: _explain(subject, "scorecam"),
        lambda: scorecam(_score, square, penultimate_layer=layer, seek_penultimate_conv_layer=False),
        repeat,
        rival_repeat=1,
        warm=False,
    )
    return _row("Score-CAM, all channels", times, "tf-keras-vis", repeat, subject)


def time_quick_scorecam(subject: Subject, repeat: int) -> Row:
    """Time the quick Score-CAM beside our own over all channels; takes a minute or more."""
    times = measure(
        lambda: _explain(subject, "quickscorecam"),
        lambda: _explain(subject, "scorecam"),
        repeat,
        rival_repeat=1,
        warm=False,
    )
    return _row("Quick Score-CAM", times, "Score-CAM over all channels", repeat, subject)


def time_layercam(subject: Subject, repeat: int) -> Row:
    """Time LayerCAM of three depths beside the library's, one depth after the other."""
    from tf_keras_vis.layercam import Layercam

    layercam, layers, square = Layercam(_logit_model(subject)), _fused_layers(subject), subject.square

    def rival() -> None:
        for layer in layers:
            layercam(_score, square, penultimate_layer=layer, seek_penultimate_conv_layer=False)

    times = measure(lambda: _explain(subject, "layercam", layers=layers), rival, repeat)
    return _row("LayerCAM, three depths", times, "tf-keras-vis", repeat, subject)


def time_check(subject: Subject, repeat: int) -> Row:
    """Time the check of how far a film's Grad-CAM can be trusted, beside as many of the library's maps as it makes."""
    from core.explain.checks import SHUFFLES, check_map, quick_methods
    from core.explain.scrambled import ScrambledClassifier

    rival_heat, square = _library_gradcam(subject), subject.square
    scrambled = ScrambledClassifier(subject.classifier)
    maps = 7 + len(quick_methods(subject.classifier, "gradcam", "for")) + sum(SHUFFLES.values())

    def ours() -> None:
        film, region = subject.radiograph, subject.region
        check_map(subject.classifier, film, method="gradcam", region=region, scrambled=scrambled)

    def rival() -> None:
        for _ in range(maps):
            rival_heat(square)

    times = measure(ours, rival, repeat, rival_repeat=2, warm=False)
    return _row("Grad-CAM checked", times, f"{maps} maps of tf-keras-vis", repeat, subject)


def time_floor(subject: Subject, repeat: int, method: str) -> Row:
    """Time a method beside the bare passes through the network that it needs, all on arrays that are there already.

    The ratio is the share of the time that no cleverer arithmetic around the passes could save.
    """
    from core.explain import METHODS

    asked = {"smoothgrad": {"samples": SMOOTHGRAD_SAMPLES}, "layercam": {"layers": _fused_layers(subject)}}
    repeat = min(repeat, 2) if method == "scorecam" else repeat
    times = measure(lambda: _explain(subject, method, **asked.get(method, {})), _bare_passes(subject, method), repeat)
    return _row(f"{METHODS[method].title} and its floor", times, "the bare passes it needs", repeat, subject)


def _bare_passes(subject: Subject, method: str) -> Callable[[], None]:
    from core.explain import FORWARD_BATCH, backward_batch
    from core.explain.passes import passes_of

    passes, run, square = passes_of(subject.classifier), subject.classifier.run, subject.square[0, ..., 0]
    layer = subject.classifier.checkpoint.feature_layer
    if method == "gradcam":
        return lambda: passes.features(square, [layer])
    if method == "layercam":
        layers = (*_fused_layers(subject), layer)
        return lambda: passes.features(square, layers)
    if method == "smoothgrad":
        batches = _batches(square, SMOOTHGRAD_SAMPLES, backward_batch(square.shape[0]))
        return lambda: [passes.input_gradients(batch) for batch in batches]
    ((features, _),) = passes.features(square, [layer])
    batches = _batches(square, int((np.ptp(features, axis=(0, 1)) > 0).sum()), FORWARD_BATCH)
    return lambda: (passes.features(square, [layer]), [run(batch[..., None]) for batch in batches])


def _batches(square: np.ndarray, number: int, most: int) -> list[np.ndarray]:
    return [np.repeat(square[None], min(most, number - start), axis=0) for start in range(0, number, most)]


def measure_memory(subject: Subject, repeat: int, size: int) -> Row:
    """Measure the most memory that a process of its own takes to make a map, or to check one, by what takes most.

    The network has random weights at the size, on the checkpoint's backbone; the rival only reads the film with it.
    """
    backbone = subject.classifier.checkpoint.backbone
    # A process for each: what one has taken it hardly gives back.
    ours = max(_alone(_peak_memory, backbone, size, (method,)) for method in MEMORY_METHODS)
    rival = _alone(_peak_memory, backbone, size, ())
    return replace(
        _row(f"most memory of a map, {size} px", (ours, rival), "reading the film alone", 1, subject),
        unit="GB",
        checkpoint=f"{backbone}, untrained",
    )


def _alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _peak_memory(backbone: str, size: int, methods: Sequence[str]) -> float:
    """Read a film and explain it by each method, or check a Grad-CAM; return the most this process has held, in GB."""
    from core.explain import explain
    from core.explain.checks import check_map
    from core.explain.scrambled import ScrambledClassifier
    from core.radiographs import read_radiograph

    classifier, radiograph = random_classifier(size, backbone), read_radiograph(simulate_png(FILM_SIZE))
    classifier.predict([radiograph])
    for method in methods:
        if method == "check":
            check_map(classifier, radiograph, method="gradcam", scrambled=ScrambledClassifier(classifier))
        else:
            explain(classifier, radiograph, method=method)
    return most_held()


def most_held() -> float:
    """Return the most memory that this process has held so far, in GB."""
    try:
        # What getrusage tells on Linux a child inherits from its parent, even where it then runs something else.
        with open("/proc/self/status", encoding="ascii") as status:
            return next(float(line.split()[1]) / 1e6 for line in status if line.startswith("VmHWM"))
    except FileNotFoundError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9


def time_training(subject: Subject, repeat: int) -> Row:
    """Time one step of training a DenseNet169 with random weights, whatever the checkpoint; takes minutes."""
    import keras

    from core.backbones import build_classifier
    from core.train.norms import fuse_norms
    from core.train.updates import make_adamw

    films = np.random.default_rng(0).random((TRAINING_FILMS, TRAINING_SIZE, TRAINING_SIZE, 1), np.float32)
    labels = np.arange(TRAINING_FILMS, dtype=np.float32)[:, None] % 2

    def prepare(fused: bool) -> Callable[[], Any]:
        model = build_classifier(TRAINING_BACKBONE, input_size=TRAINING_SIZE)
        if fused:
            fuse_norms(model)
        trained = keras.Model(model.input, model.output["logit"])
        optimizer = make_adamw() if fused else keras.optimizers.AdamW()
        trained.compile(optimizer, keras.losses.BinaryCrossentropy(from_logits=True))
        return lambda: trained.train_on_batch(films, labels)

    repeat = min(repeat, 5)
    times = measure(prepare(fused=True), prepare(fused=False), repeat)
    name = f"training step, {TRAINING_FILMS} films of {TRAINING_SIZE} px"
    return replace(
        _row(name, times, "Keras' own layers and optimizer", repeat, subject),
        checkpoint=f"{TRAINING_BACKBONE}, untrained",
    )


def time_inputs(subject: Subject, repeat: int) -> Row:
    """Time a batch being drawn in one thread as the preset ``scaphoid`` does, beside the step that it is for.

    The step is one of EfficientNetB0 with random weights, whatever the checkpoint. From a ratio of 1 on, films are
    there before they are needed; in an epoch threads draw them while the network computes.
    """
    import keras

    from core.backbones import build_classifier
    from core.train.batches import FRACTURE_MARGIN, FractureSampler
    from core.train.presets import PRESETS, option

    settings = replace(PRESETS["scaphoid"], backbone=INPUTS_BACKBONE)
    sampler = FractureSampler(
        KeptFilms(round(settings.input_size * FRACTURE_MARGIN), FRACTURE_MARGIN, settings.batch_size),
        input_size=settings.input_size,
        batch_size=settings.batch_size,
        seed=0,
        location=True,
        whole=False,
        textures=float(option(settings, "textures")),
    )
    films, targets = sampler.batch(0, 0)
    model = build_classifier(INPUTS_BACKBONE, input_size=settings.input_size)
    trained = keras.Model(model.input, model.output["logit"])
    trained.compile(keras.optimizers.AdamW(), keras.losses.BinaryCrossentropy(from_logits=True))
    repeat = min(repeat, 5)
    step = partial(trained.train_on_batch, films, targets["logit"])
    times = measure(partial(sampler.batch, 0, 0), step, repeat)
    name = f"{settings.batch_size} films drawn for training, {settings.input_size} px"
    return replace(
        _row(name, times, "the step they are for", repeat, subject), checkpoint=f"{INPUTS_BACKBONE}, untrained"
    )


def time_index(subject: Subject, repeat: int) -> Row:
    """Time how a folder of 40,000 films in the layout of MURA is looked through, beside a look at each film's header.

    The films are one small film under as many names, or as many copies where the disk knows no second names.
    """
    import os
    import shutil
    import tempfile
    from pathlib import Path

    from PIL import Image

    from core.datasets import index_dataset

    with tempfile.TemporaryDirectory() as folder:
        first, paths = Path(folder) / "film.png", []
        first.write_bytes(simulate_png(64))
        for number in range(INDEXED_FILMS):
            study, film = divmod(number, FILMS_A_STUDY)
            place = Path(folder) / f"train/XR_WRIST/patient{study:05d}/study1_{('negative', 'positive')[study % 2]}"
            place.mkdir(parents=True, exist_ok=True)
            paths.append(place / f"image{film + 1}.png")
            try:
                os.link(first, paths[-1])
            except OSError:
                shutil.copyfile(first, paths[-1])
        first.unlink()

        def rival() -> None:
            for path in paths:
                with Image.open(path) as film:
                    film.size  # noqa: B018 (what is read to know it is the work)

        times = measure(lambda: index_dataset(folder), rival, min(repeat, 3), rival_repeat=1, warm=False)
    row = _row(f"{INDEXED_FILMS:,} films indexed", times, "Pillow opening each", min(repeat, 3), subject)
    return replace(row, checkpoint="layout of MURA")


def time_phantoms(subject: Subject, repeat: int) -> Row:
    """Time a simulated film on one core, the mean over those of some studies, beside the same film made larger."""
    times = _alone(_phantom_times, repeat)
    return replace(
        _row(f"simulated film, {PHANTOM_SIZE} px", times, f"{LARGE_PHANTOM_SIZE} px", repeat, subject),
        checkpoint="one core",
    )


def _phantom_times(repeat: int) -> tuple[float, float]:
    """Return the seconds that a film takes to simulate, at either size."""
    import cv2

    from core.phantoms import simulate_study
    from core.phantoms.dataset import study_seed

    cv2.setNumThreads(1)
    seeds = [study_seed(0, number) for number in range(1, PHANTOM_STUDIES + 1)]

    def simulate(size: int) -> int:
        return sum(len(simulate_study(seed, size=size)) for seed in seeds)

    films = simulate(PHANTOM_SIZE)
    ours, rival = measure(
        partial(simulate, PHANTOM_SIZE), partial(simulate, LARGE_PHANTOM_SIZE), repeat, rival_repeat=1, warm=False
    )
    return ours / films, rival / films


class KeptFilms:
    """A few simulated films over and over, decoded, as training keeps them (see ``core.train.squares.Squares``)."""

    def __init__(self, size: int, margin: float, films: int) -> None:
        from pathlib import Path

        import cv2

        from core.phantoms import simulate_film
        from core.train.squares import Film

        region = WristRegion(size / 2, size / 2, size / margin)
        self.margin = margin
        self.films = [Film(Path(), str(index), str(index), index % 2, region=region) for index in range(films)]
        drawn = [simulate_film(seed, size=size, positive=bool(seed), square=True) for seed in (0, 1)]
        squares = [cv2.resize(np.uint8(255 * film.pixels), (size, size)) for film in drawn]
        mask = cv2.resize(np.uint8(255 * (drawn[1].mask > 0)), (size, size))
        self._squares = ((squares[0], None), (squares[1], mask))

    def __len__(self) -> int:
        """Return the number of films."""
        return len(self.films)

    def square(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return one film's pixels and mask, uint8 (size, size)."""
        return self._squares[index % 2]


def time_metrics(subject: Subject, repeat: int) -> Row:
    """Time all metrics of 10,000 studies with 2,000 resamples of their patients, whatever the checkpoint.

    The rival takes minutes, so a hundredth of its resamples is timed and counted a hundred times.
    """
    from core.metrics import RESAMPLES, evaluate_scores

    scores = random_scores(METRICS_STUDIES)
    ours, hundredth = measure(
        lambda: evaluate_scores(scores, 0.5), lambda: _loop_over_library(scores, RESAMPLES // 100), min(repeat, 5)
    )
    name = f"all metrics, {METRICS_STUDIES:,} studies"
    return replace(
        _row(name, (ours, 100 * hundredth), "a loop over scikit-learn", repeat, subject),
        checkpoint=f"{RESAMPLES:,} resamples",
    )


def measure_metrics_memory(subject: Subject, repeat: int, studies: int) -> Row:
    """Measure the most memory that a process of its own takes to measure many studies, beside 10,000 of them."""
    ours, rival = (_alone(_metrics_memory, number) for number in (studies, METRICS_STUDIES))
    name = f"most memory of all metrics, {studies:,} studies"
    return replace(
        _row(name, (ours, rival), f"{METRICS_STUDIES:,} studies", 1, subject), unit="GB", checkpoint="2,000 resamples"
    )


def _metrics_memory(studies: int) -> float:
    from core.metrics import evaluate_scores

    evaluate_scores(random_scores(studies), 0.5)
    return most_held()


def time_threshold(subject: Subject, repeat: int, studies: int = METRICS_STUDIES) -> Row:
    """Time what the page of one threshold does when it is moved: every rate with its interval, and every figure.

    Figures of what does not move are drawn once, and their line or mark is moved. The rival resamples the patients anew
    for the numbers alone.
    """
    from core import figures
    from core.figures.moving import move_line, move_point
    from core.measured import called_studies, look_at, measure_model, place_on_roc
    from core.metrics import evaluate_scores, net_benefit, roc_band, roc_curve, sweep_thresholds

    model = measure_model("random", "random", random_scores(studies))
    curve, benefit = (
        figures.Shown("random", figures.INK, roc_curve(model.scores), roc_band(model.resamples), (0, 0)),
        figures.Shown("random", figures.INK, net_benefit(model.resamples, prevalence=0.2)),
    )
    rates = figures.rates_figure(sweep_thresholds(model.resamples), 0.5)
    lined = (rates, figures.histogram_figure(model.scores, 0.5), figures.benefit_figure([benefit], 0.5))
    roc = figures.roc_figure([curve])
    thresholds = itertools.cycle(np.linspace(0.2, 0.8, 7).tolist())

    def ours() -> None:
        at = next(thresholds)
        seen = look_at(model, at, 0.2)
        called_studies(model.scores, at, ("fn", "fp"), 200)
        for figure in (
            *(move_line(each, at) for each in lined),
            move_point(roc, place_on_roc(seen.evaluation)),
            figures.confusion_figure(seen.evaluation.confusion),
            figures.thousand_figure(seen.thousand),
        ):
            figure.to_json()

    times = measure(ours, lambda: evaluate_scores(model.scores, next(thresholds)), repeat, rival_repeat=min(repeat, 3))
    name = f"threshold moved, {studies:,} studies"
    return replace(_row(name, times, "resampling again", repeat, subject), checkpoint="2,000 resamples")


def time_threshold_large(subject: Subject, repeat: int) -> Row:
    """Time the same with twenty times as many studies; takes a minute."""
    return time_threshold(subject, repeat, MANY_STUDIES)


def time_page(subject: Subject, repeat: int, studies: int | None = None) -> Row:
    """Time the server when the slider on the page Threshold is moved: the whole page, run as a browser makes it run.

    By default as many studies as for the other rows. The rival resamples the patients anew for the numbers alone.

    Raises
    ------
    ScaphoidError
        The page failed.
    """
    studies = studies or METRICS_STUDIES
    # By its name, in a process of its own: what is a screen is never imported here.
    command = [sys.executable, "-m", "pages.parts.timed", str(studies), str(repeat)]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)  # noqa: S603 (a module of our own)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ScaphoidError(f"The page Threshold was expected to run, but it failed: {why}")
    name = f"slider moved on the page, {studies:,} studies"
    times = tuple(json.loads(done.stdout.splitlines()[-1]))
    return replace(_row(name, times, "resampling again", repeat, subject), checkpoint="2,000 resamples")


def time_page_large(subject: Subject, repeat: int) -> Row:
    """Time the same with twenty times as many studies; takes a minute."""
    return time_page(subject, repeat, MANY_STUDIES)


ROWS: Mapping[str, Callable[[Subject, int], Row]] = MappingProxyType(
    {
        "predict": time_predict,
        "predict-batch": partial(time_predict, on_batch=True),
        "film": time_film,
        "gradcam": time_gradcam,
        "layercam": time_layercam,
        "smoothgrad": time_smoothgrad,
        "scorecam": time_scorecam,
        "quickscorecam": time_quick_scorecam,
        "check": time_check,
        **{f"{method}-floor": partial(time_floor, method=method) for method in FLOOR_METHODS},
        **{f"memory-{size}": partial(measure_memory, size=size) for size in MEMORY_SIZES},
        "metrics": time_metrics,
        **{f"memory-metrics-{studies}": partial(measure_metrics_memory, studies=studies) for studies in MEMORY_STUDIES},
        "threshold": time_threshold,
        "threshold-large": time_threshold_large,
        "page": time_page,
        "page-large": time_page_large,
        "train": time_training,
        "inputs": time_inputs,
        "index": time_index,
        "phantoms": time_phantoms,
    }
)
SLOW_ROWS = (
    "scorecam",
    "quickscorecam",
    "check",
    "scorecam-floor",
    *(f"memory-{size}" for size in MEMORY_SIZES),
    *(f"memory-metrics-{studies}" for studies in MEMORY_STUDIES),
    "threshold-large",
    "page-large",
    "train",
    "inputs",
    "index",
    "phantoms",
)


def _row(name: str, times: tuple[float, float], rival_name: str, n: int, subject: Subject) -> Row:
    ours, rival = times
    return Row(name, ours, rival, rival_name, rival / ours, "s", n, subject.classifier.checkpoint.id)


def _explain(subject: Subject, method: str, **settings: Any) -> None:
    from core.explain import explain

    explain(subject.classifier, subject.radiograph, method=method, region=subject.region, **settings)


def _fused_layers(subject: Subject) -> tuple[str, ...]:
    from core.backbones import find_backbone

    return find_backbone(subject.classifier.checkpoint.backbone).stages[:3]


def _score(logit: Any) -> Any:
    return logit


def _logit_model(subject: Subject) -> Any:
    from core.explain.passes import passes_of

    return passes_of(subject.classifier).logit_model()


def _library_gradcam(subject: Subject) -> Callable[[np.ndarray], np.ndarray]:
    from tf_keras_vis.gradcam import Gradcam

    gradcam, layer = Gradcam(_logit_model(subject)), subject.classifier.checkpoint.feature_layer
    return lambda square: gradcam(_score, square, penultimate_layer=layer, seek_penultimate_conv_layer=False)


def random_scores(studies: int) -> Scores:
    """Return random scores of as many studies, of not quite as many patients."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, studies)
    probabilities = 1 / (1 + np.exp(-rng.normal(2 * labels - 1, 1.5)))
    patients = rng.integers(0, studies * 9 // 10, studies)
    return Scores(
        "random",
        "test",
        tuple(f"study{number}" for number in range(studies)),
        tuple(f"patient{number}" for number in patients),
        labels,
        probabilities,
    )


def _loop_over_library(scores: Scores, resamples: int) -> list[list[float]]:
    """Resample the patients and measure each resample with scikit-learn, one metric after the other."""
    from sklearn import metrics as library

    patients, codes = np.unique(np.array(scores.patient_ids), return_inverse=True)
    rng, found = np.random.default_rng(0), []
    for _ in range(resamples):
        times = np.bincount(rng.integers(0, patients.size, patients.size), minlength=patients.size)[codes]
        labels, probabilities = np.repeat(scores.labels, times), np.repeat(scores.probabilities, times)
        called = probabilities >= 0.5
        of_probabilities = ("roc_auc_score", "average_precision_score", "brier_score_loss", "log_loss")
        of_calls = ("recall_score", "precision_score", "f1_score", "accuracy_score", "balanced_accuracy_score")
        of_calls += ("cohen_kappa_score", "matthews_corrcoef")
        row = [getattr(library, name)(labels, probabilities) for name in of_probabilities]
        row += [getattr(library, name)(labels, called) for name in of_calls]
        row += [score(labels, called, pos_label=0) for score in (library.recall_score, library.precision_score)]
        found.append(row)
    return found


def load_subject(checkpoint_id: str | None = None) -> Subject:
    """Load a checkpoint, the default one if no id is given, or random weights where there is none; simulate a film.

    Raises
    ------
    CheckpointError
        If the checkpoint is missing or broken.
    """
    from core.checkpoints import default_id
    from core.radiographs import read_radiograph
    from core.reading import open_reader

    if checkpoint_id is None and default_id() is None:
        _tell(f"No checkpoint is set as the default: timing {RANDOM_BACKBONE} with random weights.")
        classifier, finder = random_classifier(), None
    else:
        reader = open_reader(checkpoint_id)
        classifier, finder = reader.classifier, reader.finder
    film = simulate_png(FILM_SIZE)
    radiograph = read_radiograph(film)
    return Subject(classifier, finder, film, radiograph, finder.find(radiograph) if finder else None)


def random_classifier(input_size: int = 224, backbone: str = RANDOM_BACKBONE) -> Classifier:
    """Return an untrained classifier: as fast as a trained one, and as good as a coin."""
    from core.backbones import build_classifier, find_backbone, freeze
    from core.classifier import Classifier

    card = Checkpoint(
        id="random-weights",
        title="Random weights",
        task="fracture",
        backbone=backbone,
        feature_layer=find_backbone(backbone).feature_layer,
        input_size=input_size,
    )
    model = build_classifier(backbone, input_size=input_size)
    return Classifier(card, model, freeze(model))


def simulate_png(size: int) -> bytes:
    """Return a simulated film as a 16-bit PNG, its longer side `size` pixels."""
    import cv2

    from core.phantoms import simulate_film

    pixels = np.rint(simulate_film(1, size=size).pixels * 65535).astype(np.uint16)
    return cv2.imencode(".png", pixels)[1].tobytes()


def table(rows: Sequence[Row]) -> str:
    """Return the rows as lines of text."""
    lines = [f"{'':34}{'ours':>10}{'rival':>10}{'ratio':>8}   rival"]
    lines += [f"{r.name:34}{r.ours:8.3f} {r.unit}{r.rival:8.3f} {r.unit}{r.ratio:7.1f}x   {r.rival_name}" for r in rows]
    return "\n".join(lines)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m core.benchmark",
        description="Time the parts on this machine, each beside the plain way to do the same; ratio = rival / ours.",
    )
    parser.add_argument("--json", action="store_true", help="a JSON list of rows instead of a table")
    parser.add_argument("--repeat", type=_count, default=15, metavar="N", help="how often each is timed (default: 15)")
    parser.add_argument("--checkpoint", metavar="ID", help="checkpoint to time (default: the embedded one)")
    parser.add_argument("--rows", nargs="+", choices=ROWS, help="rows to time (default: all but the slow ones)")
    parser.add_argument("--slow", action="store_true", help=f"time the slow rows too: {', '.join(SLOW_ROWS)}; minutes")
    return parser


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise ValueError
    return count


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = _parser().parse_args(arguments)
    names = options.rows or [name for name in ROWS if options.slow or name not in SLOW_ROWS]
    rows = []
    try:
        subject = load_subject(options.checkpoint)
        for number, name in enumerate(names, start=1):
            _tell(f"{number}/{len(names)} {name} ...")
            with contextlib.redirect_stdout(sys.stderr):  # a rival's own progress bar must not land in the table
                rows.append(ROWS[name](subject, options.repeat))
    except ScaphoidError as error:
        _tell(str(error))
        return 1
    print(json.dumps([asdict(row) for row in rows], indent=1) if options.json else table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
