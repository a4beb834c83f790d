"""From flags to a job: any field of the job's models is a flag, dotted, with dashes or underscores.

The models in `pipeline.config` stay the one place that knows fields, types and defaults; here is
only how people type them. Loads neither torch nor Ray, since every command passes through here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from pipeline.config import JobConfig
from pipeline.config_loading import load_config, nest, parse_value
from pipeline.errors import ConfigError
from zipstage.errors import nearest
from zipstage.purifiers.settings import METHODS

PURIFIER = "purifier."


@dataclass(frozen=True, slots=True)
class Flag:
    """A field of the job, as a flag.

    Args:
        name: Dotted, as the models spell it: `classifier.input.size`.
        field: Pydantic's description of it.
    """

    name: str
    field: FieldInfo

    @property
    def is_switch(self) -> bool:
        """Whether it is on without a value, and off as `--no-...`."""
        return self.field.annotation is bool

    @property
    def is_list(self) -> bool:
        """Whether it is typed once for each value."""
        return get_origin(self.field.annotation) is tuple

    @property
    def typed(self) -> str:
        """How people type it."""
        return "--" + self.name.replace("_", "-")

    @property
    def default(self) -> str:
        """Its default as people would type it; empty when it has none."""
        value = self.field.default
        if self.field.is_required() or value is None or value is False or value == {}:
            return ""
        if isinstance(value, SecretStr):
            return value.get_secret_value()
        if isinstance(value, tuple):
            return f"[{', '.join(str(element) for element in value)}]"
        return str(value).lower() if value is True else str(value)


@cache
def flags() -> dict[str, Flag]:
    """All fields of a job that hold a value, by name, in the order of the models."""
    return {flag.name: flag for flag in _flags_of(JobConfig, "")}


def read_job(
    tokens: Sequence[str],
    environment: Mapping[str, str],
    fixed: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> JobConfig:
    """The job that a command line, the environment and a YAML file say together.

    Args:
        tokens: What follows the command: at most one CONFIG.yaml, and flags.
        environment: Variables; those that begin with ZIPSTAGE_ count.
        fixed: Fields that the command sets itself, by dotted name.
        defaults: Fields that are set so where nothing else sets them, by dotted name.

    Raises:
        ConfigError: Unknown, missing or wrong fields; each is named.
        SettingsError: The purifier has no such method, preset or setting.
    """
    config, values = parse_flags(tokens)
    return load_config(config, nest({**values, **(fixed or {})}), dict(environment), nest(dict(defaults or {})))


def parse_flags(tokens: Sequence[str]) -> tuple[str | None, dict[str, Any]]:
    """The config file, if one is named, and the fields by dotted name.

    Raises:
        ConfigError: An unknown flag, a flag without its value, or two config files.
    """
    config: str | None = None
    values: dict[str, Any] = {}
    waiting = list(reversed(tokens))
    while waiting:
        token = waiting.pop()
        if not token.startswith("--"):
            if config is not None:
                raise ConfigError(
                    f"expected one CONFIG.yaml, found {config!r} and {token!r}. Each value needs its flag: "
                    "--input A --output B; a pattern needs quotes: --input 'in/*.tar'."
                )
            config = token
            continue
        name, value = _value_of(token, waiting)
        flag = flags().get(name)
        if flag is not None and flag.is_list and not isinstance(value, list):
            value = [*values.get(name, []), value]
        elif name in values:
            raise ConfigError(f"--{name}: expected once, found twice.")
        values[name] = value
    return config, values


def _value_of(token: str, waiting: list[str]) -> tuple[str, Any]:
    """Field and value of a flag; takes the value from the waiting tokens where it needs one."""
    typed, has_value, text = token.partition("=")
    name = typed.removeprefix("--").replace("-", "_")
    if name.startswith("no_") and not has_value and _is_switch(name.removeprefix("no_")):
        return name.removeprefix("no_"), False
    _refuse_unknown(typed, name)
    if has_value:
        return name, parse_value(text, name)
    if _is_switch(name):
        return name, True
    if not waiting or waiting[-1].startswith("--"):
        found = f"found {waiting[-1]!r}" if waiting else "found none"
        raise ConfigError(f"{typed}: expected a value, {found}. Write it as {typed} VALUE or {typed}=VALUE.")
    return name, parse_value(waiting.pop(), name)


def _is_switch(name: str) -> bool:
    flag = flags().get(name)
    return flag.is_switch if flag else name in _method_switches()


def _refuse_unknown(typed: str, name: str) -> None:
    """Name what is nearest; what a purifier's method can be told is for `settings_for` to judge."""
    if name in flags() or (name.startswith(PURIFIER) and name.count(".") == 1):
        return
    if any(flag.startswith(f"{name}.") for flag in flags()):
        below = [flag.typed for flag in flags().values() if flag.name.startswith(f"{name}.")]
        raise ConfigError(f"{typed}: is a group of fields. Set one of them: {', '.join(below)}.")
    known = [flag.typed for flag in flags().values()]
    hint = nearest(typed, known)
    raise ConfigError(f"{typed}: there is no such flag.{hint} `zipstage purify --help -v` lists them.")


@cache
def _method_switches() -> frozenset[str]:
    """Settings of methods that are on or off."""
    presets = [preset for method in METHODS.values() for preset in method.presets.values()]
    return frozenset(
        PURIFIER + field.name
        for preset in presets
        for field in fields(preset)
        if isinstance(getattr(preset, field.name), bool)
    )


def _flags_of(model: type[BaseModel], above: str) -> Iterator[Flag]:
    for name, field in model.model_fields.items():
        inner = model_in(field.annotation)
        if inner is None:
            yield Flag(above + name, field)
        else:
            yield from _flags_of(inner, f"{above}{name}.")


def model_in(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - whatever a field is annotated with
    """The model that a field holds, optional or not; None when it holds a value."""
    options = [annotation, *get_args(annotation)]
    return next((option for option in options if isinstance(option, type) and issubclass(option, BaseModel)), None)
