"""What the demo's job did, read from its tables: CA, ASR and PA, as received and purified."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich import box
from rich.table import Table

from jobs.demo.poison import CLEAN, TARGET, TRIGGERS, Incoming
from zipstage.evaluation.metrics import Rate, attack_success_rate, clean_accuracy, purified_accuracy

NO_ANSWER = -1


@dataclass(frozen=True, slots=True)
class Answered:
    """What the classifier said of each of the demo's images, int64 [n] each; -1 is no answer."""

    before: np.ndarray
    after: np.ndarray


@dataclass(frozen=True, slots=True)
class Measure:
    """One line of the demo's table; `name` is CA, ASR or PA, `images` says of which images."""

    name: str
    images: str
    before: Rate
    after: Rate


def read_answers(output: Path, classifier: str, count: int) -> Answered:
    """The answers of a finished job, by image; its keys are the images' places."""
    rows = _read(output / "predictions" / classifier, ["key", "prediction_before", "prediction_after"])
    index = np.array([int(key) for key in rows["key"].to_pylist()], dtype=np.int64)
    answers = []
    for column in ("prediction_before", "prediction_after"):
        classes = np.full(count, NO_ANSWER, dtype=np.int64)
        classes[index] = rows[column].fill_null(NO_ANSWER).to_pylist()  # to_numpy would load pandas
        answers.append(classes)
    return Answered(*answers)


def num_purified(output: Path) -> int:
    """Samples that the job's tables call `ok`."""
    statuses: list[str] = _read(output / "tables", ["status"])["status"].to_pylist()
    return statuses.count("ok")


def measure(incoming: Incoming, answered: Answered) -> Iterator[Measure]:
    """CA on the clean images, then ASR and PA for each trigger."""

    def of(kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        chosen = incoming.triggers == kind
        return answered.before[chosen], answered.after[chosen], incoming.labels[chosen]

    before, after, labels = of(CLEAN)
    yield Measure("CA", CLEAN, clean_accuracy(before, labels), clean_accuracy(after, labels))
    for trigger in TRIGGERS:
        before, after, labels = of(trigger)
        for name, rate in (("ASR", attack_success_rate), ("PA", purified_accuracy)):
            yield Measure(name, trigger, rate(before, labels, TARGET), rate(after, labels, TARGET))


def as_table(measures: list[Measure]) -> Table:
    """The measures as a table of less than 80 columns, so that it survives a pipe."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    table.add_column("images")
    table.add_column("counted", justify="right")
    table.add_column("as received", justify="right")
    table.add_column("purified", justify="right")
    for line in measures:
        counted = f"{line.after.total:,}"
        table.add_row(line.name, line.images, counted, _percent(line.before), _percent(line.after))
    return table


def _percent(rate: Rate) -> str:
    low, high = (100 * end for end in rate.interval)
    return f"{100 * rate.value:.1f} % ({low:.1f} to {high:.1f})"


def _read(folder: Path, columns: list[str]) -> pa.Table:
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"{folder}: expected the job's tables, found none; see the log under runs/")
    return pa.concat_tables([pq.ParquetFile(file).read(columns) for file in files])
