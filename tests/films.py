"""Film files made in memory for tests: every format, compression and fault that the reader must know."""

from __future__ import annotations

import struct
import zipfile
import zlib
from functools import cache
from io import BytesIO

import imagecodecs
import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID

SYNTAXES = {
    "implicit": "1.2.840.10008.1.2",
    "explicit": "1.2.840.10008.1.2.1",
    "big endian": "1.2.840.10008.1.2.2",
    "deflated": "1.2.840.10008.1.2.1.99",
    "RLE": "1.2.840.10008.1.2.5",
    "JPEG baseline": "1.2.840.10008.1.2.4.50",
    "JPEG extended": "1.2.840.10008.1.2.4.51",
    "JPEG lossless 57": "1.2.840.10008.1.2.4.57",
    "JPEG lossless 70": "1.2.840.10008.1.2.4.70",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG-LS near": "1.2.840.10008.1.2.4.81",
    "JPEG 2000 lossless": "1.2.840.10008.1.2.4.90",
    "JPEG 2000": "1.2.840.10008.1.2.4.91",
}
LOSSY = {"JPEG baseline", "JPEG extended", "JPEG-LS near", "JPEG 2000"}


def draw_limb(height: int = 240, width: int = 180, seed: int = 0) -> np.ndarray:
    """Return a crude simulated forearm: soft tissue, two bones and a lead marker, float64 in [0, 1], bone bright."""
    y, x = np.mgrid[0:height, 0:width] / [[[height]], [[width]]]
    tissue = 0.32 * np.sqrt(np.clip(1 - ((x - 0.5) / 0.36) ** 2, 0, 1))
    bones = np.zeros_like(tissue)
    for centre, half in ((0.4, 0.09), (0.62, 0.06)):
        across = np.abs(x - centre - 0.03 * np.sin(4 * y)) / half
        bones += np.where(across < 1, 0.25 + 0.3 * across**4, 0)
    noise = np.random.default_rng(seed).normal(0, 0.006, tissue.shape)
    marker = (np.abs(x - 0.9) < 0.03) & (np.abs(y - 0.1) < 0.04)
    return np.clip(0.03 + tissue + bones + noise + 0.9 * marker, 0, 1)


def draw_photograph(height: int = 200, width: int = 260) -> np.ndarray:
    """Return a colourful picture, uint8, shape (height, width, 3)."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / 20), np.sin(y / 25 + 1), np.cos((x + y) / 30)]
    return (127 + 120 * np.dstack(waves)).astype(np.uint8)


def _save(picture: Image.Image, kind: str, **settings: object) -> bytes:
    file = BytesIO()
    picture.save(file, kind, **settings)
    return file.getvalue()


def png_film(bits: int = 8, layout: str = "grey", top: int | None = None, pixels: np.ndarray | None = None) -> bytes:
    """Return a PNG of the limb.

    `layout`: grey, rgb, alpha (grey and alpha), rgba, palette or 1 bit. `top`: the value that the brightest pixel has.
    """
    limb = draw_limb() if pixels is None else pixels
    top = top or 2**bits - 1
    grey = np.rint(limb * top).astype(np.uint16 if bits == 16 else np.uint8)
    full = np.full_like(grey, 2**bits - 1)
    if layout == "1 bit":
        return _save(Image.fromarray(limb > 0.4), "PNG")
    if layout == "palette":
        return _save(Image.fromarray(grey).convert("P"), "PNG")
    stack = {"grey": [grey], "alpha": [grey, full], "rgb": [grey] * 3, "rgba": [grey] * 3 + [full]}[layout]
    return imagecodecs.png_encode(np.dstack(stack) if len(stack) > 1 else grey)


def jpeg_film(orientation: int = 1, colour: bool = False, pixels: np.ndarray | None = None) -> bytes:
    """Return a JPEG of the limb whose EXIF says how it must be turned."""
    limb = draw_limb() if pixels is None else pixels
    picture = Image.fromarray(np.rint(limb * 255).astype(np.uint8))
    exif = Image.Exif()
    exif[274] = orientation
    return _save(picture.convert("RGB") if colour else picture, "JPEG", quality=95, exif=exif)


def tiff_film(values: np.ndarray | None = None, **settings: object) -> bytes:
    """Return a TIFF of `values` (8 bit, 16 bit or float32); by default the limb in 8 bits."""
    values = np.rint(draw_limb() * 255).astype(np.uint8) if values is None else values
    return _save(Image.fromarray(values), "TIFF", **settings)


def raw_tiff(values: np.ndarray, photometric: int = 1, orientation: int = 1) -> bytes:
    """Return an uncompressed little-endian TIFF written by hand: grey (rows, columns) or colour (rows, columns, 3)."""
    samples = 1 if values.ndim == 2 else values.shape[2]
    body, bits = values.tobytes(), values.dtype.itemsize * 8
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    entries = [(256, 4, values.shape[1]), (257, 4, values.shape[0]), (258, 3, bits), (259, 3, 1), (262, 3, photometric)]
    entries += [(273, 4, 8), (274, 3, orientation), (277, 3, samples), (278, 4, values.shape[0]), (279, 4, len(body))]
    entries += [(339, 3, kind)]
    directory = struct.pack("<H", len(entries))
    end = 8 + len(body) + 2 + 12 * len(entries) + 4
    for tag, letter, value in entries:
        if samples == 3 and tag in (258, 339):
            directory += struct.pack("<HHII", tag, 3, 3, end + (6 if tag == 339 else 0))
        else:
            directory += struct.pack("<HHII", tag, letter, 1, value)
    tail = struct.pack("<6H", *[bits] * 3, *[kind] * 3) if samples == 3 else b""
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory + bytes(4) + tail


def stored_limb(bits: int, photometric: str = "MONOCHROME2", pixels: np.ndarray | None = None) -> np.ndarray:
    """Return the limb as stored values of `bits` bits, uint8 or uint16, turned round for MONOCHROME1."""
    limb = draw_limb() if pixels is None else pixels
    limb = 1 - limb if photometric == "MONOCHROME1" else limb
    return np.rint(limb * (2**bits - 1)).astype(np.uint8 if bits <= 8 else np.uint16)


def dicom_film(
    syntax: str = "explicit",
    photometric: str = "MONOCHROME2",
    bits: int = 12,
    values: np.ndarray | None = None,
    pixels: np.ndarray | None = None,
    headerless: bool = False,
    **attributes: object,
) -> bytes:
    """Return a DICOM film.

    `syntax`: a key of SYNTAXES or any UID. `values`: stored values, signed where their type is; without them, `pixels`
    (as displayed, in [0, 1]) or the limb are stored.
    `attributes`: DICOM keywords to set; None takes one away.
    """
    values = stored_limb(bits, photometric, pixels) if values is None else values
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3.4"
    dataset.Modality, dataset.PhotometricInterpretation = "DX", photometric
    dataset.Rows, dataset.Columns = values.shape[:2]
    dataset.SamplesPerPixel = 1 if values.ndim == 2 else 3
    if values.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = values.dtype.itemsize * 8, bits, bits - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    uid = UID(SYNTAXES.get(syntax, syntax))
    dataset.file_meta.TransferSyntaxUID = uid
    _put_pixels(dataset, syntax, values, bits)
    for keyword, value in attributes.items():
        if value is None:
            if keyword in dataset:
                delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    file = BytesIO()
    if headerless:
        del dataset.file_meta
        dcmwrite(file, dataset, implicit_vr=syntax == "implicit", little_endian=True, enforce_file_format=False)
    else:
        known = syntax in SYNTAXES
        endian = {} if known else {"implicit_vr": False, "little_endian": True}
        dcmwrite(file, dataset, enforce_file_format=True, **endian)
    return file.getvalue()


def _put_pixels(dataset: Dataset, syntax: str, values: np.ndarray, bits: int) -> None:
    # A signed value travels as the two's complement of its stored bits.
    plain = values if values.dtype.kind == "u" else (values.astype(np.int32) & (2**bits - 1)).astype(np.uint16)
    lossless = {"JPEG lossless 57": 6, "JPEG lossless 70": 1}
    if syntax == "RLE":
        dataset.PixelData = values.tobytes()
        order = dataset.file_meta.TransferSyntaxUID
        dataset.file_meta.TransferSyntaxUID = UID(SYNTAXES["explicit"])
        dataset.compress(order, encoding_plugin="pydicom", generate_instance_uid=False)
        return
    if syntax == "JPEG baseline":
        frame = imagecodecs.jpeg8_encode(plain, 97)
    elif syntax == "JPEG extended":
        frame = imagecodecs.jpeg8_encode(plain, 97, bitspersample=12)
    elif syntax in lossless:
        frame = imagecodecs.jpeg8_encode(plain, lossless=True, predictor=lossless[syntax], bitspersample=bits)
    elif syntax in ("JPEG-LS", "JPEG-LS near"):
        frame = imagecodecs.jpegls_encode(plain, 0 if syntax == "JPEG-LS" else 2)
    elif syntax.startswith("JPEG 2000"):
        exact = {"level": 0, "reversible": True} if "lossless" in syntax else {"level": 60, "reversible": False}
        frame = imagecodecs.jpeg2k_encode(plain, codecformat="j2k", bitspersample=bits, **exact)
    else:
        wide = values.astype(values.dtype.newbyteorder(">")) if syntax == "big endian" else values
        dataset.PixelData = wide.tobytes() + b"\0" * (wide.nbytes % 2)
        if syntax not in SYNTAXES:
            dataset.PixelData = encapsulate([dataset.PixelData])
        dataset["PixelData"].VR = "OW"
        return
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True


def wrapped_frame(syntax: str, frame: bytes, like: Dataset) -> bytes:
    """Return a compressed frame of another modality's file as a CR film with that file's description of the pixels."""
    names = ("BitsStored", "HighBit", "PixelRepresentation", "BitsAllocated", "Rows", "Columns")
    film = {name: like[name].value for name in names}
    return dicom_film(
        syntax,
        bits=like.BitsAllocated,
        values=np.zeros((like.Rows, like.Columns), np.uint8 if like.BitsAllocated == 8 else np.uint16),
        PixelData=encapsulate([frame]),
        Modality="CR",
        **film,
    )


def dicom_directory() -> bytes:
    """Return a DICOMDIR without entries."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.1.3.10")
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.file_meta.TransferSyntaxUID = UID(SYNTAXES["explicit"])
    dataset.FileSetID, dataset.DirectoryRecordSequence = "FILMS", []
    file = BytesIO()
    dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def png_header(height: int, width: int) -> bytes:
    """Return a PNG that claims a size and holds next to nothing."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@cache
def bad_files() -> dict[str, bytes]:
    """Return files that must each be refused with one sentence, by what is wrong with them."""
    limb = Image.fromarray(stored_limb(8))
    other = Image.fromarray(255 - stored_limb(8))
    png, jpeg, tiff, dicom = png_film(16), jpeg_film(), tiff_film(), dicom_film()
    report = {"Modality": "SR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11", "PixelData": None}
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as package:
        package.writestr("film.png", png)
    pdf = b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\n"
    two = np.stack([stored_limb(12)] * 2)
    return {
        "empty": b"",
        "text renamed .png": b"This is not a picture.\n" * 20,
        "truncated PNG": png[: len(png) // 2],
        "truncated JPEG": jpeg[: len(jpeg) // 2],
        "truncated TIFF": tiff[: len(tiff) // 2],
        "truncated DICOM": dicom[: len(dicom) // 2],
        "1x1 film": png_film(pixels=np.ones((1, 1))),
        "1x1 DICOM": dicom_film(values=np.ones((1, 1), np.uint16)),
        "40000x40000 PNG header": png_header(40000, 40000),
        "animated GIF": _save(limb.convert("P"), "GIF", save_all=True, append_images=[other.convert("P")]),
        "animated PNG": _save(limb, "PNG", save_all=True, append_images=[other]),
        "WebP": _save(limb.convert("RGB"), "WEBP"),
        "BMP": _save(limb, "BMP"),
        "multi-page TIFF": _save(limb, "TIFF", save_all=True, append_images=[other]),
        "multi-frame DICOM": dicom_film(PixelData=two.tobytes(), NumberOfFrames=2),
        "DICOM without pixels": dicom_film(PixelData=None),
        "DICOM SR": dicom_film(**report),
        "DICOMDIR": dicom_directory(),
        "DICOM PDF": dicom_film(SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1", Modality="OT", PixelData=None),
        "CT slice": dicom_film(Modality="CT"),
        "encrypted PDF": pdf + b"trailer\n<< /Root 1 0 R /Encrypt << /Filter /Standard /V 5 >> >>\n%%EOF\n",
        "PDF": pdf + b"trailer\n<< /Root 1 0 R >>\n%%EOF\n",
        "colour photograph": _save(Image.fromarray(draw_photograph()), "JPEG", quality=90),
        "colour photograph as PNG": _save(Image.fromarray(draw_photograph()), "PNG"),
        "unknown transfer syntax": dicom_film("1.2.3.4.5.6"),
        "unsupported transfer syntax": dicom_film("1.2.840.10008.1.2.4.100"),
        "ZIP": archive.getvalue(),
        "HEIC": struct.pack(">I", 24) + b"ftypheic" + bytes(200),
        "blank film": png_film(pixels=np.full((64, 64), 0.5)),
        "blank DICOM": dicom_film(values=np.full((64, 64), 7, np.uint16)),
        "DICOM that claims more pixels than it has": dicom_film(Rows=7000, Columns=7000),
        "DICOM that claims too many pixels": dicom_film(Rows=60000, Columns=60000),
    }
