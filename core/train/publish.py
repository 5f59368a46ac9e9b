"""The end of a training: weights rounded, measured on held-out patients, and published with a card."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.backbones import find_backbone, freeze
from core.checkpoints import CHECKPOINTS, find_checkpoint, publish, read_card, round_to_float16
from core.checkpoints.learned import find_learned, learned_from
from core.classifier import Classifier
from core.datasets import find_table
from core.datasets.files import SPLITS, class_of
from core.datasets.splits import number_names
from core.datasets.tables import LABEL_COLUMNS, find_column, read_columns, read_rows
from core.errors import CheckpointError
from core.starts import START_LICENCES
from core.train.appraisal import LIMITS_RULE
from core.train.films import TrainingData
from core.train.inputs import HELD_OUT_SEED, SEEDS_APART, make_decoys
from core.train.presets import idle_settings, option
from core.train.runs import Progress, Report, Request
from core.values import Checkpoint, Scores, TrainingSettings
from core.wrist import CLOSER_LOOKS

DECOY_SHARE = 0.3


def finish(
    request: Request,
    data: TrainingData,
    model: Any,
    history: Sequence[Mapping[str, float]],
    unreadable: int = 0,
    report: Report | None = None,
) -> Checkpoint:
    """Round the weights, measure on the held-out patients, and publish.

    Parameters
    ----------
    request : Request
    data : TrainingData
    model : keras.Model
        float32; its weights are rounded in place.
    history : sequence of Mapping
    unreadable : int
        Films of train that were left out.
    report : Report, optional
    """
    from core.train import appraisal
    from core.wrist import MAPS, WristFinder, load_finder

    settings = request.settings
    round_to_float16(model)
    splits = {"valid": data.valid, "test": data.test}
    report = report or Report()
    progress = _telling(report)
    if request.task == "wrist":
        number = {split: max(4, round(DECOY_SHARE * len(films))) for split, films in splits.items()}
        decoys = {
            split: make_decoys(number[split], 320, HELD_OUT_SEED + place * SEEDS_APART)
            for place, split in enumerate(splits)
        }
        card = Checkpoint(
            request.id, "", "wrist", settings.backbone, "", settings.input_size, looks=_looks(request, data)
        )
        finder = WristFinder(card, freeze(model, (MAPS,)))
        measured = appraisal.appraise_finder(finder, splits, decoys, progress, report.folder)
    else:
        region = find_region(request, data)
        if region is None:
            # Nothing will find the wrist when films are read, so none may be measured on a wrist that is known.
            splits = {split: [replace(film, region=None) for film in films] for split, films in splits.items()}
            print(whole_films_line(request, data), end="", file=sys.stderr)
        finder = load_finder(region, Path(request.out)) if region else None
        run = freeze(model, tuple(name for name in ("logit", "location") if name in model.output))
        reader = Classifier(_provisional_card(request, data, "location" in model.output), model, run)
        measured = appraisal.appraise_classifier(
            reader, splits, finder, progress, option(request.settings, "calibration"), report.folder
        )
    card = describe_checkpoint(request, data, measured, "location" in getattr(model, "output", {}), unreadable)
    scores = measured.scores if data.simulated else rename_patients(measured.scores, data)
    return publish(Path(request.out), card, model, history, scores or None)


def find_region(request: Request, data: TrainingData) -> str | None:
    """Return the finder that cuts the films when they are read; None: they are read whole, as they were trained on."""
    return request.finder if request.task == "fracture" and data.with_regions else None


def find_positive_label(request: Request, data: TrainingData) -> str:
    """Return what the dataset calls positive, ``"fracture"`` or ``"abnormal"``: as asked for, or by its own words."""
    if request.positive_label or data.simulated or data.injected:
        return request.positive_label or "fracture"
    positive = (film.path for film in (*data.train, *data.valid, *data.test) if film.label == 1)
    return label_of_words(data.format, positive_words(Path(request.data), data.format, positive))


def label_of_words(layout: str, words: Iterable[str]) -> str:
    """Return ``"fracture"`` or ``"abnormal"``: what a dataset of a layout that calls positives by these words means."""
    abnormal = layout == "mura" or any(word.startswith("abnormal") for word in words)
    return "abnormal" if abnormal else "fracture"


def positive_words(root: Path, layout: str, positive: Iterable[Path]) -> set[str]:
    """Return what class folders, or a table's column and its cells, call positive: lower-case letters alone.

    Parameters
    ----------
    root : pathlib.Path
        The dataset's.
    layout : str
        One of :data:`core.datasets.FORMATS`.
    positive : iterable of pathlib.Path
        Its positive films.
    """
    words: set[str] = set()
    if layout == "folders":
        places = [path.relative_to(root).parts for path in positive]
        words = {parts[1] if parts[0].lower() in SPLITS else parts[0] for parts in places}
    table = find_table(root) if layout == "csv" else None
    column = find_column(read_columns(table), LABEL_COLUMNS) if table else None
    if column is not None:
        words = {column, *(row[column] for row in read_rows(table, {column}) if class_of(row[column]) == 1)}
    return {re.sub(r"[^a-z]", "", word.lower()) for word in words}


def whole_films_line(request: Request, data: TrainingData) -> str:
    """Return a line that says why a finder that was asked for is not used; "" where it is, or none was asked for."""
    if not request.finder or request.task != "fracture" or data.with_regions:
        return ""
    films = (*data.train, *data.valid, *data.test)
    lacking = sum(film.region is None for film in films)
    return f"Whole films are read: of {lacking:,} of {len(films):,} films it is not known where the wrist is.\n"


def rename_patients(scores: Iterable[Scores], data: TrainingData) -> tuple[Scores, ...]:
    """Return the scores with numbers for patients and studies, so that no name of a dataset's is published.

    ``p0001`` and ``s0001`` are the first of all parts in natural order: every training on the same dataset gives the
    same names.
    """
    films = (*data.train, *data.valid, *data.test)
    patients = number_names("p", {film.patient_id for film in films})
    studies = number_names("s", {film.study_id for film in films})
    return tuple(
        replace(
            each,
            study_ids=tuple(studies[study] for study in each.study_ids),
            patient_ids=tuple(patients[patient] for patient in each.patient_ids),
        )
        for each in scores
    )


def _provisional_card(request: Request, data: TrainingData, location: bool) -> Checkpoint:
    """Return what must be known of a network to read films with it before anything was measured."""
    settings = request.settings
    return Checkpoint(
        id=request.id,
        title="",
        task="fracture",
        backbone=settings.backbone,
        feature_layer=find_backbone(settings.backbone).feature_layer,
        input_size=settings.input_size,
        region=find_region(request, data),
        fit=_fit(request, data),
        location_head=location,
        looks=_looks(request, data),
    )


def _fit(request: Request, data: TrainingData) -> str:
    """Return how films become squares; what a finder cuts out is one."""
    whole = request.task == "fracture" and find_region(request, data) is None
    return str(option(request.settings, "fit")) if whole else "pad"


def _settings_in_effect(request: Request, data: TrainingData) -> TrainingSettings:
    """Return the settings without how films are made squares where none is: the card would tell of it as if it were."""
    extra = dict(request.settings.extra)
    if _fit(request, data) != option(request.settings, "fit"):
        del extra["fit"]
    return replace(request.settings, extra=extra)


def _looks(request: Request, data: TrainingData) -> int:
    """Return how often a film is looked at; a whole film can only be mirrored, and a finder looks closer."""
    if request.task == "wrist":
        return CLOSER_LOOKS
    looks = int(option(request.settings, "looks"))
    return looks if find_region(request, data) else min(looks, 2)


def _telling(report: Report) -> Any:
    progress = Progress("measuring")

    def tell(done: int, total: int) -> None:
        progress(done, total)
        message = f"Measuring on held-out films: {done:,} of {total:,}"
        report(phase="measuring", message=message, seconds_left=progress.seconds_left)

    return tell


def describe_checkpoint(
    request: Request, data: TrainingData, measured: Any, location: bool, unreadable: int = 0
) -> Checkpoint:
    """Return the card: what was trained on what, what it was measured to do, and what it is not for."""
    backbone = find_backbone(request.settings.backbone)
    wrist = request.task == "wrist"
    sources = _sources(request)
    counts = dict(measured.counts)
    if _learned_here(request, data, sources):
        counts |= {
            "train_films": len(data.train) - unreadable,
            "train_films_unreadable": unreadable,
            "train_studies": len({film.study_id for film in data.train}),
            "train_patients": len({film.patient_id for film in data.train}),
        }
    if not data.patients_known:
        counts = {name: count for name, count in counts.items() if not name.endswith("_patients")}
    title = request.title or ("Wrist finder" if wrist else _title(request, data))
    return Checkpoint(
        id=request.id,
        title=title,
        task=request.task,
        backbone=backbone.name,
        feature_layer=backbone.location_layer if wrist else backbone.feature_layer,
        input_size=request.settings.input_size,
        scaling="keras" if wrist else option(request.settings, "scaling"),
        fit=_fit(request, data),
        looks=_looks(request, data),
        region=find_region(request, data),
        location_head=location,
        positive_label=find_positive_label(request, data),
        operating_points=measured.points,
        calibration=measured.calibration,
        study_calibration=measured.study_calibration,
        settings=_settings_in_effect(request, data),
        data={
            **_sentences(request, data, counts, sources),
            "simulated": _all_simulated(request, data, sources),
            "patients_known": data.patients_known,
            "split": data.split,
            "learned": _learned(request, data, sources),
            **({"learned_at": size} if (size := learned_at(request, sources)) else {}),
            "counts": counts,
            "results": dict(measured.results),
            **({"limits": LIMITS_RULE} if measured.points else {}),
            "licences": _licences(request, data),
            **_simulator(request, data),
        },
        versions=_versions(),
    )


def _title(request: Request, data: TrainingData) -> str:
    """Return a name for people: two of one network that read films at different sizes are told apart by it."""
    size = request.settings.input_size
    at = "" if size == TrainingSettings.input_size else f" at {size} px"
    learned = "simulated films" if data.simulated else "fine-tuned"
    return f"{find_backbone(request.settings.backbone).title}{at}, {learned}"


def _simulator(request: Request, data: TrainingData) -> dict[str, Any]:
    """Return how simulated films were made, so that those of one study can be made again."""
    from core.phantoms.dataset import read_settings

    found = read_settings(Path(request.data)) if data.simulated else None
    return {"simulator": asdict(found)} if found else {}


def _learned(request: Request, data: TrainingData, sources: Sequence[Checkpoint]) -> list[dict[str, Any]]:
    """Return every dataset that the weights learned from, here and before: see :func:`find_learned`."""
    here = _learned_here(request, data, sources)
    own = [learned_from(data.split, _simulator(request, data).get("simulator"))] if here else []
    own += [learned_from(None, None)] if request.starts_elsewhere else []
    every = [*own, *(entry for card in sources for entry in find_learned(card))]
    return [entry for place, entry in enumerate(every) if entry not in every[:place]]


def may_have_seen(card: Checkpoint, films: TrainingData, data: Path) -> bool:
    """Tell whether a checkpoint may have been trained on patients of the dataset's held-out parts.

    It was not where it was trained on the same parts, nor where one of the two is simulated and the other real, nor
    where the simulator made its films from another seed or in another version: those are other patients.
    """
    from core.phantoms.dataset import read_settings

    drawn = read_settings(data) if films.simulated else None

    def may(learned: Mapping[str, Any]) -> bool:
        if learned["split"] == films.split:
            return False
        if learned["version"] is None:
            return True
        if drawn is None:
            return films.simulated
        return learned["version"] == str(drawn.version) and learned["seed"] in (None, drawn.seed)

    return any(map(may, find_learned(card)))


def find_origins(sources: Sequence[Checkpoint]) -> list[dict[str, str]]:
    """Return every checkpoint that the weights came from or were taught by, and what each says it was trained on.

    Parameters
    ----------
    sources : sequence of Checkpoint
        Those that were started from, taught by or averaged; what they came from themselves is on their cards.

    Returns
    -------
    list of dict
        ``id`` and ``trained_on`` (sentences), each checkpoint once, the sources first.
    """
    own = [{"id": card.id, "trained_on": card.data.get("trained_on", "This is not known.")} for card in sources]
    before = [entry for card in sources for entry in card.data.get("came_from", ())]
    return list({entry["id"]: entry for entry in (*own, *before)}.values())


def seen_line(request: Request, data: TrainingData) -> str:
    """Return a line that says, before the training, that what it begins with may know the patients held out; or ""."""
    seen = _seen_by(_sources(request), request, data)
    return seen and f"{seen} may have been trained on patients who are held out here: {FLATTERS}.\n"


def _seen_by(sources: Sequence[Checkpoint], request: Request, data: TrainingData) -> str:
    """Name those that may have been trained on patients of the held-out parts; ""."""
    return " and ".join(card.id for card in sources if may_have_seen(card, data, Path(request.data)))


def _sources(request: Request) -> tuple[Checkpoint, ...]:
    """Return the cards of the checkpoints that the weights came from or were taught by, as far as they are here."""
    names = dict.fromkeys((*([request.start] if request.start else ()), *request.teachers, *request.average_of))
    found = (_card_of(name, Path(request.out)) for name in names)
    return tuple(card for card in found if card)


def learned_at(request: Request, sources: Sequence[Checkpoint]) -> int | None:
    """Return at how many pixels a side averaged weights learned, where that is not the size they read films at now.

    None too where some of them learned at that size.
    """
    averaged = [card for card in sources if card.id in request.average_of]
    sizes = {card.data.get("learned_at") or card.input_size for card in averaged}
    return None if request.settings.input_size in sizes else min(sizes, default=None)


def _all_simulated(request: Request, data: TrainingData, sources: Sequence[Checkpoint]) -> bool:
    """Tell whether nothing but simulated films went into the weights, here and before."""
    return data.simulated and not request.starts_elsewhere and all(card.data.get("simulated") for card in sources)


def _learned_here(request: Request, data: TrainingData, sources: Sequence[Checkpoint]) -> bool:
    """Tell whether anything was trained on this dataset, or was when the weights that were averaged were trained."""
    averaged = [card for card in sources if card.id in request.average_of]
    return not averaged or any(card.data.get("split") == data.split for card in averaged)


def _trained_on(request: Request, data: TrainingData, counts: Mapping[str, int], sources: Sequence[Checkpoint]) -> str:
    """Say what the weights learned from; of what is told of those that they came from see :func:`find_origins`."""
    mean = f"its weights are {'the mean of ' * (len(request.average_of) > 1)}those of {', '.join(request.average_of)}"
    if _learned_here(request, data, sources):
        what = f"films of a dataset in the format {data.format}"
        if data.simulated or data.injected:
            what = "simulated films" if data.simulated else "real films with simulated breaks and without"
        trained = f"Trained on {counts['train_films']:,} {what}{_of_patients(data, 'train')}"
        some, epochs = option(request.settings, "epoch_films"), request.settings.epochs
        if some and some < counts["train_films"]:
            trained += f", of which {f'each of {epochs} epochs' if epochs > 1 else 'one epoch'} drew {some:,} films"
        if request.task == "wrist":
            trained += f" and on {int(option(request.settings, 'decoys')):,} simulated films without a wrist"
        if request.start:
            trained += f", from the weights of {request.start} on"
        if request.starts_elsewhere:
            trained += ", from weights that were made elsewhere on"
        if request.teachers:
            trained += f", with {', '.join(request.teachers)} as teacher{'s' if len(request.teachers) > 1 else ''}"
        trained += f"; {mean}" * (len(request.average_of) > 1)
    else:
        trained = mean.capitalize()
    size = learned_at(request, sources)
    trained += f"; it learned at {size} pixels a side, not at {request.settings.input_size}" if size else ""
    if idle_settings(request.settings) and not request.average_of:
        trained += "; all layers were trained, since it began with nothing learned"
    trained += "; no film of a real patient was used." if _all_simulated(request, data, sources) else "."
    if request.starts_elsewhere:
        trained += " On what the weights that it started from were trained is not known."
    return trained


FLATTERS = "results may flatter"


def _sentences(
    request: Request, data: TrainingData, counts: Mapping[str, int], sources: Sequence[Checkpoint]
) -> dict[str, Any]:
    trained = _trained_on(request, data, counts, sources)
    chosen = "the confidence was" if request.task == "wrist" else "calibration and operating points were"
    read = {split: _films_read(counts, split, data) for split in ("valid", "test")}
    tested = f"Tested on {read['test']:,} films"
    seen = _seen_by(sources, request, data)
    if data.patients_known:
        further = _patients_read(counts, "valid", data)
        other = "" if seen else "other "
        tested += (
            f" of {_patients_read(counts, 'test', data):,} {other}{'simulated ' if data.simulated else ''}patients"
        )
        tested += f"; {chosen} set on {read['valid']:,} films of {further:,} "
    else:
        tested += (
            " (which films are of one patient is not known, so that a patient may have been trained on as well and "
            f"results may flatter); {chosen} set on {read['valid']:,} "
        )
    tested += "further ones."
    if seen:
        tested += f" What it comes from ({seen}) may have been trained on some of these patients: {FLATTERS}."
    if find_region(request, data):
        tested += " The wrist was found by the finder, as it is when films are read."
    tested += f" {whole_films_line(request, data)}".rstrip()
    if data.simulated:
        tested += " It has not been tested on patients: on real films it will do worse than these figures say."
    if data.injected:
        tested += " It has not been tested on real breaks: on those it will do worse than these figures say."
    not_for = (
        "For research and education only: not a medical device, not for diagnosis, and not a reason to do or leave "
        "out anything for a patient."
    )
    return {
        "trained_on": trained,
        "came_from": find_origins(sources),
        "tested_on": tested,
        "not_for": not_for,
    }


def _of_patients(data: TrainingData, split: str) -> str:
    """Return " of 3 patients"; "" where it is not known which films are of one."""
    number = len({film.patient_id for film in getattr(data, split)})
    return f" of {number:,} {'simulated ' if data.simulated else ''}patients" if data.patients_known else ""


def _patients_read(counts: Mapping[str, int], split: str, data: TrainingData) -> int:
    """Return how many patients of a part were measured on: those of whom a film was read and fit to be."""
    everyone = len({film.patient_id for film in getattr(data, split)})
    return counts.get(f"{split}_patients", everyone) - counts.get(f"{split}_patients_left_out", 0)


def _films_read(counts: Mapping[str, int], split: str, data: TrainingData) -> int:
    """Return how many films of a part were measured on: those that were read, and were fit to be."""
    left_out = sum(counts.get(f"{split}_films_{why}", 0) for why in ("unreadable", "refused"))
    return counts.get(f"{split}_films", len(getattr(data, split))) - left_out


def _licences(request: Request, data: TrainingData) -> list[str]:
    """Return a sentence on each thing that went into the weights."""
    backbone = find_backbone(request.settings.backbone)
    lines = []
    if request.start is not None:
        lines += _inherited(request.start, Path(request.out))
    elif request.settings.weights in START_LICENCES:
        lines.append(f"Started from {START_LICENCES[request.settings.weights]}.")
    elif request.starts_elsewhere:
        lines.append("Started from weights that were made elsewhere, whose own licence applies.")
    elif request.settings.weights is not None:
        lines.append(f"Started from {backbone.weights_licence}.")
    for other in request.average_of:
        lines += _inherited(other, Path(request.out))
    for teacher in request.teachers:
        lines += [_of_teacher(line) for line in _inherited(teacher, Path(request.out))]
    if data.simulated:
        lines.append("The simulated films were made by Scaphoid's own simulator (MIT).")
    else:
        lines.append("The films' own licence applies to what was learned from them.")
    if data.injected:
        lines.append("The breaks in the films were made by Scaphoid's own simulator (MIT).")
    return list(dict.fromkeys(lines))


def _inherited(checkpoint_id: str, out: Path) -> list[str]:
    """Return what the card of a checkpoint that was learned from says of licences, but for those of its thresholds."""
    card = _card_of(checkpoint_id, out)
    if card is None:
        return []
    own = card.data.get("threshold_licence")
    return [str(line) for line in card.data.get("licences", ()) if line != own]


def _of_teacher(line: str) -> str:
    """Return a teacher's line as its student's: what a teacher started and learned from, its student did not."""
    if line.startswith("Started from"):
        return line.replace("Started from", "Taught by a model that had started from", 1)
    return line if line.startswith(("Taught by", "Of a teacher")) else f"Of a teacher: {line}"


def _card_of(checkpoint_id: str, out: Path) -> Checkpoint | None:
    """Return a checkpoint's card, from `out` or from among those that came along; None where it is in neither."""
    for folder in (out, CHECKPOINTS):
        try:
            return read_card(find_checkpoint(checkpoint_id, folder))
        except CheckpointError:
            continue
    return None


def _versions() -> dict[str, str]:
    import keras

    from core.phantoms import VERSION

    versions = {"python": platform.python_version(), "numpy": np.__version__, "keras": keras.__version__}
    versions["backend"] = keras.backend.backend()
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        versions["tensorflow"] = tensorflow.__version__
    return versions | {"simulator": str(VERSION)}
