"""The main path, top to bottom: plan, purify, commit, ask. A newcomer reads this first.

    plan       list input, records and staging once; freeze what is to do
    purify     for each window of shards: Read -> Purify -> Stage, a receipt for each part
    commit     as soon as all parts of a shard are in
    ask        as soon as a shard is committed; and about those committed earlier

Purification never waits for a classifier; nothing is visible before it is whole; a rerun does only
what is missing. The engine (`pipeline.graph` on Ray) decides where the work runs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from pipeline import ledger
from pipeline.alert import look_for_alert
from pipeline.ask import drop_leftovers
from pipeline.black_box import asked_of, claim_name, list_predicted
from pipeline.classifiers import build as build_classifier
from pipeline.commit import Committed
from pipeline.config import JobConfig
from pipeline.engine import Engine
from pipeline.errors import ClassifierAwayError, ConfigError, LeaseError, StoreError
from pipeline.facts import Ended, Fact, Failed, Idle, Planned, Slowest, Started, Summary, Warned, Watch, new_run
from pipeline.info import write_info
from pipeline.inputs import find_shards, refuse_overlap
from pipeline.latest import publish_latest
from pipeline.lease import Lease
from pipeline.ledger import Plan, Task
from pipeline.log import Journal
from pipeline.marker import require_marker
from pipeline.outage import Outage
from pipeline.pairs import limits_of
from pipeline.parts import Receipt
from pipeline.report import write_report
from pipeline.run_metrics import RunMetrics
from pipeline.stopping import Stop
from pipeline.store import Shard, Store, open_store, supports_create
from pipeline.tally import Tally
from pipeline.timeline import Timeline
from zipstage.purifiers import describe

EngineOf = Callable[[JobConfig, Store, str], Engine]

LAST_WORDS_S = 3.0
"""Patience with storage once a run ends early: who stops it gives it some 30 s in all."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job whose input and output were found and whose settings fit the output.

    Args:
        config: Its settings.
        output: Where everything goes.
        fingerprint: Of all that decides purified bytes.
        plan: What is to purify.
        to_ask: Shards committed earlier that the classifier has not answered for.
    """

    config: JobConfig
    output: Store
    fingerprint: str
    plan: Plan
    to_ask: tuple[Shard, ...]


def purify(config: JobConfig, watch: Watch, engine_of: EngineOf | None = None, run: str | None = None) -> Summary:
    """Run a job: purified shards, tables, predictions, and a summary of what came of it.

    Args:
        config: The job.
        watch: Told each fact as it comes.
        engine_of: Makes the engine; none: Ray.
        run: Name of the run; none: the config's, else made of the clock.

    Raises:
        ConfigError: Input, output or settings are wrong; nothing was done.
        NotReadyError: The input's marker isn't there yet; nothing was done.
        LeaseError: Another run is at work on the output; or it took over while this one stood still.
        StoreError: Storage can't be reached or used; nothing was done.
    """
    summary, tell = _started(watch, run or config.run)
    return _leased(config, lambda lease: prepare(config, tell, lease), engine_of, tell, summary)


def query(config: JobConfig, watch: Watch, engine_of: EngineOf | None = None, run: str | None = None) -> Summary:
    """Ask a classifier about committed shards that it has not answered for; purifies nothing.

    Needs neither the purifier's network nor its seed: what was purified says what it was made with.

    Raises:
        ConfigError: Nothing was purified in the output, or the settings name no classifier.
        LeaseError: Another run is at work on the output; or it took over while this one stood still.
        StoreError: Storage can't be reached or used; nothing was done.
    """
    asked_of(config)
    summary, tell = _started(watch, run or config.run)
    return _leased(config, lambda lease: prepare_query(config, tell, lease), engine_of, tell, summary)


def _leased(
    config: JobConfig, prepared: Callable[[Lease], Job], engine_of: EngineOf | None, tell: Watch, summary: Summary
) -> Summary:
    """Prepare and run as the one driver; a run that may not is told in its summary as well, for its scheduler."""
    stop = Stop()
    try:
        with Lease(summary.run, config.cluster.lease_s, stop) as lease:
            return _run(prepared(lease), engine_of, tell, summary, stop)
    except LeaseError as error:
        summary.end(error)
        with suppress(StoreError):
            _write_summary(config, _impatient(config), summary)
        raise


def _run(job: Job, engine_of: EngineOf | None, tell: Watch, summary: Summary, stop: Stop) -> Summary:
    """Do what was planned; however that ends, its summary is written."""
    tell(_planned(job))
    try:
        if job.plan.tasks or job.to_ask:
            with _make(engine_of, job) as engine, stop.on_signals():
                tell(Started(engine.device, engine.purifiers))
                _work(job, engine, Outage(tell, stop).tell, stop)
        summary.alert = look_for_alert(job.config, job.output, job.plan.shards)
    except KeyboardInterrupt:
        summary.interrupted = True
        _finish_if_possible(job, summary, tell)
    except Exception as error:
        summary.end(error)
        _finish_if_possible(job, summary, tell)
        raise
    else:
        _finish(job, summary, tell)
        summary.latest = publish_latest(job.config, job.output, job.plan.shards, summary)
    tell(Ended(summary))
    return summary


def prepare(config: JobConfig, tell: Watch, lease: Lease | None) -> Job:
    """Find input and output, refuse what doesn't fit, freeze what is to do.

    Args:
        config: The job.
        tell: Told of refused shards and warnings.
        lease: Taken when the output is claimed for these settings; none: the output is not touched.
    """
    output = open_store(config.output, config.storage.patience_s)
    shards = _find(config, tell)
    facts, isolates = describe(config.purifier.settings())
    settings = ledger.purification_facts(config, facts, isolates)
    fingerprint = ledger.canonical_digest(settings)
    _check_classifier(config, tell)
    if lease is not None:
        ledger.claim_settings(output, settings)
        _take(lease, output, tell)
    else:
        ledger.check_settings(output, settings)
    plan = ledger.make_plan(config, shards, output, fingerprint)
    if lease is not None:
        for name, leftover in plan.leftovers:
            output.delete_below(ledger.staging_prefix(name, leftover))
        for path in plan.given_up:
            output.delete(path)
        _make_room_for_answers(config, output, plan, tell)
    _tell_refused(plan, tell)
    return Job(config, output, fingerprint, plan, _to_ask(config, output, plan))


def prepare_query(config: JobConfig, tell: Watch, lease: Lease) -> Job:
    """Find what was purified and what the classifier has not answered for; no purified shard is touched."""
    output = open_store(config.output, config.storage.patience_s)
    made_with = ledger.read_settings(output)
    if made_with is None:
        raise ConfigError(
            f"output {config.output}: nothing was purified there, it has no {ledger.SETTINGS_PATH}. "
            "Name the output of a `zipstage purify`."
        )
    shards = _find(config, tell)
    # Only the classifier is asked: a purifier's device need not be there, and nothing is overwritten. Images are
    # decoded under the limits that they were purified under.
    purifier = config.purifier.model_copy(update={"device": "auto"})
    limits = limits_of(made_with)
    config = config.model_copy(
        update={"overwrite": False, "retry_failed": False, "purifier": purifier, "limits": limits}
    )
    _check_classifier(config, tell)
    _take(lease, output, tell)
    plan = ledger.make_plan(config, shards, output, made_with["fingerprint"])
    _make_room_for_answers(config, output, plan, tell)
    _tell_refused(plan, tell)
    plan = Plan(plan.shards, (), refused=plan.refused)
    return Job(config, output, made_with["fingerprint"], plan, _to_ask(config, output, plan))


def _find(config: JobConfig, tell: Watch) -> list[Shard]:
    require_marker(config.input, config.marker, config.storage.patience_s)
    refused: dict[str, str] = {}
    shards = find_shards(config.input, config.storage.patience_s, refused)
    for name, reason in refused.items():
        tell(Failed(name, reason))
    refuse_overlap(config.output, config.input, shards)
    if config.latest is not None:
        refuse_overlap(config.latest, config.input, ())
    return shards


def _take(lease: Lease, output: Store, tell: Watch) -> None:
    """Become the one driver of an output that has settings, as far as its storage can hold that."""
    if not supports_create(output, ledger.SETTINGS_PATH):
        alone = "its server ignores If-None-Match: let only one run write there at a time"
        tell(Warned(f"output {output.uri}: {alone}"))
    lease.take(output, lambda text: tell(Warned(text)))


def _tell_refused(plan: Plan, tell: Watch) -> None:
    for name, reason in plan.refused.items():
        tell(Failed(name, reason))


def _work(job: Job, engine: Engine, tell: Watch, stop: Stop) -> None:
    for shard in job.to_ask:
        engine.start_ask(shard)
    shards = {task.shard.name: task.shard for task in job.plan.tasks}
    tally = Tally()
    windows = job.plan.windows(job.config.cluster.window_parts, job.config.part, tally.whole)
    for window in windows:
        tasks = {task.shard.name: task for task in window}
        for receipt in engine.receipts(window):
            _note(receipt, tasks, tally, engine, tell)
            _settle(engine.finished(), shards, job, engine, tell)
            _heed(stop, engine, tell)
        stop.insist()
        for name, why in tally.unaccounted(tasks):
            tell(Failed(name, why))
    while engine.num_open:
        _settle(engine.finished(wait_s=1.0), shards, job, engine, tell)
        tell(Idle())
        stop.insist()


def _note(
    receipt: Receipt | Warned | Slowest | None, tasks: dict[str, Task], tally: Tally, engine: Engine, tell: Watch
) -> None:
    """Count a receipt; the one that makes its shard whole starts the commit."""
    if not isinstance(receipt, Receipt):
        tell(receipt or Idle())
        return
    is_first_loss = not receipt.is_in and receipt.shard not in tally.lost
    is_first_given_up = receipt.outcome == "given up" and receipt.shard not in tally.given_up
    num_parts = tally.note(receipt)
    tell(receipt)
    if is_first_loss:
        at = receipt.index if receipt.outcome == "failed" else None
        tell(Failed(receipt.shard, receipt.error or "failed", 75 if receipt.outcome == "away" else 1, at))
    if is_first_given_up:
        again = "Such samples get failed rows; --retry-failed tries again."
        tell(Warned(f"{receipt.error}. {again}", receipt.shard, receipt.index))
    if num_parts is not None:
        engine.start_commit(tasks[receipt.shard], num_parts)


def _settle(ended: Sequence[Fact], shards: dict[str, Shard], job: Job, engine: Engine, tell: Watch) -> None:
    """Tell what ended; a committed shard is asked about."""
    for fact in ended:
        tell(fact)
        if isinstance(fact, Committed) and job.config.classifier is not None:
            engine.start_ask(shards[fact.shard])


def _heed(stop: Stop, engine: Engine, tell: Watch) -> None:
    """Once it is asked for the end, a run takes no new parts; what is purified is staged."""
    if stop.is_asked:
        stop.tell_once(lambda text: tell(Warned(text)))
        engine.drain()


def _make_room_for_answers(config: JobConfig, output: Store, plan: Plan, tell: Watch) -> None:
    """Withdraw what another classifier said under this one's name; drop what an earlier run left behind."""
    if config.classifier is not None and claim_name(config.classifier, output):
        name = config.classifier.name
        tell(Warned(f"classifier.name {name!r}: what another classifier said under it is withdrawn and asked anew."))
    drop_leftovers(output, plan.shards)


def _to_ask(config: JobConfig, output: Store, plan: Plan) -> tuple[Shard, ...]:
    """Whole shards, not to be purified now, that the classifier has not answered for."""
    if config.classifier is None:
        return ()
    predicted = list_predicted(config.classifier, output)
    records = ledger.list_records(output)
    purifying = {task.shard.name for task in plan.tasks}
    return tuple(
        shard
        for shard in plan.shards
        if shard.name not in purifying
        and shard.identity in records.get(shard.name, ())
        and shard.identity not in predicted.get(shard.name, ())
    )


def _check_classifier(config: JobConfig, tell: Watch) -> None:
    """Say no early: a classifier that refuses the settings ends the job before it begins; one that is away doesn't."""
    if config.classifier is None:
        return

    async def connect() -> None:
        async with build_classifier(config.classifier):  # type: ignore[arg-type] # checked above
            pass

    try:
        asyncio.run(connect())
    except ClassifierAwayError as error:
        tell(Warned(f"{error} The images are purified all the same; run again to ask."))


def _make(engine_of: EngineOf | None, job: Job) -> Engine:
    if engine_of is None:
        from pipeline.graph import RayEngine

        engine_of = RayEngine
    return engine_of(job.config, job.output, job.fingerprint)


def _started(watch: Watch, run: str | None) -> tuple[Summary, Watch]:
    name = run or new_run()
    journal, timeline = Journal(name), Timeline()
    summary = Summary(name, journal=journal, timeline=timeline)
    watching = (summary.note, journal.note, timeline.note, RunMetrics(name).note, watch)

    def tell(fact: Any) -> None:  # noqa: ANN401 - any Fact
        for one in watching:
            one(fact)

    return summary, tell


def _planned(job: Job) -> Planned:
    size = sum(task.shard.stored.size for task in job.plan.tasks)
    return Planned(len(job.plan.shards), len(job.plan.tasks), len(job.to_ask), size)


def _finish(job: Job, summary: Summary, tell: Watch) -> None:
    """Write what consumers and schedulers read: shard names and lengths, and how the run ended; what people read."""
    write_info(job.output)
    job.output.drop_empty_folders("_staging")
    _write_summary(job.config, job.output, summary)
    write_report(job.config, job.output, summary, tell)


def _finish_if_possible(job: Job, summary: Summary, tell: Watch) -> None:
    """The same after what ended a run early: the storage, perhaps, which isn't waited for once more."""
    with suppress(StoreError):
        _finish(replace(job, output=_impatient(job.config)), summary, tell)


def _impatient(config: JobConfig) -> Store:
    return open_store(config.output, min(config.storage.patience_s, LAST_WORDS_S))


def _write_summary(config: JobConfig, output: Store, summary: Summary) -> None:
    output.put(f"runs/{summary.run}/config.json", _dumps(config.model_dump(mode="json")))
    output.put(f"runs/{summary.run}/summary.json", _dumps(summary.to_dict()))
    if summary.journal is not None:
        with suppress(StoreError):  # a log is for people to read, and no reason to end otherwise
            output.put(f"runs/{summary.run}/log.jsonl", summary.journal.ended(summary))


def _dumps(value: Any) -> bytes:  # noqa: ANN401 - a JSON value
    return json.dumps(value, indent=1, sort_keys=True).encode()
