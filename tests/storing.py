"""A job in buckets, behind a proxy that breaks requests: what tests and drills of storage share.

Small, and still with each kind of request: shards of several ranges and an upload in several parts.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import stamina
from botocore.credentials import Credentials
from conftest import Bucket
from faulty_s3 import Asked, Fault, FaultyS3
from inprocess import InProcess, run
from making import encoded, job, picture

from pipeline import store, store_open
from pipeline.config import JobConfig
from pipeline.facts import Summary
from pipeline.store import open_store
from pipeline.verify import verify

OUTPUTS = ("shards", "tables", "records", "predictions")
REQUEST_S = 1.0
"""What one request may take here: a request that is never answered costs that long."""


@dataclass
class Scene:
    """One input in a bucket, outputs beside it, and the proxy that all requests of a job go through.

    Args:
        s3: The bucket; its client reaches the server without the proxy.
        proxy: In between.
        folder: For the classifier's file.
    """

    s3: Bucket
    proxy: FaultyS3
    folder: Path

    @property
    def credentials(self) -> Credentials:
        """The job's, for a proxy that signs anew."""
        keys = (self.s3.environment[f"AWS_{name}"] for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"))
        return Credentials(*keys)

    def job(self, output: str, **fields: Any) -> JobConfig:
        values: dict[str, Any] = {
            "input": f"{self.s3.uri}/in/",
            "output": f"{self.s3.uri}/{output}",
            "part__max_mib": 2,
            "storage__range_mib": 1,
            "storage__patience_s": 20,
            "cluster__lease_s": 0,  # one process plays several drivers here
            "report": False,  # twenty requests more, of the same kinds, after all that matters here
            "ask__chunk": 4,
            "classifier__protocol": "onnx",
            "classifier__path": str(self.folder / "bright.onnx"),
            "classifier__name": "bright",
        }
        return job(self.folder, **{**values, **fields})

    def put(self, name: str, samples: int, first: int = 0, kib: int = 1024) -> None:
        self.s3.client.put_object(Bucket=self.s3.name, Key=f"in/{name}", Body=tar(samples, first, kib))

    def objects(self, output: str, *folders: str) -> dict[str, bytes]:
        """What is below some folders of an output, by path."""
        found = {}
        for folder in folders:
            pages = self.s3.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.s3.name, Prefix=f"{output}/{folder}/"
            )
            for item in (item for page in pages for item in page.get("Contents", [])):
                body = self.s3.client.get_object(Bucket=self.s3.name, Key=item["Key"])["Body"].read()
                found[item["Key"].removeprefix(f"{output}/")] = body
        return found

    def digests(self, output: str) -> dict[str, str]:
        """What must be the same, however it came about."""
        return {path: hashlib.sha256(data).hexdigest() for path, data in self.objects(output, *OUTPUTS).items()}

    def staged(self, output: str) -> set[str]:
        return set(self.objects(output, "_staging"))

    def staged_parts(self, output: str) -> set[tuple[str, int]]:
        """The staged parts, (shard, part); staged answers are none."""
        found = (re.fullmatch(r"_staging/(.+)/[0-9a-f]{12}/(\d+)\.arrow", path) for path in self.staged(output))
        return {(part[1], int(part[2])) for part in found if part and "/ask/" not in part[0]}

    def findings(self, output: str) -> list[str]:
        return verify(open_store(f"{self.s3.uri}/{output}")).findings

    def undisturbed(self, output: str = "whole") -> dict[str, str]:
        """The reference: the outcome of a run that nothing disturbs. Its requests are counted from 1."""
        self.proxy.breaks = lambda asked: None
        self.proxy.forget()
        summary, _ = run(self.job(output))
        assert summary.exit_code == 0, summary
        assert not self.staged(output)
        return self.digests(output)

    def run(
        self, output: str, breaks: Callable[[Asked], Fault | None] = lambda asked: None, **fields: Any
    ) -> tuple[Summary, InProcess | None]:
        """One run whose requests are broken as said; they are counted from 1."""
        self.proxy.forget()
        self.proxy.breaks = breaks
        try:
            return run(self.job(output, **fields))
        finally:
            self.proxy.breaks = lambda asked: None


def tar(samples: int, first: int = 0, kib: int = 1024) -> bytes:
    """A shard of small pictures, each with `kib` of something else that travels along."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as shard:
        for i in range(first, first + samples):
            members = [("png", encoded(picture(i))), ("bin", hashlib.shake_128(b"%d" % i).digest(kib << 10))]
            for suffix, data in members:
                info = tarfile.TarInfo(f"{i:06d}.{suffix}")
                info.size = len(data)
                shard.addfile(info, io.BytesIO(data))
    return file.getvalue()


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits, and the smallest parts of an upload that servers take."""
    monkeypatch.setattr(store.stamina, "RetryingCaller", partial(stamina.RetryingCaller, wait_jitter=0))
    monkeypatch.setattr(store_open, "REQUEST_S", REQUEST_S)
    monkeypatch.setattr(store, "PART_MIB", 5)


def write_classifier(path: Path) -> None:
    """An ONNX file: class 1 when the image is bright."""
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("GlobalAveragePool", ["input"], ["mean"]),
            onnx.helper.make_node("Flatten", ["mean"], ["flat"]),
            onnx.helper.make_node("MatMul", ["flat", "weights"], ["scores"]),
        ],
        "bright",
        [onnx.helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["n", 3, 32, 32])],
        [onnx.helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["n", 2])],
        [onnx.numpy_helper.from_array(np.array([[-1.0, 1.0]] * 3, np.float32), "weights")],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), path)
