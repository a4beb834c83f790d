"""One request with patience: its turn, a deadline for each attempt, retries, one clear line when it's over.

For clients of any protocol over a network. Waits between attempts grow and are jittered; where the
other side says how long to wait (Retry-After), that is what is waited.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from typing import TypeVar

import stamina

from pipeline.classifier_config import ClassifierConfig
from pipeline.classifiers.gate import Gate
from pipeline.errors import ClassifierAwayError

RETRIED = frozenset({429, 500, 502, 503, 504})
MAX_WAIT_S = 20.0
MAX_RETRY_AFTER_S = 120.0
"""Who asks for more patience than this is away: the shards are committed, and a rerun asks again."""

T = TypeVar("T")


class TryAgain(Exception):  # noqa: N818 - a signal between a client and its patience, nobody else sees it
    """An attempt that may go better the next time.

    Args:
        found: What came instead of an answer.
        retry_after_s: How long the other side asks to be left alone.
        error: What it is when no attempt goes better.
        advice: What people do then.
    """

    def __init__(
        self,
        found: str,
        retry_after_s: float | None = None,
        error: type[ClassifierAwayError] = ClassifierAwayError,
        advice: str = "Run again when it is back.",
    ) -> None:
        super().__init__(found)
        self.retry_after_s = retry_after_s
        self.error = error
        self.advice = advice


class Patience:
    """Makes attempts.

    Args:
        config: The deadline of an attempt, and how many are made.
        where: The classifier, for messages.
        gate: What each attempt goes through first.
    """

    def __init__(self, config: ClassifierConfig, where: str, gate: Gate) -> None:
        self._where, self._gate = where, gate
        self._timeout_s = config.timeout_s
        self._attempts = config.attempts
        self._retrying = stamina.AsyncRetryingCaller(
            attempts=config.attempts, timeout=None, wait_initial=0.25, wait_max=MAX_WAIT_S, wait_jitter=1.0
        ).on(_pause)

    async def send(self, attempt: Callable[[], Awaitable[T]], request: str, num_images: int) -> T:
        """What an attempt gives, in as many as it takes and are allowed.

        Args:
            attempt: Raises `TryAgain` for what may pass; any other error is raised as it is.
            request: What is asked, for messages.
            num_images: Images in it.

        Raises:
            ClassifierAwayError: No attempt brought a reply.
        """

        async def one() -> T:  # without arguments: stamina logs them, and a body is megabytes
            await self._gate.admit(num_images)
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await attempt()
            except TimeoutError:
                raise TryAgain(f"nothing within {self._timeout_s:g} s") from None

        try:
            return await self._retrying(one)
        except TryAgain as last:
            times = "attempt" if self._attempts == 1 else "attempts"
            raise last.error(
                f"{self._where}: expected an answer to {request}, in up to {self._attempts} {times} "
                f"came {str(last).rstrip('.')}. {last.advice}"
            ) from None


def _pause(error: Exception) -> bool | float:
    if not isinstance(error, TryAgain):
        return False
    if error.retry_after_s is None:
        return True
    return error.retry_after_s if error.retry_after_s <= MAX_RETRY_AFTER_S else False


def retry_after_s(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, given in seconds or as a date; None where it says neither."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, IndexError, TypeError, OverflowError):  # all of these come out of dates that are none
        return None
