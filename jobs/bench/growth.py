"""What does not grow: memory with the length of a shard, time and the driver's memory with the parts of a job.

Both are promises, so both print the two figures that would show a breach.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from jobs.bench.memory import MemoryWatch, pss_of
from jobs.bench.shards import drawn, flat, write_shards
from jobs.bench.speed import run_job
from pipeline.cluster import spilled_bytes
from pipeline.config import JobConfig
from pipeline.errors import ConfigError
from pipeline.facts import Fact
from pipeline.job import EngineOf
from pipeline.parts import Receipt
from pipeline.progress import size_of

TIMES = 10
PARTS_A_SHARD = 25
FLAT_PX = 160
"""Side of an image that takes a tile of its own."""


@dataclass(frozen=True, slots=True)
class Peak:
    """What a job over one shard took at most.

    Args:
        images: Images in the shard.
        memory_bytes: Peak memory of all its processes (sum of PSS).
        spilled_bytes: What Ray's object store had on disk at most, looked at when a part was done.
    """

    images: int
    memory_bytes: int
    spilled_bytes: int


@dataclass(frozen=True, slots=True)
class Growth:
    """What a job takes over one shard, and over one ten times as long; images of `side` x `side` pixels."""

    side: int
    short: Peak
    long: Peak

    def rows(self) -> list[tuple[str, str]]:
        rows = [
            (
                f"{peak.images:,} images",
                f"{size_of(peak.memory_bytes)} at the peak, {size_of(peak.spilled_bytes)} spilled, "
                f"one shard of {self.side} x {self.side}",
            )
            for peak in (self.short, self.long)
        ]
        return [*rows, ("ratio", f"{self.long.memory_bytes / max(self.short.memory_bytes, 1):.3f}")]


@dataclass(frozen=True, slots=True)
class Stretch:
    """So many parts of a job in a row: ms for each, and the driver's memory at their end (PSS)."""

    parts: int
    ms_a_part: float
    driver_bytes: int


@dataclass(frozen=True, slots=True)
class Scale:
    """A job of many tiny parts, window by window as good as that: the first window is smaller than the others.

    Args:
        stretches: In their order; each is as long as a window, and counts what it takes to start one.
    """

    stretches: tuple[Stretch, ...]

    @property
    def growth(self) -> float:
        """The driver's memory at the end over that after the first window."""
        return self.stretches[-1].driver_bytes / max(self.stretches[0].driver_bytes, 1)

    def rows(self) -> list[tuple[str, str]]:
        rows = [
            (
                f"parts to {sum(each.parts for each in self.stretches[: at + 1]):,}",
                f"{one.ms_a_part:.1f} ms a part, driver at {size_of(one.driver_bytes)}",
            )
            for at, one in enumerate(self.stretches)
        ]
        return [*rows, ("driver", f"{self.growth:.3f} times its memory after the first window")]


def measure_growth(
    config: JobConfig, folder: Path, images: int, side: int, engine_of: EngineOf | None = None
) -> Growth:
    """Peak memory and spilled bytes for a shard of so many drawn images, and for one ten times as long.

    The shards are written in one pass, and gone when they were measured.
    """
    return Growth(
        side,
        _peak(config, folder / "short", images, side, engine_of),
        _peak(config, folder / "long", images * TIMES, side, engine_of),
    )


def _peak(config: JobConfig, folder: Path, images: int, side: int, engine_of: EngineOf | None) -> Peak:
    write_shards(drawn(images, side), folder / "in", images)
    job = config.model_copy(update={"input": (str(folder / "in"),), "output": str(folder / "out")})
    spilled = 0

    def watch(fact: Fact) -> None:
        nonlocal spilled
        if isinstance(fact, Receipt):
            spilled = max(spilled, spilled_bytes())

    with MemoryWatch() as memory:
        run_job(job, watch, engine_of)
    shutil.rmtree(folder)
    return Peak(images, memory.peak_bytes, spilled)


def measure_scale(config: JobConfig, folder: Path, parts: int, window: int, engine_of: EngineOf | None = None) -> Scale:
    """Time and driver memory for each stretch of a job of many tiny parts that nothing is done to.

    Args:
        config: The job; parts and windows are set here.
        folder: For its shards and output.
        parts: Parts of the job.
        window: Parts in a window.
        engine_of: Makes the engine; none: Ray.

    Raises:
        ConfigError: Parts and window that can't be cut into equal windows of whole shards.
    """
    if parts % window or window % PARTS_A_SHARD:
        raise ConfigError(
            f"bench --scale: expected --parts a multiple of --window, and that one of {PARTS_A_SHARD}; "
            f"found {parts} and {window}."
        )
    write_shards(flat(parts, FLAT_PX), folder / "tiny", PARTS_A_SHARD)
    job = config.model_copy(
        update={
            "input": (str(folder / "tiny"),),
            "output": str(folder / "tiny-out"),
            "part": config.part.model_copy(update={"tiles": 1}),
            "cluster": config.cluster.model_copy(update={"window_parts": window}),
        }
    )
    num_parts = 0
    began: float | None = None
    stretches: list[Stretch] = []

    def watch(fact: Fact) -> None:
        nonlocal num_parts, began
        if not isinstance(fact, Receipt):
            return
        num_parts += 1
        began = began or time.monotonic()
        if num_parts % window == 0:
            now = time.monotonic()
            stretches.append(Stretch(window, 1000 * (now - began) / window, pss_of(os.getpid())))
            began = now

    run_job(job, watch, engine_of)
    return Scale(tuple(stretches))
