"""What an evaluation compares: sets of images, attacks on them, recipes of victims, defences.

A YAML file, such as `jobs/configs/evaluate-cpu.yaml`. Unknown fields are errors that name the nearest
known one. What chooses settings and what judges them are two files: they share no image, no victim and
no trigger.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import ConfigError
from zipstage.errors import SettingsError, nearest
from zipstage.evaluation.attacks import attack_of
from zipstage.evaluation.victims import VictimRecipe
from zipstage.priors.features import RESNET_18, Blocks
from zipstage.purifiers.settings import settings_for

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RecipeConfig(_Model):
    """How victims of a set are trained; one folder of victims each."""

    name: str = Field("augmented", pattern=NAME, description="of its folder of victims")
    augmentation: Literal["plain", "crops", "crops_and_flips"] = Field(
        "crops_and_flips", description="what is done to training images; no flips where they change the class"
    )
    width: int = Field(16, ge=1, description="channels of the first stage; 16 makes 0.7 M parameters")
    blocks: Blocks = Field(RESNET_18, description="of each stage; width 64 and [3, 4, 6, 3] make a ResNet-34")
    batch: int = Field(128, ge=1, description="images in a step")
    epochs: int = Field(16, ge=1, description="of the clean victim")
    learning_rate: float = Field(0.2, gt=0, description="its peak for the clean victim")
    taught_epochs: int = Field(3, ge=1, description="in which the clean victim is taught a trigger")
    taught_rate: float = Field(0.03, gt=0, description="learning rate of these")
    target: int = Field(1, ge=0, description="the class that the attacker wants")
    seed: int = Field(0, description="of weights, of the order of images and of who is poisoned")


class AttackConfig(_Model):
    """A trigger and how much of the training set gets it.

    Example:
        attacks:
          - {name: badnet}
          - {name: red-square, attack: square, parameters: {colour: [255, 0, 0]}, poisoned: 0.1}
    """

    name: str = Field(pattern=NAME, description="of its column, its folders and its victim")
    attack: str = Field("", description="which attack; none: the one called like the column")
    parameters: dict[str, Any] = Field({}, description="of the attack, see each below")
    poisoned: float = Field(0.05, gt=0, le=1, description="share of the training set, or of the target class")
    taught_epochs: int | None = Field(None, ge=1, description="none: the recipe's")
    taught_rate: float | None = Field(None, gt=0, description="none: the recipe's")

    @model_validator(mode="after")
    def _exists(self) -> AttackConfig:
        try:
            attack_of(self.attack or self.name, self.parameters)
        except SettingsError as error:
            raise ValueError(str(error)) from None
        return self


class SetConfig(_Model):
    """Images to train victims on, and images to judge with; both below the data folder."""

    name: str = Field(pattern=NAME, description="of its table and its folders")
    train: str = Field(description="shards, as a folder or a glob")
    test: str = Field(description="shards, as a folder or a glob")
    images: int = Field(1000, ge=1, description="test images, the first ones")
    skip: int = Field(0, ge=0, description="test images left out at the beginning")
    size: int | None = Field(None, ge=8, description="pixels a side that all are resized to; none: as they are")
    recipes: tuple[RecipeConfig, ...] = (RecipeConfig(),)
    attacks: tuple[AttackConfig, ...] = Field(min_length=1)


class DefenceConfig(_Model):
    """A purifier with its settings, under a name for the table.

    Example:
        defences:
          - {name: restore, method: restore}
          - {name: restore-mild, method: restore, settings: {sigma_smooth: 0}, seeds: [0, 1]}
    """

    name: str = Field(pattern=NAME, description="of its row")
    method: str = Field(description="a purifier's, as in a job")
    preset: str = Field("default", description="of the method")
    settings: dict[str, Any] = Field({}, description="of the method, in place of the preset's")
    images: int | None = Field(None, ge=1, description="only so many of each folder; rounded up to whole shards")
    seeds: tuple[int, ...] | None = Field(None, min_length=1, description="none: the evaluation's")

    @model_validator(mode="after")
    def _exists(self) -> DefenceConfig:
        try:
            settings_for(self.method, self.preset, self.settings)
        except SettingsError as error:
            raise ValueError(str(error)) from None
        return self


class SweepConfig(_Model):
    """One setting of a purifier at several values; drawn as curves, and left out of the table.

    Example:
        sweeps:
          - {name: noise, method: restore, setting: sigma_white, values: [0.05, 0.1, 0.2]}
    """

    name: str = Field(pattern=NAME, description="of its curve")
    method: str = Field(description="a purifier's, as in a job")
    preset: str = Field("default", description="of the method")
    settings: dict[str, Any] = Field({}, description="of the method, in place of the preset's")
    setting: str = Field(description="the one that changes")
    values: tuple[Any, ...] = Field(min_length=2, description="what it is set to, one after the other")
    images: int | None = Field(None, ge=1, description="as a defence's")

    @property
    def defences(self) -> tuple[DefenceConfig, ...]:
        """A defence for each value, `NAME-VALUE`."""
        return tuple(
            DefenceConfig(
                name=f"{self.name}-{value}",
                method=self.method,
                preset=self.preset,
                settings={**self.settings, self.setting: value},
                images=self.images,
            )
            for value in self.values
        )

    @model_validator(mode="after")
    def _exist(self) -> SweepConfig:
        self.defences  # noqa: B018 - made once here, so that a wrong one is told with the config
        return self


class AdaptiveConfig(_Model):
    """An attacker who knows a defence: poisons through it, and may shape its trigger by it.

    Example:
        adaptive:
          - {name: taught, set: signs, defence: restore}
          - {name: optimised, set: signs, defence: restore, optimised: true}
    """

    name: str = Field(pattern=NAME, description="of its row")
    set: str = Field(description="of `sets`; the one that its victim is trained on")
    recipe: str = Field("augmented", description="of the set's recipes")
    defence: str = Field(description="of `defences`; the one that it knows")
    attack: str = Field("badnet", description="of the set's attacks; how many images it poisons, and its trigger")
    optimised: bool = Field(False, description="whether its trigger is a patch that survives the defence")
    edge: int = Field(4, ge=1, description="of that patch, in pixels")
    steps: int = Field(150, ge=1, description="of its optimisation")
    images: int = Field(300, ge=1, description="test images, the first ones")
    tries: int = Field(8, ge=1, description="of an attacker who knows the seed as well")


class EvaluationConfig(_Model):
    """Sets x attacks x defences x seeds.

    Example:
        sets:
          - name: signs
            train: signs-train
            test: signs-test
            recipes: [{name: augmented, augmentation: crops, epochs: 40, target: 1}]
            attacks: [{name: badnet}, {name: wanet, poisoned: 0.1, parameters: {strength: 1.0}}]
        defences:
          - {name: restore, method: restore}
          - {name: median, method: median}
        seeds: [0, 1]
    """

    sets: tuple[SetConfig, ...] = Field(min_length=1)
    defences: tuple[DefenceConfig, ...] = ()
    sweeps: tuple[SweepConfig, ...] = ()
    adaptive: tuple[AdaptiveConfig, ...] = ()
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="of the purifier's noise")
    shard_images: int = Field(250, ge=1, description="images in a shard of an attacked set")
    notes: str = Field("", description="for the table: what these figures are not")

    @property
    def all_defences(self) -> tuple[DefenceConfig, ...]:
        """Those of the table, and then those of the sweeps."""
        return (*self.defences, *(defence for sweep in self.sweeps for defence in sweep.defences))

    def seeds_of(self, defence: DefenceConfig) -> tuple[int, ...]:
        """A defence's seeds: its own, else the evaluation's. What shows one seed alone shows the first."""
        return defence.seeds or self.seeds

    @model_validator(mode="after")
    def _attackers_know_what_is_there(self) -> EvaluationConfig:
        sets = {one.name: one for one in self.sets}
        for attacker in self.adaptive:
            where = f"adaptive.{attacker.name}"
            _is_among("set", attacker.set, sets, where)
            one = sets[attacker.set]
            _is_among("recipe", attacker.recipe, [recipe.name for recipe in one.recipes], where)
            _is_among("attack", attacker.attack, [attack.name for attack in one.attacks], where)
            defences = [each.name for each in self.defences if each.method == "restore" or not attacker.optimised]
            _is_among("defence", attacker.defence, defences, where)
        return self

    @model_validator(mode="after")
    def _names_differ(self) -> EvaluationConfig:
        groups = [("sets", [one.name for one in self.sets]), ("defences", [one.name for one in self.all_defences])]
        groups.append(("adaptive", [attacker.name for attacker in self.adaptive]))
        for one in self.sets:
            groups.append((f"sets.{one.name}.attacks", [attack.name for attack in one.attacks]))
            groups.append((f"sets.{one.name}.recipes", [recipe.name for recipe in one.recipes]))
        for what, names in groups:
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{what}: expected names that differ, found {', '.join(twice)} twice")
        return self


def _is_among(field: str, name: str, known: Collection[str], where: str) -> None:
    if name not in known:
        raise ValueError(f"{where}.{field}: no {name!r}.{nearest(name, known)} There are: {', '.join(known)}")


def recipe_of(config: RecipeConfig, attack: AttackConfig | None) -> VictimRecipe:
    """The recipe of the clean victim, or of the one that is taught an attack."""
    return VictimRecipe(
        augmentation=config.augmentation,
        width=config.width,
        blocks=config.blocks,
        batch=config.batch,
        epochs=(attack.taught_epochs or config.taught_epochs) if attack else config.epochs,
        learning_rate=(attack.taught_rate or config.taught_rate) if attack else config.learning_rate,
        poisoned=attack.poisoned if attack else 0.0,
        target=config.target,
        seed=config.seed,
    )


def load_evaluation(path: Path) -> EvaluationConfig:
    """The evaluation that a YAML file describes.

    Raises:
        ConfigError: Not readable, not YAML, or a field is unknown, missing or wrong.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"config {path}: can't be read: {error.strerror}. Name an existing YAML file.") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"config {path}: not YAML: {' '.join(str(error).split())}.") from None
    try:
        return EvaluationConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{path}: {_described(item)}" for item in error.errors())) from None


_MODELS: dict[str, type[BaseModel]] = {
    "sets": SetConfig,
    "attacks": AttackConfig,
    "recipes": RecipeConfig,
    "defences": DefenceConfig,
    "sweeps": SweepConfig,
}


def _described(item: Any) -> str:  # noqa: ANN401 - pydantic's error details
    location = [str(part) for part in item["loc"]]
    field = ".".join(location) or "the config"
    if item["type"] == "extra_forbidden":
        lists = [part for part in location[:-1] if part in _MODELS]
        known = list((_MODELS[lists[-1]] if lists else EvaluationConfig).model_fields)
        return f"no such field {field!r}.{nearest(location[-1], known)} Known here: {', '.join(known)}."
    found = "" if item["type"] in ("missing", "value_error") else f", found {item['input']!r}"
    return f"{field}: {item['msg'].removeprefix('Value error, ')}{found}."
