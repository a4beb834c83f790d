"""What the main path asks of whatever runs the graph, and how commits and asks end there: as values.

`pipeline.graph` runs it on Ray. Anything that keeps these few promises will do: the tests run the
same main path in one process, which makes crashes cheap to produce.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Protocol, Self

from pipeline.ask import Asked, Asker
from pipeline.commit import Committed, commit, read_record
from pipeline.errors import TRY_AGAIN, StoreAwayError
from pipeline.facts import Failed, Slowest, Warned
from pipeline.ledger import Task
from pipeline.parts import Receipt
from pipeline.store import Shard, Store
from zipstage.errors import ZipstageError


class Engine(Protocol):
    """Runs Read, Purify and Stage over a window of shards, and commits and asks beside them."""

    device: str
    purifiers: int

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def receipts(self, window: Sequence[Task]) -> Iterator[Receipt | Warned | Slowest | None]:
        """Purify a window: a receipt for each part, in any order; None about once a second without one.

        A warning says what the work waits for; now and then it says which stage is the slowest.

        Raises:
            StalledError: No part came for longer than the settings allow.
            WorkerError: What runs it failed in a way that concerns no single part.
        """
        ...

    def drain(self) -> None:
        """Take no new parts: `receipts` ends when what is purified is staged, or has taken too long.

        May be called again.
        """
        ...

    def start_commit(self, task: Task, num_parts: int) -> None:
        """Commit a whole shard, beside all else and with a bound on how many are under way."""
        ...

    def start_ask(self, shard: Shard) -> None:
        """Ask about a committed shard, beside all else and with a bound as well."""
        ...

    def finished(self, wait_s: float = 0.0) -> Sequence[Committed | Asked | Failed | Warned]:
        """Commits and asks that ended since the last call, or what is to be said of those that don't.

        Waits up to `wait_s` for the first one.

        Raises:
            StalledError: None can end: nothing is left to run them.
        """
        ...

    @property
    def num_open(self) -> int:
        """Commits and asks that have not ended."""
        ...


def try_commit(task: Task, num_parts: int, output: Store, fingerprint: str) -> Committed | Failed:
    """Commit a shard; whatever goes wrong becomes the reason why this one failed."""
    try:
        return commit(task, num_parts, output, fingerprint)
    except ZipstageError as error:
        return Failed(task.shard.name, str(error), TRY_AGAIN if isinstance(error, StoreAwayError) else 1)
    except Exception as error:  # noqa: BLE001 - one shard's fault must not end the others
        return Failed(task.shard.name, f"shard {task.shard.name}: commit: {_last_line(error)}")


async def try_ask(asker: Asker, shard: Shard, output: Store) -> Asked:
    """Ask about a committed shard; whatever goes wrong becomes the reason why it is unanswered."""
    try:
        committed = await asyncio.to_thread(read_record, output, shard.name, shard.identity)
        if committed is None:
            return Asked(shard.name, error=f"shard {shard.name}: its record vanished while the job ran", exit_code=1)
        return await asker(shard, committed)
    except StoreAwayError as error:
        return Asked(shard.name, away=str(error), exit_code=TRY_AGAIN)
    except ZipstageError as error:
        return Asked(shard.name, error=str(error), exit_code=error.exit_code)
    except Exception as error:  # noqa: BLE001 - one shard's fault must not end the others
        return Asked(shard.name, error=f"shard {shard.name}: asking: {_last_line(error)}", exit_code=1)


def _last_line(error: BaseException) -> str:
    return " ".join(traceback.format_exception_only(error)[-1].split())
