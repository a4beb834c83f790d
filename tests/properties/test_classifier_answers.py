"""Whatever bytes a server sends: a classifier's error, or a row for each sample that is answered or says why not."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import httpcore
import httpx
import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline import tables
from pipeline.answers import Asking, ask_about
from pipeline.classifier_config import ClassifierConfig
from pipeline.classifiers import build
from pipeline.classifiers.gate import Gate
from pipeline.classifiers.tensors import DTYPES
from pipeline.config import AskConfig
from pipeline.errors import ClassifierError
from pipeline.pairs import Pair

CONFIG = ClassifierConfig(
    protocol="open-inference-v2", url="http://127.0.0.1:1", model="signs", attempts=1, batch=2, token="s3cret"
)
NAMED = CONFIG.model_copy(update={"labels": ("stop", "yield", "7", "crane", "crane")})
METADATA = {
    "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 3, 2, 2]}],
    "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 2]}],
}


class Wire(httpcore.AsyncNetworkBackend, httpcore.AsyncNetworkStream):
    """A network whose other end says `metadata` to each GET and `answer` to each POST, then hangs up."""

    def __init__(self, metadata: bytes, answer: bytes) -> None:
        self.said = {b"GET": metadata, b"POS": answer}
        self.waiting = b""

    async def connect_tcp(self, *_: Any, **__: Any) -> Wire:
        return Wire(*self.said.values())

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.waiting += self.said.get(buffer[:3], b"")

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        found, self.waiting = self.waiting[:max_bytes], self.waiting[max_bytes:]
        return found

    async def aclose(self) -> None:
        self.waiting = b""

    def get_extra_info(self, info: str) -> Any:
        return None


def client_of(wire: Wire) -> Callable[..., httpx.AsyncClient]:
    transport = httpx.AsyncHTTPTransport()
    transport._pool = httpcore.AsyncConnectionPool(network_backend=wire)
    made = httpx.AsyncClient
    return lambda headers, cookies, **_: made(headers=headers, cookies=cookies, transport=transport)


def whole(body: bytes, head: bytes = b"HTTP/1.1 200 OK\r\n") -> bytes:
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def pair(index: int) -> Pair:
    pixels = np.full((2, 2, 3), index, np.uint8)
    facts = {"key": str(index), "shard": "a.tar", "index": index, "label": None, "status": "ok", "error": None}
    return Pair(facts, pixels, pixels + 9)


async def ask(config: ClassifierConfig) -> list[dict[str, Any]] | None:
    try:
        async with build(config) as classifier:
            return await ask_about([pair(i) for i in range(3)], Asking(classifier, config, Gate()), AskConfig())
    except ClassifierError as error:
        line = str(error)
        assert "\n" not in line
        assert "s3cret" not in line
        assert len(line) < 2000
        return None


def check(metadata: bytes, answer: bytes, config: ClassifierConfig = CONFIG) -> list[dict[str, Any]] | None:
    with mock.patch.object(httpx, "AsyncClient", client_of(Wire(metadata, answer))):
        rows = asyncio.run(ask(config))
    if rows is not None:
        assert [row["index"] for row in rows] == [0, 1, 2]
        for row in rows:
            is_answered = row["prediction_before"] is not None and row["prediction_after"] is not None
            assert (row["status"], bool(row["error"])) == (("ok", False) if is_answered else ("unanswered", True))
        tables.to_ipc(rows, tables.PREDICTIONS, {})  # they can be written down
    return rows


# --- what a server may say -----------------------------------------------------------------------------

WORDS = st.text(max_size=12)
NUMBERS = st.integers(-(2**70), 2**70) | st.floats() | st.integers(-3, 9)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS, lambda below: st.lists(below, max_size=4), max_leaves=8
)
SIDES = st.sampled_from([0, 1, 2, 2, 3, 6, 2**31, 10**30, -1])
TENSOR = st.fixed_dictionaries(
    {"name": st.just("scores") | JSON, "datatype": st.sampled_from([*DTYPES, "BF16"]) | JSON},
    optional={
        "shape": st.lists(SIDES, max_size=5) | st.just([2, 2]) | JSON,
        "data": st.lists(NUMBERS | WORDS, max_size=6) | st.lists(st.lists(NUMBERS, max_size=3), max_size=3) | JSON,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 80) | JSON}) | JSON,
    },
)
OUTPUTS = st.fixed_dictionaries({"outputs": st.lists(TENSOR, max_size=2) | JSON})
BODIES = st.binary(max_size=80) | st.builds(
    lambda fields, blob: json.dumps(fields).encode() + blob, OUTPUTS | JSON, st.just(b"") | st.binary(max_size=64)
)
PACKED = st.sampled_from([bytes, gzip.compress, zlib.compress, lambda body: gzip.compress(body)[:-3]])
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "Content-Length": st.integers(-1, 99).map(str),
        "Content-Encoding": st.sampled_from(["gzip", "deflate", "br", "identity", "gzip, gzip", "x"]),
        "Transfer-Encoding": st.just("chunked"),
        "Inference-Header-Content-Length": st.integers(-1, 99).map(str) | st.just("9" * 5000) | WORDS,
        "Retry-After": st.integers().map(str) | st.text("Mon, 01Jan:-+GMT9", max_size=30) | WORDS,
        "Set-Cookie": WORDS,
        "Location": WORDS,
    },
)


def http(status: int, headers: dict[str, str], body: bytes) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} So\r\n{lines}\r\n".encode("utf-8", "surrogatepass") + body


REPLIES = (
    st.binary(max_size=200)
    | st.builds(whole, BODIES)
    | st.builds(
        whole,
        st.builds(lambda pack, body: pack(body), PACKED, BODIES),
        st.just(b"HTTP/1.1 200 So\r\nContent-Encoding: gzip\r\n"),
    )
    | st.builds(http, st.sampled_from([100, 101, 200, 200, 200, 204, 302, 400, 429, 500, 503, 999]), HEADERS, BODIES)
)
GOOD = whole(json.dumps(METADATA).encode())


def answer(**tensor: Any) -> bytes:
    return whole(json.dumps({"outputs": [{"name": "scores", "datatype": "FP32", **tensor}]}).encode())


def test_a_good_answer_is_understood_over_this_wire() -> None:
    rows = check(GOOD, answer(shape=[2, 2], data=[0.1, 0.9, 0.8, 0.2]))
    assert rows is not None
    assert [row["prediction_before"] for row in rows] == [1, 0, 1]


@settings(deadline=None, max_examples=100)
@given(REPLIES)
@example(answer(shape=[2, 2], data=[1e300, 0, 10**400, 1]))
@example(answer(shape=[2, 2], data=["x" * 1000, "", "", ""]))
@example(answer(shape=[1] * 70, data=[1]))
@example(answer(shape=[0, 10**30], data=[]))
@example(answer(shape=[2, 2], datatype="FP64", data=[1e300, -1e300, 0, 1]))
@example(whole(b'{"outputs": ' + b"[" * 5000 + b"}"))
def test_no_answer_raises_anything_but_a_classifiers_error(reply: bytes) -> None:
    check(GOOD, reply)


@settings(deadline=None, max_examples=60)
@given(
    REPLIES
    | st.builds(
        lambda *described: whole(json.dumps(dict(zip(("inputs", "outputs"), described, strict=True))).encode()),
        st.lists(TENSOR, max_size=2) | JSON,
        st.lists(TENSOR, max_size=2) | JSON,
    )
)
@example(whole(json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3, 10**9, 10**9]}]}).encode()))
@example(whole(json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [10**30, 3, 2, 2]}]}).encode()))
@example(whole(json.dumps({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [10**9]}]}).encode()))
def test_no_description_of_a_model_raises_anything_but_a_classifiers_error(reply: bytes) -> None:
    check(reply, answer(shape=[2, 2], data=[0.1, 0.9, 0.8, 0.2]))


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.sampled_from(["stop", "yield", "7", "crane", "3", "99", "0.9:1:yield", "s3cret"]) | WORDS, max_size=3)
)
def test_every_text_is_a_class_of_the_labels_or_its_images_error(texts: list[str]) -> None:
    rows = check(GOOD, answer(datatype="BYTES", shape=[len(texts)], data=texts), NAMED)
    for row in rows or ():
        assert {row["prediction_before"], row["prediction_after"]} <= {None, 0, 1, 2, 3}  # 3 as a number: no name
        assert "s3cret" not in (row["error"] or "")


@settings(deadline=None, max_examples=30)
@given(
    st.fixed_dictionaries({"labels": JSON | st.lists(WORDS, max_size=4) | WORDS | st.just({"string_value": "a,b"})})
    | JSON
)
def test_whatever_a_server_names_its_classes_scores_are_answers(parameters: Any) -> None:
    described = {**METADATA, "parameters": parameters}
    rows = check(whole(json.dumps(described).encode()), answer(shape=[2, 2], data=[0.1, 0.9, 0.8, 0.2]))
    labels = parameters.get("labels") if isinstance(parameters, dict) else None
    assert rows is not None or labels
