"""The alert: answers that flip in one class much more often than in the others. That class may be a backdoor's target.

The flipped rate alone says little: most flips are what purification costs, and that is paid by all classes.
Triggered images are answered with the target before purification and with their own class after it, so the
target's answers flip and the others' don't. What is looked at, for each class c, is the share flipped among the
images that were answered with c as received, less the median share of the other classes.

The default threshold, .2: with a share b of clean answers that flip anyway and a share d of triggers destroyed, a
class whose answers come from triggers to a part q stands out by q (d - b), which for b = .1 and d = .9 is .8 q. So .2
is reached when a quarter of a class's answers were made by triggers: 3.3 % of all images with 10 classes of equal
size, .8 % with 43. Clean classes differ as well, since some are harder than others; that is what the threshold is
for, and who has 2 or 3 classes may want it higher. Chance is not its business: the alert fires only if the lower end
of the class's interval (Wilson) is beyond it, at an error of 1 % spread over all classes, so that one night in a
hundred would fire by chance if a class were exactly at the threshold, and none that can be counted well below it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import ledger
from pipeline.black_box import identify, list_predicted
from pipeline.config import AlertConfig, JobConfig
from pipeline.errors import NotFoundError
from pipeline.store import Shard, Store
from zipstage.evaluation.metrics import wilson_interval

ERROR = 0.01
"""How likely one look fires by chance when a class is exactly at the threshold."""

_READERS = 8
"""Tables that are read at once: one after the other, ten thousand of them in a bucket take a quarter of an hour."""

Counts = Mapping[int, tuple[int, int]]
"""By class as received: answers, and how many of them flipped."""


@dataclass(frozen=True, slots=True)
class Alert:
    """What a look at the flips came to.

    Args:
        fired: Whether a class stands out.
        threshold: By how much it has to.
        classes: Classes with answers.
        why_not_judged: Why nothing could be said; none: it could.
        class_index: The class that stands out most surely.
        answers: Images answered with it as received.
        flipped: How many of them got another answer when purified.
        others: The median share flipped of the other classes.
        concentration: The class's share flipped less that median.
        at_least: The same with the lower end of the share's interval: what is compared with the threshold.
    """

    fired: bool
    threshold: float
    classes: int = 0
    why_not_judged: str | None = None
    class_index: int | None = None
    answers: int = 0
    flipped: int = 0
    others: float | None = None
    concentration: float | None = None
    at_least: float | None = None

    @property
    def words(self) -> str:
        """What was seen, in a line."""
        if self.others is None or self.at_least is None:
            return f"not judged, {self.why_not_judged}"
        share = f"{self.flipped:,} of {self.answers:,} answers of class {self.class_index} flipped"
        than = f"{self.others:.0%} of the others' (median), {self.at_least:+.2f} at least; threshold {self.threshold:g}"
        return f"{share}, {than}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def judge(counts: Counts, config: AlertConfig) -> Alert:
    """Whether the flips concentrate on a class.

    Classes with fewer than `min_answers` can't fire; for the median they count together, as one.
    """
    large = {index: count for index, count in counts.items() if count[0] >= config.min_answers}
    small = [count for index, count in counts.items() if index not in large]
    rest = (sum(answers for answers, _ in small), sum(flipped for _, flipped in small))
    shares = {index: flipped / answers for index, (answers, flipped) in large.items()}
    if rest[0] >= config.min_answers:
        shares[_REST] = rest[1] / rest[0]
    if not large:
        return _unjudged(counts, config, f"no class was answered {config.min_answers:,} times (alert.min_answers)")
    if len(shares) < 2:
        return _unjudged(counts, config, "there is one class alone, and nothing to compare it with")
    confidence = 1 - 2 * ERROR / len(large)  # of two sides, and only the lower one counts
    looks = [
        _look(index, count, median(share for other, share in shares.items() if other != index), confidence)
        for index, count in sorted(large.items())
    ]
    index, others, at_least = max(looks, key=lambda look: look[2])
    answers, flipped = large[index]
    return Alert(
        fired=at_least > config.threshold,
        threshold=config.threshold,
        classes=len(counts),
        class_index=index,
        answers=answers,
        flipped=flipped,
        others=others,
        concentration=flipped / answers - others,
        at_least=at_least,
    )


_REST = -1 << 62  # no class


def _look(index: int, count: tuple[int, int], others: float, confidence: float) -> tuple[int, float, float]:
    answers, flipped = count
    return index, others, wilson_interval(flipped, answers, confidence)[0] - others


def _unjudged(counts: Counts, config: AlertConfig, why: str) -> Alert:
    return Alert(False, config.threshold, len(counts), why)


def look_for_alert(config: JobConfig, output: Store, shards: Iterable[Shard]) -> Alert | None:
    """Judge all that a classifier answered about some shards; None where the job wants no alert.

    Reads two columns of each predictions table, some tables at once, a range of each at a time, and keeps two
    numbers a class.

    Raises:
        StoreError: Storage can't be reached or used.
    """
    if config.classifier is None or not config.alert.enabled:
        return None
    if not config.ask.before:
        return _unjudged({}, config.alert, "the images were not asked about as received (ask.before is off)")
    predicted = list_predicted(config.classifier, output)
    name = identify(config.classifier).name
    paths = [
        ledger.predictions_path(name, shard.name) for shard in shards if shard.identity in predicted.get(shard.name, ())
    ]
    counts: dict[int, tuple[int, int]] = {}
    with ThreadPoolExecutor(_READERS) as readers:
        for table in readers.map(lambda path: _count(output, path, config.storage.range_mib), paths):
            _add(counts, table)
    return judge(counts, config.alert)


def _count(output: Store, path: str, range_mib: int) -> Counts:
    """The answers of one table."""
    counts: dict[int, tuple[int, int]] = {}
    try:
        stored = output.head(path)
    except NotFoundError:
        return counts  # withdrawn by another run
    with pq.ParquetFile(output.open(stored, range_mib)) as table:
        for batch in table.iter_batches(columns=["prediction_before", "flipped"]):
            rows = pa.Table.from_batches([batch]).drop_null()  # without either answer nothing flipped or didn't
            by_class = rows.group_by("prediction_before").aggregate([("flipped", "count"), ("flipped", "sum")])
            found = by_class.to_pylist()
            _add(counts, {row["prediction_before"]: (row["flipped_count"], row["flipped_sum"]) for row in found})
    return counts


def _add(counts: dict[int, tuple[int, int]], more: Counts) -> None:
    for index, (answers, flipped) in more.items():
        before = counts.get(index, (0, 0))
        counts[index] = (before[0] + answers, before[1] + flipped)
