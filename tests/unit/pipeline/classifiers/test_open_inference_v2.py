"""The client against a scripted server: bytes as the protocol's text has them, and every way to fail."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import numpy as np
import pytest
from PIL import Image
from pytest_httpserver import HTTPServer
from scripted_server import ScriptedServer
from werkzeug import Response

from pipeline.classifier_config import ClassifierConfig
from pipeline.classifiers import build
from pipeline.classifiers.patience import retry_after_s
from pipeline.errors import ClassifierAwayError, ClassifierError, RequestFailedError

SCORES = np.array([[0.1, 0.9], [0.8, 0.2]], "<f4")
METADATA = {
    "name": "signs",
    "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 3, 2, 2]}],
    "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 2]}],
}
IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)


def json_answer(rows=((0.1, 0.9), (0.8, 0.2)), **fields):
    item = {"name": "scores", "datatype": "FP32", "shape": [len(rows), len(rows[0])], "data": rows, **fields}
    return json.dumps({"model_name": "signs", "outputs": [item]})


def binary_answer(array=SCORES, datatype="FP32"):
    blob = array.tobytes()
    item = {
        "name": "scores",
        "datatype": datatype,
        "shape": list(array.shape),
        "parameters": {"binary_data_size": len(blob)},
    }
    head = json.dumps({"outputs": [item]}).encode()
    return Response(head + blob, headers={"Inference-Header-Content-Length": str(len(head))})


@pytest.fixture
def server(httpserver):
    """A server that knows the model `signs`; what it answers to `infer` is for each test to say."""
    httpserver.expect_request("/v2/models/signs", method="GET").respond_with_json(METADATA)
    httpserver.expect_request("/v2/models/gone", method="GET").respond_with_json({"error": "no gone here"}, status=404)
    return httpserver


@pytest.fixture
def ask_it(server, ask):
    def asked(images=IMAGES, **fields):
        values = {"url": server.url_for("/").rstrip("/"), "model": "signs", **fields}
        return ask(images, protocol="open-inference-v2", **values)

    return asked


def streamed(text):
    """A reply whose body is yet to be read, as a network's is."""

    async def chunks():
        yield text.encode()

    return httpx.Response(200, content=chunks())


def answer(server, *replies):
    for reply in replies:
        request = server.expect_oneshot_request("/v2/models/signs/infer", method="POST")
        if isinstance(reply, str):
            reply = Response(reply, content_type="application/json")
        request.respond_with_response(reply)


def test_a_binary_request_is_what_the_protocol_says(server, ask_it):
    answer(server, binary_answer())
    answers = ask_it(token="s3cret")
    request = server.log[-1][0]
    length = int(request.headers["Inference-Header-Content-Length"])
    sent = json.loads(request.data[:length])
    assert len(sent.pop("id")) == 32  # KServe's server breaks down without one
    assert sent == {
        "parameters": {"binary_data_output": True},
        "inputs": [
            {"name": "image", "shape": [2, 3, 2, 2], "datatype": "FP32", "parameters": {"binary_data_size": 96}}
        ],
        "outputs": [{"name": "scores", "parameters": {"binary_data": True}}],
    }
    # channel 0 of the first image is 0, 3, 6, 9; 3/255 as a little-endian float32
    assert request.data[length : length + 8] == b"\x00\x00\x00\x00" + np.array(3 / 255, "<f4").tobytes()
    assert request.headers["Content-Type"] == "application/octet-stream"
    assert request.headers["Authorization"] == "Bearer s3cret"
    assert answers.classes.tolist() == [1, 0]
    np.testing.assert_array_equal(answers.scores, SCORES)


def test_a_json_request_is_what_the_protocol_says(server, ask_it):
    answer(server, json_answer())
    assert ask_it(binary=False).classes.tolist() == [1, 0]
    request = server.log[-1][0]
    sent = json.loads(request.data)
    data = sent["inputs"][0].pop("data")
    assert len(sent.pop("id")) == 32
    assert sent == {
        "parameters": {"binary_data_output": False},
        "inputs": [{"name": "image", "shape": [2, 3, 2, 2], "datatype": "FP32"}],
        "outputs": [{"name": "scores", "parameters": {"binary_data": False}}],
    }
    np.testing.assert_allclose(data, IMAGES.transpose(0, 3, 1, 2).ravel() / 255, rtol=1e-6)
    assert "Inference-Header-Content-Length" not in request.headers


def test_png_files_travel_with_their_length(httpserver, ask):
    metadata = {"inputs": [{"name": "file", "datatype": "BYTES", "shape": [-1]}]}
    httpserver.expect_request("/v2/models/signs/versions/3", method="GET").respond_with_json(metadata)
    httpserver.expect_request("/v2/models/signs/versions/3/infer").respond_with_data(json_answer())
    url = httpserver.url_for("/")
    fields = {"protocol": "open-inference-v2", "url": url, "model": "signs", "version": "3"}
    assert ask(IMAGES, **fields).classes.tolist() == [1, 0]
    request = httpserver.log[-1][0]
    blob = request.data[int(request.headers["Inference-Header-Content-Length"]) :]
    first_bytes = int.from_bytes(blob[:4], "little")
    assert blob[4:12] == b"\x89PNG\r\n\x1a\n"
    assert blob[4 + first_bytes + 4 :][:8] == b"\x89PNG\r\n\x1a\n"


def test_png_files_travel_in_json_as_base64_that_says_so(httpserver, ask):
    metadata = {"inputs": [{"name": "file", "datatype": "BYTES", "shape": [-1]}]}
    httpserver.expect_request("/v2/models/signs", method="GET").respond_with_json(metadata)
    httpserver.expect_request("/v2/models/signs/infer").respond_with_data(json_answer())
    url = httpserver.url_for("/")
    ask(IMAGES, protocol="open-inference-v2", url=url, model="signs", binary=False)
    (sent,) = json.loads(httpserver.log[-1][0].data)["inputs"]
    assert (sent["datatype"], sent["shape"], sent["parameters"]) == ("BYTES", [2], {"content_type": "base64"})
    for text, image in zip(sent["data"], IMAGES, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))), image)


LABELS = ["stop", "yield"]


@pytest.mark.parametrize(
    "described",
    [
        {"outputs": [{"name": "label", "datatype": "BYTES", "shape": [-1], "parameters": {"labels": LABELS}}]},
        {"outputs": [{"name": "label"}], "parameters": {"labels": '["stop", "yield"]'}},
        {"outputs": [{"name": "label"}], "parameters": {"labels": {"string_value": "stop, yield"}}},
        {"parameters": {"labels": LABELS}},
    ],
)
def test_labels_of_the_servers_metadata_name_the_classes(httpserver, ask, described):
    httpserver.expect_request("/v2/models/signs", method="GET").respond_with_json(
        {**METADATA, "outputs": [], **described}
    )
    answer_of = json_answer(["yield", "stop"], name="label", datatype="BYTES", shape=[2])
    httpserver.expect_request("/v2/models/signs/infer").respond_with_data(answer_of)
    fields = {"protocol": "open-inference-v2", "url": httpserver.url_for("/"), "model": "signs"}
    assert ask(IMAGES, **fields).classes.tolist() == [1, 0]
    assert ask(IMAGES, **fields, labels=["yield", "stop"]).classes.tolist() == [0, 1]  # the config's win


@pytest.mark.parametrize("labels", [None, 3, [], ["stop"], ["stop", ""], [1, 2], {"string_value": 3}, "stop"])
def test_labels_that_are_none_are_left_alone_and_a_name_then_says_what_to_set(httpserver, ask, labels):
    described = {**METADATA, "outputs": [{"name": "label"}], "parameters": {"labels": labels}}
    httpserver.expect_request("/v2/models/signs", method="GET").respond_with_json(described)
    answer_of = json_answer(["yield", "stop"], name="label", datatype="BYTES", shape=[2])
    httpserver.expect_request("/v2/models/signs/infer").respond_with_data(answer_of)
    with pytest.raises(ClassifierError, match=r"found 'yield'\. If that is a class's name, set classifier\.labels"):
        ask(IMAGES, protocol="open-inference-v2", url=httpserver.url_for("/"), model="signs")


def test_labels_of_a_server_that_are_something_else_cost_no_answer(httpserver, ask):
    described = {**METADATA, "parameters": {"labels": "team-a,production,eu"}}
    httpserver.expect_request("/v2/models/signs", method="GET").respond_with_json(described)
    httpserver.expect_request("/v2/models/signs/infer").respond_with_data(json_answer())
    answers = ask(IMAGES, protocol="open-inference-v2", url=httpserver.url_for("/"), model="signs")
    assert answers.classes.tolist() == [1, 0]


@pytest.mark.parametrize("place", ["inputs", "outputs"])
def test_a_server_that_says_the_token_back_as_a_name_is_not_quoted(httpserver, ask, place):
    described = {**METADATA, place: [{"name": "s3cret", "datatype": "FP32", "shape": [-1, 3, 2, 2]}]}
    httpserver.expect_request("/v2/models/signs", method="GET").respond_with_json(described)
    fields = {"input": {"size": 9}} if place == "inputs" else {"output": "scores"}
    with pytest.raises(ClassifierError) as caught:
        ask(IMAGES, protocol="open-inference-v2", url=httpserver.url_for("/"), model="signs", token="s3cret", **fields)
    assert "***" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_of_several_inputs_the_one_that_is_set_gets_the_images(httpserver, ask):
    inputs = [{"name": "threshold", "datatype": "FP32", "shape": [1]}, *METADATA["inputs"]]
    httpserver.expect_request("/v2/models/signs", method="GET").respond_with_json({**METADATA, "inputs": inputs})
    httpserver.expect_request("/v2/models/signs/infer").respond_with_data(json_answer())
    fields = {"protocol": "open-inference-v2", "url": httpserver.url_for("/"), "model": "signs", "binary": False}
    with pytest.raises(ClassifierError, match=r"found 2: threshold, image\. .* by classifier\.input\.name"):
        ask(IMAGES, **fields)
    with pytest.raises(ClassifierError, match=r"expected an input 'images' .*Did you mean 'image'"):
        ask(IMAGES, **fields, input={"name": "images"})
    assert ask(IMAGES, **fields, input={"name": "image"}).classes.tolist() == [1, 0]
    assert [sent["name"] for sent in json.loads(httpserver.log[-1][0].data)["inputs"]] == ["image"]


def test_what_was_understood_is_told_and_holds_no_secret(server):
    config = ClassifierConfig(
        protocol="open-inference-v2",
        url=server.url_for(""),
        model="signs",
        token="s3cret",
        input={"mean": [0.5], "std": [0.25]},
        labels=LABELS,
    )

    async def entered():
        async with build(config) as classifier:
            return classifier.understood()

    told = asyncio.run(entered())
    assert told.labels == tuple(LABELS)
    assert told.lines["endpoint"].endswith("/v2/models/signs")
    assert told.lines["input"] == "'image' FP32 [-1, 3, 2, 2], as the server says"
    assert told.lines["sent"] == "FP32 NCHW as binary data"
    assert told.lines["pixels"] == "resized to 2x2 px (bilinear), x / 255, less mean 0.5, by std 0.25"
    assert told.lines["output"] == "'scores' FP32 [-1, 2]"
    assert "s3cret" not in repr(told)


def test_what_came_is_told_in_the_protocols_terms(server, ask_it):
    answer(server, binary_answer(SCORES.astype("<f2"), "FP16"))
    assert ask_it().came == "'scores' FP16 [2, 2]"


def test_labels_that_do_not_fit_the_scores_are_said(server, ask_it):
    answer(server, json_answer())
    with pytest.raises(ClassifierError, match=r"the 3 classes that the labels name, found 2 scores an image"):
        ask_it(labels=["a", "b", "c"])


def test_a_name_that_nobody_knows_is_its_images_error_without_the_token(server, ask_it):
    answer(server, json_answer(["s3cret", "stop"], datatype="BYTES", shape=[2]))
    answers = ask_it(labels=LABELS, token="s3cret")
    assert answers.classes.tolist() == [-1, 0]
    assert answers.errors == ["the class is '***', which is none of the 2 labels.", None]


def test_a_port_that_speaks_something_else_is_said(ask):
    # what a gRPC server says first: a frame of HTTP/2
    with (
        ScriptedServer(lambda _: b"\x00\x00\x12\x04\x00\x00\x00\x00\x00") as other,
        pytest.raises(ClassifierAwayError, match=r"no HTTP/1\.1\. Is it .* gRPC, .* Correct classifier\.url") as found,
    ):
        ask(IMAGES, protocol="open-inference-v2", url=other.url, model="signs", attempts=1)
    assert "Run again" not in str(found.value)


def test_https_where_there_is_none_is_said(ask, server):
    url = server.url_for("").replace("http://", "https://")
    with pytest.raises(ClassifierAwayError, match=r"no TLS connection\. Is it http:// there"):
        ask(IMAGES, protocol="open-inference-v2", url=url, model="signs", attempts=1)


def test_a_url_that_goes_on_after_the_port_is_said(httpserver, ask):
    httpserver.expect_request("/v2/v2/models/signs").respond_with_data("", status=404)
    with pytest.raises(ClassifierError, match=r"status 404: no word\. classifier\.url ends before /v2"):
        ask(IMAGES, protocol="open-inference-v2", url=httpserver.url_for("/v2"), model="signs")


def test_a_token_that_is_not_taken_is_told_apart_from_none(server, ask_it):
    answer(server, Response("", 401))
    with pytest.raises(ClassifierError, match=r"Correct classifier\.token: it is set, and not taken"):
        ask_it(token="s3cret")


def test_of_a_servers_traceback_the_end_is_shown_as_well(server, ask_it):
    answer(server, Response(json.dumps({"error": "Traceback: " + "x" * 5000 + " ValueError: not 32x32"}), 500))
    with pytest.raises(RequestFailedError, match=r"Traceback: x.*x ValueError: not 32x32\. It is there and") as found:
        ask_it(attempts=1)
    assert "set classifier.binary to false" in str(found.value)
    assert len(str(found.value)) < 700


@pytest.mark.parametrize(
    ("reply", "classes"),
    [
        (binary_answer(SCORES.astype("<f8"), "FP64"), [1, 0]),
        (binary_answer(SCORES.astype("<f2"), "FP16"), [1, 0]),
        (binary_answer((SCORES * 255).astype("u1"), "UINT8"), [1, 0]),
        (binary_answer(np.array([5, 6], "<i8"), "INT64"), [5, 6]),
        (json_answer([["0.9:7"], ["0.8:3:stop"]], datatype="BYTES", shape=[2, 1]), [7, 3]),
        (json_answer([[4], [2]], datatype="INT64"), [4, 2]),
    ],
)
def test_answers_of_every_datatype_are_understood(server, ask_it, reply, classes):
    answer(server, reply)
    assert ask_it().classes.tolist() == classes


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_passing_failure_is_asked_again(server, ask_it, status):
    answer(server, Response("busy", status, {"Retry-After": "0"}), json_answer())
    assert ask_it().classes.tolist() == [1, 0]
    server.check()


def test_a_server_that_stays_busy_is_away_after_its_attempts(server, ask_it):
    answer(server, *[Response('{"error": "overloaded"}', 503) for _ in range(3)])
    with pytest.raises(ClassifierAwayError) as caught:
        ask_it(attempts=3)
    message = str(caught.value)
    assert caught.value.exit_code == 75
    for part in (
        "'signs' at http://",
        "open-inference-v2",
        "POST /v2/models/signs/infer",
        "3 attempts",
        "503: overloaded",
    ):
        assert part in message
    assert len(server.log) == 4


def test_who_asks_for_an_hours_patience_is_away_at_once(server, ask_it):
    answer(server, Response("later", 503, {"Retry-After": "3600"}))
    with pytest.raises(ClassifierAwayError, match="status 503: later"):
        ask_it(attempts=3)
    assert len(server.log) == 2


def test_retry_after_is_seconds_or_a_date():
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=50), usegmt=True)
    assert retry_after_s("7") == 7
    assert 40 < retry_after_s(soon) <= 50
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after_s("soon") is None
    assert retry_after_s(None) is None


def test_nobody_at_the_port_is_away(ask):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(
        ClassifierAwayError, match=rf"127.0.0.1:{port} .*GET /v2/models/signs.* 2 attempts came no conn"
    ):
        ask(IMAGES, protocol="open-inference-v2", url=f"http://127.0.0.1:{port}", model="signs", attempts=2)


def test_an_answer_beyond_the_deadline_is_none(ask):
    # A server of its own: its late answer would stand in the log of the next test.
    release = threading.Event()

    def slow(request):
        release.wait(10)
        return Response(json_answer())

    with HTTPServer("127.0.0.1", threaded=True) as server:
        server.expect_request("/v2/models/signs", method="GET").respond_with_json(METADATA)
        server.expect_request("/v2/models/signs/infer").respond_with_handler(slow)
        url = server.url_for("/").rstrip("/")
        try:
            with pytest.raises(ClassifierAwayError, match=r"came nothing within 0\.1 s"):
                ask(IMAGES, protocol="open-inference-v2", url=url, model="signs", timeout_s=0.1, attempts=1)
        finally:
            release.set()


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (
            Response("<html><body>Sign in</body></html>", content_type="text/html"),
            "can't be read: expected a JSON object",
        ),
        (json_answer(SCORES[:1].tolist()), "expected 2 answers for 2 images, found shape"),
        (json_answer([[0.1], [0.2]]), "expected scores"),
        (Response('{"error": "unexpected shape [2,3,2,2]"}', 400), "refuses POST .*status 400: unexpected shape"),
        (Response("too large", 413), r"status 413: too large\. Lower classifier\.batch"),
        (Response("", 401), r"status 401: no word\. Set the token"),
        (Response("", 302, {"Location": "https://elsewhere/"}), "status 302"),
        (Response("", 204), "status 204"),
        ('{"outputs": []}', "expected an output 'scores', found none"),
        ('{"outputs": [{"name": "y", "datatype": "FP32", "shape": [0], "data": []}]}', "output 'scores', found y"),
    ],
)
def test_an_answer_that_is_none_is_one_clear_line(server, ask_it, reply, said):
    answer(server, reply)
    with pytest.raises(ClassifierError, match=said) as caught:
        ask_it()
    assert not isinstance(caught.value, ClassifierAwayError)
    assert "'signs' at http://" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(server.log) == 2


def test_scores_that_are_nan_are_errors_of_their_images(server, ask_it):
    answer(server, binary_answer(np.array([[np.nan, 1], [0, 1]], "<f4")))
    answers = ask_it()
    assert answers.classes.tolist() == [-1, 1]
    assert "no finite largest" in answers.errors[0]
    assert answers.errors[1] is None


def test_the_servers_word_is_cut_short_and_loses_control_characters_and_the_token(server, ask_it):
    answer(server, Response("\x1b[31mBearer s3cret\nis wrong" + "!" * 5000, 403))
    with pytest.raises(ClassifierError) as caught:
        ask_it(token="s3cret")
    assert "[31mBearer *** is wrong!!!" in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_the_token_is_sent_and_is_in_no_message_and_no_repr(server):
    url = server.url_for("")
    client = build(ClassifierConfig(protocol="open-inference-v2", url=url, model="gone", token="s3cret"))

    async def enter():
        async with client:
            raise AssertionError("entered")

    with pytest.raises(ClassifierError, match=r"status 404: no gone here\. Correct classifier\.url") as caught:
        asyncio.run(enter())
    for text in (str(caught.value), repr(client), repr(vars(client))):
        assert "s3cret" not in text
    assert server.log[-1][0].headers["Authorization"] == "Bearer s3cret"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"url": "vision:8000"}, r"expected http\(s\)://host:port"),
        ({"url": "ftp://vision"}, r"expected http\(s\)://host:port"),
        ({"url": "http://vision:8000/?key=secret"}, r"expected http\(s\)://host:port"),
        ({"url": "http://user:secret@vision"}, r"no user name or password .* classifier\.token"),
        ({"token": "two words"}, "visible ASCII"),
    ],
)
def test_a_url_or_token_that_cannot_be_used_is_refused_at_once(fields, said):
    values = {"url": "http://vision", "model": "signs", **fields}
    with pytest.raises(ClassifierError, match=said) as caught:
        build(ClassifierConfig(protocol="open-inference-v2", **values))
    assert "secret" not in str(caught.value)
    assert "two words" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"input": {"size": 32}}, r"\[-1, 3, 2, 2\], but input.size is 32x32"),
        ({"input": {"dtype": "bytes"}}, "is FP32 .* but input.dtype is bytes"),
        ({"output": "logits"}, r"expected an output 'logits' .*, found scores"),
    ],
)
def test_a_config_that_contradicts_the_server_is_found_before_an_image_is_sent(server, ask_it, fields, said):
    with pytest.raises(ClassifierError, match=said):
        ask_it(**fields)
    assert [request.method for request, _ in server.log] == ["GET"]


@pytest.mark.parametrize("metadata", ["<html>", '{"inputs": 3}', '{"inputs": [{"shape": []}]}'])
def test_metadata_that_is_none_is_one_clear_line(httpserver, ask, metadata):
    httpserver.expect_request("/v2/models/signs").respond_with_data(metadata)
    with pytest.raises(ClassifierError, match="its metadata can't be read"):
        ask(IMAGES, protocol="open-inference-v2", url=httpserver.url_for("/"), model="signs")


def test_a_server_that_says_nothing_of_its_model_gets_floats_and_the_guess_is_named(httpserver, ask):
    httpserver.expect_request("/v2/models/signs", method="GET").respond_with_json({"name": "signs", "inputs": []})
    infer = httpserver.expect_oneshot_request("/v2/models/signs/infer")
    infer.respond_with_data(json_answer())
    refused = httpserver.expect_oneshot_request("/v2/models/signs/infer")
    refused.respond_with_json({"error": "unknown input"}, status=400)
    fields = {"protocol": "open-inference-v2", "url": httpserver.url_for("/"), "model": "signs"}
    assert ask(IMAGES, **fields).classes.tolist() == [1, 0]
    sent = json.loads(
        httpserver.log[-1][0].data[: int(httpserver.log[-1][0].headers["Inference-Header-Content-Length"])]
    )
    assert sent["inputs"][0]["name"] == "input-0"
    assert "outputs" not in sent
    with pytest.raises(ClassifierError, match=r"unknown input.*doesn't say what the model takes.*FP32 'input-0'"):
        ask(IMAGES, **fields)


def test_a_fixed_batch_of_the_server_is_filled(httpserver, ask):
    metadata = {**METADATA, "inputs": [{"name": "image", "datatype": "FP32", "shape": [3, 3, 2, 2]}]}
    httpserver.expect_request("/v2/models/signs").respond_with_json(metadata)
    rows = [*SCORES.tolist(), [0.5, 0.4]]
    httpserver.expect_request("/v2/models/signs/infer").respond_with_data(json_answer(rows))
    url = httpserver.url_for("/")
    answers = ask(IMAGES, protocol="open-inference-v2", url=url, model="signs", binary=False)
    assert answers.classes.tolist() == [1, 0]
    assert json.loads(httpserver.log[-1][0].data)["inputs"][0]["shape"] == [3, 3, 2, 2]


def test_a_loopback_server_is_reached_past_any_proxy(server, ask_it, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    answer(server, json_answer())
    assert ask_it().classes.tolist() == [1, 0]


def test_no_more_requests_are_under_way_than_allowed(monkeypatch):
    under_way, most = 0, 0

    async def handle(request):
        nonlocal under_way, most
        if request.method == "GET":
            return streamed(json.dumps(METADATA))
        under_way += 1
        most = max(most, under_way)
        for _ in range(20):
            await asyncio.sleep(0)
        under_way -= 1
        return streamed(json_answer())

    client_of = httpx.AsyncClient
    monkeypatch.setattr(httpx, "AsyncClient", lambda **kw: client_of(transport=httpx.MockTransport(handle)))

    async def many():
        config = ClassifierConfig(protocol="open-inference-v2", url="http://vision", model="signs", concurrency=2)
        async with build(config) as classifier:
            await asyncio.gather(*(classifier.predict(IMAGES) for _ in range(8)))

    asyncio.run(many())
    assert most == 2


def test_a_reply_without_end_is_cut_off(server, ask_it, monkeypatch):
    monkeypatch.setattr("pipeline.classifiers.http.MAX_REPLY_BYTES", 1000)
    answer(server, Response("x" * 100_000))
    with pytest.raises(ClassifierError, match="expected a reply of at most 1000 bytes"):
        ask_it()


def test_a_certificate_that_nobody_vouches_for_is_not_asked_again(monkeypatch):
    calls = 0

    async def handle(request):
        nonlocal calls
        calls += 1
        raise httpx.ConnectError("self-signed certificate") from ssl.SSLCertVerificationError("self-signed")

    client_of = httpx.AsyncClient
    monkeypatch.setattr(httpx, "AsyncClient", lambda **kw: client_of(transport=httpx.MockTransport(handle)))

    async def enter():
        async with build(ClassifierConfig(protocol="open-inference-v2", url="https://vision", model="signs")):
            raise AssertionError("entered")

    with pytest.raises(ClassifierError, match="expected a certificate that can be trusted") as caught:
        asyncio.run(enter())
    assert not isinstance(caught.value, ClassifierAwayError)
    assert calls == 1


@pytest.mark.parametrize("status", [401, 403, 404, 413, 503])
def test_what_is_not_the_fault_of_a_requests_form_is_not_blamed_on_it(server, ask_it, status):
    answer(server, Response("", status))
    with pytest.raises(ClassifierError) as caught:
        ask_it(attempts=1)
    assert "classifier.binary" not in str(caught.value)
