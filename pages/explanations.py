"""Explanations: every heat map of one film side by side, how far each can be trusted, and what a whole split says."""

import streamlit as st

from core.checkpoints import CHECKPOINTS, default_id, list_checkpoints
from core.errors import ScaphoidError
from core.results import model_names
from pages.parts import sidebyside
from pages.parts.desk import open_desk
from pages.parts.frame import open_page
from pages.parts.readers import reader_of


def show() -> None:
    """Show the page. In a function: Streamlit keeps a page's globals until the next one runs, whoever asks for it."""
    cards = {
        entry.id: entry.checkpoint
        for entry in list_checkpoints(CHECKPOINTS)
        if entry.checkpoint and entry.checkpoint.task == "fracture"
    }
    if not cards:
        st.error("There is no model whose heat maps could be shown.")
        st.stop()
    try:
        default = default_id(CHECKPOINTS)
    except ScaphoidError:
        default = None
    desk = open_desk()
    first = desk.checkpoint if desk.checkpoint in cards else default
    if desk.films:
        names = model_names(cards.values())
        with st.container(horizontal=True, vertical_alignment="bottom"):
            film = sidebyside.choose_film(desk)
            chosen = st.selectbox(
                "Model", sorted(cards, key=lambda key: key != first), format_func=names.get, key="model", width=330
            )
            methods = sidebyside.choose_methods(cards[chosen])
        try:
            with st.spinner("Opening the model"):
                reader = reader_of(chosen)
            sidebyside.show_maps(desk, reader, film, methods)
        except ScaphoidError as error:
            st.error(str(error))
    else:
        sidebyside.offer_examples(desk)
    sidebyside.show_split(list(cards.values()))


open_page("Explanations")
show()
st.html('<span id="page-ready"></span>')
