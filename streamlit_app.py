"""The reading room: drop the films of one wrist study and read the second opinion."""

import streamlit as st

from pages.parts.desk import open_desk
from pages.parts.frame import open_page
from pages.parts.readers import warm_up
from pages.parts.study import show_study
from pages.parts.welcome import show_welcome

open_page("Reading room")
warm_up()
desk = open_desk()
if desk.films:
    show_study(desk)
else:
    show_welcome(desk)
st.html('<span id="page-ready"></span>')
