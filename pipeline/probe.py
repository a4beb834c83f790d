"""Three images for a classifier, and how its answers were read: `zipstage probe`, before a night is trusted to it.

Two are drawn, so that they go to any classifier; the third is one of the job's own, where its input can be
read. Each is a request of its own, one after the other. Writes nothing, and needs no output.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace

import numpy as np

from pipeline import images, shards
from pipeline.classifiers.base import Answers, Classifier
from pipeline.config import JobConfig
from pipeline.errors import ShardError
from pipeline.images import RejectedError, UndecodableError
from pipeline.inputs import find_shards
from pipeline.store import open_store
from zipstage.errors import ZipstageError

NO_INPUT = ""
"""What stands for the input and the output of a job that names none: a classifier can be tried without."""

DRAWN_PX = 224
MAX_PATIENCE_S = 5.0
_HEAD_MIB = 8
_MAX_TRIED = 32


@dataclass(frozen=True, slots=True)
class Image:
    """One image to ask about: where it comes from, and uint8 [h, w, 3]."""

    name: str
    pixels: np.ndarray


@dataclass(frozen=True, slots=True)
class Reply:
    """What was said of one image.

    Args:
        image: The image.
        answers: Of this one image.
        latency_ms: From handing it over to its answer: what the client makes of it, and retries, are part of that.
    """

    image: Image
    answers: Answers
    latency_ms: float

    @property
    def scores(self) -> np.ndarray | None:
        return None if self.answers.scores is None else self.answers.scores[0]


def choose_images(config: JobConfig) -> tuple[list[Image], str | None]:
    """Two drawn images and one of the job's, or three drawn ones; then also why.

    Drawn ones are as large as the job's, else as `classifier.input.size`, else 224 px.
    """
    try:
        own = _first_image(config)
    except ZipstageError as error:
        return drawn(*_side_of(config), count=3), str(error)
    height, width = own.pixels.shape[:2]
    return [*drawn(height, width, count=2), own], None


async def ask_each(classifier: Classifier, chosen: list[Image]) -> AsyncIterator[Reply]:
    """What an entered classifier says, image by image.

    Raises:
        ClassifierAwayError: It doesn't answer.
        ClassifierError: It refuses an image, or answers what can't be understood.
    """
    for image in chosen:
        began = time.perf_counter()
        answers = await classifier.predict(image.pixels[None])
        yield Reply(image, answers, 1000 * (time.perf_counter() - began))


def kind_of_scores(scores: list[np.ndarray]) -> str:
    """What score vectors look like: probabilities, or logits that `suspicion` makes probabilities of."""
    found = np.stack(scores).astype(np.float64)
    softmaxed = "a softmax makes probabilities of them"
    if found.min() >= 0 and np.all(np.abs(found.sum(axis=1) - 1) < 1e-2):
        return "probabilities (they add up to 1)"
    if found.min() >= 0 and found.max() <= 1:
        return f"between 0 and 1 but adding up to {found[0].sum():.3g}, as of a sigmoid; {softmaxed}"
    return f"logits (from {found.min():.3g} to {found.max():.3g}); {softmaxed}"


def doubts(replies: list[Reply]) -> Iterator[str]:
    """What is odd in answers that could be read: likely a wrong `classifier.input` or output."""
    scores = [reply.scores for reply in replies if reply.scores is not None]
    if len(scores) > 1 and all(np.array_equal(one, scores[0]) for one in scores):
        yield (
            "all images got the same scores, to the last digit: is the output one that looks at the image, and do "
            "layout, size, mean and std of classifier.input fit the model?"
        )


def drawn(height: int, width: int, count: int) -> list[Image]:
    """Images that anyone can draw again: a red disc on blue, a colour gradient, gray noise."""
    y, x = np.mgrid[0 : 1 : 1j * height, 0 : 1 : 1j * width]
    inside = (y - 0.5) ** 2 + (x - 0.5) ** 2 < 0.1
    disc = np.where(inside[..., None], np.array([200, 30, 40]), np.array([30, 60, 160]))
    gradient = np.stack([255 * x, 255 * y, 255 * (1 - x)], axis=-1)
    noise = np.random.default_rng(0).integers(64, 192, (height, width, 1)).repeat(3, axis=2)
    named = (("drawn: a red disc on blue", disc), ("drawn: a colour gradient", gradient), ("drawn: gray noise", noise))
    return [Image(name, np.ascontiguousarray(pixels, np.uint8)) for name, pixels in named[:count]]


def _side_of(config: JobConfig) -> tuple[int, int]:
    size = config.classifier.input.size if config.classifier else None
    return size if isinstance(size, tuple) else (size or DRAWN_PX, size or DRAWN_PX)


def _first_image(config: JobConfig) -> Image:
    """The first image that can be decoded, in the first MiB of the job's first shard."""
    if config.input == (NO_INPUT,):
        raise ShardError("the job names no input")
    patience_s = min(config.storage.patience_s, MAX_PATIENCE_S)
    shard = find_shards(config.input, patience_s, refused={})[0]
    store = open_store(shard.store_uri, patience_s)
    head = replace(shard.stored, size=min(shard.stored.size, _HEAD_MIB << 20))
    with store.open(head, _HEAD_MIB) as file:
        for number, sample in enumerate(shards.read_samples(file, shard.name, config.limits)):
            if number == _MAX_TRIED:
                break
            if (pixels := _pixels(sample, config)) is not None:
                return Image(f"{shard.name}: {sample.key}", pixels)
    raise ShardError(f"shard {shard.name}: expected an image that can be decoded at its beginning, found none")


def _pixels(sample: shards.Sample, config: JobConfig) -> np.ndarray | None:
    if sample.rejected:
        return None
    try:
        return images.decode(sample.members[images.image_position(sample)].data, config.limits).pixels
    except (RejectedError, UndecodableError):
        return None
