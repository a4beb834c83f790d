"""What travels through the graph: parts of a shard, and receipts of what became of them.

A part is a run of consecutive samples of one shard. It travels as one Arrow buffer (a JSON header
and the binary pieces beside it), never as a pickle.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from zipstage.tiles import Placement, Tiles

SampleStatus = Literal["ok", "undecodable", "rejected", "failed"]
Outcome = Literal["staged", "adopted", "reused", "given up", "failed", "unreadable", "away", "refused", "stopped"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One received sample on its way.

    Args:
        key: WebDataset's key.
        index: Place in the received shard, from 0.
        members: Member names and bytes in received order; the image's bytes are left out.
        image: Position of the image among the members; -1 when there is none to purify.
        status: What becomes of it.
        error: Why, when it isn't `ok`.
        label: Its class, when it says one.
        width: Pixels, 0 when unknown.
        height: Pixels, 0 when unknown.
        mode: Pillow's mode of the received image.
        sha256_received: Hex digest of the received image's bytes.
        placement: Where its pixels lie in the part's tiles.
        alpha: Its alpha channel, uint8 [h * w] as bytes.
        exif: Its EXIF block.
        icc: Its colour profile.
    """

    key: str
    index: int
    members: tuple[tuple[str, bytes], ...]
    image: int
    status: SampleStatus
    error: str | None = None
    label: int | None = None
    width: int = 0
    height: int = 0
    mode: str | None = None
    sha256_received: str | None = None
    placement: Placement | None = None
    alpha: bytes | None = None
    exif: bytes | None = None
    icc: bytes | None = None

    def failed(self, error: str) -> Sample:
        """The same sample without its load; what was to be purified says why it isn't."""
        bare = replace(self, members=(), image=-1, placement=None, alpha=None, exif=None, icc=None)
        return replace(bare, status="failed", error=error) if self.status == "ok" else bare


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a shard, before or after purification.

    Args:
        shard: NAME of the shard.
        plan: Identity of the work: shard, settings, part settings.
        index: Number of the part in its shard, from 0.
        is_last: Whether the shard ends with it.
        samples: The samples, in received order.
        received: Tiles as received, one entry for each cell size.
        purified: The same tiles, purified; empty before.
        skipped: Members that no sample owns, counted and some named; on the last part.
        profile: What purified it: device, instruction set, threads, micro-batch, type of numbers.
        outcome: Set when nothing was purified: reused, failed, unreadable, away, refused, stopped.
        error: Why.
    """

    shard: str
    plan: str
    index: int
    is_last: bool
    samples: tuple[Sample, ...] = ()
    received: tuple[Tiles, ...] = ()
    purified: tuple[Tiles, ...] = ()
    skipped: dict[str, Any] = field(default_factory=dict)
    profile: dict[str, Any] = field(default_factory=dict)
    outcome: Outcome | None = None
    error: str | None = None

    @property
    def num_images(self) -> int:
        return sum(sample.status == "ok" for sample in self.samples)

    def failed(self, outcome: Outcome, error: str) -> Part:
        """The same part without its load, and why it ends here; its samples are still named."""
        samples = tuple(sample.failed(error) for sample in self.samples)
        return replace(self, samples=samples, received=(), purified=(), outcome=outcome, error=error)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one part; small, and all that comes back to the driver.

    Args:
        shard: NAME of the shard.
        plan: Identity of the work.
        index: Number of the part.
        is_last: Whether the shard ends with it.
        outcome: `staged`; `adopted` (another attempt's was there first); `reused` (an earlier run's);
            `given up` (staged, some samples as `failed`); `failed` (not staged), `unreadable` (the shard),
            `away` (the storage), `refused` (the storage, whatever comes next as well).
        error: Why, for the last five.
        images: Images purified.
        samples: Samples of any status.
        size_bytes: Size of the staged object.
    """

    shard: str
    plan: str
    index: int
    is_last: bool
    outcome: Outcome
    error: str | None = None
    images: int = 0
    samples: int = 0
    size_bytes: int = 0

    @property
    def is_in(self) -> bool:
        """Whether the part is staged now."""
        return self.outcome in ("staged", "adopted", "reused", "given up")

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Receipt:
        return cls(**json.loads(text))


def part_to_bytes(part: Part) -> bytes:
    """A part as one Arrow IPC stream."""
    pieces: list[Any] = []

    def keep(data: Any) -> int | None:  # noqa: ANN401 - bytes-like of any kind
        if data is None:
            return None
        pieces.append(data)
        return len(pieces) - 1

    header = {
        "shard": part.shard,
        "plan": part.plan,
        "index": part.index,
        "is_last": part.is_last,
        "skipped": part.skipped,
        "profile": part.profile,
        "outcome": part.outcome,
        "error": part.error,
        "samples": [_sample_facts(sample, keep) for sample in part.samples],
        "received": [_tiles_facts(tiles, keep) for tiles in part.received],
        "purified": [_tiles_facts(tiles, keep) for tiles in part.purified],
    }
    schema = pa.schema([("data", pa.large_binary())], metadata={"part": json.dumps(header)})
    batch = pa.record_batch([pa.array(pieces, pa.large_binary())], schema=schema)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return] # pyarrow is untyped


def part_from_bytes(data: bytes | pa.Buffer) -> Part:
    """The part of such a stream; pixels are views of it."""
    with pa.ipc.open_stream(data) as reader:
        header = json.loads(reader.schema.metadata[b"part"])
        column = reader.read_next_batch().column(0)
    samples = tuple(_sample_of(facts, column) for facts in header.pop("samples"))
    received = tuple(_tiles_of(facts, column) for facts in header.pop("received"))
    purified = tuple(_tiles_of(facts, column) for facts in header.pop("purified"))
    return Part(**header, samples=samples, received=received, purified=purified)


def _sample_facts(sample: Sample, keep: Any) -> dict[str, Any]:  # noqa: ANN401 - the closure above
    facts = {name: getattr(sample, name) for name in Sample.__slots__}
    facts["members"] = [(name, keep(data)) for name, data in sample.members]
    facts["placement"] = None if sample.placement is None else asdict(sample.placement)
    for name in ("alpha", "exif", "icc"):
        facts[name] = keep(facts[name])
    return facts


def _sample_of(facts: dict[str, Any], column: pa.Array) -> Sample:
    facts["members"] = tuple((name, _piece(column, at)) for name, at in facts["members"])
    if facts["placement"] is not None:
        facts["placement"] = Placement(**facts["placement"])
    for name in ("alpha", "exif", "icc"):
        if facts[name] is not None:
            facts[name] = _piece(column, facts[name])
    return Sample(**facts)


def _tiles_facts(tiles: Tiles, keep: Any) -> dict[str, Any]:  # noqa: ANN401 - the closure above
    return {
        "num_tiles": len(tiles.pixels),
        "cell_px": tiles.cell_px,
        "count": tiles.count,
        # A copy as bytes: pyarrow 26 never lets go of a memoryview that it made an array of, pixels and all.
        "pixels": keep(np.ascontiguousarray(tiles.pixels).tobytes()),
        "keys": keep(np.ascontiguousarray(tiles.keys).tobytes()),
        "residual": keep(None if tiles.residual is None else tiles.residual.astype("<f4").tobytes()),
    }


def _tiles_of(facts: dict[str, Any], column: pa.Array) -> Tiles:
    pixels = np.frombuffer(column[facts["pixels"]].as_buffer(), np.uint8).reshape(facts["num_tiles"], 256, 256, 3)
    keys = np.frombuffer(_piece(column, facts["keys"]), "<u8").reshape(-1, 2)
    residual = None if facts["residual"] is None else np.frombuffer(_piece(column, facts["residual"]), "<f4")
    return Tiles(pixels, facts["cell_px"], facts["count"], keys, residual)


def _piece(column: pa.Array, at: int) -> bytes:
    return column[at].as_py()  # type: ignore[no-any-return] # pyarrow is untyped
