"""Train: choose films, recipe and network, start, and watch; the work itself is done by processes of their own."""

import streamlit as st

from pages.parts.frame import open_page
from pages.parts.trainings import show_new_training, show_trainings

open_page("Train")
left, right = st.columns([0.42, 0.58], gap="large")
with left:
    show_new_training()
with right:
    show_trainings()
st.html('<span id="page-ready"></span>')
