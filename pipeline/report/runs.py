"""What is known of a run: its settings, what it came to, and when what went through.

A run at work has all of it at hand; for one that ended it is read from `runs/RUN/`. A run that was killed
left nothing there, and what it committed is reported all the same.
"""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from typing import Any

from pipeline.alert import Alert
from pipeline.black_box import identify
from pipeline.classifier_config import ClassifierConfig
from pipeline.config import JobConfig
from pipeline.errors import ClassifierError, ConfigError, NotFoundError
from pipeline.facts import Planned, Summary
from pipeline.sample import list_classifiers
from pipeline.store import Store
from zipstage.errors import nearest

_INTERRUPTED = 130
_READERS = 8

_SUMMARY = re.compile(r"runs/(?P<run>[^/]+)/summary\.json")
_CLOCK = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z")


@dataclass(frozen=True, slots=True)
class Run:
    """A run, as its files tell it; each of them is empty where there is none.

    Args:
        name: RUN; empty where no run left word.
        config: Its settings, without secrets.
        summary: What it came to.
        timeline: When what went through.
    """

    name: str
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    timeline: dict[str, Any] = field(default_factory=dict)

    @property
    def shards(self) -> set[str]:
        """The shards that it committed, or asked about."""
        return {name for what in ("committed", "asked", "unanswered") for name in self.summary.get(what) or ()}

    @property
    def alert(self) -> Alert | None:
        """What its look at the flips came to; none: it did not look."""
        found = self.summary.get("alert")
        return Alert(**_known(Alert, found)) if found else None

    def to_summary(self) -> Summary:
        """Its summary as it was before it was written."""
        told = self.summary
        summary = Summary(self.name, **_known(Summary, {**told, "run": None, "alert": None, "exit_codes": None}))
        code = told.get("exit_code", 0)
        summary.planned = Planned(told.get("shards", 0), 0, 0, 0)
        summary.alert, summary.exit_codes, summary.error_code = self.alert, {code}, code
        summary.interrupted = code == _INTERRUPTED
        return summary


def _known(kind: Any, values: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - a class of fields
    """What a file says of the fields of a class; another version of this program may say more."""
    names = {one.name for one in fields(kind)}
    return {name: value for name, value in values.items() if name in names and value is not None}


def at_work(config: JobConfig, summary: Summary) -> Run:
    """A run that is just ending; all of it in the order of its files, so that a page made anew is the same one."""
    told = (config.model_dump(mode="json"), summary.to_dict(), summary.timeline.to_dict() if summary.timeline else {})
    return Run(summary.run, *(json.loads(json.dumps(one, sort_keys=True)) for one in told))


def read_run(output: Store, name: str | None) -> Run:
    """A run that ended.

    Args:
        output: Where it wrote.
        name: RUN; none: the newest, if any.

    Raises:
        ConfigError: There is no such run.
    """
    names = [match["run"] for stored in output.list("runs") if (match := _SUMMARY.fullmatch(stored.path))]
    if name is not None and name not in names:
        raise ConfigError(
            f"run {name}: expected runs/{name}/summary.json in {output.uri}, found none.{nearest(name, names)} "
            "A run that was killed leaves none; without --run the newest one is taken."
        )
    if name is None:
        name = _newest(output, names)
    if name is None:
        return Run("")
    config, summary, timeline = (
        _json(output, f"runs/{name}/{file}.json") for file in ("config", "summary", "timeline")
    )
    return Run(name, config, summary, timeline)


def _newest(output: Store, names: list[str]) -> str | None:
    """The run that began last, by what it wrote, else by the clock's time in its name."""
    with ThreadPoolExecutor(_READERS) as readers:
        timelines = readers.map(lambda name: _json(output, f"runs/{name}/timeline.json"), names)
        began = [(str(found.get("began") or _clock(name)), name) for name, found in zip(names, timelines, strict=True)]
    return max(began)[1] if began else None


def _clock(name: str) -> str:
    found = _CLOCK.match(name)
    return "{}-{}-{}T{}:{}:{}".format(*found.groups()) if found else ""


def _json(output: Store, path: str) -> dict[str, Any]:
    try:
        found = json.loads(output.get(path))
    except (NotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def answers_of(run: Run, output: Store) -> str | None:
    """The folder of the predictions that a run is about; none: it asked no classifier, or nothing is there.

    A file is known by its bytes: where it is gone or another one by now, the only folder there is must be it.
    """
    there = list_classifiers(output)
    if run.name and not run.config.get("classifier"):
        return None
    name = _identified(run.config.get("classifier") or {})
    if name in there:
        return name
    return there[0] if len(there) == 1 else None


def _identified(classifier: dict[str, Any]) -> str | None:
    if classifier.get("name"):
        return str(classifier["name"])
    try:
        return identify(ClassifierConfig.model_validate(classifier)).name
    except (ValueError, ClassifierError):
        return None
