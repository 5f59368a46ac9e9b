"""What travels to the browser: films bit for bit, unpacked here as the browser does it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from core.values import Radiograph
from pages.parts.viewer import film_bytes


def unpack(data):
    width, height, top = np.frombuffer(data, "<u4", 3, 64)
    values = np.frombuffer(data, "<u2" if top > 255 else "<u1", offset=76)
    return data[:64].decode(), values.reshape(height, width), int(top)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_a_film_of_8_bits_arrives_with_its_own_grey_levels(height, width, seed):
    levels = np.random.default_rng(seed).integers(0, 256, (height, width))
    film = Radiograph("f" * 64, levels / 255, "PNG, 8 bit")
    name, values, top = unpack(film_bytes(film))
    assert name == "f" * 64
    assert top == 255
    np.testing.assert_array_equal(values, levels)


def test_a_deep_film_keeps_its_depth():
    levels = np.arange(4096).reshape(64, 64)
    _, values, top = unpack(film_bytes(Radiograph("0" * 64, levels / 4095, "DICOM DX")))
    assert top == 65535
    assert len(np.unique(values)) == 4096
    np.testing.assert_allclose(values / top, levels / 4095, atol=1e-5)
