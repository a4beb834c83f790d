"""A network in this process: what a file of weights must offer to be asked, and to be served.

`onnx.py` and `torch_export.py` each read one kind of file; `LocalClassifier` asks either as a black
box, and `jobs.serve` puts either behind HTTP. Datatypes go by their Open Inference Protocol names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from pipeline.classifier_config import ClassifierConfig
from pipeline.classifiers.base import Answers, Understood
from pipeline.classifiers.gate import Gate
from pipeline.classifiers.outputs import choose_output, read_answers
from pipeline.classifiers.preprocess import Preprocess, fill_up
from pipeline.classifiers.tensors import TensorSpec
from pipeline.errors import ClassifierError


class Network(Protocol):
    """A loaded network of one image input; safe to be run by several threads at once."""

    input: TensorSpec
    outputs: tuple[TensorSpec, ...]

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """All outputs by name, for one batch of the input's datatype and shape.

        Raises:
            ClassifierError: The network refuses the batch.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Opened:
    network: Network
    preprocess: Preprocess
    output: TensorSpec


class LocalClassifier:
    """A network of the user's own, asked in threads so that the event loop stays free.

    Args:
        config: What the network takes, and how many batches run at once.
        load: Reads the file; called when the classifier is entered.
        gate: What each batch goes through first.
    """

    def __init__(self, config: ClassifierConfig, load: Callable[[str], Network], gate: Gate) -> None:
        self.max_batch = config.batch
        self._config = config
        self._load, self._gate = load, gate
        self._where = f"classifier {config.path} ({config.protocol})"
        self._slots = asyncio.Semaphore(config.concurrency)
        self._opened: _Opened | None = None

    async def __aenter__(self) -> Self:
        network = await asyncio.to_thread(self._load, str(self._config.path))
        preprocess = Preprocess.resolve(self._config.input, network.input, self._where)
        outputs = {spec.name: spec for spec in network.outputs}
        output = choose_output(self._config.output, list(outputs), self._where) or next(iter(outputs))
        self._opened = _Opened(network, preprocess, outputs[output])
        if preprocess.batch is not None:
            self.max_batch = min(self.max_batch, preprocess.batch)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened = None

    def understood(self) -> Understood:
        """What the file says of itself, and what is made of that."""
        lines = {"file": str(self._config.path)}
        if self._opened is not None:
            preprocess = self._opened.preprocess
            lines |= {"input": f"{self._opened.network.input}, {preprocess.layout}"}
            lines |= {"pixels": preprocess.told(), "output": str(self._opened.output)}
        return Understood(lines, self._config.labels)

    async def predict(self, images: np.ndarray) -> Answers:
        """Ask about uint8 [n, h, w, 3], n at most `max_batch`.

        Raises:
            ClassifierError: The network refuses the batch, or its output is no answer.
        """
        if self._opened is None:
            raise ClassifierError(f"{self._where}: asked before it was entered; use it as `async with`.")
        async with self._slots:
            await self._gate.admit(len(images))
            return await asyncio.to_thread(self._ask, self._opened, images)

    def _ask(self, opened: _Opened, images: np.ndarray) -> Answers:
        batch = fill_up(opened.preprocess(images), opened.preprocess.batch)
        output = opened.network.run(batch)[opened.output.name]
        name = repr(opened.output.name)
        answers = read_answers(output, len(images), len(batch), f"{self._where}, output {name}", self._config.labels)
        return replace(answers, came=f"{name} {answers.came}")
