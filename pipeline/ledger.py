"""Which shards are whole, which parts are in: found by listings, with no object opened.

The output prefix is the ledger. What a run did is there as files that anyone can list:
`records/NAME.IDENTITY.json` says that a shard is whole, `_staging/NAME/PLAN/00003.arrow` that a
part is in. `make_plan` freezes what is to do before any work begins.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.config import JobConfig, PartConfig
from pipeline.errors import ConfigError, ExistsError, NotFoundError
from pipeline.store import Shard, Store, Stored

ALGORITHM_REVISION = 4
"""Raised by hand when purified bytes change with the same settings."""

PARTS_REVISION = 2
"""Raised by hand when shards are read or cut into parts in another way: staged parts of two cuts don't go together."""

SMALL_TILE_BYTES = 2 << 10
"""What a tile of 256x256 takes at least in nearly all shards: drawings; a photograph as JPEG takes seven times that."""

SETTINGS_PATH = "settings.json"

_READERS = 16
"""Records that are read at once: one after the other, ten thousand of them in a bucket take minutes."""

_RECORD = re.compile(r"records/(?P<name>.+\.tar(\.gz)?)\.(?P<identity>[0-9a-f]{12})\.json")
_ANSWERED = re.compile(r"predictions/[^/]+/(?P<name>.+\.tar(\.gz)?)\.[0-9a-f]{12}\.json")
_STAGED = re.compile(
    r"_staging/(?P<name>.+\.tar(\.gz)?)/(?P<plan>[0-9a-f]{12})/(?P<index>[0-9]{5,})(?P<failed>\.failed)?\.arrow"
)


def shard_path(name: str) -> str:
    return f"shards/{name}"


def table_path(name: str) -> str:
    return f"tables/{name}.parquet"


def record_path(name: str, identity: str) -> str:
    return f"records/{name}.{identity}.json"


def staging_prefix(name: str, plan: str) -> str:
    return f"_staging/{name}/{plan}/"


def staged_path(name: str, plan: str, index: int) -> str:
    return f"{staging_prefix(name, plan)}{index:05d}.arrow"


def failed_path(name: str, plan: str, index: int) -> str:
    """A part with samples that were given up: apart, so that no run takes it for purified."""
    return f"{staging_prefix(name, plan)}{index:05d}.failed.arrow"


def predictions_path(classifier: str, name: str) -> str:
    return f"predictions/{classifier}/{name}.parquet"


def predictions_record_path(classifier: str, name: str, identity: str) -> str:
    return f"predictions/{classifier}/{name}.{identity}.json"


def canonical_digest(facts: Any, length: int = 64) -> str:  # noqa: ANN401 - whatever JSON can hold
    """Hex digits of the sha256 over the canonical JSON of some facts."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def purification_facts(config: JobConfig, purifier: dict[str, Any], isolates: bool) -> dict[str, Any]:
    """All that decides purified bytes, as plain values; its digest is the fingerprint.

    Args:
        config: The job.
        purifier: The method's settings and the digest of its prior's weights.
        isolates: Whether the purifier sees one image alone; else neighbours on a tile matter, and
            so do the part settings.
    """
    facts = {
        "revision": ALGORITHM_REVISION,
        "purifier": purifier,
        "seed_sha256": hashlib.sha256(b"zipstage seed " + config.purifier.seed_bytes()).hexdigest(),
        "encoding": config.encoding.model_dump(),
        "limits": config.limits.model_dump(),
    }
    return facts if isolates else {**facts, "part": config.part.model_dump()}


@dataclass(frozen=True, slots=True)
class Task:
    """One shard to purify, as frozen at the start: what travels to the readers.

    Args:
        shard: The received shard.
        plan: Identity of the work, 12 hex digits over the shard's identity, fingerprint and part settings.
        staged: Numbers of the parts that an earlier run staged.
        replaces: Records that are there and shall be replaced: of answers, then its own.
        gives_up: Whether it may be committed with samples that were given up.
    """

    shard: Shard
    plan: str
    staged: frozenset[int]
    replaces: tuple[Stored, ...] = ()
    gives_up: bool = False

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "staged": sorted(self.staged)})

    @classmethod
    def from_json(cls, text: str) -> Task:
        values = json.loads(text)
        shard = Shard(**{**values["shard"], "stored": Stored(**values["shard"]["stored"])})
        replaces = tuple(Stored(**stored) for stored in values["replaces"])
        return cls(**{**values, "shard": shard, "staged": frozenset(values["staged"]), "replaces": replaces})


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run has to do.

    Args:
        shards: All received shards that the run is about.
        tasks: Those to purify.
        leftovers: Staging of shards that are whole already, (NAME, PLAN): a run ended before it was dropped.
        given_up: Staged parts, with samples that failed, of shards that are not whole: this run tries them anew.
        refused: Shards that changed after their commit, with the line that says so.
    """

    shards: tuple[Shard, ...]
    tasks: tuple[Task, ...]
    leftovers: tuple[tuple[str, str], ...] = ()
    given_up: tuple[str, ...] = ()
    refused: dict[str, str] = field(default_factory=dict)

    def windows(self, parts: int, part: PartConfig, whole: Mapping[str, int]) -> Iterator[tuple[Task, ...]]:
        """The tasks in windows of about so many parts.

        Ray's driver keeps some 1.6 kB for each block it has seen until a dataset ends; a window is
        one dataset. How many parts a shard makes nobody knows before it was read: a JPEG shard
        makes fifty times as many as one of raw pixels. So the first window takes each tile for
        small, and those after it learn from the windows before.

        Args:
            parts: About so many parts each.
            part: How shards are cut into parts.
            whole: How many parts shards were found to have; looked at when the next window is asked for.
        """
        size_by_name = {task.shard.name: task.shard.stored.size for task in self.tasks}
        waiting = deque(self.tasks)
        part_bytes = float(min(part.max_mib << 20, part.tiles * SMALL_TILE_BYTES))
        while waiting:
            if whole:
                part_bytes = max(1, sum(size_by_name[name] for name in whole)) / sum(whole.values())
            window: list[Task] = []
            count = 0.0
            while waiting and count < parts:
                window.append(waiting.popleft())
                count += max(1.0, window[-1].shard.stored.size / part_bytes)
            yield tuple(window)


def make_plan(config: JobConfig, shards: Sequence[Shard], output: Store, fingerprint: str) -> Plan:
    """Freeze what is to do: one listing of the records, one of the staging."""
    shards = shards[: config.limit] if config.limit else shards
    records = list_records(output)
    staged, failed = list_staged(output)
    again = _with_failed_samples(shards, records, output) if config.retry_failed and not config.overwrite else set()
    answered = _list_answered(output) if records and (config.overwrite or again) else {}
    tasks, leftovers, given_up, refused = [], [], [], {}
    for shard in shards:
        plan = plan_identity(shard, fingerprint, config)
        identities = records.get(shard.name, {})
        if identities and not config.overwrite and shard.name not in again:
            if shard.identity in identities:
                leftovers += [(shard.name, plan)] if (shard.name, plan) in {*staged, *failed} else []
            else:
                refused[shard.name] = (
                    f"shard {shard.name}: the input changed after it was committed (now {shard.identity}, committed "
                    f"{', '.join(sorted(identities))}). Use --overwrite to replace what was made of it."
                )
            continue
        parts = frozenset(staged.get((shard.name, plan), ()))
        replaces = (*answered.get(shard.name, ()), *identities.values()) if identities else ()
        tasks.append(Task(shard, plan, parts, replaces, config.give_up))
        given_up += [failed_path(shard.name, plan, index) for index in sorted(failed.get((shard.name, plan), ()))]
    return Plan(tuple(shards), tuple(tasks), tuple(leftovers), tuple(given_up), refused)


def _with_failed_samples(shards: Sequence[Shard], records: dict[str, dict[str, Stored]], output: Store) -> set[str]:
    """The committed shards with samples that were given up, as their records count them."""
    committed = [shard for shard in shards if shard.identity in records.get(shard.name, ())]

    def has_failed(shard: Shard) -> bool:
        with suppress(NotFoundError):  # withdrawn by another run
            return bool(json.loads(output.get(record_path(shard.name, shard.identity)))["statuses"].get("failed"))
        return False

    with ThreadPoolExecutor(_READERS) as readers:
        found = readers.map(has_failed, committed)
        return {shard.name for shard, has in zip(committed, found, strict=True) if has}


def plan_identity(shard: Shard, fingerprint: str, config: JobConfig) -> str:
    return canonical_digest([shard.identity, fingerprint, config.part.model_dump(), PARTS_REVISION], 12)


def list_records(output: Store) -> dict[str, dict[str, Stored]]:
    """The records of committed shards, by NAME and identity."""
    found: dict[str, dict[str, Stored]] = {}
    for stored in output.list("records"):
        if match := _RECORD.fullmatch(stored.path):
            found.setdefault(match["name"], {})[match["identity"]] = stored
    return found


def _list_answered(output: Store) -> dict[str, list[Stored]]:
    """The records of what all classifiers said, by NAME."""
    found: dict[str, list[Stored]] = {}
    for stored in output.list("predictions"):
        if match := _ANSWERED.fullmatch(stored.path):
            found.setdefault(match["name"], []).append(stored)
    return found


def list_staged(output: Store) -> tuple[dict[tuple[str, str], set[int]], dict[tuple[str, str], set[int]]]:
    """The numbers of staged parts, by NAME and PLAN: of whole ones, and of those with samples that were given up."""
    whole: dict[tuple[str, str], set[int]] = {}
    failed: dict[tuple[str, str], set[int]] = {}
    for stored in output.list("_staging"):
        if match := _STAGED.fullmatch(stored.path):
            found = whole if match["failed"] is None else failed
            found.setdefault((match["name"], match["plan"]), set()).add(int(match["index"]))
    return whole, failed


def plan_of(path: str) -> str | None:
    """The PLAN of a staged part's path, None for any other path."""
    match = _STAGED.fullmatch(path)
    return match["plan"] if match else None


def list_predicted(output: Store, classifier: str) -> dict[str, set[str]]:
    """The identities of shards that a classifier has answered for, by NAME."""
    record = re.compile(rf"predictions/{re.escape(classifier)}/(?P<name>.+)\.(?P<identity>[0-9a-f]{{12}})\.json")
    found: dict[str, set[str]] = {}
    for stored in output.list(f"predictions/{classifier}"):
        if match := record.fullmatch(stored.path):
            found.setdefault(match["name"], set()).add(match["identity"])
    return found


def claim_settings(output: Store, facts: dict[str, Any]) -> None:
    """Write what this prefix is made with, or refuse settings that differ from what it was made with.

    Looked up before and after: a server that ignores If-None-Match would overwrite others' settings.

    Raises:
        ConfigError: The prefix was made with other settings; the differing fields are named.
    """
    if check_settings(output, facts):
        return
    wanted = {"fingerprint": canonical_digest(facts), "settings": facts}
    with suppress(ExistsError):
        output.put(SETTINGS_PATH, json.dumps(wanted, indent=1, sort_keys=True).encode(), create=True)
    check_settings(output, facts)


def check_settings(output: Store, facts: dict[str, Any]) -> bool:
    """Refuse settings that differ from what a prefix was made with; a new prefix takes any.

    Returns:
        Whether the prefix has settings.

    Raises:
        ConfigError: The differing fields are named.
    """
    found = read_settings(output)
    if found is None:
        return False
    if found.get("fingerprint") != canonical_digest(facts):
        differing = "; ".join(_differences(found.get("settings", {}), facts))
        raise ConfigError(
            f"output {output.uri}: it was made with other settings ({differing}). "
            "Nothing is mixed: name another output prefix."
        )
    return True


def read_settings(output: Store) -> dict[str, Any] | None:
    """What a prefix was made with: `fingerprint` and `settings`; None where nothing was.

    Raises:
        ConfigError: The file there is no settings of ours.
    """
    try:
        found = json.loads(output.get(SETTINGS_PATH))
    except NotFoundError:
        return None
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("fingerprint"), str):
        raise ConfigError(f"{output.uri_of(SETTINGS_PATH)}: expected the settings of an output, found something else.")
    return found


def _differences(was: Any, now: Any, where: str = "") -> Iterator[str]:  # noqa: ANN401 - two JSON values
    if isinstance(was, dict) and isinstance(now, dict):
        for key in sorted({*was, *now}):
            yield from _differences(was.get(key), now.get(key), f"{where}.{key}" if where else key)
    elif was != now:
        yield f"{where} was {_short(was)}, is {_short(now)}"


def _short(value: Any) -> str:  # noqa: ANN401 - a JSON value
    text = json.dumps(value)
    return text if len(text) <= 24 else f"{text[:13]}...{text[-1:]}"
