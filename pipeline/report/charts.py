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


_BEFORE = {"commit": "read", "ask": "commit"}
"""What a stage waits for: the first shard can't be committed before there is a part."""

_SMOOTHED = 24
"""Rates are means over this fraction of the run: parts and shards come at once, and were worked on before."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One stage over time.

    Args:
        stage: Its name.
        about: What is counted.
        total: Of all buckets, with its unit.
        peak: The busiest time, a second.
        mean: From when it had something to do to when it was done last, a second.
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
    found = []
    for stage in _UNITS:
        counts = stages.get(stage) or []
        if any(counts):
            first = _first_busy(stages.get(_BEFORE.get(stage, "")) or [])
            began = int(float(timeline.get("started_s") or 0.0) / bucket_s) if first is None else first
            full = [*counts, *[0] * (num_buckets - len(counts))]
            found.append(_lane(stage, full, min(began, _first_busy(full) or 0), bucket_s))
    return found


def _first_busy(counts: Sequence[int]) -> int | None:
    return next((at for at, count in enumerate(counts) if count), None)


def _lane(stage: str, counts: Sequence[int], began: int, bucket_s: float) -> Lane:
    unit, about = _UNITS[stage]
    last = max(at for at, count in enumerate(counts) if count)
    told: Callable[[float], str] = size_of if unit == "bytes" else rate_of
    total = size_of(sum(counts)) if unit == "bytes" else f"{sum(counts):,} {unit}"
    word = "" if unit == "bytes" else f" {unit}"
    rates = [count / bucket_s for count in _smoothed(_spread(counts, began))]
    return Lane(
        stage=stage,
        about=about,
        total=total,
        peak=f"{told(max(rates))}{word}/s",
        mean=f"{told(sum(counts) / ((last + 1 - began) * bucket_s))}{word}/s",
        path=_steps(rates),
    )


def _spread(counts: Sequence[int], began: int) -> list[float]:
    """Each count over the time since the one before it, in which it was worked on."""
    spread = [0.0] * len(counts)
    since = began
    for at, count in enumerate(counts):
        if count:
            for bucket in range(since, at + 1):
                spread[bucket] += count / (at + 1 - since)
            since = at + 1
    return spread


def _smoothed(counts: Sequence[float]) -> list[float]:
    reach = len(counts) // _SMOOTHED // 2
    windows = [counts[max(0, at - reach) : at + reach + 1] for at in range(len(counts))]
    return [sum(window) / len(window) for window in windows]


def _steps(rates: Sequence[float]) -> str:
    """The outline of some bars, left to right, from the base line up and back to it."""
    step, most = WIDTH / len(rates), max(rates)
    points = [f"M0 {LANE}"]
    for at, rate in enumerate(rates):
        points.append(f"V{LANE * (1 - rate / most):.1f}H{(at + 1) * step:.1f}")
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
