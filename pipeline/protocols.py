"""The table of protocols: who speaks each, and which settings each has. Loads nothing, so that a config loads fast.

A new protocol is one file and one line in `PROTOCOLS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """A line of the table.

    Args:
        client: Module below `pipeline.classifiers`, and the class there: a `Classifier`, or, where
            `path` is needed, the `Network` that is loaded from that file.
        about: What it is, for the reference.
        needs: Settings that it can't do without.
        takes: Further settings that some other protocols have no use for.
        example: Settings as YAML has them, for the reference.
    """

    client: str
    about: str
    needs: tuple[str, ...]
    takes: tuple[str, ...] = ()
    example: Mapping[str, Any]

    def has(self, setting: str) -> bool:
        return setting in self.needs or setting in self.takes


_SIGNS = {"size": 32, "layout": "NCHW", "mean": [0.5], "std": [0.5]}

PROTOCOLS: dict[str, Protocol] = {
    "open-inference-v2": Protocol(
        client="open_inference_v2:OpenInferenceV2",
        about="The Open Inference Protocol V2 over HTTP: Triton, KServe, MLServer, OpenVINO, `zipstage serve`. "
        "Names, shapes and types are asked of the server; what is set stands above what it says.",
        needs=("url", "model"),
        takes=("version", "output", "binary", "token", "headers"),
        example={"url": "http://vision.internal:8000", "model": "signs", "input": _SIGNS},
    ),
    "json-http": Protocol(
        client="json_http:JsonOverHttp",
        about="JSON over HTTP: a request by a template, the answers by a JMESPath. For Azure ML, Vertex AI and what "
        "else takes an image in a POST.",
        needs=("url",),
        takes=("model", "content", "content_type", "request", "result", "token", "headers"),
        example={
            "url": "https://vision.internal/score",
            "request": {"instances": [{"image": "$image"}]},
            "result": "predictions[*].scores",
            "input": {"size": 224},
        },
    ),
    "sagemaker": Protocol(
        client="sagemaker:SageMaker",
        about="A real-time endpoint of Amazon SageMaker, with the AWS credentials that boto3 finds.",
        needs=("model",),
        takes=("url", "version", "region", "content", "content_type", "request", "result"),
        example={"model": "signs-endpoint", "region": "eu-west-1", "content": "npy", "input": {"size": 224}},
    ),
    "onnx": Protocol(
        client="onnx:OnnxNetwork",
        about="An ONNX file, run where the job runs. Every node must find it under that path.",
        needs=("path",),
        takes=("output",),
        example={"path": "models/signs.onnx", "input": _SIGNS},
    ),
    "torch-export": Protocol(
        client="torch_export:TorchExportNetwork",
        about="An archive of `torch.export.save`, run where the job runs. It is trusted: use a file of your own only.",
        needs=("path",),
        takes=("output",),
        example={"path": "models/signs.pt2", "input": _SIGNS},
    ),
}
