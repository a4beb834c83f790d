"""The black boxes: one file for each protocol, one line for each in `pipeline.protocols`.

Nothing is loaded until a protocol is asked for, so that a job over HTTP needs no onnxruntime.
"""

from __future__ import annotations

import importlib
from typing import Any

from pipeline.classifier_config import ClassifierConfig
from pipeline.classifiers.base import Answers, Classifier, Understood
from pipeline.classifiers.gate import Gate
from pipeline.classifiers.network import LocalClassifier
from pipeline.protocols import PROTOCOLS

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
    protocol = PROTOCOLS[config.protocol]
    module, name = protocol.client.split(":")
    client: Any = getattr(importlib.import_module(f"pipeline.classifiers.{module}"), name)  # of either kind
    if "path" in protocol.needs:
        return LocalClassifier(config, client, gate)
    built: Classifier = client(config, gate)
    return built
