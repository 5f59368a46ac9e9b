"""Every value that travels between the parts of Scaphoid.

Values are frozen dataclasses; their arrays are made read-only when the value is made, so that a value shown on one
screen cannot be changed by another. Two values are equal only if they are the same object (``eq=False``): comparing
films pixel by pixel by accident would be slow, comparing their ids is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SIMULATION_NAME = "simulated.json"
"""Beside films that ``core.phantoms`` has drawn: what they were made from."""
UNFINISHED_NAME = ".studies"
"""In a folder that ``core.phantoms`` is at work in: what is written so far, so that it need not be made again."""


def _read_only(array: np.ndarray, dtype: type) -> np.ndarray:
    """Return `array` as a read-only array of `dtype`; the caller's own array stays writable."""
    view = np.asarray(array, dtype=dtype).view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True, eq=False)
class Radiograph:
    """One film as it is displayed, and nothing that tells whose it is.

    Attributes
    ----------
    id : str
        SHA-256 of the file's bytes, 64 hexadecimal digits.
    pixels : numpy.ndarray
        float32, shape (height, width), range [0, 1], bone bright.
    source : str
        The kind of file, for people: ``"PNG, 16 bit"``, ``"DICOM DX, JPEG 2000"``.
    view : str or None
        ``"PA"``, ``"AP"``, ``"LATERAL"`` or ``"OBLIQUE"`` where the file says so.
    laterality : str or None
        ``"L"`` or ``"R"`` where the file says so.
    spacing_mm : tuple of float or None
        Distance between pixel centres (down, across) in millimetres.
    at_detector : bool
        Whether `spacing_mm` is as measured at the detector, where everything is a little larger than in the patient;
        otherwise it may have been calibrated to some plane in the patient.
    warnings : tuple of str
        What a reader should know about how the film was read; one plain sentence each.
    """

    id: str
    pixels: np.ndarray
    source: str
    view: str | None = None
    laterality: str | None = None
    spacing_mm: tuple[float, float] | None = None
    warnings: tuple[str, ...] = ()
    at_detector: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "pixels", _read_only(self.pixels, np.float32))

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.pixels.shape[1])


@dataclass(frozen=True, eq=False)
class Study:
    """The films of one examination of one wrist: the unit of decision.

    Attributes
    ----------
    id : str
        Unique in its dataset.
    patient_id : str
        The dataset's own pseudonym; studies of one patient are never split between training and test.
    radiographs : tuple of Radiograph
        Films already read; empty where `paths` says where they lie.
    paths : tuple of pathlib.Path
        Files of the films, in reading order.
    label : int or None
        1 positive, 0 negative, None unknown.
    """

    id: str
    patient_id: str
    radiographs: tuple[Radiograph, ...] = ()
    paths: tuple[Path, ...] = ()
    label: int | None = None


@dataclass(frozen=True, eq=False)
class WristRegion:
    """Where the wrist is on a film: a square around the radiocarpal joint, found or set by the reader.

    Attributes
    ----------
    x, y : float
        Centre of the square, in pixels of the film: x to the right, y downwards, (0, 0) the top-left corner of the
        top-left pixel.
    side : float
        Side of the square in pixels of the film.
    angle : float
        Direction of the fingers in degrees, clockwise from the top of the film: 0 fingers up, 90 fingers to the right,
        180 fingers down. Range (-180, 180].
    confidence : float
        How sure the finder is, [0, 1]; 1 where a reader set the square.
    set_by_reader : bool
        True where a person, not the finder, placed the square.
    """

    x: float
    y: float
    side: float
    angle: float = 0.0
    confidence: float = 1.0
    set_by_reader: bool = False


@dataclass(frozen=True, eq=False)
class Prediction:
    """What one checkpoint says of one film. It holds no verdict: an operating point is applied where it is shown.

    Attributes
    ----------
    radiograph_id, checkpoint_id : str
    logit : float
        The network's raw output, before calibration; any real number. Of a mean of several checkpoints: the log-odds
        of its probability.
    probability : float
        [0, 1]: that of a study of this film alone, see ``core.metrics.pool``.
    """

    radiograph_id: str
    checkpoint_id: str
    logit: float
    probability: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where on a film a checkpoint saw evidence, by one method.

    Attributes
    ----------
    radiograph_id, checkpoint_id : str
    method : str
        A key of ``core.explain.METHODS``.
    target : str
        ``"for"`` or ``"against"`` the positive label.
    heatmap : numpy.ndarray
        float32, the film's own (height, width), range [0, 1]; all zero where there is no evidence.
    peak : float
        The map's maximum before it was scaled to [0, 1], in the method's own units, or what the method says instead of
        how much speaks for the target (``core.explain.Method.ask``); 0 means "no positive evidence".
        Without it a map scaled to its own maximum would make no evidence look like strong evidence.
    settings : Mapping
        Everything that is needed to make the same map again (layer, samples, noise, seed, region, ...).
    """

    radiograph_id: str
    checkpoint_id: str
    method: str
    target: str
    heatmap: np.ndarray
    peak: float
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "heatmap", _read_only(self.heatmap, np.float32))


@dataclass(frozen=True, eq=False)
class Interval:
    """An estimate with its 95% interval and the number of cases behind it.

    Attributes
    ----------
    value, low, high : float
    n : int
        Cases (studies, films) the estimate rests on.
    """

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, eq=False)
class OperatingPoint:
    """A threshold on the study probability, chosen on validation, and what it was measured to do there.

    Attributes
    ----------
    name : str
        ``"high_sensitivity"`` (below it: no fracture seen) or ``"high_specificity"`` (from it on: suspected).
    threshold : float
        A study at or above it is called positive.
    sensitivity, specificity : Interval
        Measured on the validation studies named in the card's data provenance.
    """

    name: str
    threshold: float
    sensitivity: Interval
    specificity: Interval


@dataclass(frozen=True, eq=False)
class TrainingSettings:
    """The whole configuration of a training run. The command line fills it and the card stores it.

    Attributes
    ----------
    backbone : str
        A key of ``core.backbones.BACKBONES``.
    weights : str or None
        What training started from: None (random), ``"imagenet"``, ``"lite0"`` (see ``core.starts``) or the SHA-256 of
        a local file or of a checkpoint's weights.
    input_size : int
        Pixels a side.
    epochs, batch_size : int
    learning_rate : float
        Peak of the schedule.
    warmup_epochs : float
    weight_decay : float
    location_weight : float
        Weight of the location head's loss beside the label's.
    label_smoothing : float
    seed : int
    preset : str
    extra : Mapping
        Settings that only one preset has.
    """

    backbone: str
    weights: str | None = None
    input_size: int = 224
    epochs: int = 4
    batch_size: int = 32
    learning_rate: float = 1e-3
    warmup_epochs: float = 0.5
    weight_decay: float = 1e-4
    location_weight: float = 1.0
    label_smoothing: float = 0.0
    seed: int = 0
    preset: str = "scaphoid"
    extra: Mapping[str, Any] = field(default_factory=dict)


FITS = ("pad", "stretch")
"""How a film becomes a square: with its proportions kept, black beside it, or with both sides made as long."""
FINDINGS = {"fracture": "fracture", "abnormal": "abnormality"}
"""A card's positive label -> the noun."""
UNNAMED_FINDING = "finding"
"""What a table of scores from elsewhere is of: it does not say."""


def with_article(finding: str) -> str:
    """Return ``"a fracture"``, ``"an abnormality"`` or ``"the finding"``."""
    return {"abnormality": "an abnormality", UNNAMED_FINDING: "the finding"}.get(finding, f"a {finding}")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The card of a trained model: all that must be known to run it, trust it or doubt it.

    Attributes
    ----------
    id : str
        Folder name: lower-case letters, digits and hyphens.
    title : str
        For people.
    task : str
        ``"fracture"`` (radiograph -> probability) or ``"wrist"`` (radiograph -> where the wrist is).
    backbone, feature_layer : str
        Keys of ``core.backbones``; `feature_layer` is the layer class activation maps are read from.
    input_size : int
        Pixels a side.
    fit : str
        How a film becomes a square: one of `FITS`. What a finder cuts out of it is one already.
    looks : int
        Of a classifier: how many of ``core.classifier.LOOKS`` are averaged; of a finder: how often it looks closer, 1
        or 2.
    scaling : str or Mapping
        What the square becomes before the backbone, see ``core.backbones.find_scaling``: ``"keras"`` is the backbone's
        own preprocessing; models imported from elsewhere may need another.
    region : str or None
        Id of the wrist finder whose square this checkpoint reads; None where it reads whole films.
    location_head : bool
        Whether the network has the ``location`` output.
    positive_label : str
        ``"fracture"`` or ``"abnormal"``.
    operating_points : tuple of OperatingPoint
        Chosen on validation, in rising order of threshold.
    calibration : Mapping or None
        How a film's logit becomes a probability, see ``core.metrics.calibrate``; how a finder's heat becomes a
        confidence, see ``core.wrist.confidence_of``.
    study_calibration : Mapping or None
        How the mean of a study's films becomes its probability, see ``core.metrics.pool``; None: it is that mean.
    settings : TrainingSettings or None
        None where the checkpoint was imported.
    data : Mapping
        Provenance for people and machines: ``trained_on``, ``tested_on``, ``not_for`` (sentences), ``came_from`` (every
        checkpoint that the weights came from or were taught by: ``id`` and its ``trained_on``), ``simulated`` (bool),
        ``counts``, ``results`` (each estimate with interval and n), ``licences`` (list of sentences).
    versions : Mapping
        Package name -> version that trained it.
    weights_sha256, card_sha256 : str
        Of ``model.weights.h5``, and of the card itself without this entry.
    """

    id: str
    title: str
    task: str
    backbone: str
    feature_layer: str
    input_size: int
    fit: str = "pad"
    region: str | None = None
    location_head: bool = False
    positive_label: str = "fracture"
    operating_points: tuple[OperatingPoint, ...] = ()
    calibration: Mapping[str, Any] | None = None
    settings: TrainingSettings | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    weights_sha256: str = ""
    card_sha256: str = ""
    scaling: str | Mapping[str, Any] = "keras"
    looks: int = 1
    study_calibration: Mapping[str, Any] | None = None

    @property
    def finding(self) -> str:
        """What it looks for, as a noun."""
        return FINDINGS[self.positive_label]

    def operating_point(self, name: str) -> OperatingPoint | None:
        """Return the operating point called `name`, or None."""
        return next((point for point in self.operating_points if point.name == name), None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts and lists, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Scores:
    """Probabilities of one checkpoint over one split, study by study.

    Attributes
    ----------
    checkpoint_id, split : str
    study_ids, patient_ids : tuple of str
    labels : numpy.ndarray
        int8, shape (n,), 0 or 1.
    probabilities : numpy.ndarray
        float64, shape (n,), [0, 1].
    weights_sha256 : str
        Of the weights that gave the scores.
    columns : Mapping of str to tuple of str
        What else is known of each study (view, sex, ...), n texts a column; an empty one where it is not known.
    unit : str
        ``study``, or ``film`` where each film stands for itself.
    """

    checkpoint_id: str
    split: str
    study_ids: tuple[str, ...]
    patient_ids: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray
    weights_sha256: str = ""
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unit: str = "study"

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", _read_only(self.labels, np.int8))
        object.__setattr__(self, "probabilities", _read_only(self.probabilities, np.float64))
