"""Models side by side on the same studies: what each did, how they differ, and which studies they got wrong.

All of it comes from tables of scores; neither a network nor a film is needed.
"""

from core.measured.models import (
    NO_POINT_THRESHOLD,
    RULES,
    AtThreshold,
    CalledStudy,
    Difference,
    MeasuredModel,
    called_studies,
    differences,
    look_at,
    measure_model,
    place_on_recall,
    place_on_roc,
    same_studies,
    shared_columns,
    suggest_threshold,
)
from core.measured.rows import (
    agreement_rows,
    benefit_rows,
    choice_words,
    cross_check_rows,
    metric_table,
    number_words,
    reliability_rows,
    roc_rows,
    subgroup_row,
    sweep_rows,
    zone_rows,
)

__all__ = [
    "NO_POINT_THRESHOLD",
    "RULES",
    "AtThreshold",
    "CalledStudy",
    "Difference",
    "MeasuredModel",
    "agreement_rows",
    "benefit_rows",
    "called_studies",
    "choice_words",
    "cross_check_rows",
    "differences",
    "look_at",
    "measure_model",
    "metric_table",
    "number_words",
    "place_on_recall",
    "place_on_roc",
    "reliability_rows",
    "roc_rows",
    "same_studies",
    "shared_columns",
    "subgroup_row",
    "suggest_threshold",
    "sweep_rows",
    "zone_rows",
]
