"""The Train page's two halves: a new training, and all that run or ran on this computer."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from core.backbones import BACKBONES
from core.checkpoints import CHECKPOINTS, default_id, list_checkpoints
from core.checkpoints.cards import POSITIVE_LABELS
from core.errors import CheckpointError, DatasetError, ScaphoidError
from core.figures import LearningCurve
from core.results import model_names
from core.starts import IMAGENET_START, NO_START, choose_start, look_at_start
from core.train import PRESETS, jobs, recipes
from core.train.films import WRIST
from core.train.jobs import RunOptions, RunStatus
from core.train.survey import DatasetSurvey, survey_dataset
from core.values import Checkpoint
from pages.parts.curves import colours_of_all, show_curves
from pages.parts.datasets import choose_layout, note_place
from pages.parts.folders import folder_at
from pages.parts.frame import is_private

_PRESET_WORDS = {
    "scaphoid": ("Scaphoid's own", "Also learns where the break is, where the dataset shows it."),
    "better-mura": (
        "better-mura",
        "The recipe of the better-mura project as it was published, to check its figures; the first lines of "
        "core/train/recipes.py tell what differs.",
    ),
    "mura-320": (
        "MURA at 320 pixels",
        "A recipe with larger films as it was published; slower. The first lines of core/train/recipes.py tell what "
        "was assumed and what differs.",
    ),
}
_STARTS = {IMAGENET_START: "ImageNet weights", NO_START: "Random numbers"}
_POSITIVES = {"fracture": "A fracture", "abnormal": "Anything abnormal"}
_COLOURS = {"published": "green", "failed": "red", "stopped": "gray", jobs.LOST: "orange"}
_LOST = (
    "Its process ended without saying why, as after a power cut or when memory ran out. "
    "Resume goes on from its last whole epoch."
)
_SHOWN = 12
TWICE_S = 5.0


# ---- a new training --------------------------------------------------------------------------------------------------
def show_new_training() -> None:
    """Let somebody choose films, recipe and network, and start."""
    st.markdown("#### A new training")
    if not is_private():
        st.warning(
            "Trainings are started only where this page is served to its own computer alone, but it is open to others."
        )
        return
    st.caption(
        "It works on the computer that serves this page, and goes on when you close the browser. Decoded films are "
        f"kept beside the trainings, up to {jobs.CACHE_GIB:.0f} GiB, so that Resume need not decode them again."
    )
    field, choice, button = st.columns([0.46, 0.36, 0.18], vertical_alignment="bottom")
    place = field.text_input("Folder of films on this computer", key="folder", placeholder="/data/MURA-v1.1").strip()
    layout = choose_layout(choice, "layout")
    survey = _surveyed(place, layout, None, button.button("Look", key="look", width="stretch"))
    if survey is None:
        return
    presets = [name for name in PRESETS if name in _PRESET_WORDS] + [
        name for name in PRESETS if name not in _PRESET_WORDS and name != "wrist"
    ]
    words = {name: _PRESET_WORDS.get(name, (name, "")) for name in presets}
    left, right, *third = st.columns(3 if survey.parts else 2)
    preset = left.selectbox("Recipe", presets, format_func=lambda name: words[name][0], key="preset")
    wish = PRESETS[preset].backbone or "efficientnetlite0"
    networks = sorted(BACKBONES, key=lambda name: name != wish)
    backbone = right.selectbox(
        "Network", networks, format_func=lambda name: BACKBONES[name].title, key=f"backbone-{preset}"
    )
    st.caption(words[preset][1])
    region = None
    for column in third:
        region = _choose_region(column, preset, survey.parts)
        survey = _surveyed(place, layout, region)
        if survey is None:
            return
    _show_survey(survey)
    options, start = _more_choices(place, layout, preset, backbone, survey, region)
    possible = _say_what_happens(options, start, survey)
    if st.button("Start training", type="primary", key="start", disabled=not possible):
        _start(options)


def _choose_region(column: DeltaGenerator, preset: str, parts: Sequence[str]) -> str:
    """Let somebody choose the part of the body; at first what the recipe was trained on, or else the wrist."""
    wish = recipes.REGIONS.get(preset, WRIST)
    choices = sorted(["all", *parts], key=lambda part: part != wish)
    return column.selectbox(
        "Part of the body",
        choices,
        format_func=lambda part: "All" if part == "all" else part.removeprefix("XR_").capitalize(),
        key=f"region-{preset}",
    )


def _surveyed(place: str, layout: str, region: str | None, again: bool = False) -> DatasetSurvey | None:
    """Return what the folder holds, looked through once; else say why there is nothing to train on."""
    if not place:
        st.caption(
            "MURA, GRAZPEDWRI-DX, FracAtlas, one folder for each class, or a table (CSV) that lists the films. "
            "You will see what was found before anything starts."
        )
        return None
    folder = folder_at(place)
    if not folder.is_absolute():
        st.error("The folder's whole path is needed, from its first letter or slash on, but a part of one was given.")
        return None
    known = st.session_state.setdefault("surveyed", {})
    if again:
        known.clear()
    if (place, layout, region) not in known:
        with st.spinner("Looking through the folder"):
            try:
                found = survey_dataset(folder, region, layout or None)
            except DatasetError as error:
                found = str(error)
            except OSError:
                found = "A folder that may be read was expected, but this one may not."
        known[place, layout, region] = found
    found = known[place, layout, region]
    if isinstance(found, str):
        st.error(found)
        return None
    note_place(place, layout, region)
    return found


def _show_survey(survey: DatasetSurvey) -> None:
    st.markdown(f"**Found: {survey.sentence}**")
    st.dataframe(pd.DataFrame(survey.rows), hide_index=True, height="content", key="survey")
    if survey.left_out:
        st.warning("Left out, because they cannot be used:\n" + "\n".join(f"- {line}" for line in survey.left_out))
    if not survey.with_regions:
        st.caption("Whole films are read: it is not known of every film where the wrist is.")
    for note in survey.notes:
        st.caption(note)


def _more_choices(
    place: str, layout: str, preset: str, backbone: str, survey: DatasetSurvey, region: str | None
) -> tuple[RunOptions, str]:
    """Offer what need not be chosen; return all choices, and what the training starts from in words."""
    usable = [entry.checkpoint for entry in list_checkpoints(CHECKPOINTS) if entry.checkpoint]
    alike = [card for card in usable if card.task == "fracture" and card.backbone == backbone]
    starts = _STARTS | {key: f"Weights of {name}" for key, name in model_names(alike).items()}
    usual, positive = choose_start(backbone, _safe_starts(alike)), None
    with st.expander("More choices"):
        name = st.text_input(
            "Name", key="name", placeholder="made from network, recipe and time", help="Small letters, digits, hyphens."
        ).strip()
        weights = st.selectbox(
            "Start from",
            list(starts),
            list(starts).index(usual),
            format_func=starts.get,
            key=f"weights-{backbone}",
            help="ImageNet weights come with a package that is installed once (EfficientNet-Lite0) or are fetched from "
            "the network once (the other networks). Weights of a model go on from what it has learned. From random "
            "numbers a network learns slowly.",
        )
        epochs = st.number_input(
            "Epochs (rounds through all films)", 1, 500, PRESETS[preset].epochs, key=f"epochs-{preset}"
        )
        if not survey.positive_told:
            positive = st.selectbox(
                "A positive label means",
                POSITIVE_LABELS,
                POSITIVE_LABELS.index(survey.positive_label),
                format_func=_POSITIVES.get,
                key=f"positive-{place}-{layout}",
                help="The dataset itself does not say. In MURA it is anything abnormal, not only fractures.",
            )
    options = RunOptions(
        data=folder_at(place),
        backbone=backbone,
        preset=preset,
        id=name or None,
        weights=weights,
        # The published recipes read whole films, also where it is known where the wrist is.
        finder=_usual_finder(usable) if survey.with_regions and preset not in recipes.PRESETS else None,
        epochs=int(epochs),
        out=CHECKPOINTS,
        region=region,
        format=layout or None,
        positive_label=positive,
    )
    return options, starts[weights]


def _safe_starts(alike: Sequence[Checkpoint]) -> list[str]:
    """Return the models to start from where nobody chooses, the one that is offered first at the head.

    One that has seen films of patients may have seen those that the training will be measured on.
    """
    try:
        first = default_id(CHECKPOINTS)
    except CheckpointError:
        first = None
    return sorted((card.id for card in alike if card.data.get("simulated")), key=lambda key: key != first)


def _usual_finder(usable: Sequence[Checkpoint]) -> str | None:
    """Return the wrist finder of the model that is offered first, or else the last one there is."""
    finders = [card.id for card in usable if card.task == "wrist"]
    try:
        first = default_id(CHECKPOINTS)
    except CheckpointError:
        first = None
    chosen = next((card.region for card in usable if card.id == first), None)
    return chosen if chosen in finders else finders[-1] if finders else None


def _say_what_happens(options: RunOptions, start: str, survey: DatasetSurvey) -> bool:
    """Say what a training would do, and what stands in its way; return whether it can be started."""
    seconds = jobs.seconds_per_epoch(options, jobs.RUNS)
    pace = (
        f"the last training like this took {jobs.duration_words(seconds)} an epoch"
        if seconds
        else "how long it takes is shown as soon as it is measured"
    )
    others = "patients" if survey.patients_known else "films"
    st.markdown(
        f"{BACKBONES[options.backbone].title} will be trained for {options.epochs} epochs, measured on {others} it "
        f"never saw, and offered in the reading room; {pace}. It starts from: {start}."
    )
    if options.positive_label:
        st.caption(f"A positive label is taken to mean: {_POSITIVES[options.positive_label].lower()}.")
    outlook = look_at_start(options.backbone, options.weights)
    if outlook.sentence:
        (st.warning if outlook.possible else st.error)(outlook.sentence)
    if any(run.running for run in jobs.list_runs(jobs.RUNS)):
        st.warning("A training is running on this computer already. Two at once each take about twice as long.")
    return outlook.possible


def _start(options: RunOptions) -> None:
    started = st.session_state.get("training-started")
    if started and started[0] == repr(options) and time.monotonic() - started[1] < TWICE_S:
        st.success(f"{started[2]} was started.")  # a double click asks twice and means one
        return
    try:
        run_id = jobs.start_run(options, jobs.RUNS)
    except ScaphoidError as error:
        st.error(str(error))
        return
    st.session_state["training-started"] = (repr(options), time.monotonic(), run_id)
    st.success(f"{run_id} was started.")


# ---- those that run or ran -------------------------------------------------------------------------------------------
@st.fragment(run_every=2)
def show_trainings() -> None:
    """Show every training, whoever started it, as it is now; to others than this computer's own only where it is."""
    runs = jobs.list_runs(jobs.RUNS)
    st.markdown("#### Trainings on this computer")
    if not runs:
        st.caption("None yet.")
    colours = colours_of_all(list_checkpoints(CHECKPOINTS), runs)
    for run in runs[:_SHOWN]:
        _show_run(run, colours[run.id])
    older = runs[_SHOWN:]
    if not older:
        return
    words = "1 older training" if len(older) == 1 else f"{len(older)} older trainings"
    # All of this is drawn every two seconds: what nobody opened is left out.
    place = st.expander(words, key="older-runs", on_change="rerun")
    if place.open:
        with place:
            for run in older:
                _show_run(run, colours[run.id])


def _show_run(run: RunStatus, colour: str) -> None:
    with st.container(border=True, key=f"run-{run.id}"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{run.id}**", width="content")
            st.badge(jobs.PHASES[run.phase], color=_COLOURS.get(run.phase, "blue"))
        title = BACKBONES[run.backbone].title if run.backbone in BACKBONES else run.backbone
        began = time.strftime("begun %d %b, %H:%M", time.localtime(run.started)) if run.started else ""
        st.caption(" · ".join(filter(None, (title, _PRESET_WORDS.get(run.preset, (run.preset,))[0], began))))
        sentence = jobs.progress_sentence(run)
        if run.running:
            st.progress(run.share, text=sentence)
        elif run.phase == "failed":
            st.error(sentence or "It failed; its last lines say why.")
        elif run.phase == jobs.LOST:
            st.warning(_LOST + (f" ({sentence}.)" if sentence else ""))
        elif run.phase == "published":
            st.markdown("It is offered in the reading room and stands on the pages Compare and About.")
        elif sentence:
            st.markdown(sentence)
        if is_private():
            _offer_changes(run)
        if run.running or st.toggle("Curves and last lines" if is_private() else "Curves", key=f"more-{run.id}"):
            _show_course(run, colour)


def _show_course(run: RunStatus, colour: str) -> None:
    if run.history:
        show_curves([LearningCurve(run.id, run.history, colour)], f"curves-{run.id}", ("loss", "auc"))
        st.caption("Dotted: on the films it learns from. Solid: on held-out films.")
    lines = jobs.tail_log(run.id, jobs.RUNS, 6 if run.running else 12) if is_private() else ""
    if lines:
        st.code(lines, language=None, wrap_lines=True)


def _offer_changes(run: RunStatus) -> None:
    if not (run.running or run.resumable):
        return
    words, act = ("Stop", jobs.stop_run) if run.running else ("Resume", jobs.resume_run)
    if st.button("Stopping" if run.stopping else words, key=f"{words.lower()}-{run.id}", disabled=run.stopping):
        try:
            act(run.id, jobs.RUNS)
        except ScaphoidError as error:
            st.error(str(error))
            return
        st.rerun(scope="fragment")
