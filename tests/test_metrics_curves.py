"""Curves, sweeps, reliability and chosen thresholds: against scikit-learn, plain loops and hand-worked tables."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from core.errors import ScoresError
from core.metrics import (
    RATES,
    brier_parts,
    cheapest_threshold,
    confusion,
    evaluate,
    precision_recall_band,
    precision_recall_curve,
    rates_of,
    reliability_curve,
    resample,
    resampling,
    roc_band,
    roc_curve,
    sweep_thresholds,
    triage,
    wilson_interval,
    wilson_rates,
    youden_threshold,
)
from core.metrics.resampling import draw_patients
from tests.test_metrics import drawn_scores, make_scores, random_scores


def resampled_scores(scores, resamples, seed=0):
    """Yield every resample as a table of its own, the slow way."""
    patients = np.unique(scores.patient_ids)
    for row in draw_patients(patients.size, range(resamples), seed):
        times = row[np.searchsorted(patients, scores.patient_ids)].astype(int)
        yield np.repeat(scores.labels, times), np.repeat(scores.probabilities, times)


# --- curves ----------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(drawn_scores())
def test_precision_recall_curve_agrees_with_sklearn(scores):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        curve = precision_recall_curve(scores)
    if not scores.labels.sum():
        assert math.isnan(curve.average_precision)
        return
    precisions, recalls, thresholds = sk.precision_recall_curve(scores.labels, scores.probabilities)
    # scikit-learn rises, adds a point without calls, and stops where all positives are found.
    np.testing.assert_allclose(curve.precisions, precisions[-2::-1], atol=1e-15)
    np.testing.assert_allclose(curve.sensitivities, recalls[-2::-1], atol=1e-15)
    np.testing.assert_array_equal(curve.thresholds, thresholds[::-1])
    expected = sk.average_precision_score(scores.labels, scores.probabilities)
    assert curve.average_precision == pytest.approx(expected, abs=1e-12)
    assert curve.prevalence == pytest.approx(scores.labels.mean())


def test_roc_band_holds_what_the_resamples_curves_were():
    scores = random_scores(2, decimals=2)
    band = roc_band(resample(scores, 80))
    curves = []
    for labels, probabilities in resampled_scores(scores, 80):
        x, y, _ = sk.roc_curve(labels, probabilities, drop_intermediate=False)
        # At a rate that occurs the highest sensitivity counts.
        curves.append([max(np.interp(at, x, y), y[x <= at + 1e-12].max()) for at in band.at])
    low, high = np.percentile(curves, (2.5, 97.5), axis=0)
    np.testing.assert_allclose(band.low, low, atol=1e-6)
    np.testing.assert_allclose(band.high, high, atol=1e-6)
    curve = roc_curve(scores)
    own = np.interp(band.at, curve.false_positive_rates, curve.sensitivities)
    assert np.mean((band.low <= own) & (own <= band.high)) > 0.95


def test_precision_recall_band_interpolates_counts():
    scores = random_scores(4, decimals=2)
    band = precision_recall_band(resample(scores, 60))
    assert math.isnan(band.low[0])
    curves = []
    for labels, probabilities in resampled_scores(scores, 60):
        ranked = np.unique(probabilities)[::-1]
        tp = np.array([0] + [np.sum(labels[probabilities >= at] == 1) for at in ranked])
        fp = np.array([0] + [np.sum(labels[probabilities >= at] == 0) for at in ranked])
        row = []
        for at in band.at[1:] * tp[-1]:
            place = np.argmax(tp >= at - 1e-9)  # the first threshold that reaches it
            share = 1.0 if tp[place] == tp[place - 1] else (at - tp[place - 1]) / (tp[place] - tp[place - 1])
            false = fp[place - 1] + share * (fp[place] - fp[place - 1])
            row.append(at / (at + false))
        curves.append(row)
    low, high = np.percentile(curves, (2.5, 97.5), axis=0)
    np.testing.assert_allclose(band.low[1:], low, atol=1e-5)
    np.testing.assert_allclose(band.high[1:], high, atol=1e-5)


@pytest.mark.parametrize("labels", [[1, 1, 1], [0, 0, 0]])
def test_bands_of_one_class_are_undefined(labels):
    scores = make_scores(labels, [0.2, 0.5, 0.7])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bands = roc_band(resample(scores, 20)), precision_recall_band(resample(scores, 20))
    assert np.isnan(bands[0].low).all()
    if not sum(labels):
        assert np.isnan(bands[1].low).all()


# --- rates and sweeps ------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(drawn_scores())
def test_a_sweep_is_the_evaluation_at_each_threshold(scores):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = resample(scores, 25)
        sweep = sweep_thresholds(drawn)
    assert (np.diff(sweep.thresholds) > 0).all()
    assert sweep.confusions[-1].tolist() == [0, 0, *np.bincount(scores.labels, minlength=2)]
    for place, at in enumerate(sweep.thresholds):
        whole = evaluate(drawn, at)
        counts = whole.confusion
        assert sweep.confusions[place].tolist() == [counts.tp, counts.fp, counts.tn, counts.fn]
        for name in RATES:
            ours, theirs = getattr(whole, name), sweep.values[name][place]
            assert theirs == pytest.approx(ours.value, abs=1e-12, nan_ok=True)
            if ours.value not in (0.0, 1.0):  # there the evaluation's interval is Wilson's
                assert sweep.low[name][place] == pytest.approx(ours.low, abs=1e-6, nan_ok=True)
                assert sweep.high[name][place] == pytest.approx(ours.high, abs=1e-6, nan_ok=True)


def test_a_sweep_of_many_thresholds_is_cut_to_those_that_are_shown():
    scores = random_scores(0, n=1000, decimals=12)
    sweep = sweep_thresholds(resample(scores, 20))
    assert sweep.thresholds.size <= 201
    assert {scores.probabilities.min(), scores.probabilities.max()} <= set(sweep.thresholds)
    assert set(sweep.thresholds[:-1]) <= set(scores.probabilities)
    for at, counts in zip(sweep.thresholds, sweep.confusions, strict=True):
        whole = confusion(scores, at)
        assert counts.tolist() == [whole.tp, whole.fp, whole.tn, whole.fn]


def test_intervals_between_kept_thresholds_are_as_good_as_exact(monkeypatch):
    scores = random_scores(1, n=600, decimals=12)
    exact = resample(scores, 200)
    monkeypatch.setattr(resampling, "THRESHOLDS_KEPT", 60)
    near = resample(scores, 200)
    assert near.thresholds.size == 60
    for at in (0.05, 0.31, 0.5, 0.77, 1.0):
        ours, theirs = evaluate(near, at), evaluate(exact, at)
        for name in RATES:
            one, other = getattr(ours, name), getattr(theirs, name)
            assert one.value == pytest.approx(other.value, nan_ok=True)
            assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=0.012, nan_ok=True), (name, at)
    assert [near.samples[name].tolist() for name in near.samples] == [
        exact.samples[name].tolist() for name in exact.samples
    ]


def test_rates_of_weighted_counts_where_nothing_is_there():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rates = rates_of(np.array([0.0]), np.array([0.0]), np.array([0.0]), np.array([0.0]))
    assert all(math.isnan(values[0]) for values in rates.values())
    large = rates_of(1e6, 2e5, 3e6, 4e5)  # products of four counts must not overflow
    assert large["mcc"] == pytest.approx((1e6 * 3e6 - 2e5 * 4e5) / math.sqrt(1.2e6 * 1.4e6 * 3.2e6 * 3.4e6))


def test_shares_of_0_and_1_have_wilsons_interval_over_the_patients():
    # Three positives of two patients, all found; two negatives of two patients, both passed.
    scores = make_scores([1, 1, 1, 0, 0], [0.9, 0.8, 0.7, 0.1, 0.2], ["a", "a", "b", "c", "d"])
    whole = evaluate(resample(scores, 50), 0.5)
    assert (whole.sensitivity.low, whole.sensitivity.high) == (wilson_interval(2, 2).low, 1)
    assert (whole.sensitivity.value, whole.sensitivity.n) == (1, 3)
    assert whole.accuracy.low == wilson_interval(4, 4).low
    plain = wilson_rates(confusion(scores, 0.5))
    assert plain["sensitivity"].low == wilson_interval(3, 3).low
    assert plain["accuracy"].n == 5


# --- calibration -----------------------------------------------------------------------------------------------------


def test_reliability_keeps_empty_bins_and_agrees_with_sklearn():
    rng = np.random.default_rng(3)
    p = np.clip(rng.choice([0.05, 0.15, 0.33, 0.5, 0.72, 1.0], 400) + rng.uniform(-0.02, 0.02, 400), 0, 1)
    labels = (rng.random(400) < p).astype(int)
    bins = reliability_curve(resample(make_scores(labels, p), 200))
    assert [each.positive.n for each in bins] == np.histogram(p, bins=np.arange(11) / 10)[0].tolist()
    empty = bins[2]
    assert (empty.low, empty.high, empty.positive.n) == (0.2, pytest.approx(0.3), 0)
    assert math.isnan(empty.mean_probability)
    assert math.isnan(empty.positive.value)
    seen, said = calibration_curve(labels, p, n_bins=10)
    some = [each for each in bins if each.positive.n]
    assert [each.positive.value for each in some] == pytest.approx(seen.tolist())
    assert [each.mean_probability for each in some] == pytest.approx(said.tolist())
    assert all(each.positive.low <= each.positive.value <= each.positive.high for each in some)
    middle = bins[5]
    wilson = wilson_interval(round(middle.positive.value * middle.positive.n), middle.positive.n)
    assert middle.positive.low == pytest.approx(wilson.low, abs=0.03)


@settings(deadline=None)
@given(drawn_scores())
def test_parts_of_the_brier_score_add_up(scores):
    parts = brier_parts(scores)
    expected = np.mean((scores.probabilities - scores.labels) ** 2)
    assert parts.brier == pytest.approx(expected, abs=1e-12)
    whole = parts.reliability - parts.resolution + parts.uncertainty + parts.within
    assert whole == pytest.approx(expected, abs=1e-12)


def test_parts_of_the_brier_score_by_hand():
    # Bin [0.2, 0.3): twice 0.2, one positive; bin [0.8, 0.9): twice 0.8, both positive; 3 of 4 positive.
    parts = brier_parts(make_scores([1, 0, 1, 1], [0.2, 0.2, 0.8, 0.8]))
    assert parts.reliability == pytest.approx((0.3**2 + 0.2**2) / 2)
    assert parts.resolution == pytest.approx((0.25**2 + 0.25**2) / 2)
    assert parts.uncertainty == pytest.approx(0.75 * 0.25)
    assert parts.within == pytest.approx(0, abs=1e-15)


# --- thresholds that are chosen --------------------------------------------------------------------------------------


@settings(deadline=None)
@given(drawn_scores())
def test_youdens_threshold_is_the_best_there_is(scores):
    if not 0 < scores.labels.sum() < scores.labels.size:
        with pytest.raises(ScoresError, match="only one class"):
            youden_threshold(scores)
        return

    def youden(at):
        called = scores.probabilities >= at
        return called[scores.labels == 1].mean() - called[scores.labels == 0].mean()

    chosen = youden_threshold(scores)
    assert youden(chosen) >= max(youden(at) for at in np.unique(scores.probabilities)) - 1e-12


def test_the_cheapest_threshold_by_hand():
    scores = make_scores([0, 0, 1, 0, 1, 1], [0.1, 0.2, 0.3, 0.6, 0.7, 0.9])
    # Equal costs at half prevalence: from 0.7 on one of three is missed and none called in vain, from 0.3 on the other
    # way round; of equals the lower.
    assert cheapest_threshold(scores, 1.0, 0.5) == 0.3
    assert cheapest_threshold(scores, 10.0, 0.5) == 0.3
    assert cheapest_threshold(scores, 0.5, 0.5) == 0.7
    assert cheapest_threshold(scores, 0.001, 0.01) > 0.69
    for ratio, prevalence in ((0, 0.5), (math.nan, 0.5), (1, 0), (1, 1), (1, math.nan)):
        with pytest.raises(ScoresError):
            cheapest_threshold(scores, ratio, prevalence)


def test_what_becomes_of_the_studies_between_two_thresholds():
    scores = make_scores([0, 1, 0, 1, 1, 0], [0.1, 0.1, 0.2, 0.5, 0.8, 0.9])
    no, doubt, yes = triage(scores, 0.2, 0.8, 100)
    assert [zone.name for zone in (no, doubt, yes)] == ["no", "doubt", "yes"]
    assert (no.share.value, no.wrong.value, no.wrong.n) == (2 / 6, 1 / 2, 2)
    assert (doubt.share.value, doubt.wrong.value) == (2 / 6, 1 / 2)
    assert (yes.share.value, yes.wrong.value) == (2 / 6, 1 / 2)
    none = triage(scores, 0.5, 0.5, 100)[1]
    assert none.share.value == 0
    assert none.wrong.n == 0
    assert math.isnan(none.wrong.value)
    with pytest.raises(ScoresError, match="do not fall"):
        triage(scores, 0.8, 0.2)
