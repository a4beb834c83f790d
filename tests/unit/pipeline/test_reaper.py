from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pipeline import reaper
from pipeline.reaper import MARK, marked, reaped

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at /proc")

FOREVER = "import signal; print('up', flush=True); signal.pause()"


def grandchild() -> int:
    """A process that its parent left behind in a session of its own, deaf to polite signals, as a worker may be."""
    program = f"""
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
child = subprocess.Popen([sys.executable, "-c", {FOREVER!r}], start_new_session=True, **pipes)
child.stdout.readline()
print(child.pid)
"""
    return int(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE  # until whoever inherited it takes note
    except psutil.NoSuchProcess:
        return True


def test_what_a_block_started_ends_with_it_however_far_it_is() -> None:
    with reaped():
        left = grandchild()
        assert marked(os.environ[MARK]) == [left]
    assert is_gone(left)
    assert MARK not in os.environ


def test_what_was_started_before_is_left_alone() -> None:
    with subprocess.Popen([sys.executable, "-c", FOREVER], stdout=subprocess.PIPE) as before:
        with reaped():
            pass
        assert before.poll() is None
        before.kill()


def test_what_a_killed_driver_started_ends_soon_after_it() -> None:
    program = f"""
import os, signal, sys
sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}
from pipeline.reaper import reaped
from test_reaper import grandchild
with reaped():
    print(grandchild(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    driver = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=False)
    assert driver.returncode == -signal.SIGKILL
    while not is_gone(int(driver.stdout)):
        os.sched_yield()


def test_a_process_that_no_signal_reaches_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = 2**22 + 1  # above the kernel's largest process number
    monkeypatch.setattr(reaper, "marked", lambda mark: [nobody])
    monkeypatch.setattr(reaper, "PATIENCE_S", 0.5)
    reaper.reap("mark")  # and comes back
