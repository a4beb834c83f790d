"""What a network's output says: a class for each image, with scores where it gives them.

For every protocol. Nothing is guessed: an output that could be read in two ways (one score an image,
a row of whole numbers, a name that two classes have) is refused by name, since a wrong reading would
look like an answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from pipeline.classifiers.base import Answers
from pipeline.classifiers.tensors import WireError, datatype_of
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


def read_answers(
    output: np.ndarray, num_images: int, num_sent: int, where: str, labels: Sequence[str] | None = None
) -> Answers:
    """Answers for the first `num_images` of the `num_sent` rows that went out; the others filled a fixed batch.

    Args:
        output: Scores [n, k] (floats, or quantised to 8 bits), class indices [n] or [n, 1] (integers), or
            BYTES: a class's name or index [n] or [n, 1], or the classification extension's
            `score:index:label` [n, ...].
        num_images: Images asked about.
        num_sent: Rows sent.
        where: Classifier and output, for messages.
        labels: Names of the classes in the order of their indices, where they are known.

    Raises:
        ClassifierError: Another number of answers or classes, or an output that is none of these.
    """
    if output.ndim == 0 or len(output) != num_sent:
        raise ClassifierError(
            f"{where}: expected {num_sent} answers for {num_sent} images, found shape {list(output.shape)}. "
            "Is the first dimension the batch?"
        )
    # a network that ends in a pooling answers [n, k, 1, 1]
    rows = output.reshape(num_sent, -1) if all(side == 1 for side in output.shape[2:]) else output
    kind, rows, came = output.dtype.kind, rows[:num_images], _came(output)
    if rows.ndim == 2 and rows.shape[1] > 1 and (kind == "f" or output.dtype.itemsize == 1):
        _check_labels(rows.shape[1], labels, where)
        with np.errstate(over="ignore"):  # a score too large for float32 is infinite, and said to be
            return _from_scores(rows.astype(np.float32), came)
    if rows.ndim == 2 and rows.shape[1] == 1 and kind in "iu":
        return _from_indices(rows[:, 0].astype(np.int64), labels, came)
    if rows.ndim == 2 and rows.shape[1] >= 1 and kind == "O":
        return _from_texts([_text(row, where) for row in rows], labels, where, came)
    raise ClassifierError(
        f"{where}: expected scores [n, k] of k >= 2 classes or whole-numbered classes [n], "
        f"found {came}. Name the right output by classifier.output."
    )


def _came(output: np.ndarray) -> str:
    try:
        return f"{datatype_of(output.dtype)} {list(output.shape)}"
    except WireError:  # a network of the user's own may give complex numbers
        return f"{output.dtype.name} {list(output.shape)}"


def _check_labels(num_classes: int, labels: Sequence[str] | None, where: str) -> None:
    if labels is not None and len(labels) != num_classes:
        raise ClassifierError(
            f"{where}: expected scores of the {len(labels)} classes that the labels name, found {num_classes} "
            "scores an image. Correct classifier.labels, or name the right output by classifier.output."
        )


def _from_scores(scores: np.ndarray, came: str) -> Answers:
    # -inf for a class that is ruled out is an answer; NaN or a largest score without end is none
    usable = np.isfinite(scores.max(axis=1))
    classes = np.where(usable, np.nan_to_num(scores).argmax(axis=1), -1).astype(np.int64)
    errors = [None if ok else "the scores have no finite largest one" for ok in usable]
    return Answers(classes, scores, errors, came)


def _from_indices(found: np.ndarray, labels: Sequence[str] | None, came: str) -> Answers:
    errors = [_why_no_class(int(index), labels) for index in found]
    classes = np.array([-1 if error else index for index, error in zip(found, errors, strict=True)], np.int64)
    return Answers(classes, None, errors, came)


def _why_no_class(index: int, labels: Sequence[str] | None) -> str | None:
    if index < 0:
        return f"the class index is {index}"
    if labels is not None and index >= len(labels):
        return f"the class index is {index}, and the labels name {len(labels)} classes"
    return None


def _text(row: np.ndarray, where: str) -> bytes:
    """The first of an image's texts, which is the best one where they are ranked."""
    first: bytes = row[0]
    if len(row) > 1 and not _RANKED.fullmatch(first):
        raise ClassifierError(
            f"{where}: expected one class an image, or score:index:label the best one first, found {len(row)} texts an "
            f"image, the first {_shown(first)}. Name another output by classifier.output."
        )
    return first


def _from_texts(texts: Sequence[bytes], labels: Sequence[str] | None, where: str, came: str) -> Answers:
    if labels is None:
        return _from_indices(np.array([_index(text, where) for text in texts], np.int64), None, came)
    indices, errors = [], []
    for text in texts:
        index, error = _index_by_name(text, labels)
        indices.append(index)
        errors.append(error)
    return Answers(np.array(indices, np.int64), None, errors, came)


def _index_by_name(answer: bytes, labels: Sequence[str]) -> tuple[int, str | None]:
    """A class's index, or -1 and why there is none; what is a name is never taken for a number."""
    name = answer.decode("utf-8", "replace")
    match labels.count(name):
        case 1:
            return labels.index(name), None
        case 0:
            pass
        case count:
            return -1, f"the class is {_shown(answer)}, a name that {count} of the labels have"
    numbered = _RANKED.fullmatch(answer) or _INDEX.fullmatch(answer)
    if numbered is None:
        near = nearest(name[:100], labels[:1000])  # a server may say megabytes
        return -1, f"the class is {_shown(answer)}, which is none of the {len(labels)} labels.{near}"
    index = int(numbered[1] if numbered.re is _RANKED else numbered[0])
    error = _why_no_class(index, labels)
    return (-1 if error else index), error


def _index(answer: bytes, where: str) -> int:
    ranked = _RANKED.fullmatch(answer)
    if ranked:
        return int(ranked[1])
    if _INDEX.fullmatch(answer):
        return int(answer)
    raise ClassifierError(
        f"{where}: expected a class index or score:index:label, found {_shown(answer)}. If that is a class's name, "
        "set classifier.labels; else name an output with scores by classifier.output."
    )


def _shown(answer: bytes) -> str:
    return repr(answer[:40].decode("utf-8", "replace"))
