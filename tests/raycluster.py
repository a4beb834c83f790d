"""A Ray cluster of a head and nodes with a job server that wants a token; in a process of its own.

Runs in the environment of `tests/cluster/environment.sh`, which has Ray's dashboard. It ends when its stdin does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
MEMORY = 150 * 2**20


def python_with_dashboard() -> str:
    """The python of an environment whose Ray has its dashboard; skips where it can't be made."""
    made = subprocess.run(
        [TESTS / "cluster/environment.sh"],
        env={**os.environ, "CLUSTER_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"no Ray with a job server: {made.stderr.strip()}")
    return made.stdout.strip()


def environment(token: str, commands: Path) -> dict[str, str]:
    """That of a node: it knows the token, finds `zipstage`, and gives a stopped job its time.

    Args:
        token: The cluster's.
        commands: A folder for `zipstage`, which need not be installed.
    """
    command = commands / "zipstage"
    command.write_text(f'#!/bin/sh\nexec "{Path(sys.executable).absolute()}" -m jobs "$@"\n')
    command.chmod(0o755)
    return {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_JOB_STOP_WAIT_TIME_S": "60",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PATH": os.pathsep.join([str(commands), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
        "OMP_NUM_THREADS": "1",
    }


@contextmanager
def cluster(python: str, env: dict[str, str], num_nodes: int) -> Iterator[str]:
    """A head without resources and nodes of two CPUs; gives the job server's address."""
    with session(python, env, num_nodes) as said:
        yield said["address"]


@contextmanager
def session(python: str, env: dict[str, str], num_nodes: int) -> Iterator[dict[str, str]]:
    """The same; gives the address and the `folder` where the head keeps what it says of the cluster."""
    process = subprocess.Popen(
        [python, "-W", "ignore", "-m", "raycluster", str(num_nodes)],
        env=env,
        cwd=TESTS.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        said = next((json.loads(line) for line in process.stdout if line.startswith("{")), None)
        assert said is not None, "the cluster didn't start"
        yield said
    finally:
        process.stdin.close()
        process.wait(120)
        process.stdout.close()


def main() -> None:
    from ray.cluster_utils import Cluster

    config = {"idle_worker_killing_time_threshold_ms": 600_000}  # else each stage task pays for a new worker's imports
    head = {"num_cpus": 0, "object_store_memory": MEMORY, "include_dashboard": True, "dashboard_port": 0}
    made = Cluster(initialize_head=True, head_node_args={**head, "_system_config": config})
    try:
        for _ in range(int(sys.argv[1])):
            made.add_node(num_cpus=2, object_store_memory=MEMORY)
        folder = made.head_node.get_session_dir_path()
        print(json.dumps({"address": f"http://{made.webui_url}", "folder": folder}), flush=True)
        sys.stdin.read()
    finally:
        made.shutdown()


if __name__ == "__main__":
    main()
