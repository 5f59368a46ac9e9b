"""What the server keeps of a session that has ended, and under what a desk keeps what was made."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from streamlit.runtime import media_file_manager
from streamlit.runtime.media_file_manager import MediaFileManager
from streamlit.runtime.memory_media_file_storage import MemoryMediaFileStorage

from core.values import Checkpoint, Explanation, Radiograph
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


# --- what is kept while it lasts -------------------------------------------------------------------------------------


class StandInReader:
    """A checkpoint that reads whole films, and says of what it is asked."""

    def __init__(self, checkpoint):
        self.checkpoint = checkpoint
        self.classifier = SimpleNamespace(checkpoint=checkpoint)

    def read(self, films, regions):
        return SimpleNamespace(
            checkpoint=self.checkpoint,
            films=[SimpleNamespace(radiograph=film, region=None) for film in films],
            members=(),
        )


@pytest.mark.parametrize("change", [{"weights_sha256": "b" * 64}, {"card_sha256": "d" * 64}])
def test_no_map_and_no_check_of_a_checkpoint_that_was_replaced_is_shown(monkeypatch, change):
    """Another checkpoint comes to lie under the same id while a film is on the desk."""
    asked = []

    def explain(classifier, film, *, method, target, region, progress):
        asked.append(classifier.checkpoint)
        return Explanation(film.id, classifier.checkpoint.id, method, target, np.full((4, 4), len(asked) / 8), 1.0)

    def check_map(classifier, film, **_):
        return f"checks of {classifier.checkpoint.weights_sha256[0]}{classifier.checkpoint.card_sha256[0]}"

    monkeypatch.setattr(desk, "explain", explain)
    monkeypatch.setattr(desk, "check_map", check_map)
    hashes = {"weights_sha256": "a" * 64, "card_sha256": "c" * 64}
    card = Checkpoint("model-1", "Model", "fracture", "resnet50", "conv5_block3_out", 224, **hashes)
    old, new = StandInReader(card), StandInReader(replace(card, **change))
    film = Radiograph("f" * 64, np.zeros((4, 4), np.float32), "PNG")
    table = desk.Desk("test", films=(film,))
    first = table.explanation(old, film, "gradcam", "for")
    assert table.explanation(old, film, "gradcam", "for") is first, "made once"
    assert table.checked(old, None, first) == "checks of ac"
    assert table.has_explanation(old, film, "gradcam", "for")
    assert not table.has_explanation(new, film, "gradcam", "for")
    assert table.explanation_key(new.checkpoint, first) not in table.checks
    second = table.explanation(new, film, "gradcam", "for")
    assert (first.heatmap[0, 0], second.heatmap[0, 0]) == (1 / 8, 2 / 8)
    assert table.checked(new, None, second) == f"checks of {'b' if 'weights_sha256' in change else 'a'}" + (
        "d" if "card_sha256" in change else "c"
    )
    assert asked == [old.checkpoint, new.checkpoint]
    for reader, made in ((old, first), (new, second)):
        assert table.explanations[table.explanation_key(reader.checkpoint, made)] is made


def test_maps_are_let_go_of_when_all_together_are_too_large_those_shown_last_stay(monkeypatch):
    made = []

    def explain(classifier, film, *, method, target, region, progress):
        made.append(method)
        return Explanation(film.id, classifier.checkpoint.id, method, target, np.zeros((10, 10)), 1.0)

    monkeypatch.setattr(desk, "explain", explain)
    monkeypatch.setattr(desk, "MOST_BYTES", 2 * 400)  # two maps of 100 numbers in single precision
    reader = StandInReader(Checkpoint("c", "C", "fracture", "efficientnetlite0", "top_activation", 64))
    film = Radiograph("f" * 64, np.zeros((10, 10)), "PNG, 8 bit")
    own = desk.Desk("session")
    own.lay([film], "Study")
    shown = [own.explanation(reader, film, method, "for").method for method in ("a", "b", "a", "c")]
    assert shown == ["a", "b", "a", "c"]
    assert [own.has_explanation(reader, film, method, "for") for method in "abc"] == [True, False, True]
    assert own.explanation(reader, film, "b", "for").method == "b"
    assert made == ["a", "b", "c", "b"], "made once while it is kept, and again when it is asked for again"
    monkeypatch.setattr(desk, "MOST_BYTES", 1)
    assert own.explanation(reader, film, "d", "for").method == "d", "the one that is shown always stays"
    assert own.has_explanation(reader, film, "d", "for")
