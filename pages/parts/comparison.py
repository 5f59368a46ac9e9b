"""The views of the page that compares models: one function a view, values in, figures and tables out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from core.checkpoints import CHECKPOINTS, read_history
from core.errors import ScaphoidError, ScoresError
from core.figures import (
    CELL_WORDS,
    LearningCurve,
    Shown,
    agreement_figure,
    confusion_figure,
    forest_figure,
    precision_recall_figure,
    reliability_figure,
    roc_figure,
)
from core.measured import (
    MeasuredModel,
    agreement_rows,
    calibration_rows,
    called_studies,
    common_finding,
    cross_check_rows,
    difference_rows,
    difference_words,
    differences,
    estimate_differences,
    left_out_columns,
    measured_words,
    metric_table,
    number_words,
    place_on_recall,
    place_on_roc,
    reliability_rows,
    roc_rows,
    shared_columns,
    subgroup_row,
    threshold_words,
    why_not_compared,
)
from core.metrics import (
    CELLS,
    METRIC_NAMES,
    agreement,
    align_scores,
    precision_recall_band,
    precision_recall_curve,
    reliability_curve,
    roc_band,
    roc_curve,
    subgroups,
)
from core.results import comparison_rows
from core.train.jobs import RunStatus
from core.values import Checkpoint
from pages.parts.curves import show_curves, show_figure, show_numbers
from pages.parts.frame import escape_markdown
from pages.parts.gallery import show_studies

MOST_LISTED = 200


@dataclass(frozen=True, eq=False)
class Chosen:
    """What the reader chose: ids, and what is known of each; `measured` holds those that have scores."""

    ids: tuple[str, ...]
    names: Mapping[str, str]
    colours: Mapping[str, str]
    cards: Mapping[str, Checkpoint]
    runs: Mapping[str, RunStatus]
    measured: tuple[MeasuredModel, ...]

    def shown(self, model: MeasuredModel, curve: Any, band: Any = None, point: Any = None) -> Shown:
        """Return what a figure draws of a model."""
        return Shown(model.name, self.colours[model.id], curve, band, point)

    def told(self, *models: MeasuredModel, **at: float) -> str:
        """Say of which models, all where none is given, and of which studies a figure is."""
        simulated = [model.id for model in self.measured if _on_simulated_films(self, model)]
        return measured_words(models or self.measured, simulated, **at)


def _points(tables: Mapping[str, Sequence[Mapping[str, Any]]], key: str) -> None:
    """Offer the numbers behind a figure, model by model."""
    show_numbers([{"model": name, **row} for name, table in tables.items() for row in table], key)


def _needs_scores(chosen: Chosen) -> bool:
    """Say so where nothing was measured, and where what was measured does not compare."""
    if not chosen.measured:
        st.info("None of the chosen models has scores of held-out studies yet.")
        return True
    simulated = [model.name for model in chosen.measured if _on_simulated_films(chosen, model)]
    notes = []
    if simulated:
        whose = "" if len(simulated) == len(chosen.measured) else f" ({', '.join(simulated)})"
        notes.append(f"Measured on simulated films, not on patients{whose}: expect worse on real films.")
    if notes:
        st.info("  \n".join(notes))
    apart = why_not_compared(chosen.measured)
    if apart:
        told = "**Not all of these models were measured on the same studies: their figures do not compare.**"
        st.warning("  \n".join([told, *apart]))
    return False


def _on_simulated_films(chosen: Chosen, model: MeasuredModel) -> bool:
    return model.id in chosen.cards and bool(chosen.cards[model.id].data.get("simulated"))


def show_curves_view(chosen: Chosen) -> None:
    """Show ROC and precision-recall curves."""
    if _needs_scores(chosen):
        return
    roc, recall = [], []
    for model in chosen.measured:
        found = model.evaluation()
        roc.append(
            chosen.shown(
                model,
                roc_curve(model.scores),
                roc_band(model.resamples),
                place_on_roc(found),
            )
        )
        recall.append(
            chosen.shown(
                model,
                precision_recall_curve(model.scores),
                precision_recall_band(model.resamples),
                place_on_recall(found),
            )
        )
    left, right = st.columns(2)
    with left:
        st.markdown("#### ROC")
        show_figure(roc_figure(roc), "roc", of=chosen.told())
    with right:
        st.markdown("#### Precision and recall")
        show_figure(precision_recall_figure(recall), "precision-recall", of=chosen.told())
    rows = metric_table(chosen.measured, {name: METRIC_NAMES[name] for name in ("auc", "average_precision")})
    st.dataframe(pd.DataFrame(rows), hide_index=True, key="areas")
    st.caption(
        "Bands hold 95% of the curves of resampled patients, point by point; where these are all 0 or all 1, they are "
        f"as wide as Wilson's interval. Marks: {threshold_words(chosen.measured)}."
    )
    _points({model.name: roc_rows(model.scores) for model in chosen.measured}, "curve-points")


def show_confusion_view(chosen: Chosen) -> None:
    """Show confusion matrices side by side; a cell opens the list of its studies."""
    if _needs_scores(chosen):
        return
    st.caption("Click a cell to see its studies.")
    # Side by side as many as have room for their cells on a small screen.
    columns = st.columns(len(chosen.measured) if len(chosen.measured) < 4 else 2)
    picked: list[tuple[MeasuredModel, str]] = []
    for place, model in enumerate(chosen.measured):
        with columns[place % len(columns)]:
            own = "its own threshold" if model.own_threshold else "no threshold of its own"
            st.markdown(f"**{escape_markdown(model.name)}**  \nfrom {model.threshold:.3f} on ({own})")
            event = show_figure(
                confusion_figure(model.counts, finding=model.finding),
                f"confusion-{model.id}",
                of=chosen.told(model, threshold=model.threshold),
                on_select="rerun",
                selection_mode="points",
            )
            picked += [(model, CELLS[point["point_index"]]) for point in event.selection.points]
    for model, cell in picked:
        count, studies = called_studies(model.scores, model.threshold, (cell,), MOST_LISTED)
        st.markdown(f"#### {escape_markdown(model.name)}: {CELL_WORDS[cell]} ({count:,})")
        show_studies(model, chosen.cards.get(model.id), studies, count, f"studies-{model.id}-{cell}")


def show_calibration_view(chosen: Chosen) -> None:
    """Show how often what was said to be likely came to be."""
    if _needs_scores(chosen):
        return
    curves = [chosen.shown(model, reliability_curve(model.resamples)) for model in chosen.measured]
    show_figure(reliability_figure(curves, finding=common_finding(chosen.measured)), "reliability", of=chosen.told())
    st.caption(
        "Larger marks hold more studies; below, how many each bin holds. A bin without any has no mark and breaks the "
        "line; shaded, it is empty for every model."
    )
    rows = calibration_rows(chosen.measured)
    st.dataframe(pd.DataFrame(rows), hide_index=True, height="content", key="calibration")
    st.caption(
        "Brier score = reliability − resolution + uncertainty + within. 95% intervals (bootstrap over patients). An "
        "error is never negative, so its interval does not reach 0; “by chance alone” is the error, and the range of "
        "95% of such errors, that a perfectly calibrated model with the same probabilities would show (studies are "
        "taken for independent)."
    )
    _points({model.name: reliability_rows(model.resamples) for model in chosen.measured}, "reliability-points")


def show_numbers_view(chosen: Chosen) -> None:
    """Show every metric with its interval, and the differences between models."""
    if _needs_scores(chosen):
        return
    st.dataframe(
        pd.DataFrame(metric_table(chosen.measured, METRIC_NAMES)), hide_index=True, height="content", key="metrics"
    )
    st.caption(
        "Each with its 95% interval (bootstrap over patients) and the number of studies it rests on; rates at "
        f"{threshold_words(chosen.measured)}."
    )
    if len(chosen.measured) > 1:
        _show_differences(chosen)
    with st.expander("The same intervals by other methods"):
        st.dataframe(pd.DataFrame(cross_check_rows(chosen.measured)), hide_index=True, height="content", key="checks")
        st.caption(
            "DeLong's and Wilson's intervals take studies for independent; ours are over patients. Where they differ "
            "much, patients have several studies, or there are few."
        )
    stored = comparison_rows([chosen.cards[key] for key in chosen.ids if key in chosen.cards])
    if stored:
        with st.expander("What the models' cards say was measured"):
            st.dataframe(pd.DataFrame(stored).fillna(""), hide_index=True, height="content", key="results")
    with st.expander("What each was trained and tested on"):
        for key in chosen.ids:
            if key in chosen.cards:
                data = chosen.cards[key].data
                told = " ".join(str(data.get(part) or "") for part in ("trained_on", "tested_on")).strip()
                st.markdown(f"**{chosen.names[key]}.** {told or 'Not recorded.'}")


def _show_differences(chosen: Chosen) -> None:
    """Show how every two models differ in the estimates that the reader chooses."""
    st.markdown("#### Differences")
    names = st.multiselect(
        "Differences in", list(METRIC_NAMES), default=["auc"], format_func=METRIC_NAMES.get, key="differences-in"
    )
    found = estimate_differences(chosen.measured, names)
    if not found:
        st.info("Choose an estimate." if not names else "No two of these models read the same studies.")
        return
    st.dataframe(pd.DataFrame(difference_rows(found)), hide_index=True, height="content", key="differences")
    st.caption(difference_words(found, chosen.measured[0].resamples.positives.size))
    with st.expander("Tests that take studies for independent"):
        rows = [
            {
                "first − second": f"{row.first} − {row.second}",
                "AUC": number_words(row.auc.difference.value),
                "p, DeLong": number_words(row.delong_p),
                "only the first right": row.only_first,
                "only the second right": row.only_second,
                "p, McNemar": number_words(row.mcnemar_p),
                "n": row.n,
            }
            for row in differences(chosen.measured)
        ]
        st.dataframe(pd.DataFrame(rows), hide_index=True, height="content", key="independent-tests")
        st.caption("The p-values of a column are corrected for their number (Holm).")


def show_subgroups_view(chosen: Chosen) -> None:
    """Show the same measurements in parts of the studies."""
    if _needs_scores(chosen):
        return
    columns, left_out = shared_columns(chosen.measured), left_out_columns(chosen.measured)
    for name, reason in left_out.items():
        st.caption(f"Not offered: {escape_markdown(name)}. {reason}")
    if not columns:
        st.info(
            "The tables of scores hold nothing but the scores: a column such as view, sex or age would divide them."
        )
        return
    left, right = st.columns(2, vertical_alignment="bottom")
    column = left.selectbox("Divide by", columns, key="subgroup")
    rates = ("auc", "sensitivity", "specificity")
    rate = right.segmented_control("Show", rates, default="auc", format_func=METRIC_NAMES.get, key="subgroup-rate")
    try:
        groups = {model.name: subgroups(model.scores, column, model.threshold) for model in chosen.measured}
    except ScoresError as error:
        st.info(str(error))
        return
    colours = {model.name: chosen.colours[model.id] for model in chosen.measured}
    show_figure(forest_figure(groups, colours, rate or "auc"), "forest", of=chosen.told())
    if rate != "auc":
        st.caption(f"At {threshold_words(chosen.measured)}.")
    for name, parts in groups.items():
        small = [f"{escape_markdown(part.value)} ({part.too_small})" for part in parts if part.too_small]
        if small:
            st.caption(f"{escape_markdown(name)}: {'; '.join(small)}")
    _points({name: [subgroup_row(part) for part in parts] for name, parts in groups.items()}, "subgroup-points")


def show_agreement_view(chosen: Chosen) -> None:
    """Show two models' answers to the same studies against each other."""
    if _needs_scores(chosen):
        return
    if len(chosen.measured) < 2:
        st.info("Choose two models or more.")
        return
    by_name = {model.name: model for model in chosen.measured}
    left, right = st.columns(2)
    one = by_name[left.selectbox("First", list(by_name), key="first-model")]
    other = by_name[right.selectbox("Second", [name for name in by_name if name != one.name], key="second-model")]
    try:
        first, second = align_scores(one.scores, other.scores)
    except ScoresError as error:
        st.warning(str(error))
        return
    thresholds = (one.threshold, other.threshold)
    kappa = agreement(first, second, thresholds)
    show_figure(
        agreement_figure(first, second, (one.name, other.name), thresholds, finding=common_finding([one, other])),
        "agreement",
        of=chosen.told(one, other),
    )
    st.markdown(
        f"Agreement of the calls: Cohen's kappa {number_words(kappa.value, kappa.low, kappa.high)}, n={kappa.n:,}."
    )
    st.caption("In the shaded corners one calls a study positive and the other does not.")
    names = (one.name, other.name)
    _points({"Furthest apart first": agreement_rows(first, second, names, thresholds)}, "agreement-points")


def show_training_view(chosen: Chosen) -> None:
    """Show how each model learned, epoch by epoch."""
    curves = []
    for key in chosen.ids:
        if key not in chosen.runs and key not in chosen.cards:
            continue
        try:
            history = chosen.runs[key].history if key in chosen.runs else read_history(CHECKPOINTS / key)
            curves.append(LearningCurve(chosen.names[key], history, chosen.colours[key]))
        except ScaphoidError as error:
            st.warning(f"{chosen.names[key]}: {error}")
    show_curves(curves, "curves")
    _points({curve.name: curve.history for curve in curves if curve.history}, "history-points")
    st.caption(
        "Dotted: the loss on the films a model learns from, which holds all it is asked for and differs between "
        "recipes. Solid: on films held out from learning, of other patients wherever it is known which films are of "
        "one patient."
    )


VIEWS: Mapping[str, tuple[Callable[[Chosen], None], str]] = {
    "Curves": (show_curves_view, "Drawing curves and their bands"),
    "Right and wrong": (show_confusion_view, "Counting what each model called"),
    "Numbers": (show_numbers_view, "Measuring every estimate and the differences"),
    "Calibration": (show_calibration_view, "Measuring how often what was said came to be"),
    "Subgroups": (show_subgroups_view, "Resampling the patients of every part"),
    "Agreement": (show_agreement_view, "Measuring how far two models agree"),
    "Training": (show_training_view, "Reading how each model learned"),
}
"""Name -> what shows it, and what is said where that takes longer than a moment."""
