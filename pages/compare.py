"""Compare models: how they learned, and what was measured of them."""

import pandas as pd
import streamlit as st

from core.checkpoints import CHECKPOINTS, list_checkpoints, read_history
from core.errors import ScaphoidError
from core.figures import LearningCurve
from core.results import comparison_rows, model_names
from core.train import jobs
from pages.parts.curves import colours_of_all, show_curves, show_legend
from pages.parts.frame import open_page

open_page("Compare models")
entries = list_checkpoints(CHECKPOINTS)
for entry in entries:
    if entry.reason:
        st.warning(f"Checkpoint {entry.id} is not used: {entry.reason}")
cards = {entry.id: entry.checkpoint for entry in entries if entry.checkpoint}
all_runs = jobs.list_runs(jobs.RUNS)
runs = {run.id: run for run in all_runs if run.history and run.id not in cards}
names = model_names(cards.values())
names |= {run.id: f"{run.id} ({jobs.PHASES[run.phase].lower()})" for run in runs.values()}
if not names:
    st.error("There is no model to compare.")
    st.stop()

first = [key for key, card in cards.items() if card.task == "fracture"]
first += [key for key, run in runs.items() if run.running]
chosen = st.multiselect("Models", list(names), default=first, format_func=names.get, key="models")
if not chosen:
    st.info("Choose a model or more.")
    st.stop()

colours = colours_of_all(entries, all_runs)
show_legend({key: names[key] for key in chosen}, colours)

curves = []
for key in chosen:
    try:
        history = runs[key].history if key in runs else read_history(CHECKPOINTS / key)
        curves.append(LearningCurve(names[key], history, colours[key]))
    except ScaphoidError as error:
        st.warning(f"{names[key]}: {error}")
st.markdown("#### How they learned")
show_curves(curves, "curves")
st.caption(
    "Dotted: the loss on the films a model learns from, which holds all it is asked for and differs between recipes. "
    "Solid: on films held out from learning, of other patients wherever it is known which films are of one patient."
)

chosen_cards = [cards[key] for key in chosen if key in cards]
rows = comparison_rows(chosen_cards)
if rows:
    st.markdown("#### What was measured")
    if any(card.data.get("simulated") for card in chosen_cards):
        st.info(
            "Rows that say simulated were measured on simulated films, not on patients: on real films every model does "
            "worse."
        )
    st.dataframe(pd.DataFrame(rows).fillna(""), hide_index=True, height="content", key="results")
    st.caption(
        "Each figure with its 95% interval and the number of cases. Models compare only where they were tested on the "
        "same studies, and where intervals overlap widely no difference was shown."
    )
    with st.expander("What each was trained and tested on"):
        for card in chosen_cards:
            told = " ".join(str(card.data.get(key) or "") for key in ("trained_on", "tested_on")).strip()
            st.markdown(f"**{names[card.id]}.** {told or 'Not recorded.'}")
st.html('<span id="page-ready"></span>')
