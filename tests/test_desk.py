"""Under what a desk keeps what was made, and for how long."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from core.values import Checkpoint, Explanation, Radiograph
from pages.parts import desk


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


def test_wrists_are_found_again_where_the_readers_own_squares_are_forgotten():
    film = Radiograph("f" * 64, np.zeros((4, 4), np.float32), "PNG")
    asked = []

    class Finder(StandInReader):
        def read(self, films, regions):
            asked.append(dict(regions))
            return super().read(films, regions)

    reader = Finder(Checkpoint("c", "C", "fracture", "efficientnetlite0", "top_activation", 64))
    own = desk.Desk("session", films=(film,))
    own.reading(reader)
    own.mark(film.id, "square")
    own.reading(reader)
    own.find_again()
    own.reading(reader)
    assert asked == [{}, {film.id: "square"}, {}]
