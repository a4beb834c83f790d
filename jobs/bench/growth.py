"""What does not grow: memory with the length of a shard, time and the driver's memory with the parts of a job.

Both are promises, so both print the two figures that would show a breach.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from jobs.bench.memory import MemoryWatch, pss_of
from jobs.bench.shards import drawn, flat, write_shards
from jobs.bench.speed import run_job
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
class Growth:
    """Peak memory of a job (sum of PSS) over one shard, and over one ten times as long.

    Args:
        images: Images in the short shard.
        short_bytes: Peak with it.
        long_bytes: Peak with the long one.
    """

    images: int
    short_bytes: int
    long_bytes: int

    def rows(self) -> list[tuple[str, str]]:
        return [
            (f"{self.images:,} images", f"{size_of(self.short_bytes)} at the peak, one shard"),
            (f"{self.images * TIMES:,} images", f"{size_of(self.long_bytes)} at the peak, one shard"),
            ("ratio", f"{self.long_bytes / max(self.short_bytes, 1):.3f}"),
        ]


@dataclass(frozen=True, slots=True)
class Window:
    """A window of a job: its parts, ms for each, and the driver's memory at its end (PSS)."""

    parts: int
    ms_a_part: float
    driver_bytes: int


@dataclass(frozen=True, slots=True)
class Scale:
    """The windows of a job of many tiny parts, in their order."""

    windows: tuple[Window, ...]

    def rows(self) -> list[tuple[str, str]]:
        shown = {"first window": self.windows[0], "last window": self.windows[-1]}
        return [
            (name, f"{w.ms_a_part:.1f} ms a part over {w.parts:,} parts, driver at {size_of(w.driver_bytes)}")
            for name, w in shown.items()
        ]


def measure_growth(config: JobConfig, folder: Path, images: int, engine_of: EngineOf | None = None) -> Growth:
    """Peak memory for a shard of so many drawn images, and for one ten times as long."""
    peaks = []
    for name, count in (("short", images), ("long", images * TIMES)):
        write_shards(drawn(count), folder / name, count)
        job = config.model_copy(update={"input": (str(folder / name),), "output": str(folder / f"{name}-out")})
        with MemoryWatch() as memory:
            run_job(job, lambda fact: None, engine_of)
        peaks.append(memory.peak_bytes)
    return Growth(images, *peaks)


def measure_scale(config: JobConfig, folder: Path, parts: int, window: int, engine_of: EngineOf | None = None) -> Scale:
    """Time and driver memory for each window of a job of many tiny parts that nothing is done to.

    Args:
        config: The job; method, parts and windows are set here.
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
            # shards this small count as one part each
            "cluster": config.cluster.model_copy(update={"window_parts": window // PARTS_A_SHARD}),
        }
    )
    times: list[float] = []
    memory: list[int] = []

    def watch(fact: Fact) -> None:
        if isinstance(fact, Receipt):
            times.append(time.monotonic())
            if len(times) % window == 0:
                memory.append(pss_of(os.getpid()))

    run_job(job, watch, engine_of)
    runs = [times[at : at + window] for at in range(0, len(times), window)]
    return Scale(
        tuple(
            Window(len(run), 1000 * (run[-1] - run[0]) / max(len(run) - 1, 1), size)
            for run, size in zip(runs, memory, strict=True)
        )
    )
