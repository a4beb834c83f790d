"""The door of every black box: images in, a class for each out. A client is told nothing of shards."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import numpy as np


@dataclass(frozen=True, slots=True)
class Answers:
    """What a classifier said of n images.

    Args:
        classes: int64 [n], index of the answered class; -1 where there is no answer.
        scores: float32 [n, k], one score a class, as the classifier gave them; None when it gives none.
        errors: One line an image, None where it was answered.
    """

    classes: np.ndarray
    scores: np.ndarray | None
    errors: list[str | None]


class Classifier(Protocol):
    """A client of one protocol; states its own limits. Used as `async with`, which connects and closes."""

    max_batch: int

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def predict(self, images: np.ndarray) -> Answers:
        """Ask about images, uint8 [n, h, w, 3] with n at most `max_batch`, RGB, as received.

        The client applies the config's `input` (resize, crop, layout, dtype, mean, std) by itself.

        Raises:
            ClassifierAwayError: It doesn't answer; asking later may help.
            ClassifierError: It refuses the request as a whole; the config is wrong.
        """
        ...
