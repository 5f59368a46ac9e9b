"""What the server keeps of a session that has ended."""

from types import SimpleNamespace

import pytest
from streamlit.runtime import media_file_manager
from streamlit.runtime.media_file_manager import MediaFileManager
from streamlit.runtime.memory_media_file_storage import MemoryMediaFileStorage

from pages.parts import desk


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


@pytest.fixture
def server(monkeypatch):
    media = MediaFileManager(MemoryMediaFileStorage("/media"))
    uploads = SimpleNamespace(dropped=[])
    uploads.remove_session_files = uploads.dropped.append
    clock = Clock()

    def offer(session, name):
        monkeypatch.setattr(media_file_manager, "_get_session_id", lambda: session)
        media.add(name.encode(), "image/png", name, file_name=name, is_for_static_download=True)

    def offered():
        return {media._storage.get_file(each).content.decode() for each in media._file_metadata}

    monkeypatch.setattr(desk.runtime, "exists", lambda: True)
    monkeypatch.setattr(
        desk.runtime, "get_instance", lambda: SimpleNamespace(media_file_mgr=media, uploaded_file_mgr=uploads)
    )
    monkeypatch.setattr(desk.threading, "Timer", clock.timer)
    return SimpleNamespace(offer=offer, offered=offered, clock=clock, uploads=uploads)


@pytest.mark.parametrize("late", [1, 6, 19, 70])
def test_a_download_made_after_its_session_ended_goes_too_and_no_other(server, late):
    server.offer("gone", "film.png")
    server.offer("here", "other.png")
    desk.forget_session("gone")
    server.clock.forward(late)
    server.offer("gone", "heat map.png")
    server.clock.forward(45)
    assert server.offered() == {"other.png"}
    assert server.uploads.dropped == ["gone"]
    server.clock.forward(1000)
    assert server.clock.due == []


def test_a_download_on_its_way_is_not_taken_at_once(server):
    server.offer("gone", "film.png")
    desk.forget_session("gone")
    assert server.offered() == {"film.png"}
