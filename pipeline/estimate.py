"""What a job would do, without doing it: `plan` for people who pay by the hour or by the query.

Counts of shards and bytes are exact. All else is judged from the first 8 MiB of up to 20 shards,
spread over the job, and from a few seconds of the purifier on this device; so it says "about".
Costs 20 ranged reads, and writes nothing.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pipeline import images, shards
from pipeline.classifier_config import ClassifierConfig
from pipeline.config import JobConfig
from pipeline.errors import ShardError
from pipeline.facts import Watch
from pipeline.images import RejectedError, UndecodableError
from pipeline.job import Job, prepare
from pipeline.protocols import PROTOCOLS
from pipeline.store import Shard, open_store
from zipstage.errors import ZipstageError
from zipstage.purifiers.base import Purifier
from zipstage.purifiers.calls import batch_size, num_calls
from zipstage.tiles import cell_for, cells_per_tile, num_cells, pack

HEAD_MIB = 8
MAX_SHARDS = 20
MAX_DECODED = 32
"""Images of a shard that are decoded; the sizes of the others are taken to be like theirs."""


@dataclass(slots=True)
class Look:
    """What the beginnings of some shards hold.

    Args:
        size_bytes: Bytes that were walked through.
        samples: Samples in them.
        tried: Samples whose image was to be decoded.
        cells: Cells of the images that could be, by cell size.
        sample_bytes: Bytes of the members of those samples.
        received_bytes: Bytes of their images as received.
        encoded_bytes: Bytes of the same images as they would be written.
        images: Images that could be decoded.
        pixels: One of them for each cell size, uint8 [h, w, 3]; all of them may be gigabytes.
        unreadable: Shards whose beginning can't be read, with the reason.
    """

    size_bytes: int = 0
    samples: int = 0
    tried: int = 0
    cells: Counter[int] = field(default_factory=Counter)
    sample_bytes: int = 0
    received_bytes: int = 0
    encoded_bytes: int = 0
    images: int = 0
    pixels: dict[int, np.ndarray] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a job would do; counts of samples and all that follows from them are guesses.

    Args:
        shards: Received shards that the job is about.
        to_purify: Those to purify.
        to_ask: Those committed earlier that the classifier would be asked about.
        refused: Those that changed after their commit, with the line that says so.
        unreadable: Those whose beginning can't be read, as far as they were looked at.
        size_bytes: Bytes of what is to purify.
        looked_at: Shards whose beginning was read.
        samples: Samples to purify.
        images: Those with an image that can be purified.
        tiles: Tiles of 256x256.
        parts: Parts that they travel in.
        network_calls: Calls of the network, each of one micro-batch.
        queries: Images that the classifier would be asked about.
        requests: Requests that these make.
        cost: What the queries cost, in the currency of `price_per_1000`; None without that.
        runs: How many runs `max_queries` spreads them over; None without that.
        rated_s: Seconds that `rate_per_s` spreads the requests over; None without that.
        output_bytes: Size of the purified shards.
        device: Where the time was, or would be, measured.
        purifiers: How many would work at once on this machine.
        seconds: Time of purification here; None when it was not measured.
    """

    shards: int
    to_purify: int
    to_ask: int
    refused: dict[str, str]
    unreadable: dict[str, str]
    size_bytes: int
    looked_at: int
    samples: int
    images: int
    tiles: int
    parts: int
    network_calls: int
    queries: int
    requests: int
    cost: float | None
    runs: int | None
    rated_s: float | None
    output_bytes: int
    device: str
    purifiers: int
    seconds: float | None

    @property
    def committed(self) -> int:
        return self.shards - self.to_purify - len(self.refused)


def estimate(config: JobConfig, watch: Watch, measure_s: float = 3.0) -> Estimate:
    """Look at a job's input and output, measure its purifier, and say what the job would do.

    Args:
        config: The job.
        watch: Told of warnings and refused shards.
        measure_s: How long to run the purifier; 0 leaves the time out.

    Raises:
        ConfigError: Input, output or settings are wrong.
        StoreError: Storage can't be reached.
    """
    from pipeline.purifier import build_purifier  # here: loads torch, and a wrong input shouldn't wait for it

    job = prepare(config, watch, lease=None)
    chosen = _spread([task.shard for task in job.plan.tasks] or list(job.to_ask))
    look = look_at(chosen, config)
    device = _device(config)
    purifier, _ = build_purifier(config, device)
    scale = sum(task.shard.stored.size for task in job.plan.tasks) / max(look.size_bytes, 1)
    cells = {cell: count * scale * look.samples / max(look.tried, 1) for cell, count in look.cells.items()}
    per_cell_s = _measured(purifier, look, config, device, measure_s) if measure_s and look.cells else None
    purifiers = config.cluster.actors or _num_devices(device)
    return _estimate(job, look, len(chosen), scale, cells, purifier, device, purifiers, per_cell_s)


def look_at(chosen: Sequence[Shard], config: JobConfig) -> Look:
    """Read the beginnings of shards, `HEAD_MIB` of each and not a byte more."""
    look = Look()
    for shard in chosen:
        try:
            _look_at(shard, config, look)
        except ZipstageError as error:
            look.unreadable[shard.name] = str(error)
    return look


def _look_at(shard: Shard, config: JobConfig, look: Look) -> None:
    store = open_store(shard.store_uri, config.storage.patience_s)
    head = replace(shard.stored, size=min(shard.stored.size, HEAD_MIB << 20))
    walked = 0
    with store.open(head, HEAD_MIB) as file:
        try:
            for number, sample in enumerate(shards.read_samples(file, shard.name, config.limits)):
                look.samples += 1
                walked = file.tell()
                if number < MAX_DECODED:
                    _decode(sample, config, look)
            walked = head.size
        except ShardError:
            is_cut_by_us = head.size < shard.stored.size and file.tell() >= head.size
            if not is_cut_by_us:
                walked = file.tell()
                raise
            if not walked:
                raise ZipstageError(
                    f"shard {shard.name}: no sample ends in its first {HEAD_MIB} MiB, so it is left out of what is "
                    "judged. `purify` reads it all the same."
                ) from None
        finally:  # a broken shard's samples were counted, so its bytes are as well
            look.size_bytes += walked


def _decode(sample: shards.Sample, config: JobConfig, look: Look) -> None:
    look.tried += 1
    if sample.rejected:
        return
    try:
        data = sample.members[images.image_position(sample)].data
        picture = images.decode(data, config.limits)
        encoded, _ = images.encode(picture.pixels, picture, config.encoding)
    except (RejectedError, UndecodableError):
        return
    height, width = picture.pixels.shape[:2]
    cell = cell_for(height, width)
    look.cells[cell] += num_cells(height, width)
    look.sample_bytes += sum(len(member.data) for member in sample.members)
    look.received_bytes += len(data)
    look.encoded_bytes += len(encoded)
    look.images += 1
    look.pixels.setdefault(cell, picture.pixels)


def _estimate(
    job: Job,
    look: Look,
    looked_at: int,
    scale: float,
    cells: dict[int, float],
    purifier: Purifier,
    device: str,
    purifiers: int,
    per_cell_s: dict[int, float] | None,
) -> Estimate:
    config, tasks = job.config, job.plan.tasks
    size = sum(task.shard.stored.size for task in tasks)
    share_ok = look.images / max(look.tried, 1)
    num_images = look.samples * scale * share_ok
    tiles = sum(count / cells_per_tile(cell) for cell, count in cells.items())
    queries = _num_queries(job, look, share_ok) if config.classifier else 0
    requests = math.ceil(queries / _images_a_request(config.classifier)) if config.classifier else 0
    asked = config.classifier
    image_share = look.received_bytes / max(look.sample_bytes, 1)
    growth = look.encoded_bytes / max(look.received_bytes, 1)
    return Estimate(
        shards=len(job.plan.shards),
        to_purify=len(tasks),
        to_ask=len(job.to_ask),
        refused=dict(job.plan.refused),
        unreadable=look.unreadable,
        size_bytes=size,
        looked_at=looked_at,
        samples=round(look.samples * scale),
        images=round(num_images),
        tiles=math.ceil(tiles),
        parts=max(len(tasks), math.ceil(tiles / config.part.tiles), math.ceil(size / (config.part.max_mib << 20))),
        network_calls=num_calls(cells, tiles, purifier, device, config.purifier.batch),
        queries=queries,
        requests=requests,
        cost=queries / 1000 * asked.price_per_1000 if asked and asked.price_per_1000 is not None else None,
        runs=math.ceil(queries / asked.max_queries) if asked and asked.max_queries else None,
        rated_s=requests / asked.rate_per_s if asked and asked.rate_per_s else None,
        output_bytes=round(size * (1 - image_share + image_share * growth)),
        device=device,
        purifiers=purifiers,
        seconds=None if per_cell_s is None else sum(cells[c] * per_cell_s[c] for c in cells) / purifiers,
    )


def _images_a_request(config: ClassifierConfig) -> int:
    from pipeline.classifiers.bodies import is_about_one

    return 1 if PROTOCOLS[config.protocol].has("request") and is_about_one(config) else config.batch


def _num_queries(job: Job, look: Look, share_ok: float) -> int:
    """Images to ask about, over what is purified now and what was committed earlier."""
    size = sum(task.shard.stored.size for task in job.plan.tasks) + sum(shard.stored.size for shard in job.to_ask)
    num_images = size * look.samples / max(look.size_bytes, 1) * share_ok
    return round(num_images * (2 if job.config.ask.before else 1))


def _measured(purifier: Purifier, look: Look, config: JobConfig, device: str, measure_s: float) -> dict[int, float]:
    """Seconds for a cell of each size: measured for the size with the most pixels, the others by area."""
    main = max(look.cells, key=lambda cell: look.cells[cell] * cell**2)
    size = batch_size(device, main, config.purifier.batch) if purifier.isolates else cells_per_tile(main)
    part = look.pixels[main][:main, :main]
    tiles = pack([part] * size, np.zeros((size, 2), np.uint64)).groups[0]
    purifier.purify(tiles)  # the first call loads kernels, and compiles where that is done
    calls, began = 0, time.perf_counter()
    while calls == 0 or time.perf_counter() - began < measure_s:
        purifier.purify(tiles)
        calls += 1
    per_px = (time.perf_counter() - began) / (calls * tiles.count * main**2)
    return {cell: per_px * cell**2 for cell in look.cells}


def _spread(candidates: Sequence[Shard]) -> list[Shard]:
    """Up to twenty, evenly over the list: shards of one day are often alike."""
    if len(candidates) <= MAX_SHARDS:
        return list(candidates)
    return [candidates[i * len(candidates) // MAX_SHARDS] for i in range(MAX_SHARDS)]


def _device(config: JobConfig) -> str:
    import torch

    return "cuda" if config.purifier.device != "cpu" and torch.cuda.is_available() else "cpu"


def _num_devices(device: str) -> int:
    import torch

    return torch.cuda.device_count() if device == "cuda" else len(os.sched_getaffinity(0))
