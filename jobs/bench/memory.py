"""Memory of a process and all that it started, as Linux counts it.

PSS divides shared pages among those who share them, so that a sum over processes counts Ray's
object store once. Trap: a process that ends between two samples is missed at its last.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

EVERY_S = 0.5


class MemoryWatch:
    """Samples the memory of this process and its descendants while its block runs.

    Attributes:
        peak_bytes: The largest sum of PSS that was seen.
    """

    def __init__(self, every_s: float = EVERY_S) -> None:
        self.peak_bytes = 0
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)

    def __enter__(self) -> Self:
        self._sample()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self._sample()

    def _sample(self) -> None:
        self.peak_bytes = max(self.peak_bytes, sum(pss_of(pid) for pid in tree_of(os.getpid())))


def pss_of(pid: int) -> int:
    """A process's proportional set size in bytes; 0 when it has ended or may not be looked at."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)


def tree_of(root: int) -> list[int]:
    """A process and its descendants."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (parent := _parent_of(folder)) is not None:
            children.setdefault(parent, []).append(int(folder.name))
    tree = [root]
    for pid in tree:  # grows while it is walked
        tree += children.get(pid, [])
    return tree


def _parent_of(folder: Path) -> int | None:
    try:
        stat = (folder / "stat").read_text()
    except OSError:  # it has ended
        return None
    return int(stat.rpartition(")")[2].split()[1])  # a process may have spaces and brackets in its name


def cgroup_peak_bytes() -> int | None:
    """Peak of this process's control group since that began; None where it can't be read."""
    try:
        group = Path("/proc/self/cgroup").read_text().partition("0::")[2].strip()
        return int(Path(f"/sys/fs/cgroup{group.rstrip('/')}/memory.peak").read_text())
    except (OSError, ValueError):
        return None
