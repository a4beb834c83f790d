"""The wire format against bytes written by hand from the protocol's text, and against bodies that break it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.classifiers.tensors import HEADER_LENGTH, WireError, pack, read_spec, unpack


def test_a_binary_body_is_json_then_little_endian_rows():
    array = np.array([[1.0, -2.0]], ">f4")  # big-endian in memory
    body, headers = pack({"id": "1"}, "inputs", {"x": array}, ["x"])
    length = int(headers[HEADER_LENGTH])
    assert json.loads(body[:length]) == {
        "id": "1",
        "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}],
    }
    assert body[length:] == b"\x00\x00\x80\x3f\x00\x00\x00\xc0"
    assert headers["Content-Type"] == "application/octet-stream"


def test_binary_bytes_carry_their_length_in_four_bytes():
    array = np.array([b"ab", b""], dtype=object)
    body, headers = pack({}, "inputs", {"x": array}, ["x"])
    assert body[int(headers[HEADER_LENGTH]) :] == b"\x02\x00\x00\x00ab\x00\x00\x00\x00"


def test_a_json_body_has_no_header_length_and_flat_data():
    body, headers = pack({}, "inputs", {"x": np.array([[1, 2], [3, 4]], np.int64)}, [])
    assert json.loads(body) == {"inputs": [{"name": "x", "shape": [2, 2], "datatype": "INT64", "data": [1, 2, 3, 4]}]}
    assert headers == {"Content-Type": "application/json"}


def test_binary_and_json_tensors_share_one_body():
    head = json.dumps(
        {
            "model_name": "m",
            "outputs": [
                {"name": "a", "datatype": "FP16", "shape": [2], "parameters": {"binary_data_size": 4}},
                {"name": "b", "datatype": "BYTES", "shape": [1], "data": ["x"]},
                {"name": "c", "datatype": "BOOL", "shape": [2], "parameters": {"binary_data_size": 2}},
            ],
        }
    ).encode()
    fields, tensors = unpack(head + b"\x00\x3c\x00\xc0" + b"\x01\x00", str(len(head)), "outputs")
    assert fields["model_name"] == "m"
    assert tensors["a"].tolist() == [1.0, -2.0]
    assert tensors["b"].tolist() == [b"x"]
    assert tensors["c"].tolist() == [True, False]


def test_json_data_may_be_nested():
    body = b'{"outputs": [{"name": "y", "datatype": "FP64", "shape": [2, 2], "data": [[1, 2.5], [3, 4]]}]}'
    assert unpack(body, None, "outputs")[1]["y"].tolist() == [[1, 2.5], [3, 4]]


def tensor(**fields):
    return json.dumps({"outputs": [{"name": "y", "datatype": "FP32", "shape": [2], **fields}]}).encode()


@pytest.mark.parametrize(
    ("body", "length", "said"),
    [
        (b"<html>", None, "expected a JSON object, found '<html>'"),
        (b"[1]", None, "expected a JSON object"),
        (b"[" * 100_000, None, "expected a JSON object"),
        (b"{}", None, "expected a list of tensors 'outputs', found None"),
        (b"{}", "9", "expected Inference-Header-Content-Length of 0 to 2"),
        (b"{}", "-1", "Inference-Header-Content-Length"),
        (tensor(data=[1]), None, "expected a list of 2 FP32 values"),
        (tensor(data=[1, "2"]), None, "expected a list of 2 FP32 values"),
        (tensor(data=[1, None]), None, "expected a list of 2 FP32 values"),
        (tensor(data=[[1], [2, 3]]), None, "expected a list of 2 FP32 values"),
        (tensor(), None, "expected a list of 2 FP32 values, found None"),
        (tensor(datatype="INT64", data=[1, 2.5]), None, "expected a list of 2 INT64 values"),
        (tensor(datatype="UINT8", data=[1, 256]), None, "expected a list of 2 UINT8 values"),
        (tensor(datatype="BOOL", data=[1, 0]), None, "expected a list of 2 BOOL values"),
        (tensor(datatype="FP8", data=[1, 2]), None, "expected a datatype of"),
        (tensor(datatype=["FP32"], data=[1, 2]), None, "expected a datatype of"),
        (tensor(shape=[-1], data=[1, 2]), None, "expected a shape of whole numbers"),
        (tensor(shape="2", data=[1, 2]), None, "expected a shape of whole numbers"),
        (tensor(name="\x1b[31m", data=[1, 2]), None, "expected a tensor with a name"),
        (tensor(parameters={"binary_data_size": 8}), None, "expected 8 bytes of binary data, found 0"),
        (tensor(parameters={"binary_data_size": -1}), None, "binary data"),
        (tensor(parameters={"binary_data_size": True}), None, "binary data"),
        (tensor(parameters={"binary_data_size": 0}), None, "expected 8 bytes, found 0"),
        (tensor(data=[1, 2]) + b"left", str(len(tensor(data=[1, 2]))), "expected the body to end with its last tensor"),
    ],
)
def test_a_body_that_breaks_the_protocol_is_refused_with_the_place(body, length, said):
    with pytest.raises(WireError, match=said) as caught:
        unpack(body, length, "outputs")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("blob", [b"\x05\x00\x00\x00ab", b"\x01\x00", b"\x00\x00\x00\x00"])
def test_bytes_elements_stay_within_their_tensor_and_number(blob):
    head = tensor(datatype="BYTES", parameters={"binary_data_size": len(blob)})
    with pytest.raises(WireError, match="tensor 'y'"):
        unpack(head + blob, str(len(head)), "outputs")


def test_bytes_that_are_no_text_travel_in_json_as_base64():
    body, _ = pack({}, "inputs", {"x": np.array([b"\xff", b"a"], dtype=object)}, [])
    (sent,) = json.loads(body)["inputs"]
    assert (sent["data"], sent["parameters"]) == (["/w==", "YQ=="], {"content_type": "base64"})


@pytest.mark.parametrize("wrong", ["/w=", "not base64!", "ä"])
def test_text_that_only_says_it_is_base64_is_refused(wrong):
    body = tensor(datatype="BYTES", shape=[1], data=[wrong], parameters={"content_type": "base64"})
    with pytest.raises(WireError, match="tensor 'y': expected base64"):
        unpack(body, None, "outputs")


def test_a_content_type_of_numbers_is_left_alone():
    body = tensor(data=[1, 2], parameters={"content_type": "base64"})
    assert unpack(body, None, "outputs")[1]["y"].tolist() == [1, 2]


def test_a_models_metadata_may_leave_out_datatype_and_shape():
    assert read_spec({"name": "x"}).shape is None
    assert read_spec({"name": "x", "datatype": "FP32", "shape": [-1, 3]}).shape == (-1, 3)
    for wrong in ({}, "x", {"name": 3}, {"name": "x", "shape": ["3"]}, {"name": "x", "datatype": "\n"}):
        with pytest.raises(WireError):
            read_spec(wrong)
