"""From films to probabilities: a checkpoint loaded, frozen and warmed once, then asked film by film or in batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from core.backbones import build_classifier, freeze
from core.checkpoints import CHECKPOINTS, find_checkpoint, verify
from core.checkpoints.weights import WEIGHTS_NAME, load_weights
from core.errors import CheckpointError, RadiographError
from core.metrics import calibrate_means, pool
from core.radiographs import SquareFit, fit_square
from core.values import Checkpoint, Prediction, Radiograph, WristRegion

if TYPE_CHECKING:
    import keras

# Films of 224 pixels a side that a batch holds at most, and of larger ones as many fewer: more at once is no faster on
# a processor and costs memory.
BATCH_SIZE = 16


class Look(NamedTuple):
    """A square that differs a little from the one that was found: mirrored, turned, smaller or larger."""

    mirrored: bool = False
    turn_degrees: float = 0.0
    scale: float = 1.0


# A checkpoint reads the first few of these and averages their logits: what a network sees in one square by chance is
# lost, what it sees in all of them stays. Each stands beside its mirror image, so that a mirrored film gets the same
# answer.
LOOKS = (
    Look(),
    Look(mirrored=True),
    Look(turn_degrees=8.0, scale=0.88),
    Look(mirrored=True, turn_degrees=-8.0, scale=0.88),
    Look(turn_degrees=-8.0, scale=0.88),
    Look(mirrored=True, turn_degrees=8.0, scale=0.88),
)

_FINDINGS = {"fracture": ("Fracture", "fracture"), "abnormal": ("Abnormality", "abnormality")}


@dataclass(frozen=True, eq=False)
class Decision:
    """A probability put into words by a checkpoint's operating points.

    Attributes
    ----------
    label : str
        ``"suspected"``, ``"uncertain"`` or ``"not seen"``.
    text : str
        The same for people: ``"Fracture suspected"``, ``"Uncertain"``, ``"No fracture seen"``.
    probability : float
        What was decided on, [0, 1].
    thresholds : Mapping
        Name -> threshold of the operating points used; empty where the card has none.
    """

    label: str
    text: str
    probability: float
    thresholds: Mapping[str, float] = field(default_factory=dict)


def square_fit(
    card: Checkpoint, radiograph: Radiograph, region: WristRegion | None = None, size: int | None = None
) -> SquareFit:
    """Say how a film, or a region of it, becomes the square that a checkpoint reads.

    Parameters
    ----------
    card : Checkpoint
    radiograph : Radiograph
    region : WristRegion or None
        As of :meth:`Classifier.square`.
    size : int, optional
        Pixels a side of the square, where it is not the one that the network reads but a copy of it.
    """
    return fit_square(radiograph.height, radiograph.width, size or card.input_size, region, card.fit)


class Classifier:
    """A checkpoint ready to read films. It may be used by several threads at once.

    Attributes
    ----------
    checkpoint : Checkpoint
    model : keras.Model
        The flat graph with its weights, float32: what explanations read. Nothing here changes it.
    run : callable
        The frozen graph: float32 (n, size, size, 1) in [0, 1] -> ``{"logit", "probability"[, "location"]}``, where
        ``probability`` is the logistic function of the logit, before calibration.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        model: keras.Model,
        run: Callable[[np.ndarray], dict[str, np.ndarray]],
    ) -> None:
        self.checkpoint = checkpoint
        self.model = model
        self.run = run

    def square(self, radiograph: Radiograph, region: WristRegion | None = None, look: Look = LOOKS[0]) -> np.ndarray:
        """Return what the network sees of a film: float32, (size, size), range [0, 1].

        Parameters
        ----------
        radiograph : Radiograph
        region : WristRegion or None
            The square to read, turned so that the fingers point up; None reads the whole film, its proportions kept
            unless the card says that films are stretched.
        look : Look
            How the square differs from that one; a whole film can only be mirrored.
        """
        if region is not None and (look.scale != 1.0 or look.turn_degrees):
            region = replace(region, side=region.side * look.scale, angle=region.angle + look.turn_degrees)
        fit = square_fit(self.checkpoint, radiograph, region)
        square = np.asarray(fit.apply(radiograph.pixels), dtype=np.float32)
        return np.ascontiguousarray(square[:, ::-1]) if look.mirrored else square

    def predict(
        self, radiographs: Sequence[Radiograph], regions: Sequence[WristRegion | None] | None = None
    ) -> list[Prediction]:
        """Read films.

        Parameters
        ----------
        radiographs : sequence of Radiograph
        regions : sequence of WristRegion or None, optional
            One for each film, see :meth:`square`.

        Returns
        -------
        list of Prediction
            One for each film, in their order. A film's prediction does not depend on the films beside it (to 1e-5).
            The logit is the mean over the checkpoint's looks.
        """
        regions = [None] * len(radiographs) if regions is None else regions
        looks = LOOKS[: self.checkpoint.looks]
        wanted = [(film, region, look) for film, region in zip(radiographs, regions, strict=True) for look in looks]
        at_once = min(BATCH_SIZE, max(1, BATCH_SIZE * 224**2 // self.checkpoint.input_size**2))
        logits = []
        for start in range(0, len(wanted), at_once):
            squares = np.stack([self.square(*item) for item in wanted[start : start + at_once]])[..., None]
            logits += self.run(squares)["logit"][:, 0].astype(np.float64).tolist()
        means = np.reshape(logits, (len(radiographs), len(looks))).mean(axis=1)
        return [self._prediction(film, float(logit)) for film, logit in zip(radiographs, means, strict=True)]

    def location(self, radiograph: Radiograph, region: WristRegion | None = None) -> np.ndarray:
        """Return where the location head sees a break: float32, raw logits, one for each cell of 16 x 16 pixels.

        Raises
        ------
        CheckpointError
            The checkpoint has no location head.
        """
        if not self.checkpoint.location_head:
            raise CheckpointError("A checkpoint with a location head was expected, but this one has none.")
        return self.run(self.square(radiograph, region)[None, ..., None])["location"][0, ..., 0]

    def _prediction(self, radiograph: Radiograph, logit: float) -> Prediction:
        if not math.isfinite(logit):
            raise CheckpointError("The model must answer with a number, but on one of these films it does not.")
        probability = pool(np.array([logit]), self.checkpoint.calibration, self.checkpoint.study_calibration)
        return Prediction(radiograph.id, self.checkpoint.id, logit, probability)


def load_classifier(checkpoint_id: str | None = None, folder: Path = CHECKPOINTS) -> Classifier:
    """Verify a checkpoint, build its network in code, load its weights, freeze and warm it.

    Parameters
    ----------
    checkpoint_id : str or None
        None loads the default one.
    folder : pathlib.Path
        The folder of checkpoints.

    Raises
    ------
    CheckpointError
        It is not here, broken, altered, made for something else, or its weights do not fit its network.
    """
    checkpoint, model = load_network(checkpoint_id, folder)
    outputs = ("logit", "probability", "location") if checkpoint.location_head else ("logit", "probability")
    return Classifier(checkpoint, model, freeze(model, outputs))


def load_network(checkpoint_id: str | None = None, folder: Path = CHECKPOINTS) -> tuple[Checkpoint, keras.Model]:
    """Verify a checkpoint, build its network in code and load its weights; parameters as of :func:`load_classifier`.

    Raises
    ------
    CheckpointError
        As :func:`load_classifier`.
    """
    directory = find_checkpoint(checkpoint_id, folder)
    checkpoint = verify(directory)
    if checkpoint.task != "fracture":
        raise CheckpointError("A checkpoint that reads films for fractures was expected, but this one finds wrists.")
    pool(np.zeros(1), checkpoint.calibration, checkpoint.study_calibration)  # refuses what it does not know at once
    model = build_classifier(
        checkpoint.backbone,
        input_size=checkpoint.input_size,
        location_head=checkpoint.location_head,
        scaling=checkpoint.scaling,
    )
    if checkpoint.feature_layer not in {layer.name for layer in model.layers}:
        raise CheckpointError("The card's feature layer must be a layer of its network, but it is not.")
    load_weights(model, directory / WEIGHTS_NAME, checkpoint.weights_sha256)
    return checkpoint, model


def study_probability(predictions: Sequence[Prediction], checkpoint: Checkpoint) -> float:
    """Return the probability of a study from what its checkpoint says of its films, see ``core.metrics.pool``.

    Raises
    ------
    RadiographError
        There is no film.
    """
    if not predictions:
        raise RadiographError("A study needs at least one film that was read, but it has none.")
    logits = np.array([prediction.logit for prediction in predictions])
    return pool(logits, checkpoint.calibration, checkpoint.study_calibration)


def ensemble_probability(probabilities: Sequence[float], study_calibration: Mapping[str, Any] | None = None) -> float:
    """Return the mean of several checkpoints' probabilities of the same study, calibrated as means of these are.

    Raises
    ------
    CheckpointError
        There is no checkpoint.
    """
    if len(probabilities) == 0:
        raise CheckpointError("An ensemble needs at least one checkpoint, but it has none.")
    return float(calibrate_means(np.mean(probabilities), study_calibration))


def decide(probability: float, checkpoint: Checkpoint) -> Decision:
    """Put a study's probability into words by the card's operating points.

    From the point of high specificity on, the finding is suspected; otherwise, below the point of high sensitivity,
    it is not seen; between the two the answer is uncertain. Where the points cross, as those of a very good
    checkpoint may, nothing is uncertain. A card with one point only calls everything from it on suspected and
    everything below it not seen. A card without any gives no verdict: the answer is always uncertain, and its text says
    why.

    Parameters
    ----------
    probability : float
        Calibrated, [0, 1].
    checkpoint : Checkpoint

    Returns
    -------
    Decision
    """
    thresholds = {point.name: point.threshold for point in checkpoint.operating_points}
    if not thresholds:
        return Decision("uncertain", "Uncertain (no operating point)", probability)
    title, name = _FINDINGS[checkpoint.positive_label]
    only = next(iter(thresholds.values()))
    if probability >= thresholds.get("high_specificity", only):
        return Decision("suspected", f"{title} suspected", probability, thresholds)
    if probability < thresholds.get("high_sensitivity", only):
        return Decision("not seen", f"No {name} seen", probability, thresholds)
    return Decision("uncertain", "Uncertain", probability, thresholds)
