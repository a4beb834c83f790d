"""The demo's images as WebDataset shards."""

from __future__ import annotations

import json
import shutil
from io import BytesIO
from pathlib import Path

import webdataset
from PIL import Image

from jobs.demo.drawing import CLASS_NAMES
from jobs.demo.poison import Incoming


def key_of(index: int) -> str:
    """The key of an image, by its place among all of the demo's images."""
    return f"{index:06d}"


def shard_name(index: int, count: int, num_shards: int) -> str:
    """The shard that holds the image at `index` of `count`."""
    return f"signs-{index * num_shards // count:03d}.tar"


def write_shards(incoming: Incoming, folder: Path, num_shards: int) -> None:
    """Write the shards, unless a whole delivery lies there already.

    A sample is `KEY.png`, `KEY.cls` (its true class) and `KEY.json` (what was done to it). The
    folder appears when all shards are written, so that a run that was stopped leaves no half of it.
    """
    if folder.exists():
        return
    pending = folder.with_name(folder.name + ".pending")
    shutil.rmtree(pending, ignore_errors=True)
    pending.mkdir(parents=True)
    count = len(incoming.images)
    for name in sorted({shard_name(index, count, num_shards) for index in range(count)}):
        with webdataset.TarWriter(str(pending / name), mtime=0) as writer:
            for index in range(count):
                if shard_name(index, count, num_shards) == name:
                    writer.write(_sample(incoming, index))
    pending.rename(folder)


def _sample(incoming: Incoming, index: int) -> dict[str, str | bytes]:
    encoded = BytesIO()
    Image.fromarray(incoming.images[index]).save(encoded, "PNG", compress_level=1)
    label = int(incoming.labels[index])
    truth = {"trigger": incoming.triggers[index], "true_class": label, "class_name": CLASS_NAMES[label]}
    return {
        "__key__": key_of(index),
        "png": encoded.getvalue(),
        "cls": str(label).encode(),
        "json": json.dumps(truth).encode(),
    }
