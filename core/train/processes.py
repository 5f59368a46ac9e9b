"""Processes that outlive the one that started them, known again later, and never mistaken for another one."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

# Where the system does not say which process is which, one that wrote nothing for so long is taken for dead.
SILENCE_S = 300.0
_PROCESSES = Path("/proc")


class Claim(NamedTuple):
    """A process that is said to carry a run, when that was said, and when it began in ticks, where that is known."""

    pid: int
    seen: float
    ticks: int | None


def spawn(command: Sequence[str], folder: Path, log: Path) -> int:
    """Run a command apart from this process, in `folder`, its output added to `log`; return its number."""
    if os.name == "nt":
        apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.DETACHED_PROCESS}
    else:
        apart = {"start_new_session": True}
    with open(log, "ab") as output:
        process = subprocess.Popen(  # noqa: S603 (a list of arguments and no shell)
            list(command),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            **apart,
        )
    # A child nobody waits for would stay in the list of processes after its end.
    threading.Thread(target=process.wait, daemon=True, name=f"wait-{process.pid}").start()
    return process.pid


def ask_to_stop(claim: Claim, run_id: str, patience_s: float) -> None:
    """Ask a process to stop, and kill it if it is still the same one after `patience_s` seconds; returns at once."""
    try:
        os.kill(claim.pid, signal.SIGTERM)
    except OSError:  # of whatever kind: Windows calls a process that is no more a wrong parameter
        return  # It ended in between, which is what was asked for.
    threading.Thread(target=_end, args=(claim, run_id, patience_s), daemon=True, name=f"end-{run_id}").start()


def _end(claim: Claim, run_id: str, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while is_alive(claim, run_id):
        if time.monotonic() >= deadline:
            _kill(claim.pid)
            return
        time.sleep(min(0.2, patience_s / 10 + 0.01))


def _kill(pid: int) -> None:
    try:
        if os.name == "nt":
            os.kill(pid, signal.SIGTERM)  # Windows knows no milder way and no harder one.
        elif os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)  # its worker processes with it
        else:
            os.kill(pid, signal.SIGKILL)
    except OSError:
        return


def lock_file(file: Any) -> bool:
    """Lock an open file until it is closed or this process ends; return whether nobody else has it locked.

    Where the system or the file's place knows no locks, nobody has.
    """
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
    return True


def is_alive(claim: Claim, run_id: str) -> bool:
    """Tell whether the process of a claim lives and is that run's, and not another one that was given its number."""
    named = (_PROCESSES / "self/stat").exists()
    if named or os.name == "nt":
        ticks = ticks_of(claim.pid)
        if ticks is None or claim.ticks is not None:
            return ticks is not None and ticks == claim.ticks
    if named:
        return _trains(claim.pid, run_id)
    silent = time.time() - claim.seen > SILENCE_S
    if os.name == "nt":  # Here os.kill would end the process that it is asked about.
        return not silent
    try:
        os.kill(claim.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return not silent


def ticks_of(pid: int) -> int | None:
    """Return when a living process began, in the system's ticks; None where there is none or the system is silent."""
    if os.name == "nt":
        import ctypes

        return _ticks_on_windows(pid, ctypes.windll.kernel32)
    try:
        text = (_PROCESSES / f"{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _ticks_on_windows(pid: int, kernel: Any) -> int | None:
    """Do as `ticks_of` by Windows' kernel32; its ticks are tenths of a microsecond since 1601."""
    import ctypes

    may_ask, still_active = 0x1000, 259
    # A handle is a pointer: returned as the number that ctypes takes it for, it would be cut off.
    kernel.OpenProcess.restype = ctypes.c_void_p
    handle = kernel.OpenProcess(may_ask, False, pid)
    if not handle:
        return None
    handle = ctypes.c_void_p(handle)
    try:
        code, times = ctypes.c_uint32(), [ctypes.c_uint64() for _ in range(4)]  # begun, ended, in the kernel, outside
        asked = kernel.GetExitCodeProcess(handle, ctypes.byref(code))
        asked = asked and kernel.GetProcessTimes(handle, *map(ctypes.byref, times))
        return times[0].value if asked and code.value == still_active else None
    finally:
        kernel.CloseHandle(handle)


def _trains(pid: int, run_id: str) -> bool:
    """Tell by its command line whether a process trains, and no other run than this."""
    try:
        words = (_PROCESSES / f"{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return False
    if not any(word == "core.train" or "core/train" in word.replace("\\", "/") for word in words):
        return False
    named = [word.partition("=")[2] for word in words if word.startswith(("--id=", "--resume="))]
    named += [after for word, after in pairwise(words) if word in ("--id", "--resume")]
    return not named or run_id in named
