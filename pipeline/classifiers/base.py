"""The door of every black box: images in, a class for each out. A client is told nothing of shards."""

from __future__ import annotations

from dataclasses import dataclass, field
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
        came: What came back, in the protocol's terms, for people: `'logits' FP32 [8, 10]`.
    """

    classes: np.ndarray
    scores: np.ndarray | None
    errors: list[str | None]
    came: str = ""


@dataclass(frozen=True, slots=True)
class Understood:
    """How a client reads its classifier, for `zipstage probe`; nothing secret in it.

    Args:
        lines: What is sent, how an image becomes that, which output is read: text by a word for it, in the
            order in which people read it.
        labels: Names of the classes in the order of their indices; None where nobody says them.
    """

    lines: dict[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None


class Classifier(Protocol):
    """A client of one protocol; states its own limits. Used as `async with`, which connects and closes."""

    max_batch: int

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def understood(self) -> Understood:
        """How it reads its classifier, as far as that is known once it is entered."""
        ...

    async def predict(self, images: np.ndarray) -> Answers:
        """Ask about images, uint8 [n, h, w, 3] with n at most `max_batch`, RGB, as received.

        The client applies the config's `input` (resize, crop, layout, dtype, mean, std) by itself.

        Raises:
            ClassifierAwayError: It doesn't answer; asking later may help.
            ClassifierError: It refuses the request as a whole; the config is wrong.
        """
        ...
