"""Sample sheets: what a defence does to a few images of each trigger, for people to look at.

`sheets/SET-DEFENCE.png`: received, damaged (where the method has such a thing), purified, and what
changed, with the PSNR between received and purified.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jobs.damaged import damaged, pixels_of
from jobs.evaluate.answers import purified_at
from jobs.evaluate.config import DefenceConfig, EvaluationConfig, SetConfig
from jobs.evaluate.victims import CLEAN
from jobs.members import member_of
from jobs.picture import Panel, difference, side_by_side
from pipeline.config import JobConfig
from pipeline.stages import psnr
from zipstage.purifiers import build
from zipstage.purifiers.base import Purifier
from zipstage.purifiers.restore import RestorePurifier

SHOWN = (0, 1)
"""The images of each trigger that are shown: the first ones, chosen by nobody."""
CHANGE = 4
"""Differences are drawn so many times as large, around gray."""


def draw_sheets(config: EvaluationConfig, work: Path, one: SetConfig, jobs: dict[str, JobConfig]) -> None:
    """Draw a sheet for each defence of the table.

    Args:
        config: The evaluation.
        work: Its work folder, with purified sets in it.
        one: The set.
        jobs: The job of each defence's first seed, by its name.
    """
    (work / "sheets").mkdir(exist_ok=True)
    for defence in config.defences:
        purifier = build(jobs[defence.name].purifier.settings(), batch=1)  # image by image
        kinds = [CLEAN, *(attack.name for attack in one.attacks)]
        rows = [(kind, list(_row(config, work, one, defence, kind, purifier, jobs[defence.name]))) for kind in kinds]
        side_by_side(rows, enlarge=3).save(work / "sheets" / f"{one.name}-{defence.name}.png")


def _row(
    config: EvaluationConfig,
    work: Path,
    one: SetConfig,
    defence: DefenceConfig,
    kind: str,
    purifier: Purifier,
    job: JobConfig,
) -> Iterator[Panel]:
    seed = config.seeds_of(defence)[0]
    purified = purified_at(work, one, defence, seed) / "shards" / kind / "000.tar"
    for index in SHOWN:
        name = f"{index:06d}.png"
        received = member_of(work / "attacked" / one.name / kind / "000.tar", name)
        before, after = pixels_of(received), pixels_of(member_of(purified, name))
        yield Panel(before, "received", "")
        if isinstance(purifier, RestorePurifier):
            yield Panel(damaged(purifier, received, job.purifier.seed_bytes()), "damaged", "")
        yield Panel(after, "purified", _decibel(before, after))
        yield Panel(difference(before, after, CHANGE), "change", "")


def _decibel(before: np.ndarray, after: np.ndarray) -> str:
    decibel = psnr(before, after)
    return "the same" if decibel is None else f"{decibel:.1f} dB"
