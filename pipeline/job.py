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
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pipeline import ledger
from pipeline.ask import Asked, asked_of, classifier_name
from pipeline.classifiers import build as build_classifier
from pipeline.commit import Committed, read_record
from pipeline.config import JobConfig
from pipeline.engine import Engine
from pipeline.errors import ClassifierAwayError
from pipeline.facts import Failed, Idle, Planned, Started, Summary, Warned, Watch
from pipeline.inputs import find_shards, refuse_overlap
from pipeline.ledger import Plan, Task
from pipeline.parts import Receipt
from pipeline.store import Shard, Store, open_store, supports_create
from pipeline.tally import Tally
from zipstage.purifiers import describe

EngineOf = Callable[[JobConfig, Store, str], Engine]


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
        run: Name of the run; none: made of the clock.

    Raises:
        ConfigError: Input, output or settings are wrong; nothing was done.
        StoreError: Storage can't be reached or used; nothing was done.
    """
    summary, tell = _started(watch, run)
    job = prepare(config, tell)
    tell(_planned(job))
    if job.plan.tasks or job.to_ask:
        with _make(engine_of, job) as engine:
            tell(Started(engine.device, engine.purifiers))
            _work(job, engine, tell, summary)
    return _finish(job, summary)


def query(config: JobConfig, watch: Watch, engine_of: EngineOf | None = None, run: str | None = None) -> Summary:
    """Ask a classifier about committed shards that it has not answered for; purifies nothing."""
    asked_of(config)
    summary, tell = _started(watch, run)
    job = prepare(config.model_copy(update={"overwrite": False}), tell)
    job = Job(config, job.output, job.fingerprint, Plan(job.plan.shards, ()), job.to_ask)
    tell(_planned(job))
    if job.to_ask:
        with _make(engine_of, job) as engine:
            tell(Started(engine.device, engine.purifiers))
            _work(job, engine, tell, summary)
    return _finish(job, summary)


def prepare(config: JobConfig, tell: Watch, *, writes: bool = True) -> Job:
    """Find input and output, refuse what doesn't fit, freeze what is to do.

    Args:
        config: The job.
        tell: Told of refused shards and warnings.
        writes: Whether the output may be touched: claimed for these settings, rid of leftovers.
    """
    output = open_store(config.output, config.storage.patience_s)
    shards = find_shards(config.input, config.storage.patience_s)
    refuse_overlap(config.output, config.input, shards)
    facts, isolates = describe(config.purifier.settings())
    settings = ledger.purification_facts(config, facts, isolates)
    fingerprint = ledger.canonical_digest(settings)
    _check_classifier(config, tell)
    if writes:
        ledger.claim_settings(output, settings)
        if not supports_create(output, ledger.SETTINGS_PATH):
            alone = "its server ignores If-None-Match: let only one run write there at a time"
            tell(Warned(f"output {output.uri}: {alone}"))
    else:
        ledger.check_settings(output, settings)
    plan = ledger.make_plan(config, shards, output, fingerprint)
    for name, leftover in plan.leftovers if writes else ():
        output.delete_below(ledger.staging_prefix(name, leftover))
    for name, reason in plan.refused.items():
        tell(Failed(name, reason))
    return Job(config, output, fingerprint, plan, _to_ask(config, output, plan))


def _work(job: Job, engine: Engine, tell: Watch, summary: Summary) -> None:
    try:
        _ask_about_earlier(job, engine, tell)
        shards = {task.shard.name: task.shard for task in job.plan.tasks}
        tally = Tally()
        windows = job.plan.windows(job.config.cluster.window_parts, job.config.part.max_mib * 2**20)
        for window in windows:
            tasks = {task.shard.name: task for task in window}
            for receipt in engine.receipts(window):
                _note(receipt, tasks, tally, engine, tell)
                _settle(engine.finished(), shards, job, engine, tell)
        while engine.num_open:
            _settle(engine.finished(wait_s=1.0), shards, job, engine, tell)
            tell(Idle())
    except KeyboardInterrupt:
        summary.interrupted = True


def _ask_about_earlier(job: Job, engine: Engine, tell: Watch) -> None:
    for shard in job.to_ask:
        committed = read_record(job.output, shard.name, shard.identity)
        if committed is None:
            tell(Failed(shard.name, f"shard {shard.name}: its record vanished while the job began"))
        else:
            engine.start_ask(shard, committed)


def _note(receipt: Receipt | None, tasks: dict[str, Task], tally: Tally, engine: Engine, tell: Watch) -> None:
    """Count a receipt; the one that makes its shard whole starts the commit."""
    if receipt is None:
        tell(Idle())
        return
    is_first_loss = not receipt.is_in and receipt.shard not in tally.lost
    num_parts = tally.note(receipt)
    tell(receipt)
    if is_first_loss:
        tell(Failed(receipt.shard, receipt.error or "failed", 75 if receipt.outcome == "away" else 1))
    if num_parts is not None:
        engine.start_commit(tasks[receipt.shard], num_parts)


def _settle(
    ended: list[Committed | Asked | Failed], shards: dict[str, Shard], job: Job, engine: Engine, tell: Watch
) -> None:
    """Tell what ended; a committed shard is asked about."""
    for fact in ended:
        tell(fact)
        if isinstance(fact, Committed) and job.config.classifier is not None:
            engine.start_ask(shards[fact.shard], fact)


def _to_ask(config: JobConfig, output: Store, plan: Plan) -> tuple[Shard, ...]:
    """Whole shards, not to be purified now, that the classifier has not answered for."""
    if config.classifier is None:
        return ()
    predicted = ledger.list_predicted(output, classifier_name(config.classifier))
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
    summary = Summary(run or time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()))

    def tell(fact: Any) -> None:  # noqa: ANN401 - any Fact
        summary.note(fact)
        watch(fact)

    return summary, tell


def _planned(job: Job) -> Planned:
    size = sum(task.shard.stored.size for task in job.plan.tasks)
    return Planned(len(job.plan.shards), len(job.plan.tasks), len(job.to_ask), size)


def _finish(job: Job, summary: Summary) -> Summary:
    """Write what consumers and schedulers read: shard names and lengths, and how the run ended."""
    job.output.put("_info.json", _dumps(_info(job.output)))
    config = job.config.model_dump(mode="json")
    job.output.put(f"runs/{summary.run}/config.json", _dumps(config))
    job.output.put(f"runs/{summary.run}/summary.json", _dumps(summary.to_dict()))
    return summary


def _info(output: Store) -> dict[str, Any]:
    """Names and lengths of the committed shards, as timm and others read them."""
    lengths: dict[str, int] = {}
    for name, identities in _records(output):
        committed = read_record(output, name, identities)
        if committed is not None:
            lengths[f"shards/{name}"] = committed.num_images
    return {
        "splits": {
            "all": {
                "filenames": list(lengths),
                "shard_lengths": list(lengths.values()),
                "num_samples": sum(lengths.values()),
            }
        }
    }


def _records(output: Store) -> Iterator[tuple[str, str]]:
    for name, identities in sorted(ledger.list_records(output).items()):
        yield name, sorted(identities)[-1]


def _dumps(value: Any) -> bytes:  # noqa: ANN401 - a JSON value
    return json.dumps(value, indent=1, sort_keys=True).encode()
