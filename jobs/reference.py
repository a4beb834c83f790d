"""`docs/configuration.md`, made from the models: each field with its type, default and range, and what it does.

    python -m jobs.reference

Words come from the models alone, from descriptions of fields and from docstrings: what the page doesn't say, a
model doesn't. A docstring's `Example:` is shown as YAML; without one, the defaults are.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import annotated_types
import yaml
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from jobs.arguments import model_in
from jobs.evaluate import config as evaluation
from jobs.training_config import ImageSetConfig, TrainingConfig
from pipeline import config as job
from pipeline.classifier_config import ClassifierConfig, InputConfig
from pipeline.protocols import PROTOCOLS
from zipstage.evaluation.attacks import ATTACKS
from zipstage.priors.recipe import Recipe
from zipstage.purifiers.checks import allowed
from zipstage.purifiers.settings import METHODS, Method, Settings

PAGE = Path(__file__).parents[1] / "docs/configuration.md"

_INTRODUCTION = """# Configuration

Every field of every YAML file, made from the models by `python -m jobs.reference`; a test holds it up to date.

Three kinds of files: [a job](#a-job), for `zipstage purify`, `query`, `plan`, `probe`, `submit` and `bench`;
[an evaluation](#an-evaluation), for `zipstage evaluate`; [a training](#a-training), for `zipstage prior train`.
`jobs/configs` has ready ones. An unknown field is an error that names the nearest known one.

A field of a job may stand in the file, in the environment and as a flag; a flag wins over the environment, which wins
over the file:

| file | environment | flag |
|---|---|---|
| `purifier: {preset: fast}` | `ZIPSTAGE_PURIFIER__PRESET=fast` | `--purifier.preset fast` |
| `overwrite: true` | `ZIPSTAGE_OVERWRITE=true` | `--overwrite`, `--no-overwrite` |
| `classifier: {input: {mean: [.5, .4, .3]}}` | `ZIPSTAGE_CLASSIFIER__INPUT__MEAN=[.5,.4,.3]` | \
`--classifier.input.mean "[.5, .4, .3]"` |

"""


@dataclass(frozen=True, slots=True)
class Row:
    """A field: what it holds, what it holds where nothing is said, what it may hold, what it does."""

    name: str
    type: str
    default: str
    allowed: str
    about: str


def page() -> str:
    """The whole page."""
    return "\n".join([_INTRODUCTION, *_job(), *_evaluation(), *_training()]).replace("\n\n\n", "\n\n").rstrip() + "\n"


def _job() -> Iterator[str]:
    yield from _model("## A job", job.JobConfig)
    yield from _model("### `purifier`", job.PurifierConfig, "purifier")
    for name, method in METHODS.items():
        yield from _method(name, method)
    for group, field in job.JobConfig.model_fields.items():
        inner = model_in(field.annotation)
        if inner is not None and group not in ("purifier", "classifier"):
            yield from _model(f"### `{group}`", inner, group)
        elif group == "classifier":
            yield from _classifier()


def _classifier() -> Iterator[str]:
    yield from _model("### `classifier`", ClassifierConfig)
    yield from _model("#### `input`", InputConfig, "input")
    for name, protocol in PROTOCOLS.items():
        yield f"#### Protocol `{name}`\n\n{textwrap.fill(protocol.about, 120)}\n"
        takes = f" Takes {_listed(protocol.takes)} beside what all take." if protocol.takes else ""
        yield f"Needs {_listed(protocol.needs)}.{takes}\n"
        yield _yaml({"classifier": {"protocol": name, **protocol.example}})


def _evaluation() -> Iterator[str]:
    yield from _model("## An evaluation", evaluation.EvaluationConfig)
    yield from _model("### `sets`", evaluation.SetConfig)
    yield from _model("### `recipes`", evaluation.RecipeConfig, "recipes")
    yield from _model("### `attacks`", evaluation.AttackConfig)
    for name, attack in ATTACKS.items():
        yield from _settings(f"#### Attack `{name}`", attack, {})
        yield _yaml({"attacks": [{"name": name, "parameters": _defaults(attack)}]})
    yield from _model("### `defences`", evaluation.DefenceConfig)
    yield from _model("### `sweeps`", evaluation.SweepConfig)
    yield from _model("### `adaptive`", evaluation.AdaptiveConfig)


def _training() -> Iterator[str]:
    yield from _model("## A training", TrainingConfig)
    yield from _settings("### `recipe`", Recipe, {})
    yield from _model("### `data`", ImageSetConfig)


def _method(name: str, method: Method) -> Iterator[str]:
    default = method.presets["default"]
    yield from _settings(f"#### Method `{name}`", type(default), method.presets)
    example = _example(type(default))
    yield example or _yaml({"purifier": {"method": name, "preset": "default", **_defaults(type(default))}})


def _settings(title: str, of: type, presets: Mapping[str, Settings]) -> Iterator[str]:
    """The section of a dataclass."""
    yield f"{title}\n\n{_about(of)}\n"
    others = [f"- `{name}`: {_difference(preset)}" for name, preset in presets.items() if name != "default"]
    if others:
        yield "Presets beside `default`:\n\n" + "\n".join(others) + "\n"
    yield _table(_rows_of_dataclass(of))


def _difference(preset: Settings) -> str:
    plain = type(preset)()
    changed = ((f.name, getattr(preset, f.name), getattr(plain, f.name)) for f in dataclasses.fields(preset))
    return ", ".join(f"`{name}` {_shown(value)}" for name, value, usual in changed if value != usual)


def _model(title: str, model: type[BaseModel], group: str = "") -> Iterator[str]:
    """The section of a pydantic model; its example is its docstring's, else, where a group is named, its defaults."""
    yield f"{title}\n\n{_about(model)}\n"
    yield _table(_rows_of_model(model))
    if example := _example(model):
        yield example
    elif group:
        values = {
            name: _plain(field.default) for name, field in model.model_fields.items() if field.default is not None
        }
        yield _yaml({group: [values] if group.endswith("s") and "name" in values else values})


def _rows_of_model(model: type[BaseModel]) -> Iterator[Row]:
    for name, field in model.model_fields.items():
        inner = next(filter(None, map(model_in, (field.annotation, *get_args(field.annotation)))), None)
        about = field.description or (_about(inner).partition(".")[0] if inner else "")
        limits = ", ".join(filter(None, (_choices(field.annotation), *_limits(field.metadata))))
        yield Row(name, _type(field.annotation, name), _default(field), limits, about)


def _limits(metadata: Iterable[Any]) -> Iterator[str]:
    """What pydantic refuses, in words."""
    bounds = {type(each): each for each in metadata}
    ge, le = bounds.pop(annotated_types.Ge, None), bounds.pop(annotated_types.Le, None)
    if ge is not None:
        yield f"{ge.ge} upwards" if le is None else f"{ge.ge} to {le.le}"
    for each in bounds.values():
        match each:
            case annotated_types.Gt(gt=low):
                yield f"above {low}"
            case annotated_types.Lt(lt=high):
                yield f"below {high}"
            case annotated_types.MinLen(min_length=count):
                yield f"{count} or more"
            case _ if getattr(each, "pattern", None):
                yield "letters, digits, `_`, `.`, `-`"
    if le is not None and ge is None:
        yield f"up to {le.le}"


def _rows_of_dataclass(of: type) -> Iterator[Row]:
    about, hints = _arguments(of), get_type_hints(of)
    for field in dataclasses.fields(of):
        may_be = allowed(field)
        yield Row(
            field.name,
            _type(hints[field.name], field.name),
            _shown(field.default),
            may_be.words if may_be else "",
            about.get(field.name, ""),
        )


def _type(annotation: Any, name: str) -> str:  # noqa: ANN401 - whatever a field is annotated with
    """Its kind in plain words, with the unit that its name ends in."""
    options = [each for each in get_args(annotation) if each is not type(None)]
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(dict.fromkeys(_type(each, name) for each in options))
    if get_origin(annotation) is tuple:
        kinds = [f"{_type(each, '')}s" for each in options if each is not Ellipsis]
        return f"{len(kinds)} {kinds[0]}" if len(kinds) == len(options) else f"list of {kinds[0]}"
    if get_origin(annotation) is Literal:
        return "text"
    unit = next((f", {unit}" for ending, unit in _UNITS.items() if name.endswith(ending)), "")
    return _TYPES.get(get_origin(annotation) or annotation, "group") + unit


_TYPES: dict[Any, str] = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "true or false",
    SecretStr: "secret text",
    dict: "mapping",
    Any: "value",
}
_UNITS = {"_mib": "MiB", "_per_s": "a second", "_s": "seconds"}


def _choices(annotation: Any) -> str:  # noqa: ANN401 - whatever a field is annotated with
    literal = next((each for each in (annotation, *get_args(annotation)) if get_origin(each) is Literal), None)
    return ", ".join(str(each) for each in get_args(literal))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if isinstance(field.default, BaseModel) or dataclasses.is_dataclass(field.default):
        return "its defaults"
    return _shown(field.default)


def _shown(value: Any) -> str:  # noqa: ANN401 - a setting
    if isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        return "one of its defaults"
    if value is None or value in ("", (), {}):
        return "none"
    text = yaml.safe_dump(_plain(value), default_flow_style=True)
    text = text.removesuffix("...\n").strip()  # which ends a document of a bare value
    return f"`{text}`"


def _plain(value: Any) -> Any:  # noqa: ANN401 - as YAML has it
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, float) and abs(value - round(value, 6)) > 1e-9:
        return round(value, 6)
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _defaults(of: type) -> dict[str, Any]:
    return {field.name: _plain(field.default) for field in dataclasses.fields(of)}


def _about(of: type) -> str:
    """A docstring without its sections, filled anew."""
    text = re.split(r"\n\n(?:Args|Example|Raises|Attributes):\n", inspect.getdoc(of) or "")[0]
    return "\n\n".join(textwrap.fill(" ".join(part.split()), 120) for part in text.split("\n\n"))


def _arguments(of: type) -> dict[str, str]:
    """What a docstring's `Args:` says of each."""
    found: dict[str, str] = {}
    section = re.search(r"\nArgs:\n((?:    .*\n?|\n)+)", f"{inspect.getdoc(of)}\n")
    entries = re.findall(r"^    (\S.*?): (.*(?:\n {8}.*)*)", section[1] if section else "", re.MULTILINE)
    for names, text in entries:
        found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return found


def _example(of: type) -> str:
    section = re.search(r"\nExample:\n((?:    .*\n?|\n)+)", f"{inspect.getdoc(of)}\n")
    return f"```yaml\n{textwrap.dedent(section[1]).strip()}\n```\n" if section else ""


def _yaml(value: Any) -> str:  # noqa: ANN401 - as YAML has it
    return f"```yaml\n{yaml.safe_dump(value, sort_keys=False, default_flow_style=None, width=110)}```\n"


def _table(rows: Iterable[Row]) -> str:
    head = "| field | type | default | may be | what it does |\n|---|---|---|---|---|\n"
    lines = "".join(_line(row) for row in rows)
    return head + lines if lines else ""


def _line(row: Row) -> str:
    is_group = row.type in ("group", "list of groups") and row.name != "steps"
    name = f"[`{row.name}`](#{row.name})" if is_group else f"`{row.name}`"
    begins = re.match(r"[a-z]+ ", row.about)
    about = (row.about[0].upper() + row.about[1:] if begins else row.about).rstrip(".")
    return re.sub(r"\|  +\|", "| |", f"| {name} | {row.type} | {row.default} | {row.allowed} | {about} |\n")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
