"""A job on a real Ray, in a process of its own that tells each fact as a line, so that a test can end it at one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent


@contextmanager
def started(fields: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    """Start `purify`; fields by dotted names. Its output is closed and it is killed at the end, if it still runs."""
    search = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-m", "raychild", json.dumps(fields)],
        env={**os.environ, "PYTHONPATH": search, "OMP_NUM_THREADS": "1"},
        cwd=TESTS.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def finish(fields: dict[str, Any]) -> dict[str, Any]:
    """Run a job to its end; gives its summary."""
    with started(fields) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    summary: dict[str, Any] = json.loads(out.splitlines()[-1])
    return summary


def kill_at(fields: dict[str, Any], fact: str, count: int) -> None:
    """Run a job until it has told a fact so many times, then SIGKILL its driver."""
    told = []
    with started(fields) as process:
        assert process.stdout is not None
        for line in process.stdout:
            told.append(line.strip())
            if told.count(fact) == count:
                process.send_signal(signal.SIGKILL)
                process.wait()
                return
    raise AssertionError(f"ended before fact {fact} number {count}: {told}")


def main() -> None:
    from pipeline.config_loading import load_config, nest
    from pipeline.job import purify

    summary = purify(
        load_config(None, nest(json.loads(sys.argv[1]))), lambda fact: print(type(fact).__name__, flush=True)
    )
    print(json.dumps(summary.to_dict()))


if __name__ == "__main__":
    main()
