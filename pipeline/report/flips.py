"""Flips by class: which answers changed, and to what; the class that stands out first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from pipeline.report.scan import Scan
from zipstage.evaluation.metrics import wilson_interval

MAX_CLASSES = 100
MAX_TARGETS = 3

OPEN_CLASSES = 12
"""Classes shown at once; the others wait behind a summary."""


@dataclass(frozen=True, slots=True)
class ClassFlips:
    """What became of the answers of one class as received.

    Args:
        title: The class, by name where it has one.
        class_index: The class.
        answers: Samples with both answers, answered with it as received.
        flipped: How many of them got another answer when purified.
        share: Flipped among answers.
        low: The lower end of the share's 95 % interval (Wilson).
        high: The upper end.
        targets: What they were answered with instead, most often first, and how often.
    """

    title: str
    class_index: int
    answers: int
    flipped: int
    share: float
    low: float
    high: float
    targets: list[tuple[str, int]]


def class_title(index: int | None, labels: Sequence[str]) -> str:
    """A class as people know it: its name beside its number, where the settings name it."""
    if index is None:
        return "none"
    return f"{index} ({labels[index]})" if 0 <= index < len(labels) else str(index)


def by_class(found: Scan, labels: Sequence[str]) -> list[ClassFlips]:
    """The classes, that whose flips stand out most surely first."""
    targets: dict[int, list[tuple[int, int]]] = {}
    for (before, after), count in found.flips.most_common():
        some = targets.setdefault(before, [])
        if len(some) < MAX_TARGETS:
            some.append((after, count))
    rows = []
    for index, (answers, flipped) in found.by_class.items():
        low, high = wilson_interval(flipped, answers)
        named = [(class_title(after, labels), count) for after, count in targets.get(index, ())]
        title = class_title(index, labels)
        rows.append(ClassFlips(title, index, answers, flipped, flipped / answers, low, high, named))
    return sorted(rows, key=lambda row: (-row.low, -row.share, row.class_index))


def median_share(rows: Sequence[ClassFlips]) -> float | None:
    """The median share flipped of the classes; None without any."""
    return median(row.share for row in rows) if rows else None
