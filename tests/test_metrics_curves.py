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
    brier_part_intervals,
    brier_parts,
    cheapest_threshold,
    confusion,
    evaluate,
    evaluate_scores,
    full_sweep,
    precision_recall_band,
    precision_recall_curve,
    rate_interval,
    rates_of,
    reliability_curve,
    resample,
    resampling,
    roc_band,
    roc_curve,
    sweep_thresholds,
    triage,
    were_it_calibrated,
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
    drawn = resample(scores, 80)
    band = roc_band(drawn)
    curves = []
    for labels, probabilities in resampled_scores(scores, 80):
        x, y, _ = sk.roc_curve(labels, probabilities, drop_intermediate=False)
        # At a rate that occurs the highest sensitivity counts.
        curves.append([max(np.interp(at, x, y), y[x <= at + 1e-12].max()) for at in band.at])
    low, high = np.percentile(curves, (2.5, 97.5), axis=0)
    sure = low == 1  # what was never seen is told by Wilson's interval, or by what is known further left
    least = wilson_interval(*[min(map(drawn.patients_of, (0, 1)))] * 2).low
    assert sure[-1]
    assert not sure[:100].any()
    np.testing.assert_allclose(band.low[~sure], low[~sure], atol=1e-6)
    np.testing.assert_allclose(band.low[sure][:-1], max(least, low[~sure].max()), atol=1e-6)
    np.testing.assert_allclose(band.high, high, atol=1e-6)
    curve = roc_curve(scores)
    own = np.interp(band.at, curve.false_positive_rates, curve.sensitivities)
    assert np.mean((band.low <= own) & (own <= band.high)) > 0.95


def test_the_bands_of_a_perfect_model_hold_what_was_never_seen_and_close():
    labels = [0] * 30 + [1] * 20
    patients = [f"p{number // 2}" for number in range(50)]  # 15 without and 10 with a fracture, two studies each
    scores = make_scores(labels, [0.1] * 15 + [0.2] * 15 + [0.7] * 10 + [0.9] * 10, patients)
    drawn = resample(scores, 100)
    least = wilson_interval(10, 10).low
    band = roc_band(drawn)
    assert band.low[:-1].tolist() == [least] * 200
    assert band.high.tolist() == [1] * 201
    assert band.low[-1] == 1, "calling everything finds everything"
    assert evaluate(drawn, 0.5).auc.low == least == pytest.approx(np.trapezoid(band.low, band.at), abs=0.002)
    band = precision_recall_band(drawn)
    assert math.isnan(band.low[0])
    assert band.high[1:].tolist() == [1] * 200
    for recall, called, threshold in ((0.005, 5, 0.9), (0.5, 5, 0.9), (0.505, 10, 0.7), (1.0, 10, 0.7)):
        (low,) = band.low[np.isclose(band.at, recall)]
        assert low == wilson_interval(called, called).low == evaluate(drawn, threshold).precision.low


def test_the_bands_of_a_model_that_is_always_wrong_are_not_closed_to_a_line():
    labels = [1] * 12 + [0] * 12
    drawn = resample(make_scores(labels, np.linspace(0, 1, 24)), 100)
    band = roc_band(drawn)
    assert band.low[:-1].tolist() == [0] * 200
    assert band.high[:-1].tolist() == [wilson_interval(0, 12).high] * 200
    assert (band.low[-1], band.high[-1]) == (1, 1)


@settings(deadline=None, max_examples=30)
@given(drawn_scores())
def test_a_roc_band_never_falls_and_holds_what_the_resamples_were(scores):
    drawn = resample(scores, 25)
    band = roc_band(drawn)
    if np.isnan(band.low).any():
        return
    assert (np.diff(band.low) >= 0).all()
    assert (np.diff(band.high) >= 0).all()
    assert (band.low <= band.high).all()
    assert (band.low[-1], band.high[-1]) == (1, 1)


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
    sure = low == 1
    assert sure[:8].all()
    assert not sure[8:].any()
    np.testing.assert_allclose(band.low[1:][~sure], low[~sure], atol=1e-5)
    assert set(band.low[1:][sure]) == {wilson_interval(6, 6).low}, "six patients are called there"
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


def test_a_full_sweep_has_every_threshold_and_the_limits_that_were_computed():
    scores = random_scores(0, n=1000, decimals=12)
    drawn = resample(scores, 20)
    shown, full = sweep_thresholds(drawn), full_sweep(drawn)
    assert full.thresholds[:-1].tolist() == np.unique(scores.probabilities).tolist()
    assert full.thresholds[-1] > scores.probabilities.max()
    assert full.thresholds.size > 3 * shown.thresholds.size
    for place in range(0, full.thresholds.size, 37):
        at = full.thresholds[place]
        whole = confusion(scores, at)
        assert full.confusions[place].tolist() == [whole.tp, whole.fp, whole.tn, whole.fn]
        for name in RATES:
            assert full.values[name][place] == pytest.approx(getattr(evaluate(drawn, at), name).value, nan_ok=True)
    known = np.isin(full.thresholds, shown.thresholds)
    for name in RATES:
        for ours, theirs in ((full.low, shown.low), (full.high, shown.high), (full.values, shown.values)):
            np.testing.assert_array_equal(ours[name][known], theirs[name])
        assert np.isnan(full.low[name][~known]).all()
        assert np.isnan(full.high[name][~known]).all()
    again = full_sweep(drawn, shown)
    np.testing.assert_array_equal(again.low["kappa"], full.low["kappa"])


def test_intervals_between_kept_thresholds_are_as_good_as_exact(monkeypatch):
    scores = random_scores(1, n=600, decimals=12)
    exact = resample(scores, 200)
    monkeypatch.setattr(resampling, "THRESHOLDS_KEPT", 60)
    near = resample(scores, 200)
    assert 40 < near.thresholds.size <= 62
    for at in (0.05, 0.31, 0.5, 0.77, 1.0):
        ours, theirs = evaluate(near, at), evaluate(exact, at)
        for name in RATES:
            one, other = getattr(ours, name), getattr(theirs, name)
            assert one.value == pytest.approx(other.value, nan_ok=True)
            assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=0.012, nan_ok=True), (name, at)
    assert [near.samples[name].tolist() for name in near.samples] == [
        exact.samples[name].tolist() for name in exact.samples
    ]


@pytest.mark.parametrize("called", [3, 12, 40])
def test_intervals_where_few_studies_are_called_or_few_are_positive_are_exact(monkeypatch, called):
    scores = random_scores(4, n=3000, decimals=12)
    at = float(np.sort(scores.probabilities)[-called])
    exact = evaluate(resample(scores, 100), at)
    monkeypatch.setattr(resampling, "THRESHOLDS_KEPT", 800)
    near = resample(scores, 100)
    assert near.thresholds.size <= 802
    for name in ("precision", "sensitivity", "specificity"):
        one, other = getattr(evaluate(near, at), name), getattr(exact, name)
        assert (one.low, one.high) == pytest.approx((other.low, other.high)), name


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


def test_studies_that_are_all_called_right_are_no_certainty():
    """Ten positives and ten negatives, perfectly apart: no resample knows another answer, but the intervals do."""
    labels = np.repeat([0, 1], 10)
    scores = make_scores(labels, np.concatenate((np.linspace(0.1, 0.3, 10), np.linspace(0.7, 0.9, 10))))
    whole, least = evaluate(resample(scores, 100), 0.5), wilson_interval(10, 10).low
    moved = {name: float(values) for name, values in rates_of(10 * least, 0, 10, 10 * (1 - least)).items()}
    other = {name: float(values) for name, values in rates_of(10, 10 * (1 - least), 10 * least, 0).items()}
    expected = {"auc": least, "average_precision": least, "youden": least, "balanced_accuracy": (1 + least) / 2}
    expected |= {name: min(moved[name], other[name]) for name in ("f1", "kappa", "mcc")}
    for name, low in expected.items():
        found = getattr(whole, name)
        assert (found.value, found.high) == pytest.approx((1, 1)), name
        assert found.low == pytest.approx(low), name
    turned = evaluate(resample(make_scores(1 - labels, scores.probabilities), 100), 0.5)
    assert (turned.auc.value, turned.auc.low, turned.auc.high) == (0, 0, pytest.approx(1 - least))
    assert (turned.youden.value, turned.youden.low, turned.youden.high) == (-1, -1, pytest.approx(-least))


def test_the_rarer_class_decides_how_sure_a_perfect_auc_is():
    patients = ["a", "a", "b", *(f"n{number}" for number in range(30))]
    scores = make_scores([1] * 3 + [0] * 30, [0.9] * 3 + [0.1] * 30, patients)
    found = evaluate(resample(scores, 50), 0.5).auc
    assert (found.low, found.high, found.n) == (wilson_interval(2, 2).low, 1, 33)


def test_certainty_that_was_always_right_is_no_certainty():
    labels = np.arange(20) % 2
    whole = evaluate(resample(make_scores(labels, labels.astype(float)), 50), 0.5)
    most = wilson_interval(0, 20).high
    for name in ("brier", "ece", "adaptive_ece"):
        found = getattr(whole, name)
        assert (found.value, found.low, found.high) == (0, 0, pytest.approx(most)), name
    assert whole.log_loss.high == pytest.approx(-most * math.log(np.finfo(float).eps))


def test_the_band_of_a_sweep_does_not_close_at_its_ends():
    scores = random_scores(3, n=200, decimals=2)
    drawn = resample(scores, 100)
    sweep = sweep_thresholds(drawn)
    assert (sweep.values["sensitivity"][0], sweep.values["specificity"][-1]) == (1, 1)
    assert sweep.low["sensitivity"][0] == wilson_interval(*[drawn.patients_of(1)] * 2).low
    assert sweep.high["specificity"][0] == wilson_interval(0, drawn.patients_of(0)).high
    assert sweep.low["youden"][0] < 0 < sweep.high["youden"][0]
    # Patients in the denominator of a share, counted the slow way.
    p, patients = scores.probabilities, np.array(scores.patient_ids)
    called, passed = drawn.patients_called(sweep.thresholds)
    for at, some, others in zip(sweep.thresholds, called, passed, strict=True):
        assert (some, others) == (len(set(patients[p >= at])), len(set(patients[p < at])))


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


def test_each_part_of_the_brier_score_has_the_interval_of_the_resamples_own_parts():
    scores = random_scores(5, decimals=2)
    found = brier_part_intervals(resample(scores, 50))
    slow = []
    for labels, probabilities in resampled_scores(scores, 50):
        slow.append(brier_parts(make_scores(labels, probabilities)))
    for name, interval in found.items():
        own = getattr(brier_parts(scores), name)
        low, high = np.percentile([getattr(parts, name) for parts in slow], (2.5, 97.5))
        assert (interval.value, interval.n) == (own, 120)
        assert (interval.low, interval.high) == pytest.approx((min(low, own), max(high, own)), abs=1e-9), name
    alone = brier_part_intervals(resample(make_scores([0, 1], [0.2, 0.9], ["p", "p"]), 20))
    assert all(math.isnan(each.low) for each in alone.values())


def test_chance_alone_gives_the_errors_that_labels_drawn_from_the_probabilities_give():
    generator = np.random.default_rng(3)
    probabilities = generator.beta(0.4, 0.6, 90).round(2)
    found = were_it_calibrated(make_scores(generator.integers(0, 2, 90), probabilities), draws=4000)
    slow = {name: [] for name in found}
    for _ in range(600):
        drawn = make_scores((generator.random(90) < probabilities).astype(int), probabilities)
        measured = evaluate_scores(drawn, 0.5, resamples=2)
        for name in ("ece", "adaptive_ece"):
            slow[name].append(getattr(measured, name).value)
        slow["reliability"].append(brier_parts(drawn).reliability)
    for name, each in found.items():
        error = np.std(slow[name]) / np.sqrt(600)
        assert each.value == pytest.approx(np.mean(slow[name]), abs=5 * error), name
        low, high = np.percentile(slow[name], (2.5, 97.5))
        assert (each.low, each.high) == pytest.approx((low, high), rel=0.2), name
        assert each.low > 0
        assert each.n == 90


def test_chance_alone_by_hand():
    # One study at 0.5: whichever label it has, the error is 0.5, the reliability its square. At 0 and 1 there is none.
    one = were_it_calibrated(make_scores([1], [0.5]))
    assert (one["ece"].low, one["ece"].value, one["ece"].high) == (0.5, 0.5, 0.5)
    assert one["adaptive_ece"].value == 0.5
    assert one["reliability"].value == 0.25
    sure = were_it_calibrated(make_scores([0, 0], [0.0, 1.0]))
    assert all((each.value, each.high) == (0, 0) for each in sure.values())
    with pytest.raises(ScoresError, match="At least one draw"):
        were_it_calibrated(make_scores([1], [0.5]), draws=0)


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
    (nobody, _, everybody) = triage(scores, 0.0, 0.0, 100)
    assert (nobody.share.high, everybody.share.low) == (wilson_interval(0, 6).high, wilson_interval(6, 6).low)


def test_zones_are_counted_in_the_resamples_that_there_are(monkeypatch):
    scores, low, high = random_scores(6, n=400, decimals=2), 0.35, 0.6
    drawn = resample(scores, 300, 5)
    monkeypatch.setattr(resampling, "draw_patients", None)  # nothing is drawn again
    zones = triage(drawn, low, high)
    monkeypatch.undo()
    for zone, begin, end, wrong_label in zip(zones, (0, low, high), (low, high, 2), (1, 1, 0), strict=True):
        inside = (scores.probabilities >= begin) & (scores.probabilities < end)
        alone = rate_interval(inside, scores.patient_ids, 300, 5)
        assert (zone.share.value, zone.share.n) == (alone.value, 400)
        assert (zone.share.low, zone.share.high) == pytest.approx((alone.low, alone.high), abs=1e-12), zone.name
        shares = []
        for labels, probabilities in resampled_scores(scores, 300, 5):
            here = labels[(probabilities >= begin) & (probabilities < end)]
            shares.append(np.mean(here == wrong_label))
        assert zone.wrong.value == np.mean(scores.labels[inside] == wrong_label)
        expected = np.percentile(shares, (2.5, 97.5))
        assert (zone.wrong.low, zone.wrong.high) == pytest.approx(tuple(expected), abs=1e-12), zone.name
        # The zone's own patients drawn among themselves, as many each time, say much the same.
        patients = [scores.patient_ids[place] for place in np.flatnonzero(inside)]
        own = rate_interval(scores.labels[inside] == wrong_label, patients, 300, 5)
        assert (zone.wrong.low, zone.wrong.high) == pytest.approx((own.low, own.high), abs=0.03), zone.name
    again = triage(scores, low, high, 300, 5)
    assert [(zone.share.low, zone.wrong.high) for zone in again] == [
        (zone.share.low, zone.wrong.high) for zone in zones
    ]
