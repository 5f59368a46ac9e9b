"""The way from films to a second opinion, with a stand-in for the network so that every number is known."""

from types import SimpleNamespace

import numpy as np
import pytest

from core.reading import Reader, mean_probability
from core.values import Checkpoint, Interval, OperatingPoint, Prediction, Radiograph, WristRegion

RATE = Interval(0.95, 0.9, 0.98, 100)
CARD = Checkpoint(
    "stand-in",
    "Stand-in",
    "fracture",
    "efficientnetlite0",
    "top_activation",
    224,
    region="finder",
    operating_points=(
        OperatingPoint("high_sensitivity", 0.3, RATE, RATE),
        OperatingPoint("high_specificity", 0.6, RATE, RATE),
    ),
)


def film(number, brightness=1.0):
    pixels = np.random.default_rng(number).random((200, 160)) * brightness
    return Radiograph(f"{number:064d}", pixels, "PNG, 8 bit")


def reader(probabilities, confidence=1.0):
    """Return a reader that gives each film id its probability, and a log of what the finder and network were asked."""
    asked = SimpleNamespace(found=[], read=[])

    def find(radiograph):
        asked.found.append(radiograph.id)
        return WristRegion(80, 100, 140, 0, confidence)

    def predict(radiographs, regions):
        asked.read += list(zip([r.id for r in radiographs], regions, strict=True))
        return [Prediction(r.id, CARD.id, 0.0, probabilities[r.id]) for r in radiographs]

    classifier = SimpleNamespace(checkpoint=CARD, predict=predict)
    return Reader(classifier, SimpleNamespace(find=find)), asked


@pytest.mark.parametrize(
    ("given", "mean", "label"),
    [
        ((0.9, 0.5), 0.7, "suspected"),
        ((0.6, 0.6), 0.6, "suspected"),
        ((0.9, 0.1), 0.5, "uncertain"),
        ((0.3,), 0.3, "uncertain"),
        ((0.2, 0.1), 0.15, "not seen"),
    ],
)
def test_a_study_is_the_mean_of_its_films_in_words_of_the_operating_points(given, mean, label):
    films = [film(number) for number in range(len(given))]
    who, _ = reader({f.id: p for f, p in zip(films, given, strict=True)})
    reading = who.read(films)
    assert reading.probability == pytest.approx(mean)
    assert reading.decision.label == label
    assert [f.prediction.probability for f in reading.films] == list(given)
    assert reading.driver.radiograph is films[int(np.argmax(given))]


def test_a_square_set_by_the_reader_is_read_and_not_searched_for():
    films = [film(1), film(2)]
    who, asked = reader({f.id: 0.5 for f in films})
    marked = WristRegion(50, 60, 100, 90, set_by_reader=True)
    reading = who.read(films, {films[1].id: marked})
    assert asked.found == [films[0].id]
    assert dict(asked.read)[films[1].id] is marked
    assert reading.films[1].region is marked


def test_a_film_that_is_not_fit_to_be_read_does_not_count():
    fit, blank = film(1), film(2, brightness=0.01)
    who, asked = reader({fit.id: 0.8, blank.id: 0.0})
    reading = who.read([blank, fit])
    assert [radiograph_id for radiograph_id, _ in asked.read] == [fit.id]
    assert reading.films[0].prediction is None
    assert reading.films[0].quality.reasons
    assert reading.probability == 0.8


def test_nothing_is_said_where_no_wrist_was_found():
    who, asked = reader({}, confidence=0.0)
    reading = who.read([film(1)])
    assert reading.probability is None
    assert reading.decision is None
    assert reading.driver is None
    assert asked.read == []
    assert mean_probability([reading]) is None


def test_an_ensemble_is_the_mean_of_its_members():
    films = [film(1)]
    readings = [reader({films[0].id: p})[0].read(films) for p in (0.2, 0.9)]
    assert mean_probability(readings) == pytest.approx(0.55)


def test_a_checkpoint_of_whole_films_asks_no_finder():
    who, asked = reader({film(1).id: 0.4})
    reading = Reader(who.classifier, None).read([film(1)])
    assert asked.found == []
    assert reading.films[0].region is None
    assert reading.probability == 0.4
