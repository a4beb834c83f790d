"""A job's purifier, as the settings name it: here a chain, whose settings are settings of settings."""

from __future__ import annotations

import io
import tarfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from inprocess import InProcess
from making import job, samples, write_tar
from PIL import Image

from pipeline.errors import ConfigError
from pipeline.job import purify
from pipeline.purifier import build_purifier

torch.set_num_threads(1)


def chain(folder: Path, quality: int):
    steps = [{"method": "jpeg", "quality": quality}, {"method": "naive", "scale": 4}]
    return job(folder, purifier__method="chain", purifier__steps=steps)


def run(config):
    purifier, _ = build_purifier(config, "cpu")
    return purify(config, lambda fact: None, partial(InProcess, purifier=purifier))


def images_of(path: Path) -> list[np.ndarray]:
    with tarfile.open(path) as tar:
        names = [member for member in tar if member.name.endswith(".png")]
        return [np.asarray(Image.open(io.BytesIO(tar.extractfile(member).read()))) for member in names]


def test_a_job_runs_a_chain_and_refuses_another_one_by_the_step_that_differs(tmp_path: Path):
    write_tar(tmp_path / "in" / "a.tar", samples(3))
    assert run(chain(tmp_path, 90)).exit_code == 0
    received, purified = images_of(tmp_path / "in" / "a.tar"), images_of(tmp_path / "out" / "shards" / "a.tar")
    for before, after in zip(received, purified, strict=True):
        means, found = (image.reshape(8, 4, 8, 4, 3).mean((1, 3)) for image in (before, after))
        assert np.array_equal(after, found.repeat(4, 0).repeat(4, 1))  # block means came last
        assert 0.5 < np.abs(found - means).max() < 64  # of what JPEG had left
    with pytest.raises(ConfigError, match=r"purifier\.steps\.1\.quality was 90, is 50"):
        run(chain(tmp_path, 50))


def test_a_chains_profile_names_the_numbers_of_all_its_steps(tmp_path: Path):
    steps = [{"method": "median"}, {"method": "block_restore"}, {"method": "jpeg"}]
    config = job(tmp_path, purifier__method="chain", purifier__steps=steps, purifier__batch=7)
    purifier, profile = build_purifier(config, "cpu")
    assert (profile["numbers"], profile["batch"], purifier.calls) == ("uint8, float32", 7, 1)
