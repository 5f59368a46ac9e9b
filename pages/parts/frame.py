"""What every page opens with: title, navigation, notice and looks. One call, so that no page can be without it."""

from __future__ import annotations

import re

import streamlit as st

NOTICE = "For research and education. Not a medical device: do not use it for diagnosis or treatment."
_PAGES = {
    "Reading room": "streamlit_app.py",
    "Compare": "pages/compare.py",
    "Threshold": "pages/threshold.py",
    "Explanations": "pages/explanations.py",
    "Dataset": "pages/dataset.py",
    "Train": "pages/train.py",
    "About": "pages/about.py",
}

_STYLE = """
<style>
  .block-container { padding: .7rem 1.6rem 2rem; max-width: 1760px; }
  .block-container > [data-testid="stVerticalBlock"] { gap: .7rem; }
  header[data-testid="stHeader"] { display: none; }
  .scaphoid-name { font-size: 1.3rem; font-weight: 650; letter-spacing: .02em; margin: 0; line-height: 2rem; }
  .scaphoid-notice { color: #f2d9a0; background: #241e10; border: 1px solid #57461c; border-radius: 6px;
    padding: .2rem .8rem; font-size: .92rem; margin: 0; }
  [data-testid="stPageLink"] a[disabled] p { color: #e8ebef; font-weight: 650; border-bottom: 2px solid #5cb8ff; }
  [data-testid="stCaptionContainer"] { opacity: 1; }
  [data-testid="stCaptionContainer"] p { color: #a3adba; }
  .answer { display: flex; flex-wrap: wrap; align-items: baseline; gap: .1rem 1.4rem;
    border-left: 8px solid var(--tone); background: #15191f; border-radius: 6px; padding: .5rem 1.1rem; }
  .answer h2 { font-size: 1.75rem; line-height: 1.25; margin: 0; padding: 0; color: var(--tone); }
  .answer .share { font-size: 1.75rem; line-height: 1.25; font-weight: 650; }
  .answer p { flex-basis: 100%; font-size: 1.04rem; margin: 0; }
  .answer p.small { color: #a3adba; font-size: .93rem; }
  .members { width: 100%; border-collapse: collapse; font-size: .93rem; }
  .members td, .members th { text-align: left; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid #2a313b;
    vertical-align: top; }
  .members th { color: #a3adba; font-weight: 400; }
  .members td:nth-child(2) { white-space: nowrap; }
  .legend { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; margin: 0; }
  .legend i { display: inline-block; width: 1.1rem; height: .35rem; border-radius: 2px; margin-right: .5rem;
    vertical-align: middle; }
  [data-testid="stFileUploaderDropzone"] { min-height: 8.5rem; align-items: center;
    justify-content: center; }
</style>
"""


def escape_markdown(text: str) -> str:
    """Return a text from a file so that a page shows it as it is: no picture, link, colour or formula comes of it."""
    plain = re.sub(r"(://|www(?=\.)|@)", "\\1\u200b", text, flags=re.IGNORECASE)  # else an address becomes a link
    return re.sub(r"([\\`*_\[\]()#!~$:<>|&])", r"\\\1", plain)


def is_private() -> bool:
    """Tell whether the pages are served to their own computer alone."""
    return st.get_option("server.address") in ("localhost", "127.0.0.1", "::1")


def open_page(title: str) -> None:
    """Open a page. Must be the first call of every page, also of one reached by its own address."""
    st.set_page_config(page_title=f"Scaphoid: {title}", page_icon="🦴", layout="wide")
    st.html(_STYLE)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.html('<p class="scaphoid-name">Scaphoid</p>', width="content")
        for name, path in _PAGES.items():
            st.page_link(path, label=name, disabled=name == title)
        st.html(f'<p class="scaphoid-notice" role="note">{NOTICE}</p>')
