"""What in an output tells triggered images from clean ones: the scores that could fill the column `suspicion`.

Made of nothing that a user doesn't have: the answers before and after, and the table's `residual`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from jobs.evaluate.answers import RECEIVED, purified_at, scores_of
from jobs.evaluate.config import DefenceConfig, EvaluationConfig, RecipeConfig, SetConfig
from jobs.evaluate.sets import Labelled
from jobs.evaluate.victims import CLEAN
from zipstage.evaluation.suspicion import Detection, Shown, detections
from zipstage.evaluation.victims import Victim


@dataclass(frozen=True, slots=True)
class Signals:
    """What is known of each image of a set after a job.

    Args:
        before, after: Scores as received and as purified, [n, classes].
        residual: How far the box that changed most stands out, [n]; nan where the method has no such thing.
    """

    before: np.ndarray
    after: np.ndarray
    residual: np.ndarray

    @property
    def flipped(self) -> np.ndarray:
        """Whether the answer changed, [n]."""
        changed: np.ndarray = self.before.argmax(1) != self.after.argmax(1)
        return changed

    @property
    def half_l1(self) -> np.ndarray:
        """Half the L1 distance of the scores, 0 to 1, [n]."""
        distance: np.ndarray = np.abs(self.before.astype(np.float64) - self.after).sum(1) / 2
        return distance


MEASURES: dict[str, Callable[[Signals], np.ndarray]] = {
    "half L1 of the scores": lambda signals: signals.half_l1,
    "half L1, and residual": lambda signals: signals.half_l1 * np.log1p(signals.residual),
    "flip": lambda signals: signals.flipped.astype(float),
    "flip, then residual": lambda signals: signals.flipped + np.tanh(signals.residual / 10),
    "residual": lambda signals: signals.residual,
}
"""Scores of an image by name; the first two need an endpoint that gives scores."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a measure is worth under a defence.

    Args:
        defence, measure: Which.
        detections: Against each victim.
    """

    defence: str
    measure: str
    detections: list[Detection]


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of one backdoored victim's images under a defence; the target's own are left out.

    Args:
        attack: The victim's.
        victim: Which one.
        clean, triggered: Signals of both.
    """

    attack: str
    victim: str
    clean: Signals
    triggered: Signals


def seen_of(
    config: EvaluationConfig,
    work: Path,
    one: SetConfig,
    recipe: RecipeConfig,
    defence: DefenceConfig,
    victims: dict[str, Victim],
    test: Labelled,
) -> Iterator[Seen]:
    """What was seen of each backdoored victim's images, with the defence's first seed."""
    seed = config.seeds_of(defence)[0]
    received = scores_of(config, work, one, recipe, RECEIVED, 0, victims)
    purified = scores_of(config, work, one, recipe, defence, seed, victims)
    others = test.labels != recipe.target
    tables = purified_at(work, one, defence, seed) / "tables"

    def signals(name: str, kind: str) -> Signals:
        after = purified[f"{name}/{kind}"]
        chosen = others[: len(after)]
        before = received[f"{name}/{kind}"][: len(after)]
        return Signals(before[chosen], after[chosen], _residual(tables / kind)[chosen])

    for name in victims:
        if name != CLEAN:
            victim = f"{one.name}-{recipe.name}-{name}"
            yield Seen(name, victim, signals(name, CLEAN), signals(name, name))


def told_by(defence: str, seen: Sequence[Seen]) -> list[Told]:
    """What each measure is worth under a defence; nothing is told of one attack alone.

    Args:
        defence: Its name.
        seen: Of all victims.
    """
    if len({one.attack for one in seen}) < 2:
        return []  # no other attack to set a threshold on
    told = []
    for measure, score in MEASURES.items():
        shown = [Shown(one.attack, one.victim, score(one.clean), score(one.triggered)) for one in seen]
        if all(np.isfinite(one.clean).all() and np.isfinite(one.triggered).all() for one in shown):
            told.append(Told(defence, measure, detections(shown)))
    return told


def suspicion_table(told: Sequence[Told]) -> Iterator[str]:
    """The table, line by line: AUROC / TPR, in percent, for each attack over the sets, and what the threshold cost."""
    attacks = list(dict.fromkeys(found.attack for one in told for found in one.detections))
    yield f"| defence | measure | {' | '.join(attacks)} | mean | clean images above |"
    yield f"|---|---|{'--:|' * len(attacks)}--:|--:|"
    for one in told:
        columns = [_pair([found for found in one.detections if found.attack == attack]) for attack in attacks]
        blamed = 100 * np.mean([found.false_positives for found in one.detections])
        row = [one.defence, one.measure, *columns, _pair(one.detections), f"{blamed:.1f}"]
        yield f"| {' | '.join(row)} |"


def _pair(found: Sequence[Detection]) -> str:
    auroc, caught = (np.mean([getattr(one, name) for one in found]) for name in ("auroc", "true_positives"))
    return f"{auroc:.2f} / {100 * caught:.0f}"


def _residual(folder: Path) -> np.ndarray:
    """The column of a set's tables, in the images' order."""
    column = pq.read_table(sorted(folder.glob("*.parquet")), columns=["residual"]).column("residual")
    values: np.ndarray = column.to_numpy().astype(np.float64)
    return values
