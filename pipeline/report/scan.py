"""All rows of an output in one pass over a few columns: counts, and which samples the page shows.

Memory is set by what the page shows and by the number of classes, never by the rows: a table is read some
rows at a time, a shard leaves its counts and its few candidates. What is drawn at random depends on the
shard's name alone, so that a rebuilt page shows the same samples.
"""

from __future__ import annotations

import hashlib
import heapq
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import ledger
from pipeline.errors import NotFoundError
from pipeline.store import Store

GALLERY = 24
"""Samples shown in pictures, most suspect ones and as many drawn at random."""

LISTED = 200
"""Further suspect samples, as rows."""

MAX_LEFT_OUT = 100
"""Samples without a purified image or an answer that are named with their reason, drawn at random if there are more."""

BINS = 20
MAX_PAIRS = 50_000
_READERS = 8
_PURIFIED = ("ok", "unanswered")
_FROM_PREDICTIONS = ["index", "status", "prediction_before", "prediction_after", "flipped", "suspicion"]
_FROM_TABLE = ["index", "status", "residual", "psnr"]

Spot = tuple[float, str, int]
"""A candidate: what it is ranked by, its shard and its index there."""


@dataclass(slots=True)
class Scan:
    """What the rows of an output come to.

    Args:
        statuses: Rows by status; `unanswered` ones are purified.
        by_class: By class as received: answers to both images, and how many of them flipped.
        flips: By class before and after; the rarest are forgotten beyond `MAX_PAIRS`.
        kept_by_suspicion: Answers that stayed, by suspicion in `BINS` steps from 0 to 1.
        flipped_by_suspicion: The same of those that flipped.
        suspects: The most suspect ones, the most suspect first.
        randoms: Purified ones drawn at random.
        left_out: Not purified or not answered ones, drawn at random.
        shards: Shards read.
        answered_shards: Those of them with answers.
        late: Shards that weren't, since time was up.
        unreadable: Why others weren't, by shard.
        has_residuals: Whether the method says where something stood out.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    by_class: dict[int, tuple[int, int]] = field(default_factory=dict)
    flips: Counter[tuple[int, int]] = field(default_factory=Counter)
    kept_by_suspicion: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    flipped_by_suspicion: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    suspects: list[Spot] = field(default_factory=list)
    randoms: list[Spot] = field(default_factory=list)
    left_out: list[Spot] = field(default_factory=list)
    shards: int = 0
    answered_shards: int = 0
    late: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    has_residuals: bool = False

    @property
    def samples(self) -> int:
        return self.statuses.total()

    @property
    def purified(self) -> int:
        return sum(self.statuses[status] for status in _PURIFIED)

    @property
    def answered(self) -> int:
        """Samples with both answers."""
        return sum(answers for answers, _ in self.by_class.values())

    @property
    def flipped(self) -> int:
        return sum(flipped for _, flipped in self.by_class.values())

    def add(self, other: Scan) -> None:
        """Take in another's counts, and the best of both's candidates."""
        self.statuses += other.statuses
        for index, (answers, flipped) in other.by_class.items():
            before = self.by_class.get(index, (0, 0))
            self.by_class[index] = (before[0] + answers, before[1] + flipped)
        self.flips += other.flips
        if len(self.flips) > 2 * MAX_PAIRS:
            self.flips = Counter(dict(self.flips.most_common(MAX_PAIRS)))
        self.kept_by_suspicion += other.kept_by_suspicion
        self.flipped_by_suspicion += other.flipped_by_suspicion
        self.suspects = heapq.nsmallest(GALLERY + LISTED, (*self.suspects, *other.suspects))
        self.randoms = heapq.nsmallest(GALLERY, (*self.randoms, *other.randoms))
        self.left_out = heapq.nsmallest(MAX_LEFT_OUT, (*self.left_out, *other.left_out))
        self.shards += other.shards
        self.answered_shards += other.answered_shards
        self.late += other.late
        self.unreadable.update(other.unreadable)
        self.has_residuals |= other.has_residuals


def scan_tables(
    output: Store, names: Iterable[str], answered: Mapping[str, str], until_s: float | None, range_mib: int = 8
) -> Scan:
    """Read a few columns of each shard's predictions, or of its table where it has no answers.

    Args:
        output: Where.
        names: The committed shards.
        answered: Where the predictions of those lie that a classifier has answered for, by NAME.
        until_s: When to begin no more shards, by the monotonic clock; none: read all.
        range_mib: MiB of one ranged read.
    """

    def scanned(name: str) -> Scan:
        if until_s is not None and time.monotonic() > until_s:
            return Scan(late=1)
        try:
            return _scan_shard(output, name, answered.get(name), range_mib)
        except NotFoundError:
            return Scan(unreadable={name: "its table is gone"})
        except (OSError, ValueError) as error:  # pyarrow raises ValueError's heirs for what is no parquet
            return Scan(unreadable={name: " ".join(str(error).split())})

    total = Scan()
    with ThreadPoolExecutor(_READERS) as readers:
        for found in readers.map(scanned, names):
            total.add(found)
    return total


def _scan_shard(output: Store, name: str, predictions: str | None, range_mib: int) -> Scan:
    found = Scan(shards=1, answered_shards=int(predictions is not None))
    path, columns = (predictions, _FROM_PREDICTIONS) if predictions else (ledger.table_path(name), _FROM_TABLE)
    draw = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
    for rows in _batches(output, path, columns, range_mib):
        statuses = rows["status"].to_numpy(zero_copy_only=False)
        index = rows["index"].to_numpy()
        chance = draw.random(len(rows))
        purified = np.isin(statuses, _PURIFIED)
        rank = _noted_answers(found, rows) if predictions else _noted_residuals(found, rows)
        found.statuses.update(_counted(rows["status"]))
        found.suspects += _smallest(-rank, np.isfinite(rank) & (statuses == "ok"), GALLERY + LISTED, name, index)
        found.randoms += _smallest(chance, purified, GALLERY, name, index)
        found.left_out += _smallest(chance, statuses != "ok", MAX_LEFT_OUT, name, index)
        found.add(Scan())  # keeps the best candidates alone
    return found


def _batches(output: Store, path: str, columns: list[str], range_mib: int) -> Iterator[pa.Table]:
    with pq.ParquetFile(output.open(output.head(path), range_mib)) as table:
        for batch in table.iter_batches(columns=columns):
            yield pa.Table.from_batches([batch]).combine_chunks()


def _noted_answers(found: Scan, rows: pa.Table) -> np.ndarray:
    """Count the flips of some rows; gives what they are ranked by: suspicion, where there are no scores the flip."""
    suspicion = _floats(rows["suspicion"])
    flipped = _floats(rows["flipped"].cast(pa.float32()))  # 1, 0, nan without both answers
    for bins, value in ((found.flipped_by_suspicion, 1), (found.kept_by_suspicion, 0)):
        chosen = suspicion[(flipped == value) & np.isfinite(suspicion)]
        bins += np.histogram(chosen, BINS, (0, 1))[0]
    both = rows.select(["prediction_before", "prediction_after", "flipped"]).drop_null()
    grouped = both.group_by(["prediction_before", "prediction_after"]).aggregate([("flipped", "count")])
    for row in grouped.to_pylist():
        before, after, count = row["prediction_before"], row["prediction_after"], row["flipped_count"]
        answers, changed = found.by_class.get(before, (0, 0))
        found.by_class[before] = (answers + count, changed + (count if before != after else 0))
        if before != after:
            found.flips[before, after] += count
    rank = np.where(np.isfinite(suspicion), suspicion, flipped)
    return np.where(rank > 0, rank, np.nan)


def _noted_residuals(found: Scan, rows: pa.Table) -> np.ndarray:
    """What rows without answers are ranked by: how far a box stands out, else how much was changed."""
    residual = _floats(rows["residual"])
    found.has_residuals |= bool(np.isfinite(residual).any())
    return np.where(np.isfinite(residual), residual, -_floats(rows["psnr"]))


def _floats(column: Any) -> np.ndarray:  # noqa: ANN401 - a pyarrow column
    return np.asarray(column.to_numpy(), np.float64)


def _counted(column: Any) -> dict[str, int]:  # noqa: ANN401 - a pyarrow column
    return {one["values"]: one["counts"] for one in column.value_counts().to_pylist()}


def _smallest(by: np.ndarray, of: np.ndarray, count: int, name: str, index: np.ndarray) -> list[Spot]:
    places = np.flatnonzero(of)
    if len(places) > count:  # ties are broken by the order received, as they are between shards
        places = places[np.argsort(by[places], kind="stable")[:count]]
    return [(float(by[place]), name, int(index[place])) for place in places]
