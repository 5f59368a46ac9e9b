"""Prevalence, thousands, decision curves, cases alike, subgroups: against Bayes' rule, loops, hand-worked tables."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ScoresError
from core.metrics import (
    at_prevalence,
    cases_like,
    evaluate,
    evaluate_scores,
    groups_of,
    net_benefit,
    per_thousand,
    rate_interval,
    resample,
    subgroups,
    taken,
    why_left_out,
    wilson_interval,
)
from tests.test_metrics import make_scores, random_scores


def test_predictive_values_at_the_studies_own_prevalence_are_those_measured():
    scores = random_scores(1, n=300)
    drawn = resample(scores, 300)
    found, whole = at_prevalence(drawn, 0.4, scores.labels.mean()), evaluate(drawn, 0.4)
    assert found.ppv.value == pytest.approx(whole.precision.value)
    assert found.npv.value == pytest.approx(whole.npv.value)
    assert found.needed_to_review.value == pytest.approx(1 / whole.precision.value)
    assert found.called.value == pytest.approx(np.mean(scores.probabilities >= 0.4))
    assert found.ppv.low < found.ppv.value < found.ppv.high


def test_no_false_alarm_among_few_is_no_certainty():
    # 5 of 10 found, none of 10 called in vain: of one-study patients Wilson's lower limit of 10 of 10 is 0.722.
    scores = make_scores([1] * 10 + [0] * 10, [0.9] * 5 + [0.1] * 15)
    found = at_prevalence(resample(scores, 200), 0.5, 0.1)
    assert found.ppv.value == 1
    assert found.ppv.high == 1
    lower = wilson_interval(10, 10).low
    assert found.ppv.low == pytest.approx(0.1 * 0.5 / (0.1 * 0.5 + 0.9 * (1 - lower)))
    assert found.needed_to_review.low == 1
    assert found.needed_to_review.high == pytest.approx(1 / found.ppv.low)
    assert found.npv.low < found.npv.value < found.npv.high


def test_where_a_resample_finds_nothing_no_number_of_reviews_is_enough():
    # 1 of 10 found, 4 of 40 called in vain: a third of the resamples find none.
    scores = make_scores([1] * 10 + [0] * 40, [0.9] + [0.1] * 9 + [0.9] * 4 + [0.1] * 36)
    found = at_prevalence(resample(scores, 300), 0.5, 0.1)
    assert found.ppv.low == 0
    assert found.needed_to_review.value == pytest.approx(10)
    assert found.needed_to_review.low == pytest.approx(1 / found.ppv.high)
    assert found.needed_to_review.high == math.inf


def test_predictive_values_by_bayes_rule():
    # 9 of 10 positives found, 8 of 10 negatives passed; of 1,000 with 100 positives: 90 found, 180 called in vain.
    scores = make_scores([1] * 10 + [0] * 10, [0.9] * 9 + [0.1] + [0.1] * 8 + [0.9] * 2)
    found = at_prevalence(resample(scores, 50), 0.5, 0.1)
    assert found.ppv.value == pytest.approx(90 / 270)
    assert found.npv.value == pytest.approx(720 / 730)
    assert found.needed_to_review.value == pytest.approx(3)
    assert found.called.value == pytest.approx(0.27)
    never = at_prevalence(resample(scores, 50), 0.5, 0.0)
    assert never.ppv.value == 0
    assert math.isnan(never.needed_to_review.value)
    for prevalence in (-0.1, 1.1, math.nan):
        with pytest.raises(ScoresError, match="prevalence"):
            at_prevalence(resample(scores, 5), 0.5, prevalence)


def test_a_thousand_patients_by_hand():
    found = per_thousand(0.9, 0.8, 0.1)
    assert (found.found, found.missed, found.false_alarms, found.passed) == (90, 10, 180, 720)
    with pytest.raises(ScoresError, match="Sensitivity"):
        per_thousand(math.nan, 0.5, 0.5)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_thousand_stay_a_thousand(sensitivity, specificity, prevalence):
    found = per_thousand(sensitivity, specificity, prevalence)
    counts = (found.found, found.missed, found.false_alarms, found.passed)
    assert sum(counts) == 1000
    assert min(counts) >= 0


def test_net_benefit_is_what_its_definition_says():
    scores = random_scores(5, n=200, decimals=2)
    curve = net_benefit(resample(scores, 100))
    n, positive = len(scores.study_ids), scores.labels == 1
    for at, model, everything in zip(curve.thresholds, curve.model, curve.call_all, strict=True):
        called = scores.probabilities >= at
        odds = at / (1 - at)
        assert model == pytest.approx(np.sum(called & positive) / n - np.sum(called & ~positive) / n * odds)
        assert everything == pytest.approx(positive.mean() - (~positive).mean() * odds)
    assert (curve.low <= curve.model).all()
    assert (curve.model <= curve.high).all()
    assert (curve.high - curve.low)[20] > 0.02


def test_net_benefit_at_another_prevalence_weighs_the_classes():
    scores = random_scores(6, n=200, decimals=2)
    at = 0.3
    curve = net_benefit(resample(scores, 50), [at], prevalence=0.1)
    whole = evaluate_scores(scores, at, 5)
    expected = 0.1 * whole.sensitivity.value - 0.9 * (1 - whole.specificity.value) * at / (1 - at)
    assert curve.model[0] == pytest.approx(expected)
    assert curve.call_all[0] == pytest.approx(0.1 - 0.9 * at / (1 - at))
    for wrong in ([], [0.0], [1.0], [0.5, 0.4]):
        with pytest.raises(ScoresError, match="thresholds"):
            net_benefit(resample(scores, 5), wrong)


def test_one_class_has_no_net_benefit_but_no_fault_either():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        curve = net_benefit(resample(make_scores([1, 1], [0.2, 0.8]), 10))
    assert np.isnan(curve.model).all()


def test_net_benefit_of_a_perfect_model_is_not_known_exactly():
    # 10 of 10 found and 10 of 10 passed, each of a patient of its own: Wilson's lower limit of 10 of 10 is 0.722.
    scores = make_scores([1] * 10 + [0] * 10, [0.9] * 10 + [0.1] * 10)
    curve = net_benefit(resample(scores, 200), [0.2, 0.5, 0.8], prevalence=0.3)
    lower = 10 / (10 + 1.959964**2)
    for at, model, low, high in zip(curve.thresholds, curve.model, curve.low, curve.high, strict=True):
        found_fewer, more_alarms = 0.3 * lower, 0.3 - 0.7 * (1 - lower) * at / (1 - at)
        assert model == high == pytest.approx(0.3)
        assert low == pytest.approx(min(found_fewer, more_alarms))
    # Every positive is called at 0.05 and no negative passes; at 0.95 nothing is called at all.
    ends = net_benefit(resample(scores, 200), [0.05, 0.95], prevalence=0.3)
    assert ends.model == pytest.approx([0.3 - 0.7 * 0.05 / 0.95, 0])
    assert ends.high == pytest.approx([0.3 - 0.7 * lower * 0.05 / 0.95, 0.3 * (1 - lower)])
    assert ends.low == pytest.approx([0.3 * lower - 0.7 * 0.05 / 0.95, -0.7 * (1 - lower) * 0.95 / 0.05])
    two_a_patient = make_scores([1] * 10 + [0] * 10, [0.9] * 10 + [0.1] * 10, [f"p{n // 2}" for n in range(20)])
    fewer = net_benefit(resample(two_a_patient, 200), [0.5], prevalence=0.3)
    assert fewer.low[0] == pytest.approx(0.3 - 0.7 * (1 - 5 / (5 + 1.959964**2))), "patients count, not studies"


def test_a_band_of_net_benefit_that_resampling_shows_stays_as_it_is():
    scores = random_scores(11, n=150)
    drawn = resample(scores, 300)
    at = np.array([0.4, 0.5, 0.6])
    curve = net_benefit(drawn, at, prevalence=0.3)
    tp, fp, tn, fn = drawn.counts_at(at)
    samples = 0.3 * tp / (tp + fn) - 0.7 * fp / (tn + fp) * at / (1 - at)
    np.testing.assert_allclose([curve.low, curve.high], np.percentile(samples, (2.5, 97.5), axis=0))


# --- cases that scored alike -----------------------------------------------------------------------------------------


def alike(labels, patients):
    """Return the rate among studies that all scored the same."""
    return cases_like(make_scores(labels, [0.5] * len(labels), patients), 0.5).rate


def test_studies_of_a_patient_that_are_all_alike_count_as_one():
    rate = alike([1, 1] * 5 + [0, 0] * 5, [f"p{n // 2}" for n in range(20)])
    # Wilson's interval of 5 of 10 patients, worked by hand; of 10 of 20 studies it would be 0.299 to 0.701.
    assert (rate.value, rate.n) == (0.5, 20)
    assert (rate.low, rate.high) == pytest.approx((0.2366, 0.7634), abs=5e-5)


def test_studies_that_are_partly_alike_are_worth_what_their_design_effect_says():
    # 4 patients with two positives, 4 with none and 2 with one of each. Variance of the share over patients:
    # 10/9 * 8 * 1^2 / 20^2 = 1/45; of 20 independent studies: 0.25/19. A design effect of 76/45: 20 are worth 11.842.
    # With z = 1.96: half = 1.96 / (1 + 3.8415/11.842) * sqrt(0.25/11.842 + 3.8415 / (4 * 11.842^2)) = 0.2475.
    rate = alike([1, 1] * 4 + [0, 0] * 4 + [1, 0] * 2, [f"p{n // 2}" for n in range(20)])
    assert (rate.low, rate.high) == pytest.approx((0.2525, 0.7475), abs=1e-4)


def test_two_patients_cannot_show_that_their_studies_differ():
    rate = alike([1, 1, 1, 0, 0, 1, 1, 0, 0, 0], ["p"] * 5 + ["q"] * 5)
    assert (rate.low, rate.high) == pytest.approx((0.0945, 0.9055), abs=5e-5)  # Wilson's of 1 of 2
    assert rate.n == 10


def test_patients_with_one_study_each_have_wilsons_own_interval():
    for n in (3, 12, 41):
        labels = [1] * (n // 3) + [0] * (n - n // 3)
        rate, plain = alike(labels, [f"p{each}" for each in range(n)]), wilson_interval(n // 3, n)
        assert (rate.low, rate.high) == pytest.approx((plain.low, plain.high))


def test_cases_that_are_all_positive_are_known_from_as_many_patients():
    rate = alike([1] * 24, [f"p{n // 2}" for n in range(24)])
    assert (rate.value, rate.low, rate.high, rate.n) == (1, pytest.approx(12 / (12 + 1.959964**2)), 1, 24)


def test_many_patients_give_the_interval_that_resampling_them_gives():
    rng = np.random.default_rng(3)
    patients = np.repeat(np.arange(120), rng.integers(1, 8, 120))
    labels = (rng.random(patients.size) < rng.choice([0.1, 0.7], 120)[patients]).astype(int)
    names = [f"p{patient}" for patient in patients]
    rate, drawn = alike(labels, names), rate_interval(labels == 1, names, 2000)
    plain = wilson_interval(int(labels.sum()), labels.size)
    assert (rate.low, rate.high) == pytest.approx((drawn.low, drawn.high), abs=0.012)
    assert rate.high - rate.low > 1.3 * (plain.high - plain.low)


# --- subgroups -------------------------------------------------------------------------------------------------------


def with_columns(scores, **columns):
    return replace(scores, columns={name: tuple(values) for name, values in columns.items()})


def test_subgroups_are_measured_as_if_they_stood_alone():
    scores = random_scores(7, n=200)
    views = ["PA" if number % 3 else "LATERAL" for number in range(200)]
    groups = subgroups(with_columns(scores, view=views), "view", 0.5, 100)
    assert [group.value for group in groups] == ["LATERAL", "PA"]
    for group in groups:
        part = taken(scores, np.flatnonzero(np.array(views) == group.value))
        alone = evaluate_scores(part, 0.5, 100)
        assert (group.n, group.positives, group.patients) == (alone.n, alone.positives, alone.patients)
        assert (group.auc.value, group.auc.low, group.auc.high) == (alone.auc.value, alone.auc.low, alone.auc.high)
        assert group.sensitivity.value == alone.sensitivity.value
        assert group.too_small == ""


def test_a_group_too_small_says_so_and_gives_no_number():
    labels = [1] * 12 + [0] * 12 + [1] * 11 + [0] * 3
    scores = make_scores(labels, np.linspace(0, 1, 38))
    groups = subgroups(with_columns(scores, sex=["F"] * 24 + ["M"] * 14), "sex", 0.5, 20)
    assert groups[0].auc is not None
    small = groups[1]
    assert small.auc is None
    assert small.specificity is None
    assert small.sensitivity.n == 11
    assert small.too_small == "Too few to say: 3 negative of 14 studies, 10 are needed."


def test_ages_become_bands_and_what_is_not_recorded_comes_last():
    scores = make_scores([0, 1] * 4, np.linspace(0, 1, 8))
    ages = ["7", "70", "17.9", "", "9.99", "10", "120", "49"]
    groups = subgroups(with_columns(scores, age_years=ages), "age_years", 0.5, 5)
    assert [(group.value, group.n) for group in groups] == [
        ("0 to 9 years", 2),
        ("10 to 17 years", 2),
        ("18 to 49 years", 1),
        ("70 years and over", 2),
        ("not recorded", 1),
    ]
    words = subgroups(with_columns(scores, age=["child", "adult"] * 4), "age", 0.5, 5)
    assert [group.value for group in words] == ["adult", "child"]


def test_columns_that_do_not_divide():
    scores = make_scores([0, 1] * 15, np.linspace(0, 1, 30))
    with pytest.raises(ScoresError, match="none of that name"):
        subgroups(scores, "view", 0.5)
    with pytest.raises(ScoresError, match="this has 30"):
        subgroups(with_columns(scores, film=map(str, range(30))), "film", 0.5)
    with pytest.raises(ScoresError, match="numbers differ"):
        subgroups(with_columns(scores, view=["PA"]), "view", 0.5)


def test_a_column_of_fifteen_kinds_divides():
    scores = random_scores(8, n=150)
    kinds = [f"kind {number % 15}" for number in range(150)]
    groups = subgroups(with_columns(scores, kind=kinds), "kind", 0.5, 5)
    assert [group.n for group in groups] == [10] * 15
    assert why_left_out("kind", kinds) == ""
    assert why_left_out("kind", ["colles"] * 3) == "It says the same of every study."
    assert (
        why_left_out("kind", list(map(str, range(1500)))) == "It has 1,500 values, of which up to 24 can be compared."
    )


def test_a_number_that_stands_for_what_is_missing_stops_nothing():
    values = [str(n % 9) for n in range(170)] + ["9999"] * 30
    assert set(groups_of("days", values)) == {*"012345678", "9999"}
    mostly = ["0"] * 190 + [str(9000 + n) for n in range(10)]
    assert len(groups_of("days", mostly)) == 200


@given(st.lists(st.integers(0, 40), min_size=20, max_size=60), st.integers(50, 10**6), st.integers(1, 20))
def test_any_numbers_with_one_far_from_them_are_grouped(values, far, times):
    texts = [*map(str, values), *[str(far)] * times]
    assert len(groups_of("days", texts)) == len(texts)


def test_numbers_with_a_unit_become_bands_with_names():
    tenths = np.round(np.concatenate((np.zeros(40), np.linspace(0.1, 8, 160))), 1)
    values = [f"{tenth} mm" for tenth in tenths] + [""] * 40
    names = groups_of("displacement", values)
    ends = {"under 0.5 mm": (0, 0.5), "0.5 to under 3 mm": (0.5, 3), "3 to under 5.5 mm": (3, 5.5)}
    ends["5.5 mm and over"] = (5.5, 9)
    bands = (*ends, "not recorded")
    assert tuple(dict.fromkeys(names)) == bands
    for value, name in zip(tenths, names[:200], strict=True):
        low, high = ends[name]
        assert low <= value < high
    scores = with_columns(random_scores(9, n=240), displacement=values)
    groups = subgroups(scores, "displacement", 0.5, 5)
    assert tuple(group.value for group in groups) == bands
    assert sum(group.n for group in groups) == 240
    assert why_left_out("displacement", values) == ""


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([str(year) for year in range(1990, 2020)] * 2, {"under 1996", "1996 to under 2004", "2012 and over"}),
        ([f"{share}%" for share in range(101)], {"under 25%", "25 to under 50%", "50 to under 75%", "75% and over"}),
        ([str(number / 100) for number in range(-50, 50)], {"under -0.25", "-0.25 to under 0", "0.25 and over"}),
        (["0"] * 90 + [str(number) for number in range(1, 12)], {"under 3", "8 and over"}),
    ],
)
def test_bands_of_numbers_begin_at_round_ones(values, expected):
    names = set(groups_of("column", values))
    assert expected <= names
    assert len(names) <= 4


@pytest.mark.parametrize(
    "values",
    [
        [str(number) for number in range(1000, 1100)],  # a number of its own for each study is its name
        [f"{number % 20:03}" for number in range(100)],
        [f"2020-01-{number % 20 + 1}" for number in range(100)],
        [f"{number % 20} {'mm' if number % 2 else 'cm'}" for number in range(100)],
        [f"{number % 20} mm" for number in range(99)] + ["far"],
        [str(number % 8) for number in range(100)],
    ],
)
def test_what_measures_nothing_or_has_few_values_is_not_put_into_bands(values):
    assert groups_of("column", values) == tuple(values)
