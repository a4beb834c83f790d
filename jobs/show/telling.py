"""The row of one sample, and what was said of it, in lines that people can read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pipeline.plain import plain
from pipeline.sample import Row

_COLUMN = 12
_SCORES = 3


def lines(
    row: Row, answers: Mapping[str, Row], num_rows: int, classes: Sequence[str] = ()
) -> Iterator[tuple[str, str]]:
    """Names and values; a name may be empty.

    Args:
        row: Of the table.
        answers: Of the predictions, by classifier.
        num_rows: Of the shard.
        classes: Names of the labels, in their order; none where nobody knows them.
    """
    yield "key", plain(row["key"])
    yield "shard", f"{row['shard']}, sample {row['index'] + 1:,} of {num_rows:,}"
    yield "status", row["status"] + (f": {plain(row['error'])}" if row["error"] else "")
    yield "label", _label(row["label"], classes)
    if row["width"]:
        yield "image", f"{row['width']}x{row['height']} px, received as {row['mode']}"
    if row["status"] == "ok":
        same = "none: no pixel changed" if row["psnr"] is None else f"{row['psnr']:.1f} dB, received to purified"
        yield "psnr", same
    if row["residual"] is not None:
        yield "residual", f"{row['residual']:.3g}"
    for classifier, said in answers.items():
        yield "", ""
        yield "classifier", classifier
        yield from _answer(said)


def _label(label: int | None, classes: Sequence[str]) -> str:
    if label is None:
        return "none"
    return f"{label} ({plain(classes[label])})" if 0 <= label < len(classes) else str(label)


def _answer(said: Row) -> Iterator[tuple[str, str]]:
    if said["status"] == "unanswered":
        yield "  unanswered", plain(said["error"] or "")
    yield "  before", answer(said, "before", _SCORES)
    yield "  after", answer(said, "after", _SCORES)
    if said["flipped"] is not None:
        yield "  flipped", "yes" if said["flipped"] else "no"
    if said["suspicion"] is not None:
        yield "  suspicion", f"{said['suspicion']:.3f} (0: the same scores, 1: nothing in common)"


def answer(said: Row, when: str, num_scores: int = 1) -> str:
    """'class 3, score 0.981' of the answer `before` or `after`; further scores in brackets."""
    index, scores = said[f"prediction_{when}"], said[f"scores_{when}"] or []
    if index is None:
        return "no answer"
    by_class = {score["class"]: score["score"] for score in scores}
    first = f"class {index}" + (f", score {by_class[index]:.3g}" if index in by_class else "")
    others = [f"{other}: {score:.3g}" for other, score in by_class.items() if other != index][: num_scores - 1]
    return first + (f" (then {', '.join(others)})" if others else "")


def table(rows: Iterator[tuple[str, str]]) -> str:
    """Names and values, one a line."""
    return "\n".join(f"{name:<{_COLUMN}}{value}".rstrip() for name, value in rows)
