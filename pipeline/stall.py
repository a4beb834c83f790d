"""What the watchdog says when no part comes: which stage stands still, on what, and what to do.

Judged from the far end: parts that wait before a stage are that stage's fault, not that of those before.
"""

from __future__ import annotations

from pipeline.attempts import STAGES, Progress, StageName, UnderWay

MAX_NAMED = 3

_WAITS_FOR: dict[StageName, str] = {
    "reading": "no reader was started: too few CPUs are free for one. Lower cluster.actors, or add CPUs",
    "purifying": "no purifier took them: none has started, or those that did were lost. Lower cluster.actors, or add "
    "the CPUs or GPUs that they wait for",
    "staging": "nobody staged them: too few CPUs are free beside the purifiers. Lower cluster.actors, or add CPUs",
}
_IS_SLOW: dict[StageName, str] = {
    "reading": "Look whether the input's storage answers; raise cluster.stall_s when it is that slow",
    "purifying": "Lower part.tiles, or raise cluster.stall_s, when a part takes that long",
    "staging": "Look whether the output's storage answers; raise cluster.stall_s when it is that slow",
}


def stalled(stall_s: float, progress: Progress, lost: str = "") -> str:
    """The watchdog's line.

    Args:
        stall_s: How long no part came.
        progress: What the workers have begun and ended.
        lost: What is known of nodes that the cluster has lost; empty: none.
    """
    stage = _stage(progress)
    under_way = progress.under_way_in(stage)
    if under_way:
        what = f"{_named(under_way)}. {_IS_SLOW[stage]}"
    else:
        what = f"{_num_waiting(stage, progress)}, and {_WAITS_FOR[stage]}"
    done = ", ".join(f"{progress.done[stage]:,} {_LEFT[stage]}" for stage in STAGES)
    return f"{stage} stands still: no part came for {stall_s:.0f} s. {lost}{what}. So far {done} parts."


def slow_commits(stall_s: float, shards: list[str]) -> str:
    """What people are told when no commit ends: a large shard takes long, or its storage does."""
    return (
        f"no commit ended for {stall_s:.0f} s: {_some(shards)}. It goes on; look whether the output's storage answers"
    )


def no_node(stall_s: float, shards: list[str]) -> str:
    """The line of a run whose purified shards no node is left to commit or to ask about."""
    return (
        f"no node with a CPU is left, for {stall_s:.0f} s, to commit or to ask about {_some(shards)}. "
        "What is staged stays: run again once there are nodes."
    )


def _some(shards: list[str]) -> str:
    more = f" and {len(shards) - MAX_NAMED:,} more" if len(shards) > MAX_NAMED else ""
    return ", ".join(shards[:MAX_NAMED]) + more


_LEFT: dict[StageName, str] = {"reading": "read", "purifying": "purified", "staging": "staged"}


def _stage(progress: Progress) -> StageName:
    """The last stage that has something to do."""
    if progress.under_way_in("staging") or progress.done["purifying"] > progress.done["staging"]:
        return "staging"
    if progress.under_way_in("purifying") or progress.done["reading"] > progress.done["purifying"]:
        return "purifying"
    return "reading"


def _num_waiting(stage: StageName, progress: Progress) -> str:
    if stage == "reading":
        return "Shards wait"
    before = STAGES[STAGES.index(stage) - 1]
    count = progress.done[before] - progress.done[stage]
    return f"{count:,} {'part waits' if count == 1 else 'parts wait'}"


def _named(under_way: list[UnderWay]) -> str:
    some = [_name(one) for one in under_way[:MAX_NAMED]]
    more = len(under_way) - len(some)
    return "At work: " + ", ".join(some) + (f" and {more:,} more" if more else "")


def _name(one: UnderWay) -> str:
    part = "" if one.work.stage == "reading" else f" part {one.work.part}"
    return f"{one.work.shard}{part} for {one.for_s:.0f} s"
