"""Asks one classifier about pictures, and makes rows of what it says.

A classifier may refuse one picture of a batch, or everything, since the config or a token is wrong.
A refused batch is halved down to single pictures; one that is refused alone is blamed only while a
picture that was answered before is answered still. A trap: a refusal that was blamed on pictures in
error would be written down as answers for the whole data set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.classifiers.base import Answers, Classifier
from pipeline.config import AskConfig, ClassifierConfig
from pipeline.errors import ClassifierAwayError, ClassifierError
from pipeline.pairs import Pair

_Batch = dict[int, np.ndarray]

HOPELESS = 16
"""So many pictures refused alone, and none answered yet: it's not the pictures."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said of one picture: class and scores, or why there is none, or nothing when it wasn't asked about."""

    class_index: int | None = None
    scores: np.ndarray | None = None
    error: str | None = None


class Asking:
    """One classifier for a whole job: batches, a bound on those under way, and what a refusal means.

    Args:
        classifier: Whom to ask; entered.
        config: Its config.
    """

    def __init__(self, classifier: Classifier, config: ClassifierConfig) -> None:
        self._classifier = classifier
        self._size = min(config.batch, classifier.max_batch)
        self._slots = asyncio.Semaphore(config.concurrency)
        self._taken: np.ndarray | None = None  # a picture that it took: the control of a refusal
        self._refusals = 0  # before it took any

    async def ask(self, pictures: Sequence[np.ndarray | None]) -> list[Answer]:
        """Ask about uint8 [h, w, 3] of any sizes, in batches of equal ones; None is not asked about.

        Raises:
            ClassifierAwayError: It doesn't answer.
            ClassifierError: It refuses whatever it is asked.
        """
        asked = {i: picture for i, picture in enumerate(pictures) if picture is not None}
        answers = dict.fromkeys(range(len(pictures)), Answer())
        waiting = self._batches(asked)
        while waiting and self._taken is None:  # one by one, until one proves that it answers at all
            answers |= await self._ask(waiting.pop(0))
        for some in await _all([asyncio.ensure_future(self._ask(batch)) for batch in waiting]):
            answers |= some
        if asked and self._taken is None:
            raise ClassifierError(next(answer.error for answer in answers.values() if answer.error))
        return list(answers.values())

    def _batches(self, asked: _Batch) -> list[_Batch]:
        by_shape: dict[tuple[int, ...], _Batch] = {}
        for i, picture in asked.items():
            by_shape.setdefault(picture.shape, {})[i] = picture
        return [batch for group in by_shape.values() for batch in _cut(group, self._size)]

    async def _ask(self, batch: _Batch) -> dict[int, Answer]:
        try:
            answers = await self._predict(list(batch.values()))
        except ClassifierAwayError:
            raise
        except ClassifierError as error:
            if len(batch) == 1:
                await self._blame(error)
                return dict.fromkeys(batch, Answer(error=str(error)))
            first, second = _cut(batch, -(-len(batch) // 2))
            return {**await self._ask(first), **await self._ask(second)}
        return {i: _answer(answers, position) for position, i in enumerate(batch)}

    async def _predict(self, pictures: list[np.ndarray]) -> Answers:
        async with self._slots:
            answers = await self._classifier.predict(np.stack(pictures))
        self._taken = pictures[0]
        return answers

    async def _blame(self, error: ClassifierError) -> None:
        """Return when the refusal may be the picture's fault, else raise."""
        if self._taken is not None:
            await self._predict([self._taken])
            return
        self._refusals += 1
        if self._refusals >= HOPELESS:
            raise error


def _cut(batch: _Batch, size: int) -> list[_Batch]:
    items = list(batch.items())
    return [dict(items[at : at + size]) for at in range(0, len(items), size)]


def _answer(answers: Answers, position: int) -> Answer:
    if answers.errors[position] is not None:
        return Answer(error=answers.errors[position])
    scores = None if answers.scores is None else answers.scores[position]
    return Answer(int(answers.classes[position]), scores)


async def _all(tasks: Sequence[asyncio.Future[dict[int, Answer]]]) -> list[dict[int, Answer]]:
    """Wait for all; the first error ends the others and is raised as it is, not in a group."""
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


# --- rows -------------------------------------------------------------------------------------------


async def ask_about(chunk: Sequence[Pair], asking: Asking, config: AskConfig) -> list[dict[str, Any]]:
    """Rows of the predictions: what a classifier says of each pair, received and purified."""
    answers = await asking.ask([*(pair.received for pair in chunk), *(pair.purified for pair in chunk)])
    before, after = answers[: len(chunk)], answers[len(chunk) :]
    return [_row(*three, config) for three in zip(chunk, before, after, strict=True)]


def _row(pair: Pair, before: Answer, after: Answer, config: AskConfig) -> dict[str, Any]:
    row = dict(pair.facts)
    error = after.error or before.error
    if error:
        row["status"], row["error"] = "unanswered", error
    row["prediction_before"], row["prediction_after"] = before.class_index, after.class_index
    row["scores_before"], row["scores_after"] = _top(before.scores, config), _top(after.scores, config)
    both = before.class_index is not None and after.class_index is not None
    row["flipped"] = before.class_index != after.class_index if both else None
    row["suspicion"] = suspicion(before.scores, after.scores)
    return row


def _top(scores: np.ndarray | None, config: AskConfig) -> list[dict[str, float]] | None:
    if scores is None:
        return None
    order = np.argsort(-scores, kind="stable")[: config.top]
    return [{"class": int(c), "score": float(scores[c])} for c in order]


def suspicion(before: np.ndarray | None, after: np.ndarray | None) -> float | None:
    """Half the L1 distance of two score vectors as probabilities: 0 the same, 1 nothing in common.

    Scores that aren't probabilities (logits) are made so by a softmax.
    """
    if before is None or after is None or before.shape != after.shape:
        return None
    return float(np.abs(_probabilities(before) - _probabilities(after)).sum() / 2)


def _probabilities(scores: np.ndarray) -> np.ndarray:
    scores = scores.astype(np.float64)
    if scores.min() >= 0 and abs(scores.sum() - 1) < 1e-2:
        return scores
    raised: np.ndarray = np.exp(scores - scores.max())
    return np.asarray(raised / raised.sum())
