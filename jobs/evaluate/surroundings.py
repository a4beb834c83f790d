"""Where and on what something was measured, in plain values: what a table needs to be believed."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from pathlib import Path

import torch

from zipstage import __version__


def surroundings(began: float) -> dict[str, object]:
    """Version, commit, machine and duration.

    Args:
        began: When the work began, by `time.monotonic`.
    """
    return {
        "version": __version__,
        "commit": _commit(),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "torch": torch.__version__,
        "seconds": round(time.monotonic() - began),
    }


def _commit() -> str:
    """The commit of the checkout this runs from, with a `+` when files differ from it; empty outside of one."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        try:
            done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return ""
        return done.stdout.strip()

    commit = git("rev-parse", "--short=12", "HEAD")
    return f"{commit}+" if commit and git("status", "--porcelain", "--untracked-files=no") else commit


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()
