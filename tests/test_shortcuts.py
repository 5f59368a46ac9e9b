"""Trivial baselines of a dataset without a model: what they reach, beside whom they stand, and what is said of it."""

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from core.datasets.composition import Counts, FilmSizes
from core.datasets.overlap import CopiedFilms, Overlap, SharedBySplits
from core.evaluate.shortcuts import (
    ALIKE,
    BRIGHTNESS,
    FEWEST_MATCHED,
    FEWEST_PATIENTS,
    FILE,
    FILMS,
    FROM_FILES,
    FROM_PIXELS,
    SHORTCUTS,
    SIZE,
    THUMBNAIL,
    FilmLook,
    Shortcut,
    best_of,
    judge,
    lead_over,
    look_at_film,
    matching_scores,
    measure_from_files,
    measure_from_pixels,
)
from core.values import Interval, Radiograph, Scores, Study

RESAMPLES = 100
SKETCH = np.zeros(1024, np.float32)


def studies_of(labels, films=1, per_patient=2):
    return [
        Study(f"s{n}", f"p{n // per_patient}", paths=tuple(f"s{n}/{f}" for f in range(films)), label=int(label))
        for n, label in enumerate(labels)
    ]


def sizes_of(studies, widths, heights=None, file_bytes=None):
    paths = tuple(path for study in studies for path in study.paths)
    full = np.full(len(paths), 500)
    return FilmSizes(
        paths,
        np.array(full if heights is None else heights),
        np.array(widths),
        np.array(full * 100 if file_bytes is None else file_bytes),
    )


def by_name(shortcuts):
    return {each.name: each for each in shortcuts}


LABELS = np.random.default_rng(0).permutation([0] * 60 + [1] * 60)


def test_a_size_that_goes_with_the_label_solves_a_dataset_even_from_both_sides():
    studies = studies_of(LABELS)
    # Positive films are the middle-sized ones: no single threshold on the width tells them.
    rng = np.random.default_rng(1)
    widths = np.where(LABELS, rng.integers(480, 520, 120), rng.choice([200, 1200], 120))
    found = by_name(measure_from_files(studies, sizes_of(studies, widths), resamples=RESAMPLES))
    assert found[SIZE].auc.value > 0.99
    assert found[SIZE].auc.low > 0.9
    assert found[SIZE].auc.n == 120
    assert math.isnan(found[FILMS].auc.value)
    assert found[FILMS].reason == "the same in every study"


def test_sizes_that_do_not_go_with_the_label_solve_nothing():
    studies = studies_of(LABELS)
    rng = np.random.default_rng(2)
    sizes = sizes_of(studies, rng.integers(200, 1200, 120), rng.integers(200, 1200, 120))
    found = by_name(measure_from_files(studies, sizes, resamples=RESAMPLES))
    assert found[SIZE].auc.low < 0.5 < found[SIZE].auc.high + 0.1
    assert found[SIZE].auc.value < 0.65


def test_number_of_films_and_compression_are_told_apart():
    studies = [
        replace(study, paths=study.paths[: 1 + study.label]) for study in studies_of(LABELS, films=2, per_patient=1)
    ]
    count = sum(len(study.paths) for study in studies)
    found = by_name(measure_from_files(studies, sizes_of(studies, np.full(count, 400)), resamples=RESAMPLES))
    assert found[FILMS].auc.value == 1
    assert found[FILE].reason == "the same in every study"


def test_the_thumbnail_baseline_is_scikit_learns_cross_validation_by_patient():
    rng = np.random.default_rng(3)
    studies = studies_of(LABELS)
    pixels = rng.normal(size=(120, 448)).astype(np.float32)
    pixels[:, :6] += 0.5 * LABELS[:, None]
    looks = {study.paths[0]: FilmLook(0.5, row, SKETCH) for study, row in zip(studies, pixels, strict=True)}
    found = by_name(measure_from_pixels(studies, looks, seed=4, resamples=RESAMPLES))[THUMBNAIL]
    expected = cross_val_predict(
        make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)),
        pixels,
        LABELS,
        groups=[study.patient_id for study in studies],
        cv=StratifiedGroupKFold(5, shuffle=True, random_state=4),
        method="predict_proba",
    )[:, 1]
    np.testing.assert_allclose(found.answers.probabilities, expected, atol=1e-6)
    assert found.auc.value == pytest.approx(roc_auc_score(LABELS, expected))
    assert found.auc.low < found.auc.value < found.auc.high


def test_what_tells_patients_apart_does_not_tell_labels():
    # Each patient has a brightness of their own, and all of a patient's studies have one label.
    labels = np.repeat(np.random.default_rng(5).permutation([0] * 12 + [1] * 12), 10)
    studies = studies_of(labels, per_patient=10)
    own = np.eye(24, 448, dtype=np.float32)
    looks = {study.paths[0]: FilmLook(0.5, own[n // 10], SKETCH) for n, study in enumerate(studies)}
    found = by_name(measure_from_pixels(studies, looks, resamples=RESAMPLES))[THUMBNAIL]
    assert found.auc.value < 0.7, "learned by heart, it would be 1"


def test_a_film_is_seen_whole_and_small():
    pixels = np.zeros((280, 160), np.float32)
    pixels[:140] = 0.6
    look = look_at_film(Radiograph("", pixels, "PNG"))
    assert look.brightness == pytest.approx(0.3)
    np.testing.assert_allclose(look.thumbnail.reshape(28, 16)[[0, -1]], [[0.6] * 16, [0.0] * 16], atol=1e-6)
    wide = np.random.default_rng(0).random((64, 640), np.float32)
    expected = cv2.resize(wide, (16, 28), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(look_at_film(Radiograph("", wide, "PNG")).thumbnail, expected.ravel())


def test_brightness_is_the_mean_of_a_studys_films_and_unread_films_are_left_out():
    studies = studies_of(LABELS, films=2)
    blank = np.zeros(448, np.float32)
    looks = {}
    for study in studies:
        looks[study.paths[0]] = FilmLook(0.2 + 0.6 * study.label, blank, SKETCH)
        looks[study.paths[1]] = None
    looks[studies[0].paths[0]] = None
    found = by_name(measure_from_pixels(studies, looks, resamples=RESAMPLES))
    assert found[BRIGHTNESS].auc.value == 1
    assert found[BRIGHTNESS].auc.n == 119, "a study of which no film was read is left out"
    assert found[THUMBNAIL].reason == "the same in every study"


@pytest.mark.parametrize(
    ("labels", "per_patient", "reason"),
    [
        ([0, 1] * 5, 1, "fewer than 10 patients of a label"),
        ([1] * 40, 1, "fewer than 10 patients of a label"),
        ([0] * 20 + [1] * 20, 20, "fewer than 10 patients of a label"),
        ([], 1, "no film could be read"),
    ],
)
def test_what_cannot_be_measured_says_why(labels, per_patient, reason):
    studies = studies_of(labels, per_patient=per_patient)
    widths = np.arange(200, 200 + len(labels))
    found = by_name(measure_from_files(studies, sizes_of(studies, widths), resamples=RESAMPLES))
    assert found[SIZE].reason == reason
    assert math.isnan(found[SIZE].auc.value)
    assert best_of(tuple(found.values())) is None


# --- beside the models -----------------------------------------------------------------------------------------------


def scores_of(studies, probabilities, **changes):
    scores = Scores(
        "model", "test",
        tuple(study.id for study in studies),
        tuple(study.patient_id for study in studies),
        [study.label for study in studies],
        probabilities,
    )  # fmt: skip
    return replace(scores, **changes)


def test_scores_are_of_a_dataset_only_where_labels_and_patients_agree():
    studies = studies_of(LABELS)
    probabilities = np.linspace(0, 1, 40)
    scores = scores_of(studies[10:50], probabilities)
    matched = matching_scores(scores, studies)
    assert matched.study_ids == scores.study_ids
    some = matching_scores(scores, studies[:30])
    assert some.study_ids == tuple(f"s{n}" for n in range(10, 30))
    np.testing.assert_array_equal(some.probabilities, probabilities[:20])

    assert matching_scores(replace(scores, labels=1 - scores.labels), studies) is None
    assert matching_scores(replace(scores, patient_ids=("other", *scores.patient_ids[1:])), studies) is None
    assert matching_scores(scores, studies[: 10 + FEWEST_MATCHED - 1]) is None
    assert matching_scores(scores, []) is None
    positive = [study for study in studies if study.label]
    assert matching_scores(scores, positive) is None, "an AUC needs both classes"


def test_a_models_lead_is_paired_on_the_studies_that_both_read():
    studies = studies_of(LABELS)
    rng = np.random.default_rng(6)
    widths = rng.integers(300, 420, 120) + 60 * LABELS
    sizes = sizes_of(studies, widths, file_bytes=widths * 500)
    shortcuts = measure_from_files(studies[:100], sizes, resamples=RESAMPLES)
    probabilities = np.clip(0.5 * LABELS + rng.uniform(0, 0.6, 120), 0, 1)
    model = scores_of(studies[40:], probabilities[40:])
    lead = lead_over(model, shortcuts, RESAMPLES)
    best = best_of(shortcuts)
    assert (best.name, lead.over) == (SIZE, SHORTCUTS[SIZE])
    assert lead.auc.n == 80
    assert lead.auc.value == pytest.approx(roc_auc_score(LABELS[40:], probabilities[40:]))
    both = slice(40, 100)
    expected = roc_auc_score(LABELS[both], probabilities[both]) - roc_auc_score(
        LABELS[both], best.answers.probabilities[both]
    )
    assert lead.difference.n == 60
    assert lead.difference.value == pytest.approx(expected)
    assert lead_over(scores_of(studies[100:], probabilities[100:]), shortcuts, RESAMPLES).difference is None
    assert lead_over(model, (), RESAMPLES).over == ""


# --- the answer ------------------------------------------------------------------------------------------------------

COUNTS = Counts(100, 40, 250, 100, 90, 40)
APART = Overlap(("train", "valid"), ())
TORN = Overlap(("train", "valid"), (SharedBySplits("train", "valid", ("a", "b")),))
NO_COPIES = CopiedFilms(250, ())


def reached(**aucs):
    return [Shortcut(name, Interval(*auc, 100)) for name, auc in aucs.items()]


def all_of(auc):
    return reached(**dict.fromkeys((*FROM_FILES, *FROM_PIXELS), auc))


def test_an_interval_above_the_limit_is_a_warning_and_one_that_touches_it_is_not():
    solved = judge(COUNTS, APART, NO_COPIES, reached(size=(0.7, 0.61, 0.8), films=(0.95, 0.92, 0.97)))
    assert solved.level == "warning"
    assert "can be solved without looking for a fracture" in solved.headline
    assert "The number of films alone" in solved.sentences[0]
    assert "0.950 (0.920 to 0.970), n=100" in solved.sentences[0]
    assert "So does the size of the picture." in solved.sentences[0]
    assert "proves nothing" in solved.sentences[0]
    partly = judge(COUNTS, APART, NO_COPIES, reached(size=(0.7, 0.61, 0.8)))
    assert "only what it reaches beyond that counts" in partly.sentences[0]
    touching = judge(COUNTS, APART, NO_COPIES, all_of((0.65, 0.6, 0.7)))
    assert touching.level == "open"
    assert "more studies would tell" in touching.sentences[0]


def test_a_dataset_is_sound_only_when_everything_was_measured():
    quick = judge(COUNTS, APART, NO_COPIES, reached(size=(0.5, 0.45, 0.55)))
    assert quick.level == "open"
    assert "Not measured yet" in quick.sentences[0]
    assert SHORTCUTS[THUMBNAIL] in quick.sentences[0]
    assert judge(COUNTS, APART, NO_COPIES, all_of((0.52, 0.46, 0.58))).level == "sound"
    unlooked = judge(COUNTS, replace(APART, patients_known=False), None, all_of((0.5, 0.46, 0.58)))
    assert any("twice" in sentence for sentence in unlooked.sentences)
    assert any("whose it is" in sentence for sentence in unlooked.sentences)


def test_overlap_copies_and_one_class_are_warnings_whatever_the_baselines():
    fine = all_of((0.5, 0.45, 0.55))
    assert judge(COUNTS, TORN, NO_COPIES, fine).level == "warning"
    copied = CopiedFilms(250, (("a", "b"),), (("train", "valid", 1),))
    assert judge(COUNTS, APART, copied, fine).level == "warning"
    assert judge(COUNTS, APART, CopiedFilms(250, (("a", "b"),)), fine).level == "sound", "twice in one split"
    assert judge(COUNTS, APART, NO_COPIES, fine, alike=copied).level == "warning"
    assert judge(COUNTS, APART, NO_COPIES, fine, alike=CopiedFilms(250, (("a", "b"),))).level == "sound"
    one = judge(replace(COUNTS, positive_studies=100), APART, NO_COPIES, fine)
    assert (one.level, one.headline) == ("warning", "This dataset proves nothing: all of its studies are positive")
    few = judge(COUNTS, APART, NO_COPIES, reached(size=(math.nan, math.nan, math.nan)))
    assert (few.level, "too few patients" in few.headline) == ("open", True)


def test_a_baseline_that_failed_is_not_one_that_solves_nothing():
    measured = reached(**dict.fromkeys(FROM_FILES, (0.5, 0.45, 0.55)))
    nothing = Interval(math.nan, math.nan, math.nan, 100)
    failed = [Shortcut(name, nothing, reason="fewer than 10 patients of a label") for name in FROM_PIXELS]
    open_still = judge(COUNTS, APART, NO_COPIES, [*measured, *failed])
    assert open_still.level == "open"
    assert "Not measured (fewer than 10 patients of a label)" in open_still.sentences[0]
    alike = [Shortcut(name, nothing, reason=ALIKE) for name in FROM_PIXELS]
    assert judge(COUNTS, APART, NO_COPIES, [*measured, *alike]).level == "sound", "it tells nothing, and that is known"
    uniform = judge(COUNTS, APART, NO_COPIES, [Shortcut(name, nothing, reason=ALIKE) for name in FROM_FILES])
    assert (uniform.level, "too few" in uniform.headline) == ("open", False)


def test_few_patients_prove_nothing_however_many_their_studies():
    labels = np.repeat([0, 1], 45)
    studies = studies_of(labels, per_patient=5)
    widths = np.where(labels == 1, 400, 300)
    found = by_name(measure_from_files(studies, sizes_of(studies, widths), resamples=RESAMPLES))
    assert math.isnan(found[SIZE].auc.value)
    assert found[SIZE].reason == f"fewer than {FEWEST_PATIENTS} patients of a label"


def test_numbers_of_published_tables_are_of_the_dataset_too():
    studies = studies_of(LABELS)
    ranked = sorted(studies, key=lambda study: int(study.id[1:]))
    people = sorted({study.patient_id for study in studies}, key=lambda name: int(name[1:]))
    numbers = {study.id: f"s{place:04d}" for place, study in enumerate(ranked, 1)}
    patients = {name: f"p{place:04d}" for place, name in enumerate(people, 1)}
    own = scores_of(studies[10:50], np.linspace(0, 1, 40))
    published = replace(
        own,
        study_ids=tuple(numbers[name] for name in own.study_ids),
        patient_ids=tuple(patients[name] for name in own.patient_ids),
    )
    matched = matching_scores(published, studies)
    assert (matched.study_ids, matched.patient_ids) == (own.study_ids, own.patient_ids)


@pytest.mark.parametrize("shortcuts", [[], all_of((0.5, 0.45, 0.55)), all_of((0.9, 0.8, 0.95))])
def test_simulated_films_are_called_so_whatever_was_found(shortcuts):
    assert "simulated" in judge(COUNTS, APART, NO_COPIES, shortcuts, "simulated").sentences[-1]
    assert "not about real breaks" in judge(COUNTS, APART, NO_COPIES, shortcuts, "injected").sentences[-1]
    assert "simulated" not in " ".join(judge(COUNTS, APART, NO_COPIES, shortcuts).sentences)
