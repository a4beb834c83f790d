"""`zipstage show`: one sample side by side, with its row."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from jobs.commands.options import Verbose, command, note, show

show_app = command("show", "zipstage show out/ 000123 --to sample.png")
show_app.usage = "zipstage show [OPTIONS] OUTPUT [KEY]"


@show_app.default
def show_command(
    output: Annotated[str, Parameter(help="folder or s3:// prefix that purify wrote")],
    key: Annotated[str | None, Parameter(help="the sample; none: the most suspect")] = None,
    /,
    *,
    to: Annotated[str | None, Parameter(help="the picture's file, or a folder for it")] = None,
    shard: Annotated[str | None, Parameter(help="its shard, where a key is in several")] = None,
    classifier: Annotated[str | None, Parameter(help="whose answers; none: all")] = None,
    input: Annotated[str | None, Parameter(help="where the received shards are now, if they moved")] = None,
    verbose: Verbose = False,
) -> int:
    """Show one sample: its row in lines, and in a picture what came, what it became, and the difference."""
    from jobs.show.show import Wanted, show_sample
    from pipeline.store import open_store

    return show(show_sample(open_store(output), Wanted(key, shard, classifier, input, to), note))
