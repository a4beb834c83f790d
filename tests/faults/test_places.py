"""Where a job may write: never over, and never into, what it reads; each shard goes by one name."""

from __future__ import annotations

from pathlib import Path

import pytest
from inprocess import run
from making import job, samples, tree, write_tar

from pipeline.errors import ConfigError


@pytest.mark.parametrize(
    ("received", "output"),
    [
        ("data/shards", "data"),  # shards/a.tar is where the purified a.tar would go
        ("data/shards/a.tar", "data"),
        ("data/shards/*.tar", "data"),
        ("data/raw", "data"),
        ("data", "data"),
        ("data", "data/purified"),
        ("data/*", "data/purified"),
        ("data/**/a.tar", "data/purified"),
        ("data/{shards,purified}/*.tar", "data/purified"),
        ("data/*/shards/*.tar", "data/purified"),
        ("link", "data"),
        ("data", "link/purified"),
        ("data/shards", "linked"),
    ],
)
def test_an_output_that_meets_its_input_is_refused_and_nothing_is_written(
    tmp_path: Path, received: str, output: str
) -> None:
    for folder in ("shards", "raw", "purified", "b/shards"):
        write_tar(tmp_path / "data" / folder / "a.tar", samples(1))
    (tmp_path / "link").symlink_to(tmp_path / "data/shards")
    (tmp_path / "linked").symlink_to(tmp_path / "data")
    before = tree(tmp_path, "data")
    with pytest.raises(ConfigError, match=r"lies (inside the input|below it)") as raised:
        run(job(tmp_path, input=str(tmp_path / received), output=str(tmp_path / output)))
    assert raised.value.exit_code == 2
    assert "\n" not in str(raised.value)
    assert tree(tmp_path, "data") == before


@pytest.mark.parametrize("received", ["day/a.tar", "day/*.tar", "day/{cam1,cam2}/*.tar", "day/cam?"])
def test_an_output_beside_what_a_pattern_can_match_is_taken_and_a_rerun_finds_nothing_new(
    tmp_path: Path, received: str
) -> None:
    for name in ("a", "cam1/b", "cam2/c"):
        write_tar(tmp_path / f"day/{name}.tar", samples(1))
    config = job(tmp_path, input=str(tmp_path / received), output=str(tmp_path / "day/out"))
    assert run(config)[0].committed != []
    assert run(config)[0].committed == []


def test_an_output_may_begin_with_the_letters_of_an_input(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", samples(1))
    assert run(job(tmp_path, output=str(tmp_path / "in-purified")))[0].committed == ["a.tar"]


def test_a_shard_under_two_names_is_refused_and_both_are_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/c/x.tar", samples(1))
    with pytest.raises(ConfigError, match=r"two names, 'c/x\.tar' and 'x\.tar'"):
        run(job(tmp_path, input=[str(tmp_path / "in"), str(tmp_path / "in/c")]))
    assert not (tmp_path / "out").exists()
