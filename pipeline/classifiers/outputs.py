"""What a network's output says: a class for each image, with scores where it gives them.

For every protocol. Nothing is guessed: an output that could be read in two ways (one score an image,
a row of whole numbers) is refused by name, since a wrong reading would look like an answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from pipeline.classifiers.base import Answers
from pipeline.errors import ClassifierError
from zipstage.errors import nearest

# The classification extension answers "score:index" or "score:index:label", the best one first.
_RANKED = re.compile(rb"[^:]*:(\d{1,18})(?::.*)?", re.DOTALL)
_INDEX = re.compile(rb"\d{1,18}")


def choose_output(wanted: str | None, known: Sequence[str], where: str) -> str | None:
    """The name of the output to read: the one set, else the only or first known one, else None.

    Raises:
        ClassifierError: The one set isn't there.
    """
    if wanted is None:
        return known[0] if known else None
    if known and wanted not in known:
        raise ClassifierError(
            f"{where}: expected an output {wanted!r} (classifier.output), "
            f"found {', '.join(known[:20])}.{nearest(wanted, known[:1000])}"
        )
    return wanted


def read_answers(output: np.ndarray, num_images: int, num_sent: int, where: str) -> Answers:
    """Answers for the first `num_images` of the `num_sent` rows that went out; the others filled a fixed batch.

    Args:
        output: Scores [n, k] (floats, or quantised to 8 bits), class indices [n] or [n, 1] (integers), or
            BYTES [n, ...] that hold an index or the classification extension's `score:index:label`.
        num_images: Images asked about.
        num_sent: Rows sent.
        where: Classifier and output, for messages.

    Raises:
        ClassifierError: Another number of answers, or an output that is neither.
    """
    if output.ndim == 0 or len(output) != num_sent:
        raise ClassifierError(
            f"{where}: expected {num_sent} answers for {num_sent} images, found shape {list(output.shape)}. "
            "Is the first dimension the batch?"
        )
    # a network that ends in a pooling answers [n, k, 1, 1]
    rows = output.reshape(num_sent, -1) if all(side == 1 for side in output.shape[2:]) else output
    kind, rows = output.dtype.kind, rows[:num_images]
    if rows.ndim == 2 and rows.shape[1] > 1 and (kind == "f" or output.dtype.itemsize == 1):
        with np.errstate(over="ignore"):  # a score too large for float32 is infinite, and said to be
            return _from_scores(rows.astype(np.float32))
    if rows.ndim == 2 and rows.shape[1] == 1 and kind in "iu":
        return _from_indices(rows[:, 0].astype(np.int64))
    if rows.ndim == 2 and rows.shape[1] >= 1 and kind == "O":
        return _from_indices(np.array([_index(row[0], where) for row in rows], np.int64))
    raise ClassifierError(
        f"{where}: expected scores [n, k] of k >= 2 classes or whole-numbered classes [n], "
        f"found {output.dtype.name} {list(output.shape)}. Name the right output by classifier.output."
    )


def _from_scores(scores: np.ndarray) -> Answers:
    # -inf for a class that is ruled out is an answer; NaN or a largest score without end is none
    usable = np.isfinite(scores.max(axis=1))
    classes = np.where(usable, np.nan_to_num(scores).argmax(axis=1), -1).astype(np.int64)
    return Answers(classes, scores, [None if ok else "the scores have no finite largest one" for ok in usable])


def _from_indices(classes: np.ndarray) -> Answers:
    errors = [None if index >= 0 else f"the class index is {index}" for index in classes]
    return Answers(np.maximum(classes, -1), None, errors)


def _index(answer: bytes, where: str) -> int:
    ranked = _RANKED.fullmatch(answer)
    if ranked:
        return int(ranked[1])
    if _INDEX.fullmatch(answer):
        return int(answer)
    raise ClassifierError(
        f"{where}: expected a class index or score:index:label, found {answer[:40]!r}. "
        "Name an output with scores by classifier.output."
    )
