"""The page of one threshold: its control, and everything that moves with it."""

from __future__ import annotations

import math
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
from core.measured import (
    RULES,
    AtThreshold,
    MeasuredModel,
    benefit_rows,
    called_studies,
    choice_words,
    look_at,
    place_on_roc,
    rate_rows,
    roc_rows,
    suggest_threshold,
    sweep_rows,
    zone_rows,
)
from core.metrics import CELLS, METRIC_NAMES, full_sweep, net_benefit, roc_band, roc_curve, sweep_thresholds
from core.values import Checkpoint, Interval
from pages.parts.curves import show_figure
from pages.parts.frame import is_private
from pages.parts.gallery import show_studies
from pages.parts.scored import open_bench

MOST_LISTED = 200
_STEP = 0.001


def show(model: MeasuredModel, card: Checkpoint | None, colour: str) -> None:
    """Show a model at the threshold that the reader moves."""
    threshold, prevalence = _controls(model)
    seen = look_at(model, threshold, prevalence)
    _say(seen, card)
    with st.expander("Every rate at this threshold"):
        st.dataframe(pd.DataFrame(rate_rows(seen.evaluation)), hide_index=True, height="content", key="every-rate")
    if card:
        _offer_saving(model, card, seen)
    left, right = st.columns([3, 2])
    with left:
        shown = st.multiselect(
            "Rates", list(RATE_COLOURS), default=list(RATE_COLOURS)[:4], format_func=METRIC_NAMES.get, key="rates",
            label_visibility="collapsed",
        )  # fmt: skip
        show_figure(rates_figure(_kept(model, "sweep"), threshold, shown), "rates")
        show_figure(histogram_figure(model.scores, threshold), "histogram")
    with right:
        curve = Shown(model.name, colour, _kept(model, "roc"), _kept(model, "band"), place_on_roc(seen.evaluation))
        show_figure(roc_figure([curve], height=340), "roc")
        # A figure with other numbers is another one to Streamlit, which drops what was selected in it: it is kept here.
        cell = st.session_state.get("cell")
        show_figure(
            confusion_figure(seen.evaluation.confusion, chosen=cell),
            "cells",
            on_select=_keep_cell,
            selection_mode="points",
        )
        if cell:
            st.button("All that are called wrong", key="all-cells", on_click=st.session_state.pop, args=("cell",))
    _wrong(model, card, threshold, (cell,) if cell else ())
    left, right = st.columns(2)
    with left:
        st.markdown(f"#### Of 1,000 patients, {prevalence:.0%} of them with a fracture")
        if seen.thousand:
            show_figure(thousand_figure(seen.thousand), "thousand")
    with right:
        st.markdown("#### Is it worth it?")
        benefit = net_benefit(model.resamples, prevalence=prevalence)
        show_figure(benefit_figure([Shown(model.name, colour, benefit)], threshold), "benefit")
    zones = _kept(model, "zones", card) if card else []
    if zones:
        st.markdown("#### With both limits of the model")
        st.dataframe(pd.DataFrame(zones), hide_index=True, height="content", key="zones")
    with st.expander("The numbers behind the figures"):
        tables = {
            "Rates at every threshold": lambda: sweep_rows(full_sweep(model.resamples, _kept(model, "sweep"))),
            "ROC": lambda: roc_rows(model.scores),
            "Net benefit": lambda: benefit_rows(benefit),
        }
        which = st.segmented_control("Table", list(tables), key="numbers", label_visibility="collapsed")
        if which:
            st.dataframe(pd.DataFrame(tables[which]()), hide_index=True, key="numbers-table")
            st.caption("The table's own button saves it as CSV. Rates have limits where the figure draws them.")


def _controls(model: MeasuredModel) -> tuple[float, float]:
    """Show slider, exact entry and rules; return threshold and prevalence."""
    state, own = st.session_state, float(model.scores.labels.mean())
    if state.get("threshold-of") != (model.id, len(model.scores.labels)) or "threshold" not in state:
        state["threshold-of"] = (model.id, len(model.scores.labels))
        state["threshold"] = state["threshold-exact"] = model.threshold
        state["prevalence"] = _percent(own)
        state.pop("cell", None)
    slider, exact, rule, prevalence = st.columns([6, 2, 2, 3], vertical_alignment="bottom")
    slider.slider(
        "Threshold", 0.0, 1.0, step=_STEP, key="threshold", on_change=_copy, args=("threshold", "threshold-exact")
    )
    exact.number_input(
        "Exactly", 0.0, 1.0, step=_STEP, format="%.4f", key="threshold-exact",
        on_change=_copy, args=("threshold-exact", "threshold"),
    )  # fmt: skip
    with rule.popover("Choose by rule"):
        chosen = st.selectbox("Rule", list(RULES), format_func=RULES.get, key="rule")
        value = 0.95
        if chosen in ("sensitivity", "specificity"):
            value = st.number_input("Wanted", 0.01, 1.0, 0.95, 0.01, key="wanted")
        elif chosen == "cost":
            value = st.number_input("False alarms", 0.01, 1000.0, 10.0, key="cost")
        st.button("Choose", on_click=_choose, args=(model, chosen, value), key="apply-rule")
    prevalence.slider("Patients with a fracture (%)", 0.1, 99.9, step=0.1, key="prevalence")
    if state.get("rule-problem"):
        st.warning(state.pop("rule-problem"))
    # As long as nobody moved it, it is exactly that of the studies.
    share = own if state["prevalence"] == _percent(own) else state["prevalence"] / 100
    return float(state["threshold-exact"]), share


def _keep_cell() -> None:
    points = st.session_state["figure-cells"].selection.points
    if points:
        st.session_state["cell"] = CELLS[points[0]["point_index"]]
    else:
        st.session_state.pop("cell", None)


def _percent(share: float) -> float:
    return min(max(round(100 * share, 1), 0.1), 99.9)


def _copy(source: str, target: str) -> None:
    st.session_state[target] = st.session_state[source]


def _choose(model: MeasuredModel, rule: str, value: float) -> None:
    try:
        found = suggest_threshold(model.scores, rule, value, st.session_state["prevalence"] / 100)
    except ScoresError as error:
        st.session_state["rule-problem"] = str(error)
        return
    st.session_state["threshold"] = st.session_state["threshold-exact"] = found


def _say(seen: AtThreshold, card: Checkpoint | None) -> None:
    """Say first what the threshold does."""
    found, elsewhere = seen.evaluation, seen.elsewhere
    cells = {
        "Sensitivity": found.sensitivity,
        "Specificity": found.specificity,
        "PPV at that share": elsewhere.ppv,
        "NPV at that share": elsewhere.npv,
        "Reviews per find": elsewhere.needed_to_review,
        "Called": elsewhere.called,
    }
    for place, (name, interval) in zip(st.columns(len(cells)), cells.items(), strict=True):
        share = name != "Reviews per find"
        place.metric(name, _short(interval, share))
        place.caption(f"{_range(interval, share)}, n={interval.n:,}")
    if card and card.data.get("simulated"):
        st.caption("Measured on simulated films, not on patients: expect worse on real films.")


def _offer_saving(model: MeasuredModel, card: Checkpoint, seen: AtThreshold) -> None:
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
        chosen_on = choice_words(model, card, which)
        if model.scores.split == "test":
            st.caption("A threshold that was chosen by the test studies is better on them than on others.")
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
    return f"{interval.value:.1%}" if share else f"{interval.value:.1f}"


def _range(interval: Interval, share: bool) -> str:
    if math.isnan(interval.low):
        return "no interval"
    return f"{interval.low:.1%} to {interval.high:.1%}" if share else f"{interval.low:.1f} to {interval.high:.1f}"


def _wrong(model: MeasuredModel, card: Checkpoint | None, threshold: float, cells: tuple[str, ...]) -> None:
    """List the studies of the cells that were clicked, or else those that are called wrong, most wrong first."""
    count, studies = called_studies(model.scores, threshold, cells or ("fn", "fp"), MOST_LISTED)
    title = ", ".join(CELL_WORDS[cell].capitalize() for cell in cells) if cells else "Called wrong"
    st.markdown(f"#### {title} ({count:,})")
    show_studies(model, card, studies, count, "wrong-studies")


def _kept(model: MeasuredModel, what: str, card: Checkpoint | None = None) -> Any:
    """Return what does not move with the threshold; made once a session."""
    made = open_bench().made.setdefault(model, {})
    if what not in made:
        make = {
            "sweep": lambda: sweep_thresholds(model.resamples),
            "roc": lambda: roc_curve(model.scores),
            "band": lambda: roc_band(model.resamples),
            "zones": lambda: zone_rows(model.resamples, card),
        }
        made[what] = make[what]()
    return made[what]
