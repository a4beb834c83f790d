from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import ledger
from pipeline.config import PartConfig
from pipeline.errors import ConfigError
from pipeline.ledger import Plan, Task
from pipeline.store import Shard, Store, Stored


class Careless(Store):
    """A server that ignores If-None-Match: it overwrites, and says that all is well."""

    def put(self, path: str, data: bytes, *, create: bool = False) -> None:
        super().put(path, data)


class Late(Careless):
    """Another driver's settings arrive right after ours."""

    def put(self, path: str, data: bytes, *, create: bool = False) -> None:
        super().put(path, data)
        other = {"fingerprint": ledger.canonical_digest({"a": 2}), "settings": {"a": 2}}
        super().put(path, json.dumps(other).encode())


@pytest.mark.parametrize("kind", [Store, Careless])
def test_settings_of_others_stay_as_they_are_and_the_difference_is_named(tmp_path: Path, kind: type[Store]):
    store = kind(str(tmp_path), 1)
    ledger.claim_settings(store, {"a": 1})
    before = store.get(ledger.SETTINGS_PATH)
    with pytest.raises(ConfigError, match="a was 1, is 2"):
        ledger.claim_settings(store, {"a": 2})
    assert store.get(ledger.SETTINGS_PATH) == before
    ledger.claim_settings(store, {"a": 1})


def test_who_was_overwritten_in_the_race_for_a_new_prefix_notices(tmp_path: Path):
    with pytest.raises(ConfigError, match="a was 2, is 1"):
        ledger.claim_settings(Late(str(tmp_path), 1), {"a": 1})


@pytest.mark.parametrize("content", [b"", b"[]", b'{"fingerprint": 3}'])
def test_settings_that_are_none_of_ours_are_named(tmp_path: Path, content: bytes):
    (tmp_path / "settings.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"settings\.json"):
        ledger.claim_settings(Store(str(tmp_path), 1), {"a": 1})


def tasks_of(sizes: list[int]) -> tuple[Task, ...]:
    shards = [Shard(f"{i}.tar", f"/in/{i}.tar", "/in", Stored(f"{i}.tar", size, "")) for i, size in enumerate(sizes)]
    return tuple(Task(shard, "0" * 12, frozenset()) for shard in shards)


def test_a_task_is_the_same_after_it_travelled():
    shard = Shard("a/é\ud800.tar", "s3://b/in/a/é.tar", "s3://b/in", Stored("a/é.tar", 3, '"tag"'))
    task = Task(shard, "0123456789ab", frozenset({0, 7}), (Stored("records/a.json", 5, "v"),), gives_up=True)
    assert Task.from_json(task.to_json()) == task


def test_the_first_window_takes_tiles_for_small_and_the_next_ones_learn_how_many_parts_there_were():
    tasks = tasks_of([1 << 20] * 1000)
    whole: dict[str, int] = {}
    part = PartConfig(tiles=64, max_mib=64)
    lengths = []
    for window in Plan((), tasks).windows(100, part, whole):
        lengths.append(len(window))
        whole.update({task.shard.name: 5 for task in window})
    assert lengths[0] == 13  # at 128 KiB a part
    assert set(lengths[1:-1]) == {20}
    assert sum(lengths) == 1000


def test_small_shards_count_as_a_part_each_and_none_is_lost_or_doubled():
    tasks = tasks_of([0, 10, 5 << 30, *[100] * 50])
    windows = list(Plan((), tasks).windows(10, PartConfig(), {}))
    assert [task for window in windows for task in window] == list(tasks)
    assert [len(window) for window in windows] == [3, 10, 10, 10, 10, 10]
