"""`zipstage clean`: removes what dead runs left in an output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from jobs.commands.options import Verbose, command, note, show

if TYPE_CHECKING:
    from pipeline.clean import Leftovers

clean_app = command("clean", "zipstage clean out/ --dry-run")


@clean_app.default
def clean_command(
    output: Annotated[str, Parameter(help="folder or s3:// prefix that purify wrote")],
    *,
    dry_run: Annotated[bool, Parameter(negative="", help="only say what would be removed")] = False,
    verbose: Verbose = False,
) -> int:
    """Remove what dead runs left: staging, temporary files, uploads that were broken off; nothing committed.

    Staged parts are what the next purify would go on from: clean gives them up. Where a run is at work nothing is
    removed, and the exit code is 75.
    """
    from pipeline.clean import clean
    from pipeline.store import open_store

    found = clean(open_store(output), note, dry_run=dry_run)
    if verbose:
        for path in _names(found):
            note(path)
    return show(as_line(found, dry_run=dry_run))


def as_line(found: Leftovers, *, dry_run: bool) -> str:
    """What was removed, by kinds."""
    from pipeline.progress import size_of

    counts = [(len(found.staged), "staged file"), (len(found.temporary), "temporary file")]
    counts.append((len(found.uploads or ()), "unfinished upload"))
    kinds = [f"{count:,} {name}{'' if count == 1 else 's'}" for count, name in counts if count]
    size = f" ({size_of(found.size_bytes)})" if found.size_bytes else ""
    line = f"{'would remove' if dry_run else 'removed'} {', '.join(kinds)}{size}" if kinds else "nothing to remove"
    if found.uploads is None:
        line += "; unfinished uploads aren't listed here: leave them to a lifecycle rule (infra/aws/lifecycle.json)"
    return line


def _names(found: Leftovers) -> list[str]:
    unfinished = [f"unfinished upload s3://{upload.bucket}/{upload.key}" for upload in found.uploads or ()]
    return [*(stored.path for stored in found.staged), *map(str, found.temporary), *unfinished]
