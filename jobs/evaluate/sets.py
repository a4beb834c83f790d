"""Sets of labelled images: read from shards, and written as shards with a trigger in them.

A set lies in memory whole, as arrays: 30,000 images of 32x32 are 92 MB.
"""

from __future__ import annotations

import io
import itertools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import webdataset
from PIL import Image

from jobs.training_data import read_samples
from pipeline.errors import ConfigError

FACTS = "made-by.json"


@dataclass(frozen=True, slots=True)
class Labelled:
    """Images, uint8 [n, s, s, 3], and their true classes, int64 [n]."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


def read_set(data: Path, pattern: str, limit: int | None = None, skip: int = 0, size: int | None = None) -> Labelled:
    """Images and labels of a set, in their order.

    Args:
        data: Folder that holds the sets.
        pattern: A folder below it, or a glob of shards.
        limit: Only so many.
        skip: Left out at the beginning.
        size: Pixels a side that all are resized to; none: as they are.

    Raises:
        ConfigError: No shards, an image or label that can't be read, or images of several sizes.
    """
    stop = None if limit is None else skip + limit
    images: list[np.ndarray] = []
    labels: list[int] = []
    for sample in itertools.islice(read_samples(data, pattern), skip, stop):
        image = sample.image if size is None else _resized(sample.image, size)
        if images and image.shape != images[0].shape:
            raise ConfigError(f"{data / pattern}: expected images of one size; {sample.key} has another. Set `size`.")
        if sample.label is None:
            raise ConfigError(f"{data / pattern}: expected a number in {sample.key}.cls, found none.")
        images.append(image)
        labels.append(sample.label)
    if not images:
        raise ConfigError(f"{data / pattern}: expected images, found none.")
    return Labelled(np.stack(images), np.array(labels, np.int64))


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def write_set(labelled: Labelled, folder: Path, shard_images: int, facts: dict[str, object]) -> None:
    """Write images as shards of PNG and class, unless they lie there already; the folder appears whole.

    Args:
        labelled: What to write.
        folder: To make.
        shard_images: Images in a shard.
        facts: What made them; kept in the folder.

    Raises:
        ConfigError: The folder holds images that were made otherwise.
    """
    about = json.dumps(facts, indent=1, sort_keys=True)
    if folder.exists():
        if (folder / FACTS).read_text(encoding="utf-8") != about:
            raise ConfigError(f"{folder}: it holds images that were made otherwise. Name another work folder.")
        return
    pending = folder.with_name(f"{folder.name}.pending")
    shutil.rmtree(pending, ignore_errors=True)
    pending.mkdir(parents=True)
    for number, start in enumerate(range(0, len(labelled), shard_images)):
        with webdataset.TarWriter(str(pending / f"{number:03d}.tar"), mtime=0) as writer:
            for index in range(start, min(start + shard_images, len(labelled))):
                encoded = io.BytesIO()
                Image.fromarray(labelled.images[index]).save(encoded, "PNG", compress_level=1)
                key = f"{index:06d}"
                writer.write({"__key__": key, "png": encoded.getvalue(), "cls": str(labelled.labels[index]).encode()})
    (pending / FACTS).write_text(about, encoding="utf-8")
    pending.rename(folder)
