"""Choose a threshold: one slider moves the curve's point, the confusion matrix, every rate and the list of errors."""

import streamlit as st

from core.checkpoints import CHECKPOINTS, default_id, list_checkpoints
from core.errors import ScaphoidError
from core.results import model_names
from core.train import jobs
from pages.parts import thresholds
from pages.parts.curves import colours_of_all
from pages.parts.frame import open_page
from pages.parts.scored import (
    choose_unit,
    load_scores,
    measure_chosen,
    split_title,
    splits_of,
    take_uploads,
    upload_key,
)


def show() -> None:
    """Show the page. In a function: Streamlit keeps a page's globals until the next one runs, whoever asks for it."""
    entries = list_checkpoints(CHECKPOINTS)
    cards = {
        entry.id: entry.checkpoint for entry in entries if entry.checkpoint and entry.checkpoint.task == "fracture"
    }
    with st.container(horizontal=True, vertical_alignment="bottom"):
        model_place, split_place = st.container(), st.container(width=300)
        with st.container(width="content"):
            uploads = take_uploads()
    names = model_names(cards.values()) | {upload_key(name): name for name in uploads}
    try:
        default = default_id(CHECKPOINTS)
    except ScaphoidError:
        default = None
    keys = sorted((key for key in names if splits_of([key])), key=lambda key: key != default)
    if not keys:
        st.info("No model has scores of held-out studies yet.")
        st.stop()
    key = model_place.selectbox("Model", keys, format_func=names.get, key="model")
    unit = choose_unit([key])
    split = split_place.selectbox("Studies", splits_of([key], unit), format_func=split_title)
    measured = measure_chosen([key], names, cards, split, unit=unit)
    if measured:
        colours = colours_of_all(entries, jobs.list_runs(jobs.RUNS), map(upload_key, uploads))
        with st.spinner("Measuring every threshold"):
            thresholds.show(measured[0], cards.get(key), colours[key], load_scores(key, unit).get("valid"))


open_page("Threshold")
show()
st.html('<span id="page-ready"></span>')
