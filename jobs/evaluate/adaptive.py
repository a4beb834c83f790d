"""Attackers who know the defence: measured in one process, since the noise is what they play with.

    victims/SET-RECIPE-adaptive-NAME.safetensors      the victim
    adaptive/NAME.npz                                 its figures, and the patch

Two defenders: one whose seed is secret, so that an attacker sends an image and hopes; and one whose
seed is known, so that an attacker computes beforehand what becomes of an image, changes it by a gray
level until the noise suits, and sends the best of so many tries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jobs.evaluate.config import AdaptiveConfig, EvaluationConfig, RecipeConfig, SetConfig, recipe_of
from jobs.evaluate.sets import Labelled, read_set
from jobs.evaluate.victims import Tell, attack_from, facts_of_victim, load_same, train_into, victims_of
from pipeline.ledger import canonical_digest
from zipstage.evaluation.adaptive import Through, optimised_patch
from zipstage.evaluation.attacks import Attack, Patch
from zipstage.evaluation.metrics import Rate, attack_success_rate, clean_accuracy, purified_accuracy
from zipstage.evaluation.victims import Victim
from zipstage.noise import stream
from zipstage.purifiers import build
from zipstage.purifiers.base import Purifier
from zipstage.purifiers.restore import RestorePurifier
from zipstage.purifiers.settings import settings_for
from zipstage.tiles import pack, unpack

LEARNT_ON = 2_000
"""Images of the training set on which a patch is optimised."""
TRAINING_SEED, TEST_SEED = 50, 60


@dataclass(frozen=True, slots=True)
class Adapted:
    """How an attacker who knows the defence fared.

    Args:
        name: Of the attacker.
        defence: That it knows.
        tries: That it has where the seed is known.
        ca, asr, pa: With a secret seed.
        received_ca, received_asr: Without the defence.
        missed: Clean images of other classes that are answered with the target after purification.
        known_asr, known_missed: ASR, and the same of clean images, where the best of the tries is sent.
    """

    name: str
    defence: str
    tries: int
    received_ca: Rate
    received_asr: Rate
    ca: Rate
    asr: Rate
    missed: Rate
    pa: Rate
    known_asr: Rate
    known_missed: Rate


def adapted(config: EvaluationConfig, data: Path, work: Path, folder: Path, tell: Tell) -> Iterator[Adapted]:
    """What each adaptive attacker of an evaluation comes to; victims that are there are not trained again.

    Args:
        config: The evaluation.
        data: Folder that holds the sets.
        work: Its work folder.
        folder: Where victims lie.
        tell: Told what is done.

    Raises:
        ConfigError: Data is missing, or a victim there was made otherwise.
    """
    for attacker in config.adaptive:
        one = next(each for each in config.sets if each.name == attacker.set)
        recipe = next(each for each in one.recipes if each.name == attacker.recipe)
        tell(f"{one.name}, {recipe.name}: the adaptive attacker {attacker.name}")
        defence = next(each for each in config.defences if each.name == attacker.defence)
        purifier = build(settings_for(defence.method, defence.preset, defence.settings))
        victim, attack = _poisoned(attacker, one, recipe, purifier, data, folder, tell)
        test = read_set(data, one.test, attacker.images, one.skip, one.size)
        said = _said(attacker, victim, attack, purifier, test, work)
        yield _measured(attacker, test.labels, recipe.target, said)


def adaptive_table(found: Sequence[Adapted]) -> Iterator[str]:
    """The table, line by line."""
    yield "| attacker | defence | CA received | ASR received | CA | ASR | excess | PA | ASR, best of tries | excess |"
    yield "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|"
    for one in found:
        shares = [one.received_ca.value, one.received_asr.value, one.ca.value, one.asr.value]
        shares += [one.asr.value - one.missed.value, one.pa.value]
        shares += [one.known_asr.value, one.known_asr.value - one.known_missed.value]
        yield f"| {one.name} | {one.defence} | {' | '.join(f'{100 * share:.1f}' for share in shares)} |"


# --- the attacker ---------------------------------------------------------------------------------


def _poisoned(
    attacker: AdaptiveConfig,
    one: SetConfig,
    recipe: RecipeConfig,
    purifier: Purifier,
    data: Path,
    folder: Path,
    tell: Tell,
) -> tuple[Victim, Attack]:
    """The victim that was poisoned through the defence, and the trigger."""
    clean = victims_of(one.model_copy(update={"attacks": ()}), recipe, data, folder, tell)["clean"]
    path = folder / f"{one.name}-{recipe.name}-adaptive-{attacker.name}.safetensors"
    known = one.attacks[[attack.name for attack in one.attacks].index(attacker.attack)]
    facts = facts_of_victim(one, recipe, known)
    facts |= {"adaptive": attacker.model_dump(mode="json"), "defence": purifier.digest}
    training = read_set(data, one.train, size=one.size)
    attack = attack_from(known)
    if attacker.optimised:
        attack = _optimised(attacker, recipe, clean, purifier, training, folder)
    if not path.exists():

        def purify(images: np.ndarray, seed: int) -> np.ndarray:
            return _purified(purifier, images, TRAINING_SEED + seed)

        train_into(path, facts, Through(attack, purify), recipe_of(recipe, known), training, clean, tell, "cpu")
    return load_same(path, facts), attack


def _optimised(
    attacker: AdaptiveConfig,
    recipe: RecipeConfig,
    clean: Victim,
    purifier: Purifier,
    training: Labelled,
    folder: Path,
) -> Patch:
    if not isinstance(purifier, RestorePurifier):
        raise TypeError(f"adaptive {attacker.name}: a patch can be optimised through `restore` alone")
    made_of = [attacker.model_dump(mode="json"), recipe.model_dump(mode="json"), purifier.digest]
    path = folder / f"patch-{attacker.name}-{canonical_digest(made_of, 12)}.npy"
    images, labels = training.images[:LEARNT_ON], training.labels[:LEARNT_ON]
    if not path.exists():
        through: RestorePurifier = purifier

        def restore(planes: Tensor, keys: np.ndarray) -> Tensor:
            return through.restore(planes, keys).x0

        torch.manual_seed(recipe.seed)
        patch = optimised_patch(
            images, labels, recipe.target, clean, restore, edge=attacker.edge, steps=attacker.steps, seed=recipe.seed
        )
        np.save(path, patch.pixels)
    pixels = np.load(path)
    place = images.shape[1] - 3 - len(pixels)
    return Patch(pixels, place, place)


# --- the figures ----------------------------------------------------------------------------------


def _said(
    attacker: AdaptiveConfig, victim: Victim, attack: Attack, purifier: Purifier, test: Labelled, work: Path
) -> dict[str, np.ndarray]:
    """Answers, int64 [n] each, and for the purified ones [1 + tries, n]: the first is the secret seed's."""
    path = work / "adaptive" / f"{attacker.name}.npz"
    if not path.exists():
        said = {}
        for kind, images in (("clean", test.images), ("triggered", attack.stamp(test.images, 20_000))):
            said[f"received/{kind}"] = victim.scores(images).argmax(1)
            purified = [_purified(purifier, images, TEST_SEED + number) for number in range(1 + attacker.tries)]
            said[f"purified/{kind}"] = np.stack([victim.scores(each).argmax(1) for each in purified])
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, allow_pickle=False, **said)
    with np.load(path) as stored:
        return dict(stored)


def _measured(attacker: AdaptiveConfig, labels: np.ndarray, target: int, said: dict[str, np.ndarray]) -> Adapted:
    others = labels != target

    def best(kind: str) -> Rate:
        hit = (said[f"purified/{kind}"][1:, others] == target).any(0)
        return Rate(int(hit.sum()), len(hit))

    clean, triggered = (said[f"purified/{kind}"][0] for kind in ("clean", "triggered"))
    return Adapted(
        attacker.name,
        attacker.defence,
        attacker.tries,
        received_ca=clean_accuracy(said["received/clean"], labels),
        received_asr=attack_success_rate(said["received/triggered"], labels, target),
        ca=clean_accuracy(clean, labels),
        asr=attack_success_rate(triggered, labels, target),
        missed=attack_success_rate(clean, labels, target),
        pa=purified_accuracy(triggered, labels, target),
        known_asr=best("triggered"),
        known_missed=best("clean"),
    )


def _purified(purifier: Purifier, images: np.ndarray, seed: int) -> np.ndarray:
    """Images purified here, each with noise of its own."""
    keys = stream(np.array([seed, 0], np.uint64)).integers(0, 2**63, (len(images), 2)).astype(np.uint64)
    purified = []
    for start in range(0, len(images), 512):
        packed = pack(list(images[start : start + 512]), keys[start : start + 512])
        purified += unpack([purifier.purify(group) for group in packed.groups], packed.placements)[0]
    return np.stack(purified)
