"""The picture of one sample: received, purified, and what changed between the two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from PIL import Image

from jobs.picture import Panel, difference, side_by_side
from jobs.show.telling import answer
from pipeline.plain import plain
from pipeline.sample import Row

PANEL_PX = 256
"""A side of a panel at least, so that images of 32 px can be seen."""
MOST_PX = 1024
MAX_TEXT = 90
_TIMES = (32, 16, 8, 4, 2, 1)


def draw(row: Row, answers: Mapping[str, Row], received: np.ndarray | None, purified: np.ndarray | None) -> Image.Image:
    """The picture; one of the two images may be missing.

    Args:
        row: Of the table.
        answers: Of the predictions, by classifier.
        received: uint8 [h, w, 3].
        purified: The same size.
    """
    images = [image for image in (received, purified) if image is not None]
    side = max(images[0].shape[:2])
    enlarge, reduce = max(1, -(-PANEL_PX // side)), -(-side // MOST_PX)
    scale = f" (1/{reduce} of its size)" if reduce > 1 else ""
    panels = [
        Panel(_reduced(pixels, reduce), title + scale, caption, is_wrong)
        for pixels, title, caption, is_wrong in _panels(row, answers, received, purified)
    ]
    return side_by_side([("\n".join(map(_short, _heading(row, answers))), panels)], enlarge)


def _panels(
    row: Row, answers: Mapping[str, Row], received: np.ndarray | None, purified: np.ndarray | None
) -> Iterator[tuple[np.ndarray, str, str, bool]]:
    for pixels, title, when in ((received, "received", "before"), (purified, "purified", "after")):
        if pixels is not None:
            yield pixels, title, _caption(answers, when), _is_wrong(row, answers, when)
    if received is not None and purified is not None:
        times = _times(received, purified)
        largest = int(np.abs(received.astype(int) - purified.astype(int)).max())
        amplified = f", amplified {times} times" if times > 1 else ""
        yield difference(received, purified, times), f"difference{amplified}", f"largest: {largest} of 255", False


def _times(before: np.ndarray, after: np.ndarray) -> int:
    """How much the difference is amplified: as far as nearly all of its values stay in range."""
    change = np.quantile(np.abs(after.astype(int) - before.astype(int)), 0.95)
    return next((times for times in _TIMES if times * change < 128), 1)


def _heading(row: Row, answers: Mapping[str, Row]) -> Iterator[str]:
    yield f"{row['key']}   {row['shard']}"
    label = "no label" if row["label"] is None else f"label {row['label']}"
    decibel = "" if row["psnr"] is None else f"   {row['psnr']:.1f} dB"
    yield f"{row['status']}   {label}{decibel}"
    for classifier, said in answers.items():
        flipped = {True: "flipped", False: "not flipped", None: "not compared"}[said["flipped"]]
        suspicion = "" if said["suspicion"] is None else f", suspicion {said['suspicion']:.3f}"
        yield f"{classifier}: {flipped}{suspicion}"


def _caption(answers: Mapping[str, Row], when: str) -> str:
    several = len(answers) > 1
    said = [f"{name}: {answer(row, when)}" if several else answer(row, when) for name, row in answers.items()]
    return "\n".join(map(_short, said))


def _is_wrong(row: Row, answers: Mapping[str, Row], when: str) -> bool:
    said = [row[f"prediction_{when}"] for row in answers.values() if row[f"prediction_{when}"] is not None]
    return row["label"] is not None and any(index != row["label"] for index in said)


def _reduced(pixels: np.ndarray, factor: int) -> np.ndarray:
    if factor == 1:
        return pixels
    return np.asarray(Image.fromarray(pixels).reduce(factor))


def _short(text: str) -> str:
    text = plain(text)
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT // 2]}...{text[-MAX_TEXT // 2 + 3 :]}"
