from __future__ import annotations

import asyncio
import sys

import numpy as np
import pytest
import torch
from onnx import TensorProto

from pipeline.classifier_config import ClassifierConfig
from pipeline.classifiers import build
from pipeline.classifiers.onnx import OnnxNetwork
from pipeline.classifiers.tensors import TensorSpec
from pipeline.classifiers.torch_export import TorchExportNetwork
from pipeline.errors import ClassifierError


@pytest.fixture(params=["onnx", "torch-export"])
def network_file(request, write_onnx, write_torch_export):
    """(protocol, writer of a file with a batch size or an open one)."""
    if request.param == "onnx":
        return "onnx", lambda batch=None, **kw: write_onnx((batch or "n", 3, 8, 8), **kw)
    return "torch-export", write_torch_export


def test_a_file_answers_by_its_own_scores(network_file, coloured, ask):
    protocol, write = network_file
    answers = ask(coloured(2, 0, 1), protocol=protocol, path=write())
    assert answers.classes.tolist() == [2, 0, 1]
    np.testing.assert_allclose(answers.scores, np.eye(3)[[2, 0, 1]] * 200 / 255, rtol=1e-6)


def test_images_of_another_size_become_the_networks(network_file, coloured, ask):
    protocol, write = network_file
    assert ask(coloured(1, 2, side=20), protocol=protocol, path=write()).classes.tolist() == [1, 2]


def test_a_fixed_batch_is_filled_and_the_fillers_are_dropped(network_file, coloured):
    protocol, write = network_file

    async def once():
        async with build(ClassifierConfig(protocol=protocol, path=write(batch=4))) as classifier:
            return classifier.max_batch, await classifier.predict(coloured(2, 1, 0))

    max_batch, answers = asyncio.run(once())
    assert max_batch == 4
    assert answers.classes.tolist() == [2, 1, 0]
    assert len(answers.errors) == 3


def test_an_output_of_classes_can_be_named(network_file, coloured, ask):
    protocol, write = network_file
    name = "class" if protocol == "onnx" else "output-1"
    answers = ask(coloured(2, 0), protocol=protocol, path=write(with_class=True), output=name)
    assert answers.classes.tolist() == [2, 0]
    assert answers.scores is None


def test_a_file_that_is_not_there_or_no_network_is_named(network_file, tmp_path, ask, coloured):
    protocol, _ = network_file
    with pytest.raises(ClassifierError, match=r"gone\.pt2: expected an? "):
        ask(coloured(0), protocol=protocol, path=str(tmp_path / "gone.pt2"))
    (tmp_path / "text.pt2").write_text("no network")
    with pytest.raises(ClassifierError, match=r"text\.pt2: ") as caught:
        ask(coloured(0), protocol=protocol, path=str(tmp_path / "text.pt2"))
    assert "\n" not in str(caught.value)


def test_a_wrong_size_in_the_config_is_found_before_anything_is_asked(network_file):
    protocol, write = network_file

    async def enter():
        async with build(ClassifierConfig(protocol=protocol, path=write(), input={"size": 9})):
            raise AssertionError("entered")

    with pytest.raises(ClassifierError, match=r"\[-1, 3, 8, 8\], but input.size is 9x9"):
        asyncio.run(enter())


def test_a_batch_that_the_network_refuses_is_one_line(network_file):
    protocol, write = network_file
    network = OnnxNetwork(write()) if protocol == "onnx" else TorchExportNetwork(write())
    with pytest.raises(ClassifierError, match=r"refuses float32 \[1, 3, 9, 8\]") as caught:
        network.run(np.zeros((1, 3, 9, 8), np.float32))
    assert "\n" not in str(caught.value)


def test_asking_before_entering_is_refused(network_file, coloured):
    protocol, write = network_file
    classifier = build(ClassifierConfig(protocol=protocol, path=write()))
    with pytest.raises(ClassifierError, match="before it was entered"):
        asyncio.run(classifier.predict(coloured(0)))


def test_an_onnx_file_says_what_it_takes_and_gives(write_onnx):
    network = OnnxNetwork(write_onnx(("n", 3, "h", "w"), TensorProto.FLOAT16, with_class=True))
    assert network.input == TensorSpec("image", "FP16", (-1, 3, -1, -1))
    assert network.outputs == (TensorSpec("scores", "FP16", (-1, 3)), TensorSpec("class", "INT64", (-1,)))


def test_a_half_precision_network_gets_half_precision(write_onnx, coloured, ask):
    path = write_onnx(element=TensorProto.FLOAT16)
    assert ask(coloured(1), protocol="onnx", path=path).classes.tolist() == [1]


def test_an_archive_says_what_it_takes_and_gives(write_torch_export):
    network = TorchExportNetwork(write_torch_export(with_class=True))
    assert network.input == TensorSpec("image", "FP32", (-1, 3, 8, 8))
    assert network.outputs == (TensorSpec("output-0", "FP32", (-1, 3)), TensorSpec("output-1", "INT64", (-1,)))


def test_an_archive_of_two_inputs_is_refused(tmp_path):
    class Two(torch.nn.Module):
        def forward(self, a, b):
            return a + b

    path = tmp_path / "two.pt2"
    torch.export.save(torch.export.export(Two(), (torch.zeros(1), torch.zeros(1))), path)
    with pytest.raises(ClassifierError, match="expected one input, the images, found 2"):
        TorchExportNetwork(str(path))


def test_an_archive_in_bfloat16_is_refused_by_name(tmp_path, coloured, ask):
    path = tmp_path / "bf16.pt2"
    torch.export.save(torch.export.export(torch.nn.ReLU(), (torch.zeros(1, 3, 8, 8, dtype=torch.bfloat16),)), path)
    with pytest.raises(ClassifierError, match=r"is torch\.bfloat16 \[1, 3, 8, 8\]: expected FP32"):
        ask(coloured(0), protocol="torch-export", path=str(path))


def test_without_onnxruntime_the_way_to_get_it_is_said(monkeypatch, write_onnx):
    path = write_onnx()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ClassifierError, match=r"pip install 'zipstage\[onnx\]'"):
        OnnxNetwork(path)
