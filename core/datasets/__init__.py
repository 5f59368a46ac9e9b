"""Folders of films to studies with labels, and studies to patient-disjoint splits.

The layouts that are known stand in ``core.datasets.layouts``. Nothing is left out in silence: what is listed and
cannot be used is a `Problem` of the index. ``core.datasets.cache`` keeps decoded films.
"""

from core.datasets.body_parts import REGION_HELP, WRIST, WRISTS_ALONE, open_dataset, parts_of_body
from core.datasets.boxes import Box
from core.datasets.cache import DecodedCache, make_key
from core.datasets.files import Problem
from core.datasets.index import DatasetIndex, find_studies, find_table, index_dataset, select_split
from core.datasets.layouts import FORMATS, detect_format
from core.datasets.splits import describe, split_by_patient, split_dataset
from core.datasets.tables import find_origin

__all__ = [
    "FORMATS",
    "REGION_HELP",
    "WRIST",
    "WRISTS_ALONE",
    "Box",
    "DatasetIndex",
    "DecodedCache",
    "Problem",
    "describe",
    "detect_format",
    "find_origin",
    "find_studies",
    "find_table",
    "index_dataset",
    "make_key",
    "open_dataset",
    "parts_of_body",
    "select_split",
    "split_by_patient",
    "split_dataset",
]
