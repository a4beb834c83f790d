"""The black boxes: one file for each protocol, one line for each in `build`.

Nothing is loaded until a protocol is asked for, so that a job over HTTP needs no onnxruntime.
"""

from __future__ import annotations

from pipeline.classifier_config import ClassifierConfig
from pipeline.classifiers.base import Answers, Classifier, Understood
from pipeline.classifiers.gate import Gate
from pipeline.classifiers.network import LocalClassifier

__all__ = ["Answers", "Classifier", "Understood", "build"]


def build(config: ClassifierConfig, gate: Gate | None = None) -> Classifier:
    """The client of the config's protocol, to be used as `async with`.

    Args:
        config: The classifier.
        gate: What each request goes through first; none: the config's, of this client's own.

    Raises:
        ClassifierError: The config can't be a classifier of that protocol.
    """
    gate = gate or Gate.of(config)
    match config.protocol:
        case "open-inference-v2":
            from pipeline.classifiers.open_inference_v2 import OpenInferenceV2

            return OpenInferenceV2(config, gate)
        case "onnx":
            from pipeline.classifiers.onnx import OnnxNetwork

            return LocalClassifier(config, OnnxNetwork, gate)
        case "json-http":
            from pipeline.classifiers.json_http import JsonOverHttp

            return JsonOverHttp(config, gate)
        case "sagemaker":
            from pipeline.classifiers.sagemaker import SageMaker

            return SageMaker(config, gate)
        case "torch-export":
            from pipeline.classifiers.torch_export import TorchExportNetwork

            return LocalClassifier(config, TorchExportNetwork, gate)
