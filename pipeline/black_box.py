"""Which black box a config means, under which name its answers lie, and whose answers lie there.

A file is known by its bytes, not by its path: another file under the same path is another classifier.
What is behind a URL can't be looked at, so an endpoint is known by what is set about it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import ledger
from pipeline.classifier_config import ClassifierConfig
from pipeline.config import JobConfig
from pipeline.errors import ClassifierError, ConfigError, NotFoundError
from pipeline.store import Store


def asked_of(config: JobConfig) -> ClassifierConfig:
    """The job's classifier.

    Raises:
        ConfigError: It has none.
    """
    if config.classifier is None:
        raise ConfigError("expected `classifier` in the job, found none. Say which black box to ask.")
    return config.classifier


@dataclass(frozen=True, slots=True)
class BlackBox:
    """A classifier as its answers know it.

    Args:
        name: The folder of its predictions: the set name, else made of its model and what it is asked with.
        asked_with: What decides its answers; nothing secret.
    """

    name: str
    asked_with: dict[str, Any]


_OF_SOME = {"region", "content", "content_type", "request", "result"}
"""What decides the answers by some protocols; unset, it changes no name that was made before."""


def identify(config: ClassifierConfig) -> BlackBox:
    """The black box that a config means.

    Raises:
        ClassifierError: Its file can't be read.
    """
    facts = config.model_dump(mode="json", include={"protocol", "url", "model", "version", "input", "output"})
    if config.labels:
        facts["labels"] = list(config.labels)
    facts |= config.model_dump(mode="json", include=_OF_SOME, exclude_none=True)
    if config.path:
        facts["sha256"] = _sha256(config.path)
    return BlackBox(config.name or _made_name(config, facts), facts)


def _made_name(config: ClassifierConfig, facts: dict[str, Any]) -> str:
    title = config.model or (config.path or "").rsplit("/", 1)[-1].split(".")[0]
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", title).lstrip(".-")
    return f"{plain or 'classifier'}-{ledger.canonical_digest(facts, 8)}"


def _sha256(path: str) -> str:
    try:
        found = Path(path).stat()
        return _sha256_of(path, found.st_ino, found.st_size, found.st_mtime_ns)
    except OSError as error:
        raise ClassifierError(
            f"classifier {path}: expected a file, it can't be read: {error.strerror}. Correct classifier.path."
        ) from None


@functools.lru_cache
def _sha256_of(path: str, inode: int, size_bytes: int, mtime_ns: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_predicted(config: ClassifierConfig, output: Store) -> dict[str, set[str]]:
    """The identities of shards that this very classifier has answered for, by NAME.

    Raises:
        ClassifierError: Its file can't be read.
    """
    if _is_anothers(config, output):
        return {}
    return ledger.list_predicted(output, identify(config).name)


def claim_name(config: ClassifierConfig, output: Store) -> bool:
    """Take a set name's folder for this classifier: what another one said under that name counts no more.

    Returns:
        Whether answers of another one were withdrawn.

    Raises:
        ClassifierError: Its file can't be read.
    """
    if not _is_anothers(config, output):
        return False
    records = [stored.path for stored in output.list(f"predictions/{config.name}") if stored.path.endswith(".json")]
    for path in records:
        output.delete(path)
    # Last: a run that ends before withdraws the rest, and none counts as this one's.
    output.put(_claim_path(config), json.dumps(_claim(config), indent=1, sort_keys=True).encode())
    return len(records) > 0


def _is_anothers(config: ClassifierConfig, output: Store) -> bool:
    if config.name is None:
        return False  # its name holds all of it
    try:
        found = json.loads(output.get(_claim_path(config)))
    except (NotFoundError, ValueError):
        return True
    return bool(found != _claim(config))


def _claim_path(config: ClassifierConfig) -> str:
    return f"classifiers/{config.name}.json"


def _claim(config: ClassifierConfig) -> dict[str, Any]:
    """What decides its answers, but for the URL: a set name stays what it is when its server moves."""
    return {name: value for name, value in identify(config).asked_with.items() if name != "url"}
