"""The samples that a page shows, each with its rows: what was done to it, and what was said of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import ledger
from pipeline.errors import NotFoundError
from pipeline.report.scan import GALLERY, Scan, Spot
from pipeline.store import Store

_SAID = ["index", "status", "error", "prediction_before", "prediction_after"]
_SAID += ["scores_before", "scores_after", "flipped", "suspicion"]

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Samples:
    """The samples of a page; each row has all columns of the table and, where it was asked about, of the predictions.

    Args:
        suspects: The most suspect ones, for pictures.
        randoms: Some drawn at random, for pictures.
        listed: The next suspect ones.
        left_out: Some that were not purified or not answered.
    """

    suspects: list[Row]
    randoms: list[Row]
    listed: list[Row]
    left_out: list[Row]

    @property
    def num_distinct(self) -> int:
        """Samples on the page; one that is suspect may have been drawn at random as well."""
        rows = (*self.suspects, *self.randoms, *self.listed, *self.left_out)
        return len({(row["shard"], row["index"]) for row in rows})


def read_samples(output: Store, found: Scan, answered: Mapping[str, str], range_mib: int = 8) -> Samples:
    """The rows of what was chosen; those of a table that went away meanwhile are left out.

    Args:
        output: Where.
        found: Who was chosen.
        answered: Where the predictions of answered shards lie, by NAME.
        range_mib: MiB of one ranged read.
    """
    wanted: dict[str, set[int]] = {}
    for _, name, index in (*found.suspects, *found.randoms, *found.left_out):
        wanted.setdefault(name, set()).add(index)
    rows: dict[tuple[str, int], Row] = {}
    for name, indices in wanted.items():
        for row in _rows(output, ledger.table_path(name), indices, None, range_mib):
            rows[name, row["index"]] = row
        if name in answered:
            for row in _rows(output, answered[name], indices, _SAID, range_mib):
                rows.setdefault((name, row["index"]), {}).update(row)

    def of(spots: Iterable[Spot]) -> list[Row]:
        return [rows[name, index] for _, name, index in spots if "key" in rows.get((name, index), ())]

    in_order = sorted(found.left_out, key=lambda spot: spot[1:])
    return Samples(of(found.suspects[:GALLERY]), of(found.randoms), of(found.suspects[GALLERY:]), of(in_order))


def _rows(output: Store, path: str, indices: set[int], columns: list[str] | None, range_mib: int) -> Iterator[Row]:
    """Rows by their index, of those row groups alone that hold them: a row's number is its index."""
    try:
        stored = output.head(path)
    except NotFoundError:
        return  # withdrawn by another run
    with pq.ParquetFile(output.open(stored, range_mib)) as table:
        sizes = [table.metadata.row_group(number).num_rows for number in range(table.num_row_groups)]
        groups = sorted({int(group) for group in np.searchsorted(np.cumsum(sizes), sorted(indices), side="right")})
        groups = [group for group in groups if group < len(sizes)]
        values = pa.array(sorted(indices), pa.int64())
        for batch in table.iter_batches(row_groups=groups, columns=columns) if groups else ():
            yield from batch.filter(pc.is_in(batch.column("index"), values)).to_pylist()
