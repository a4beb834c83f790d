"""A page of what a run came to, for the morning after: written when a run ends, or anew for one that did.

    scan       one pass over a few columns of all rows: counts, and which samples are shown
    samples    the rows of these
    gallery    pictures of some of them
    page       all of it as one HTML file

Traps: whoever waits for a run waits for its page. So a run gives it `IN_A_RUN_S`, and a run that is stopped
`WHEN_STOPPED_S`; what was not read by then is said, and `zipstage report` reads it. And a page is about what its run
did: where an output grows night by night, each page would else cost more than the one before.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pipeline import ledger
from pipeline.alert import Alert, judge
from pipeline.config import AlertConfig, JobConfig, LimitsConfig
from pipeline.errors import ConfigError
from pipeline.facts import Summary, Warned, Watch
from pipeline.pairs import limits_of
from pipeline.report.gallery import draw
from pipeline.report.page import Contents, render
from pipeline.report.runs import Run, answers_of, at_work, read_run
from pipeline.report.samples import read_samples
from pipeline.report.scan import Scan, scan_tables
from pipeline.store import Store

__all__ = ["IN_A_RUN_S", "WHEN_STOPPED_S", "build_page", "report_path", "write_report"]

IN_A_RUN_S = 60.0
"""Seconds that a run gives its page at most."""

WHEN_STOPPED_S = 4.0
"""The same for a run that was stopped or broke down."""

_AGAIN = "`zipstage report` writes it anew."

_FOR_COUNTS = 0.6
"""The share of its time in which a page reads all rows; the rest is for pictures."""


def report_path(run: str, *, of_all: bool = False) -> str:
    """Where a run's page lies in its output, and the one of all that is committed there."""
    return f"runs/{run}/report{'-all' if of_all else ''}.html"


def write_report(config: JobConfig, output: Store, summary: Summary, tell: Watch) -> None:
    """Write the page of a run that is ending, and the timeline that it is made of, if the job wants one.

    Nothing that goes wrong here concerns the run: it is told as a warning, and outcome and exit code stand. An
    interrupt is none of that: it ends the run here as anywhere.
    """
    if not config.report:
        return
    run = at_work(config, summary)
    is_ended_early = summary.interrupted or summary.error is not None
    within_s = WHEN_STOPPED_S if is_ended_early else IN_A_RUN_S
    try:
        output.put(f"runs/{run.name}/timeline.json", json.dumps(run.timeline, indent=1).encode())
        page = _page_of(run, output, time.monotonic(), within_s)
        output.put(report_path(run.name), page.encode())
    except Exception as error:  # noqa: BLE001 - whatever it is: all is committed, and the page can be made anew
        why = " ".join(str(error).split()) or type(error).__name__
        tell(Warned(f"no report was written: {why.rstrip('.')}. {_AGAIN}"))
    else:
        summary.report = output.uri_of(report_path(run.name))


def build_page(output: Store, run: str | None = None, *, of_all: bool = False) -> tuple[str, str]:
    """The page of a run that ended, made of what lies in its output; gives the run's name and the page.

    Args:
        output: Where the run wrote.
        run: RUN; none: the newest. Where no run left word, its name is empty and the page tells of the output alone.
        of_all: Tell of all that is committed there, not alone of what the run did.

    Raises:
        ConfigError: It is no output, or has no such run.
        StoreError: Storage can't be reached or used.
    """
    if ledger.read_settings(output) is None:
        raise ConfigError(f"output {output.uri}: expected what purify made, found no {ledger.SETTINGS_PATH}.")
    found = read_run(output, run)
    return found.name, _page_of(found, output, of_all=of_all or not found.name)


def _page_of(
    run: Run, output: Store, began_s: float = 0.0, within_s: float | None = None, *, of_all: bool = False
) -> str:
    until_s = None if within_s is None else began_s + within_s
    counting_until_s = None if within_s is None else began_s + _FOR_COUNTS * within_s
    made_with = ledger.read_settings(output) or {}
    committed = {name: max(versions) for name, versions in ledger.list_records(output).items()}
    identities = committed if of_all else {name: committed[name] for name in run.shards if name in committed}
    classifier = answers_of(run, output)
    answered = _answered(output, classifier, identities)
    found = scan_tables(output, sorted(identities), answered, counting_until_s)
    samples = read_samples(output, found, answered)
    limits = LimitsConfig()
    with suppress(ConfigError):  # edited, perhaps: those that are usual do for a page
        limits = limits_of(made_with)
    pictures = draw(output, (*samples.suspects, *samples.randoms), identities, limits, until_s)
    return render(
        Contents(
            run=run,
            output=output.uri,
            made_with=made_with,
            classifier=classifier,
            shards=len(identities),
            committed=len(committed),
            is_of_all=of_all,
            found=found,
            alert=_alert(run.config, found) if classifier else None,
            samples=samples,
            pictures=pictures,
        )
    )


def _answered(output: Store, classifier: str | None, identities: Mapping[str, str]) -> dict[str, str]:
    """Where the predictions of the committed shards lie, by NAME."""
    if classifier is None:
        return {}
    predicted = ledger.list_predicted(output, classifier)
    return {
        name: ledger.predictions_path(classifier, name)
        for name, identity in identities.items()
        if identity in predicted.get(name, ())
    }


def _alert(config: dict[str, Any], found: Scan) -> Alert:
    """The run's own rule, over all that is on the page."""
    try:
        rule = AlertConfig.model_validate(config.get("alert") or {})
    except ValueError:  # of another version of this program
        rule = AlertConfig()
    return judge(found.by_class, rule)
