"""Ends what is left of an own cluster when its driver is gone, whatever ended the driver.

Ray's node ends with the driver that started it, and workers with their node, but not all of them: a worker
that was just starting, and the node's agents, wait for the answers of a cluster that is dead, some for 75 s, some
for minutes, with half a GB. So a small process waits for the driver's end and kills whatever carries the driver's mark
in its environment. Linux only. Trap: this file runs as a program too, so it loads the standard library alone.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = "OF_ZIPSTAGE_DRIVER"
"""The variable that processes of an own cluster inherit; not among those that are settings."""

LOOK_S = 0.2
PATIENCE_S = 20.0
QUIET = 3
"""Looks in a row that must find nothing: one that dies may just have started another."""


@contextmanager
def reaped() -> Iterator[None]:
    """Whatever is started in the block, by this process or its children, ends with the block, or with this process."""
    if not sys.platform.startswith("linux"):
        yield
        return
    mark = secrets.token_hex(8)
    waiting = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, mark],
        stdin=subprocess.PIPE,  # closed by the system when this process ends
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C is for the driver
    )
    os.environ[MARK] = mark
    try:
        yield
    finally:
        del os.environ[MARK]
        waiting.communicate()


def marked(mark: str) -> list[int]:
    """The processes that carry a mark."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):  # it ended, or is another user's
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
    return found


def reap(mark: str) -> None:
    """Kill all that carry a mark, until none is left; one that no signal reaches is left to the system."""
    quiet, until = 0, time.monotonic() + PATIENCE_S
    while quiet < QUIET and time.monotonic() < until:
        found = marked(mark)
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        quiet = 0 if found else quiet + 1
        time.sleep(LOOK_S)


if __name__ == "__main__":
    sys.stdin.read()  # until the driver ends
    reap(sys.argv[1])
