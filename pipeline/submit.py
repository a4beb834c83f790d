"""A job on a Ray cluster through its job server, with the exit code that the job itself ended with.

For schedulers that stand outside of the cluster. A trap: Ray's own `ray job submit` says 1 of whatever isn't 0, so
that a night to be tried again later reads as one that failed. Ray keeps the driver's code, and where it has none
(a run that was stopped or lost) the run's own summary has one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shlex
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from pipeline.errors import ClusterError, ConfigError
from pipeline.store import Store
from zipstage.errors import ZipstageError

POLL_S = 1.0
PATIENCE_S = 60.0
"""Seconds that a job server may be away while a job of ours runs there."""

INTERRUPTED = 130

_NOT_STARTED = (126, 127)
_SHELLS_SIGNAL = 128

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Submission:
    """A job to submit.

    Args:
        run: The run's name, and the job's at the server.
        command: What to run there, `zipstage purify ...`.
        config: The YAML file that goes along, into the folder where the command runs; none: the command needs none.
    """

    run: str
    command: Sequence[str]
    config: Path | None = None


def submit(submission: Submission, address: str, open_output: Callable[[], Store], tell: Tell) -> int:
    """Run a job at a job server, pass its log on, and give its exit code.

    Interrupted, it stops the job there, waits for its end and gives 130.

    Args:
        submission: The job.
        address: The job server's, http://host:8265.
        open_output: Opens where the job writes: its summary is looked up there when Ray knows no exit code.
        tell: Takes the log, in pieces.

    Raises:
        ConfigError: The server takes no such token, or no such job, or is none.
        ClusterError: Nothing answers there, or not any more.
    """
    client = _connected(address)
    _start(client, submission)
    try:
        asyncio.run(_follow(client, submission.run, tell))
        return _exit_code(_ended(client, submission.run, address), open_output, submission.run)
    except KeyboardInterrupt:
        with suppress(OSError, RuntimeError):  # gone already, or nobody there: what follows finds out
            client.stop_job(submission.run)
        _ended(client, submission.run, address)
        return INTERRUPTED


def _connected(address: str) -> JobSubmissionClient:
    for name in ("dashboard_sdk", "job.sdk"):  # what they say of themselves would stand among the job's lines
        logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.ERROR)
    if find_spec("aiohttp") is None:
        raise ConfigError("submitting needs Ray's job client, which isn't installed: pip install 'zipstage[cluster]'.")
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # else Ray takes the environment's, whatever it is told
    try:
        return JobSubmissionClient(address)
    except ConnectionError:
        raise ClusterError(
            f"address {address}: nothing answers there. Expected the job server of a Ray that is up, its dashboard's "
            "address, such as http://head:8265."
        ) from None
    except AuthenticationError as error:
        raise ConfigError(
            f"address {address}: refused, {error.message.splitlines()[0]}. Set RAY_AUTH_TOKEN, or "
            "RAY_AUTH_TOKEN_PATH, to the cluster's token, if this is the cluster."
        ) from None
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise ConfigError(
            f"address {address}: expected the job server of a Ray, its dashboard's address, found something else: "
            f"{_line(error)}"
        ) from None


def _start(client: JobSubmissionClient, submission: Submission) -> None:
    with tempfile.TemporaryDirectory() as folder:
        along: dict[str, Any] = {}
        if submission.config is not None:
            (Path(folder) / submission.config.name).write_bytes(submission.config.read_bytes())
            along = {"working_dir": folder}
        try:
            client.submit_job(
                entrypoint=shlex.join(submission.command), submission_id=submission.run, runtime_env=along
            )
        except OSError as error:
            raise ClusterError(f"run {submission.run}: the job server went away: {_line(error)} Try again.") from None
        except RuntimeError as error:
            raise ConfigError(f"run {submission.run}: the job server refuses it: {_last_line(error)}") from None


async def _follow(client: JobSubmissionClient, run: str, tell: Tell) -> None:
    """Pass the job's log on until it ends, or the connection does: the log is a courtesy."""
    with suppress(Exception):  # whatever goes wrong with a log, the job goes on
        async for lines in client.tail_job_logs(run):
            tell(lines)


def _ended(client: JobSubmissionClient, run: str, address: str) -> Any:  # noqa: ANN401 - Ray's JobDetails
    """What Ray knows of the job once it has ended."""
    seen = time.monotonic()
    while True:
        try:
            found = client.get_job_info(run)
            seen = time.monotonic()
            if found.status.is_terminal():
                return found
        except (OSError, RuntimeError):
            if time.monotonic() - seen > PATIENCE_S:
                raise ClusterError(
                    f"address {address}: its job server went away while {run} ran. Run again: it does only what is "
                    "missing."
                ) from None
        time.sleep(POLL_S)


def _exit_code(ended: Any, open_output: Callable[[], Store], run: str) -> int:  # noqa: ANN401 - Ray's JobDetails
    if ended.driver_exit_code is not None:
        return _told(int(ended.driver_exit_code), run)
    if ended.status == JobStatus.STOPPED:
        return INTERRUPTED
    with suppress(ZipstageError, ValueError, KeyError):  # no storage from here, or no summary: what follows says why
        return int(json.loads(open_output().get(f"runs/{run}/summary.json"))["exit_code"])
    raise ClusterError(f"run {run}: {ended.message or 'lost'}. Run again: it does only what is missing.")


def _told(code: int, run: str) -> int:
    """A code of ours; those of a shell say what happened to the driver."""
    if code in _NOT_STARTED:
        raise ConfigError(f"run {run}: the cluster's head has no `zipstage` that runs. Use an image that has it.")
    signal = -code if code < 0 else code - _SHELLS_SIGNAL
    if signal > 0 and code != INTERRUPTED:
        raise ClusterError(
            f"run {run}: its driver was killed by signal {signal}; 9 is mostly for want of memory on the head. Run "
            "again: it does only what is missing."
        )
    return code


def _last_line(error: Exception) -> str:
    """What a server's traceback ends with."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" .")]
    return lines[-1][:300] if lines else _line(error)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
