"""The first defence of an evaluation against each of the others, image by image.

Two defences that were run on the same images differ by less than their intervals overlap: what is
averaged here is the difference on each image, over all attacks, so that an interval above 0 says that
the first one brings more images back, and not that it met easier ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jobs.evaluate.answers import scores_of
from jobs.evaluate.config import DefenceConfig, EvaluationConfig, RecipeConfig, SetConfig
from jobs.evaluate.sets import Labelled
from jobs.evaluate.victims import CLEAN
from zipstage.evaluation.outcome import Mean, difference_of
from zipstage.evaluation.victims import Victim


@dataclass(frozen=True, slots=True)
class Compared:
    """The first defence less another one, on the images that both were run on.

    Args:
        set, recipe: Whose victims.
        defence, other: Which two.
        images: As many, of those that are not of the target's class.
        pa: Difference of PA, mean over the attacks.
        asr: Difference of ASR, mean over the attacks.
    """

    set: str
    recipe: str
    defence: str
    other: str
    images: int
    pa: Mean
    asr: Mean


def compared(
    config: EvaluationConfig,
    work: Path,
    one: SetConfig,
    recipe: RecipeConfig,
    victims: Mapping[str, Victim],
    test: Labelled,
) -> Iterator[Compared]:
    """The first defence against each of the others, with all seeds of both.

    Args:
        config: The evaluation.
        work: Its work folder.
        one: The set.
        recipe: That the victims were trained by.
        victims: By their attacks.
        test: The test images and their classes.
    """

    def answers(defence: DefenceConfig) -> np.ndarray:
        """Of the backdoored victims to their own triggered images, [seeds x attacks, n]."""
        said = [scores_of(config, work, one, recipe, defence, seed, victims) for seed in config.seeds_of(defence)]
        return np.stack([of_seed[f"{name}/{name}"].argmax(1) for of_seed in said for name in victims if name != CLEAN])

    first, *others = config.defences
    ours = answers(first)
    for other in others:
        theirs = answers(other)
        images = min(ours.shape[1], theirs.shape[1])
        theirs = theirs[:, :images]
        labels = test.labels[:images]
        chosen = labels != recipe.target
        mine, its = ours[:, :images][:, chosen], theirs[:, chosen]
        pa = difference_of(mine == labels[chosen], its == labels[chosen])
        asr = difference_of(mine == recipe.target, its == recipe.target)
        yield Compared(one.name, recipe.name, first.name, other.name, int(chosen.sum()), pa, asr)


def paired_table(found: Iterable[Compared]) -> Iterator[str]:
    """The table, line by line: the difference with its interval, in points."""
    yield "| set | less | images | PA | ASR |"
    yield "|---|---|--:|--:|--:|"
    for each in found:
        name = f"{each.set}, {each.recipe}"
        yield f"| {name} | {each.other} | {each.images:,} | {_points(each.pa)} | {_points(each.asr)} |"


def _points(mean: Mean) -> str:
    return f"{100 * mean.value:+.1f} ({100 * mean.low:+.1f} to {100 * mean.high:+.1f})"
