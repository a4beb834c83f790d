"""The graph on Ray Data: Read tasks, a pool of Purify actors, Stage tasks; commits and asks beside it.

What was found by running Ray 2.60, and decides the numbers here: with blocks of the default size
small parts do not stream, so one row is one block; a part that kills its actor is tried for ever,
so attempts are counted outside; an exception ends the job, so failures travel as data; a slow
driver holds nothing back, so the receipts are read by a thread of their own; CPU shares that just
fit hang when a node is lost, so the shares leave room.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import ray
import ray.data

from pipeline import workers
from pipeline.ask import Asked
from pipeline.commit import Committed
from pipeline.config import JobConfig
from pipeline.errors import ConfigError, StalledError
from pipeline.facts import Failed
from pipeline.ledger import Task
from pipeline.parts import Receipt
from pipeline.store import Shard, Store
from pipeline.store_open import is_local

READ_CPUS, STAGE_CPUS, COMMIT_CPUS, ASK_CPUS = 0.25, 0.1, 0.1, 0.05
ROOM_CPUS = 0.5  # for readers and stages, which would else starve behind the purifiers
TICK_S = 1.0


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
        self._open: dict[Any, str] = {}  # a Ray object reference -> "commit" or "ask"
        self._asker: Any = None  # a Ray actor handle

    def __enter__(self) -> Self:
        self._connect()
        try:
            self._refuse_paths_of_one_machine()
        except BaseException:
            ray.shutdown()
            raise
        _configure()
        self._size(ray.cluster_resources())
        self._attempts = ray.remote(num_cpus=0)(workers.Attempts).remote()
        self._commit = ray.remote(num_cpus=COMMIT_CPUS, max_retries=2)(workers.commit)
        self._output = ray.put(self.output)
        return self

    def _connect(self) -> None:
        if not self.verbose:
            _quiet()
        address = _address(self.config.cluster.address)
        options: dict[str, Any] = {}  # what ray.init takes
        if self.config.cluster.object_store_mib:
            options["object_store_memory"] = self.config.cluster.object_store_mib * 2**20
        try:
            with _own_sigterm():
                ray.init(
                    address=address,
                    log_to_driver=self.verbose,
                    logging_level="INFO" if self.verbose else "ERROR",
                    configure_logging=self.verbose,
                    **options,
                )
        except ConnectionError:
            raise ConfigError(
                f"cluster.address {address}: no Ray answers there. Start one, or leave the address out for a local one."
            ) from None

    def _refuse_paths_of_one_machine(self) -> None:
        nodes = sum(node["Alive"] for node in ray.nodes())
        paths = [uri for uri in (*self.config.input, self.output.uri) if is_local(uri)]
        if nodes > 1 and paths and not self.config.cluster.shared_filesystem:
            raise ConfigError(
                f"{paths[0]}: a local path, and the cluster has {nodes} nodes. Use a bucket, or set "
                "cluster.shared_filesystem when that path is the same files on each node."
            )

    def _size(self, resources: dict[str, float]) -> None:
        """How many purifiers, and which share of a CPU each takes beside the others' work."""
        gpus, cpus = int(resources.get("GPU", 0)), resources.get("CPU", 1.0)
        uses_gpu = gpus > 0 and self.config.purifier.device != "cpu"
        self.device = "cuda" if uses_gpu else "cpu"
        self.purifiers = self.config.cluster.actors or (gpus if uses_gpu else max(1, int(cpus)))
        beside = ROOM_CPUS + self.config.cluster.commits * COMMIT_CPUS + ASK_CPUS
        self._purifier_cpus = round(max(0.05, min(1.0, (cpus - beside) / self.purifiers)), 2)
        self._gpu_share = min(1.0, gpus / self.purifiers) if uses_gpu else 0.0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ray.shutdown()

    # --- the graph ---

    def receipts(self, window: Sequence[Task]) -> Iterator[Receipt | None]:
        """Purify a window: a receipt for each part, in any order; None about once a second without one."""
        received: queue.SimpleQueue[Receipt | BaseException | None] = queue.SimpleQueue()
        stop = threading.Event()
        reader = threading.Thread(target=self._pump, args=(window, received, stop), name="receipts", daemon=True)
        reader.start()
        heard = time.monotonic()
        try:
            while True:
                try:
                    item = received.get(timeout=TICK_S)
                except queue.Empty:
                    if time.monotonic() - heard > self.config.cluster.stall_s:
                        raise StalledError(_stall_message(self.config)) from None
                    yield None
                    continue
                if item is None:
                    return
                if isinstance(item, BaseException):
                    raise item
                heard = time.monotonic()
                yield item
        finally:
            stop.set()

    def _pump(
        self, window: Sequence[Task], received: queue.SimpleQueue[Receipt | BaseException | None], stop: threading.Event
    ) -> None:
        """Read the graph's output as fast as it comes; runs in a thread, so it hands errors over."""
        try:
            for batch in self._dataset(window).iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=0
            ):
                for text in batch["receipt"].to_pylist():
                    received.put(Receipt.from_json(text))
                if stop.is_set():
                    return
            received.put(None)
        except BaseException as error:  # noqa: BLE001 - handed to the main thread, which raises it
            received.put(error)

    def _dataset(self, window: Sequence[Task]) -> ray.data.Dataset:
        rows = [{"task": index} for index in range(len(window))]
        reading = {"tasks": ray.put(tuple(window)), "config": self.config}
        staging = {"config": self.config, "output": self._output}
        purify = {
            "compute": ray.data.ActorPoolStrategy(size=self.purifiers, max_tasks_in_flight_per_actor=2),
            "num_cpus": self._purifier_cpus,
            "fn_constructor_kwargs": {"config": self.config, "device": self.device, "attempts": self._attempts},
        }
        if self._gpu_share:
            purify["num_gpus"] = self._gpu_share
        whole = {"batch_size": None, "batch_format": "pyarrow"}
        return (
            ray.data.from_items(rows, override_num_blocks=len(rows))
            .map_batches(workers.read, fn_kwargs=reading, num_cpus=READ_CPUS, **whole)
            .map_batches(workers.PurifyActor, **purify, **whole)
            .map_batches(workers.stage, fn_kwargs=staging, num_cpus=STAGE_CPUS, **whole)
        )

    # --- commits and asks ---

    def start_commit(self, task: Task, num_parts: int) -> None:
        self._waiting_commits.append((task, num_parts))
        self._start_commits()

    def start_ask(self, shard: Shard, committed: Committed) -> None:
        if self._asker is None:
            actor = ray.remote(num_cpus=ASK_CPUS, max_restarts=2, max_task_retries=2, max_concurrency=4)(
                workers.AskActor
            )
            self._asker = actor.remote(self.config, self.output)
        self._open[self._asker.ask.remote(shard, committed)] = shard.name

    def finished(self, wait_s: float = 0.0) -> list[Committed | Asked | Failed]:
        self._start_commits()
        if not self._open:
            return []
        ready, _ = ray.wait(list(self._open), num_returns=1, timeout=wait_s)
        if ready:  # the first is there: take all that are
            ready, _ = ray.wait(list(self._open), num_returns=len(self._open), timeout=0)
        ended = [self._result(reference) for reference in ready]
        self._start_commits()
        return ended

    @property
    def num_open(self) -> int:
        return len(self._open) + len(self._waiting_commits)

    def _start_commits(self) -> None:
        """Start waiting commits up to the bound; asks don't count, they hold no memory to speak of."""
        under_way = sum(kind.startswith("commit ") for kind in self._open.values())
        while self._waiting_commits and under_way < self.config.cluster.commits:
            task, num_parts = self._waiting_commits.popleft()
            reference = self._commit.remote(task, num_parts, self._output, self.fingerprint)
            self._open[reference] = f"commit {task.shard.name}"
            under_way += 1

    def _result(self, reference: Any) -> Committed | Asked | Failed:  # noqa: ANN401 - a Ray object reference
        shard = self._open.pop(reference).removeprefix("commit ")
        try:
            result: Committed | Asked | Failed = ray.get(reference)
        except ray.exceptions.RayError as error:
            return Failed(shard, f"shard {shard}: its worker ended too often: {str(error).splitlines()[0]}")
        return result


def _address(setting: str | None) -> str | None:
    """The set address, else RAY_ADDRESS (Ray reads it), else an own cluster.

    A plain `ray.init()` would join whatever a stale session file names, a dead cluster among them.
    """
    return setting or os.environ.get("RAY_ADDRESS") or "local"


def _configure() -> None:
    context = ray.data.DataContext.get_current()
    context.target_max_block_size = 1
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = 0
    context.max_consecutive_actor_init_deaths = 3
    store = ray.cluster_resources().get("object_store_memory", 0)
    if store:
        # Softly: with half of the store, some 30 parts of 3 MB run ahead instead of 50.
        limits = ray.data.ExecutionResources(object_store_memory=store / 2)
        context.execution_options.resource_limits = limits


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep the process's handler: `ray.init` sets one that ends the process on the spot, with nothing said."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():  # elsewhere Ray sets none, and nobody may
            signal.signal(signal.SIGTERM, handler)


def _quiet() -> None:
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _stall_message(config: JobConfig) -> str:
    return (
        f"no part came for {config.cluster.stall_s:.0f} s: the graph stands still. Too few CPUs for a reader beside "
        "the purifiers is the usual reason; lower cluster.actors, or raise cluster.stall_s when parts are that slow."
    )
