"""``python -m core.evaluate``: what checkpoints do on a dataset, or what a table of scores says, with intervals.

Beside the models stand trivial baselines on the same studies. Reading a table of scores needs neither TensorFlow nor a
checkpoint.
"""

from core.evaluate.baselines import BASELINES, BaselineResult, measure_baselines
from core.evaluate.command import choose_checkpoints, ensemble_points, main, run, threshold_of
from core.evaluate.comparison import (
    ENSEMBLE,
    auc_difference,
    auc_of,
    compare_scores,
    interval_dict,
    interval_of,
    mean_of,
    mean_scores,
    quantile_of,
    rate_interval,
)
from core.evaluate.report import Progress, report
from core.evaluate.scoring import StudiesRead, coarsen, read_film, read_studies, score_studies

__all__ = [
    "BASELINES",
    "ENSEMBLE",
    "BaselineResult",
    "Progress",
    "StudiesRead",
    "auc_difference",
    "auc_of",
    "choose_checkpoints",
    "coarsen",
    "compare_scores",
    "ensemble_points",
    "interval_dict",
    "interval_of",
    "main",
    "mean_of",
    "mean_scores",
    "measure_baselines",
    "quantile_of",
    "rate_interval",
    "read_film",
    "read_studies",
    "report",
    "run",
    "score_studies",
    "threshold_of",
]
