from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from making import job, samples, write_tar
from scipy.stats import binomtest

from pipeline import alert as alerts
from pipeline import ledger, tables
from pipeline.alert import Alert, judge, look_for_alert
from pipeline.black_box import identify
from pipeline.config import AlertConfig, JobConfig
from pipeline.inputs import find_shards
from pipeline.store import open_store

RULE = AlertConfig()
NIGHTS = 2000


def drawn(rng: np.random.Generator, sizes: list[int], shares: list[float]) -> dict[int, tuple[int, int]]:
    flips = [int(rng.binomial(size, share)) for size, share in zip(sizes, shares, strict=True)]
    return {index: (size, count) for index, (size, count) in enumerate(zip(sizes, flips, strict=True))}


def fired(sizes: list[int], shares: list[float], nights: int = NIGHTS) -> float:
    rng = np.random.default_rng(0)
    return sum(judge(drawn(rng, sizes, shares), RULE).fired for _ in range(nights)) / nights


@pytest.mark.parametrize("classes", [2, 3, 43, 200])
@pytest.mark.parametrize("share", [0.05, 0.5])
@pytest.mark.parametrize("size", [1, 60, 1000])
def test_classes_that_flip_alike_never_fire_whatever_their_size(classes: int, share: float, size: int):
    assert fired([size] * classes, [share] * classes, nights=40) == 0


def test_small_classes_among_large_ones_never_fire():
    sizes = [1000] * 10 + [1, 2, 5, 10, 20, 30, 40, 49] * 5
    assert fired(sizes, [0.1] * 10 + [0.6] * 40, nights=300) == 0


def test_a_class_exactly_at_the_threshold_fires_by_chance_in_one_night_of_a_hundred_at_most():
    assert fired([400] * 10, [0.1] * 9 + [0.3]) <= 0.01


def test_hard_classes_within_the_threshold_are_quiet():
    assert fired([500] * 10, [0.05, 0.06, 0.08, 0.1, 0.1, 0.12, 0.15, 0.18, 0.22, 0.26]) == 0


@pytest.mark.parametrize(("classes", "poisoned"), [(10, 0.05), (43, 0.02)])
def test_a_target_of_a_few_triggers_in_a_hundred_images_fires_and_is_named(classes: int, poisoned: float):
    """Ten thousand images; nine triggers in ten are destroyed, one clean answer in ten flips."""
    rng = np.random.default_rng(1)
    for _ in range(200):
        counts = drawn(rng, [10_000 // classes] * classes, [0.1] * classes)
        triggered = int(10_000 * poisoned)
        answers, flipped = counts[3]
        counts[3] = (answers + triggered, flipped + int(rng.binomial(triggered, 0.9)))
        found = judge(counts, RULE)
        assert found.fired
        assert found.class_index == 3


def test_the_numbers_are_those_of_the_definition():
    counts = {0: (100, 10), 1: (200, 30), 2: (100, 90), 3: (1000, 120)}
    found = judge(counts, RULE)
    assert (found.class_index, found.answers, found.flipped) == (2, 100, 90)
    assert found.others == pytest.approx(0.12)  # the median of .10, .15 and .12
    assert found.concentration == pytest.approx(0.78)
    lower = binomtest(90, 100).proportion_ci(1 - 2 * 0.01 / 4, method="wilson").low
    assert found.at_least == pytest.approx(lower - 0.12)


def test_small_classes_count_together_as_one_when_there_is_none_other_to_compare_with():
    counts = dict.fromkeys(range(1, 100), (5, 0)) | {0: (200, 150)}
    found = judge(counts, RULE)
    assert (found.fired, found.class_index, found.others) == (True, 0, 0.0)


@pytest.mark.parametrize(
    ("counts", "why"),
    [
        ({}, "no class was answered 50 times"),
        ({0: (49, 49), 1: (10, 0)}, "no class"),
        ({0: (99, 99)}, "one class alone"),
    ],
)
def test_what_can_not_be_judged_says_why_and_is_quiet(counts: dict[int, tuple[int, int]], why: str):
    found = judge(counts, RULE)
    assert not found.fired
    assert why in found.words


def test_of_two_classes_each_is_compared_with_the_other():
    assert judge({0: (1000, 500), 1: (1000, 50)}, RULE).fired  # a median over both would say .225 instead of .45


# --- the tables ---------------------------------------------------------------------------------------


def predicted(folder: Path, rows: dict[str, list[tuple[int | None, int | None]]], **fields: object) -> JobConfig:
    """An output with predictions of these (before, after), of the shards by their names."""
    (folder / "box.onnx").write_bytes(b"a file, never opened")
    config = job(
        folder, classifier__protocol="onnx", classifier__path=str(folder / "box.onnx"), classifier__name="box", **fields
    )
    output = open_store(config.output)
    for name in rows:
        write_tar(folder / "in" / name, samples(1))
    shards = {shard.name: shard for shard in find_shards(config.input)}
    for name, answers in rows.items():
        table = pa.Table.from_pylist(
            [
                {
                    "prediction_before": before,
                    "prediction_after": after,
                    "flipped": None if before is None or after is None else before != after,
                }
                for before, after in answers
            ],
            schema=tables.PREDICTIONS,
        )
        path = folder / "out" / ledger.predictions_path("box", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
        output.put(ledger.predictions_record_path("box", name, shards[name].identity), b"{}")
    output.put("classifiers/box.json", claim(config))
    return config


def claim(config: JobConfig) -> bytes:
    assert config.classifier is not None
    return json.dumps({k: v for k, v in identify(config.classifier).asked_with.items() if k != "url"}).encode()


def look(config: JobConfig) -> Alert:
    found = look_for_alert(config, open_store(config.output), find_shards(config.input))
    assert found is not None
    return found


def test_the_counts_are_those_of_all_tables_and_answers_that_are_missing_count_on_neither_side(tmp_path: Path):
    rows: list[tuple[int | None, int | None]] = [(0, 1)] * 30 + [(0, 0)] * 30 + [(1, 1)] * 60
    missing: list[tuple[int | None, int | None]] = [(0, None)] * 40 + [(None, 1)] * 40
    found = look(predicted(tmp_path, {"a.tar": rows + missing, "b/c.tar": rows}))
    assert (found.answers, found.flipped, found.class_index, found.others) == (120, 60, 0, 0.0)
    assert found.fired


def test_a_table_whose_record_is_not_there_does_not_count(tmp_path: Path):
    config = predicted(tmp_path, {"a.tar": [(0, 0)] * 60 + [(1, 1)] * 60, "b.tar": [(0, 1)] * 60})
    for record in (tmp_path / "out/predictions/box").glob("b.tar.*.json"):
        record.unlink()
    assert look(config).flipped == 0


def test_memory_is_that_of_a_batch_whatever_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows: list[tuple[int | None, int | None]] = [(i % 7, (i + 1) % 7) for i in range(200_000)]
    config = predicted(tmp_path, {"a.tar": rows})
    seen: list[int] = []

    class Watched:
        @staticmethod
        def from_batches(batches: list[pa.RecordBatch]) -> pa.Table:
            seen.append(sum(batch.nbytes for batch in batches))
            return pa.Table.from_batches(batches)

    monkeypatch.setattr(alerts, "pa", type("pyarrow", (), {"Table": Watched}))
    assert look(config).classes == 7
    assert max(seen) <= 1 << 20
    assert math.fsum(seen) > max(seen)


def test_it_can_be_switched_off_and_says_when_it_can_not_look(tmp_path: Path):
    rows: list[tuple[int | None, int | None]] = [(0, 1)] * 60
    off = predicted(tmp_path, {"a.tar": rows}, alert__enabled=False)
    assert look_for_alert(off, open_store(off.output), find_shards(off.input)) is None
    half = predicted(tmp_path, {"a.tar": rows}, ask__before=False)
    assert "ask.before is off" in look(half).words
