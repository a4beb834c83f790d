"""Two drivers on one output: told, taken over, woken up, and made to write at once."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import Bucket
from inprocess import InProcess, run
from killing import Turns, kin, moments, outlived_s
from making import job, samples, write_tar
from raydrill import Script, drill, times

from pipeline import job as main_path
from pipeline.config import JobConfig
from pipeline.facts import Summary
from pipeline.store import open_store
from pipeline.verify import verify

pytestmark = pytest.mark.drill

SHARDS, PARTS = 2, 8
LEFT_S = 30.0


def received(folder: Path, bucket: Bucket | None = None) -> str:
    """The shards, on disk or in a bucket; gives the root that they are below."""
    for number in range(SHARDS):
        path = write_tar(folder / f"in/{number}.tar", samples(PARTS, 100 * number, 200, 200))
        if bucket is not None:
            bucket.client.put_object(Bucket=bucket.name, Key=f"in/{path.name}", Body=path.read_bytes())
    return str(folder) if bucket is None else bucket.uri


def outcome(config: JobConfig) -> dict[str, bytes]:
    output = open_store(config.output)
    report = verify(output)
    assert (report.findings, report.shards, report.samples) == ([], SHARDS, SHARDS * PARTS)
    assert not list(output.list("_staging"))
    folders = ("shards", "tables", "records")
    found = [stored.path for folder in folders for stored in output.list(folder)]
    return {path: b"" if path.endswith(".json") else output.get(path) for path in found}


# --- written at once, in one process ------------------------------------------------------------------


def at_once(config: JobConfig, seed: int, drivers: int) -> None:
    def purify() -> Summary:
        return main_path.purify(config, lambda fact: None, InProcess)

    turns = Turns(seed)
    with moments(turns):
        for summary in turns.run(*[purify] * drivers):
            assert isinstance(summary, Summary), (seed, summary)
            assert (summary.exit_code, summary.failed) == (0, {}), (seed, summary.failed)


def test_drivers_that_write_at_once_in_150_orders(tmp_path: Path) -> None:
    root = received(tmp_path)
    fields = {"input": f"{root}/in", "part__tiles": 1, "cluster__lease_s": 0}
    run(job(tmp_path, **fields, output=f"{root}/whole"))
    reference = outcome(job(tmp_path, output=f"{root}/whole"))
    for seed in range(150):
        overwrite = seed % 2 == 1
        config = job(tmp_path, **fields, output=f"{root}/{seed}", overwrite=overwrite)
        if overwrite:
            shutil.copytree(f"{root}/whole", config.output)
        at_once(config, seed, 2 + seed % 3)
        assert outcome(config) == reference, seed
        shutil.rmtree(config.output)
    print("\n150 orders of 2 to 4 drivers on disk, each second time overwriting: every shard whole, nobody failed")


@pytest.mark.s3
def test_drivers_that_write_at_once_in_a_bucket_in_30_orders(s3: Bucket, tmp_path: Path) -> None:
    root = received(tmp_path, s3)
    fields = {"input": f"{root}/in", "part__tiles": 1, "cluster__lease_s": 0}
    run(job(tmp_path, **fields, output=f"{root}/whole"))
    reference = outcome(job(tmp_path, output=f"{root}/whole"))
    for seed in range(30):
        overwrite = seed % 2 == 1
        config = job(tmp_path, **fields, output=f"{root}/{'whole' if overwrite else seed}", overwrite=overwrite)
        at_once(config, seed, 2)
        assert outcome(config) == reference, seed
    print("\n30 orders of 2 drivers in a bucket, each second time overwriting: every shard whole, nobody failed")


# --- on Ray -------------------------------------------------------------------------------------------


def fields(root: str, **more: Any) -> dict[str, Any]:
    basic = {"input": f"{root}/in", "output": f"{root}/out", "purifier.method": "none", "part.tiles": 1}
    return {**basic, "cluster.object_store_mib": 200, "cluster.actors": 1, **more}


@pytest.mark.parametrize("place", ["disk", pytest.param("bucket", marks=pytest.mark.s3)])
def test_the_second_driver_is_told_and_takes_over_when_the_first_is_killed(
    request: pytest.FixtureRequest, tmp_path: Path, place: str
) -> None:
    root = received(tmp_path, request.getfixturevalue("s3") if place == "bucket" else None)
    script = Script(str(tmp_path / "script"), held=["purifying 1.tar 2"])
    with drill(script, fields(root)) as first:
        first.wait_for("purifying 1.tar 2")
        with drill(Script(str(tmp_path / "other")), fields(root)) as second:
            refused = second.end()
        left = kin(first.process.pid)
        first.process.kill()
        first.process.wait()
        outlived_s(left, LEFT_S)
    assert (refused["raised"], refused["exit_code"]) == ("LeaseError", 75)
    assert f"pid {first.process.pid}, since " in refused["message"]
    staged, begun = times(script, "ended", "staging"), times(script, "begun", "purifying")
    (tmp_path / "script" / "go purifying 1.tar 2").touch()
    began = time.monotonic()
    with drill(Script(script.folder), fields(root)) as third:
        assert third.end()["exit_code"] == 0
        assert not any("watching" in line for line in third.warnings())  # a dead pid on the same host
    outcome(job(tmp_path, output=f"{root}/out"))
    again = times(script, "begun", "purifying") - begun
    assert not {work.partition(" ")[2] for work in again} & {work.partition(" ")[2] for work in staged}
    print(f"\n{place}: told {refused['message']!r}; taken over at once, done in {time.monotonic() - began:.0f} s")


@pytest.mark.s3
def test_a_driver_that_stands_still_loses_its_lease_and_does_no_harm_when_it_wakes_up(
    s3: Bucket, tmp_path: Path
) -> None:
    root = received(tmp_path, s3)
    script = Script(str(tmp_path / "script"), purify_s=1.0)
    with drill(script, fields(root, **{"cluster.lease_s": 8})) as first:
        first.until("Receipt", 2)
        first.process.send_signal(signal.SIGSTOP)
        with drill(Script(str(tmp_path / "other")), fields(root, **{"cluster.lease_s": 8})) as second:
            second.until("Receipt", 3)
            first.process.send_signal(signal.SIGCONT)
            woken, done = first.end(), second.end()
            said = second.warnings()
    assert any("watching its lease for 8 s" in line for line in said)
    assert (woken["raised"], woken["exit_code"]) == ("LeaseError", 75)
    assert "took over" in woken["message"]
    assert done["exit_code"] == 0
    outcome(job(tmp_path, output=f"{root}/out"))
    print(f"\nstopped, taken over, woken: the first one ended with 75: {woken['message']!r}; the second one with 0")


def test_two_drivers_on_ray_without_a_lease_end_in_the_bytes_of_one(tmp_path: Path) -> None:
    root = received(tmp_path)
    run(job(tmp_path, part__tiles=1, output=f"{root}/whole"))
    reference = outcome(job(tmp_path, output=f"{root}/whole"))
    free = fields(root, **{"cluster.lease_s": 0})
    scripts = [Script(str(tmp_path / name), purify_s=0.5) for name in ("one", "two")]
    with drill(scripts[0], free) as first, drill(scripts[1], free) as second:
        ends = [first.end(), second.end()]
    assert [end["exit_code"] for end in ends] == [0, 0]
    assert outcome(job(tmp_path, output=f"{root}/out")) == reference
    staged = [end["parts"] for end in ends]
    print(f"\ntwo at once on Ray: parts {staged}; the same shards and tables as of one")
