"""A process that ends at any of its writes, and the rerun that finishes its work."""

from __future__ import annotations

from pathlib import Path

from inprocess import DIED, run_in_a_process
from making import job, samples, tree, write_tar

OUTPUTS = ("shards", "tables", "records", "predictions", "_staging")


def two_shards(folder: Path) -> None:
    for name, first in (("a/000000.tar", 0), ("b.tar", 100)):
        write_tar(folder / "in" / name, samples(5, first, 200, 200))


def outcome(folder: Path) -> dict[str, bytes]:
    """What must be the same after a crash and a rerun; records name the input's inode, so by name alone."""
    found = tree(folder / "out", *OUTPUTS)
    return {path: b"" if path.startswith("records/") else data for path, data in found.items()}


def test_after_a_crash_at_any_write_a_rerun_gives_the_same_and_purifies_no_staged_part_again(tmp_path: Path) -> None:
    two_shards(tmp_path)
    fields = {"input": str(tmp_path / "in"), "part__tiles": 2}
    whole = tmp_path / "whole"
    log = tmp_path / "whole.log"
    assert run_in_a_process(job(whole, **fields), 0, log) == 0
    *parts, writes = log.read_text().splitlines()
    reference = outcome(whole)
    assert len(parts) == 6  # two shards of five tiles, two tiles a part
    assert {path for path in reference if path.startswith("records/")}
    assert not any(path.startswith("_staging/") for path in reference)

    for n in range(1, int(writes.removeprefix("writes ")) + 1):
        folder, log = tmp_path / f"at{n}", tmp_path / f"at{n}.log"
        assert run_in_a_process(job(folder, **fields), n, log) == DIED, n
        assert run_in_a_process(job(folder, **fields), 0, log) == 0, n
        assert outcome(folder) == reference, n
        purified = [line for line in log.read_text().splitlines() if not line.startswith("writes")]
        # The one part that was purified and not yet staged is done again; no other.
        assert len(purified) <= 7, n
