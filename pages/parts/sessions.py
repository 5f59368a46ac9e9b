"""What belongs to one browser session, and how the server forgets it when the browser goes.

Streamlit drops a session's own cache as soon as its browser is gone. That alone is not all:

- A page may be at work just then, and what it makes afterwards would stay. So what has ended is swept several times.
- A session that could come back is kept, with its widgets, their values (an uploader's are the files) and whatever they
  were given: until another one leaves, which may be tomorrow. So a session that held anything does not come back; a
  browser that does begins anew.
- What was not sent yet waits for a browser that is gone.
- Uploads of more than a megabyte would lie in a file on disk.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from starlette.formparsers import MultiPartParser
from streamlit import runtime
from streamlit.runtime.caching import clear_session_resource_cache
from streamlit.runtime.scriptrunner import StopException, get_script_run_ctx

# Films stay in memory, however large: ``server.maxUploadSize`` bounds them. 0: no limit from which on a file is used.
MultiPartParser.spool_max_size = 0

SWEEPS_S = 5 * (4.0,) + 8 * (20.0,)
"""Pauses between the sweeps after a session has ended: a download takes two of them to go, and a heat map that was
under way when the browser went may end, and hand out its downloads, a minute or two later."""


@dataclass(eq=False)
class Belongings:
    """What belongs to one browser session: nobody else sees it, and it ends with the session.

    Subclasses say in `clear` what there is to forget. Each is opened by a function of its own, cached with
    ``st.cache_resource(scope="session", on_release=Belongings.end)``.

    Attributes
    ----------
    session : str
        Id of the session; "" outside of any.
    ended : bool
        Whether the session has gone.
    turn : int
        Another number as soon as what it held is no longer what is looked at.
    """

    session: str = ""
    ended: bool = field(default=False, init=False)
    turn: int = field(default=0, init=False)

    def clear(self) -> None:
        """Forget everything."""
        self.turn += 1

    def end(self) -> None:
        """Forget everything, now and what a page that is still at work adds later."""
        self.ended = True
        self.clear()
        left = _forbid_return(self.session)
        forget_uploads(self.session)
        _sweep_later(self, left, SWEEPS_S)

    def stop_if_changed(self, turn: int) -> None:
        """Stop the page if what it works on since `turn` is gone: a click may have begun another run meanwhile.

        Raises
        ------
        StopException
            Which Streamlit takes for the page's end.
        """
        if self.ended or self.turn != turn:
            raise StopException


def session_id() -> str:
    """Return the id of the browser session that this script runs for; "" outside of any."""
    context = get_script_run_ctx()
    return context.session_id if context else ""


def forget_uploads(session: str) -> None:
    """Drop a session's uploaded files from the server's memory, and mark its downloads for the next sweep.

    Downloads not at once: another session's may just be on its way, and this one's last may still be in the making.
    """
    if runtime.exists():
        server = runtime.get_instance()
        server.uploaded_file_mgr.remove_session_files(session)
        server.media_file_mgr.clear_session_refs(session)
        server.media_file_mgr.remove_orphaned_files()


def forget_upload(session: str, file_id: str) -> None:
    """Drop one of a session's uploaded files from the server's memory."""
    if runtime.exists():
        runtime.get_instance().uploaded_file_mgr.remove_file(session, file_id)


def _forbid_return(session: str) -> tuple[Any, Any]:
    """Let a session that ends be shut down, not kept; return what Streamlit knows it and its browser by."""
    if not runtime.exists():
        return None, None
    server = runtime.get_instance()
    left = server.get_app_session(session), server.get_client(session)
    if left[0] is not None:  # a mark for one that has gone already would never be taken away
        server.mark_session_nonresumable(session)
    return left


def _empty(app: Any, client: Any) -> None:
    """Empty what Streamlit still holds of a session that has gone: its main loop knows the last one it served."""
    app.flush_browser_queue()
    unsent = getattr(client, "_send_queue", None)
    while unsent is not None and not unsent.empty():
        unsent.get_nowait()
    if getattr(app, "_scriptrunner", None) is None:  # or a page that is at work would find itself without its widgets
        app.session_state.__init__()


def _sweep_later(ended: Belongings, left: tuple[Any, Any], pauses: tuple[float, ...]) -> None:
    if pauses:
        timer = threading.Timer(pauses[0], _sweep, (ended, left, pauses[1:]))
        timer.daemon = True
        timer.start()


def _sweep(ended: Belongings, left: tuple[Any, Any], pauses: tuple[float, ...]) -> None:
    """Forget what came since the last sweep; again after each of `pauses` seconds."""
    ended.clear()
    # Where the session is still there, something else than its end took this away from it.
    if runtime.exists() and not runtime.get_instance().is_active_session(ended.session):
        clear_session_resource_cache(ended.session)
        forget_uploads(ended.session)
        if left[0] is not None:
            _empty(*left)
    _sweep_later(ended, left, pauses)
