"""Learning rates and the end of training, as plain functions of what was seen so far: a resumed run goes on alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

from core.train.presets import option
from core.values import TrainingSettings

# The rate starts and ends at these shares of its peak.
FIRST_SHARE, LAST_SHARE = 0.02, 0.01
# A loss that falls by less than this is no progress to a plateau, as in Keras' ReduceLROnPlateau.
SMALLEST_FALL = 1e-4


def learning_rate(settings: TrainingSettings, step: int, steps: int, losses: Sequence[float] = ()) -> float:
    """Return the learning rate of one step.

    It rises in a straight line over `warmup_epochs`, then follows the schedule: half a cosine to 1% (Loshchilov and
    Hutter 2017, https://arxiv.org/abs/1608.03983), a plateau's steps, or nothing.

    Parameters
    ----------
    settings : TrainingSettings
    step : int
        Counted from 0 over the whole run.
    steps : int
        In one epoch.
    losses : sequence of float
        On valid, after each epoch before this one.
    """
    peak = settings.learning_rate
    total = max(1, settings.epochs * steps)
    warmup = max(0, min(int(settings.warmup_epochs * steps), total - 1))
    if step < warmup:
        return peak * (FIRST_SHARE + (1.0 - FIRST_SHARE) * step / warmup)
    schedule = option(settings, "schedule")
    if schedule == "constant":
        return peak
    if schedule == "plateau":
        return plateau_rate(settings, losses)
    along = min(1.0, (step - warmup) / max(1, total - warmup))
    return peak * (LAST_SHARE + (1.0 - LAST_SHARE) * 0.5 * (1.0 + math.cos(math.pi * along)))


def plateau_rate(settings: TrainingSettings, losses: Sequence[float]) -> float:
    """Return the rate after these losses on valid: lowered each time they have not fallen for some epochs."""
    factor, patience = float(option(settings, "plateau_factor")), int(option(settings, "plateau_patience"))
    smallest = float(option(settings, "plateau_smallest"))
    rate, best, waited = settings.learning_rate, math.inf, 0
    for loss in losses:
        if loss < best - SMALLEST_FALL:
            best, waited = loss, 0
            continue
        waited += 1
        if waited >= patience and rate > smallest:
            rate, waited = max(rate * factor, smallest), 0
    return rate


def best_epoch(losses: Sequence[float]) -> int:
    """Return the epoch, counted from 0, with the lowest loss; the first of equals."""
    return min(range(len(losses)), key=losses.__getitem__)


def should_stop(losses: Sequence[float], patience: int) -> bool:
    """Tell whether the loss on valid has not been lower than before for `patience` epochs; never where that is 0."""
    return bool(patience) and len(losses) > 1 and len(losses) - 1 - best_epoch(losses) >= patience
