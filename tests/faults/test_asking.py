"""Asking under faults: a change between two runs, a picture that is refused, a second asker, a large picture."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from inprocess import run
from making import encoded, job, picture, samples, tree, write_tar

from pipeline import answers, pairs, tables
from pipeline import ask as asking
from pipeline import job as main_path
from pipeline.ask import Asked, Asker
from pipeline.black_box import identify
from pipeline.classifier_config import ClassifierConfig
from pipeline.classifiers.base import Answers
from pipeline.commit import Committed, read_record
from pipeline.config import JobConfig
from pipeline.errors import ClassifierAwayError, ClassifierError, ConfigError, StoreError
from pipeline.inputs import find_shards
from pipeline.store import Shard, Store, open_store


class Box:
    """A classifier in this process: always the same class; `before_each` may await, or raise.

    Args:
        says: The class.
        before_each: Gets each batch and its number, from 0.
    """

    max_batch = 64

    def __init__(self, says: int = 0, before_each: Callable[[np.ndarray, int], Awaitable[None] | None] | None = None):
        self.says, self.before_each = says, before_each
        self.batches: list[int] = []

    async def __aenter__(self) -> Box:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def predict(self, images: np.ndarray) -> Answers:
        self.batches.append(len(images))
        waiting = self.before_each(images, len(self.batches) - 1) if self.before_each else None
        if waiting is not None:
            await waiting
        return Answers(np.full(len(images), self.says), None, [None] * len(images))


BOX = {
    "classifier__protocol": "open-inference-v2",
    "classifier__url": "http://127.0.0.1:1",
    "classifier__model": "box",
    "classifier__name": "box",
}


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Box], Box]:
    """Lets jobs ask a box."""

    def use(box: Box) -> Box:
        monkeypatch.setattr(asking, "build", lambda config, gate: box)
        monkeypatch.setattr(main_path, "build_classifier", lambda config: box)
        return box

    return use


def away_after(count: int) -> Callable[[np.ndarray, int], None]:
    def away(images: np.ndarray, number: int) -> None:
        if number >= count:
            raise ClassifierAwayError("the box is away")

    return away


def refusing(is_bad: Callable[[np.ndarray], bool]) -> Callable[[np.ndarray, int], None]:
    """Refuses a batch that holds a bad picture."""

    def refuse(images: np.ndarray, number: int) -> None:
        if any(is_bad(image) for image in images):
            raise ClassifierError("the box refuses it")

    return refuse


def predictions(folder: Path, name: str = "box", shard: str = "a.tar") -> list[dict[str, Any]]:
    return pq.read_table(folder / f"out/predictions/{name}/{shard}.parquet").to_pylist()


def committed_shard(config: JobConfig) -> tuple[Shard, Committed, Store]:
    """The job's only shard, purified and committed, with nobody asked."""
    run(config.model_copy(update={"classifier": None}))
    (shard,) = find_shards(config.input)
    output = open_store(config.output)
    committed = read_record(output, shard.name, shard.identity)
    assert committed is not None
    return shard, committed, output


def ask(config: JobConfig, shard: Shard, committed: Committed, output: Store) -> Asked:
    return asyncio.run(Asker(config, output)(shard, committed))


# --- what changes between two runs ------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [2, 5])
def test_a_rerun_with_another_chunk_size_answers_for_each_sample_once(
    tmp_path: Path, use: Callable[[Box], Box], chunk: int
) -> None:
    write_tar(tmp_path / "in/a.tar", samples(8))
    use(Box(before_each=away_after(1)))
    summary, _ = run(job(tmp_path, ask__chunk=3, **BOX))
    assert summary.exit_code == 75
    assert len(tree(tmp_path / "out", "_staging")) == 1

    use(Box())
    rerun, _ = run(job(tmp_path, ask__chunk=chunk, **BOX))
    assert rerun.exit_code == 0
    assert [row["index"] for row in predictions(tmp_path)] == list(range(8))
    assert tree(tmp_path / "out", "_staging") == {}


@pytest.mark.parametrize("change", [{"classifier__model": "other"}, {"classifier__url": "http://127.0.0.1:2"}])
def test_another_model_under_the_same_name_answers_for_the_whole_shard(
    tmp_path: Path, use: Callable[[Box], Box], change: dict[str, str]
) -> None:
    write_tar(tmp_path / "in/a.tar", samples(6))
    use(Box(0, before_each=away_after(1)))
    run(job(tmp_path, ask__chunk=3, **BOX))
    use(Box(1))
    run(job(tmp_path, ask__chunk=3, **{**BOX, **change}))
    assert [row["prediction_after"] for row in predictions(tmp_path)] == [1] * 6


def test_a_rerun_with_the_same_settings_asks_about_the_open_chunks_only(
    tmp_path: Path, use: Callable[[Box], Box]
) -> None:
    write_tar(tmp_path / "in/a.tar", samples(8))
    use(Box(before_each=away_after(1)))
    run(job(tmp_path, ask__chunk=3, classifier__token="first", **BOX))
    box = use(Box())
    run(job(tmp_path, ask__chunk=3, classifier__token="second", classifier__batch=6, **BOX))
    assert sum(box.batches) == 2 * 5
    assert len(predictions(tmp_path)) == 8


def test_answers_that_are_not_one_for_each_sample_are_refused_and_asked_for_anew(
    tmp_path: Path, use: Callable[[Box], Box]
) -> None:
    write_tar(tmp_path / "in/a.tar", samples(4))
    use(Box(before_each=away_after(1)))
    run(job(tmp_path, ask__chunk=2, **BOX))
    (staged,) = (tmp_path / "out/_staging").rglob("*.arrow")
    staged.write_bytes(tables.to_ipc([], tables.PREDICTIONS, {}))
    use(Box())
    summary, _ = run(job(tmp_path, ask__chunk=2, **BOX))
    assert "expected answers for 4 samples, found 2" in summary.unanswered["a.tar"]
    assert tree(tmp_path / "out", "predictions") == {}
    rerun, _ = run(job(tmp_path, ask__chunk=2, **BOX))
    assert rerun.exit_code == 0
    assert len(predictions(tmp_path)) == 4


# --- names, and replaced shards ---------------------------------------------------------------------


@pytest.mark.parametrize("model", ["team/model", "..", "a b", "/"])
def test_any_model_gives_its_predictions_one_plain_folder(model: str) -> None:
    name = identify(ClassifierConfig(protocol="open-inference-v2", url="http://h", model=model)).name
    assert name.replace("-", "").replace("_", "").isalnum()
    assert name != identify(ClassifierConfig(protocol="open-inference-v2", url="http://h", model="team_model")).name


@pytest.mark.parametrize("name", ["a/b", "..", ".", "a\\b", "a b", "-x", "é"])
def test_a_set_name_that_is_no_folder_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"classifier\.name: expected letters.* folder .*found '"):
        job(tmp_path, **{**BOX, "classifier__name": name})


def test_overwriting_asks_anew_when_the_model_has_a_slash_in_it(tmp_path: Path, use: Callable[[Box], Box]) -> None:
    write_tar(tmp_path / "in/cam/a.tar", samples(3))
    fields = {**BOX, "classifier__name": None, "classifier__model": "team/model"}
    use(Box(0))
    run(job(tmp_path, **fields))
    use(Box(1))
    summary, _ = run(job(tmp_path, overwrite=True, **fields))
    assert summary.asked == ["cam/a.tar"]
    (name,) = [path.name for path in (tmp_path / "out/predictions").iterdir()]
    assert [row["prediction_after"] for row in predictions(tmp_path, name, "cam/a.tar")] == [1] * 3


def test_what_was_said_of_another_purification_does_not_count(tmp_path: Path, use: Callable[[Box], Box]) -> None:
    write_tar(tmp_path / "in/a.tar", samples(3))
    config = job(tmp_path, **BOX)
    use(Box())
    shard, committed, output = committed_shard(config)
    ask(config, shard, committed, output)
    (path,) = (tmp_path / "out/predictions/box").glob("*.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "purified_sha256": "0" * 64}))
    box = use(Box())
    assert ask(config, shard, committed, output).statuses == {"ok": 3}
    assert sum(box.batches) == 6


# --- how much is held at once -----------------------------------------------------------------------


def test_chunks_end_at_a_size_and_skipping_some_cuts_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = [[(f"{i:06d}.png", encoded(picture(i, 300, 300)))] for i in range(3)]  # 0.5 MiB with its purified one
    write_tar(tmp_path / "in/a.tar", [*large, [("bad.png", b"bad")], *samples(4, 10)])
    config = job(tmp_path, ask__chunk=4, **BOX)
    shard, _, output = committed_shard(config)
    monkeypatch.setattr(pairs, "CHUNK_MIB", 1)
    whole = list(pairs.read_chunks(shard, config, output, ()))
    assert [[pair.facts["index"] for pair in chunk] for chunk in whole] == [[0], [1], [2, 3, 4, 5], [6, 7]]
    assert [pair.purified is None for pair in whole[2]] == [False, True, False, False]
    open_ones = list(pairs.read_chunks(shard, config, output, {0, 2}))
    assert [[pair.facts for pair in chunk] for chunk in open_ones] == [[p.facts for p in chunk] for chunk in whole]
    assert [pair.received is None for chunk in open_ones for pair in chunk] == [True, False, *[True] * 4, False, False]


def test_a_purified_image_larger_than_a_received_one_may_be_is_asked_about(
    tmp_path: Path, use: Callable[[Box], Box]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    write_tar(tmp_path / "in/a.tar", [[("k.jpg", encoded(noise, "JPEG"))]])
    use(Box())
    summary, _ = run(job(tmp_path, limits__max_member_mib=1, **BOX))
    assert (tmp_path / "out/shards/a.tar").stat().st_size > 2**20
    assert summary.exit_code == 0
    assert summary.answers == {"ok": 1}


# --- refusals ---------------------------------------------------------------------------------------


def mixed(folder: Path, bad: int = 3, count: int = 8) -> None:
    groups = samples(count)
    groups[bad] = [(f"{bad:06d}.png", encoded(np.full((32, 32, 3), 7, np.uint8)))]
    write_tar(folder / "in/a.tar", groups)


def is_seven(image: np.ndarray) -> bool:
    return bool((image == 7).all())


@pytest.mark.parametrize("batch", [1, 3, 64])
@pytest.mark.parametrize("bad", [0, 7])
def test_one_picture_that_is_refused_costs_its_own_row_alone(
    tmp_path: Path, use: Callable[[Box], Box], batch: int, bad: int
) -> None:
    mixed(tmp_path, bad)
    use(Box(before_each=refusing(is_seven)))
    summary, _ = run(job(tmp_path, classifier__batch=batch, **BOX))
    assert summary.exit_code == 0
    assert summary.answers == {"ok": 7, "unanswered": 1}
    row = predictions(tmp_path)[bad]
    assert (row["status"], row["error"], row["prediction_before"], row["prediction_after"]) == (
        "unanswered",
        "the box refuses it",
        None,
        0,
    )


@pytest.mark.parametrize("batch", [1, 64])
def test_a_classifier_that_refuses_everything_is_an_error_of_the_config_and_soon(
    tmp_path: Path, use: Callable[[Box], Box], batch: int
) -> None:
    write_tar(tmp_path / "in/a.tar", samples(60))
    box = use(Box(before_each=refusing(lambda image: True)))
    summary, _ = run(job(tmp_path, classifier__batch=batch, **BOX))
    assert summary.exit_code == 2
    assert summary.unanswered == {"a.tar": "the box refuses it"}
    assert len(box.batches) < 3 * answers.HOPELESS
    assert tree(tmp_path / "out", "predictions", "_staging") == {}


def test_a_classifier_that_begins_to_refuse_everything_leaves_the_shard_open(
    tmp_path: Path, use: Callable[[Box], Box]
) -> None:
    write_tar(tmp_path / "in/a.tar", samples(8))

    def expired(images: np.ndarray, number: int) -> None:
        if number > 0:
            raise ClassifierError("the token has expired")

    use(Box(before_each=expired))
    summary, _ = run(job(tmp_path, ask__chunk=4, **BOX))
    assert summary.exit_code == 2
    assert summary.unanswered == {"a.tar": "the token has expired"}
    assert tree(tmp_path / "out", "predictions") == {}


# --- two askers, and storage ------------------------------------------------------------------------


def test_an_asker_that_is_overtaken_takes_the_others_answers_and_leaves_no_staging(
    tmp_path: Path, use: Callable[[Box], Box]
) -> None:
    write_tar(tmp_path / "in/a.tar", samples(4))
    config = job(tmp_path, ask__chunk=2, **BOX)
    shard, committed, output = committed_shard(config)

    async def overtaken(images: np.ndarray, number: int) -> None:
        if number == 1:
            use(Box(1))
            assert (await Asker(config, output)(shard, committed)).error is None

    use(Box(1, before_each=overtaken))
    asked = ask(config, shard, committed, output)
    assert (asked.error, asked.statuses) == (None, {"ok": 4})
    assert len(predictions(tmp_path)) == 4
    assert tree(tmp_path / "out", "_staging") == {}


def test_storage_that_says_no_is_not_the_classifiers_fault(
    tmp_path: Path, use: Callable[[Box], Box], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tar(tmp_path / "in/a.tar", samples(2))
    config = job(tmp_path, **BOX)
    shard, committed, output = committed_shard(config)

    def full(*_: object, **__: object) -> None:
        raise StoreError("the disk is full")

    use(Box())
    monkeypatch.setattr(Store, "put", full)
    asked = ask(config, shard, committed, output)
    assert (asked.error, asked.exit_code) == ("the disk is full", 1)
    use(Box(before_each=away_after(0)))
    away = ask(config, shard, committed, output)
    assert (away.away, away.exit_code) == ("the box is away", 75)


def test_asking_that_ends_at_any_write_is_finished_by_the_next_run(
    tmp_path: Path, use: Callable[[Box], Box], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tar(tmp_path / "in/a.tar", samples(5))
    config = job(tmp_path, ask__chunk=2, **BOX)
    shard, committed, output = committed_shard(config)
    box = use(Box())
    ask(config, shard, committed, output)
    reference = tree(tmp_path / "out", "predictions", "_staging")

    writes = {name: getattr(Store, name) for name in ("put", "delete_below", "writer")}
    left = [0]

    def failing(name: str) -> Callable[..., Any]:
        def write(*arguments: Any, **more: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise StoreError("the disk is full")
            return writes[name](*arguments, **more)

        return write

    for name in writes:
        monkeypatch.setattr(Store, name, failing(name))
    for n in range(1, 7):  # three chunks, the predictions, the record, the staging
        output.delete_below("predictions")
        left[0], box.batches[:] = n, []
        assert ask(config, shard, committed, output).error == "the disk is full"
        assert ask(config, shard, committed, output).statuses == {"ok": 5}
        assert sum(box.batches) <= 10 + 4  # at most one chunk twice
        left[0] = 0
        output.delete_below("_staging")  # a run that ended after its record leaves it behind
        assert tree(tmp_path / "out", "predictions", "_staging") == reference, n


def test_a_shard_with_nothing_to_ask_about_has_its_rows(tmp_path: Path, use: Callable[[Box], Box]) -> None:
    write_tar(tmp_path / "in/a.tar", [[("bad.png", b"bad")], [("none.txt", b"text")]])
    write_tar(tmp_path / "in/empty.tar", [])
    box = use(Box())
    summary, _ = run(job(tmp_path, **BOX))
    assert summary.exit_code == 0
    assert [row["status"] for row in predictions(tmp_path)] == ["undecodable", "rejected"]
    assert predictions(tmp_path, shard="empty.tar") == []
    assert box.batches == []
