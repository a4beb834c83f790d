"""What libraries write to the process's stderr past Python: kept back while a command draws there.

Ray's core says a line for each pool of actors, whatever its settings; in the middle of a live view it breaks that for
good, and in a log of JSON it is none. A trap: the descriptor is what such code writes to, so Python's stderr gets
another one meanwhile.
"""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TextIO

_NUMBER = 2
_RAYS = re.compile(r"\[\d{4}-\d\d-\d\d [^\]]*\] [\w.]+:\d+: ")
"""How lines of Ray's core begin; its own log has them all."""


@contextmanager
def kept_back() -> Iterator[None]:
    """Keep what is written past Python until the block ends, then show it; Ray's own lines are left out."""
    before = sys.stderr
    if not _is_of_the_process(before):  # somebody has replaced it, and knows why
        yield
        return
    before.flush()
    people = os.dup(_NUMBER)
    # A line at a time, as Python's own.
    shown = io.TextIOWrapper(os.fdopen(people, "wb"), before.encoding, before.errors, line_buffering=True)
    with tempfile.TemporaryFile() as kept, shown:
        os.dup2(kept.fileno(), _NUMBER)
        sys.stderr = shown
        try:
            yield
        finally:
            shown.flush()
            sys.stderr = before
            os.dup2(people, _NUMBER)
            _show(kept, before)


def _is_of_the_process(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.fileno() == _NUMBER
    except (OSError, ValueError):  # none, or closed
        return False


def _show(kept: IO[bytes], to: TextIO) -> None:
    kept.seek(0)
    for line in io.TextIOWrapper(kept, errors="replace"):
        if not _RAYS.match(line):
            to.write(line if line.endswith("\n") else f"{line}\n")
    to.flush()
