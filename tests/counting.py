"""What is asked of the stores while a block runs, whoever opened them: each call, and the objects that were read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from pipeline.store import Store, Stored

CALLS = ("list", "head", "get", "get_range", "put", "writer", "delete", "delete_below")


@dataclass
class Calls:
    """Calls of all stores of this process.

    Args:
        counts: How many, by the method's name.
        read: What was opened, as a URI.
    """

    counts: Counter[str] = field(default_factory=Counter)
    read: set[str] = field(default_factory=set)


@contextmanager
def counted() -> Iterator[Calls]:
    calls = Calls()

    def counting(name: str) -> Any:
        real = getattr(Store, name)

        def call(self: Store, *args: Any, **kwargs: Any) -> Any:
            calls.counts[name] += 1
            if name in ("get", "get_range"):
                path = args[0].path if isinstance(args[0], Stored) else args[0]
                calls.read.add(self.uri_of(path))
            return real(self, *args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(Store, name, counting(name))
        yield calls
