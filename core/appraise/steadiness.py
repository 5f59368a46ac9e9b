"""How much a study's answer moves when its films change in ways that change nothing about the wrist.

The wrist is found anew on each changed film, as it would be in life. A study's logit is the log-odds of its
probability. The changes:

- mirrored: all films flipped left to right;
- turned by 10 degrees either way, the picture grown to hold all of the film, black around it;
- exposure: the film's values, [0, 1] as displayed, times 0.7 or 1.3, the latter clipped at white. A gamma would lose
  nothing; this loses what it whitens, so it is the stricter of the two;
- written as PNG of 8 or 16 bits, or as DICOM of 12 bits with a window (MONOCHROME2, bone bright, and MONOCHROME1, bone
  dark), and read back.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np

from core.appraise.measures import measure_change
from core.appraise.reading import _Reader
from core.metrics import pool_both
from core.quality import assess
from core.radiographs import read_radiograph
from core.values import Radiograph

STEADY = 0.5
"""Wanted: the median change of a study's logit stays below this."""
_DICOM_TOP = 4095


def turn(pixels: np.ndarray, degrees: float) -> np.ndarray:
    """Turn a film clockwise about its middle; the picture grows to hold all of it, black around it."""
    height, width = pixels.shape
    angle = math.radians(degrees)
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    # A hair less, so that a quarter turn does not grow by rounding.
    grown = tuple(math.ceil(length - 1e-6) for length in (width * cos + height * sin, width * sin + height * cos))
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -degrees, 1.0)
    matrix[:, 2] += ((grown[0] - width) / 2, (grown[1] - height) / 2)
    return cv2.warpAffine(np.asarray(pixels, np.float32), matrix, grown, flags=cv2.INTER_LINEAR)


def expose(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Multiply a film's displayed values, clipped at white."""
    return np.clip(np.asarray(pixels, np.float32) * np.float32(factor), 0, 1)


def as_png(pixels: np.ndarray, bits: int) -> bytes:
    """Return a film as a grey PNG of 8 or 16 bits."""
    kind = np.uint16 if bits == 16 else np.uint8
    return cv2.imencode(".png", np.round(np.asarray(pixels, np.float64) * (2**bits - 1)).astype(kind))[1].tobytes()


def as_dicom(pixels: np.ndarray, inverted: bool = False) -> bytes:
    """Return a film as DICOM (DX, 12 of 16 bits, a window over all values); `inverted`: MONOCHROME1."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.filewriter import dcmwrite
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

    stored = np.round(np.asarray(pixels, np.float64) * _DICOM_TOP).astype(np.uint16)
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = DigitalXRayImageStorageForPresentation
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = generate_uid()
    file.Modality = "DX"
    file.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    file.Rows, file.Columns = stored.shape
    file.SamplesPerPixel, file.PixelRepresentation = 1, 0
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, 12, 11
    file.WindowCenter, file.WindowWidth = (_DICOM_TOP + 1) / 2, _DICOM_TOP + 1
    file.PixelData = (_DICOM_TOP - stored if inverted else stored).astype("<u2").tobytes()
    bytes_of = io.BytesIO()
    dcmwrite(bytes_of, file, enforce_file_format=True)
    return bytes_of.getvalue()


def _with(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Radiograph], Radiograph]:
    return lambda film: Radiograph(film.id, change(film.pixels), film.source)


CHANGES: Mapping[str, Callable[[Radiograph], Radiograph]] = MappingProxyType(
    {
        "mirrored": _with(lambda pixels: np.ascontiguousarray(pixels[:, ::-1])),
        "turned 10 degrees clockwise": _with(lambda pixels: turn(pixels, 10)),
        "turned 10 degrees anticlockwise": _with(lambda pixels: turn(pixels, -10)),
        "exposure x 0.7": _with(lambda pixels: expose(pixels, 0.7)),
        "exposure x 1.3": _with(lambda pixels: expose(pixels, 1.3)),
        "PNG, 8 bit": lambda film: read_radiograph(as_png(film.pixels, 8)),
        "PNG, 16 bit": lambda film: read_radiograph(as_png(film.pixels, 16)),
        "DICOM, MONOCHROME2": lambda film: read_radiograph(as_dicom(film.pixels)),
        "DICOM, MONOCHROME1": lambda film: read_radiograph(as_dicom(film.pixels, inverted=True)),
    }
)


def study_logit(reader: _Reader, films: Sequence[Radiograph]) -> float | None:
    """Return the log-odds of a study's probability; None where no film is fit to be read."""
    return _read_study(reader, films)[0]


def _read_study(reader: _Reader, films: Sequence[Radiograph]) -> tuple[float | None, int]:
    """Return what :func:`study_logit` returns, and how many of the films are not fit to be read."""
    regions = [reader.finder.find(film) if reader.finder else None for film in films]
    fit = [pair for pair in zip(films, regions, strict=True) if assess(*pair).level != "unfit"]
    if not fit:
        return None, len(films)
    predictions = reader.classifier.predict(*map(list, zip(*fit, strict=True)))
    logits = np.array([prediction.logit for prediction in predictions])
    card = reader.classifier.checkpoint
    # Both probabilities are taken, so that an answer close to 1 keeps its digits.
    broken, whole = pool_both(logits, card.calibration, card.study_calibration)
    return float(np.log(max(broken, 1e-300)) - np.log(max(whole, 1e-300))), len(films) - len(fit)


def measure_steadiness(
    studies: Iterable[tuple[str, Sequence[Radiograph]]],
    readers: Sequence[_Reader],
    resamples: int = 2000,
    seed: int = 0,
    on_progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Measure how far each change moves each reader's answers.

    Parameters
    ----------
    studies : iterable of (str, sequence of Radiograph)
        The patient, and the films of one study.
    readers : sequence of core.reading.Reader
    resamples, seed : int
        Of the bootstrap over patients.
    on_progress : callable
        Called with the number of studies done.

    Returns
    -------
    dict
        ``studies``, ``films``, ``steady`` (the median that is wanted), ``refused``: id -> ``{"films", "studies"}``,
        how many were not fit to be read as they are, a study where none of its films was; and ``checkpoints``: id ->
        change -> ``{"median", "90th_percentile", "mean", "refused", "films_refused"}``, intervals of the absolute
        change of a study's logit, the number of studies that were read only with the change or only without it, and of
        films that were not fit to be read with it.
    """
    ids = [reader.classifier.checkpoint.id for reader in readers]
    moved = {key: {name: ([], []) for name in CHANGES} for key in ids}
    refused = {key: {name: {"refused": 0, "films_refused": 0} for name in CHANGES} for key in ids}
    at_first = {key: {"films": 0, "studies": 0} for key in ids}
    done = films_read = 0
    for done, (patient, films) in enumerate(studies, start=1):
        films_read += len(films)
        before = []
        for reader, key in zip(readers, ids, strict=True):
            old, unfit = _read_study(reader, films)
            before.append(old)
            at_first[key]["films"] += unfit
            at_first[key]["studies"] += old is None
        for name, change in CHANGES.items():
            changed = [change(film) for film in films]
            for reader, key, old in zip(readers, ids, before, strict=True):
                new, unfit = _read_study(reader, changed)
                refused[key][name]["films_refused"] += unfit
                if old is not None and new is not None:
                    moved[key][name][0].append(new - old)
                    moved[key][name][1].append(patient)
                elif (old is None) != (new is None):
                    refused[key][name]["refused"] += 1
        on_progress(done)
    checkpoints = {
        key: {name: measure_change(*moved[key][name], resamples, seed) | refused[key][name] for name in CHANGES}
        for key in ids
    }
    read = {"studies": done, "films": films_read, "steady": STEADY, "refused": at_first}
    return read | {"checkpoints": checkpoints}
