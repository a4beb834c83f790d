"""What `docs/developing.md` tells people to write is what works: each file and each line of it is taken and used."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from inprocess import run
from making import job, samples, write_tar

from pipeline import protocols
from pipeline.classifiers import build as build_classifier
from pipeline.config import JobConfig
from zipstage.errors import SettingsError
from zipstage.noise import image_key
from zipstage.priors import load
from zipstage.purifiers import build, describe, settings
from zipstage.schedule import schedule
from zipstage.tiles import pack

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/developing.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^```python\n# (\S+\.py(?:, in \w+)?)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Takes a file of the page into its package as if it lay there, and gives the module."""
    made = []

    def write(path: str) -> Any:
        assert not (ROOT / path).exists()
        package, name = path.removesuffix(".py").replace("/", ".").rpartition(".")[::2]
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(BLOCKS[path])
        there = importlib.import_module(package)
        monkeypatch.setattr(there, "__path__", [*there.__path__, str((tmp_path / path).parent)])
        made.append((there, name))
        return importlib.import_module(f"{package}.{name}")

    yield write
    for package, name in made:
        sys.modules.pop(f"{package.__name__}.{name}", None)
        vars(package).pop(name, None)


def line(block: str, known: dict[str, Any]) -> dict[str, Any]:
    """A line of the page for a table, as the table's file would read it."""
    entry: dict[str, Any] = eval(f"{{{BLOCKS[block]}}}", known)
    assert len(BLOCKS[block].strip().splitlines()) == 1
    return entry


def images(count: int = 3) -> tuple[list[np.ndarray], np.ndarray]:
    generator = np.random.default_rng(5)
    keys = [image_key(b"0", bytes([number])) for number in range(count)]
    return [generator.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(count)], np.array(keys)


def test_a_purifier_is_one_file_and_one_line(written: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = written("zipstage/purifiers/controls/posterize.py")
    entry = line("zipstage/purifiers/settings.py, in METHODS", {**vars(settings), **vars(module)})
    monkeypatch.setitem(settings.METHODS, "posterize", entry["posterize"])
    config = job(tmp_path, purifier__method="posterize", purifier__levels=2)
    purifier = build(config.purifier.settings())
    tiles = pack(*images()).groups[0]
    purified = purifier.purify(tiles).cells()
    assert np.array_equal(purified, np.where(tiles.cells() > 127, 255, 0))
    assert describe(config.purifier.settings()) == ({"method": "posterize", "levels": 2}, True)
    with pytest.raises(SettingsError, match="levels: expected a number from 2 to 256, found 1"):
        job(tmp_path, purifier__method="posterize", purifier__levels=1)


def test_a_prior_is_one_file_and_one_line(written: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    written("zipstage/priors/gaussian.py")
    entry = line("zipstage/priors/load.py, in FORMATS", {})
    monkeypatch.setitem(load.FORMATS, ".json", entry[".json"])
    file = tmp_path / "colours.json"
    file.write_text(json.dumps({"mean": [0.1, 0.0, -0.1], "deviation": 0.5}))
    config = job(tmp_path, purifier__method="zip", purifier__prior=str(file), purifier__timesteps=[300])
    tiles = pack(*images()).groups[0]
    assert not np.array_equal(build(config.purifier.settings()).purify(tiles).cells(), tiles.cells())
    torch.manual_seed(0)
    x0 = 0.5 * torch.randn(64, 3, 16, 16)
    x0 += torch.tensor([0.1, 0.0, -0.1])[:, None, None]
    a = schedule().alpha_bar(300)
    x_t = a**0.5 * x0 + (1 - a) ** 0.5 * torch.randn_like(x0)
    error = (load.load_prior(file).predict(x_t, 300).x0 - x0).square().mean()
    least = 0.25 * (1 - a) / (a * 0.25 + 1 - a)  # the posterior's variance: no estimate errs less
    assert abs(float(error) / least - 1) < 0.03


def test_a_protocol_is_one_file_and_one_line_and_answers_before_and_after(
    written: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written("pipeline/classifiers/brightness.py")
    entry = line("pipeline/protocols.py, in PROTOCOLS", vars(protocols))
    monkeypatch.setitem(protocols.PROTOCOLS, "brightness", entry["brightness"])
    config = job(tmp_path, classifier__protocol="brightness", classifier__name="bright")
    write_tar(tmp_path / "in/a.tar", samples(6))
    summary, _ = run(config)  # the stub inverts images, so that what was bright is dark
    assert summary.exit_code in (0, 3)
    rows = pq.read_table(tmp_path / "out/predictions/bright/a.tar.parquet").to_pylist()
    assert len(rows) == 6
    assert {row["prediction_before"] + row["prediction_after"] for row in rows} == {1}
    assert {row["flipped"] for row in rows} == {True}
    assert asyncio.run(_answered(config)) == [0, 1]


async def _answered(config: JobConfig) -> list[int]:
    assert config.classifier is not None
    async with build_classifier(config.classifier) as classifier:
        answers = await classifier.predict(np.stack([np.full((8, 8, 3), level, np.uint8) for level in (10, 240)]))
    return [int(each) for each in answers.classes]


def test_the_page_shows_nothing_but_what_was_used_here() -> None:
    assert len(BLOCKS) == 6 == PAGE.count("```python")
    assert max(len(code.splitlines()) for code in BLOCKS.values()) < 50
