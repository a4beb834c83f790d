"""The graph on Ray Data: Read tasks, a pool of Purify actors, Stage tasks; commits and asks beside it.

What was found by running Ray 2.60, and decides the numbers here: with blocks of the default size
small parts do not stream, so one row is one block; a part that kills its actor is tried for ever,
so attempts are counted outside; an exception ends the job, so failures travel as data; a slow
driver holds nothing back, so the receipts are read by a thread of their own; CPU shares that just
fit hang when a node is lost, so `pipeline.sizing` leaves room. Ray's retries of what a function
raised stay off: what can be expected travels as data, and a reader that is run again skips by position.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import ray
import ray.data
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline import cluster, ray_errors, workers
from pipeline.ask import Asked
from pipeline.attempts import Attempts, Progress
from pipeline.commit import Committed
from pipeline.config import JobConfig
from pipeline.errors import TRY_AGAIN, StalledError
from pipeline.facts import Failed, Slowest, Warned
from pipeline.ledger import Task
from pipeline.parts import Receipt
from pipeline.sizing import ASK_CPUS, COMMIT_CPUS, READ_CPUS, STAGE_CPUS, size
from pipeline.slowest import slowest
from pipeline.stall import no_node, slow_commits
from pipeline.stopping import DRAIN_S
from pipeline.store import Shard, Store
from pipeline.watchdog import Watchdog

ASKS = 4
"""Shards that are asked about at once; how many requests that makes is the classifier's own bound."""

AHEAD, AHEAD_A_PURIFIER = 16, 8
"""Parts that may be read and not staged: enough for purifiers to find work at any time, and a bound on memory."""

TICK_S = 1.0

LOOK_S = 5.0
"""Seconds between two looks at which stage is the slowest."""

CLOSE_S = 2.0
"""Seconds that the graph has to end by itself before its cluster does."""

ANSWER_S = 30.0
"""Seconds that the actor that counts attempts has to say where the graph stands."""


@dataclass(frozen=True, slots=True)
class Open:
    """A commit or an ask under way."""

    kind: Literal["commit", "ask"]
    shard: str


class RayEngine:
    """Runs the graph on a Ray cluster, an own local one unless an address is set.

    Args:
        config: The job.
        output: Where it goes.
        fingerprint: Of the settings, for the records.
        verbose: Whether Ray and its workers may speak.
    """

    def __init__(self, config: JobConfig, output: Store, fingerprint: str, *, verbose: bool = False) -> None:
        self.verbose = verbose
        self.config, self.output, self.fingerprint = config, output, fingerprint
        self.device, self.purifiers = "cpu", 0
        self._waiting_commits: deque[tuple[Task, int]] = deque()
        self._waiting_asks: deque[Shard] = deque()
        self._open: dict[Any, Open] = {}  # by Ray object reference
        self._ended_at = time.monotonic()  # when a commit or ask last ended, or none was open
        self._asker: Any = None  # a Ray actor handle
        self._looking: Any = None  # a Ray object reference
        self._look_at = 0.0
        self._reader: threading.Thread | None = None
        self._drained_by: float | None = None  # by which second at the latest

    def __enter__(self) -> Self:
        with ray_errors.told(), ExitStack() as stack:
            stack.enter_context(cluster.connected(self.config.cluster, verbose=self.verbose))
            stack.callback(self._close)
            self._prepare()
            self._entered = stack.pop_all()
        return self

    def _prepare(self) -> None:
        nodes = cluster.nodes()
        cluster.refuse_paths_of_one_machine(self.config, self.output.uri, len(nodes))
        cluster.configure_data()
        limits = self.config.cluster
        self._sizing = size(nodes, self.config.purifier.device, limits.actors, limits.commits)
        self.device, self.purifiers = self._sizing.device, self._sizing.purifiers
        # Beside the driver, with whom the job would end anyway; soft affinity puts it on any node, lost with that.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        counting = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)
        self._attempts = counting(Attempts).remote(
            limits.max_attempts, workers.is_node_alive, max_ahead=AHEAD + AHEAD_A_PURIFIER * self.purifiers
        )
        self._commit = ray.remote(num_cpus=COMMIT_CPUS, max_retries=2)(workers.commit)
        self._output = ray.put(self.output)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.close()

    def _close(self) -> None:
        """Let the graph end before its cluster does; it does so when the next part comes, should one come."""
        if self._reader is not None:
            self._reader.join(CLOSE_S)

    # --- the graph ---

    def receipts(self, window: Sequence[Task]) -> Iterator[Receipt | Warned | Slowest | None]:
        """Purify a window: a receipt for each part, in any order; None about once a second without one."""
        received: queue.SimpleQueue[Receipt | BaseException | None] = queue.SimpleQueue()
        stop = threading.Event()
        self._reader = threading.Thread(target=self._pump, args=(window, received, stop), name="receipts", daemon=True)
        self._reader.start()
        watchdog = Watchdog(self.config.cluster.stall_s, self._sizing, cluster.nodes, self._progress)
        try:
            while not self._is_drained():
                if (stage := self._look_for_slowest()) is not None:
                    yield stage
                try:
                    item = received.get(timeout=TICK_S)
                except queue.Empty:
                    line = watchdog.look()
                    yield None if line is None else Warned(line)
                    continue
                if item is None:
                    return
                if self._drained_by is not None and (isinstance(item, BaseException) or item.outcome == "stopped"):
                    continue
                if isinstance(item, RayError):
                    raise ray_errors.cleaned(item) from None
                if isinstance(item, BaseException):
                    raise item
                watchdog.heard()
                yield item
        finally:
            stop.set()

    def _pump(
        self, window: Sequence[Task], received: queue.SimpleQueue[Receipt | BaseException | None], stop: threading.Event
    ) -> None:
        """Read the graph's output as fast as it comes; runs in a thread, so it hands errors over."""
        try:
            # By blocks, not by `iter_batches`: that leaves a thread behind each time, and takes three to hand one on.
            for bundle in self._dataset(window).iter_internal_ref_bundles():
                for block in ray.get([entry.ref for entry in bundle.blocks]):
                    for text in block["receipt"].to_pylist():
                        received.put(Receipt.from_json(text))
                if stop.is_set():
                    return
            received.put(None)
        except BaseException as error:  # noqa: BLE001 - handed to the main thread, which raises it
            received.put(error)

    def _dataset(self, window: Sequence[Task]) -> ray.data.Dataset:
        # Each row carries its own task: a reader that loads all of them is slower the more shards there are.
        rows = [{"task": task.to_json()} for task in window]
        reading = {"config": self.config, "attempts": self._attempts}
        staging = {**reading, "output": (self.output.uri, self.output.patience_s)}
        purify = {
            "compute": ray.data.ActorPoolStrategy(size=self.purifiers, max_tasks_in_flight_per_actor=2),
            "num_cpus": self._sizing.cpus,
            "fn_constructor_kwargs": {**reading, "device": self.device},
        }
        if self._sizing.gpus:
            purify["num_gpus"] = self._sizing.gpus
        whole = {"batch_size": None, "batch_format": "pyarrow"}
        # Counted in `Attempts` instead: after a fourth death of a task the whole job would end.
        for_ever = {"max_retries": -1}
        # Beside purifiers on CPUs a few processes are enough, and each costs seconds of imports; a GPU wants many.
        beside = None if self._sizing.gpus else max(2, self.purifiers)
        return (
            ray.data.from_items(rows, override_num_blocks=len(rows))
            .map_batches(workers.read, fn_kwargs=reading, num_cpus=READ_CPUS, concurrency=beside, **for_ever, **whole)
            .map_batches(self._purify_actor(), **purify, **{**whole, "batch_size": 1})  # None is refused with GPUs
            .map_batches(workers.stage, fn_kwargs=staging, num_cpus=STAGE_CPUS, concurrency=beside, **for_ever, **whole)
        )

    def _purify_actor(self) -> type[Any]:
        """What purifies; a benchmark has one that sleeps."""
        return workers.PurifyActor

    def _look_for_slowest(self) -> Slowest | None:
        """Which stage the others wait for, every few seconds; waits for no answer, and asks nobody once a run ends."""
        if self._drained_by is not None or time.monotonic() < self._look_at:
            return None
        with suppress(RayError):  # whoever needs to know whether it is gone asks for something else
            if self._looking is None:
                self._looking = self._attempts.progress.remote()
            elif ray.wait([self._looking], num_returns=1, timeout=0)[0]:
                answer, self._looking, self._look_at = self._looking, None, time.monotonic() + LOOK_S
                return slowest(ray.get(answer))
        return None

    def _progress(self) -> Progress:
        with ray_errors.told():
            progress: Progress = ray.get(self._attempts.progress.remote(), timeout=ANSWER_S)
        return progress

    def drain(self) -> None:
        if self._drained_by is None:
            self._drained_by = time.monotonic() + DRAIN_S

    def _is_drained(self) -> bool:
        """Whether it was asked for, and all that was purified is staged, or there is no more time to wait for it."""
        if self._drained_by is None:
            return False
        left_s = self._drained_by - time.monotonic()
        try:
            return left_s <= 0 or ray.get(self._attempts.drain.remote(), timeout=left_s) == 0
        except RayError:  # whoever ends a run may have ended its cluster as well
            return True

    # --- commits and asks ---

    def start_commit(self, task: Task, num_parts: int) -> None:
        self._waiting_commits.append((task, num_parts))
        self._start_waiting()

    def start_ask(self, shard: Shard) -> None:
        self._waiting_asks.append(shard)
        self._start_waiting()

    def finished(self, wait_s: float = 0.0) -> Sequence[Committed | Asked | Failed | Warned]:
        self._start_waiting()
        if not self._open:
            self._ended_at = time.monotonic()
            return []
        with ray_errors.told():
            ready, _ = ray.wait(list(self._open), num_returns=1, timeout=wait_s)
            if ready:  # the first is there: take all that are
                ready, _ = ray.wait(list(self._open), num_returns=len(self._open), timeout=0)
        if not ready:
            return list(self._look_after_open())
        self._ended_at = time.monotonic()
        ended = [self._result(reference) for reference in ready]
        self._start_waiting()
        return ended

    def _look_after_open(self) -> Iterator[Warned]:
        """Say which commits take long; end a run that no node is left for: Ray would wait for one for ever."""
        stall_s, now = self.config.cluster.stall_s, time.monotonic()
        if now - self._ended_at <= stall_s:
            return
        self._ended_at = now
        if max((node.cpus for node in cluster.nodes()), default=0.0) < COMMIT_CPUS:
            raise StalledError(no_node(stall_s, [one.shard for one in self._open.values()]), TRY_AGAIN)
        if commits := [one.shard for one in self._open.values() if one.kind == "commit"]:
            yield Warned(slow_commits(stall_s, commits))

    @property
    def num_open(self) -> int:
        return len(self._open) + len(self._waiting_commits) + len(self._waiting_asks)

    def _start_waiting(self) -> None:
        """Start what waits, up to the bounds: a thousand shards may be whole at once."""
        while self._waiting_commits and self._num_open("commit") < self.config.cluster.commits:
            task, num_parts = self._waiting_commits.popleft()
            reference = self._commit.remote(task, num_parts, self._output, self.fingerprint)
            self._open[reference] = Open("commit", task.shard.name)
        while self._waiting_asks and self._num_open("ask") < ASKS:
            shard = self._waiting_asks.popleft()
            self._open[self._ask_actor().ask.remote(shard)] = Open("ask", shard.name)

    def _num_open(self, kind: str) -> int:
        return sum(one.kind == kind for one in self._open.values())

    def _ask_actor(self) -> Any:  # noqa: ANN401 - a Ray actor handle
        if self._asker is None:
            asking = ray.remote(num_cpus=ASK_CPUS, max_restarts=-1, max_task_retries=2, max_concurrency=ASKS)
            self._asker = asking(workers.AskActor).remote(self.config, self.output)
        return self._asker

    def _result(self, reference: Any) -> Committed | Asked | Failed:  # noqa: ANN401 - a Ray object reference
        ended = self._open.pop(reference)
        try:
            result: Committed | Asked | Failed = ray.get(reference)
        except RayError as ray_error:
            error = ray_errors.cleaned(ray_error)
            line = f"shard {ended.shard}: {ended.kind}: {error}"
            if ended.kind == "ask":
                return Asked(ended.shard, error=line, exit_code=error.exit_code)
            return Failed(ended.shard, line, error.exit_code)
        return result
