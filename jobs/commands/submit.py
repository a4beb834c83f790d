"""`zipstage submit`: `purify` on a Ray cluster, handed over from outside, for schedulers that read exit codes."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Iterable, Mapping, Sequence

from jobs.commands.options import Tokens, Verbose, job_command, note, show, wants_help

submit_app = job_command("submit")

_HELP = (
    "Hand `zipstage purify` to the job server of a Ray cluster, show its log, and end with its exit code. CONFIG.yaml "
    "goes along; what else it names, and ZIPSTAGE_* variables but for ZIPSTAGE_DATE, are the cluster's. Ctrl-C and "
    "SIGTERM stop the job there. A cluster with tokens wants RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH."
)
_OPTIONS = "--address URL|http://host:8265, the job server's; else RAY_API_SERVER_ADDRESS, else RAY_ADDRESS"
_EXAMPLE = "zipstage submit nightly.yaml --address http://head:8265 --date yesterday"
_SHOWN = ("date", "run", "input", "output")
_SECRET = ("purifier.seed", "classifier.token", "classifier.headers")
_OWN = ("--date", "--run")


@submit_app.default
def submit_command(*tokens: Tokens, verbose: Verbose = False) -> int:
    """Purify on a Ray cluster, from outside of it."""
    from jobs.arguments import parse_flags, read_job
    from jobs.help import job_help

    if wants_help(tokens):
        usage = "submit [CONFIG.yaml] --address URL [--FIELD VALUE ...]"
        return show(job_help(usage, _HELP, _OPTIONS, _EXAMPLE, _SHOWN, everything=verbose))
    addresses, tokens = _taken(tokens, ("--address",))
    address = _address(addresses, os.environ)
    config = read_job(tokens, {name: os.environ[name] for name in ("ZIPSTAGE_DATE",) if os.environ.get(name)})
    path, values = parse_flags(tokens)
    _refuse_secrets(values)
    run = config.run or f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(2)}"
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # before Ray is imported; else it leaves the token out

    from pathlib import Path

    from pipeline.store import Store, open_store
    from pipeline.submit import Submission, submit

    _, flags = _taken([token for token in tokens if token != path], _OWN)
    date = ["--date", config.date] if config.date else []
    file = [Path(path).name] if path else []
    command = ["zipstage", "purify", *file, *flags, *date, "--run", run, *(["-v"] if verbose else [])]
    note(f"run {run} at {address}: {' '.join(command)}")

    def open_output() -> Store:
        return open_store(config.output, config.storage.patience_s)

    return submit(Submission(run, command, Path(path) if path else None), address, open_output, _pass_on)


def _address(given: Sequence[str], environment: Mapping[str, str]) -> str:
    from pipeline.errors import ConfigError

    address = next(
        filter(None, (*given, environment.get("RAY_API_SERVER_ADDRESS"), environment.get("RAY_ADDRESS"))), None
    )
    if address is None or not address.startswith(("http://", "https://")):
        found = f"found {address!r}" if address else "found none"
        raise ConfigError(
            f"--address: expected the job server's, http://host:8265, {found}. It is where the cluster's dashboard is; "
            "RAY_API_SERVER_ADDRESS may hold it as well."
        )
    return address


def _refuse_secrets(names: Iterable[str]) -> None:
    """A job's command line is in the cluster's dashboard and logs."""
    from pipeline.errors import ConfigError

    for name in names:
        if name in _SECRET:
            variable = f"ZIPSTAGE_{name.upper().replace('.', '__')}"
            raise ConfigError(
                f"--{name}: a secret, and the cluster shows the job's flags to all who reach it. Set {variable} on "
                "the cluster's nodes instead."
            )


def _taken(tokens: Sequence[str], names: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """The values of some flags, and the tokens without them."""
    taken, left = [], []
    waiting = list(reversed(tokens))
    while waiting:
        token = waiting.pop()
        name, has_value, value = token.partition("=")
        if name not in names:
            left.append(token)
        elif has_value or waiting:
            taken.append(value if has_value else waiting.pop())
    return taken, tuple(left)


def _pass_on(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
