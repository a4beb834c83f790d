from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from webdataset.tariterators import group_by_keys, tar_file_iterator

from jobs.bench.driver import measure_listing, measure_receipts
from jobs.bench.growth import PARTS_A_SHARD, measure_growth, measure_scale
from jobs.bench.memory import MemoryWatch, pss_of, tree_of
from jobs.bench.overlap import Overlap, measure_overlap
from jobs.bench.shards import drawn, flat, received, write_shards
from jobs.bench.speed import Speed, load_tiles, matmul_rate, measure_speed, rate_of_job, time_alone
from pipeline.errors import ConfigError
from pipeline.shards import NO_LIMITS, read_samples
from pipeline.store import open_store
from tests.inprocess import InProcess
from tests.making import job, samples, write_tar

MIB = 1 << 20
OUTPUTS = ("overlap-out", "overlap-whole")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def by_webdataset(path: Path) -> list[dict[str, Any]]:
    with path.open("rb") as file:
        return list(group_by_keys({**member, "__url__": path.name} for member in tar_file_iterator(file)))


def test_memory_counts_what_a_child_holds():
    code = "held = b'x' * (64 << 20); print(flush=True); input()"
    with MemoryWatch(every_s=60) as before:
        pass
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        assert child.pid in tree_of(os.getpid())
        assert pss_of(child.pid) > 64 * MIB
        with MemoryWatch(every_s=60) as during:
            pass
        child.communicate(b"\n")
    assert during.peak_bytes > before.peak_bytes + 60 * MIB


def test_memory_of_a_process_that_ended_is_nothing():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert pss_of(child.pid) == 0


def test_shards_hold_the_samples_in_order_and_webdataset_reads_them(tmp_path: Path):
    write_shards(drawn(10), tmp_path / "in", 4)
    paths = sorted((tmp_path / "in").iterdir())
    assert len(paths) == 3
    read = [sample for path in paths for sample in by_webdataset(path)]
    assert [s["__key__"] for s in read] == [f"{i:08d}" for i in range(10)]
    first = Image.open(io.BytesIO(read[0]["png"]))
    assert first.size == (32, 32)
    assert np.asarray(first).std() > 50


def test_the_users_own_samples_are_taken_from_the_first_shard_on(tmp_path: Path):
    for name in ("a", "b"):
        write_tar(tmp_path / "in" / f"{name}.tar", samples(3))
    taken = list(received(str(tmp_path / "in"), 5))
    assert [key for key, _ in taken] == [f"{i:08d}" for i in range(5)]
    assert [name for name, _ in taken[4][1]] == ["00000004.png", "00000004.cls", "00000004.txt"]
    assert taken[4][1][2][1] == b"sample 1"
    with pytest.raises(ConfigError, match="expected 7 samples, found 6"):
        list(received(str(tmp_path / "in"), 7))


def test_a_flat_image_is_a_part_of_its_own(tmp_path: Path):
    write_shards(flat(5, 160), tmp_path / "in", 5)
    tiles, num_images = load_tiles(job(tmp_path, part__tiles=1))
    assert (len(tiles), num_images) == (5, 5)
    assert all(len(group.pixels) == 1 for group in tiles)


def test_the_purifier_alone_is_timed_in_processes_of_its_own(tmp_path: Path):
    write_shards(drawn(64), tmp_path / "in", 64)
    config = job(tmp_path, purifier__method="naive")
    tiles, _ = load_tiles(config)
    assert 0 < time_alone(config, "cpu", tiles, 1) < 60


def test_the_job_is_timed_from_its_first_receipt_to_its_last(tmp_path: Path):
    write_shards(drawn(192), tmp_path / "in", 192)
    seconds = iter([100.0, 102.0, 104.0])
    rate, parts = rate_of_job(job(tmp_path, part__tiles=1), tmp_path / "out", InProcess, lambda: next(seconds))
    assert parts == 3
    assert rate == pytest.approx(128 / 4)


def test_one_receipt_is_too_few_to_time(tmp_path: Path):
    write_shards(drawn(8), tmp_path / "in", 8)
    with pytest.raises(ConfigError, match="two parts or more"):
        rate_of_job(job(tmp_path), tmp_path / "out", InProcess)


def test_each_round_measures_all_and_writes_an_output_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_shards(drawn(128), tmp_path / "in", 64)
    monkeypatch.setattr("jobs.bench.speed.MATMUL_S", 0.01)
    monkeypatch.setattr("jobs.bench.speed.time_alone", lambda *args: 2.0)
    told: list[str] = []
    config = job(tmp_path, cluster__actors=1)
    found = measure_speed(config, tmp_path / "outs", 2, told.append, InProcess)
    assert (found.images, found.purifiers, found.parts, found.part_tiles) == (128, 1, 2, 1)
    assert found.alone == [64.0, 64.0]
    assert len(found.whole) == len(found.matmul) == 2
    assert found.peak_bytes > 10 * MIB
    assert {path.name for path in (tmp_path / "outs").iterdir()} == {"1", "2"}
    assert len(told) == 4
    assert "too few" in dict(found.rows())["whole job"]


def test_the_ratio_is_that_of_the_medians():
    found = Speed("cpu", 1, 100, 1, 8, alone=[10, 100, 12], whole=[9, 6, 1], matmul=[1])
    assert found.ratio == pytest.approx(6 / 12)
    assert dict(found.rows())["purifier alone"].startswith("12 (10 to 100) images/s")


def test_matrix_multiplications_take_a_believable_time():
    assert 1e-4 < matmul_rate("cpu") < 10


def test_growth_compares_a_shard_with_one_ten_times_as_long_and_leaves_neither(tmp_path: Path):
    seen: list[int] = []

    class Looking(InProcess):
        def receipts(self, window):
            with open_store(window[0].shard.store_uri).open(window[0].shard.stored) as file:
                seen.extend(Image.open(io.BytesIO(s.members[0].data)).width for s in read_samples(file, "", NO_LIMITS))
            return super().receipts(window)

    found = measure_growth(job(tmp_path), tmp_path, 3, 40, Looking)
    assert seen == [40] * 33
    assert list(tmp_path.iterdir()) == []
    assert (found.short.images, found.long.images) == (3, 30)
    assert min(found.short.memory_bytes, found.long.memory_bytes) > 10 * MIB
    assert [name for name, _ in found.rows()] == ["3 images", "30 images", "ratio"]
    assert "0 B spilled" in found.rows()[0][1]


def test_scale_measures_each_stretch_and_windows_hold_the_parts_that_were_asked_for(tmp_path: Path):
    sizes: list[int] = []

    class Counting(InProcess):
        def receipts(self, window):
            sizes.append(len(window))
            return super().receipts(window)

    found = measure_scale(job(tmp_path), tmp_path, 8 * PARTS_A_SHARD, 2 * PARTS_A_SHARD, Counting)
    assert sum(sizes) == 8
    assert set(sizes[1:-1]) == {2}
    assert [stretch.parts for stretch in found.stretches] == [50] * 4
    assert all(stretch.ms_a_part > 0 and stretch.driver_bytes > 10 * MIB for stretch in found.stretches)
    assert 0.5 < found.growth < 2


def test_a_listing_plans_what_is_not_committed_and_removes_what_it_made(tmp_path: Path):
    found = measure_listing(job(tmp_path), str(tmp_path), 200)
    assert [(one.shards, one.to_purify) for one in (found.few, found.many)] == [(20, 10), (200, 100)]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert all(one.plan_s > 0 for one in (found.few, found.many))


def test_receipts_are_counted_by_the_main_path_itself(tmp_path: Path):
    found = measure_receipts(job(tmp_path), tmp_path, 3_000)
    assert [one.receipts for one in (found.few, found.many)] == [300, 3_000]
    assert list(tmp_path.iterdir()) == []


def test_scale_refuses_windows_that_cut_shards(tmp_path: Path):
    with pytest.raises(ConfigError, match="a multiple of"):
        measure_scale(job(tmp_path), tmp_path, 100, 30, InProcess)


def test_overlap_measures_both_alone_and_both_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("jobs.bench.overlap.REQUEST_S", 0.0)
    monkeypatch.setattr("jobs.bench.overlap.PARTS", 1)
    monkeypatch.setattr("jobs.bench.overlap.IMAGES_A_PART", 2)
    told: list[str] = []
    found = measure_overlap(job(tmp_path), tmp_path, 16, told.append, InProcess)
    assert told == ["purification alone", "asking alone", "both"]
    assert min(found.purify_s, found.ask_s, found.whole_s) > 0
    written = [len(list((tmp_path / out / "predictions/sleeping").glob("*.parquet"))) for out in OUTPUTS]
    assert written == [16, 16]


def test_the_overlap_is_that_of_the_slower_one():
    found = dict(Overlap(16, purify_s=1.5, ask_s=2.0, whole_s=2.1).rows())
    assert found["ratio"].startswith("1.050 of the slower of the two; one after the other would be 1.750")


def test_overlap_refuses_too_few_shards_for_a_steady_state(tmp_path: Path):
    with pytest.raises(ConfigError, match="--shards of 16 or more, found 15"):
        measure_overlap(job(tmp_path), tmp_path, 15, print, InProcess)
