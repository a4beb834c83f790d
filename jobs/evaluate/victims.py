"""The victims of an evaluation: found in a folder, or trained into it.

A victim's file is named for its set, recipe and attack. The clean one is trained first; the others are
it, taught a trigger. A file that was made by another recipe is refused, not trained over: it may have
judged what is published.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jobs.evaluate.config import AttackConfig, RecipeConfig, SetConfig, recipe_of
from jobs.evaluate.sets import Labelled, read_set
from pipeline.errors import ConfigError
from zipstage.evaluation.attacks import Attack, attack_of
from zipstage.evaluation.victims import (
    Victim,
    VictimRecipe,
    facts_of,
    load_victim,
    poison,
    save_victim,
    train_victim,
)

CLEAN = "clean"
UNTRAINED_SEED = 20_000
"""Of what differs from image to image on test images: no training's seed."""
Tell = Callable[[str], None]


def victims_of(
    config: SetConfig, recipe: RecipeConfig, data: Path, folder: Path, tell: Tell, device: str = "cpu"
) -> dict[str, Victim]:
    """The clean victim and one for each attack, by the attack's name; trained where they aren't there.

    Args:
        config: The set and its attacks.
        recipe: How they are trained.
        data: Folder that holds the sets.
        folder: Where victims lie.
        tell: Told of each epoch of a training.
        device: Where to train.

    Raises:
        ConfigError: The training set can't be read, or a victim there is of another recipe.
    """
    training: list[Labelled] = []

    def train_set() -> Labelled:
        if not training:  # read only when a victim is missing
            training.append(read_set(data, config.train, size=config.size))
        return training[0]

    victims: dict[str, Victim] = {}
    for attack in (None, *config.attacks):
        name = attack.name if attack else CLEAN
        path = folder / f"{config.name}-{recipe.name}-{name}.safetensors"
        facts = facts_of_victim(config, recipe, attack)
        if not path.exists():
            trigger = attack_from(attack) if attack else None
            train_into(path, facts, trigger, recipe_of(recipe, attack), train_set(), victims.get(CLEAN), tell, device)
        victims[name] = load_same(path, facts)
    return victims


def triggered(attack: AttackConfig, images: np.ndarray) -> np.ndarray:
    """Test images with the trigger."""
    return attack_from(attack).stamp(images, UNTRAINED_SEED)


def untriggered(attack: AttackConfig, images: np.ndarray) -> np.ndarray:
    """The images of `triggered` with all that the attack does to them but the trigger: photographed alike, say."""
    return attack_from(attack).cover(images, UNTRAINED_SEED)


def train_into(
    path: Path,
    facts: dict[str, object],
    attack: Attack | None,
    recipe: VictimRecipe,
    training: Labelled,
    clean: Victim | None,
    tell: Tell,
    device: str,
) -> None:
    """Train a victim and write its file.

    Args:
        path: Of the file.
        facts: What is written down of it.
        attack: That it learns; none: it learns its classes.
        recipe: How.
        training: Its training set.
        clean: The victim that is taught the attack; none: it learns all from the beginning.
        tell: Told of each epoch.
        device: Where to train.
    """
    images, labels = training.images, training.labels
    if attack is not None:
        images, labels = poison(images, labels, attack, recipe)

    def watch(epoch: int, loss: float) -> None:
        tell(f"{path.stem}: epoch {epoch + 1} of {recipe.epochs}, loss {loss:.3f}")

    victim = train_victim(
        images, labels, recipe, watch, start=_copy(clean) if attack is not None and clean else None, device=device
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pending = path.with_suffix(".pending")
    save_victim(victim, pending, facts)
    pending.rename(path)


def _copy(victim: Victim) -> Victim:
    """A victim to go on from; the one that is given stays as it is."""
    network = copy.deepcopy(victim.network)
    return Victim(network.requires_grad_(True), victim.mean, victim.deviation)


def load_same(path: Path, facts: dict[str, object]) -> Victim:
    """A victim's file, made as the facts say.

    Raises:
        ConfigError: It was made otherwise.
    """
    victim, found = load_victim(path)
    differing = sorted(name for name, value in facts.items() if found.get(name) != value)
    if differing:
        raise ConfigError(
            f"victim {path}: it was made otherwise: {', '.join(differing)} differ. "
            "Name another folder for victims, or set them as they were."
        )
    return victim


def facts_of_victim(config: SetConfig, recipe: RecipeConfig, attack: AttackConfig | None) -> dict[str, object]:
    """What decides a victim: its set, recipe and attack."""
    about: dict[str, object] = {
        "set": config.name,
        "train": config.train,
        **({"size": config.size} if config.size else {}),
        "recipe": facts_of(recipe_of(recipe, attack)),
    }
    if attack is not None:
        about |= {"attack": attack.attack or attack.name, "parameters": attack.parameters}
    return about


def attack_from(config: AttackConfig) -> Attack:
    """The attack that a column of the table means."""
    return attack_of(config.attack or config.name, config.parameters)
