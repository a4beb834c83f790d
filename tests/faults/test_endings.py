"""However a run ends, what it came to is written, and the exit code is that of what ended it."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

import onnx
import pytest
from inprocess import InProcess, ending, run
from making import job, samples, tree, write_tar

from pipeline import info
from pipeline import job as main_path
from pipeline.ask import Asked, Asker
from pipeline.config import JobConfig
from pipeline.errors import ClassifierError, ConfigError, LeaseError, StalledError, StoreAwayError, WorkerError
from pipeline.facts import Failed, Summary
from pipeline.store import Store


def summary_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out/runs/test/summary.json").read_text())
    return found


def constant_classifier(path: Path) -> dict[str, Any]:
    """An ONNX classifier whose two scores are the image's mean."""
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("GlobalAveragePool", ["input"], ["mean"]),
            onnx.helper.make_node("Flatten", ["mean"], ["scores"]),
        ],
        "means",
        [onnx.helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["n", 3, 32, 32])],
        [onnx.helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["n", 3])],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), path)
    return {"classifier__protocol": "onnx", "classifier__path": str(path), "classifier__name": "means"}


def test_an_interrupt_is_130_also_when_nothing_can_be_written_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tar(tmp_path / "in/a.tar", samples(1))
    opened: list[float] = []

    class Gone(Store):
        def __init__(self, uri: str, patience_s: float) -> None:
            super().__init__(uri, patience_s)
            opened.append(patience_s)

        def put(self, path: str, data: bytes, *, create: bool = False) -> None:
            if path.startswith("runs/"):
                raise StoreAwayError("the bucket is away")
            super().put(path, data, create=create)

    monkeypatch.setattr(main_path, "open_store", Gone)
    summary = main_path.purify(job(tmp_path), lambda fact: None, ending(KeyboardInterrupt(), after=0), run="test")
    assert summary.exit_code == 130
    assert opened[-1] <= main_path.LAST_WORDS_S  # and it was not waited for


def test_a_run_that_finds_another_at_work_says_so_in_a_summary_of_its_own(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", samples(1))
    assert run(job(tmp_path))[0].exit_code == 0
    folder = os.open(tmp_path / "out", os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # what a driver at work does
        with pytest.raises(LeaseError):
            main_path.purify(job(tmp_path), lambda fact: None, InProcess, run="second")
    finally:
        os.close(folder)
    second = json.loads((tmp_path / "out/runs/second/summary.json").read_text())
    assert second["exit_code"] == 75
    assert "at work" in second["error"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StalledError("no part came"), 1),
        (StoreAwayError("storage is away"), 75),
        (WorkerError("a worker can't start: no weights", 2), 2),
        (ValueError("a bug"), 1),
    ],
)
def test_what_ends_a_run_is_in_its_summary_and_is_raised_as_it_was(tmp_path: Path, error: Exception, code: int) -> None:
    for name in ("a", "b"):
        write_tar(tmp_path / f"in/{name}.tar", samples(1))
    with pytest.raises(type(error)) as raised:
        main_path.purify(job(tmp_path), lambda fact: None, ending(error), run="test")
    assert raised.value is error
    found = summary_of(tmp_path)
    assert found["exit_code"] == code
    assert str(error) in found["error"]
    assert found["committed"] == ["a.tar"]
    assert json.loads((tmp_path / "out/_info.json").read_text())["splits"]["all"]["filenames"] == ["shards/a.tar"]


def test_a_summary_that_cant_be_written_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar(tmp_path / "in/a.tar", samples(1))

    def away(*_: Any) -> None:
        raise StoreAwayError("the second error")

    monkeypatch.setattr(main_path, "_finish", away)
    with pytest.raises(StalledError, match="the first"):
        main_path.purify(job(tmp_path), lambda fact: None, ending(StalledError("the first"), 0), run="test")


def test_an_interrupt_while_the_engine_starts_is_a_summary_too(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", samples(1))

    class Starting(InProcess):
        def __enter__(self) -> InProcess:
            raise KeyboardInterrupt

    summary = main_path.purify(job(tmp_path), lambda fact: None, Starting, run="test")
    assert summary.exit_code == 130
    assert summary_of(tmp_path)["exit_code"] == 130


def test_a_commit_that_meets_a_bug_fails_its_shard_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        write_tar(tmp_path / f"in/{name}.tar", samples(1))
    real = Store.writer

    def writer(self: Store, path: str) -> Any:
        if path.endswith("a.tar"):
            raise RuntimeError("a bug\nin two lines")
        return real(self, path)

    monkeypatch.setattr(Store, "writer", writer)
    summary, _ = run(job(tmp_path))
    assert summary.committed == ["b.tar"]
    assert summary.failed == {"a.tar": "shard a.tar: commit: RuntimeError: a bug in two lines"}


@pytest.mark.parametrize(
    ("error", "code"), [(RuntimeError("a bug"), 1), (ClassifierError("refused"), 2), (StoreAwayError("away"), 75)]
)
def test_an_ask_that_raises_leaves_its_shard_unanswered_with_the_errors_own_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    write_tar(tmp_path / "in/a.tar", samples(1))

    async def ask(*_: Any) -> Asked:
        raise error

    monkeypatch.setattr(Asker, "__call__", ask)
    summary, _ = run(job(tmp_path, **constant_classifier(tmp_path / "means.onnx")))
    assert summary.committed == ["a.tar"]
    assert str(error) in summary.unanswered["a.tar"]
    assert summary.exit_code == code


def test_an_answers_exit_code_is_the_errors_own() -> None:
    for code in (1, 2, 75):
        summary = Summary("test")
        summary.note(Asked("a.tar", error="why", exit_code=code))
        assert summary.exit_code == code
    summary.note(Failed("b.tar", "why", 1))
    assert summary.exit_code == 1


def test_a_record_that_vanished_before_the_ask_is_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", samples(1))
    run(job(tmp_path))

    class Vanishing(InProcess):
        def start_ask(self, shard: Any) -> None:
            for record in (tmp_path / "out/records").iterdir():
                record.unlink()
            super().start_ask(shard)

    config = job(tmp_path, **constant_classifier(tmp_path / "means.onnx"))
    summary = main_path.query(config, lambda fact: None, Vanishing, run="test")
    assert "a.tar: its record vanished" in summary.unanswered["a.tar"]
    assert summary.exit_code == 1


def asking(folder: Path, **more: Any) -> JobConfig:
    return job(folder, **constant_classifier(folder / "means.onnx"), **more)


def test_a_query_where_nothing_was_purified_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", samples(1))
    with pytest.raises(ConfigError, match="nothing was purified there") as raised:
        main_path.query(asking(tmp_path), lambda fact: None, InProcess)
    assert raised.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_a_query_needs_neither_the_purifiers_network_nor_its_seed_nor_its_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tar(tmp_path / "in/a.tar", samples(2))
    run(job(tmp_path, purifier__seed="a secret"))

    def no_network(*_: Any) -> Any:
        raise AssertionError("the purifier was looked at")

    monkeypatch.setattr(main_path, "describe", no_network)
    before = tree(tmp_path / "out", "shards", "records") | {"settings": (tmp_path / "out/settings.json").read_bytes()}
    devices = []

    def engine_of(config: JobConfig, *arguments: Any) -> InProcess:
        devices.append(config.purifier.device)
        return InProcess(config, *arguments)

    config = asking(tmp_path, purifier__method="restore", purifier__device="cuda")
    summary = main_path.query(config, lambda fact: None, engine_of, run="test")
    assert summary.asked == ["a.tar"]
    assert devices == ["auto"]
    after = tree(tmp_path / "out", "shards", "records") | {"settings": (tmp_path / "out/settings.json").read_bytes()}
    assert after == before


def test_the_info_follows_the_records_and_reads_those_alone_that_it_didnt_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for count, name in enumerate(("a", "b"), 1):
        write_tar(tmp_path / f"in/{name}.tar", samples(count))
    run(job(tmp_path))
    write_tar(tmp_path / "in/c.tar", samples(5))
    write_tar(tmp_path / "in/b.tar", samples(7, 20))
    read = []
    real = info.read_record

    def noted(output: Store, name: str, identity: str) -> Any:
        read.append(name)
        return real(output, name, identity)

    monkeypatch.setattr(info, "read_record", noted)
    run(job(tmp_path, overwrite=True))
    splits = json.loads((tmp_path / "out/_info.json").read_text())["splits"]["all"]
    assert splits["filenames"] == ["shards/a.tar", "shards/b.tar", "shards/c.tar"]
    assert splits["shard_lengths"] == [1, 7, 5]
    assert splits["num_samples"] == 13
    assert sorted(read) == ["a.tar", "b.tar", "c.tar"]  # all were written anew
    read.clear()
    write_tar(tmp_path / "in/d.tar", samples(2, 40))
    run(job(tmp_path))
    assert read == ["d.tar"]


def test_an_info_that_is_none_of_ours_is_written_anew(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", samples(3))
    run(job(tmp_path))
    for content in ("", "[]", '{"records": ["x"], "splits": {"all": {"shard_lengths": []}}}'):
        (tmp_path / "out/_info.json").write_text(content)
        run(job(tmp_path))
        assert json.loads((tmp_path / "out/_info.json").read_text())["splits"]["all"]["shard_lengths"] == [3]
