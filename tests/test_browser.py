"""The dashboard in a real Chromium, as its users see it."""

import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageColor

from core.checkpoints import CHECKPOINTS, default_id, read_card
from core.datasets import index_dataset
from core.figures import PANEL, png_bytes
from core.metrics import pool
from core.phantoms import simulate_film
from core.phantoms.dataset import DatasetSettings, write_dataset
from core.results import model_names

ROOT = Path(__file__).parent.parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
ADDRESSES = {"reading room": "", **{path.stem: path.stem for path in (ROOT / "pages").glob("*.py")}}

pytestmark = pytest.mark.browser


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


class Server:
    """The dashboard in a process of its own."""

    def __init__(self):
        self.port, self.probe = free_port(), free_port()
        self.runs = tempfile.TemporaryDirectory()
        command = [sys.executable, "-m", "tests.served", str(self.port), str(self.probe), self.runs.name]
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by stop)
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=self.log, stderr=subprocess.STDOUT)
        self.url = f"http://localhost:{self.port}"
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=1)
                return
            except OSError:
                time.sleep(0.25)
        raise AssertionError("the dashboard did not start")

    def held(self):
        """Return what the server still holds of uploaded films."""
        with urllib.request.urlopen(f"http://localhost:{self.probe}", timeout=20) as answer:
            return json.load(answer)

    def printed(self):
        """Return what it has printed so far."""
        self.log.seek(0)
        return self.log.read().decode()

    def stop(self):
        """Stop it."""
        self.process.terminate()
        self.process.wait(timeout=20)
        self.log.close()
        self.runs.cleanup()


@pytest.fixture(scope="module")
def chromium():
    if CHROMIUM is None:
        if os.environ.get("SCAPHOID_BROWSER") == "required":
            pytest.fail("The browser tests must run here, but there is no Chromium.")
        pytest.skip("There is no Chromium on this machine.")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    printed = server.printed()
    server.stop()
    assert "Traceback" not in printed


@pytest.fixture(scope="module")
def window(chromium):
    """One user's window: what it keeps of the dashboard's own code need not be compiled again for every test."""
    context = chromium.new_context(accept_downloads=True, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    yield page
    context.close()


@pytest.fixture
def page(window):
    window.set_viewport_size({"width": 1440, "height": 900})
    window.faults.clear()
    yield window
    window.context.set_offline(False)
    window.goto("about:blank")  # whoever looks away has left
    assert window.faults == []


def film_png(seed, bits, **wishes):
    pixels = simulate_film(seed, size=400, framing="wrist", **wishes).pixels
    if bits == 8:
        return png_bytes(np.rint(255 * pixels).astype(np.uint8))
    stream = io.BytesIO()
    Image.fromarray(np.rint(4000 * pixels + 90).astype(np.uint16)).save(stream, "PNG")
    return stream.getvalue()


def as_dicom(seed):
    from tests.films import dicom_film

    return dicom_film(pixels=simulate_film(seed, size=400, framing="wrist", view="LATERAL", positive=True).pixels)


def drop(page, *files):
    ready(page)
    page.locator("input[type=file]").set_input_files(
        [{"name": n, "mimeType": "image/png", "buffer": b} for n, b in files]
    )
    page.wait_for_selector(".film-viewer[data-film]")


def ready(page):
    page.wait_for_selector("#page-ready", state="attached")


def settled(page):
    """Wait until the server has nothing more to say."""
    page.wait_for_timeout(200)
    page.wait_for_function("!document.querySelector('[data-testid=stApp][data-test-script-state=running]')")
    page.wait_for_timeout(200)


def viewer(page):
    return page.locator(".film-viewer").evaluate("element => ({...element.dataset})")


def open_heat(page):
    page.get_by_text("Heat map", exact=True).click()
    page.wait_for_function("!document.querySelectorAll('canvas.pane')[1].hidden")
    settled(page)


OVERLAY = "document.querySelectorAll('canvas.pane')[1].toDataURL()"


def choose_method(page, title):
    """Choose a heat map and wait until another picture than before is shown, unless it was the one shown before."""
    chooser = page.locator("[data-testid=stSelectbox]", has_text="Method")
    box = chooser.locator("[role=combobox], input").first
    shown = title in (chooser.inner_text(), box.evaluate("element => element.value ?? element.textContent"))
    before = None if shown else page.evaluate(OVERLAY)
    box.click()
    page.get_by_role("option", name=title, exact=True).click()
    if before:
        page.wait_for_function(f"before => {OVERLAY} !== before", arg=before, timeout=90_000)
    page.wait_for_timeout(300)
    page.get_by_text("is being made").wait_for(state="detached")
    settled(page)


def overlay_pixels(page):
    """Return the picture that the second pane shows."""
    url = page.evaluate("document.querySelectorAll('canvas.pane')[1].toDataURL('image/png')")
    with urllib.request.urlopen(url) as data:
        return np.asarray(Image.open(data).convert("RGB")).astype(int)


WINDOWS = ((1024, 768), (1440, 900))


def fits(page, windows=WINDOWS):
    """Tell whether nothing on the page is wider than it, in a large window and in a small one."""
    widths = []
    for width, height in windows:
        page.set_viewport_size({"width": width, "height": height})
        settled(page)
        widths.append(sideways(page))
    return max(widths) <= 0


def sideways(page):
    return page.evaluate(
        "Math.max(...[document.scrollingElement, document.querySelector('[data-testid=stMain]')]"
        ".filter(Boolean).map(e => e.scrollWidth - e.clientWidth))"
    )


def test_deep_links_to_a_cold_server_show_the_notice_and_fit(page, server):
    """The first test of this file: nobody has opened a page of this server before."""
    for address in filter(None, ADDRESSES.values()):
        page.goto(f"{server.url}/{address}")
        page.locator(".scaphoid-notice", has_text="Not a medical device").wait_for()
        ready(page)
        assert fits(page), address
    assert not server.held()["tensorflow"], "a page of figures must not wait for TensorFlow"


def test_a_study_is_read_explained_and_downloaded(page, server):
    page.goto(server.url)
    page.locator(".scaphoid-notice", has_text="Not a medical device").wait_for()
    assert fits(page)
    drop(page, ("pa.png", film_png(5, 16, view="PA", positive=True)), ("lateral.dcm", as_dicom(6)))
    answer = page.locator(".answer")
    assert any(words in answer.inner_text() for words in ("Fracture suspected", "Uncertain", "No fracture seen"))
    assert "2 of 2 films read" in answer.inner_text()
    assert "a break elsewhere on the film is not looked for" in answer.inner_text()
    assert fits(page)

    pane = page.locator("canvas.pane").first
    box = pane.bounding_box()
    before = viewer(page)
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.wheel(0, -300)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.45 * box["height"], steps=4)
    page.mouse.up()
    page.wait_for_timeout(200)
    zoomed = viewer(page)
    assert float(zoomed["zoom"]) > 1.5 * float(before["zoom"])

    pictures = []
    open_heat(page)
    for method in ("Grad-CAM", "SmoothGrad", "Location head"):
        choose_method(page, method)
        assert page.locator(".st-key-heat input").is_checked()
        now = viewer(page)
        assert (now["zoom"], now["x"], now["y"]) == (zoomed["zoom"], zoomed["x"], zoomed["y"]), method
        pictures.append(overlay_pixels(page))
    assert all(np.abs(pictures[a] - pictures[b]).max() > 20 for a, b in ((0, 1), (1, 2), (0, 2)))
    page.get_by_role("button", name="How far can this map be trusted?").click()
    told = page.get_by_text(re.compile("^(This map is stable|Rely on this map with care|Do not rely on this map)"))
    told.first.wait_for(timeout=120_000)
    assert fits(page)

    with page.expect_download() as download:
        page.get_by_role("button", name="Download the result (JSON)").click()
    result = json.loads(Path(download.value.path()).read_text())
    reading = result["checkpoints"][0]
    card, logits = read_card(CHECKPOINTS / default_id()), [film["logit"] for film in reading["films"]]
    assert reading["probability"] == pytest.approx(pool(logits, card.calibration, card.study_calibration))
    assert len(reading["weights_sha256"]) == 64
    assert reading["thresholds"]
    assert "tensorflow" in result["versions"]
    assert "pa.png" not in json.dumps(result)

    with page.expect_download() as download:
        page.get_by_role("button", name="Download film with heat map (PNG)").click()
    assert max(Image.open(download.value.path()).size) == 400


def test_a_slow_heat_map_can_be_given_up(page, server):
    page.goto(server.url)
    drop(page, ("pa.png", film_png(5, 16, view="PA", positive=True)))
    open_heat(page)
    choose_method(page, "Quick Score-CAM")
    quick = page.evaluate(OVERLAY)
    page.get_by_role("button", name="Use all channels").click()
    bar = page.locator("[data-testid=stProgress]", has_text="Score-CAM is being made")
    filled = bar.locator("[role=progressbar]")
    page.wait_for_function("Number(document.querySelector('[role=progressbar]')?.getAttribute('aria-valuenow')) > 0")
    assert int(filled.get_attribute("aria-valuenow")) < 100
    assert "Score-CAM is being made" in bar.inner_text()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Use all channels").wait_for()
    settled(page)
    bar.wait_for(state="detached")
    assert page.evaluate(OVERLAY) == quick
    assert page.locator(".answer").is_visible()


def test_an_uploaded_film_is_explained_by_every_method_side_by_side(page, server):
    page.goto(server.url)
    drop(page, ("private name.png", film_png(5, 16, view="PA", positive=True)))
    page.get_by_role("link", name="Explanations").click()
    page.locator("[data-testid=stColumn] strong", has_text="The film").wait_for()
    settled(page)
    page.get_by_text("is being made").wait_for(state="detached", timeout=120_000)
    maps = page.locator("[data-testid=stImage] img")
    titles = [tile.inner_text() for tile in page.locator("[data-testid=stColumn] strong").all()]
    assert titles[0] == "The film"
    assert {"LayerCAM", "Grad-CAM", "Location head"} <= set(titles)
    assert maps.count() == len(titles)
    assert len({each.get_attribute("src") for each in maps.all()}) == len(titles)
    assert fits(page)


def test_the_viewer_works_without_the_server(page, server):
    page.goto(server.url)
    drop(page, ("film.png", film_png(5, 8, view="PA")), ("other.png", film_png(7, 8, view="PA")))
    settled(page)
    page.context.set_offline(True)
    page.locator("canvas.pane").first.focus()
    start = viewer(page)
    page.keyboard.press("i")
    page.keyboard.press("3")
    page.keyboard.press("z")
    page.wait_for_timeout(200)
    now = viewer(page)
    assert now["inverted"] == "true"
    assert float(now["width"]) < float(start["width"])
    assert now["zoom"] != start["zoom"]
    box = page.locator("canvas.pane").first.bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.down(button="right")
    page.mouse.move(box["x"] + 260, box["y"] + 240, steps=3)
    page.mouse.up(button="right")
    page.wait_for_timeout(200)
    assert viewer(page)["level"] != now["level"]
    page.keyboard.press("Space")
    page.wait_for_timeout(200)
    assert viewer(page) == start
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(200)
    assert viewer(page)["film"] != start["film"]


def test_the_reader_can_show_where_the_wrist_is(page, server):
    page.goto(server.url)
    ready(page)
    page.get_by_role("button", name="Simulated: ").first.click()
    page.wait_for_selector(".film-viewer[data-film]")
    settled(page)
    first = page.locator(".answer").inner_text()
    page.get_by_role("button", name="Mark the wrist").click()
    box = page.locator("canvas.pane").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y, steps=4)
    page.mouse.up()
    # The answer changes with the square: until then the page may be settled because it has not begun to read again.
    page.wait_for_function("first => document.querySelector('.answer')?.innerText !== first", arg=first)
    settled(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the result (JSON)").click()
    region = json.loads(Path(download.value.path()).read_text())["checkpoints"][0]["films"][0]["region"]
    assert region["set_by_reader"]
    assert region["angle"] == pytest.approx(90, abs=1)
    assert region["side"] == pytest.approx(120 / float(viewer(page)["zoom"]), rel=0.02)
    assert page.locator(".answer").inner_text() != first

    page.get_by_role("button", name="Mark the wrist").click()  # a click that slips marks nothing
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 6, y)
    page.mouse.up()
    page.get_by_role("button", name="Find the wrist again").click()
    page.get_by_role("button", name="Find the wrist again").wait_for(state="detached")
    settled(page)
    assert page.locator(".answer").inner_text().split(", in ")[0] == first.split(", in ")[0]


def curves(page, name):
    """Count the lines that are drawn in a figure of learning curves."""
    return page.locator(f"[class*='{name}'] .scatterlayer .trace path.js-line")


def test_a_training_is_started_watched_and_stopped_and_its_curves_compared(page, server, tmp_path):
    from core.phantoms.dataset import DatasetSettings, write_dataset

    write_dataset(tmp_path / "films", DatasetSettings(studies=8, seed=3, size=64))
    page.goto(f"{server.url}/train")
    ready(page)
    field = page.get_by_label("Folder of films on this computer")
    field.fill(str(tmp_path / "films"))
    field.press("Enter")
    page.get_by_text(re.compile("Found: \\d+ simulated films of 8 studies")).wait_for()
    page.get_by_text("More choices").click()
    page.get_by_label("Name", exact=True).fill("seen-in-chromium")
    epochs = page.get_by_label("Epochs (rounds through all films)")
    epochs.fill("400")
    epochs.press("Enter")
    settled(page)
    page.get_by_role("button", name="Start training").click()
    card = page.locator(".st-key-run-seen-in-chromium")
    card.get_by_text(re.compile(r"Epoch \d+ of 400")).wait_for()
    curves(page, "st-key-curves-seen-in-chromium-loss").first.wait_for(state="attached")
    first = card.get_by_text(re.compile(r"Epoch \d+ of 400")).inner_text()
    page.wait_for_function(
        "before => !document.querySelector('.st-key-run-seen-in-chromium').innerText.includes(before)", arg=first
    )  # it moves without anybody touching the page
    assert sideways(page) <= 0

    page.goto(f"{server.url}/compare")
    ready(page)
    settled(page)
    page.locator(".legend", has_text="seen-in-chromium (training)").wait_for()
    page.get_by_role("radio", name="Training", exact=True).click()
    curves(page, "st-key-curves-loss").nth(3).wait_for(state="attached")

    page.goto(f"{server.url}/train")
    card.get_by_role("button", name="Stop").click()
    card.get_by_role("button", name="Resume").wait_for()
    assert card.get_by_text("Stopped", exact=True).is_visible()


def test_scores_from_elsewhere_are_measured_and_a_cell_opens_its_studies(page, server):
    rows = ["study_id,patient_id,label,probability"]
    # Two of ten fractures lie below one half, the more wrong one last.
    rows += [f"broken{n},p{n},1,{0.9 if n < 8 else 0.55 - n / 20}" for n in range(10)]
    rows += [f"whole{n},q{n},0,{0.05 + n / 100}" for n in range(12)]
    page.goto(f"{server.url}/compare")
    ready(page)
    settled(page)
    page.get_by_role("button", name="Add scores from elsewhere").click()
    table = {"name": "elsewhere.csv", "mimeType": "text/csv", "buffer": "\n".join(rows).encode()}
    page.locator("input[type=file]").set_input_files([table])
    page.get_by_text("elsewhere.csv").wait_for()
    settled(page)
    page.keyboard.press("Escape")
    models = page.get_by_role("combobox", name="Models")
    models.click()
    page.get_by_role("option", name="elsewhere").click()
    settled(page)
    page.keyboard.press("Escape")
    page.get_by_role("radio", name="Right and wrong", exact=True).click()
    settled(page)
    matrix = page.locator("[class*='st-key-figure-confusion-uploaded']")
    matrix.get_by_text("missed", exact=True).wait_for()
    cell = matrix.locator(".scatterlayer .points path").nth(1)
    cell.click(force=True)
    page.get_by_role("heading", name="elsewhere: missed (2)").wait_for()
    settled(page)
    assert sideways(page) <= 0


def test_a_study_of_the_list_shows_its_films_and_goes_to_the_reading_room(page, server, tmp_path):
    write_dataset(tmp_path / "films", DatasetSettings(studies=2, seed=6, size=224, valid_fraction=0))
    studies = index_dataset(tmp_path / "films").studies
    rows = [f"{study.id},{study.patient_id},{study.label},{0.2 + 0.2 * study.label}" for study in studies]
    table = "\n".join(["study_id,patient_id,label,probability", *rows])
    (missed,) = [study for study in studies if study.label]
    page.goto(f"{server.url}/threshold")
    ready(page)
    settled(page)
    page.get_by_role("button", name="Add scores from elsewhere").click()
    page.locator("input[type=file]").set_input_files(
        [{"name": "mine.csv", "mimeType": "text/csv", "buffer": table.encode()}]
    )
    page.get_by_text("mine.csv").wait_for()
    settled(page)
    page.keyboard.press("Escape")
    page.get_by_role("combobox", name="Model").click()
    page.get_by_role("option", name="mine").click()
    page.get_by_role("heading", name="Called wrong (1)").wait_for()
    settled(page)
    grid = page.locator("[class*='st-key-wrong-studies'] canvas").first
    grid.scroll_into_view_if_needed()
    grid.click(position={"x": 16, "y": 52}, force=True)
    folder = page.get_by_role("textbox", name="Folder of their dataset")
    folder.fill(str(tmp_path / "films"))
    page.get_by_role("button", name="Look there").click()
    page.get_by_text(f"Simulated study {missed.id}: positive, missed, 40%").wait_for()
    pictures = page.locator("[data-testid=stImage] img")
    pictures.nth(len(missed.paths) - 1).wait_for()
    before = pictures.first.get_attribute("src")
    page.get_by_text("Outline what is marked").click()
    page.wait_for_function(
        "before => document.querySelector('[data-testid=stImage] img').getAttribute('src') !== before", arg=before
    )
    settled(page)
    assert sideways(page) <= 0
    page.get_by_role("button", name="Open in the reading room").click()
    page.get_by_text(f"of {len(missed.paths)} films read").or_(page.get_by_role("heading", name="Not read")).wait_for()


def test_a_break_is_outlined_and_every_map_is_scored(page, server):
    page.goto(f"{server.url}/explanations")
    page.get_by_role("button", name=re.compile("Simulated: .*displaced")).first.click()
    page.get_by_text("Outline the break and score these maps").click()
    page.get_by_text("Nothing is outlined yet.").wait_for()
    film = page.locator(".js-plotly-plot .nsewdrag").first
    film.scroll_into_view_if_needed()
    place = film.bounding_box()
    left, top, right, bottom = place["x"], place["y"], place["x"] + place["width"], place["y"] + place["height"]
    page.mouse.move(left + 4, top + 4)
    page.mouse.down()
    for x, y in ((right - 4, top + 4), (right - 4, bottom - 4), (left + 4, bottom - 4), (left + 4, top + 8)):
        page.mouse.move(x, y, steps=12)
    page.mouse.up()
    page.get_by_text("One film and one reader's outline").wait_for()
    cells = page.locator("canvas [role=gridcell]", has_text=re.compile("^yes$"))
    cells.nth(2).wait_for(state="attached")  # all that is read was outlined
    page.mouse.dblclick((left + right) / 2, (top + bottom) / 2)
    page.get_by_text("Nothing is outlined yet.").wait_for()


def test_the_threshold_is_moved_and_everything_follows(page, server):
    from playwright.sync_api import expect

    page.goto(f"{server.url}/threshold")
    ready(page)
    settled(page)
    sensitivity = page.locator("[data-testid=stMetric]", has_text="Sensitivity").locator("[data-testid=stMetricValue]")
    called_wrong = page.get_by_role("heading", name="Called wrong")
    before, wrong = sensitivity.inner_text(), called_wrong.inner_text()
    slider = page.get_by_role("slider", name="Threshold")
    slider.focus()
    slider.press("Home")
    for _ in range(3):
        slider.press("PageUp")
    settled(page)
    page.wait_for_function(
        "before => document.querySelector('[data-testid=stMetricValue]').innerText !== before", arg=before
    )
    assert float(sensitivity.inner_text().rstrip("%")) >= float(before.rstrip("%"))
    expect(called_wrong).not_to_have_text(wrong, timeout=30_000)  # the page is drawn from the top: this comes last
    assert sideways(page) <= 0

    page.locator("[class*='st-key-figure-cells'] .scatterlayer .points path").nth(2).click(force=True)
    alarms = page.get_by_role("heading", name=re.compile("False alarm"))
    alarms.wait_for()
    settled(page)
    count = alarms.inner_text()
    for _ in range(3):
        slider.press("PageUp")
    expect(alarms).not_to_have_text(count, timeout=30_000)  # still those, and other ones
    # Each press is a move of its own: the page is done when the other control stands where the slider stands.
    at = f"{float(slider.input_value()):.4f}"
    expect(page.get_by_role("spinbutton", name="Exactly")).to_have_value(at, timeout=30_000)
    settled(page)

    # The list holds as many as the cell says; one is opened by its row, and the next ones without the list.
    grid = page.locator("[class*='st-key-wrong-studies'] canvas").first
    rows = grid.locator("[role=row]")
    listed = int(re.search(r"\d+", alarms.inner_text())[0])
    expect(grid.locator("[role=grid]")).to_have_attribute("aria-rowcount", str(listed + 1))
    first = rows.nth(1).locator("[role=gridcell]", has_text="simulated-").inner_text()
    grid.scroll_into_view_if_needed()
    grid.click(position={"x": 16, "y": 52}, force=True)
    page.get_by_role("heading", name=f"Simulated study {first}: no fracture, false alarm").wait_for()
    film = page.locator("[data-testid=stImage] img").first
    film.wait_for()
    assert film.evaluate("async film => (await film.decode(), Math.max(film.naturalWidth, film.naturalHeight))") > 200
    before = film.get_attribute("src")
    page.get_by_role("button", name="Next").click()
    page.get_by_text(f"Study 2 of {listed}.").wait_for()
    page.wait_for_function(
        "before => document.querySelector('[data-testid=stImage] img')?.getAttribute('src') !== before", arg=before
    )
    page.get_by_text("Small pictures").click()
    page.locator("img[alt='first film of the study']").nth(min(listed, 6) - 1).wait_for()
    assert fits(page)
    page.get_by_role("button", name="All that are called wrong").click()
    called_wrong.wait_for()


def test_every_view_of_the_comparison_fits(page, server):
    from pages.parts.comparison import VIEWS

    page.goto(f"{server.url}/compare")
    ready(page)
    sizes = [WINDOWS, WINDOWS[::-1]]  # each view begins in the window that the last one ended in
    for place, view in enumerate(VIEWS):
        page.get_by_role("radio", name=view, exact=True).click()
        assert fits(page, sizes[place % 2]), view


def saved_drawing(page, figure):
    with page.expect_download() as download:
        figure.get_by_role("button", name="SVG", exact=True).click()
    return Path(download.value.path()).read_text()


def test_a_figure_is_saved_as_points_as_lines_and_as_numbers(page, server):
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
    drawing = saved_drawing(page, figure)
    legend = re.findall('class="legendtext"[^>]*>([^<]*)<', drawing)
    (title,) = re.findall(r'<text class="gtitle".*?</text>', drawing, re.DOTALL)
    told = " ".join(re.sub("<[^>]*>", "\n", title).split())
    card = read_card(CHECKPOINTS / default_id())
    assert told.startswith(f"{card.title}: ")
    assert "simulated test studies" in told
    assert "Called positive from" in told
    heights = [float(y) for y in re.findall(r' y="([\d.]+)"', title)]
    assert 12 < min(heights) <= max(heights) < 60, "all of it lies in the room above the figure"
    whole = float(re.search(r'<svg[^>]* height="([\d.]+)"', drawing)[1])
    assert whole > figure.locator(".js-plotly-plot").bounding_box()["height"] + 20
    assert legend == [read_card(CHECKPOINTS / default_id()).title], "on paper nothing else does"
    assert not figure.locator(".legendtext").count()
    bars = pd.read_csv(io.BytesIO(saved["CSV"]))
    assert len(bars) == 40
    assert bars["y"].sum() > 100
    assert pd.api.types.is_numeric_dtype(bars["x"])


def test_the_names_of_many_models_have_room_in_a_saved_figure(page, server):
    page.goto(f"{server.url}/compare")
    ready(page)
    settled(page)
    figure = page.locator("[class*='st-key-saved-roc']")
    figure.locator(".scatterlayer .js-line").first.wait_for(state="attached")
    drawing = saved_drawing(page, figure)
    names = re.findall('class="legendtext"[^>]*>([^<]*)<', drawing)
    cards = [read_card(path.parent) for path in CHECKPOINTS.glob("*/card.json")]
    assert set(names) == set(model_names(card for card in cards if card.task == "fracture").values())
    (title,) = re.findall(r'<text class="gtitle".*?</text>', drawing, re.DOTALL)
    # Every line has the first one's y, and its own distance from it in units of the letters' size.
    first = float(re.search(r' y="([\d.]+)"', title)[1])
    below = [11 * float(each) for each in re.findall(r'dy="([\d.]+)em"', title)]
    (legend,) = re.findall(r'<g class="legend"[^>]*transform="translate\([\d.]+, ?([\d.]+)\)"', drawing)
    assert float(legend) > first + max(below, default=0), "names do not lie over what the figure is of"
    places = [
        float(y) for y in re.findall(r'<g class="traces"[^>]*transform="translate\([\d.]+, ?([\d.]+)\)"', drawing)
    ]
    plot = min(float(y) for y in re.findall(r'<rect class="bg" x="[\d.]+" y="([\d.]+)"', drawing))
    assert len(places) == len(names)
    assert float(legend) + max(places) < plot, "nor over the figure"


def test_two_sessions_see_their_own_films_and_leave_nothing_behind(chromium, server):
    films = film_png(11, 8, view="PA"), film_png(12, 8, view="PA")
    contexts = [chromium.new_context() for _ in films]
    shown = []
    for context, data in zip(contexts, films, strict=True):
        page = context.new_page()
        page.goto(server.url)
        drop(page, ("film.png", data))
        open_heat(page)
        choose_method(page, "SmoothGrad")
        with page.expect_download():
            page.get_by_role("button", name="Download film with heat map (PNG)").click()
    for context in contexts:
        shown.append(viewer(context.pages[0])["film"])
    from core.radiographs import read_radiograph

    assert shown == [read_radiograph(data).id for data in films]
    assert server.held()["films"] >= 2
    for context in contexts:
        context.close()
    for _ in range(120):
        held = server.held()
        del held["tensorflow"]
        if not any(held.values()):
            break
        time.sleep(0.5)
    assert held == {"films": 0, "heatmaps": 0, "uploads": 0, "files": 0, "media": 0}
