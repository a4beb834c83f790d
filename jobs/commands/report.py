"""`zipstage report`: the page of a run that ended, made anew from what lies in its output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from jobs.commands.options import Verbose, command, show

report_app = command("report", "zipstage report out/ --to night.html")


@report_app.default
def report_command(
    output: Annotated[str, Parameter(help="folder or s3:// prefix that purify wrote")],
    *,
    run: Annotated[
        str | None, Parameter(help="name of the run, below runs/ in the output; without: the newest")
    ] = None,
    to: Annotated[
        Path | None,
        Parameter(help="file to write; without: runs/RUN/report.html in the output, report-all.html with --all"),
    ] = None,
    all_: Annotated[
        bool, Parameter("--all", negative="", help="all that is committed there, not only what the run did")
    ] = False,
    verbose: Verbose = False,
) -> int:
    """Write the page of a run anew: totals, flips by class, samples in pictures, throughput, settings.

    Reads a few columns of the tables, and of the shards what it shows. Where the received images are gone, the
    page says so in their place. Prints where it was written.
    """
    from pipeline.errors import ConfigError
    from pipeline.report import build_page, report_path
    from pipeline.store import open_store

    store = open_store(output)
    name, page = build_page(store, run, of_all=all_)
    if to is not None:
        _write(to, page)
        return show(str(to))
    if not name:
        raise ConfigError(
            f"output {output}: expected the summary of a run below runs/, found none: none has ended, or each was "
            "killed. Name a file for the page of what is committed: --to report.html."
        )
    path = report_path(name, of_all=all_)
    store.put(path, page.encode())
    return show(store.uri_of(path))


def _write(path: Path, page: str) -> None:
    from pipeline.errors import ConfigError

    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"--to {path}: can't be written: {error.strerror}. Name a file in a folder that is there."
        ) from None
