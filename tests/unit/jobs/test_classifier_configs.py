"""The ready configs of endpoints: each loads, and is asked as its service documents requests and answers."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import numpy as np
import pytest
from pytest_httpserver import HTTPServer
from scripted_json import pixels
from werkzeug import Request, Response

from pipeline.classifier_config import ClassifierConfig
from pipeline.classifiers import Answers, build
from pipeline.config_loading import load_config, nest

FOLDER = Path(__file__).parents[3] / "jobs/configs/classifiers"
CONFIGS = sorted(FOLDER.glob("*.yaml"))
BLUE = np.full((1, 8, 8, 3), (0, 0, 200), np.uint8)


def load(path: Path, **more: object) -> ClassifierConfig:
    fields = {f"classifier.{name}": value for name, value in more.items()}
    config = load_config(path, nest({"input": "in", "output": "out", **fields})).classifier
    assert config is not None
    return config


def ask(config: ClassifierConfig, images: np.ndarray) -> Answers:
    async def asked() -> Answers:
        async with build(config) as classifier:
            return await classifier.predict(images)

    return asyncio.run(asked())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_each_config_loads_and_makes_a_client(path: Path) -> None:
    classifier = build(load(path))
    assert classifier.max_batch >= 1


def test_there_is_one_for_each_service() -> None:
    assert {path.stem for path in CONFIGS} >= {"azure-ml", "vertex-ai", "sagemaker"}


def test_azure_ml_is_asked_by_rows_of_a_table(httpserver: HTTPServer) -> None:
    def score(request: Request) -> Response:
        assert request.headers["Authorization"] == "Bearer key"
        table = request.json["input_data"]
        assert table["columns"] == ["image"]
        assert table["index"] == [0, 1]
        assert [pixels(base64.b64decode(cell)).shape for (cell,) in table["data"]] == [(8, 8, 3)] * 2
        return Response(json.dumps([{"probs": [0.1, 0.9], "labels": ["can", "carton"]}] * 2))

    httpserver.expect_request("/score", method="POST").respond_with_handler(score)
    config = load(FOLDER / "azure-ml.yaml", url=httpserver.url_for("/score"), token="key")
    assert ask(config, np.concatenate([BLUE, BLUE])).classes.tolist() == [1, 1]


def test_vertex_ai_names_its_best_classes(httpserver: HTTPServer) -> None:
    def predict(request: Request) -> Response:
        assert request.headers["Authorization"] == "Bearer key"
        (instance,) = request.json["instances"]
        assert np.array_equal(pixels(base64.b64decode(instance["content"])), BLUE[0])
        assert request.json["parameters"]["confidenceThreshold"] == 0
        best = {"ids": ["7", "9"], "displayNames": ["tulips", "daisy"], "confidences": [0.75, 0.25]}
        return Response(json.dumps({"predictions": [best], "deployedModelId": "1"}))

    path = "/v1/projects/p/locations/r/endpoints/e:predict"
    httpserver.expect_request(path, method="POST").respond_with_handler(predict)
    answers = ask(load(FOLDER / "vertex-ai.yaml", url=httpserver.url_for(path), token="key"), BLUE)
    assert answers.classes.tolist() == [4]
    assert answers.scores is not None
    assert answers.scores.tolist() == [[0.25, 0, 0, 0, 0.75]]
