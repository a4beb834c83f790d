"""Storage that fails, lies or changes under a job: nothing lost, nothing twice, nothing mixed, one clear line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Bucket
from faulty_s3 import Asked, Fault, FaultyS3, Kind
from inprocess import InProcess
from storing import Scene, quick, write_classifier

from pipeline.errors import StoreError
from pipeline.facts import Warned
from pipeline.job import purify

pytestmark = pytest.mark.s3


@pytest.fixture
def scene(s3: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    quick(monkeypatch)
    write_classifier(tmp_path / "bright.onnx")
    with FaultyS3(s3.environment["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        scene = Scene(s3, proxy, tmp_path)
        scene.put("b.tar", 8, first=100, kib=512)
        yield scene


class Once:
    """Breaks each request of a job the first time that it comes; uploads count by what they write."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.seen: set[tuple[str, ...]] = set()

    def __call__(self, asked: Asked) -> Fault | None:
        query = "&".join(pair for pair in asked.query.split("&") if not pair.startswith("uploadId"))
        end = asked.range.partition("-")[2]  # a body that breaks off is taken up where it broke
        request = (asked.kind, asked.path, query, end)
        is_first = request not in self.seen
        self.seen.add(request)
        return self.fault if is_first else None


@pytest.mark.parametrize("fault", ["503", "lost", "cut"])
def test_each_request_may_fail_once_and_the_outcome_is_the_same(scene: Scene, fault: Fault) -> None:
    scene.put("a/000000.tar", 6)
    reference = scene.undisturbed()
    kinds = {asked.kind for asked in scene.proxy.asked}
    assert kinds == {"get", "head", "list", "put", "create", "begin", "part", "complete", "delete"}
    once = Once(fault)
    summary, engine = scene.run("out", once)
    assert summary.exit_code == 0, summary
    assert engine is not None
    assert {kind for kind, *_ in once.seen} >= kinds
    assert len(scene.proxy.asked) > len(once.seen)  # each was asked for again, where that was needed
    assert set(engine.purified.values()) == {1}
    assert scene.digests("out") == reference
    assert scene.findings("out") == []
    assert not scene.staged("out")


def test_an_upload_that_was_done_and_is_unknown_to_the_server_afterwards_is_written_again(scene: Scene) -> None:
    scene.put("a/000000.tar", 6)
    reference = scene.undisturbed()

    def breaks(asked: Asked) -> Fault | None:
        return {1: "lost", 2: "forgotten"}.get(asked.of_kind) if asked.kind == "complete" else None  # type: ignore[return-value]

    summary, _ = scene.run("out", breaks)
    assert scene.proxy.count("complete") == 3
    assert summary.exit_code == 0, summary
    assert scene.digests("out") == reference


def from_the(kind: Kind, number: int, fault: Fault = "reset") -> Callable[[Asked], Fault | None]:
    """Breaks all requests that come after the n-th of a kind, itself included."""
    began: list[bool] = []

    def breaks(asked: Asked) -> Fault | None:
        if asked.kind == kind and asked.of_kind == number:
            began.append(True)
        return fault if began else None

    return breaks


def ended(scene: Scene, breaks: Callable[[Asked], Fault | None], **fields: Any) -> tuple[int, str]:
    """The exit code of a run that storage ended, and its last line."""
    try:
        summary, _ = scene.run("out", breaks, **fields)
    except StoreError as error:
        return error.exit_code, str(error)
    return summary.exit_code, next(iter(summary.failed.values()))


@pytest.mark.parametrize(("kind", "number"), [("get", 5), ("create", 4), ("put", 1), ("delete", 1)])
def test_storage_that_stays_away_ends_the_run_with_75_and_the_rerun_does_what_is_missing(
    scene: Scene, kind: Kind, number: int
) -> None:
    reference = scene.undisturbed()
    code, line = ended(scene, from_the(kind, number), storage__patience_s=0.2)
    assert code == 75
    assert "storage doesn't answer" in line
    assert "\n" not in line
    staged = scene.staged_parts("out")
    _, engine = scene.run("out")
    assert not (set(engine.purified) if engine else set()) & staged
    assert scene.digests("out") == reference
    assert scene.findings("out") == []


def test_a_login_that_ends_in_the_middle_ends_the_run_at_once_and_a_fresh_one_finishes_it(scene: Scene) -> None:
    for i in range(3):
        scene.put(f"c{i}.tar", 4, first=200 + 10 * i, kib=1)
    reference = scene.undisturbed()
    code, line = ended(scene, from_the("create", 3, "expired"))
    assert code == 1
    assert "the credentials were refused (ExpiredToken)" in line
    assert scene.proxy.count("create") == 3  # nothing was purified for a place that takes nothing
    summary, _ = scene.run("out")
    assert summary.exit_code == 0
    assert scene.digests("out") == reference


# --- an input that changes, a server that ignores conditions ----------------------------------------


@pytest.mark.parametrize("is_deaf", [False, True], ids=["honours If-Match", "ignores If-Match"])
def test_an_input_replaced_while_it_is_read_is_not_mixed(scene: Scene, is_deaf: bool) -> None:
    scene.put("a/000000.tar", 4)
    scene.proxy.deaf_as = scene.credentials if is_deaf else None

    def replaces(asked: Asked) -> Fault | None:
        if asked.kind == "get" and asked.path.endswith("in/a/000000.tar") and asked.range.startswith("bytes=2097152"):
            scene.put("a/000000.tar", 4, first=500)
        return None

    summary, _ = scene.run("out", replaces, classifier=None)
    assert summary.exit_code == 1
    assert summary.committed == ["b.tar"]
    assert "a/000000.tar: can't read: it changed since it was listed" in summary.failed["a/000000.tar"]
    assert not [path for path in scene.digests("out") if "a/000000.tar" in path]

    rerun, _ = scene.run("out", classifier=None)  # it was never committed, so the new one is as good as any
    assert rerun.committed == ["a/000000.tar"]
    assert scene.findings("out") == []
    assert not scene.staged("out")


def test_an_input_replaced_between_two_runs_is_refused_by_name(scene: Scene) -> None:
    before = scene.undisturbed("out")
    scene.put("b.tar", 8, first=300, kib=1)
    summary, engine = scene.run("out")
    assert summary.exit_code == 1
    assert list(summary.failed) == ["b.tar"]
    assert "the input changed after it was committed" in summary.failed["b.tar"]
    assert "--overwrite" in summary.failed["b.tar"]
    assert engine is None
    assert scene.digests("out") == before


def test_an_input_replaced_before_it_is_asked_about_is_not_asked_about(scene: Scene) -> None:
    def replaces(asked: Asked) -> Fault | None:
        if asked.kind == "create" and "/records/b.tar" in asked.path:
            scene.put("b.tar", 8, first=300, kib=1)
        return None

    summary, _ = scene.run("out", replaces)
    assert summary.committed == ["b.tar"]
    assert "it changed since it was listed" in summary.unanswered["b.tar"]
    assert not [path for path in scene.digests("out") if path.startswith("predictions/") and "b.tar" in path]


def test_a_server_that_ignores_if_none_match_is_named_and_one_run_is_whole(scene: Scene) -> None:
    reference = scene.undisturbed()
    scene.proxy.deaf_as = scene.credentials
    warnings: list[str] = []
    purify(
        scene.job("out"), lambda fact: warnings.append(fact.message) if isinstance(fact, Warned) else None, InProcess
    )
    assert [text for text in warnings if "ignores If-None-Match: let only one run write there at a time" in text]
    assert scene.digests("out") == reference
    assert scene.findings("out") == []
