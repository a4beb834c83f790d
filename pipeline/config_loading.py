"""Where a job's settings come from: a YAML file, the environment over it, flags over both.

Unknown fields are errors that name the nearest known one; each wrong field gets a line.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, SecretStr, ValidationError

from pipeline.config import JobConfig
from pipeline.dates import fill_date
from pipeline.errors import ConfigError
from zipstage.errors import nearest

ENVIRONMENT_PREFIX = "ZIPSTAGE_"


def load_config(
    path: str | os.PathLike[str] | None = None,
    flags: dict[str, Any] | None = None,
    environment: dict[str, str] | None = None,
    defaults: dict[str, Any] | None = None,
) -> JobConfig:
    """The job of a YAML file, the environment over it, and flags over both.

    Args:
        path: A YAML file, or none.
        flags: Nested values, as `nest` makes them of dotted names.
        environment: Variables; those that begin with ZIPSTAGE_ count, `__` between levels.
        defaults: Nested values of fields that nothing else sets.

    Raises:
        ConfigError: Not readable, not YAML, or fields that are unknown, missing or wrong: each is named.
        SettingsError: The purifier has no such method, preset or setting.
    """
    values: dict[str, Any] = dict(defaults or {})
    if path is not None:
        values = _merge(values, _read_yaml(Path(path)))
    for over in (_from_environment(environment or {}), flags or {}):
        values = _merge(values, over)
    values = fill_date(values)
    try:
        return JobConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(describe(error, str(path) if path else "the flags")) from None


def nest(values: dict[str, Any]) -> dict[str, Any]:
    """Nested dictionaries of dotted names: {'a.b': 1} becomes {'a': {'b': 1}}."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        level: dict[str, Any] = {}
        nested_value: Any = value
        for part in reversed(name.split(".")):
            level = {part: nested_value}
            nested_value = level
        nested = _merge(nested, level)
    return nested


def describe(error: ValidationError, where: str) -> str:
    """One line for each wrong field: the field, what was expected, what was found."""
    lines = []
    for item in error.errors():
        field = ".".join(str(part) for part in item["loc"])
        match item["type"]:
            case "extra_forbidden":
                known = _fields_at(item["loc"][:-1])
                hint = nearest(str(item["loc"][-1]), known)
                lines.append(f"{where}: no such field {field!r}.{hint} Known here: {', '.join(known)}.")
            case "missing":
                lines.append(f"{where}: {field!r} is missing: {_description(item['loc'])}.")
            case _:
                found = "" if field == "" or item["type"] == "value_error" else f", found {_shown(item)}"
                lines.append(f"{where}: {field or 'the job'}: {item['msg'].removeprefix('Value error, ')}{found}.")
    return "\n".join(lines)


def _read_yaml(path: Path) -> dict[str, Any]:
    if path.is_dir() or path.name.endswith((".tar", ".tar.gz")):
        found = "a folder" if path.is_dir() else "a shard"
        pack = f" If it holds pictures, pack them first: zipstage pack {path} shards/" if path.is_dir() else ""
        raise ConfigError(
            f"config {path}: expected YAML, found {found}. An input needs its flag: --input {path}.{pack}"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"config {path}: can't be read: {error.strerror}. Name an existing YAML file.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"config {path}: expected YAML in UTF-8, found other bytes.") from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"config {path}: not YAML: {reason}.") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"config {path}: expected fields such as `input: ...`, found a {type(values).__name__}.")
    return values


def _from_environment(environment: dict[str, str]) -> dict[str, Any]:
    found = {}
    top = set(JobConfig.model_fields)
    for name, text in environment.items():
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        path = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        if path[0] in top:  # ZIPSTAGE_DATA and the like belong to others
            field = ".".join(path)
            found[field] = parse_value(text, field)
    return nest(found)


def parse_value(text: str, field: str = "") -> Any:  # noqa: ANN401 - whatever YAML makes of it
    """A flag's or a variable's text, read as YAML: `3`, `true`, `[a, b]`; else the text itself.

    The value of a text field stays as it stands: `--output 2026-11-20` is no date, a seed of digits no number.
    """
    is_list = text.startswith("[") and text.endswith("]")
    if field and _is_text(field) and not is_list:
        return None if text in ("null", "~") else text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return text if value is None and text.strip() not in ("null", "~") else value


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _model_at(location: tuple[int | str, ...]) -> type[BaseModel] | None:
    model: type[BaseModel] = JobConfig
    for part in location:
        field = model.model_fields.get(str(part))
        annotation = field.annotation if field else None
        options = [annotation, *getattr(annotation, "__args__", ())]
        below = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
        if below is None:
            return None
        model = below
    return model


def _is_text(field: str) -> bool:
    """Whether a field, or each element of a list field, is text."""
    *above, name = field.split(".")
    model = _model_at(tuple(above))
    known = model.model_fields.get(name) if model else None
    if known is None:
        return False
    annotation = known.annotation
    if get_origin(annotation) is dict:
        return False
    if get_origin(annotation) is tuple:
        annotation = get_args(annotation)[0]
    return {*(get_args(annotation) or (annotation,))} <= {str, SecretStr, type(None)}


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    model = _model_at(location)
    return list(model.model_fields) if model else []


def _description(location: tuple[int | str, ...]) -> str:
    model = _model_at(location[:-1])
    field = model.model_fields.get(str(location[-1])) if model else None
    return (field.description if field else None) or "it has no default"


def _shown(item: Any) -> str:  # noqa: ANN401 - pydantic's error details
    secret = any(str(part) in ("seed", "token", "headers") for part in item["loc"])
    return "a secret" if secret else repr(item["input"])
