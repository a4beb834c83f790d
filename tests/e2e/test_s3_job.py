"""The same job in buckets: a real S3 server, conditional puts, a rerun after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import Bucket
from inprocess import DIED, run, run_in_a_process
from making import job, samples, tree, write_tar
from raychild import finish, kill_at

from pipeline.ledger import staged_path
from pipeline.parts import Part
from pipeline.stages import stage_part
from pipeline.store import open_store
from pipeline.verify import verify

pytestmark = pytest.mark.s3


@pytest.fixture
def received(s3: Bucket, tmp_path: Path) -> Path:
    """One shard of five images of 200 px, on disk and in the bucket."""
    shard = write_tar(tmp_path / "in/a/000000.tar", samples(5, 0, 200, 200))
    s3.client.put_object(Bucket=s3.name, Key="in/a/000000.tar", Body=shard.read_bytes())
    return tmp_path


def objects(s3: Bucket, prefix: str) -> dict[str, bytes]:
    """What boto3 sees below a prefix."""
    listed = s3.client.list_objects_v2(Bucket=s3.name, Prefix=prefix).get("Contents", [])
    keys = [item["Key"] for item in listed]
    return {key.removeprefix("out/"): s3.client.get_object(Bucket=s3.name, Key=key)["Body"].read() for key in keys}


def outputs(s3: Bucket) -> dict[str, bytes]:
    return {**objects(s3, "out/shards/"), **objects(s3, "out/tables/"), **objects(s3, "out/_staging/")}


def fields(s3: Bucket, **more: Any) -> dict[str, Any]:
    return {"input": f"{s3.uri}/in/", "output": f"{s3.uri}/out/", **more}


def test_a_job_in_buckets_gives_the_bytes_that_it_gives_on_disk_and_a_rerun_does_nothing(
    s3: Bucket, received: Path
) -> None:
    run(job(received, part__tiles=2))
    config = job(received, part__tiles=2, **fields(s3))
    summary, _ = run(config)
    assert summary.exit_code == 0
    assert outputs(s3) == tree(received / "out", "shards", "tables", "_staging")
    assert verify(open_store(config.output)).findings == []
    rerun, engine = run(config)
    assert engine is None
    assert rerun.committed == []


def test_after_a_kill_in_the_middle_the_rerun_gives_the_same_and_purifies_no_staged_part_again(
    s3: Bucket, received: Path
) -> None:
    run(job(received, part__tiles=2))
    reference = tree(received / "out", "shards", "tables", "_staging")
    for n in (4, 7, 9):  # a part staged; the shard not yet visible; the record not yet written
        log = received / f"{n}.log"
        prefix = f"{s3.uri}/out{n}/"
        config = job(received, part__tiles=2, **fields(s3, output=prefix))
        assert run_in_a_process(config, n, log) == DIED
        assert run_in_a_process(config, 0, log) == 0
        found = {**objects(s3, f"out{n}/shards/"), **objects(s3, f"out{n}/tables/"), **objects(s3, f"out{n}/_staging/")}
        assert {key.removeprefix(f"out{n}/"): data for key, data in found.items()} == reference
        purified = [line for line in log.read_text().splitlines() if not line.startswith("writes")]
        assert len(purified) <= 4


def test_who_loses_the_race_to_stage_a_part_adopts_the_winners(s3: Bucket, received: Path) -> None:
    output = open_store(f"{s3.uri}/out/")
    part = Part("a.tar", "0" * 12, 0, is_last=True)
    assert stage_part(part, output, job(received)).outcome == "staged"
    winner = output.get(staged_path("a.tar", "0" * 12, 0))
    other = Part("a.tar", "0" * 12, 0, is_last=True, profile={"device": "another"})
    assert stage_part(other, output, job(received)).outcome == "adopted"
    assert output.get(staged_path("a.tar", "0" * 12, 0)) == winner


@pytest.mark.ray
def test_on_ray_a_killed_job_in_buckets_ends_in_the_bytes_of_an_undisturbed_one(s3: Bucket, received: Path) -> None:
    settings = {"part.tiles": 1, "purifier.method": "median", "cluster.object_store_mib": 200}
    kill_at(fields(s3, **settings), "Receipt", 1)
    assert not objects(s3, "out/records/")
    finish(fields(s3, **settings))
    finish(fields(s3, output=str(received / "whole"), **settings))
    assert outputs(s3) == tree(received / "whole", "shards", "tables", "_staging")
