"""Classifiers behind the Open Inference Protocol V2 over HTTP: Triton, KServe, MLServer, OpenVINO, our own.

The server says at the start what the model takes; whatever of that contradicts the config is an error
before the first image is sent. Numbers travel as binary tensors, or as JSON (some 5 times larger)
where the server knows no others. Names of classes come from the config, else from the parameter
`labels` of the output or of the model, where a server's metadata has it.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import numpy as np

from pipeline.classifier_config import ClassifierConfig
from pipeline.classifiers.base import Answers, Understood
from pipeline.classifiers.gate import Gate
from pipeline.classifiers.http import Endpoint
from pipeline.classifiers.outputs import choose_output, read_answers
from pipeline.classifiers.preprocess import Preprocess, fill_up
from pipeline.classifiers.tensors import HEADER_LENGTH, TensorSpec, WireError, pack, read_object, read_spec, unpack
from pipeline.errors import ClassifierError
from zipstage.errors import nearest

ASSUMED_INPUT = TensorSpec("input-0", None, None)
"""What is sent to a server that doesn't say what its model takes; KServe's and MLServer's usual name."""


@dataclass(frozen=True, slots=True)
class _Discovered:
    """What a server says of its model, and what is made of that; `output` None: it names none."""

    input: TensorSpec
    preprocess: Preprocess
    output: TensorSpec | None
    assumed: bool
    labels: tuple[str, ...] | None


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
            self._discovered = self._discover((await self._endpoint.get(self._path)).body)
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

    def understood(self) -> Understood:
        """What the server says of the model, and what is made of that."""
        lines = {"endpoint": self._endpoint.url + self._path}
        model = self._discovered
        if model is None:
            return Understood(lines, self._config.labels)
        said = "assumed, as the server doesn't say" if model.assumed else "as the server says"
        sent = model.preprocess
        layout = "" if sent.datatype == "BYTES" else f" {sent.layout}"
        lines["input"] = f"{model.input}, {said}"
        lines["sent"] = f"{sent.datatype}{layout} as {'binary data' if self._config.binary else 'JSON'}"
        lines["pixels"] = sent.told()
        lines["output"] = str(model.output) if model.output else "the first one, as the server names none"
        return Understood(lines, model.labels)

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
            reply = await self._endpoint.post(f"{self._path}/infer", body, headers, len(images), self._form(model))
        try:
            _, outputs = unpack(reply.body, reply.headers.get(HEADER_LENGTH), "outputs")
        except WireError as error:
            raise ClassifierError(
                f"{self._where}: its answer can't be read: {self._endpoint.quote(str(error))}."
            ) from None
        name = model.output.name if model.output else next(iter(outputs), None)
        if name is None or name not in outputs:
            wanted = f"an output {name!r}" if name else "an output"
            raise ClassifierError(
                f"{self._where}: expected {wanted}, found {self._endpoint.quote(', '.join(outputs)) or 'none'}."
            )
        return self._read(outputs[name], len(images), num_sent, name, model.labels)

    def _read(
        self, output: np.ndarray, num_images: int, num_sent: int, name: str, labels: tuple[str, ...] | None
    ) -> Answers:
        where = f"{self._where}, output {self._endpoint.hide(name)!r}"
        if output.dtype.kind != "O":  # what a server calls labels may be anything: only a config's have to fit scores
            labels = self._config.labels
        try:
            answers = read_answers(output, num_images, num_sent, where, labels)
        except ClassifierError as error:
            raise ClassifierError(self._endpoint.hide(str(error))) from None
        errors = [error and self._endpoint.hide(error) for error in answers.errors]
        return replace(answers, errors=errors, came=f"{self._endpoint.hide(name)!r} {answers.came}")

    def _discover(self, metadata: bytes) -> _Discovered:
        try:
            return self._understand(metadata)
        except ClassifierError as error:  # names in it are the server's
            raise ClassifierError(self._endpoint.hide(str(error))) from None

    def _understand(self, metadata: bytes) -> _Discovered:
        try:
            fields = read_object(metadata)
            inputs = [read_spec(item) for item in fields.get("inputs") or []]
            outputs = {spec.name: spec for spec in map(read_spec, fields.get("outputs") or [])}
        except (WireError, TypeError) as error:
            said = self._endpoint.quote(str(error))
            raise ClassifierError(f"{self._where}: its metadata can't be read: {said}. Is it classifier.url?") from None
        model = self._input_of(inputs)
        preprocess = Preprocess.resolve(self._config.input, model, self._where)
        chosen = choose_output(self._config.output, list(outputs), self._where)
        output = None if chosen is None else outputs.get(chosen, TensorSpec(chosen, None, None))
        labels = self._config.labels or _labels_in(fields, chosen)
        return _Discovered(model, preprocess, output, not inputs, labels)

    def _input_of(self, inputs: list[TensorSpec]) -> TensorSpec:
        """The one input, or the one that is set; what else the model has it must do without."""
        wanted = self._config.input.name
        if not inputs:
            return replace(ASSUMED_INPUT, name=wanted or ASSUMED_INPUT.name)
        known = [spec.name for spec in inputs]
        names = self._endpoint.quote(", ".join(known[:20]))
        if wanted is None and len(inputs) > 1:
            raise ClassifierError(
                f"{self._where}: expected a model of one input, the images, found {len(inputs)}: {names}. If it does "
                "without the others, say which one takes the images by classifier.input.name."
            )
        if wanted is not None and wanted not in known:
            raise ClassifierError(
                f"{self._where}: expected an input {wanted!r} (classifier.input.name), found {names}."
                f"{nearest(wanted, known[:1000])}"
            )
        return inputs[0] if wanted is None else inputs[known.index(wanted)]

    def _request(self, model: _Discovered, images: np.ndarray) -> tuple[int, bytes, dict[str, str]]:
        batch = fill_up(model.preprocess(images), model.preprocess.batch)
        binary = self._config.binary
        # KServe breaks down at a request without an id, which the protocol leaves free
        fields: dict[str, Any] = {"id": uuid.uuid4().hex, "parameters": {"binary_data_output": binary}}
        if model.output is not None:
            fields["outputs"] = [{"name": model.output.name, "parameters": {"binary_data": binary}}]
        name = model.input.name
        body, headers = pack(fields, "inputs", {name: batch}, binary=[name] if binary else [])
        return len(batch), body, headers

    def _form(self, model: _Discovered) -> str:
        """What people may set where the server doesn't take what it is sent."""
        sent = model.preprocess
        hint = " If it knows no binary tensors, set classifier.binary to false." if self._config.binary else ""
        if model.assumed:
            hint = (
                f" It doesn't say what the model takes, so {sent.datatype} {model.input.name!r} was sent "
                f"({sent.layout}): set classifier.input.{hint}"
            )
        return hint


def _labels_in(fields: dict[str, Any], output: str | None) -> tuple[str, ...] | None:
    """The classes' names in a model's metadata, a list or a text that holds one; None where it has none."""
    outputs = fields.get("outputs") or []
    for place in [*(item for item in outputs if item["name"] == output), fields]:
        parameters = place.get("parameters")
        found = parameters.get("labels") if isinstance(parameters, dict) else None
        if isinstance(found, dict):  # as Triton writes the parameters of a model
            found = found.get("string_value")
        if isinstance(found, str):
            found = _listed(found)
        if isinstance(found, list) and len(found) > 1 and all(isinstance(name, str) and name for name in found):
            return tuple(found)
    return None


def _listed(text: str) -> Any:  # noqa: ANN401 - whatever a server wrote there
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return [name.strip() for name in text.split(",")]
