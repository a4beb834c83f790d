"""The examples whose packages are large: timm, Hugging Face's datasets and ray.data read an output.

The packages go into a folder of the drill's own, beside the torch that is here. timm wants a torchvision;
the registry's is built for GPUs, so what it can't load without one (two operators that no reader uses) is
declared instead.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from importlib.metadata import version

import pytest
from consumed import Output, make_output, run_example

pytestmark = [pytest.mark.drill, pytest.mark.timeout(1800)]

PACKAGES = ["timm", "datasets", "dill", "multiprocess", "xxhash"]
TORCHVISION = {"2.13": "0.28.0"}
DECLARED = """import torch
for name in ("nms", "qnms"):
    torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Output:
    return make_output(tmp_path_factory.mktemp("consumed"))


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the packages, for PYTHONPATH."""
    folder = tmp_path_factory.mktemp("packages")
    release = ".".join(version("torch").split(".")[:2])
    if release not in TORCHVISION:
        pytest.skip(f"no torchvision is known here for torch {release}")
    wanted = [*PACKAGES, f"torchvision=={TORCHVISION[release]}"]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *wanted]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"pip can't install {', '.join(wanted)}: {done.stderr.strip().splitlines()[-1]}")
    (folder / "sitecustomize.py").write_text(DECLARED)
    return str(folder)


def by_class(labels: Counter[int]) -> list[str]:
    return [f"class {label}: {count} images" for label, count in sorted(labels.items())]


def test_timm_reads_what_the_info_names(output: Output, packages: str) -> None:
    lines = run_example("timm_reader", output, PYTHONPATH=packages)
    print(f"timm: {lines[0]}")
    assert lines == ["29 images, 29 by _info.json", *by_class(output.labels())]


def test_hugging_face_streams_the_committed_shards(output: Output, packages: str) -> None:
    lines = run_example("huggingface", output, PYTHONPATH=packages, HF_HUB_OFFLINE="1", HF_HOME=packages)
    print(f"datasets: {lines[0]}")
    assert lines == ["29 images of 2 shards", *by_class(output.labels())]


def test_ray_data_reads_shards_and_tables(output: Output) -> None:
    lines = run_example("ray_data", output)
    print(f"ray.data: {sum(output.labels().values())} images, {', '.join(lines[-2:])}")
    assert lines == [*by_class(output.labels()), "ok: 29 samples", "undecodable: 1 samples"]
