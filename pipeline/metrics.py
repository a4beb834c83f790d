"""What is counted for Prometheus, by Ray's metrics; outside of Ray nothing is, at no cost.

One catalogue of names, units and tags; a tag has few values, never a key or a shard. Ray puts `ray_` before
each name, and its dashboard agent (the `cluster` extra) is what exports them; without it counts go nowhere.
Traps: Ray makes a histogram's `_sum` of the middles of its buckets, so seconds are counters, and histograms
are for quantiles alone; and a worker that is killed takes the counts of its last ten seconds with it, so what
must agree with a run's summary is counted by the driver (`pipeline.run_metrics`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from typing import Any, Literal, TypeVar

from zipstage.purifiers.base import Purifier
from zipstage.purifiers.calls import num_calls
from zipstage.tiles import CELL_SIZES, Tiles

T = TypeVar("T")

SECONDS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""Upper bounds of the histograms' buckets."""

STAGES = ("read", "purify", "stage", "commit", "ask")
STATUSES = ("ok", "undecodable", "rejected", "failed")
OUTCOMES = ("staged", "adopted", "reused", "given up", "failed", "unreadable", "away", "refused", "stopped")


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Args:
        name: As Prometheus has it, but for Ray's prefix; counters end in `_total`, units are base units.
        kind: What it is in Prometheus' terms.
        about: What is counted.
        tags: The values that each tag can have; those of `run` can't be listed.
        by: Who counts: the driver, which knows of its run, or the workers, who don't.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    about: str
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    by: Literal["driver", "workers"] = "workers"

    @property
    def tag_keys(self) -> tuple[str, ...]:
        return (*self.tags, *(("run",) if self.by == "driver" else ()))


_CATALOGUE = (
    Metric("zipstage_samples_total", "counter", "received samples of committed shards", {"status": STATUSES}, "driver"),
    Metric(
        "zipstage_shards_total",
        "counter",
        "shards that the run was done with",
        {"outcome": ("committed", "failed", "answered", "unanswered")},
        "driver",
    ),
    Metric("zipstage_parts_total", "counter", "parts that went through the graph", {"outcome": OUTCOMES}, "driver"),
    Metric("zipstage_images_total", "counter", "images purified and staged", by="driver"),
    Metric(
        "zipstage_answers_total",
        "counter",
        "rows of predictions written",
        {"status": (*STATUSES, "unanswered")},
        "driver",
    ),
    Metric("zipstage_flips_total", "counter", "rows of predictions whose answer changed", by="driver"),
    Metric("zipstage_received_bytes_total", "counter", "bytes of received shards, once committed", by="driver"),
    Metric("zipstage_written_bytes_total", "counter", "bytes of committed shards and tables", by="driver"),
    Metric("zipstage_planned_shards", "gauge", "shards that the run is to purify", by="driver"),
    Metric("zipstage_planned_bytes", "gauge", "bytes of the received shards that the run is to purify", by="driver"),
    Metric("zipstage_purifiers", "gauge", "purifiers of the run", by="driver"),
    Metric(
        "zipstage_stage_seconds_total",
        "counter",
        "seconds at work in each stage, over all workers; several asks may run at once in one",
        {"stage": STAGES},
    ),
    Metric(
        "zipstage_step_seconds",
        "histogram",
        "seconds of one step: a part read, purified or staged, a shard committed or asked about",
        {"stage": STAGES},
    ),
    Metric(
        "zipstage_purifier_seconds_total",
        "counter",
        "seconds of the purifiers, at work or waiting for a part",
        {"state": ("busy", "idle")},
    ),
    Metric(
        "zipstage_cells_total",
        "counter",
        "cells purified, by their side in pixels",
        {"cell_px": tuple(map(str, CELL_SIZES))},
    ),
    Metric("zipstage_tiles_total", "counter", "tiles of 256x256 purified"),
    Metric("zipstage_network_calls_total", "counter", "calls of the purifier's network, as `zipstage plan` has them"),
    Metric(
        "zipstage_queries_total",
        "counter",
        "images that a classifier was asked about, by what came of it",
        {"outcome": ("answered", "refused", "away")},
    ),
)
METRICS = {metric.name: metric for metric in _CATALOGUE}


def add(name: str, value: float = 1, **tags: str) -> None:
    """Add to a counter; nothing where there is no Ray."""
    if value > 0 and _is_on_ray():
        with suppress(Exception):  # whatever becomes of a count, the work goes on
            _made(name).inc(value, tags)


def show(name: str, value: float, **tags: str) -> None:
    """Set a gauge; nothing where there is no Ray."""
    if _is_on_ray():
        with suppress(Exception):  # as above
            _made(name).set(value, tags)


def announce(name: str, **tags: str) -> None:
    """Let a counter begin at 0: one that is born with its first count has no rate for it.

    Args:
        name: The counter.
        tags: Those that are known; of the others, each value begins.
    """
    if not _is_on_ray():
        return
    others = {key: values for key, values in METRICS[name].tags.items() if key not in tags}
    for values in product(*others.values()):
        with suppress(Exception):  # as above
            # `inc` takes no 0, which Ray itself can count very well
            _made(name)._record(0.0, {**dict(zip(others, values, strict=True)), **tags})


@contextmanager
def took(stage: str) -> Iterator[None]:
    """Count the seconds of the block as a stage's."""
    _announce_stage(stage)
    began = time.perf_counter()
    try:
        yield
    finally:
        spend(stage, time.perf_counter() - began)


def spend(stage: str, seconds: float) -> None:
    """Count seconds of one step of a stage."""
    add("zipstage_stage_seconds_total", seconds, stage=stage)
    if _is_on_ray():
        with suppress(Exception):  # as above
            _made("zipstage_step_seconds").observe(seconds, {"stage": stage})


def timed(stage: str, items: Iterable[T]) -> Iterator[T]:
    """Count the seconds that each item takes to come, and none of those that are spent on it."""
    _announce_stage(stage)
    iterator = iter(items)
    while True:
        began = time.perf_counter()
        try:
            item = next(iterator)
        except StopIteration:
            return
        spend(stage, time.perf_counter() - began)
        yield item


class PurifierClock:
    """Counts what one purifier does, and whether it is at work at all.

    Args:
        purifier: The method.
        device: Where.
        batch: Cells in a network call, as set.
    """

    def __init__(self, purifier: Purifier, device: str, batch: int) -> None:
        self._purifier, self._device, self._batch = purifier, device, batch
        self._since = time.perf_counter()
        _announce_stage("purify")
        for name in ("purifier_seconds", "tiles", "network_calls"):
            announce(f"zipstage_{name}_total")

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Count the seconds of the block as at work, and those since the last one as waiting."""
        self._spend("idle")
        try:
            yield
        finally:
            spend("purify", self._spend("busy"))

    def _spend(self, state: str) -> float:
        before, self._since = self._since, time.perf_counter()
        add("zipstage_purifier_seconds_total", self._since - before, state=state)
        return self._since - before

    def count(self, purified: Iterable[Tiles]) -> None:
        """Count the tiles of a part and what they cost."""
        for tiles in purified:
            add("zipstage_cells_total", tiles.count, cell_px=str(tiles.cell_px))
            add("zipstage_tiles_total", len(tiles.pixels))
            cells = {tiles.cell_px: tiles.count}
            with suppress(Exception):  # as above; a purifier may not know its calls
                calls = num_calls(cells, len(tiles.pixels), self._purifier, self._device, self._batch)
                add("zipstage_network_calls_total", calls)


def _is_on_ray() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def _announce_stage(stage: str) -> None:
    if _is_on_ray():
        _announce_stage_once(stage)


@cache
def _announce_stage_once(stage: str) -> None:
    announce("zipstage_stage_seconds_total", stage=stage)


@cache
def _made(name: str) -> Any:  # noqa: ANN401 - a metric of Ray's
    from ray.util.metrics import Counter, Gauge, Histogram

    metric = METRICS[name]
    if metric.kind == "histogram":
        return Histogram(name, metric.about, list(SECONDS), metric.tag_keys)
    return (Counter if metric.kind == "counter" else Gauge)(name, metric.about, metric.tag_keys)
