"""What the server keeps of a session that has ended."""

import asyncio
import gc
import queue
from types import SimpleNamespace

import numpy as np
import pytest
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartParser
from streamlit.runtime import media_file_manager
from streamlit.runtime.caching import clear_session_resource_cache
from streamlit.runtime.media_file_manager import MediaFileManager
from streamlit.runtime.memory_media_file_storage import MemoryMediaFileStorage
from streamlit.runtime.scriptrunner import StopException
from streamlit.runtime.state import SessionState

from core.errors import RadiographError
from core.figures import png_bytes
from core.phantoms import simulate_film
from core.radiographs import read_radiograph
from core.values import Explanation, Radiograph, Scores
from pages.parts import sessions, study
from pages.parts.desk import Desk
from pages.parts.gallery import Shelf
from pages.parts.lighttable import Table
from pages.parts.scored import Bench
from tests.test_pages import open_page, upload


class Clock:
    """Takes the place of threading.Timer: nothing happens until the hand is moved."""

    def __init__(self):
        self.now, self.due = 0.0, []

    def timer(self, seconds, function, arguments=()):
        """Return a timer that this clock starts."""
        return SimpleNamespace(daemon=False, start=lambda: self.due.append((self.now + seconds, function, arguments)))

    def forward(self, seconds):
        """Let time go by."""
        end = self.now + seconds
        while ready := sorted((each for each in self.due if each[0] <= end), key=lambda each: each[0]):
            self.due.remove(ready[0])
            self.now, function, arguments = ready[0]
            function(*arguments)
        self.now = end


class StandInSession:
    """What Streamlit knows a session by, with its real session state."""

    def __init__(self):
        self.session_state = SessionState()
        self.session_state["given"] = "table"
        self.waiting, self.unsent, self._scriptrunner = ["message"], queue.SimpleQueue(), None
        self.unsent.put("film")

    def flush_browser_queue(self):
        """Hand out what waits."""
        self.waiting = []


def _noting(sessions_seen):
    """Return what notes a session, but not those of pages that other tests opened: their timers are real, and late."""
    return lambda session: None if session == "test session id" else sessions_seen.append(session)


@pytest.fixture
def server(monkeypatch):
    media = MediaFileManager(MemoryMediaFileStorage("/media"))
    uploads = SimpleNamespace(dropped=[])
    uploads.remove_session_files = _noting(uploads.dropped)
    clock = Clock()

    def offer(session, name):
        monkeypatch.setattr(media_file_manager, "_get_session_id", lambda: session)
        media.add(name.encode(), "image/png", name, file_name=name, is_for_static_download=True)

    def offered():
        return {media._storage.get_file(each).content.decode() for each in media._file_metadata}

    active, dropped, marked, app = {"here", "gone"}, [], [], StandInSession()
    running = SimpleNamespace(
        media_file_mgr=media,
        uploaded_file_mgr=uploads,
        is_active_session=lambda session: session in active,
        get_app_session=lambda session: app if session in active else None,
        get_client=lambda session: SimpleNamespace(_send_queue=app.unsent) if session in active else None,
        mark_session_nonresumable=_noting(marked),
    )
    monkeypatch.setattr(sessions.runtime, "exists", lambda: True)
    monkeypatch.setattr(sessions.runtime, "get_instance", lambda: running)
    monkeypatch.setattr(sessions, "clear_session_resource_cache", _noting(dropped))
    monkeypatch.setattr(sessions.threading, "Timer", clock.timer)

    def leave(own):
        """End the session as Streamlit does: its caches are dropped while it is still there."""
        own.end()
        active.discard(own.session)

    return SimpleNamespace(
        offer=offer, offered=offered, clock=clock, uploads=uploads, active=active, caches_dropped=dropped, leave=leave,
        marked=marked, app=app,
    )  # fmt: skip


@pytest.mark.parametrize("late", [1, 6, 19, 70])
def test_a_download_made_after_its_session_ended_goes_too_and_no_other(server, late):
    server.offer("gone", "film.png")
    server.offer("here", "other.png")
    server.leave(Desk("gone"))
    server.clock.forward(late)
    server.offer("gone", "heat map.png")
    server.clock.forward(45)
    assert server.offered() == {"other.png"}
    assert set(server.uploads.dropped) == {"gone"}
    server.clock.forward(1000)
    assert server.clock.due == []


def test_a_download_on_its_way_is_not_taken_at_once(server):
    server.offer("gone", "film.png")
    server.leave(Desk("gone"))
    assert server.offered() == {"film.png"}


@pytest.mark.parametrize("late", [0, 3, 50, 170])
@pytest.mark.parametrize("kind", [Desk, Shelf, Table, Bench])
def test_what_a_page_still_at_work_makes_after_its_session_ended_goes_too(server, kind, late):
    """A widget of the session may hold the object for as long as the server runs."""
    own = kind("gone")
    empty = {name: repr(value) for name, value in vars(own).items() if name not in ("ended", "number", "turn")}
    server.leave(own)
    server.clock.forward(late)
    for value in vars(own).values():
        if isinstance(value, dict):
            value["film"] = "pixels"
    if kind is Desk:
        own.films = ("pixels",)
    server.clock.forward(25)
    assert own.ended
    assert {name: repr(value) for name, value in vars(own).items() if name in empty} == empty
    server.clock.forward(1000)
    assert server.clock.due == []
    assert set(server.caches_dropped) == {"gone"}, "a page may have opened another one meanwhile"


def test_an_upload_that_ends_after_its_session_is_dropped_too(server):
    server.leave(Desk("gone"))
    del server.uploads.dropped[:]
    server.clock.forward(5)
    assert server.uploads.dropped == ["gone"]


def test_what_streamlit_holds_of_a_session_that_has_gone_is_emptied_once_no_page_is_at_work(server):
    server.app._scriptrunner = "at work"
    server.leave(Desk("gone"))
    assert server.marked == ["gone"]
    server.clock.forward(5)
    assert server.app.waiting == []
    assert server.app.unsent.empty()
    assert server.app.session_state["given"] == "table", "a page at work would fail without its widgets"
    server.app._scriptrunner = None
    server.clock.forward(5)
    assert not server.app.session_state.filtered_state


def test_what_is_taken_from_a_session_that_is_still_there_leaves_its_downloads(server):
    server.offer("here", "film.png")
    Desk("here").end()
    server.offer("here", "after.png")
    server.clock.forward(1000)
    assert server.offered() >= {"after.png"}
    assert server.caches_dropped == []
    assert server.app.session_state["given"] == "table"


def test_a_session_that_went_before_it_was_marked_is_not_marked(server):
    """Nothing would take such a mark away."""
    server.active.discard("gone")
    Desk("gone").end()
    server.clock.forward(1000)
    assert server.marked == []


CARD = SimpleNamespace(id="model", weights_sha256="a", card_sha256="b")
CHANGES = {
    "gone": lambda own: own.end(),
    "closed": lambda own: own.clear(),
    "another": lambda own: own.lay([SimpleNamespace(id="other", view="PA")], "Study"),
    "marked": lambda own: own.mark("film", None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_reading_of_what_was_on_the_desk_before_is_not_kept(change):
    """A click begins another run of the page while the one before still reads."""
    film = SimpleNamespace(id="film", view="PA")
    own = Desk("here", films=(film,))

    def read(films, regions):
        assert films == (film,)
        CHANGES[change](own)
        return SimpleNamespace(checkpoint=CARD, members=())

    with pytest.raises(StopException):
        own.reading(SimpleNamespace(checkpoint=CARD, read=read))
    assert own.readings == {}


@pytest.mark.parametrize("change", CHANGES)
def test_neither_is_a_map_nor_its_check(change, monkeypatch):
    film = SimpleNamespace(id="film", view="PA")
    read = SimpleNamespace(checkpoint=CARD, members=(), films=(SimpleNamespace(radiograph=film, region=None),))
    reader = SimpleNamespace(checkpoint=CARD, classifier=None, read=lambda films, regions: read)
    made = SimpleNamespace(radiograph_id="film", method="gradcam", target="for", heatmap=np.zeros(3))
    for name, ask in (
        ("explain", lambda own: own.explanation(reader, film, "gradcam", "for")),
        ("check_map", lambda own: own.checked(reader, None, made)),
    ):
        own = Desk("here", films=(film,))
        monkeypatch.setattr(f"pages.parts.desk.{name}", lambda *_, own=own, **__: CHANGES[change](own) or made)
        with pytest.raises(StopException):
            ask(own)
        assert own.explanations == own.checks == {}


def test_nothing_is_made_of_a_film_that_is_on_the_desk_no_more():
    own = Desk("here", films=(SimpleNamespace(id="other", view="PA"),))
    with pytest.raises(StopException):
        own.explanation(SimpleNamespace(checkpoint=CARD), SimpleNamespace(id="film"), "gradcam", "for")


def test_what_was_measured_of_one_dataset_is_not_kept_for_the_next():
    table = Table("here")
    with pytest.raises(StopException):
        table.once("overlap", lambda: table.clear() or "patients of the first")
    assert table.made == {}
    assert table.once("overlap", lambda: "of the second") == "of the second"


def test_a_download_of_what_is_gone_says_nothing_of_the_film():
    own = Desk("here", films=(SimpleNamespace(id="c0ffee", view="PA", laterality="L"),))
    for ask in (study._overlay_png, study._result_json):
        with pytest.raises(RadiographError) as told:
            ask(own, ("model", "c0ffee"))
        assert "c0ffee" not in str(told.value)


def test_uploads_stay_in_memory(monkeypatch):
    """Starlette moves what is larger than a megabyte to a file, before any page is asked."""
    head = b'--x\r\nContent-Disposition: form-data; name="f"; filename="film.dcm"\r\n\r\n'
    body = head + b"p" * 5_000_000 + b"\r\n--x--\r\n"

    async def stream():
        for start in range(0, len(body), 100_000):
            yield body[start : start + 100_000]

    async def parse():
        form = await MultiPartParser(Headers({"content-type": "multipart/form-data; boundary=x"}), stream()).parse()
        return form["f"]

    file = asyncio.run(parse())
    assert file.size == 5_000_000
    assert not file.file._rolled
    assert MultiPartParser.spool_max_size == 0
    file.file.close()


@pytest.fixture
def browser_goes():
    """Return what ends the session of every AppTest, whose widgets stay, as those of a session that may come back."""
    yield lambda: (clear_session_resource_cache("test session id"), gc.collect())
    clear_session_resource_cache("test session id")


def alive(kind, **wanted):
    return [
        thing
        for thing in gc.get_objects()
        if isinstance(thing, kind) and all(getattr(thing, name) == value for name, value in wanted.items())
    ]


def test_no_widget_holds_a_film_longer_than_the_desk(browser_goes):
    pixels = simulate_film(5, size=300, framing="wrist", view="PA", positive=True).pixels
    data = png_bytes(np.rint(255 * pixels).astype(np.uint8))
    film = read_radiograph(data).id
    app = upload(open_page(), ("film.png", data))
    app.toggle(key="heat").set_value(True).run()
    app.switch_page("pages/explanations.py").run()
    assert not app.exception
    assert app.selectbox(key="explained-film").options == ["Film 1"]
    assert alive(Radiograph, id=film)
    assert alive(Explanation, radiograph_id=film)
    browser_goes()
    assert alive(Radiograph, id=film) == []
    assert alive(Explanation, radiograph_id=film) == []


def test_no_widget_holds_scores_longer_than_the_bench(browser_goes):
    rows = ["split,study_id,patient_id,label,probability"]
    rows += [f"{split},s{n},p-{split}-{n},{n % 2},{n / 10}" for split in ("valid", "test") for n in range(10)]
    table = [("mine.csv", "\n".join(rows).encode(), "text/csv")]
    app = open_page("pages/threshold.py")
    app.file_uploader(key="score-tables").set_value(table).run()
    app.selectbox(key="model").set_value("uploaded: mine").run()
    assert not app.exception
    app.button(key="apply-rule").click().run()
    app.switch_page("pages/compare.py").run()
    app.file_uploader(key="score-tables").set_value(table).run()
    app.multiselect(key="models").set_value(["uploaded: mine"]).run()
    assert not app.exception
    held = [scores for scores in alive(Scores) if "p-valid-0" in scores.patient_ids or "p-test-0" in scores.patient_ids]
    assert len(held) >= 2
    del held
    browser_goes()
    assert not any("p-valid-0" in scores.patient_ids or "p-test-0" in scores.patient_ids for scores in alive(Scores))
