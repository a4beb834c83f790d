"""Tiny networks: the answer is the channel of the largest mean, so anyone can say it by hand."""

from __future__ import annotations

import asyncio

import numpy as np
import onnx
import pytest
import stamina
import torch
from onnx import TensorProto, helper
from torch import nn

from pipeline.classifier_config import ClassifierConfig
from pipeline.classifiers import build

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _retries_without_waiting():
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


@pytest.fixture
def write_onnx(tmp_path):
    """Writes scores = mean over the sides, [n, c] of an input [n, c, h, w]; `class` is their argmax."""

    def write(shape=("n", 3, 8, 8), element=TensorProto.FLOAT, with_class=False):
        image = helper.make_tensor_value_info("image", element, list(shape))
        outputs = [helper.make_tensor_value_info("scores", element, [shape[0], shape[1]])]
        nodes = [helper.make_node("ReduceMean", ["image"], ["scores"], axes=[2, 3], keepdims=0)]
        if with_class:
            nodes.append(helper.make_node("ArgMax", ["scores"], ["class"], axis=1, keepdims=0))
            outputs.append(helper.make_tensor_value_info("class", TensorProto.INT64, [shape[0]]))
        graph = helper.make_graph(nodes, "mean-colour", [image], outputs)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.checker.check_model(model)
        path = tmp_path / "mean-colour.onnx"
        path.write_bytes(model.SerializeToString())
        return str(path)

    return write


class MeanColour(nn.Module):
    def __init__(self, with_class=False):
        super().__init__()
        self.with_class = with_class

    def forward(self, image):
        scores = image.mean((2, 3))
        return {"scores": scores, "class": scores.argmax(1)} if self.with_class else scores


@pytest.fixture
def write_torch_export(tmp_path):
    def write(batch=None, with_class=False):
        example = (torch.zeros(batch or 2, 3, 8, 8),)
        shapes = None if batch else ({0: torch.export.Dim("n", min=1)},)
        path = tmp_path / "mean-colour.pt2"
        torch.export.save(torch.export.export(MeanColour(with_class), example, dynamic_shapes=shapes), path)
        return str(path)

    return write


@pytest.fixture
def coloured():
    """Images uint8 [n, 8, 8, 3], each of one pure colour, named by the index of its channel."""

    def draw(*channels, side=8):
        images = np.zeros((len(channels), side, side, 3), np.uint8)
        for image, channel in zip(images, channels, strict=True):
            image[..., channel] = 200
        return images

    return draw


@pytest.fixture
def ask():
    """Enters the classifier of a config (or of its fields) and asks once."""

    def asked(images, **fields):
        async def once():
            async with build(ClassifierConfig(**fields)) as classifier:
                return await classifier.predict(images)

        return asyncio.run(once())

    return asked
