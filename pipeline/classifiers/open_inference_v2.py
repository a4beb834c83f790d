"""Classifiers behind the Open Inference Protocol V2 over HTTP: Triton, KServe, MLServer, OpenVINO, our own.

The server says at the start what the model takes; whatever of that contradicts the config is an error
before the first image is sent. Numbers travel as binary tensors, or as JSON (some 5 times larger)
where the server knows no others.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import numpy as np

from pipeline.classifiers.base import Answers
from pipeline.classifiers.gate import Gate
from pipeline.classifiers.http import Endpoint
from pipeline.classifiers.outputs import choose_output, read_answers
from pipeline.classifiers.preprocess import Preprocess, fill_up
from pipeline.classifiers.tensors import HEADER_LENGTH, TensorSpec, WireError, pack, read_object, read_spec, unpack
from pipeline.config import ClassifierConfig
from pipeline.errors import ClassifierAwayError, ClassifierError

ASSUMED_INPUT = TensorSpec("input-0", None, None)
"""What is sent to a server that doesn't say what its model takes; KServe's and MLServer's usual name."""


@dataclass(frozen=True, slots=True)
class _Discovered:
    input: TensorSpec
    preprocess: Preprocess
    output: str | None
    assumed: bool


class OpenInferenceV2:
    """One model of one server.

    Args:
        config: Where it is, and what is sent.
        gate: What each request goes through first.

    Raises:
        ClassifierError: The URL or the token can't be used.
    """

    def __init__(self, config: ClassifierConfig, gate: Gate) -> None:
        self.max_batch = config.batch
        self._config = config
        self._endpoint = Endpoint(config, gate)
        self._where = self._endpoint.where
        version = f"/versions/{quote(config.version, safe='')}" if config.version else ""
        self._path = f"/v2/models/{quote(str(config.model), safe='')}{version}"
        self._slots = asyncio.Semaphore(config.concurrency)
        self._discovered: _Discovered | None = None

    async def __aenter__(self) -> Self:
        try:
            self._discovered = self._understand((await self._endpoint.get(self._path)).body)
        except BaseException:  # whatever it was, no connection stays open
            await self._endpoint.close()
            raise
        batch = self._discovered.preprocess.batch
        if batch is not None:
            self.max_batch = min(self.max_batch, batch)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._discovered = None
        await self._endpoint.close()

    async def predict(self, images: np.ndarray) -> Answers:
        """Ask about uint8 [n, h, w, 3], n at most `max_batch`.

        Raises:
            ClassifierAwayError: No answer within the deadline and the attempts.
            ClassifierError: The server refuses the request, or what it answers is no answer.
        """
        model = self._discovered
        if model is None:
            raise ClassifierError(f"{self._where}: asked before it was entered; use it as `async with`.")
        async with self._slots:
            # in a thread, since resizing a batch of photographs would hold up the other requests' deadlines
            num_sent, body, headers = await asyncio.to_thread(self._request, model, images)
            try:
                reply = await self._endpoint.post(f"{self._path}/infer", body, headers, len(images))
            except ClassifierAwayError:
                raise
            except ClassifierError as error:
                raise ClassifierError(f"{error}{self._hint(model)}") from None
        try:
            _, outputs = unpack(reply.body, reply.headers.get(HEADER_LENGTH), "outputs")
        except WireError as error:
            raise ClassifierError(
                f"{self._where}: its answer can't be read: {self._endpoint.quote(str(error))}."
            ) from None
        name = model.output or next(iter(outputs), None)
        if name is None or name not in outputs:
            wanted = f"an output {name!r}" if name else "an output"
            raise ClassifierError(
                f"{self._where}: expected {wanted}, found {self._endpoint.quote(', '.join(outputs)) or 'none'}."
            )
        return read_answers(outputs[name], len(images), num_sent, f"{self._where}, output {name!r}")

    def _understand(self, metadata: bytes) -> _Discovered:
        try:
            fields = read_object(metadata)
            inputs = [read_spec(item) for item in fields.get("inputs") or []]
            outputs = [read_spec(item) for item in fields.get("outputs") or []]
        except (WireError, TypeError) as error:
            said = self._endpoint.quote(str(error))
            raise ClassifierError(f"{self._where}: its metadata can't be read: {said}. Is it classifier.url?") from None
        if len(inputs) > 1:
            names = self._endpoint.quote(", ".join(spec.name for spec in inputs[:20]))
            raise ClassifierError(
                f"{self._where}: expected a model of one input, the images, found {len(inputs)}: {names}."
            )
        model = inputs[0] if inputs else ASSUMED_INPUT
        preprocess = Preprocess.resolve(self._config.input, model, self._where)
        if preprocess.datatype == "BYTES" and not self._config.binary:
            raise ClassifierError(f"{self._where}: encoded images can't travel as JSON. Set classifier.binary to true.")
        output = choose_output(self._config.output, [spec.name for spec in outputs], self._where)
        return _Discovered(model, preprocess, output, assumed=not inputs)

    def _request(self, model: _Discovered, images: np.ndarray) -> tuple[int, bytes, dict[str, str]]:
        batch = fill_up(model.preprocess(images), model.preprocess.batch)
        binary = self._config.binary
        fields: dict[str, Any] = {"parameters": {"binary_data_output": binary}}
        if model.output is not None:
            fields["outputs"] = [{"name": model.output, "parameters": {"binary_data": binary}}]
        name = model.input.name
        body, headers = pack(fields, "inputs", {name: batch}, binary=[name] if binary else [])
        return len(batch), body, headers

    def _hint(self, model: _Discovered) -> str:
        sent = model.preprocess
        hint = " If it knows no binary tensors, set classifier.binary to false." if self._config.binary else ""
        if model.assumed:
            hint = (
                f" It doesn't say what the model takes, so {sent.datatype} {model.input.name!r} was sent "
                f"({sent.layout}): set classifier.input.{hint}"
            )
        return hint
