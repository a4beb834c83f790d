"""`give_up` commits a shard without what fails; `retry_failed` does such shards again, and no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from inprocess import InProcess, Inverting, run
from making import encoded, job, samples, tree, write_tar
from workerprocess import InAWorker

from pipeline import images, ledger, stages
from pipeline import job as main_path
from pipeline.facts import Fact, Summary, Warned
from pipeline.ledger import Task, failed_path, list_staged, plan_of
from pipeline.store import Store, open_store
from pipeline.verify import verify
from zipstage.tiles import Tiles

SIGNS = Path(__file__).parents[2] / "jobs/demo/signs.onnx"
OUTPUTS = ("shards", "tables", "_staging")


def shards(folder: Path) -> None:
    """Two shards of eight parts; in `a.tar` a sample that can't be decoded, and a flat picture, stand among them."""
    flat = [("flat.png", encoded(np.full((200, 200, 3), 7, np.uint8))), ("flat.cls", b"4")]
    undecodable = [("bad.jpg", b"no image")]
    write_tar(folder / "in/a.tar", [*samples(3, 0, 200, 200), undecodable, flat, *samples(4, 10, 200, 200)])
    write_tar(folder / "in/b.tar", samples(8, 100, 200, 200))


class FailsAtFlat(Inverting):
    """Raises whenever a picture of one colour is among its cells."""

    def purify(self, tiles: Tiles) -> Tiles:
        if any(len(np.unique(cell)) == 1 for cell in tiles.cells()):
            raise RuntimeError("division by zero contrast")
        return super().purify(tiles)


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(folder / "out/tables" / f"{name}.parquet").to_pylist()
    return found


def record(folder: Path, name: str) -> dict[str, Any]:
    (path,) = (folder / "out/records").glob(f"{name}.*.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def shard_lengths(folder: Path) -> list[int]:
    found: list[int] = json.loads((folder / "out/_info.json").read_text())["splits"]["all"]["shard_lengths"]
    return found


def undisturbed(folder: Path, **fields: Any) -> dict[str, bytes]:
    whole = folder / "whole"
    run(job(whole, input=str(folder / "in"), **fields))
    return tree(whole / "out", *OUTPUTS)


def test_a_part_that_kills_its_worker_is_committed_as_failed_rows_and_verify_passes(tmp_path: Path) -> None:
    shards(tmp_path)
    summary, engine = run(
        job(tmp_path, part__tiles=1, give_up=True, cluster__max_attempts=2),
        InAWorker,
        dies=lambda shard, part, time: (shard, part) == ("a.tar", 3),
    )
    assert engine is not None
    assert engine.begun["a.tar", 3] == 2
    assert summary.exit_code == 0
    assert summary.committed == ["a.tar", "b.tar"]
    assert summary.statuses == {"ok": 15, "undecodable": 1, "failed": 1}
    found = rows(tmp_path, "a.tar")
    assert [row["status"] for row in found] == ["ok"] * 3 + ["undecodable", "failed"] + ["ok"] * 4
    failed = found[4]
    assert (failed["key"], failed["label"], failed["width"], failed["sha256_purified"]) == ("flat", 4, 200, None)
    assert "2 attempts ended its worker" in failed["error"]
    assert record(tmp_path, "a.tar")["statuses"] == {"failed": 1, "ok": 7, "undecodable": 1}
    report = verify(open_store(str(tmp_path / "out")))
    assert report.findings == []
    assert report.samples == 17
    assert tree(tmp_path / "out", "_staging") == {}


def test_retrying_failed_samples_does_their_shard_again_and_touches_no_other(tmp_path: Path) -> None:
    shards(tmp_path)
    reference = undisturbed(tmp_path, part__tiles=1)
    classifier = {"classifier__protocol": "onnx", "classifier__path": str(SIGNS), "classifier__input__size": 32}
    run(job(tmp_path, part__tiles=1, give_up=True, **classifier), purifier=FailsAtFlat())
    untouched = {path: path.stat() for path in (tmp_path / "out").rglob("*b.tar*")}
    assert len(untouched) == 5  # shard, table, record, predictions and their record
    assert shard_lengths(tmp_path) == [7, 8]

    again, engine = run(job(tmp_path, part__tiles=1, retry_failed=True, **classifier))
    assert again.exit_code == 0
    assert (again.committed, again.asked) == (["a.tar"], ["a.tar"])
    assert engine is not None
    assert {shard for shard, _ in engine.purified} == {"a.tar"}
    assert tree(tmp_path / "out", *OUTPUTS) == reference
    assert record(tmp_path, "a.tar")["statuses"] == {"ok": 8, "undecodable": 1}
    assert shard_lengths(tmp_path) == [8, 8]
    assert {path: path.stat() for path in untouched} == untouched
    assert verify(open_store(str(tmp_path / "out"))).findings == []

    nothing, engine = run(job(tmp_path, part__tiles=1, retry_failed=True, **classifier))
    assert engine is None
    assert nothing.committed == []


def test_which_shards_have_failed_samples_is_known_from_records_with_no_table_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards(tmp_path)
    run(job(tmp_path, part__tiles=1, give_up=True), purifier=FailsAtFlat())
    opened: list[str] = []
    get = Store.get

    def noting(self: Store, path: str, *arguments: Any, **more: Any) -> bytes:
        opened.append(path)
        return get(self, path, *arguments, **more)

    monkeypatch.setattr(Store, "get", noting)
    monkeypatch.setattr(Store, "open", lambda *_: pytest.fail("an object was opened"))
    config = job(tmp_path, part__tiles=1, retry_failed=True)
    found = main_path.find_shards(config.input)
    store = open_store(config.output)
    settings = ledger.read_settings(store)
    assert settings is not None
    opened.clear()
    plan = ledger.make_plan(config, found, store, settings["fingerprint"])
    assert [task.shard.name for task in plan.tasks] == ["a.tar"]
    assert plan.tasks[0].replaces
    assert len(opened) == 2
    assert all(path.startswith("records/") for path in opened)


def test_a_retry_that_fails_again_leaves_what_is_committed(tmp_path: Path) -> None:
    shards(tmp_path)
    run(job(tmp_path, part__tiles=1, give_up=True), purifier=FailsAtFlat())
    before = tree(tmp_path / "out", "shards", "tables", "records")
    summary, _ = run(job(tmp_path, part__tiles=1, retry_failed=True), purifier=FailsAtFlat())
    assert summary.exit_code == 1
    assert list(summary.failed) == ["a.tar"]
    assert tree(tmp_path / "out", "shards", "tables", "records") == before
    assert verify(open_store(str(tmp_path / "out"))).findings == []


def test_one_image_that_fails_leaves_its_neighbours_purified(tmp_path: Path) -> None:
    shards(tmp_path)
    summary, engine = run(job(tmp_path, give_up=True), purifier=FailsAtFlat())  # one part a shard
    assert engine is not None
    assert engine.purified["a.tar", 0] == 2
    assert summary.statuses == {"ok": 15, "undecodable": 1, "failed": 1}
    assert rows(tmp_path, "a.tar")[4]["error"] == "purifier: RuntimeError: division by zero contrast"
    reference = undisturbed(tmp_path)
    healthy = tree(tmp_path / "out", "shards")["shards/b.tar"]
    assert healthy == reference["shards/b.tar"]
    whole = {row["key"]: row for row in pq.read_table(tmp_path / "whole/out/tables/a.tar.parquet").to_pylist()}
    for row in rows(tmp_path, "a.tar"):
        assert row["key"] == "flat" or row == whole[row["key"]]
    assert verify(open_store(str(tmp_path / "out"))).findings == []


def test_a_purifier_that_fails_at_all_images_is_not_asked_about_each(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", samples(200))
    calls = [0]

    class Broken(Inverting):
        def purify(self, tiles: Tiles) -> Tiles:
            calls[0] += 1
            raise RuntimeError("no kernel image")

    summary, _ = run(job(tmp_path, give_up=True), purifier=Broken())
    assert summary.statuses == {"failed": 200}
    assert calls[0] < 30
    assert verify(open_store(str(tmp_path / "out"))).findings == []


def test_without_giving_up_the_whole_part_fails_and_no_image_is_tried_alone(tmp_path: Path) -> None:
    shards(tmp_path)
    purifier = FailsAtFlat()
    summary, _ = run(job(tmp_path), purifier=purifier)
    assert summary.exit_code == 1
    assert summary.committed == ["b.tar"]
    assert "shard a.tar, part 0: purifier: RuntimeError" in summary.failed["a.tar"]
    assert purifier.cells == 8  # those of b.tar


def test_what_was_given_up_is_taken_by_no_run_that_does_not_give_up(tmp_path: Path) -> None:
    shards(tmp_path)
    reference = undisturbed(tmp_path, part__tiles=1)

    class Stopped(FailsAtFlat):
        def purify(self, tiles: Tiles) -> Tiles:
            if self.cells == 5:
                raise KeyboardInterrupt
            return super().purify(tiles)

    run(job(tmp_path, part__tiles=1, give_up=True), purifier=Stopped())
    staged = [Path(path).name for path in tree(tmp_path / "out", "_staging")]
    assert [name for name in staged if "failed" in name] == ["00003.failed.arrow"]

    failing, _ = run(job(tmp_path, part__tiles=1), purifier=FailsAtFlat())
    assert failing.exit_code == 1
    assert failing.committed == ["b.tar"]
    healed, engine = run(job(tmp_path, part__tiles=1))
    assert healed.exit_code == 0
    assert engine is not None
    assert engine.purified == {("a.tar", 3): 1}
    assert tree(tmp_path / "out", *OUTPUTS) == reference


def test_giving_up_tries_again_first_and_takes_what_is_whole(tmp_path: Path) -> None:
    shards(tmp_path)
    reference = undisturbed(tmp_path, part__tiles=1)

    class Stopped(FailsAtFlat):
        def purify(self, tiles: Tiles) -> Tiles:
            if self.cells == 5:
                raise KeyboardInterrupt
            return super().purify(tiles)

    run(job(tmp_path, part__tiles=1, give_up=True), purifier=Stopped())
    summary, _ = run(job(tmp_path, part__tiles=1, give_up=True))
    assert summary.statuses == {"ok": 16, "undecodable": 1}
    assert tree(tmp_path / "out", *OUTPUTS) == reference


def test_an_encoder_that_fails_gives_its_part_up_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards(tmp_path)
    encode = images.encode

    def failing(pixels: np.ndarray, *more: Any) -> Any:
        if (pixels == 248).all():  # the negative of the flat picture
            raise OSError("encoder error -2")
        return encode(pixels, *more)

    monkeypatch.setattr(stages.images, "encode", failing)
    summary, _ = run(job(tmp_path, part__tiles=1, give_up=True))
    assert summary.statuses == {"ok": 15, "undecodable": 1, "failed": 1}
    assert "staging: OSError: encoder error -2" in rows(tmp_path, "a.tar")[4]["error"]


def test_a_shard_of_nothing_but_failures_is_whole_and_leaves_no_staging(tmp_path: Path) -> None:
    flat = [("flat.png", encoded(np.full((200, 200, 3), 7, np.uint8)))]
    write_tar(tmp_path / "in/a.tar", [flat])
    summary, _ = run(job(tmp_path, give_up=True), purifier=FailsAtFlat())
    assert summary.statuses == {"failed": 1}
    assert tree(tmp_path / "out", "_staging") == {}
    assert verify(open_store(str(tmp_path / "out"))).findings == []


def test_people_are_told_once_for_each_shard_what_was_given_up(tmp_path: Path) -> None:
    flat = encoded(np.full((200, 200, 3), 7, np.uint8))
    write_tar(tmp_path / "in/a.tar", [[(f"flat{i}.png", flat)] for i in range(5)])
    told = facts(tmp_path, lambda *arguments: InProcess(*arguments, purifier=FailsAtFlat()), part__tiles=2)
    lines = [fact.message for fact in told if isinstance(fact, Warned)]
    assert len(lines) == 1
    assert "shard a.tar, part 0: sample 'flat0' and 1 more: purifier: RuntimeError" in lines[0]
    assert "--retry-failed" in lines[0]


def facts(folder: Path, engine_of: Callable[..., InProcess], **fields: Any) -> list[Fact]:
    told: list[Fact] = []
    summary: Summary = main_path.purify(job(folder, give_up=True, **fields), told.append, engine_of, run="test")
    assert summary.exit_code == 0
    return told


def test_what_an_earlier_run_gave_up_and_never_committed_is_tried_anew(tmp_path: Path) -> None:
    shards(tmp_path)

    class StopsBeforeTheCommit(InAWorker):
        def start_commit(self, task: Task, num_parts: int) -> None:
            raise KeyboardInterrupt

    def dies(shard: str, part: int, time: int) -> bool:
        return shard == "a.tar"

    summary, _ = run(job(tmp_path, give_up=True, cluster__max_attempts=1), StopsBeforeTheCommit, dies=dies)
    assert summary.exit_code == 130
    assert any(path.endswith(".failed.arrow") for path in tree(tmp_path / "out", "_staging"))
    summary, _ = run(job(tmp_path, give_up=True), purifier=FailsAtFlat())
    assert summary.statuses == {"ok": 15, "undecodable": 1, "failed": 1}  # the flat picture, not its neighbours


def test_listings_know_a_failed_part_as_staging_and_not_as_staged(tmp_path: Path) -> None:
    store = Store(str(tmp_path), 1)
    path = failed_path("cam/a.tar", "0" * 12, 3)
    store.put(path, b"x")
    assert list_staged(store) == ({}, {("cam/a.tar", "0" * 12): {3}})
    assert plan_of(path) == "0" * 12
