"""How a run ended, in one line with its exit code: what a scheduler's log shows last."""

from __future__ import annotations

from pipeline.errors import ALERT, TRY_AGAIN
from pipeline.facts import Summary

_INTERRUPTED = 130


def verdict(summary: Summary) -> str:
    """The line, such as `exit 75: of 10 shards 2 unanswered. Run again later: it does only what is missing.`."""
    return f"exit {summary.exit_code}: {_words(summary)}"


def _words(summary: Summary) -> str:
    shards = summary.planned.shards if summary.planned else 0
    missing = _missing(summary, shards)
    match summary.exit_code:
        case 0:
            and_answered = " and answered" if summary.alert or summary.asked else ""
            new = {*summary.committed, *summary.asked}
            news = f"{len(new):,} of {shards:,} shards are new" if new else "nothing new"
            return f"{news}; all is committed{and_answered}."
        case code if code == ALERT:
            return (
                f"all is committed and answered, and the alert fired: {summary.alert.words if summary.alert else ''}."
            )
        case code if code == TRY_AGAIN:
            return f"{missing}. Run again later: it does only what is missing."
        case code if code == _INTERRUPTED:
            return "stopped. Run again: it does only what is missing."
        case _:
            return f"{missing}. What is committed stays; mend the cause and run again."


def _missing(summary: Summary, shards: int) -> str:
    failed = f"{len(summary.failed):,} not committed" if summary.failed else ""
    unanswered = f"{len(summary.unanswered):,} unanswered" if summary.unanswered else ""
    return f"of {shards:,} shards " + " and ".join(filter(None, (failed, unanswered)))
