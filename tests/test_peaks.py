"""The yardstick for heat maps: which peak is usual where there is nothing to find."""

import numpy as np
import pytest

from core.explain import peaks
from core.explain.peaks import usual_peak, usual_peaks
from core.values import Checkpoint, Explanation, Radiograph


@pytest.mark.parametrize(
    ("given", "usual"),
    [([5.0], 5.0), ([0, 0, 0, 0, 0, 0, 0, 0, 0, 9], 0.0), (range(1, 11), 9.0), (range(20), 17.0)],
)
def test_nine_in_ten_stay_at_or_below_the_usual_peak(given, usual):
    assert usual_peak(given) == {"value": usual, "n": len(list(given))}
    assert np.mean(np.array(list(given)) <= usual) >= 0.9


def test_only_methods_whose_peak_means_something_are_measured(monkeypatch):
    asked = []

    def explain(classifier, film, *, method, region):
        asked.append((film.id, method))
        return Explanation(film.id, "c", method, "for", np.zeros((2, 2)), float(film.id[-1]))

    monkeypatch.setattr(peaks, "explain", explain)
    card = Checkpoint("c", "C", "fracture", "efficientnetlite0", "top_activation", 224, location_head=True)
    films = [(Radiograph(f"{i:064d}", np.zeros((2, 2)), "PNG"), None) for i in range(5)]
    steps = []
    found = usual_peaks(type("K", (), {"checkpoint": card}), films, lambda *step: steps.append(step))
    assert set(found) == {"gradcam", "layercam", "gradcampp", "location"}
    assert found["gradcam"] == {"value": 4.0, "n": 5}
    assert len(asked) == 20
    assert steps[-1] == (5, 5)


def test_few_people_make_the_usual_peak_uncertain_however_many_films_they_have():
    values = np.repeat([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 8) + np.tile(np.linspace(0, 0.1, 8), 6)
    of_six = usual_peak(values, [f"p{n // 8}" for n in range(48)])
    of_all = usual_peak(values, [f"p{n}" for n in range(48)])
    assert of_six["value"] == of_all["value"] == usual_peak(values)["value"]
    assert of_six["low"] <= of_all["low"] <= of_all["value"] <= of_all["high"] <= of_six["high"]
    assert of_six["high"] - of_six["low"] > of_all["high"] - of_all["low"]
    assert "low" not in usual_peak(values, ["one"] * 48)
