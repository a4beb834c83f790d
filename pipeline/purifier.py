"""Builds the job's purifier where it will run, and says what that is: the execution profile."""

from __future__ import annotations

from typing import Any

import torch

from pipeline.config import JobConfig
from zipstage.purifiers import build, profile_of
from zipstage.purifiers.base import Purifier


def build_purifier(config: JobConfig, device: str) -> tuple[Purifier, dict[str, Any]]:
    """The purifier of a job on a device, and its profile for the records.

    On a CPU each purifier has one thread: as many purifiers as cores, no waiting between threads,
    and bytes that do not depend on their number.
    """
    if device == "cpu":
        torch.set_num_threads(1)
    settings = config.purifier.settings()
    purifier = build(settings, device, config.purifier.batch)
    return purifier, profile_of(purifier, device)
