"""Which stage the others wait for, judged by where parts wait."""

from __future__ import annotations

from pipeline.attempts import Progress
from pipeline.facts import Slowest


def slowest(progress: Progress) -> Slowest:
    """The stage before which most parts wait; reading, when nobody waits but the purifiers."""
    read, purified, staged = (progress.done[stage] for stage in ("reading", "purifying", "staging"))
    to_purify = read - purified - len(progress.under_way_in("purifying"))
    to_stage = purified - staged - len(progress.under_way_in("staging"))
    if max(to_purify, to_stage) <= 0:
        return Slowest("reading", 0)
    return Slowest("purifying", to_purify) if to_purify >= to_stage else Slowest("staging", to_stage)
