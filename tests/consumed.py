"""An output for others to read, the numbers in it counted without our code, and the examples run as people run them."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections import Counter
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from inprocess import run
from making import encoded, job, picture, samples, write_tar
from PIL import Image
from storing import write_classifier

EXAMPLES = Path(__file__).parents[1] / "jobs/examples"


@dataclass(frozen=True)
class Output:
    """An output of two committed shards, in which a third lies that no record tells of.

    Args:
        folder: The output.
    """

    folder: Path

    @property
    def committed(self) -> list[Path]:
        return [self.folder / "shards/a.tar", self.folder / "shards/cam/b.tar"]

    def labels(self) -> Counter[int]:
        """How many purified images each class has."""
        found: Counter[int] = Counter()
        for shard in self.committed:
            with tarfile.open(shard) as tar:
                classes = [member for member in tar if member.name.endswith(".cls")]
                found.update(int(tar.extractfile(member).read()) for member in classes)  # type: ignore[union-attr]
        return found

    def mean(self) -> float:
        """The mean of all pixels of the purified images, in [0, 1]."""
        pixels = []
        for shard in self.committed:
            with tarfile.open(shard) as tar:
                images = [member for member in tar if member.name.endswith(".png")]
                pixels += [np.asarray(Image.open(BytesIO(tar.extractfile(m).read()))) for m in images]  # type: ignore[union-attr]
        return float(np.mean(pixels)) / 255

    def answers(self) -> list[dict[str, Any]]:
        """The rows of the predictions for committed shards."""
        paths = [self.folder / f"predictions/bright/{name}.parquet" for name in ("a.tar", "cam/b.tar")]
        return [row for path in paths for row in pq.read_table(path).to_pylist()]


def make_output(folder: Path) -> Output:
    """An output of 30 samples, one of which can't be decoded; the purifier makes negatives."""
    write_classifier(folder / "bright.onnx")
    broken = [("broken.png", encoded(picture(7))[:60]), ("broken.cls", b"1")]
    write_tar(folder / "in/a.tar", [*samples(19), broken])
    write_tar(folder / "in/cam/b.tar", samples(10, first=50))
    classifier = {"protocol": "onnx", "path": str(folder / "bright.onnx"), "name": "bright"}
    inputs = {"size": 32, "mean": [0.5], "std": [0.5]}
    summary, _ = run(job(folder, classifier={**classifier, "input": inputs}))
    assert summary.exit_code in (0, 3)
    write_tar(folder / "out/shards/uncommitted.tar", samples(5, first=900))
    (folder / "out/predictions/bright/uncommitted.tar.parquet").write_bytes(b"not whole")
    return Output(folder / "out")


def run_example(name: str, output: Output, **environment: str) -> list[str]:
    """The lines that an example prints, run as people run it."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), str(output.folder)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
    return done.stdout.splitlines()
