"""What Ray raises, in one clean line: the cause where it is told, with its exit code.

Ray's errors carry coloured tracebacks over many lines, and the error of a task is by class also
what was raised there, so it would pass for one of ours.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from ray.exceptions import ActorDiedError, RayError, RayTaskError

from pipeline.errors import WorkerError
from zipstage.errors import ZipstageError

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@contextmanager
def told() -> Iterator[None]:
    """Raise Ray's errors as ours.

    Raises:
        ZipstageError: What a worker raised on purpose, as it was raised there.
        WorkerError: Whatever else became of it.
    """
    try:
        yield
    except RayError as error:
        raise cleaned(error) from None


def cleaned(error: RayError) -> ZipstageError:
    """The error of ours that an error of Ray stands for."""
    cause: BaseException = error
    while isinstance(cause, RayTaskError):
        cause = cause.cause
    if isinstance(cause, ZipstageError):
        return cause
    if not isinstance(cause, RayError):
        return WorkerError(f"a worker raised {_one_line(traceback.format_exception_only(cause)[-1])}")
    lines = [_one_line(line) for line in _COLOURS.sub("", str(cause)).splitlines() if line.strip()]
    if isinstance(cause, ActorDiedError) and cause.actor_init_failed and lines:
        return _raised_at_start(lines[-1])  # a traceback as text: what was raised is its last line
    return WorkerError(f"a worker was lost: {lines[0] if lines else type(cause).__name__}")


def _raised_at_start(line: str) -> WorkerError:
    name, _, message = line.partition(": ")
    ours = next((kind for kind in _kinds(ZipstageError) if f"{kind.__module__}.{kind.__qualname__}" == name), None)
    if ours is None:
        return WorkerError(f"a worker can't start: {line}")
    return WorkerError(message, ours.exit_code)


def _kinds(kind: type[ZipstageError]) -> Iterator[type[ZipstageError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)


def _one_line(text: str) -> str:
    return " ".join(text.split())
