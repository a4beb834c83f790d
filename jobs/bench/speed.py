"""How much of the purifier's own speed the whole job reaches.

One run, interleaved, medians: the matrix-multiply rate of the device as a reference point; the
purifier alone in as many processes as the job has purifiers, over the same tiles; the whole job,
from its first receipt to its last, so that neither counts what it takes to start.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from jobs.bench.memory import MemoryWatch, cgroup_peak_bytes
from pipeline.config import JobConfig
from pipeline.errors import ConfigError
from pipeline.facts import Fact, Summary
from pipeline.inputs import find_shards
from pipeline.job import EngineOf, purify
from pipeline.ledger import Task
from pipeline.parts import Receipt
from pipeline.stages import read_parts
from zipstage.errors import ZipstageError
from zipstage.tiles import Tiles, cells_per_tile

PARTS_A_PURIFIER = 8
"""Parts that each purifier gets at least: with fewer, the first and the last weigh too much."""

MATMUL_S = 0.5


@dataclass(slots=True)
class Speed:
    """What was measured, a value for each round.

    Args:
        device: Where.
        purifiers: Processes that purified at once.
        images: Images in a round.
        part_tiles: Tiles in a part.
        parts: Parts of the job.
        alone: Images/s of the purifier alone.
        whole: Images/s of the whole job.
        matmul: TFLOP/s of matrix multiplication: float32 on one CPU thread, bfloat16 on a GPU.
        peak_bytes: Peak memory of the job and all its processes (sum of PSS).
        cgroup_peak_bytes: Peak of the control group since it began, whatever else is in it.
    """

    device: str
    purifiers: int
    images: int
    part_tiles: int
    parts: int = 0
    alone: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    matmul: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    cgroup_peak_bytes: int | None = None

    @property
    def ratio(self) -> float:
        """Share of the purifier's own speed that the job reaches."""
        return statistics.median(self.whole) / statistics.median(self.alone)

    def rows(self) -> list[tuple[str, str]]:
        """Names and values, for a table."""
        from pipeline.progress import size_of

        where = f"{self.purifiers} x {self.device}"
        few = "" if self.parts >= PARTS_A_PURIFIER * self.purifiers else "; too few to trust, set --images higher"
        cgroup = "" if self.cgroup_peak_bytes is None else f"; {size_of(self.cgroup_peak_bytes)} of its control group"
        return [
            ("purifier alone", f"{_spread(self.alone)} images/s on {where}, {self.images:,} images a round"),
            ("whole job", f"{_spread(self.whole)} images/s, first to last of {self.parts} receipts{few}"),
            ("ratio", f"{self.ratio:.3f}"),
            ("matmul", f"{_spread(self.matmul)} TFLOP/s"),
            ("peak memory", f"{size_of(self.peak_bytes)} of the job's processes (PSS){cgroup}"),
        ]


def measure_speed(
    config: JobConfig, output: Path, rounds: int, watch: Callable[[str], None], engine_of: EngineOf | None = None
) -> Speed:
    """Measure in rounds.

    Args:
        config: The job; its output is set for each round.
        output: Folder for the outputs.
        rounds: How often.
        watch: Told what comes next.
        engine_of: Makes the engine; none: Ray.

    Raises:
        ZipstageError: The job failed, or purified nothing.
    """
    device = "cuda" if config.purifier.device != "cpu" and torch.cuda.is_available() else "cpu"
    purifiers = config.cluster.actors or _num_devices(device)
    cluster = config.cluster.model_copy(update={"actors": purifiers})
    config = config.model_copy(update={"cluster": cluster})
    tiles, num_images = load_tiles(config)
    config = _with_enough_parts(config, sum(len(group.pixels) for group in tiles), purifiers)
    found = Speed(device, purifiers, num_images, config.part.tiles)
    for number in range(1, rounds + 1):
        watch(f"round {number} of {rounds}: the purifier alone")
        found.matmul.append(matmul_rate(device))
        found.alone.append(num_images / time_alone(config, device, tiles, purifiers))
        watch(f"round {number} of {rounds}: the whole job")
        with MemoryWatch() as memory:
            rate, found.parts = rate_of_job(config, output / str(number), engine_of)
        found.whole.append(rate)
        found.peak_bytes = max(found.peak_bytes, memory.peak_bytes)
    found.cgroup_peak_bytes = cgroup_peak_bytes()
    return found


def load_tiles(config: JobConfig) -> tuple[list[Tiles], int]:
    """The tiles that the job's purifiers would get, and how many images are in them."""
    tiles: list[Tiles] = []
    num_images = 0
    for shard in find_shards(config.input):
        for part in read_parts(Task(shard, "bench", frozenset()), config):
            if part.outcome is not None:
                raise ZipstageError(part.error or f"shard {shard.name}: {part.outcome}")
            tiles += part.received
            num_images += part.num_images
    if not num_images:
        raise ConfigError(f"{', '.join(config.input)}: expected images to purify, found none.")
    return tiles, num_images


def time_alone(config: JobConfig, device: str, tiles: Sequence[Tiles], processes: int) -> float:
    """Seconds that so many purifiers at once take for the tiles, from the first start to the last end."""
    context = multiprocessing.get_context("spawn")  # a forked torch has no working threads
    barrier, results = context.Barrier(processes), context.SimpleQueue()
    single = _singles(tiles)
    children = [
        context.Process(target=_loop, args=(config, device, single[i::processes], barrier, results), daemon=True)
        for i in range(processes)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    if any(child.exitcode for child in children):
        raise ZipstageError("bench: a process with the purifier alone ended in an error; it is shown above")
    times = [results.get() for _ in children]
    return float(max(end for _, end in times) - min(begin for begin, _ in times))


def _loop(config: JobConfig, device: str, tiles: Sequence[Tiles], barrier: Any, results: Any) -> None:  # noqa: ANN401 - multiprocessing's
    """A purifier in a process of its own: warmed up, then timed."""
    from pipeline.purifier import build_purifier

    try:
        purifier, _ = build_purifier(config, device)
        for group in {group.cell_px: group for group in tiles}.values():
            purifier.purify(group)
    except BaseException:
        barrier.abort()  # else the others would wait for ever
        raise
    barrier.wait()
    begin = time.monotonic()  # one clock for all processes of a machine
    for group in tiles:
        purifier.purify(group)
    results.put((begin, time.monotonic()))


def _singles(tiles: Sequence[Tiles]) -> list[Tiles]:
    """Tile by tile, so that the processes get equal shares."""
    single = []
    for group in tiles:
        step = cells_per_tile(group.cell_px)
        for at in range(len(group.pixels)):
            keys = group.keys[at * step : (at + 1) * step]
            single.append(Tiles(group.pixels[at : at + 1], group.cell_px, len(keys), keys))
    return single


def rate_of_job(
    config: JobConfig, output: Path, engine_of: EngineOf | None = None, clock: Callable[[], float] = time.monotonic
) -> tuple[float, int]:
    """Images/s of the whole job from its first receipt to its last, and how many there were.

    What was under way when the first came counts as done since then, so few receipts say little.

    Raises:
        ZipstageError: The job failed, or had fewer than two parts.
    """
    receipts: list[tuple[float, int]] = []

    def watch(fact: Fact) -> None:
        if isinstance(fact, Receipt) and fact.outcome == "staged":
            receipts.append((clock(), fact.images))

    run_job(config.model_copy(update={"output": str(output)}), watch, engine_of)
    if len(receipts) < 2:
        raise ConfigError(f"bench: expected two parts or more, found {len(receipts)}. Set --images higher.")
    took = receipts[-1][0] - receipts[0][0]
    return sum(images for _, images in receipts[1:]) / max(took, 1e-9), len(receipts)


def run_job(config: JobConfig, watch: Callable[[Fact], None], engine_of: EngineOf | None = None) -> Summary:
    """Run a job that must succeed.

    Raises:
        ZipstageError: It did not.
        KeyboardInterrupt: It was stopped.
    """
    summary = purify(config, watch, engine_of)
    if summary.interrupted:
        raise KeyboardInterrupt
    if summary.failed:
        raise ZipstageError("\n".join(summary.failed.values()))
    return summary


def matmul_rate(device: str) -> float:
    """TFLOP/s of square matrix multiplications, over half a second."""
    side, numbers = (8192, torch.bfloat16) if device == "cuda" else (1024, torch.float32)
    torch.set_num_threads(1)
    a = torch.randn(side, side, dtype=numbers, device=device)
    (a @ a).sum().item()  # the first one loads kernels; `item` waits for the device
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < MATMUL_S:
        (a @ a).sum().item()
        count += 1
    return 2 * side**3 * count / (time.perf_counter() - began) / 1e12


def _with_enough_parts(config: JobConfig, num_tiles: int, purifiers: int) -> JobConfig:
    if "tiles" in config.part.model_fields_set:
        return config
    tiles = max(1, min(config.part.tiles, num_tiles // (PARTS_A_PURIFIER * purifiers)))
    return config.model_copy(update={"part": config.part.model_copy(update={"tiles": tiles})})


def _num_devices(device: str) -> int:
    return torch.cuda.device_count() if device == "cuda" else len(os.sched_getaffinity(0))


def _spread(values: Sequence[float]) -> str:
    """Median, and the range that it lies in."""
    middle = statistics.median(values)
    return f"{middle:,.3g}" if len(values) == 1 else f"{middle:,.3g} ({min(values):,.3g} to {max(values):,.3g})"
