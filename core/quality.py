"""Is this film fit to be read by a wrist classifier? A refusal in plain words is better than a number about nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.values import Radiograph, WristRegion

# Confidence is calibrated on simulated films, and on real films that show no wrist the finder is too sure of itself. So
# the levels stand high: real wrist films have more than 0.9, most real films of legs, elbows and hips less than 0.8
# (figures in checkpoints/README.md).
REFUSED_BELOW = 0.8
UNSURE_BELOW = 0.95
# Training blurs the wrist's square down to some 60 pixels across, not further.
FEWEST_PIXELS = 60
TOO_FEW_PIXELS = 30
# Difference of the 99th and the 1st percentile of the pixels, of the full range 1.
BLANK_CONTRAST = 0.04
LOW_CONTRAST = 0.12
# Share of the wrist's square that lies on the film.
MOSTLY_OUTSIDE = 0.35
PARTLY_OUTSIDE = 0.5

LEVELS = ("good", "limited", "unfit")


@dataclass(frozen=True, eq=False)
class Quality:
    """Whether a film is fit to be read.

    Attributes
    ----------
    level : str
        ``"good"``; ``"limited"``: read it, but trust it less; ``"unfit"``: do not read it.
    reasons : tuple of str
        Plain sentences, the gravest first; empty where the level is ``"good"``.
    """

    level: str
    reasons: tuple[str, ...] = ()


def assess(radiograph: Radiograph, region: WristRegion | None = None) -> Quality:
    """Say whether a film is fit to be read by a wrist classifier.

    Parameters
    ----------
    radiograph : Radiograph
    region : WristRegion, optional
        Where the wrist was found or set; None where the classifier reads the whole film.

    Returns
    -------
    Quality
        The level is the worst of all that was found.
    """
    findings = [_judge_contrast(radiograph, region), _judge_pixels(radiograph, region)]
    if region is not None:
        findings += [_judge_confidence(region), _judge_overlap(radiograph, region)]
    found = sorted((finding for finding in findings if finding), key=lambda finding: -LEVELS.index(finding[0]))
    if not found:
        return Quality("good")
    return Quality(found[0][0], tuple(reason for _, reason in found))


def overlap(radiograph: Radiograph, region: WristRegion) -> float:
    """Return the share of the region's upright square that lies on the film, [0, 1]."""
    left, top = region.x - region.side / 2, region.y - region.side / 2
    across = min(left + region.side, radiograph.width) - max(left, 0.0)
    down = min(top + region.side, radiograph.height) - max(top, 0.0)
    return float(max(across, 0.0) * max(down, 0.0) / max(region.side, 1e-6) ** 2)


def _judge_contrast(radiograph: Radiograph, region: WristRegion | None) -> tuple[str, str] | None:
    part = radiograph.pixels
    if region is not None:
        half = region.side / 2
        rows = slice(max(int(region.y - half), 0), max(int(np.ceil(region.y + half)), 0))
        columns = slice(max(int(region.x - half), 0), max(int(np.ceil(region.x + half)), 0))
        inside = part[rows, columns]
        part = inside if inside.size else part
    step = max(1, int(np.sqrt(part.size / 250_000)))
    dark, bright = np.percentile(part[::step, ::step], (1, 99))
    if bright - dark < BLANK_CONTRAST:
        return "unfit", "The film is blank, or so faint that nothing can be told apart on it."
    if bright - dark < LOW_CONTRAST:
        return "limited", "The film has very little contrast, less than the films this model was trained on."
    return None


def _judge_pixels(radiograph: Radiograph, region: WristRegion | None) -> tuple[str, str] | None:
    across = min(radiograph.height, radiograph.width) if region is None else region.side
    what = "The film" if region is None else "The wrist"
    if across < TOO_FEW_PIXELS:
        return "unfit", f"{what} is only {across:.0f} pixels across; at least {FEWEST_PIXELS} are needed."
    if across < FEWEST_PIXELS:
        return "limited", f"{what} is only {across:.0f} pixels across; from {FEWEST_PIXELS} on it can be read well."
    return None


def _judge_confidence(region: WristRegion) -> tuple[str, str] | None:
    if region.set_by_reader or region.confidence >= UNSURE_BELOW:
        return None
    if region.confidence < REFUSED_BELOW:
        return "unfit", "No wrist was found with confidence; if this is a wrist, set the square by hand."
    return "limited", "The wrist was found with little confidence; check the square, or set it by hand."


def _judge_overlap(radiograph: Radiograph, region: WristRegion) -> tuple[str, str] | None:
    share = overlap(radiograph, region)
    if share < MOSTLY_OUTSIDE:
        return "unfit", "The wrist lies mostly outside the film."
    if share < PARTLY_OUTSIDE:
        return "limited", "A large part of the wrist lies outside the film."
    return None
