"""What a request holds where no protocol says so: JSON by a template, a form, one encoded image, an array.

A template is the request as its endpoint documents it, with `$image` where an image stands and, where
that is wanted, `$index` for its position in the batch. An element of a list that holds one of them is
repeated for each image; where `$image` stands in no list, a request is about one image.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np

from pipeline.classifier_config import ClassifierConfig
from pipeline.classifiers.preprocess import Preprocess
from pipeline.classifiers.tensors import TensorSpec
from pipeline.errors import ClassifierError

IMAGE, INDEX = "$image", "$index"
_TYPES = {"json": "application/json", "image": "image/png", "npy": "application/x-npy"}


@dataclass(frozen=True, slots=True)
class Body:
    """The bytes of a request, and their Content-Type."""

    data: bytes
    content_type: str


class BodyMaker:
    """Makes requests of images.

    Args:
        config: The content, its template, and what becomes of an image before.
        where: The classifier, for messages.

    Raises:
        ClassifierError: A template without an image, or settings that contradict each other.
    """

    def __init__(self, config: ClassifierConfig, where: str) -> None:
        self.content = config.content or "json"
        self._type = config.content_type
        self._template: dict[str, Any] = config.request or {}
        encodes = self.content in ("image", "multipart") or (self.content == "json" and config.input.dtype is None)
        spec = TensorSpec(config.input.name or "image", "BYTES" if encodes else None, None)
        self.preprocess = Preprocess.resolve(config.input, spec, where)
        if self.content == "npy" and self.preprocess.datatype == "BYTES":
            raise ClassifierError(f"{where}: content npy holds numbers, but input.dtype is bytes. Leave that out.")
        if self.content in ("json", "multipart"):
            self._check_template(where)
        self.is_single = is_about_one(config)
        self.max_batch = 1 if self.is_single else config.batch

    def __call__(self, images: np.ndarray) -> Body:
        """The request about uint8 [n, h, w, 3], n at most `max_batch`."""
        batch = self.preprocess(images)
        match self.content:
            case "json":
                filled = fill(self._template, [_as_json(image) for image in batch])
                return self._typed(json.dumps(filled, separators=(",", ":")).encode())
            case "multipart":
                return _form(self._template, list(batch), self._type)
            case "image":
                return self._typed(bytes(batch[0]))
            case _:
                file = io.BytesIO()
                np.save(file, batch, allow_pickle=False)
                return self._typed(file.getvalue())

    def _typed(self, data: bytes) -> Body:
        return Body(data, self._type or _TYPES[self.content])

    def _check_template(self, where: str) -> None:
        if not _holds(self._template, IMAGE):
            raise ClassifierError(f"{where}: classifier.request: expected {IMAGE} where the image stands, found none.")
        if self.content == "multipart":
            for name, value in self._template.items():
                if isinstance(value, dict) or (isinstance(value, list) and value != [IMAGE]):
                    raise ClassifierError(
                        f"{where}: classifier.request: a form has fields of text, {IMAGE} or [{IMAGE}], "
                        f"found another value for {name!r}."
                    )


def is_about_one(config: ClassifierConfig) -> bool:
    """Whether each request is about one image, since it holds no place for more."""
    match config.content or "json":
        case "image":
            return True
        case "npy":
            return False
        case _:
            return not _is_repeated(config.request or {})


def fill(template: Any, images: Sequence[Any]) -> Any:  # noqa: ANN401 - JSON
    """A template with the images, which are what JSON holds, in their places."""
    return _fill(template, list(enumerate(images)))


def _fill(node: Any, images: Sequence[tuple[int, Any]]) -> Any:  # noqa: ANN401 - JSON
    if isinstance(node, dict):
        return {name: _fill(value, images) for name, value in node.items()}
    if isinstance(node, list):
        return [filled for item in node for filled in _fill_item(item, images)]
    if not isinstance(node, str) or not images:
        return node
    index, image = images[0]
    if node == INDEX:
        return index
    if node == IMAGE:
        return image
    return node.replace(IMAGE, image) if isinstance(image, str) else node


def _fill_item(item: Any, images: Sequence[tuple[int, Any]]) -> list[Any]:  # noqa: ANN401 - JSON
    is_repeated = _holds(item, IMAGE) or _holds(item, INDEX)
    return [_fill(item, [one]) for one in images] if is_repeated else [_fill(item, [])]


def _holds(node: Any, what: str) -> bool:  # noqa: ANN401 - JSON
    match node:
        case dict():
            return any(_holds(value, what) for value in node.values())
        case list():
            return any(_holds(item, what) for item in node)
        case str():
            return what in node
        case _:
            return False


def _is_repeated(node: Any) -> bool:  # noqa: ANN401 - JSON
    """Whether each `$image` stands in a list."""
    match node:
        case dict():
            return all(_is_repeated(value) for value in node.values())
        case str():
            return IMAGE not in node
        case _:
            return True


def _as_json(image: Any) -> Any:  # noqa: ANN401 - bytes, or an array of numbers
    return base64.b64encode(image).decode() if isinstance(image, bytes) else image.tolist()


def _form(template: dict[str, Any], images: Sequence[bytes], content_type: str | None) -> Body:
    files = [
        (name, (f"{index}.png", image, content_type or "image/png"))
        for name, value in template.items()
        if value in (IMAGE, [IMAGE])
        for index, image in enumerate(images)
    ]
    fields = {name: str(value) for name, value in template.items() if value not in (IMAGE, [IMAGE])}
    form = httpx.Request("POST", "http://form", data=fields, files=files)
    return Body(form.read(), form.headers["Content-Type"])
