"""The settings of a training: a recipe, the sets of images, and what the card says of them.

Unknown fields are errors that name the nearest known one.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import ConfigError
from zipstage.errors import nearest
from zipstage.priors.recipe import Recipe


class ImageSetConfig(BaseModel):
    """One set of images to train on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str = Field(description="below the data folder; holds shards")
    labelled: bool = Field(False, description="whether the recognition network learns its labels")
    held_out: int = Field(0, ge=0, description="first images that no training sees; the card's losses are theirs")
    origin: str = Field("", description="for the card: what these images are and where they come from")


class TrainingConfig(BaseModel):
    """A recipe and what it is fed with.

    Example:
        recipe: {images: 400000, batch: 64, seed: 0}
        data:
          - {folder: photographs, labelled: true, held_out: 500, origin: "20,000 photographs of our own"}
        terms: the same as the code's
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: Recipe = Field(Recipe(), description="how the restorer is made")
    data: tuple[ImageSetConfig, ...] = Field(min_length=1, description="sets of images to train on")
    terms: str = Field("", description="for the card: what the images' terms allow")
    notes: str = Field("", description="for the card: how the run that made the weights went")

    @model_validator(mode="after")
    def _sets_serve(self) -> TrainingConfig:
        labelled = sum(images.labelled for images in self.data)
        if labelled != 1 and self.recipe.feature_weight:
            raise ValueError(f"data: expected one set with `labelled: true` for the feature loss, found {labelled}")
        if not any(images.held_out for images in self.data):
            raise ValueError("data: expected a set with `held_out` images for the card, found none")
        return self


def load_training_config(path: Path) -> TrainingConfig:
    """The training that a YAML file describes.

    Raises:
        ConfigError: Not readable, not YAML, or a field is unknown, missing or wrong.
        SettingsError: A number of the recipe is out of range.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"config {path}: can't be read: {error.strerror}. Name an existing YAML file.") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"config {path}: not YAML: {' '.join(str(error).split())}.") from None
    try:
        return TrainingConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{path}: {_described(item)}" for item in error.errors())) from None


def _described(item: Any) -> str:  # noqa: ANN401 - pydantic's error details
    *above, name = [str(part) for part in item["loc"]] or ["the config"]
    field = ".".join([*above, name])
    if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _fields_below(above)
        return f"no such field {field!r}.{nearest(name, known)} Known here: {', '.join(known)}."
    found = "" if item["type"] in ("missing", "value_error") else f", found {item['input']!r}"
    return f"{field}: {item['msg'].removeprefix('Value error, ')}{found}."


def _fields_below(above: list[str]) -> list[str]:
    match above:
        case ["recipe"]:
            return [field.name for field in fields(Recipe)]
        case ["data", _]:
            return list(ImageSetConfig.model_fields)
        case _:
            return list(TrainingConfig.model_fields)
