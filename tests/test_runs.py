"""Runs: how they are told about, how they end, how several machines keep in step, and that one process trains each."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from core import train
from core.checkpoints import publish
from core.errors import CheckpointError, TrainingError
from core.train import inputs, loop, runs
from core.train.__main__ import build_parser, main, make_request
from core.train.devices import prepare_devices
from core.train.inputs import _tell_beyond
from core.train.loop import check_in_step
from core.train.processes import ticks_of
from core.train.runs import State, show_row
from core.values import Checkpoint, TrainingSettings
from core.wrist import build_finder
from tests.test_publish import film, make_data
from tests.test_publish import make_request as ask

ROOT = Path(__file__).parent.parent


def test_a_row_says_how_long_the_network_waited_and_warns_where_it_was_long():
    row = {"epoch": 2, "seconds": 12.5, "waiting": 0.0123, "loss": 0.5}
    assert show_row(row) == "epoch 2, seconds 12.5, waiting for films 1.2%, loss 0.5"
    assert "note: the network waited for films" in show_row(row | {"waiting": 0.05})


@pytest.mark.parametrize(("cache", "helps"), [(None, "--cache DIR"), ("kept", "--cache-gib")])
def test_films_that_are_decoded_in_every_epoch_are_counted(capsys, cache, helps):
    class Part:
        def __init__(self, films, beyond):
            self.films, self.beyond = films, beyond

        def __len__(self):
            return self.films

    _tell_beyond(SimpleNamespace(cache=cache), Part(10, 0), Part(5, 0))
    assert not capsys.readouterr().err
    _tell_beyond(SimpleNamespace(cache=cache), Part(1000, 200), Part(500, 100))
    said = capsys.readouterr().err
    assert "300 of 1,500 films" in said
    assert helps in said


def test_machines_that_are_not_in_step_do_not_train_together():
    class Machines:
        """All that are asked, as one of them sees it."""

        def __init__(self, *others):
            self.others = others

        def run(self, ask):
            return float(ask())

        def reduce(self, how, answer, axis):
            # Each of the others answers with its own epochs, or with their square, as this one does.
            power = 1 if answer in (0.0, 1.0) or answer == self.mine else 2
            return (answer + sum(float(other) ** power for other in self.others)) / (1 + len(self.others))

    for mine, others, fit in ((3, (3, 3), True), (3, (0,), False), (2, (1, 3), False), (0, (0,), True)):
        machines = Machines(*others)
        machines.mine = float(mine)
        if fit:
            check_in_step(machines, mine)
        else:
            with pytest.raises(TrainingError, match="folder of runs that all of them share"):
                check_in_step(machines, mine)


def test_the_same_figures_from_run_to_run_are_promised_on_tensorflow_alone(monkeypatch):
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    monkeypatch.setattr("core.train.devices.gpu_capabilities", list)
    assert prepare_devices("auto", 32)[0] == "float32"
    with pytest.raises(TrainingError, match="TensorFlow alone"):
        prepare_devices("auto", 32, deterministic=True)


def test_a_run_that_died_after_it_had_published_is_found_to_be_done(tmp_path):
    out, runs = tmp_path / "out", tmp_path / "runs"
    settings = train.PRESETS["wrist"]
    card = Checkpoint(
        "done-1", "F", "wrist", "efficientnetlite0", "top", 32, settings=settings, data={"split": "e" * 64}
    )
    out.mkdir()
    publish(out, card, build_finder(32), [])
    request = train.Request("done-1", "wrist", str(tmp_path / "films"), None, str(out), None, None, None, settings)
    request = replace(request, split="e" * 64)
    folder = train.RunFolder(runs / "done-1")
    folder.save_request(request)
    with pytest.raises(CheckpointError, match="must have a new id"):
        train.train(request, runs)  # it has not trained an epoch: the checkpoint is another's
    (folder.folder / train.STATE_NAME).write_bytes(b"the state after an epoch")
    assert train.train(folder.load_request(), runs).id == "done-1"
    assert '"phase": "published"' in (folder.folder / train.PROGRESS_NAME).read_text()
    for other in (replace(request, split="f" * 64), replace(request, settings=replace(settings, seed=5))):
        with pytest.raises(CheckpointError, match="must have a new id"):
            train.train(other, runs)


# --- one process a run ------------------------------------------------------------------------------------------------


@pytest.fixture
def other():
    """Another process, which lives."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def begin(place, name="two-1"):
    """Write a run that was begun; return its folder."""
    run = train.RunFolder(place / name)
    run.save_request(replace(ask(place / "films", out=str(place / "out")), id=name))
    return run


def lock(run, pid, ticks):
    (run.folder / runs.LOCK_NAME).write_text(json.dumps({"pid": pid, "ticks": ticks}))


def test_a_second_process_on_a_run_is_refused_and_leaves_it_alone(tmp_path, other, monkeypatch, capsys):
    monkeypatch.setattr(train, "collect_films", lambda _: pytest.fail("films were looked for"))
    run = begin(tmp_path)
    (run.folder / train.PROGRESS_NAME).write_text("theirs")
    (run.folder / "state.npz.77.part").write_bytes(b"theirs, half written")
    lock(run, other.pid, ticks_of(other.pid))
    before = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    assert main(["--resume", "two-1", "--runs", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said == "A run is trained by one process at a time, but another one trains two-1 already.\n"
    after = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    assert after == before | {runs.HELD_NAME: b""}


def test_who_holds_a_run_is_asked_of_the_system_and_not_of_a_note(tmp_path, monkeypatch, capsys):
    """The note of a training that lives may be gone, or its process not to be seen from here."""
    run = begin(tmp_path)
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom core.train.runs import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).held():\n    print('held', flush=True)\n    time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, run.folder], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        (run.folder / runs.LOCK_NAME).unlink()
        monkeypatch.setattr(train, "collect_films", lambda _: pytest.fail("films were looked for"))
        assert main(["--resume", "two-1", "--runs", str(tmp_path)]) == 1
        assert "another one trains two-1 already" in capsys.readouterr().err
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with run.held():
        pass


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked at as Linux shows them")
def test_a_run_is_held_while_it_is_trained_and_what_a_killed_process_left_is_cleared(tmp_path, other, monkeypatch):
    run = begin(tmp_path)
    halves = ["state.npz.part", "state.npz.77.part", "progress.json.77.part"]
    for name in (*halves, "job.json.77.part"):
        (run.folder / name).write_bytes(b"half")
    held = []

    def stop(request):
        held.append(json.loads((run.folder / runs.LOCK_NAME).read_text()))
        raise train.Stopped

    monkeypatch.setattr(train, "collect_films", stop)

    def resume():
        assert main(["--resume", "two-1", "--runs", str(tmp_path)]) == 130
        assert not (run.folder / runs.LOCK_NAME).exists()

    resume()
    assert not [name for name in halves if (run.folder / name).exists()]
    assert (run.folder / "job.json.77.part").exists(), "it is another one's"
    # The number of a process that died may be another one's by now.
    lock(run, other.pid, ticks_of(other.pid) - 1)
    resume()
    (run.folder / runs.LOCK_NAME).write_text('{"pid": 12')
    resume()
    lock(run, os.getpid(), ticks_of(os.getpid()))
    resume()
    ticks = ticks_of(other.pid)
    other.kill()
    other.wait()
    lock(run, other.pid, ticks)
    resume()
    assert held == [{"pid": os.getpid(), "ticks": ticks_of(os.getpid())}] * 5


def test_of_several_machines_the_first_alone_holds_the_run(tmp_path, other, monkeypatch):
    run = begin(tmp_path)
    lock(run, other.pid, ticks_of(other.pid))
    monkeypatch.setattr(train, "_train", lambda *_: "trained")
    cluster = {"worker": ["a:1", "b:1"]}
    for number in (0, 1):
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": "worker", "index": number}}))
        if number:
            assert train.train(run.load_request(), tmp_path) == "trained"
        else:
            with pytest.raises(TrainingError, match="one process at a time"):
                train.train(run.load_request(), tmp_path)
    assert json.loads((run.folder / runs.LOCK_NAME).read_text())["pid"] == other.pid


def test_two_processes_never_write_into_one_file(tmp_path, monkeypatch):
    path, own = tmp_path / "state.npz", os.getpid()
    with runs._replacing(path) as file:
        file.write(b"half of ours, ")
        monkeypatch.setattr(runs.os, "getpid", lambda: own + 1)
        runs.write_atomically(path, b"theirs")
        assert path.read_bytes() == b"theirs"
        monkeypatch.setattr(runs.os, "getpid", lambda: own)
        file.write(b"and the rest")
    assert path.read_bytes() == b"half of ours, and the rest"
    assert [each.name for each in tmp_path.iterdir()] == ["state.npz"]


# --- what is on disk --------------------------------------------------------------------------------------------------


def test_a_state_comes_back_as_it_was_kept_and_one_of_before_is_read(tmp_path):
    run, row = train.RunFolder(tmp_path), {"epoch": 2, "loss": 0.1 + 0.2}
    run.save_state(State([np.arange(3.0)], [np.array(7)], [{"epoch": 1}], None, None, row))
    again = run.load_state()
    assert (again.history, again.unjudged, again.epochs) == ([{"epoch": 1}], row, 2)
    assert (again.weights[0].tolist(), int(again.optimizer[0]), again.average) == ([0, 1, 2], 7, None)
    # As it was written before an epoch was kept until it is judged.
    history = np.frombuffer(json.dumps([{"epoch": 1}, {"epoch": 2}]).encode(), np.uint8)
    arrays = {"weights00000": np.ones(2), "optimizer00000": np.array(3), "average00000": np.zeros(2)}
    np.savez(tmp_path / train.STATE_NAME, history=history, **arrays)
    before = run.load_state()
    assert (before.history, before.unjudged, before.epochs) == ([{"epoch": 1}, {"epoch": 2}], None, 2)
    assert (before.weights[0].tolist(), int(before.optimizer[0])) == ([1, 1], 3)
    assert (before.average[0].tolist(), before.best) == ([0, 0], None)


@pytest.mark.parametrize("damage", ["text", "empty", "cut", "flipped", "array", "other"])
def test_a_state_that_is_none_is_one_sentence(tmp_path, damage):
    run = train.RunFolder(tmp_path)
    path = tmp_path / train.STATE_NAME
    run.save_state(State([np.arange(3000.0)], [], [{"epoch": 1}]))
    whole = path.read_bytes()
    if damage == "array":
        with open(path, "wb") as file:
            np.save(file, np.zeros(3))
    elif damage == "other":
        np.savez(path, weights00000=np.zeros(3))
    else:
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        path.write_bytes({"text": b"no archive", "empty": b"", "cut": whole[:middle], "flipped": flipped}[damage])
    with pytest.raises(TrainingError, match="its file is damaged or another one") as refusal:
        run.load_state()
    assert str(refusal.value).count(".") == 1


def test_a_note_that_cannot_be_written_ends_no_training(tmp_path):
    (tmp_path / "file").write_text("")
    run, asked = train.RunFolder(tmp_path / "file" / "run"), []
    report = train.Report(run, None, lambda: bool(asked))
    report(now=True, phase="training", done=3)
    report.write(phase="stopped")
    asked.append(True)
    with pytest.raises(train.Stopped):
        report(done=4)
    assert report.content["done"] == 4
    with pytest.raises(OSError, match=r"Not a directory|exists"):
        run.save_state(State([np.zeros(2)], [], []))


# --- judging ----------------------------------------------------------------------------------------------------------


class Dark:
    """So many films to judge on, all black, every other one broken."""

    def __init__(self, count):
        self.films = [film(f"p/{number}", number % 2) for number in range(count)]

    def __len__(self):
        return len(self.films)

    def square(self, index):
        return np.zeros((8, 8), np.uint8), None


def test_a_run_that_goes_on_keeps_what_it_had_until_it_has_more(tmp_path, monkeypatch):
    run = begin(tmp_path)
    told = {"id": "two-1", "epoch": 3, "epochs": 4, "done": 30, "total": 40, "loss": 0.5, "started": 7.0, "pid": 1}
    told |= {"phase": "stopped", "message": "Stopped", "history": [{"epoch": n} for n in (1, 2, 3)], "updated": 9.0}
    (run.folder / train.PROGRESS_NAME).write_text(json.dumps(told))
    report = train.Report(run, run.load_request())
    report(now=True, phase="reading")
    now = json.loads((run.folder / train.PROGRESS_NAME).read_text())
    kept = ("epoch", "done", "total", "loss", "history", "started")
    assert {name: now[name] for name in kept} == {name: told[name] for name in kept}
    assert (now["phase"], now["pid"], now["message"]) == ("reading", os.getpid(), "")
    for other in ('{"id": "three-1", "history": [1]}', "{", "[]"):
        (run.folder / train.PROGRESS_NAME).write_text(other)
        assert train.Report(run, run.load_request()).content["history"] == []


def test_nothing_else_is_asked_for_when_a_run_goes_on(tmp_path, monkeypatch, capsys):
    run = begin(tmp_path)
    request = run.load_request()
    monkeypatch.setattr(train, "collect_films", lambda _: (_ for _ in ()).throw(train.Stopped))
    resume = ["--resume", "two-1", "--runs", str(tmp_path)]
    same = ["--data", request.data, "--backbone", request.settings.backbone, "--preset", request.settings.preset]
    same += ["--out", request.out, "--id", "two-1", "--set", f"weight_decay={request.settings.weight_decay}"]
    assert main([*resume, *same]) == 130, "what is as it was may be said again"
    for more, told in (
        (["--epochs", "50", "--cache-gib", "3"], "--epochs, --cache-gib asks"),
        (["--data", str(tmp_path / "elsewhere")], "--data asks"),
        (["--set", "dropout=0.9"], "--dropout asks"),
    ):
        assert main([*resume, *more]) == 1
        assert f"resumed as it was begun, but {told} for something else" in capsys.readouterr().err


def test_judging_says_how_far_it_is_and_can_be_stopped(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", SimpleNamespace(ops=SimpleNamespace(convert_to_numpy=np.asarray)))
    monkeypatch.setattr(runs, "PROGRESS_EVERY_S", 0.0)
    run, said = train.RunFolder(tmp_path / "run"), []

    def answer(batch):
        said.append(json.loads((run.folder / train.PROGRESS_NAME).read_text())["message"])
        return {"logit": np.zeros((len(batch), 1), np.float32)}

    row = inputs._judge_classifier(answer, 8, Dark(70), train.Report(run, None))
    assert said == [f"Judging on held-out films: {done} of 70" for done in (0, 32, 64)]
    assert row == {"valid_loss": pytest.approx(np.log(2)), "valid_auc": 0.5}
    said.clear()
    with pytest.raises(train.Stopped):
        inputs._judge_classifier(answer, 8, Dark(70), train.Report(run, None, lambda: len(said) == 2))
    assert len(said) == 2


def test_an_epoch_that_was_trained_is_judged_first_when_the_run_goes_on(tmp_path, monkeypatch):
    trained, judged = [], []

    def judge(answer, size):
        judged.append(size)
        if len(judged) in (1, 3):
            raise KeyboardInterrupt
        return {"valid_loss": 1.0 / len(judged)}

    def train_epoch(self, epoch):
        trained.append(epoch)
        return {"epoch": epoch + 1, "loss": 0.5}

    def prepare(self, epoch, state):
        self.trained, self.built_for = SimpleNamespace(optimizer=None), (64, frozenset())

    monkeypatch.setattr(loop, "_values", lambda owner: [np.arange(2.0)])
    monkeypatch.setattr(loop.Loop, "_prepare", prepare)
    monkeypatch.setattr(loop.Loop, "_run_epoch", train_epoch)
    settings = TrainingSettings("efficientnetlite0", epochs=2, input_size=64, extra={})
    request, run = ask(tmp_path, settings=settings), train.RunFolder(tmp_path / "run")
    seen = inputs.Inputs({64: SimpleNamespace(batches=3)}, judge)

    def go_on():
        return loop.Loop(request, seen, False, run, train.Report(run, request)).run()[1]

    run.folder.mkdir()
    for epoch in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            go_on()
        state = run.load_state()
        assert (state.epochs, len(state.history)) == (epoch, epoch - 1)
        assert state.unjudged == {"epoch": epoch, "loss": 0.5}
    history = go_on()
    assert trained == [0, 1]
    assert history == [{"epoch": 1, "loss": 0.5, "valid_loss": 0.5}, {"epoch": 2, "loss": 0.5, "valid_loss": 0.25}]
    assert run.load_state().history == history
    assert run.load_state().unjudged is None
    assert json.loads((run.folder / train.PROGRESS_NAME).read_text())["message"] == ""


# --- before any work --------------------------------------------------------------------------------------------------


def test_what_is_not_done_as_asked_is_said_before_training_begins(tmp_path, monkeypatch, capsys):
    said = []

    def fit(request, *_):
        said.append(capsys.readouterr().err)
        raise train.Stopped

    lacking = make_data(with_regions=False, train=(film("Doe/1", 0, known=False), *make_data().train[1:]))
    monkeypatch.setattr(train, "fit", fit)
    for name, data in (("lacking-1", lacking), ("known-1", make_data())):
        monkeypatch.setattr(train, "collect_films", lambda _, data=data: data)
        with pytest.raises(train.Stopped):
            train.train(begin(tmp_path, name).load_request(), tmp_path)
    frozen = "All layers are trained, since the network begins with nothing learned: frozen has no effect.\n"
    assert said == [f"Whole films are read: of 1 of 8 films it is not known where the wrist is.\n{frozen}", frozen]


def test_where_nothing_can_be_published_nothing_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "collect_films", lambda _: pytest.fail("films were looked for"))
    (tmp_path / "out").write_text("a file")
    run = begin(tmp_path)
    with pytest.raises(CheckpointError, match="can be written to"):
        train.train(run.load_request(), tmp_path)
    assert json.loads((run.folder / train.PROGRESS_NAME).read_text())["phase"] == "failed"


def test_what_a_dataset_calls_positive_can_be_said(tmp_path):
    options = ["--data", str(tmp_path), "--backbone", "efficientnetlite0", "--weights", "none"]
    assert make_request(build_parser().parse_args(options)).positive_label is None
    for label in ("fracture", "abnormal"):
        request = make_request(build_parser().parse_args([*options, "--positive-label", label]))
        run = train.RunFolder(tmp_path / label)
        run.save_request(request)
        assert run.load_request().positive_label == label
