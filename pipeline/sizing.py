"""How many purifiers, and which share of a CPU and of a GPU each takes: pure arithmetic over the nodes.

Ray places by shares, and waits for ever for what doesn't fit. So the shares leave room, on each
node, for a reader, a stage, the commits and the asker; and with the largest node gone, the
purifiers still fit on the others. A lost GPU node is waited for: two networks on one GPU are no rescue.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import ConfigError

READ_CPUS, STAGE_CPUS, COMMIT_CPUS, ASK_CPUS = 0.25, 0.1, 0.1, 0.05
ROOM_CPUS = 0.5
"""For a reader and stages, which would else starve behind the purifiers."""

AWAITED_CPUS = 0.5
"""Share of a CPU for a purifier whose node an autoscaler has yet to bring: small, since its size isn't known."""

_UNITS = 10_000  # Ray counts resources in ten-thousandths


@dataclass(frozen=True, slots=True)
class Node:
    """What a node of the cluster offers."""

    cpus: float
    gpus: int = 0


@dataclass(frozen=True, slots=True)
class Sizing:
    """The pool of purifiers.

    Args:
        device: 'cuda' or 'cpu'.
        purifiers: How many.
        cpus: Share of a CPU that each takes; says nothing of its threads.
        gpus: Share of a GPU that each takes; 0 without.
    """

    device: Literal["cpu", "cuda"]
    purifiers: int
    cpus: float
    gpus: float = 0.0


def size(nodes: Sequence[Node], device: Literal["auto", "cpu", "cuda"], actors: int, commits: int) -> Sizing:
    """Size the pool.

    Args:
        nodes: The cluster.
        device: `purifier.device`.
        actors: `cluster.actors`; 0 takes one purifier a GPU, else one a CPU.
        commits: `cluster.commits`.

    Raises:
        ConfigError: 'cuda' without a GPU or a number of purifiers to wait for, or more than fit.
    """
    gpus = sum(node.gpus for node in nodes)
    if device == "cuda" and not gpus:
        if not actors:
            raise ConfigError(
                "purifier.device cuda: the cluster has no GPU. Leave it at auto, add a node with one, or, where an "
                "autoscaler brings them, say in cluster.actors how many."
            )
        return Sizing("cuda", actors, AWAITED_CPUS, 1.0)
    if gpus and device != "cpu":
        on_a_gpu = math.ceil(actors / gpus) if actors else 1
        purifiers = actors or gpus
        shares = [_cpus_for(node, commits) / (node.gpus * on_a_gpu) for node in nodes if node.gpus]
        return Sizing("cuda", purifiers, _floored(min(1.0, *shares)), _floored(1 / on_a_gpu))
    purifiers = actors or max(1, sum(int(node.cpus) for node in nodes))
    return Sizing("cpu", purifiers, _share(_surviving(nodes), purifiers, commits))


def num_placed(nodes: Sequence[Node], pool: Sizing) -> int:
    """How many purifiers of a pool these nodes could hold, were nothing else on them."""
    return sum(
        min(_fitting(node.cpus, pool.cpus), _fitting(node.gpus, pool.gpus) if pool.gpus else pool.purifiers)
        for node in nodes
    )


def _fitting(room: float, share: float) -> int:
    return round(room * _UNITS) // round(share * _UNITS)


def _cpus_for(node: Node, commits: int) -> float:
    """CPUs of a node that purifiers may take; on a small node a tenth, since what is beside them comes and goes."""
    beside = ROOM_CPUS + commits * COMMIT_CPUS + ASK_CPUS
    return max(node.cpus - beside, node.cpus / 10)


def _surviving(nodes: Sequence[Node]) -> Sequence[Node]:
    """The nodes without the largest one, unless it alone has CPUs."""
    by_size = sorted(nodes, key=lambda node: node.cpus)
    return by_size[:-1] if any(node.cpus for node in by_size[:-1]) else by_size


def _share(nodes: Sequence[Node], purifiers: int, commits: int) -> float:
    """The largest share, at most 1, of which so many fit on the nodes, none of them cut in two."""
    rooms = [int(_cpus_for(node, commits) * _UNITS) for node in nodes]
    for share in range(_UNITS, 0, -1):
        if sum(room // share for room in rooms) >= purifiers:
            return share / _UNITS
    raise ConfigError(f"cluster.actors {purifiers}: more than fit on {sum(node.cpus for node in nodes):g} CPUs.")


def _floored(share: float) -> float:
    return max(1, math.floor(share * _UNITS)) / _UNITS
