"""``python -m pages.parts.timed STUDIES REPEAT``: how long the server takes when the slider of Threshold is moved.

`core.benchmark` asks for it in a process of its own, since `core` knows no screen. The whole page runs, as after every
move, from its first line to the last element that a browser is sent. Printed are two medians in seconds as JSON: the
page's, and that of resampling the same studies again, which takes turns with it.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from core.benchmark import measure, random_scores
from core.errors import ScaphoidError
from core.metrics import evaluate_scores, write_scores

ROOT = Path(__file__).parent.parent.parent


def time_moves(studies: int, repeat: int) -> tuple[float, float]:
    """Return the median times of one move of the slider, and of resampling again, in seconds.

    Raises
    ------
    ScaphoidError
        The page failed.
    """
    from streamlit.testing.v1 import AppTest

    scores = random_scores(studies)
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "table.csv"
        write_scores(scores, table)
        data = table.read_bytes()
    app = AppTest.from_file(str(ROOT / "streamlit_app.py"), default_timeout=600).switch_page("pages/threshold.py").run()
    app.file_uploader(key="score-tables").set_value([("table.csv", data, "text/csv")]).run()
    app.selectbox(key="model").set_value("uploaded: table").run()
    thresholds = itertools.cycle(np.linspace(0.2, 0.8, 7).round(3).tolist())

    def move() -> None:
        at = next(thresholds)
        app.slider(key="threshold").set_value(at).run()
        if app.exception or app.number_input(key="threshold-exact").value != at:
            raise ScaphoidError("The page Threshold was expected to follow its slider, but it did not.")

    return measure(move, lambda: evaluate_scores(scores, 0.5), repeat, rival_repeat=min(repeat, 3))


if __name__ == "__main__":
    try:
        print(json.dumps(time_moves(*map(int, sys.argv[1:]))))
    except ScaphoidError as error:
        sys.exit(str(error))
