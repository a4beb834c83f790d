"""What the victims of an evaluation say of purified sets: their scores, kept in files.

    answers/SET-RECIPE-DEFENCE-seed0-DIGEST.npz     `VICTIM/IMAGES`: float32 [n, classes]

Each victim is asked about its own triggered images and about the clean ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jobs.evaluate.config import DefenceConfig, EvaluationConfig, RecipeConfig, SetConfig
from jobs.evaluate.sets import read_set
from jobs.evaluate.victims import CLEAN
from pipeline.ledger import canonical_digest
from zipstage.evaluation.victims import Victim

RECEIVED = DefenceConfig(name="received", method="none", seeds=(0,))
"""The images as they came: what every defence is compared with."""


def purified_at(work: Path, one: SetConfig, defence: DefenceConfig, seed: int) -> Path:
    """Where a set lies as a defence purified it: an output of `zipstage purify`."""
    return work / "purified" / one.name / f"{defence.name}-seed{seed}"


def scores_of(
    config: EvaluationConfig,
    work: Path,
    one: SetConfig,
    recipe: RecipeConfig,
    defence: DefenceConfig,
    seed: int,
    victims: Mapping[str, Victim],
) -> dict[str, np.ndarray]:
    """The victims' scores under a defence, by `VICTIM/IMAGES`; asked once, then read.

    Args:
        config: The evaluation.
        work: Its work folder.
        one: The set.
        recipe: That the victims were trained by.
        defence: What purified, with which seed.
        seed: Of the purifier.
        victims: By their attacks.
    """
    made_of = [facts.model_dump(mode="json") for facts in (one, recipe, defence)] + [config.shard_images]
    name = f"{one.name}-{recipe.name}-{defence.name}-seed{seed}-{canonical_digest(made_of, 12)}.npz"
    path = work / "answers" / name
    if not path.exists():
        shards = purified_at(work, one, defence, seed) / "shards"
        sets = {of: read_set(shards, of).images for of in victims}
        said: dict[str, Any] = {
            f"{of}/{kind}": victim.scores(sets[kind]) for of, victim in victims.items() for kind in {CLEAN, of}
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **said)
    with np.load(path) as stored:
        return dict(stored)
