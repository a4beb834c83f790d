from __future__ import annotations

from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import inputs
from pipeline.inputs import find_shards
from pipeline.store import Stored, open_store


def counted(monkeypatch: pytest.MonkeyPatch, name: str) -> Counter[str]:
    calls: Counter[str] = Counter()
    real = getattr(inputs, name)

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls[name] += 1
        return real(*args, **kwargs)

    monkeypatch.setattr(inputs, name, counting)
    return calls


def test_a_thousand_globs_of_one_brace_pattern_are_not_held_against_each_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for folder in range(100):
        for shard in range(3):
            path = tmp_path / f"{folder:03d}" / f"{shard}.tar"
            path.parent.mkdir(exist_ok=True)
            path.touch()
    calls = counted(monkeypatch, "_matches")
    assert len(find_shards([f"{tmp_path}/{{000..099}}/*.tar"])) == 300
    assert calls["_matches"] <= 3 * 300  # one for each segment and one for the end


def test_a_list_of_single_shards_opens_their_place_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    paths = [tmp_path / f"{i}.tar" for i in range(20)]
    for path in paths:
        path.touch()
    calls = counted(monkeypatch, "open_store")
    assert len(find_shards([str(path) for path in paths])) == 20
    assert calls["open_store"] == 1


@given(
    st.lists(st.text("ab/é.", min_size=1, max_size=6), unique=True),
    st.text("ab/é.*?[]!", min_size=1, max_size=6).filter(lambda text: "**" not in text),
)
def test_a_glob_finds_what_a_look_at_each_shard_finds(paths: list[str], wanted: str):
    listed = [Stored(path, 0, "") for path in sorted(paths, key=str.encode)]
    segments = wanted.strip("/").split("/")
    by_hand = [
        path
        for path in sorted(paths, key=str.encode)
        if len(path.split("/")) >= len(segments) and all(map(fnmatchcase, path.split("/"), segments))
    ]
    assert [stored.path for stored in inputs._matching(wanted, listed)] == by_hand


def test_a_listing_is_sorted_as_globs_need_it(tmp_path: Path):
    for name in ("b.tar", "a/z.tar", "a.tar", "é.tar", "Z.tar"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    paths = [stored.path.encode() for stored in open_store(str(tmp_path)).list()]
    assert paths == sorted(paths)
    assert len(paths) == 5
