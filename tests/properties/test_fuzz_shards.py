"""Whatever a shard is turned into, it is read whole or fails by name, and what stood before the fault is there."""

from __future__ import annotations

from fuzzing import check_shard, mutated_tars, tar_seeds
from hypothesis import given, settings


@given(mutated_tars())
@settings(deadline=None, max_examples=400)
def test_a_mutated_shard_gives_a_complete_account_or_a_named_failure(pair: tuple[bytes, bytes]):
    check_shard(*pair)


def test_each_seed_does_as_well_as_it_is():
    assert sum(check_shard(seed, seed) for seed in tar_seeds()) > 40
