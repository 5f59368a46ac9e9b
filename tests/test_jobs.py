"""Trainings as processes of their own: begun, seen, stopped and resumed, and never taken for another process."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from core.checkpoints import CHECKPOINTS, default_id, verify
from core.datasets import DecodedCache, index_dataset
from core.errors import CheckpointError, DatasetError, TrainingError
from core.starts import Start
from core.train import PRESETS, Request, jobs, processes
from core.train.__main__ import build_parser, make_request
from core.train.survey import survey_dataset
from tests.films import png_film

ROOT = Path(__file__).parent.parent
linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked at as Linux shows them")


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Return a folder of runs whose trainings are done by a stand-in; what still runs at the end is killed."""
    monkeypatch.setattr(jobs, "COMMAND", (sys.executable, "-m", "tests.stand_in_training"))
    folder = tmp_path / "runs"
    yield folder
    for run in jobs.list_runs(folder):
        if run.running:
            os.kill(json.loads((folder / run.id / "job.json").read_text())["pid"], 9)


def options(tmp_path, **more):
    return jobs.RunOptions(tmp_path / "films", "resnet50", "scaphoid", out=tmp_path / "checkpoints", **more)


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.03)
    raise AssertionError("it did not happen")


def phase(run_id, runs):
    return jobs.read_run(run_id, runs).phase


def write_run(runs, run_id, progress=None, request=True, job=None):
    """Write a run's files by hand."""
    folder = runs / run_id
    folder.mkdir(parents=True)
    if request:
        settings = {"backbone": "densenet169", "preset": "mura-320"}
        (folder / "request.json").write_text(json.dumps({"id": run_id, "data": "/films/of", "settings": settings}))
    for name, content in (("progress", progress), ("job", job)):
        if content is not None:
            (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def told(pid, **more):
    said = {"phase": "training", "message": "", "epoch": 2, "epochs": 4, "done": 30, "total": 120, "seconds_left": 90.0}
    return {**said, "loss": 0.5, "history": [], "pid": pid, "started": 100.0, "updated": time.time(), **more}


@linux
def test_a_training_starts_says_where_it_is_and_is_published(runs, tmp_path):
    run_id = jobs.start_run(options(tmp_path, id="first"), runs)
    assert run_id == "first"
    assert phase("first", runs) in ("starting", "training")
    wait_for(lambda: jobs.read_run("first", runs).history)
    (run,) = jobs.list_runs(runs)
    assert run.running
    assert (run.backbone, run.preset, run.epochs) == ("resnet50", "scaphoid", 4)
    assert 0.2 < run.share < 1
    wait_for(lambda: phase("first", runs) == "published")
    run = jobs.read_run("first", runs)
    assert (run.share, run.running, run.resumable) == (1.0, False, False)
    assert [row["epoch"] for row in run.history] == [1, 2, 3, 4]
    assert jobs.seconds_per_epoch(options(tmp_path), runs) == 30.0, "the median of 12, 24, 36 and 48 s"
    assert jobs.seconds_per_epoch(jobs.RunOptions(tmp_path, "resnet50", "scaphoid"), runs) is None


def test_a_training_is_a_session_of_its_own_and_is_told_what_was_asked(runs, tmp_path):
    asked = options(tmp_path, id="own", weights="none", finder="wrist-finder-2", epochs=300, region="all")
    jobs.start_run(asked, runs)
    pid = json.loads((runs / "own/job.json").read_text())["pid"]
    assert os.getsid(pid) == pid, "a signal to the dashboard's terminal does not reach it"
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    expected = {f"--data={tmp_path / 'films'}", "--backbone=resnet50", "--preset=scaphoid", "--weights=none"}
    expected |= {"--finder=wrist-finder-2", "--epochs=300", "--region=all", "--id=own", f"--runs={runs}"}
    assert expected <= set(words)


@pytest.fixture
def words(monkeypatch):
    """The words of every command that would have been run; none is."""
    commands = []

    def note(command, folder, log):
        commands.append(list(command))
        return os.getpid()

    monkeypatch.setattr(jobs, "spawn", note)
    return commands


def understood(command, runs):
    """What the training command makes of the words that it is started with."""
    assert command[:3] == [sys.executable, "-m", "core.train"]
    options = build_parser().parse_args(command[3:])
    assert options.runs == runs
    return options


def test_a_training_is_started_with_what_the_command_understands(words, tmp_path):
    runs, out = tmp_path / "runs", tmp_path / "models"
    shutil.copytree(CHECKPOINTS / "wrist-finder-2", out / "wrist-finder-2")
    asked = jobs.RunOptions(
        data=tmp_path / "films --epochs=2",
        backbone="efficientnetb0",
        preset="better-mura",
        id="asked-1",
        weights="none",
        finder="wrist-finder-2",
        epochs=7,
        out=out,
        region="XR_WRIST",
        format="mura",
        positive_label="fracture",
    )
    # Every choice that there is differs from what it is where nothing is chosen, so that none can be lost unseen.
    assert not [field.name for field in fields(asked) if getattr(asked, field.name) == field.default]
    assert jobs.start_run(asked, runs) == "asked-1"
    found = make_request(understood(words[-1], runs))
    settings = replace(PRESETS["better-mura"], backbone="efficientnetb0", weights=None, epochs=7)
    expected = Request(
        "asked-1", "fracture", str(asked.data), "mura", str(out), "wrist-finder-2", None, None, settings,
        region="XR_WRIST", positive_label="fracture", cache=str(runs / jobs.CACHE_NAME),
    )  # fmt: skip
    assert json.dumps(asdict(found)) == json.dumps(asdict(expected))


def test_a_training_of_which_little_is_chosen_is_the_presets(words, tmp_path):
    runs = tmp_path / "runs"
    run_id = jobs.start_run(jobs.RunOptions(tmp_path, "densenet169", "mura-320"), runs)
    found = make_request(understood(words[-1], runs))
    settings = replace(PRESETS["mura-320"], backbone="densenet169")
    assert json.dumps(asdict(found.settings)) == json.dumps(asdict(settings))
    assert (found.id, found.out, found.finder, found.region) == (run_id, str(CHECKPOINTS), None, "all")
    assert (found.format, found.positive_label) == (None, None)


def test_all_trainings_share_one_folder_of_decoded_films_which_is_none_of_them(words, tmp_path):
    runs = tmp_path / "runs"
    for number in (1, 2):
        jobs.start_run(jobs.RunOptions(tmp_path, "resnet50", "scaphoid", id=f"run-{number}"), runs)
    requests = [make_request(understood(command, runs)) for command in words]
    assert {request.cache for request in requests} == {str(runs / jobs.CACHE_NAME)}
    assert {request.cache_gib for request in requests} == {jobs.CACHE_GIB}
    DecodedCache(runs / jobs.CACHE_NAME, 1, 8, False, 2**20, "films")
    write_run(runs, "one")
    assert "one" in {run.id for run in jobs.list_runs(runs)}
    assert jobs.CACHE_NAME not in {run.id for run in jobs.list_runs(runs)}
    with pytest.raises(CheckpointError):
        jobs.read_run(jobs.CACHE_NAME, runs)


def test_a_training_whose_start_is_not_to_be_had_is_not_begun(words, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "look_at_start", lambda *_: Start(False, False, "Weights were expected."))
    with pytest.raises(TrainingError, match="Weights were expected"):
        jobs.start_run(jobs.RunOptions(tmp_path, "efficientnetlite0", "scaphoid", id="none"), tmp_path / "runs")
    assert not words
    assert not (tmp_path / "runs").exists()


def test_a_training_starts_from_a_checkpoint_that_is_named(words, tmp_path):
    card = verify(CHECKPOINTS / default_id())
    jobs.start_run(jobs.RunOptions(tmp_path, card.backbone, "scaphoid", weights=card.id), tmp_path / "runs")
    found = make_request(understood(words[-1], tmp_path / "runs"))
    assert (found.start, found.settings.weights, found.weights_file) == (card.id, card.weights_sha256, None)


def test_a_training_is_resumed_with_what_the_command_understands(words, tmp_path):
    runs = tmp_path / "runs"
    write_run(runs, "cut-1", told(999_999_999))
    jobs.resume_run("cut-1", runs)
    options = understood(words[-1], runs)
    assert (options.resume, options.data) == ("cut-1", None)


def test_a_folder_with_a_hostile_name_is_one_argument(runs, tmp_path):
    data = tmp_path / "films; touch hacked $(touch hacked) --epochs=99"
    jobs.start_run(jobs.RunOptions(data, "resnet50", "scaphoid", id="odd", out=tmp_path / "none"), runs)
    wait_for(lambda: (runs / "odd/progress.json").exists())
    assert json.loads((runs / "odd/request.json").read_text())["data"] == str(data)
    assert not list(ROOT.glob("hacked"))


def test_stop_then_resume_goes_on_where_it_was(runs, tmp_path):
    jobs.start_run(options(tmp_path, id="cut"), runs)
    wait_for(lambda: len(jobs.read_run("cut", runs).history) >= 1)
    jobs.stop_run("cut", runs)
    wait_for(lambda: phase("cut", runs) == "stopped")
    run = jobs.read_run("cut", runs)
    done = len(run.history)
    assert (run.running, run.resumable) == (False, True)
    assert 1 <= done < 4
    with pytest.raises(TrainingError, match="cut does not"):
        jobs.stop_run("cut", runs)
    jobs.resume_run("cut", runs)
    with pytest.raises(TrainingError, match="cut runs"):
        jobs.resume_run("cut", runs)
    assert not jobs.read_run("cut", runs).stopping
    wait_for(lambda: phase("cut", runs) == "published")
    assert len(jobs.read_run("cut", runs).history) == 4
    assert jobs.tail_log("cut", runs).count("reading films") == 2, "both tries are in the log"
    with pytest.raises(TrainingError, match="nothing to go on from"):
        jobs.resume_run("cut", runs)


def test_a_training_that_does_not_listen_is_ended(runs, tmp_path):
    deaf = jobs.RunOptions(tmp_path, "resnet50", "deaf", id="deaf", out=tmp_path / "none")
    jobs.start_run(deaf, runs)
    wait_for(lambda: jobs.read_run("deaf", runs).epoch)
    jobs.stop_run("deaf", runs, patience_s=0.3)
    assert jobs.read_run("deaf", runs).stopping
    wait_for(lambda: not jobs.read_run("deaf", runs).running)
    run = jobs.read_run("deaf", runs)
    assert (run.phase, run.resumable) == ("stopped", True)


def test_a_death_without_a_word_is_seen_and_can_be_resumed(runs, tmp_path):
    jobs.start_run(jobs.RunOptions(tmp_path, "resnet50", "mute", id="mute", out=tmp_path / "none"), runs)
    wait_for(lambda: phase("mute", runs) == jobs.LOST)
    assert not jobs.read_run("mute", runs).running
    jobs.resume_run("mute", runs)
    wait_for(lambda: phase("mute", runs) == "training")


def test_one_that_never_began_failed_and_its_log_says_why(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "COMMAND", (sys.executable, "-c", "raise SystemExit('No films here.')"))
    jobs.start_run(options(tmp_path, id="empty"), runs)
    wait_for(lambda: phase("empty", runs) == "failed")
    assert not jobs.read_run("empty", runs).resumable
    assert jobs.tail_log("empty", runs) == "No films here."


@pytest.mark.parametrize("run_id", ["../up", "Upper", "", "a/b", "a b", ".hidden"])
def test_an_id_that_is_no_id_is_refused_everywhere(runs, tmp_path, run_id):
    runs.mkdir()
    calls = [lambda: jobs.read_run(run_id, runs), lambda: jobs.stop_run(run_id, runs)]
    calls += [lambda: jobs.resume_run(run_id, runs), lambda: jobs.tail_log(run_id, runs)]
    if run_id:
        calls.append(lambda: jobs.start_run(options(tmp_path, id=run_id), runs))
    for call in calls:
        with pytest.raises(CheckpointError, match="id must be"):
            call()
    assert list(runs.iterdir()) == []


def test_a_name_that_is_taken_is_refused(runs, tmp_path):
    write_run(runs, "taken")
    (tmp_path / "checkpoints" / "model").mkdir(parents=True)
    with pytest.raises(TrainingError, match="taken was begun before"):
        jobs.start_run(options(tmp_path, id="taken"), runs)
    with pytest.raises(TrainingError, match="a model called model exists"):
        jobs.start_run(options(tmp_path, id="model"), runs)
    assert not (runs / "model").exists()


@linux
def test_a_name_is_free_again_where_the_training_ended_before_it_had_begun(runs, tmp_path, process_of):
    dead = process_of()
    ticks = processes.ticks_of(dead.pid)
    for name, pid, began in (("dead", dead.pid, ticks), ("alive", None, None)):
        process = process_of("core.train") if pid is None else dead
        job = {"pid": process.pid, "started": 1.0, "ticks": began or processes.ticks_of(process.pid)}
        write_run(runs, name, request=False, job=job)
    dead.kill()
    dead.wait()
    assert jobs.start_run(options(tmp_path, id="dead"), runs) == "dead"
    (runs / "soon").mkdir()
    (runs / "archive" / "older").mkdir(parents=True)
    (runs / "notes").mkdir()
    (runs / "notes" / "mine.txt").write_text("kept")
    for kept in ("archive", "notes"):
        os.utime(runs / kept, (1.0, 1.0))
    for taken in ("alive", "soon", "archive", "notes"):
        with pytest.raises(TrainingError, match=f"{taken} was begun before"):
            jobs.start_run(options(tmp_path, id=taken), runs)
    os.utime(runs / "soon", (1.0, 1.0))
    assert jobs.start_run(options(tmp_path, id="soon"), runs) == "soon"


def test_a_full_disk_neither_keeps_a_name_nor_keeps_a_training_from_being_stopped(runs, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "spawn", full)
        with pytest.raises(TrainingError, match="the system says: No space left on device"):
            jobs.start_run(options(tmp_path, id="first"), runs)
    assert not (runs / "first").exists()
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "write_atomically", full)
        assert jobs.start_run(options(tmp_path, id="unnoted"), runs) == "unnoted"
    jobs.start_run(options(tmp_path, id="first"), runs)
    wait_for((runs / "first" / "progress.json").exists)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        jobs.stop_run("first", runs)
    wait_for(lambda: phase("first", runs) == "stopped")


def sleeper(*words):
    """Start a process that does nothing, with `words` on its command line."""
    code = "import time; print(flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE)
    process.stdout.read(1)  # its command line is its own from here on
    return process


@pytest.fixture
def process_of():
    started = []
    yield lambda *words: started.append(sleeper(*words)) or started[-1]
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_training_begun_in_a_terminal_is_known_by_its_command_line(runs, process_of):
    for words in (("core.train", "--data", "x"), ("core.train", "--id", "here"), ("core.train", "--resume=here")):
        process = process_of(*words)
        folder = write_run(runs, "here", told(process.pid))
        assert jobs.read_run("here", runs).running, words
        process.kill()
        process.wait()
        assert phase("here", runs) == jobs.LOST
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


@linux
def test_another_process_with_the_same_number_is_never_taken_for_the_training(runs, process_of):
    strangers = {
        "other": process_of("editor").pid,
        "neighbour": process_of("core.train", "--id=somebody-else").pid,
        "resumed": process_of("core.train", "--resume", "somebody-else").pid,
        "init": 1,
        "nonsense": "12",
    }
    for run_id, pid in strangers.items():
        write_run(runs, run_id, told(pid))
    # The very process that the dashboard started is known by when it began, not by its number alone.
    pid = process_of("core.train").pid
    ticks = processes.ticks_of(pid)
    write_run(runs, "recycled", told(pid), job={"pid": pid, "started": 1.0, "ticks": ticks - 1})
    for run_id in (*strangers, "recycled"):
        assert phase(run_id, runs) == jobs.LOST, run_id
        with pytest.raises(TrainingError, match="does not"):
            jobs.stop_run(run_id, runs)
    (runs / "recycled/job.json").write_text(json.dumps({"pid": pid, "started": 1.0, "ticks": ticks}))
    assert jobs.read_run("recycled", runs).running


@linux
def test_a_process_that_ended_and_is_not_yet_buried_does_not_run(runs):
    process = subprocess.Popen([sys.executable, "-c", "pass", "core.train"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    write_run(runs, "ended", told(process.pid))
    assert phase("ended", runs) == jobs.LOST
    process.wait()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"phase": 3, "pid": true, "history": {"a": 1}, "done": "x", "total": 0, "epoch": null}']
)
def test_a_torn_progress_file_is_no_fault_of_the_page(runs, text):
    folder = write_run(runs, "torn")
    (folder / "progress.json").write_text(text)
    (runs / "not-a-run").mkdir()
    (runs / "Notes.txt").write_text("hello")
    (run,) = jobs.list_runs(runs)
    assert (run.phase, run.share, run.history, run.resumable) == (jobs.LOST, 0.0, (), True)


def test_where_the_system_names_no_processes_a_silent_one_is_taken_for_dead(runs, process_of, monkeypatch):
    monkeypatch.setattr(processes, "_PROCESSES", Path("/nowhere"))
    pid = process_of("core.train").pid
    write_run(runs, "talks", told(pid))
    write_run(runs, "silent", told(pid, updated=time.time() - processes.SILENCE_S - 1))
    write_run(runs, "gone", told(999_999_999))
    assert {run.id: run.running for run in jobs.list_runs(runs)} == {"talks": True, "silent": False, "gone": False}


class Windows:
    """As kernel32 answers of one process that lives, one that ended, and one that may not be asked about."""

    living, ended, began = 1200, 1300, 134_000_000_000_000_000

    def __init__(self):
        self.open = []
        self.OpenProcess = lambda rights, inherit, pid: self.open.append(pid) or 2**40 + pid if pid != 1400 else None

    def _pid(self, handle):
        return handle.value - 2**40

    def GetExitCodeProcess(self, handle, code):  # noqa: N802
        code._obj.value = 259 if self._pid(handle) == self.living else 1
        return 1

    def GetProcessTimes(self, handle, begun, *others):  # noqa: N802
        begun._obj.value = self.began
        return 1

    def CloseHandle(self, handle):  # noqa: N802
        self.open.remove(self._pid(handle))


def test_on_windows_a_process_is_known_by_when_it_began(monkeypatch):
    system = Windows()
    told = {pid: processes._ticks_on_windows(pid, system) for pid in (system.living, system.ended, 1400)}
    assert told == {system.living: system.began, system.ended: None, 1400: None}
    assert system.open == [], "a handle that is not closed is a leak"
    monkeypatch.setattr(processes, "_PROCESSES", Path("/nowhere"))
    monkeypatch.setattr(processes.os, "name", "nt")
    monkeypatch.setattr(processes, "ticks_of", told.get)
    long_ago = time.time() - 2 * processes.SILENCE_S
    alive = {
        (pid, ticks): processes.is_alive(processes.Claim(pid, long_ago, ticks), "run")
        for pid in (system.living, system.ended)
        for ticks in (system.began, system.began - 1, None)
    }
    assert alive == {key: key == (system.living, system.began) for key in alive}


def test_final_words_stand_even_while_the_process_still_tidies_up(runs, process_of):
    pid = process_of("core.train").pid
    for said in jobs.FINAL_PHASES:
        write_run(runs, said, told(pid, phase=said, message="Said."))
        run = jobs.read_run(said, runs)
        assert (run.phase, run.message, run.running) == (said, "Said.", False)
    assert {run.id: run.resumable for run in jobs.list_runs(runs)} == {
        "published": False,
        "stopped": True,
        "failed": True,
    }


def test_those_that_run_come_first_then_the_latest(runs, process_of):
    pid = process_of("core.train").pid
    write_run(runs, "old", told(1, started=10.0))
    write_run(runs, "new", told(1, started=20.0))
    write_run(runs, "running", told(pid, started=5.0))
    assert [run.id for run in jobs.list_runs(runs)] == ["running", "new", "old"]
    assert jobs.list_runs(runs / "nowhere") == ()


def test_the_log_shows_its_last_lines_without_the_place_of_the_films(runs):
    folder = write_run(runs, "logged")
    lines = [f"line {n}" for n in range(4000)] + [
        "1/9\r2/9\r9/9 done",
        "",
        "I0000 00:00:17 port.cc] on",
        "cannot read /films/of/anna/image1.png",
    ]
    (folder / "log.txt").write_text("\n".join(lines) + "\n")
    assert jobs.tail_log("logged", runs, 3).split("\n") == [
        "line 3999",
        "9/9 done",
        "cannot read (the films)/anna/image1.png",
    ]
    assert jobs.tail_log("nothing", runs) == ""


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "Epoch 2 of 4 · about 2 min left · loss 0.500"),
        ({"seconds_left": 9000.0}, "Epoch 2 of 4 · about 2.5 h left · loss 0.500"),
        ({"seconds_left": None, "loss": None}, "Epoch 2 of 4"),
        ({"epoch": 0, "seconds_left": None, "loss": None}, "The network is being made ready"),
        (
            {"phase": "reading", "message": "Reading 40 films.", "seconds_left": 3.0, "epoch": 0},
            "Reading 40 films · less",
        ),
    ],
)
def test_progress_in_words(runs, process_of, changes, sentence):
    write_run(runs, "run", told(process_of("core.train").pid, **changes))
    assert jobs.progress_sentence(jobs.read_run("run", runs)).startswith(sentence)


# --- what a folder holds ----------------------------------------------------------------------------------------------


def test_a_survey_counts_what_there_is_and_names_no_file(tmp_path):
    films = {
        "train/XR_WRIST/patient00001/study1_positive": 2,
        "train/XR_WRIST/patient00001/study2_negative": 1,
        "train/XR_WRIST/patient00002/study1_negative": 3,
        "valid/XR_WRIST/patient00003/study1_positive": 1,
    }
    for study, count in films.items():
        for number in range(count):
            path = tmp_path / study / f"image{number + 1}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png_film())
    (tmp_path / "train/XR_WRIST/patient00002/study1_negative/image9.png").write_bytes(b"")
    found = survey_dataset(tmp_path)
    assert found.sentence == "7 films of 4 studies, in the layout of MURA."
    assert [tuple(row.values()) for row in found.rows] == [
        ("for training", 3, 6, 2, "1 (33%)"),
        ("for validation", 1, 1, 1, "1 (100%)"),
    ]
    assert len(found.left_out) == len({p.reason for p in index_dataset(tmp_path).problems}) == 1
    assert found.left_out[0].startswith("1 × ")
    assert "image9" not in " ".join((*found.left_out, *found.notes))
    assert not found.simulated
    assert not found.with_regions


def test_a_survey_names_the_parts_of_the_body_and_counts_the_one_that_is_asked_for(tmp_path):
    for part, films in (("WRIST", 2), ("ELBOW", 3)):
        for number in range(films):
            path = tmp_path / f"train/XR_{part}/patient0000{number}/study1_positive/image1.png"
            path.parent.mkdir(parents=True)
            path.write_bytes(png_film())
    counts = {region: survey_dataset(tmp_path, region).rows[0]["films"] for region in (None, "XR_ELBOW", "all")}
    assert counts == {None: 2, "XR_ELBOW": 3, "all": 5}
    assert all(survey_dataset(tmp_path, region).parts == ("XR_ELBOW", "XR_WRIST") for region in counts)
    shutil.rmtree(tmp_path / "train/XR_ELBOW")
    assert survey_dataset(tmp_path).parts == ()


@pytest.mark.parametrize(
    ("films", "layout", "label", "told"),
    [
        (("Abnormal/1.png", "Normal/2.png"), "folders", "abnormal", True),
        (("Fracture/1.png", "Normal/2.png"), "folders", "fracture", True),
        (("positive/1.png", "negative/2.png"), "folders", "fracture", False),
        (("train/XR_WRIST/patient1/study1_positive/image1.png",), "mura", "abnormal", False),
    ],
)
def test_what_positive_means_is_asked_for_where_a_dataset_does_not_say(tmp_path, films, layout, label, told):
    for film in films:
        (tmp_path / film).parent.mkdir(parents=True)
        (tmp_path / film).write_bytes(png_film())
    for named in (None, layout):
        found = survey_dataset(tmp_path, format=named)
        assert (found.positive_label, found.positive_told) == (label, told)
    with pytest.raises(DatasetError):
        survey_dataset(tmp_path, format="graz")


@pytest.mark.parametrize("region", [None, "XR_ELBOW", "all"])
def test_what_is_found_in_a_named_layout_is_what_is_found_by_looking(tmp_path, region):
    for part, films in (("WRIST", 2), ("ELBOW", 3)):
        for number in range(films):
            path = tmp_path / f"train/XR_{part}/patient0000{number}/study1_positive/image1.png"
            path.parent.mkdir(parents=True)
            path.write_bytes(png_film())
    assert asdict(survey_dataset(tmp_path, region, "mura")) == asdict(survey_dataset(tmp_path, region))


def show_survey(known):
    from core.train.survey import DatasetSurvey
    from pages.parts import trainings

    trainings._show_survey(DatasetSurvey("7 films.", ({"": "all", "films": 7},), (), (), False, known))


@pytest.mark.parametrize("known", [True, False])
def test_the_train_page_says_where_whole_films_are_read(known):
    app = AppTest.from_function(show_survey, kwargs={"known": known}).run()
    assert not app.exception
    sentence = "Whole films are read: it is not known of every film where the wrist is."
    assert [caption.value for caption in app.caption] == ([] if known else [sentence])


def test_a_survey_of_nothing_is_one_sentence(tmp_path):
    with pytest.raises(DatasetError) as error:
        survey_dataset(tmp_path / "nowhere")
    assert str(tmp_path) not in str(error.value)
