"""Bytes of a film file to a `Radiograph`; :mod:`core.radiographs.squares` cuts it for a network.

What a file is, is told from its bytes, never from its name. A file is either read as a whole or refused with one plain
sentence; nothing is half-decoded, and no message quotes the file.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from io import BytesIO

import cv2
import numpy as np
from PIL import Image

from core.errors import RadiographError
from core.radiographs.pixels import (
    ImageHeader,
    check_size,
    merge_colour,
    quiet,
    read_jpeg_header,
    read_png_header,
    read_tiff_header,
    show_8_bit,
    show_deep,
)
from core.radiographs.squares import SquareFit, fit_square
from core.values import Radiograph

__all__ = ["SquareFit", "fit_square", "read_radiograph"]

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_OTHER_STARTS = (
    (b"GIF8", "a GIF"),
    (b"BM", "a BMP picture"),
    (b"PK\3\4", "a ZIP archive"),
    (b"PK\5\6", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\0\0\0\x0cjP", "a JPEG 2000 picture outside DICOM"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture outside DICOM"),
)
_EXPECTED = "expected a radiograph as DICOM, PNG, JPEG or TIFF."


def read_radiograph(data: bytes, name: str = "") -> Radiograph:
    """Read one film.

    Parameters
    ----------
    data : bytes
        A whole file: DICOM (CR, DX, DR, RF, RG; secondary captures with a warning), PNG, JPEG or TIFF.
    name : str
        Not looked at: a name can lie, and it may be a patient's.

    Returns
    -------
    Radiograph
        Pixels in [0, 1] as displayed, bone bright. Pictures that are not DICOM are taken to be bone bright as they
        are; one that looks inverted is not turned round silently, but has a warning.

    Raises
    ------
    RadiographError
        One sentence that says what was expected and what came.
    """
    data = bytes(data)
    try:
        return _read(data)
    except RadiographError as error:
        refusal = str(error)
    except Exception:
        refusal = "The file is damaged or of an unusual kind and cannot be read; " + _EXPECTED
    # Raised out here, so that no decoder's own error, which may quote the file, hangs on to it as context.
    raise RadiographError(refusal)


_INVERTED = "The film may be inverted: its border is bright and almost nothing on it is dark."


def _read(data: bytes) -> Radiograph:
    identity = hashlib.sha256(data).hexdigest()
    kind = _tell_kind(data)
    if kind == "DICOM":
        # pydicom takes a third of a second to import; films in other formats need not wait for it.
        from core.radiographs.dicom import read_dicom

        film = read_dicom(data)
        notes = film.warnings + (_INVERTED,) * _looks_inverted(film.pixels)
        return Radiograph(
            identity, film.pixels, film.source, film.view, film.laterality, film.spacing_mm, notes, film.at_detector
        )
    stored, header = {"PNG": _read_png, "JPEG": _read_jpeg, "TIFF": _read_tiff}[kind](data)
    notes: list[str] = []
    if stored.ndim == 3:
        stored, more = merge_colour(stored)
        notes += more
    if stored.dtype == np.uint8:
        pixels, more = show_8_bit(stored)
        notes += more
    else:
        pixels = show_deep(stored)
    pixels = _orient(1 - pixels if header.white_is_zero else pixels, header.orientation)
    if _looks_inverted(pixels):
        notes.append(_INVERTED)
    source = kind if kind == "JPEG" else f"{kind}, {header.bits} bit"
    return Radiograph(identity, np.ascontiguousarray(pixels), source, warnings=tuple(notes))


def _tell_kind(data: bytes) -> str:
    """Return ``"DICOM"``, ``"PNG"``, ``"JPEG"`` or ``"TIFF"``; refuse the rest by what it is."""
    if not data:
        raise RadiographError("The file is empty; " + _EXPECTED)
    if data[128:132] == b"DICM":
        return "DICOM"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(_TIFF_STARTS):
        return "TIFF"
    if b"%PDF-" in data[:1024]:
        raise RadiographError("A PDF is not a radiograph; " + _EXPECTED)
    what = next((what for start, what in _OTHER_STARTS if data.startswith(start)), None)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        what = "a WebP picture"
    if data[4:8] == b"ftyp":
        what = "a HEIC or AVIF picture, or a film in motion"
    if what:
        raise RadiographError(f"The file is {what}; " + _EXPECTED)
    from core.radiographs.dicom import looks_like_dicom

    if looks_like_dicom(data):
        return "DICOM"
    head = data[:512]
    is_text = all(byte >= 32 or byte in b"\t\n\r\f" for byte in head)
    raise RadiographError(("The file is text; " if is_text else "The file is of no kind that is known; ") + _EXPECTED)


def _read_png(data: bytes) -> tuple[np.ndarray, ImageHeader]:
    header = read_png_header(data)
    if header.bits == 16 and header.samples > 1:
        # Pillow would keep the upper eight bits only, which may hold next to nothing of a 12-bit film.
        import imagecodecs

        return _flatten(imagecodecs.png_decode(data)), header
    pixels, orientation = _open(data, "PNG")
    return pixels, replace(header, orientation=orientation)


def _read_jpeg(data: bytes) -> tuple[np.ndarray, ImageHeader]:
    header = read_jpeg_header(data)
    if header is None or b"\xff\xd9" not in data[-65536:]:
        raise RadiographError("The JPEG file is damaged or cut short; expected a complete file.")
    check_size(header.height, header.width)
    if header.bits != 8:
        raise RadiographError(f"The JPEG file has {header.bits} bits a sample; expected 8 outside DICOM.")
    pixels, orientation = _open(data, "JPEG")
    return pixels, replace(header, orientation=orientation)


def _read_tiff(data: bytes) -> tuple[np.ndarray, ImageHeader]:
    import imagecodecs

    header = read_tiff_header(data)
    # Not Pillow: it keeps eight bits of deep colour, and its libtiff writes to stderr where a file is damaged.
    pixels = imagecodecs.tiff_decode(data)
    if pixels.shape[:2] != (header.height, header.width):
        raise RadiographError("The TIFF file is damaged or of an unusual layout; expected one grey film.")
    if header.palette:
        colours = np.array(header.palette, dtype=np.uint16).reshape(3, -1).T
        return (colours[pixels] >> 8).astype(np.uint8), header
    if header.bits < 8 and pixels.dtype != bool:
        pixels = (pixels * (255 // (2**header.bits - 1))).astype(np.uint8)
    return _flatten(pixels, header.opacity), header


def _open(data: bytes, kind: str) -> tuple[np.ndarray, int]:
    """Decode with Pillow; return grey (height, width) or colour (height, width, 3), and the EXIF orientation."""
    with quiet():
        picture = Image.open(BytesIO(data), formats=(kind,))
        picture.load()
        try:
            orientation = int(picture.getexif().get(274, 1))
        except Exception:
            orientation = 1
        if picture.mode in ("P", "PA"):
            picture = picture.convert("RGBA" if "transparency" in picture.info or picture.mode == "PA" else "RGB")
        elif picture.mode not in ("1", "L", "LA", "RGB", "RGBA", "F", "I") and not picture.mode.startswith("I;16"):
            picture = picture.convert("RGB")
        pixels = np.asarray(picture)
    return _flatten(pixels), orientation


def _flatten(pixels: np.ndarray, opacity: bool = True) -> np.ndarray:
    """Return grey or three-channel pixels; what is not opaque is laid over black, the background of a film."""
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4) and not opacity:
        pixels = pixels[..., :-1]
    elif pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        top = float(np.iinfo(pixels.dtype).max)
        shown = pixels[..., :-1] * (pixels[..., -1:] / np.float32(top))
        pixels = np.rint(shown).astype(pixels.dtype)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise RadiographError("The picture has an unusual number of channels; expected grey or colour.")
    return pixels


def _orient(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return the picture the right way up by its TIFF/EXIF orientation (1 to 8)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.T
    flip_rows, flip_columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return pixels[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def _looks_inverted(pixels: np.ndarray) -> bool:
    """Tell whether bone looks dark: air, which fills most borders, is bright, and almost nothing is dark."""
    small = cv2.resize(np.ascontiguousarray(pixels), (48, 48), interpolation=cv2.INTER_AREA)
    border = np.concatenate([small[:4].ravel(), small[-4:].ravel(), small[:, :4].ravel(), small[:, -4:].ravel()])
    return float(np.median(border)) > 0.7 and float((small < 0.12).mean()) < 0.1
