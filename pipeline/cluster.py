"""Getting onto Ray: which cluster, with what said, and what it offers.

A trap: `ray.init` takes SIGTERM for itself, joins whatever a stale session file names, and speaks
unless told not to.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import ray
import ray.data
from ray._private import auto_init_hook  # RAY_ENABLE_AUTO_CONNECT is read once, when Ray is imported

from pipeline.config import ClusterConfig, JobConfig
from pipeline.errors import ConfigError
from pipeline.reaper import reaped
from pipeline.sizing import Node
from pipeline.store_open import is_local

OWN = "local"
"""The address that starts a cluster of the job's own."""


IDLE_WORKER_S = 600
"""Seconds that an idle worker of an own cluster is kept."""


@contextmanager
def connected(config: ClusterConfig, *, verbose: bool) -> Iterator[None]:
    """Be on the cluster of the settings, else that of RAY_ADDRESS, else start an own one, which ends with the block.

    Raises:
        ConfigError: Nothing answers there.
    """
    # A plain `ray.init()` would join whatever a stale session file names, a dead cluster among them.
    address = config.address or os.environ.get("RAY_ADDRESS") or OWN
    with reaped() if address == OWN else nullcontext():
        try:
            _connect(address, config, verbose=verbose)
            yield
        finally:
            ray.shutdown()


def _connect(address: str, config: ClusterConfig, *, verbose: bool) -> None:
    if not verbose:
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.ERROR)
        # It warns of pools larger than the input, which small jobs have.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"ray\.data\.")
        # `max_retries` has no other way in; the pin on Ray stays below the release that takes this one away.
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated", category=DeprecationWarning)
    # Else what runs in a thread when its cluster ends, and calls Ray once more, starts a new one.
    auto_init_hook.enable_auto_connect = False
    try:
        with _own_sigterm():
            ray.init(
                address=address,
                log_to_driver=verbose,
                logging_level="INFO" if verbose else "ERROR",
                configure_logging=verbose,
                **own_cluster_options(config, address),
            )
    except ConnectionError:
        raise ConfigError(
            f"cluster.address {address}: no Ray answers there. Start one, or leave the address out for a local one."
        ) from None


def own_cluster_options(config: ClusterConfig, address: str) -> dict[str, Any]:
    """What `ray.init` takes for a cluster of its own and refuses for any other: the values are Ray's.

    Idle workers are kept: on few CPUs Ray ends one after a second, and each stage task would pay two
    seconds of imports in a new one (a quarter of the job on two cores).
    """
    if address != OWN:
        return {}
    options: dict[str, Any] = {"_system_config": {"idle_worker_killing_time_threshold_ms": IDLE_WORKER_S * 1000}}
    if config.object_store_mib:
        options["object_store_memory"] = config.object_store_mib * 2**20
    return options


def nodes() -> list[Node]:
    """What the nodes that live offer."""
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(offer.get("CPU", 0.0), int(offer.get("GPU", 0))) for offer in resources]


def spilled_bytes() -> int:
    """Bytes that lie on this node's disk now since its object store was full; 0 when no cluster is joined.

    Counted in the files: Ray's own statistics need its dashboard's packages.
    """
    if not ray.is_initialized():
        return 0
    session = Path(ray._private.worker.global_worker.node.get_session_dir_path())
    total = 0
    for path in session.glob("ray_spilled_objects*/*"):
        with suppress(FileNotFoundError):  # it was read back meanwhile
            total += path.stat().st_size
    return total


def refuse_paths_of_one_machine(config: JobConfig, output_uri: str, num_nodes: int) -> None:
    """Refuse local paths on a cluster of several nodes, unless they are said to be the same files there.

    Raises:
        ConfigError: The first such path is named.
    """
    paths = [uri for uri in (*config.input, output_uri) if is_local(uri)]
    if num_nodes > 1 and paths and not config.cluster.shared_filesystem:
        raise ConfigError(
            f"{paths[0]}: a local path, and the cluster has {num_nodes} nodes. Use a bucket, or set "
            "cluster.shared_filesystem when that path is the same files on each node."
        )


def configure_data() -> None:
    """Set what Ray Data's defaults get wrong for parts; section by section in `pipeline.graph`."""
    context = ray.data.DataContext.get_current()
    context.target_max_block_size = 1
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = 0
    context.max_consecutive_actor_init_deaths = 3
    context.raise_original_map_exception = True  # else what was raised is lost on its way to the driver
    store = ray.cluster_resources().get("object_store_memory", 0)
    if store:
        # Softly: with half of the store, some 30 parts of 3 MB run ahead instead of 50.
        limits = ray.data.ExecutionResources(object_store_memory=store / 2)
        context.execution_options.resource_limits = limits
        # Else Ray answers a purifier whose output finds no room by releasing its reader, a part each turn: all of
        # a shard lay on disk then. With this, the purifier takes one of the parts that wait for it.
        context.object_store_memory_pressure_fraction = 0.5


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep the process's handler: `ray.init` sets one that ends the process on the spot, with nothing said."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():  # elsewhere Ray sets none, and nobody may
            signal.signal(signal.SIGTERM, handler)
