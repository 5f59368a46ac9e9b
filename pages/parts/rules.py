"""The control of the threshold: moved by hand, or chosen by a rule, on studies that the page says."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import streamlit as st

from core.errors import ScoresError
from core.measured import RULES, MeasuredModel, rule_words, studies_words, suggest_threshold
from core.values import Scores, with_article

_STEP = 0.001
TOO_GOOD = "A threshold chosen on the studies that it is then measured on looks better than it is."


@dataclass(frozen=True, eq=False)
class Control:
    """Where the control stands.

    Attributes
    ----------
    threshold, prevalence : float
    how : str
        In words, by which rule the threshold was chosen; empty where it was moved by hand or is the model's own.
    chosen_on : Scores
        The studies that somebody who keeps this threshold has chosen it on.
    """

    threshold: float
    prevalence: float
    how: str
    chosen_on: Scores


def show_controls(model: MeasuredModel, valid: Scores | None, simulated: bool = False) -> Control:
    """Show slider, exact entry and rules; return where they stand.

    Parameters
    ----------
    model : MeasuredModel
    valid : Scores or None
        The model's scores of its validation studies, where it has any: what rules choose on unless told otherwise.
    simulated : bool
        Whether all of the studies are.
    """
    state, own = st.session_state, float(model.scores.labels.mean())
    shown = (model.id, model.identity)
    if state.get("threshold-of") != shown or "threshold" not in state:
        state["threshold-of"] = shown
        state["threshold"] = state["threshold-exact"] = model.threshold
        state["prevalence"] = _percent(own)
        for gone in ("cell", "threshold-rule", "rule-on"):
            state.pop(gone, None)
    slider, exact, rule, prevalence = st.columns([6, 2, 2, 3], vertical_alignment="bottom")
    slider.slider(
        "Threshold", 0.0, 1.0, step=_STEP, format="%.3f", key="threshold",
        on_change=_copy, args=("threshold", "threshold-exact"),
    )  # fmt: skip
    exact.number_input(
        "Exactly", 0.0, 1.0, step=_STEP, format="%.4f", key="threshold-exact",
        on_change=_copy, args=("threshold-exact", "threshold"),
    )  # fmt: skip
    with rule.popover("Choose by rule"):
        _show_rules(model, valid if valid is not model.scores else None, simulated)
    prevalence.slider(
        f"Patients with {with_article(model.finding)} (%)", 0.1, 99.9, step=0.1, format="%.1f", key="prevalence"
    )
    if state.get("rule-problem"):
        st.warning(state.pop("rule-problem"))
    how, chosen_on = _tell(model, valid, simulated)
    # As long as nobody moved it, it is exactly that of the studies.
    share = own if state["prevalence"] == _percent(own) else state["prevalence"] / 100
    return Control(float(state["threshold-exact"]), share, how, chosen_on)


def _show_rules(model: MeasuredModel, valid: Scores | None, simulated: bool) -> None:
    """Offer the rules; `valid`: other studies than those that are shown, to choose on."""
    rule = st.selectbox("Rule", list(RULES), format_func=RULES.get, key="rule")
    value = 0.95
    if rule in ("sensitivity", "specificity"):
        value = st.number_input("Wanted", 0.01, 1.0, 0.95, 0.01, key="wanted")
    elif rule == "cost":
        value = st.number_input(
            f"False alarms that cost as much as one missed {model.finding}", 0.01, 1000.0, 10.0, key="cost"
        )
    source = model.scores
    if valid:
        places = {"valid": valid, "shown": model.scores}
        words = {"valid": "the {}", "shown": "these {}"}
        words = {place: words[place].format(studies_words(scores, simulated)) for place, scores in places.items()}
        on = st.radio("Choose on", list(places), key="rule-on", format_func=words.get)
        source = places[on]
    elif model.scores.split != "valid":
        st.caption("There are no scores of validation studies to choose on.")
    if source is model.scores:
        st.caption(TOO_GOOD)
    # What a widget is given outlives the session's bench, and scores name patients.
    given = weakref.ref(source), source is not model.scores, rule, value, model.finding
    st.button("Choose", on_click=_choose, args=given, key="apply-rule")


def _tell(model: MeasuredModel, valid: Scores | None, simulated: bool) -> tuple[str, Scores]:
    """Say by which rule and on which studies the threshold was chosen; return both."""
    chosen = st.session_state.get("threshold-rule")
    if not chosen:
        return "", model.scores
    how, elsewhere = chosen
    if elsewhere and valid:
        st.caption(
            f"Chosen for {how} on the {studies_words(valid, simulated)}; measured here on "
            f"{studies_words(model.scores, simulated)}."
        )
        return f"for {how}", valid
    st.caption(f"Chosen for {how} on these {studies_words(model.scores, simulated)}. {TOO_GOOD}")
    return f"for {how}", model.scores


def _percent(share: float) -> float:
    return min(max(round(100 * share, 1), 0.1), 99.9)


def _copy(source: str, target: str) -> None:
    st.session_state[target] = st.session_state[source]
    st.session_state.pop("threshold-rule", None)


def _choose(source: weakref.ref[Scores], elsewhere: bool, rule: str, value: float, finding: str) -> None:
    state, scores = st.session_state, source()
    if scores is None:
        return
    try:
        found = suggest_threshold(scores, rule, value, state["prevalence"] / 100)
    except ScoresError as error:
        state["rule-problem"] = str(error)
        return
    state["threshold"] = state["threshold-exact"] = found
    # Words alone: what is kept here outlives the page, and scores name patients.
    state["threshold-rule"] = (rule_words(rule, value, state["prevalence"] / 100, finding), elsewhere)
