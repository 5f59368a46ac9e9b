"""Where on a film a classifier saw evidence: one classifier and one radiograph to an :class:`Explanation`.

A method asks the network for passes (:mod:`core.explain.passes`) and makes a map of them
(:mod:`core.explain.heatmaps`); scaling and the way back to the film's own geometry are the same for all and stand in
:func:`explain`. All methods explain the logit, never the probability: the gradient of the logistic function vanishes as
the network grows sure, and a map made from it would be faintest where the answer is strongest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from core.backbones import find_backbone
from core.classifier import square_fit
from core.errors import ExplanationError
from core.explain.heatmaps import (
    OVERFLOWED,
    channel_masks,
    fuse_maps,
    grad_cam,
    grad_cam_plus_plus,
    group_channels,
    grow_location,
    layer_cam,
    scaled,
    score_cam,
    smooth_grad,
    upsample,
)
from core.explain.passes import Passes, passes_of
from core.radiographs import SquareFit
from core.values import Checkpoint, Explanation, Radiograph, WristRegion

Progress = Callable[[int, int], None]
TARGETS = ("for", "against")
MOST_SAMPLES = 500
MOST_SEED = 2**32 - 1
QUICK_GROUPS = 16
"""Chosen on films of ``core.appraise quickscorecam --seed 0``, so it is to be measured on those of other seeds: with 25
of them the map of as many groups correlated (Spearman, median) with that of all channels by 0.975 for scaphoid-b0-1, an
earlier model. Where the checkpoint sees no break it may be another map: the least was 0.28, and with another seed of
k-means there once was none. Twice as many groups, or several starts of k-means, did no better."""
LAYERCAM_BLUR = 3 / 224
"""Standard deviation that LayerCAM's maps are smoothed with, as a share of the square's side: about a millimetre."""
# What goes through the network together: more is hardly faster on a processor and only takes memory. With four squares
# of 320 pixels a way back through DenseNet169 took 1 GB, with one 0.4 GB.
FORWARD_BATCH = 8
BACKWARD_PIXELS = 2 * 224**2


@dataclass(frozen=True, eq=False)
class Question:
    """What a method is asked: one square, one side, and how.

    Attributes
    ----------
    passes : core.explain.passes.Passes
    run : Callable
        The classifier's own forward pass: squares (n, size, size, 1) to a dict of outputs with n rows each.
    square : numpy.ndarray
        float32, shape (size, size), range [0, 1]: what the network reads.
    sign : int
        1 for the positive label, -1 against it; the score is sign x logit.
    settings : Mapping
        The method's settings, all present.
    progress : Callable
        Told (done, total) as the work goes on.
    """

    passes: Passes
    run: Callable[[np.ndarray], Mapping[str, np.ndarray]]
    square: np.ndarray
    sign: int
    settings: Mapping[str, Any]
    progress: Progress


def backward_batch(size: int) -> int:
    """Return how many squares of `size` pixels a side go back through the network together."""
    return max(1, BACKWARD_PIXELS // size**2)


def _ask_grad_cam(question: Question) -> np.ndarray:
    ((features, gradients),) = question.passes.features(question.square, [question.settings["layer"]])
    return grad_cam(features, question.sign * gradients)


def _ask_layer_cam(question: Question) -> tuple[np.ndarray, float]:
    settings, size = question.settings, question.square.shape[0]
    *finer, (features, gradients) = question.passes.features(question.square, [*settings["layers"], settings["layer"]])
    maps = [layer_cam(each, question.sign * slope) for each, slope in finer]
    return fuse_maps(maps, size, LAYERCAM_BLUR * size), float(grad_cam(features, question.sign * gradients).max())


def _ask_score_cam(question: Question) -> np.ndarray:
    features = _live_features(question)
    return score_cam(features, _mask_scores(question, features))


def _ask_quick_score_cam(question: Question) -> np.ndarray:
    features = _live_features(question)
    groups, members = group_channels(features, question.settings["groups"], question.settings["seed"])
    return score_cam(features, _mask_scores(question, features[..., members])[groups])


def _live_features(question: Question) -> np.ndarray:
    """Return the feature map without the channels that are the same everywhere: they make no mask."""
    ((features, _),) = question.passes.features(question.square, [question.settings["layer"]])
    if not np.isfinite(features).all():  # such a channel would pass for one that is the same everywhere
        raise ExplanationError(OVERFLOWED)
    return features[..., np.ptp(features, axis=(0, 1)) > 0]


def _mask_scores(question: Question, features: np.ndarray) -> np.ndarray:
    """Return the score of the square seen through the mask of each channel."""
    scores: list[float] = []
    total = features.shape[-1]
    for start in range(0, total, FORWARD_BATCH):
        masks = channel_masks(features[..., start : start + FORWARD_BATCH], question.square.shape[0])
        answers = question.run((masks * question.square)[..., None])
        scores.extend(question.sign * answers["logit"].ravel())
        question.progress(len(scores), total)
    return np.array(scores, np.float32)


def _ask_smooth_grad(question: Question) -> np.ndarray:
    samples = question.settings["samples"]
    deviation = question.settings["noise"] * np.ptp(question.square)
    random = np.random.default_rng(question.settings["seed"])
    gradients = []
    together = backward_batch(question.square.shape[0])
    for start in range(0, samples, together):
        shape = (min(together, samples - start), *question.square.shape)
        noisy = question.square + deviation * random.standard_normal(shape)
        gradients.extend(question.passes.input_gradients(noisy.astype(np.float32)))
        question.progress(len(gradients), samples)
    return smooth_grad(np.stack(gradients))


def _ask_grad_cam_plus_plus(question: Question) -> np.ndarray:
    ((features, gradients),) = question.passes.features(question.square, [question.settings["layer"]])
    return grad_cam_plus_plus(features, question.sign * gradients)


def _ask_location(question: Question) -> np.ndarray:
    logits = question.run(question.square[None, ..., None])["location"][0, ..., 0]
    return 1 / (1 + np.exp(-grow_location(logits, question.square.shape[0]).astype(np.float64)))


@dataclass(frozen=True, eq=False)
class Method:
    """One way to explain.

    Attributes
    ----------
    title : str
        The paper's name.
    description : str
        What it shows, in one plain line.
    citation : str
    ask : Callable
        `Question` -> raw map, shape (h, w), nowhere negative; or that and, where its own maximum tells nothing of the
        kind, how much on the film speaks for the target. LayerCAM's maximum is high at steep edges on any film, so it
        goes by plain Grad-CAM's.
    defaults : Mapping
        Its settings; a layer of None stands for the checkpoint's own feature layer, layers of None for its stages.
    directed : bool
        False where the map for and the map against the positive label are the same.
    evidence : bool
        True where the peak tells how much on the film speaks for the target, so that it can be compared with what it is
        on films without a fracture; False where it tells nothing of the kind.
    quick : bool
        True where a map takes hardly longer than an answer: one or two passes, not dozens.
    prompt : bool
        False where a map takes a pass for each of hundreds of channels: it is made only where it is asked for.
    """

    title: str
    description: str
    citation: str
    ask: Callable[[Question], np.ndarray | tuple[np.ndarray, float]]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    directed: bool = True
    evidence: bool = True
    quick: bool = True
    prompt: bool = True


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "layercam": Method(
            "LayerCAM",
            "Places that push the answer towards the target, by three depths of the network together.",
            "Jiang et al., IEEE TIP 2021, fused by the geometric mean of the maps of strides 4, 8 and 16",
            _ask_layer_cam,
            {"layers": None, "layer": None},
        ),
        "gradcam": Method(
            "Grad-CAM",
            "Regions whose features push the answer towards the target.",
            "Selvaraju et al., ICCV 2017, arXiv:1610.02391",
            _ask_grad_cam,
            {"layer": None},
        ),
        "scorecam": Method(
            "Score-CAM",
            "Where features are active, those first that alone give the strongest answer. In the networks that were "
            "measured they count nearly alike, so that the map follows the answer little.",
            "Wang et al., CVPRW 2020, arXiv:1910.01279",
            _ask_score_cam,
            {"layer": None},
            evidence=False,
            quick=False,
            prompt=False,
        ),
        "quickscorecam": Method(
            "Quick Score-CAM",
            "Score-CAM with a mask for each group of channels that look alike, instead of one for each channel.",
            "Wang et al., CVPRW 2020, arXiv:1910.01279, the channels grouped",
            _ask_quick_score_cam,
            {"layer": None, "groups": QUICK_GROUPS, "seed": 0},
            evidence=False,
            quick=False,
        ),
        "smoothgrad": Method(
            "SmoothGrad",
            "Pixels to which the answer is most sensitive, in either direction.",
            "Smilkov et al., 2017, arXiv:1706.03825",
            _ask_smooth_grad,
            {"samples": 20, "noise": 0.2, "seed": 0},
            directed=False,
            evidence=False,
            quick=False,
        ),
        "gradcampp": Method(
            "Grad-CAM++",
            "Grad-CAM without the features that push the answer the other way.",
            "Chattopadhyay et al., WACV 2018, arXiv:1710.11063",
            _ask_grad_cam_plus_plus,
            {"layer": None},
        ),
        "location": Method(
            "Location head",
            "Where the network's own location output, taught with outlined breaks, expects a break.",
            "A 1x1 convolution on the stride-16 features, trained beside the label",
            _ask_location,
        ),
    }
)


def canonical_method(text: str) -> str:
    """Return the key in `METHODS` of a method as people write it: ``"Grad-CAM"``, ``"gradcam++"``, ``"Score CAM"``.

    Raises
    ------
    ExplanationError
        If no method is called that.
    """
    plain = _plain(text)
    for key, method in METHODS.items():
        if plain in (key, _plain(method.title)):
            return key
    known = ", ".join(METHODS)
    raise ExplanationError(f"Expected one of the methods {known}, but the one asked for is {str(text)[:40]!r}.")


def _plain(text: str) -> str:
    return re.sub("[^a-z0-9+]", "", str(text).lower()).replace("++", "pp").replace("plusplus", "pp")


def available_methods(checkpoint: Checkpoint, *, prompt: bool = False) -> tuple[str, ...]:
    """Return the keys of the methods that `checkpoint` offers; the location head only where it has one.

    With `prompt`, those that keep nobody waiting for a minute.
    """
    keys = (key for key in METHODS if key != "location" or checkpoint.location_head)
    return tuple(key for key in keys if METHODS[key].prompt or not prompt)


def explain(
    classifier: Any,
    radiograph: Radiograph,
    *,
    method: str = "gradcam",
    target: str = "for",
    region: WristRegion | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Explanation:
    """Show where on `radiograph` the classifier saw evidence for or against its positive label.

    The score explained is the logit (for) or the negative logit (against). The classifier is not changed. Of a
    checkpoint that takes several looks at a film, the first is explained: the square as it was found, unmirrored.

    Parameters
    ----------
    classifier : core.classifier.Classifier
    radiograph : Radiograph
    method : str
        A key or title of `METHODS`.
    target : str
        ``"for"`` or ``"against"``. SmoothGrad has no direction: both give the same map. The location head has no map
        against.
    region : WristRegion, optional
        The square that the classifier reads; without it the whole film.
    progress : callable, optional
        Told (done, total) as the work goes on, in channels (Score-CAM), groups of them (Quick Score-CAM) or samples
        (SmoothGrad).
    **settings
        gradcam, gradcampp, scorecam, quickscorecam: `layer`, name of the feature map to read (default: the
        checkpoint's).
        quickscorecam: `groups`, 1 to 500; `seed`, of how they are found.
        layercam: `layers`, names of the feature maps to fuse (default: those of strides 4, 8 and 16).
        smoothgrad: `samples`, 1 to 500 noisy copies; `noise`, their standard deviation as a share of the square's own
        range of brightness, 0 to 1; `seed`.

    Returns
    -------
    Explanation
        Its heatmap covers the film; outside the region it is 0. It is scaled by the maximum over the square, so it
        stays below 1 where the strongest evidence lies in the margin around the film, or in less than one of its
        pixels.

    Raises
    ------
    ExplanationError
        If the method, target or a setting is unknown, or the checkpoint does not offer the method.
    """
    key = canonical_method(method)
    square = np.asarray(classifier.square(radiograph, region), np.float32)
    size = square.shape[0]
    heat, peak, used = explain_square(classifier, square, method=key, target=target, progress=progress, **settings)
    # Where nothing speaks for the target there is no place to show, though a map may have steeper places than others.
    heat = heat if peak > 0 else np.zeros_like(heat)
    film_heat = lay_on_film(heat, square_fit(classifier.checkpoint, radiograph, region, size))
    used |= {"input_size": size, "region": asdict(region) if region else None}
    return Explanation(radiograph.id, classifier.checkpoint.id, key, target, film_heat, peak, used)


def lay_on_film(heat: np.ndarray, fit: SquareFit) -> np.ndarray:
    """Return a map over a square as it lies on the film.

    Where the square has more pixels than the film under it, each pixel of the film takes the mean of those that lie on
    it, as the square took the mean of the film's where it has fewer: none of the heat is skipped.

    Parameters
    ----------
    heat : numpy.ndarray
        Shape (n, n), range [0, 1]: n cells that share the square evenly.
    fit : core.radiographs.SquareFit

    Returns
    -------
    numpy.ndarray
        float32, the film's shape, range [0, 1]; 0 outside the square.
    """
    import cv2

    if heat.shape[0] < fit.size:  # OpenCV knows 32 steps from one value to the next: on a large film they would be seen
        heat = upsample(heat, fit.size)
    # Pixels of the film along the square's sides: two numbers where it is stretched, and then it is not turned.
    columns, rows = (min(heat.shape[0], max(1, round(fit.size / scale))) for scale in fit.scales)
    if (rows, columns) != heat.shape:
        heat = cv2.resize(np.ascontiguousarray(heat, np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
    return np.clip(fit.invert(heat), 0, 1)


def explain_square(
    classifier: Any,
    square: np.ndarray,
    *,
    method: str = "gradcam",
    target: str = "for",
    progress: Progress | None = None,
    **settings: Any,
) -> tuple[np.ndarray, float, dict[str, Any]]:
    """Do as :func:`explain`, of a square that the classifier reads as it is.

    Parameters
    ----------
    classifier : core.classifier.Classifier
    square : numpy.ndarray
        float32, shape (size, size), range [0, 1].
    method, target, progress, **settings
        As of :func:`explain`.

    Returns
    -------
    heat : numpy.ndarray
        float32, shape (n, n), range [0, 1]: n cells that share the square evenly, each value in the middle of its own.
    peak : float
        The raw map's maximum, or what the method says instead of how much speaks for the target; 0: nothing does.
    settings : dict
        All of them.

    Raises
    ------
    ExplanationError
        As :func:`explain`.
    """
    key = canonical_method(method)
    used = _settings_of(key, classifier.checkpoint, target, settings)
    sign = 1 if target == "for" else -1
    found = METHODS[key].ask(
        Question(passes_of(classifier), classifier.run, square, sign, used, progress or (lambda done, total: None))
    )
    raw, strength = found if isinstance(found, tuple) else (found, None)
    if strength is not None and not np.isfinite(strength):
        raise ExplanationError(OVERFLOWED)
    heat, highest = scaled(raw)
    # Without any heat there is no place that speaks for the target, however much the network leans to it.
    return heat, highest if strength is None or not highest else strength, used


def _settings_of(key: str, card: Checkpoint, target: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings of the method `key`, the given ones checked."""
    method = METHODS[key]
    if target not in TARGETS:
        raise ExplanationError(f"Expected the target 'for' or 'against', but it is {str(target)[:40]!r}.")
    if key == "location" and not card.location_head:
        raise ExplanationError("Expected a checkpoint with a location head, but this one has none.")
    if key == "location" and target == "against":
        raise ExplanationError("The location head shows what speaks for a break, and has no map against one.")
    unknown = sorted(set(given) - set(method.defaults))
    if unknown:
        known = ", ".join(method.defaults) or "none"
        raise ExplanationError(f"{method.title} has the settings {known}, but {unknown[0][:40]!r} was given.")
    used = {**method.defaults, **given}
    if "layer" in used:
        used["layer"] = used["layer"] or card.feature_layer
    if "layers" in used:
        used["layers"] = tuple(used["layers"] or find_backbone(card.backbone).stages[:3])
    if "groups" in used:
        _check_range("number of groups", used["groups"], 1, MOST_SAMPLES, int)
    if key == "smoothgrad":
        _check_range("number of samples", used["samples"], 1, MOST_SAMPLES, int)
        _check_range("noise", used["noise"], 0, 1, (int, float))
    if "seed" in used:
        _check_range("seed", used["seed"], 0, MOST_SEED, int)
    return used


def _check_range(name: str, value: Any, low: float, high: float, kind: type | tuple[type, ...]) -> None:
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
        whole = "a whole number" if kind is int else "a number"
        raise ExplanationError(f"Expected as {name} {whole} from {low} to {high}, but it is {str(value)[:40]!r}.")
