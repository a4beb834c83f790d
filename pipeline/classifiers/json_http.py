"""Classifiers behind an HTTP endpoint of their own kind: a POST by a template, the answer by a path.

Azure ML, Vertex AI and whatever else takes images in JSON, in a form or as they are. Such an endpoint
says nothing of itself, so what is wrong shows at the first request: a trap for who pays by the request.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

import numpy as np

from pipeline.classifier_config import ClassifierConfig
from pipeline.classifiers.base import Answers, Understood
from pipeline.classifiers.bodies import BodyMaker
from pipeline.classifiers.gate import Gate
from pipeline.classifiers.http import Endpoint
from pipeline.classifiers.results import ResultReader


class JsonOverHttp:
    """One URL that is posted to.

    Args:
        config: Where it is, what is sent, and where the answers stand.
        gate: What each request goes through first.

    Raises:
        ClassifierError: The URL, a secret, the template or the path can't be used.
    """

    def __init__(self, config: ClassifierConfig, gate: Gate) -> None:
        self._endpoint = Endpoint(config, gate)
        where = self._endpoint.where
        self._body = BodyMaker(config, where)
        self._read = ResultReader(config, where, self._body.is_single, self._endpoint.quote)
        self._labels = config.labels
        self.max_batch = self._body.max_batch

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._endpoint.close()

    def understood(self) -> Understood:
        return Understood({"endpoint": self._endpoint.url, **told(self._body, self._read)}, self._labels)

    async def predict(self, images: np.ndarray) -> Answers:
        """Ask about uint8 [n, h, w, 3], n at most `max_batch`.

        Raises:
            ClassifierAwayError: No answer within the deadline and the attempts.
            ClassifierError: The endpoint refuses the request, or what it answers is no answer.
        """
        body = await asyncio.to_thread(self._body, images)  # beside the other requests' deadlines
        headers = {"Content-Type": body.content_type, "Accept": "application/json"}
        reply = await self._endpoint.post("", body.data, headers, len(images))
        return self._read(reply.body, reply.headers.get("Content-Type", ""), len(images))


def told(body: BodyMaker, read: ResultReader) -> dict[str, str]:
    """How requests are made and replies are read, for people."""
    each = "one image" if body.is_single else f"up to {body.max_batch} images"
    found = "the reply's array, else " if body.content == "npy" and not read.is_set else ""
    return {
        "sent": f"{body.content}, {each}",
        "pixels": body.preprocess.told(),
        "output": f"{found}JSON at {read.path!r}",
    }
