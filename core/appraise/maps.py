"""Heat maps of simulated films, measured against breaks that are known to the pixel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from core.appraise.studies import KnownFilm, KnownStudy, name_of
from core.evaluate import Progress
from core.explain.comparison import KeptRows, MapRow, OutlinedFilm, count_refused, is_thin, measure_maps
from core.quality import assess

if TYPE_CHECKING:
    from core.reading import Reader


def outlined_films(studies: Iterable[KnownStudy]) -> Iterator[OutlinedFilm]:
    """Yield one film of each broken study, of another place in the study each time: films of one wrist are alike."""
    for number, study in enumerate(studies):
        film = showing_film(study, number)
        if film is None:
            continue
        spacing = film.facts["spacing_mm"]
        thin = is_thin(film.facts["kind"], film.facts["displacement_mm"], film.facts["gap_mm"])
        yield OutlinedFilm(name_of(film), study.id, film.radiograph, film.mask, (spacing, spacing), thin, "simulated")


def showing_film(study: KnownStudy, number: int) -> KnownFilm | None:
    """Return one of the films on which a study's break shows, by `number` another; None where it shows on none."""
    showing = [film for film in study.films if film.mask.any()]
    return showing[number % len(showing)] if showing else None


def measure_readers(
    films: Sequence[OutlinedFilm],
    readers: Sequence[Reader],
    check_every: int,
    progress: Progress,
    kept: KeptRows | None = None,
) -> tuple[list[MapRow], dict[str, int]]:
    """Measure the maps of every reader on the same films, those that are not fit to be read left out.

    What is kept of before is not measured again, see :class:`core.explain.comparison.KeptRows`.

    Returns
    -------
    rows : list of MapRow
    refused : dict of str to int
        How many films were left out, by checkpoint.
    """
    rows: list[MapRow] = []
    refused: dict[str, int] = {}
    for number, reader in enumerate(readers):
        before = number * len(films)
        found = measure_maps(
            films,
            reader,
            check_every=check_every,
            is_fit=lambda film, region: assess(film, region).level != "unfit",
            progress=lambda done, before=before: progress(before + done),
            kept=kept,
        )
        refused[reader.classifier.checkpoint.id] = count_refused(films, found)
        rows += found
    return rows, refused
