"""`zipstage plan`: what a job would do, and about how long that would take here."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from jobs.commands.options import Tokens, Verbose, job_command, note, show, wants_help

if TYPE_CHECKING:
    from pipeline.estimate import Estimate
    from pipeline.facts import Fact

plan_app = job_command("plan")

_HELP = (
    "Say what a job would do: shards and bytes exactly; samples, tiles, queries and their cost, output size and time "
    "on this device judged from the first 8 MiB of up to 20 shards. Writes nothing. Takes the flags of `purify`."
)
_OPTIONS = "--no-measure|leave out the time; saves the few seconds that measuring it takes"


@plan_app.default
def plan_command(
    *tokens: Tokens, measure: Annotated[bool, Parameter(negative="--no-measure")] = True, verbose: Verbose = False
) -> int:
    """Say what a job would do, and write nothing."""
    from jobs.arguments import read_job
    from jobs.help import job_help

    if wants_help(tokens):
        usage = "plan [CONFIG.yaml] [--FIELD VALUE ...]"
        return show(job_help(usage, _HELP, _OPTIONS, "zipstage plan nightly.yaml --no-measure", everything=verbose))
    config = read_job(tokens, os.environ)
    from pipeline.estimate import estimate
    from pipeline.screen import told

    def watch(fact: Fact) -> None:
        if (message := told(fact)) is not None:
            note(message)

    return show(as_table(estimate(config, watch, 3.0 if measure else 0.0), asks=config.classifier is not None))


def _limits(found: Estimate) -> list[tuple[str, str]]:
    """What the queries cost, and what the settings make of them."""
    from pipeline.progress import duration

    rows = []
    if found.cost is not None:
        rows.append(("cost", f"about {found.cost:,.2f} for the queries, by classifier.price_per_1000"))
    if found.runs is not None:
        rows.append(("", f"about {found.runs:,} runs, by classifier.max_queries"))
    if found.rated_s is not None:
        rows.append(("", f"about {duration(found.rated_s)} of asking, by classifier.rate_per_s"))
    return rows


def as_table(found: Estimate, *, asks: bool) -> str:
    """Names and values, one a line."""
    from pipeline.progress import duration, size_of

    rows = [
        ("shards", f"{found.to_purify:,} to purify of {found.shards:,}; {found.committed:,} committed earlier"),
        ("bytes", f"{size_of(found.size_bytes)} to read, about {size_of(found.output_bytes)} to write"),
        ("samples", f"about {found.samples:,}, about {found.images:,} of them with an image to purify"),
        ("tiles", f"about {found.tiles:,} of 256x256, in about {found.parts:,} parts"),
        ("network", f"about {found.network_calls:,} calls of one micro-batch each"),
    ]
    if asks:
        rows.append(("classifier", f"about {found.queries:,} queries in {found.requests:,} requests"))
        rows += _limits(found)
        rows.append(("", f"{found.to_ask:,} shards committed earlier among what is asked about"))
    where = f"{found.purifiers} x {found.device}"
    took = (
        f"about {duration(found.seconds)} of purification on {where}" if found.seconds is not None else "not measured"
    )
    rows.append(("time", took))
    if found.refused:
        rows.append(("refused", f"{len(found.refused):,} shards that changed after their commit, named above"))
    rows += [("unreadable", reason) for reason in found.unreadable.values()]
    rows.append(("", f"judged from the first 8 MiB of {found.looked_at} shards; nothing was written"))
    return "\n".join(f"{name:<11}{value}" for name, value in rows)
