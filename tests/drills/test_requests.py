"""What a night asks of S3: requests by kind, for a run, for each shard and each part. The operations page has them."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from conftest import Bucket
from faulty_s3 import FaultyS3
from inprocess import run
from making import job, samples
from storing import write_classifier

pytestmark = [pytest.mark.drill, pytest.mark.s3]

CHARGED = ("list", "put", "create", "begin", "part", "complete")
"""Requests of the dearer kind; get and head are of the cheaper one, and delete and abort cost nothing at AWS."""


def shard(count: int) -> bytes:
    """So many images of 200 px, each a part of its own."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in (member for group in samples(count, 0, 200, 200) for member in group):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def test_requests_of_a_run_grow_with_its_shards_and_parts_as_the_operations_page_says(
    s3: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_classifier(tmp_path / "bright.onnx")
    with FaultyS3(s3.environment["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)

        def asked(shards: int, parts: int, runs: int = 1) -> Counter[str]:
            name = f"{shards}-{parts}-{runs}"
            for number in range(shards):
                s3.client.put_object(Bucket=s3.name, Key=f"in/{name}/{number}.tar", Body=shard(parts))
            s3.client.put_object(Bucket=s3.name, Key=f"in/{name}/_SUCCESS", Body=b"")
            config = job(
                tmp_path,
                input=f"{s3.uri}/in/{name}/",
                output=f"{s3.uri}/out/{name}/",
                latest=f"{s3.uri}/out/{name}-latest.json",
                marker="_SUCCESS",
                part__tiles=1,
                cluster__lease_s=0,
                classifier__protocol="onnx",
                classifier__path=str(tmp_path / "bright.onnx"),
            )
            for _ in range(runs):
                proxy.forget()
                assert run(config)[0].exit_code == 0
            return Counter(one.kind for one in proxy.asked)

        base, more_shards, more_parts = asked(2, 2), asked(6, 2), asked(2, 6)
        idle = asked(2, 2, runs=2)
    shard_cost = {kind: (more_shards[kind] - base[kind]) / 4 for kind in more_shards}
    part_cost = {kind: (more_parts[kind] - base[kind]) / 8 for kind in more_parts}
    of_a_shard = {kind: shard_cost[kind] - 2 * part_cost[kind] for kind in shard_cost}
    fixed = {kind: base[kind] - 2 * shard_cost[kind] for kind in base}
    for name, cost in (("a run", fixed), ("a shard", of_a_shard), ("a part", part_cost), ("a rerun of 2 shards", idle)):
        dear = sum(cost.get(kind, 0) for kind in CHARGED)
        cheap = sum(cost.get(kind, 0) for kind in ("get", "head"))
        plain = {kind: f"{count:g}" for kind, count in sorted(cost.items()) if count}
        print(f"{name}: {dear:g} of PUT's and LIST's kind, {cheap:g} of GET's; {plain}")
    assert sum(part_cost.get(kind, 0) for kind in CHARGED) == 1  # a part is put once
    assert sum(of_a_shard.get(kind, 0) for kind in CHARGED) <= 20
    assert idle["put"] <= 7  # info, config, summary, log, timeline, report, and the lease
