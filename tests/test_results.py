"""What a screen and a file say: sentences and JSON checked against numbers counted by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest

from core.checkpoints.cards import write_card
from core.quality import Quality
from core.reading import FilmReading, StudyReading
from core.results import (
    _mean_scores,
    cases_sentence,
    comparison_rows,
    displacement_rows,
    evidence_sentence,
    film_result,
    held_out_scores,
    kind_rows,
    map_sentence,
    measured_cards,
    model_names,
    operating_point_rows,
    reach_sentence,
    reading_result,
    result_rows,
    study_result,
    weak_kinds,
    weak_sentence,
)
from core.values import Checkpoint, Explanation, Interval, OperatingPoint, Prediction, Radiograph, WristRegion

RATE = Interval(0.95, 0.9, 0.98, 100)


def card(**changes):
    given = {
        "operating_points": (
            OperatingPoint("high_sensitivity", 0.3, RATE, RATE),
            OperatingPoint("high_specificity", 0.6, RATE, RATE),
        ),
        "region": "finder",
        "weights_sha256": "a" * 64,
        "data": {"simulated": True, "peaks": {"gradcam": {"value": 2.0, "n": 50}}},
    }
    return Checkpoint("c", "C", "fracture", "efficientnetlite0", "top_activation", 224, **(given | changes))


def reading(probabilities, **changes):
    films = tuple(
        FilmReading(
            Radiograph(f"{i:064d}", np.zeros((4, 4)), "PNG, 8 bit", warnings=("A note.",)),
            WristRegion(2, 2, 4, 10, 0.8),
            Quality("good") if p is not None else Quality("unfit", ("No wrist was found.",)),
            None if p is None else Prediction(f"{i:064d}", "c", float(np.log(p / (1 - p))), p),
        )
        for i, p in enumerate(probabilities)
    )
    read = [p for p in probabilities if p is not None]
    return StudyReading(card(**changes), films, float(np.mean(read)) if read else None, None, 0.1)


def test_a_study_result_is_json_that_says_how_it_came_about():
    study = reading([0.2, None, 0.8])
    result = json.loads(json.dumps(study_result(["Film 1", "Film 2", "Film 3"], [study]), allow_nan=False))
    (row,) = result["checkpoints"]
    assert row["probability"] == pytest.approx(0.5)
    assert row["decision"] == "Uncertain"
    assert row["thresholds"] == {"high_sensitivity": 0.3, "high_specificity": 0.6}
    assert row["threshold"] == 0.6
    assert row["weights_sha256"] == "a" * 64
    assert row["driver"] == "Film 3"
    assert row["films_read"] == 2
    assert [film["decision"] for film in row["films"]] == ["No fracture seen", "not read", "Fracture suspected"]
    assert row["films"][1]["probability"] is None
    assert row["films"][1]["quality"] == {"level": "unfit", "reasons": ["No wrist was found."]}
    assert row["films"][0]["region"]["angle"] == 10
    assert {"scaphoid", "tensorflow", "keras"} <= set(result["versions"])


def test_a_film_result_keeps_the_contract_of_the_command_line():
    study = reading([0.25])
    row = film_result("a.png", study.films[0], study)
    assert row["logit"] == pytest.approx(np.log(1 / 3))
    needed = {"file", "probability", "logit", "decision", "threshold", "positive_label", "checkpoint", "quality"}
    assert needed <= set(row)


def test_a_study_nobody_could_read_has_no_number():
    row = reading_result(["a"], reading([None]))
    assert row["probability"] is None
    assert row["decision"] == "not read"
    assert row["driver"] is None


def scored(tmp_path, labels, probabilities):
    lines = ["split,study_id,patient_id,label,probability"]
    lines += [f"test,s{i},p{i},{y},{p}" for i, (y, p) in enumerate(zip(labels, probabilities, strict=True))]
    lines += [f"valid,v{i},q{i},1,0.5" for i in range(50)]
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "scores.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "c" / "card.json").write_text(write_card(card())[0])


def test_the_sentence_counts_test_studies_only(tmp_path):
    scored(tmp_path, [1] * 15 + [0] * 10 + [0] * 30, [0.5] * 25 + [0.05] * 30)
    words = cases_sentence(reading([0.5]), tmp_path)
    # 15 of 25; Wilson 95%: 0.407 to 0.766, worked by hand.
    assert words == (
        "Of 25 simulated test studies that scored like this one (50 to 50%), 15 had a fracture "
        "(60%, 95% interval 41 to 77%). Of all 55 test studies 27% had one: where they are rarer, the same score "
        "means less."
    )


def test_a_model_tested_on_other_films_is_not_called_simulated(tmp_path):
    scored(tmp_path, [1] * 25, [0.5] * 25)
    words = cases_sentence(reading([0.5], data={}, positive_label="abnormal"), tmp_path)
    assert "simulated" not in words
    assert "had an abnormality" in words


def test_without_scores_the_sentence_says_so(tmp_path):
    assert "no test studies" in cases_sentence(reading([0.5]), tmp_path)


@pytest.mark.parametrize(
    ("method", "target", "peak", "positive"),
    [
        ("gradcam", "for", 0.0, False),
        ("gradcam", "for", 1.9, False),
        ("gradcam", "for", 2.1, True),
        ("gradcam", "against", 0.1, True),
        ("smoothgrad", "for", 0.1, True),
        ("smoothgrad", "for", 0.0, False),
    ],
)
def test_the_raw_peak_decides_what_is_called_evidence(method, target, peak, positive):
    heat = np.ones((2, 2)) if peak else np.zeros((2, 2))
    sentence, shown = evidence_sentence(Explanation("r", "c", method, target, heat, peak), card())
    assert shown is positive
    assert sentence.startswith("No positive evidence") is not positive


def test_films_of_few_patients_are_told_as_such():
    made = Explanation("r", "c", "gradcam", "for", np.ones((2, 2)), 5.0)
    told = card(data={"peaks": {"gradcam": {"value": 2.0, "n": 48, "films": "real films", "patients": 6}}})
    assert "on 9 in 10 real films without a fracture (n=48 of 6 patients)" in evidence_sentence(made, told)[0]
    assert "patients" not in evidence_sentence(made, card())[0]


@pytest.mark.parametrize(
    ("peak", "words", "shown"),
    [
        (0.9, "No positive evidence: what speaks for a fracture here is no stronger than", False),
        (1.5, "No clear evidence: what speaks for a fracture here is about as strong as", False),
        (2.5, "is hardly stronger than on 9 in 10 real films", True),
        (3.5, "here is stronger than on 9 in 10 real films", True),
    ],
)
def test_a_peak_within_the_interval_of_the_usual_one_is_not_called_stronger_or_weaker(peak, words, shown):
    usual = {"value": 2.0, "low": 1.0, "high": 3.0, "n": 48, "films": "real films", "patients": 6}
    made = Explanation("r", "c", "gradcam", "for", np.ones((2, 2)), peak)
    sentence, evidence = evidence_sentence(made, card(data={"peaks": {"gradcam": usual}}))
    assert words in sentence
    assert evidence == shown


def test_a_map_that_was_compared_with_nothing_claims_nothing():
    made = Explanation("r", "c", "gradcam", "against", np.ones((2, 2)), 5.0)
    assert evidence_sentence(made, card())[0].startswith("One method's estimate")


def test_a_map_whose_usual_strength_is_not_known_is_no_more_than_a_hint():
    made = Explanation("r", "c", "layercam", "for", np.ones((2, 2)), 0.1)
    sentence, shown = evidence_sentence(made, card())
    assert shown
    assert "on films without a fracture was not measured for this model" in sentence
    assert "for this model" not in evidence_sentence(made, card(data={}))[0]


def test_tables_of_the_card():
    rows = result_rows(
        card(data={"results": {"auc": {"value": 0.912, "low": 0.9, "high": None, "n": 40}, "note": "x"}})
    )
    words = {"": "AUC", "value": "0.912", "95% interval": "0.900 to -", "n": "40", "films": "real"}
    assert rows == [words]
    told = {"value": 0.1, "low": 0.0, "high": 0.2, "n": 4}
    both = result_rows(
        card(data={"simulated": True, "results": {"brier": told, "real_normals_called_suspected": told}})
    )
    assert [row["films"] for row in both] == ["simulated", "real"]
    assert operating_point_rows(card())[0]["sensitivity"] == "0.95 (0.90 to 0.98, n=100)"


def test_what_was_not_read_of_a_film_is_told():
    def whole(given):
        return replace(given, films=tuple(replace(film, region=None) for film in given.films))

    assert reach_sentence(reading([0.9])).startswith("Only the square on the wrist was read:")
    assert reach_sentence(reading([0.9, None])).startswith("Only the square "), "a film that was refused was not read"
    assert reach_sentence(reading([0.9, 0.1])).startswith("Only the squares on the wrist were read:")
    assert reach_sentence(whole(reading([0.9, 0.1]))) == ""
    assert reach_sentence(reading([None])) == ""


def test_a_map_of_one_look_of_several_says_so():
    assert map_sentence(replace(card(), looks=1)) == ""
    assert "mean of 6 slightly different looks" in map_sentence(replace(card(), looks=6))


def test_kinds_that_are_told_no_better_than_by_chance_are_named():
    def auc(value, low, high, n=35):
        return {"auc": {"value": value, "low": low, "high": high, "n": n}, "peak": None}

    kinds = {
        "colles": auc(0.99, 0.98, 1.0, 100),
        "scaphoid": auc(0.501, 0.402, 0.596),
        "salter_harris_2": auc(0.9, 0.79, 0.99, 4),  # too few to tell
        "smith": auc(0.82, 0.8, 0.84, 900),
        "ulnar_styloid": auc(0.46, 0.37, 0.49),  # worse than chance is not seeing either
        "buckle": {"auc": {"value": None, "low": None, "high": None, "n": 0}, "peak": None},
    }
    blind = card(data={"results": {"kinds": kinds}, "simulated": True})
    assert list(weak_kinds([blind])) == ["ulnar styloid", "scaphoid", "Salter-Harris II"]
    told = "May well miss, by its tests on simulated studies: ulnar styloid, scaphoid, Salter-Harris II."
    assert weak_sentence([blind]) == told
    real = replace(blind, data=blind.data | {"simulated": False})
    assert weak_sentence([real]).startswith("May well miss, by its tests:")
    assert "scaphoid (0.50, 0.40 to 0.60, n=35)" in weak_sentence([blind], numbers=True)
    assert weak_sentence([card()]) == ""
    assert list(weak_kinds([card(), blind])) == list(weak_kinds([blind])), "a mean sees no more than was shown"
    better = card(data={"results": {"kinds": {"scaphoid": auc(0.7, 0.6, 0.8), "smith": auc(0.7, 0.6, 0.8)}}})
    for both in ([blind, better], [better, blind]):
        assert weak_kinds(both)["scaphoid"]["value"] == 0.501, "the worse of two models"
        assert weak_kinds(both)["Smith"]["value"] == 0.7
    rows = kind_rows(blind)
    assert [row["fracture"] for row in rows] == [
        "ulnar styloid", "scaphoid", "Smith", "Salter-Harris II", "Colles",
    ]  # fmt: skip
    assert rows[1] == {"fracture": "scaphoid", "AUC": "0.501 (0.402 to 0.596)", "studies": "35"}
    assert reading_result(["a"], reading([0.4], data=blind.data))["may_miss"] == list(weak_kinds([blind]))
    alone, other = reading([0.4], data=blind.data), reading([0.4])
    of_both = replace(other, members=(alone, other))
    assert measured_cards(of_both) == [alone.checkpoint, other.checkpoint]
    assert reading_result(["a"], of_both)["may_miss"] == list(weak_kinds([blind]))
    tested = replace(of_both, checkpoint=replace(of_both.checkpoint, data=better.data))
    assert reading_result(["a"], tested)["may_miss"] == ["scaphoid", "Smith"], "the mean's own tests count for it"


def test_parts_stand_as_they_were_measured_with_the_location_heads_hits():
    found = {"value": 0.9, "low": 0.8, "high": 0.95, "n": 12}
    parts = {
        "under 1 mm": {"auc": found, "peak": {"value": 0.5, "low": 0.25, "high": 0.75, "n": 30}},
        "1 to 3 mm": {"auc": found | {"value": 0.7}, "peak": None},
        "3 mm and more": {"auc": {"value": None, "low": None, "high": None, "n": 0}, "peak": None},
    }
    first, second = displacement_rows(card(data={"results": {"displacements": parts}}))
    assert first == {
        **{"displaced": "under 1 mm", "AUC": "0.900 (0.800 to 0.950)", "studies": "12"},
        **{"peak inside it": "0.500 (0.250 to 0.750)", "films": "30"},
    }
    assert (second["AUC"], second["peak inside it"], second["films"]) == ("0.700 (0.800 to 0.950)", "-", "")
    assert displacement_rows(card()) == kind_rows(card()) == []


def test_models_stand_beside_each_other_by_what_was_measured_on_which_films():
    def measured(value):
        return {"value": value, "low": value - 0.1, "high": value + 0.05, "n": 40}

    both = card(
        data={"simulated": True, "results": {"auc": measured(0.9), "real_normals_called_suspected": measured(0.2)}}
    )
    real = replace(both, id="d", data={"simulated": False, "results": {"auc": measured(0.8), "odd_one": measured(0.5)}})
    names = model_names([both, real, replace(both, id="e", title="E")])
    assert names == {"c": "C (c)", "d": "C (d)", "e": "E"}, "an id only where titles are the same"
    assert comparison_rows([both, real]) == [
        {"": "AUC", "films": "simulated", "C (c)": "0.900 (0.800 to 0.950), n=40"},
        {"": "Without a fracture, called suspected", "films": "real", "C (c)": "0.200 (0.100 to 0.250), n=40"},
        {"": "AUC", "films": "real", "C (d)": "0.800 (0.700 to 0.850), n=40"},
        {"": "odd one", "films": "real", "C (d)": "0.500 (0.400 to 0.550), n=40"},
    ]
    assert comparison_rows([]) == []


def test_a_mean_is_compared_with_the_mean_scores_of_studies_that_all_its_models_read(tmp_path):
    def published(name, probabilities, studies="abc"):
        own = write_card(replace(card(), id=name))[1]
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "card.json").write_text(write_card(own)[0])
        rows = [f"test,{s},{s},{int(s != 'a')},{p}" for s, p in zip(studies, probabilities, strict=True)]
        head = "split,study_id,patient_id,label,probability"
        (tmp_path / name / "scores.csv").write_text("\n".join([head, *rows]) + "\n")
        return replace(reading([0.9]), checkpoint=own)

    one = published("one", [0.1, 0.9, 0.8])
    two = published("two", [0.3, 0.8, 0.7][::-1], "abc"[::-1])
    mean = replace(one, checkpoint=card(operating_points=()), members=(one, two))
    assert cases_sentence(mean, tmp_path).startswith("Of ")
    found = _mean_scores(mean.checkpoint, [held_out_scores(part.checkpoint, tmp_path) for part in (one, two)])
    assert dict(zip(found.study_ids, found.probabilities.tolist(), strict=True)) == pytest.approx(
        {"a": 0.2, "b": 0.85, "c": 0.75}
    )
    moved = replace(mean.checkpoint, study_calibration={"method": "temperature", "temperature": 0.5})
    found = _mean_scores(moved, [held_out_scores(part.checkpoint, tmp_path) for part in (one, two)])
    assert dict(zip(found.study_ids, found.probabilities.tolist(), strict=True)) == pytest.approx(
        {key: p**2 / (p**2 + (1 - p) ** 2) for key, p in {"a": 0.2, "b": 0.85, "c": 0.75}.items()}
    )
    other = published("other", [0.1, 0.9, 0.8], "abd")
    assert cases_sentence(replace(mean, members=(one, other)), tmp_path).startswith("There are no test studies")
