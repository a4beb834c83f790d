"""Reader, decoder and the whole job under mutations, for as long as ZIPSTAGE_FUZZ_MINUTES says (20).

Prints executions, what came out, the slowest case (processor time) and the process's largest size. What fails is kept
as a file in `.drills/fuzz`, to become a case of the corpus.
"""

from __future__ import annotations

import hashlib
import os
import resource
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fuzzing import check_image, check_shard, mutated_images, mutated_tars
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from inprocess import run
from making import job

MINUTES = float(os.environ.get("ZIPSTAGE_FUZZ_MINUTES", "20"))
FOUND = Path(".drills/fuzz")
ROUND = 500
SLOW_S = 20.0
MAX_GROWTH_MIB = 600

Pair = tuple[bytes, bytes]


@dataclass
class Target:
    """One thing that is fuzzed, and what came of it."""

    name: str
    share: float
    inputs: st.SearchStrategy[Pair]
    check: Callable[[Pair], object]
    outcomes: Counter[object] = field(default_factory=Counter)
    findings: dict[str, str] = field(default_factory=dict)
    slowest_s: float = 0.0
    seconds: float = 0.0

    def run(self, until: float) -> None:
        round_number = 0
        while time.monotonic() < until:
            self._round(round_number)
            round_number += 1

    def _round(self, number: int) -> None:
        @seed(number)
        @settings(
            max_examples=ROUND,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(self.inputs)
        def case(pair: Pair) -> None:
            started = time.process_time()  # the machine may have other work
            try:
                self.outcomes[self.check(pair)] += 1
            except Exception as error:  # noqa: BLE001 - whatever comes is a finding, and the drill goes on
                self._keep(pair[1], error)
            took_s = time.process_time() - started
            self.slowest_s = max(self.slowest_s, took_s)
            if took_s > SLOW_S:
                self._keep(pair[1], TimeoutError(f"{took_s:.0f} s"))

        case()

    def _keep(self, data: bytes, error: Exception) -> None:
        self.outcomes["found"] += 1
        kind = f"{type(error).__name__}: {str(error)[:120]}"
        if kind not in self.findings:
            FOUND.mkdir(parents=True, exist_ok=True)
            path = FOUND / f"{self.name}-{hashlib.sha256(data).hexdigest()[:12]}"
            path.write_bytes(data)
            self.findings[kind] = str(path)


class WholeJob:
    """Runs the job over one mutated shard: its rows are all there, or it is named."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0

    def __call__(self, pair: Pair) -> str:
        self.count += 1
        folder = self.folder / str(self.count % 50)  # small folders, written over
        place = folder / "in" / f"{self.count}.tar"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(pair[1])
        config = job(folder, input=str(place), output=str(folder / f"out{self.count}"), limits__max_pixels=1_000_000)
        summary, _ = run(config)
        place.unlink()
        if summary.exit_code == 1:
            assert list(summary.failed) == [place.name]
            assert not list((folder / f"out{self.count}/shards").rglob("*.tar"))
            return "failed by name"
        assert summary.exit_code == 0
        rows = pq.read_table(folder / f"out{self.count}/tables/{place.name}.parquet").to_pylist()
        assert [row["index"] for row in rows] == list(range(len(rows)))
        return "committed"


@pytest.mark.drill
def test_nothing_is_lost_and_nothing_gets_in_whatever_comes(tmp_path: Path):
    whole = WholeJob(tmp_path)
    targets = [
        Target("reader", 0.4, mutated_tars(), lambda pair: "whole" if check_shard(*pair) else "failed by name"),
        Target("decoder", 0.4, mutated_images(), lambda pair: "decoded" if check_image(pair[1]) else "refused"),
        Target("job", 0.2, mutated_tars(), whole),
    ]
    before_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    for target in targets:
        started = time.monotonic()
        target.run(started + target.share * MINUTES * 60)
        target.seconds = time.monotonic() - started
        outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(target.outcomes.items(), key=str))
        print(
            f"{target.name}: {target.outcomes.total():,} executions in {target.seconds:.0f} s ({outcomes}), "
            f"slowest {target.slowest_s:.2f} s, {len(target.findings)} kinds of findings",
            flush=True,
        )
        for kind, path in target.findings.items():
            print(f"  {kind} -> {path}", flush=True)
    after_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"largest size of the process: {after_mib} MiB, {after_mib - before_mib} MiB more than at the start")
    assert [kind for target in targets for kind in target.findings] == []
    assert after_mib - before_mib < MAX_GROWTH_MIB
