"""What a trained network is measured on: breaks that are missed, films that are refused, films that cannot be read."""

import dataclasses

import cv2
import numpy as np
import pytest

from core.classifier import Classifier, study_probability
from core.errors import TrainingError
from core.metrics import operating_points
from core.train import appraisal
from core.train.squares import Film, read_film
from core.values import Checkpoint, WristRegion
from core.wrist import MAPS, WristFinder, draw_grid

SIZE = 64


def write_film(path, contrast=40):
    rows = np.full((256, 256), 128, np.uint8)
    rows[::2] += contrast
    rows[:2], rows[2:4] = 0, 255  # so that the others keep their values when the film is read
    cv2.imwrite(str(path), rows)
    return path


def make_film(path, label=1, mask=None, study="s", region=None):
    marks = None if mask is None else lambda height, width: mask
    return Film(path, study, f"patient of {study}", label, marks, region, "hairline" if label else "")


def drawn(rows, columns):
    mask = np.zeros((256, 256), np.uint8)
    mask[rows, columns] = 255
    return mask


def top_left_reader(logit=lambda squares: squares.mean(axis=(1, 2))):
    """A classifier whose location head sees a break in the square's first 16 x 16 pixels."""

    def run(squares):
        location = np.zeros((len(squares), 4, 4, 1), np.float32)
        location[:, 0, 0] = 1
        return {"logit": logit(squares), "location": location}

    card = Checkpoint("m-1", "", "fracture", "resnet50", "conv5_block3_out", SIZE, location_head=True)
    return Classifier(card, None, run)


def test_a_break_outside_the_square_is_a_miss_and_a_thin_one_is_not_left_out(tmp_path):
    """The same rule as where checkpoints are measured on simulated studies: `location_peak_in_mask` is one number."""
    path = write_film(tmp_path / "film.png")
    square = WristRegion(64, 64, 128)  # the film's upper left quarter, two pixels of it in one of the square's
    masks = {
        "inside": drawn(slice(4, 20), slice(4, 20)),
        "outside": drawn(slice(200, 220), slice(200, 220)),
        # One pixel wide, slanting: it covers no pixel of the square by more than a quarter.
        "thin": drawn(np.arange(0, 40, 6), np.arange(0, 40, 6)),
        "none": drawn(slice(0), slice(0)),
    }
    films = [make_film(path, mask=mask, study=name, region=square) for name, mask in masks.items()]
    films += [make_film(path, mask=None, study="unknown", region=square), make_film(path, 0, study="whole")]
    answers = [appraisal._ask(top_left_reader(), film, None) for film in films]
    inside = {answer.film.study_id: answer.places.get("location_peak_in_mask") for answer in answers}
    assert list(inside) == ["inside", "outside", "thin", "none", "unknown", "whole"]
    assert (inside["inside"], inside["outside"]) == (True, False)
    assert inside["thin"] is not None
    assert (inside["none"], inside["unknown"], inside["whole"]) == (None, None, None)
    assert appraisal._location_results(answers)["location_peak_in_mask"]["n"] == 3


def test_where_the_peak_lies_on_a_stretched_film(tmp_path):
    """The square's first quarter of each side is the film's; were the film padded, no break would lie there."""
    rows = np.random.default_rng(2).integers(60, 200, (128, 256)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "film.png"), rows)
    mask = np.zeros((128, 256), np.uint8)
    mask[:16, :32] = 255
    reader = top_left_reader()
    hits = []
    for fit in ("stretch", "pad"):
        reader.checkpoint = dataclasses.replace(reader.checkpoint, fit=fit)
        answer = appraisal._ask(reader, make_film(tmp_path / "film.png", mask=mask), None)
        hits.append(answer.places["location_peak_in_mask"])
    assert hits == [True, False]


def test_a_film_that_is_not_fit_is_refused_whether_or_not_a_finder_looked(tmp_path):
    faint, clear = write_film(tmp_path / "faint.png", contrast=2), write_film(tmp_path / "clear.png")
    reader = top_left_reader()
    for region in (None, WristRegion(128, 128, 200)):
        assert appraisal._ask(reader, make_film(faint, 0, region=region), None) is None
        assert appraisal._ask(reader, make_film(clear, 0, region=region), None) is not None
    assert appraisal._ask(reader, make_film(clear, 0, region=WristRegion(128, 128, 20)), None) is None


def test_a_study_stays_positive_when_its_only_positive_film_is_refused(tmp_path):
    clear, faint = write_film(tmp_path / "clear.png", 60), write_film(tmp_path / "faint.png", contrast=2)
    halves = {
        name: [
            make_film(clear, 0, study=f"{name} mixed"),
            make_film(faint, 1, study=f"{name} mixed"),
            make_film(write_film(tmp_path / f"{name}.png", 30), 0, study=f"{name} healthy"),
            make_film(write_film(tmp_path / f"{name}2.png", 45), 0, study=f"{name} healthy too"),
        ]
        for name in ("valid", "test")
    }
    measured = appraisal.appraise_classifier(contrast_reader(), halves, None)
    for scores in measured.scores:
        labels = dict(zip(scores.study_ids, scores.labels.tolist(), strict=True))
        split = scores.split
        assert labels == {f"{split} mixed": 1, f"{split} healthy": 0, f"{split} healthy too": 0}
        assert measured.counts[f"{split}_positive_studies"] == sum(labels.values())
        assert measured.counts[f"{split}_films_refused"] == 1
        assert measured.counts[f"{split}_patients_left_out"] == 0, "its other film was read"
    assert measured.results["auc"]["value"] == 1.0


def test_films_of_both_halves_that_cannot_be_read_are_listed(tmp_path, capsys):
    halves = {name: write_half(tmp_path, name, (30, 50, 70, 90), (0, 1, 0, 1)) for name in ("valid", "test")}
    for name, films in halves.items():
        broken = tmp_path / f"broken {name}.png"
        broken.write_bytes(b"no film at all")
        films.append(make_film(broken, 1, study=f"broken {name}"))
    appraisal.appraise_classifier(contrast_reader(), halves, None, folder=tmp_path / "run")
    listed = [line.split("\t") for line in (tmp_path / "run" / "left_out.txt").read_text().splitlines()]
    assert [line[:2] for line in listed] == [[name, str(tmp_path / f"broken {name}.png")] for name in halves]
    assert "broken" not in capsys.readouterr().err


def centre_finder():
    """A finder that sees a wrist in the middle of all that is bright."""

    def answer(squares):
        maps = []
        for square in squares:
            target, _ = draw_grid(0.5, 0.5, 0.5, 0.0, 12)
            target[..., 0] = (12 * target[..., 0] - 6) * (1 if square.mean() > 0.3 else -1)
            maps.append(target)
        return {MAPS: np.stack(maps)}

    return WristFinder(Checkpoint("finder", "", "wrist", "efficientnetlite0", "", 96), answer)


def test_a_finders_measures_count_what_cannot_be_read_and_name_nothing(tmp_path, capsys):
    good = [write_film(tmp_path / f"Jane_Doe_{number}.png") for number in range(3)]
    (tmp_path / "John_Doe.png").write_bytes(b"no film at all")
    true = WristRegion(128, 128, 64)
    splits = {
        "valid": [make_film(path, region=true) for path in (tmp_path / "John_Doe.png", *good[:2])],
        "test": [make_film(path, region=true, study=path.stem) for path in good],
    }
    decoys = {split: np.zeros((2, 96, 96), np.uint8) for split in splits}
    done = []
    measured = appraisal.appraise_finder(
        centre_finder(), splits, decoys, lambda *told: done.append(told), tmp_path / "run"
    )
    assert "John_Doe.png" in (tmp_path / "run" / "left_out.txt").read_text()
    assert done == [(number, 10) for number in range(1, 11)]
    assert sum(measured.counts[f"{split}_films_unreadable"] for split in ("valid", "test")) == 1
    assert measured.results["centre_within_15_percent"]["n"] == 3
    told = capsys.readouterr().err
    assert "valid: 1 of 3 films cannot be read" in told
    assert "Doe" not in told
    with pytest.raises(TrainingError, match="both needed"):
        appraisal.appraise_finder(centre_finder(), splits, dict.fromkeys(splits, ()))


# --- the two halves of the held-out studies ---------------------------------------------------------------------------


def contrast_reader():
    """A classifier for which a film is the more a break the brighter it is."""
    card = Checkpoint("m-1", "", "fracture", "resnet50", "conv5_block3_out", SIZE)
    return Classifier(card, None, lambda squares: {"logit": 40 * (squares.mean(axis=(1, 2)) - 0.63)})


def write_half(folder, name, contrasts, labels):
    folder.mkdir(exist_ok=True)
    drawn = enumerate(zip(contrasts, labels, strict=True))
    return [
        make_film(write_film(folder / f"{name}{number}.png", contrast), label, study=f"{name}{number}")
        for number, (contrast, label) in drawn
    ]


def chosen(appraised):
    points = [dataclasses.astuple(point) for point in appraised.points]
    return dict(appraised.calibration), dict(appraised.study_calibration), points


def test_scores_are_what_the_published_model_will_say(tmp_path):
    """Studies of two films, whose second shows little of the break."""
    halves = {}
    for name in ("valid", "test"):
        pairs = [((40, 45), 0), ((100, 50), 1), ((60, 40), 0), ((90, 55), 1), ((70, 75), 0), ((80, 45), 1)]
        halves[name] = [
            make_film(write_film(tmp_path / f"{name}{number}-{place}.png", contrast), label, study=f"{name}{number}")
            for number, (contrasts, label) in enumerate(pairs)
            for place, contrast in enumerate(contrasts)
        ]
    measured = appraisal.appraise_classifier(contrast_reader(), halves, None)
    served = contrast_reader()
    served.checkpoint = dataclasses.replace(
        served.checkpoint, calibration=measured.calibration, study_calibration=measured.study_calibration
    )
    for scores in measured.scores:
        for study, told in zip(scores.study_ids, scores.probabilities, strict=True):
            films = [read_film(film) for film in halves[scores.split] if film.study_id == study]
            assert study_probability(served.predict(films), served.checkpoint) == pytest.approx(told, abs=1e-9)


def test_what_is_tested_on_chooses_neither_calibration_nor_operating_points(tmp_path):
    contrasts = (30, 50, 45, 60, 75, 65, 90, 100)
    labels = (0, 0, 1, 0, 1, 0, 1, 1)
    halves = {
        "valid": write_half(tmp_path, "v", contrasts, labels),
        "test": write_half(tmp_path, "t", contrasts[::-1], labels[::-1]),
    }
    # In each a study lies elsewhere: other films, the same films with other labels, fewer of them.
    others = {
        "films": write_half(tmp_path, "o", (35, 40, 80, 85, 55, 95), (0, 1, 1, 0, 0, 1)),
        "labels": [make_film(film.path, 1 - film.label, study=film.study_id) for film in halves["test"]],
        "fewer": halves["test"][:5],
    }
    first = appraisal.appraise_classifier(contrast_reader(), halves, None)
    assert set(first.calibration) == {"method", "temperature", "bias"}
    assert len(first.points) == 2
    # As many have a break as not: where the odds are a fifth of that, the probability is a sixth.
    assert first.points[0].threshold == pytest.approx(1 / 6)
    assert operating_points(first.scores[0], 0.95, 0.95)[0].threshold > 0.18
    for name, test in others.items():
        again = appraisal.appraise_classifier(contrast_reader(), halves | {"test": test}, None)
        assert chosen(again) == chosen(first), name
        assert again.results["brier"]["value"] != first.results["brier"]["value"], name
        # Nor does it matter which half is read first.
        turned = {"test": test, "valid": halves["valid"]}
        assert chosen(appraisal.appraise_classifier(contrast_reader(), turned, None)) == chosen(first), name
    for name, valid in others.items():
        again = appraisal.appraise_classifier(contrast_reader(), halves | {"valid": valid}, None)
        assert chosen(again)[0] != chosen(first)[0], name
        assert chosen(again)[-1] != chosen(first)[-1], name
    assert {(scores.split, len(scores.study_ids)) for scores in first.scores} == {("valid", 8), ("test", 8)}
