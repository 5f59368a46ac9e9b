"""Serves the dashboard for the browser tests, with a window into what the server still holds of anyone's films.

``python -m tests.served PORT PROBE_PORT RUNS``: the dashboard on PORT; ``http://localhost:PROBE_PORT`` answers with
counts. Trainings lie in the folder RUNS and are done by a stand-in.
"""

import gc
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).parent.parent


def held_films() -> dict[str, int | bool]:
    """Count what is alive in this process: films somebody uploaded, files of uploads, downloads.

    Files are counted twice: those that the server keeps, and all that anything holds. And is TensorFlow loaded?
    """
    from streamlit import runtime
    from streamlit.runtime.uploaded_file_manager import UploadedFile

    from core.values import Explanation, Radiograph

    gc.collect()
    things = [thing for thing in gc.get_objects() if isinstance(thing, Radiograph | Explanation | UploadedFile)]
    films = [thing for thing in things if isinstance(thing, Radiograph) and thing.source != "simulated film"]
    server = runtime.get_instance()
    return {
        "films": len(films),
        "heatmaps": sum(isinstance(thing, Explanation) for thing in things),
        "uploads": sum(len(files) for files in server.uploaded_file_mgr.file_storage.values()),
        "files": sum(isinstance(thing, UploadedFile) for thing in things),
        "media": len(server.media_file_mgr._file_metadata),
        "tensorflow": "tensorflow" in sys.modules,
    }


class Probe(BaseHTTPRequestHandler):
    """Answers every GET with the counts as JSON."""

    def do_GET(self):
        """Answer."""
        body = json.dumps(held_films()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Stay quiet."""


if __name__ == "__main__":
    from streamlit.web import bootstrap

    port, probe_port = map(int, sys.argv[1:3])
    sys.path.insert(0, str(ROOT))

    from core.train import jobs

    jobs.RUNS, jobs.COMMAND = Path(sys.argv[3]), (sys.executable, "-m", "tests.stand_in_training")
    threading.Thread(target=ThreadingHTTPServer(("localhost", probe_port), Probe).serve_forever, daemon=True).start()
    options = {"server_port": port, "server_headless": True}
    bootstrap.load_config_options(options)
    bootstrap.run(str(ROOT / "streamlit_app.py"), False, [], options)
