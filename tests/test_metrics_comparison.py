"""Two models compared: against published examples, SciPy and plain loops."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from core.errors import ScoresError
from core.metrics import (
    ESTIMATES,
    agreement,
    align_scores,
    auc_difference,
    delong_interval,
    delong_test,
    evaluate,
    evaluate_scores,
    holm,
    mcnemar_test,
    paired_difference,
    resample,
    taken,
    wilson_interval,
)
from tests.test_metrics import make_scores, random_scores

# DeLong, DeLong and Clarke-Pearson, Biometrics 44:837 (1988): 43 patients with ovarian cancer, albumin, total protein,
# the K-G score (turned round: high is good) and whether surgery helped.
OVARIAN = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1
3.8 5.7 5 1   3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0
2.3 4.4 6 1   4.2 7.6 4 0  4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1
3.1 6.6 6 1   4.1 8.2 6 1  4.3 7.0 5 1  4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0
3.7 6.1 5 1   3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1  2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1
3.3 5.7 6 1   3.7 6.9 5 1  3.6 6.6 5 1
"""
TABLE = np.array(OVARIAN.split(), float).reshape(-1, 4)
TESTS = {
    name: make_scores(TABLE[:, 3].astype(int), values / 10)
    for name, values in (("albumin", TABLE[:, 0]), ("protein", TABLE[:, 1]), ("kg", 10 - TABLE[:, 2]))
}


@pytest.mark.parametrize(
    ("name", "area", "low", "high"),
    [("kg", 0.7258, 0.5243, 0.9273), ("protein", 0.6478, 0.4518, 0.8439)],
)
def test_delong_interval_is_the_published_one(name, area, low, high):
    found = delong_interval(TESTS[name])
    assert (found.value, found.low, found.high) == pytest.approx((area, low, high), abs=5e-5)
    assert found.n == 43


def test_delong_test_is_the_published_one():
    found = delong_test(TESTS["protein"], TESTS["kg"])
    gap = found.difference
    assert (gap.value, gap.low, gap.high) == pytest.approx((-0.0780, -0.2830, 0.1271), abs=5e-5)
    assert found.p_value == pytest.approx(0.4561, abs=5e-5)


def plain_delong(several, labels):
    """The paper's formulas, pair by pair."""
    positive, negative = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    kernels = [
        np.array([[(p[i] > p[j]) + (p[i] == p[j]) / 2 for j in negative] for i in positive], float) for p in several
    ]
    areas = [kernel.mean() for kernel in kernels]
    covariance = np.cov([kernel.mean(axis=1) for kernel in kernels]) / positive.size
    covariance += np.cov([kernel.mean(axis=0) for kernel in kernels]) / negative.size
    return areas, covariance


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(4, 40))
def test_delong_is_what_its_formulas_say(seed, n):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % 2)
    several = [np.round(rng.random(n) * 0.5 + labels * 0.3, 1) for _ in range(2)]
    first, second = (make_scores(labels, p) for p in several)
    areas, covariance = plain_delong(several, labels)
    assert delong_interval(first).value == pytest.approx(areas[0], abs=1e-12)
    found = delong_test(first, second)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    assert found.difference.value == pytest.approx(areas[0] - areas[1], abs=1e-12)
    if math.isnan(found.difference.low):
        assert variance == pytest.approx(0, abs=1e-12)
    else:
        width = found.difference.high - found.difference.low
        assert width == pytest.approx(2 * 1.959963984540054 * math.sqrt(max(variance, 0)), abs=1e-7)


def test_delong_at_its_ends():
    perfect = make_scores([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])
    found = delong_interval(perfect)
    assert found.value == 1
    assert np.isnan([found.low, found.high]).all(), "a variance of 0 is no certainty"
    same = delong_test(perfect, perfect)
    assert (same.difference.value, same.difference.low, same.difference.high, same.p_value) == (0, 0, 0, 1)
    alike = delong_test(perfect, make_scores([0, 0, 1, 1], [0.3, 0.2, 0.8, 0.9]))
    assert (alike.difference.value, alike.p_value) == (0, 1)
    assert np.isnan([alike.difference.low, alike.difference.high]).all()
    neither = delong_test(perfect, make_scores([0, 0, 1, 1], [0.5] * 4))  # neither varies, and nothing can be told
    assert neither.difference.value == 0.5
    assert np.isnan([neither.difference.low, neither.difference.high, neither.p_value]).all()
    alone = delong_interval(make_scores([0, 1, 1], [0.1, 0.2, 0.3]))
    assert alone.value == 1
    assert math.isnan(alone.low)
    one_class = delong_test(*[make_scores([1, 1], [0.1, 0.2])] * 2)
    assert math.isnan(one_class.p_value)
    assert math.isnan(one_class.difference.value)


def test_mcnemar_counts_and_tests_what_only_one_called_right():
    labels = [1] * 10 + [0] * 10
    first = make_scores(labels, [0.9] * 8 + [0.1] * 2 + [0.1] * 9 + [0.9])
    second = make_scores(labels, [0.9] * 3 + [0.1] * 6 + [0.9] + [0.1] * 8 + [0.9] * 2)
    # Positives: 5 only the first found, 1 only the second; negatives: 1 only the first passed, none only the second.
    found = mcnemar_test(first, second, (0.5, 0.5))
    assert (found.only_first, found.only_second) == (6, 1)
    assert found.p_value == pytest.approx(binomtest(1, 7, 0.5).pvalue, abs=1e-12)
    assert mcnemar_test(first, first, (0.5, 0.5)).p_value == 1
    # Each model has its own threshold: at 0.95 the second calls nothing.
    assert mcnemar_test(first, second, (0.5, 0.95)).only_second == 1


def test_mcnemar_of_the_published_example():
    """Agresti, Categorical Data Analysis, table 10.1: 150 and 86 of 1,600 changed their mind, z squared is 17.36."""
    labels = np.ones(1600, int)
    first, second = np.ones(1600), np.ones(1600)
    first[:86], second[86:236] = 0, 0
    found = mcnemar_test(make_scores(labels, first), make_scores(labels, second), (0.5, 0.5))
    assert (found.only_first, found.only_second) == (150, 86)
    assert found.p_value == pytest.approx(3.7e-5, rel=0.05)


def test_holm_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04: times 4, 3, 2, 1, never falling.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.5, math.nan, 0.9])[::2] == pytest.approx((1.0, 1.0))
    assert math.isnan(holm([0.5, math.nan, 0.9])[1])
    assert holm([]) == ()


def two_readers(seed=0, n=150):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    patients = [f"p{k // 2}" for k in range(n)]
    return [make_scores(labels, np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1), patients) for _ in range(2)]


@pytest.mark.parametrize("estimate", ["auc", "brier", "sensitivity", "kappa", "log_loss"])
def test_a_paired_difference_is_that_of_the_same_resamples(estimate):
    first, second = two_readers()
    one, other = resample(first, 300, 4), resample(second, 300, 4)
    found = paired_difference(one, other, estimate, (0.5, 0.4))
    values = [getattr(evaluate(each, at), estimate).value for each, at in ((one, 0.5), (other, 0.4))]
    assert found.difference.value == pytest.approx(values[0] - values[1], abs=1e-12)
    same = paired_difference(one, one, estimate, (0.5, 0.5))
    assert (same.difference.low, same.difference.high, same.p_value) == (0, 0, 1)
    turned = paired_difference(other, one, estimate, (0.4, 0.5))
    assert turned.difference.low == pytest.approx(-found.difference.high)
    assert turned.p_value == found.p_value


def test_pairing_is_by_patients_whatever_the_order_of_the_rows():
    first, second = two_readers(3)
    shuffled = taken(second, np.random.default_rng(0).permutation(len(second.study_ids)))
    ours, theirs = align_scores(first, shuffled)
    assert ours.study_ids == theirs.study_ids == first.study_ids
    np.testing.assert_array_equal(theirs.probabilities, second.probabilities)
    one, other = resample(first, 200), resample(shuffled, 200)
    np.testing.assert_array_equal(one.positives, other.positives)  # the same patients were drawn
    with pytest.raises(ScoresError, match="same studies"):
        paired_difference(one, other, "auc")
    with pytest.raises(ScoresError, match="same studies"):
        paired_difference(one, resample(second, 200, seed=1), "auc")
    with pytest.raises(ScoresError, match="same studies"):
        paired_difference(one, resample(second, 100), "auc")


def test_p_values_are_small_only_where_there_is_a_difference():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 200)
    good = make_scores(labels, np.clip(rng.normal(0.3 + 0.4 * labels, 0.15), 0, 1))
    poor = make_scores(labels, np.clip(rng.normal(0.45 + 0.1 * labels, 0.2), 0, 1))
    found = paired_difference(resample(good, 999), resample(poor, 999), "auc")
    assert found.p_value == pytest.approx(2 / 1000)  # the smallest that 999 resamples can tell
    assert found.difference.low > 0
    assert delong_test(good, poor).p_value < 1e-6
    level = [
        paired_difference(*(resample(each, 99) for each in two_readers(seed, 60)), "auc").p_value < 0.05
        for seed in range(120)
    ]
    assert 0 <= np.mean(level) <= 0.12


def separated(n=20, other=False):
    """Studies of one patient each that a model separates perfectly; `other`: as another model does."""
    labels = np.arange(n) % 2
    return make_scores(labels, np.where(labels == 1, 0.8, 0.1) + np.arange(n) / (400 if other else 200))


def test_two_models_that_are_never_wrong_may_yet_differ():
    first, second = separated(), separated(other=True)
    least = wilson_interval(10, 10).low
    drawn = [resample(each, 100) for each in (first, second)]
    for estimate in ("auc", "youden", "sensitivity", "average_precision"):
        found = paired_difference(*drawn, estimate)
        assert found.difference.value == 0
        assert (found.difference.low, found.difference.high) == pytest.approx((least - 1, 1 - least)), estimate
        assert found.p_value == 1
        same = paired_difference(drawn[0], drawn[0], estimate).difference
        assert (same.low, same.high) == (0, 0), "the same answers differ by nothing"
    gap = auc_difference(first.labels, first.probabilities, second.probabilities, first.patient_ids, 50)
    assert (gap.low, gap.high) == pytest.approx((least - 1, 1 - least))
    blind = resample(make_scores(first.labels, [0.5] * 20), 100)
    ahead = paired_difference(drawn[0], blind, "auc")
    assert (ahead.difference.value, ahead.difference.high) == (0.5, 0.5)
    assert ahead.difference.low == pytest.approx(least - 0.5)
    assert math.isnan(ahead.p_value), "resamples that are all alike tell nothing"


def test_agreement_on_all_studies_is_no_certainty():
    found = agreement(separated(), separated(other=True), (0.5, 0.5), 50)
    # Half are called: chance agrees in half, and of 20 patients at least 0.839 do.
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(2 * wilson_interval(20, 20).low - 1)


def test_agreement_is_cohens_kappa_of_the_calls():
    first, second = two_readers(5)
    found = agreement(first, second, (0.5, 0.45), 200)
    calls = first.probabilities >= 0.5, second.probabilities >= 0.45
    assert found.value == pytest.approx(cohen_kappa_score(*calls))
    assert found.low < found.value < found.high
    assert agreement(first, first, (0.5, 0.5), 50).low == 1


def test_studies_that_cannot_be_compared():
    first, second = two_readers(6)
    with pytest.raises(ScoresError, match="none is in both"):
        align_scores(first, replace(second, study_ids=tuple(f"other{k}" for k in range(150))))
    with pytest.raises(ScoresError, match="same label"):
        align_scores(first, replace(second, labels=1 - second.labels))
    with pytest.raises(ScoresError, match="same patient"):
        align_scores(first, replace(second, patient_ids=tuple(f"other{k}" for k in range(150))))


def test_intervals_of_delong_and_of_the_bootstrap_are_much_alike():
    scores = random_scores(9, n=400, patients=10**9, decimals=12)
    ours, theirs = evaluate_scores(scores, 0.5).auc, delong_interval(scores)
    assert (
        ours.value == pytest.approx(theirs.value) == pytest.approx(roc_auc_score(scores.labels, scores.probabilities))
    )
    assert ours.low == pytest.approx(theirs.low, abs=0.006)
    assert ours.high == pytest.approx(theirs.high, abs=0.006)
    assert "auc" in ESTIMATES
