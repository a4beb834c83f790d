"""Shards for tests, written with the standard library alone, so that our own writer proves nothing to itself."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.config import JobConfig
from pipeline.config_loading import load_config, nest

Members = Sequence[tuple[str, bytes]]


def picture(seed: int, height: int = 32, width: int = 32) -> np.ndarray:
    """A smooth coloured picture, uint8 [h, w, 3], another one for each seed."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def samples(count: int, first: int = 0, height: int = 32, width: int = 32) -> list[Members]:
    """Samples of an image, a class and a text: `000000.png`, `.cls`, `.txt`."""
    return [
        [
            (f"{i:06d}.png", encoded(picture(i, height, width))),
            (f"{i:06d}.cls", str(i % 10).encode()),
            (f"{i:06d}.txt", f"sample {i}".encode()),
        ]
        for i in range(first, first + count)
    ]


def write_tar(path: Path, members: Iterable[Members], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for group in members:
            for name, data in group:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def job(folder: Path, **fields: Any) -> JobConfig:
    """A job from folder/in to folder/out; fields by dotted names with `__` for dots."""
    flags = {"input": str(folder / "in"), "output": str(folder / "out"), "purifier.method": "none"}
    flags.update({name.replace("__", "."): value for name, value in fields.items()})
    return load_config(None, nest(flags))


def tree(folder: Path, *below: str) -> dict[str, bytes]:
    """All files below some folders of an output, by path: what a rerun must reproduce byte for byte."""
    found = {}
    for name in below:
        for path in sorted((folder / name).rglob("*")):
            if path.is_file():
                found[str(path.relative_to(folder))] = path.read_bytes()
    return found
