"""Runs: how they are told about, how they end, and how several machines keep in step."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from core import train
from core.checkpoints import publish
from core.errors import CheckpointError, TrainingError
from core.train.devices import prepare_devices
from core.train.inputs import _tell_beyond
from core.train.loop import check_in_step
from core.train.runs import show_row
from core.values import Checkpoint
from core.wrist import build_finder


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
