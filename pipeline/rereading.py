"""Reading by workers that may die: bounded tries, and failures that are heard.

An engine that runs a dead reader again skips by position what came before. So a second try that
ends sooner (the storage is away by now, or the shard is given up) would say so where nobody listens:
its last word is repeated until it stands where no reader has been.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Protocol

from pipeline import metrics
from pipeline.config import JobConfig
from pipeline.ledger import Task
from pipeline.parts import Part
from pipeline.stages import read_parts

FAILURES = ("unreadable", "away", "refused")


class Counter(Protocol):
    """Counts a shard's readers, outside of their processes."""

    def begin(self, shard: str) -> int:
        """Note one more try; the how manyth it is, from 1."""
        ...

    def num_read(self, shard: str) -> int:
        """How many parts were handed on so far, by whichever try."""
        ...

    def advance(self, shard: str, part: int) -> None:
        """Note that a part is about to be handed on."""
        ...

    def end(self, shard: str) -> None:
        """Note that a try came to its end."""
        ...


def read_counted(
    task: Task, config: JobConfig, counter: Counter, read: Callable[[Task, JobConfig], Iterator[Part]] = read_parts
) -> Iterator[Part]:
    """The parts of a shard, or why its readers are given up.

    Args:
        task: The shard.
        config: The job.
        counter: Counts the tries.
        read: What reads.
    """
    name, position = task.shard.name, -1
    num_read = counter.num_read(name)
    # One more than was counted: a reader may have died between handing on a part and counting it.
    num_skipped = num_read + 1 if num_read else 0
    if counter.begin(name) > config.cluster.max_attempts:
        blank = Part(name, task.plan, 0, is_last=True)
        yield from repeat(blank.failed("unreadable", _given_up(name, config, num_read)), num_skipped + 1)
        return
    for position, part in enumerate(metrics.timed("read", read(task, config))):
        if part.outcome not in FAILURES:  # a last word has no place among the parts
            counter.advance(name, position)
        yield part
    if part.outcome in FAILURES:
        yield from repeat(part, num_skipped - position)
    counter.end(name)


def _given_up(name: str, config: JobConfig, num_read: int) -> str:
    where = f"after its part {num_read - 1}" if num_read else "before its first part"
    return (
        f"shard {name}: given up: {config.cluster.max_attempts} readers died {where}. Too little memory is the usual "
        "reason: lower part.max_mib or limits.max_pixels, or give the workers more."
    )
