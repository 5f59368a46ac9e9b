"""Dataset: what a folder of films holds, what its splits share, and whether it can be solved without a fracture."""

import streamlit as st

from pages.parts import datasets
from pages.parts.frame import open_page

open_page("Dataset")
datasets.show()
st.html('<span id="page-ready"></span>')
