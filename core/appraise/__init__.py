"""``python -m core.appraise``: what checkpoints are worth on simulated studies, and how steady their answers are.

``simulated`` makes studies that no training has seen, reads them with every chosen checkpoint and with their mean,
and measures both; with ``--write`` the figures go into the cards and the tables of scores, and from those of all
models, whenever each was measured, into the documents, which have theirs from nowhere else. ``steadiness`` measures
how far an answer moves when a film is flipped, turned, exposed otherwise or written in another format.
``explanations`` measures how often each heat map finds the break, and how far it can be trusted; with ``--write`` its
table beside the checkpoints keeps that of all models, so that they may be measured one after the other.
``quickscorecam`` measures how alike the quick form of Score-CAM is to the full one.
"""

from core.appraise.documents import replace_between, store_results
from core.appraise.measures import measure_checkpoint, measure_finder
from core.appraise.reading import read_all
from core.appraise.steadiness import CHANGES, measure_steadiness
from core.appraise.studies import KnownFilm, KnownStudy, make_studies, seeds_of

__all__ = [
    "CHANGES",
    "KnownFilm",
    "KnownStudy",
    "make_studies",
    "measure_checkpoint",
    "measure_finder",
    "measure_steadiness",
    "read_all",
    "replace_between",
    "seeds_of",
    "store_results",
]
