"""DICOM bytes to the picture on a film, and nothing that tells whose it is.

The order is that of PS3.4 section N.2: decode, modality look-up table or rescale, VOI look-up table or window,
inversion for MONOCHROME1. Of the header only what that needs, the view, the side and the spacing are looked at.
"""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from itertools import pairwise

import numpy as np
import pydicom
from pydicom.encaps import get_frame
from pydicom.pixels import apply_color_lut, get_decoder
from pydicom.uid import UID, RLELossless

from core.errors import RadiographError
from core.radiographs.pixels import (
    MAX_PIXELS,
    ImageHeader,
    check_size,
    find_full_range,
    merge_colour,
    quiet,
    read_jpeg2000_header,
    read_jpeg_header,
    show_8_bit,
    show_deep,
    stretch,
)

# What pydicom says of a faulty header quotes the header, so it must reach no log; see also `quiet`.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)

_FILMS = ("CR", "DX", "DR", "RG", "RF")
_CAPTURES = {"OT": "secondary capture", "SC": "secondary capture", "XA": "XA", "": "of unnamed kind"}
_OTHERS = {
    "CT": "a CT slice",
    "MR": "an MR slice",
    "US": "an ultrasound picture",
    "NM": "a nuclear medicine picture",
    "PT": "a PET slice",
    "MG": "a mammogram",
    "SR": "a structured report",
    "DOC": "a document",
    "PR": "a presentation state",
    "KO": "a list of key objects",
    "SEG": "a segmentation",
    "ECG": "an electrocardiogram",
    "RTIMAGE": "a radiotherapy picture",
    "RTDOSE": "a radiotherapy dose",
    "RTSTRUCT": "a radiotherapy plan",
    "RTPLAN": "a radiotherapy plan",
}
_DIRECTORY = "1.2.840.10008.1.3.10"
_REPORTS = "1.2.840.10008.5.1.4.1.1.88."
_DOCUMENTS = "1.2.840.10008.5.1.4.1.1.104."
_DEFLATED = "1.2.840.10008.1.2.1.99"
_SYNTAXES = {
    "1.2.840.10008.1.2": "uncompressed",
    "1.2.840.10008.1.2.1": "uncompressed",
    "1.2.840.10008.1.2.2": "uncompressed",
    _DEFLATED: "deflated",
    "1.2.840.10008.1.2.5": "RLE",
    "1.2.840.10008.1.2.4.50": "JPEG",
    "1.2.840.10008.1.2.4.51": "JPEG",
    "1.2.840.10008.1.2.4.57": "JPEG Lossless",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless",
    "1.2.840.10008.1.2.4.80": "JPEG-LS",
    "1.2.840.10008.1.2.4.81": "JPEG-LS",
    "1.2.840.10008.1.2.4.90": "JPEG 2000",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
}
_VIEWS = {"PA": "PA", "DP": "PA", "AP": "AP", "PD": "AP"} | dict.fromkeys(
    ("LL", "RL", "LAT", "LATERAL", "ML", "LM", "LLAT", "RLAT"), "LATERAL"
)
_VIEWS |= dict.fromkeys(("OBL", "OBLIQUE", "LLO", "RLO", "LAO", "RAO", "LPO", "RPO"), "OBLIQUE")
_CONTENTS = "The file is a DICOMDIR, a table of contents; expected one of the films it lists."
_CUT_SHORT = "The DICOM file is damaged or cut short; expected one complete film."
# A window may turn this share of the exposed pixels white before a wider one is used.
_WHITE_LIMIT = 0.05

# Bytes that a writer may add to a run-length encoded segment.
_RLE_SURPLUS = 64


@dataclass(frozen=True)
class DicomFilm:
    """The picture on a DICOM film as it is displayed, and what its header says of it.

    Attributes
    ----------
    pixels : numpy.ndarray
        float32, shape (height, width), [0, 1], bone bright.
    source, view, laterality, spacing_mm, at_detector, warnings
        As in :class:`core.values.Radiograph`.
    """

    pixels: np.ndarray
    source: str
    view: str | None
    laterality: str | None
    spacing_mm: tuple[float, float] | None
    at_detector: bool
    warnings: tuple[str, ...]


def looks_like_dicom(data: bytes) -> bool:
    """Tell whether bytes are DICOM: with the standard's preamble, or without it but with a group 2 or 8 tag first."""
    if data[128:132] == b"DICM":
        return True
    if len(data) < 64:
        return False
    group, element = struct.unpack("<HH", data[:4])
    if group not in (2, 8) or element not in (0x00, 0x01, 0x02, 0x05, 0x08, 0x10, 0x16, 0x18):
        return False
    return data[4:6] in (b"UL", b"OB", b"UI", b"CS") or struct.unpack("<I", data[4:8])[0] <= 256


def read_dicom(data: bytes) -> DicomFilm:
    """Read one DICOM radiograph.

    Parameters
    ----------
    data : bytes
        A whole DICOM file, with or without the standard's preamble.

    Returns
    -------
    DicomFilm

    Raises
    ------
    RadiographError
        Anything but one whole grey film of a kind, a size and a compression that can be read.

    Notes
    -----
    Spacing: ImagerPixelSpacing (at the detector) goes before PixelSpacing, which in a projection may have been
    calibrated to some plane in the patient.
    """
    with quiet():
        return _read_dicom(data)


def _read_dicom(data: bytes) -> DicomFilm:
    dataset, syntax = _parse(data)
    kind, notes = _check_kind(dataset)
    header = ImageHeader(int(dataset.Rows), int(dataset.Columns), int(dataset.BitsAllocated))
    check_size(header.height, header.width)
    if int(dataset.get("NumberOfFrames") or 1) != 1:
        raise RadiographError("The DICOM file holds more than one frame; expected one film.")
    if header.bits not in (8, 16):
        raise RadiographError(
            "The DICOM film does not store its pixels in 8 or 16 bits, which is all that can be read."
        )
    stored, bits = _decode(dataset, syntax, header)
    if stored.ndim == 3:
        stored, more = merge_colour(stored)
        notes += more
        pixels, more = show_8_bit(stored) if stored.dtype == np.uint8 else (show_deep(stored), [])
        notes += more
    else:
        pixels, more = _show_grey(dataset, stored, bits)
        notes += more
    spacing, at_detector = _spacing(dataset)
    return DicomFilm(
        pixels=pixels,
        source=f"DICOM {kind}, {_SYNTAXES[syntax]}",
        view=_VIEWS.get(_text(dataset, "ViewPosition")),
        laterality=_laterality(dataset),
        spacing_mm=spacing,
        at_detector=at_detector,
        warnings=tuple(notes),
    )


def _parse(data: bytes) -> tuple[pydicom.Dataset, str]:
    """Return the data set and its transfer syntax, inflated within bounds where it is deflated."""
    start = 132 if data[128:132] == b"DICM" else 0
    syntax = ""
    try:
        if start or data[:2] == b"\x02\x00":
            stream = BytesIO(data)
            stream.seek(start)
            meta = pydicom.filereader.read_dataset(
                stream, False, True, stop_when=lambda tag, _vr, _size: tag.group != 2
            )
            if str(meta.get("MediaStorageSOPClassUID", "")) == _DIRECTORY:
                raise RadiographError(
                    "The file is a DICOMDIR, a table of contents; expected one of the films it lists."
                )
            syntax = str(meta.get("TransferSyntaxUID", ""))
            if syntax == _DEFLATED:
                data = _inflate(data[stream.tell() :])
        dataset = pydicom.dcmread(BytesIO(data), force=True)
    except RadiographError:
        raise
    except Exception:
        raise RadiographError(_CUT_SHORT) from None
    if "DirectoryRecordSequence" in dataset:
        raise RadiographError(_CONTENTS)
    if not syntax:
        implicit, little = dataset.original_encoding
        syntax = "1.2.840.10008.1.2" + ("" if implicit else ".1" if little else ".2")
    return dataset, syntax


def _inflate(packed: bytes) -> bytes:
    """Return a file with the inflated data set; it may not grow beyond what the largest film can need."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    limit = 2 * MAX_PIXELS + 2**24
    body = inflater.decompress(packed, limit)
    if len(body) >= limit:
        raise RadiographError("The deflated DICOM file grows too large for a film; expected at most 64 megapixels.")
    if not inflater.eof:
        raise RadiographError(_CUT_SHORT)
    plain = b"1.2.840.10008.1.2.1\0"
    return bytes(128) + b"DICM" + struct.pack("<HH2sH", 2, 16, b"UI", len(plain)) + plain + body


def _check_kind(dataset: pydicom.Dataset) -> tuple[str, list[str]]:
    """Return the kind of film for people and warnings; refuse everything that is no radiograph."""
    purpose, modality = str(dataset.get("SOPClassUID", "")), _text(dataset, "Modality")
    if purpose.startswith(_REPORTS):
        modality = "SR"
    if purpose.startswith(_DOCUMENTS):
        modality = "DOC"
    if modality not in _FILMS and modality not in _CAPTURES:
        what = _OTHERS.get(modality, "of another kind")
        raise RadiographError(f"The DICOM file is {what}; expected a radiograph (CR, DX, DR, RF or RG).")
    if "PixelData" not in dataset or not dataset.get("Rows") or not dataset.get("Columns"):
        raise RadiographError("The DICOM file holds no picture; expected one film.")
    notes = []
    if modality in _CAPTURES:
        notes.append("The DICOM file does not say that it is a plain radiograph; it was read as one.")
    if _text(dataset, "PresentationIntentType") == "FOR PROCESSING":
        notes.append("The film is raw detector data, not made for display; its greys may mislead.")
    return modality if modality in _FILMS else _CAPTURES[modality], notes


def _decode(dataset: pydicom.Dataset, syntax: str, header: ImageHeader) -> tuple[np.ndarray, int]:
    """Return the stored values, (height, width) or (height, width, 3), and how many bits they have."""
    if syntax not in _SYNTAXES:
        raise RadiographError("The DICOM film is stored in a transfer syntax that is unknown or not supported.")
    try:
        if _SYNTAXES[syntax] in ("uncompressed", "deflated", "RLE"):
            pixels, bits = _decode_plain(dataset, syntax, header), int(dataset.BitsStored)
        else:
            pixels, bits = _decode_compressed(dataset, syntax, header)
        if _text(dataset, "PhotometricInterpretation") == "PALETTE COLOR":
            pixels, bits = apply_color_lut(pixels, dataset), 16
            return (pixels[..., :3] >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels[..., :3], 8
    except RadiographError:
        raise
    except Exception:
        raise RadiographError(_CUT_SHORT) from None
    if pixels.shape[:2] != (header.height, header.width) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise RadiographError(_CUT_SHORT)
    return (pixels, bits) if pixels.ndim == 3 else (_sign(dataset, pixels, bits), bits)


def _decode_plain(dataset: pydicom.Dataset, syntax: str, header: ImageHeader) -> np.ndarray:
    samples = int(dataset.get("SamplesPerPixel", 1))
    if not 1 <= int(dataset.BitsStored) <= header.bits or samples not in (1, 3):
        raise RadiographError(_CUT_SHORT)
    needed = header.height * header.width * samples * header.bits // 8
    if _text(dataset, "PhotometricInterpretation") == "YBR_FULL_422":
        needed = needed * 2 // 3
    if _SYNTAXES[syntax] == "RLE":
        _unpack_rle(dataset, samples, header)
    elif len(dataset.PixelData) < needed:
        raise RadiographError("The DICOM file is cut short; it holds fewer pixels than its header says.")
    if syntax == _DEFLATED or _SYNTAXES[syntax] == "RLE":
        syntax = "1.2.840.10008.1.2.1"
    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    return get_decoder(UID(syntax)).as_array(dataset, index=0, correct_unused_bits=False)[0]


def _unpack_rle(dataset: pydicom.Dataset, samples: int, header: ImageHeader) -> None:
    """Put plain pixels in place of run-length encoded ones, which may be no more than the header says."""
    import imagecodecs

    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    size = header.height * header.width * samples * header.bits // 8
    try:
        pixels = imagecodecs.dicomrle_decode(frame, f"<u{header.bits // 8}", out=size)
    except imagecodecs.DicomrleError:
        pixels = b""
    if len(pixels) != size:
        # Some writers add a few bytes to a segment; pydicom leaves those out, but unpacks whatever it is given.
        if not _unpacks_within(frame, header.height * header.width + _RLE_SURPLUS):
            raise RadiographError(_CUT_SHORT)
        dataset.file_meta = getattr(dataset, "file_meta", None) or pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = RLELossless
        array = get_decoder(RLELossless).as_array(dataset, index=0, raw=True, correct_unused_bits=False)[0]
        pixels = (array if samples == 1 else array.transpose(2, 0, 1)).tobytes()
    # One sample after another, each of the whole film.
    dataset.PixelData, dataset.PlanarConfiguration = pixels, 1


def _unpacks_within(frame: bytes, limit: int) -> bool:
    """Tell whether no run-length encoded segment of a frame unpacks to more than `limit` bytes (PS3.5, annex G)."""
    count = struct.unpack_from("<I", frame)[0]
    if not 1 <= count <= 15:
        return False
    places = [*struct.unpack_from(f"<{count}I", frame, 4), len(frame)]
    for start, end in pairwise(places):
        at, unpacked = start, 0
        while at < end:
            told = frame[at]
            unpacked += told + 1 if told < 128 else 257 - told if told > 128 else 0
            at += told + 2 if told < 128 else 2 if told > 128 else 1
            if unpacked > limit:
                return False
    return True


def _decode_compressed(dataset: pydicom.Dataset, syntax: str, header: ImageHeader) -> tuple[np.ndarray, int]:
    import imagecodecs

    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    name = _SYNTAXES[syntax]
    inside = read_jpeg2000_header(frame) if name == "JPEG 2000" else read_jpeg_header(frame)
    if inside is None or (inside.height, inside.width) != (header.height, header.width) or inside.samples not in (1, 3):
        raise RadiographError(_CUT_SHORT)
    # The end-of-image mark is looked for: without it libjpeg fills what is missing with grey and says nothing, and
    # CharLS may search for many seconds before it gives up.
    if name != "JPEG 2000" and b"\xff\xd9" not in frame.rstrip(b"\0")[-4:]:
        raise RadiographError(_CUT_SHORT)
    decoders: dict[str, Callable[[bytes], np.ndarray]] = {
        "JPEG": imagecodecs.jpeg8_decode,
        "JPEG Lossless": imagecodecs.jpegsof3_decode,
        "JPEG-LS": imagecodecs.jpegls_decode,
        "JPEG 2000": partial(imagecodecs.jpeg2k_decode, numthreads=4),
    }
    if name == "JPEG" and inside.samples == 3:
        space = "RGB" if _text(dataset, "PhotometricInterpretation") == "RGB" else "YCBCR"
        pixels = imagecodecs.jpeg8_decode(frame, colorspace=space, outcolorspace="RGB")
    else:
        pixels = decoders[name](frame)
    # Some archives write fewer BitsStored than the stream has; then the stream is right.
    bits = int(dataset.BitsStored)
    return pixels, inside.bits if int(pixels.max()) >= 2**bits else bits


def _sign(dataset: pydicom.Dataset, pixels: np.ndarray, bits: int) -> np.ndarray:
    """Return int32 values of the stored bits alone; bits above them may hold an overlay."""
    shift = max(int(dataset.get("HighBit", bits - 1)) - bits + 1, 0)
    signed = int(dataset.get("PixelRepresentation", 0)) == 1
    values = pixels.astype(np.int32) if shift == 0 else pixels.astype(np.int32) >> shift
    values &= (1 << bits) - 1
    if signed:
        values -= (values >> (bits - 1)) << bits
    return values


def _show_grey(dataset: pydicom.Dataset, stored: np.ndarray, bits: int) -> tuple[np.ndarray, list[str]]:
    """Return a grey film as it is displayed, bone bright, and warnings."""
    padding = _find_padding(dataset, stored)
    values = _apply_modality(dataset, stored)
    exposed = values if padding is None else values[~padding]
    if exposed.size == 0 or exposed.min() == exposed.max():
        raise RadiographError("The film holds one single grey value; expected a picture of a wrist.")
    inverted = (
        _text(dataset, "PhotometricInterpretation") == "MONOCHROME1"
        or _text(dataset, "PresentationLUTShape") == "INVERSE"
    )
    notes: list[str] = []
    voi = _find_voi(dataset)
    if voi is None and bits <= 8 and values is stored and not int(dataset.get("PixelRepresentation", 0)):
        shown, notes = show_8_bit(stored)
        shown = shown * np.float32(255 / (2**bits - 1)) if not notes else shown
    elif voi is None:
        shown = stretch(values, *find_full_range(exposed))
    else:
        shown, notes = _apply_voi(voi, values, exposed, inverted)
    shown = np.subtract(1, shown, out=shown) if inverted else shown
    if padding is not None:
        shown[padding] = 0
    return shown, notes


def _find_padding(dataset: pydicom.Dataset, stored: np.ndarray) -> np.ndarray | None:
    """Return where the film was filled up around the picture, or None; such pixels are no measurement."""
    try:
        first = int(dataset.PixelPaddingValue)
        last = int(dataset.get("PixelPaddingRangeLimit", first))
    except (AttributeError, TypeError, ValueError):
        return None
    padding = (stored >= min(first, last)) & (stored <= max(first, last))
    return padding if padding.any() else None


def _apply_modality(dataset: pydicom.Dataset, stored: np.ndarray) -> np.ndarray:
    """Return stored values after the modality look-up table, or slope and intercept; `stored` itself without either."""
    table = _read_table(dataset, "ModalityLUTSequence")
    if table is not None:
        entries, first, _ = table
        return entries[np.clip(stored - first, 0, len(entries) - 1)].astype(np.float32)
    slope, intercept = _number(dataset, "RescaleSlope", 1.0), _number(dataset, "RescaleIntercept", 0.0)
    if not (1e-6 < abs(slope) < 1e6 and abs(intercept) < 1e9) or (slope, intercept) == (1.0, 0.0):
        return stored
    return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)


_Voi = tuple[Callable[[np.ndarray], np.ndarray], float, float]


def _find_voi(dataset: pydicom.Dataset) -> _Voi | None:
    """Return the film's first VOI look-up table or else its first window: the mapping to [0, 1] and its two ends."""
    table = _read_table(dataset, "VOILUTSequence")
    if table is not None:
        entries, first, bits = table
        scaled = (entries / max(2**bits - 1, int(entries.max()), 1)).astype(np.float32)
        last = len(scaled) - 1
        return (
            lambda x: scaled[np.clip(np.rint(x - first).astype(np.int64), 0, last)],
            float(first),
            float(first + last),
        )
    centre, width = _number(dataset, "WindowCenter", np.nan), _number(dataset, "WindowWidth", np.nan)
    function = _text(dataset, "VOILUTFunction")
    if not (abs(centre) < 1e9 and 1e-6 < width < 1e9):
        return None
    if function == "SIGMOID":
        return lambda x: _sigmoid((x - centre) * (4 / width)), centre - width, centre + width
    if function != "LINEAR_EXACT":
        # PS3.3 C.11.2.1.2.1: the LINEAR window of width w reaches over w - 1 steps, half a step below its centre.
        centre, width = centre - 0.5, width - 1
    if width <= 0:
        return None
    low, high = centre - width / 2, centre + width / 2
    return lambda x: stretch(x, low, high), low, high


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return (1 / (1 + np.exp(-np.clip(x, -60, 60)))).astype(np.float32)


def _apply_voi(voi: _Voi, values: np.ndarray, exposed: np.ndarray, inverted: bool) -> tuple[np.ndarray, list[str]]:
    """Return values after the film's window, or after a wider one where that would hide much of the picture.

    A window that turns the air around a limb black is what the radiographer meant, and so is a bright collimator edge.
    But bone burnt to white can be brought back neither by a reader at the viewer nor by a network. So where more than
    5% of the pixels turn white, not counting those that hold the extreme value anyway (a collimator, a saturated
    detector), the bright end moves out to the film's own full range; and where a window leaves less than 2% of the
    pixels between black and white, or 99.8% of them within a tenth of the way (it belongs to another picture), the
    full range is shown.
    """
    show, dark_end, bright_end = (voi[0], voi[2], voi[1]) if inverted else voi
    sample = np.ravel(exposed)[:: max(1, exposed.size // 400_000)]
    shown = show(sample)
    shown = 1 - shown if inverted else shown
    extreme = exposed.min() if inverted else exposed.max()
    varied = sample != extreme
    white = float((varied & (shown > 0.999)).sum()) / max(int(varied.sum()), 1)
    grey = float(((shown > 0.001) & (shown < 0.999)).mean())
    spread = float(np.subtract(*np.quantile(shown, (0.999, 0.001))))
    low, high = find_full_range(exposed)
    bright_end = min(low, bright_end) if inverted else max(high, bright_end)
    ends = (bright_end, dark_end) if inverted else (dark_end, bright_end)
    if grey < 0.02 or (spread < 0.1 and high > low) or not ends[0] < ends[1]:
        note = "The film's own window does not fit its pixels; its full range is shown."
        return stretch(values, low, high), [note]
    if white > _WHITE_LIMIT:
        note = f"The film's own window would turn {white:.0%} of it white; its bright end was widened."
        return stretch(values, *ends), [note]
    return show(values), []


def _read_table(dataset: pydicom.Dataset, name: str) -> tuple[np.ndarray, int, int] | None:
    """Return the entries of the first look-up table called `name`, the value the first stands for, and its bits."""
    items = dataset.get(name)
    if not items:
        return None
    try:
        count, first, bits = (int(number) for number in items[0].LUTDescriptor)
        count = count % 65536 or 65536
        data = items[0].LUTData
        if isinstance(data, bytes):
            order = "<" if dataset.original_encoding[1] is not False else ">"
            data = np.frombuffer(data, "u1" if len(data) in (count, count + count % 2) else order + "u2")
        entries = np.asarray(data, dtype=np.int64)[:count]
    except (AttributeError, TypeError, ValueError):
        raise RadiographError("The DICOM film has a damaged look-up table; expected one that can be read.") from None
    if len(entries) != count or not 1 <= bits <= 16:
        raise RadiographError("The DICOM film has a damaged look-up table; expected one that can be read.")
    return entries, first, bits


def _text(dataset: pydicom.Dataset, name: str) -> str:
    """Return an attribute as a trimmed upper-case word, "" where it is missing or odd."""
    value = dataset.get(name)
    return value.strip().upper() if isinstance(value, str) else ""


def _number(dataset: pydicom.Dataset, name: str, default: float) -> float:
    """Return the first value of a numeric attribute, `default` where it is missing, odd or not finite."""
    value = dataset.get(name)
    if isinstance(value, list | pydicom.multival.MultiValue):
        value = value[0] if len(value) else None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return default
    return number if np.isfinite(number) else default


def _laterality(dataset: pydicom.Dataset) -> str | None:
    side = _text(dataset, "ImageLaterality") or _text(dataset, "Laterality")
    return side if side in ("L", "R") else None


def _spacing(dataset: pydicom.Dataset) -> tuple[tuple[float, float] | None, bool]:
    """Return the distance between pixel centres in mm, and whether it is that at the detector."""
    for name in ("ImagerPixelSpacing", "PixelSpacing"):
        try:
            down, across = (float(step) for step in dataset.get(name))
        except (TypeError, ValueError):
            continue
        if down > 0 and across > 0 and np.isfinite(down + across):
            return (down, across), name == "ImagerPixelSpacing"
    return None, False
