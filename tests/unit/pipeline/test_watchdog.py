from __future__ import annotations

import pytest

from pipeline.attempts import Attempts
from pipeline.errors import StalledError
from pipeline.sizing import Node, Sizing, num_placed
from pipeline.watchdog import LOOK_S, Watchdog

STALL_S = 600.0


class Scene:
    """A graph that is said to stand still, on nodes and at a time of one's choice."""

    def __init__(self, pool: Sizing, *nodes: Node) -> None:
        self.now, self.nodes, self.alive = 0.0, list(nodes), {"node"}
        self.attempts = Attempts(3, lambda node: node in self.alive, lambda: self.now)
        self.watchdog = Watchdog(STALL_S, pool, lambda: self.nodes, self.attempts.progress, lambda: self.now)

    def read(self, *parts: int, until_end: bool = True) -> None:
        self.attempts.begin("reading", "a.tar", 0, "node")
        for part in parts:
            self.attempts.advance("a.tar", part)
        if until_end:
            self.attempts.end("reading", "a.tar")

    def purify(self, *parts: int) -> None:
        for part in parts:
            self.attempts.begin("purifying", "a.tar", part, "node")
            self.attempts.end("purifying", "a.tar", part)

    def stalled(self) -> StalledError:
        self.now = STALL_S + 1
        with pytest.raises(StalledError) as raised:
            self.watchdog.look()
        assert "\n" not in str(raised.value)
        return raised.value


def on_cpus() -> Scene:
    return Scene(Sizing("cpu", 2, 0.5), Node(2))


def on_gpus() -> Scene:
    return Scene(Sizing("cuda", 4, 1.0, 1.0), Node(8, 2), Node(8, 2))


def test_a_graph_that_began_nothing_waits_for_its_readers():
    error = on_cpus().stalled()
    assert str(error).startswith("reading stands still: no part came for 600 s. ")
    assert "Lower cluster.actors" in str(error)
    assert error.exit_code == 1


def test_a_reader_that_hands_on_nothing_is_named_with_its_shard():
    scene = on_cpus()
    scene.read(0, 1, until_end=False)
    scene.purify(0, 1)
    for part in (0, 1):
        scene.attempts.end("staging", "a.tar", part)
    line = str(scene.stalled())
    assert line.startswith("reading stands still")
    assert "At work: a.tar for 601 s. Look whether the input's storage answers" in line
    assert "So far 2 read, 2 purified, 2 staged parts" in line


def test_parts_that_no_purifier_takes_are_that_stages_and_not_the_readers():
    scene = on_cpus()
    scene.read(0, 1, 2, until_end=False)
    line = str(scene.stalled())
    assert line.startswith("purifying stands still")
    assert "3 parts wait, and no purifier took them" in line


def test_a_part_that_is_purified_for_too_long_is_named():
    scene = on_cpus()
    scene.read(*range(9))
    for part in range(5):
        scene.attempts.begin("purifying", "a.tar", part, "node")
    line = str(scene.stalled())
    assert line.startswith("purifying stands still")
    assert "a.tar part 0 for 601 s, a.tar part 1 for 601 s, a.tar part 2 for 601 s and 2 more" in line
    assert "part.tiles" in line


def test_purified_parts_that_nobody_stages_are_stagings():
    scene = on_cpus()
    scene.read(*range(9), until_end=False)
    scene.purify(*range(4))
    assert str(scene.stalled()).startswith("staging stands still")
    scene.attempts.begin("staging", "a.tar", 2, "node")
    line = str(scene.stalled())
    assert line.startswith("staging stands still")
    assert "At work: a.tar part 2" in line
    assert "output's storage" in line


def test_a_part_that_is_purified_twice_counts_once():
    scene = on_cpus()
    scene.read(0, 1)
    scene.purify(0, 0, 0)
    assert scene.attempts.progress().done == {"reading": 2, "purifying": 1, "staging": 0}
    scene.attempts.end("staging", "a.tar", 0)
    assert str(scene.stalled()).startswith("purifying")


def test_a_part_comes_in_time_and_nothing_is_said():
    scene = on_cpus()
    for now in range(0, 3000, 500):
        scene.now = float(now)
        assert scene.watchdog.look() is None
        scene.watchdog.heard()


def test_purifiers_without_room_are_said_once_with_what_they_wait_for():
    scene = on_gpus()
    scene.now = LOOK_S
    assert scene.watchdog.look() is None
    scene.nodes.pop()
    assert scene.watchdog.look() is None  # not looked at again so soon
    scene.now = 2 * LOOK_S
    line = scene.watchdog.look()
    assert line is not None
    assert "2 of 4 purifiers wait for room, 1 GPU and 1 CPU each: the cluster has 2 GPUs now" in line
    scene.now = 3 * LOOK_S
    assert scene.watchdog.look() is None
    scene.nodes.append(Node(8, 2))
    scene.now = 4 * LOOK_S
    assert scene.watchdog.look() is None
    scene.nodes.pop()
    scene.now = 5 * LOOK_S
    assert scene.watchdog.look() is not None


def test_a_graph_that_stands_still_for_want_of_nodes_says_so_and_may_be_tried_again():
    scene = on_gpus()
    scene.read(0, 1)
    scene.attempts.begin("purifying", "a.tar", 0, "gone")
    scene.nodes.pop()
    error = scene.stalled()
    assert "2 of 4 purifiers wait for room" in str(error)
    assert "2 parts wait" in str(error)  # the one that was begun is no one's work any more
    assert error.exit_code == 75


def test_as_many_purifiers_have_room_as_whole_shares_fit():
    pool = Sizing("cpu", 6, 0.4)
    assert num_placed([Node(1), Node(1.2)], pool) == 5
    assert num_placed([Node(8, 1), Node(0.5, 4)], Sizing("cuda", 4, 0.5, 0.5)) == 3
    assert num_placed([], pool) == 0
