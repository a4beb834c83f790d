"""Drawings of a page, as numbers that its template puts into SVG: throughput by stage, suspicion by steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.progress import duration, rate_of, size_of
from pipeline.report.scan import BINS, Scan

WIDTH, LANE = 600, 48
"""Of a lane of the throughput, in the drawing's own units."""

_UNITS: dict[str, tuple[str, str]] = {
    "read": ("samples", "read and cut into parts"),
    "purify": ("images", "purified"),
    "stage": ("bytes", "staged"),
    "commit": ("samples", "committed, shard by shard"),
    "ask": ("samples", "answered, shard by shard"),
}


@dataclass(frozen=True, slots=True)
class Lane:
    """One stage over time.

    Args:
        stage: Its name.
        about: What is counted.
        total: Of all buckets, with its unit.
        peak: The busiest bucket, a second.
        mean: From the first bucket with anything in it to the last one, a second.
        path: Its outline, for an SVG path of `WIDTH` by `LANE`.
    """

    stage: str
    about: str
    total: str
    peak: str
    mean: str
    path: str


def lanes(timeline: dict[str, Any]) -> list[Lane]:
    """The stages that had anything to do, in the order in which data meets them."""
    stages = timeline.get("stages") or {}
    bucket_s = float(timeline.get("bucket_s") or 1.0)
    num_buckets = max([1, *(len(counts) for counts in stages.values())])
    return [_lane(stage, stages[stage], bucket_s, num_buckets) for stage in _UNITS if any(stages.get(stage, ()))]


def _lane(stage: str, counts: Sequence[int], bucket_s: float, num_buckets: int) -> Lane:
    unit, about = _UNITS[stage]
    busy = [at for at, count in enumerate(counts) if count]
    active_s = (busy[-1] - busy[0] + 1) * bucket_s
    told: Callable[[float], str] = size_of if unit == "bytes" else rate_of
    total = size_of(sum(counts)) if unit == "bytes" else f"{sum(counts):,} {unit}"
    word = "" if unit == "bytes" else f" {unit}"
    return Lane(
        stage=stage,
        about=about,
        total=total,
        peak=f"{told(max(counts) / bucket_s)}{word}/s",
        mean=f"{told(sum(counts) / active_s)}{word}/s",
        path=_steps(counts, num_buckets),
    )


def _steps(counts: Sequence[int], num_buckets: int) -> str:
    """The outline of some bars, left to right, from the base line up and back to it."""
    step, most = WIDTH / num_buckets, max(counts)
    points = [f"M0 {LANE}"]
    for at, count in enumerate(counts):
        points.append(f"V{LANE * (1 - count / most):.1f}H{(at + 1) * step:.1f}")
    return f"{''.join(points)}V{LANE}Z"


def time_marks(timeline: dict[str, Any]) -> list[tuple[float, str]]:
    """Places along a lane, and what the clock said there since the start."""
    stages = timeline.get("stages") or {}
    num_buckets = max([1, *(len(counts) for counts in stages.values())])
    seconds = num_buckets * float(timeline.get("bucket_s") or 1.0)
    return [(WIDTH * share, duration(seconds * share)) for share in (0.0, 0.5, 1.0)]


@dataclass(frozen=True, slots=True)
class Step:
    """How many answers have a suspicion from one value to another: those that stayed, those that flipped."""

    low: float
    high: float
    kept: int
    flipped: int
    kept_height: float
    flipped_height: float


def steps_of_suspicion(found: Scan) -> list[Step]:
    """A histogram, heights from 0 to 1 by the logarithm: a hundred flips shall show beside a million answers."""
    most = math.log1p(max(1, int(found.kept_by_suspicion.max()), int(found.flipped_by_suspicion.max())))
    pairs = zip(found.kept_by_suspicion.tolist(), found.flipped_by_suspicion.tolist(), strict=True)
    return [
        Step(at / BINS, (at + 1) / BINS, kept, flipped, math.log1p(kept) / most, math.log1p(flipped) / most)
        for at, (kept, flipped) in enumerate(pairs)
    ]
