"""Figures in a real Chromium: what is saved of them."""

import io
import re
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image, ImageColor

from core.checkpoints import CHECKPOINTS, default_id, read_card
from core.figures import PANEL
from tests.test_browser import chromium, page, ready, server, settled, window  # noqa: F401

pytestmark = pytest.mark.browser


def test_a_figure_is_saved_as_points_as_lines_and_as_numbers(page, server):  # noqa: F811
    page.goto(f"{server.url}/about")
    ready(page)
    settled(page)
    figure = page.locator("[class*='st-key-saved-scores']")
    figure.locator(".barlayer .point path").first.wait_for(state="attached")
    saved = {}
    for name in ("PNG", "SVG", "CSV"):
        with page.expect_download() as download:
            figure.get_by_role("button", name=name, exact=True).click()
        assert download.value.suggested_filename == f"scaphoid-scores.{name.lower()}"
        saved[name] = Path(download.value.path()).read_bytes()
    picture = Image.open(io.BytesIO(saved["PNG"])).convert("RGBA")
    box = figure.locator(".js-plotly-plot").bounding_box()
    assert picture.width == pytest.approx(2 * box["width"], abs=4)
    assert picture.getpixel((2, 2)) == (*ImageColor.getrgb(PANEL), 255), "pale lines would vanish on white paper"
    drawing = saved["SVG"].decode()
    assert drawing.startswith("<svg")
    assert "rgb(11, 13, 16)" in drawing or PANEL in drawing
    page.goto(f"{server.url}/threshold")
    ready(page)
    settled(page)
    figure = page.locator("[class*='st-key-saved-roc']")
    figure.locator(".scatterlayer .js-line").first.wait_for(state="attached")
    assert not figure.locator(".legendtext").count(), "the page itself says whose curve it is"
    with page.expect_download() as download:
        figure.get_by_role("button", name="SVG", exact=True).click()
    legend = re.findall('class="legendtext"[^>]*>([^<]*)<', Path(download.value.path()).read_text())
    assert legend == [read_card(CHECKPOINTS / default_id()).title], "on paper nothing else does"
    assert not figure.locator(".legendtext").count()
    bars = pd.read_csv(io.BytesIO(saved["CSV"]))
    assert len(bars) == 40
    assert bars["y"].sum() > 100
    assert pd.api.types.is_numeric_dtype(bars["x"])
