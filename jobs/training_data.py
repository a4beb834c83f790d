"""Images for training: WebDataset shards of one folder, as one tensor.

A set lies in memory whole (20,000 images of 64x64 are 246 MB), since each step draws from all of
it. All images of a set are squares of one size; that is how random views can be cut in one go.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from webdataset.tariterators import group_by_keys, tar_file_expander

from pipeline.errors import ConfigError

SUFFIXES = ("png", "jpg", "jpeg", "webp")


def read_images(folder: Path, limit: int | None = None) -> Tensor:
    """The images of a folder's shards in their order, uint8 [n, 3, s, s].

    Args:
        folder: Holds `*.tar` or `*.tar.gz`.
        limit: Only so many.

    Raises:
        ConfigError: No shards, no images, an unreadable one, or images of several sizes.
    """
    images: list[np.ndarray] = []
    for sample in itertools.islice(_samples(folder), limit):
        image = _image(sample)
        if image.shape[0] != image.shape[1] or (images and image.shape != images[0].shape):
            raise ConfigError(
                f"{folder}: expected squares of one size, found {image.shape[1]}x{image.shape[0]} "
                f"in {sample['__key__']}."
            )
        images.append(image)
    if not images:
        raise ConfigError(f"{folder}: expected images, found empty shards.")
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def read_labels(folder: Path) -> Tensor:
    """The labels (`.cls`) of a folder's shards in their order, int64 [n].

    Raises:
        ConfigError: A sample without one, or with one that is no number.
    """
    labels = []
    for sample in _samples(folder):
        text = sample.get("cls", b"").strip()
        if not text.isdigit():
            raise ConfigError(f"{folder}: expected a number in {sample['__key__']}.cls, found {text!r}.")
        labels.append(int(text))
    return torch.tensor(labels)


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One sample: its key, its pixels, uint8 [h, w, 3], and its class, None when it says none."""

    key: str
    image: np.ndarray
    label: int | None


def read_samples(data: Path, pattern: str) -> Iterator[LabelledImage]:
    """Images with their labels, one at a time, in their order.

    Args:
        data: Folder that holds the sets.
        pattern: A folder below it, or a glob of shards, such as `cifar10-train/shard-00000[0-4].*`.

    Raises:
        ConfigError: No shards, no image in a sample, or one that can't be read.
    """
    for sample in _samples(data / pattern):
        text = sample.get("cls", b"").strip()
        yield LabelledImage(sample["__key__"], _image(sample), int(text) if text.isdigit() else None)


def _samples(folder: Path) -> Iterator[dict[str, Any]]:
    """The samples of a folder's shards, or of those that a glob in its place names."""
    shards = sorted(folder.glob("*.tar*")) if folder.is_dir() else sorted(folder.parent.glob(folder.name))
    if not shards:
        raise ConfigError(
            f"{folder}: expected shards (*.tar, *.tar.gz), found none. Name the folder that holds the sets."
        )
    for shard in shards:
        with shard.open("rb") as stream:  # WebDataset's own opener leaves files open when reading stops early
            source = [{"url": str(shard), "stream": stream}]
            yield from group_by_keys(tar_file_expander(source))


def _image(sample: dict[str, Any]) -> np.ndarray:
    suffix = next((suffix for suffix in SUFFIXES if suffix in sample), None)
    if suffix is None:
        raise ConfigError(f"{sample['__url__']}: {sample['__key__']}: expected an image ({', '.join(SUFFIXES)}).")
    try:
        return np.asarray(Image.open(io.BytesIO(sample[suffix])).convert("RGB"))
    except (UnidentifiedImageError, OSError):
        raise ConfigError(f"{sample['__url__']}: {sample['__key__']}.{suffix}: can't be decoded.") from None
