"""Endpoints of their own kinds and SageMaker behind the whole job: their answers, their faults, what they may cost."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import stamina
from inprocess import InProcess, run
from making import job, picture, samples, tree, write_tar
from pytest_httpserver import HTTPServer
from sagemaker_server import ACCESS_KEY, ENDPOINT, REGION, SECRET_KEY, Runtime
from scripted_json import REQUEST, ScriptedJson, predictions
from scripted_server import Request, Script, ScriptedServer, reply, reset

from pipeline import job as main_path
from pipeline.config import JobConfig
from pipeline.facts import Summary

COUNT, BATCH = 8, 2


@pytest.fixture(autouse=True)
def _retries_without_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


@pytest.fixture
def server() -> Iterator[ScriptedJson]:
    with ScriptedJson() as server:
        yield server


@pytest.fixture
def signed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))


def asking(folder: Path, **classifier: Any) -> JobConfig:
    fields = {"name": "box", "batch": BATCH, "concurrency": 2, "attempts": 2, "timeout_s": 20, **classifier}
    chunk = {"ask__chunk": fields.pop("chunk", 2)}
    return job(folder, **chunk, **{f"classifier__{name}": value for name, value in fields.items()})


def over_json(folder: Path, server: ScriptedServer, **more: Any) -> JobConfig:
    endpoint = {"protocol": "json-http", "url": f"{server.url}/score", "request": REQUEST, "result": "predictions"}
    return asking(folder, **{**endpoint, **more})


def over_sagemaker(folder: Path, runtime: Runtime, **more: Any) -> JobConfig:
    numbers = {"content": "npy", "input": {"dtype": "float32"}}
    where = {"protocol": "sagemaker", "url": runtime.url, "model": ENDPOINT, "region": REGION}
    return asking(folder, **{**where, **numbers, **more})


def query(config: JobConfig) -> Summary:
    return main_path.query(config, lambda fact: None, InProcess, run="asked")


def rows(folder: Path, shard: str = "a.tar") -> list[dict[str, Any]]:
    return pq.read_table(folder / f"out/predictions/box/{shard}.parquet").to_pylist()


def channel(pixels: np.ndarray) -> int:
    return int(pixels.mean(axis=(0, 1)).argmax())


def expected(count: int = COUNT) -> list[tuple[int, int]]:
    """Classes before and after by hand: the brightest channel of a picture, and of its negative."""
    return [(channel(picture(i)), channel(255 - picture(i))) for i in range(count)]


def said(folder: Path) -> list[tuple[int, int]]:
    return [(row["prediction_before"], row["prediction_after"]) for row in rows(folder)]


def test_an_endpoint_over_json_answers_a_job_and_a_query_alike(tmp_path: Path, server: ScriptedJson) -> None:
    for folder in ("one", "two"):
        write_tar(tmp_path / folder / "in/a.tar", samples(COUNT))
    summary, _ = run(over_json(tmp_path / "one", server))
    assert summary.exit_code == 0
    assert said(tmp_path / "one") == expected()
    run(job(tmp_path / "two"))
    assert query(over_json(tmp_path / "two", server)).exit_code == 0
    assert rows(tmp_path / "two") == rows(tmp_path / "one")


def test_sagemaker_answers_a_job_and_a_query_alike(tmp_path: Path, httpserver: HTTPServer, signed: None) -> None:
    runtime = Runtime(httpserver)
    for folder in ("one", "two"):
        write_tar(tmp_path / folder / "in/a.tar", samples(COUNT))
    summary, _ = run(over_sagemaker(tmp_path / "one", runtime))
    assert summary.exit_code == 0, summary.unanswered
    assert said(tmp_path / "one") == expected()
    run(job(tmp_path / "two"))
    assert query(over_sagemaker(tmp_path / "two", runtime)).exit_code == 0
    assert rows(tmp_path / "two") == rows(tmp_path / "one")


def test_no_secret_is_in_what_a_run_writes(tmp_path: Path, server: ScriptedJson) -> None:
    write_tar(tmp_path / "in/a.tar", samples(2))
    run(over_json(tmp_path, server, headers={"X-Api-Key": "s3cr3t-key"}, token="s3cr3t-token"))
    assert {request.headers["x-api-key"] for request in server.requests} == {"s3cr3t-key"}
    assert all(b"s3cr3t" not in data for data in tree(tmp_path, "out").values())


# --- faults --------------------------------------------------------------------------------------------


def from_request(number: int, done: bytes | Callable[[socket.socket], None]) -> Script:
    return lambda request: done if request.number >= number else None


def once(number: int, done: bytes | Callable[[socket.socket], None]) -> Script:
    return lambda request: done if request.number == number else None


@pytest.mark.parametrize(
    "fault",
    [
        reply("busy", "503 Service Unavailable", Retry_After="1"),
        reply("slow down", "429 Too Many Requests"),
        predictions([[1, 2, 3]] * BATCH)[:-5],
        reset,
        reply("oops", "500 Internal Server Error"),
    ],
)
def test_a_fault_that_passes_changes_no_row(tmp_path: Path, server: ScriptedJson, fault: Any) -> None:
    write_tar(tmp_path / "in/a.tar", samples(COUNT))
    server.script = once(3, fault)
    summary, _ = run(over_json(tmp_path, server))
    assert summary.exit_code == 0, summary.unanswered
    assert said(tmp_path) == expected()


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        (reply("busy", "503 Service Unavailable"), 75, "in up to 2 attempts came status 503: busy"),
        (reset, 75, "in up to 2 attempts came no whole reply"),
        (reply("<html>", Content_Type="text/html"), 2, "expected a reply in JSON, found <html>"),
        (reply(json.dumps({"outputs": []})), 2, "expected a list of answers at classifier.result 'predictions'"),
        (predictions([]), 2, r"expected \d answers .*, one an image, found 0"),
        (reply('{"error": "no such key"}', "401 Unauthorized"), 2, "refuses POST: status 401: no such key"),
    ],
)
def test_a_fault_that_stays_leaves_the_shard_committed_and_named(
    tmp_path: Path, server: ScriptedJson, fault: Any, code: int, message: str
) -> None:
    write_tar(tmp_path / "in/a.tar", samples(COUNT))
    server.script = from_request(2, fault)
    summary, _ = run(over_json(tmp_path, server, concurrency=1))
    assert summary.exit_code == code
    assert summary.committed == ["a.tar"]
    (why,) = summary.unanswered.values()
    assert why.startswith(f"classifier at {server.url}/score (json-http): ")
    assert re.search(message, why), why
    server.script = None
    again, _ = run(over_json(tmp_path, server, concurrency=1))
    assert again.exit_code == 0
    assert again.parts == {}
    assert said(tmp_path) == expected()


def test_a_picture_that_the_endpoint_breaks_down_at_costs_its_own_row(tmp_path: Path, server: ScriptedJson) -> None:
    write_tar(tmp_path / "in/a.tar", samples(COUNT))
    bad = picture(5).astype(np.float32).transpose(2, 0, 1) / 255

    def script(request: Request) -> bytes | None:
        broken = any(np.array_equal(image, bad) for image in request.images)
        return reply("division by zero", "500 Internal Server Error") if broken else None

    server.script = script
    summary, _ = run(over_json(tmp_path, server))
    assert summary.exit_code == 0
    assert [row["status"] for row in rows(tmp_path)] == ["ok"] * 5 + ["unanswered"] + ["ok"] * 2
    assert "division by zero" in rows(tmp_path)[5]["error"]


# --- the cap ---------------------------------------------------------------------------------------------


def asked_by(server: ScriptedServer) -> int:
    return sum(len(request.images) for request in server.requests)


@pytest.mark.parametrize(("cap", "chunk"), [(10, 2), (16, 2048), (4, 2048), (2, 2)])
def test_a_run_asks_about_no_more_than_max_queries_and_reruns_go_on(
    tmp_path: Path, server: ScriptedJson, cap: int, chunk: int
) -> None:
    for shard in range(2):
        write_tar(tmp_path / f"in/{shard}.tar", samples(COUNT, 10 * shard))
    config = over_json(tmp_path, server, max_queries=cap, chunk=chunk)
    codes = []
    total = 4 * COUNT
    while not codes or codes[-1] != 0:
        server.forget()
        summary, _ = run(config)
        codes.append(summary.exit_code)
        assert 0 < asked_by(server) <= cap
        total -= asked_by(server)
        if summary.exit_code:
            why = next(iter(summary.unanswered.values()))
            assert f"max_queries {cap}: " in why
            assert why.endswith("Run again to go on.")
        assert len(summary.committed) == (2 if len(codes) == 1 else 0)
    assert set(codes[:-1]) == {75}
    assert total == 0  # nothing was asked about twice
    assert said_of(tmp_path, "0.tar") == expected()


def said_of(folder: Path, shard: str) -> list[tuple[int, int]]:
    return [(row["prediction_before"], row["prediction_after"]) for row in rows(folder, shard)]


def test_retries_count_against_the_cap(tmp_path: Path, server: ScriptedJson) -> None:
    write_tar(tmp_path / "in/a.tar", samples(COUNT))
    server.script = lambda request: reply("busy", "503 Service Unavailable") if request.number % 2 else None
    summary, _ = run(over_json(tmp_path, server, max_queries=12, attempts=4))
    assert summary.exit_code == 75
    assert asked_by(server) <= 12


def test_a_cap_that_is_never_reached_changes_nothing(tmp_path: Path, server: ScriptedJson) -> None:
    write_tar(tmp_path / "in/a.tar", samples(COUNT))
    summary, _ = run(over_json(tmp_path, server, max_queries=2 * COUNT))
    assert summary.exit_code == 0
    assert asked_by(server) == 2 * COUNT


def test_the_cap_holds_for_a_query_as_well(tmp_path: Path, server: ScriptedJson) -> None:
    write_tar(tmp_path / "in/a.tar", samples(COUNT))
    run(job(tmp_path))
    config = over_json(tmp_path, server, max_queries=10)
    assert query(config).exit_code == 75
    assert asked_by(server) <= 10
    assert query(config).exit_code == 0
    assert asked_by(server) == 2 * COUNT
