"""A classifier that fails in any way: what the predictions hold, what the run says, and that a rerun only asks."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import stamina
from inprocess import InProcess, run
from making import encoded, job, samples, tree, write_tar
from scripted_server import METADATA, Request, Script, ScriptedServer, means, reply, reset, scores

from pipeline import job as main_path
from pipeline.ask import Breaker
from pipeline.config import JobConfig
from pipeline.facts import Summary

COUNT, CHUNK, BATCH = 8, 2, 2
CLASSIFIER = {
    "classifier__protocol": "open-inference-v2",
    "classifier__model": "colour",
    "classifier__name": "box",
    "classifier__batch": BATCH,
    "classifier__concurrency": 1,
    "classifier__attempts": 2,
    "classifier__timeout_s": 20,
    "ask__chunk": CHUNK,
}


@pytest.fixture(autouse=True)
def _retries_without_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


def asking(folder: Path, server: ScriptedServer, **more: Any) -> JobConfig:
    return job(folder, **{**CLASSIFIER, "classifier__url": server.url, **more})


def rows(folder: Path, shard: str = "a.tar") -> list[dict[str, Any]]:
    return pq.read_table(folder / f"out/predictions/box/{shard}.parquet").to_pylist()


def from_request(number: int, fault: Any) -> Script:
    """All requests about pictures from one on meet a fault."""
    return lambda request: fault(request) if callable(fault) and request.number >= number else None


def always(data: bytes | Callable[[socket.socket], None]) -> Script:
    return lambda request: data if request.number >= 0 else None


# --- the faults ----------------------------------------------------------------------------------------


def cut_short(connection: socket.socket) -> None:
    connection.sendall(scores([[1, 2, 3]] * BATCH)[:-5])


def reset_in_the_answer(connection: socket.socket) -> None:
    connection.sendall(scores([[1, 2, 3]] * BATCH)[:40])
    reset(connection)


def never_ending(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
    for _ in range(16384):
        connection.sendall(bytes(65536))


def silent(connection: socket.socket) -> None:
    connection.recv(1)  # until the client hangs up


def well(rows: Any = ((1, 2, 3),) * BATCH, **more: Any) -> bytes:
    return scores(rows, **more)


IN_JSON = json.dumps({"outputs": [{"name": "scores", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}]})
LATER = formatdate(time.time() + 3600, usegmt=True)

AWAY = {
    "reset as it connects": (reset, r"no whole reply"),
    "reset in the answer": (reset_in_the_answer, r"no whole reply"),
    "body cut short": (cut_short, r"no whole reply: peer closed connection"),
    "a Content-Length that promises more": (
        reply(b"{}", Content_Length="50").replace(b"Content-Length: 2\r\n", b""),
        r"no whole reply",
    ),
    "no HTTP at all": (b"\x00\x01 what?\r\n\r\n", r"a reply that is no HTTP/1\.1"),
    "silence beyond the deadline": (silent, r"nothing within 2 s"),
    "429 with seconds": (reply("slow down", "429 Too Many", Retry_After="0"), r"status 429: slow down"),
    "429 for an hour, as a date": (reply("slow down", "429 Too Many", Retry_After=LATER), r"status 429: slow down"),
    "500": (reply('{"error": "CUDA error"}', "500 Oops"), r"status 500: CUDA error"),
    "502": (reply("<html>Bad gateway</html>", "502 Bad Gateway"), r"status 502: <html>Bad gateway"),
    "503": (reply("", "503 Unavailable"), r"status 503: no word"),
    "503 for an hour": (reply("", "503 Unavailable", Retry_After="3600"), r"status 503: no word"),
    "504": (reply("", "504 Timeout"), r"status 504: no word"),
}

REFUSES = {
    "HTML instead of JSON": (
        reply("<html>Sign in</html>", Content_Type="text/html"),
        r"can't be read: expected a JSON",
    ),
    "invalid JSON": (reply('{"outputs": [{"name"'), r"can't be read: expected a JSON object"),
    "a Content-Length that promises less": (
        reply(IN_JSON, Content_Length="30").replace(f"Content-Length: {len(IN_JSON)}\r\n".encode(), b""),
        r"can't be read",
    ),
    "too few answers": (well([[1, 2, 3]] * 3), r"expected [12] answers for [12] images, found shape \[3, 3\]"),
    "no answers": (well(np.zeros((0, 3))), r"expected [12] answers"),
    "a shape that is not its data's": (well([[1, 2, 3]] * 2, shape=[2, 7]), r"of shape \[2, 7\]: expected 56 bytes"),
    "more dimensions than arrays have": (well([[1.0]], shape=[1] * 70), r"expected a shape of whole numbers"),
    "a datatype that is not its data's": (
        well([[1, 2, 3]] * 2).replace(b'"FP32"', b'"FP64"'),
        r"expected 48 bytes, found 24",
    ),
    "a datatype that nobody knows": (well().replace(b'"FP32"', b'"BF16"'), r"expected a datatype of BOOL, UINT8"),
    "one score an image": (always, r"expected scores \[n, k\] of k >= 2 classes"),
    "NaN for each": (always, r"colour: the scores have no finite largest one"),
    "infinite scores": (always, r"colour: the scores have no finite largest one"),
    "a redirect": (reply("", "307 Elsewhere", Location="http://127.0.0.1:1/"), r"status 307: no word"),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", r"status 204: no word"),
    "400": (reply('{"error": "wrong shape"}', "400 Bad"), r"status 400: wrong shape"),
    "401": (reply("s3cret is wrong", "401 No"), r"status 401: \*\*\* is wrong\. Correct classifier\.token"),
    "403": (reply("", "403 No"), r"status 403: no word\. Correct classifier\.token"),
    "404": (reply('{"error": "no such model"}', "404 No"), r"404: no such model\. Correct classifier\.url, model"),
    "413": (reply("", "413 Large"), r"status 413: no word\. Lower classifier\.batch"),
    "a gigabyte": (never_ending, r"expected a reply of at most 1048576 bytes, found more"),
    "a gzip bomb": (
        reply(gzip.compress(bytes(1 << 24)), Content_Encoding="gzip"),
        r"expected a reply of at most 1048576 bytes, found more",
    ),
    "gzip cut short": (reply(gzip.compress(bytes(999))[:-9], Content_Encoding="gzip"), r"packed reply can't be read"),
    "packed by nobody knows what": (reply("x", Content_Encoding="gzip, br"), r"found Content-Encoding gzip, br"),
}
SHAPED: dict[str, Callable[[int], bytes]] = {
    "one score an image": lambda n: well([[0.5]] * n),
    "NaN for each": lambda n: well([[np.nan, 1, 2]] * n),
    "infinite scores": lambda n: well([[np.inf, 1, 2]] * n),
}


def script_of(kind: str, fault: Any) -> Script:
    if kind in SHAPED:
        return lambda request: SHAPED[kind](len(request.images)) if request.number >= 0 else None
    return always(fault)


CASES = [(kind, fault, said, 75, 3) for kind, (fault, said) in AWAY.items()]
CASES += [(kind, fault, said, 2, 3) for kind, (fault, said) in REFUSES.items()]
CASES += [(kind, *AWAY[kind], 75, 0) for kind in ("reset in the answer", "500", "503")]
CASES += [(kind, *REFUSES[kind], 2, 0) for kind in ("HTML instead of JSON", "NaN for each", "404", "a gigabyte")]


@pytest.fixture(scope="module")
def purified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard, purified: `out` was asked about undisturbed, `open` was not."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_tar(folder / "in/a.tar", samples(COUNT))
    assert run(job(folder))[0].exit_code == 0
    shutil.copytree(folder / "out", folder / "open")
    with ScriptedServer() as server:
        assert run(asking(folder, server))[0].exit_code == 0
        assert server.pictures.total() == 2 * COUNT
    return folder


@pytest.fixture
def open_job(tmp_path: Path, purified: Path) -> Callable[..., JobConfig]:
    """The job of a shard that is purified and not asked about."""
    shutil.copytree(purified / "open", tmp_path / "out")
    return lambda *arguments, **more: asking(tmp_path, *arguments, input=str(purified / "in"), **more)


@pytest.mark.parametrize(
    ("kind", "fault", "said", "code", "first"), CASES, ids=[f"{case[3]}: {case[0]} at {case[4]}" for case in CASES]
)
def test_a_fault_that_stays_leaves_the_shard_open_and_the_rerun_asks_only_what_is_missing(
    tmp_path: Path,
    server: ScriptedServer,
    purified: Path,
    open_job: Callable[..., JobConfig],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    fault: Any,
    said: str,
    code: int,
    first: int,
) -> None:
    monkeypatch.setattr("pipeline.classifiers.http.MAX_REPLY_BYTES", 1 << 20)
    patience = {"classifier__timeout_s": 2, "classifier__attempts": 1} if fault is silent else {}
    config = open_job(server, classifier__token="s3cret", **patience)
    server.script = from_request(first, script_of(kind, fault))
    summary, _ = run(config)

    assert summary.exit_code == code
    line = summary.unanswered["a.tar"]
    assert re.search(said, line), line
    assert "\n" not in line
    assert "s3cret" not in line
    assert len(line) < 700
    assert tree(tmp_path / "out", "predictions") == {}
    staged = tree(tmp_path / "out", "_staging")
    assert len(staged) == (1 if first else 0)  # a chunk of two samples takes two requests
    assert server.num_asked <= 60

    server.script = None
    server.forget()
    rerun, engine = run(config)
    assert rerun.exit_code == 0
    assert engine is not None
    assert engine.purified.total() == 0
    assert server.pictures.total() == 2 * (COUNT - CHUNK * len(staged))
    assert max(server.pictures.values()) == 1
    assert rows(tmp_path) == rows(purified)
    assert tree(tmp_path / "out", "_staging") == {}


@pytest.mark.parametrize("kind", ["reset in the answer", "no HTTP at all", "429 with seconds", "500"])
def test_a_fault_that_passes_is_asked_past(
    tmp_path: Path, server: ScriptedServer, purified: Path, open_job: Callable[..., JobConfig], kind: str
) -> None:
    fault, _ = AWAY[kind]
    server.script = lambda request: fault if request.number in (0, 3, 9) else None
    summary, _ = run(open_job(server))
    assert summary.exit_code == 0
    assert rows(tmp_path) == rows(purified)
    assert server.num_asked == 2 * COUNT // BATCH + 3


def test_a_server_that_packs_its_answers_unasked_is_understood(
    tmp_path: Path, server: ScriptedServer, purified: Path, open_job: Callable[..., JobConfig]
) -> None:
    def packed(request: Request) -> bytes | None:
        if request.number < 0:
            return reply(gzip.compress(json.dumps(METADATA).encode()), Content_Encoding="GZIP")
        data = scores(means(request.images))
        head, _, body = data.partition(b"\r\n\r\n")
        length = head.rpartition(b"Inference-Header-Content-Length: ")[2].decode()
        return reply(gzip.compress(body), Content_Encoding="gzip", Inference_Header_Content_Length=length)

    server.script = packed
    assert run(open_job(server))[0].exit_code == 0
    assert rows(tmp_path) == rows(purified)


def test_of_a_gigabyte_no_more_than_the_bound_is_read(
    server: ScriptedServer, open_job: Callable[..., JobConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.classifiers.http.MAX_REPLY_BYTES", 1 << 20)
    sent: list[int] = []

    def endless(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
        sent.append(0)
        for _ in range(16384):
            sent[-1] += connection.send(bytes(65536))

    server.script = always(endless)
    assert run(open_job(server))[0].exit_code == 2
    assert 0 < max(sent) < 16 << 20


# --- what is only partly wrong -------------------------------------------------------------------------


def with_a_bad_one(folder: Path, *bad: int, count: int = COUNT) -> None:
    groups = samples(count)
    for i in bad:
        groups[i] = [(f"{i:06d}.png", encoded(np.full((32, 32, 3), 7, np.uint8)))]
    write_tar(folder / "in/a.tar", groups)


def holds_a_seven(request: Request) -> bool:
    return bool(np.isclose(request.images, 7 / 255).all(axis=(1, 2, 3)).any()) if len(request.images) else False


@pytest.mark.parametrize(
    ("kind", "fault", "bad"),
    [
        ("400", reply('{"error": "no face in it"}', "400 Bad"), 0),
        ("400", reply('{"error": "no face in it"}', "400 Bad"), 63),
        ("500", reply('{"error": "list index out of range"}', "500 Oops"), 20),
        ("it dies of it", reset, 0),
        ("another number of scores", well([[1, 2]]), 20),
        ("an answer that is none", reply("<html>"), 63),
    ],
    ids=["400, first", "400, last", "500", "it dies of it", "another number of scores", "no answer"],
)
def test_one_bad_image_costs_its_own_row_and_few_requests(
    tmp_path: Path, server: ScriptedServer, kind: str, fault: Any, bad: int
) -> None:
    with_a_bad_one(tmp_path, bad, count=64)
    server.script = lambda request: fault if holds_a_seven(request) else None
    fields = {"classifier__batch": 64, "ask__chunk": 64, "classifier__attempts": 1}
    summary, _ = run(asking(tmp_path, server, **fields))
    assert summary.exit_code == 0, summary.unanswered
    assert summary.answers == {"ok": 63, "unanswered": 1}
    found = rows(tmp_path)
    assert [i for i, row in enumerate(found) if row["status"] == "unanswered"] == [bad]
    assert found[bad]["error"]
    assert found[bad]["prediction_before"] is None
    assert found[bad]["prediction_after"] is not None  # its negative is a picture like any other
    # two batches; one of them is halved six times, with a control before and after
    assert server.num_asked <= 2 + 2 * 6 + 2 + (kind == "another number of scores")


def test_many_bad_images_cost_no_more_than_two_requests_each(tmp_path: Path, server: ScriptedServer) -> None:
    with_a_bad_one(tmp_path, *range(8, 24), count=32)
    server.script = lambda request: reply("", "422 Unfit") if holds_a_seven(request) else None
    summary, _ = run(asking(tmp_path, server, classifier__batch=16, ask__chunk=32))
    assert summary.answers == {"ok": 16, "unanswered": 16}
    assert server.num_asked <= 4 + 2 * 2 * 16


def test_a_shard_of_nothing_but_a_bad_image_is_answered_for(tmp_path: Path, server: ScriptedServer) -> None:
    with_a_bad_one(tmp_path, 0, count=1)
    write_tar(tmp_path / "in/b.tar", samples(2))
    server.script = lambda request: reply("", "422 Unfit") if holds_a_seven(request) else None
    summary, _ = run(asking(tmp_path, server))
    assert (summary.exit_code, summary.answers) == (0, {"ok": 2, "unanswered": 1})


def test_scores_that_are_none_cost_their_own_rows(tmp_path: Path, server: ScriptedServer) -> None:
    with_a_bad_one(tmp_path, 2, 5)

    def some_nan(request: Request) -> bytes | None:
        if request.number < 0:
            return None
        found = means(request.images)
        found[np.isclose(request.images, 7 / 255).all(axis=(1, 2, 3))] = [[np.nan, 0, np.inf]]
        return scores(found)

    server.script = some_nan
    summary, _ = run(asking(tmp_path, server))
    assert (summary.exit_code, summary.answers) == (0, {"ok": 6, "unanswered": 2})
    assert rows(tmp_path)[5]["error"] == "the scores have no finite largest one"


def test_a_batch_that_is_too_large_is_halved_for_good(tmp_path: Path, server: ScriptedServer) -> None:
    write_tar(tmp_path / "in/a.tar", samples(64))
    server.script = lambda request: reply("", "413 Large") if len(request.images) > 8 else None
    summary, _ = run(asking(tmp_path, server, classifier__batch=64, ask__chunk=32))
    assert (summary.exit_code, summary.answers) == (0, {"ok": 64})
    assert server.num_asked <= 128 // 8 + 20


def test_another_model_in_the_middle_is_found_by_its_number_of_classes(tmp_path: Path, server: ScriptedServer) -> None:
    write_tar(tmp_path / "in/a.tar", samples(COUNT))
    four = lambda request: scores(np.zeros((len(request.images), 4)))  # noqa: E731
    server.script = lambda request: four(request) if request.number >= 2 else None
    summary, _ = run(asking(tmp_path, server))
    assert summary.exit_code == 2
    assert "expected 3 scores an image, as in its first answer, found 4" in summary.unanswered["a.tar"]


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ([-1, 3, 10**9, 10**9], "expected images of at most 4096 px a side"),
        ([10**9, 3, 32, 32], "batches of at most"),
        ([10**30, 3, 32, 32], "batches of at most"),
        ([-1, 3, 32], "expected 4 dimensions"),
    ],
)
def test_a_model_that_asks_for_more_than_memory_holds_is_refused(
    tmp_path: Path, server: ScriptedServer, metadata: list[int], said: str
) -> None:
    write_tar(tmp_path / "in/a.tar", samples(1))
    described = json.dumps({"inputs": [{"name": "image", "datatype": "FP32", "shape": metadata}]})
    server.script = lambda request: reply(described) if request.number < 0 else None
    with pytest.raises(Exception, match=said) as caught:
        run(asking(tmp_path, server))
    assert getattr(caught.value, "exit_code", None) == 2


# --- away, and back ------------------------------------------------------------------------------------


def many_shards(folder: Path, count: int) -> list[str]:
    names = [f"{i:02d}.tar" for i in range(count)]
    for i, name in enumerate(names):
        write_tar(folder / "in" / name, samples(2, 100 * i))
    return names


def asked_anyway(folder: Path, server: ScriptedServer, names: list[str], missing: int) -> None:
    """A rerun asks about the missing shards, each picture once, and purifies nothing."""
    server.script = None
    server.forget()
    rerun, engine = run(asking(folder, server))
    assert rerun.exit_code == 0
    assert engine is not None
    assert engine.purified.total() == 0
    assert server.pictures.total() == missing * 4
    assert [len(rows(folder, name)) for name in names] == [2] * len(names)


def test_a_classifier_that_is_down_from_the_start_costs_three_tries_and_no_purified_shard(tmp_path: Path) -> None:
    names = many_shards(tmp_path, 8)
    with socket.create_server(("127.0.0.1", 0)) as free:
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
    told: list[Any] = []
    config = job(tmp_path, **{**CLASSIFIER, "classifier__url": nowhere})
    summary = main_path.purify(config, told.append, InProcess, run="test")
    assert summary.exit_code == 75
    assert sorted(summary.committed) == names
    assert sorted(summary.unanswered) == names
    assert any("The images are purified all the same" in getattr(fact, "message", "") for fact in told)
    assert all("no connection" in line for line in summary.unanswered.values())
    with ScriptedServer() as server:
        asked_anyway(tmp_path, server, names, 8)


def test_when_the_classifier_is_back_asking_goes_on_within_the_run(
    tmp_path: Path, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Breaker, "PAUSE_S", 0.0)
    names = many_shards(tmp_path, 10)
    down = range(4, 16)  # requests; two attempts for each shard that is tried
    server.script = lambda request: reset if request.number in down else None
    summary, _ = run(asking(tmp_path, server))
    assert summary.exit_code == 75
    assert 0 < len(summary.unanswered) < 8
    assert "09.tar" in summary.asked
    asked_anyway(tmp_path, server, names, len(summary.unanswered))


def test_a_dead_classifier_is_tried_by_three_shards_and_then_now_and_then(
    tmp_path: Path, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = many_shards(tmp_path, 12)
    server.script = always(reply("", "503 Unavailable"))
    summary, _ = run(asking(tmp_path, server))
    assert sorted(summary.unanswered) == names
    assert server.num_asked == 3 * 2  # two attempts each
    clock = [0.0]
    monkeypatch.setattr("pipeline.ask.time", type("Clock", (), {"monotonic": staticmethod(lambda: clock[0])}))
    breaker = Breaker()
    let_through = []
    for second in range(100):
        clock[0] = float(second)
        let_through.append(breaker.lets_through())
        if let_through[-1]:
            breaker.failed()
    assert [i for i, through in enumerate(let_through) if through] == [0, 1, 2, 32, 62, 92]


def test_connections_that_are_refused_are_tried_again(
    tmp_path: Path, server: ScriptedServer, purified: Path, open_job: Callable[..., JobConfig]
) -> None:
    server.refused = 3
    summary, _ = run(open_job(server, classifier__attempts=4))
    assert summary.exit_code == 0
    assert rows(tmp_path) == rows(purified)


def test_a_server_that_wants_a_pause_gets_it_and_one_that_wants_too_long_is_away() -> None:
    from pipeline.classifiers.patience import TryAgain, _pause, retry_after_s

    assert _pause(TryAgain("busy", 7.0)) == 7.0
    assert _pause(TryAgain("busy", 121.0)) is False
    assert _pause(TryAgain("busy")) is True
    for nonsense in ("-1", "1e3", "0 ", "٣", "Mon, 01 Jan 0001 00:00:00 -0000", "9" * 4000, "Mon, 99 Foo"):
        waited = retry_after_s(nonsense)
        assert waited is None or waited >= 0


# --- what is behind a name -----------------------------------------------------------------------------


def constant_network(path: Path, answer: int) -> None:
    """An ONNX file whose answer is always the same class of three."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = np.zeros((3, 3), np.float32)
    bias = np.eye(3, dtype=np.float32)[answer]
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "constant",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 32, 32])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def local(folder: Path, name: str | None, **more: Any) -> JobConfig:
    fields = {"classifier__protocol": "onnx", "classifier__path": str(folder / "net.onnx"), "classifier__name": name}
    return job(folder, **fields, **more)


@pytest.mark.parametrize("name", [None, "box"])
def test_another_file_under_the_same_path_is_asked_anew_and_the_same_file_elsewhere_is_not(
    tmp_path: Path, name: str | None
) -> None:
    write_tar(tmp_path / "in/a.tar", samples(3))
    constant_network(tmp_path / "net.onnx", 0)
    assert run(local(tmp_path, name))[0].asked == ["a.tar"]
    assert run(local(tmp_path, name))[1] is None

    constant_network(tmp_path / "net.onnx", 2)
    told: list[Any] = []
    rerun = main_path.purify(local(tmp_path, name), told.append, InProcess, run="test")
    assert rerun.asked == ["a.tar"]
    folders = sorted((tmp_path / "out/predictions").iterdir())
    newest = max(folders, key=lambda folder: (folder / "a.tar.parquet").stat().st_mtime_ns)
    answers = [row["prediction_after"] for row in pq.read_table(newest / "a.tar.parquet").to_pylist()]
    assert answers == [2] * 3
    assert len(folders) == (1 if name else 2)
    withdrawn = [fact.message for fact in told if "withdrawn" in getattr(fact, "message", "")]
    assert len(withdrawn) == (1 if name else 0)

    (tmp_path / "net.onnx").rename(tmp_path / "moved.onnx")
    moved = local(tmp_path, name).model_copy(
        update={"classifier": local(tmp_path, name).classifier.model_copy(update={"path": f"{tmp_path}/moved.onnx"})}  # type: ignore[union-attr]
    )
    assert run(moved)[1] is None or name is None  # without a name its folder carries the file's title


def test_what_a_crash_left_after_the_predictions_record_is_dropped_by_the_next_run(
    tmp_path: Path, server: ScriptedServer
) -> None:
    write_tar(tmp_path / "in/a.tar", samples(2))
    write_tar(tmp_path / "in/b.tar", samples(2, 50))
    one_by_one = {"ask__chunk": 1, "classifier__batch": 1}
    server.script = lambda request: reset if request.number >= 2 else None
    assert run(asking(tmp_path, server, **one_by_one))[0].exit_code == 75
    waiting = tree(tmp_path / "out", "_staging")
    assert [path.rsplit("/", 2)[0] for path in waiting] == ["_staging/a.tar/ask/box"]
    server.script = None
    assert run(asking(tmp_path, server, limit=1, **one_by_one))[0].asked == ["a.tar"]
    for path, data in waiting.items():  # as if that run had ended right after its record
        (tmp_path / "out" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / path).write_bytes(data)
    summary = main_path.query(asking(tmp_path, server), lambda fact: None, InProcess, run="test")
    assert summary.asked == ["b.tar"]
    assert tree(tmp_path / "out", "_staging") == {}


def test_a_query_decodes_under_the_limits_that_the_output_was_made_with(tmp_path: Path, server: ScriptedServer) -> None:
    write_tar(tmp_path / "in/a.tar", samples(3, 0, 40, 40))
    run(job(tmp_path, limits__max_pixels=10_000))
    summary = main_path.query(asking(tmp_path, server, limits__max_pixels=100), lambda fact: None, InProcess, run="t")
    assert summary.answers == {"ok": 3}


def test_two_shards_that_begin_together_share_one_client(tmp_path: Path, server: ScriptedServer) -> None:
    names = many_shards(tmp_path, 3)
    summary: Summary = run(asking(tmp_path, server))[0]
    assert sorted(summary.asked) == names
    assert sum(request.number < 0 for request in server.requests) == 2  # the check before all work, and the asker
    assert threading.active_count() < 50
