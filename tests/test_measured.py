"""Models side by side: what they did is what core.metrics says, and nothing is compared that does not compare."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from core.classifier import decide
from core.errors import ScoresError
from core.measured import (
    RULES,
    agreement_rows,
    benefit_rows,
    calibration_rows,
    called_studies,
    cross_check_rows,
    difference_rows,
    difference_words,
    differences,
    estimate_differences,
    left_out_columns,
    look_at,
    measure_model,
    measured_words,
    metric_table,
    number_words,
    place_on_recall,
    place_on_roc,
    reliability_rows,
    roc_rows,
    shared_columns,
    subgroup_row,
    suggest_threshold,
    sweep_rows,
    thousand_words,
    threshold_words,
    why_not_compared,
    zone_rows,
)
from core.metrics import (
    METRIC_NAMES,
    Subgroup,
    align_scores,
    cheapest_threshold,
    confusion,
    delong_interval,
    delong_test,
    evaluate,
    evaluate_scores,
    holm,
    mcnemar_test,
    net_benefit,
    paired_difference,
    resample,
    roc_curve,
    sweep_thresholds,
    threshold_for,
    were_it_calibrated,
    wilson_interval,
    youden_threshold,
)
from core.values import Checkpoint, Interval, OperatingPoint
from tests.test_metrics import make_scores, random_scores
from tests.test_metrics_comparison import two_readers

RATE = Interval(0.9, 0.8, 0.95, 100)


def card_with(*points):
    named = tuple(OperatingPoint(name, threshold, RATE, RATE) for name, threshold in points)
    return Checkpoint("a", "A", "fracture", "resnet50", "conv5_block3_out", 224, operating_points=named)


def measured(scores, key="a", card=None):
    return measure_model(key, key.upper(), scores, card, resamples=60)


def test_a_model_is_measured_at_the_point_from_which_it_suspects():
    scores = random_scores(0)
    both = card_with(("high_sensitivity", 0.2), ("high_specificity", 0.6))
    assert (measured(scores, card=both).threshold, measured(scores, card=both).own_threshold) == (0.6, True)
    assert measured(scores, card=card_with(("high_sensitivity", 0.2))).threshold == 0.2
    for card in (None, card_with()):
        model = measured(scores, card=card)
        assert (model.threshold, model.own_threshold) == (0.5, False)
    whole = measured(scores, card=both).evaluation()
    expected = evaluate_scores(scores, 0.6, 60)
    assert (whole.auc.low, whole.sensitivity.low, whole.confusion.tp) == (
        expected.auc.low,
        expected.sensitivity.low,
        expected.confusion.tp,
    )


def test_differences_are_paired_tested_and_corrected_together():
    first, second = two_readers(2)
    third = replace(second, probabilities=second.probabilities[::-1])
    models = [measured(scores, key) for scores, key in ((first, "a"), (second, "b"), (third, "c"))]
    found = differences(models)
    assert [(row.first, row.second, row.n) for row in found] == [("A", "B", 150), ("A", "C", 150), ("B", "C", 150)]
    pairs = [(first, second), (first, third), (second, third)]
    delong = holm([delong_test(*pair).p_value for pair in pairs])
    mcnemar = [mcnemar_test(*pair, (0.5, 0.5)) for pair in pairs]
    assert [row.delong_p for row in found] == pytest.approx(delong)
    assert [row.mcnemar_p for row in found] == pytest.approx(holm([each.p_value for each in mcnemar]))
    assert [(row.only_first, row.only_second) for row in found] == [
        (each.only_first, each.only_second) for each in mcnemar
    ]
    drawn = paired_difference(models[0].resamples, models[1].resamples, "auc").difference
    assert (found[0].auc.difference.low, found[0].auc.difference.high) == (drawn.low, drawn.high)
    assert found[0].auc.difference.value == pytest.approx(
        evaluate_scores(first, 0.5, 1).auc.value - evaluate_scores(second, 0.5, 1).auc.value
    )


def test_any_estimate_is_compared_and_all_that_are_shown_are_corrected_together():
    first, second = two_readers(2)
    third = replace(second, probabilities=second.probabilities[::-1])
    cards = (None, card_with(("high_specificity", 0.6)), None)
    models = [
        measured(scores, key, card) for scores, key, card in zip((first, second, third), "abc", cards, strict=True)
    ]
    found = estimate_differences(models, list(METRIC_NAMES))
    assert [(row.first, row.second) for row in found[:: len(METRIC_NAMES)]] == [("A", "B"), ("A", "C"), ("B", "C")]
    assert [row.estimate for row in found] == list(METRIC_NAMES) * 3
    for row in found:
        one, other = (next(model for model in models if model.name == name) for name in (row.first, row.second))
        values = [getattr(model.evaluation(), row.estimate).value for model in (one, other)]
        assert row.test.difference.value == pytest.approx(values[0] - values[1]), row.estimate
        assert row.test.difference.n == 150
        alone = paired_difference(one.resamples, other.resamples, row.estimate, (one.threshold, other.threshold))
        assert row.p_alone == alone.p_value
    assert [row.test.p_value for row in found] == list(holm([row.p_alone for row in found]))
    assert any(row.test.p_value > row.p_alone for row in found)
    shown = difference_rows(found)
    assert {row["n"] for row in shown} == {150}
    gap = found[0].test.difference
    assert shown[0]["difference"] == number_words(gap.value, gap.low, gap.high)
    assert "together for the 48 comparisons" in difference_words(found, 60)
    assert "none comes out below 0.033" in difference_words(found, 60)
    assert "not corrected" in difference_words(found[:1], 60)


def test_only_the_studies_that_both_read_are_compared_and_pairs_without_any_are_left_out():
    first, second = two_readers(3)
    fewer = make_scores(second.labels[:90], second.probabilities[:90], second.patient_ids[:90])
    other = replace(second, study_ids=tuple(f"other{number}" for number in range(150)))
    models = [measured(scores, key) for scores, key in ((first, "a"), (fewer, "b"), (other, "c"))]
    assert why_not_compared(models[:1]) == []
    relabelled = replace(second, labels=1 - second.labels)
    assert why_not_compared([models[0], measured(second, "d")]) == []
    assert why_not_compared([models[0], measured(relabelled, "d")])[-1] == (
        "A and D do not compare at all: A study must have the same label in both tables of scores, but one has not."
    )
    models[1] = measured(replace(fewer, split=""), "b")
    none = "do not compare at all: they have no study in common."
    assert why_not_compared([*models, measured(second, "d")]) == [
        "A, D: 150 studies of the split valid.",
        "B: 90 studies.",
        "C: 150 studies of the split valid.",
        "A and B compare only in the 90 studies that are in both: see their differences.",
        f"A and C {none}",
        f"B and C {none}",
    ]
    found = differences(models)
    assert [(row.first, row.second, row.n) for row in found] == [("A", "B", 90)]
    (gap,) = estimate_differences(models, ["kappa"])
    assert (gap.first, gap.second, gap.test.difference.n) == ("A", "B", 90)


def test_wrong_studies_come_most_wrong_first():
    scores = make_scores([1, 0, 1, 0, 1], [0.9, 0.8, 0.1, 0.55, 0.4], studies=["a", "b", "c", "d", "e"])
    count, wrong = called_studies(scores, 0.5, ("fn", "fp"))
    assert count == 4
    assert [(row.study_id, row.cell) for row in wrong] == [("c", "fn"), ("b", "fp"), ("e", "fn"), ("d", "fp")]
    assert wrong[0].wrong_by == pytest.approx(0.4)
    assert [row.study_id for row in called_studies(scores, 0.5, ("tp",))[1]] == ["a"]
    count, all_of_them = called_studies(scores, 0.5)
    assert (count, len(all_of_them)) == (5, 5)
    count, first_two = called_studies(scores, 0.5, most=2)
    assert (count, [row.study_id for row in first_two]) == (5, ["c", "b"])
    _, at = called_studies(scores, 0.4, ("tp",))
    assert {row.study_id for row in at} == {"a", "e"}, "a study at the threshold is called positive"


def test_the_table_says_what_was_measured_and_a_dash_where_nothing_was():
    models = [measured(random_scores(5)), measured(make_scores([1, 1], [0.2, 0.9]), "b")]
    rows = {row[""]: row for row in metric_table(models, {"auc": "AUC", "sensitivity": "Sensitivity"})}
    auc = models[0].evaluation().auc
    assert rows["AUC"]["A"] == f"{auc.value:.3f} ({auc.low:.3f} to {auc.high:.3f}), n=120"
    assert rows["AUC"]["B"] == "-, n=2"
    assert number_words(0.5) == "0.500"
    assert number_words(-0.0004, -0.02, 0.0004) == "0.000 (-0.020 to 0.000)"


def test_beside_each_error_of_calibration_stands_what_chance_alone_gives():
    models = [measured(random_scores(5)), measured(make_scores([1, 0], [1.0, 0.0]), "b")]
    rows = calibration_rows(models)
    after = {row[""]: following for row, following in pairwise(rows)}
    chance = were_it_calibrated(models[0].scores)
    for words, name in (
        ("Calibration error (ECE)", "ece"),
        ("Calibration error, adaptive bins", "adaptive_ece"),
        ("Brier score: reliability", "reliability"),
    ):
        each = chance[name]
        assert after[words][""] == "… by chance alone"
        assert after[words]["A"] == f"{each.value:.3f} ({each.low:.3f} to {each.high:.3f}), n=120"
        assert after[words]["B"].startswith("0.000")
    assert len(rows) == 8 + 3


def test_a_thousand_patients_by_hand():
    rates = {"sensitivity": Interval(0.9, 0.8, 0.95, 40), "specificity": Interval(0.7, 0.6, 0.8, 90)}
    evaluation = replace(measured(random_scores(5)).evaluation(), **rates)
    # Of 200 with a fracture 80 to 95% are found; of 800 without 20 to 40% are called in vain.
    assert thousand_words(evaluation, 0.2) == (
        "By the 95% intervals 160 to 190 of 200 are found (sensitivity, n=40), and 160 to 320 of 800 are called in "
        "vain (specificity, n=90)."
    )
    one = measured(make_scores([1, 1], [0.2, 0.9])).evaluation()
    assert "cannot be told what becomes" in thousand_words(one, 0.2)


def test_what_a_saved_figure_is_of():
    models = [measured(random_scores(5)), measured(random_scores(6), "b")]
    lines = measured_words(models, ["a"], threshold=0.25, prevalence=0.1).splitlines()
    assert lines[0].startswith("A: 120 simulated ")
    assert lines[1].startswith("B: 120 ")
    assert "simulated" not in lines[1]
    assert lines[2:] == ["Called positive from 0.2500 on", "10% of the patients with the finding"]


def test_thresholds_are_called_a_models_own_where_they_are():
    own, none = measured(random_scores(5)), measured(random_scores(6), "b")
    own = replace(own, own_threshold=True, threshold=0.3)
    assert threshold_words([own]) == "each model's own threshold"
    told = "0.5 for B, which no operating point is known of"
    assert threshold_words([none]) == told
    assert threshold_words([own, none]) == f"each model's own threshold, but {told}"


def test_the_numbers_behind_the_figures():
    scores = random_scores(6)
    curve, rows = roc_curve(scores), roc_rows(scores)
    assert [row["threshold"] for row in rows] == curve.thresholds[1:].tolist()
    assert rows[-1]["sensitivity"] == 1
    assert rows[-1]["specificity"] == 0
    assert rows[-1]["PPV"] == pytest.approx(scores.labels.mean())
    bins = reliability_rows(resample(scores, 20))
    assert len(bins) == 10
    assert sum(row["n"] for row in bins) == 120
    row = subgroup_row(Subgroup("PA", 12, 2, 9, None, RATE, None, "Too few"))
    assert (row["group"], row["auc"], row["sensitivity"]) == ("PA", "", "0.900 (0.800 to 0.950)")


def test_every_threshold_of_the_sweep_is_a_row():
    model = measured(random_scores(11))
    sweep = sweep_thresholds(model.resamples)
    rows = sweep_rows(sweep)
    assert [row["threshold"] for row in rows] == sweep.thresholds.tolist()
    for row in rows[:: len(rows) // 5]:
        counts = confusion(model.scores, row["threshold"])
        assert (row["TP"], row["FP"], row["TN"], row["FN"]) == (counts.tp, counts.fp, counts.tn, counts.fn)
        assert row["Sensitivity"] == pytest.approx(counts.tp / (counts.tp + counts.fn))
        assert row["Sensitivity, low"] <= row["Sensitivity"] <= row["Sensitivity, high"]
    benefit = net_benefit(model.resamples)
    table = benefit_rows(benefit)
    assert len(table) == len(benefit.thresholds)
    assert table[3]["net benefit"] == benefit.model[3]
    assert table[3]["call all"] == benefit.call_all[3]


@pytest.mark.parametrize(("low", "high"), [(0.3, 0.6), (0.6, 0.3)])
def test_both_limits_share_out_the_studies_as_the_reading_room_does(low, high):
    scores = random_scores(12, n=200)
    card = card_with(("high_sensitivity", low), ("high_specificity", high))
    said = [decide(p, card).label for p in scores.probabilities.tolist()]
    rows = {row["answer"]: row for row in zone_rows(scores, card)}
    for answer, label in (("none seen", "not seen"), ("uncertain", "uncertain"), ("suspected", "suspected")):
        here = np.array([each == label for each in said])
        assert rows[answer]["of all studies"].startswith(f"{here.mean():.1%} (")
        if here.any():
            assert rows[answer]["of these with fracture"].startswith(f"{scores.labels[here].mean():.1%} (")
            assert rows[answer]["of these with fracture"].endswith(f"n={here.sum()}")
        else:
            assert rows[answer]["of these with fracture"] == "-"
    assert zone_rows(scores, card_with(("high_sensitivity", low))) == []
    assert zone_rows(resample(scores), card) == list(rows.values())


def test_where_two_models_part_ways_is_listed_first():
    first, second = align_scores(*two_readers(14))
    rows = agreement_rows(first, second, ("A", "B"), (0.4, 0.6))
    assert len(rows) == len(first.study_ids)
    gaps = [abs(row["A"] - row["B"]) for row in rows]
    assert gaps == sorted(gaps, reverse=True)
    answers = {study: (p, q, y) for study, p, q, y in zip(
        first.study_ids, first.probabilities, second.probabilities, first.labels, strict=True)}  # fmt: skip
    for row in rows:
        p, q, y = answers[row["study"]]
        assert (row["A"], row["B"], row["label"]) == (p, q, y)
        assert row["called"] == ("alike" if (p >= 0.4) == (q >= 0.6) else "differently")


def test_other_methods_stand_beside_ours():
    model = measured(random_scores(13))
    rows = {row[""]: row for row in cross_check_rows([model])}
    interval = delong_interval(model.scores)
    assert rows["AUC"]["method"] == "DeLong"
    assert f"({interval.low:.3f} to {interval.high:.3f})" in rows["AUC"]["A"]
    found, n = rows["Sensitivity"], int(model.scores.labels.sum())
    wilson = wilson_interval(model.counts.tp, n)
    assert f"({wilson.low:.3f} to {wilson.high:.3f})" in found["A"]
    assert f"ours {model.evaluation().sensitivity.low:.3f}" in found["A"]


def test_columns_that_all_have_divide():
    scores = random_scores(7)
    sex, one, many = ("F", "M") * 60, ("XR-1",) * 120, tuple(map(str, range(120)))
    columns = {"view": ("PA", "LATERAL") * 60, "sex": sex, "machine": one, "place": many, "age": many}
    others = {name: columns[name] for name in ("sex", "machine", "place", "age")}
    models = [measured(replace(scores, columns=columns)), measured(replace(scores, columns=others), "b")]
    assert shared_columns(models) == ("sex", "age"), "one value divides nothing, too many tell nothing, ages make bands"
    assert shared_columns(models[:1]) == ("view", "sex", "age")
    assert left_out_columns(models) == {
        "view": "Not every model's table has it.",
        "machine": "It says the same of every study.",
        "place": "It has 120 values, of which up to 24 can be compared.",
    }
    assert left_out_columns([]) == {}
    kind, far = [f"kind {n % 15}" for n in range(120)], [f"{n % 60 / 10} mm" for n in range(120)]
    detailed = measured(replace(scores, columns={"kind": tuple(kind), "displacement": tuple(far)}))
    assert shared_columns([detailed]) == ("kind", "displacement")
    assert shared_columns([measured(scores)]) == ()
    assert shared_columns([]) == ()


# --- one threshold ----------------------------------------------------------------------------------------------------


def test_what_one_threshold_means_comes_from_one_measurement():
    model = measured(random_scores(8, n=300))
    seen = look_at(model, 0.42, 0.1)
    whole = evaluate(model.resamples, 0.42)
    assert seen.evaluation.sensitivity.low == whole.sensitivity.low
    assert place_on_roc(whole) == (1 - whole.specificity.value, whole.sensitivity.value)
    assert place_on_recall(whole) == (whole.sensitivity.value, whole.precision.value)
    assert seen.thousand.found + seen.thousand.missed == 100
    assert seen.elsewhere.prevalence == 0.1
    alone = look_at(measured(make_scores([1, 1], [0.2, 0.9])), 0.5, 0.5)
    assert alone.thousand is None, "nobody knows the specificity"


def test_rules_choose_what_they_promise():
    scores = random_scores(9, n=400, decimals=3)
    y, p = scores.labels, scores.probabilities
    for wanted in (0.8, 0.95, 1.0):
        assert np.mean(p[y == 1] >= suggest_threshold(scores, "sensitivity", wanted)) >= wanted
        assert np.mean(p[y == 0] < suggest_threshold(scores, "specificity", wanted)) >= wanted
    assert suggest_threshold(scores, "youden") == youden_threshold(scores)
    own = float(y.mean())
    assert suggest_threshold(scores, "cost", 3.0) == cheapest_threshold(scores, 3.0, own)
    assert suggest_threshold(scores, "cost", 3.0, 0.05) == cheapest_threshold(scores, 3.0, 0.05)
    assert suggest_threshold(scores, "cost", 30.0) < suggest_threshold(scores, "cost", 0.2)
    for rule in RULES:
        with pytest.raises(ScoresError):
            suggest_threshold(make_scores([1], [0.5]), "specificity" if rule == "sensitivity" else rule)
    for target in ({}, {"sensitivity": 0.5, "specificity": 0.5}, {"sensitivity": 0.0}, {"specificity": 1.1}):
        with pytest.raises(ScoresError, match="One target"):
            threshold_for(scores, **target)
