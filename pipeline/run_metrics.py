"""A run's own counts for Prometheus, from its facts: they agree with its summary.

Counted by the driver, in one process that ends in order, each with the run's name as a tag. That adds no series:
Ray gives those of each process a label of their own anyway, and a run is one driver's.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline import metrics
from pipeline.ask import Asked
from pipeline.commit import Committed
from pipeline.facts import Fact, Failed, Planned, Started
from pipeline.parts import Receipt


class RunMetrics:
    """Counts a run's facts, once its engine is up.

    Args:
        run: The run's name.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._planned = Planned(0, 0, 0, 0)
        self._early: list[Failed] | None = []  # shards that were refused before there was anything to count them

    def note(self, fact: Fact) -> None:
        """Take in a fact."""
        match fact:
            case Planned():
                self._planned = fact
            case Started():
                self._begin(fact)
            case Failed() if self._early is not None:
                self._early.append(fact)
            case Failed():
                self._add("shards", outcome="failed")
            case Receipt():
                self._add("parts", outcome=fact.outcome)
                self._add("images", fact.images if fact.outcome == "staged" else 0)
            case Committed():
                self._commit(fact)
            case Asked(away=None, error=None):
                self._add("shards", outcome="answered")
                self._add("flips", fact.flipped)
                self._add_each("answers", fact.statuses)
            case Asked():
                self._add("shards", outcome="unanswered")
            case _:
                pass

    def _begin(self, started: Started) -> None:
        for metric in metrics.METRICS.values():
            if (metric.by, metric.kind) == ("driver", "counter"):
                metrics.announce(metric.name, run=self._run)
        metrics.show("zipstage_planned_shards", self._planned.to_purify, run=self._run)
        metrics.show("zipstage_planned_bytes", self._planned.size_bytes, run=self._run)
        metrics.show("zipstage_purifiers", started.purifiers, run=self._run)
        refused, self._early = self._early or [], None
        for fact in refused:
            self.note(fact)

    def _commit(self, committed: Committed) -> None:
        self._add("shards", outcome="committed")
        self._add_each("samples", committed.statuses)
        self._add("received_bytes", committed.record["source"]["size"])
        self._add("written_bytes", sum(file["size"] for file in committed.record["outputs"].values()))

    def _add_each(self, name: str, counts: Mapping[str, int]) -> None:
        for status, count in counts.items():
            self._add(name, count, status=status)

    def _add(self, name: str, value: float = 1, **tags: str) -> None:
        metrics.add(f"zipstage_{name}_total", value, **tags, run=self._run)
