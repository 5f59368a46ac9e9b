"""About this model: its card in plain words, and what was measured."""

import pandas as pd
import streamlit as st

from core.checkpoints import CHECKPOINTS, default_id, list_checkpoints
from core.checkpoints.notes import read_notes
from core.errors import ScaphoidError
from core.figures import scores_figure
from core.measured import estimate_rows, studies_words
from core.results import displacement_rows, held_out_scores, kind_rows, operating_point_rows, result_rows, weak_sentence
from core.values import with_article
from pages.parts.curves import show_figure
from pages.parts.frame import open_page
from pages.parts.scored import measure_chosen, splits_of

open_page("About")
entries = list_checkpoints(CHECKPOINTS)
usable = {entry.id: entry.checkpoint for entry in entries if entry.checkpoint}
for entry in entries:
    if entry.reason:
        st.warning(f"Checkpoint {entry.id} is not used: {entry.reason}")
if not usable:
    st.error("There is no checkpoint to tell about.")
    st.stop()

try:
    default = default_id(CHECKPOINTS)
except ScaphoidError as error:
    default = None
    st.warning(str(error))
ids = sorted(usable, key=lambda key: (key != default, usable[key].task != "fracture", key))
card = usable[st.selectbox("Model", ids, format_func=lambda key: usable[key].title, key="model")]

st.markdown(f"## {card.title}")
left, right = st.columns(2, gap="large")
with left:
    for heading, key in (("Trained on", "trained_on"), ("Tested on", "tested_on"), ("Not for", "not_for")):
        sentences = card.data.get(key) or ["Not recorded."]
        st.markdown(f"#### {heading}")
        st.markdown(" ".join([sentences] if isinstance(sentences, str) else sentences))
        if key == "trained_on" and card.data.get("came_from"):
            with st.expander("The models that it came from or was taught by, and what those were trained on"):
                for origin in card.data["came_from"]:
                    st.markdown(f"**{origin['id']}.** {origin['trained_on']}")
    weak = weak_sentence([card], numbers=True)
    if weak:
        st.warning(weak)
    rows = operating_point_rows(card)
    if rows:
        st.markdown("#### Where the words come from")
        st.table(pd.DataFrame(rows), border="horizontal", hide_index=True)
        if card.data.get("limits"):
            st.caption(card.data["limits"])
with right:
    measured = []
    if card.task == "fracture" and "test" in splits_of([card.id]):
        with st.spinner("Measuring every estimate"):
            measured = measure_chosen([card.id], {card.id: card.title}, {card.id: card}, "test")
    rows = result_rows(card, measured[0].resamples if measured else None)
    if rows:
        st.markdown("#### What was measured")
        st.table(pd.DataFrame(rows), border="horizontal", hide_index=True)
    for model in measured:
        with st.expander("Every estimate on these test studies"):
            st.dataframe(
                pd.DataFrame(estimate_rows(model.evaluation())), hide_index=True, height="content", key="estimates"
            )
            st.caption(
                "With 95% intervals (bootstrap over patients); n studies; rates at the threshold from which it "
                f"suspects {with_article(card.finding)} ({model.threshold:.4f})."
            )
    what = f"simulated {card.finding}" if card.data.get("simulated") else card.finding
    for words, rows in (
        (f"By kind of {what}", kind_rows(card)),
        (f"By how far the {what} is displaced", displacement_rows(card)),
    ):
        if rows:
            with st.expander(words):
                st.table(pd.DataFrame(rows), border="horizontal", hide_index=True)
                inside = "; on which share of the films with one the location head's highest point lies inside it"
                st.caption(
                    f"AUC of the studies with one against all studies without{inside * ('films' in rows[0])}. With 95% "
                    "intervals."
                )
    try:
        scores = held_out_scores(card)
    except ScaphoidError as error:
        scores = None
        st.warning(str(error))
    if scores is not None:
        studies = "simulated studies" if card.data.get("simulated") else "studies"
        st.markdown(f"#### What it said of {studies} it had never seen")
        told = f"{card.title}: {studies_words(scores, bool(card.data.get('simulated')))}"
        show_figure(scores_figure(scores, card), "scores", of=told)

for heading, notes in read_notes(CHECKPOINTS).items():
    with st.expander(f"The embedded models: {heading[0].lower()}{heading[1:]}"):
        st.markdown(notes)
with st.expander("For those who check: settings, versions, licences, hashes"):
    st.json(
        {
            "id": card.id,
            "backbone": card.backbone,
            "input_size": card.input_size,
            "fit": card.fit,
            "wrist_finder": card.region,
            "calibration": card.calibration,
            "study_calibration": card.study_calibration,
            "counts": card.data.get("counts"),
            "licences": card.data.get("licences"),
            "settings": card.to_dict()["settings"],
            "versions": card.versions,
            "weights_sha256": card.weights_sha256,
            "card_sha256": card.card_sha256,
        }
    )
st.html('<span id="page-ready"></span>')
