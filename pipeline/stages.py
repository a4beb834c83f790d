"""Read, Purify, Stage: what is mapped over the data, one part at a time. Runs without Ray as well.

Each is a pure function of its row, the job's settings and immutable objects. Read's order above
all: an engine that runs a dead reader again skips by position, so a second attempt must yield the
same parts in the same order. Whatever fails here travels on as a part that says so; nothing that
concerns one shard is raised, because an exception would end the job for all others.
"""

from __future__ import annotations

import hashlib
import json
import math
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from pipeline import device_errors, images, shards, tables
from pipeline.apart import Apart
from pipeline.config import JobConfig
from pipeline.device_errors import SickDeviceError
from pipeline.errors import ExistsError, StoreAwayError, StoreError, StoreRefusedError
from pipeline.images import Picture, RejectedError, UndecodableError
from pipeline.ledger import Task, failed_path, staged_path
from pipeline.parts import Part, Receipt, Sample
from pipeline.store import Store, open_store
from zipstage.errors import ZipstageError
from zipstage.keys import image_key
from zipstage.purifiers.base import Purifier
from zipstage.tiles import cell_for, cells_per_tile, num_cells, pack, unpack

NO_KEY = np.zeros(2, np.uint64)
SAMPLE_BYTES = 1024
"""What a sample is taken to weigh beside its data and names: a shard may hold millions without an image."""
_MAX_LABEL_BYTES = 4 << 20  # JSON takes up to 20 times its bytes once it is read


# --- Read ------------------------------------------------------------------------------------------


def read_parts(task: Task, config: JobConfig) -> Iterator[Part]:
    """Stream one shard as parts; the last one says that it is the last.

    What can't be read ends in one part that says why, after those that could.
    """
    blank = Part(task.shard.name, task.plan, 0, is_last=True)
    index = 0
    try:
        store = open_store(task.shard.store_uri, config.storage.patience_s)
        with store.open(task.shard.stored, config.storage.range_mib) as file:
            skipped = shards.Skipped()
            samples = shards.read_samples(file, task.shard.name, config.limits, skipped)
            received = (_receive(sample, config) for sample in samples)
            for index, (run, is_last) in enumerate(_mark_last(_runs(received, config))):
                part = replace(blank, index=index, is_last=is_last, skipped=skipped.facts() if is_last else {})
                if index in task.staged:
                    yield replace(part, outcome="reused")
                else:
                    yield _packed(part, run)
    except StoreAwayError as error:
        yield blank.failed("away", str(error))
    except StoreRefusedError as error:
        yield blank.failed("refused", str(error))
    except ZipstageError as error:
        yield blank.failed("unreadable", str(error))
    except Exception as error:  # noqa: BLE001 - a fault that one shard meets must not end the others
        yield blank.failed(
            "unreadable", f"shard {task.shard.name}: reading stopped after part {index}: {_last_line(error)}"
        )


def _receive(received: shards.Sample, config: JobConfig) -> tuple[Sample, Picture | None, bytes]:
    """What is known of a sample, its pixels if there are any, and its image's digest."""
    blank = Sample(received.key, received.index, (), -1, "rejected", received.rejected, _label(received))
    if received.rejected:
        return blank, None, b""
    try:
        position = images.image_position(received)
        data = received.members[position].data
        digest = hashlib.sha256(data)
        sample = replace(blank, image=position, sha256_received=digest.hexdigest())
        picture = images.decode(data, config.limits)
    except RejectedError as error:
        return replace(blank, error=str(error)), None, b""
    except UndecodableError as error:
        return replace(sample, status="undecodable", error=str(error)), None, b""
    height, width = picture.pixels.shape[:2]
    sample = replace(
        sample,
        members=tuple((m.name, b"" if i == position else m.data) for i, m in enumerate(received.members)),
        status="ok",
        error=None,
        width=width,
        height=height,
        mode=picture.mode,
        alpha=None if picture.alpha is None else picture.alpha.tobytes(),
        exif=picture.exif,
        icc=picture.icc,
    )
    return sample, picture, digest.digest()


def _label(received: shards.Sample) -> int | None:
    """The class that a sample says: its `cls`, else `label` of its `json`.

    Labels are no business of ours: what isn't a class that a table can hold is no label.
    """
    by_suffix = {m.suffix: m.data for m in received.members if len(m.data) <= _MAX_LABEL_BYTES}
    try:
        if "cls" in by_suffix:
            value: object = int(by_suffix["cls"].decode())
        else:
            value = json.loads(by_suffix["json"])["label"] if "json" in by_suffix else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else None


_Received = tuple[Sample, Picture | None, np.ndarray]


def _runs(received: Iterator[tuple[Sample, Picture | None, bytes]], config: JobConfig) -> Iterator[list[_Received]]:
    """Cut a shard's samples into parts: a function of the samples and the part settings alone."""
    seed, limit = config.purifier.seed_bytes(), config.part.max_mib * 2**20
    run: list[_Received] = []
    cells: dict[int, int] = {}
    size = 0
    for sample, picture, digest in received:
        key = image_key(seed, digest) if picture is not None else NO_KEY
        more = SAMPLE_BYTES + sum(len(name) + len(data) for name, data in sample.members)
        cell, count = 0, 0
        if picture is not None:
            more += picture.pixels.nbytes + sum(len(data or b"") for data in (sample.alpha, sample.exif, sample.icc))
            cell, count = cell_for(sample.height, sample.width), num_cells(sample.height, sample.width)
        grown = {**cells, cell: cells.get(cell, 0) + count} if count else cells
        if run and (size + more > limit or _num_tiles(grown) > config.part.tiles):
            yield run
            run, cells, size = [], {}, 0
            grown = {cell: count} if count else {}
        run.append((sample, picture, key))
        cells, size = grown, size + more
    yield run


def _num_tiles(cells: dict[int, int]) -> int:
    return sum(math.ceil(count / cells_per_tile(cell)) for cell, count in cells.items())


def _mark_last(runs: Iterator[list[_Received]]) -> Iterator[tuple[list[_Received], bool]]:
    """Look one ahead, so that the last run says that it is the last."""
    held = next(runs)  # there is always one: an empty shard gives one empty part
    for run in runs:
        yield held, False
        held = run
    yield held, True


def _packed(part: Part, run: list[_Received]) -> Part:
    pictures = [picture.pixels for _, picture, _ in run if picture is not None]
    keys = np.array([key for _, picture, key in run if picture is not None], np.uint64).reshape(-1, 2)
    packed = pack(pictures, keys)
    placements = iter(packed.placements)
    samples = tuple(
        sample if picture is None else replace(sample, placement=next(placements)) for sample, picture, _ in run
    )
    return replace(part, samples=samples, received=packed.groups)


# --- Purify ----------------------------------------------------------------------------------------


class Purify:
    """Hands a part's tiles to the purifier; holds what is costly to build.

    Args:
        purifier: The method, on its device.
        profile: What it runs on, for the records.
        attempts: Counts one more try of a part and gives the number, over all workers of the job.
        max_attempts: Tries before a part is given up; a part that kills its worker would else be tried for ever.
        gives_up: Whether a shard may be committed without what fails: then an image that fails leaves its part.
    """

    def __init__(
        self,
        purifier: Purifier,
        profile: dict[str, object],
        attempts: Callable[[str, int], int],
        max_attempts: int,
        gives_up: bool = False,
    ) -> None:
        self.purifier, self.profile, self.attempts, self.max_attempts = purifier, profile, attempts, max_attempts
        self.gives_up = gives_up and purifier.isolates

    def __call__(self, part: Part) -> Part:
        """The part with its purified tiles, or why there are none; a purifier that fails is tried once more.

        Raises:
            SickDeviceError: This process can't purify any more; it must end, and the part be tried elsewhere.
        """
        if part.outcome is not None or not part.received:
            return part
        failure = f"given up: {self.max_attempts} attempts ended its worker. Too little memory is the usual reason"
        for _ in range(2):
            if self.attempts(part.shard, part.index) > self.max_attempts:
                break
            try:
                purified = tuple(self.purifier.purify(tiles) for tiles in part.received)
                return replace(part, purified=purified, profile=dict(self.profile))
            except Exception as error:  # noqa: BLE001 - whatever a network raises concerns this part alone
                if device_errors.is_sick(error):
                    raise SickDeviceError(f"shard {part.shard}, part {part.index}: {_last_line(error)}") from None
                failure = f"purifier: {_last_line(error)}{_hint(error)}"
                if device_errors.is_out_of_main_memory(error):
                    break
        else:
            if self.gives_up and (most := self._without_what_fails(part)) is not None:
                return most
        return part.failed("failed", f"shard {part.shard}, part {part.index}: {failure}")

    def _without_what_fails(self, part: Part) -> Part | None:
        """The part with each image that fails marked so, when the others can be purified."""
        groups = [Apart(self.purifier) for _ in part.received]
        try:
            purified = tuple(apart.purify(tiles) for apart, tiles in zip(groups, part.received, strict=True))
        except Exception as error:  # noqa: BLE001 - too much fails: the part as a whole, and why is known already
            if device_errors.is_sick(error):
                raise SickDeviceError(f"shard {part.shard}, part {part.index}: {_last_line(error)}") from None
            return None
        samples = tuple(_failed_by(sample, groups) for sample in part.samples)
        return replace(part, samples=samples, purified=purified, profile=dict(self.profile))


def _failed_by(sample: Sample, groups: list[Apart]) -> Sample:
    """The sample as `failed`, when any of its windows is among the cells that failed."""
    place = sample.placement
    if place is None:
        return sample
    mine = range(place.first, place.first + num_cells(place.height, place.width))
    error = next((error for cell, error in groups[place.group].failed.items() if cell in mine), None)
    return sample if error is None else sample.failed(f"purifier: {_last_line(error)}")


def _hint(error: BaseException) -> str:
    return ". Set a lower purifier.batch" if device_errors.is_out_of_memory(error) else ""


# --- Stage -----------------------------------------------------------------------------------------


def stage_part(part: Part, output: Store, config: JobConfig) -> Receipt:
    """Encode a part and put it as one object; who loses the race adopts the winner's.

    A part with samples that failed is staged only where they may be given up, and under another name.
    """
    receipt = Receipt(part.shard, part.plan, part.index, part.is_last, part.outcome or "staged", part.error)
    if part.outcome is not None and not (part.outcome == "failed" and config.give_up):
        return receipt
    failed = [sample for sample in part.samples if sample.status == "failed"]
    if failed:
        receipt = replace(receipt, outcome="given up", error=part.error or _left_out(part, failed))
    receipt = replace(receipt, images=part.num_images, samples=len(part.samples))
    try:
        facts = {"skipped": part.skipped, "profile": part.profile}
        data = tables.to_ipc(_rows(part, config), tables.STAGED, facts)
        path = failed_path if failed else staged_path
        output.put(path(part.shard, part.plan, part.index), data, create=True)
    except ExistsError:
        return receipt if failed else replace(receipt, outcome="adopted")
    except StoreAwayError as error:
        return replace(receipt, outcome="away", error=str(error))
    except StoreRefusedError as error:
        return replace(receipt, outcome="refused", error=str(error))
    except StoreError as error:
        return replace(receipt, outcome="failed", error=str(error))
    except Exception as error:  # noqa: BLE001 - an encoder's fault concerns this part alone
        unstaged = part.failed("failed", f"shard {part.shard}, part {part.index}: staging: {_last_line(error)}")
        return stage_part(unstaged, output, config) if part.outcome is None else replace(receipt, outcome="failed")
    return replace(receipt, size_bytes=len(data))


def _left_out(part: Part, failed: list[Sample]) -> str:
    more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
    return f"shard {part.shard}, part {part.index}: sample {failed[0].key!r}{more}: {failed[0].error}"


def _rows(part: Part, config: JobConfig) -> list[dict[str, object]]:
    """The part's rows of the table, each with the members that go into the purified shard."""
    placements = [sample.placement for sample in part.samples if sample.placement is not None]
    received, _ = unpack(part.received, placements)
    purified, residuals = unpack(part.purified, placements)
    pixels = iter(zip(received, purified, residuals, strict=True))
    rows = []
    for sample in part.samples:
        row: dict[str, object] = {
            "key": sample.key,
            "shard": part.shard,
            "index": sample.index,
            "status": sample.status,
            "error": sample.error,
            "label": sample.label,
            "width": sample.width,
            "height": sample.height,
            "mode": sample.mode,
            "sha256_received": sample.sha256_received,
        }
        if sample.placement is not None:
            row.update(_purified_columns(sample, *next(pixels), config))
        rows.append(row)
    return rows


def _purified_columns(
    sample: Sample, before: np.ndarray, after: np.ndarray, residual: float | None, config: JobConfig
) -> dict[str, object]:
    try:
        data, suffix = images.encode(after, _picture(sample, before), config.encoding)
    except RejectedError as error:  # the output's format can't hold it
        return {"status": "rejected", "error": str(error)}
    members = list(sample.members)
    members[sample.image] = (f"{sample.key}.{suffix}", data)
    return {
        "members": [{"name": name, "data": content} for name, content in members],
        "sha256_purified": hashlib.sha256(data).hexdigest(),
        "psnr": psnr(before, after),
        "residual": residual,
    }


def _picture(sample: Sample, pixels: np.ndarray) -> Picture:
    alpha = None
    if sample.alpha is not None:
        alpha = np.frombuffer(sample.alpha, np.uint8).reshape(sample.height, sample.width)
    return Picture(pixels, alpha, sample.mode or "RGB", sample.exif, sample.icc)


def psnr(before: np.ndarray, after: np.ndarray) -> float | None:
    """Peak signal-to-noise ratio in dB between two uint8 images; None when they are equal."""
    error = float(np.square(before.astype(np.float32) - after.astype(np.float32)).mean())
    return None if error == 0 else 10 * math.log10(255**2 / error)


def _last_line(error: BaseException) -> str:
    return traceback.format_exception_only(error)[-1].strip()
