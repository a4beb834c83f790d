from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch

from jobs.commands.plan import as_table
from pipeline.errors import ConfigError
from pipeline.estimate import MAX_DECODED, MAX_SHARDS, estimate, look_at
from pipeline.facts import Fact
from pipeline.inputs import find_shards
from pipeline.job import purify
from pipeline.store import Store, Stored
from tests.inprocess import InProcess
from tests.making import encoded, job, picture, samples, write_tar
from zipstage.purifiers.controls.none import NonePurifier, NoneSettings


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def quiet(fact: Fact) -> None:
    pass


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_shards_and_bytes_are_exact_and_samples_too_when_all_was_read(tmp_path: Path):
    paths = [write_tar(tmp_path / "in" / f"{i}.tar", samples(20 + i)) for i in range(3)]
    found = estimate(job(tmp_path), quiet, measure_s=0)
    assert (found.shards, found.to_purify, found.committed, found.looked_at) == (3, 3, 0, 3)
    assert found.size_bytes == sum(path.stat().st_size for path in paths)
    assert (found.samples, found.images, found.tiles) == (63, 63, 1)
    assert found.seconds is None


def test_nothing_is_written(tmp_path: Path):
    write_tar(tmp_path / "in" / "a.tar", samples(3))
    before = files(tmp_path)
    estimate(job(tmp_path), quiet, measure_s=0)
    assert files(tmp_path) == before


def test_what_is_committed_is_not_planned_again_and_leftovers_stay(tmp_path: Path):
    for name in ("a", "b"):
        write_tar(tmp_path / "in" / f"{name}.tar", samples(3))
    config = job(tmp_path)
    purify(config.model_copy(update={"limit": 1}), quiet, InProcess)
    before = files(tmp_path)
    found = estimate(config, quiet, measure_s=0)
    assert (found.shards, found.to_purify, found.committed, found.samples) == (2, 1, 1, 3)
    assert files(tmp_path) == before


def test_a_changed_input_is_counted_as_refused(tmp_path: Path):
    write_tar(tmp_path / "in" / "a.tar", samples(3))
    purify(job(tmp_path), quiet, InProcess)
    write_tar(tmp_path / "in" / "a.tar", samples(4))
    found = estimate(job(tmp_path), quiet, measure_s=0)
    assert (found.to_purify, found.committed, list(found.refused)) == (0, 0, ["a.tar"])


def test_other_settings_than_the_output_was_made_with_are_refused_as_purify_would(tmp_path: Path):
    write_tar(tmp_path / "in" / "a.tar", samples(3))
    purify(job(tmp_path), quiet, InProcess)
    with pytest.raises(ConfigError, match=r"encoding\.format"):
        estimate(job(tmp_path, encoding__format="webp"), quiet, measure_s=0)


def test_samples_without_an_image_are_told_apart(tmp_path: Path):
    bad = [[(f"x{i}.png", b"no image")] for i in range(5)]
    write_tar(tmp_path / "in" / "a.tar", [*samples(15), *bad])
    found = estimate(job(tmp_path), quiet, measure_s=0)
    assert (found.samples, found.images) == (20, 15)


def test_a_broken_shard_is_named_and_the_others_count(tmp_path: Path):
    write_tar(tmp_path / "in" / "a.tar", samples(4))
    whole = write_tar(tmp_path / "in" / "b.tar", samples(4)).read_bytes()
    (tmp_path / "in" / "b.tar").write_bytes(whole[:2000])
    found = estimate(job(tmp_path), quiet, measure_s=0)
    assert list(found.unreadable) == ["b.tar"]
    assert found.samples >= 4
    assert "b.tar" in as_table(found, asks=False)


def test_a_long_shard_is_judged_by_its_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pipeline.estimate.HEAD_MIB", 1)
    image = encoded(picture(1, 300, 300))
    members = [[(f"{i:04d}.png", image), (f"{i:04d}.bin", bytes(40_000))] for i in range(100)]
    path = write_tar(tmp_path / "in" / "a.tar", members)
    config = job(tmp_path)
    look = look_at(find_shards(config.input), config)
    assert look.size_bytes < path.stat().st_size / 2
    assert look.tried <= MAX_DECODED
    found = estimate(config, quiet, measure_s=0)
    assert found.samples == pytest.approx(100, rel=0.15)
    assert found.tiles == pytest.approx(100 * 4, rel=0.15)  # four windows an image
    purify(config, quiet, partial(InProcess, purifier=NonePurifier(NoneSettings())))
    assert found.output_bytes == pytest.approx((tmp_path / "out" / "shards" / "a.tar").stat().st_size, rel=0.05)


def test_no_more_than_twenty_shards_are_opened_and_they_are_spread(tmp_path: Path):
    for i in range(41):
        write_tar(tmp_path / "in" / f"{i:02d}.tar", samples(1 if i < 20 else 3))
    found = estimate(job(tmp_path), quiet, measure_s=0)
    assert found.looked_at == MAX_SHARDS
    assert found.samples == pytest.approx(20 + 21 * 3, rel=0.1)


@contextmanager
def read_by_shard() -> Iterator[dict[str, list[tuple[int, int]]]]:
    """The ranges that are read of each shard while the block runs."""
    ranges: dict[str, list[tuple[int, int]]] = {}
    real = Store.get_range

    def noting(self: Store, stored: Stored, start: int, end: int) -> bytes:
        ranges.setdefault(stored.path, []).append((start, end))
        return real(self, stored, start, end)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "get_range", noting)
        yield ranges


def test_of_twenty_thousand_shards_twenty_are_opened_and_8_mib_of_each_read_at_once(tmp_path: Path):
    """Two shards on disk, 10,000 names for each: what is opened doesn't depend on what lies behind the others."""
    photographs = [[(f"{i:04d}.png", encoded(picture(i, 90, 90))), (f"{i:04d}.bin", bytes(700_000))] for i in range(20)]
    long = write_tar(tmp_path / "long.tar", photographs)
    short = write_tar(tmp_path / "short.tar", samples(3))
    assert long.stat().st_size > 8 << 20
    (tmp_path / "in").mkdir()
    for i in range(20_000):
        (tmp_path / "in" / f"{i:05d}.tar").hardlink_to(long if i % 2 else short)
    config = job(tmp_path)
    with read_by_shard() as ranges:
        found = estimate(config, quiet, measure_s=0)
    assert (found.shards, found.to_purify, found.looked_at) == (20_000, 20_000, MAX_SHARDS)
    assert len(ranges) <= MAX_SHARDS
    assert all(read in ([(0, 8 << 20)], [(0, short.stat().st_size)]) for read in ranges.values())
    assert found.unreadable == {}


def test_a_shard_whose_first_sample_is_longer_than_its_beginning_is_named_and_judges_nothing(tmp_path: Path):
    write_tar(tmp_path / "in" / "a.tar", [[("a.bin", bytes(9 << 20)), ("a.png", encoded(picture(1)))]])
    write_tar(tmp_path / "in" / "b.tar", samples(4))
    with read_by_shard() as ranges:
        look = look_at(find_shards([str(tmp_path / "in")]), job(tmp_path))
    assert ranges["a.tar"] == [(0, 8 << 20)]
    assert "no sample ends in its first 8 MiB" in look.unreadable["a.tar"]
    assert look.samples == 4
    assert look.size_bytes == (tmp_path / "in" / "b.tar").stat().st_size


def test_a_shard_broken_in_its_first_8_mib_is_named_and_one_that_is_longer_is_not(tmp_path: Path):
    members = [[(f"{i:04d}.bin", bytes([1]) * 900_000)] for i in range(20)]
    whole = write_tar(tmp_path / "in" / "whole.tar", members).read_bytes()
    broken = bytearray(whole)
    broken[3 * 900_608 + 10] ^= 1  # in the fourth member's header
    (tmp_path / "in" / "broken.tar").write_bytes(broken)
    look = look_at(find_shards([str(tmp_path / "in")]), job(tmp_path))
    assert list(look.unreadable) == ["broken.tar"]
    assert look.samples == pytest.approx(2 + 9, abs=2)


def test_one_picture_of_each_cell_size_is_kept_for_the_measurement(tmp_path: Path):
    write_tar(tmp_path / "in" / "a.tar", [*samples(9), *samples(9, 20, 60, 60)])
    config = job(tmp_path)
    look = look_at(find_shards(config.input), config)
    assert look.images == 18
    assert {cell: pixels.shape for cell, pixels in look.pixels.items()} == {32: (32, 32, 3), 64: (60, 60, 3)}


def test_the_purifiers_time_and_calls_follow_its_cells(tmp_path: Path):
    write_tar(tmp_path / "in" / "a.tar", samples(40))
    found = estimate(job(tmp_path, purifier__method="naive", cluster__actors=2), quiet, measure_s=0.01)
    assert found.seconds is not None
    assert 0 < found.seconds < 60
    assert (found.network_calls, found.purifiers) == (0, 2)


def test_queries_count_both_images_unless_one_is_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pipeline.job._check_classifier", lambda config, tell: None)
    write_tar(tmp_path / "in" / "a.tar", samples(10))
    (tmp_path / "m.onnx").write_bytes(b"")
    asking = {"classifier__protocol": "onnx", "classifier__path": str(tmp_path / "m.onnx"), "classifier__batch": 8}
    found = estimate(job(tmp_path, **asking), quiet, measure_s=0)
    assert (found.queries, found.requests) == (20, 3)
    assert estimate(job(tmp_path, ask__before=False, **asking), quiet, measure_s=0).queries == 10
    assert "about 20 queries in 3 requests" in as_table(found, asks=True)


def asked(**classifier: object) -> dict[str, object]:
    where = {"protocol": "json-http", "url": "http://127.0.0.1:9/score", "request": {"a": ["$image"]}}
    return {f"classifier__{name}": value for name, value in {**where, **classifier}.items()}


def test_queries_have_a_price_and_are_spread_over_runs_and_time(tmp_path: Path):
    write_tar(tmp_path / "in" / "a.tar", samples(50))
    config = job(tmp_path, **asked(price_per_1000=1.5, max_queries=30, rate_per_s=0.5, batch=8))
    found = estimate(config, quiet, measure_s=0)
    assert (found.queries, found.requests, found.runs, found.rated_s) == (100, 13, 4, 26)
    assert found.cost == pytest.approx(0.15)
    table = as_table(found, asks=True)
    assert "about 100 queries in 13 requests" in table
    assert "cost       about 0.15 for the queries, by classifier.price_per_1000" in table
    assert "about 4 runs, by classifier.max_queries" in table
    assert "about 26 s of asking, by classifier.rate_per_s" in table


def test_without_a_price_no_cost_is_shown(tmp_path: Path):
    write_tar(tmp_path / "in" / "a.tar", samples(3))
    found = estimate(job(tmp_path, **asked()), quiet, measure_s=0)
    assert (found.cost, found.runs, found.rated_s) == (None, None, None)
    assert "cost" not in as_table(found, asks=True)


def test_an_endpoint_that_takes_one_image_gets_a_request_for_each(tmp_path: Path):
    write_tar(tmp_path / "in" / "a.tar", samples(5))
    one = estimate(job(tmp_path, **asked(request={"image": "$image"}, price_per_1000=0)), quiet, measure_s=0)
    assert (one.queries, one.requests, one.cost) == (10, 10, 0)
    without_before = estimate(job(tmp_path, ask__before=False, **asked()), quiet, measure_s=0)
    assert (without_before.queries, without_before.requests) == (5, 1)
