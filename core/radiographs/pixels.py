"""What an image file says of its own size, and how stored grey values become shown ones.

Nothing here decodes a picture: sizes are read from headers, so that a film that is too large is refused before any
memory is spent on it.
"""

from __future__ import annotations

import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np

from core.errors import RadiographError

MAX_PIXELS = 64_000_000
MAX_BYTES = 8 * MAX_PIXELS
"""No film is unpacked to more: grey of 64 bits, or colour and opacity of 16 bits each, at the largest size."""
MIN_SIDE = 32

_CUT_SHORT = "The {kind} file is damaged or cut short; expected a complete file."
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_TIFF_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


_quiet_lock = threading.RLock()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep decoders' Python warnings, which may quote a file, from every screen and log.

    Python's warning filters belong to the whole process, so only one thread at a time may change them.
    """
    with _quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True)
class ImageHeader:
    """What a header says of a picture before it is decoded.

    Attributes
    ----------
    height, width : int
    bits : int
        Bits a sample.
    samples : int
        Samples a pixel: 1 grey or palette, 2 grey and alpha, 3 colour, 4 colour and alpha.
    orientation : int
        TIFF orientation, 1 to 8; 1 where the header has none.
    white_is_zero : bool
        True where the smallest value is shown white.
    opacity : bool
        True where the last of two or four samples says how opaque a pixel is.
    palette : tuple of int
        Red, green and blue of every palette entry (all reds first), 16 bits each; empty without a palette.
    """

    height: int
    width: int
    bits: int = 8
    samples: int = 1
    orientation: int = 1
    white_is_zero: bool = False
    opacity: bool = True
    palette: tuple[int, ...] = ()


def check_size(height: int, width: int) -> None:
    """Refuse a film that is too small to show a wrist or too large to be a film.

    Raises
    ------
    RadiographError
        Below 32 pixels a side or above 64 megapixels.
    """
    if height < MIN_SIDE or width < MIN_SIDE:
        raise RadiographError(
            f"The film is {width} x {height} pixels; expected at least {MIN_SIDE} x {MIN_SIDE} to show a wrist."
        )
    if height * width > MAX_PIXELS:
        raise RadiographError(
            f"The film says it is {width} x {height} pixels; expected at most {MAX_PIXELS // 1_000_000} megapixels."
        )


def read_png_header(data: bytes) -> ImageHeader:
    """Return the size of a PNG, after checking that every chunk is there and whole.

    Raises
    ------
    RadiographError
        Animated, damaged or cut short.
    """
    broken = RadiographError(_CUT_SHORT.format(kind="PNG"))
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise broken
    width, height, bits, colour = struct.unpack(">IIBB", data[16:26])
    # The size is judged first: a film that is far too large is refused as such even where its pixels are missing.
    check_size(height, width)
    if colour not in _PNG_SAMPLES:
        raise broken
    view, start, name = memoryview(data), 8, b""
    while name != b"IEND":
        if start + 12 > len(data):
            raise broken
        length, name = struct.unpack(">I4s", view[start : start + 8])
        end = start + 12 + length
        if end > len(data) or zlib.crc32(view[start + 4 : end - 4]) != struct.unpack(">I", view[end - 4 : end])[0]:
            raise broken
        if name == b"acTL":
            raise RadiographError("The file is an animated PNG; expected one still film.")
        start = end
    return ImageHeader(height, width, bits, _PNG_SAMPLES[colour])


def read_jpeg_header(data: bytes) -> ImageHeader | None:
    """Return the size in a JPEG or JPEG-LS stream's frame header, or None where there is none.

    Returns
    -------
    ImageHeader or None
        `bits` is 8 for baseline, 12 for extended, 2 to 16 for lossless streams.
    """
    start = 2
    while start + 4 <= len(data):
        if data[start] != 0xFF:
            return None
        marker = data[start + 1]
        if marker == 0xFF:
            start += 1
            continue
        if marker in (0xD9, 0xDA):
            return None
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            if start + 10 > len(data):
                return None
            bits, height, width, samples = struct.unpack(">BHHB", data[start + 4 : start + 10])
            return ImageHeader(height, width, bits, samples)
        start += 2 + struct.unpack(">H", data[start + 2 : start + 4])[0]
    return None


def read_jpeg2000_header(data: bytes) -> ImageHeader | None:
    """Return the size in a JPEG 2000 codestream's SIZ segment (bare, or inside a JP2 box), or None."""
    start = data.find(b"\xff\x4f\xff\x51", 0, 4096)
    if start < 0 or len(data) < start + 45:
        return None
    right, bottom, left, top = struct.unpack(">IIII", data[start + 8 : start + 24])
    samples, depth = struct.unpack(">HB", data[start + 40 : start + 43])
    return ImageHeader(max(bottom - top, 0), max(right - left, 0), (depth & 0x7F) + 1, samples)


def read_tiff_header(data: bytes) -> ImageHeader:
    """Return the size of a TIFF, after checking that it has one page and that all its parts lie inside the file.

    Raises
    ------
    RadiographError
        More than one page, damaged or cut short.
    """
    try:
        tags, next_page = _read_tiff_tags(data)
        height, width = tags[257][0], tags[256][0]
    except (struct.error, KeyError, IndexError, ValueError):
        raise RadiographError(_CUT_SHORT.format(kind="TIFF")) from None
    check_size(height, width)
    if next_page:
        raise RadiographError("The TIFF holds more than one page; expected one film a file.")
    offsets, lengths = tags.get(273) or tags.get(324) or (), tags.get(279) or tags.get(325) or ()
    if not offsets or any(start + size > len(data) for start, size in zip(offsets, lengths, strict=False)):
        raise RadiographError(_CUT_SHORT.format(kind="TIFF"))
    first = {tag: values[0] for tag, values in tags.items() if values}
    if first.get(277, 1) > 4 or first.get(258, 1) > 64:
        raise RadiographError("The TIFF has more samples or deeper ones than a film; expected grey of up to 64 bits.")
    if height * width * first.get(277, 1) * first.get(258, 1) > 8 * MAX_BYTES:
        raise RadiographError(f"The TIFF would fill more than {MAX_BYTES // 1_000_000} MB; expected one grey film.")
    # A tile or a strip is unpacked as a whole, however little of it lies inside the film.
    if first.get(322, 0) * first.get(323, 0) > MAX_PIXELS or max(first.get(32997, 1), first.get(32998, 1)) > 1:
        raise RadiographError("The TIFF has tiles that are larger than a film; expected one grey film.")
    orientation = first.get(274, 1)
    return ImageHeader(
        height,
        width,
        bits=first.get(258, 1),
        samples=first.get(277, 1),
        orientation=orientation if 1 <= orientation <= 8 else 1,
        white_is_zero=first.get(262, 1) == 0,
        opacity=first.get(338, 0) == 2,
        palette=tags.get(320, ()) if first.get(262) == 3 else (),
    )


def _read_tiff_tags(data: bytes) -> tuple[dict[int, tuple[int, ...]], int]:
    """Return the integer tags of the first page and the offset of the next one (0 where there is none)."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack(order + "H", data[2:4])[0] == 43
    word, count_type, entry = ("Q", "Q", 20) if big else ("I", "H", 12)
    start = struct.unpack_from(order + word, data, 8 if big else 4)[0]
    count = struct.unpack_from(order + count_type, data, start)[0]
    start += struct.calcsize(order + count_type)
    if count > 4096:
        raise ValueError
    tags = {}
    for place in range(start, start + count * entry, entry):
        tag, kind = struct.unpack_from(order + "HH", data, place)
        values = struct.unpack_from(order + word, data, place + 4)[0]
        field = place + 4 + struct.calcsize(order + word)
        size = _TIFF_BYTES.get(kind, 1) * values
        if size > entry - (field - place):
            field = struct.unpack_from(order + word, data, field)[0]
        if field + size > len(data):
            raise ValueError
        letter = {1: "B", 3: "H", 4: "I", 16: "Q"}.get(kind)
        if letter:
            tags[tag] = struct.unpack_from(f"{order}{values}{letter}", data, field)
    return tags, struct.unpack_from(order + word, data, start + count * entry)[0]


def find_full_range(values: np.ndarray) -> tuple[float, float]:
    """Return the stored values that are to be shown black and white where a film does not say so itself.

    Normally the smallest and the largest value, so that nothing is clipped. Where a few stray pixels (a hot pixel, a
    burnt-in mark) lie further from all others than half the range of these, that end moves to the 0.05% or 99.95%
    quantile: at most that sliver is clipped, and the film is not dark for its sake.

    Parameters
    ----------
    values : numpy.ndarray
        Shape (height, width) or (n,), any integer or floating type, finite.

    Returns
    -------
    low, high : float
    """
    low, high = float(values.min()), float(values.max())
    step = max(1, int((values.size / 250_000) ** (1 / values.ndim)))
    sample = values[(slice(None, None, step),) * values.ndim]
    low_sliver, high_sliver = (float(q) for q in np.quantile(sample, (0.0005, 0.9995)))
    spread = high_sliver - low_sliver
    if spread > 0:
        low = low_sliver if low_sliver - low > spread / 2 else low
        high = high_sliver if high - high_sliver > spread / 2 else high
    return low, high


def stretch(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return `values` with `low` at 0 and `high` at 1 and nothing beyond, as float32.

    Raises
    ------
    RadiographError
        If `high` is not above `low`: the film is blank.
    """
    if not high > low:
        raise RadiographError("The film holds one single grey value; expected a picture of a wrist.")
    # float32 holds 16-bit values exactly and saves memory; wider values are scaled in float64.
    wide = np.float64 if max(abs(low), abs(high)) > 2**24 or high - low < 1e-6 else np.float32
    shown = values.astype(wide)
    shown -= wide(low)
    shown *= wide(1 / (high - low))
    return np.clip(shown, 0, 1, out=shown).astype(np.float32, copy=False)


def show_deep(values: np.ndarray) -> np.ndarray:
    """Return film values that carry no display rule (more than 8 bits, or real numbers) as float32 in [0, 1].

    Such films use any part of their range: a 12-bit film in a 16-bit file would be nearly black if it were divided by
    65,535, and clipped white if it were cut to 8 bits. So the film's own full range is shown (`find_full_range`).

    Raises
    ------
    RadiographError
        Values that are no numbers, or all the same.
    """
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise RadiographError("The film holds pixels that are not numbers; expected grey values only.")
    return stretch(values, *find_full_range(values))


def show_8_bit(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return 8-bit grey values divided by 255, and warnings.

    They are not stretched: somebody chose these greys for display, and what black and white meant to them is part of
    the picture. Only where less than a tenth of the greys is used (a film that was saved nearly black) the full range
    is shown, since neither a reader nor a network would see anything else, and a warning says so.

    Raises
    ------
    RadiographError
        If all values are the same.
    """
    low, high = find_full_range(values)
    if 0 < high - low < 25.5:
        return stretch(values, low, high), ["The film uses less than a tenth of its greys; they were stretched."]
    if high == low:
        stretch(values, low, high)
    return stretch(values, 0, 255), []


def merge_colour(colour: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return the greys of a film that was stored in colour, and warnings.

    A film stored as colour has equal channels, but for the faint chroma that JPEG adds and for small coloured things
    that a viewer draws on it. A photograph has colour everywhere.

    Parameters
    ----------
    colour : numpy.ndarray
        uint8 or uint16, shape (height, width, 3), red, green, blue.

    Returns
    -------
    grey : numpy.ndarray
        Same type, shape (height, width): the luma of ITU-R BT.601; equal channels keep their value.
    warnings : list of str

    Raises
    ------
    RadiographError
        More than a tenth of the picture is clearly coloured, or all of it is tinted.
    """
    step = max(1, int((colour.shape[0] * colour.shape[1] / 500_000) ** 0.5))
    sample = colour[::step, ::step].astype(np.float32)
    full = 255.0 if colour.dtype == np.uint8 else max(float(sample.max()), 1.0)
    chroma = (sample.max(axis=2) - sample.min(axis=2)) / full
    coloured = float((chroma > 0.1).mean())
    if coloured > 0.1 or float(np.median(chroma)) > 0.06:
        raise RadiographError("The file is a colour picture; expected a radiograph in grey.")
    warnings = []
    if coloured > 0.0005:
        warnings.append("Small parts of the film are coloured (a toolbar or a drawing); they were read as grey.")
    return cv2.cvtColor(np.ascontiguousarray(colour), cv2.COLOR_RGB2GRAY), warnings
