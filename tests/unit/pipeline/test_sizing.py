from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.sizing import ASK_CPUS, COMMIT_CPUS, READ_CPUS, STAGE_CPUS, Node, size


def beside(commits: int = 2) -> float:
    """What has to find room beside the purifiers."""
    return READ_CPUS + STAGE_CPUS + commits * COMMIT_CPUS + ASK_CPUS


def test_two_cpus_of_one_machine_get_two_purifiers_and_the_designs_share():
    found = size([Node(2)], "auto", 0, 2)
    assert (found.device, found.purifiers, found.gpus) == ("cpu", 2, 0)
    assert found.cpus == pytest.approx((2 - 0.5 - 2 * 0.1 - 0.05) / 2, abs=1e-4)


def test_four_nodes_of_one_cpu_keep_room_on_each_and_lose_one():
    found = size([Node(1)] * 4, "auto", 0, 2)
    assert found.purifiers == 4
    on_a_node = int((1 - beside()) / found.cpus)
    assert 3 * on_a_node >= 4


def test_a_large_machine_leaves_room_too():
    found = size([Node(200)], "auto", 0, 2)
    assert found.purifiers == 200
    assert found.cpus < 1
    assert 200 - found.purifiers * found.cpus >= beside()


def test_few_purifiers_take_a_whole_cpu_at_most():
    assert size([Node(64)], "cpu", 3, 2).cpus == 1


@settings(deadline=None, max_examples=60)
@given(
    cpus=st.lists(st.integers(1, 96), min_size=1, max_size=8),
    actors=st.integers(0, 60),
    commits=st.integers(1, 2),
)
def test_all_purifiers_fit_beside_the_others_work_with_the_largest_node_gone(
    cpus: list[int], actors: int, commits: int
):
    found = size([Node(count) for count in cpus], "auto", actors, commits)
    left = sorted(cpus)[:-1] or cpus
    assert sum(int((count - beside(commits) + 1e-9) / found.cpus) for count in left) >= found.purifiers
    assert 0 < found.cpus <= 1


def test_half_a_cpu_keeps_a_reader_and_a_stage_going():
    found = size([Node(0.5)], "auto", 2, 2)
    assert 0 < found.purifiers * found.cpus <= 0.5 - READ_CPUS - STAGE_CPUS


def test_a_head_without_cpus_and_one_worker_are_sized_for_the_worker():
    assert size([Node(0), Node(8)], "auto", 0, 2).purifiers == 8
    assert size([Node(0), Node(8)], "auto", 0, 2).cpus == size([Node(8)], "auto", 0, 2).cpus


def test_each_gpu_gets_one_purifier_and_more_share_it_evenly():
    nodes = [Node(8, 2), Node(8, 0)]
    assert (size(nodes, "auto", 0, 2).purifiers, size(nodes, "auto", 0, 2).gpus) == (2, 1)
    assert size(nodes, "cuda", 3, 2).gpus == 0.5  # two thirds would fit once on each of the two
    assert size(nodes, "auto", 0, 2).cpus == 1
    assert size([Node(2, 4)], "auto", 0, 2).cpus == pytest.approx((2 - 0.75) / 4, abs=1e-4)
    assert size(nodes, "cpu", 0, 2).device == "cpu"


def test_cuda_without_a_gpu_is_refused_in_one_line():
    with pytest.raises(ConfigError, match="no GPU") as raised:
        size([Node(8), Node(8)], "cuda", 0, 2)
    assert "\n" not in str(raised.value)


def test_more_purifiers_than_can_be_placed_are_refused():
    with pytest.raises(ConfigError, match=r"cluster\.actors 9999"):
        size([Node(1)], "auto", 9999, 2)


def test_cuda_without_a_gpu_waits_for_the_autoscaler_when_the_purifiers_are_counted():
    sizing = size([Node(8)], "cuda", 2, 2)
    assert (sizing.device, sizing.purifiers, sizing.gpus) == ("cuda", 2, 1.0)
