"""The pictures of `docs/purifiers.md`: what each method makes of a few images, step by step.

    python -m jobs.method_pictures

The images are the demo's own drawings, which may be passed on: the first ones of a seed that don't show the target,
chosen by nobody. Below each stands what the demo's classifier says, which has a backdoor. Needs onnxruntime.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jobs.demo.drawing import CLASS_NAMES, draw
from jobs.demo.poison import CLEAN, TARGET, TRIGGERS
from jobs.demo.victim import MEAN, MODEL_PATH, STD
from jobs.picture import Panel, difference, side_by_side
from pipeline.classifiers.onnx import OnnxNetwork
from zipstage.noise import image_key, normal_streams
from zipstage.purifiers import build
from zipstage.purifiers.base import Purifier
from zipstage.purifiers.batches import to_float, to_uint8
from zipstage.purifiers.chain import ChainPurifier
from zipstage.purifiers.restore import RestorePurifier
from zipstage.purifiers.sampdetox import SampDetoxPurifier
from zipstage.purifiers.settings import METHODS, settings_for
from zipstage.purifiers.zip import ZipPurifier
from zipstage.tiles import Tiles, pack

FOLDER = Path(__file__).parents[1] / "docs/pictures"
SEED = 3
CHANGE = 4
"""Differences are drawn so many times as large, around gray."""
STEPWISE = {
    "restore": settings_for("restore"),
    "zip": settings_for("zip"),
    "sampdetox": settings_for("sampdetox", "few"),
    "chain": settings_for("chain", overrides={"steps": [{"method": "median"}, {"method": "restore"}]}),
}
"""The methods whose steps are drawn, each on a sheet of its own; the others share one."""
CONTROLS = tuple(method for method in METHODS if method not in STEPWISE and method != "none")

Stage = tuple[str, np.ndarray]
"""What stands above a column, and an image for each row, uint8 [n, h, w, 3]."""


@dataclass(frozen=True, slots=True)
class Received:
    """The images of a sheet's rows: `headings` of n rows, their true `classes`, and `tiles` of one group."""

    headings: list[str]
    classes: list[int]
    tiles: Tiles


def received() -> Received:
    """A drawing as it is, and with each of the demo's triggers."""
    drawn = draw(8 * (1 + len(TRIGGERS)), SEED)
    others = np.flatnonzero(drawn.labels != TARGET)[: 1 + len(TRIGGERS)]
    kinds = (CLEAN, *TRIGGERS)
    images = [drawn.images[[index]] for index in others]
    images[1:] = [stamp(image) for stamp, image in zip(TRIGGERS.values(), images[1:], strict=True)]
    keys = [image_key(b"0", hashlib.sha256(image.tobytes()).digest()) for image in images]
    classes = [int(drawn.labels[index]) for index in others]
    headings = [f"{kind}: {CLASS_NAMES[true]!r}" for kind, true in zip(kinds, classes, strict=True)]
    return Received(headings, classes, pack([image[0] for image in images], np.array(keys)).groups[0])


def draw_all(folder: Path = FOLDER, methods: Sequence[str] = (*STEPWISE, "controls")) -> list[Path]:
    """Draw the sheets.

    Args:
        folder: Where they go; made if it isn't there.
        methods: Which of them.

    Returns:
        The files, one a sheet.
    """
    folder.mkdir(parents=True, exist_ok=True)
    of, network = received(), OnnxNetwork(str(MODEL_PATH))
    paths = []
    for method in methods:
        rows = _controls(of, network) if method == "controls" else _steps(of, build(STEPWISE[method], batch=3), network)
        paths.append(folder / f"{method}.webp")  # without loss, and half of a PNG
        side_by_side(list(rows), enlarge=3).save(paths[-1], lossless=True, quality=100, method=6)
    return paths


def _steps(of: Received, purifier: Purifier, network: OnnxNetwork) -> Iterator[tuple[str, list[Panel]]]:
    """A row for each image: received, what lies between, purified, and what that changed."""
    before, after = of.tiles.cells(), purifier.purify(of.tiles).cells()
    said = {"received": _answers(network, before), "purified": _answers(network, after)}
    columns = [("received", before), *stages(purifier, of.tiles), ("purified", after)]
    changed = [difference(one, other, CHANGE) for one, other in zip(before, after, strict=True)]
    for row, heading in enumerate(of.headings):
        panels = [
            _panel(images[row], title, said[title][row] if title in said else None, of.classes[row])
            for title, images in columns
        ]
        yield heading, [*panels, Panel(changed[row], f"change x {CHANGE}", "")]


def _controls(of: Received, network: OnnxNetwork) -> Iterator[tuple[str, list[Panel]]]:
    """A row for each control: what it makes of each image, and what that changed in the one with a patch."""
    before = of.tiles.cells()
    patched = 1 + list(TRIGGERS).index("patch")
    for method in ("none", *CONTROLS):
        after = build(settings_for(method), batch=3).purify(of.tiles).cells()
        answers = _answers(network, after)
        panels = [
            _panel(after[row], heading.partition(":")[0], answers[row], of.classes[row])
            for row, heading in enumerate(of.headings)
        ]
        change = difference(before[patched], after[patched], CHANGE)
        yield "as received" if method == "none" else method, [*panels, Panel(change, f"patch: change x {CHANGE}", "")]


def stages(purifier: Purifier, tiles: Tiles) -> Iterator[Stage]:
    """What a method makes of images between the received and the purified ones; nothing of a control."""
    images, noise = to_float(tiles.cells(), "cpu"), normal_streams(tiles.keys, (3, tiles.cell_px, tiles.cell_px))
    with torch.inference_mode():
        match purifier:
            case RestorePurifier():
                restored = purifier.restore(images, tiles.keys)
                yield "hidden", to_uint8(images * restored.mask)
                yield "damaged", to_uint8(restored.damaged)
            case ZipPurifier():
                steps = list(purifier.steps(images, noise))
                yield "range part", to_uint8(purifier.guidance.range_part(images))
                yield f"x_t, t = {steps[0].t}", to_uint8(steps[0].x_t)
                yield "x0|t", to_uint8(steps[0].x0)
            case SampDetoxPurifier():
                detoxed = purifier.detox(images, noise)
                yield "x_bar", to_uint8(detoxed.x_bar)
                yield "1 - SSIM", to_uint8(_gray(detoxed.changed))
                yield "noised to", to_uint8(_gray(detoxed.levels / purifier.second.n))
            case ChainPurifier():
                yield "first step", purifier.steps[0].purify(tiles).cells()


def _gray(share: Tensor) -> Tensor:
    """[b, 1, c, c] in 0 to 1 as images, white from a quarter up: most of it is dark."""
    return (2 * (4 * share).clamp(0, 1) - 1).expand(-1, 3, -1, -1)


def _panel(pixels: np.ndarray, title: str, answer: int | None, truth: int) -> Panel:
    said = "" if answer is None else repr(CLASS_NAMES[answer])
    return Panel(pixels, title, said, is_wrong=answer not in (None, truth))


def _answers(network: OnnxNetwork, images: np.ndarray) -> list[int]:
    batch = ((images / np.float32(255) - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)
    (scores,) = network.run(np.ascontiguousarray(batch)).values()
    return [int(answer) for answer in scores.argmax(1)]


if __name__ == "__main__":
    sys.stdout.writelines(f"{path}\n" for path in draw_all())
