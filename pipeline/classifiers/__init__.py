"""The black boxes: one file for each protocol, one line for each in `build`.

Nothing is loaded until a protocol is asked for, so that a job over HTTP needs no onnxruntime.
"""

from __future__ import annotations

from pipeline.classifiers.base import Answers, Classifier
from pipeline.classifiers.network import LocalClassifier
from pipeline.config import ClassifierConfig

__all__ = ["Answers", "Classifier", "build"]


def build(config: ClassifierConfig) -> Classifier:
    """The client of the config's protocol, to be used as `async with`.

    Raises:
        ClassifierError: The config can't be a classifier of that protocol.
    """
    match config.protocol:
        case "open-inference-v2":
            from pipeline.classifiers.open_inference_v2 import OpenInferenceV2

            return OpenInferenceV2(config)
        case "onnx":
            from pipeline.classifiers.onnx import OnnxNetwork

            return LocalClassifier(config, OnnxNetwork)
        case "torch-export":
            from pipeline.classifiers.torch_export import TorchExportNetwork

            return LocalClassifier(config, TorchExportNetwork)
