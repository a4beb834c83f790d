"""Asks one classifier about pictures, and makes rows of what it says.

A classifier may refuse one picture of a batch, or everything, since the config or a token is wrong.
A refused batch is halved down to single pictures; those that are refused alone are blamed only while a
picture that was answered before is answered still. A trap: a refusal that was blamed on pictures in
error would be written down as answers for the whole data set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline import metrics
from pipeline.classifier_config import ClassifierConfig
from pipeline.classifiers.base import Answers, Classifier
from pipeline.classifiers.gate import Gate
from pipeline.config import AskConfig
from pipeline.errors import ClassifierAwayError, ClassifierError, RequestFailedError, SpentError
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


_Said = dict[int, Answer]


class Asking:
    """One classifier for a whole job: batches, a bound on those under way, and what a refusal means.

    A refused batch of n costs at most 2n more requests, one bad picture in it 2 log2(n) + 2.

    Args:
        classifier: Whom to ask; entered.
        config: Its config.
        gate: What its requests go through.
    """

    def __init__(self, classifier: Classifier, config: ClassifierConfig, gate: Gate) -> None:
        self._classifier, self._gate = classifier, gate
        self._where = f"classifier {config.title}"
        self._size = min(config.batch, classifier.max_batch)
        self._slots = asyncio.Semaphore(config.concurrency)
        self._taken: np.ndarray | None = None  # a picture that it answered: the control of a refusal
        self._num_scores: int | None = None  # of each picture; 0 for classes alone
        self._refusals = 0  # before it answered any
        self._refusal: ClassifierError | None = None  # the last of these

    async def ask(self, pictures: Sequence[np.ndarray | None]) -> list[Answer]:
        """Ask about uint8 [h, w, 3] of any sizes, in batches of equal ones; None is not asked about.

        Raises:
            SpentError: There is no room for all of them under `max_queries`.
            ClassifierAwayError: It doesn't answer.
            ClassifierError: It refuses whatever it is asked.
        """
        asked = {i: picture for i, picture in enumerate(pictures) if picture is not None}
        with self._gate.promised(len(asked)):
            return await self._ask_all(asked, len(pictures))

    async def _ask_all(self, asked: _Batch, count: int) -> list[Answer]:
        answers = dict.fromkeys(range(count), Answer())
        waiting = self._batches(asked)
        while waiting and self._taken is None:  # one by one, until one proves that it answers at all
            answers |= await self._ask(waiting.pop(0))
        for some in await _all([asyncio.ensure_future(self._ask(batch)) for batch in waiting]):
            answers |= some
        if asked and self._taken is None and self._refusal is not None:
            raise self._refusal
        return list(answers.values())

    def _batches(self, asked: _Batch) -> list[_Batch]:
        by_shape: dict[tuple[int, ...], _Batch] = {}
        for i, picture in asked.items():
            by_shape.setdefault(picture.shape, {})[i] = picture
        return [batch for group in by_shape.values() for batch in _cut(group, self._size)]

    async def _ask(self, batch: _Batch) -> _Said:
        """Answers for a batch; whoever is refused alone, while others are answered, gets the reason instead."""
        said: _Said = {}
        for piece in _cut(batch, self._size):
            said |= await self._ask_piece(piece)
        return said

    async def _ask_piece(self, batch: _Batch) -> _Said:
        try:
            said = await self._predict(batch)
        except ClassifierError as error:
            _raise_if_away(error)
            return await self._ask_refused(batch, error)
        reasons = [answer.error for answer in said.values() if answer.error]
        if len(reasons) == len(batch):  # answers, and none that is one: as good as a refusal
            await self._control(batch)
            self._lose_hope(len(batch), ClassifierError(f"{self._where}: {reasons[0]}."))
        return said

    async def _ask_refused(self, batch: _Batch, error: ClassifierError) -> _Said:
        if len(batch) > 1:
            await self._control(batch)  # else an expired token would cost a request for each picture
        said = await self._search(batch, error)
        if any(answer.error for answer in said.values()):
            await self._control(batch)  # it still answers others: these are to blame
        else:
            self._size = min(self._size, -(-len(batch) // 2))  # taken in pieces: the batch was too large
        return said

    async def _search(self, batch: _Batch, error: ClassifierError) -> _Said:
        """Halve a refused batch down to the pictures that are refused alone."""
        if len(batch) == 1:
            self._lose_hope(1, error)
            return dict.fromkeys(batch, Answer(error=str(error)))
        said: _Said = {}
        for half in _cut(batch, -(-len(batch) // 2)):
            try:
                said |= await self._predict(half)
            except ClassifierError as error_of_half:
                _raise_if_away(error_of_half)
                said |= await self._search(half, error_of_half)
        return said

    def _lose_hope(self, num_refused: int, error: ClassifierError) -> None:
        if self._taken is None:
            self._refusals += num_refused
            self._refusal = error
            if self._refusals >= HOPELESS:
                raise error

    async def _control(self, batch: _Batch) -> None:
        """Return when a refusal may be the pictures' fault, else raise: a control has to be answered meanwhile.

        The control is a picture that was answered before; while none was, a gray one, whose refusal proves nothing.
        """
        is_proof = self._taken is not None
        control = np.full_like(next(iter(batch.values())), 128) if self._taken is None else self._taken
        try:
            (answer,) = (await self._predict({0: control})).values()
            if answer.error:
                raise ClassifierError(f"{self._where}: {answer.error}.")
        except ClassifierError as error:
            if is_proof or isinstance(error, ClassifierAwayError):
                raise

    async def _predict(self, batch: _Batch) -> _Said:
        async with self._slots:
            answers = await _counted(self._classifier, np.stack(list(batch.values())))
        self._check_scores(answers)
        said = {i: _answer(answers, position) for position, i in enumerate(batch)}
        self._taken = next((picture for i, picture in batch.items() if not said[i].error), self._taken)
        return said

    def _check_scores(self, answers: Answers) -> None:
        """Indices of two lists of classes can't be compared: they look like flips."""
        found = 0 if answers.scores is None else answers.scores.shape[1]
        if self._num_scores is None and any(error is None for error in answers.errors):
            self._num_scores = found
        if self._num_scores not in (None, found):
            raise ClassifierError(
                f"{self._where}: expected {self._num_scores or 'no'} scores an image, as in its first answer, found "
                f"{found or 'none'}. Is it another model now?"
            )


async def _counted(classifier: Classifier, pictures: np.ndarray) -> Answers:
    """What it says of the pictures; each is counted once, however often a request was tried."""
    try:
        answers = await classifier.predict(pictures)
    except SpentError:  # never sent
        raise
    except ClassifierError as error:
        is_away = isinstance(error, ClassifierAwayError)
        metrics.add("zipstage_queries_total", len(pictures), outcome="away" if is_away else "refused")
        raise
    num_refused = sum(error is not None for error in answers.errors)
    metrics.add("zipstage_queries_total", num_refused, outcome="refused")
    metrics.add("zipstage_queries_total", len(pictures) - num_refused, outcome="answered")
    return answers


def _raise_if_away(error: ClassifierError) -> None:
    """Where nobody answers, no picture is to blame, unless the classifier broke down at this very request."""
    if isinstance(error, ClassifierAwayError) and not isinstance(error, RequestFailedError):
        raise error


def _cut(batch: _Batch, size: int) -> list[_Batch]:
    items = list(batch.items())
    return [dict(items[at : at + size]) for at in range(0, len(items), size)]


def _answer(answers: Answers, position: int) -> Answer:
    if answers.errors[position] is not None:
        return Answer(error=answers.errors[position])
    scores = None if answers.scores is None else answers.scores[position]
    return Answer(int(answers.classes[position]), scores)


async def _all(tasks: Sequence[asyncio.Future[_Said]]) -> list[_Said]:
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
