"""`zipstage bench`: speed against the purifier's own, and what must not grow."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from jobs.commands.options import Tokens, Verbose, job_command, note, ray_kept_quiet, show, wants_help
from jobs.commands.purify import ray_engine

if TYPE_CHECKING:
    from jobs.bench.driver import Listing, Receipts
    from jobs.bench.growth import Growth, Scale
    from jobs.bench.overlap import Overlap
    from jobs.bench.speed import Speed
    from pipeline.config import JobConfig

    Result = Speed | Growth | Scale | Overlap | Listing | Receipts

_FIELDS = ("purifier.method", "purifier.preset", "purifier.device")

Switch = Annotated[bool, Parameter(negative="")]

SHARDS = 4
"""Shards that the images of a round lie in."""

bench_app = job_command("bench")

_HELP = (
    "Measure on this machine: the purifier alone against the whole job, peak memory, and the device's "
    "matrix-multiply rate, interleaved in one run. Takes the flags of `purify`; input and output are its own."
)
_OPTIONS = """--data FOLDER|shards to take images from; without, images are drawn
--images N|images in a round [2000]
--json FILE|write all figures there too
--grow|instead: memory of a shard of N images and of 10 N; peak and spilled bytes
--scale|instead: ms a part and memory, over many tiny parts; window by window
--listing N|instead: finding and planning N shards; time and memory, for N/10 as well
--receipts N|instead: counting N receipts; time and memory, for N/10 as well, with no graph behind them
--overlap|instead: whether purifying and asking overlap; with a purifier and a classifier that only wait

--rounds N|rounds that medians are taken over [3]
--side PX|side of the images of --grow [32]
--parts N|parts of --scale [2000]
--window N|parts in a window of --scale [500]
--at URI|where the shards of --listing are made, and removed [a temporary folder]
--shards N|shards of --overlap [16]"""
_EXAMPLE = """zipstage bench --data in/ --images 8000 --json bench.json
zipstage bench --grow --images 2000 --purifier.method none
zipstage bench --listing 20000 --at s3://scratch/bench"""


@bench_app.default
def bench_command(
    *tokens: Tokens,
    data: str | None = None,
    images: int = 2_000,
    rounds: int = 3,
    grow: Switch = False,
    scale: Switch = False,
    parts: int = 2_000,
    window: int = 500,
    side: int = 32,
    listing: int | None = None,
    at: str | None = None,
    receipts: int | None = None,
    overlap: Switch = False,
    shards: int = 16,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
    verbose: Verbose = False,
) -> int:
    """Measure speed and memory on this machine."""
    from jobs.help import job_help

    if wants_help(tokens):
        return show(job_help("bench [--FIELD VALUE ...]", _HELP, _OPTIONS, _EXAMPLE, _FIELDS, everything=verbose))
    from jobs.bench.driver import measure_listing, measure_receipts
    from jobs.bench.growth import measure_growth, measure_scale
    from jobs.bench.overlap import measure_overlap
    from jobs.bench.shards import drawn, received, write_shards
    from jobs.bench.speed import measure_speed

    load = os.getloadavg()
    engine_of = ray_engine(verbose)
    found: Result
    with tempfile.TemporaryDirectory(prefix="zipstage-bench-") as folder, ray_kept_quiet(verbose):
        here = Path(folder)
        config = _job(tokens, here, {"purifier": {"method": "none"}} if scale or receipts or overlap else {})
        if grow:
            found = measure_growth(config, here, images, side, engine_of)
        elif scale:
            found = measure_scale(config, here, parts, window, engine_of)
        elif overlap:
            found = measure_overlap(config, here, shards, note)
        elif listing:
            found = measure_listing(config, at or folder, listing)
        elif receipts:
            found = measure_receipts(config, here, receipts)
        else:
            samples = drawn(images) if data is None else received(data, images)
            write_shards(samples, here / "in", -(-images // SHARDS))
            found = measure_speed(config, here / "out", rounds, note, engine_of)
    busy = f"{load[0]:.1f} on {os.cpu_count()} CPUs when it began; other work disturbs these figures"
    show("\n".join(f"{name:<16}{value}" for name, value in [*found.rows(), ("load", busy)]))
    if json_file is not None:
        facts = {"machine": platform.machine(), "cpus": os.cpu_count(), "load": load, **asdict(found)}
        json_file.write_text(json.dumps(facts, indent=1))
    return 0


def _job(tokens: tuple[str, ...], here: Path, fixed: dict[str, Any]) -> JobConfig:
    """The job that the flags say, over the benchmark's own input."""
    from jobs.arguments import read_job

    return read_job(tokens, os.environ, {"input": [str(here / "in")], "output": str(here / "out"), **fixed})
