"""Which sample is shown: the one that was named, the most suspect one, or any one.

Looks for keys in all tables of an output, several at once: a key alone doesn't say its shard.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TypeVar

import pyarrow.compute as pc

from jobs.pack.folder import key_of
from pipeline import ledger, sample
from pipeline.errors import ConfigError
from pipeline.shards import key_and_suffix
from pipeline.store import Store
from zipstage.errors import nearest

_READERS = 16
_NEIGHBOURS = 20
"""Keys before and after an unknown one, of each shard, among which the nearest is looked for."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Chosen:
    """A sample by its place.

    Args:
        shard: NAME.
        identity: Of the received shard.
        number: Of its row, from 0.
        why: How it was chosen, in words; empty when its key was named.
    """

    shard: str
    identity: str
    number: int
    why: str = ""


def choose(
    output: Store,
    key: str | None,
    shard: str | None = None,
    classifier: str | None = None,
    dice: random.Random | None = None,
) -> Chosen:
    """The sample to show.

    Args:
        output: What `zipstage purify` wrote.
        key: Its key, or the name of its image; none: the most suspect one, or any one.
        shard: NAME of its shard, where a key is in several.
        classifier: Whose answers say what is suspect; none: those of all that answered.
        dice: What chooses any one.

    Raises:
        ConfigError: No such key, shard or classifier; what is nearest is named.
    """
    identities = _of_shard(sample.committed_shards(output), shard)
    classifiers = _of_classifier(sample.list_classifiers(output), classifier)
    if key is not None:
        return _named(output, key, identities)
    suspects = _suspects(output, classifiers, identities)
    return suspects or _any(output, identities, dice or random.Random(), asked=bool(classifiers))


def _of_shard(identities: dict[str, str], shard: str | None) -> dict[str, str]:
    if shard is None:
        return identities
    if shard not in identities:
        raise ConfigError(f"--shard {shard}: expected a committed shard, found none.{nearest(shard, identities)}")
    return {shard: identities[shard]}


def _of_classifier(answered: list[str], classifier: str | None) -> list[str]:
    if classifier is None:
        return answered
    if classifier not in answered:
        found = ", ".join(answered) or "none"
        raise ConfigError(f"--classifier {classifier}: expected one that has answered there, found {found}.")
    return [classifier]


def _named(output: Store, key: str, identities: Mapping[str, str]) -> Chosen:
    stem = (key_and_suffix(key) or (key,))[0]
    for wanted in dict.fromkeys((key, stem, key_of(key) if "." in key else key)):  # people type the name of the file
        found = _each(identities, partial(sample.rows_with_key, output, wanted))
        places = {name: rows for name, rows in found.items() if rows}
        if len(places) > 1:
            some = ", ".join(list(places)[:5]) + (", ..." if len(places) > 5 else "")
            raise ConfigError(
                f"key {wanted!r}: it is in {len(places)} shards, {some}. Name one of them: --shard {next(iter(places))}"
            )
        for name, rows in places.items():
            more = f"the first of {len(rows)} rows with this key; the others were rejected" if len(rows) > 1 else ""
            return Chosen(name, identities[name], rows[0], more)
    near = _each(identities, lambda name: _neighbours(output, name, stem))
    hint = nearest(stem, chain.from_iterable(near.values())) or " Column `key` of tables/ has them."
    raise ConfigError(f"key {key!r}: expected a sample of the output, found none in {_shards(identities)}.{hint}")


def _neighbours(output: Store, name: str, key: str) -> list[str]:
    """The keys of a shard that would stand beside a key: the nearest of a million would take minutes to find."""
    arrays = sample.column(output, ledger.table_path(name), "key")
    keys = sorted(chain.from_iterable(array.to_pylist() for _, array in arrays))
    at = bisect_left(keys, key)
    return keys[max(0, at - _NEIGHBOURS) : at + _NEIGHBOURS]


def _suspects(output: Store, classifiers: Iterable[str], identities: Mapping[str, str]) -> Chosen | None:
    """The answer of the largest suspicion; without suspicions, the first whose class changed."""
    best: tuple[float, Chosen] | None = None
    flipped: Chosen | None = None
    for classifier in classifiers:
        for name, identity in _answered(output, classifier, identities):
            path = ledger.predictions_path(classifier, name)
            for start, values in sample.column(output, path, "suspicion"):
                highest = pc.max(values).as_py()
                if highest is not None and (best is None or highest > best[0]):
                    number = start + pc.index(values, highest).as_py()
                    best = highest, Chosen(name, identity, number, f"the most suspect, by the answers of {classifier}")
            if best is None and flipped is None:
                number = _first(sample.column(output, path, "flipped"))
                words = f"no answer of {classifier} has a suspicion: the first whose class changed"
                flipped = None if number is None else Chosen(name, identity, number, words)
    return best[1] if best else flipped


def _answered(output: Store, classifier: str, identities: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    answered = ledger.list_predicted(output, classifier)
    return ((name, identity) for name, identity in identities.items() if identity in answered.get(name, ()))


def _first(arrays: Iterable[tuple[int, object]]) -> int | None:
    return next((start + i for start, array in arrays if (i := pc.index(array, True).as_py()) >= 0), None)


def _any(output: Store, identities: Mapping[str, str], dice: random.Random, *, asked: bool) -> Chosen:
    name = dice.choice(sorted(identities))
    column = sample.column(output, ledger.table_path(name), "status")
    statuses = list(chain.from_iterable(array.to_pylist() for _, array in column))
    numbers = [i for i, status in enumerate(statuses) if status == "ok"] or range(len(statuses))
    if not numbers:
        raise ConfigError(f"shard {name}: it holds no sample. Name another one: --shard NAME.")
    why = "no answer changed" if asked else "no classifier was asked"
    return Chosen(name, identities[name], dice.choice(numbers), f"any one, since {why}")


def _each(names: Iterable[str], look: Callable[[str], T]) -> dict[str, T]:
    """What is found in each shard, some at a time: one after the other, in a bucket, takes minutes."""
    names = list(names)
    with ThreadPoolExecutor(_READERS) as readers:
        return dict(zip(names, readers.map(look, names), strict=True))


def _shards(identities: Mapping[str, str]) -> str:
    return f"{len(identities):,} shards" if len(identities) > 1 else f"shard {next(iter(identities))}"
