"""Bytes of a film file to a `Radiograph`, and a film to the square a network reads and back.

What a file is, is told from its bytes, never from its name. A file is either read as a whole or refused with one plain
sentence; nothing is half-decoded, and no message quotes the file.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from io import BytesIO

import cv2
import numpy as np
from PIL import Image

from core.errors import RadiographError
from core.pixels import (
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
from core.values import Radiograph, WristRegion

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


def _read(data: bytes) -> Radiograph:
    identity = hashlib.sha256(data).hexdigest()
    kind = _tell_kind(data)
    if kind == "DICOM":
        # pydicom takes a third of a second to import; films in other formats need not wait for it.
        from core.dicom import read_dicom

        film = read_dicom(data)
        return Radiograph(
            identity, film.pixels, film.source, film.view, film.laterality, film.spacing_mm, film.warnings
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
        notes.append("The film may be inverted: its border is bright and almost nothing on it is dark.")
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
    from core.dicom import looks_like_dicom

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


@dataclass(frozen=True, eq=False)
class SquareFit:
    """How a film, or the wrist's square on it, lies in the square picture that a network reads.

    Attributes
    ----------
    matrix : numpy.ndarray
        float64, shape (2, 3): film to square, both in pixel-centre coordinates (the centre of the top-left pixel is
        (0, 0), x before y), which is OpenCV's convention.
    film_shape : tuple of int
        (height, width) of the film.
    size : int
        Pixels a side of the square.

    Notes
    -----
    In edge coordinates, where a pixel reaches from i to i + 1, the map is a similarity: film point p becomes
    ``size / side * R (p - centre) + size / 2``. Pixel centres lie half a pixel further in on both sides.
    """

    matrix: np.ndarray
    film_shape: tuple[int, int]
    size: int

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, dtype=np.float64)
        matrix.flags.writeable = False
        object.__setattr__(self, "matrix", matrix)

    @property
    def inverse(self) -> np.ndarray:
        """Square to film, float64, shape (2, 3), pixel-centre coordinates."""
        return cv2.invertAffineTransform(self.matrix)

    @property
    def scale(self) -> float:
        """Pixels of the square for one pixel of the film."""
        return float(np.hypot(self.matrix[0, 0], self.matrix[0, 1]))

    def _find_box(self, margin: float) -> tuple[int, int, int, int]:
        """Return the part of the film that holds the square and a margin: left, top, right, bottom, ends not in it."""
        height, width = self.film_shape
        edge = self.size - 0.5
        corners = np.array([[-0.5, -0.5, 1], [edge, -0.5, 1], [-0.5, edge, 1], [edge, edge, 1]]) @ self.inverse.T
        left, top = np.clip(np.floor(corners.min(axis=0) - margin), 0, (width, height)).astype(int)
        right, bottom = np.clip(np.ceil(corners.max(axis=0) + margin) + 1, 0, (width, height)).astype(int)
        return int(left), int(top), int(right), int(bottom)

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Return what the network reads.

        Parameters
        ----------
        pixels : numpy.ndarray
            The film, `film_shape`, [0, 1].

        Returns
        -------
        numpy.ndarray
            float32, shape (size, size), [0, 1]; 0 outside the film. Where the film is reduced, every film pixel counts
            (area average), so nothing aliases; where it is enlarged, the values between pixels are bilinear.
        """
        height, width = self.film_shape
        if pixels.shape != self.film_shape:
            raise ValueError(f"expected a film of shape {self.film_shape}, got {pixels.shape}")
        left, top, right, bottom = self._find_box(margin=2 + 2 / self.scale)
        if right <= left or bottom <= top:
            return np.zeros((self.size, self.size), np.float32)
        part = np.asarray(pixels[top:bottom, left:right], dtype=np.float32)
        step_x = step_y = 1.0
        if self.scale < 1:
            reduced = [max(1, round(length * self.scale)) for length in part.shape]
            step_y, step_x = part.shape[0] / reduced[0], part.shape[1] / reduced[1]
            part = cv2.resize(part, (reduced[1], reduced[0]), interpolation=cv2.INTER_AREA)
        # Reduced pixel centre i is film pixel centre (i + 0.5) * step - 0.5 + left.
        to_film = np.array([[step_x, 0, (step_x - 1) / 2 + left], [0, step_y, (step_y - 1) / 2 + top], [0, 0, 1]])
        square = cv2.warpAffine(
            part, self.matrix @ to_film, (self.size, self.size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        _clear_outside(square, self.inverse, width, height)
        return np.clip(square, 0, 1, out=square)

    def invert(self, square: np.ndarray) -> np.ndarray:
        """Return a map over the square laid back on the film.

        Parameters
        ----------
        square : numpy.ndarray
            Shape (n, n): any number of cells that share the square evenly, so a coarse feature map too.

        Returns
        -------
        numpy.ndarray
            float32, `film_shape`; bilinear between cells' centres, 0 outside the square.
        """
        height, width = self.film_shape
        if square.ndim != 2 or square.shape[0] != square.shape[1]:
            raise ValueError(f"expected a square map, got shape {square.shape}")
        cells = square.shape[0] / self.size
        to_cells = np.array([[cells, 0, (cells - 1) / 2], [0, cells, (cells - 1) / 2]])
        matrix = to_cells @ np.vstack([self.matrix, [0, 0, 1]])
        # Only the square's own bounding box is touched: the rest of a large film stays untouched zeros.
        left, top, right, bottom = self._find_box(margin=1)
        matrix[:, 2] += matrix[:, :2] @ [left, top]
        film = np.zeros((height, width), np.float32)
        if right > left and bottom > top:
            part = cv2.warpAffine(
                np.ascontiguousarray(square, dtype=np.float32),
                matrix,
                (right - left, bottom - top),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            )
            inside = self.matrix.copy()
            inside[:, 2] += inside[:, :2] @ [left, top]
            _clear_outside(part, inside, self.size, self.size)
            film[top:bottom, left:right] = part
        return film


def _clear_outside(picture: np.ndarray, matrix: np.ndarray, width: int, height: int) -> None:
    """Set to 0, in place, the pixels whose centres `matrix` sends outside a frame of `width` x `height` pixels.

    The inside is convex, so in every row it is one run, whose ends are solved for rather than tested pixel by pixel.
    """
    rows, columns = picture.shape
    y = np.arange(rows, dtype=np.float64)
    first, last = np.zeros(rows), np.full(rows, columns - 1.0)
    for (along, down, shift), length in zip(matrix, (width, height), strict=True):
        start = down * y + shift
        if abs(along) < 1e-12:
            outside = (start < -0.5) | (start > length - 0.5)
            first[outside] = columns
            continue
        ends = np.stack([(-0.5 - start) / along, (length - 0.5 - start) / along])
        first, last = np.maximum(first, ends.min(axis=0)), np.minimum(last, ends.max(axis=0))
    begin = np.clip(np.ceil(first - 1e-9), 0, columns).astype(int)
    end = np.maximum(np.clip(np.floor(last + 1e-9) + 1, 0, columns).astype(int), begin)
    for row, start, stop in zip(picture, begin, end, strict=True):
        row[:start] = 0
        row[stop:] = 0


def fit_square(height: int, width: int, size: int, region: WristRegion | None = None) -> SquareFit:
    """Say how a film, or a region of it, becomes a square.

    Parameters
    ----------
    height, width : int
        Of the film.
    size : int
        Pixels a side of the square.
    region : WristRegion or None
        Its square is cut out and turned so that the fingers point up. Without one the whole film is taken, its
        proportions kept, centred.

    Returns
    -------
    SquareFit
    """
    x, y, side, angle = width / 2, height / 2, float(max(height, width)), 0.0
    if region is not None:
        x, y, side, angle = region.x, region.y, region.side, np.deg2rad(region.angle)
    if not (height > 0 and width > 0 and size > 0 and side > 0 and np.isfinite([x, y, side, angle]).all()):
        raise ValueError("expected a film, a size and a region of positive, finite extent")
    scale = size / side
    # Fingers point along (sin, -cos) on the film, y downwards; on the square along (0, -1).
    turn = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    shift = size / 2 - 0.5 - turn @ [x - 0.5, y - 0.5]
    return SquareFit(np.column_stack([turn, shift]), (height, width), size)
