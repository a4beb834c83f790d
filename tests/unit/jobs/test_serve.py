"""The server over real HTTP: by hand, as the protocol's text has it, and with our own client."""

from __future__ import annotations

import asyncio
import json
import threading

import httpx
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from jobs.serve import application, load_network, running, serve
from pipeline.classifier_config import ClassifierConfig
from pipeline.classifiers import build
from pipeline.classifiers.tensors import TensorSpec
from pipeline.errors import ClassifierError, ConfigError


class MeanColour:
    """Scores [n, 3] and the class of the largest; no file behind it."""

    input = TensorSpec("image", "FP32", (-1, 3, 4, 4))
    outputs = (TensorSpec("scores", "FP32", (-1, 3)), TensorSpec("class", "INT64", (-1,)))

    def run(self, batch):
        if np.isnan(batch).any():
            raise ClassifierError("no NaN here")
        batch[:] = batch  # a network may write into what it is given
        scores = batch.mean((2, 3))
        return {"scores": scores, "class": scores.argmax(1)}


@pytest.fixture(scope="module")
def url():
    with running(application(MeanColour(), "colours")) as url:
        yield url


@pytest.fixture
def http(url):
    with httpx.Client(base_url=url, trust_env=False) as client:
        yield client


BATCH = np.stack([np.full((3, 4, 4), [[[1]], [[3]], [[2]]]), np.full((3, 4, 4), [[[9]], [[0]], [[0]]])]).astype("<f4")
INPUT = {"name": "image", "datatype": "FP32", "shape": [2, 3, 4, 4]}


def test_it_says_that_it_lives_and_what_it_serves(http):
    assert http.get("/v2/health/live").status_code == 200
    assert http.get("/v2/health/ready").status_code == 200
    assert http.get("/v2/models/colours/ready").status_code == 200
    assert http.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    for path in ("/v2/models/colours", "/v2/models/colours/versions/1"):
        said = http.get(path).json()
        assert said["name"] == "colours"
        assert said["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 3, 4, 4]}]
        assert said["outputs"] == [
            {"name": "scores", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "class", "datatype": "INT64", "shape": [-1]},
        ]


def test_a_json_request_gets_a_json_answer(http):
    request = {"id": "a", "inputs": [{**INPUT, "data": BATCH.tolist()}]}
    reply = http.post("/v2/models/colours/infer", json=request)
    assert reply.status_code == 200
    assert reply.json() == {
        "model_name": "colours",
        "model_version": "1",
        "id": "a",
        "outputs": [
            {"name": "scores", "shape": [2, 3], "datatype": "FP32", "data": [1, 3, 2, 9, 0, 0]},
            {"name": "class", "shape": [2], "datatype": "INT64", "data": [1, 0]},
        ],
    }


def test_a_binary_request_gets_the_binary_outputs_that_it_wants(http):
    head = json.dumps(
        {
            "inputs": [{**INPUT, "parameters": {"binary_data_size": BATCH.nbytes}}],
            "outputs": [{"name": "scores", "parameters": {"binary_data": True}}],
        }
    ).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    reply = http.post("/v2/models/colours/infer", content=head + BATCH.tobytes(), headers=headers)
    length = int(reply.headers["Inference-Header-Content-Length"])
    assert [item["name"] for item in json.loads(reply.content[:length])["outputs"]] == ["scores"]
    assert reply.content[length:] == np.array([1, 3, 2, 9, 0, 0], "<f4").tobytes()


def test_all_outputs_are_binary_on_demand(http):
    request = {"inputs": [{**INPUT, "data": BATCH.tolist()}], "parameters": {"binary_data_output": True}}
    reply = http.post("/v2/models/colours/infer", json=request)
    length = int(reply.headers["Inference-Header-Content-Length"])
    assert reply.content[length:] == np.array([1, 3, 2, 9, 0, 0], "<f4").tobytes() + np.array([1, 0], "<i8").tobytes()


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/v2/models/other", 404, "no model 'other' of version 1; here is 'colours'"),
        ("/v2/models/colours/versions/2", 404, "no model 'colours' of version 2"),
        ("/v3", 404, "no such page: /v3"),
    ],
)
def test_what_is_not_there_is_a_404_with_an_error(http, path, status, said):
    reply = http.get(path)
    assert reply.status_code == status
    assert said in reply.json()["error"]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({}, "expected a list of tensors 'inputs'"),
        ({"inputs": []}, "expected one input 'image', found none"),
        ({"inputs": [{**INPUT, "name": "x", "data": [0] * 96}]}, "expected one input 'image', found 'x'"),
        ({"inputs": [{**INPUT, "shape": [96], "data": [0] * 96}]}, "expected FP32 [-1, 3, 4, 4], found FP32 [96]"),
        ({"inputs": [{**INPUT, "shape": [6, 1, 4, 4], "data": [0] * 96}]}, "found FP32 [6, 1, 4, 4]"),
        ({"inputs": [{**INPUT, "datatype": "INT64", "data": [0] * 96}]}, "found INT64 [2, 3, 4, 4]"),
        ({"inputs": [{**INPUT, "data": [0] * 95}]}, "expected a list of 96 FP32 values"),
        ({"inputs": [{**INPUT, "data": [float("nan")] * 96}]}, "no NaN here"),
        ({"inputs": [{**INPUT, "data": [0] * 96}], "outputs": [{"name": "x"}]}, "name some of 'scores', 'class'"),
        ({"inputs": [{**INPUT, "data": [0] * 96}], "parameters": []}, None),
        ({"inputs": [{**INPUT, "data": [0] * 96}], "parameters": [1]}, "expected `parameters`"),
    ],
)
def test_a_request_that_is_none_is_a_400_with_an_error(http, request_, said):
    reply = http.post("/v2/models/colours/infer", content=json.dumps(request_))
    if said is None:
        assert reply.status_code == 200
        return
    assert reply.status_code == 400
    assert said in reply.json()["error"]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("output", [None, "class"])
def test_our_client_understands_our_server(url, binary, output):
    images = np.zeros((3, 9, 9, 3), np.uint8)
    for image, channel in zip(images, (2, 0, 1), strict=True):
        image[..., channel] = 255
    fields = {"url": url, "model": "colours", "binary": binary, "output": output}

    async def once():
        async with build(ClassifierConfig(protocol="open-inference-v2", **fields)) as classifier:
            return await asyncio.gather(*(classifier.predict(images) for _ in range(3)))

    for answers in asyncio.run(once()):
        assert answers.classes.tolist() == [2, 0, 1]
        if output is None:
            np.testing.assert_array_equal(answers.scores, np.eye(3)[[2, 0, 1]])
        else:
            assert answers.scores is None


def test_a_server_that_has_stopped_leaves_its_port():
    before = set(threading.enumerate())
    with running(application(MeanColour())) as url:
        assert httpx.get(f"{url}/v2/health/live", trust_env=False).status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/v2/health/live", trust_env=False)
    assert not [thread for thread in threading.enumerate() if thread.name == "serve" and thread not in before]


@pytest.fixture
def onnx_file(tmp_path):
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, 4, 4]) for name in ("image", "same")]
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["same"])], "same", ends[:1], ends[1:])
    path = tmp_path / "same.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return path


def test_a_file_is_read_by_its_suffix(onnx_file, tmp_path):
    assert load_network(str(onnx_file)).input == TensorSpec("image", "FP32", (-1, 3, 4, 4))
    archive = tmp_path / "relu.pt2"
    torch.export.save(torch.export.export(torch.nn.ReLU(), (torch.zeros(1, 3, 4, 4),)), archive)
    assert load_network(str(archive)).input.shape == (1, 3, 4, 4)
    with pytest.raises(ConfigError, match=r"expected a file \.onnx or \.pt2, found \.pth"):
        load_network("weights.pth")


def test_serve_tells_its_url_once_it_takes_connections(onnx_file):
    told = []

    class EnoughError(Exception):
        pass

    def ready(url):
        told.append(url)
        raise EnoughError

    with pytest.raises(EnoughError):
        serve(str(onnx_file), port=0, ready=ready)
    assert told[0].startswith("http://127.0.0.1:")


def test_a_taken_port_is_one_line(onnx_file):
    with running(application(MeanColour())) as url, pytest.raises(ConfigError, match=r"can't listen on 127\.0\.0\.1"):
        serve(str(onnx_file), port=int(url.rsplit(":", 1)[1]))
