"""`zipstage purify` and `zipstage query`: a job from flags, drawn while it runs, a table at its end."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from jobs.commands.options import Tokens, Verbose, job_command, ray_kept_quiet, show, wants_help
from zipstage.errors import ZipstageError

if TYPE_CHECKING:
    from pipeline.config import JobConfig
    from pipeline.engine import Engine
    from pipeline.facts import Summary
    from pipeline.store import Store

purify_app = job_command("purify")
query_app = job_command("query")

_PURIFY_HELP = (
    "Purify the images of tar shards and write the shards anew, with a table of what was done to each sample; "
    "with a classifier, ask it about each image as it came and as it was purified. Run again after any stop: "
    "only what is missing is done."
)
_PURIFY_EXAMPLE = """zipstage purify --input in/ --output out/
zipstage purify nightly.yaml --date yesterday --limit 3"""
_PURIFY_FIELDS = (
    "input", "output", "purifier.method", "purifier.preset", "classifier.protocol", "classifier.url",
    "classifier.model", "date", "limit", "overwrite", "give_up", "retry_failed",
)  # fmt: skip
_QUERY_HELP = "Ask a classifier about committed shards that it has not answered for. Purifies nothing."
_QUERY_EXAMPLE = (
    "zipstage query nightly.yaml --date 2026-11-20\n"
    "zipstage query --input in/ --output out/ \\\n"
    "    --classifier.protocol onnx --classifier.path signs.onnx"
)
_QUERY_FIELDS = (
    "input", "output", "classifier.protocol", "classifier.url", "classifier.model", "classifier.path", "date", "limit",
)  # fmt: skip


@purify_app.default
def purify_command(*tokens: Tokens, verbose: Verbose = False) -> int:
    """Purify the images of tar shards."""
    from jobs.arguments import read_job
    from jobs.help import job_help

    if wants_help(tokens):
        usage = "purify [CONFIG.yaml] [--FIELD VALUE ...]"
        return show(job_help(usage, _PURIFY_HELP, "", _PURIFY_EXAMPLE, _PURIFY_FIELDS, everything=verbose))
    config = read_job(tokens, os.environ)
    from pipeline.job import purify

    return run_job(config, purify, verbose)


@query_app.default
def query_command(*tokens: Tokens, verbose: Verbose = False) -> int:
    """Ask a classifier about purified shards."""
    from jobs.arguments import read_job
    from jobs.help import job_help

    if wants_help(tokens):
        usage = "query [CONFIG.yaml] [--FIELD VALUE ...]"
        return show(job_help(usage, _QUERY_HELP, "", _QUERY_EXAMPLE, _QUERY_FIELDS, everything=verbose))
    config = read_job(tokens, os.environ)
    from pipeline.job import query

    return run_job(config, query, verbose)


def run_job(config: JobConfig, run: Callable[..., Summary], verbose: bool) -> int:
    """Run a job with a view on it; prints the closing table.

    Args:
        config: The job.
        run: `purify` or `query`.
        verbose: Whether Ray may speak.

    Returns:
        The command's exit code.
    """
    from pipeline.facts import new_run
    from pipeline.progress import View
    from pipeline.screen import closing_table, watching

    view, name, is_log = View(), config.run or new_run(), config.log_format == "json"
    try:
        with ray_kept_quiet(verbose), watching(view, None, config.log_format, name) as watch:
            summary = run(config, watch, ray_engine(verbose), name)
    except (ZipstageError, KeyboardInterrupt):
        if is_log and not verbose:  # the log's last line says so, and a line of another kind would break it
            return view.summary.exit_code
        raise
    if not is_log:
        show(closing_table(view, summary, config.output))
    return summary.exit_code


def ray_engine(verbose: bool) -> Callable[[JobConfig, Store, str], Engine]:
    """What makes the engine on Ray."""

    def make(config: JobConfig, output: Store, fingerprint: str) -> Engine:
        from pipeline.graph import RayEngine  # when there is work: Ray takes a second to import

        return RayEngine(config, output, fingerprint, verbose=verbose)

    return make
