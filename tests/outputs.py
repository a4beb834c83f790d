"""Outputs made of rows alone: tables, predictions and records as a run leaves them, with no image behind them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import ledger, tables

IDENTITY = "0123456789ab"


def write_output(folder: Path, rows: dict[str, Sequence[dict[str, Any]]], classifier: str | None = "box") -> Path:
    """An output of some shards, by NAME; rows hold whatever columns matter, of tables and predictions both."""
    write(folder / ledger.SETTINGS_PATH, {"fingerprint": "f", "settings": {"purifier": {"method": "none"}}})
    for name, some in rows.items():
        full = [{"status": "ok", **row, "shard": name, "index": index} for index, row in enumerate(some)]
        table = [
            {"width": 32, "height": 32, "mode": "RGB", **row, "status": _purification(row["status"])} for row in full
        ]
        write_parquet(folder / ledger.table_path(name), table, tables.TABLE)
        source = {"uri": str(folder / "gone" / name), "size": 1, "etag": "e"}
        record = {"source": source, "statuses": tables.count_by_status(row["status"] for row in table)}
        write(folder / ledger.record_path(name, IDENTITY), record)
        if classifier:
            write_parquet(folder / ledger.predictions_path(classifier, name), full, tables.PREDICTIONS)
            write(folder / ledger.predictions_record_path(classifier, name, IDENTITY), {})
    return folder


def write_run(folder: Path, name: str, config: dict[str, Any] | None = None, **summary: Any) -> None:
    """What a run leaves below runs/."""
    write(folder / f"runs/{name}/config.json", config or {})
    shards = sorted(str(path.relative_to(folder / "tables")) for path in (folder / "tables").rglob("*.parquet"))
    committed = [shard.removesuffix(".parquet") for shard in shards]
    told = {"run": name, "exit_code": 0, "shards": 1, "committed": committed, **summary}
    write(folder / f"runs/{name}/summary.json", told)


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_parquet(path: Path, rows: Sequence[dict[str, Any]], schema: pa.Schema) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    known = [{name: row.get(name) for name in schema.names} for row in rows]
    pq.write_table(pa.Table.from_pylist(known, schema=schema), path, row_group_size=4096, compression="zstd")


def answered(key: str, before: int, after: int, suspicion: float | None = None, **more: Any) -> dict[str, Any]:
    """A row with two answers."""
    scores = None if suspicion is None else [{"class": after, "score": 1.0}]
    row = {"key": key, "prediction_before": before, "prediction_after": after, "flipped": before != after}
    return {**row, "suspicion": suspicion, "scores_before": scores, "scores_after": scores, "psnr": 30.0, **more}


def _purification(status: str) -> str:
    return "ok" if status == "unanswered" else status


def many(count: int, seed: int) -> list[dict[str, Any]]:
    """Rows of a large output: ten classes, class 3 a target that flips, some samples without an image."""
    draw = np.random.default_rng(seed)
    before = draw.integers(0, 10, count)
    flips = draw.random(count) < np.where(before == 3, 0.6, 0.05)
    after = np.where(flips, (before + draw.integers(1, 10, count)) % 10, before)
    suspicion = np.where(flips, 0.5, 0.0) + draw.random(count) / 2
    bad = draw.random(count) < 0.01
    rows = []
    for i in range(count):
        if bad[i]:
            rows.append({"key": f"{i:08d}", "status": "undecodable", "error": f"cannot identify image file {i}"})
        else:
            rows.append(answered(f"{i:08d}", int(before[i]), int(after[i]), float(suspicion[i])))
    return rows
