"""The answers in a reply that no protocol describes: found by a JMESPath, understood by what they are.

For each image scores, a class's index, its name, or `{labels: [...], scores: [...]}` of the classes
that were answered. Nothing is guessed: another number of answers than images, and lists of whole
numbers other than 0 and 1 (scores, or the best classes?), are refused. A trap of JMESPath: a
projection leaves out what isn't there, so that an image without an answer shows by the number alone.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import jmespath
import numpy as np
from jmespath.exceptions import JMESPathError

from pipeline.classifier_config import ClassifierConfig
from pipeline.classifiers.base import Answers
from pipeline.classifiers.outputs import read_answers
from pipeline.errors import ClassifierError

NPY = "application/x-npy"


class ResultReader:
    """Reads replies.

    Args:
        config: Where the answers stand, and the classes' names.
        where: The classifier, for messages.
        is_single: Whether a request is about one image, whose answer isn't in a list of answers.
        quote: Makes text of the other side fit for a message.

    Raises:
        ClassifierError: `result` is no JMESPath.
    """

    def __init__(self, config: ClassifierConfig, where: str, is_single: bool, quote: Callable[[str], str]) -> None:
        self._where, self._is_single, self._quote = where, is_single, quote
        self._labels = config.labels
        self.path = config.result or "@"
        self.is_set = config.result is not None
        try:
            self._found = jmespath.compile(self.path)
        except JMESPathError as error:
            raise ClassifierError(
                f"{where}: classifier.result: expected a JMESPath, found {self.path!r}: {quote(str(error))}."
            ) from None

    def __call__(self, body: bytes, content_type: str, num_images: int) -> Answers:
        """Answers for so many images.

        Raises:
            ClassifierError: The reply can't be read, or holds no answers for so many images.
        """
        if content_type.partition(";")[0].strip().lower() == NPY and not self.is_set:
            return self._understood(self._array(body), num_images)
        reply = self._json(body)
        try:
            found = self._found.search(reply)
        except JMESPathError as error:
            raise self._refused(f"{self._quote(str(error))}, in {self._shown(reply)}") from None
        items = [found] if self._is_single else found
        if found is None or not isinstance(items, list):
            wanted = "an answer" if self._is_single else "a list of answers"
            kind = "nothing there" if found is None else self._shown(found)
            raise ClassifierError(
                f"{self._where}: expected {wanted} at {self._at}, found {kind}; the reply is {self._shown(reply)}. "
                "Correct classifier.result."
            )
        if len(items) != num_images:
            raise ClassifierError(
                f"{self._where}: expected {num_images} answers at {self._at}, one an image, found {len(items)}: "
                f"{self._shown(items)}. Correct classifier.result or request."
            )
        return self._answers(items)

    @property
    def _at(self) -> str:
        return f"classifier.result {self.path!r}" if self.is_set else "the reply's top (classifier.result is not set)"

    def _answers(self, items: Sequence[Any]) -> Answers:
        """Answers of what is there, and none for an image whose answer is null."""
        there = [i for i, item in enumerate(items) if item is not None]
        if not there:
            raise self._refused(f"only null: {self._shown(items)}")
        read = self._understood(self._rows([items[i] for i in there]), len(there))
        if len(there) == len(items):
            return read
        classes = np.full(len(items), -1, np.int64)
        classes[there] = read.classes
        scores = None
        if read.scores is not None:
            scores = np.full((len(items), read.scores.shape[1]), np.nan, np.float32)
            scores[there] = read.scores
        errors: list[str | None] = ["the answer is null"] * len(items)
        for i, error in zip(there, read.errors, strict=True):
            errors[i] = error
        return Answers(classes, scores, errors, read.came)

    def _understood(self, rows: np.ndarray, count: int) -> Answers:
        try:
            return read_answers(rows, count, count, self._where, self._labels)
        except ClassifierError as error:  # which names what other protocols have in its place
            raise ClassifierError(str(error).replace("classifier.output", "classifier.result")) from None

    def _rows(self, items: Sequence[Any]) -> np.ndarray:
        """What `read_answers` understands: float32 [n, k], int64 [n], or texts [n]."""
        if all(isinstance(item, str) for item in items):
            texts = np.empty(len(items), object)
            texts[:] = [item.encode() for item in items]
            return texts
        if all(_is_whole(item) for item in items):
            return np.array(items, np.int64)
        rows: list[Any] = [self._named(item) if isinstance(item, dict) else item for item in items]
        if not all(isinstance(row, list) and len(row) > 1 and all(map(_is_number, row)) for row in rows):
            raise self._refused(self._shown(items))
        if len({len(row) for row in rows}) > 1:
            raise self._refused(f"lists of {len(rows[0])} and of other numbers of scores")
        values = {value for row in rows for value in row}
        if not values <= {0, 1} and all(isinstance(value, int) for value in values):
            raise self._refused(f"whole numbers, which may be scores or the best classes: {self._shown(items)}")
        with np.errstate(over="ignore"):
            return np.array(rows, np.float64).astype(np.float32)

    def _named(self, item: dict[str, Any]) -> list[float] | None:
        """Scores of all classes in the order of `labels`, 0 for those that aren't answered."""
        names, scores = item.get("labels"), item.get("scores")
        if not isinstance(names, list) or not isinstance(scores, list) or len(names) != len(scores) or not names:
            return None
        if self._labels is None:
            raise ClassifierError(
                f"{self._where}: the answers name their classes: {self._shown(names)}. Set classifier.labels to all "
                "names in a fixed order."
            )
        unknown = [name for name in names if name not in self._labels]
        if unknown:
            raise self._refused(f"{self._shown(unknown[0])}, which classifier.labels doesn't name")
        if not all(map(_is_number, scores)):
            return None
        by_name = dict(zip(names, map(float, scores), strict=True))
        return [by_name.get(name, 0.0) for name in self._labels]

    def _refused(self, found: str) -> ClassifierError:
        return ClassifierError(
            f"{self._where}: expected for each image a list of 2 scores or more, a class's index, its name, or "
            f"{{labels: [...], scores: [...]}} at {self._at}, found {found}. Correct classifier.result."
        )

    def _json(self, body: bytes) -> Any:  # noqa: ANN401 - JSON
        try:
            return json.loads(body)
        except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
            shown = self._quote(body[:80].decode("utf-8", "replace")) or "no bytes"
            raise ClassifierError(f"{self._where}: expected a reply in JSON, found {shown}.") from None

    def _array(self, body: bytes) -> np.ndarray:
        """An array as np.save writes it; by its header alone, since np.load would believe any shape."""
        file = io.BytesIO(body)
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, is_fortran, dtype = read(file)
            data = body[file.tell() :]
            if dtype.kind not in "fiu" or math.prod(shape) * dtype.itemsize != len(data):
                raise ValueError(f"{dtype} {list(shape)} in {len(data)} bytes")
            return np.frombuffer(data, dtype).reshape(shape, order="F" if is_fortran else "C")
        except (ValueError, OverflowError) as error:
            said = self._quote(str(error))
            raise ClassifierError(f"{self._where}: expected an array of numbers as .npy, found {said}.") from None

    def _shown(self, value: Any) -> str:  # noqa: ANN401 - JSON
        text = self._quote(json.dumps(value, ensure_ascii=False))
        return text if len(text) <= 120 else text[:117] + "..."


def _is_whole(value: Any) -> bool:  # noqa: ANN401 - JSON
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**62


def _is_number(value: Any) -> bool:  # noqa: ANN401 - JSON
    return isinstance(value, float) or _is_whole(value)
