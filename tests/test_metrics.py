"""core.metrics against scikit-learn, hand-worked tables and a plain slow bootstrap."""

import dataclasses
import io
import json
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression

from core import metrics
from core.errors import CheckpointError, ScoresError
from core.metrics import (
    ESTIMATES,
    RATES,
    auc,
    calibrate,
    calibrate_both,
    cases_like,
    confusion,
    digest_of,
    evaluate,
    evaluate_scores,
    fit_study_calibration,
    fit_temperature,
    operating_points,
    rates_of,
    read_scores,
    resample,
    resampling,
    roc_curve,
    tables,
    wilson_interval,
    write_scores,
)
from core.metrics.resampling import draw_patients
from core.values import Scores


def make_scores(labels, probabilities, patients=None, studies=None):
    n = len(labels)
    return Scores(
        checkpoint_id="test",
        split="valid",
        study_ids=tuple(studies or (f"study{i}" for i in range(n))),
        patient_ids=tuple(patients or (f"patient{i}" for i in range(n))),
        labels=labels,
        probabilities=probabilities,
    )


def random_scores(seed, n=120, patients=50, decimals=1):
    """Scores with many ties, several studies a patient, and both classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    labels[:2] = 0, 1
    probabilities = np.round(np.clip(rng.normal(0.35 + 0.3 * labels, 0.25), 0, 1), decimals)
    return make_scores(labels, probabilities, [f"p{code}" for code in rng.integers(0, patients, n)])


@st.composite
def drawn_scores(draw):
    n = draw(st.integers(1, 40))
    labels = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    tenths = draw(st.lists(st.integers(0, 10), min_size=n, max_size=n))
    return make_scores(labels, np.array(tenths) / 10)


# Five studies by hand: at 0.5, tp = 2 (0.9, 0.5), fp = 1 (0.8), tn = 1 (0.2), fn = 1 (0.4).
BY_HAND = ([1, 0, 1, 1, 0], [0.9, 0.8, 0.5, 0.4, 0.2])


def test_hand_worked_table():
    evaluation = evaluate_scores(make_scores(*BY_HAND), 0.5, resamples=50)
    assert dataclasses.astuple(evaluation.confusion) == (0.5, 2, 1, 1, 1)
    assert (evaluation.n, evaluation.positives, evaluation.patients) == (5, 3, 5)
    expected = {
        "auc": (4 / 6, 5),  # of six pairs, 0.5 and 0.4 lose to 0.8
        "average_precision": (1 / 3 * 1 + 1 / 3 * 2 / 3 + 1 / 3 * 3 / 4, 5),
        "brier": ((0.01 + 0.64 + 0.25 + 0.36 + 0.04) / 5, 5),
        "ece": ((0.1 + 0.8 + 0.5 + 0.6 + 0.2) / 5, 5),
        "sensitivity": (2 / 3, 3),
        "specificity": (1 / 2, 2),
        "accuracy": (3 / 5, 5),
        "precision": (2 / 3, 3),
        "npv": (1 / 2, 2),
        "f1": (4 / 6, 5),
        "kappa": ((0.6 - 0.52) / (1 - 0.52), 5),  # chance: 0.6 * 0.6 + 0.4 * 0.4
        "balanced_accuracy": (7 / 12, 5),
        "youden": (1 / 6, 5),
        "mcc": ((2 * 1 - 1 * 1) / math.sqrt(3 * 2 * 3 * 2), 5),
        "adaptive_ece": ((0.1 + 0.8 + 0.5 + 0.6 + 0.2) / 5, 5),
        "log_loss": (-math.log(0.9 * 0.2 * 0.5 * 0.4 * 0.8) / 5, 5),
    }
    assert expected.keys() == set(ESTIMATES)
    for name, (value, n) in expected.items():
        interval = getattr(evaluation, name)
        assert interval.value == pytest.approx(value, abs=1e-12), name
        assert interval.n == n, name


def test_ece_pools_the_studies_of_one_bin():
    # Bin [0.8, 0.9): mean 0.85 against 1 of 2 positive, |-0.35| * 2/3; bin [0.9, 1]: 1.0 against 1, nothing.
    scores = make_scores([1, 0, 1], [0.8, 0.89999, 1.0])
    value = evaluate_scores(scores, 0.5, resamples=1).ece.value
    assert value == pytest.approx((0.8 + 0.89999 - 1) / 3, abs=1e-12)


@pytest.mark.parametrize("decimals", [1, 2, 12])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
def test_estimates_agree_with_sklearn(decimals, threshold):
    scores = random_scores(decimals, decimals=decimals)
    y, p = scores.labels, scores.probabilities
    called = p >= threshold
    evaluation = evaluate_scores(scores, threshold, resamples=1)
    expected = {
        "auc": sk.roc_auc_score(y, p),
        "average_precision": sk.average_precision_score(y, p),
        "brier": sk.brier_score_loss(y, p),
        "sensitivity": sk.recall_score(y, called),
        "specificity": sk.recall_score(y, called, pos_label=0),
        "accuracy": sk.accuracy_score(y, called),
        "precision": sk.precision_score(y, called, zero_division=np.nan),
        "npv": sk.precision_score(y, called, pos_label=0, zero_division=np.nan),
        "f1": sk.f1_score(y, called),
        "kappa": sk.cohen_kappa_score(y, called),
        "balanced_accuracy": sk.balanced_accuracy_score(y, called),
        "youden": 2 * sk.balanced_accuracy_score(y, called) - 1,
        "mcc": sk.matthews_corrcoef(y, called),
        "log_loss": sk.log_loss(y, p),
    }
    for name, value in expected.items():
        assert getattr(evaluation, name).value == pytest.approx(value, abs=1e-12, nan_ok=True), name
    counts = confusion(scores, threshold)
    assert [[counts.tn, counts.fp], [counts.fn, counts.tp]] == sk.confusion_matrix(y, called).tolist()


@settings(deadline=None)
@given(drawn_scores())
def test_roc_curve_agrees_with_sklearn(scores):
    curve = roc_curve(scores)
    if 0 < scores.labels.sum() < len(scores.labels):
        false_positive_rates, sensitivities, thresholds = sk.roc_curve(
            scores.labels, scores.probabilities, drop_intermediate=False
        )
        np.testing.assert_allclose(curve.false_positive_rates, false_positive_rates, atol=1e-15)
        np.testing.assert_allclose(curve.sensitivities, sensitivities, atol=1e-15)
        np.testing.assert_array_equal(curve.thresholds, thresholds)
        assert auc(scores) == pytest.approx(sk.roc_auc_score(scores.labels, scores.probabilities), abs=1e-12)
    else:
        assert math.isnan(auc(scores))


def slow_estimates(y, p, w, threshold):
    """Every estimate under study weights, by scikit-learn, or by its definition where scikit-learn has none."""
    called = p >= threshold
    bins = np.minimum((p * 10 + 1e-9).astype(int), 9)
    # As many studies a bin as ten bins hold; a bin begins where the first of its studies does, ties and all.
    begins = sorted({sorted(p)[k * p.size // 10] for k in range(1, 10)} - {p.min()})
    equal = [sum(begin <= value for begin in begins) for value in p]
    equal = np.array(equal)
    return {
        "auc": sk.roc_auc_score(y, p, sample_weight=w),
        "average_precision": sk.average_precision_score(y, p, sample_weight=w),
        "brier": sk.brier_score_loss(y, p, sample_weight=w),
        "ece": sum(abs(np.sum((w * (p - y))[bins == b])) for b in range(10)) / w.sum(),
        "sensitivity": sk.recall_score(y, called, sample_weight=w),
        "specificity": sk.recall_score(y, called, pos_label=0, sample_weight=w),
        "accuracy": sk.accuracy_score(y, called, sample_weight=w),
        "precision": sk.precision_score(y, called, sample_weight=w),
        "npv": sk.precision_score(y, called, pos_label=0, sample_weight=w),
        "f1": sk.f1_score(y, called, sample_weight=w),
        "kappa": sk.cohen_kappa_score(y, called, sample_weight=w),
        "balanced_accuracy": sk.balanced_accuracy_score(y, called, sample_weight=w),
        "youden": 2 * sk.balanced_accuracy_score(y, called, sample_weight=w) - 1,
        "mcc": sk.matthews_corrcoef(y, called, sample_weight=w),
        "adaptive_ece": sum(abs(np.sum((w * (p - y))[equal == b])) for b in set(equal)) / w.sum(),
        "log_loss": sk.log_loss(y, p, sample_weight=w),
    }


def test_bootstrap_equals_a_plain_one_resample_by_resample():
    scores, threshold, resamples, seed = random_scores(3), 0.5, 60, 11
    fast = resample(scores, resamples, seed)
    at_threshold = rates_of(*(counts[:, 0] for counts in fast.counts_at(np.array([threshold]))))
    patients = np.unique(scores.patient_ids)
    codes = np.searchsorted(patients, scores.patient_ids)
    weights = draw_patients(patients.size, range(resamples), seed)
    assert (weights.sum(axis=1) == patients.size).all()
    slow = [slow_estimates(scores.labels, scores.probabilities, row[codes], threshold) for row in weights]
    evaluation = evaluate(fast, threshold)
    for name in ESTIMATES:
        reference = np.array([estimates[name] for estimates in slow])
        found = at_threshold[name] if name in RATES else fast.samples[name]
        np.testing.assert_allclose(found, reference, rtol=0, atol=1e-12, err_msg=name)
        interval = getattr(evaluation, name)
        low, high = np.percentile(reference, (2.5, 97.5))
        assert interval.low == pytest.approx(min(low, interval.value), abs=1e-12)
        assert interval.high == pytest.approx(max(high, interval.value), abs=1e-12)


def test_every_split_of_a_table_is_what_reading_it_alone_gives(tmp_path, monkeypatch):
    table = tmp_path / "scores.csv"
    rows = [
        "split,study_id,patient_id,label,probability,view",
        "test,a,p,1,0.5,PA",
        "valid,b,q,0,0.25,PA",
        "test,c,r,0,0.1,LAT",
    ]
    table.write_text("\n".join(rows))
    alone = {split: read_scores(table, "m", split) for split in ("test", "valid")}
    opened = []
    read_rows = tables._read_rows
    monkeypatch.setattr(tables, "_read_rows", lambda path: opened.append(path) or read_rows(path))
    every = metrics.read_every_split(table, "m")
    assert opened == [table], "read once, however many splits there are"
    assert list(every) == ["study"]
    found = every["study"]
    assert list(found) == ["test", "valid"]
    for split, scores in found.items():
        for name in ("checkpoint_id", "split", "study_ids", "patient_ids", "columns"):
            assert getattr(scores, name) == getattr(alone[split], name)
        assert scores.probabilities.tolist() == alone[split].probabilities.tolist()
        assert scores.labels.tolist() == alone[split].labels.tolist()
    table.write_text("study_id,patient_id,label,probability\na,p,1,0.5\n")
    assert list(metrics.read_every_split(table)["study"]) == [""]


def test_bootstrap_weights_are_multinomial():
    weights = draw_patients(4, range(20_000), 0)
    # Counts of 4 draws over 4 patients: mean 1, variance 3/4, covariance -1/4.
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.03)
    np.testing.assert_allclose(np.cov(weights.T), np.eye(4) - 0.25, atol=0.03)


def test_of_each_resample_only_what_it_says_is_held():
    """What grows with resamples times studies would be gigabytes for 200,000 studies."""
    scores = random_scores(5)
    estimates = resampling._Estimates(scores)
    found = estimates(np.ones((3, estimates.patients), np.int64))
    for name, values in found.items():
        base = values if values.base is None else values.base
        assert base.nbytes <= values.nbytes, name


def test_bootstrap_does_not_depend_on_how_many_resamples_are_held_at_once(monkeypatch):
    whole = evaluate_scores(random_scores(5), 0.5, 200, 1).to_dict()
    monkeypatch.setattr(resampling, "_CELLS_AT_ONCE", 7 * 120)
    assert evaluate_scores(random_scores(5), 0.5, 200, 1).to_dict() == whole
    assert evaluate_scores(random_scores(5), 0.5, 200, 2).to_dict() != whole
    monkeypatch.setattr(resampling, "_CELLS_ALONE", 0)  # several threads, as for very many studies
    assert evaluate_scores(random_scores(5), 0.5, 200, 1).to_dict() == whole


def test_sums_between_ends_are_those_of_slices_empty_ones_among_them():
    values = np.random.default_rng(0).random((3, 10))
    for ends in ([0, 0, 4, 4, 10], [10, 10, 10], [0, 0, 0], [3, 7, 9]):
        found = resampling._sums_between(values, np.array(ends))
        slow = [values[:, start:end].sum(axis=1) for start, end in zip([0, *ends], ends, strict=False)]
        np.testing.assert_allclose(found, np.transpose(slow), atol=1e-15)


def test_what_is_drawn_once_is_the_same_whoever_changed_it_meanwhile():
    first = draw_patients(7, range(3, 8), 5)
    kept = first.copy()
    first[:] = -1
    np.testing.assert_array_equal(draw_patients(7, range(3, 8), 5), kept)
    np.testing.assert_array_equal(draw_patients(7, range(8), 5)[3:], kept)
    assert not np.array_equal(draw_patients(7, range(3, 8), 6), kept)


def test_patients_are_drawn_whole():
    """Ten copies of each patient's study say no more than one: the interval may not shrink."""
    one = random_scores(8, n=60, patients=10**9)
    ten = make_scores(np.repeat(one.labels, 10), np.repeat(one.probabilities, 10), list(np.repeat(one.patient_ids, 10)))
    for name in ESTIMATES:
        a, b = getattr(evaluate_scores(one, 0.5, 300), name), getattr(evaluate_scores(ten, 0.5, 300), name)
        assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high), abs=1e-12), name


@settings(deadline=None)
@given(drawn_scores())
def test_every_interval_holds_its_estimate_or_both_are_undefined(scores):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluation = evaluate_scores(scores, 0.5, resamples=20)
    for name in ESTIMATES:
        interval = getattr(evaluation, name)
        if math.isnan(interval.low):
            assert math.isnan(interval.high)
            assert math.isnan(interval.value) or evaluation.patients == 1
        else:
            assert interval.low <= interval.value <= interval.high
            assert interval.high <= 1 + 1e-12 or name == "log_loss"
    json.dumps(evaluation.to_dict(), allow_nan=False)


def test_interval_of_a_calibration_error_of_zero_holds_zero():
    probabilities = np.repeat(np.arange(10) / 10 + 0.05, 100)
    labels = np.concatenate([np.arange(100) < 10 * tenth + 5 for tenth in range(10)]).astype(int)
    ece = evaluate_scores(make_scores(labels, probabilities), 0.5, 200).ece
    assert ece.value == pytest.approx(0, abs=1e-12)
    assert ece.low == ece.value  # though every resample's error lies above
    assert ece.high > 0.01


def drawn_studies(seed, patients):
    """Studies of patients some of whom score high whatever they have: one to three studies a patient, 40% positive."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
    labels = (rng.random(codes.size) < 0.4).astype(int)
    logits = rng.normal(0, 1, patients)[codes] + rng.normal(1.4 * labels - 0.7, 1.0)
    return make_scores(labels, 1 / (1 + np.exp(-logits)), [str(code) for code in codes])


@pytest.mark.slow
def test_intervals_cover_the_truth_as_often_as_they_say():
    """Of 500 sets of 150 patients, each resampled 1,000 times, count those whose intervals hold the truth.

    Seen (truth: 300,000 patients; the calibration errors are left out, since resampling biases them upwards): AUC
    0.950, average precision 0.932, Brier score 0.956, log loss 0.952, sensitivity 0.946, specificity 0.944,
    accuracy 0.958, PPV 0.936, NPV 0.948, F1 0.954, kappa 0.958, Youden's index and balanced accuracy 0.960,
    Matthews' correlation 0.958.
    """
    names = [name for name in ESTIMATES if "ece" not in name]
    truth = evaluate_scores(drawn_studies(99, 300_000), 0.5, resamples=1)
    held = dict.fromkeys(names, 0)
    for seed in range(500):
        found = evaluate_scores(drawn_studies(seed, 150), 0.5, 1000, seed)
        for name in names:
            interval = getattr(found, name)
            held[name] += interval.low <= getattr(truth, name).value <= interval.high
    for name, times in held.items():
        assert 0.93 <= times / 500 <= 0.97, name


@pytest.mark.parametrize(
    ("labels", "undefined"),
    [
        ([1, 1, 1], {"auc", "specificity", "npv", "balanced_accuracy", "youden"}),
        ([0, 0, 0], {"auc", "average_precision", "sensitivity", "npv", "balanced_accuracy", "youden"}),
    ],
)
def test_one_class_leaves_undefined_estimates_null(labels, undefined):
    report = evaluate_scores(make_scores(labels, [0.9, 0.8, 0.7]), 0.5, resamples=20).to_dict()
    for name in ESTIMATES:
        assert (report[name]["value"] is None) == (name in undefined or (name == "kappa" and labels[0] == 1)), name
        assert (report[name]["low"] is None) == (report[name]["value"] is None)


def test_all_equal_probabilities():
    report = evaluate_scores(make_scores([0, 1, 1, 0], [0.5] * 4), 0.5, resamples=200)
    assert report.auc.value == 0.5
    assert (report.auc.low, report.auc.high) == (0.5, 0.5)
    assert report.average_precision.value == 0.5
    assert math.isnan(report.npv.value)
    assert report.kappa.value == 0.0


def test_a_single_study_has_values_but_no_intervals():
    report = evaluate_scores(make_scores([1], [0.75]), 0.5).to_dict()
    assert report["brier"] == {"value": 0.0625, "low": None, "high": None}
    assert report["auc"] == {"value": None, "low": None, "high": None}
    assert report["confusion"] == {"tp": 1, "fp": 0, "tn": 0, "fn": 0}


def test_report_has_the_contract_s_keys_in_order():
    report = evaluate_scores(make_scores(*BY_HAND), 0.5, resamples=5).to_dict()
    assert [*report] == [
        *("n", "positives", "auc", "average_precision", "brier", "ece", "threshold", "confusion"),
        *("sensitivity", "specificity", "accuracy", "precision", "npv", "f1", "kappa"),
        *("balanced_accuracy", "youden", "mcc", "adaptive_ece", "log_loss"),
    ]
    assert [*report["auc"]] == ["value", "low", "high"]


@pytest.mark.parametrize(
    ("labels", "probabilities", "ids", "sentence"),
    [
        ([], [], {}, "there is none"),
        ([0, 2], [0.1, 0.2], {}, "Labels must be 0 or 1, but 1 of 2"),
        ([0, 1], [0.1, np.nan], {}, "from 0 to 1, but 1 of 2"),
        ([0, 1], [-0.1, 1.2], {}, "from 0 to 1, but 2 of 2"),
        ([0, 1], [0.1, np.inf], {}, "from 0 to 1, but 1 of 2"),
        ([0, 1], [0.1, 0.2, 0.3], {}, "numbers differ"),
        ([0, 1], [[0.1, 0.2]], {}, "numbers differ"),
        ([0, 1], [0.1, 0.2], {"patients": ["a"]}, "numbers differ"),
        ([0, 1], [0.1, 0.2], {"studies": ["secret", "secret"]}, "1 of 2 rows repeat a study"),
        ([0, 1], [0.1, 0.2], {"patients": ["a", ""]}, "1 of 2 have none"),
    ],
)
def test_scores_that_cannot_be_measured(labels, probabilities, ids, sentence):
    scores = make_scores(labels, probabilities, **ids)
    for measure in (
        auc,
        lambda scores: confusion(scores, 0.5),
        lambda scores: evaluate_scores(scores, 0.5),
        operating_points,
        lambda scores: cases_like(scores, 0.5),
    ):
        with pytest.raises(ScoresError, match=sentence) as raised:
            measure(scores)
        assert "secret" not in str(raised.value)


def test_settings_that_cannot_be_measured():
    scores = make_scores(*BY_HAND)
    with pytest.raises(ScoresError, match="resample"):
        evaluate_scores(scores, 0.5, resamples=0)
    with pytest.raises(ScoresError, match="threshold"):
        evaluate_scores(scores, math.nan)
    with pytest.raises(ScoresError, match="Targets"):
        operating_points(scores, sensitivity_target=1.1)
    with pytest.raises(ScoresError, match="only one class"):
        operating_points(make_scores([1, 1], [0.1, 0.2]))
    with pytest.raises(ScoresError, match="probability"):
        cases_like(scores, math.nan)
    with pytest.raises(ScoresError, match="At least one"):
        cases_like(scores, 0.5, minimum=0)


def test_wilson_interval_against_scipy():
    from scipy.stats import binomtest

    for n in (1, 7, 212, 5000):
        for k in {0, 1, n // 3, n - 1, n}:
            ours = wilson_interval(k, n)
            expected = binomtest(k, n).proportion_ci(method="wilson")
            assert (ours.value, ours.n) == (k / n, n)
            assert (ours.low, ours.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
            assert 0 <= ours.low <= ours.value <= ours.high <= 1
    assert math.isnan(wilson_interval(0, 0).value)
    for k, n in ((3, 2), (-1, 2), (0, -1)):
        with pytest.raises(ScoresError):
            wilson_interval(k, n)


def test_operating_points_by_hand():
    # 20 positives 0.315 ... 0.505 and 20 negatives 0.21 ... 0.40.
    positive, negative = 0.305 + np.arange(1, 21) / 100, 0.2 + np.arange(1, 21) / 100
    scores = make_scores([1] * 20 + [0] * 20, np.concatenate((positive, negative)))
    sensitive, specific = operating_points(scores)
    assert sensitive.name == "high_sensitivity"
    assert sensitive.threshold == positive[1]  # 19 of 20 lie at or above it
    assert specific.name == "high_specificity"
    assert specific.threshold == pytest.approx(0.395)  # the next score above 0.39, the 19th of 20 negatives
    assert (specific.specificity.value, specific.specificity.n) == (0.95, 20)
    assert specific.sensitivity.value == 12 / 20
    assert sensitive.specificity.value == 12 / 20  # 0.21 ... 0.32
    wilson = wilson_interval(19, 20)
    assert (sensitive.sensitivity.low, sensitive.sensitivity.high) == (wilson.low, wilson.high)


def test_a_study_below_the_lower_point_is_itself_unlikely_to_be_positive():
    """One in four is positive: odds of 1 : 3, which a likelihood ratio of 0.2 makes 1 : 15."""
    labels = [1] * 20 + [0] * 60
    apart = np.concatenate((np.linspace(0.5, 0.9, 20), np.linspace(0.02, 0.45, 60)))
    plain, lowered = (
        operating_points(make_scores(labels, apart)),
        operating_points(make_scores(labels, apart), ruled_out=0.2),
    )
    assert plain[0].threshold > 0.4
    assert lowered[0].threshold == pytest.approx(1 / 16)
    assert lowered[0].sensitivity.value == 1.0
    assert lowered[0].specificity.value == np.mean(apart[20:] < 1 / 16)
    assert lowered[1].threshold == plain[1].threshold
    # Where the target itself asks for less, it stays.
    mixed = np.concatenate((np.linspace(0.01, 0.9, 20), np.linspace(0.02, 0.45, 60)))
    low, _ = operating_points(make_scores(labels, mixed), ruled_out=0.2)
    assert low.threshold == operating_points(make_scores(labels, mixed))[0].threshold == mixed[1]
    for wrong in (0, 1.1, math.nan):
        with pytest.raises(ScoresError, match="likelihood ratio"):
            operating_points(make_scores(labels, apart), ruled_out=wrong)


def test_crossing_operating_points_change_places():
    """From 0.2 on half of the negatives are told, up to 0.6 all positives are: what lies between remains uncertain."""
    sensitive, specific = operating_points(make_scores([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9]), 1.0, 0.5)
    assert (sensitive.threshold, specific.threshold) == (0.2, 0.6)
    assert (sensitive.sensitivity.value, sensitive.specificity.value) == (1.0, 0.5)
    assert (specific.sensitivity.value, specific.specificity.value) == (1.0, 1.0)


def test_no_probability_is_specific_enough():
    sensitive, specific = operating_points(make_scores([0, 0, 1], [0.6, 0.7, 0.7]))
    assert sensitive.threshold == 0.7
    assert specific.threshold == np.nextafter(0.7, 1)
    assert (specific.sensitivity.value, specific.specificity.value) == (0.0, 1.0)
    sensitive, specific = operating_points(make_scores([0, 0, 1], [1.0, 1.0, 1.0]))
    assert sensitive.threshold == specific.threshold == 1.0  # a threshold above 1 would be none
    assert specific.specificity.value == 0.0


@settings(deadline=None)
@given(drawn_scores(), st.sampled_from([0.5, 0.9, 0.95, 1.0]), st.sampled_from([0.5, 0.9, 0.95, 1.0]))
def test_operating_points_reach_their_targets_and_are_extreme(scores, sensitivity, specificity):
    y, p = scores.labels, scores.probabilities
    if not 0 < y.sum() < y.size:
        return
    p = np.minimum(p, 0.99)  # with negatives at exactly 1 no threshold need reach the target
    scores = make_scores(y, p)
    sensitive, specific = operating_points(scores, sensitivity, specificity)
    assert sensitive.threshold <= specific.threshold
    assert sensitive.sensitivity.value >= sensitivity
    assert specific.specificity.value >= specificity
    if sensitive.threshold < specific.threshold:
        crossed = sensitive.specificity.value >= specificity
        assert not crossed or specific.sensitivity.value >= sensitivity
        ends = (specific, sensitive) if crossed else (sensitive, specific)
        higher, lower = p[p > ends[0].threshold], p[p < ends[1].threshold]
        assert all(np.mean(p[y == 1] >= t) < sensitivity for t in higher)
        assert all(np.mean(p[y == 0] < t) < specificity for t in lower)


def test_temperature_agrees_with_logistic_regression():
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 4, 500)
    labels = (rng.random(500) < 1 / (1 + np.exp(-logits / 2.5))).astype(int)
    slope = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(logits[:, None], labels).coef_[0, 0]
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(1 / slope, rel=1e-4)
    assert fit_temperature(logits * 3, labels) == pytest.approx(3 * temperature, rel=1e-4)


def test_temperature_at_the_ends_of_its_range():
    low, high = metrics.TEMPERATURE_RANGE
    assert fit_temperature(np.array([-2.0, -1.0, 1.0, 2.0]), np.array([0, 0, 1, 1])) == pytest.approx(low, rel=1e-3)
    assert fit_temperature(np.array([2.0, 1.0, -1.0, -2.0]), np.array([0, 0, 1, 1])) == pytest.approx(high, rel=1e-3)
    assert fit_temperature(np.array([1e6, -1e6, 1e6]), np.array([0, 1, 1])) == pytest.approx(high, rel=1e-3)
    assert fit_temperature(np.zeros(4), np.array([0, 0, 1, 1])) == 1.0


def test_study_calibration_of_one_film_each_is_logistic_regression():
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 3, 400)
    labels = (rng.random(400) < 1 / (1 + np.exp(-(logits / 2 - 0.7)))).astype(int)
    fitted = LogisticRegression(C=np.inf, tol=1e-10).fit(logits[:, None], labels)
    found = fit_study_calibration(logits, [str(n) for n in range(400)], labels)
    assert found["method"] == "platt"
    assert 1 / found["temperature"] == pytest.approx(fitted.coef_[0, 0], rel=1e-3)
    assert found["bias"] == pytest.approx(fitted.intercept_[0], abs=1e-3)


def test_study_calibration_fits_the_mean_of_a_study_s_films():
    """Half of the films show nothing, so that a film alone must promise more than it would if it stood alone."""
    rng = np.random.default_rng(6)
    labels = np.repeat(rng.integers(0, 2, 3000), 2)
    shown = (labels == 1) & (np.arange(6000) % 2 == 0)
    logits = rng.normal(np.where(shown, 2.0, -2.0), 1.0)
    studies = np.repeat(np.arange(3000), 2)
    calibration = fit_study_calibration(logits, studies.astype(str), labels)

    def loss(values):
        probability = calibrate(logits, values).reshape(-1, 2).mean(axis=1)
        return sk.log_loss(labels[::2], probability)

    best = loss(calibration)
    assert best < loss({"method": "temperature", "temperature": fit_temperature(logits, labels)})
    for temperature, bias in ((1.05, 0), (0.95, 0), (1, 0.05), (1, -0.05)):
        moved = {"temperature": calibration["temperature"] * temperature, "bias": calibration["bias"] + bias}
        assert best < loss({"method": "platt", **moved})


def test_the_calibration_of_many_studies_means_is_logistic_regression_of_their_log_odds():
    rng = np.random.default_rng(8)
    labels = rng.integers(0, 2, 20000)
    means = expit(rng.normal(2 * labels - 1.4, 1.0))
    found = metrics.fit_mean_calibration(means, labels)
    fitted = LogisticRegression(C=np.inf, tol=1e-10).fit(logit(means)[:, None], labels)
    assert 1 / found["temperature"] == pytest.approx(fitted.coef_[0, 0], rel=2e-3)
    assert found["bias"] == pytest.approx(fitted.intercept_[0], abs=2e-3)
    told = metrics.calibrate_means(means, found)
    assert told == pytest.approx(fitted.predict_proba(logit(means)[:, None])[:, 1], abs=1e-3)
    assert (np.argsort(told) == np.argsort(means)).all()


def test_means_that_are_drawn_to_the_middle_are_moved_outwards():
    """A break that one film of two shows, and the other does not, gives one half, though it is always there."""
    rng = np.random.default_rng(9)
    labels = rng.integers(0, 2, 2000)
    sees = rng.random((2000, 2)) < np.where(labels == 1, 0.7, 0.02)[:, None]
    logits = np.where(sees, 4.0, -2.0)
    means = np.array([metrics.pool(each, None) for each in logits])
    found = metrics.fit_mean_calibration(means, labels)
    halves = abs(means - 0.5) < 0.1
    assert halves.sum() > 300
    assert labels[halves].mean() > 0.9
    assert metrics.calibrate_means(means[halves], found).mean() > 0.85
    ids = tuple(map(str, range(2000)))
    before, after = (
        evaluate_scores(Scores("x", "test", ids, ids, labels, told), 0.5).ece.value
        for told in (means, metrics.calibrate_means(means, found))
    )
    assert after < before / 2


def test_a_few_studies_that_are_told_apart_move_little():
    """Two studies, at log-odds of 1 either way: by symmetry no bias, and one equation for the temperature.

    With s = 1 / temperature the loss is 2 log(1 + exp(-s)) + log(s)^2 / 2, at its least where 2 s / (1 + exp(s)) =
    log(s).
    """
    from scipy.optimize import brentq

    means = expit(np.array([-1.0, 1.0]))
    found = metrics.fit_mean_calibration(means, np.array([0, 1]))
    steep = brentq(lambda s: 2 * s / (1 + math.exp(s)) - math.log(s), 0.5, 5)
    assert 1 / found["temperature"] == pytest.approx(steep, abs=1e-4)
    assert found["bias"] == pytest.approx(0, abs=1e-4)
    turned = metrics.fit_mean_calibration(means[::-1], np.array([0, 1]))
    assert 1 < turned["temperature"] < metrics.TEMPERATURE_RANGE[1], "flatter, never turned round"
    certain = metrics.fit_mean_calibration(np.array([0.0, 1.0] * 50), np.array([0, 1] * 50))
    assert certain["temperature"] == pytest.approx(1, abs=0.01), "there is nothing to mend"


@pytest.mark.parametrize(
    ("means", "labels"),
    [([0.1, 0.9], [1, 1]), ([0.1, np.nan], [0, 1]), ([0.1, 1.1], [0, 1]), ([0.1], [0, 1]), ([], []), ([0.1], [2])],
)
def test_a_study_s_calibration_needs_probabilities_and_both_labels(means, labels):
    with pytest.raises(ScoresError):
        metrics.fit_mean_calibration(np.array(means), np.array(labels))


def test_a_study_is_pooled_by_hand():
    halved, moved = {"method": "temperature", "temperature": 2.0}, {"method": "platt", "temperature": 0.5, "bias": -1.0}
    logits = np.array([2.0, -4.0])
    mean = (expit(1.0) + expit(-2.0)) / 2
    assert metrics.pool(logits, halved) == pytest.approx(mean)
    assert metrics.pool(logits, halved, moved) == pytest.approx(expit(2 * logit(mean) - 1))
    assert metrics.pool_both(logits, halved, moved) == pytest.approx(
        (expit(2 * logit(mean) - 1), expit(1 - 2 * logit(mean)))
    )
    assert metrics.pool(np.array([3.0]), None) == pytest.approx(expit(3.0))
    steps = isotonic([-1.0, 1.0], [0.2, 0.6])
    assert metrics.pool(np.array([0.0]), None, steps) == pytest.approx(0.4)
    # Log-odds of 200 are a probability of 1 in floating point, and keep their digits on the other side.
    assert metrics.pool_both(np.array([200.0]), None, halved)[1] == pytest.approx(math.exp(-100))
    assert metrics.pool(np.array([np.inf, np.inf]), None, moved) == 1.0


def test_log_odds_are_finite_where_they_must_be():
    assert metrics.finite_log_odds(0.8) == pytest.approx(math.log(4))
    assert metrics.finite_log_odds(np.array([0.0, 0.5, 1.0])) == pytest.approx(
        [math.log(1e-12), 0, -math.log(1e-12)], abs=1e-3
    )
    assert isinstance(metrics.finite_log_odds(1.0), float)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20), st.floats(0.1, 10), st.floats(-5, 5))
def test_a_calibration_of_means_keeps_their_order_and_their_ends(means, temperature, bias):
    means = np.sort(means)
    told = metrics.calibrate_means(means, {"method": "platt", "temperature": temperature, "bias": bias})
    assert (np.diff(told) >= 0).all()
    assert ((told >= 0) & (told <= 1)).all()
    assert metrics.calibrate_means(means, None) is means
    ends = metrics.calibrate_means(np.array([0.0, 1.0]), {"method": "platt", "temperature": temperature, "bias": bias})
    assert ends.tolist() == [0, 1]


def test_study_calibration_needs_a_study_for_each_film():
    with pytest.raises(ScoresError, match="study of each film"):
        fit_study_calibration(np.array([1.0, 2.0]), ["a"], np.array([0, 1]))


@pytest.mark.parametrize(
    ("logits", "labels"),
    [([0.0, 1.0], [1, 1]), ([0.0, np.nan], [0, 1]), ([0.0, np.inf], [0, 1]), ([0.0], [0, 1]), ([], []), ([1.0], [2])],
)
def test_temperature_needs_finite_logits_and_both_labels(logits, labels):
    with pytest.raises(ScoresError):
        fit_temperature(np.array(logits), np.array(labels))


def test_calibrate_is_stable_and_right():
    from scipy.special import expit

    z = np.array([-np.inf, -700.0, -50.0, -1.5, 0.0, 1e-9, 3.0, 800.0, np.inf])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(calibrate(z, None), expit(z), rtol=1e-13)
        calibrated = calibrate(z, {"method": "temperature", "temperature": 2.5})
    np.testing.assert_allclose(calibrated, expit(z / 2.5), rtol=1e-13)
    assert isinstance(calibrate(0.3, None), float)
    assert calibrate(2.0, {"method": "temperature", "temperature": 2}) == pytest.approx(1 / (1 + math.exp(-1)))
    assert calibrate(np.float32(0.0), None) == 0.5
    assert calibrate(2.0, {"method": "platt", "temperature": 2, "bias": -1}) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "calibration",
    [
        {},
        {"method": "spline"},
        {"method": "temperature"},
        {"method": "temperature", "temperature": 0},
        {"method": "temperature", "temperature": math.nan},
        {"method": "temperature", "temperature": "2"},
        {"method": "temperature", "temperature": 2, "bias": 1},
        {"method": "platt", "temperature": 2},
        {"method": "platt", "temperature": 2, "bias": math.inf},
    ],
)
def test_unknown_calibration_is_refused(calibration):
    with pytest.raises(CheckpointError, match="temperature"):
        calibrate(0.0, calibration)


def isotonic(logits, probabilities, **more):
    return {"method": "isotonic", "logits": logits, "probabilities": probabilities, **more}


@pytest.mark.parametrize(
    "calibration",
    [
        {"method": "isotonic"},
        isotonic([], []),
        isotonic([0.0, 1.0], [0.5]),
        isotonic([1.0, 0.0], [0.1, 0.9]),
        isotonic([0.0, 0.0], [0.1, 0.9]),
        isotonic([0.0, 1.0], [0.9, 0.1]),
        isotonic([0.0, 1.0], [0.1, 1.1]),
        isotonic([0.0, math.inf], [0.1, 0.9]),
        isotonic([0.0, 1.0], [math.nan, 0.9]),
        isotonic([0.0, "1"], [0.1, 0.9]),
        isotonic([0.0, 1.0], [0.1, 0.9], bias=1),
    ],
)
def test_an_isotonic_calibration_that_is_none_is_refused(calibration):
    with pytest.raises(CheckpointError, match="isotonic"):
        calibrate(0.0, calibration)


def test_isotonic_calibration_by_hand():
    points = isotonic([-1.0, 0.0, 2.0], [0.1, 0.3, 0.9])
    assert calibrate(np.array([-np.inf, -1, -0.5, 1, 2, 50]), points) == pytest.approx([0.1, 0.1, 0.2, 0.6, 0.9, 0.9])
    assert calibrate_both(1.0, points) == pytest.approx((0.6, 0.4))
    # Four studies of one film: 0, 1, 0, 1. The middle two become their mean; nothing is surer than 1 of 6.
    found = fit_study_calibration(np.array([-2.0, -1.0, 1.0, 2.0]), list("abcd"), np.array([0, 1, 0, 1]), "isotonic")
    assert calibrate(np.array([-2.0, -1.0, 0.0, 1.0, 2.0]), found) == pytest.approx([1 / 6, 0.5, 0.5, 0.5, 5 / 6])


def test_isotonic_calibration_of_studies_whose_films_count_as_one():
    """A study of 99 films alike outweighs nothing: the answer is that of one film each."""
    logits, labels = np.array([0.0, 1.0] + [0.5] * 99), np.array([0, 0] + [1] * 99)
    studies = ["a", "b"] + ["c"] * 99
    found = fit_study_calibration(logits, studies, labels, "isotonic")
    alone = fit_study_calibration(logits[:3], studies[:3], labels[:3], "isotonic")
    assert calibrate(0.75, found) == pytest.approx(calibrate(0.75, alone))
    assert calibrate(0.75, alone) == pytest.approx(0.5)


def test_calibrations_of_studies_are_worth_what_they_promise():
    """Logits that are three times too sure and shifted: each method mends what it can."""
    rng = np.random.default_rng(8)
    truth = rng.normal(0, 1.5, 4000)
    labels = (rng.random(4000) < 1 / (1 + np.exp(-truth))).astype(int)
    logits, studies = 3 * truth + 2, [str(number) for number in range(4000)]
    loss = {
        method: sk.log_loss(labels, calibrate(logits, fit_study_calibration(logits, studies, labels, method)))
        for method in metrics.CALIBRATIONS
    }
    best = sk.log_loss(labels, 1 / (1 + np.exp(-truth)))
    assert loss["temperature"] > best + 0.02  # it has no way to shift
    assert loss["platt"] == pytest.approx(best, abs=0.002)
    assert loss["isotonic"] == pytest.approx(best, abs=0.01)
    assert fit_study_calibration(logits, studies, labels, "temperature")["temperature"] == pytest.approx(
        fit_temperature(logits, labels), rel=1e-3
    )
    with pytest.raises(ScoresError, match="temperature, platt, isotonic"):
        fit_study_calibration(logits, studies, labels, "spline")


def test_both_probabilities_keep_their_digits():
    positive, negative = calibrate_both(np.array([-60.0, 60.0]), None)
    assert positive[0] == pytest.approx(math.exp(-60), rel=1e-9)
    assert negative[1] == pytest.approx(math.exp(-60), rel=1e-9)


def test_cases_like_counts_a_window_and_widens_it():
    scores = make_scores([0, 1, 1, 0, 1, 1], [0.05, 0.60, 0.64, 0.65, 0.70, 0.95])
    like = cases_like(scores, 0.65, minimum=1)
    assert (like.positives, like.n, like.low, like.high) == (3, 4, 0.60, 0.70)
    assert (like.rate.value, like.rate.low, like.rate.high, like.rate.n) == dataclasses.astuple(wilson_interval(3, 4))
    like = cases_like(scores, 0.65, minimum=5)
    assert (like.positives, like.n, like.low, like.high) == (4, 5, 0.60, 0.95)
    assert cases_like(scores, 0.65, minimum=50).n == 6
    # Equally near: both, though one would do.
    assert cases_like(make_scores([0, 1], [0.2, 0.6]), 0.4, minimum=1).n == 2


def test_scores_survive_their_table(tmp_path):
    rng = np.random.default_rng(2)
    scores = make_scores(rng.integers(0, 2, 50), rng.random(50), studies=[f'a "b", {i}\u00e9' for i in range(50)])
    write_scores(scores, tmp_path / "scores.csv")
    again = read_scores(tmp_path / "scores.csv", "id", "test")
    assert again.study_ids == scores.study_ids
    assert again.patient_ids == scores.patient_ids
    np.testing.assert_array_equal(again.labels, scores.labels)
    np.testing.assert_array_equal(again.probabilities, scores.probabilities)
    assert (again.checkpoint_id, again.split) == ("id", "test")


def test_table_from_a_spreadsheet(tmp_path):
    table = tmp_path / "scores.csv"
    table.write_bytes(
        b"\xef\xbb\xbfprobability, label ,note,study_id,patient_id\r\n0.5,1.0,x,s1,p1\r\n1e-3, 0 ,,s2,p1\r\n"
    )
    scores = read_scores(table)
    assert scores.probabilities.tolist() == [0.5, 0.001]
    assert scores.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    "text",
    [
        '\ufeffstudy_id;patient_id;"label";probability\r\ns1;"p;1";1;0,5\r\ns2;p,1;0;1e-3\r\n',
        "study_id\tpatient_id\tlabel\tprobability\ns1\tp;1\t1\t0.5\ns2\tp,1\t0\t0,001\n",
        'study_id,patient_id,label,probability\ns1,p;1,1,"0,5"\ns2,"p,1",0,0.001\n',
    ],
)
def test_tables_of_countries_with_a_decimal_comma(tmp_path, text):
    (tmp_path / "scores.csv").write_text(text, encoding="utf-8", newline="")
    for source in (tmp_path / "scores.csv", io.BytesIO(text.encode())):
        scores = read_scores(source)
        assert scores.probabilities.tolist() == [0.5, 0.001]
        assert scores.labels.tolist() == [1, 0]
        assert scores.patient_ids == ("p;1", "p,1")


def test_a_table_whose_splits_share_patients_is_refused():
    rows = ["split,study_id,patient_id,label,probability"]
    rows += [f"{split},s{n},p{n},{n % 2},0.{n}" for split in ("valid", "test") for n in range(4)]
    with pytest.raises(ScoresError, match="but 4 are in several"):
        metrics.read_every_split(io.BytesIO("\n".join(rows).encode()))
    apart = [row.replace("test,s", "test,t").replace(",p", ",q") if row.startswith("test") else row for row in rows]
    assert set(metrics.read_every_split(io.BytesIO("\n".join(apart).encode()))["study"]) == {"valid", "test"}


def test_table_of_several_splits(tmp_path):
    table = tmp_path / "scores.csv"
    rows = ["split,study_id,patient_id,label,probability", "valid,a,p,1,0.9", "test,a,p,1,0.8", "test,b,q,0,0.1"]
    table.write_text("\n".join(rows))
    scores = read_scores(table, split="test")
    assert scores.probabilities.tolist() == [0.8, 0.1]
    with pytest.raises(ScoresError, match="holds 2 splits"):
        read_scores(table)
    with pytest.raises(ScoresError, match="no studies of the split"):
        read_scores(table, split="train")
    table.write_text("\n".join(rows[:2]))
    assert read_scores(table).split == "valid"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "it has no study_id"),
        ("study_id,patient_id,label\na,b,1\n", "it has no probability"),
        ("study_id|patient_id|label|probability\na|b|1|0.5\n", "it has no study_id"),
        ("study_id;patient_id;label\na;b;1\n", "it has no study_id"),
        ("study_id,patient_id,label,probability\n", "there is none"),
        ("study_id,patient_id,label,probability\na,b,1,high\n", "Every probability must be a number"),
        ("study_id,patient_id,label,probability\na,b,yes,0.5\n", "Every label must be a number"),
        ("study_id,patient_id,label,probability\na,b,0.5,0.5\n", "Labels must be 0 or 1"),
        ("study_id,patient_id,label,probability\na,b,257,0.5\n", "Labels must be 0 or 1"),
        ("study_id,patient_id,label,probability\na,b,1\n", "Every probability must be a number"),
        ("study_id,patient_id,label,probability\na,b,1,nan\n", "from 0 to 1"),
        ("study_id,patient_id,label,probability\na,b,1,0.5\na,b,1,0.6\n", "repeat a study"),
        ("study_id,patient_id,label,probability\na,b,1,0,73\nc,d,0,0,1\n", "but 2 have more"),
        ("study_id,patient_id,label,probability,view\na,b,1,0,73,PA\n", "semicolons must part the columns"),
    ],
)
def test_tables_that_are_not_scores(tmp_path, text, sentence):
    (tmp_path / "scores.csv").write_text(text)
    with pytest.raises(ScoresError, match=sentence):
        read_scores(tmp_path / "scores.csv")


def test_files_that_are_no_table(tmp_path):
    (tmp_path / "film.png").write_bytes(bytes(range(256)) * 20)
    for path in (tmp_path / "film.png", tmp_path / "missing.csv", tmp_path):
        with pytest.raises(ScoresError, match="table of scores") as raised:
            read_scores(path)
        assert str(tmp_path) not in str(raised.value)


def test_empty_rows_of_a_spreadsheet_are_no_studies(tmp_path):
    table = tmp_path / "scores.csv"
    table.write_text("study_id,patient_id,label,probability,view\na,p,1,0.9,PA\n,,,,\n\nb,q,0,0.2,PA\n , ,,\n,,,,\n")
    scores = read_scores(table)
    assert scores.study_ids == ("a", "b")
    table.write_text("study_id,patient_id,label,probability,split\na,p,1,0.9,test\n,,,,\n")
    assert (metrics.read_splits(table), read_scores(table).split) == (("test",), "test")
    assert list(metrics.read_every_split(table)["study"]) == ["test"]
    table.write_text("study_id,patient_id,label,probability,view\na,p,1,0.9,PA\n,,,,PA\n")
    with pytest.raises(ScoresError, match="Every label must be a number"):
        read_scores(table)


FILMS = """split,film_id,study_id,patient_id,label,probability,view,sex
test,1,a,p,1,0.9,PA,F
test,1,b,q,0,0.2,PA,
test,2,a,p,1,0.4,LATERAL,F
valid,1,c,r,0,0.1,PA,M
test,3,a,p,1,0.2,PA,F
"""


def test_films_of_a_study_are_taken_together_as_their_mean(tmp_path):
    table = tmp_path / "films.csv"
    table.write_text(FILMS)
    scores = read_scores(table, "id", "test")
    assert (scores.checkpoint_id, scores.split) == ("id", "test")
    assert (scores.study_ids, scores.patient_ids, scores.labels.tolist()) == (("a", "b"), ("p", "q"), [1, 0])
    assert scores.probabilities.tolist() == [np.mean([0.9, 0.4, 0.2]), 0.2]
    assert scores.columns == {"view": ("LATERAL and PA", "PA"), "sex": ("F", "")}


def test_films_stand_for_themselves_where_a_study_has_several(tmp_path):
    table = tmp_path / "films.csv"
    table.write_text(FILMS)
    found = metrics.read_every_split(table, "id")
    assert {unit: list(splits) for unit, splits in found.items()} == {
        "study": ["test", "valid"], "film": ["test", "valid"],
    }  # fmt: skip
    films = found["film"]["test"]
    assert (films.unit, found["study"]["test"].unit) == ("film", "study")
    assert films.study_ids == ("a / 1", "b / 1", "a / 2", "a / 3")
    assert films.patient_ids == ("p", "q", "p", "p")
    assert films.probabilities.tolist() == [0.9, 0.2, 0.4, 0.2]
    assert films.columns["view"] == ("PA", "PA", "LATERAL", "PA")
    assert metrics.taken(films, np.array([0, 2])).unit == "film"
    table.write_text("\n".join(FILMS.splitlines()[:3]))
    assert list(metrics.read_every_split(table)) == ["study"], "one film each is no other level"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (("test,2,a,p,1", "test,2,a,p,0"), "films of a study need one label, but 1 of 2 studies"),
        (("test,2,a,p,1", "test,2,a,q,1"), "films of a study need one patient, but 1 of 2 studies"),
        (("test,2,a,p,1", "test,1,a,p,1"), "1 of 4 rows repeat a film"),
        (("0.4", "1.4"), "from 0 to 1, but 1 of 4"),
        (("film_id", "film"), "repeat a study"),
    ],
)
def test_films_that_cannot_be_taken_together(tmp_path, wrong, sentence):
    table = tmp_path / "films.csv"
    table.write_text(FILMS.replace(*wrong))
    with pytest.raises(ScoresError, match=sentence):
        read_scores(table, split="test")


def test_a_tables_digest_tells_every_other_table_apart():
    first = make_scores([1, 0], [0.2, 0.9])
    again = make_scores([1, 0], [0.2, 0.9])
    others = [
        make_scores([0, 0], [0.2, 0.9]),
        make_scores([1, 0], [0.2, 0.8]),
        make_scores([1, 0], [0.2, 0.9], ["p", "p"]),
    ]
    digests = [digest_of(each) for each in (first, *others)]
    assert digest_of(again) == digests[0]
    assert len(set(digests)) == 4
