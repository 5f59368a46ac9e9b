"""``python -m core.evaluate``: what checkpoints do on a dataset, or what a table of scores says, with intervals.

Beside the models stand trivial baselines on the same studies. Reading a table of scores needs neither TensorFlow nor a
checkpoint.
"""

from core.evaluate.baselines import BASELINES, BaselineResult, measure_baselines
from core.evaluate.command import choose_checkpoints, main, run, threshold_of
from core.evaluate.report import Progress, report
from core.evaluate.scoring import StudiesRead, coarsen, read_film, read_studies, score_studies

__all__ = [
    "BASELINES",
    "BaselineResult",
    "Progress",
    "StudiesRead",
    "choose_checkpoints",
    "coarsen",
    "main",
    "measure_baselines",
    "read_film",
    "read_studies",
    "report",
    "run",
    "score_studies",
    "threshold_of",
]
