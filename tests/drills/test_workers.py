"""Workers of a real Ray, killed in the middle of their work, once or each time; and a graph that stands still."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from inprocess import run
from making import job, samples, tree, write_tar
from raydrill import drill, times
from rayscript import Script

from pipeline.store import open_store
from pipeline.verify import verify

pytestmark = pytest.mark.drill

SIGNS = Path(__file__).parents[2] / "jobs" / "demo" / "signs.onnx"
OUTPUTS = ("shards", "tables", "predictions", "_staging")
PARTS = 8


def received(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        write_tar(folder / "in" / name, samples(PARTS, 100 * number, 200, 200))


def fields(folder: Path, **more: Any) -> dict[str, Any]:
    basic = {"input": str(folder / "in"), "output": str(folder / "out"), "purifier.method": "none", "part.tiles": 1}
    memory = {"cluster.object_store_mib": 200, "cluster.actors": 2}
    return {**basic, **memory, **{name.replace("__", "."): value for name, value in more.items()}}


def asking() -> dict[str, Any]:
    return {
        "classifier__protocol": "onnx",
        "classifier__path": str(SIGNS),
        "classifier__name": "signs",
        "classifier__input__size": 32,
    }


def reference(folder: Path, **more: Any) -> dict[str, bytes]:
    """What an undisturbed run in one process gives."""
    whole = folder / "whole"
    run(job(whole, input=str(folder / "in"), part__tiles=1, **more))
    return outputs(whole)


def outputs(folder: Path) -> dict[str, bytes]:
    """Bytes of what comes out; records name the input's inode, so by name alone."""
    found = tree(folder / "out", *OUTPUTS)
    return {path: b"" if path.endswith(".json") else data for path, data in found.items()}


def check(folder: Path, expected: dict[str, bytes]) -> None:
    found = outputs(folder)
    assert found.keys() == expected.keys()
    assert found == expected
    report = verify(open_store(str(folder / "out")))
    assert report.findings == []
    print(f"same bytes in {len(found)} objects, verify passes over {report.samples} samples")


def test_a_worker_of_each_kind_is_killed_once_in_the_middle_of_its_work(tmp_path: Path) -> None:
    received(tmp_path, "a.tar", "b.tar", "c.tar")
    expected = reference(tmp_path, **asking())
    victims = ("reading a.tar 4", "purifying b.tar 3", "staging b.tar 5", "committing a.tar", "asking c.tar")
    script = Script(str(tmp_path / "script"), held=victims)
    with drill(script, fields(tmp_path, **asking())) as running:
        for victim in victims:
            print(f"killed {running.kill(victim)} at: {victim}")
        summary = running.end()
    assert summary["exit_code"] == 0, summary
    assert sorted(summary["asked"]) == ["a.tar", "b.tar", "c.tar"]
    purified = times(script, "ended", "purifying")
    assert purified == dict.fromkeys(purified, 1)
    assert len(purified) == 3 * PARTS
    print(f"{len(purified)} parts, each purified to its end once")
    check(tmp_path, expected)


def test_work_that_always_kills_its_worker_is_given_up_by_name_and_the_others_are_committed(tmp_path: Path) -> None:
    received(tmp_path, "part.tar", "reader.tar", "stage.tar", "healthy.tar")
    expected = reference(tmp_path)
    deadly = ("purifying part.tar 3", "reading reader.tar 2", "staging stage.tar 1")
    script = Script(str(tmp_path / "script"), deadly=deadly)
    tries = {"cluster__max_attempts": 2}
    with drill(script, fields(tmp_path, **tries)) as running:
        summary = running.end()
    print("\n".join(summary["failed"].values()))
    assert summary["exit_code"] == 1
    assert summary["committed"] == ["healthy.tar"]
    assert "shard part.tar, part 3: given up: 2 attempts" in summary["failed"]["part.tar"]
    assert "shard reader.tar: given up: 2 readers died" in summary["failed"]["reader.tar"]
    assert "shard stage.tar, part 1: given up: 2 workers died" in summary["failed"]["stage.tar"]
    begun = times(script, "begun", "")
    print({work: begun[work] for work in deadly})
    assert begun[deadly[0]] == begun[deadly[2]] == 2

    again = Script(str(tmp_path / "again"), deadly=deadly)
    with drill(again, fields(tmp_path, give_up=True, **tries)) as running:
        summary = running.end()
        print("\n".join(running.warnings()))
    print("\n".join(summary["failed"].values()))
    assert summary["exit_code"] == 1
    assert list(summary["failed"]) == ["reader.tar"]
    assert summary["statuses"] == {"ok": 2 * PARTS - 2, "failed": 2}
    not_staged = {deadly[0], "purifying stage.tar 1", *(f"purifying reader.tar {part}" for part in range(PARTS))}
    assert set(times(again, "begun", "purifying")) <= not_staged
    assert verify(open_store(str(tmp_path / "out"))).findings == []

    healed = Script(str(tmp_path / "healed"))
    with drill(healed, fields(tmp_path, retry_failed=True)) as running:
        summary = running.end()
    assert summary["exit_code"] == 0
    assert summary["committed"] == ["part.tar", "reader.tar", "stage.tar"]
    check(tmp_path, expected)


@pytest.mark.parametrize(
    ("held", "stage"),
    [
        (["reading a.tar 2"], "reading"),
        (["purifying a.tar 1", "purifying a.tar 2"], "purifying"),
        (["staging a.tar 1"], "staging"),
    ],
)
def test_a_graph_that_stands_still_ends_with_the_name_of_the_stage(tmp_path: Path, held: list[str], stage: str) -> None:
    received(tmp_path, "a.tar")
    script = Script(str(tmp_path / "script"), held=held)
    with drill(script, fields(tmp_path, cluster__stall_s=60)) as running:
        end = running.end()
    print(end["message"])
    assert end["raised"] == "StalledError"
    assert end["exit_code"] == 1
    assert end["message"].startswith(f"{stage} stands still")
    assert f"a.tar{'' if stage == 'reading' else ' part 1'} for" in end["message"]
