"""Compare models: what each did on the same studies, how they differ, and how they learned."""

import streamlit as st

from core.checkpoints import CHECKPOINTS, list_checkpoints
from core.results import model_names
from core.train import jobs
from pages.parts import comparison
from pages.parts.curves import colours_of_all, show_legend
from pages.parts.frame import open_page
from pages.parts.scored import (
    choose_own_splits,
    choose_unit,
    measure_chosen,
    split_title,
    splits_of,
    take_uploads,
    upload_key,
)


def show() -> None:
    """Show the page. In a function: Streamlit keeps a page's globals until the next one runs, whoever asks for it."""
    entries = list_checkpoints(CHECKPOINTS)
    for entry in entries:
        if entry.reason:
            st.warning(f"Checkpoint {entry.id} is not used: {entry.reason}")
    cards = {entry.id: entry.checkpoint for entry in entries if entry.checkpoint}
    all_runs = jobs.list_runs(jobs.RUNS)
    runs = {run.id: run for run in all_runs if run.history and run.id not in cards}

    with st.container(horizontal=True, vertical_alignment="bottom"):
        models_place, split_place = st.container(), st.container(width=300)
        with st.container(width="content"):
            uploads = take_uploads()
    names = model_names(cards.values())
    names |= {run.id: f"{run.id} ({jobs.PHASES[run.phase].lower()})" for run in runs.values()}
    names |= {upload_key(name): name for name in uploads}
    if not names:
        st.error("There is no model to compare.")
        st.stop()

    first = [key for key, card in cards.items() if card.task == "fracture"]
    first += [key for key, run in runs.items() if run.running]
    chosen = models_place.multiselect("Models", list(names), default=first, format_func=names.get, key="models")
    if not chosen:
        st.info("Choose a model or more.")
        st.stop()
    colours = colours_of_all(entries, all_runs, map(upload_key, uploads))
    show_legend({key: names[key] for key in chosen}, colours)

    scored = [key for key in chosen if key not in runs]
    unit = choose_unit(scored)
    splits = splits_of(scored, unit)
    split = ""
    if splits:
        split = split_place.selectbox("Studies", splits, format_func=split_title, key="split")
        own = choose_own_splits(scored, names, split, unit)
    view = st.segmented_control(
        "Show", list(comparison.VIEWS), default=next(iter(comparison.VIEWS)), key="view", label_visibility="collapsed"
    )
    measured = tuple(measure_chosen(scored, names, cards, split, own, unit)) if splits else ()
    show_view, waiting = comparison.VIEWS[view or next(iter(comparison.VIEWS))]
    with st.spinner(waiting):
        show_view(comparison.Chosen(tuple(chosen), names, colours, cards, runs, measured))


open_page("Compare")
show()
st.html('<span id="page-ready"></span>')
