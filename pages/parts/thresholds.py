"""The page of one threshold: its control, and everything that moves with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd
import streamlit as st

from core.checkpoints import CHECKPOINTS
from core.checkpoints.profiles import (
    LIMITS,
    LONGEST_NAME,
    make_profile,
    move_limits,
    profiles_of,
    remove_profile,
    save_profile,
)
from core.errors import ScaphoidError, ScoresError
from core.figures import (
    CELL_WORDS,
    RATE_COLOURS,
    Shown,
    benefit_figure,
    confusion_figure,
    histogram_figure,
    rates_figure,
    roc_figure,
    thousand_figure,
)
from core.figures.moving import move_line, move_point
from core.measured import (
    AtThreshold,
    MeasuredModel,
    benefit_rows,
    called_studies,
    choice_words,
    estimate_rows,
    look_at,
    measured_words,
    place_on_roc,
    point_rows,
    roc_rows,
    studies_words,
    sweep_rows,
    thousand_words,
)
from core.metrics import (
    CELLS,
    METRIC_NAMES,
    full_sweep,
    net_benefit,
    operating_points,
    roc_band,
    roc_curve,
    sweep_thresholds,
)
from core.values import Checkpoint, Interval, OperatingPoint, Scores, with_article
from pages.parts.curves import show_figure
from pages.parts.frame import is_private
from pages.parts.gallery import show_studies
from pages.parts.rules import TOO_GOOD, Control, show_controls
from pages.parts.scored import open_bench

MOST_LISTED = 200
_REVIEWS = "Reviews per one found"


def show(model: MeasuredModel, card: Checkpoint | None, colour: str, valid: Scores | None = None) -> None:
    """Show a model at the threshold that the reader moves.

    Parameters
    ----------
    model : MeasuredModel
    card : Checkpoint or None
        None for a table of scores from elsewhere.
    colour : str
    valid : Scores or None
        The model's scores of its validation studies: what a rule chooses a threshold on, and limits from elsewhere.
    """
    control = show_controls(model, valid, bool(card and card.data.get("simulated")))
    threshold, prevalence = control.threshold, control.prevalence
    seen = look_at(model, threshold, prevalence)
    simulated = [model.id] if card and card.data.get("simulated") else []
    of = measured_words([model], simulated, threshold=threshold)
    _say(seen, card)
    with st.expander("Every estimate at this threshold"):
        rows = estimate_rows(seen.evaluation)
        st.dataframe(pd.DataFrame(rows), hide_index=True, height="content", key="every-estimate")
        st.caption("AUC, average precision, Brier score, log loss and calibration error are the same at any threshold.")
    if card:
        _offer_saving(card, seen, control)
    left, right = st.columns([3, 2])
    with left:
        _show_rates(model, threshold, of)
    with right:
        cell = _show_cells(model, seen, colour, of)
    _wrong(model, card, threshold, (cell,) if cell else ())
    left, right = st.columns(2)
    with left:
        st.markdown(f"#### Of 1,000 patients, {100 * prevalence:.3g}% of them with {with_article(model.finding)}")
        if seen.thousand:
            elsewhere = measured_words([model], simulated, threshold=threshold, prevalence=prevalence)
            show_figure(thousand_figure(seen.thousand), "thousand", of=elsewhere)
        st.caption(thousand_words(seen.evaluation, prevalence))
    with right:
        st.markdown("#### Net benefit")
        benefit = _kept(model, "benefit", lambda: net_benefit(model.resamples, prevalence=prevalence), prevalence)
        drawn = Shown(model.name, colour, benefit)
        figure = _kept(model, "benefit figure", lambda: benefit_figure([drawn], threshold), prevalence, colour)
        show_figure(
            move_line(figure, threshold), "benefit", of=measured_words([model], simulated, prevalence=prevalence)
        )
    _show_zones(model, card, valid)
    with st.expander("The numbers behind the figures"):
        tables = {
            "Rates at every threshold": lambda: sweep_rows(full_sweep(model.resamples, _sweep(model))),
            "ROC": lambda: roc_rows(model.scores),
            "Net benefit": lambda: benefit_rows(benefit),
        }
        which = st.segmented_control("Table", list(tables), key="numbers", label_visibility="collapsed")
        if which:
            st.dataframe(pd.DataFrame(tables[which]()), hide_index=True, key="numbers-table")
            st.caption("The table's own button saves it as CSV. Rates have limits where the figure draws them.")


def _show_rates(model: MeasuredModel, threshold: float, of: str) -> None:
    """Show the rates at every threshold, and how often each probability was given."""
    shown = st.multiselect(
        "Rates", list(RATE_COLOURS), default=list(RATE_COLOURS)[:4], format_func=METRIC_NAMES.get, key="rates",
        label_visibility="collapsed",
    )  # fmt: skip
    rates = _kept(model, "rates figure", lambda: rates_figure(_sweep(model), threshold, shown), tuple(shown))
    show_figure(move_line(rates, threshold), "rates", of=of)
    bars = _kept(model, "histogram figure", lambda: histogram_figure(model.scores, threshold, finding=model.finding))
    show_figure(move_line(bars, threshold), "histogram", of=of)


def _show_cells(model: MeasuredModel, seen: AtThreshold, colour: str, of: str) -> str | None:
    """Show the curve and the confusion matrix; return the cell of it that was chosen."""

    def draw() -> Any:
        curve = Shown(model.name, colour, roc_curve(model.scores), roc_band(model.resamples), point)
        return roc_figure([curve], height=340)

    point = place_on_roc(seen.evaluation)
    show_figure(move_point(_kept(model, "roc figure", draw, colour), point), "roc", of=of)
    # A figure with other numbers is another one to Streamlit, which drops what was selected in it: it is kept here.
    cell = st.session_state.get("cell")
    show_figure(
        confusion_figure(seen.evaluation.confusion, chosen=cell, finding=model.finding),
        "cells",
        of=of,
        on_select=_keep_cell,
        selection_mode="points",
    )
    if cell:
        st.button("All that are called wrong", key="all-cells", on_click=st.session_state.pop, args=("cell",))
    return cell


def _show_zones(model: MeasuredModel, card: Checkpoint | None, valid: Scores | None) -> None:
    """Show what becomes of the studies where there is doubt between two limits, or say why there are none."""
    st.markdown("#### With both limits of the model")
    try:
        points = _kept(model, "points", lambda: _two_points(card, valid), card)
    except ScoresError as error:
        st.caption(f"None seen, uncertain or suspected: none of these can be told here. {error}")
        return
    label = card.finding if card else "a positive label"
    rows = _kept(model, "zones", lambda: point_rows(model.resamples, points, label), card)
    st.dataframe(pd.DataFrame(rows), hide_index=True, height="content", key="zones")
    low, high = points
    told = f"None seen below {min(low.threshold, high.threshold):.4f}, suspected from {high.threshold:.4f} on"
    if card:
        st.caption(f"{told}.")
        return
    st.caption(
        f"{told}: chosen on the table's own {studies_words(valid)}, as the largest limit with a sensitivity of 95% or "
        "more and the smallest with a specificity of 95% or more." + (f" {TOO_GOOD}" if valid is model.scores else "")
    )


def _two_points(card: Checkpoint | None, valid: Scores | None) -> tuple[OperatingPoint, OperatingPoint]:
    """Return the two limits: a model's own, and those of a table from elsewhere as its validation studies give them.

    Raises
    ------
    ScoresError
        There are none, and why.
    """
    if card:
        points = {point.name: point for point in card.operating_points}
        if not {"high_sensitivity", "high_specificity"} <= set(points):
            raise ScoresError("The model's card has no two limits.")
        return points["high_sensitivity"], points["high_specificity"]
    if valid is None:
        raise ScoresError(
            "Two limits are chosen on validation studies, and this table has none (rows that say valid in a column "
            "named split)."
        )
    return operating_points(valid)


def _keep_cell() -> None:
    points = st.session_state["figure-cells"].selection.points
    if points:
        st.session_state["cell"] = CELLS[points[0]["point_index"]]
    else:
        st.session_state.pop("cell", None)


def _say(seen: AtThreshold, card: Checkpoint | None) -> None:
    """Say first what the threshold does."""
    found, elsewhere = seen.evaluation, seen.elsewhere
    cells = {
        "Sensitivity": found.sensitivity,
        "Specificity": found.specificity,
        "PPV at this prevalence": elsewhere.ppv,
        "NPV at this prevalence": elsewhere.npv,
        _REVIEWS: elsewhere.needed_to_review,
        "Called at this prevalence": elsewhere.called,
    }
    for place, (name, interval) in zip(st.columns([3, 3, 4, 4, 5, 5]), cells.items(), strict=True):
        share = name != _REVIEWS
        place.metric(name, _short(interval, share))
        place.caption(f"{_range(interval, share)}, n={interval.n:,}")
    if card and card.data.get("simulated"):
        st.caption("Measured on simulated films, not on patients: expect worse on real films.")


def _offer_saving(card: Checkpoint, seen: AtThreshold, control: Control) -> None:
    """Let the user keep the threshold under a name, for the reading room to use."""
    if saved := st.session_state.pop("limits-saved", None):
        st.success(saved)
    if problem := st.session_state.pop("limits-problem", None):
        st.error(problem)
    with st.popover("Save for the reading room"):
        if not is_private():
            st.info("Limits are saved only where this page is served to its own computer alone.")
            return
        try:
            profiles = profiles_of(card, CHECKPOINTS)
        except ScaphoidError as error:
            st.error(str(error))
            return
        found, name = seen.evaluation, st.text_input("Name", key="limits-name", max_chars=LONGEST_NAME).strip()
        words = f"From {found.threshold:.4f} on"
        which = st.radio(words, list(LIMITS), format_func=LIMITS.get, key="limits-which")
        so_far = profiles[name].operating_points if name in profiles else card.operating_points
        low, high = move_limits(so_far, which, found.threshold, found.sensitivity, found.specificity)
        st.markdown(
            f"None seen below **{low.threshold:.4f}**, suspected from **{high.threshold:.4f}** on, "
            "uncertain between the two."
        )
        before = profiles[name].chosen_on if name in profiles else ""
        chosen_on = choice_words(control.chosen_on, card, which, control.how or "by hand", before)
        if control.chosen_on.split == "test":
            st.caption(TOO_GOOD)
        sure = st.checkbox("Offer these limits in the reading room of this computer", key="limits-sure")
        st.button(
            "Replace" if name in profiles else "Save", disabled=not (sure and name), key="limits-save",
            on_click=_save, args=(name, card, (low, high), chosen_on),
        )  # fmt: skip
        for other in profiles:
            st.button(f"Remove {other}", on_click=_remove, args=(other, card), key=f"remove-{other}")


def _save(name: str, card: Checkpoint, points: tuple, chosen_on: str) -> None:
    state = st.session_state
    try:
        save_profile(make_profile(name, card, points, chosen_on), CHECKPOINTS)
    except ScaphoidError as error:
        state["limits-problem"] = str(error)
        return
    state["limits-saved"] = f"Saved. The reading room offers the limits {name} for {card.title}."
    state["limits-sure"] = False


def _remove(name: str, card: Checkpoint) -> None:
    try:
        remove_profile(name, card.id, CHECKPOINTS)
    except ScaphoidError as error:
        st.session_state["limits-problem"] = str(error)


def _short(interval: Interval, share: bool) -> str:
    if math.isnan(interval.value):
        return "-"
    return f"{interval.value:.1%}" if share else f"{interval.value:.2f}"


def _range(interval: Interval, share: bool) -> str:
    if math.isnan(interval.low):
        return "no interval"
    if math.isinf(interval.high):
        return f"{interval.low:.2f} or more"
    return f"{interval.low:.1%} to {interval.high:.1%}" if share else f"{interval.low:.2f} to {interval.high:.2f}"


def _wrong(model: MeasuredModel, card: Checkpoint | None, threshold: float, cells: tuple[str, ...]) -> None:
    """List the studies of the cells that were clicked, or else those that are called wrong, most wrong first."""
    count, studies = called_studies(model.scores, threshold, cells or ("fn", "fp"), MOST_LISTED)
    title = ", ".join(CELL_WORDS[cell].capitalize() for cell in cells) if cells else "Called wrong"
    st.markdown(f"#### {title} ({count:,})")
    show_studies(model, card, studies, count, "wrong-studies")


def _sweep(model: MeasuredModel) -> Any:
    return _kept(model, "sweep", lambda: sweep_thresholds(model.resamples))


def _kept(model: MeasuredModel, what: str, make: Callable[[], Any], *of: Any) -> Any:
    """Return what does not move with the threshold: made once a session, and again where what it is `of` changed."""
    made = open_bench().made.setdefault(model, {})
    if what not in made or made[what][0] != of:
        made[what] = (of, make())
    return made[what][1]
