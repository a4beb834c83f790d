"""The real job on a real Ray, on disk: what comes out, whoever worked on it and whatever ended it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest
import webdataset
from making import samples, tree, write_tar
from raychild import finish, kill_at

from jobs.serve import application, load_network, running
from pipeline.store import open_store
from pipeline.verify import verify

pytestmark = [
    pytest.mark.ray,
    # webdataset leaves the files that it read to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SIGNS = Path(__file__).parents[2] / "jobs" / "demo" / "signs.onnx"
PER_SHARD = 30


@pytest.fixture(scope="module")
def received(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of 30 images of 90x96 px; one more sample of each can't be decoded."""
    folder = tmp_path_factory.mktemp("received")
    for name, first in (("cam1/000000.tar", 0), ("000001.tar", 100)):
        broken = [(f"{first + PER_SHARD:06d}.jpg", b"no image"), (f"{first + PER_SHARD:06d}.cls", b"7")]
        write_tar(folder / name, [*samples(PER_SHARD, first, 90, 96), broken])
    return folder


def fields(received: Path, output: Path, **more: Any) -> dict[str, Any]:
    basic = {"input": str(received), "output": str(output), "part.tiles": 1, "cluster.object_store_mib": 200}
    return {**basic, **more}


@pytest.fixture(scope="module")
def whole(received: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of an undisturbed run with two purifiers, and a classifier asked over HTTP."""
    output = tmp_path_factory.mktemp("whole") / "out"
    with running(application(load_network(SIGNS), "signs")) as url:
        asked = {"protocol": "open-inference-v2", "url": url, "model": "signs", "name": "signs", "input.size": 32}
        classifier = {f"classifier.{name}": value for name, value in asked.items()}
        summary = finish(fields(received, output, **{"cluster.actors": 2}, **classifier))
    assert summary["exit_code"] == 0
    assert summary["statuses"] == {"ok": 2 * PER_SHARD, "undecodable": 2}
    assert sorted(summary["asked"]) == ["000001.tar", "cam1/000000.tar"]
    return output


def purified(output: Path) -> dict[str, bytes]:
    return tree(output, "shards", "tables", "_staging")


def test_webdataset_reads_each_purified_sample_once_with_its_other_members(received: Path, whole: Path) -> None:
    for name, first in (("cam1/000000.tar", 0), ("000001.tar", 100)):
        before = {s["__key__"]: s for s in webdataset.WebDataset(str(received / name), shardshuffle=False)}
        after = list(webdataset.WebDataset(str(whole / "shards" / name), shardshuffle=False))
        assert [s["__key__"] for s in after] == [f"{i:06d}" for i in range(first, first + PER_SHARD)]
        for sample in after:
            assert sample["cls"] == before[sample["__key__"]]["cls"]
            assert sample["txt"] == before[sample["__key__"]]["txt"]
            assert sample["png"] != before[sample["__key__"]]["png"]


def test_duckdb_joins_tables_and_predictions_row_by_row(whole: Path) -> None:
    joined = duckdb.sql(
        f"""
        select t.key, t.status, t.label, p.prediction_before, p.prediction_after, p.flipped, p.status
        from read_parquet('{whole}/tables/**/*.parquet') t
        join read_parquet('{whole}/predictions/signs/**/*.parquet') p using (shard, key)
        where t.label is not distinct from p.label and t.index = p.index
        """
    ).fetchall()
    assert len(joined) == 2 * (PER_SHARD + 1)
    for _, status, _, before, after, flipped, answered in joined:
        assert status == answered
        if status == "ok":
            assert flipped == (before != after)
        else:
            assert (before, after, flipped) == (None, None, None)


def test_one_two_and_three_purifiers_give_the_same_bytes(received: Path, whole: Path, tmp_path: Path) -> None:
    for actors in (1, 3):
        output = tmp_path / str(actors)
        finish(fields(received, output, **{"cluster.actors": actors}))
        assert purified(output) == purified(whole)


def test_killed_at_three_moments_the_reruns_end_in_the_same_and_reuse_what_is_staged(
    received: Path, whole: Path, tmp_path: Path
) -> None:
    job = fields(received, tmp_path / "out", **{"cluster.actors": 2})
    kill_at(job, "Receipt", 1)
    kill_at(job, "Receipt", 6)
    kill_at(job, "Committed", 1)
    summary = finish(job)
    assert purified(tmp_path / "out") == purified(whole)
    assert summary["committed"] in (["000001.tar"], ["cam1/000000.tar"], [])
    assert summary["parts"].get("reused", 0) + summary["parts"].get("staged", 0) <= 8


def test_verify_passes_and_finds_a_flipped_byte_a_missing_row_and_a_swapped_member(whole: Path, tmp_path: Path) -> None:
    report = verify(open_store(str(whole)))
    assert report.findings == []
    assert (report.shards, report.samples, report.predictions) == (2, 2 * (PER_SHARD + 1), 2)

    def findings(change: str) -> str:
        copy = tmp_path / change
        shutil.copytree(whole, copy)
        shard, table = copy / "shards/000001.tar", copy / "tables/000001.tar.parquet"
        if change == "flipped byte":
            data = bytearray(shard.read_bytes())
            data[len(data) // 2] ^= 1
            shard.write_bytes(data)
        elif change == "missing row":
            rows = duckdb.read_parquet(str(table)).limit(PER_SHARD)
            rows.write_parquet(f"{table}.new")
            Path(f"{table}.new").rename(table)
        else:
            write_tar(shard, _swapped(shard))
        return "\n".join(verify(open_store(str(copy))).findings)

    assert "shards/000001.tar: expected sha256" in findings("flipped byte")
    missing = findings("missing row")
    assert f"expected {PER_SHARD + 1} rows, found {PER_SHARD}" in missing
    assert "expected sample '000100', found '000101'" in findings("swapped member")


def _swapped(shard: Path) -> list[list[tuple[str, bytes]]]:
    groups = [
        [(f"{s['__key__']}.{suffix}", data) for suffix, data in s.items() if not suffix.startswith("__")]
        for s in webdataset.WebDataset(str(shard), shardshuffle=False)
    ]
    # The first two samples change places: each member is whole, and the table no longer fits.
    return [groups[1], groups[0], *groups[2:]]
