"""`zipstage verify`: proves an output, and names what is not as its records say."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from jobs.commands.options import Verbose, command, note, show

verify_app = command("verify", "zipstage verify out/")


@verify_app.default
def verify_command(
    output: Annotated[str, Parameter(help="folder or s3:// prefix that purify wrote")], *, verbose: Verbose = False
) -> int:
    """Prove an output: every record, digest, row and member. Reads all of it, writes nothing.

    Exit code 1 when anything differs, each named on a line of its own.
    """
    from pipeline.errors import ConfigError
    from pipeline.store import open_store
    from pipeline.verify import verify

    def watch(name: str) -> None:
        if verbose:
            note(f"verifying {name}")

    report = verify(open_store(output), watch)
    if not report.shards and not report.findings:
        raise ConfigError(f"output {output}: expected records of committed shards below it, found none.")
    for finding in report.findings:
        show(finding)
    wrong = f"{len(report.findings):,} findings" if report.findings else "all as recorded"
    show(f"{report.shards:,} shards, {report.samples:,} samples, {report.predictions:,} sets of answers: {wrong}")
    return 1 if report.findings else 0
