"""Stands in for ``core.train`` where a test needs a training that runs, says where it is and stops, and no network.

It takes the command's options and keeps its promises: request.json, progress.json, a clean stop on SIGTERM with
status 130, and going on with --resume. ``--preset deaf`` ignores SIGTERM; ``--preset mute`` dies without a word.
"""

import argparse
import json
import math
import os
import signal
import sys
import time
from pathlib import Path

STEPS, STEP_S = 10, 0.06


def say(folder, epochs, **more):
    content = {"id": folder.name, "message": "", "epochs": epochs, "total": epochs * STEPS, "pid": os.getpid(), **more}
    aside = folder / "progress.json.part"
    aside.write_text(json.dumps(content | {"updated": time.time()}))
    aside.replace(folder / "progress.json")


def row(epoch):
    loss = math.exp(-epoch / 3)
    rates = {"learning_rate": 1e-3 / epoch, "loss": loss, "valid_loss": 0.9 * loss, "valid_auc": 1 - loss / 4}
    return {"epoch": epoch, "size": 160, "seconds": 12.0 * epoch, "waiting": 0.01, **rates}


def main():
    parser = argparse.ArgumentParser()
    for name in ("data", "backbone", "preset", "weights", "finder", "epochs", "region", "out", "id", "runs", "resume"):
        parser.add_argument(f"--{name}")
    for name in ("cache", "format", "positive-label"):
        parser.add_argument(f"--{name}")
    options = parser.parse_args()
    folder = Path(options.runs) / (options.resume or options.id)
    began, history = time.time(), []
    if options.resume:
        request = json.loads((folder / "request.json").read_text())
        before = json.loads((folder / "progress.json").read_text())
        began, history = before["started"], before["history"]
    else:
        settings = {"backbone": options.backbone, "preset": options.preset, "epochs": int(options.epochs or 4)}
        request = {"id": options.id, "data": options.data, "settings": settings}
        (folder / "request.json").write_text(json.dumps(request))
    preset, epochs = request["settings"]["preset"], request["settings"]["epochs"]
    stopped = []
    signal.signal(signal.SIGTERM, signal.SIG_IGN if preset == "deaf" else lambda *_: stopped.append(True))
    print(f"reading films of {request['data']}", flush=True)
    if preset == "mute" and not options.resume:
        say(folder, epochs, phase="training", epoch=1, done=3, seconds_left=9.0, loss=0.7, history=[], started=began)
        os._exit(9)
    while len(history) < epochs:
        epoch = len(history) + 1
        for step in range(STEPS):
            now = {"epoch": epoch, "done": STEPS * (epoch - 1) + step, "history": history, "started": began}
            now["loss"] = math.exp(-(epoch + step / STEPS) / 3)
            say(folder, epochs, phase="training", seconds_left=(epochs - epoch) * 60.0, **now)
            if stopped:
                say(folder, epochs, phase="stopped", seconds_left=None, **now)
                return 130
            time.sleep(STEP_S)
        history.append(row(epoch))
        print(f"epoch {epoch} done", flush=True)
    done = {"epoch": epochs, "done": epochs * STEPS, "seconds_left": None, "loss": None}
    say(folder, epochs, phase="published", history=history, started=began, **done)
    return 0


if __name__ == "__main__":
    sys.exit(main())
