"""`zipstage show`: one sample of an output, its row in lines and its images side by side in a file."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jobs.show.choosing import choose
from jobs.show.drawing import draw
from jobs.show.images import class_names, purified_image, received_image
from jobs.show.telling import lines, table
from pipeline import ledger, sample
from pipeline.commit import Committed
from pipeline.errors import ConfigError
from pipeline.pairs import limits_of
from pipeline.plain import plain
from pipeline.sample import Row
from pipeline.store import Store
from zipstage.errors import ZipstageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be shown, as people typed it.

    Args:
        key: Of the sample; none: the most suspect one, or any one.
        shard: NAME of its shard.
        classifier: Whose answers; none: all.
        input: Where the received shards are now; none: where the records say.
        to: The picture's file, or a folder for it; none: this folder.
    """

    key: str | None = None
    shard: str | None = None
    classifier: str | None = None
    input: str | None = None
    to: str | None = None


def show_sample(output: Store, wanted: Wanted, note: Callable[[str], None], dice: random.Random | None = None) -> str:
    """Write the picture of a sample, and give its row as text.

    Args:
        output: What `zipstage purify` wrote.
        wanted: Which sample, and where the picture goes.
        note: Told what is missing from the picture, and why.
        dice: What chooses a sample where nothing else does.

    Raises:
        ConfigError: No such output, key, shard or classifier, or the picture can't be written there.
    """
    chosen = choose(output, wanted.key, wanted.shard, wanted.classifier, dice)
    if chosen.why:
        note(f"showing {chosen.why}.")
    committed = sample.read_committed(output, chosen.shard, chosen.identity)
    row = sample.row_at(output, ledger.table_path(chosen.shard), chosen.number)
    answers = sample.answers_of(output, chosen.shard, chosen.identity, chosen.number)
    if wanted.classifier is not None:
        answers = {name: said for name, said in answers.items() if name == wanted.classifier}
    text = list(lines(row, answers, committed.record["samples"], class_names(committed)))
    text += [("", ""), ("picture", _draw(output, committed, row, answers, wanted, note))]
    return table(iter(text))


def _draw(
    output: Store,
    committed: Committed,
    row: Row,
    answers: dict[str, Row],
    wanted: Wanted,
    note: Callable[[str], None],
) -> str:
    """Write the picture; gives where it is, or why there is none."""
    if row["sha256_received"] is None or row["status"] in ("undecodable", "rejected"):
        return f"none, since the sample is {row['status']}"
    purified = purified_image(output, row) if row["status"] == "ok" else None
    received = _received(output, committed, row, wanted.input, note)
    if received is None and purified is None:
        return "none, since neither image is at hand"
    path = _place(wanted.to, row["key"])
    try:
        draw(row, answers, received, purified).save(path)
    except OSError as error:
        raise ConfigError(
            f"{path}: can't write the picture: {error.strerror or error}. Name another place: --to FILE.png"
        ) from None
    return f"{path}"


def _received(
    output: Store, committed: Committed, row: Row, moved_to: str | None, note: Callable[[str], None]
) -> np.ndarray | None:
    """The image as received; None, and a note, where it can't be had: the purified one can be shown without it."""
    limits = limits_of(ledger.read_settings(output) or {})
    try:
        return received_image(committed, row, limits, moved_to)
    except ZipstageError as error:
        hint = "" if moved_to else " If it moved, name where it is now: --input PLACE."
        note(f"the picture shows no received image: {str(error).rstrip('.')}.{hint}")
        return None


def _place(to: str | None, key: str) -> Path:
    """The picture's file."""
    made = "show-" + re.sub(r"[^\w-]+", "_", plain(key))[:100].strip("_") + ".png"
    path = Path(to) if to is not None else Path(made)
    if path.is_dir():
        path /= made
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--to {to}: expected a file that ends in {', '.join(SUFFIXES)}, or a folder that is there.")
    return path
