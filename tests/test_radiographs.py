"""core.radiographs against the limb that was written, pydicom's own arithmetic, real films and hand-worked numbers."""

import contextlib
import hashlib
import io
import itertools
import logging
import os
import pickle
import subprocess
import sys
import tempfile
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels import apply_modality_lut, apply_voi_lut, apply_windowing

from core.errors import RadiographError
from core.radiographs import fit_square, read_radiograph
from core.radiographs import pixels as pixel_rules
from core.values import FITS, Radiograph, WristRegion
from tests import films

LIMB = films.draw_limb()


def real(name: str) -> bytes:
    """Return a DICOM file of a real machine that comes with pydicom or pydicom-data; the network is not asked."""
    path = get_testdata_file(name, download=False)
    assert path, f"{name} should come with pydicom-data"
    with open(path, "rb") as file:
        return file.read()


def spread(values: np.ndarray) -> np.ndarray:
    """Return values with their own minimum at 0 and maximum at 1."""
    values = values.astype(np.float64)
    return (values - values.min()) / (values.max() - values.min())


def refusal(data: bytes) -> str:
    with pytest.raises(RadiographError) as caught:
        read_radiograph(data)
    return str(caught.value)


# --- PNG, JPEG, TIFF --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["grey", "alpha", "rgb", "rgba", "palette"])
def test_8_bit_png_is_shown_as_it_is(layout):
    film = read_radiograph(films.png_film(8, layout))
    np.testing.assert_allclose(film.pixels, np.rint(LIMB * 255) / 255, atol=1e-6)
    assert film.pixels.dtype == np.float32
    assert not film.pixels.flags.writeable
    assert film.source == "PNG, 8 bit"
    assert film.warnings == ()


@pytest.mark.parametrize("layout", ["grey", "alpha", "rgb", "rgba"])
@pytest.mark.parametrize("top", [65535, 4095])
def test_16_bit_png_keeps_every_grey_and_is_not_clipped(layout, top):
    film = read_radiograph(films.png_film(16, layout, top=top))
    stored = np.rint(LIMB * top)
    np.testing.assert_allclose(film.pixels, spread(stored), atol=1e-4)
    assert (film.pixels == 1).sum() == (stored == stored.max()).sum()
    assert len(np.unique(film.pixels)) == len(np.unique(stored))
    assert film.source == "PNG, 16 bit"


def test_one_bit_png_is_black_and_white():
    film = read_radiograph(films.png_film(layout="1 bit"))
    np.testing.assert_array_equal(film.pixels, LIMB > 0.4)
    assert film.source == "PNG, 1 bit"


def test_what_is_transparent_is_black():
    limb = np.rint(LIMB * 255).astype(np.uint8)
    alpha = np.full_like(limb, 255)
    alpha[:40] = 0
    file = io.BytesIO()
    Image.merge("LA", [Image.fromarray(limb), Image.fromarray(alpha)]).save(file, "PNG")
    film = read_radiograph(file.getvalue())
    assert film.pixels[:40].max() == 0
    np.testing.assert_allclose(film.pixels[40:], limb[40:] / 255, atol=1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_honoured_in_every_format(orientation):
    data = films.jpeg_film(orientation)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))) / 255
    np.testing.assert_allclose(read_radiograph(data).pixels, upright, atol=1e-6)
    exif = Image.Exif()
    exif[274] = orientation
    for kind in ("PNG", "TIFF"):
        file = io.BytesIO()
        Image.open(io.BytesIO(films.png_film())).save(file, kind, exif=exif)
        turned = read_radiograph(file.getvalue()).pixels
        assert turned.shape == upright.shape
        np.testing.assert_allclose(turned, upright, atol=0.1)
    deep = read_radiograph(films.raw_tiff(films.stored_limb(16), orientation=orientation)).pixels
    np.testing.assert_allclose(deep, spread(upright), atol=0.1)


def test_colour_jpeg_of_a_grey_film_is_grey():
    film = read_radiograph(films.jpeg_film(colour=True))
    assert np.abs(film.pixels - LIMB).mean() < 0.01
    assert film.source == "JPEG"
    assert film.warnings == ()


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_tiff_8_bit(compression):
    film = read_radiograph(films.tiff_film(compression=compression))
    np.testing.assert_allclose(film.pixels, np.rint(LIMB * 255) / 255, atol=1e-6)
    assert film.source == "TIFF, 8 bit"


@pytest.mark.parametrize("mode", ["RGB", "P", "LA", "RGBA", "CMYK", "1"])
def test_tiff_layouts(mode):
    grey = Image.fromarray(films.stored_limb(8))
    picture = Image.fromarray(LIMB > 0.4) if mode == "1" else grey.convert(mode)
    file = io.BytesIO()
    picture.save(file, "TIFF", **({"compression": "group4"} if mode == "1" else {}))
    expected = np.asarray(picture) if mode == "1" else np.asarray(grey) / 255
    np.testing.assert_allclose(read_radiograph(file.getvalue()).pixels, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["u2", "i2", "f4", "rgb", "lzw", "white is zero"])
def test_deep_tiff(kind):
    stored = np.rint(LIMB * 4095).astype(np.uint16)
    data = {
        "u2": lambda: films.raw_tiff(stored),
        "i2": lambda: films.raw_tiff(stored.astype(np.int16) - 1000),
        "f4": lambda: films.tiff_film((LIMB * 3.5 - 1).astype(np.float32)),
        "rgb": lambda: films.raw_tiff(np.dstack([stored] * 3), photometric=2),
        "lzw": lambda: films.tiff_film(stored, compression="tiff_lzw"),
        "white is zero": lambda: films.raw_tiff(4095 - stored, photometric=0),
    }[kind]()
    np.testing.assert_allclose(read_radiograph(data).pixels, spread(LIMB), atol=4e-4)


def test_float_tiff_with_holes_is_refused():
    values = LIMB.astype(np.float32)
    values[3, 3] = np.nan
    assert "not numbers" in refusal(films.tiff_film(values))


def test_one_hot_pixel_does_not_darken_the_film():
    stored = np.rint(LIMB * 4095).astype(np.uint16)
    stored[5, 5] = 65535
    file = io.BytesIO()
    Image.fromarray(stored).save(file, "PNG")
    shown = read_radiograph(file.getvalue()).pixels
    assert np.median(shown) == pytest.approx(np.median(spread(np.rint(LIMB * 4095))), abs=0.02)
    assert (shown == 1).mean() < 0.002


def test_nearly_black_film_is_stretched_and_said_so():
    film = read_radiograph(films.png_film(8, top=20))
    assert film.pixels.max() == 1
    assert any("stretched" in warning for warning in film.warnings)


def test_inverted_film_is_left_alone_with_a_warning():
    film = read_radiograph(films.png_film(pixels=1 - LIMB))
    np.testing.assert_allclose(film.pixels, np.rint((1 - LIMB) * 255) / 255, atol=1e-6)
    assert any("inverted" in warning for warning in film.warnings)
    assert read_radiograph(films.png_film()).warnings == ()


def test_small_coloured_toolbar_is_read_with_a_warning():
    picture = np.dstack([np.rint(LIMB * 255).astype(np.uint8)] * 3)
    picture[-10:] = (20, 160, 40)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=90)
    film = read_radiograph(file.getvalue())
    assert any("coloured" in warning for warning in film.warnings)
    assert np.abs(film.pixels[:-20] - LIMB[:-20]).mean() < 0.02


def test_the_name_says_nothing():
    data = films.png_film()
    assert read_radiograph(data, "film.dcm").source == "PNG, 8 bit"
    assert read_radiograph(data).id == hashlib.sha256(data).hexdigest()


# --- DICOM --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("syntax", films.SYNTAXES)
def test_every_transfer_syntax_gives_the_limb_bone_bright(syntax, photometric):
    bits = 8 if syntax == "JPEG baseline" else 12
    film = read_radiograph(films.dicom_film(syntax, photometric, bits))
    expected = np.rint(LIMB * (2**bits - 1))
    expected = expected / 255 if bits == 8 else spread(expected)
    assert np.abs(film.pixels - expected).max() < (0.02 if syntax in films.LOSSY else 1e-3)
    assert film.source.startswith("DICOM DX, ")


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 15, 16])
@pytest.mark.parametrize("syntax", ["explicit", "RLE", "JPEG lossless 57", "JPEG lossless 70", "JPEG-LS"])
def test_every_depth(syntax, bits):
    shown = read_radiograph(films.dicom_film(syntax, bits=bits)).pixels
    stored = films.stored_limb(bits)
    np.testing.assert_allclose(shown, stored / 255 if bits == 8 else spread(stored), atol=1e-6)


@pytest.mark.parametrize(
    "syntax", ["explicit", "implicit", "big endian", "RLE", "JPEG lossless 70", "JPEG 2000 lossless"]
)
@pytest.mark.parametrize("bits", [12, 16])
def test_signed_pixels(syntax, bits):
    stored = (films.stored_limb(bits).astype(np.int32) - 2 ** (bits - 1)).astype(np.int16)
    shown = read_radiograph(films.dicom_film(syntax, bits=bits, values=stored)).pixels
    np.testing.assert_allclose(shown, spread(stored), atol=1e-6)


def test_inversion_happens_once():
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    plain = read_radiograph(films.dicom_film(**window)).pixels
    one = read_radiograph(films.dicom_film(photometric="MONOCHROME1", **window)).pixels
    both = read_radiograph(films.dicom_film(photometric="MONOCHROME1", PresentationLUTShape="INVERSE", **window)).pixels
    shape = films.dicom_film(values=films.stored_limb(12, "MONOCHROME1"), PresentationLUTShape="INVERSE", **window)
    for shown in (one, both, read_radiograph(shape).pixels):
        np.testing.assert_allclose(shown, plain, atol=1e-3)


def test_linear_window_by_hand():
    # Centre 100, width 51 in a LINEAR window: 74.5 is black, 124.5 white, so 99.5 is the middle and 87 a quarter.
    values = np.tile(np.array([0, 74, 87, 112, 125, 200], np.uint16), (48, 8))
    shown = read_radiograph(films.dicom_film(values=values, WindowCenter=100, WindowWidth=51)).pixels
    # A third of the pixels would turn white: so the bright end moves to the film's own maximum, 200.
    np.testing.assert_allclose(shown[0, :6], [0, 0, 12.5 / 125.5, 37.5 / 125.5, 50.5 / 125.5, 1], atol=1e-6)
    values = np.tile(np.array([0, 74, 87, 112, 124, 124], np.uint16), (48, 8))
    shown = read_radiograph(films.dicom_film(values=values, WindowCenter=100, WindowWidth=51)).pixels
    np.testing.assert_allclose(shown[0, :6], [0, 0, 0.25, 0.75, 0.99, 0.99], atol=1e-6)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
@pytest.mark.parametrize("slope", [None, 0.5, 2.0])
def test_window_agrees_with_pydicom(function, slope):
    rescale = {"RescaleSlope": slope, "RescaleIntercept": -100.0} if slope else {}
    centre = 2100 * (slope or 1) + (-100 if slope else 0)
    data = films.dicom_film(
        WindowCenter=[centre, 5], WindowWidth=[4200 * abs(slope or 1), 5], VOILUTFunction=function, **rescale
    )
    dataset = pydicom.dcmread(io.BytesIO(data))
    shown = apply_windowing(apply_modality_lut(dataset.pixel_array, dataset), dataset).astype(np.float64)
    low, high = np.array([0, 4095]) * (slope or 1) + (-100 if slope else 0)
    np.testing.assert_allclose(read_radiograph(data).pixels, (shown - low) / (high - low), atol=2e-4)


def test_negative_slope_turns_the_greys_round():
    window = {"WindowCenter": -2047.0, "WindowWidth": 4096}
    film = read_radiograph(films.dicom_film(RescaleSlope=-1.0, RescaleIntercept=0.0, **window))
    np.testing.assert_allclose(film.pixels, 1 - films.stored_limb(12) / 4095, atol=3e-4)


@pytest.mark.parametrize(("name", "white"), [("mlut_18.dcm", 65535), ("vlut_04.dcm", 65535)])
def test_real_look_up_tables_agree_with_pydicom(name, white):
    dataset = pydicom.dcmread(io.BytesIO(real(name)))
    shown = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset).astype(np.float64)
    film = read_radiograph(real(name))
    np.testing.assert_allclose(film.pixels, shown / white, atol=1e-4)


def test_voi_table_goes_before_the_window_and_only_the_first_counts():
    def table(power):
        item = Dataset()
        item.LUTDescriptor = [4096, 0, 12]
        item.LUTData = np.rint(4095 * (np.arange(4096) / 4095) ** power).astype("<u2").tobytes()
        return item

    data = films.dicom_film(VOILUTSequence=[table(2), table(1)], WindowCenter=1, WindowWidth=2)
    np.testing.assert_allclose(read_radiograph(data).pixels, (films.stored_limb(12) / 4095) ** 2, atol=2e-4)


def test_window_that_burns_bone_white_is_widened_and_one_for_other_pixels_is_dropped():
    burnt = read_radiograph(films.dicom_film(WindowCenter=500, WindowWidth=900))
    assert (burnt.pixels > 0.999).mean() < 0.01
    assert any("window" in warning for warning in burnt.warnings)
    ends = films.dicom_film(photometric="MONOCHROME1", WindowCenter=4095 - 500, WindowWidth=900)
    np.testing.assert_allclose(read_radiograph(ends).pixels, burnt.pixels, atol=2e-3)
    foreign = read_radiograph(films.dicom_film(WindowCenter=40000, WindowWidth=400))
    np.testing.assert_allclose(foreign.pixels, spread(films.stored_limb(12)), atol=1e-6)
    assert any("window" in warning for warning in foreign.warnings)


@pytest.mark.parametrize("window", [(32768, 65536), (8000, 16000 * 8)])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_window_far_wider_than_the_pixels_is_dropped(window, photometric):
    """Else the film would be all but black, and refused as blank."""
    stored = films.stored_limb(12, photometric)
    film = read_radiograph(films.dicom_film(photometric=photometric, WindowCenter=window[0], WindowWidth=window[1]))
    plain = read_radiograph(films.dicom_film(photometric=photometric, values=stored))
    np.testing.assert_allclose(film.pixels, plain.pixels, atol=1e-6)
    assert any("does not fit its pixels" in warning for warning in film.warnings)
    assert not any("does not fit" in warning for warning in plain.warnings)


def test_a_film_whose_bones_are_dark_is_told_of_in_dicom_too():
    inverted = films.dicom_film(values=films.stored_limb(12, "MONOCHROME1"))
    assert any("may be inverted" in warning for warning in read_radiograph(inverted).warnings)
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        right = read_radiograph(films.dicom_film(photometric=photometric))
        assert not any("inverted" in warning for warning in right.warnings)


@pytest.mark.parametrize("window", [(2000, 0), (2000, -5), (2000, 1)])
def test_window_without_width_is_ignored(window):
    film = read_radiograph(films.dicom_film(WindowCenter=window[0], WindowWidth=window[1]))
    np.testing.assert_allclose(film.pixels, spread(films.stored_limb(12)), atol=1e-6)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_does_not_spoil_the_range(photometric):
    stored = films.stored_limb(12, photometric)
    stored[:30], stored[-30:] = 60000, 60005
    data = films.dicom_film(
        photometric=photometric, bits=16, values=stored, PixelPaddingValue=60000, PixelPaddingRangeLimit=60010
    )
    shown = read_radiograph(data).pixels
    assert shown[:30].max() == shown[-30:].max() == 0
    inner = films.stored_limb(12)[30:-30]
    np.testing.assert_allclose(shown[30:-30], spread(inner), atol=1e-3)


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "big endian"])
def test_signed_padding(syntax):
    stored = (films.stored_limb(12).astype(np.int32) - 2048).astype(np.int16)
    stored[:30] = -32000
    shown = read_radiograph(films.dicom_film(syntax, bits=16, values=stored, PixelPaddingValue=-32000)).pixels
    assert shown[:30].max() == 0
    np.testing.assert_allclose(shown[30:], spread(stored[30:]), atol=1e-6)


def test_bits_above_the_stored_ones_are_no_pixels():
    stored = films.stored_limb(12)
    shown = read_radiograph(films.dicom_film(values=stored | np.uint16(0x8000))).pixels
    np.testing.assert_allclose(shown, spread(stored), atol=1e-6)


def test_a_10_bit_monochrome1_film_of_a_real_machine():
    film = read_radiograph(real("RG3_UNCR.dcm"))
    stored = pydicom.dcmread(io.BytesIO(real("RG3_UNCR.dcm"))).pixel_array
    shin, air = film.pixels[700:760, 780:1000], film.pixels[600:1000, 500:600]
    assert shin.mean() > 0.35 > 0.1 > air.mean()
    # Nothing but the unexposed border, which is stored as 0 already, and its blurred edge is white.
    assert (film.pixels == 1).mean() < (stored == 0).mean() + 0.03
    assert (film.view, film.laterality) == ("AP", "R")
    assert film.source == "DICOM CR, uncompressed"
    exact, lossy = read_radiograph(real("RG3_J2KR.dcm")), read_radiograph(real("RG3_J2KI.dcm"))
    np.testing.assert_array_equal(exact.pixels, film.pixels)
    assert exact.source == "DICOM CR, JPEG 2000"
    assert np.abs(lossy.pixels - film.pixels).mean() < 0.005


def test_a_15_bit_monochrome1_film_of_a_real_machine():
    film = read_radiograph(real("RG1_UNCR.dcm"))
    stored = pydicom.dcmread(io.BytesIO(real("RG1_UNCR.dcm"))).pixel_array
    assert np.corrcoef(film.pixels[::9, ::9].ravel(), stored[::9, ::9].ravel())[0, 1] == pytest.approx(-1)
    assert 0 < film.pixels.min() < 0.2 < 0.9 < film.pixels.max() < 1
    assert film.view == "PA"
    assert film.spacing_mm is None or min(film.spacing_mm) > 0


@pytest.mark.parametrize(
    ("syntax", "packed", "plain"),
    [
        ("JPEG lossless 70", "JPEG-LL.dcm", None),
        ("JPEG extended", "JPGExtended.dcm", None),
        ("JPEG-LS", "MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm"),
        ("JPEG 2000 lossless", "MR_small_jp2klossless.dcm", "MR_small.dcm"),
        ("JPEG 2000 lossless", "693_J2KR.dcm", "693_UNCR.dcm"),
        ("JPEG 2000", "JPEG2000.dcm", "JPEG2000_UNC.dcm"),
    ],
)
def test_frames_of_other_encoders(syntax, packed, plain):
    dataset = pydicom.dcmread(io.BytesIO(real(packed)))
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    shown = read_radiograph(films.wrapped_frame(syntax, frame, dataset)).pixels
    if plain:
        expected = pydicom.dcmread(io.BytesIO(real(plain))).pixel_array
        assert np.abs(shown - spread(expected)).max() < (0.02 if syntax == "JPEG 2000" else 1e-6)
    else:
        assert 0.001 < shown.std() < 0.5


@pytest.mark.parametrize("syntax", ["explicit", "implicit"])
def test_headerless_dicom_is_read(syntax):
    film = read_radiograph(films.dicom_film(syntax, headerless=True))
    np.testing.assert_allclose(film.pixels, spread(films.stored_limb(12)), atol=1e-6)


def test_view_side_and_spacing():
    film = read_radiograph(
        films.dicom_film(
            ViewPosition="LL", ImageLaterality="L", ImagerPixelSpacing=[0.15, 0.14], PixelSpacing=[0.1, 0.1]
        )
    )
    assert (film.view, film.laterality, film.spacing_mm) == ("LATERAL", "L", (0.15, 0.14))
    assert film.at_detector
    film = read_radiograph(films.dicom_film(ViewPosition="RLO", Laterality="R", PixelSpacing=[0.2, 0.2]))
    assert (film.view, film.laterality, film.spacing_mm) == ("OBLIQUE", "R", (0.2, 0.2))
    assert not film.at_detector, "PixelSpacing may have been calibrated to a plane in the patient"
    film = read_radiograph(films.dicom_film(ViewPosition="SMITH", ImagerPixelSpacing=[0, -1], Laterality="X"))
    assert (film.view, film.laterality, film.spacing_mm) == (None, None, None)


def test_captures_and_raw_films_are_read_with_a_warning():
    assert read_radiograph(films.dicom_film()).warnings == ()
    for modality in ("CR", "DX", "DR", "RG", "RF"):
        assert read_radiograph(films.dicom_film(Modality=modality)).warnings == ()
    for attributes in ({"Modality": "OT"}, {"Modality": "XA"}, {"PresentationIntentType": "FOR PROCESSING"}):
        assert len(read_radiograph(films.dicom_film(**attributes)).warnings) == 1


@pytest.mark.parametrize("colour", ["RGB", "YBR_FULL"])
def test_colour_dicom(colour):
    grey = films.stored_limb(8)
    rest = grey if colour == "RGB" else np.full_like(grey, 128)
    film = read_radiograph(films.dicom_film(photometric=colour, bits=8, values=np.dstack([grey, rest, rest])))
    np.testing.assert_allclose(film.pixels, grey / 255, atol=0.01)
    if colour == "RGB":
        assert "colour" in refusal(films.dicom_film(photometric=colour, bits=8, values=films.draw_photograph()))


# --- What must be refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", films.bad_files())
def test_bad_file_is_refused_with_one_quiet_sentence(fault, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sentence = refusal(films.bad_files()[fault])
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert sentence.count(". ") == 0
    assert len(sentence) < 160
    assert capfd.readouterr() == ("", "")
    assert "film" not in caplog.text.lower()


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        ("empty", "empty"),
        ("text renamed .png", "text"),
        ("truncated PNG", "cut short"),
        ("truncated JPEG", "cut short"),
        ("truncated TIFF", "cut short"),
        ("truncated DICOM", "cut short"),
        ("1x1 film", "1 x 1"),
        ("40000x40000 PNG header", "64 megapixels"),
        ("animated GIF", "GIF"),
        ("animated PNG", "animated"),
        ("multi-frame DICOM", "more than one frame"),
        ("DICOM without pixels", "no picture"),
        ("DICOM SR", "structured report"),
        ("DICOMDIR", "DICOMDIR"),
        ("encrypted PDF", "PDF"),
        ("colour photograph", "colour"),
        ("unknown transfer syntax", "transfer syntax"),
        ("CT slice", "CT"),
        ("blank film", "single grey"),
        ("DICOM that claims too many pixels", "64 megapixels"),
    ],
)
def test_refusal_says_what_came(fault, word):
    assert word in refusal(films.bad_files()[fault])


def test_size_is_judged_before_anything_is_decoded(monkeypatch):
    def no_decoding(*_, **__):
        raise AssertionError("decoded")

    monkeypatch.setattr(Image, "open", no_decoding)
    monkeypatch.setattr(pydicom.Dataset, "pixel_array", property(no_decoding))
    jpeg = films.jpeg_film()
    place = jpeg.index(b"\xff\xc0") + 5
    wide = jpeg[:place] + b"\xff\xff\xff\xff" + jpeg[place + 4 :]
    tiff = bytearray(films.raw_tiff(films.stored_limb(16)))
    start = int.from_bytes(tiff[4:8], "little") + 2
    tiff[start + 8 : start + 12] = tiff[start + 20 : start + 24] = (50000).to_bytes(4, "little")
    for data in (films.png_header(8001, 8000), wide, bytes(tiff), films.dicom_film(Rows=9000, Columns=9000)):
        assert "64 megapixels" in refusal(data)


def _tiff_with(size, **tags):
    """Return a TIFF of so many pixels a side that has other values in some tags; one that is new takes 278's place."""
    data = bytearray(films.raw_tiff(films.stored_limb(16)))
    start = int.from_bytes(data[4:8], "little") + 2
    places = {int.from_bytes(data[at : at + 2], "little"): at for at in range(start, start + 11 * 12, 12)}
    for tag, value in ({"t256": size, "t257": size} | tags).items():
        at = places.get(int(tag[1:]), places[278])
        data[at : at + 2] = int(tag[1:]).to_bytes(2, "little")
        data[at + 8 : at + 12] = value.to_bytes(4, "little")
    return bytes(data)


@pytest.mark.parametrize(
    ("tags", "sentence"),
    [
        ({"t277": 4, "t258": 64}, "more than 512 MB"),
        ({"t277": 3, "t258": 32}, "more than 512 MB"),
        ({"t32998": 1000}, "tiles that are larger than a film"),
    ],
)
def test_a_tiff_that_would_fill_the_memory_is_refused_before_it_is_unpacked(monkeypatch, tags, sentence):
    def no_decoding(*_, **__):
        raise AssertionError("decoded")

    monkeypatch.setattr(films.imagecodecs, "tiff_decode", no_decoding)
    assert sentence in refusal(_tiff_with(8000, **tags))


def test_tiles_larger_than_a_film_are_refused():
    directory = [(256, 4, 64), (257, 4, 64), (258, 3, 16), (259, 3, 8), (262, 3, 1), (322, 4, 65536), (323, 4, 65536)]
    directory += [(324, 4, 8), (325, 4, 4)]
    data = b"II*\0" + (12).to_bytes(4, "little") + bytes(4) + len(directory).to_bytes(2, "little")
    for tag, kind, value in directory:
        data += tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + b"\1\0\0\0" + value.to_bytes(4, "little")
    assert "tiles that are larger than a film" in refusal(data + bytes(4))


def test_a_run_that_is_longer_than_the_film_is_refused_and_not_unpacked():
    small = pydicom.dcmread(io.BytesIO(films.dicom_film("RLE")))
    frame = bytearray(get_frame(small.PixelData, 0, number_of_frames=1))
    run = b"\x81\x07" * 2_000_000  # 128 bytes from each two: a quarter of a GB from four MB
    tracemalloc.start()
    try:
        assert "cut short" in refusal(films.wrapped_frame("RLE", bytes(frame[:64]) + run, small))
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()
    assert "cut short" in refusal(films.wrapped_frame("RLE", bytes(frame[:64]) + bytes(8), small))


@pytest.mark.parametrize("surplus", [1, 2, 40])
@pytest.mark.parametrize("bits", [8, 12])
def test_bytes_that_a_writer_added_to_run_lengths_cost_no_film(bits, surplus):
    film = films.dicom_film("RLE", bits=bits)
    small = pydicom.dcmread(io.BytesIO(film))
    frame = get_frame(small.PixelData, 0, number_of_frames=1)
    count = int.from_bytes(frame[:4], "little")
    starts = [int.from_bytes(frame[4 + 4 * n : 8 + 4 * n], "little") for n in range(count)] + [len(frame)]
    body, places = b"", []
    for start, end in itertools.pairwise(starts):
        places.append(64 + len(body))
        body += frame[start:end] + bytes([surplus - 1]) + bytes(surplus)
        body += bytes(len(body) % 2)
    head = b"".join(number.to_bytes(4, "little") for number in [count, *places])
    padded = read_radiograph(films.wrapped_frame("RLE", head.ljust(64, b"\0") + body, small)).pixels
    np.testing.assert_array_equal(padded, read_radiograph(film).pixels)


@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_run_lengths_of_colour(kind):
    grey = films.stored_limb(int(kind[1]) * 8)
    colour = np.dstack([grey] * 3)
    plain, packed = (
        read_radiograph(
            films.dicom_film(syntax, "RGB", 8 * int(kind[1]), values=colour, SamplesPerPixel=3, PlanarConfiguration=0)
        ).pixels
        for syntax in ("explicit", "RLE")
    )
    np.testing.assert_array_equal(packed, plain)
    np.testing.assert_allclose(packed, grey / 255 if kind == "u1" else spread(grey), atol=1e-6)


def test_frame_larger_than_the_header_is_refused():
    frame = films.imagecodecs.jpeg2k_encode(films.stored_limb(12, pixels=films.draw_limb(400, 400)), codecformat="j2k")
    small = pydicom.dcmread(io.BytesIO(films.dicom_film()))
    assert "cut short" in refusal(films.wrapped_frame("JPEG 2000", frame, small))


@pytest.mark.parametrize("syntax", ["JPEG baseline", "JPEG extended", "JPEG lossless 70"])
def test_cut_stream_in_a_whole_dicom_file_is_refused(syntax):
    bits = 8 if syntax == "JPEG baseline" else 12
    whole = pydicom.dcmread(io.BytesIO(films.dicom_film(syntax, bits=bits)))
    frame = get_frame(whole.PixelData, 0, number_of_frames=1)
    assert "cut short" in refusal(films.wrapped_frame(syntax, frame[: len(frame) // 2], whole))


def test_png_with_one_altered_byte_is_refused():
    data = bytearray(films.png_film())
    data[len(data) // 2] ^= 1
    assert "damaged" in refusal(bytes(data))


def test_deflated_bomb_is_not_inflated(monkeypatch):
    from core.radiographs import dicom

    monkeypatch.setattr(dicom, "MAX_PIXELS", 1_000_000)
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = packer.compress(bytes(2**24 + 2_100_000)) + packer.flush()
    data = films.dicom_film("deflated")
    head = data[: 132 + 12 + int.from_bytes(data[140:144], "little")]
    assert "megapixels" in refusal(head + bomb)


@contextlib.contextmanager
def capture_stderr():
    """Take what C libraries write to the process's own stderr, which Hypothesis cannot have a fixture for."""
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lambda: os.pread(file.fileno(), 10_000, 0).decode(errors="replace")
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def read_or_refuse(data: bytes) -> Radiograph | None:
    """Return the film, or None where it is refused and the refusal carries no decoder's error along."""
    try:
        return read_radiograph(data)
    except RadiographError as error:
        refused = error
    assert refused.__context__ is None
    return None


STARTS = [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", bytes(128) + b"DICM", b"\x08\0\x16\0UI"]


@given(st.binary(max_size=400), st.sampled_from(STARTS))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_refused(data, start):
    assert read_or_refuse(start + data) is None


_SMALL = films.draw_limb(48, 40)
_FILES = [
    films.png_film(pixels=_SMALL),
    films.png_film(16, "rgb", pixels=_SMALL),
    films.jpeg_film(pixels=_SMALL),
    films.tiff_film(films.stored_limb(8, pixels=_SMALL), compression="tiff_lzw"),
    films.raw_tiff(films.stored_limb(16, pixels=_SMALL)),
    *(
        films.dicom_film(
            syntax, values=films.stored_limb(8 if syntax == "JPEG baseline" else 12, pixels=_SMALL), WindowCenter=2000,
            WindowWidth=4000, bits=8 if syntax == "JPEG baseline" else 12,
        )
        for syntax in films.SYNTAXES
    ),
]  # fmt: skip


@given(st.sampled_from(_FILES), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6))
@settings(max_examples=250, deadline=None)
def test_altered_film_is_a_whole_radiograph_or_refused(data, changes):
    altered = bytearray(data)
    for place, value in changes:
        altered[int(place * (len(altered) - 1))] = value
    with capture_stderr() as told:
        film = read_or_refuse(bytes(altered))
        assert told() == ""
    if film is not None:
        assert np.isfinite(film.pixels).all()
        assert 0 <= film.pixels.min() <= film.pixels.max() <= 1


@given(st.sampled_from(_FILES), st.floats(0, 1, exclude_max=True))
@settings(max_examples=250, deadline=None)
def test_a_film_cut_anywhere_is_never_half_read(data, share):
    whole = read_radiograph(data).pixels
    film = read_or_refuse(data[: int(share * len(data))])
    # Only what lies behind the last pixel may be missing.
    if film is not None:
        np.testing.assert_array_equal(film.pixels, whole)


# --- Nothing of a patient -----------------------------------------------------------------------------------------

PATIENT = {
    "PatientName": "Zwetschge^Quirin",
    "PatientID": "ZQ-4711-X",
    "PatientBirthDate": "19431207",
    "PatientAddress": "Kastanienweg 5",
    "AccessionNumber": "ACC99881",
    "StudyDescription": "Handgelenk Zwetschge",
    "InstitutionName": "Klinikum Quirin",
    "ReferringPhysicianName": "Mirabelle^Dr",
    "Manufacturer": "Reineclaude",
    "StudyInstanceUID": "1.2.276.4711",
    "ViewPosition": "ZWETSCHGE",
    "ImageLaterality": "QUIRIN",
    "ImageComments": "Kastanienweg",
}
SECRETS = ["zwetschge", "quirin", "4711", "19431207", "kastanien", "acc99881", "klinikum", "mirabelle", "reineclaude"]


@pytest.mark.parametrize(
    "fault",
    [
        {},
        {"Modality": "QUIRIN"},
        {"Modality": "CT"},
        {"PixelData": b"\0\0"},
        {"PixelData": None},
        {"RescaleSlope": "1e300"},
        {"WindowCenter": [1, 2], "WindowWidth": None},
        {"NumberOfFrames": 4711},
    ],
)
def test_no_patient_survives(fault, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    data = films.dicom_film(**PATIENT | fault)
    data = data.replace(b"19431207", b"Zwetschg")  # not a date: what a strict parser would complain of, quoting it
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            film = read_radiograph(data, "Zwetschge_Quirin.dcm")
            told = repr(film) + repr(pickle.dumps(film)) + repr(vars(film))
        except RadiographError as error:
            told = repr(error) + repr(error.__context__) + repr(error.__cause__)
            assert fault
    told += caplog.text + "".join(capfd.readouterr()) + "".join(str(warning.message) for warning in caught)
    assert not [secret for secret in SECRETS if secret in told.lower()]


def test_films_read_at_the_same_time_do_not_disturb_each_other():
    filters = list(warnings.filters)
    before = [read_radiograph(data).pixels for data in _FILES]
    with ThreadPoolExecutor(6) as pool:
        together = [film.pixels for film in pool.map(read_radiograph, _FILES * 3)]
    for one, other in zip(before * 3, together, strict=True):
        np.testing.assert_array_equal(one, other)
    assert warnings.filters == filters


def test_import_is_light():
    heavy = ("tensorflow", "keras", "streamlit", "imagecodecs", "pydicom")
    code = f"import sys, core.radiographs; print([name for name in {heavy} if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


# --- Film to square and back --------------------------------------------------------------------------------------

REGIONS = st.builds(
    WristRegion,
    x=st.floats(-20, 320),
    y=st.floats(-20, 260),
    side=st.floats(20, 500),
    angle=st.floats(-179, 180),
)
SIZES = st.integers(16, 257)


def send(matrix: np.ndarray, x: float, y: float) -> np.ndarray:
    return matrix @ [x, y, 1]


def test_whole_film_by_hand():
    fit = fit_square(200, 100, 50)
    # 200 rows become 50, so a scale of 1/4; the 25 columns are centred: 12.5 free on either side.
    np.testing.assert_allclose(send(fit.matrix, -0.5, -0.5), [12.0, -0.5])
    np.testing.assert_allclose(send(fit.matrix, 99.5, 199.5), [37.0, 49.5])
    shown = fit.apply(np.ones((200, 100), np.float32))
    assert shown.shape == (50, 50)
    assert shown.dtype == np.float32
    np.testing.assert_array_equal(shown[:, 13:37], 1)
    np.testing.assert_array_equal(shown[:, :12], 0)
    np.testing.assert_array_equal(shown[:, 38:], 0)


@pytest.mark.parametrize("angle", [0, 90, 180, -90, 37])
def test_fingers_point_up_after_the_cut(angle):
    centre, turn = np.array([150.0, 120.0]), np.deg2rad(angle)
    fingers = centre + 40 * np.array([np.sin(turn), -np.cos(turn)])
    thumb = centre + 40 * np.array([np.cos(turn), np.sin(turn)])
    fit = fit_square(240, 300, 100, WristRegion(*centre, side=100, angle=angle))
    # Half a pixel between the corner the region counts from and a pixel's centre, on both sides.
    np.testing.assert_allclose(send(fit.matrix, *(centre - 0.5)), [49.5, 49.5], atol=1e-9)
    np.testing.assert_allclose(send(fit.matrix, *(fingers - 0.5)), [49.5, 9.5], atol=1e-9)
    np.testing.assert_allclose(send(fit.matrix, *(thumb - 0.5)), [89.5, 49.5], atol=1e-9)
    film = np.zeros((240, 300), np.float32)
    cv2.circle(film, np.rint(fingers - 0.5).astype(int).tolist(), 5, 1, -1)
    y, x = np.unravel_index(cv2.GaussianBlur(fit.apply(film), (0, 0), 3).argmax(), (100, 100))
    assert abs(x - 49.5) < 2
    assert abs(y - 9.5) < 2


def test_square_turned_by_90_degrees_is_rot90():
    film = np.random.default_rng(0).random((64, 64), np.float32)
    for angle, turns in ((90, 1), (180, 2), (-90, 3)):
        fit = fit_square(64, 64, 64, WristRegion(32, 32, 64, angle))
        np.testing.assert_allclose(fit.apply(film), np.rot90(film, turns), atol=2e-3)


@given(st.integers(40, 300), st.integers(40, 300), SIZES, st.none() | REGIONS, st.floats(0, 300), st.floats(0, 300))
@settings(max_examples=100, deadline=None)
def test_points_go_there_and_back(height, width, size, region, x, y):
    fit = fit_square(height, width, size, region)
    np.testing.assert_allclose(send(fit.inverse, *send(fit.matrix, x, y)), [x, y], atol=1e-6)
    assert fit.film_shape == (height, width)
    assert fit.size == size


@given(
    st.integers(101, 260),
    st.integers(101, 260),
    SIZES,
    st.none() | REGIONS,
    st.sampled_from(FITS),
    st.floats(0.2, 0.8),
    st.floats(0.2, 0.8),
)
@settings(max_examples=120, deadline=None)
def test_a_spot_comes_back_to_its_place(height, width, size, region, how, across, down):
    fit = fit_square(height, width, size, region, how)
    u, v = across * size, down * size
    x, y = send(fit.inverse, u, v)
    small, large = min(fit.scales), max(fit.scales)
    reach = 3 * max(1.0, 1 / small)
    if not (2.5 * reach < x < width - 2.5 * reach and 2.5 * reach < y < height - 2.5 * reach):
        return
    if not (3 + 2.5 * reach * large < min(u, v) and max(u, v) < size - 4 - 2.5 * reach * large):
        return
    rows, columns = np.mgrid[0:height, 0:width]
    spot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * (reach / 3) ** 2 * 4)).astype(np.float32)
    spot[spot < 0.02] = 0
    back = fit.invert(fit.apply(spot)).astype(np.float64)
    centre = np.array([(back * columns).sum(), (back * rows).sum()]) / back.sum()
    assert np.abs(centre - [x, y]).max() < 0.5


@pytest.mark.parametrize("size", [223, 224])
@pytest.mark.parametrize("region", [None, WristRegion(300, 260, 300, 25), WristRegion(300, 260, 190, -140)])
def test_a_ramp_survives_there_and_back(size, region):
    rows, columns = np.mgrid[0:500, 0:600].astype(np.float32)
    ramp = (rows + 2 * columns) / 1700
    fit = fit_square(500, 600, size, region)
    back = fit.invert(fit.apply(ramp))
    x, y = np.einsum("ij,jkl->ikl", fit.matrix, np.stack([columns, rows, np.ones_like(rows)]))
    inside = (x > 2) & (x < size - 3) & (y > 2) & (y < size - 3)
    inside &= (rows > 4) & (rows < 495) & (columns > 4) & (columns < 595)
    assert np.abs(back - ramp)[inside].max() < 2e-3
    outside = (x < -0.5001) | (x > size - 0.4999) | (y < -0.5001) | (y > size - 0.4999)
    assert back[outside].max(initial=0) == 0
    within = (x > -0.4999) & (x < size - 0.5001) & (y > -0.4999) & (y < size - 0.5001)
    assert (fit.invert(np.ones((size, size)))[within] == 1).all()


def test_area_outside_the_film_is_black():
    fit = fit_square(100, 100, 64, WristRegion(0, 0, 100, 0))
    shown = fit.apply(np.ones((100, 100), np.float32))
    assert shown[:32].max() == shown[:, :32].max() == 0
    assert shown[32:, 32:].min() == 1
    assert fit_square(100, 100, 64, WristRegion(900, 900, 100, 10)).apply(np.ones((100, 100))).max() == 0
    assert fit_square(100, 100, 64, WristRegion(900, 900, 100, 10)).invert(np.ones((64, 64))).max() == 0


@pytest.mark.parametrize("region", [None, WristRegion(1000, 1000, 1400, 30)])
def test_reduction_does_not_alias(region):
    # Stripes far finer than the small picture's pixels must average out to grey, not beat.
    stripes = np.zeros((2000, 2000), np.float32)
    stripes[:, ::2] = 1
    shown = fit_square(2000, 2000, 128, region).apply(stripes)
    assert np.abs(shown - 0.5).max() < 0.06
    assert shown.mean() == pytest.approx(0.5, abs=0.01)


def test_reduction_by_a_whole_number_is_the_mean_of_blocks():
    film = np.random.default_rng(1).random((512, 512), np.float32)
    blocks = film.reshape(64, 8, 64, 8).mean(axis=(1, 3))
    np.testing.assert_allclose(fit_square(512, 512, 64).apply(film), blocks, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(400, 1000), (1000, 400), (300, 100)])
def test_a_stretched_film_is_what_pillow_makes_of_it(height, width):
    """Both sides are reduced by their own factor; Pillow's box filter takes the same mean of each pixel's share."""
    film = np.random.default_rng(1).random((height, width), np.float32)
    fit = fit_square(height, width, 100, None, "stretch")
    assert fit.scales == pytest.approx((100 / width, 100 / height))
    boxed = np.asarray(Image.fromarray(film).resize((100, 100), Image.Resampling.BOX))
    np.testing.assert_allclose(fit.apply(film), boxed, atol=1e-5)
    # Nothing is padded: the film's corners are the square's.
    np.testing.assert_allclose(send(fit.matrix, -0.5, -0.5), (-0.5, -0.5), atol=1e-9)
    np.testing.assert_allclose(send(fit.matrix, width - 0.5, height - 0.5), (99.5, 99.5), atol=1e-9)
    np.testing.assert_array_equal(fit_square(200, 200, 50, None, "stretch").matrix, fit_square(200, 200, 50).matrix)


def test_a_turned_square_of_a_stretched_film_is_turned_after_it_was_stretched():
    """Of 200 x 100 pixels it becomes 200 x 200, and what lay 25 above the middle lies 50 above it."""
    fit = fit_square(100, 200, 200, WristRegion(100, 50, 200, 90), "stretch")
    x, y = send(fit.matrix, 99.5, 24.5)
    plain = fit_square(200, 200, 200, WristRegion(100, 100, 200, 90))
    np.testing.assert_allclose((x, y), send(plain.matrix, 99.5, 49.5), atol=1e-9)


def test_another_fit_is_a_mistake():
    with pytest.raises(ValueError, match="pad, stretch"):
        fit_square(100, 100, 64, None, "crop")


def test_enlargement_is_bilinear():
    film = np.array([[0.0, 1.0], [0.0, 1.0]], np.float32)
    np.testing.assert_allclose(fit_square(2, 2, 4).apply(film), [[0, 0.25, 0.75, 1]] * 4, atol=1e-6)


def test_coarse_map_covers_the_same_square():
    fit = fit_square(90, 90, 30, WristRegion(45, 45, 60))
    coarse = np.zeros((3, 3))
    coarse[1, 1] = 1
    back = fit.invert(coarse)
    rows, columns = np.mgrid[0:90, 0:90]
    assert (back * rows).sum() / back.sum() == pytest.approx(44.5, abs=0.01)
    assert (back * columns).sum() / back.sum() == pytest.approx(44.5, abs=0.01)
    assert back[44, 44] > 0.9
    assert back[15:75, 15:75].any()
    assert back[:15].max() == 0


@pytest.mark.parametrize("region", [WristRegion(10, 10, 0), WristRegion(float("nan"), 10, 10)])
def test_region_without_extent_is_a_mistake(region):
    with pytest.raises(ValueError, match="positive"):
        fit_square(100, 100, 64, region)


def test_limits_are_those_that_are_promised():
    assert pixel_rules.MAX_PIXELS == 64_000_000
    assert pixel_rules.MIN_SIDE == 32
    pixel_rules.check_size(8000, 8000)
    with pytest.raises(RadiographError):
        pixel_rules.check_size(31, 100)
